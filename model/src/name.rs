//! Names: hostnames and their parts.

use std::{borrow::Cow, fmt, str::FromStr};

/// Why a text is no name of the wanted sort.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Longer than DNS allows: 253 octets for a name, 63 for a label.
    #[error("longer than DNS allows (253 octets for a name, 63 for a label)")]
    TooLong,
    /// An empty name or label.
    #[error("empty name or label")]
    Empty,
    /// An octet other than a letter, a digit or an inner hyphen.
    #[error("a label consists of letters, digits and inner hyphens")]
    Octet,
    /// An IP address where a name is wanted.
    #[error("an IP address is not a hostname")]
    Address,
    /// A port that is no number from 1 to 65535.
    #[error("the port is not a number from 1 to 65535")]
    Port,
}

/// A DNS name as asked for: lower-case, without port and trailing dot, at most 253 octets, labels of
/// 1 to 63 letters, digits, hyphens (RFC 1123) and underscores (which browsers send).
///
/// The only type that a route lookup takes. Borrows when the text was canonical already, which is
/// the case for every real client, so that parsing allocates nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Hostname<'h>(Cow<'h, str>);

impl<'h> Hostname<'h> {
    /// Parses a name without port; one trailing dot is dropped, letters are lower-cased.
    pub fn parse(text: &'h str) -> Result<Self, InvalidName> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if is_canonical(text.as_bytes()) {
            return Ok(Self(Cow::Borrowed(text)));
        }
        Self::parse_any(text)
    }

    /// As [`Hostname::parse`], octet by octet, for what [`is_canonical`] does not vouch for.
    fn parse_any(text: &'h str) -> Result<Self, InvalidName> {
        if text.len() > 253 {
            return Err(InvalidName::TooLong);
        }
        let (mut label, mut upper, mut last_is_number) = (0_usize, false, true);
        let mut previous = b'.';
        for &octet in text.as_bytes() {
            match octet {
                b'a'..=b'z' | b'_' => last_is_number = false,
                b'A'..=b'Z' => (upper, last_is_number) = (true, false),
                b'0'..=b'9' => {}
                b'-' if previous != b'.' => last_is_number = false,
                b'.' if previous == b'.' => return Err(InvalidName::Empty),
                b'.' if previous == b'-' => return Err(InvalidName::Octet),
                b'.' => (label, last_is_number) = (0, true),
                b'[' | b':' => return Err(InvalidName::Address),
                _ => return Err(InvalidName::Octet),
            }
            if octet != b'.' {
                label += 1;
                if label > 63 {
                    return Err(InvalidName::TooLong);
                }
            }
            previous = octet;
        }
        match previous {
            b'.' => Err(InvalidName::Empty),
            b'-' => Err(InvalidName::Octet),
            // No top-level domain is a number; `127.0.0.1` and `1` are addresses (WHATWG URL).
            _ if last_is_number => Err(InvalidName::Address),
            _ if upper => Ok(Self(Cow::Owned(text.to_ascii_lowercase()))),
            _ => Ok(Self(Cow::Borrowed(text))),
        }
    }

    /// Parses `host[:port]`, the value of `Host` or `:authority`. The port is checked and returned.
    pub fn parse_authority(text: &'h str) -> Result<(Self, Option<u16>), InvalidName> {
        if is_canonical(text.as_bytes()) {
            return Ok((Self(Cow::Borrowed(text)), None));
        }
        let Some(colon) = text.bytes().rposition(|octet| octet == b':') else {
            return Ok((Self::parse(text)?, None));
        };
        let (host, port) = (text.get(..colon).unwrap_or(""), text.get(colon + 1..).unwrap_or(""));
        let name = Self::parse(host)?;
        if port.is_empty() || !port.bytes().all(|octet| octet.is_ascii_digit()) {
            return Err(InvalidName::Port);
        }
        match port.parse() {
            Ok(0) | Err(_) => Err(InvalidName::Port),
            Ok(port) => Ok((name, Some(port))),
        }
    }

    /// The text of the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same name, owning its text.
    pub fn into_owned(self) -> Hostname<'static> {
        Hostname(Cow::Owned(self.0.into_owned()))
    }
}

