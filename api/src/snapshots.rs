//! Snapshots: making, looking, restoring, naming, removing.

use axum::{
    extract::{OriginalUri, State},
    response::{IntoResponse as _, Response},
};
use gantry_control::{NewSnapshot, Page, Restored, SnapshotQuery, SnapshotSort};
use gantry_model::{Phase, id::kind};

use crate::{
    Front,
    answer::Answer,
    body::JsonObject,
    caller::{Caller, PathId},
    containers::{WAITS, wait},
    fields::{Field, Holds},
    problem::{Kind, Problem},
    proxy::Segments,
    query::{self, Param, Query},
    surface::{Method, Operation, Surface, UPDATE},
    wire,
};

const TAG: &str = "Snapshots";
/// How many snapshots a page has unless asked otherwise.
const LIMIT: u32 = 50;

const ALIAS: Field = Field::new(
    "alias",
    Holds::Text { min: 1, max: 100 },
    "What it is called; the name of a new one is made of its letters, digits, hyphens and underscores",
);

static CREATE: [Field; 2] = [
    ALIAS.nullable(),
    Field::new(
        "expiry",
        Holds::Count,
        "After how many days it is removed, 1 to 3650; never if absent",
    )
    .nullable(),
];
static RENAME: [Field; 1] = [ALIAS.nullable().required()];
static NO_FIELDS: [Field; 0] = [];
static LIST: [Param; 7] = [
    query::PAGE,
    query::LIMIT,
    Param::new(
        "sort_by",
        query::Holds::Sort(&["name", "created_at", "expires_at", "size"]),
        "What the list is ordered by",
    ),
    query::SORT_ORDER,
    query::REALM,
    Param::new("container_id", query::Holds::Id, "Only those of this container, which may be gone"),
    Param::new("project_id", query::Holds::Id, "Only those of this project's containers"),
];

pub(crate) fn surface(surface: Surface) -> Surface {
    let of_container = &["/api/v1/containers/{id}/snapshots"];
    let one = &["/api/v1/containers/{id}/snapshots/{name}"];
    surface
        .serve(
            &[Method::Get],
            &["/api/v1/snapshots"],
            list,
            &Operation::new(
                "listSnapshots",
                TAG,
                "Lists snapshots, also those of deleted containers",
            )
            .params(&LIST)
            .answers::<wire::Snapshots>(200),
        )
        .serve(
            &[Method::Get],
            of_container,
            list_of_container,
            &Operation::new("listContainerSnapshots", TAG, "Lists the snapshots of a container")
                .answers::<wire::ContainerSnapshots>(200),
        )
        .serve(
            &[Method::Post],
            of_container,
            create,
            &Operation::new(
                "createSnapshot",
                TAG,
                "Keeps the files of a container as they are now",
            )
            .takes(&CREATE)
            .answers::<wire::OneSnapshot>(200),
        )
        .serve(
            &UPDATE,
            one,
            restore,
            &Operation::new("restoreSnapshot", TAG, "Gives a container the files of a snapshot")
                .params(&WAITS)
                .takes(&NO_FIELDS)
                .answers::<wire::Restored>(200),
        )
        .serve(
            &[Method::Delete],
            one,
            delete,
            &Operation::new("deleteSnapshot", TAG, "Removes a snapshot")
                .answers::<wire::DeletedSnapshot>(200),
        )
        .serve(
            &UPDATE,
            &["/api/v1/containers/{id}/snapshots/{name}/alias"],
            rename,
            &Operation::new("updateSnapshotAlias", TAG, "Calls a snapshot something else")
                .takes(&RENAME)
                .answers::<wire::OneSnapshot>(200),
        )
}

