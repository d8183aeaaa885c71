//! The parts of a running Gantry: made, connected and ended in order.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use gantry_control::{
    Clock, Controller, Credential, Deps, DnsNames, Idler, RecheckConfig, Rechecker, Reconciler,
    ReconcilerConfig, SealingKeys, Served, Servers, SnapshotKeeper, Starter, StarterConfig,
};
use gantry_model::ServerId;
use gantry_proxy::Edge;
use gantry_router::Routes;
use gantry_store::Store;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    before::Inheritance,
    certificates, certs, doctor,
    earlier::{Bound, Earlier},
    exec::Helpers,
    explain,
    files::{Files, RunFile},
    glue, host, kit,
    lock::Lock,
    runtime, ssh, upgrade,
};
use crate::config::{AccessLog, Config};

/// How long background tasks get to end once the edge has drained.
const TASKS_GRACE: Duration = Duration::from_secs(15);
/// How often it is looked whether another process has written, while there may be one.
const OTHERS_EVERY: Duration = Duration::from_millis(200);

fn api_config(
    config: &Config,
    servers: &Servers,
    places: &[runtime::Place<'_>],
    ssh: &gantry_ssh::Front,
) -> gantry_api::ApiConfig {
    let machines = servers
        .iter()
        .zip(places)
        .map(|(served, place)| (served.server.id, host::machine(place.disk())));
    gantry_api::ApiConfig {
        event_streams_max: config.control.event_streams,
        event_streams_per_account_max: config.control.event_streams_per_user,
        machines: Arc::new(machines.collect()),
        ssh: config.edge.ssh.first().map(|address| gantry_api::SshAddress {
            port: address.port(),
            host_key: ssh.host_key().to_owned(),
        }),
        ..gantry_api::ApiConfig::default()
    }
}

/// Everything that runs.
pub(super) struct Daemon {
    pub(super) core: Core,
    pub(super) edge: Edge,
    pub(super) ssh: ssh::Prepared,
    pub(super) servers: Servers,
    pub(super) routes: Routes,
    pub(super) activity: gantry_proxy::Activity,
    certificates: certificates::Certificates,
    /// What only one process at a time may do.
    pub(super) keepers: Keepers,
    /// The processes before this one.
    pub(super) earlier: Earlier,
    pub(super) lock: Lock,
    pub(super) run_file: RunFile,
}

/// What the other parts stand on.
pub(super) struct Core {
    pub(super) store: Store,
    starter: Starter,
    pub(super) control: Controller,
    /// Has the API's requests that run to their end even if their client has gone, and ends its streams,
    /// which would otherwise last as long as their clients.
    pub(super) api_config: gantry_api::ApiConfig,
    pub(super) tasks: JoinSet<&'static str>,
    pub(super) shutdown: CancellationToken,
}

/// What changes containers and looks after them.
#[derive(Default)]
pub(super) struct Keepers {
    tasks: JoinSet<&'static str>,
    shutdown: CancellationToken,
}

impl Keepers {
    /// Has them end; what they have under way gets a little time.
    pub(super) async fn rest(&mut self) {
        self.shutdown.cancel();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(TASKS_GRACE, ended).await.is_err() {
            tracing::warn!("some of what looks after containers does not end in time");
            self.tasks.shutdown().await;
        }
    }
}

impl Daemon {
    /// Makes all parts, each after what it stands on, up to the moment before the first connection; the ports
    /// are opened last, when every route is known.
    pub(super) async fn start(
        config: &Config,
        files: &Files,
        mut inheritance: Inheritance,
    ) -> anyhow::Result<(Self, Option<Credential>)> {
        let clock = Clock::system();
        let shutdown = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let store = open_store(files, &inheritance, &mut tasks, &shutdown).await?;
        let places = runtime::places(config, files);
        let servers =
            open_servers(&store, &places, &mut inheritance, &clock, (&mut tasks, &shutdown))
                .await?;
        let named_servers = gantry_router::Servers::new(
            servers.iter().map(|served| (served.server.id, served.server.name.clone())),
        );
        let (routes, feed) = gantry_router::Feed::start(store.clone(), &named_servers)
            .await
            .context("cannot read the routes from the store")?;
        tasks.spawn(named("router feed", feed.run(shutdown.clone())));
        let shown = certificates::start(config, files, &store, &mut tasks, &shutdown).await?;
        let control = controller(config, files, &store, &servers, &routes, &clock).await?;
        let admin =
            control.bootstrap_admin().await.context("cannot make the first administrator")?;
        let (activity, inherited) = (gantry_proxy::Activity::default(), &mut inheritance.sockets);
        let seen = (&routes, &activity);
        let ssh =
            ssh::prepare(&config.edge, &control, seen, inherited, &mut tasks, &shutdown).await?;
        let api_config = api_config(config, &servers, &places, &ssh.front);
        let starter = Starter::new(
            store.clone(),
            servers.clone(),
            kit::start_command,
            StarterConfig { timeout: config.edge.service_start, ..StarterConfig::default() },
        );
        let edge_config = edge_config(config, files, named_servers, &places);
        let logs = gantry_proxy::Logs::new(&edge_config);
        let commands = Arc::new(Helpers(Arc::clone(&ssh.front)));
        let api = glue::api(control.clone(), api_config.clone(), logs.clone(), commands);
        let session_key = files.session_key();
        let session_key = session_key.context("cannot read or make the key of sessions")?;
        let made = Made {
            api,
            routes: routes.clone(),
            certificates: shown.clone(),
            session_key: gantry_proxy::SessionKey::new(session_key),
            starter: starter.clone(),
            waker: glue::WakeContainers(control.clone()),
            activity: activity.clone(),
            logs,
            kit: config.kit.clone(),
            ssh: Arc::clone(&ssh.front),
        };
        let edge = Edge::prepare(edge_config, edge_deps(made), inheritance.sockets)
            .context("cannot start the edge")?;
        let run_file = run_file(config, shown.ca.clone(), ssh.front.host_key());
        let earlier = Earlier::new(inheritance.giver, Bound::of(config), &activity, &store);
        let core = Core { store, starter, control, api_config, tasks, shutdown };
        let daemon = Self {
            core,
            edge,
            ssh,
            servers,
            routes,
            activity,
            certificates: shown,
            keepers: Keepers::default(),
            earlier,
            lock: inheritance.lock,
            run_file,
        };
        Ok((daemon, admin))
    }

    /// Takes connections from now on.
    pub(super) fn serve(&mut self) -> anyhow::Result<()> {
        self.edge.begin().context("cannot start the edge")?;
        self.ssh.serve(&mut self.core.tasks).context("cannot start the SSH front")
    }

    /// Lets itself be found in the state directory, and asked for an upgrade.
    pub(super) fn tell(
        &mut self,
        config: &Config,
        files: &Files,
        upgrades: &mpsc::Sender<upgrade::Asker>,
    ) -> anyhow::Result<()> {
        let Core { tasks, shutdown, store, .. } = &mut self.core;
        let certs = certs::Desk::new(config, &self.certificates, store);
        let doctor = doctor::Desk::new(certs, config, &self.routes, &self.servers);
        let desk = explain::Desk { upgrades: upgrades.clone(), doctor };
        explain::answer(files, config, &desk, tasks, shutdown)
            .context("cannot listen on the socket in the state directory")?;
        self.lock.sign().context("cannot write gantry.lock")?;
        files.write_run(&self.run_file).context("cannot write run.json")
    }

    /// Starts what changes containers and looks after them, for the first time or again.
    pub(super) fn keep(&mut self, config: &Config, files: &Files) {
        let mut keepers = Keepers::default();
        let (control, clock) = (&self.core.control, Clock::system());
        for (served, place) in self.servers.iter().zip(&runtime::places(config, files)) {
            let reconciler = reconciler(config, place, &self.core.store, served, control, &clock);
            keepers.tasks.spawn(named("reconciler", reconciler.run(keepers.shutdown.clone())));
        }
        let (tasks, shutdown) = (&mut keepers.tasks, &keepers.shutdown);
        watch(config, control, &self.routes, &self.activity, tasks, shutdown);
        self.certificates.order(config, &self.core.store, &self.routes, tasks, shutdown);
        self.keepers = keepers;
    }

    /// Waits until a task ends that should not have; says which.
    pub(super) async fn unexpected_end(&mut self) -> &'static str {
        let ended = tokio::select! {
            Some(ended) = self.core.tasks.join_next() => ended,
            Some(ended) = self.keepers.tasks.join_next() => ended,
            else => std::future::pending().await,
        };
        ended.unwrap_or_else(|error| {
            tracing::error!(%error, "a task of the control plane panicked");
            "control plane"
        })
    }

    /// Ends everything: no new connections, running requests to their end or the deadline, then the
    /// tasks, then the store. Containers stay as they are.
    pub(super) async fn stop(self, drain: Duration) {
        let Self { core, edge, mut keepers, earlier, .. } = self;
        core.api_config.closing.cancel();
        core.api_config.ending.cancel();
        // A service manager may kill them once this process has ended.
        tokio::join!(edge.drain(drain), earlier.stop(drain));
        earlier.end().await;
        core.end(&mut keepers).await;
    }
}

