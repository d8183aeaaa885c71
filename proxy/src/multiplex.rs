//! Connections to containers that speak HTTP/2: many streams share one.
//!
//! gRPC needs it from end to end. A port without TLS is spoken to with prior knowledge when the
//! request is gRPC, or when the port was found to speak nothing else; a port with TLS says in its
//! handshake what it speaks. `h2` runs such a connection in a task; it ends with the start of the
//! container that it belongs to. A request drives its stream itself; what is left of its body when the
//! answer has begun gets a task of its own, so that each direction goes on whatever becomes of the other.

use std::{
    cell::Cell,
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Reason, RecvStream,
    client::{Builder, ResponseFuture, SendRequest},
};
use http::{
    HeaderValue, Request, Response, StatusCode, Uri,
    uri::{Authority, Parts, PathAndQuery, Scheme},
};
use http_body::Body as _;
use tokio::sync::oneshot;

use crate::{
    body::{Progress, RequestBody},
    config::Limits,
    http2::{End, Pipe, Receiving},
    interim::Interim,
    upstream::{Broken, ExchangeError, INTERIMS_MAX, Incoming, Terms, UpstreamIo, poll_late},
    watch::{NEVER, Origin, Over, Tick, Wait},
    worker::Worker,
};

/// Streams on one connection, at most; a container may allow fewer.
const STREAMS_MAX: usize = 100;
/// What a container may send ahead on one stream. It is near, so that this is no bound to its speed.
const STREAM_WINDOW: u32 = 64 * 1024;
/// The same on the whole connection: as much as on all streams, so that clients who do not take their
/// answers never keep others from theirs.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * 100;
/// How long a stream that was reset is known: what a container had sent before it heard of that is then
/// no error of its.
const RESETS_KNOWN: Duration = Duration::from_secs(30);
/// What may wait to be sent on one stream.
const SEND_BUFFER: usize = 128 * 1024;
/// The octets of an answer's head, at most; as for HTTP/1.1.
const HEAD_MAX: u32 = 256 * 1024;

/// A connection that streams share.
#[derive(Clone)]
pub(crate) struct Shared(Rc<Inner>);

struct Inner {
    sender: SendRequest<Bytes>,
    /// Whether no more streams can be begun.
    closed: Cell<bool>,
    streams: Cell<usize>,
    /// As the container allows at the moment.
    streams_max: Cell<usize>,
    quiet_since: Cell<Tick>,
}

/// A place for one stream, given back when it and what is left of its request are dropped.
#[derive(Debug)]
pub(crate) struct Lane(Rc<Place>);

#[derive(Debug)]
struct Place(Shared);

impl Shared {
    /// Speaks HTTP/2 over `io`. Nothing is waited for: whether the other side does, too, shows with
    /// the first request.
    pub(crate) async fn open(
        worker: &Rc<Worker>,
        io: UpstreamIo,
        origin: Origin,
    ) -> Result<Self, h2::Error> {
        io.give_up_after(worker.limits().upstream_head_timeout);
        let (sender, mut connection) = Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buffer_size(SEND_BUFFER)
            .max_header_list_size(HEAD_MAX)
            .initial_max_send_streams(STREAMS_MAX)
            .max_concurrent_reset_streams(STREAMS_MAX)
            .reset_stream_duration(RESETS_KNOWN)
            .enable_push(false)
            .handshake::<_, Bytes>(io)
            .await?;
        let inner = Rc::new(Inner {
            sender,
            closed: Cell::new(false),
            streams: Cell::new(0),
            streams_max: Cell::new(STREAMS_MAX),
            quiet_since: Cell::new(worker.watch().now()),
        });
        let seen = Rc::downgrade(&inner);
        run(worker, origin, move |cx| {
            let polled = Pin::new(&mut connection).poll(cx);
            if let Some(inner) = seen.upgrade() {
                let allowed = connection.max_concurrent_send_streams();
                inner.streams_max.set(allowed.min(STREAMS_MAX));
                inner.closed.set(inner.closed.get() || polled.is_ready());
            }
            // An error shows in the streams.
            polled.map(drop)
        });
        Ok(Self(inner))
    }

    /// Takes a place, if there is one.
    pub(crate) fn lane(&self) -> Option<Lane> {
        let Inner { closed, streams, streams_max, .. } = &*self.0;
        if closed.get() || streams.get() >= streams_max.get() {
            return None;
        }
        streams.set(streams.get() + 1);
        Some(Lane(Rc::new(Place(self.clone()))))
    }

