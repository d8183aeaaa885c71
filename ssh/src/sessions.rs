//! The sessions of containers.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use gantry_model::ContainerId;
use russh::server::{Handle, Session};
use tokio::sync::Notify;

use crate::{
    conn::{Admitted, Conn},
    stream::Together,
};

/// Connections to one container.
const OF_ONE_MAX: usize = 100;

#[derive(Default)]
pub(crate) struct Sessions {
    inner: Mutex<Inner>,
    /// Told whenever the last one has gone.
    none: Notify,
}

#[derive(Default)]
struct Inner {
    all: HashMap<u64, Entry>,
    /// How many connections there are of each, and what they have together.
    containers: HashMap<ContainerId, (usize, Arc<Together>)>,
}

struct Entry {
    conn: Arc<Conn>,
    container: ContainerId,
    handle: Option<Handle>,
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a session, if its container may have another one.
    pub(crate) fn admit(&self, conn: &Arc<Conn>, admitted: &Admitted) -> bool {
        let mut inner = self.lock();
        let container = admitted.container;
        let (connections, together) = inner.containers.entry(container).or_default();
        if *connections >= OF_ONE_MAX {
            return false;
        }
        *connections += 1;
        conn.pause.join(Arc::clone(together));
        inner.all.insert(conn.number, Entry { conn: Arc::clone(conn), container, handle: None });
        true
    }

    /// The session has begun.
    pub(crate) fn begun(&self, conn: &Conn, session: &Session) {
        if let Some(entry) = self.lock().all.get_mut(&conn.number) {
            entry.handle = Some(session.handle());
        }
        conn.is_in.cancel();
        conn.begun(session.remote_sshid());
    }

    pub(crate) fn remove(&self, conn: &Conn) {
        let mut inner = self.lock();
        if let Some(Entry { container, .. }) = inner.all.remove(&conn.number)
            && let Some((connections, _)) = inner.containers.get_mut(&container)
        {
            *connections -= 1;
            if *connections == 0 {
                inner.containers.remove(&container);
            }
        }
        if inner.all.is_empty() {
            self.none.notify_waiters();
        }
    }

    fn list(&self) -> Vec<(Arc<Conn>, Option<Handle>)> {
        let inner = self.lock();
        inner.all.values().map(|entry| (Arc::clone(&entry.conn), entry.handle.clone())).collect()
    }

    pub(crate) fn end_all(&self) {
        for (conn, handle) in self.list() {
            conn.end("the server is stopping", handle);
        }
    }

    pub(crate) async fn all_gone(&self) {
        loop {
            let gone = self.none.notified();
            if self.lock().all.is_empty() {
                return;
            }
            gone.await;
        }
    }

    /// Ends the sessions that are not welcome any more; returns how many.
    pub(crate) fn sweep(&self) -> u64 {
        let mut ended = 0;
        for (conn, handle) in self.list() {
            conn.end_unwanted_forwards();
            if !conn.is_welcome() && conn.end("the container or its key has changed", handle) {
                ended += 1;
            }
        }
        ended
    }
}
