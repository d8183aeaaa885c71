//! By what the official clients tell why they were refused, or are told nothing more.

use gantry_control::{Error, Forbidden, Unauthenticated};

/// Why a client is not told what happens.
#[derive(Debug)]
pub(super) struct Refusal {
    /// For programs.
    pub(super) code: &'static str,
    /// For people.
    pub(super) message: String,
}

/// When a client is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// When it comes.
    First,
    /// When it was let in before.
    Later,
}

/// What a credential looks like, which some codes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    Session,
    Token,
}

impl Refusal {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The refusal that an error is; none if it is no refusal but a fault, after which a client comes again.
    pub(super) fn of(error: &Error, when: When, sort: Sort) -> Option<Self> {
        let code = if let Error::Unauthenticated(why) = error {
            unauthenticated(*why, when, sort)
        } else if let Error::Forbidden(why) = error {
            forbidden(why, when)
        } else {
            return None;
        };
        Some(Self::new(code, error.to_string()))
    }
}

fn unauthenticated(why: Unauthenticated, when: When, sort: Sort) -> &'static str {
    let is_expired = match why {
        Unauthenticated::Missing => return "MISSING_TOKEN",
        Unauthenticated::Expired => true,
        Unauthenticated::Invalid
        | Unauthenticated::Credentials
        | Unauthenticated::Code
        | Unauthenticated::TempToken
        | Unauthenticated::Refresh => false,
    };
    match (is_expired, when, sort) {
        (true, _, Sort::Session) => "JWT_EXPIRED",
        (true, _, Sort::Token) => "AUTH_TOKEN_EXPIRED",
        (false, When::First, _) => "INVALID_TOKEN",
        (false, When::Later, Sort::Session) => "JWT_REVOKED",
        // Deleted or disabled; a deleted one looks like one that never was.
        (false, When::Later, Sort::Token) => "AUTH_TOKEN_DISABLED",
    }
}

fn forbidden(why: &Forbidden, when: When) -> &'static str {
    match why {
        Forbidden::RealmRequired => "REALM_REQUIRED",
        Forbidden::WrongRealm(_)
        | Forbidden::RealmConflict(_)
        | Forbidden::OffRealm
        | Forbidden::RealmsFixed
        | Forbidden::MemoryOfRealms => "REALM_FORBIDDEN",
        Forbidden::Address => "IP_NOT_ALLOWED",
        Forbidden::Leaf(_)
        | Forbidden::SessionOnly
        | Forbidden::AdminOnly
        | Forbidden::PasswordAlone
        | Forbidden::OwnFactor
        | Forbidden::Level(_)
        | Forbidden::OwnerOnly(_)
        | Forbidden::VaultAccess
        | Forbidden::Kvm(_)
        | Forbidden::Wider(_) => match when {
            When::First => "EVENT_ACCESS_DENIED",
            When::Later => "EVENT_ACCESS_REVOKED",
        },
    }
}
