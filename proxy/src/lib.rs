//! The edge: listeners, the request pipeline, forwarding, error answers, the access log.
//!
//! A client's octets pass, in this order, `listen` (sockets, one per worker; `limits`), `balancer`
//! (whose connection a listed one carries), `connection` (TLS and the HTTP version), then by version `http1`
//! with `framing` (strict framing, deadlines), `http2` behind `gate`, or `http3`; and `pipeline`: `host`, the
//! route table, `guard`, then `forward` to a container or `api`. What a container gets is written by
//! `outgoing` and sent by `upstream`; what it says before its answer goes by `interim`. On the way back
//! `answer` makes the edge's own answers and `account` the access line and, in `logs`, what owners see
//! of the requests to their containers.
//!
//! Each worker is one thread with a runtime of its own and everything it needs ([`Edge`] starts
//! them): sockets, connections to containers (`pool`, `multiplex`), deadlines (`watch`), numbers
//! (`metrics`). A request never changes threads, and takes no lock but, for a moment, that of its
//! container's log.
//!
//! What this crate may not do: touch the store, the runtime or the control plane; keep anything
//! between requests but numbers, pooled connections and logs; trust a client's word about who it is; hold a
//! body back.
//!
//! What clients and containers may use is configured ([`Limits`], [`LogsConfig`]), and each limit that
//! refuses or ends something has a counter (`metrics`, `limits`). Constant are the numbers that no operator has
//! a reason to choose:
//!
//! - bounds of what is parsed, wherever a larger value means nothing honest: chunk lines and trailers
//!   (`framing`), heads of containers (256 KiB, `upstream`), tokens, names and passwords (`guard`), cookies, the
//!   form of the sign-in page, the PROXY protocol's header, the changes that a hook may make (its contract);
//! - buffers and windows that memory per connection follows from: `http1`, `http2`, `http3`, `multiplex`,
//!   interim answers, what a client may send ahead;
//! - what protocols want: how long streams that were reset are known, resets before a request is taken up,
//!   streams of control, how long a client that is told to go may still send;
//! - bounds of memory behind a limit, beyond which the oldest is forgotten: addresses and windows that are
//!   counted, checks of credentials that are remembered, containers that have a log;
//! - what is meant by real traffic (`traffic`), and how soon a browser sees the page that waits (`wake`): both
//!   are part of what owners are promised;
//! - pages of a log, as its interface says (`logs::query`); and everything about the operator's own listener
//!   (`admin`).

mod access_log;
mod account;
mod admin;
mod ahead;
mod alias;
mod answer;
mod api;
mod balancer;
mod body;
mod config;
mod connection;
mod cookies;
mod date;
mod deps;
mod downstream;
mod edge;
mod flood;
mod form;
mod forward;
mod frames;
mod framing;
mod gate;
mod guard;
mod headers;
mod hooks;
mod host;
mod http1;
mod http2;
mod http3;
mod http3_body;
mod http3_frames;
mod interim;
mod limits;
mod listen;
mod logs;
mod metrics;
mod multiplex;
mod outgoing;
mod page;
mod pipeline;
mod pool;
mod proxy_protocol;
mod quic;
mod rewrite;
mod sockets;
mod stalled;
mod start;
mod steer;
mod tls;
mod traffic;
mod tunnel;
mod turns;
mod upstream;
mod wake;
mod watch;
mod websocket;
mod worker;

pub use balancer::{NoHeader, carried_for};
pub use config::{AccessLog, Config, Limits, Rate, UpstreamSource};
pub use deps::{
    ApiRealm, ApiService, ApiUpgrade, Body, BoxError, ClientAddress, Deps, KitPort, KitPorts,
    MetricsSource, Readiness, RequestId, SessionKey, StartFailed, StartService, WakeContainer,
    WakeFailed, api_service,
};
pub use edge::{Addresses, Edge, StartError, Stopper};
pub use http1::HeadReader;
pub use logs::{LogTail, Logs, LogsConfig, NoTail};
pub use proxy_protocol::{Ends, Malformed};
pub use sockets::{QuicSockets, Sockets, http3_port_is_taken};
pub use traffic::Activity;
