//! Snapshots and what is done with them.

use gantry_control as control;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Hex, Pagination, Timestamp, container::operation_id};

/// A kept state of a container's files.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Snapshot {
    /// The same as `name`.
    id: String,
    /// Unique among those of the container; it names the snapshot in paths.
    name: String,
    alias: Option<String>,
    /// The container that it belongs to, which may be gone.
    container_id: Hex,
    project_id: Hex,
    /// `creating` or `ready`.
    status: &'static str,
    created_at: Timestamp,
    last_used_at: Option<Timestamp>,
    /// When it is removed; `null` if never.
    expires_at: Option<Timestamp>,
    /// Whether memory is kept, too: never.
    stateful: bool,
    /// What the files take on disk beside the image, in bytes; 0 until it is ready.
    size: u64,
}

/// A page of snapshots.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Snapshots {
    snapshots: Vec<Snapshot>,
    pagination: Pagination,
}

/// The snapshots of a container.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ContainerSnapshots {
    container_id: Hex,
    project_id: Hex,
    snapshot_count: u64,
    /// How many the container may have.
    max_snapshots: Option<u32>,
    /// Newest first.
    snapshots: Vec<Snapshot>,
}

/// One snapshot and where it belongs.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OneSnapshot {
    container_id: Hex,
    project_id: Hex,
    snapshot: Snapshot,
}

/// What a restoration came to.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Restored {
    /// Whether it is done; false while it is under way.
    success: bool,
    message: String,
    snapshot: Option<Snapshot>,
    container_id: Hex,
    /// The status of the container now.
    status: &'static str,
    /// 32 hexadecimal digits for logs.
    operation_id: String,
}

/// A snapshot that was removed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeletedSnapshot {
    container_id: Hex,
    project_id: Hex,
    snapshot_name: String,
}

/// A synchronisation that was accepted.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Synced {
    container_id: Hex,
    source_container_id: Option<Hex>,
    /// `copying` while it is under way.
    status: &'static str,
    /// 32 hexadecimal digits for logs.
    operation_id: String,
}

impl Snapshot {
    fn new(snapshot: &control::Snapshot) -> Self {
        Self {
            id: snapshot.name.clone(),
            name: snapshot.name.clone(),
            alias: snapshot.alias.clone(),
            container_id: snapshot.container.into(),
            project_id: snapshot.project.into(),
            status: if snapshot.is_ready { "ready" } else { "creating" },
            created_at: Timestamp(snapshot.created_at_ms),
            last_used_at: snapshot.last_used_at_ms.map(Timestamp),
            expires_at: snapshot.expires_at_ms.map(Timestamp),
            stateful: false,
            size: snapshot.bytes,
        }
    }
}

impl Snapshots {
    pub(crate) fn new(snapshots: &[control::Snapshot], pagination: Pagination) -> Self {
        Self { snapshots: snapshots.iter().map(Snapshot::new).collect(), pagination }
    }
}

impl ContainerSnapshots {
    pub(crate) fn new(of: &control::ContainerSnapshots) -> Self {
        let snapshots: Vec<Snapshot> = of.snapshots.iter().map(Snapshot::new).collect();
        Self {
            container_id: of.container.into(),
            project_id: of.project.into(),
            snapshot_count: snapshots.len() as u64,
            max_snapshots: Some(of.max),
            snapshots,
        }
    }
}

impl OneSnapshot {
    pub(crate) fn new(snapshot: &control::Snapshot) -> Self {
        Self {
            container_id: snapshot.container.into(),
            project_id: snapshot.project.into(),
            snapshot: Snapshot::new(snapshot),
        }
    }
}

impl Restored {
    pub(crate) fn new(restored: &control::Restored, message: &str) -> Self {
        let record = &restored.container.record;
        Self {
            success: restored.done,
            message: message.to_owned(),
            snapshot: Some(Snapshot::new(&restored.snapshot)),
            container_id: record.id.into(),
            status: record.status.phase.api_status(),
            operation_id: operation_id(record),
        }
    }
}

impl DeletedSnapshot {
    pub(crate) fn new(snapshot: &control::Snapshot) -> Self {
        Self {
            container_id: snapshot.container.into(),
            project_id: snapshot.project.into(),
            snapshot_name: snapshot.name.clone(),
        }
    }
}

impl Synced {
    pub(crate) fn new(record: &control::Container) -> Self {
        Self {
            container_id: record.id.into(),
            source_container_id: record.source.map(Hex::from),
            status: record.status.phase.api_status(),
            operation_id: operation_id(record),
        }
    }
}
