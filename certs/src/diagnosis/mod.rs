//! Why a name has no certificate, or which it has, in words.
//!
//! Everything is asked as an order would ask it: by the same resolver, the same way to the CA, the same provider
//! of records. What only the world can see (a CA asks from elsewhere) is asked from this machine, and said so.

mod authority;
mod overall;
mod proofs;

use std::{collections::BTreeSet, fmt, net::IpAddr, time::Duration};

use gantry_model::Domain;
use gantry_store::{CertificateRecord, Store};
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

pub use self::authority::limits_reached;
use crate::{
    About, Resolver, Seal, Shelf, Source,
    acme::{Authority, Dns, is_of, ms},
    dns::Propagation,
};

/// How bad something is.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it must be.
    Ok,
    /// Works, or may work, but is worth a look.
    Warning,
    /// Must be mended.
    Failure,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failure => "FAILURE",
        })
    }
}

/// What was found where somebody has looked.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at, in one word or two.
    pub check: String,
    /// How bad it is.
    pub verdict: Verdict,
    /// What there is.
    pub found: String,
    /// What would be right, where that is something else.
    pub right: Option<String>,
}

impl Finding {
    /// All is well.
    pub fn ok(check: &str, found: impl Into<String>) -> Self {
        let found = printable(&found.into());
        Self { check: check.to_owned(), verdict: Verdict::Ok, found, right: None }
    }

    /// Something is not as it should be.
    pub fn warning(check: &str, found: impl Into<String>, right: impl Into<String>) -> Self {
        let right = Some(printable(&right.into()));
        Self { verdict: Verdict::Warning, right, ..Self::ok(check, found) }
    }

    /// Something is not as it must be.
    pub fn failure(check: &str, found: impl Into<String>, right: impl Into<String>) -> Self {
        Self { verdict: Verdict::Failure, ..Self::warning(check, found, right) }
    }
}

/// A text that may hold what others have written, without what a terminal would take for something else: strangers
/// write DNS records, and servers that are asked answer what they like.
pub fn printable(text: &str) -> String {
    let shown = |one: char| match one {
        // Those that turn the direction of what follows are not among the controls.
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        one if one.is_control() => '\u{fffd}',
        one => one,
    };
    text.chars().map(shown).collect()
}

/// What a diagnosis stands on. What a process would have that does not run is absent.
#[derive(Clone, Copy)]
pub struct Grounds<'g> {
    /// Where records and uses of CAs are kept.
    pub store: Option<&'g Store>,
    /// Opens what is sealed in it.
    pub seal: Option<&'g dyn Seal>,
    /// What TLS asks.
    pub resolver: Option<&'g Resolver>,
    /// What answers a CA's questions.
    pub shelf: Option<&'g Shelf>,
    /// The domain of the installation.
    pub domain: &'g Domain,
    /// Its own names that have certificates, wildcards among them.
    pub wanted: &'g [String],
    /// The CAs, the preferred one first; none where the development CA issues.
    pub authorities: &'g [Authority],
    /// How names of the installation are proved.
    pub dns: Option<&'g Dns>,
    /// Who is asked where names lead.
    pub names: &'g Propagation,
    /// Whether a name outside of the domain is known here.
    pub permits: &'g (dyn Fn(&str) -> bool + Send + Sync),
    /// Whether an address is this machine's.
    pub is_here: &'g (dyn Fn(IpAddr) -> bool + Send + Sync),
    /// The present time.
    pub now: OffsetDateTime,
    /// Where CAs ask; 80 and 443 in the world.
    pub ports: Ports,
    /// How long anything that is asked may take.
    pub patience: Duration,
}

/// Where CAs ask.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// Over HTTP.
    pub http: u16,
    /// Within TLS.
    pub tls: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self { http: 80, tls: 443 }
    }
}

impl fmt::Debug for Grounds<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grounds").field("authorities", &self.authorities).finish_non_exhaustive()
    }
}

