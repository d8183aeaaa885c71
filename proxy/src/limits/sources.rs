//! What each source has: connections, TLS handshakes, requests.

use std::{
    cell::Cell,
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{
    Counts, Refused,
    bucket::{Bucket, Nanos},
};
use crate::config::{Limits, Rate};

/// Sources without a connection that are remembered because of what they did before.
const REMEMBERED_MAX: usize = 64 * 1024;

/// A look through the remembered sources is worth its time from so many on.
const SWEEP_MIN: usize = 1024;

/// What counts as one source: an IPv4 address, or the /64 that an IPv6 customer has at the least.
pub(crate) fn source(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        v4 @ IpAddr::V4(_) => v4,
        IpAddr::V6(v6) => {
            let mut segments = v6.segments();
            segments[4..].fill(0);
            IpAddr::V6(segments.into())
        }
    }
}

/// All sources.
#[derive(Debug)]
pub(super) struct Sources {
    known: Mutex<Known>,
    connections_max: usize,
    handshakes_max: usize,
    handshake_rate: Option<Rate>,
    request_rate: Option<Rate>,
    /// The tokens that a worker takes at once.
    supply: u32,
    begun: Instant,
}

#[derive(Debug, Default)]
struct Known {
    all: HashMap<IpAddr, Source, foldhash::fast::RandomState>,
    /// Those without a connection.
    remembered: usize,
    /// So many remembered ones make a look worth while.
    sweep_at: usize,
}

#[derive(Debug, Default)]
struct Source {
    connections: usize,
    handshakes: usize,
    handshake_bucket: Bucket,
    request_bucket: Bucket,
}

impl Source {
    /// Whether to forget it changes nothing.
    fn is_new(&self, now: Nanos) -> bool {
        self.connections == 0
            && self.handshake_bucket.is_full(now)
            && self.request_bucket.is_full(now)
    }
}

impl Known {
    /// A source has lost its last connection: forgets it if that changes nothing, and old ones if
    /// there are too many.
    fn left(&mut self, source: IpAddr, now: Nanos) {
        if self.all.get(&source).is_some_and(|known| known.is_new(now)) {
            self.all.remove(&source);
            return;
        }
        self.remembered += 1;
        if self.remembered < self.sweep_at.max(SWEEP_MIN) {
            return;
        }
        self.all.retain(|_, known| !known.is_new(now));
        self.remembered = self.all.values().filter(|known| known.connections == 0).count();
        if self.remembered > REMEMBERED_MAX {
            // Whoever has so many addresses is not held by a limit per address.
            self.all.retain(|_, known| known.connections > 0);
            self.remembered = 0;
        }
        self.sweep_at = self.remembered * 2;
    }
}

impl Sources {
    pub(super) fn new(limits: &Limits, workers: usize) -> Self {
        let workers = u32::try_from(workers.max(1)).unwrap_or(u32::MAX);
        let burst = limits.request_rate.map_or(0, |rate| rate.burst);
        Self {
            known: Mutex::default(),
            connections_max: limits.connections_per_address_max,
            handshakes_max: limits.handshakes_per_address_max,
            handshake_rate: limits.handshake_rate,
            request_rate: limits.request_rate,
            // So that all workers together hold back no more than a quarter.
            supply: (burst / 4 / workers).clamp(1, 32),
            begun: Instant::now(),
        }
    }

    /// Whether there is a limit on requests.
    pub(super) fn counts_requests(&self) -> bool {
        self.request_rate.is_some()
    }

    fn now(&self) -> Nanos {
        Nanos::try_from(self.begun.elapsed().as_nanos()).unwrap_or(Nanos::MAX)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Nothing here panics half-way.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection's place among those of its source, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    counts: Arc<Counts>,
    source: IpAddr,
}

impl Place {
    /// One more connection of `source`, if it may have one.
    pub(super) fn take(counts: &Arc<Counts>, source: IpAddr) -> Option<Self> {
        let sources = &counts.sources;
        let mut known = sources.known();
        match known.all.entry(source) {
            Entry::Occupied(entry) => {
                let of_source = entry.into_mut();
                if of_source.connections >= sources.connections_max {
                    return None;
                }
                of_source.connections += 1;
                if of_source.connections == 1 {
                    known.remembered = known.remembered.saturating_sub(1);
                }
            }
            Entry::Vacant(entry) => {
                entry.insert(Source { connections: 1, ..Source::default() });
            }
        }
        drop(known);
        Some(Self { counts: Arc::clone(counts), source })
    }

    /// One more TLS handshake.
    pub(super) fn handshake(&self) -> Result<Handshake, Refused> {
        let sources = &self.counts.sources;
        let now = sources.now();
        let mut known = sources.known();
        // It is there as long as it has a connection.
        let of_source = known.all.entry(self.source).or_default();
        if of_source.handshakes >= sources.handshakes_max {
            return Err(Refused::AddressHandshakes);
        }
        if let Some(rate) = sources.handshake_rate
            && of_source.handshake_bucket.take(rate, now, 1) == 0
        {
            return Err(Refused::AddressHandshakeRate);
        }
        of_source.handshakes += 1;
        drop(known);
        Ok(Handshake { counts: Arc::clone(&self.counts), source: self.source })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let now = self.counts.sources.now();
        let mut known = self.counts.sources.known();
        if let Some(of_source) = known.all.get_mut(&self.source) {
            of_source.connections = of_source.connections.saturating_sub(1);
            if of_source.connections == 0 {
                known.left(self.source, now);
            }
        }
    }
}

/// A TLS handshake under way.
#[derive(Debug)]
pub(crate) struct Handshake {
    counts: Arc<Counts>,
    source: IpAddr,
}

impl Drop for Handshake {
    fn drop(&mut self) {
        let mut known = self.counts.sources.known();
        if let Some(of_source) = known.all.get_mut(&self.source) {
            of_source.handshakes = of_source.handshakes.saturating_sub(1);
        }
    }
}

/// The requests that one source may still make of one worker before the worker has to ask for more.
#[derive(Debug)]
pub(crate) struct Share {
    counts: Arc<Counts>,
    source: IpAddr,
    tokens: Cell<u32>,
}

impl Share {
    pub(super) fn new(counts: &Arc<Counts>, source: IpAddr) -> Self {
        Self { counts: Arc::clone(counts), source, tokens: Cell::new(0) }
    }

