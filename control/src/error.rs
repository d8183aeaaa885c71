//! Why the control plane does not do what it was asked.
//!
//! Every refusal is a variant with what a front needs for its answer; no variant knows a status
//! code. `Display` is for the client and says what would help. Causes are for the log.

mod forbidden;
mod ramdisk;
mod subject;
mod thing;

use std::time::Duration;

use gantry_model::{
    ContainerId, FieldError, Phase, ProjectId, Refused, ServerName, alias::InvalidAlias,
    firewall::Rules, hook,
};
use gantry_store::Counted;

pub use self::{forbidden::Forbidden, ramdisk::RamdiskError, subject::Subject, thing::Thing};
use crate::{names::LookUpFailed, operate::Operation, seal::Unopened};

/// The result of a use case.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// During which write a uniqueness rule was broken: the reference answers differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum During {
    /// A creation: a conflict.
    Create,
    /// An update: a mistake in the request.
    Update,
}

/// Why a credential proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Unauthenticated {
    /// No credential came with the request.
    #[error("Authentication token required")]
    Missing,
    /// Not one of the known forms, unknown, disabled, or signed by someone else.
    #[error("Invalid authentication token")]
    Invalid,
    /// It was good until it expired.
    #[error("Token has expired")]
    Expired,
    /// User name and password do not belong together; whether the user exists is not told.
    #[error("Invalid email or password")]
    Credentials,
    /// What stands for the password of a login is not good, or not any more.
    #[error("Invalid or expired temp_token; log in again")]
    TempToken,
    /// Not a code of the account's second factor, or one that has been used.
    #[error(
        "the code is wrong, or has been used; wait for the next one of the app, or use a backup code"
    )]
    Code,
    /// Not a refresh token, or one of a session that has ended.
    #[error("Invalid refresh token")]
    Refresh,
}

/// Why what is asked about aliases, hostnames, permission documents or hooks cannot be.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// Another alias has this name, or somebody else had it until a short time ago.
    #[error("the alias {alias} is in use")]
    AliasInUse {
        /// The name.
        alias: String,
        /// Whether it is one of the same account.
        own: bool,
    },
    /// The name cannot be one of an alias.
    #[error("Invalid alias: {why}")]
    InvalidAlias {
        /// The name, at most 64 characters of it.
        alias: String,
        /// Why not.
        why: InvalidAlias,
    },
    /// The name of the alias has become reserved since it was made; it can only be renamed.
    #[error("the name of the alias is reserved by now; rename it")]
    AliasReserved,
    /// An alias to `http` or `https` needs a port.
    #[error("port is required for http and https")]
    PortRequired,
    /// The container is being deleted, and with it goes all that leads to it.
    #[error("the container is being deleted")]
    Finalizing,
    /// The account has as many aliases as it may.
    #[error("the limit of aliases is reached ({max}/{max})")]
    AliasLimit {
        /// The limit.
        max: u32,
    },
    /// The domain name system does not prove that a hostname is meant for an alias.
    #[error(
        "{hostname} does not lead here: it needs a CNAME record to {alias_host}, or a TXT record at \
         _gantry.{hostname} with that name, or exactly the addresses of {alias_host}"
    )]
    HostnameNotProven {
        /// The hostname.
        hostname: String,
        /// The hostname of the alias.
        alias_host: String,
    },
    /// The domain name system does not answer.
    #[error("the domain name system does not answer; try again")]
    Names(#[source] LookUpFailed),
    /// The hostname leads to another alias.
    #[error("the hostname is bound to another alias")]
    HostnameInUse,
    /// The document has another version than the one that the write names.
    #[error("etag_mismatch")]
    Stale,
    /// A project has no hooks.
    #[error("hooks belong to containers; a project's document has none")]
    HooksOfProject,
    /// The service or the container has as many hooks as it may.
    #[error(
        "a service may have at most {} hooks, a container {}",
        hook::SERVICE_MAX,
        hook::CONTAINER_MAX
    )]
    HookLimit,
}

