//! An installation around a store, as far as certificates are concerned: what shows them, what orders them, and an
//! edge that a CA can ask.

use std::{
    collections::HashSet,
    fmt,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use gantry_certs::{
    Clock, Resolver, Seal, SealError, Shelf,
    acme::{
        Authority, Dns, Figures, Https, Issuer, IssuerDeps, Limits, Transport, TransportError,
        Wanted,
    },
    dns::{DnsConfig, Propagation, PropagationConfig},
};
use gantry_store::{CertificateRecord, Store};
use http::{Request, Response};
use serde_json::{Value, json};
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    knot::{Key, Knot, Place},
    pebble::{Pebble, Setup},
};

/// The domain of the installation.
pub(crate) const DOMAIN: &str = "example.test";
/// How long anything may take.
pub(crate) const BOUND: Duration = Duration::from_secs(30);
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Names, and who knows them.
pub(crate) struct Names {
    knot: Knot,
    key: Key,
    pub(crate) dir: TempDir,
    place: Place,
}

impl Names {
    pub(crate) fn new() -> Result<Self> {
        Self::behind(1)
    }

    /// Names whose zones say that their name server has the address of this number; the one that really knows
    /// them has the first.
    pub(crate) fn behind(number: u8) -> Result<Self> {
        let place = Place::new()?;
        let key = Key::new("acme-key", "hmac-sha256")?;
        let server = place.host(number);
        let ours = format!("@ NS ns1\nns1 A {server}\n* A 127.0.0.1\n");
        let theirs = format!("@ NS ns1\nns1 A {server}\nshop A 127.0.0.1\nblog A 127.0.0.1\n");
        let zones = [(DOMAIN, ours.as_str()), ("customer.test", theirs.as_str())];
        let knot = Knot::primary(place.at(1), &key, &zones)?;
        Ok(Self { knot, key, dir: tempfile::tempdir()?, place })
    }

    /// The address of the name server of a number.
    pub(crate) fn server(&self, number: u8) -> SocketAddr {
        self.place.at(number)
    }

    /// How names are proved: written at the server that knows them, asked of any.
    pub(crate) fn dns(&self) -> Result<Dns> {
        self.dns_by(1, Duration::from_mins(2))
    }

    /// As [`Self::dns`], asking the server of this number, for so long.
    pub(crate) fn dns_by(&self, number: u8, bound: Duration) -> Result<Dns> {
        let provider = json!({
            "provider": "rfc2136",
            "servers": [self.place.at(1).to_string()],
            "key_name": self.key.name,
            "key_secret": self.key.secret,
        });
        let provider: DnsConfig = serde_json::from_value(provider)?;
        let propagation = PropagationConfig {
            resolvers: vec![self.place.at(number)],
            port: self.place.port,
            timeout_s: bound.as_secs(),
            ..PropagationConfig::default()
        };
        let propagation = Propagation::new(&propagation).map_err(|it| anyhow::anyhow!("{it:?}"))?;
        let provider = provider.provider(&propagation).map_err(|it| anyhow::anyhow!("{it:?}"))?;
        Ok(Dns { provider, propagation })
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.dir.path().join("store.db")
    }

    /// The proofs of names that are at the name server now.
    pub(crate) fn proofs(&self, name: &str) -> Result<Vec<String>> {
        self.knot.dig(&format!("_acme-challenge.{name}"), "TXT")
    }
}

/// The world: names, and a CA that checks them.
pub(crate) struct World {
    pub(crate) names: Names,
    pub(crate) setup: Setup,
    pub(crate) pebble: Pebble,
}

impl World {
    pub(crate) fn new() -> Result<Self> {
        Self::with(|_| ())
    }

    pub(crate) fn with(change: impl FnOnce(&mut Setup)) -> Result<Self> {
        Self::of(Names::new()?, change)
    }

    pub(crate) fn of(names: Names, change: impl FnOnce(&mut Setup)) -> Result<Self> {
        let mut setup = Setup::new(names.server(1))?;
        change(&mut setup);
        let pebble = Pebble::start(&setup)?;
        Ok(Self { names, setup, pebble })
    }

