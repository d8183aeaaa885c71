//! Permission documents and what is told of them.

use std::collections::{BTreeMap, BTreeSet};

use gantry_control::{self as control, AccessView, HookRecord, Version};
use gantry_model::{
    HookId,
    access::{Document, Fallback, Program},
    hook,
};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::Hex;

/// A permission document. It holds the credentials of its groups.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProxyPermissions)]
pub(crate) struct Permissions {
    project: Hex,
    /// Absent for the document of a project.
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<Hex>,
    /// Each group: one way to belong to it, or an array of ways.
    #[schema(value_type = Object)]
    groups: Value,
    /// What each group opens of each program.
    #[schema(value_type = Object)]
    permissions: Value,
    /// `allow` or `deny`.
    default: &'static str,
    enable_proxy: bool,
    /// The hooks of each service; absent for the document of a project.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    hooks: Option<BTreeMap<&'static str, Vec<Value>>>,
    schema_version: u32,
    #[serde(flatten)]
    version: FileVersion,
    /// Only after a write.
    #[serde(skip_serializing_if = "Option::is_none")]
    propagation: Option<Propagation>,
}

/// The version of a document.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FileVersion {
    /// 0 before the first write.
    file_version: u64,
    /// `file:v<N>`, what `If-Match` of the next write must be.
    etag: String,
}

/// How far a write has come.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Propagation {
    committed: bool,
    /// Whether every edge has taken it over.
    complete: bool,
    /// `applied`, `pending` or `unknown`.
    state: &'static str,
    status_scope: &'static str,
    /// The revision of the store.
    generation: u64,
    action: &'static str,
    file_version: u64,
    succeeded_count: u32,
    failed_count: u32,
    pending_count: u32,
    target_count: u32,
    retained_count: u32,
}

/// The switches of a document.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProxySettings {
    enable_proxy: bool,
    /// `allow` or `deny`.
    default: &'static str,
    #[serde(flatten)]
    version: FileVersion,
    /// Only after a write.
    #[serde(skip_serializing_if = "Option::is_none")]
    propagation: Option<Propagation>,
}

/// The groups of a document, without their credentials.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProxyGroups {
    groups: Vec<ProxyGroup>,
    #[serde(flatten)]
    version: FileVersion,
}

/// A group.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProxyGroup {
    name: String,
    /// How many ways there are to belong to it.
    auth_rule_count: usize,
}

/// The services that a document or a hook names; not those that run.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProxyServices {
    services: Vec<&'static str>,
    #[serde(flatten)]
    version: FileVersion,
}

/// What is said about one service.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProxyService {
    service: &'static str,
    /// Whether it cannot have hooks.
    is_reject_listed: bool,
    /// What each group opens of it.
    #[schema(value_type = Object)]
    permissions_raw: Map<String, Value>,
    #[schema(value_type = Vec<Value>)]
    hooks: Vec<Value>,
    /// `allow` or `deny`.
    effective_default: &'static str,
    #[serde(flatten)]
    version: FileVersion,
}

/// The hooks of a container.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AllHooks {
    #[schema(value_type = Object)]
    hooks: BTreeMap<&'static str, Vec<Value>>,
    #[serde(flatten)]
    version: FileVersion,
}

/// The hooks of a service.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ServiceHooks {
    service: &'static str,
    #[schema(value_type = Vec<Value>)]
    hooks: Vec<Value>,
    #[serde(flatten)]
    version: FileVersion,
}

/// A hook.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OneHook {
    #[schema(value_type = Object)]
    hook: Value,
    #[serde(flatten)]
    version: FileVersion,
    /// Only after a write.
    #[serde(skip_serializing_if = "Option::is_none")]
    propagation: Option<Propagation>,
}

/// What is left after hooks were removed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RemovedHooks {
    /// How many went, when all of a service did.
    #[serde(skip_serializing_if = "Option::is_none")]
    removed: Option<usize>,
    #[serde(flatten)]
    version: FileVersion,
    propagation: Propagation,
}

impl FileVersion {
    fn new(view: &AccessView) -> Self {
        let Version(version) = view.access.version;
        Self { file_version: version, etag: format!("file:v{version}") }
    }
}

impl Propagation {
    pub(crate) fn new(
        propagation: control::Propagation,
        version: Version,
        action: &'static str,
    ) -> Self {
        let state = match propagation.applied {
            Some(true) => "applied",
            Some(false) => "pending",
            None => "unknown",
        };
        let applied = propagation.applied == Some(true);
        Self {
            committed: true,
            complete: applied,
            state,
            status_scope: "current",
            generation: propagation.revision.0,
            action,
            file_version: version.0,
            succeeded_count: u32::from(applied),
            failed_count: 0,
            pending_count: u32::from(!applied),
            target_count: 1,
            retained_count: 0,
        }
    }
}

const fn word(fallback: Fallback) -> &'static str {
    match fallback {
        Fallback::Allow => "allow",
        Fallback::Deny => "deny",
    }
}

