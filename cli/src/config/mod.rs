//! The configuration: one TOML file, variables `GANTRY_SECTION__KEY`, flags `--set section.key=…`.
//!
//! Later layers win. A key that the defaults do not have is an error, and all errors are reported
//! together, each with the file, variable or flag that caused it. What clients may change while
//! Gantry runs (projects, containers, tokens) is no configuration and lives in the store.

mod certificates;
mod kit;
mod limits;
mod logs;
mod reader;
mod runtime;
mod servers;
mod state;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use figment::{
    Figment, Metadata, Profile, Provider,
    providers::{Env, Format as _, Toml},
    value::{Dict, Map, Value},
};
use gantry_control::Signing;
use gantry_model::{Domain, ServerName};
use gantry_proxy::UpstreamSource;
use serde_json::json;

use self::reader::{DEFAULT_ORIGIN, FLAG_ORIGIN, Reader};
pub(crate) use self::{
    certificates::{CertificatesConfig, Issuing},
    reader::{Effective, Problem},
    runtime::{RuntimeConfig, RuntimeKind},
    servers::FurtherServer,
    state::{default_state_dir, user_config_dir},
};
use crate::{
    args::Settings,
    exit::{Class, Failure},
    output::{self, Format},
};

/// Every key with its value where nobody says otherwise. A key that is missing here is unknown.
const DEFAULTS: &str = include_str!("defaults.toml");

/// Everything that an operator may choose.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) server: ServerConfig,
    pub(crate) edge: EdgeConfig,
    pub(crate) certificates: CertificatesConfig,
    /// What clients and containers may use; the times of `edge` are not in it.
    pub(crate) limits: gantry_proxy::Limits,
    /// What owners see of the requests to their containers.
    pub(crate) logs: gantry_proxy::LogsConfig,
    /// Where Kit services listen in containers.
    pub(crate) kit: gantry_proxy::KitPorts,
    /// The runtime of the first server, which `server` names.
    pub(crate) runtime: RuntimeConfig,
    /// The servers beside it.
    pub(crate) further: Vec<FurtherServer>,
    pub(crate) control: ControlConfig,
    pub(crate) log: LogConfig,
}

impl Config {
    /// The servers that run here, the first one first: their names and what runs their containers.
    pub(crate) fn servers(&self) -> impl Iterator<Item = (&ServerName, &RuntimeConfig)> {
        let further = self.further.iter().map(|further| (&further.name, &further.runtime));
        std::iter::once((&self.server.name, &self.runtime)).chain(further)
    }
}

/// Who this machine is and where it keeps its things.
#[derive(Clone, Debug)]
pub(crate) struct ServerConfig {
    pub(crate) domain: Domain,
    pub(crate) name: ServerName,
    pub(crate) state: PathBuf,
}

/// Where the edge listens and how long it waits.
#[derive(Clone, Debug)]
pub(crate) struct EdgeConfig {
    pub(crate) https: Vec<SocketAddr>,
    /// Whether HTTP/3 is served, too.
    pub(crate) http3: bool,
    pub(crate) http: Vec<SocketAddr>,
    pub(crate) ssh: Vec<SocketAddr>,
    /// The balancers that say whose connection they carry.
    pub(crate) proxy_protocol_from: Vec<ipnet::IpNet>,
    pub(crate) client_address: UpstreamSource,
    pub(crate) admin: SocketAddr,
    /// The port that URLs carry.
    pub(crate) url_port: u16,
    pub(crate) workers: usize,
    pub(crate) drain: Duration,
    /// How long what was begun may go on after another process has taken over.
    pub(crate) drain_streams: Duration,
    /// In how many processes at most.
    pub(crate) drain_processes: usize,
    pub(crate) head: Duration,
    pub(crate) idle: Duration,
    pub(crate) connect: Duration,
    pub(crate) answer: Duration,
    pub(crate) upgrade_idle: Duration,
    pub(crate) service_start: Duration,
    pub(crate) wake: Duration,
}

