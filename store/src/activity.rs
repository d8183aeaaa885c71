//! What was written through the API: one entry for each request that was no read.

use gantry_model::{LogId, RealmId, TokenId, UserId};

use crate::{
    Store,
    columns::{self, damaged, natural},
    error::{Result, failed},
    listing::{self, Condition, List},
    record::{Listed, Page},
    sqlite::Row,
};

/// A request that was no read, and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activity {
    /// The entry's id.
    pub id: LogId,
    /// Who asked.
    pub owner: UserId,
    /// The token that it was asked with, if it was one.
    pub token: Option<TokenId>,
    /// The realm of the host that was asked.
    pub realm: Option<RealmId>,
    /// The method.
    pub method: String,
    /// The path, without its query.
    pub path: String,
    /// The status of the answer.
    pub status: u16,
    /// Where it came from, if that is known.
    pub ip: Option<String>,
    /// What the client called itself.
    pub user_agent: Option<String>,
    /// Whether it was about passwords, sessions or tokens.
    pub security: bool,
    /// When it was answered.
    pub at_ms: i64,
}

/// Which entries a list shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActivityFilter {
    /// Only those of this user.
    pub owner: Option<UserId>,
    /// Only those in this realm.
    pub realm: Option<RealmId>,
    /// Only those with this method.
    pub method: Option<String>,
    /// Only those with one of these paths, if there are any.
    pub paths: Vec<String>,
    /// Only those answered with this status or a greater one.
    pub status_min: Option<u16>,
    /// Only those answered with this status or a smaller one.
    pub status_max: Option<u16>,
    /// Only those of this time or later.
    pub from_ms: Option<i64>,
    /// Only those of this time or earlier.
    pub to_ms: Option<i64>,
    /// Only those about passwords, sessions and tokens.
    pub security: bool,
}

/// How much is kept of a user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ActivityTotals {
    /// Entries.
    pub records: u64,
    /// Their texts, in octets.
    pub bytes: u64,
    /// When the oldest was made.
    pub oldest_ms: Option<i64>,
    /// When the newest was made.
    pub newest_ms: Option<i64>,
}

impl Store {
    /// Adds an entry.
    pub async fn add_activity(&self, entry: &Activity) -> Result<()> {
        let entry = entry.clone();
        self.write(move |tx| {
            Box::pin(async move {
                sqlx::query(
                    "INSERT INTO activity (id, owner, token, realm, method, path, status, ip, \
                     user_agent, security, at_ms) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
                )
                .bind(entry.id.as_bytes().as_slice())
                .bind(entry.owner.as_bytes().as_slice())
                .bind(entry.token.as_ref().map(|id| id.as_bytes().as_slice()))
                .bind(entry.realm.as_ref().map(|id| id.as_bytes().as_slice()))
                .bind(&entry.method)
                .bind(&entry.path)
                .bind(i64::from(entry.status))
                .bind(&entry.ip)
                .bind(&entry.user_agent)
                .bind(i64::from(entry.security))
                .bind(entry.at_ms)
                .execute(&mut tx.connection)
                .await
                .map(drop)
                .map_err(failed)
            })
        })
        .await
    }

    /// Lists entries by their time.
    pub async fn activity(
        &self,
        filter: ActivityFilter,
        page: Page<()>,
    ) -> Result<Listed<Activity>> {
        let number = |number: u16| i64::from(number);
        let conditions: Vec<Condition> = [
            Condition::is("owner", filter.owner),
            Condition::is("realm", filter.realm),
            filter.method.map(|method| Condition::Text("method", method)),
            (!filter.paths.is_empty()).then_some(Condition::OneOf("path", filter.paths)),
            filter.status_min.map(|min| Condition::AtLeast("status", number(min))),
            filter.status_max.map(|max| Condition::AtMost("status", number(max))),
            filter.from_ms.map(|from_ms| Condition::AtLeast("at_ms", from_ms)),
            filter.to_ms.map(|to_ms| Condition::AtMost("at_ms", to_ms)),
            filter.security.then_some(Condition::AtLeast("security", 1)),
        ]
        .into_iter()
        .flatten()
        .collect();
        List { table: "activity", conditions: &conditions, order: "at_ms", tie: "id" }
            .read(self.readers(), page, activity)
            .await
    }

    /// How much is kept of a user, in one realm if that is given.
    pub async fn activity_totals(
        &self,
        owner: UserId,
        realm: Option<RealmId>,
    ) -> Result<ActivityTotals> {
        let row: Row = sqlx::query(
            "SELECT count(*) AS records, coalesce(sum(length(method) + length(path) + \
             coalesce(length(ip), 0) + coalesce(length(user_agent), 0)), 0) AS bytes, \
             min(at_ms) AS oldest_ms, max(at_ms) AS newest_ms FROM activity \
             WHERE owner = $1 AND ($2 IS NULL OR realm = $2)",
        )
        .bind(owner.as_bytes().as_slice())
        .bind(realm.as_ref().map(|id| id.as_bytes().as_slice()))
        .fetch_one(self.readers())
        .await
        .map_err(failed)?;
        Ok(ActivityTotals {
            records: natural(columns::get(&row, "records")?, "records")?,
            bytes: natural(columns::get(&row, "bytes")?, "bytes")?,
            oldest_ms: columns::get(&row, "oldest_ms")?,
            newest_ms: columns::get(&row, "newest_ms")?,
        })
    }

    /// Removes entries of before this time, in parts between which others write; returns how many.
    pub async fn sweep_activity(&self, before_ms: i64) -> Result<u64> {
        self.remove_activity(None, before_ms).await
    }

    /// Removes the oldest entries of every account that has more than `max`; returns how many. Entries of
    /// one millisecond stay or go together.
    pub async fn trim_activity(&self, max: u32) -> Result<u64> {
        let mut removed = 0;
        for owner in self.user_ids().await? {
            // The oldest of those that stay.
            let first: Option<i64> = sqlx::query_scalar(
                "SELECT at_ms FROM activity WHERE owner = $1 ORDER BY at_ms DESC LIMIT 1 OFFSET $2",
            )
            .bind(owner.as_bytes().as_slice())
            .bind(i64::from(max.saturating_sub(1)))
            .fetch_optional(self.readers())
            .await
            .map_err(failed)?;
            if let Some(before_ms) = first {
                removed += self.remove_activity(Some(owner), before_ms).await?;
            }
        }
        Ok(removed)
    }

    async fn remove_activity(&self, owner: Option<UserId>, before_ms: i64) -> Result<u64> {
        let mut conditions: Vec<Condition> = Condition::is("owner", owner).into_iter().collect();
        conditions.push(Condition::AtMost("at_ms", before_ms.saturating_sub(1)));
        listing::delete_in_parts(self, ("activity", "id"), &conditions).await
    }
}

fn activity(row: &Row) -> Result<Activity> {
    let id = columns::id(row, "id")?;
    let read = || -> Result<Activity> {
        let status: i64 = columns::get(row, "status")?;
        Ok(Activity {
            id,
            owner: columns::id(row, "owner")?,
            token: columns::optional_id(row, "token")?,
            realm: columns::optional_id(row, "realm")?,
            method: columns::get(row, "method")?,
            path: columns::get(row, "path")?,
            status: u16::try_from(status).map_err(|_error| damaged("status", "is no status"))?,
            ip: columns::get(row, "ip")?,
            user_agent: columns::get(row, "user_agent")?,
            security: columns::get::<i64>(row, "security")? != 0,
            at_ms: columns::get(row, "at_ms")?,
        })
    };
    read().map_err(columns::of("activity", id))
}
