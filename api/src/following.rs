//! What happens, as it happens, for whoever is told of it: by server-sent events or by Socket.IO.

use gantry_control::{Actor, Error, Event, event_number};
use gantry_model::RealmId;
use tokio::sync::watch;

use crate::{Front, caller::Credential};

/// How many events are read at once.
const BATCH: u32 = 100;

/// One reader of what happens.
pub(crate) struct Following {
    front: Front,
    actor: Actor,
    realm: Option<RealmId>,
    /// The number of the last event that was told or passed over.
    seq: u64,
    head: watch::Receiver<u64>,
}

impl Following {
    /// Follows what happens after the event with this number, or from now on; refuses whoever may not read.
    pub(crate) async fn begin(
        front: &Front,
        actor: Actor,
        realm: Option<RealmId>,
        after: Option<u64>,
    ) -> Result<Self, Error> {
        let head = front.control.event_head();
        let seq = after.unwrap_or_else(|| *head.borrow());
        front.control.events_after(&actor, realm, seq, 1).await?;
        Ok(Self { front: front.clone(), actor, realm, seq, head })
    }

    /// Where it is.
    pub(crate) fn seq(&self) -> u64 {
        self.seq
    }

    /// The next events, as soon as there are any; nothing when the store does not answer, so that the
    /// reader comes again. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Vec<Event>> {
        loop {
            // Before the reading: what happens after it is told by the next one.
            let newest = *self.head.borrow_and_update();
            let Self { front, actor, realm, seq, .. } = &*self;
            let events = front.control.events_after(actor, *realm, *seq, BATCH).await;
            let events =
                events.inspect_err(|error| tracing::debug!(%error, "a stream ends")).ok()?;
            if let Some(last) = events.last() {
                self.seq = event_number(last.id);
                return Some(events);
            }
            self.seq = self.seq.max(newest);
            // It fails when the store was closed.
            self.head.changed().await.ok()?;
        }
    }
}

/// Who a reader is now, if it may still read; why not.
pub(crate) async fn may_follow(
    front: &Front,
    credential: &Credential,
    realm: Option<RealmId>,
) -> Result<Actor, Error> {
    let actor = credential.actor(front).await?;
    front.control.events_after(&actor, realm, u64::MAX, 1).await?;
    Ok(actor)
}
