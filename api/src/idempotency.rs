//! `Idempotency-Key`: a POST that is sent twice is carried out once.
//!
//! The first answer is kept for a day and given again, marked by `Idempotency-Replayed: true`; the
//! key with another body is 422, and 409 while the first request is still under way. Only successes
//! are kept: a refused request changed nothing, so its key may be used again with a better one.
//! What answers with credentials is exempt, because they must not lie in the store: logins, refreshes and
//! second factors, and claims, which change nothing.

use axum::{
    body::{Body, Bytes},
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use gantry_control::{Idempotency, IdempotencyKey};
use gantry_model::FieldError;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use crate::{
    Front, body,
    caller::Caller,
    problem::{Kind, Problem},
};

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The same as people write it.
const SHOWN: &str = "Idempotency-Key";
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// The longest key, in octets.
const KEY_LEN_MAX: usize = 255;
/// What their paths begin with.
const EXEMPT: [&str; 5] = [
    "/api/v1/users/auth/login",
    "/api/v1/users/auth/refresh",
    "/api/v1/users/auth/2fa",
    "/api/v1/users/auth/identity-claim",
    "/api/v1/containers/{id}/authorize",
];

/// What is kept instead of an answer that holds a secret.
#[derive(Clone, Debug)]
pub(crate) struct KeptInstead(pub(crate) Bytes);

/// Carries a POST with a key out once.
pub(crate) async fn once(State(front): State<Front>, request: Request, next: Next) -> Response {
    let keyed = request.method() == Method::POST
        && request.headers().contains_key(KEY)
        && !request
            .extensions()
            .get::<MatchedPath>()
            .is_some_and(|route| EXEMPT.iter().any(|exempt| route.as_str().starts_with(exempt)));
    if keyed {
        replay_or_run(front, request, next).await.unwrap_or_else(Problem::into_response)
    } else {
        next.run(request).await
    }
}

async fn replay_or_run(front: Front, request: Request, next: Next) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let key = key(&parts.headers)?;
    let Caller(actor) = Caller::authenticate(&mut parts, &front).await?;
    let bytes = body::read(&parts.headers, body).await?;
    let route = parts.uri.path_and_query().map_or_else(
        || format!("POST {}", parts.uri.path()),
        |path| format!("POST {}", path.as_str()),
    );
    let (claim, found) = front.control.idempotency_begin(&actor, &route, &key, &bytes).await?;
    match found {
        Idempotency::Fresh => {}
        Idempotency::InProgress => {
            return Err(Problem::new(
                Kind::RequestInProgress,
                "A request with this Idempotency-Key is still under way",
            )
            .about(SHOWN)
            .retry_after_s(1));
        }
        Idempotency::Mismatch => {
            return Err(Problem::new(
                Kind::IdempotencyMismatch,
                "This Idempotency-Key was used with another body",
            )
            .about(SHOWN));
        }
        Idempotency::Done { status, body } => return Ok(replayed(status, body)),
    }
    let request = Request::from_parts(parts, Body::from(bytes));
    // On a task of its own (see `audit`): a client that loses its connection comes back for this answer.
    Ok(run(front, claim, request, next).await)
}

async fn run(front: Front, claim: IdempotencyKey, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let (parts, body) = response.into_parts();
    // Bounded by what handlers print: a page of a list at most.
    let bytes = match axum::body::to_bytes(body, usize::MAX).await {
        Ok(bytes) => bytes,
        Err(error) => {
            tracing::error!(target: "api", %error, "an answer could not be collected");
            Bytes::new()
        }
    };
    let kept = if parts.status.is_success() {
        let kept = parts.extensions.get().map_or(&bytes, |KeptInstead(kept)| kept);
        front.control.idempotency_finish(&claim, parts.status.as_u16(), kept).await
    } else {
        front.control.idempotency_abandon(&claim).await
    };
    if let Err(error) = kept {
        // The request itself is done; the key is settled when it is used again.
        tracing::warn!(target: "api", %error, "an idempotency key could not be settled");
    }
    Response::from_parts(parts, Body::from(bytes))
}

fn key(headers: &HeaderMap) -> Result<String, Problem> {
    let mut values = headers.get_all(KEY).iter();
    let key = values.next().and_then(|value| value.to_str().ok()).unwrap_or("").trim();
    let valid = (1..=KEY_LEN_MAX).contains(&key.len()) && values.next().is_none();
    if valid {
        Ok(key.to_owned())
    } else {
        let rule = format!("must be one header of 1 to {KEY_LEN_MAX} visible ASCII characters");
        Err(Problem::fields(Kind::Invalid, &[FieldError::new(SHOWN, rule)]))
    }
}

fn replayed(status: u16, body: Vec<u8>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (REPLAYED, HeaderValue::from_static("true")),
    ];
    (StatusCode::from_u16(status).unwrap_or(StatusCode::OK), headers, body).into_response()
}
