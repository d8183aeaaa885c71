//! Realms.

use axum::extract::{OriginalUri, State};

use crate::{
    Front,
    answer::Answer,
    caller::Caller,
    problem::Problem,
    query::{Holds, Param, Query},
    surface::{Method, Operation, Surface},
    wire,
};

static LIST: [Param; 1] =
    [Param::new("include_usage", Holds::Flag, "Adds how much carries each realm")];

pub(crate) fn surface(surface: Surface) -> Surface {
    surface.serve(
        &[Method::Get],
        &["/api/v1/realms/", "/api/v1/realms"],
        list,
        &Operation::new("listRealms", "Realms", "Lists the realms of what the caller sees")
            .params(&LIST)
            .answers::<wire::Realms>(200),
    )
}

async fn list(
    State(front): State<Front>,
    Caller(actor): Caller,
    OriginalUri(uri): OriginalUri,
) -> Result<Answer<wire::Realms>, Problem> {
    let mut query = Query::new(&uri, &LIST);
    let with_usage = query.flag("include_usage").unwrap_or(false);
    query.finish()?;
    let realms = front.control.realms(&actor).await?;
    Ok(Answer::ok("Realms retrieved successfully", wire::Realms::new(&realms, with_usage)))
}
