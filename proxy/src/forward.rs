//! From the edge to a container and back: one request, one response, perhaps a tunnel.

use std::{
    hash::BuildHasher,
    net::{Ipv4Addr, SocketAddr},
    rc::Rc,
    time::Duration,
};

use gantry_model::{Scheme, Service};
use http::{
    Extensions, HeaderValue, Request, Response, StatusCode, Version, header, response::Parts,
};
use http_body::Body as _;
use tokio::time::{Instant, timeout};

use crate::{
    account::Account,
    answer::{Failure, X_REQUEST_ID},
    body::{ClientBody, EdgeBody, Progress, RequestBody},
    downstream::{Downstream, Protocol},
    guard::Denied,
    headers::clean_response,
    multiplex::Shared,
    outgoing::Outgoing,
    pipeline::Ask,
    pool::{Need, PoolKey},
    proxy_protocol::Ends,
    rewrite,
    start::{ensure_started, wait_for_port},
    traffic::Flow,
    tunnel::UpstreamEnd,
    upstream::{
        Channel, DialError, Endpoint, ExchangeError, Incoming, Introduction, Lease, Offer, Terms,
        UpstreamBody, UpstreamIo, by_channel, dial, give_back,
    },
    watch::{Patience, Wait},
};

/// A container that runs for less than this may not have opened its ports yet.
const FRESH_MS: i64 = 10_000;

/// A Kit service that a hostname named.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KitService {
    pub(crate) service: Service,
    pub(crate) index: u16,
    /// What is started when nothing listens. Nothing can be if the Kit does not bring the service; then
    /// a program of the container's own may listen.
    pub(crate) starts: Option<(Service, u16)>,
}

/// Where a request goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Upstream {
    pub(crate) endpoint: Endpoint,
    /// The Kit service that it is for, if it is for one.
    pub(crate) kit: Option<KitService>,
    /// Since when the container runs.
    pub(crate) since_ms: i64,
    /// This request woke it, and may wait until its ports open.
    pub(crate) is_patient: bool,
    /// Whether the port wants to hear in a header of the PROXY protocol who the client is.
    pub(crate) says: bool,
    /// The client's address, if the connection is to come from there.
    pub(crate) bind: Option<Ipv4Addr>,
}

impl Upstream {
    /// Whether connections are made for one client and must not be used for another.
    fn is_own(&self) -> bool {
        self.says || self.bind.is_some()
    }

    fn introduction(&self, downstream: &Downstream) -> Introduction {
        let Endpoint { address, port, .. } = self.endpoint;
        let destination = downstream.local.unwrap_or_else(|| SocketAddr::new(address, port));
        let header = self.says.then_some(Ends { source: downstream.peer, destination });
        Introduction { header, bind: self.bind }
    }
}

/// A client's request, taken to pieces where its parts are needed: a request is large, and each
/// phase that owned it would move it once more.
pub(crate) type Downstreams<'r> = &'r mut Request<Option<ClientBody>>;

/// Sends a request to a container and returns the response, whose body still comes.
pub(crate) async fn forward(
    ask: &Ask<'_>,
    to: &Upstream,
    request: Downstreams<'_>,
    account: &mut Account,
) -> Result<Response<EdgeBody>, Failure> {
    if let Some(kit) = to.kit {
        rewrite::select((kit.service, kit.index), request)?;
    }
    let flow = account.flow().cloned();
    let (body, progress) = request_body(ask, request.body_mut().take(), flow);
    if let Some(progress) = &progress {
        account.body_is(Rc::clone(progress));
    }
    let outgoing = Outgoing::new(ask, request);
    let wait = wait(ask, to)?;
    if ask.survey.upgrade.is_some() {
        return Box::pin(upgrade(ask, to, &outgoing, body, wait)).await;
    }
    let progress = progress.as_deref();
    let sent = send(ask, to, &outgoing, body, (&wait, progress)).await;
    let (response, lease) = sent.map_err(|failure| match progress {
        Some(progress) if progress.is_too_large() => Failure::BodyTooLarge,
        Some(_) | None => failure,
    })?;
    respond(ask, to, response, lease, wait, outgoing.id())
}

