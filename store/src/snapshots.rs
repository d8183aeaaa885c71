//! Snapshots, and containers that get their files from elsewhere.
//!
//! What a runtime keeps is given back in two steps, so that a crash between them loses nothing: with the
//! last snapshot that refers to it, its id comes into a list, and leaves that when the runtime has
//! removed it.

use std::collections::HashMap;

use gantry_model::{ContainerId, Phase, ServerId, SnapshotId, UserId, Wish};
use serde_json::json;

use crate::{
    Store,
    columns::{self, damaged, integer, natural},
    containers, document,
    error::{Error, Result, failed},
    firewall, imports,
    listing::{self, Condition, List},
    outbound::{self, CopiedRules},
    quotas,
    record::{
        Container, Fill, FillSource, Listed, Page, Snapshot, SnapshotFilter, SnapshotSort,
        SnapshotSummary, Version,
    },
    sqlite::{Db, Row},
    told,
    writer::Tx,
};

/// How many ended or discarded snapshots are looked at at once.
const AT_ONCE: i64 = 100;

/// How many snapshots there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotMax {
    /// Of one container.
    pub container: u32,
    /// Of one account.
    pub owner: u32,
}

impl Store {
    /// Adds a snapshot that is to be made, of a container that exists; its container comes into the
    /// feed.
    ///
    /// [`Error::NotFound`] if there is no such container; [`Error::SnapshotLimit`] if it has as many as it
    /// may, [`Error::SnapshotQuota`] if its owner has; [`Error::NameTaken`]; [`Error::SnapshotBusy`] while another one is being made or its
    /// files are being replaced.
    pub async fn create_snapshot(&self, snapshot: &Snapshot, max: SnapshotMax) -> Result<()> {
        let snapshot = snapshot.clone();
        self.write(move |tx| {
            Box::pin(async move {
                refuse_busy(tx, snapshot.container).await?;
                let of_it = Condition::is("container", Some(snapshot.container));
                let (count, max_of_it) = (count(tx, of_it).await?, max.container);
                if count >= u64::from(max_of_it) {
                    return Err(Error::SnapshotLimit { count, max: max_of_it });
                }
                check_quota(tx, snapshot.owner, 1, max.owner).await?;
                insert(tx, &snapshot).await?;
                tx.changed(snapshot.container, snapshot.created_at_ms);
                Ok(())
            })
        })
        .await
    }

    /// Notes that the runtime has made a snapshot. [`Error::NotFound`] if it is gone.
    pub async fn finish_snapshot(&self, id: SnapshotId, bytes: u64, now_ms: i64) -> Result<()> {
        self.write(move |tx| {
            Box::pin(async move {
                let snapshot = load(tx, id).await?;
                let made =
                    "UPDATE snapshots SET is_ready = $2, bytes = $3, origin = NULL WHERE id = $1";
                sqlx::query(made)
                    .bind(id.as_bytes().as_slice())
                    .bind(true)
                    .bind(integer(bytes))
                    .execute(&mut tx.connection)
                    .await
                    .map_err(failed)?;
                tx.changed(snapshot.container, now_ms);
                let size = ("size_bytes", json!(bytes));
                let kind = "container.snapshot.created";
                told::snapshot_told(tx, &snapshot, kind, Some(size), now_ms).await
            })
        })
        .await
    }

    /// The snapshot of this id.
    pub async fn snapshot(&self, id: SnapshotId) -> Result<Option<Snapshot>> {
        let row = sqlx::query("SELECT * FROM snapshots WHERE id = $1")
            .bind(id.as_bytes().as_slice())
            .fetch_optional(self.readers())
            .await
            .map_err(failed)?;
        row.as_ref().map(snapshot).transpose()
    }

    /// The snapshot of this name.
    pub async fn snapshot_named(
        &self,
        container: ContainerId,
        name: &str,
    ) -> Result<Option<Snapshot>> {
        let row = sqlx::query("SELECT * FROM snapshots WHERE container = $1 AND name = $2")
            .bind(container.as_bytes().as_slice())
            .bind(name)
            .fetch_optional(self.readers())
            .await
            .map_err(failed)?;
        row.as_ref().map(snapshot).transpose()
    }

