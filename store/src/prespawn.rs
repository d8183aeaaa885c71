//! The warm pool: containers that run before anybody wants them, and the creation that claims one.
//!
//! Nobody can reach what waits here and no event tells of it, so that a claimed container is as good as
//! a new one. One write decides who gets it.

use gantry_model::{ContainerId, ContainerSpec, Phase, RealmId, Wish};

use crate::{
    Store,
    columns::{self, integer},
    containers::{self, insert, load, log},
    document,
    error::{Error, Result, failed},
    listing, projects, quotas,
    record::{Container, ContainerStatus, EnvironmentSync, Version},
    sqlite::{Db, Row},
    ssh_keys,
    writer::Tx,
};

/// What the status log says about who has claimed a container, or made one in the place of a claimed one.
const BY_CLAIM: &str = "claim";
const BY_REFILL: &str = "refill";

/// How many containers may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrespawnMax {
    /// Of one account.
    pub owner: u32,
    /// On one server.
    pub server: u32,
}

/// What a creation asks the pool for.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The container that is to be; its id and its status are not used.
    pub wanted: Container,
    /// Only those that wait in this realm.
    pub realm: Option<RealmId>,
    /// The id of the one that will wait in the place of the claimed one.
    pub refill: ContainerId,
}

impl Store {
    /// Adds a container to the pool: as [`Store::create_container`], but it does not count for its
    /// project's quota. [`Error::PoolFull`] when as many wait as may.
    pub async fn create_prespawned(
        &self,
        container: &Container,
        max: PrespawnMax,
    ) -> Result<Container> {
        let (container, doc) = (container.clone(), document::write_container(&container.spec)?);
        let quotas = self.quotas;
        self.write(move |tx| {
            Box::pin(async move {
                projects::quota(tx, container.project).await?.ok_or(Error::ProjectGone)?;
                let owner = waiting(tx, "owner", container.owner.as_bytes()).await?;
                let server = waiting(tx, "server", container.server.as_bytes()).await?;
                for (count, max) in [(owner, max.owner), (server, max.server)] {
                    if count >= u64::from(max) {
                        return Err(Error::PoolFull { max });
                    }
                }
                quotas::check_server(tx, quotas, container.server).await?;
                insert(tx, container, &doc, containers::TRIGGERED_BY_CREATE).await
            })
        })
        .await
    }

    /// Makes the oldest waiting container that is like the wanted one (server, image, kit, ramdisk)
    /// and runs that container: name, project, realms and everything else that its owner sets are
    /// exchanged, its phase is `claiming`, its status log is empty before that, and another one like it
    /// begins to be made for the pool. `None` when there is none like it; then nothing has happened.
    ///
    /// Fails as [`Store::create_container`] does.
    pub async fn claim(&self, claim: &Claim) -> Result<Option<Container>> {
        let (claim, doc) = (claim.clone(), document::write_container(&claim.wanted.spec)?);
        let quotas = self.quotas;
        self.write(move |tx| {
            Box::pin(async move {
                let Some(waiting) = like(tx, &claim).await? else { return Ok(None) };
                containers::check_quota(tx, claim.wanted.project).await?;
                // On the server there will be one more: that which takes the claimed one's place.
                quotas::check_new(tx, quotas, &claim.wanted).await?;
                let claimed = exchange(tx, &waiting, claim.wanted, &doc).await?;
                refill(tx, waiting, claim.refill, claimed.created_at_ms).await?;
                Ok(Some(claimed))
            })
        })
        .await
    }
}

/// How many wait, those being deleted not counted.
async fn waiting(tx: &mut Tx, column: &'static str, id: &[u8; 12]) -> Result<u64> {
    let mut query =
        sqlx::QueryBuilder::<Db>::new("SELECT count(*) FROM containers WHERE prespawn AND ");
    query.push(column).push(" = ").push_bind(id.to_vec());
    query.push(" AND phase <> ").push_bind(Phase::Deleting.as_str());
    let count: i64 =
        query.build_query_scalar().fetch_one(&mut tx.connection).await.map_err(failed)?;
    columns::natural(count, "count")
}

