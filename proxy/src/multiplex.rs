//! Connections to containers that speak HTTP/2: many streams share one.
//!
//! gRPC needs it from end to end. A port without TLS is spoken to with prior knowledge when the
//! request is gRPC, or when the port was found to speak nothing else; a port with TLS says in its
//! handshake what it speaks. hyper runs such a connection in tasks; all of them end with the start of
//! the container that they belong to.

use std::{
    cell::Cell,
    fmt,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
};

use http::{
    HeaderValue, Request, Response, Uri,
    uri::{Authority, Parts, PathAndQuery, Scheme},
};
use hyper::{
    client::conn::http2::{self, SendRequest},
    rt::Executor,
};
use hyper_util::rt::TokioIo;

use crate::{
    body::{Progress, RequestBody},
    upstream::{ExchangeError, Incoming, Terms, UpstreamIo, poll_late},
    watch::{Origin, Tick},
    worker::Worker,
};

/// Streams on one connection, at most; a container may allow fewer.
const STREAMS_MAX: usize = 100;
/// What a container may send ahead on one stream, and on the whole connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What may wait to be sent on one stream.
const SEND_BUFFER: usize = 128 * 1024;
/// The octets of an answer's head, at most; as for HTTP/1.1.
const HEAD_MAX: u32 = 256 * 1024;

/// A connection that streams share.
#[derive(Clone)]
pub(crate) struct Shared(Rc<Inner>);

struct Inner {
    sender: SendRequest<RequestBody>,
    streams: Cell<usize>,
    /// As the container allows at the moment.
    streams_max: Cell<usize>,
    quiet_since: Cell<Tick>,
}

/// A place for one stream, given back when dropped.
#[derive(Debug)]
pub(crate) struct Lane(Shared);

impl Shared {
    /// Speaks HTTP/2 over `io`. Nothing is waited for: whether the other side does, too, shows with
    /// the first request.
    pub(crate) async fn open(
        worker: &Rc<Worker>,
        io: UpstreamIo,
        origin: Origin,
    ) -> Result<Self, hyper::Error> {
        let tasks = TasksOfContainer { worker: Rc::clone(worker), origin };
        let (sender, connection) = http2::Builder::new(tasks.clone())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .max_header_list_size(HEAD_MAX)
            .handshake(TokioIo::new(io))
            .await?;
        let inner = Rc::new(Inner {
            sender,
            streams: Cell::new(0),
            streams_max: Cell::new(STREAMS_MAX),
            quiet_since: Cell::new(worker.watch().now()),
        });
        let seen = Rc::downgrade(&inner);
        tasks.execute(async move {
            let mut connection = pin!(connection);
            poll_fn(|cx| {
                let polled = connection.as_mut().poll(cx);
                if let Some(inner) = seen.upgrade() {
                    inner.streams_max.set(connection.current_max_send_streams().min(STREAMS_MAX));
                }
                // An error shows in the streams.
                polled.map(drop)
            })
            .await;
        });
        Ok(Self(inner))
    }

    /// Takes a place, if there is one.
    pub(crate) fn lane(&self) -> Option<Lane> {
        let Inner { sender, streams, streams_max, .. } = &*self.0;
        if sender.is_closed() || streams.get() >= streams_max.get() {
            return None;
        }
        streams.set(streams.get() + 1);
        Some(Lane(self.clone()))
    }

    /// Whether it can be used again: not closed, and not without a stream for `ticks_max`.
    pub(crate) fn rests(&self, now: Tick, ticks_max: u64) -> bool {
        let in_use = self.0.streams.get() > 0;
        let quiet = now.saturating_sub(self.0.quiet_since.get());
        !self.0.sender.is_closed() && (in_use || quiet < ticks_max)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("streams", &self.0.streams.get()).finish_non_exhaustive()
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.0.0.streams.set(self.0.0.streams.get() - 1);
    }
}

impl Lane {
    /// Sends a request and waits for the head of its response, as
    /// [`Channel::exchange`](crate::upstream::Channel::exchange) does.
    pub(crate) async fn exchange(
        &mut self,
        request: Request<RequestBody>,
        terms: &Terms<'_>,
    ) -> Result<Response<Incoming>, ExchangeError> {
        terms.wait.within(terms.timeout);
        let mut response = pin!(self.0.0.sender.clone().try_send_request(request));
        poll_fn(|cx| match response.as_mut().poll(cx) {
            Poll::Ready(Ok(response)) => Poll::Ready(Ok(response.map(Incoming::Http2))),
            Poll::Ready(Err(mut failed)) => Poll::Ready(Err(match failed.take_message() {
                Some(request) => ExchangeError::Unsent(request.into_body()),
                None if terms.progress.is_some_and(Progress::is_broken) => ExchangeError::Body,
                None => ExchangeError::Broken(failed.into_error().into()),
            })),
            Poll::Pending => poll_late(cx, terms).map(Err),
        })
        .await
    }

    /// The stream has ended.
    pub(crate) fn rest(self, now: Tick) {
        self.0.0.quiet_since.set(now);
    }
}

/// The target of a request in the form of HTTP/2, which has the authority in it.
pub(crate) fn target(path: Option<&PathAndQuery>, scheme: Scheme, authority: &HeaderValue) -> Uri {
    let mut parts = Parts::default();
    parts.scheme = Some(scheme);
    parts.authority = Authority::try_from(authority.as_bytes()).ok();
    parts.path_and_query = Some(path.cloned().unwrap_or_else(|| PathAndQuery::from_static("/")));
    // The authority was parsed as one; without it hyper refuses the request.
    Uri::from_parts(parts).unwrap_or_default()
}

/// Runs the parts of a connection as tasks of the worker, until they end or the container's start is
/// over.
#[derive(Clone)]
struct TasksOfContainer {
    worker: Rc<Worker>,
    origin: Origin,
}

impl<F> Executor<F> for TasksOfContainer
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, task: F) {
        let wait = self.worker.watch().wait(Some(self.origin));
        let mut task = Box::pin(task);
        // The tracker waits for it.
        drop(self.worker.tasks().spawn_local(poll_fn(move |cx| {
            if wait.poll_over(cx).is_some() {
                return Poll::Ready(());
            }
            Pin::new(&mut task).poll(cx)
        })));
    }
}
