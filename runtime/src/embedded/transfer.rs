//! Archives of whole file systems, out and in.
//!
//! What is read as an archive is a copy of the changes beside (`exports/`), made while their container is
//! frozen, seen through an overlay of it and its image that is mounted nowhere. What came in as an
//! archive is whole: all of it is changes, to an image that is empty. Where a container keeps
//! its image all the same, nothing of that shows through.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use gantry_model::{ContainerId, SnapshotId};
use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, XattrFlags},
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
        fsconfig_set_string, fsmount, fsopen,
    },
};
use tokio::runtime::Handle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    copies::Purpose,
    copy::{self, GiveUp},
    disk::Record,
    image::Mapping,
    lifecycle::{Inner, blocking},
    snapshots::{SnapshotRecord, UNREADABLE, forget_identity},
    usage,
};
use crate::{
    Archive, Error, Order, Result, SnapshotInfo, Source,
    archive::{Blocking, MOUNTED, Notes, Reader, Tree, Writer, pack, pipe, unpack},
    locks::Busy,
    tree::{Names, open_dir, plain},
};

/// How much of an archive is read at once, in bytes.
const PIECE_BYTES: usize = 256 << 10;

/// The images below what is being read as archives: they stay until that has ended.
#[derive(Clone, Debug, Default)]
pub(super) struct Exports(Arc<Mutex<Vec<PathBuf>>>);

/// One of them.
#[derive(Debug)]
struct Held(Exports, PathBuf);

impl Exports {
    /// All of them.
    pub(super) fn lowers(&self) -> Vec<PathBuf> {
        self.lock().clone()
    }

    fn hold(&self, lower: &Path) -> Held {
        self.lock().push(lower.to_owned());
        Held(self.clone(), lower.to_owned())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Self(exports, lower) = self;
        let mut lowers = exports.lock();
        if let Some(at) = lowers.iter().position(|held| held == lower) {
            lowers.swap_remove(at);
        }
    }
}

/// What a source was at one moment. Removed when it is dropped.
struct Kept {
    inner: Arc<Inner>,
    dir: PathBuf,
    lower: Held,
}

impl Kept {
    fn upper(&self) -> PathBuf {
        self.dir.join("upper")
    }

    /// Its whole file system.
    fn view(&self) -> io::Result<OwnedFd> {
        view(&self.upper(), &self.lower.1)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let (inner, dir) = (Arc::clone(&self.inner), std::mem::take(&mut self.dir));
        match Handle::try_current() {
            Ok(handle) => {
                let remove = move || inner.disk.remove_export(&dir);
                self.inner.tasks.spawn_blocking_on(remove, &handle);
            }
            Err(_ending) => inner.disk.remove_export(&dir),
        }
    }
}

impl Inner {
    /// The whole file system of a source.
    pub(super) async fn export(self: &Arc<Self>, source: Source, busy: Busy) -> Result<Archive> {
        const WHAT: &str = "keeping the files for an archive";
        let kept = self.keep(WHAT, source, Purpose::Archive, vec![busy]).await?;
        let (mut sink, archive) = pipe(self.shutdown.clone());
        let mapping = self.config.mapping;
        self.tasks.spawn_blocking(move || {
            let mut write = || {
                let notes = Notes::begin(&kept.dir.join("notes"))?;
                let root = kept.view()?;
                let mut writer = Writer::new(&mut sink, ".");
                pack(Tree { root, mapping, without: MOUNTED, notes: &notes }, &mut writer)?;
                writer.finish().map(drop)
            };
            let written = write();
            sink.end(written);
        });
        Ok(archive)
    }

    /// Keeps what a source is at this moment.
    async fn keep(
        self: &Arc<Self>,
        what: &'static str,
        source: Source,
        purpose: Purpose,
        busy: Vec<Busy>,
    ) -> Result<Kept> {
        let (origin, lower) = {
            // From then on, its image is held by itself: a removal of others need not wait for the copy.
            let _no_removal = self.images_in_use.read().await;
            let origin = self.origin(source)?;
            let lower = self.exports.hold(&origin.lower);
            (origin, lower)
        };
        let inner = Arc::clone(self);
        self.held_still(what, (origin.live, purpose), busy, move |give_up| {
            let dir = inner.disk.make_export(inner.token())?;
            let kept = Kept { inner, dir, lower };
            copy::copy_tree(&origin.upper, &kept.upper(), give_up)?;
            Ok(kept)
        })
        .await
    }

