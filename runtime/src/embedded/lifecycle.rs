//! From order to running container and back; the steps, and what a crash between them leaves.
//!
//! A container exists once its record is on disk, and is gone once its directory was renamed away.
//! It runs when `run.json` names a living process of this boot that was let go; that file is written
//! before it is, so none can run unseen. Whatever else is found (state of the OCI runtime, mounts, links, control groups) is what an interrupted
//! step left, and [`Inner::clear`] removes it before the next start and at each stop. So no step has
//! to be undone in order, and every `ensure_*` converges from any point.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use gantry_model::{ContainerId, SnapshotId};
use tokio::sync::{RwLock, broadcast};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Config, bundle,
    cgroup::Cgroups,
    copies::Copies,
    disk::{Disk, Home, Record, Run},
    guest::{Guest, Identity},
    image::{Freshness, Images},
    process::{Handle, Init},
    rootfs,
    runc::{Runc, timed_out},
    transfer::Exports,
    usage::Usage,
};
use crate::{
    Error, Kvm, Observed, Order, Result, Running, State, hostname, kvm,
    locks::{Busy, Held, Locks},
    network::Network,
    project_ramdisks::ProjectRamdisks,
    sessions::Program,
    shares::Shares,
};

/// How long a killed container may take to vanish.
const KILL_TIMEOUT: Duration = Duration::from_secs(15);

/// What asks systemd to power off; the third of the real-time signals that C libraries leave free.
const SYSTEMD_POWER_OFF: &str = "37";

/// What every call needs.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) config: Config,
    pub(super) disk: Disk,
    pub(super) runc: Runc,
    pub(super) cgroups: Cgroups,
    pub(super) network: Network,
    pub(super) images: Images,
    pub(super) locks: Locks<ContainerId>,
    pub(super) snapshot_locks: Locks<SnapshotId>,
    pub(super) boot_id: String,
    pub(super) exits: broadcast::Sender<ContainerId>,
    pub(super) tasks: TaskTracker,
    pub(super) shutdown: CancellationToken,
    pub(super) usage: Usage,
    /// Written while images are removed, read while one becomes a container's.
    pub(super) images_in_use: RwLock<()>,
    pub(super) tokens: AtomicU64,
    /// Those that are frozen while they are copied.
    pub(super) held: Held,
    /// The copies under way.
    pub(super) copies: Copies,
    /// The images below what is being read as archives.
    pub(super) exports: Exports,
    /// What containers see of each other.
    pub(super) shares: Shares,
    /// What runs inside for sessions.
    pub(super) program: Program,
    /// What containers of one project share in memory.
    pub(super) project_ramdisks: ProjectRamdisks,
}

impl Inner {
    /// A number that this process has not used yet.
    pub(super) fn token(&self) -> u64 {
        (u64::from(std::process::id()) << 32) | self.tokens.fetch_add(1, Ordering::Relaxed)
    }

    /// The last start, if its init was let go and still lives.
    pub(super) fn live(&self, id: ContainerId) -> Option<Run> {
        let run = self.disk.home(id).run()?;
        let lives = run.boot_id == self.boot_id && run.init.is_alive();
        (lives && !self.runc.waits(id)).then_some(run)
    }

    /// Whether it is frozen. One that is held still for a copy was not paused, and nobody is to resume it.
    fn is_paused(&self, id: ContainerId) -> bool {
        let is_frozen = || self.cgroups.is_frozen(id);
        // Again at last, since a copy may have ended between the first two.
        is_frozen() && !self.held.holds(id) && is_frozen()
    }

    /// The container as it is now.
    pub(super) fn observed(&self, id: ContainerId) -> Option<Observed> {
        let home = self.disk.home(id);
        let record = home.record()?;
        let state = match home.run() {
            None => State::Created,
            Some(run) if run.boot_id != self.boot_id || !run.init.is_alive() => State::Stopped,
            // Its start was cut off, or goes on right now.
            Some(_) if self.runc.waits(id) => State::Created,
            Some(_) if self.is_paused(id) => State::Paused,
            Some(_) => State::Running,
        };
        Some(Observed { id, state, address: Some(record.address.into()) })
    }