    /// Whether it can be used again: not closed, and not without a stream for `ticks_max`.
    pub(crate) fn rests(&self, now: Tick, ticks_max: u64) -> bool {
        let in_use = self.0.streams.get() > 0;
        let quiet = now.saturating_sub(self.0.quiet_since.get());
        !self.0.closed.get() && (in_use || quiet < ticks_max)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("streams", &self.0.streams.get()).finish_non_exhaustive()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Self(Shared(inner)) = self;
        inner.streams.set(inner.streams.get() - 1);
    }
}

impl Lane {
    /// Sends a request, whose body may be `held` until the container asks for it, and waits for the head
    /// of its response, as [`Channel::exchange`](crate::upstream::Channel::exchange) does.
    pub(crate) async fn exchange(
        &mut self,
        (worker, origin): (&Rc<Worker>, Origin),
        (request, held): (Request<RequestBody>, bool),
        terms: &Terms<'_>,
    ) -> Result<Response<Incoming>, ExchangeError> {
        terms.wait.within(if held { terms.expect_timeout } else { terms.timeout });
        let (parts, body) = request.into_parts();
        let Place(Shared(inner)) = &*self.0;
        let mut sender = inner.sender.clone();
        let ready = poll_fn(|cx| match sender.poll_ready(cx) {
            Poll::Ready(ready) => Poll::Ready(ready.or(Err(None))),
            Poll::Pending => poll_late(cx, terms).map(|late| Err(Some(late))),
        });
        let ends = body.is_end_stream();
        let begun = match ready.await {
            Ok(()) => sender.send_request(Request::from_parts(parts, ()), ends).or(Err(None)),
            Err(late) => Err(late),
        };
        let (answer, send) = match begun {
            Ok(begun) => begun,
            Err(Some(late)) => return Err(late),
            Err(None) => {
                inner.closed.set(true);
                return Err(ExchangeError::Unsent(body));
            }
        };
        let pipe = (!ends).then(|| Pipe::new(send, body));
        let mut exchange = Exchange { answer, pipe, held, interims: 0 };
        let (parts, stream) = poll_fn(|cx| exchange.poll(cx, terms)).await?.into_parts();
        let (taken, is_taken) = oneshot::channel();
        let body = Receiving::answer(stream, &parts.headers, taken);
        if let Exchange { pipe: Some(pipe), held: false, .. } = exchange {
            let rest =
                Rest { pipe, is_taken: Some(is_taken), stuck: false, _place: Rc::clone(&self.0) };
            rest.run(worker, origin);
        }
        Ok(Response::from_parts(parts, Incoming::Http2(body)))
    }

    /// The stream has ended.
    pub(crate) fn rest(self, now: Tick) {
        let Place(Shared(inner)) = &*self.0;
        inner.quiet_since.set(now);
    }
}

/// The target of a request in the form of HTTP/2, which has the authority in it.
pub(crate) fn target(path: Option<&PathAndQuery>, scheme: Scheme, authority: &HeaderValue) -> Uri {
    let mut parts = Parts::default();
    parts.scheme = Some(scheme);
    parts.authority = Authority::try_from(authority.as_bytes()).ok();
    parts.path_and_query = Some(path.cloned().unwrap_or_else(|| PathAndQuery::from_static("/")));
    // The authority was parsed as one; without it the request is refused.
    Uri::from_parts(parts).unwrap_or_default()
}

/// One request whose answer has not begun.
struct Exchange {
    answer: ResponseFuture,
    /// What is left of the body.
    pipe: Option<Pipe<RequestBody>>,
    /// Whether the body waits until it is wanted. What was never sent is broken off with the answer.
    held: bool,
    interims: u32,
}

