//! How the edge treats a container's requests beside who may make them, and the hostnames of
//! customers that lead to it.

use axum::extract::State;
use gantry_model::id::kind;

use super::Segments;
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

const TAG: &str = "Edge";

static SETTINGS: [Field; 6] = [
    Field::new(
        "wake",
        Holds::Text { min: 3, max: 8 },
        "Whether a request wakes it: never, navigate, any or authed",
    ),
    Field::new(
        "idle_pause_after",
        Holds::Count,
        "It is paused after so many seconds without traffic, at least 60; never when null",
    )
    .nullable(),
    Field::new(
        "verify_upstream",
        Holds::Flag,
        "Whether the certificates of its https ports must be valid",
    ),
    Field::new(
        "proxy_protocol_ports",
        Holds::Mixed,
        "an array of at most 16 ports that want the PROXY protocol",
    ),
    Field::new(
        "concurrency_max",
        Holds::Count,
        "Concurrent requests, at least 1; the edge's own bound when null",
    )
    .nullable(),
    Field::new(
        "log_bodies",
        Holds::Flag,
        "Whether the log of its requests has their fields and the beginnings of their bodies",
    ),
];

static BIND: [Field; 2] = [
    Field::new("hostname", Holds::Text { min: 3, max: 253 }, "The hostname").required(),
    Field::new("alias_id", Holds::Id, "The alias of the container that it is bound to").required(),
];

pub(crate) fn surface(surface: Surface) -> Surface {
    let settings = &["/api/v1/containers/{id}/proxy/edge"];
    let hostnames = &["/api/v1/containers/{id}/proxy/hostnames"];
    surface
        .serve(
            &[Method::Get],
            settings,
            show,
            &Operation::new("getEdgeSettings", TAG, "Shows how the edge treats a container")
                .answers::<wire::EdgeSettings>(200),
        )
        .serve(
            &[Method::Patch],
            settings,
            update,
            &Operation::new("updateEdgeSettings", TAG, "Changes the given settings")
                .takes(&SETTINGS)
                .answers::<wire::EdgeSettings>(200),
        )
        .serve(
            &[Method::Get],
            hostnames,
            list,
            &Operation::new("listHostnames", TAG, "Lists the hostnames that lead to a container")
                .answers::<wire::Hostnames>(200),
        )
        .serve(
            &[Method::Post],
            hostnames,
            bind,
            &Operation::new(
                "bindHostname",
                TAG,
                "Binds a hostname to an alias once its DNS records lead there, or checks it again",
            )
            .takes(&BIND)
            .answers::<wire::Hostname>(201),
        )
        .serve(
            &[Method::Delete],
            &["/api/v1/containers/{id}/proxy/hostnames/{hostname}"],
            unbind,
            &Operation::new("unbindHostname", TAG, "Unbinds a hostname"),
        )
}

async fn show(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Container>,
) -> Result<Answer<wire::EdgeSettings>, Problem> {
    let settings = front.control.edge_settings(&actor, id).await?;
    Ok(Answer::ok("Edge settings retrieved successfully", wire::EdgeSettings::new(&settings)))
}

async fn update(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Container>,
    body: JsonObject,
) -> Result<Answer<wire::EdgeSettings>, Problem> {
    let settings = front.control.update_edge_settings(&actor, id, &body.whole()).await?;
    front.control.propagation().await;
    Ok(Answer::ok("Edge settings updated successfully", wire::EdgeSettings::new(&settings)))
}

async fn list(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Container>,
) -> Result<Answer<wire::Hostnames>, Problem> {
    let views = front.control.hostnames(&actor, id).await?;
    let hostnames = views.iter().map(wire::Hostname::new).collect();
    Ok(Answer::ok("Hostnames retrieved successfully", wire::Hostnames::new(hostnames)))
}

async fn bind(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Container>,
    body: JsonObject,
) -> Result<Answer<wire::Hostname>, Problem> {
    let mut fields = body.fields(&BIND);
    let hostname = fields.text("hostname").value();
    let alias = fields.id("alias_id").value();
    let (hostname, alias) = fields.finish(hostname.zip(alias))?;
    let view = front.control.bind_hostname(&actor, id, &hostname, alias).await?;
    front.control.propagation().await;
    Ok(Answer::created("Hostname bound successfully", wire::Hostname::new(&view)))
}

async fn unbind(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Container>,
    segments: Segments,
) -> Result<Answer<()>, Problem> {
    front.control.unbind_hostname(&actor, id, segments.get("hostname")).await?;
    front.control.propagation().await;
    Ok(Answer::ok("Hostname unbound successfully", ()))
}
