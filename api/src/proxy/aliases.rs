//! Aliases: chosen names that lead to one service of one container.

use axum::extract::{OriginalUri, State};
use gantry_control::{AliasChange, AliasQuery, ExpiresAt, NewAlias, Patch};
use gantry_model::{AliasId, id::kind};
use serde_json::Value;

use crate::{
    Front,
    answer::Answer,
    body::JsonObject,
    caller::{Caller, PathId},
    fields::{Field, Fields, Given, Holds},
    problem::Problem,
    query::{self, Param, Query},
    surface::{Method, Operation, Surface},
    wire,
};

const TAG: &str = "Proxy aliases";

const ALIAS: Field = Field::new(
    "alias",
    Holds::Mixed,
    "3 to 61 lower-case letters, digits and inner hyphens, as a string; null or false for a random one",
)
.nullable();
const PROGRAM: Field = Field::new(
    "program",
    Holds::Text { min: 1, max: 64 },
    "What it leads to: http, https, ssh or a service of the Kit",
);
const PORT: Field = Field::new("port", Holds::Count, "The port, for http and https");
const INDEX: Field =
    Field::new("index", Holds::Count, "The instance of a Kit service, 1 when absent");
const PATH: Field =
    Field::new("target_path", Holds::Text { min: 0, max: 2048 }, "Where / leads").nullable();
const OVERRIDE: Field =
    Field::new("allow_path_override", Holds::Flag, "Whether other paths exist; yes when absent");
const EXPIRES: Field =
    Field::new("expires_at", Holds::Mixed, "an ISO 8601 time or a Unix time, in the future")
        .nullable();
const ENABLED: Field =
    Field::new("enabled", Holds::Flag, "Whether it leads anywhere; yes when absent");

static CREATE: [Field; 9] = [
    Field::new("container_id", Holds::Id, "The container; it never changes").required(),
    ALIAS,
    PROGRAM.required(),
    PORT,
    INDEX,
    PATH,
    OVERRIDE,
    EXPIRES,
    ENABLED,
];
static CHANGE: [Field; 8] = [
    Field::new("alias", Holds::Text { min: 3, max: 61 }, "Another name"),
    PROGRAM,
    PORT,
    INDEX,
    PATH,
    OVERRIDE,
    EXPIRES,
    ENABLED,
];
static STATE: [Field; 1] = [ENABLED.required()];

static LIST: [Param; 5] = [
    Param::new("project_id", query::Holds::Id, "Only those of this project"),
    Param::new("container_id", query::Holds::Id, "Only those of this container"),
    query::REALM,
    Param::new("enabled", query::Holds::Flag, "Only those that are on, or off"),
    Param::new("expired", query::Holds::Flag, "Only those that have expired, or have not"),
];

pub(crate) fn surface(surface: Surface) -> Surface {
    let all = &["/api/v1/proxy/aliases"];
    let one = &["/api/v1/proxy/aliases/{id}"];
    surface
        .serve(
            &[Method::Get],
            all,
            list,
            &Operation::new("listAliases", TAG, "Lists aliases, oldest first")
                .params(&LIST)
                .answers::<wire::Aliases>(200),
        )
        .serve(
            &[Method::Post],
            all,
            create,
            &Operation::new("createAlias", TAG, "Makes an alias")
                .takes(&CREATE)
                .answers::<wire::Alias>(201),
        )
        .serve(
            &[Method::Get],
            one,
            show,
            &Operation::new("getAlias", TAG, "Shows an alias").answers::<wire::Alias>(200),
        )
        .serve(
            &[Method::Patch],
            one,
            update,
            &Operation::new("updateAlias", TAG, "Changes the given fields of an alias")
                .takes(&CHANGE)
                .answers::<wire::Alias>(200),
        )
        .serve(
            &[Method::Patch],
            &["/api/v1/proxy/aliases/{id}/state"],
            set_state,
            &Operation::new("setAliasState", TAG, "Switches an alias on or off")
                .takes(&STATE)
                .answers::<wire::Alias>(200),
        )
        .serve(
            &[Method::Delete],
            one,
            delete,
            &Operation::new("deleteAlias", TAG, "Removes an alias with its hostnames"),
        )
}

/// The fields that creation and change have in common.
struct Common {
    program: Option<String>,
    port: Option<i64>,
    index: Option<i64>,
    target_path: Given<String>,
    allow_path_override: Option<bool>,
    expires_at: Given<ExpiresAt>,
    enabled: Option<bool>,
}

