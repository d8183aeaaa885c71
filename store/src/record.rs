//! What the store keeps, as its callers see it.
//!
//! Every time is a count of milliseconds since the Unix epoch, in UTC, and named `*_ms`; the store
//! reads no clock and takes `now_ms` from its caller.

use std::{fmt, net::IpAddr, sync::Arc};

use gantry_model::{
    ContainerId, ContainerSpec, Generation, LogId, Phase, ProjectId, RealmId, ServerId, ServerName,
    SnapshotId, TokenId, UserId, Wish, project::ProjectSpec, ssh::KeyFingerprint,
};

pub use crate::edge_record::{
    Access, Alias, AliasFilter, AliasRecord, AliasRules, CustomHostname, EdgeRecord, HookRecord,
    HostnameProof, Scope,
};
pub use crate::environment::EnvironmentSync;

/// A position in the change feed: 0 before the first change, then one more for each change, in the
/// order of the commits and without gaps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// Names one history of the feed; chosen at random when the store is made. Revisions of two epochs
/// do not compare.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(pub [u8; 16]);

/// The version of one record, for compare-and-swap: each change of the record adds one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

impl Version {
    /// The version of a new record.
    pub const FIRST: Self = Self(1);
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// An account.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// Its id.
    pub id: UserId,
    /// Its name, unique, compared octet by octet.
    pub username: String,
    /// The password's hash in PHC format; never shown.
    pub password_hash: String,
    /// Whether it may administer the installation.
    pub is_admin: bool,
    /// Sessions of an older generation are void.
    pub session_generation: u64,
    /// When it was made.
    pub created_at_ms: i64,
    /// When it was last changed.
    pub updated_at_ms: i64,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the hash: this text may reach a log.
        f.debug_struct("User")
            .field("id", &self.id)
            .field("username", &self.username)
            .field("is_admin", &self.is_admin)
            .field("session_generation", &self.session_generation)
            .finish_non_exhaustive()
    }
}

/// A long-lived API token; its secret is not here, only a hash of it.
#[derive(Clone, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "switches that have nothing to do with each other"
)]
pub struct Token {
    /// Its id.
    pub id: TokenId,
    /// Whose rights it carries.
    pub owner: UserId,
    /// Its name for people; not unique.
    pub alias: String,
    /// The first characters of the secret, to recognise it by.
    pub prefix: String,
    /// The keyed hash of the secret; unique.
    pub hash: [u8; 32],
    /// The realms that it is limited to; unlimited when empty.
    pub realms: Vec<RealmId>,
    /// Whether it may be used without a realm.
    pub allow_no_realm: bool,
    /// Whether it may read events.
    pub event_access: bool,
    /// Whether it may read the vault.
    pub vault_access: bool,
    /// The addresses that it may be used from; any when empty.
    pub ip_whitelist: Vec<String>,
    /// Its permissions, a JSON document that the store does not look into.
    pub permissions: String,
    /// When it ends; never when absent.
    pub expires_at_ms: Option<i64>,
    /// Whether it may be used at all.
    pub enabled: bool,
    /// When it was last used, to about a minute.
    pub last_used_at_ms: Option<i64>,
    /// The address that last used it.
    pub last_used_ip: Option<String>,
    /// When it was made.
    pub created_at_ms: i64,
    /// When it was last changed; uses do not count.
    pub updated_at_ms: i64,
    /// The token that it was made with, if it was one; that may be gone.
    pub created_by: Option<TokenId>,
    /// How many tokens stand between it and a login.
    pub depth: u32,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("id", &self.id)
            .field("owner", &self.owner)
            .field("alias", &self.alias)
            .field("prefix", &self.prefix)
            .field("enabled", &self.enabled)
            .finish_non_exhaustive()
    }
}

/// A project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    /// Its id.
    pub id: ProjectId,
    /// Whose it is.
    pub owner: UserId,
    /// What its owner set.
    pub spec: ProjectSpec,
    /// For compare-and-swap.
    pub version: Version,
    /// When it was made.
    pub created_at_ms: i64,
    /// When it was last changed.
    pub updated_at_ms: i64,
}

