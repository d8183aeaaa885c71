//! Containers that exist without a record.
//!
//! A record is written before its container is made and removed after it has gone, so there are
//! only two kinds. One is the rest of a creation that a crash or a deletion overtook; it is removed.
//! The other belongs to records that this store never had, because somebody started with an empty or
//! an older store; removing those would destroy what the right store still knows, so they are left.
//! An id that the store's feed has named is of the first kind.

use std::collections::{HashSet, VecDeque};

use gantry_model::{Chain, ContainerId};
use gantry_store::{Changes, Revision, Store};

use super::pass::{Ending, Shared};

/// How many ids are remembered, newest first; crashes leave rests of the newest ones.
const IDS_MAX: u32 = 10_000;

#[derive(Default)]
pub(super) struct Orphans {
    /// Ids that once had a record here.
    recorded: HashSet<ContainerId>,
    order: VecDeque<ContainerId>,
    /// Those without a record at the last comparison.
    before: HashSet<ContainerId>,
}

impl Orphans {
    /// Remembers whom the feed has named lately.
    pub(super) async fn remember_history(&mut self, store: &Store, head: Revision) {
        let mut after = Revision(head.0.saturating_sub(u64::from(IDS_MAX)));
        while after < head {
            match store.changes(after, 1000).await {
                Ok(Changes::Since { changes, .. }) => {
                    let Some(last) = changes.last() else { return };
                    after = last.revision;
                    for change in &changes {
                        self.remember(change.container);
                    }
                }
                // Half as far back may still be there; at the head, everything is.
                Ok(Changes::Compacted) => {
                    after = Revision(after.0 + (head.0 - after.0).div_ceil(2));
                }
                Ok(Changes::NewEpoch) => return,
                Err(error) => {
                    tracing::warn!(%error, "the store's history cannot be read");
                    return;
                }
            }
        }
    }

    pub(super) fn remember(&mut self, id: ContainerId) {
        if !self.recorded.insert(id) {
            return;
        }
        self.order.push_back(id);
        if self.order.len() > usize::try_from(IDS_MAX).unwrap_or(usize::MAX)
            && let Some(oldest) = self.order.pop_front()
        {
            self.recorded.remove(&oldest);
        }
    }

    /// Takes in what a comparison found without a record; returns those to be removed: found twice
    /// in a row, and recorded once.
    pub(super) fn seen(&mut self, strays: HashSet<ContainerId>) -> Vec<ContainerId> {
        let twice: Vec<ContainerId> = strays.intersection(&self.before).copied().collect();
        for id in strays.difference(&self.before) {
            if !self.recorded.contains(id) {
                tracing::warn!(container = %id, "a container of the runtime has no record here; \
                    it is left alone");
            }
        }
        self.before = strays;
        twice.into_iter().filter(|id| self.recorded.contains(id)).collect()
    }
}

/// Removes a container without a record, if it still has none.
pub(super) async fn remove(shared: &Shared, id: ContainerId) -> Ending {
    match shared.store.container(id).await {
        Ok(None) => {}
        Ok(Some(_)) => return Ending::Settled,
        Err(error) => {
            tracing::warn!(container = %id, %error, "a container without a record was not removed");
            return Ending::Settled;
        }
    }
    tracing::info!(container = %id, "removing what an overtaken creation left behind");
    if let Err(error) = shared.runtime.ensure_deleted(id).await {
        // The next comparison finds it again.
        let error = Chain(&error).to_string();
        tracing::warn!(container = %id, error, "a container without a record was not removed");
    }
    Ending::Settled
}
