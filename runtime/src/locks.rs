//! Calls for one container exclude each other; calls for different ones do not.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use gantry_model::ContainerId;
use tokio::sync::OwnedMutexGuard;

/// A held lock. Whoever works for the holder, and may work on when the holder was dropped, has a
/// clone; the lock is free when the last one is gone.
#[derive(Clone, Debug)]
pub(crate) struct Busy(#[expect(dead_code, reason = "held, not read")] Arc<OwnedMutexGuard<()>>);

/// One lock per container, present only while someone holds it or waits for it.
#[derive(Debug, Default)]
pub(crate) struct Locks(Mutex<HashMap<ContainerId, Weak<tokio::sync::Mutex<()>>>>);

impl Locks {
    /// Waits until no one else works on this container. Cancel-safe; first come, first served.
    pub(crate) async fn lock(&self, id: ContainerId) -> Busy {
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
        Busy(Arc::new(lock.lock_owned().await))
    }
}
