//! The change feed and what a route table is built from.
//!
//! Each change of a container gets a revision from one counter row that the transaction updates
//! last, so revisions are gapless and in the order of the commits; a sequence would hand numbers out
//! before commits and make readers miss some. A reader may therefore *assert* that the next change
//! is the last plus one, and this module does.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use futures_util::TryStreamExt as _;
use gantry_model::{Chain, ContainerId, Generation, Id, Phase, ProjectId, ssh::KeyFingerprint};
use sqlx::{Decode, QueryBuilder, Row as _, Type};

use crate::{
    Store,
    columns::{self, damaged, integer, natural},
    edge::Edges,
    error::{Error, Result, failed},
    record::{Change, Changes, Revision, RouteRecord, RouteSnapshot},
    sqlite::{self, Connection, Db, Row},
};

/// The most changes that one call returns.
const CHANGES_MAX: u32 = 10_000;
/// How many ids one statement names.
const IDS_PER_STATEMENT: usize = 500;

/// The columns of a [`RouteRecord`], in the order that [`route`] reads.
const ROUTE: &str = "SELECT id, project, hoody_kit, phase, address, generation, started_at_ms, \
                     why IS NOT NULL, prespawn, server, key_fingerprint, ssh_forwarding FROM containers";

/// How long changes are kept; what is older may make a reader load everything again.
#[derive(Debug)]
pub(crate) struct Retention {
    /// Changes older than this go, in milliseconds before the newest.
    pub(crate) age_ms: i64,
    /// Not more than about this many stay.
    pub(crate) rows: u64,
    /// How many changes come between two looks.
    pub(crate) every: usize,
    /// Changes since the last look.
    pub(crate) since: usize,
}

impl Default for Retention {
    fn default() -> Self {
        Self { age_ms: 24 * 60 * 60 * 1000, rows: 1_000_000, every: 500, since: 0 }
    }
}

impl Retention {
    /// Removes some of what is too old, now and then: at most four times of what came in between,
    /// so that it keeps up and no transaction grows long.
    pub(crate) async fn compact(
        &mut self,
        connection: &mut Connection,
        changes: &[(ContainerId, i64)],
    ) -> Result<()> {
        self.since += changes.len();
        let newest_ms = changes.iter().map(|(_, at_ms)| *at_ms).max();
        let (Some(newest_ms), true) = (newest_ms, self.since >= self.every) else { return Ok(()) };
        let slice = i64::try_from(self.since).unwrap_or(i64::MAX).saturating_mul(4);
        self.since = 0;
        let oldest: Option<i64> = sqlx::query_scalar("SELECT min(rev) FROM changes")
            .fetch_one(&mut *connection)
            .await
            .map_err(failed)?;
        let Some(oldest) = oldest else { return Ok(()) };
        let last: Option<i64> = sqlx::query_scalar(
            "SELECT max(rev) FROM changes WHERE rev < $1 \
             AND (at_ms < $2 OR rev <= (SELECT rev FROM feed) - $3)",
        )
        .bind(oldest.saturating_add(slice))
        .bind(newest_ms.saturating_sub(self.age_ms))
        .bind(integer(self.rows))
        .fetch_one(&mut *connection)
        .await
        .map_err(failed)?;
        let Some(last) = last else { return Ok(()) };
        sqlx::query("DELETE FROM changes WHERE rev <= $1")
            .bind(last)
            .execute(connection)
            .await
            .map(drop)
            .map_err(failed)
    }
}

/// Numbers the changes of a transaction; the last thing before its commit, since the counter row is
/// held from here on. Returns the newest revision.
pub(crate) async fn append(
    connection: &mut Connection,
    changes: &[(ContainerId, i64)],
) -> Result<Revision> {
    let more = i64::try_from(changes.len()).unwrap_or(i64::MAX);
    let head: i64 = sqlx::query_scalar("UPDATE feed SET rev = rev + $1 WHERE id = 1 RETURNING rev")
        .bind(more)
        .fetch_one(&mut *connection)
        .await
        .map_err(failed)?;
    let mut insert = QueryBuilder::<Db>::new("INSERT INTO changes (rev, container, at_ms) ");
    insert.push_values((head - more + 1..).zip(changes), |mut row, (rev, (container, at_ms))| {
        row.push_bind(rev).push_bind(container.as_bytes().to_vec()).push_bind(*at_ms);
    });
    insert.build().persistent(false).execute(connection).await.map_err(failed)?;
    natural(head, "feed.rev").map(Revision)
}

/// The newest revision there is.
pub(crate) async fn head(connection: &mut Connection) -> Result<Revision> {
    let rev: i64 = sqlx::query_scalar("SELECT rev FROM feed WHERE id = 1")
        .fetch_one(connection)
        .await
        .map_err(failed)?;
    natural(rev, "feed.rev").map(Revision)
}

impl Store {
    /// Reads what a route table is built from, all at one revision.
    ///
    /// A record that cannot be read is reported in the log and left out: one damaged record must
    /// not take all routes down.
    pub async fn load_routes(&self) -> Result<RouteSnapshot> {
        let mut tx = sqlite::begin_read(self.readers()).await.map_err(failed)?;
        let revision = head(&mut tx).await?;
        let mut edges = Edges::load(&mut tx, None, None).await?;
        let mut containers = Vec::new();
        let mut rows = sqlx::query(ROUTE).fetch(&mut *tx);
        while let Some(row) = rows.try_next().await.map_err(failed)? {
            match route(&row).and_then(|route| with_edge(route, &mut edges)) {
                Ok(record) => containers.push(record),
                Err(error) => report(&error),
            }
        }
        Ok(RouteSnapshot { epoch: self.epoch(), revision, containers })
    }

