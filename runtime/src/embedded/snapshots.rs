//! Snapshots, copies of containers, and what fills them.
//!
//! ```text
//! <dir>/snapshots/<id>/          one snapshot
//!     record.json                what it was made from; its presence makes the snapshot
//!     upper/                     the changes to the image
//! <dir>/containers/<id>/upper.new/  changes that are about to take the place of those beside it
//! ```
//!
//! A container is its image and its changes, so a copy of the changes is a copy of it: one that shares
//! data with the original where the file system can do that, and a full one elsewhere. While changes
//! are copied, what makes them is frozen.

use std::{
    fs, io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use gantry_model::{ContainerId, SnapshotId};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, ResolveFlags};
use serde::{Deserialize, Serialize};

use super::{
    copies::Purpose,
    copy::{self, GiveUp},
    disk::{Home, Record},
    lifecycle::{Inner, blocking},
    usage,
};
use crate::{Error, Order, Result, SnapshotInfo, Source, locks::Busy};

pub(super) const UNREADABLE: &str = "there is one already whose record cannot be read";

/// What never changes about a snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SnapshotRecord {
    /// The container that it was made from; empty if it came in an archive.
    pub(super) container: String,
    /// The unpacked image below the changes.
    pub(super) lower: PathBuf,
    /// What the changes take on disk.
    pub(super) bytes: u64,
}

/// Where changes are copied from.
pub(super) struct Origin {
    /// The container whose files they are; empty for what came in an archive.
    pub(super) container: String,
    /// That container, if the changes are taken from itself and not from a snapshot.
    pub(super) live: Option<ContainerId>,
    pub(super) lower: PathBuf,
    pub(super) upper: PathBuf,
}

impl Inner {
    /// Makes a snapshot, unless there is one.
    pub(super) async fn snapshot(
        self: &Arc<Self>,
        id: ContainerId,
        snapshot: SnapshotId,
        busy: Vec<Busy>,
    ) -> Result<SnapshotInfo> {
        const WHAT: &str = "making the snapshot";
        let kept = self.disk.shelf(snapshot);
        if let Some(record) = kept.record() {
            return Ok(SnapshotInfo { id: snapshot, bytes: record.bytes });
        }
        if kept.is_finished() {
            return Err(Error::failed(WHAT, UNREADABLE));
        }
        let origin = self.origin(Source::Container(id))?;
        let inner = Arc::clone(self);
        let bytes = self
            .held_still(WHAT, (origin.live, Purpose::Snapshot), busy, move |give_up| {
                inner.disk.discard_snapshot(snapshot, inner.token())?;
                kept.prepare()?;
                copy::copy_tree(&origin.upper, &kept.upper(), give_up)?;
                let bytes = usage::measure(&kept.upper())?;
                let (container, lower) = (origin.container, origin.lower);
                kept.finish(&SnapshotRecord { container, lower, bytes })?;
                Ok(bytes)
            })
            .await?;
        Ok(SnapshotInfo { id: snapshot, bytes })
    }

    /// Every snapshot.
    pub(super) fn snapshots(&self) -> Result<Vec<SnapshotInfo>> {
        let ids = self.disk.snapshot_ids()?;
        let kept = ids.into_iter().filter_map(|id| {
            let record = self.disk.shelf(id).record()?;
            Some(SnapshotInfo { id, bytes: record.bytes })
        });
        Ok(kept.collect())
    }

    /// Makes a container of another's files, unless there is one.
    pub(super) async fn copy(
        self: &Arc<Self>,
        order: &Order,
        source: Source,
        busy: Vec<Busy>,
    ) -> Result<()> {
        let home = self.disk.home(order.id);
        if home.record().is_some() {
            return Ok(());
        }
        if home.is_finished() {
            return Err(Error::failed("copying the container", UNREADABLE));
        }
        let _no_removal = self.images_in_use.read().await;
        let origin = self.origin(source)?;
        let address = self.network.take(order.id).await?;
        self.disk.note_last_address(address);
        let record = Record { address, lower: origin.lower.clone() };
        let of = (origin.live, Purpose::Container(order.id));
        let (inner, id) = (Arc::clone(self), order.id);
        let work = move |give_up: &GiveUp| {
            inner.disk.discard(id, inner.token())?;
            home.prepare(inner.config.mapping.base)?;
            copy::copy_tree(&origin.upper, &home.upper(), give_up)?;
            forget_identity(&home.upper())?;
            home.finish(&record)
        };
        let copied = self.held_still("copying the container", of, busy, work).await;
        if copied.is_err() && self.disk.home(order.id).record().is_none() {
            self.network.release(order.id).await?;
        }
        copied
    }

