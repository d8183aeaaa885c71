//! What Incus says and is told, as far as it matters here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Keys and values.
pub(super) type Map = BTreeMap<String, String>;

/// What is around every answer.
#[derive(Debug, Deserialize)]
pub(super) struct Envelope {
    /// `sync`, `async` or `error`.
    #[serde(rename = "type")]
    pub(super) kind: String,
    /// The path of the operation that was begun; empty otherwise.
    #[serde(default)]
    pub(super) operation: String,
    /// The status of an error; 0 otherwise.
    #[serde(default)]
    pub(super) error_code: u16,
    /// The words of an error.
    #[serde(default)]
    pub(super) error: String,
    /// The answer itself.
    #[serde(default)]
    pub(super) metadata: Value,
}

/// Something that goes on, or has ended.
#[derive(Debug, Deserialize)]
pub(super) struct Operation {
    /// Its name.
    pub(super) id: String,
    /// 200 when it has succeeded, 100 to 199 while it goes on, 400 and more when it has failed.
    pub(super) status_code: u16,
    /// What it is about.
    #[serde(default)]
    pub(super) metadata: Value,
    /// Why it failed.
    #[serde(default)]
    pub(super) err: String,
}

/// All operations, by what they are doing, as `running`.
#[derive(Debug, Deserialize)]
pub(super) struct Operations(BTreeMap<String, Vec<Concern>>);

/// What an operation is about.
#[derive(Debug, Deserialize)]
struct Concern {
    status_code: u16,
    #[serde(default)]
    resources: Option<BTreeMap<String, Vec<String>>>,
}

impl Operations {
    /// Whether one goes on that is about a container.
    pub(super) fn is_about(&self, name: &str) -> bool {
        let is_it = |path: &String| {
            path.split('?').next().and_then(|path| path.rsplit('/').next()) == Some(name)
        };
        let going_on = self.0.values().flatten().filter(|one| one.status_code < 200);
        going_on
            .filter_map(|one| one.resources.as_ref()?.get("instances"))
            .any(|paths| paths.iter().any(is_it))
    }
}

/// The server.
#[derive(Debug, Deserialize)]
pub(super) struct Server {
    /// `trusted` for who may do everything.
    pub(super) auth: String,
}

/// A project, to be made or as it is.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Project {
    pub(super) name: String,
    #[serde(default)]
    pub(super) description: String,
    pub(super) config: Map,
}

/// A container, as it is.
#[derive(Debug, Deserialize)]
pub(super) struct Instance {
    pub(super) name: String,
    pub(super) status: String,
    pub(super) architecture: String,
    pub(super) config: Map,
    #[serde(default)]
    pub(super) devices: BTreeMap<String, Map>,
}

/// Ids of a container, one after the other, and which of the host they are.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct IdRange {
    pub(super) isuid: bool,
    pub(super) isgid: bool,
    pub(super) hostid: u32,
    pub(super) nsid: u32,
    pub(super) maprange: u64,
}

/// A container, to be made.
#[derive(Debug, Serialize)]
pub(super) struct NewInstance<'a> {
    pub(super) name: &'a str,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) source: Origin<'a>,
    pub(super) profiles: [&'static str; 0],
    pub(super) config: Map,
    pub(super) devices: BTreeMap<String, Map>,
}

/// Where a container's file system comes from.
#[derive(Debug, Serialize)]
pub(super) struct Origin<'a> {
    /// `image` or `copy`.
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    /// The image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fingerprint: Option<&'a str>,
    /// The container that is copied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) source: Option<&'a str>,
    /// Whether its snapshots stay behind.
    pub(super) instance_only: bool,
}

impl<'a> Origin<'a> {
    /// An image.
    pub(super) fn image(fingerprint: &'a str) -> Self {
        Self { kind: "image", fingerprint: Some(fingerprint), source: None, instance_only: true }
    }
}

/// Another name for a container.
#[derive(Debug, Serialize)]
pub(super) struct NewName<'a> {
    pub(super) name: &'a str,
}

