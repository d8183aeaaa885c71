//! The hooks of a container, which share the version of its permission document.

use axum::extract::State;
use gantry_control::{AccessChange, Error, Scope, Thing};
use gantry_model::{FieldError, HookId, access::Program, hook, id::kind};
use serde_json::Value;

use super::{Segments, Write, Written};
use crate::{
    Front,
    answer::Answer,
    body::JsonObject,
    caller::{Caller, PathId},
    fields::{Field, Holds},
    problem::{Kind, Problem},
    surface::{Method, Operation, Surface, UPDATE},
    wire,
};

const TAG: &str = "Proxy hooks";

const MATCH: Field =
    Field::new("match", Holds::Object, "Which requests: method, path and headers").required();
const SCRIPT: Field =
    Field::new("script", Holds::Object, "Where they go: path, subdomain and execId").required();
const TIMEOUT: Field =
    Field::new("timeout", Holds::Count, "The milliseconds that the script has, 1 to 30000; 500");
const APPLIES: Field =
    Field::new("applies_to", Holds::Object, "Only requests of these groups: {\"groups\": [..]}");
const POSITION: Field =
    Field::new("position", Holds::Count, "Its place in the service's list; the last when absent");

static CREATE: [Field; 5] = [MATCH, SCRIPT, TIMEOUT, APPLIES, POSITION];
static REPLACE: [Field; 4] = [MATCH, SCRIPT, TIMEOUT, APPLIES];
static MOVE: [Field; 1] = [POSITION.required()];

pub(crate) fn surface(surface: Surface) -> Surface {
    let of_service = &["/api/v1/containers/{id}/proxy/hooks/{service}"];
    let one = &["/api/v1/containers/{id}/proxy/hooks/{service}/{hook}"];
    let get = &[Method::Get];
    surface
        .serve(
            get,
            &["/api/v1/containers/{id}/proxy/hooks"],
            list,
            &Operation::new("listHooks", TAG, "Lists the hooks of a container")
                .answers::<wire::AllHooks>(200),
        )
        .serve(
            get,
            of_service,
            list_of_service,
            &Operation::new("listServiceHooks", TAG, "Lists the hooks of a service")
                .answers::<wire::ServiceHooks>(200),
        )
        .serve(
            &[Method::Post],
            of_service,
            create,
            &Operation::new("createHook", TAG, "Adds a hook")
                .takes(&CREATE)
                .versioned()
                .answers::<wire::OneHook>(201),
        )
        .serve(
            &[Method::Delete],
            of_service,
            remove_all,
            &Operation::new("deleteServiceHooks", TAG, "Removes the hooks of a service")
                .versioned()
                .answers::<wire::RemovedHooks>(200),
        )
        .serve(
            get,
            one,
            show,
            &Operation::new("getHook", TAG, "Shows a hook").answers::<wire::OneHook>(200),
        )
        .serve(
            &UPDATE,
            one,
            replace,
            &Operation::new("replaceHook", TAG, "Says something else in a hook's place")
                .takes(&REPLACE)
                .versioned()
                .answers::<wire::OneHook>(200),
        )
        .serve(
            &[Method::Patch],
            &["/api/v1/containers/{id}/proxy/hooks/{service}/{hook}/position"],
            reposition,
            &Operation::new("moveHook", TAG, "Gives a hook another place")
                .takes(&MOVE)
                .versioned()
                .answers::<wire::OneHook>(200),
        )
        .serve(
            &[Method::Delete],
            one,
            remove,
            &Operation::new("deleteHook", TAG, "Removes a hook")
                .versioned()
                .answers::<wire::RemovedHooks>(200),
        )
}

/// The service of the path, if it can have hooks.
fn service(segments: &Segments) -> Result<Program, Problem> {
    let service = segments.read("service", Program::parse)?;
    if hook::is_reject_listed(service) {
        let message = format!("{service} cannot have hooks");
        return Err(Problem::new(Kind::ResourceNotFound, message));
    }
    Ok(service)
}

fn hook_id(segments: &Segments) -> Result<HookId, Problem> {
    segments.get("hook").parse().map_err(|error: gantry_model::InvalidId| {
        Problem::fields(Kind::InvalidId, &[FieldError::new("hook", error.to_string())])
    })
}