    /// The start of a container whose init lives.
    pub(super) fn alive(&self, id: ContainerId) -> Result<(Home, Run)> {
        let home = self.disk.home(id);
        if home.record().is_none() {
            return Err(Error::NotFound { id });
        }
        let run = self.live(id).ok_or(Error::NotRunning { id })?;
        Ok((home, run))
    }

    /// The same, if it is not frozen.
    pub(super) fn running(&self, id: ContainerId) -> Result<(Home, Run)> {
        let found = self.alive(id)?;
        if self.cgroups.is_frozen(id) { Err(Error::NotRunning { id }) } else { Ok(found) }
    }

    /// Makes the record, if there is none.
    pub(super) async fn create(&self, order: &Order, busy: &Busy) -> Result<Record> {
        let home = self.disk.home(order.id);
        if let Some(record) = home.record() {
            return Ok(record);
        }
        if home.is_finished() {
            let what = "there is one already whose record cannot be read";
            return Err(Error::failed("creating the container", what));
        }
        let freshness = if order.cache { Freshness::Cached } else { Freshness::Rebuilt };
        let _no_removal = self.images_in_use.read().await;
        let rootfs = self.images.ensure(&order.image, order.kit, freshness).await?;
        let address = self.network.take(order.id).await?;
        self.disk.note_last_address(address);
        let record = Record { address, lower: rootfs.path };
        let (kept, root) = (record.clone(), self.config.mapping.base);
        let work = move || home.create(&kept, root);
        let created = blocking_while("creating the container", busy, work).await;
        if created.is_err() && self.disk.home(order.id).record().is_none() {
            self.network.release(order.id).await?;
        }
        created.map(|()| record)
    }

    /// Starts the init, or finds it running.
    pub(super) async fn run(self: &Arc<Self>, order: &Order, busy: &Busy) -> Result<Running> {
        let record = self.create(order, busy).await?;
        let running = Running { address: record.address.into() };
        self.network.close(order).await?;
        if self.live(order.id).is_some() {
            if self.cgroups.is_frozen(order.id) {
                self.runc.resume(order.id).await?;
            }
            return Ok(running);
        }
        self.kvm().check(order.kvm)?;
        self.clear(order.id, &record, busy).await?;
        if let Err(error) = self.start(order, &record, busy).await {
            if let Err(error) = self.clear(order.id, &record, busy).await {
                tracing::warn!(id = %order.id, %error, "leftovers of a failed start stay for now");
            }
            return Err(error);
        }
        Ok(running)
    }

    /// Whether containers may have `/dev/kvm`.
    pub(super) fn kvm(&self) -> Kvm {
        Kvm::of_host(self.config.kvm)
    }

    async fn start(self: &Arc<Self>, order: &Order, record: &Record, busy: &Busy) -> Result<()> {
        const WHAT: &str = "starting the container";
        let home = self.disk.home(order.id);
        self.prepare(order, record, busy).await?;
        let pid = self.runc.create(order.id, home.dir(), &home.pid_file("init")).await?;
        let init = Init::of(pid).ok_or_else(|| Error::failed(WHAT, "it ended at once"))?;
        self.cgroups.delegate(order.id, self.config.mapping)?;
        self.network.plug(order.id, record.address, pid, init.namespace("net")).await?;
        let run = Run {
            boot_id: self.boot_id.clone(),
            init,
            env: order.env.clone(),
            memory_bytes: order.limits.memory_bytes,
        };
        home.started(&run).map_err(|error| Error::failed(WHAT, error))?;
        self.watch(order.id, init);
        self.runc.start(order.id).await
    }

