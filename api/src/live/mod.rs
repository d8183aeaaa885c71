//! The live feed of the official clients: Socket.IO over a `WebSocket`, at the path of the list of events.
//!
//! `socketioxide` speaks the protocol. Here stands who is let in ([`open`], [`telling`]), what is told
//! ([`telling`]; the same events as by server-sent events), and what holds a connection together and ends
//! it ([`line`](mod@line)).
//!
//! A client proves who it is only once the socket stands, by a first message. Until then it has one of a
//! few places of its address, and ten seconds. Nothing is kept for a client without a bound: what it does
//! not take waits in its line, and one that takes nothing is cut.

mod codes;
mod line;
mod telling;

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{body::Body, response::Response};
use gantry_model::{FieldError, RealmId};
use http::{Request, Uri, Version, header, request::Parts};
use socketioxide::{ParserConfig, SocketIo, TransportType, service::SocketIoService};
use tokio::{io::DuplexStream, sync::watch};
use tokio_tungstenite::tungstenite::handshake::server::create_response;
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use self::line::{Ends, Line};
use crate::{
    ApiConfig, Front,
    caller::{Address, Realm, address},
    problem::{Kind, Problem},
    query::{Holds, Param, Query},
    streams::{Place, Places},
};

/// The longest message of a client, in octets: there is little but a token to say.
const MESSAGE_MAX: usize = 16 * 1024;
/// The messages that wait for a client, at most.
const WAITING_MAX: usize = 128;
/// How long a client has to say who it is.
const OPENING: Duration = Duration::from_secs(10);
/// How long a client may take nothing while there is something for it.
const STALLED: Duration = Duration::from_secs(10);
/// Clients of one address that have not said yet who they are.
const OPENING_PER_ADDRESS: u32 = 16;

/// What a client of Socket.IO asks by, beside its upgrade.
static ASKED: [Param; 3] = [
    Param::new("EIO", Holds::Text, "The version of the protocol of a live feed, 4"),
    Param::new("transport", Holds::Text, "The transport of a live feed, websocket"),
    Param::new("sid", Holds::Text, "The session of a live feed that changes its transport"),
];

/// What a request that may leave HTTP goes on over. The edge inserts it into the extensions of requests
/// that ask for it. Clones are the same.
#[derive(Clone, Debug)]
pub struct Upgrade(Arc<Mutex<Option<DuplexStream>>>);

impl Upgrade {
    /// This is what an answer with the status 101 goes on over.
    pub fn new(io: DuplexStream) -> Self {
        Self(Arc::new(Mutex::new(Some(io))))
    }

    pub(crate) fn take(&self) -> Option<DuplexStream> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What speaks to the clients.
#[derive(Clone)]
pub(crate) struct Live {
    service: SocketIoService<()>,
    openings: Places<IpAddr>,
}

impl Live {
    pub(crate) fn new(config: &ApiConfig) -> Self {
        let parser = ParserConfig::common()
            .max_incoming_binaries(1)
            .max_incoming_binary_buf_size(MESSAGE_MAX);
        let (service, sockets) = SocketIo::builder()
            .transports([TransportType::Websocket])
            .connect_timeout(OPENING)
            .max_buffer_size(WAITING_MAX)
            .max_payload(MESSAGE_MAX as u64)
            .ws_max_message_size(MESSAGE_MAX)
            .ws_max_frame_size(MESSAGE_MAX)
            .with_parser(parser)
            .build_with_inner_svc(());
        sockets.ns("/", telling::follow);
        Self { service, openings: Places::new(config.event_streams_max, OPENING_PER_ADDRESS) }
    }
}

/// One client's connection, as all that have to do with it know it. Clones are the same.
#[derive(Clone)]
struct Visit(Arc<Visited>);

struct Visited {
    front: Front,
    realm: Option<RealmId>,
    ip: Option<IpAddr>,
    /// Its place until it has said who it is.
    opening: Mutex<Option<Place<IpAddr>>>,
    /// Whether it has said so, or tried to.
    has_asked: AtomicBool,
    /// Whether it wants to hear of activity, too.
    activity: watch::Sender<bool>,
    /// The client has left the feed.
    left: CancellationToken,
    ends: Arc<Ends>,
}

impl Visit {
    /// Gives the place back; the account's own counts from now on.
    fn has_opened(&self) {
        let place = self.0.opening.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(place);
    }

