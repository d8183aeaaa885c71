//! HTTP/3: QUIC connections, their requests, and the way of an answer back.
//!
//! quinn and `h3` carry the octets; everything else is as for the other versions: the same pipeline,
//! the same limits, deadlines in the same watch. Early data is off: what it holds could be replayed.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    sync::atomic::Ordering::Relaxed,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use h3::{
    error::Code,
    server::{RequestResolver, RequestStream},
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body as _;
use quinn::{Incoming, VarInt, crypto::rustls::HandshakeData};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    ahead::{LEAST_OF_HTTP3, Window},
    body::{ClientBody, EdgeBody, keep_head_alone},
    config::Limits,
    downstream::{Downstream, Protocol},
    flood::{self, Flood},
    headers::expects_continue,
    http3_body::Receiving,
    interim::{Interim, Interims},
    limits::{CutBy, Guest},
    pipeline,
    quic::{self, Accepted, Ahead, Seat},
    stalled::guarded,
    watch::{Tick, Wait},
    worker::Worker,
};

/// A client that was told to go may send so long what it has begun.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// What a stream's frames may take besides a head and one piece of data.
const FRAMES: u64 = 64 * 1024;

/// How long after the stop what had begun before is still taken up.
const LAST_COMERS: Duration = Duration::from_millis(300);

/// Accepts until `stop`, then waits until all connections have ended; `cut` ends them.
pub(crate) async fn accept(
    worker: Rc<Worker>,
    seat: Seat,
    stop: CancellationToken,
    cut: CancellationToken,
) {
    let endpoint = match quic::endpoint(&worker, seat) {
        Ok(endpoint) => endpoint,
        Err(error) => {
            tracing::error!(%error, "HTTP/3 cannot be served");
            return;
        }
    };
    worker.offer_http3(true);
    let mut stopped = pin!(async {
        stop.cancelled().await;
        sleep(LAST_COMERS).await;
    });
    loop {
        let incoming = tokio::select! {
            biased;
            () = &mut stopped => break,
            incoming = endpoint.accept() => incoming,
        };
        let Some(incoming) = incoming else {
            tracing::error!("the socket of HTTP/3 has failed");
            break;
        };
        admit(&worker, incoming);
    }
    worker.offer_http3(false);
    endpoint.set_server_config(None);
    if cut.run_until_cancelled(endpoint.wait_idle()).await.is_none() {
        endpoint.close(code(Code::H3_NO_ERROR), b"");
        endpoint.wait_idle().await;
    }
}

fn admit(worker: &Rc<Worker>, incoming: Incoming) {
    if worker.quota().handshakes() >= worker.limits().unproven_max && incoming.may_retry() {
        // An address that was forged shall cost nobody his place.
        drop(incoming.retry());
        return;
    }
    let admitted = worker.open_connection().and_then(|open| {
        let guest = worker.quota().admit(incoming.remote_address())?;
        let counted = worker.quota().handshake(&guest)?;
        Ok((open, guest, counted))
    });
    let (open, guest, counted) = match admitted {
        Ok(admitted) => admitted,
        Err(refused) => {
            worker.metrics().refused(refused);
            incoming.refuse();
            return;
        }
    };
    worker.metrics().connections_accepted.add(1);
    let worker = Rc::clone(worker);
    let tasks = worker.tasks().clone();
    // The tracker waits for it.
    drop(tasks.spawn_local(async move {
        let limit = worker.limits().tls_timeout;
        let shaken = timeout(limit, async { incoming.accept()?.await }).await;
        drop(counted);
        match shaken {
            Ok(Ok(connection)) => {
                worker.metrics().tls_handshakes.add(1);
                serve(&worker, connection, guest).await;
            }
            Ok(Err(_)) => worker.metrics().tls_failures.add(1),
            Err(_) => {
                worker.metrics().cut(CutBy::HandshakeTimeout);
                worker.metrics().tls_failures.add(1);
            }
        }
        drop(open);
    }));
}

