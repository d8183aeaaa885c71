//! Which containers have real traffic: what keeps one from being put to sleep.
//!
//! Only containers whose owners set `idle_pause_after` are looked at. What counts: requests, unless
//! the same client reads the same thing over and over, as a page that polls does; bodies and
//! tunnels of which each moves more than a trickle, so that the heartbeats of an event stream do not
//! count, however many there are, and answers to polls only when they are large; and data frames of `WebSocket` clients, but neither pings and pongs nor frames that repeat like the
//! tick of a clock. While a request that counts waits for its answer, its container is busy.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    hash::{BuildHasher, Hash},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU32, Ordering::Relaxed},
    },
};

use foldhash::fast::RandomState;
use gantry_model::ContainerId;
use gantry_router::{RouteState, Routes};

use crate::frames::Frames;

/// So often the same thing may be asked for and still count.
const REPEATS: u32 = 4;
/// Different things that are remembered for one container.
const REMEMBERED: usize = 64;
/// What was not asked for during this time is new again.
const FORGOTTEN_MS: i64 = 15 * 60_000;
/// A body or a tunnel counts when it moves so many octets within [`WINDOW_MS`].
const TRICKLE: u64 = 4096;
/// The same for what is asked for over and over: a player reads one file in pieces, a page that polls
/// reads little.
const TRICKLE_OF_POLLS: u64 = 64 * 1024;
const WINDOW_MS: i64 = 60_000;

/// Which traffic there was to each container that may be put to sleep; shared by all workers. A cheap
/// handle.
#[derive(Clone, Debug, Default)]
pub struct Activity(Arc<papaya::HashMap<ContainerId, Arc<Seen>, RandomState>>);

#[derive(Debug, Default)]
struct Seen {
    /// When there was any, in milliseconds since the epoch.
    last_ms: AtomicI64,
    /// How many requests that count wait for their answers.
    busy: AtomicU32,
}

impl Activity {
    /// The running containers that have been quiet for longer than their owners want, at the time
    /// `now_ms` (milliseconds since the epoch). One of which no traffic was seen has been quiet
    /// since it started, or since this process did (`begun_ms`), whichever was later.
    pub fn idle(&self, routes: &Routes, begun_ms: i64, now_ms: i64) -> Vec<ContainerId> {
        let sleepers = routes.current().sleepers();
        let seen = self.0.pin();
        // What needs no watching any more is forgotten; a worker that still holds it counts for
        // nobody until it looks again.
        let watched: std::collections::HashSet<ContainerId> =
            sleepers.iter().map(|(route, _)| route.container).collect();
        seen.retain(|container, _| watched.contains(container));
        let is_idle = |(route, after_s): &(gantry_router::Route, u32)| {
            let RouteState::Running { since_ms, .. } = route.state else { return false };
            let seen = seen.get(&route.container);
            if seen.is_some_and(|seen| seen.busy.load(Relaxed) > 0) {
                return false;
            }
            let last_ms = seen.map_or(0, |seen| seen.last_ms.load(Relaxed));
            let quiet_since_ms = last_ms.max(since_ms).max(begun_ms);
            now_ms.saturating_sub(quiet_since_ms) >= i64::from(*after_s).saturating_mul(1000)
        };
        sleepers
            .iter()
            .filter(|sleeper| is_idle(sleeper))
            .map(|(route, _)| route.container)
            .collect()
    }

    /// The containers that there was traffic to since this time (milliseconds since the epoch), or is now.
    pub fn since(&self, since_ms: i64) -> Vec<ContainerId> {
        let seen = self.0.pin();
        let is_active =
            |seen: &Seen| seen.busy.load(Relaxed) > 0 || seen.last_ms.load(Relaxed) >= since_ms;
        seen.iter().filter(|(_, seen)| is_active(seen)).map(|(container, _)| *container).collect()
    }

    /// Another process has seen traffic to a container.
    pub fn note(&self, container: ContainerId, at_ms: i64) {
        self.of(container).last_ms.fetch_max(at_ms, Relaxed);
    }

    fn of(&self, container: ContainerId) -> Arc<Seen> {
        Arc::clone(self.0.pin().get_or_insert_with(container, Arc::default))
    }
}

