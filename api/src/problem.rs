//! What the API answers when it refuses: one shape, one table of kinds.
//!
//! `error` is the reason phrase, or a machine code where clients of the reference expect one there;
//! `code` is always the machine code. The cause goes to the log, never to the client.

use std::{borrow::Cow, error::Error};

use axum::response::{IntoResponse, Response};
use gantry_model::{Chain, FieldError};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::answer::json;

/// The most mistakes that one answer lists.
const LISTED_MAX: usize = 50;
/// The longest name of a field in an answer, in characters.
const FIELD_CHARS_MAX: usize = 160;
/// The most mistakes that the message repeats.
const TOLD_MAX: usize = 3;

/// Every way in which a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    InvalidJson,
    Invalid,
    InvalidSort,
    InvalidConfigKey,
    ConfigKeyNotFound,
    InvalidId,
    InvalidEnvKey,
    ReservedEnvPrefix,
    Immutable,
    MustStop,
    NameTakenOnUpdate,
    KeyTakenOnUpdate,
    AliasTakenOnUpdate,
    AlreadyThere,
    OperationRefused,
    MissingToken,
    InvalidToken,
    TokenExpired,
    InvalidCredentials,
    Forbidden,
    RealmScope,
    RouteNotFound,
    ProjectNotFound,
    ContainerNotFound,
    ResourceNotFound,
    MethodNotAllowed,
    BodyTimeout,
    NameTaken,
    KeyTaken,
    AliasTaken,
    MemberExists,
    PublicKeyInUse,
    InvalidJwt,
    InvalidRange,
    InvalidAlias,
    PortRequired,
    HostnameNotProven,
    PreconditionRequired,
    PreconditionFailed,
    AliasInUse,
    AliasReserved,
    HostnameInUse,
    Finalizing,
    /// It waits in the warm pool.
    Prespawned,
    SnapshotOfPrespawned,
    StateConflict,
    Busy,
    RequestInProgress,
    BodyTooLarge,
    UnsupportedMediaType,
    Quota,
    ServerFull,
    InvalidCode,
    TwoFactorState,
    CodesLocked,
    TwoFactorRequired,
    SnapshotLimit,
    SnapshotBusy,
    SnapshotNameTaken,
    SnapshotUnavailable,
    /// As many firewall rules as there may be.
    FirewallLimit,
    /// The packet filter does not take the rules.
    FirewallUnavailable,
    SourceNotFound,
    NotACopy,
    AliasLimit,
    HookLimit,
    HooksOfProject,
    IdempotencyMismatch,
    TooManyAttempts,
    Internal,
    OperationFailed,
    NotImplemented,
    Unavailable,
    /// The server of a container is none that this installation runs now.
    ServerAway,
    /// What is asked for was sealed with a key that is not there.
    SealingKeyMissing,
    SigningNotConfigured,
}

