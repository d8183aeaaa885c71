//! What is remembered on disk, and where.
//!
//! ```text
//! <dir>/lock                     held while a runtime lives
//! <dir>/last-address             the address given out last
//! <dir>/runc/                    the state of the OCI runtime
//! <dir>/inside/                  the program that runs inside for sessions
//! <dir>/trash/                   what is being removed; emptied at start
//! <dir>/containers/<id>/         one container, and the OCI bundle
//!     record.json                what never changes; its presence makes the container
//!     run.json                   its last start
//!     config.json                the OCI configuration of its last start
//!     upper/ work/ rootfs/       overlay: changes, scratch, mount point
//!     upper.new/                 changes that are to replace those beside it
//!     ramdisk/                   mount point of the ramdisk
//!     devices/                   mount point of its device nodes; only while it runs with any
//!     session/                   what it sees at `/dev/.gantry`: the program for sessions, and their sockets
//!     shares/                    mount points of what others share with it
//! <dir>/snapshots/<id>/          one snapshot; no container's, so that it outlives its own
//!     record.json                what it was made from; its presence makes the snapshot
//!     upper/                     the changes that were kept
//! <dir>/exports/<number>/        changes that are being read as an archive; emptied at start
//! <dir>/empty/                   the image of what came in an archive, which is whole
//! ```
//!
//! Files appear whole, by a rename. A directory without a record is what a crash left.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    net::Ipv4Addr,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use gantry_model::{ContainerId, Id, SnapshotId};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{lifecycle::blocking, process::Init, snapshots::SnapshotRecord};
use crate::{Error, Result};

/// No file of ours comes near this size.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// How long a runtime that ends may still hold the directory.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// The directory of the runtime, locked against a second one.
#[derive(Debug)]
pub(super) struct Disk {
    root: PathBuf,
    rm: PathBuf,
    /// Held while the last address is written: containers are made at the same time.
    noting: Mutex<()>,
    /// Nothing once another process has the directory.
    lock: Mutex<Option<File>>,
}

/// What never changes in a container's life.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    /// Its address.
    pub(super) address: Ipv4Addr,
    /// The unpacked image below its own changes.
    pub(super) lower: PathBuf,
}

/// A start of a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Run {
    /// The boot of the host that it happened in.
    pub(super) boot_id: String,
    /// The init that was started.
    pub(super) init: Init,
    /// The environment that it was started with, or has been given since.
    pub(super) env: BTreeMap<String, String>,
    /// The limit of its memory, in bytes; 0 for none.
    pub(super) memory_bytes: u64,
}

/// The places of one container.
#[derive(Clone, Debug)]
pub(super) struct Home(PathBuf);

/// The places of one snapshot.
#[derive(Clone, Debug)]
pub(super) struct Shelf(PathBuf);

impl Disk {
    /// Makes what is missing, waits for an ending runtime to let go, removes what was being removed
    /// with the program `rm`. The lock of a process that lives is shared with it: it is to leave it.
    pub(super) async fn open(root: &Path, rm: PathBuf, shared: Option<OwnedFd>) -> Result<Self> {
        let failed = |error: io::Error| Error::failed("opening the runtime's directory", error);
        for dir in [root.to_owned(), root.join("containers")] {
            make_dir(&dir, 0o711).map_err(failed)?;
        }
        for dir in ["runc", "trash", "snapshots", "exports"] {
            make_dir(&root.join(dir), 0o700).map_err(failed)?;
        }
        make_dir(&root.join("empty"), 0o755).map_err(failed)?;
        let lock = match shared {
            Some(lock) => File::from(lock),
            None => OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .mode(0o600)
                .open(root.join("lock"))
                .map_err(failed)?,
        };
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        let held = async {
            while rustix::fs::flock(lock.as_fd(), FlockOperation::NonBlockingLockExclusive).is_err()
            {
                tick.tick().await;
            }
        };
        tokio::time::timeout(LOCK_WAIT, held).await.map_err(|_elapsed| {
            Error::failed("opening the runtime's directory", "another process uses it")
        })?;
        let emptied = [root.join("trash"), root.join("exports")];
        let program = rm.clone();
        blocking("opening the runtime's directory", move || {
            for dir in emptied {
                fs::read_dir(dir)?.flatten().for_each(|entry| remove(&program, &entry.path()));
            }
            Ok(())
        })
        .await?;
        Ok(Self {
            root: root.to_owned(),
            rm,
            noting: Mutex::default(),
            lock: Mutex::new(Some(lock)),
        })
    }

