//! The service `logs`: a page, lists, numbers and a stream, answered by the edge itself for whoever
//! the container's gate lets in.

use std::{collections::HashMap, net::IpAddr, rc::Rc, sync::Arc};

use bytes::Bytes;
use gantry_model::{FieldError, Service, access::Program};
use gantry_router::Route;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use serde_json::{Map, Value, json};

use super::{
    Log, Logs,
    entry::{Entry, Level},
    page,
    query::{Follow, List, Part, select},
    tail::LogBody,
};
use crate::{
    account::Account,
    answer::{Code, Failure, X_GANTRY_ERROR, X_REQUEST_ID},
    body::{ClientBody, EdgeBody},
    downstream::Protocol,
    limits::{Refused, source},
    metrics::RouteKind,
    pipeline::Ask,
    watch::Origin,
};

/// Addresses whose reads are counted for one container.
const ADDRESSES_MAX: usize = 1_024;

/// In milliseconds: within this an address that has rested may read as often as the limit says.
const MINUTE_MS: i64 = 60_000;

/// Who has read a log lately.
#[derive(Debug, Default)]
pub(super) struct Reads(HashMap<IpAddr, i64>);

impl Reads {
    /// One more read from an address that may read so often in a minute, all at once or not; seconds to
    /// wait if it comes too early.
    fn take(&mut self, address: IpAddr, per_minute: u32, now_ms: i64) -> Result<(), i64> {
        let interval_ms = MINUTE_MS / i64::from(per_minute.max(1));
        let late = Err(interval_ms.saturating_add(999) / 1000);
        if self.0.len() >= ADDRESSES_MAX && !self.0.contains_key(&address) {
            self.0.retain(|_, rested_ms| *rested_ms > now_ms);
            if self.0.len() >= ADDRESSES_MAX {
                return late;
            }
        }
        let rested_ms = self.0.entry(address).or_insert(now_ms);
        let after_ms = (*rested_ms).max(now_ms).saturating_add(interval_ms);
        if after_ms.saturating_sub(now_ms) > interval_ms * i64::from(per_minute) {
            return late;
        }
        *rested_ms = after_ms;
        Ok(())
    }
}

/// Answers a request to the service `logs` of a container.
pub(crate) fn serve(
    ask: &Ask<'_>,
    route: &Route,
    request: &Request<Option<ClientBody>>,
    account: &mut Account,
) -> Result<Response<EdgeBody>, Failure> {
    account.kind_is(RouteKind::Kit);
    let worker = ask.worker;
    let (logs, now_ms) = (&worker.deps().logs, worker.now_ms());
    let Some(log) = logs.of(route.project, route.container, Some(route), now_ms) else {
        return Err(Failure::ServiceNotProvided(Service::Logs));
    };
    let path = request.uri().path();
    if !matches!(path, "/" | "/_logs" | "/_logs/stats" | "/_logs/stream") {
        return Err(Failure::NotFound);
    }
    if ask.handshake.is_some() {
        return Err(Failure::MethodNotSupported);
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(Failure::MethodNotAllowed);
    }
    // An open log shows what anybody may know; fields and bodies are for those who were let in.
    let gate = worker.deps().routes.current().gate(route.container).filter(|_| route.gated);
    let policy = gate.as_ref().and_then(|gate| gate.policy.as_ref());
    let hidden = !policy.is_some_and(|policy| policy.denies_by_default(Program::LOGS));
    let mut response = if path == "/" {
        page()
    } else if let Err(wait_s) =
        log.reads().take(source(ask.downstream.peer.ip()), logs.0.reads_per_minute, now_ms)
    {
        worker.metrics().refused(Refused::LogReads);
        account.failed(Code::TooManyRequests, 429);
        too_many("rate_limited", wait_s)
    } else {
        let query = request.uri().query().unwrap_or_default();
        match path {
            "/_logs" => List::parse(query).map(|mut list| {
                list.filter.bodies.hidden = hidden;
                listed(logs, &log, &list)
            }),
            "/_logs/stats" => Ok(stats(&log)),
            _ => follow(ask, (route, &log), request, account, hidden),
        }
        .unwrap_or_else(|errors| {
            account.failed(Code::BadRequest, 400);
            invalid(&errors)
        })
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(id) = HeaderValue::try_from(ask.id.to_string()) {
        headers.insert(&X_REQUEST_ID, id);
    }
    Ok(response)
}

fn page() -> Response<EdgeBody> {
    let mut response = Response::new(EdgeBody::full(Bytes::from_static(page::HTML.as_bytes())));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    if let Ok(policy) = HeaderValue::from_str(&page::POLICY) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}

fn json(status: StatusCode, value: &Value) -> Response<EdgeBody> {
    let mut response = Response::new(EdgeBody::full(value.to_string().into()));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn too_many(error: &str, retry_after_s: i64) -> Response<EdgeBody> {
    let mut response = json(StatusCode::TOO_MANY_REQUESTS, &json!({ "error": error }));
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_after_s));
    let code = HeaderValue::from_static(Code::TooManyRequests.as_str());
    headers.insert(&X_GANTRY_ERROR, code);
    response
}

