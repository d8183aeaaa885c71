//! What the operator sets.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use gantry_model::Domain;
use gantry_router::Servers;
use ipnet::IpNet;

use crate::logs::LogsConfig;

/// The configuration of the edge; read once, at the start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where HTTPS is served.
    pub listen_https: Vec<SocketAddr>,
    /// Whether HTTP/3 is served on the UDP ports of `listen_https`.
    pub http3: bool,
    /// Where plain HTTP is answered with a redirect to HTTPS and nothing else.
    pub listen_http: Vec<SocketAddr>,
    /// Where requests are served without TLS, for a TLS terminator or a measurement on the same
    /// machine; loopback addresses only.
    pub listen_plain: Vec<SocketAddr>,
    /// Where `/metrics`, `/livez` and `/readyz` are answered; loopback addresses only.
    pub listen_admin: Vec<SocketAddr>,
    /// How many threads serve, each with its own sockets and connection pool; at least 1.
    pub workers: usize,
    /// The operator's domain.
    pub domain: Domain,
    /// The servers whose labels hostnames may carry; those of the routes.
    pub servers: Servers,
    /// The port that redirects lead to: the one of `listen_https` as clients see it.
    pub url_port: u16,
    /// The balancers that carry connections for others: from these addresses, and from no other, a
    /// header of the PROXY protocol (version 1 or 2) is expected first on each connection of the
    /// three listeners above, and a connection without one is closed.
    pub proxy_protocol_from: Vec<IpNet>,
    /// Which address containers see as the other end of their connections.
    pub upstream_source: UpstreamSource,
    /// The networks that containers live in. Nothing else is ever dialled, and of these neither
    /// link-local addresses nor this machine's own; loopback only where a network lies within it.
    pub container_networks: Vec<IpNet>,
    /// Times and sizes.
    pub limits: Limits,
    /// Where access lines go.
    pub access_log: AccessLog,
    /// What owners see of the requests to their containers.
    pub logs: LogsConfig,
}

/// Which address a container sees as the other end of a connection. Fields of the request say who the
/// client is in either case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpstreamSource {
    /// The edge's own.
    #[default]
    Edge,
    /// The client's, where client and container both have IPv4 addresses (`IP_TRANSPARENT`). The
    /// routing that brings the answers back must have been installed; connections to containers are
    /// then kept for one client connection and not shared.
    Client,
}

/// Where access lines go, one JSON object a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// Nowhere.
    Off,
    /// To the standard output.
    Stdout,
    /// To the end of a file, which is created when missing and opened again after it was renamed.
    File(PathBuf),
}

/// So many per second on average, and so many at once after a rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// On average; at least 1.
    pub per_second: u32,
    /// At once; at least 1.
    pub burst: u32,
}

impl Rate {
    /// Whether it lets anything pass.
    pub(crate) const fn is_some(self) -> bool {
        self.per_second > 0 && self.burst > 0
    }
}

