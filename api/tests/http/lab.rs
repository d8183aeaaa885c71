//! A whole control plane behind the router: real store, real controller, real reconciler, and a
//! runtime of real behaviour in memory.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use gantry_api::{ApiConfig, ClientAddress, Machine, Realm};
use gantry_control::{
    Clock, Controller, Deps, Limits, Reconciler, ReconcilerConfig, SealingKeys, Served, Servers,
    Signing,
};
use gantry_model::{Domain, RealmId, ServerId};
use gantry_runtime::{
    Runtime,
    fake::{Fake, World},
};
use gantry_store::Store;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::{document::Document, exec::FakeCommands, logs::FakeLog, names::FakeNames};

pub(crate) const PASSWORD: &str = "Passw0rd!alice";

/// The control plane; ends when it is dropped.
pub(crate) struct Lab {
    pub(crate) router: Router,
    pub(crate) control: Controller,
    /// A session of the administrator.
    pub(crate) admin: String,
    /// Its name and password.
    pub(crate) admin_login: (String, String),
    pub(crate) world: World,
    pub(crate) server: ServerId,
    pub(crate) document: Document,
    pub(crate) names: FakeNames,
    pub(crate) logs: FakeLog,
    pub(crate) commands: FakeCommands,
    /// Says that the server is about to stop.
    pub(crate) closing: CancellationToken,
    _tasks: JoinSet<()>,
    dir: TempDir,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
    pub(crate) json: Value,
}

/// A request to be.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    method: Method,
    path: String,
    headers: Vec<(String, String)>,
    body: String,
    realm: Option<RealmId>,
}

impl Ask {
    /// As the official clients send it: JSON is announced whether there is a body or not.
    pub(crate) fn new(method: &str, path: &str) -> Self {
        Self {
            method: method.parse().unwrap(),
            path: path.to_owned(),
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            body: String::new(),
            realm: None,
        }
    }

    pub(crate) fn by(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn body(mut self, body: &Value) -> Self {
        self.body = body.to_string();
        self
    }

    pub(crate) fn text(mut self, body: &str) -> Self {
        body.clone_into(&mut self.body);
        self
    }

    pub(crate) fn realm(mut self, realm: &str) -> Self {
        self.realm = Some(realm.parse().unwrap());
        self
    }
}

impl Lab {
    /// A control plane with the accounts `alice` and `bob`.
    pub(crate) async fn start() -> Self {
        Self::start_with(Limits::default(), Signing::Claims).await
    }

