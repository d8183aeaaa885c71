//! Requests that may be sent twice: the first answer is kept for a day and given again.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

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

/// How many ends of requests wait for a store that can be used again.
const UNSETTLED_MAX: usize = 256;
/// The longest answer that waits so, in octets.
const UNSETTLED_BODY_MAX: usize = 64 << 10;

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
        self.settle(&claim).await?;
        let found = self
            .store()
            .idempotency_begin(&claim.scope, &claim.key, &body_hash, self.now_ms())
            .await?;
        Ok((claim, found))
    }

    /// Keeps the answer for a day. If the store cannot be used now, the answer is kept in memory (within
    /// bounds) and written when the key is used again.
    pub async fn idempotency_finish(
        &self,
        claim: &IdempotencyKey,
        status: u16,
        body: &[u8],
    ) -> Result<()> {
        self.end(claim, End::Answered { status, body: body.to_vec() }).await
    }

    /// Gives the key back: the request was not carried out and may be sent again. If the store cannot
    /// be used now, that is made up for when the key is used again.
    pub async fn idempotency_abandon(&self, claim: &IdempotencyKey) -> Result<()> {
        self.end(claim, End::Abandoned).await
    }

    async fn end(&self, claim: &IdempotencyKey, end: End) -> Result<()> {
        let written = match &end {
            End::Answered { status, body } => {
                let (scope, key, now_ms) = (&claim.scope, &claim.key, self.now_ms());
                self.store().idempotency_finish(scope, key, *status, body, now_ms).await
            }
            End::Abandoned => self.store().idempotency_abandon(&claim.scope, &claim.key).await,
        };
        match written {
            Err(error @ gantry_store::Error::Unavailable(_)) => {
                self.inner.unsettled.put(claim.clone(), end);
                Err(error.into())
            }
            // It was under way for so long that it was forgotten.
            Err(gantry_store::Error::NotFound) => Ok(()),
            written => Ok(written?),
        }
    }

    /// Writes how the last request with this key has ended, and another one's end that could not be
    /// written, so that all are with time.
    async fn settle(&self, claim: &IdempotencyKey) -> Result<()> {
        let unsettled = &self.inner.unsettled;
        if let Some(end) = unsettled.take(claim) {
            self.end(claim, end).await?;
        }
        if let Some((other, end)) = unsettled.take_any()
            && let Err(error) = self.end(&other, end).await
        {
            tracing::warn!(%error, "an idempotency key could not be settled");
        }
        Ok(())
    }
}

/// How a request with a key has ended.
#[derive(Debug)]
enum End {
    /// With an answer to keep.
    Answered { status: u16, body: Vec<u8> },
    /// With nothing to keep.
    Abandoned,
}

/// Ends that could not be written, the oldest first. A new process needs none of them: it frees all keys
/// under way.
#[derive(Debug, Default)]
pub(crate) struct Unsettled(Mutex<VecDeque<(IdempotencyKey, End)>>);

impl Unsettled {
    /// Remembers an end. Beyond the bounds it is forgotten, and its key stays taken for a day or until
    /// the next start.
    fn put(&self, claim: IdempotencyKey, end: End) {
        let fits = match &end {
            End::Answered { body, .. } => body.len() <= UNSETTLED_BODY_MAX,
            End::Abandoned => true,
        };
        let mut ends = self.lock();
        ends.retain(|(other, _)| *other != claim);
        if fits && ends.len() < UNSETTLED_MAX {
            ends.push_back((claim, end));
        }
    }

    fn take(&self, claim: &IdempotencyKey) -> Option<End> {
        let mut ends = self.lock();
        let at = ends.iter().position(|(other, _)| other == claim)?;
        ends.remove(at).map(|(_, end)| end)
    }

    fn take_any(&self) -> Option<(IdempotencyKey, End)> {
        self.lock().pop_front()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(IdempotencyKey, End)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
