//! A client's connection, which can be cut and be made to pause.
//!
//! The library's own way to end a session goes through a queue that is not read while a key exchange runs or
//! a window is used up; whoever must end a session at once needs another one.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// The most that one connection holds of what came and was not used, in octets, before it is not read any more;
const OF_ONE_MAX: usize = 64 << 20;
/// and what it may hold in any case, when those of its container together hold so much, or all.
const OF_ONE_ANYWAY: usize = 1 << 20;
const OF_CONTAINER_MAX: usize = 256 << 20;
const OF_ALL_MAX: usize = 1 << 30;
/// What the connections of a container have together.
#[derive(Debug, Default)]
pub(crate) struct Together {
    /// Octets that came and were not used.
    held: AtomicUsize,
    /// Channels that were closed from here first, of which the library keeps something.
    pub(crate) closed_here: AtomicUsize,
}

/// How often it is looked whether that has gone on.
const LOOK: Duration = Duration::from_millis(20);

/// When a connection is not read: for a moment, or because it holds too much.
#[derive(Clone, Debug)]
pub(crate) struct Pause(Arc<Brake>);

#[derive(Debug)]
struct Brake {
    until: Mutex<Option<Instant>>,
    /// What this connection holds,
    held: AtomicUsize,
    /// those of its container, once that is known and before there is any,
    of_container: OnceLock<Arc<Together>>,
    /// and all of them.
    all: Arc<AtomicUsize>,
}

impl Pause {
    /// Of a connection of those that hold `all`.
    pub(crate) fn new(all: Arc<AtomicUsize>) -> Self {
        let (until, held, of_container) = (Mutex::default(), AtomicUsize::new(0), OnceLock::new());
        Self(Arc::new(Brake { until, held, of_container, all }))
    }

    /// What the connections of its container have together.
    pub(crate) fn of_container(&self) -> Option<&Arc<Together>> {
        self.0.of_container.get()
    }

    /// It has a container. What comes from now on counts for that, too; nothing has come before.
    pub(crate) fn join(&self, of_container: Arc<Together>) {
        self.0.of_container.get_or_init(|| of_container);
    }

    fn counters(&self) -> impl Iterator<Item = &AtomicUsize> {
        let Brake { held, of_container, all, .. } = &*self.0;
        [Some(held), of_container.get().map(|of| &of.held), Some(&**all)].into_iter().flatten()
    }

    /// So much more is held.
    pub(crate) fn hold(&self, len: usize) {
        for held in self.counters() {
            held.fetch_add(len, Ordering::Relaxed);
        }
    }

    /// So much has gone.
    pub(crate) fn release(&self, len: usize) {
        for held in self.counters() {
            held.fetch_sub(len, Ordering::Relaxed);
        }
    }

    /// The same for as long as something waits elsewhere than in a channel.
    pub(crate) fn weigh(&self, len: usize) -> Weight {
        self.hold(len);
        Weight { pause: self.clone(), len }
    }

    fn is_full(&self) -> bool {
        let held = self.0.held.load(Ordering::Relaxed);
        let is_too_much = |held: &AtomicUsize, max| held.load(Ordering::Relaxed) > max;
        let is_short = || {
            is_too_much(&self.0.all, OF_ALL_MAX)
                || self.of_container().is_some_and(|of| is_too_much(&of.held, OF_CONTAINER_MAX))
        };
        held > OF_ONE_MAX || (held > OF_ONE_ANYWAY && is_short())
    }

    /// Reads nothing more for so long.
    pub(crate) fn rest(&self, time: Duration) {
        let until = Instant::now() + time;
        *self.0.until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }

    fn until(&self) -> Option<Instant> {
        let wanted = self.0.until.lock().unwrap_or_else(PoisonError::into_inner).take();
        if self.is_full() { Some(Instant::now() + LOOK) } else { wanted }
    }
}

/// So many octets of something that waits, which count for its connection until this is dropped.
#[derive(Debug)]
pub(crate) struct Weight {
    pause: Pause,
    len: usize,
}

impl Drop for Weight {
    fn drop(&mut self) {
        self.pause.release(self.len);
    }
}

/// The connection. After the cut, reads and writes fail, whoever waits for them included.
pub(crate) struct Cuttable {
    stream: TcpStream,
    reading: Pin<Box<WaitForCancellationFutureOwned>>,
    writing: Pin<Box<WaitForCancellationFutureOwned>>,
    pause: Pause,
    rest: Option<Pin<Box<Sleep>>>,
}

impl Cuttable {
    pub(crate) fn new(stream: TcpStream, cut: &CancellationToken, pause: Pause) -> Self {
        let waits = || Box::pin(cut.clone().cancelled_owned());
        Self { stream, reading: waits(), writing: waits(), pause, rest: None }
    }

    fn check_writing(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.writing.as_mut().poll(cx) {
            Poll::Ready(()) => Err(cut()),
            Poll::Pending => Ok(()),
        }
    }
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the session was ended")
}

impl AsyncRead for Cuttable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let me = &mut *self;
        if me.reading.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(cut()));
        }
        loop {
            if let Some(rest) = &mut me.rest {
                ready!(rest.as_mut().poll(cx));
                me.rest = None;
            }
            let Some(until) = me.pause.until() else { break };
            me.rest = Some(Box::pin(tokio::time::sleep_until(until)));
        }
        Pin::new(&mut me.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Cuttable {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check_writing(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_writing(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_writing(cx)?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
