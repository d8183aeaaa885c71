//! What a container sees of others, in a pass of its own.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use gantry_model::{Chain, ContainerId, ShareId};
use gantry_store::Container;

use super::pass::{Ending, Pass, Shared};
use crate::shares::{Reached, SOON_MS, reached};

impl Pass<'_> {
    /// Has the runtime mount what is shared with a container that runs, and records what is missing.
    pub(super) async fn share(
        &mut self,
        container: &Container,
    ) -> Result<Result<(), Ending>, gantry_store::Error> {
        if container.prespawn {
            return Ok(Ok(()));
        }
        let store = &self.shared.store;
        let incoming = store.incoming_shares(self.id, container.project).await?;
        let now_ms = self.shared.clock.now_ms();
        let Reached { wanted, failures, .. } = reached(&incoming, container.server, now_ms);
        let (seq, timeout) = (container.wish_seq, self.shared.config.call_timeout);
        let runtime = Arc::clone(&self.shared.runtime);
        let done = self.call(seq, timeout, runtime.ensure_shares(self.id, &wanted)).await;
        let faults = match done {
            Ok(faults) => faults,
            Err(trouble) => return Ok(self.brought("mounting shares", Err(trouble))),
        };
        let faults = faults.into_iter().map(|(id, fault)| (id, fault.to_string()));
        let found: BTreeMap<ShareId, String> = failures.into_iter().chain(faults).collect();
        let noted = incoming.into_iter().filter_map(|i| Some((i.share.id, i.failure?)));
        if found != noted.collect() {
            let found = found.into_iter().collect();
            self.shared.store.note_share_failures(self.id, found, now_ms).await?;
        }
        Ok(Ok(()))
    }
}

/// How long it is until the next share ends; nothing if none does, or if that cannot be known now.
pub(super) async fn next_end(shared: &Shared) -> Option<Duration> {
    let now_ms = shared.clock.now_ms();
    match shared.store.next_share_end(now_ms).await {
        Ok(at_ms) => u64::try_from(at_ms?.saturating_sub(now_ms)).ok().map(Duration::from_millis),
        Err(error) => {
            let error = Chain(&error).to_string();
            tracing::warn!(error, "the ends of shares cannot be read");
            None
        }
    }
}

/// Ends the shares whose time is over, and names the containers that lack one which they should have: what
/// it waits for may have come.
pub(super) async fn due(shared: &Shared) -> Vec<ContainerId> {
    let now_ms = shared.clock.now_ms();
    let soon_ms = now_ms.saturating_add(SOON_MS);
    if let Err(error) = shared.store.expire_shares(now_ms, soon_ms).await {
        let error = Chain(&error).to_string();
        tracing::warn!(error, "the shares whose time is over were not removed");
    }
    match shared.store.containers_lacking_shares(shared.server).await {
        Ok(lacking) => lacking,
        Err(error) => {
            let error = Chain(&error).to_string();
            tracing::warn!(error, "the shares that are missing cannot be read");
            Vec::new()
        }
    }
}
