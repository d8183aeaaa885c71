//! Long-lived API tokens.

use gantry_model::{TokenId, UserId};

use crate::{
    ProfileWrite, Store, columns, document,
    error::{Error, Result, failed},
    record::Token,
    sqlite::Row,
    token_profiles, told,
    writer::Tx,
};

/// Uses within this time of the last recorded one, from the same address, are not written down, in
/// milliseconds: a use must not cost a flush of the disk.
const TOUCH_EVERY_MS: i64 = 60_000;

impl Store {
    /// Adds a token. [`Error::NotFound`] if its owner does not exist, [`Error::IdTaken`] if there
    /// is one of this id or hash.
    pub async fn create_token(&self, token: &Token) -> Result<()> {
        self.create_token_with(token, None, usize::MAX).await
    }

    /// The same with a profile and for an owner who may have at most `max` tokens; [`Error::TokenLimit`],
    /// [`Error::PublicKeyTaken`] and [`Error::PublicStorageLimit`] besides, and then there is no token either.
    pub async fn create_token_with(
        &self,
        token: &Token,
        profile: Option<ProfileWrite>,
        max: usize,
    ) -> Result<()> {
        let (token, doc) = (token.clone(), document::write_token(token)?);
        self.write(move |tx| {
            Box::pin(async move {
                let (count,): (i64,) =
                    sqlx::query_as("SELECT COUNT(*) FROM tokens WHERE owner = $1")
                        .bind(token.owner.as_bytes().as_slice())
                        .fetch_one(&mut tx.connection)
                        .await
                        .map_err(failed)?;
                if usize::try_from(count).unwrap_or(usize::MAX) >= max {
                    return Err(Error::TokenLimit { max });
                }
                sqlx::query(
                    "INSERT INTO tokens (id, owner, hash, enabled, expires_at_ms, \
                     last_used_at_ms, last_used_ip, created_at_ms, updated_at_ms, doc) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
                )
                .bind(token.id.as_bytes().as_slice())
                .bind(token.owner.as_bytes().as_slice())
                .bind(token.hash.as_slice())
                .bind(token.enabled)
                .bind(token.expires_at_ms)
                .bind(token.last_used_at_ms)
                .bind(&token.last_used_ip)
                .bind(token.created_at_ms)
                .bind(token.updated_at_ms)
                .bind(doc)
                .execute(&mut tx.connection)
                .await
                .map_err(failed)?;
                if let Some(write) = &profile {
                    token_profiles::put(tx, &token, write).await?;
                }
                let at_ms = token.created_at_ms;
                told::token_told(tx, &token, "auth.token.created", at_ms).await
            })
        })
        .await
    }

    /// The token with this hash; it may have expired or be disabled.
    pub async fn token_by_hash(&self, hash: &[u8; 32]) -> Result<Option<Token>> {
        let row = sqlx::query("SELECT * FROM tokens WHERE hash = $1")
            .bind(hash.as_slice())
            .fetch_optional(self.readers())
            .await
            .map_err(failed)?;
        row.as_ref().map(token).transpose()
    }

    /// Every token of a user, oldest first.
    pub async fn tokens(&self, owner: UserId) -> Result<Vec<Token>> {
        let rows = sqlx::query("SELECT * FROM tokens WHERE owner = $1 ORDER BY created_at_ms, id")
            .bind(owner.as_bytes().as_slice())
            .fetch_all(self.readers())
            .await
            .map_err(failed)?;
        rows.iter().map(token).collect()
    }

    /// A token of a user.
    pub async fn token(&self, owner: UserId, id: TokenId) -> Result<Option<Token>> {
        let row = sqlx::query("SELECT * FROM tokens WHERE id = $1 AND owner = $2")
            .bind(id.as_bytes().as_slice())
            .bind(owner.as_bytes().as_slice())
            .fetch_optional(self.readers())
            .await
            .map_err(failed)?;
        row.as_ref().map(token).transpose()
    }

    /// Replaces everything that can change of a token: not its id, owner, time of making and last
    /// use. [`Error::Stale`] when it is not as it was `seen` any more, uses aside: an update that was made
    /// from what no longer holds could undo what matters most, that it was switched off.
    pub async fn update_token(&self, seen: &Token, token: &Token) -> Result<()> {
        self.update_token_with(seen, token, None).await
    }

