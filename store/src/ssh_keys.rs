//! SSH keys that containers have given back. Until every edge has heard of that, a key could still open
//! the container that had it: it is kept from other owners for a while, so that nobody lands in a
//! stranger's container. Its owner moves it at will, from one container of theirs to another.

use gantry_model::{UserId, ssh::SshPublicKey};

use crate::{
    error::{Error, Result, failed},
    writer::Tx,
};

/// How long. Edges follow within a second; one that has not within this time is not one.
const KEPT_MS: i64 = 60_000;

/// Notes that a container of this owner gives its key back.
pub(crate) async fn give_back(
    tx: &mut Tx,
    key: &SshPublicKey,
    owner: UserId,
    now_ms: i64,
) -> Result<()> {
    sqlx::query("DELETE FROM freed_ssh_keys WHERE freed_at_ms < $1")
        .bind(now_ms.saturating_sub(KEPT_MS))
        .execute(&mut tx.connection)
        .await
        .map_err(failed)?;
    sqlx::query(
        "INSERT INTO freed_ssh_keys (fingerprint, owner, freed_at_ms) VALUES ($1, $2, $3) \
         ON CONFLICT (fingerprint) DO UPDATE SET owner = excluded.owner, \
         freed_at_ms = excluded.freed_at_ms",
    )
    .bind(key.fingerprint().0.to_vec())
    .bind(owner.as_bytes().as_slice())
    .bind(now_ms)
    .execute(&mut tx.connection)
    .await
    .map(drop)
    .map_err(failed)
}

/// [`Error::KeyTaken`] if somebody else's container had this key until a moment ago.
pub(crate) async fn take(
    tx: &mut Tx,
    key: &SshPublicKey,
    owner: UserId,
    now_ms: i64,
) -> Result<()> {
    let waits: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM freed_ssh_keys WHERE fingerprint = $1 AND owner <> $2 \
         AND freed_at_ms > $3 AND freed_at_ms <= $4)",
    )
    .bind(key.fingerprint().0.to_vec())
    .bind(owner.as_bytes().as_slice())
    .bind(now_ms.saturating_sub(KEPT_MS))
    // What is later than that was noted by a clock that has been set back since.
    .bind(now_ms.saturating_add(KEPT_MS))
    .fetch_one(&mut tx.connection)
    .await
    .map_err(failed)?;
    if waits { Err(Error::KeyTaken) } else { Ok(()) }
}
