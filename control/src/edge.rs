//! How the edge treats one container: what its owner may set beside who may pass.

use gantry_model::{ContainerId, edge::EdgeSettings, project::Level};
use serde_json::Value;

use crate::{
    actor::Actor,
    controller::{CAS_ATTEMPTS, Controller},
    error::{During, Error, Result, Thing},
    permissions::Leaf,
};

impl Controller {
    /// What is set for the requests to a container.
    pub async fn edge_settings(&self, actor: &Actor, id: ContainerId) -> Result<EdgeSettings> {
        actor.require(Leaf::ContainersRead)?;
        self.container_for(actor, id, Level::Read).await?;
        Ok(self.store().edge_settings(id).await?.1)
    }

    /// Changes the settings that stand in `change`, an object; the others stay.
    pub async fn update_edge_settings(
        &self,
        actor: &Actor,
        id: ContainerId,
        change: &Value,
    ) -> Result<EdgeSettings> {
        actor.require(Leaf::ContainersUpdate)?;
        for _ in 0..CAS_ATTEMPTS {
            self.live_container(actor, id).await?;
            let (version, old) = self.store().edge_settings(id).await?;
            let new = old.updated(change).map_err(Error::Invalid)?;
            if new == old {
                return Ok(new);
            }
            let written = self.store().set_edge_settings(id, version, &new, self.now_ms()).await;
            match written {
                Ok(()) => return Ok(new),
                Err(gantry_store::Error::Stale) => {}
                Err(error) => {
                    return Err(Error::of_write(error, Thing::Container, During::Update));
                }
            }
        }
        Err(Error::Conflict)
    }
}