    /// The CA, by a way of its own.
    pub(crate) fn authority(&self, wire: &Arc<Wire>) -> Authority {
        authority(self.pebble.directory(), wire)
    }

    pub(crate) fn wire(&self) -> Result<Arc<Wire>> {
        Wire::new(&self.pebble.roots()?)
    }
}

/// A CA, by this way to it.
pub(crate) fn authority(directory: String, wire: &Arc<Wire>) -> Authority {
    Authority {
        directory,
        contact: vec!["mailto:admin@example.test".to_owned()],
        external_account: None,
        profile: None,
        limits: Limits::default(),
        transport: Arc::clone(wire) as _,
    }
}

/// What the world is made unfriendly by: called with each request before it is sent.
type Rule = Box<dyn Fn(&Request<Bytes>) -> Fate + Send + Sync>;

/// What becomes of a request.
pub(crate) enum Fate {
    Sent,
    Answered(Response<Bytes>),
    Lost,
    /// It never comes back, and is heard or not before that.
    Silence {
        heard: bool,
    },
}

/// A way to a CA on which requests are seen and may be lost.
pub(crate) struct Wire {
    https: Https,
    seen: Mutex<Vec<(String, Bytes)>>,
    sent: AtomicUsize,
    rule: Mutex<Option<Rule>>,
    /// Told when a request has come to silence.
    pub(crate) cut: tokio::sync::Notify,
}

impl Wire {
    /// A way to a CA that these roots vouch for, in PEM.
    pub(crate) fn new(roots: &[u8]) -> Result<Arc<Self>> {
        Ok(Arc::new(Self {
            https: Https::new(Some(roots))?,
            seen: Mutex::default(),
            sent: AtomicUsize::new(0),
            rule: Mutex::default(),
            cut: tokio::sync::Notify::new(),
        }))
    }

    pub(crate) fn rule(&self, rule: impl Fn(&Request<Bytes>) -> Fate + Send + Sync + 'static) {
        *self.rule.lock().unwrap() = Some(Box::new(rule));
    }

    pub(crate) fn no_rule(&self) {
        *self.rule.lock().unwrap() = None;
    }

    async fn carry(&self, request: Request<Bytes>) -> Result<Response<Bytes>, TransportError> {
        self.sent.fetch_add(1, Ordering::Relaxed);
        let seen = (request.uri().path().to_owned(), request.body().clone());
        let answer = self.https.send(request).await?;
        // Pebble refuses some numbers that are used once, so that requests are repeated.
        if answer.status().is_success() {
            self.seen.lock().unwrap().push(seen);
        }
        Ok(answer)
    }

    /// How many requests for paths with this in them were granted.
    pub(crate) fn count(&self, part: &str) -> usize {
        self.paths(part).len()
    }

    /// The paths of those.
    pub(crate) fn paths(&self, part: &str) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        seen.iter().map(|(path, _)| path.clone()).filter(|path| path.contains(part)).collect()
    }

    /// What those said, without their signatures.
    pub(crate) fn payloads(&self, part: &str) -> Result<Vec<Value>> {
        let seen = self.seen.lock().unwrap();
        let bodies = seen.iter().filter(|(path, _)| path.contains(part)).map(|(_, body)| body);
        let payload = |body: &Bytes| {
            let signed: Value = serde_json::from_slice(body)?;
            let payload = signed["payload"].as_str().context("no payload")?;
            Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload)?)?)
        };
        bodies.map(payload).collect()
    }

    /// How many requests were sent.
    pub(crate) fn total(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }
}

/// What pebble calls a new order.
pub(crate) const NEW_ORDER: &str = "order-plz";

#[async_trait::async_trait]
impl Transport for Wire {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, TransportError> {
        let fate = self.rule.lock().unwrap().as_ref().map_or(Fate::Sent, |rule| rule(&request));
        match fate {
            Fate::Sent => {}
            Fate::Answered(answer) => return Ok(answer),
            Fate::Lost => return Err(TransportError("the line is cut".to_owned())),
            Fate::Silence { heard } => {
                if heard {
                    self.carry(request).await?;
                }
                self.cut.notify_one();
                return std::future::pending().await;
            }
        }
        self.carry(request).await
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wire")
    }
}

