//! The HTTP API: wire types, handlers, errors, the `OpenAPI` document.
//!
//! One [`axum::Router`] made by [`service`]. Handlers say who asks, read what is asked, call one use
//! case of the control plane and print its answer; rules live in `gantry-control` and in the types of
//! `gantry-model`, because other fronts need them too. TLS, head limits, access log and the choice of
//! the realm from the host are the edge's: it inserts [`ClientAddress`], [`Realm`] and [`RequestId`]
//! into the extensions of each request.

mod accounts;
mod answer;
mod audit;
mod auth;
mod body;
mod caller;
mod claims;
mod containers;
#[cfg(test)]
mod contract;
mod copies;
mod cors;
mod docs;
mod environment;
mod events;
mod exec;
mod fields;
mod firewall;
mod following;
mod idempotency;
mod images;
mod kvm;
mod later;
mod live;
mod logs;
mod members;
mod meta;
mod network;
mod operations;
mod places;
mod problem;
mod projects;
mod proxy;
mod query;
mod realms;
mod refusal;
mod server_runtime;
mod shares;
mod signed;
mod snapshots;
mod streams;
mod surface;
mod tokens;
mod two_factor;
mod vault;
mod wire;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Bytes,
    middleware::{from_fn, from_fn_with_state},
};
use gantry_control::Controller;
use gantry_model::ServerId;
use http::{HeaderValue, Method, Uri};
use sha2::{Digest as _, Sha256};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use crate::{
    caller::{ClientAddress, Realm, RequestId},
    exec::{Command, Commands, Ended, Meter, NotStarted, Running, RunningProcess, TerminalSize},
    live::Upgrade,
    logs::{Events, NoTail, RequestLog, Tail},
};
use crate::{
    problem::{Kind, Problem},
    streams::Streams,
    surface::Surface,
};

/// Settings of the API.
#[derive(Clone, Debug)]
pub struct ApiConfig {
    /// How long a lifecycle call without `?wait=` waits for its effect before it answers anyway.
    /// Clients give up after 30 s; the default is 10 s.
    pub settle_timeout: Duration,
    /// Requests that are no reads run here, to their end even if their client has gone.
    /// Whoever stops the process closes this and waits for it, within a bound.
    pub tasks: TaskTracker,
    /// Cancelled when the server is about to stop, or another process follows: streams of events end, and their
    /// clients come again.
    pub closing: CancellationToken,
    /// Cancelled when the server is about to stop: sessions of commands end.
    pub ending: CancellationToken,
    /// How many streams of events there may be at once.
    pub event_streams_max: u32,
    /// How many of them may be one account's; more are refused with 429.
    pub event_streams_per_account_max: u32,
    /// What each server has; of others nothing is known.
    pub machines: Arc<BTreeMap<ServerId, Machine>>,
    /// Where SSH is taken, if anywhere.
    pub ssh: Option<SshAddress>,
}

/// What clients need to know of SSH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshAddress {
    /// The port.
    pub port: u16,
    /// The host key, as in a file `known_hosts` after the name.
    pub host_key: String,
}

/// What a server has; nothing where it is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Processors.
    pub cpu_cores: Option<u32>,
    /// Memory, in octets.
    pub memory_bytes: Option<u64>,
    /// What the disk holds where containers lie, in octets.
    pub disk_bytes: Option<u64>,
    /// Where its containers lie, if that is on a disk of this machine: what is said of its storage is about that.
    pub disk: Option<PathBuf>,
}

impl ApiConfig {
    /// What a server has.
    pub(crate) fn machine(&self, server: ServerId) -> &Machine {
        Machine::of(&self.machines, server)
    }
}

impl Machine {
    pub(crate) fn of(machines: &BTreeMap<ServerId, Self>, server: ServerId) -> &Self {
        static UNKNOWN: Machine =
            Machine { cpu_cores: None, memory_bytes: None, disk_bytes: None, disk: None };
        machines.get(&server).unwrap_or(&UNKNOWN)
    }
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            settle_timeout: Duration::from_secs(10),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
            ending: CancellationToken::new(),
            event_streams_max: 256,
            event_streams_per_account_max: 16,
            machines: Arc::default(),
            ssh: None,
        }
    }
}