    /// Makes a container of an archive, unless there is one.
    pub(super) async fn import(
        self: &Arc<Self>,
        order: &Order,
        archive: Archive,
        busy: Busy,
    ) -> Result<()> {
        const WHAT: &str = "importing the container";
        let (id, home) = (order.id, self.disk.home(order.id));
        let (incoming, _wanted) = self.incoming(archive);
        if home.record().is_some() {
            return Ok(());
        }
        if home.is_finished() {
            return Err(Error::failed(WHAT, UNREADABLE));
        }
        let address = self.network.take(id).await?;
        self.disk.note_last_address(address);
        let record = Record { address, lower: self.disk.empty() };
        let inner = Arc::clone(self);
        let work = move |give_up: &GiveUp| {
            inner.disk.discard(id, inner.token())?;
            home.prepare(inner.config.mapping.base)?;
            let made = incoming.unpack(&home.upper(), give_up);
            let made = made.and_then(|()| home.finish(&record));
            if made.is_err() && home.record().is_none() {
                inner.disk.discard(id, inner.token())?;
            }
            made
        };
        let of = (None, Purpose::Container(id));
        let imported = self.held_still(WHAT, of, vec![busy], work).await;
        if imported.is_err() && self.disk.home(id).record().is_none() {
            self.network.release(id).await?;
        }
        imported
    }

    /// Makes a snapshot of an archive, unless there is one.
    pub(super) async fn import_snapshot(
        self: &Arc<Self>,
        snapshot: SnapshotId,
        archive: Archive,
        busy: Busy,
    ) -> Result<SnapshotInfo> {
        const WHAT: &str = "importing the snapshot";
        let kept = self.disk.shelf(snapshot);
        if let Some(record) = kept.record() {
            return Ok(SnapshotInfo { id: snapshot, bytes: record.bytes });
        }
        if kept.is_finished() {
            return Err(Error::failed(WHAT, UNREADABLE));
        }
        let (incoming, _wanted) = self.incoming(archive);
        let inner = Arc::clone(self);
        let work = move |give_up: &GiveUp| {
            inner.disk.discard_snapshot(snapshot, inner.token())?;
            kept.prepare()?;
            let made = incoming.unpack(&kept.upper(), give_up).and_then(|()| {
                let bytes = usage::measure(&kept.upper())?;
                let lower = inner.disk.empty();
                kept.finish(&SnapshotRecord { container: String::new(), lower, bytes })?;
                Ok(bytes)
            });
            if made.is_err() && kept.record().is_none() {
                inner.disk.discard_snapshot(snapshot, inner.token())?;
            }
            made
        };
        let bytes = self.held_still(WHAT, (None, Purpose::Snapshot), vec![busy], work).await?;
        Ok(SnapshotInfo { id: snapshot, bytes })
    }

    /// Replaces a container's files by those of an archive.
    pub(super) async fn refill_from(
        self: &Arc<Self>,
        id: ContainerId,
        archive: Archive,
        busy: Busy,
    ) -> Result<()> {
        const WHAT: &str = "replacing the container's files";
        let (incoming, _wanted) = self.incoming(archive);
        self.refill_whole(WHAT, id, busy, move |fresh, give_up| incoming.unpack(fresh, give_up))
            .await
    }

    /// Replaces a container's files by those of a source that has another image.
    pub(super) async fn refill_through(
        self: &Arc<Self>,
        id: ContainerId,
        source: Source,
        busy: Vec<Busy>,
    ) -> Result<()> {
        const WHAT: &str = "replacing the container's files";
        let Some(own) = busy.first().cloned() else { return Ok(()) };
        let is_own = self.origin(source)?.container == id.to_string();
        let kept = self.keep(WHAT, source, Purpose::Container(id), busy).await?;
        self.refill_whole(WHAT, id, own, move |fresh, give_up| {
            copy::copy_dir(open_dir(kept.view()?, c".")?, fresh, give_up)?;
            if is_own { Ok(()) } else { forget_identity(fresh) }
        })
        .await
    }

