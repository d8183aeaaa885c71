//! Answers of the edge itself: every failure, its status and code, and its three forms.
//!
//! One place turns failures into answers. A browser that navigates gets a page, a program that asks
//! for JSON gets JSON, everything else one line of text; all carry the same code and request id.

use std::time::Duration;

use bytes::Bytes;
use gantry_model::{Scheme, Service};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use crate::{
    body::EdgeBody, deps::RequestId, downstream::Protocol, form::Form, framing::Refusal,
    guard::Denied, page, wake::Waiting,
};

/// The machine-readable name of a failure; part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    BadRequest,
    HeadTooLarge,
    HeadTimeout,
    BodyTimeout,
    HostMissing,
    HostInvalid,
    Misdirected,
    MethodNotSupported,
    MethodNotAllowed,
    ExpectationFailed,
    NotFound,
    SshOnly,
    ContainerStarting,
    ContainerStopped,
    ContainerPaused,
    ContainerFailed,
    ContainerWaking,
    ContainerNotWoken,
    ServiceNotProvided,
    ServiceNotStarted,
    PortClosed,
    UpstreamUnreachable,
    UpstreamTimeout,
    UpstreamBroken,
    ApiUnavailable,
    AuthenticationRequired,
    AccessDenied,
    ProxyDisabled,
    OriginRefused,
    TooManyAttempts,
    EdgeBusy,
    AliasPathPinned,
    TooManyRequests,
    ContainerBusy,
    HookFailed,
    BodyTooLarge,
    CertificatePending,
}

impl Code {
    pub(crate) const ALL: [Self; 37] = [
        Self::BadRequest,
        Self::HeadTooLarge,
        Self::HeadTimeout,
        Self::BodyTimeout,
        Self::HostMissing,
        Self::HostInvalid,
        Self::Misdirected,
        Self::MethodNotSupported,
        Self::MethodNotAllowed,
        Self::ExpectationFailed,
        Self::NotFound,
        Self::SshOnly,
        Self::ContainerStarting,
        Self::ContainerStopped,
        Self::ContainerPaused,
        Self::ContainerFailed,
        Self::ContainerWaking,
        Self::ContainerNotWoken,
        Self::ServiceNotProvided,
        Self::ServiceNotStarted,
        Self::PortClosed,
        Self::UpstreamUnreachable,
        Self::UpstreamTimeout,
        Self::UpstreamBroken,
        Self::ApiUnavailable,
        Self::AuthenticationRequired,
        Self::AccessDenied,
        Self::ProxyDisabled,
        Self::OriginRefused,
        Self::TooManyAttempts,
        Self::EdgeBusy,
        Self::AliasPathPinned,
        Self::TooManyRequests,
        Self::ContainerBusy,
        Self::HookFailed,
        Self::BodyTooLarge,
        Self::CertificatePending,
    ];

