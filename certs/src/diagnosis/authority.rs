//! What the CAs are, and what they may issue: their directories, CAA records, and what is left of their limits.

use bytes::Bytes;
use gantry_store::CertificateRecord;
use http::{Request, header::DATE};
use serde::Deserialize;
use time::{OffsetDateTime, format_description::well_known::Rfc2822};
use tokio::time::timeout;

use super::{Finding, Grounds, Verdict, at};
use crate::{
    acme::{Authority, Cost, Reached, is_of, ms, renews, uri},
    dns::Wish,
};

/// How far our clock may be from a CA's until that is worth a word, and until it is wrong.
const SKEW: time::Duration = time::Duration::minutes(1);
const SKEW_MAX: time::Duration = time::Duration::minutes(10);

/// The part of a CA's directory that is looked at (RFC 8555, section 7.1.1).
#[derive(Debug, Default, Deserialize)]
struct Directory {
    #[serde(default)]
    meta: Meta,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    #[serde(default)]
    caa_identities: Vec<String>,
}

/// The limits of a CA that one more order for a certificate would go beyond, in words, and until when (in
/// milliseconds since the epoch).
pub async fn limits_reached(
    authority: &Authority,
    store: &gantry_store::Store,
    domain: &gantry_model::Domain,
    record: &CertificateRecord,
    now: OffsetDateTime,
) -> gantry_store::Result<Option<(String, i64)>> {
    let is_renewal = renews(record, &authority.directory);
    let reached = cost(authority, domain, &record.hostnames, is_renewal);
    let reached = reached.check(&authority.limits, store, ms(now)).await?;
    Ok(reached.map(|Reached { text, until_ms }| (text, until_ms)))
}

fn cost<'c>(
    authority: &'c Authority,
    domain: &gantry_model::Domain,
    hostnames: &'c [String],
    is_renewal: bool,
) -> Cost<'c> {
    let is_own = hostnames.iter().all(|name| is_of(domain, name));
    Cost { directory: &authority.directory, hostnames, is_renewal, is_own }
}

