//! Storage shares: directories of one container that others see.

use axum::extract::{OriginalUri, State};
use gantry_control::{ExpiresAt, NewShare, ShareChange, ShareQuery};
use gantry_model::{
    FieldError, ShareId,
    id::kind,
    share::{DESCRIPTION_MAX, PATH_MAX, ShareMode, ShareName, SharePath},
};
use http::Uri;

use crate::{
    Front,
    answer::Answer,
    body::JsonObject,
    caller::{Caller, PathId},
    fields::{Field, Fields, Given, Holds},
    problem::{Kind, Problem},
    proxy::Segments,
    query::{self, Param, Query},
    surface::{Method, Operation, Surface, UPDATE},
    wire,
};

const TAG: &str = "Storage shares";

const MODES: &[&str] = &["readonly", "readwrite"];

const MODE: Field = Field::new("mode", Holds::Word(MODES), "What may be done with it");
const ALIAS: Field = Field::new(
    "alias",
    Holds::Text { min: 3, max: 63 },
    "The directory's name below /hoody/shares: lower-case letters, digits, inner hyphens and \
     underscores; the id if absent, both if another share has it there",
)
.nullable();
const LABEL: Field =
    Field::new("label", Holds::Text { min: 3, max: 63 }, "What to sort it by").nullable();
const DESCRIPTION: Field = Field::new(
    "description",
    Holds::Text { min: 0, max: DESCRIPTION_MAX },
    "What its owner says of it",
)
.nullable();
const ENABLED: Field = Field::new("enabled", Holds::Flag, "Whether it is there; yes when absent");
const EXPIRES: Field =
    Field::new("expires_at", Holds::Mixed, "a Unix time or an ISO 8601 time, in the future")
        .nullable();

static CREATE: [Field; 9] = [
    Field::new(
        "source_path",
        Holds::Text { min: 1, max: PATH_MAX },
        "The directory: absolute, of letters, digits, / - _ and . without .., not below /proc, /sys, \
         /dev, /boot, /run, /var/run or /hoody/shares",
    )
    .required(),
    Field::new("target_container_id", Holds::Id, "The container that sees it; this or the next")
        .nullable(),
    Field::new("target_project_id", Holds::Id, "The project whose containers all see it")
        .nullable(),
    MODE.required(),
    ALIAS,
    LABEL,
    DESCRIPTION,
    ENABLED,
    EXPIRES,
];
static CHANGE: [Field; 6] = [MODE, ALIAS, LABEL, DESCRIPTION, ENABLED, EXPIRES];
static MOUNT: [Field; 1] =
    [Field::new("mount", Holds::Flag, "Whether the container wants it").required()];

static LIST: [Param; 6] = [
    TARGET_TYPE,
    Param::new("label", query::Holds::Text, "Only those with this label"),
    STATUS,
    Param::new("enabled", query::Holds::Flag, "Only those that are on, or off"),
    Param::new("include_expired", query::Holds::Flag, "Those that have just ended, too"),
    query::REALM,
];
static INCOMING: [Param; 4] = [
    TARGET_TYPE,
    STATUS,
    Param::new("enabled", query::Holds::Flag, "Only those that are on, or off"),
    query::REALM,
];
const TARGET_TYPE: Param = Param::new(
    "target_type",
    query::Holds::Word(&["container", "project"]),
    "Only those to a container, or to a project",
);
const STATUS: Param = Param::new(
    "status",
    query::Holds::Word(&["active", "failed"]),
    "Only those that are missing in no container, or in one that should have them",
);

pub(crate) fn surface(surface: Surface) -> Surface {
    let of_container = &["/api/v1/containers/{id}/storage/shares"];
    let one = &["/api/v1/containers/{id}/storage/shares/{share_id}"];
    let surface = surface
        .serve(
            &[Method::Get],
            of_container,
            list_of,
            &Operation::new("listContainerShares", TAG, "Lists the shares from a container")
                .params(&LIST)
                .answers_list::<wire::Share>(200),
        )
        .serve(
            &[Method::Post],
            of_container,
            create,
            &Operation::new("createShare", TAG, "Shares a directory of a container")
                .described(CREATED)
                .takes(&CREATE)
                .answers::<wire::Share>(201),
        )
        .serve(
            &[Method::Get],
            one,
            show,
            &Operation::new("getShare", TAG, "Shows a share").answers::<wire::Share>(200),
        )
        .serve(
            &UPDATE,
            one,
            update,
            &Operation::new("updateShare", TAG, "Changes the given fields of a share")
                .takes(&CHANGE)
                .answers::<wire::Share>(200),
        );
    elsewhere(surface)
}