type Resolver = RequestResolver<quic::Connection, Bytes>;

/// What comes next on a connection.
enum Next {
    Request(Box<Resolver>),
    Ended(Ended),
    /// A look at the deadline, or a drain has begun.
    Look,
    Over,
}

/// How a request has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Well,
    /// It was none.
    Broken,
    /// Its client has given it up.
    Reset,
}

/// What a client does wrong, as far as it may in a period.
struct Faults {
    broken: flood::Allowance,
    resets: flood::Allowance,
}

impl Faults {
    fn new(limits: &Limits) -> Self {
        let [broken, resets] = [limits.broken_max, limits.resets_max].map(flood::Allowance::new);
        Self { broken, resets }
    }

    /// One more request has ended; says whether the connection may go on.
    fn pay(&mut self, ended: Ended, now: Tick) -> bool {
        match ended {
            Ended::Well => true,
            Ended::Broken => self.broken.pay(now),
            Ended::Reset => self.resets.pay(now),
        }
    }
}

/// One connection.
struct Session {
    worker: Rc<Worker>,
    connection: quinn::Connection,
    window: Rc<Window>,
    sni: Option<Box<str>>,
    /// Counted while it lasts.
    guest: Guest,
    downstream: Rc<Downstream>,
    requests: JoinSet<Ended>,
    /// The stream that was accepted last.
    accepted: Rc<RefCell<Option<Accepted>>>,
    wait: Wait,
    started: u64,
    /// How many requests there were at the last look.
    seen: u64,
    faults: Faults,
    /// Whether the client was told to go.
    told: bool,
}

/// Serves one connection to its end.
async fn serve(worker: &Rc<Worker>, connection: quinn::Connection, guest: Guest) {
    let head_max = u64::try_from(worker.limits().head_bytes_max).unwrap_or(u64::MAX);
    let accepted = Rc::<RefCell<Option<Accepted>>>::default();
    let slot = Rc::clone(&accepted);
    let ahead = head_max.saturating_add(FRAMES);
    let streams = quic::Connection::new(connection.clone(), ahead, move |accepted| {
        *slot.borrow_mut() = Some(accepted);
    });
    let built = h3::server::builder().max_field_section_size(head_max).build(streams).await;
    let Ok(mut h3) = built else { return };
    let mut session = Session::new(worker, connection, guest, accepted);
    loop {
        let next = session.next(&mut h3).await;
        let mut end = worker.is_draining() || session.started >= worker.limits().requests_max;
        match next {
            Next::Request(resolver) => session.begin(*resolver),
            Next::Ended(ended) => {
                if !session.judge(ended) {
                    session.connection.close(code(Code::H3_EXCESSIVE_LOAD), b"");
                    break;
                }
            }
            Next::Look if session.wait.is_over() => {
                let quiet = session.requests.is_empty();
                if quiet && session.told {
                    break;
                }
                // As for HTTP/2: quiet for a whole period is idle.
                end |= quiet && session.started == session.seen;
                session.seen = session.started;
                let told = session.told;
                session.wait.within(if told { LAST_WORDS } else { worker.limits().idle });
            }
            Next::Look => {}
            Next::Over => break,
        }
        if end && !session.told {
            session.told = true;
            session.wait.within(LAST_WORDS);
            if h3.shutdown(1).await.is_err() {
                break;
            }
        }
    }
}

impl Session {
    fn new(
        worker: &Rc<Worker>,
        connection: quinn::Connection,
        guest: Guest,
        accepted: Rc<RefCell<Option<Accepted>>>,
    ) -> Self {
        let data = connection.handshake_data();
        let data = data.and_then(|data| data.downcast::<HandshakeData>().ok());
        let sni: Option<Box<str>> = data.and_then(|data| data.server_name).map(Into::into);
        let wait = worker.watch().wait(None);
        wait.within(worker.limits().head_timeout);
        Self {
            worker: Rc::clone(worker),
            downstream: Rc::new(facts(&guest, sni.clone())),
            guest,
            connection,
            window: worker.ahead().window(LEAST_OF_HTTP3),
            sni,
            requests: JoinSet::new(),
            accepted,
            wait,
            started: 0,
            seen: 0,
            faults: Faults::new(worker.limits()),
            told: false,
        }
    }