/// Why what is asked about snapshots and copies cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The container has as many snapshots as it may.
    #[error("the container has {count} snapshots and may have {max}; delete one first")]
    Limit {
        /// How many it has.
        count: u64,
        /// How many it may have.
        max: u32,
    },
    /// The account has as many snapshots as it may, or would have more.
    #[error(
        "an account may have {max} snapshots, those of deleted containers included; delete some first"
    )]
    Quota {
        /// How many it may have.
        max: u32,
    },
    /// A snapshot of the container is being made or used, or its files are being copied.
    #[error("another operation on the container's snapshots or files is under way; try again")]
    Busy,
    /// The container is being made or deleted.
    #[error("the container is being created or deleted")]
    Finalizing,
    /// It waits in the warm pool: nobody has it yet.
    #[error("the container waits in the warm pool; what nobody has claimed has no snapshots")]
    Prespawned,
    /// The creation of the container failed, so it has no files.
    #[error("the container was never made, so that it has no files")]
    NothingThere,
    /// The container has a snapshot of this name.
    #[error("the container has a snapshot named {name} already; choose another alias")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// The container of the snapshot was deleted.
    #[error(
        "the container was deleted; copy it with this source_snapshot to get its files in a new one"
    )]
    ContainerGone,
    /// The phase of the container does not allow it.
    #[error("its files cannot be replaced now: {0}")]
    Refused(Refused),
    /// The container is no copy of another.
    #[error("the container is not a copy, so that there is nothing to synchronise it with")]
    NotACopy,
    /// The runtime could not make the snapshot.
    #[error("the snapshot could not be made; try again")]
    NotMade,
}

/// Why what is asked about firewall rules cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FirewallError {
    /// The container has as many rules as it may.
    #[error("a container may have at most {} firewall rules; remove some first", Rules::MAX)]
    TooMany,
    /// The rules of the container are as long as they may be.
    #[error("the firewall rules of a container may take at most {} octets", Rules::OCTETS_MAX)]
    TooLarge,
    /// The rules are recorded, but the packet filter did not take them.
    #[error(
        "the rules are recorded but not in force yet, because the host's packet filter does not \
         answer; they will be as soon as it does"
    )]
    HostUnavailable,
}

/// Why what is asked about a second factor cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TwoFactorError {
    /// There is one already.
    #[error("two-factor authentication is enabled already; disable it first")]
    Enabled,
    /// There is none.
    #[error("two-factor authentication is not enabled")]
    NotEnabled,
    /// There is no secret that a code could be of.
    #[error(
        "two-factor authentication was not set up; ask /users/auth/2fa/setup for a secret first"
    )]
    NotBegun,
    /// There were too many wrong codes.
    #[error("too many wrong codes; try again in {} s", retry_after.as_secs())]
    Locked {
        /// When to try again, in whole seconds.
        retry_after: Duration,
    },
}

/// Why nothing more can be put into a vault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// The account has as many keys as it may.
    #[error("a vault may hold at most {max} keys; delete some first")]
    Keys {
        /// How many it may have.
        max: u32,
    },
    /// The account would have more octets than it may.
    #[error("a vault may hold at most {max} octets, metadata included; delete something first")]
    Octets {
        /// How many it may have.
        max: u64,
    },
}

