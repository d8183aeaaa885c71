//! From a configuration to a running Gantry, and back.

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
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    certificates,
    exec::Helpers,
    explain,
    files::{Files, RunFile},
    glue, host, kit,
    lock::Lock,
    logs, ports, runtime,
    signals::Signals,
    ssh, transparent,
};
use crate::{
    args::Settings,
    config::{self, AccessLog, Config},
    exit::{Class, Failure},
    output,
};

/// How long background tasks get to end once the edge has drained.
const TASKS_GRACE: Duration = Duration::from_secs(15);

/// `gantry serve`
pub(crate) fn serve(settings: &Settings) -> Result<(), Failure> {
    let loaded =
        config::load(settings, Vec::new()).map_err(|problems| config::failure(&problems))?;
    run(&loaded.config, |started| {
        if let Some(Credential { username, password }) = started.admin {
            output::note("The first administrator, shown this once:");
            output::note(&format!("  username {username}\n  password {password}"));
        }
        Ok(())
    })
}

/// What can be told once everything runs.
pub(super) struct Started<'s> {
    pub(super) run: &'s RunFile,
    /// Only when this start has made the first account.
    pub(super) admin: Option<&'s Credential>,
}

/// Runs until a signal asks for the end. `started` is called once the edge listens.
pub(super) fn run(
    config: &Config,
    started: impl FnOnce(Started<'_>) -> anyhow::Result<()>,
) -> Result<(), Failure> {
    let files = Files::new(&config.server.state);
    let lock = Lock::take(files.dir())
        .map_err(|error| Failure::new(Class::General, gantry_model::Chain(&error).to_string()))?;
    logs::start(&config.log)?;
    ports::check(&config.edge).map_err(|taken| {
        Failure::new(Class::General, taken)
            .hint("stop what listens there, or choose another address in the configuration")
    })?;
    if config.edge.client_address == gantry_proxy::UpstreamSource::Client {
        for place in runtime::places(config, &files) {
            if let Some(bridge) = place.bridge() {
                transparent::check(bridge)?;
            }
        }
    }
    let control = tokio::runtime::Builder::new_multi_thread()
        .thread_name("control")
        .enable_all()
        .build()
        .context("cannot start the control runtime")?;
    let result = control.block_on(async {
        let mut signals = Signals::listen().context("cannot listen to signals")?;
        // A signal during the start ends it: dropping what was made is safe, as after a crash.
        let begun = tokio::select! {
            begun = Box::pin(Daemon::start(config, &files)) => begun,
            name = signals.end() => {
                tracing::info!("{name} during the start");
                return Ok(());
            }
        };
        let (mut daemon, admin) = begun?;
        files.write_run(&daemon.run_file).context("cannot write run.json")?;
        started(Started { run: &daemon.run_file, admin: admin.as_ref() })?;
        let ended = tokio::select! {
            name = signals.end() => {
                tracing::info!(
                    "{name}: draining for at most {} s; containers keep running",
                    config.edge.drain.as_secs()
                );
                Ok(())
            }
            name = daemon.unexpected_end() => Err(anyhow::anyhow!("the {name} has ended")),
        };
        tokio::select! {
            () = daemon.stop(config.edge.drain) => {}
            name = signals.end() => tracing::warn!("{name} again: ending without draining"),
        }
        files.remove_run();
        ended
    });
    control.shutdown_timeout(Duration::from_secs(5));
    drop(lock);
    Ok(result?)
}

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
struct Daemon {
    store: Store,
    edge: Edge,
    starter: Starter,
    control: Controller,
    /// Has the API's requests that run to their end even if their client has gone, and ends its streams,
    /// which would otherwise last as long as their clients.
    api_config: gantry_api::ApiConfig,
    tasks: JoinSet<&'static str>,
    shutdown: CancellationToken,
    run_file: RunFile,
}

impl Daemon {
    /// Makes all parts, each after what it stands on; the ports are opened last, when every route
    /// is known.
    async fn start(config: &Config, files: &Files) -> anyhow::Result<(Self, Option<Credential>)> {
        let clock = Clock::system();
        let shutdown = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let store = Store::open(&files.store()).await.context("cannot open the store")?;
        let places = runtime::places(config, files);
        let servers = open_servers(&store, &places, &clock, &mut tasks, &shutdown).await?;
        let named_servers = gantry_router::Servers::new(
            servers.iter().map(|served| (served.server.id, served.server.name.clone())),
        );
        let (routes, feed) = gantry_router::Feed::start(store.clone(), &named_servers)
            .await
            .context("cannot read the routes from the store")?;
        tasks.spawn(named("router feed", feed.run(shutdown.clone())));
        let certificates =
            certificates::start(config, files, &store, &routes, &mut tasks, &shutdown).await?;
        let ca_path = certificates.ca.clone();
        let control = controller(config, files, &store, &servers, &routes, &clock).await?;
        let admin =
            control.bootstrap_admin().await.context("cannot make the first administrator")?;
        for (served, place) in servers.iter().zip(&places) {
            let reconciler = reconciler(config, place, &store, served, &control, &clock);
            tasks.spawn(named("reconciler", reconciler.run(shutdown.clone())));
        }
        let ssh = ssh::start(&config.edge, &control, &routes, &mut tasks, &shutdown).await?;
        let api_config = api_config(config, &servers, &places, &ssh);
        let starter = Starter::new(
            store.clone(),
            servers,
            kit::start_command,
            StarterConfig { timeout: config.edge.service_start, ..StarterConfig::default() },
        );
        explain::answer(files, config, &routes, &mut tasks, &shutdown)
            .context("cannot listen on the socket in the state directory")?;
        let activity = gantry_proxy::Activity::default();
        watch(config, &control, &routes, &activity, &mut tasks, &shutdown);
        let waker = glue::WakeContainers(control.clone());
        let edge_config = edge_config(config, files, named_servers, &places);
        let logs = gantry_proxy::Logs::new(&edge_config);
        let commands = Arc::new(Helpers(Arc::clone(&ssh)));
        let api = glue::api(control.clone(), api_config.clone(), logs.clone(), commands);
        let key = files.session_key().context("cannot read or make the key of sessions")?;
        let session_key = gantry_proxy::SessionKey::new(key);
        let made = Made {
            api,
            routes,
            certificates,
            session_key,
            starter: starter.clone(),
            waker,
            activity,
            logs,
            kit: config.kit.clone(),
            ssh: Arc::clone(&ssh),
        };
        let edge = Edge::start(edge_config, edge_deps(made)).context("cannot start the edge")?;
        let run_file = run_file(config, ca_path, ssh.host_key());
        let daemon = Self { store, edge, starter, control, api_config, tasks, shutdown, run_file };
        Ok((daemon, admin))
    }

    /// Waits until a task ends that should not have; says which.
    async fn unexpected_end(&mut self) -> &'static str {
        match self.tasks.join_next().await {
            Some(Ok(name)) => name,
            Some(Err(error)) => {
                tracing::error!(%error, "a task of the control plane panicked");
                "control plane"
            }
            None => std::future::pending().await,
        }
    }

    /// Ends everything: no new connections, running requests to their end or the deadline, then the
    /// tasks, then the store. Containers stay as they are.
    async fn stop(mut self, drain: Duration) {
        self.api_config.closing.cancel();
        self.edge.drain(drain).await;
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
            self.starter.close().await;
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
    clock: &Clock,
    tasks: &mut JoinSet<&'static str>,
    shutdown: &CancellationToken,
) -> anyhow::Result<Servers> {
    let mut servers = Vec::new();
    for place in places {
        let mut bytes = [0; 12];
        getrandom::fill(&mut bytes).context("the system gives no random numbers")?;
        let id = ServerId::from_bytes(bytes);
        let server = store.ensure_server(id, place.name, clock.now_ms()).await;
        let server = server.with_context(|| format!("cannot record server {}", place.name))?;
        servers.push(Served { server, runtime: place.open(tasks, shutdown).await? });
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
