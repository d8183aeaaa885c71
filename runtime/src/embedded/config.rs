//! What the operator may choose.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

use ipnet::Ipv4Net;

use super::{
    Recipe,
    image::{DIR_DEFAULT, ImagesConfig, Mapping, TARBALLS_DEFAULT},
};

/// Where clouds answer questions about the host, and give out its credentials: link-local addresses,
/// those shared by carriers (100.64.0.0/10), and two that single providers chose.
const BLOCKED: [(Ipv4Addr, u8); 4] = [
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(168, 63, 129, 16), 32),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(192, 0, 0, 192), 32),
];

/// How the embedded runtime is set up on this host.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where containers are kept: records, file systems, the state of `runc`. The mapped root must
    /// be able to pass through every directory above it (mode bits `o+x`).
    pub dir: PathBuf,
    /// Where unpacked images are kept; the same condition as for `dir`.
    pub image_dir: PathBuf,
    /// Where the operator's tarballs are looked for; need not exist.
    pub tarballs: PathBuf,
    /// What images can be made.
    pub recipes: Vec<Recipe>,
    /// The OCI runtime, by name or by path; `crun` is possible.
    pub runc: PathBuf,
    /// The `nft` program, by name or by path.
    pub nft: PathBuf,
    /// The control group above those of the containers, a plain name.
    pub cgroup: String,
    /// How ids of containers map to those of the host.
    pub mapping: Mapping,
    /// The container network.
    pub network: NetworkConfig,
}

/// The network that containers live in.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// The bridge, made when missing: a letter, then up to 14 of `a-z0-9_`.
    pub bridge: String,
    /// Its addresses; the first is the host's.
    pub subnet: Ipv4Net,
    /// The name servers that containers use; when empty, those of the host that are not loopback.
    pub nameservers: Vec<IpAddr>,
    /// TCP ports of the host that containers may reach (the edge's own); no others.
    pub host_ports: Vec<u16>,
    /// Networks that containers may not reach through this host, but for name servers in them.
    pub blocked: Vec<Ipv4Net>,
}

impl Config {
    /// The usual places and names with these recipes.
    pub fn new(recipes: Vec<Recipe>) -> Self {
        Self {
            dir: "/var/lib/gantry/runtime".into(),
            image_dir: DIR_DEFAULT.into(),
            tarballs: TARBALLS_DEFAULT.into(),
            recipes,
            runc: "runc".into(),
            nft: "nft".into(),
            cgroup: "gantry".to_owned(),
            mapping: Mapping::default(),
            network: NetworkConfig::default(),
        }
    }

    pub(super) fn images(&self) -> ImagesConfig {
        ImagesConfig {
            dir: self.image_dir.clone(),
            tarballs: self.tarballs.clone(),
            recipes: self.recipes.clone(),
            mapping: self.mapping,
        }
    }

    /// What is wrong with it, in sentences; empty when nothing is.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let plain = |text: &str| {
            text.starts_with(|c: char| c.is_ascii_lowercase())
                && text.bytes().all(|o| o.is_ascii_lowercase() || o.is_ascii_digit() || o == b'_')
        };
        if !plain(&self.network.bridge) || self.network.bridge.len() > 15 {
            faults.push("the bridge's name must be a letter and at most 14 of a-z0-9_".to_owned());
        }
        if !plain(&self.cgroup) {
            faults.push("the control group's name must be a letter and some of a-z0-9_".to_owned());
        }
        if !(8..=29).contains(&self.network.subnet.prefix_len()) {
            faults.push("the subnet must be between /8 and /29".to_owned());
        }
        if !self.dir.is_absolute() || !self.image_dir.is_absolute() {
            faults.push("directories must be absolute paths".to_owned());
        }
        if self.mapping.base == 0 || self.mapping.size < 65_536 {
            faults.push("the id mapping must not start at 0 and must have 65536 ids".to_owned());
        }
        faults
    }
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            bridge: "gantry0".to_owned(),
            subnet: Ipv4Net::new_assert(Ipv4Addr::new(10, 88, 0, 0), 16),
            nameservers: Vec::new(),
            host_ports: Vec::new(),
            blocked: BLOCKED.map(|(net, prefix)| Ipv4Net::new_assert(net, prefix)).to_vec(),
        }
    }
}
