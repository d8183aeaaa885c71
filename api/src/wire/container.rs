//! Containers and what happens to them.

use std::collections::BTreeMap;

use gantry_control as control;
use gantry_model::{
    ContainerId, Domain, Phase, ProjectId, RouteKey, Scheme, ServerId, ServerName, Service, Target,
};
use serde::Serialize;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use super::{
    AliasLite, EnvSync, Hex, Pagination, Parts, Permissions, RuntimeInfo, Timestamp,
    place::ServerLite,
};
use crate::Machine;

/// A container. Fields of abilities that this version does not have carry their neutral value.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Container {
    id: Hex,
    project_id: Hex,
    project_alias: Option<String>,
    server_id: Hex,
    /// The label of the server in hostnames.
    server_name: String,
    /// The server's name for people, never part of a hostname.
    subserver_name: String,
    server: Option<ServerLite>,
    /// `null` without the Kit.
    ssh_hostname: Option<String>,
    name: String,
    /// `#RRGGBB`.
    color: String,
    container_image: String,
    ai: bool,
    hoody_kit: bool,
    dev_kit: bool,
    /// Whether it has the host's `/dev/kvm`.
    kvm: bool,
    autostart: bool,
    ramdisk: bool,
    ramdisk_scope: &'static str,
    /// Whether it was made from the image cache.
    cache: bool,
    prespawn: bool,
    is_default: bool,
    /// `creating`, `running`, `paused`, `stopped`, `failed`, `copying`, `claiming` or `deleting`.
    status: &'static str,
    /// As `status`, and also `starting` and `stopping`, which clients of the reference do not know.
    phase: &'static str,
    /// Why it failed; `null` unless it did.
    error: Option<String>,
    environment_vars: BTreeMap<String, String>,
    #[schema(value_type = Object)]
    volumes: Map<String, Value>,
    ssh_public_key: Option<String>,
    /// `SHA256:…`, as OpenSSH prints it.
    ssh_key_fingerprint: Option<String>,
    /// When that key was set; `null` without one, and for one that was set before this was noted.
    ssh_key_installed_at: Option<Timestamp>,
    /// Whether SSH may carry connections besides sessions.
    ssh_forwarding: bool,
    comment: Option<String>,
    source_container_id: Option<Hex>,
    server_expired: bool,
    server_expired_at: Option<Timestamp>,
    server_expired_reason: Option<String>,
    created_at: Timestamp,
    updated_at: Timestamp,
    /// When its init last started; `null` before.
    started_at: Option<Timestamp>,
    realm_ids: Vec<Hex>,
    snapshot_count: u64,
    last_used_snapshot: Option<String>,
    pool_id: Option<Hex>,
    env_sync: EnvSync,
    has_proxy_permissions: bool,
    proxy_permissions_scope: &'static str,
    has_proxy_domains: bool,
    proxy_domains_count: u32,
    /// Where its services answer; `null` without the Kit.
    service_urls: Option<ServiceUrls>,
    /// Only on a single container.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Value>>)]
    warnings: Option<[(); 0]>,
    /// Only with `include_proxy_domains=true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy_domains: Option<Vec<AliasLite>>,
    /// Only with `include_proxy_permissions=true`; holds credentials.
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy_permissions: Option<Permissions>,
    /// Only with `include_proxy_permissions=true`; holds credentials.
    #[serde(skip_serializing_if = "Option::is_none")]
    project_proxy_permissions: Option<Permissions>,
    /// Only with `runtime`; `null` where it does not run or does not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<RuntimeInfo>)]
    runtime_info: Option<Looked>,
    /// Only in the answer to a creation or a copy of one that has `/dev/kvm`: how that is changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    kvm_note: Option<&'static str>,
    /// Only in the answer to a copy.
    #[serde(skip_serializing_if = "Option::is_none")]
    copy_firewall_rules: Option<bool>,
    /// Only in the answer to a copy.
    #[serde(skip_serializing_if = "Option::is_none")]
    copy_network_rules: Option<bool>,
    /// Only in the answer to a copy: the id that the catalogue has the image of the container under.
    #[serde(skip_serializing_if = "Option::is_none")]
    container_image_id: Option<Hex>,
    /// Only in the answer to a copy: 32 hexadecimal digits for logs.
    #[serde(skip_serializing_if = "Option::is_none")]
    operation_id: Option<String>,
}

