//! What Incus tells about containers that end. A stream of its events, and a look at all of them
//! whenever the stream begins anew, because what happened between is not told.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::StreamExt as _;
use gantry_model::ContainerId;
use tokio::sync::oneshot;
use tokio_tungstenite::tungstenite::Message;

use super::{
    client::Socket,
    instance,
    lifecycle::Inner,
    wire::{Event, Lifecycle},
};
use crate::{Error, Result, State};

/// The pauses between attempts to reach Incus: the first, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// How long the first attempt may take.
const FIRST_TIMEOUT: Duration = Duration::from_secs(30);

/// The containers that are known to run.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<BTreeSet<ContainerId>>);

impl Known {
    /// One runs.
    pub(super) fn runs(&self, id: ContainerId) {
        self.lock().insert(id);
    }

    /// One does not run any more.
    pub(super) fn ended(&self, id: ContainerId) {
        self.lock().remove(&id);
    }

    /// Only these run; returns those that were known to and do not.
    fn only(&self, running: BTreeSet<ContainerId>) -> Vec<ContainerId> {
        let mut known = self.lock();
        let ended = known.difference(&running).copied().collect();
        *known = running;
        ended
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<ContainerId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Begins to listen, and returns once the stream has begun.
pub(super) async fn watch(inner: &Arc<Inner>) -> Result<()> {
    const WHAT: &str = "listening to Incus";
    let (begun, first) = oneshot::channel();
    let listener = Arc::clone(inner);
    inner.tasks.spawn(async move {
        let shutdown = listener.shutdown.clone();
        shutdown.run_until_cancelled(listen(&listener, begun)).await;
    });
    match tokio::time::timeout(FIRST_TIMEOUT, first).await {
        Ok(begun) => begun.map_err(|error| Error::failed(WHAT, error)),
        Err(error) => Err(Error::failed(WHAT, error)),
    }
}

async fn listen(inner: &Arc<Inner>, begun: oneshot::Sender<()>) {
    let mut begun = Some(begun);
    let mut pause = PAUSE.0;
    while !inner.shutdown.is_cancelled() {
        match inner.client.open("/1.0/events?type=lifecycle").await {
            Ok(socket) => {
                if look(inner).await {
                    pause = PAUSE.0;
                    if let Some(Err(())) = begun.take().map(|begun| begun.send(())) {
                        tracing::debug!("nobody waits for the stream of events");
                    }
                    follow(inner, socket).await;
                    tracing::warn!("Incus tells nothing any more; trying again");
                }
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "cannot listen to Incus; trying again");
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// Looks at all containers, and tells of those that have ended since the last time.
async fn look(inner: &Arc<Inner>) -> bool {
    let list = match inner.list().await {
        Ok(list) => list,
        Err(error) => {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(error, "cannot look at the containers");
            return false;
        }
    };
    let alive = |state| matches!(state, State::Running | State::Paused);
    let running = list.iter().filter(|seen| alive(seen.state)).map(|seen| seen.id).collect();
    for id in inner.known.only(running) {
        tell(inner, id);
    }
    true
}

async fn follow(inner: &Arc<Inner>, mut socket: Socket) {
    while let Some(message) = socket.next().await {
        let text = match message {
            Ok(Message::Text(text)) => text,
            Ok(Message::Close(_)) => return,
            Ok(_) => continue,
            Err(error) => {
                tracing::debug!(%error, "the stream of events broke");
                return;
            }
        };
        let Some((action, id)) = parse(&text) else { continue };
        match action.as_str() {
            "instance-started" => inner.known.runs(id),
            // Its link was made anew, by Incus.
            "instance-restarted" => seal(inner, id).await,
            "instance-stopped" | "instance-shutdown" | "instance-deleted" => {
                inner.known.ended(id);
                tell(inner, id);
            }
            _ => {}
        }
    }
}

async fn seal(inner: &Arc<Inner>, id: ContainerId) {
    let Some(address) = inner.network.address(id) else { return };
    if let Err(error) = inner.network.seal(address).await {
        tracing::warn!(%id, %error, "the port of a container that restarted itself stays open");
    }
}

/// What happened to which container.
fn parse(text: &str) -> Option<(String, ContainerId)> {
    let event: Event = serde_json::from_str(text).ok()?;
    if event.kind != "lifecycle" {
        return None;
    }
    let happened: Lifecycle = serde_json::from_value(event.metadata).ok()?;
    let source = happened.source.split('?').next()?;
    let id = instance::id(source.strip_prefix("/1.0/instances/")?)?;
    Some((happened.action, id))
}

fn tell(inner: &Inner, id: ContainerId) {
    if inner.exits.send(id).is_err() {
        tracing::trace!(%id, "nobody listens for exits");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_names_one_of_our_containers_or_nothing() {
        let id = ContainerId::from_bytes([1; 12]);
        let text = |source: &str| {
            format!(
                r#"{{"type":"lifecycle","project":"p","metadata":{{"action":"instance-shutdown","source":"{source}"}}}}"#
            )
        };
        let ours = text(&format!("/1.0/instances/g-{id}?project=p"));
        assert_eq!(parse(&ours), Some(("instance-shutdown".to_owned(), id)));
        assert_eq!(parse(&text("/1.0/instances/web?project=p")), None);
        assert_eq!(parse(&text("/1.0/images/0011")), None);
        assert_eq!(parse("{}"), None);
    }

    #[test]
    fn what_ended_unseen_is_told_once() {
        let (known, ids) = (Known::default(), [1, 2].map(|n| ContainerId::from_bytes([n; 12])));
        for id in ids {
            known.runs(id);
        }
        assert_eq!(known.only([ids[1]].into()), [ids[0]]);
        assert_eq!(known.only([ids[1]].into()), []);
    }
}