impl Grounds<'_> {
    /// All there is to say of a lower-case hostname, which may begin with `*.`, in the order in which an order
    /// comes to it; as soon as it is found, for whoever has no more patience.
    pub async fn diagnose(&self, name: &str, findings: &mut Vec<Finding>) {
        let record = match self.record(name).await {
            Ok(record) => record,
            Err(error) => {
                let why = gantry_model::Chain(&error).to_string();
                return findings.push(Finding::failure("store", why, "the store can be read"));
            }
        };
        findings.extend([self.shown(name), self.known(name)]);
        let here = self.addresses(name, findings).await;
        if self.authorities.is_empty() {
            findings.push(Finding::warning(
                "issuer",
                "the development CA issues; browsers trust what `gantry certs trust` was run for",
                "for the public, certificates.issuer = \"acme\" and a CA in certificates.authorities",
            ));
            return;
        }
        let ordered = self.ordered(name, record.as_ref());
        self.ask_authorities(&ordered, record.as_ref(), findings).await;
        if is_of(self.domain, name) {
            self.rehearse(&ordered, findings).await;
        } else {
            self.knock(name, &here, findings).await;
        }
        findings.extend(record.as_ref().map(|record| self.attempts(record)));
    }

    /// As what a name is ordered: one of the installation may be covered by a wildcard, which is what the CA sees.
    fn ordered(&self, name: &str, record: Option<&CertificateRecord>) -> String {
        let names = record.map_or(self.wanted, |record| &record.hostnames);
        let wildcard = name.split_once('.').map(|(_, parent)| format!("*.{parent}"));
        match wildcard {
            Some(wildcard) if !names.iter().any(|one| one == name) && names.contains(&wildcard) => {
                wildcard
            }
            Some(_) | None => name.to_owned(),
        }
    }

    /// Whether the CAs can be asked, and how far our clock is from theirs.
    pub async fn ask_clocks(&self) -> Vec<Finding> {
        let mut of_each = Vec::new();
        for authority in self.authorities {
            of_each.push(vec![self.ask_directory(authority).await.1]);
        }
        authority::one_is_enough(of_each).collect()
    }

    /// Where a name leads: here, or elsewhere.
    pub async fn leads(&self, name: &str) -> Vec<Finding> {
        let mut findings = Vec::new();
        self.addresses(name, &mut findings).await;
        findings
    }

    /// The record of the certificate that a name is on.
    async fn record(&self, name: &str) -> gantry_store::Result<Option<CertificateRecord>> {
        let Some(store) = self.store else { return Ok(None) };
        Ok(find(&store.certificates().await?, name).cloned())
    }

    fn shown(&self, name: &str) -> Finding {
        const CHECK: &str = "certificate";
        let Some(resolver) = self.resolver else {
            return Finding::warning(CHECK, "no Gantry runs, so that nothing is shown", "it runs");
        };
        let Some((source, about)) = shown_by(resolver, name) else {
            return Finding::failure(CHECK, "none is shown for this name", "see below");
        };
        let kind = match source {
            Source::Development => "of the development CA",
            Source::Ordered => "ordered",
            Source::Files => "from a file",
        };
        let (issuer, serial, end) = (&about.issuer, &about.serial, written(about.not_after));
        let found =
            format!("one {kind} is shown: issued by {issuer}, serial {serial}, until {end}");
        if about.not_after <= self.now || about.not_before > self.now {
            return Finding::failure(CHECK, found, "one that is valid now; is the clock right?");
        }
        if source == Source::Development && !self.authorities.is_empty() {
            return Finding::failure(CHECK, found, "one of a CA that was configured; see below");
        }
        Finding::ok(CHECK, found)
    }

    fn known(&self, name: &str) -> Finding {
        const CHECK: &str = "name";
        let (domain, bare) = (self.domain, name.strip_prefix("*.").unwrap_or(name));
        if is_of(domain, name) {
            let parent = bare.split_once('.').map_or("", |(_, parent)| parent);
            let wildcard = format!("*.{parent}");
            let is_covered = |wanted: &String| wanted == name || *wanted == wildcard;
            return if self.wanted.iter().any(is_covered) {
                Finding::ok(CHECK, format!("of the installation, under {domain}"))
            } else {
                let names = self.wanted.join(", ");
                let right = format!("one of the names that certificates are for: {names}");
                Finding::failure(CHECK, format!("under {domain}, but nothing here has it"), right)
            };
        }
        if (self.permits)(name) {
            return Finding::ok(CHECK, "a hostname that is bound to an alias");
        }
        let right =
            "`gantry hostnames bind` binds it to an alias; until then no CA is asked for it";
        Finding::failure(CHECK, format!("outside of {domain}, and bound to no alias here"), right)
    }

    /// Looks where a name leads; gives the addresses.
    async fn addresses(&self, name: &str, findings: &mut Vec<Finding>) -> BTreeSet<IpAddr> {
        const CHECK: &str = "addresses";
        // Of a wildcard, any name that it stands for.
        let asked = name.strip_prefix("*.").map(|rest| format!("gantry-doctor.{rest}"));
        let asked = asked.as_deref().unwrap_or(name);
        if asked == "localhost" || asked.ends_with(".localhost") {
            let found = format!("{name} leads to whoever asks, by itself (RFC 6761)");
            findings.push(Finding::ok(CHECK, found));
            return BTreeSet::new();
        }
        let addresses = match self.names.addresses(asked).await {
            Ok(addresses) => addresses,
            Err(error) => {
                let right = "the name servers of its zone answer";
                findings.push(Finding::failure(CHECK, error.to_string(), right));
                return BTreeSet::new();
            }
        };
        if addresses.is_empty() {
            let right = "an A or AAAA record, or a CNAME, that leads to this machine";
            findings.push(Finding::failure(CHECK, format!("{asked} has no address"), right));
        }
        for address in &addresses {
            let kind = if address.is_ipv6() { "AAAA" } else { "A" };
            let found = format!("{asked} has the {kind} record {address}");
            findings.push(if (self.is_here)(*address) {
                Finding::ok(CHECK, format!("{found}, an address of this machine"))
            } else {
                let right = "an address of this machine, unless what stands there passes connections on to it";
                Finding::warning(CHECK, format!("{found}, which is none of this machine"), right)
            });
        }
        addresses
    }

    /// What has become of the attempts so far.
    fn attempts(&self, record: &CertificateRecord) -> Finding {
        const CHECK: &str = "attempts";
        let due = at(record.due_at_ms);
        match &record.error {
            Some((error, when)) => {
                let (count, when) = (record.attempts, at(*when));
                let found = format!("{count} failed in a row, the last one at {when}: {error}");
                let right = format!(
                    "mend that; the next attempt is at {due}, or now by `gantry certs renew {}`",
                    record.name
                );
                // What is shown until then is told above.
                let is_valid = record.issued.as_ref();
                let is_valid = is_valid.is_some_and(|it| it.not_after_ms > ms(self.now));
                if is_valid {
                    Finding::warning(CHECK, found, right)
                } else {
                    Finding::failure(CHECK, found, right)
                }
            }
            None if record.issued.is_some() => {
                Finding::ok(CHECK, format!("the last one has succeeded; it is renewed at {due}"))
            }
            None => {
                Finding::warning(CHECK, format!("none yet; one is due at {due}"), "wait for it")
            }
        }
    }
}