/// A container: what is wanted and what is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its id.
    pub id: ContainerId,
    /// The project that it belongs to.
    pub project: ProjectId,
    /// Whose it is.
    pub owner: UserId,
    /// The server that it runs on.
    pub server: ServerId,
    /// What its owner set.
    pub spec: ContainerSpec,
    /// What its owner last asked for.
    pub wish: Wish,
    /// The container that this is a copy of; it may be gone by now.
    pub source: Option<ContainerId>,
    /// Whether it waits in its owner's warm pool: no list shows it unasked, no hostname leads to it.
    pub prespawn: bool,
    /// Counts the wishes; `status.done_seq` follows it.
    pub wish_seq: u64,
    /// What is.
    pub status: ContainerStatus,
    /// How far its variables have come.
    pub environment_sync: EnvironmentSync,
    /// When its SSH key was set, if it has one and that is known; the store sees to it.
    pub ssh_key_since_ms: Option<i64>,
    /// For compare-and-swap; shared by spec, wish and status.
    pub version: Version,
    /// When it was made.
    pub created_at_ms: i64,
    /// When it was last changed.
    pub updated_at_ms: i64,
}

/// What is known of a container; written by the reconciler of its server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerStatus {
    /// Where it stands.
    pub phase: Phase,
    /// Its address while it runs.
    pub address: Option<IpAddr>,
    /// The number of its present or last start.
    pub generation: Generation,
    /// Why it failed, in words for its owner.
    pub why: Option<String>,
    /// The last wish that was made true or found failed.
    pub done_seq: u64,
    /// When its present start was done.
    pub started_at_ms: Option<i64>,
    /// The boot of the host that it was last seen in.
    pub boot_id: Option<String>,
    /// What its files are to be taken from before it starts; set while it is being copied or restored.
    pub fill: Option<Fill>,
}

impl ContainerStatus {
    /// The status of a container that has never run.
    pub fn first(phase: Phase) -> Self {
        Self {
            phase,
            address: None,
            generation: Generation(0),
            why: None,
            done_seq: 0,
            started_at_ms: None,
            boot_id: None,
            fill: None,
        }
    }
}

/// Files that a container is to get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Where they come from.
    pub source: FillSource,
    /// Whether the container is made of them; otherwise they take the place of those that it has.
    pub is_new: bool,
}

/// Where the files of a container come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FillSource {
    /// From another container, as it is then.
    Container(ContainerId),
    /// From what a runtime keeps under this id, [`Snapshot::data`].
    Snapshot(SnapshotId),
}

/// A kept state of a container's files. It outlives the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its id.
    pub id: SnapshotId,
    /// What the runtime keeps it under. The snapshots of a container and of its copies share that.
    pub data: SnapshotId,
    /// The container that it belongs to; it may be gone by now.
    pub container: ContainerId,
    /// The project of that container.
    pub project: ProjectId,
    /// Whose it is.
    pub owner: UserId,
    /// The server that keeps it.
    pub server: ServerId,
    /// What was set of the container when the snapshot was made.
    pub spec: ContainerSpec,
    /// Its name, unique among those of the container.
    pub name: String,
    /// What its owner calls it.
    pub alias: Option<String>,
    /// Whether it is there; before that the runtime is making it.
    pub is_ready: bool,
    /// What its files take on disk beside the image, in bytes; 0 until it is ready.
    pub bytes: u64,
    /// When it ends; never when absent.
    pub expires_at_ms: Option<i64>,
    /// When a container was last filled from it.
    pub last_used_at_ms: Option<i64>,
    /// When it was asked for.
    pub created_at_ms: i64,
}

/// Which snapshots are wanted; every condition that is given must hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotFilter {
    /// Only those that this user owns or sees as a member of their project.
    pub seen_by: Option<UserId>,
    /// Only those of this project's containers.
    pub project: Option<ProjectId>,
    /// Only those of this container.
    pub container: Option<ContainerId>,
    /// Only those visible in this realm.
    pub realm: Option<RealmId>,
}

/// What snapshots may be sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotSort {
    /// The name, octet by octet.
    Name,
    /// When it was asked for.
    CreatedAt,
    /// When it ends; those that do not end come first.
    ExpiresAt,
    /// What it takes on disk.
    Size,
}

/// What there is of snapshots of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotSummary {
    /// How many there are.
    pub count: u64,
    /// The name of the one that was used last.
    pub last_used: Option<String>,
}

/// One step in the life of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusLog {
    /// Its id.
    pub id: LogId,
    /// The container.
    pub container: ContainerId,
    /// The phase before; absent for the first entry.
    pub from: Option<Phase>,
    /// The phase after.
    pub to: Phase,
    /// When.
    pub at_ms: i64,
    /// How long the phase before had lasted.
    pub duration_ms: Option<i64>,
    /// Who or what caused it.
    pub triggered_by: String,
    /// More in words, such as why it failed.
    pub note: Option<String>,
}

