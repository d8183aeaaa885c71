//! The warm pool: containers made before they are wanted, and creations that claim one of them.

use std::time::Duration;

use gantry_model::{FieldError, container::ContainerName};
use gantry_store::{Claim, Container, PrespawnMax};

use super::{ContainerView, NewContainer};
use crate::{
    actor::Actor,
    controller::Controller,
    error::{During, Error, Result, Thing},
    random,
    wait::Condition,
};

/// How long the answer to a claim waits for the container to have its new name and variables; it mostly
/// needs some milliseconds. If that takes longer, the answer says `claiming`.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(5);

/// Refuses what a container gets from the creation that claims it.
pub(super) fn check_warm(new: &NewContainer) -> Result<()> {
    let errors: Vec<FieldError> = [
        (new.name.as_deref().is_some_and(|name| name != "rand"), "name"),
        (new.ssh_public_key.is_some(), "ssh_public_key"),
        (new.ssh_forwarding.is_some(), "ssh_forwarding"),
        (new.comment.is_some(), "comment"),
        (!new.environment_vars.is_empty(), "environment_vars"),
        (new.bypass_prespawn == Some(true), "bypass_prespawn"),
    ]
    .into_iter()
    .filter(|(is_given, _)| *is_given)
    .map(|(_, field)| {
        FieldError::new(
            field,
            "belongs to the creation that claims the container, without prespawn",
        )
    })
    .collect();
    if errors.is_empty() { Ok(()) } else { Err(Error::Invalid(errors)) }
}

impl Controller {
    /// Records a container that waits for a creation like it.
    pub(super) async fn create_warm(&self, mut container: Container) -> Result<ContainerView> {
        let limits = self.limits();
        let max = PrespawnMax {
            owner: limits.prespawned_per_user_max,
            server: limits.prespawned_per_server_max,
        };
        container.prespawn = true;
        // Nobody could start it after a reboot of the host.
        container.spec.autostart = true;
        container.spec.name = ContainerName::of_prespawned(container.id);
        let stored = self.store().create_prespawned(&container, max).await;
        let stored =
            stored.map_err(|error| Error::of_write(error, Thing::Project, During::Create))?;
        self.view(stored).await
    }

    /// Gives the wanted container's name, project and the rest to one that waits, and waits until it
    /// answers by them. `None` when none waits that is like it.
    pub(super) async fn claim(
        &self,
        actor: &Actor,
        wanted: &Container,
    ) -> Result<Option<ContainerView>, ClaimError> {
        let realm = actor.realm_filter(None).map_err(|error| ClaimError::Other(error.into()))?;
        let refill = random::id().map_err(ClaimError::Other)?;
        let claim = Claim { wanted: wanted.clone(), realm, refill };
        let Some(claimed) = self.store().claim(&claim).await.map_err(ClaimError::Store)? else {
            return Ok(None);
        };
        self.claimed(actor, claimed).await.map(Some).map_err(ClaimError::Other)
    }

    /// The claim is written: whatever goes wrong with the waiting, the container is the creation's.
    async fn claimed(&self, actor: &Actor, claimed: Container) -> Result<ContainerView> {
        let waited =
            self.wait_until(Some(actor), claimed.id, Condition::Running, CLAIM_TIMEOUT).await;
        // The client's next request goes to its URL.
        self.propagation().await;
        match waited {
            Ok(waited) => match waited.container {
                Some(view) => Ok(view),
                None => self.view(claimed).await,
            },
            Err(error) => {
                tracing::warn!(container = %claimed.id, %error, "a claimed container was not waited for");
                self.view(claimed).await
            }
        }
    }
}

/// Why a claim failed.
pub(super) enum ClaimError {
    /// The store refused it: nothing has happened.
    Store(gantry_store::Error),
    Other(Error),
}
