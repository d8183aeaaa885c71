//! A client's connection, which can be cut and be made to pause.
//!
//! The library's own way to end a session goes through a queue that is not read while a key exchange runs or
//! a window is used up; whoever must end a session at once needs another one.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Until when a connection is not read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pause(Arc<Mutex<Option<Instant>>>);

impl Pause {
    /// Reads nothing more for so long.
    pub(crate) fn rest(&self, time: Duration) {
        let until = Instant::now() + time;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }

    fn until(&self) -> Option<Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
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
        if let Some(until) = me.pause.until() {
            me.rest = Some(Box::pin(tokio::time::sleep_until(until)));
        }
        if let Some(rest) = &mut me.rest {
            if rest.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            me.rest = None;
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
