//! The way into containers for people.

use std::os::fd::OwnedFd;

use gantry_model::{ContainerId, Phase, project::Level};
use gantry_runtime::Error as Runtime;

use crate::{
    actor::Actor,
    controller::Controller,
    error::{Error, Result},
    permissions::Leaf,
};

/// Why there is no way into a container.
#[derive(Debug, thiserror::Error)]
pub enum NoEntry {
    /// It does not run, or is gone.
    #[error("the container does not run")]
    NotRunning,
    /// It is paused.
    #[error("the container is paused")]
    Paused,
    /// It was started by an earlier version, without the place that the helper needs.
    #[error("the container has to be stopped and started once")]
    NoPlace,
    /// The store failed, or the server is away.
    #[error("the container cannot be looked up")]
    Store(#[source] Error),
    /// The runtime failed.
    #[error("the container cannot be entered")]
    Runtime(#[source] Runtime),
}

impl Controller {
    /// Which start of a container it is that the actor may run commands in now.
    ///
    /// # Errors
    /// [`Error::NotRunning`] if it does not run.
    pub async fn may_enter(&self, actor: &Actor, id: ContainerId) -> Result<u64> {
        actor.require(Leaf::ContainersExec)?;
        let container = self.container_for(actor, id, Level::Edit).await?;
        let status = &container.status;
        match status.phase {
            Phase::Running => Ok(status.generation.0),
            phase @ (Phase::Paused
            | Phase::Creating
            | Phase::Copying
            | Phase::Claiming
            | Phase::Starting
            | Phase::Stopping
            | Phase::Stopped
            | Phase::Failed
            | Phase::Deleting) => Err(Error::NotRunning { phase }),
        }
    }

    /// Starts the session helper inside a container and gives the connection to it (crate `gantry-session`).
    ///
    /// Whoever asks has made sure that the client may enter.
    pub async fn enter(&self, id: ContainerId) -> Result<OwnedFd, NoEntry> {
        let found = self.store().container(id).await.map_err(Error::from);
        let container = found.map_err(NoEntry::Store)?.ok_or(NoEntry::NotRunning)?;
        match container.status.phase {
            Phase::Running => {}
            Phase::Paused => return Err(NoEntry::Paused),
            Phase::Creating
            | Phase::Copying
            | Phase::Claiming
            | Phase::Starting
            | Phase::Stopping
            | Phase::Stopped
            | Phase::Failed
            | Phase::Deleting => return Err(NoEntry::NotRunning),
        }
        let runtime = self.runtime_of(container.server).await.map_err(NoEntry::Store)?;
        runtime.session(id).await.map_err(|error| match error {
            Runtime::NotFound { .. } | Runtime::NotRunning { .. } => NoEntry::NotRunning,
            Runtime::Paused { .. } => NoEntry::Paused,
            Runtime::NoPlace { .. } => NoEntry::NoPlace,
            Runtime::UnknownImage { .. }
            | Runtime::ImageBuild { .. }
            | Runtime::NoSnapshot { .. }
            | Runtime::Command { .. }
            | Runtime::Denied { .. }
            | Runtime::NoKvm(_)
            | Runtime::NoAddress
            | Runtime::Timeout { .. }
            | Runtime::GivenUp { .. }
            | Runtime::Failed { .. } => NoEntry::Runtime(error),
        })
    }

    /// What the host key of SSH is made from: 32 octets that stay the same.
    pub fn host_key_seed(&self) -> &[u8; 32] {
        &self.inner.host_key_seed
    }
}
