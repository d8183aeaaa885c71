//! What goes over the wire: one type per object of the API, apart from the records on purpose, so
//! that neither freezes the other.

#![expect(
    clippy::struct_excessive_bools,
    clippy::struct_field_names,
    reason = "names and types are the API's"
)]

mod access;
mod account;
mod activity;
mod alias;
mod claim;
mod config;
mod container;
mod environment;
mod event;
mod exec;
mod firewall;
mod image;
mod list;
mod live;
mod network;
mod place;
mod project;
mod realm;
mod runtime;
mod scalar;
mod server;
mod share;
mod snapshot;
mod stats;
mod two_factor;
mod vault;

pub(crate) use access::{
    AllHooks, OneHook, Permissions, Propagation, ProxyGroups, ProxyService, ProxyServices,
    ProxySettings, RemovedHooks, ServiceHooks,
};
pub(crate) use account::{
    CreatedToken, Me, Onboarding, PublicProfile, Renewed, Session, Token, TokenInUse,
    TokenTemplate, User,
};
pub(crate) use activity::{Activity, ActivityTotals, Metadata};
pub(crate) use alias::{Alias, AliasLite, Aliases, EdgeSettings, Hostname, Hostnames};
pub(crate) use claim::{ContainerClaim, IdentityClaim, PublicKeys};
pub(crate) use config::{MetaConfig, MetaConfigValue};
pub(crate) use container::{
    Container, Containers, Include, KvmOfContainer, Operated, StatusLogs, Urls,
};
pub(crate) use environment::{EnvSync, Variables};
pub(crate) use event::{CleanedEvents, DeletedEvents, Event, EventTotals, Events};
pub(crate) use exec::{Executed, Outcome};
pub(crate) use firewall::{
    DuplicateRule, Firewall, FirewallRules, RemovedRules, ResetFirewall, SwitchedRules,
};
pub(crate) use image::{Image, Images, Imported, Rated, UserImage, UserImages, average};
pub(crate) use list::Pagination;
pub(crate) use live::Frame;
pub(crate) use network::{OutboundNetwork, OutboundState};
pub(crate) use place::{Available, Health, Ip, Rental};
pub(crate) use project::{
    DeletedProject, Project, ProjectPermission, ProjectPermissions, Projects,
};
pub(crate) use realm::Realms;
pub(crate) use runtime::{Parts, RuntimeInfo};
pub(crate) use scalar::{Hex, Timestamp};
pub(crate) use server::{LoadMeans, ServerCommands, ServerRuntime, percent};
pub(crate) use share::{IncomingShare, MountedShare, Share};
pub(crate) use snapshot::{
    ContainerSnapshots, DeletedSnapshot, OneSnapshot, Restored, Snapshots, Synced,
};
pub(crate) use stats::{ProjectStats, Stats};
pub(crate) use two_factor::{
    BackupCodes, LoggedIn, NeedsCode, TokenGate, TwoFactorDisabled, TwoFactorEnabled,
    TwoFactorSetup, TwoFactorStatus,
};
pub(crate) use vault::{ClearedVault, VaultKey, VaultStats, VaultValue};
