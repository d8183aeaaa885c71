//! Directories of one container inside another, the same way for every runtime with real containers.
//!
//! Each container that runs has a *tunnel*: a directory of the host, mounted on itself and shared, which
//! is bound to `/hoody/shares` inside as its slave when the container starts. What the host mounts in the
//! tunnel appears inside at once, and what it unmounts is gone. Because that crosses from the host's user
//! namespace into the container's, the kernel locks the flags of each mount: root inside cannot make a
//! read-only share writable. And because the tunnel is the host's, no link inside can lead a mount elsewhere.
//!
//! The shared directory is looked up below the source's root as the source sees it, each time anew, by
//! the kernel itself: links stay below that root, and the way ends where another file system begins, so
//! that neither what the source has mounted nor what it has received itself is passed on. Nothing is
//! remembered but the mounts: what is there is compared with what is wanted by directory and mode.

pub(crate) mod inside;
mod mounts;

use std::{
    fs::{self, DirBuilder},
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::DirBuilderExt as _,
    },
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use gantry_model::{
    ContainerId, ShareId,
    share::{MOUNT_DIR, ShareMode},
};
use rustix::{
    fs::{AtFlags, CWD},
    mount::{
        MountFlags, MountPropagationFlags, MoveMountFlags, mount_bind, mount_change, mount_remount,
        move_mount,
    },
};

use self::{
    inside::{Found, Process},
    mounts::{Mount, Table},
};
use crate::{
    Share, ShareFault,
    embedded::rootfs::{is_mounted, unmount},
};

/// The shares of one runtime.
#[derive(Debug)]
pub(crate) struct Shares {
    /// Where mounts get their flags before anybody sees them.
    staging: PathBuf,
    /// Held by whoever changes a tunnel.
    turn: Mutex<()>,
}

/// A container that runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Runner {
    /// The container.
    pub(crate) id: ContainerId,
    /// The number of its init on the host.
    pub(crate) pid: u32,
}

/// A share whose source was looked for.
type Wanted<'s> = (&'s Share, Option<Runner>);

