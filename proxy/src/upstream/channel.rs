//! One connection to a container that speaks HTTP/1.1, and one exchange at a time on it.
//!
//! A connection has no task of its own. The request that uses it drives it, both ways at once: the
//! request's body goes on while the answer comes. Nobody drives it while it is idle, and it holds no
//! buffer then, nor while it waits for octets.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{Response, StatusCode};
use http_body::{Frame, SizeHint};
use memchr::memmem;
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::io::poll_read_buf;

use super::{
    ExchangeError, UpstreamIo, poll_late,
    response::{self, Body, Fault, HEAD_MAX, Head, Piece},
    writer::{Message, WriteError, Writer},
};
use crate::{
    body::Progress,
    headers::clean_response,
    interim::{Interim, Interims},
    watch::{Over, Wait},
};

/// The octets of one read, at first and at most.
const READ: usize = 8 * 1024;
const READ_MAX: usize = 64 * 1024;
/// The interim answers of one exchange, at most.
pub(crate) const INTERIMS_MAX: u32 = 32;

/// How long an exchange may take, and who hears what comes before its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms<'a> {
    pub(crate) wait: &'a Wait,
    /// Of the request's body: while it moves, the answer is not late.
    pub(crate) progress: Option<&'a Progress>,
    /// For the head of the answer.
    pub(crate) timeout: Duration,
    /// For a container to ask for a body that is held.
    pub(crate) expect_timeout: Duration,
    /// Where interim answers go, and the name that the client called the container by.
    pub(crate) interims: Option<(&'a Rc<Interims>, &'a str)>,
}

impl Terms<'_> {
    /// Passes an interim answer on, cleaned as an answer is.
    pub(crate) fn hear(&self, mut interim: Interim) {
        if let Some((interims, hostname)) = self.interims {
            clean_response(&mut interim.headers, hostname);
            interims.push(interim);
        }
    }
}

/// A connection to a container that speaks HTTP/1.1; one exchange at a time.
#[derive(Debug)]
pub(crate) struct Channel {
    io: UpstreamIo,
    writer: Writer,
    /// Octets of a head that is not complete, or room for what is read next.
    buffer: BytesMut,
    /// How many of them were looked at.
    seen: usize,
    /// Octets of the body that were read already, and what follows it.
    read: Bytes,
    /// Of the present answer.
    body: Body,
    /// Whether the connection can be used again after the present exchange.
    keeps: bool,
    /// Whether the request was HEAD.
    to_head: bool,
    /// What the next read may bring.
    room: usize,
}

