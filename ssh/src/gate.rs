//! How many strangers are let in, and how fast.
//!
//! When all places are taken, somebody makes room for whoever comes: of the wide network that has most of them, and in
//! there of the address that has, the one who has waited longest. So a flood drives out itself, also if it comes from
//! all of the networks that one customer of a provider has, and whoever logs in at once is in before it is his turn.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio_util::sync::CancellationToken;

use crate::front::Limits;

/// New connections of one address: so many at once,
const BURST: f64 = 60.0;
/// and so many a second in the long run.
const RATE: f64 = 20.0;
/// Addresses that are remembered for their rate.
const REMEMBERED_MAX: usize = 65_536;

/// The gate.
#[derive(Debug)]
pub(crate) struct Gate {
    limits: Limits,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    sources: HashMap<IpAddr, Source>,
    /// How many wait of each wide network.
    networks: HashMap<IpAddr, usize>,
    /// Those who wait, in the order in which they came.
    waiting: BTreeMap<u64, Place>,
    next: u64,
}

#[derive(Debug)]
struct Place {
    /// Whose places it takes, if that is known.
    source: Option<IpAddr>,
    lost: CancellationToken,
}

#[derive(Debug)]
struct Source {
    waiting: usize,
    tokens: f64,
    seen: Instant,
}

/// A connection that has not logged in; dropped when it has, or has gone.
#[derive(Debug)]
pub(crate) struct Waiting {
    gate: Arc<Gate>,
    number: u64,
    lost: CancellationToken,
}

impl Waiting {
    /// Returns when it has to make room for others.
    pub(crate) async fn lost(&self) {
        self.lost.cancelled().await;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.gate.lock().leave(self.number);
    }
}

/// Who shares an address' limits: of IPv6, a network of 64 bits, which one household has.
fn source(address: IpAddr) -> IpAddr {
    network(address, 32, 64)
}

/// Who makes room together: of IPv6, a network of 48 bits, which one customer may have, of IPv4 one of 24.
fn wide(address: IpAddr) -> IpAddr {
    network(address, 24, 48)
}

/// The network of an address, of so many bits.
fn network(address: IpAddr, of_v4: u32, of_v6: u32) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let host = u32::MAX.checked_shr(of_v4).unwrap_or_default();
            IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & !host))
        }
        IpAddr::V6(address) => {
            let host = u128::MAX.checked_shr(of_v6).unwrap_or_default();
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !host))
        }
    }
}

impl Gate {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a connection in that a balancer carries, until it says for whom.
    pub(crate) fn enter_carried(self: &Arc<Self>) -> Waiting {
        self.take_place(&mut self.lock(), None)
    }

    /// Lets a connection in, or not.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr, now: Instant) -> Option<Waiting> {
        let key = source(address);
        let mut guard = self.lock();
        let inner = &mut *guard;
        if inner.sources.len() >= REMEMBERED_MAX {
            // Whoever's bucket is full again is as good as unknown.
            inner.sources.retain(|_, source| source.waiting > 0 || source.refill(now) < BURST);
        }
        let source =
            inner.sources.entry(key).or_insert(Source { waiting: 0, tokens: BURST, seen: now });
        source.tokens = source.refill(now);
        source.seen = now;
        if source.waiting >= self.limits.strangers_of_one || source.tokens < 1.0 {
            return None;
        }
        source.tokens -= 1.0;
        source.waiting += 1;
        Some(self.take_place(inner, Some(key)))
    }

    fn take_place(self: &Arc<Self>, inner: &mut Inner, source: Option<IpAddr>) -> Waiting {
        let number = inner.next;
        inner.next += 1;
        if let Some(source) = source {
            *inner.networks.entry(wide(source)).or_default() += 1;
        }
        let lost = CancellationToken::new();
        inner.waiting.insert(number, Place { source, lost: lost.clone() });
        if inner.waiting.len() > self.limits.strangers {
            inner.make_room();
        }
        Waiting { gate: Arc::clone(self), number, lost }
    }
}

impl Inner {
    fn leave(&mut self, number: u64) -> Option<Place> {
        let place = self.waiting.remove(&number)?;
        if let Some(source) = place.source.and_then(|source| self.sources.get_mut(&source)) {
            source.waiting -= 1;
        }
        if let Some(network) = place.source.map(wide)
            && let Some(waiting) = self.networks.get_mut(&network)
        {
            *waiting -= 1;
            if *waiting == 0 {
                self.networks.remove(&network);
            }
        }
        Some(place)
    }

