//! What the edge is given: the few things that other crates answer for.

use std::{
    convert::Infallible,
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use gantry_model::{ContainerId, RealmId, Scheme, Service, Target, access::Demand};
use gantry_router::Routes;
use http::{Request, Response};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use tokio::io::DuplexStream;
use tower::{ServiceExt, util::BoxCloneService};

use crate::{Activity, Logs};

/// An error of a body, whoever sent it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A body on its way to or from the API service.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// The API as the edge calls it. Made by [`api_service`].
pub type ApiService = BoxCloneService<Request<Body>, Response<Body>, Infallible>;

/// Makes an [`ApiService`] of any tower service over http types, such as an axum router.
pub fn api_service<S, B>(service: S) -> ApiService
where
    S: tower::Service<Request<Body>, Response = Response<B>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let boxed =
        |response: Response<B>| response.map(|body| UnsyncBoxBody::new(body.map_err(Into::into)));
    BoxCloneService::new(service.map_response(boxed))
}

/// Extension of requests to the API: the client's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddress(pub SocketAddr);

/// Extension of requests to the API: the realm of the hostname, if it named one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiRealm(pub Option<RealmId>);

/// Extension of requests to the API that ask to leave HTTP: what an answer with the status 101 goes on
/// over. Its other end is the client's.
#[derive(Clone, Debug)]
pub struct ApiUpgrade(Arc<Mutex<Option<DuplexStream>>>);

impl ApiUpgrade {
    pub(crate) fn new(end: DuplexStream) -> Self {
        Self(Arc::new(Mutex::new(Some(end))))
    }

    /// The API's end; once only. Whoever takes it answers with 101.
    pub fn take(&self) -> Option<DuplexStream> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The id of one request, in access lines, error answers and `X-Request-Id`; also the trace id of
/// requests that came without one. An extension of requests to the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId(pub [u8; 16]);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 32];
        hex::encode_to_slice(self.0, &mut text).or(Err(fmt::Error))?;
        f.write_str(std::str::from_utf8(&text).or(Err(fmt::Error))?)
    }
}

/// Why a Kit service did not start. The text is for the log; clients are told no more than that it
/// failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StartFailed(pub String);

/// Starts Kit services inside containers.
pub trait StartService: Send + Sync {
    /// Starts a service unless it runs; returns when its start was ordered, not when it answers.
    /// Idempotent. Runs on the control runtime.
    fn start(
        &self,
        container: ContainerId,
        service: Service,
        index: u16,
    ) -> BoxFuture<'static, Result<(), StartFailed>>;
}

/// Why a container was not woken. The text is for the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WakeFailed(pub String);

/// Wakes containers that are paused or stopped.
pub trait WakeContainer: Send + Sync {
    /// Has a container run; returns when it does, or when it cannot within this time. Idempotent.
    /// Runs on the control runtime.
    fn wake(
        &self,
        container: ContainerId,
        within: Duration,
    ) -> BoxFuture<'static, Result<(), WakeFailed>>;
}

/// How a Kit service is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KitPort {
    /// Whether the Kit brings it, so that it can be started. Of the others a container may have a
    /// program of its own on the port.
    pub provided: bool,
    /// How it is spoken to.
    pub scheme: Scheme,
    /// The port in the container, from 1: of all indexes, or of index 0.
    pub port: u16,
    /// Whether each index has a port of its own, `port + index`.
    pub per_index: bool,
}

impl KitPort {
    /// The port of an index; nothing beyond the last port that there is.
    pub const fn of(&self, index: u16) -> Option<u16> {
        if self.per_index { self.port.checked_add(index) } else { Some(self.port) }
    }
}

/// How every Kit service is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KitPorts {
    services: [KitPort; Service::ALL.len()],
    /// The first and the last port of each service that has any, in rising order: each request to a
    /// port of a container with a permission document looks here.
    taken: Box<[(u16, u16, Service)]>,
}

impl KitPorts {
    /// As `of` says of each service. No two have the same port, but for desktops and logs.
    pub fn new(of: impl Fn(Service) -> KitPort) -> Self {
        let services = Service::ALL.map(of);
        // A desktop has no port of its own, and logs have none at all.
        let has_port = |service: &Service| !matches!(service, Service::Desktop | Service::Logs);
        let taken = Service::ALL.into_iter().zip(&services);
        let taken = taken.filter(|(service, _)| has_port(service)).map(|(service, kit)| {
            let port = |index| kit.of(index).unwrap_or(u16::MAX);
            (port(service.index_min()), port(service.index_max()), service)
        });
        let mut taken: Box<[_]> = taken.collect();
        taken.sort_unstable();
        Self { services, taken }
    }

