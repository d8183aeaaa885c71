//! `gantry explain <url>`: where a URL leads and why, step by step.
//!
//! A running Gantry answers from its own route table, over a socket in the state directory that
//! only its owner can open. Where none runs, the store is read. The answer says which it was.

use std::{io, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use gantry_model::{
    Chain, ContainerId, Domain, Hostname, ProjectId, RouteKey, ServerName, Service, Target,
    access::{Caller, Decision, GroupSet, Reason},
    selector::program,
};
use gantry_proxy::KitPorts;
use gantry_router::{AliasRoute, NoRoute, Route, RouteState, RouteTable, Servers};
use gantry_store::Store;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    certs, doctor,
    files::Files,
    glue,
    kit::start_command,
    lock::Lock,
    upgrade::{self, Asker},
};
use crate::{
    args::{Explain, Settings},
    config::{self, Config},
    exit::{Class, Failure},
    output::{self, Format},
};

/// The longest URL that is looked at.
const URL_BYTES_MAX: u64 = 8 * 1024;
/// The longest answer.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;
/// How long either side waits for the other.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many ask at the same time.
const ASKERS_MAX: usize = 8;

/// One step on the way of a request.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
struct Stage {
    /// `parse`, `route`, `decision`, `endpoint` or `answer`.
    step: String,
    /// What comes out of it.
    result: String,
    /// Why.
    reason: String,
}

/// The whole way.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
struct Explanation {
    url: String,
    /// Who says so: a running process, or the store.
    source: String,
    steps: Vec<Stage>,
}

/// What an explanation stands on.
struct Facts {
    domain: Domain,
    servers: Vec<ServerName>,
    url_port: u16,
    kit: KitPorts,
}

impl Facts {
    fn of(config: &Config) -> Self {
        Self {
            domain: config.server.domain.clone(),
            servers: config.servers().map(|(name, _)| name.clone()).collect(),
            url_port: config.edge.url_port,
            kit: config.kit.clone(),
        }
    }
}

/// `gantry explain`
pub(crate) fn explain(command: &Explain, format: Format) -> Result<(), Failure> {
    let config = config_of(command.state.as_deref(), &command.settings)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    let found = runtime.block_on(ask(&command.url, &config))?;
    match format {
        Format::Json => output::json(&serde_json::to_value(&found).context("no JSON")?),
        Format::Table => {
            output::note(&format!("according to {}:", found.source));
            let rows =
                found.steps.into_iter().map(|step| vec![step.step, step.result, step.reason]);
            output::table(&["STEP", "RESULT", "REASON"], rows.collect())
        }
    }
}

/// The configuration of the Gantry that a command on this machine means: by its state directory, by its
/// configuration, or that of `gantry dev` if it was ever run.
pub(super) fn config_of(state: Option<&Path>, settings: &Settings) -> Result<Config, Failure> {
    let preset = state.map(|state| {
        let state = std::path::absolute(state).unwrap_or_else(|_| state.to_owned());
        ("server.state", state.display().to_string().into())
    });
    let mut loaded = config::load(settings, preset.into_iter().collect())
        .map_err(|problems| config::failure(&problems))?;
    if state.is_none() && settings.config.is_none() {
        let dev = config::default_state_dir();
        if dev.join("gantry.lock").exists() {
            loaded.config.server.state = dev;
        }
    }
    Ok(loaded.config)
}

async fn ask(url: &str, config: &Config) -> Result<Explanation, Failure> {
    let files = Files::new(&config.server.state);
    if url.len() as u64 > URL_BYTES_MAX || url.contains('\n') {
        return Err(Failure::new(Class::Usage, "this is no URL"));
    }
    match timeout(PATIENCE, ask_running(url, &files.socket())).await {
        Ok(Ok(found)) => return Ok(found),
        Ok(Err(error))
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) => {}
        Ok(Err(error)) => {
            let message = format!("cannot ask through {}: {error}", files.socket().display());
            return Err(Failure::new(Class::Unavailable, message));
        }
        Err(_) => {
            return Err(Failure::new(Class::Unavailable, "the running Gantry does not answer"));
        }
    }
    let facts = Facts::of(config);
    if !files.store().exists() {
        let empty = gantry_store::RouteSnapshot {
            epoch: gantry_store::Epoch([0; 16]),
            revision: gantry_store::Revision(0),
            containers: Vec::new(),
        };
        let table = RouteTable::build(&empty, &Servers::default());
        let source = format!(
            "an empty store: there is none at {}; --state names another directory",
            files.store().display()
        );
        return Ok(walk(url, &facts, &table, source));
    }
    let _lock = Lock::take(files.dir())
        .map_err(|error| Failure::new(Class::General, Chain(&error).to_string()))?;
    let store = Store::open(&files.store()).await.context("cannot open the store")?;
    let table = table(&store, config).await;
    store.close().await;
    let table = table?;
    let source = format!(
        "the store {} at revision {} (no Gantry runs on it)",
        files.store().display(),
        table.revision().0
    );
    Ok(walk(url, &facts, &table, source))
}

