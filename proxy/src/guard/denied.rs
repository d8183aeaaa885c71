//! Why a request is not let in, as its client is told.

use std::time::Duration;

use super::sign_in;
use crate::answer::{Code, seconds};

/// Why a request is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// A name and a password would help. A script is not told so in a way that makes its browser ask.
    Anonymous { script: bool },
    /// The same for a browser that opens a page: where to give them.
    SignIn { page: Box<str> },
    /// Nothing that the request could bring, or nothing that it has brought, lets it pass.
    Access,
    /// The owner has closed everything.
    Closed,
    /// A page of another origin has made a browser send a request with its cookies or its password.
    Origin,
    /// Too many wrong passwords came from this address.
    Attempts { wait: Duration },
}

impl Denied {
    pub(crate) const fn code(&self) -> Code {
        match self {
            Self::Anonymous { .. } | Self::SignIn { .. } => Code::AuthenticationRequired,
            Self::Access => Code::AccessDenied,
            Self::Closed => Code::ProxyDisabled,
            Self::Origin => Code::OriginRefused,
            Self::Attempts { .. } => Code::TooManyAttempts,
        }
    }

    /// Seconds after which asking again may help.
    pub(crate) const fn retry_after(&self) -> Option<u64> {
        match self {
            Self::Attempts { wait } => Some(seconds(*wait)),
            Self::Anonymous { .. }
            | Self::SignIn { .. }
            | Self::Access
            | Self::Closed
            | Self::Origin => None,
        }
    }

    /// How a client can prove who it is.
    pub(crate) const fn challenge(&self) -> Option<&'static str> {
        match self {
            Self::Anonymous { script: false } => Some("Basic realm=\"Gantry\", charset=\"UTF-8\""),
            Self::Anonymous { script: true } | Self::SignIn { .. } => Some(sign_in::CHALLENGE),
            Self::Access | Self::Closed | Self::Origin | Self::Attempts { .. } => None,
        }
    }

    /// What happened, in a sentence without a full stop.
    pub(crate) const fn message(&self) -> &'static str {
        match self {
            Self::Anonymous { .. } | Self::SignIn { .. } => "a name and a password are needed here",
            Self::Access => "you may not use this service",
            Self::Closed => "the owner has closed this container to all requests",
            Self::Origin => "a page of another origin may not do this in your name",
            Self::Attempts { .. } => "too many wrong passwords came from your address",
        }
    }

    /// The heading of its page, and what the reader can do.
    pub(crate) const fn words(&self) -> (&'static str, &'static str) {
        match self {
            Self::Anonymous { .. } | Self::SignIn { .. } => ("Sign in", ""),
            Self::Access => ("Not for you", "<p>Its owner says who may use it.</p>"),
            Self::Closed => ("Closed", "<p>Its owner can open it again.</p>"),
            Self::Origin => ("Refused", "<p>Open this address directly, and do it from there.</p>"),
            Self::Attempts { .. } => ("Too many tries", "<p>Wait a minute.</p>"),
        }
    }
}
