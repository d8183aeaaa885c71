//! What happened to the caller's things: as a list, by a cursor, and as it happens.

use std::{convert::Infallible, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::{FromRequestParts, OriginalUri, Request, State},
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, stream};
use gantry_control::{Actor, EventQuery, Span, Via, event_number};
use gantry_model::{EventId, FieldError, UserId, id::kind};
use http::{HeaderValue, Uri, header};

use crate::{
    Front,
    accounts::{day_or_time, time_of},
    answer::Answer,
    body::JsonObject,
    caller::{Caller, Credential, PathId},
    fields::{Field, Holds},
    following::{Following, may_follow},
    live,
    logs::{LOOK, LOOK_AT_PASSWORD, MayRead, watched},
    problem::{Kind, Problem},
    query::{self, Holds as Asks, Param, Query},
    streams::Place,
    surface::{Method, Operation, Surface},
    wire,
};

const TAG: &str = "Events";
/// How many events a list has unless asked otherwise, and at most.
const LIMIT: u32 = 100;
const LIMIT_MAX: u32 = 500;
/// How often a stream without events shows that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

const SORTS: [&str; 2] = ["created_at", "event_type"];
const AFTER: Param = Param::new("after", Asks::Id, "The events after this one, oldest first");

static LIST: [Param; 14] = [
    Param::new("limit", Asks::Count { min: 1, max: LIMIT_MAX }, "The most events; 100"),
    Param::new("offset", Asks::Count { min: 0, max: u32::MAX }, "How many events come before"),
    Param::new("sort_by", Asks::Sort(&SORTS), "What the list is ordered by"),
    query::SORT_ORDER,
    Param::new("event_type", Asks::Text, "Only this kind, such as container.running"),
    Param::new("resource_type", Asks::Text, "Only about this sort of thing, such as container"),
    Param::new("resource_id", Asks::Text, "Only about this thing"),
    Param::new("project_id", Asks::Id, "Only of this project"),
    Param::new("container_id", Asks::Id, "Only of this container"),
    Param::new("start_date", Asks::Text, "Only of this time or later, ISO 8601"),
    Param::new("end_date", Asks::Text, "Only of this time or earlier, ISO 8601"),
    query::REALM,
    AFTER,
    Param::new("bootstrap", Asks::Flag, "No events, but the cursor that newer ones come after"),
];

static REALM: [Param; 1] = [query::REALM];

static STREAM: [Param; 2] = [query::REALM, AFTER];

static DELETE: [Field; 5] = [
    Field::new("event_type", Holds::Text { min: 1, max: 100 }, "Only this kind"),
    Field::new("resource_type", Holds::Text { min: 1, max: 100 }, "Only about this sort of thing"),
    Field::new("resource_id", Holds::Text { min: 1, max: 100 }, "Only about this thing"),
    Field::new("before_date", Holds::Text { min: 1, max: 40 }, "Only of before, ISO 8601"),
    Field::new("realm_id", Holds::Id, "Only of this realm"),
];

/// The same in the query, as the lists have them.
static DELETE_QUERY: [Param; 5] = [
    Param::new("event_type", Asks::Text, "Only this kind"),
    Param::new("resource_type", Asks::Text, "Only about this sort of thing"),
    Param::new("resource_id", Asks::Text, "Only about this thing"),
    Param::new("before_date", Asks::Text, "Only of before, ISO 8601"),
    query::REALM,
];

static CLEANUP: [Field; 1] =
    [Field::new("retention_days", Holds::Count, "Older events go, 1 to 365").required()];

const DELETES: &str = "Removes events, by filters in the body or the query; without any, all. A token \
                       needs containers.delete as well, as for every removal of events";