impl Common {
    fn take(fields: &mut Fields) -> Self {
        Self {
            program: fields.text("program").value(),
            port: fields.count("port").value().map(i64::from),
            index: fields.count("index").value().map(i64::from),
            target_path: fields.text("target_path"),
            allow_path_override: fields.flag("allow_path_override").value(),
            expires_at: fields.expires_at("expires_at"),
            enabled: fields.flag("enabled").value(),
        }
    }
}

fn print(front: &Front, view: &gantry_control::AliasView) -> wire::Alias {
    wire::Alias::new(view, front.urls())
}

async fn list(
    State(front): State<Front>,
    Caller(actor): Caller,
    OriginalUri(uri): OriginalUri,
) -> Result<Answer<wire::Aliases>, Problem> {
    let mut query = Query::new(&uri, &LIST);
    let asked = AliasQuery {
        project: query.id("project_id"),
        container: query.id("container_id"),
        realm: query.id("realm_id"),
        enabled: query.flag("enabled"),
        expired: query.flag("expired"),
    };
    query.finish()?;
    let views = front.control.aliases(&actor, asked).await?;
    let aliases = views.iter().map(|view| print(&front, view)).collect();
    Ok(Answer::ok("Proxy aliases retrieved successfully", wire::Aliases::new(aliases)))
}

async fn create(
    State(front): State<Front>,
    Caller(actor): Caller,
    body: JsonObject,
) -> Result<Answer<wire::Alias>, Problem> {
    let mut fields = body.fields(&CREATE);
    let container = fields.id("container_id").value();
    let name = fields.mixed("alias", |value| match value {
        Value::String(name) => Some(Some(name)),
        Value::Bool(false) => Some(None),
        Value::Null | Value::Bool(true) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            None
        }
    });
    let common = Common::take(&mut fields);
    let container = fields.finish(container)?;
    let new = NewAlias {
        alias: name.value().flatten(),
        program: common.program,
        port: common.port,
        index: common.index,
        target_path: common.target_path.value(),
        allow_path_override: common.allow_path_override,
        expires_at: common.expires_at.value(),
        enabled: common.enabled,
    };
    let view = front.control.create_alias(&actor, container, new).await?;
    // The URL in the answer leads somewhere by the time that it is read.
    front.control.propagation().await;
    Ok(Answer::created("Proxy alias created successfully", print(&front, &view)))
}

async fn show(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Alias>,
) -> Result<Answer<wire::Alias>, Problem> {
    let (view, owners) = front.control.alias(&actor, id).await?;
    let alias = print(&front, &view).with_owners(&view, &owners);
    Ok(Answer::ok("Proxy alias retrieved successfully", alias))
}

async fn update(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Alias>,
    body: JsonObject,
) -> Result<Answer<wire::Alias>, Problem> {
    let mut fields = body.fields(&CHANGE);
    let alias = fields.text("alias").value();
    let common = Common::take(&mut fields);
    fields.finish(Some(()))?;
    let change = AliasChange {
        alias,
        program: common.program,
        port: common.port,
        index: common.index,
        target_path: common.target_path.patch(),
        allow_path_override: common.allow_path_override,
        expires_at: common.expires_at.patch(),
        enabled: common.enabled,
    };
    change_alias(&front, &actor, id, change).await
}

async fn set_state(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Alias>,
    body: JsonObject,
) -> Result<Answer<wire::Alias>, Problem> {
    let mut fields = body.fields(&STATE);
    let enabled = fields.flag("enabled").value();
    let enabled = fields.finish(enabled)?;
    let change =
        AliasChange { enabled: Some(enabled), target_path: Patch::Keep, ..AliasChange::default() };
    change_alias(&front, &actor, id, change).await
}

async fn change_alias(
    front: &Front,
    actor: &gantry_control::Actor,
    id: AliasId,
    change: AliasChange,
) -> Result<Answer<wire::Alias>, Problem> {
    let view = front.control.update_alias(actor, id, change).await?;
    front.control.propagation().await;
    Ok(Answer::ok("Proxy alias updated successfully", print(front, &view)))
}

async fn delete(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Alias>,
) -> Result<Answer<()>, Problem> {
    front.control.delete_alias(&actor, id).await?;
    front.control.propagation().await;
    Ok(Answer::ok("Proxy alias deleted successfully", ()))
}
