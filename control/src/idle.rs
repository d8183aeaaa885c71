//! Puts containers to sleep that have had no traffic for as long as their owners said.

use std::{sync::Arc, time::Duration};

use gantry_model::{Chain, ContainerId};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::controller::Controller;

/// How often the quiet ones are asked for.
const PERIOD: Duration = Duration::from_secs(5);

/// Knows which running containers have been without real traffic for longer than their owners want
/// them to run then.
pub trait Traffic: Send + Sync {
    /// Those, at this moment; at most as many as may be asked to sleep at once. Does not block.
    fn idle(&self) -> Vec<ContainerId>;
}

/// The task that pauses idle containers.
pub struct Idler {
    control: Controller,
    traffic: Arc<dyn Traffic>,
    period: Duration,
}

impl std::fmt::Debug for Idler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Idler").field("period", &self.period).finish_non_exhaustive()
    }
}

impl Idler {
    /// Pauses through `control` what `traffic` finds idle.
    pub fn new(control: Controller, traffic: Arc<dyn Traffic>) -> Self {
        Self { control, traffic, period: PERIOD }
    }

    /// The same, looking this often.
    #[must_use]
    pub fn every(self, period: Duration) -> Self {
        Self { control: self.control, traffic: self.traffic, period }
    }

    /// Works until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(self.period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            for container in self.traffic.idle() {
                match self.control.put_to_sleep(container).await {
                    Ok(true) => tracing::info!(%container, "idle; it goes to sleep"),
                    // It is on its way somewhere; the next look tells.
                    Ok(false) => {}
                    Err(error) => {
                        let why = Chain(&error).to_string();
                        tracing::warn!(%container, error = why, "cannot put a container to sleep");
                    }
                }
            }
        }
    }
}
