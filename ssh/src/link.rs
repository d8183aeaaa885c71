//! The connection to the helper inside a container.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd as _, OwnedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use gantry_session::{
    protocol::{self, Exit, FromHelper, Id, Reason, ToHelper},
    wire::{Receiver, Wire, WireError},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::{front::Means, stream::Weight};

/// Orders that wait until the helper takes them. One that takes none is given up.
const ORDERS_MAX: usize = 1024;
/// What it may tell of one channel before that is taken.
const TOLD_MAX: usize = 256;

/// What may be open at one helper.
const OPEN_MAX: usize = 1000;
/// What it may tell beyond what is asked for.
const STRANGE_MAX: u64 = 1024;
/// A link that nothing has been open on for so long is ended; helpers end then, too.
const IDLE: Duration = Duration::from_secs(90);
/// The stack of a thread that receives.
const STACK: usize = 128 << 10;

/// What the helper tells of one channel or listener.
#[derive(Debug)]
pub(crate) enum Told {
    Started,
    Refused(Reason, String),
    Exited(Exit),
    Listening(u16),
    Accepted { id: Id, peer: Option<(String, u16)> },
    Closed,
}

/// What the helper has not taken yet, and what it holds meanwhile, whether anybody still wants it or not.
#[derive(Debug)]
struct Order {
    message: ToHelper,
    descriptors: Vec<OwnedFd>,
    _places: Option<Arc<Places>>,
    _weight: Option<Weight>,
}

/// At one helper, and in all.
type Places = [OwnedSemaphorePermit; 2];

/// A connection to a helper. It ends when the helper does, or breaks the protocol.
#[derive(Debug)]
pub(crate) struct Link {
    orders: mpsc::Sender<Order>,
    next: AtomicU64,
    told: Mutex<HashMap<Id, mpsc::Sender<Told>>>,
    /// Places for what may be open at one helper, and in all.
    places: [Arc<Semaphore>; 2],
    /// What the helper may still say of what is not open here.
    allowance: AtomicU64,
    ended: CancellationToken,
}

/// One channel or listener at the helper; dropping it ends that there.
#[derive(Debug)]
pub(crate) struct Ticket {
    link: Arc<Link>,
    id: Id,
    told: mpsc::Receiver<Told>,
    places: Arc<Places>,
}