/// Seals by turning octets over, with the context in front: enough to see what is sealed and for what.
#[derive(Debug)]
struct Turned;

impl Seal for Turned {
    fn seal(&self, context: &str, text: &[u8]) -> Result<Vec<u8>, SealError> {
        let turned = text.iter().map(|octet| !octet);
        Ok(context.bytes().chain([0]).chain(turned).collect())
    }

    fn open(&self, context: &str, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let rest = sealed.strip_prefix(context.as_bytes()).and_then(|rest| rest.strip_prefix(&[0]));
        let rest = rest.ok_or_else(|| SealError("sealed for something else".to_owned()))?;
        Ok(rest.iter().map(|octet| !octet).collect())
    }
}

/// A clock that can be set forward.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ahead(Arc<AtomicI64>);

impl Ahead {
    pub(crate) fn set(&self, ahead: Duration) {
        self.0.store(i64::try_from(ahead.as_secs()).unwrap(), Ordering::Relaxed);
    }

    pub(crate) fn clock(&self) -> Clock {
        let ahead = Arc::clone(&self.0);
        Arc::new(move || {
            OffsetDateTime::now_utc() + time::Duration::seconds(ahead.load(Ordering::Relaxed))
        })
    }
}

/// How an edge is to be.
pub(crate) struct Edges {
    pub(crate) authorities: Vec<Authority>,
    pub(crate) dns: Option<Dns>,
    pub(crate) wanted: Vec<Wanted>,
    pub(crate) permitted: HashSet<String>,
    pub(crate) ahead: Ahead,
    pub(crate) lease: Duration,
}

impl Edges {
    pub(crate) fn new(authorities: Vec<Authority>, dns: Option<Dns>, names: &[&str]) -> Self {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Self {
            authorities,
            dns,
            wanted: Wanted::of(&names),
            permitted: HashSet::new(),
            ahead: Ahead::default(),
            lease: Duration::from_secs(30),
        }
    }
}

/// One process of an installation.
pub(crate) struct Edge {
    pub(crate) store: Store,
    pub(crate) resolver: Arc<Resolver>,
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) figures: Arc<Figures>,
    tasks: JoinSet<()>,
    shutdown: CancellationToken,
}

impl Edge {
    pub(crate) async fn start(path: &std::path::Path, edges: Edges) -> Result<Self> {
        let store = Store::open(path).await?;
        let (resolver, seal) = (Arc::new(Resolver::new()), Arc::new(Turned) as Arc<dyn Seal>);
        let clock = edges.ahead.clock();
        let shelf = Arc::new(Shelf::new(
            store.clone(),
            Arc::clone(&seal),
            Arc::clone(&clock),
            Arc::clone(&resolver),
        ));
        let permitted = edges.permitted;
        let figures = Arc::new(Figures::new(&edges.authorities));
        let deps = IssuerDeps {
            store: store.clone(),
            seal,
            clock,
            shelf: Arc::clone(&shelf),
            figures: Arc::clone(&figures),
            authorities: edges.authorities,
            dns: edges.dns,
            domain: DOMAIN.parse()?,
            permits: Arc::new(move |name: &str| permitted.contains(name)),
            lease: edges.lease,
        };
        let issuer = Issuer::new(deps, edges.wanted)?;
        resolver.on_missing(issuer.demand());
        let (mut tasks, shutdown) = (JoinSet::new(), CancellationToken::new());
        shelf.refresh().await;
        tasks.spawn(Arc::clone(&shelf).run(shutdown.clone()));
        tasks.spawn(issuer.run(shutdown.clone()));
        Ok(Self { store, resolver, shelf, figures, tasks, shutdown })
    }

    /// Ends in order.
    pub(crate) async fn stop(mut self) {
        self.shutdown.cancel();
        while self.tasks.join_next().await.is_some() {}
        self.store.close().await;
    }