    /// Mounts, writes into the container, writes the bundle.
    async fn prepare(self: &Arc<Self>, order: &Order, record: &Record, busy: &Busy) -> Result<()> {
        let home = self.disk.home(order.id);
        let (order, record) = (order.clone(), record.clone());
        let nameservers = self.network.nameservers().to_vec();
        let (cgroup, mapping) = (self.cgroups.path(order.id), self.config.mapping);
        let inner = Arc::clone(self);
        blocking_while("preparing the container", busy, move || {
            rootfs::mount_root(&home, &record.lower)?;
            if order.ramdisk {
                rootfs::mount_ramdisk(&home.ramdisk(), order.limits.memory_bytes, mapping.base)?;
            } else {
                rootfs::unmount(&home.ramdisk())?;
            }
            let shared = order.project_ramdisk.filter(|_| order.ramdisk);
            let shared = inner.project_ramdisks.prepare(order.id, shared, &home.ramdisk())?;
            let rootfs = home.rootfs();
            let guest = Guest::open(&rootfs, mapping.base)?;
            let address = record.address;
            guest.identify(&Identity { order: &order, address, nameservers: &nameservers });
            let kvm = if order.kvm {
                let number = kvm::number()?;
                let node = rootfs::mount_device(&home.devices(), "kvm", number, mapping.base)?;
                Some((node, number))
            } else {
                None
            };
            let ramdisk = home.ramdisk();
            let tunnel = home.shares();
            let has_place = guest.has_place_for_shares(order.id);
            if has_place {
                inner.shares.prepare(&tunnel)?;
            }
            let session = home.session();
            inner.program.furnish(&session)?;
            let places = bundle::Places {
                rootfs: &rootfs,
                ramdisk: order.ramdisk.then_some(ramdisk.as_path()),
                project_ramdisk: shared.as_deref(),
                shares: has_place.then_some(tunnel.as_path()),
                session: &session,
                kvm: kvm.as_ref().map(|(node, number)| (node.as_path(), *number)),
                cgroup: &cgroup,
                init: guest.init(),
                mapping,
            };
            let spec = bundle::spec(&order, &places).map_err(io::Error::other)?;
            home.write_bundle(&serde_json::to_vec(&spec)?)
        })
        .await
    }

    /// Gives the container other variables, where commands and logins take them from.
    pub(super) async fn set_environment(
        &self,
        id: ContainerId,
        env: &BTreeMap<String, String>,
        busy: &Busy,
    ) -> Result<()> {
        let Some(mut run) = self.live(id).filter(|run| run.env != *env) else { return Ok(()) };
        let home = self.disk.home(id);
        let owner = self.config.mapping.base;
        run.env.clone_from(env);
        blocking_while("changing the container's environment", busy, move || {
            Guest::open(&home.rootfs(), owner)?.set_environment(id, &run.env);
            home.started(&run)
        })
        .await
    }

    /// Gives the container another name.
    pub(super) async fn set_hostname(
        &self,
        id: ContainerId,
        hostname: &str,
        busy: &Busy,
    ) -> Result<()> {
        const WHAT: &str = "changing the container's hostname";
        let home = self.disk.home(id);
        let (Some(run), Some(record)) = (self.live(id), home.record()) else { return Ok(()) };
        let (owner, name) = (self.config.mapping.base, hostname.to_owned());
        hostname::set(run.init.namespace("uts"), name.clone())
            .await
            .map_err(|error| Error::failed(WHAT, error))?;
        blocking_while(WHAT, busy, move || {
            Guest::open(&home.rootfs(), owner)?.set_hostname(id, &name, record.address);
            Ok(())
        })
        .await
    }

    /// Kills the init if it lives, without waiting for anything. Needs no lock: whoever holds it
    /// finds the init ended, as if it had ended by itself.
    pub(super) fn kill(&self, id: ContainerId) {
        if let Some(run) = self.live(id)
            && let Ok(Some(handle)) = run.init.open()
        {
            handle.kill();
        }
    }

    /// Ends the init.
    pub(super) async fn stop(
        self: &Arc<Self>,
        id: ContainerId,
        grace: Duration,
        busy: &Busy,
    ) -> Result<()> {
        let Some(record) = self.disk.home(id).record() else { return Ok(()) };
        let failed = |error: io::Error| Error::failed("stopping the container", error);
        if let Some(run) = self.live(id)
            && let Some(handle) = run.init.open().map_err(failed)?
            && !(grace > Duration::ZERO && self.ask_to_end(id, run.init, &handle, grace).await?)
        {
            handle.kill();
            if self.cgroups.is_frozen(id) {
                // A frozen process takes even this signal only when it is thawed (version 1).
                self.runc.resume(id).await?;
            }
            tokio::time::timeout(KILL_TIMEOUT, handle.ended())
                .await
                .map_err(|_elapsed| timed_out("stopping the container", KILL_TIMEOUT))?
                .map_err(failed)?;
        }
        self.clear(id, &record, busy).await
    }

