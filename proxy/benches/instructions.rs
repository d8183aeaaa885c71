//! Counts what one proxied keep-alive request costs the edge, in user-space instructions.
//!
//! `instructions.sh` runs this program three times: as the container's program, as the edge (under
//! callgrind, alone), and as the client with N and then 2N requests. The difference divided by N is
//! the cost of a request, without start and end. Host parse, guard, lookup among 100,000
//! containers, header hygiene and the access log are all on.

use std::{
    error::Error,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::future::BoxFuture;
use gantry_certs::{DevCa, Leaf, Resolver};
use gantry_model::{ContainerId, Generation, Phase, ProjectId, Scheme, Service};
use gantry_proxy::{
    AccessLog, Activity, Body, Config, Deps, Edge, KitPort, Limits, StartFailed, StartService,
    WakeContainer, WakeFailed, api_service,
};
use gantry_router::{RouteTable, Routes};
use gantry_store::{Epoch, Revision, RouteRecord, RouteSnapshot};
use http::{Request, Response};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use time::OffsetDateTime;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Containers in the table besides the one that is asked for.
const CONTAINERS: u32 = 100_000;
const PROJECT: &str = "aaaaaaaaaaaaaaaaaaaaaaaa";
const CONTAINER: &str = "bbbbbbbbbbbbbbbbbbbbbbbb";
const PORT: u16 = 3000;

type Outcome = Result<(), Box<dyn Error>>;

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *arguments {
        ["origin", address] => origin(address.parse()?),
        ["edge", address, container, directory] => {
            edge(address.parse()?, container.parse()?, Path::new(directory))
        }
        ["client", "plain", address, requests] => {
            let stream = TcpStream::connect(address)?;
            client(stream, requests.parse()?)
        }
        ["client", "tls", address, requests, ca] => {
            let stream = TcpStream::connect(address)?;
            client(tls(stream, &PathBuf::from(ca))?, requests.parse()?)
        }
        _ => {
            writeln!(std::io::stderr(), "run proxy/benches/instructions.sh")?;
            Ok(())
        }
    }
}

fn hostname() -> String {
    format!("{PROJECT}-{CONTAINER}-http-{PORT}.local.containers.gantry.localhost")
}

/// The container's program: a small answer to everything that ends a head.
fn origin(address: SocketAddr) -> Outcome {
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\
                            content-length: 14\r\n\r\nHello, world!\n";
    let serve = |mut stream: TcpStream| -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let mut buffer = vec![0; 16 * 1024];
        let mut filled = 0;
        while let count @ 1.. = stream.read(buffer.get_mut(filled..).unwrap_or_default())? {
            filled += count;
            if buffer.get(..filled).is_some_and(|octets| octets.ends_with(b"\r\n\r\n")) {
                filled = 0;
                stream.write_all(ANSWER)?;
            }
        }
        Ok(())
    };
    for stream in TcpListener::bind(address)?.incoming() {
        let stream = stream?;
        std::thread::spawn(move || serve(stream));
    }
    Ok(())
}

/// One worker of the edge, until its input ends.
fn edge(address: IpAddr, container: IpAddr, directory: &Path) -> Outcome {
    let now = OffsetDateTime::now_utc();
    let domain = "gantry.localhost".parse()?;
    let ca = DevCa::open_or_create(directory, &domain, now)?;
    let names = vec!["*.local.containers.gantry.localhost".to_owned()];
    let resolver = Arc::new(Resolver::new());
    resolver.publish(&[Leaf { key: Arc::new(ca.issue(&names, now)?), names }]);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let config = Config {
        listen_https: vec![SocketAddr::new(address, 8443)],
        listen_http: Vec::new(),
        listen_plain: vec![SocketAddr::new(address, 8080)],
        listen_admin: Vec::new(),
        workers: 1,
        domain,
        server: "local".parse()?,
        url_port: 8443,
        container_networks: vec!["127.77.0.0/16".parse()?],
        limits: Limits::default(),
        access_log: AccessLog::File(directory.join("access.log")),
    };
    let deps = Deps {
        routes: Routes::new(RouteTable::build(&snapshot(container)?)),
        certificates: resolver,
        api: api_service(tower::service_fn(|_: Request<Body>| async {
            Ok::<_, std::convert::Infallible>(Response::new(http_body_util::Empty::new()))
        })),
        control: runtime.handle().clone(),
        start_service: Arc::new(Nothing),
        wake: Arc::new(Nothing),
        activity: Activity::default(),
        kit: |_| KitPort { provided: false, scheme: Scheme::Http, port: |index| index },
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

fn snapshot(address: IpAddr) -> Result<RouteSnapshot, Box<dyn Error>> {
    let record = |project, container| RouteRecord {
        container,
        project,
        hoody_kit: true,
        phase: Phase::Running,
        address: Some(address),
        generation: Generation(1),
        started_at_ms: Some(0),
        why_failed: false,
        edge: None,
    };
    let mut containers = vec![record(PROJECT.parse()?, CONTAINER.parse()?)];
    containers.extend((0..CONTAINERS).map(|number| {
        let mut id = [7; 12];
        for (octet, mixed) in id.iter_mut().zip(number.wrapping_mul(0x9e37_79b1).to_be_bytes()) {
            *octet = mixed;
        }
        record(ProjectId::from_bytes([1; 12]), ContainerId::from_bytes(id))
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

fn tls(
    stream: TcpStream,
    ca: &Path,
) -> Result<StreamOwned<ClientConnection, TcpStream>, Box<dyn Error>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca)?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from(hostname())?;
    Ok(StreamOwned::new(ClientConnection::new(Arc::new(config), name)?, stream))
}

/// One connection, one request after the other.
fn client(mut stream: impl Read + Write, requests: u32) -> Outcome {
    let request = format!(
        "GET /some/path HTTP/1.1\r\nHost: {}\r\nUser-Agent: bench/1\r\nAccept: */*\r\n\r\n",
        hostname()
    );
    let mut buffer = vec![0; 16 * 1024];
    for _ in 0..requests {
        stream.write_all(request.as_bytes())?;
        stream.flush()?;
        let mut filled = 0;
        loop {
            let count = stream.read(buffer.get_mut(filled..).unwrap_or_default())?;
            filled += count;
            let answer = buffer.get(..filled).unwrap_or_default();
            if count == 0 || !answer.starts_with(b"HTTP/1.1 200 OK\r\n") {
                return Err(String::from_utf8_lossy(answer).into_owned().into());
            }
            if answer.ends_with(b"\r\n\r\nHello, world!\n") {
                break;
            }
        }
    }
    Ok(())
}