const FEED: &str = "With `EIO=4` and `transport=websocket` in the query, and an upgrade to WebSocket (or an \
                    extended CONNECT of HTTP/2), the same path is the live feed: Socket.IO, for which \
                    the caller proves itself by `auth: {token}`. Each `message` has a `type`: first \
                    `welcome`, then `event` for each event as it happens; `error` says why nobody was \
                    let in, `revoked` why nothing more is told. `subscribe` with `{type: \"activity\"}` \
                    adds `activity.logged`. There is no other transport.";

pub(crate) fn surface(surface: Surface) -> Surface {
    let get = &[Method::Get];
    let all = &["/api/v1/events", "/api/v1/events/"];
    let one = &["/api/v1/events/{id}"];
    surface
        .serve(
            get,
            all,
            list_or_follow,
            &Operation::new("listEvents", TAG, "Lists what happened to the caller's things")
                .described(FEED)
                .params(&LIST)
                .answers::<wire::Events>(200),
        )
        .serve(
            &[Method::Delete],
            all,
            delete_some,
            &Operation::new("deleteEvents", TAG, DELETES)
                .params(&DELETE_QUERY)
                .takes(&DELETE)
                .answers::<wire::DeletedEvents>(200),
        )
        .serve(
            get,
            &["/api/v1/events/stats"],
            totals,
            &Operation::new("getEventStats", TAG, "Counts events by kind and sort of thing")
                .params(&REALM)
                .answers::<wire::EventTotals>(200),
        )
        .serve(
            &[Method::Post],
            &["/api/v1/events/cleanup"],
            cleanup,
            &Operation::new("cleanUpEvents", TAG, "Removes events that are older than some days")
                .takes(&CLEANUP)
                .answers::<wire::CleanedEvents>(200),
        )
        .serve(
            get,
            &["/api/v1/events/stream"],
            stream_events,
            &Operation::new(
                "streamEvents",
                TAG,
                "Tells events as they happen, as server-sent events; Last-Event-ID resumes",
            )
            .params(&STREAM)
            .answers_events(),
        )
        .serve(
            get,
            one,
            show,
            &Operation::new("getEvent", TAG, "Shows an event").answers::<wire::Event>(200),
        )
        .serve(
            &[Method::Delete],
            one,
            delete,
            &Operation::new("deleteEvent", TAG, "Removes an event"),
        )
}

/// How a list is read.
enum Way {
    /// By offset.
    Part,
    /// What comes after this event.
    After(EventId),
    /// Nothing but where a cursor begins.
    Start,
}

/// What is asked of a list.
struct Asked {
    query: EventQuery,
    by_kind: bool,
    span: Span,
    way: Way,
}

fn asked(uri: &Uri) -> Result<Asked, Problem> {
    let mut query = Query::new(uri, &LIST);
    let limit = query.count("limit").unwrap_or(LIMIT);
    let offset = query.count("offset");
    let by_kind = query.word("sort_by", &[("created_at", false), ("event_type", true)]);
    let order = query.word("sort_order", &[("asc", false), ("desc", true)]);
    let realm = query.id("realm_id");
    let narrowed = EventQuery {
        realm,
        kind: query.text("event_type"),
        resource_type: query.text("resource_type"),
        resource_id: query.text("resource_id"),
        project: query.id("project_id"),
        container: query.id("container_id"),
        from_ms: time_of(&mut query, "start_date"),
        to_ms: time_of(&mut query, "end_date"),
    };
    let after = query.id("after");
    let bootstrap = query.flag("bootstrap").unwrap_or(false);
    let by_cursor = after.is_some() || bootstrap;
    let plain = EventQuery { realm, ..EventQuery::default() };
    if by_cursor && (offset.is_some() || by_kind.is_some() || order.is_some() || narrowed != plain)
    {
        let field = if bootstrap { "bootstrap" } else { "after" };
        let rule = "goes with limit and realm_id only: a cursor has no offset, order or filter";
        query.refuse(FieldError::new(field, rule));
    }
    if after.is_some() && bootstrap {
        query.refuse(FieldError::new("bootstrap", "does not go with after"));
    }
    query.finish()?;
    let span =
        Span { offset: offset.unwrap_or(0).into(), limit, descending: order.unwrap_or(true) };
    Ok(Asked {
        query: narrowed,
        by_kind: by_kind.unwrap_or(false),
        span,
        way: match after {
            Some(after) => Way::After(after),
            None if bootstrap => Way::Start,
            None => Way::Part,
        },
    })
}

