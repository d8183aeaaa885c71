//! The world that fake runtimes share, and the strings that a test may pull in it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    fmt,
    net::{IpAddr, Ipv4Addr},
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt as _, future::BoxFuture};
use gantry_model::{ContainerId, ProjectId, SnapshotId, container::ImageName};
use ipnet::Ipv4Net;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tokio::sync::broadcast;
use tokio_util::task::TaskTracker;

use super::{
    files::{self, Files, Kept},
    shell,
};
use crate::{
    Error, Exec, ExecOutput, Firewall, ImageInfo, Kit, Kvm, Observed, Order, Outbound, PtySize,
    RamdiskUse, Result, Share, SharedUse, Source, State, Stats,
    locks::{Busy, Locks},
    pool::Pool,
    sessions::WHAT,
};

/// The calls that faults and delays can be injected into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    /// `ensure_created`, also as the first half of `ensure_running`.
    Create,
    /// `ensure_running`.
    Run,
    /// `ensure_stopped`.
    Stop,
    /// `ensure_paused`.
    Pause,
    /// `ensure_resumed`.
    Resume,
    /// `ensure_environment`.
    Environment,
    /// `ensure_hostname`.
    Hostname,
    /// `ensure_firewall`.
    Firewall,
    /// `ensure_outbound`.
    Outbound,
    /// `ensure_shares`.
    Shares,
    /// `ensure_deleted`.
    Delete,
    /// `ensure_copied`.
    Copy,
    /// `ensure_refilled`.
    Refill,
    /// `ensure_snapshot`.
    Snapshot,
    /// `ensure_snapshot_deleted`.
    DeleteSnapshot,
    /// `export`.
    Export,
    /// `ensure_imported`, `ensure_refilled_from` and `ensure_snapshot_imported`.
    Import,
    /// `snapshots`.
    Snapshots,
    /// `list` and `observe`.
    List,
    /// `exec`.
    Exec,
    /// `attach`.
    Attach,
    /// `session`.
    Session,
    /// `stats`.
    Stats,
    /// `images`.
    Images,
}

type Script =
    dyn Fn(ContainerId, Exec) -> BoxFuture<'static, Result<ExecOutput>> + Send + Sync + 'static;
type OnSession = dyn Fn(ContainerId, OwnedFd) + Send + Sync + 'static;
type OnStart = dyn Fn(ContainerId, Ipv4Addr) + Send + Sync + 'static;

/// Where fake containers exist. Clones are the same world.
#[derive(Clone)]
pub struct World(Arc<Shared>);

struct Shared {
    inner: Mutex<Inner>,
    locks: Locks<ContainerId>,
    exits: broadcast::Sender<ContainerId>,
    tasks: TaskTracker,
}

pub(super) struct Inner {
    pool: Pool,
    pub(super) boxes: BTreeMap<ContainerId, Container>,
    pub(super) snapshots: BTreeMap<SnapshotId, Kept>,
    offered: BTreeMap<ImageName, BTreeSet<Kit>>,
    faults: HashMap<Call, VecDeque<Error>>,
    delays: HashMap<Call, Duration>,
    calls: BTreeMap<Call, u64>,
    script: Option<Arc<Script>>,
    on_start: Option<Arc<OnStart>>,
    on_session: Option<Arc<OnSession>>,
    boots: u32,
    kvm: Kvm,
    icons: BTreeMap<ImageName, Vec<u8>>,
    /// What containers of one project share in memory.
    pub(super) project_files: BTreeMap<ProjectId, Files>,
}

pub(super) struct Container {
    pub(super) order: Order,
    address: Ipv4Addr,
    pub(super) state: State,
    starts: u64,
    pty: Option<PtySize>,
    pub(super) files: Files,
    pub(super) shares: Vec<Share>,
}

impl Default for World {
    /// A world whose addresses come from `127.88.0.0/16`.
    fn default() -> Self {
        Self::new(Ipv4Net::new_assert(Ipv4Addr::new(127, 88, 0, 0), 16))
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("World").field(&self.list()).finish()
    }
}

impl World {
    /// A world whose containers get addresses of this network, which offers `debian/13` and
    /// `debian/12` with every kit. Give each test its own loopback network.
    pub fn new(net: Ipv4Net) -> Self {
        let every = BTreeSet::from([Kit::None, Kit::Base, Kit::Dev]);
        let names = [ImageName::DEFAULT, "debian/12"];
        let offered = names
            .iter()
            .filter_map(|name| ImageName::parse("image", name).ok())
            .map(|name| (name, every.clone()))
            .collect();
        Self(Arc::new(Shared {
            inner: Mutex::new(Inner {
                pool: Pool::new(net),
                boxes: BTreeMap::new(),
                snapshots: BTreeMap::new(),
                offered,
                faults: HashMap::new(),
                delays: HashMap::new(),
                calls: BTreeMap::new(),
                script: None,
                on_start: None,
                on_session: None,
                boots: 1,
                kvm: Kvm::Off,
                icons: BTreeMap::new(),
                project_files: BTreeMap::new(),
            }),
            locks: Locks::default(),
            exits: broadcast::channel(1024).0,
            tasks: TaskTracker::new(),
        }))
    }

