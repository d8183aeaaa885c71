//! From the edge to a container and back: one request, one response, perhaps a tunnel.

use std::{rc::Rc, sync::Arc};

use gantry_model::{Scheme, Service};
use http::{
    Extensions, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header,
    uri::PathAndQuery,
};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::timeout;

use crate::{
    account::Account,
    answer::{Failure, X_REQUEST_ID},
    body::{EdgeBody, Progress, RequestBody},
    downstream::Protocol,
    headers::clean_response,
    pipeline::Ask,
    pool::PoolKey,
    start::ensure_started,
    tunnel::UpstreamEnd,
    upstream::{Channel, DialError, Endpoint, ExchangeError, UpstreamBody, UpstreamIo, dial},
    watch::{Patience, Wait},
};

/// A container that runs for less than this may not have opened its ports yet.
const FRESH_MS: i64 = 10_000;

/// Where a request goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Upstream {
    pub(crate) endpoint: Endpoint,
    /// The Kit service and its index, which can be started.
    pub(crate) kit: Option<(Service, u16)>,
    /// Since when the container runs.
    pub(crate) since_ms: i64,
}

/// A client's request, taken to pieces where its parts are needed: a request is large, and each
/// phase that owned it would move it once more.
pub(crate) type Downstreams<'r> = &'r mut Request<Option<Incoming>>;

/// Sends a request to a container and returns the response, whose body still comes.
pub(crate) async fn forward(
    ask: &Ask<'_>,
    to: &Upstream,
    request: Downstreams<'_>,
    account: &mut Account,
) -> Result<Response<EdgeBody>, Failure> {
    let (body, progress) = request_body(ask, request.body_mut().take());
    if let Some(progress) = &progress {
        account.body_is(Rc::clone(progress));
    }
    let (request, request_id) = rewrite(ask, request, body);
    let wait = ask.worker.watch().wait(Some(to.endpoint.origin));
    if ask.survey.upgrade.is_some() {
        return Box::pin(upgrade(ask, to, request, wait, request_id)).await;
    }
    let (response, channel) = send(ask, to, request, &wait, progress.as_deref()).await?;
    respond(ask, to, response, channel, wait, request_id)
}

