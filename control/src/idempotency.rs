//! Requests that may be sent twice: the first answer is kept for a day and given again.

use gantry_store::Idempotency;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::{
    actor::Actor,
    controller::Controller,
    error::{Error, Result},
};

/// How long an answer is kept, in milliseconds.
pub(crate) const KEPT_MS: i64 = 24 * 60 * 60 * 1000;

/// A claim on an idempotency key, from [`Controller::idempotency_begin`]. Whoever got
/// [`Idempotency::Fresh`] with it finishes or abandons it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    scope: String,
    key: String,
}

impl Controller {
    /// Claims `key` for one request of this actor to this route (method and path), or tells what
    /// became of the earlier one. Keys of different users and routes never meet. `key` is at most
    /// 255 octets; the caller checks that.
    pub async fn idempotency_begin(
        &self,
        actor: &Actor,
        route: &str,
        key: &str,
        body: &[u8],
    ) -> Result<(IdempotencyKey, Idempotency)> {
        let realm = actor.realm.map(|realm| realm.to_string()).unwrap_or_default();
        let claim = IdempotencyKey {
            scope: format!("{}@{realm} {route}", actor.user),
            key: key.to_owned(),
        };
        // Under the installation's key: a body may hold a password, and a plain digest could be guessed.
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.inner.pepper).map_err(Error::internal)?;
        mac.update(b"idempotency\0");
        mac.update(body);
        let body_hash = mac.finalize().into_bytes().into();
        let found = self
            .store()
            .idempotency_begin(&claim.scope, &claim.key, &body_hash, self.now_ms())
            .await?;
        Ok((claim, found))
    }

    /// Keeps the answer for a day.
    pub async fn idempotency_finish(
        &self,
        claim: &IdempotencyKey,
        status: u16,
        body: &[u8],
    ) -> Result<()> {
        let now_ms = self.now_ms();
        self.store().idempotency_finish(&claim.scope, &claim.key, status, body, now_ms).await?;
        Ok(())
    }

    /// Gives the key back: the request was not carried out and may be sent again.
    pub async fn idempotency_abandon(&self, claim: &IdempotencyKey) -> Result<()> {
        self.store().idempotency_abandon(&claim.scope, &claim.key).await?;
        Ok(())
    }
}