    /// Reads the changes after a revision, at most `limit` (1 to 10,000) of them, oldest first.
    ///
    /// There is no gap between `after` and the first change, nor between changes; should the table
    /// hold one, this is [`Error::Corrupt`].
    pub async fn changes(&self, after: Revision, limit: u32) -> Result<Changes> {
        let mut tx = sqlite::begin_read(self.readers()).await.map_err(failed)?;
        let head = head(&mut tx).await?;
        if after > head {
            return Ok(Changes::NewEpoch);
        }
        let rows: Vec<Row> =
            sqlx::query("SELECT rev, container FROM changes WHERE rev > $1 ORDER BY rev LIMIT $2")
                .bind(integer(after.0))
                .bind(i64::from(limit.clamp(1, CHANGES_MAX)))
                .fetch_all(&mut *tx)
                .await
                .map_err(failed)?;
        let mut changes = Vec::with_capacity(rows.len());
        for row in &rows {
            changes.push(Change {
                revision: Revision(columns::count(row, "rev")?),
                container: columns::id(row, "container")?,
            });
        }
        match changes.first() {
            None if after == head => return Ok(Changes::Since { changes, head }),
            None => return Ok(Changes::Compacted),
            Some(first) if first.revision.0 != after.0 + 1 => return Ok(Changes::Compacted),
            Some(_) => {}
        }
        for (want, change) in (after.0 + 1..).zip(&changes) {
            if change.revision.0 != want {
                return Err(damaged("changes.rev", &format!("lacks revision {want}")));
            }
        }
        Ok(Changes::Since { changes, head })
    }

    /// Reads the present route records of some containers; `None` for one that is gone.
    ///
    /// A record that cannot be read is reported in the log and its id is left out of the answer, so
    /// that whoever asks keeps what it had.
    pub async fn route_records(
        &self,
        ids: &[ContainerId],
    ) -> Result<Vec<(ContainerId, Option<RouteRecord>)>> {
        let mut answer = Vec::with_capacity(ids.len());
        for ids in ids.chunks(IDS_PER_STATEMENT) {
            let mut query = QueryBuilder::<Db>::new(ROUTE);
            query.push(" WHERE id IN (");
            let mut list = query.separated(", ");
            for id in ids {
                list.push_bind(id.as_bytes().to_vec());
            }
            query.push(")");
            let statement = query.build().persistent(false);
            // At one instant: a name that moves between two containers is never with both.
            let mut tx = sqlite::begin_read(self.readers()).await.map_err(failed)?;
            let rows: Vec<Row> = statement.fetch_all(&mut *tx).await.map_err(failed)?;
            let mut found = HashMap::with_capacity(rows.len());
            for row in &rows {
                found.insert(at_id(row, 0)?, route(row));
            }
            let routes = || found.values().filter_map(|route| route.as_ref().ok());
            let projects: HashSet<ProjectId> = routes().map(|route| route.project).collect();
            let projects: Vec<ProjectId> = projects.into_iter().collect();
            let mut edges = Edges::load(&mut tx, Some(ids), Some(&projects)).await?;
            // An id may be asked for twice: each time it gets the same answer.
            let records: HashMap<ContainerId, Option<RouteRecord>> = found
                .into_iter()
                .map(|(id, route)| {
                    let record = route.and_then(|route| with_edge(route, &mut edges));
                    (id, record.inspect_err(report).ok())
                })
                .collect();
            for id in ids {
                match records.get(id) {
                    Some(Some(record)) => answer.push((*id, Some(record.clone()))),
                    Some(None) => {}
                    None => answer.push((*id, None)),
                }
            }
        }
        Ok(answer)
    }
}

fn report(error: &Error) {
    tracing::error!(error = %Chain(error), "a container's record is damaged; its route stays as it was");
}

fn with_edge(mut route: RouteRecord, edges: &mut Edges) -> Result<RouteRecord> {
    route.edge = edges.take(route.container, route.project)?;
    Ok(route)
}

/// Reads a row of [`ROUTE`]; by position, because there may be a million.
fn route(row: &Row) -> Result<RouteRecord> {
    let container = at_id(row, 0)?;
    let read = || -> Result<RouteRecord> {
        let address: Option<&str> = at(row, 4)?;
        let parsed = address.map(str::parse::<IpAddr>).transpose();
        let key: Option<&[u8]> = at(row, 10)?;
        let key = key.map(<[u8; 32]>::try_from).transpose();
        let key = key.map_err(|_error| damaged("key_fingerprint", "is not 32 octets long"))?;
        let prespawn: bool = at(row, 8)?;
        Ok(RouteRecord {
            container,
            project: at_id(row, 1)?,
            server: at_id(row, 9)?,
            hoody_kit: at(row, 2)? && !prespawn,
            ssh_key: key.filter(|_| !prespawn).map(KeyFingerprint),
            ssh_forwarding: at(row, 11)?,
            phase: Phase::from_word(at(row, 3)?).ok_or_else(|| damaged("phase", "is no phase"))?,
            address: parsed.map_err(|_error| damaged("address", "is none"))?,
            generation: Generation(natural(at(row, 5)?, "generation")?),
            started_at_ms: at(row, 6)?,
            why_failed: at(row, 7)?,
            edge: None,
        })
    };
    read().map_err(columns::of("container", container))
}

fn at<'r, T: Decode<'r, Db> + Type<Db>>(row: &'r Row, position: usize) -> Result<T> {
    row.try_get(position).map_err(|error| Error::Corrupt { what: error.to_string() })
}

fn at_id<K>(row: &Row, position: usize) -> Result<Id<K>> {
    let bytes: &[u8] = at(row, position)?;
    bytes.try_into().map(Id::from_bytes).map_err(|_error| damaged("an id", "is not 12 octets long"))
}
