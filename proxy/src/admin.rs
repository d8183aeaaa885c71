//! Metrics and health, on listeners of their own that only this machine reaches, served by a thread
//! of its own: they answer also when everything else is busy.

use std::{
    convert::Infallible,
    fmt::Write,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, task::JoinSet, time::timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    Logs,
    deps::{Deps, MetricsSource, Readiness},
    edge::StartError,
    metrics::{self, Metrics},
};

/// Connections at once.
const CONNECTIONS_MAX: usize = 64;
/// How long a connection lives at the most.
const LIFE: Duration = Duration::from_mins(1);

/// The running listeners; they end when this is dropped.
#[derive(Debug)]
pub(crate) struct Admin {
    addresses: Vec<SocketAddr>,
    _stop: DropGuard,
}

impl Admin {
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

struct State {
    workers: Vec<Arc<Metrics>>,
    sources: Vec<MetricsSource>,
    readiness: Vec<Arc<dyn Readiness>>,
    routes: gantry_router::Routes,
    begun: Instant,
    logs: Logs,
    draining: CancellationToken,
}

/// Serves on these listeners, which have these addresses.
pub(crate) fn start(
    (listeners, addresses): (Vec<std::net::TcpListener>, Vec<SocketAddr>),
    deps: &Deps,
    workers: Vec<Arc<Metrics>>,
    draining: CancellationToken,
) -> Result<Admin, StartError> {
    let state = Arc::new(State {
        workers,
        sources: deps.metrics.clone(),
        readiness: deps.readiness.clone(),
        routes: deps.routes.clone(),
        logs: deps.logs.clone(),
        begun: Instant::now(),
        draining,
    });
    let stop = CancellationToken::new();
    let guard = stop.clone().drop_guard();
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().map_err(StartError::Worker)?;
    let run = move || {
        runtime.block_on(async move {
            let mut loops = JoinSet::new();
            for listener in listeners {
                loops.spawn(serve(listener, Arc::clone(&state), stop.clone()));
            }
            while loops.join_next().await.is_some() {}
        });
    };
    let thread = std::thread::Builder::new().name("gantry-admin".to_owned());
    // It ends with the guard; nothing of it needs to be waited for.
    drop(thread.spawn(run).map_err(StartError::Worker)?);
    Ok(Admin { addresses, _stop: guard })
}

async fn serve(listener: std::net::TcpListener, state: Arc<State>, stop: CancellationToken) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        if connections.len() < CONNECTIONS_MAX {
            let state = Arc::clone(&state);
            connections.spawn(async move {
                let service = service_fn(|request| {
                    std::future::ready(Ok::<_, Infallible>(answer(&state, &request)))
                });
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .serve_connection(TokioIo::new(stream), service);
                // A scraper that left early is no news.
                drop(timeout(LIFE, connection).await);
            });
        }
    }
}

fn answer(state: &State, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let known = matches!(request.uri().path(), "/metrics" | "/livez" | "/readyz");
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/livez") => (StatusCode::OK, TEXT, "live\n".to_owned()),
        (&Method::GET | &Method::HEAD, "/readyz") => ready(state),
        (&Method::GET | &Method::HEAD, "/metrics") => (StatusCode::OK, METRICS, metrics(state)),
        _ if known => (StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET only\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, TEXT, "/metrics, /livez, /readyz\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

const TEXT: &str = "text/plain; charset=utf-8";
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

fn ready(state: &State) -> (StatusCode, &'static str, String) {
    let mut text = String::new();
    let mut status = StatusCode::OK;
    for source in &state.readiness {
        // Writing to a string cannot fail.
        _ = match source.check() {
            Ok(()) => writeln!(text, "{}: ready", source.name()),
            Err(why) => {
                status = StatusCode::SERVICE_UNAVAILABLE;
                writeln!(text, "{}: {why}", source.name())
            }
        };
    }
    if state.draining.is_cancelled() {
        status = StatusCode::SERVICE_UNAVAILABLE;
        text.push_str("edge: draining\n");
    }
    let age = state.routes.age().as_secs_f64();
    _ = writeln!(text, "routes: {age:.1} s old");
    (status, TEXT, text)
}

fn metrics(state: &State) -> String {
    let mut text = String::with_capacity(16 * 1024);
    metrics::render(&state.workers, &mut text);
    let table = state.routes.current();
    for (name, help, value) in [
        ("gantry_routes", "Containers with a route.", table.len().to_string()),
        (
            "gantry_routes_age_seconds",
            "Since the routes were last known to be up to date.",
            state.routes.age().as_secs_f64().to_string(),
        ),
        (
            "gantry_uptime_seconds",
            "Since the edge was started.",
            state.begun.elapsed().as_secs_f64().to_string(),
        ),
    ] {
        // Writing to a string cannot fail.
        _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
    }
    drop(table);
    state.logs.write_metrics(&mut text);
    for source in &state.sources {
        source(&mut text);
    }
    text
}
