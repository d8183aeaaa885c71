//! The environment variables of a container, one by one and while it runs.

use std::{collections::BTreeMap, time::Duration};

use gantry_model::{
    Chain, ContainerId, FieldError, Phase,
    container::{Environment, KeyFault},
    project::Level,
};
use gantry_store::Container;

use crate::{
    actor::Actor,
    controller::{CAS_ATTEMPTS, Controller},
    error::{During, Error, Result, Thing},
    permissions::Leaf,
};

/// How long a write waits for the container to have its variables; after that the reconciler goes on.
const SYNC_TIMEOUT: Duration = Duration::from_secs(5);

/// The variables of a container that were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvironmentView {
    /// The container, with its variables and how far they have come.
    pub container: Container,
    /// Whether commands and logins that begin now have them; otherwise they will in a moment.
    pub synced: bool,
}

impl Controller {
    /// A container whose variables somebody wants to see.
    pub async fn environment(&self, actor: &Actor, id: ContainerId) -> Result<Container> {
        actor.require(Leaf::ContainersRead)?;
        self.container_for(actor, id, Level::Read).await
    }

    /// Sets variables of a container, whatever it does now; those that are not named stay. Processes
    /// that run already keep what they have.
    pub async fn set_variables(
        &self,
        actor: &Actor,
        id: ContainerId,
        vars: BTreeMap<String, String>,
    ) -> Result<EnvironmentView> {
        let wrong = vars.iter().filter_map(|(key, value)| Environment::check(key, key, value));
        let wrong: Vec<FieldError> = wrong.collect();
        if !wrong.is_empty() {
            return Err(Error::Invalid(wrong));
        }
        self.change_variables(actor, id, |present| present.extend(vars.clone())).await
    }

    /// Removes a variable of a container; one that is not there is removed already.
    pub async fn remove_variable(
        &self,
        actor: &Actor,
        id: ContainerId,
        key: &str,
    ) -> Result<EnvironmentView> {
        if let Some(fault) = KeyFault::of(key) {
            return Err(Error::invalid(key, fault.rule()));
        }
        self.change_variables(actor, id, |present| drop(present.remove(key))).await
    }

    async fn change_variables(
        &self,
        actor: &Actor,
        id: ContainerId,
        change: impl Fn(&mut BTreeMap<String, String>) + Send + Sync,
    ) -> Result<EnvironmentView> {
        actor.require(Leaf::ContainersUpdate)?;
        for _ in 0..CAS_ATTEMPTS {
            let container = self.container_for(actor, id, Level::Edit).await?;
            if container.status.phase == Phase::Deleting {
                return Err(Error::Deleting);
            }
            let mut vars = container.spec.environment.vars().clone();
            change(&mut vars);
            let environment =
                Environment::parse("environment_vars", vars).map_err(Error::Invalid)?;
            if environment == container.spec.environment {
                return self.synchronised(container).await;
            }
            let mut spec = container.spec.clone();
            spec.environment = environment;
            let updated =
                self.store().update_spec(id, container.version, &spec, self.now_ms()).await;
            match updated {
                Ok(container) => return self.synchronised(container).await,
                Err(gantry_store::Error::Stale) => {}
                Err(error) => return Err(Error::of_write(error, Thing::Container, During::Update)),
            }
        }
        Err(Error::Conflict)
    }

    /// Brings the variables of the record into the container. The reconciler does so as well, and again
    /// after a failure; doing it here lets the client know.
    async fn synchronised(&self, written: Container) -> Result<EnvironmentView> {
        let synced = tokio::time::timeout(SYNC_TIMEOUT, self.synchronise(written.clone())).await;
        let now = self.store().container(written.id).await?;
        // What was written is the answer, whatever others have written since.
        let container = match now {
            Some(now) if now.spec.environment == written.spec.environment => now,
            Some(_) | None => written,
        };
        Ok(EnvironmentView { container, synced: synced.unwrap_or(false) })
    }

    async fn synchronise(&self, mut container: Container) -> bool {
        let id = container.id;
        for _ in 0..CAS_ATTEMPTS {
            match container.status.phase {
                Phase::Running | Phase::Paused => {}
                // Nothing in it runs, and its next start has them.
                Phase::Stopping | Phase::Stopped | Phase::Failed | Phase::Deleting => return true,
                // The start under way may have begun with others.
                Phase::Creating | Phase::Copying | Phase::Claiming | Phase::Starting => {
                    return false;
                }
            }
            // Where its server is away, it has them when that is back.
            let Some(runtime) = self.inner.servers.runtime(container.server) else { return false };
            let env = container.spec.environment.vars();
            let brought = runtime.ensure_environment(id, env).await;
            let failure = brought.as_ref().err().map(gantry_runtime::Error::reason);
            let noted =
                self.store().note_environment(&container, failure.as_deref(), self.now_ms());
            if let Err(error) = noted.await {
                let error = Chain(&error).to_string();
                tracing::warn!(container = %id, error, "what came of its variables is not noted");
            }
            if let Err(error) = brought {
                let error = Chain(&error).to_string();
                tracing::warn!(container = %id, error, "changed variables have not reached it yet");
                return false;
            }
            // Another write may have come first, and its variables must be what stays.
            match self.store().container(id).await {
                Ok(Some(now)) if now.spec.environment != container.spec.environment => {
                    container = now;
                }
                Ok(_) => return true,
                Err(_unknown) => return false,
            }
        }
        false
    }
}