    /// The lock of the directory, for a process that follows. It is one lock in both until it is left.
    pub(super) fn share_lock(&self) -> io::Result<OwnedFd> {
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let lock = lock.as_ref().ok_or_else(|| io::Error::other("its lock was left"))?;
        lock.try_clone().map(OwnedFd::from)
    }

    /// Leaves the directory to the process that shares the lock.
    pub(super) fn leave_lock(&self) {
        drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Where the OCI runtime keeps its state.
    pub(super) fn runc_dir(&self) -> PathBuf {
        self.root.join("runc")
    }

    /// The places of a container, whether it exists or not.
    pub(super) fn home(&self, id: ContainerId) -> Home {
        Home(self.root.join("containers").join(id.to_string()))
    }

    /// The places of a snapshot, whether it exists or not.
    pub(super) fn shelf(&self, id: SnapshotId) -> Shelf {
        Shelf(self.root.join("snapshots").join(id.to_string()))
    }

    /// What is below the changes of what came in an archive.
    pub(super) fn empty(&self) -> PathBuf {
        self.root.join("empty")
    }

    /// Makes a place for what is read as an archive; `token` was not used before.
    pub(super) fn make_export(&self, token: u64) -> io::Result<PathBuf> {
        let path = self.root.join("exports").join(format!("{token:x}"));
        make_dir(&path, 0o700)?;
        Ok(path)
    }

    /// Removes such a place. Blocks; what cannot be removed is tried again when the next runtime opens.
    pub(super) fn remove_export(&self, path: &Path) {
        remove(&self.rm, path);
    }

    /// Every id of a container that has a directory.
    pub(super) fn ids(&self) -> Result<Vec<ContainerId>> {
        ids(&self.root.join("containers"))
            .map_err(|error| Error::failed("listing the containers", error))
    }

    /// Every id of a snapshot that has a directory.
    pub(super) fn snapshot_ids(&self) -> Result<Vec<SnapshotId>> {
        ids(&self.root.join("snapshots"))
            .map_err(|error| Error::failed("listing the snapshots", error))
    }

    /// Makes a container vanish at once, then removes its files. Blocks for as long as that takes;
    /// what cannot be removed is tried again when the next runtime opens.
    pub(super) fn discard(&self, id: ContainerId, token: u64) -> io::Result<()> {
        self.discard_path(self.home(id).dir(), id, token)
    }

    /// The same for a snapshot.
    pub(super) fn discard_snapshot(&self, id: SnapshotId, token: u64) -> io::Result<()> {
        self.discard_path(&self.shelf(id).0, id, token)
    }

    /// The same for something that belongs to `id`; `token` was not used before.
    pub(super) fn discard_path<K>(&self, path: &Path, id: Id<K>, token: u64) -> io::Result<()> {
        let trash = self.root.join("trash").join(format!("{id}-{token:x}"));
        match fs::rename(path, &trash) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        }
        remove(&self.rm, &trash);
        Ok(())
    }

    /// The address given out last, if that is known.
    pub(super) fn last_address(&self) -> Option<Ipv4Addr> {
        fs::read_to_string(self.root.join("last-address")).ok()?.trim().parse().ok()
    }

    /// Notes the address given out last.
    pub(super) fn note_last_address(&self, address: Ipv4Addr) {
        let path = self.root.join("last-address");
        let _alone = self.noting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = write_atomically(&path, address.to_string().as_bytes(), Durable::No) {
            tracing::warn!(%error, "cannot note the last address; freed ones may rest less");
        }
    }
}

impl Home {
    pub(super) fn dir(&self) -> &Path {
        &self.0
    }

    pub(super) fn upper(&self) -> PathBuf {
        self.0.join("upper")
    }

    pub(super) fn work(&self) -> PathBuf {
        self.0.join("work")
    }

    pub(super) fn rootfs(&self) -> PathBuf {
        self.0.join("rootfs")
    }

    pub(super) fn ramdisk(&self) -> PathBuf {
        self.0.join("ramdisk")
    }

