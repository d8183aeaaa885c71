//! The vault.

use gantry_control as control;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{Hex, Timestamp};

/// A key of the vault, without its value.
#[derive(Serialize, ToSchema)]
pub(crate) struct VaultKey {
    key: String,
    /// The realm that it belongs to, if any.
    realm_id: Option<Hex>,
    /// What its owner says of it.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Box<RawValue>>,
    /// The octets of value and metadata.
    size_bytes: u64,
    created_at: Timestamp,
    updated_at: Timestamp,
}

/// A key of the vault with its value.
#[derive(Serialize, ToSchema)]
pub(crate) struct VaultValue {
    #[serde(flatten)]
    key: VaultKey,
    value: String,
}

/// How much there is in the vault.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VaultStats {
    total_keys: u64,
    total_size_bytes: u64,
    total_size_mb: f64,
    /// What the account may have in all of its realms.
    limit_mb: f64,
    /// How much of that it has.
    used_percentage: f64,
    remaining_mb: f64,
}

/// How many keys were removed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ClearedVault {
    deleted_count: u64,
}

impl VaultKey {
    pub(crate) fn new(key: control::VaultKey) -> Self {
        Self {
            key: key.key,
            realm_id: key.realm.map(Hex::from),
            metadata: key.metadata.and_then(|text| RawValue::from_string(text).ok()),
            size_bytes: key.octets,
            created_at: Timestamp(key.created_at_ms),
            updated_at: Timestamp(key.updated_at_ms),
        }
    }
}

impl VaultValue {
    pub(crate) fn new(value: control::VaultValue) -> Self {
        Self { key: VaultKey::new(value.key), value: value.value }
    }
}

impl VaultStats {
    pub(crate) fn new(stats: control::VaultStats) -> Self {
        let used = stats.octets_of_all.saturating_mul(10_000) / stats.octets_max.max(1);
        Self {
            total_keys: stats.keys,
            total_size_bytes: stats.octets,
            total_size_mb: mebibytes(stats.octets),
            limit_mb: mebibytes(stats.octets_max),
            used_percentage: hundredths(used),
            remaining_mb: mebibytes(stats.octets_max.saturating_sub(stats.octets_of_all)),
        }
    }
}

impl ClearedVault {
    pub(crate) fn new(deleted_count: u64) -> Self {
        Self { deleted_count }
    }
}

/// Mebibytes with two decimals.
fn mebibytes(octets: u64) -> f64 {
    hundredths(octets.saturating_mul(100) >> 20)
}

/// A number of hundredths; more than a `u32` of them say no more.
fn hundredths(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / 100.0
}