    /// Its place in [`Code::ALL`].
    pub(crate) const fn index(self) -> usize {
        self as usize
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "BAD_REQUEST",
            Self::HeadTooLarge => "HEAD_TOO_LARGE",
            Self::HeadTimeout => "HEAD_TIMEOUT",
            Self::BodyTimeout => "BODY_TIMEOUT",
            Self::HostMissing => "HOST_MISSING",
            Self::HostInvalid => "HOST_INVALID",
            Self::Misdirected => "MISDIRECTED",
            Self::MethodNotSupported => "METHOD_NOT_SUPPORTED",
            Self::MethodNotAllowed => "METHOD_NOT_ALLOWED",
            Self::ExpectationFailed => "EXPECTATION_FAILED",
            Self::NotFound => "NOT_FOUND",
            Self::SshOnly => "SSH_ONLY",
            Self::ContainerStarting => "CONTAINER_STARTING",
            Self::ContainerStopped => "CONTAINER_STOPPED",
            Self::ContainerPaused => "CONTAINER_PAUSED",
            Self::ContainerFailed => "CONTAINER_FAILED",
            Self::ContainerWaking => "CONTAINER_WAKING",
            Self::ContainerNotWoken => "CONTAINER_NOT_WOKEN",
            Self::ServiceNotProvided => "SERVICE_NOT_PROVIDED",
            Self::ServiceNotStarted => "SERVICE_NOT_STARTED",
            Self::PortClosed => "PORT_CLOSED",
            Self::UpstreamUnreachable => "UPSTREAM_UNREACHABLE",
            Self::UpstreamTimeout => "UPSTREAM_TIMEOUT",
            Self::UpstreamBroken => "UPSTREAM_BROKEN",
            Self::ApiUnavailable => "API_UNAVAILABLE",
            Self::AuthenticationRequired => "AUTHENTICATION_REQUIRED",
            Self::AccessDenied => "ACCESS_DENIED",
            Self::ProxyDisabled => "PROXY_DISABLED",
            Self::OriginRefused => "ORIGIN_REFUSED",
            Self::TooManyAttempts => "TOO_MANY_ATTEMPTS",
            Self::EdgeBusy => "EDGE_BUSY",
            Self::AliasPathPinned => "ALIAS_PATH_PINNED",
            Self::TooManyRequests => "TOO_MANY_REQUESTS",
            Self::ContainerBusy => "CONTAINER_BUSY",
            Self::HookFailed => "HOOK_FAILED",
            Self::BodyTooLarge => "BODY_TOO_LARGE",
            Self::CertificatePending => "CERTIFICATE_PENDING",
        }
    }
}

/// Why a request is answered by the edge itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Refused before it was a request.
    Refused(Refusal),
    /// A request whose parts contradict each other.
    BadRequest(&'static str),
    /// More fields or octets than allowed, over HTTP/2.
    HeadTooLarge,
    /// The client's body broke off or was late.
    BodyLost,
    /// The client's body is longer than one may be.
    BodyTooLarge,
    HostMissing,
    HostInvalid,
    /// This connection's certificate does not cover the host.
    Misdirected,
    /// `CONNECT`, or a protocol upgrade that was not asked for properly.
    MethodNotSupported,
    /// The edge's own service is only read.
    MethodNotAllowed,
    ExpectationFailed,
    /// Nothing there, or nothing that the asker may know of. One answer for all of these.
    NotFound,
    /// A name that only SSH serves.
    SshOnly {
        hostname: Box<str>,
    },
    ContainerStarting,
    ContainerStopped,
    ContainerPaused,
    ContainerFailed,
    /// It sleeps, and this request or another has asked it to wake.
    ContainerWaking(Waiting),
    ContainerNotWoken,
    ServiceNotProvided(Service),
    /// The Kit does not bring the service, and no program of the container listens in its place. A
    /// container that was started a moment ago may have one that is about to.
    ServiceAbsent {
        service: Service,
        port: u16,
        fresh: bool,
    },
    /// The Kit service did not start, or did not answer in time after its start.
    ServiceNotStarted {
        service: Service,
        retry: bool,
    },
    /// The container runs, but nothing listens.
    PortClosed {
        port: u16,
        fresh: bool,
    },
    /// Something listens, but TLS was expected.
    UpstreamUnreachable {
        scheme: Scheme,
    },
    UpstreamTimeout,
    UpstreamBroken,
    ApiUnavailable,
    /// The guard does not let it in.
    Denied(Denied),
    /// More is under way than this server takes.
    EdgeBusy,
    /// An alias leads to other paths than this one.
    AliasPathPinned,
    /// The client's address asks too often; it may ask again after this.
    TooManyRequests {
        wait: Duration,
    },
    /// The container has as many requests under way as it may.
    ContainerBusy,
    /// A hook's script did not answer, or said what makes no sense.
    HookFailed,
    /// A hook's script was late.
    HookTimeout,
    /// The name has no certificate yet, so that HTTPS would not be answered.
    CertificatePending,
}

