//! Asks the domain name system again, from time to time, whether custom hostnames still lead here.

use std::{collections::HashMap, time::Duration};

use gantry_model::Chain;
use gantry_store::CustomHostname;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::{
    clock::{Clock, millis},
    controller::Controller,
    error::Result,
};

/// The most hostnames that are asked for at one look; the others have their turn at the next.
const AT_ONCE: u32 = 32;
/// There are so many looks between two checks of one hostname.
const LOOKS: u32 = 60;

/// When hostnames are checked again, and what becomes of them.
#[derive(Clone, Copy, Debug)]
pub struct RecheckConfig {
    /// The time between two checks of one hostname, give or take a tenth; at least a minute.
    pub period: Duration,
    /// So many checks in a row must find nothing before a hostname leads nowhere; at least 1.
    pub misses_max: u32,
}

impl Default for RecheckConfig {
    fn default() -> Self {
        Self { period: Duration::from_hours(1), misses_max: 3 }
    }
}

/// The task that checks custom hostnames again.
///
/// A hostname that is no longer proven leads nowhere, as after a check that its owner asked for, and
/// may be bound by others; it leads to its alias again when a later check proves it. A question that
/// is not answered says nothing. How often one was not proven is remembered by this task alone: after
/// a restart it begins to count anew.
pub struct Rechecker {
    control: Controller,
    clock: Clock,
    config: RecheckConfig,
    /// By name: how many checks in a row have found nothing. Of names that are still proven.
    misses: HashMap<String, u32>,
}

impl std::fmt::Debug for Rechecker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rechecker").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Rechecker {
    /// Checks the hostnames of `control`.
    pub fn new(control: Controller, clock: Clock, config: RecheckConfig) -> Self {
        Self { control, clock, config, misses: HashMap::new() }
    }

    /// Works until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(self.config.period / LOOKS);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                looked = self.look() => {
                    if let Err(error) = looked {
                        let why = Chain(&error).to_string();
                        tracing::warn!(error = why, "cannot check custom hostnames again");
                    }
                }
            }
        }
    }

    /// Checks the hostnames whose time has come, at most 32 of them; returns how many.
    pub async fn look(&mut self) -> Result<usize> {
        let now_ms = self.clock.now_ms();
        let period_ms = millis(self.config.period);
        let soonest_ms = now_ms.saturating_sub(period_ms / 10 * 9);
        let store = self.control.store();
        let mut checked = 0;
        for hostname in store.hostnames_checked_before(soonest_ms, AT_ONCE).await? {
            let due_ms = hostname.checked_at_ms.saturating_add(spread(&hostname, period_ms));
            if due_ms <= now_ms {
                self.check(hostname, now_ms).await?;
                checked += 1;
            }
        }
        Ok(checked)
    }

    async fn check(&mut self, mut hostname: CustomHostname, now_ms: i64) -> Result<()> {
        let Some(alias) = self.control.store().alias(hostname.alias).await? else {
            return Ok(());
        };
        let alias_host = self.control.alias_host(&alias).await?;
        let name = hostname.name.clone();
        match self.control.prove(&name, &alias_host).await {
            Ok(Some(proof)) => {
                self.misses.remove(&name);
                (hostname.proof, hostname.is_proven) = (proof, true);
            }
            Ok(None) if hostname.is_proven => {
                let misses = self.misses.entry(name.clone()).or_default();
                *misses += 1;
                hostname.is_proven = *misses < self.config.misses_max;
                if !hostname.is_proven {
                    self.misses.remove(&name);
                    tracing::info!(hostname = name, "no longer proven; it leads nowhere now");
                }
            }
            Ok(None) => {}
            Err(error) => {
                let why = Chain(&error).to_string();
                tracing::debug!(hostname = name, error = why, "cannot check a custom hostname");
            }
        }
        let last_ms = std::mem::replace(&mut hostname.checked_at_ms, now_ms);
        if !self.control.store().note_hostname(&hostname, last_ms, now_ms).await? {
            // It was unbound meanwhile, or its owner has checked it: that counts.
            self.misses.remove(&name);
        }
        Ok(())
    }
}

/// How long after its last check a hostname is due: the period give or take a tenth, so that those that
/// were bound together are not asked for together for ever.
fn spread(hostname: &CustomHostname, period_ms: i64) -> i64 {
    let seed = hostname.name.bytes().fold(hostname.checked_at_ms, |sum, octet| {
        sum.wrapping_mul(31).wrapping_add(i64::from(octet))
    });
    let fifth = (period_ms / 5).max(1);
    (period_ms / 10 * 9).saturating_add(seed.rem_euclid(fifth))
}
