//! What a certificate says of itself.

use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::{LEAF_LIFETIME, Leaf, renewer::RENEW_AFTER};

/// What is told of a certificate that is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Who has signed it: the common name, or what there is in its place.
    pub issuer: String,
    /// Its serial number in hexadecimal digits.
    pub serial: String,
    /// Where its validity begins.
    pub not_before: OffsetDateTime,
    /// Where its validity ends.
    pub not_after: OffsetDateTime,
}

impl About {
    /// When a certificate of the development CA is made anew.
    pub fn development_renewal(&self) -> OffsetDateTime {
        let left: Duration = LEAF_LIFETIME - RENEW_AFTER;
        self.not_after - left
    }
}

/// What the first certificate of a text in PEM calls whom it is for.
pub fn common_name(pem: &[u8]) -> Option<String> {
    let certificate = CertificateDer::from_pem_slice(pem).ok()?;
    let (_, certificate) = X509Certificate::from_der(&certificate).ok()?;
    let name = certificate.subject().iter_common_name().next()?;
    name.as_str().ok().map(str::to_owned)
}

impl Leaf {
    /// What it says of itself; nothing if it cannot be read, which what is shown always can.
    pub fn about(&self) -> Option<About> {
        let (_, leaf) = X509Certificate::from_der(self.key.cert.first()?).ok()?;
        let name = leaf.issuer().iter_common_name().next().and_then(|name| name.as_str().ok());
        let validity = leaf.validity();
        Some(About {
            issuer: name.map_or_else(|| leaf.issuer().to_string(), str::to_owned),
            serial: hex::encode(leaf.tbs_certificate.raw_serial()),
            not_before: validity.not_before.to_datetime(),
            not_after: validity.not_after.to_datetime(),
        })
    }
}
