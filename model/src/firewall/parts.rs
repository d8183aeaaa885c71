//! The lists in a rule: ports and addresses.

use std::{fmt, net::Ipv4Addr, ops::RangeInclusive};

use ipnet::Ipv4Net;

/// Some ports, at least one: numbers and ranges, as `80`, `80-90` or `80,443`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ports(Vec<(u16, u16)>);

/// Some IPv4 addresses, at least one: addresses, networks and ranges, separated by commas.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Addresses(Vec<Span>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Span {
    One(Ipv4Addr),
    Net(Ipv4Net),
    Range(Ipv4Addr, Ipv4Addr),
}

impl Ports {
    /// The longest text, in octets.
    pub const OCTETS_MAX: usize = 64;
    const RULE: &str =
        "must be ports from 1 to 65535, as 80, 80-90 or 80,443, in at most 64 octets";

    /// Reads a list.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let port = |text: &str| decimal(text).and_then(|port| u16::try_from(port).ok());
        let item = |item: &str| {
            let (first, last) = item.split_once('-').unwrap_or((item, item));
            let (first, last) = (port(first)?, port(last)?);
            (first >= 1 && first <= last).then_some((first, last))
        };
        if text.len() > Self::OCTETS_MAX {
            return Err(Self::RULE);
        }
        text.split(',').map(item).collect::<Option<_>>().map(Self).ok_or(Self::RULE)
    }

    /// The ports as ranges that neither overlap nor touch, in rising order.
    pub fn ranges(&self) -> Vec<RangeInclusive<u16>> {
        let spans = self.0.iter().map(|(first, last)| (u32::from(*first), u32::from(*last)));
        let narrow = |port: u32| u16::try_from(port).unwrap_or(u16::MAX);
        merged(spans).into_iter().map(|(first, last)| narrow(first)..=narrow(last)).collect()
    }
}

impl Addresses {
    /// The longest text, in octets.
    pub const OCTETS_MAX: usize = 512;
    const RULE: &str = "must be IPv4 addresses, networks (by their first address) or ranges, as \
                        192.0.2.7, 192.0.2.0/24 or 192.0.2.1-192.0.2.9, separated by commas, in \
                        at most 512 octets";

    /// Reads a list.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.len() > Self::OCTETS_MAX {
            return Err(Self::RULE);
        }
        text.split(',').map(Span::parse).collect::<Option<_>>().map(Self).ok_or(Self::RULE)
    }

    /// The addresses as ranges that neither overlap nor touch, in rising order.
    pub fn ranges(&self) -> Vec<RangeInclusive<Ipv4Addr>> {
        let spans = self.0.iter().map(|span| span.bounds());
        let address = Ipv4Addr::from_bits;
        merged(spans).into_iter().map(|(first, last)| address(first)..=address(last)).collect()
    }
}

impl Span {
    fn parse(text: &str) -> Option<Self> {
        if let Some((first, last)) = text.split_once('-') {
            let (first, last): (Ipv4Addr, Ipv4Addr) = (first.parse().ok()?, last.parse().ok()?);
            return (first <= last).then_some(Self::Range(first, last));
        }
        if text.contains('/') {
            let net: Ipv4Net = text.parse().ok()?;
            return (net.addr() == net.network()).then_some(Self::Net(net));
        }
        text.parse().ok().map(Self::One)
    }

    fn bounds(self) -> (u32, u32) {
        match self {
            Self::One(address) => (address.to_bits(), address.to_bits()),
            Self::Net(net) => (net.network().to_bits(), net.broadcast().to_bits()),
            Self::Range(first, last) => (first.to_bits(), last.to_bits()),
        }
    }
}

/// A number without sign, spaces or leading zeros.
pub(super) fn decimal(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|octet| octet.is_ascii_digit());
    (plain && (text == "0" || !text.starts_with('0'))).then(|| text.parse().ok()).flatten()
}

/// The same numbers in rising order, without overlaps and without neighbours.
fn merged(spans: impl Iterator<Item = (u32, u32)>) -> Vec<(u32, u32)> {
    let mut spans: Vec<_> = spans.collect();
    spans.sort_unstable();
    let mut merged: Vec<(u32, u32)> = Vec::new();
    for (first, last) in spans {
        match merged.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            Some(_) | None => merged.push((first, last)),
        }
    }
    merged
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (first, last)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, span) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            match span {
                Span::One(address) => write!(f, "{comma}{address}")?,
                Span::Net(net) => write!(f, "{comma}{net}")?,
                Span::Range(first, last) => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_ports_are_read_strictly_and_said_again() {
        for text in ["80", "80-90", "80,443", "443,80,1-2", "65535", "1-65535"] {
            assert_eq!(Ports::parse(text).unwrap().to_string(), text);
        }
        for text in
            ["", "0", "0-1", "90-80", "65536", "80,", ",80", " 80", "+80", "080", "80-", "-80", "a"]
        {
            assert!(Ports::parse(text).is_err(), "{text}");
        }
        assert!(Ports::parse(&["1"; 32].join(",")).is_ok());
        assert!(Ports::parse(&["1"; 33].join(",")).is_err());
    }

    #[test]
    fn lists_of_addresses_are_read_strictly_and_said_again() {
        for text in ["192.0.2.7", "0.0.0.0/0", "192.0.2.1-192.0.2.9", "10.0.0.0/8,192.0.2.7"] {
            assert_eq!(Addresses::parse(text).unwrap().to_string(), text);
        }
        for text in [
            "",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "10.0.0",
            "::1",
            "10.0.0.9-10.0.0.1",
            "10.0.0.1-",
            "10.0.0.1, 10.0.0.2",
            "host",
            "010.0.0.1",
        ] {
            assert!(Addresses::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ranges_neither_overlap_nor_touch() {
        let ports = Ports::parse("443,80-90,85-100,101,65535").unwrap();
        assert_eq!(ports.ranges(), [80..=101, 443..=443, 65535..=65535]);
        let addresses = Addresses::parse("255.255.255.255,10.0.0.0/31,10.0.0.2,0.0.0.0").unwrap();
        let [a, b, c, d] = [[0; 4], [10, 0, 0, 0], [10, 0, 0, 2], [255; 4]].map(Ipv4Addr::from);
        assert_eq!(addresses.ranges(), [a..=a, b..=c, d..=d]);
    }
}
