//! Waking a container that sleeps, because a request has come for it and its owner wants that.
//!
//! All requests of this worker for one container wait for the same waking. A browser that opens a
//! page is shown a page that waits, when it takes more than a moment; everything else is held.

use std::{cell::RefCell, collections::HashMap, rc::Rc, sync::Arc, time::Duration};

use futures_util::{
    FutureExt,
    future::{LocalBoxFuture, Shared},
};
use gantry_model::{ContainerId, ProjectId, edge::WakePolicy};
use gantry_router::{Gate, Route, RouteState};
use http::{HeaderValue, Method, Request};
use tokio::{
    sync::watch,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    account::Account, answer::Failure, body::ClientBody, headers::Survey, logs::Event,
    pipeline::Ask, traffic::Busy, worker::Worker,
};

/// The routes are looked at this often even if they tell of no change.
const LOOK: Duration = Duration::from_millis(100);

/// So long a browser waits before it is shown a page: most containers resume within it.
const MOMENT: Duration = Duration::from_millis(1500);

/// How far a container has come that wakes, as a client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// What is being done, a sentence without a full stop.
    pub(crate) stage: &'static str,
    /// For so many seconds.
    pub(crate) waited_s: u64,
    /// Whoever waits is told that it did not wake after so many.
    pub(crate) within_s: u64,
}

impl Waiting {
    fn of(found: Option<RouteState>, began: Instant, within: Duration) -> Self {
        let stage = match found {
            Some(RouteState::Paused) => "It was paused and is being resumed",
            Some(RouteState::Stopped | RouteState::Starting) => "It was stopped and is starting",
            Some(RouteState::Running { .. } | RouteState::Failed) | None => "It is nearly there",
        };
        Self { stage, waited_s: began.elapsed().as_secs(), within_s: within.as_secs().max(1) }
    }
}

type Waking = Shared<LocalBoxFuture<'static, Result<(), Failed>>>;

/// Why a container has not woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failed {
    /// Not in time.
    Late,
    /// It cannot, and the log says why.
    NotWoken,
    /// It has failed.
    Broken,
    /// It does not exist any more.
    Gone,
}

/// The wakings under way, as this worker knows them, and when each began.
#[derive(Debug, Default)]
pub(crate) struct Wakes(RefCell<HashMap<ContainerId, (Waking, Instant)>>);

/// What a request is, as far as waking goes.
#[derive(Clone, Copy, Debug)]
struct Caller {
    /// A browser opens a page.
    navigates: bool,
    /// It has proved to belong to a group.
    is_known: bool,
}

impl Caller {
    /// Who sends this request.
    fn of(survey: &Survey, method: &Method, is_known: bool) -> Self {
        let opens = survey.mode.as_ref().map(HeaderValue::as_bytes) == Some(b"navigate");
        Self { navigates: opens && *method == Method::GET, is_known }
    }
}

/// Why a container that does not run cannot be reached; nothing if it runs.
pub(crate) const fn asleep(state: RouteState) -> Option<Failure> {
    match state {
        RouteState::Running { .. } => None,
        RouteState::Starting => Some(Failure::ContainerStarting),
        RouteState::Paused => Some(Failure::ContainerPaused),
        RouteState::Stopped => Some(Failure::ContainerStopped),
        RouteState::Failed => Some(Failure::ContainerFailed),
    }
}

/// Whether this request wakes a container with this policy.
const fn wakes(policy: WakePolicy, caller: Caller) -> bool {
    match policy {
        WakePolicy::Never => false,
        WakePolicy::Navigate => caller.navigates,
        WakePolicy::Any => true,
        WakePolicy::Authed => caller.is_known,
    }
}

/// Has a container wake if its policy lets this request do that; returns its route once it runs.
async fn ensure_awake(
    worker: &Rc<Worker>,
    route: Route,
    policy: WakePolicy,
    caller: Caller,
) -> Result<Route, Failure> {
    let Some(why) = asleep(route.state) else { return Ok(route) };
    if !wakes(policy, caller) || route.state == RouteState::Failed {
        return Err(why);
    }
    let (waking, began) = board(worker, route.project, route.container);
    let held = worker.limits().wake_timeout;
    let patience = if caller.navigates { MOMENT.min(held) } else { held };
    let outcome = timeout(patience, waking).await;
    let route = worker.deps().routes.current().lookup(route.project, route.container);
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(Failed::Late)) | Err(_) => {
            let state = route.ok().map(|route| route.state);
            return Err(Failure::ContainerWaking(Waiting::of(state, began, held)));
        }
        Ok(Err(Failed::NotWoken)) => return Err(Failure::ContainerNotWoken),
        Ok(Err(Failed::Broken)) => return Err(Failure::ContainerFailed),
        Ok(Err(Failed::Gone)) => return Err(Failure::NotFound),
    }
    let route = route.or(Err(Failure::NotFound))?;
    asleep(route.state).map_or(Ok(route), Err)
}

