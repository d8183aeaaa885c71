//! Who may pass: the permission documents of projects and containers, with the hooks that share a
//! container's document and its version.
//!
//! Every write names the version that it has read, so that of two writes with one version exactly
//! one is made. What a write does to a document is one function, [`AccessChange::apply`], of the
//! document, that of its project, and the change.

use gantry_model::{
    ContainerId, FieldError, HookId, Phase, ProjectId,
    access::{Access as Cell, Document, Fallback, GroupName, Method, Program},
    hook::{self, Hook},
    project::Level,
};
use gantry_store::{Access, HookRecord, Scope, Version};
use serde_json::Value;

use crate::{
    actor::Actor,
    controller::Controller,
    error::{During, EdgeError, Error, Result, Thing},
    permissions::Leaf,
    random,
};

/// A permission document and what it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessView {
    /// The project, or that of the container.
    pub project: ProjectId,
    /// The container; absent for the document of a project.
    pub container: Option<ContainerId>,
    /// The document, its hooks and its version.
    pub access: Access,
    /// The document of the container's project.
    pub inherited: Option<Document>,
}

/// One write.
#[derive(Clone, Debug)]
pub enum AccessChange {
    /// The whole document, as clients write it. Its hooks stay if it names none.
    Replace(Value),
    /// Document and hooks are removed: everything passes, unless the project's says otherwise.
    Remove,
    /// The switches; what is absent stays.
    Settings {
        /// What happens to requests that no group decides about.
        default: Option<Fallback>,
        /// Whether requests pass at all.
        enable_proxy: Option<bool>,
    },
    /// A group with one way to belong to it, in place of what it was; an object with its `type`.
    SetGroup(GroupName, Value),
    /// A group goes, and so does what it opens, unless the project has a group of that name.
    RemoveGroup(GroupName),
    /// What a group opens of one program.
    SetCell(GroupName, Program, Cell),
    /// Nothing is said any more about what a group opens.
    ClearCells(GroupName),
    /// Nothing is said any more about what a group opens of one program.
    RemoveCell(GroupName, Program),
    /// A hook is added at a position among those of its service, at the end when absent.
    AddHook(Program, Value, Option<usize>),
    /// A hook says something else; its id and position stay.
    SetHook(Program, HookId, Value),
    /// A hook goes to another position among those of its service.
    MoveHook(Program, HookId, usize),
    /// A hook goes.
    RemoveHook(Program, HookId),
    /// All hooks of a service go.
    RemoveHooks(Program),
}

/// What a change is judged by.
struct Around<'v> {
    project: ProjectId,
    container: Option<ContainerId>,
    inherited: Option<&'v Document>,
}

impl Controller {
    /// The permission document of a project or container. It holds credentials.
    pub async fn access(&self, actor: &Actor, scope: Scope) -> Result<AccessView> {
        actor.require(Leaf::ResourcesProxyAliases)?;
        match scope {
            Scope::Project(_) => actor.require(Leaf::ProjectsRead)?,
            Scope::Container(_) => actor.require(Leaf::ContainersRead)?,
        }
        // It holds credentials, with which more than reading can be done.
        let (project, container) = self.around(actor, scope, Writes::No).await?;
        self.access_view(scope, project, container).await
    }

    /// Changes the permission document of a project or container that still is of this version.
    /// Returns it as it is now; for a hook that was added or changed, with its id.
    pub async fn change_access(
        &self,
        actor: &Actor,
        scope: Scope,
        version: Version,
        change: AccessChange,
    ) -> Result<(AccessView, Option<HookId>)> {
        actor.require(Leaf::ResourcesProxyAliases)?;
        match scope {
            Scope::Project(_) => actor.require(Leaf::ProjectsUpdate)?,
            Scope::Container(_) => actor.require(Leaf::ContainersUpdate)?,
        }
        let (project, container) = self.around(actor, scope, Writes::Yes).await?;
        let mut view = self.access_view(scope, project, container).await?;
        if view.access.version != version {
            return Err(EdgeError::Stale.into());
        }
        let around = Around { project, container, inherited: view.inherited.as_ref() };
        let hook = change.apply(&mut view.access, &around)?;
        if let Some(document) = &view.access.document {
            document.check().map_err(|error| Error::Invalid(vec![error]))?;
        }
        let thing = match scope {
            Scope::Project(_) => Thing::Project,
            Scope::Container(_) => Thing::Container,
        };
        let written = self.store().set_access(scope, view.access, self.now_ms()).await;
        view.access = written.map_err(|error| {
            if matches!(error, gantry_store::Error::Stale) {
                EdgeError::Stale.into()
            } else {
                Error::of_write(error, thing, During::Update)
            }
        })?;
        Ok((view, hook))
    }

