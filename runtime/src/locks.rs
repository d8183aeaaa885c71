//! Calls for one container (or snapshot) exclude each other; calls for different ones do not.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use gantry_model::ContainerId;
use tokio::sync::OwnedMutexGuard;

/// A held lock. Whoever works for the holder, and may work on when the holder was dropped, has a
/// clone; the lock is free when the last one is gone.
#[derive(Clone, Debug)]
pub(crate) struct Busy(#[expect(dead_code, reason = "held, not read")] Arc<OwnedMutexGuard<()>>);

/// One lock per thing, present only while someone holds it or waits for it.
#[derive(Debug)]
pub(crate) struct Locks<K>(Mutex<HashMap<K, Weak<tokio::sync::Mutex<()>>>>);

impl<K> Default for Locks<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Copy + Eq + Hash + Ord> Locks<K> {
    /// Waits until no one else works on it. Cancel-safe; first come, first served.
    pub(crate) async fn lock(&self, id: K) -> Busy {
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

    /// The same for two different things, without the danger that another waits for them the other
    /// way round.
    pub(crate) async fn lock_both(&self, one: K, other: K) -> [Busy; 2] {
        let first = self.lock(one.min(other)).await;
        [first, self.lock(one.max(other)).await]
    }
}

/// The containers that are frozen only while they are copied. Nobody has paused them, so that they are
/// told as running: else somebody would resume them, and wait for the copy.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held(Arc<Mutex<HashSet<ContainerId>>>);

impl Held {
    /// Counts a container among them until the guard is dropped. Its lock is held.
    pub(crate) fn hold(&self, id: ContainerId) -> Hold {
        self.ids().insert(id);
        Hold(self.clone(), id)
    }

    /// Whether a container is among them.
    pub(crate) fn holds(&self, id: ContainerId) -> bool {
        self.ids().contains(&id)
    }

    fn ids(&self) -> std::sync::MutexGuard<'_, HashSet<ContainerId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of [`Held`].
#[derive(Debug)]
pub(crate) struct Hold(Held, ContainerId);

impl Drop for Hold {
    fn drop(&mut self) {
        let Self(held, id) = self;
        held.ids().remove(id);
    }
}
