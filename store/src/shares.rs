//! Storage shares: directories of one container that others see.
//!
//! A share hangs on its source. What it reaches is looked up anew each time: a container, or every
//! container of a project, now and later. Whatever may change what a container is to see puts that
//! container into the feed, so that it is looked at.

mod rows;

use gantry_model::{
    ContainerId, Phase, ProjectId, RealmId, ServerId, ShareId, ShareMountId, UserId,
    share::{ShareMode, ShareName, SharePath},
};

use self::rows::{incoming, mount, push_filter, share};
use crate::{
    Store,
    columns::{self, integer},
    containers,
    error::{Error, Result, failed},
    record::Version,
    sqlite::{Db, Row},
    told,
    writer::Tx,
};

/// A directory of a container that others see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Its id.
    pub id: ShareId,
    /// Whose container the directory is in.
    pub owner: UserId,
    /// The project of that container.
    pub project: ProjectId,
    /// That container.
    pub source: ContainerId,
    /// The directory.
    pub path: SharePath,
    /// Who sees it.
    pub target: ShareTarget,
    /// What they may do with it.
    pub mode: ShareMode,
    /// What it is called on the other side.
    pub alias: Option<ShareName>,
    /// What its owner sorts it by.
    pub label: Option<ShareName>,
    /// What its owner says of it.
    pub description: Option<String>,
    /// Whether it is there at all.
    pub enabled: bool,
    /// When it ends.
    pub expires_at_ms: Option<i64>,
    /// Whether it was told that it ends soon.
    pub expiry_notified: bool,
    /// Who made it, and must be allowed to change both sides for as long as it is to work.
    pub created_by: UserId,
    /// Why it is missing in a container that should have it, and in which.
    pub failure: Option<(ContainerId, String)>,
    /// Rises with each change.
    pub version: Version,
    /// When it was made.
    pub created_at_ms: i64,
    /// When it was last changed.
    pub updated_at_ms: i64,
}

/// Who sees a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ShareTarget {
    /// One container.
    Container(ContainerId),
    /// Every container of a project.
    Project(ProjectId),
}

impl ShareTarget {
    /// Its word.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Container(_) => "container",
            Self::Project(_) => "project",
        }
    }
}

/// What the side that receives a share has said of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareMount {
    /// Its id.
    pub id: ShareMountId,
    /// The share.
    pub share: ShareId,
    /// The container that receives it.
    pub container: ContainerId,
    /// Whether it is to be there.
    pub is_wanted: bool,
    /// When that was said first.
    pub created_at_ms: i64,
    /// When that was said last.
    pub updated_at_ms: i64,
}

/// Which shares are meant.
#[derive(Clone, Debug, Default)]
pub struct ShareFilter {
    /// Only those from containers that this user sees.
    pub seen_by: Option<UserId>,
    /// Only those to containers or projects that this user sees.
    pub received_by: Option<UserId>,
    /// Only those from this container.
    pub source: Option<ContainerId>,
    /// Only those to this container: directly, or with all of its project.
    pub received_in: Option<(ContainerId, ProjectId)>,
    /// Only those from containers of this realm.
    pub realm: Option<RealmId>,
    /// Only those to a container, or to a project.
    pub target_kind: Option<&'static str>,
    /// Only those with this label.
    pub label: Option<String>,
    /// Only those that are on, or off.
    pub enabled: Option<bool>,
    /// Only those that are missing somewhere, or nowhere.
    pub has_failed: Option<bool>,
    /// Only those that end after this.
    pub alive_at_ms: Option<i64>,
}

/// How many shares there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareMax {
    /// From one container.
    pub container: u32,
    /// From all containers of one account.
    pub owner: u32,
    /// To one container or project: nobody fills another's directory without a bound.
    pub target: u32,
}

/// A share as the container sees it that it reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// The share.
    pub share: Share,
    /// Where its source stands.
    pub source_phase: Phase,
    /// The server of its source.
    pub source_server: ServerId,
    /// Whether who made it may still change both sides.
    pub is_rightful: bool,
    /// Whether this side wants it.
    pub is_wanted: bool,
    /// Why it was not there when that was last tried.
    pub failure: Option<String>,
}

