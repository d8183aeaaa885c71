//! `gantry certs`: what is shown and what is still to be had, by the socket in the state directory, which is the
//! operator's alone: no tenant sees the names of another.

mod print;
mod revoke;

use std::{collections::HashMap, io, path::Path, sync::Arc, time::Duration};

use gantry_certs::{
    Leaf, Source,
    acme::Authority,
    diagnosis::{find, limits_reached, written},
};
use gantry_model::{Chain, Domain};
use gantry_store::{CertificateRecord, Store};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use time::OffsetDateTime;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::UnixStream,
    sync::Semaphore,
    time::{Instant, sleep},
};

pub(crate) use self::print::certs;
use super::{certificates::Certificates, glue};
use crate::config::{Config, Issuing};

/// How a question begins; no URL does. The rest of the line is JSON.
pub(super) const QUESTION: &str = "!certs ";
/// The longest answer, in octets: a thousand certificates with a hundred names each.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// How long a renewal is waited for: longer than a CA may take to come to a decision.
const RENEWAL_MAX: Duration = Duration::from_mins(15);
/// How many wait at the same time: fewer than may ask, so that upgrades and lists have a place.
pub(super) const WAITING_MAX: usize = 4;
/// How often it is looked whether it is there.
const LOOK: Duration = Duration::from_millis(250);

/// What is asked.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Question {
    List { filter: Option<String>, page: u32, limit: u32 },
    Renew { name: String, waits: bool },
    Revoke(revoke::Wish),
    Issuer,
}

/// What is answered.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Listed(Page),
    /// The renewal has begun.
    Begun {
        name: String,
    },
    Renewed(Box<Entry>),
    Revoked(Box<revoke::Revoked>),
    Issuer {
        is_development: bool,
    },
    Refused(Refusal, String),
}

/// Why nothing was done.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Refusal {
    Unknown,
    /// The state of things forbids it.
    Conflict,
    Failed,
}

/// A part of the list.
#[derive(Debug, Deserialize, Serialize)]
struct Page {
    certificates: Vec<Entry>,
    #[serde(rename = "page")]
    number: u32,
    limit: u32,
    /// How many there are on all pages.
    total: usize,
}

/// Where a certificate comes from.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Ordered,
    File,
    Development,
}

/// How it stands with a certificate.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Valid,
    Expired,
    /// The CA was not asked yet, or works at it.
    Pending,
    Failing,
    /// It is shown no more; another one is to come.
    Revoked,
}

/// A certificate; times as people write them, in UTC.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Entry {
    name: String,
    hostnames: Vec<String>,
    kind: Kind,
    state: State,
    /// Whether clients see it, which they do not where one of another kind is for the same names.
    is_shown: bool,
    issuer: Option<String>,
    /// The directory of the CA.
    directory: Option<String>,
    serial: Option<String>,
    not_before: Option<String>,
    not_after: Option<String>,
    /// When it is to be renewed, or tried again.
    next_attempt_at: Option<String>,
    failed_attempts: u32,
    last_error: Option<String>,
    last_error_at: Option<String>,
}

/// What answers stand on.
#[derive(Clone)]
pub(super) struct Desk {
    pub(super) shown: Certificates,
    pub(super) store: Store,
    domain: Domain,
    issuing: Issuing,
    /// For those who wait for CAs and name servers: others get an answer at once.
    pub(super) places: Arc<Semaphore>,
}

impl Desk {
    /// Has somebody wait for an answer, unless too many do already.
    async fn waiting(&self, answer: impl Future<Output = Answer>) -> Answer {
        match self.places.try_acquire() {
            Ok(_place) => answer.await,
            Err(_none) => {
                let why = format!(
                    "{WAITING_MAX} others wait for what becomes of theirs; try again later"
                );
                Answer::Refused(Refusal::Conflict, why)
            }
        }
    }

