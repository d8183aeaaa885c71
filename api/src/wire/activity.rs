//! The log of what was written.

use gantry_control as control;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Hex, Timestamp};

/// A request that was no read, and the status of its answer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Activity {
    id: Hex,
    user_id: Hex,
    /// The token that it was asked with; `null` for sessions and passwords.
    token_id: Option<Hex>,
    /// The realm of the host that was asked.
    realm_id: Option<Hex>,
    method: String,
    /// Without its query.
    path: String,
    status_code: u16,
    ip_address: Option<String>,
    user_agent: Option<String>,
    created_at: Timestamp,
}

/// How much is kept.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ActivityTotals {
    /// The octets of all texts.
    total_size_bytes: u64,
    total_records: u64,
    oldest_record: Option<Timestamp>,
    newest_record: Option<Timestamp>,
    retention_days: u32,
}

/// Where a page stands in a list; beside `data`.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Metadata {
    total: u64,
    page: u32,
    limit: u32,
    pages: u64,
}

impl Activity {
    pub(crate) fn new(entry: &control::Activity) -> Self {
        Self {
            id: entry.id.into(),
            user_id: entry.owner.into(),
            token_id: entry.token.map(Hex::from),
            realm_id: entry.realm.map(Hex::from),
            method: entry.method.clone(),
            path: entry.path.clone(),
            status_code: entry.status,
            ip_address: entry.ip.clone(),
            user_agent: entry.user_agent.clone(),
            created_at: Timestamp(entry.at_ms),
        }
    }
}

impl ActivityTotals {
    pub(crate) fn new(totals: &control::ActivityTotals) -> Self {
        Self {
            total_size_bytes: totals.bytes,
            total_records: totals.records,
            oldest_record: totals.oldest_ms.map(Timestamp),
            newest_record: totals.newest_ms.map(Timestamp),
            retention_days: control::RETENTION_DAYS,
        }
    }
}

impl Metadata {
    pub(crate) fn new(total: u64, page: u32, limit: u32) -> Self {
        Self { total, page, limit, pages: total.div_ceil(u64::from(limit.max(1))) }
    }
}
