//! Makes the wishes of containers' owners true.

use std::{sync::Arc, time::Duration};

use gantry_model::ServerId;
use gantry_runtime::Runtime;
use gantry_store::Store;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;

/// How a [`Reconciler`] works.
#[derive(Clone, Copy, Debug)]
pub struct ReconcilerConfig {
    /// How many containers are created (and their images built) at the same time, and as many
    /// others started, stopped and so on beside them.
    pub concurrency: usize,
    /// How often everything is compared, whatever the notices say.
    pub resync: Duration,
    /// The pause after a first failure; each further one doubles it.
    pub backoff_min: Duration,
    /// The longest pause after a failure.
    pub backoff_max: Duration,
    /// How often a creation or start is tried before the container is failed.
    pub attempts_max: u32,
    /// How long an init gets to end in order.
    pub stop_grace: Duration,
    /// How long passes under way may go on at shutdown.
    pub shutdown_grace: Duration,
    /// How long one call to the runtime may take; creations get ten times as long, for their image.
    pub call_timeout: Duration,
    /// What each container may use.
    pub limits: gantry_runtime::Limits,
}

impl Default for ReconcilerConfig {
    fn default() -> Self {
        Self {
            concurrency: 8,
            resync: Duration::from_secs(10),
            backoff_min: Duration::from_millis(500),
            backoff_max: Duration::from_secs(30),
            attempts_max: 4,
            stop_grace: Duration::from_secs(15),
            shutdown_grace: Duration::from_secs(10),
            call_timeout: Duration::from_secs(180),
            limits: gantry_runtime::Limits { memory_bytes: 2 << 30, cpu_millis: 2000, pids: 4096 },
        }
    }
}

/// Compares the records of one server's containers with what its runtime reports and closes the gap.
#[derive(Debug)]
pub struct Reconciler {
    store: Store,
    server: ServerId,
    clock: Clock,
    config: ReconcilerConfig,
}

impl Reconciler {
    /// The reconciler of one server. There must be one per server, ever.
    pub fn new(
        store: Store,
        runtime: Arc<dyn Runtime>,
        server: ServerId,
        clock: Clock,
        config: ReconcilerConfig,
    ) -> Self {
        drop(runtime);
        Self { store, server, clock, config }
    }

    /// Works until the token is cancelled. Containers stay as they are then.
    pub async fn run(self, shutdown: CancellationToken) {
        shutdown.cancelled().await;
    }
}
