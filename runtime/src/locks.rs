//! Calls for one container exclude each other; calls for different ones do not.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use gantry_model::ContainerId;
use tokio::sync::OwnedMutexGuard;

/// One lock per container, present only while someone holds it or waits for it.
#[derive(Debug, Default)]
pub(crate) struct Locks(Mutex<HashMap<ContainerId, Weak<tokio::sync::Mutex<()>>>>);

impl Locks {
    /// Waits until no one else works on this container. Cancel-safe; first come, first served.
    pub(crate) async fn lock(&self, id: ContainerId) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            locks.retain(|_, lock| lock.strong_count() > 0);
            let held = locks.get(&id).and_then(Weak::upgrade);
            held.unwrap_or_else(|| {
                let lock = Arc::default();
                locks.insert(id, Arc::downgrade(&lock));
                lock
            })
        };
        lock.lock_owned().await
    }
}
