//! How many strangers are let in, and how fast.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

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
    waiting: usize,
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
    source: IpAddr,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut inner = self.gate.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.waiting -= 1;
        if let Some(source) = inner.sources.get_mut(&self.source) {
            source.waiting -= 1;
        }
    }
}

/// Who shares an address' limits: of IPv6, a network of 64 bits, which one household has.
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        address @ IpAddr::V4(_) => address,
    }
}

impl Gate {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, inner: Mutex::default() }
    }

    /// Lets a connection in, or not.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr, now: Instant) -> Option<Waiting> {
        let key = source(address);
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.waiting >= self.limits.strangers {
            return None;
        }
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
        inner.waiting += 1;
        Some(Waiting { gate: Arc::clone(self), source: key })
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