fn invalid(errors: &[FieldError]) -> Response<EdgeBody> {
    let told = |error: &FieldError| json!({"field": error.field, "message": error.rule});
    let message: Vec<_> = errors.iter().map(ToString::to_string).collect();
    let body = json!({
        "statusCode": 400,
        "error": "Bad Request",
        "code": Code::BadRequest.as_str(),
        "message": message.join("; "),
        "data": errors.iter().map(told).collect::<Vec<_>>(),
    });
    let mut response = json(StatusCode::BAD_REQUEST, &body);
    let code = HeaderValue::from_static(Code::BadRequest.as_str());
    response.headers_mut().insert(&X_GANTRY_ERROR, code);
    response
}

fn listed(logs: &Logs, log: &Log, list: &List) -> Response<EdgeBody> {
    let ring = log.ring();
    let (entries, total) = select(ring.from(0), list);
    drop(ring);
    let show = |entry: &Entry| entry.to_json(log, &logs.0.naming, list.filter.bodies);
    let entries: Vec<Value> = entries.iter().map(show).collect();
    let body = match list.part {
        Part::Page { limit, offset } => {
            json!({"entries": entries, "total": total, "limit": limit, "offset": offset})
        }
        Part::Last(_) | Part::After { .. } => entries.into(),
    };
    json(StatusCode::OK, &body)
}

fn stats(log: &Log) -> Response<EdgeBody> {
    let mut by_level: HashMap<&str, u64> =
        Level::ALL.into_iter().map(|level| (level.as_str(), 0)).collect();
    let mut by_service: HashMap<String, u64> = HashMap::new();
    let (mut total, mut services) = (0_u64, Vec::new());
    let ring = log.ring();
    for (_, head, _) in ring.from(0) {
        total += 1;
        *by_level.entry(head.level.as_str()).or_default() += 1;
        services.push(head.served);
    }
    drop(ring);
    for served in services {
        *by_service.entry(served.to_string()).or_default() += 1;
    }
    // What is about the container alone.
    by_service.remove("");
    let of = |name: String| Map::from_iter([(name, Value::from(total))]);
    let body = json!({
        "total": total,
        "byLevel": by_level,
        "byProject": of(log.project.to_string()),
        "byContainer": of(log.container.to_string()),
        "byService": by_service,
    });
    json(StatusCode::OK, &body)
}

fn follow(
    ask: &Ask<'_>,
    (route, log): (&Route, &Arc<Log>),
    request: &Request<Option<ClientBody>>,
    account: &mut Account,
    hidden: bool,
) -> Result<Response<EdgeBody>, Vec<FieldError>> {
    let last_event = last_event(request.headers());
    let mut follow = Follow::parse(request.uri().query().unwrap_or_default(), last_event)?;
    follow.filter.bodies.hidden = hidden;
    let origin = Origin::always(route.project, route.container);
    let guard = ask.worker.watch().wait(Some(origin));
    if let Some(pass) = &ask.pass {
        ask.worker.rests(&guard, Rc::clone(pass));
    }
    let body = if *request.method() == Method::HEAD {
        EdgeBody::EMPTY
    } else if let Some(body) = LogBody::new(ask.worker, log, follow, Rc::new(guard)) {
        if ask.downstream.protocol == Protocol::Http1 {
            ask.downstream.sends(origin, ask.pass.as_ref());
        }
        EdgeBody::log(body)
    } else {
        account.failed(Code::TooManyRequests, 429);
        return Ok(too_many("too_many_streams", 10));
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    Ok(response)
}

/// The number of the last entry that a client of server-sent events has.
fn last_event(headers: &HeaderMap) -> Option<&[u8]> {
    headers.get("last-event-id").map(HeaderValue::as_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_thirty_times_a_minute() {
        let mut reads = Reads::default();
        let (one, two) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        let mut take = |address, now_ms| reads.take(address, 30, now_ms);
        assert!((0..30).all(|_| take(one, 1_000).is_ok()));
        assert_eq!((take(one, 1_000), take(one, 2_999)), (Err(2), Err(2)));
        assert!(take(two, 1_000).is_ok(), "another one is not held up");
        assert!(take(one, 3_000).is_ok() && take(one, 3_000).is_err(), "what Retry-After says");
        assert!((0..30).all(|_| take(one, 63_000).is_ok()), "all of them after a rest");
    }

    #[test]
    fn how_often_an_address_reads_is_the_operators_choice() {
        let address = [192, 0, 2, 1].into();
        for (per_minute, wait_s) in [(1, 60), (7, 9), (6_000, 1)] {
            let mut reads = Reads::default();
            assert!((0..per_minute).all(|_| reads.take(address, per_minute, 0).is_ok()));
            assert_eq!(reads.take(address, per_minute, 0), Err(wait_s), "{per_minute}");
            assert!(reads.take(address, per_minute, wait_s * 1000).is_ok(), "{per_minute}");
        }
    }

    #[test]
    fn addresses_are_counted_in_little_space() {
        let mut reads = Reads::default();
        let address = |number: u32| IpAddr::from(number.to_be_bytes());
        assert!((0..1_024).all(|number| reads.take(address(number), 30, 0).is_ok()));
        assert!(reads.take(address(5_000), 30, 0).is_err());
        assert!(reads.take(address(5), 30, 0).is_ok());
        assert!(reads.take(address(5_000), 30, 2_001).is_ok());
        assert_eq!(reads.0.len(), 2);
    }
}
