//! The development CA.

use std::{
    io,
    path::{Path, PathBuf},
};

use gantry_model::{Domain, Hostname, InvalidName};
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    NameConstraints, PKCS_ECDSA_P256_SHA256, PublicKeyData as _,
};
use rustls::{crypto::aws_lc_rs, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject as _};
use time::{Duration, OffsetDateTime};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer as _};

use crate::files;

/// How long a leaf certificate is valid from its issue on.
pub const LEAF_LIFETIME: Duration = Duration::days(30);

const CA_LIFETIME: Duration = Duration::days(3652);
/// Clients' clocks may be behind ours by this much.
const CLOCK_SKEW: Duration = Duration::hours(1);
/// The most names that one certificate may carry.
const NAMES_MAX: usize = 100;

/// A certification authority of this installation's own, for development.
///
/// Its root is constrained to one domain: whoever trusts it lets this machine vouch for names under
/// that domain, not for the rest of the internet and not for IP addresses. Root and key are kept in
/// a directory, so that a browser has to be told once.
#[derive(Debug)]
pub struct DevCa {
    issuer: Issuer<'static, KeyPair>,
    domain: Domain,
    pem: String,
    path: PathBuf,
}

/// Why the CA of a directory cannot be used. Every message names the file and what helps.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file or the directory cannot be read or written.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file holds something else than what was written there.
    #[error(
        "{} {why}; put back a copy, or delete the directory to make a new CA (browsers must then be told to trust it)",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The directory belongs to an installation with another domain.
    #[error(
        "the CA in {} is for {found}, not for {wanted}; give each domain a directory of its own",
        path.display()
    )]
    ForeignDomain {
        /// The root's file.
        path: PathBuf,
        /// What the root is constrained to.
        found: String,
        /// The domain of the configuration.
        wanted: String,
    },
    /// Others than its owner can read or write the key.
    #[error("others have access to the CA's key {}; run chmod 600 on it", path.display())]
    KeyExposed {
        /// The key's file.
        path: PathBuf,
    },
    /// The root is not valid now.
    #[error(
        "the CA in {} is valid from {not_before} until {not_after}, not now; check the clock, or delete the directory to make a new CA",
        path.display()
    )]
    NotValidNow {
        /// The root's file.
        path: PathBuf,
        /// Start of its validity.
        not_before: OffsetDateTime,
        /// End of its validity.
        not_after: OffsetDateTime,
    },
    /// A key or the root could not be made.
    #[error("cannot make the CA")]
    Make(#[from] rcgen::Error),
}

/// Why a certificate cannot be issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// No names, or more than 100.
    #[error("a certificate carries 1 to 100 names, not {count}")]
    Count {
        /// How many were asked for.
        count: usize,
    },
    /// Something else than a hostname or `*.` and a hostname.
    #[error("{name:?} is no name for a certificate")]
    Name {
        /// What was asked for.
        name: String,
        /// Why it is none.
        #[source]
        source: InvalidName,
    },
    /// A name that the root's constraint excludes; no client would accept it.
    #[error("{name} is not under {domain}, the domain of this CA")]
    Outside {
        /// What was asked for.
        name: String,
        /// The domain of the CA.
        domain: String,
    },
    /// The key or the certificate could not be made.
    #[error("cannot sign the certificate")]
    Sign(#[from] rcgen::Error),
    /// TLS refuses the key that was just made.
    #[error("cannot use the certificate for TLS")]
    Tls(#[from] rustls::Error),
}

impl DevCa {
    /// Opens the CA in `dir`, or makes one for `domain` there if there is none.
    ///
    /// Blocks on the disk. `dir` and its parents are made; the key gets the permissions 0600. Two
    /// processes may call this at the same time and get the same CA.
    ///
    /// # Errors
    ///
    /// A directory that is damaged or belongs to another domain is refused, never replaced: a new
    /// root would silently lose the trust that browsers were told to have in the old one.
    pub fn open_or_create(
        dir: &Path,
        domain: &Domain,
        now: OffsetDateTime,
    ) -> Result<Self, CaError> {
        let _lock = files::lock(dir).map_err(|source| io_error("open", dir, source))?;
        let (path, key_path) = (dir.join("ca.pem"), dir.join("ca.key"));
        let read = |path: &Path| {
            files::read(path).map_err(|source| {
                let kind = source.kind();
                if matches!(kind, io::ErrorKind::InvalidData | io::ErrorKind::FileTooLarge) {
                    corrupt(path, "is damaged")
                } else {
                    io_error("read", path, source)
                }
            })
        };
        let (pem, key) = match (read(&path)?, read(&key_path)?) {
            (Some(pem), Some(key)) => (pem, open_key(&key_path, &key)?),
            (Some(_), None) => return Err(corrupt(&key_path, "is missing")),
            // A crash between the two writes leaves the key alone; it has signed nothing yet.
            (None, Some(key)) => {
                let key = open_key(&key_path, &key)?;
                (create_root(&path, &key, domain, now)?, key)
            }
            (None, None) => {
                let key = create_key(&key_path)?;
                (create_root(&path, &key, domain, now)?, key)
            }
        };
        let root = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|_no_pem| corrupt(&path, "is no certificate in PEM form"))?;
        check_root(&path, &root, &key, domain, now)?;
        let issuer = Issuer::from_ca_cert_der(&root, key)?;
        Ok(Self { issuer, domain: domain.clone(), pem, path })
    }

    /// The root in PEM form, for whoever shall trust it.
    pub fn ca_pem(&self) -> &str {
        &self.pem
    }

    /// The file of the root, readable by everyone.
    pub fn ca_path(&self) -> &Path {
        &self.path
    }

    /// The domain that the root is constrained to.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// Makes a P-256 key and a certificate for `names`, valid for [`LEAF_LIFETIME`] from `now` on.
    ///
    /// Names are lower-case hostnames of the CA's domain; the first label may be `*`, which stands
    /// for exactly one label.
    pub fn issue(&self, names: &[String], now: OffsetDateTime) -> Result<CertifiedKey, IssueError> {
        if names.is_empty() || names.len() > NAMES_MAX {
            return Err(IssueError::Count { count: names.len() });
        }
        for name in names {
            self.check_name(name)?;
        }
        let mut params = CertificateParams::new(names)?;
        params.not_before = (now - CLOCK_SKEW).replace_nanosecond(0).unwrap_or(now);
        params.not_after = now + LEAF_LIFETIME;
        params.distinguished_name = distinguished_name("Gantry development certificate");
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let provider = aws_lc_rs::default_provider();
        Ok(CertifiedKey::from_der(vec![certificate.into()], key, &provider)?)
    }

    fn check_name(&self, name: &str) -> Result<(), IssueError> {
        let hostname = Hostname::parse(name.strip_prefix("*.").unwrap_or(name))
            .map_err(|source| IssueError::Name { name: name.to_owned(), source })?;
        let domain = self.domain.as_str();
        let below = hostname.as_str().strip_suffix(domain);
        if below.is_some_and(|below| below.is_empty() || below.ends_with('.')) {
            Ok(())
        } else {
            Err(IssueError::Outside { name: name.to_owned(), domain: domain.to_owned() })
        }
    }
}