    /// Where its device nodes are mounted.
    pub(super) fn devices(&self) -> PathBuf {
        self.0.join("devices")
    }

    /// Where what others share with it is mounted.
    pub(super) fn shares(&self) -> PathBuf {
        self.0.join("shares")
    }

    /// What it has for sessions.
    pub(super) fn session(&self) -> PathBuf {
        self.0.join("session")
    }

    pub(super) fn pid_file(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.pid"))
    }

    /// The record; `None` when the container does not exist (as far as it was ever finished).
    pub(super) fn record(&self) -> Option<Record> {
        read(&self.0.join("record.json"))
    }

    /// The last start; `None` when it never was started.
    pub(super) fn run(&self) -> Option<Run> {
        read(&self.0.join("run.json"))
    }

    /// Whether there is a record, even one that cannot be read.
    pub(super) fn is_finished(&self) -> bool {
        is_there(&self.0.join("record.json"))
    }

    /// Makes an empty container exist, durably.
    pub(super) fn create(&self, record: &Record, root: u32) -> io::Result<()> {
        self.prepare(root)?;
        make_dir(&self.upper(), 0o755)?;
        std::os::unix::fs::chown(self.upper(), Some(root), Some(root))?;
        self.finish(record)
    }

    /// Makes the directories of a container to be, but for that of its changes.
    pub(super) fn prepare(&self, root: u32) -> io::Result<()> {
        make_dir(&self.0, 0o700)?;
        self.close_to_others(root)?;
        for dir in [self.work(), self.rootfs(), self.ramdisk()] {
            make_dir(&dir, 0o755)?;
        }
        Ok(())
    }

    /// Makes the overlay's scratch directory, if it is missing.
    pub(super) fn ensure_work(&self) -> io::Result<()> {
        if self.work().exists() { Ok(()) } else { make_dir(&self.work(), 0o755) }
    }

    /// Makes the container exist, durably: its directories are there, the record comes last.
    pub(super) fn finish(&self, record: &Record) -> io::Result<()> {
        write_atomically(&self.0.join("record.json"), &serde_json::to_vec(record)?, Durable::Yes)?;
        // The entry of the container's own directory must be on disk, too.
        self.0.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    }

    /// Lets only the mapped root pass through, besides root. Other users of the host must neither
    /// read a container's files nor run its set-user-id programs.
    pub(super) fn close_to_others(&self, root: u32) -> io::Result<()> {
        // The group first, so that no other passes meanwhile.
        std::os::unix::fs::chown(&self.0, Some(0), Some(root))?;
        fs::set_permissions(&self.0, fs::Permissions::from_mode(0o710))
    }

    /// Notes a start. After a crash of the host nothing runs anyway, so this need not be durable.
    pub(super) fn started(&self, run: &Run) -> io::Result<()> {
        write_atomically(&self.0.join("run.json"), &serde_json::to_vec(run)?, Durable::No)
    }

    /// Removes the pid files of commands that an earlier runtime ran.
    pub(super) fn remove_pid_files(&self) {
        let Ok(entries) = fs::read_dir(&self.0) else { return };
        let paths = entries.flatten().map(|entry| entry.path());
        for path in paths.filter(|path| path.extension().is_some_and(|kind| kind == "pid")) {
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "a pid file stays");
            }
        }
    }

    /// Writes the OCI configuration of the start to come.
    pub(super) fn write_bundle(&self, json: &[u8]) -> io::Result<()> {
        write_atomically(&self.0.join("config.json"), json, Durable::No)
    }
}

impl Shelf {
    /// The changes that were kept.
    pub(super) fn upper(&self) -> PathBuf {
        self.0.join("upper")
    }

    /// The record; `None` when the snapshot does not exist (as far as it was ever finished).
    pub(super) fn record(&self) -> Option<SnapshotRecord> {
        read(&self.0.join("record.json"))
    }

    /// Whether there is a record, even one that cannot be read.
    pub(super) fn is_finished(&self) -> bool {
        is_there(&self.0.join("record.json"))
    }

    /// Makes the directory of a snapshot to be. Nobody but root passes through.
    pub(super) fn prepare(&self) -> io::Result<()> {
        make_dir(&self.0, 0o700)
    }

