//! The way of one request, whatever transport it came by: host, route, guard, upstream.
//!
//! Every phase may end the request with a [`Failure`]; one place turns failures into answers. Nothing
//! is kept between requests but numbers and pooled connections.

use std::{rc::Rc, sync::Arc};

use gantry_model::{
    ContainerId, Hostname, ProjectId, RouteKey, Service, Target, alias::Landing,
    edge::EdgeSettings, selector::program,
};
use gantry_router::{NoRoute, Route, RouteState};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body as _;

use crate::{
    account::Account,
    alias,
    answer::{self, Failure},
    api,
    body::{ClientBody, EdgeBody},
    deps::RequestId,
    downstream::Downstream,
    form::Form,
    forward::{self, Downstreams, KitService, Upstream},
    framing::Refusal,
    guard::{self, Admission, Pass},
    headers::Survey,
    hooks::{self, Edit, Hooked},
    host,
    interim::Interims,
    limits::Refused,
    logs,
    metrics::RouteKind,
    upstream::Endpoint,
    wake,
    watch::Origin,
    websocket::{self, Handshake},
    worker::{Seen, Worker},
};

/// Where a CA looks for its proofs (RFC 8555, section 8.3).
const CHALLENGES: &str = "/.well-known/acme-challenge/";

/// A request as all phases see it.
#[derive(Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) worker: &'a Rc<Worker>,
    pub(crate) downstream: &'a Rc<Downstream>,
    pub(crate) survey: &'a Survey,
    /// The host as the client typed it, with the port.
    pub(crate) authority: &'a HeaderValue,
    pub(crate) hostname: &'a Hostname<'a>,
    pub(crate) id: RequestId,
    /// For a WebSocket that a stream of HTTP/2 asks for.
    pub(crate) handshake: Option<&'a Handshake>,
    /// By what it was let in, if its container has a gate.
    pub(crate) pass: Option<Rc<Pass>>,
    /// What the streams had been compared with when that gate was looked at.
    pub(crate) seen: Seen,
    /// What a hook has changed of its fields.
    pub(crate) edits: Vec<Edit>,
    /// Where interim answers go, if the client can be sent any.
    pub(crate) interims: Option<&'a Rc<Interims>>,
}

/// Where a hostname leads.
#[derive(Debug)]
pub(crate) struct Place<'h> {
    /// The server that the hostname names; none in a chosen name, which has been looked up.
    pub(crate) server: Option<&'h str>,
    pub(crate) project: ProjectId,
    pub(crate) container: ContainerId,
    pub(crate) target: Target<'h>,
    /// Where `/` leads, for an alias.
    pub(crate) landing: Option<&'h Landing>,
    /// Whether the hostname is a chosen name.
    pub(crate) is_chosen: bool,
}

impl Place<'_> {
    fn route(&self, worker: &Worker) -> Result<Route, NoRoute> {
        let table = worker.deps().routes.current();
        match self.server {
            Some(server) => table.lookup_on(server, self.project, self.container),
            None => table.lookup(self.project, self.container),
        }
    }
}

/// Answers a request, or the refusal that it stands for. `interims` is for clients that can be sent
/// interim answers.
pub(crate) async fn answer(
    worker: Rc<Worker>,
    downstream: Rc<Downstream>,
    refusal: Option<Refusal>,
    mut request: Request<Option<ClientBody>>,
    interims: Option<Rc<Interims>>,
) -> Response<EdgeBody> {
    let mut account = Box::new(Account::open(&worker, &downstream, &request));
    let mut survey = Survey::of(request.headers(), request.version());
    let outcome = match refusal {
        Some(refusal) => {
            account.was_not_parsed();
            Err(Failure::Refused(refusal))
        }
        None => match admit(&worker, &downstream, &mut account) {
            Ok(()) => {
                let client = (&downstream, interims.as_ref());
                serve(&worker, client, &mut survey, &mut request, &mut account).await
            }
            Err(failure) => Err(failure),
        },
    };
    let mut response = close(outcome, &survey, account, &downstream);
    if downstream.is_untold()
        && let Some(alt_svc) = worker.alt_svc()
    {
        response.headers_mut().insert(header::ALT_SVC, alt_svc.clone());
    }
    response
}

