//! The life of a container as a state machine: one exhaustive table of phase × event.
//!
//! Clients' events move a phase at once or are refused; the runtime's reports move it when they are
//! about the present. A report about the past never revives: `booted` while stopping changes
//! nothing.

use std::fmt;

/// Where a container stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Recorded; the runtime makes it and starts it.
    Creating,
    /// Being filled from another container or from a snapshot, then started if it ran before.
    Copying,
    /// A warm container being handed to its new owner.
    Claiming,
    /// Made; its init is being started.
    Starting,
    /// Its init runs.
    Running,
    /// Frozen; memory kept, no CPU.
    Paused,
    /// Its init was asked to end.
    Stopping,
    /// Made, not running.
    Stopped,
    /// Something went wrong; the record says what. Can be started again or deleted.
    Failed,
    /// Being removed; the record goes with it.
    Deleting,
}

/// What happens to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A client: make it (again).
    Create,
    /// A client: start it.
    Start,
    /// A client: stop it, with grace or by force.
    Stop,
    /// A client: stop it and start it again.
    Restart,
    /// A client: freeze it.
    Pause,
    /// A client: thaw it.
    Resume,
    /// A client: replace its files by those of a snapshot or of the container that it is a copy of.
    Refill,
    /// A client: remove it.
    Delete,
    /// The runtime: its init runs.
    Booted,
    /// The runtime: its files are the new ones, and it is to stay stopped.
    Filled,
    /// The runtime: its init ended.
    Exited,
    /// The runtime could not do what it was asked, or no longer can tell.
    Lost,
    /// The runtime no longer has it.
    Gone,
}

impl Event {
    /// Every event: the clients' first, then the runtime's reports.
    pub const ALL: [Self; 13] = [
        Self::Create,
        Self::Start,
        Self::Stop,
        Self::Restart,
        Self::Pause,
        Self::Resume,
        Self::Refill,
        Self::Delete,
        Self::Booted,
        Self::Filled,
        Self::Exited,
        Self::Lost,
        Self::Gone,
    ];
}

/// Why a client's event is refused in this phase; a conflict, not a mistake in the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is a container of this id already.
    #[error("the container exists already")]
    Exists,
    /// It has not run yet.
    #[error("the container is still being created")]
    Unfinished,
    /// Its files are being copied.
    #[error("the container's files are being copied")]
    CopyInProgress,
    /// It is starting; wait until it runs.
    #[error("the container is starting")]
    StartInProgress,
    /// It is stopping; wait until it has stopped.
    #[error("the container is stopping")]
    StopInProgress,
    /// It is frozen; resume it first.
    #[error("the container is paused; resume it first")]
    Paused,
    /// It is stopped; start it first.
    #[error("the container is stopped; start it first")]
    NotRunning,
    /// It failed; start it again or delete it.
    #[error("the container has failed; start it again or delete it")]
    Failed,
    /// It is being deleted.
    #[error("the container is being deleted")]
    Deleting,
}

/// What the runtime's report makes of a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The phase from now on.
    Phase(Phase),
    /// The record is removed: a deletion came to its end.
    Removed,
}