/// The oldest that waits, runs, and is like the wanted one.
async fn like(tx: &mut Tx, claim: &Claim) -> Result<Option<Container>> {
    let wanted = &claim.wanted;
    let realm = claim.realm.map(|realm| realm.as_bytes().to_vec());
    let rows: Vec<Row> = sqlx::query(
        "SELECT * FROM containers WHERE prespawn AND owner = $1 AND server = $2 AND phase = $3 \
         AND ($4 IS NULL OR EXISTS (SELECT 1 FROM container_realms \
         WHERE container = containers.id AND realm = $4)) ORDER BY created_at_ms, id",
    )
    .bind(wanted.owner.as_bytes().as_slice())
    .bind(wanted.server.as_bytes().as_slice())
    .bind(Phase::Running.as_str())
    .bind(realm)
    .fetch_all(&mut tx.connection)
    .await
    .map_err(failed)?;
    for row in &rows {
        let waiting = match containers::container(row) {
            Ok(waiting) => waiting,
            // It would be in the way of all creations, also of those that want another image.
            Err(error) => {
                tracing::error!(%error, "a warm container cannot be read; none claims it");
                continue;
            }
        };
        let done = waiting.status.done_seq >= waiting.wish_seq;
        if done && is_like(&waiting.spec, &wanted.spec) {
            return Ok(Some(waiting));
        }
    }
    Ok(None)
}

/// Whether what nobody can change in a running container is the same.
fn is_like(waiting: &ContainerSpec, wanted: &ContainerSpec) -> bool {
    waiting.image == wanted.image
        && waiting.hoody_kit == wanted.hoody_kit
        && waiting.dev_kit == wanted.dev_kit
        && waiting.ramdisk == wanted.ramdisk
        && waiting.kvm == wanted.kvm
}

/// Makes the waiting container the wanted one; its version decides between two that want it.
async fn exchange(
    tx: &mut Tx,
    waiting: &Container,
    wanted: Container,
    doc: &str,
) -> Result<Container> {
    let claimed = Container {
        id: waiting.id,
        wish: Wish::Running,
        wish_seq: waiting.wish_seq + 1,
        // Its owner's time begins now, and so does that after which it is idle.
        status: ContainerStatus {
            phase: Phase::Claiming,
            started_at_ms: Some(wanted.created_at_ms),
            ..waiting.status.clone()
        },
        version: Version(waiting.version.0 + 1),
        prespawn: false,
        ..wanted
    };
    if let Some(key) = &claimed.spec.ssh_public_key {
        ssh_keys::take(tx, key, claimed.owner, claimed.created_at_ms).await?;
    }
    let key = claimed.spec.ssh_public_key.as_ref().map(|key| key.fingerprint().0.to_vec());
    let done = sqlx::query(
        "UPDATE containers SET prespawn = FALSE, project = $3, name = $4, key_fingerprint = $5, \
         doc = $6, wish = $7, wish_seq = $8, phase = $9, created_at_ms = $10, \
         updated_at_ms = $10, started_at_ms = $10, version = $11, env_revision = 0, \
         env_applied = NULL, env_verified_at_ms = NULL, env_attempted_at_ms = NULL, \
         env_error = NULL, ssh_forwarding = $12, \
         ssh_key_since_ms = CASE WHEN $5 IS NULL THEN NULL ELSE $10 END WHERE id = $1 AND version = $2 AND prespawn",
    )
    .bind(claimed.id.as_bytes().as_slice())
    .bind(integer(waiting.version.0))
    .bind(claimed.project.as_bytes().as_slice())
    .bind(claimed.spec.name.as_str())
    .bind(key)
    .bind(doc)
    .bind(claimed.wish.as_str())
    .bind(integer(claimed.wish_seq))
    .bind(claimed.status.phase.as_str())
    .bind(claimed.created_at_ms)
    .bind(integer(claimed.version.0))
    .bind(claimed.spec.ssh_forwarding)
    .execute(&mut tx.connection)
    .await
    .map_err(failed)?;
    if done.rows_affected() == 0 {
        return Err(Error::Stale);
    }
    listing::set_container_realms(tx, claimed.id, &claimed.spec.realms).await?;
    // What happened before belongs to nobody; it may name another project's members.
    sqlx::query("DELETE FROM status_logs WHERE container = $1")
        .bind(claimed.id.as_bytes().as_slice())
        .execute(&mut tx.connection)
        .await
        .map_err(failed)?;
    log(tx, &claimed, None, BY_CLAIM).await?;
    tx.changed(claimed.id, claimed.updated_at_ms);
    load(tx, claimed.id).await
}

/// Begins another one like the one that has been claimed.
async fn refill(tx: &mut Tx, claimed: Container, id: ContainerId, now_ms: i64) -> Result<()> {
    let mut next = Container {
        id,
        wish: Wish::Running,
        wish_seq: 1,
        status: ContainerStatus::first(Phase::Creating),
        environment_sync: EnvironmentSync::default(),
        ssh_key_since_ms: None,
        version: Version::FIRST,
        created_at_ms: now_ms,
        updated_at_ms: now_ms,
        ..claimed
    };
    next.spec.name = gantry_model::container::ContainerName::of_prespawned(id);
    // Not every claim is to build an image.
    next.spec.cache = true;
    let doc = document::write_container(&next.spec)?;
    insert(tx, next, &doc, BY_REFILL).await.map(drop)
}
