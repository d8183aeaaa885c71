//! How many requests each container has under way, tunnels included.

use std::{
    cell::Cell,
    collections::HashMap,
    rc::Rc,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use gantry_model::ContainerId;

/// The most that a worker takes at once.
const SUPPLY_MAX: u32 = 32;

/// How many requests workers may have under way, by container: those that are, and those that a
/// worker has in supply.
#[derive(Debug)]
pub(super) struct Tenants {
    given: Mutex<HashMap<ContainerId, Arc<AtomicU32>, foldhash::fast::RandomState>>,
    workers: u32,
}

impl Tenants {
    pub(super) fn new(workers: usize) -> Self {
        let workers = u32::try_from(workers.max(1)).unwrap_or(u32::MAX);
        Self { given: Mutex::default(), workers }
    }

    /// What one worker counts of a container.
    pub(super) fn tenant(&self, container: ContainerId) -> Tenant {
        let given = Arc::clone(self.given().entry(container).or_default());
        let (held, active, supply) = (Cell::new(0), Cell::new(0), Cell::new(0));
        Tenant { container, given, workers: self.workers, held, active, supply }
    }

    /// Forgets containers that no worker counts.
    pub(super) fn sweep(&self) {
        self.given().retain(|_, given| Arc::strong_count(given) > 1);
    }

    fn given(
        &self,
    ) -> MutexGuard<'_, HashMap<ContainerId, Arc<AtomicU32>, foldhash::fast::RandomState>> {
        // Nothing here panics half-way.
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one worker counts of one container.
#[derive(Debug)]
pub(crate) struct Tenant {
    container: ContainerId,
    given: Arc<AtomicU32>,
    workers: u32,
    /// What this worker was given, and how much of it is in use.
    held: Cell<u32>,
    active: Cell<u32>,
    /// What was last taken at once.
    supply: Cell<u32>,
}

/// A request under way, counted until it is dropped.
#[derive(Debug)]
pub(crate) struct InFlight(Rc<Tenant>);

impl Tenant {
    /// The container.
    pub(crate) fn container(&self) -> ContainerId {
        self.container
    }

    /// One more request, unless `max` are under way in all workers.
    pub(crate) fn enter(self: &Rc<Self>, max: u32) -> Option<InFlight> {
        let active = self.active.get();
        if active >= self.held.get() && !self.reserve(max) {
            return None;
        }
        self.active.set(active + 1);
        Some(InFlight(Rc::clone(self)))
    }

    #[cold]
    fn reserve(&self, max: u32) -> bool {
        // A worker keeps no more than two supplies for nobody, so that all keep a quarter; where the
        // limit is small they keep nothing.
        let supply = (max / 8 / self.workers).min(SUPPLY_MAX);
        let more = supply.max(1);
        let grown = |given: u32| (given < max).then(|| given.saturating_add(more).min(max));
        let Ok(before) = self.given.fetch_update(Relaxed, Relaxed, grown) else { return false };
        let more = grown(before).unwrap_or(before) - before;
        self.held.set(self.held.get() + more);
        self.supply.set(supply);
        true
    }

    fn leave(&self) {
        let active = self.active.get().saturating_sub(1);
        self.active.set(active);
        let (idle, supply) = (self.held.get() - active, self.supply.get());
        if idle > 2 * supply {
            self.give_back(idle - supply);
        }
    }

    #[cold]
    fn give_back(&self, count: u32) {
        self.held.set(self.held.get() - count);
        // It was given before, so that this cannot wrap.
        self.given.fetch_sub(count, Relaxed);
    }
}

impl Drop for Tenant {
    fn drop(&mut self) {
        self.give_back(self.held.get());
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.leave();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn container() -> ContainerId {
        ContainerId::from_bytes([7; 12])
    }

    #[test]
    fn a_container_has_so_many_requests_in_all_workers() {
        let all = Tenants::new(2);
        let [one, two] = [(); 2].map(|()| Rc::new(all.tenant(container())));
        let first: Vec<_> = (0..3).map(|_| one.enter(5).unwrap()).collect();
        let second: Vec<_> = (0..2).map(|_| two.enter(5).unwrap()).collect();
        assert!(one.enter(5).is_none() && two.enter(5).is_none());
        drop(first);
        let more: Vec<_> = std::iter::from_fn(|| two.enter(5)).collect();
        assert_eq!(more.len(), 3, "of a small limit nothing is kept");
        drop((second, more, one, two));
        all.sweep();
        assert!(all.given().is_empty(), "nothing is kept of an idle container");
    }

    #[test]
    fn a_supply_is_a_small_part() {
        let all = Tenants::new(4);
        let [idle, busy] = [(); 2].map(|()| Rc::new(all.tenant(container())));
        drop((0..1000).map(|_| idle.enter(1024).unwrap()).collect::<Vec<_>>());
        let served = std::iter::from_fn(|| busy.enter(1024)).map(std::mem::forget).count();
        assert!((1024 - 64..=1024).contains(&served), "{served}");
    }

    proptest! {
        #[test]
        fn never_more_than_the_limit(
            max in 1_u32..300,
            workers in 1_usize..5,
            steps in proptest::collection::vec((0_usize..5, any::<bool>()), 1..2_000),
        ) {
            let all = Tenants::new(workers);
            let tenants: Vec<_> =
                (0..workers).map(|_| Rc::new(all.tenant(container()))).collect();
            let mut active: Vec<Vec<InFlight>> = tenants.iter().map(|_| Vec::new()).collect();
            for (at, enters) in steps {
                let at = at % workers;
                if enters {
                    active[at].extend(tenants[at].enter(max));
                } else {
                    active[at].pop();
                }
                let count: usize = active.iter().map(Vec::len).sum();
                prop_assert!(count <= max as usize);
            }
            drop((active, tenants));
            prop_assert_eq!(all.given().values().map(|given| given.load(Relaxed)).sum::<u32>(), 0);
        }
    }
}
