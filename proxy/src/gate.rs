//! The stream that an HTTP/1 connection is read through: strict framing, deadlines, no read-ahead.
//!
//! hyper parses what this gate lets through. The gate holds a head back until it is complete and
//! unambiguous ([`crate::framing`]), so that hyper never sees anything else. In the place of a
//! refused head it passes a tiny request of its own and leaves a note in [`Downstream`]; the pipeline
//! finds the note and answers, so that refusals get the same pages, log lines and metrics as
//! everything. After a request that asks to leave HTTP nothing passes until the answer decides.
//!
//! All deadlines of the connection are kept here, in one slot of the worker's watch.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    config::Limits,
    downstream::Downstream,
    flood::FrameCount,
    framing::{ChunkScan, Framing, HeadLimits, HeadScan, Refusal},
    watch::{NEVER, Patience, Tick, Wait},
};

/// The request that stands for a refused one.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n";

/// The octets kept for a tunnel that is not open yet.
const HELD_MAX: usize = 16 * 1024;

/// A client's stream, read strictly.
#[derive(Debug)]
pub(crate) struct Gate<S> {
    io: S,
    downstream: Rc<Downstream>,
    limits: Rc<Limits>,
    wait: Rc<Wait>,
    state: State,
    /// Octets read but not passed; the first `ready` of them may pass.
    held: BytesMut,
    ready: usize,
    waiting: Waiting,
    read_deadline: Tick,
    write_deadline: Tick,
    /// For the answer that a client did not take at once: the request, and what ends with the
    /// container that answers.
    stalled: Option<(u64, Wait)>,
    /// For the present body.
    patience: Patience,
}

#[derive(Debug)]
enum State {
    Head(HeadScan),
    Length(u64),
    Chunked(ChunkScan),
    /// The client asked to leave HTTP; the answer decides.
    Upgrade,
    /// A head was refused; the stand-in is still to be passed.
    Refusing,
    /// The stand-in was passed; nothing more is.
    Refused,
    /// A body broke its framing.
    Broken,
    /// Not HTTP/1: everything passes, and is counted.
    Frames(FrameCount),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    Nothing,
    Request,
    Head,
    Body,
}

impl<S> Gate<S> {
    /// Reads HTTP/1 from `io`.
    pub(crate) fn strict(
        io: S,
        downstream: Rc<Downstream>,
        limits: Rc<Limits>,
        wait: Wait,
    ) -> Self {
        let wait = Rc::new(wait);
        downstream.has_gate(Rc::clone(&wait), limits.idle);
        Self::new(io, downstream, limits, wait, State::Head(HeadScan::default()))
    }

    /// Reads HTTP/2 from `io`: a client that floods, or takes nothing any more, is given up.
    pub(crate) fn frames(
        io: S,
        downstream: Rc<Downstream>,
        limits: Rc<Limits>,
        wait: Wait,
    ) -> Self {
        let count = FrameCount::new(&limits);
        Self::new(io, downstream, limits, Rc::new(wait), State::Frames(count))
    }

    fn new(
        io: S,
        downstream: Rc<Downstream>,
        limits: Rc<Limits>,
        wait: Rc<Wait>,
        state: State,
    ) -> Self {
        let patience = Patience::new(limits.body_idle, limits.body_rate_min);
        Self {
            io,
            downstream,
            limits,
            wait,
            state,
            held: BytesMut::new(),
            ready: 0,
            waiting: Waiting::Nothing,
            read_deadline: NEVER,
            write_deadline: NEVER,
            stalled: None,
            patience,
        }
    }

    /// The stream and what was read from it but not passed.
    pub(crate) fn into_parts(self) -> (S, BytesMut) {
        (self.io, self.held)
    }

    /// Whether octets of the client may still come that nobody will read. A connection that is closed
    /// upon them resets, and the client may lose the answer.
    pub(crate) fn is_unread(&self) -> bool {
        match self.state {
            State::Head(_) => !self.held.is_empty(),
            State::Length(_)
            | State::Chunked(_)
            | State::Upgrade
            | State::Refusing
            | State::Refused
            | State::Broken => true,
            State::Frames(_) => false,
        }
    }

