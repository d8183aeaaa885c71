//! The stream that an HTTP/2 connection is read and written through: a client that floods, or that takes
//! nothing any more, is given up.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    downstream::Downstream,
    flood::FrameCount,
    limits::CutBy,
    watch::{NEVER, Tick, Wait},
    worker::Worker,
};

/// A client's stream, whose frames are counted.
#[derive(Debug)]
pub(crate) struct Gate<S> {
    io: S,
    downstream: Rc<Downstream>,
    worker: Rc<Worker>,
    wait: Wait,
    count: FrameCount,
    /// For what the client does not take, and since when it does not.
    deadline: Tick,
    since: Tick,
    /// Whether the deadline was missed.
    late: bool,
}

impl<S> Gate<S> {
    /// Reads HTTP/2 from `io`.
    pub(crate) fn new(io: S, downstream: Rc<Downstream>, worker: &Rc<Worker>) -> Self {
        let (wait, count) = (worker.watch().wait(None), FrameCount::new(worker.limits()));
        Self {
            io,
            downstream,
            worker: Rc::clone(worker),
            wait,
            count,
            deadline: NEVER,
            since: NEVER,
            late: false,
        }
    }

    /// The client has taken nothing for too long. That is counted once, and only if none of its answers was
    /// given up for the same.
    fn late(&mut self) -> Poll<io::Result<usize>> {
        let is_counted = self.downstream.given_up().is_some_and(|at| at >= self.since);
        if !std::mem::replace(&mut self.late, true) && !is_counted {
            self.worker.metrics().cut(CutBy::SendPause);
        }
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn written(
        &mut self,
        cx: &Context<'_>,
        result: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match result {
            // TLS takes some more into its own buffer while the client takes nothing.
            Poll::Ready(Ok(_))
                if self.deadline != NEVER && self.deadline <= self.wait.watch().now() =>
            {
                self.late()
            }
            Poll::Ready(result) => {
                self.deadline = NEVER;
                if let Ok(octets) = result {
                    self.count.wrote(octets);
                }
                Poll::Ready(result)
            }
            Poll::Pending => {
                if self.deadline == NEVER {
                    self.since = self.wait.watch().now();
                    self.deadline = self.wait.watch().after(self.worker.limits().send_idle);
                }
                self.wait.until(self.deadline);
                if self.wait.poll_over(cx).is_some() { self.late() } else { Poll::Pending }
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gate<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let start = buf.filled().len();
        let polled = Pin::new(&mut this.io).poll_read(cx, buf);
        let octets = buf.filled().get(start..).unwrap_or_default();
        match this.count.read(octets, this.wait.watch().now()) {
            Ok(()) => polled,
            Err(flood) => {
                buf.set_filled(start);
                this.downstream.floods(flood);
                Poll::Ready(Err(io::ErrorKind::InvalidData.into()))
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gate<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.io).poll_write(cx, octets);
        this.written(cx, result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.io).poll_write_vectored(cx, slices);
        this.written(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.io).poll_flush(cx).map_ok(|()| 0);
        this.written(cx, result).map_ok(drop)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
