//! Visits of containers by SSH, as events.

use gantry_model::ContainerId;
use serde_json::Value;

use crate::{
    Store, containers,
    error::{Error, Result},
    told,
};

/// Something to be told of visits of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VisitTold {
    /// The container.
    pub container: ContainerId,
    /// What happened, such as `container.ssh.begun`.
    pub kind: &'static str,
    /// What is to be told about it, beside what every event of a container tells.
    pub payload: Vec<(&'static str, Value)>,
    /// When it happened.
    pub at_ms: i64,
}

impl Store {
    /// Tells of visits, in one write. Those of containers that are gone are left out.
    pub async fn tell_visits(&self, visits: Vec<VisitTold>) -> Result<()> {
        self.write(move |tx| {
            Box::pin(async move {
                for visit in visits {
                    match containers::load(tx, visit.container).await {
                        Ok(visited) => told::visit_told(tx, &visited, visit).await?,
                        Err(Error::NotFound) => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok(())
            })
        })
        .await
    }
}
