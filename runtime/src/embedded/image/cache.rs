//! The cache of unpacked images on disk.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock, statvfs};
use serde::{Deserialize, Serialize};

use super::{Mapping, Rootfs};
use crate::{Error, Result};

/// The form of the cache; another one makes other keys, so that old builds are not mistaken.
pub(super) const FORMAT: u32 = 1;

/// A handle of the cache.
#[derive(Clone, Debug)]
pub(super) struct Cache {
    dir: PathBuf,
}

/// The exclusive right to build one key, across processes. The kernel takes it back when the
/// process ends.
#[derive(Debug)]
pub(super) struct KeyLock {
    _file: File,
}

/// A directory for a build under way. Removed when dropped, unless it was published.
#[derive(Debug)]
pub(super) struct Work {
    path: PathBuf,
}

/// What is known of a finished build; its presence says that the build is whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Marker {
    /// The key that it was built for.
    pub(super) key: String,
    /// The name of the image, for people.
    pub(super) image: String,
    /// Files, directories and links in it.
    pub(super) entries: u64,
    /// What it takes on disk, in bytes.
    pub(super) disk_bytes: u64,
    /// The host's id of its root.
    pub(super) owner: u32,
    /// SHA-256 of the tar stream that it was unpacked from.
    pub(super) digest: String,
}

impl Cache {
    /// Makes the directories and removes what dead builds left.
    pub(super) async fn open(dir: PathBuf) -> Result<Self> {
        let cache = Self { dir };
        let opened = cache.clone();
        blocking("opening the image cache", move || opened.prepare()).await?;
        Ok(cache)
    }

    fn prepare(&self) -> io::Result<()> {
        for name in ["builds", "current", "work", "locks", "logs"] {
            DirBuilder::new().recursive(true).mode(0o755).create(self.dir.join(name))?;
        }
        for entry in fs::read_dir(self.dir.join("work"))? {
            let name = entry?.file_name();
            let Some(key) = name.to_str() else { continue };
            // Whoever holds the lock is at work on it.
            if let Some(lock) = self.try_lock(key)? {
                remove_tree(&self.dir.join("work").join(&name))?;
                drop(lock);
            }
        }
        Ok(())
    }

    /// The directory.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the output of the build of this image goes.
    pub(super) fn log_path(&self, image: &str) -> PathBuf {
        self.dir.join("logs").join(format!("{}.log", image.replace('/', "-")))
    }

    /// The build that new containers of this key start from.
    pub(super) async fn current(&self, key: &str) -> Result<Option<Rootfs>> {
        let (cache, key) = (self.clone(), key.to_owned());
        blocking("reading the image cache", move || {
            Ok(cache.find(&key)?.map(|(path, marker)| Rootfs { path, key, digest: marker.digest }))
        })
        .await
    }

    /// What the build of this key takes on disk, if there is one.
    pub(super) async fn disk_bytes(&self, key: &str) -> Result<Option<u64>> {
        let (cache, key) = (self.clone(), key.to_owned());
        blocking("reading the image cache", move || {
            Ok(cache.find(&key)?.map(|(_, marker)| marker.disk_bytes))
        })
        .await
    }

    /// The current build of a key, if it is whole: the marker was written last, and says whose.
    fn find(&self, key: &str) -> io::Result<Option<(PathBuf, Marker)>> {
        let Some(name) = present(fs::read_to_string(self.dir.join("current").join(key)))? else {
            return Ok(None);
        };
        let build = self.dir.join("builds").join(name.trim_end());
        let Some(text) = present(fs::read(build.join("image.json")))? else { return Ok(None) };
        let Ok(marker) = serde_json::from_slice::<Marker>(&text) else { return Ok(None) };
        let rootfs = build.join("rootfs");
        let Some(root) = present(fs::symlink_metadata(&rootfs))? else { return Ok(None) };
        let whole = root.is_dir() && root.uid() == marker.owner && marker.key == key;
        Ok(whole.then_some((rootfs, marker)))
    }

    /// Waits for the right to build `key`.
    pub(super) async fn lock(&self, key: &str) -> io::Result<KeyLock> {
        let path = self.lock_path(key);
        let locked = tokio::task::spawn_blocking(move || {
            let file = File::create(path)?;
            flock(&file, FlockOperation::LockExclusive)?;
            Ok(KeyLock { _file: file })
        });
        locked.await.unwrap_or_else(|join| Err(io::Error::other(join)))
    }