/// Answers a request on the plain port: the same place by HTTPS, or nothing.
pub(crate) fn redirect(
    worker: &Rc<Worker>,
    downstream: &Rc<Downstream>,
    refusal: Option<Refusal>,
    request: &Request<impl Sized>,
) -> Response<EdgeBody> {
    let mut account = Box::new(Account::open(worker, downstream, request));
    let survey = Survey::of(request.headers(), request.version());
    let outcome = match refusal {
        Some(refusal) => {
            account.was_not_parsed();
            Err(Failure::Refused(refusal))
        }
        None => admit(worker, downstream, &mut account)
            .and_then(|()| to_https(worker, &survey, request, &mut account)),
    };
    close(outcome, &survey, account, downstream)
}

/// Whether the worker takes one more request, and the client may make one.
fn admit(
    worker: &Rc<Worker>,
    downstream: &Downstream,
    account: &mut Account,
) -> Result<(), Failure> {
    match worker.quota().request() {
        Ok(counted) => account.counts_as(counted),
        Err(refused) => {
            worker.metrics().refused(refused);
            return Err(Failure::EdgeBusy);
        }
    }
    downstream.take_share().map_err(|wait| {
        worker.metrics().refused(Refused::AddressRequestRate);
        Failure::TooManyRequests { wait }
    })
}

/// Counts one more request of a container, unless it has as many as it may.
fn enter(
    worker: &Rc<Worker>,
    downstream: &Downstream,
    container: ContainerId,
    settings: Option<&EdgeSettings>,
    account: &mut Account,
) -> Result<(), Failure> {
    let max = worker.limits().requests_per_container_max;
    // An owner may ask for less than there is, not for more.
    let max =
        settings.and_then(|settings| settings.concurrency_max).map_or(max, |own| own.min(max));
    let find = || worker.quota().tenant(container);
    let Some(in_flight) = downstream.enter(container, max, find) else {
        worker.metrics().refused(Refused::ContainerRequests);
        return Err(Failure::ContainerBusy);
    };
    account.occupies(in_flight);
    Ok(())
}

/// Turns the outcome into the answer, and ties the account to its end.
fn close(
    outcome: Result<Response<EdgeBody>, Failure>,
    survey: &Survey,
    mut account: Box<Account>,
    downstream: &Downstream,
) -> Response<EdgeBody> {
    let mut response = match outcome {
        Ok(response) => {
            account.answered(response.status().as_u16(), response.headers());
            response
        }
        Err(failure) => {
            account.failed(failure.code(), failure.status().as_u16());
            let form = Form::choose(survey.mode.as_ref(), survey.accept.as_ref());
            answer::answer(&failure, form, account.id(), downstream.protocol)
        }
    };
    response.body_mut().on_account(account);
    response
}

/// Refuses a body that says to be longer than one may be.
fn check_length(worker: &Worker, request: Downstreams<'_>) -> Result<(), Failure> {
    let Some(max) = worker.limits().body_bytes_max else { return Ok(()) };
    let announced = request.body().as_ref().map_or(0, |body| body.size_hint().lower());
    if announced > max { Err(Failure::BodyTooLarge) } else { Ok(()) }
}

