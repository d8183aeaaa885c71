//! Passwords: argon2id, off the async workers, a bounded number at once.

use std::sync::Arc;

use argon2::{Argon2, PasswordHash, PasswordHasher as _, PasswordVerifier as _};
use tokio::sync::Semaphore;

use crate::{
    error::{Error, Result},
    random,
};

/// Hashes and verifies passwords with argon2id (19 MiB, two passes).
///
/// Verification against no hash takes as long as against one, so that the time of an answer does
/// not tell whether an account exists.
pub(crate) struct Passwords {
    /// Everybody who computes or waits; refused when full.
    admitted: Semaphore,
    computing: Arc<Semaphore>,
    /// The hash of a password that nobody knows.
    nobody: Arc<str>,
}

impl Passwords {
    pub(crate) async fn new(hashes_max: usize, queue_max: usize) -> Result<Self> {
        let unknown = hex::encode(random::bytes::<32>()?);
        let computing = Arc::new(Semaphore::new(hashes_max.max(1)));
        let admitted = Semaphore::new(queue_max.max(1));
        let nobody = blocking(move || hash(&unknown)).await??.into();
        Ok(Self { admitted, computing, nobody })
    }

    /// The PHC string of a password.
    pub(crate) async fn hash(&self, password: String) -> Result<String> {
        let _admitted = self.admitted.try_acquire().map_err(|_full| Error::Busy)?;
        let permit = self.permit().await?;
        blocking(move || {
            let _permit = permit;
            hash(&password)
        })
        .await?
    }

    /// Whether the password belongs to the hash; `None` stands for an account that does not exist.
    pub(crate) async fn verify(&self, password: String, phc: Option<String>) -> Result<bool> {
        let _admitted = self.admitted.try_acquire().map_err(|_full| Error::Busy)?;
        let permit = self.permit().await?;
        let nobody = Arc::clone(&self.nobody);
        blocking(move || {
            let _permit = permit;
            let known = phc.is_some();
            let hash = PasswordHash::new(phc.as_deref().unwrap_or(&nobody))
                .map_err(|error| Error::internal(error.to_string()))?;
            match Argon2::default().verify_password(password.as_bytes(), &hash) {
                Ok(()) => Ok(known),
                Err(argon2::password_hash::Error::PasswordInvalid) => Ok(false),
                Err(error) => Err(Error::internal(error.to_string())),
            }
        })
        .await?
    }

    /// Moves into the computation, so that one that outlives its caller still counts.
    async fn permit(&self) -> Result<tokio::sync::OwnedSemaphorePermit> {
        Arc::clone(&self.computing).acquire_owned().await.map_err(Error::internal)
    }
}

fn hash(password: &str) -> Result<String> {
    let hash: PasswordHash = Argon2::default()
        .hash_password(password.as_bytes())
        .map_err(|error| Error::internal(error.to_string()))?;
    Ok(hash.to_string())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(Error::internal)
}
