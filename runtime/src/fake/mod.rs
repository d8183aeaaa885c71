//! A runtime in memory with the behaviour of a real one.
//!
//! Its containers are entries in a [`World`] that outlives the [`Fake`], as real containers outlive
//! the program: a second `Fake` over the same world finds them running. Their addresses are loopback
//! addresses, so a test can listen there and be the container. Faults and delays are injected by
//! call, and commands are answered by a script.
//!
//! Of file systems it has what its own commands `tee <path>`, `cat <path>` and `rm <path>` use: a few
//! small files for each container, so that snapshots and copies have something to keep.

mod archives;
mod files;
mod shell;
mod world;

use std::{collections::BTreeMap, net::IpAddr, os::fd::OwnedFd, time::Duration};

use async_trait::async_trait;
use gantry_model::{ContainerId, ShareId, SnapshotId, container::ImageName};
use tokio::{
    sync::{broadcast, oneshot},
    time::timeout,
};

use crate::{
    Archive, Attached, Enforced, Error, Exec, ExecOutput, Firewall, ImageInfo, Kvm, Observed,
    Order, Outbound, PtyControl, PtySize, Result, Running, Runtime, Share, ShareFault,
    SnapshotInfo, Source, State, Stats,
};

pub use world::{Call, World};

/// A runtime whose containers exist in a [`World`] only.
#[derive(Clone, Debug)]
pub struct Fake {
    world: World,
    boot_id: String,
}

impl Fake {
    /// Runs in this world, beside or after others; whatever exists in it is adopted.
    pub fn new(world: World) -> Self {
        let boot_id = world.boot_id();
        Self { world, boot_id }
    }

    /// The world, to look at it and to meddle with it.
    pub fn world(&self) -> &World {
        &self.world
    }
}

impl Default for Fake {
    fn default() -> Self {
        Self::new(World::default())
    }
}

#[async_trait]
impl Runtime for Fake {
    async fn ensure_created(&self, order: &Order) -> Result<()> {
        let _busy = self.world.lock(order.id).await;
        self.world.enter(Call::Create, order.id).await?;
        self.world.create(order)
    }

    async fn ensure_running(&self, order: &Order) -> Result<Running> {
        let _busy = self.world.lock(order.id).await;
        if self.world.observe(order.id).is_none() {
            self.world.enter(Call::Create, order.id).await?;
            self.world.create(order)?;
        }
        self.world.enter(Call::Run, order.id).await?;
        self.world.run(order).map(|address| Running { address: IpAddr::V4(address) })
    }

    async fn ensure_stopped(&self, id: ContainerId, _grace: Duration) -> Result<()> {
        let _busy = self.world.lock(id).await;
        self.world.enter(Call::Stop, id).await?;
        self.world.stop(id);
        Ok(())
    }

    async fn ensure_paused(&self, id: ContainerId) -> Result<()> {
        let _busy = self.world.lock(id).await;
        self.world.enter(Call::Pause, id).await?;
        self.world.freeze(id, State::Paused)
    }

    async fn ensure_resumed(&self, id: ContainerId) -> Result<()> {
        let _busy = self.world.lock(id).await;
        self.world.enter(Call::Resume, id).await?;
        self.world.freeze(id, State::Running)
    }

    async fn ensure_environment(
        &self,
        id: ContainerId,
        env: &BTreeMap<String, String>,
    ) -> Result<()> {
        let _busy = self.world.lock(id).await;
        self.world.enter(Call::Environment, id).await?;
        self.world.set_environment(id, env);
        Ok(())
    }

    async fn ensure_hostname(&self, id: ContainerId, hostname: &str) -> Result<()> {
        let _busy = self.world.lock(id).await;
        self.world.enter(Call::Hostname, id).await?;
        self.world.set_hostname(id, hostname);
        Ok(())
    }

    async fn ensure_firewall(&self, id: ContainerId, firewall: &Firewall) -> Result<()> {
        self.world.enter(Call::Firewall, id).await?;
        self.world.set_firewall(id, firewall);
        Ok(())
    }

    async fn ensure_outbound(&self, id: ContainerId, outbound: &Outbound) -> Result<()> {
        self.world.enter(Call::Outbound, id).await?;
        self.world.set_outbound(id, outbound);
        Ok(())
    }

    async fn outbound(&self, id: ContainerId) -> Result<Option<Enforced>> {
        let order = self.world.order(id);
        Ok(order.map(|order| Enforced { version: order.outbound.version, fault: None }))
    }

    async fn ensure_shares(
        &self,
        id: ContainerId,
        shares: &[Share],
    ) -> Result<Vec<(ShareId, ShareFault)>> {
        let _busy = self.world.lock(id).await;
        self.world.enter(Call::Shares, id).await?;
        Ok(self.world.set_shares(id, shares))
    }

    async fn ensure_deleted(&self, id: ContainerId) -> Result<()> {
        let _busy = self.world.lock(id).await;
        self.world.enter(Call::Delete, id).await?;
        self.world.delete(id);
        Ok(())
    }

