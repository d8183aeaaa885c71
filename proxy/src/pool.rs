//! Connections to containers, kept by one worker for itself: idle ones, and those that streams share.
//!
//! The key contains the container's generation: addresses are given to other tenants after a stop,
//! and a connection must never outlive the start that it belongs to.

use std::{collections::HashMap, time::Duration};

use gantry_model::Scheme;

use crate::{
    multiplex::Shared,
    upstream::{Channel, Lease},
    watch::{Origin, TICK, Tick},
};

/// What connections may be shared for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PoolKey {
    pub(crate) origin: Origin,
    pub(crate) port: u16,
    pub(crate) scheme: Scheme,
    /// A mark of the name that a TLS connection was made for; 0 without TLS. Servers refuse requests
    /// for other names on it. Two names with one mark are no danger: both are the container's.
    pub(crate) name: u64,
}

/// The idle connections of one worker. The last one put is the first one taken.
#[derive(Debug)]
pub(crate) struct Pool {
    idle: HashMap<PoolKey, OfPort, foldhash::fast::RandomState>,
    total: usize,
    per_key_max: usize,
    total_max: usize,
    ticks_max: u64,
}

/// The connections to one port.
#[derive(Debug, Default)]
struct OfPort {
    idle: Vec<Idle>,
    /// Those that speak HTTP/2; in use or not.
    shared: Vec<Shared>,
}

/// What a request can be sent with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    Any,
    Http2,
}

#[derive(Debug)]
struct Idle {
    channel: Box<Channel>,
    since: Tick,
}

impl Pool {
    pub(crate) fn new(per_key_max: usize, total_max: usize, idle: Duration) -> Self {
        let ticks_max = u64::try_from(idle.as_millis() / TICK.as_millis()).unwrap_or(u64::MAX);
        Self { idle: HashMap::default(), total: 0, per_key_max, total_max, ticks_max }
    }

    /// Takes a connection. It may have been closed by the container; using it will tell. A port that
    /// was found to speak HTTP/2 is spoken to so.
    pub(crate) fn take(&mut self, key: &PoolKey, need: Need) -> Option<Lease> {
        let of_port = self.idle.get_mut(key)?;
        if let Some(lane) = of_port.shared.iter().find_map(Shared::lane) {
            return Some(Lease::Http2(lane));
        }
        if need == Need::Http2 {
            return None;
        }
        let idle = of_port.idle.pop()?;
        self.total -= 1;
        Some(Lease::Http1(idle.channel))
    }

    /// Keeps a connection that streams share, unless there are enough.
    pub(crate) fn share(&mut self, key: PoolKey, shared: Shared) {
        if self.total < self.total_max {
            let of_key = self.idle.entry(key).or_default();
            if of_key.idle.len() + of_key.shared.len() < self.per_key_max {
                of_key.shared.push(shared);
                self.total += 1;
            }
        }
    }

    /// Keeps a connection, unless there are enough.
    pub(crate) fn put(&mut self, key: PoolKey, channel: Box<Channel>, now: Tick) {
        if self.total >= self.total_max {
            return;
        }
        let of_key = self.idle.entry(key).or_default();
        if of_key.idle.len() + of_key.shared.len() < self.per_key_max {
            of_key.idle.push(Idle { channel, since: now });
            self.total += 1;
        }
    }

    /// How many connections are kept.
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
            of_key.shared.retain(|shared| shared.rests(now, ticks_max));
            of_key.idle.retain_mut(|idle| {
                now.saturating_sub(idle.since) < ticks_max && idle.channel.is_open()
            });
            !of_key.idle.is_empty() || !of_key.shared.is_empty()
        });
        self.total = self.idle.values().map(|it| it.idle.len() + it.shared.len()).sum();
    }

    /// Drops all connections.
    pub(crate) fn clear(&mut self) {
        self.idle.clear();
        self.total = 0;
    }
}
