//! Calls for one container (or snapshot) exclude each other; calls for different ones do not.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
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

/// How often containers are looked at, at most, to see them while none begins or ends to be held.
const LOOKS_MAX: usize = 5;

/// The containers that are frozen only while they are copied. Nobody has paused them, so that they are
/// told as running: else somebody would resume them, and wait for the copy.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held(Arc<Mutex<HeldNow>>);

#[derive(Debug, Default)]
struct HeldNow {
    ids: HashSet<ContainerId>,
    /// How often one was added or went.
    changes: u64,
}

impl Held {
    /// Counts a container among them until the guard is dropped. Its lock is held.
    pub(crate) fn hold(&self, id: ContainerId) -> Hold {
        let mut now = self.now();
        now.ids.insert(id);
        now.changes += 1;
        drop(now);
        Hold(self.clone(), id)
    }

    /// Whether a container is among them.
    pub(crate) fn holds(&self, id: ContainerId) -> bool {
        self.now().ids.contains(&id)
    }

    /// Begins to look at containers.
    pub(crate) fn look(&self) -> Look<'_> {
        Look { held: self, changes: self.now().changes, left: LOOKS_MAX }
    }

    fn now(&self) -> MutexGuard<'_, HeldNow> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A look at containers while copies may begin and end.
#[derive(Debug)]
pub(crate) struct Look<'a> {
    held: &'a Held,
    changes: u64,
    left: usize,
}

impl Look<'_> {
    /// Whether what was seen since the beginning, or since this was asked last, counts. If one was added or went
    /// meanwhile, it may be of before, while what is known of copies is of afterwards; then it is looked again.
    pub(crate) fn counts(&mut self) -> bool {
        let before = std::mem::replace(&mut self.changes, self.held.now().changes);
        self.left = self.left.saturating_sub(1);
        // Where copies begin and end all the time, the last look counts.
        before == self.changes || self.left == 0
    }
}

/// One of [`Held`].
#[derive(Debug)]
pub(crate) struct Hold(Held, ContainerId);

impl Drop for Hold {
    fn drop(&mut self) {
        let Self(held, id) = self;
        let mut now = held.now();
        now.ids.remove(id);
        now.changes += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_seen_while_a_copy_begins_or_ends_is_looked_at_again() {
        let held = Held::default();
        let id = ContainerId::from_bytes([1; 12]);
        let looks_with = |copies: usize| {
            let (mut look, mut looks) = (held.look(), 0);
            loop {
                looks += 1;
                if looks <= copies {
                    drop(held.hold(id));
                }
                if look.counts() {
                    return looks;
                }
            }
        };
        assert_eq!([0, 1, 2].map(looks_with), [1, 2, 3]);
        assert_eq!(looks_with(100), LOOKS_MAX);
        // One that goes on changes nothing.
        let _hold = held.hold(id);
        assert_eq!(looks_with(0), 1);
        assert!(held.holds(id));
    }
}
