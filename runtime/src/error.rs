//! What can go wrong in a runtime, whether trying again helps, and what an owner may read of it.

use gantry_model::{ContainerId, SnapshotId};

use crate::Kvm;

/// A cause of any kind.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a runtime did not do what it was asked.
///
/// `Display` and the causes are for the operator's log: they may name paths and programs of the
/// host. The owner of a container reads [`Error::reason`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The order names an image that is not offered here.
    #[error("no image is named {name}")]
    UnknownImage {
        /// The name in the order.
        name: String,
    },
    /// The image could not be built or unpacked.
    #[error("the image {name} could not be built while {step}")]
    ImageBuild {
        /// The name of the image.
        name: String,
        /// What was being done, as "fetching packages"; no paths, no host names.
        step: String,
        /// Why it failed.
        #[source]
        source: BoxError,
    },
    /// The runtime does not hold this container.
    #[error("there is no container {id}")]
    NotFound {
        /// The container that was asked for.
        id: ContainerId,
    },
    /// The runtime does not keep this snapshot.
    #[error("there is no snapshot {snapshot}")]
    NoSnapshot {
        /// The snapshot that was asked for.
        snapshot: SnapshotId,
    },
    /// The call needs a running container, and this one does not run (or is frozen).
    #[error("the container {id} is not running")]
    NotRunning {
        /// The container that was asked for.
        id: ContainerId,
    },
    /// The call needs a container that is not frozen, and this one was paused.
    #[error("the container {id} is paused")]
    Paused {
        /// The container that was asked for.
        id: ContainerId,
    },
    /// The container does not have what sessions need inside: it was started before it could, or has taken
    /// it away.
    #[error("the container {id} has no place for sessions")]
    NoPlace {
        /// The container that was asked for.
        id: ContainerId,
    },
    /// The command cannot be run at all: no such program, not executable, no such directory.
    #[error("the command cannot be run: {message}")]
    Command {
        /// What is wrong, with names from inside the container only.
        message: String,
    },
    /// The host refuses us something that the runtime cannot do without.
    #[error("this process lacks what containers need: {}", missing.join(", "))]
    Denied {
        /// Capabilities and programs, by name.
        missing: Vec<String>,
    },
    /// The order wants `/dev/kvm`, which is not offered here.
    #[error("{0}")]
    NoKvm(Kvm),
    /// Every address of the container network is taken.
    #[error("the container network has no free address")]
    NoAddress,
    /// It took longer than it may.
    #[error("{what} took longer than {after_ms} ms")]
    Timeout {
        /// What was being done, as "stopping the container".
        what: &'static str,
        /// The time that it was given, in milliseconds.
        after_ms: u64,
    },
    /// Something that goes before it was asked for meanwhile; the call itself may be made again.
    #[error("{what} was given up for something that goes before it")]
    GivenUp {
        /// What was being done, as "copying the container".
        what: &'static str,
    },
    /// Something else failed.
    #[error("{what} failed")]
    Failed {
        /// What was being done, as "starting the container".
        what: &'static str,
        /// Why it failed.
        #[source]
        source: BoxError,
    },
}

impl Error {
    /// A failure while doing `what` (as "starting the container").
    pub fn failed(what: &'static str, source: impl Into<BoxError>) -> Self {
        Self::Failed { what, source: source.into() }
    }

    /// Whether the same call may succeed later without anyone changing the order.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::ImageBuild { .. }
            | Self::NoAddress
            | Self::Timeout { .. }
            | Self::GivenUp { .. }
            | Self::Failed { .. } => true,
            Self::UnknownImage { .. }
            | Self::NotFound { .. }
            | Self::NoSnapshot { .. }
            | Self::NotRunning { .. }
            | Self::Paused { .. }
            | Self::NoPlace { .. }
            | Self::Command { .. }
            | Self::NoKvm(_)
            | Self::Denied { .. } => false,
        }
    }

    /// One sentence without a full stop that the container's owner may read: no paths, programs or
    /// addresses of the host.
    pub fn reason(&self) -> String {
        match self {
            Self::UnknownImage { name } => format!("no image is named {name}"),
            Self::ImageBuild { name, step, .. } => {
                format!("the image {name} could not be built while {step}")
            }
            Self::NotFound { .. } => "the container does not exist on this server".to_owned(),
            Self::NoSnapshot { .. } => "the snapshot does not exist on this server".to_owned(),
            Self::NotRunning { .. } => "the container is not running".to_owned(),
            Self::Paused { .. } => "the container is paused".to_owned(),
            Self::NoPlace { .. } => {
                "the container has to be stopped and started once before it can have sessions"
                    .to_owned()
            }
            Self::Command { message } => format!("the command cannot be run: {message}"),
            Self::Denied { .. } => "this server is not set up to run containers".to_owned(),
            Self::NoKvm(why) => why.to_string(),
            Self::NoAddress => "this server has no free address for the container".to_owned(),
            Self::Timeout { what, .. } => format!("{what} took too long"),
            Self::GivenUp { what } => format!("{what} was given up"),
            Self::Failed { what, .. } => format!("{what} failed"),
        }
    }
}