/// What is shown for a name, with where it is from.
fn shown_by(resolver: &Resolver, name: &str) -> Option<(Source, About)> {
    let shown = resolver.certificate(name)?;
    let mut all = resolver.all().into_iter();
    let (source, leaf) = all.find(|(_, leaf)| std::sync::Arc::ptr_eq(&leaf.key, &shown))?;
    Some((source, leaf.about()?))
}

/// The record of the certificate that is called so, or else is for this name.
pub fn find<'r>(records: &'r [CertificateRecord], name: &str) -> Option<&'r CertificateRecord> {
    let is_for = |it: &&CertificateRecord, name: &str| it.hostnames.iter().any(|of| of == name);
    let by_wildcard = name.split_once('.').map(|(_, parent)| format!("*.{parent}"));
    records
        .iter()
        .find(|record| record.name == name)
        .or_else(|| records.iter().find(|record| is_for(record, name)))
        .or_else(|| {
            let wildcard = by_wildcard?;
            records.iter().find(|record| is_for(record, &wildcard))
        })
}

/// A time as people write it.
pub fn written(time: OffsetDateTime) -> String {
    let whole = time.replace_nanosecond(0).unwrap_or(time);
    whole.format(&Rfc3339).unwrap_or_else(|_| time.to_string())
}

fn at(ms: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000);
    time.map_or_else(|_| format!("{ms} ms"), written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_strangers_write_is_no_command_for_a_terminal() {
        let found = Finding::failure("CAA", "let \u{1b}]52;c;aGk=\u{7}\nok  CAA", "a\u{202e}b");
        assert_eq!(found.found, "let \u{fffd}]52;c;aGk=\u{fffd}\u{fffd}ok  CAA");
        assert_eq!(found.right.as_deref(), Some("a\u{fffd}b"));
    }
}
