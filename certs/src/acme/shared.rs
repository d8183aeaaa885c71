//! What all work at certificates shares, and the work at one of them, under its lease.

use std::{collections::HashMap, sync::Arc, time::Duration};

use gantry_model::{Chain, Domain};
use gantry_store::{CertificateRecord, Holder, Lease, Store};
use tokio_util::sync::CancellationToken;

use super::{
    Authority, Dns,
    account::{Accounts, At},
    attempt::{Attempt, ms},
    budget,
    client::Manners,
    failure::{Failure, Kind},
    figures::Figures,
    plan,
};
use crate::{Clock, Seal, Shelf};

/// How often an attempt is repeated at once.
pub(super) const REPEATS: usize = 10;
/// How much a clock may be wrong.
pub(super) const CLOCK_MAX_MS: i64 = 300_000;

/// What attempts share.
pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) seal: Arc<dyn Seal>,
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) figures: Arc<Figures>,
    pub(crate) authorities: Vec<Authority>,
    pub(crate) dns: Option<Dns>,
    pub(super) clock: Clock,
    pub(super) domain: Domain,
    /// By the addresses of their directories.
    pub(super) cas: HashMap<String, Ca>,
    pub(super) holder: Holder,
    pub(super) lease: Duration,
}

/// A CA as all tasks see it.
pub(super) struct Ca {
    manners: Arc<Manners>,
    /// Held while its account is looked for: of several tasks one makes it. A CA that does not answer holds up
    /// nobody who asks another.
    account: tokio::sync::Mutex<()>,
}

