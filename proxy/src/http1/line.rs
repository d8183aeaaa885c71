//! The client's side of one connection: what was read and not taken yet, and the next head.
//!
//! A connection that waits for a request holds next to nothing. It reads into the worker's buffer,
//! and keeps octets of its own only while a head is incomplete or a client sends ahead.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use tokio_util::io::poll_read_buf;

use crate::{
    downstream::Downstream,
    framing::{Framing, HeadLimits, HeadScan, Refusal},
    http1::{
        head::{self, Head},
        io::ClientIo,
    },
    interim::Interims,
    limits::CutBy,
    watch::{Tick, Wait},
    worker::Worker,
};

/// The octets that a client may send ahead while its request is answered.
const AHEAD_MAX: usize = 16 * 1024;
/// The octets of a body that are read at once, at most.
const BODY_READ: usize = 32 * 1024;

/// One connection.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) worker: Rc<Worker>,
    pub(crate) downstream: Rc<Downstream>,
    /// For one request after the other.
    pub(crate) interims: Rc<Interims>,
    /// Whether the task is woken by the next interim answer.
    pub(crate) listens: bool,
    pub(crate) io: ClientIo,
    /// What was read and not taken.
    pub(crate) held: BytesMut,
    /// Whether the client sends nothing more.
    pub(crate) ended: bool,
    pub(crate) wait: Wait,
    scan: HeadScan,
    /// For the next head.
    deadline: Tick,
    /// Whether its time runs already.
    begun: bool,
}

/// What comes next from a client.
#[derive(Debug)]
pub(crate) enum Next {
    Request(Box<Head>),
    Refused(Refusal),
    End,
}

/// The client has left.
#[derive(Debug)]
pub(crate) struct Gone;

impl Line {
    /// A connection whose first head is due.
    pub(crate) fn new(worker: &Rc<Worker>, downstream: &Rc<Downstream>, io: ClientIo) -> Self {
        Self {
            worker: Rc::clone(worker),
            downstream: Rc::clone(downstream),
            interims: Rc::default(),
            listens: false,
            io,
            held: BytesMut::new(),
            ended: false,
            wait: worker.watch().wait(None),
            scan: HeadScan::default(),
            deadline: worker.watch().after(worker.limits().head_timeout),
            // The first head's time begins with the connection.
            begun: true,
        }
    }

    /// A request was answered, and the next one may come.
    pub(crate) fn rest(&mut self) {
        if self.held.is_empty() {
            self.held = BytesMut::new();
        }
        self.scan = HeadScan::default();
        self.deadline = self.worker.watch().after(self.worker.limits().idle);
        self.begun = false;
    }