/// The routes that a store has.
pub(super) async fn table(store: &Store, config: &Config) -> anyhow::Result<RouteTable> {
    let snapshot = store.load_routes().await.context("cannot read the store")?;
    let servers = store.servers().await.context("cannot read the store")?;
    let configured: Vec<_> = config.servers().map(|(name, _)| name).collect();
    let servers = servers.into_iter().filter(|server| configured.contains(&&server.name));
    let servers = Servers::new(servers.map(|server| (server.id, server.name)));
    Ok(RouteTable::build(&snapshot, &servers))
}

async fn ask_running(url: &str, socket: &Path) -> io::Result<Explanation> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(format!("{url}\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    Ok(serde_json::from_slice(&answer)?)
}

/// What answers stand on.
#[derive(Clone)]
pub(super) struct Desk {
    /// Who wants an upgrade is passed on.
    pub(super) upgrades: mpsc::Sender<Asker>,
    /// What is known of certificates, and of the rest of the installation.
    pub(super) doctor: doctor::Desk,
}

/// Answers on the socket until shutdown.
pub(super) fn answer(
    files: &Files,
    config: &Config,
    desk: &Desk,
    tasks: &mut JoinSet<&'static str>,
    shutdown: &CancellationToken,
) -> io::Result<()> {
    let path = files.socket();
    let beside = path.with_extension("tmp");
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&beside)?;
    std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o600))?;
    // In the place of what an earlier process has left, or another one that lives still has.
    std::fs::rename(&beside, &path)?;
    let facts = Arc::new(Facts::of(config));
    let desk = desk.clone();
    let shutdown = shutdown.clone();
    tasks.spawn(async move {
        let mut askers = JoinSet::new();
        loop {
            let stream = tokio::select! {
                () = shutdown.cancelled() => return "explain socket",
                accepted = listener.accept(), if askers.len() < ASKERS_MAX => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "the socket in the state directory");
                        // Out of descriptors, most likely: wait for some to come free.
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
                Some(_) = askers.join_next() => continue,
            };
            let (facts, desk) = (Arc::clone(&facts), desk.clone());
            askers.spawn(async move {
                if let Err(error) = answer_one(stream, &facts, &desk).await {
                    tracing::debug!(%error, "a question on the socket in the state directory");
                }
            });
        }
    });
    Ok(())
}

async fn answer_one(mut stream: UnixStream, facts: &Facts, desk: &Desk) -> io::Result<()> {
    let (read, mut write) = stream.split();
    let mut url = String::new();
    let mut read = BufReader::new(read.take(URL_BYTES_MAX));
    timeout(PATIENCE, read.read_line(&mut url)).await??;
    if url == upgrade::QUESTION {
        return upgrade::answer(&mut write, &desk.upgrades).await;
    }
    if let Some(question) = url.strip_prefix(certs::QUESTION) {
        return certs::answer(question, (&mut read, &mut write), &desk.doctor.certs).await;
    }
    if let Some(name) = url.strip_prefix(doctor::QUESTION) {
        return doctor::answer(name.trim_end(), &mut write, &desk.doctor).await;
    }
    let found = {
        let table = desk.doctor.routes.current();
        let source = format!(
            "the running Gantry (process {}) at revision {}",
            std::process::id(),
            table.revision().0
        );
        walk(url.trim_end(), facts, &table, source)
    };
    let answer = serde_json::to_vec(&found)?;
    let write = async {
        write.write_all(&answer).await?;
        write.shutdown().await
    };
    timeout(PATIENCE, write).await?
}

/// Collects the steps.
struct Walk {
    steps: Vec<Stage>,
}

impl Walk {
    fn step(&mut self, step: &str, result: impl Into<String>, reason: impl Into<String>) {
        let (step, result, reason) = (step.to_owned(), result.into(), reason.into());
        self.steps.push(Stage { step, result, reason });
    }
}

/// Goes the way that the edge goes, and says what it finds.
fn walk(url: &str, facts: &Facts, table: &RouteTable, source: String) -> Explanation {
    let mut walk = Walk { steps: Vec::new() };
    walk_url(url, facts, table, &mut walk);
    Explanation { url: url.to_owned(), source, steps: walk.steps }
}