    fn try_lock(&self, key: &str) -> io::Result<Option<KeyLock>> {
        let file = File::create(self.lock_path(key))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(KeyLock { _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn lock_path(&self, key: &str) -> PathBuf {
        self.dir.join("locks").join(key)
    }

    /// An empty directory to build `key` in; what an earlier build left there is removed.
    pub(super) fn begin(&self, key: &str, _lock: &KeyLock) -> io::Result<Work> {
        let path = self.dir.join("work").join(key);
        remove_tree(&path)?;
        DirBuilder::new().mode(0o755).create(&path)?;
        Ok(Work { path })
    }

    /// How much the disk can still take, in bytes.
    pub(super) fn free_bytes(&self) -> io::Result<u64> {
        let stat = statvfs(&self.dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Makes a finished build (`rootfs` in `work`) the current one of its key, after all of it is on
    /// the disk. Either all of it happens or nothing.
    pub(super) fn publish(
        &self,
        work: &Work,
        marker: &Marker,
        _lock: &KeyLock,
    ) -> io::Result<Rootfs> {
        let mut file = File::create(work.path.join("image.json"))?;
        file.write_all(&serde_json::to_vec_pretty(marker)?)?;
        file.sync_all()?;
        rustix::fs::syncfs(&file)?;
        let name = self.free_name(&marker.key)?;
        let build = self.dir.join("builds").join(&name);
        fs::rename(&work.path, &build)?;
        File::open(self.dir.join("builds"))?.sync_all()?;
        // The name first beside, then over the old one: a reader sees one or the other.
        let beside = self.dir.join("current").join(format!("{}.new", marker.key));
        let mut current = File::create(&beside)?;
        current.write_all(name.as_bytes())?;
        current.sync_all()?;
        fs::rename(&beside, self.dir.join("current").join(&marker.key))?;
        File::open(self.dir.join("current"))?.sync_all()?;
        Ok(Rootfs {
            path: build.join("rootfs"),
            key: marker.key.clone(),
            digest: marker.digest.clone(),
        })
    }

    fn free_name(&self, key: &str) -> io::Result<String> {
        for number in 1..=u32::MAX {
            let name = format!("{key}-{number}");
            if present(fs::symlink_metadata(self.dir.join("builds").join(&name)))?.is_none() {
                return Ok(name);
            }
        }
        Err(ErrorKind::AlreadyExists.into())
    }

    /// Removes builds that are neither current for one of the `offered` keys nor used.
    pub(super) async fn prune(&self, offered: BTreeSet<String>, used: &[PathBuf]) -> Result<usize> {
        let (cache, used) = (self.clone(), used.to_vec());
        blocking("removing old images", move || cache.prune_now(&offered, &used)).await
    }

    fn prune_now(&self, offered: &BTreeSet<String>, used: &[PathBuf]) -> io::Result<usize> {
        let mut removed = 0;
        for entry in fs::read_dir(self.dir.join("builds"))? {
            let build = entry?.path();
            let name = build.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Some((key, _)) = name.rsplit_once('-') else { continue };
            let Some(_lock) = self.try_lock(key)? else { continue };
            let current = self.dir.join("current").join(key);
            let is_current = present(fs::read_to_string(&current))?.as_deref() == Some(name);
            if (is_current && offered.contains(key)) || used.contains(&build.join("rootfs")) {
                continue;
            }
            if is_current {
                fs::remove_file(current)?;
            }
            remove_tree(&build)?;
            removed += 1;
        }
        Ok(removed)
    }
}

impl Work {
    /// The directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // After `publish` there is nothing here any more.
        if let Err(error) = remove_tree(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a failed build left files behind");
        }
    }
}

impl Marker {
    /// The marker of a build for this key.
    pub(super) fn new(
        (key, image): (String, String),
        unpacked: &super::unpack::Unpacked,
        mapping: Mapping,
    ) -> Self {
        Self {
            key,
            image,
            entries: unpacked.entries,
            disk_bytes: unpacked.disk_bytes,
            owner: mapping.base,
            digest: unpacked.digest.clone(),
        }
    }
}

/// `None` when there is no such file.
fn present<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a directory with all in it; fine when there is none.
fn remove_tree(path: &Path) -> io::Result<()> {
    present(fs::remove_dir_all(path)).map(drop)
}

/// Runs file system work on a thread that may block.
pub(super) async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Error::failed(what, error)),
        Err(join) => Err(Error::failed(what, join)),
    }
}
