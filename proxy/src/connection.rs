//! One client connection from its first octet to its last.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::Poll,
};

use bytes::BytesMut;
use http::{Method, Request, Response};
use hyper::{body::Incoming, rt::Executor, server::conn::http2, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::server::TlsStream;

use crate::{
    body::{ClientBody, EdgeBody, keep_head_alone},
    downstream::{Downstream, Protocol},
    flood::Flood,
    gate::Gate,
    http1::{self, ClientIo, Socket},
    limits::Guest,
    listen::Purpose,
    pipeline,
    stalled::guarded,
    tunnel,
    worker::Worker,
};

/// What an HTTP/2 client may send ahead on one stream, and on the whole connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What may wait to be sent on one stream.
const SEND_BUFFER: usize = 128 * 1024;
/// Streams that a client resets before they are taken up, and streams that we reset for its errors;
/// more end the connection (Rapid Reset, `MadeYouReset`).
const RESETS_MAX: usize = 32;

/// Serves one connection.
pub(crate) async fn serve(worker: Rc<Worker>, stream: TcpStream, guest: Guest, purpose: Purpose) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let socket = Socket::new(stream);
    // Each stage is boxed: what one needs alone, a connection shall not hold in the others.
    match purpose {
        Purpose::Https => {
            let Some(stream) = Box::pin(handshake(&worker, socket, &guest)).await else { return };
            let session = stream.get_ref().1;
            let sni = session.server_name().map(Box::from);
            let protocol = match session.alpn_protocol() {
                Some(b"h2") => Protocol::Http2,
                Some(_) | None => Protocol::Http1,
            };
            let downstream = Rc::new(Downstream::new(&guest, protocol, true, sni));
            match protocol {
                Protocol::Http1 => {
                    let io = ClientIo::Tls(stream);
                    Box::pin(http1::serve(&worker, io, &downstream, purpose)).await;
                }
                Protocol::Http2 | Protocol::Http3 => {
                    Box::pin(http2(&worker, stream, &downstream)).await;
                }
            }
        }
        Purpose::Redirect | Purpose::Plain => {
            let downstream = Rc::new(Downstream::new(&guest, Protocol::Http1, false, None));
            let io = ClientIo::Plain(socket);
            Box::pin(http1::serve(&worker, io, &downstream, purpose)).await;
        }
    }
}

async fn handshake(
    worker: &Rc<Worker>,
    socket: Socket,
    guest: &Guest,
) -> Option<Box<TlsStream<Socket>>> {
    let _counted = match worker.quota().handshake(guest) {
        Ok(counted) => counted,
        Err(refused) => {
            worker.metrics().refused(refused);
            return None;
        }
    };
    let handshake = worker.tls().acceptor.accept(socket);
    if let Ok(Ok(stream)) = timeout(worker.limits().tls_timeout, handshake).await {
        worker.metrics().tls_handshakes.add(1);
        return Some(Box::new(stream));
    }
    worker.metrics().tls_failures.add(1);
    None
}

/// Answers a stream of HTTP/2. One that leaves HTTP goes on as a task of its own: hyper hands the
/// stream over when the answer's head is on its way.
async fn answer_stream(
    worker: Rc<Worker>,
    downstream: Rc<Downstream>,
    mut request: Request<Incoming>,
) -> Result<Response<EdgeBody>, Infallible> {
    let leaves = (request.method() == Method::CONNECT).then(|| hyper::upgrade::on(&mut request));
    let is_head = *request.method() == Method::HEAD;
    let request = request.map(|incoming| Some(ClientBody::from(incoming)));
    let mut response = pipeline::answer(Rc::clone(&worker), downstream, None, request, None).await;
    if is_head {
        keep_head_alone(&mut response);
    }
    if let Some((upstream, leaves)) = response.body_mut().take_tunnel().zip(leaves) {
        let tasks = worker.tasks().clone();
        // The tracker waits for it.
        drop(tasks.spawn_local(async move {
            // Otherwise the client has left already.
            if let Ok(stream) = leaves.await {
                tunnel::run(&worker, TokioIo::new(stream), BytesMut::new(), upstream).await;
            }
        }));
    }
    Ok(response)
}

async fn http2(worker: &Rc<Worker>, stream: Box<TlsStream<Socket>>, downstream: &Rc<Downstream>) {
    let limits = Rc::clone(worker.limits());
    let gate =
        Gate::new(stream, Rc::clone(downstream), Rc::clone(&limits), worker.watch().wait(None));
    let (for_requests, of_requests) = (Rc::clone(worker), Rc::clone(downstream));
    let service = service_fn(move |request| {
        of_requests.start();
        let (worker, downstream) = (Rc::clone(&for_requests), Rc::clone(&of_requests));
        answer_stream(worker, downstream, request)
    });
    let mut builder = http2::Builder::new(LocalTasks(Rc::clone(worker)));
    builder
        .max_concurrent_streams(limits.streams_max)
        .max_header_list_size(u32::try_from(limits.head_bytes_max).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_local_error_reset_streams(RESETS_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .enable_connect_protocol();
    let mut connection = pin!(builder.serve_connection(TokioIo::new(gate), service));
    let wait = worker.watch().wait(None);
    wait.within(limits.head_timeout);
    let mut requests = 0;
    let mut told = false;
    let served = poll_fn(|cx| {
        let mut end = worker.is_draining() || downstream.started() >= limits.requests_max;
        while wait.poll_over(cx).is_some() {
            // Looked at once a period: quiet for a whole one means idle. Frames that carry no
            // request, such as pings, do not count.
            let quiet = downstream.active() == 0 && downstream.started() == requests;
            if quiet && told {
                return Poll::Ready(Ok(()));
            }
            end |= quiet;
            requests = downstream.started();
            wait.within(limits.idle);
        }
        if end && !told {
            told = true;
            wait.within(limits.head_timeout);
            // Registers for the new deadline.
            _ = wait.poll_over(cx);
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(cx)
    })
    .await;
    if let Err(error) = served {
        if let Some(flood) = downstream.flood().or_else(|| noticed(&error)) {
            worker.metrics().flood(flood);
        }
        tracing::debug!(peer = %downstream.peer, %error, "a connection ended early");
    }
}

/// Whether the HTTP/2 library has ended a connection because the client did too much.
fn noticed(error: &hyper::Error) -> Option<Flood> {
    let reason = std::error::Error::source(error)?.downcast_ref::<h2::Error>()?.reason();
    (reason == Some(h2::Reason::ENHANCE_YOUR_CALM)).then_some(Flood::Library)
}

/// Runs the streams of an HTTP/2 connection as tasks of the worker.
#[derive(Clone)]
struct LocalTasks(Rc<Worker>);

impl<F> Executor<F> for LocalTasks
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, task: F) {
        // The tracker waits for it.
        drop(self.0.tasks().spawn_local(guarded(Rc::clone(&self.0), task)));
    }
}