fn walk_url(url: &str, facts: &Facts, table: &RouteTable, walk: &mut Walk) {
    let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (host, port) = match Hostname::parse_authority(authority) {
        Ok(parsed) => parsed,
        Err(error) => {
            walk.step("parse", "no hostname", format!("{authority:?}: {error}"));
            return walk.step("answer", "400", "the Host field must carry a hostname");
        }
    };
    if scheme == "http" {
        walk.step(
            "parse",
            "plain HTTP",
            "answered with 308: the same place by HTTPS, which follows",
        );
    } else if let Some(port) = port.filter(|port| *port != facts.url_port) {
        let reason = format!("URLs of this installation carry port {}", facts.url_port);
        walk.step("parse", format!("port {port}"), reason);
    }
    let key = match RouteKey::parse(&host, &facts.domain) {
        Ok(key) => key,
        Err(error) => {
            walk.step("parse", "names nothing", format!("under {}: {error}", facts.domain));
            return walk.step("answer", "404", "as for every unknown hostname");
        }
    };
    match key {
        RouteKey::SshGate { server } | RouteKey::Container { server, .. }
            if !facts.servers.iter().any(|known| known.as_str() == server) =>
        {
            let known: Vec<_> = facts.servers.iter().map(ServerName::as_str).collect();
            let reason = format!("server {server}; here is {}", known.join(", "));
            walk.step("parse", "a name of another server", reason);
            walk.step("answer", "404", "as for every hostname that leads nowhere here");
        }
        RouteKey::SshGate { .. } | RouteKey::Container { target: Target::Ssh, .. } => {
            walk.step("parse", "an SSH name", "said without a look at what exists");
            walk.step("answer", "400", "a page that tells the ssh command");
        }
        RouteKey::Container { server, project, container, target } => {
            let what = describe(&target);
            let result = format!("{what} of container {container}");
            walk.step("parse", result, format!("project {project}, server {server}"));
            walk_container((server, project, container), &target, facts, table, walk);
        }
        RouteKey::Api { realm } => {
            let scope =
                realm.map_or_else(|| "unscoped".to_owned(), |realm| format!("realm {realm}"));
            walk.step("parse", "the API", scope);
            walk.step("route", "the control plane of this process", "api.<domain>");
            walk.step("answer", "by the API", "it authenticates each request itself");
        }
        RouteKey::Alias { server, label } => {
            walk.step("parse", format!("alias {label}"), format!("server {server}"));
            walk_alias(table.alias(server, label).as_deref(), &facts.kit, table, walk);
        }
        RouteKey::Custom(name) => {
            let reason = format!("outside {}", facts.domain);
            walk.step("parse", format!("custom hostname {name}"), reason);
            walk_alias(table.custom(name.as_str()).as_deref(), &facts.kit, table, walk);
        }
    }
}

/// Goes from the hostname of a container to its route.
fn walk_container(
    (server, project, container): (&str, ProjectId, ContainerId),
    target: &Target<'_>,
    facts: &Facts,
    table: &RouteTable,
    walk: &mut Walk,
) {
    match table.lookup_on(server, project, container) {
        Ok(route) => walk_route(&route, target, (&facts.kit, table), walk),
        Err(NoRoute::OtherServer) => {
            let reason = "the container is on another server of this Gantry";
            walk.step("route", "none under this server", reason);
            walk.step("answer", "404", "the same as for what does not exist");
        }
        Err(NoRoute::Unknown) => {
            let reason = "no container with this pair of ids, or one without the Kit, or \
                          one that is being deleted";
            walk.step("route", "none", reason);
            walk.step("answer", "404", "the same for all of these, so that ids are safe");
        }
    }
}

fn walk_alias(alias: Option<&AliasRoute>, kit: &KitPorts, table: &RouteTable, walk: &mut Walk) {
    let now_ms = i64::try_from(glue::now().unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX);
    let Some(alias) = alias else {
        walk.step("alias", "none", "nothing here has this name");
        return walk.step("answer", "404", "as for every hostname that leads nowhere here");
    };
    let target = Target::from(alias.target);
    let what = format!("{} of container {}", describe(&target), alias.container);
    if !alias.is_live(now_ms) {
        let why = if alias.enabled { "it has expired" } else { "it is switched off" };
        walk.step("alias", what, why);
        return walk.step("answer", "404", "as for every hostname that leads nowhere here");
    }
    let landing = alias.landing.as_ref().map(|landing| {
        let only = if landing.is_pinned() { ", and no other path exists" } else { "" };
        format!("/ leads to {}{only}", landing.as_str())
    });
    walk.step("alias", what, landing.unwrap_or_else(|| "every path as it is".to_owned()));
    match table.lookup(alias.project, alias.container) {
        Ok(route) => walk_route(&route, &target, (kit, table), walk),
        Err(NoRoute::Unknown | NoRoute::OtherServer) => {
            walk.step("route", "none", "its container is gone");
            walk.step("answer", "404", "as for every hostname that leads nowhere here");
        }
    }
}

