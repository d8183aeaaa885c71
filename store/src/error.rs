//! What can go wrong, and the one place where a database's complaint becomes an answer.

use std::sync::Arc;

use crate::{
    quotas::Counted,
    sqlite::{self, Class},
};

/// What a method of the store returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a store refused or could not answer.
///
/// Nothing was changed, but for one case: after [`Error::Unavailable`] with [`Outage::Io`] a write
/// may turn out to have been made once the store is open again.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// There is no record of this id, or its owner does not exist.
    #[error("there is no such record")]
    NotFound,
    /// The record has another version than the one given.
    #[error("the record has changed meanwhile")]
    Stale,
    /// Another container of the project, or snapshot of the container, has this name.
    #[error("another one has this name")]
    NameTaken,
    /// Another container has this SSH key.
    #[error("another container has this SSH key")]
    KeyTaken,
    /// Another project of the owner has this alias.
    #[error("another project of this owner has this alias")]
    AliasTaken,
    /// Another alias has this label, or somebody else had it until a short time ago.
    #[error("another alias has this label")]
    LabelTaken {
        /// Whether it is one of the same owner.
        own: bool,
    },
    /// The owner has as many aliases as an account may.
    #[error("the account may have at most {max} aliases")]
    AliasLimit {
        /// How many it may have.
        max: u32,
    },
    /// The hostname is bound to another alias.
    #[error("the hostname is bound to another alias")]
    HostnameTaken,
    /// Another user has this name.
    #[error("another user has this name")]
    UsernameTaken,
    /// There is a record of this id (or a token of this hash) already.
    #[error("there is a record of this id already")]
    IdTaken,
    /// The project holds as many containers as it may; those being deleted count until they are
    /// gone.
    #[error("the project may hold at most {max} containers")]
    QuotaReached {
        /// How many it may hold.
        max: u32,
    },
    /// There is as much of this as there may be.
    #[error("there may be at most {max} of these, and there are {used}: {what:?}")]
    OverQuota {
        /// Of what.
        what: Counted,
        /// How many there may be.
        max: u32,
        /// How many there are.
        used: u64,
    },
    /// The project of the container does not exist (any more).
    #[error("the project of the container does not exist")]
    ProjectGone,
    /// The user is a member of the project already.
    #[error("the user is a member of the project already")]
    MemberExists,
    /// The project has members, who could read what its containers would share.
    #[error("the project has members besides its owner")]
    MembersPresent,
    /// Containers of the project share memory, which a member could read.
    #[error("containers of the project share memory")]
    RamdiskShared,
    /// The project has as many members as it may.
    #[error("a project may have at most {max} members")]
    MemberLimit {
        /// How many it may have.
        max: u32,
    },
    /// The user is a member of as many projects as it may.
    #[error("a user may be a member of at most {max} projects")]
    MembershipLimit {
        /// Of how many it may be one.
        max: u32,
    },
    /// The project still holds containers.
    #[error("the project still holds containers")]
    NotEmpty,
    /// The container has as many snapshots as it may.
    #[error("a container may have at most {max} snapshots")]
    SnapshotLimit {
        /// How many it has.
        count: u64,
        /// How many it may have.
        max: u32,
    },
    /// The account has as many snapshots as it may, or would have more.
    #[error("an account may have at most {max} snapshots")]
    SnapshotQuota {
        /// How many it may have.
        max: u32,
    },
    /// As many containers wait in the warm pool as may, of the account or on the server.
    #[error("at most {max} containers may wait in the warm pool")]
    PoolFull {
        /// How many may wait.
        max: u32,
    },
    /// A snapshot of the container is being made, or its files are being replaced.
    #[error("another operation on snapshots is under way")]
    SnapshotBusy,
    /// There are as many shares from this container, of this account, or to this target, as may be.
    #[error("{what} may have at most {max} shares")]
    ShareLimit {
        /// What has too many.
        what: &'static str,
        /// How many it may have.
        max: u32,
    },
    /// The account has as many entries in its vault as it may.
    #[error("a vault may hold at most {max} keys")]
    VaultKeyLimit {
        /// How many it may have.
        max: u32,
    },
    /// The vault of the account would hold more than it may.
    #[error("a vault may hold at most {max} octets")]
    VaultSizeLimit {
        /// How many octets it may hold.
        max: u64,
    },
    /// The account has as many tokens as it may.
    #[error("an account may have at most {max} tokens")]
    TokenLimit {
        /// How many it may have.
        max: usize,
    },
    /// Another token has this public key.
    #[error("another token has this public key")]
    PublicKeyTaken,
    /// The tokens of the account would show more than they may.
    #[error("the tokens of an account may show at most {max} octets")]
    PublicStorageLimit {
        /// How many octets they may show.
        max: u64,
    },
    /// The database cannot be used now.
    #[error("the store is unavailable")]
    Unavailable(#[source] Outage),
    /// A record does not say what it must.
    #[error("a stored record is damaged: {what}")]
    Corrupt {
        /// Which record and what is wrong with it; for the log, not for clients.
        what: String,
    },
}

