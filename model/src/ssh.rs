//! SSH public keys: the one that opens a container.
//!
//! A key is kept as its *blob*, the octets that OpenSSH writes in base64. The line's comment and
//! spacing are dropped, so that two spellings of one key are equal and have one fingerprint. The
//! blob is taken apart completely: its inner type must be that of the line, every part must have
//! the length that its type demands, and nothing may follow. Points are not checked against their
//! curve; whoever verifies a signature does that.

use std::fmt;

use base64::{Engine as _, engine::general_purpose};
use sha2::{Digest as _, Sha256};

use crate::FieldError;

/// The longest line that is looked at, in octets; an RSA key of 16384 bits needs about 2800.
pub const LINE_LEN_MAX: usize = 16 * 1024;

/// The shortest RSA modulus, in bits.
const RSA_BITS_MIN: usize = 2048;
/// The longest RSA modulus, in bits; OpenSSH reads no longer ones.
const RSA_BITS_MAX: usize = 16_384;
/// The longest `application` of a hardware key, in octets; it is `ssh:` in practice.
const APPLICATION_LEN_MAX: usize = 255;

/// An OpenSSH public key line, checked and normalised: `<type> <base64 of the blob>`, without
/// options and comment. Two spellings of one key are equal.
///
/// Accepted: ed25519, ECDSA on P-256/384/521, RSA of 2048 to 16384 bits, and the `sk-` forms of
/// ed25519 and P-256. Certificates, options and everything else are refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SshPublicKey {
    kind: &'static str,
    blob: Vec<u8>,
}

/// SHA-256 of a key's blob; what uniqueness and lookups compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyFingerprint(pub [u8; 32]);

/// What the blob of a type must consist of, after the type itself.
#[derive(Clone, Copy)]
enum Shape {
    /// A point of 32 octets.
    Ed25519,
    /// The curve's name, then an uncompressed point of this many octets.
    Ecdsa { curve: &'static str, point_len: usize },
    /// Exponent, then modulus.
    Rsa,
    /// As `Ed25519`, then the application.
    SkEd25519,
    /// As `Ecdsa` on P-256, then the application.
    SkEcdsa,
}

const TYPES: [(&str, Shape); 7] = [
    ("ssh-ed25519", Shape::Ed25519),
    ("ecdsa-sha2-nistp256", Shape::Ecdsa { curve: "nistp256", point_len: 65 }),
    ("ecdsa-sha2-nistp384", Shape::Ecdsa { curve: "nistp384", point_len: 97 }),
    ("ecdsa-sha2-nistp521", Shape::Ecdsa { curve: "nistp521", point_len: 133 }),
    ("ssh-rsa", Shape::Rsa),
    ("sk-ssh-ed25519@openssh.com", Shape::SkEd25519),
    ("sk-ecdsa-sha2-nistp256@openssh.com", Shape::SkEcdsa),
];

/// The rule of a field that holds something else than a key line.
const NO_KEY_LINE: &str =
    "must be an OpenSSH public key line, such as \"ssh-ed25519 AAAA… comment\"";
/// The rule of a key whose octets are not what its type says.
const DAMAGED: &str = "the key is damaged: its data does not fit its type";

impl SshPublicKey {
    /// Reads one line of OpenSSH's format; `field` names it in the error.
    ///
    /// A comment and surrounding white space are dropped. Options before the type, certificates,
    /// several lines, and types that are not accepted are refused, each with its own rule.
    pub fn parse(field: &str, line: &str) -> Result<Self, FieldError> {
        parse_line(line).map_err(|rule| FieldError::new(field, rule))
    }

    /// The key with this blob, as a client offers it in the protocol; nothing if the blob is not
    /// exactly that of an accepted key.
    pub fn from_blob(blob: &[u8]) -> Option<Self> {
        let (kind, _) = take_string(blob)?;
        let &(kind, shape) = TYPES.iter().find(|(name, _)| name.as_bytes() == kind)?;
        check_blob(kind, shape, blob).ok()?;
        Some(Self { kind, blob: blob.to_vec() })
    }

    /// The type, such as `ssh-ed25519`.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// The key in the protocol's own form, the type included.
    pub fn blob(&self) -> &[u8] {
        &self.blob
    }

    /// The SHA-256 of the blob.
    pub fn fingerprint(&self) -> KeyFingerprint {
        KeyFingerprint::of_blob(&self.blob)
    }
}

impl KeyFingerprint {
    /// The fingerprint of a key that is at hand as its blob.
    pub fn of_blob(blob: &[u8]) -> Self {
        Self(Sha256::digest(blob).into())
    }
}

impl fmt::Display for SshPublicKey {
    /// The normalised line, `<type> <base64>`; [`SshPublicKey::parse`] of it gives the key back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, general_purpose::STANDARD.encode(&self.blob))
    }
}

impl fmt::Display for KeyFingerprint {
    /// `SHA256:` and unpadded base64, as OpenSSH prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SHA256:{}", general_purpose::STANDARD_NO_PAD.encode(self.0))
    }
}

