//! What is said on the live feed.

use gantry_control as control;
use gantry_model::{RealmId, UserId};
use serde::Serialize;
use serde_json::Value;

use super::{Activity, Hex, Timestamp};

/// One message. Clients tell them apart by `type`.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Frame<'f> {
    /// The first.
    #[serde(rename_all = "camelCase")]
    Welcome { user_id: Hex, realm_id: Option<Hex> },
    /// Something happened.
    Event {
        /// Such as `container.running`.
        event: &'f str,
        data: Value,
        timestamp: Timestamp,
        #[serde(rename = "eventId")]
        event_id: Hex,
        resource_type: &'f str,
        resource_id: String,
        project_id: Option<Hex>,
        container_id: Option<Hex>,
        realm_ids: Vec<Hex>,
        /// Whether it is told now or never.
        ephemeral: bool,
    },
    /// The client was not let in, or something that it asked for was refused.
    Error { error: &'f str, message: &'f str },
    /// The client may not hear what happens any more.
    Revoked { reason: &'f str, message: &'f str },
    /// The client hears of activity from now on.
    ActivitySubscribed,
}

impl<'f> Frame<'f> {
    pub(crate) fn welcome(user: UserId, realm: Option<RealmId>) -> Self {
        Self::Welcome { user_id: user.into(), realm_id: realm.map(Hex::from) }
    }

    pub(crate) fn event(event: &'f control::Event) -> Self {
        Self::Event {
            event: &event.kind,
            data: event.payload.clone(),
            timestamp: Timestamp(event.at_ms),
            event_id: event.id.into(),
            resource_type: &event.resource_type,
            resource_id: event.resource_id.clone(),
            project_id: event.project.map(Hex::from),
            container_id: event.container.map(Hex::from),
            realm_ids: event.realms.iter().copied().map(Hex::from).collect(),
            ephemeral: false,
        }
    }

    pub(crate) fn activity(entry: &control::Activity) -> Self {
        Self::Event {
            event: "activity.logged",
            data: serde_json::json!(Activity::new(entry)),
            timestamp: Timestamp(entry.at_ms),
            event_id: entry.id.into(),
            resource_type: "activity_log",
            resource_id: entry.id.to_string(),
            project_id: None,
            container_id: None,
            realm_ids: entry.realm.into_iter().map(Hex::from).collect(),
            ephemeral: true,
        }
    }
}
