//! One pass over one container: look, decide, act, record, until nothing is left to do.

use std::{net::IpAddr, sync::Arc, time::Duration};

use gantry_model::{Chain, ContainerId, Generation, Phase, ServerId};
use gantry_runtime::{Observed, Runtime, State};
use gantry_store::{Container, ContainerStatus, Snapshot, Store};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::{
    ReconcilerConfig,
    decide::{BY_RECONCILER, Finding, Look, Step, Stop},
    order::hostname,
};
use crate::{clock::Clock, seal::SealingKeys, servers::Servers};

/// The most steps of one pass. The longest honest way, from running over a restart to deleted, has
/// ten; beyond this somebody changes the record faster than it can be followed.
const STEPS_MAX: u32 = 64;

/// Why a copy does not come, for its owner.
const SOURCE_AWAY: &str = "the server that has its source is not configured any more";
const SOURCE_GONE: &str = "what it was to be a copy of has been deleted meanwhile";

/// What all passes share.
pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) server: ServerId,
    /// All that there are: files may come from another.
    pub(super) servers: Servers,
    pub(super) clock: Clock,
    pub(super) sealing: Arc<SealingKeys>,
    pub(super) config: ReconcilerConfig,
    pub(super) shutdown: CancellationToken,
    /// Creations may wait for an image for minutes; they must not keep others from stopping.
    pub(super) creations: Arc<Semaphore>,
    /// Copies of files take as long as the files are many.
    pub(super) fillings: Arc<Semaphore>,
    /// What comes from other servers also takes as long as the way there.
    pub(super) transfers: Arc<Semaphore>,
    pub(super) others: Arc<Semaphore>,
}

/// What is remembered of a container from one pass to the next while it does not go well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    /// Failures of any kind in a row; the pause before the next pass grows with them.
    pub(super) failures: u32,
    /// How often the step at hand has failed while working on wish `seq`.
    attempts: u32,
    seq: u64,
    /// Whether it has let others go first.
    rested: bool,
}

impl Memory {
    /// One failure more.
    pub(super) fn after_failure(self) -> Self {
        Self { failures: self.failures.saturating_add(1), ..self }
    }

    /// A step succeeded, or there is none left.
    pub(super) fn after_success(self) -> Self {
        Self { failures: 0, attempts: 0, ..self }
    }
}

/// How a pass ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Nothing is left to do, or the container is gone.
    Settled,
    /// It lets others go first; try again after [`ReconcilerConfig::refill_rest`].
    Rests,
    /// It did not work; try again after the pause that the failures call for.
    Failed,
    /// The process ends; the rest is for the next one.
    Interrupted,
}

/// Why a call to the runtime did not do what it should.
pub(super) enum Trouble {
    /// The record says something else by now: look again.
    Overtaken,
    Runtime(gantry_runtime::Error),
    /// The runtime did not answer in time.
    Silent,
    /// The files are on a server that this process does not run.
    SourceAway,
    /// There are no such files any more.
    SourceGone,
}

/// Which queue a step waits in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Creation,
    Filling,
    /// Of files that come from another server.
    Transfer,
    Other,
}

impl Class {
    /// Whether files are copied.
    fn fills(self) -> bool {
        matches!(self, Self::Filling | Self::Transfer)
    }

    /// Where a step waits, or the snapshot that is made instead of it; `None` for what takes no turn.
    fn of(step: Step, has_snapshot: bool) -> Option<Self> {
        match step {
            Step::Record(_) => None,
            // Who stops or kills it does not wait for its files to be copied: the runtime gives the copy
            // up, and the snapshot is made afterwards, of what there is then.
            Step::Stop(_) => Some(Self::Other),
            // The rest would wait for the copy in the runtime, with a place that others need. Before a
            // deletion above all: it was asked for before that, and outlives the container.
            _ if has_snapshot => Some(Self::Filling),
            Step::Nothing => None,
            Step::Create => Some(Self::Creation),
            Step::Copy(_) | Step::Refill(_) => Some(Self::Filling),
            Step::Start | Step::Adopt | Step::Pause | Step::Resume | Step::Delete | Step::Sweep => {
                Some(Self::Other)
            }
        }
    }
}

/// What became of the wait for a turn.
enum Turn {
    /// Nobody was before it.
    Free(OwnedSemaphorePermit),
    Taken(OwnedSemaphorePermit),
    /// The record says something else by now: look again.
    Overtaken,
    Interrupted,
}