/// Why a use case was refused or could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It does not exist, or the actor may not see it.
    #[error("{0} not found")]
    NotFound(Thing),
    /// Values break the rules of their fields; every broken rule is listed, at least one.
    #[error("Validation failed: {}", list(.0))]
    Invalid(Vec<FieldError>),
    /// The project has a container of this name already.
    #[error("Container name already in use within the project")]
    NameTaken(During),
    /// Another container has this SSH key.
    #[error("The SSH public key is in use by another container; keys are unique per container")]
    KeyTaken(During),
    /// The owner has a project of this alias already.
    #[error("Project alias already exists")]
    AliasTaken(During),
    /// What is asked about aliases, hostnames, documents or hooks cannot be.
    #[error(transparent)]
    Edge(#[from] EdgeError),
    /// What is asked about snapshots and copies cannot be.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// What is asked about firewall rules cannot be.
    #[error(transparent)]
    Firewall(#[from] FirewallError),
    /// Memory cannot be shared, or is.
    #[error(transparent)]
    Ramdisk(#[from] RamdiskError),
    /// Nothing more can be put into the vault.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// There are as many storage shares as there may be.
    #[error("{what} may have at most {max} storage shares; delete some first")]
    ShareLimit {
        /// What has too many.
        what: &'static str,
        /// How many it may have.
        max: u32,
    },
    /// What lies sealed in the store cannot be read.
    #[error("what was sealed cannot be opened: {0}")]
    Sealed(#[from] Unopened),
    /// Nothing is signed here.
    #[error("the signing of claims is switched off on this installation")]
    SigningNotConfigured,
    /// The account has as many tokens as it may.
    #[error("there are too many tokens: an account may have at most {max}; delete some first")]
    TokenLimit {
        /// How many it may have.
        max: usize,
    },
    /// Another token shows itself under this public key.
    #[error("another token has this public key")]
    PublicKeyTaken,
    /// The tokens of the account show as much as they may, or would show more.
    #[error("the tokens of an account may have at most {max} octets of public_storage together")]
    PublicStorageLimit {
        /// How many octets they may show.
        max: u64,
    },
    /// There is a user of this name already.
    #[error("the user name is taken")]
    UsernameTaken,
    /// This field cannot change after creation.
    #[error("{} cannot be changed after creation", field.as_str())]
    Immutable {
        /// The field.
        field: Subject,
    },
    /// This field changes only while the container is stopped.
    #[error("{} can only be changed while the container is stopped; stop it first", field.as_str())]
    MustStop {
        /// The field.
        field: Subject,
    },
    /// The same, where the reference answers with a conflict.
    #[error("{} can only be changed while the container is stopped; stop it first", field.as_str())]
    NotStopped {
        /// The field.
        field: Subject,
    },
    /// The container is in the wanted state already.
    #[error("the container is {phase} already")]
    AlreadyThere {
        /// What was asked.
        operation: Operation,
        /// The project of the container.
        project: ProjectId,
        /// The container.
        container: ContainerId,
        /// Where it stands.
        phase: Phase,
    },
    /// The container's phase does not allow the operation.
    #[error("cannot {operation}: {refused}")]
    Refused {
        /// What was asked.
        operation: Operation,
        /// The project of the container.
        project: ProjectId,
        /// The container.
        container: ContainerId,
        /// Where it stands.
        phase: Phase,
        /// Why not.
        refused: Refused,
    },
    /// The container waits in the warm pool, where it can only be looked at and deleted.
    #[error(
        "the container waits in the warm pool, where it can only be looked at and deleted; create one \
         like it to claim it"
    )]
    Prespawned,
    /// As many containers wait in the warm pool as may.
    #[error("at most {max} containers may wait in the warm pool; claim or delete some first")]
    PoolFull {
        /// How many may wait.
        max: u32,
    },
    /// The container is being deleted; nothing about it changes any more.
    #[error("the container is being deleted")]
    Deleting,
    /// The project holds as many containers as it may.
    #[error("This project has reached its container limit ({max}).")]
    Quota {
        /// The limit, the project's `max_containers`.
        max: u32,
    },
    /// The owner of what is to be made, or to run, has as much of it as it may; or the server has.
    #[error("{}", over_quota(*.what, *.max, *.used))]
    OverQuota {
        /// Of what.
        what: Counted,
        /// How much there may be.
        max: u32,
        /// How much there is.
        used: u64,
    },
    /// The user is a member of the project already.
    #[error("the user has a permission for this project already; change that one")]
    MemberExists,
    /// The project has as many members as it may.
    #[error("a project may have at most {max} permissions")]
    MemberLimit {
        /// How many it may have.
        max: u32,
    },
    /// The user is a member of as many projects as one may be.
    #[error(
        "the user has permissions for {max} projects, which is the most; they must give up one"
    )]
    MembershipLimit {
        /// Of how many a user may be one.
        max: u32,
    },
    /// The server is one of the store, but none that this process runs.
    #[error(
        "the server {server} is not configured any more, so that nothing can be done with its \
         containers; the operator can configure it again"
    )]
    ServerAway {
        /// Its name.
        server: ServerName,
    },
    /// The project still has containers that could not be removed in time; ask again.
    #[error("{left} containers of the project are still being deleted; try again")]
    ProjectNotEmpty {
        /// How many were left when waiting ended.
        left: u64,
    },
    /// Who asks is not known.
    #[error(transparent)]
    Unauthenticated(#[from] Unauthenticated),
    /// Who asks may not do this.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    /// Too many failed attempts to log in.
    #[error("too many failed attempts; try again in {} s", retry_after.as_secs())]
    TooManyAttempts {
        /// When to try again, in whole seconds.
        retry_after: Duration,
    },
    /// What is asked about a second factor cannot be.
    #[error(transparent)]
    TwoFactor(#[from] TwoFactorError),
    /// The server does as much as it can of this kind of work at once.
    #[error("the server is busy; try again")]
    Busy,
    /// What is asked needs a container that runs.
    #[error("the container {}", standing(*.phase))]
    NotRunning {
        /// What it does instead.
        phase: Phase,
    },
    /// A documented ability that this version does not have.
    #[error("not implemented: {what}")]
    NotImplemented {
        /// What is missing and what to do instead.
        what: &'static str,
    },
    /// The record changed under this write again and again.
    #[error("the resource was changed at the same time; try again")]
    Conflict,
    /// The store does not answer now; trying again helps.
    #[error("the service is temporarily unavailable")]
    Unavailable(#[source] gantry_store::Error),
    /// The store's disk is full; what was asked for was not begun.
    #[error("there is no room on the server's disk: nothing was changed; try again later")]
    NoRoom(#[source] gantry_store::Error),
    /// The runtime refused; its reason is safe to show.
    #[error("{}", .0.reason())]
    Runtime(#[source] gantry_runtime::Error),
    /// A defect or damaged data; clients learn nothing more.
    #[error("internal error")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What a container does that does not run, and what would help.
fn standing(phase: Phase) -> &'static str {
    match phase {
        Phase::Running => "runs",
        Phase::Paused => "is paused; resume it first",
        Phase::Stopped => "is stopped; start it first",
        Phase::Failed => "has failed; start it again first",
        Phase::Creating | Phase::Copying | Phase::Claiming => "is being made; try again later",
        Phase::Starting => "is starting; try again in a moment",
        Phase::Stopping => "is stopping; start it when it has",
        Phase::Deleting => "is being deleted",
    }
}

fn over_quota(what: Counted, max: u32, used: u64) -> String {
    match what {
        Counted::Containers => format!(
            "the owner of the project may have {max} containers and has {used}, those being deleted \
             included: delete one, or have an administrator raise the limit"
        ),
        Counted::RunningContainers => format!(
            "the owner of the project may have {max} containers that run or are paused and has {used}: \
             stop one, or have an administrator raise the limit"
        ),
        Counted::Projects => format!(
            "the account may have {max} projects and has {used}: delete one, or have an administrator \
             raise the limit"
        ),
        Counted::ServerContainers => format!(
            "This server has reached its container limit. It may have {max} containers, those of the warm \
             pool included, and has {used}: delete one, or ask its operator for room"
        ),
    }
}

fn list(errors: &[FieldError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl Error {
    /// One broken rule.
    pub(crate) fn invalid(field: impl Into<String>, rule: impl Into<String>) -> Self {
        Self::Invalid(vec![FieldError::new(field, rule)])
    }

    /// Nothing will change any more: the store was closed.
    pub(crate) fn store_closed(_: tokio::sync::watch::error::RecvError) -> Self {
        Self::Unavailable(gantry_store::Error::Unavailable(gantry_store::Outage::Closed))
    }

    /// What a store that cannot be used now means.
    fn of_outage(error: gantry_store::Error) -> Self {
        let full =
            matches!(&error, gantry_store::Error::Unavailable(gantry_store::Outage::Full(_)));
        if full { Self::NoRoom(error) } else { Self::Unavailable(error) }
    }

    pub(crate) fn internal(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Internal(source.into())
    }
}

impl From<getrandom::Error> for Error {
    fn from(source: getrandom::Error) -> Self {
        Self::internal(source.to_string())
    }
}

impl Error {
    /// What a store's refusal means for a write of this kind to this thing.
    pub(crate) fn of_write(error: gantry_store::Error, thing: Thing, during: During) -> Self {
        use gantry_store::Error as Store;
        match error {
            Store::NotFound => Self::NotFound(thing),
            Store::NameTaken => Self::NameTaken(during),
            Store::KeyTaken => Self::KeyTaken(during),
            Store::AliasTaken => Self::AliasTaken(during),
            Store::LabelTaken { own } => EdgeError::AliasInUse { alias: String::new(), own }.into(),
            Store::AliasLimit { max } => EdgeError::AliasLimit { max }.into(),
            Store::HostnameTaken => EdgeError::HostnameInUse.into(),
            Store::UsernameTaken => Self::UsernameTaken,
            Store::SnapshotBusy => SnapshotError::Busy.into(),
            Store::SnapshotLimit { count, max } => SnapshotError::Limit { count, max }.into(),
            Store::SnapshotQuota { max } => SnapshotError::Quota { max }.into(),
            Store::VaultKeyLimit { max } => VaultError::Keys { max }.into(),
            Store::VaultSizeLimit { max } => VaultError::Octets { max }.into(),
            Store::ShareLimit { what, max } => Self::ShareLimit { what, max },
            Store::PoolFull { max } => Self::PoolFull { max },
            Store::TokenLimit { max } => Self::TokenLimit { max },
            Store::PublicKeyTaken => Self::PublicKeyTaken,
            Store::PublicStorageLimit { max } => Self::PublicStorageLimit { max },
            Store::QuotaReached { max } => Self::Quota { max },
            Store::OverQuota { what, max, used } => Self::OverQuota { what, max, used },
            Store::MemberExists => Self::MemberExists,
            Store::MembersPresent => RamdiskError::MembersPresent.into(),
            Store::RamdiskShared => RamdiskError::Shared.into(),
            Store::MemberLimit { max } => Self::MemberLimit { max },
            Store::MembershipLimit { max } => Self::MembershipLimit { max },
            Store::ProjectGone => Self::NotFound(Thing::Project),
            Store::Stale => Self::Conflict,
            Store::Unavailable(_) => Self::of_outage(error),
            Store::IdTaken | Store::NotEmpty | Store::Corrupt { .. } => Self::internal(error),
        }
    }
}

/// For reads, and for writes that no rule of uniqueness governs.
impl From<gantry_store::Error> for Error {
    fn from(error: gantry_store::Error) -> Self {
        if error.is_retryable() { Self::of_outage(error) } else { Self::internal(error) }
    }
}