    pub(super) fn new(config: &Config, shown: &Certificates, store: &Store) -> Self {
        Self {
            shown: shown.clone(),
            store: store.clone(),
            domain: config.server.domain.clone(),
            issuing: config.certificates.issuing.clone(),
            places: Arc::new(Semaphore::new(WAITING_MAX)),
        }
    }

    fn list(&self, filter: Option<&str>, page: u32, limit: u32) -> Page {
        let mut all = self.entries(filter);
        all.sort_by(|one, other| (&one.name, one.kind).cmp(&(&other.name, other.kind)));
        let total = all.len();
        let (limit_of, page_of) = (
            usize::try_from(limit).unwrap_or(usize::MAX),
            usize::try_from(page).unwrap_or(usize::MAX),
        );
        let before = page_of.saturating_sub(1).saturating_mul(limit_of);
        let certificates = all.into_iter().skip(before).take(limit_of).collect();
        Page { certificates, number: page, limit, total }
    }

    /// All certificates that have the text in a hostname.
    fn entries(&self, filter: Option<&str>) -> Vec<Entry> {
        let filter = filter.map(str::to_ascii_lowercase);
        let is_meant = |hostnames: &[String]| {
            filter.as_ref().is_none_or(|text| hostnames.iter().any(|name| name.contains(text)))
        };
        let mut of_serial = HashMap::new();
        let mut entries = Vec::new();
        for (source, leaf) in self.shown.resolver.all() {
            if !is_meant(&leaf.names) {
                continue;
            }
            let Some(entry) = self.shown_entry(source, &leaf) else { continue };
            if source == Source::Ordered {
                of_serial.insert(entry.serial.clone(), entry);
            } else {
                entries.push(entry);
            }
        }
        for record in self.shown.shelf.records().iter().filter(|it| is_meant(&it.hostnames)) {
            let serial = record.issued.as_ref().map(|issued| issued.serial.clone());
            let is_revoked = self.shown.shelf.is_revoked(record);
            entries.push(recorded(record, of_serial.get(&serial), is_revoked));
        }
        entries
    }

    fn shown_entry(&self, source: Source, leaf: &Leaf) -> Option<Entry> {
        let about = leaf.about()?;
        let is_shown = leaf.names.iter().any(|name| {
            let shown = self.shown.resolver.certificate(name);
            shown.is_some_and(|shown| Arc::ptr_eq(&shown, &leaf.key))
        });
        let (kind, renewal) = match source {
            Source::Development => (Kind::Development, Some(about.development_renewal())),
            Source::Ordered => (Kind::Ordered, None),
            Source::Files => (Kind::File, None),
        };
        Some(Entry {
            name: leaf.names.first()?.clone(),
            hostnames: leaf.names.clone(),
            kind,
            state: if about.not_after > glue::now() { State::Valid } else { State::Expired },
            is_shown,
            issuer: Some(about.issuer),
            directory: None,
            serial: Some(about.serial),
            not_before: Some(written(about.not_before)),
            not_after: Some(written(about.not_after)),
            next_attempt_at: renewal.map(written),
            failed_attempts: 0,
            last_error: None,
            last_error_at: None,
        })
    }

    /// Has a certificate renewed.
    async fn renew(&self, name: &str, waits: bool) -> Answer {
        match self.try_renew(&name.to_ascii_lowercase(), waits).await {
            Ok(answer) => answer,
            Err(error) => Answer::Refused(Refusal::Failed, Chain(&error).to_string()),
        }
    }