impl fmt::Display for Hostname<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a name surely is a canonical [`Hostname`]; some canonical ones (short ones, those with
/// underscores or with a digit at the end) are not vouched for. Every request passes here.
fn is_canonical(octets: &[u8]) -> bool {
    let (Some(&first), Some(&last)) = (octets.first(), octets.last()) else { return false };
    // A name that ends in a letter is no address.
    if octets.len() > 253 || is_mark(first) || !last.is_ascii_lowercase() {
        return false;
    }
    let Some(tail) = octets.last_chunk() else { return false };
    let (mut bad, mut rest) = (misfits(tail), octets);
    while let Some(window) = rest.first_chunk() {
        bad |= misfits(window);
        rest = rest.get(16..).unwrap_or_default();
    }
    bad == 0 && labels_fit(octets)
}

fn is_mark(octet: u8) -> bool {
    matches!(octet, b'-' | b'.')
}

/// Looks at 16 octets, and at what follows each of them: 0 if all may stand in a canonical name.
/// Without branches, so that the compiler makes vectors of it.
#[expect(clippy::needless_bitwise_bool, reason = "a lazy operator is a branch")]
fn misfits(window: &[u8; 17]) -> u8 {
    window.iter().zip(window.iter().skip(1)).fold(0, |bad, (&octet, &next)| {
        let plain = is_mark(octet) | octet.is_ascii_lowercase() | octet.is_ascii_digit();
        // An empty label, or a hyphen at the end of one.
        let edge = is_mark(octet) & is_mark(next) & ((octet == b'.') | (next == b'.'));
        bad | u8::from(!plain) | u8::from(edge)
    })
}

/// Whether no label has more than 63 octets.
fn labels_fit(mut octets: &[u8]) -> bool {
    // Labels that end within the next 64 octets fit, however many these are.
    while let Some((window, _)) = octets.split_first_chunk::<64>() {
        let Some(dot) = window.iter().rposition(|octet| *octet == b'.') else { return false };
        octets = octets.get(dot + 1..).unwrap_or_default();
    }
    true
}

/// Checks one lower-case DNS label: 1 to 63 of `a-z0-9-`, no hyphen at either end.
pub(crate) fn check_label(text: &str) -> Result<(), InvalidName> {
    match text.as_bytes() {
        [] => Err(InvalidName::Empty),
        [_, rest @ ..] if rest.len() >= 63 => Err(InvalidName::TooLong),
        [b'-', ..] | [.., b'-'] => Err(InvalidName::Octet),
        octets if octets.iter().all(|octet| matches!(octet, b'a'..=b'z' | b'0'..=b'9' | b'-')) => {
            Ok(())
        }
        _ => Err(InvalidName::Octet),
    }
}

/// The label of one edge machine in hostnames, the `<server>` in
/// `<label>.<server>.containers.<domain>`. One lower-case DNS label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerName(Box<str>);

impl ServerName {
    /// The label.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ServerName {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        check_label(text)?;
        Ok(Self(text.into()))
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The operator's domain, under which all names of this installation lie: `api.<domain>`,
/// `<realm>.api.<domain>` and the zone `containers.<domain>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    name: Box<str>,
    zone: Box<str>,
    api: Box<str>,
}

impl Domain {
    /// The domain itself, such as `gantry.localhost`.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// The zone of all canonical hostnames, `containers.<domain>`.
    pub fn zone(&self) -> &str {
        &self.zone
    }

    /// The host of the API, `api.<domain>`.
    pub fn api(&self) -> &str {
        &self.api
    }
}

impl FromStr for Domain {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let domain = Hostname::parse(text)?;
        // The longest name below it: two labels of 63 octets and `containers`, with their dots.
        if domain.as_str().len() + 63 + 1 + 63 + 1 + "containers.".len() > 253 {
            return Err(InvalidName::TooLong);
        }
        let domain = domain.as_str();
        Ok(Self {
            zone: format!("containers.{domain}").into(),
            api: format!("api.{domain}").into(),
            name: domain.into(),
        })
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
