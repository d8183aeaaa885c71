//! Whether the installation as a whole is well: its state directory, ports, names, certificates, CAs, runtimes and
//! what the machine lets it have.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::Duration,
};

use gantry_certs::diagnosis::{Finding, Grounds};
use gantry_model::Chain;
use rustix::process::{Resource, getrlimit};
use tokio::{net::TcpStream, time::timeout};

use super::Desk;
use crate::{
    config::{Config, EdgeConfig},
    daemon::ports,
};

/// How long a connection to a port of our own may take.
const CONNECT: Duration = Duration::from_secs(2);
/// How long a runtime may take to say what it has.
const RUNTIME: Duration = Duration::from_secs(20);
/// Files that are nobody else's to read.
const SECRETS: [&str; 4] = ["sealing.key", "session.key", "admin.json", "ca/ca.key"];
/// Descriptors that many connections take; each proxied request has two.
const DESCRIPTORS: u64 = 65_536;
/// The least free disk, in octets, until that is worth a word, and until it is too little.
const DISK: u64 = 5 << 30;
const DISK_MIN: u64 = 512 << 20;

/// Whether Gantry runs.
pub(super) fn process(is_running: bool, config: &Config) -> Finding {
    let state = config.server.state.display();
    if is_running {
        let (pid, version) = (std::process::id(), env!("CARGO_PKG_VERSION"));
        return Finding::ok(
            "process",
            format!("Gantry {version} runs as process {pid} on {state}"),
        );
    }
    let found = format!("no Gantry runs on {state}; the rest is by its configuration and store");
    Finding::failure("process", found, "it runs; --state or --config name another one")
}

/// Looks at everything.
pub(super) async fn look(
    grounds: &Grounds<'_>,
    config: &Config,
    desk: Option<&Desk>,
    findings: &mut Vec<Finding>,
) {
    findings.extend(state(&config.server.state));
    match desk {
        Some(_) => findings.extend(listening(&config.edge).await),
        None => findings.push(free(&config.edge)),
    }
    findings.extend(asked_ports(grounds, &config.edge));
    let domain = &config.server.domain;
    let mut names = vec![domain.as_str().to_owned(), domain.api().to_owned()];
    let zone = domain.zone();
    names.extend(config.servers().map(|(server, _)| format!("*.{server}.{zone}")));
    for name in names {
        findings.extend(grounds.leads(&name).await);
    }
    findings.extend(grounds.certificates().await);
    findings.extend(grounds.ask_clocks().await);
    match desk {
        Some(desk) => findings.extend(runtimes(desk).await),
        None => findings.push(Finding::warning(
            "runtime",
            "not asked, because no Gantry runs",
            "it runs",
        )),
    }
    findings.push(descriptors());
    findings.push(disk(&config.server.state));
}

/// Whether the state directory is there, ours, and has its secrets to itself.
fn state(dir: &Path) -> Vec<Finding> {
    const CHECK: &str = "state";
    let shown = dir.display();
    let about = match fs::metadata(dir) {
        Ok(about) => about,
        Err(error) => {
            let right = "the first start makes it; --state names another one";
            return vec![Finding::failure(CHECK, format!("{shown}: {error}"), right)];
        }
    };
    let mut findings = Vec::new();
    if about.mode() & 0o022 != 0 {
        let found = format!("others may write to {shown} (mode {:o})", about.mode() & 0o777);
        findings.push(Finding::failure(CHECK, found, format!("chmod 711 {shown}")));
    }
    let own = rustix::process::geteuid().as_raw();
    if about.uid() != own && own != 0 {
        let found = format!("{shown} is of user {}, and this is user {own}", about.uid());
        findings.push(Finding::failure(CHECK, found, "Gantry runs as the user that has its state"));
    }
    for name in SECRETS {
        let path = dir.join(name);
        if let Ok(about) = fs::metadata(&path)
            && about.mode() & 0o077 != 0
        {
            let shown = path.display();
            let found = format!("others may read {shown} (mode {:o})", about.mode() & 0o777);
            findings.push(Finding::failure(CHECK, found, format!("chmod 600 {shown}")));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok(CHECK, format!("{shown} has its secrets to itself")));
    }
    findings
}

