//! Shares between containers of Incus: a device brings the tunnel in, the rest is as everywhere.

use std::{ffi::OsStr, fs, io, path::PathBuf, sync::Arc};

use gantry_model::{ContainerId, ShareId};

use super::{
    client::{Entry, Fault},
    guest::Guest,
    instance,
    lifecycle::{Inner, blocking},
};
use crate::{
    Result, Share, ShareFault,
    shares::{Runner, is_empty},
};

impl Inner {
    /// Makes these the shares of a container that runs.
    pub(super) async fn share(
        self: &Arc<Self>,
        id: ContainerId,
        shares: &[Share],
    ) -> Result<Vec<(ShareId, ShareFault)>> {
        let tunnel = self.tunnel(id);
        // Most containers have none, and Incus need not be asked for them.
        if shares.is_empty() && blocking("looking at shares", move || is_empty(&tunnel)).await? {
            return Ok(Vec::new());
        }
        let Some(target) = self.runner(id).await? else { return Ok(Vec::new()) };
        let mut wanted = Vec::with_capacity(shares.len());
        for share in shares {
            wanted.push((share.clone(), self.runner(share.source).await?));
        }
        let inner = Arc::clone(self);
        blocking("mounting shares", move || {
            let wanted: Vec<_> = wanted.iter().map(|(share, source)| (share, *source)).collect();
            inner.shares.apply(target, &inner.tunnel(id), &wanted)
        })
        .await
    }

    /// Makes an empty tunnel for a container that is about to start; nothing if it has put something else
    /// where that would be.
    pub(super) async fn prepare_tunnel(
        self: &Arc<Self>,
        id: ContainerId,
        guest: &Guest<'_>,
    ) -> Result<Option<PathBuf>> {
        for dir in ["/hoody", "/hoody/shares"] {
            let entry = match guest.client.read_file(guest.name, dir).await {
                Err(Fault::Refused { .. }) => None,
                other => other.map_err(|fault| fault.during("preparing the container"))?,
            };
            if matches!(entry, Some(Entry::File(_) | Entry::Link(_))) {
                tracing::warn!(container = %id, dir, "it has no place for shares");
                return Ok(None);
            }
        }
        self.unshare(id).await?;
        let inner = Arc::clone(self);
        blocking("preparing the container", move || {
            let tunnel = inner.tunnel(id);
            inner.shares.prepare(&tunnel)?;
            Ok(Some(tunnel))
        })
        .await
    }

    /// Takes away what a container that has ended saw of others, and what others saw of it.
    pub(super) async fn unshare(self: &Arc<Self>, id: ContainerId) -> Result<()> {
        let inner = Arc::clone(self);
        blocking("taking shares away", move || {
            inner.shares.clear(&inner.tunnel(id))?;
            // The directory of its files, wherever their storage is mounted.
            let files = format!("{}_{}", inner.config.project, instance::name(id));
            let is_its = |part: &OsStr| part == OsStr::new(&files);
            let tunnels = inner.tunnels()?;
            inner.shares.release(tunnels, |mount| mount.root.iter().any(is_its))
        })
        .await
    }

    /// Removes the tunnel of a container that is to be deleted.
    pub(super) async fn remove_tunnel(self: &Arc<Self>, id: ContainerId) -> Result<()> {
        self.unshare(id).await?;
        let inner = Arc::clone(self);
        blocking("removing shares", move || inner.shares.remove(&inner.tunnel(id))).await
    }

    fn tunnel(&self, id: ContainerId) -> PathBuf {
        self.config.dir.join("shares").join(id.to_string())
    }

    fn tunnels(&self) -> io::Result<Vec<(ContainerId, PathBuf)>> {
        let entries = match fs::read_dir(self.config.dir.join("shares")) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut tunnels = Vec::new();
        for entry in entries {
            let entry = entry?;
            let id = entry.file_name().to_str().and_then(|name| name.parse().ok());
            tunnels.extend(id.map(|id| (id, entry.path())));
        }
        Ok(tunnels)
    }

    /// A container that runs, or is frozen.
    async fn runner(&self, id: ContainerId) -> Result<Option<Runner>> {
        Ok(self.pid(id).await?.map(|pid| Runner { id, pid }))
    }
}
