//! Hooks: a script of the container sees a request before the service that it is for.
//!
//! The first hook of the service that matches is asked, by a request of the edge's own to the
//! container's `exec` service, directly and never through the pipeline: what a hook asks for is not
//! hooked. The script gets the head alone. What it answers decides: `204` with `X-Gantry-Hook:
//! continue` lets the request go on, body and all, perhaps with fields or another path that the script
//! sets; `204` with `X-Gantry-Hook: body` asks for the body, and then the script's next answer is the
//! client's; any other answer is the client's. A script that fails, or is late, fails the request: a
//! hook may be what keeps others out.
//!
//! Frames of a WebSocket are no requests; its handshake is one.

use std::{rc::Rc, time::Duration};

use gantry_model::{
    ContainerId, ProjectId, RouteKey, Scheme, Service, Target,
    access::{Demand, GroupName, GroupSet, Policy, Program},
    hook::{Hook, Script},
};
use gantry_router::{Gate, ServerIndex};
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header,
    uri::PathAndQuery,
};
use serde_json::json;

use crate::{
    account::Account,
    answer::Failure,
    body::{ClientBody, EdgeBody, Progress, RequestBody},
    forward::{self, Downstreams, KitService, Upstream},
    headers::may_be_set,
    outgoing::{self, Outgoing},
    pipeline::Ask,
    pool::Need,
    upstream::{Endpoint, ExchangeError, Incoming, Lease, Offer, by_channel},
};

/// Tells a script that a hook asks, and why; tells the edge what it decided.
static X_GANTRY_HOOK: HeaderName = HeaderName::from_static("x-gantry-hook");
/// The path and query that the request goes on with.
static X_GANTRY_PATH: HeaderName = HeaderName::from_static("x-gantry-path");
/// Fields that the request goes on without.
static X_GANTRY_REMOVE: HeaderName = HeaderName::from_static("x-gantry-remove");
/// What the names of fields that the request goes on with begin with.
const SET: &str = "x-gantry-set-";
/// How many fields a script may change.
const EDITS_MAX: usize = 32;

/// A field that a hook has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Edit {
    Remove(HeaderName),
    /// In the place of what the client sent.
    Set(HeaderName, HeaderValue),
    /// Beside what another edit has set.
    Add(HeaderName, HeaderValue),
}

/// The service that a request is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hooked<'a> {
    pub(crate) server: ServerIndex,
    pub(crate) project: ProjectId,
    pub(crate) container: ContainerId,
    pub(crate) target: &'a Target<'a>,
    pub(crate) upstream: &'a Upstream,
}

/// Lets the hook of `gate` that sees a request, if there is one, decide about it. An answer is the
/// script's; without one the request goes on.
pub(crate) async fn ask(
    ask: &mut Ask<'_>,
    gate: &Gate,
    of: &Hooked<'_>,
    request: Downstreams<'_>,
    account: &mut Account,
) -> Result<Option<Response<EdgeBody>>, Failure> {
    let Some(hook) = find(ask, gate, of.target, request) else { return Ok(None) };
    let exec = exec(ask, of);
    let call = call(ask, hook, of, request, RequestBody::Empty)?;
    let (response, lease) = send(ask, hook, &exec, call, None).await?;
    match control(&response)? {
        Control::Answer => answer(ask, &exec, response, lease).map(Some),
        Control::Continue => {
            ask.edits = read_edits(response.headers(), request).ok_or_else(|| {
                tracing::info!(id = %ask.id, container = %of.container, "a hook's answer is no good");
                Failure::HookFailed
            })?;
            forward::keep(ask, &exec, &response, lease);
            Ok(None)
        }
        Control::Body => {
            forward::keep(ask, &exec, &response, lease);
            let flow = account.flow().cloned();
            let (body, progress) = forward::request_body(ask, request.body_mut().take(), flow);
            if let Some(progress) = &progress {
                account.body_is(Rc::clone(progress));
            }
            let call = self::call(ask, hook, of, request, body)?;
            let sent = send(ask, hook, &exec, call, progress.as_deref()).await;
            let (response, lease) = sent.map_err(|failure| match progress.as_deref() {
                Some(progress) if progress.is_too_large() => Failure::BodyTooLarge,
                Some(_) | None => failure,
            })?;
            match control(&response)? {
                Control::Answer => answer(ask, &exec, response, lease).map(Some),
                // The body is spent.
                Control::Continue | Control::Body => Err(Failure::HookFailed),
            }
        }
    }
}