/// How wishes are made true.
#[derive(Clone, Debug)]
pub(crate) struct ControlConfig {
    pub(crate) concurrency: usize,
    /// Streams of events at the same time, of all accounts and of one.
    pub(crate) event_streams: u32,
    pub(crate) event_streams_per_user: u32,
    /// What is kept of one account.
    pub(crate) events_per_user: u32,
    pub(crate) activity_per_user: u32,
    pub(crate) stop_grace: Duration,
    pub(crate) hostname_check: Duration,
    /// Who is asked about custom hostnames, in the place of the host's resolvers.
    pub(crate) resolver: Option<SocketAddr>,
    /// What is signed.
    pub(crate) signing: Signing,
    /// What one user, container and address may do by the API.
    pub(crate) limits: gantry_control::Limits,
}

/// How the log is written.
#[derive(Clone, Debug)]
pub(crate) struct LogConfig {
    pub(crate) format: LogFormat,
    pub(crate) level: String,
    pub(crate) access: AccessLog,
}

/// Where access lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AccessLog {
    /// Nowhere.
    Off,
    /// To standard output.
    Stdout,
    /// To `access.log` in the state directory.
    State,
    /// To a file.
    File(PathBuf),
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// A configuration with what was said where.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) config: Config,
    pub(crate) effective: Vec<Effective>,
}

/// Values that a command prefers to the defaults, below everything that the operator says.
pub(crate) type Preset = Vec<(&'static str, Value)>;

/// Reads all layers. On failure: everything that is wrong, in the order of the keys.
pub(crate) fn load(settings: &Settings, preset: Preset) -> Result<Loaded, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut figment = Figment::new()
        .merge(Named { name: DEFAULT_ORIGIN, inner: Toml::string(DEFAULTS) })
        .merge(Pairs::new(DEFAULT_ORIGIN, preset));
    if let Some(file) = &settings.config {
        let checked = std::fs::read_to_string(file)
            .map_err(|error| error.to_string())
            .and_then(|text| text.parse::<toml::Table>().map_err(|error| error.to_string()));
        match checked {
            Ok(_) => figment = figment.merge(Toml::file_exact(file)),
            Err(rule) => problems.push(Problem {
                origin: file.display().to_string(),
                key: "-".to_owned(),
                rule: rule.trim_end().to_owned(),
            }),
        }
    }
    figment = figment
        .merge(Env::prefixed("GANTRY_").filter(|key| key.as_str().contains("__")).split("__"));
    match parse_overrides(&settings.overrides) {
        Ok(pairs) => figment = figment.merge(Pairs::new(FLAG_ORIGIN, pairs)),
        Err(mut wrong) => problems.append(&mut wrong),
    }
    let mut reader = Reader::new(&figment);
    let config = read(&mut reader);
    let (effective, mut found) = reader.finish();
    problems.append(&mut found);
    match config {
        Some(config) if problems.is_empty() => Ok(Loaded { config, effective }),
        Some(_) | None => Err(problems),
    }
}

/// Prints what is in effect, with origins.
pub(crate) fn print(effective: &[Effective], out: Format) -> Result<(), Failure> {
    match out {
        Format::Json => {
            let keys: serde_json::Map<_, _> = effective
                .iter()
                .map(|found| {
                    let said = json!({"value": found.value, "origin": found.origin});
                    (found.key.clone(), said)
                })
                .collect();
            output::json(&keys.into())
        }
        Format::Table => {
            let rows = effective
                .iter()
                .map(|found| vec![found.key.clone(), found.value.clone(), found.origin.clone()])
                .collect();
            output::table(&["KEY", "VALUE", "ORIGIN"], rows)
        }
    }
}

/// All problems as one failure.
pub(crate) fn failure(problems: &[Problem]) -> Failure {
    let count = match problems {
        [_] => "1 error".to_owned(),
        many => format!("{} errors", many.len()),
    };
    let failure = Failure::new(Class::Configuration, format!("the configuration has {count}"));
    problems.iter().fold(failure, |failure, problem| failure.hint(problem.to_string()))
}

const SIGNING: [(&str, Signing); 3] =
    [("off", Signing::Off), ("claims", Signing::Claims), ("answers", Signing::Answers)];

