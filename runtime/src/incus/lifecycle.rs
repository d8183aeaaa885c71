//! From order to running container and back.
//!
//! A container exists once its key `MADE` is set; what has none is what an interrupted creation
//! left, and is removed before the next. Whatever changes a container runs as a task of its own that
//! holds the container's lock, so that a caller may go away at any time.

use std::{
    collections::BTreeMap,
    io,
    net::Ipv4Addr,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use gantry_model::{ContainerId, SnapshotId};
use http::Method;
use tokio::sync::broadcast;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Config,
    client::{Client, Fault},
    events::Known,
    guest::{Guest, Texts},
    images::Store,
    inside,
    instance::{self, IDENTITY, INIT, Init, MADE, Mounted},
    wire::{Change, Instance, NewInstance, NewState, Origin, Patch, Usage},
};
use crate::{
    Error, Kvm, Observed, Order, RamdiskUse, Result, Running, State,
    embedded::{copies::Copies, guest::Identity, rootfs},
    hostname,
    locks::{Held, Locks},
    network::Network,
    project_ramdisks::ProjectRamdisks,
    sessions::Program,
    shares::Shares,
};

/// How long Incus may take to make a container: it may have to unpack the image.
const CREATE_TIMEOUT: Duration = Duration::from_mins(5);

/// How long any other change may take.
pub(super) const CHANGE_TIMEOUT: Duration = Duration::from_mins(1);

/// What every call needs.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) config: Config,
    pub(super) client: Client,
    pub(super) network: Network,
    pub(super) images: Store,
    pub(super) locks: Locks<ContainerId>,
    pub(super) snapshot_locks: Locks<SnapshotId>,
    pub(super) boot_id: String,
    pub(super) exits: broadcast::Sender<ContainerId>,
    pub(super) known: Known,
    /// Those that are written into.
    pub(super) writers: inside::Writers,
    /// Those that are frozen while they are copied.
    pub(super) held: Held,
    /// The copies under way.
    pub(super) copies: Copies,
    /// What containers see of each other.
    pub(super) shares: Shares,
    /// What runs inside for sessions.
    pub(super) program: Program,
    /// The number of the next thing that is not a container's.
    pub(super) tokens: AtomicU64,
    /// What containers of one project share in memory.
    pub(super) project_ramdisks: ProjectRamdisks,
    pub(super) tasks: TaskTracker,
    pub(super) shutdown: CancellationToken,
}

impl Inner {
    /// A container as Incus has it, whole or not.
    pub(super) async fn instance(&self, id: ContainerId) -> Result<Option<Instance>> {
        self.named(&instance::name(id)).await
    }

    /// Whatever has a name.
    pub(super) async fn named(&self, name: &str) -> Result<Option<Instance>> {
        let found = self.client.find(&format!("/1.0/instances/{name}")).await;
        found.map_err(|fault| fault.during("looking at the container"))
    }

    /// The container as it is now, or what is about to take its place.
    pub(super) async fn observed(&self, id: ContainerId) -> Result<Option<Observed>> {
        let found = match self.instance(id).await? {
            None => self.named(&instance::fresh_name(id)).await?,
            found => found,
        };
        Ok(found.as_ref().and_then(instance::observed))
    }

    /// What others are told: one that is held still for a copy was not paused, and nobody is to resume
    /// it.
    pub(super) fn told(&self, observed: Observed) -> Observed {
        if observed.state == State::Paused && self.held.holds(observed.id) {
            return Observed { state: State::Running, ..observed };
        }
        observed
    }

    /// Every container that is whole.
    pub(super) async fn list(&self) -> Result<Vec<Observed>> {
        let all = self.instances().await?;
        // What is about to take a container's place counts where that is gone.
        let (own, fresh): (Vec<_>, Vec<_>) =
            all.iter().partition(|instance| instance::fresh(&instance.name).is_none());
        let seen = |instances: Vec<&Instance>| -> BTreeMap<ContainerId, Observed> {
            let seen = instances.into_iter().filter_map(instance::observed);
            seen.map(|observed| (observed.id, observed)).collect()
        };
        let mut list = seen(fresh);
        list.extend(seen(own));
        Ok(list.into_values().collect())
    }

    /// Everything in our project.
    pub(super) async fn instances(&self) -> Result<Vec<Instance>> {
        let all = self.client.get("/1.0/instances?recursion=1").await;
        all.map_err(|fault| fault.during("listing the containers"))
    }

