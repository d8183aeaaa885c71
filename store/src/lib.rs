//! The record store: typed queries, transactions and the change feed.
//!
//! One typed method per query or mutation, each one transaction: a container, its name and its SSH
//! key are taken together or not at all. Records carry versions, and whoever changes one names the
//! version that it has read; another one meanwhile is [`Error::Stale`]. Every change of a container
//! is in the feed ([`Store::changes`]), in the order of the commits and without gaps, so that a
//! reader who has loaded everything at one revision misses nothing after it.
//!
//! A write has returned only when it is on the disk. Writes are grouped: one task makes them all, up
//! to 64 in one transaction, and answers after the commit.
//!
//! The store decides no policy, reads no clock (`now_ms` is always an argument; leases alone go by the
//! database's), hands out neither
//! connections nor rows, and never repeats a failed flush. The engine is SQLite, in the module
//! `sqlite` alone; every other statement is one that PostgreSQL takes, too.

mod access;
mod activity;
mod aliases;
mod certificates;
mod columns;
mod containers;
mod document;
mod edge;
mod edge_record;
mod environment;
mod error;
mod events;
mod factors;
mod feed;
mod firewall;
mod hostnames;
mod idempotency;
mod images;
mod imports;
mod installation;
mod leases;
mod listing;
mod members;
mod onboarding;
mod outbound;
mod prespawn;
mod profiles;
mod projects;
mod quotas;
mod realms;
pub mod record;
mod schema;
mod shares;
mod snapshots;
mod sqlite;
mod ssh_keys;
#[cfg(test)]
mod tests;
mod token_profiles;
mod tokens;
mod told;
mod users;
mod vault;
mod visits;
mod writer;

