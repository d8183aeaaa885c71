//! Containers without a daemon: OCI bundles run by `runc`.
//!
//! Each container is an unpacked image with an overlay of its own, in its own namespaces (users
//! included), on the container network. Containers are nobody's children: they outlive this process
//! and are found again by the next one, from the records on disk. What `runc` does and what is done
//! here: it makes namespaces, control groups, mounts and the init; here are file systems, network,
//! delegation, records, signals and counters.

mod bundle;
mod cgroup;
mod config;
pub(crate) mod copies;
pub(crate) mod copy;
mod disk;
mod exec;
pub(crate) mod guest;
pub mod image;
mod lifecycle;
pub(crate) mod preflight;
mod process;
pub(crate) mod readiness;
mod recipe;
pub(crate) mod rootfs;
mod runc;
mod seccomp;
mod session;
mod share;
mod snapshots;
mod stats;
mod strays;
mod terminal;
mod transfer;
mod usage;

use std::{
    collections::BTreeMap,
    os::fd::OwnedFd,
    path::Path,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use async_trait::async_trait;
use gantry_model::{ContainerId, ShareId, SnapshotId, container::ImageName};
use tokio::sync::{RwLock, broadcast};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use crate::network::NetworkConfig;
pub use config::Config;
pub use recipe::{File, Progress, Recipe};

use self::{
    cgroup::Cgroups,
    copies::Copies,
    disk::Disk,
    exec::Streams,
    image::Images,
    lifecycle::{Inner, blocking},
    runc::Runc,
    transfer::Exports,
    usage::Usage,
};
use crate::{
    Archive, Attached, Bequest, Enforced, Error, Exec, ExecOutput, Firewall, ImageInfo, Kvm,
    Observed, Order, Outbound, PtySize, Result, Running, Runtime, Share, ShareFault, SnapshotInfo,
    Source, Stats,
    locks::{Busy, Held, Locks},
    network::Network,
    project_ramdisks::ProjectRamdisks,
    sessions::{self, Program},
    shares::Shares,
};

/// How many ends of inits a slow listener may be behind before it loses some.
const EXITS_MAX: usize = 1024;

/// The runtime that drives `runc`. One per directory at a time; lives in the tokio runtime that it
/// was opened in. Dropping it leaves the containers running.
#[derive(Debug)]
pub struct Embedded {
    inner: Arc<Inner>,
}

impl Embedded {
    /// Checks the host, sets up the network, and adopts what an earlier one has left.
    ///
    /// Everything that the host lacks is told in one [`Error::Denied`].
    pub async fn open(config: Config) -> Result<Self> {
        Self::open_after(config, None).await
    }

    /// The same in a process that follows another one, which lives, has stopped to change containers, and
    /// may still run commands in them.
    pub async fn succeed(config: Config, bequest: Bequest) -> Result<Self> {
        Self::open_after(config, Some(bequest)).await
    }

    async fn open_after(config: Config, bequest: Option<Bequest>) -> Result<Self> {
        let programs = preflight::check(&config)?;
        let follows = bequest.is_some();
        let Bequest { lock, relay } = bequest.unwrap_or_default();
        let disk = Disk::open(&config.dir, programs.rm, lock).await?;
        if !follows {
            strays::end(&disk.runc_dir()).await;
        }
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map_err(|error| Error::failed("reading the host's boot id", error))?;
        let tasks = TaskTracker::new();
        let network = Network::open(&config.network, programs.nft, &tasks, relay).await?;
        let inner = Inner {
            runc: Runc::new(programs.runc, disk.runc_dir()),
            cgroups: Cgroups::open(&config.cgroup)?,
            images: Images::open(config.images()).await?,
            locks: Locks::default(),
            snapshot_locks: Locks::default(),
            boot_id: boot_id.trim().to_owned(),
            exits: broadcast::channel(EXITS_MAX).0,
            shutdown: CancellationToken::new(),
            usage: Usage::default(),
            images_in_use: RwLock::new(()),
            tokens: AtomicU64::new(0),
            held: Held::default(),
            copies: Copies::default(),
            exports: Exports::default(),
            shares: Shares::open(&config.dir)
                .map_err(|error| Error::failed("setting up shares", error))?,
            program: install(&config.dir).await?,
            project_ramdisks: ProjectRamdisks::new(
                &config.dir,
                config.project_ramdisk_bytes,
                config.mapping.base,
            ),
            config,
            disk,
            network,
            tasks,
        };
        let runtime = Self { inner: Arc::new(inner) };
        runtime.adopt(follows).await?;
        Ok(runtime)
    }

    /// Finds the containers of an earlier runtime, which may still run commands in them if this one
    /// `follows` it.
    async fn adopt(&self, follows: bool) -> Result<()> {
        let inner = &self.inner;
        let mut addresses = Vec::new();
        for id in inner.disk.ids()? {
            let home = inner.disk.home(id);
            let Some(record) = home.record() else {
                if home.is_finished() {
                    tracing::error!(%id, "its record cannot be read, so that it is left alone");
                    continue;
                }
                tracing::info!(%id, "removing what an interrupted creation left");
                let busy = inner.locks.lock(id).await;
                inner.delete(id, &busy).await?;
                continue;
            };
            if !follows {
                home.remove_pid_files();
            }
            if let Err(error) = home.close_to_others(inner.config.mapping.base) {
                tracing::warn!(%id, %error, "other users of the host may pass into its files");
            }
            let (program, place) = (&inner.program, home.session());
            let furnished = if follows { program.add(&place) } else { program.furnish(&place) };
            if let Err(error) = furnished {
                tracing::warn!(%id, %error, "it has no sessions until its next start");
            }
            inner.network.adopt(id, record.address);
            addresses.push(record.address);
            if let Some(run) = inner.live(id) {
                inner.watch(id, run.init);
            }
        }
        inner.remove_unfinished()?;
        if let Some(last) = inner.disk.last_address() {
            inner.network.resume_after(last);
        }
        inner.network.guard(&addresses).await
    }

    /// The images, for their progress.
    pub fn image_store(&self) -> &Images {
        &self.inner.images
    }

    /// Locks a container and what it is filled from, each for as long as one of the locks is held.
    async fn lock_with(&self, id: ContainerId, source: Source) -> Vec<Busy> {
        match source {
            Source::Container(other) if other == id => vec![self.inner.locks.lock(id).await],
            Source::Container(other) => self.inner.locks.lock_both(id, other).await.into(),
            Source::Snapshot(snapshot) => vec![
                self.inner.locks.lock(id).await,
                self.inner.snapshot_locks.lock(snapshot).await,
            ],
        }
    }

    /// Locks a container for what its owner waits for: what others copy of it is made again later.
    async fn lock_before_others(&self, id: ContainerId) -> Busy {
        let lock = self.inner.locks.lock(id);
        self.inner.copies.out_of_the_way(lock, |copies| copies.give_up_for_others(id)).await
    }

    /// Removes unpacked images that neither a container, a snapshot, an archive nor the next creation needs; returns how
    /// many. Creations wait meanwhile.
    pub async fn prune_images(&self) -> Result<usize> {
        let inner = &self.inner;
        let _no_creation = inner.images_in_use.write().await;
        let ids = inner.disk.ids()?;
        let unread = |id: &ContainerId| {
            let home = inner.disk.home(*id);
            home.is_finished() && home.record().is_none()
        };
        if let Some(id) = ids.iter().find(|id| unread(id)) {
            // Nobody knows which image it needs.
            let what = format!("the record of container {id} cannot be read");
            return Err(Error::failed("removing images", what));
        }
        let containers = ids.into_iter().filter_map(|id| inner.disk.home(id).record());
        let snapshots = inner.disk.snapshot_ids()?.into_iter();
        let snapshots = snapshots.filter_map(|id| inner.disk.shelf(id).record());
        let used: Vec<_> = containers
            .map(|record| record.lower)
            .chain(snapshots.map(|record| record.lower))
            .chain(inner.exports.lowers())
            .collect();
        inner.images.prune(&used).await
    }

    /// Deletes every container and every snapshot, and takes the network and the control groups back from the host.
    /// Images and the (then empty) directory stay.
    pub async fn uninstall(self) -> Result<()> {
        for id in self.inner.disk.ids()? {
            self.ensure_deleted(id).await?;
        }
        for snapshot in self.inner.disk.snapshot_ids()? {
            self.ensure_snapshot_deleted(snapshot).await?;
        }
        let cgroups = self.inner.cgroups.clone();
        blocking("removing the control groups", move || {
            cgroups.remove_parent();
            Ok(())
        })
        .await?;
        let unmounted = self.inner.shares.uninstall();
        unmounted.map_err(|error| Error::failed("taking shares back", error))?;
        let removed = self.inner.program.uninstall();
        removed.map_err(|error| Error::failed("removing the program for sessions", error))?;
        self.inner.network.uninstall().await
    }
}

/// Writes the program for sessions, unless it is there.
async fn install(dir: &Path) -> Result<Program> {
    let dir = dir.to_owned();
    blocking("installing the program for sessions", move || Program::install(&dir)).await
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.inner.shutdown.cancel();
    }
}

