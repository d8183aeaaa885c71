//! What one client of the live feed is told: a welcome, then what happens, until it may not hear it any more.

use std::{collections::VecDeque, future::pending, time::Duration};

use gantry_control::{Activity, ActivityFeed, Actor};
use gantry_model::UserId;
use serde::Deserialize;
use serde_json::Value;
use socketioxide::{
    SendError, SocketError,
    extract::{SocketRef, TryData},
};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval_at, timeout},
};

use super::{
    Visit,
    codes::{Refusal, Sort, When},
};
use crate::{
    caller::Credential,
    following::{Following, may_follow},
    logs::LOOK,
    streams::Place,
    wire::Frame,
};

/// The name of everything that is said.
const MESSAGE: &str = "message";
/// After so many messages it is waited until they were sent. Fewer than may wait in the socket, which also
/// has to have room for its own.
const WINDOW: usize = 16;
/// How long a client may take to leave once it was told to.
const FAREWELL: Duration = Duration::from_secs(2);
/// What every auth token begins with.
const TOKEN_PREFIX: &str = "hdy_";
/// What may be heard besides.
const ACTIVITY: &str = "activity";

/// How a client proves who it is.
#[derive(Deserialize)]
pub(super) struct Auth {
    token: Option<String>,
}

/// What a client asks to hear besides.
#[derive(Deserialize)]
struct Besides {
    #[serde(rename = "type")]
    what: String,
}

/// Why a client is told nothing more.
enum End {
    /// It was refused when it came.
    Refused(Refusal),
    /// It may not hear it any more.
    Revoked(Refusal),
    /// It is to come again: the store does not answer, or the server stops.
    Away,
    /// It has left.
    Gone,
}

/// Lets a client in and tells it what happens.
pub(super) async fn follow(socket: SocketRef, TryData(auth): TryData<Auth>) {
    let Some(visit) = socket.req_parts().extensions.get::<Visit>().cloned() else { return };
    if visit.asks_first() {
        let left = visit.0.left.clone();
        // It may leave the feed and keep the connection.
        socket.on_disconnect(async move || left.cancel());
        socket.on("subscribe", subscribe);
        socket.on("unsubscribe", unsubscribe);
        let end = match Telling::begin(&socket, &visit, auth.ok().and_then(|it| it.token)).await {
            Ok(telling) => telling.run().await,
            Err(end) => end,
        };
        match &end {
            End::Refused(Refusal { code, message }) => {
                farewell(socket, &visit, &Frame::Error { error: code, message }).await;
            }
            End::Revoked(Refusal { code, message }) => {
                farewell(socket, &visit, &Frame::Revoked { reason: code, message }).await;
            }
            End::Away | End::Gone => {}
        }
    }
    visit.0.ends.cut.cancel();
}

/// Says why nothing more comes; the client leaves then, or is cut.
async fn farewell(socket: SocketRef, visit: &Visit, why: &Frame<'_>) {
    let is_said = socket.emit(MESSAGE, why).is_ok() && socket.disconnect().is_ok();
    if is_said && timeout(FAREWELL, visit.0.ends.gone.cancelled()).await.is_err() {
        tracing::debug!("a client of the live feed did not leave and is cut");
    }
}

async fn subscribe(socket: SocketRef, TryData(besides): TryData<Besides>) {
    wants(&socket, besides.ok(), true);
}

async fn unsubscribe(socket: SocketRef, TryData(besides): TryData<Besides>) {
    wants(&socket, besides.ok(), false);
}

/// Notes whether a client wants to hear of activity. There is nothing else to choose.
fn wants(socket: &SocketRef, besides: Option<Besides>, wanted: bool) {
    if besides.is_some_and(|besides| besides.what == ACTIVITY)
        && let Some(visit) = socket.req_parts().extensions.get::<Visit>()
    {
        visit.0.activity.send_replace(wanted);
    }
}

/// A client that was let in.
struct Telling<'v> {
    socket: &'v SocketRef,
    visit: &'v Visit,
    credential: Credential,
    sort: Sort,
    actor: Actor,
    following: Following,
    /// Whether it wants to hear of activity.
    wanted: watch::Receiver<bool>,
    activity: Option<ActivityFeed>,
    /// What is to be said.
    waiting: VecDeque<Value>,
    /// What was said since it was last waited for.
    said: usize,
    /// Whether it is waited until that was sent.
    holds: bool,
    _place: Place<UserId>,
}