    /// Replaces a container's files.
    pub(super) async fn refill(
        self: &Arc<Self>,
        id: ContainerId,
        source: Source,
        busy: Vec<Busy>,
    ) -> Result<()> {
        const WHAT: &str = "replacing the container's files";
        let home = self.disk.home(id);
        let record = home.record().ok_or(Error::NotFound { id })?;
        let origin = self.origin(source)?;
        if origin.lower != record.lower {
            if origin.lower != self.disk.empty() && record.lower != self.disk.empty() {
                return Err(Error::failed(WHAT, "the source was made from another image"));
            }
            return self.refill_through(id, source, busy).await;
        }
        if let Some(own) = busy.first() {
            self.stop(id, std::time::Duration::ZERO, own).await?;
        }
        let (inner, of) = (Arc::clone(self), (origin.live, Purpose::Container(id)));
        self.held_still(WHAT, of, busy, move |give_up| {
            let fresh = home.fresh_upper();
            inner.disk.discard_path(&fresh, id, inner.token())?;
            copy::copy_tree(&origin.upper, &fresh, give_up)?;
            if origin.container != id.to_string() {
                forget_identity(&fresh)?;
            }
            inner.exchange(id, &home)
        })
        .await?;
        self.usage.forget(id);
        Ok(())
    }

    /// Has the fresh changes of a container take the place of the old ones.
    pub(super) fn exchange(&self, id: ContainerId, home: &Home) -> io::Result<()> {
        let fresh = home.fresh_upper();
        rustix::fs::renameat_with(CWD, &fresh, CWD, home.upper(), RenameFlags::EXCHANGE)?;
        self.disk.discard_path(&fresh, id, self.token())?;
        // What the overlay noted there is about the files that are gone.
        self.disk.discard_path(&home.work(), id, self.token())?;
        home.ensure_work()?;
        fs::File::open(home.dir())?.sync_all()
    }

    pub(super) fn origin(&self, source: Source) -> Result<Origin> {
        match source {
            Source::Container(id) => {
                let home = self.disk.home(id);
                let record = home.record().ok_or(Error::NotFound { id })?;
                Ok(Origin {
                    container: id.to_string(),
                    live: Some(id),
                    lower: record.lower,
                    upper: home.upper(),
                })
            }
            Source::Snapshot(snapshot) => {
                let kept = self.disk.shelf(snapshot);
                let record = kept.record().ok_or(Error::NoSnapshot { snapshot })?;
                Ok(Origin {
                    container: record.container,
                    live: None,
                    lower: record.lower,
                    upper: kept.upper(),
                })
            }
        }
    }

    /// Does file system work for a purpose while the container that it reads, if there is one and it
    /// runs, is frozen. In a task of its own: a caller who is dropped must not leave it frozen. What is
    /// `busy` is so until it runs again.
    pub(super) async fn held_still<T: Send + 'static>(
        self: &Arc<Self>,
        what: &'static str,
        (id, purpose): (Option<ContainerId>, Purpose),
        busy: Vec<Busy>,
        work: impl FnOnce(&GiveUp) -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = Arc::clone(self);
        let task = self.tasks.spawn(async move {
            let _busy = busy;
            let under_way = inner.copies.begin(id, purpose);
            let (told, give_up) = (under_way.give_up(), under_way.give_up());
            let work = async {
                match blocking(what, move || work(&give_up)).await {
                    Err(_ended_by_us) if told.is_told() => Err(Error::GivenUp { what }),
                    done => done,
                }
            };
            let Some(id) = id.filter(|id| inner.live(*id).is_some()) else {
                return work.await;
            };
            if inner.cgroups.is_frozen(id) {
                return work.await;
            }
            let _held = inner.held.hold(id);
            if let Err(error) = inner.runc.pause(id).await
                && inner.live(id).is_some()
            {
                return Err(error);
            }
            let done = work.await;
            if let Err(error) = inner.runc.resume(id).await
                && inner.live(id).is_some()
            {
                return Err(error);
            }
            done
        });
        task.await.map_err(|error| Error::failed(what, error))?
    }

    /// Removes what interrupted calls have left.
    pub(super) fn remove_unfinished(&self) -> Result<()> {
        let failed = |error| Error::failed("removing what interrupted calls have left", error);
        for id in self.disk.snapshot_ids()? {
            let kept = self.disk.shelf(id);
            if kept.record().is_none() && kept.is_finished() {
                tracing::error!(snapshot = %id, "its record cannot be read, so that it is left alone");
            } else if kept.record().is_none() {
                tracing::info!(snapshot = %id, "removing what an interrupted snapshot left");
                self.disk.discard_snapshot(id, self.token()).map_err(failed)?;
            }
        }
        for id in self.disk.ids()? {
            let home = self.disk.home(id);
            for left in [home.fresh_upper(), home.fresh_upper().with_extension("links")] {
                self.disk.discard_path(&left, id, self.token()).map_err(failed)?;
            }
            if home.record().is_some() {
                home.ensure_work().map_err(failed)?;
            }
        }
        Ok(())
    }
}

/// Two machines must not have one id; systemd makes a new one where there is none.
pub(super) fn forget_identity(upper: &Path) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(upper, flags, Mode::empty())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let Ok(etc) = rustix::fs::openat2(&root, "etc", flags, Mode::empty(), resolve) else {
        return Ok(());
    };
    let name = "machine-id";
    match rustix::fs::statat(etc.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
        // A mark that hides the image's file stays.
        Ok(stat) if FileType::from_raw_mode(stat.st_mode).is_file() => {
            Ok(rustix::fs::unlinkat(etc.as_fd(), name, AtFlags::empty())?)
        }
        Ok(_) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

impl Home {
    /// Where new changes are collected.
    pub(super) fn fresh_upper(&self) -> PathBuf {
        self.dir().join("upper.new")
    }
}
