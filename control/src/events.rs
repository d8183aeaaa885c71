//! Events: what happened to the things that an actor sees.

use gantry_model::{ContainerId, EventId, FieldError, ProjectId, RealmId};
use gantry_store::{Event, EventFilter, EventTotals, Listed, Span};
use tokio::sync::watch;

use crate::{
    actor::{Actor, Via},
    controller::Controller,
    error::{Error, Forbidden, Result, Thing},
    permissions::Leaf,
};

/// How long events are kept, in milliseconds: 30 days.
pub(crate) const KEPT_MS: i64 = 30 * 86_400_000;

/// Which events are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventQuery {
    /// Only those of this realm; must be the host's realm if that has one.
    pub realm: Option<RealmId>,
    /// Only those of this kind.
    pub kind: Option<String>,
    /// Only those about things of this sort.
    pub resource_type: Option<String>,
    /// Only those about this thing.
    pub resource_id: Option<String>,
    /// Only those of this project.
    pub project: Option<ProjectId>,
    /// Only those of this container.
    pub container: Option<ContainerId>,
    /// Only those of this time or later, in milliseconds since the epoch.
    pub from_ms: Option<i64>,
    /// Only those of this time or earlier, in milliseconds since the epoch.
    pub to_ms: Option<i64>,
}

impl Controller {
    /// Lists events about the actor's things.
    pub async fn events(
        &self,
        actor: &Actor,
        query: EventQuery,
        by_kind: bool,
        span: Span,
    ) -> Result<Listed<Event>> {
        let filter = filter(actor, query)?;
        Ok(self.store().events(filter, by_kind, span).await?)
    }

    /// Events after the one with this number, oldest first; at most `limit`. It need not exist any more.
    pub async fn events_after(
        &self,
        actor: &Actor,
        realm: Option<RealmId>,
        seq: u64,
        limit: u32,
    ) -> Result<Vec<Event>> {
        let filter = filter(actor, EventQuery { realm, ..EventQuery::default() })?;
        Ok(self.store().events_after(filter, seq, limit).await?)
    }

    /// The newest event about the actor's things.
    pub async fn newest_event(
        &self,
        actor: &Actor,
        realm: Option<RealmId>,
    ) -> Result<Option<EventId>> {
        let span = Span { offset: 0, limit: 1, descending: true };
        let query = EventQuery { realm, ..EventQuery::default() };
        let listed = self.events(actor, query, false, span).await?;
        Ok(listed.items.first().map(|event| event.id))
    }

    /// Changes when something has happened, to whomever.
    pub fn event_head(&self) -> watch::Receiver<u64> {
        self.store().event_head()
    }

    /// How many events about the actor's things there are.
    pub async fn event_totals(&self, actor: &Actor, realm: Option<RealmId>) -> Result<EventTotals> {
        let filter = filter(actor, EventQuery { realm, ..EventQuery::default() })?;
        Ok(self.store().event_totals(filter).await?)
    }

    /// One event about the actor's things.
    pub async fn event(&self, actor: &Actor, id: EventId) -> Result<Event> {
        may_see(actor)?;
        let event = self.store().event(id).await?;
        event
            .filter(|event| actor.user == event.owner && actor.is_in(&event.realms))
            .ok_or(Error::NotFound(Thing::Event))
    }

    /// Whether an event with this number has happened, to whomever; it may be removed since.
    pub async fn has_happened(&self, seq: u64) -> Result<bool> {
        Ok(self.store().has_happened(seq).await?)
    }

    /// Removes one event about the actor's things.
    pub async fn delete_event(&self, actor: &Actor, id: EventId) -> Result<()> {
        may_remove(actor)?;
        self.event(actor, id).await?;
        match self.store().delete_event(id).await {
            Err(gantry_store::Error::NotFound) => Err(Error::NotFound(Thing::Event)),
            other => Ok(other?),
        }
    }

    /// Removes events about the actor's things; returns how many.
    pub async fn delete_events(&self, actor: &Actor, query: EventQuery) -> Result<u64> {
        may_remove(actor)?;
        Ok(self.store().delete_events(filter(actor, query)?).await?)
    }

    /// Removes events that are older than so many days, 1 to 365; returns how many, and the time before
    /// which there are none now.
    pub async fn clean_events(&self, actor: &Actor, days: u32) -> Result<(u64, i64)> {
        if !(1..=365).contains(&days) {
            let rule = "must be an integer from 1 to 365";
            return Err(Error::Invalid(vec![FieldError::new("retention_days", rule)]));
        }
        let cutoff_ms = self.now_ms().saturating_sub(i64::from(days) * 86_400_000);
        let query = EventQuery { to_ms: Some(cutoff_ms), ..EventQuery::default() };
        Ok((self.delete_events(actor, query).await?, cutoff_ms))
    }
}

/// A token needs the permission and the switch.
fn may_see(actor: &Actor) -> Result<(), Forbidden> {
    actor.require(Leaf::ResourcesEvents)?;
    match actor.via {
        Via::Token { event_access: false, .. } => Err(Forbidden::Leaf(Leaf::ResourcesEvents)),
        Via::Token { .. } | Via::Session { .. } | Via::Password => Ok(()),
    }
}

/// There is no permission of its own for it: a token needs the one to remove what the events are about,
/// so that one that only reads removes nothing.
fn may_remove(actor: &Actor) -> Result<(), Forbidden> {
    may_see(actor)?;
    actor.require(Leaf::ContainersDelete)
}

fn filter(actor: &Actor, query: EventQuery) -> Result<EventFilter, Forbidden> {
    may_see(actor)?;
    Ok(EventFilter {
        owner: Some(actor.user),
        realm: actor.realm_filter(query.realm)?,
        kind: query.kind,
        resource_type: query.resource_type,
        resource_id: query.resource_id,
        project: query.project,
        container: query.container,
        from_ms: query.from_ms,
        to_ms: query.to_ms,
    })
}