fn read(reader: &mut Reader<'_>) -> Option<Config> {
    // Read everything before the first `?`: one bad key must not hide the others.
    let server = read_server(reader);
    let edge = read_edge(reader);
    let certificates = certificates::read(reader);
    let limits = limits::read(reader);
    let logs = logs::read(reader);
    let kit = kit::read(reader);
    let runtime = runtime::read(reader);
    let further = servers::read(reader);
    let concurrency = reader.number("control.concurrency", 1, 64);
    let event_streams = reader.number("control.event_streams", 1, 100_000);
    let of_account = reader.number("control.event_streams_per_user", 1, 100_000);
    let events = reader.number("control.events_per_user", 100, 100_000_000);
    let activity = reader.number("control.activity_per_user", 100, 100_000_000);
    let stop_grace = reader.seconds("control.stop_grace_s", 1, 600);
    let hostname_check = reader.seconds("control.hostname_check_s", 60, 604_800);
    let resolver = reader.key("control.resolver", |value| match value.as_str() {
        Some("host") => Ok(None),
        text => text.and_then(|text| text.parse().ok()).map(Some).ok_or_else(|| {
            "must be \"host\" or an address with its port, such as \"127.0.0.1:53\"".to_owned()
        }),
    });
    let signing = reader.word("control.signing", &SIGNING);
    let of_users = limits::read_control(reader);
    let format = reader.word("log.format", &[("text", LogFormat::Text), ("json", LogFormat::Json)]);
    let level = reader.key("log.level", |value| {
        let level = value.as_str().unwrap_or_default();
        match level.parse::<tracing_subscriber::filter::Targets>() {
            Ok(_) if !level.is_empty() => Ok(level.to_owned()),
            Ok(_) | Err(_) => {
                Err("must be a level or levels per target, such as \"info,audit=warn\"".to_owned())
            }
        }
    });
    let access = reader.key("log.access", |value| match value.as_str().unwrap_or_default() {
        "off" => Ok(AccessLog::Off),
        "stdout" => Ok(AccessLog::Stdout),
        "state" => Ok(AccessLog::State),
        path if path.starts_with('/') => Ok(AccessLog::File(path.into())),
        _ => Err("must be \"stdout\", \"state\", \"off\" or an absolute path".to_owned()),
    });
    let (server, runtime, further) = (server?, runtime?, further?);
    servers::check(reader, &server.name, &runtime, &further);
    Some(Config {
        server,
        edge: edge?,
        certificates: certificates?,
        limits: limits?,
        logs: logs?,
        kit: kit?,
        runtime,
        further,
        control: ControlConfig {
            concurrency: usize::try_from(concurrency?).ok()?,
            event_streams: u32::try_from(event_streams?).ok()?,
            event_streams_per_user: u32::try_from(of_account?).ok()?,
            events_per_user: u32::try_from(events?).ok()?,
            activity_per_user: u32::try_from(activity?).ok()?,
            stop_grace: stop_grace?,
            hostname_check: hostname_check?,
            resolver: resolver?,
            signing: signing?,
            limits: of_users?,
        },
        log: LogConfig { format: format?, level: level?, access: access? },
    })
}

fn read_server(reader: &mut Reader<'_>) -> Option<ServerConfig> {
    let domain = reader.parsed("server.domain");
    let name = reader.parsed("server.name");
    let state = reader.path("server.state");
    Some(ServerConfig { domain: domain?, name: name?, state: state? })
}

