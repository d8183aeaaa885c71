//! Group commit: one task makes every change.
//!
//! It takes up to [`BATCH_MAX`] queued mutations, runs each inside a savepoint of one transaction
//! (so that one caller's refusal undoes nobody else's work), numbers the changes of the feed,
//! commits, and only then answers. One flush of the disk thus serves many callers, and the feed's
//! revisions are in the order of the commits because nothing else writes them.
//!
//! A failure of reading, writing or flushing stops the writer for good: the operating system reports
//! a failed flush once and may drop the data, so trying again would acknowledge what is not on the
//! disk. A full disk is different: the pages of the transaction were refused before the flush, what
//! was written of it is void, and the next transaction may succeed once there is room.

use futures_util::future::BoxFuture;
use gantry_model::{Chain, ContainerId};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    error::{Error, Outage, Result, failed},
    feed::{self, Retention},
    record::Revision,
    sqlite::{self, Connection, Readers},
};

/// The most mutations in one transaction.
const BATCH_MAX: usize = 64;
/// The most mutations that wait; callers beyond wait before they are queued.
pub(crate) const QUEUE_MAX: usize = 1024;

/// The open write transaction, as mutations see it.
#[derive(Debug)]
pub(crate) struct Tx {
    /// Where statements run.
    pub(crate) connection: Connection,
    changes: Vec<(ContainerId, i64)>,
    /// The number of the newest event; 0 if the transaction tells none.
    newest_event: u64,
}

impl Tx {
    pub(crate) const fn new(connection: Connection) -> Self {
        Self { connection, changes: Vec::new(), newest_event: 0 }
    }

    /// Notes that the feed shall say that this container changed.
    pub(crate) fn changed(&mut self, container: ContainerId, now_ms: i64) {
        self.changes.push((container, now_ms));
    }

    /// Notes the number of an event that was added.
    pub(crate) fn happened(&mut self, seq: u64) {
        self.newest_event = seq;
    }
}

/// A queued mutation.
pub(crate) trait Job: Send {
    /// Runs it inside a savepoint. A refusal is kept for the answer; an outage ends the transaction.
    fn run<'c>(&'c mut self, tx: &'c mut Tx) -> BoxFuture<'c, Result<(), Outage>>;
    /// Tells the caller how it ended, after the commit.
    fn answer(self: Box<Self>, committed: Result<(), Outage>);
}

/// A mutation and the caller who waits for it.
pub(crate) struct Pending<W, T> {
    work: Option<W>,
    outcome: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<W, T> Pending<W, T> {
    /// The mutation and where its result will come from.
    pub(crate) fn new(work: W) -> (Self, oneshot::Receiver<Result<T>>) {
        let (reply, answer) = oneshot::channel();
        (Self { work: Some(work), outcome: None, reply }, answer)
    }
}

impl<W, T> Job for Pending<W, T>
where
    W: for<'c> FnOnce(&'c mut Tx) -> BoxFuture<'c, Result<T>> + Send,
    T: Send,
{
    fn run<'c>(&'c mut self, tx: &'c mut Tx) -> BoxFuture<'c, Result<(), Outage>> {
        Box::pin(async move {
            let Some(work) = self.work.take() else { return Ok(()) };
            let (mark, newest_event) = (tx.changes.len(), tx.newest_event);
            execute(&mut tx.connection, "SAVEPOINT mutation").await?;
            let outcome = work(tx).await;
            match &outcome {
                Ok(_) => {}
                Err(Error::Unavailable(outage)) if outage.ends_transaction() => {
                    return Err(outage.clone());
                }
                Err(_) => {
                    tx.changes.truncate(mark);
                    tx.newest_event = newest_event;
                    execute(&mut tx.connection, "ROLLBACK TO SAVEPOINT mutation").await?;
                }
            }
            execute(&mut tx.connection, "RELEASE SAVEPOINT mutation").await?;
            self.outcome = Some(outcome);
            Ok(())
        })
    }

    fn answer(self: Box<Self>, committed: Result<(), Outage>) {
        let outcome = match (committed, self.outcome) {
            (Ok(()), Some(outcome)) => outcome,
            (Ok(()), None) => Err(Error::Unavailable(Outage::Stopped)),
            // Refusals, too: they may rest on what another mutation of the transaction did.
            (Err(outage), _) => Err(Error::Unavailable(outage)),
        };
        // A caller that no longer waits has given its answer up.
        drop(self.reply.send(outcome));
    }
}

/// The newest revision and the newest event's number, for whoever waits for newer ones. Two tell of them: the
/// writer, and who looks for what other processes have written; so they only rise.
#[derive(Clone, Debug)]
pub(crate) struct Heads {
    pub(crate) revision: watch::Sender<Revision>,
    pub(crate) event: watch::Sender<u64>,
}