    /// What the scope is about, if it exists for the actor.
    async fn around(
        &self,
        actor: &Actor,
        scope: Scope,
        writes: Writes,
    ) -> Result<(ProjectId, Option<ContainerId>)> {
        match scope {
            Scope::Project(id) => Ok((self.project_for(actor, id, Level::Edit).await?.id, None)),
            Scope::Container(id) => {
                let container = self.container_for(actor, id, Level::Edit).await?;
                if writes == Writes::Yes && container.status.phase == Phase::Deleting {
                    return Err(Error::Deleting);
                }
                Ok((container.project, Some(id)))
            }
        }
    }

    /// The document of a scope that the actor sees.
    pub(crate) async fn access_view(
        &self,
        scope: Scope,
        project: ProjectId,
        container: Option<ContainerId>,
    ) -> Result<AccessView> {
        let access = self.store().access(scope).await?;
        let inherited = match container {
            None => None,
            Some(_) => self.store().access(Scope::Project(project)).await?.document,
        };
        Ok(AccessView { project, container, access, inherited })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Writes {
    Yes,
    No,
}

impl AccessChange {
    /// Makes the change; the id of the hook that it was about, if it was about one.
    fn apply(self, access: &mut Access, around: &Around<'_>) -> Result<Option<HookId>> {
        let document = || access.document.clone();
        let started = || document().unwrap_or_else(|| Document::initial(around.inherited));
        match self {
            Self::Replace(value) => replace(access, &value, around)?,
            Self::Remove => {
                access.document = None;
                access.hooks.clear();
            }
            Self::Settings { default, enable_proxy } => {
                let mut document = started();
                document.default = default.unwrap_or(document.default);
                document.enable_proxy = enable_proxy.or(document.enable_proxy);
                access.document = Some(document);
            }
            Self::SetGroup(name, value) => {
                let mut salt = new_salt()?;
                let mut new_salt = || std::mem::take(&mut salt);
                let method = Method::parse("", &value, &mut new_salt).map_err(Error::Invalid)?;
                let mut document = started();
                document.groups.insert(name, vec![method]);
                access.document = Some(document);
            }
            Self::RemoveGroup(name) => {
                let mut document = document().ok_or(Error::NotFound(Thing::Group))?;
                if document.groups.remove(&name).is_none() {
                    return Err(Error::NotFound(Thing::Group));
                }
                if !around.inherited.is_some_and(|project| project.groups.contains_key(&name)) {
                    document.permissions.remove(&name);
                }
                access.document = Some(document);
            }
            Self::SetCell(group, program, cell) => {
                let mut document = started();
                if !knows_group(&document, around, &group) {
                    return Err(Error::NotFound(Thing::Group));
                }
                document.permissions.entry(group).or_default().insert(program, cell);
                access.document = Some(document);
            }
            Self::ClearCells(group) => {
                let mut document = document().ok_or(Error::NotFound(Thing::Group))?;
                if document.permissions.remove(&group).is_none() {
                    return Err(Error::NotFound(Thing::Group));
                }
                access.document = Some(document);
            }
            Self::RemoveCell(group, program) => {
                let mut document = document().ok_or(Error::NotFound(Thing::Group))?;
                let cells = document.permissions.get_mut(&group);
                let cells = cells.ok_or(Error::NotFound(Thing::Group))?;
                cells.remove(&program).ok_or(Error::NotFound(Thing::Cell))?;
                if cells.is_empty() {
                    document.permissions.remove(&group);
                }
                access.document = Some(document);
            }
            Self::AddHook(..)
            | Self::SetHook(..)
            | Self::MoveHook(..)
            | Self::RemoveHook(..)
            | Self::RemoveHooks(..) => return self.apply_to_hooks(access, around),
        }
        Ok(None)
    }

    fn apply_to_hooks(self, access: &mut Access, around: &Around<'_>) -> Result<Option<HookId>> {
        let hooks = &mut access.hooks;
        let document = access.document.clone().unwrap_or_default();
        let read = |service, value: &Value| {
            let hook = Hook::from_json("", service, value).map_err(Error::Invalid)?;
            let record = HookRecord { id: random::id()?, hook };
            check_hook_groups(std::slice::from_ref(&record), &document, around)?;
            Ok::<_, Error>(record)
        };
        match self {
            Self::AddHook(service, value, position) => {
                let record = read(service, &value)?;
                let id = record.id;
                let (at, count) = place(hooks, service, position.unwrap_or(usize::MAX));
                if count >= hook::SERVICE_MAX || hooks.len() >= hook::CONTAINER_MAX {
                    return Err(EdgeError::HookLimit.into());
                }
                hooks.insert(at, record);
                Ok(Some(id))
            }
            Self::SetHook(service, id, value) => {
                let record = read(service, &value)?;
                let at = find(hooks, service, id)?;
                if let Some(old) = hooks.get_mut(at) {
                    old.hook = record.hook;
                }
                Ok(Some(id))
            }
            Self::MoveHook(service, id, position) => {
                let record = hooks.remove(find(hooks, service, id)?);
                let (at, _) = place(hooks, service, position);
                hooks.insert(at, record);
                Ok(Some(id))
            }
            Self::RemoveHook(service, id) => {
                hooks.remove(find(hooks, service, id)?);
                Ok(None)
            }
            Self::RemoveHooks(service) => {
                hooks.retain(|record| record.hook.service != service);
                Ok(None)
            }
            Self::Replace(_)
            | Self::Remove
            | Self::Settings { .. }
            | Self::SetGroup(..)
            | Self::RemoveGroup(_)
            | Self::SetCell(..)
            | Self::ClearCells(_)
            | Self::RemoveCell(..) => Ok(None),
        }
    }
}

fn replace(access: &mut Access, value: &Value, around: &Around<'_>) -> Result<()> {
    let hooks = replaced_hooks(value, access, around)?;
    let document = replaced(value, around)?;
    if let Some(hooks) = hooks {
        check_hook_groups(&hooks, &document, around)?;
        access.hooks = hooks;
    }
    access.document = Some(document);
    Ok(())
}

/// The document that stands in a client's JSON object.
fn replaced(value: &Value, around: &Around<'_>) -> Result<Document> {
    let mut errors = Vec::new();
    let mut same = |field: &'static str, want: Option<String>, required: bool| {
        let given = value.get(field);
        match (given, want) {
            (None | Some(Value::Null), _) if !required => {}
            (None, _) => errors.push(FieldError::new(field, "is required")),
            (Some(given), Some(want)) if given.as_str() == Some(&want) => {}
            (Some(_), Some(_)) => errors.push(FieldError::new(field, "must be that of the path")),
            (Some(_), None) => errors.push(FieldError::new(field, "has no place here")),
        }
    };
    same("project", Some(around.project.to_string()), true);
    same("container", around.container.map(|id| id.to_string()), false);
    // A value for each way that may need one; an unused one costs nothing but randomness.
    let mut failed = None;
    let mut salt = || {
        new_salt().unwrap_or_else(|error| {
            failed = Some(error);
            String::new()
        })
    };
    let parsed = Document::parse(value, around.inherited, &mut salt);
    if let Some(error) = failed {
        return Err(error);
    }
    match parsed {
        Ok(mut document) if errors.is_empty() => {
            // What is saved whole says it explicitly.
            document.enable_proxy.get_or_insert(true);
            Ok(document)
        }
        Ok(_) => Err(Error::Invalid(errors)),
        Err(more) => {
            errors.extend(more);
            Err(Error::Invalid(errors))
        }
    }
}

/// The hooks that stand in a client's document, if any do. One that says the same as before keeps
/// its id.
fn replaced_hooks(
    value: &Value,
    access: &Access,
    around: &Around<'_>,
) -> Result<Option<Vec<HookRecord>>> {
    let Some(value) = value.get("hooks").filter(|hooks| !hooks.is_null()) else {
        return Ok(None);
    };
    if around.container.is_none() {
        return Err(EdgeError::HooksOfProject.into());
    }
    let mut old = access.hooks.clone();
    let hooks = Hook::all_from_json("hooks", value).map_err(Error::Invalid)?;
    let with_id = |hook: Hook| {
        let same = old.iter().position(|record| record.hook == hook);
        let id = match same {
            Some(at) => old.swap_remove(at).id,
            None => random::id()?,
        };
        Ok(HookRecord { id, hook })
    };
    hooks.into_iter().map(with_id).collect::<Result<_>>().map(Some)
}

/// Whether the groups that hooks name exist.
fn check_hook_groups(hooks: &[HookRecord], document: &Document, around: &Around<'_>) -> Result<()> {
    let stranger = hooks
        .iter()
        .flat_map(|record| &record.hook.groups)
        .find(|group| !knows_group(document, around, group));
    match stranger {
        None => Ok(()),
        Some(group) => {
            let rule = format!("there is no group {}", group.as_str());
            Err(Error::invalid("applies_to.groups", rule))
        }
    }
}

fn knows_group(document: &Document, around: &Around<'_>, group: &GroupName) -> bool {
    document.groups.contains_key(group)
        || around.inherited.is_some_and(|project| project.groups.contains_key(group))
}

/// Where in the list a hook of this service with this position stands, and how many it has.
fn place(hooks: &[HookRecord], service: Program, position: usize) -> (usize, usize) {
    let same = || hooks.iter().enumerate().filter(|(_, record)| record.hook.service == service);
    let at = same().nth(position).map(|(at, _)| at);
    (at.unwrap_or(hooks.len()), same().count())
}

fn find(hooks: &[HookRecord], service: Program, id: HookId) -> Result<usize> {
    hooks
        .iter()
        .position(|record| record.id == id && record.hook.service == service)
        .ok_or(Error::NotFound(Thing::Hook))
}

fn new_salt() -> Result<String> {
    Ok(hex::encode(random::bytes::<16>()?))
}
