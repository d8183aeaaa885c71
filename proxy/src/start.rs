//! Starting a Kit service upon its first request.
//!
//! A page asks for a dozen things at once; the first refused connection starts the service, and all
//! requests of this worker for it wait for the same start.

use std::{cell::RefCell, collections::HashMap, rc::Rc, time::Duration};

use futures_util::{
    FutureExt,
    future::{LocalBoxFuture, Shared},
};
use gantry_model::Service;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::{
    answer::Failure,
    upstream::{DialError, Endpoint, Introduction, Offer, dial},
    watch::Origin,
    worker::Worker,
};

/// The first pause between two attempts to connect; it grows by half each time.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_millis(500);

type Key = (Origin, Service, u16);
type Start = Shared<LocalBoxFuture<'static, Result<(), Failure>>>;

/// The starts under way, as this worker knows them.
#[derive(Debug, Default)]
pub(crate) struct Starts(RefCell<HashMap<Key, Start>>);

/// Has the service started, and waits until something listens at `endpoint`.
pub(crate) async fn ensure_started(
    worker: &Rc<Worker>,
    endpoint: Endpoint,
    service: Service,
    index: u16,
) -> Result<(), Failure> {
    let key = (endpoint.origin, service, index);
    let known = worker.starts().0.borrow().get(&key).cloned();
    let under_way = known.unwrap_or_else(|| {
        let begun = start(Rc::clone(worker), endpoint, service, index).boxed_local().shared();
        worker.starts().0.borrow_mut().insert(key, begun.clone());
        // To its end, and out of the map, even if all who asked leave.
        let (worker_, driven) = (Rc::clone(worker), begun.clone());
        drop(worker.tasks().spawn_local(async move {
            driven.await.unwrap_or_default();
            worker_.starts().0.borrow_mut().remove(&key);
        }));
        begun
    });
    under_way.await
}

async fn start(
    worker: Rc<Worker>,
    endpoint: Endpoint,
    service: Service,
    index: u16,
) -> Result<(), Failure> {
    let deadline = Instant::now() + worker.limits().service_start_timeout;
    let ordered = worker.deps().start_service.start(endpoint.origin.container, service, index);
    // On the control runtime, and to its end even if all who asked have left.
    let ordered = worker.deps().control.spawn(ordered);
    let why = match timeout_at(deadline, ordered).await {
        Ok(Ok(Ok(()))) => {
            let late = Failure::ServiceNotStarted { service, retry: true };
            return wait_for_port(&worker, endpoint, deadline, late).await;
        }
        Ok(Ok(Err(failed))) => failed.to_string(),
        Ok(Err(panicked)) => panicked.to_string(),
        Err(_) => "the start took too long".to_owned(),
    };
    let container = endpoint.origin.container;
    tracing::warn!(%container, service = service.slug(), index, why, "a service did not start");
    Err(Failure::ServiceNotStarted { service, retry: false })
}

/// Waits until something listens at `endpoint`; fails with `late` if nothing does by the deadline.
pub(crate) async fn wait_for_port(
    worker: &Worker,
    endpoint: Endpoint,
    deadline: Instant,
    late: Failure,
) -> Result<(), Failure> {
    let limit = worker.limits().connect_timeout;
    let mut pause = PAUSE_FIRST;
    loop {
        if worker.is_gone(&endpoint.origin) {
            return Err(Failure::ContainerStopped);
        }
        let dialled = dial(
            endpoint,
            None,
            Offer::Http1,
            Introduction::default(),
            worker.dial_rules(),
            worker.tls(),
        );
        let attempt = timeout(limit, dialled);
        match timeout_at(deadline, attempt).await {
            // What does not speak TLS listens all the same; the request will tell.
            Ok(Ok(Ok(_) | Err(DialError::Tls(_)))) => return Ok(()),
            Ok(Ok(Err(DialError::Forbidden(_)))) | Err(_) => return Err(late),
            // A container that boots may lose its address for a moment.
            Ok(
                Ok(Err(DialError::Refused | DialError::Timeout | DialError::Unreachable(_)))
                | Err(_),
            ) => {}
        }
        if Instant::now() + pause >= deadline {
            return Err(late);
        }
        sleep(pause).await;
        pause = (pause * 3 / 2).min(PAUSE_MAX);
    }
}
