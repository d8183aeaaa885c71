//! Projects: what containers belong to.

use std::time::Duration;

use gantry_model::{
    ContainerId, FieldError, Phase, ProjectId, RealmId, Wish,
    container::{Color, ContainerName, parse_realms},
    project::{Level, ProjectAlias, ProjectSpec},
};
use gantry_store::{
    AliasFilter, Container, ContainerFilter, ContainerSort, Listed, MemberSort, Page, Project,
    ProjectSort, Version,
};

use crate::{
    Patch,
    actor::Actor,
    controller::{CAS_ATTEMPTS, Controller},
    error::{During, Error, Forbidden, Result, Thing},
    members::Reach,
    operate::BY_CLIENT,
    permissions::Leaf,
    random,
};

/// A project to be made.
#[derive(Clone, Debug, Default)]
pub struct NewProject {
    /// Its name for people, unique per owner; required.
    pub alias: Option<String>,
    /// `#RGB` or `#RRGGBB`; random when absent.
    pub color: Option<String>,
    /// The most containers that it may hold; unlimited when absent.
    pub max_containers: Option<i64>,
    /// The realms that it is visible in.
    pub realm_ids: Vec<String>,
}

/// A change of a project; what is left out stays.
#[derive(Clone, Debug, Default)]
pub struct ProjectChange {
    /// As in [`NewProject`].
    pub alias: Option<String>,
    /// As in [`NewProject`].
    pub color: Option<String>,
    /// As in [`NewProject`]; cleared means unlimited. A limit below the present count is allowed
    /// and refuses new containers only.
    pub max_containers: Patch<i64>,
    /// As in [`NewProject`].
    pub realm_ids: Option<Vec<String>>,
}

/// What went with a project.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeletedProject {
    /// Its containers.
    pub containers: Vec<(ContainerId, ContainerName)>,
    /// How many aliases led to them.
    pub aliases: usize,
    /// How many members it had.
    pub members: u64,
}

impl Controller {
    /// Makes a project.
    pub async fn create_project(&self, actor: &Actor, new: NewProject) -> Result<Project> {
        actor.require(Leaf::ProjectsCreate)?;
        let mut errors = Vec::new();
        let alias = match &new.alias {
            Some(alias) => ProjectAlias::parse("alias", alias),
            None => Err(FieldError::new("alias", "is required")),
        };
        let alias = ok(alias, &mut errors);
        let color = match &new.color {
            Some(color) => ok(Color::parse("color", color), &mut errors),
            None => Some(random::color()?),
        };
        let max_containers = new.max_containers.and_then(|max| ok(parse_max(max), &mut errors));
        let realms = ok(parse_realms("realm_ids", &new.realm_ids), &mut errors);
        let (Some(alias), Some(color), Some(realms), true) =
            (alias, color, realms, errors.is_empty())
        else {
            return Err(Error::Invalid(errors));
        };
        let realms = actor.realms_of_new(realms);
        let now_ms = self.now_ms();
        let project = Project {
            id: random::id()?,
            owner: actor.user,
            spec: ProjectSpec { alias, color, max_containers, realms },
            version: Version::FIRST,
            created_at_ms: now_ms,
            updated_at_ms: now_ms,
        };
        let made = self.store().create_project(&project).await;
        made.map_err(|error| Error::of_write(error, Thing::Project, During::Create))?;
        Ok(project)
    }

    /// One page of the projects that the actor sees, of one realm if asked for.
    pub async fn projects(
        &self,
        actor: &Actor,
        realm: Option<RealmId>,
        page: Page<ProjectSort>,
    ) -> Result<Listed<Project>> {
        actor.require(Leaf::ProjectsRead)?;
        let realm = actor.realm_filter(realm)?;
        Ok(self.store().projects(actor.seen_by(), realm, page).await?)
    }

    /// One project.
    pub async fn project(&self, actor: &Actor, id: ProjectId) -> Result<Project> {
        actor.require(Leaf::ProjectsRead)?;
        self.project_for(actor, id, Level::Read).await
    }

    /// The project, if it exists for the actor, who may do what needs this level.
    pub(crate) async fn project_for(
        &self,
        actor: &Actor,
        id: ProjectId,
        level: Level,
    ) -> Result<Project> {
        Ok(self.project_reached(actor, id, level).await?.0)
    }

    /// The same, and how far the actor reaches.
    pub(crate) async fn project_reached(
        &self,
        actor: &Actor,
        id: ProjectId,
        level: Level,
    ) -> Result<(Project, Reach)> {
        let project = self.store().project(id).await?.ok_or(Error::NotFound(Thing::Project))?;
        let reach = self.permit(actor, &project, Thing::Project, level).await?;
        Ok((project, reach))
    }

    /// Changes a project.
    pub async fn update_project(
        &self,
        actor: &Actor,
        id: ProjectId,
        change: ProjectChange,
    ) -> Result<Project> {
        actor.require(Leaf::ProjectsUpdate)?;
        for _ in 0..CAS_ATTEMPTS {
            let (mut project, reach) = self.project_reached(actor, id, Level::Edit).await?;
            let spec = changed(&project.spec, &change)?;
            if reach != Reach::Owner && spec.max_containers != project.spec.max_containers {
                return Err(Forbidden::OwnerOnly("max_containers").into());
            }
            actor.may_change_realms(&project.spec.realms, &spec.realms)?;
            if spec == project.spec {
                return Ok(project);
            }
            project.spec = spec;
            project.updated_at_ms = self.now_ms();
            match self.store().update_project(&project).await {
                Err(gantry_store::Error::Stale) => {}
                other => {
                    return other
                        .map_err(|error| Error::of_write(error, Thing::Project, During::Update));
                }
            }
        }
        Err(Error::Conflict)
    }