/// Why the database cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Outage {
    /// The disk is full. Writes are tried again; no reopening is needed.
    #[error("the disk is full")]
    Full(#[source] Cause),
    /// Reading or writing failed. No write is taken until the store is opened again, since a failed
    /// flush says nothing about what is on the disk.
    #[error("reading or writing the database failed")]
    Io(#[source] Cause),
    /// Somebody else held the database, or all connections were taken, for too long.
    #[error("the database is busy")]
    Busy(#[source] Cause),
    /// The database refused a statement: a fault of Gantry.
    #[error("the database refused a statement")]
    Refused(#[source] Cause),
    /// An earlier failure stopped the writer; the store must be opened again.
    #[error("writes have stopped after a failure; the store must be opened again")]
    Stopped,
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

/// The database's own words; shared, since one failed commit answers many callers.
#[derive(Clone, Debug, thiserror::Error)]
#[error(transparent)]
pub struct Cause(Arc<dyn std::error::Error + Send + Sync>);

impl Error {
    /// Whether the same call may succeed later without anything having been changed by the caller.
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable(Outage::Refused(_)) => false,
            Self::Unavailable(_) => true,
            Self::NotFound
            | Self::Stale
            | Self::NameTaken
            | Self::KeyTaken
            | Self::AliasTaken
            | Self::LabelTaken { .. }
            | Self::AliasLimit { .. }
            | Self::HostnameTaken
            | Self::UsernameTaken
            | Self::IdTaken
            | Self::QuotaReached { .. }
            | Self::OverQuota { .. }
            | Self::ProjectGone
            | Self::MemberExists
            | Self::MembersPresent
            | Self::RamdiskShared
            | Self::MemberLimit { .. }
            | Self::MembershipLimit { .. }
            | Self::NotEmpty
            | Self::SnapshotLimit { .. }
            | Self::SnapshotQuota { .. }
            | Self::PoolFull { .. }
            | Self::SnapshotBusy
            | Self::ShareLimit { .. }
            | Self::VaultKeyLimit { .. }
            | Self::VaultSizeLimit { .. }
            | Self::TokenLimit { .. }
            | Self::PublicKeyTaken
            | Self::PublicStorageLimit { .. }
            | Self::Corrupt { .. } => false,
        }
    }
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file cannot be opened, or is no database.
    #[error("the database {path} cannot be opened")]
    Open {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// The SQLite in this binary has a known flaw that damages databases.
    #[error("SQLite {found} is too old; at least {needed} is needed")]
    OldEngine {
        /// The version in this binary.
        found: String,
        /// The oldest that is safe.
        needed: &'static str,
    },
    /// The database does not take a setting that durability depends on.
    #[error("the database refuses {setting} (it says {found:?}); is it on a network file system?")]
    Setting {
        /// The setting and its value.
        setting: &'static str,
        /// What the database says instead.
        found: String,
    },
    /// A newer Gantry wrote this database.
    #[error(
        "the database has schema {found}, this version knows up to {known}; use a newer Gantry"
    )]
    NewerSchema {
        /// The schema's number.
        found: i64,
        /// The newest that this binary knows.
        known: i64,
    },
    /// The database was made by something else, or by a Gantry that never was released.
    #[error("the database's history of migrations is not Gantry's: {what}")]
    ForeignSchema {
        /// What differs.
        what: String,
    },
    /// A migration failed; the database is as before.
    #[error("migration {number} failed")]
    Migration {
        /// The migration's number.
        number: i64,
        /// Why.
        #[source]
        source: Cause,
    },
    /// The check after an unclean end found damage; restore a backup.
    #[error("the database is damaged: {found}")]
    Damaged {
        /// The first finding.
        found: String,
    },
    /// A record that every store has is missing or damaged.
    #[error("the database cannot be read")]
    Record(#[source] Error),
    /// The operating system gave no randomness.
    #[error("no randomness from the operating system")]
    Random(#[source] getrandom::Error),
}

impl Cause {
    /// Keeps an error as a cause.
    pub(crate) fn new(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self(Arc::new(error))
    }
}

impl Outage {
    /// Whether this ends the transaction of everybody in it. What a single statement did wrong does
    /// not.
    pub(crate) const fn ends_transaction(&self) -> bool {
        match self {
            Self::Full(_) | Self::Io(_) | Self::Busy(_) | Self::Stopped | Self::Closed => true,
            Self::Refused(_) => false,
        }
    }

    /// Whether no more writes may be taken until the store is opened again.
    pub(crate) const fn stops_writes(&self) -> bool {
        match self {
            Self::Io(_) | Self::Stopped => true,
            Self::Full(_) | Self::Busy(_) | Self::Refused(_) | Self::Closed => false,
        }
    }
}

/// The one place where a database's complaint becomes an answer. SQLite names the columns of a
/// constraint, PostgreSQL the constraint; both stand in the table.
#[expect(clippy::wildcard_enum_match_arm, reason = "the driver's enum may grow")]
pub(crate) fn failed(error: sqlx::Error) -> Error {
    let database = match error {
        sqlx::Error::Database(ref database) => database.as_ref(),
        sqlx::Error::RowNotFound => return Error::NotFound,
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => {
            return Error::Corrupt { what: error.to_string() };
        }
        sqlx::Error::PoolTimedOut => return Error::Unavailable(Outage::Busy(Cause::new(error))),
        sqlx::Error::PoolClosed => return Error::Unavailable(Outage::Closed),
        sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed => {
            return Error::Unavailable(Outage::Io(Cause::new(error)));
        }
        other => return Error::Unavailable(Outage::Refused(Cause::new(other))),
    };
    match sqlite::classify(database) {
        Class::Taken => match sqlite::constraint(database).unwrap_or_default() {
            "containers.project, containers.name"
            | "container_name"
            | "snapshots.container, snapshots.name"
            | "snapshot_name" => Error::NameTaken,
            "containers.key_fingerprint" | "container_key" => Error::KeyTaken,
            "projects.owner, projects.alias" | "project_alias" => Error::AliasTaken,
            "users.username" | "user_name" => Error::UsernameTaken,
            "project_members.project, project_members.member" | "project_member" => {
                Error::MemberExists
            }
            _ => Error::IdTaken,
        },
        Class::Reference => Error::NotFound,
        Class::Full => Error::Unavailable(Outage::Full(Cause::new(error))),
        Class::Io => Error::Unavailable(Outage::Io(Cause::new(error))),
        Class::Busy => Error::Unavailable(Outage::Busy(Cause::new(error))),
        Class::Refused => Error::Unavailable(Outage::Refused(Cause::new(error))),
    }
}
