//! Aliases, custom hostnames and settings of the edge.

use gantry_control::{AliasOwners, AliasView, HostnameProof, HostnameView};
use gantry_model::{RouteKey, ServerName, edge};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Hex, Timestamp, Urls};

/// An alias.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Alias {
    user_id: Hex,
    project_id: Hex,
    container_id: Hex,
    #[serde(flatten)]
    lite: AliasLite,
    server_id: Option<Hex>,
    server_name: Option<String>,
    subserver_name: String,
    /// Only on a single alias.
    #[serde(skip_serializing_if = "Option::is_none")]
    project: Option<OfProject>,
    /// Only on a single alias.
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<OfContainer>,
}

/// An alias, as its container shows it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AliasLite {
    id: Hex,
    alias: String,
    /// `http`, `https`, `ssh` or a service of the Kit.
    program: String,
    /// The instance of a Kit service, or the port.
    index: u16,
    /// Where `/` leads.
    target_path: Option<String>,
    /// Whether other paths exist.
    allow_path_override: bool,
    expires_at: Option<Timestamp>,
    enabled: bool,
    created_at: Timestamp,
    updated_at: Timestamp,
    url: Option<String>,
}

/// The project of an alias.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OfProject {
    id: Hex,
    alias: String,
}

/// The container of an alias.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OfContainer {
    id: Hex,
    name: String,
}

/// Aliases, all of them.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Aliases {
    aliases: Vec<Alias>,
    count: usize,
}

/// A hostname of a customer that leads where an alias leads.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Hostname {
    hostname: String,
    alias_id: Hex,
    container_id: Hex,
    /// What a CNAME record must lead to.
    alias_host: String,
    /// `named` by a CNAME or TXT record, or by `addresses` alone.
    proof: &'static str,
    /// Whether it was proven at the last check; else it leads nowhere.
    verified: bool,
    checked_at: Timestamp,
    created_at: Timestamp,
}

/// Hostnames, all of them.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Hostnames {
    hostnames: Vec<Hostname>,
    count: usize,
}

/// How the edge treats a container.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EdgeSettings {
    /// `never`, `navigate`, `any` or `authed`.
    wake: &'static str,
    /// In seconds.
    idle_pause_after: Option<u32>,
    verify_upstream: bool,
    proxy_protocol_ports: Vec<u16>,
    concurrency_max: Option<u32>,
    /// Whether the log of its requests has their fields and the beginnings of their bodies.
    log_bodies: bool,
}

impl AliasLite {
    pub(crate) fn new(record: &gantry_control::Alias, server: &ServerName, urls: Urls<'_>) -> Self {
        let key = RouteKey::Alias { server: server.as_str(), label: &record.label };
        Self {
            id: record.id.into(),
            alias: record.label.clone(),
            program: record.target.program().as_str().to_owned(),
            index: record.target.number().unwrap_or(1),
            target_path: record.target_path.clone(),
            allow_path_override: record.allow_path_override,
            expires_at: record.expires_at_ms.map(Timestamp),
            enabled: record.enabled,
            created_at: Timestamp(record.created_at_ms),
            updated_at: Timestamp(record.updated_at_ms),
            url: Some(urls.url(&key)),
        }
    }
}

impl Alias {
    pub(crate) fn new(view: &AliasView, urls: Urls<'_>) -> Self {
        let AliasView { record, server_name } = view;
        Self {
            user_id: record.owner.into(),
            project_id: record.project.into(),
            container_id: record.container.into(),
            lite: AliasLite::new(record, server_name, urls),
            server_id: Some(record.server.into()),
            server_name: Some(server_name.to_string()),
            subserver_name: server_name.to_string(),
            project: None,
            container: None,
        }
    }

    pub(crate) fn with_owners(mut self, view: &AliasView, owners: &AliasOwners) -> Self {
        let AliasOwners { container_name, project_alias } = owners;
        self.project =
            Some(OfProject { id: view.record.project.into(), alias: project_alias.clone() });
        self.container =
            Some(OfContainer { id: view.record.container.into(), name: container_name.clone() });
        self
    }
}

impl Aliases {
    pub(crate) fn new(aliases: Vec<Alias>) -> Self {
        Self { count: aliases.len(), aliases }
    }
}

impl Hostname {
    pub(crate) fn new(view: &HostnameView) -> Self {
        let HostnameView { record, alias_host } = view;
        Self {
            hostname: record.name.clone(),
            alias_id: record.alias.into(),
            container_id: record.container.into(),
            alias_host: alias_host.clone(),
            proof: match record.proof {
                HostnameProof::Named => "named",
                HostnameProof::Addresses => "addresses",
            },
            verified: record.is_proven,
            checked_at: Timestamp(record.checked_at_ms),
            created_at: Timestamp(record.created_at_ms),
        }
    }
}

impl Hostnames {
    pub(crate) fn new(hostnames: Vec<Hostname>) -> Self {
        Self { count: hostnames.len(), hostnames }
    }
}

impl EdgeSettings {
    pub(crate) fn new(settings: &edge::EdgeSettings) -> Self {
        Self {
            wake: settings.wake.as_str(),
            idle_pause_after: settings.idle_pause_after,
            verify_upstream: settings.verify_upstream,
            proxy_protocol_ports: settings.proxy_protocol_ports.clone(),
            concurrency_max: settings.concurrency_max,
            log_bodies: settings.log_bodies,
        }
    }
}