impl Exchange {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        terms: &Terms<'_>,
    ) -> Poll<Result<Response<RecvStream>, ExchangeError>> {
        loop {
            self.poll_send(cx)?;
            while let Poll::Ready(Some(Ok(interim))) = self.answer.poll_informational(cx) {
                self.hear(interim, terms)?;
                self.poll_send(cx)?;
            }
            match Pin::new(&mut self.answer).poll(cx) {
                Poll::Ready(Ok(response)) => return Poll::Ready(Ok(response)),
                Poll::Ready(Err(_)) if terms.progress.is_some_and(Progress::is_broken) => {
                    return Poll::Ready(Err(ExchangeError::Body));
                }
                Poll::Ready(Err(error)) => {
                    return Poll::Ready(Err(ExchangeError::Broken(error.into())));
                }
                Poll::Pending if self.held && terms.wait.poll_over(cx) == Some(Over::Deadline) => {
                    // The container says nothing about the body: the edge asks for it.
                    self.release(terms);
                }
                Poll::Pending => return poll_late(cx, terms).map(Err),
            }
        }
    }

    /// Sends on of the body. A container that takes no more may still answer.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<(), ExchangeError> {
        if let Some(pipe) = &mut self.pipe
            && !self.held
            && let Poll::Ready(end) = pipe.poll(cx)
        {
            let settled = settle(pipe, end);
            self.pipe = None;
            return settled.or(Err(ExchangeError::Body));
        }
        Ok(())
    }

    fn hear(&mut self, interim: Response<()>, terms: &Terms<'_>) -> Result<(), ExchangeError> {
        self.interims += 1;
        let status = interim.status();
        // There is no other protocol to go to (RFC 9113, 8.6).
        if self.interims > INTERIMS_MAX || status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(ExchangeError::Broken(Broken::Interims));
        }
        if status != StatusCode::CONTINUE {
            terms.hear(Interim { status, headers: interim.into_parts().0.headers });
        } else if self.held {
            self.release(terms);
        }
        Ok(())
    }

    /// The body is wanted. Reading it asks the client for it.
    fn release(&mut self, terms: &Terms<'_>) {
        self.held = false;
        terms.wait.within(terms.timeout);
    }
}

/// What is left of a request whose answer has begun. It goes on whatever becomes of the answer's body,
/// but not when that was given up: then nobody is there who would want the rest done.
struct Rest {
    pipe: Pipe<RequestBody>,
    /// Tells how it went with the answer, until it did.
    is_taken: Option<oneshot::Receiver<()>>,
    /// Whether the container takes nothing.
    stuck: bool,
    _place: Rc<Place>,
}

impl Rest {
    /// Runs as a task of the worker: to the end of the body, until the container has taken nothing for
    /// too long, or until its start is over.
    fn run(mut self, worker: &Rc<Worker>, origin: Origin) {
        let wait = worker.watch().wait(Some(origin));
        let limits = Rc::clone(worker.limits());
        // The tracker waits for it.
        drop(worker.tasks().spawn_local(poll_fn(move |cx| self.poll(cx, &wait, &limits))));
    }

    fn poll(&mut self, cx: &mut Context<'_>, wait: &Wait, limits: &Limits) -> Poll<()> {
        if let Some(is_taken) = &mut self.is_taken
            && let Poll::Ready(taken) = Pin::new(is_taken).poll(cx)
        {
            self.is_taken = None;
            // The patience is another one now.
            self.stuck = false;
            if taken.is_err() {
                self.pipe.reset(Reason::CANCEL);
                return Poll::Ready(());
            }
        }
        // A call whose answer goes on may be as slow as that.
        let patience = if self.is_taken.is_some() { limits.stream_idle } else { limits.send_idle };
        if let Poll::Ready(end) = self.pipe.poll(cx) {
            _ = settle(&mut self.pipe, end);
            return Poll::Ready(());
        }
        let was_stuck = std::mem::replace(&mut self.stuck, self.pipe.is_stuck());
        match (self.stuck, was_stuck, self.pipe.taken() > 0) {
            (true, false, _) | (true, true, true) => wait.within(patience),
            // The body has deadlines of its own.
            (false, true, _) => wait.until(NEVER),
            (true, true, false) | (false, false, _) => {}
        }
        if wait.poll_over(cx).is_some() {
            self.pipe.reset(Reason::CANCEL);
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

/// The body of a request is sent, or is not: one that broke must not look whole.
fn settle(pipe: &mut Pipe<RequestBody>, end: End) -> Result<(), ()> {
    match end {
        End::Whole | End::Gone => Ok(()),
        End::Broken(error) => {
            tracing::debug!(%error, "the body of a request broke");
            pipe.reset(Reason::CANCEL);
            Err(())
        }
    }
}

/// Runs a part of a connection as a task of the worker, until it ends or the container's start is over.
fn run(
    worker: &Rc<Worker>,
    origin: Origin,
    mut part: impl FnMut(&mut Context<'_>) -> Poll<()> + 'static,
) {
    let wait = worker.watch().wait(Some(origin));
    // The tracker waits for it.
    drop(worker.tasks().spawn_local(poll_fn(move |cx| {
        if wait.poll_over(cx).is_some() {
            return Poll::Ready(());
        }
        part(cx)
    })));
}