/// A share with the first container that it is missing in.
const SHARES: &str = "SELECT s.*, m.container AS failed_in, m.failure AS failure FROM shares s \
                      LEFT JOIN share_mounts m ON m.share = s.id AND m.container = \
                      (SELECT min(container) FROM share_mounts WHERE share = s.id AND failure IS NOT NULL)";

/// A share with what its reach depends on, for container $1 of project $2. Rights are those of this
/// moment: who made it may have lost them.
const INCOMING: &str = "SELECT s.*, NULL AS failed_in, NULL AS failure, c.phase AS source_phase, \
     c.server AS source_server, m.is_wanted AS is_wanted, m.failure AS failure_here, \
     (u.is_admin OR ((c.owner = u.id OR EXISTS (SELECT 1 FROM project_members p WHERE \
     p.project = c.project AND p.member = u.id AND p.level IN ('edit', 'delete'))) \
     AND (t.owner = u.id OR EXISTS (SELECT 1 FROM project_members p WHERE \
     p.project = t.project AND p.member = u.id AND p.level IN ('edit', 'delete'))))) AS is_rightful \
     FROM shares s JOIN containers c ON c.id = s.source JOIN users u ON u.id = s.created_by \
     JOIN containers t ON t.id = $1 \
     LEFT JOIN share_mounts m ON m.share = s.id AND m.container = $1 \
     WHERE (s.target_container = $1 OR s.target_project = $2) AND s.source <> $1 \
     ORDER BY s.created_at_ms, s.id";

impl Store {
    /// Adds a share as given. [`Error::ShareLimit`]; [`Error::NotFound`] if a container or project of it
    /// does not exist.
    pub async fn create_share(&self, share: &Share, max: ShareMax) -> Result<()> {
        let share = share.clone();
        self.write(move |tx| {
            Box::pin(async move {
                check_limits(tx, &share, max).await?;
                insert(tx, &share).await?;
                changed_targets(tx, &share, share.created_at_ms).await?;
                tell(tx, &share, "storage.share.created", share.created_at_ms).await
            })
        })
        .await
    }

    /// The share of this id.
    pub async fn share(&self, id: ShareId) -> Result<Option<Share>> {
        let mut query = sqlx::QueryBuilder::<Db>::new(SHARES);
        query.push(" WHERE s.id = ").push_bind(id.as_bytes().to_vec());
        let row: Option<Row> =
            query.build().fetch_optional(self.readers()).await.map_err(failed)?;
        row.as_ref().map(share).transpose()
    }

    /// The shares that a filter lets through, oldest first, at most `limit`.
    pub async fn shares(&self, filter: ShareFilter, limit: u32) -> Result<Vec<Share>> {
        let mut query = sqlx::QueryBuilder::<Db>::new(SHARES);
        query.push(" WHERE 1 = 1");
        push_filter(&mut query, filter);
        query.push(" ORDER BY s.created_at_ms, s.id LIMIT ").push_bind(i64::from(limit));
        let rows: Vec<Row> = query.build().fetch_all(self.readers()).await.map_err(failed)?;
        rows.iter().map(share).collect()
    }

    /// Every share that reaches a container, oldest first, whether it is to be there or not.
    pub async fn incoming_shares(
        &self,
        container: ContainerId,
        project: ProjectId,
    ) -> Result<Vec<Incoming>> {
        let rows = sqlx::query(INCOMING)
            .bind(container.as_bytes().as_slice())
            .bind(project.as_bytes().as_slice())
            .fetch_all(self.readers())
            .await
            .map_err(failed)?;
        rows.iter().map(incoming).collect()
    }

    /// Replaces what may change of a share that still has the version given: all but its two sides, its
    /// directory and its maker. Returns it with the next version. [`Error::Stale`].
    pub async fn update_share(&self, share: &Share) -> Result<Share> {
        let mut new = share.clone();
        self.write(move |tx| {
            Box::pin(async move {
                let old = load(tx, new.id).await?;
                if old.version != new.version {
                    return Err(Error::Stale);
                }
                let now_ms = new.updated_at_ms;
                sqlx::query(
                    "UPDATE shares SET mode = $2, alias = $3, label = $4, description = $5, \
                     enabled = $6, expires_at_ms = $7, expiry_notified = $8, updated_at_ms = $9, \
                     version = version + 1 WHERE id = $1",
                )
                .bind(new.id.as_bytes().as_slice())
                .bind(new.mode.as_str())
                .bind(new.alias.as_ref().map(ShareName::as_str))
                .bind(new.label.as_ref().map(ShareName::as_str))
                .bind(&new.description)
                .bind(new.enabled)
                .bind(new.expires_at_ms)
                .bind(new.expiry_notified)
                .bind(now_ms)
                .execute(&mut tx.connection)
                .await
                .map_err(failed)?;
                new.version.0 += 1;
                changed_targets(tx, &new, now_ms).await?;
                let kind = match (old.enabled, new.enabled) {
                    (false, true) => "storage.share.enabled",
                    (true, false) => "storage.share.disabled",
                    (true, true) | (false, false) => "storage.share.updated",
                };
                tell(tx, &new, kind, now_ms).await?;
                Ok(new)
            })
        })
        .await
    }

