//! The owners' firewall rules as nftables text.
//!
//! They live in a table of their own, which outlives this program: while it is started again, what an
//! owner has closed stays closed. Each container with rules has two chains, named by its address, to
//! which two maps lead. Everything in the text comes from checked types, nothing from free text.

use std::{
    fmt::Display,
    net::{Ipv4Addr, SocketAddrV4},
    ops::RangeInclusive,
};

use gantry_model::firewall::{Action, Direction, Protocol, Rule, Rules};

use super::outbound;

/// Makes the table with its maps and hooks; what containers have in it stays. What goes back to
/// whoever began a connection passes; what he sends is looked at each time, so that a new rule ends
/// connections that exist, such as those that the edge keeps for its next request.
pub(super) fn table(table: &str, bridge: &str, relay: SocketAddrV4) -> String {
    let mut lines = vec![format!("add table inet {table}")];
    for direction in Direction::ALL {
        lines.push(format!("add map inet {table} {direction} {{ type ipv4_addr : verdict; }}"));
    }
    lines.push(outbound::chains(table, bridge, relay));
    let ingress = (format!("oifname \"{bridge}\""), None, "ip daddr vmap @ingress");
    let egress =
        (format!("iifname \"{bridge}\""), Some(outbound::LOOKUPS), "ip saddr vmap @egress");
    // The edge's own connections go out from the host.
    let hooks = [
        ("input", vec![&egress]),
        ("forward", vec![&egress, &ingress]),
        ("output", vec![&ingress]),
    ];
    for (hook, lookups) in hooks {
        let place = format!("type filter hook {hook} priority filter + 10; policy accept;");
        lines.push(format!("add chain inet {table} {hook} {{ {place} }}"));
        lines.push(format!("flush chain inet {table} {hook}"));
        for (interface, way, lookup) in lookups {
            let rule = format!("add rule inet {table} {hook} {interface}");
            lines.push(format!("{rule} ct direction reply accept"));
            lines.extend(way.iter().flatten().map(|way| format!("{rule} {way}")));
            lines.push(format!("{rule} ct state related accept"));
            lines.push(format!("{rule} {lookup}"));
        }
    }
    lines.push(String::new());
    lines.join("\n")
}

/// Gives an address these rules, in place of those that it has.
///
/// A refusal is told to the edge alone, whose connections come from the `gateway`: in its
/// transparent mode they come from the client's address, to which the word of it would go instead.
pub(super) fn replace(table: &str, gateway: Ipv4Addr, address: Ipv4Addr, rules: &Rules) -> String {
    let mut lines = Vec::new();
    for direction in Direction::ALL {
        let chain = chain_of(direction, address);
        let element = format!("inet {table} {direction} {{ {address} : jump {chain} }}");
        let mut rules = rules.of(direction).iter().filter(|rule| rule.enabled).peekable();
        // Adding first makes it no error to flush or remove what is not there.
        lines.push(format!("add chain inet {table} {chain}"));
        lines.push(format!("flush chain inet {table} {chain}"));
        lines.push(format!("add element {element}"));
        if rules.peek().is_none() {
            lines.push(format!("delete element {element}"));
            lines.push(format!("delete chain inet {table} {chain}"));
        }
        for rule in rules {
            let fits = fits(direction, rule);
            let mut say = |what: &str| lines.push(format!("add rule inet {table} {chain} {what}"));
            match (rule.action, direction) {
                (Action::Allow, _) => say(&format!("{fits} accept")),
                (Action::Drop, _) => say(&format!("{fits} drop")),
                (Action::Reject, Direction::Egress) => say(&format!("{fits} {}", refusal(rule))),
                (Action::Reject, Direction::Ingress) => {
                    say(&format!("ip saddr {gateway} {fits} {}", refusal(rule)));
                    say(&format!("{fits} drop"));
                }
            }
        }
    }
    lines.push(String::new());
    lines.join("\n")
}

/// Whether an address has rules of its owner in the table as `nft` lists it.
pub(super) fn has(listed: &str, address: Ipv4Addr) -> bool {
    Direction::ALL.into_iter().any(|direction| listed.contains(&chain_of(direction, address)))
}

