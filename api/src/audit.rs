//! One line for every write: who, what, from where, with what result.

use axum::{
    extract::{MatchedPath, Request},
    middleware::Next,
    response::Response,
};
use http::Method;

use crate::caller::{ClientAddress, RequestId, Signature};

/// Logs each request that is not a read, on the target `audit`. Paths are logged as sent, without
/// their query; bodies and credentials never.
pub(crate) async fn writes(mut request: Request, next: Next) -> Response {
    let read = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if read || request.extensions().get::<MatchedPath>().is_none() {
        return next.run(request).await;
    }
    let signature = Signature::default();
    request.extensions_mut().insert(signature.clone());
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let address = request.extensions().get::<ClientAddress>().map(|client| client.0.ip());
    let id = request.extensions().get::<RequestId>().cloned();
    let response = next.run(request).await;
    tracing::info!(
        target: "audit",
        user = signature.0.get().map_or("-", String::as_str),
        %method,
        path,
        status = response.status().as_u16(),
        client = address.map(tracing::field::display),
        request = id.as_ref().map(|id| &*id.0),
        "write"
    );
    response
}
