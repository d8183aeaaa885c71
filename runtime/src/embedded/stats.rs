//! What a container uses: control groups, its interface, its disk.

use std::sync::Arc;

use gantry_model::ContainerId;

use super::{
    lifecycle::{Inner, blocking},
    usage,
};
use crate::{Network, Result, Stats};

/// Counts everything.
pub(super) async fn stats(inner: &Arc<Inner>, id: ContainerId) -> Result<Stats> {
    let (home, run) = inner.alive(id)?;
    let inner = Arc::clone(inner);
    blocking("counting what the container uses", move || {
        let disk_bytes = if let Some(bytes) = inner.usage.recent(id) {
            bytes
        } else {
            let bytes = usage::measure(&home.upper())?;
            inner.usage.note(id, bytes);
            bytes
        };
        let devices =
            std::fs::read_to_string(format!("/proc/{}/net/dev", run.init.pid)).unwrap_or_default();
        Ok(Stats {
            memory_limit_bytes: run.memory_bytes,
            network: network(&devices).unwrap_or_default(),
            disk_bytes,
            ramdisk: inner.project_ramdisks.usage(id, &home.ramdisk())?,
            ..inner.cgroups.stats(id)
        })
    })
    .await
}

/// The counters of `eth0` in `/proc/<pid>/net/dev`: eight for what came in, then as many for what
/// went out, bytes and packets first.
fn network(devices: &str) -> Option<Network> {
    let line = devices.lines().find_map(|line| line.trim().strip_prefix("eth0:"))?;
    let mut counters = line.split_whitespace().map(|counter| counter.parse().unwrap_or(0));
    Some(Network {
        received_bytes: counters.next()?,
        received_packets: counters.next()?,
        sent_bytes: counters.nth(6)?,
        sent_packets: counters.next()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_by_their_place() {
        let text = "Inter-|   Receive\n face |bytes\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  \
                    eth0:  100    2 0 0 0 0 0 0  300    4 0 0 0 0 0 0\n";
        let want =
            Network { received_bytes: 100, received_packets: 2, sent_bytes: 300, sent_packets: 4 };
        assert_eq!(network(text), Some(want));
        assert_eq!(network(""), None);
    }
}