    /// How a service is reached.
    #[expect(clippy::indexing_slicing, reason = "there is one for each variant, in their order")]
    pub const fn get(&self, service: Service) -> &KitPort {
        &self.services[service as usize]
    }

    /// The service that has a port, and its index, unless all indexes have this one.
    pub fn at(&self, port: u16) -> Option<(Service, Option<u16>)> {
        let after = self.taken.partition_point(|(first, _, _)| *first <= port);
        let (_, last, service) = *self.taken.get(after.checked_sub(1)?)?;
        let kit = self.get(service);
        let index = if kit.per_index { Some(port.checked_sub(kit.port)?) } else { None };
        (port <= last).then_some((service, index))
    }

    /// What a request asks for, where Kit services are reached like this.
    pub fn demand(&self, target: &Target<'_>) -> Demand {
        Demand::of(target, |port| self.at(port))
    }
}

/// Something that must be well before this edge should get traffic.
pub trait Readiness: Send + Sync {
    /// Its name, a word.
    fn name(&self) -> &str;
    /// Says what is wrong, if something is. Does not block.
    fn check(&self) -> Result<(), String>;
}

/// Writes metrics of another crate in the Prometheus text format. Does not block.
pub type MetricsSource = Arc<dyn Fn(&mut String) + Send + Sync>;

/// The key that seals the sessions of browsers that have signed in. Who knows it can make sessions;
/// with another key all sessions have ended.
#[derive(Clone)]
pub struct SessionKey([u8; 32]);

impl SessionKey {
    /// A key of these octets, which must be random and secret.
    pub const fn new(octets: [u8; 32]) -> Self {
        Self(octets)
    }

    pub(crate) const fn octets(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey")
    }
}

/// What the edge is given.
#[derive(Clone)]
pub struct Deps {
    /// The routes.
    pub routes: Routes,
    /// The certificates.
    pub certificates: Arc<gantry_certs::Resolver>,
    /// What seals the tickets of TLS sessions; without it a key that this process alone has.
    pub tickets: Option<Arc<gantry_certs::Tickets>>,
    /// What a CA that asks by HTTP-01 is answered, by lower-case hostname and token.
    pub challenges: Option<Arc<gantry_certs::Shelf>>,
    /// What seals the sessions of browsers.
    pub session_key: SessionKey,
    /// The API.
    pub api: ApiService,
    /// Where the API and service starts run.
    pub control: tokio::runtime::Handle,
    /// Starts Kit services.
    pub start_service: Arc<dyn StartService>,
    /// Wakes containers.
    pub wake: Arc<dyn WakeContainer>,
    /// Which containers have traffic; the edge writes, whoever puts them to sleep reads.
    pub activity: Activity,
    /// What was logged of the requests to containers; made for the same configuration.
    pub logs: Logs,
    /// How Kit services are reached.
    pub kit: KitPorts,
    /// The wall clock, in milliseconds since the epoch, UTC.
    pub now_ms: fn() -> i64,
    /// What `/readyz` asks.
    pub readiness: Vec<Arc<dyn Readiness>>,
    /// What `/metrics` shows besides the edge's own.
    pub metrics: Vec<MetricsSource>,
}

impl fmt::Debug for Deps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deps").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_told_from_those_beside_it() {
        let kit = KitPorts::new(|service| {
            let each = [
                (Service::Terminal, 20_000),
                (Service::Desktop, 20_000),
                (Service::Browser, 60_000),
            ];
            let first = each.iter().find(|(other, _)| *other == service).map(|(_, port)| *port);
            let (port, per_index) = (first.unwrap_or(100 + service as u16), first.is_some());
            KitPort { provided: false, scheme: Scheme::Http, port, per_index }
        });
        for (port, want) in [
            (0, None),
            (100 + Service::Files as u16, Some((Service::Files, None))),
            (100 + Service::Logs as u16, None),
            (19_999, None),
            (20_000, Some((Service::Terminal, Some(0)))),
            (20_001, Some((Service::Terminal, Some(1)))),
            (29_999, Some((Service::Terminal, Some(9_999)))),
            (30_000, None),
            (60_000, (Service::Browser.index_min() == 0).then_some((Service::Browser, Some(0)))),
            (65_535, Some((Service::Browser, Some(5_535)))),
            (100 + Service::Code as u16, Some((Service::Code, None))),
        ] {
            assert_eq!(kit.at(port), want, "{port}");
        }
    }
}
