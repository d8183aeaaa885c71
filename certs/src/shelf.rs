//! From the store to what TLS shows: certificates and answers to challenges, in every process that shares a
//! store.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use gantry_model::Chain;
use gantry_store::{CertificateRecord, Challenge, ChallengeKind, Issued, Store};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::{crypto::aws_lc_rs, sign::CertifiedKey};
use rustls_pki_types::PrivateKeyDer;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    Clock, Leaf, Resolver, Seal, Source,
    acme::{key_context, ms},
    chain::Parsed,
    tickets::Tickets,
};

/// How often the store is asked whether there is something new. What another process has written is shown within
/// a second.
const LOOK: Duration = Duration::from_millis(500);

/// What the certificates of a store are shown by.
pub struct Shelf {
    store: Store,
    seal: Arc<dyn Seal>,
    clock: Clock,
    resolver: Arc<Resolver>,
    tickets: Arc<Tickets>,
    /// Whether certificates are shown that CAs were asked for.
    shows_ordered: bool,
    answers: ArcSwap<HashMap<String, Challenge>>,
    records: ArcSwap<Vec<CertificateRecord>>,
    seen: watch::Sender<u64>,
    held: tokio::sync::Mutex<Held>,
    /// Answers to questions of our own, which are asked to see whether a CA's would get here,
    probes: Mutex<Vec<Challenge>>,
    /// and whether they have changed since everything was read.
    has_other_probes: AtomicBool,
    /// The revoked ones among what was issued, by directory and serial number.
    revoked: ArcSwap<HashSet<(String, String)>>,
    /// Serial numbers by name, of what is shown.
    shown: Mutex<HashMap<String, String>>,
}

#[derive(Default)]
struct Held {
    /// The version of everything that was read last, and when that was.
    version: Option<(u64, OffsetDateTime)>,
    leafs: HashMap<String, Kept>,
}

impl Held {
    /// When the first of the certificates ends.
    fn end(&self) -> Option<OffsetDateTime> {
        self.leafs.values().map(|kept| kept.end).min()
    }
}

/// What is shown for a record of some version.
struct Kept {
    version: u64,
    leaf: Leaf,
    serial: String,
    end: OffsetDateTime,
}

impl Shelf {
    /// A shelf for the certificates of `store`, which are shown by `resolver`; nothing is read yet.
    pub fn new(store: Store, seal: Arc<dyn Seal>, clock: Clock, resolver: Arc<Resolver>) -> Self {
        let tickets = Arc::new(Tickets::new(store.clone(), Arc::clone(&seal), Arc::clone(&clock)));
        Self {
            store,
            seal,
            clock,
            resolver,
            tickets,
            shows_ordered: true,
            answers: ArcSwap::default(),
            records: ArcSwap::default(),
            seen: watch::Sender::new(0),
            held: tokio::sync::Mutex::default(),
            probes: Mutex::default(),
            has_other_probes: AtomicBool::new(false),
            revoked: ArcSwap::default(),
            shown: Mutex::default(),
        }
    }

    /// Has none of the store's certificates shown: the operator wants others.
    #[must_use]
    pub fn without_ordered(self) -> Self {
        Self { shows_ordered: false, ..self }
    }

    /// Who seals the tickets of TLS sessions.
    pub fn tickets(&self) -> Arc<Tickets> {
        Arc::clone(&self.tickets)
    }

    /// Follows the store until `shutdown`. What is shown stays while the store is away.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        loop {
            self.refresh().await;
            self.tickets.rotate().await;
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Reads what has changed and shows it.
    pub async fn refresh(&self) {
        if let Err(error) = self.read().await {
            tracing::warn!(error = %Chain(&error), "certificates cannot be read; the old ones stay");
            self.has_other_probes.store(true, Ordering::Relaxed);
        }
    }

    /// Tells the version of what is shown, whenever that changes.
    pub(crate) fn seen(&self) -> watch::Receiver<u64> {
        self.seen.subscribe()
    }

    /// The records as they were last read.
    pub fn records(&self) -> Arc<Vec<CertificateRecord>> {
        self.records.load_full()
    }

    /// What to answer to `/.well-known/acme-challenge/<token>` for a lower-case hostname, if a CA asks for that.
    pub fn http_answer(&self, hostname: &str, token: &str) -> Option<String> {
        let answers = self.answers.load();
        let answer = answers.get(hostname).filter(|answer| answer.token == token)?;
        Some(answer.key_authorization.clone())
    }