async fn serve(
    worker: &Rc<Worker>,
    (downstream, interims): (&Rc<Downstream>, Option<&Rc<Interims>>),
    survey: &mut Survey,
    request: Downstreams<'_>,
    account: &mut Account,
) -> Result<Response<EdgeBody>, Failure> {
    survey.check(worker.limits().fields_max)?;
    check_length(worker, request)?;
    let handshake = if request.method() == Method::CONNECT {
        Some(websocket::translate(request, survey, account.id())?)
    } else {
        None
    };
    let (survey, handshake) = (&*survey, handshake.as_ref());
    if request.uri().path() == "*" && request.method() != Method::OPTIONS {
        return Err(Failure::BadRequest("only OPTIONS asks for *"));
    }
    let authority = host::authority(request.uri(), request.version(), survey)?;
    let hostname = host::hostname(&authority)?;
    account.host_is(authority.clone());
    let covers = |sni: Option<&str>| worker.deps().certificates.covers(sni, hostname.as_str());
    if downstream.secure && !downstream.is_covered(&authority, covers) {
        return Err(Failure::Misdirected);
    }
    let key = RouteKey::parse(&hostname, &worker.config().domain).or(Err(Failure::NotFound))?;
    let id = account.id();
    let (authority, hostname) = (&authority, &hostname);
    let mut ask = Ask {
        worker,
        downstream,
        survey,
        authority,
        hostname,
        id,
        handshake,
        pass: None,
        seen: Seen::default(),
        edits: Vec::new(),
        interims,
    };
    match key {
        RouteKey::Api { realm } => {
            account.kind_is(RouteKind::Api);
            Box::pin(api::call(&ask, realm, request)).await
        }
        RouteKey::Container { server, .. }
        | RouteKey::SshGate { server }
        | RouteKey::Alias { server, .. }
            if !worker.config().servers.have(server) =>
        {
            Err(Failure::NotFound)
        }
        RouteKey::SshGate { .. } | RouteKey::Container { target: Target::Ssh, .. } => {
            // Said without a look at the routes, so that it tells nothing about what exists.
            Err(Failure::SshOnly { hostname: hostname.as_str().into() })
        }
        RouteKey::Container { server, project, container, target } => {
            let server = Some(server);
            let (landing, is_chosen) = (None, false);
            let place = Place { server, project, container, target, landing, is_chosen };
            to_container(&mut ask, &place, request, account).await
        }
        key @ (RouteKey::Alias { .. } | RouteKey::Custom(_)) => {
            Box::pin(alias::serve(&mut ask, &key, request, account)).await
        }
    }
}

/// Answers a request to a service of a container.
pub(crate) async fn to_container(
    ask: &mut Ask<'_>,
    place: &Place<'_>,
    request: Downstreams<'_>,
    account: &mut Account,
) -> Result<Response<EdgeBody>, Failure> {
    let worker = ask.worker;
    let Place { project, container, ref target, landing, .. } = *place;
    let route = place.route(worker).or(Err(Failure::NotFound))?;
    if let Target::Ssh = target {
        return Err(Failure::SshOnly { hostname: ask.hostname.as_str().into() });
    }
    let is_log = matches!(target, Target::Kit { service: Service::Logs, .. });
    if ask.worker.logs_requests() && !is_log {
        account.is_logged(&route, target, place.is_chosen);
    }
    let mut gate = None;
    if route.gated {
        // Before the look at the gate, so that no change after it goes unnoticed.
        ask.seen = worker.routes_seen();
        gate = worker.deps().routes.current().gate(container);
    }
    if let Some(gate) = &gate {
        let admission = match guard::check_now(ask, gate, container, target, request) {
            Some(admission) => admission,
            None => Box::pin(guard::check(ask, gate, container, target, request)).await,
        };
        match admission? {
            Admission::Passed(pass) => ask.pass = Some(pass),
            Admission::Answered(response) => return Ok(*response),
        }
    }
    if let Some(landing) = landing {
        alias::land(landing, request)?;
    }
    if is_log {
        return logs::serve(ask, &route, request, account);
    }
    let (mut route, mut is_patient, mut _busy) = (route, false, None);
    if let Some(before) = &gate
        && wake::may_sleep(before, route)
    {
        let is_known = ask.pass.as_ref().is_some_and(|pass| pass.is_known());
        let before = Arc::clone(before);
        let ready = Box::pin(wake::prepare(ask, route, before, is_known, request, account)).await?;
        (route, is_patient) = (ready.route, ready.is_patient);
        (gate, _busy) = (ready.gate, ready.busy);
    }
    let settings = gate.as_ref().map(|gate| &gate.settings);
    if settings.is_some_and(|settings| settings.log_bodies) {
        account.is_captured(request.headers());
    }
    let RouteState::Running { address, since_ms } = route.state else {
        return Err(wake::asleep(route.state).unwrap_or(Failure::ContainerStopped));
    };
    let generation = route.generation;
    let (kit, port, scheme) = service(worker, target)?;
    account.kind_is(if kit.is_some() { RouteKind::Kit } else { RouteKind::Port });
    enter(worker, ask.downstream, container, settings, account)?;
    let origin = Origin { project, container, generation };
    let verify = settings.is_some_and(|settings| settings.verify_upstream);
    let endpoint = Endpoint { origin, address, port, scheme, verify };
    let says = settings.is_some_and(|it| it.proxy_protocol_ports.contains(&port));
    let bind = worker.source_for(ask.downstream.peer.ip(), address);
    let upstream = Upstream { endpoint, kit, since_ms, is_patient, says, bind };
    if let Some(gate) = gate.as_ref().filter(|gate| !gate.hooks.is_empty()) {
        let server = route.server;
        let hooked = Hooked { server, project, container, target, upstream: &upstream };
        if let Some(answer) = Box::pin(hooks::ask(ask, gate, &hooked, request, account)).await? {
            return Ok(answer);
        }
    }
    forward::forward(ask, &upstream, request, account).await
}

