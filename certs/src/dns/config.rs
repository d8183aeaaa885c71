//! What an operator says about DNS-01, and what is wrong with it.
//!
//! Each type is one table of the configuration. What a table says is checked as a whole: every key
//! that breaks a rule is named with the rule.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hickory_proto::rr::{Name, rdata::tsig::TsigAlgorithm};
use serde::Deserialize;

use super::{AcmeDns, DnsProvider, Hook, Propagation, Rfc2136, absolute};
use crate::files;

/// A key whose value breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {rule}")]
pub struct Fault {
    /// The key within its table.
    pub key: &'static str,
    /// What is wrong and what would be right.
    pub rule: String,
}

impl Fault {
    pub(super) fn new(key: &'static str, rule: impl Into<String>) -> Self {
        Self { key, rule: rule.into() }
    }
}

/// Who puts TXT records into the DNS. The key `provider` says which table it is.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "provider", rename_all = "kebab-case")]
pub enum DnsConfig {
    /// `provider = "rfc2136"`: a name server that takes dynamic updates.
    Rfc2136(Rfc2136Config),
    /// `provider = "acme-dns"`: an acme-dns server.
    AcmeDns(AcmeDnsConfig),
    /// `provider = "exec"`: a program of the operator's.
    Exec(ExecConfig),
}

impl DnsConfig {
    /// The provider that this describes; otherwise everything that is wrong.
    pub fn provider(&self, propagation: &Propagation) -> Result<Arc<dyn DnsProvider>, Vec<Fault>> {
        Ok(match self {
            Self::Rfc2136(config) => Arc::new(Rfc2136::new(config)?),
            Self::AcmeDns(config) => Arc::new(AcmeDns::new(config, propagation.clone())?),
            Self::Exec(config) => Arc::new(Hook::new(config)?),
        })
    }
}

/// Dynamic updates (RFC 2136), signed with TSIG.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rfc2136Config {
    /// The servers that take updates, asked in this order until one has made the change: `"ns1.example.org"`,
    /// `"192.0.2.53:5353"`, `"[2001:db8::53]:53"`. Without a port it is 53.
    pub servers: Vec<String>,
    /// The zone that is changed, such as `"example.org"`. Left out, it is what the server says for the
    /// record's name.
    pub zone: Option<String>,
    /// The key's name, as the server knows it.
    pub key_name: String,
    /// The key's algorithm: `"hmac-sha256"` (the default), `"hmac-sha384"` or `"hmac-sha512"`.
    #[serde(default)]
    pub key_algorithm: KeyAlgorithm,
    /// The key's secret in base64; this or `key_secret_file`.
    pub key_secret: Option<KeySecret>,
    /// A file with nothing but the secret in base64, readable by its owner only.
    pub key_secret_file: Option<PathBuf>,
    /// How long one server may take, in seconds: 1 to 60, 10 if left out.
    #[serde(default = "ten")]
    pub timeout_s: u64,
}

/// An acme-dns server, with an account for each domain.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcmeDnsConfig {
    /// The accounts as acme-dns-client and lego keep them: a JSON object with an object for each domain, which has
    /// `fulldomain`, `subdomain`, `username`, `password` and maybe `server_url`. Read with each change;
    /// readable by its owner only.
    pub accounts: PathBuf,
    /// The server of accounts that do not say theirs, such as `"https://auth.example.org"`. `http` is
    /// for loopback addresses only, because the account's password goes along.
    pub server: Option<String>,
    /// How long a request may take, in seconds: 1 to 60, 10 if left out.
    #[serde(default = "ten")]
    pub timeout_s: u64,
}

/// A program that is run as `PROGRAM append NAME VALUE` and `PROGRAM remove NAME VALUE`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecConfig {
    /// The program, as an absolute path; no shell is asked.
    pub program: PathBuf,
    /// How long it may run, in seconds: 1 to 600, 60 if left out. Then its process group is killed.
    #[serde(default = "sixty")]
    pub timeout_s: u64,
}

/// When a record is taken to be visible to the world.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PropagationConfig {
    /// Whether the zone's name servers are asked for the value. Without that, nothing but `delay_s` is
    /// waited; for machines that may ask no foreign name servers.
    pub check: bool,
    /// Who is asked for delegations and for the zone's name servers, as `"192.0.2.53:53"`; for split DNS. Empty for
    /// the machine's own resolvers.
    pub resolvers: Vec<SocketAddr>,
    /// The port on which the zone's name servers are asked.
    pub port: u16,
    /// How long a record may take to be at every name server, in seconds: 1 to 3,600.
    pub timeout_s: u64,
    /// How long is waited after that, in seconds, for servers that stand behind one address: at most 3,600.
    pub delay_s: u64,
}

impl Default for PropagationConfig {
    fn default() -> Self {
        Self { check: true, resolvers: Vec::new(), port: 53, timeout_s: 180, delay_s: 0 }
    }
}

/// The MAC of a TSIG key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyAlgorithm {
    /// HMAC with SHA-256.
    #[default]
    HmacSha256,
    /// HMAC with SHA-384.
    HmacSha384,
    /// HMAC with SHA-512.
    HmacSha512,
}

