//! An acme-dns server: it answers for one name of each account, and keeps the two values there that
//! were written last.
//!
//! It cannot take a value away, so that [`AcmeDns::remove`] only forgets it, and a third value at the same
//! time takes the first one's place: a domain and its wildcard can be validated together, two orders
//! for them cannot. The domain's `_acme-challenge` must be a CNAME to its account's `fulldomain`.

use std::{collections::HashMap, fs, path::PathBuf, time::Duration};

use reqwest::{Client, StatusCode, Url, redirect};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::{
    DnsError, DnsProvider, Propagation, Txt, absolute,
    config::{AcmeDnsConfig, Fault, bounded, noted},
    written,
};
use crate::files;

/// How many values a server keeps at a name.
const VALUES_KEPT: usize = 2;

/// The longest list of accounts, in octets.
const ACCOUNTS_LEN_MAX: u64 = 1 << 20;

/// How much of a refusal is read, in octets.
const REFUSAL_LEN_MAX: usize = 4096;

/// Writes TXT records at acme-dns servers.
#[derive(Debug)]
pub struct AcmeDns {
    accounts: PathBuf,
    server: Option<Url>,
    propagation: Propagation,
    http: Client,
    /// What has been written at each name and not been removed since, the newest last. To write a value
    /// again would cost the other one its place.
    written: Mutex<HashMap<String, Vec<String>>>,
}

/// An account as acme-dns gives it out at its registration, with what its clients add.
#[derive(Deserialize)]
struct Account {
    fulldomain: String,
    subdomain: String,
    username: String,
    password: String,
    #[serde(default)]
    server_url: String,
}

type Accounts = HashMap<String, Account>;

impl AcmeDns {
    /// The provider of a configuration; otherwise everything that is wrong with it. Delegations are
    /// looked up by `propagation`.
    pub fn new(config: &AcmeDnsConfig, propagation: Propagation) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let bound = noted(&mut faults, bounded("timeout_s", config.timeout_s, 1..=60));
        let server = config.server.as_deref().map(server_url).transpose();
        let server = noted(&mut faults, server.map_err(|rule| Fault::new("server", rule)));
        let accounts = config.accounts.clone();
        if let Err(rule) = load(&accounts) {
            faults.push(Fault::new("accounts", format!("{}: {rule}", accounts.display())));
        }
        let http = noted(&mut faults, client(bound.unwrap_or_default()));
        match (server, http) {
            (Some(server), Some(http)) if faults.is_empty() => {
                Ok(Self { accounts, server, propagation, http, written: Mutex::default() })
            }
            _ => Err(faults),
        }
    }

    /// The account that has a name, given either as the CNAME's target or as the domain's own, for
    /// which the CNAME is looked at.
    async fn account(&self, name: &str) -> Result<Account, DnsError> {
        let path = self.accounts.display();
        let name = written(&absolute(name)?);
        let mut accounts =
            load(&self.accounts).map_err(|rule| DnsError::new(format!("{path}: {rule}")))?;
        let owner = accounts.iter().find(|(_, account)| account.fulldomain == name);
        if let Some(domain) = owner.map(|(domain, _)| domain.clone()) {
            return accounts.remove(&domain).ok_or_else(|| no_account(&name, &path.to_string()));
        }
        let domain = name.strip_prefix("_acme-challenge.").unwrap_or(&name);
        let account =
            accounts.remove(domain).ok_or_else(|| no_account(&name, &path.to_string()))?;
        let target = self.propagation.resolve_target(&name).await?;
        let wanted = &account.fulldomain;
        if target == *wanted {
            return Ok(account);
        }
        let found = if target == name {
            "there is none".to_owned()
        } else {
            format!("it leads to {target}")
        };
        Err(DnsError::new(format!("{name} must be a CNAME to {wanted}, but {found}")))
    }

    async fn update(&self, account: &Account, value: &str) -> Result<(), String> {
        let server = match &*account.server_url {
            "" => self.server.clone().ok_or("its account has no server_url, nor is server set")?,
            own => server_url(own).map_err(|rule| format!("the account's server_url {rule}"))?,
        };
        let mut url = server;
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push("update");
        }
        let body = serde_json::json!({ "subdomain": account.subdomain, "txt": value });
        let request = self.http.post(url.clone()).json(&body);
        let request = request.header("X-Api-User", sensitive(&account.username)?);
        let request = request.header("X-Api-Key", sensitive(&account.password)?);
        let answer = request.send().await.map_err(|error| {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            format!("{url} does not answer: {error}{}", cause.unwrap_or_default())
        })?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let said = said(answer).await;
        let why = match status {
            StatusCode::UNAUTHORIZED => {
                "it does not know the account's username with this password and subdomain, or \
                 allows it from other addresses only (allowfrom)"
            }
            StatusCode::NOT_FOUND => "no acme-dns server is there",
            _ => "it has refused the value",
        };
        Err(format!("{url} answers {status} ({said}): {why}"))
    }
}

