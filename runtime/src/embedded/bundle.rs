//! The OCI configuration of a container: a pure function of the order and the places.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
};

use gantry_model::share::MOUNT_DIR;
use oci_spec::{
    OciSpecError,
    runtime::{
        Box as ConsoleSize, BoxBuilder, Capability, LinuxBuilder, LinuxCapabilities,
        LinuxCapabilitiesBuilder, LinuxCpuBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder,
        LinuxDeviceType, LinuxIdMapping, LinuxIdMappingBuilder, LinuxMemoryBuilder, LinuxNamespace,
        LinuxNamespaceBuilder, LinuxNamespaceType, LinuxPidsBuilder, LinuxResources,
        LinuxResourcesBuilder, Mount, MountBuilder, Process, ProcessBuilder, RootBuilder, Spec,
        SpecBuilder, UserBuilder,
    },
};

use super::{image::Mapping, seccomp};
use crate::{Exec, Limits, Order, PtySize, kvm, project_ramdisks::INSIDE, sessions};

/// What programs are looked for in when nothing else says so.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The length of a period of the processor quota, in microseconds.
const CPU_PERIOD_US: u32 = 100_000;

/// The shortest quota that the kernel takes, in microseconds.
const CPU_QUOTA_US_MIN: i64 = 1000;

/// What root in the container may do, at most, to what belongs to its user namespace: all that a
/// whole system needs. Left out: kernel modules, raw I/O, clocks, BPF, the kernel's log and audit
/// trail, policy of security modules, waking the host, resource limits.
const CAPABILITIES: [Capability; 27] = [
    Capability::AuditControl,
    Capability::AuditWrite,
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::Kill,
    Capability::Lease,
    Capability::LinuxImmutable,
    Capability::Mknod,
    Capability::NetAdmin,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::NetRaw,
    Capability::Setfcap,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysChroot,
    Capability::SysNice,
    Capability::SysPtrace,
    Capability::SysTtyConfig,
];

/// Parts of `/proc` and `/sys` that tell about the host and are not separated by namespaces.
const MASKED: [&str; 10] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/firmware",
];

/// Parts of `/proc` that would change the host.
const READ_ONLY: [&str; 4] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sysrq-trigger"];