/// What the owner of a container last asked for; the reconciler makes it true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wish {
    /// It shall run.
    Running,
    /// It shall be frozen.
    Paused,
    /// It shall not run; its init gets time to end in order.
    Stopped,
    /// It shall not run; killed at once.
    ForceStopped,
    /// It shall not exist.
    Deleted,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Self; 10] = [
        Self::Creating,
        Self::Copying,
        Self::Claiming,
        Self::Starting,
        Self::Running,
        Self::Paused,
        Self::Stopping,
        Self::Stopped,
        Self::Failed,
        Self::Deleting,
    ];

    /// The word that records and logs use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Copying => "copying",
            Self::Claiming => "claiming",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Deleting => "deleting",
        }
    }

    /// The phase with this word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.as_str() == word)
    }

    /// The status that the API shows. Its clients know no `starting` and no `stopping`: a container
    /// that starts again still shows `stopped`, one that stops still shows `running`.
    pub const fn api_status(self) -> &'static str {
        match self {
            Self::Starting => "stopped",
            Self::Stopping => "running",
            Self::Creating
            | Self::Copying
            | Self::Claiming
            | Self::Running
            | Self::Paused
            | Self::Stopped
            | Self::Failed
            | Self::Deleting => self.as_str(),
        }
    }

    /// A client asks for a container to be made under an id that has one.
    pub fn create(self) -> Result<Self, Refused> {
        match self {
            Self::Creating => Ok(self),
            Self::Copying
            | Self::Claiming
            | Self::Starting
            | Self::Running
            | Self::Paused
            | Self::Stopping
            | Self::Stopped
            | Self::Failed => Err(Refused::Exists),
            Self::Deleting => Err(Refused::Deleting),
        }
    }

    /// A client starts it. Asking twice is the same wish; against a stop under way it is refused.
    pub fn start(self) -> Result<Self, Refused> {
        match self {
            Self::Stopped | Self::Failed => Ok(Self::Starting),
            Self::Creating | Self::Copying | Self::Claiming | Self::Starting | Self::Running => {
                Ok(self)
            }
            Self::Paused => Err(Refused::Paused),
            Self::Stopping => Err(Refused::StopInProgress),
            Self::Deleting => Err(Refused::Deleting),
        }
    }

    /// A client stops it.
    pub fn stop(self) -> Result<Self, Refused> {
        match self {
            Self::Creating | Self::Starting | Self::Running | Self::Paused => Ok(Self::Stopping),
            Self::Stopping | Self::Stopped => Ok(self),
            Self::Failed => Ok(Self::Stopped),
            Self::Copying => Err(Refused::CopyInProgress),
            Self::Claiming => Err(Refused::Unfinished),
            Self::Deleting => Err(Refused::Deleting),
        }
    }

    /// A client restarts it: it stops first, and the wish `Running` starts it again.
    pub fn restart(self) -> Result<Self, Refused> {
        match self {
            Self::Running => Ok(Self::Stopping),
            Self::Stopped | Self::Failed => Ok(Self::Starting),
            Self::Copying => Err(Refused::CopyInProgress),
            Self::Creating | Self::Claiming => Err(Refused::Unfinished),
            Self::Starting => Err(Refused::StartInProgress),
            Self::Paused => Err(Refused::Paused),
            Self::Stopping => Err(Refused::StopInProgress),
            Self::Deleting => Err(Refused::Deleting),
        }
    }

    /// A client freezes it.
    pub fn pause(self) -> Result<Self, Refused> {
        match self {
            Self::Running | Self::Paused => Ok(Self::Paused),
            Self::Copying => Err(Refused::CopyInProgress),
            Self::Creating | Self::Claiming => Err(Refused::Unfinished),
            Self::Starting => Err(Refused::StartInProgress),
            Self::Stopping => Err(Refused::StopInProgress),
            Self::Stopped => Err(Refused::NotRunning),
            Self::Failed => Err(Refused::Failed),
            Self::Deleting => Err(Refused::Deleting),
        }
    }

    /// A client thaws it.
    pub fn resume(self) -> Result<Self, Refused> {
        match self {
            Self::Paused | Self::Running => Ok(Self::Running),
            Self::Copying => Err(Refused::CopyInProgress),
            Self::Creating | Self::Claiming => Err(Refused::Unfinished),
            Self::Starting => Err(Refused::StartInProgress),
            Self::Stopping => Err(Refused::StopInProgress),
            Self::Stopped => Err(Refused::NotRunning),
            Self::Failed => Err(Refused::Failed),
            Self::Deleting => Err(Refused::Deleting),
        }
    }

    /// A client replaces its files.
    pub fn refill(self) -> Result<Self, Refused> {
        match self {
            Self::Running | Self::Paused | Self::Stopped | Self::Failed => Ok(Self::Copying),
            Self::Copying => Err(Refused::CopyInProgress),
            Self::Creating | Self::Claiming => Err(Refused::Unfinished),
            Self::Starting => Err(Refused::StartInProgress),
            Self::Stopping => Err(Refused::StopInProgress),
            Self::Deleting => Err(Refused::Deleting),
        }
    }

    /// A client removes it; possible in every phase.
    #[must_use]
    pub fn delete(self) -> Self {
        match self {
            Self::Creating
            | Self::Copying
            | Self::Claiming
            | Self::Starting
            | Self::Running
            | Self::Paused
            | Self::Stopping
            | Self::Stopped
            | Self::Failed
            | Self::Deleting => Self::Deleting,
        }
    }

    /// The runtime reports that its init runs.
    #[must_use]
    pub fn booted(self) -> Self {
        match self {
            Self::Creating | Self::Copying | Self::Claiming | Self::Starting => Self::Running,
            Self::Running
            | Self::Paused
            | Self::Stopping
            | Self::Stopped
            | Self::Failed
            | Self::Deleting => self,
        }
    }

    /// The runtime reports that its files are the new ones; it is to stay stopped.
    #[must_use]
    pub fn filled(self) -> Self {
        match self {
            Self::Copying => Self::Stopped,
            Self::Creating
            | Self::Claiming
            | Self::Starting
            | Self::Running
            | Self::Paused
            | Self::Stopping
            | Self::Stopped
            | Self::Failed
            | Self::Deleting => self,
        }
    }

    /// The runtime reports that its init ended: wanted while stopping, a failure elsewhere.
    #[must_use]
    pub fn exited(self) -> Self {
        match self {
            Self::Creating
            | Self::Copying
            | Self::Claiming
            | Self::Starting
            | Self::Running
            | Self::Paused => Self::Failed,
            Self::Stopping => Self::Stopped,
            Self::Stopped | Self::Failed | Self::Deleting => self,
        }
    }

    /// The runtime could not do what it was asked.
    #[must_use]
    pub fn lost(self) -> Self {
        self.exited()
    }

    /// The runtime does not have it any more.
    pub fn gone(self) -> Outcome {
        match self {
            Self::Creating
            | Self::Copying
            | Self::Claiming
            | Self::Starting
            | Self::Running
            | Self::Paused => Outcome::Phase(Self::Failed),
            Self::Stopping => Outcome::Phase(Self::Stopped),
            Self::Stopped | Self::Failed => Outcome::Phase(self),
            Self::Deleting => Outcome::Removed,
        }
    }

    /// The one table: what `event` makes of this phase.
    pub fn on(self, event: Event) -> Result<Outcome, Refused> {
        Ok(Outcome::Phase(match event {
            Event::Create => self.create()?,
            Event::Start => self.start()?,
            Event::Stop => self.stop()?,
            Event::Restart => self.restart()?,
            Event::Pause => self.pause()?,
            Event::Resume => self.resume()?,
            Event::Refill => self.refill()?,
            Event::Delete => self.delete(),
            Event::Booted => self.booted(),
            Event::Filled => self.filled(),
            Event::Exited => self.exited(),
            Event::Lost => self.lost(),
            Event::Gone => return Ok(self.gone()),
        }))
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Wish {
    /// Every wish.
    pub const ALL: [Self; 5] =
        [Self::Running, Self::Paused, Self::Stopped, Self::ForceStopped, Self::Deleted];

    /// The word that records and logs use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
            Self::ForceStopped => "force-stopped",
            Self::Deleted => "deleted",
        }
    }

    /// The wish with this word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|wish| wish.as_str() == word)
    }
}
