//! A client's connection: what its callbacks and its channels share.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use gantry_model::{ContainerId, ssh::KeyFingerprint};
use gantry_session::protocol::Target;
use russh::{ChannelId, Disconnect, server::Handle};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::{
    audit::{Forward, Forwards},
    doors::{Door, DoorState, Visit, Visitor},
    flow::{Flow, Overrun},
    front::Shared,
    inlet::Inlet,
    link::Link,
    pulse::Pulse,
    stream::Pause,
};

/// How long the farewell of a session that is ended may take.
const FAREWELL: Duration = Duration::from_millis(500);

/// Channels that are opened to a client at the same time.
const PLACES: usize = 100;
/// Channels of one connection.
const CHANNELS_MAX: usize = 100;
/// Channels that may have been closed from here first in any case, when those of all connections of the container
/// are so many. Of each, the library keeps about 4 KiB until the connection ends.
const CLOSED_ANYWAY: usize = 256;
const CLOSED_OF_CONTAINER: usize = 20_000;
/// The same of all containers together.
const CLOSED_OF_ALL: usize = 100_000;
/// How long the news of a container that was woken may take.
const KNOWN: Duration = Duration::from_secs(10);

fn gone() -> String {
    "the container is gone".to_owned()
}

/// Who has logged in.
#[derive(Clone, Debug)]
pub(crate) struct Admitted {
    pub(crate) container: ContainerId,
    pub(crate) key: KeyFingerprint,
    /// The account to be asked for inside.
    pub(crate) user: String,
}

/// The most characters of a login name that are told to others.
const USER_SHOWN: usize = 64;

impl Admitted {
    /// The beginning of the login name, which is as long as the client wants.
    pub(crate) fn shown_user(&self) -> String {
        self.user.chars().take(USER_SHOWN).collect()
    }
}

/// A connection.
pub(crate) struct Conn {
    /// Of no other connection of this process.
    pub(crate) number: u64,
    pub(crate) shared: Arc<Shared>,
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
    pub(crate) began: Instant,
    /// Ends everything of it, at once.
    pub(crate) cut: CancellationToken,
    pub(crate) pause: Pause,
    /// Cancelled when the client has logged in.
    pub(crate) is_in: CancellationToken,
    pub(crate) admitted: OnceLock<Admitted>,
    /// The start of the container that it has entered, once it has.
    entered: OnceLock<u64>,
    pub(crate) received: AtomicU64,
    pub(crate) sent: AtomicU64,
    pub(crate) opened: AtomicU64,
    /// Once it has logged in.
    pulse: OnceLock<Pulse>,
    /// Ends what is forwarded at present; another one comes after it.
    forwarding: Mutex<CancellationToken>,
    /// Keys that are right and were not let in, as many as may be tried.
    refused: Mutex<HashSet<KeyFingerprint>>,
    /// Addresses inside that have been told of, as forwards one way or the other.
    forwards: Mutex<Forwards>,
    /// For channels that are opened from here.
    places: Arc<Semaphore>,
    state: Mutex<State>,
    /// Channels that were closed from here first.
    closed_here: AtomicUsize,
    /// Told whenever the client has confirmed a channel.
    confirmed: Notify,
    why: OnceLock<&'static str>,
}

struct State {
    flow: Flow,
    inlets: HashMap<ChannelId, Lane>,
    /// Those of closed channels of which something still goes on.
    leftovers: Vec<Weak<Inlet>>,
    /// Those that were opened from here and that the client has confirmed, until whoever opened them looks.
    confirmed: HashMap<ChannelId, Lane>,
}

/// A channel's way in.
#[derive(Clone)]
pub(crate) struct Lane {
    pub(crate) inlet: Arc<Inlet>,
    /// Cancelled when the client closes the channel.
    pub(crate) closed: CancellationToken,
}

impl Drop for Conn {
    fn drop(&mut self) {
        let closed = self.closed_here.load(Ordering::Relaxed);
        self.shared.means.closed_here.fetch_sub(closed, Ordering::Relaxed);
        if let Some(together) = self.pause.of_container() {
            together.closed_here.fetch_sub(closed, Ordering::Relaxed);
        }
    }
}