impl Heads {
    pub(crate) fn rise(&self, revision: Option<Revision>, event: u64) {
        if let Some(revision) = revision {
            self.revision.send_if_modified(|head| {
                let rises = revision > *head;
                *head = revision.max(*head);
                rises
            });
        }
        self.event.send_if_modified(|head| {
            let rises = event > *head;
            *head = event.max(*head);
            rises
        });
    }
}

/// The task that writes.
pub(crate) struct Writer {
    pub(crate) tx: Tx,
    pub(crate) readers: Readers,
    pub(crate) queue: mpsc::Receiver<Box<dyn Job>>,
    pub(crate) heads: Heads,
    pub(crate) retention: Retention,
    pub(crate) closing: CancellationToken,
}

impl Writer {
    /// Runs until the store is closed or its last handle is dropped, then closes the database.
    pub(crate) async fn run(mut self) {
        let mut stopped = false;
        let mut batch = Vec::with_capacity(BATCH_MAX);
        loop {
            tokio::select! {
                biased;
                () = self.closing.cancelled(), if !self.queue.is_closed() => self.queue.close(),
                count = self.queue.recv_many(&mut batch, BATCH_MAX) => {
                    if count == 0 {
                        break;
                    }
                    let verdict = if stopped {
                        Err(Outage::Stopped)
                    } else {
                        self.write(&mut batch).await
                    };
                    stopped |= verdict.as_ref().is_err_and(Outage::stops_writes);
                    for job in batch.drain(..) {
                        job.answer(verdict.clone());
                    }
                }
            }
        }
        if let Err(error) = sqlite::close(self.tx.connection, &self.readers).await {
            // Nothing is lost: what the log holds is read at the next start.
            tracing::warn!(error = %Chain(&error), "the database did not close in order");
        }
    }

    /// One transaction, from begin to commit or rollback.
    async fn write(&mut self, batch: &mut [Box<dyn Job>]) -> Result<(), Outage> {
        let outage = match self.transact(batch).await {
            Ok(head) => {
                self.heads.rise(head, std::mem::take(&mut self.tx.newest_event));
                return Ok(());
            }
            Err(outage) => outage,
        };
        tracing::error!(
            error = %Chain(&outage),
            mutations = batch.len(),
            stopped = outage.stops_writes(),
            "a transaction failed"
        );
        self.tx.changes.clear();
        self.tx.newest_event = 0;
        // A transaction that cannot be ended would take in the next one's writes.
        match sqlite::rollback(&mut self.tx.connection).await.map_err(failed) {
            Ok(()) => Err(outage),
            Err(Error::Unavailable(worse)) if worse.stops_writes() => Err(worse),
            Err(_) => Err(Outage::Stopped),
        }
    }

    async fn transact(&mut self, batch: &mut [Box<dyn Job>]) -> Result<Option<Revision>, Outage> {
        sqlite::begin(&mut self.tx.connection).await.map_err(outage)?;
        for job in batch {
            job.run(&mut self.tx).await?;
        }
        let changes = std::mem::take(&mut self.tx.changes);
        let head = if changes.is_empty() {
            None
        } else {
            let connection = &mut self.tx.connection;
            self.retention.compact(connection, &changes).await.map_err(unavailable)?;
            Some(feed::append(connection, &changes).await.map_err(unavailable)?)
        };
        sqlite::commit(&mut self.tx.connection).await.map_err(outage)?;
        Ok(head)
    }
}

async fn execute(connection: &mut Connection, statement: &'static str) -> Result<(), Outage> {
    sqlx::query(statement).execute(connection).await.map(drop).map_err(outage)
}

/// An error of the transaction itself: whatever it is, the transaction is over.
fn outage(error: sqlx::Error) -> Outage {
    unavailable(failed(error))
}

fn unavailable(error: Error) -> Outage {
    match error {
        Error::Unavailable(outage) => outage,
        error @ (Error::NotFound
        | Error::Stale
        | Error::NameTaken
        | Error::KeyTaken
        | Error::AliasTaken
        | Error::LabelTaken { .. }
        | Error::AliasLimit { .. }
        | Error::SnapshotLimit { .. }
        | Error::SnapshotQuota { .. }
        | Error::PoolFull { .. }
        | Error::SnapshotBusy
        | Error::ShareLimit { .. }
        | Error::HostnameTaken
        | Error::UsernameTaken
        | Error::IdTaken
        | Error::QuotaReached { .. }
        | Error::OverQuota { .. }
        | Error::ProjectGone
        | Error::MemberExists
        | Error::MembersPresent
        | Error::RamdiskShared
        | Error::MemberLimit { .. }
        | Error::MembershipLimit { .. }
        | Error::NotEmpty
        | Error::VaultKeyLimit { .. }
        | Error::VaultSizeLimit { .. }
        | Error::TokenLimit { .. }
        | Error::PublicKeyTaken
        | Error::PublicStorageLimit { .. }
        | Error::Corrupt { .. }) => Outage::Refused(crate::Cause::new(error)),
    }
}