    /// Makes the snapshot exist, durably.
    pub(super) fn finish(&self, record: &SnapshotRecord) -> io::Result<()> {
        write_atomically(&self.0.join("record.json"), &serde_json::to_vec(record)?, Durable::Yes)?;
        self.0.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    }
}

/// The entries of a directory that are ids.
fn ids<K>(dir: &Path) -> io::Result<Vec<Id<K>>> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        ids.extend(name.to_str().and_then(|name| name.parse::<Id<K>>().ok()));
    }
    Ok(ids)
}

/// Removes a tree that a container made. By a program that walks it without recursion: how deep it
/// is was not ours to choose, and our stack and our file descriptors end somewhere.
fn remove(rm: &Path, dir: &Path) {
    let status = Command::new(rm)
        .args(["-rf", "--one-file-system", "--"])
        .arg(dir)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => tracing::warn!(path = %dir.display(), %status, "cannot remove it yet"),
        Err(error) => tracing::warn!(path = %dir.display(), %error, "cannot remove it yet"),
    }
}

/// Whether a file must survive a power failure.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Durable {
    Yes,
    No,
}

fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(path)?;
    // Whatever the caller's mask says: the mapped root must pass through.
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Whether there is such a file, as far as can be known: what cannot be looked at is not gone.
fn is_there(path: &Path) -> bool {
    match fs::symlink_metadata(path) {
        Err(error) => error.kind() != io::ErrorKind::NotFound,
        Ok(_) => true,
    }
}

/// The file's content; `None` when it is missing. One that does not decode is reported and missing.
fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes));
    match read {
        Ok(_) => serde_json::from_slice(&bytes)
            .inspect_err(|error| tracing::error!(path = %path.display(), %error, "unreadable"))
            .ok(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "unreadable");
            None
        }
    }
}

/// Replaces a file. The caller sees to it that nobody else replaces the same one meanwhile.
fn write_atomically(path: &Path, bytes: &[u8], durable: Durable) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file =
        OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&fresh)?;
    file.write_all(bytes)?;
    if durable == Durable::Yes {
        file.sync_all()?;
    }
    fs::rename(&fresh, path)?;
    match path.parent() {
        Some(dir) if durable == Durable::Yes => File::open(dir)?.sync_all(),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};

    use super::*;

    #[tokio::test]
    async fn addresses_noted_at_the_same_time_leave_a_whole_one() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::open(dir.path(), "/usr/bin/rm".into(), None).await.unwrap();
        let noted = [Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(10, 200, 100, 222)];
        disk.note_last_address(noted[0]);
        std::thread::scope(|scope| {
            let note = |address| (0..500).for_each(|_| disk.note_last_address(address));
            let writers = noted.map(|address| scope.spawn(move || note(address)));
            while !writers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
                let read = disk.last_address();
                assert!(read.is_some_and(|read| noted.contains(&read)), "{read:?}");
            }
        });
        assert!(!dir.path().join("last-address.new").exists());
    }

    /// Deeper than any path can name and than a thread's stack could follow.
    const DEPTH: usize = 8_000;

    fn dig(top: &Path) {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut dir: OwnedFd = openat(CWD, top, flags, Mode::empty()).unwrap();
        for _ in 0..DEPTH {
            mkdirat(&dir, "d", Mode::RWXU).unwrap();
            dir = openat(&dir, "d", flags, Mode::empty()).unwrap();
        }
    }

    #[tokio::test]
    async fn a_tree_of_any_depth_is_removed_and_what_stayed_goes_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::open(dir.path(), "/usr/bin/rm".into(), None).await.unwrap();
        let id = ContainerId::from_bytes([1; 12]);
        let home = disk.home(id);
        fs::create_dir_all(home.upper()).unwrap();
        dig(&home.upper());
        disk.discard(id, 1).unwrap();
        let trash = dir.path().join("trash");
        assert!(!home.dir().exists() && fs::read_dir(&trash).unwrap().next().is_none());
        let left = trash.join("left");
        fs::create_dir_all(left.join("below")).unwrap();
        drop(disk);
        let _disk = Disk::open(dir.path(), "/usr/bin/rm".into(), None).await.unwrap();
        assert!(!left.exists());
    }
}