impl Kind {
    /// The status, the text of `error`, and the machine code.
    #[expect(clippy::too_many_lines, reason = "a table with a row for each kind")]
    const fn parts(self) -> (StatusCode, &'static str, &'static str) {
        const BAD: StatusCode = StatusCode::BAD_REQUEST;
        const UNAUTHORIZED: StatusCode = StatusCode::UNAUTHORIZED;
        const FORBIDDEN: StatusCode = StatusCode::FORBIDDEN;
        const MISSING: StatusCode = StatusCode::NOT_FOUND;
        const CONFLICT: StatusCode = StatusCode::CONFLICT;
        const ENTITY: StatusCode = StatusCode::UNPROCESSABLE_ENTITY;
        match self {
            Self::InvalidJson => (BAD, "Bad Request", "INVALID_JSON"),
            Self::Invalid => (BAD, "Bad Request", "VALIDATION_ERROR"),
            Self::InvalidSort => (ENTITY, "Validation Error", "VALIDATION_ERROR"),
            Self::InvalidConfigKey => {
                (ENTITY, "META_CONFIG_KEY_INVALID", "META_CONFIG_KEY_INVALID")
            }
            Self::ConfigKeyNotFound => {
                (MISSING, "META_CONFIG_KEY_NOT_FOUND", "META_CONFIG_KEY_NOT_FOUND")
            }
            Self::InvalidId => (BAD, "Bad Request", "INVALID_ID_FORMAT"),
            Self::InvalidEnvKey => (BAD, "INVALID_ENV_KEY", "INVALID_ENV_KEY"),
            Self::ReservedEnvPrefix => (BAD, "RESERVED_ENV_PREFIX", "RESERVED_ENV_PREFIX"),
            Self::Immutable => (BAD, "Bad Request", "IMMUTABLE_FIELD"),
            Self::MustStop => (BAD, "Bad Request", "CONTAINER_MUST_BE_STOPPED"),
            Self::NameTakenOnUpdate => (BAD, "Bad Request", "CONTAINER_NAME_IN_USE"),
            Self::KeyTakenOnUpdate => (BAD, "Bad Request", "SSH_KEY_IN_USE"),
            Self::AliasTakenOnUpdate => (BAD, "Bad Request", "DUPLICATE_ALIAS"),
            Self::AlreadyThere => (BAD, "Bad Request", "ALREADY_IN_STATE"),
            Self::OperationRefused => (BAD, "Bad Request", "OPERATION_NOT_ALLOWED"),
            Self::MissingToken => (UNAUTHORIZED, "Unauthorized", "MISSING_TOKEN"),
            Self::InvalidToken => (UNAUTHORIZED, "Unauthorized", "INVALID_TOKEN"),
            Self::TokenExpired => (UNAUTHORIZED, "Unauthorized", "TOKEN_EXPIRED"),
            Self::InvalidCredentials => {
                (UNAUTHORIZED, "INVALID_CREDENTIALS", "INVALID_CREDENTIALS")
            }
            Self::Forbidden => (FORBIDDEN, "Forbidden", "INSUFFICIENT_PERMISSIONS"),
            Self::RealmScope => (FORBIDDEN, "Forbidden", "REALM_SCOPE_ERROR"),
            Self::RouteNotFound => (MISSING, "Not Found", "ROUTE_NOT_FOUND"),
            Self::ProjectNotFound => (MISSING, "Not Found", "PROJECT_NOT_FOUND"),
            Self::ContainerNotFound => (MISSING, "Not Found", "CONTAINER_NOT_FOUND"),
            Self::ResourceNotFound => (MISSING, "Not Found", "RESOURCE_NOT_FOUND"),
            Self::MethodNotAllowed => {
                (StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed", "METHOD_NOT_ALLOWED")
            }
            Self::BodyTimeout => {
                (StatusCode::REQUEST_TIMEOUT, "Request Timeout", "REQUEST_TIMEOUT")
            }
            Self::NameTaken => (CONFLICT, "Conflict", "CONTAINER_NAME_IN_USE"),
            Self::KeyTaken => (CONFLICT, "Conflict", "SSH_KEY_IN_USE"),
            Self::AliasTaken => (CONFLICT, "Conflict", "DUPLICATE_ALIAS"),
            Self::PublicKeyInUse => (CONFLICT, "Conflict", "PUBLIC_KEY_IN_USE"),
            Self::MemberExists => (CONFLICT, "Conflict", "PERMISSION_EXISTS"),
            Self::InvalidJwt => (BAD, "INVALID_JWT_CONFIG", "INVALID_JWT_CONFIG"),
            Self::InvalidRange => (BAD, "INVALID_IP_RANGE", "INVALID_IP_RANGE"),
            Self::InvalidAlias => (BAD, "INVALID_ALIAS_FORMAT", "INVALID_ALIAS_FORMAT"),
            Self::PortRequired => (BAD, "PORT_REQUIRED", "PORT_REQUIRED"),
            Self::HostnameNotProven => (BAD, "HOSTNAME_NOT_PROVEN", "HOSTNAME_NOT_PROVEN"),
            Self::PreconditionRequired => (
                StatusCode::PRECONDITION_REQUIRED,
                "Precondition Required",
                "PRECONDITION_REQUIRED",
            ),
            Self::PreconditionFailed => {
                (StatusCode::PRECONDITION_FAILED, "Precondition Failed", "ETAG_MISMATCH")
            }
            Self::AliasReserved => (CONFLICT, "Conflict", "ALIAS_RESERVED"),
            Self::Finalizing => (CONFLICT, "container_finalizing", "CONTAINER_FINALIZING"),
            Self::Prespawned => (CONFLICT, "CONTAINER_PRESPAWNED", "CONTAINER_PRESPAWNED"),
            Self::SnapshotOfPrespawned => {
                (BAD, "SNAPSHOT_PRESPAWN_FORBIDDEN", "SNAPSHOT_PRESPAWN_FORBIDDEN")
            }
            Self::AliasInUse => (CONFLICT, "ALIAS_IN_USE", "ALIAS_IN_USE"),
            Self::HostnameInUse => (CONFLICT, "HOSTNAME_IN_USE", "HOSTNAME_IN_USE"),
            Self::StateConflict => (CONFLICT, "Conflict", "OPERATION_STATE_CONFLICT"),
            Self::Busy => {
                (CONFLICT, "CONTAINER_OPERATION_IN_PROGRESS", "CONTAINER_OPERATION_IN_PROGRESS")
            }
            Self::RequestInProgress => (CONFLICT, "Conflict", "REQUEST_IN_PROGRESS"),
            Self::BodyTooLarge => {
                (StatusCode::PAYLOAD_TOO_LARGE, "Payload Too Large", "PAYLOAD_TOO_LARGE")
            }
            Self::UnsupportedMediaType => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "Unsupported Media Type",
                "UNSUPPORTED_MEDIA_TYPE",
            ),
            Self::Quota => (ENTITY, "QUOTA_EXCEEDED", "QUOTA_EXCEEDED"),
            Self::ServerFull => (BAD, "Bad Request", "SERVER_CONTAINER_LIMIT"),
            Self::InvalidCode => (UNAUTHORIZED, "INVALID_2FA_CODE", "INVALID_2FA_CODE"),
            Self::TwoFactorState => (CONFLICT, "Conflict", "TWO_FACTOR_STATE"),
            Self::TwoFactorRequired => (FORBIDDEN, "Forbidden", "TWO_FACTOR_REQUIRED"),
            Self::CodesLocked => {
                (StatusCode::TOO_MANY_REQUESTS, "Too Many Requests", "TWO_FACTOR_LOCKED")
            }
            Self::SnapshotLimit => (BAD, "CONTAINER_SNAPSHOT_LIMIT", "CONTAINER_SNAPSHOT_LIMIT"),
            Self::SnapshotBusy => {
                (CONFLICT, "SNAPSHOT_OPERATION_IN_PROGRESS", "SNAPSHOT_OPERATION_IN_PROGRESS")
            }
            Self::SnapshotNameTaken => (CONFLICT, "Conflict", "SNAPSHOT_NAME_IN_USE"),
            Self::SnapshotUnavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "SNAPSHOT_INVENTORY_UNAVAILABLE",
                "SNAPSHOT_INVENTORY_UNAVAILABLE",
            ),
            Self::FirewallLimit => (ENTITY, "FIREWALL_LIMIT_REACHED", "FIREWALL_LIMIT_REACHED"),
            Self::FirewallUnavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "FIREWALL_HOST_UNAVAILABLE",
                "FIREWALL_HOST_UNAVAILABLE",
            ),
            Self::SourceNotFound => (MISSING, "Not Found", "SOURCE_CONTAINER_NOT_FOUND"),
            Self::NotACopy => (BAD, "Bad Request", "CONTAINER_IS_NO_COPY"),
            Self::HookLimit => (ENTITY, "HOOK_LIMIT_REACHED", "HOOK_LIMIT_REACHED"),
            Self::HooksOfProject => (ENTITY, "Validation Error", "VALIDATION_ERROR"),
            Self::AliasLimit => (ENTITY, "ALIAS_LIMIT_REACHED", "ALIAS_LIMIT_REACHED"),
            Self::IdempotencyMismatch => {
                (ENTITY, "IDEMPOTENCY_KEY_REUSED", "IDEMPOTENCY_KEY_REUSED")
            }
            Self::TooManyAttempts => {
                (StatusCode::TOO_MANY_REQUESTS, "Too Many Requests", "RATE_LIMITED")
            }
            Self::Internal => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "Internal Server Error",
                "INTERNAL_SERVER_ERROR",
            ),
            Self::OperationFailed => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "Internal Server Error",
                "CONTAINER_OPERATION_FAILED",
            ),
            Self::NotImplemented => {
                (StatusCode::NOT_IMPLEMENTED, "NOT_IMPLEMENTED", "NOT_IMPLEMENTED")
            }
            Self::Unavailable => {
                (StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable", "SERVICE_UNAVAILABLE")
            }
            Self::ServerAway => {
                (StatusCode::SERVICE_UNAVAILABLE, "SERVER_NOT_CONFIGURED", "SERVER_NOT_CONFIGURED")
            }
            Self::SealingKeyMissing => {
                (StatusCode::SERVICE_UNAVAILABLE, "SEALING_KEY_MISSING", "SEALING_KEY_MISSING")
            }
            Self::SigningNotConfigured => (
                StatusCode::SERVICE_UNAVAILABLE,
                "SIGNING_NOT_CONFIGURED",
                "SIGNING_NOT_CONFIGURED",
            ),
        }
    }
}

