//! From the refusals of the control plane to answers: the one exhaustive match.

use gantry_control::{
    Counted, During, EdgeError, Error, FirewallError, Forbidden, Operation, SnapshotError, Thing,
    TwoFactorError, Unauthenticated, Unopened,
};
use gantry_model::{ContainerId, Phase, ProjectId, Refused, alias::InvalidAlias};
use serde_json::json;

use crate::{
    problem::{Kind, Problem},
    wire,
};

/// When to come back after a refusal that trying again cures, in seconds.
const RETRY_AFTER_S: u64 = 1;
/// The same where somebody must make room on a disk first.
const ROOM_AFTER_S: u64 = 10;

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        let subject = error.subject();
        let problem = Self::of(error, message);
        match subject {
            Some(subject) => problem.about(subject.as_str()),
            None => problem,
        }
    }
}

impl Problem {
    /// Of which kind a refusal is, and what it tells beside its subject.
    fn of(error: Error, message: String) -> Self {
        match error {
            Error::NotFound(thing) => Self::new(missing(thing), message),
            Error::Invalid(errors) => Self::fields(Kind::Invalid, &errors),
            Error::NameTaken(during) => {
                Self::new(during_kind(during, Kind::NameTaken, Kind::NameTakenOnUpdate), message)
            }
            Error::KeyTaken(during) => {
                Self::new(during_kind(during, Kind::KeyTaken, Kind::KeyTakenOnUpdate), message)
            }
            Error::AliasTaken(during) => {
                Self::new(during_kind(during, Kind::AliasTaken, Kind::AliasTakenOnUpdate), message)
            }
            Error::Edge(error) => edge(error, message),
            Error::Snapshot(error) => snapshot(&error, message),
            Error::Firewall(error) => firewall(error, message),
            Error::Ramdisk(_) => Self::new(Kind::StateConflict, message),
            Error::Sealed(Unopened::UnknownKey { .. }) => Self::new(
                Kind::SealingKeyMissing,
                "This was sealed with a key that the installation does not have now",
            )
            .caused_by(error),
            Error::Sealed(Unopened::Damaged) => inside(error),
            Error::SigningNotConfigured => Self::new(Kind::SigningNotConfigured, message),
            Error::PublicKeyTaken => Self::new(Kind::PublicKeyInUse, message),
            Error::UsernameTaken => Self::new(Kind::AliasTaken, message),
            Error::Immutable { .. } => Self::new(Kind::Immutable, message),
            Error::MustStop { .. } => Self::new(Kind::MustStop, message),
            Error::NotStopped { .. } | Error::NotRunning { .. } => {
                Self::new(Kind::StateConflict, message)
            }
            Error::AlreadyThere { operation, project, container, phase } => {
                operated(Kind::AlreadyThere, operation, project, container, phase, message)
            }
            Error::Refused { operation, project, container, phase, refused } => {
                operated(refused_kind(refused), operation, project, container, phase, message)
            }
            Error::MemberExists => Self::new(Kind::MemberExists, message),
            Error::ShareLimit { .. }
            | Error::Vault(_)
            | Error::TokenLimit { .. }
            | Error::PublicStorageLimit { .. }
            | Error::MemberLimit { .. }
            | Error::MembershipLimit { .. }
            | Error::PoolFull { .. }
            | Error::Quota { .. } => Self::new(Kind::Quota, message),
            Error::Prespawned => Self::new(Kind::Prespawned, message),
            Error::Deleting => Self::new(Kind::Busy, message),
            Error::ServerAway { .. } => Self::new(Kind::ServerAway, message),
            Error::OverQuota { what, max, used } => over_quota(what, max, used, message),
            Error::ProjectNotEmpty { .. } => {
                Self::new(Kind::StateConflict, message).retry_after_s(RETRY_AFTER_S)
            }
            Error::Unauthenticated(why) => Self::new(unauthenticated(why), message),
            Error::Forbidden(why) => Self::new(forbidden(&why), message),
            Error::TooManyAttempts { retry_after } => {
                Self::new(Kind::TooManyAttempts, message).retry_after_s(retry_after.as_secs())
            }
            Error::TwoFactor(error) => two_factor(error, message),
            Error::Busy => Self::new(Kind::Unavailable, message).retry_after_s(RETRY_AFTER_S),
            Error::NotImplemented { .. } => Self::new(Kind::NotImplemented, message),
            Error::Conflict => Self::new(Kind::StateConflict, message).retry_after_s(RETRY_AFTER_S),
            Error::Unavailable(_) | Error::Runtime(_) => {
                Self::new(Kind::Unavailable, message).retry_after_s(RETRY_AFTER_S).caused_by(error)
            }
            Error::NoRoom(_) => {
                Self::new(Kind::Unavailable, message).retry_after_s(ROOM_AFTER_S).caused_by(error)
            }
            Error::Internal(_) => inside(error),
        }
    }
}

