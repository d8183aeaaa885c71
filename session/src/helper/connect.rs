//! Connections to addresses, as seen from inside the container.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
    path::Path,
    rc::Rc,
    time::Duration,
};

use gantry_session::protocol::{FromHelper, Id, Reason, Target};
use hickory_resolver::{
    TokioResolver,
    config::{LookupIpStrategy, ResolveHosts},
    net::runtime::TokioRuntimeProvider,
    system_conf::parse_resolv_conf,
};
use tokio::{net::TcpStream, time::timeout};

use super::{
    errand::{self, Errand},
    files,
    relay::{self, Stream, Ways},
    serve::{Kind, Refusal, Shared},
};

/// How long it may take to find a name, and to connect to one address.
const PATIENCE: Duration = Duration::from_secs(30);

/// The most addresses of a name that are tried.
const ADDRESSES_MAX: usize = 16;

/// Connects, and carries octets until both sides have ended or the edge ends it.
pub(super) async fn run(
    shared: &Rc<Shared>,
    id: Id,
    target: Target,
    user: String,
    fds: Vec<OwnedFd>,
) -> Result<(), Refusal> {
    let ways = Ways::new(fds).ok_or_else(Refusal::descriptors)?;
    let Some(ended) = shared.becomes(id, Kind::Other) else { return Ok(()) };
    let connection = tokio::select! {
        connection = open(shared, target, user) => connection?,
        () = ended.notified() => return Ok(()),
    };
    let ways = ways.map_err(|error| Refusal::io("its pipes", &error))?;
    shared.tell(&FromHelper::Started { id }).await;
    relay::both(connection, ways, shared.scratch(), ended.notified()).await;
    Ok(())
}

async fn open(shared: &Shared, target: Target, user: String) -> Result<Stream, Refusal> {
    let fd = match target {
        Target::Tcp(host, port) => tcp(&host, port).await?,
        Target::Unix(path) => {
            Errand { user, what: errand::What::Connect(path) }.run(shared).await?.socket
        }
    };
    relay::stream(fd).map_err(|error| Refusal::io("a connection", &error))
}

/// Tries all addresses of a host, one after the other.
async fn tcp(host: &str, port: u16) -> Result<OwnedFd, Refusal> {
    let mut failure = None;
    for address in addresses(host).await?.into_iter().take(ADDRESSES_MAX) {
        let address = SocketAddr::new(address, port);
        match timeout(PATIENCE, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                let into_fd = |stream: TcpStream| {
                    stream.set_nodelay(true)?;
                    Ok(OwnedFd::from(stream.into_std()?))
                };
                return into_fd(stream)
                    .map_err(|error: io::Error| Refusal::io("a connection", &error));
            }
            Ok(Err(error)) => failure = Some(Refusal::io(&address.to_string(), &error)),
            Err(_elapsed) => {
                failure = Some(Refusal::failed(format!("{address}: nobody answers")));
            }
        }
    }
    Err(failure.unwrap_or_else(|| Refusal::failed(format!("{host}: it has no address"))))
}

/// The addresses of a host: itself if it is one, by the container's `/etc/hosts`, or by its name servers.
pub(super) async fn addresses(host: &str) -> Result<Vec<IpAddr>, Refusal> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = bare.parse() {
        return Ok(vec![address]);
    }
    // Without the file, or without the name in it, the name servers are asked.
    let hosts = files::read(Path::new("/etc/hosts")).unwrap_or_default();
    let known = in_hosts(&hosts, host);
    if !known.is_empty() {
        return Ok(known);
    }
    if host.eq_ignore_ascii_case("localhost") {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    ask(host).await.map_err(|why| Refusal {
        reason: Reason::Failed,
        message: format!("{host}: unknown host ({why})"),
    })
}

fn in_hosts(hosts: &[u8], host: &str) -> Vec<IpAddr> {
    let text = String::from_utf8_lossy(hosts);
    let address = |line: &str| {
        let mut words = line.split('#').next()?.split_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|name| name.eq_ignore_ascii_case(host)).then_some(address)
    };
    text.lines().filter_map(address).collect()
}

async fn ask(host: &str) -> Result<Vec<IpAddr>, Box<dyn std::error::Error>> {
    let settings = files::read(Path::new("/etc/resolv.conf"))
        .map_err(|error| format!("/etc/resolv.conf: {error}"))?;
    let (config, mut options) = parse_resolv_conf(settings)?;
    options.use_hosts_file = ResolveHosts::Never;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    // It is made anew each time, because the file may have changed.
    options.cache_size = 0;
    let provider = TokioRuntimeProvider::default();
    let resolver =
        TokioResolver::builder_with_config(config, provider).with_options(options).build()?;
    let found =
        timeout(PATIENCE, resolver.lookup_ip(host)).await.map_err(|_elapsed| "no answer")??;
    Ok(found.iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_found_by_any_of_their_names() {
        let hosts = b"127.0.0.1 localhost # not.here\n::1\tlocalhost ip6\nbroken db\n\n10.0.0.2 db DB.example\n";
        for (host, want) in [
            ("localhost", vec!["127.0.0.1", "::1"]),
            ("Db.Example", vec!["10.0.0.2"]),
            ("not.here", vec![]),
            ("10.0.0.2", vec![]),
        ] {
            let want: Vec<IpAddr> = want.into_iter().map(|ip| ip.parse().unwrap()).collect();
            assert_eq!(in_hosts(hosts, host), want, "{host}");
        }
    }
}