/// What a look into a container showed; `null` for nothing.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Looked {
    Nothing,
    Seen(RuntimeInfo),
}

/// Said of new containers with `/dev/kvm`.
const KVM_NOTE: &str = "It has the host's /dev/kvm for virtual machines of its own. Copies of it do not, unless \
                        they ask for it; PUT /api/v1/containers/{id}/kvm changes it while it is stopped.";

/// Whether a container has `/dev/kvm`.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KvmOfContainer {
    id: Hex,
    name: String,
    status: &'static str,
    kvm: bool,
}

/// The URLs of the services that every Kit has.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ServiceUrls {
    terminal: String,
    files: String,
    /// The plain HTTP server on a port of the container; `{port}` stands for its number.
    http: String,
}

/// A page of containers.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Containers {
    containers: Vec<Container>,
    pagination: Pagination,
}

/// What a lifecycle operation did.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Operated {
    /// Whether it was refused.
    error: bool,
    operation: String,
    container_id: Hex,
    project_id: Hex,
    message: String,
    /// The status now.
    status: &'static str,
    /// 32 hexadecimal digits for logs; `null` when refused.
    operation_id: Option<String>,
}

/// One step in the life of a container.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StatusLog {
    id: Hex,
    container_id: Hex,
    from_status: Option<&'static str>,
    to_status: &'static str,
    transition_time: Timestamp,
    created_at: Timestamp,
    /// How long the status before had lasted.
    duration_ms: Option<i64>,
    /// Who or what caused it.
    triggered_by: String,
    #[schema(value_type = Option<Value>)]
    metadata: Option<Value>,
}

/// A page of steps.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StatusLogs {
    logs: Vec<StatusLog>,
    pagination: Pagination,
}

/// Which optional parts of a container are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Include {
    pub(crate) warnings: bool,
    pub(crate) runtime: Option<Parts>,
    pub(crate) extras: control::Extra,
}

/// Prints URLs of containers, and their server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Urls<'c> {
    pub(crate) domain: &'c Domain,
    pub(crate) port: u16,
    pub(crate) machines: &'c BTreeMap<ServerId, Machine>,
}

impl Urls<'_> {
    /// The URL of what a hostname names.
    pub(crate) fn url(&self, key: &RouteKey<'_>) -> String {
        let port = if self.port == 443 { String::new() } else { format!(":{}", self.port) };
        format!("https://{}{port}", key.to_hostname(self.domain))
    }

    fn hostname(
        &self,
        server: &ServerName,
        project: ProjectId,
        container: ContainerId,
        target: Target<'_>,
    ) -> String {
        let server = server.as_str();
        RouteKey::Container { server, project, container, target }.to_hostname(self.domain)
    }

    fn services(
        &self,
        server: &ServerName,
        project: ProjectId,
        container: ContainerId,
    ) -> ServiceUrls {
        let server = server.as_str();
        let url = |target| self.url(&RouteKey::Container { server, project, container, target });
        let kit = |service| Target::Kit { service, index: 1, sub: None };
        let any_port = url(Target::Port { scheme: Scheme::Http, port: 80 });
        ServiceUrls {
            terminal: url(kit(Service::Terminal)),
            files: url(kit(Service::Files)),
            http: any_port.replacen("-http-80.", "-http-{port}.", 1),
        }
    }
}

