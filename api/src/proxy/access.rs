//! Permission documents of projects and containers: one set of calls for both.

use axum::extract::State;
use gantry_control::{AccessChange, Scope};
use gantry_model::{
    Id,
    access::{Access as Cell, Fallback, GroupName, Program},
    id::kind,
};
use serde_json::{Map, Value, json};

use super::{Write, Written};
use crate::{
    Front,
    answer::Answer,
    body::JsonObject,
    caller::{Caller, PathId},
    fields::{Field, Fields, Given, Holds},
    problem::{Kind, Problem},
    surface::{Method, Operation, Surface, UPDATE},
    wire,
};

const TAG: &str = "Proxy permissions";

/// What has a permission document.
trait Place: 'static {
    fn scope(id: Id<Self>) -> Scope
    where
        Self: Sized;
    /// What ids of operations end in.
    const NAME: &str;
    const ROOT: &str;
    const DEFAULT: &str;
    const STATE: &str;
    const JWT: &str;
    const PASSWORD: &str;
    const IP: &str;
    const TOKEN: &str;
    const GROUP: &str;
    const CELLS: &str;
    const CELL: &str;
    const FIELDS: &[Field];
}

impl Place for kind::Project {
    fn scope(id: Id<Self>) -> Scope {
        Scope::Project(id)
    }
    const NAME: &str = "Project";
    const ROOT: &str = "/api/v1/projects/{id}/proxy/permissions";
    const DEFAULT: &str = "/api/v1/projects/{id}/proxy/permissions/default";
    const STATE: &str = "/api/v1/projects/{id}/proxy/permissions/state";
    const JWT: &str = "/api/v1/projects/{id}/proxy/permissions/groups/{group}/jwt";
    const PASSWORD: &str = "/api/v1/projects/{id}/proxy/permissions/groups/{group}/password";
    const IP: &str = "/api/v1/projects/{id}/proxy/permissions/groups/{group}/ip";
    const TOKEN: &str = "/api/v1/projects/{id}/proxy/permissions/groups/{group}/token";
    const GROUP: &str = "/api/v1/projects/{id}/proxy/permissions/groups/{group}";
    const CELLS: &str = "/api/v1/projects/{id}/proxy/permissions/permissions/{group}";
    const CELL: &str = "/api/v1/projects/{id}/proxy/permissions/permissions/{group}/{program}";
    const FIELDS: &[Field] = &OF_PROJECT;
}

impl Place for kind::Container {
    fn scope(id: Id<Self>) -> Scope {
        Scope::Container(id)
    }
    const NAME: &str = "Container";
    const ROOT: &str = "/api/v1/containers/{id}/proxy/permissions";
    const DEFAULT: &str = "/api/v1/containers/{id}/proxy/permissions/default";
    const STATE: &str = "/api/v1/containers/{id}/proxy/permissions/state";
    const JWT: &str = "/api/v1/containers/{id}/proxy/permissions/groups/{group}/jwt";
    const PASSWORD: &str = "/api/v1/containers/{id}/proxy/permissions/groups/{group}/password";
    const IP: &str = "/api/v1/containers/{id}/proxy/permissions/groups/{group}/ip";
    const TOKEN: &str = "/api/v1/containers/{id}/proxy/permissions/groups/{group}/token";
    const GROUP: &str = "/api/v1/containers/{id}/proxy/permissions/groups/{group}";
    const CELLS: &str = "/api/v1/containers/{id}/proxy/permissions/permissions/{group}";
    const CELL: &str = "/api/v1/containers/{id}/proxy/permissions/permissions/{group}/{program}";
    const FIELDS: &[Field] = &OF_CONTAINER;
}

const PROJECT: Field = Field::new("project", Holds::Id, "The project; that of the path").required();
const GROUPS: Field =
    Field::new("groups", Holds::Object, "Each group: one way to belong to it, or an array of ways")
        .required();
const PERMISSIONS: Field =
    Field::new("permissions", Holds::Object, "What each group opens of each program").required();