#[async_trait]
impl Runtime for Embedded {
    fn bequest(&self) -> Result<Bequest> {
        let failed = |error: std::io::Error| Error::failed("sharing what the runtime holds", error);
        let lock = Some(self.inner.disk.share_lock().map_err(failed)?);
        Ok(Bequest { lock, relay: self.inner.network.sockets().map_err(failed)? })
    }

    fn is_copying(&self) -> bool {
        !self.inner.copies.is_empty()
    }

    fn retire(&self) {
        self.inner.network.retire();
        self.inner.disk.leave_lock();
    }

    async fn ensure_created(&self, order: &Order) -> Result<()> {
        let busy = self.inner.locks.lock(order.id).await;
        self.inner.create(order, &busy).await.map(drop)
    }

    async fn ensure_running(&self, order: &Order) -> Result<Running> {
        let busy = self.lock_before_others(order.id).await;
        self.inner.run(order, &busy).await
    }

    async fn ensure_stopped(&self, id: ContainerId, grace: Duration) -> Result<()> {
        if grace.is_zero() {
            // One who waits with grace holds the lock; this ends his waiting.
            self.inner.kill(id);
        }
        // The lock is free only when nobody copies it any more. A copy can be made again.
        let lock = self.inner.locks.lock(id);
        let busy = self.inner.copies.out_of_the_way(lock, |copies| copies.give_up(id)).await;
        self.inner.stop(id, grace, &busy).await
    }