/// The groups that decide whether a hook of the service sees a request.
pub(crate) fn groups(gate: &Gate, policy: &Policy, demand: &Demand) -> GroupSet {
    let is_asked = |hook: &&Hook| demand.programs().any(|program| hook.service == program);
    let of_service = gate.hooks.iter().filter(is_asked);
    of_service.map(|hook| policy.named(&hook.groups)).fold(GroupSet::EMPTY, GroupSet::union)
}

/// The first hook of a service that sees a request; on the port of a Kit service its hooks come first.
fn find<'g, B>(
    ask: &Ask<'_>,
    gate: &'g Gate,
    target: &Target<'_>,
    request: &Request<B>,
) -> Option<&'g Hook> {
    let demand = ask.worker.deps().kit.demand(target);
    let headers = request.headers();
    let header_is = |name: &str, value: &str| {
        headers.get_all(name).iter().any(|field| field.as_bytes() == value.as_bytes())
    };
    let is_member = |name: &GroupName| ask.pass.as_ref().is_some_and(|pass| pass.is_member(name));
    let (method, path) = (request.method().as_str(), request.uri().path());
    let sees = |hook: &Hook| hook.matches(method, path, header_is, is_member);
    demand
        .programs()
        .find_map(|program| gate.hooks.iter().find(|hook| hook.service == program && sees(hook)))
}

/// What an answer of a script means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Control {
    Answer,
    Continue,
    Body,
}

fn control<B>(response: &Response<B>) -> Result<Control, Failure> {
    let word = response.headers().get(&X_GANTRY_HOOK).map(HeaderValue::as_bytes);
    match word {
        None if response.status() == StatusCode::SWITCHING_PROTOCOLS => Err(Failure::HookFailed),
        None => Ok(Control::Answer),
        Some(b"continue") if response.status() == StatusCode::NO_CONTENT => Ok(Control::Continue),
        Some(b"body") if response.status() == StatusCode::NO_CONTENT => Ok(Control::Body),
        Some(_) => Err(Failure::HookFailed),
    }
}

/// Where scripts run. A container may have a program of its own there, if its image brings none.
fn exec(ask: &Ask<'_>, of: &Hooked<'_>) -> Upstream {
    let kit = ask.worker.deps().kit.get(Service::Exec);
    let Endpoint { origin, address, .. } = of.upstream.endpoint;
    Upstream {
        endpoint: Endpoint {
            origin,
            address,
            port: kit.of(1).unwrap_or(kit.port),
            scheme: kit.scheme,
            verify: false,
        },
        kit: Some(KitService {
            service: Service::Exec,
            index: 1,
            starts: kit.provided.then_some((Service::Exec, 1)),
        }),
        since_ms: of.upstream.since_ms,
        is_patient: of.upstream.is_patient,
        // The connection serves all clients; the fields say who this one is.
        says: false,
        bind: None,
    }
}