pub(super) const DEFAULT: Field = Field::new(
    "default",
    Holds::Text { min: 4, max: 5 },
    "allow or deny: what happens to requests that no group decides about; deny when absent",
);
pub(super) const ENABLE: Field =
    Field::new("enable_proxy", Holds::Flag, "Whether requests pass at all; yes when absent");
const HOOKS: Field =
    Field::new("hooks", Holds::Object, "The hooks of each service; they stay when absent")
        .nullable();
const SCHEMA: Field = Field::new("schema_version", Holds::Count, "Accepted and ignored");
const VERSION: Field = Field::new("file_version", Holds::Count, "Accepted and ignored");
const ETAG: Field = Field::new("etag", Holds::Text { min: 0, max: 64 }, "Accepted and ignored");

static OF_PROJECT: [Field; 9] =
    [PROJECT, GROUPS, PERMISSIONS, DEFAULT, ENABLE, HOOKS, SCHEMA, VERSION, ETAG];
static OF_CONTAINER: [Field; 10] = [
    PROJECT,
    Field::new("container", Holds::Id, "The container; that of the path").nullable(),
    GROUPS,
    PERMISSIONS,
    DEFAULT,
    ENABLE,
    HOOKS,
    SCHEMA,
    VERSION,
    ETAG,
];

static DEFAULT_ONLY: [Field; 1] = [DEFAULT.required()];
static STATE_ONLY: [Field; 1] = [ENABLE.required()];
static JWT: [Field; 4] = [
    Field::new(
        "secret",
        Holds::Text { min: 1, max: 8192 },
        "The key: text, or a public key in PEM",
    )
    .required(),
    Field::new("algorithm", Holds::Text { min: 5, max: 5 }, "HS256, RS256 or ES256").required(),
    Field::new("sources", Holds::Texts, "Where the token may stand: header:Name, cookie:Name")
        .required(),
    Field::new("claims", Holds::Object, "Claims that must have exactly these values"),
];
static PASSWORD: [Field; 4] = [
    Field::new("username", Holds::Text { min: 1, max: 8192 }, "The name").required(),
    Field::new(
        "password",
        Holds::Text { min: 1, max: 8192 },
        "The password, or the SHA-256 of salt and password as 64 lower-case hexadecimal digits",
    )
    .required(),
    Field::new("salt", Holds::Text { min: 1, max: 8192 }, "The salt; random when absent"),
    Field::new("algorithm", Holds::Text { min: 6, max: 6 }, "sha256"),
];
static IP: [Field; 1] =
    [Field::new("range", Holds::Text { min: 1, max: 64 }, "A network, IPv4 or IPv6").required()];
static TOKEN: [Field; 4] = [
    Field::new("header", Holds::Text { min: 1, max: 8192 }, "The header field that it stands in"),
    Field::new("cookie", Holds::Text { min: 1, max: 8192 }, "The cookie that it stands in"),
    Field::new("param", Holds::Text { min: 1, max: 8192 }, "The query parameter"),
    Field::new("value", Holds::Text { min: 1, max: 8192 }, "The token").required(),
];
static CELL: [Field; 2] = [
    Field::new("program", Holds::Text { min: 1, max: 64 }, "The program").required(),
    Field::new(
        "access",
        Holds::Mixed,
        "true, false, \"*\", a number, an array of numbers, or a range as \"3000-3999\"",
    )
    .required(),
];

pub(crate) fn surface(surface: Surface) -> Surface {
    of::<kind::Container>(of::<kind::Project>(surface))
}

