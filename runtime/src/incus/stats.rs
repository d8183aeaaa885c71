//! What a container has used, as Incus counts it.

use gantry_model::ContainerId;

use super::{client::Client, lifecycle::path, wire::Usage};
use crate::{Error, Network, Result, Stats};

/// The counters of a container that runs.
pub(super) async fn stats(client: &Client, id: ContainerId) -> Result<Stats> {
    let usage = client.find::<Usage>(&format!("{}/state", path(id))).await;
    let usage = usage.map_err(|fault| fault.during("counting"))?.ok_or(Error::NotFound { id })?;
    if !matches!(usage.status.as_str(), "Running" | "Frozen") {
        return Err(Error::NotRunning { id });
    }
    let interface = usage.network.as_ref().and_then(|network| network.get("eth0"));
    let network = interface.map(|interface| &interface.counters).map(|counters| Network {
        received_bytes: count(counters.bytes_received),
        received_packets: count(counters.packets_received),
        sent_bytes: count(counters.bytes_sent),
        sent_packets: count(counters.packets_sent),
    });
    let root = usage.disk.as_ref().and_then(|disks| disks.get("root"));
    Ok(Stats {
        cpu_ns: count(usage.cpu.usage),
        memory_bytes: count(usage.memory.usage),
        memory_peak_bytes: count(usage.memory.usage_peak),
        memory_limit_bytes: count(usage.memory.total),
        pids: count(usage.processes),
        network: network.unwrap_or_default(),
        disk_bytes: root.map_or(0, |root| count(root.usage)),
        ramdisk: None,
    })
}

/// Incus says -1 for what it does not count.
fn count(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