/// Asks the script. About the head it may be asked twice, if a connection that was kept turns out to be
/// closed.
async fn send(
    ask: &Ask<'_>,
    hook: &Hook,
    exec: &Upstream,
    call: Request<RequestBody>,
    progress: Option<&Progress>,
) -> Result<(Response<Incoming>, Lease), Failure> {
    let limit = Duration::from_millis(u64::from(hook.timeout_ms.get()));
    let wait = forward::wait(ask, exec)?;
    let terms = forward::terms(ask, (&wait, progress), limit);
    let (head, mut body) = call.into_parts();
    let kept = ask.worker.pool().take(&forward::key(ask, exec), Need::Any);
    if let Some(Lease::Http1(mut channel)) = kept {
        let is_head = matches!(body, RequestBody::Empty);
        match channel.exchange(outgoing::message(&head, body), &terms).await {
            Ok(response) => return Ok((by_channel(response), Lease::Http1(channel))),
            Err(ExchangeError::Unsent(unsent)) => body = unsent,
            Err(ExchangeError::Broken(_)) if is_head => body = RequestBody::Empty,
            Err(error) => return Err(failed(ask, exec, error)),
        }
    }
    let connected = forward::connect(ask, exec, Need::Any, Offer::Http1).await;
    let lease = connected.map_err(|failure| {
        if failure == Failure::ContainerStopped {
            return failure;
        }
        tracing::debug!(id = %ask.id, code = failure.code().as_str(), "no hook answers");
        Failure::HookFailed
    })?;
    // It was offered HTTP/1.1 alone.
    let Lease::Http1(mut channel) = lease else { return Err(Failure::HookFailed) };
    match channel.exchange(outgoing::message(&head, body), &terms).await {
        Ok(response) => Ok((by_channel(response), Lease::Http1(channel))),
        Err(error) => Err(failed(ask, exec, error)),
    }
}

fn failed(ask: &Ask<'_>, exec: &Upstream, error: ExchangeError) -> Failure {
    match error {
        ExchangeError::Timeout => Failure::HookTimeout,
        ExchangeError::Unsent(_) | ExchangeError::Broken(_) => Failure::HookFailed,
        // Neither is the script's fault.
        ExchangeError::Body | ExchangeError::Cut => forward::failure(ask, exec, error),
    }
}

/// A request to the script: the client's head, in the edge's words.
fn call(
    ask: &Ask<'_>,
    hook: &Hook,
    of: &Hooked<'_>,
    request: &Request<Option<ClientBody>>,
    body: RequestBody,
) -> Result<Request<RequestBody>, Failure> {
    let mut headers = Outgoing::new(ask, request).fields();
    let length = headers.get(header::CONTENT_LENGTH).cloned();
    let is_head = matches!(body, RequestBody::Empty);
    // Who asks to leave HTTP asks the service.
    headers.remove(header::UPGRADE);
    if is_head {
        for name in [header::CONTENT_LENGTH, header::TRAILER, header::TE, header::CONNECTION] {
            headers.remove(name);
        }
    }
    headers.insert(header::HOST, host(ask, of, &hook.script).ok_or(Failure::HookFailed)?);
    let about = about(ask, of, request, length.as_ref(), is_head);
    let about = HeaderValue::try_from(about).or(Err(Failure::HookFailed))?;
    headers.insert(&X_GANTRY_HOOK, about);
    let target = match &hook.script.exec_id {
        Some(exec_id) => format!("{}?execId={exec_id}", hook.script.path),
        None => hook.script.path.clone(),
    };
    let target = PathAndQuery::try_from(target).or(Err(Failure::HookFailed))?;
    let mut call = Request::new(body);
    call.method_mut().clone_from(request.method());
    *call.uri_mut() = Uri::from(target);
    *call.headers_mut() = headers;
    Ok(call)
}

/// The name that the script's directory has among the container's own hostnames.
fn host(ask: &Ask<'_>, of: &Hooked<'_>, script: &Script) -> Option<HeaderValue> {
    let sub = Some(script.subdomain.as_str()).filter(|sub| *sub != "default");
    let key = RouteKey::Container {
        server: ask.worker.config().servers.name(of.server),
        project: of.project,
        container: of.container,
        target: Target::Kit { service: Service::Exec, index: 1, sub },
    };
    HeaderValue::try_from(key.to_hostname(&ask.worker.config().domain)).ok()
}

