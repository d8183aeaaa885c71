//! What the operator may choose of the container network.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use rustls::pki_types::CertificateDer;

/// Where clouds answer questions about the host, and give out its credentials: link-local addresses,
/// those shared by carriers (100.64.0.0/10), and two that single providers chose.
const BLOCKED: [(Ipv4Addr, u8); 4] = [
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(168, 63, 129, 16), 32),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(192, 0, 0, 192), 32),
];

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
    /// The port of the host's address in this network where connections to proxies are carried.
    pub relay_port: u16,
    /// Networks in which the host connects to proxies although they are its own, or private.
    pub proxy_networks: Vec<IpNet>,
    /// Certificates that proxies are trusted by, besides those of the usual authorities.
    pub proxy_roots: Vec<CertificateDer<'static>>,
}

impl NetworkConfig {
    /// What is wrong with it, in sentences; empty when nothing is.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if !plain(&self.bridge) || self.bridge.len() > 15 {
            faults.push("the bridge's name must be a letter and at most 14 of a-z0-9_".to_owned());
        }
        if !(8..=29).contains(&self.subnet.prefix_len()) {
            faults.push("the subnet must be between /8 and /29".to_owned());
        }
        faults
    }
}

/// Whether no tool trips over a name.
pub(crate) fn plain(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|o| o.is_ascii_lowercase() || o.is_ascii_digit() || o == b'_')
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            bridge: "gantry0".to_owned(),
            subnet: Ipv4Net::new_assert(Ipv4Addr::new(10, 88, 0, 0), 16),
            nameservers: Vec::new(),
            host_ports: Vec::new(),
            relay_port: 4480,
            proxy_networks: Vec::new(),
            proxy_roots: Vec::new(),
            blocked: BLOCKED.map(|(net, prefix)| Ipv4Net::new_assert(net, prefix)).to_vec(),
        }
    }
}