    /// Lists the snapshots that a filter lets through.
    pub async fn snapshots(
        &self,
        filter: SnapshotFilter,
        page: Page<SnapshotSort>,
    ) -> Result<Listed<Snapshot>> {
        let SnapshotFilter { seen_by, project, container, realm } = filter;
        let conditions: Vec<Condition> = [
            Condition::seen_by("project", seen_by),
            Condition::is("project", project),
            Condition::is("container", container),
            realm.map(|realm| Condition::InRealm(&listing::SNAPSHOT_REALMS, realm)),
        ]
        .into_iter()
        .flatten()
        .collect();
        let order = match page.sort {
            SnapshotSort::Name => "name",
            SnapshotSort::CreatedAt => "created_at_ms",
            SnapshotSort::ExpiresAt => "expires_at_ms",
            SnapshotSort::Size => "bytes",
        };
        List { table: "snapshots", conditions: &conditions, order, tie: "id" }
            .read(self.readers(), page, snapshot)
            .await
    }

    /// What there is of snapshots of these containers; those without any are left out.
    pub async fn snapshot_summaries(
        &self,
        ids: &[ContainerId],
    ) -> Result<HashMap<ContainerId, SnapshotSummary>> {
        let mut summaries = HashMap::<ContainerId, SnapshotSummary>::new();
        if ids.is_empty() {
            return Ok(summaries);
        }
        let mut query = sqlx::QueryBuilder::<Db>::new(
            "SELECT container, name, last_used_at_ms FROM snapshots WHERE container IN (",
        );
        let mut list = query.separated(", ");
        for id in ids {
            list.push_bind(id.as_bytes().to_vec());
        }
        query.push(") ORDER BY last_used_at_ms");
        let rows: Vec<Row> = query.build().fetch_all(self.readers()).await.map_err(failed)?;
        for row in &rows {
            let summary = summaries.entry(columns::id(row, "container")?).or_default();
            summary.count += 1;
            let used_at_ms: Option<i64> = columns::get(row, "last_used_at_ms")?;
            if used_at_ms.is_some() {
                summary.last_used = Some(columns::get(row, "name")?);
            }
        }
        Ok(summaries)
    }

    /// The snapshot of a container that the runtime shall make now.
    pub async fn unfinished_snapshot(&self, container: ContainerId) -> Result<Option<Snapshot>> {
        let row = sqlx::query("SELECT * FROM snapshots WHERE container = $1 AND is_ready = $2")
            .bind(container.as_bytes().as_slice())
            .bind(false)
            .fetch_optional(self.readers())
            .await
            .map_err(failed)?;
        row.as_ref().map(snapshot).transpose()
    }

    /// The containers of a server that a snapshot shall be made of.
    pub async fn unfinished_snapshots(&self, server: ServerId) -> Result<Vec<ContainerId>> {
        let rows: Vec<Row> =
            sqlx::query("SELECT container FROM snapshots WHERE is_ready = $1 AND server = $2")
                .bind(false)
                .bind(server.as_bytes().as_slice())
                .fetch_all(self.readers())
                .await
                .map_err(failed)?;
        rows.iter().map(|row| columns::id(row, "container")).collect()
    }

    /// Calls a snapshot something else, or nothing.
    pub async fn set_snapshot_alias(
        &self,
        id: SnapshotId,
        alias: Option<&str>,
        now_ms: i64,
    ) -> Result<Snapshot> {
        let alias = alias.map(str::to_owned);
        self.write(move |tx| {
            Box::pin(async move {
                let mut snapshot = load(tx, id).await?;
                if snapshot.alias == alias {
                    return Ok(snapshot);
                }
                sqlx::query("UPDATE snapshots SET alias = $2 WHERE id = $1")
                    .bind(id.as_bytes().as_slice())
                    .bind(&alias)
                    .execute(&mut tx.connection)
                    .await
                    .map_err(failed)?;
                let old = std::mem::replace(&mut snapshot.alias, alias);
                let (kind, old) = ("container.snapshot.renamed", ("old_alias", json!(old)));
                told::snapshot_told(tx, &snapshot, kind, Some(old), now_ms).await?;
                Ok(snapshot)
            })
        })
        .await
    }