    /// Offers one more image.
    pub fn offer(&self, image: ImageName, kit: Kit) {
        self.inner().offered.entry(image).or_default().insert(kit);
    }

    /// Gives an image an icon.
    pub fn set_icon(&self, image: ImageName, icon: Vec<u8>) {
        self.inner().icons.insert(image, icon);
    }

    /// Says whether `/dev/kvm` is offered; at first the operator does not want it.
    pub fn set_kvm(&self, kvm: Kvm) {
        self.inner().kvm = kvm;
    }

    /// Makes the next call of this kind fail with `error`; said twice, the next two.
    pub fn fail_next(&self, call: Call, error: Error) {
        self.inner().faults.entry(call).or_default().push_back(error);
    }

    /// Makes every call of this kind take so long (before it has any effect); zero ends that.
    pub fn delay(&self, call: Call, delay: Duration) {
        self.inner().delays.insert(call, delay);
    }

    /// How many calls of this kind were made, failed ones included.
    pub fn calls(&self, call: Call) -> u64 {
        self.inner().calls.get(&call).copied().unwrap_or(0)
    }

    /// Lets `script` answer all commands from now on, instead of the built-in few (`echo`, `cat`,
    /// `true`, `false`, `printenv`, `pwd`, `id -u`, `sleep`, `tee`, `rm`, `kvm-version`). Time limits still
    /// hold.
    pub fn script<F, A>(&self, script: F)
    where
        F: Fn(ContainerId, Exec) -> A + Send + Sync + 'static,
        A: Future<Output = Result<ExecOutput>> + Send + 'static,
    {
        self.inner().script = Some(Arc::new(move |id, command| script(id, command).boxed()));
    }

    /// Calls `hook` whenever a container starts, before the caller hears of it: the place to begin
    /// listening on its address. It must not call the world.
    pub fn on_start(&self, hook: impl Fn(ContainerId, Ipv4Addr) + Send + Sync + 'static) {
        self.inner().on_start = Some(Arc::new(hook));
    }

    /// Gives the other end of each session's connection to `hook`, the place to be the program for sessions.
    /// Without one, no session can be opened: a fake container has nowhere to run a program. It must not
    /// call the world.
    pub fn on_session(&self, hook: impl Fn(ContainerId, OwnedFd) + Send + Sync + 'static) {
        self.inner().on_session = Some(Arc::new(hook));
    }

    /// Ends the init of a running container, as if it had crashed.
    pub fn crash(&self, id: ContainerId) {
        self.stop(id);
    }

    /// Removes a container behind everyone's back.
    pub fn lose(&self, id: ContainerId) {
        self.delete(id);
    }

    /// Restarts the host: nothing runs any more, and runtimes made from now on tell another boot.
    pub fn reboot(&self) {
        let mut inner = self.inner();
        inner.boots += 1;
        for container in inner.boxes.values_mut() {
            if container.state != State::Created {
                container.state = State::Stopped;
            }
        }
    }

    /// The order that a container was last started (or else created) with.
    pub fn order(&self, id: ContainerId) -> Option<Order> {
        self.inner().boxes.get(&id).map(|container| container.order.clone())
    }

    /// How often a container was started.
    pub fn starts(&self, id: ContainerId) -> u64 {
        self.inner().boxes.get(&id).map_or(0, |container| container.starts)
    }

    /// The size of a container's last terminal.
    pub fn pty_size(&self, id: ContainerId) -> Option<PtySize> {
        self.inner().boxes.get(&id)?.pty
    }

    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn icon(&self, image: &ImageName) -> Option<Vec<u8>> {
        self.inner().icons.get(image).cloned()
    }

    pub(super) fn kvm(&self) -> Kvm {
        self.inner().kvm
    }

    pub(super) fn boot_id(&self) -> String {
        format!("fake-boot-{}", self.inner().boots)
    }

    pub(super) fn exits(&self) -> broadcast::Receiver<ContainerId> {
        self.0.exits.subscribe()
    }

    pub(super) fn tasks(&self) -> &TaskTracker {
        &self.0.tasks
    }

    pub(super) async fn lock(&self, id: ContainerId) -> Busy {
        self.0.locks.lock(id).await
    }

