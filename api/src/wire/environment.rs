//! The environment variables of a container, and how far they have come.

use std::collections::BTreeMap;

use gantry_control as control;
use gantry_model::Phase;
use serde::Serialize;
use utoipa::ToSchema;

use super::Timestamp;

/// Of the words that the reference has for why variables do not arrive, the one that Gantry can vouch for.
const APPLY_FAILED: &str = "ENV_APPLY_FAILED";

/// Whether changed environment variables have reached the container.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EnvSync {
    /// Whether what begins in the container now may lack variables; never while nothing runs in it, because
    /// its next start has all of them.
    pending: bool,
    /// Counts the changes of the variables since the container was made.
    revision: u64,
    /// The revision that the container has; `null` before its first start.
    applied_revision: Option<u64>,
    /// When that was seen: after each change and each start.
    verified_at: Option<Timestamp>,
    /// When it was last tried; to about a minute while it keeps failing.
    attempted_at: Option<Timestamp>,
    /// `ENV_APPLY_FAILED` if the last attempt failed.
    last_error: Option<&'static str>,
    /// Why it failed, in words.
    last_error_message: Option<String>,
    /// Whether no further attempt is made: never, they are repeated until it is done.
    exhausted: bool,
}

/// All variables of a container.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Variables {
    environment_vars: BTreeMap<String, String>,
    /// Only after a write: whether commands and logins that begin now have them.
    #[serde(skip_serializing_if = "Option::is_none")]
    synced: Option<bool>,
    env_sync: EnvSync,
}

impl EnvSync {
    pub(super) fn new(container: &control::Container) -> Self {
        let sync = &container.environment_sync;
        let runs = match container.status.phase {
            Phase::Creating
            | Phase::Copying
            | Phase::Claiming
            | Phase::Starting
            | Phase::Running
            | Phase::Paused => true,
            Phase::Stopping | Phase::Stopped | Phase::Failed | Phase::Deleting => false,
        };
        Self {
            pending: runs && sync.is_pending(),
            revision: sync.revision,
            applied_revision: sync.applied,
            verified_at: sync.verified_at_ms.map(Timestamp),
            attempted_at: sync.attempted_at_ms.map(Timestamp),
            last_error: sync.last_error.is_some().then_some(APPLY_FAILED),
            last_error_message: sync.last_error.clone(),
            exhausted: false,
        }
    }
}

impl Variables {
    pub(crate) fn read(container: &control::Container) -> Self {
        Self {
            environment_vars: container.spec.environment.vars().clone(),
            synced: None,
            env_sync: EnvSync::new(container),
        }
    }

    pub(crate) fn written(view: &control::EnvironmentView) -> Self {
        Self { synced: Some(view.synced), ..Self::read(&view.container) }
    }
}
