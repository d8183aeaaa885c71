//! What users say about themselves.

use gantry_model::UserId;
use serde_json::{Map, Value};

use crate::{
    Store,
    columns::{self, damaged},
    error::{Error, Result, failed},
    sqlite::Row,
    told,
};

/// What a user says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// Its name for people; the account's name when absent.
    pub alias: Option<String>,
    /// Its public key, 64 hexadecimal digits.
    pub public_key: Option<String>,
    /// Whatever its clients keep.
    pub metadata: Map<String, Value>,
}

impl Store {
    /// The profile of a user; an empty one if there is none.
    pub async fn profile(&self, user: UserId) -> Result<Profile> {
        let row: Option<Row> = sqlx::query("SELECT * FROM profiles WHERE owner = $1")
            .bind(user.as_bytes().as_slice())
            .fetch_optional(self.readers())
            .await
            .map_err(failed)?;
        match row {
            None => Ok(Profile::default()),
            Some(row) => profile(&row).map_err(columns::of("profile", user)),
        }
    }

    /// Replaces the profile of a user. The later of two updates wins.
    ///
    /// [`Error::NotFound`] if there is no such user.
    pub async fn set_profile(&self, user: UserId, profile: &Profile, now_ms: i64) -> Result<()> {
        let metadata = serde_json::to_string(&profile.metadata)
            .map_err(|error| Error::Corrupt { what: error.to_string() })?;
        let profile = profile.clone();
        self.write(move |tx| {
            Box::pin(async move {
                let done = sqlx::query("UPDATE users SET updated_at_ms = $2 WHERE id = $1")
                    .bind(user.as_bytes().as_slice())
                    .bind(now_ms)
                    .execute(&mut tx.connection)
                    .await
                    .map_err(failed)?;
                if done.rows_affected() == 0 {
                    return Err(Error::NotFound);
                }
                sqlx::query(
                    "INSERT INTO profiles (owner, alias, public_key, metadata) \
                     VALUES ($1, $2, $3, $4) ON CONFLICT (owner) DO UPDATE \
                     SET alias = $2, public_key = $3, metadata = $4",
                )
                .bind(user.as_bytes().as_slice())
                .bind(&profile.alias)
                .bind(&profile.public_key)
                .bind(metadata)
                .execute(&mut tx.connection)
                .await
                .map_err(failed)?;
                told::account_told(tx, user, "profile", now_ms).await
            })
        })
        .await
    }
}

fn profile(row: &Row) -> Result<Profile> {
    let metadata: &str = columns::get(row, "metadata")?;
    Ok(Profile {
        alias: columns::get(row, "alias")?,
        public_key: columns::get(row, "public_key")?,
        metadata: serde_json::from_str(metadata)
            .map_err(|_error| damaged("metadata", "is no JSON object"))?,
    })
}