impl Grounds<'_> {
    pub(super) async fn ask_authorities(
        &self,
        name: &str,
        record: Option<&CertificateRecord>,
        findings: &mut Vec<Finding>,
    ) {
        let mut of_each = Vec::new();
        for authority in self.authorities {
            let (identities, told) = self.ask_directory(authority).await;
            let mut said = vec![told];
            if let Some(identities) = identities {
                said.push(self.caa(name, authority, &identities).await);
            }
            said.extend(self.limits(name, authority, record).await);
            of_each.push(said);
        }
        findings.extend(one_is_enough(of_each));
    }

    /// Asks a CA for its directory. Gives what it calls itself in CAA records, if it can be asked.
    pub(super) async fn ask_directory(
        &self,
        authority: &Authority,
    ) -> (Option<Vec<String>>, Finding) {
        const CHECK: &str = "CA";
        const REACHED: &str = "its directory can be fetched from here, over HTTPS that is trusted";
        let at = &authority.directory;
        let request = match Request::get(at).body(Bytes::new()) {
            Ok(request) => request,
            Err(error) => {
                return (None, Finding::failure(CHECK, format!("{at}: {error}"), REACHED));
            }
        };
        let answer = match timeout(self.patience, authority.transport.send(request)).await {
            Ok(Ok(answer)) if answer.status().is_success() => answer,
            Ok(Ok(answer)) => {
                let found = format!("{at} answers {}", answer.status());
                return (None, Finding::failure(CHECK, found, REACHED));
            }
            Ok(Err(error)) => {
                return (None, Finding::failure(CHECK, format!("{at}: {error}"), REACHED));
            }
            Err(_elapsed) => {
                let found = format!("{at} does not answer within {} s", self.patience.as_secs());
                return (None, Finding::failure(CHECK, found, REACHED));
            }
        };
        let directory: Directory = match serde_json::from_slice(answer.body()) {
            Ok(directory) => directory,
            Err(error) => {
                let found = format!("{at} gives no directory: {error}");
                return (None, Finding::failure(CHECK, found, "the directory of an ACME server"));
            }
        };
        let date = answer.headers().get(DATE).and_then(|date| date.to_str().ok()).and_then(date);
        (Some(directory.meta.caa_identities), self.clock(at, date))
    }

    /// How far our clock is from that of a CA.
    fn clock(&self, at: &str, date: Option<OffsetDateTime>) -> Finding {
        const CHECK: &str = "clock";
        const RIGHT: &str = "a clock that is set by NTP";
        let Some(date) = date else {
            return Finding::ok(CHECK, format!("{at} answers, and says no time"));
        };
        let skew = self.now - date;
        let (seconds, ahead) = (skew.abs().whole_seconds(), skew.is_positive());
        let side = if ahead { "ahead of" } else { "behind" };
        let found = format!("{at} answers; the clock here is {seconds} s {side} its own");
        if skew.abs() > SKEW_MAX {
            Finding::failure(CHECK, found, RIGHT)
        } else if skew.abs() > SKEW {
            Finding::warning(CHECK, found, RIGHT)
        } else {
            Finding::ok(CHECK, found)
        }
    }

    /// Whether CAA records let a CA issue.
    async fn caa(&self, name: &str, authority: &Authority, identities: &[String]) -> Finding {
        const CHECK: &str = "CAA";
        let (bare, is_wildcard) =
            name.strip_prefix("*.").map_or((name, false), |bare| (bare, true));
        let caa = match self.names.caa(bare).await {
            Ok(Some(caa)) => caa,
            Ok(None) => {
                return Finding::ok(CHECK, self.without_caa(bare, authority, identities).await);
            }
            Err(error) => {
                let right = "an answer to questions for CAA; without one CAs must not issue";
                return Finding::failure(CHECK, error.to_string(), right);
            }
        };
        if identities.is_empty() {
            let issuers = caa.issuers(is_wildcard).join(", ");
            let found = format!(
                "the CAA records at {} let these issue: {issuers}; {} does not say which it is",
                caa.at, authority.directory
            );
            return Finding::warning(CHECK, found, "the CA is among them, by its documentation");
        }
        let account = match (self.store, self.seal) {
            (Some(store), Some(seal)) => uri(authority, store, seal).await,
            (Some(_) | None, None) | (None, Some(_)) => Ok(None),
        };
        let account = match account {
            Ok(account) => account,
            Err(failure) => {
                return Finding::failure(CHECK, failure.text, "the account can be read");
            }
        };
        let methods: &[&str] =
            if is_of(self.domain, name) { &["dns-01"] } else { &["tls-alpn-01", "http-01"] };
        let wish = Wish { is_wildcard, identities, account: account.as_deref(), methods };
        match caa.refuses(&wish) {
            None => Finding::ok(CHECK, format!("the CAA records at {} permit this CA", caa.at)),
            Some(why) => {
                let tag = if is_wildcard { "issuewild" } else { "issue" };
                let identity = identities.first().map_or("", String::as_str);
                let right = format!("{} CAA 0 {tag} \"{identity}\"", caa.at);
                Finding::failure(CHECK, why, right)
            }
        }
    }

    /// What is said where any CA may issue: for a name of the installation, which record would have this one do it alone.
    async fn without_caa(
        &self,
        name: &str,
        authority: &Authority,
        identities: &[String],
    ) -> String {
        let found = format!("no CAA records at {name} or above, so that any CA may issue");
        let (Some(identity), Some(store), Some(seal)) = (identities.first(), self.store, self.seal)
        else {
            return found;
        };
        match uri(authority, store, seal).await {
            Ok(Some(account)) if is_of(self.domain, name) => format!(
                "{found}; with this record our account alone could, in our way alone: {} CAA 0 issue \
                 \"{identity}; validationmethods=dns-01; accounturi={account}\"",
                self.domain
            ),
            // An account that cannot be read is told where it is needed.
            Ok(_) | Err(_) => found,
        }
    }

    /// Whether one more order would go beyond a limit of the CA.
    async fn limits(
        &self,
        name: &str,
        authority: &Authority,
        record: Option<&CertificateRecord>,
    ) -> Option<Finding> {
        const CHECK: &str = "limits";
        let store = self.store?;
        let of_name = [name.to_owned()];
        let hostnames = record.map_or(&of_name[..], |record| &record.hostnames);
        let is_renewal = record.is_some_and(|record| renews(record, &authority.directory));
        let cost = cost(authority, self.domain, hostnames, is_renewal);
        let at_ca = &authority.directory;
        Some(match cost.check(&authority.limits, store, ms(self.now)).await {
            Ok(None) => {
                Finding::ok(CHECK, format!("one more order at {at_ca} is within its limits"))
            }
            Ok(Some(Reached { text, until_ms })) => {
                let right = format!("wait until {}, when it may be asked again", at(until_ms));
                Finding::failure(CHECK, text, right)
            }
            Err(error) => {
                let why = gantry_model::Chain(&error).to_string();
                Finding::failure(CHECK, why, "the store can be read")
            }
        })
    }
}

/// What was found of each CA. Where one of them can issue, nothing must be mended for the others to.
pub(super) fn one_is_enough(of_each: Vec<Vec<Finding>>) -> impl Iterator<Item = Finding> {
    let fails = |said: &Vec<Finding>| said.iter().any(|it| it.verdict == Verdict::Failure);
    let one_can = of_each.iter().any(|said| !fails(said));
    of_each.into_iter().flatten().map(move |finding| {
        if !one_can || finding.verdict != Verdict::Failure {
            return finding;
        }
        let right = finding.right.unwrap_or_default();
        Finding::warning(&finding.check, finding.found, format!("{right}; another CA is enough"))
    })
}

/// A date of HTTP (RFC 9110, section 5.6.7): one of RFC 2822 but for the name of its zone.
fn date(text: &str) -> Option<OffsetDateTime> {
    let date = text.strip_suffix("GMT")?;
    OffsetDateTime::parse(&format!("{date}+0000"), &Rfc2822).ok()
}