/// A container, to be changed: all of it.
#[derive(Debug, Serialize)]
pub(super) struct Change<'a> {
    pub(super) architecture: &'a str,
    pub(super) config: Map,
    pub(super) devices: BTreeMap<String, Map>,
    pub(super) profiles: [&'static str; 0],
    pub(super) ephemeral: bool,
    pub(super) description: &'static str,
}

/// A few keys of a container, to be changed.
#[derive(Debug, Serialize)]
pub(super) struct Patch {
    pub(super) config: Map,
}

/// Devices that a container is to have, too.
#[derive(Debug, Serialize)]
pub(super) struct NewDevices {
    pub(super) devices: BTreeMap<String, Map>,
}

/// What a container shall do.
#[derive(Debug, Serialize)]
pub(super) struct NewState {
    pub(super) action: &'static str,
    /// How long Incus tries, in seconds.
    pub(super) timeout: u64,
    pub(super) force: bool,
}

/// A command, to be run.
#[derive(Debug, Serialize)]
pub(super) struct NewProcess<'a> {
    pub(super) command: &'a [String],
    pub(super) environment: Map,
    #[serde(rename = "wait-for-websocket")]
    pub(super) wait_for_websocket: bool,
    pub(super) interactive: bool,
    pub(super) cwd: &'a str,
    pub(super) user: u32,
    pub(super) group: u32,
    pub(super) width: u16,
    pub(super) height: u16,
}

/// What is told to a running command.
#[derive(Debug, Serialize)]
pub(super) struct Control {
    pub(super) command: &'static str,
    pub(super) args: Map,
}

/// What a container has used.
#[derive(Debug, Deserialize)]
pub(super) struct Usage {
    pub(super) status: String,
    /// The init's number on the host; 0 or less while there is none.
    #[serde(default)]
    pub(super) pid: i64,
    #[serde(default)]
    pub(super) disk: Option<BTreeMap<String, DiskUsage>>,
    #[serde(default)]
    pub(super) memory: MemoryUsage,
    #[serde(default)]
    pub(super) network: Option<BTreeMap<String, NetworkUsage>>,
    /// -1 where it is not counted.
    #[serde(default)]
    pub(super) processes: i64,
    #[serde(default)]
    pub(super) cpu: CpuUsage,
}

/// The use of a disk, in bytes; negative where it is not counted.
#[derive(Debug, Deserialize)]
pub(super) struct DiskUsage {
    #[serde(default)]
    pub(super) usage: i64,
}

/// The use of memory, in bytes.
#[derive(Debug, Default, Deserialize)]
pub(super) struct MemoryUsage {
    #[serde(default)]
    pub(super) usage: i64,
    #[serde(default)]
    pub(super) usage_peak: i64,
    #[serde(default)]
    pub(super) total: i64,
}

/// The use of an interface.
#[derive(Debug, Deserialize)]
pub(super) struct NetworkUsage {
    pub(super) counters: Counters,
}

/// The counters of an interface.
#[derive(Debug, Deserialize)]
pub(super) struct Counters {
    pub(super) bytes_received: i64,
    pub(super) bytes_sent: i64,
    pub(super) packets_received: i64,
    pub(super) packets_sent: i64,
}

/// The use of processors, in nanoseconds.
#[derive(Debug, Default, Deserialize)]
pub(super) struct CpuUsage {
    #[serde(default)]
    pub(super) usage: i64,
}

/// An image, as it is.
#[derive(Debug, Deserialize)]
pub(super) struct Image {
    pub(super) fingerprint: String,
    #[serde(default)]
    pub(super) properties: Map,
}

/// A storage pool, as it is.
#[derive(Debug, Deserialize)]
pub(super) struct Pool {
    pub(super) driver: String,
}

/// Something that happened.
#[derive(Debug, Deserialize)]
pub(super) struct Event {
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) metadata: Value,
}

/// Something that happened to a container.
#[derive(Debug, Deserialize)]
pub(super) struct Lifecycle {
    /// As `instance-stopped`.
    pub(super) action: String,
    /// The path of what it happened to.
    pub(super) source: String,
}
