//! Programs that others wrote, in the place of a container's: what each of them took an octet stream
//! for is the question. Every server records the requests that it saw whole, one JSON object a line.

use std::{
    fmt::Write as _,
    fs,
    io::Write as _,
    net::{SocketAddr, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;

use crate::{bed::Bed, python::interpreter};

/// Where the programs lie that the tests run.
pub(crate) const PROGRAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/foreign");

/// A process of another program; it ends when dropped.
pub(crate) struct Program(Child);

impl Program {
    /// Starts `command`, and waits until it listens at `address`.
    pub(crate) fn start(command: &mut Command, address: SocketAddr) -> Self {
        // A group of its own, so that what it starts ends with it.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().unwrap();
        let mut this = Self(child);
        let end = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(address).is_err() {
            assert!(this.0.try_wait().unwrap().is_none(), "{command:?} has ended");
            assert!(Instant::now() < end, "{command:?} does not listen at {address}");
            std::thread::park_timeout(Duration::from_millis(10));
        }
        this
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let group = format!("-{}", self.0.id());
        drop(Command::new("kill").args(["-KILL", "--", &group]).status());
        drop(self.0.wait());
    }
}

/// Whether the programs at `paths` are there. In CI they must be.
pub(crate) fn are_installed(paths: &[&Path]) -> bool {
    let missing: Vec<_> = paths.iter().filter(|path| !path.exists()).collect();
    assert!(missing.is_empty() || std::env::var_os("CI").is_none(), "missing: {missing:?}");
    if !missing.is_empty() {
        eprintln!("not run, missing: {missing:?}");
    }
    missing.is_empty()
}

/// A request as a server saw it. What its fields mean is the server's own word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) host: String,
    pub(crate) length: String,
    pub(crate) coding: String,
    /// Who the client is, as the server was told.
    pub(crate) client: String,
    pub(crate) body: String,
    /// Names of trailers, where the server shows them.
    pub(crate) trailers: String,
}

/// One of the servers.
pub(crate) struct Server {
    pub(crate) name: &'static str,
    pub(crate) port: u16,
    log: PathBuf,
    taken: usize,
    _program: Option<Program>,
}

impl Server {
    /// The requests that came since the last call, up to the one for `last`, which is waited for.
    pub(crate) fn seen_up_to(&mut self, last: &str) -> Vec<Seen> {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let text = fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<&str> =
                text.split_inclusive('\n').filter(|line| line.ends_with('\n')).collect();
            let new: Vec<Seen> =
                lines.iter().skip(self.taken).filter_map(|line| parse(line)).collect();
            if new.last().is_some_and(|seen| seen.target == last) {
                self.taken = lines.len();
                return new;
            }
            assert!(Instant::now() < end, "{} did not see {last}: {new:?}", self.name);
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }
}

/// Reads a line; nothing for a request that was not whole.
fn parse(line: &str) -> Option<Seen> {
    let value: Value = serde_json::from_str(line).expect(line);
    let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    if value["passed"].as_str() == Some("") {
        return None;
    }
    Some(Seen {
        method: text("method"),
        target: text("target"),
        host: text("host"),
        length: text("length"),
        coding: text("coding"),
        client: text("client"),
        body: text("body"),
        trailers: text("trailers"),
    })
}

const NGINX: &str = "/usr/sbin/nginx";
const NODE: &str = "/usr/bin/node";

/// All of them, on ports 3000 and up of the bed's container; nothing if one is not installed.
pub(crate) fn all(bed: &Bed, directory: &Path) -> Option<Vec<Server>> {
    let python = interpreter();
    if !are_installed(&[Path::new(NGINX), &python, Path::new(NODE)]) {
        return None;
    }
    let address = |port| SocketAddr::new(bed.container_address(2), port);
    let ip = bed.container_address(2).to_string();
    let log = |name: &str| directory.join(format!("{name}.seen"));
    let configuration = fs::read_to_string(Path::new(PROGRAMS).join("nginx.conf")).unwrap();
    let configuration = configuration
        .replace("ADDRESS", &address(3000).to_string())
        .replace("DIRECTORY", directory.to_str().unwrap());
    fs::write(directory.join("nginx.conf"), configuration).unwrap();
    let mut nginx = Command::new(NGINX);
    nginx.arg("-p").arg(directory).arg("-c").arg(directory.join("nginx.conf"));
    let mut gunicorn = Command::new(&python);
    gunicorn.args([
        "-m",
        "gunicorn",
        "--bind",
        &address(3001).to_string(),
        "--chdir",
        PROGRAMS,
        "--threads",
        "4",
    ]);
    gunicorn.args(["--keep-alive", "60", "--log-level", "critical", "seen_wsgi:app"]);
    gunicorn.env("SEEN", log("gunicorn")).env("PYTHONDONTWRITEBYTECODE", "1");
    let mut uvicorn = Command::new(&python);
    uvicorn.args(["-m", "uvicorn", "--host", &ip, "--port", "3002", "--app-dir", PROGRAMS]);
    uvicorn.args(["--http", "h11", "--lifespan", "off", "--no-access-log"]);
    uvicorn.args(["--log-level", "critical", "--no-proxy-headers", "seen_asgi:app"]);
    uvicorn.env("SEEN", log("uvicorn")).env("PYTHONDONTWRITEBYTECODE", "1");
    let mut node = Command::new(NODE);
    node.arg(Path::new(PROGRAMS).join("seen.js")).args([&ip, "3003"]).arg(log("node"));
    serve_hyper(address(3004), log("hyper"));
    let server = |name, port, command: Option<&mut Command>| Server {
        name,
        port,
        log: log(name),
        taken: 0,
        _program: command.map(|command| Program::start(command, address(port))),
    };
    Some(vec![
        server("nginx", 3000, Some(&mut nginx)),
        server("gunicorn", 3001, Some(&mut gunicorn)),
        server("uvicorn", 3002, Some(&mut uvicorn)),
        server("node", 3003, Some(&mut node)),
        server("hyper", 3004, None),
    ])
}

/// Serves with hyper, in a thread of this process, until the process ends.
fn serve_hyper(address: SocketAddr, log: PathBuf) {
    let listener = std::net::TcpListener::bind(address).unwrap();
    listener.set_nonblocking(true).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let serve = async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let log = log.clone();
            let service = hyper::service::service_fn(move |request| record(log.clone(), request));
            let http = hyper::server::conn::http1::Builder::new();
            connections.spawn(http.serve_connection(TokioIo::new(stream), service));
        }
    };
    std::thread::spawn(move || runtime.block_on(serve));
}

async fn record(log: PathBuf, request: Request<Incoming>) -> hyper::Result<Response<Full<Bytes>>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    let names: Vec<&str> = trailers.keys().map(http::HeaderName::as_str).collect();
    let seen = serde_json::json!({
        "method": parts.method.as_str(),
        "target": parts.uri.to_string(),
        "host": field(&parts.headers, "host"),
        "length": field(&parts.headers, "content-length"),
        "coding": field(&parts.headers, "transfer-encoding"),
        "client": field(&parts.headers, "x-forwarded-for"),
        "body": String::from_utf8_lossy(&body.to_bytes()),
        "trailers": names.join(","),
    });
    let mut file = fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
    file.write_all(format!("{seen}\n").as_bytes()).unwrap();
    Ok(Response::new(Full::new(Bytes::from(parts.uri.to_string()))))
}

/// All values of a field in one.
fn field(headers: &HeaderMap, name: &str) -> String {
    let mut all = String::new();
    for value in headers.get_all(name) {
        let comma = if all.is_empty() { "" } else { ", " };
        write!(all, "{comma}{}", String::from_utf8_lossy(value.as_bytes())).unwrap();
    }
    all
}
