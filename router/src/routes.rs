//! The handle through which everybody reads the routes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use gantry_store::Revision;
use tokio::{sync::watch, time::Instant};

use crate::RouteTable;

/// A handle to the published route table; cheap to clone, all clones read one table.
#[derive(Clone, Debug)]
pub struct Routes(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    table: ArcSwap<RouteTable>,
    published: watch::Sender<Revision>,
    /// Why the store could not be read at the last try.
    error: ArcSwapOption<String>,
    /// When the store last said that the table is up to date, in milliseconds after `start`.
    confirmed_ms: AtomicU64,
    start: Instant,
}

impl Routes {
    /// A handle to `table`, which is fresh.
    pub fn new(table: RouteTable) -> Self {
        let (published, _) = watch::channel(table.revision());
        Self(Arc::new(Shared {
            table: ArcSwap::from_pointee(table),
            published,
            error: ArcSwapOption::empty(),
            confirmed_ms: AtomicU64::new(0),
            start: Instant::now(),
        }))
    }

    /// The table. Look up, copy the route, and drop this before waiting for anything.
    pub fn current(&self) -> Guard<Arc<RouteTable>> {
        self.0.table.load()
    }

    /// Wakes after every publication. Whoever holds connections open looks their routes up again
    /// then, and cuts those whose generation is over.
    pub fn published(&self) -> watch::Receiver<Revision> {
        self.0.published.subscribe()
    }

    /// How long ago the table was last known to be up to date.
    pub fn age(&self) -> Duration {
        let confirmed = Duration::from_millis(self.0.confirmed_ms.load(Ordering::Relaxed));
        self.0.start.elapsed().saturating_sub(confirmed)
    }

    /// Why the store could not be read at the last try; nothing if it could.
    pub fn last_error(&self) -> Option<Arc<String>> {
        self.0.error.load_full()
    }

    /// Replaces the table.
    pub(crate) fn replace(&self, table: RouteTable) {
        self.0.table.store(Arc::new(table));
    }

    /// The table is what the store holds; tells whoever waits for it if it has changed.
    pub(crate) fn confirm(&self) {
        let elapsed = u64::try_from(self.0.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.confirmed_ms.store(elapsed, Ordering::Relaxed);
        if self.0.error.load().is_some() {
            self.0.error.store(None);
        }
    }

    /// Tells whoever waits that the table has changed.
    pub(crate) fn publish(&self) {
        self.0.published.send_replace(self.current().revision());
    }

    /// The store could not be read; the table stays as it is.
    pub(crate) fn fail(&self, why: String) {
        self.0.error.store(Some(Arc::new(why)));
    }
}
