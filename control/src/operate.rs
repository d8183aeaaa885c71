//! The six operations on a container that exists.

use std::{fmt, time::Duration};

use gantry_model::{ContainerId, Phase, Refused, Wish, project::Level};
use gantry_store::Container;

use crate::{
    actor::Actor,
    containers::ContainerView,
    controller::{CAS_ATTEMPTS, Controller},
    error::{During, Error, Result, Thing},
    permissions::Leaf,
    wait::Condition,
};

/// Status logs name this as the cause of what a client asked for.
pub(crate) const BY_CLIENT: &str = "manual_operation";

/// What can be asked of a container that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Start its init.
    Start,
    /// Ask its init to end, and kill it when its time is over.
    Stop,
    /// Kill it.
    ForceStop,
    /// Stop it and start it again.
    Restart,
    /// Freeze it.
    Pause,
    /// Thaw it.
    Resume,
}

impl Operation {
    /// Every operation.
    pub const ALL: [Self; 6] =
        [Self::Start, Self::Stop, Self::ForceStop, Self::Restart, Self::Pause, Self::Resume];

    /// The word that the API uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::ForceStop => "force-stop",
            Self::Restart => "restart",
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }

    /// The operation with this word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|operation| operation.as_str() == word)
    }

    /// What the owner then wants.
    const fn wish(self) -> Wish {
        match self {
            Self::Start | Self::Restart | Self::Resume => Wish::Running,
            Self::Stop => Wish::Stopped,
            Self::ForceStop => Wish::ForceStopped,
            Self::Pause => Wish::Paused,
        }
    }

    const fn leaf(self) -> Leaf {
        match self {
            Self::Start | Self::Resume => Leaf::ContainersStart,
            Self::Stop | Self::ForceStop | Self::Pause => Leaf::ContainersStop,
            Self::Restart => Leaf::ContainersRestart,
        }
    }

    fn apply(self, phase: Phase) -> Result<Phase, Refused> {
        match self {
            Self::Start => phase.start(),
            Self::Stop | Self::ForceStop => phase.stop(),
            Self::Restart => phase.restart(),
            Self::Pause => phase.pause(),
            Self::Resume => phase.resume(),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An operation that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operated {
    /// What was asked.
    pub operation: Operation,
    /// The container after it.
    pub container: ContainerView,
    /// Whether it is done: true only when waited for and come true.
    pub done: bool,
}

/// What an operation means where a container stands.
enum Step {
    /// Record the wish and this phase.
    Wish(Phase),
    /// The same wish is under way.
    UnderWay,
    /// Nothing to do: it is so already.
    AlreadyThere,
}

impl Controller {
    /// Asks for an operation. The wish is recorded when this returns; with `wait`, it returns when
    /// the wish has come true or failed, or when that time is over.
    ///
    /// # Errors
    /// [`Error::AlreadyThere`] when the container is in the wanted state, [`Error::Refused`] when
    /// its phase does not allow the operation.
    pub async fn operate(
        &self,
        actor: &Actor,
        id: ContainerId,
        operation: Operation,
        wait: Option<Duration>,
    ) -> Result<Operated> {
        actor.require(operation.leaf())?;
        let container = self.record_wish(Some(actor), id, operation, BY_CLIENT).await?;
        let view = self.view(container).await?;
        let Some(timeout) = wait else {
            return Ok(Operated { operation, container: view, done: false });
        };
        let condition = match operation.wish() {
            Wish::Running => Condition::Running,
            Wish::Paused => Condition::Paused,
            Wish::Stopped | Wish::ForceStopped => Condition::Stopped,
            Wish::Deleted => Condition::Deleted,
        };
        let waited = self.wait_until(Some(actor), id, condition, timeout).await?;
        let container = match waited.container {
            Some(container) => container,
            None => view,
        };
        Ok(Operated { operation, container, done: waited.met })
    }

    /// Records a wish of an actor, or of the installation itself when there is none.
    pub(crate) async fn record_wish(
        &self,
        actor: Option<&Actor>,
        id: ContainerId,
        operation: Operation,
        cause: &str,
    ) -> Result<Container> {
        for _ in 0..CAS_ATTEMPTS {
            let container = match actor {
                Some(actor) => self.container_for(actor, id, Level::Edit).await?,
                None => {
                    self.store().container(id).await?.ok_or(Error::NotFound(Thing::Container))?
                }
            };
            self.runtime_of(container.server).await?;
            let phase = match step(operation, &container)? {
                Step::Wish(phase) => phase,
                Step::UnderWay => return Ok(container),
                Step::AlreadyThere => {
                    return Err(Error::AlreadyThere {
                        operation,
                        project: container.project,
                        container: id,
                        phase: container.status.phase,
                    });
                }
            };
            let (version, wish) = (container.version, operation.wish());
            match self.store().set_wish(id, version, wish, phase, cause, self.now_ms()).await {
                Err(gantry_store::Error::Stale) => {}
                Err(error) => return Err(Error::of_write(error, Thing::Container, During::Update)),
                Ok(container) => return Ok(container),
            }
        }
        Err(Error::Conflict)
    }
}

fn step(operation: Operation, container: &Container) -> Result<Step> {
    let phase = container.status.phase;
    let next = operation.apply(phase).map_err(|refused| Error::Refused {
        operation,
        project: container.project,
        container: container.id,
        phase,
        refused,
    })?;
    if next != phase {
        return Ok(Step::Wish(next));
    }
    if container.status.done_seq >= container.wish_seq {
        return Ok(Step::AlreadyThere);
    }
    Ok(match (operation.wish(), container.wish) {
        // Who asks for an ordered stop while it is being killed gets what was asked before.
        (Wish::Stopped, Wish::ForceStopped) => Step::UnderWay,
        (new, old) if new == old => Step::UnderWay,
        // The phase fits by accident: a restart on its way down shall stay down, say.
        _ => Step::Wish(phase),
    })
}