/// Makes a client's request the edge's own. Returns the request's id as a field, too.
fn rewrite(
    ask: &Ask<'_>,
    from: Downstreams<'_>,
    body: RequestBody,
) -> (Request<RequestBody>, HeaderValue) {
    let mut request = Request::new(body);
    std::mem::swap(request.method_mut(), from.method_mut());
    // hyper takes a GET whose length is not known for one without a body.
    let say_chunked = matches!(*request.method(), Method::GET | Method::HEAD)
        && request.body().size_hint().exact().is_none();
    // Containers get the origin form, however the client named its target.
    *request.uri_mut() = if from.uri().authority().is_some() {
        let path = from.uri().path_and_query().cloned();
        Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")))
    } else {
        std::mem::take(from.uri_mut())
    };
    let mut headers = std::mem::take(from.headers_mut());
    ask.survey.clean(&mut headers);
    let span = ask.worker.next_span();
    let id = ask.survey.identify(&mut headers, ask.authority, ask.downstream, ask.id, span);
    if let Some(upgrade) = &ask.survey.upgrade {
        headers.insert(header::UPGRADE, upgrade.clone());
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    if let Some(handshake) = ask.handshake {
        handshake.ask(&mut headers);
    }
    if say_chunked {
        headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    *request.headers_mut() = headers;
    (request, id)
}

fn request_body(ask: &Ask<'_>, incoming: Option<Incoming>) -> (RequestBody, Option<Rc<Progress>>) {
    let Some(incoming) = incoming.filter(|incoming| !incoming.is_end_stream()) else {
        return (RequestBody::Empty, None);
    };
    let limits = ask.worker.limits();
    let patience = match ask.downstream.protocol {
        // The gate watches the one body that an HTTP/1 connection has at a time.
        Protocol::Http1 => None,
        Protocol::Http2 => Some(Patience::new(limits.body_idle, limits.body_rate_min)),
    };
    let progress = Rc::new(Progress::default());
    let wait = ask.worker.watch().wait(None);
    let body = RequestBody::streaming(incoming, Rc::clone(&progress), wait, patience);
    (body, Some(progress))
}

/// Sends the request, once more on a new connection if a kept one turns out to be closed and nothing
/// can have happened, or happening twice does no harm.
async fn send(
    ask: &Ask<'_>,
    to: &Upstream,
    mut request: Request<RequestBody>,
    wait: &Wait,
    progress: Option<&Progress>,
) -> Result<(Response<Incoming>, Channel), Failure> {
    let timeout = ask.worker.limits().upstream_head_timeout;
    let metrics = ask.worker.metrics();
    let kept = ask.worker.pool().take(&key(to));
    if let Some(mut channel) = kept {
        metrics.upstream_reuses.add(1);
        let spare = spare(&request);
        match channel.exchange(request, wait, progress, timeout).await {
            Ok(response) => return Ok((response, channel)),
            Err(ExchangeError::Unsent(unsent)) => request = *unsent,
            Err(ExchangeError::Broken(error)) => match spare {
                Some(spare) => request = spare,
                None => return Err(failure(ask, ExchangeError::Broken(error))),
            },
            Err(error @ (ExchangeError::Body | ExchangeError::Timeout | ExchangeError::Cut)) => {
                return Err(failure(ask, error));
            }
        }
        metrics.upstream_retries.add(1);
    }
    let mut channel = Box::pin(connect(ask, to)).await?;
    match channel.exchange(request, wait, progress, timeout).await {
        Ok(response) => Ok((response, channel)),
        Err(error) => Err(failure(ask, error)),
    }
}

fn key(to: &Upstream) -> PoolKey {
    let Endpoint { origin, port, scheme, .. } = to.endpoint;
    PoolKey { origin, port, scheme }
}

/// A copy of a request that may be sent twice.
fn spare(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    let repeatable = matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE
    ) && matches!(request.body(), RequestBody::Empty);
    repeatable.then(|| {
        let mut spare = Request::new(RequestBody::Empty);
        spare.method_mut().clone_from(request.method());
        spare.uri_mut().clone_from(request.uri());
        spare.headers_mut().clone_from(request.headers());
        spare
    })
}

fn failure(ask: &Ask<'_>, error: ExchangeError) -> Failure {
    match error {
        ExchangeError::Body => Failure::BodyLost,
        ExchangeError::Timeout => Failure::UpstreamTimeout,
        ExchangeError::Cut => Failure::ContainerStopped,
        ExchangeError::Unsent(_) => Failure::UpstreamBroken,
        ExchangeError::Broken(error) => {
            tracing::debug!(id = %ask.id, %error, "a container broke an exchange off");
            Failure::UpstreamBroken
        }
    }
}

/// Connects to a container; a Kit service that is not there yet is started.
async fn connect(ask: &Ask<'_>, to: &Upstream) -> Result<Channel, Failure> {
    let io = match dial_once(ask, to).await {
        Err(DialError::Refused) => {
            let Some((service, index)) = to.kit else {
                let fresh = ask.worker.now_ms().saturating_sub(to.since_ms) < FRESH_MS;
                return Err(Failure::PortClosed { port: to.endpoint.port, fresh });
            };
            ensure_started(ask.worker, to.endpoint, service, index).await?;
            dial_once(ask, to).await
        }
        other => other,
    };
    let io = io.map_err(|error| {
        tracing::debug!(id = %ask.id, error = %gantry_model::Chain(&error), "cannot connect");
        match (error, to.kit) {
            (DialError::Timeout, _) => Failure::UpstreamTimeout,
            (DialError::Tls(_), _) => Failure::UpstreamUnreachable { scheme: Scheme::Https },
            (DialError::Refused, Some((service, _))) => {
                Failure::ServiceNotStarted { service, retry: true }
            }
            (DialError::Refused | DialError::Forbidden(_) | DialError::Unreachable(_), _) => {
                Failure::UpstreamUnreachable { scheme: Scheme::Http }
            }
        }
    })?;
    // It may have been stopped meanwhile, and its address may be another tenant's by now: look before
    // anything is sent.
    if ask.worker.is_gone(&to.endpoint.origin) {
        return Err(Failure::ContainerStopped);
    }
    Channel::open(io).await.or(Err(Failure::UpstreamBroken))
}

async fn dial_once(ask: &Ask<'_>, to: &Upstream) -> Result<UpstreamIo, DialError> {
    let worker = ask.worker;
    let tls = Arc::clone(&worker.tls().client);
    let dialled = dial(to.endpoint, worker.dial_rules(), &tls);
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
fn respond(
    ask: &Ask<'_>,
    to: &Upstream,
    response: Response<Incoming>,
    channel: Channel,
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
    let worker = Rc::clone(ask.worker);
    let mut body = UpstreamBody::new(worker, incoming, channel, key(to), wait);
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
    request: Request<RequestBody>,
    wait: Wait,
    request_id: HeaderValue,
) -> Result<Response<EdgeBody>, Failure> {
    let mut channel = connect(ask, to).await?;
    let head_timeout = ask.worker.limits().upstream_head_timeout;
    let exchanged = channel.exchange(request, &wait, None, head_timeout).await;
    let response = exchanged.map_err(|error| failure(ask, error))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        // Over HTTP/2 any success would open the tunnel.
        if ask.handshake.is_some() && response.status().is_success() {
            return Err(Failure::UpstreamBroken);
        }
        return respond(ask, to, response, channel, wait, request_id);
    }
    let (mut parts, _) = response.into_parts();
    let protocol = parts.headers.get(header::UPGRADE).cloned();
    let protocol = protocol.filter(|protocol| is_asked_for(ask, protocol));
    let protocol = protocol.ok_or(Failure::UpstreamBroken)?;
    let (io, read) = channel.into_stream().await.or(Err(Failure::UpstreamBroken))?;
    let tunnel = UpstreamEnd::new(io, read, to.endpoint.origin);
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
    parts.version = Version::HTTP_11;
    parts.extensions = Extensions::new();
    Ok(Response::from_parts(parts, EdgeBody::tunnel(tunnel)))
}

/// Whether the protocol that a container switched to is one that the client had named.
fn is_asked_for(ask: &Ask<'_>, protocol: &HeaderValue) -> bool {
    let asked = ask.survey.upgrade.as_ref().map_or(&b""[..], HeaderValue::as_bytes);
    asked
        .split(|&octet| octet == b',')
        .any(|token| token.trim_ascii().eq_ignore_ascii_case(protocol.as_bytes().trim_ascii()))
}
