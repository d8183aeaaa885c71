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
    /// Grants to other users; only with `include_permissions=true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Value>>)]
    permissions: Option<[(); 0]>,
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
    pub(crate) fn new(project: &control::Project, with_permissions: bool) -> Self {
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
            permissions: with_permissions.then_some([]),
        }
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
                permissions: 0,
                aliases: deleted.aliases as u64,
            },
            deleted_items: with_items.then(items),
        }
    }
}
