//! The use cases of the control plane, and the reconciler that makes their wishes true.
//!
//! [`Controller`] has one method per use case: who may do it, what the rules are, which record is
//! written. [`Reconciler`] compares records with what the runtime reports and closes the gap; it is
//! the only writer of a container's status. [`Starter`] starts a Kit service inside a container when
//! the first request for it comes. None of them knows HTTP, JSON bodies or SSH: fronts turn their
//! input into the arguments here and [`Error`] into their answers.

mod access;
mod accounts;
mod activity;
mod actor;
mod aliases;
mod auth;
mod clock;
mod containers;
mod controller;
mod edge;
mod entry;
mod error;
mod events;
mod firewall;
mod hostnames;
mod idempotency;
mod idle;
mod images;
mod inside;
mod installation;
mod keeper;
mod members;
mod names;
mod operate;
mod outbound;
mod password;
pub mod permissions;
mod projects;
mod propagation;
mod random;
mod realms;
mod recheck;
mod reconciler;
mod seal;
mod secrets;
mod servers;
mod session;
mod shares;
mod signing;
mod snapshots;
mod starter;
mod throttle;
mod tokens;
mod two_factor;
mod vault;
mod visits;
mod wait;
mod wake;

pub use access::{AccessChange, AccessView};
pub use accounts::{AccountChange, LimitsChange};
pub use activity::{ActivityFeed, ActivityQuery, RETENTION_DAYS, Written};
pub use actor::{Actor, Via};
pub use aliases::{AliasChange, AliasOwners, AliasQuery, AliasView, NewAlias};
pub use auth::{Account, AccountQuotas, Credential};
pub use clock::Clock;
pub use containers::{
    ContainerChange, ContainerQuery, ContainerStats, ContainerView, EnvironmentView, Extra, Extras,
    NewContainer, NewCopy,
};
pub use controller::{Controller, Deps, Limits};
pub use entry::NoEntry;
pub use error::{
    During, EdgeError, Error, FirewallError, Forbidden, RamdiskError, Result, SnapshotError,
    Subject, Thing, TwoFactorError, Unauthenticated, VaultError,
};
pub use events::EventQuery;
pub use firewall::{AddedRule, RuleFilter};
pub use gantry_runtime::{RamdiskUse, Stats};
pub use gantry_store::{
    Access, AccountLimits, AccountUse, Activity, ActivityTotals, Alias, Container, ContainerSort,
    ContainerStatus, Counted, CustomHostname, EnvironmentSync, Event, EventTotals, HookRecord,
    HostnameProof, Idempotency, Listed, LogSort, Member, MemberSort, Page, Profile, Project,
    ProjectSort, Ratings, Scope, Server, Share, ShareMount, ShareTarget, Snapshot, SnapshotSort,
    SnapshotSummary, Span, StatusLog, TokenProfile, Version, event_number,
};
pub use hostnames::HostnameView;
pub use idempotency::IdempotencyKey;
pub use idle::{Idler, Traffic};
pub use images::{Image, RATING_MAX, UserImage};
pub use inside::{Display, Inside, Listener, Process, Terminal, Unit};
pub use installation::ServerView;
pub use keeper::SnapshotKeeper;
pub use members::MEMBERS_MAX;
pub use names::{Answer, DnsNames, LookUpFailed, Names};
pub use operate::{Operated, Operation};
pub use outbound::{OutboundStatus, OutboundView, OutboundWrite, WayWrite};
pub use permissions::{Leaf, Permissions};
pub use projects::{DeletedProject, NewProject, ProjectChange};
pub use propagation::Propagation;
pub use realms::RealmView;
pub use recheck::{RecheckConfig, Rechecker};
pub use reconciler::{Reconciler, ReconcilerConfig};
pub use seal::{SealingKeys, Unopened};
pub use servers::{Served, Servers};
pub use session::Session;
pub use shares::{IncomingView, NewShare, ShareChange, ShareQuery, ShareView};
pub use signing::{
    CONTAINER_CLAIM_SECS, Claim, ContainerClaim, IdentityClaim, PublicKey, REPLAY_TOLERANCE_SECS,
    Signing,
};
pub use snapshots::{ContainerSnapshots, NewSnapshot, Restored, SnapshotQuery};
pub use starter::{StartCommand, StartError, Starter, StarterConfig};
pub use tokens::{ExpiresAt, NewToken, ProfileChange, Token, TokenChange};
pub use two_factor::{Enrollment, HalfLogin, LoggedIn, TwoFactorStatus};
pub use vault::{METADATA_MAX, VALUE_MAX, VaultKey, VaultStats, VaultValue, VaultWrite};
pub use visits::{Visit, VisitSender, VisitTeller, Visitor};
pub use wait::{Condition, Waited};
pub use wake::NotWoken;

/// What a field of an update says: nothing, "empty it", or a new value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Patch<T> {
    /// The field was left out: nothing changes.
    #[default]
    Keep,
    /// The field was null: it is emptied.
    Clear,
    /// The new value.
    Set(T),
}
