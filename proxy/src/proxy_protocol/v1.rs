//! Version 1: one line of text.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::{FromStr, Split},
};

use super::{Ends, Header, Malformed};

pub(super) const SIGNATURE: &[u8] = b"PROXY ";

/// The longest line with its end.
const LINE_MAX: usize = 107;

/// Reads a line of which the first octets are those of [`SIGNATURE`], as far as there are any.
pub(super) fn parse(octets: &[u8]) -> Result<Option<Header>, Malformed> {
    let window = octets.get(..LINE_MAX).unwrap_or(octets);
    let Some(end) = window.iter().position(|&octet| octet == b'\n') else {
        return if window.len() < LINE_MAX { Ok(None) } else { Err(Malformed::TooLong) };
    };
    let line = window.get(..end).and_then(|line| line.strip_suffix(b"\r"));
    let text = line.and_then(|line| line.strip_prefix(SIGNATURE));
    let text = text.and_then(|text| std::str::from_utf8(text).ok()).ok_or(Malformed::Addresses)?;
    let mut words = text.split(' ');
    let ends = match words.next() {
        // What stands behind the word is to be ignored.
        Some("UNKNOWN") => None,
        Some("TCP4") => Some(ends::<Ipv4Addr>(words)?),
        Some("TCP6") => Some(ends::<Ipv6Addr>(words)?),
        Some(_) | None => return Err(Malformed::Unknown),
    };
    Ok(Some(Header { len: end + 1, ends }))
}

fn ends<A>(mut words: Split<'_, char>) -> Result<Ends, Malformed>
where
    A: FromStr + Into<IpAddr>,
{
    let mut address =
        || words.next().and_then(|word| word.parse::<A>().ok()).ok_or(Malformed::Addresses);
    let (source, destination) = (address()?.into(), address()?.into());
    let mut port = || words.next().and_then(port).ok_or(Malformed::Addresses);
    let (from, to) = (port()?, port()?);
    if words.next().is_some() {
        return Err(Malformed::Addresses);
    }
    Ok(Ends {
        source: SocketAddr::new(source, from),
        destination: SocketAddr::new(destination, to),
    })
}

/// A port in the only spelling that it has.
fn port(word: &str) -> Option<u16> {
    let plain = word.bytes().all(|octet| octet.is_ascii_digit());
    if plain && (word == "0" || !word.starts_with('0')) { word.parse().ok() } else { None }
}