    async fn ensure_paused(&self, id: ContainerId) -> Result<()> {
        let _busy = self.lock_before_others(id).await;
        self.inner.alive(id)?;
        if self.inner.cgroups.is_frozen(id) { Ok(()) } else { self.inner.runc.pause(id).await }
    }

    async fn ensure_resumed(&self, id: ContainerId) -> Result<()> {
        let _busy = self.lock_before_others(id).await;
        self.inner.alive(id)?;
        if self.inner.cgroups.is_frozen(id) { self.inner.runc.resume(id).await } else { Ok(()) }
    }

    async fn ensure_environment(
        &self,
        id: ContainerId,
        env: &BTreeMap<String, String>,
    ) -> Result<()> {
        let busy = self.inner.locks.lock(id).await;
        self.inner.set_environment(id, env, &busy).await
    }

    async fn ensure_hostname(&self, id: ContainerId, hostname: &str) -> Result<()> {
        let busy = self.inner.locks.lock(id).await;
        self.inner.set_hostname(id, hostname, &busy).await
    }

    async fn ensure_firewall(&self, id: ContainerId, firewall: &Firewall) -> Result<()> {
        self.inner.network.rule(id, firewall).await.map(drop)
    }

    async fn ensure_outbound(&self, id: ContainerId, outbound: &Outbound) -> Result<()> {
        self.inner.network.lead(id, outbound).await.map(drop)
    }

    async fn outbound(&self, id: ContainerId) -> Result<Option<Enforced>> {
        Ok(self.inner.network.led(id))
    }

    async fn ensure_shares(
        &self,
        id: ContainerId,
        shares: &[Share],
    ) -> Result<Vec<(ShareId, ShareFault)>> {
        let busy = self.inner.locks.lock(id).await;
        self.inner.share(id, shares, &busy).await
    }

    async fn ensure_deleted(&self, id: ContainerId) -> Result<()> {
        self.inner.kill(id);
        // One of its own files may still be made; that is over now, unlike a copy that others make of it.
        let lock = self.inner.locks.lock(id);
        let busy = self.inner.copies.out_of_the_way(lock, |copies| copies.give_up_into(id)).await;
        self.inner.delete(id, &busy).await
    }

    async fn ensure_copied(&self, order: &Order, source: Source) -> Result<()> {
        let busy = self.lock_with(order.id, source).await;
        self.inner.copy(order, source, busy).await
    }

