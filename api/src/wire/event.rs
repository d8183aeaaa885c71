//! Events.

use std::collections::BTreeMap;

use gantry_control as control;
use gantry_model::EventId;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{Hex, Timestamp};

/// Something that happened.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Event {
    id: Hex,
    /// Such as `container.running`.
    event_type: String,
    /// Such as `container`.
    resource_type: String,
    resource_id: String,
    /// Whose thing it is about.
    user_id: Hex,
    #[schema(value_type = Object)]
    payload: Value,
    /// The realms that the thing was visible in then.
    realm_ids: Vec<Hex>,
    created_at: Timestamp,
}

/// A part of the events.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Events {
    events: Vec<Event>,
    pagination: EventsPart,
    /// Only by a cursor: what newer ones come after.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<Hex>,
    /// Only by a cursor: the newest event there is.
    #[serde(skip_serializing_if = "Option::is_none")]
    latest_cursor: Option<Hex>,
}

/// Which part it is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EventsPart {
    /// -1 by a cursor, which counts nothing.
    total: i64,
    limit: u32,
    offset: u64,
    has_more: bool,
}

/// How many events there are.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EventTotals {
    total_events: u64,
    by_type: BTreeMap<String, u64>,
    by_resource: BTreeMap<String, u64>,
    oldest_event: Option<Timestamp>,
    newest_event: Option<Timestamp>,
}

/// How many events were removed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeletedEvents {
    deleted_count: u64,
}

/// What a clean-up has done.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CleanedEvents {
    deleted_count: u64,
    retention_days: u32,
    cutoff_date: Timestamp,
}

impl Event {
    pub(crate) fn new(event: &control::Event) -> Self {
        Self {
            id: event.id.into(),
            event_type: event.kind.clone(),
            resource_type: event.resource_type.clone(),
            resource_id: event.resource_id.clone(),
            user_id: event.owner.into(),
            payload: event.payload.clone(),
            realm_ids: event.realms.iter().copied().map(Hex::from).collect(),
            created_at: Timestamp(event.at_ms),
        }
    }

    /// Its text in a stream of server-sent events.
    pub(crate) fn told(&self) -> String {
        let text = serde_json::json!(self);
        // JSON holds no line break.
        let id = text.get("id").and_then(Value::as_str).unwrap_or_default();
        format!("id: {id}\nevent: {}\ndata: {text}\n\n", self.event_type)
    }
}

impl Events {
    pub(crate) fn page(listed: &control::Listed<control::Event>, span: control::Span) -> Self {
        let shown = listed.items.len() as u64;
        Self {
            events: listed.items.iter().map(Event::new).collect(),
            pagination: EventsPart {
                total: i64::try_from(listed.total).unwrap_or(i64::MAX),
                limit: span.limit,
                offset: span.offset,
                has_more: span.offset.saturating_add(shown) < listed.total,
            },
            next_cursor: None,
            latest_cursor: None,
        }
    }

    /// `after` is where the reader was; `latest` the newest event before the reading.
    pub(crate) fn by_cursor(
        events: &[control::Event],
        after: Option<EventId>,
        latest: Option<EventId>,
        limit: u32,
    ) -> Self {
        let newest = events.last().map(|event| event.id);
        let has_more = events.len() as u64 >= u64::from(limit) && newest < latest;
        Self {
            events: events.iter().map(Event::new).collect(),
            pagination: EventsPart { total: -1, limit, offset: 0, has_more },
            next_cursor: newest.or(after).or(latest).map(Hex::from),
            latest_cursor: newest.max(latest).map(Hex::from),
        }
    }
}

impl EventTotals {
    pub(crate) fn new(totals: control::EventTotals) -> Self {
        Self {
            total_events: totals.by_kind.values().sum(),
            by_type: totals.by_kind,
            by_resource: totals.by_resource,
            oldest_event: totals.oldest_ms.map(Timestamp),
            newest_event: totals.newest_ms.map(Timestamp),
        }
    }
}

impl DeletedEvents {
    pub(crate) fn new(deleted_count: u64) -> Self {
        Self { deleted_count }
    }
}

impl CleanedEvents {
    pub(crate) fn new(deleted_count: u64, retention_days: u32, cutoff_ms: i64) -> Self {
        Self { deleted_count, retention_days, cutoff_date: Timestamp(cutoff_ms) }
    }
}