    /// Listens where a CA asks, over HTTP and over TLS.
    pub(crate) async fn open_doors(&mut self, setup: &Setup) -> Result<()> {
        let http = TcpListener::bind(("127.0.0.1", setup.http)).await?;
        let tls = TcpListener::bind(("127.0.0.1", setup.tls)).await?;
        let answers = answer_http(http, Arc::clone(&self.shelf));
        self.tasks.spawn(until(self.shutdown.clone(), answers));
        let config = crate::tls::server(&self.resolver);
        self.tasks.spawn(until(self.shutdown.clone(), answer_tls(tls, config)));
        Ok(())
    }

    /// The serial number that is shown for a name.
    pub(crate) fn shown(&self, name: &str) -> Option<String> {
        self.resolver.certificate(name).map(|key| crate::tls::serial(&key))
    }

    /// Waits until a certificate is shown for a name, another one than `but`; gives its serial number.
    pub(crate) async fn await_shown(&self, name: &str, but: Option<&str>) -> Result<String> {
        let shown = async {
            loop {
                match self.shown(name) {
                    Some(serial) if Some(serial.as_str()) != but => return serial,
                    _ => tokio::time::sleep(LOOK).await,
                }
            }
        };
        if let Ok(serial) = tokio::time::timeout(BOUND, shown).await {
            return Ok(serial);
        }
        let records = self.store.certificates().await?;
        let errors: Vec<_> = records.iter().map(|it| (&it.name, &it.error)).collect();
        anyhow::bail!("no certificate for {name}: {errors:?}")
    }

    /// Waits until an attempt at a certificate has failed; gives why.
    pub(crate) async fn await_failed(&self, name: &str) -> Result<String> {
        let record = self.await_record(name, |record| record.error.is_some()).await?;
        Ok(record.error.context("no error")?.0)
    }

    /// Waits until a certificate's record is like this.
    pub(crate) async fn await_record(
        &self,
        name: &str,
        is_so: impl Fn(&CertificateRecord) -> bool,
    ) -> Result<CertificateRecord> {
        let record = async {
            loop {
                match self.store.certificate(name).await? {
                    Some(record) if is_so(&record) => return Ok(record),
                    Some(_) | None => tokio::time::sleep(LOOK).await,
                }
            }
        };
        tokio::time::timeout(BOUND, record).await.context("its record stays another")?
    }

    /// Waits until no order is left, nor anything that one has published.
    pub(crate) async fn await_no_order(&self) -> Result<()> {
        let gone = async {
            while !self.store.acme_orders().await?.is_empty() {
                tokio::time::sleep(LOOK).await;
            }
            Ok(())
        };
        tokio::time::timeout(BOUND, gone).await.context("an order stays")?
    }
}

async fn until(shutdown: CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = work => {}
    }
}

async fn answer_http(listener: TcpListener, shelf: Arc<Shelf>) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { return };
        let mut head = Vec::new();
        while !head.windows(4).any(|part| part == b"\r\n\r\n") {
            match stream.read_buf(&mut head).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => break,
            }
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let path = head.split(' ').nth(1).unwrap_or_default();
        let token = path.strip_prefix("/.well-known/acme-challenge/").unwrap_or_default();
        let host = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("host").then(|| value.trim())
        });
        let host = host.unwrap_or_default().split(':').next().unwrap_or_default();
        let answer = match shelf.http_answer(host, token) {
            Some(answer) => {
                let length = answer.len();
                format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{answer}"
                )
            }
            None => {
                "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".into()
            }
        };
        drop(stream.write_all(answer.as_bytes()).await);
    }
}

async fn answer_tls(listener: TcpListener, config: Arc<rustls::ServerConfig>) {
    let acceptor = tokio_rustls::TlsAcceptor::from(config);
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        // Whoever asks sees the certificate; nothing is said after that.
        if let Err(error) = acceptor.accept(stream).await {
            eprintln!("a handshake failed: {error}");
        }
    }
}
