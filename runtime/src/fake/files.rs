//! The files of fake containers, and what keeps and copies them.

use std::collections::BTreeMap;

use bytes::Bytes;
use gantry_model::{
    ContainerId, ShareId, SnapshotId,
    container::ImageName,
    share::{MOUNT_DIR, ShareMode},
};

use super::{
    archives, shell,
    world::{Inner, World},
};
use crate::{
    Archive, Error, Exec, ExecOutput, Order, Result, Share, ShareFault, SnapshotInfo, Source,
    State, project_ramdisks::INSIDE,
};

/// Contents by path.
pub(super) type Files = BTreeMap<String, Bytes>;

/// A snapshot.
#[derive(Clone)]
pub(super) struct Kept {
    /// The image; none for what came in an archive, which is whole.
    image: Option<ImageName>,
    files: Files,
}

impl Kept {
    fn bytes(&self) -> u64 {
        self.files.values().map(|content| content.len() as u64).sum()
    }
}

/// Answers the commands that are about files.
pub(super) fn run(inner: &mut Inner, id: ContainerId, command: &Exec) -> Option<ExecOutput> {
    let words: Vec<&str> = command.argv.iter().map(String::as_str).collect();
    let ["tee" | "cat" | "rm", path] = words.as_slice() else { return None };
    let (whose, path, mode) = place(inner, id, path);
    let project = inner.boxes.get(&whose)?.order.project_ramdisk;
    let files = match project.filter(|_| path.starts_with(INSIDE)) {
        Some(project) => inner.project_files.entry(project).or_default(),
        None if path.starts_with(INSIDE) => return Some(shell::output(1, Bytes::new())),
        None => &mut inner.boxes.get_mut(&whose)?.files,
    };
    let (code, stdout) = match words.first().copied() {
        Some("cat") => files.get(&path).map_or((1, Bytes::new()), |file| (0, file.clone())),
        Some(_) if mode == ShareMode::ReadOnly => (1, Bytes::new()),
        Some("rm") => (u8::from(files.remove(&path).is_none()), Bytes::new()),
        _ => {
            files.insert(path, command.stdin.clone());
            (0, command.stdin.clone())
        }
    };
    Some(shell::output(code, stdout))
}

/// Whose file a path names in a container, and what may be done with it.
fn place(inner: &Inner, id: ContainerId, path: &str) -> (ContainerId, String, ShareMode) {
    let shares = inner.boxes.get(&id).map(|container| container.shares.as_slice());
    let found = shares.unwrap_or_default().iter().find_map(|share| {
        let rest = path.strip_prefix(&format!("{MOUNT_DIR}/{}/", share.name))?;
        let dir = share.path.as_str().trim_end_matches('/');
        Some((share.source, format!("{dir}/{rest}"), share.mode))
    });
    found.unwrap_or_else(|| (id, path.to_owned(), ShareMode::ReadWrite))
}

impl World {
    /// The content of a file in a container.
    pub fn file(&self, id: ContainerId, path: &str) -> Option<Bytes> {
        self.inner().boxes.get(&id)?.files.get(path).cloned()
    }

    /// Writes a file in a container that exists.
    pub fn write(&self, id: ContainerId, path: &str, content: impl Into<Bytes>) {
        if let Some(container) = self.inner().boxes.get_mut(&id) {
            container.files.insert(path.to_owned(), content.into());
        }
    }

    /// What a container sees of others.
    pub fn shares(&self, id: ContainerId) -> Vec<Share> {
        self.inner().boxes.get(&id).map(|container| container.shares.clone()).unwrap_or_default()
    }

    pub(super) fn set_shares(
        &self,
        id: ContainerId,
        shares: &[Share],
    ) -> Vec<(ShareId, ShareFault)> {
        let mut inner = self.inner();
        let runs = |inner: &Inner, id: ContainerId| {
            let state = inner.boxes.get(&id).map(|container| container.state);
            matches!(state, Some(State::Running | State::Paused))
        };
        if !runs(&inner, id) {
            return Vec::new();
        }
        let (there, missing): (Vec<Share>, Vec<Share>) =
            shares.iter().cloned().partition(|share| runs(&inner, share.source));
        if let Some(container) = inner.boxes.get_mut(&id) {
            container.shares = there;
        }
        missing.into_iter().map(|share| (share.id, ShareFault::SourceNotRunning)).collect()
    }

    pub(super) fn snapshot(&self, id: ContainerId, snapshot: SnapshotId) -> Result<SnapshotInfo> {
        let known = self.inner().snapshots.get(&snapshot).cloned();
        let kept = match known {
            Some(kept) => kept,
            None => self.kept(Source::Container(id))?,
        };
        let bytes = kept.bytes();
        self.inner().snapshots.insert(snapshot, kept);
        Ok(SnapshotInfo { id: snapshot, bytes })
    }

    pub(super) fn delete_snapshot(&self, snapshot: SnapshotId) {
        self.inner().snapshots.remove(&snapshot);
    }

    pub(super) fn snapshots(&self) -> Vec<SnapshotInfo> {
        let inner = self.inner();
        inner
            .snapshots
            .iter()
            .map(|(id, kept)| SnapshotInfo { id: *id, bytes: kept.bytes() })
            .collect()
    }

    pub(super) fn copy(&self, order: &Order, source: Source) -> Result<()> {
        if self.observe(order.id).is_some() {
            return Ok(());
        }
        let kept = self.kept(source)?;
        self.inner().create(order, kept.files)
    }

    pub(super) fn refill(&self, id: ContainerId, source: Source) -> Result<()> {
        if source == Source::Container(id) {
            return Ok(());
        }
        let own = self.kept(Source::Container(id))?;
        let kept = self.kept(source)?;
        if let (Some(image), Some(own)) = (kept.image, own.image)
            && image != own
        {
            return Err(Error::failed("replacing the container's files", "another image"));
        }
        self.fill(id, kept.files);
        Ok(())
    }

    fn fill(&self, id: ContainerId, files: Files) {
        self.stop(id);
        if let Some(container) = self.inner().boxes.get_mut(&id) {
            container.files = files;
            if container.state != State::Created {
                container.state = State::Stopped;
            }
        }
    }

    pub(super) fn export(&self, source: Source) -> Result<Archive> {
        Ok(archives::write(&self.kept(source)?.files))
    }

    pub(super) fn import(&self, order: &Order, files: Files) -> Result<()> {
        self.inner().create(order, files)
    }

    pub(super) fn refill_with(&self, id: ContainerId, files: Files) -> Result<()> {
        self.kept(Source::Container(id))?;
        self.fill(id, files);
        Ok(())
    }

    pub(super) fn import_snapshot(&self, snapshot: SnapshotId, files: Files) -> SnapshotInfo {
        let kept = Kept { image: None, files };
        let bytes = kept.bytes();
        self.inner().snapshots.insert(snapshot, kept);
        SnapshotInfo { id: snapshot, bytes }
    }

    fn kept(&self, source: Source) -> Result<Kept> {
        let inner = self.inner();
        match source {
            Source::Container(id) => {
                let container = inner.boxes.get(&id).ok_or(Error::NotFound { id })?;
                Ok(Kept {
                    image: Some(container.order.image.clone()),
                    files: container.files.clone(),
                })
            }
            Source::Snapshot(snapshot) => {
                inner.snapshots.get(&snapshot).cloned().ok_or(Error::NoSnapshot { snapshot })
            }
        }
    }
}