    pub(super) async fn lock_with(&self, id: ContainerId, source: Source) -> Vec<Busy> {
        match source {
            Source::Container(other) if other != id => {
                self.0.locks.lock_both(id, other).await.into()
            }
            Source::Container(_) | Source::Snapshot(_) => vec![self.0.locks.lock(id).await],
        }
    }

    /// Counts the call, waits as injected, fails as injected.
    pub(super) async fn enter(&self, call: Call, id: ContainerId) -> Result<()> {
        tracing::trace!(%id, ?call, "fake runtime");
        self.enter_any(call).await
    }

    pub(super) async fn enter_any(&self, call: Call) -> Result<()> {
        let (delay, fault) = {
            let mut inner = self.inner();
            *inner.calls.entry(call).or_default() += 1;
            let fault = inner.faults.get_mut(&call).and_then(VecDeque::pop_front);
            (inner.delays.get(&call).copied().unwrap_or_default(), fault)
        };
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        fault.map_or(Ok(()), Err)
    }

    pub(super) fn create(&self, order: &Order) -> Result<()> {
        let mut inner = self.inner();
        let known = inner.offered.get(&order.image).is_some_and(|kits| kits.contains(&order.kit));
        if !known && !inner.boxes.contains_key(&order.id) {
            return Err(Error::UnknownImage { name: order.image.as_str().to_owned() });
        }
        inner.create(order, Files::new())
    }

    pub(super) fn run(&self, order: &Order) -> Result<Ipv4Addr> {
        let (address, hook) = {
            let mut inner = self.inner();
            let (hook, kvm) = (inner.on_start.clone(), inner.kvm);
            let container =
                inner.boxes.get_mut(&order.id).ok_or(Error::NotFound { id: order.id })?;
            match container.state {
                State::Running => return Ok(container.address),
                State::Paused => {
                    container.state = State::Running;
                    return Ok(container.address);
                }
                State::Created | State::Stopped => {}
            }
            kvm.check(order.kvm)?;
            container.state = State::Running;
            container.starts += 1;
            container.order = order.clone();
            let address = container.address;
            inner.forget_project_files();
            (address, hook)
        };
        if let Some(hook) = hook {
            hook(order.id, address);
        }
        Ok(address)
    }

    pub(super) fn stop(&self, id: ContainerId) {
        let mut inner = self.inner();
        for other in inner.boxes.values_mut() {
            other.shares.retain(|share| share.source != id);
        }
        if let Some(container) = inner.boxes.get_mut(&id)
            && matches!(container.state, State::Running | State::Paused)
        {
            container.state = State::Stopped;
            container.shares.clear();
            // Nobody listening is no failure: exits are a hint.
            drop(self.0.exits.send(id));
        }
    }

    /// From running to paused or back; the state that is wished for may be the present one.
    pub(super) fn freeze(&self, id: ContainerId, wish: State) -> Result<()> {
        let mut inner = self.inner();
        let container = inner.boxes.get_mut(&id).ok_or(Error::NotFound { id })?;
        match container.state {
            State::Running | State::Paused => container.state = wish,
            State::Created | State::Stopped => return Err(Error::NotRunning { id }),
        }
        Ok(())
    }

    pub(super) fn set_environment(&self, id: ContainerId, env: &BTreeMap<String, String>) {
        if let Some(container) = self.inner().boxes.get_mut(&id)
            && matches!(container.state, State::Running | State::Paused)
        {
            container.order.env.clone_from(env);
        }
    }

    pub(super) fn set_hostname(&self, id: ContainerId, hostname: &str) {
        if let Some(container) = self.inner().boxes.get_mut(&id)
            && matches!(container.state, State::Running | State::Paused)
        {
            hostname.clone_into(&mut container.order.hostname);
        }
    }

    pub(super) fn set_firewall(&self, id: ContainerId, firewall: &Firewall) {
        if let Some(container) = self.inner().boxes.get_mut(&id)
            && container.order.firewall.version < firewall.version
        {
            container.order.firewall.clone_from(firewall);
        }
    }

    pub(super) fn set_outbound(&self, id: ContainerId, outbound: &Outbound) {
        if let Some(container) = self.inner().boxes.get_mut(&id)
            && container.order.outbound.version < outbound.version
        {
            container.order.outbound.clone_from(outbound);
        }
    }

    pub(super) fn delete(&self, id: ContainerId) {
        self.stop(id);
        let mut inner = self.inner();
        if inner.boxes.remove(&id).is_some() {
            inner.pool.release(id);
            inner.forget_project_files();
        }
    }

    pub(super) fn list(&self) -> Vec<Observed> {
        self.inner().boxes.values().map(Container::observed).collect()
    }