    async fn next(&mut self, h3: &mut h3::server::Connection<quic::Connection, Bytes>) -> Next {
        let (wait, worker, told) = (&self.wait, &self.worker, self.told);
        tokio::select! {
            accepted = h3.accept() => match accepted {
                Ok(Some(resolver)) => Next::Request(Box::new(resolver)),
                Ok(None) | Err(_) => Next::Over,
            },
            Some(ended) = self.requests.join_next() => Next::Ended(ended.unwrap_or(Ended::Broken)),
            () = poll_fn(|cx| match wait.poll_over(cx) {
                Some(_) => Poll::Ready(()),
                None if worker.is_draining() && !told => Poll::Ready(()),
                None => Poll::Pending,
            }) => Next::Look,
        }
    }

    /// Counts a request that has ended; says whether the connection may go on.
    fn judge(&mut self, ended: Ended) -> bool {
        let goes_on = self.faults.pay(ended, self.worker.watch().now());
        if !goes_on && ended == Ended::Broken {
            self.worker.metrics().cut(CutBy::BrokenRequests);
        } else if !goes_on {
            self.worker.metrics().flood(Flood::Reset);
        }
        goes_on
    }

    fn begin(&mut self, resolver: Resolver) {
        self.started += 1;
        let peer = self.connection.remote_address();
        if peer.ip() != self.guest.peer.ip() {
            // The client has moved; what is said of its address and counted for it must be true.
            match self.worker.quota().admit(peer) {
                Ok(guest) => self.guest = guest,
                Err(refused) => {
                    self.worker.metrics().refused(refused);
                    self.connection.close(code(Code::H3_EXCESSIVE_LOAD), b"");
                    return;
                }
            }
            self.downstream = Rc::new(facts(&self.guest, self.sni.clone()));
        }
        if let Some(accepted) = self.accepted.borrow_mut().take() {
            let downstream = Rc::clone(&self.downstream);
            let ahead = Ahead::new(self.connection.clone(), Rc::clone(&self.window));
            let request = request(Rc::clone(&self.worker), downstream, resolver, accepted, ahead);
            self.requests.spawn_local(guarded_request(Rc::clone(&self.worker), request));
        }
    }
}

fn facts(guest: &Guest, sni: Option<Box<str>>) -> Downstream {
    Downstream::new(guest, Protocol::Http3, true, sni)
}

fn code(code: Code) -> VarInt {
    VarInt::from_u64(code.value()).unwrap_or(VarInt::MAX)
}

/// Runs a request under the guard of its answer's body.
async fn guarded_request(worker: Rc<Worker>, request: impl Future<Output = Ended>) -> Ended {
    let ended = Cell::new(Ended::Well);
    guarded(worker, async { ended.set(request.await) }, |_| ()).await;
    ended.get()
}

/// The head of a request, if it comes in time and is one.
async fn resolve(
    worker: &Worker,
    resolver: Resolver,
    wait: &Wait,
) -> Option<(Request<()>, RequestStream<quic::BidiStream, Bytes>)> {
    wait.within(worker.limits().head_timeout);
    let mut resolving = pin!(resolver.resolve_request());
    poll_fn(|cx| match resolving.as_mut().poll(cx) {
        Poll::Ready(asked) => Poll::Ready(asked.ok()),
        Poll::Pending => wait.poll_over(cx).map_or(Poll::Pending, |_| {
            worker.metrics().cut(CutBy::HeadTimeout);
            Poll::Ready(None)
        }),
    })
    .await
}

