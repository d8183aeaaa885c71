//! Containers: looking at them and removing them. Making and changing them have files of their own.

mod copy;
mod create;
mod environment;
mod kvm;
mod pool;
mod update;

use std::{collections::HashMap, sync::Arc};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use gantry_model::{ContainerId, Phase, ProjectId, RealmId, ServerName, project::Level};
use gantry_runtime::Stats;
use gantry_store::{
    Alias, AliasFilter, Container, ContainerFilter, ContainerSort, EdgeRecord, Listed, LogSort,
    Page, Scope, SnapshotSummary, StatusLog,
};

pub use self::{
    copy::NewCopy, create::NewContainer, environment::EnvironmentView, update::ContainerChange,
};
use crate::{
    access::AccessView,
    actor::Actor,
    controller::Controller,
    error::{Error, Forbidden, Result, Thing},
    permissions::Leaf,
};

/// How many containers the runtime is asked about at the same time for one answer.
const STATS_AT_ONCE: usize = 4;

/// A container and the names around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerView {
    /// The record.
    pub record: Container,
    /// The alias of its project.
    pub project_alias: String,
    /// The label of its server in hostnames.
    pub server_name: ServerName,
    /// What is set about its requests; nothing if nothing is.
    pub edge: Option<Arc<EdgeRecord>>,
    /// What there is of its snapshots.
    pub snapshots: SnapshotSummary,
}

/// What is shown of a container besides, if asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extra {
    /// The aliases that lead to it.
    pub aliases: bool,
    /// Its permission document and that of its project.
    pub access: bool,
    /// Whether it is one of a list: what the actor may not see of it is then left out, instead of
    /// refused with all the others.
    pub is_listed: bool,
}