/// The traffic that one worker has seen.
#[derive(Debug, Default)]
pub(crate) struct Traffics {
    of: RefCell<HashMap<ContainerId, Rc<Traffic>>>,
    hash: RandomState,
}

/// The traffic of one container that one worker has seen.
#[derive(Debug)]
pub(crate) struct Traffic {
    seen: Arc<Seen>,
    now_ms: fn() -> i64,
    hash: RandomState,
    recent: RefCell<Vec<Recent>>,
}

/// What one request or tunnel moves.
#[derive(Debug)]
pub(crate) struct Flow {
    traffic: Rc<Traffic>,
    /// It counts from so many octets within [`WINDOW_MS`] on.
    least: u64,
    window_ms: Cell<i64>,
    octets: Cell<u64>,
}

/// One thing that was asked for.
#[derive(Clone, Copy, Debug)]
struct Recent {
    what: u64,
    times: u32,
    at_ms: i64,
}

impl Traffics {
    /// The traffic of a container that may be put to sleep.
    pub(crate) fn of(
        &self,
        container: ContainerId,
        activity: &Activity,
        now_ms: fn() -> i64,
    ) -> Rc<Traffic> {
        let mut of = self.of.borrow_mut();
        let traffic = of.entry(container).or_insert_with(|| {
            Rc::new(Traffic {
                seen: activity.of(container),
                now_ms,
                hash: self.hash.clone(),
                recent: RefCell::default(),
            })
        });
        Rc::clone(traffic)
    }

    /// Forgets what nobody holds and nothing has happened with for a long time.
    pub(crate) fn sweep(&self, now_ms: i64) {
        self.of.borrow_mut().retain(|_, traffic| {
            let quiet_ms = now_ms.saturating_sub(traffic.seen.last_ms.load(Relaxed));
            // The shared half is dropped when the container is no longer watched.
            let watched = Arc::strong_count(&traffic.seen) > 1;
            Rc::strong_count(traffic) > 1 || (watched && quiet_ms < FORGOTTEN_MS)
        });
    }
}

impl Traffic {
    /// Somebody asked for something. It counts, and this is true, unless the same has been asked
    /// for several times already; `what` says what "the same" is.
    pub(crate) fn asked(&self, what: impl Hash) -> bool {
        self.asked_at(what, (self.now_ms)())
    }

    /// Somebody did something that is never a poll.
    pub(crate) fn used(&self) {
        self.touch((self.now_ms)());
    }

    /// What a request moves that counts, or that asks for the same thing over and over.
    pub(crate) fn flow(self: &Rc<Self>, counts: bool) -> Flow {
        Flow {
            traffic: Rc::clone(self),
            least: if counts { TRICKLE } else { TRICKLE_OF_POLLS },
            window_ms: Cell::new(0),
            octets: Cell::new(0),
        }
    }

    /// The container is busy until this is dropped.
    pub(crate) fn busy(self: &Rc<Self>) -> Busy {
        self.seen.busy.fetch_add(1, Relaxed);
        Busy(Rc::clone(self))
    }

    fn asked_at(&self, what: impl Hash, now_ms: i64) -> bool {
        let what = self.hash.hash_one(what);
        let mut recent = self.recent.borrow_mut();
        if let Some(known) = recent.iter_mut().find(|recent| recent.what == what) {
            if now_ms.saturating_sub(known.at_ms) > FORGOTTEN_MS {
                known.times = 0;
            }
            (known.times, known.at_ms) = (known.times.saturating_add(1), now_ms);
            if known.times > REPEATS {
                return false;
            }
        } else {
            let new = Recent { what, times: 1, at_ms: now_ms };
            if recent.len() < REMEMBERED {
                recent.push(new);
            } else if let Some(oldest) = recent.iter_mut().min_by_key(|recent| recent.at_ms) {
                *oldest = new;
            }
        }
        self.touch(now_ms);
        true
    }

    fn touch(&self, now_ms: i64) {
        self.seen.last_ms.fetch_max(now_ms, Relaxed);
    }
}

