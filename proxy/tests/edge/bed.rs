//! The bed that tests run in: an edge of its own on loopback addresses of its own, with routes that
//! the test sets, certificates of a development CA, and a small API.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use gantry_certs::{DevCa, Leaf, Resolver, Source};
use gantry_model::{ContainerId, Generation, Phase, Scheme, ServerId, Service, access::Document};
use gantry_proxy::{
    AccessLog, Activity, ApiRealm, ApiUpgrade, Body, ClientAddress, Config, Deps, Edge, KitPort,
    KitPorts, Limits, Logs, LogsConfig, Readiness, RequestId, SessionKey, StartFailed,
    StartService, UpstreamSource, WakeContainer, WakeFailed, api_service,
};
use gantry_router::{RouteTable, Routes, Servers};
use gantry_store::{EdgeRecord, Epoch, Revision, RouteRecord, RouteSnapshot};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use ipnet::IpNet;
use time::OffsetDateTime;

use crate::{client::Client, origin::Origin, websocket};

/// The id of the project in all tests.
pub(crate) const PROJECT: &str = "aaaaaaaaaaaaaaaaaaaaaaaa";
/// The id of the container in most tests.
pub(crate) const CONTAINER: &str = "bbbbbbbbbbbbbbbbbbbbbbbb";
/// The port that the Kit service `files` has here.
pub(crate) const FILES_PORT: u16 = 7001;
/// Kit services that cannot be started have the ports from here on, in the order of their variants.
pub(crate) const OWN_PORT: u16 = 7100;

/// The key of the sessions of browsers.
pub(crate) const SESSION_KEY: [u8; 32] = [7; 32];
/// A hostname outside the domain, for which the edge has a certificate.
pub(crate) const CUSTOM: &str = "www.customer.example";

/// The hostname of a service of a container.
pub(crate) fn host(container: &str, service: &str) -> String {
    format!("{PROJECT}-{container}-{service}.local.containers.gantry.localhost")
}

/// The records that the routes are made of.
type Records = Arc<Mutex<HashMap<ContainerId, RouteRecord>>>;

/// A program that a test's service start runs: where, and what it answers.
type Program = Box<dyn Fn(SocketAddr) -> Result<Origin, StartFailed> + Send + Sync>;

/// Starts services by starting an [`Origin`].
#[derive(Clone)]
pub(crate) struct Starter {
    address: SocketAddr,
    program: Arc<Program>,
    pub(crate) started: Arc<Mutex<Vec<(ContainerId, Service, u16)>>>,
    running: Arc<Mutex<Vec<Origin>>>,
}

impl Starter {
    fn new(number: u8, program: Program) -> Self {
        let address = SocketAddr::new(address(number, 2), FILES_PORT);
        let program = Arc::new(program);
        Self { address, program, started: Arc::default(), running: Arc::default() }
    }
}

impl StartService for Starter {
    fn start(
        &self,
        container: ContainerId,
        service: Service,
        index: u16,
    ) -> BoxFuture<'static, Result<(), StartFailed>> {
        let this = self.clone();
        Box::pin(async move {
            this.started.lock().unwrap().push((container, service, index));
            let origin = (this.program)(this.address)?;
            this.running.lock().unwrap().push(origin);
            Ok(())
        })
    }
}

/// Wakes containers as the test says: by giving them their next start, or not at all.
#[derive(Clone)]
pub(crate) struct Waker {
    routes: Routes,
    records: Records,
    wakes: bool,
    never: Arc<std::sync::atomic::AtomicBool>,
    pub(crate) woken: Arc<Mutex<Vec<ContainerId>>>,
}