type ServicePort = (Option<KitService>, u16, gantry_model::Scheme);

/// Which port of the container `target` means, and the Kit service behind it.
fn service(worker: &Worker, target: &Target<'_>) -> Result<ServicePort, Failure> {
    match *target {
        Target::Port { scheme, port } => Ok((None, port, scheme)),
        Target::Kit { service, index, .. } => {
            let program = program(service, index);
            let kit = worker.deps().kit.get(program.0);
            if service == Service::Desktop && kit.provided {
                // The Kit's terminal has no desktop: whoever may have one must not get a shell.
                return Err(Failure::ServiceNotProvided(service));
            }
            let port = kit.of(program.1).ok_or(Failure::NotFound)?;
            let starts = kit.provided.then_some(program);
            Ok((Some(KitService { service, index, starts }), port, kit.scheme))
        }
        Target::Ssh => Err(Failure::NotFound),
    }
}

/// The same place by HTTPS. Only names of this installation are redirected, so that nobody can be
/// sent elsewhere with our help. Whatever a CA asks about the installation's own names leads nowhere: CAs follow
/// redirects, and a tenant that answered would have a certificate for a name that is somebody else's tomorrow.
fn to_https(
    worker: &Worker,
    survey: &Survey,
    request: &Request<impl Sized>,
    account: &mut Account,
) -> Result<Response<EdgeBody>, Failure> {
    survey.check(worker.limits().fields_max)?;
    let authority = host::authority(request.uri(), request.version(), survey)?;
    let hostname = host::hostname(&authority)?;
    account.host_is(authority.clone());
    if let Some(answer) = challenge(worker, hostname.as_str(), request) {
        return Ok(answer);
    }
    match RouteKey::parse(&hostname, &worker.config().domain) {
        Ok(key @ RouteKey::Custom(_)) => {
            alias::find(worker, &key).ok_or(Failure::NotFound)?;
            // A redirect would lead to a handshake that fails.
            if worker.deps().certificates.lacks(hostname.as_str()) {
                return Err(Failure::CertificatePending);
            }
        }
        Err(_) => return Err(Failure::NotFound),
        Ok(_own) if request.uri().path().starts_with(CHALLENGES) => return Err(Failure::NotFound),
        Ok(
            RouteKey::Container { .. }
            | RouteKey::SshGate { .. }
            | RouteKey::Alias { .. }
            | RouteKey::Api { .. },
        ) => {}
    }
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let location = match worker.config().url_port {
        443 => format!("https://{hostname}{path}"),
        port => format!("https://{hostname}:{port}{path}"),
    };
    let location = HeaderValue::try_from(location).or(Err(Failure::HostInvalid))?;
    let mut response = Response::new(EdgeBody::EMPTY);
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

/// What a CA is answered that asks whether a hostname is ours.
fn challenge(
    worker: &Worker,
    hostname: &str,
    request: &Request<impl Sized>,
) -> Option<Response<EdgeBody>> {
    let challenges = worker.deps().challenges.as_ref()?;
    let token = request.uri().path().strip_prefix(CHALLENGES)?;
    let answer = challenges.http_answer(hostname, token)?;
    let mut response = Response::new(EdgeBody::full(answer.into()));
    let kind = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Some(response)
}