impl<'v> Telling<'v> {
    /// Finds out who the client is.
    async fn begin(
        socket: &'v SocketRef,
        visit: &'v Visit,
        token: Option<String>,
    ) -> Result<Self, End> {
        let front = &visit.0.front;
        let token = token.as_deref().map(|token| token.strip_prefix("Bearer ").unwrap_or(token));
        let is_token = token.is_some_and(|token| token.starts_with(TOKEN_PREFIX));
        let sort = if is_token { Sort::Token } else { Sort::Session };
        let credential = Credential::token(token, visit.0.realm, visit.0.ip);
        let refused =
            |error| Refusal::of(&error, When::First, sort).map_or(End::Away, End::Refused);
        let actor = credential.actor(front).await.map_err(refused)?;
        let begun = Following::begin(front, actor.clone(), None, None).await;
        let following = begun.map_err(refused)?;
        let place = front.event_streams.take(actor.user).map_err(|full| {
            End::Refused(Refusal::new("CONNECTION_LIMIT_EXCEEDED", full.of_account()))
        })?;
        visit.has_opened();
        let wanted = visit.0.activity.subscribe();
        let mut telling = Self {
            socket,
            visit,
            credential,
            sort,
            actor,
            following,
            wanted,
            activity: None,
            waiting: VecDeque::new(),
            said: 0,
            holds: false,
            _place: place,
        };
        telling.say(&Frame::welcome(telling.actor.user, visit.0.realm));
        Ok(telling)
    }

    async fn run(mut self) -> End {
        let (visit, closing) = (self.visit, self.visit.0.front.config.closing.clone());
        let mut looks = interval_at(Instant::now() + LOOK, LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if let Err(end) = self.send() {
                return end;
            }
            let is_free = self.waiting.is_empty();
            tokio::select! {
                // In this order, so that nothing is sent after a pause before it was looked.
                biased;
                () = visit.0.ends.gone.cancelled() => return End::Gone,
                () = visit.0.left.cancelled() => return End::Gone,
                () = closing.cancelled() => return End::Away,
                _ = looks.tick() => if let Err(end) = self.look().await { return end },
                () = visit.0.ends.flushed.notified(), if self.holds => {
                    (self.said, self.holds) = (0, false);
                }
                // Its sender lives as long as the visit.
                Ok(()) = self.wanted.changed(), if is_free => self.choose(),
                entry = logged(&mut self.activity), if is_free => match entry {
                    Some(entry) => self.say(&Frame::activity(&entry)),
                    None => self.activity = None,
                },
                events = self.following.next(), if is_free => match events {
                    Some(events) => events.iter().for_each(|event| self.say(&Frame::event(event))),
                    None => return End::Away,
                },
            }
        }
    }

    fn say(&mut self, frame: &Frame<'_>) {
        match serde_json::to_value(frame) {
            Ok(frame) => self.waiting.push_back(frame),
            // Frames have string keys and finite numbers.
            Err(error) => tracing::error!(target: "api", %error, "a frame has no JSON form"),
        }
    }

    /// Hands what is to be said over, as far as there is room.
    fn send(&mut self) -> Result<(), End> {
        while !self.holds
            && let Some(frame) = self.waiting.pop_front()
        {
            match self.socket.emit(MESSAGE, &frame) {
                Ok(()) => {
                    self.said += 1;
                    self.holds = self.said >= WINDOW;
                }
                Err(SendError::Socket(SocketError::InternalChannelFull)) => {
                    self.waiting.push_front(frame);
                    self.holds = true;
                }
                Err(SendError::Socket(SocketError::Closed)) => return Err(End::Gone),
                Err(SendError::Serialize(error)) => {
                    tracing::error!(target: "api", %error, "a frame cannot be written");
                }
            }
        }
        Ok(())
    }

    /// Looks whether the client may still hear what it hears.
    async fn look(&mut self) -> Result<(), End> {
        let front = &self.visit.0.front;
        match may_follow(front, &self.credential, None).await {
            Ok(actor) => {
                self.actor = actor;
                // What has come on the one that it has is not to be lost.
                if self.activity.is_some() && front.control.activity_feed(&self.actor).is_err() {
                    self.activity = None;
                }
                Ok(())
            }
            Err(error) => {
                let refusal = Refusal::of(&error, When::Later, self.sort);
                Err(refusal.map_or(End::Away, End::Revoked))
            }
        }
    }

    /// Begins or ends to hear of activity, as the client wants.
    fn choose(&mut self) {
        self.activity = None;
        if !*self.wanted.borrow_and_update() {
            return;
        }
        match self.visit.0.front.control.activity_feed(&self.actor) {
            Ok(activity) => {
                self.activity = Some(activity);
                self.say(&Frame::ActivitySubscribed);
            }
            Err(error) => {
                let message = error.to_string();
                self.say(&Frame::Error { error: "SUBSCRIPTION_NOT_ALLOWED", message: &message });
            }
        }
    }
}

/// What is written next; nothing ever comes where nobody listens.
async fn logged(activity: &mut Option<ActivityFeed>) -> Option<Activity> {
    match activity {
        Some(activity) => activity.next().await,
        None => pending().await,
    }
}