/// What handlers stand on.
#[derive(Clone)]
pub(crate) struct Front {
    pub(crate) control: Controller,
    pub(crate) config: ApiConfig,
    pub(crate) logs: Arc<dyn RequestLog>,
    pub(crate) commands: Arc<dyn Commands>,
    pub(crate) room: exec::Room,
    pub(crate) event_streams: Streams,
    pub(crate) live: live::Live,
    pub(crate) gauge: Arc<server_runtime::Gauge>,
    pub(crate) document: Arc<Document>,
}

/// The `OpenAPI` document, ready to send, and its page for people.
pub(crate) struct Document {
    pub(crate) text: Bytes,
    pub(crate) page: Bytes,
    pub(crate) page_policy: HeaderValue,
    /// Of both: the page changes with the text or with the program.
    pub(crate) tag: HeaderValue,
}

impl Front {
    /// What prints URLs and servers.
    pub(crate) fn urls(&self) -> wire::Urls<'_> {
        let (domain, port) = (self.control.domain(), self.control.url_port());
        wire::Urls { domain, port, machines: &self.config.machines }
    }
}

/// The API as a service; `logs` knows the requests to containers, `commands` runs what is asked for inside.
pub fn service(
    control: Controller,
    config: ApiConfig,
    logs: Arc<dyn RequestLog>,
    commands: Arc<dyn Commands>,
) -> Router {
    let (routes, document) = surface().finish();
    let document = Arc::new(Document::new(&document));
    let event_streams =
        Streams::new(config.event_streams_max, config.event_streams_per_account_max);
    let live = live::Live::new(&config);
    let gauge = Arc::new(server_runtime::Gauge::new(Arc::clone(&config.machines)));
    let room = exec::Room::default();
    let front =
        Front { control, config, logs, commands, room, event_streams, live, gauge, document };
    routes
        .merge(later::routes())
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_method)
        .layer(from_fn_with_state(front.clone(), idempotency::once))
        .layer(from_fn_with_state(front.clone(), audit::writes))
        .layer(from_fn_with_state(front.clone(), signed::answers))
        .layer(from_fn(cors::open))
        .with_state(front)
}

/// Every operation that exists.
fn surface() -> Surface {
    [
        auth::surface,
        two_factor::surface,
        accounts::surface,
        tokens::surface,
        tokens::derived_surface,
        tokens::profile_surface,
        projects::surface,
        members::surface,
        containers::surface,
        environment::surface,
        events::surface,
        exec::surface,
        firewall::surface,
        network::surface,
        shares::surface,
        snapshots::surface,
        copies::surface,
        kvm::surface,
        logs::surface,
        claims::surface,
        operations::surface,
        proxy::surface,
        realms::surface,
        vault::surface,
        places::surface,
        server_runtime::surface,
        images::surface,
        meta::surface,
    ]
    .into_iter()
    .fold(Surface::new(), |surface, add| add(surface))
}

impl Document {
    fn new(document: &utoipa::openapi::OpenApi) -> Self {
        // The document is made of plain maps and strings, which always have a JSON form.
        let text = document.to_json().unwrap_or_default();
        let page = docs::Page::new(&serde_json::to_value(document).unwrap_or_default());
        let digest = Sha256::new().chain_update(&text).chain_update(&page.text).finalize();
        let tag = HeaderValue::try_from(format!("\"{}\"", hex::encode(digest)))
            .unwrap_or(HeaderValue::from_static("\"\""));
        Self { text: text.into(), page: page.text.into(), page_policy: page.policy, tag }
    }
}

async fn no_such_route(method: Method, uri: Uri) -> Problem {
    // The path is the client's own; it is cut, not trusted.
    let path: String = uri.path().chars().take(200).collect();
    Problem::new(Kind::RouteNotFound, format!("Route not found: {method} {path}"))
}

async fn no_such_method(method: Method) -> Problem {
    Problem::new(
        Kind::MethodNotAllowed,
        format!("{method} is not possible here; the header Allow lists what is"),
    )
}