/// What holds for a container or project: its own document's default, else its project's, else
/// everything passes; and whether requests pass at all.
fn switches(view: &AccessView) -> (&'static str, bool) {
    let own = view.access.document.as_ref();
    let main = own.or(view.inherited.as_ref());
    let default = main.map_or(Fallback::Allow, |document| document.default);
    let own_switch = own.and_then(|document| document.enable_proxy);
    let inherited = || view.inherited.as_ref().and_then(|document| document.enable_proxy);
    (word(default), own_switch.or_else(inherited).unwrap_or(true))
}

/// A hook in the form that clients know.
fn print_hook(record: &HookRecord, position: usize) -> Value {
    let mut hook = record.hook.to_json();
    if let Value::Object(hook) = &mut hook {
        hook.insert("id".to_owned(), json!(record.id.to_string()));
        hook.insert("position".to_owned(), json!(position));
    }
    hook
}

fn hooks_of(view: &AccessView, service: Program) -> Vec<Value> {
    let own = view.access.hooks.iter().filter(|record| record.hook.service == service);
    own.enumerate().map(|(position, record)| print_hook(record, position)).collect()
}

fn all_hooks(view: &AccessView) -> BTreeMap<&'static str, Vec<Value>> {
    let services: BTreeSet<Program> =
        view.access.hooks.iter().map(|record| record.hook.service).collect();
    services.into_iter().map(|service| (service.as_str(), hooks_of(view, service))).collect()
}

impl Permissions {
    pub(crate) fn new(view: &AccessView) -> Self {
        let document = view.access.document.as_ref().map(Document::to_json).unwrap_or_default();
        let part = |name: &str| document.get(name).cloned().unwrap_or_else(|| json!({}));
        let (default, enable_proxy) = switches(view);
        Self {
            project: view.project.into(),
            container: view.container.map(Hex::from),
            groups: part("groups"),
            permissions: part("permissions"),
            default,
            enable_proxy,
            hooks: view.container.map(|_| all_hooks(view)),
            schema_version: 1,
            version: FileVersion::new(view),
            propagation: None,
        }
    }

    pub(crate) fn propagated(mut self, propagation: Propagation) -> Self {
        self.propagation = Some(propagation);
        self
    }
}

impl ProxySettings {
    pub(crate) fn new(view: &AccessView) -> Self {
        let (default, enable_proxy) = switches(view);
        Self { enable_proxy, default, version: FileVersion::new(view), propagation: None }
    }

    pub(crate) fn propagated(mut self, propagation: Propagation) -> Self {
        self.propagation = Some(propagation);
        self
    }
}

impl ProxyGroups {
    pub(crate) fn new(view: &AccessView) -> Self {
        let groups = view.access.document.iter().flat_map(|document| &document.groups);
        let group = |(name, ways): (&gantry_model::access::GroupName, &Vec<_>)| ProxyGroup {
            name: name.as_str().to_owned(),
            auth_rule_count: ways.len(),
        };
        Self { groups: groups.map(group).collect(), version: FileVersion::new(view) }
    }
}

impl ProxyServices {
    pub(crate) fn new(view: &AccessView) -> Self {
        let rows = view.access.document.iter().flat_map(|document| document.permissions.values());
        let cells = rows.flat_map(BTreeMap::keys).copied();
        let hooks = view.access.hooks.iter().map(|record| record.hook.service);
        let services: BTreeSet<Program> = cells.chain(hooks).collect();
        let services = services.into_iter().map(Program::as_str).collect();
        Self { services, version: FileVersion::new(view) }
    }
}

impl ProxyService {
    pub(crate) fn new(view: &AccessView, service: Program) -> Self {
        let rows = view.access.document.iter().flat_map(|document| &document.permissions);
        let cells = rows.filter_map(|(group, cells)| {
            Some((group.as_str().to_owned(), cells.get(&service)?.to_json()))
        });
        Self {
            service: service.as_str(),
            is_reject_listed: hook::is_reject_listed(service),
            permissions_raw: cells.collect(),
            hooks: hooks_of(view, service),
            effective_default: switches(view).0,
            version: FileVersion::new(view),
        }
    }
}

impl AllHooks {
    pub(crate) fn new(view: &AccessView) -> Self {
        Self { hooks: all_hooks(view), version: FileVersion::new(view) }
    }
}

impl ServiceHooks {
    pub(crate) fn new(view: &AccessView, service: Program) -> Self {
        let hooks = hooks_of(view, service);
        Self { service: service.as_str(), hooks, version: FileVersion::new(view) }
    }
}

impl OneHook {
    /// The hook of this id, if the service has it.
    pub(crate) fn new(view: &AccessView, service: Program, id: HookId) -> Option<Self> {
        let mut own = view.access.hooks.iter().filter(|record| record.hook.service == service);
        let position = own.position(|record| record.id == id)?;
        let hook = hooks_of(view, service).into_iter().nth(position)?;
        Some(Self { hook, version: FileVersion::new(view), propagation: None })
    }

    pub(crate) fn propagated(mut self, propagation: Propagation) -> Self {
        self.propagation = Some(propagation);
        self
    }
}

impl RemovedHooks {
    pub(crate) fn new(view: &AccessView, removed: Option<usize>, propagation: Propagation) -> Self {
        Self { removed, version: FileVersion::new(view), propagation }
    }
}