impl From<KeyAlgorithm> for TsigAlgorithm {
    fn from(algorithm: KeyAlgorithm) -> Self {
        match algorithm {
            KeyAlgorithm::HmacSha256 => Self::HmacSha256,
            KeyAlgorithm::HmacSha384 => Self::HmacSha384,
            KeyAlgorithm::HmacSha512 => Self::HmacSha512,
        }
    }
}

/// The secret of a TSIG key. Neither its own text nor an error's shows it.
#[derive(Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct KeySecret(Vec<u8>);

impl KeySecret {
    /// The octets, for what signs with them.
    pub(super) fn octets(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for KeySecret {
    type Err = NoSecret;

    fn from_str(text: &str) -> Result<Self, NoSecret> {
        match STANDARD.decode(text.trim()) {
            Ok(octets) if !octets.is_empty() => Ok(Self(octets)),
            // What does not decode is secret all the same.
            Ok(_) | Err(_) => Err(NoSecret),
        }
    }
}

impl TryFrom<String> for KeySecret {
    type Error = NoSecret;

    fn try_from(text: String) -> Result<Self, NoSecret> {
        text.parse()
    }
}

impl fmt::Debug for KeySecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("KeySecret(…)")
    }
}

/// A text is no secret of a TSIG key.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("must be the key's secret in base64, as keymgr and tsig-keygen print it")]
pub struct NoSecret;

/// A server's host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) host: String,
    pub(super) port: u16,
}

impl Server {
    /// An address as in `servers`.
    fn parse(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Some(Self { host: address.ip().to_string(), port: address.port() });
        }
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if bare.parse::<std::net::IpAddr>().is_ok() {
            return Some(Self { host: bare.to_owned(), port: 53 });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().ok().filter(|port| *port != 0)?),
            None => (text, 53),
        };
        let is_name = !host.is_empty()
            && host.chars().all(|one| one.is_ascii_alphanumeric() || "-._".contains(one));
        is_name.then(|| Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(formatter, "[{host}]:{port}")
        } else {
            write!(formatter, "{host}:{port}")
        }
    }
}

impl Rfc2136Config {
    pub(super) fn servers(&self) -> Result<Vec<Server>, Fault> {
        if self.servers.is_empty() {
            return Err(Fault::new("servers", "must have at least one entry, \"host:port\""));
        }
        let one = |text: &String| {
            Server::parse(text).ok_or_else(|| {
                let rule = format!("must be host or host:port, found {text:?}");
                Fault::new("servers", rule)
            })
        };
        self.servers.iter().map(one).collect()
    }

    pub(super) fn zone(&self) -> Result<Option<Name>, Fault> {
        let Some(text) = &self.zone else { return Ok(None) };
        match absolute(text) {
            Ok(zone) if !zone.is_root() => Ok(Some(zone)),
            Ok(_) => Err(Fault::new("zone", "must be the name of a zone, such as \"example.org\"")),
            Err(error) => Err(Fault::new("zone", format!("must be the name of a zone: {error}"))),
        }
    }

    pub(super) fn key_name(&self) -> Result<Name, Fault> {
        match absolute(&self.key_name) {
            Ok(name) if !name.is_root() => Ok(name),
            Ok(_) => Err(Fault::new("key_name", "must be the key's name, as the server knows it")),
            Err(error) => Err(Fault::new("key_name", format!("must be a key's name: {error}"))),
        }
    }

    pub(super) fn secret(&self) -> Result<KeySecret, Fault> {
        const FILE: &str = "key_secret_file";
        match (&self.key_secret, &self.key_secret_file) {
            (Some(secret), None) => Ok(secret.clone()),
            (None, Some(path)) => {
                let fault = |rule: String| Fault::new(FILE, format!("{}: {rule}", path.display()));
                let text = files::read(path).map_err(|error| fault(error.to_string()))?;
                let text = text.ok_or_else(|| fault("there is no such file".to_owned()))?;
                files::owner_only(path).map_err(fault)?;
                text.parse().map_err(|error: NoSecret| fault(error.to_string()))
            }
            (None, None) => {
                Err(Fault::new("key_secret", "is required, unless key_secret_file names a file"))
            }
            (Some(_), Some(_)) => {
                Err(Fault::new(FILE, "goes without key_secret: name one of both"))
            }
        }
    }
}

/// A number of seconds within its bounds.
pub(super) fn bounded(
    key: &'static str,
    seconds: u64,
    range: std::ops::RangeInclusive<u64>,
) -> Result<Duration, Fault> {
    if range.contains(&seconds) {
        return Ok(Duration::from_secs(seconds));
    }
    let rule = format!("must be {} to {} seconds, found {seconds}", range.start(), range.end());
    Err(Fault::new(key, rule))
}

/// Takes what is right and notes what is wrong.
pub(super) fn noted<T>(faults: &mut Vec<Fault>, result: Result<T, Fault>) -> Option<T> {
    result.map_err(|fault| faults.push(fault)).ok()
}

const fn ten() -> u64 {
    10
}

const fn sixty() -> u64 {
    60
}
