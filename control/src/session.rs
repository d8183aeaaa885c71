//! Login sessions: JWTs signed with a secret of the installation (HS256).
//!
//! Three sorts that are never taken for one another: access tokens live a day and open the API,
//! refresh tokens live a week and only buy new pairs, pending ones stand for a password for five minutes,
//! while a code is asked for. All name the generation of sessions of their
//! user; logout starts a new generation and ends all.

use gantry_model::UserId;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::{
    auth::Account,
    error::{Error, Result, Unauthenticated},
};

/// How long an access token is good, in seconds.
pub(crate) const ACCESS_SECS: i64 = 86_400;
/// How long a refresh token is good, in seconds.
pub(crate) const REFRESH_SECS: i64 = 604_800;

/// How long the second half of a login may take, in seconds.
const PENDING_SECS: i64 = 300;

/// A login session: two tokens and when they end.
#[derive(Clone, PartialEq, Eq)]
pub struct Session {
    /// Opens the API.
    pub access: String,
    /// Buys a new session.
    pub refresh: String,
    /// When `access` ends, in milliseconds since the epoch.
    pub access_expires_at_ms: i64,
    /// When `refresh` ends, in milliseconds since the epoch.
    pub refresh_expires_at_ms: i64,
    /// How long `access` is good, in seconds.
    pub access_expires_in_secs: i64,
    /// How long `refresh` is good, in seconds.
    pub refresh_expires_in_secs: i64,
    /// Whose session it is.
    pub account: Account,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the tokens: this text may reach a log.
        f.debug_struct("Session").field("account", &self.account).finish_non_exhaustive()
    }
}

/// Which of the sorts a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Sort {
    Access,
    Refresh,
    Pending,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    sub: String,
    typ: Sort,
    /// The generation of sessions.
    r#gen: u64,
    /// Seconds since the epoch.
    iat: i64,
    /// Seconds since the epoch.
    exp: i64,
}

/// What a good token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Proof {
    pub(crate) user: UserId,
    pub(crate) generation: u64,
    /// When the token ends, in milliseconds since the epoch.
    pub(crate) expires_at_ms: i64,
}

pub(crate) struct SessionKeys {
    encoding: EncodingKey,
    decoding: DecodingKey,
    validation: Validation,
}

impl SessionKeys {
    pub(crate) fn new(secret: &[u8]) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        // The clock is ours: the library would read the host's.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.required_spec_claims.clear();
        Self {
            encoding: EncodingKey::from_secret(secret),
            decoding: DecodingKey::from_secret(secret),
            validation,
        }
    }

    pub(crate) fn open(&self, account: Account, generation: u64, now_ms: i64) -> Result<Session> {
        let sign = |sort, secs| self.sign(account.id, generation, sort, secs, now_ms);
        let (access, access_expires_at_ms) = sign(Sort::Access, ACCESS_SECS)?;
        let (refresh, refresh_expires_at_ms) = sign(Sort::Refresh, REFRESH_SECS)?;
        Ok(Session {
            access,
            refresh,
            access_expires_at_ms,
            refresh_expires_at_ms,
            access_expires_in_secs: ACCESS_SECS,
            refresh_expires_in_secs: REFRESH_SECS,
            account,
        })
    }

    /// A token that stands for the password of a user.
    pub(crate) fn pending(&self, user: UserId, generation: u64, now_ms: i64) -> Result<String> {
        Ok(self.sign(user, generation, Sort::Pending, PENDING_SECS, now_ms)?.0)
    }

    /// A token and when it ends, in milliseconds since the epoch.
    fn sign(
        &self,
        user: UserId,
        generation: u64,
        typ: Sort,
        secs: i64,
        now_ms: i64,
    ) -> Result<(String, i64)> {
        let iat = now_ms.div_euclid(1000);
        let exp = iat.saturating_add(secs);
        let claims = Claims { sub: user.to_string(), typ, r#gen: generation, iat, exp };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.encoding)
            .map(|token| (token, exp.saturating_mul(1000)))
            .map_err(Error::internal)
    }

    pub(crate) fn verify(
        &self,
        token: &str,
        sort: Sort,
        now_ms: i64,
    ) -> Result<Proof, Unauthenticated> {
        let claims = jsonwebtoken::decode::<Claims>(token, &self.decoding, &self.validation)
            .map_err(|_why| Unauthenticated::Invalid)?
            .claims;
        let user = claims.sub.parse().map_err(|_why| Unauthenticated::Invalid)?;
        if claims.typ != sort {
            return Err(Unauthenticated::Invalid);
        }
        if claims.exp <= now_ms.div_euclid(1000) {
            return Err(Unauthenticated::Expired);
        }
        let expires_at_ms = claims.exp.saturating_mul(1000);
        Ok(Proof { user, generation: claims.r#gen, expires_at_ms })
    }
}