    /// Whether this is the first time that the client says who it is.
    fn asks_first(&self) -> bool {
        !self.0.has_asked.swap(true, Ordering::Relaxed)
    }
}

/// Whether a request for the list of events is one for the live feed.
pub(crate) fn is_asked_for(parts: &Parts) -> bool {
    let mut query = Query::new(&parts.uri, &ASKED);
    query.text("EIO").is_some()
        || query.text("transport").is_some()
        || parts.extensions.get::<Upgrade>().is_some()
}

/// Opens the `WebSocket` of a live feed. Who asks is found out when it stands.
pub(crate) async fn open(front: &Front, parts: Parts) -> Result<Response, Problem> {
    check(&parts.uri)?;
    if front.config.closing.is_cancelled() {
        return Err(Problem::new(Kind::Unavailable, "The server is about to stop").retry_after_s(1));
    }
    let Address(ip) = address(&parts);
    let place = front.live.openings.take(whose(ip)).map_err(|_full| {
        let message = "Too many live feeds of this address have not said yet who they are for";
        Problem::new(Kind::TooManyAttempts, message).retry_after_s(5)
    })?;
    let mut asked = Request::new(());
    *asked.method_mut() = parts.method;
    *asked.uri_mut() = parts.uri;
    *asked.headers_mut() = parts.headers;
    // It may have come over HTTP/2, from which the edge has translated it.
    *asked.version_mut() = Version::HTTP_11;
    let response = create_response(&asked).map_err(|why| no_websocket(&why.to_string()))?;
    let io = parts.extensions.get::<Upgrade>().and_then(Upgrade::take);
    let io = io.ok_or_else(|| no_websocket("the connection cannot leave HTTP"))?;
    let ends = Arc::<Ends>::default();
    let visit = Visit(Arc::new(Visited {
        front: front.clone(),
        realm: parts.extensions.get::<Realm>().copied().unwrap_or_default().0,
        ip,
        opening: Mutex::new(Some(place)),
        has_asked: AtomicBool::new(false),
        activity: watch::Sender::new(false),
        left: CancellationToken::new(),
        ends: Arc::clone(&ends),
    }));
    asked.headers_mut().clear();
    asked.extensions_mut().insert(visit);
    let line = Line::new(io, ends, STALLED);
    let opened = front.live.service.clone().call((line, asked)).await;
    opened.map_err(|why| no_websocket(&why.to_string()))?;
    Ok(response.map(|()| Body::empty()))
}

fn check(uri: &Uri) -> Result<(), Problem> {
    let mut query = Query::new(uri, &ASKED);
    if query.text("EIO").as_deref() != Some("4") {
        query.refuse(FieldError::new("EIO", "must be 4, the protocol of Socket.IO 3 and newer"));
    }
    if query.text("transport").as_deref() != Some("websocket") {
        let rule = "must be websocket; there is no polling here: connect with \
                    transports: [\"websocket\"]";
        query.refuse(FieldError::new("transport", rule));
    } else if query.text("sid").is_some() {
        let rule = "must be left out: there are no sessions of other transports to go on with";
        query.refuse(FieldError::new("sid", rule));
    }
    query.finish()
}

fn no_websocket(why: &str) -> Problem {
    let rule = format!("must ask for a WebSocket (RFC 6455, or RFC 8441 over HTTP/2): {why}");
    Problem::fields(Kind::Invalid, &[FieldError::new(header::UPGRADE.as_str(), rule)])
}

/// By whom the places are counted: an IPv6 client has a whole network of addresses.
fn whose(ip: Option<IpAddr>) -> IpAddr {
    match ip {
        Some(IpAddr::V6(ip)) => {
            let [a, b, c, d, ..] = ip.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        Some(ip) => ip,
        None => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}