/// An edge machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its id.
    pub id: ServerId,
    /// Its label in hostnames, unique.
    pub name: ServerName,
    /// When it first started.
    pub created_at_ms: i64,
}

/// Which part of a list is wanted, in which order. Ties are broken by id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page<S> {
    /// The number of the page, from 1; 0 means 1.
    pub page: u32,
    /// The most items on it.
    pub limit: u32,
    /// What to sort by.
    pub sort: S,
    /// Whether the greatest comes first.
    pub descending: bool,
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed<T> {
    /// The items of the page.
    pub items: Vec<T>,
    /// How many there are on all pages, counted at the same instant.
    pub total: u64,
}

/// What projects may be sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProjectSort {
    /// The id.
    Id,
    /// The alias, octet by octet.
    Alias,
    /// When it was made.
    CreatedAt,
    /// When it was last changed.
    UpdatedAt,
}

/// What containers may be sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerSort {
    /// The id.
    Id,
    /// The name, octet by octet.
    Name,
    /// The word of the phase.
    Status,
    /// When it was made.
    CreatedAt,
    /// When it was last changed.
    UpdatedAt,
}

/// What status logs may be sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogSort {
    /// When it happened; entries of one millisecond stay in their order.
    At,
    /// The word of the phase before.
    From,
    /// The word of the phase after.
    To,
}

/// Which containers are wanted; every condition that is given must hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContainerFilter {
    /// Only those that this user owns or sees as a member of their project.
    pub seen_by: Option<UserId>,
    /// Only those of this project.
    pub project: Option<ProjectId>,
    /// Only those visible in this realm.
    pub realm: Option<RealmId>,
    /// Only those of this server.
    pub server: Option<ServerId>,
    /// Whether those in phase `deleting` are wanted, too.
    pub include_deleting: bool,
    /// Whether those that wait in a warm pool are wanted, too.
    pub include_prespawn: bool,
}

/// What a request with an idempotency key finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Idempotency {
    /// The key is new and now belongs to the caller, who must finish or abandon it.
    Fresh,
    /// The first request is still under way.
    InProgress,
    /// The key was used with another body.
    Mismatch,
    /// The first request was answered like this.
    Done {
        /// The HTTP status of that answer.
        status: u16,
        /// Its body.
        body: Vec<u8>,
    },
}

/// Everything that a route table is built from, all seen at `revision`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteSnapshot {
    /// The history that `revision` counts in.
    pub epoch: Epoch,
    /// The last change that is in it.
    pub revision: Revision,
    /// One record for each container, in no particular order.
    pub containers: Vec<RouteRecord>,
}

/// What routing needs to know of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteRecord {
    /// The container.
    pub container: ContainerId,
    /// Its project.
    pub project: ProjectId,
    /// The server that it is on.
    pub server: ServerId,
    /// Whether hostnames lead to it; they do not while it waits in a warm pool.
    pub hoody_kit: bool,
    /// The key that opens it by SSH; none while it waits in a warm pool.
    pub ssh_key: Option<KeyFingerprint>,
    /// Whether SSH may carry connections besides sessions.
    pub ssh_forwarding: bool,
    /// Where it stands.
    pub phase: Phase,
    /// Its address while it runs.
    pub address: Option<IpAddr>,
    /// The number of its present or last start.
    pub generation: Generation,
    /// When its present start was done.
    pub started_at_ms: Option<i64>,
    /// Whether a reason is recorded why it failed.
    pub why_failed: bool,
    /// What the edge must know beside its route; absent if its owner has set nothing.
    pub edge: Option<Arc<EdgeRecord>>,
}

/// One entry of the feed: something about this container changed. It says what to read again, not
/// what changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its position.
    pub revision: Revision,
    /// The container; perhaps gone by now.
    pub container: ContainerId,
}

/// What follows a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changes {
    /// The next changes, without a gap after the revision asked for; empty when there is none.
    Since {
        /// In order; the first has the revision asked for plus one.
        changes: Vec<Change>,
        /// The newest revision there is; greater than that of the last change if there are more.
        head: Revision,
    },
    /// Changes after that revision were thrown away: load everything again.
    Compacted,
    /// That revision is of another history: load everything again.
    NewEpoch,
}