    async fn try_renew(&self, name: &str, waits: bool) -> gantry_store::Result<Answer> {
        let refused = |refusal, why: String| Ok(Answer::Refused(refusal, why));
        let authorities = self.issuing.authorities();
        let records = self.store.certificates().await?;
        let Some(record) = find(&records, name).filter(|_| !authorities.is_empty()) else {
            let (refusal, why) = self.not_ordered(name);
            return refused(refusal, why);
        };
        if let Some(why) = self.spent(authorities, record).await? {
            return refused(Refusal::Conflict, why);
        }
        if self.store.remove_damaged_acme_order(&record.name).await? {
            tracing::warn!(name = record.name, "a damaged order is dropped; its records may stay");
        }
        // Whoever works at it already goes on: one at a time does, and what it gets is what is waited for.
        self.store.hasten_certificate(&record.name, glue::now_ms()).await?;
        if !waits {
            return Ok(Answer::Begun { name: record.name.clone() });
        }
        self.outcome(record).await
    }

    /// Why a name has no certificate that could be renewed.
    fn not_ordered(&self, name: &str) -> (Refusal, String) {
        let entries = self.entries(Some(name.trim_start_matches("*.")));
        let shown = self.shown.resolver.certificate(name);
        let all = self.shown.resolver.all();
        let source = shown.and_then(|shown| {
            let mut sources = all.iter();
            sources.find(|(_, leaf)| Arc::ptr_eq(&leaf.key, &shown)).map(|(source, _)| *source)
        });
        match source {
            Some(Source::Files) => {
                let why = format!(
                    "the certificate for {name} comes from a file; put a new one in its place, \
                     which is shown within seconds"
                );
                (Refusal::Conflict, why)
            }
            Some(Source::Development | Source::Ordered) => {
                let due = entries.iter().find_map(|entry| entry.next_attempt_at.clone());
                let due = due.map(|due| format!(", next at {due}")).unwrap_or_default();
                let why = format!(
                    "the certificate for {name} is of the development CA, which renews by itself{due}"
                );
                (Refusal::Conflict, why)
            }
            None => {
                let why = format!("there is no certificate for {name}, and none is to be had");
                (Refusal::Unknown, why)
            }
        }
    }

    /// Why no CA may be asked now: each has a limit that is reached.
    async fn spent(
        &self,
        authorities: &[Authority],
        record: &CertificateRecord,
    ) -> gantry_store::Result<Option<String>> {
        let mut reasons = Vec::new();
        for authority in authorities {
            let now = glue::now();
            let reached = limits_reached(authority, &self.store, &self.domain, record, now).await?;
            let Some((why, until)) = reached else { return Ok(None) };
            reasons.push(format!("{why}; it may be asked again from {} on", at(until)));
        }
        Ok(Some(reasons.join("; ")))
    }

    /// Waits until the attempt that was asked for has ended.
    async fn outcome(&self, before: &CertificateRecord) -> gantry_store::Result<Answer> {
        let serial =
            |record: &CertificateRecord| record.issued.as_ref().map(|issued| issued.serial.clone());
        let end = Instant::now() + RENEWAL_MAX;
        while Instant::now() < end {
            let Some(record) = self.store.certificate(&before.name).await? else {
                let why = "nobody wants this certificate any more".to_owned();
                return Ok(Answer::Refused(Refusal::Failed, why));
            };
            if serial(&record) != serial(before) {
                self.shown.shelf.refresh().await;
                let shown = self.entries(Some(&before.name));
                let entry = shown.into_iter().find(|entry| entry.serial == serial(&record));
                return Ok(Answer::Renewed(Box::new(
                    entry.unwrap_or_else(|| recorded(&record, None, false)),
                )));
            }
            if record.attempts > before.attempts
                && let Some((why, _)) = &record.error
            {
                let due = at(record.due_at_ms);
                let why = format!("{why}; the next attempt is at {due}");
                return Ok(Answer::Refused(Refusal::Failed, why));
            }
            sleep(LOOK).await;
        }
        let why = format!("no outcome within {} s", RENEWAL_MAX.as_secs());
        Ok(Answer::Refused(Refusal::Failed, why))
    }
}

