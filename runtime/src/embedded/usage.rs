//! How much disk a container's changes take.

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use gantry_model::ContainerId;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};

/// A walk through many files is dear, so its result counts for a while.
const KEEP: Duration = Duration::from_secs(30);

/// The most directories in each other that are looked into.
const DEPTH_MAX: u32 = 128;

/// The latest results.
#[derive(Debug, Default)]
pub(super) struct Usage(Mutex<HashMap<ContainerId, (Instant, u64)>>);

impl Usage {
    /// A result that still counts.
    pub(super) fn recent(&self, id: ContainerId) -> Option<u64> {
        let results = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        results.get(&id).filter(|(at, _)| at.elapsed() < KEEP).map(|(_, bytes)| *bytes)
    }

    /// Drops a result that no longer holds.
    pub(super) fn forget(&self, id: ContainerId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// Notes a result.
    pub(super) fn note(&self, id: ContainerId, bytes: u64) {
        let mut results = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        results.retain(|_, (at, _)| at.elapsed() < KEEP);
        results.insert(id, (Instant::now(), bytes));
    }
}

/// What the files below `dir` take on disk, in bytes. Blocks for as long as the walk takes. The
/// container may change them meanwhile, so no link is followed and what vanishes does not count.
pub(super) fn measure(dir: &Path) -> io::Result<u64> {
    Ok(walk(&File::open(dir)?.into(), DEPTH_MAX))
}

fn walk(dir: &OwnedFd, depth: u32) -> u64 {
    let Ok(entries) = Dir::read_from(dir) else { return 0 };
    let mut bytes = 0_u64;
    for entry in entries.flatten() {
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let Ok(stat) = rustix::fs::statat(dir.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        bytes = bytes.saturating_add(u64::try_from(stat.st_blocks).unwrap_or(0) * 512);
        if FileType::from_raw_mode(stat.st_mode).is_dir() && depth > 0 {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            if let Ok(below) = rustix::fs::openat(dir.as_fd(), name, flags, Mode::empty()) {
                bytes = bytes.saturating_add(walk(&below, depth - 1));
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_counted_and_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("below")).unwrap();
        std::fs::write(dir.path().join("below/file"), vec![1; 100_000]).unwrap();
        std::os::unix::fs::symlink("/usr", dir.path().join("link")).unwrap();
        let bytes = measure(dir.path()).unwrap();
        assert!((100_000..1_000_000).contains(&bytes), "{bytes}");
    }
}