impl Shares {
    /// Makes the place where mounts are prepared, below `dir`.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        let staging = dir.join("shares-staging");
        DirBuilder::new().recursive(true).mode(0o700).create(&staging)?;
        unmount_below(&staging)?;
        unmount(&staging)?;
        mount_bind(&staging, &staging)?;
        // What is mounted here can be moved away only if nobody is told of it.
        mount_change(&staging, MountPropagationFlags::PRIVATE)?;
        Ok(Self { staging, turn: Mutex::default() })
    }

    /// Takes back what `open` made.
    pub(crate) fn uninstall(&self) -> io::Result<()> {
        let _turn = self.turn();
        unmount_below(&self.staging)?;
        unmount(&self.staging)?;
        fs::remove_dir_all(&self.staging)
    }

    /// Makes an empty tunnel for a container that is about to start.
    pub(crate) fn prepare(&self, tunnel: &Path) -> io::Result<()> {
        let _turn = self.turn();
        DirBuilder::new().recursive(true).mode(0o755).create(tunnel)?;
        empty(tunnel)?;
        if !is_mounted(tunnel)? {
            mount_bind(tunnel, tunnel)?;
            // Of the directory's own group of peers, it would tell the whole host.
            mount_change(tunnel, MountPropagationFlags::PRIVATE)?;
            mount_change(tunnel, MountPropagationFlags::SHARED)?;
        }
        Ok(())
    }

    /// Empties the tunnel of a container that does not run.
    pub(crate) fn clear(&self, tunnel: &Path) -> io::Result<()> {
        let _turn = self.turn();
        empty(tunnel)
    }

    /// Removes the tunnel of a container that is to be deleted.
    pub(crate) fn remove(&self, tunnel: &Path) -> io::Result<()> {
        let _turn = self.turn();
        empty(tunnel)?;
        unmount(tunnel)?;
        match fs::remove_dir(tunnel) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Takes every mount away, from whichever of these tunnels, that `is_meant` picks: those of a source that
    /// ends.
    pub(crate) fn release(
        &self,
        tunnels: impl IntoIterator<Item = (ContainerId, PathBuf)>,
        is_meant: impl Fn(&Mount) -> bool,
    ) -> io::Result<()> {
        let _turn = self.turn();
        let table = Table::read()?;
        for (target, tunnel) in tunnels {
            for mount in table.below(&tunnel)?.filter(|mount| is_meant(mount)) {
                take_away(target, &mount.point)?;
            }
        }
        Ok(())
    }

    /// Makes these the shares of a container that runs, and tells which could not be. A share that is there
    /// as wanted stays untouched.
    pub(crate) fn apply(
        &self,
        target: Runner,
        tunnel: &Path,
        wanted: &[Wanted<'_>],
    ) -> io::Result<Vec<(ShareId, ShareFault)>> {
        let _turn = self.turn();
        if wanted.is_empty() && is_empty(tunnel)? {
            return Ok(Vec::new());
        }
        let mut faults = Vec::new();
        let mut found = Vec::new();
        for (share, source) in wanted {
            match look_up(share, *source) {
                Ok(directory) => found.push((*share, directory)),
                Err(fault) => faults.push((share.id, fault)),
            }
        }
        let table = Table::read()?;
        let mut present: Vec<&Share> = Vec::new();
        for mount in table.below(tunnel)? {
            let kept = found.iter().find(|(share, found)| is_as_wanted(mount, share, found));
            match kept {
                Some((share, _)) if !present.contains(share) => present.push(share),
                Some(_) | None => take_away(target.id, &mount.point)?,
            }
        }
        let missing: Vec<_> = found.iter().filter(|(share, _)| !present.contains(share)).collect();
        if missing.is_empty() {
            return Ok(faults);
        }
        if !reaches(&table, tunnel, target)? {
            faults.extend(missing.iter().map(|(share, _)| (share.id, ShareFault::NoPlace)));
            return Ok(faults);
        }
        for (share, directory) in missing {
            if let Err(error) = self.mount(share, directory, tunnel) {
                // Paths of the host are in it: for the log alone.
                tracing::warn!(share = %share.id, target = %target.id, %error, "a share is not mounted");
                faults.push((share.id, ShareFault::Failed));
            }
        }
        Ok(faults)
    }

    /// Mounts one share: with its flags first, where nobody is, and then in the tunnel.
    fn mount(&self, share: &Share, directory: &Found, tunnel: &Path) -> io::Result<()> {
        let tree = directory.tree()?;
        let staged = self.staging.join(share.id.to_string());
        DirBuilder::new().recursive(true).mode(0o700).create(&staged)?;
        let point = tunnel.join(&share.name);
        let placed = place(&tree, &staged, &point, share.mode);
        if placed.is_err() {
            unmount(&staged)?;
        }
        fs::remove_dir(&staged)?;
        placed
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn place(tree: &OwnedFd, staged: &Path, point: &Path, mode: ShareMode) -> io::Result<()> {
    move_mount(tree.as_fd(), "", CWD, staged, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    let mut flags = MountFlags::BIND | MountFlags::NOSUID | MountFlags::NODEV;
    if mode == ShareMode::ReadOnly {
        flags |= MountFlags::RDONLY;
    }
    mount_remount(staged, flags, "")?;
    // Nothing that is mounted below it later comes along, in either direction.
    mount_change(staged, MountPropagationFlags::PRIVATE)?;
    DirBuilder::new().recursive(true).mode(0o755).create(point)?;
    move_mount(CWD, staged, CWD, point, MoveMountFlags::empty())?;
    Ok(())
}

/// Finds the directory that is shared.
fn look_up(share: &Share, source: Option<Runner>) -> Result<Found, ShareFault> {
    let source = source.ok_or(ShareFault::SourceNotRunning)?;
    let process = Process::open(source.pid, source.id).map_err(|error| {
        tracing::debug!(source = %source.id, %error, "the source of a share has ended");
        ShareFault::SourceNotRunning
    })?;
    process.directory(share.path.as_str())
}

/// Whether a mount in the tunnel is what a share should be.
fn is_as_wanted(mount: &Mount, share: &Share, directory: &Found) -> bool {
    let is_named = mount.point.file_name().is_some_and(|name| name == share.name.as_str());
    let is_same = || {
        let there = rustix::fs::statat(CWD, &mount.point, AtFlags::SYMLINK_NOFOLLOW);
        there.is_ok_and(|there| (there.st_dev, there.st_ino) == directory.identity())
    };
    is_named && mount.read_only == (share.mode == ShareMode::ReadOnly) && is_same()
}

/// Whether what is mounted in the tunnel reaches the container.
fn reaches(table: &Table, tunnel: &Path, target: Runner) -> io::Result<bool> {
    let Some(group) = table.at(tunnel)?.and_then(|mount| mount.shared) else { return Ok(false) };
    let process = match Process::open(target.pid, target.id) {
        Ok(process) => process,
        Err(error) => {
            tracing::debug!(target = %target.id, %error, "the container has ended");
            return Ok(false);
        }
    };
    let inside = process.mounts()?;
    Ok(inside.iter().any(|m| m.point == Path::new(MOUNT_DIR) && m.master == Some(group)))
}

/// Takes one mount out of a tunnel, and out of the container wherever that has put it.
fn take_away(target: ContainerId, point: &Path) -> io::Result<()> {
    let table = Table::read()?;
    let mounts: Vec<&Mount> = table.of(point).collect();
    // What is mounted inside of a share would hold it; and what was bound elsewhere is not the tunnel's.
    inside::detach(target, &mounts)?;
    unmount(point)?;
    inside::detach(target, &mounts)?;
    fs::remove_dir(point)
}

/// Whether nothing is, or is to be, mounted in a tunnel.
pub(crate) fn is_empty(tunnel: &Path) -> io::Result<bool> {
    match fs::read_dir(tunnel) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

/// Unmounts everything in a tunnel whose container does not run.
fn empty(tunnel: &Path) -> io::Result<()> {
    if !tunnel.try_exists()? {
        return Ok(());
    }
    unmount_below(tunnel)
}

fn unmount_below(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let point = entry?.path();
        unmount(&point)?;
        // Never what is in it: that would be somebody's files if it was still mounted.
        fs::remove_dir(&point)?;
    }
    Ok(())
}
