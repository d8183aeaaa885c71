//! Which container has which address.

use std::{collections::BTreeMap, net::Ipv4Addr};

use gantry_model::ContainerId;
use ipnet::Ipv4Net;

/// The addresses of one network. The first one after the network's own is the gateway's.
///
/// Addresses are handed out in turn, so that one that became free rests as long as the network's
/// size allows before another container gets it.
#[derive(Debug)]
pub(crate) struct Pool {
    net: Ipv4Net,
    used: BTreeMap<Ipv4Addr, ContainerId>,
    last: Ipv4Addr,
}

impl Pool {
    /// An empty pool.
    pub(crate) fn new(net: Ipv4Net) -> Self {
        let net = net.trunc();
        let mut pool = Self { net, used: BTreeMap::new(), last: net.network() };
        pool.last = pool.gateway();
        pool
    }

    /// The host's own address in the network.
    pub(crate) fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.net.network().to_bits().saturating_add(1))
    }

    /// Gives a container an address, the one that it has if it has one; `None` when all are taken.
    pub(crate) fn take(&mut self, id: ContainerId) -> Option<Ipv4Addr> {
        if let Some(address) = self.of(id) {
            return Some(address);
        }
        let (first, end) = (self.gateway().to_bits() + 1, self.net.broadcast().to_bits());
        let size = end.saturating_sub(first);
        let start = self.last.to_bits().saturating_add(1).saturating_sub(first);
        let free = (0..size)
            .map(|step| Ipv4Addr::from_bits(first + (start + step) % size))
            .find(|address| !self.used.contains_key(address))?;
        self.used.insert(free, id);
        self.last = free;
        Some(free)
    }

    /// The address that a container has.
    pub(crate) fn of(&self, id: ContainerId) -> Option<Ipv4Addr> {
        self.used.iter().find(|(_, owner)| **owner == id).map(|(address, _)| *address)
    }

    /// Every address that a container has.
    pub(crate) fn taken(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.used.keys().copied()
    }

    /// The container that has an address.
    pub(crate) fn owner(&self, address: Ipv4Addr) -> Option<ContainerId> {
        self.used.get(&address).copied()
    }

    /// Notes an address that a container has already, from the records of an earlier run. `false`
    /// when another one has it, or it is not of this network.
    pub(crate) fn adopt(&mut self, id: ContainerId, address: Ipv4Addr) -> bool {
        let usable = self.net.contains(&address)
            && address > self.gateway()
            && address < self.net.broadcast();
        usable && *self.used.entry(address).or_insert(id) == id
    }

    /// Goes on after this address, the last one given out by an earlier run.
    pub(crate) fn resume_after(&mut self, last: Ipv4Addr) {
        if self.net.contains(&last) {
            self.last = last;
        }
    }

    /// Frees whatever a container has.
    pub(crate) fn release(&mut self, id: ContainerId) {
        self.used.retain(|_, owner| *owner != id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> ContainerId {
        ContainerId::from_bytes([n; 12])
    }

    #[test]
    fn addresses_are_given_in_turn_and_rest_after_use() {
        let mut pool = Pool::new("10.9.8.0/29".parse().unwrap());
        let first: Vec<_> = (0..5).map(|n| pool.take(id(n)).unwrap().octets()[3]).collect();
        assert_eq!(first, [2, 3, 4, 5, 6], "neither network, gateway nor broadcast address");
        assert_eq!(pool.take(id(9)), None, "all are taken");
        assert_eq!(pool.take(id(3)), pool.of(id(3)), "twice the same is the same");
        pool.release(id(3));
        pool.release(id(1));
        assert_eq!(pool.take(id(9)).unwrap().octets()[3], 3);
        pool.release(id(9));
        assert_eq!(pool.take(id(9)).unwrap().octets()[3], 5, "the one that rested longer");
    }

    #[test]
    fn an_address_has_one_owner_across_restarts() {
        let mut pool = Pool::new("10.9.8.0/24".parse().unwrap());
        let address = Ipv4Addr::new(10, 9, 8, 2);
        assert!(pool.adopt(id(1), address));
        assert!(pool.adopt(id(1), address), "twice the same is the same");
        assert!(!pool.adopt(id(2), address));
        assert!(!pool.adopt(id(2), Ipv4Addr::new(10, 9, 9, 2)), "another network");
        assert!(!pool.adopt(id(2), Ipv4Addr::new(10, 9, 8, 1)), "the gateway");
        assert_eq!(pool.take(id(2)), Some(Ipv4Addr::new(10, 9, 8, 3)));
        pool.resume_after(Ipv4Addr::new(10, 9, 8, 77));
        assert_eq!(pool.take(id(3)), Some(Ipv4Addr::new(10, 9, 8, 78)));
    }
}