impl Container {
    pub(crate) fn new(view: &control::ContainerView, urls: Urls<'_>, include: Include) -> Self {
        let control::ContainerView { record, project_alias, server_name, edge, snapshots } = view;
        let (of_project, of_container, aliases) = edge.as_ref().map_or((false, false, 0), |edge| {
            (edge.project.is_some(), edge.container.is_some(), edge.aliases.len())
        });
        let (spec, status) = (&record.spec, &record.status);
        let machine = Machine::of(urls.machines, record.server);
        let key = spec.ssh_public_key.as_ref();
        let (id, project) = (record.id, record.project);
        // None leads to one that waits in the warm pool.
        let has_hostnames = spec.hoody_kit && !record.prespawn;
        Self {
            id: id.into(),
            project_id: project.into(),
            project_alias: Some(project_alias.clone()).filter(|alias| !alias.is_empty()),
            server_id: record.server.into(),
            server_name: server_name.to_string(),
            subserver_name: server_name.to_string(),
            server: Some(ServerLite::new(server_name, machine)),
            ssh_hostname: has_hostnames
                .then(|| urls.hostname(server_name, project, id, Target::Ssh)),
            name: spec.name.as_str().to_owned(),
            color: spec.color.to_string(),
            container_image: spec.image.as_str().to_owned(),
            ai: spec.ai,
            hoody_kit: spec.hoody_kit,
            dev_kit: spec.dev_kit,
            kvm: spec.kvm,
            autostart: spec.autostart,
            ramdisk: spec.ramdisk,
            ramdisk_scope: spec.ramdisk_scope.as_str(),
            cache: spec.cache,
            prespawn: record.prespawn,
            is_default: false,
            status: status.phase.api_status(),
            phase: status.phase.as_str(),
            error: if status.phase == Phase::Failed { status.why.clone() } else { None },
            environment_vars: spec.environment.vars().clone(),
            volumes: Map::new(),
            ssh_public_key: key.map(ToString::to_string),
            ssh_key_fingerprint: key.map(|key| key.fingerprint().to_string()),
            ssh_key_installed_at: record.ssh_key_since_ms.map(Timestamp),
            ssh_forwarding: spec.ssh_forwarding,
            comment: spec.comment.as_ref().map(|comment| comment.as_str().to_owned()),
            source_container_id: record.source.map(Hex::from),
            server_expired: false,
            server_expired_at: None,
            server_expired_reason: None,
            created_at: Timestamp(record.created_at_ms),
            updated_at: Timestamp(record.updated_at_ms),
            started_at: status.started_at_ms.map(Timestamp),
            realm_ids: spec.realms.iter().copied().map(Hex::from).collect(),
            snapshot_count: snapshots.count,
            last_used_snapshot: snapshots.last_used.clone(),
            pool_id: None,
            env_sync: EnvSync::new(record),
            has_proxy_permissions: of_project || of_container,
            proxy_permissions_scope: scope(of_project, of_container),
            has_proxy_domains: aliases > 0,
            proxy_domains_count: u32::try_from(aliases).unwrap_or(u32::MAX),
            service_urls: has_hostnames.then(|| urls.services(server_name, project, id)),
            warnings: include.warnings.then_some([]),
            proxy_domains: None,
            proxy_permissions: None,
            project_proxy_permissions: None,
            runtime_info: include.runtime.map(|_parts| Looked::Nothing),
            kvm_note: None,
            copy_firewall_rules: None,
            copy_network_rules: None,
            container_image_id: None,
            operation_id: None,
        }
    }

    /// Adds what only the answer to a creation or a copy says.
    pub(crate) fn into_new(self) -> Self {
        let kvm_note = self.kvm.then_some(KVM_NOTE);
        Self { kvm_note, ..self }
    }

    /// Adds what only the answer to a copy says.
    pub(crate) fn into_copy(
        self,
        record: &control::Container,
        firewall_rules: bool,
        network_rules: bool,
    ) -> Self {
        Self {
            copy_firewall_rules: Some(firewall_rules),
            copy_network_rules: Some(network_rules),
            container_image_id: Some(control::Image::id_of(&record.spec.image).into()),
            operation_id: Some(operation_id(record)),
            ..self.into_new()
        }
    }