/// A wait that ends with the container's start, and when the gate lets the asker in no more.
pub(crate) fn wait(ask: &Ask<'_>, to: &Upstream) -> Result<Wait, Failure> {
    let wait = ask.worker.watch().wait(Some(to.endpoint.origin));
    if let Some(pass) = &ask.pass {
        ask.worker.rests(&wait, Rc::clone(pass));
        // The gate may have changed since it was looked at, and the streams been compared with it before
        // this one was among them.
        if ask.seen != ask.worker.routes_seen()
            && ask.worker.is_over(&to.endpoint.origin, Some(pass))
        {
            return Err(cut(ask, to));
        }
    }
    Ok(wait)
}

pub(crate) fn request_body(
    ask: &Ask<'_>,
    incoming: Option<ClientBody>,
    flow: Option<Rc<Flow>>,
) -> (RequestBody, Option<Rc<Progress>>) {
    let Some(incoming) = incoming.filter(|incoming| !incoming.is_end_stream()) else {
        return (RequestBody::Empty, None);
    };
    let limits = ask.worker.limits();
    let patience = match ask.downstream.protocol {
        // The connection watches the one body that it has at a time.
        Protocol::Http1 => None,
        Protocol::Http2 | Protocol::Http3 if ask.survey.grpc => {
            Some(Patience::of_a_call(limits.stream_idle))
        }
        Protocol::Http2 | Protocol::Http3 => {
            Some(Patience::new(limits.body_idle, limits.body_rate_min))
        }
    };
    let progress = Rc::new(Progress::new(flow, limits.body_bytes_max));
    let wait = ask.worker.watch().wait(None);
    let body = RequestBody::streaming(incoming, Rc::clone(&progress), wait, patience);
    (body.asked_by(ask.interims), Some(progress))
}

/// Sends the request, once more on a new connection if a kept one turns out to be closed and nothing
/// can have happened, or happening twice does no harm.
async fn send(
    ask: &Ask<'_>,
    to: &Upstream,
    outgoing: &Outgoing<'_, '_>,
    mut body: RequestBody,
    watched: Watched<'_>,
) -> Result<(Response<Incoming>, Lease), Failure> {
    let metrics = ask.worker.metrics();
    // Without TLS a call says by itself what it needs.
    let need = match to.endpoint.scheme {
        Scheme::Http if ask.survey.grpc => Need::Http2,
        Scheme::Http | Scheme::Https => Need::Any,
    };
    let kept = match (to.is_own(), need) {
        (false, need) => ask.worker.pool().take(&key(ask, to), need),
        (true, Need::Any) => ask.downstream.take_own(&key(ask, to)).map(Lease::Http1),
        (true, Need::Http2) => None,
    };
    if let Some(mut lease) = kept {
        metrics.upstream_reuses.add(1);
        let is_repeatable = outgoing.is_repeatable(&body);
        match exchange(ask, to, &mut lease, outgoing, body, watched).await {
            Ok(response) => return Ok((response, lease)),
            Err(ExchangeError::Unsent(unsent)) => body = unsent,
            Err(ExchangeError::Broken(_)) if is_repeatable => body = RequestBody::Empty,
            Err(error) => return Err(failure(ask, to, error)),
        }
        metrics.upstream_retries.add(1);
    }
    Box::pin(send_on_new(ask, to, need, outgoing, body, watched)).await
}

/// Sends the request on a new connection; by HTTP/2, if that proves to be all that the port speaks.
async fn send_on_new(
    ask: &Ask<'_>,
    to: &Upstream,
    need: Need,
    outgoing: &Outgoing<'_, '_>,
    body: RequestBody,
    watched: Watched<'_>,
) -> Result<(Response<Incoming>, Lease), Failure> {
    let mut lease = connect(ask, to, need, Offer::Http2).await?;
    let may_ask_anew = to.endpoint.scheme == Scheme::Http && need == Need::Any;
    let is_repeatable = may_ask_anew && outgoing.is_repeatable(&body);
    let body = match exchange(ask, to, &mut lease, outgoing, body, watched).await {
        Ok(response) => return Ok((response, lease)),
        // A server of HTTP/2 speaks first: its frames may come before anything was sent, or be read
        // in the place of an answer.
        Err(ExchangeError::Unsent(unsent)) if may_ask_anew => unsent,
        Err(ExchangeError::Broken(error)) if is_repeatable && error.is_parse() => {
            RequestBody::Empty
        }
        Err(error) => return Err(failure(ask, to, error)),
    };
    ask.worker.metrics().upstream_retries.add(1);
    let mut lease = connect(ask, to, Need::Http2, Offer::Http2).await?;
    match exchange(ask, to, &mut lease, outgoing, body, watched).await {
        Ok(response) => Ok((response, lease)),
        Err(error) => Err(failure(ask, to, error)),
    }
}