impl Core {
    /// Ends what stands behind the edge, which has ended.
    pub(super) async fn end(mut self, keepers: &mut Keepers) {
        self.api_config.tasks.close();
        // Before the reconciler ends: they may wait for what it does.
        let (requests, looks) = tokio::join!(
            tokio::time::timeout(TASKS_GRACE, self.api_config.tasks.wait()),
            tokio::time::timeout(TASKS_GRACE, self.control.close_looks()),
        );
        if requests.is_err() {
            tracing::warn!("some requests with a key did not end; their clients may try again");
        }
        if looks.is_err() {
            tracing::warn!("a container that was asked what runs inside it has not answered");
        }
        self.shutdown.cancel();
        let end = async {
            tokio::join!(self.starter.close(), keepers.rest());
            while self.tasks.join_next().await.is_some() {}
        };
        if tokio::time::timeout(TASKS_GRACE, end).await.is_err() {
            tracing::warn!("some tasks did not end within {} s", TASKS_GRACE.as_secs());
            self.tasks.abort_all();
        }
        self.store.close().await;
        tracing::info!("stopped");
    }
}

async fn open_store(
    files: &Files,
    inheritance: &Inheritance,
    tasks: &mut JoinSet<&'static str>,
    shutdown: &CancellationToken,
) -> anyhow::Result<Store> {
    const WHAT: &str = "cannot open the store";
    if inheritance.giver.is_none() {
        return Store::open(&files.store()).await.context(WHAT);
    }
    let store = Store::open_beside(&files.store()).await.context(WHAT)?;
    heed_others(&store, tasks, shutdown);
    Ok(store)
}

