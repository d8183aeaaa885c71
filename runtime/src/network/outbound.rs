//! The ways out of containers as nftables text.
//!
//! They stand in the table of the owners' rules, before those and for as long: while this program is
//! started again, what was shut stays shut. A set holds the addresses of the containers that have one.

use std::{collections::HashSet, net::Ipv4Addr};

use crate::Way;

/// The containers that nothing leaves.
const SHUT: &str = "shut";

/// What is looked at of all that comes from a container and is no answer.
pub(super) const LOOKUP: &str = "ip saddr @shut drop";

/// Makes the sets; what is in them stays.
pub(super) fn sets(table: &str) -> String {
    format!("add set inet {table} {SHUT} {{ type ipv4_addr; }}")
}

/// Gives an address this way, in place of the one that it has.
pub(super) fn replace(table: &str, address: Ipv4Addr, way: &Way) -> String {
    // Adding first makes it no error to remove what is not there.
    let element = format!("element inet {table} {SHUT} {{ {address} }}\n");
    match way {
        Way::Direct => format!("add {element}delete {element}"),
        Way::Blocked => format!("add {element}"),
    }
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
        let element = "element inet t shut { 10.88.0.5 }\n";
        assert_eq!(replace("t", address, &Way::Blocked), format!("add {element}"));
        let direct = replace("t", address, &Way::Direct);
        assert_eq!(direct, format!("add {element}delete {element}"));
    }
}