    /// Deletes a project with everything in it. Its containers are stopped and removed first; when
    /// that takes longer than the limit allows, the project stays, its containers go on being
    /// deleted, and asking again finishes the work.
    pub async fn delete_project(&self, actor: &Actor, id: ProjectId) -> Result<DeletedProject> {
        actor.require(Leaf::ProjectsDelete)?;
        self.project_for(actor, id, Level::Delete).await?;
        let page = Page { page: 1, limit: 1, sort: MemberSort::Id, descending: false };
        let members = self.store().members(id, page).await?.total;
        let filter = AliasFilter { project: Some(id), ..AliasFilter::default() };
        let aliases = self.store().aliases(filter, u32::MAX).await?.len();
        let mut deleted = DeletedProject { aliases, members, ..DeletedProject::default() };
        let limit = Duration::from_millis(self.inner.limits.project_delete_timeout_ms);
        match tokio::time::timeout(limit, self.empty_and_delete(id, &mut deleted)).await {
            Ok(Ok(())) => Ok(deleted),
            // Some of its containers may be on their way out by now.
            Ok(Err(Error::NoRoom(source))) => Err(Error::Unavailable(source)),
            Ok(Err(error)) => Err(error),
            Err(_over) => {
                let left = self.containers_of_project(id).await?.total;
                Err(Error::ProjectNotEmpty { left })
            }
        }
    }

    /// Ends when the project is gone; containers made meanwhile are deleted, too.
    async fn empty_and_delete(&self, id: ProjectId, deleted: &mut DeletedProject) -> Result<()> {
        let mut head = self.store().head();
        loop {
            head.mark_unchanged();
            let left = self.containers_of_project(id).await?;
            for container in &left.items {
                self.runtime_of(container.server).await?;
            }
            for container in left.items {
                let entry = (container.id, container.spec.name.clone());
                let is_hidden = container.prespawn;
                let is_deleted = self.wish_deleted(container).await?;
                if is_deleted && !is_hidden && !deleted.containers.contains(&entry) {
                    deleted.containers.push(entry);
                }
            }
            if left.total == 0 {
                match self.store().delete_project(id, self.now_ms()).await {
                    // A container was made between the look and the deletion.
                    Err(gantry_store::Error::NotEmpty) => continue,
                    // Someone else deleted it at the same time: what was asked is true.
                    Ok(()) | Err(gantry_store::Error::NotFound) => return Ok(()),
                    Err(error) => return Err(error.into()),
                }
            }
            head.changed().await.map_err(Error::store_closed)?;
        }
    }

    async fn containers_of_project(&self, id: ProjectId) -> Result<Listed<Container>> {
        let filter = ContainerFilter {
            project: Some(id),
            include_deleting: true,
            include_prespawn: true,
            ..ContainerFilter::default()
        };
        let page = Page { page: 1, limit: 200, sort: ContainerSort::CreatedAt, descending: false };
        Ok(self.store().containers(filter, page).await?)
    }

    /// Asks for the end of a container, whatever it does now; asking twice changes nothing. One that
    /// waited in the warm pool and has been claimed meanwhile is left alone, maybe in a project where the
    /// actor may delete nothing: then it returns false.
    pub(crate) async fn wish_deleted(&self, mut container: Container) -> Result<bool> {
        let was_waiting = container.prespawn;
        self.runtime_of(container.server).await?;
        for _ in 0..CAS_ATTEMPTS {
            if container.status.phase == Phase::Deleting {
                return Ok(true);
            }
            let phase = container.status.phase.delete();
            let (id, version) = (container.id, container.version);
            let wished = self
                .store()
                .set_wish(id, version, Wish::Deleted, phase, BY_CLIENT, self.now_ms())
                .await;
            match wished {
                Ok(_) | Err(gantry_store::Error::NotFound) => return Ok(true),
                Err(gantry_store::Error::Stale) => {}
                Err(error) => return Err(error.into()),
            }
            match self.store().container(id).await? {
                Some(newer) if newer.prespawn != was_waiting => return Ok(false),
                Some(newer) => container = newer,
                None => return Ok(true),
            }
        }
        Err(Error::Conflict)
    }
}

fn changed(old: &ProjectSpec, change: &ProjectChange) -> Result<ProjectSpec> {
    let mut errors = Vec::new();
    let mut spec = old.clone();
    if let Some(alias) = &change.alias {
        spec.alias = ok(ProjectAlias::parse("alias", alias), &mut errors).unwrap_or(spec.alias);
    }
    if let Some(color) = &change.color {
        spec.color = ok(Color::parse("color", color), &mut errors).unwrap_or(spec.color);
    }
    match change.max_containers {
        Patch::Keep => {}
        Patch::Clear => spec.max_containers = None,
        Patch::Set(max) => spec.max_containers = ok(parse_max(max), &mut errors),
    }
    if let Some(realms) = &change.realm_ids {
        spec.realms = ok(parse_realms("realm_ids", realms), &mut errors).unwrap_or_default();
    }
    if errors.is_empty() { Ok(spec) } else { Err(Error::Invalid(errors)) }
}

fn parse_max(max: i64) -> Result<u32, FieldError> {
    u32::try_from(max).map_err(|_out_of_range| {
        FieldError::new("max_containers", "must be a whole number from 0 to 4294967295, or null")
    })
}

/// The value, or its error among the others.
pub(crate) fn ok<T>(parsed: Result<T, FieldError>, errors: &mut Vec<FieldError>) -> Option<T> {
    parsed.map_err(|error| errors.push(error)).ok()
}