fn parse_line(line: &str) -> Result<SshPublicKey, &'static str> {
    if line.len() > LINE_LEN_MAX {
        return Err("must be at most 16384 octets");
    }
    let line = line.trim_matches(['\r', '\n', ' ', '\t']);
    if line.is_empty() {
        return Err("must not be empty; leave it out or write null for no key");
    }
    if line.contains(['\r', '\n', '\0']) {
        return Err("must be one public key on one line");
    }
    if line.starts_with("-----BEGIN") || line.starts_with("PuTTY-User-Key-File") {
        return Err("must be the public key, not a private key or another format");
    }
    let mut words = line.split([' ', '\t']).filter(|word| !word.is_empty());
    let (Some(kind), data) = (words.next(), words.next()) else {
        return Err(NO_KEY_LINE);
    };
    if kind.contains("-cert-") {
        return Err("certificates are not accepted; give the plain public key");
    }
    let Some(&(kind, shape)) = TYPES.iter().find(|(name, _)| *name == kind) else {
        return Err(refuse_type(kind, line));
    };
    let blob = data
        .and_then(|data| general_purpose::STANDARD.decode(data).ok())
        .ok_or("the key's data is missing or not base64")?;
    check_blob(kind, shape, &blob)?;
    Ok(SshPublicKey { kind, blob })
}

/// Why a line whose first word is no accepted type is refused.
fn refuse_type(kind: &str, line: &str) -> &'static str {
    let has_type = line.split([' ', '\t']).any(|word| TYPES.iter().any(|(name, _)| *name == word));
    if has_type {
        "options before the key are not accepted; give the key alone"
    } else if kind == "ssh-dss" {
        "DSA keys are not accepted; use ed25519"
    } else if kind.starts_with("ssh-") || kind.starts_with("ecdsa-") || kind.starts_with("sk-") {
        "this type of key is not accepted; use ed25519, ECDSA, RSA or their sk- forms"
    } else {
        NO_KEY_LINE
    }
}

fn check_blob(kind: &str, shape: Shape, blob: &[u8]) -> Result<(), &'static str> {
    let (inner, rest) = take_string(blob).ok_or(DAMAGED)?;
    if inner != kind.as_bytes() {
        return Err("the type in the key's data is not the one in front of it");
    }
    let rest = match shape {
        Shape::Ed25519 => take_ed25519(rest),
        Shape::Ecdsa { curve, point_len } => take_ecdsa(rest, curve, point_len),
        Shape::SkEd25519 => take_ed25519(rest).and_then(take_application),
        Shape::SkEcdsa => take_ecdsa(rest, "nistp256", 65).and_then(take_application),
        Shape::Rsa => Some(take_rsa(rest)?),
    };
    if rest.is_some_and(<[u8]>::is_empty) { Ok(()) } else { Err(DAMAGED) }
}

fn take_ed25519(blob: &[u8]) -> Option<&[u8]> {
    let (point, rest) = take_string(blob)?;
    (point.len() == 32).then_some(rest)
}

fn take_ecdsa<'b>(blob: &'b [u8], curve: &str, point_len: usize) -> Option<&'b [u8]> {
    let (name, rest) = take_string(blob)?;
    let (point, rest) = take_string(rest)?;
    // 4 marks an uncompressed point, the only form that SSH knows.
    let right = name == curve.as_bytes() && point.len() == point_len && point.first() == Some(&4);
    right.then_some(rest)
}

fn take_application(blob: &[u8]) -> Option<&[u8]> {
    let (application, rest) = take_string(blob)?;
    (1..=APPLICATION_LEN_MAX).contains(&application.len()).then_some(rest)
}

fn take_rsa(blob: &[u8]) -> Result<&[u8], &'static str> {
    let (exponent, rest) = take_positive(blob).ok_or(DAMAGED)?;
    let (modulus, rest) = take_positive(rest).ok_or(DAMAGED)?;
    let odd = |number: &[u8]| number.last().is_some_and(|octet| octet & 1 == 1);
    if !odd(exponent) || exponent == [1] || !odd(modulus) {
        return Err(DAMAGED);
    }
    match bits(modulus) {
        ..RSA_BITS_MIN => Err("RSA keys must have at least 2048 bits"),
        RSA_BITS_MIN..=RSA_BITS_MAX => Ok(rest),
        _ => Err("RSA keys must have at most 16384 bits"),
    }
}

/// Takes a `string` of RFC 4251: a length of four octets and that many octets.
fn take_string(blob: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = blob.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*len)).ok()?)
}

/// Takes a positive `mpint` of RFC 4251 in its one spelling, without the zero octet of the sign.
fn take_positive(blob: &[u8]) -> Option<(&[u8], &[u8])> {
    let (number, rest) = take_string(blob)?;
    match number {
        // The zero octet stands only where the number would look negative without it.
        [0, magnitude @ ..] if magnitude.first().is_some_and(|octet| octet & 0x80 != 0) => {
            Some((magnitude, rest))
        }
        [1..=0x7f, ..] => Some((number, rest)),
        _ => None,
    }
}

/// The length in bits of a number without leading zero octets.
fn bits(number: &[u8]) -> usize {
    let zeros = number.first().map_or(0, |octet| octet.leading_zeros() as usize);
    number.len() * 8 - zeros
}