/// Answers one request. When its client wants no more of the answer, everything that is done for it ends.
async fn request(
    worker: Rc<Worker>,
    downstream: Rc<Downstream>,
    resolver: Resolver,
    accepted: Accepted,
    ahead: Ahead,
) -> Ended {
    let limits = Rc::clone(worker.limits());
    let Accepted { allowance, taken, reset, mut stopped } = accepted;
    let wait = worker.watch().wait(None);
    let asked = resolve(&worker, resolver, &wait).await;
    let Some((head, stream)) = asked else {
        return if reset.load(Relaxed) { Ended::Reset } else { Ended::Broken };
    };
    let (send, recv) = stream.split();
    let mut send = Sending { stream: send, taken, ended: false };
    let Some(mut body) = Receiving::new(recv, allowance, head.headers()) else {
        send.stream.stop_stream(Code::H3_MESSAGE_ERROR);
        send.ended = true;
        return Ended::Broken;
    };
    // Whether there is a body decides how the request is framed for the container.
    let quick = matches!(*head.method(), Method::GET | Method::HEAD | Method::DELETE);
    if !body.look(quick, &wait, &limits).await {
        worker.metrics().cut(CutBy::HeadTimeout);
        return Ended::Broken;
    }
    body.begins(&ahead);
    drop(ahead);
    let request = head.map(|()| Some(ClientBody::Http3(Box::new(body))));
    let left = {
        // Boxed: it need not be kept until the client has everything.
        let mut answering = Box::pin(answer(worker, downstream, request, send, &wait));
        poll_fn(|cx| match answering.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => stopped.as_mut().poll(cx).map(Some),
        })
        .await
    };
    let left = if let Some(left) = left {
        left
    } else {
        // To close the connection would lose what the client does not have yet.
        wait.within(limits.send_idle);
        poll_fn(|cx| match stopped.as_mut().poll(cx) {
            Poll::Ready(left) => Poll::Ready(left),
            Poll::Pending => wait.poll_over(cx).map_or(Poll::Pending, |_| Poll::Ready(false)),
        })
        .await
    };
    if left || reset.load(Relaxed) { Ended::Reset } else { Ended::Well }
}

/// Makes the answer to a request and sends it.
async fn answer(
    worker: Rc<Worker>,
    downstream: Rc<Downstream>,
    request: Request<Option<ClientBody>>,
    mut send: Sending,
    wait: &Wait,
) {
    let interims = Rc::<Interims>::default();
    interims.begin(expects_continue(request.headers()));
    let is_head = *request.method() == Method::HEAD;
    downstream.start();
    let for_client = Some(Rc::clone(&interims));
    let for_answer = Rc::clone(&worker);
    // Boxed, as for HTTP/2: the task moves, and would keep the room for it to its end.
    let mut answer = Box::pin(pipeline::answer(for_answer, downstream, None, request, for_client));
    let mut response = loop {
        let next = poll_fn(|cx| match answer.as_mut().poll(cx) {
            Poll::Ready(answer) => Poll::Ready(Ok(answer)),
            Poll::Pending => interims.poll_next(cx).map(Err),
        });
        match next.await {
            Ok(response) => break response,
            Err(interim) => {
                if !send.interim(interim, wait, &worker).await {
                    return;
                }
            }
        }
    };
    drop(answer);
    while let Some(interim) = interims.try_next() {
        if !send.interim(interim, wait, &worker).await {
            return;
        }
    }
    if is_head {
        keep_head_alone(&mut response);
    }
    send.response(&worker, response, is_head).await;
}

/// The way of an answer to the client. Dropped before its end, it resets the stream: what was sent
/// so far must not look complete.
struct Sending {
    stream: RequestStream<quic::SendStream, Bytes>,
    /// The octets that the client has taken and nobody was told of.
    taken: Rc<Cell<u64>>,
    ended: bool,
}

