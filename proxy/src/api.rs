//! The API behind the pipeline: an in-process service that runs on the control runtime, so that
//! nothing it does can hold up an edge worker.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::Poll,
};

use bytes::Bytes;
use gantry_model::RealmId;
use http::{HeaderValue, Request, Response, StatusCode, header, request::Parts};
use http_body::Body as _;
use http_body_util::{BodyExt, Empty};
use tokio::{io::DuplexStream, task::JoinHandle};
use tower::ServiceExt;

use crate::{
    answer::{Failure, X_REQUEST_ID},
    body::{EdgeBody, TimedBody},
    deps::{ApiRealm, ApiUpgrade, Body, ClientAddress},
    forward::{self, Downstreams},
    headers::clean_response,
    limits::CutBy,
    pipeline::Ask,
    tunnel::UpstreamEnd,
};

/// The octets on their way to or from the API in a tunnel, each.
const TUNNEL: usize = 16 * 1024;

/// Asks the API.
pub(crate) async fn call(
    ask: &Ask<'_>,
    realm: Option<RealmId>,
    request: Downstreams<'_>,
) -> Result<Response<EdgeBody>, Failure> {
    let limits = ask.worker.limits();
    let (mut parts, incoming) = std::mem::take(request).into_parts();
    parts.headers = ask.survey.passing(&parts.headers);
    parts.extensions = http::Extensions::new();
    parts.extensions.insert(ClientAddress(ask.downstream.peer));
    parts.extensions.insert(ApiRealm(realm));
    parts.extensions.insert(ask.id);
    let tunnel = ask.survey.upgrade.as_ref().map(|protocol| offer(ask, protocol, &mut parts));
    let late = Arc::<AtomicBool>::default();
    let body = match incoming.filter(|incoming| !incoming.is_end_stream()) {
        Some(incoming) => {
            if let Some(interims) = ask.interims {
                interims.ask();
            }
            Body::new(TimedBody::new(incoming, limits.body_idle, &late))
        }
        None => Body::new(Empty::<Bytes>::new().map_err(|never| match never {})),
    };
    let service = ask.worker.deps().api.clone();
    let request = Request::from_parts(parts, body);
    let mut task = Cancelled(ask.worker.deps().control.spawn(service.oneshot(request)));

    let wait = ask.worker.watch().wait(None);
    wait.within(limits.upstream_head_timeout);
    let response = poll_fn(|cx| match Pin::new(&mut task.0).poll(cx) {
        Poll::Ready(Ok(Ok(response))) => Poll::Ready(Ok(response)),
        Poll::Ready(Ok(Err(never))) => match never {},
        Poll::Ready(Err(error)) => {
            tracing::error!(id = %ask.id, %error, "the API did not answer");
            Poll::Ready(Err(Failure::ApiUnavailable))
        }
        Poll::Pending if wait.poll_over(cx).is_some() => Poll::Ready(Err(Failure::ApiUnavailable)),
        Poll::Pending => Poll::Pending,
    })
    .await;
    if late.load(Relaxed) {
        ask.worker.metrics().cut(CutBy::BodyPause);
    }
    let response = response?;
    let is_left = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    match tunnel {
        Some(tunnel) if is_left => {
            let (parts, _) = response.into_parts();
            let id = HeaderValue::try_from(ask.id.to_string()).or(Err(Failure::ApiUnavailable))?;
            return forward::leave(ask, parts, UpstreamEnd::api(tunnel), id);
        }
        // Over HTTP/2 any success would open the tunnel.
        Some(_) if ask.handshake.is_some() && response.status().is_success() => {
            return Err(Failure::MethodNotSupported);
        }
        // Nobody asked for it.
        None if is_left => return Err(Failure::ApiUnavailable),
        Some(_) | None => {}
    }

    let mut response = response.map(EdgeBody::api);
    let headers = response.headers_mut();
    clean_response(headers, ask.hostname.as_str());
    if let Ok(id) = HeaderValue::try_from(ask.id.to_string()) {
        headers.insert(&X_REQUEST_ID, id);
    }
    Ok(response)
}

/// Offers the API to leave HTTP with this request; returns the client's end of what it may go on over.
fn offer(ask: &Ask<'_>, protocol: &HeaderValue, parts: &mut Parts) -> DuplexStream {
    parts.headers.insert(header::UPGRADE, protocol.clone());
    parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    if let Some(handshake) = ask.handshake {
        handshake.ask(&mut parts.headers);
    }
    let (ours, end) = tokio::io::duplex(TUNNEL);
    parts.extensions.insert(ApiUpgrade::new(end));
    ours
}

/// A task that ends when nobody waits for it any more: the client has left.
struct Cancelled<T>(JoinHandle<T>);

impl<T> Drop for Cancelled<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