/// Bounds on time and size. Deadlines are exact to a tenth of a second.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A request head must be complete so long after its first octet, and the first one of a
    /// connection so long after the connection was made.
    pub head_timeout: Duration,
    /// A TLS handshake must be complete within this.
    pub tls_timeout: Duration,
    /// The octets of a request head, at most.
    pub head_bytes_max: usize,
    /// The fields of a request head, at most. More than 100 cost two allocations per request.
    pub fields_max: usize,
    /// A connection without a request is closed after this.
    pub idle: Duration,
    /// A request body may pause so long.
    pub body_idle: Duration,
    /// The octets per second that a request body must have on average, apart from one `body_idle`.
    pub body_rate_min: u32,
    /// The octets of a request body, at most; any number when absent.
    pub body_bytes_max: Option<u64>,
    /// A client may refuse to take octets so long.
    pub send_idle: Duration,
    /// The octets per second that a client must take of an answer on average while octets wait for it, apart
    /// from one `send_idle`; over HTTP/2 and 3 of each answer for itself.
    pub send_rate_min: u32,
    /// A connection to a container must be made within this.
    pub connect_timeout: Duration,
    /// A container must begin its answer so long after it got the request; long polls need minutes.
    pub upstream_head_timeout: Duration,
    /// A container may keep a client waiting so long that has asked whether to send its body
    /// (`Expect: 100-continue`); then the edge asks for the body.
    pub expect_timeout: Duration,
    /// A response or a tunnel (WebSocket) may be silent so long.
    pub stream_idle: Duration,
    /// A Kit service must answer so long after it was asked to start.
    pub service_start_timeout: Duration,
    /// A request that wakes a container is held so long; a browser is shown a waiting page sooner.
    pub wake_timeout: Duration,
    /// Client connections in all, per worker.
    pub connections_max: usize,
    /// Client connections from one address (IPv4) or one /64 (IPv6), in all workers together.
    pub connections_per_address_max: usize,
    /// TLS handshakes under way, per worker.
    pub handshakes_max: usize,
    /// TLS handshakes under way from one address (IPv4) or one /64 (IPv6), in all workers together.
    pub handshakes_per_address_max: usize,
    /// TLS handshakes from one address (IPv4) or one /64 (IPv6), in all workers together.
    pub handshake_rate: Option<Rate>,
    /// Requests from one address (IPv4) or one /64 (IPv6), in all workers together.
    pub request_rate: Option<Rate>,
    /// Requests under way in all, per worker, from the head to the last octet of the answer.
    pub requests_active_max: usize,
    /// Requests under way to one container, in all workers together; a tunnel counts as one until it
    /// ends.
    pub requests_per_container_max: u32,
    /// Requests on one client connection, after which it is closed in order.
    pub requests_max: u64,
    /// Concurrent requests on one HTTP/2 or HTTP/3 connection, at most 1,000. What their clients send ahead, up to
    /// 256 KiB for each, is kept until it is taken.
    pub streams_max: u32,
    /// The octets that clients of HTTP/2 and HTTP/3 may send ahead together, per worker, beyond 64 KiB on each
    /// connection of HTTP/2 and 128 KiB of HTTP/3. A connection gets 256 KiB for each body under way, or the
    /// body's length if that is less, of which 16 KiB together are not charged, as long as there is room;
    /// beyond one body it has at most a quarter of what is left. It gives them back when it ends.
    pub uploads_ahead_max: u64,
    /// Frames of HTTP/2 that bring neither a request nor data (`PING`, `SETTINGS`, window updates,
    /// priorities, empty data) which a client may send in 10 seconds beyond those that its requests and
    /// the octets moved explain; then the connection ends.
    pub frames_max: u32,
    /// Streams of HTTP/2 or HTTP/3 that a client may reset in 10 seconds; then the connection ends.
    pub resets_max: u32,
    /// Requests that were none on one HTTP/3 connection in 10 seconds; one more ends it.
    pub broken_max: u32,
    /// TLS handshakes under way in one worker, beyond which clients of HTTP/3 must prove their address
    /// first.
    pub unproven_max: usize,
    /// Wrong passwords from one address (IPv4) or one /64 (IPv6) to one container within a minute.
    pub password_failures_max: u32,
    /// Passwords and signatures that are being checked at one time, in all workers together, at most 256: each
    /// takes a thread of the control runtime, which others need, too.
    pub credential_checks_max: usize,
    /// Idle connections to one port of a container that one worker keeps.
    pub pool_per_port_max: usize,
    /// Idle connections to all containers that one worker keeps.
    pub pool_max: usize,
    /// An idle connection to a container is closed after this.
    pub pool_idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            head_timeout: seconds(10),
            tls_timeout: seconds(10),
            head_bytes_max: 64 * 1024,
            fields_max: 100,
            idle: seconds(75),
            body_idle: seconds(30),
            body_rate_min: 128,
            body_bytes_max: None,
            send_idle: seconds(60),
            send_rate_min: 128,
            connect_timeout: seconds(5),
            upstream_head_timeout: seconds(300),
            expect_timeout: seconds(1),
            stream_idle: seconds(3600),
            service_start_timeout: seconds(30),
            wake_timeout: seconds(30),
            connections_max: 50_000,
            connections_per_address_max: 4_096,
            handshakes_max: 4_096,
            handshakes_per_address_max: 1_024,
            handshake_rate: None,
            request_rate: None,
            requests_active_max: 100_000,
            requests_per_container_max: 10_000,
            requests_max: 100_000,
            streams_max: 128,
            uploads_ahead_max: 256 << 20,
            frames_max: 2_000,
            resets_max: 500,
            broken_max: 32,
            unproven_max: 64,
            password_failures_max: 10,
            credential_checks_max: 32,
            pool_per_port_max: 64,
            pool_max: 4_096,
            pool_idle: seconds(60),
        }
    }
}