    /// The state of a container that lives.
    async fn alive(&self, id: ContainerId) -> Result<State> {
        let observed = self.observed(id).await?.ok_or(Error::NotFound { id })?;
        match observed.state {
            State::Running | State::Paused => Ok(observed.state),
            State::Created | State::Stopped => Err(Error::NotRunning { id }),
        }
    }

    /// A container that runs; refuses one that does not, or is frozen.
    pub(super) async fn running(&self, id: ContainerId) -> Result<Instance> {
        let instance = self.instance(id).await?.ok_or(Error::NotFound { id })?;
        match instance::observed(&instance).ok_or(Error::NotFound { id })?.state {
            State::Running => Ok(instance),
            State::Paused | State::Created | State::Stopped => Err(Error::NotRunning { id }),
        }
    }

    /// Makes the container, if there is none.
    pub(super) async fn create(self: &Arc<Self>, order: &Order) -> Result<Instance> {
        const WHAT: &str = "creating the container";
        self.settle(order.id).await?;
        match self.instance(order.id).await? {
            Some(instance) if instance::is_made(&instance) => return Ok(instance),
            Some(_) => self.delete(order.id).await?,
            None => {}
        }
        let fingerprint = self.images.fingerprint(&self.client, order, &self.tasks).await?;
        let address = self.network.take(order.id).await?;
        let made = self.make(order.id, &fingerprint, address).await;
        if let Err(fault) = made {
            if self.instance(order.id).await?.is_none() {
                self.network.release(order.id).await?;
            }
            return Err(fault.during(WHAT));
        }
        let made = self.instance(order.id).await?;
        made.ok_or_else(|| Error::failed(WHAT, "it vanished as soon as it was made"))
    }

    /// Makes it of an image.
    pub(super) async fn make(
        &self,
        id: ContainerId,
        fingerprint: &str,
        address: Ipv4Addr,
    ) -> Result<(), Fault> {
        let Config { pool, network, .. } = &self.config;
        let devices = instance::devices(pool, &network.bridge, address, Mounted::default());
        let new = NewInstance {
            name: &instance::name(id),
            kind: "container",
            source: Origin::image(fingerprint),
            profiles: [],
            config: instance::fixed(address),
            devices,
        };
        self.client.change(Method::POST, "/1.0/instances", Some(&new), CREATE_TIMEOUT).await?;
        let patch = Patch { config: [(MADE.to_owned(), "true".to_owned())].into() };
        self.client.change(Method::PATCH, &path(id), Some(&patch), CHANGE_TIMEOUT).await
    }

    /// Starts the init, or finds it running.
    pub(super) async fn run(self: &Arc<Self>, order: &Order) -> Result<Running> {
        const WHAT: &str = "starting the container";
        let instance = self.create(order).await?;
        let address = instance::address(&instance)
            .ok_or_else(|| Error::failed(WHAT, "the key of its address is gone"))?;
        let running = Running { address: address.into() };
        self.network.close(order).await?;
        match instance::observed(&instance).map(|observed| observed.state) {
            Some(State::Running) => return Ok(running),
            Some(State::Paused) => {
                let thawed = self.act(order.id, "unfreeze", false, CHANGE_TIMEOUT).await;
                return thawed.map(|()| running).map_err(|fault| fault.during(WHAT));
            }
            Some(State::Created | State::Stopped) | None => {}
        }
        self.kvm().check(order.kvm)?;
        let ramdisk = self.ramdisk(order).await?;
        let shared = self.project_ramdisk(order).await?;
        let guest = Guest { client: &self.client, name: &instance.name };
        let tunnel = self.prepare_tunnel(order.id, &guest).await?;
        let session = self.furnish(order.id).await?;
        let mounted = Mounted {
            ramdisk: ramdisk.as_deref(),
            project_ramdisk: shared.as_deref(),
            shares: tunnel.as_deref(),
            session: Some(&session),
            kvm: order.kvm,
        };
        let prepared = self.prepare(order, &instance, address, mounted).await;
        prepared.map_err(|fault| fault.during("preparing the container"))?;
        // An Incus that was killed while it started the container leaves the link, whose name the next needs.
        self.network.unplug(order.id, address).await?;
        self.act(order.id, "start", false, CHANGE_TIMEOUT).await.map_err(|f| f.during(WHAT))?;
        self.known.runs(order.id);
        self.network.seal(address).await?;
        Ok(running)
    }