    /// One request. If it comes too early: how long to wait.
    pub(crate) fn take(&self) -> Result<(), Duration> {
        match self.tokens.get().checked_sub(1) {
            Some(left) => {
                self.tokens.set(left);
                Ok(())
            }
            None => self.refill(),
        }
    }

    #[cold]
    fn refill(&self) -> Result<(), Duration> {
        let sources = &self.counts.sources;
        let Some(rate) = sources.request_rate else { return Ok(()) };
        let now = sources.now();
        let mut known = sources.known();
        let Some(of_source) = known.all.get_mut(&self.source) else { return Ok(()) };
        match of_source.request_bucket.take(rate, now, sources.supply).checked_sub(1) {
            Some(left) => {
                self.tokens.set(left);
                Ok(())
            }
            None => Err(of_source.request_bucket.wait(rate, now)),
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let sources = &self.counts.sources;
        if let Some(rate) = sources.request_rate
            && let Some(of_source) = sources.known().all.get_mut(&self.source)
        {
            of_source.request_bucket.give_back(rate, self.tokens.get());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(change: impl FnOnce(&mut Limits), workers: usize) -> Arc<Counts> {
        let mut limits = Limits::default();
        change(&mut limits);
        Arc::new(Counts::new(&limits, workers))
    }

    fn ip(text: &str) -> IpAddr {
        source(text.parse().unwrap())
    }

    #[test]
    fn a_source_has_a_share_of_connections() {
        let counts = counts(|limits| limits.connections_per_address_max = 2, 1);
        let one = ip("192.0.2.1");
        let places = [Place::take(&counts, one).unwrap(), Place::take(&counts, one).unwrap()];
        assert!(Place::take(&counts, one).is_none());
        assert!(Place::take(&counts, ip("::ffff:192.0.2.1")).is_none(), "the same address");
        assert!(Place::take(&counts, ip("192.0.2.2")).is_some());
        drop(places);
        assert!(Place::take(&counts, one).is_some());
        assert_eq!(ip("2001:db8::1"), ip("2001:db8::2:0:0:1"), "one /64 is one source");
        assert_ne!(ip("2001:db8::1"), ip("2001:db8:0:1::1"));
        assert!(counts.sources.known().all.is_empty(), "nothing is kept of who did nothing");
    }

    #[test]
    fn a_source_has_so_many_handshakes_at_once_and_in_a_while() {
        let change = |limits: &mut Limits| {
            limits.handshakes_per_address_max = 2;
            limits.handshake_rate = Some(Rate { per_second: 1, burst: 3 });
        };
        let counts = counts(change, 1);
        let place = Place::take(&counts, ip("192.0.2.1")).unwrap();
        let both = [place.handshake().unwrap(), place.handshake().unwrap()];
        assert_eq!(place.handshake().unwrap_err(), Refused::AddressHandshakes);
        drop(both);
        drop(place.handshake().unwrap());
        assert_eq!(place.handshake().unwrap_err(), Refused::AddressHandshakeRate);
        drop(place);
        let again = Place::take(&counts, ip("192.0.2.1")).unwrap();
        assert_eq!(again.handshake().unwrap_err(), Refused::AddressHandshakeRate, "remembered");
    }

    #[test]
    fn requests_are_counted_over_all_workers_and_connections() {
        let rate = Rate { per_second: 1, burst: 100 };
        let counts = counts(|limits| limits.request_rate = Some(rate), 2);
        let here = ip("192.0.2.1");
        let place = Place::take(&counts, here).unwrap();
        let shares = [Share::new(&counts, here), Share::new(&counts, here)];
        let served = (0..300).filter(|n| shares[n % 2].take().is_ok()).count();
        assert!((100..103).contains(&served), "{served}");
        let wait = shares[0].take().unwrap_err();
        assert!(!wait.is_zero() && wait <= Duration::from_secs(1), "{wait:?}");
        drop((shares, place));
        let place = Place::take(&counts, here).unwrap();
        assert!(Share::new(&counts, here).take().is_err(), "a new connection changes nothing");
        drop(place);
    }

    #[test]
    fn what_was_not_used_is_given_back() {
        let rate = Rate { per_second: 1, burst: 40 };
        let counts = counts(|limits| limits.request_rate = Some(rate), 1);
        let here = ip("192.0.2.1");
        let _place = Place::take(&counts, here).unwrap();
        for _ in 0..40 {
            assert_eq!(Share::new(&counts, here).take(), Ok(()));
        }
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let rate = Rate { per_second: 1, burst: 10_000 };
        let counts = counts(|limits| limits.handshake_rate = Some(rate), 1);
        for number in 0..200_000_u32 {
            let place = Place::take(&counts, IpAddr::V4(number.into())).unwrap();
            drop(place.handshake().unwrap());
        }
        let known = counts.sources.known().all.len();
        assert!(known <= 2 * REMEMBERED_MAX, "{known}");
    }
}
