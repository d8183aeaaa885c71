//! The six operations on a container that exists.

use std::time::Duration;

use axum::{
    extract::{OriginalUri, State},
    response::{IntoResponse as _, Response},
};
use gantry_control::{Operated, Operation as Asked};
use gantry_model::{ContainerId, FieldError, Phase, id::kind};
use http::Uri;

use crate::{
    Front,
    answer::Answer,
    body::JsonObject,
    caller::{Caller, PathId},
    fields::Field,
    problem::{Kind, Problem},
    query::{self, Param, Query},
    surface::{Method, Operation, Surface},
    wire,
};

static NO_FIELDS: [Field; 0] = [];
static PARAMS: [Param; 2] = [query::WAIT, query::TIMEOUT];

/// How long `?wait=` waits unless `timeout` says otherwise.
pub(crate) const WAIT_DEFAULT: Duration = Duration::from_secs(30);

pub(crate) fn surface(surface: Surface) -> Surface {
    Asked::ALL.into_iter().fold(surface, |surface, asked| {
        let (id, path, summary) = describe(asked);
        let handler =
            move |front: State<Front>,
                  caller: Caller,
                  id: PathId<kind::Container>,
                  uri: OriginalUri,
                  body: JsonObject| operate(asked, front, caller, id, uri, body);
        surface.serve(
            &[Method::Post],
            &[path],
            handler,
            &Operation::new(id, "Containers", summary)
                .params(&PARAMS)
                .takes(&NO_FIELDS)
                .answers::<wire::Operated>(200),
        )
    })
}

const fn describe(asked: Asked) -> (&'static str, &'static str, &'static str) {
    match asked {
        Asked::Start => {
            ("startContainer", "/api/v1/containers/{id}/start", "Starts a stopped container")
        }
        Asked::Stop => (
            "stopContainer",
            "/api/v1/containers/{id}/stop",
            "Asks a container to end, and ends it when its time is over",
        ),
        Asked::ForceStop => {
            ("forceStopContainer", "/api/v1/containers/{id}/force-stop", "Ends a container at once")
        }
        Asked::Restart => (
            "restartContainer",
            "/api/v1/containers/{id}/restart",
            "Stops a container and starts it again",
        ),
        Asked::Pause => {
            ("pauseContainer", "/api/v1/containers/{id}/pause", "Freezes a running container")
        }
        Asked::Resume => {
            ("resumeContainer", "/api/v1/containers/{id}/resume", "Thaws a paused container")
        }
    }
}

async fn operate(
    asked: Asked,
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Container>,
    OriginalUri(uri): OriginalUri,
    body: JsonObject,
) -> Result<Response, Problem> {
    body.expect_none()?;
    let timeout = timeout(asked, &uri)?.unwrap_or(front.config.settle_timeout);
    let id: ContainerId = id;
    let operated = front.control.operate(&actor, id, asked, Some(timeout)).await?;
    answer(&operated)
}

/// How long the client wants to wait, if it says so. The state that it names must be the one that
/// the operation leads to: waiting for another would end with the timeout, always.
fn timeout(asked: Asked, uri: &Uri) -> Result<Option<Duration>, Problem> {
    let mut query = Query::new(uri, &PARAMS);
    let leads_to = match asked {
        Asked::Start | Asked::Restart | Asked::Resume => "running",
        Asked::Stop | Asked::ForceStop => "stopped",
        Asked::Pause => "paused",
    };
    let words = ["running", "stopped", "paused", "deleted"].map(|word| (word, word));
    let wait = query.word("wait", &words);
    if wait.is_some_and(|word| word != leads_to) {
        let rule = format!("must be {leads_to}: that is what {asked} leads to");
        query.refuse(FieldError::new("wait", rule));
    }
    let seconds = query.count("timeout");
    query.finish()?;
    Ok(match (wait, seconds) {
        (None, None) => None,
        (Some(_), None) => Some(WAIT_DEFAULT),
        (_, Some(seconds)) => Some(Duration::from_secs(seconds.into())),
    })
}

fn answer(operated: &Operated) -> Result<Response, Problem> {
    let status = &operated.container.record.status;
    if !operated.done && status.phase == Phase::Failed {
        let why = status.why.as_deref().unwrap_or("no reason is known");
        let message = format!("The container failed to {}: {why}", operated.operation);
        let data = wire::Operated::new(operated, &message);
        let problem = Problem::new(Kind::OperationFailed, message);
        return Err(match serde_json::to_value(data) {
            Ok(data) => problem.with_data(data),
            Err(error) => problem.caused_by(error),
        });
    }
    let message = match (operated.done, operated.operation) {
        (true, Asked::Start) => "Container started successfully",
        (true, Asked::Stop) => "Container stopped successfully",
        (true, Asked::ForceStop) => "Container force-stopped successfully",
        (true, Asked::Restart) => "Container restarted successfully",
        (true, Asked::Pause) => "Container paused successfully",
        (true, Asked::Resume) => "Container resumed successfully",
        (false, _) => "The operation is under way; ask for the container to see it end",
    };
    Ok(Answer::ok(message, wire::Operated::new(operated, message)).into_response())
}
