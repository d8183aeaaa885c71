//! One worker of the edge with 100,000 routes, and the names and certificates that belong to them.
//!
//! Two of its containers are asked for: one whose owner has said who may pass, and one that is open.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr},
    path::Path,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use futures_util::future::BoxFuture;
use gantry_benches::{SERVER, servers};
use gantry_certs::{Leaf, Resolver, Source};
use gantry_model::{ContainerId, Generation, Phase, ProjectId, Scheme, Service, access::Document};
use gantry_proxy::{
    AccessLog, Activity, Body, Config, Deps, Edge, KitPort, KitPorts, Limits, Logs, LogsConfig,
    SessionKey, StartFailed, StartService, UpstreamSource, WakeContainer, WakeFailed, api_service,
};
use gantry_router::{RouteTable, Routes};
use gantry_store::{EdgeRecord, Epoch, Revision, RouteRecord, RouteSnapshot};
use http::{Request, Response};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use serde_json::json;
use time::OffsetDateTime;

use crate::{Failed, Outcome};

/// Containers in the table besides those that are asked for.
const CONTAINERS: u32 = 100_000;
const PROJECT: &str = "aaaaaaaaaaaaaaaaaaaaaaaa";
const GUARDED: &str = "bbbbbbbbbbbbbbbbbbbbbbbb";
const OPEN: &str = "cccccccccccccccccccccccc";
const ZONE: &str = "local.containers.gantry.localhost";
/// The port of the containers that are asked for.
const PORT: u16 = 3000;

/// Which container is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// The one with a permission document: each request is decided about.
    Guarded,
    /// The one without.
    Open,
}

impl Gate {
    /// The hostname that requests for the container are for.
    pub(crate) fn hostname(self) -> String {
        let container = match self {
            Self::Guarded => GUARDED,
            Self::Open => OPEN,
        };
        format!("{PROJECT}-{container}-http-{PORT}.{ZONE}")
    }
}

impl FromStr for Gate {
    type Err = Failed;

    fn from_str(text: &str) -> Result<Self, Failed> {
        match text {
            "guarded" => Ok(Self::Guarded),
            "open" => Ok(Self::Open),
            _ => Err(format!("a container is guarded or open, not {text}").into()),
        }
    }
}

/// A document as an owner might write it: three groups, each with another kind of proof, that open
/// the port that is asked for, and a default. A request that proves nothing is held against all of
/// them, belongs to none, and passes by the default.
fn document() -> Result<Document, Failed> {
    let groups = json!({
        "office": {"type": "ip", "range": "198.51.100.0/24"},
        "partners": {"type": "token", "header": "X-Partner-Key", "value": "a key of a measurement"},
        "staff": {"type": "password", "username": "staff", "password": "a measurement"},
    });
    let permissions = json!({
        "office": {"http": PORT},
        "partners": {"http": PORT},
        "staff": {"terminal": true, "files": true},
    });
    let document = json!({"groups": groups, "permissions": permissions, "default": "allow"});
    let parsed = Document::parse(&document, None, &mut || "salt".to_owned());
    parsed.map_err(|errors| format!("{errors:?}").into())
}

/// Prints the hostnames of all containers, for programs that are told theirs by a file.
pub(crate) fn hostnames() -> Outcome {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for gate in [Gate::Guarded, Gate::Open] {
        writeln!(out, "{}", gate.hostname())?;
    }
    for number in 0..CONTAINERS {
        let (project, container) = ids(number);
        writeln!(out, "{project}-{container}-http-{PORT}.{ZONE}")?;
    }
    Ok(out.flush()?)
}

fn ids(number: u32) -> (ProjectId, ContainerId) {
    let mut id = [7; 12];
    for (octet, mixed) in id.iter_mut().zip(number.wrapping_mul(0x9e37_79b1).to_be_bytes()) {
        *octet = mixed;
    }
    (ProjectId::from_bytes([1; 12]), ContainerId::from_bytes(id))
}

/// Writes a certificate for all hostnames (P-256), its key and the CA that signed it.
pub(crate) fn certificates(directory: &Path) -> Outcome {
    let mut of_ca = CertificateParams::default();
    of_ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    of_ca.distinguished_name.push(DnType::CommonName, "CA of a measurement");
    let ca_key = KeyPair::generate()?;
    std::fs::write(directory.join("ca.pem"), of_ca.self_signed(&ca_key)?.pem())?;
    let issuer = Issuer::new(of_ca, ca_key);
    let key = KeyPair::generate()?;
    let leaf = CertificateParams::new(vec![format!("*.{ZONE}")])?.signed_by(&key, &issuer)?;
    std::fs::write(directory.join("leaf.pem"), leaf.pem())?;
    Ok(std::fs::write(directory.join("leaf.key"), key.serialize_pem())?)
}

