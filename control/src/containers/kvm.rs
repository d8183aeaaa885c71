//! Hardware virtualisation: the host's `/dev/kvm` in a container.

use gantry_model::{ContainerId, ContainerSpec, Phase, project::Level};
use gantry_runtime::{Kvm, Runtime};

use super::ContainerView;
use crate::{
    actor::Actor,
    controller::{CAS_ATTEMPTS, Controller},
    error::{During, Error, Forbidden, Result, Subject, Thing},
    permissions::Leaf,
};

impl Controller {
    /// Gives a container that is stopped the host's `/dev/kvm`, or takes it away.
    pub async fn set_kvm(
        &self,
        actor: &Actor,
        id: ContainerId,
        kvm: bool,
    ) -> Result<ContainerView> {
        actor.require(Leaf::ContainersUpdate)?;
        for _ in 0..CAS_ATTEMPTS {
            let container = self.container_for(actor, id, Level::Edit).await?;
            if kvm == container.spec.kvm {
                return self.view(container).await;
            }
            let runtime = self.runtime_of(container.server).await?;
            check_kvm(actor, &**runtime, kvm)?;
            match container.status.phase {
                Phase::Stopped | Phase::Failed => {}
                Phase::Deleting => return Err(Error::Deleting),
                Phase::Creating
                | Phase::Copying
                | Phase::Claiming
                | Phase::Starting
                | Phase::Running
                | Phase::Paused
                | Phase::Stopping => return Err(Error::NotStopped { field: Subject::Kvm }),
            }
            let spec = ContainerSpec { kvm, ..container.spec.clone() };
            let updated =
                self.store().update_spec(id, container.version, &spec, self.now_ms()).await;
            match updated {
                Ok(container) => return self.view(container).await,
                Err(gantry_store::Error::Stale) => {}
                Err(error) => {
                    return Err(Error::of_write(error, Thing::Container, During::Update));
                }
            }
        }
        Err(Error::Conflict)
    }
}

/// Refuses hardware virtualisation to an actor who may not have it, or where the server has none.
pub(super) fn check_kvm(actor: &Actor, runtime: &dyn Runtime, wanted: bool) -> Result<()> {
    if !wanted {
        return Ok(());
    }
    actor.require(Leaf::FeatureKvm)?;
    match runtime.kvm() {
        Kvm::Offered => Ok(()),
        why @ (Kvm::Off | Kvm::Missing) => Err(Forbidden::Kvm(why).into()),
    }
}