/// What becomes of a request without any credential; whether it goes on.
fn walk_decision(
    route: &Route,
    target: &Target<'_>,
    (kit, table): (&KitPorts, &RouteTable),
    walk: &mut Walk,
) -> bool {
    let gate = table.gate(route.container).filter(|_| route.gated);
    let Some(policy) = gate.as_ref().and_then(|gate| gate.policy.as_ref()) else {
        walk.step("decision", "allow", "no permission document exists; the URL is the credential");
        return true;
    };
    let demand = kit.demand(target);
    let decision = demand.decide(policy, GroupSet::default(), Caller::Unknown);
    let (result, reason, answer) = match decision {
        Decision::Allow => ("allow", "the default of the permission document", None),
        Decision::Challenge => {
            ("log in", "a group with a password opens it", Some(("401", "who proves it passes")))
        }
        Decision::Forbidden(Reason::Closed) => {
            ("deny", "enable_proxy is false", Some(("403", "nobody passes")))
        }
        Decision::Forbidden(Reason::Group | Reason::Default) => (
            "deny",
            "the default of the permission document",
            Some(("403", "only who belongs to a group that opens it passes")),
        ),
    };
    let reason = match demand.kit() {
        Some(service) => format!("{reason}; the port is that of {service}, which counts, too"),
        None => reason.to_owned(),
    };
    walk.step("decision", format!("{result}, without a credential"), reason);
    if let Some((status, reason)) = answer {
        walk.step("answer", status, reason);
    }
    answer.is_none()
}

fn walk_route(
    route: &Route,
    target: &Target<'_>,
    (kit, table): (&KitPorts, &RouteTable),
    walk: &mut Walk,
) {
    if let Target::Kit { service: Service::Logs, .. } = target {
        walk.step("route", "the edge itself", "it answers whether the container runs or not");
        if walk_decision(route, target, (kit, table), walk) {
            walk.step("answer", "by the edge", "the requests to the container that it has logged");
        }
        return;
    }
    let refused = match route.state {
        RouteState::Running { address, since_ms } => {
            walk.step(
                "route",
                format!("running at {address}"),
                format!("started at {since_ms} ms"),
            );
            if *target == Target::Ssh || walk_decision(route, target, (kit, table), walk) {
                walk_endpoint(address, target, kit, walk);
            }
            return;
        }
        RouteState::Starting => "starting",
        RouteState::Paused => "paused",
        RouteState::Stopped => "stopped",
        RouteState::Failed => "failed",
    };
    walk.step("route", refused, "the container exists but cannot be reached");
    walk.step("answer", "503", format!("a page that says it is {refused}"));
}

fn walk_endpoint(address: std::net::IpAddr, target: &Target<'_>, kit: &KitPorts, walk: &mut Walk) {
    let url = |scheme: &str, port: u16| {
        format!("{scheme}://{}", std::net::SocketAddr::new(address, port))
    };
    match *target {
        Target::Kit { service, index, sub: _ } => {
            let is_desktop = service == Service::Desktop;
            let (service, index) = program(service, index);
            let at = kit.get(service);
            if is_desktop && at.provided {
                return walk.step("answer", "501", "the terminal of this Kit has no desktop");
            }
            let Some(port) = at.of(index) else {
                return walk.step("answer", "404", "the index has no port");
            };
            let command = start_command(service, index).filter(|_| at.provided);
            let reason = match command {
                Some(command) => format!("started by the first request: {}", command.join(" ")),
                None => "not of this Kit: a program of the container's own may listen there; a \
                         page (501) says so where none does"
                    .to_owned(),
            };
            walk.step("endpoint", url(at.scheme.as_str(), port), reason);
        }
        Target::Port { scheme, port } => {
            let reason = "whatever listens there; a page says so where nothing does";
            walk.step("endpoint", url(scheme.as_str(), port), reason);
        }
        Target::Ssh => return walk.step("answer", "400", "a page that tells the ssh command"),
    }
    walk.step("answer", "forwarded", "the container's own");
}

fn describe(target: &Target<'_>) -> String {
    match target {
        Target::Kit { service, index, sub } => {
            let sub = sub.map(|sub| format!(", directory {sub}")).unwrap_or_default();
            format!("service {} {index}{sub}", service.slug())
        }
        Target::Port { scheme, port } => format!("{} port {port}", scheme.as_str()),
        Target::Ssh => "the SSH name".to_owned(),
    }
}
