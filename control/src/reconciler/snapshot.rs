//! Makes the snapshots that owners have asked for.

use gantry_model::Chain;
use gantry_store::Snapshot;

use super::{
    decide::Step,
    pass::{Ending, Pass, Trouble},
};

impl Pass<'_> {
    /// Makes a snapshot and notes that it is there; `None` when the pass goes on, also because somebody
    /// wishes something else meanwhile: then it is begun again when that is done. One that cannot be
    /// made is given up and forgotten: who waits for it sees it vanish.
    pub(super) async fn make_snapshot(
        &mut self,
        snapshot: &Snapshot,
        seq: u64,
        exists: bool,
    ) -> Result<Option<Ending>, gantry_store::Error> {
        let store = &self.shared.store;
        let origin = store.origin_of_snapshot(snapshot.id).await?;
        if !exists && origin.is_none() {
            tracing::warn!(container = %self.id, "there is nothing to make a snapshot of");
            return self.give_up(snapshot).await;
        }
        let made = if let Some(origin) = origin {
            self.fetch_snapshot(seq, snapshot.data, origin).await
        } else {
            let making = self.shared.runtime.ensure_snapshot(self.id, snapshot.data);
            self.call(seq, self.filling_timeout(), making).await
        };
        let retryable = match made {
            Ok(info) => {
                let now_ms = self.shared.clock.now_ms();
                self.memory = self.memory.after_success();
                return match store.finish_snapshot(snapshot.id, info.bytes, now_ms).await {
                    Ok(()) | Err(gantry_store::Error::NotFound) => Ok(None),
                    Err(error) => Err(error),
                };
            }
            Err(Trouble::Overtaken) => return Ok(None),
            Err(Trouble::Silent) => {
                tracing::warn!(container = %self.id, "making a snapshot takes too long");
                true
            }
            Err(Trouble::SourceAway) => {
                tracing::warn!(container = %self.id, "the server that has a snapshot is not configured");
                true
            }
            Err(Trouble::SourceGone) => {
                tracing::warn!(container = %self.id, "a snapshot was deleted before it was fetched");
                false
            }
            Err(Trouble::Runtime(gantry_runtime::Error::GivenUp { .. })) => {
                return Ok(Some(self.put_off()));
            }
            Err(Trouble::Runtime(error)) => {
                let chain = Chain(&error).to_string();
                tracing::warn!(container = %self.id, error = chain, "a snapshot was not made");
                error.is_retryable()
            }
        };
        if retryable && !self.has_failed_too_often() {
            return Ok(Some(Ending::Failed));
        }
        self.give_up(snapshot).await
    }

    /// The snapshot that is to be made before this step. One that is fetched from another server waits until
    /// nothing else is left to do: there may be many, and the container's own files come first. With the
    /// container go those that are not there yet.
    pub(super) async fn due_snapshot(
        &self,
        step: Step,
    ) -> Result<Option<Snapshot>, gantry_store::Error> {
        let store = &self.shared.store;
        while let Some(snapshot) = store.unfinished_snapshot(self.id).await? {
            if store.origin_of_snapshot(snapshot.id).await?.is_none() {
                return Ok(Some(snapshot));
            }
            match step {
                Step::Nothing => return Ok(Some(snapshot)),
                Step::Delete => {}
                Step::Create
                | Step::Copy(_)
                | Step::Refill(_)
                | Step::Start
                | Step::Stop(_)
                | Step::Adopt
                | Step::Pause
                | Step::Resume
                | Step::Sweep
                | Step::Record(_) => return Ok(None),
            }
            match store.remove_snapshot(snapshot.id, true, self.shared.clock.now_ms()).await {
                Ok(()) | Err(gantry_store::Error::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    async fn give_up(
        &mut self,
        snapshot: &Snapshot,
    ) -> Result<Option<Ending>, gantry_store::Error> {
        let now_ms = self.shared.clock.now_ms();
        self.memory = self.memory.after_success();
        match self.shared.store.remove_snapshot(snapshot.id, true, now_ms).await {
            Ok(()) | Err(gantry_store::Error::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
