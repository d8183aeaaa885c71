//! Containers that sleep and wake by their traffic: a request wakes one, a time without any puts it
//! to sleep. Whether their owners want that is for the caller to know.

use std::time::Duration;

use gantry_model::{ContainerId, Phase, Wish};

use crate::{
    controller::Controller,
    error::{Error, Result},
    operate::Operation,
    wait::Condition,
};

/// Status logs name these as causes.
const BY_REQUEST: &str = "wake_on_request";
const BY_IDLENESS: &str = "idle";

/// Why a container does not run after it was woken.
#[derive(Debug, thiserror::Error)]
pub enum NotWoken {
    /// It is not one that sleeps: it is missing, has failed, or is being deleted.
    #[error("the container cannot be woken")]
    Unfit,
    /// It did not run in time; it may yet.
    #[error("the container did not wake in time")]
    TimedOut,
    /// It could not be asked.
    #[error("the container could not be asked to wake")]
    Failed(#[source] Error),
}

impl Controller {
    /// Resumes or starts a container because a request has come for it, and waits until it runs.
    ///
    /// Safe to call for one that is waking or awake. A container that its owner is stopping is left
    /// alone until it has stopped. Cancel-safe: the wish stays.
    pub async fn wake(&self, id: ContainerId, timeout: Duration) -> Result<(), NotWoken> {
        let found = self.store().container(id).await.map_err(Error::from);
        let container = found.map_err(NotWoken::Failed)?.ok_or(NotWoken::Unfit)?;
        let operation = match container.status.phase {
            Phase::Paused => Operation::Resume,
            Phase::Stopped => Operation::Start,
            Phase::Running | Phase::Starting | Phase::Creating => {
                return self.awake(id, timeout).await;
            }
            Phase::Copying
            | Phase::Claiming
            | Phase::Stopping
            | Phase::Failed
            | Phase::Deleting => return Err(NotWoken::Unfit),
        };
        match self.record_wish(None, id, operation, BY_REQUEST).await {
            // Somebody else was faster, in this direction or the other: what comes of it counts.
            Ok(_) | Err(Error::AlreadyThere { .. } | Error::Refused { .. }) => {}
            Err(error) => return Err(NotWoken::Failed(error)),
        }
        self.awake(id, timeout).await
    }

    async fn awake(&self, id: ContainerId, timeout: Duration) -> Result<(), NotWoken> {
        let waited = self.wait_until(None, id, Condition::Running, timeout).await;
        let waited = waited.map_err(NotWoken::Failed)?;
        if waited.met {
            return Ok(());
        }
        match waited.container {
            Some(container) if container.record.status.done_seq < container.record.wish_seq => {
                Err(NotWoken::TimedOut)
            }
            Some(_) | None => Err(NotWoken::Unfit),
        }
    }

    /// Pauses a container that runs and whose owner wants it to, because it has had no traffic.
    /// Returns whether that was recorded: not when it is on its way somewhere.
    pub async fn put_to_sleep(&self, id: ContainerId) -> Result<bool> {
        let Some(container) = self.store().container(id).await? else { return Ok(false) };
        let settled = container.status.done_seq >= container.wish_seq;
        let wanted = container.wish == Wish::Running && !container.prespawn;
        if container.status.phase != Phase::Running || !wanted || !settled {
            return Ok(false);
        }
        match self.record_wish(None, id, Operation::Pause, BY_IDLENESS).await {
            Ok(_) => Ok(true),
            Err(Error::AlreadyThere { .. } | Error::Refused { .. } | Error::NotFound(_)) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}
