//! SSH public keys: the one that opens a container.

use std::fmt;

use crate::FieldError;

/// An OpenSSH public key line, checked and normalised: `<type> <base64 of the blob>`, without
/// options and comment. Two spellings of one key are equal.
///
/// Accepted: ed25519, ECDSA on P-256/384/521, RSA of at least 2048 bits, and the `sk-` forms of
/// ed25519 and P-256. Certificates, options and everything else are refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SshPublicKey {
    kind: &'static str,
    blob: Vec<u8>,
}

/// SHA-256 of a key's blob; what uniqueness and lookups compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyFingerprint(pub [u8; 32]);

impl SshPublicKey {
    /// Reads one line of OpenSSH's format.
    pub fn parse(field: &str, line: &str) -> Result<Self, FieldError> {
        let _ = line;
        Err(FieldError::new(field, "must be an OpenSSH public key line"))
    }

    /// The SHA-256 of the blob.
    pub fn fingerprint(&self) -> KeyFingerprint {
        KeyFingerprint([0; 32])
    }
}

impl fmt::Display for SshPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind)
    }
}

impl fmt::Display for KeyFingerprint {
    /// `SHA256:` and unpadded base64, as OpenSSH prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SHA256:")
    }
}