impl Waker {
    /// From now on wakings do not end.
    pub(crate) fn never(&self) {
        self.never.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}

impl WakeContainer for Waker {
    fn wake(
        &self,
        container: ContainerId,
        _within: Duration,
    ) -> BoxFuture<'static, Result<(), WakeFailed>> {
        let this = self.clone();
        Box::pin(async move {
            this.woken.lock().unwrap().push(container);
            if this.never.load(std::sync::atomic::Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            if !this.wakes {
                return Err(WakeFailed("secret detail".to_owned()));
            }
            let mut records = this.records.lock().unwrap();
            let record = records.get_mut(&container).unwrap();
            if record.phase == Phase::Stopped {
                record.started_at_ms = Some(now_ms());
            }
            record.phase = Phase::Running;
            apply(&this.routes, container, Some(record.clone()));
            Ok(())
        })
    }
}

/// Ready or not, as the test says.
pub(crate) struct Gauge(pub(crate) Mutex<Result<(), String>>);

impl Readiness for Gauge {
    fn name(&self) -> &'static str {
        "gauge"
    }

    fn check(&self) -> Result<(), String> {
        self.0.lock().unwrap().clone()
    }
}

/// What a test may set before the edge starts.
pub(crate) struct Setup {
    pub(crate) limits: Limits,
    pub(crate) logs: LogsConfig,
    pub(crate) workers: usize,
    pub(crate) http3: bool,
    pub(crate) program: Program,
    /// Whether containers that are asked to wake do.
    pub(crate) wakes: bool,
    /// The balancers.
    pub(crate) proxy_protocol_from: Vec<IpNet>,
    pub(crate) upstream_source: UpstreamSource,
    /// Where the edge listens, if not at an address of its own in this machine's loopback network.
    pub(crate) listen: Option<IpAddr>,
    /// The port of HTTPS, if not one that the system chooses.
    pub(crate) https_port: u16,
    pub(crate) session_key: [u8; 32],
    pub(crate) container_network: IpNet,
    /// How Kit services are reached.
    pub(crate) kit: fn(Service) -> KitPort,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            logs: LogsConfig::default(),
            workers: 1,
            http3: true,
            program: Box::new(|address| Ok(Origin::simple(address))),
            wakes: true,
            proxy_protocol_from: Vec::new(),
            upstream_source: UpstreamSource::Edge,
            listen: None,
            https_port: 0,
            session_key: SESSION_KEY,
            container_network: "127.77.0.0/16".parse().unwrap(),
            kit,
        }
    }
}

/// The bed.
pub(crate) struct Bed {
    pub(crate) number: u8,
    pub(crate) edge: Option<Edge>,
    pub(crate) made: Mutex<(Config, Deps)>,
    pub(crate) routes: Routes,
    pub(crate) starter: Starter,
    pub(crate) waker: Waker,
    pub(crate) activity: Activity,
    pub(crate) logs: Logs,
    pub(crate) gauge: Arc<Gauge>,
    certificates: Arc<Resolver>,
    pub(crate) ca_path: PathBuf,
    pub(crate) log_path: PathBuf,
    pub(crate) runtime: Option<tokio::runtime::Runtime>,
    records: Records,
    directory: tempfile::TempDir,
    /// Held as long as the addresses are.
    _claim: TcpListener,
}