/// What a script is told beside the head, in JSON.
fn about(
    ask: &Ask<'_>,
    of: &Hooked<'_>,
    request: &Request<Option<ClientBody>>,
    length: Option<&HeaderValue>,
    is_head: bool,
) -> String {
    let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_owned();
    let length = length.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let Endpoint { address, port, scheme, .. } = of.upstream.endpoint;
    let number = match of.target {
        Target::Kit { index, .. } => Some(*index),
        Target::Port { port, .. } => Some(*port),
        Target::Ssh => None,
    };
    let path = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
    let about = json!({
        "phase": if is_head { "head" } else { "body" },
        "method": request.method().as_str(),
        "url": format!("{}://{}{path}", ask.downstream.scheme(), text(ask.authority)),
        "service": Program::of(of.target).as_str(),
        "index": number,
        "upstream": {
            "scheme": match scheme { Scheme::Http => "http", Scheme::Https => "https" },
            "host": address.to_string(),
            "port": port,
        },
        "clientIp": text(&ask.downstream.address),
        "requestId": ask.id.to_string(),
        "contentLength": length,
        "webSocket": ask.survey.upgrade.is_some(),
    });
    about.to_string()
}

/// Makes a script's answer the client's.
fn answer(
    ask: &Ask<'_>,
    exec: &Upstream,
    mut response: Response<Incoming>,
    lease: Lease,
) -> Result<Response<EdgeBody>, Failure> {
    // Over HTTP/2 any success would open the tunnel.
    if ask.handshake.is_some() && response.status().is_success() {
        return Err(Failure::HookFailed);
    }
    let ours = |name: &&HeaderName| name.as_str().starts_with("x-gantry-");
    let ours: Vec<_> = response.headers().keys().filter(ours).cloned().collect();
    for name in ours {
        response.headers_mut().remove(name);
    }
    let wait = forward::wait(ask, exec)?;
    let id = HeaderValue::try_from(ask.id.to_string()).or(Err(Failure::HookFailed))?;
    forward::respond(ask, exec, response, lease, wait, id)
}

/// What a script changes. Its path is set at once, its fields when the client's have been cleaned, so
/// that no client can have them removed.
fn read_edits<B>(answer: &HeaderMap, request: &mut Request<B>) -> Option<Vec<Edit>> {
    let mut edits = Vec::new();
    for list in answer.get_all(&X_GANTRY_REMOVE) {
        for name in list.as_bytes().split(|octet| *octet == b',').map(<[u8]>::trim_ascii) {
            let name = HeaderName::from_bytes(name).ok().filter(may_be_set)?;
            edits.push(Edit::Remove(name));
        }
    }
    for name in answer.keys() {
        let Some(name) = name.as_str().strip_prefix(SET) else { continue };
        let name = HeaderName::from_bytes(name.as_bytes()).ok().filter(may_be_set)?;
        for (at, value) in answer.get_all(format!("{SET}{name}")).iter().enumerate() {
            let (name, value) = (name.clone(), value.clone());
            edits.push(if at == 0 { Edit::Set(name, value) } else { Edit::Add(name, value) });
        }
    }
    if edits.len() > EDITS_MAX {
        return None;
    }
    if let Some(path) = answer.get(&X_GANTRY_PATH) {
        let path = PathAndQuery::try_from(path.as_bytes()).ok();
        let path = path.filter(|path| path.as_str().starts_with('/'))?;
        *request.uri_mut() = Uri::from(path);
    }
    Some(edits)
}

/// Changes the fields of a request that goes on.
pub(crate) fn apply(edits: &[Edit], headers: &mut HeaderMap) {
    for edit in edits {
        match edit {
            Edit::Remove(name) => drop(headers.remove(name)),
            Edit::Set(name, value) => drop(headers.insert(name, value.clone())),
            Edit::Add(name, value) => drop(headers.append(name, value.clone())),
        }
    }
}
