//! Makes the wishes of containers' owners true.
//!
//! `decide` says what to do next for one container, `pass` does it, and this file decides which
//! containers have a pass, and when.

mod decide;
mod filling;
mod order;
mod orphans;
mod pass;
mod share;
mod snapshot;
mod sweep;

use std::{collections::HashMap, sync::Arc, time::Duration};

use gantry_model::{Chain, ContainerId};
use gantry_runtime::{Observed, State};
use gantry_store::{Changes, Revision, Store};
use tokio::{
    sync::{Notify, Semaphore, broadcast::error::RecvError, watch},
    task::{self, JoinError, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use self::{
    decide::Step,
    orphans::Orphans,
    pass::{Ending, Memory, Pass, Shared},
};
use crate::{
    clock::Clock,
    seal::SealingKeys,
    servers::{Served, Servers},
};

/// How many containers of a server have files come from other servers at the same time.
const TRANSFERS_MAX: usize = 2;

/// How a [`Reconciler`] works.
#[derive(Clone, Copy, Debug)]
pub struct ReconcilerConfig {
    /// How many containers are created (and their images built) at the same time, and as many
    /// others started, stopped and so on beside them, and half as many (one at least) have files copied:
    /// for snapshots, copies and restorations. Of what comes from other servers there are two at a time.
    pub concurrency: usize,
    /// How often everything is compared, whatever the notices say.
    pub resync: Duration,
    /// The pause after a first failure; each further one doubles it.
    pub backoff_min: Duration,
    /// How long a container of the warm pool waits before it is made.
    pub refill_rest: Duration,
    /// The longest pause after a failure.
    pub backoff_max: Duration,
    /// How often a creation or start is tried before the container is failed.
    pub attempts_max: u32,
    /// How long an init gets to end in order.
    pub stop_grace: Duration,
    /// How long passes under way may go on at shutdown.
    pub shutdown_grace: Duration,
    /// How long one call to the runtime may take; creations get ten times as long, for their image, and
    /// copies of files 240 times: they take as long as the files are many, and the runtimes give up what
    /// stands still.
    pub call_timeout: Duration,
    /// How many events of one account are kept; of more, the oldest go, within an hour.
    pub events_max: u32,
    /// The same of entries of the activity log.
    pub activity_max: u32,
    /// What each container may use.
    pub limits: gantry_runtime::Limits,
}

impl Default for ReconcilerConfig {
    fn default() -> Self {
        Self {
            concurrency: 8,
            resync: Duration::from_secs(10),
            backoff_min: Duration::from_millis(500),
            refill_rest: Duration::from_secs(1),
            backoff_max: Duration::from_secs(30),
            attempts_max: 4,
            stop_grace: Duration::from_secs(15),
            shutdown_grace: Duration::from_secs(10),
            call_timeout: Duration::from_mins(3),
            events_max: 100_000,
            activity_max: 100_000,
            limits: gantry_runtime::Limits { memory_bytes: 2 << 30, cpu_millis: 2000, pids: 4096 },
        }
    }
}

impl ReconcilerConfig {
    /// The pause after so many failures in a row.
    fn pause(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(16);
        self.backoff_min.saturating_mul(1 << doublings).min(self.backoff_max)
    }
}

/// Compares the records of one server's containers with what its runtime reports and closes the
/// gap, again and again.
///
/// It acts on the difference alone; notices (the store's feed, ended inits) only say when to look.
/// Containers have one pass at a time each, and a pass that fails is repeated after a pause that
/// doubles. Nothing is remembered that a new process would miss.
pub struct Reconciler {
    store: Store,
    servers: Servers,
    server: Served,
    clock: Clock,
    sealing: Arc<SealingKeys>,
    config: ReconcilerConfig,
}

impl std::fmt::Debug for Reconciler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reconciler")
            .field("server", &self.server.server.name)
            .finish_non_exhaustive()
    }
}