fn chain_of(direction: Direction, address: Ipv4Addr) -> String {
    format!("{direction}_{:08x}", address.to_bits())
}

/// What fits a rule.
fn fits(direction: Direction, rule: &Rule) -> String {
    let mut words = Vec::new();
    if let Some(addresses) = &rule.other_side {
        let field = match direction {
            Direction::Ingress => "ip saddr",
            Direction::Egress => "ip daddr",
        };
        words.push(format!("{field} {}", set(addresses.ranges())));
    }
    match &rule.protocol {
        Protocol::Tcp(ports) | Protocol::Udp(ports) => {
            let name = rule.protocol.as_str();
            if let Some(source) = &ports.source {
                words.push(format!("{name} sport {}", set(source.ranges())));
            }
            words.push(format!("{name} dport {}", set(ports.destination.ranges())));
        }
        Protocol::Icmp4 { kind, code } => {
            words.push("ip protocol icmp".to_owned());
            words.extend(kind.map(|kind| format!("icmp type {kind}")));
            words.extend(code.map(|code| format!("icmp code {code}")));
        }
    }
    words.join(" ")
}

/// How the sender of what is refused is told.
const fn refusal(rule: &Rule) -> &'static str {
    match rule.protocol {
        Protocol::Tcp(_) => "reject with tcp reset",
        Protocol::Udp(_) => "reject",
        Protocol::Icmp4 { .. } => "reject with icmp admin-prohibited",
    }
}

/// An anonymous set of ranges that do not overlap.
fn set<T: Display + PartialEq>(ranges: Vec<RangeInclusive<T>>) -> String {
    let item = |range: RangeInclusive<T>| {
        let (first, last) = range.into_inner();
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    let items: Vec<String> = ranges.into_iter().map(item).collect();
    format!("{{ {} }}", items.join(", "))
}

#[cfg(test)]
mod tests {
    use gantry_model::firewall::Rules;
    use serde_json::json;

    use super::*;

    #[test]
    fn rules_are_said_in_their_order_and_those_that_are_off_are_not() {
        let rules = Rules::read(&json!({
            "ingress": [
                {"action": "allow", "protocol": "tcp", "description": "\" } drop", "source": "192.0.2.0/24",
                    "source_port": "1-1023", "destination_port": "443,80"},
                {"action": "reject", "protocol": "udp", "description": "", "destination_port": "53"},
                {"action": "allow", "protocol": "icmp4", "description": "", "state": "disabled"},
                {"action": "reject", "protocol": "icmp4", "description": "", "icmp_type": "8", "icmp_code": "0"},
            ],
            "egress": [],
        }))
        .unwrap();
        let text = replace("t", Ipv4Addr::new(10, 88, 0, 1), Ipv4Addr::new(10, 88, 0, 5), &rules);
        let rule = "add rule inet t ingress_0a580005";
        let want = format!(
            "add chain inet t ingress_0a580005\n\
             flush chain inet t ingress_0a580005\n\
             add element inet t ingress {{ 10.88.0.5 : jump ingress_0a580005 }}\n\
             {rule} ip saddr {{ 192.0.2.0-192.0.2.255 }} tcp sport {{ 1-1023 }} tcp dport {{ 80, 443 }} accept\n\
             {rule} ip saddr 10.88.0.1 udp dport {{ 53 }} reject\n\
             {rule} udp dport {{ 53 }} drop\n\
             {rule} ip saddr 10.88.0.1 ip protocol icmp icmp type 8 icmp code 0 reject with icmp admin-prohibited\n\
             {rule} ip protocol icmp icmp type 8 icmp code 0 drop\n\
             add chain inet t egress_0a580005\n\
             flush chain inet t egress_0a580005\n\
             add element inet t egress {{ 10.88.0.5 : jump egress_0a580005 }}\n\
             delete element inet t egress {{ 10.88.0.5 : jump egress_0a580005 }}\n\
             delete chain inet t egress_0a580005\n"
        );
        assert_eq!(text, want);
    }
}
