//! A connection from its preface to its end.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Reason, RecvStream,
    server::{Builder, Connection, SendResponse},
};
use http::Request;
use tokio_rustls::server::TlsStream;

use super::{body::length, exchange::exchange};
use crate::{
    ahead::{LEAST_OF_HTTP2, STREAM_WINDOW, Window},
    downstream::Downstream,
    flood::Flood,
    gate::Gate,
    http1::Socket,
    limits::CutBy,
    stalled::guarded,
    watch::Wait,
    worker::Worker,
};

/// What may wait to be sent on one stream.
const SEND_BUFFER: usize = 128 * 1024;
/// How long a stream that was reset is known: what a client had sent before it heard of that is then no
/// error of its.
const RESETS_KNOWN: Duration = Duration::from_secs(30);
/// Streams that a client resets before they are taken up, and streams that we reset for its errors;
/// more end the connection (Rapid Reset, `MadeYouReset`).
const RESETS_MAX: usize = 32;

type Io = Gate<Box<TlsStream<Socket>>>;

/// Serves a client that speaks HTTP/2.
pub(crate) async fn serve(
    worker: &Rc<Worker>,
    stream: Box<TlsStream<Socket>>,
    downstream: &Rc<Downstream>,
) {
    if let Err(error) = Box::pin(served(worker, stream, downstream)).await {
        if let Some(flood) = downstream.flood().or_else(|| noticed(&error)) {
            worker.metrics().flood(flood);
        }
        tracing::debug!(peer = %downstream.peer, %error, "a connection ended early");
    }
}

async fn served(
    worker: &Rc<Worker>,
    stream: Box<TlsStream<Socket>>,
    downstream: &Rc<Downstream>,
) -> Result<(), h2::Error> {
    let limits = worker.limits();
    let wait = worker.watch().wait(None);
    let io = Gate::new(stream, Rc::clone(downstream), worker);
    wait.within(limits.head_timeout);
    let connection = {
        let mut handshake = pin!(builder(worker).handshake::<_, Bytes>(io));
        poll_fn(|cx| match handshake.as_mut().poll(cx) {
            Poll::Ready(connection) => Poll::Ready(connection.map(Some)),
            Poll::Pending => wait.poll_over(cx).map_or(Poll::Pending, |_| Poll::Ready(Ok(None))),
        })
        .await?
    };
    let Some(connection) = connection else {
        // The client did not begin in time.
        worker.metrics().cut(CutBy::HeadTimeout);
        return Ok(());
    };
    let (worker, downstream) = (Rc::clone(worker), Rc::clone(downstream));
    let window = worker.ahead().window(LEAST_OF_HTTP2);
    let mut session =
        Session { worker, downstream, connection, window, wait, seen: 0, told: false };
    poll_fn(|cx| session.poll(cx)).await
}

fn builder(worker: &Worker) -> Builder {
    let limits = worker.limits();
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(limits.streams_max)
        .max_header_list_size(u32::try_from(limits.head_bytes_max).unwrap_or(u32::MAX))
        .max_concurrent_reset_streams(usize::try_from(limits.streams_max).unwrap_or(usize::MAX))
        .reset_stream_duration(RESETS_KNOWN)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_local_error_reset_streams(Some(RESETS_MAX))
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(LEAST_OF_HTTP2)
        .max_send_buffer_size(SEND_BUFFER)
        .enable_connect_protocol();
    builder
}

/// Whether the HTTP/2 library has ended a connection because the client did too much.
fn noticed(error: &h2::Error) -> Option<Flood> {
    (error.reason() == Some(Reason::ENHANCE_YOUR_CALM)).then_some(Flood::Library)
}

/// One connection that has begun.
struct Session {
    worker: Rc<Worker>,
    downstream: Rc<Downstream>,
    connection: Connection<Io, Bytes>,
    window: Rc<Window>,
    wait: Wait,
    /// How many requests there were at the last look.
    seen: u64,
    /// Whether the client was told to go.
    told: bool,
}

impl Session {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        let limits = self.worker.limits();
        let downstream = &self.downstream;
        let mut end = self.worker.is_draining() || downstream.started() >= limits.requests_max;
        while self.wait.poll_over(cx).is_some() {
            // Looked at once a period: quiet for a whole one means idle. Frames that carry no
            // request, such as pings, do not count.
            let quiet = downstream.active() == 0 && downstream.started() == self.seen;
            if quiet && self.told {
                return Poll::Ready(Ok(()));
            }
            end |= quiet;
            self.seen = downstream.started();
            self.wait.within(limits.idle);
        }
        if end && !self.told {
            self.told = true;
            self.wait.within(limits.head_timeout);
            // Registers for the new deadline.
            _ = self.wait.poll_over(cx);
            self.connection.graceful_shutdown();
        }
        loop {
            match ready!(self.connection.poll_accept(cx)) {
                Some(Ok((request, reply))) => self.begin(request, reply),
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Has a request answered by a task of its own.
    fn begin(&mut self, request: Request<RecvStream>, reply: SendResponse<Bytes>) {
        let uploading = (!request.body().is_end_stream()).then(|| {
            let (uploading, wider) = self.window.begin(length(request.headers()));
            if let Some(octets) = wider {
                self.connection.set_target_window_size(octets);
            }
            uploading
        });
        self.downstream.start();
        let (worker, downstream) = (Rc::clone(&self.worker), Rc::clone(&self.downstream));
        let task = exchange(Rc::clone(&worker), Rc::clone(&downstream), request, reply, uploading);
        // The tracker waits for it.
        drop(self.worker.tasks().spawn_local(guarded(worker, task, move |worker| {
            downstream.gives_up(worker.watch().now());
        })));
    }
}
