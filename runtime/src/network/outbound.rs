//! The ways out of containers as nftables text.
//!
//! They stand in the table of the owners' rules, before those and for as long: while this program is
//! started again, what was shut stays shut. Sets hold the addresses of the containers that have one.
//!
//! What a container with a proxy begins is turned to the relay before it is routed. So its owner's rules
//! are asked before that, about where it was to go; and behind it nothing passes but to the relay.

use std::{
    collections::HashSet,
    net::{Ipv4Addr, SocketAddrV4},
};

use crate::Way;

/// The containers that nothing leaves.
const SHUT: &str = "shut";
/// The containers with a proxy.
const PROXIED: &str = "proxied";

/// What is looked at of all that comes from a container and is no answer.
pub(super) const LOOKUPS: [&str; 2] =
    ["ip saddr @shut drop", "ip saddr @proxied goto to_relay_only"];

/// Lets what was turned to the relay pass to it.
pub(super) fn accept(relay: SocketAddrV4) -> String {
    let (address, port) = (relay.ip(), relay.port());
    format!("ct status dnat ip daddr {address} meta l4proto {{ tcp, udp }} th dport {port} accept")
}

/// Makes the sets and what turns to the relay; what is in the sets stays.
pub(super) fn chains(table: &str, bridge: &str, relay: SocketAddrV4) -> String {
    let accept = accept(relay);
    let proxied = format!("iifname \"{bridge}\" ct direction original ip saddr @{PROXIED}");
    format!(
        "add set inet {table} {SHUT} {{ type ipv4_addr; }}
add set inet {table} {PROXIED} {{ type ipv4_addr; }}
add chain inet {table} to_relay_only
flush chain inet {table} to_relay_only
add rule inet {table} to_relay_only {accept}
add rule inet {table} to_relay_only drop
add chain inet {table} before_relay {{ type filter hook prerouting priority mangle; policy accept; }}
flush chain inet {table} before_relay
add rule inet {table} before_relay {proxied} ip saddr vmap @egress
add chain inet {table} to_relay {{ type nat hook prerouting priority dstnat; policy accept; }}
flush chain inet {table} to_relay
add rule inet {table} to_relay {proxied} meta l4proto tcp dnat ip to {relay}
add rule inet {table} to_relay {proxied} udp dport 53 dnat ip to {relay}"
    )
}

/// Gives an address this way, in place of the one that it has.
pub(super) fn replace(table: &str, address: Ipv4Addr, way: &Way) -> String {
    let is_in = match way {
        Way::Direct => None,
        Way::Blocked => Some(SHUT),
        Way::Through(_) => Some(PROXIED),
    };
    let place = |set| {
        let element = format!("element inet {table} {set} {{ {address} }}\n");
        let add = format!("add {element}");
        // Adding first makes it no error to remove what is not there.
        if is_in == Some(set) { add } else { add + &format!("delete {element}") }
    };
    [SHUT, PROXIED].map(place).concat()
}

/// Every address in the table as `nft` lists it: no other container has a way of its own.
pub(super) fn addresses(listed: &str) -> HashSet<Ipv4Addr> {
    let is_of_none = |c: char| !(c.is_ascii_digit() || c == '.');
    listed.split(is_of_none).filter_map(|word| word.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_in_a_set_is_found_and_no_other() {
        let listed = "table inet t {\n\tset shut {\n\t\ttype ipv4_addr\n\
            \t\telements = { 10.88.0.5, 10.88.0.61 }\n\t}\n\tchain input { 1.2 }\n}";
        let want = [[10, 88, 0, 5], [10, 88, 0, 61]].map(Ipv4Addr::from);
        assert_eq!(addresses(listed), want.into());
    }

    #[test]
    fn a_way_takes_the_place_of_any_other() {
        let address = Ipv4Addr::new(10, 88, 0, 5);
        let [shut, proxied] =
            [SHUT, PROXIED].map(|set| format!("element inet t {set} {{ 10.88.0.5 }}\n"));
        let blocked = replace("t", address, &Way::Blocked);
        assert_eq!(blocked, format!("add {shut}add {proxied}delete {proxied}"));
        let direct = replace("t", address, &Way::Direct);
        assert_eq!(direct, format!("add {shut}delete {shut}add {proxied}delete {proxied}"));
    }
}
