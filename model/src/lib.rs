//! What the words of Gantry mean: ids, names, the hostname grammar, container specs and phases.
//!
//! Everything here is a function of its arguments. This crate reads no clock, does no I/O, does not
//! log, and knows neither tokio nor http; the one JSON it knows is the form of the permission
//! documents, which are stored and sent as they are. Types are valid by construction, so the rest of
//! the program never checks twice.

pub mod access;
pub mod alias;
mod chain;
pub mod container;
pub mod edge;
pub mod firewall;
pub mod hook;
pub mod id;
mod json;
pub mod name;
pub mod outbound;
pub mod phase;
pub mod project;
mod query;
pub mod route;
pub mod selector;
pub mod service;
pub mod share;
pub mod ssh;

pub use chain::Chain;
pub use container::{ContainerSpec, Generation};
pub use id::{
    AliasId, ContainerId, EventId, HookId, Id, ImageId, InvalidId, LogId, MemberId, ProjectId,
    RealmId, ServerId, ShareId, ShareMountId, SnapshotId, TokenId, UserId,
};
pub use name::{Domain, Hostname, InvalidName, ServerName};
pub use phase::{Event, Phase, Refused, Wish};
pub use route::{NotARoute, RouteKey, Scheme, Target};
pub use service::Service;

/// A value that breaks a rule of its field.
///
/// `field` is the name that clients use for it, `rule` says in one sentence what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {rule}")]
pub struct FieldError {
    /// The field, in the spelling of the API.
    pub field: String,
    /// What would be right, as a sentence without a full stop.
    pub rule: String,
}

impl FieldError {
    /// Names a field and the rule that its value breaks.
    pub fn new(field: impl Into<String>, rule: impl Into<String>) -> Self {
        Self { field: field.into(), rule: rule.into() }
    }
}
