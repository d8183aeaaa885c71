//! Clients: bounded, blocking, with a thread per connection where there are several at once.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    client::Resumption,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

use crate::{Failed, Outcome, edge::Gate};

/// No answer takes longer, or the measurement fails.
const PATIENCE: Duration = Duration::from_secs(30);
/// Connections that handshakes and requests at a fixed rate are spread over.
const THREADS: u32 = 4;

/// Connects without TLS.
pub(crate) fn plain(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// How TLS is spoken: 1.3, X25519 (every server has it), no resumption.
#[derive(Clone)]
pub(crate) struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Tls {
    pub(crate) fn new(ca: &Path) -> Result<Self, Failed> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca)?)?;
        let provider = Arc::new(CryptoProvider {
            kx_groups: vec![aws_lc_rs::kx_group::X25519],
            ..aws_lc_rs::default_provider()
        });
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Self { config: Arc::new(config), name: ServerName::try_from(Gate::Guarded.hostname())? })
    }

    pub(crate) fn connect(
        &self,
        address: SocketAddr,
    ) -> Result<StreamOwned<ClientConnection, TcpStream>, Failed> {
        let mut stream = plain(address)?;
        let mut session = ClientConnection::new(Arc::clone(&self.config), self.name.clone())?;
        while session.is_handshaking() {
            session.complete_io(&mut stream)?;
        }
        Ok(StreamOwned::new(session, stream))
    }
}

fn head(gate: Gate, path: &str, more: &str) -> Vec<u8> {
    let host = gate.hostname();
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bench/1\r\nAccept: */*\r\n{more}\r\n"
    )
    .into_bytes()
}

/// Sends a request and reads its answer, which starts and ends as given.
fn exchange(
    stream: &mut (impl Read + Write),
    request: &[u8],
    start: &[u8],
    end: &[u8],
) -> Result<(), Failed> {
    stream.write_all(request)?;
    stream.flush()?;
    let mut buffer = [0; 2048];
    let mut filled = 0;
    loop {
        let count = stream.read(buffer.get_mut(filled..).unwrap_or_default())?;
        filled += count;
        let answer = buffer.get(..filled).unwrap_or_default();
        if count == 0 || !answer.starts_with(start) {
            return Err(format!("no such answer: {:?}", String::from_utf8_lossy(answer)).into());
        }
        if answer.ends_with(end) {
            return Ok(());
        }
    }
}

fn hello(stream: &mut (impl Read + Write), request: &[u8]) -> Result<(), Failed> {
    exchange(stream, request, b"HTTP/1.1 200 OK\r\n", b"\r\n\r\nHello, world!\n")
}

/// One connection, one request after the other.
pub(crate) fn requests(mut stream: impl Read + Write, gate: Gate, count: u32) -> Outcome {
    let request = head(gate, "/some/path", "");
    for _ in 0..count {
        hello(&mut stream, &request)?;
    }
    Ok(())
}

/// Runs `work` on all threads with their share of `count`.
fn spread<T: Send>(
    count: u32,
    work: impl Fn(u32) -> Result<T, Failed> + Sync,
) -> Result<Vec<T>, Failed> {
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..THREADS).map(|_| scope.spawn(|| work(count.div_ceil(THREADS)))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err("a thread has panicked".into())))
            .collect()
    })
}

/// Full handshakes. The server has seen the end of each when it closes, too.
pub(crate) fn handshakes(address: SocketAddr, count: u32, ca: &Path) -> Outcome {
    let tls = Tls::new(ca)?;
    spread(count, |count| {
        for _ in 0..count {
            let mut stream = tls.connect(address)?;
            stream.conn.send_close_notify();
            stream.flush()?;
            stream.sock.shutdown(Shutdown::Write)?;
            // Some close with a reset; the handshake was complete all the same.
            drop(std::io::copy(&mut stream.sock, &mut std::io::sink()));
        }
        Ok(())
    })?;
    Ok(())
}

/// Opens connections, uses each once and keeps it until the input ends.
pub(crate) fn idle(kind: &str, address: SocketAddr, count: usize, ca: &Path) -> Outcome {
    let tls = Tls::new(ca)?;
    let socket = head(
        Gate::Guarded,
        "/socket",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    );
    let http = head(Gate::Guarded, "/some/path", "");
    let mut kept = Vec::with_capacity(count);
    for _ in 0..count {
        let mut stream = tls.connect(address)?;
        match kind {
            "websocket" => exchange(&mut stream, &socket, b"HTTP/1.1 101 ", b"\r\n\r\n")?,
            _ => hello(&mut stream, &http)?,
        }
        // What TLS remembers on this side is not needed any more.
        kept.push(stream.sock);
    }
    writeln!(std::io::stdout(), "ready")?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    drop(kept);
    Ok(())
}

/// Sends requests at a fixed rate, each connection in its own time. A request that a late answer has
/// delayed counts from the moment when it should have been sent.
pub(crate) fn latency(address: SocketAddr, rate: u32, seconds: u32, ca: Option<&Path>) -> Outcome {
    let tls = ca.map(Tls::new).transpose()?;
    let interval = Duration::from_secs(1) * THREADS / rate.max(1);
    let times = spread(rate.saturating_mul(seconds), |count| match &tls {
        Some(tls) => paced(tls.connect(address)?, count, interval),
        None => paced(plain(address)?, count, interval),
    })?;
    let mut times: Vec<u128> = times.into_iter().flatten().collect();
    times.sort_unstable();
    let percentile = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or(0);
    let mut out = std::io::stdout();
    for percent in [50, 90, 95, 99] {
        writeln!(out, "p{percent}_us {}", percentile(percent))?;
    }
    Ok(writeln!(out, "requests {}", times.len())?)
}

#[expect(clippy::disallowed_methods, reason = "a thread of a client, which has nothing else to do")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

fn paced(
    mut stream: impl Read + Write,
    count: u32,
    interval: Duration,
) -> Result<Vec<u128>, Failed> {
    let request = head(Gate::Guarded, "/some/path", "");
    let mut times = Vec::new();
    let mut due = Instant::now();
    for _ in 0..count {
        pause(due.saturating_duration_since(Instant::now()));
        // To wake up a little late is the sleeper's own doing.
        let begin = if due.elapsed() < interval { Instant::now() } else { due };
        hello(&mut stream, &request)?;
        times.push(begin.elapsed().as_micros());
        due += interval;
    }
    Ok(times)
}
