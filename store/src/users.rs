//! Accounts.

use gantry_model::UserId;

use crate::{
    Store,
    columns::{self, integer, natural},
    error::{Error, Result, failed},
    record::User,
    sqlite::Row,
    told,
};

impl Store {
    /// Adds an account. [`Error::UsernameTaken`] if there is one of this name.
    pub async fn create_user(&self, user: &User) -> Result<()> {
        self.add_user(user, None).await
    }

    /// As [`Store::create_user`], which is told to the account that makes it.
    pub async fn create_user_by(&self, by: UserId, user: &User) -> Result<()> {
        self.add_user(user, Some(by)).await
    }

    async fn add_user(&self, user: &User, by: Option<UserId>) -> Result<()> {
        let user = user.clone();
        self.write(move |tx| {
            Box::pin(async move {
                sqlx::query(
                    "INSERT INTO users (id, username, password_hash, is_admin, \
                     session_generation, created_at_ms, updated_at_ms) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7)",
                )
                .bind(user.id.as_bytes().as_slice())
                .bind(&user.username)
                .bind(&user.password_hash)
                .bind(user.is_admin)
                .bind(integer(user.session_generation))
                .bind(user.created_at_ms)
                .bind(user.updated_at_ms)
                .execute(&mut tx.connection)
                .await
                .map_err(failed)?;
                match by {
                    Some(by) => told::user_created(tx, by, &user).await,
                    None => Ok(()),
                }
            })
        })
        .await
    }

    /// The account of this id.
    pub async fn user(&self, id: UserId) -> Result<Option<User>> {
        let row = sqlx::query("SELECT * FROM users WHERE id = $1")
            .bind(id.as_bytes().as_slice())
            .fetch_optional(self.readers())
            .await
            .map_err(failed)?;
        row.as_ref().map(user).transpose()
    }

    /// The account of this name.
    pub async fn user_by_name(&self, username: &str) -> Result<Option<User>> {
        let row = sqlx::query("SELECT * FROM users WHERE username = $1")
            .bind(username)
            .fetch_optional(self.readers())
            .await
            .map_err(failed)?;
        row.as_ref().map(user).transpose()
    }

    /// The id of every account.
    pub(crate) async fn user_ids(&self) -> Result<Vec<UserId>> {
        let rows: Vec<Row> =
            sqlx::query("SELECT id FROM users").fetch_all(self.readers()).await.map_err(failed)?;
        rows.iter().map(|row| columns::id(row, "id")).collect()
    }

    /// How many accounts there are.
    pub async fn count_users(&self) -> Result<u64> {
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM users")
            .fetch_one(self.readers())
            .await
            .map_err(failed)?;
        natural(count, "count")
    }

    /// Replaces the password's hash and voids all sessions, as
    /// [`Store::bump_session_generation`] does.
    pub async fn update_password(
        &self,
        id: UserId,
        password_hash: &str,
        now_ms: i64,
    ) -> Result<()> {
        let password_hash = password_hash.to_owned();
        self.write(move |tx| {
            Box::pin(async move {
                let done = sqlx::query(
                    "UPDATE users SET password_hash = $2, updated_at_ms = $3, \
                     session_generation = session_generation + 1 WHERE id = $1",
                )
                .bind(id.as_bytes().as_slice())
                .bind(password_hash)
                .bind(now_ms)
                .execute(&mut tx.connection)
                .await
                .map_err(failed)?;
                if done.rows_affected() == 0 {
                    return Err(Error::NotFound);
                }
                told::account_told(tx, id, "password", now_ms).await
            })
        })
        .await
    }

    /// Voids all sessions of an account; returns the generation that new ones must carry.
    pub async fn bump_session_generation(&self, id: UserId, now_ms: i64) -> Result<u64> {
        self.write(move |tx| {
            Box::pin(async move {
                let generation: Option<i64> = sqlx::query_scalar(
                    "UPDATE users SET session_generation = session_generation + 1, \
                     updated_at_ms = $2 WHERE id = $1 RETURNING session_generation",
                )
                .bind(id.as_bytes().as_slice())
                .bind(now_ms)
                .fetch_optional(&mut tx.connection)
                .await
                .map_err(failed)?;
                natural(generation.ok_or(Error::NotFound)?, "session_generation")
            })
        })
        .await
    }
}

fn user(row: &Row) -> Result<User> {
    let id = columns::id(row, "id")?;
    let read = || -> Result<User> {
        Ok(User {
            id,
            username: columns::get(row, "username")?,
            password_hash: columns::get(row, "password_hash")?,
            is_admin: columns::get(row, "is_admin")?,
            session_generation: columns::count(row, "session_generation")?,
            created_at_ms: columns::get(row, "created_at_ms")?,
            updated_at_ms: columns::get(row, "updated_at_ms")?,
        })
    };
    read().map_err(columns::of("user", id))
}