/// A refusal on its way to the client.
#[derive(Debug)]
pub(crate) struct Problem {
    kind: Kind,
    message: String,
    data: Option<Value>,
    retry_after_s: Option<u64>,
    cause: Option<Box<dyn Error + Send + Sync>>,
}

/// The body of every refusal.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Body {
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    status_code: u16,
    /// The reason phrase, or the machine code where the reference has one here.
    error: &'static str,
    /// What is wrong, for people.
    message: String,
    /// What is wrong, for programs.
    code: &'static str,
    /// Details: for a bad request the list of `{field, message}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    data: Option<Value>,
}

impl Problem {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), data: None, retry_after_s: None, cause: None }
    }

    /// All mistakes of a request at once.
    pub(crate) fn fields(kind: Kind, errors: &[FieldError]) -> Self {
        let told: Vec<String> = errors
            .iter()
            .take(TOLD_MAX)
            .map(|error| format!("{}: {}", shortened(&error.field), error.rule))
            .collect();
        let more = match errors.len().saturating_sub(TOLD_MAX) {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        let start = if kind == Kind::InvalidId { "Invalid ID format" } else { "Validation failed" };
        let data = errors
            .iter()
            .take(LISTED_MAX)
            .map(|error| {
                serde_json::json!({ "field": shortened(&error.field), "message": error.rule })
            })
            .collect();
        Self::new(kind, format!("{start}: {}{more}", told.join("; "))).with_data(data)
    }

    /// The same as a refusal of another kind, if it is one of a wrong value.
    pub(crate) fn instead_of_invalid(mut self, kind: Kind) -> Self {
        if self.kind == Kind::Invalid {
            self.kind = kind;
        }
        self
    }

    /// Names the part of the request that the refusal is about, as those of wrong values are named, unless its
    /// data says more already.
    pub(crate) fn about(mut self, field: &str) -> Self {
        let named = || serde_json::json!([{ "field": field, "message": self.message }]);
        self.data = Some(self.data.take().unwrap_or_else(named));
        self
    }

    pub(crate) fn with_data(mut self, data: Value) -> Self {
        self.data = Some(data);
        self
    }

    pub(crate) fn retry_after_s(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    pub(crate) fn caused_by(mut self, cause: impl Error + Send + Sync + 'static) -> Self {
        self.cause = Some(Box::new(cause));
        self
    }

    #[cfg(test)]
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }
}