/// What was asked for of [`Extra`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// The aliases that lead to it, oldest first.
    pub aliases: Option<Vec<Alias>>,
    /// Its permission document and that of its project; they hold credentials.
    pub access: Option<(AccessView, AccessView)>,
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
    /// Whether those that wait in the warm pool are shown.
    pub include_prespawn: bool,
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
            self.project_for(actor, project, Level::Read).await?;
        }
        let filter = ContainerFilter {
            seen_by: actor.seen_by(),
            project: query.project,
            realm: actor.realm_filter(query.realm)?,
            server: None,
            include_deleting: query.include_deleting,
            include_prespawn: query.include_prespawn,
        };
        let listed = self.store().containers(filter, query.page).await?;
        let mut aliases = HashMap::new();
        let ids: Vec<ContainerId> = listed.items.iter().map(|record| record.id).collect();
        let mut edges = self.edges(&ids).await?;
        let mut summaries = self.store().snapshot_summaries(&ids).await?;
        let mut items = Vec::with_capacity(listed.items.len());
        for record in listed.items {
            let project = record.project;
            let alias = match aliases.get(&project) {
                Some(alias) => String::clone(alias),
                None => self.project_alias(project).await?,
            };
            aliases.insert(project, alias.clone());
            let server_name = self.server_name(record.server).await?;
            let edge = edges.remove(&record.id);
            let snapshots = summaries.remove(&record.id).unwrap_or_default();
            items.push(ContainerView {
                record,
                project_alias: alias,
                server_name,
                edge,
                snapshots,
            });
        }
        Ok(Listed { items, total: listed.total })
    }

    /// One container.
    pub async fn container(&self, actor: &Actor, id: ContainerId) -> Result<ContainerView> {
        actor.require(Leaf::ContainersRead)?;
        let container = self.warm_or_not(actor, id, Level::Read).await?;
        self.view(container).await
    }

    /// Asks for the end of a container, whatever it does now: it is stopped, then removed with all
    /// that belongs to it. Asking twice is the same wish.
    pub async fn delete_container(&self, actor: &Actor, id: ContainerId) -> Result<()> {
        actor.require(Leaf::ContainersDelete)?;
        let container = self.warm_or_not(actor, id, Level::Delete).await?;
        if self.wish_deleted(container).await? { Ok(()) } else { Err(Error::Conflict) }
    }

    /// One page of the phases that a container went through.
    pub async fn status_logs(
        &self,
        actor: &Actor,
        id: ContainerId,
        page: Page<LogSort>,
    ) -> Result<Listed<StatusLog>> {
        actor.require(Leaf::ContainersRead)?;
        self.warm_or_not(actor, id, Level::Read).await?;
        Ok(self.store().status_logs(id, page).await?)
    }

    /// The project of a container whose requests the actor may see. One without the Kit has no
    /// hostnames, and so none.
    pub async fn logged_project(&self, actor: &Actor, id: ContainerId) -> Result<ProjectId> {
        actor.require(Leaf::ContainersLogs)?;
        let container = self.container_for(actor, id, Level::Read).await?;
        if container.spec.hoody_kit {
            Ok(container.project)
        } else {
            Err(Error::NotFound(Thing::Container))
        }
    }

    /// What a container uses now.
    pub async fn container_stats(&self, actor: &Actor, id: ContainerId) -> Result<ContainerStats> {
        actor.require(Leaf::ContainersRead)?;
        let container = self.warm_or_not(actor, id, Level::Read).await?;
        self.stats_of(self.view(container).await?).await
    }

    /// What each of a page of containers uses now, without those that are gone by then, and how many
    /// there are.
    pub async fn project_stats(
        &self,
        actor: &Actor,
        query: ContainerQuery,
    ) -> Result<Listed<ContainerStats>> {
        let Listed { items, total } = self.containers(actor, query).await?;
        let looks = items.into_iter().map(|view| self.stats_of(view));
        let items = stream::iter(looks).buffered(STATS_AT_ONCE).try_collect().await?;
        Ok(Listed { items, total })
    }

    async fn stats_of(&self, view: ContainerView) -> Result<ContainerStats> {
        let container = &view.record;
        let id = container.id;
        let runtime = self.inner.servers.runtime(container.server);
        let stats = match (container.status.phase, runtime) {
            (Phase::Running | Phase::Paused | Phase::Stopping, Some(runtime)) => {
                match runtime.stats(id).await {
                    Ok(stats) => Some(stats),
                    // It ended a moment ago; the record will follow.
                    Err(
                        gantry_runtime::Error::NotFound { .. }
                        | gantry_runtime::Error::NotRunning { .. },
                    ) => None,
                    Err(error) => return Err(Error::Runtime(error)),
                }
            }
            // What one uses whose server is away is not known.
            (Phase::Running | Phase::Paused | Phase::Stopping, None) => None,
            (
                Phase::Creating
                | Phase::Copying
                | Phase::Claiming
                | Phase::Starting
                | Phase::Stopped
                | Phase::Failed
                | Phase::Deleting,
                _,
            ) => None,
        };
        Ok(ContainerStats { container: view, stats })
    }

    /// The container, if it exists for the actor, who may do what needs this level, and does not wait in
    /// the warm pool.
    pub(crate) async fn container_for(
        &self,
        actor: &Actor,
        id: ContainerId,
        level: Level,
    ) -> Result<Container> {
        let container = self.warm_or_not(actor, id, level).await?;
        if container.prespawn { Err(Error::Prespawned) } else { Ok(container) }
    }

    /// The container, if it exists for the actor, who may do what needs this level.
    pub(crate) async fn warm_or_not(
        &self,
        actor: &Actor,
        id: ContainerId,
        level: Level,
    ) -> Result<Container> {
        let missing = Error::NotFound(Thing::Container);
        let container = self.store().container(id).await?.ok_or(missing)?;
        self.permit(actor, &container, Thing::Container, level).await?;
        Ok(container)
    }

    pub(crate) async fn view(&self, record: Container) -> Result<ContainerView> {
        let project_alias = self.project_alias(record.project).await?;
        let server_name = self.server_name(record.server).await?;
        let edge = self.edges(&[record.id]).await?.remove(&record.id);
        let snapshots = self.snapshot_summary(record.id).await?;
        Ok(ContainerView { record, project_alias, server_name, edge, snapshots })
    }

    /// What is set about the requests to these containers; those without anything are left out.
    async fn edges(&self, ids: &[ContainerId]) -> Result<HashMap<ContainerId, Arc<EdgeRecord>>> {
        let records = self.store().route_records(ids).await?;
        Ok(records.into_iter().filter_map(|(id, record)| Some((id, record?.edge?))).collect())
    }

    /// What is shown of a container besides. It needs the right to see aliases and documents, which
    /// hold credentials.
    pub async fn extras(
        &self,
        actor: &Actor,
        view: &ContainerView,
        extra: Extra,
    ) -> Result<Extras> {
        if !extra.aliases && !extra.access {
            return Ok(Extras::default());
        }
        actor.require(Leaf::ResourcesProxyAliases)?;
        let (id, project) = (view.record.id, view.record.project);
        let mut extras = Extras::default();
        if extra.aliases {
            let filter = AliasFilter { container: Some(id), ..AliasFilter::default() };
            let max = self.limits().aliases_per_user_max;
            extras.aliases = Some(self.store().aliases(filter, max).await?);
        }
        if extra.access {
            match self.permit(actor, &view.record, Thing::Container, Level::Edit).await {
                Ok(_) => {}
                Err(Error::Forbidden(Forbidden::Level(_)) | Error::NotFound(_))
                    if extra.is_listed =>
                {
                    return Ok(extras);
                }
                Err(error) => return Err(error),
            }
            let own = self.access_view(Scope::Container(id), project, Some(id)).await?;
            let of_project = self.access_view(Scope::Project(project), project, None).await?;
            extras.access = Some((own, of_project));
        }
        Ok(extras)
    }

    /// Empty when the project was deleted in this moment.
    pub(crate) async fn project_alias(&self, id: ProjectId) -> Result<String> {
        let project = self.store().project(id).await?;
        Ok(project.map(|project| project.spec.alias.as_str().to_owned()).unwrap_or_default())
    }
}
