//! Leases: one of several processes does a piece of work, and a late one changes nothing.
//!
//! A lease ends by the database's clock, which is only ever compared with itself; its holder counts
//! its own time from before it asked. Each taking raises the *fence*; a write under a lease names its
//! fence, and finds nothing to write to once somebody else has taken the lease.

use std::time::Duration;

use crate::{
    Store,
    columns::integer,
    error::{Error, Result, failed},
    sqlite::NOW_MS,
    writer::Tx,
};

/// No lease is taken for longer.
const LONGEST: Duration = Duration::from_hours(1);

/// A process, among those that share a store.
pub type Holder = [u8; 16];

/// A lease as its holder got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// What it is for.
    pub name: String,
    /// Who has it.
    pub holder: Holder,
    /// Which taking of the lease this is.
    pub fence: u64,
}

impl Store {
    /// Takes the lease for `ttl`, if nobody has it, its time is over, or `holder` has it already: then the
    /// earlier one of the same holder is no longer good either.
    pub async fn take_lease(
        &self,
        name: &str,
        holder: Holder,
        ttl: Duration,
    ) -> Result<Option<Lease>> {
        let name = name.to_owned();
        let statement = format!(
            "INSERT INTO leases (name, holder, fence, expires_at_ms) VALUES ($1, $2, 1, {NOW_MS} + $3) \
             ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, fence = leases.fence + 1, \
             expires_at_ms = excluded.expires_at_ms \
             WHERE leases.expires_at_ms <= {NOW_MS} OR leases.holder = excluded.holder \
             OR leases.expires_at_ms > {NOW_MS} + $4 \
             RETURNING fence"
        );
        self.write(move |tx| {
            Box::pin(async move {
                let fence: Option<i64> = sqlx::query_scalar(sqlx::AssertSqlSafe(statement))
                    .bind(&name)
                    .bind(holder.as_slice())
                    .bind(millis(ttl))
                    // One that lasts so long was taken while the clock was ahead.
                    .bind(millis(LONGEST.max(ttl)))
                    .fetch_optional(&mut tx.connection)
                    .await
                    .map_err(failed)?;
                let fence =
                    fence.map(|fence| crate::columns::natural(fence, "fence")).transpose()?;
                Ok(fence.map(|fence| Lease { name, holder, fence }))
            })
        })
        .await
    }

    /// Lengthens a lease to `ttl` from now. [`Error::Stale`] if it is somebody else's meanwhile; one whose
    /// time is over, but that nobody has taken, is lengthened.
    pub async fn renew_lease(&self, lease: &Lease, ttl: Duration) -> Result<()> {
        let lease = lease.clone();
        let statement = format!(
            "UPDATE leases SET expires_at_ms = {NOW_MS} + $1 \
             WHERE name = $2 AND holder = $3 AND fence = $4"
        );
        self.write(move |tx| {
            Box::pin(async move {
                let done = sqlx::query(sqlx::AssertSqlSafe(statement))
                    .bind(millis(ttl))
                    .bind(&lease.name)
                    .bind(lease.holder.as_slice())
                    .bind(integer(lease.fence))
                    .execute(&mut tx.connection)
                    .await
                    .map_err(failed)?;
                if done.rows_affected() == 0 { Err(Error::Stale) } else { Ok(()) }
            })
        })
        .await
    }

    /// Gives a lease back, so that others need not wait for its end. Nothing happens if it is somebody else's
    /// meanwhile. Its row stays: the fence must not begin anew.
    pub async fn return_lease(&self, lease: &Lease) -> Result<()> {
        let lease = lease.clone();
        self.write(move |tx| {
            Box::pin(async move {
                sqlx::query(
                    "UPDATE leases SET expires_at_ms = 0 \
                     WHERE name = $1 AND holder = $2 AND fence = $3",
                )
                .bind(&lease.name)
                .bind(lease.holder.as_slice())
                .bind(integer(lease.fence))
                .execute(&mut tx.connection)
                .await
                .map(drop)
                .map_err(failed)
            })
        })
        .await
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// Refuses the transaction's mutation with [`Error::Stale`] unless the lease is still good.
pub(crate) async fn require(tx: &mut Tx, lease: &Lease) -> Result<()> {
    let good: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM leases WHERE name = $1 AND holder = $2 AND fence = $3)",
    )
    .bind(&lease.name)
    .bind(lease.holder.as_slice())
    .bind(integer(lease.fence))
    .fetch_one(&mut tx.connection)
    .await
    .map_err(failed)?;
    if good { Ok(()) } else { Err(Error::Stale) }
}