impl Failure {
    pub(crate) const fn code(&self) -> Code {
        match self {
            Self::Refused(Refusal::Malformed) | Self::BadRequest(_) => Code::BadRequest,
            Self::Refused(Refusal::HeadTooLarge | Refusal::TooManyFields) | Self::HeadTooLarge => {
                Code::HeadTooLarge
            }
            Self::Refused(Refusal::HeadTimeout) => Code::HeadTimeout,
            Self::BodyLost => Code::BodyTimeout,
            Self::BodyTooLarge => Code::BodyTooLarge,
            Self::HostMissing => Code::HostMissing,
            Self::HostInvalid => Code::HostInvalid,
            Self::Misdirected => Code::Misdirected,
            Self::MethodNotSupported => Code::MethodNotSupported,
            Self::MethodNotAllowed => Code::MethodNotAllowed,
            Self::ExpectationFailed => Code::ExpectationFailed,
            Self::NotFound => Code::NotFound,
            Self::SshOnly { .. } => Code::SshOnly,
            Self::ContainerStarting => Code::ContainerStarting,
            Self::ContainerStopped => Code::ContainerStopped,
            Self::ContainerPaused => Code::ContainerPaused,
            Self::ContainerFailed => Code::ContainerFailed,
            Self::ContainerWaking(_) => Code::ContainerWaking,
            Self::ContainerNotWoken => Code::ContainerNotWoken,
            Self::ServiceNotProvided(_) | Self::ServiceAbsent { .. } => Code::ServiceNotProvided,
            Self::ServiceNotStarted { .. } => Code::ServiceNotStarted,
            Self::PortClosed { .. } => Code::PortClosed,
            Self::UpstreamUnreachable { .. } => Code::UpstreamUnreachable,
            Self::UpstreamTimeout => Code::UpstreamTimeout,
            Self::UpstreamBroken => Code::UpstreamBroken,
            Self::ApiUnavailable => Code::ApiUnavailable,
            Self::Denied(denied) => denied.code(),
            Self::EdgeBusy => Code::EdgeBusy,
            Self::AliasPathPinned => Code::AliasPathPinned,
            Self::TooManyRequests { .. } => Code::TooManyRequests,
            Self::ContainerBusy => Code::ContainerBusy,
            Self::HookFailed | Self::HookTimeout => Code::HookFailed,
            Self::CertificatePending => Code::CertificatePending,
        }
    }