impl Link {
    /// Takes over a connection, on which nothing has been said yet. What comes on it is received by a thread
    /// of its own, which also closes it.
    pub(crate) fn new(socket: OwnedFd, means: &Means) -> io::Result<Arc<Self>> {
        let receiver = Receiver::new(rustix::io::fcntl_dupfd_cloexec(&socket, 0)?);
        let wire = Wire::new(socket)?;
        let (orders, queue) = mpsc::channel(ORDERS_MAX);
        let ended = means.cut.child_token();
        let link = Arc::new(Self {
            orders,
            next: AtomicU64::new(2),
            told: Mutex::default(),
            places: [Arc::new(Semaphore::new(OPEN_MAX)), Arc::clone(&means.channels)],
            allowance: AtomicU64::new(STRANGE_MAX),
            ended: ended.clone(),
        });
        let (tell, messages) = mpsc::channel(TOLD_MAX);
        let (hand_over, last) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name("gantry-link".to_owned());
        thread.stack_size(STACK).spawn(move || receive(receiver, &tell, &ended, &last))?;
        let sender = Arc::clone(&link);
        means.tasks.spawn(async move {
            sender.ended.run_until_cancelled(sender.send(&wire, queue)).await;
            sender.ended.cancel();
            wire.shut_down();
            // Closed by the thread, and here only if that has gone.
            drop(hand_over.send(wire));
        });
        let listener = Arc::clone(&link);
        means.tasks.spawn(async move {
            let heard = listener.ended.run_until_cancelled(listener.listen(messages)).await;
            if let Some(Err(error)) = heard {
                tracing::warn!(%error, "a session helper broke its protocol");
            }
            listener.ended.cancel();
            listener.told.lock().unwrap_or_else(PoisonError::into_inner).clear();
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

    /// Begins a channel or listener: `order` makes the message of its id, which has this weight as long as it waits.
    /// `None` if too much is open.
    pub(crate) fn begin(
        self: &Arc<Self>,
        order: impl FnOnce(Id) -> ToHelper,
        descriptors: Vec<OwnedFd>,
        weight: Option<Weight>,
    ) -> Option<Ticket> {
        let id = self.next.fetch_add(2, Ordering::Relaxed);
        let ticket = self.ticket(id)?;
        let places = Some(Arc::clone(&ticket.places));
        self.order(Order { message: order(id), descriptors, _places: places, _weight: weight });
        Some(ticket)
    }

    /// Takes a connection that was accepted, if not too much is open.
    pub(crate) fn take(self: &Arc<Self>, id: Id, descriptors: Vec<OwnedFd>) -> Option<Ticket> {
        let ticket = self.ticket(id)?;
        let places = Some(Arc::clone(&ticket.places));
        let message = ToHelper::Take { id };
        self.order(Order { message, descriptors, _places: places, _weight: None });
        Some(ticket)
    }

    /// Leaves a connection that was accepted.
    pub(crate) fn leave(&self, id: Id) {
        self.say(ToHelper::End { id });
    }

    /// Says what is small and brings nothing along.
    fn say(&self, message: ToHelper) {
        self.order(Order { message, descriptors: Vec::new(), _places: None, _weight: None });
    }

    fn ticket(self: &Arc<Self>, id: Id) -> Option<Ticket> {
        let place = |of: &Arc<Semaphore>| Arc::clone(of).try_acquire_owned().ok();
        let [own, all] = &self.places;
        let places = Arc::new([place(own)?, place(all)?]);
        let (sender, told) = mpsc::channel(TOLD_MAX);
        let mut all = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        // With an ended link, the sender is dropped, and the ticket tells nothing.
        if self.is_alive() {
            all.insert(id, sender);
        }
        drop(all);
        Some(Ticket { link: Arc::clone(self), id, told, places })
    }

    fn order(&self, order: Order) {
        // Each order has few answers, the last of which may come when it is not open here any more.
        self.allowance.fetch_add(4, Ordering::Relaxed);
        if self.orders.try_send(order).is_err() && self.is_alive() {
            tracing::warn!("a session helper takes no orders and is given up");
            self.ended.cancel();
        }
    }

    async fn send(&self, wire: &Wire, mut orders: mpsc::Receiver<Order>) {
        while let Some(order) = orders.recv().await {
            let along: Vec<_> = order.descriptors.iter().map(OwnedFd::as_fd).collect();
            match wire.send(&order.message, &along).await {
                Ok(()) => {}
                // That is the client's doing, and none of the others'.
                Err(WireError::Malformed(_)) => self.refuse_long(order.message.id()),
                Err(error) => {
                    tracing::debug!(%error, "a session helper takes no orders any more");
                    return;
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

    async fn listen(&self, mut messages: mpsc::Receiver<FromHelper>) -> Result<(), WireError> {
        match messages.recv().await {
            Some(FromHelper::Ready { version: protocol::VERSION }) => {}
            Some(_) => return Err(WireError::Malformed("its first one is not that it is ready")),
            None => return Ok(()),
        }
        loop {
            let message = match tokio::time::timeout(IDLE, messages.recv()).await {
                Ok(Some(message)) => message,
                Ok(None) => return Ok(()),
                Err(_elapsed) if self.is_idle() => return Ok(()),
                Err(_elapsed) => continue,
            };
            let (id, told) = match message {
                FromHelper::Ready { .. } => {
                    return Err(WireError::Malformed("it is ready more than once"));
                }
                FromHelper::Started { id } => (id, Told::Started),
                FromHelper::Refused { id, reason, message } => (id, Told::Refused(reason, message)),
                FromHelper::Exited { id, exit } => (id, Told::Exited(exit)),
                FromHelper::Listening { id, port } => (id, Told::Listening(port)),
                FromHelper::Accepted { id, listener, peer } => {
                    (listener, Told::Accepted { id, peer })
                }
                FromHelper::Closed { id } => (id, Told::Closed),
            };
            self.pass_on(id, told)?;
        }
    }

    fn is_idle(&self) -> bool {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn pass_on(&self, id: Id, told: Told) -> Result<(), WireError> {
        let all = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sender) = all.get(&id) else {
            drop(all);
            let less = |left: u64| left.checked_sub(1);
            let spent = self.allowance.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
            return match spent {
                Ok(_) => Ok(()),
                Err(_) => Err(WireError::Malformed("it tells of what is not open")),
            };
        };
        match sender.try_send(told) {
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => {
                Err(WireError::Malformed("it tells more than is asked for"))
            }
        }
    }
}

/// Receives until the connection ends or nobody listens, on a thread that may block. The other descriptor of
/// the connection is closed here, too, after which nothing on it is left to anybody else.
fn receive(
    mut receiver: Receiver,
    tell: &mpsc::Sender<FromHelper>,
    end: &CancellationToken,
    last: &std::sync::mpsc::Receiver<Wire>,
) {
    loop {
        match receiver.receive() {
            Ok(message) => {
                if tell.blocking_send(message).is_err() {
                    break;
                }
            }
            Err(WireError::Closed) => break,
            Err(error) => {
                tracing::warn!(%error, "a session helper cannot be understood");
                break;
            }
        }
    }
    end.cancel();
    drop(last.recv());
}

impl Ticket {
    /// Says something about it to the helper.
    pub(crate) fn tell(&self, order: impl FnOnce(Id) -> ToHelper) {
        self.link.say(order(self.id));
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
            self.link.say(ToHelper::End { id: self.id });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        net::{TcpListener, TcpStream},
        time::Instant,
    };

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair, sockopt};
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::stream::Pause;

    fn means() -> Means {
        Means {
            tasks: TaskTracker::new(),
            cut: CancellationToken::new(),
            channels: Arc::new(Semaphore::new(100)),
            held: Arc::default(),
            closed_here: std::sync::atomic::AtomicUsize::new(0),
        }
    }

    fn pair() -> (OwnedFd, OwnedFd) {
        let flags = SocketFlags::CLOEXEC;
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
    }

    /// A connection with data that nobody takes, whose last close waits for that.
    fn lingering() -> (OwnedFd, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (peer, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        while (&stream).write(&[0; 4096]).is_ok() {}
        sockopt::set_socket_linger(&stream, Some(Duration::from_secs(5))).unwrap();
        (stream.into(), peer)
    }

    #[tokio::test]
    async fn descriptors_that_a_container_sends_hold_up_nobody_else() {
        let (ours, theirs) = pair();
        let helper = Wire::new(theirs).unwrap();
        helper.send(&FromHelper::Ready { version: protocol::VERSION }, &[]).await.unwrap();
        let (bad, _peer) = lingering();
        helper.send(&FromHelper::Started { id: 1 }, &[bad.as_fd()]).await.unwrap();
        // From here on the message has the last one.
        drop(bad);
        let means = means();
        let link = Link::new(ours, &means).unwrap();
        let mut longest = Duration::ZERO;
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(500) {
            let before = Instant::now();
            tokio::time::sleep(Duration::from_millis(5)).await;
            longest = longest.max(before.elapsed());
        }
        assert!(longest < Duration::from_secs(2), "{longest:?}");
        assert!(link.is_alive());
        means.cut.cancel();
        means.tasks.close();
        means.tasks.wait().await;
    }

    #[tokio::test]
    async fn a_helper_that_tells_of_what_is_not_open_is_given_up() {
        let (ours, theirs) = pair();
        let means = means();
        let link = Link::new(ours, &means).unwrap();
        let helper = Wire::new(theirs).unwrap();
        helper.send(&FromHelper::Ready { version: protocol::VERSION }, &[]).await.unwrap();
        let mut told = 0;
        while helper.send(&FromHelper::Started { id: 99 }, &[]).await.is_ok() {
            told += 1;
            assert!(told < 100_000, "it listens for ever");
        }
        assert!(told >= STRANGE_MAX, "{told}");
        link.ended.cancelled().await;
    }

    #[tokio::test]
    async fn no_more_than_so_much_is_open_at_one_helper() {
        let (ours, _theirs) = pair();
        let means = means();
        let link = Link::new(ours, &means).unwrap();
        let begin = || link.begin(|id| ToHelper::End { id }, Vec::new(), None);
        let open: Vec<Ticket> = (0..100).map(|_| begin().unwrap()).collect();
        assert!(begin().is_none(), "the places of all are taken");
        drop(open);
        let freed = async {
            while begin().is_none() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), freed).await.unwrap();
    }

    #[tokio::test]
    async fn what_a_helper_does_not_take_keeps_its_place_and_its_weight() {
        const LEN: usize = 100 << 10;
        let (ours, theirs) = pair();
        let means = means();
        let link = Link::new(ours, &means).unwrap();
        let pause = Pause::new(Arc::clone(&means.held));
        let held = || means.held.load(Ordering::Relaxed);
        let order = |id| {
            let at = protocol::Target::Unix(vec![7; LEN]);
            ToHelper::Listen { id, at, user: String::new() }
        };
        let mut begun = 0;
        // Whoever wanted it goes at once.
        while let Some(ticket) = link.begin(order, Vec::new(), Some(pause.weigh(LEN))) {
            drop(ticket);
            begun += 1;
            assert!(begun < 500, "without end");
            tokio::task::yield_now().await;
        }
        assert!(begun >= 100 && held() > 90 * LEN, "{begun} {}", held());
        assert!(link.is_alive());
        let helper = Wire::new(theirs).unwrap();
        let taking = async { while helper.receive::<ToHelper>().await.is_ok() {} };
        let freed = async {
            while means.channels.available_permits() < 100 || held() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let freed = tokio::time::timeout(Duration::from_secs(20), freed);
        tokio::select! {
            () = taking => panic!("it ends"),
            freed = freed => freed.unwrap(),
        }
    }
}
