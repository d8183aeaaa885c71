//! A certificate chain and its key, read and checked against each other.

use std::sync::Arc;

use rustls::{crypto::aws_lc_rs, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use time::OffsetDateTime;
use x509_parser::{extensions::GeneralName, prelude::FromDer as _};

/// The longest chain, in octets of PEM.
const CHAIN_MAX: usize = 64 * 1024;

/// A chain that fits its key.
#[derive(Clone, Debug)]
pub(crate) struct Parsed {
    /// What the leaf is for, in lower case.
    pub(crate) names: Vec<String>,
    /// The leaf's serial number in hexadecimal digits.
    pub(crate) serial: String,
    pub(crate) not_before: OffsetDateTime,
    pub(crate) not_after: OffsetDateTime,
    pub(crate) key: Arc<CertifiedKey>,
}

/// Why a chain cannot be shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChainError {
    #[error("is over {CHAIN_MAX} octets long")]
    TooLong,
    #[error("holds no certificate in PEM: {0}")]
    Pem(String),
    #[error("the leaf is no certificate: {0}")]
    Leaf(String),
    #[error("the key cannot be used with it: {0}")]
    Key(String),
    #[error("is for no hostname")]
    Nameless,
}

impl Parsed {
    /// Reads a chain in PEM and the leaf's private key in DER (PKCS#8, SEC1 or PKCS#1).
    pub(crate) fn new(chain: &[u8], key: &[u8]) -> Result<Self, ChainError> {
        let key = PrivateKeyDer::try_from(key).map_err(|error| ChainError::Key(error.into()))?;
        Self::with_key(chain, key.clone_key())
    }

    /// As [`Parsed::new`], for a key that is known for one.
    pub(crate) fn with_key(chain: &[u8], key: PrivateKeyDer<'static>) -> Result<Self, ChainError> {
        if chain.len() > CHAIN_MAX {
            return Err(ChainError::TooLong);
        }
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|error| ChainError::Pem(error.to_string()))?;
        let leaf = chain.first().ok_or_else(|| ChainError::Pem("there is none".to_owned()))?;
        let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(leaf)
            .map_err(|error| ChainError::Leaf(error.to_string()))?;
        let names = names(&parsed)?;
        let serial = hex::encode(parsed.tbs_certificate.raw_serial());
        let validity = parsed.validity();
        let (not_before, not_after) =
            (validity.not_before.to_datetime(), validity.not_after.to_datetime());
        let provider = aws_lc_rs::default_provider();
        let key = CertifiedKey::from_der(chain, key, &provider)
            .map_err(|error| ChainError::Key(error.to_string()))?;
        Ok(Self { names, serial, not_before, not_after, key: Arc::new(key) })
    }
}

/// What the leaf of a chain in PEM is for, in lower case.
pub(crate) fn names_of(chain: &str) -> Option<Vec<String>> {
    let leaf = CertificateDer::from_pem_slice(chain.as_bytes()).ok()?;
    let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(&leaf).ok()?;
    names(&parsed).ok()
}

fn names(leaf: &x509_parser::certificate::X509Certificate<'_>) -> Result<Vec<String>, ChainError> {
    let alternative = leaf
        .subject_alternative_name()
        .map_err(|error| ChainError::Leaf(error.to_string()))?
        .ok_or(ChainError::Nameless)?;
    let names: Vec<String> = alternative
        .value
        .general_names
        .iter()
        .filter_map(|name| {
            let GeneralName::DNSName(name) = name else { return None };
            Some(name.to_ascii_lowercase())
        })
        .collect();
    if names.is_empty() { Err(ChainError::Nameless) } else { Ok(names) }
}