use std::{
    fmt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use gantry_model::ServerId;
use tokio::{
    sync::{mpsc, watch},
    time::MissedTickBehavior,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use activity::{Activity, ActivityFilter, ActivityTotals};
pub use certificates::{
    CertificateRecord, Challenge, ChallengeKind, Issued, OrderRecord, Revocation, TicketKey, Use,
};
pub use error::{Cause, Error, OpenError, Outage, Result};
pub use events::{Event, EventFilter, EventTotals, event_number};
pub use factors::{ATTEMPTS_MAX, Attempt, Door, LOCKOUT_MAX_MS, LOCKOUT_MS, SecondFactor, Shown};
pub use firewall::RuleChange;
pub use images::{ImageFacts, Ratings, TakenImage};
pub use imports::SnapshotOrigin;
pub use leases::{Holder, Lease};
pub use listing::Span;
pub use members::{Granter, Member, MemberMax, MemberSort};
pub use outbound::{CopiedRules, OutboundChange, OutboundRecord};
pub use prespawn::{Claim, PrespawnMax};
pub use profiles::Profile;
pub use quotas::{AccountLimits, AccountUse, Counted, Quotas};
pub use realms::RealmUse;
pub use record::*;
pub use shares::{Incoming, Share, ShareFilter, ShareMax, ShareMount, ShareTarget};
pub use snapshots::SnapshotMax;
pub use token_profiles::{ProfileWrite, TokenProfile};
pub use vault::{Sealed, SealedChange, VaultEntry, VaultMax, VaultPlace, VaultUse};
pub use visits::VisitTold;

use crate::{
    feed::Retention,
    sqlite::{Before, Readers},
    writer::{Heads, Job, Pending, QUEUE_MAX, Tx, Writer},
};

/// A handle to the store; cheap to clone, all clones are one store.
///
/// Every method may be called from any task of any tokio runtime, and may be dropped before its end: a
/// read then has no effect, a write is made or not made, but never half.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
    /// What writes by this handle keep to.
    quotas: Quotas,
    /// The servers that whoever has this handle runs; absent where that is not known.
    served: Option<Arc<[ServerId]>>,
}

struct Shared {
    readers: Readers,
    queue: mpsc::Sender<Box<dyn Job>>,
    head: watch::Receiver<Revision>,
    event_head: watch::Receiver<u64>,
    /// For what other processes write.
    heads: Mutex<Option<Heads>>,
    epoch: Epoch,
    process: Holder,
    closing: CancellationToken,
    tasks: TaskTracker,
}

impl Store {
    /// The same store for a process that runs these servers: what others would have to do keeps nothing from
    /// being removed by this handle and its clones.
    #[must_use]
    pub fn with_servers(mut self, served: impl IntoIterator<Item = ServerId>) -> Self {
        self.served = Some(served.into_iter().collect());
        self
    }

    /// Opens the store in the file at `path`, makes it if there is none, and brings it to the
    /// newest schema.
    ///
    /// Its writer runs on the tokio runtime that this is called in. After an end without
    /// [`Store::close`] the whole file is read and checked first.
    pub async fn open(path: &Path) -> Result<Self, OpenError> {
        Self::open_with(path, Retention::default()).await
    }

    /// The same while another process, which this one is to follow, still has the store open: what that one
    /// has under way is not taken for the remains of a crash.
    pub async fn open_beside(path: &Path) -> Result<Self, OpenError> {
        Self::open_after(path, Retention::default(), Before::Lives).await
    }

    /// The schema of the store in the file at `path`, which is left as it is, and that to which opening it would
    /// bring it; 0 for a file that holds nothing. An error if this program could not use it.
    pub async fn look(path: &Path) -> Result<(i64, i64), OpenError> {
        let mut connection = sqlite::open_to_look(path).await?;
        let looked = schema::look(&mut connection).await;
        sqlite::end_look(connection).await;
        looked
    }

    async fn open_with(path: &Path, retention: Retention) -> Result<Self, OpenError> {
        Self::open_after(path, retention, Before::Ended).await
    }

    async fn open_after(
        path: &Path,
        retention: Retention,
        before: Before,
    ) -> Result<Self, OpenError> {
        let sqlite::Opened { mut writer, readers } = sqlite::open(path, before).await?;
        schema::migrate(&mut writer, path, schema::MIGRATIONS).await?;
        let epoch = installation::ensure_epoch(&mut writer).await?;
        let mut process = [0; 16];
        getrandom::fill(&mut process).map_err(OpenError::Random)?;
        if before == Before::Ended {
            idempotency::forget_unfinished(&mut writer).await.map_err(OpenError::Record)?;
        }
        let revision = feed::head(&mut writer).await.map_err(OpenError::Record)?;
        let newest_event = events::head(&mut writer).await.map_err(OpenError::Record)?;

        let (queue, queued) = mpsc::channel(QUEUE_MAX);
        let (head_sender, head) = watch::channel(revision);
        let (event_sender, event_head) = watch::channel(newest_event);
        let (closing, tasks) = (CancellationToken::new(), TaskTracker::new());
        let heads = Heads { revision: head_sender, event: event_sender };
        let writer = Writer {
            tx: Tx::new(writer),
            readers: readers.clone(),
            queue: queued,
            heads: heads.clone(),
            retention,
            closing: closing.clone(),
        };
        tasks.spawn(writer.run());
        tasks.close();
        let shared = Shared {
            readers,
            queue,
            head,
            event_head,
            heads: Mutex::new(Some(heads)),
            epoch,
            process,
            closing,
            tasks,
        };
        Ok(Self { shared: Arc::new(shared), quotas: Quotas::default(), served: None })
    }

    /// Closes the store: what is queued is still written, what comes later is refused with
    /// [`Outage::Closed`]. Returns when the files are closed; may be called twice.
    pub async fn close(&self) {
        self.shared.closing.cancel();
        self.shared.tasks.wait().await;
        // Whoever waits for changes hears that none will come.
        drop(self.shared.heads.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Names the history of the feed.
    pub fn epoch(&self) -> Epoch {
        self.shared.epoch
    }

    /// Names this opening of the store among those of all processes.
    pub fn process(&self) -> Holder {
        self.shared.process
    }

    /// The newest revision; changes after each commit that added to the feed. A hint to read
    /// [`Store::changes`]: revisions may be skipped.
    pub fn head(&self) -> watch::Receiver<Revision> {
        self.shared.head.clone()
    }

    /// Looks every so often, until the store is closed or this is dropped, whether another process has
    /// written, and has [`Store::head`] and the events' tell of it as of a write of this one. Without that
    /// nobody hears of it.
    pub async fn heed_others(&self, every: Duration) {
        let mut look = tokio::time::interval(every);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = self.shared.closing.cancelled() => return,
                _ = look.tick() => {}
            }
            if let Err(error) = self.look_at_heads().await {
                // Whoever reads the store says so, too.
                tracing::debug!(%error, "cannot look whether another process has written");
            }
        }
    }

    async fn look_at_heads(&self) -> Result<()> {
        let mut connection = self.readers().acquire().await.map_err(error::failed)?;
        let revision = feed::head(&mut connection).await?;
        let event = events::head(&mut connection).await?;
        if let Some(heads) = &*self.shared.heads.lock().unwrap_or_else(PoisonError::into_inner) {
            heads.rise(Some(revision), event);
        }
        Ok(())
    }

    fn readers(&self) -> &Readers {
        &self.shared.readers
    }

    /// Queues a mutation and waits until it is committed or refused.
    async fn write<T, W>(&self, work: W) -> Result<T>
    where
        T: Send + 'static,
        W: for<'c> FnOnce(&'c mut Tx) -> BoxFuture<'c, Result<T>> + Send + 'static,
    {
        let (pending, answer) = Pending::new(work);
        // Both fail only when the writer has ended.
        let closed = Error::Unavailable(Outage::Closed);
        if self.shared.queue.send(Box::new(pending)).await.is_err() {
            return Err(closed);
        }
        answer.await.unwrap_or(Err(closed))
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("epoch", &self.shared.epoch)
            .field("head", &*self.shared.head.borrow())
            .finish_non_exhaustive()
    }
}