fn of<P: Place>(surface: Surface) -> Surface {
    let writes = |id: &str, summary| reads::<P>(id, summary).versioned();
    let surface = surface
        .serve(
            &[Method::Get],
            &[P::ROOT],
            show::<P>,
            &reads::<P>("get", "Shows a permission document, with its credentials"),
        )
        .serve(
            &UPDATE,
            &[P::ROOT],
            replace::<P>,
            &writes("replace", "Replaces a permission document").takes(P::FIELDS),
        )
        .serve(
            &[Method::Delete],
            &[P::ROOT],
            remove::<P>,
            &writes("delete", "Removes a permission document: everything passes"),
        )
        .serve(
            &[Method::Patch],
            &[P::DEFAULT],
            set_default::<P>,
            &writes("setDefaultOf", "Sets what happens when no group decides").takes(&DEFAULT_ONLY),
        )
        .serve(
            &[Method::Patch],
            &[P::STATE],
            set_state::<P>,
            &writes("setStateOf", "Lets requests pass, or none").takes(&STATE_ONLY),
        );
    groups::<P>(cells::<P>(surface))
}

fn reads<P: Place>(id: &str, summary: &'static str) -> Operation {
    let id = format!("{id}{}Permissions", P::NAME);
    Operation::new(id, TAG, summary).answers::<wire::Permissions>(200)
}

fn cells<P: Place>(surface: Surface) -> Surface {
    let writes = |id: &str, summary| reads::<P>(id, summary).versioned();
    let delete = &[Method::Delete];
    surface
        .serve(delete, &[P::GROUP], remove_group::<P>, &writes("deleteGroupOf", "Removes a group"))
        .serve(
            &UPDATE,
            &[P::CELLS],
            set_cell::<P>,
            &writes("setCellOf", "Says what a group opens of one program").takes(&CELL),
        )
        .serve(
            delete,
            &[P::CELLS],
            clear_cells::<P>,
            &writes("clearCellsOf", "Forgets what a group opens"),
        )
        .serve(
            delete,
            &[P::CELL],
            remove_cell::<P>,
            &writes("deleteCellOf", "Forgets what a group opens of one program"),
        )
}

fn groups<P: Place>(surface: Surface) -> Surface {
    [
        (P::JWT, "jwt", "setJwtGroupOf", &JWT[..], Kind::InvalidJwt),
        (P::PASSWORD, "password", "setPasswordGroupOf", &PASSWORD[..], Kind::Invalid),
        (P::IP, "ip", "setIpGroupOf", &IP[..], Kind::InvalidRange),
        (P::TOKEN, "token", "setTokenGroupOf", &TOKEN[..], Kind::Invalid),
    ]
    .into_iter()
    .fold(surface, |surface, (path, way, id, fields, kind)| {
        let handler = move |write: Write<P>, body: JsonObject| {
            set_group(write, (way, kind), body.fields(fields))
        };
        let operation = reads::<P>(id, "Sets the one way to belong to a group");
        let operation = operation.versioned().takes(fields);
        surface.serve(&UPDATE, &[path], handler, &operation)
    })
}

type Reply = Result<Answer<wire::Permissions>, Problem>;

async fn show<P: Place>(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<P>,
) -> Reply {
    let view = front.control.access(&actor, P::scope(id)).await?;
    Ok(Answer::ok("Proxy permissions retrieved successfully", wire::Permissions::new(&view)))
}

async fn change<P: Place>(write: Write<P>, change: AccessChange) -> Reply {
    let Written { view, propagation, .. } = write.change(P::scope(write.id), change).await?;
    let answer = wire::Permissions::new(&view).propagated(propagation);
    Ok(Answer::ok("Proxy permissions updated successfully", answer))
}

async fn replace<P: Place>(write: Write<P>, body: JsonObject) -> Reply {
    let mut fields = body.fields(P::FIELDS);
    let mut document = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            document.insert(name.to_owned(), value);
        }
    };
    put("project", fields.id::<kind::Project>("project").value().map(|id| json!(id.to_string())));
    if P::FIELDS.iter().any(|field| field.name == "container") {
        let container = fields.id::<kind::Container>("container").value();
        put("container", container.map(|id| json!(id.to_string())));
    }
    put("groups", fields.object("groups").value().map(spelled_out));
    put("permissions", fields.object("permissions").value().map(spelled_out));
    put("default", fields.text("default").value().map(Value::String));
    put("enable_proxy", fields.flag("enable_proxy").value().map(Value::Bool));
    put("hooks", fields.object("hooks").value().map(Value::Object));
    fields.count("schema_version").value();
    fields.count("file_version").value();
    fields.ignore_text("etag");
    let document = fields.finish(Some(Value::Object(document)))?;
    change(write, AccessChange::Replace(document)).await
}

