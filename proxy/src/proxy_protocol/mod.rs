//! The PROXY protocol, versions 1 and 2: how a balancer tells whose connection it carries, in a
//! header before everything else. Pure: octets in, an address out, and the reverse.
//!
//! A header is believed because of who sent it, never because of what it says: the caller reads one
//! from listed balancers only, and from those it demands one.

mod v1;
mod v2;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;

pub(crate) use v2::write;

/// The longest header that is read. A v1 header has at most 107 octets; a v2 header could say 64 KiB,
/// but what is known to be put into one takes some hundreds.
pub(crate) const HEADER_MAX: usize = 4096;

/// A header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Its octets; what follows belongs to the connection.
    pub(crate) len: usize,
    /// Whose connection it is. Nothing: the balancer's own, such as a health check.
    pub(crate) ends: Option<Ends>,
}

/// The two ends of the connection that a balancer accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The client.
    pub source: SocketAddr,
    /// Where the client connected to.
    pub destination: SocketAddr,
}

/// Why octets are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Something else comes first.
    #[error("no PROXY protocol header")]
    Missing,
    /// It is longer than a header of its version may be, or than [`HEADER_MAX`].
    #[error("the header is too long")]
    TooLong,
    /// A version, command, family or transport that nobody defined or that no TCP connection has.
    #[error("the header is of an unknown kind")]
    Unknown,
    /// An address or a port cannot be read.
    #[error("the header's addresses cannot be read")]
    Addresses,
    /// Its extensions do not fit into its length.
    #[error("the header's extensions cannot be read")]
    Extensions,
    /// It has a checksum, and another one than it says.
    #[error("the header's checksum is wrong")]
    Checksum,
}

/// Reads the header that `octets` begin with; nothing if it has not come as a whole.
pub(crate) fn parse(octets: &[u8]) -> Result<Option<Header>, Malformed> {
    let begins = |with: &[u8]| octets.iter().zip(with).all(|(octet, wanted)| octet == wanted);
    if begins(v2::SIGNATURE) {
        v2::parse(octets)
    } else if begins(v1::SIGNATURE) {
        v1::parse(octets)
    } else {
        Err(Malformed::Missing)
    }
}