    /// Replaces a container's files by whole ones that `fill` makes in a directory that does not exist yet.
    async fn refill_whole(
        self: &Arc<Self>,
        what: &'static str,
        id: ContainerId,
        busy: Busy,
        fill: impl FnOnce(&Path, &GiveUp) -> io::Result<()> + Send + 'static,
    ) -> Result<()> {
        let home = self.disk.home(id);
        let record = home.record().ok_or(Error::NotFound { id })?;
        let inner = Arc::clone(self);
        let work = move |give_up: &GiveUp| {
            let fresh = home.fresh_upper();
            let discard = || inner.disk.discard_path(&fresh, id, inner.token());
            discard()?;
            let filled = fill(&fresh, give_up).and_then(|()| hide(&record.lower, &fresh));
            if filled.is_err() {
                discard()?;
                inner.disk.discard_path(&fresh.with_extension("links"), id, inner.token())?;
            }
            filled
        };
        let of = (None, Purpose::Container(id));
        self.held_still(what, of, vec![busy.clone()], work).await?;
        self.stop(id, Duration::ZERO, &busy).await?;
        let inner = Arc::clone(self);
        blocking(what, move || {
            let _busy = busy;
            inner.exchange(id, &inner.disk.home(id))
        })
        .await?;
        self.usage.forget(id);
        Ok(())
    }

    /// An archive that is given up with the runtime, and when the guard is dropped.
    fn incoming(&self, archive: Archive) -> (Incoming, DropGuard) {
        let unwanted = self.shutdown.child_token();
        let guard = unwanted.clone().drop_guard();
        (Incoming { archive, unwanted, mapping: self.config.mapping }, guard)
    }
}

/// An archive that came from elsewhere, at the speed of elsewhere.
struct Incoming {
    archive: Archive,
    /// Told when nobody waits for it any more.
    unwanted: CancellationToken,
    mapping: Mapping,
}

impl Incoming {
    fn unpack(self, to: &Path, give_up: &GiveUp) -> io::Result<()> {
        let is_unwanted = || give_up.is_told() || self.unwanted.is_cancelled();
        let blocking = Blocking::new(self.archive, is_unwanted);
        let mut reader = Reader::new(io::BufReader::with_capacity(PIECE_BYTES, blocking));
        unpack(&mut reader, to, self.mapping)
    }
}

/// A whole file system of changes and image, which cannot be written and is gone when this is dropped.
fn view(upper: &Path, lower: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let upper = rustix::fs::open(upper, flags, Mode::empty())?;
    let lower = rustix::fs::open(lower, flags, Mode::empty())?;
    // Paths of any length, with any signs, and no place where they could be mounted.
    let place = |dir: &OwnedFd| format!("/proc/self/fd/{}", dir.as_raw_fd());
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", "gantry")?;
    fsconfig_set_string(&context, "lowerdir", format!("{}:{}", place(&upper), place(&lower)))?;
    fsconfig_set_flag(&context, "ro")?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NOEXEC
        | MountAttrFlags::MOUNT_ATTR_NOATIME;
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    open_dir(mount, c".")
}

/// Has nothing of an image show through what is whole: its directories hide those of the image, and
/// what else is in the image gets a mark that hides it.
fn hide(lower: &Path, whole: &Path) -> io::Result<()> {
    let (lower, dir) = (open_dir(CWD, lower)?, open_dir(CWD, whole)?);
    let mut names = Names::new();
    while let Some(name) = names.next(&lower)? {
        match rustix::fs::statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode).is_dir() => {
                let path = crate::tree::at(&dir, plain(&name));
                let flags = XattrFlags::empty();
                rustix::fs::lsetxattr(path, "trusted.overlay.opaque", b"y", flags)?;
            }
            Ok(_) => {}
            Err(Errno::NOENT) => {
                let kind = FileType::CharacterDevice;
                rustix::fs::mknodat(&dir, &name, kind, Mode::empty(), 0)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(rustix::fs::syncfs(&dir)?)
}