impl Reconciler {
    /// The reconciler of one server; `servers` are all that there are. There must be one per server at
    /// a time.
    pub fn new(
        store: Store,
        servers: Servers,
        server: Served,
        clock: Clock,
        sealing: Arc<SealingKeys>,
        config: ReconcilerConfig,
    ) -> Self {
        Self { store, servers, server, clock, sealing, config }
    }

    /// Works until the token is cancelled, then gives passes under way a little time and returns;
    /// containers stay as they are. Dropping the future ends at once, which is as safe as a crash.
    pub async fn run(self, shutdown: CancellationToken) {
        let head = self.store.head();
        let concurrency = self.config.concurrency.max(1);
        let shared = Arc::new(Shared {
            store: self.store,
            runtime: self.server.runtime,
            server: self.server.server.id,
            servers: self.servers,
            clock: self.clock,
            sealing: self.sealing,
            config: self.config,
            shutdown,
            creations: Arc::new(Semaphore::new(concurrency)),
            fillings: Arc::new(Semaphore::new((concurrency / 2).max(1))),
            transfers: Arc::new(Semaphore::new(TRANSFERS_MAX)),
            others: Arc::new(Semaphore::new(concurrency)),
        });
        let cursor = *head.borrow();
        Work::new(shared, cursor).run(head).await;
    }
}

/// A container that has a pass under way, or that waits for the next after a failure.
struct Slot {
    nudge: Arc<Notify>,
    memory: Memory,
    /// The pass under way.
    task: Option<task::Id>,
    /// Whether something happened since that pass began.
    dirty: bool,
    /// When to try again, if nothing happens before.
    due: Option<Instant>,
}

struct Work {
    shared: Arc<Shared>,
    slots: HashMap<ContainerId, Slot>,
    /// Ends with the container, what is remembered of it and how the pass ended.
    passes: JoinSet<(ContainerId, Memory, Ending)>,
    /// The last change that was followed.
    cursor: Revision,
    /// When everything is compared next; at once in the beginning.
    compare_at: Instant,
    compare_failures: u32,
    /// Whether everything has been compared once.
    compared: bool,
    orphans: Orphans,
    /// The removal of what is old, which takes its time where there is much of it.
    sweeping: JoinSet<()>,
    swept_at_ms: Option<i64>,
}

impl Work {
    fn new(shared: Arc<Shared>, cursor: Revision) -> Self {
        Self {
            shared,
            slots: HashMap::new(),
            passes: JoinSet::new(),
            cursor,
            compare_at: Instant::now(),
            compare_failures: 0,
            compared: false,
            orphans: Orphans::default(),
            sweeping: JoinSet::new(),
            swept_at_ms: None,
        }
    }