impl Ca {
    pub(super) fn new(clock: Clock) -> Self {
        Self { manners: Arc::new(Manners::new(clock)), account: tokio::sync::Mutex::default() }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Work {
    /// Whatever is due.
    Look,
    /// A certificate of it is to be revoked; then whatever is due.
    Revoke,
    /// What an order has left.
    Clean,
    /// Nobody wants it any more.
    Forget,
}

impl Shared {
    pub(crate) fn now_ms(&self) -> i64 {
        ms((self.clock)())
    }

    /// Whether a name is of the installation's own domain.
    pub(crate) fn is_own(&self, name: &str) -> bool {
        is_of(&self.domain, name)
    }

    fn ca(&self, authority: &Authority) -> Result<&Ca, Failure> {
        let ca = self.cas.get(&authority.directory);
        ca.ok_or_else(|| Failure::own("this CA is not configured"))
    }

    /// Whether a CA has said to this process that it wants to be left alone altogether.
    pub(super) fn is_busy(&self, authority: &Authority) -> Result<bool, Failure> {
        Ok(self.ca(authority)?.manners.busy_until().is_some())
    }

    /// The account at a CA, unless that wants to be left alone.
    pub(crate) async fn at(&self, authority: &Authority) -> Result<At, Failure> {
        let (ca, directory) = (self.ca(authority)?, &authority.directory);
        let until_ms = match ca.manners.busy_until() {
            Some(until) => Some(ms(until)),
            // It may have said so to another process, or to one before.
            None => budget::held(&self.store, &budget::busy(directory), self.now_ms()).await?,
        };
        if let Some(until_ms) = until_ms {
            return Err(Failure {
                not_before_ms: Some(until_ms),
                ..Failure::interrupted(format!("{directory} wants to be left alone"))
            });
        }
        let _one = ca.account.lock().await;
        let (store, seal, holder, lease) = (&self.store, &*self.seal, self.holder, self.lease);
        Accounts { store, seal, holder, lease }.at(authority, &ca.manners, self.now_ms()).await
    }

    /// Replaces the account at a CA that this does not know; says whether there is another one now.
    pub(crate) async fn replace_account(
        &self,
        authority: &Authority,
        began_ms: i64,
    ) -> Result<bool, Failure> {
        let ca = self.ca(authority)?;
        let _one = ca.account.lock().await;
        let (store, seal, holder, lease) = (&self.store, &*self.seal, self.holder, self.lease);
        let accounts = Accounts { store, seal, holder, lease };
        accounts.replace(authority, &ca.manners, (began_ms, self.now_ms())).await
    }

    /// Notes which CAs want to be left alone, for other processes and for what follows this one.
    async fn note_busy(&self) {
        for (directory, ca) in &self.cas {
            let Some(until) = ca.manners.take_news() else { continue };
            let noted = self.store.hold_acme_uses(&[budget::busy(directory)], ms(until)).await;
            if let Err(error) = noted {
                tracing::warn!(directory, error = %Chain(&error), "that a CA is busy is not noted");
            }
        }
    }

    /// Shows what has just been put into the store, and looks whether it is shown.
    pub(crate) async fn show(&self, name: &str, serial: &str) {
        self.shelf.refresh().await;
        let shown = self.shelf.shown_serial(name);
        if shown.as_deref() != Some(serial) {
            tracing::error!(name, serial, ?shown, "a certificate was issued, but is not shown");
        }
    }

    /// Works at a certificate under its lease; nothing if another process has it.
    pub(super) async fn work(&self, name: &str, work: Work, shutdown: &CancellationToken) {
        let lease_name = format!("certificate {name}");
        let lease = match self.store.take_lease(&lease_name, self.holder, self.lease).await {
            Ok(Some(lease)) => lease,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(name, error = %Chain(&error), "cannot take a lease");
                return;
            }
        };
        let done = async {
            match work {
                Work::Look => self.look(name, &lease).await,
                Work::Revoke => match self.revoke(name, &lease).await {
                    Ok(()) => self.look(name, &lease).await,
                    Err(failure) => Err(failure),
                },
                Work::Clean => self.clean_up(name, &lease).await,
                Work::Forget => self.forget(name, &lease).await,
            }
        };
        tokio::select! {
            biased;
            // The order goes on from where it is, here after the restart or elsewhere at once.
            () = shutdown.cancelled() => {}
            result = done => if let Err(failure) = result {
                tracing::warn!(name, error = failure.text, "work at a certificate was given up");
            },
            error = self.keep(&lease) => {
                tracing::warn!(name, error = %Chain(&error), "the lease of a certificate is lost");
                self.note_busy().await;
                return;
            }
        }
        self.note_busy().await;
        if let Err(error) = self.store.return_lease(&lease).await {
            tracing::debug!(name, error = %Chain(&error), "a lease runs out by itself");
        }
    }

    /// Lengthens a lease until that fails.
    async fn keep(&self, lease: &Lease) -> gantry_store::Error {
        loop {
            tokio::time::sleep(self.lease / 3).await;
            if let Err(error) = self.store.renew_lease(lease, self.lease).await {
                return error;
            }
        }
    }

    async fn look(&self, name: &str, lease: &Lease) -> Result<(), Failure> {
        // Read under the lease: whoever had it before may have done the work.
        let Some(record) = self.store.certificate(name).await? else { return Ok(()) };
        let now = self.now_ms();
        if record.due_at_ms <= now || record.updated_at_ms > now + CLOCK_MAX_MS {
            return self.attempt(&record, lease).await;
        }
        if record.issued.is_some() && record.asked_at_ms.unwrap_or(0) <= now {
            self.ask(&record, lease).await?;
        }
        Ok(())
    }

    async fn attempt(&self, record: &CertificateRecord, lease: &Lease) -> Result<(), Failure> {
        let attempt = Attempt { shared: self, record, lease, began_ms: self.now_ms() };
        let mut outcome = attempt.run().await;
        for _ in 0..REPEATS {
            if !matches!(&outcome, Err(failure) if failure.kind == Kind::Repeat) {
                break;
            }
            outcome = attempt.run().await;
        }
        let Err(failure) = outcome else { return Ok(()) };
        if failure.kind == Kind::Lost {
            return Err(failure);
        }
        let now = self.now_ms();
        let is_shown = self.shelf.shown_serial(&record.name).is_some();
        let pause = plan::pause(record.attempts, is_shown, random());
        let planned = now + budget::millis(pause);
        let due = failure.not_before_ms.map_or(planned, |least| planned.max(least));
        tracing::error!(
            name = record.name,
            error = failure.text,
            attempts = record.attempts + 1,
            again_in_s = (due - now) / 1000,
            "no certificate"
        );
        let of = (record.name.as_str(), record.version);
        let noted = self.store.note_failed_certificate(of, &failure.text, due, lease, now);
        Ok(noted.await?)
    }

    /// Removes what an order has left that is over, or whose certificate nobody wants any more.
    async fn clean_up(&self, name: &str, lease: &Lease) -> Result<(), Failure> {
        let Some(order) = self.store.acme_order(name).await? else { return Ok(()) };
        if !order.is_over && self.store.certificate(name).await?.is_some() {
            return Ok(());
        }
        self.withdraw(&order, lease).await?;
        Ok(self.store.remove_acme_order(name, lease).await?)
    }

    async fn forget(&self, name: &str, lease: &Lease) -> Result<(), Failure> {
        let withdrawn = match self.store.acme_order(name).await {
            Ok(Some(order)) => self.withdraw(&order, lease).await,
            Ok(None) => Ok(()),
            Err(error @ gantry_store::Error::Corrupt { .. }) => Err(error.into()),
            Err(error) => return Err(error.into()),
        };
        if let Err(failure) = withdrawn {
            tracing::warn!(name, error = failure.text, "records of an order stay for good");
        }
        tracing::info!(name, "nobody wants a certificate any more");
        Ok(self.store.forget_certificate(name, lease).await?)
    }
}

/// Whether a name, or what a wildcard stands for, is of a domain.
pub(crate) fn is_of(domain: &Domain, name: &str) -> bool {
    let name = name.strip_prefix("*.").unwrap_or(name);
    let below = name.strip_suffix(domain.as_str());
    below.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// A random number from 0 to 1.
pub(crate) fn random() -> f64 {
    // Without randomness renewals come together, nothing worse.
    let random = getrandom::u32().unwrap_or_default();
    f64::from(random) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{Request, Response};

    use time::OffsetDateTime;

    use super::*;
    use crate::{
        Resolver,
        acme::{Issuer, IssuerDeps, Limits, Transport, TransportError},
        seal::Open,
    };

    /// Two CAs: one never answers, which is told, the other cannot be reached.
    #[derive(Debug, Default)]
    struct Way {
        asked: tokio::sync::Notify,
    }

    #[async_trait::async_trait]
    impl Transport for Way {
        async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, TransportError> {
            if request.uri().host() == Some("silent") {
                self.asked.notify_one();
                std::future::pending::<()>().await;
            }
            Err(TransportError("the line is cut".to_owned()))
        }
    }

    fn authority(directory: &str, way: &Arc<Way>) -> Authority {
        Authority {
            directory: directory.to_owned(),
            contact: Vec::new(),
            external_account: None,
            profile: None,
            limits: Limits::default(),
            transport: Arc::clone(way) as _,
        }
    }

    #[tokio::test]
    async fn a_ca_that_does_not_answer_holds_up_nobody_who_asks_another() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("gantry.db")).await.unwrap();
        let (seal, resolver) = (Arc::new(Open) as Arc<dyn Seal>, Arc::new(Resolver::new()));
        let clock: Clock = Arc::new(OffsetDateTime::now_utc);
        let way = Arc::<Way>::default();
        let authorities = ["https://silent/", "https://away/"].map(|it| authority(it, &way));
        let authorities = authorities.to_vec();
        let shelf = Shelf::new(store.clone(), Arc::clone(&seal), Arc::clone(&clock), resolver);
        let deps = IssuerDeps {
            store,
            seal,
            clock,
            shelf: Arc::new(shelf),
            figures: Arc::new(Figures::new(&authorities)),
            authorities: authorities.clone(),
            dns: None,
            domain: "example.com".parse().unwrap(),
            permits: Arc::new(|_| false),
            lease: Duration::from_secs(30),
        };
        let shared = Issuer::new(deps, Vec::new()).unwrap().shared();
        let away = async {
            way.asked.notified().await;
            shared.at(&authorities[1]).await
        };
        tokio::select! {
            _never = shared.at(&authorities[0]) => panic!("it does not answer"),
            failed = away => {
                let failure = failed.err().unwrap();
                assert!(failure.text.contains("the line is cut"), "{failure:?}");
            }
            () = tokio::time::sleep(Duration::from_secs(20)) => panic!("held up"),
        }
    }
}
