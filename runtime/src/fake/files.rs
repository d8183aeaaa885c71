//! The files of fake containers, and what keeps and copies them.

use std::collections::BTreeMap;

use bytes::Bytes;
use gantry_model::{ContainerId, SnapshotId, container::ImageName};

use super::{shell, world::World};
use crate::{Error, Exec, ExecOutput, Order, Result, SnapshotInfo, Source, State};

/// Contents by path.
pub(super) type Files = BTreeMap<String, Bytes>;

/// A snapshot.
#[derive(Clone)]
pub(super) struct Kept {
    image: ImageName,
    files: Files,
}

impl Kept {
    fn bytes(&self) -> u64 {
        self.files.values().map(|content| content.len() as u64).sum()
    }
}

/// Answers the commands that are about files.
pub(super) fn run(files: &mut Files, command: &Exec) -> Option<ExecOutput> {
    let words: Vec<&str> = command.argv.iter().map(String::as_str).collect();
    let (code, stdout) = match words.as_slice() {
        ["tee", path] => {
            files.insert((*path).to_owned(), command.stdin.clone());
            (0, command.stdin.clone())
        }
        ["cat", path] => files.get(*path).map_or((1, Bytes::new()), |file| (0, file.clone())),
        ["rm", path] => (u8::from(files.remove(*path).is_none()), Bytes::new()),
        _ => return None,
    };
    Some(shell::output(code, stdout))
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
        if kept.image != own.image {
            return Err(Error::failed("replacing the container's files", "another image"));
        }
        self.stop(id);
        if let Some(container) = self.inner().boxes.get_mut(&id) {
            container.files = kept.files;
            if container.state != State::Created {
                container.state = State::Stopped;
            }
        }
        Ok(())
    }

    fn kept(&self, source: Source) -> Result<Kept> {
        let inner = self.inner();
        match source {
            Source::Container(id) => {
                let container = inner.boxes.get(&id).ok_or(Error::NotFound { id })?;
                Ok(Kept { image: container.order.image.clone(), files: container.files.clone() })
            }
            Source::Snapshot(snapshot) => {
                inner.snapshots.get(&snapshot).cloned().ok_or(Error::NoSnapshot { snapshot })
            }
        }
    }
}