fn io_error(what: &'static str, path: &Path, source: io::Error) -> CaError {
    CaError::Io { what, path: path.to_owned(), source }
}

fn corrupt(path: &Path, why: &'static str) -> CaError {
    CaError::Corrupt { path: path.to_owned(), why }
}

fn distinguished_name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Gantry");
    name.push(DnType::CommonName, common_name);
    name
}

fn open_key(path: &Path, pem: &str) -> Result<KeyPair, CaError> {
    let others = files::bits_of_others(path).map_err(|source| io_error("read", path, source))?;
    if others != 0 {
        return Err(CaError::KeyExposed { path: path.to_owned() });
    }
    KeyPair::from_pkcs8_pem_and_sign_algo(pem, &PKCS_ECDSA_P256_SHA256)
        .map_err(|_no_key| corrupt(path, "is no P-256 key in PEM form"))
}

fn create_key(path: &Path) -> Result<KeyPair, CaError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    files::write(path, key.serialize_pem().as_bytes(), 0o600)
        .map_err(|source| io_error("write", path, source))?;
    Ok(key)
}

fn create_root(
    path: &Path,
    key: &KeyPair,
    domain: &Domain,
    now: OffsetDateTime,
) -> Result<String, CaError> {
    let mut params = CertificateParams::default();
    params.not_before = now - Duration::days(1);
    params.not_after = now + CA_LIFETIME;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // A constraint on DNS names leaves addresses free, so these are excluded by name.
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName(domain.as_str().to_owned())],
        excluded_subtrees: vec![
            GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix([0; 4], 0)),
            GeneralSubtree::IpAddress(CidrSubnet::from_v6_prefix([0; 16], 0)),
        ],
    });
    // The key's identifier keeps the roots of several installations apart in a trust store.
    let id =
        params.key_identifier(key).first_chunk().map_or(0, |octets| u32::from_be_bytes(*octets));
    params.distinguished_name = distinguished_name(&format!("Gantry development CA {id:08x}"));
    let pem = params.self_signed(key)?.pem();
    files::write(path, pem.as_bytes(), 0o644).map_err(|source| io_error("write", path, source))?;
    tracing::info!(path = %path.display(), %domain, "made a development CA");
    Ok(pem)
}

/// Holds a root against what [`create_root`] writes for this key and domain.
fn check_root(
    path: &Path,
    root: &CertificateDer<'_>,
    key: &KeyPair,
    domain: &Domain,
    now: OffsetDateTime,
) -> Result<(), CaError> {
    let (_, root) = X509Certificate::from_der(root)
        .map_err(|_malformed| corrupt(path, "holds no valid certificate"))?;
    if root.public_key().raw != key.subject_public_key_info() {
        return Err(corrupt(path, "and ca.key beside it do not belong together"));
    }
    if !root.is_ca() {
        return Err(corrupt(path, "is no CA's certificate"));
    }
    if root.verify_signature(None).is_err() {
        return Err(corrupt(path, "is damaged: its signature is wrong"));
    }
    let found = constraint(&root).ok_or_else(|| corrupt(path, "is not constrained to a domain"))?;
    if found != domain.as_str() {
        let (found, wanted) = (found.to_owned(), domain.to_string());
        return Err(CaError::ForeignDomain { path: path.to_owned(), found, wanted });
    }
    let validity = root.validity();
    let (not_before, not_after) =
        (validity.not_before.to_datetime(), validity.not_after.to_datetime());
    if now < not_before || now + LEAF_LIFETIME > not_after {
        return Err(CaError::NotValidNow { path: path.to_owned(), not_before, not_after });
    }
    Ok(())
}

/// The one domain that a root may vouch for.
fn constraint<'c>(root: &'c X509Certificate<'_>) -> Option<&'c str> {
    let constraints = root.name_constraints().ok()??;
    if let Some([only]) = constraints.value.permitted_subtrees.as_deref()
        && let GeneralName::DNSName(name) = only.base
    {
        return Some(name);
    }
    None
}
