//! A whole control plane for one test: store in a directory of its own, a fake world, no network.

use std::{path::PathBuf, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use gantry_control::{
    Actor, Clock, Condition, ContainerQuery, ContainerSort, ContainerView, Controller, Deps,
    Limits, NewContainer, NewProject, Operation, Page, Project, Reconciler, ReconcilerConfig,
    SealingKeys, Served, Servers, Signing, Via,
};
use gantry_model::{ContainerId, Phase, ServerId, UserId};
use gantry_runtime::{
    Runtime,
    fake::{Fake, World},
};
use gantry_store::{Server, Store, User};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The bound of every wait.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// 2026-01-01, the time that every test begins at.
pub(crate) const START_MS: i64 = 1_767_225_600_000;

pub(crate) struct Bench {
    pub(crate) store: Store,
    pub(crate) world: World,
    pub(crate) clock: Clock,
    pub(crate) server: Server,
    /// The servers that the control plane runs: the one above, until a test says otherwise.
    served: Vec<Served>,
    pub(crate) control: Controller,
    pub(crate) actor: Actor,
    /// The running reconciler, if any; dropping it is a crash.
    reconciler: JoinSet<()>,
    shutdown: CancellationToken,
    dir: TempDir,
}

async fn controller(
    store: &Store,
    servers: Servers,
    clock: &Clock,
    limits: Limits,
    sealing: SealingKeys,
) -> Result<Controller, gantry_control::Error> {
    Controller::new(Deps {
        store: store.clone(),
        servers,
        domain: "gantry.localhost".parse().unwrap(),
        url_port: 8443,
        clock: clock.clone(),
        names: Arc::new(gantry_control::DnsNames::of_host()),
        published: None,
        limits,
        sealing,
        signing: Signing::Claims,
    })
    .await
}

/// Quick to try again, slow to look unasked: what should wake the reconciler must do so.
pub(crate) fn quick() -> ReconcilerConfig {
    ReconcilerConfig {
        resync: Duration::from_hours(1),
        backoff_min: Duration::from_millis(1),
        refill_rest: Duration::from_millis(1),
        backoff_max: Duration::from_millis(20),
        shutdown_grace: PATIENCE,
        ..ReconcilerConfig::default()
    }
}

impl Bench {
    /// Everything but a running reconciler.
    pub(crate) async fn new() -> Self {
        Self::with_limits(Limits { password_hashes_max: 2, ..Limits::default() }).await
    }

    pub(crate) async fn with_limits(limits: Limits) -> Self {
        let dir = TempDir::new().unwrap();
        let store = Store::open(&dir.path().join("gantry.db")).await.unwrap();
        let clock = Clock::manual(START_MS);
        let world = World::default();
        let candidate = ServerId::from_bytes([7; 12]);
        let name = "local".parse().unwrap();
        let server = store.ensure_server(candidate, &name, START_MS).await.unwrap();
        let runtime = Arc::new(Fake::new(world.clone()));
        let all = vec![Served { server: server.clone(), runtime }];
        let servers = Servers::new(all.clone());
        let sealing = SealingKeys::new(&[[3; 32]]).unwrap();
        let control = controller(&store, servers, &clock, limits, sealing).await.unwrap();
        let actor = add_user(&store, 1, "alice", false).await;
        Self {
            store,
            world,
            clock,
            server,
            served: all,
            control,
            actor,
            reconciler: JoinSet::new(),
            shutdown: CancellationToken::new(),
            dir,
        }
    }

    /// The control plane of another start on the same store, with these keys.
    pub(crate) async fn control_with(
        &self,
        sealing: SealingKeys,
    ) -> Result<Controller, gantry_control::Error> {
        let limits = Limits { password_hashes_max: 2, ..Limits::default() };
        controller(&self.store, self.servers(), &self.clock, limits, sealing).await
    }

    /// Everything, and a reconciler at work.
    pub(crate) async fn running() -> Self {
        let mut bench = Self::new().await;
        bench.reconcile(quick());
        bench
    }

    /// Starts a reconciler, as a new process would.
    pub(crate) fn reconcile(&mut self, config: ReconcilerConfig) {
        self.shutdown = CancellationToken::new();
        let servers = self.servers();
        for served in servers.iter() {
            let reconciler = Reconciler::new(
                self.store.clone(),
                servers.clone(),
                served.clone(),
                self.clock.clone(),
                self.control.sealing(),
                config,
            );
            self.reconciler.spawn(reconciler.run(self.shutdown.clone()));
        }
    }

    /// The servers of the control plane.
    pub(crate) fn servers(&self) -> Servers {
        // As a new process finds them, perhaps after a reboot.
        let anew = |served: &Served| {
            let is_own = served.server == self.server;
            let runtime = if is_own { self.runtime() } else { Arc::clone(&served.runtime) };
            Served { server: served.server.clone(), runtime }
        };
        Servers::new(self.served.iter().map(anew).collect())
    }

    /// The control plane of another start, whose configuration has these servers.
    pub(crate) async fn serve(&mut self, served: Vec<Served>) {
        self.served = served;
        let sealing = SealingKeys::new(&[[3; 32]]).unwrap();
        self.control = self.control_with(sealing).await.unwrap();
    }

    /// The store's file.
    pub(crate) fn store_path(&self) -> PathBuf {
        self.dir.path().join("gantry.db")
    }

    pub(crate) fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::new(Fake::new(self.world.clone()))
    }

    /// Drops the reconciler wherever it stands.
    pub(crate) async fn crash(&mut self) {
        self.reconciler.shutdown().await;
    }

    /// Ends the reconciler in order.
    pub(crate) async fn shut_down(&mut self) {
        self.shutdown.cancel();
        while let Some(ended) =
            tokio::time::timeout(PATIENCE, self.reconciler.join_next()).await.unwrap()
        {
            ended.unwrap();
        }
    }

    pub(crate) async fn project(&self) -> Project {
        self.project_named("main").await
    }

    pub(crate) async fn project_named(&self, alias: &str) -> Project {
        let new = NewProject { alias: Some(alias.to_owned()), ..NewProject::default() };
        self.control.create_project(&self.actor, new).await.unwrap()
    }

    /// What a client says who wants nothing special.
    pub(crate) fn plain(&self) -> NewContainer {
        NewContainer { server_id: Some(self.server.id.to_string()), ..NewContainer::default() }
    }

    pub(crate) async fn create(&self, project: &Project, new: NewContainer) -> ContainerView {
        self.control.create_container(&self.actor, project.id, new).await.unwrap()
    }

    /// A container that runs.
    pub(crate) async fn running_container(&self, project: &Project) -> ContainerView {
        let made = self.create(project, self.plain()).await;
        self.reach(made.record.id, Condition::Running).await
    }

    /// Waits for the condition and demands it.
    pub(crate) async fn reach(&self, id: ContainerId, condition: Condition) -> ContainerView {
        let waited = self.control.wait_for(&self.actor, id, condition, PATIENCE).await.unwrap();
        let view = waited.container.unwrap();
        assert!(waited.met, "{condition:?} is not reached: {:?}", view.record.status);
        view
    }

    /// Waits until the record shows this phase.
    pub(crate) async fn phase(&self, id: ContainerId, phase: Phase) -> ContainerView {
        let mut head = self.store.head();
        let seen = async {
            loop {
                head.mark_unchanged();
                let view = self.control.container(&self.actor, id).await.unwrap();
                if view.record.status.phase == phase {
                    return view;
                }
                head.changed().await.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, seen).await.unwrap()
    }

    pub(crate) async fn operate(&self, id: ContainerId, operation: Operation) -> ContainerView {
        let operated =
            self.control.operate(&self.actor, id, operation, Some(PATIENCE)).await.unwrap();
        assert!(operated.done, "{operation} did not come true: {:?}", operated.container);
        operated.container
    }

    /// Everything that the actor's lists show.
    pub(crate) async fn all(&self) -> Vec<ContainerView> {
        let query = ContainerQuery {
            project: None,
            realm: None,
            include_deleting: true,
            include_prespawn: false,
            page: first_page(),
        };
        self.control.containers(&self.actor, query).await.unwrap().items
    }
}

pub(crate) fn first_page() -> Page<ContainerSort> {
    Page { page: 1, limit: 200, sort: ContainerSort::CreatedAt, descending: false }
}

/// Adds a user without a password and returns it as if it had logged in.
pub(crate) async fn add_user(store: &Store, number: u8, name: &str, is_admin: bool) -> Actor {
    let user = User {
        id: UserId::from_bytes([number; 12]),
        username: name.to_owned(),
        password_hash: "none".to_owned(),
        is_admin,
        session_generation: 0,
        created_at_ms: START_MS,
        updated_at_ms: START_MS,
    };
    store.create_user(&user).await.unwrap();
    Actor {
        user: user.id,
        username: user.username,
        is_admin,
        via: Via::Session { generation: 0, expires_at_ms: i64::MAX },
        realm: None,
    }
}

/// A well-formed ed25519 key line.
pub(crate) fn ssh_key(number: u8) -> String {
    let mut blob = Vec::new();
    for part in [b"ssh-ed25519".as_slice(), &[number; 32]] {
        blob.extend(u32::try_from(part.len()).unwrap().to_be_bytes());
        blob.extend(part);
    }
    format!("ssh-ed25519 {}", STANDARD.encode(blob))
}

/// Waits until the world is as wanted, looking again and again within the bound.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let looking = async {
        let mut again = tokio::time::interval(Duration::from_millis(1));
        while !holds() {
            again.tick().await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, looking).await.is_ok(), "never true: {what}");
}
