//! What a container uses.

use std::net::IpAddr;

use gantry_control as control;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Hex, Timestamp};

/// What a container uses now; counters are `null` while it does not run.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Stats {
    id: Hex,
    project_id: Hex,
    project_name: Option<String>,
    server_name: Option<String>,
    subserver_name: String,
    /// `Running`, `Stopped`, `Frozen` and so on.
    status: &'static str,
    status_code: u16,
    /// Processes and threads.
    processes: u64,
    started_at: Option<Timestamp>,
    cpu: Option<Cpu>,
    memory: Option<Memory>,
    ramdisk: Option<Ramdisk>,
    disk: Disk,
    network: Vec<Network>,
    /// How long the answer took.
    processing_time: String,
}

/// What the containers of a project use.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProjectStats {
    stats: Vec<Stats>,
    summary: Summary,
}

/// What a list of [`Stats`] is of.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Summary {
    project_id: Hex,
    project_name: Option<String>,
    /// All containers of the project, whether they are on this page or not.
    container_count: u64,
    /// How long the answer took.
    total_processing_time: String,
}

/// Processor time.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Cpu {
    /// Nanoseconds since the start.
    usage: u64,
    allocated_time: Option<u64>,
    usage_percent: Option<f64>,
}

/// Memory, in bytes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Memory {
    usage: u64,
    total: u64,
    usage_percent: f64,
    usage_peak: u64,
    swap_usage: u64,
    swap_usage_peak: u64,
}

/// The part of the memory that is a file system.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Ramdisk {
    scope: &'static str,
    /// Bytes; `null` where nothing is shared, or the container does not run.
    shared_pool_maximum: Option<u64>,
    capacity_reserved: bool,
    /// `null` where it does not run.
    usage: Option<RamdiskUsage>,
}

/// What is in a ramdisk, in bytes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RamdiskUsage {
    private: u64,
    /// There is no such part here.
    secrets: Option<u64>,
    /// `null` where nothing is shared.
    project: Option<u64>,
}

/// Disks, in bytes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Disk {
    root: Option<Usage>,
}

/// A disk, in bytes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Usage {
    /// `null` is unlimited.
    total: Option<u64>,
    usage: u64,
}

/// A network interface.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Network {
    interface: &'static str,
    addresses: Vec<Address>,
    counters: Counters,
    state: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
}

/// An address of an interface.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Address {
    address: String,
    family: &'static str,
    netmask: Option<String>,
    scope: &'static str,
}

/// What passed an interface.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Counters {
    bytes_received: u64,
    bytes_sent: u64,
    packets_received: u64,
    packets_sent: u64,
    errors_received: u64,
    errors_sent: u64,
    packets_dropped_inbound: u64,
    packets_dropped_outbound: u64,
}

impl Stats {
    /// `took_ms` is how long the answer took.
    pub(crate) fn new(stats: &control::ContainerStats, took_ms: u128) -> Self {
        let control::ContainerView { record, project_alias, server_name, edge: _, snapshots: _ } =
            &stats.container;
        let used = stats.stats.as_ref();
        let (word, code) = word_and_code(record.status.phase);
        Self {
            id: record.id.into(),
            project_id: record.project.into(),
            project_name: Some(project_alias.clone()).filter(|alias| !alias.is_empty()),
            server_name: Some(server_name.to_string()),
            subserver_name: server_name.to_string(),
            status: word,
            status_code: code,
            processes: used.map_or(0, |used| used.pids),
            started_at: record.status.started_at_ms.map(Timestamp),
            cpu: used.map(|used| Cpu {
                usage: used.cpu_ns,
                allocated_time: None,
                usage_percent: None,
            }),
            memory: used.map(memory),
            ramdisk: record.spec.ramdisk.then(|| {
                let scope = record.spec.ramdisk_scope.as_str();
                Ramdisk::new(scope, used.and_then(|used| used.ramdisk))
            }),
            disk: Disk { root: used.map(|used| Usage { total: None, usage: used.disk_bytes }) },
            network: used.map(|used| network(used, record.status.address)).into_iter().collect(),
            processing_time: format!("{took_ms}ms"),
        }
    }
}

impl Ramdisk {
    fn new(scope: &'static str, used: Option<control::RamdiskUse>) -> Self {
        let shared = used.and_then(|used| used.project);
        Self {
            scope,
            shared_pool_maximum: shared.map(|shared| shared.max_bytes),
            capacity_reserved: false,
            usage: used.map(|used| RamdiskUsage {
                private: used.private_bytes,
                secrets: None,
                project: shared.map(|shared| shared.used_bytes),
            }),
        }
    }
}

impl ProjectStats {
    /// `took_ms` is how long the answer took.
    pub(crate) fn new(
        project: &control::Project,
        stats: &control::Listed<control::ContainerStats>,
        took_ms: u128,
    ) -> Self {
        Self {
            stats: stats.items.iter().map(|stats| Stats::new(stats, took_ms)).collect(),
            summary: Summary {
                project_id: project.id.into(),
                project_name: Some(project.spec.alias.as_str().to_owned()),
                container_count: stats.total,
                total_processing_time: format!("{took_ms}ms"),
            },
        }
    }
}

fn memory(used: &control::Stats) -> Memory {
    let total = used.memory_limit_bytes;
    #[expect(clippy::cast_precision_loss, reason = "a percentage needs no 53 bits")]
    let percent = if total == 0 { 0.0 } else { used.memory_bytes as f64 / total as f64 * 100.0 };
    Memory {
        usage: used.memory_bytes,
        total,
        usage_percent: (percent * 100.0).round() / 100.0,
        usage_peak: used.memory_peak_bytes,
        swap_usage: 0,
        swap_usage_peak: 0,
    }
}

fn network(used: &control::Stats, address: Option<IpAddr>) -> Network {
    let address = address.map(|address| Address {
        address: address.to_string(),
        family: if address.is_ipv4() { "inet" } else { "inet6" },
        netmask: None,
        scope: "global",
    });
    Network {
        interface: "eth0",
        addresses: address.into_iter().collect(),
        counters: Counters {
            bytes_received: used.network.received_bytes,
            bytes_sent: used.network.sent_bytes,
            packets_received: used.network.received_packets,
            packets_sent: used.network.sent_packets,
            errors_received: 0,
            errors_sent: 0,
            packets_dropped_inbound: 0,
            packets_dropped_outbound: 0,
        },
        state: "up",
        kind: "broadcast",
    }
}

/// The words and codes that clients of the reference know from LXD and its kin.
fn word_and_code(phase: gantry_model::Phase) -> (&'static str, u16) {
    use gantry_model::Phase;
    match phase {
        Phase::Creating | Phase::Copying | Phase::Claiming | Phase::Starting => ("Starting", 106),
        Phase::Running => ("Running", 103),
        Phase::Paused => ("Frozen", 110),
        Phase::Stopping | Phase::Deleting => ("Stopping", 107),
        Phase::Stopped => ("Stopped", 102),
        Phase::Failed => ("Error", 112),
    }
}
