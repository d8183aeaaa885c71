//! A client's connection, which can be cut and be made to pause.
//!
//! The library's own way to end a session goes through a queue that is not read while a key exchange runs or
//! a window is used up; whoever must end a session at once needs another one.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
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
/// and what it may hold in any case, when all together hold so much.
const OF_ONE_ANYWAY: usize = 1 << 20;
const OF_ALL_MAX: usize = 1 << 30;
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
    /// and all of them.
    all: Arc<AtomicUsize>,
}

impl Pause {
    /// Of a connection of those that hold `all`.
    pub(crate) fn new(all: Arc<AtomicUsize>) -> Self {
        Self(Arc::new(Brake { until: Mutex::default(), held: AtomicUsize::new(0), all }))
    }

    /// So much more is held.
    pub(crate) fn hold(&self, len: usize) {
        self.0.held.fetch_add(len, Ordering::Relaxed);
        self.0.all.fetch_add(len, Ordering::Relaxed);
    }

    /// So much has gone.
    pub(crate) fn release(&self, len: usize) {
        self.0.held.fetch_sub(len, Ordering::Relaxed);
        self.0.all.fetch_sub(len, Ordering::Relaxed);
    }

    fn is_full(&self) -> bool {
        let held = self.0.held.load(Ordering::Relaxed);
        let all = self.0.all.load(Ordering::Relaxed);
        held > OF_ONE_MAX || (all > OF_ALL_MAX && held > OF_ONE_ANYWAY)
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
