//! Why work at a certificate did not succeed, and whose fault that is.

use instant_acme::{Error, Problem};

use super::{attempt::ms, client::Manners};
use crate::{SealError, dns::DnsError};

/// Why an attempt did not succeed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// For the operator.
    pub(crate) text: String,
    /// Before this no attempt makes sense.
    pub(crate) not_before_ms: Option<i64>,
    pub(crate) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The CA has decided against the order; a new one is needed.
    Refused,
    /// The CA does not know our account: it has lost it.
    Stranger,
    /// The CA is away, or wants to be left alone; the order may go on later.
    Interrupted,
    /// Something here is not as it must be, of which the CA knows nothing; the order may go on later.
    Here,
    /// The CA has refused the number that a request was used once with, as it may at any time (RFC 8555, section
    /// 6.5), more often than the library repeats it: to be repeated at once.
    Repeat,
    /// Somebody else works at it now, or the store is away: nothing is to be noted.
    Lost,
}

impl Failure {
    /// Something here is not as it must be; the order may go on.
    pub(crate) fn own(text: impl Into<String>) -> Self {
        Self { text: text.into(), not_before_ms: None, kind: Kind::Here }
    }

    /// The CA does not do its part now.
    pub(crate) fn interrupted(text: impl Into<String>) -> Self {
        Self { kind: Kind::Interrupted, ..Self::own(text) }
    }

    pub(crate) fn refused(text: impl Into<String>) -> Self {
        Self { kind: Kind::Refused, ..Self::own(text) }
    }

    /// What the ACME library says, with what the CA has said about when to come again.
    pub(crate) fn of(error: &Error, manners: &Manners) -> Self {
        let until = manners.busy_until().map(ms);
        // A CA that is busy or has lost a number has decided nothing.
        let is_decided = matches!(error, Error::Unsupported(_))
            || matches!(error, Error::Api(problem) if until.is_none() && !is_passing(problem));
        let problem = if let Error::Api(problem) = error { type_of(problem) } else { None };
        let kind = match (problem, is_decided) {
            (Some("badNonce"), _) => Kind::Repeat,
            (Some("accountDoesNotExist"), _) => Kind::Stranger,
            (_, true) => Kind::Refused,
            (_, false) => Kind::Interrupted,
        };
        Self { text: gantry_model::Chain(error).to_string(), not_before_ms: until, kind }
    }
}

pub(super) fn type_of(problem: &Problem) -> Option<&str> {
    problem.r#type.as_deref().and_then(|kind| kind.rsplit(':').next())
}

fn is_passing(problem: &Problem) -> bool {
    matches!(type_of(problem), Some("badNonce" | "serverInternal" | "rateLimited"))
        || problem.status.is_some_and(|status| status >= 500)
}

impl From<gantry_store::Error> for Failure {
    fn from(error: gantry_store::Error) -> Self {
        Self { kind: Kind::Lost, ..Self::own(gantry_model::Chain(&error).to_string()) }
    }
}

impl From<SealError> for Failure {
    fn from(error: SealError) -> Self {
        Self::own(error.to_string())
    }
}

impl From<DnsError> for Failure {
    fn from(error: DnsError) -> Self {
        Self::own(error.to_string())
    }
}
