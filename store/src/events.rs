//! Events: what happened to the things of an owner, in the order of the commits.
//!
//! They are written in the transaction of what they tell, so that there is one for each change and none
//! for what did not happen. Numbers never come twice; an event's id holds its number, so that a reader who
//! has come to an event that was removed meanwhile still knows where to go on.

use std::collections::BTreeMap;

use gantry_model::{ContainerId, EventId, ProjectId, RealmId, UserId};
use serde_json::Value;
use sqlx::QueryBuilder;
use tokio::sync::watch;

use crate::{
    Store,
    columns::{self, damaged, integer, natural},
    error::{Error, Result, failed},
    listing::{self, Condition, EVENT_REALMS, List, Span},
    record::Listed,
    sqlite::{self, Connection, Db, Row},
    writer::Tx,
};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its id, which holds its number.
    pub id: EventId,
    /// Whose thing it is about.
    pub owner: UserId,
    /// What happened, such as `container.running`.
    pub kind: String,
    /// What sort of thing it is about, such as `container`.
    pub resource_type: String,
    /// The id of the thing.
    pub resource_id: String,
    /// The project that it belongs to.
    pub project: Option<ProjectId>,
    /// The container that it belongs to.
    pub container: Option<ContainerId>,
    /// What is to be told about it, an object.
    pub payload: Value,
    /// The realms that the thing was visible in then.
    pub realms: Vec<RealmId>,
    /// When it happened.
    pub at_ms: i64,
}

/// Which events are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Only those about the things of this user.
    pub owner: Option<UserId>,
    /// Only those of this realm.
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
    /// Only those of this time or later.
    pub from_ms: Option<i64>,
    /// Only those of this time or earlier.
    pub to_ms: Option<i64>,
}

/// How many events there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventTotals {
    /// By what happened.
    pub by_kind: BTreeMap<String, u64>,
    /// By the sort of thing.
    pub by_resource: BTreeMap<String, u64>,
    /// When the oldest happened.
    pub oldest_ms: Option<i64>,
    /// When the newest happened.
    pub newest_ms: Option<i64>,
}

/// What a transaction tells.
pub(crate) struct NewEvent<'e> {
    pub(crate) owner: UserId,
    pub(crate) kind: &'e str,
    pub(crate) resource_type: &'static str,
    pub(crate) resource_id: String,
    pub(crate) project: Option<ProjectId>,
    pub(crate) container: Option<ContainerId>,
    pub(crate) payload: Value,
    pub(crate) realms: &'e [RealmId],
    pub(crate) at_ms: i64,
}

/// The id of the event with this number.
fn id_of(seq: u64, at_ms: i64) -> EventId {
    let mut bytes = [0; 12];
    let (number, rest) = bytes.split_at_mut(8);
    number.copy_from_slice(&seq.to_be_bytes());
    let [_, _, _, _, tail @ ..] = at_ms.to_be_bytes();
    rest.copy_from_slice(&tail);
    EventId::from_bytes(bytes)
}

/// The number of the event with this id.
pub fn event_number(id: EventId) -> u64 {
    id.as_bytes().first_chunk().map_or(0, |number| u64::from_be_bytes(*number))
}

