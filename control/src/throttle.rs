//! Counts failed logins and says when enough is enough.
//!
//! Fixed windows: the first failure opens one, and all count until it closes. Successes do not
//! count, and nobody but the failing address is locked out: an account cannot be blocked by strangers.

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

/// The most keys that are remembered; beyond, the oldest windows are forgotten first.
const KEYS_MAX: usize = 65_536;

/// Whose failures are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// One address; of IPv6, one network of 64 bits.
    Address(Option<IpAddr>),
    /// One account, tried from one address.
    Account(Option<IpAddr>, String),
}

impl Key {
    pub(crate) fn address(address: Option<IpAddr>) -> Self {
        Self::Address(address.map(network))
    }

    /// Names longer than any account has count as one.
    pub(crate) fn account(address: Option<IpAddr>, name: &str) -> Self {
        let name = if name.len() <= 255 { name } else { "" };
        Self::Account(address.map(network), name.to_owned())
    }
}

/// A client of IPv6 chooses among 2^64 addresses.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)))
        }
    }
}

#[derive(Clone, Copy)]
struct Window {
    opened_ms: i64,
    failures: u32,
}

pub(crate) struct Throttle {
    window_ms: i64,
    windows: HashMap<Key, Window>,
    /// In the order in which windows opened.
    order: VecDeque<(i64, Key)>,
}

impl Throttle {
    pub(crate) fn new(window_ms: i64) -> Self {
        Self { window_ms, windows: HashMap::new(), order: VecDeque::new() }
    }

    /// How long to wait when `key` has failed `max` times already; `None` when it may try.
    pub(crate) fn wait(&mut self, key: &Key, max: u32, now_ms: i64) -> Option<Duration> {
        self.forget(now_ms);
        let window = self.windows.get(key)?;
        let closes_ms = window.opened_ms.saturating_add(self.window_ms);
        let left_ms = u64::try_from(closes_ms.saturating_sub(now_ms)).unwrap_or(0);
        (window.failures >= max).then(|| Duration::from_secs(left_ms.div_ceil(1000).max(1)))
    }

    /// Counts a failure.
    pub(crate) fn failed(&mut self, key: Key, now_ms: i64) {
        self.forget(now_ms);
        if let Some(window) = self.windows.get_mut(&key) {
            window.failures = window.failures.saturating_add(1);
            return;
        }
        if self.windows.len() >= KEYS_MAX
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.windows.remove(&oldest);
        }
        self.order.push_back((now_ms, key.clone()));
        self.windows.insert(key, Window { opened_ms: now_ms, failures: 1 });
    }

    fn forget(&mut self, now_ms: i64) {
        while let Some((opened_ms, _)) = self.order.front()
            && opened_ms.saturating_add(self.window_ms) <= now_ms
        {
            if let Some((_, key)) = self.order.pop_front() {
                self.windows.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_count_until_the_window_closes() {
        let mut throttle = Throttle::new(1000);
        let key = Key::address(Some("2001:db8::1".parse().unwrap()));
        let neighbour = Key::address(Some("2001:db8::2".parse().unwrap()));
        let stranger = Key::address(Some("192.0.2.1".parse().unwrap()));
        for at in 0..3 {
            assert_eq!(throttle.wait(&key, 3, at), None);
            throttle.failed(key.clone(), at);
        }
        assert_eq!(throttle.wait(&neighbour, 3, 10), Some(Duration::from_secs(1)));
        assert_eq!(throttle.wait(&stranger, 3, 10), None);
        assert_eq!(throttle.wait(&key, 3, 1000), None);
        assert!(throttle.windows.is_empty() && throttle.order.is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut throttle = Throttle::new(i64::MAX);
        for at in 0..KEYS_MAX + 10 {
            throttle.failed(Key::account(None, &at.to_string()), 0);
        }
        assert_eq!(throttle.windows.len(), KEYS_MAX);
        assert_eq!(throttle.order.len(), KEYS_MAX);
    }
}
