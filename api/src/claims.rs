//! Claims about containers and about who somebody is: what their holder shows to others, who check it without asking
//! here.

use axum::extract::State;
use gantry_model::id::kind;

use crate::{
    Front,
    answer::Answer,
    body::JsonObject,
    caller::{Caller, PathId},
    fields::{Field, Holds},
    problem::Problem,
    surface::{Method, Operation, Surface},
    wire,
};

static IDENTITY: [Field; 2] = [
    Field::new(
        "audience",
        Holds::Text { min: 1, max: 256 },
        "For whom the claim is, such as a hostname; nobody else may take it",
    )
    .required(),
    Field::new(
        "expires_in",
        Holds::Count,
        "How long it is good, 60 to 86400 seconds; 3600 when absent",
    ),
];

pub(crate) fn surface(surface: Surface) -> Surface {
    let surface = surface.serve(
        &[Method::Post],
        &["/api/v1/users/auth/identity-claim"],
        identify,
        &Operation::new(
            "claimIdentity",
            "Authentication",
            "Makes a signed claim for one audience that its holder is the caller; only for sessions",
        )
        .takes(&IDENTITY)
        .answers::<wire::IdentityClaim>(200),
    );
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

async fn identify(
    State(front): State<Front>,
    Caller(actor): Caller,
    body: JsonObject,
) -> Result<Answer<wire::IdentityClaim>, Problem> {
    let mut fields = body.fields(&IDENTITY);
    let audience = fields.text("audience").value();
    let seconds = fields.count("expires_in").value();
    let audience = fields.finish(audience)?;
    let claim = front.control.claim_identity(&actor, &audience, seconds.map(i64::from))?;
    Ok(Answer::ok("Identity claim issued successfully", wire::IdentityClaim::new(claim)))
}
