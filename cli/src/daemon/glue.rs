//! Connects crates that do not know each other: each asks through a trait or a function of its own,
//! and the answers come from here.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, future::BoxFuture};
use gantry_control::{Clock, Controller, Starter};
use gantry_model::{ContainerId, Service};
use gantry_router::Routes;
use time::OffsetDateTime;
use tower::ServiceExt;

/// A route table that nobody has confirmed for so long is no ground to send traffic here.
const ROUTES_AGE_MAX: Duration = Duration::from_secs(15);

/// `control` starts what the edge asks for.
pub(super) struct StartServices(pub(super) Starter);

impl gantry_proxy::StartService for StartServices {
    fn start(
        &self,
        container: ContainerId,
        service: Service,
        index: u16,
    ) -> BoxFuture<'static, Result<(), gantry_proxy::StartFailed>> {
        let starter = self.0.clone();
        Box::pin(async move {
            starter
                .start_service(container, service, index)
                .await
                .map_err(|error| gantry_proxy::StartFailed(error.to_string()))
        })
    }
}

/// `control` wakes what the edge finds asleep.
pub(super) struct WakeContainers(pub(super) Controller);

impl gantry_proxy::WakeContainer for WakeContainers {
    fn wake(
        &self,
        container: ContainerId,
        within: Duration,
    ) -> BoxFuture<'static, Result<(), gantry_proxy::WakeFailed>> {
        let control = self.0.clone();
        Box::pin(async move {
            let woken = control.wake(container, within).await;
            woken.map_err(|error| gantry_proxy::WakeFailed(gantry_model::Chain(&error).to_string()))
        })
    }
}

/// The edge sees the traffic that keeps containers awake.
pub(super) struct EdgeTraffic {
    pub(super) routes: Routes,
    pub(super) activity: gantry_proxy::Activity,
    /// When this process began to look, in milliseconds since the epoch.
    pub(super) begun_ms: i64,
}

impl gantry_control::Traffic for EdgeTraffic {
    fn idle(&self) -> Vec<ContainerId> {
        self.activity.idle(&self.routes, self.begun_ms, now_ms())
    }
}

/// The edge has the requests that the API shows to their owners.
struct EdgeLogs(gantry_proxy::Logs);

impl gantry_api::RequestLog for EdgeLogs {
    fn tail(&self, tail: gantry_api::Tail) -> Result<gantry_api::Events, gantry_api::NoTail> {
        let gantry_api::Tail { project, container, query, last_event } = tail;
        let tail = self.0.tail(project, container, &query, last_event.as_deref(), now_ms());
        match tail {
            Ok(tail) => Ok(tail.boxed()),
            Err(gantry_proxy::NoTail::Off) => Err(gantry_api::NoTail::Off),
            Err(gantry_proxy::NoTail::Busy) => Err(gantry_api::NoTail::Busy),
            Err(gantry_proxy::NoTail::Invalid(errors)) => Err(gantry_api::NoTail::Invalid(errors)),
        }
    }
}

/// The API as the edge calls it: the edge's facts about a request under the API's own types.
pub(super) fn api(
    control: Controller,
    config: gantry_api::ApiConfig,
    logs: gantry_proxy::Logs,
    commands: Arc<dyn gantry_api::Commands>,
) -> gantry_proxy::ApiService {
    let router = gantry_api::service(control, config, Arc::new(EdgeLogs(logs)), commands);
    gantry_proxy::api_service(router.map_request(|request: http::Request<gantry_proxy::Body>| {
        let (mut parts, body) = request.into_parts();
        if let Some(client) = parts.extensions.get::<gantry_proxy::ClientAddress>() {
            let client = gantry_api::ClientAddress(client.0);
            parts.extensions.insert(client);
        }
        if let Some(realm) = parts.extensions.get::<gantry_proxy::ApiRealm>() {
            let realm = gantry_api::Realm(realm.0);
            parts.extensions.insert(realm);
        }
        let upgrade = parts.extensions.get::<gantry_proxy::ApiUpgrade>();
        if let Some(end) = upgrade.and_then(gantry_proxy::ApiUpgrade::take) {
            parts.extensions.insert(gantry_api::Upgrade::new(end));
        }
        if let Some(id) = parts.extensions.get::<gantry_proxy::RequestId>() {
            let id = gantry_api::RequestId(id.to_string().into());
            parts.extensions.insert(id);
        }
        http::Request::from_parts(parts, axum::body::Body::new(body))
    }))
}

/// Ready means: the route table is fresh.
pub(super) struct RoutesAreFresh(pub(super) Routes);

impl gantry_proxy::Readiness for RoutesAreFresh {
    fn name(&self) -> &'static str {
        "routes"
    }

    fn check(&self) -> Result<(), String> {
        let age = self.0.age();
        if age <= ROUTES_AGE_MAX {
            return Ok(());
        }
        let why = self.0.last_error().map(|why| format!(": {why}")).unwrap_or_default();
        Err(format!("the route table was last confirmed {} s ago{why}", age.as_secs()))
    }
}

/// What Prometheus is told of the route table beside the edge's own gauges.
pub(super) fn route_metrics(routes: Routes) -> gantry_proxy::MetricsSource {
    Arc::new(move |text: &mut String| {
        use std::fmt::Write as _;
        // Writing to a string does not fail.
        write!(
            text,
            "# HELP gantry_routes_revision The revision of the store that routes are at.\n\
             # TYPE gantry_routes_revision gauge\n\
             gantry_routes_revision {}\n",
            routes.current().revision().0,
        )
        .unwrap_or_default();
    })
}

/// What Prometheus is told of the process's memory. Nothing, if the allocator does not answer.
pub(super) fn memory_metrics() -> gantry_proxy::MetricsSource {
    Arc::new(|text: &mut String| {
        use std::fmt::Write as _;
        use tikv_jemalloc_ctl::{epoch, stats};
        // The allocator's figures are those of its last epoch.
        let Ok(_) = epoch::advance() else { return };
        let (Ok(allocated), Ok(resident)) = (stats::allocated::read(), stats::resident::read())
        else {
            return;
        };
        // Writing to a string does not fail.
        write!(
            text,
            "# HELP gantry_memory_allocated_bytes Octets that the process has allocated and not freed.\n\
             # TYPE gantry_memory_allocated_bytes gauge\n\
             gantry_memory_allocated_bytes {allocated}\n\
             # HELP gantry_memory_resident_bytes Octets that the allocator holds in memory.\n\
             # TYPE gantry_memory_resident_bytes gauge\n\
             gantry_memory_resident_bytes {resident}\n",
        )
        .unwrap_or_default();
    })
}

/// The wall clock for the edge.
pub(super) fn now_ms() -> i64 {
    Clock::system().now_ms()
}

/// The wall clock for certificates.
pub(super) fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(now_ms()) * 1_000_000)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}