impl Flow {
    /// Octets of the body or the tunnel passed.
    pub(crate) fn moved(&self, octets: usize) {
        self.moved_at(octets, (self.traffic.now_ms)());
    }

    /// Octets that a client sends through a tunnel; `frames` reads them if they are a `WebSocket`'s.
    pub(crate) fn sent_by_client(&self, frames: Option<&mut Frames>, octets: &[u8]) {
        let now_ms = (self.traffic.now_ms)();
        self.moved_at(octets.len(), now_ms);
        if let Some(frames) = frames {
            frames.read(octets, |message| _ = self.traffic.asked_at(message, now_ms));
        }
    }

    fn moved_at(&self, octets: usize, now_ms: i64) {
        if now_ms.saturating_sub(self.window_ms.get()) > WINDOW_MS {
            self.window_ms.set(now_ms);
            self.octets.set(0);
        }
        let octets = u64::try_from(octets).unwrap_or(u64::MAX);
        self.octets.set(self.octets.get().saturating_add(octets));
        if self.octets.get() >= self.least {
            self.traffic.touch(now_ms);
        }
    }
}

/// A request that counts and waits for its answer.
#[derive(Debug)]
pub(crate) struct Busy(Rc<Traffic>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.seen.busy.fetch_sub(1, Relaxed);
        self.0.touch((self.0.now_ms)());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic() -> Traffic {
        let activity = Activity::default();
        let traffics = Traffics::default();
        let traffic = traffics.of(ContainerId::from_bytes([1; 12]), &activity, || 0);
        drop(traffics);
        Rc::into_inner(traffic).unwrap()
    }

    fn last(traffic: &Traffic) -> i64 {
        traffic.seen.last_ms.load(Relaxed)
    }

    #[test]
    fn a_poller_does_not_count_for_long_and_everybody_else_does() {
        let traffic = traffic();
        for second in 1..=100 {
            traffic.asked_at("GET /status", second * 1000);
        }
        assert_eq!(last(&traffic), i64::from(REPEATS) * 1000);
        traffic.asked_at("GET /page", 101_000);
        assert_eq!(last(&traffic), 101_000, "something else counts");
        traffic.asked_at("GET /status", 101_000 + FORGOTTEN_MS + 1);
        assert_eq!(last(&traffic), 101_000 + FORGOTTEN_MS + 1, "rare visits count");
    }

    #[test]
    fn a_thousand_things_are_remembered_in_little_space() {
        let traffic = traffic();
        for number in 0..1000_i64 {
            traffic.asked_at(number, 1000 + number);
            assert_eq!(last(&traffic), 1000 + number);
        }
        assert_eq!(traffic.recent.borrow().len(), REMEMBERED);
    }

    #[test]
    fn heartbeats_are_a_trickle_however_many_and_downloads_are_not() {
        let traffic = Rc::new(traffic());
        let flows: Vec<_> = (0..100).map(|_| traffic.flow(true)).collect();
        for second in 1..=1000 {
            for flow in &flows {
                flow.moved_at(15, second * 1000);
            }
        }
        assert_eq!(last(&traffic), 0);
        flows[0].moved_at(5_000, 1_001_000);
        assert_eq!(last(&traffic), 1_001_000);
    }

    #[test]
    fn answers_to_polls_count_when_they_are_large() {
        let traffic = Rc::new(traffic());
        for second in 1..=1000 {
            traffic.flow(false).moved_at(10_000, second * 1000);
        }
        assert_eq!(last(&traffic), 0);
        traffic.flow(false).moved_at(100_000, 1_001_000);
        assert_eq!(last(&traffic), 1_001_000);
    }

    #[test]
    fn what_nobody_holds_is_swept() {
        let activity = Activity::default();
        let traffics = Traffics::default();
        let held = traffics.of(ContainerId::from_bytes([1; 12]), &activity, || 0);
        held.asked_at(1, 1000);
        traffics.of(ContainerId::from_bytes([2; 12]), &activity, || 0).asked_at(1, 1000);
        traffics.sweep(2000);
        assert_eq!(traffics.of.borrow().len(), 2);
        traffics.sweep(2000 + FORGOTTEN_MS);
        assert_eq!(traffics.of.borrow().len(), 1);
    }
}
