//! From an order to what Incus is told: pure functions.

use std::{collections::BTreeMap, net::Ipv4Addr, path::Path};

use gantry_model::{ContainerId, SnapshotId, share::MOUNT_DIR};
use sha2::{Digest as _, Sha256};

use super::wire::{IdRange, Instance, Map};
use crate::{
    Observed, Order, State,
    embedded::image::Mapping,
    kvm,
    network::{Network, hardware, link_name},
    project_ramdisks::INSIDE as SHARED_MEMORY,
    sessions::INSIDE,
};

/// Keys that we keep at a container. `MADE` is set last: one without it is what a crash left.
pub(super) const MADE: &str = "user.gantry.made";
/// Its address.
pub(super) const ADDRESS: &str = "user.gantry.address";
/// Whether it was ever started.
pub(super) const STARTED: &str = "user.gantry.started";
/// What the files of a snapshot take, in bytes.
pub(super) const BYTES: &str = "user.gantry.bytes";
/// The variables that were removed since it was started, with commas between.
pub(super) const UNSET: &str = "user.gantry.unset";
/// What the keys of variables begin with, and of those of several lines.
const ENVIRONMENT: &str = "environment.";
const LINES: &str = "user.gantry.environment.";
/// What was written into it.
pub(super) const IDENTITY: &str = "user.gantry.identity";
/// What its init is, as [`Init`] writes it.
pub(super) const INIT: &str = "user.gantry.init";

/// What decides how an init is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Init {
    /// One that Incus knows how to ask: systemd, busybox, openrc.
    Known,
    /// Any other program, which is sent SIGTERM.
    Plain,
}

impl Init {
    /// What a link at the usual place of an init leads to; `None` for no link.
    pub(super) fn of(link: Option<&str>) -> Self {
        let name = link.and_then(|link| link.rsplit('/').next()).unwrap_or_default();
        if matches!(name, "systemd" | "busybox" | "openrc-init") {
            Self::Known
        } else {
            Self::Plain
        }
    }

    /// As it is kept at the container.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Known => "known",
            Self::Plain => "plain",
        }
    }

    /// As it was kept.
    pub(super) fn parse(word: Option<&String>) -> Self {
        if word.is_some_and(|word| word == "plain") { Self::Plain } else { Self::Known }
    }
}

/// Incus' name of a container: names may not start with a digit.
pub(super) fn name(id: ContainerId) -> String {
    format!("g-{id}")
}

/// The container that has a name; `None` for one that is not ours.
pub(super) fn id(name: &str) -> Option<ContainerId> {
    name.strip_prefix("g-")?.parse().ok()
}

/// Incus' name of the container that takes another's place.
pub(super) fn fresh_name(id: ContainerId) -> String {
    format!("n-{id}")
}

/// The container whose place it takes.
pub(super) fn fresh(name: &str) -> Option<ContainerId> {
    name.strip_prefix("n-")?.parse().ok()
}

/// Incus' name of a snapshot.
pub(super) fn snapshot_name(id: SnapshotId) -> String {
    format!("s-{id}")
}

/// The snapshot that has a name.
pub(super) fn snapshot(name: &str) -> Option<SnapshotId> {
    name.strip_prefix("s-")?.parse().ok()
}

/// Incus' name of what is being read as an archive.
pub(super) fn export_name(token: u64) -> String {
    format!("e-{token:x}")
}

/// Whether it is that.
pub(super) fn is_export(name: &str) -> bool {
    name.starts_with("e-")
}

/// How the owners of its files are kept on disk.
pub(super) fn on_disk(instance: &Instance) -> Result<Mapping, String> {
    let key = instance.config.get("volatile.last_state.idmap");
    let ranges = key.map_or("", String::as_str).trim();
    let ranges: Vec<IdRange> = if ranges.is_empty() {
        Vec::new()
    } else {
        serde_json::from_str(ranges).map_err(|error| format!("its map of ids: {error}"))?
    };
    let one = |is_it: fn(&IdRange) -> bool| -> Result<Option<Mapping>, String> {
        let mut found = ranges.iter().filter(|range| is_it(range));
        match (found.next(), found.next()) {
            (None, _) => Ok(None),
            (Some(IdRange { nsid: 0, hostid, maprange, .. }), None) => {
                let size = u32::try_from(*maprange).unwrap_or(u32::MAX);
                Ok(Some(Mapping { base: *hostid, size }))
            }
            (Some(_), _) => Err(format!("its map of ids is no single range: {ranges:?}")),
        }
    };
    match (one(|range| range.isuid)?, one(|range| range.isgid)?) {
        // They are kept as the container sees them.
        (None, None) => Ok(Mapping { base: 0, size: u32::MAX }),
        (Some(users), Some(groups)) if users == groups => Ok(users),
        _ => Err(format!("its users and groups have different maps: {ranges:?}")),
    }
}

