//! Projects.

use gantry_control as control;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Hex, Pagination, Timestamp};

/// A project.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Project {
    id: Hex,
    /// Whose it is.
    user_id: Hex,
    alias: String,
    /// `#RRGGBB`.
    color: String,
    /// The most containers that it may hold; `null` is unlimited.
    max_containers: Option<u32>,
    is_default: bool,
    realm_ids: Vec<Hex>,
    created_at: Timestamp,
    updated_at: Timestamp,
    /// Grants to other users, the first ones first; only with `include_permissions=true`. In a list at
    /// most 20 of each project.
    #[serde(skip_serializing_if = "Option::is_none")]
    permissions: Option<Vec<ProjectPermission>>,
}

/// What another user may do with a project and all that is in it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProjectPermission {
    id: Hex,
    project_id: Hex,
    user_id: Hex,
    /// `read`, `edit` or `delete`; each includes those before.
    permission_level: &'static str,
    created_at: Timestamp,
    updated_at: Timestamp,
    user: PermittedUser,
}

/// The user who has a permission.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PermittedUser {
    id: Hex,
    username: String,
    /// The same as `username`.
    alias: String,
}

/// A page of the permissions of a project.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProjectPermissions {
    permissions: Vec<ProjectPermission>,
    pagination: Pagination,
}

/// A page of projects.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Projects {
    projects: Vec<Project>,
    pagination: Pagination,
}

/// What a deletion of a project took with it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeletedProject {
    deleted: Deleted,
    /// Only with `include_deleted_items=true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted_items: Option<DeletedItems>,
}

/// How much was deleted.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Deleted {
    containers: u64,
    permissions: u64,
    aliases: u64,
}

/// What was deleted.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeletedItems {
    containers: Vec<DeletedContainer>,
}

/// A container that went with its project.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeletedContainer {
    id: Hex,
    name: String,
}

impl Project {
    /// With its members, if those were asked for.
    pub(crate) fn new(project: &control::Project, members: Option<&[control::Member]>) -> Self {
        let spec = &project.spec;
        Self {
            id: project.id.into(),
            user_id: project.owner.into(),
            alias: spec.alias.as_str().to_owned(),
            color: spec.color.to_string(),
            max_containers: spec.max_containers,
            is_default: false,
            realm_ids: spec.realms.iter().copied().map(Hex::from).collect(),
            created_at: Timestamp(project.created_at_ms),
            updated_at: Timestamp(project.updated_at_ms),
            permissions: members
                .map(|members| members.iter().map(ProjectPermission::new).collect()),
        }
    }
}

impl ProjectPermission {
    pub(crate) fn new(member: &control::Member) -> Self {
        Self {
            id: member.id.into(),
            project_id: member.project.into(),
            user_id: member.user.into(),
            permission_level: member.level.as_str(),
            created_at: Timestamp(member.created_at_ms),
            updated_at: Timestamp(member.updated_at_ms),
            user: PermittedUser {
                id: member.user.into(),
                username: member.username.clone(),
                alias: member.username.clone(),
            },
        }
    }
}

impl ProjectPermissions {
    pub(crate) fn new(members: &[control::Member], pagination: Pagination) -> Self {
        Self { permissions: members.iter().map(ProjectPermission::new).collect(), pagination }
    }
}

impl Projects {
    pub(crate) fn new(projects: Vec<Project>, pagination: Pagination) -> Self {
        Self { projects, pagination }
    }
}

impl DeletedProject {
    pub(crate) fn new(deleted: &control::DeletedProject, with_items: bool) -> Self {
        let items = || DeletedItems {
            containers: deleted
                .containers
                .iter()
                .map(|(id, name)| DeletedContainer {
                    id: (*id).into(),
                    name: name.as_str().to_owned(),
                })
                .collect(),
        };
        Self {
            deleted: Deleted {
                containers: deleted.containers.len() as u64,
                permissions: deleted.members,
                aliases: deleted.aliases as u64,
            },
            deleted_items: with_items.then(items),
        }
    }
}