impl Drop for Sending {
    fn drop(&mut self) {
        if !self.ended {
            self.stream.stop_stream(Code::H3_INTERNAL_ERROR);
        }
    }
}

impl Sending {
    /// Sends an interim answer; says whether the client took it in time.
    async fn interim(&mut self, interim: Interim, wait: &Wait, worker: &Worker) -> bool {
        let mut head = Response::new(());
        *head.status_mut() = interim.status;
        *head.headers_mut() = interim.headers;
        let mut sent = pin!(self.stream.send_response(head));
        wait.within(worker.limits().send_idle);
        poll_fn(|cx| match sent.as_mut().poll(cx) {
            Poll::Ready(sent) => Poll::Ready(sent.is_ok()),
            Poll::Pending => wait.poll_over(cx).map_or(Poll::Pending, |_| {
                worker.metrics().cut(CutBy::SendPause);
                Poll::Ready(false)
            }),
        })
        .await
    }

    async fn response(&mut self, worker: &Worker, response: Response<EdgeBody>, is_head: bool) {
        let (mut parts, body) = response.into_parts();
        let bodiless = matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if let Some(length) = body.size_hint().exact().filter(|_| !bodiless && !is_head) {
            let length = HeaderValue::from(length);
            parts.headers.entry(header::CONTENT_LENGTH).or_insert(length);
        }
        for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE] {
            parts.headers.remove(name);
        }
        waits_for_client(worker, true);
        if self.stream.send_response(Response::from_parts(parts, ())).await.is_ok()
            && self.body(worker, body).await.is_ok()
        {
            self.ended = self.stream.finish().await.is_ok();
        }
    }

    /// Sends a body to its end; an error means that the client or the container did not go so far.
    async fn body(&mut self, worker: &Worker, body: EdgeBody) -> Result<(), ()> {
        let mut body = pin!(body);
        while !body.is_end_stream() {
            waits_for_client(worker, false);
            let frame = poll_fn(|cx| body.as_mut().poll_frame(cx)).await;
            waits_for_client(worker, true);
            let Some(frame) = frame else { break };
            match frame.map_err(drop)?.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => self.data(worker, data).await?,
                Err(frame) => {
                    let trailers: HeaderMap = frame.into_trailers().map_err(drop)?;
                    return self.stream.send_trailers(trailers).await.map_err(drop);
                }
            }
        }
        Ok(())
    }

    /// Sends data, and tells how much of it was taken, so that a client that takes too little is given up.
    async fn data(&mut self, worker: &Worker, data: Bytes) -> Result<(), ()> {
        let (stream, taken) = (worker.stream(), &self.taken);
        let mut sent = pin!(self.stream.send_data(data));
        poll_fn(|cx| {
            let polled = sent.as_mut().poll(cx);
            if let Some(stream) = &stream {
                stream.took(taken.take());
            }
            polled
        })
        .await
        .map_err(drop)
    }
}

/// Whether the stream whose task runs waits for its client from now on.
fn waits_for_client(worker: &Worker, waits: bool) {
    if let Some(stream) = worker.stream() {
        stream.waits_for_client(waits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_does_wrong_is_forgotten_with_its_period() {
        let mut faults = Faults::new(&Limits { broken_max: 2, resets_max: 1, ..Limits::default() });
        for now in [0, flood::PERIOD] {
            assert!(
                [Ended::Broken, Ended::Well, Ended::Broken].map(|it| faults.pay(it, now))
                    == [true; 3]
            );
            assert!(!faults.pay(Ended::Broken, now));
            assert!(faults.pay(Ended::Reset, now), "counted apart");
            assert!(!faults.pay(Ended::Reset, now));
        }
        let mut none = Faults::new(&Limits { broken_max: 0, ..Limits::default() });
        assert!(!none.pay(Ended::Broken, 0));
    }
}