/// Whether it is whole.
pub(super) fn is_made(instance: &Instance) -> bool {
    instance.config.get(MADE).is_some_and(|made| made == "true")
}

/// What the files of a snapshot take, in bytes.
pub(super) fn bytes(instance: &Instance) -> u64 {
    instance.config.get(BYTES).and_then(|bytes| bytes.parse().ok()).unwrap_or(0)
}

/// The address that a container was made with.
pub(super) fn address(instance: &Instance) -> Option<Ipv4Addr> {
    instance.config.get(ADDRESS)?.parse().ok()
}

/// A container as the port sees it; `None` for one that is not whole, or not ours.
pub(super) fn observed(instance: &Instance) -> Option<Observed> {
    let id = id(&instance.name).or_else(|| fresh(&instance.name))?;
    if !is_made(instance) {
        return None;
    }
    let address = address(instance).map(Into::into);
    let started = instance.config.get(STARTED).is_some_and(|started| started == "true");
    let state = match instance.status.as_str() {
        "Frozen" | "Freezing" => State::Paused,
        // What cannot be asked now is not gone: it is looked at again.
        "Running" | "Stopping" | "Error" => State::Running,
        _ if started => State::Stopped,
        _ => State::Created,
    };
    Some(Observed { id, state, address })
}

/// The keys that never change. Always in a user namespace, never started by Incus itself.
pub(super) fn fixed(address: Ipv4Addr) -> Map {
    [
        ("boot.autostart", "false"),
        ("security.guestapi", "false"),
        ("security.nesting", "false"),
        ("security.privileged", "false"),
        (ADDRESS, address.to_string().as_str()),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

/// The keys of one start, in place of those of the last one.
pub(super) fn config(before: &Map, order: &Order, network: &Network, init: Init) -> Map {
    let kept = |key: &&String| {
        ["volatile.", "image.", "user.", "security.", "boot."]
            .iter()
            .any(|prefix| key.starts_with(prefix))
    };
    let kept = before.keys().filter(kept).filter(|key| !key.starts_with(LINES));
    let mut config: Map =
        kept.filter_map(|key| Some((key.clone(), before.get(key)?.clone()))).collect();
    config.extend(order.env.iter().map(variable));
    let limits = &order.limits;
    if limits.memory_bytes > 0 {
        config.insert("limits.memory".to_owned(), limits.memory_bytes.to_string());
    }
    if limits.cpu_millis > 0 {
        // Of every 100 ms; Incus takes whole ones.
        let allowance = format!("{}ms/100ms", limits.cpu_millis.div_ceil(10).max(1));
        config.insert("limits.cpu.allowance".to_owned(), allowance);
    }
    if limits.pids > 0 {
        config.insert("limits.processes".to_owned(), limits.pids.to_string());
    }
    if let Some(address) = before.get(ADDRESS) {
        config.insert("raw.lxc".to_owned(), raw(address, order, network, init));
    }
    config.insert(STARTED.to_owned(), "true".to_owned());
    config.remove(UNSET);
    config
}

/// The key of a variable. Incus writes `environment.*` into a configuration of LXC, line by line; a value
/// of several lines must never get there, because what stands on the next one could be run by the
/// host (CVE-2026-23953). Commands are given those one by one, and the init without them.
fn variable((key, value): (&String, &String)) -> (String, String) {
    let prefix = if value.contains(['\n', '\r']) { LINES } else { ENVIRONMENT };
    (format!("{prefix}{key}"), value.clone())
}

/// The variables of several lines.
pub(super) fn of_lines(config: &Map) -> impl Iterator<Item = (&str, &str)> {
    let pairs = config.iter().filter(|(_, value)| !value.is_empty());
    pairs.filter_map(|(key, value)| Some((key.strip_prefix(LINES)?, value.as_str())))
}

/// The variables that a command is not to have, though the init was started with them.
pub(super) fn unset(config: &Map) -> impl Iterator<Item = &str> {
    config
        .get(UNSET)
        .map(String::as_str)
        .unwrap_or_default()
        .split(',')
        .filter(|key| !key.is_empty())
}

/// The keys that make these the variables, with empty values for those to be removed; `None` when
/// they are the variables.
pub(super) fn environment(before: &Map, env: &BTreeMap<String, String>) -> Option<Map> {
    let name = |key: &str| {
        let name = key.strip_prefix(ENVIRONMENT).or_else(|| key.strip_prefix(LINES));
        name.map(str::to_owned)
    };
    let wanted: Map = env.iter().map(variable).collect();
    let present = before.iter().filter(|(key, value)| name(key).is_some() && !value.is_empty());
    let present: Map = present.map(|(key, value)| (key.clone(), value.clone())).collect();
    if present == wanted {
        return None;
    }
    let unset = unset(before).map(str::to_owned);
    let removed = present.keys().filter_map(|key| name(key)).chain(unset);
    let mut removed: Vec<String> = removed.filter(|key| !env.contains_key(key)).collect();
    removed.sort_unstable();
    removed.dedup();
    let removed = removed.join(",");
    let mut keys: Map = present.into_keys().map(|key| (key, String::new())).collect();
    keys.extend(wanted);
    keys.insert(UNSET.to_owned(), removed);
    Some(keys)
}

/// What Incus has no keys for: the address is set from outside, before the init starts, so that
/// nothing waits for DHCP. Everything in it comes from checked types.
fn raw(address: &str, order: &Order, network: &Network, init: Init) -> String {
    let (prefix, gateway) = (network.prefix(), network.gateway());
    let halt = match init {
        Init::Known => "",
        Init::Plain => "lxc.signal.halt=SIGTERM\n",
    };
    format!(
        "lxc.uts.name={}\nlxc.net.0.ipv4.address={address}/{prefix}\n\
         lxc.net.0.ipv4.gateway={gateway}\n{halt}",
        order.hostname
    )
}

/// The device that the files are in.
pub(super) fn root_only(pool: &str) -> BTreeMap<String, Map> {
    let root = [("type", "disk"), ("path", "/"), ("pool", pool)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()));
    BTreeMap::from([("root".to_owned(), root.into())])
}

/// What of the host is mounted in a container.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mounted<'a> {
    /// The ramdisk.
    pub(super) ramdisk: Option<&'a Path>,
    /// What it shares with its project in memory.
    pub(super) project_ramdisk: Option<&'a Path>,
    /// Where what others share with it appears.
    pub(super) shares: Option<&'a Path>,
    /// What it has for sessions.
    pub(super) session: Option<&'a Path>,
    /// Whether it has `/dev/kvm`.
    pub(super) kvm: bool,
}

