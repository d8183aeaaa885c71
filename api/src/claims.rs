//! Claims about containers: what their holder shows to others, who check it without asking here.

use axum::extract::State;
use gantry_model::id::kind;

use crate::{
    Front,
    answer::Answer,
    body::JsonObject,
    caller::{Caller, PathId},
    problem::Problem,
    surface::{Method, Operation, Surface},
    wire,
};

pub(crate) fn surface(surface: Surface) -> Surface {
    surface.serve(
        &[Method::Post],
        &["/api/v1/containers/{id}/authorize"],
        authorize,
        &Operation::new(
            "authorizeContainer",
            "Containers",
            "Makes a signed claim, good for six hours, that the caller may use the container",
        )
        .takes(&[])
        .answers::<wire::ContainerClaim>(200),
    )
}

async fn authorize(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Container>,
    body: JsonObject,
) -> Result<Answer<wire::ContainerClaim>, Problem> {
    body.expect_none()?;
    let claim = front.control.claim_container(&actor, id).await?;
    Ok(Answer::ok("Container claim issued successfully", wire::ContainerClaim::new(claim)))
}