/// The official clients ask for the list and for the live feed at the same path.
async fn list_or_follow(State(front): State<Front>, request: Request) -> Result<Response, Problem> {
    let (mut parts, _) = request.into_parts();
    if live::is_asked_for(&parts) {
        return live::open(&front, parts).await;
    }
    let Caller(actor) = Caller::from_request_parts(&mut parts, &front).await?;
    Ok(list(&front, actor, &parts.uri).await?.into_response())
}

async fn list(front: &Front, actor: Actor, uri: &Uri) -> Result<Answer<wire::Events>, Problem> {
    let Asked { query, by_kind, span, way } = asked(uri)?;
    let (control, realm) = (&front.control, query.realm);
    let events = match way {
        Way::Part => {
            let listed = control.events(&actor, query, by_kind, span).await?;
            wire::Events::page(&listed, span)
        }
        Way::Start => {
            let latest = control.newest_event(&actor, realm).await?;
            wire::Events::by_cursor(&[], None, latest, span.limit)
        }
        Way::After(after) => {
            if !control.has_happened(event_number(after)).await? {
                return Err(never_happened("after"));
            }
            // Read first, so that it is never ahead of what the events come to.
            let latest = control.newest_event(&actor, realm).await?;
            let events =
                control.events_after(&actor, realm, event_number(after), span.limit).await?;
            wire::Events::by_cursor(&events, Some(after), latest, span.limit)
        }
    };
    Ok(Answer::ok("Events retrieved successfully", events))
}

/// A reader who comes with it would wait for ever.
fn never_happened(field: &str) -> Problem {
    let rule =
        "must be the id of an event that has happened; bootstrap=true says where a cursor begins";
    Problem::fields(Kind::Invalid, &[FieldError::new(field, rule)])
}

async fn show(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Event>,
) -> Result<Answer<wire::Event>, Problem> {
    let event = front.control.event(&actor, id).await?;
    Ok(Answer::ok("Event retrieved successfully", wire::Event::new(&event)))
}

async fn delete(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Event>,
) -> Result<Answer<()>, Problem> {
    front.control.delete_event(&actor, id).await?;
    Ok(Answer::ok("Event deleted successfully", ()))
}

async fn delete_some(
    State(front): State<Front>,
    Caller(actor): Caller,
    OriginalUri(uri): OriginalUri,
    body: JsonObject,
) -> Result<Answer<wire::DeletedEvents>, Problem> {
    let mut fields = body.fields(&DELETE);
    let mut params = Query::new(&uri, &DELETE_QUERY);
    params.refuse_unknown();
    let mut text = |name: &str| {
        let (given, asked) = (fields.text(name).value(), params.text(name));
        one_of(&mut params, name, given, asked)
    };
    let (kind, before) = (text("event_type"), text("before_date"));
    let (resource_type, resource_id) = (text("resource_type"), text("resource_id"));
    let (given, asked) = (fields.id("realm_id").value(), params.id("realm_id"));
    let realm = one_of(&mut params, "realm_id", given, asked);
    let to_ms = before.map(|text| day_or_time(&text));
    if to_ms == Some(None) {
        let rule = "must be a day or a time with zone in ISO 8601";
        params.refuse(FieldError::new("before_date", rule));
    }
    params.finish()?;
    let query = EventQuery {
        realm,
        kind,
        resource_type,
        resource_id,
        to_ms: to_ms.flatten().map(|at_ms| at_ms.saturating_sub(1)),
        ..EventQuery::default()
    };
    let query = fields.finish(Some(query))?;
    let deleted = front.control.delete_events(&actor, query).await?;
    Ok(Answer::ok("Events deleted successfully", wire::DeletedEvents::new(deleted)))
}