    async fn ensure_refilled(&self, id: ContainerId, source: Source) -> Result<()> {
        if source == Source::Container(id) {
            return Ok(());
        }
        let busy = self.lock_with(id, source).await;
        self.inner.refill(id, source, busy).await
    }

    async fn ensure_snapshot(&self, id: ContainerId, snapshot: SnapshotId) -> Result<SnapshotInfo> {
        let busy = self.lock_with(id, Source::Snapshot(snapshot)).await;
        self.inner.snapshot(id, snapshot, busy).await
    }

    async fn export(&self, source: Source) -> Result<Archive> {
        let busy = match source {
            Source::Container(id) => self.inner.locks.lock(id).await,
            Source::Snapshot(snapshot) => self.inner.snapshot_locks.lock(snapshot).await,
        };
        self.inner.export(source, busy).await
    }

    async fn ensure_imported(&self, order: &Order, archive: Archive) -> Result<()> {
        let busy = self.inner.locks.lock(order.id).await;
        self.inner.import(order, archive, busy).await
    }

    async fn ensure_refilled_from(&self, id: ContainerId, archive: Archive) -> Result<()> {
        let busy = self.inner.locks.lock(id).await;
        self.inner.refill_from(id, archive, busy).await
    }

    async fn ensure_snapshot_imported(
        &self,
        snapshot: SnapshotId,
        archive: Archive,
    ) -> Result<SnapshotInfo> {
        let busy = self.inner.snapshot_locks.lock(snapshot).await;
        self.inner.import_snapshot(snapshot, archive, busy).await
    }

    async fn ensure_snapshot_deleted(&self, snapshot: SnapshotId) -> Result<()> {
        let busy = self.inner.snapshot_locks.lock(snapshot).await;
        let inner = Arc::clone(&self.inner);
        blocking("deleting the snapshot", move || {
            let _busy = busy;
            inner.disk.discard_snapshot(snapshot, inner.token())
        })
        .await
    }

    async fn snapshots(&self) -> Result<Vec<SnapshotInfo>> {
        let inner = Arc::clone(&self.inner);
        blocking("listing the snapshots", move || inner.snapshots().map_err(std::io::Error::other))
            .await
    }

    async fn list(&self) -> Result<Vec<Observed>> {
        self.inner.network.restore().await;
        let inner = Arc::clone(&self.inner);
        blocking("listing the containers", move || {
            let ids = inner.disk.ids().map_err(std::io::Error::other)?;
            Ok(ids.into_iter().filter_map(|id| inner.observed(id)).collect())
        })
        .await
    }

    async fn observe(&self, id: ContainerId) -> Result<Option<Observed>> {
        Ok(self.inner.observed(id))
    }

    async fn exec(&self, id: ContainerId, command: &Exec) -> Result<ExecOutput> {
        let (home, run) = self.inner.running(id)?;
        let token = self.inner.token();
        let call =
            exec::Call::new(&self.inner.runc, (id, &home, &run), command, Streams::Own, token)?;
        exec::exec(call, command, &self.inner.tasks).await
    }

    async fn attach(&self, id: ContainerId, command: &Exec, size: PtySize) -> Result<Attached> {
        let (home, run) = self.inner.running(id)?;
        let (target, token) = ((id, &home, &run), self.inner.token());
        let call =
            exec::Call::new(&self.inner.runc, target, command, Streams::Terminal(size), token)?;
        terminal::attach(call, size, &self.inner.tasks).await
    }

    async fn session(&self, id: ContainerId) -> Result<OwnedFd> {
        sessions::in_time(self.inner.session(id)).await
    }

    async fn stats(&self, id: ContainerId) -> Result<Stats> {
        stats::stats(&self.inner, id).await
    }

    async fn images(&self) -> Result<Vec<ImageInfo>> {
        self.inner.images.list().await
    }

    async fn icon(&self, image: &ImageName) -> Result<Option<Vec<u8>>> {
        self.inner.images.icon(image).await
    }

    fn kvm(&self) -> Kvm {
        self.inner.kvm()
    }

    fn boot_id(&self) -> &str {
        &self.inner.boot_id
    }

    fn exits(&self) -> broadcast::Receiver<ContainerId> {
        self.inner.exits.subscribe()
    }
}
