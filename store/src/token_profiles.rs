//! What tokens show of themselves to whoever knows their public key.

use std::collections::BTreeMap;

use gantry_model::{TokenId, UserId};

use crate::{
    Store, columns,
    error::{Error, Result, failed},
    record::Token,
    sqlite::Row,
    writer::Tx,
};

/// What a token shows of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenProfile {
    /// What it is found by, 64 hexadecimal digits; no other token of any user has the same.
    pub public_key: Option<String>,
    /// Whatever its user wants to be read.
    pub public_storage: Option<String>,
}

/// A profile to be written with a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileWrite {
    /// What it shows from now on.
    pub profile: TokenProfile,
    /// How many octets of `public_storage` all tokens of the user may have together.
    pub octets_max: u64,
}

impl Store {
    /// The profile of a token; an empty one if there is none.
    pub async fn token_profile(&self, token: TokenId) -> Result<TokenProfile> {
        let row = sqlx::query("SELECT * FROM token_profiles WHERE token = $1")
            .bind(token.as_bytes().as_slice())
            .fetch_optional(self.readers())
            .await
            .map_err(failed)?;
        row.as_ref().map_or_else(|| Ok(TokenProfile::default()), profile)
    }

    /// The profiles of a user's tokens that have one.
    pub async fn token_profiles(&self, owner: UserId) -> Result<BTreeMap<TokenId, TokenProfile>> {
        let rows = sqlx::query("SELECT * FROM token_profiles WHERE owner = $1")
            .bind(owner.as_bytes().as_slice())
            .fetch_all(self.readers())
            .await
            .map_err(failed)?;
        rows.iter().map(|row| Ok((columns::id(row, "token")?, profile(row)?))).collect()
    }

    /// The token with this public key, and its profile. It may have expired or be disabled.
    pub async fn token_of_public_key(&self, key: &str) -> Result<Option<(Token, TokenProfile)>> {
        let row = sqlx::query("SELECT * FROM token_profiles WHERE public_key = $1")
            .bind(key)
            .fetch_optional(self.readers())
            .await
            .map_err(failed)?;
        let Some(row) = row else { return Ok(None) };
        let token = self.token(columns::id(&row, "owner")?, columns::id(&row, "token")?).await?;
        token.map(|token| Ok((token, profile(&row)?))).transpose()
    }
}

/// Writes the profile of a token that exists.
pub(crate) async fn put(tx: &mut Tx, token: &Token, write: &ProfileWrite) -> Result<()> {
    let ProfileWrite { profile, octets_max } = write;
    let octets = profile.public_storage.as_ref().map_or(0, String::len);
    let octets = i64::try_from(octets).unwrap_or(i64::MAX);
    let (others,): (i64,) = sqlx::query_as(
        "SELECT COALESCE(SUM(octets), 0) FROM token_profiles WHERE owner = $1 AND token <> $2",
    )
    .bind(token.owner.as_bytes().as_slice())
    .bind(token.id.as_bytes().as_slice())
    .fetch_one(&mut tx.connection)
    .await
    .map_err(failed)?;
    // What is over the limit already may become less.
    if octets > 0 && others.saturating_add(octets).unsigned_abs() > *octets_max {
        return Err(Error::PublicStorageLimit { max: *octets_max });
    }
    let other = sqlx::query("SELECT 1 FROM token_profiles WHERE public_key = $1 AND token <> $2")
        .bind(&profile.public_key)
        .bind(token.id.as_bytes().as_slice())
        .fetch_optional(&mut tx.connection)
        .await
        .map_err(failed)?;
    if other.is_some() {
        return Err(Error::PublicKeyTaken);
    }
    sqlx::query(
        "INSERT INTO token_profiles (token, owner, public_key, octets, public_storage) \
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT (token) DO UPDATE \
         SET public_key = $3, octets = $4, public_storage = $5",
    )
    .bind(token.id.as_bytes().as_slice())
    .bind(token.owner.as_bytes().as_slice())
    .bind(&profile.public_key)
    .bind(octets)
    .bind(&profile.public_storage)
    .execute(&mut tx.connection)
    .await
    .map(drop)
    .map_err(failed)
}

fn profile(row: &Row) -> Result<TokenProfile> {
    Ok(TokenProfile {
        public_key: columns::get(row, "public_key")?,
        public_storage: columns::get(row, "public_storage")?,
    })
}
