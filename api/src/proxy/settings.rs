//! The switches of a container's permission document, and what it says about groups and services,
//! without credentials.

use axum::extract::State;
use gantry_control::{AccessChange, Scope};
use gantry_model::{FieldError, access::Program, id::kind};

use super::{Segments, Write, Written, access};
use crate::{
    Front,
    answer::Answer,
    body::JsonObject,
    caller::{Caller, PathId},
    fields::Field,
    problem::{Kind, Problem},
    surface::{Method, Operation, Surface, UPDATE},
    wire,
};

const TAG: &str = "Proxy permissions";

static SETTINGS: [Field; 2] = [access::DEFAULT, access::ENABLE];

pub(crate) fn surface(surface: Surface) -> Surface {
    let settings = &["/api/v1/containers/{id}/proxy/settings"];
    let get = &[Method::Get];
    surface
        .serve(
            get,
            settings,
            show,
            &Operation::new(
                "getProxySettings",
                TAG,
                "Shows the switches of a container's document",
            )
            .answers::<wire::ProxySettings>(200),
        )
        .serve(
            &UPDATE,
            settings,
            update,
            &Operation::new("updateProxySettings", TAG, "Sets the switches of the document")
                .takes(&SETTINGS)
                .versioned()
                .answers::<wire::ProxySettings>(200),
        )
        .serve(
            get,
            &["/api/v1/containers/{id}/proxy/groups"],
            groups,
            &Operation::new("listProxyGroups", TAG, "Lists the groups of a container's document")
                .answers::<wire::ProxyGroups>(200),
        )
        .serve(
            get,
            &["/api/v1/containers/{id}/proxy/services"],
            services,
            &Operation::new(
                "listProxyServices",
                TAG,
                "Lists the services that the document or a hook names",
            )
            .answers::<wire::ProxyServices>(200),
        )
        .serve(
            get,
            &["/api/v1/containers/{id}/proxy/services/{service}"],
            service,
            &Operation::new("getProxyService", TAG, "Shows what is said about one service")
                .answers::<wire::ProxyService>(200),
        )
}

async fn show(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Container>,
) -> Result<Answer<wire::ProxySettings>, Problem> {
    let view = front.control.access(&actor, Scope::Container(id)).await?;
    Ok(Answer::ok("Proxy settings retrieved successfully", wire::ProxySettings::new(&view)))
}

async fn update(
    write: Write<kind::Container>,
    body: JsonObject,
) -> Result<Answer<wire::ProxySettings>, Problem> {
    let mut fields = body.fields(&SETTINGS);
    let default = access::fallback(&mut fields);
    let enable_proxy = fields.flag("enable_proxy").value();
    fields.finish(Some(()))?;
    if default.is_none() && enable_proxy.is_none() {
        let error = FieldError::new("default", "or enable_proxy is required");
        return Err(Problem::fields(Kind::Invalid, &[error]));
    }
    let change = AccessChange::Settings { default, enable_proxy };
    let Written { view, propagation, .. } =
        write.change(Scope::Container(write.id), change).await?;
    let settings = wire::ProxySettings::new(&view).propagated(propagation);
    Ok(Answer::ok("Proxy settings updated successfully", settings))
}

async fn groups(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Container>,
) -> Result<Answer<wire::ProxyGroups>, Problem> {
    let view = front.control.access(&actor, Scope::Container(id)).await?;
    Ok(Answer::ok("Proxy groups retrieved successfully", wire::ProxyGroups::new(&view)))
}

async fn services(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Container>,
) -> Result<Answer<wire::ProxyServices>, Problem> {
    let view = front.control.access(&actor, Scope::Container(id)).await?;
    Ok(Answer::ok("Proxy services retrieved successfully", wire::ProxyServices::new(&view)))
}

async fn service(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Container>,
    segments: Segments,
) -> Result<Answer<wire::ProxyService>, Problem> {
    let service = segments.read("service", Program::parse)?;
    let view = front.control.access(&actor, Scope::Container(id)).await?;
    Ok(Answer::ok("Proxy service retrieved successfully", wire::ProxyService::new(&view, service)))
}
