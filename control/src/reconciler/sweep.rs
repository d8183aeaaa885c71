//! Forgets old idempotency keys, activity and events.

use gantry_store::EventFilter;

use super::pass::Shared;
use crate::{activity, events, idempotency};

/// Removes, in parts, what is too old or too much. Dropping this leaves the rest to the next time.
pub(super) async fn run(shared: &Shared, now_ms: i64) {
    let (store, config) = (&shared.store, &shared.config);
    let before_ms = now_ms.saturating_sub(idempotency::KEPT_MS);
    if let Err(error) = store.sweep_idempotency(before_ms).await {
        tracing::warn!(%error, "old idempotency keys were not removed");
    }
    let before_ms = now_ms.saturating_sub(activity::KEPT_MS);
    if let Err(error) = store.sweep_activity(before_ms).await {
        tracing::warn!(%error, "old entries of the activity log were not removed");
    }
    let to_ms = Some(now_ms.saturating_sub(events::KEPT_MS));
    let old = EventFilter { to_ms, ..EventFilter::default() };
    for swept in [
        store.delete_events(old).await,
        store.trim_events(config.events_max).await,
        store.trim_activity(config.activity_max).await,
    ] {
        if let Err(error) = swept {
            tracing::warn!(%error, "old events or entries of the activity log were not removed");
        }
    }
}
