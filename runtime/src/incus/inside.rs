//! Writing into containers that run, past Incus: its file calls begin with a process of their own each
//! time that none was made for ten seconds, which takes longer than all else of a claim.

use std::{
    collections::HashSet,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use gantry_model::ContainerId;
use rustix::{
    fs::{Gid, Uid},
    thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};
use tokio::sync::oneshot;

use crate::{
    embedded::guest::{Guest, Owner},
    shares::inside::Process,
};

/// How long a container may keep us: its root may be a file system of its own making.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The containers that are being written into.
#[derive(Clone, Debug, Default)]
pub(super) struct Writers(Arc<Mutex<HashSet<ContainerId>>>);

/// Notes the end of a write, however it ends.
struct Writing(Writers, ContainerId);

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

impl Writers {
    /// One at a time: what never answers has one thread of ours, and not one for each attempt.
    fn begin(&self, id: ContainerId) -> io::Result<Writing> {
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id) {
            return Ok(Writing(self.clone(), id));
        }
        Err(io::Error::new(io::ErrorKind::ResourceBusy, "its file system does not answer"))
    }
}

/// Has `write` write into the container whose init is the process `pid`.
///
/// That happens on a thread of its own, which ends afterwards and is nobody but the container's root user:
/// files that it makes are that user's, whichever way Incus maps owners, and what a container does to
/// paths meanwhile reaches nothing that its root user may not.
pub(super) async fn write(
    writers: &Writers,
    pid: u32,
    id: ContainerId,
    write: impl FnOnce(&Guest) + Send + 'static,
) -> io::Result<()> {
    let writing = writers.begin(id)?;
    let (done, result) = oneshot::channel();
    std::thread::Builder::new().name("gantry-inside".to_owned()).spawn(move || {
        let _writing = writing;
        let written = enter(pid, id).map(|guest| write(&guest));
        // Nobody waits any more when the caller was dropped.
        if done.send(written).is_err() {
            tracing::debug!(container = %id, "wrote into it what nobody waited for");
        }
    })?;
    let result = tokio::time::timeout(TIMEOUT, result).await;
    result.map_err(io::Error::other)?.map_err(io::Error::other)?
}

fn enter(pid: u32, id: ContainerId) -> io::Result<Guest> {
    let process = Process::open(pid, id)?;
    let of_root = |name| owner(&process.read(name)?);
    let owner = Owner { user: of_root("uid_map")?, group: of_root("gid_map")? };
    // It may have ended meanwhile, and then this fails: the descriptor leads to no other process.
    let root = process.root()?;
    let (user, group) = (Uid::from_raw(owner.user), Gid::from_raw(owner.group));
    set_thread_groups(&[])?;
    set_thread_res_gid(group, group, group)?;
    set_thread_res_uid(user, user, user)?;
    Ok(Guest::of_running(root, owner))
}

/// Which of the host's ids is the container's 0, by a map of ids as in `/proc`.
pub(super) fn owner(map: &[u8]) -> io::Result<u32> {
    let text = String::from_utf8_lossy(map);
    let of_line = |line: &str| {
        let mut numbers = line.split_whitespace().map(str::parse::<u32>);
        let (inside, outside) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        (inside == 0).then_some(outside)
    };
    match text.lines().find_map(of_line) {
        // The host's root: not one of ours, which are all in user namespaces.
        None | Some(0) => Err(io::Error::other("its root user is none of a container's")),
        Some(owner) => Ok(owner),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_user_is_found_by_the_map_of_ids() {
        let map = b"         1          0          1\n         0    1000000      65536\n";
        assert_eq!(owner(map).unwrap(), 1_000_000);
        // The host's own, one that has no root user, nothing.
        for map in [&b"0 0 4294967295\n"[..], b"1 1000000 65536\n", b""] {
            assert!(owner(map).is_err(), "{}", String::from_utf8_lossy(map));
        }
    }
}
