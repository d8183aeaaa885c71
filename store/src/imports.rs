//! Where files come from: for containers that are filled, and for the snapshots of copies.
//!
//! On the same server a copy's snapshots are references to the same data. On another there is nothing to
//! refer to: each has data of its own that is not there yet, and an *origin*, from which the runtime
//! shall fetch it.

use gantry_model::{ContainerId, ServerId, SnapshotId};

use crate::{
    Cause, Outage, Store, columns, document,
    error::{Error, Result, failed},
    listing,
    record::{Container, Fill, FillSource},
    snapshots::{check_quota, fill_text},
    sqlite::{Db, Row},
    writer::Tx,
};

/// From where the data of a snapshot are to be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotOrigin {
    /// What the runtime there calls them.
    pub data: SnapshotId,
    /// The server that has them; none if nobody has them any more.
    pub server: Option<ServerId>,
}

impl Store {
    /// The server that has what a container is to be filled from, if there is such a thing.
    pub async fn server_of_source(&self, source: FillSource) -> Result<Option<ServerId>> {
        let (query, id) = match &source {
            FillSource::Container(id) => {
                ("SELECT server FROM containers WHERE id = $1", id.as_bytes())
            }
            FillSource::Snapshot(id) => {
                ("SELECT server FROM snapshots WHERE data = $1 LIMIT 1", id.as_bytes())
            }
        };
        let row: Option<Row> = sqlx::query(query)
            .bind(id.as_slice())
            .fetch_optional(self.readers())
            .await
            .map_err(failed)?;
        row.map(|row| columns::id(&row, "server")).transpose()
    }

    /// From where a snapshot that is to be made gets its data, if it is not made of its container.
    pub async fn origin_of_snapshot(&self, id: SnapshotId) -> Result<Option<SnapshotOrigin>> {
        let row: Option<Row> = sqlx::query("SELECT origin FROM snapshots WHERE id = $1")
            .bind(id.as_bytes().as_slice())
            .fetch_optional(self.readers())
            .await
            .map_err(failed)?;
        let Some(row) = row else { return Ok(None) };
        let Some(octets) = columns::get::<Option<Vec<u8>>>(&row, "origin")? else {
            return Ok(None);
        };
        let data = octets.as_slice().try_into().map(SnapshotId::from_bytes);
        let data = data.map_err(|_error| columns::damaged("origin", "is not 12 octets long"))?;
        let server = self.server_of_source(FillSource::Snapshot(data)).await?;
        Ok(Some(SnapshotOrigin { data, server }))
    }
}

/// Whether a container is being filled from it, or another server fetches it: one of those that are `served`.
/// What one that is not would have to do is waited for by nobody.
pub(crate) async fn is_source(
    tx: &mut Tx,
    data: SnapshotId,
    served: Option<&[ServerId]>,
) -> Result<bool> {
    let source = FillSource::Snapshot(data);
    let mut query =
        sqlx::QueryBuilder::<Db>::new("SELECT EXISTS (SELECT 1 FROM containers WHERE fill IN (");
    query.push_bind(fill_text(Fill { source, is_new: true })).push(", ");
    query.push_bind(fill_text(Fill { source, is_new: false })).push(")");
    push_served(&mut query, "server", served);
    query.push(") OR EXISTS (SELECT 1 FROM snapshots WHERE origin = ");
    query.push_bind(data.as_bytes().to_vec());
    push_served(&mut query, "server", served);
    query.push(")");
    query.build_query_scalar().fetch_one(&mut tx.connection).await.map_err(failed)
}

/// Adds the condition that a column has one of the served servers, where they are known.
pub(crate) fn push_served(
    query: &mut sqlx::QueryBuilder<Db>,
    column: &'static str,
    served: Option<&[ServerId]>,
) {
    let Some(served) = served else { return };
    query.push(" AND ").push(column).push(" IN (");
    let mut list = query.separated(", ");
    for server in served {
        list.push_bind(server.as_bytes().to_vec());
    }
    query.push(")");
}

/// Gives a new container the snapshots of the one that it is copied from.
pub(crate) async fn copy_snapshots(
    tx: &mut Tx,
    source: ContainerId,
    copy: &Container,
    owner_max: u32,
) -> Result<()> {
    let rows: Vec<Row> = sqlx::query(
        "SELECT id, data, server FROM snapshots WHERE container = $1 AND is_ready = $2",
    )
    .bind(source.as_bytes().as_slice())
    .bind(true)
    .fetch_all(&mut tx.connection)
    .await
    .map_err(failed)?;
    if !rows.is_empty() {
        check_quota(tx, copy.owner, rows.len() as u64, owner_max).await?;
    }
    // What may be large, the spec, is the copy's for all of them, and never read.
    let doc = document::write_container(&copy.spec)?;
    for row in &rows {
        let (of, data): (SnapshotId, SnapshotId) =
            (columns::id(row, "id")?, columns::id(row, "data")?);
        let server: ServerId = columns::id(row, "server")?;
        let (id, is_here) = (random()?, server == copy.server);
        let (data, origin) = if is_here { (data, None) } else { (random()?, Some(data)) };
        sqlx::query(
            "INSERT INTO snapshots (id, data, container, project, owner, server, name, alias, \
             is_ready, bytes, expires_at_ms, last_used_at_ms, created_at_ms, doc, origin) \
             SELECT $1, $2, $3, $4, $5, $6, name, alias, $7, bytes, expires_at_ms, NULL, \
             created_at_ms, $8, $9 FROM snapshots WHERE id = $10",
        )
        .bind(id.as_bytes().as_slice())
        .bind(data.as_bytes().as_slice())
        .bind(copy.id.as_bytes().as_slice())
        .bind(copy.project.as_bytes().as_slice())
        .bind(copy.owner.as_bytes().as_slice())
        .bind(copy.server.as_bytes().as_slice())
        .bind(is_here)
        .bind(&doc)
        .bind(origin.map(|origin| origin.as_bytes().to_vec()))
        .bind(of.as_bytes().as_slice())
        .execute(&mut tx.connection)
        .await
        .map_err(failed)?;
        listing::set_snapshot_realms(tx, id, &copy.spec.realms).await?;
    }
    Ok(())
}

fn random() -> Result<SnapshotId> {
    let mut id = [0; 12];
    getrandom::fill(&mut id)
        .map_err(|error| Error::Unavailable(Outage::Refused(Cause::new(error))))?;
    Ok(SnapshotId::from_bytes(id))
}
