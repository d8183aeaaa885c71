//! What the machine of a server does.

use std::time::Duration;

use gantry_control as control;
use gantry_model::ServerId;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Hex, Timestamp};
use crate::server_runtime::{Fill, Look};

/// What the machine of a server does; `null` where the host does not say.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ServerRuntime {
    /// `server`: all of a machine.
    scope: &'static str,
    ts: Timestamp,
    cache_age_ms: u64,
    stale: bool,
    uptime_s: Option<u64>,
    cores: Option<u32>,
    load: Option<LoadMeans>,
    cpu: Cpu,
    mem: Option<Taken>,
    swap: Option<Taken>,
    /// Where containers lie.
    storage: Option<Taken>,
}

/// Mean numbers of tasks that run or want to, of so many minutes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct LoadMeans {
    #[serde(rename = "1")]
    pub(crate) one: f64,
    #[serde(rename = "5")]
    pub(crate) five: f64,
    #[serde(rename = "15")]
    pub(crate) fifteen: f64,
}

/// How busy the processors are, all together.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ServerCpu)]
pub(crate) struct Cpu {
    busy_pct: Option<f64>,
}

/// How much of something is taken, in octets.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ServerFill)]
pub(crate) struct Taken {
    used_bytes: u64,
    total_bytes: u64,
    pct: f64,
}

/// What can be run on a server.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ServerCommands {
    #[schema(value_type = Vec<Object>)]
    commands: [(); 0],
    server_info: ServerInfo,
}

/// Of which server it is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ServerInfo {
    id: Hex,
    name: String,
    /// `ready` or `maintenance`.
    status: &'static str,
}

impl ServerRuntime {
    pub(crate) fn new(look: &Look, server: ServerId, age: Duration) -> Self {
        Self {
            scope: "server",
            ts: Timestamp(look.at_ms),
            cache_age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
            stale: false,
            uptime_s: look.uptime_s,
            cores: look.cores,
            load: look.load,
            cpu: Cpu { busy_pct: look.busy_pct },
            mem: look.memory.map(Taken::new),
            swap: look.swap.map(Taken::new),
            storage: look.storage.get(&server).copied().map(Taken::new),
        }
    }
}

impl Taken {
    fn new(Fill { used, total }: Fill) -> Self {
        Self { used_bytes: used, total_bytes: total, pct: percent(used, total) }
    }
}

impl ServerCommands {
    pub(crate) fn new(server: &control::ServerView) -> Self {
        let status = if server.ready { "ready" } else { "maintenance" };
        let (id, name) = (server.id.into(), server.name.to_string());
        Self { commands: [], server_info: ServerInfo { id, name, status } }
    }
}

/// A part of something in percent, to hundredths; 0 of nothing.
pub(crate) fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    #[expect(clippy::cast_precision_loss, reason = "a percentage needs no 53 bits")]
    let percent = part as f64 / whole as f64 * 100.0;
    (percent * 100.0).round() / 100.0
}