fn no_account(name: &str, path: &str) -> DnsError {
    DnsError::new(format!(
        "{path} has no account for {name}: neither one with that fulldomain nor one of that domain; \
         register the domain, and make its _acme-challenge a CNAME to the account's fulldomain"
    ))
}

fn client(bound: Duration) -> Result<Client, Fault> {
    // A server that sends elsewhere would send the password there.
    let builder = Client::builder().timeout(bound).redirect(redirect::Policy::none());
    let client = builder.user_agent("gantry").build();
    client.map_err(|error| Fault::new("server", format!("cannot be spoken to: {error}")))
}

/// A server's address, over which a password may go.
fn server_url(text: &str) -> Result<Url, String> {
    let rule = "must be an https address such as \"https://auth.example.org\"";
    let url: Url = text.parse().map_err(|error| format!("{rule}, found {text:?}: {error}"))?;
    let is_loopback = url.host_str().is_some_and(|host| {
        let host = host.trim_matches(['[', ']']);
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    });
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback => Ok(url),
        "http" => Err(format!(
            "must be https, because the account's password goes along (http is for loopback \
             addresses), found {text:?}"
        )),
        _ => Err(format!("{rule}, found {text:?}")),
    }
}

/// A header's value that no log shows.
fn sensitive(text: &str) -> Result<http::HeaderValue, String> {
    let mut value = http::HeaderValue::from_str(text).map_err(|error| {
        format!("the account's username or password cannot be sent in a header: {error}")
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// The beginning of what a server says, fit for a line of a log.
async fn said(mut answer: reqwest::Response) -> String {
    let mut body = Vec::new();
    while let Ok(Some(part)) = answer.chunk().await {
        body.extend_from_slice(&part);
        if body.len() >= REFUSAL_LEN_MAX {
            break;
        }
    }
    let text = String::from_utf8_lossy(&body);
    text.trim().chars().filter(|one| !one.is_control()).take(200).collect()
}

/// Reads the accounts; otherwise what is wrong with the file. Its contents are in no error.
fn load(path: &PathBuf) -> Result<Accounts, String> {
    let len = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if len > ACCOUNTS_LEN_MAX {
        return Err(format!("must have at most {ACCOUNTS_LEN_MAX} octets, has {len}"));
    }
    files::owner_only(path)?;
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    let accounts: Accounts = serde_json::from_str(&text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        format!(
            "must be a JSON object with an account for each domain, each with fulldomain, subdomain, \
             username and password; line {line}, column {column} is not"
        )
    })?;
    let lower = |text: &str| text.trim_end_matches('.').to_ascii_lowercase();
    let accounts = accounts.into_iter().map(|(domain, account)| {
        let fulldomain = lower(&account.fulldomain);
        (lower(&domain), Account { fulldomain, ..account })
    });
    Ok(accounts.collect())
}

#[async_trait::async_trait]
impl DnsProvider for AcmeDns {
    fn keeps_few(&self) -> bool {
        true
    }

    async fn append(&self, record: &Txt) -> Result<(), DnsError> {
        let account = self.account(&record.name).await?;
        // Held over the request: two values at the same time are written one after the other.
        let mut written = self.written.lock().await;
        let values = written.entry(account.fulldomain.clone()).or_default();
        if values.contains(&record.value) {
            return Ok(());
        }
        self.update(&account, &record.value).await.map_err(|why| {
            let name = &account.fulldomain;
            DnsError::new(format!("the TXT record at {name} was not written: {why}"))
        })?;
        values.push(record.value.clone());
        let too_many = values.len().saturating_sub(VALUES_KEPT);
        values.drain(..too_many);
        Ok(())
    }

    /// Nothing is taken away: an acme-dns server has no call for that, and overwrites the value in time.
    async fn remove(&self, record: &Txt) -> Result<(), DnsError> {
        let mut written = self.written.lock().await;
        written.retain(|_, values| {
            values.retain(|value| *value != record.value);
            !values.is_empty()
        });
        Ok(())
    }
}
