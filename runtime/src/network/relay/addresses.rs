//! Which addresses a proxy and what is reached through one may have.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::NetworkConfig;

/// The networks of no single place, and those that are private to one.
const SPECIAL: [(Ipv4Addr, u8); 9] = [
    (Ipv4Addr::UNSPECIFIED, 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(224, 0, 0, 0), 3),
];
/// Everything of IPv6 but what is routed in the world.
const ROUTED_V6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// What the operator and the host say about addresses.
#[derive(Clone, Debug)]
pub(super) struct Addresses {
    subnet: Ipv4Net,
    blocked: Vec<Ipv4Net>,
    allowed: Vec<IpNet>,
}

impl Addresses {
    pub(super) fn new(config: &NetworkConfig) -> Self {
        Self {
            subnet: config.subnet,
            blocked: config.blocked.clone(),
            allowed: config.proxy_networks.clone(),
        }
    }

    /// Whether the host may connect to a proxy here for a container: never into the container network,
    /// and to itself and into private networks only if the operator allows it.
    pub(super) fn may_be_proxy(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        if self.is_of_containers(address) {
            return false;
        }
        if self.allowed.iter().any(|net| net.contains(&address)) {
            return true;
        }
        let is_special = match address {
            IpAddr::V4(address) => {
                let special = SPECIAL.map(|(net, prefix)| Ipv4Net::new_assert(net, prefix));
                special.iter().chain(&self.blocked).any(|net| net.contains(&address))
            }
            IpAddr::V6(address) => !ROUTED_V6.contains(&address),
        };
        !is_special && !is_own(address)
    }

    /// Whether a container may reach this through its proxy, which may be on this very host.
    pub(super) fn may_be_aim(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let is_of_none = match address {
            IpAddr::V4(address) => {
                address.is_link_local()
                    || address.is_broadcast()
                    || address.octets().first() == Some(&0)
                    || self.blocked.iter().any(|net| net.contains(&address))
            }
            IpAddr::V6(address) => !ROUTED_V6.contains(&address),
        };
        !is_of_none
            && !address.is_loopback()
            && !address.is_multicast()
            && !self.is_of_containers(address)
            && !is_own(address)
    }

    fn is_of_containers(&self, address: IpAddr) -> bool {
        matches!(address, IpAddr::V4(address) if self.subnet.contains(&address))
    }
}

/// Whether the host itself has this address: a socket can have no other.
fn is_own(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(allowed: &[&str]) -> Addresses {
        let allowed = allowed.iter().map(|net| net.parse().unwrap()).collect();
        Addresses::new(&NetworkConfig { proxy_networks: allowed, ..NetworkConfig::default() })
    }

    #[test]
    fn a_proxy_is_no_way_into_the_host() {
        let none = addresses(&[]);
        for address in ["9.9.9.9", "2620:fe::fe", "172.32.0.1"] {
            assert!(none.may_be_proxy(address.parse().unwrap()), "{address}");
        }
        let all = addresses(&["0.0.0.0/0", "::/0"]);
        for address in [
            "127.0.0.1",
            "::1",
            "::ffff:127.0.0.1",
            "0.0.0.0",
            "10.0.0.1",
            "192.168.1.1",
            "172.31.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "fe80::1",
            "fd00::1",
            "224.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
            "::",
            "::ffff:10.0.0.1",
        ] {
            assert!(!none.may_be_proxy(address.parse().unwrap()), "{address}");
            assert!(all.may_be_proxy(address.parse().unwrap()), "{address}");
        }
        for address in ["10.88.0.1", "10.88.0.5", "::ffff:10.88.0.1"] {
            assert!(!all.may_be_proxy(address.parse().unwrap()), "{address}: of containers");
        }
        let one = addresses(&["127.0.0.1/32"]);
        assert!(one.may_be_proxy("127.0.0.1".parse().unwrap()));
        assert!(!one.may_be_proxy("127.0.0.2".parse().unwrap()));
    }

    #[test]
    fn nothing_of_the_host_is_reached_through_a_proxy_that_may_be_on_it() {
        let all = addresses(&["0.0.0.0/0", "::/0"]);
        for address in ["9.9.9.9", "10.0.0.1", "2620:fe::fe"] {
            assert!(all.may_be_aim(address.parse().unwrap()), "{address}");
        }
        for address in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "0.1.2.3",
            "10.88.0.1",
            "10.88.3.3",
            "169.254.169.254",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "fe80::1",
            "::ffff:127.0.0.1",
        ] {
            assert!(!all.may_be_aim(address.parse().unwrap()), "{address}");
        }
    }
}
