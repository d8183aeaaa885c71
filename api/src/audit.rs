//! One line and one entry for every write: who, what, from where, with what result.
//!
//! A write runs on a task of its own, to its end: a client that leaves does not keep what it has done from
//! being told, and may come back for the answer with its idempotency key.

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use gantry_control::Written;
use http::{Method, header};

use crate::{
    Front,
    caller::{ClientAddress, RequestId, Signature, Signed, Told},
    exec,
    problem::{Kind, Problem},
};

/// What is about passwords, sessions, tokens and claims, by the route.
const SECURITY: [&str; 7] = [
    "/api/v1/containers/{id}/authorize",
    "/api/v1/users/auth/login",
    "/api/v1/users/auth/logout",
    "/api/v1/users/auth/2fa",
    "/api/v1/users/auth/identity-claim",
    "/api/v1/users/{id}",
    "/api/v1/auth/tokens",
];

/// Logs each request that is not a read, and each for a session in a container, on the target `audit`, and keeps it in its user's activity
/// if there is a user. Paths are logged as sent, without their query; bodies and credentials never.
pub(crate) async fn writes(State(front): State<Front>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    // A session in a container is asked for by GET.
    let session = request.method() == Method::GET && route.as_deref() == Some(exec::ROUTE);
    let read =
        matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) && !session;
    let (false, Some(route)) = (read, route) else { return next.run(request).await };
    let tasks = front.config.tasks.clone();
    tasks.spawn(write(front, route, request, next)).await.unwrap_or_else(|error| {
        let message = "Something went wrong inside; it was logged";
        Problem::new(Kind::Internal, message).caused_by(error).into_response()
    })
}

async fn write(front: Front, route: String, mut request: Request, next: Next) -> Response {
    let signature = Signature::default();
    request.extensions_mut().insert(signature.clone());
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let address = request.extensions().get::<ClientAddress>().map(|client| client.0.ip());
    let id = request.extensions().get::<RequestId>().cloned();
    let agent = request.headers().get(header::USER_AGENT);
    let agent = agent.map(|agent| String::from_utf8_lossy(agent.as_bytes()).into_owned());
    let response = next.run(request).await;
    let signed = signature.0.get();
    tracing::info!(
        target: "audit",
        user = signed.map_or("-", |signed| signed.username.as_str()),
        %method,
        path,
        status = response.status().as_u16(),
        client = address.map(tracing::field::display),
        request = id.as_ref().map(|id| &*id.0),
        "write"
    );
    if let Some(Signed { user, token, realm, told: Told::User, .. }) = signed {
        let written = Written {
            user: *user,
            token: *token,
            realm: *realm,
            method: method.as_str(),
            path: &path,
            status: response.status().as_u16(),
            client: address,
            user_agent: agent.as_deref(),
            security: SECURITY.iter().any(|prefix| route.starts_with(prefix)),
        };
        front.control.note_written(written).await;
    }
    response
}