/// Has the store tell of what other processes write until the shutdown.
pub(super) fn heed_others(
    store: &Store,
    tasks: &mut JoinSet<&'static str>,
    shutdown: &CancellationToken,
) {
    let (store, shutdown) = (store.clone(), shutdown.clone());
    tasks.spawn(named("look at what other processes write", async move {
        shutdown.run_until_cancelled(store.heed_others(OTHERS_EVERY)).await;
    }));
}

/// Starts what looks after containers, hostnames and snapshots from time to time.
fn watch(
    config: &Config,
    control: &Controller,
    routes: &Routes,
    activity: &gantry_proxy::Activity,
    tasks: &mut JoinSet<&'static str>,
    shutdown: &CancellationToken,
) {
    let idler = idler(control, routes, activity);
    tasks.spawn(named("idler", idler.run(shutdown.clone())));
    let rechecker = rechecker(config, control, control.clock());
    tasks.spawn(named("rechecker of hostnames", rechecker.run(shutdown.clone())));
    let keeper = SnapshotKeeper::new(control.clone());
    tasks.spawn(named("keeper of snapshots", keeper.run(shutdown.clone())));
}

/// A task that says which one has ended.
pub(super) async fn named(name: &'static str, task: impl Future<Output = ()>) -> &'static str {
    task.await;
    name
}

/// Records each server and opens its runtime.
async fn open_servers(
    store: &Store,
    places: &[runtime::Place<'_>],
    inheritance: &mut Inheritance,
    clock: &Clock,
    (tasks, shutdown): (&mut JoinSet<&'static str>, &CancellationToken),
) -> anyhow::Result<Servers> {
    let mut servers = Vec::new();
    for place in places {
        let mut bytes = [0; 12];
        getrandom::fill(&mut bytes).context("the system gives no random numbers")?;
        let id = ServerId::from_bytes(bytes);
        let server = store.ensure_server(id, place.name, clock.now_ms()).await;
        let server = server.with_context(|| format!("cannot record server {}", place.name))?;
        let bequest = inheritance.runtime(place.name.as_str());
        servers.push(Served { server, runtime: place.open(bequest, tasks, shutdown).await? });
    }
    Ok(Servers::new(servers))
}

async fn controller(
    config: &Config,
    files: &Files,
    store: &Store,
    servers: &Servers,
    routes: &Routes,
    clock: &Clock,
) -> anyhow::Result<Controller> {
    let keys = files.sealing_keys().context("cannot read or make the keys that seal secrets")?;
    let deps = Deps {
        store: store.clone(),
        servers: servers.clone(),
        domain: config.server.domain.clone(),
        url_port: config.edge.url_port,
        clock: clock.clone(),
        names: Arc::new(
            config.control.resolver.map_or_else(DnsNames::of_host, DnsNames::of_server),
        ),
        published: Some(routes.published()),
        limits: config.control.limits,
        sealing: SealingKeys::new(&keys)?,
        signing: config.control.signing,
    };
    Controller::new(deps).await.context("cannot start the control plane")
}

fn reconciler(
    config: &Config,
    place: &runtime::Place<'_>,
    store: &Store,
    served: &Served,
    control: &Controller,
    clock: &Clock,
) -> Reconciler {
    let limits = gantry_runtime::Limits {
        memory_bytes: place.chosen.memory_bytes,
        cpu_millis: place.chosen.cpu_millis,
        pids: place.chosen.pids,
    };
    let settings = ReconcilerConfig {
        concurrency: config.control.concurrency,
        events_max: config.control.events_per_user,
        activity_max: config.control.activity_per_user,
        stop_grace: config.control.stop_grace,
        limits,
        ..ReconcilerConfig::default()
    };
    let (servers, sealing) = (control.servers_here().clone(), control.sealing());
    Reconciler::new(store.clone(), servers, served.clone(), clock.clone(), sealing, settings)
}

fn rechecker(config: &Config, control: &Controller, clock: &Clock) -> Rechecker {
    let period = config.control.hostname_check;
    let settings = RecheckConfig { period, ..RecheckConfig::default() };
    Rechecker::new(control.clone(), clock.clone(), settings)
}

fn idler(control: &Controller, routes: &Routes, activity: &gantry_proxy::Activity) -> Idler {
    let traffic = glue::EdgeTraffic {
        routes: routes.clone(),
        activity: activity.clone(),
        begun_ms: glue::now_ms(),
    };
    Idler::new(control.clone(), Arc::new(traffic))
}

/// What the edge is given.
struct Made {
    api: gantry_proxy::ApiService,
    routes: Routes,
    certificates: certificates::Certificates,
    session_key: gantry_proxy::SessionKey,
    starter: Starter,
    waker: glue::WakeContainers,
    activity: gantry_proxy::Activity,
    logs: gantry_proxy::Logs,
    kit: gantry_proxy::KitPorts,
    ssh: Arc<gantry_ssh::Front>,
}

fn edge_deps(made: Made) -> gantry_proxy::Deps {
    let Made { api, routes, certificates, session_key, starter, waker, activity, logs, kit, ssh } =
        made;
    let certificate_metrics = certificates.metrics();
    gantry_proxy::Deps {
        certificates: certificates.resolver,
        tickets: Some(certificates.shelf.tickets()),
        challenges: Some(certificates.shelf),
        session_key,
        api,
        control: tokio::runtime::Handle::current(),
        start_service: Arc::new(glue::StartServices(starter)),
        wake: Arc::new(waker),
        activity,
        logs,
        kit,
        now_ms: glue::now_ms,
        readiness: vec![Arc::new(glue::RoutesAreFresh(routes.clone()))],
        metrics: vec![
            glue::route_metrics(routes.clone()),
            glue::memory_metrics(),
            certificate_metrics,
            Arc::new(move |text: &mut String| ssh.render_metrics(text)),
        ],
        routes,
    }
}

fn edge_config(
    config: &Config,
    files: &Files,
    servers: gantry_router::Servers,
    places: &[runtime::Place<'_>],
) -> gantry_proxy::Config {
    let edge = &config.edge;
    gantry_proxy::Config {
        listen_https: edge.https.clone(),
        http3: edge.http3,
        listen_http: edge.http.clone(),
        listen_plain: Vec::new(),
        listen_admin: vec![edge.admin],
        workers: edge.workers,
        domain: config.server.domain.clone(),
        servers,
        url_port: edge.url_port,
        proxy_protocol_from: edge.proxy_protocol_from.clone(),
        upstream_source: edge.client_address,
        container_networks: runtime::networks(places),
        limits: gantry_proxy::Limits {
            head_timeout: edge.head,
            idle: edge.idle,
            connect_timeout: edge.connect,
            upstream_head_timeout: edge.answer,
            stream_idle: edge.upgrade_idle,
            service_start_timeout: edge.service_start,
            wake_timeout: edge.wake,
            ..config.limits
        },
        access_log: match &config.log.access {
            AccessLog::Off => gantry_proxy::AccessLog::Off,
            AccessLog::Stdout => gantry_proxy::AccessLog::Stdout,
            AccessLog::State => gantry_proxy::AccessLog::File(files.access_log()),
            AccessLog::File(path) => gantry_proxy::AccessLog::File(path.clone()),
        },
        logs: config.logs.clone(),
    }
}

fn run_file(config: &Config, ca: PathBuf, ssh_host_key: &str) -> RunFile {
    let text = |list: &[std::net::SocketAddr]| list.iter().map(ToString::to_string).collect();
    let port = match config.edge.url_port {
        443 => String::new(),
        port => format!(":{port}"),
    };
    RunFile {
        pid: std::process::id(),
        domain: config.server.domain.to_string(),
        server: config.server.name.to_string(),
        api_url: format!("https://{}{port}", config.server.domain.api()),
        url_port: config.edge.url_port,
        https: text(&config.edge.https),
        http: text(&config.edge.http),
        ssh: text(&config.edge.ssh),
        ssh_host_key: ssh_host_key.to_owned(),
        admin: config.edge.admin.to_string(),
        ca,
    }
}
