//! Realms.

use std::collections::BTreeMap;

use gantry_control as control;
use gantry_model::RealmId;
use serde::Serialize;
use utoipa::ToSchema;

use super::Hex;

/// The realms of what the caller sees.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Realms {
    realm_ids: Vec<Hex>,
    total: usize,
    /// By realm; only with `include_usage=true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BTreeMap<String, RealmUse>>)]
    usage: Option<BTreeMap<String, RealmUse>>,
}

/// How much carries a realm.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RealmUse {
    projects: u64,
    containers: u64,
    /// Servers carry no realms.
    servers: u64,
    /// The caller's own.
    auth_tokens: u64,
}

impl Realms {
    pub(crate) fn new(realms: &BTreeMap<RealmId, control::RealmView>, with_usage: bool) -> Self {
        let usage = |view: &control::RealmView| RealmUse {
            projects: view.records.projects,
            containers: view.records.containers,
            servers: 0,
            auth_tokens: view.tokens,
        };
        let all = || realms.iter().map(|(realm, view)| (realm.to_string(), usage(view))).collect();
        Self {
            realm_ids: realms.keys().copied().map(Hex::from).collect(),
            total: realms.len(),
            usage: with_usage.then(all),
        }
    }
}
