//! What owners set about the requests to their containers, as the store's callers see it.

use std::sync::Arc;

use gantry_model::{
    AliasId, ContainerId, HookId, ProjectId, RealmId, ServerId, UserId,
    access::Document,
    alias::{AliasTarget, Landing},
    edge::EdgeSettings,
    hook::Hook,
};

use crate::record::Version;

/// What a permission document is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// All containers of a project.
    Project(ProjectId),
    /// One container.
    Container(ContainerId),
}

/// A permission document with the hooks that share its version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// For compare-and-swap; 0 before the first write. No later version is used twice, not even
    /// after a removal.
    pub version: Version,
    /// The document; none before the first write and after a removal.
    pub document: Option<Document>,
    /// The hooks; of one service in the order in which they are tried. A project has none.
    pub hooks: Vec<HookRecord>,
}

/// A hook and its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookRecord {
    /// Its id, unique in its container.
    pub id: HookId,
    /// What it says.
    pub hook: Hook,
}

/// A chosen name that leads to one service of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alias {
    /// Its id.
    pub id: AliasId,
    /// Whose it is: the owner of the container.
    pub owner: UserId,
    /// The project of the container.
    pub project: ProjectId,
    /// The container; it never changes.
    pub container: ContainerId,
    /// The server of the container.
    pub server: ServerId,
    /// The name, in lower case; unique.
    pub label: String,
    /// What it leads to.
    pub target: AliasTarget,
    /// Where `/` leads, as its owner set it.
    pub target_path: Option<String>,
    /// Whether other paths than that exist.
    pub allow_path_override: bool,
    /// Whether it leads anywhere.
    pub enabled: bool,
    /// When it ends; never when absent.
    pub expires_at_ms: Option<i64>,
    /// Whether another container had the label before; the store decides it.
    pub clear_site_data: bool,
    /// For compare-and-swap.
    pub version: Version,
    /// When it was made.
    pub created_at_ms: i64,
    /// When it was last changed.
    pub updated_at_ms: i64,
}

impl Alias {
    /// What path and switch mean together.
    pub fn landing(&self) -> Result<Option<Landing>, gantry_model::FieldError> {
        if self.target_path.is_none() && self.allow_path_override {
            return Ok(None);
        }
        let path = self.target_path.as_deref().unwrap_or("/");
        Landing::parse("target_path", path, !self.allow_path_override).map(Some)
    }
}

/// Bounds on aliases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AliasRules {
    /// How many an account may have.
    pub per_owner_max: u32,
    /// How long a freed label waits for its last owner only, in milliseconds.
    pub quarantine_ms: i64,
    /// Whether the owner of the project asks, who has back all that they have freed anywhere, and not a
    /// member of this project.
    pub by_owner: bool,
}

/// Which aliases are wanted; every condition that is given must hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AliasFilter {
    /// Only those that this user owns or sees as a member of their project.
    pub seen_by: Option<UserId>,
    /// Only those of this project.
    pub project: Option<ProjectId>,
    /// Only those of this container.
    pub container: Option<ContainerId>,
    /// Only those whose container is visible in this realm.
    pub realm: Option<RealmId>,
    /// Only those that are on, or off.
    pub enabled: Option<bool>,
    /// Only those that have expired at a time, or have not.
    pub expired: Option<(bool, i64)>,
}

/// How the domain name system proved that a hostname is meant for an alias.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HostnameProof {
    /// By a CNAME record that leads to the alias, or a TXT record that names it.
    Named,
    /// By the addresses of this server alone, which every alias has.
    Addresses,
}

/// A hostname of a customer that leads where an alias leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomHostname {
    /// The name, in lower case, without a final dot; unique.
    pub name: String,
    /// The alias.
    pub alias: AliasId,
    /// The container of the alias.
    pub container: ContainerId,
    /// How it was proven.
    pub proof: HostnameProof,
    /// Whether it was proven at the last check; else it leads nowhere.
    pub is_proven: bool,
    /// When it was last checked.
    pub checked_at_ms: i64,
    /// When it was bound.
    pub created_at_ms: i64,
}

/// What the edge must know of a container beside its route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EdgeRecord {
    /// The permission document of its project.
    pub project: Option<Arc<Document>>,
    /// Its own permission document.
    pub container: Option<Arc<Document>>,
    /// Its hooks; of one service in the order in which they are tried.
    pub hooks: Vec<Hook>,
    /// What else is set.
    pub settings: EdgeSettings,
    /// The aliases that lead to it, by label.
    pub aliases: Vec<AliasRecord>,
}

impl EdgeRecord {
    /// Whether there is anything that a request has to pass.
    pub fn is_gated(&self) -> bool {
        let Self { project, container, hooks, settings, aliases: _ } = self;
        project.is_some() || container.is_some() || !hooks.is_empty() || !settings.is_default()
    }

    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        !self.is_gated() && self.aliases.is_empty()
    }
}

/// What routing needs to know of an alias.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AliasRecord {
    /// The label, in lower case.
    pub label: String,
    /// The custom hostnames that are bound to it and proven, in order.
    pub hostnames: Vec<String>,
    /// What it leads to.
    pub target: AliasTarget,
    /// Where `/` leads.
    pub landing: Option<Landing>,
    /// Whether it leads anywhere.
    pub enabled: bool,
    /// When it ends; never when absent.
    pub expires_at_ms: Option<i64>,
    /// Whether another container had the label before.
    pub clear_site_data: bool,
}
