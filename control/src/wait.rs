//! Waiting for a container instead of asking again and again.

use std::time::Duration;

use gantry_model::{ContainerId, Phase, project::Level};
use gantry_store::Container;

use crate::{
    actor::Actor,
    containers::ContainerView,
    controller::Controller,
    error::{Error, Result, Thing},
    permissions::Leaf,
};

/// The longest wait, whatever is asked for.
const WAIT_MAX: Duration = Duration::from_mins(5);

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Condition {
    /// It runs.
    Running,
    /// It does not run, as was asked.
    Stopped,
    /// It is frozen.
    Paused,
    /// It is gone.
    Deleted,
    /// The last wish has come true or failed.
    Settled,
}

impl Condition {
    /// The condition with this word: `running`, `stopped`, `paused`, `deleted` or `settled`.
    pub fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "running" => Self::Running,
            "stopped" => Self::Stopped,
            "paused" => Self::Paused,
            "deleted" => Self::Deleted,
            "settled" => Self::Settled,
            _ => return None,
        })
    }

    /// Whether it holds; `None` while that is open.
    fn holds(self, container: Option<&Container>) -> Option<bool> {
        let Some(container) = container else { return Some(self == Self::Deleted) };
        let phase = container.status.phase;
        let settled = container.status.done_seq >= container.wish_seq;
        let wanted = match self {
            Self::Deleted => return None,
            Self::Settled => return settled.then_some(true),
            Self::Running => Phase::Running,
            Self::Stopped => Phase::Stopped,
            Self::Paused => Phase::Paused,
        };
        // A container that is being deleted comes back to nothing else; one that has settled
        // elsewhere needs another wish first.
        if phase == Phase::Deleting {
            return Some(false);
        }
        settled.then_some(phase == wanted)
    }
}

/// How a wait ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waited {
    /// The container as it was then; absent when it is gone.
    pub container: Option<ContainerView>,
    /// Whether the condition held. False when the time was over, or when the container settled in
    /// another state: then waiting longer would not have helped.
    pub met: bool,
}

impl Controller {
    /// Waits until the condition holds or cannot come true by waiting, at most `timeout` (and at
    /// most five minutes). Cancel-safe.
    pub async fn wait_for(
        &self,
        actor: &Actor,
        id: ContainerId,
        condition: Condition,
        timeout: Duration,
    ) -> Result<Waited> {
        actor.require(Leaf::ContainersRead)?;
        self.warm_or_not(actor, id, Level::Read).await?;
        self.wait_until(Some(actor), id, condition, timeout).await
    }

    /// The same for who was let in already, or for the installation itself. Whether an actor sees the
    /// container is looked at once more when the wait is over: much may have changed meanwhile.
    pub(crate) async fn wait_until(
        &self,
        actor: Option<&Actor>,
        id: ContainerId,
        condition: Condition,
        timeout: Duration,
    ) -> Result<Waited> {
        // Subscribed before the first look, so that no change falls between look and wait.
        let mut head = self.store().head();
        let deadline = tokio::time::Instant::now() + timeout.min(WAIT_MAX);
        loop {
            head.mark_unchanged();
            let container = self.store().container(id).await?;
            let verdict = condition.holds(container.as_ref());
            let leave = match verdict {
                Some(_) => true,
                None => match tokio::time::timeout_at(deadline, head.changed()).await {
                    Ok(changed) => {
                        changed.map_err(Error::store_closed)?;
                        false
                    }
                    Err(_elapsed) => true,
                },
            };
            if leave {
                if let (Some(actor), Some(container)) = (actor, &container) {
                    self.permit(actor, container, Thing::Container, Level::Read).await?;
                }
                let container = match container {
                    Some(container) => Some(self.view(container).await?),
                    None => None,
                };
                return Ok(Waited { container, met: verdict.unwrap_or(false) });
            }
        }
    }
}