fn inside(error: Error) -> Problem {
    Problem::new(Kind::Internal, "Something went wrong inside; it was logged").caused_by(error)
}

/// Refusals of aliases, hostnames, documents and hooks.
fn edge(error: EdgeError, message: String) -> Problem {
    match error {
        EdgeError::InvalidAlias { alias, why } => {
            let data = match why {
                InvalidAlias::Reserved(word) => json!({ "field": "alias", "reserved_alias": word }),
                InvalidAlias::ReservedPrefix(prefix) => {
                    json!({ "field": "alias", "reserved_prefix": prefix })
                }
                InvalidAlias::Form | InvalidAlias::Canonical => {
                    json!({ "field": "alias", "value": alias })
                }
            };
            Problem::new(Kind::InvalidAlias, message).with_data(data)
        }
        EdgeError::AliasInUse { alias, own } => {
            let scope = if own { "account" } else { "server" };
            let data = json!({ "field": "alias", "value": alias, "scope": scope });
            Problem::new(Kind::AliasInUse, message).with_data(data)
        }
        EdgeError::AliasReserved => Problem::new(Kind::AliasReserved, message),
        EdgeError::PortRequired => Problem::new(Kind::PortRequired, message),
        EdgeError::Finalizing => Problem::new(Kind::Finalizing, message),
        EdgeError::AliasLimit { .. } => Problem::new(Kind::AliasLimit, message),
        EdgeError::HostnameInUse => Problem::new(Kind::HostnameInUse, message),
        EdgeError::HostnameNotProven { .. } => Problem::new(Kind::HostnameNotProven, message),
        EdgeError::Names(_) => {
            Problem::new(Kind::Unavailable, message).retry_after_s(RETRY_AFTER_S).caused_by(error)
        }
        EdgeError::Stale => Problem::new(Kind::PreconditionFailed, message),
        EdgeError::HooksOfProject => Problem::new(Kind::HooksOfProject, message),
        EdgeError::HookLimit => Problem::new(Kind::HookLimit, message),
    }
}

/// Refusals of snapshots and copies.
fn snapshot(error: &SnapshotError, message: String) -> Problem {
    match *error {
        SnapshotError::Limit { count, max } => {
            let data = json!({ "field": "snapshots", "current_count": count, "limit": max });
            Problem::new(Kind::SnapshotLimit, message).with_data(data)
        }
        SnapshotError::Quota { .. } => Problem::new(Kind::Quota, message),
        SnapshotError::Busy => {
            Problem::new(Kind::SnapshotBusy, message).retry_after_s(RETRY_AFTER_S)
        }
        SnapshotError::Finalizing => {
            Problem::new(Kind::Finalizing, message).retry_after_s(RETRY_AFTER_S)
        }
        SnapshotError::Prespawned => Problem::new(Kind::SnapshotOfPrespawned, message),
        SnapshotError::NothingThere => Problem::new(Kind::StateConflict, message),
        SnapshotError::NameTaken { .. } => Problem::new(Kind::SnapshotNameTaken, message),
        SnapshotError::ContainerGone => Problem::new(Kind::ContainerNotFound, message),
        SnapshotError::Refused(refused) => Problem::new(refused_kind(refused), message),
        SnapshotError::NotACopy => Problem::new(Kind::NotACopy, message),
        SnapshotError::NotMade => {
            Problem::new(Kind::SnapshotUnavailable, message).retry_after_s(RETRY_AFTER_S)
        }
    }
}

/// Refusals of firewall rules.
fn firewall(error: FirewallError, message: String) -> Problem {
    match error {
        FirewallError::TooMany | FirewallError::TooLarge => {
            Problem::new(Kind::FirewallLimit, message)
        }
        FirewallError::HostUnavailable => {
            Problem::new(Kind::FirewallUnavailable, message).retry_after_s(RETRY_AFTER_S)
        }
    }
}