/// What is about no container's own shares.
fn elsewhere(surface: Surface) -> Surface {
    surface
        .serve(
            &[Method::Get],
            &["/api/v1/storage/shares"],
            list,
            &Operation::new("listShares", TAG, "Lists the shares from all containers")
                .params(&LIST)
                .answers_list::<wire::Share>(200),
        )
        .serve(
            &[Method::Delete],
            &["/api/v1/storage/shares/{id}"],
            delete,
            &Operation::new("deleteShare", TAG, "Ends a share"),
        )
        .serve(
            &[Method::Get],
            &["/api/v1/storage/incoming"],
            incoming,
            &Operation::new("listIncomingShares", TAG, "Lists the shares to all containers")
                .params(&INCOMING)
                .answers_list::<wire::IncomingShare>(200),
        )
        .serve(
            &[Method::Get],
            &["/api/v1/containers/{id}/storage/incoming"],
            incoming_of,
            &Operation::new("listContainerIncomingShares", TAG, "Lists the shares to a container")
                .params(&INCOMING)
                .answers_list::<wire::IncomingShare>(200),
        )
        .serve(
            &UPDATE,
            &["/api/v1/containers/{id}/storage/incoming/{share_id}/mount"],
            mount,
            &Operation::new("setShareMount", TAG, "Says whether a container wants a share")
                .takes(&MOUNT)
                .answers::<wire::MountedShare>(200),
        )
}

const CREATED: &str = "The directory appears below /hoody/shares in each container that it reaches, \
    while both run, without a restart. Who makes a share must be allowed to change both sides, now \
    and for as long as it is to work.";

fn share_id(segments: &Segments) -> Result<ShareId, Problem> {
    segments.get("share_id").parse().map_err(|error: gantry_model::InvalidId| {
        Problem::fields(Kind::InvalidId, &[FieldError::new("share_id", error.to_string())])
    })
}

/// What a list is narrowed to.
fn narrowed(uri: &Uri, table: &'static [Param]) -> Result<ShareQuery, Problem> {
    let mut query = Query::new(uri, table);
    let has = |name| table.iter().any(|param| param.name == name);
    let kinds = [("container", "container"), ("project", "project")];
    let asked = ShareQuery {
        target_kind: query.word("target_type", &kinds),
        label: if has("label") { query.text("label") } else { None },
        has_failed: query.word("status", &[("active", false), ("failed", true)]),
        enabled: query.flag("enabled"),
        include_expired: has("include_expired") && query.flag("include_expired").unwrap_or(false),
        realm: query.id(query::REALM.name),
    };
    query.finish()?;
    Ok(asked)
}

/// The fields that creation and change have in common; each is checked here, so that a client hears of all
/// mistakes at once.
struct Common {
    mode: Option<ShareMode>,
    alias: Given<String>,
    label: Given<String>,
    description: Given<String>,
    enabled: Option<bool>,
    expires_at: Given<ExpiresAt>,
}

impl Common {
    fn take(fields: &mut Fields) -> Self {
        let name = |field: &str, text: &str| ShareName::parse(field, text).map(drop);
        let short = |field: &str, text: &str| {
            if text.chars().count() <= DESCRIPTION_MAX {
                return Ok(());
            }
            Err(FieldError::new(field, "must be at most 1000 characters"))
        };
        Self {
            mode: fields.word("mode", ShareMode::from_word).value(),
            alias: fields.checked("alias", name),
            label: fields.checked("label", name),
            description: fields.checked("description", short),
            enabled: fields.flag("enabled").value(),
            expires_at: fields.expires_at("expires_at"),
        }
    }
}

