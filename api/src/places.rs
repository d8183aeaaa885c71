//! Servers of this installation.

use axum::extract::State;
use gantry_model::{ServerId, id::kind};

use crate::{
    Front,
    answer::Answer,
    caller::{Caller, PathId},
    problem::Problem,
    surface::{Method, Operation, Surface},
    wire,
};

pub(crate) fn surface(surface: Surface) -> Surface {
    let get = &[Method::Get];
    surface
        .serve(
            get,
            &["/api/v1/servers", "/api/v1/rentals"],
            servers,
            &Operation::new("listServers", "Servers", "Lists the servers of this installation")
                .answers_list::<wire::Rental>(200),
        )
        .serve(
            get,
            &["/api/v1/servers/available"],
            available,
            &Operation::new(
                "listAvailableServers",
                "Servers",
                "Lists servers that take containers",
            )
            .answers_list::<wire::Available>(200),
        )
        .serve(
            get,
            &["/api/v1/servers/{id}", "/api/v1/rentals/{id}"],
            server,
            &Operation::new(
                "getServer",
                "Servers",
                "Shows a server; status is ready or maintenance",
            )
            .answers::<wire::Rental>(200),
        )
}

async fn servers(
    State(front): State<Front>,
    Caller(actor): Caller,
) -> Result<Answer<Vec<wire::Rental>>, Problem> {
    let servers = front.control.servers(&actor).await?;
    let rentals = servers
        .iter()
        .map(|server| {
            let status = if server.ready { "active" } else { "maintenance" };
            wire::Rental::new(server, status, front.config.machine(server.id))
        })
        .collect();
    Ok(Answer::ok("Servers retrieved successfully", rentals))
}

async fn available(
    State(front): State<Front>,
    Caller(actor): Caller,
) -> Result<Answer<Vec<wire::Available>>, Problem> {
    let servers = front.control.servers(&actor).await?;
    let ready = servers
        .iter()
        .filter(|server| server.ready)
        .map(|server| wire::Available::new(server, front.config.machine(server.id)))
        .collect();
    Ok(Answer::ok("Available servers retrieved successfully", ready))
}

async fn server(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Server>,
) -> Result<Answer<wire::Rental>, Problem> {
    let id: ServerId = id;
    let server = front.control.server_view(&actor, id).await?;
    let status = if server.ready { "ready" } else { "maintenance" };
    Ok(Answer::ok(
        "Server retrieved successfully",
        wire::Rental::new(&server, status, front.config.machine(server.id)),
    ))
}
