//! What keeps a container awake that its owner wants to sleep when it has no traffic: octets of its sessions.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use gantry_model::ContainerId;

use crate::{doors::Witness, front::Shared};

/// What a process says counts from so many octets within [`WINDOW_S`] on: a clock in a corner of the screen is no
/// traffic. The same holds for bodies over HTTP.
const TRICKLE: u64 = 4096;
const WINDOW_S: u64 = 60;

/// The octets of one connection or command, as far as they tell that somebody is there. Told at most once a second.
pub struct Pulse {
    container: ContainerId,
    witness: Option<Arc<dyn Witness>>,
    began: Instant,
    /// The second in which it was told last; counted from 1.
    told_s: AtomicU64,
    /// The window, and what was said in it. Two that count at the same time may lose some.
    window: AtomicU64,
    said: AtomicU64,
}

impl fmt::Debug for Pulse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pulse").field("container", &self.container).finish_non_exhaustive()
    }
}

impl Pulse {
    /// Somebody comes, which counts.
    fn begin(container: ContainerId, witness: Option<Arc<dyn Witness>>) -> Self {
        let pulse = Self {
            container,
            witness,
            began: Instant::now(),
            told_s: AtomicU64::new(0),
            window: AtomicU64::new(0),
            said: AtomicU64::new(0),
        };
        pulse.tell(0);
        pulse
    }

    /// Octets have come from the client: whatever is typed counts.
    pub fn typed(&self) {
        self.tell(self.began.elapsed().as_secs());
    }

    /// So many octets go to the client.
    pub fn said(&self, octets: usize) {
        self.said_at(octets, self.began.elapsed().as_secs());
    }

    fn said_at(&self, octets: usize, now_s: u64) {
        let window = now_s / WINDOW_S;
        if self.window.swap(window, Ordering::Relaxed) != window {
            self.said.store(0, Ordering::Relaxed);
        }
        let octets = octets as u64;
        if self.said.fetch_add(octets, Ordering::Relaxed) + octets >= TRICKLE {
            self.tell(now_s);
        }
    }

    fn tell(&self, now_s: u64) {
        let second = now_s + 1;
        if self.told_s.swap(second, Ordering::Relaxed) != second
            && let Some(witness) = &self.witness
        {
            witness.active(self.container);
        }
    }
}

impl Shared {
    /// Somebody comes to a container.
    pub(crate) fn pulse(&self, container: ContainerId) -> Pulse {
        Pulse::begin(container, self.witness.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::{Visit, Visitor};

    #[derive(Default)]
    struct Counter(AtomicUsize);

    impl Witness for Counter {
        fn hear(&self, _: &Visitor, _: Visit) {}

        fn active(&self, _: ContainerId) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_trickle_is_no_traffic_and_a_flood_is_told_once_a_second() {
        let counter = Arc::new(Counter::default());
        let told = || counter.0.load(Ordering::Relaxed);
        let pulse = Pulse::begin(ContainerId::from_bytes([7; 12]), Some(Arc::clone(&counter) as _));
        assert_eq!(told(), 1, "the beginning counts");
        // A clock: fifty octets a second, for an hour.
        (1..3600).for_each(|second| pulse.said_at(50, second));
        assert_eq!(told(), 1);
        // A listing.
        (0..100).for_each(|_| pulse.said_at(1000, 3600));
        assert_eq!(told(), 2);
        pulse.said_at(1, 3601);
        assert_eq!(told(), 3, "within the same window");
        pulse.said_at(4095, 3660);
        assert_eq!(told(), 3, "not in the next one");
        pulse.said_at(1, 3660);
        assert_eq!(told(), 4);
        // A key.
        pulse.tell(3661);
        assert_eq!(told(), 5);
    }
}