/// What ends an exchange, and how far the request's body has come.
type Watched<'a> = (&'a Wait, Option<&'a Progress>);

/// One exchange, in the form that the connection wants.
async fn exchange(
    ask: &Ask<'_>,
    to: &Upstream,
    lease: &mut Lease,
    outgoing: &Outgoing<'_, '_>,
    body: RequestBody,
    watched: Watched<'_>,
) -> Result<Response<Incoming>, ExchangeError> {
    let limits = ask.worker.limits();
    // A call has a deadline of its own, if it has one, and may begin to answer when it ends.
    let timeout = if ask.survey.grpc { limits.stream_idle } else { limits.upstream_head_timeout };
    let terms = terms(ask, watched, timeout);
    match lease {
        Lease::Http1(channel) => {
            channel.exchange(outgoing.message(body), &terms).await.map(by_channel)
        }
        Lease::Http2(lane) => {
            let scheme = match to.endpoint.scheme {
                Scheme::Http => http::uri::Scheme::HTTP,
                Scheme::Https => http::uri::Scheme::HTTPS,
            };
            let tasks = (ask.worker, to.endpoint.origin);
            lane.exchange(tasks, outgoing.request(body, scheme), &terms).await
        }
    }
}

/// The terms of an exchange whose answer must begin within `timeout`.
pub(crate) fn terms<'a>(
    ask: &'a Ask<'_>,
    (wait, progress): Watched<'a>,
    timeout: Duration,
) -> Terms<'a> {
    let expect_timeout = ask.worker.limits().expect_timeout;
    let interims = ask.interims.map(|interims| (interims, ask.hostname.as_str()));
    Terms { wait, progress, timeout, expect_timeout, interims }
}

pub(crate) fn key(ask: &Ask<'_>, to: &Upstream) -> PoolKey {
    let Endpoint { origin, port, scheme, .. } = to.endpoint;
    let name = match scheme {
        Scheme::Http => 0,
        Scheme::Https => foldhash::fast::FixedState::default().hash_one(ask.hostname.as_str()),
    };
    PoolKey { origin, port, scheme, name }
}

/// Gives a connection back whose answer ends with its head.
pub(crate) fn keep(ask: &Ask<'_>, to: &Upstream, response: &Response<Incoming>, lease: Lease) {
    let is_ended = match (&lease, response.body()) {
        (Lease::Http1(channel), _) => channel.is_ended(),
        (Lease::Http2(_), Incoming::Http2(incoming)) => incoming.is_end_stream(),
        (Lease::Http2(_), Incoming::Http1) => false,
    };
    if is_ended {
        give_back(ask.worker, lease, (key(ask, to), None));
    }
}

pub(crate) fn failure(ask: &Ask<'_>, to: &Upstream, error: ExchangeError) -> Failure {
    match error {
        ExchangeError::Body => Failure::BodyLost,
        ExchangeError::Timeout => Failure::UpstreamTimeout,
        ExchangeError::Cut => cut(ask, to),
        ExchangeError::Unsent(_) => Failure::UpstreamBroken,
        ExchangeError::Broken(error) => {
            tracing::debug!(id = %ask.id, %error, "a container broke an exchange off");
            Failure::UpstreamBroken
        }
    }
}

/// Why a request was cut: its container is gone, or is not for whoever asked any more.
fn cut(ask: &Ask<'_>, to: &Upstream) -> Failure {
    if ask.worker.is_gone(&to.endpoint.origin) {
        Failure::ContainerStopped
    } else {
        Denied::Access.into()
    }
}

