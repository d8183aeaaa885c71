//! Lists: conditions, order, pages and totals, with only our own words in the statement's text.

use gantry_model::{ContainerId, EventId, Id, ProjectId, RealmId, SnapshotId, UserId};
use sqlx::QueryBuilder;

use crate::{
    Store,
    columns::{integer, natural},
    error::{Result, failed},
    record::{Listed, Page},
    sqlite::{self, Connection, Db, Readers, Row},
    writer::Tx,
};

/// How many rows are removed at once.
const AT_ONCE: u32 = 1_000;

/// A condition of a list, to be joined with `AND`.
#[derive(Clone)]
pub(crate) enum Condition {
    /// A column of ids holds this one.
    Is(&'static str, [u8; 12]),
    /// The record is of this user, or of a project that this column names and that it is a member of.
    SeenBy(&'static str, [u8; 12]),
    /// A column of words does not hold this one.
    IsNot(&'static str, &'static str),
    /// A column holds this text.
    Text(&'static str, String),
    /// A column holds one of these texts, of which there is at least one.
    OneOf(&'static str, Vec<String>),
    /// A column holds false.
    Not(&'static str),
    /// A column holds this number or a greater one.
    AtLeast(&'static str, i64),
    /// A column holds this number or a smaller one.
    AtMost(&'static str, i64),
    /// The record is visible in a realm.
    InRealm(&'static Membership, RealmId),
}

/// A table of realms and the column beside `realm` that names a record.
pub(crate) struct Membership {
    pub(crate) table: &'static str,
    pub(crate) column: &'static str,
}

/// In which realms projects are visible.
pub(crate) const PROJECT_REALMS: Membership =
    Membership { table: "project_realms", column: "project" };
/// In which realms events are visible.
pub(crate) const EVENT_REALMS: Membership = Membership { table: "event_realms", column: "event" };
/// In which realms snapshots are visible.
pub(crate) const SNAPSHOT_REALMS: Membership =
    Membership { table: "snapshot_realms", column: "snapshot" };
/// In which realms containers are visible.
pub(crate) const CONTAINER_REALMS: Membership =
    Membership { table: "container_realms", column: "container" };

impl Condition {
    /// The condition that a column holds an id, if one is given.
    pub(crate) fn is<K>(column: &'static str, id: Option<Id<K>>) -> Option<Self> {
        id.map(|id| Self::Is(column, *id.as_bytes()))
    }

    /// The condition that a user sees the record, whose project stands in `column`, if one is given.
    pub(crate) fn seen_by(column: &'static str, user: Option<UserId>) -> Option<Self> {
        user.map(|user| Self::SeenBy(column, *user.as_bytes()))
    }
}

/// A part of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// How many entries come before it.
    pub offset: u64,
    /// The most entries of it.
    pub limit: u32,
    /// Whether the greatest come first.
    pub descending: bool,
}

/// What is listed, from which table, in which order.
pub(crate) struct List<'l> {
    pub(crate) table: &'static str,
    pub(crate) conditions: &'l [Condition],
    /// What to sort by.
    pub(crate) order: &'static str,
    /// What breaks ties.
    pub(crate) tie: &'static str,
}

impl List<'_> {
    /// Reads one page and counts all, at one instant.
    pub(crate) async fn read<S, T>(
        &self,
        readers: &Readers,
        page: Page<S>,
        decode: impl Fn(&Row) -> Result<T> + Send,
    ) -> Result<Listed<T>>
    where
        S: Send,
    {
        let offset = u64::from(page.page.saturating_sub(1)).saturating_mul(u64::from(page.limit));
        let span = Span { offset, limit: page.limit, descending: page.descending };
        self.read_span(readers, span, decode).await
    }

    /// Reads a part of it and counts all, at one instant.
    pub(crate) async fn read_span<T>(
        &self,
        readers: &Readers,
        span: Span,
        decode: impl Fn(&Row) -> Result<T> + Send,
    ) -> Result<Listed<T>> {
        let mut tx = sqlite::begin_read(readers).await.map_err(failed)?;
        let mut count = QueryBuilder::<Db>::new("SELECT count(*) FROM ");
        push_selection(&mut count, self.table, self.conditions);
        let total: i64 = count.build_query_scalar().fetch_one(&mut *tx).await.map_err(failed)?;
        let rows: Vec<Row> = self.query(span).build().fetch_all(&mut *tx).await.map_err(failed)?;
        Ok(Listed {
            items: rows.iter().map(decode).collect::<Result<_>>()?,
            total: natural(total, "count")?,
        })
    }

    /// Reads the first ones, in ascending order, and counts nothing.
    pub(crate) async fn first<T>(
        &self,
        readers: &Readers,
        limit: u32,
        decode: impl Fn(&Row) -> Result<T> + Send,
    ) -> Result<Vec<T>> {
        let span = Span { offset: 0, limit, descending: false };
        let rows: Vec<Row> = self.query(span).build().fetch_all(readers).await.map_err(failed)?;
        rows.iter().map(decode).collect()
    }

    fn query(&self, span: Span) -> QueryBuilder<Db> {
        let mut query = QueryBuilder::<Db>::new("SELECT * FROM ");
        push_selection(&mut query, self.table, self.conditions);
        let direction = if span.descending { " DESC" } else { " ASC" };
        query.push(" ORDER BY ").push(self.order).push(direction);
        if self.order != self.tie {
            query.push(", ").push(self.tie).push(direction);
        }
        query.push(" LIMIT ").push_bind(i64::from(span.limit));
        query.push(" OFFSET ").push_bind(integer(span.offset));
        query
    }
}

/// Removes the rows that meet all conditions, in parts between which others write; returns how many.
/// Dropped, it has removed some. `key` is the table's key.
pub(crate) async fn delete_in_parts(
    store: &Store,
    (table, key): (&'static str, &'static str),
    conditions: &[Condition],
) -> Result<u64> {
    let mut removed = 0;
    loop {
        let conditions = conditions.to_vec();
        let part = store
            .write(move |tx| {
                Box::pin(async move {
                    let mut query = QueryBuilder::<Db>::new("DELETE FROM ");
                    query.push(table).push(" WHERE ").push(key).push(" IN (SELECT ").push(key);
                    push_selection(query.push(" FROM "), table, &conditions);
                    query.push(" LIMIT ").push_bind(i64::from(AT_ONCE)).push(")");
                    let done = query.build().execute(&mut tx.connection).await.map_err(failed)?;
                    Ok(done.rows_affected())
                })
            })
            .await?;
        removed += part;
        if part < u64::from(AT_ONCE) {
            return Ok(removed);
        }
    }
}

/// A table and the conditions that its rows must meet, as the end of a statement.
pub(crate) fn push_selection(
    query: &mut QueryBuilder<Db>,
    table: &'static str,
    conditions: &[Condition],
) {
    query.push(table);
    let mut joint = " WHERE ";
    for condition in conditions {
        query.push(joint);
        joint = " AND ";
        match condition {
            Condition::Is(column, id) => {
                query.push(column).push(" = ").push_bind(id.to_vec());
            }
            Condition::SeenBy(column, user) => push_seen_by(query, "", column, *user),
            Condition::IsNot(column, word) => {
                query.push(column).push(" <> ").push_bind(*word);
            }
            Condition::Text(column, text) => {
                query.push(column).push(" = ").push_bind(text.clone());
            }
            Condition::OneOf(column, texts) => {
                query.push(column).push(" IN (");
                let mut listed = query.separated(", ");
                for text in texts {
                    listed.push_bind(text.clone());
                }
                query.push(")");
            }
            Condition::Not(column) => {
                query.push("NOT ").push(column);
            }
            Condition::AtLeast(column, min) => {
                query.push(column).push(" >= ").push_bind(*min);
            }
            Condition::AtMost(column, max) => {
                query.push(column).push(" <= ").push_bind(*max);
            }
            Condition::InRealm(Membership { table, column }, realm) => {
                query.push("id IN (SELECT ").push(column).push(" FROM ").push(table);
                query.push(" WHERE realm = ").push_bind(realm.as_bytes().to_vec()).push(")");
            }
        }
    }
}

/// That a record is of a user, or of a project that it is a member of; `table` is the name before the
/// columns, with its dot, or empty.
pub(crate) fn push_seen_by(
    query: &mut QueryBuilder<Db>,
    table: &'static str,
    project: &'static str,
    user: [u8; 12],
) {
    query.push("(").push(table).push("owner = ").push_bind(user.to_vec());
    query.push(" OR ").push(table).push(project);
    query.push(" IN (SELECT project FROM project_members WHERE member = ");
    query.push_bind(user.to_vec()).push("))");
}

/// Makes a project visible in exactly these realms.
pub(crate) async fn set_project_realms(
    tx: &mut Tx,
    project: ProjectId,
    realms: &[RealmId],
) -> Result<()> {
    set_realms(&mut tx.connection, &PROJECT_REALMS, *project.as_bytes(), realms).await
}

/// Makes a container visible in exactly these realms.
pub(crate) async fn set_container_realms(
    tx: &mut Tx,
    container: ContainerId,
    realms: &[RealmId],
) -> Result<()> {
    set_realms(&mut tx.connection, &CONTAINER_REALMS, *container.as_bytes(), realms).await
}

/// Makes a new event visible in exactly these realms.
pub(crate) async fn set_event_realms(
    tx: &mut Tx,
    event: EventId,
    realms: &[RealmId],
) -> Result<()> {
    if realms.is_empty() {
        return Ok(());
    }
    set_realms(&mut tx.connection, &EVENT_REALMS, *event.as_bytes(), realms).await
}

/// Makes a snapshot visible in exactly these realms.
pub(crate) async fn set_snapshot_realms(
    tx: &mut Tx,
    snapshot: SnapshotId,
    realms: &[RealmId],
) -> Result<()> {
    set_realms(&mut tx.connection, &SNAPSHOT_REALMS, *snapshot.as_bytes(), realms).await
}

async fn set_realms(
    connection: &mut Connection,
    Membership { table, column }: &Membership,
    record: [u8; 12],
    realms: &[RealmId],
) -> Result<()> {
    let mut delete = QueryBuilder::<Db>::new("DELETE FROM ");
    delete.push(table).push(" WHERE ").push(column).push(" = ").push_bind(record.to_vec());
    delete.build().execute(&mut *connection).await.map_err(failed)?;
    for realm in realms {
        let mut insert = QueryBuilder::<Db>::new("INSERT INTO ");
        insert.push(table).push(" (realm, ").push(column).push(") VALUES (");
        insert.push_bind(realm.as_bytes().to_vec()).push(", ").push_bind(record.to_vec());
        // A realm that is named twice counts once.
        insert.push(") ON CONFLICT DO NOTHING");
        insert.build().execute(&mut *connection).await.map_err(failed)?;
    }
    Ok(())
}