    pub(crate) const fn status(&self) -> StatusCode {
        if let Self::HookTimeout = self {
            return StatusCode::GATEWAY_TIMEOUT;
        }
        match self.code() {
            Code::BadRequest | Code::HostMissing | Code::HostInvalid | Code::SshOnly => {
                StatusCode::BAD_REQUEST
            }
            Code::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Code::HeadTimeout | Code::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Code::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Code::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Code::MethodNotSupported | Code::ServiceNotProvided => StatusCode::NOT_IMPLEMENTED,
            Code::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Code::ExpectationFailed => StatusCode::EXPECTATION_FAILED,
            Code::NotFound | Code::AliasPathPinned => StatusCode::NOT_FOUND,
            Code::AuthenticationRequired => StatusCode::UNAUTHORIZED,
            Code::AccessDenied | Code::ProxyDisabled | Code::OriginRefused => StatusCode::FORBIDDEN,
            Code::TooManyAttempts => StatusCode::TOO_MANY_REQUESTS,
            Code::ContainerStarting
            | Code::ContainerStopped
            | Code::ContainerPaused
            | Code::ContainerFailed
            | Code::ContainerWaking
            | Code::ContainerNotWoken
            | Code::ContainerBusy
            | Code::EdgeBusy
            | Code::CertificatePending
            | Code::ApiUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Code::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Code::HookFailed
            | Code::ServiceNotStarted
            | Code::PortClosed
            | Code::UpstreamUnreachable
            | Code::UpstreamBroken => StatusCode::BAD_GATEWAY,
            Code::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// Seconds after which asking again may help.
    const fn retry_after(&self) -> Option<u64> {
        match self {
            Self::ContainerStarting
            | Self::ContainerWaking(_)
            | Self::PortClosed { fresh: true, .. }
            | Self::ContainerBusy
            | Self::EdgeBusy
            | Self::ServiceNotStarted { retry: true, .. }
            | Self::ServiceAbsent { fresh: true, .. } => Some(1),
            Self::TooManyRequests { wait } => Some(seconds(*wait)),
            Self::Denied(denied) => denied.retry_after(),
            Self::ApiUnavailable => Some(2),
            Self::CertificatePending => Some(5),
            Self::ContainerStopped
            | Self::ContainerPaused
            | Self::ContainerFailed
            | Self::ContainerNotWoken => Some(30),
            Self::Refused(_)
            | Self::BadRequest(_)
            | Self::HeadTooLarge
            | Self::BodyLost
            | Self::BodyTooLarge
            | Self::HostMissing
            | Self::HostInvalid
            | Self::Misdirected
            | Self::MethodNotSupported
            | Self::MethodNotAllowed
            | Self::ExpectationFailed
            | Self::NotFound
            | Self::SshOnly { .. }
            | Self::ServiceNotProvided(_)
            | Self::ServiceAbsent { fresh: false, .. }
            | Self::ServiceNotStarted { retry: false, .. }
            | Self::PortClosed { fresh: false, .. }
            | Self::UpstreamUnreachable { .. }
            | Self::HookFailed
            | Self::HookTimeout
            | Self::UpstreamTimeout
            | Self::UpstreamBroken
            | Self::AliasPathPinned => None,
        }
    }

    /// Whether the connection must end, because what follows on it has no meaning.
    const fn closes(&self) -> bool {
        matches!(
            self,
            Self::Refused(_) | Self::BadRequest(_) | Self::BodyTooLarge | Self::MethodNotSupported
        )
    }

    /// What happened, in a sentence without a full stop.
    fn message(&self) -> String {
        let fixed = match self {
            Self::Refused(Refusal::Malformed) => "the request is not unambiguous HTTP/1.1",
            Self::Refused(Refusal::HeadTooLarge | Refusal::TooManyFields) | Self::HeadTooLarge => {
                "the request's head has too many or too long fields"
            }
            Self::Refused(Refusal::HeadTimeout) => "the request's head did not arrive in time",
            Self::BadRequest(what) => what,
            Self::BodyLost => "the request's body did not arrive in time",
            Self::BodyTooLarge => "the request's body is larger than this server lets pass",
            Self::HostMissing => "the request names no host",
            Self::HostInvalid => {
                "the request names its host twice, in contradiction, or in a form that no host has"
            }
            Self::Misdirected => "this connection was made for another host; make a new one",
            Self::MethodNotSupported => "this method is not supported here",
            Self::MethodNotAllowed => "this can only be read, by GET or HEAD",
            Self::ExpectationFailed => "only 100-continue can be expected",
            Self::NotFound => "there is nothing at this address",
            Self::SshOnly { hostname } => {
                return format!("this name serves SSH, not HTTPS; use: ssh root@{hostname}");
            }
            Self::ContainerStarting => "the container is starting",
            Self::ContainerStopped => "the container is stopped; start it first",
            Self::ContainerPaused => "the container is paused; resume it first",
            Self::ContainerFailed => "the container has failed; its status in the API says why",
            Self::ContainerWaking(_) => "the container was asleep and is waking",
            Self::ContainerNotWoken => {
                "the container is asleep and did not wake; its status in the API says more"
            }
            Self::ServiceNotProvided(service) => {
                return format!("the service {} is not provided by this version", service.slug());
            }
            Self::ServiceAbsent { service, port, .. } => {
                return format!(
                    "the service {} is not provided by this version, and no program of the \
                     container listens on its port {port}",
                    service.slug()
                );
            }
            Self::ServiceNotStarted { service, .. } => {
                return format!(
                    "the container is running, but its service {} did not start",
                    service.slug()
                );
            }
            Self::PortClosed { port, .. } => {
                return format!("the container is running, but nothing listens on {port}");
            }
            Self::UpstreamUnreachable { scheme: Scheme::Http } => {
                "the container is running, but cannot be reached"
            }
            Self::UpstreamUnreachable { scheme: Scheme::Https } => {
                "the container is running, but does not speak TLS on this port"
            }
            Self::UpstreamTimeout => "the container did not answer in time",
            Self::UpstreamBroken => "the container closed the connection without a complete answer",
            Self::ApiUnavailable => "the API is not available",
            Self::Denied(denied) => denied.message(),
            Self::EdgeBusy => "this server has as much under way as it can take",
            Self::AliasPathPinned => "this name does not lead to this path",
            Self::TooManyRequests { .. } => {
                "too many requests came from your address in a short time"
            }
            Self::ContainerBusy => "the container has as many requests under way as it may have",
            Self::CertificatePending => "this name has no certificate yet; one is being fetched",
            Self::HookFailed => "a hook of this container did not decide about the request",
            Self::HookTimeout => "a hook of this container did not decide in time",
        };
        fixed.to_owned()
    }
}

/// A wait in whole seconds. Rounded up: a client that comes back too early would be refused again.
pub(crate) const fn seconds(wait: Duration) -> u64 {
    let begun = if wait.subsec_nanos() > 0 { 1 } else { 0 };
    wait.as_secs().saturating_add(begun)
}

/// The answer to a failure.
pub(crate) fn answer(
    failure: &Failure,
    form: Form,
    id: RequestId,
    protocol: Protocol,
) -> Response<EdgeBody> {
    let status = failure.status();
    let is_page = matches!(failure, Failure::Denied(Denied::SignIn { .. }));
    let form = if is_page { Form::Html } else { form };
    let (kind, body) = match form {
        Form::Html => ("text/html; charset=utf-8", page::html(failure, &failure.message(), id)),
        Form::Json => ("application/json", json(failure, id)),
        Form::Text => ("text/plain; charset=utf-8", format!("{}\n", failure.message())),
    };
    let mut headers = HeaderMap::with_capacity(12);
    let code = HeaderValue::from_static(failure.code().as_str());
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::VARY, HeaderValue::from_static("accept, sec-fetch-mode"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(&X_GANTRY_ERROR, code.clone());
    headers.insert(&X_HOODY_ERROR_CODE, code);
    if let Ok(id) = HeaderValue::try_from(id.to_string()) {
        headers.insert(&X_REQUEST_ID, id);
    }
    if let Form::Html = form {
        let policy = HeaderValue::from_static(page::policy(failure));
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
        // Forms that say nothing of where they come from would be refused.
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    }
    if let Failure::Denied(denied) = failure
        && let Some(challenge) = denied.challenge()
    {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    if let Failure::MethodNotAllowed = failure {
        headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    if let Some(seconds) = failure.retry_after() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if failure.closes() && protocol == Protocol::Http1 {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let mut response = Response::new(EdgeBody::full(Bytes::from(body)));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

fn json(failure: &Failure, id: RequestId) -> String {
    let status = failure.status();
    let body = serde_json::json!({
        "statusCode": status.as_u16(),
        "error": status.canonical_reason().unwrap_or_default(),
        "code": failure.code().as_str(),
        "message": failure.message(),
        "requestId": id.to_string(),
    });
    body.to_string()
}

/// Names the failure in our own words.
pub(crate) static X_GANTRY_ERROR: HeaderName = HeaderName::from_static("x-gantry-error");
/// The same for clients of the reference system.
static X_HOODY_ERROR_CODE: HeaderName = HeaderName::from_static("x-hoody-error-code");
/// Names the request, in both directions.
pub(crate) static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_stand_in_their_order() {
        for (at, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(code.index(), at, "{code:?}");
        }
    }

    #[test]
    fn users_can_read_of_every_code() {
        let readme = include_str!("../../README.md");
        for code in Code::ALL {
            assert!(readme.contains(&format!("`{}`", code.as_str())), "{}", code.as_str());
        }
    }
}