    /// Removes a snapshot that is ready; one that is not, only if it is given up. What the runtime
    /// keeps of it is discarded, unless another snapshot shares that.
    ///
    /// [`Error::NotFound`]; [`Error::SnapshotBusy`] while it is made, or a container is filled from it.
    pub async fn remove_snapshot(
        &self,
        id: SnapshotId,
        is_given_up: bool,
        now_ms: i64,
    ) -> Result<()> {
        let served = self.served.clone();
        self.write(move |tx| {
            Box::pin(async move {
                let snapshot = load(tx, id).await?;
                if !is_given_up
                    && (!snapshot.is_ready
                        || imports::is_source(tx, snapshot.data, served.as_deref()).await?)
                {
                    return Err(Error::SnapshotBusy);
                }
                sqlx::query("DELETE FROM snapshots WHERE id = $1")
                    .bind(id.as_bytes().as_slice())
                    .execute(&mut tx.connection)
                    .await
                    .map_err(failed)?;
                sqlx::query(
                    "INSERT INTO discarded_snapshots (data, server) SELECT $1, $2 \
                     WHERE NOT EXISTS (SELECT 1 FROM snapshots WHERE data = $1)",
                )
                .bind(snapshot.data.as_bytes().as_slice())
                .bind(snapshot.server.as_bytes().as_slice())
                .execute(&mut tx.connection)
                .await
                .map_err(failed)?;
                tx.changed(snapshot.container, now_ms);
                let kind = if snapshot.is_ready {
                    "container.snapshot.deleted"
                } else {
                    "container.snapshot.failed"
                };
                told::snapshot_told(tx, &snapshot, kind, None, now_ms).await
            })
        })
        .await
    }

    /// Some of the snapshots whose time is over and that nobody is waiting for.
    pub async fn ended_snapshots(&self, now_ms: i64) -> Result<Vec<SnapshotId>> {
        // Those that are made or fetched are left out: otherwise they could take the places of all others.
        let mut query = sqlx::QueryBuilder::<Db>::new(
            "SELECT id FROM snapshots s WHERE is_ready AND expires_at_ms <= ",
        );
        query.push_bind(now_ms);
        query.push(" AND NOT EXISTS (SELECT 1 FROM snapshots o WHERE o.origin = s.data");
        imports::push_served(&mut query, "o.server", self.served.as_deref());
        query.push(") LIMIT ").push_bind(AT_ONCE);
        let rows: Vec<Row> = query.build().fetch_all(self.readers()).await.map_err(failed)?;
        rows.iter().map(|row| columns::id(row, "id")).collect()
    }

    /// Some of what the runtime of a server shall remove.
    pub async fn discarded_snapshots(&self, server: ServerId) -> Result<Vec<SnapshotId>> {
        let rows: Vec<Row> =
            sqlx::query("SELECT data FROM discarded_snapshots WHERE server = $1 LIMIT $2")
                .bind(server.as_bytes().as_slice())
                .bind(AT_ONCE)
                .fetch_all(self.readers())
                .await
                .map_err(failed)?;
        rows.iter().map(|row| columns::id(row, "data")).collect()
    }

    /// Notes that a runtime has removed what was discarded.
    pub async fn forget_discarded(&self, data: SnapshotId) -> Result<()> {
        self.write(move |tx| {
            Box::pin(async move {
                sqlx::query("DELETE FROM discarded_snapshots WHERE data = $1")
                    .bind(data.as_bytes().as_slice())
                    .execute(&mut tx.connection)
                    .await
                    .map(drop)
                    .map_err(failed)
            })
        })
        .await
    }

    /// Adds a container as [`Store::create_container`] does, whose status says what it is filled from.
    /// A copy of a container gets its snapshots, too (those that are ready; on another server they are
    /// first to be brought there, see [`Store::origin_of_snapshot`]); one of the snapshot
    /// `used` does not, and that snapshot must exist. [`Error::SnapshotQuota`] if its owner would have
    /// more than `owner_max`.
    /// It gets the `rules` that the container in `source` has now; [`Error::Stale`] if its outbound
    /// network is another one meanwhile.
    pub async fn create_copy(
        &self,
        container: &Container,
        used: Option<SnapshotId>,
        owner_max: u32,
        rules: CopiedRules,
    ) -> Result<Container> {
        let (container, doc) = (container.clone(), document::write_container(&container.spec)?);
        let quotas = self.quotas;
        self.write(move |tx| {
            Box::pin(async move {
                let container = containers::create(tx, quotas, container, &doc).await?;
                match (used, container.status.fill) {
                    (Some(used), _) => note_use(tx, used, container.created_at_ms).await?,
                    (None, Some(Fill { source: FillSource::Container(source), .. })) => {
                        imports::copy_snapshots(tx, source, &container, owner_max).await?;
                    }
                    (None, _) => {}
                }
                if let (true, Some(source)) = (rules.firewall, container.source) {
                    firewall::copy(tx, source, &container).await?;
                }
                if let (Some(record), Some(source)) = (&rules.outbound, container.source) {
                    outbound::copy(tx, source, record, &container).await?;
                }
                Ok(container)
            })
        })
        .await
    }