impl Conn {
    pub(crate) fn new(shared: Arc<Shared>, peer: SocketAddr, local: SocketAddr) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let cut = shared.means.cut.child_token();
        Arc::new(Self {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            is_in: CancellationToken::new(),
            forwarding: Mutex::new(cut.child_token()),
            cut,
            pause: Pause::new(Arc::clone(&shared.means.held)),
            shared,
            peer,
            local,
            began: Instant::now(),
            admitted: OnceLock::new(),
            entered: OnceLock::new(),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            opened: AtomicU64::new(0),
            pulse: OnceLock::new(),
            refused: Mutex::default(),
            forwards: Mutex::default(),
            places: Arc::new(Semaphore::new(PLACES)),
            state: Mutex::new(State {
                flow: Flow::new(),
                inlets: HashMap::new(),
                leftovers: Vec::new(),
                confirmed: HashMap::new(),
            }),
            closed_here: AtomicUsize::new(0),
            confirmed: Notify::new(),
            why: OnceLock::new(),
        })
    }

    /// A place for a channel that is opened to the client; it is kept until that has ended.
    pub(crate) fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    /// Runs something of this connection, until it is cut.
    pub(crate) fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) {
        self.shared.means.tasks.spawn(self.cut.clone().run_until_cancelled_owned(task));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The way into a channel, which begins now if nobody has asked for it yet.
    pub(crate) fn lane(&self, channel: ChannelId) -> Lane {
        let mut state = self.state();
        let State { flow, inlets, .. } = &mut *state;
        let begin = || {
            let inlet = Inlet::new(self.pause.clone());
            flow.open(channel.into(), inlet.held(), Instant::now());
            self.opened.fetch_add(1, Ordering::Relaxed);
            Lane { inlet, closed: self.cut.child_token() }
        };
        inlets.entry(channel).or_insert_with(begin).clone()
    }

    /// The client has confirmed a channel, as it says. `false` if it has said so too often.
    pub(crate) fn confirm(&self, channel: ChannelId) -> bool {
        // Before its first data can come.
        let lane = self.lane(channel);
        let mut state = self.state();
        state.confirmed.insert(channel, lane);
        let is_likely = state.confirmed.len() <= PLACES;
        drop(state);
        self.confirmed.notify_waiters();
        is_likely
    }

    /// The way into a channel that was opened from here and that the client confirms at this moment. It may have
    /// closed it since.
    pub(crate) async fn confirmed(&self, channel: ChannelId) -> Lane {
        loop {
            let confirmed = self.confirmed.notified();
            if let Some(lane) = self.state().confirmed.remove(&channel) {
                return lane;
            }
            confirmed.await;
        }
    }

    /// Whether a channel is open.
    pub(crate) fn has_lane(&self, channel: ChannelId) -> bool {
        self.state().inlets.contains_key(&channel)
    }

    /// How many channels there are, with those that are closed and of which something still goes on.
    fn lanes(&self) -> usize {
        let mut state = self.state();
        state.leftovers.retain(|inlet| inlet.strong_count() > 0);
        state.inlets.len() + state.leftovers.len()
    }

    /// Data have come on a channel.
    pub(crate) fn received(&self, channel: ChannelId, data: &[u8]) -> Result<(), Overrun> {
        let mut state = self.state();
        let pause = state.flow.received(channel.into(), data.len(), Instant::now())?;
        let lane = state.inlets.get(&channel).cloned();
        drop(state);
        if !pause.is_zero() {
            self.pause.rest(pause);
        }
        if let Some(lane) = lane {
            lane.inlet.push(data);
        }
        self.received.fetch_add(data.len() as u64, Ordering::Relaxed);
        if let Some(pulse) = self.pulse.get() {
            pulse.typed();
        }
        Ok(())
    }

    /// Data go to the client.
    pub(crate) fn said(&self, octets: usize) {
        self.sent.fetch_add(octets as u64, Ordering::Relaxed);
        if let Some(pulse) = self.pulse.get() {
            pulse.said(octets);
        }
    }

    /// Data have come on a channel that nobody wants.
    pub(crate) fn wasted(&self, channel: ChannelId, len: usize) -> Result<(), Overrun> {
        let pause = self.state().flow.received(channel.into(), len, Instant::now())?;
        if !pause.is_zero() {
            self.pause.rest(pause);
        }
        Ok(())
    }

    /// The library has renewed a channel's window; returns the next target.
    pub(crate) fn renewed(&self, channel: ChannelId) -> u32 {
        self.state().flow.renewed(channel.into(), Instant::now())
    }

    /// The client sends nothing more on a channel.
    pub(crate) fn ended(&self, channel: ChannelId) {
        let mut state = self.state();
        state.flow.close(channel.into());
        if let Some(lane) = state.inlets.get(&channel) {
            lane.inlet.end();
        }
    }

    /// A channel is closed, by whichever side. `false` if it was before.
    pub(crate) fn closed(&self, channel: ChannelId) -> bool {
        let mut state = self.state();
        state.flow.close(channel.into());
        let Some(lane) = state.inlets.remove(&channel) else { return false };
        lane.inlet.end();
        lane.closed.cancel();
        state.leftovers.retain(|inlet| inlet.strong_count() > 0);
        state.leftovers.push(Arc::downgrade(&lane.inlet));
        true
    }

    /// A channel is about to be closed from here, if the client has not closed it.
    pub(crate) fn closes_here(&self, channel: ChannelId) {
        if self.state().inlets.contains_key(&channel) {
            self.closed_here.fetch_add(1, Ordering::Relaxed);
            self.shared.means.closed_here.fetch_add(1, Ordering::Relaxed);
            if let Some(together) = self.pause.of_container() {
                together.closed_here.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Whether another channel may be opened.
    pub(crate) fn has_room(&self) -> bool {
        self.lanes() < CHANNELS_MAX && !self.is_worn()
    }

    /// Whether it has had so many channels that another connection should be made.
    fn is_worn(&self) -> bool {
        let closed = self.closed_here.load(Ordering::Relaxed);
        let together = self.pause.of_container();
        let of_container = together.map_or(0, |all| all.closed_here.load(Ordering::Relaxed));
        let of_all = self.shared.means.closed_here.load(Ordering::Relaxed);
        let are_many = of_container >= CLOSED_OF_CONTAINER || of_all >= CLOSED_OF_ALL;
        closed >= self.shared.bounds.closed_channels || (closed >= CLOSED_ANYWAY && are_many)
    }

    /// Ends it as soon as it is good for nothing any more.
    pub(crate) fn end_if_worn(self: &Arc<Self>, handle: Handle) {
        if self.is_worn() && self.lanes() == 0 {
            self.end(
                "it has had as many channels as a connection may have; connect again",
                Some(handle),
            );
        }
    }

    /// What ends a forward that begins now; nothing if its container's owner wants none.
    pub(crate) fn may_forward(&self) -> Option<CancellationToken> {
        // Taken before the look: who switches them off later ends this one.
        let end = self.forwarding.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let door = self.admitted.get().and_then(|admitted| self.door(admitted).ok())?;
        door.forwards.then_some(end)
    }

    /// Ends what is forwarded, if that is not wanted any more.
    pub(crate) fn end_unwanted_forwards(&self) {
        if self.may_forward().is_none() {
            let mut end = self.forwarding.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *end, self.cut.child_token()).cancel();
        }
    }

    /// The link to the helper of its container; otherwise what to tell the user.
    pub(crate) async fn enter(&self) -> Result<Arc<Link>, String> {
        let admitted = self.admitted.get().ok_or_else(gone)?;
        let mut door = self.door(admitted)?;
        let told =
            |what: &dyn std::fmt::Display| format!("container {} {what}", admitted.container);
        if door.state == DoorState::Asleep {
            let woken = self.shared.ways.wake(door.container).await;
            woken.map_err(|no_way| told(&no_way))?;
            door = self.awake(admitted).await?;
        }
        match door.state {
            DoorState::Open => {}
            DoorState::Asleep => return Err(told(&"does not wake")),
            DoorState::Shut(why) => return Err(told(&why)),
        }
        if *self.entered.get_or_init(|| door.generation) != door.generation {
            return Err(gone());
        }
        self.shared
            .links
            .get(door.container, door.generation, &*self.shared.ways, &self.shared.means)
            .await
            .map_err(|no| told(&no))
    }

    /// Whether its container sleeps and is woken by whoever enters it.
    pub(crate) fn is_asleep(&self) -> bool {
        let door = self.admitted.get().and_then(|admitted| self.door(admitted).ok());
        door.is_some_and(|door| door.state == DoorState::Asleep)
    }

    fn door(&self, admitted: &Admitted) -> Result<Door, String> {
        let doors = &self.shared.doors;
        let door = doors.find(&admitted.key).filter(|door| door.container == admitted.container);
        door.filter(|_| doors.admits(&admitted.key, self.peer.ip())).ok_or_else(gone)
    }

    /// The door of a container that was woken, once it is known to be open.
    async fn awake(&self, admitted: &Admitted) -> Result<Door, String> {
        let mut changes = self.shared.doors.changes();
        let opened = async {
            loop {
                changes.mark_unchanged();
                let door = self.door(admitted)?;
                if door.state == DoorState::Open || changes.changed().await.is_err() {
                    return Ok(door);
                }
            }
        };
        match tokio::time::timeout(KNOWN, opened).await {
            Ok(opened) => opened,
            Err(_elapsed) => self.door(admitted),
        }
    }

    /// Whether it may go on: its key opens the same container to its address, and what it has entered runs on.
    pub(crate) fn is_welcome(&self) -> bool {
        let Some(admitted) = self.admitted.get() else { return true };
        let Ok(door) = self.door(admitted) else { return false };
        let entered = self.entered.get();
        entered.is_none_or(|entered| *entered == door.generation && door.state == DoorState::Open)
    }

    /// Ends it: a word to the client, if that can be said, and then the cut. `false` if that was done before.
    pub(crate) fn end(self: &Arc<Self>, why: &'static str, handle: Option<Handle>) -> bool {
        if self.why.set(why).is_err() {
            return false;
        }
        let conn = Arc::clone(self);
        self.spawn(async move {
            if let Some(handle) = handle {
                let farewell =
                    handle.disconnect(Disconnect::ByApplication, why.to_owned(), String::new());
                // The word waits in a queue; it goes out before the connection closes, or not at all.
                let said = tokio::time::timeout(FAREWELL, async {
                    if farewell.await.is_ok() {
                        conn.cut.cancelled().await;
                    }
                });
                if said.await.is_err() {
                    tracing::debug!(peer = %conn.peer, "ended without farewell");
                }
            }
            conn.cut.cancel();
        });
        true
    }

    /// Cuts it, for this reason.
    pub(crate) fn cut_for(&self, why: &'static str) {
        // The first reason stays.
        if self.why.set(why).is_err() {
            tracing::trace!(why, "it is being ended already");
        }
        self.cut.cancel();
    }

    /// Whether a key is not let in for the first time on this connection.
    pub(crate) fn is_first_refusal(&self, key: KeyFingerprint) -> bool {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).insert(key)
    }

    /// Who has come by it.
    pub(crate) fn visitor(&self, admitted: &Admitted) -> Visitor {
        Visitor {
            connection: self.number,
            container: admitted.container,
            key: admitted.key,
            user: admitted.shown_user(),
            peer: self.peer,
        }
    }

    /// Tells that its client, which calls itself so, has logged in.
    pub(crate) fn begun(&self, software: &[u8]) {
        let Some(admitted) = self.admitted.get() else { return };
        self.pulse.get_or_init(|| self.shared.pulse(admitted.container));
        tracing::info!(
            target: "audit",
            client = %self.peer,
            container = %admitted.container,
            user = %admitted.shown_user().escape_debug(),
            key = %admitted.key,
            connection = self.number,
            // In quotes: what the client says of itself could look like other fields.
            software = &*String::from_utf8_lossy(software),
            "ssh begun"
        );
        self.shared.tell(self, admitted, Visit::Begun);
    }

    /// Tells of an address inside that is connected to or listened at, once, and of so many only.
    pub(crate) fn forwards(&self, forward: Forward, at: &Target) {
        let Some(admitted) = self.admitted.get() else { return };
        let mut told = self.forwards.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(at) = told.first(forward, at) else { return };
        tracing::info!(
            target: "audit",
            client = %self.peer,
            container = %admitted.container,
            key = %admitted.key,
            connection = self.number,
            forward = forward.name(),
            at,
            "ssh forwards"
        );
    }

    /// Tells that it has ended, with an error or not.
    pub(crate) fn over(&self, error: Option<&str>) {
        let lasted = self.began.elapsed();
        let seconds = lasted.as_secs_f64();
        let why = self.why.get().copied();
        let admitted = self.admitted.get().filter(|_| self.is_in.is_cancelled());
        let Some(admitted) = admitted else {
            tracing::info!(target: "audit", client = %self.peer, seconds, why, error, "ssh without login");
            return;
        };
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (channels, received, sent) =
            (count(&self.opened), count(&self.received), count(&self.sent));
        tracing::info!(
            target: "audit",
            client = %self.peer,
            container = %admitted.container,
            user = %admitted.shown_user().escape_debug(),
            key = %admitted.key,
            connection = self.number,
            channels,
            received,
            sent,
            seconds,
            why,
            error,
            "ssh ended"
        );
        let visit = Visit::Ended { lasted, received, sent, channels, why };
        self.shared.tell(self, admitted, visit);
    }
}
