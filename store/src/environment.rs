//! How far the environment variables of containers have come.
//!
//! Every change of them counts up a revision, in the write that changes them. Whoever brings them into a container
//! notes what came of it. That is no change of the container: neither its version rises nor does the feed tell of
//! it, and nothing is written where there is no news.

use crate::{
    Store,
    columns::{self, integer},
    error::{Result, failed},
    record::Container,
    sqlite::Row,
};

/// An attempt that fails like the one before is noted again only after this long.
const SAME_AGAIN_MS: i64 = 60_000;

/// How far the variables of a container have come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnvironmentSync {
    /// Counts the changes of the variables; 0 for those that the container was made with.
    pub revision: u64,
    /// The revision that was in the container when that was last seen; absent before.
    pub applied: Option<u64>,
    /// When that was: after each change and each start, not again and again between.
    pub verified_at_ms: Option<i64>,
    /// When it was last tried, to about a minute where it keeps failing.
    pub attempted_at_ms: Option<i64>,
    /// Why the last attempt failed, in words for the container's owner; absent after one that did not.
    pub last_error: Option<String>,
}

impl EnvironmentSync {
    /// Whether a container that runs may lack the present variables.
    pub fn is_pending(&self) -> bool {
        self.last_error.is_some() || self.applied != Some(self.revision)
    }

    /// What follows from an attempt; nothing if that is no news.
    fn after(
        &self,
        failure: Option<&str>,
        started_at_ms: Option<i64>,
        now_ms: i64,
    ) -> Option<Self> {
        let Some(failure) = failure else {
            let is_known = !self.is_pending() && self.verified_at_ms >= started_at_ms;
            return (!is_known).then_some(Self {
                revision: self.revision,
                applied: Some(self.revision),
                verified_at_ms: Some(now_ms),
                attempted_at_ms: Some(now_ms),
                last_error: None,
            });
        };
        let is_recent =
            self.attempted_at_ms.is_some_and(|at_ms| now_ms.saturating_sub(at_ms) < SAME_AGAIN_MS);
        let is_known = is_recent && self.last_error.as_deref() == Some(failure);
        (!is_known).then(|| Self {
            attempted_at_ms: Some(now_ms),
            last_error: Some(failure.to_owned()),
            ..self.clone()
        })
    }

    pub(crate) fn of(row: &Row) -> Result<Self> {
        let applied: Option<i64> = columns::get(row, "env_applied")?;
        Ok(Self {
            revision: columns::count(row, "env_revision")?,
            applied: applied.map(|applied| columns::natural(applied, "env_applied")).transpose()?,
            verified_at_ms: columns::get(row, "env_verified_at_ms")?,
            attempted_at_ms: columns::get(row, "env_attempted_at_ms")?,
            last_error: columns::get(row, "env_error")?,
        })
    }
}

impl Store {
    /// Notes what came of bringing the variables of `container` into it: that they are there, or why not, in words
    /// for its owner. Nothing is noted of a container that is another version by now: whoever changed it has had
    /// them brought in again.
    pub async fn note_environment(
        &self,
        container: &Container,
        failure: Option<&str>,
        now_ms: i64,
    ) -> Result<()> {
        let (old, started_at_ms) = (&container.environment_sync, container.status.started_at_ms);
        let Some(new) = old.after(failure, started_at_ms, now_ms) else { return Ok(()) };
        let (id, version) = (container.id, container.version);
        self.write(move |tx| {
            Box::pin(async move {
                sqlx::query(
                    "UPDATE containers SET env_applied = $3, env_verified_at_ms = $4, \
                     env_attempted_at_ms = $5, env_error = $6 WHERE id = $1 AND version = $2",
                )
                .bind(id.as_bytes().as_slice())
                .bind(integer(version.0))
                .bind(new.applied.map(integer))
                .bind(new.verified_at_ms)
                .bind(new.attempted_at_ms)
                .bind(new.last_error)
                .execute(&mut tx.connection)
                .await
                .map(drop)
                .map_err(failed)
            })
        })
        .await
    }
}