    /// Records the wish that a container's files be replaced, and the phase that this leads to, for a
    /// container that still has this version. `used` is the snapshot they come from.
    ///
    /// [`Error::SnapshotBusy`] while a snapshot of it is being made; [`Error::NotFound`] also if the
    /// snapshot is gone; [`Error::OverQuota`] if its owner would have one more running than may be.
    #[expect(clippy::too_many_arguments, reason = "each is one fact of the transition")]
    pub async fn set_fill(
        &self,
        id: ContainerId,
        version: Version,
        (wish, phase): (Wish, Phase),
        source: FillSource,
        used: Option<SnapshotId>,
        triggered_by: &str,
        now_ms: i64,
    ) -> Result<Container> {
        let (triggered_by, quotas) = (triggered_by.to_owned(), self.quotas);
        self.write(move |tx| {
            Box::pin(async move {
                let mut container = containers::load_at(tx, id, version).await?;
                refuse_busy(tx, id).await?;
                if let Some(used) = used {
                    note_use(tx, used, now_ms).await?;
                }
                let from = container.status.phase;
                let was_promised = quotas::is_promised(&container);
                container.wish = wish;
                container.wish_seq += 1;
                container.status.phase = phase;
                container.status.why = None;
                container.status.fill = Some(Fill { source, is_new: false });
                container.updated_at_ms = now_ms;
                quotas::check_promise(tx, quotas, was_promised, &container).await?;
                containers::save_state(tx, &mut container).await?;
                if from != phase {
                    containers::log(tx, &container, Some(from), &triggered_by).await?;
                }
                Ok(container)
            })
        })
        .await
    }
}

/// Refuses while a snapshot of the container is being made or its files are being replaced.
async fn refuse_busy(tx: &mut Tx, id: ContainerId) -> Result<()> {
    let row: Option<Row> = sqlx::query(
        "SELECT fill, EXISTS (SELECT 1 FROM snapshots WHERE container = $1 AND is_ready = $2) \
         AS making FROM containers WHERE id = $1",
    )
    .bind(id.as_bytes().as_slice())
    .bind(false)
    .fetch_optional(&mut tx.connection)
    .await
    .map_err(failed)?;
    let row = row.ok_or(Error::NotFound)?;
    let making: bool = columns::get(&row, "making")?;
    if making || fill(&row)?.is_some() { Err(Error::SnapshotBusy) } else { Ok(()) }
}

async fn count(tx: &mut Tx, condition: Option<Condition>) -> Result<u64> {
    let mut query = sqlx::QueryBuilder::<Db>::new("SELECT count(*) FROM ");
    listing::push_selection(&mut query, "snapshots", condition.as_slice());
    let count: i64 =
        query.build_query_scalar().fetch_one(&mut tx.connection).await.map_err(failed)?;
    natural(count, "count")
}

/// Refuses `more` snapshots beyond those that an account may have.
pub(crate) async fn check_quota(tx: &mut Tx, owner: UserId, more: u64, max: u32) -> Result<()> {
    let has = count(tx, Condition::is("owner", Some(owner))).await?;
    if has.saturating_add(more) > u64::from(max) {
        return Err(Error::SnapshotQuota { max });
    }
    Ok(())
}

/// Tells that what was to fill a container has come to its end.
pub(crate) async fn tell_filled(tx: &mut Tx, container: &Container, fill: Fill) -> Result<()> {
    let name = match fill.source {
        FillSource::Container(_) => None,
        // Snapshots of copies share their data; the container's own is the one that is meant.
        FillSource::Snapshot(data) => sqlx::query_scalar(
            "SELECT name FROM snapshots WHERE data = $1 AND owner = $2 \
             ORDER BY (container = $3) DESC LIMIT 1",
        )
        .bind(data.as_bytes().as_slice())
        .bind(container.owner.as_bytes().as_slice())
        .bind(container.id.as_bytes().as_slice())
        .fetch_optional(&mut tx.connection)
        .await
        .map_err(failed)?,
    };
    told::fill_told(tx, container, fill, name).await
}