    fn make_room(&mut self) {
        let of_source = |place: &Place| {
            // Of balancers each comes for somebody else.
            let Some(source) = place.source else { return (1, 1) };
            let of_network = self.networks.get(&wide(source)).copied();
            let of_source = self.sources.get(&source).map(|source| source.waiting);
            (of_network.unwrap_or(1), of_source.unwrap_or(1))
        };
        // Of equal ones the first, who has waited longest.
        let longest = self.waiting.iter().min_by_key(|(_, place)| Reverse(of_source(place)));
        let number = longest.map(|(number, _)| *number);
        if let Some(place) = number.and_then(|number| self.leave(number)) {
            place.lost.cancel();
        }
    }
}

impl Source {
    fn refill(&self, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.seen).as_secs_f64();
        (self.tokens + passed * RATE).min(BURST)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_address_has_few_strangers_at_a_time() {
        let gate = Arc::new(Gate::new(Limits::default()));
        let now = Instant::now();
        let address = "192.0.2.1".parse().unwrap();
        let inside: Vec<_> = (0..Limits::default().strangers_of_one)
            .map(|_| gate.enter(address, now).unwrap())
            .collect();
        assert!(gate.enter(address, now).is_none());
        assert!(gate.enter("192.0.2.2".parse().unwrap(), now).is_some());
        drop(inside);
        assert!(gate.enter(address, now).is_some());
    }

    #[test]
    fn who_comes_last_is_let_in_and_who_has_most_makes_room() {
        let limits = Limits { strangers: 4, strangers_of_one: 3, ..Limits::default() };
        let gate = Arc::new(Gate::new(limits));
        let now = Instant::now();
        let enter = |last: u8| gate.enter(IpAddr::from([192, 0, last, 1]), now).unwrap();
        let first = enter(1);
        let many = [enter(2), enter(2), enter(2)];
        let lost = |waiting: &Waiting| waiting.lost.is_cancelled();
        let second = enter(3);
        assert!(!lost(&first) && !lost(&second));
        assert_eq!(many.each_ref().map(lost), [true, false, false]);
        // Its place was given away, so that it leaves none.
        drop(many);
        let others = [enter(4), enter(5)];
        assert!(!lost(&first) && !lost(&second) && !others.iter().any(lost));
        let sixth = enter(6);
        assert!(lost(&first) && !lost(&second) && !lost(&sixth));
    }

    #[test]
    fn a_flood_of_a_wide_network_drives_out_itself() {
        let gate = Arc::new(Gate::new(Limits { strangers: 20, ..Limits::default() }));
        let now = Instant::now();
        let enter = |address: &str| gate.enter(address.parse().unwrap(), now).unwrap();
        let lost = |waiting: &Waiting| waiting.lost.is_cancelled();
        let others = [enter("198.51.100.1"), enter("2001:db8:1::1"), enter("2001:db8:1::2")];
        // From each of its networks only one.
        let flood: Vec<_> = (0..500).map(|n| enter(&format!("2001:db8:2:{n:x}::1"))).collect();
        assert!(!others.iter().any(lost));
        assert_eq!(flood.iter().filter(|one| !lost(one)).count(), 17);
        drop(flood);
        let flood: Vec<_> = (0..100).map(|n| enter(&format!("203.0.113.{n}"))).collect();
        assert!(!others.iter().any(lost) && lost(&flood[0]));
        drop((flood, others));
        assert!(gate.lock().networks.is_empty());
    }

    #[test]
    fn those_of_balancers_count_among_all_until_they_are_known() {
        let gate = Arc::new(Gate::new(Limits { strangers: 3, ..Limits::default() }));
        let lost = |waiting: &Waiting| waiting.lost.is_cancelled();
        let carried = [gate.enter_carried(), gate.enter_carried(), gate.enter_carried()];
        assert!(!carried.iter().any(lost));
        let address = "192.0.2.1".parse().unwrap();
        let known = gate.enter(address, Instant::now()).unwrap();
        assert_eq!(carried.each_ref().map(lost), [true, false, false]);
        let another = gate.enter_carried();
        assert_eq!(carried.each_ref().map(lost), [true, true, false]);
        assert!(!lost(&known) && !lost(&another));
    }

    #[test]
    fn one_network_of_ipv6_counts_as_one_and_a_burst_wears_off() {
        let gate = Arc::new(Gate::new(Limits::default()));
        let now = Instant::now();
        let mut inside = 0;
        for n in 0..200_u16 {
            let address = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 7, 0, 0, 0, n));
            inside += usize::from(gate.enter(address, now).is_some());
        }
        assert_eq!(inside, 60);
        let address = "2001:db8:0:7::1".parse().unwrap();
        assert!(gate.enter(address, now + Duration::from_millis(20)).is_none());
        assert!(gate.enter(address, now + Duration::from_millis(80)).is_some());
    }
}
