//! What a connection listens for inside its container.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use gantry_session::protocol::{Target, ToHelper};
use russh::server::Handle;
use tokio::{sync::oneshot, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    audit::Forward,
    conn::Conn,
    forwards::accept,
    link::{Ticket, Told},
    measures::is_sound,
};

/// Listeners of one connection.
const LISTENERS_MAX: usize = 20;
/// How long no listener is tried or waited for after one that took too long, or for which the container did not
/// wake.
const DEAF: Duration = Duration::from_secs(30);

/// The listeners of a connection. Its loop stands still while one of them begins or closes, for a bounded time.
pub(crate) struct Listeners {
    conn: Arc<Conn>,
    all: HashMap<Target, Listener>,
    /// Until when nothing is waited for, because the container did not answer.
    deaf_until: Option<Instant>,
}

/// One that listens, or has listened until `end`.
struct Listener {
    end: CancellationToken,
    /// Whether it has closed in time.
    closed: oneshot::Receiver<bool>,
}

impl Listeners {
    pub(crate) fn new(conn: Arc<Conn>) -> Self {
        Self { conn, all: HashMap::new(), deaf_until: None }
    }

    fn is_deaf(&self) -> bool {
        self.deaf_until.is_some_and(|until| Instant::now() < until)
    }

    /// Listens inside; the port, or `None` if that failed.
    pub(crate) async fn begin(&mut self, at: Target, handle: Handle, user: String) -> Option<u16> {
        // Those that were ended from here, or by their helper.
        self.all.retain(|_, listener| !listener.end.is_cancelled());
        let forwarding = self.conn.may_forward()?;
        if !is_sound(&at)
            || self.all.len() >= LISTENERS_MAX
            || self.all.contains_key(&at)
            || self.is_deaf()
        {
            return None;
        }
        if self.conn.is_asleep() {
            // Clients ask for forwards before they open a channel, which would wake it.
            match forwarding.run_until_cancelled(self.conn.enter()).await? {
                Ok(_link) => {}
                Err(message) => {
                    tracing::debug!(message, "no listener");
                    self.deaf_until = Some(Instant::now() + DEAF);
                    return None;
                }
            }
        }
        let begun = forwarding.run_until_cancelled(ask(&self.conn, at.clone(), user));
        let Ok(begun) = timeout(self.conn.shared.bounds.listen, begun).await else {
            // The connection stands still for one of them, and not for each.
            self.deaf_until = Some(Instant::now() + DEAF);
            return None;
        };
        let (ticket, port) = begun.flatten()?;
        let at = match at {
            Target::Tcp(host, 0) => Target::Tcp(host, port),
            at @ (Target::Tcp(..) | Target::Unix(_)) => at,
        };
        self.conn.forwards(Forward::Out, &at);
        let (end, (tell, closed)) = (forwarding.child_token(), oneshot::channel());
        let serving =
            serve(Arc::clone(&self.conn), ticket, at.clone(), handle, [end.clone(), forwarding]);
        self.conn.spawn(async move {
            // The client may have gone meanwhile.
            tell.send(serving.await).unwrap_or_default();
        });
        // A helper that names a port twice lies: the one that it named first is over.
        if let Some(replaced) = self.all.insert(at, Listener { end, closed }) {
            replaced.end.cancel();
        }
        Some(port)
    }

    /// Ends one, and waits until it has closed, so that its place can be had again at once; `false` if there is none.
    pub(crate) async fn end(&mut self, at: &Target) -> bool {
        let Some(Listener { end, closed }) = self.all.remove(at) else { return false };
        end.cancel();
        if !self.is_deaf() && matches!(closed.await, Ok(false)) {
            self.deaf_until = Some(Instant::now() + DEAF);
        }
        true
    }
}

/// Has the helper listen.
async fn ask(conn: &Conn, at: Target, user: String) -> Option<(Ticket, u16)> {
    let link = conn.enter().await.ok()?;
    let mut ticket = link.begin(|id| ToHelper::Listen { id, at, user }, Vec::new(), None)?;
    match ticket.told().await? {
        Told::Listening(port) => Some((ticket, port)),
        Told::Started
        | Told::Refused(..)
        | Told::Exited(_)
        | Told::Accepted { .. }
        | Told::Closed => None,
    }
}

/// Serves a listener until the first token ends it or its helper goes; what it has accepted, until the second.
/// Whether it has closed in time.
async fn serve(
    conn: Arc<Conn>,
    mut ticket: Ticket,
    at: Target,
    handle: Handle,
    [end, forwarding]: [CancellationToken; 2],
) -> bool {
    let patience = conn.shared.bounds.listen;
    let accepting = accept(conn, &mut ticket, at, handle, forwarding);
    if end.run_until_cancelled(accepting).await.is_some() {
        // Closed by itself, or its helper has gone.
        end.cancel();
        return true;
    }
    ticket.tell(|id| ToHelper::End { id });
    let closing = async {
        while let Some(told) = ticket.told().await {
            match told {
                Told::Closed => return,
                Told::Accepted { id, .. } => ticket.link().leave(id),
                Told::Started | Told::Refused(..) | Told::Exited(_) | Told::Listening(_) => {}
            }
        }
    };
    timeout(patience, closing).await.is_ok()
}