async fn note_use(tx: &mut Tx, id: SnapshotId, now_ms: i64) -> Result<()> {
    if !load(tx, id).await?.is_ready {
        return Err(Error::SnapshotBusy);
    }
    sqlx::query("UPDATE snapshots SET last_used_at_ms = $2 WHERE id = $1")
        .bind(id.as_bytes().as_slice())
        .bind(now_ms)
        .execute(&mut tx.connection)
        .await
        .map(drop)
        .map_err(failed)
}

async fn insert(tx: &mut Tx, snapshot: &Snapshot) -> Result<()> {
    sqlx::query(
        "INSERT INTO snapshots (id, data, container, project, owner, server, name, alias, is_ready, \
         bytes, expires_at_ms, last_used_at_ms, created_at_ms, doc) VALUES ($1, $2, $3, $4, $5, \
         $6, $7, $8, $9, $10, $11, $12, $13, $14)",
    )
    .bind(snapshot.id.as_bytes().as_slice())
    .bind(snapshot.data.as_bytes().as_slice())
    .bind(snapshot.container.as_bytes().as_slice())
    .bind(snapshot.project.as_bytes().as_slice())
    .bind(snapshot.owner.as_bytes().as_slice())
    .bind(snapshot.server.as_bytes().as_slice())
    .bind(&snapshot.name)
    .bind(&snapshot.alias)
    .bind(snapshot.is_ready)
    .bind(integer(snapshot.bytes))
    .bind(snapshot.expires_at_ms)
    .bind(snapshot.last_used_at_ms)
    .bind(snapshot.created_at_ms)
    .bind(document::write_container(&snapshot.spec)?)
    .execute(&mut tx.connection)
    .await
    .map_err(failed)?;
    listing::set_snapshot_realms(tx, snapshot.id, &snapshot.spec.realms).await
}

async fn load(tx: &mut Tx, id: SnapshotId) -> Result<Snapshot> {
    let row = sqlx::query("SELECT * FROM snapshots WHERE id = $1")
        .bind(id.as_bytes().as_slice())
        .fetch_optional(&mut tx.connection)
        .await
        .map_err(failed)?
        .ok_or(Error::NotFound)?;
    snapshot(&row)
}

fn snapshot(row: &Row) -> Result<Snapshot> {
    let id = columns::id(row, "id")?;
    let read = || -> Result<Snapshot> {
        Ok(Snapshot {
            id,
            data: columns::id(row, "data")?,
            container: columns::id(row, "container")?,
            project: columns::id(row, "project")?,
            owner: columns::id(row, "owner")?,
            server: columns::id(row, "server")?,
            spec: document::read_container(columns::get(row, "doc")?)?,
            name: columns::get(row, "name")?,
            alias: columns::get(row, "alias")?,
            is_ready: columns::get(row, "is_ready")?,
            bytes: columns::count(row, "bytes")?,
            expires_at_ms: columns::get(row, "expires_at_ms")?,
            last_used_at_ms: columns::get(row, "last_used_at_ms")?,
            created_at_ms: columns::get(row, "created_at_ms")?,
        })
    };
    read().map_err(columns::of("snapshot", id))
}

/// The column form of what a container is filled from.
pub(crate) fn fill_text(fill: Fill) -> String {
    let act = if fill.is_new { "create" } else { "replace" };
    match fill.source {
        FillSource::Container(id) => format!("{act} container {id}"),
        FillSource::Snapshot(id) => format!("{act} snapshot {id}"),
    }
}

/// What a container is filled from.
pub(crate) fn fill(row: &Row) -> Result<Option<Fill>> {
    let Some(text) = columns::get::<Option<&str>>(row, "fill")? else { return Ok(None) };
    let parse = || {
        let mut words = text.split(' ');
        let is_new = match words.next()? {
            "create" => true,
            "replace" => false,
            _ => return None,
        };
        let source = match (words.next()?, words.next()?) {
            ("container", id) => FillSource::Container(id.parse().ok()?),
            ("snapshot", id) => FillSource::Snapshot(id.parse().ok()?),
            _ => return None,
        };
        Some(Fill { source, is_new })
    };
    parse().map(Some).ok_or_else(|| damaged("fill", "names no source"))
}