    /// Adds what runs inside.
    pub(crate) fn with_inside(
        mut self,
        view: &control::ContainerView,
        inside: &control::Inside,
        parts: Parts,
    ) -> Self {
        self.runtime_info = Some(Looked::Seen(RuntimeInfo::new(view, inside, parts)));
        self
    }

    /// Adds what was asked for besides.
    pub(crate) fn with_extras(
        mut self,
        view: &control::ContainerView,
        urls: Urls<'_>,
        extras: &control::Extras,
    ) -> Self {
        let server = &view.server_name;
        self.proxy_domains = extras.aliases.as_ref().map(|aliases| {
            aliases.iter().map(|alias| AliasLite::new(alias, server, urls)).collect()
        });
        if let Some((own, of_project)) = &extras.access {
            self.proxy_permissions = Some(Permissions::new(own));
            self.project_proxy_permissions = Some(Permissions::new(of_project));
        }
        self
    }
}

impl KvmOfContainer {
    pub(crate) fn new(view: &control::ContainerView) -> Self {
        let record = &view.record;
        Self {
            id: record.id.into(),
            name: record.spec.name.as_str().to_owned(),
            status: record.status.phase.api_status(),
            kvm: record.spec.kvm,
        }
    }
}

impl Containers {
    pub(crate) fn new(containers: Vec<Container>, pagination: Pagination) -> Self {
        Self { containers, pagination }
    }
}

impl Operated {
    /// What an accepted operation came to; `failed` says why it did not come true.
    pub(crate) fn new(operated: &control::Operated, message: &str) -> Self {
        let record = &operated.container.record;
        let phase = record.status.phase;
        Self {
            error: !operated.done && phase == Phase::Failed,
            operation: operated.operation.to_string(),
            container_id: record.id.into(),
            project_id: record.project.into(),
            message: message.to_owned(),
            status: phase.api_status(),
            operation_id: Some(operation_id(record)),
        }
    }

    pub(crate) fn refused(
        operation: control::Operation,
        project: ProjectId,
        container: ContainerId,
        phase: Phase,
        message: &str,
    ) -> Self {
        Self {
            error: true,
            operation: operation.to_string(),
            container_id: container.into(),
            project_id: project.into(),
            message: message.to_owned(),
            status: phase.api_status(),
            operation_id: None,
        }
    }
}

/// Where permission documents stand.
const fn scope(of_project: bool, of_container: bool) -> &'static str {
    match (of_project, of_container) {
        (false, false) => "none",
        (false, true) => "container",
        (true, false) => "project",
        (true, true) => "both",
    }
}

/// Names a wish: the same for everybody who asks for what is under way already.
pub(super) fn operation_id(record: &control::Container) -> String {
    let mut digest = Sha256::new();
    digest.update(record.id.as_bytes());
    digest.update(record.wish_seq.to_be_bytes());
    let mut id = hex::encode(digest.finalize());
    id.truncate(32);
    id
}

impl StatusLogs {
    pub(crate) fn new(logs: &[control::StatusLog], pagination: Pagination) -> Self {
        Self { logs: logs.iter().map(StatusLog::new).collect(), pagination }
    }
}

impl StatusLog {
    fn new(log: &control::StatusLog) -> Self {
        let details = |note: &String| json!({ "note": note, "from_phase": log.from.map(Phase::as_str), "to_phase": log.to.as_str() });
        Self {
            id: log.id.into(),
            container_id: log.container.into(),
            from_status: log.from.map(Phase::api_status),
            to_status: log.to.api_status(),
            transition_time: Timestamp(log.at_ms),
            created_at: Timestamp(log.at_ms),
            duration_ms: log.duration_ms,
            triggered_by: log.triggered_by.clone(),
            metadata: log.note.as_ref().map(details),
        }
    }
}