/// Serves until its input ends. `directory` has the certificate and gets the access log.
pub(crate) fn run(address: IpAddr, container: IpAddr, directory: &Path) -> Outcome {
    let key = CertifiedKey::from_der(
        vec![CertificateDer::from_pem_file(directory.join("leaf.pem"))?],
        PrivateKeyDer::from_pem_file(directory.join("leaf.key"))?,
        &rustls::crypto::aws_lc_rs::default_provider(),
    )?;
    let resolver = Arc::new(Resolver::new());
    let leaf = Leaf { key: Arc::new(key), names: vec![format!("*.{ZONE}")] };
    resolver.publish(Source::Development, vec![leaf]);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let limits = Limits {
        connections_per_address_max: 50_000,
        idle: Duration::from_hours(1),
        ..Limits::default()
    };
    let config = Config {
        listen_https: vec![SocketAddr::new(address, 8443)],
        http3: false,
        listen_http: Vec::new(),
        listen_plain: vec![SocketAddr::new(address, 8080)],
        listen_admin: Vec::new(),
        workers: 1,
        domain: "gantry.localhost".parse()?,
        servers: servers(),
        url_port: 8443,
        proxy_protocol_from: Vec::new(),
        upstream_source: UpstreamSource::Edge,
        container_networks: vec!["127.77.0.0/16".parse()?],
        limits,
        access_log: AccessLog::File(directory.join("access.log")),
        logs: LogsConfig::default(),
    };
    let deps = Deps {
        routes: Routes::new(RouteTable::build(&snapshot(container)?, &config.servers)),
        certificates: resolver,
        tickets: None,
        challenges: None,
        session_key: SessionKey::new([0; 32]),
        api: api_service(tower::service_fn(|_: Request<Body>| async {
            Ok::<_, std::convert::Infallible>(Response::new(http_body_util::Empty::new()))
        })),
        control: runtime.handle().clone(),
        start_service: Arc::new(Nothing),
        wake: Arc::new(Nothing),
        activity: Activity::default(),
        logs: Logs::new(&config),
        kit: KitPorts::new(|_| KitPort {
            provided: false,
            scheme: Scheme::Http,
            port: 1,
            per_index: false,
        }),
        now_ms: || OffsetDateTime::now_utc().unix_timestamp() * 1000,
        readiness: Vec::new(),
        metrics: Vec::new(),
    };
    let edge = Edge::start(config, deps)?;
    writeln!(std::io::stdout(), "ready")?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    runtime.block_on(edge.drain(Duration::from_secs(5)));
    Ok(())
}

fn snapshot(address: IpAddr) -> Result<RouteSnapshot, Failed> {
    let record = |project, container, edge| RouteRecord {
        container,
        project,
        server: SERVER,
        hoody_kit: true,
        ssh_key: None,
        ssh_forwarding: true,
        phase: Phase::Running,
        address: Some(address),
        generation: Generation(1),
        started_at_ms: Some(0),
        why_failed: false,
        edge,
    };
    let guarded = EdgeRecord { container: Some(Arc::new(document()?)), ..EdgeRecord::default() };
    let mut containers = vec![
        record(PROJECT.parse()?, GUARDED.parse()?, Some(Arc::new(guarded))),
        record(PROJECT.parse()?, OPEN.parse()?, None),
    ];
    containers.extend((0..CONTAINERS).map(|number| {
        let (project, container) = ids(number);
        record(project, container, None)
    }));
    Ok(RouteSnapshot { epoch: Epoch([1; 16]), revision: Revision(1), containers })
}

struct Nothing;

impl StartService for Nothing {
    fn start(
        &self,
        _container: ContainerId,
        _service: Service,
        _index: u16,
    ) -> BoxFuture<'static, Result<(), StartFailed>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

impl WakeContainer for Nothing {
    fn wake(
        &self,
        _container: ContainerId,
        _within: Duration,
    ) -> BoxFuture<'static, Result<(), WakeFailed>> {
        Box::pin(std::future::ready(Ok(())))
    }
}