/// Why a connection broke off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error("the answer cannot be used: {0}")]
    Answer(#[from] Fault),
    #[error("the connection broke")]
    Io(#[from] io::Error),
    #[error("the connection was closed before an answer")]
    Closed,
    #[error("too many interim answers, or one of another protocol")]
    Interims,
    #[error("the request's body broke")]
    Body,
    #[error("the stream broke")]
    Http2(#[from] h2::Error),
}

impl Broken {
    /// Whether what came was no answer at all.
    pub(crate) fn is_parse(&self) -> bool {
        matches!(self, Self::Answer(_))
    }
}

impl Channel {
    /// Speaks HTTP/1.1 over `io`.
    pub(crate) fn new(io: UpstreamIo) -> Self {
        Self {
            io,
            writer: Writer::IDLE,
            buffer: BytesMut::new(),
            seen: 0,
            read: Bytes::new(),
            body: Body::Ended,
            keeps: true,
            to_head: false,
            room: READ,
        }
    }

    /// Sends a request and waits for the head of its answer.
    pub(crate) async fn exchange(
        &mut self,
        message: Message,
        terms: &Terms<'_>,
    ) -> Result<Response<()>, ExchangeError> {
        let mut message = Some(message);
        let mut interims = 0;
        poll_fn(|cx| {
            if let Some(message) = message.take() {
                if !self.is_quiet(cx) {
                    return Poll::Ready(Err(ExchangeError::Unsent(message.body)));
                }
                let timeout = if message.held { terms.expect_timeout } else { terms.timeout };
                terms.wait.within(timeout);
                self.begin(message);
                // Looking whether it is quiet has registered for what comes; nothing can have come yet.
                if let Err(error) = self.poll_write(cx) {
                    return Poll::Ready(Err(error));
                }
                if !self.writer.has_failed() {
                    return poll_late(cx, terms).map(Err);
                }
            }
            self.poll_answer(cx, terms, &mut interims)
        })
        .await
    }

    fn begin(&mut self, message: Message) {
        self.to_head = message.to_head;
        self.keeps = false;
        self.writer = Writer::new(message);
    }

    fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        terms: &Terms<'_>,
        interims: &mut u32,
    ) -> Poll<Result<Response<()>, ExchangeError>> {
        loop {
            self.poll_write(cx)?;
            match self.poll_head(cx) {
                Poll::Ready(Ok(head)) if is_interim(head.status) => {
                    *interims += 1;
                    if *interims > INTERIMS_MAX {
                        return Poll::Ready(Err(ExchangeError::Broken(Broken::Interims)));
                    }
                    self.hear(head, terms);
                }
                Poll::Ready(Ok(head)) => return Poll::Ready(Ok(self.answer(head))),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(ExchangeError::Broken(error))),
                Poll::Pending => {
                    if !self.writer.is_held() || terms.wait.poll_over(cx) != Some(Over::Deadline) {
                        return poll_late(cx, terms).map(Err);
                    }
                    // The container says nothing about the body: the edge asks for it.
                    self.writer.release();
                    terms.wait.within(terms.timeout);
                }
            }
        }
    }

    /// Sends on. A connection that takes no more may still bring an answer.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<(), ExchangeError> {
        if self.writer.is_done() {
            return Ok(());
        }
        match self.writer.poll(cx, &mut self.io) {
            Poll::Ready(Err(WriteError::Body)) => Err(ExchangeError::Body),
            Poll::Ready(Err(WriteError::Io(error))) => {
                tracing::debug!(%error, "a container takes no more of a request");
                Ok(())
            }
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Head, Broken>> {
        loop {
            if self.may_be_head() {
                let octets = std::mem::take(&mut self.buffer).freeze();
                if let Some((len, head)) = response::parse(&octets, self.to_head)? {
                    self.seen = 0;
                    self.read = octets.slice(len..);
                    return Poll::Ready(Ok(head));
                }
                self.seen = octets.len();
                self.buffer = BytesMut::from(octets);
            }
            if ready!(self.poll_read(cx))? == 0 {
                return Poll::Ready(Err(Broken::Closed));
            }
        }
    }

    /// Whether it is worth while to parse: what comes in many pieces is not parsed with each of them.
    fn may_be_head(&mut self) -> bool {
        const END: usize = b"\n\r\n".len();
        if self.seen == 0 || self.buffer.len() > HEAD_MAX {
            return !self.buffer.is_empty();
        }
        let fresh = self.buffer.get(self.seen.saturating_sub(END - 1)..).unwrap_or_default();
        let ends = memmem::find(fresh, b"\n\r\n").or_else(|| memmem::find(fresh, b"\n\n"));
        self.seen = self.buffer.len();
        ends.is_some()
    }

    /// Reads into the buffer. Without octets there is no buffer: much more is waited than read.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.buffer.reserve(self.room);
        let polled = poll_read_buf(Pin::new(&mut self.io), cx, &mut self.buffer);
        match polled {
            Poll::Ready(Ok(count)) if count >= self.room => {
                self.room = (self.room * 2).min(READ_MAX);
            }
            Poll::Ready(_) => {}
            Poll::Pending if self.buffer.is_empty() => self.buffer = BytesMut::new(),
            Poll::Pending => {}
        }
        polled
    }

    /// Hears an interim answer.
    fn hear(&mut self, head: Head, terms: &Terms<'_>) {
        if head.status != StatusCode::CONTINUE {
            let Head { status, headers, .. } = head;
            terms.hear(Interim { status, headers });
        } else if self.writer.is_held() {
            // Reading the body asks the client for it.
            self.writer.release();
            terms.wait.within(terms.timeout);
        }
        self.buffer = BytesMut::from(std::mem::take(&mut self.read));
    }

    fn answer(&mut self, head: Head) -> Response<()> {
        let Head { status, headers, body, keeps } = head;
        (self.body, self.keeps) = (body, keeps);
        let mut response = Response::new(());
        (*response.status_mut(), *response.headers_mut()) = (status, headers);
        response
    }

    /// Whether the present answer is complete.
    pub(crate) fn is_ended(&self) -> bool {
        self.body.is_ended()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.body.left().map_or_else(SizeHint::default, SizeHint::with_exact)
    }

    /// The whole body of the present answer, if it has come already.
    pub(crate) fn take_whole(&mut self) -> Option<Bytes> {
        match self.body.left() {
            Some(0) => Some(Bytes::new()),
            Some(left) if u64::try_from(self.read.len()).is_ok_and(|read| left <= read) => {
                match self.body.next(&mut self.read) {
                    Ok(Some(Piece::Data(data))) => Some(data),
                    Ok(Some(Piece::Trailers(_)) | None) | Err(_) => None,
                }
            }
            Some(_) | None => None,
        }
    }

    /// Brings the next frame of the present answer's body, and sends on what is left of the request.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if self.poll_write(cx).is_err() {
            return Poll::Ready(Some(Err(Broken::Body)));
        }
        loop {
            match self.body.next(&mut self.read) {
                Ok(Some(Piece::Data(data))) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Some(Piece::Trailers(fields))) => {
                    return Poll::Ready(Some(Ok(Frame::trailers(fields))));
                }
                Ok(None) if self.body.is_ended() => return Poll::Ready(None),
                Ok(None) => {}
                Err(fault) => return Poll::Ready(Some(Err(fault.into()))),
            }
            match ready!(self.poll_read(cx)) {
                Ok(0) => {
                    return Poll::Ready(self.body.close().err().map(|fault| Err(fault.into())));
                }
                Ok(_) => self.read = self.buffer.split().freeze(),
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
        }
    }

    /// Lets the connection come to rest after an exchange; says whether it can be used again. Octets
    /// that nobody asked for end it: they would be taken for the next answer.
    pub(crate) fn rest(&mut self) -> bool {
        let mut nobody = Context::from_waker(Waker::noop());
        let sent = self.poll_write(&mut nobody).is_ok() && self.writer.is_done();
        let quiet = self.read.is_empty() && self.buffer.is_empty();
        let rests = sent && quiet && self.keeps && self.body.is_ended();
        self.writer = Writer::IDLE;
        (self.buffer, self.read, self.room) = (BytesMut::new(), Bytes::new(), READ);
        rests
    }

    /// Looks whether an idle connection is still open.
    pub(crate) fn is_open(&mut self) -> bool {
        self.is_quiet(&mut Context::from_waker(Waker::noop()))
    }

    /// Whether nothing has come, not even the end. An answer before the request is none.
    fn is_quiet(&mut self, cx: &mut Context<'_>) -> bool {
        let mut octet = [0];
        Pin::new(&mut self.io).poll_read(cx, &mut ReadBuf::new(&mut octet)).is_pending()
    }

    /// Leaves HTTP after a 101: the stream, and what was read of it already.
    pub(crate) fn into_stream(self) -> (UpstreamIo, Bytes) {
        (self.io, self.read)
    }
}

/// Whether another head follows. A 101 is the last one: no HTTP follows it.
fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}