/// Connects to a container; a Kit service that is not there yet is started.
pub(crate) async fn connect(
    ask: &Ask<'_>,
    to: &Upstream,
    need: Need,
    offer: Offer,
) -> Result<Lease, Failure> {
    let io = match dial_once(ask, to, offer).await {
        Err(DialError::Refused) => {
            match to.kit.and_then(|kit| kit.starts) {
                Some((service, index)) => {
                    ensure_started(ask.worker, to.endpoint, service, index).await?;
                }
                None => wait_while_fresh(ask, to).await?,
            }
            dial_once(ask, to, offer).await
        }
        other => other,
    };
    let io = io.map_err(|error| {
        tracing::debug!(id = %ask.id, error = %gantry_model::Chain(&error), "cannot connect");
        match (error, to.kit) {
            (DialError::Timeout, _) => Failure::UpstreamTimeout,
            (DialError::Tls(_), _) => Failure::UpstreamUnreachable { scheme: Scheme::Https },
            (DialError::Refused, Some(KitService { starts: Some((service, _)), .. })) => {
                Failure::ServiceNotStarted { service, retry: true }
            }
            // Whoever listened a moment ago does not any more.
            (DialError::Refused, _) => closed(ask, to).0,
            (DialError::Forbidden(_) | DialError::Unreachable(_), _) => {
                Failure::UpstreamUnreachable { scheme: Scheme::Http }
            }
        }
    })?;
    // It may have been stopped meanwhile, and its address may be another tenant's by now: look before
    // anything is sent.
    if ask.worker.is_gone(&to.endpoint.origin) {
        return Err(Failure::ContainerStopped);
    }
    if need == Need::Any && !io.is_http2() {
        return Ok(Lease::Http1(Box::new(Channel::new(io))));
    }
    let shared = Shared::open(ask.worker, io, to.endpoint.origin).await;
    let shared = shared.or(Err(Failure::UpstreamBroken))?;
    let lane = shared.lane().ok_or(Failure::UpstreamBroken)?;
    if !to.is_own() {
        ask.worker.pool().share(key(ask, to), shared);
    }
    Ok(Lease::Http2(lane))
}

/// What to say of a port where nobody listens, and for how many milliseconds more somebody may be about to.
fn closed(ask: &Ask<'_>, to: &Upstream) -> (Failure, u64) {
    let left_ms = FRESH_MS - ask.worker.now_ms().saturating_sub(to.since_ms);
    let left = u64::try_from(left_ms).unwrap_or(0);
    let (port, fresh) = (to.endpoint.port, left > 0);
    let failure = match to.kit {
        Some(KitService { service, .. }) => Failure::ServiceAbsent { service, port, fresh },
        None => Failure::PortClosed { port, fresh },
    };
    (failure, left)
}

/// Waits for the port of a container that was started a moment ago, if the request may wait.
async fn wait_while_fresh(ask: &Ask<'_>, to: &Upstream) -> Result<(), Failure> {
    let (closed, left) = closed(ask, to);
    if left == 0 || !to.is_patient {
        return Err(closed);
    }
    let deadline = Instant::now() + Duration::from_millis(left);
    wait_for_port(ask.worker, to.endpoint, deadline, closed).await
}

async fn dial_once(ask: &Ask<'_>, to: &Upstream, offer: Offer) -> Result<UpstreamIo, DialError> {
    let worker = ask.worker;
    let host = Some(ask.hostname.as_str());
    let introduction = to.introduction(ask.downstream);
    let dialled = dial(to.endpoint, host, offer, introduction, worker.dial_rules(), worker.tls());
    let result = match timeout(worker.limits().connect_timeout, dialled).await {
        Ok(result) => result,
        Err(_) => Err(DialError::Timeout),
    };
    match &result {
        Ok(_) => worker.metrics().upstream_connects.add(1),
        Err(_) => worker.metrics().upstream_connect_failures.add(1),
    }
    result
}

