//! The outbound network of a container.

use gantry_control::{self as control, OutboundStatus};
use gantry_model::outbound::{Endpoint, Outbound};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Hex, Timestamp};

/// How what a container begins leaves the host.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OutboundNetwork {
    container_id: Hex,
    /// If not, the container goes the host's way, and the rest is `null`.
    configured: bool,
    /// `block`, `socks5`, `http` or `https`.
    #[serde(rename = "type")]
    kind: Option<&'static str>,
    /// The URL of the proxy, without its credentials.
    proxy: Option<String>,
    /// Whether the proxy gets credentials; they are never shown.
    credentials_configured: bool,
    country: Option<String>,
    city: Option<String>,
    region: Option<String>,
    comment: Option<String>,
    dns_servers: Vec<String>,
    /// `configured` (the container does not run), `running` (in force), `stopped` (switched off) or `error`.
    status: Option<&'static str>,
    configured_at: Option<Timestamp>,
    last_status_check: Option<Timestamp>,
    remote_status: Option<RemoteStatus>,
}

/// What the host says.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RemoteStatus {
    is_running: bool,
    last_check: Timestamp,
}

/// Whether an outbound network is in force.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OutboundState {
    container_id: Hex,
    /// `configured` (the container does not run), `running` (in force), `stopped` (switched off) or `error`.
    status: &'static str,
    is_running: bool,
    last_check: Timestamp,
}

const fn word(status: OutboundStatus) -> &'static str {
    match status {
        OutboundStatus::Configured => "configured",
        OutboundStatus::Running => "running",
        OutboundStatus::Stopped => "stopped",
        OutboundStatus::Error => "error",
    }
}

impl OutboundNetwork {
    pub(crate) fn new(view: &control::OutboundView) -> Self {
        let outbound = view.outbound.as_ref();
        let labels = outbound.map(|outbound| outbound.labels.clone()).unwrap_or_default();
        let servers = outbound.map(|outbound| &outbound.dns_servers[..]).unwrap_or_default();
        let checked_at = Timestamp(view.checked_at_ms);
        Self {
            container_id: view.container.into(),
            configured: outbound.is_some(),
            kind: outbound.map(Outbound::kind),
            proxy: outbound.and_then(Outbound::endpoint).map(Endpoint::to_string),
            credentials_configured: view.has_credentials,
            country: labels.country,
            city: labels.city,
            region: labels.region,
            comment: labels.comment,
            dns_servers: servers.iter().map(ToString::to_string).collect(),
            status: view.status.map(word),
            configured_at: outbound.map(|_| Timestamp(view.configured_at_ms)),
            last_status_check: view.status.map(|_| checked_at),
            remote_status: view.status.map(|status| RemoteStatus {
                is_running: status == OutboundStatus::Running,
                last_check: checked_at,
            }),
        }
    }
}

impl OutboundState {
    /// The state of one that is configured.
    pub(crate) fn new(view: &control::OutboundView) -> Self {
        let status = view.status.unwrap_or(OutboundStatus::Stopped);
        Self {
            container_id: view.container.into(),
            status: word(status),
            is_running: status == OutboundStatus::Running,
            last_check: Timestamp(view.checked_at_ms),
        }
    }
}