    /// Removes a share.
    pub async fn remove_share(&self, id: ShareId, now_ms: i64) -> Result<()> {
        self.write(move |tx| {
            Box::pin(async move {
                let share = load(tx, id).await?;
                remove(tx, &share, "storage.share.deleted", now_ms).await
            })
        })
        .await
    }

    /// Records whether a container wants a share that reaches it; `id` is that of the record, if there is none
    /// yet. [`Error::NotFound`] if one of them is gone.
    pub async fn set_share_mount(
        &self,
        share: ShareId,
        container: ContainerId,
        is_wanted: bool,
        id: ShareMountId,
        now_ms: i64,
    ) -> Result<ShareMount> {
        self.write(move |tx| {
            Box::pin(async move {
                let record = load(tx, share).await?;
                // One that is to be gone has not failed.
                let row = sqlx::query(
                    "INSERT INTO share_mounts (share, container, id, is_wanted, created_at_ms, \
                     updated_at_ms) VALUES ($1, $2, $3, $4, $5, $5) \
                     ON CONFLICT (share, container) DO UPDATE SET is_wanted = excluded.is_wanted, \
                     created_at_ms = CASE WHEN share_mounts.id IS NULL THEN excluded.created_at_ms \
                     ELSE share_mounts.created_at_ms END, \
                     id = coalesce(share_mounts.id, excluded.id), failure = NULL, \
                     updated_at_ms = excluded.updated_at_ms RETURNING *",
                )
                .bind(share.as_bytes().as_slice())
                .bind(container.as_bytes().as_slice())
                .bind(id.as_bytes().as_slice())
                .bind(is_wanted)
                .bind(now_ms)
                .fetch_one(&mut tx.connection)
                .await
                .map_err(failed)?;
                tx.changed(container, now_ms);
                tell_mount(tx, &record, container, is_wanted, now_ms).await?;
                mount(&row)
            })
        })
        .await
    }

    /// Notes for each of these shares why it is not in a container that should have it, or that it is there;
    /// what is said of no share here is forgotten. Nothing of that is a change of a share.
    pub async fn note_share_failures(
        &self,
        container: ContainerId,
        failures: Vec<(ShareId, String)>,
        now_ms: i64,
    ) -> Result<()> {
        self.write(move |tx| {
            Box::pin(async move {
                let mut forget = sqlx::QueryBuilder::<Db>::new(
                    "UPDATE share_mounts SET failure = NULL WHERE failure IS NOT NULL AND container = ",
                );
                forget.push_bind(container.as_bytes().to_vec());
                forget.build().execute(&mut tx.connection).await.map_err(failed)?;
                for (share, failure) in failures {
                    // A share, or the container, may be gone by now.
                    sqlx::query(
                        "INSERT INTO share_mounts (share, container, is_wanted, failure, created_at_ms, \
                         updated_at_ms) SELECT s.id, c.id, TRUE, $3, $4, $4 FROM shares s, containers c \
                         WHERE s.id = $1 AND c.id = $2 \
                         ON CONFLICT (share, container) DO UPDATE SET failure = excluded.failure",
                    )
                    .bind(share.as_bytes().as_slice())
                    .bind(container.as_bytes().as_slice())
                    .bind(failure)
                    .bind(now_ms)
                    .execute(&mut tx.connection)
                    .await
                    .map_err(failed)?;
                }
                Ok(())
            })
        })
        .await
    }

