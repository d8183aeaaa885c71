//! Containers of Incus, over its unix socket.
//!
//! Incus makes namespaces, file systems, limits and processes; here are what Gantry adds: images
//! (those of the embedded runtime, handed over once), addresses that are known before the init
//! starts, a bridge whose ports are closed for all but their own addresses, the ramdisk, and what is
//! written into a container. Everything lives in a project of its own, which is marked with this
//! installation's directory, so that several installations on one Incus do not see each other.
//! Containers are always unprivileged.

mod client;
mod config;
mod copies;
mod events;
mod exec;
mod guest;
mod halves;
mod images;
mod inside;
mod instance;
mod lifecycle;
mod session;
mod share;
mod stats;
mod terminal;
mod transfer;
mod wire;

use std::{
    collections::BTreeMap,
    io,
    os::fd::OwnedFd,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use async_trait::async_trait;
use gantry_model::{Chain, ContainerId, ShareId, SnapshotId, container::ImageName};
use http::Method;
use tokio::sync::broadcast;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use config::Config;

use self::{
    client::{Client, Fault},
    events::Known,
    exec::Call,
    images::Store,
    lifecycle::{CHANGE_TIMEOUT, Inner, blocking},
    wire::{Image, Map, Pool, Project, Server},
};
use crate::{
    Archive, Attached, Bequest, Enforced, Error, Exec, ExecOutput, Firewall, ImageInfo, Kvm,
    Observed, Order, Outbound, PtySize, Result, Running, Runtime, Share, ShareFault, SnapshotInfo,
    Source, Stats,
    embedded::{copies::Copies, image::Images, preflight},
    locks::{Busy, Held, Locks},
    network::Network,
    project_ramdisks::ProjectRamdisks,
    sessions::{self, Program},
    shares::Shares,
};

/// How many ends of inits a slow listener may be behind before it loses some.
const EXITS_MAX: usize = 1024;

/// The key of a project that says whose it is.
const OWNER: &str = "user.gantry.directory";

/// The project that is always there. Projects and storage pools are asked for in it.
const DEFAULT_PROJECT: &str = "default";

/// The storage drivers that this was tried with.
const DRIVERS: [&str; 2] = ["btrfs", "dir"];

/// The runtime that drives Incus. Lives in the tokio runtime that it was opened in. Dropping it
/// leaves the containers running.
#[derive(Debug)]
pub struct Incus {
    inner: Arc<Inner>,
}

impl Incus {
    /// Looks whether Incus is there, sets up project and network, and adopts what an earlier one has
    /// left.
    ///
    /// Everything that the host lacks is told in [`Error::Denied`].
    pub async fn open(config: Config) -> Result<Self> {
        Self::open_after(config, None).await
    }

    /// The same in a process that follows another one, which lives and has stopped to change containers.
    pub async fn succeed(config: Config, bequest: Bequest) -> Result<Self> {
        Self::open_after(config, Some(bequest)).await
    }

    async fn open_after(config: Config, bequest: Option<Bequest>) -> Result<Self> {
        const WHAT: &str = "setting up Incus";
        let client = Client::new(&config.socket, &config.project);
        let nft = check(&config).await?;
        ensure_project(&config).await?;
        std::fs::create_dir_all(&config.dir)
            .map_err(|error: io::Error| Error::failed(WHAT, error))?;
        let dir = config.dir.clone();
        let install =
            blocking("installing the program for sessions", move || Program::install(&dir));
        let program = install.await?;
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map_err(|error| Error::failed("reading the host's boot id", error))?;
        let tasks = TaskTracker::new();
        let sockets = bequest.and_then(|bequest| bequest.relay);
        let network = Network::open(&config.network, nft, &tasks, sockets).await?;
        let inner = Arc::new(Inner {
            images: Store::open(config.images.clone(), config.dir.join(transfer::SCRATCH)).await?,
            tokens: AtomicU64::new(0),
            locks: Locks::default(),
            snapshot_locks: Locks::default(),
            boot_id: boot_id.trim().to_owned(),
            exits: broadcast::channel(EXITS_MAX).0,
            known: Known::default(),
            writers: inside::Writers::default(),
            held: Held::default(),
            copies: Copies::default(),
            shares: Shares::open(&config.dir)
                .map_err(|error| Error::failed("setting up shares", error))?,
            program,
            project_ramdisks: ProjectRamdisks::new(
                &config.dir,
                config.project_ramdisk_bytes,
                // Incus shifts its owners, so that the host's root is the containers'.
                0,
            ),
            shutdown: CancellationToken::new(),
            config,
            client,
            network,
            tasks,
        });
        let runtime = Self { inner };
        runtime.adopt().await?;
        events::watch(&runtime.inner).await?;
        Ok(runtime)
    }

    /// Finds the containers of an earlier runtime.
    async fn adopt(&self) -> Result<()> {
        let mut addresses = Vec::new();
        self.inner.remove_unfinished().await?;
        for instance in self.inner.instances().await? {
            let id = instance::id(&instance.name).or_else(|| instance::fresh(&instance.name));
            let Some(id) = id else {
                if instance::snapshot(&instance.name).is_none() {
                    tracing::warn!(name = instance.name, "something else is in our project");
                }
                continue;
            };
            if let Err(error) = self.inner.furnish(id).await {
                tracing::warn!(%id, %error, "it has no sessions until its next start");
            }
            // One that is not whole has an address, too, until the next creation removes it.
            if let Some(address) = instance::address(&instance) {
                self.inner.network.adopt(id, address);
                addresses.push(address);
            }
        }
        if let Some(last) = addresses.iter().max() {
            self.inner.network.resume_after(*last);
        }
        self.inner.network.guard(&addresses).await
    }

    /// Locks a container and what fills it.
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

    /// The images, for their progress.
    pub fn image_store(&self) -> &Images {
        self.inner.images.built()
    }

    /// Deletes every container, takes the network back from the host, and images and project back
    /// from Incus.
    pub async fn uninstall(self) -> Result<()> {
        let failed = |fault: Fault| fault.during("removing the project");
        for instance in self.inner.instances().await? {
            match instance::id(&instance.name) {
                Some(id) => self.ensure_deleted(id).await?,
                None => self.inner.discard(&instance.name).await?,
            }
        }
        let client = &self.inner.client;
        let images: Vec<Image> = client.get("/1.0/images?recursion=1").await.map_err(failed)?;
        let images = images.iter().map(|image| format!("/1.0/images/{}", image.fingerprint));
        for path in images {
            let removed = client.change(Method::DELETE, &path, None::<&()>, CHANGE_TIMEOUT);
            removed.await.map_err(failed)?;
        }
        let path = format!("/1.0/projects/{}", self.inner.config.project);
        let client = Client::new(&self.inner.config.socket, DEFAULT_PROJECT);
        let removed = client.change(Method::DELETE, &path, None::<&()>, CHANGE_TIMEOUT);
        removed.await.map_err(failed)?;
        let unmounted = self.inner.shares.uninstall();
        unmounted.map_err(|error| Error::failed("taking shares back", error))?;
        let removed = self.inner.program.uninstall();
        removed.map_err(|error| Error::failed("removing the program for sessions", error))?;
        self.inner.network.uninstall().await
    }
}

/// Looks at everything and reports all that is missing, or where `nft` is.
async fn check(config: &Config) -> Result<std::path::PathBuf> {
    let client = Client::new(&config.socket, DEFAULT_PROJECT);
    let mut missing = config.faults();
    let nft = preflight::find(&config.nft);
    if nft.is_none() {
        missing.push(format!("the program {}", config.nft.display()));
    }
    match client.get::<Server>("/1.0").await {
        Ok(server) if server.auth == "trusted" => {
            let pool = format!("/1.0/storage-pools/{}", config.pool);
            match client.find::<Pool>(&pool).await {
                Ok(Some(pool)) if DRIVERS.contains(&pool.driver.as_str()) => {}
                Ok(Some(pool)) => {
                    tracing::warn!(driver = pool.driver, "never tried with this kind of storage");
                }
                Ok(None) => missing.push(format!(
                    "Incus' storage pool {0} (incus storage create {0} btrfs)",
                    config.pool
                )),
                Err(fault) => missing.push(Chain(&fault).to_string()),
            }
        }
        Ok(_) => {
            missing.push("the right to use Incus (user root, or group incus-admin)".to_owned());
        }
        Err(fault) => missing.push(format!(
            "Incus at {} ({}; is it installed, and does it run?)",
            config.socket.display(),
            Chain(&fault)
        )),
    }
    match nft {
        Some(nft) if missing.is_empty() => Ok(nft),
        Some(_) | None => Err(Error::Denied { missing }),
    }
}

/// Makes our project, or finds that it is ours.
async fn ensure_project(config: &Config) -> Result<()> {
    let client = Client::new(&config.socket, DEFAULT_PROJECT);
    let failed = |fault: Fault| fault.during("setting up the project");
    let owner = config.dir.display().to_string();
    let path = format!("/1.0/projects/{}", config.project);
    if let Some(project) = client.find::<Project>(&path).await.map_err(failed)? {
        return match project.config.get(OWNER) {
            Some(found) if *found == owner => Ok(()),
            found => {
                let whose = found.map_or("not Gantry", String::as_str);
                let text = format!("Incus' project {} belongs to {whose}", project.name);
                Err(Error::failed("setting up the project", text))
            }
        };
    }
    let keys: Map = [
        ("features.images", "true"),
        ("features.networks", "false"),
        ("features.profiles", "true"),
        ("features.storage.volumes", "true"),
        (OWNER, owner.as_str()),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    let description = "Containers of Gantry".to_owned();
    let project = Project { name: config.project.clone(), description, config: keys };
    let made = client.change(Method::POST, "/1.0/projects", Some(&project), CHANGE_TIMEOUT);
    made.await.map_err(failed)
}

impl Drop for Incus {
    fn drop(&mut self) {
        self.inner.shutdown.cancel();
    }
}

#[async_trait]
impl Runtime for Incus {
    fn bequest(&self) -> Result<Bequest> {
        let failed = |error: io::Error| Error::failed("sharing the relay's sockets", error);
        Ok(Bequest { lock: None, relay: self.inner.network.sockets().map_err(failed)? })
    }

    fn is_copying(&self) -> bool {
        !self.inner.copies.is_empty()
    }

    fn retire(&self) {
        self.inner.network.retire();
    }

    async fn ensure_created(&self, order: &Order) -> Result<()> {
        let busy = self.inner.locks.lock(order.id).await;
        let (inner, order) = (Arc::clone(&self.inner), order.clone());
        let work = async move {
            let _busy = busy;
            inner.create(&order).await.map(drop)
        };
        self.inner.detached(work).await
    }

    async fn ensure_running(&self, order: &Order) -> Result<Running> {
        let busy = self.lock_before_others(order.id).await;
        let (inner, order) = (Arc::clone(&self.inner), order.clone());
        let work = async move {
            let _busy = busy;
            inner.run(&order).await
        };
        self.inner.detached(work).await
    }

    async fn ensure_stopped(&self, id: ContainerId, grace: Duration) -> Result<()> {
        if grace.is_zero() {
            // What Incus copies of it fails by its end, and is to know why.
            self.inner.copies.give_up(id);
            // One who waits with grace holds the lock; this ends his waiting.
            self.inner.kill(id).await?;
        }
        // The lock is free only when nobody copies it any more. A copy can be made again.
        let lock = self.inner.locks.lock(id);
        let busy = self.inner.copies.out_of_the_way(lock, |copies| copies.give_up(id)).await;
        let inner = Arc::clone(&self.inner);
        let work = async move {
            let _busy = busy;
            inner.stop(id, grace).await
        };
        self.inner.detached(work).await
    }

    async fn ensure_paused(&self, id: ContainerId) -> Result<()> {
        let _busy = self.lock_before_others(id).await;
        self.inner.set_paused(id, true).await
    }

    async fn ensure_resumed(&self, id: ContainerId) -> Result<()> {
        let _busy = self.lock_before_others(id).await;
        self.inner.set_paused(id, false).await
    }

    async fn ensure_environment(
        &self,
        id: ContainerId,
        env: &BTreeMap<String, String>,
    ) -> Result<()> {
        let busy = self.inner.locks.lock(id).await;
        let (inner, env) = (Arc::clone(&self.inner), env.clone());
        let work = async move {
            let _busy = busy;
            inner.set_environment(id, &env).await
        };
        self.inner.detached(work).await
    }

    async fn ensure_hostname(&self, id: ContainerId, hostname: &str) -> Result<()> {
        let busy = self.inner.locks.lock(id).await;
        let (inner, hostname) = (Arc::clone(&self.inner), hostname.to_owned());
        let work = async move {
            let _busy = busy;
            inner.set_hostname(id, &hostname).await
        };
        self.inner.detached(work).await
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
        let (inner, shares) = (Arc::clone(&self.inner), shares.to_vec());
        let work = async move {
            let _busy = busy;
            inner.share(id, &shares).await
        };
        self.inner.detached(work).await
    }

    async fn ensure_deleted(&self, id: ContainerId) -> Result<()> {
        self.inner.kill(id).await?;
        // One of its own files may still be made; that is over now, unlike a copy that others make of it.
        let lock = self.inner.locks.lock(id);
        let busy = self.inner.copies.out_of_the_way(lock, |copies| copies.give_up_into(id)).await;
        let inner = Arc::clone(&self.inner);
        let work = async move {
            let _busy = busy;
            inner.delete(id).await
        };
        self.inner.detached(work).await
    }

    async fn ensure_copied(&self, order: &Order, source: Source) -> Result<()> {
        let busy = self.lock_with(order.id, source).await;
        let (inner, order) = (Arc::clone(&self.inner), order.clone());
        let work = async move {
            let _busy = busy;
            inner.copy(&order, source).await
        };
        self.inner.detached(work).await
    }

    async fn ensure_refilled(&self, id: ContainerId, source: Source) -> Result<()> {
        if source == Source::Container(id) {
            return Ok(());
        }
        let busy = self.lock_with(id, source).await;
        let inner = Arc::clone(&self.inner);
        let work = async move {
            let _busy = busy;
            inner.refill(id, source).await
        };
        self.inner.detached(work).await
    }

    async fn ensure_snapshot(&self, id: ContainerId, snapshot: SnapshotId) -> Result<SnapshotInfo> {
        let busy = self.lock_with(id, Source::Snapshot(snapshot)).await;
        let inner = Arc::clone(&self.inner);
        let work = async move {
            let _busy = busy;
            inner.snapshot(id, snapshot).await
        };
        self.inner.detached(work).await
    }

    async fn export(&self, source: Source) -> Result<Archive> {
        let busy = match source {
            Source::Container(id) => self.inner.locks.lock(id).await,
            Source::Snapshot(snapshot) => self.inner.snapshot_locks.lock(snapshot).await,
        };
        let inner = Arc::clone(&self.inner);
        let work = async move {
            let _busy = busy;
            inner.export(source).await
        };
        self.inner.detached(work).await
    }

    async fn ensure_imported(&self, order: &Order, archive: Archive) -> Result<()> {
        if self.inner.observed(order.id).await?.is_some() {
            return Ok(());
        }
        // Without the lock: how long it takes is up to where the archive comes from.
        let image = self.inner.upload("importing the container", archive).await?;
        let busy = self.inner.locks.lock(order.id).await;
        let (inner, order) = (Arc::clone(&self.inner), order.clone());
        let work = async move {
            let _busy = busy;
            inner.import(&order, &image).await
        };
        self.inner.detached(work).await
    }

    async fn ensure_refilled_from(&self, id: ContainerId, archive: Archive) -> Result<()> {
        if self.inner.observed(id).await?.is_none() {
            return Err(Error::NotFound { id });
        }
        let image = self.inner.upload("replacing the container's files", archive).await?;
        let busy = self.inner.locks.lock(id).await;
        let inner = Arc::clone(&self.inner);
        let work = async move {
            let _busy = busy;
            inner.refill_from(id, &image).await
        };
        self.inner.detached(work).await
    }

    async fn ensure_snapshot_imported(
        &self,
        snapshot: SnapshotId,
        archive: Archive,
    ) -> Result<SnapshotInfo> {
        if let Some(kept) = self.inner.kept(snapshot).await? {
            return Ok(kept);
        }
        let image = self.inner.upload("importing the snapshot", archive).await?;
        let busy = self.inner.snapshot_locks.lock(snapshot).await;
        let inner = Arc::clone(&self.inner);
        let work = async move {
            let _busy = busy;
            inner.import_snapshot(snapshot, &image).await
        };
        self.inner.detached(work).await
    }

    async fn ensure_snapshot_deleted(&self, snapshot: SnapshotId) -> Result<()> {
        let busy = self.inner.snapshot_locks.lock(snapshot).await;
        let inner = Arc::clone(&self.inner);
        let work = async move {
            let _busy = busy;
            inner.delete_snapshot(snapshot).await
        };
        self.inner.detached(work).await
    }

    async fn snapshots(&self) -> Result<Vec<SnapshotInfo>> {
        self.inner.snapshots().await
    }

    async fn list(&self) -> Result<Vec<Observed>> {
        self.inner.network.restore().await;
        let mut look = self.inner.held.look();
        loop {
            let list = self.inner.list().await?;
            let list = list.into_iter().map(|observed| self.inner.told(observed)).collect();
            if look.counts() {
                return Ok(list);
            }
        }
    }

    async fn observe(&self, id: ContainerId) -> Result<Option<Observed>> {
        let mut look = self.inner.held.look();
        loop {
            let observed = self.inner.observed(id).await?;
            let observed = observed.map(|observed| self.inner.told(observed));
            if look.counts() {
                return Ok(observed);
            }
        }
    }

    async fn exec(&self, id: ContainerId, command: &Exec) -> Result<ExecOutput> {
        let instance = self.inner.running(id).await?;
        exec::exec(&self.inner.client, &instance, command).await
    }

    async fn attach(&self, id: ContainerId, command: &Exec, size: PtySize) -> Result<Attached> {
        let instance = self.inner.running(id).await?;
        let call = Call::begin(&self.inner.client, &instance, command, Some(size)).await?;
        terminal::attach(call, size, &self.inner.tasks).await
    }

    async fn session(&self, id: ContainerId) -> Result<OwnedFd> {
        sessions::in_time(Box::pin(self.inner.session(id))).await
    }

    async fn stats(&self, id: ContainerId) -> Result<Stats> {
        let stats = stats::stats(&self.inner.client, id).await?;
        Ok(Stats { ramdisk: self.inner.ramdisk_use(id).await?, ..stats })
    }

    async fn images(&self) -> Result<Vec<ImageInfo>> {
        self.inner.images.built().list().await
    }

    async fn icon(&self, image: &ImageName) -> Result<Option<Vec<u8>>> {
        self.inner.images.built().icon(image).await
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