    /// Writes into the container what is new, and sets what holds for this start.
    async fn prepare(
        &self,
        order: &Order,
        instance: &Instance,
        address: Ipv4Addr,
        mounted: Mounted<'_>,
    ) -> Result<(), Fault> {
        let texts =
            Texts::new(&Identity { order, address, nameservers: self.network.nameservers() });
        let digest = texts.digest();
        let mut keys = instance.config.clone();
        let init = if keys.get(IDENTITY) == Some(&digest) {
            Init::parse(keys.get(INIT))
        } else {
            texts.write(&Guest { client: &self.client, name: &instance.name }).await?
        };
        keys.insert(IDENTITY.to_owned(), digest);
        keys.insert(INIT.to_owned(), init.word().to_owned());
        let Config { pool, network, .. } = &self.config;
        let change = Change {
            architecture: &instance.architecture,
            config: instance::config(&keys, order, &self.network, init),
            devices: instance::devices(pool, &network.bridge, address, mounted),
            profiles: [],
            ephemeral: false,
            description: "",
        };
        self.client.change(Method::PUT, &path(order.id), Some(&change), CHANGE_TIMEOUT).await
    }

    /// Gives the container other variables, where commands and logins take them from.
    pub(super) async fn set_environment(
        &self,
        id: ContainerId,
        env: &BTreeMap<String, String>,
    ) -> Result<()> {
        const WHAT: &str = "changing the container's environment";
        let Some(instance) = self.instance(id).await? else { return Ok(()) };
        let Some(mut config) = instance::environment(&instance.config, env) else { return Ok(()) };
        let Some(pid) = self.pid(id).await? else { return Ok(()) };
        let own = env.clone();
        inside::write(&self.writers, pid, id, move |guest| guest.set_environment(id, &own))
            .await
            .map_err(|error| Error::failed(WHAT, error))?;
        // What is written in is not what the last start wrote any more.
        config.insert(IDENTITY.to_owned(), String::new());
        let (patch, to) = (Patch { config }, path(id));
        let changed = self.client.change(Method::PATCH, &to, Some(&patch), CHANGE_TIMEOUT);
        changed.await.map_err(|fault| fault.during(WHAT))
    }

    /// Gives the container another name.
    pub(super) async fn set_hostname(&self, id: ContainerId, hostname: &str) -> Result<()> {
        const WHAT: &str = "changing the container's hostname";
        let (instance, pid) = tokio::try_join!(self.instance(id), self.pid(id))?;
        let (Some(instance), Some(pid)) = (instance, pid) else { return Ok(()) };
        let Some(address) = instance::address(&instance) else { return Ok(()) };
        let failed = |error| Error::failed(WHAT, error);
        hostname::set(format!("/proc/{pid}/ns/uts"), hostname.to_owned()).await.map_err(failed)?;
        let hostname = hostname.to_owned();
        inside::write(&self.writers, pid, id, move |guest| {
            guest.set_hostname(id, &hostname, address);
        })
        .await
        .map_err(failed)
    }

    /// The number of the init of a container that runs, or is frozen.
    pub(super) async fn pid(&self, id: ContainerId) -> Result<Option<u32>> {
        let usage = self.client.find::<Usage>(&format!("{}/state", path(id))).await;
        let usage = usage.map_err(|fault| fault.during("looking at the container"))?;
        Ok(usage.and_then(|usage| u32::try_from(usage.pid).ok()).filter(|pid| *pid > 0))
    }

    /// Whether containers may have `/dev/kvm`.
    pub(super) fn kvm(&self) -> Kvm {
        Kvm::of_host(self.config.kvm)
    }

    /// Mounts the ramdisk, or removes it.
    async fn ramdisk(&self, order: &Order) -> Result<Option<PathBuf>> {
        let (point, memory) = (self.ramdisk_point(order.id), order.limits.memory_bytes);
        if !order.ramdisk {
            remove_ramdisk(point).await?;
            return Ok(None);
        }
        blocking("mounting the ramdisk", move || {
            // What is in it is the container's alone; its root may be anybody's number here.
            let above = point.parent().unwrap_or(&point);
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(above)?;
            std::fs::set_permissions(above, std::fs::Permissions::from_mode(0o700))?;
            std::fs::create_dir_all(&point)?;
            // Incus shifts its owners, so that the host's root is the container's.
            rootfs::mount_ramdisk(&point, memory, 0)?;
            Ok(Some(point))
        })
        .await
    }

    /// Has it share memory with its project, or no more.
    async fn project_ramdisk(self: &Arc<Self>, order: &Order) -> Result<Option<PathBuf>> {
        let (inner, id, own) = (Arc::clone(self), order.id, self.ramdisk_point(order.id));
        let project = order.project_ramdisk.filter(|_| order.ramdisk);
        blocking("mounting the ramdisk of the project", move || {
            inner.project_ramdisks.prepare(id, project, &own)
        })
        .await
    }

