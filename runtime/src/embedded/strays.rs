//! Calls of the OCI runtime that outlived the process which made them.
//!
//! Killed in the middle of something, we leave such calls running. They would go on to change what
//! the next runtime takes for settled: create what it has just removed, say. So before anything else
//! the next one ends them, with the processes that they were about to put into containers. They are
//! told by our own directory in their arguments, which no one else uses: we hold its lock.

use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt as _, path::Path, time::Duration};

use rustix::process::{Pid, Signal};

use super::process::Init;

/// How long killed processes may take to vanish.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Ends every call that keeps its state in `root`.
pub(super) async fn end(root: &Path) {
    for pid in numbers(Path::new("/proc")) {
        if !is_call(pid, root) {
            continue;
        }
        // Looked at again behind the handle: the number may have changed hands.
        let Some(Ok(Some(call))) = Init::of(pid).map(Init::open) else { continue };
        if !is_call(pid, root) {
            continue;
        }
        tracing::info!(pid, "ending a call of the OCI runtime that an earlier process left");
        for child in children(pid) {
            kill_group(child);
        }
        call.kill();
        if tokio::time::timeout(TIMEOUT, call.ended()).await.is_err() {
            tracing::warn!(pid, "it does not end");
        }
    }
}

/// Whether the process was started with our directory.
fn is_call(pid: u32, root: &Path) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<&[u8]> = line.split(|octet| *octet == 0).collect();
    words
        .array_windows()
        .any(|[flag, value]| *flag == b"--root" && OsStr::from_bytes(value) == root.as_os_str())
}

/// The children of all of its threads.
fn children(pid: u32) -> Vec<u32> {
    let tasks = format!("/proc/{pid}/task");
    numbers(Path::new(&tasks))
        .into_iter()
        .filter_map(|task| fs::read_to_string(format!("{tasks}/{task}/children")).ok())
        .flat_map(|list| {
            list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()
        })
        .collect()
}

/// Kills a process that is to be in a container, and the group that it leads.
fn kill_group(pid: u32) {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
    let alone = rustix::process::kill_process(pid, Signal::KILL);
    let group = rustix::process::kill_process_group(pid, Signal::KILL);
    if let (Err(error), Err(_)) = (alone, group) {
        tracing::debug!(%error, "it had ended");
    }
}

/// The entries of a directory that are numbers.
fn numbers(dir: &Path) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}