    /// The same with another profile; [`Error::PublicKeyTaken`] and [`Error::PublicStorageLimit`]
    /// besides, and then nothing has changed.
    pub async fn update_token_with(
        &self,
        seen: &Token,
        token: &Token,
        profile: Option<ProfileWrite>,
    ) -> Result<()> {
        let (token, doc) = (token.clone(), document::write_token(token)?);
        let seen = unused(seen.clone());
        self.write(move |tx| {
            Box::pin(async move {
                let old = load(tx, token.owner, token.id).await?;
                if unused(old.clone()) != seen {
                    return Err(Error::Stale);
                }
                let done = sqlx::query(
                    "UPDATE tokens SET hash = $3, enabled = $4, expires_at_ms = $5, \
                     updated_at_ms = $6, doc = $7 WHERE id = $1 AND owner = $2",
                )
                .bind(token.id.as_bytes().as_slice())
                .bind(token.owner.as_bytes().as_slice())
                .bind(token.hash.as_slice())
                .bind(token.enabled)
                .bind(token.expires_at_ms)
                .bind(token.updated_at_ms)
                .bind(doc)
                .execute(&mut tx.connection)
                .await
                .map_err(failed)?;
                if done.rows_affected() == 0 {
                    return Err(Error::NotFound);
                }
                if let Some(write) = &profile {
                    token_profiles::put(tx, &token, write).await?;
                }
                let kind = match (old.enabled, token.enabled) {
                    (false, true) => "auth.token.enabled",
                    (true, false) => "auth.token.disabled",
                    (true, true) | (false, false) => "auth.token.updated",
                };
                told::token_told(tx, &token, kind, token.updated_at_ms).await
            })
        })
        .await
    }

    /// Removes a token of a user.
    pub async fn delete_token(&self, owner: UserId, id: TokenId, now_ms: i64) -> Result<()> {
        self.write(move |tx| {
            Box::pin(async move {
                let gone = load(tx, owner, id).await?;
                sqlx::query("DELETE FROM tokens WHERE id = $1 AND owner = $2")
                    .bind(id.as_bytes().as_slice())
                    .bind(owner.as_bytes().as_slice())
                    .execute(&mut tx.connection)
                    .await
                    .map_err(failed)?;
                told::token_told(tx, &gone, "auth.token.deleted", now_ms).await
            })
        })
        .await
    }

    /// Notes that a token was used from an address. Written at most once a minute while the address
    /// stays the same; a token that is gone is no error.
    pub async fn touch_token(&self, id: TokenId, ip: &str, now_ms: i64) -> Result<()> {
        let ip = ip.to_owned();
        self.write(move |tx| {
            Box::pin(async move {
                sqlx::query(
                    "UPDATE tokens SET last_used_at_ms = $2, last_used_ip = $3 WHERE id = $1 \
                     AND (last_used_at_ms IS NULL OR last_used_at_ms <= $4 OR last_used_ip <> $3)",
                )
                .bind(id.as_bytes().as_slice())
                .bind(now_ms)
                .bind(ip)
                .bind(now_ms.saturating_sub(TOUCH_EVERY_MS))
                .execute(&mut tx.connection)
                .await
                .map(drop)
                .map_err(failed)
            })
        })
        .await
    }
}

async fn load(tx: &mut Tx, owner: UserId, id: TokenId) -> Result<Token> {
    let row = sqlx::query("SELECT * FROM tokens WHERE id = $1 AND owner = $2")
        .bind(id.as_bytes().as_slice())
        .bind(owner.as_bytes().as_slice())
        .fetch_optional(&mut tx.connection)
        .await
        .map_err(failed)?
        .ok_or(Error::NotFound)?;
    token(&row)
}

/// A token without what tells of its last use.
fn unused(token: Token) -> Token {
    Token { last_used_at_ms: None, last_used_ip: None, ..token }
}

fn token(row: &Row) -> Result<Token> {
    let id = columns::id(row, "id")?;
    let read = || -> Result<Token> {
        let doc = document::read_token(columns::get(row, "doc")?)?;
        Ok(Token {
            id,
            owner: columns::id(row, "owner")?,
            realms: doc.realms()?,
            created_by: doc.created_by()?,
            depth: doc.depth,
            alias: doc.alias,
            prefix: doc.prefix,
            hash: columns::octets(row, "hash")?,
            allow_no_realm: doc.allow_no_realm,
            event_access: doc.event_access,
            vault_access: doc.vault_access,
            ip_whitelist: doc.ip_whitelist,
            permissions: doc.permissions,
            expires_at_ms: columns::get(row, "expires_at_ms")?,
            enabled: columns::get(row, "enabled")?,
            last_used_at_ms: columns::get(row, "last_used_at_ms")?,
            last_used_ip: columns::get(row, "last_used_ip")?,
            created_at_ms: columns::get(row, "created_at_ms")?,
            updated_at_ms: columns::get(row, "updated_at_ms")?,
        })
    };
    read().map_err(columns::of("token", id))
}
