//! Where certificates come from: the section `certificates`.

use std::{path::PathBuf, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use figment::value::{Dict, Value};
use gantry_certs::{
    CertificateFiles,
    acme::{Authority, Dns, ExternalAccount, Https, Limits},
    dns::{DnsConfig, Fault, Propagation, PropagationConfig},
    owner_only,
};
use serde::{Deserialize, de::DeserializeOwned};

use super::reader::Reader;

/// The most CAs, and the most certificates of the operator's own.
const AUTHORITIES_MAX: usize = 8;
const FILES_MAX: usize = 1_000;

/// Where certificates come from.
#[derive(Clone, Debug)]
pub(crate) struct CertificatesConfig {
    pub(crate) issuing: Issuing,
    /// Who is asked where names lead.
    pub(crate) names: Propagation,
    /// The operator's own.
    pub(crate) files: Vec<CertificateFiles>,
}

/// Who issues certificates.
#[derive(Clone, Debug)]
pub(crate) enum Issuing {
    /// The development CA alone.
    Development,
    /// CAs that speak ACME.
    Acme { authorities: Vec<Authority>, dns: Option<Dns> },
}

impl Issuing {
    /// The CAs that are asked, the preferred one first; none for the development CA.
    pub(crate) fn authorities(&self) -> &[Authority] {
        match self {
            Self::Development => &[],
            Self::Acme { authorities, .. } => authorities,
        }
    }

    /// How names of the installation are proved, if that is configured.
    pub(crate) fn dns(&self) -> Option<&Dns> {
        match self {
            Self::Development => None,
            Self::Acme { dns, .. } => dns.as_ref(),
        }
    }
}

/// A CA as the operator writes it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AuthorityTable {
    directory: String,
    #[serde(default)]
    contact: Vec<String>,
    profile: Option<String>,
    eab_key_id: Option<String>,
    eab_key_file: Option<PathBuf>,
    roots: Option<PathBuf>,
    orders_per_3_hours: Option<u32>,
    certificates_per_domain_and_week: Option<u32>,
    duplicates_per_week: Option<u32>,
    failures_per_name_and_hour: Option<u32>,
}

/// A certificate of the operator's as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FilesTable {
    certificate: PathBuf,
    key: PathBuf,
}

/// Reads the section.
pub(super) fn read(reader: &mut Reader<'_>) -> Option<CertificatesConfig> {
    // Read everything before the first `?`: one bad key must not hide the others.
    let is_acme = reader.word("certificates.issuer", &[("development", false), ("acme", true)]);
    let authorities =
        reader.key("certificates.authorities", |value| each(value, AUTHORITIES_MAX, authority));
    let files = reader.key("certificates.files", |value| each(value, FILES_MAX, files_of));
    let propagation = reader.key("certificates.propagation", |value| {
        let config: PropagationConfig = table(value)?;
        Propagation::new(&config).map_err(|faults| told(&faults))
    });
    let dns = reader.key("certificates.dns", |value| {
        if value.as_dict().is_some_and(Dict::is_empty) {
            return Ok(None);
        }
        let config: DnsConfig = table(value)?;
        // What is wrong with it is told by its own key.
        let Some(propagation) = propagation.clone() else { return Ok(None) };
        let provider = config.provider(&propagation).map_err(|faults| told(&faults))?;
        Ok(Some(Dns { provider, propagation }))
    });
    let (is_acme, authorities, files, dns) = (is_acme?, authorities?, files?, dns?);
    let names = propagation?;
    if is_acme && authorities.is_empty() {
        let origin = reader.origin_of("certificates.issuer");
        let rule = "\"acme\" needs at least one table [[certificates.authorities]]";
        reader.problem(&origin, "certificates.issuer", rule);
        return None;
    }
    let issuing = if is_acme { Issuing::Acme { authorities, dns } } else { Issuing::Development };
    Some(CertificatesConfig { issuing, names, files })
}

fn each<T>(
    value: &Value,
    max: usize,
    one: impl Fn(&Value) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    let list = value.as_array().ok_or_else(|| "must be a list of tables".to_owned())?;
    if list.len() > max {
        return Err(format!("must have at most {max} entries"));
    }
    let entries = list.iter().enumerate();
    entries.map(|(at, value)| one(value).map_err(|rule| format!("[{at}]: {rule}"))).collect()
}

fn table<T: DeserializeOwned>(value: &Value) -> Result<T, String> {
    value.deserialize().map_err(|error| {
        let path = error.path.join(".");
        if path.is_empty() { error.kind.to_string() } else { format!("{path}: {}", error.kind) }
    })
}

fn told(faults: &[Fault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn authority(value: &Value) -> Result<Authority, String> {
    let said: AuthorityTable = table(value)?;
    let usual = Limits::default();
    let limits = Limits {
        orders: said.orders_per_3_hours.unwrap_or(usual.orders),
        domain: said.certificates_per_domain_and_week.unwrap_or(usual.domain),
        duplicates: said.duplicates_per_week.unwrap_or(usual.duplicates),
        failures: said.failures_per_name_and_hour.unwrap_or(usual.failures),
    };
    match url::Url::parse(&said.directory) {
        Ok(url) if url.scheme() == "https" => {}
        Ok(_) | Err(_) => {
            return Err(format!("directory: must be an https address, found {:?}", said.directory));
        }
    }
    if let Some(bad) = said.contact.iter().find(|contact| !contact.starts_with("mailto:")) {
        return Err(format!("contact: must be like \"mailto:admin@example.com\", found {bad:?}"));
    }
    let external_account = match (said.eab_key_id, said.eab_key_file) {
        (None, None) => None,
        (Some(key_id), Some(path)) => {
            let text = read_file("eab_key_file", &path)?;
            owner_only(&path)
                .map_err(|rule| format!("eab_key_file: {}: {rule}", path.display()))?;
            let text = String::from_utf8_lossy(&text);
            let text = text.trim().trim_end_matches('=').replace('+', "-").replace('/', "_");
            let key = URL_SAFE_NO_PAD.decode(text).ok().filter(|key| !key.is_empty());
            let key =
                key.ok_or("eab_key_file: must hold the key in base64url, as the CA shows it")?;
            Some(ExternalAccount { key_id, key })
        }
        (Some(_), None) => return Err("eab_key_file: belongs to eab_key_id".to_owned()),
        (None, Some(_)) => return Err("eab_key_id: belongs to eab_key_file".to_owned()),
    };
    let roots = said.roots.map(|path| read_file("roots", &path)).transpose()?;
    let transport = Https::new(roots.as_deref()).map_err(|error| format!("roots: {error}"))?;
    Ok(Authority {
        directory: said.directory,
        contact: said.contact,
        external_account,
        profile: said.profile,
        limits,
        transport: Arc::new(transport),
    })
}

fn read_file(key: &str, path: &std::path::Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("{key}: {}: {error}", path.display()))
}

fn files_of(value: &Value) -> Result<CertificateFiles, String> {
    let said: FilesTable = table(value)?;
    for (key, path) in [("certificate", &said.certificate), ("key", &said.key)] {
        if !path.is_absolute() {
            return Err(format!("{key}: must be an absolute path, found {:?}", path.display()));
        }
    }
    let files = CertificateFiles { certificate: said.certificate, key: said.key };
    // What is wrong now would be wrong at the start.
    files.check().map(|()| files).map_err(|error| error.to_string())
}
