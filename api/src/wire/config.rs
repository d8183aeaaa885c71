//! What clients may know of the configuration.

use gantry_control as control;
use gantry_model::firewall::Rules;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{ApiConfig, body, query};

/// What is set on this installation, as flat values. Those with a setting have its name, without its section.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MetaConfig {
    version: &'static str,
    /// Below which all hostnames lie.
    domain: String,
    /// The port in URLs.
    url_port: u16,
    api_url: String,
    /// The port of SSH at `ssh.<server>.containers.<domain>`; left out where there is no SSH.
    #[serde(skip_serializing_if = "Option::is_none")]
    ssh_port: Option<u16>,
    /// The host key of SSH, type and base64, as in a file `known_hosts` after the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    ssh_host_key: Option<String>,
    /// The largest body of a request, in octets.
    body_bytes_max: usize,
    /// The most entries of one page of a list.
    page_limit_max: u32,
    /// How long a lifecycle call without `wait` waits for its effect, in seconds.
    settle_timeout_s: u64,
    /// Whether claims are signed.
    claims_are_signed: bool,
    /// Whether answers are signed.
    answers_are_signed: bool,
    /// How long what was written through the API stays listed, in days.
    activity_retention_days: u32,
    containers_per_user: u32,
    running_containers_per_user: u32,
    containers_per_server: u32,
    projects_per_user: u32,
    tokens_per_user: usize,
    aliases_per_user: u32,
    /// How long the name of a removed alias waits for its last owner only, in seconds.
    alias_quarantine_s: i64,
    snapshots_per_user: u32,
    snapshots_per_container: u32,
    members_per_project: u32,
    vault_keys_per_user: u32,
    vault_octets_per_user: u64,
    vault_octets_per_value: usize,
    prespawned_per_user: u32,
    event_streams_per_user: u32,
    firewall_rules_per_container: usize,
    firewall_octets_per_container: usize,
}

/// One value of the configuration.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MetaConfigValue {
    key: String,
    /// A text, a number, or true or false.
    value: serde_json::Value,
}

impl MetaConfig {
    pub(crate) fn new(control: &control::Controller, config: &ApiConfig) -> Self {
        let (limits, domain, port) = (control.limits(), control.domain(), control.url_port());
        let at_port = if port == 443 { String::new() } else { format!(":{port}") };
        Self {
            version: env!("CARGO_PKG_VERSION"),
            domain: domain.to_string(),
            url_port: port,
            api_url: format!("https://api.{domain}{at_port}"),
            ssh_port: config.ssh.as_ref().map(|ssh| ssh.port),
            ssh_host_key: config.ssh.as_ref().map(|ssh| ssh.host_key.clone()),
            body_bytes_max: body::BODY_BYTES_MAX,
            page_limit_max: query::LIMIT_MAX,
            settle_timeout_s: config.settle_timeout.as_secs(),
            claims_are_signed: control.public_key().is_ok(),
            answers_are_signed: control.signs_answers(),
            activity_retention_days: control::RETENTION_DAYS,
            containers_per_user: limits.containers_per_user_max,
            running_containers_per_user: limits.running_containers_per_user_max,
            containers_per_server: limits.containers_per_server_max,
            projects_per_user: limits.projects_per_user_max,
            tokens_per_user: limits.tokens_per_user_max,
            aliases_per_user: limits.aliases_per_user_max,
            alias_quarantine_s: limits.alias_quarantine_ms / 1000,
            snapshots_per_user: limits.snapshots_per_user_max,
            snapshots_per_container: limits.snapshots_per_container_max,
            members_per_project: limits.members_per_project_max,
            vault_keys_per_user: limits.vault_keys_per_user_max,
            vault_octets_per_user: limits.vault_octets_per_user_max,
            vault_octets_per_value: control::VALUE_MAX,
            prespawned_per_user: limits.prespawned_per_user_max,
            event_streams_per_user: config.event_streams_per_account_max,
            firewall_rules_per_container: Rules::MAX,
            firewall_octets_per_container: Rules::OCTETS_MAX,
        }
    }

    /// One value; nothing where there is none of this name.
    pub(crate) fn value(&self, key: &str) -> Option<MetaConfigValue> {
        let all = serde_json::to_value(self).ok()?;
        let value = all.get(key)?.clone();
        Some(MetaConfigValue { key: key.to_owned(), value })
    }
}