    pub(super) fn observe(&self, id: ContainerId) -> Option<Observed> {
        self.inner().boxes.get(&id).map(Container::observed)
    }

    /// The order of a running container.
    pub(super) fn running(&self, id: ContainerId) -> Result<Order> {
        let inner = self.inner();
        let container = inner.boxes.get(&id).ok_or(Error::NotFound { id })?;
        match container.state {
            State::Running => Ok(container.order.clone()),
            State::Created | State::Paused | State::Stopped => Err(Error::NotRunning { id }),
        }
    }

    /// Opens a session in a running container.
    pub(super) fn session(&self, id: ContainerId) -> Result<OwnedFd> {
        if self.inner().boxes.get(&id).is_some_and(|found| found.state == State::Paused) {
            return Err(Error::Paused { id });
        }
        self.running(id)?;
        let hook = self.inner().on_session.clone().ok_or(Error::NoPlace { id })?;
        let flags = SocketFlags::CLOEXEC;
        let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
        let (ours, theirs) = pair.map_err(|error| Error::failed(WHAT, error))?;
        hook(id, theirs);
        Ok(ours)
    }

    /// The script's answer to a command; the container's variables are added to it.
    pub(super) fn answer(
        &self,
        id: ContainerId,
        command: &Exec,
    ) -> Result<BoxFuture<'static, Result<ExecOutput>>> {
        let mut command = command.clone();
        let order = self.running(id)?;
        let mut env = order.env;
        env.append(&mut command.env);
        command.env = env;
        let mut inner = self.inner();
        if let Some(script) = &inner.script {
            return Ok(script(id, command));
        }
        let name = hostname(&inner, id)?;
        Ok(match files::run(&mut inner, id, &command) {
            Some(output) => std::future::ready(Ok(output)).boxed(),
            None => shell::run(command, name, order.kvm).boxed(),
        })
    }

    pub(super) fn resized(&self, id: ContainerId, size: PtySize) {
        if let Some(container) = self.inner().boxes.get_mut(&id) {
            container.pty = Some(size);
        }
    }

    pub(super) fn stats(&self, id: ContainerId) -> Result<Stats> {
        let inner = self.inner();
        let container = inner.boxes.get(&id).ok_or(Error::NotFound { id })?;
        match container.state {
            State::Running | State::Paused => Ok(Stats {
                cpu_ns: 1_000_000,
                memory_bytes: 1 << 20,
                memory_peak_bytes: 1 << 20,
                memory_limit_bytes: container.order.limits.memory_bytes,
                pids: 1,
                ramdisk: container.order.ramdisk.then(|| inner.ramdisk_use(&container.order)),
                ..Stats::default()
            }),
            State::Created | State::Stopped => Err(Error::NotRunning { id }),
        }
    }

    pub(super) fn images(&self) -> Vec<ImageInfo> {
        let inner = self.inner();
        let pairs =
            inner.offered.iter().flat_map(|(name, kits)| kits.iter().map(move |k| (name, k)));
        pairs
            .map(|(name, kit)| ImageInfo {
                name: name.clone(),
                kit: *kit,
                cached: true,
                disk_bytes: Some(0),
            })
            .collect()
    }
}

fn hostname(inner: &Inner, id: ContainerId) -> Result<String> {
    let container = inner.boxes.get(&id).ok_or(Error::NotFound { id })?;
    Ok(container.order.hostname.clone())
}

impl Inner {
    /// Forgets what no container has any more.
    fn forget_project_files(&mut self) {
        let boxes = &self.boxes;
        let has = |project| boxes.values().any(|one| one.order.project_ramdisk == Some(project));
        self.project_files.retain(|project, _| has(*project));
    }

    fn ramdisk_use(&self, order: &Order) -> RamdiskUse {
        let project = order.project_ramdisk.map(|project| SharedUse {
            used_bytes: self
                .project_files
                .get(&project)
                .map_or(0, |files| files.values().map(|content| content.len() as u64).sum()),
            max_bytes: 512 << 20,
        });
        RamdiskUse { private_bytes: 0, project }
    }

    /// Adds a container with these files, unless there is one.
    pub(super) fn create(&mut self, order: &Order, files: Files) -> Result<()> {
        if self.boxes.contains_key(&order.id) {
            return Ok(());
        }
        let address = self.pool.take(order.id).ok_or(Error::NoAddress)?;
        let (order, state) = (order.clone(), State::Created);
        let container =
            Container { order, address, state, starts: 0, pty: None, files, shares: Vec::new() };
        self.boxes.insert(container.order.id, container);
        Ok(())
    }
}

impl Container {
    fn observed(&self) -> Observed {
        Observed { id: self.order.id, state: self.state, address: Some(IpAddr::V4(self.address)) }
    }
}
