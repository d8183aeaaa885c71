//! Idle connections to containers, kept by one worker for itself.
//!
//! The key contains the container's generation: addresses are given to other tenants after a stop,
//! and a connection must never outlive the start that it belongs to.

use std::{collections::HashMap, time::Duration};

use gantry_model::Scheme;

use crate::{
    upstream::Channel,
    watch::{Origin, TICK, Tick},
};

/// What connections may be shared for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PoolKey {
    pub(crate) origin: Origin,
    pub(crate) port: u16,
    pub(crate) scheme: Scheme,
}

/// The idle connections of one worker. The last one put is the first one taken.
#[derive(Debug)]
pub(crate) struct Pool {
    idle: HashMap<PoolKey, Vec<Idle>, foldhash::fast::RandomState>,
    total: usize,
    per_key_max: usize,
    total_max: usize,
    ticks_max: u64,
}

#[derive(Debug)]
struct Idle {
    channel: Channel,
    since: Tick,
}

impl Pool {
    pub(crate) fn new(per_key_max: usize, total_max: usize, idle: Duration) -> Self {
        let ticks_max = u64::try_from(idle.as_millis() / TICK.as_millis()).unwrap_or(u64::MAX);
        Self { idle: HashMap::default(), total: 0, per_key_max, total_max, ticks_max }
    }

    /// Takes a connection. It may have been closed by the container; using it will tell.
    pub(crate) fn take(&mut self, key: &PoolKey) -> Option<Channel> {
        let idle = self.idle.get_mut(key)?.pop()?;
        self.total -= 1;
        Some(idle.channel)
    }

    /// Keeps a connection, unless there are enough.
    pub(crate) fn put(&mut self, key: PoolKey, channel: Channel, now: Tick) {
        if self.total >= self.total_max {
            return;
        }
        let of_key = self.idle.entry(key).or_default();
        if of_key.len() < self.per_key_max {
            of_key.push(Idle { channel, since: now });
            self.total += 1;
        }
    }

    /// How many connections are idle.
    pub(crate) fn len(&self) -> usize {
        self.total
    }

    /// Drops connections that are too old, closed by the container, or of a start that is over.
    pub(crate) fn sweep(&mut self, now: Tick, gone: impl Fn(&Origin) -> bool) {
        let ticks_max = self.ticks_max;
        self.idle.retain(|key, of_key| {
            if gone(&key.origin) {
                return false;
            }
            of_key.retain_mut(|idle| {
                now.saturating_sub(idle.since) < ticks_max && idle.channel.rest()
            });
            !of_key.is_empty()
        });
        self.total = self.idle.values().map(Vec::len).sum();
    }

    /// Drops all connections.
    pub(crate) fn clear(&mut self) {
        self.idle.clear();
        self.total = 0;
    }
}