async fn list(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Container>,
) -> Result<Answer<wire::AllHooks>, Problem> {
    let view = front.control.access(&actor, Scope::Container(id)).await?;
    Ok(Answer::ok("Proxy hooks retrieved successfully", wire::AllHooks::new(&view)))
}

async fn list_of_service(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Container>,
    segments: Segments,
) -> Result<Answer<wire::ServiceHooks>, Problem> {
    let service = service(&segments)?;
    let view = front.control.access(&actor, Scope::Container(id)).await?;
    Ok(Answer::ok("Proxy hooks retrieved successfully", wire::ServiceHooks::new(&view, service)))
}

async fn show(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Container>,
    segments: Segments,
) -> Result<Answer<wire::OneHook>, Problem> {
    let (service, hook) = (service(&segments)?, hook_id(&segments)?);
    let view = front.control.access(&actor, Scope::Container(id)).await?;
    let hook = wire::OneHook::new(&view, service, hook).ok_or(Error::NotFound(Thing::Hook))?;
    Ok(Answer::ok("Proxy hook retrieved successfully", hook))
}

/// Makes a change that is about one hook, and shows it.
async fn change(
    write: &Write<kind::Container>,
    service: Program,
    change: AccessChange,
) -> Result<wire::OneHook, Problem> {
    let written = write.change(Scope::Container(write.id), change).await?;
    let Written { view, hook, propagation } = written;
    let shown = hook.and_then(|hook| wire::OneHook::new(&view, service, hook));
    Ok(shown.ok_or(Error::NotFound(Thing::Hook))?.propagated(propagation))
}

async fn create(
    write: Write<kind::Container>,
    body: JsonObject,
) -> Result<Answer<wire::OneHook>, Problem> {
    let mut fields = body.fields(&CREATE);
    let position = fields.count("position").value();
    let hook = Value::Object(fields.known());
    fields.finish(Some(()))?;
    let service = service(&write.segments)?;
    let position = position.and_then(|position| usize::try_from(position).ok());
    let add = AccessChange::AddHook(service, hook, position);
    let hook = change(&write, service, add).await?;
    Ok(Answer::created("Proxy hook created successfully", hook))
}

async fn replace(
    write: Write<kind::Container>,
    body: JsonObject,
) -> Result<Answer<wire::OneHook>, Problem> {
    let mut fields = body.fields(&REPLACE);
    let hook = Value::Object(fields.known());
    fields.finish(Some(()))?;
    let service = service(&write.segments)?;
    let set = AccessChange::SetHook(service, hook_id(&write.segments)?, hook);
    let hook = change(&write, service, set).await?;
    Ok(Answer::ok("Proxy hook updated successfully", hook))
}

async fn reposition(
    write: Write<kind::Container>,
    body: JsonObject,
) -> Result<Answer<wire::OneHook>, Problem> {
    let mut fields = body.fields(&MOVE);
    let position = fields.count("position").value();
    let position = fields.finish(position)?;
    let service = service(&write.segments)?;
    let position = usize::try_from(position).unwrap_or(usize::MAX);
    let moved = AccessChange::MoveHook(service, hook_id(&write.segments)?, position);
    let hook = change(&write, service, moved).await?;
    Ok(Answer::ok("Proxy hook moved successfully", hook))
}

async fn remove(write: Write<kind::Container>) -> Result<Answer<wire::RemovedHooks>, Problem> {
    let remove = AccessChange::RemoveHook(service(&write.segments)?, hook_id(&write.segments)?);
    removed(&write, remove, None).await
}

async fn remove_all(write: Write<kind::Container>) -> Result<Answer<wire::RemovedHooks>, Problem> {
    let service = service(&write.segments)?;
    let scope = Scope::Container(write.id);
    // The write names the version that was read here, or is refused: nobody comes in between.
    let before = write.front.control.access(&write.actor, scope).await?;
    let count = before.access.hooks.iter().filter(|record| record.hook.service == service).count();
    removed(&write, AccessChange::RemoveHooks(service), Some(count)).await
}

async fn removed(
    write: &Write<kind::Container>,
    change: AccessChange,
    count: Option<usize>,
) -> Result<Answer<wire::RemovedHooks>, Problem> {
    let Written { view, propagation, .. } =
        write.change(Scope::Container(write.id), change).await?;
    let removed = wire::RemovedHooks::new(&view, count, propagation);
    Ok(Answer::ok("Proxy hooks removed successfully", removed))
}