/// The name of the device that brings in what sessions need.
pub(super) const SESSION: &str = "session";

/// That device.
pub(super) fn session(source: &Path) -> Map {
    let source = source.display().to_string();
    let pairs = [("type", "disk"), ("source", &source), ("path", INSIDE), ("readonly", "true")];
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// Whether a container has it.
pub(super) fn has_session(instance: &Instance) -> bool {
    let device = instance.devices.get(SESSION);
    device.and_then(|device| device.get("type")).is_some_and(|kind| kind == "disk")
}

/// The devices: the root, the link to the bridge, and the ramdisk, `/dev/kvm` and the places of shares and sessions
/// where there are any.
pub(super) fn devices(
    pool: &str,
    bridge: &str,
    address: Ipv4Addr,
    mounted: Mounted<'_>,
) -> BTreeMap<String, Map> {
    let device = |pairs: &[(&str, &str)]| -> Map {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let hardware = hardware(address).map(|octet| format!("{octet:02x}")).join(":");
    let (link, own) = (link_name(address), address.to_string());
    let mut devices = root_only(pool);
    devices.insert(
        "eth0".to_owned(),
        device(&[
            ("type", "nic"),
            ("nictype", "bridged"),
            ("parent", bridge),
            ("name", "eth0"),
            ("host_name", &link),
            ("hwaddr", &hardware),
            ("ipv4.address", &own),
            ("security.mac_filtering", "true"),
            ("security.ipv4_filtering", "true"),
            ("security.port_isolation", "true"),
        ]),
    );
    if let Some(source) = mounted.ramdisk {
        let source = source.display().to_string();
        let pairs =
            [("type", "disk"), ("source", &source), ("path", "/ramdisk"), ("shift", "true")];
        devices.insert("ramdisk".to_owned(), device(&pairs));
    }
    if let Some(source) = mounted.project_ramdisk {
        let source = source.display().to_string();
        let pairs =
            [("type", "disk"), ("source", &source), ("path", SHARED_MEMORY), ("shift", "true")];
        devices.insert("project-ramdisk".to_owned(), device(&pairs));
    }
    if mounted.kvm {
        let mode = format!("{:04o}", kvm::MODE);
        let node = [("type", "unix-char"), ("source", kvm::DEVICE), ("path", kvm::DEVICE)];
        let owned = [("uid", "0"), ("gid", "0"), ("mode", mode.as_str())];
        devices.insert("kvm".to_owned(), device(&[node, owned].concat()));
    }
    if let Some(source) = mounted.shares {
        let source = source.display().to_string();
        // What the host mounts there later comes in, and nothing goes out.
        let pairs = [
            ("type", "disk"),
            ("source", &source),
            ("path", MOUNT_DIR),
            ("readonly", "true"),
            ("propagation", "rslave"),
        ];
        devices.insert("shares".to_owned(), device(&pairs));
    }
    devices.extend(mounted.session.map(|source| (SESSION.to_owned(), session(source))));
    devices
}

/// A short form of texts, to see whether they have changed.
pub(super) fn digest(texts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update(text.len().to_le_bytes());
        hash.update(text);
    }
    hex::encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(status: &str, keys: &[(&str, &str)]) -> Instance {
        let config = keys.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let (name, status) = (name(ContainerId::from_bytes([1; 12])), status.to_owned());
        let architecture = String::new();
        Instance { name, status, architecture, config, devices: BTreeMap::new() }
    }

    #[test]
    fn one_that_is_not_whole_or_not_ours_is_not_seen() {
        assert_eq!(observed(&instance("Running", &[])), None);
        let foreign = Instance { name: "web".to_owned(), ..instance("Running", &[(MADE, "true")]) };
        assert_eq!(observed(&foreign), None);
    }

    #[test]
    fn owners_are_on_disk_as_seen_or_in_one_range() {
        let of = |map: &str| on_disk(&instance("Stopped", &[("volatile.last_state.idmap", map)]));
        for plain in ["", "[]"] {
            assert_eq!(of(plain), Ok(Mapping { base: 0, size: u32::MAX }));
        }
        let range = |user: bool, group: bool, host: u32| {
            format!(
                r#"{{"Isuid":{user},"Isgid":{group},"Hostid":{host},"Nsid":0,"Maprange":65536}}"#
            )
        };
        let want = Mapping { base: 1_000_000, size: 65_536 };
        for shifted in [
            format!("[{},{}]", range(true, false, 1_000_000), range(false, true, 1_000_000)),
            format!("[{}]", range(true, true, 1_000_000)),
        ] {
            assert_eq!(of(&shifted), Ok(want));
        }
        for odd in [
            "x".to_owned(),
            format!("[{}]", range(true, false, 1)),
            format!("[{},{}]", range(true, true, 1), range(true, true, 70_000)),
        ] {
            assert!(of(&odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn incus_says_stopped_of_what_was_never_started_too() {
        let state = |status, keys| observed(&instance(status, keys)).unwrap().state;
        assert_eq!(state("Stopped", &[(MADE, "true")]), State::Created);
        assert_eq!(state("Stopped", &[(MADE, "true"), (STARTED, "true")]), State::Stopped);
        assert_eq!(state("Frozen", &[(MADE, "true"), (STARTED, "true")]), State::Paused);
        assert_eq!(state("Running", &[(MADE, "true")]), State::Running);
    }

    #[test]
    fn inits_are_known_by_what_their_link_leads_to() {
        assert_eq!(Init::of(Some("/lib/systemd/systemd")), Init::Known);
        assert_eq!(Init::of(Some("../bin/busybox")), Init::Known);
        assert_eq!(Init::of(None), Init::Plain);
        for init in [Init::Known, Init::Plain] {
            assert_eq!(Init::parse(Some(&init.word().to_owned())), init);
        }
    }

    #[test]
    fn the_link_belongs_to_one_address() {
        let devices = devices("default", "br0", Ipv4Addr::new(10, 88, 0, 2), Mounted::default());
        let nic = &devices["eth0"];
        assert_eq!(nic["hwaddr"], "02:67:0a:58:00:02");
        assert_eq!(nic["host_name"], "gv0a580002");
        for filter in ["mac_filtering", "ipv4_filtering", "port_isolation"] {
            assert_eq!(nic[&format!("security.{filter}")], "true");
        }
        assert!(!devices.contains_key("ramdisk"));
    }
}