    /// Whether the init ended by itself in the time given.
    async fn ask_to_end(
        &self,
        id: ContainerId,
        init: Init,
        handle: &Handle,
        grace: Duration,
    ) -> Result<bool> {
        if self.cgroups.is_frozen(id) {
            self.runc.resume(id).await?;
        }
        let signal = if init.name() == "systemd" { SYSTEMD_POWER_OFF } else { "TERM" };
        if let Err(error) = self.runc.signal(id, signal).await {
            tracing::debug!(%id, %error, "the init was ending already");
        }
        match tokio::time::timeout(grace, handle.ended()).await {
            Ok(ended) => {
                ended.map(|()| true).map_err(|e| Error::failed("stopping the container", e))
            }
            Err(_elapsed) => {
                tracing::info!(%id, "the init did not end in time and is killed");
                Ok(false)
            }
        }
    }

    /// Removes everything that belongs to a run of a container whose init does not live, or is not
    /// known to.
    async fn clear(self: &Arc<Self>, id: ContainerId, record: &Record, busy: &Busy) -> Result<()> {
        self.runc.delete(id).await?;
        self.remove_groups(id, busy).await?;
        self.network.unplug(id, record.address).await?;
        self.unshare(id, busy).await?;
        let home = self.disk.home(id);
        rootfs::unmount(&home.devices())
            .and_then(|()| rootfs::unmount(&home.rootfs()))
            .map_err(|error| Error::failed("unmounting the container", error))
    }

    async fn remove_groups(&self, id: ContainerId, busy: &Busy) -> Result<()> {
        let cgroups = self.cgroups.clone();
        blocking_while("removing the control groups", busy, move || {
            cgroups.remove(id);
            Ok(())
        })
        .await
    }

    /// Removes the container.
    pub(super) async fn delete(self: &Arc<Self>, id: ContainerId, busy: &Busy) -> Result<()> {
        const WHAT: &str = "deleting the container";
        let home = self.disk.home(id);
        if !home.dir().exists() {
            // A creation, or a deletion, that was cut off may have left it.
            return self.network.release(id).await;
        }
        self.stop(id, Duration::ZERO, busy).await?;
        for point in [home.rootfs(), home.ramdisk(), home.devices()] {
            rootfs::unmount(&point).map_err(|error| Error::failed(WHAT, error))?;
        }
        self.shares.remove(&home.shares()).map_err(|error| Error::failed(WHAT, error))?;
        self.project_ramdisks.leave(id).map_err(|error| Error::failed(WHAT, error))?;
        if home.record().is_none() {
            // A record that cannot be read: what does not depend on it still goes.
            self.runc.delete(id).await?;
            self.remove_groups(id, busy).await?;
        }
        let inner = Arc::clone(self);
        blocking_while(WHAT, busy, move || inner.disk.discard(id, inner.token())).await?;
        // Last: nobody may get the address while anything here still uses it.
        self.network.release(id).await
    }

    /// Tells when this init ends.
    pub(super) fn watch(&self, id: ContainerId, init: Init) {
        let (exits, shutdown) = (self.exits.clone(), self.shutdown.clone());
        let tell = move || {
            if exits.send(id).is_err() {
                tracing::trace!(%id, "nobody listens for exits");
            }
        };
        match init.open() {
            Ok(Some(handle)) => {
                self.tasks.spawn(async move {
                    tokio::select! {
                        () = shutdown.cancelled() => {}
                        ended = handle.ended() => match ended {
                            Ok(()) => tell(),
                            Err(error) => tracing::warn!(%id, %error, "cannot watch an init"),
                        },
                    }
                });
            }
            Ok(None) => tell(),
            Err(error) => tracing::warn!(%id, %error, "cannot watch an init"),
        }
    }
}

/// The same for work on one container, which stays locked until it is done, even if nobody waits.
pub(super) async fn blocking_while<T: Send + 'static>(
    what: &'static str,
    busy: &Busy,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T> {
    let busy = busy.clone();
    blocking(what, move || {
        let result = work();
        drop(busy);
        result
    })
    .await
}

/// Does file system work where it may block.
pub(super) async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::failed(what, error))?
        .map_err(|error| Error::failed(what, error))
}
