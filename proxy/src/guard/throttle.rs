//! Wrong passwords are counted per address and container. Whoever has given too many waits; others,
//! and whoever's right password is known already, do not notice.

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use gantry_model::ContainerId;

/// The first failure opens a window, and all count until it closes.
const WINDOW_MS: i64 = 60_000;
/// The most windows that are kept; beyond, the oldest are forgotten first.
const WINDOWS_MAX: usize = 16 * 1024;

/// Whose failures are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// The address; of IPv6 its network of 64 bits, since a client chooses among its addresses.
    network: IpAddr,
    container: ContainerId,
}

impl Key {
    pub(crate) fn new(address: IpAddr, container: ContainerId) -> Self {
        let network = match address.to_canonical() {
            IpAddr::V4(address) => IpAddr::V4(address),
            IpAddr::V6(address) => {
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)))
            }
        };
        Self { network, container }
    }
}

#[derive(Clone, Copy, Debug)]
struct Window {
    opened_ms: i64,
    failures: u32,
}

#[derive(Debug)]
pub(crate) struct Throttle {
    /// So many wrong passwords may be given within one window.
    failures_max: u32,
    windows: HashMap<Key, Window>,
    /// In the order in which windows opened.
    order: VecDeque<(i64, Key)>,
}

impl Throttle {
    /// Lets one address give `failures_max` wrong passwords within a minute.
    pub(crate) fn new(failures_max: u32) -> Self {
        Self { failures_max, windows: HashMap::new(), order: VecDeque::new() }
    }

    /// How long to wait before the next try; nothing when it may be made.
    pub(crate) fn wait(&mut self, key: Key, now_ms: i64) -> Option<Duration> {
        self.forget(now_ms);
        let window = self.windows.get(&key).filter(|it| it.failures >= self.failures_max)?;
        let left_ms = window.opened_ms.saturating_add(WINDOW_MS).saturating_sub(now_ms);
        Some(Duration::from_millis(u64::try_from(left_ms).unwrap_or(0)))
    }

    /// Counts a wrong password.
    pub(crate) fn failed(&mut self, key: Key, now_ms: i64) {
        self.forget(now_ms);
        if let Some(window) = self.windows.get_mut(&key) {
            window.failures = window.failures.saturating_add(1);
            return;
        }
        if self.windows.len() >= WINDOWS_MAX
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.windows.remove(&oldest);
        }
        self.order.push_back((now_ms, key));
        self.windows.insert(key, Window { opened_ms: now_ms, failures: 1 });
    }

    fn forget(&mut self, now_ms: i64) {
        while let Some((opened_ms, key)) = self.order.front()
            && opened_ms.saturating_add(WINDOW_MS) <= now_ms
        {
            self.windows.remove(key);
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(address: &str, container: u8) -> Key {
        Key::new(address.parse().unwrap(), ContainerId::from_bytes([container; 12]))
    }

    #[test]
    fn so_many_wrong_passwords_a_minute_are_enough() {
        for max in [1, 10] {
            enough(max);
        }
    }

    fn enough(max: u32) {
        let mut throttle = Throttle::new(max);
        let mine = key("2001:db8::1", 1);
        for at in 0..max {
            assert_eq!(throttle.wait(mine, at.into()), None);
            throttle.failed(mine, 0);
        }
        assert_eq!(throttle.wait(mine, 10), Some(Duration::from_millis(59_990)), "{max}");
        assert!(throttle.wait(key("2001:db8::2", 1), 10).is_some(), "the same network");
        assert_eq!(throttle.wait(key("2001:db8:0:1::1", 1), 10), None);
        assert_eq!(throttle.wait(key("2001:db8::1", 2), 10), None, "another container");
        assert_eq!(throttle.wait(mine, WINDOW_MS), None);
        assert!(throttle.windows.is_empty() && throttle.order.is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut throttle = Throttle::new(10);
        for at in 0..u32::try_from(WINDOWS_MAX).unwrap() + 10 {
            let address = IpAddr::from(at.to_be_bytes());
            throttle.failed(Key::new(address, ContainerId::from_bytes([1; 12])), 0);
        }
        assert_eq!(throttle.windows.len(), WINDOWS_MAX);
        assert_eq!(throttle.order.len(), WINDOWS_MAX);
    }
}
