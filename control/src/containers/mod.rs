//! Containers: looking at them and removing them. Making and changing them have files of their own.

mod create;
mod update;

use std::collections::HashMap;

use gantry_model::{ContainerId, Phase, ProjectId, RealmId, ServerName};
use gantry_runtime::Stats;
use gantry_store::{Container, ContainerFilter, ContainerSort, Listed, LogSort, Page, StatusLog};

pub use self::{create::NewContainer, update::ContainerChange};
use crate::{
    actor::Actor,
    controller::Controller,
    error::{Error, Result, Thing},
    permissions::Leaf,
};

/// A container and the names around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerView {
    /// The record.
    pub record: Container,
    /// The alias of its project.
    pub project_alias: String,
    /// The label of its server in hostnames.
    pub server_name: ServerName,
}

/// Which containers a list shows.
#[derive(Clone, Copy, Debug)]
pub struct ContainerQuery {
    /// Only those of this project; it must exist for the actor.
    pub project: Option<ProjectId>,
    /// Only those in this realm; must be the host's realm if that has one.
    pub realm: Option<RealmId>,
    /// Whether those being deleted are shown.
    pub include_deleting: bool,
    /// Which page.
    pub page: Page<ContainerSort>,
}

/// What a container uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerStats {
    /// The container.
    pub container: ContainerView,
    /// The counters; absent while it does not run.
    pub stats: Option<Stats>,
}

impl Controller {
    /// One page of the containers that the actor sees.
    pub async fn containers(
        &self,
        actor: &Actor,
        query: ContainerQuery,
    ) -> Result<Listed<ContainerView>> {
        actor.require(Leaf::ContainersRead)?;
        if let Some(project) = query.project {
            self.project_for(actor, project).await?;
        }
        let filter = ContainerFilter {
            owner: actor.owner_filter(),
            project: query.project,
            realm: actor.realm_filter(query.realm)?,
            server: None,
            include_deleting: query.include_deleting,
        };
        let listed = self.store().containers(filter, query.page).await?;
        let mut aliases = HashMap::new();
        let mut items = Vec::with_capacity(listed.items.len());
        for record in listed.items {
            let project = record.project;
            let alias = match aliases.get(&project) {
                Some(alias) => String::clone(alias),
                None => self.project_alias(project).await?,
            };
            aliases.insert(project, alias.clone());
            let server_name = self.server_name(record.server).await?;
            items.push(ContainerView { record, project_alias: alias, server_name });
        }
        Ok(Listed { items, total: listed.total })
    }

    /// One container.
    pub async fn container(&self, actor: &Actor, id: ContainerId) -> Result<ContainerView> {
        actor.require(Leaf::ContainersRead)?;
        let container = self.container_for(actor, id).await?;
        self.view(container).await
    }

    /// Asks for the end of a container, whatever it does now: it is stopped, then removed with all
    /// that belongs to it. Asking twice is the same wish.
    pub async fn delete_container(&self, actor: &Actor, id: ContainerId) -> Result<()> {
        actor.require(Leaf::ContainersDelete)?;
        let container = self.container_for(actor, id).await?;
        self.wish_deleted(container).await
    }

    /// One page of the phases that a container went through.
    pub async fn status_logs(
        &self,
        actor: &Actor,
        id: ContainerId,
        page: Page<LogSort>,
    ) -> Result<Listed<StatusLog>> {
        actor.require(Leaf::ContainersRead)?;
        self.container_for(actor, id).await?;
        Ok(self.store().status_logs(id, page).await?)
    }

    /// What a container uses now.
    pub async fn container_stats(&self, actor: &Actor, id: ContainerId) -> Result<ContainerStats> {
        actor.require(Leaf::ContainersRead)?;
        let container = self.container_for(actor, id).await?;
        let stats = match container.status.phase {
            Phase::Running | Phase::Paused | Phase::Stopping => {
                match self.inner.runtime.stats(id).await {
                    Ok(stats) => Some(stats),
                    // It ended a moment ago; the record will follow.
                    Err(
                        gantry_runtime::Error::NotFound { .. }
                        | gantry_runtime::Error::NotRunning { .. },
                    ) => None,
                    Err(error) => return Err(Error::Runtime(error)),
                }
            }
            Phase::Creating
            | Phase::Copying
            | Phase::Claiming
            | Phase::Starting
            | Phase::Stopped
            | Phase::Failed
            | Phase::Deleting => None,
        };
        Ok(ContainerStats { container: self.view(container).await?, stats })
    }

    /// The container, if it exists for the actor.
    pub(crate) async fn container_for(&self, actor: &Actor, id: ContainerId) -> Result<Container> {
        let container = self.store().container(id).await?;
        container
            .filter(|container| actor.sees(container.owner, &container.spec.realms))
            .ok_or(Error::NotFound(Thing::Container))
    }

    pub(crate) async fn view(&self, record: Container) -> Result<ContainerView> {
        let project_alias = self.project_alias(record.project).await?;
        let server_name = self.server_name(record.server).await?;
        Ok(ContainerView { record, project_alias, server_name })
    }

    /// Empty when the project was deleted in this moment.
    async fn project_alias(&self, id: ProjectId) -> Result<String> {
        let project = self.store().project(id).await?;
        Ok(project.map(|project| project.spec.alias.as_str().to_owned()).unwrap_or_default())
    }
}