fn read_edge(reader: &mut Reader<'_>) -> Option<EdgeConfig> {
    let https = reader.addresses("edge.https");
    let quic = reader.word("edge.http3", &[("true", true), ("false", false)]);
    let http = reader.addresses("edge.http");
    let ssh = reader.addresses("edge.ssh");
    let proxy_protocol_from = reader.networks("edge.proxy_protocol_from");
    let ways = [("headers", UpstreamSource::Edge), ("transparent", UpstreamSource::Client)];
    let client_address = reader.word("edge.client_address", &ways);
    let admin = reader.addresses("edge.admin").and_then(|list| list.into_iter().next());
    let own_port = https.as_ref().and_then(|list| list.first()).map_or(443, SocketAddr::port);
    let url_port = reader.number_or("edge.url_port", 1, 65_535, own_port.into());
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let workers = reader.number_or("edge.workers", 1, 256, u64::try_from(cores).unwrap_or(1));
    let drain = reader.seconds("edge.drain_timeout_s", 0, 3_600);
    let drain_streams = reader.seconds("edge.drain_streams_s", 0, 7 * 86_400);
    let drain_processes = reader.number("edge.drain_processes", 0, 100);
    let head = reader.seconds("edge.head_timeout_s", 1, 120);
    let idle = reader.seconds("edge.idle_timeout_s", 1, 3_600);
    let connect = reader.seconds("edge.connect_timeout_s", 1, 60);
    let answer = reader.seconds("edge.answer_timeout_s", 1, 3_600);
    let upgrade_idle = reader.seconds("edge.upgrade_idle_timeout_s", 10, 86_400);
    let service_start = reader.seconds("edge.service_start_timeout_s", 1, 300);
    let wake = reader.seconds("edge.wake_timeout_s", 1, 300);
    if https.as_ref().is_some_and(Vec::is_empty) {
        let origin = reader.origin_of("edge.https");
        reader.problem(&origin, "edge.https", "must hold at least one address");
    }
    if let Some(admin) = admin.filter(|admin| !admin.ip().is_loopback()) {
        let origin = reader.origin_of("edge.admin");
        let rule = format!("must be a loopback address, found {admin}");
        reader.problem(&origin, "edge.admin", rule);
    }
    Some(EdgeConfig {
        https: https?,
        http3: quic?,
        http: http?,
        ssh: ssh?,
        proxy_protocol_from: proxy_protocol_from?,
        client_address: client_address?,
        admin: admin?,
        url_port: u16::try_from(url_port?).ok()?,
        workers: usize::try_from(workers?).ok()?,
        drain: drain?,
        drain_streams: drain_streams?,
        drain_processes: usize::try_from(drain_processes?).ok()?,
        head: head?,
        idle: idle?,
        connect: connect?,
        answer: answer?,
        upgrade_idle: upgrade_idle?,
        service_start: service_start?,
        wake: wake?,
    })
}

fn parse_overrides(overrides: &[String]) -> Result<Vec<(String, Value)>, Vec<Problem>> {
    let mut pairs = Vec::new();
    let mut problems = Vec::new();
    for text in overrides {
        match text.split_once('=') {
            Some((key, value)) if key.split('.').count() == 2 && !key.contains(' ') => {
                // The same spelling as in the environment: `[a, b]` is a list, 5 a number.
                let value = match value.parse() {
                    Ok(value) => value,
                    Err(never) => match never {},
                };
                pairs.push((key.to_owned(), value));
            }
            Some(_) | None => problems.push(Problem {
                origin: FLAG_ORIGIN.to_owned(),
                key: text.clone(),
                rule: "must be SECTION.KEY=VALUE".to_owned(),
            }),
        }
    }
    if problems.is_empty() { Ok(pairs) } else { Err(problems) }
}

/// A provider under another name, so that origins read well.
struct Named<P> {
    name: &'static str,
    inner: P,
}

impl<P: Provider> Provider for Named<P> {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name)
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        self.inner.data()
    }
}

/// `section.key` pairs as a layer.
struct Pairs {
    name: &'static str,
    pairs: Vec<(String, Value)>,
}

impl Pairs {
    fn new(name: &'static str, pairs: Vec<(impl Into<String>, Value)>) -> Self {
        let pairs = pairs.into_iter().map(|(key, value)| (key.into(), value)).collect();
        Self { name, pairs }
    }
}

impl Provider for Pairs {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name)
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        let mut sections: std::collections::BTreeMap<String, Dict> = Map::new();
        for (key, value) in &self.pairs {
            let (section, key) = key.split_once('.').unwrap_or(("", key));
            sections.entry(section.to_owned()).or_default().insert(key.to_owned(), value.clone());
        }
        let dict = sections.into_iter().map(|(section, keys)| (section, keys.into())).collect();
        Ok(Profile::Default.collect(dict))
    }
}

#[cfg(test)]
mod tests;