/// What a filter holds that may stand in two places, but in one of them only.
fn one_of<T>(params: &mut Query, name: &str, given: Option<T>, asked: Option<T>) -> Option<T> {
    if given.is_some() && asked.is_some() {
        params.refuse(FieldError::new(name, "is given in the body and in the query"));
    }
    given.or(asked)
}

async fn totals(
    State(front): State<Front>,
    Caller(actor): Caller,
    OriginalUri(uri): OriginalUri,
) -> Result<Answer<wire::EventTotals>, Problem> {
    let mut query = Query::new(&uri, &REALM);
    let realm = query.id("realm_id");
    query.finish()?;
    let totals = front.control.event_totals(&actor, realm).await?;
    Ok(Answer::ok("Event stats retrieved successfully", wire::EventTotals::new(totals)))
}

async fn cleanup(
    State(front): State<Front>,
    Caller(actor): Caller,
    body: JsonObject,
) -> Result<Answer<wire::CleanedEvents>, Problem> {
    let mut fields = body.fields(&CLEANUP);
    let days = fields.count("retention_days").value();
    let days = fields.finish(days)?;
    let (deleted, cutoff_ms) = front.control.clean_events(&actor, days).await?;
    let cleaned = wire::CleanedEvents::new(deleted, days, cutoff_ms);
    Ok(Answer::ok("Events cleaned up successfully", cleaned))
}

/// A stream of events to one reader.
struct Telling {
    following: Following,
    greeted: bool,
    _place: Place<UserId>,
}

async fn stream_events(State(front): State<Front>, request: Request) -> Result<Response, Problem> {
    let (mut parts, _) = request.into_parts();
    let Caller(actor) = Caller::from_request_parts(&mut parts, &front).await?;
    let mut query = Query::new(&parts.uri, &STREAM);
    let realm = query.id("realm_id");
    let mut after: Option<EventId> = query.id("after");
    let mut field = "after";
    if let Some(last) = parts.headers.get("last-event-id") {
        field = "Last-Event-ID";
        match last.to_str().ok().and_then(|text| text.parse().ok()) {
            Some(last) => after = Some(last),
            None => query.refuse(FieldError::new(field, "must be the id of an event")),
        }
    }
    query.finish()?;
    let (user, via_password) = (actor.user, matches!(actor.via, Via::Password));
    let following = Following::begin(&front, actor, realm, after.map(event_number)).await?;
    if !front.control.has_happened(following.seq()).await? {
        return Err(never_happened(field));
    }
    let place = front.event_streams.take(user)?;
    let credential = Credential::of(&parts)?;
    let look = if via_password { LOOK_AT_PASSWORD } else { LOOK };
    let closing = front.config.closing.clone();
    let may_read: MayRead = Box::new(move || {
        let (front, credential) = (front.clone(), credential.clone());
        Box::pin(async move { may_follow(&front, &credential, realm).await.is_ok() })
    });
    let telling = Telling { following, greeted: false, _place: place };
    let events = stream::unfold(telling, tell).boxed();
    let events = watched(events, may_read, look).take_until(closing.cancelled_owned());
    let mut response = Body::from_stream(events.map(Ok::<_, Infallible>)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// The next piece of a stream.
async fn tell(mut telling: Telling) -> Option<(Bytes, Telling)> {
    if !telling.greeted {
        telling.greeted = true;
        return Some((Bytes::from_static(b"retry: 2000\n\n"), telling));
    }
    match tokio::time::timeout(KEEP_ALIVE, telling.following.next()).await {
        Ok(events) => {
            let text: Vec<String> =
                events?.iter().map(|event| wire::Event::new(event).told()).collect();
            Some((Bytes::from(text.concat()), telling))
        }
        Err(_elapsed) => Some((Bytes::from_static(b": still here\n\n"), telling)),
    }
}