    /// The containers of a server that lack a share which they should have.
    pub async fn containers_lacking_shares(&self, server: ServerId) -> Result<Vec<ContainerId>> {
        let rows = sqlx::query(
            "SELECT DISTINCT m.container AS container FROM share_mounts m \
             JOIN containers c ON c.id = m.container WHERE m.failure IS NOT NULL AND c.server = $1",
        )
        .bind(server.as_bytes().as_slice())
        .fetch_all(self.readers())
        .await
        .map_err(failed)?;
        rows.iter().map(|row| columns::id(row, "container")).collect()
    }

    /// When the next share ends that ends after `now_ms`.
    pub async fn next_share_end(&self, now_ms: i64) -> Result<Option<i64>> {
        sqlx::query_scalar("SELECT min(expires_at_ms) FROM shares WHERE expires_at_ms > $1")
            .bind(now_ms)
            .fetch_one(self.readers())
            .await
            .map_err(failed)
    }

    /// Removes the shares that have ended, and tells once of those that end before `soon_ms`.
    pub async fn expire_shares(&self, now_ms: i64, soon_ms: i64) -> Result<()> {
        let due: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM shares WHERE expires_at_ms <= $1 \
             OR (expires_at_ms <= $2 AND NOT expiry_notified))",
        )
        .bind(now_ms)
        .bind(soon_ms)
        .fetch_one(self.readers())
        .await
        .map_err(failed)?;
        if !due {
            return Ok(());
        }
        self.write(move |tx| {
            Box::pin(async move {
                for share in load_where(tx, " WHERE s.expires_at_ms <= ", now_ms).await? {
                    remove(tx, &share, "storage.share.expired", now_ms).await?;
                }
                let soon = " WHERE NOT s.expiry_notified AND s.expires_at_ms <= ";
                for share in load_where(tx, soon, soon_ms).await? {
                    sqlx::query("UPDATE shares SET expiry_notified = TRUE WHERE id = $1")
                        .bind(share.id.as_bytes().as_slice())
                        .execute(&mut tx.connection)
                        .await
                        .map_err(failed)?;
                    tell(tx, &share, "storage.share.expiring_soon", now_ms).await?;
                }
                Ok(())
            })
        })
        .await
    }
}

/// A container is about to be removed, and the shares from it and to it go with it.
pub(crate) async fn removed_with_container(
    tx: &mut Tx,
    container: ContainerId,
    now_ms: i64,
) -> Result<()> {
    for place in [" WHERE s.source = ", " WHERE s.target_container = "] {
        for share in load_where(tx, place, container.as_bytes().to_vec()).await? {
            remove(tx, &share, "storage.share.deleted", now_ms).await?;
        }
    }
    Ok(())
}

/// A project is about to be removed, and the shares to it go with it.
pub(crate) async fn removed_with_project(
    tx: &mut Tx,
    project: ProjectId,
    now_ms: i64,
) -> Result<()> {
    let place = " WHERE s.target_project = ";
    for share in load_where(tx, place, project.as_bytes().to_vec()).await? {
        remove(tx, &share, "storage.share.deleted", now_ms).await?;
    }
    Ok(())
}

/// A container has come to another phase: those that see something of it are to be looked at.
pub(crate) async fn source_changed(tx: &mut Tx, source: ContainerId, now_ms: i64) -> Result<()> {
    let shares = load_where(tx, " WHERE s.source = ", source.as_bytes().to_vec()).await?;
    for share in shares.iter().filter(|share| share.enabled) {
        changed_targets(tx, share, now_ms).await?;
    }
    Ok(())
}

/// What a user may do has changed, and so may what their shares reach.
pub(crate) async fn rights_changed(tx: &mut Tx, user: UserId, now_ms: i64) -> Result<()> {
    let place = " WHERE s.created_by = ";
    for share in load_where(tx, place, user.as_bytes().to_vec()).await? {
        changed_targets(tx, &share, now_ms).await?;
    }
    Ok(())
}

/// Puts every container that a share reaches into the feed.
async fn changed_targets(tx: &mut Tx, share: &Share, now_ms: i64) -> Result<()> {
    match share.target {
        ShareTarget::Container(container) => tx.changed(container, now_ms),
        ShareTarget::Project(project) => {
            let rows = sqlx::query("SELECT id FROM containers WHERE project = $1 AND NOT prespawn")
                .bind(project.as_bytes().as_slice())
                .fetch_all(&mut tx.connection)
                .await
                .map_err(failed)?;
            for row in &rows {
                tx.changed(columns::id(row, "id")?, now_ms);
            }
        }
    }
    Ok(())
}