/// Whether the edge takes connections.
async fn listening(edge: &EdgeConfig) -> Vec<Finding> {
    let ports = [("edge.https", &edge.https), ("edge.http", &edge.http), ("edge.ssh", &edge.ssh)];
    let mut findings = Vec::new();
    for (key, addresses) in ports {
        for address in addresses {
            let to = SocketAddr::new(reachable(address.ip()), address.port());
            let right = "the process listens there; its log says why not";
            findings.push(match timeout(CONNECT, TcpStream::connect(to)).await {
                Ok(Ok(_connection)) => {
                    Finding::ok("ports", format!("{key}: {address} takes connections"))
                }
                Ok(Err(error)) => {
                    Finding::failure("ports", format!("{key}: {address}: {error}"), right)
                }
                Err(_elapsed) => {
                    Finding::failure("ports", format!("{key}: {address} does not answer"), right)
                }
            });
        }
    }
    findings
}

/// What to connect to for what is listened on.
fn reachable(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(any) if any.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(any) if any.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        IpAddr::V4(_) | IpAddr::V6(_) => address,
    }
}

/// Whether the edge could listen.
fn free(edge: &EdgeConfig) -> Finding {
    match ports::check(edge, |_| false) {
        Ok(()) => Finding::ok("ports", "those of the configuration are free"),
        Err(taken) => {
            let taken: Vec<_> = taken.lines().map(str::trim).collect();
            Finding::failure("ports", taken.join("; "), "nothing else listens there")
        }
    }
}

/// Whether CAs come to the edge where they ask for proofs of custom hostnames.
fn asked_ports(grounds: &Grounds<'_>, edge: &EdgeConfig) -> Option<Finding> {
    let has = |addresses: &[SocketAddr], port| addresses.iter().any(|it| it.port() == port);
    if grounds.authorities.is_empty() || has(&edge.http, 80) || has(&edge.https, 443) {
        return None;
    }
    let found = "the edge listens neither on 80 nor on 443, where CAs ask about custom hostnames";
    Some(Finding::warning(
        "ports",
        found,
        "something passes connections to these ports on to the edge",
    ))
}

/// Whether the runtimes answer.
async fn runtimes(desk: &Desk) -> Vec<Finding> {
    let mut findings = Vec::new();
    for served in desk.servers.iter() {
        let name = &served.server.name;
        findings.push(match timeout(RUNTIME, served.runtime.list()).await {
            Ok(Ok(containers)) => {
                let found =
                    format!("that of server {name} answers: {} containers", containers.len());
                Finding::ok("runtime", found)
            }
            Ok(Err(error)) => {
                let found = format!("that of server {name}: {}", Chain(&error));
                Finding::failure("runtime", found, "it can be asked; the log says more")
            }
            Err(_elapsed) => {
                let found = format!("that of server {name} does not answer");
                Finding::failure("runtime", found, "it answers; what has it do so long?")
            }
        });
    }
    findings
}

/// How many files and connections the process may have.
fn descriptors() -> Finding {
    let limit = getrlimit(Resource::Nofile).current;
    match limit {
        Some(limit) if limit < DESCRIPTORS => {
            let found = format!("the process may have {limit} files and connections");
            let right = format!("at least {DESCRIPTORS}: LimitNOFILE= of systemd, or ulimit -n");
            Finding::warning("descriptors", found, right)
        }
        Some(limit) => Finding::ok("descriptors", format!("the process may have {limit}")),
        None => Finding::ok("descriptors", "the process may have as many as it wants"),
    }
}

/// How much disk is left where the state is.
fn disk(dir: &Path) -> Finding {
    let shown = dir.display();
    let right = "room for containers and snapshots; without any, the store cannot write";
    let about = match rustix::fs::statvfs(dir) {
        Ok(about) => about,
        Err(error) => return Finding::warning("disk", format!("{shown}: {error}"), right),
    };
    let free = about.f_bavail.saturating_mul(about.f_frsize);
    let found = format!("{} MiB are free where {shown} is", free >> 20);
    if free < DISK_MIN {
        Finding::failure("disk", found, right)
    } else if free < DISK {
        Finding::warning("disk", found, right)
    } else {
        Finding::ok("disk", found)
    }
}