    /// The same with these limits, and signing what is said.
    pub(crate) async fn start_with(limits: Limits, signing: Signing) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), limits, signing).await
    }

    /// The same with its store in this directory.
    pub(crate) async fn start_in(dir: TempDir, limits: Limits, signing: Signing) -> Self {
        Self::start_beside(dir, limits, signing, &[], &[]).await
    }

    /// The same by this clock.
    pub(crate) async fn start_by(clock: Clock) -> Self {
        let (dir, limits) = (tempfile::tempdir().unwrap(), Limits::default());
        Self::start_whole(dir, limits, Signing::Claims, (&[], &[]), clock).await
    }

    /// The same with servers `beside` the first, and some that were configured once.
    pub(crate) async fn start_beside(
        dir: TempDir,
        limits: Limits,
        signing: Signing,
        beside: &[&str],
        away: &[&str],
    ) -> Self {
        Self::start_whole(dir, limits, signing, (beside, away), Clock::system()).await
    }

    async fn start_whole(
        dir: TempDir,
        limits: Limits,
        signing: Signing,
        (beside, away): (&[&str], &[&str]),
        clock: Clock,
    ) -> Self {
        let store = Store::open(&dir.path().join("gantry.db")).await.unwrap();
        let server =
            store.ensure_server(id(1), &"node-test".parse().unwrap(), 1_000).await.unwrap();
        let world = World::default();
        let runtime: Arc<dyn Runtime> = Arc::new(Fake::new(world.clone()));
        let mut all = vec![Served { server: server.clone(), runtime }];
        all.extend(further(&store, beside, away).await);
        let servers = Servers::new(all);
        let names = FakeNames::default();
        let control = Controller::new(Deps {
            store: store.clone(),
            servers: servers.clone(),
            domain: "edge.test".parse::<Domain>().unwrap(),
            url_port: 18443,
            clock: clock.clone(),
            names: Arc::new(names.clone()),
            // As an edge that takes everything over at once.
            published: Some(store.head()),
            limits,
            sealing: SealingKeys::new(&[[3; 32]]).unwrap(),
            signing,
        })
        .await
        .unwrap();
        let config = ReconcilerConfig {
            backoff_min: Duration::from_millis(5),
            attempts_max: 2,
            ..ReconcilerConfig::default()
        };
        let mut tasks = JoinSet::new();
        for one in servers.iter() {
            let (store, all, one) = (store.clone(), servers.clone(), one.clone());
            let (clock, sealing) = (clock.clone(), control.sealing());
            let reconciler = Reconciler::new(store, all, one, clock, sealing, config);
            tasks.spawn(reconciler.run(CancellationToken::new()));
        }
        let (logs, commands) = (FakeLog::default(), FakeCommands::default());
        let admin = control.bootstrap_admin().await.unwrap().unwrap();
        let shared = Arc::new(logs.clone());
        let machines = Arc::new(machines(&servers, dir.path()));
        let closing = CancellationToken::new();
        let config = api_config(machines, &closing);
        let inside = Arc::new(commands.clone());
        let router = gantry_api::service(control.clone(), config, shared, inside);
        let document = Document::new(document_of(&router).await);
        let server = server.id;
        let mut lab = Self {
            router,
            control,
            admin: String::new(),
            admin_login: (admin.username, admin.password),
            world,
            server,
            document,
            names,
            logs,
            commands,
            closing,
            _tasks: tasks,
            dir,
        };
        let token = lab.login(&lab.admin_login.0, &lab.admin_login.1).await;
        let credential = format!("Bearer {token}");
        lab.admin = token;
        let actor = lab.control.authenticate(Some(&credential), None, None).await.unwrap();
        for username in ["alice", "bob"] {
            lab.control.create_user(&actor, username, PASSWORD).await.unwrap();
        }
        lab
    }

    /// The directory of the store.
    pub(crate) fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    pub(crate) async fn send(&self, mut ask: Ask) -> Reply {
        let body = Body::from(std::mem::take(&mut ask.body));
        self.send_body(ask, body).await
    }

    /// Sends a request whose body arrives once `meanwhile` is over, which begins when the body is waited for.
    pub(crate) async fn send_while(
        &self,
        mut ask: Ask,
        meanwhile: impl Future<Output = ()>,
    ) -> Reply {
        let (wanted, is_wanted) = oneshot::channel();
        let (arrives, has_arrived) = oneshot::channel();
        let text = std::mem::take(&mut ask.body);
        let body = Body::from_stream(futures_util::stream::once(async move {
            wanted.send(()).unwrap();
            has_arrived.await.map(|()| text)
        }));
        let (reply, ()) = tokio::join!(self.send_body(ask, body), async {
            is_wanted.await.unwrap();
            meanwhile.await;
            arrives.send(()).unwrap();
        });
        reply
    }

    async fn send_body(&self, ask: Ask, body: Body) -> Reply {
        let (method, path) = (ask.method.to_string(), ask.path.clone());
        let mut request = Request::builder().method(ask.method).uri(ask.path);
        for (name, value) in ask.headers {
            request = request.header(name, value);
        }
        let mut request = request.body(body).unwrap();
        let address: SocketAddr = "192.0.2.7:4711".parse().unwrap();
        request.extensions_mut().insert(ClientAddress(address));
        request.extensions_mut().insert(Realm(ask.realm));
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let is_json = parts
            .headers
            .get(header::CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().starts_with(b"application/json"))
            && method != "HEAD";
        // Pictures are no text.
        let is_png =
            parts.headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == "image/png");
        let text = if is_png {
            String::from_utf8_lossy(&bytes).into_owned()
        } else {
            String::from_utf8(bytes.to_vec()).unwrap()
        };
        let json = if is_json { serde_json::from_str(&text).unwrap() } else { Value::Null };
        if is_json {
            self.document.check(&method, &path, parts.status.as_u16(), &json);
        }
        Reply { status: parts.status, headers: parts.headers, text, json }
    }

    pub(crate) async fn login(&self, username: &str, password: &str) -> String {
        let body = serde_json::json!({ "username": username, "password": password });
        let reply = self.send(Ask::new("POST", "/api/v1/users/auth/login").body(&body)).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        reply.json["data"]["token"].as_str().unwrap().to_owned()
    }

    /// A session of alice and a project of hers.
    pub(crate) async fn alice(&self) -> (String, String) {
        let token = self.login("alice", PASSWORD).await;
        let body = serde_json::json!({ "alias": "home" });
        let reply = self.send(Ask::new("POST", "/api/v1/projects/").by(&token).body(&body)).await;
        assert_eq!(reply.status, 201, "{}", reply.text);
        (token, reply.json["data"]["id"].as_str().unwrap().to_owned())
    }

    /// Makes a container that runs.
    pub(crate) async fn container(&self, token: &str, project: &str, name: &str) -> String {
        let path = format!("/api/v1/projects/{project}/containers?wait=running&timeout=20");
        let body = serde_json::json!({ "server_id": self.server.to_string(), "name": name });
        let reply = self.send(Ask::new("POST", &path).by(token).body(&body)).await;
        assert_eq!(reply.status, 201, "{}", reply.text);
        assert_eq!(reply.json["data"]["status"], "running", "{}", reply.text);
        reply.json["data"]["id"].as_str().unwrap().to_owned()
    }
}

/// What ends with `closing`: streams of events, and sessions of commands.
fn api_config(
    machines: Arc<BTreeMap<ServerId, Machine>>,
    closing: &CancellationToken,
) -> ApiConfig {
    let (closing, ending) = (closing.clone(), closing.clone());
    ApiConfig { machines, closing, ending, ..ApiConfig::default() }
}

/// What the servers have. The containers of the first lie nowhere, those of others in this directory.
fn machines(servers: &Servers, dir: &std::path::Path) -> BTreeMap<ServerId, Machine> {
    let machine = |(at, served): (usize, &Served)| {
        let machine = Machine {
            cpu_cores: Some(12),
            memory_bytes: Some((32 << 30) - 1),
            disk_bytes: (at > 0).then_some(5 << 30),
            disk: (at > 0).then(|| dir.to_owned()),
        };
        (served.server.id, machine)
    };
    servers.iter().enumerate().map(machine).collect()
}

/// Records further servers; returns those that run.
async fn further(store: &Store, beside: &[&str], away: &[&str]) -> Vec<Served> {
    let mut run = Vec::new();
    for (number, name) in (2..).zip(beside.iter().chain(away)) {
        let server = store.ensure_server(id(number), &name.parse().unwrap(), 1_000).await.unwrap();
        if beside.contains(name) {
            run.push(Served { server, runtime: Arc::new(Fake::default()) });
        }
    }
    run
}

fn id<K>(last: u8) -> gantry_model::Id<K> {
    let mut bytes = [7; 12];
    bytes[11] = last;
    gantry_model::Id::from_bytes(bytes)
}

async fn document_of(router: &Router) -> Value {
    let request = Request::get("/openapi.json").body(Body::empty()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&bytes).unwrap()
}