async fn list(
    State(front): State<Front>,
    Caller(actor): Caller,
    OriginalUri(uri): OriginalUri,
) -> Result<Answer<wire::Snapshots>, Problem> {
    let mut query = Query::new(&uri, &LIST);
    let page = query.count("page").unwrap_or(1);
    let limit = query.count("limit").unwrap_or(LIMIT);
    let sorts = [
        ("name", SnapshotSort::Name),
        ("created_at", SnapshotSort::CreatedAt),
        ("expires_at", SnapshotSort::ExpiresAt),
        ("size", SnapshotSort::Size),
    ];
    let sort = query.word("sort_by", &sorts).unwrap_or(SnapshotSort::CreatedAt);
    let descending = query.descending();
    let asked = SnapshotQuery {
        container: query.id("container_id"),
        project: query.id("project_id"),
        realm: query.id("realm_id"),
        page: Page { page, limit, sort, descending },
    };
    query.finish()?;
    let listed = front.control.snapshots(&actor, asked).await?;
    let pagination = wire::Pagination::new(listed.total, page, limit);
    let snapshots = wire::Snapshots::new(&listed.items, pagination);
    Ok(Answer::ok("Snapshots retrieved successfully", snapshots))
}

async fn list_of_container(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Container>,
) -> Result<Answer<wire::ContainerSnapshots>, Problem> {
    let snapshots = front.control.snapshots_of(&actor, id).await?;
    let snapshots = wire::ContainerSnapshots::new(&snapshots);
    Ok(Answer::ok("Snapshots retrieved successfully", snapshots))
}

async fn create(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Container>,
    body: JsonObject,
) -> Result<Answer<wire::OneSnapshot>, Problem> {
    let mut fields = body.fields(&CREATE);
    let new = NewSnapshot {
        alias: fields.text("alias").value(),
        expiry_days: fields.count("expiry").value(),
    };
    let new = fields.finish(Some(new))?;
    let snapshot = front.control.create_snapshot(&actor, id, new).await?;
    let message = if snapshot.is_ready {
        "Snapshot created successfully"
    } else {
        "The snapshot is being made; list the snapshots to see it end"
    };
    Ok(Answer::ok(message, wire::OneSnapshot::new(&snapshot)))
}

async fn restore(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Container>,
    segments: Segments,
    OriginalUri(uri): OriginalUri,
    body: JsonObject,
) -> Result<Response, Problem> {
    body.expect_none()?;
    let timeout = wait(&uri)?.map_or(front.config.settle_timeout, |(_, timeout)| timeout);
    let name = segments.get("name");
    let restored = front.control.restore_snapshot(&actor, id, name, Some(timeout)).await?;
    answer(&restored)
}

fn answer(restored: &Restored) -> Result<Response, Problem> {
    let status = &restored.container.record.status;
    if !restored.done && status.phase == Phase::Failed {
        let why = status.why.as_deref().unwrap_or("no reason is known");
        let message = format!("The snapshot was not restored: {why}");
        let problem = Problem::new(Kind::OperationFailed, message.clone());
        return Err(match serde_json::to_value(wire::Restored::new(restored, &message)) {
            Ok(data) => problem.with_data(data),
            Err(error) => problem.caused_by(error),
        });
    }
    let message = if restored.done {
        "Snapshot restored successfully"
    } else {
        "The snapshot is being restored; ask for the container to see it end"
    };
    Ok(Answer::ok(message, wire::Restored::new(restored, message)).into_response())
}

async fn delete(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Container>,
    segments: Segments,
) -> Result<Answer<wire::DeletedSnapshot>, Problem> {
    let snapshot = front.control.delete_snapshot(&actor, id, segments.get("name")).await?;
    let deleted = wire::DeletedSnapshot::new(&snapshot);
    Ok(Answer::ok("Snapshot deleted successfully", deleted))
}

async fn rename(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Container>,
    segments: Segments,
    body: JsonObject,
) -> Result<Answer<wire::OneSnapshot>, Problem> {
    let mut fields = body.fields(&RENAME);
    let alias = fields.text("alias").patch();
    let alias = fields.finish(Some(alias))?;
    let name = segments.get("name");
    let snapshot = front.control.rename_snapshot(&actor, id, name, alias).await?;
    Ok(Answer::ok("Snapshot alias updated successfully", wire::OneSnapshot::new(&snapshot)))
}