pub(super) struct Pass<'p> {
    pub(super) shared: &'p Shared,
    pub(super) id: ContainerId,
    /// Told whenever the record has changed.
    pub(super) nudge: &'p Notify,
    pub(super) memory: Memory,
}

impl Pass<'_> {
    /// Works on the container until it is settled or something fails. Dropping this at any await
    /// leaves a state that the next pass continues from.
    pub(super) async fn run(mut self) -> (Memory, Ending) {
        let ending = match self.steps().await {
            Ok(ending) => ending,
            Err(error) => {
                let error = Chain(&error).to_string();
                tracing::warn!(container = %self.id, error, "the store did not answer a pass");
                self.memory = self.memory.after_failure();
                Ending::Failed
            }
        };
        (self.memory, ending)
    }

    async fn steps(&mut self) -> Result<Ending, gantry_store::Error> {
        let mut held: Option<(Class, OwnedSemaphorePermit)> = None;
        for _ in 0..STEPS_MAX {
            if self.shared.shutdown.is_cancelled() {
                return Ok(Ending::Interrupted);
            }
            let Some(container) = self.shared.store.container(self.id).await? else {
                return Ok(Ending::Settled);
            };
            if container.server != self.shared.server {
                return Ok(Ending::Settled);
            }
            if self.memory.seq != container.wish_seq {
                self.memory = Memory { seq: container.wish_seq, ..Memory::default() };
            }
            let observed = match self.shared.runtime.observe(self.id).await {
                Ok(observed) => observed,
                Err(error) => return Ok(self.failed("looking at the container", &error)),
            };
            let step = Step::next(&container, observed.as_ref(), self.shared.runtime.boot_id());
            let snapshot = self.due_snapshot(step).await?;
            let runs = observed.as_ref().is_some_and(runs);
            // What runs ends at once; the snapshot may take minutes.
            let kills = step == Step::Delete && snapshot.is_some() && runs;
            let step = if kills { Step::Stop(Stop::Forced) } else { step };
            let class = match (self.class(step, snapshot.as_ref()).await?, step) {
                (Some(class), _) => class,
                (None, Step::Record(finding)) => {
                    let look = self.look(observed.and_then(|observed| observed.address));
                    let status = finding.apply(&container, &look);
                    self.write(&container, finding.cause(), status).await?;
                    continue;
                }
                (None, _) => {
                    drop(held.take());
                    return self.settle(&container, observed.as_ref()).await;
                }
            };
            // One for the pool is made when somebody has just claimed another, whose first requests have
            // the machine now.
            if container.prespawn && step == Step::Create && !self.memory.rested {
                self.memory.rested = true;
                return Ok(Ending::Rests);
            }
            if held.as_ref().is_none_or(|(held, _)| *held != class) {
                drop(held.take());
                match self.turn(class, container.wish_seq).await {
                    Turn::Free(permit) => held = Some((class, permit)),
                    // The wait may have been long: with the turn in hand, look again.
                    Turn::Taken(permit) => {
                        held = Some((class, permit));
                        continue;
                    }
                    Turn::Overtaken => continue,
                    Turn::Interrupted => return Ok(Ending::Interrupted),
                }
            }
            if let Some(snapshot) = snapshot.filter(|_| class.fills()) {
                tracing::debug!(container = %self.id, snapshot = %snapshot.name, "snapshot");
                let (seq, exists) = (container.wish_seq, observed.is_some());
                if let Some(ending) = self.make_snapshot(&snapshot, seq, exists).await? {
                    return Ok(ending);
                }
                // There may be many more: others have their turn between.
                drop(held.take());
                continue;
            }
            tracing::debug!(container = %self.id, ?step, "step");
            if let Some(ending) = self.act(step, &container).await? {
                return Ok(ending);
            }
        }
        self.memory = self.memory.after_failure();
        Ok(Ending::Failed)
    }

    /// All is as it should be; what may still differ are the way out and the firewall rules, and in a
    /// container that runs its variables.
    async fn settle(
        &mut self,
        container: &Container,
        observed: Option<&Observed>,
    ) -> Result<Ending, gantry_store::Error> {
        let (seq, timeout) = (container.wish_seq, self.shared.config.call_timeout);
        let runtime = Arc::clone(&self.shared.runtime);
        let mut closed = Ok(());
        if observed.is_some() {
            let outbound = self.outbound().await?;
            let led = self.call(seq, timeout, runtime.ensure_outbound(self.id, &outbound)).await;
            if matches!(led, Err(Trouble::Overtaken)) {
                return Ok(Ending::Settled);
            }
            let firewall = self.firewall().await?;
            let done = self.call(seq, timeout, runtime.ensure_firewall(self.id, &firewall)).await;
            // Whoever wishes something else said so only once: the next call would not hear of it.
            if matches!(done, Err(Trouble::Overtaken)) {
                return Ok(Ending::Settled);
            }
            let led = self.brought("changing the outbound network", led);
            closed = self.brought("changing the firewall", done).and(led);
        }
        if observed.is_some_and(runs) {
            let env = container.spec.environment.vars();
            let done = self.call(seq, timeout, runtime.ensure_environment(self.id, env)).await;
            self.note_environment(container, &done).await?;
            if let Err(ending) = self.brought("changing variables", done) {
                return Ok(ending);
            }
            if let Err(ending) = self.share(container).await? {
                return Ok(ending);
            }
        }
        // A packet filter that does not answer keeps no variables back.
        if let Err(ending) = closed {
            return Ok(ending);
        }
        self.memory = self.memory.after_success();
        Ok(Ending::Settled)
    }

    /// Whether the runtime has taken over what it was told; if not, how the pass ends.
    pub(super) fn brought(&mut self, what: &str, done: Result<(), Trouble>) -> Result<(), Ending> {
        match done {
            // Overtaken: a further pass follows.
            Ok(()) | Err(Trouble::Overtaken) => Ok(()),
            Err(Trouble::Runtime(error)) => Err(self.failed(what, &error)),
            Err(Trouble::Silent | Trouble::SourceAway | Trouble::SourceGone) => {
                self.memory = self.memory.after_failure();
                Err(Ending::Failed)
            }
        }
    }

    /// Where a step waits: for files of another server, not where those wait that are copied here.
    async fn class(
        &self,
        step: Step,
        snapshot: Option<&Snapshot>,
    ) -> Result<Option<Class>, gantry_store::Error> {
        let class = Class::of(step, snapshot.is_some());
        if class != Some(Class::Filling) {
            return Ok(class);
        }
        let comes = if let Some(snapshot) = snapshot {
            self.shared.store.origin_of_snapshot(snapshot.id).await?.is_some()
        } else if let Step::Copy(from) | Step::Refill(from) = step {
            self.comes_from_another(from).await?
        } else {
            false
        };
        Ok(if comes { Some(Class::Transfer) } else { class })
    }

    async fn turn(&self, class: Class, seq: u64) -> Turn {
        let queue = match class {
            Class::Creation => &self.shared.creations,
            Class::Filling => &self.shared.fillings,
            Class::Transfer => &self.shared.transfers,
            Class::Other => &self.shared.others,
        };
        if let Ok(permit) = Arc::clone(queue).try_acquire_owned() {
            return Turn::Free(permit);
        }
        tokio::select! {
            biased;
            () = self.shared.shutdown.cancelled() => Turn::Interrupted,
            permit = Arc::clone(queue).acquire_owned() => {
                permit.map_or(Turn::Interrupted, Turn::Taken)
            }
            () = self.overtaken(seq) => Turn::Overtaken,
        }
    }

    /// Does one step; `None` when the pass goes on.
    async fn act(
        &mut self,
        step: Step,
        container: &Container,
    ) -> Result<Option<Ending>, gantry_store::Error> {
        let runtime = &self.shared.runtime;
        let config = &self.shared.config;
        let timeout = config.call_timeout;
        let seq = container.wish_seq;
        let done = match step {
            Step::Nothing | Step::Record(_) => Ok(()),
            Step::Create => {
                let order = self.order(container).await?;
                self.call(seq, timeout * 10, runtime.ensure_created(&order)).await
            }
            Step::Copy(from) => self.copy(container, from).await?,
            Step::Refill(from) => self.refill(container, from).await?,
            Step::Start => {
                let order = self.order(container).await?;
                let started = self.call(seq, timeout, runtime.ensure_running(&order)).await;
                match started {
                    Ok(running) => {
                        let look = self.look(Some(running.address));
                        let status = Finding::Started.apply(container, &look);
                        self.write(container, Finding::Started.cause(), status).await?;
                        Ok(())
                    }
                    Err(trouble) => Err(trouble),
                }
            }
            Step::Adopt => self.adopt(container).await?,
            Step::Stop(manner) => {
                let grace = match manner {
                    Stop::Ordered if self.memory.attempts == 0 => config.stop_grace,
                    // Asking did not help before.
                    Stop::Ordered | Stop::Forced => Duration::ZERO,
                };
                let stopping = runtime.ensure_stopped(self.id, grace);
                self.call(seq, timeout + grace, stopping).await
            }
            Step::Pause => self.call(seq, timeout, runtime.ensure_paused(self.id)).await,
            Step::Resume => self.call(seq, timeout, runtime.ensure_resumed(self.id)).await,
            Step::Sweep => self.call(seq, timeout, runtime.ensure_deleted(self.id)).await,
            Step::Delete => match self.call(seq, timeout, runtime.ensure_deleted(self.id)).await {
                Ok(()) => {
                    let now_ms = self.shared.clock.now_ms();
                    return match self.shared.store.remove_container(self.id, now_ms).await {
                        Ok(()) | Err(gantry_store::Error::NotFound) => Ok(Some(Ending::Settled)),
                        Err(error) => Err(error),
                    };
                }
                Err(trouble) => Err(trouble),
            },
        };
        match done {
            Ok(()) => {
                self.memory = self.memory.after_success();
                Ok(None)
            }
            Err(Trouble::Overtaken) => Ok(None),
            Err(Trouble::Silent) => self.trouble(step, container, true, "it took too long").await,
            Err(Trouble::SourceAway) => self.trouble(step, container, true, SOURCE_AWAY).await,
            Err(Trouble::SourceGone) => self.trouble(step, container, false, SOURCE_GONE).await,
            Err(Trouble::Runtime(gantry_runtime::Error::GivenUp { .. })) => {
                Ok(Some(self.put_off()))
            }
            Err(Trouble::Runtime(error)) => {
                let chain = Chain(&error).to_string();
                tracing::warn!(container = %self.id, ?step, error = chain, "a step failed");
                self.trouble(step, container, error.is_retryable(), &error.reason()).await
            }
        }
    }

    /// Gives a container that ran before anybody wanted it what its owner has set, and records that it is
    /// theirs.
    async fn adopt(
        &self,
        container: &Container,
    ) -> Result<Result<(), Trouble>, gantry_store::Error> {
        let (seq, timeout) = (container.wish_seq, self.shared.config.call_timeout);
        let (runtime, spec) = (&self.shared.runtime, &container.spec);
        let name = hostname(spec.name.as_str());
        if let Err(trouble) = self.call(seq, timeout, runtime.ensure_hostname(self.id, &name)).await
        {
            return Ok(Err(trouble));
        }
        let variables = runtime.ensure_environment(self.id, spec.environment.vars());
        let brought = self.call(seq, timeout, variables).await;
        let noted = self.note_environment(container, &brought);
        if brought.is_err() {
            noted.await?;
            return Ok(brought);
        }
        let status = Finding::Claimed.apply(container, &self.look(None));
        // One flush of the disk for both; the note of this version comes first.
        let written = self.write(container, Finding::Claimed.cause(), status);
        let (noted, written) = tokio::join!(biased; noted, written);
        noted.and(written).map(Ok)
    }

    /// Notes what came of bringing variables into the container.
    async fn note_environment(
        &self,
        container: &Container,
        done: &Result<(), Trouble>,
    ) -> Result<(), gantry_store::Error> {
        let failure = match done {
            Ok(()) => None,
            Err(
                Trouble::Overtaken
                // It has just ended: there was nothing to bring them into.
                | Trouble::Runtime(gantry_runtime::Error::NotRunning { .. }),
            ) => return Ok(()),
            Err(Trouble::Silent | Trouble::SourceAway | Trouble::SourceGone) => Some("it took too long".to_owned()),
            Err(Trouble::Runtime(error)) => Some(error.reason()),
        };
        let now_ms = self.shared.clock.now_ms();
        self.shared.store.note_environment(container, failure.as_deref(), now_ms).await
    }

    /// Waits for the runtime, but not longer than it may take, and not longer than the wish stands.
    pub(super) async fn call<T>(
        &self,
        seq: u64,
        timeout: Duration,
        call: impl Future<Output = gantry_runtime::Result<T>>,
    ) -> Result<T, Trouble> {
        tokio::select! {
            answer = tokio::time::timeout(timeout, call) => match answer {
                Ok(answer) => answer.map_err(Trouble::Runtime),
                Err(_elapsed) => Err(Trouble::Silent),
            },
            () = self.overtaken(seq) => Err(Trouble::Overtaken),
        }
    }

    /// Ends when the owner wishes something else. A store that does not answer ends nothing.
    async fn overtaken(&self, seq: u64) {
        loop {
            self.nudge.notified().await;
            match self.shared.store.container(self.id).await {
                Ok(Some(container)) if container.wish_seq == seq => {}
                Ok(_) => return,
                Err(_unknown) => {}
            }
        }
    }

    fn failed(&mut self, what: &str, error: &gantry_runtime::Error) -> Ending {
        let error = Chain(error).to_string();
        tracing::warn!(container = %self.id, what, error, "the runtime did not answer a pass");
        self.memory = self.memory.after_failure();
        Ending::Failed
    }

    /// The step at hand gave way to something else. That is no attempt of it, however often it happens.
    pub(super) fn put_off(&mut self) -> Ending {
        tracing::debug!(container = %self.id, "a step was put off");
        self.memory = self.memory.after_failure();
        Ending::Failed
    }

    /// Notes that the step at hand has failed; says whether it is time to give it up.
    pub(super) fn has_failed_too_often(&mut self) -> bool {
        self.memory = self.memory.after_failure();
        self.memory.attempts = self.memory.attempts.saturating_add(1);
        self.memory.attempts >= self.shared.config.attempts_max
    }

    /// A step failed: try again later, or give the wish up where that is a state of its own.
    async fn trouble(
        &mut self,
        step: Step,
        container: &Container,
        retryable: bool,
        reason: &str,
    ) -> Result<Option<Ending>, gantry_store::Error> {
        let exhausted = self.has_failed_too_often();
        if retryable && !exhausted {
            return Ok(Some(Ending::Failed));
        }
        let mut status = container.status.clone();
        status.why = Some(reason.to_owned());
        match step {
            Step::Create | Step::Copy(_) | Step::Refill(_) | Step::Start | Step::Adopt => {
                // What has all files of a copy keeps them: their source may be gone.
                let is_made = matches!(step, Step::Create | Step::Copy(_));
                let is_void = is_made || (step == Step::Start && container.source.is_none());
                if status.generation == Generation(0) && is_void {
                    self.clear(container.wish_seq).await;
                }
                status.phase = status.phase.lost();
                status.address = None;
                status.started_at_ms = None;
                status.fill = None;
                status.done_seq = container.wish_seq;
                self.write(container, BY_RECONCILER, status).await?;
                self.memory = self.memory.after_success();
                Ok(None)
            }
            // It does what it did before, and the record says so.
            Step::Pause | Step::Resume if exhausted => {
                status.phase = if step == Step::Pause { Phase::Running } else { Phase::Paused };
                status.done_seq = container.wish_seq;
                self.write(container, BY_RECONCILER, status).await?;
                self.memory = self.memory.after_success();
                Ok(None)
            }
            // A container that does not stop or go away is not stopped or gone: the wish stands,
            // and the owner may read why it takes so long.
            Step::Stop(_) | Step::Delete | Step::Sweep | Step::Pause | Step::Resume => {
                if exhausted {
                    self.write(container, BY_RECONCILER, status).await?;
                }
                Ok(Some(Ending::Failed))
            }
            Step::Nothing | Step::Record(_) => Ok(None),
        }
    }

    /// Removes what a creation that is given up has left, also what the runtime cannot see; should
    /// that fail, what it can see is swept later.
    async fn clear(&self, seq: u64) {
        let timeout = self.shared.config.call_timeout;
        let cleared = self.call(seq, timeout, self.shared.runtime.ensure_deleted(self.id)).await;
        if let Err(Trouble::Runtime(error)) = cleared {
            let error = Chain(&error).to_string();
            tracing::warn!(container = %self.id, error, "a failed creation was not cleared");
        }
    }

    /// Writes a new status. That the record has changed or gone meanwhile is no failure: the pass
    /// looks again.
    pub(super) async fn write(
        &self,
        container: &Container,
        cause: &str,
        status: ContainerStatus,
    ) -> Result<(), gantry_store::Error> {
        if status == container.status {
            return Ok(());
        }
        let now_ms = self.shared.clock.now_ms();
        let store = &self.shared.store;
        match store.set_status(self.id, container.version, &status, cause, now_ms).await {
            Ok(_) | Err(gantry_store::Error::Stale | gantry_store::Error::NotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(super) fn look(&self, address: Option<IpAddr>) -> Look<'_> {
        Look { address, boot_id: self.shared.runtime.boot_id(), now_ms: self.shared.clock.now_ms() }
    }
}

fn runs(seen: &Observed) -> bool {
    matches!(seen.state, State::Running | State::Paused)
}