    /// Walks over `octets`, which follow what has passed; says how many of them may pass.
    fn advance(&mut self, octets: &[u8]) -> usize {
        let limits = HeadLimits {
            bytes_max: self.limits.head_bytes_max,
            fields_max: self.limits.fields_max,
        };
        let mut pass = 0;
        while let Some(rest) = octets.get(pass..).filter(|rest| !rest.is_empty()) {
            match &mut self.state {
                State::Head(scan) => match scan.scan(rest, limits) {
                    Ok(Some((len, framing))) => {
                        pass += len;
                        self.head_passed(framing);
                    }
                    Ok(None) => break,
                    Err(refusal) => {
                        self.refuse(refusal);
                        break;
                    }
                },
                State::Length(left) => {
                    let here = u64::try_from(rest.len()).unwrap_or(u64::MAX).min(*left);
                    *left -= here;
                    let ended = *left == 0;
                    self.body_passed(here, ended);
                    pass += usize::try_from(here).unwrap_or(rest.len());
                }
                State::Chunked(scan) => match scan.scan(rest) {
                    Ok((len, ended)) => {
                        self.body_passed(u64::try_from(len).unwrap_or(u64::MAX), ended);
                        pass += len;
                    }
                    Err(_) => self.state = State::Broken,
                },
                State::Upgrade
                | State::Refusing
                | State::Refused
                | State::Broken
                | State::Frames(_) => {
                    break;
                }
            }
        }
        pass
    }

    fn head_passed(&mut self, framing: Framing) {
        self.downstream.passed_head();
        self.downstream.holds(framing == Framing::Upgrade);
        self.waiting = Waiting::Nothing;
        self.patience = Patience::new(self.limits.body_idle, self.limits.body_rate_min);
        self.state = match framing {
            Framing::Nothing => State::Head(HeadScan::default()),
            Framing::Length(left) => State::Length(left),
            Framing::Chunked => State::Chunked(ChunkScan::default()),
            Framing::Upgrade => State::Upgrade,
        };
    }