    /// What is in the ramdisk of a container.
    pub(super) async fn ramdisk_use(
        self: &Arc<Self>,
        id: ContainerId,
    ) -> Result<Option<RamdiskUse>> {
        let (inner, own) = (Arc::clone(self), self.ramdisk_point(id));
        blocking("looking at the ramdisk", move || inner.project_ramdisks.usage(id, &own)).await
    }

    fn ramdisk_point(&self, id: ContainerId) -> PathBuf {
        self.config.dir.join("ramdisks").join(id.to_string())
    }

    /// Has Incus do something to a container, up to `within`.
    async fn act(
        &self,
        id: ContainerId,
        action: &'static str,
        force: bool,
        within: Duration,
    ) -> Result<(), Fault> {
        let timeout = u64::try_from(within.as_millis().div_ceil(1000)).unwrap_or(u64::MAX).max(1);
        let change = NewState { action, timeout, force };
        let path = format!("{}/state", path(id));
        // Incus itself gives up after `within`; a little later, so do we.
        let within = within.saturating_add(Duration::from_secs(5));
        self.client.change(Method::PUT, &path, Some(&change), within).await
    }

    /// Freezes, or thaws.
    pub(super) async fn set_paused(&self, id: ContainerId, paused: bool) -> Result<()> {
        let (what, action, done) = if paused {
            ("pausing the container", "freeze", State::Paused)
        } else {
            ("resuming the container", "unfreeze", State::Running)
        };
        if self.alive(id).await? == done {
            return Ok(());
        }
        self.act(id, action, false, CHANGE_TIMEOUT).await.map_err(|fault| fault.during(what))
    }

    /// Kills everything in the container. Needs no lock: whoever holds it finds the init ended, as
    /// if it had ended by itself.
    pub(super) async fn kill(&self, id: ContainerId) -> Result<()> {
        match self.act(id, "stop", true, CHANGE_TIMEOUT).await {
            Err(fault) if fault.is_missing() || fault.says("already stopped") => Ok(()),
            other => other.map_err(|fault| fault.during("stopping the container")),
        }
    }

    /// Ends the init.
    pub(super) async fn stop(self: &Arc<Self>, id: ContainerId, grace: Duration) -> Result<()> {
        self.end(id, grace).await?;
        self.unshare(id).await
    }

    async fn end(&self, id: ContainerId, grace: Duration) -> Result<()> {
        let Some(observed) = self.observed(id).await? else { return Ok(()) };
        if matches!(observed.state, State::Created | State::Stopped) {
            return Ok(());
        }
        if !grace.is_zero() {
            if observed.state == State::Paused {
                let thawed = self.act(id, "unfreeze", false, CHANGE_TIMEOUT).await;
                thawed.map_err(|fault| fault.during("stopping the container"))?;
            }
            match self.act(id, "stop", false, grace).await {
                Ok(()) => return Ok(()),
                Err(error) => tracing::info!(%id, %error, "the init did not end and is killed"),
            }
        }
        self.kill(id).await
    }

    /// Removes the container, whole or not, with all that belongs to it.
    pub(super) async fn delete(self: &Arc<Self>, id: ContainerId) -> Result<()> {
        // First, or it would take the container's place.
        self.discard(&instance::fresh_name(id)).await?;
        if self.instance(id).await?.is_some() {
            self.kill(id).await?;
            self.remove_tunnel(id).await?;
            self.discard(&instance::name(id)).await?;
        }
        self.remove_tunnel(id).await?;
        self.unfurnish(id).await?;
        self.known.ended(id);
        remove_ramdisk(self.ramdisk_point(id)).await?;
        let inner = Arc::clone(self);
        blocking("leaving the ramdisk of the project", move || inner.project_ramdisks.leave(id))
            .await?;
        // Last: nobody may get the address while anything here still uses it.
        self.network.release(id).await
    }

    /// Runs work that goes on when nobody waits for it any more.
    pub(super) async fn detached<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let work = self.tasks.spawn(work);
        work.await.map_err(|error| Error::failed("working on the container", error))?
    }
}

/// Where Incus has a container.
pub(super) fn path(id: ContainerId) -> String {
    format!("/1.0/instances/{}", instance::name(id))
}

async fn remove_ramdisk(point: PathBuf) -> Result<()> {
    blocking("removing the ramdisk", move || {
        rootfs::unmount(&point)?;
        match std::fs::remove_dir(&point) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    })
    .await
}

pub(super) async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::failed(what, error))?
        .map_err(|error| Error::failed(what, error))
}
