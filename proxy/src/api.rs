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
use http::{HeaderValue, Request, Response};
use http_body::Body as _;
use http_body_util::{BodyExt, Empty};
use tokio::task::JoinHandle;
use tower::ServiceExt;

use crate::{
    answer::{Failure, X_REQUEST_ID},
    body::{EdgeBody, TimedBody},
    deps::{ApiRealm, Body, ClientAddress},
    forward::Downstreams,
    headers::clean_response,
    limits::CutBy,
    pipeline::Ask,
};

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

    let mut response = response.map(EdgeBody::api);
    let headers = response.headers_mut();
    clean_response(headers, ask.hostname.as_str());
    if let Ok(id) = HeaderValue::try_from(ask.id.to_string()) {
        headers.insert(&X_REQUEST_ID, id);
    }
    Ok(response)
}

/// A task that ends when nobody waits for it any more: the client has left.
struct Cancelled<T>(JoinHandle<T>);

impl<T> Drop for Cancelled<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
