//! Memory that containers of one project share, as `/ramdisk/project`.
//!
//! ```text
//! <dir>/<project>/
//!     files/                     where it is mounted, here and (bound) in the containers
//!     users/<container>          an empty file for each that has it, running or not
//! ```
//!
//! It is made for the first container and goes with the last one; what is in it outlives stops and
//! starts of containers and of Gantry, like their own ramdisks, and no reboot of the host.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use gantry_model::{ContainerId, ProjectId};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid};

use crate::{RamdiskUse, SharedUse, embedded::rootfs};

/// The name of the shared part in a container's `/ramdisk`.
const NAME: &str = "project";
/// Where a container has the shared part.
pub(crate) const INSIDE: &str = "/ramdisk/project";

/// The ramdisks of projects on this host.
#[derive(Debug)]
pub(crate) struct ProjectRamdisks {
    dir: PathBuf,
    bytes_max: u64,
    /// The host's user that is root in the containers, as far as these mounts are concerned.
    root: u32,
    /// Who comes and who goes, one after the other.
    alone: Mutex<()>,
}

impl ProjectRamdisks {
    /// Those that are kept below `dir`.
    pub(crate) fn new(dir: &Path, bytes_max: u64, root: u32) -> Self {
        let dir = dir.join("project-ramdisks");
        Self { dir, bytes_max, root, alone: Mutex::default() }
    }

    /// Lets a container have that of a project (or none), and no other; returns where it is mounted.
    /// `own` is where the container's own ramdisk is mounted. Before it starts.
    pub(crate) fn prepare(
        &self,
        id: ContainerId,
        project: Option<ProjectId>,
        own: &Path,
    ) -> io::Result<Option<PathBuf>> {
        let _alone = self.alone.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(project) = project {
            let home = self.dir.join(project.to_string());
            for dir in [&self.dir, &home, &home.join("users"), &home.join("files")] {
                self.make(dir)?;
            }
            fs::write(home.join("users").join(id.to_string()), "")?;
            rootfs::mount_memory(&home.join("files"), self.bytes_max, self.root)?;
            make_point(own, self.root)?;
        }
        self.leave_all_but(id, project)?;
        Ok(project.map(|project| self.dir.join(project.to_string()).join("files")))
    }

    /// Takes it from a container that is gone.
    pub(crate) fn leave(&self, id: ContainerId) -> io::Result<()> {
        let _alone = self.alone.lock().unwrap_or_else(PoisonError::into_inner);
        self.leave_all_but(id, None)
    }

    fn leave_all_but(&self, id: ContainerId, kept: Option<ProjectId>) -> io::Result<()> {
        let kept = kept.map(|project| project.to_string());
        for home in entries(&self.dir)? {
            if home.file_name().and_then(|name| name.to_str()) == kept.as_deref() {
                continue;
            }
            let users = home.join("users");
            missing(fs::remove_file(users.join(id.to_string())))?;
            if entries(&users)?.is_empty() {
                rootfs::unmount(&home.join("files"))?;
                for dir in [&users, &home.join("files"), &home] {
                    missing(fs::remove_dir(dir))?;
                }
            }
        }
        Ok(())
    }

    /// What is in the ramdisk of a container that is mounted at `own`, the shared part included.
    pub(crate) fn usage(&self, id: ContainerId, own: &Path) -> io::Result<Option<RamdiskUse>> {
        let Some((private_bytes, _)) = used(own)? else { return Ok(None) };
        let id = id.to_string();
        let homes = entries(&self.dir)?;
        let home = homes.into_iter().find(|home| home.join("users").join(&id).exists());
        let shared = home.map(|home| used(&home.join("files"))).transpose()?.flatten();
        let project = shared.map(|(used_bytes, max_bytes)| SharedUse { used_bytes, max_bytes });
        Ok(Some(RamdiskUse { private_bytes, project }))
    }

    /// Makes a directory that only root in the containers may pass through, besides root.
    fn make(&self, dir: &Path) -> io::Result<()> {
        match fs::DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            made => made?,
        }
        chown(dir, Some(0), Some(self.root))?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o710))
    }
}

/// Makes the directory in a container's own ramdisk that the shared part is mounted on. The container may
/// have put anything there; nothing is followed, and what is no directory makes room.
fn make_point(own: &Path, root: u32) -> io::Result<()> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = rustix::fs::openat(CWD, own, flags, Mode::empty())?;
    match rustix::fs::statat(&dir, NAME, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => return Ok(()),
        Ok(_) => rustix::fs::unlinkat(&dir, NAME, AtFlags::empty())?,
        Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    rustix::fs::mkdirat(&dir, NAME, Mode::from_raw_mode(0o755))?;
    let (user, group) = (Uid::from_raw(root), Gid::from_raw(root));
    let nofollow = AtFlags::SYMLINK_NOFOLLOW;
    Ok(rustix::fs::chownat(&dir, NAME, Some(user), Some(group), nofollow)?)
}

/// How many bytes are in what is mounted there, and how many may be.
fn used(point: &Path) -> io::Result<Option<(u64, u64)>> {
    if !missing(rootfs::is_mounted(point))?.unwrap_or(false) {
        return Ok(None);
    }
    let stat = rustix::fs::statvfs(point)?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Ok(Some((bytes(stat.f_blocks.saturating_sub(stat.f_bfree)), bytes(stat.f_blocks))))
}

fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    match missing(fs::read_dir(dir))? {
        None => Ok(Vec::new()),
        Some(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
    }
}

/// What is not there is nothing.
fn missing<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