    /// Waits for the next request.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        if let Some(next) = self.look() {
            return Poll::Ready(next);
        }
        loop {
            if self.ended || (self.held.is_empty() && self.worker.ends_idle()) {
                return Poll::Ready(Next::End);
            }
            let worker = Rc::clone(&self.worker);
            let mut scratch = worker.scratch();
            match self.io.poll_some(cx, &mut scratch) {
                Poll::Ready(Ok(0) | Err(_)) => self.ended = true,
                Poll::Ready(Ok(count)) => {
                    let octets = scratch.get(..count).unwrap_or_default();
                    let next = if self.held.is_empty() {
                        self.take(octets)
                    } else {
                        self.held.extend_from_slice(octets);
                        self.look()
                    };
                    if let Some(next) = next {
                        return Poll::Ready(next);
                    }
                }
                Poll::Pending => return self.poll_late(cx),
            }
        }
    }

    /// Nothing came.
    fn poll_late(&mut self, cx: &Context<'_>) -> Poll<Next> {
        if !self.begun && !self.held.is_empty() {
            self.begun = true;
            self.deadline = self.worker.watch().after(self.worker.limits().head_timeout);
        }
        self.wait.until(self.deadline);
        match self.wait.poll_over(cx) {
            None => Poll::Pending,
            // Idle between two requests, or never asked for anything, as browsers that connect ahead.
            Some(_) if self.held.is_empty() => Poll::Ready(Next::End),
            Some(_) => {
                self.worker.metrics().cut(CutBy::HeadTimeout);
                Poll::Ready(Next::Refused(Refusal::HeadTimeout))
            }
        }
    }

    fn limits(&self) -> HeadLimits {
        let limits = self.worker.limits();
        HeadLimits { bytes_max: limits.head_bytes_max, fields_max: limits.fields_max }
    }

    /// Takes the head that `octets` begin with, and holds the rest. It is whole as a rule.
    fn take(&mut self, octets: &[u8]) -> Option<Next> {
        let worker = Rc::clone(&self.worker);
        let mut fields = worker.fields();
        fields.clear();
        let scanned = self.scan.scan_fields(octets, self.limits(), &mut |at| fields.push(at));
        let (head, rest) = match scanned {
            Ok(Some((len, framing))) => (Some((len, framing)), octets.get(len..)),
            Ok(None) => (None, Some(octets)),
            Err(refusal) => return Some(Next::Refused(refusal)),
        };
        if let Some(rest) = rest.filter(|rest| !rest.is_empty()) {
            self.held.extend_from_slice(rest);
        }
        let (len, framing) = head?;
        let head = Bytes::copy_from_slice(octets.get(..len).unwrap_or_default());
        Some(built(head::build(&head, &fields, framing)))
    }

    /// Takes the head that the held octets begin with, if it is whole by now.
    fn look(&mut self) -> Option<Next> {
        if self.held.is_empty() {
            return None;
        }
        match self.scan.scan(&self.held, self.limits()) {
            Ok(None) => None,
            Ok(Some((len, framing))) => Some(self.take_held(len, framing)),
            Err(refusal) => Some(Next::Refused(refusal)),
        }
    }

    fn take_held(&mut self, len: usize, framing: Framing) -> Next {
        let head = self.held.split_to(len).freeze();
        let mut fields = self.worker.fields();
        fields.clear();
        // The judgement is the same as a moment ago; where the fields stand was not kept.
        match HeadScan::default().scan_fields(&head, self.limits(), &mut |at| fields.push(at)) {
            Ok(Some((whole, again))) if (whole, again) == (len, framing) => {
                built(head::build(&head, &fields, framing))
            }
            Ok(_) => Next::Refused(Refusal::Malformed),
            Err(refusal) => Next::Refused(refusal),
        }
    }

    /// Reads octets of a body behind the held ones, `most` at most; 0 is the end.
    pub(crate) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        most: Option<u64>,
    ) -> Poll<io::Result<usize>> {
        let most = most.and_then(|most| usize::try_from(most).ok()).unwrap_or(BODY_READ);
        self.held.reserve(most.clamp(1, BODY_READ));
        poll_read_buf(Pin::new(&mut self.io), cx, &mut self.held)
    }

    /// Looks after a client that waits for its answer: it may leave, or send ahead. One that has only
    /// ended its side still gets its answer.
    pub(crate) fn watch_client(&mut self, cx: &mut Context<'_>) -> Result<(), Gone> {
        if self.ended {
            return if self.io.is_broken() { Err(Gone) } else { Ok(()) };
        }
        let worker = Rc::clone(&self.worker);
        let mut scratch = worker.scratch();
        while self.held.len() < AHEAD_MAX {
            match self.io.poll_some(cx, &mut scratch) {
                Poll::Ready(Ok(0)) => {
                    self.ends();
                    break;
                }
                Poll::Ready(Ok(count)) => {
                    self.held.extend_from_slice(scratch.get(..count).unwrap_or_default());
                }
                Poll::Ready(Err(_)) => return Err(Gone),
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    /// The stream, and what was read from it and not taken.
    pub(crate) fn into_parts(self) -> (ClientIo, BytesMut) {
        (self.io, self.held)
    }

    /// The client sends nothing more.
    pub(crate) fn ends(&mut self) {
        self.ended = true;
        self.io.probe();
    }
}

fn built(head: Result<Head, Refusal>) -> Next {
    match head {
        Ok(head) => Next::Request(Box::new(head)),
        Err(refusal) => Next::Refused(refusal),
    }
}