async fn remove(tx: &mut Tx, share: &Share, kind: &str, now_ms: i64) -> Result<()> {
    changed_targets(tx, share, now_ms).await?;
    tell(tx, share, kind, now_ms).await?;
    sqlx::query("DELETE FROM shares WHERE id = $1")
        .bind(share.id.as_bytes().as_slice())
        .execute(&mut tx.connection)
        .await
        .map(drop)
        .map_err(failed)
}

async fn tell(tx: &mut Tx, share: &Share, kind: &str, at_ms: i64) -> Result<()> {
    let source = containers::load(tx, share.source).await?;
    told::share_told(tx, share, &source.spec.realms, kind, at_ms).await
}

/// The side that receives it has said something: both sides are told.
async fn tell_mount(
    tx: &mut Tx,
    share: &Share,
    container: ContainerId,
    is_wanted: bool,
    at_ms: i64,
) -> Result<()> {
    let source = containers::load(tx, share.source).await?;
    let target = containers::load(tx, container).await?;
    told::share_mount_told(tx, share, (&source, &target), is_wanted, at_ms).await
}

async fn check_limits(tx: &mut Tx, share: &Share, max: ShareMax) -> Result<()> {
    let (target, id) = match share.target {
        ShareTarget::Container(id) => ("target_container", *id.as_bytes()),
        ShareTarget::Project(id) => ("target_project", *id.as_bytes()),
    };
    for (column, id, what, max) in [
        ("source", *share.source.as_bytes(), "a container", max.container),
        ("owner", *share.owner.as_bytes(), "an account", max.owner),
        (target, id, "what receives shares", max.target),
    ] {
        let mut query = sqlx::QueryBuilder::<Db>::new("SELECT count(*) FROM shares WHERE ");
        query.push(column).push(" = ").push_bind(id.to_vec());
        let count: i64 =
            query.build_query_scalar().fetch_one(&mut tx.connection).await.map_err(failed)?;
        if count >= i64::from(max) {
            return Err(Error::ShareLimit { what, max });
        }
    }
    Ok(())
}

async fn insert(tx: &mut Tx, share: &Share) -> Result<()> {
    let (container, project) = match share.target {
        ShareTarget::Container(id) => (Some(id.as_bytes().to_vec()), None),
        ShareTarget::Project(id) => (None, Some(id.as_bytes().to_vec())),
    };
    sqlx::query(
        "INSERT INTO shares (id, owner, project, source, source_path, target_container, \
         target_project, mode, alias, label, description, enabled, expires_at_ms, expiry_notified, \
         created_by, version, created_at_ms, updated_at_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, \
         $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)",
    )
    .bind(share.id.as_bytes().as_slice())
    .bind(share.owner.as_bytes().as_slice())
    .bind(share.project.as_bytes().as_slice())
    .bind(share.source.as_bytes().as_slice())
    .bind(share.path.as_str())
    .bind(container)
    .bind(project)
    .bind(share.mode.as_str())
    .bind(share.alias.as_ref().map(ShareName::as_str))
    .bind(share.label.as_ref().map(ShareName::as_str))
    .bind(&share.description)
    .bind(share.enabled)
    .bind(share.expires_at_ms)
    .bind(share.expiry_notified)
    .bind(share.created_by.as_bytes().as_slice())
    .bind(integer(share.version.0))
    .bind(share.created_at_ms)
    .bind(share.updated_at_ms)
    .execute(&mut tx.connection)
    .await
    .map(drop)
    .map_err(failed)
}

async fn load(tx: &mut Tx, id: ShareId) -> Result<Share> {
    let found = load_where(tx, " WHERE s.id = ", id.as_bytes().to_vec()).await?.pop();
    found.ok_or(Error::NotFound)
}

async fn load_where<'v, V>(tx: &mut Tx, place: &'static str, value: V) -> Result<Vec<Share>>
where
    V: sqlx::Encode<'v, Db> + sqlx::Type<Db> + Send + 'v,
{
    let mut query = sqlx::QueryBuilder::<Db>::new(SHARES);
    query.push(place).push_bind(value);
    let rows: Vec<Row> = query.build().fetch_all(&mut tx.connection).await.map_err(failed)?;
    rows.iter().map(share).collect()
}