/// Adds an event; it is told when the transaction commits.
pub(crate) async fn add(tx: &mut Tx, event: NewEvent<'_>) -> Result<()> {
    let seq: i64 =
        sqlx::query_scalar("UPDATE event_head SET seq = seq + 1 WHERE id = 1 RETURNING seq")
            .fetch_one(&mut tx.connection)
            .await
            .map_err(failed)?;
    let seq = natural(seq, "seq")?;
    let id = id_of(seq, event.at_ms);
    sqlx::query(
        "INSERT INTO events (seq, id, owner, kind, resource_type, resource_id, project, \
         container, payload, at_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(integer(seq))
    .bind(id.as_bytes().as_slice())
    .bind(event.owner.as_bytes().as_slice())
    .bind(event.kind)
    .bind(event.resource_type)
    .bind(event.resource_id)
    .bind(event.project.as_ref().map(|id| id.as_bytes().as_slice()))
    .bind(event.container.as_ref().map(|id| id.as_bytes().as_slice()))
    .bind(event.payload.to_string())
    .bind(event.at_ms)
    .execute(&mut tx.connection)
    .await
    .map_err(failed)?;
    listing::set_event_realms(tx, id, event.realms).await?;
    tx.happened(seq);
    Ok(())
}

/// The number of the newest event.
pub(crate) async fn head(connection: &mut Connection) -> Result<u64> {
    let seq: i64 = sqlx::query_scalar("SELECT seq FROM event_head WHERE id = 1")
        .fetch_one(connection)
        .await
        .map_err(failed)?;
    natural(seq, "seq")
}

impl EventFilter {
    fn conditions(self) -> Vec<Condition> {
        [
            Condition::is("owner", self.owner),
            Condition::is("project", self.project),
            Condition::is("container", self.container),
            self.realm.map(|realm| Condition::InRealm(&EVENT_REALMS, realm)),
            self.kind.map(|kind| Condition::Text("kind", kind)),
            self.resource_type.map(|sort| Condition::Text("resource_type", sort)),
            self.resource_id.map(|id| Condition::Text("resource_id", id)),
            self.from_ms.map(|from_ms| Condition::AtLeast("at_ms", from_ms)),
            self.to_ms.map(|to_ms| Condition::AtMost("at_ms", to_ms)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

impl Store {
    /// The number of the newest event; changes after each commit that told something. Numbers may be
    /// skipped.
    pub fn event_head(&self) -> watch::Receiver<u64> {
        self.shared.event_head.clone()
    }

    /// Whether there has been an event of this number.
    pub async fn has_happened(&self, seq: u64) -> Result<bool> {
        if seq <= *self.shared.event_head.borrow() {
            return Ok(true);
        }
        // It may have been committed and read, and not be told yet.
        let head: i64 = sqlx::query_scalar("SELECT seq FROM event_head WHERE id = 1")
            .fetch_one(self.readers())
            .await
            .map_err(failed)?;
        Ok(seq <= natural(head, "seq")?)
    }

    /// Lists events by their number, or by their kind.
    pub async fn events(
        &self,
        filter: EventFilter,
        by_kind: bool,
        span: Span,
    ) -> Result<Listed<Event>> {
        let conditions = filter.conditions();
        let order = if by_kind { "kind" } else { "seq" };
        let list = List { table: "events", conditions: &conditions, order, tie: "seq" };
        let mut listed = list.read_span(self.readers(), span, event).await?;
        self.add_realms(&mut listed.items).await?;
        Ok(listed)
    }

    /// Events after a number, oldest first, at most `limit`.
    pub async fn events_after(
        &self,
        filter: EventFilter,
        seq: u64,
        limit: u32,
    ) -> Result<Vec<Event>> {
        let mut conditions = filter.conditions();
        conditions.push(Condition::AtLeast("seq", integer(seq.saturating_add(1))));
        let list = List { table: "events", conditions: &conditions, order: "seq", tie: "seq" };
        let mut events = list.first(self.readers(), limit, event).await?;
        self.add_realms(&mut events).await?;
        Ok(events)
    }

    /// One event.
    pub async fn event(&self, id: EventId) -> Result<Option<Event>> {
        let row: Option<Row> = sqlx::query("SELECT * FROM events WHERE id = $1")
            .bind(id.as_bytes().as_slice())
            .fetch_optional(self.readers())
            .await
            .map_err(failed)?;
        let mut events: Vec<Event> = row.iter().map(event).collect::<Result<_>>()?;
        self.add_realms(&mut events).await?;
        Ok(events.pop())
    }

    async fn add_realms(&self, events: &mut [Event]) -> Result<()> {
        if events.is_empty() {
            return Ok(());
        }
        let mut query =
            QueryBuilder::<Db>::new("SELECT realm, event FROM event_realms WHERE event IN (");
        let mut ids = query.separated(", ");
        for event in events.iter() {
            ids.push_bind(event.id.as_bytes().to_vec());
        }
        query.push(") ORDER BY realm");
        let rows: Vec<Row> = query.build().fetch_all(self.readers()).await.map_err(failed)?;
        let mut realms: BTreeMap<[u8; 12], Vec<RealmId>> = BTreeMap::new();
        for row in &rows {
            let realm = columns::id(row, "realm")?;
            realms.entry(columns::octets(row, "event")?).or_default().push(realm);
        }
        for event in events {
            event.realms = realms.remove(event.id.as_bytes()).unwrap_or_default();
        }
        Ok(())
    }

    /// Counts events, at one instant.
    pub async fn event_totals(&self, filter: EventFilter) -> Result<EventTotals> {
        let conditions = filter.conditions();
        let mut tx = sqlite::begin_read(self.readers()).await.map_err(failed)?;
        let mut totals = EventTotals::default();
        for (column, counts) in
            [("kind", &mut totals.by_kind), ("resource_type", &mut totals.by_resource)]
        {
            let mut query = QueryBuilder::<Db>::new("SELECT ");
            query.push(column).push(" AS word, count(*) AS n FROM ");
            listing::push_selection(&mut query, "events", &conditions);
            query.push(" GROUP BY ").push(column);
            let rows: Vec<Row> = query.build().fetch_all(&mut *tx).await.map_err(failed)?;
            for row in &rows {
                let count = natural(columns::get(row, "n")?, "n")?;
                counts.insert(columns::get(row, "word")?, count);
            }
        }
        let mut query = QueryBuilder::<Db>::new("SELECT min(at_ms) AS a, max(at_ms) AS z FROM ");
        listing::push_selection(&mut query, "events", &conditions);
        let row: Row = query.build().fetch_one(&mut *tx).await.map_err(failed)?;
        totals.oldest_ms = columns::get(&row, "a")?;
        totals.newest_ms = columns::get(&row, "z")?;
        Ok(totals)
    }

    /// Removes an event.
    pub async fn delete_event(&self, id: EventId) -> Result<()> {
        self.write(move |tx| {
            Box::pin(async move {
                let done = sqlx::query("DELETE FROM events WHERE id = $1")
                    .bind(id.as_bytes().as_slice())
                    .execute(&mut tx.connection)
                    .await
                    .map_err(failed)?;
                if done.rows_affected() == 0 { Err(Error::NotFound) } else { Ok(()) }
            })
        })
        .await
    }

    /// Removes events that have happened by now, in parts between which others write; returns how many.
    /// Dropped, it has removed some.
    pub async fn delete_events(&self, filter: EventFilter) -> Result<u64> {
        let newest = integer(*self.shared.event_head.borrow());
        self.delete_events_to(filter, newest).await
    }

    async fn delete_events_to(&self, filter: EventFilter, last: i64) -> Result<u64> {
        let mut conditions = filter.conditions();
        conditions.push(Condition::AtMost("seq", last));
        listing::delete_in_parts(self, ("events", "seq"), &conditions).await
    }

    /// Removes the oldest events of every account that has more than `max`; returns how many.
    pub async fn trim_events(&self, max: u32) -> Result<u64> {
        let mut removed = 0;
        for owner in self.user_ids().await? {
            // The newest of those that are too many.
            let first: Option<i64> = sqlx::query_scalar(
                "SELECT seq FROM events WHERE owner = $1 ORDER BY seq DESC LIMIT 1 OFFSET $2",
            )
            .bind(owner.as_bytes().as_slice())
            .bind(i64::from(max))
            .fetch_optional(self.readers())
            .await
            .map_err(failed)?;
            if let Some(seq) = first {
                let filter = EventFilter { owner: Some(owner), ..EventFilter::default() };
                removed += self.delete_events_to(filter, seq).await?;
            }
        }
        Ok(removed)
    }
}

fn event(row: &Row) -> Result<Event> {
    let id = columns::id(row, "id")?;
    let read = || -> Result<Event> {
        let payload: &str = columns::get(row, "payload")?;
        Ok(Event {
            id,
            owner: columns::id(row, "owner")?,
            kind: columns::get(row, "kind")?,
            resource_type: columns::get(row, "resource_type")?,
            resource_id: columns::get(row, "resource_id")?,
            project: columns::optional_id(row, "project")?,
            container: columns::optional_id(row, "container")?,
            payload: serde_json::from_str(payload)
                .map_err(|_error| damaged("payload", "is no JSON"))?,
            realms: Vec::new(),
            at_ms: columns::get(row, "at_ms")?,
        })
    };
    read().map_err(columns::of("event", id))
}
