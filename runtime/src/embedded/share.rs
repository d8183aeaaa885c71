//! Shares between containers of this runtime.

use std::{io, os::unix::fs::MetadataExt as _, sync::Arc};

use gantry_model::{ContainerId, ShareId};

use super::lifecycle::{Inner, blocking_while};
use crate::{Result, Share, ShareFault, locks::Busy, shares::Runner};

impl Inner {
    /// Makes these the shares of a container that runs.
    pub(super) async fn share(
        self: &Arc<Self>,
        id: ContainerId,
        shares: &[Share],
        busy: &Busy,
    ) -> Result<Vec<(ShareId, ShareFault)>> {
        let (inner, shares) = (Arc::clone(self), shares.to_vec());
        blocking_while("mounting shares", busy, move || {
            let Some(target) = inner.runner(id) else { return Ok(Vec::new()) };
            let wanted: Vec<_> =
                shares.iter().map(|share| (share, inner.runner(share.source))).collect();
            inner.shares.apply(target, &inner.disk.home(id).shares(), &wanted)
        })
        .await
    }

    /// Takes away what a container that has ended saw of others, and what others saw of it: its file system
    /// must not be mounted twice, by them and by its next start.
    pub(super) async fn unshare(self: &Arc<Self>, id: ContainerId, busy: &Busy) -> Result<()> {
        let inner = Arc::clone(self);
        blocking_while("taking shares away", busy, move || {
            inner.shares.clear(&inner.disk.home(id).shares())?;
            let root = match std::fs::metadata(inner.disk.home(id).rootfs()) {
                Ok(root) => root.dev(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            };
            let device = format!("{}:{}", rustix::fs::major(root), rustix::fs::minor(root));
            let ids = inner.disk.ids().map_err(io::Error::other)?;
            let tunnels = ids.into_iter().map(|id| (id, inner.disk.home(id).shares()));
            inner.shares.release(tunnels, |mount| mount.device == device)
        })
        .await
    }

    fn runner(&self, id: ContainerId) -> Option<Runner> {
        self.live(id).map(|run| Runner { id, pid: run.init.pid })
    }
}