/// Waits until nobody else uses the addresses of a bed: another test, another run.
fn claim(number: u8) -> TcpListener {
    let door = SocketAddr::new(address(number, 254), 1);
    let end = Instant::now() + Duration::from_mins(2);
    loop {
        match TcpListener::bind(door) {
            Ok(claim) => return claim,
            Err(error) => assert!(Instant::now() < end, "the bed {number} is in use: {error}"),
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

impl Bed {
    /// An edge on `127.77.<number>.1`.
    pub(crate) fn new(number: u8) -> Self {
        Self::with(number, Setup::default())
    }

    pub(crate) fn with(number: u8, setup: Setup) -> Self {
        let claim = claim(number);
        let directory = tempfile::tempdir().unwrap();
        let certificates = Arc::new(Resolver::new());
        let ca_path = certify(&certificates, directory.path(), &[]);
        let log_path = directory.path().join("access.log");
        let config = configuration(number, &setup, &log_path);
        let routes = no_routes();
        let runtime = control_runtime();
        let starter = Starter::new(number, setup.program);
        let records = Records::default();
        let waker = Waker {
            routes: routes.clone(),
            records: Arc::clone(&records),
            wakes: setup.wakes,
            never: Arc::default(),
            woken: Arc::default(),
        };
        let activity = Activity::default();
        let gauge = Arc::new(Gauge(Mutex::new(Ok(()))));
        let logs = Logs::new(&config);
        let deps = Deps {
            routes: routes.clone(),
            certificates: Arc::clone(&certificates),
            tickets: None,
            challenges: None,
            session_key: SessionKey::new(setup.session_key),
            api: api_service(tower::service_fn(api)),
            control: runtime.handle().clone(),
            start_service: Arc::new(starter.clone()),
            wake: Arc::new(waker.clone()),
            activity: activity.clone(),
            logs: logs.clone(),
            kit: KitPorts::new(setup.kit),
            now_ms,
            readiness: vec![Arc::clone(&gauge) as _],
            metrics: vec![Arc::new(|text: &mut String| text.push_str("other_metric 1\n"))],
        };
        let made = Mutex::new((config.clone(), deps.clone()));
        let edge = Edge::start(config, deps).unwrap();
        Self {
            number,
            edge: Some(edge),
            made,
            routes,
            starter,
            waker,
            activity,
            logs,
            gauge,
            certificates,
            ca_path,
            log_path,
            runtime: Some(runtime),
            records,
            directory,
            _claim: claim,
        }
    }

    /// From now on the certificate of the containers carries a name that another one is shown for.
    pub(crate) fn certify_besides(&self, name: &str) {
        certify(&self.certificates, self.directory.path(), &[name]);
    }

    /// The address of a container.
    pub(crate) fn container_address(&self, last: u8) -> IpAddr {
        address(self.number, last)
    }

    /// A container of the test that runs, with a simple program on port 3000.
    pub(crate) fn running(&self) -> Origin {
        self.set(CONTAINER, Phase::Running, 1);
        Origin::simple(SocketAddr::new(address(self.number, 2), 3000))
    }

    /// As [`Bed::running`], with a program that answers by `answer`.
    pub(crate) fn running_with(
        &self,
        answer: impl Fn(&crate::origin::Seen, &mut std::net::TcpStream) + Send + Sync + 'static,
    ) -> Origin {
        self.set(CONTAINER, Phase::Running, 1);
        Origin::start(SocketAddr::new(address(self.number, 2), 3000), answer)
    }

    /// Sets where a container stands.
    pub(crate) fn set(&self, container: &str, phase: Phase, generation: u64) {
        self.set_at(container, phase, generation, address(self.number, 2), 0);
    }

    pub(crate) fn set_at(
        &self,
        container: &str,
        phase: Phase,
        generation: u64,
        address: IpAddr,
        started_at_ms: i64,
    ) {
        self.set_record(RouteRecord {
            container: container.parse().unwrap(),
            project: PROJECT.parse().unwrap(),
            server: SERVER,
            hoody_kit: true,
            ssh_key: None,
            ssh_forwarding: true,
            phase,
            address: Some(address),
            generation: Generation(generation),
            started_at_ms: Some(started_at_ms),
            why_failed: false,
            edge: None,
        });
    }

    pub(crate) fn set_record(&self, record: RouteRecord) {
        let mut records = self.records.lock().unwrap();
        records.insert(record.container, record.clone());
        self.apply(record.container, Some(record));
    }

    /// Moves a container to another phase; what else is known of it stays.
    pub(crate) fn set_phase(&self, container: &str, phase: Phase) {
        let container: ContainerId = container.parse().unwrap();
        let record = self.records.lock().unwrap()[&container].clone();
        self.set_record(RouteRecord { phase, ..record });
    }

    /// Gives a container a permission document.
    pub(crate) fn gate(&self, container: &str, document: &serde_json::Value) {
        let document = Document::parse(document, None, &mut String::new).unwrap();
        self.change(container, |edge| edge.container = Some(Arc::new(document)));
    }

    /// Takes a container's permission document away.
    pub(crate) fn ungate(&self, container: &str) {
        self.change(container, |edge| edge.container = None);
    }

    /// Changes what the owner of a container has set.
    pub(crate) fn change(&self, container: &str, change: impl FnOnce(&mut EdgeRecord)) {
        let container: ContainerId = container.parse().unwrap();
        let mut record = self.records.lock().unwrap()[&container].clone();
        let mut edge = record.edge.map_or_else(EdgeRecord::default, Arc::unwrap_or_clone);
        change(&mut edge);
        record.edge = Some(Arc::new(edge));
        self.set_record(record);
    }

    pub(crate) fn remove(&self, container: &str) {
        let container = container.parse().unwrap();
        self.records.lock().unwrap().remove(&container);
        self.apply(container, None);
    }

    fn apply(&self, container: ContainerId, record: Option<RouteRecord>) {
        apply(&self.routes, container, record);
    }

    pub(crate) fn edge(&self) -> &Edge {
        self.edge.as_ref().unwrap()
    }

    pub(crate) fn https(&self) -> SocketAddr {
        self.edge().addresses().https[0]
    }

    pub(crate) fn http(&self) -> SocketAddr {
        self.edge().addresses().http[0]
    }

    pub(crate) fn plain(&self) -> SocketAddr {
        self.edge().addresses().plain[0]
    }

    pub(crate) fn admin(&self) -> SocketAddr {
        self.edge().addresses().admin[0]
    }

    /// A connection to the plain listener that serves.
    pub(crate) fn client(&self) -> Client {
        Client::connect(self.plain())
    }

    /// A connection over TLS with HTTP/1.1.
    pub(crate) fn tls_client(&self, sni: &str) -> Client {
        Client::connect_tls(self.https(), sni, &self.ca_path, b"http/1.1")
    }

    /// The same to a hostname outside the domain.
    pub(crate) fn custom_client(&self, sni: &str) -> Client {
        let ca = custom_ca(self.directory.path());
        Client::connect_tls(self.https(), sni, ca.ca_path(), b"http/1.1")
    }

    /// What `/metrics` shows for a name with its labels.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let reply = Client::connect(self.admin()).get("localhost", "/metrics", "");
        let line = reply
            .text()
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned));
        line.unwrap_or_else(|| panic!("no {name} in {}", reply.text())).parse().unwrap()
    }

    /// Waits until a metric has a value.
    pub(crate) fn wait_metric(&self, name: &str, want: f64) {
        self.wait_metric_until(name, |value| (value - want).abs() < f64::EPSILON);
    }

    /// Waits until a metric has at least a value.
    pub(crate) fn wait_metric_at_least(&self, name: &str, least: f64) {
        self.wait_metric_until(name, |value| value >= least);
    }

    /// Reads a metric again and again until it is right.
    fn wait_metric_until(&self, name: &str, is_right: impl Fn(f64) -> bool) {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let value = self.metric(name);
            if is_right(value) {
                return;
            }
            assert!(Instant::now() < end, "{name} stays {value}");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// Ends the edge, and returns its access lines.
    pub(crate) fn finish(mut self) -> Vec<serde_json::Value> {
        let edge = self.edge.take().unwrap();
        let runtime = self.runtime.take().unwrap();
        runtime.block_on(edge.drain(Duration::from_secs(5)));
        runtime.shutdown_background();
        let text = std::fs::read_to_string(&self.log_path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        drop(self.edge.take());
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The threads of the control runtime that may block.
pub(crate) const BLOCKING_THREADS: usize = 4;

fn control_runtime() -> tokio::runtime::Runtime {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(1).max_blocking_threads(BLOCKING_THREADS).enable_all().build().unwrap()
}

/// The configuration of a bed's edge.
fn configuration(number: u8, setup: &Setup, log_path: &Path) -> Config {
    let ip = address(number, 1);
    let own = vec![SocketAddr::new(ip, 0)];
    let listen = |port| vec![SocketAddr::new(setup.listen.unwrap_or(ip), port)];
    Config {
        listen_https: listen(setup.https_port),
        http3: setup.http3,
        listen_http: listen(0),
        listen_plain: own.clone(),
        listen_admin: own,
        workers: setup.workers,
        domain: "gantry.localhost".parse().unwrap(),
        servers: servers(),
        url_port: 8443,
        proxy_protocol_from: setup.proxy_protocol_from.clone(),
        upstream_source: setup.upstream_source,
        container_networks: vec![setup.container_network],
        limits: setup.limits,
        access_log: AccessLog::File(log_path.to_owned()),
        logs: setup.logs.clone(),
    }
}

fn no_routes() -> Routes {
    let empty = RouteSnapshot { epoch: Epoch([1; 16]), revision: Revision(1), containers: vec![] };
    Routes::new(RouteTable::build(&empty, &servers()))
}

/// The server of every container, and another one that the process runs, too.
pub(crate) const SERVER: ServerId = ServerId::from_bytes([1; 12]);

fn servers() -> Servers {
    let of = |id, name: &str| (id, name.parse().unwrap());
    Servers::new([of(ServerId::from_bytes([2; 12]), "second"), of(SERVER, "local")])
}

fn apply(routes: &Routes, container: ContainerId, record: Option<RouteRecord>) {
    let table = routes.current();
    let next = Revision(table.revision().0 + 1);
    table.apply(&[(container, record)], next);
}

/// Publishes certificates for the domain and for two hostnames outside it; returns where the domain's
/// CA lies. The one of the containers carries these names besides its own.
fn certify(resolver: &Resolver, directory: &Path, besides: &[&str]) -> PathBuf {
    let now = OffsetDateTime::now_utc();
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let leaf = |ca: &DevCa, of: &[&str], besides: &[&str]| Leaf {
        key: Arc::new(ca.issue(&names(&[of, besides].concat()), now).unwrap()),
        names: names(of),
    };
    let domain = "gantry.localhost".parse().unwrap();
    let (ca, custom) =
        (DevCa::open_or_create(directory, &domain, now).unwrap(), custom_ca(directory));
    let containers = ["*.local.containers.gantry.localhost", "*.other.containers.gantry.localhost"];
    let api = ["gantry.localhost", "api.gantry.localhost", "*.api.gantry.localhost"];
    let leafs = vec![
        leaf(&ca, &api, &[]),
        leaf(&custom, &[CUSTOM], &[]),
        leaf(&custom, &["also.customer.example"], &[]),
        leaf(&ca, &containers, besides),
    ];
    resolver.publish(Source::Development, leafs);
    ca.ca_path().to_owned()
}

/// The CA of the hostnames outside the domain.
fn custom_ca(directory: &Path) -> DevCa {
    let domain = "customer.example".parse().unwrap();
    DevCa::open_or_create(&directory.join("custom"), &domain, OffsetDateTime::now_utc()).unwrap()
}

fn address(number: u8, last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 77, number, last))
}

pub(crate) fn now_ms() -> i64 {
    i64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000).unwrap()
}

/// The usual ones: those that can be started share their ports.
pub(crate) fn kit(service: Service) -> KitPort {
    let provided = matches!(service, Service::Files | Service::Terminal | Service::Exec);
    let port = if provided { FILES_PORT - 1 } else { OWN_PORT + service as u16 };
    KitPort { provided, scheme: Scheme::Http, port, per_index: provided }
}

/// An API that tells what it was asked.
async fn api(request: Request<Body>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    assert!(parts.uri.path() != "/panic", "as the test wants");
    let extensions = &parts.extensions;
    if parts.uri.path() == "/live"
        && let Some(end) = extensions.get::<ApiUpgrade>().and_then(ApiUpgrade::take)
    {
        return Ok(websocket::leave(&parts.headers, end));
    }
    let body = match body.collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        Err(error) => format!("error: {error}"),
    };
    let realm = extensions.get::<ApiRealm>().unwrap().0;
    let told = serde_json::json!({
        "method": parts.method.as_str(),
        "path": parts.uri.path(),
        "body": body,
        "client": extensions.get::<ClientAddress>().unwrap().0.ip().to_string(),
        "realm": realm.map(|realm| realm.to_string()),
        "id": extensions.get::<RequestId>().unwrap().to_string(),
        "forwarded": parts.headers.contains_key("x-forwarded-for"),
        "authorization": parts.headers.get("authorization").map(|v| v.to_str().unwrap()),
    });
    let mut response = Response::new(Full::new(Bytes::from(told.to_string())));
    response.headers_mut().insert("content-type", "application/json".parse().unwrap());
    Ok(response)
}
