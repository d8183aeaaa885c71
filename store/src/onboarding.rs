//! What the clients of a user have shown to it already.

use std::collections::BTreeMap;

use gantry_model::UserId;

use crate::{
    Store, columns,
    error::{Error, Result, failed},
    sqlite::Row,
};

impl Store {
    /// The milestones of a user, and when each was reached first, in milliseconds since the epoch.
    pub async fn onboarding(&self, user: UserId) -> Result<BTreeMap<String, i64>> {
        let rows: Vec<Row> =
            sqlx::query("SELECT milestone, at_ms FROM onboarding WHERE owner = $1")
                .bind(user.as_bytes().as_slice())
                .fetch_all(self.readers())
                .await
                .map_err(failed)?;
        let read = |row: &Row| Ok((columns::get(row, "milestone")?, columns::get(row, "at_ms")?));
        rows.iter().map(read).collect()
    }

    /// Notes that a user has reached a milestone; the first time counts. False if it has `max` others already.
    pub async fn reach_milestone(
        &self,
        user: UserId,
        milestone: &str,
        max: u32,
        now_ms: i64,
    ) -> Result<bool> {
        let milestone = milestone.to_owned();
        self.write(move |tx| {
            Box::pin(async move {
                let others: i64 = sqlx::query_scalar(
                    "SELECT count(*) FROM onboarding WHERE owner = $1 AND milestone <> $2",
                )
                .bind(user.as_bytes().as_slice())
                .bind(&milestone)
                .fetch_one(&mut tx.connection)
                .await
                .map_err(failed)?;
                if others >= i64::from(max) {
                    return Ok(false);
                }
                sqlx::query(
                    "INSERT INTO onboarding (owner, milestone, at_ms) VALUES ($1, $2, $3) \
                     ON CONFLICT (owner, milestone) DO NOTHING",
                )
                .bind(user.as_bytes().as_slice())
                .bind(&milestone)
                .bind(now_ms)
                .execute(&mut tx.connection)
                .await
                .map_err(failed)?;
                Ok::<_, Error>(true)
            })
        })
        .await
    }
}