fn over_quota(what: Counted, max: u32, used: u64, message: String) -> Problem {
    let (kind, field, quota) = quota(what);
    let counts = json!({ "field": field, "quota": quota, "current_count": used, "limit": max });
    Problem::new(kind, message).with_data(counts)
}

/// Of which kind the refusal is, the field of the account that has the limit, and the setting for all accounts.
fn quota(what: Counted) -> (Kind, &'static str, &'static str) {
    match what {
        Counted::Containers => (Kind::Quota, "max_containers", "containers_per_user"),
        Counted::RunningContainers => {
            (Kind::Quota, "max_running_containers", "running_containers_per_user")
        }
        Counted::Projects => (Kind::Quota, "max_projects", "projects_per_user"),
        Counted::ServerContainers => (Kind::ServerFull, "server_id", "containers_per_server"),
    }
}

/// Refusals of second factors.
fn two_factor(error: TwoFactorError, message: String) -> Problem {
    match error {
        TwoFactorError::Enabled | TwoFactorError::NotEnabled | TwoFactorError::NotBegun => {
            Problem::new(Kind::TwoFactorState, message)
        }
        TwoFactorError::Locked { retry_after } => Problem::new(Kind::CodesLocked, message)
            .with_data(json!({ "lockout_seconds": retry_after.as_secs() }))
            .retry_after_s(retry_after.as_secs()),
    }
}

fn missing(thing: Thing) -> Kind {
    match thing {
        Thing::Project => Kind::ProjectNotFound,
        Thing::Container => Kind::ContainerNotFound,
        Thing::SourceContainer => Kind::SourceNotFound,
        Thing::Snapshot
        | Thing::Rule
        | Thing::Outbound
        | Thing::Member
        | Thing::Server
        | Thing::Token
        | Thing::Image
        | Thing::User
        | Thing::Alias
        | Thing::Group
        | Thing::Cell
        | Thing::Hook
        | Thing::Hostname
        | Thing::VaultKey
        | Thing::PublicProfile
        | Thing::Share
        | Thing::ShareTarget
        | Thing::Event => Kind::ResourceNotFound,
    }
}

fn unauthenticated(why: Unauthenticated) -> Kind {
    match why {
        Unauthenticated::Missing => Kind::MissingToken,
        Unauthenticated::Invalid | Unauthenticated::Refresh | Unauthenticated::TempToken => {
            Kind::InvalidToken
        }
        Unauthenticated::Expired => Kind::TokenExpired,
        Unauthenticated::Credentials => Kind::InvalidCredentials,
        Unauthenticated::Code => Kind::InvalidCode,
    }
}

fn forbidden(why: &Forbidden) -> Kind {
    match why {
        Forbidden::OffRealm
        | Forbidden::RealmRequired
        | Forbidden::WrongRealm(_)
        | Forbidden::RealmConflict(_) => Kind::RealmScope,
        Forbidden::PasswordAlone => Kind::TwoFactorRequired,
        Forbidden::Leaf(_)
        | Forbidden::SessionOnly
        | Forbidden::AdminOnly
        | Forbidden::RealmsFixed
        | Forbidden::MemoryOfRealms
        | Forbidden::OwnFactor
        | Forbidden::Level(_)
        | Forbidden::OwnerOnly(_)
        | Forbidden::Address
        | Forbidden::VaultAccess
        | Forbidden::Kvm(_)
        | Forbidden::Wider(_) => Kind::Forbidden,
    }
}

/// Something under way is a conflict that passes; a wrong state is a mistake of the request.
fn refused_kind(refused: Refused) -> Kind {
    match refused {
        Refused::Unfinished
        | Refused::CopyInProgress
        | Refused::StartInProgress
        | Refused::StopInProgress
        | Refused::Deleting => Kind::Busy,
        Refused::Exists | Refused::Paused | Refused::NotRunning | Refused::Failed => {
            Kind::OperationRefused
        }
    }
}

fn during_kind(during: During, create: Kind, update: Kind) -> Kind {
    match during {
        During::Create => create,
        During::Update => update,
    }
}

fn operated(
    kind: Kind,
    operation: Operation,
    project: ProjectId,
    container: ContainerId,
    phase: Phase,
    message: String,
) -> Problem {
    let data = wire::Operated::refused(operation, project, container, phase, &message);
    let problem = Problem::new(kind, message);
    match serde_json::to_value(data) {
        Ok(data) => problem.with_data(data),
        Err(error) => problem.caused_by(error),
    }
}
