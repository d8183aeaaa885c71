//! Version 2: binary, with extensions.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Ends, HEADER_MAX, Header, Malformed};

pub(super) const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The signature, version and command, family and transport, and the length of the rest.
const PREFIX: usize = 16;

const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;

const UNSPECIFIED: u8 = 0x00;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;

/// The extension that holds a checksum (CRC-32C) of the whole header.
const CHECKSUM: u8 = 0x03;

/// Reads a header of which the first octets are those of [`SIGNATURE`], as far as there are any.
pub(super) fn parse(octets: &[u8]) -> Result<Option<Header>, Malformed> {
    let Some((prefix, _)) = octets.split_first_chunk::<PREFIX>() else { return Ok(None) };
    let [.., command, kind, high, low] = *prefix;
    let len = PREFIX + usize::from(u16::from_be_bytes([high, low]));
    if !matches!(command, LOCAL | PROXY) {
        return Err(Malformed::Unknown);
    }
    if len > HEADER_MAX {
        return Err(Malformed::TooLong);
    }
    let Some(header) = octets.get(..len) else { return Ok(None) };
    let rest = header.get(PREFIX..).unwrap_or_default();
    let (ends, extensions) = match (command, kind) {
        // What follows is to be ignored.
        (LOCAL, _) => return Ok(Some(Header { len, ends: None })),
        (_, UNSPECIFIED) => return Ok(Some(Header { len, ends: None })),
        (_, TCP_OVER_IPV4) => ends::<4>(rest)?,
        (_, TCP_OVER_IPV6) => ends::<16>(rest)?,
        _ => return Err(Malformed::Unknown),
    };
    check_extensions(header, extensions)?;
    Ok(Some(Header { len, ends: Some(ends) }))
}

/// Two addresses of `N` octets, two ports, and what follows.
fn ends<const N: usize>(rest: &[u8]) -> Result<(Ends, &[u8]), Malformed>
where
    [u8; N]: Into<IpAddr>,
{
    let (source, rest) = rest.split_first_chunk::<N>().ok_or(Malformed::Addresses)?;
    let (destination, rest) = rest.split_first_chunk::<N>().ok_or(Malformed::Addresses)?;
    let (&[a, b, c, d], rest) = rest.split_first_chunk::<4>().ok_or(Malformed::Addresses)?;
    let end = |address: [u8; N], port| SocketAddr::new(address.into(), u16::from_be_bytes(port));
    let ends = Ends { source: end(*source, [a, b]), destination: end(*destination, [c, d]) };
    Ok((ends, rest))
}

/// Walks over the extensions, which must fill their place exactly; checks the checksum if there is
/// one, and believes nothing else of them.
fn check_extensions(header: &[u8], extensions: &[u8]) -> Result<(), Malformed> {
    let mut rest = extensions;
    while !rest.is_empty() {
        let (&[kind, high, low], behind) =
            rest.split_first_chunk::<3>().ok_or(Malformed::Extensions)?;
        let len = usize::from(u16::from_be_bytes([high, low]));
        let (value, behind) = behind.split_at_checked(len).ok_or(Malformed::Extensions)?;
        if kind == CHECKSUM {
            let stated = <[u8; 4]>::try_from(value).or(Err(Malformed::Extensions))?;
            let at = header.len() - behind.len() - stated.len();
            let computed = !header.iter().enumerate().fold(u32::MAX, |crc, (index, octet)| {
                let masked = (at..at + stated.len()).contains(&index);
                crc32c(crc, if masked { 0 } else { *octet })
            });
            if computed != u32::from_be_bytes(stated) {
                return Err(Malformed::Checksum);
            }
        }
        rest = behind;
    }
    Ok(())
}

/// One octet more of a CRC-32C (RFC 3720, B.4), bit by bit: a header is short.
pub(super) fn crc32c(crc: u32, octet: u8) -> u32 {
    (0..8).fold(crc ^ u32::from(octet), |crc, _| {
        if crc & 1 == 0 { crc >> 1 } else { (crc >> 1) ^ 0x82f6_3b78 }
    })
}

/// Writes a header that says whose connection it is. Addresses of both families together are written
/// as IPv6.
pub(crate) fn write(ends: Ends, out: &mut Vec<u8>) {
    let (source, destination) =
        (ends.source.ip().to_canonical(), ends.destination.ip().to_canonical());
    out.extend_from_slice(SIGNATURE);
    out.push(PROXY);
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            out.extend_from_slice(&[TCP_OVER_IPV4, 0, 12]);
            out.extend_from_slice(&Ipv4Addr::octets(&source));
            out.extend_from_slice(&Ipv4Addr::octets(&destination));
        }
        (source, destination) => {
            out.extend_from_slice(&[TCP_OVER_IPV6, 0, 36]);
            out.extend_from_slice(&v6(source).octets());
            out.extend_from_slice(&v6(destination).octets());
        }
    }
    out.extend_from_slice(&ends.source.port().to_be_bytes());
    out.extend_from_slice(&ends.destination.port().to_be_bytes());
}

fn v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}
