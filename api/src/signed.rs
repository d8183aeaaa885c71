//! Signed answers, where the operator has switched them on: whoever has the public key of
//! `/api/v1/meta/public-key` can check that an answer is this installation's, and to which request.

use axum::{
    body::{Body, Bytes, HttpBody as _},
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use http::{HeaderName, HeaderValue, Method};

use crate::Front;

/// The name that the clients of the reference look for.
const SIGNATURE: HeaderName = HeaderName::from_static("x-hoody-signature");
/// Answers to longer paths go without: the path stands in the header, and clients bound their heads.
const PATH_MAX: usize = 2048;

/// Signs each answer that has a body and whose length is known: streams have no end to sign.
pub(crate) async fn answers(State(front): State<Front>, request: Request, next: Next) -> Response {
    if !front.control.signs_answers() {
        return next.run(request).await;
    }
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = next.run(request).await;
    let len = response.body().size_hint().exact().unwrap_or(0);
    if len == 0 || method == Method::HEAD || path.len() > PATH_MAX {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    // Complete already: handlers print whole answers.
    let bytes = match axum::body::to_bytes(body, usize::MAX).await {
        Ok(bytes) => bytes,
        Err(error) => {
            tracing::error!(target: "api", %error, "an answer could not be collected");
            Bytes::new()
        }
    };
    let status = parts.status.as_u16();
    let signature = front.control.sign_answer(method.as_str(), status, &path, &bytes);
    if let Some(Ok(value)) = signature.map(HeaderValue::try_from) {
        parts.headers.insert(SIGNATURE, value);
    }
    Response::from_parts(parts, Body::from(bytes))
}
