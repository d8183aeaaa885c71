//! Section `runtime`: what runs the containers of a server, and what it may use.

use std::path::PathBuf;

use figment::value::Value;
use reqwest::Url;

use super::reader::Reader;

/// Which runtime runs the containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RuntimeKind {
    /// OCI bundles run by `runc` on this machine.
    Embedded,
    /// Containers of the Incus on this machine.
    Incus,
    /// No containers at all: records move through their phases, nothing runs.
    Fake,
}

/// The runtime and what it may use.
#[derive(Clone, Debug)]
pub(crate) struct RuntimeConfig {
    pub(crate) kind: RuntimeKind,
    pub(crate) images: PathBuf,
    /// The simplestreams server, if one is named.
    pub(crate) image_server: Option<Url>,
    pub(crate) bridge: String,
    pub(crate) subnet: ipnet::Ipv4Net,
    pub(crate) relay_port: u16,
    pub(crate) proxy_networks: Vec<ipnet::IpNet>,
    pub(crate) proxy_ca: Option<PathBuf>,
    pub(crate) cgroup: String,
    pub(crate) id_base: u32,
    pub(crate) id_count: u32,
    pub(crate) memory_bytes: u64,
    pub(crate) cpu_millis: u32,
    pub(crate) pids: u32,
    /// How much memory the containers of one project may share.
    pub(crate) project_ramdisk_bytes: u64,
    /// Whether containers may have the host's `/dev/kvm`.
    pub(crate) kvm: bool,
    pub(crate) incus: IncusConfig,
}

/// Where Incus is, and what of it is ours.
#[derive(Clone, Debug)]
pub(crate) struct IncusConfig {
    pub(crate) socket: PathBuf,
    pub(crate) pool: String,
    pub(crate) project: String,
}

pub(super) fn read(reader: &mut Reader<'_>) -> Option<RuntimeConfig> {
    let kinds = [
        ("embedded", RuntimeKind::Embedded),
        ("incus", RuntimeKind::Incus),
        ("fake", RuntimeKind::Fake),
    ];
    let kind = reader.word("runtime.kind", &kinds);
    let incus = read_incus(reader);
    let images = reader.path("runtime.images");
    let image_server = reader.key("runtime.image_server", image_server);
    let bridge = reader.key("runtime.bridge", |value| {
        let name = value.as_str().unwrap_or_default();
        // 15 is the kernel's limit for interface names.
        if name.len() <= 15 { plain_name(name) } else { Err(PLAIN_NAME.to_owned()) }
    });
    let cgroup = reader.key("runtime.cgroup", |value| plain_name(value.as_str().unwrap_or("")));
    let subnet = reader.key("runtime.subnet", |value| {
        value
            .as_str()
            .and_then(|text| text.parse::<ipnet::Ipv4Net>().ok())
            .filter(|net| net.addr() == net.network() && (8..=28).contains(&net.prefix_len()))
            .ok_or_else(|| "must be an IPv4 network such as \"10.88.0.0/16\"".to_owned())
    });
    let relay_port = reader.number("runtime.relay_port", 1, u16::MAX.into());
    let proxy_networks = reader.networks("runtime.proxy_networks");
    let proxy_ca = reader.key("runtime.proxy_ca", |value| match value.as_str() {
        Some("") => Ok(None),
        Some(path) if path.starts_with('/') => Ok(Some(PathBuf::from(path))),
        Some(_) | None => Err("must be an absolute path, or empty".to_owned()),
    });
    let id_base = reader.number("runtime.id_base", 65_536, 4_000_000_000);
    let id_count = reader.number("runtime.id_count", 65_536, 65_536 * 16);
    let memory = reader.number("runtime.memory_mib", 32, 1 << 24);
    let cpu = reader.number("runtime.cpu_millis", 10, 1_000_000);
    let pids = reader.number("runtime.pids", 16, 1 << 22);
    let project_ramdisk = reader.number("runtime.project_ramdisk_mib", 1, 1 << 24);
    let kvm = reader.word("runtime.kvm", &[("true", true), ("false", false)]);
    Some(RuntimeConfig {
        kind: kind?,
        images: images?,
        image_server: image_server?,
        bridge: bridge?,
        subnet: subnet?,
        relay_port: u16::try_from(relay_port?).ok()?,
        proxy_networks: proxy_networks?,
        proxy_ca: proxy_ca?,
        cgroup: cgroup?,
        id_base: u32::try_from(id_base?).ok()?,
        id_count: u32::try_from(id_count?).ok()?,
        memory_bytes: memory? << 20,
        cpu_millis: u32::try_from(cpu?).ok()?,
        pids: u32::try_from(pids?).ok()?,
        project_ramdisk_bytes: project_ramdisk? << 20,
        kvm: kvm?,
        incus: incus?,
    })
}

/// The address of a simplestreams server; empty for none.
fn image_server(value: &Value) -> Result<Option<Url>, String> {
    let rule = || "must be an address such as \"https://images.example.com\", or empty".to_owned();
    let text = value.as_str().ok_or_else(rule)?;
    if text.is_empty() {
        return Ok(None);
    }
    let plain = |url: &Url| {
        matches!(url.scheme(), "https" | "http")
            && url.has_host()
            && url.query().is_none()
            && url.fragment().is_none()
    };
    Url::parse(text).ok().filter(plain).map(Some).ok_or_else(rule)
}

fn read_incus(reader: &mut Reader<'_>) -> Option<IncusConfig> {
    let socket = reader.path("runtime.incus_socket");
    // What Incus itself takes for one of its names, and what needs no escapes in a path.
    let name = |value: &Value| {
        let name = value.as_str().unwrap_or_default();
        let plain = plain_name(&name.replace('-', "_")).is_ok() && name.len() <= 63;
        if plain {
            Ok(name.to_owned())
        } else {
            Err("must be a letter and then at most 62 of a-z0-9-".to_owned())
        }
    };
    let pool = reader.key("runtime.incus_pool", name);
    let project = reader.key("runtime.incus_project", name);
    Some(IncusConfig { socket: socket?, pool: pool?, project: project? })
}

const PLAIN_NAME: &str = "must be a letter and then at most 14 of a-z0-9_";

/// A name that neither the kernel nor any tool trips over.
fn plain_name(name: &str) -> Result<String, String> {
    let plain = name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(|o| o.is_ascii_lowercase() || o.is_ascii_digit() || o == b'_');
    if plain { Ok(name.to_owned()) } else { Err(PLAIN_NAME.to_owned()) }
}