    /// Has a question of our own answered as a CA's would be, in both ways, by this process alone, until what is
    /// returned is dropped. Nothing where a CA asks about this hostname now: its questions come first.
    pub(crate) async fn begin_probe(&self, probe: &[Challenge; 2]) -> Option<Probe<'_>> {
        let [one, _] = probe;
        if self.answers.load().contains_key(&one.hostname)
            || self.resolver.has_challenge(&one.hostname)
        {
            return None;
        }
        self.change_probes(|probes| probes.extend_from_slice(probe));
        let begun = Probe { shelf: self, token: one.token.clone() };
        self.refresh().await;
        Some(begun)
    }

    /// Takes effect when everything is read next.
    fn change_probes(&self, change: impl FnOnce(&mut Vec<Challenge>)) {
        change(&mut self.probes.lock().unwrap_or_else(PoisonError::into_inner));
        self.has_other_probes.store(true, Ordering::Relaxed);
    }

    /// Whether what was issued for a record was revoked, or is to be.
    pub fn is_revoked(&self, record: &CertificateRecord) -> bool {
        let issued = record.issued.as_ref();
        let issued = issued.map(|issued| (issued.directory.clone(), issued.serial.clone()));
        issued.is_some_and(|issued| self.revoked.load().contains(&issued))
    }

    /// The serial number of what is shown for a record.
    pub fn shown_serial(&self, name: &str) -> Option<String> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    async fn read(&self) -> gantry_store::Result<()> {
        let mut held = self.held.lock().await;
        // Read before the contents: what is written in between is read again.
        let version = self.store.certificate_version().await?;
        let now = (self.clock)();
        let has_ended = held.end().is_some_and(|end| end <= now);
        // What had ended by a clock that was ahead has not by one that was set back.
        let is_read = held.version.is_some_and(|(read, at)| read == version && at <= now);
        if is_read && !has_ended && !self.has_other_probes.load(Ordering::Relaxed) {
            return Ok(());
        }
        // Before they are looked at.
        self.has_other_probes.store(false, Ordering::Relaxed);
        let records = self.store.certificates().await?;
        let revocations = self.store.revocations().await?;
        let revoked: HashSet<_> =
            revocations.into_iter().map(|it| (it.directory, it.serial)).collect();
        let challenges = self.store.acme_challenges(ms(now)).await?;
        self.tickets.take_up(&self.store.ticket_keys().await?);
        self.keep(&mut held.leafs, &records, &revoked, now);
        // In the order of the records, so that all processes show the same for one name.
        let shown = if self.shows_ordered { records.as_slice() } else { &[] };
        let in_order = shown.iter().filter_map(|record| held.leafs.get(&record.name));
        self.resolver.publish(Source::Ordered, in_order.map(|kept| kept.leaf.clone()).collect());
        let shown = held.leafs.iter().map(|(name, kept)| (name.clone(), kept.serial.clone()));
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = shown.collect();
        self.take_up(challenges);
        self.records.store(Arc::new(records));
        self.revoked.store(Arc::new(revoked));
        held.version = Some((version, now));
        self.seen.send_replace(version);
        Ok(())
    }

    /// Brings what is kept to the records, without what has ended or is revoked.
    fn keep(
        &self,
        leafs: &mut HashMap<String, Kept>,
        records: &[CertificateRecord],
        revoked: &HashSet<(String, String)>,
        now: OffsetDateTime,
    ) {
        let names: HashSet<_> = records.iter().map(|record| record.name.as_str()).collect();
        leafs.retain(|name, kept| {
            if kept.end <= now {
                tracing::error!(name, end = %kept.end, "a certificate has ended and is shown no more");
            }
            kept.end > now && names.contains(name.as_str())
        });
        for record in records {
            let Some(issued) = &record.issued else { continue };
            if revoked.contains(&(issued.directory.clone(), issued.serial.clone())) {
                leafs.remove(&record.name);
                continue;
            }
            if leafs.get(&record.name).is_some_and(|kept| kept.version == record.version) {
                continue;
            }
            match self.leaf(record, issued) {
                Ok(kept) if kept.end > now => {
                    leafs.insert(record.name.clone(), kept);
                }
                Ok(_ended) => {}
                Err(error) => {
                    tracing::error!(name = record.name, error, "a stored certificate is not shown");
                }
            }
        }
    }

    fn leaf(&self, record: &CertificateRecord, issued: &Issued) -> Result<Kept, String> {
        let context = key_context(&record.name);
        let key =
            self.seal.open(&context, &issued.key_sealed).map_err(|error| error.to_string())?;
        let parsed =
            Parsed::new(issued.chain.as_bytes(), &key).map_err(|error| error.to_string())?;
        let leaf = Leaf { names: parsed.names, key: parsed.key };
        let (version, end) = (record.version, parsed.not_after);
        Ok(Kept { version, leaf, serial: parsed.serial, end })
    }

    fn take_up(&self, challenges: Vec<Challenge>) {
        let mut certificates = HashMap::new();
        let mut answers = HashMap::new();
        let probes = self.probes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for challenge in probes.into_iter().chain(challenges) {
            match challenge.kind {
                ChallengeKind::Http => {
                    answers.insert(challenge.hostname.clone(), challenge);
                }
                ChallengeKind::TlsAlpn => match proof(&challenge) {
                    Ok(certificate) => {
                        certificates.insert(challenge.hostname, Arc::new(certificate));
                    }
                    Err(error) => {
                        tracing::error!(error, "a challenge within TLS cannot be answered");
                    }
                },
            }
        }
        self.answers.store(Arc::new(answers));
        self.resolver.publish_challenges(certificates);
    }
}