/// The file systems of a container beside its root: where, kind, options.
const MOUNTS: [(&str, &str, &[&str]); 9] = [
    ("/proc", "proc", &["nosuid", "noexec", "nodev"]),
    ("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
    (
        "/dev/pts",
        "devpts",
        &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    ),
    ("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777"]),
    ("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    ("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    ("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "rw"]),
    ("/run", "tmpfs", &["nosuid", "nodev", "mode=755"]),
    ("/tmp", "tmpfs", &["nosuid", "nodev", "mode=1777"]),
];

/// The character devices that a container may use: null, zero, full, random, urandom, tty, console,
/// ptmx, and every pseudo-terminal.
const DEVICES: [(i64, Option<i64>); 9] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    (136, None),
];

/// What a configuration is made from beside the order.
pub(super) struct Places<'a> {
    /// The root file system, mounted.
    pub(super) rootfs: &'a Path,
    /// The ramdisk, mounted, when there is one.
    pub(super) ramdisk: Option<&'a Path>,
    /// What it shares with its project, mounted, when there is something.
    pub(super) project_ramdisk: Option<&'a Path>,
    /// Where what others share with it is mounted, when there is a place for it.
    pub(super) shares: Option<&'a Path>,
    /// What it has for sessions.
    pub(super) session: &'a Path,
    /// The device node of `/dev/kvm`, and its number, when it shall have it.
    pub(super) kvm: Option<(&'a Path, u64)>,
    /// The container's control group, from the top of each hierarchy.
    pub(super) cgroup: &'a str,
    /// The program to start, in the container.
    pub(super) init: &'a str,
    /// The mapping of ids.
    pub(super) mapping: Mapping,
}

/// The configuration of one start.
pub(super) fn spec(order: &Order, places: &Places<'_>) -> Result<Spec, OciSpecError> {
    let mapping = [id_mapping(places.mapping)?];
    let linux = LinuxBuilder::default()
        .namespaces(namespaces()?)
        .uid_mappings(mapping)
        .gid_mappings(mapping)
        .cgroups_path(places.cgroup)
        .resources(resources(&order.limits, places)?)
        .seccomp(seccomp::profile()?)
        .rootfs_propagation("private")
        .masked_paths(MASKED.map(str::to_owned))
        .readonly_paths(READ_ONLY.map(str::to_owned))
        .build()?;
    let process = ProcessBuilder::default()
        .terminal(false)
        .user(UserBuilder::default().uid(0_u32).gid(0_u32).build()?)
        .args(vec![places.init.to_owned()])
        .env(environment(&order.env, &[("container", "oci"), ("TERM", "linux")]))
        .cwd("/")
        .capabilities(capabilities()?)
        // Limits above the caller's would fail without CAP_SYS_RESOURCE: the caller's are kept.
        .rlimits(Vec::new())
        // A system has set-user-id programs.
        .no_new_privileges(false)
        .build()?;
    SpecBuilder::default()
        .version("1.0.2")
        .hostname(order.hostname.as_str())
        .root(RootBuilder::default().path(places.rootfs).readonly(false).build()?)
        .mounts(mounts(places)?)
        .process(process)
        .linux(linux)
        .build()
}

/// A process that joins a container; `terminal` makes it one on a pseudo-terminal.
pub(super) fn process(
    command: &Exec,
    container: &BTreeMap<String, String>,
    terminal: Option<PtySize>,
) -> Result<Process, OciSpecError> {
    let mut env = container.clone();
    env.extend(command.env.clone());
    let usual: &[(&str, &str)] =
        if terminal.is_some() { &[("TERM", "xterm-256color")] } else { &[] };
    let user = UserBuilder::default().uid(command.user.uid).gid(command.user.gid).build()?;
    let process = ProcessBuilder::default()
        .terminal(terminal.is_some())
        .user(user)
        .args(command.argv.clone())
        .env(environment(&env, usual))
        .cwd(command.cwd.as_str())
        .capabilities(capabilities()?)
        .rlimits(Vec::new())
        .no_new_privileges(false);
    match terminal {
        Some(size) => process.console_size(console_size(size)?).build(),
        None => process.build(),
    }
}

fn console_size(size: PtySize) -> Result<ConsoleSize, OciSpecError> {
    BoxBuilder::default().height(u64::from(size.rows)).width(u64::from(size.columns)).build()
}

/// `KEY=value` for all; what the owner says wins over the usual.
fn environment(vars: &BTreeMap<String, String>, usual: &[(&str, &str)]) -> Vec<String> {
    let usual = usual.iter().chain(&[("PATH", PATH)]).filter(|(key, _)| !vars.contains_key(*key));
    let usual = usual.map(|(key, value)| format!("{key}={value}"));
    usual.chain(vars.iter().map(|(key, value)| format!("{key}={value}"))).collect()
}

fn capabilities() -> Result<LinuxCapabilities, OciSpecError> {
    let all = HashSet::from(CAPABILITIES);
    LinuxCapabilitiesBuilder::default()
        .bounding(all.clone())
        .effective(all.clone())
        .permitted(all)
        .inheritable(HashSet::new())
        .ambient(HashSet::new())
        .build()
}

fn namespaces() -> Result<Vec<LinuxNamespace>, OciSpecError> {
    [
        LinuxNamespaceType::User,
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Mount,
        LinuxNamespaceType::Cgroup,
        // Made by the OCI runtime and so owned by the user namespace: sysfs could not be mounted in
        // one of ours.
        LinuxNamespaceType::Network,
    ]
    .into_iter()
    .map(|kind| LinuxNamespaceBuilder::default().typ(kind).build())
    .collect()
}

fn id_mapping(mapping: Mapping) -> Result<LinuxIdMapping, OciSpecError> {
    LinuxIdMappingBuilder::default()
        .container_id(0_u32)
        .host_id(mapping.base)
        .size(mapping.size)
        .build()
}

fn resources(limits: &Limits, places: &Places<'_>) -> Result<LinuxResources, OciSpecError> {
    let mut resources = LinuxResourcesBuilder::default().devices(devices(places)?);
    if limits.memory_bytes > 0 {
        let bytes = i64::try_from(limits.memory_bytes).unwrap_or(i64::MAX);
        resources = resources.memory(LinuxMemoryBuilder::default().limit(bytes).build()?);
    }
    if limits.cpu_millis > 0 {
        let quota = i64::from(limits.cpu_millis) * i64::from(CPU_PERIOD_US / 1000);
        let cpu = LinuxCpuBuilder::default()
            .quota(quota.max(CPU_QUOTA_US_MIN))
            .period(CPU_PERIOD_US)
            .build()?;
        resources = resources.cpu(cpu);
    }
    if limits.pids > 0 {
        let pids = LinuxPidsBuilder::default().limit(i64::from(limits.pids)).build()?;
        resources = resources.pids(pids);
    }
    resources.build()
}

fn devices(places: &Places<'_>) -> Result<Vec<LinuxDeviceCgroup>, OciSpecError> {
    let none = LinuxDeviceCgroupBuilder::default().allow(false).access("rwm").build()?;
    let kvm = places.kvm.map(|(_, number)| {
        (i64::from(rustix::fs::major(number)), Some(i64::from(rustix::fs::minor(number))))
    });
    let allowed = DEVICES.iter().copied().chain(kvm).map(|(major, minor)| {
        let device = LinuxDeviceCgroupBuilder::default()
            .allow(true)
            .typ(LinuxDeviceType::C)
            .major(major)
            .access("rwm");
        match minor {
            Some(minor) => device.minor(minor).build(),
            None => device.build(),
        }
    });
    std::iter::once(Ok(none)).chain(allowed).collect()
}

fn mounts(places: &Places<'_>) -> Result<Vec<Mount>, OciSpecError> {
    let mount = |destination: &str, kind: &str, source: &Path, options: &[&str]| {
        MountBuilder::default()
            .destination(destination)
            .typ(kind)
            .source(source)
            .options(options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>())
            .build()
    };
    let mut mounts = MOUNTS
        .iter()
        .map(|(destination, kind, options)| mount(destination, kind, Path::new(kind), options))
        .collect::<Result<Vec<_>, _>>()?;
    if let Some(source) = places.ramdisk {
        mounts.push(mount("/ramdisk", "bind", source, &["bind", "rw", "nosuid", "nodev"])?);
    }
    if let Some(source) = places.project_ramdisk {
        mounts.push(mount(INSIDE, "bind", source, &["bind", "rw", "nosuid", "nodev"])?);
    }
    if let Some((source, _)) = places.kvm {
        mounts.push(mount(kvm::DEVICE, "bind", source, &["bind", "rw", "nosuid", "noexec"])?);
    }
    let options = ["bind", "ro", "nosuid", "nodev"];
    mounts.push(mount(sessions::INSIDE, "bind", places.session, &options)?);
    if let Some(source) = places.shares {
        // What the host mounts there later comes in, and nothing goes out.
        let options = ["bind", "ro", "nosuid", "nodev", "rslave"];
        mounts.push(mount(MOUNT_DIR, "bind", source, &options)?);
    }
    Ok(mounts)
}

#[cfg(test)]
mod tests {
    use gantry_model::{ContainerId, container::ImageName};

    use super::*;
    use crate::Kit;

    fn order() -> Order {
        Order {
            id: ContainerId::from_bytes([1; 12]),
            hostname: "box".to_owned(),
            image: ImageName::parse("image", "debian/13").unwrap(),
            kit: Kit::None,
            cache: true,
            env: BTreeMap::from([("PATH".to_owned(), "/opt".to_owned())]),
            ramdisk: true,
            kvm: false,
            project_ramdisk: None,
            limits: Limits { memory_bytes: 256 << 20, cpu_millis: 1500, pids: 400 },
            firewall: crate::Firewall::default(),
            outbound: crate::Outbound::default(),
        }
    }

    fn json() -> serde_json::Value {
        let places = Places {
            rootfs: Path::new("/r"),
            ramdisk: Some(Path::new("/m")),
            project_ramdisk: None,
            shares: Some(Path::new("/s")),
            session: Path::new("/p"),
            kvm: None,
            cgroup: "/gantry/x",
            init: "/sbin/init",
            mapping: Mapping::default(),
        };
        serde_json::to_value(spec(&order(), &places).unwrap()).unwrap()
    }

    #[test]
    fn every_container_has_its_own_namespaces_users_included() {
        let json = json();
        let kinds: Vec<&str> = json["linux"]["namespaces"]
            .as_array()
            .unwrap()
            .iter()
            .map(|namespace| {
                assert_eq!(namespace.get("path"), None, "none is shared");
                namespace["type"].as_str().unwrap()
            })
            .collect();
        for kind in ["user", "pid", "ipc", "uts", "mount", "cgroup", "network"] {
            assert!(kinds.contains(&kind), "{kind}");
        }
        let want = serde_json::json!([{"hostID": 1_000_000, "containerID": 0, "size": 65_536}]);
        assert_eq!(json["linux"]["uidMappings"], want);
        assert_eq!(json["linux"]["gidMappings"], want);
    }

    #[test]
    fn limits_become_those_of_the_control_groups() {
        let resources = &json()["linux"]["resources"];
        assert_eq!(resources["memory"]["limit"], 256 << 20);
        assert_eq!(resources["cpu"]["quota"], 150_000);
        assert_eq!(resources["cpu"]["period"], 100_000);
        assert_eq!(resources["pids"]["limit"], 400);
        let denied = serde_json::json!({"allow": false, "access": "rwm"});
        assert_eq!(resources["devices"][0], denied, "nothing first, then the list");
    }

    #[test]
    fn what_sessions_need_is_mounted_where_no_image_has_anything_and_cannot_be_written() {
        let json = json();
        let mounts = json["mounts"].as_array().unwrap();
        let place = |destination: &str| {
            mounts.iter().position(|mount| mount["destination"] == destination).unwrap()
        };
        let session = place("/dev/.gantry");
        assert!(session > place("/dev"), "in memory, after it was mounted");
        let want = serde_json::json!(["bind", "ro", "nosuid", "nodev"]);
        assert_eq!(mounts[session]["options"], want);
    }

    #[test]
    fn kvm_is_the_node_made_for_it_and_no_other_device() {
        let number = rustix::fs::makedev(10, 232);
        let places = Places {
            rootfs: Path::new("/r"),
            ramdisk: None,
            project_ramdisk: None,
            shares: None,
            session: Path::new("/p"),
            kvm: Some((Path::new("/d/kvm"), number)),
            cgroup: "/gantry/x",
            init: "/sbin/init",
            mapping: Mapping::default(),
        };
        let with = serde_json::to_value(spec(&order(), &places).unwrap()).unwrap();
        let rules = |json: &serde_json::Value| {
            json["linux"]["resources"]["devices"].as_array().unwrap().clone()
        };
        let (with_rules, without_rules) = (rules(&with), rules(&json()));
        let rule = serde_json::json!({
            "allow": true, "type": "c", "major": 10, "minor": 232, "access": "rwm"
        });
        assert_eq!(with_rules.last(), Some(&rule));
        assert_eq!(with_rules[..with_rules.len() - 1], without_rules);
        let mounts = with["mounts"].as_array().unwrap();
        let node = mounts.iter().find(|mount| mount["destination"] == "/dev/kvm").unwrap();
        assert_eq!(node["source"], "/d/kvm");
    }

    #[test]
    fn the_owners_environment_wins_over_the_usual_one() {
        let json = json();
        let env = json["process"]["env"].as_array().unwrap();
        assert!(env.contains(&"PATH=/opt".into()) && env.contains(&"container=oci".into()));
        assert_eq!(env.iter().filter(|var| var.as_str().unwrap().starts_with("PATH=")).count(), 1);
    }
}