/// A certificate of the store, with what is shown of it.
fn recorded(record: &CertificateRecord, shown: Option<&Entry>, is_revoked: bool) -> Entry {
    let issued = record.issued.as_ref();
    let is_valid = issued.is_some_and(|issued| issued.not_after_ms > glue::now_ms());
    let state = match (issued, &record.error) {
        (Some(_), _) if is_revoked => State::Revoked,
        (Some(_), _) if is_valid => State::Valid,
        (_, Some(_)) => State::Failing,
        (Some(_), None) => State::Expired,
        (None, None) => State::Pending,
    };
    Entry {
        name: record.name.clone(),
        hostnames: record.hostnames.clone(),
        kind: Kind::Ordered,
        state,
        is_shown: shown.is_some_and(|shown| shown.is_shown),
        issuer: shown.and_then(|shown| shown.issuer.clone()),
        directory: issued.map(|issued| issued.directory.clone()),
        serial: issued.map(|issued| issued.serial.clone()),
        not_before: issued.map(|issued| at(issued.not_before_ms)),
        not_after: issued.map(|issued| at(issued.not_after_ms)),
        next_attempt_at: Some(at(record.due_at_ms)),
        failed_attempts: record.attempts,
        last_error: record.error.as_ref().map(|(why, _)| why.clone()),
        last_error_at: record.error.as_ref().map(|(_, when)| at(*when)),
    }
}

fn at(ms: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000);
    time.map_or_else(|_| format!("{ms} ms"), written)
}

/// Answers a question.
pub(super) async fn answer(
    question: &str,
    (from, to): (&mut (impl AsyncRead + Unpin), &mut (impl AsyncWrite + Unpin)),
    desk: &Desk,
) -> io::Result<()> {
    let answer = match serde_json::from_str(question) {
        Ok(Question::List { filter, page, limit }) => {
            Answer::Listed(desk.list(filter.as_deref(), page, limit))
        }
        Ok(Question::Renew { name, waits }) => tokio::select! {
            answer = desk.waiting(desk.renew(&name, waits)) => answer,
            // The renewal goes on.
            () = has_left(from) => return Ok(()),
        },
        Ok(Question::Revoke(wish)) => tokio::select! {
            answer = desk.waiting(desk.revoke(&wish)) => answer,
            // The revocation goes on.
            () = has_left(from) => return Ok(()),
        },
        Ok(Question::Issuer) => {
            let is_development = matches!(desk.issuing, Issuing::Development);
            Answer::Issuer { is_development }
        }
        Err(error) => {
            let why = format!("this Gantry does not understand the question: {error}");
            Answer::Refused(Refusal::Failed, why)
        }
    };
    to.write_all(&serde_json::to_vec(&answer)?).await?;
    to.shutdown().await
}

/// Waits until whoever has asked hears no answer any more.
async fn has_left(from: &mut (impl AsyncRead + Unpin)) {
    let mut nothing = [0; 64];
    while from.read(&mut nothing).await.is_ok_and(|count| count > 0) {}
}

/// Whether the Gantry that runs on this state directory has the development CA issue; an error of the kinds
/// [`is_absent`] knows where none runs.
pub(super) async fn is_development(socket: &Path) -> io::Result<bool> {
    let answer = ask_certs(socket, &Question::Issuer).await?;
    let Answer::Issuer { is_development } = answer else {
        return Err(io::Error::other(format!("an unexpected answer: {answer:?}")));
    };
    Ok(is_development)
}

async fn ask_certs(socket: &Path, question: &Question) -> io::Result<Answer> {
    ask(socket, &format!("{QUESTION}{}\n", serde_json::to_string(question)?)).await
}

/// Asks the Gantry that runs on a state directory.
pub(super) async fn ask<A: DeserializeOwned>(socket: &Path, question: &str) -> io::Result<A> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(question.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    if answer.is_empty() {
        return Err(io::Error::other("it has ended before it answered"));
    }
    Ok(serde_json::from_slice(&answer)?)
}

/// Whether an error says that nobody listens.
pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}