    async fn run(mut self, mut head: watch::Receiver<Revision>) {
        let shutdown = self.shared.shutdown.clone();
        // Subscribed before the first comparison, so that no exit falls in between.
        let mut exits = self.shared.runtime.exits();
        self.orphans.remember_history(&self.shared.store, self.cursor).await;
        loop {
            let due = self.slots.values().filter_map(|slot| slot.due).min();
            // Without an order: under constant change of one kind, the others get their turn.
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(ended) = self.passes.join_next_with_id() => self.ended(ended),
                Some(swept) = self.sweeping.join_next() => if let Err(error) = swept {
                    tracing::error!(%error, "the removal of what is old ended in a panic");
                },
                changed = head.changed() => match changed {
                    Ok(()) => self.follow().await,
                    Err(_store_closed) => break,
                },
                exit = exits.recv() => match exit {
                    Ok(id) => self.wake(id),
                    Err(RecvError::Lagged(_)) => self.compare_all().await,
                    // The runtime goes away only together with us.
                    Err(RecvError::Closed) => break,
                },
                () = tokio::time::sleep_until(self.compare_at) => self.compare_all().await,
                () = until(due) => self.wake_due(),
            }
        }
        self.finish().await;
    }

    /// Looks at every container whose record has changed since the last look.
    async fn follow(&mut self) {
        loop {
            match self.shared.store.changes(self.cursor, CHANGES_MAX).await {
                Ok(Changes::Since { changes, head }) => {
                    for change in &changes {
                        self.cursor = change.revision;
                        self.orphans.remember(change.container);
                        self.wake(change.container);
                    }
                    if changes.is_empty() || self.cursor >= head {
                        return self.compare_when_shares_end().await;
                    }
                }
                Ok(Changes::Compacted | Changes::NewEpoch) => {
                    self.cursor = *self.shared.store.head().borrow();
                    return self.compare_all().await;
                }
                Err(error) => {
                    tracing::warn!(%error, "the store's changes cannot be read");
                    // A comparison of everything makes up for what is missed here.
                    return self.compare_later();
                }
            }
        }
    }

    /// Compares everything as soon as a share ends, which nothing else would tell.
    async fn compare_when_shares_end(&mut self) {
        if let Some(left) = share::next_end(&self.shared).await {
            self.compare_at = self.compare_at.min(Instant::now() + left);
        }
    }

    /// Puts off the next comparison: for a little while after a failure, and longer after more.
    fn compare_later(&mut self) {
        self.compare_failures = self.compare_failures.saturating_add(1);
        let config = &self.shared.config;
        self.compare_at = Instant::now() + config.pause(self.compare_failures).min(config.resync);
    }

    /// Compares everything that is recorded with everything that exists.
    async fn compare_all(&mut self) {
        // In this order: a container that exists without a record now has had none all along, or
        // its record was removed, which happens after it has gone.
        let observed = match self.shared.runtime.list().await {
            Ok(observed) => observed,
            Err(error) => {
                let error = Chain(&error).to_string();
                tracing::warn!(error, "the runtime cannot list its containers");
                return self.compare_later();
            }
        };
        let records = match self.shared.store.containers_of_server(self.shared.server).await {
            Ok(records) => records,
            Err(error) => {
                let error = Chain(&error).to_string();
                tracing::warn!(error, "the records of this server cannot be read");
                return self.compare_later();
            }
        };
        let server = self.shared.server;
        let unfinished = match self.shared.store.unfinished_snapshots(server).await {
            Ok(unfinished) => unfinished,
            Err(error) => {
                let error = Chain(&error).to_string();
                tracing::warn!(error, "the snapshots of this server cannot be read");
                return self.compare_later();
            }
        };
        self.compare_failures = 0;
        self.compare_at = Instant::now() + self.shared.config.resync;
        let mut observed: HashMap<ContainerId, Observed> =
            observed.into_iter().map(|observed| (observed.id, observed)).collect();
        for id in unfinished {
            if self.slots.get(&id).is_none_or(|slot| slot.due.is_none()) {
                self.wake(id);
            }
        }
        for record in &records {
            let seen = observed.remove(&record.id);
            let step = Step::next(record, seen.as_ref(), self.shared.runtime.boot_id());
            let waits = self.slots.get(&record.id).is_some_and(|slot| slot.due.is_some());
            // The variables of one that runs may have changed before this process began.
            let unsure = !self.compared && seen.is_some_and(|seen| seen.state != State::Stopped);
            if (step != Step::Nothing || unsure) && !waits {
                self.wake(record.id);
            }
        }
        self.compared = true;
        for id in share::due(&self.shared).await {
            if self.slots.get(&id).is_none_or(|slot| slot.due.is_none()) {
                self.wake(id);
            }
        }
        let strays = observed.into_keys().filter(|id| !self.slots.contains_key(id)).collect();
        for id in self.orphans.seen(strays) {
            let shared = Arc::clone(&self.shared);
            self.launch(id, Memory::default(), Arc::default(), async move {
                (id, Memory::default(), orphans::remove(&shared, id).await)
            });
        }
        self.compare_when_shares_end().await;
        // What is old is old for all servers.
        if self.shared.servers.is_first(self.shared.server) {
            self.sweep();
        }
    }

    /// Forgets what is old, once an hour; one sweep at a time, beside everything else.
    fn sweep(&mut self) {
        let now_ms = self.shared.clock.now_ms();
        let is_due = self.swept_at_ms.is_none_or(|at_ms| now_ms.saturating_sub(at_ms) >= SWEEP_MS);
        if is_due && self.sweeping.is_empty() {
            self.swept_at_ms = Some(now_ms);
            let shared = Arc::clone(&self.shared);
            self.sweeping.spawn(async move { sweep::run(&shared, now_ms).await });
        }
    }

    /// Begins a pass, or tells the one under way that there is news.
    fn wake(&mut self, id: ContainerId) {
        let memory = match self.slots.get_mut(&id) {
            Some(slot) if slot.task.is_some() => {
                slot.dirty = true;
                slot.nudge.notify_one();
                return;
            }
            Some(slot) => slot.memory,
            None => Memory::default(),
        };
        let shared = Arc::clone(&self.shared);
        let nudge = Arc::new(Notify::new());
        let told = Arc::clone(&nudge);
        self.launch(id, memory, nudge, async move {
            let pass = Pass { shared: &shared, id, nudge: &told, memory };
            let (memory, ending) = pass.run().await;
            (id, memory, ending)
        });
    }

    fn launch(
        &mut self,
        id: ContainerId,
        memory: Memory,
        nudge: Arc<Notify>,
        pass: impl Future<Output = (ContainerId, Memory, Ending)> + Send + 'static,
    ) {
        let task = Some(self.passes.spawn(pass).id());
        self.slots.insert(id, Slot { nudge, memory, task, dirty: false, due: None });
    }

    fn ended(&mut self, ended: Result<(task::Id, (ContainerId, Memory, Ending)), JoinError>) {
        let (id, memory, ending) = match ended {
            Ok((_, ended)) => ended,
            Err(error) => {
                let task = Some(error.id());
                let slot = self.slots.iter().find(|(_, slot)| slot.task == task);
                let Some((id, slot)) = slot else { return };
                tracing::error!(container = %id, %error, "a pass ended in a panic");
                (*id, slot.memory.after_failure(), Ending::Failed)
            }
        };
        let Some(slot) = self.slots.get_mut(&id) else { return };
        let dirty = slot.dirty;
        slot.task = None;
        slot.memory = memory;
        match ending {
            Ending::Interrupted => {}
            // Even after a failure: what happened may be a new wish, which the pass did not see.
            Ending::Settled | Ending::Rests | Ending::Failed if dirty => self.wake(id),
            Ending::Rests => slot.due = Some(Instant::now() + self.shared.config.refill_rest),
            Ending::Settled => {
                self.slots.remove(&id);
            }
            Ending::Failed => {
                slot.due = Some(Instant::now() + self.shared.config.pause(memory.failures));
            }
        }
    }

    fn wake_due(&mut self) {
        let now = Instant::now();
        let due: Vec<ContainerId> = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.due.is_some_and(|due| due <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            self.wake(id);
        }
    }

    /// Passes see the token themselves and end at their next step. What has not been swept waits for the
    /// next process.
    async fn finish(mut self) {
        self.sweeping.shutdown().await;
        let grace = self.shared.config.shutdown_grace;
        let rest = async { while self.passes.join_next().await.is_some() {} };
        if tokio::time::timeout(grace, rest).await.is_err() {
            tracing::info!("passes under way are left to the next start");
            self.passes.shutdown().await;
        }
    }
}

/// How many changes are read at once.
const CHANGES_MAX: u32 = 1000;
/// How often what is old is removed, in milliseconds.
const SWEEP_MS: i64 = 60 * 60 * 1000;

/// Ends at that time; never without one.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
