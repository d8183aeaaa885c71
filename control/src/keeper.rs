//! Removes snapshots whose time is over, and what the runtime keeps of snapshots that are gone; tells of
//! aliases that end.

use std::time::Duration;

use futures_util::future;
use gantry_model::Chain;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::{controller::Controller, error::Result, servers::Served, shares::SOON_MS};

/// How often the keeper looks unasked.
const PERIOD: Duration = Duration::from_secs(30);
/// After a change of the store it waits this long for more of them.
const PAUSE: Duration = Duration::from_millis(250);
/// How long the runtime may take for one removal.
const REMOVAL_TIMEOUT: Duration = Duration::from_mins(3);

/// The task that gives back what snapshots take, and tells of the ends of aliases.
///
/// What it does not get done is done by the next one: a snapshot that is removed leaves a note in the
/// store, which goes when the runtime has removed its files.
pub struct SnapshotKeeper {
    control: Controller,
}

/// What is done apart from the rest, so that it waits for nothing else.
#[derive(Clone, Copy)]
enum Part<'s> {
    /// Whatever ends.
    Ends,
    /// What this server keeps of snapshots that are gone.
    Files(&'s Served),
}

impl std::fmt::Debug for SnapshotKeeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SnapshotKeeper").finish_non_exhaustive()
    }
}

impl SnapshotKeeper {
    /// Keeps the snapshots of `control`.
    pub fn new(control: Controller) -> Self {
        Self { control }
    }

    /// Works until `shutdown`. Each server has a turn of its own, so that one that hangs holds up nobody else.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut parts = vec![self.again_and_again(Part::Ends)];
        for served in self.control.servers_here().iter() {
            parts.push(self.again_and_again(Part::Files(served)));
        }
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            _ = future::join_all(parts) => {}
        }
    }

    /// Does its part every now and then, and after changes of the store, until the store is closed.
    async fn again_and_again(&self, part: Part<'_>) {
        let mut head = self.control.store().head();
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                changed = head.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    tokio::time::sleep(PAUSE).await;
                    head.mark_unchanged();
                }
            }
            let done = match part {
                Part::Ends => self.end().await,
                Part::Files(served) => self.remove_discarded(served).await,
            };
            if let Err(error) = done {
                let why = Chain(&error).to_string();
                tracing::warn!(error = why, "cannot look for what has ended");
            }
        }
    }

    /// Removes what is to be removed now, as far as it can; returns how many snapshots have ended and
    /// of how many the runtimes have removed the files.
    pub async fn look(&self) -> Result<(usize, usize)> {
        let ended = self.end().await?;
        let mut removals = Vec::new();
        for served in self.control.servers_here().iter() {
            removals.push(self.remove_discarded(served));
        }
        let removed = future::try_join_all(removals).await?;
        Ok((ended, removed.into_iter().sum()))
    }

    /// Removes the records of snapshots whose time is over, and tells of aliases; returns of how many.
    async fn end(&self) -> Result<usize> {
        let store = self.control.store();
        let now_ms = self.control.now_ms();
        if let Err(error) = store.tell_alias_ends(now_ms, now_ms.saturating_add(SOON_MS)).await {
            let error = Chain(&error).to_string();
            tracing::warn!(error, "cannot tell the ends of aliases");
        }
        let mut ended = 0;
        for id in store.ended_snapshots(now_ms).await? {
            match store.remove_snapshot(id, false, now_ms).await {
                Ok(()) => ended += 1,
                // It is made or used right now, or was removed: another look will show.
                Err(gantry_store::Error::SnapshotBusy | gantry_store::Error::NotFound) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(ended)
    }

    /// Removes what a server keeps of snapshots that are gone; returns of how many. A removal that takes too
    /// long ends its turn: the server may hang, and the next turn tries again.
    async fn remove_discarded(&self, served: &Served) -> Result<usize> {
        let store = self.control.store();
        let mut removed = 0;
        for data in store.discarded_snapshots(served.server.id).await? {
            let removal = served.runtime.ensure_snapshot_deleted(data);
            match tokio::time::timeout(REMOVAL_TIMEOUT, removal).await {
                Ok(Ok(())) => {
                    store.forget_discarded(data).await?;
                    removed += 1;
                }
                Ok(Err(error)) => {
                    let error = Chain(&error).to_string();
                    tracing::warn!(snapshot = %data, error, "the files of a snapshot stay for now");
                }
                Err(_elapsed) => {
                    tracing::warn!(
                        server = %served.server.name,
                        snapshot = %data,
                        "removing the files of a snapshot takes too long"
                    );
                    break;
                }
            }
        }
        Ok(removed)
    }
}
