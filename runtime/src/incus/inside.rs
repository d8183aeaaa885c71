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
    alone(writers, id, move || enter(pid, id).map(|guest| write(&guest))).await
}

/// Does what a container may keep from ending on a thread of its own, if none is at it already.
async fn alone(
    writers: &Writers,
    id: ContainerId,
    work: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> io::Result<()> {
    let writing = writers.begin(id)?;
    let (done, result) = oneshot::channel();
    std::thread::Builder::new().name("gantry-inside".to_owned()).spawn(move || {
        let written = work();
        // Before it is told: whoever waits for it may go on writing.
        drop(writing);
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

    #[tokio::test]
    async fn who_never_answers_is_not_waited_for_and_keeps_one_thread() {
        let [one, other] = [1, 2].map(|byte| ContainerId::from_bytes([byte; 12]));
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("environment");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let writers = Writers::default();
        // Until somebody writes, this does not come back.
        let hangs = {
            let pipe = pipe.clone();
            move || std::fs::File::open(pipe).map(drop)
        };
        tokio::time::pause();
        let begun = tokio::time::Instant::now();
        let late = alone(&writers, one, hangs).await.unwrap_err();
        assert!(late.to_string().contains("elapsed"), "{late}");
        assert!((TIMEOUT..2 * TIMEOUT).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        tokio::time::resume();
        let busy = alone(&writers, one, || panic!("there is a thread already")).await;
        let busy = busy.unwrap_err();
        assert_eq!(busy.kind(), io::ErrorKind::ResourceBusy);
        assert!(busy.to_string().contains("does not answer"), "{busy}");
        alone(&writers, other, || Ok(())).await.unwrap();
        drop(std::fs::File::options().write(true).open(&pipe).unwrap());
        let freed = async {
            while alone(&writers, one, || Ok(())).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), freed).await.unwrap();
        // What fails has ended, too.
        let failed = alone(&writers, one, || Err(io::ErrorKind::NotFound.into())).await;
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

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
