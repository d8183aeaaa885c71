//! Answers kept for requests that carry an idempotency key.

use crate::{
    Store,
    columns::{self, damaged},
    error::{Error, Result, failed},
    leases::Holder,
    record::Idempotency,
    sqlite::{Connection, Row},
};

/// How long a key is remembered, in milliseconds.
const KEPT_MS: i64 = 24 * 60 * 60 * 1000;

/// Frees the keys of requests that an earlier process did not finish. Whatever they had written
/// stands; the uniqueness of names and keys makes asking again safe.
pub(crate) async fn forget_unfinished(connection: &mut Connection) -> Result<()> {
    sqlx::query("DELETE FROM idempotency WHERE status IS NULL")
        .execute(connection)
        .await
        .map(drop)
        .map_err(failed)
}

impl Store {
    /// Takes a key, or tells what became of the request that took it first. A key is forgotten 24
    /// hours after it was taken.
    ///
    /// `scope` separates callers and routes: the same key in two scopes is two keys.
    pub async fn idempotency_begin(
        &self,
        scope: &str,
        key: &str,
        body_hash: &[u8; 32],
        now_ms: i64,
    ) -> Result<Idempotency> {
        let (scope, key, body_hash) = (scope.to_owned(), key.to_owned(), *body_hash);
        let process = self.process();
        self.write(move |tx| {
            Box::pin(async move {
                let taken = sqlx::query(
                    "INSERT INTO idempotency (scope, idempotency_key, body_hash, at_ms, process) \
                     VALUES ($1, $2, $3, $4, $6) ON CONFLICT (scope, idempotency_key) DO UPDATE \
                     SET body_hash = $3, at_ms = $4, status = NULL, body = NULL, process = $6 \
                     WHERE idempotency.at_ms <= $5",
                )
                .bind(&scope)
                .bind(&key)
                .bind(body_hash.as_slice())
                .bind(now_ms)
                .bind(now_ms.saturating_sub(KEPT_MS))
                .bind(process.as_slice())
                .execute(&mut tx.connection)
                .await
                .map_err(failed)?;
                if taken.rows_affected() == 1 {
                    return Ok(Idempotency::Fresh);
                }
                let row = sqlx::query(
                    "SELECT body_hash, status, body FROM idempotency \
                     WHERE scope = $1 AND idempotency_key = $2",
                )
                .bind(&scope)
                .bind(&key)
                .fetch_one(&mut tx.connection)
                .await
                .map_err(failed)?;
                found(&row, &body_hash)
            })
        })
        .await
    }

    /// Keeps the answer to the request that took the key. [`Error::NotFound`] if nobody holds it.
    pub async fn idempotency_finish(
        &self,
        scope: &str,
        key: &str,
        status: u16,
        body: &[u8],
        now_ms: i64,
    ) -> Result<()> {
        let (scope, key, body) = (scope.to_owned(), key.to_owned(), body.to_vec());
        self.write(move |tx| {
            Box::pin(async move {
                let done = sqlx::query(
                    "UPDATE idempotency SET status = $3, body = $4, at_ms = $5 \
                     WHERE scope = $1 AND idempotency_key = $2 AND status IS NULL",
                )
                .bind(scope)
                .bind(key)
                .bind(i64::from(status))
                .bind(body)
                .bind(now_ms)
                .execute(&mut tx.connection)
                .await
                .map_err(failed)?;
                if done.rows_affected() == 0 { Err(Error::NotFound) } else { Ok(()) }
            })
        })
        .await
    }

    /// Frees a key whose request came to no answer worth keeping. A key with an answer stays.
    pub async fn idempotency_abandon(&self, scope: &str, key: &str) -> Result<()> {
        let (scope, key) = (scope.to_owned(), key.to_owned());
        self.write(move |tx| {
            Box::pin(async move {
                sqlx::query(
                    "DELETE FROM idempotency \
                     WHERE scope = $1 AND idempotency_key = $2 AND status IS NULL",
                )
                .bind(scope)
                .bind(key)
                .execute(&mut tx.connection)
                .await
                .map(drop)
                .map_err(failed)
            })
        })
        .await
    }

    /// Frees the keys of requests that another process ([`Store::process`]) has not finished, which has ended;
    /// returns how many there were.
    pub async fn forget_process(&self, process: Holder) -> Result<u64> {
        self.write(move |tx| {
            Box::pin(async move {
                sqlx::query("DELETE FROM idempotency WHERE process = $1 AND status IS NULL")
                    .bind(process.as_slice())
                    .execute(&mut tx.connection)
                    .await
                    .map(|done| done.rows_affected())
                    .map_err(failed)
            })
        })
        .await
    }

    /// Forgets every key that was taken or answered before an instant; returns how many.
    pub async fn sweep_idempotency(&self, before_ms: i64) -> Result<u64> {
        self.write(move |tx| {
            Box::pin(async move {
                sqlx::query("DELETE FROM idempotency WHERE at_ms < $1")
                    .bind(before_ms)
                    .execute(&mut tx.connection)
                    .await
                    .map(|done| done.rows_affected())
                    .map_err(failed)
            })
        })
        .await
    }
}

fn found(row: &Row, body_hash: &[u8; 32]) -> Result<Idempotency> {
    if columns::octets::<32>(row, "body_hash")? != *body_hash {
        return Ok(Idempotency::Mismatch);
    }
    let Some(status) = columns::get::<Option<i64>>(row, "status")? else {
        return Ok(Idempotency::InProgress);
    };
    let status = u16::try_from(status).map_err(|_error| damaged("status", "is no HTTP status"))?;
    let body: Option<Vec<u8>> = columns::get(row, "body")?;
    Ok(Idempotency::Done { status, body: body.unwrap_or_default() })
}