    async fn ensure_copied(&self, order: &Order, source: Source) -> Result<()> {
        let _busy = self.world.lock_with(order.id, source).await;
        self.world.enter(Call::Copy, order.id).await?;
        self.world.copy(order, source)
    }

    async fn ensure_refilled(&self, id: ContainerId, source: Source) -> Result<()> {
        let _busy = self.world.lock_with(id, source).await;
        self.world.enter(Call::Refill, id).await?;
        self.world.refill(id, source)
    }

    async fn ensure_snapshot(&self, id: ContainerId, snapshot: SnapshotId) -> Result<SnapshotInfo> {
        let _busy = self.world.lock(id).await;
        self.world.enter(Call::Snapshot, id).await?;
        self.world.snapshot(id, snapshot)
    }

    async fn export(&self, source: Source) -> Result<Archive> {
        self.world.enter_any(Call::Export).await?;
        self.world.export(source)
    }

    async fn ensure_imported(&self, order: &Order, archive: Archive) -> Result<()> {
        let _busy = self.world.lock(order.id).await;
        self.world.enter(Call::Import, order.id).await?;
        if self.world.observe(order.id).is_some() {
            return Ok(());
        }
        self.world.import(order, archives::read("importing the container", archive).await?)
    }

    async fn ensure_refilled_from(&self, id: ContainerId, archive: Archive) -> Result<()> {
        let _busy = self.world.lock(id).await;
        self.world.enter(Call::Import, id).await?;
        if self.world.observe(id).is_none() {
            return Err(Error::NotFound { id });
        }
        let files = archives::read("replacing the container's files", archive).await?;
        self.world.refill_with(id, files)
    }

    async fn ensure_snapshot_imported(
        &self,
        snapshot: SnapshotId,
        archive: Archive,
    ) -> Result<SnapshotInfo> {
        self.world.enter_any(Call::Import).await?;
        if let Some(kept) = self.world.snapshots().into_iter().find(|kept| kept.id == snapshot) {
            return Ok(kept);
        }
        let files = archives::read("importing the snapshot", archive).await?;
        Ok(self.world.import_snapshot(snapshot, files))
    }

    async fn ensure_snapshot_deleted(&self, snapshot: SnapshotId) -> Result<()> {
        self.world.enter_any(Call::DeleteSnapshot).await?;
        self.world.delete_snapshot(snapshot);
        Ok(())
    }

    async fn snapshots(&self) -> Result<Vec<SnapshotInfo>> {
        self.world.enter_any(Call::Snapshots).await?;
        Ok(self.world.snapshots())
    }

    async fn list(&self) -> Result<Vec<Observed>> {
        self.world.enter_any(Call::List).await?;
        Ok(self.world.list())
    }

    async fn observe(&self, id: ContainerId) -> Result<Option<Observed>> {
        self.world.enter(Call::List, id).await?;
        Ok(self.world.observe(id))
    }

    async fn exec(&self, id: ContainerId, command: &Exec) -> Result<ExecOutput> {
        self.world.enter(Call::Exec, id).await?;
        let answer = self.world.answer(id, command)?;
        let mut output = timeout(command.timeout, answer).await.unwrap_or_else(|_elapsed| {
            Err(Error::Timeout {
                what: "the command",
                after_ms: u64::try_from(command.timeout.as_millis()).unwrap_or(u64::MAX),
            })
        })?;
        for stream in [&mut output.stdout, &mut output.stderr] {
            output.truncated |= stream.len() > command.output_max;
            stream.truncate(command.output_max);
        }
        Ok(output)
    }

    async fn attach(&self, id: ContainerId, command: &Exec, size: PtySize) -> Result<Attached> {
        self.world.enter(Call::Attach, id).await?;
        self.world.running(id)?;
        shell::check(command)?;
        self.world.resized(id, size);
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let (ended, exit) = oneshot::channel();
        self.world.tasks().spawn(shell::terminal(theirs, ended));
        Ok(Attached::new(ours, Resize { world: self.world.clone(), id }, exit))
    }

    async fn session(&self, id: ContainerId) -> Result<OwnedFd> {
        self.world.enter(Call::Session, id).await?;
        self.world.session(id)
    }

    async fn stats(&self, id: ContainerId) -> Result<Stats> {
        self.world.enter(Call::Stats, id).await?;
        self.world.stats(id)
    }

    async fn images(&self) -> Result<Vec<ImageInfo>> {
        self.world.enter_any(Call::Images).await?;
        Ok(self.world.images())
    }

    async fn icon(&self, image: &ImageName) -> Result<Option<Vec<u8>>> {
        Ok(self.world.icon(image))
    }

    fn kvm(&self) -> Kvm {
        self.world.kvm()
    }

    fn boot_id(&self) -> &str {
        &self.boot_id
    }

    fn exits(&self) -> broadcast::Receiver<ContainerId> {
        self.world.exits()
    }
}

/// Notes the new size in the world.
struct Resize {
    world: World,
    id: ContainerId,
}

impl PtyControl for Resize {
    fn resize(&self, size: PtySize) -> std::io::Result<()> {
        self.world.resized(self.id, size);
        Ok(())
    }
}