async fn create(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Container>,
    body: JsonObject,
) -> Result<Answer<wire::Share>, Problem> {
    let mut fields = body.fields(&CREATE);
    let path = |field: &str, text: &str| SharePath::parse(field, text).map(drop);
    let source_path = fields.checked("source_path", path).value();
    let target_container = fields.id("target_container_id").value();
    let target_project = fields.id("target_project_id").value();
    let common = Common::take(&mut fields);
    fields.finish(Some(()))?;
    let new = NewShare {
        source_path,
        target_container,
        target_project,
        mode: common.mode,
        alias: common.alias.value(),
        label: common.label.value(),
        description: common.description.value(),
        enabled: common.enabled,
        expires_at: common.expires_at.value(),
    };
    let view = front.control.create_share(&actor, id, new).await?;
    Ok(Answer::created("Storage share created successfully", wire::Share::new(&view)))
}

async fn list_of(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Container>,
    OriginalUri(uri): OriginalUri,
) -> Result<Answer<Vec<wire::Share>>, Problem> {
    let views = front.control.shares(&actor, Some(id), narrowed(&uri, &LIST)?).await?;
    let shares = views.iter().map(wire::Share::new).collect();
    Ok(Answer::ok("Storage shares retrieved successfully", shares))
}

async fn list(
    State(front): State<Front>,
    Caller(actor): Caller,
    OriginalUri(uri): OriginalUri,
) -> Result<Answer<Vec<wire::Share>>, Problem> {
    let views = front.control.shares(&actor, None, narrowed(&uri, &LIST)?).await?;
    let shares = views.iter().map(wire::Share::new).collect();
    Ok(Answer::ok("Storage shares retrieved successfully", shares))
}

async fn show(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Container>,
    segments: Segments,
) -> Result<Answer<wire::Share>, Problem> {
    let view = front.control.share(&actor, id, share_id(&segments)?).await?;
    Ok(Answer::ok("Storage share retrieved successfully", wire::Share::new(&view)))
}

async fn update(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Container>,
    segments: Segments,
    body: JsonObject,
) -> Result<Answer<wire::Share>, Problem> {
    let mut fields = body.fields(&CHANGE);
    let common = Common::take(&mut fields);
    fields.finish(Some(()))?;
    let share = share_id(&segments)?;
    let change = ShareChange {
        mode: common.mode,
        alias: common.alias.patch(),
        label: common.label.patch(),
        description: common.description.patch(),
        enabled: common.enabled,
        expires_at: common.expires_at.patch(),
    };
    let view = front.control.update_share(&actor, id, share, change).await?;
    Ok(Answer::ok("Storage share updated successfully", wire::Share::new(&view)))
}

async fn delete(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Share>,
) -> Result<Answer<()>, Problem> {
    front.control.delete_share(&actor, id).await?;
    Ok(Answer::ok("Storage share deleted successfully", ()))
}

async fn incoming(
    State(front): State<Front>,
    Caller(actor): Caller,
    OriginalUri(uri): OriginalUri,
) -> Result<Answer<Vec<wire::IncomingShare>>, Problem> {
    let views = front.control.incoming_shares(&actor, None, narrowed(&uri, &INCOMING)?).await?;
    let shares = views.iter().map(wire::IncomingShare::new).collect();
    Ok(Answer::ok("Incoming storage shares retrieved successfully", shares))
}

async fn incoming_of(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Container>,
    OriginalUri(uri): OriginalUri,
) -> Result<Answer<Vec<wire::IncomingShare>>, Problem> {
    let asked = narrowed(&uri, &INCOMING)?;
    let views = front.control.incoming_shares(&actor, Some(id), asked).await?;
    let shares = views.iter().map(wire::IncomingShare::new).collect();
    Ok(Answer::ok("Incoming storage shares retrieved successfully", shares))
}

async fn mount(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Container>,
    segments: Segments,
    body: JsonObject,
) -> Result<Answer<wire::MountedShare>, Problem> {
    let mut fields = body.fields(&MOUNT);
    let is_wanted = fields.flag("mount").value();
    let is_wanted = fields.finish(is_wanted)?;
    let share = share_id(&segments)?;
    let (view, mount) = front.control.set_share_mount(&actor, id, share, is_wanted).await?;
    let mounted = wire::MountedShare::new(&view, &mount);
    Ok(Answer::ok("Storage share mount updated successfully", mounted))
}