/// Makes a container's response the edge's own.
pub(crate) fn respond(
    ask: &Ask<'_>,
    to: &Upstream,
    response: Response<Incoming>,
    mut lease: Lease,
    wait: Wait,
    request_id: HeaderValue,
) -> Result<Response<EdgeBody>, Failure> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        // Nobody asked for it.
        return Err(Failure::UpstreamBroken);
    }
    let (mut parts, incoming) = response.into_parts();
    clean_response(&mut parts.headers, ask.hostname.as_str());
    parts.headers.insert(&X_REQUEST_ID, request_id);
    parts.version = Version::HTTP_11;
    parts.extensions = Extensions::new();
    let home = (key(ask, to), to.is_own().then(|| Rc::clone(ask.downstream)));
    if let Lease::Http1(channel) = &mut lease
        && let Some(whole) = channel.take_whole()
    {
        give_back(ask.worker, lease, home);
        return Ok(Response::from_parts(parts, EdgeBody::full(whole)));
    }
    if ask.downstream.protocol == Protocol::Http1 {
        ask.downstream.sends(to.endpoint.origin, ask.pass.as_ref());
    }
    let mut body = UpstreamBody::new(Rc::clone(ask.worker), incoming, lease, home, wait);
    if body.is_end_stream() {
        body.release();
        return Ok(Response::from_parts(parts, EdgeBody::EMPTY));
    }
    Ok(Response::from_parts(parts, EdgeBody::upstream(body)))
}

/// Asks a container to leave HTTP. Only its 101 opens the tunnel; any other answer is passed on, and
/// what the client has sent meanwhile stays where it is.
async fn upgrade(
    ask: &Ask<'_>,
    to: &Upstream,
    outgoing: &Outgoing<'_, '_>,
    body: RequestBody,
    wait: Wait,
) -> Result<Response<EdgeBody>, Failure> {
    let Lease::Http1(mut channel) = connect(ask, to, Need::Any, Offer::Http1).await? else {
        // It was offered HTTP/1.1 alone.
        return Err(Failure::UpstreamBroken);
    };
    let head_timeout = ask.worker.limits().upstream_head_timeout;
    let terms = terms(ask, (&wait, None), head_timeout);
    let exchanged = channel.exchange(outgoing.message(body), &terms).await;
    let response = exchanged.map_err(|error| failure(ask, to, error))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        // Over HTTP/2 any success would open the tunnel.
        if ask.handshake.is_some() && response.status().is_success() {
            return Err(Failure::UpstreamBroken);
        }
        let lease = Lease::Http1(channel);
        return respond(ask, to, by_channel(response), lease, wait, outgoing.id());
    }
    let (parts, ()) = response.into_parts();
    let (io, read) = channel.into_stream();
    let end = UpstreamEnd::new(io, read, to.endpoint.origin, ask.pass.clone());
    leave(ask, parts, end, outgoing.id())
}

/// The answer that opens a tunnel to `end`, made of an upstream's 101.
pub(crate) fn leave(
    ask: &Ask<'_>,
    mut parts: Parts,
    end: UpstreamEnd,
    request_id: HeaderValue,
) -> Result<Response<EdgeBody>, Failure> {
    let protocol = parts.headers.get(header::UPGRADE).cloned();
    let protocol = protocol.filter(|protocol| is_asked_for(ask, protocol));
    let protocol = protocol.ok_or(Failure::UpstreamBroken)?;
    clean_response(&mut parts.headers, ask.hostname.as_str());
    if let Some(handshake) = ask.handshake {
        if !handshake.is_accepted(&mut parts.headers) {
            return Err(Failure::UpstreamBroken);
        }
        parts.status = StatusCode::OK;
    } else {
        parts.headers.insert(header::UPGRADE, protocol);
        parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    parts.headers.insert(&X_REQUEST_ID, request_id);
    Ok(Response::from_parts(parts, EdgeBody::tunnel(end)))
}

/// Whether the protocol that an upstream switched to is one that the client had named.
fn is_asked_for(ask: &Ask<'_>, protocol: &HeaderValue) -> bool {
    let asked = ask.survey.upgrade.as_ref().map_or(&b""[..], HeaderValue::as_bytes);
    asked
        .split(|&octet| octet == b',')
        .any(|token| token.trim_ascii().eq_ignore_ascii_case(protocol.as_bytes().trim_ascii()))
}
