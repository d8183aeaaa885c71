//! The environment variables of a container.

use std::collections::BTreeMap;

use axum::extract::State;
use gantry_control::EnvironmentView;
use gantry_model::{FieldError, container::KeyFault, id::kind};
use serde_json::Value;

use crate::{
    Front,
    answer::Answer,
    body::JsonObject,
    caller::{Caller, PathId},
    fields::{Field, Holds},
    problem::{Kind, Problem},
    proxy::Segments,
    surface::{Method, Operation, Surface, UPDATE},
    wire,
};

const TAG: &str = "Environment";

static VALUE: [Field; 1] =
    [Field::new("value", Holds::Text { min: 1, max: 4096 }, "Its value, 1 to 4096 octets")
        .required()];

pub(crate) fn surface(surface: Surface) -> Surface {
    let all = &["/api/v1/containers/{id}/env"];
    let one = &["/api/v1/containers/{id}/env/{key}"];
    surface
        .serve(
            &[Method::Get],
            all,
            list,
            &Operation::new("listVariables", TAG, "Lists the variables of a container")
                .answers::<wire::Variables>(200),
        )
        .serve(
            &UPDATE,
            all,
            set_all,
            &Operation::new(
                "setVariables",
                TAG,
                "Sets variables of a container, running or not; those that are not named stay",
            )
            .takes_map()
            .answers::<wire::Variables>(200),
        )
        .serve(
            &UPDATE,
            one,
            set,
            &Operation::new("setVariable", TAG, "Sets a variable of a container, running or not")
                .takes(&VALUE)
                .answers::<wire::Variables>(200),
        )
        .serve(
            &[Method::Delete],
            one,
            delete,
            &Operation::new("deleteVariable", TAG, "Removes a variable, if it is there")
                .answers::<wire::Variables>(200),
        )
}

async fn list(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Container>,
) -> Result<Answer<wire::Variables>, Problem> {
    let container = front.control.environment(&actor, id).await?;
    let variables = wire::Variables::read(&container);
    Ok(Answer::ok("Environment variables retrieved successfully", variables))
}

async fn set_all(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Container>,
    body: JsonObject,
) -> Result<Answer<wire::Variables>, Problem> {
    let mut vars = BTreeMap::new();
    let mut wrong = Vec::new();
    for (key, value) in body.into_map() {
        match value {
            Value::String(text) => drop(vars.insert(key, text)),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_) => wrong.push(FieldError::new(key, "must be a string")),
        }
    }
    if !wrong.is_empty() {
        return Err(Problem::fields(Kind::Invalid, &wrong));
    }
    let kind = refusal(vars.keys());
    let set = front.control.set_variables(&actor, id, vars).await;
    Ok(written(&set.map_err(|error| Problem::from(error).instead_of_invalid(kind))?))
}

async fn set(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Container>,
    segments: Segments,
    body: JsonObject,
) -> Result<Answer<wire::Variables>, Problem> {
    let key = segments.get("key").to_owned();
    let kind = refusal([&key]);
    let mut fields = body.fields(&VALUE);
    let value = fields.text("value").value();
    let value = fields.finish(value)?;
    let set = front.control.set_variables(&actor, id, BTreeMap::from([(key, value)])).await;
    Ok(written(&set.map_err(|error| Problem::from(error).instead_of_invalid(kind))?))
}

async fn delete(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Container>,
    segments: Segments,
) -> Result<Answer<wire::Variables>, Problem> {
    let key = segments.get("key").to_owned();
    let kind = refusal([&key]);
    let set = front.control.remove_variable(&actor, id, &key).await;
    Ok(written(&set.map_err(|error| Problem::from(error).instead_of_invalid(kind))?))
}

/// What a refusal of these names is called.
fn refusal(keys: impl IntoIterator<Item = impl AsRef<str>>) -> Kind {
    let mut kind = Kind::Invalid;
    for key in keys {
        match KeyFault::of(key.as_ref()) {
            Some(KeyFault::Form) => return Kind::InvalidEnvKey,
            Some(KeyFault::Reserved) => kind = Kind::ReservedEnvPrefix,
            None => {}
        }
    }
    kind
}

fn written(view: &EnvironmentView) -> Answer<wire::Variables> {
    Answer::ok("Environment variables updated successfully", wire::Variables::written(view))
}
