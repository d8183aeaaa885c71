//! Storage shares.

use gantry_control::{IncomingView, ShareMount, ShareTarget, ShareView};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Hex, Timestamp};

/// A directory of a container that others see.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Share {
    #[serde(flatten)]
    both: Both,
    /// What the directory is called below `/hoody/shares`.
    alias: Option<String>,
    label: Option<String>,
    description: Option<String>,
    /// Whether it was told that it ends soon.
    expiry_notified: bool,
    /// The realms of its source.
    realm_ids: Vec<Hex>,
}

/// A share, as the side sees it that receives it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct IncomingShare {
    #[serde(flatten)]
    both: Both,
    /// Where it is found in the container that was asked about; null where it is not to be there.
    mount_path: Option<String>,
    /// Whether that container wants it.
    mount: Option<bool>,
}

/// What both sides see.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Both {
    id: Hex,
    source_container_id: Hex,
    source_path: String,
    target_container_id: Option<Hex>,
    target_project_id: Option<Hex>,
    /// `container` or `project`.
    target_type: &'static str,
    /// `readonly` or `readwrite`.
    mode: &'static str,
    enabled: bool,
    /// `failed` while it is missing in a container that should have it, else `active`.
    status: &'static str,
    /// Why it is missing; for a project, also in which container.
    status_message: Option<String>,
    /// In seconds since 1970.
    expires_at: Option<i64>,
    created_by: Hex,
    created_at: Timestamp,
    updated_at: Timestamp,
}

/// A share and what a container has said of it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MountedShare {
    share: IncomingShare,
    #[serde(rename = "override")]
    said: Override,
}

/// What a container has said of a share.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ShareOverride)]
pub(crate) struct Override {
    id: Hex,
    share_id: Hex,
    container_id: Hex,
    /// Whether it is to be there.
    mount: bool,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl Both {
    fn new(share: &gantry_control::Share) -> Self {
        let (container, project) = match share.target {
            ShareTarget::Container(id) => (Some(id.into()), None),
            ShareTarget::Project(id) => (None, Some(id.into())),
        };
        // One that is off is not missing.
        let failure = share.failure.as_ref().filter(|_| share.enabled);
        Self {
            id: share.id.into(),
            source_container_id: share.source.into(),
            source_path: share.path.to_string(),
            target_container_id: container,
            target_project_id: project,
            target_type: share.target.kind(),
            mode: share.mode.as_str(),
            enabled: share.enabled,
            status: if failure.is_some() { "failed" } else { "active" },
            status_message: failure.map(|(container, why)| match share.target {
                ShareTarget::Container(_) => why.clone(),
                ShareTarget::Project(_) => format!("container {container}: {why}"),
            }),
            expires_at: share.expires_at_ms.map(|at_ms| at_ms.div_euclid(1000)),
            created_by: share.created_by.into(),
            created_at: Timestamp(share.created_at_ms),
            updated_at: Timestamp(share.updated_at_ms),
        }
    }
}

impl Share {
    pub(crate) fn new(view: &ShareView) -> Self {
        let ShareView { record, realms } = view;
        let text = |name: &Option<gantry_model::share::ShareName>| {
            name.as_ref().map(|name| name.as_str().to_owned())
        };
        Self {
            both: Both::new(record),
            alias: text(&record.alias),
            label: text(&record.label),
            description: record.description.clone(),
            expiry_notified: record.expiry_notified,
            realm_ids: realms.iter().copied().map(Hex::from).collect(),
        }
    }
}

impl IncomingShare {
    pub(crate) fn new(view: &IncomingView) -> Self {
        Self {
            both: Both::new(&view.record),
            mount_path: view.mount_path.clone(),
            mount: view.is_wanted,
        }
    }
}

impl MountedShare {
    pub(crate) fn new(view: &IncomingView, mount: &ShareMount) -> Self {
        Self {
            share: IncomingShare::new(view),
            said: Override {
                id: mount.id.into(),
                share_id: mount.share.into(),
                container_id: mount.container.into(),
                mount: mount.is_wanted,
                created_at: Timestamp(mount.created_at_ms),
                updated_at: Timestamp(mount.updated_at_ms),
            },
        }
    }
}