/// What a container that may sleep does with a request.
#[derive(Debug)]
pub(crate) struct Awake {
    /// Its route, which runs.
    pub(crate) route: Route,
    /// Whether the request had to wait for that, and may wait on for a port to open.
    pub(crate) is_patient: bool,
    /// What its owner has set; looked at again if the request had to wait.
    pub(crate) gate: Option<Arc<Gate>>,
    /// Held until the answer begins.
    pub(crate) busy: Option<Busy>,
}

/// Whether a container does not run, or is put to sleep without traffic: all others need nothing of
/// [`prepare`].
pub(crate) fn may_sleep(gate: &Gate, route: Route) -> bool {
    gate.settings.idle_pause_after.is_some() || asleep(route.state).is_some()
}

/// Has the container of a request run, if it may, and notes that there is traffic. `is_known` says
/// whether the sender has proved to belong to a group.
pub(crate) async fn prepare(
    ask: &Ask<'_>,
    route: Route,
    gate: Arc<Gate>,
    is_known: bool,
    request: &Request<Option<ClientBody>>,
    account: &mut Account,
) -> Result<Awake, Failure> {
    let worker = ask.worker;
    let policy = gate.settings.wake;
    let caller = Caller::of(ask.survey, request.method(), is_known);
    let slept = asleep(route.state).is_some();
    let route = ensure_awake(worker, route, policy, caller).await?;
    let gate =
        if slept { worker.deps().routes.current().gate(route.container) } else { Some(gate) };
    let settings = gate.as_ref().map(|gate| &gate.settings);
    let mut busy = None;
    if settings.is_some_and(|settings| settings.idle_pause_after.is_some()) {
        let traffic = worker.traffic_of(route.container);
        let client = ask.downstream.peer.ip();
        let what = (client, request.method().as_str(), ask.hostname.as_str(), request.uri().path());
        // Whoever changes something does not poll, however often.
        let is_change = !request.method().is_safe();
        if is_change {
            traffic.used();
        }
        let counts = is_change || traffic.asked(what);
        busy = counts.then(|| traffic.busy());
        account.counts_for(traffic.flow(counts));
    }
    Ok(Awake { route, is_patient: slept && !caller.navigates, gate, busy })
}

/// Joins the waking under way, or begins one.
fn board(worker: &Rc<Worker>, project: ProjectId, container: ContainerId) -> (Waking, Instant) {
    if let Some(waking) = worker.wakes().0.borrow().get(&container) {
        return waking.clone();
    }
    let waking = wake(Rc::clone(worker), project, container).boxed_local().shared();
    let began = Instant::now();
    worker.wakes().0.borrow_mut().insert(container, (waking.clone(), began));
    worker.metrics().wakes.add(1);
    if let Some(log) = worker.deps().logs.of(project, container, None, worker.now_ms()) {
        worker.deps().logs.happened(&log, worker.now_ms(), Event::Waking);
    }
    // To its end, and out of the map, even if all who asked leave.
    let (worker_, driven) = (Rc::clone(worker), waking.clone());
    drop(worker.tasks().spawn_local(async move {
        driven.await.unwrap_or_default();
        worker_.wakes().0.borrow_mut().remove(&container);
    }));
    (waking, began)
}

async fn wake(
    worker: Rc<Worker>,
    project: ProjectId,
    container: ContainerId,
) -> Result<(), Failed> {
    let within = worker.limits().wake_timeout;
    let deadline = Instant::now() + within;
    // Before it is woken, so that no publication is missed.
    let mut published = worker.deps().routes.published();
    // On the control runtime, and to its end even if all who asked have left.
    let ordered = worker.deps().control.spawn(worker.deps().wake.wake(container, within));
    let why = match timeout_at(deadline, ordered).await {
        Ok(Ok(Ok(()))) => return runs(&worker, project, container, &mut published, deadline).await,
        Ok(Ok(Err(failed))) => failed.to_string(),
        Ok(Err(panicked)) => panicked.to_string(),
        Err(_) => return Err(Failed::Late),
    };
    tracing::warn!(%container, why, "a container was not woken");
    Err(Failed::NotWoken)
}

/// Waits until the routes say that a container runs.
async fn runs<R>(
    worker: &Worker,
    project: ProjectId,
    container: ContainerId,
    published: &mut watch::Receiver<R>,
    deadline: Instant,
) -> Result<(), Failed> {
    loop {
        published.mark_unchanged();
        let route = worker.deps().routes.current().lookup(project, container);
        match route.map(|route| route.state) {
            Ok(RouteState::Running { .. }) => return Ok(()),
            Ok(RouteState::Failed) => return Err(Failed::Broken),
            Ok(RouteState::Starting | RouteState::Paused | RouteState::Stopped) => {}
            Err(_) => return Err(Failed::Gone),
        }
        // A publication or a look of our own, whichever comes first.
        _ = timeout(LOOK, published.changed()).await;
        if Instant::now() >= deadline {
            return Err(Failed::Late);
        }
    }
}