    fn body_passed(&mut self, octets: u64, ended: bool) {
        self.waiting = Waiting::Nothing;
        self.patience.earn(self.wait.watch(), octets);
        if ended {
            self.state = State::Head(HeadScan::default());
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        let number = self.downstream.passed_head();
        self.downstream.refuse(number, refusal);
        self.state = State::Refusing;
        self.waiting = Waiting::Nothing;
    }

    /// What the client is waited for now, with the deadline that belongs to it.
    fn begin_waiting(&mut self) {
        let waiting = match self.state {
            State::Head(_) if !self.held.is_empty() => Waiting::Head,
            State::Head(_) if self.downstream.is_quiet() => Waiting::Request,
            State::Length(_) | State::Chunked(_) => Waiting::Body,
            State::Head(_)
            | State::Upgrade
            | State::Refusing
            | State::Refused
            | State::Broken
            | State::Frames(_) => Waiting::Nothing,
        };
        if waiting == self.waiting {
            return;
        }
        let watch = self.wait.watch();
        let first = self.downstream.passed() == 0;
        self.read_deadline = match waiting {
            Waiting::Nothing => NEVER,
            Waiting::Request if first => watch.after(self.limits.head_timeout),
            // The first head's time began with the connection.
            Waiting::Head if first && self.waiting == Waiting::Request => self.read_deadline,
            Waiting::Request => self.downstream.idle_deadline(),
            Waiting::Head => watch.after(self.limits.head_timeout),
            Waiting::Body => self.patience.wait(watch).unwrap_or(self.read_deadline),
        };
        self.waiting = waiting;
    }

    /// Registers for the nearer deadline; says whether the given one has passed.
    fn is_over(&self, cx: &Context<'_>, deadline: Tick) -> bool {
        self.wait.until(self.read_deadline.min(self.write_deadline));
        self.wait.poll_over(cx).is_some() && deadline <= self.wait.watch().now()
    }
}

impl<S> Gate<S> {
    /// Whether the container whose answer the client does not take has stopped. hyper does not look
    /// at the body while the client takes nothing, so that the body cannot see it.
    fn is_cut(&mut self, cx: &Context<'_>) -> bool {
        let Some(origin) = self.downstream.sending() else { return false };
        let request = self.downstream.started();
        match &self.stalled {
            Some((of, wait)) if *of == request => wait.poll_over(cx).is_some(),
            Some(_) | None => {
                let wait = self.wait.watch().wait(Some(origin));
                let cut = wait.poll_over(cx).is_some();
                self.stalled = Some((request, wait));
                cut
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Gate<S> {
    /// Nothing came. Says what to do about it: wait, end, fail, or (nothing) look again.
    fn poll_late(&mut self, cx: &Context<'_>) -> Option<Poll<io::Result<()>>> {
        self.begin_waiting();
        if !self.is_over(cx, self.read_deadline) {
            return Some(Poll::Pending);
        }
        match self.waiting {
            Waiting::Nothing => Some(Poll::Pending),
            Waiting::Request => Some(Poll::Ready(Ok(()))),
            Waiting::Head => {
                self.refuse(Refusal::HeadTimeout);
                None
            }
            Waiting::Body => {
                self.state = State::Broken;
                Some(Poll::Ready(Err(io::ErrorKind::TimedOut.into())))
            }
        }
    }

    /// What the state alone decides before anything is read.
    fn poll_state(
        &mut self,
        cx: &Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Option<Poll<io::Result<()>>> {
        if let State::Refusing = self.state {
            self.held.clear();
            self.held.extend_from_slice(STAND_IN);
            self.ready = self.held.len();
            self.state = State::Refused;
        }
        if self.ready > 0 {
            let len = self.ready.min(buf.remaining());
            buf.put_slice(self.held.get(..len).unwrap_or_default());
            self.held.advance(len);
            self.ready -= len;
            return Some(Poll::Ready(Ok(())));
        }
        match self.state {
            State::Refused => Some(Poll::Pending),
            State::Broken => Some(Poll::Ready(Err(io::ErrorKind::InvalidData.into()))),
            State::Upgrade if self.held.len() >= HELD_MAX => {
                // The answer wakes us.
                self.is_over(cx, NEVER);
                Some(Poll::Pending)
            }
            State::Upgrade
            | State::Head(_)
            | State::Length(_)
            | State::Chunked(_)
            | State::Refusing
            | State::Frames(_) => None,
        }
    }

    /// Takes what was just read into `buf` after `start`; leaves there what may pass.
    fn take(&mut self, buf: &mut ReadBuf<'_>, start: usize) {
        if self.held.is_empty() {
            let fresh = buf.filled().get(start..).unwrap_or_default();
            let pass = self.advance(fresh);
            if let Some(rest) = fresh.get(pass..).filter(|rest| !rest.is_empty()) {
                self.held.extend_from_slice(rest);
                buf.set_filled(start + pass);
            }
        } else {
            self.held.extend_from_slice(buf.filled().get(start..).unwrap_or_default());
            buf.set_filled(start);
            self.release();
        }
    }

    /// Lets the held octets pass as far as they may.
    fn release(&mut self) {
        let held = std::mem::take(&mut self.held);
        self.ready = self.advance(&held);
        self.held = held;
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gate<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let start = buf.filled().len();
        if let State::Frames(count) = &mut this.state {
            let polled = Pin::new(&mut this.io).poll_read(cx, buf);
            let octets = buf.filled().get(start..).unwrap_or_default();
            return match count.read(octets, this.wait.watch().now()) {
                Ok(()) => polled,
                Err(flood) => {
                    buf.set_filled(start);
                    this.downstream.floods(flood);
                    Poll::Ready(Err(io::ErrorKind::InvalidData.into()))
                }
            };
        }
        loop {
            // The wish to leave HTTP was not granted: HTTP goes on.
            if matches!(this.state, State::Upgrade)
                && this.downstream.is_quiet()
                && !this.downstream.is_tunnelled()
            {
                this.downstream.holds(false);
                this.state = State::Head(HeadScan::default());
                this.release();
            }
            if let Some(decided) = this.poll_state(cx, buf) {
                return decided;
            }
            match Pin::new(&mut this.io).poll_read(cx, buf) {
                Poll::Ready(Ok(())) if buf.filled().len() == start => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => match this.poll_late(cx) {
                    Some(decided) => return decided,
                    None => continue,
                },
            }
            this.take(buf, start);
            if buf.filled().len() > start {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Gate<S> {
    fn written(
        &mut self,
        cx: &Context<'_>,
        result: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match result {
            // TLS takes some more into its own buffer while the client takes nothing.
            Poll::Ready(Ok(_))
                if self.write_deadline != NEVER
                    && self.write_deadline <= self.wait.watch().now() =>
            {
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            Poll::Ready(result) => {
                self.write_deadline = NEVER;
                if let (State::Frames(count), Ok(octets)) = (&mut self.state, &result) {
                    count.wrote(*octets);
                }
                Poll::Ready(result)
            }
            Poll::Pending => {
                if self.write_deadline == NEVER {
                    self.write_deadline = self.wait.watch().after(self.limits.send_idle);
                }
                if self.is_over(cx, self.write_deadline) || self.is_cut(cx) {
                    Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
                } else {
                    Poll::Pending
                }
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Gate<S> {
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
