//! The requests to a container, as the edge logs them, for whoever may see its logs – whether its
//! permission document opens them to anybody or not.

use std::{convert::Infallible, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::{FromRequestParts, Request, State},
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, future::BoxFuture, stream::BoxStream};
use gantry_control::Via;
use gantry_model::{ContainerId, FieldError, ProjectId, id::kind};
use http::{HeaderValue, header};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use crate::{
    Front,
    caller::{Caller, Credential, PathId},
    problem::{Kind, Problem},
    query::{Holds, Param},
    surface::{Method, Operation, Surface},
};

/// How often it is looked whether the reader may still read; whether a password is still good, less often,
/// because that is dear to check.
pub(crate) const LOOK: Duration = Duration::from_secs(1);
pub(crate) const LOOK_AT_PASSWORD: Duration = Duration::from_mins(1);

/// What is asked of a log.
#[derive(Clone, Debug)]
pub struct Tail {
    /// The project of the container.
    pub project: ProjectId,
    /// The container.
    pub container: ContainerId,
    /// The query of the request; who has the log reads it.
    pub query: String,
    /// `Last-Event-ID`, as it was sent.
    pub last_event: Option<Vec<u8>>,
}

/// Why a log is not shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoTail {
    /// Requests are not logged here.
    #[error("Requests are not logged on this server")]
    Off,
    /// It has as many readers as it may.
    #[error("The log of this container has as many readers as it may")]
    Busy,
    /// The query makes no sense.
    #[error("The query is not valid")]
    Invalid(Vec<FieldError>),
}

/// A log as it grows: the text of server-sent events, in pieces.
pub type Events = BoxStream<'static, Bytes>;

/// Knows the requests to containers.
pub trait RequestLog: Send + Sync {
    /// Follows the log of a container, until it or the process ends. Who may see it is not looked at.
    fn tail(&self, tail: Tail) -> Result<Events, NoTail>;
}

const KINDS: [&str; 3] = ["request", "response", "event"];
const LEVELS: [&str; 4] = ["debug", "info", "warn", "error"];
const SOURCES: [&str; 2] = ["backend", "edge"];

static TAIL: [Param; 9] = [
    Param::new("last", Holds::Count { min: 0, max: 1_000 }, "How many entries of the past; 100"),
    Param::new("afterId", Holds::Text, "Goes on after this entry, as Last-Event-ID does"),
    Param::new("kind", Holds::Word(&KINDS), "Only entries of this kind"),
    Param::new("level", Holds::Word(&LEVELS), "Only entries of this level"),
    Param::new("source", Holds::Word(&SOURCES), "Only what the container or the edge has answered"),
    Param::new("method", Holds::Text, "Only requests with this method"),
    Param::new("serviceName", Holds::Text, "Only requests to this service, such as http-3000"),
    Param::new("includeRequestBody", Holds::Flag, "With bodies, where they are kept"),
    Param::new("includeResponseBody", Holds::Flag, "With bodies, where they are kept"),
];

pub(crate) fn surface(surface: Surface) -> Surface {
    surface.serve(
        &[Method::Get],
        &["/api/v1/containers/{id}/logs/stream"],
        tail,
        &Operation::new(
            "tailContainerRequests",
            "Containers",
            "Follows the requests to a container, as server-sent events",
        )
        .params(&TAIL)
        .answers_events(),
    )
}

async fn tail(State(front): State<Front>, request: Request) -> Result<Response, Problem> {
    let (mut parts, _) = request.into_parts();
    let Caller(actor) = Caller::from_request_parts(&mut parts, &front).await?;
    let PathId(id) = PathId::<kind::Container>::from_request_parts(&mut parts, &front).await?;
    let project = front.control.logged_project(&actor, id).await?;
    let last_event = parts.headers.get("last-event-id").map(|id| id.as_bytes().to_vec());
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let tail = Tail { project, container: id, query, last_event };
    let mut events = front.logs.tail(tail).map_err(|why| refusal(&why))?;
    let credential = Credential::of(&parts)?;
    let mut look = LOOK;
    if matches!(actor.via, Via::Password) {
        look = LOOK_AT_PASSWORD;
        // Whether the container still exists for that user is not dear to know.
        let (front, actor) = (front.clone(), actor.clone());
        let may_see: MayRead = Box::new(move || {
            let (front, actor) = (front.clone(), actor.clone());
            Box::pin(async move { front.control.logged_project(&actor, id).await.is_ok() })
        });
        events = watched(events, may_see, LOOK).boxed();
    }
    let may_read: MayRead = Box::new(move || {
        let (front, credential) = (front.clone(), credential.clone());
        Box::pin(async move {
            let Ok(actor) = credential.check(&front).await else { return false };
            front.control.logged_project(&actor, id).await.is_ok()
        })
    });
    let events = watched(events, may_read, look).map(Ok::<_, Infallible>);
    let mut response = Body::from_stream(events).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn refusal(why: &NoTail) -> Problem {
    let kind = match why {
        NoTail::Off => Kind::NotImplemented,
        NoTail::Busy => Kind::TooManyAttempts,
        NoTail::Invalid(errors) => return Problem::fields(Kind::Invalid, errors),
    };
    Problem::new(kind, why.to_string())
}

/// Looks whether the reader of a stream may still read.
pub(crate) type MayRead = Box<dyn Fn() -> BoxFuture<'static, bool> + Send>;

/// Events that end when their reader may not read any more.
struct Watched {
    events: Events,
    may_read: MayRead,
    looks: Interval,
}

/// Ends a stream when its reader may not read any more.
pub(crate) fn watched(
    events: Events,
    may_read: MayRead,
    look: Duration,
) -> impl futures_util::Stream<Item = Bytes> + Send {
    let mut looks = interval_at(Instant::now() + look, look);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let watched = Watched { events, may_read, looks };
    futures_util::stream::unfold(watched, |mut watched| async move {
        loop {
            tokio::select! {
                // First, so that nothing is sent after a pause before it was looked.
                biased;
                _ = watched.looks.tick() => {
                    if !(watched.may_read)().await {
                        return None;
                    }
                }
                text = watched.events.next() => return text.map(|text| (text, watched)),
            }
        }
    })
}
