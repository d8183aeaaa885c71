//! The connection to the helper inside a container.

use std::{
    collections::HashMap,
    os::fd::{AsFd as _, OwnedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use gantry_model::ContainerId;
use gantry_session::{
    protocol::{self, Exit, FromHelper, Id, Reason, ToHelper},
    wire::{Wire, WireError},
};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::doors::{NoWay, Ways};

/// Orders that wait until the helper takes them. One that takes none is given up.
const ORDERS_MAX: usize = 1024;
/// What it may tell of one channel before that is taken.
const TOLD_MAX: usize = 256;

/// What the helper tells of one channel or listener.
#[derive(Debug)]
pub(crate) enum Told {
    Started,
    Refused(Reason, String),
    Exited(Exit),
    Listening(u16),
    Accepted { id: Id, peer: Option<(String, u16)> },
}

type Order = (ToHelper, Vec<OwnedFd>);

/// A connection to a helper. It ends when the helper does, or breaks the protocol.
#[derive(Debug)]
pub(crate) struct Link {
    orders: mpsc::Sender<Order>,
    next: AtomicU64,
    told: Mutex<HashMap<Id, mpsc::Sender<Told>>>,
    ended: CancellationToken,
}

/// One channel or listener at the helper; dropping it ends that there.
#[derive(Debug)]
pub(crate) struct Ticket {
    link: Arc<Link>,
    id: Id,
    told: mpsc::Receiver<Told>,
}

impl Link {
    /// Takes over a connection, on which nothing has been said yet; what carries it are two of `tasks`.
    pub(crate) fn new(socket: OwnedFd, tasks: &TaskTracker) -> std::io::Result<Arc<Self>> {
        let wire = Arc::new(Wire::new(socket)?);
        let (orders, queue) = mpsc::channel(ORDERS_MAX);
        let ended = CancellationToken::new();
        let link = Arc::new(Self {
            orders,
            next: AtomicU64::new(2),
            told: Mutex::default(),
            ended: ended.clone(),
        });
        let sending = Arc::clone(&link).send(Arc::clone(&wire), queue);
        tasks.spawn(ended.clone().run_until_cancelled_owned(sending));
        let reader = Arc::clone(&link);
        tasks.spawn(async move {
            let end = ended.run_until_cancelled(reader.listen(&wire)).await;
            if let Some(Err(error)) = end
                && !matches!(error, WireError::Closed)
            {
                tracing::warn!(%error, "a session helper broke its protocol");
            }
            reader.ended.cancel();
            reader.told.lock().unwrap_or_else(PoisonError::into_inner).clear();
        });
        Ok(link)
    }

    /// Ends it; the helper hangs up whatever it has.
    pub(crate) fn end(&self) {
        self.ended.cancel();
    }

    /// Whether it can be used.
    pub(crate) fn is_alive(&self) -> bool {
        !self.ended.is_cancelled()
    }

    /// Begins a channel or listener: `order` makes the message of its id.
    pub(crate) fn begin(
        self: &Arc<Self>,
        order: impl FnOnce(Id) -> ToHelper,
        descriptors: Vec<OwnedFd>,
    ) -> Ticket {
        let id = self.next.fetch_add(2, Ordering::Relaxed);
        let ticket = self.ticket(id);
        self.order(order(id), descriptors);
        ticket
    }

    /// Takes a connection that was accepted.
    pub(crate) fn take(self: &Arc<Self>, id: Id, stream: OwnedFd) -> Ticket {
        let ticket = self.ticket(id);
        self.order(ToHelper::Take { id }, vec![stream]);
        ticket
    }

    /// Leaves a connection that was accepted.
    pub(crate) fn leave(&self, id: Id) {
        self.order(ToHelper::End { id }, Vec::new());
    }

    fn ticket(self: &Arc<Self>, id: Id) -> Ticket {
        let (sender, told) = mpsc::channel(TOLD_MAX);
        let mut all = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        // With an ended link, the sender is dropped, and the ticket tells nothing.
        if self.is_alive() {
            all.insert(id, sender);
        }
        drop(all);
        Ticket { link: Arc::clone(self), id, told }
    }

    fn order(&self, message: ToHelper, descriptors: Vec<OwnedFd>) {
        if self.orders.try_send((message, descriptors)).is_err() && self.is_alive() {
            tracing::warn!("a session helper takes no orders and is given up");
            self.ended.cancel();
        }
    }

    async fn send(self: Arc<Self>, wire: Arc<Wire>, mut orders: mpsc::Receiver<Order>) {
        while let Some((message, descriptors)) = orders.recv().await {
            let along: Vec<_> = descriptors.iter().map(OwnedFd::as_fd).collect();
            match wire.send(&message, &along).await {
                Ok(()) => {}
                // That is the client's doing, and none of the others'.
                Err(WireError::Malformed(_)) => self.refuse_long(message.id()),
                Err(error) => {
                    tracing::debug!(%error, "a session helper takes no orders any more");
                    return self.ended.cancel();
                }
            }
        }
    }

    /// Refuses what is too long for a message, as the kernel would refuse most of it.
    fn refuse_long(&self, id: Id) {
        let told = Told::Refused(Reason::Failed, "Argument list too long".to_owned());
        let all = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever is gone or has been told too much needs no answer.
        if let Some(sender) = all.get(&id)
            && sender.try_send(told).is_err()
        {
            tracing::debug!("an order that is too long is left out");
        }
    }

    async fn listen(&self, wire: &Wire) -> Result<(), WireError> {
        let (first, _): (FromHelper, _) = wire.receive().await?;
        if first != (FromHelper::Ready { version: protocol::VERSION }) {
            return Err(WireError::Malformed("its first one is not that it is ready"));
        }
        loop {
            // Descriptors that came along are closed: none are expected.
            let (message, _) = wire.receive().await?;
            let (id, told) = match message {
                FromHelper::Ready { .. } => continue,
                FromHelper::Started { id } => (id, Told::Started),
                FromHelper::Refused { id, reason, message } => (id, Told::Refused(reason, message)),
                FromHelper::Exited { id, exit } => (id, Told::Exited(exit)),
                FromHelper::Listening { id, port } => (id, Told::Listening(port)),
                FromHelper::Accepted { id, listener, peer } => {
                    (listener, Told::Accepted { id, peer })
                }
            };
            let all = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            // Of what has ended here, the last words may still come.
            if let Some(sender) = all.get(&id)
                && sender
                    .try_send(told)
                    .is_err_and(|error| matches!(error, mpsc::error::TrySendError::Full(_)))
            {
                return Err(WireError::Malformed("it tells more than is asked for"));
            }
        }
    }
}

impl Ticket {
    /// Says something about it to the helper.
    pub(crate) fn tell(&self, order: impl FnOnce(Id) -> ToHelper) {
        self.link.order(order(self.id), Vec::new());
    }

    /// The link that it belongs to.
    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// The next thing told; `None` when the helper has gone.
    pub(crate) async fn told(&mut self) -> Option<Told> {
        self.told.recv().await
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.link.told.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
        if self.link.is_alive() {
            self.link.order(ToHelper::End { id: self.id }, Vec::new());
        }
    }
}

/// The links to the helpers of containers, each made when it is first needed.
#[derive(Debug, Default)]
pub(crate) struct Links(Mutex<HashMap<ContainerId, Arc<Place>>>);

type Place = tokio::sync::Mutex<Option<Arc<Link>>>;

impl Links {
    /// The link to a container's helper; whoever comes while it is being made waits for that.
    pub(crate) async fn get(
        &self,
        container: ContainerId,
        ways: &dyn Ways,
        tasks: &TaskTracker,
    ) -> Result<Arc<Link>, NoWay> {
        let place = {
            let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Those of containers that nobody is in any more.
            places.retain(|_, place| {
                Arc::strong_count(place) > 1
                    || place
                        .try_lock()
                        .map_or(true, |link| link.as_ref().is_some_and(|link| link.is_alive()))
            });
            Arc::clone(places.entry(container).or_default())
        };
        let mut link = place.lock().await;
        if let Some(link) = &*link
            && link.is_alive()
        {
            return Ok(Arc::clone(link));
        }
        let socket = ways.open(container).await?;
        let fresh = Link::new(socket, tasks).map_err(|error| {
            tracing::error!(%container, %error, "its session helper cannot be spoken to");
            NoWay::Failed
        })?;
        *link = Some(Arc::clone(&fresh));
        Ok(fresh)
    }

    /// Ends all of them.
    pub(crate) fn end(&self) {
        let places = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for place in places.into_values() {
            // One that is being made is for a session that has been cut.
            if let Ok(Some(link)) = place.try_lock().map(|mut link| link.take()) {
                link.end();
            }
        }
    }
}
