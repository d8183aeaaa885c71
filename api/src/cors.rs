//! Cross-origin access: open to every page, without cookies.
//!
//! The credential is a header that a page must know, never one that a browser adds by itself, so
//! any origin may call; `Access-Control-Allow-Credentials` is therefore never sent.

use axum::{body::Body, extract::Request, middleware::Next, response::Response};
use http::{HeaderName, HeaderValue, Method, StatusCode, header};

const ALLOW: [(HeaderName, HeaderValue); 3] = [
    (
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
    ),
    (
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static(
            "Authorization, Content-Type, Accept, Idempotency-Key, If-Match, Prefer, Pragma, \
             Cache-Control, X-Request-Id, Traceparent, Tracestate",
        ),
    ),
    (header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("7200")),
];

const EXPOSE: HeaderValue = HeaderValue::from_static(
    "Allow, ETag, Idempotency-Replayed, Retry-After, X-Hoody-Signature, X-Request-Id",
);

/// Answers preflights and lets every page read every answer.
pub(crate) async fn open(request: Request, next: Next) -> Response {
    let preflight = request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ORIGIN)
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if preflight {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        response.headers_mut().extend(ALLOW);
        response
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSE);
    response
}
