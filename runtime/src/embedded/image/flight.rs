//! One build per key at a time within this process.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::{Rootfs, build::Failure};

/// How a build ended; all who wait for it get the same.
pub(super) type Outcome = Result<Rootfs, Failure>;

type Pending = watch::Receiver<Option<Outcome>>;

/// The builds under way. They run as tasks of their own, because those who wait may give up.
#[derive(Clone, Debug, Default)]
pub(super) struct Flights {
    pending: Arc<Mutex<HashMap<String, Pending>>>,
    tasks: TaskTracker,
}

impl Flights {
    /// Waits for the build of `key`, starting `build` when there is none. Cancel-safe.
    pub(super) async fn join(
        &self,
        key: &str,
        build: impl Future<Output = Outcome> + Send + 'static,
    ) -> Outcome {
        let mut outcome = self.pending_or_start(key, build);
        match outcome.wait_for(Option::is_some).await.map(|value| value.clone()) {
            Ok(Some(outcome)) => outcome,
            Ok(None) | Err(_) => Err(Failure::lost()),
        }
    }

    fn pending_or_start(
        &self,
        key: &str,
        build: impl Future<Output = Outcome> + Send + 'static,
    ) -> Pending {
        let mut pending = self.lock();
        // A closed channel is what a task leaves that did not come to its end.
        if let Some(outcome) = pending.get(key).filter(|outcome| outcome.has_changed().is_ok()) {
            return outcome.clone();
        }
        let (sender, receiver) = watch::channel(None);
        pending.insert(key.to_owned(), receiver.clone());
        drop(pending);
        let (flights, key) = (self.clone(), key.to_owned());
        self.tasks.spawn(async move {
            let outcome = build.await;
            flights.lock().remove(&key);
            // The receivers may all be gone: then nobody wants to know.
            drop(sender.send_replace(Some(outcome)));
        });
        receiver
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Pending>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