/// A question of our own, which is answered for as long as this is there.
pub(crate) struct Probe<'s> {
    shelf: &'s Shelf,
    token: String,
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        self.shelf.change_probes(|probes| probes.retain(|probe| probe.token != self.token));
    }
}

/// The certificate that answers a challenge within a handshake (RFC 8737, section 3).
fn proof(challenge: &Challenge) -> Result<CertifiedKey, String> {
    let wrong = |error: rcgen::Error| error.to_string();
    let digest = Sha256::digest(&challenge.key_authorization);
    let mut leaf = CertificateParams::new([challenge.hostname.clone()]).map_err(wrong)?;
    leaf.distinguished_name = DistinguishedName::new();
    leaf.custom_extensions = vec![CustomExtension::new_acme_identifier(&digest)];
    let key = KeyPair::generate().map_err(wrong)?;
    let certificate = leaf.self_signed(&key).map_err(wrong)?;
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(str::to_owned)?;
    let key = aws_lc_rs::default_provider().key_provider.load_private_key(key);
    let key = key.map_err(|error| error.to_string())?;
    // Not compared: rustls reads no certificate with this extension, which must be critical.
    Ok(CertifiedKey::new(vec![certificate.der().clone()], key))
}

impl fmt::Debug for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shelf").field("version", &*self.seen.borrow()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::generate_simple_self_signed;

    use super::*;
    use crate::seal::Open;

    /// An edge looks twice a second. One look is enough, whoever has written.
    #[tokio::test]
    async fn one_look_shows_what_another_process_has_written() {
        assert!(LOOK * 2 <= Duration::from_secs(1));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.db");
        let (one, other) = (Store::open(&path).await.unwrap(), Store::open(&path).await.unwrap());
        let resolver = Arc::new(Resolver::new());
        let clock: Clock = Arc::new(OffsetDateTime::now_utc);
        let shelf = Shelf::new(other.clone(), Arc::new(Open), clock, Arc::clone(&resolver));
        shelf.refresh().await;

        let (name, now) = ("www.example.test", ms(OffsetDateTime::now_utc()));
        one.want_certificate(name, &[name.to_owned()], now).await.unwrap();
        let lease = one.take_lease("test", [1; 16], Duration::from_secs(30)).await.unwrap();
        let lease = lease.unwrap();
        for _ in 0..2 {
            let made = generate_simple_self_signed([name.to_owned()]).unwrap();
            let issued = Issued {
                chain: made.cert.pem(),
                key_sealed: made.signing_key.serialize_der(),
                serial: String::new(),
                directory: String::new(),
                not_before_ms: now,
                not_after_ms: now,
            };
            one.put_certificate((name, &[name.to_owned()]), issued, now, &lease, now)
                .await
                .unwrap();
            let shows = || {
                let shown = resolver.certificate(name);
                shown.is_some_and(|shown| shown.cert.first() == Some(made.cert.der()))
            };
            assert!(!shows());
            shelf.refresh().await;
            assert!(shows());
        }
        one.close().await;
        other.close().await;
    }
}