/// A field's name, which may contain a client's key: cut, so that an answer is never much larger
/// than what it says.
fn shortened(field: &str) -> Cow<'_, str> {
    match field.char_indices().nth(FIELD_CHARS_MAX) {
        Some((end, _)) => format!("{}…", field.split_at(end).0).into(),
        None => field.into(),
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, error, code) = self.kind.parts();
        if status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED {
            let cause = self.cause.as_deref().map_or_else(String::new, |cause| {
                Chain(cause as &(dyn Error + 'static)).to_string()
            });
            tracing::warn!(target: "api", code, cause, "a request failed: {}", self.message);
        }
        let body = Body {
            status_code: status.as_u16(),
            error,
            message: self.message,
            code,
            data: self.data,
        };
        let mut response = json(status, &body);
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"gantry\""),
            );
        }
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_not_blown_up_by_long_keys_or_many_mistakes() {
        let errors: Vec<FieldError> =
            (0..10_000).map(|_| FieldError::new("k".repeat(10_000), "is not known")).collect();
        let problem = Problem::fields(Kind::Invalid, &errors);
        assert!(problem.message.len() < 1000);
        assert!(problem.message.ends_with("and 9997 more"), "{}", problem.message);
        assert!(problem.data.unwrap().to_string().len() < 20_000);
    }
}