/// The official command line sends each part as a text that holds JSON.
fn spelled_out(parts: Map<String, Value>) -> Value {
    let part = |(name, value): (String, Value)| {
        let inner = value.as_str().and_then(|text| serde_json::from_str(text).ok());
        (name, inner.unwrap_or(value))
    };
    Value::Object(parts.into_iter().map(part).collect())
}

async fn remove<P: Place>(write: Write<P>) -> Reply {
    change(write, AccessChange::Remove).await
}

/// The field `default`.
pub(super) fn fallback(fields: &mut Fields) -> Option<Fallback> {
    match fields.text("default") {
        Given::Absent | Given::Null => None,
        Given::Value(text) => match Fallback::from_json("default", &Value::String(text)) {
            Ok(fallback) => Some(fallback),
            Err(error) => fields.refuse::<Fallback>(error).value(),
        },
    }
}

async fn set_default<P: Place>(write: Write<P>, body: JsonObject) -> Reply {
    let mut fields = body.fields(&DEFAULT_ONLY);
    let default = fallback(&mut fields);
    let default = Some(fields.finish(default)?);
    let settings = AccessChange::Settings { default, enable_proxy: None };
    change(write, settings).await
}

async fn set_state<P: Place>(write: Write<P>, body: JsonObject) -> Reply {
    let mut fields = body.fields(&STATE_ONLY);
    let enable_proxy = fields.flag("enable_proxy").value();
    let enable_proxy = Some(fields.finish(enable_proxy)?);
    let settings = AccessChange::Settings { default: None, enable_proxy };
    change(write, settings).await
}

async fn set_group<P: Place>(
    write: Write<P>,
    (way, kind): (&'static str, Kind),
    mut fields: Fields,
) -> Reply {
    let mut method = fields.known();
    fields.finish_as(kind, Some(()))?;
    method.insert("type".to_owned(), json!(way));
    let group = write.segments.read("group", GroupName::parse)?;
    let changed = AccessChange::SetGroup(group, Value::Object(method));
    let reply = change(write, changed).await;
    reply.map_err(|problem| problem.instead_of_invalid(kind))
}

async fn remove_group<P: Place>(write: Write<P>) -> Reply {
    let group = write.segments.read("group", GroupName::parse)?;
    change(write, AccessChange::RemoveGroup(group)).await
}

async fn set_cell<P: Place>(write: Write<P>, body: JsonObject) -> Reply {
    let mut fields = body.fields(&CELL);
    let program = match fields.text("program") {
        Given::Absent | Given::Null => None,
        Given::Value(text) => match Program::parse("program", &text) {
            Ok(program) => Some(program),
            Err(error) => fields.refuse::<Program>(error).value(),
        },
    };
    // Which values there are depends on the program; without one, any program's.
    let probe = program.unwrap_or(Program::HTTP);
    let read = fields.mixed("access", |value| Some(Cell::from_json("access", probe, &value)));
    let cell = match read.value() {
        None => None,
        Some(Ok(cell)) => Some(cell),
        Some(Err(error)) => fields.refuse::<Cell>(error).value(),
    };
    let (program, cell) = fields.finish(program.zip(cell))?;
    let group = write.segments.read("group", GroupName::parse)?;
    change(write, AccessChange::SetCell(group, program, cell)).await
}

async fn clear_cells<P: Place>(write: Write<P>) -> Reply {
    let group = write.segments.read("group", GroupName::parse)?;
    change(write, AccessChange::ClearCells(group)).await
}

async fn remove_cell<P: Place>(write: Write<P>) -> Reply {
    let group = write.segments.read("group", GroupName::parse)?;
    let program = write.segments.read("program", Program::parse)?;
    change(write, AccessChange::RemoveCell(group, program)).await
}
