//! Who else may do what with a project; the reference calls the grants permissions.

use axum::extract::{OriginalUri, State};
use gantry_control::{MemberSort, Page};
use gantry_model::{FieldError, MemberId, id::kind, project::Level};

use crate::{
    Front,
    answer::Answer,
    body::JsonObject,
    caller::{Caller, PathId},
    fields::{Field, Holds},
    problem::{Kind, Problem},
    proxy::Segments,
    query::{self, Holds as Asks, Param, Query},
    surface::{Method, Operation, Surface, UPDATE},
    wire,
};

const TAG: &str = "Project permissions";
/// How many a page has unless asked otherwise.
const LIMIT: u32 = 20;

/// What is said to whoever lets others in.
const WARNING: &str = "Who may see a container knows its address, now and after leaving. Without a \
                       permission document, the project's or its own, it opens to whoever knows the \
                       address, terminal and files included: set a document before inviting. \
                       Environment variables are shown at `read` already. A token grants only what it \
                       can do itself, and nothing if it is bound to realms or addresses or ends. A \
                       project has at most `control.members_per_project` members, and a user is a \
                       member of at most 1,000 projects.";

const LEVEL: Field = Field::new(
    "permission_level",
    Holds::Word(&["read", "edit", "delete"]),
    "What the user may do with the project and all in it; each level includes those before",
);

static LIST: [Param; 4] = [
    query::PAGE,
    query::LIMIT,
    Param::new(
        "sort_by",
        Asks::Sort(&["id", "user_id", "permission_level", "created_at", "updated_at"]),
        "The order",
    ),
    query::SORT_ORDER,
];
static CREATE: [Field; 2] =
    [Field::new("user_id", Holds::Id, "The user, who tells it").required(), LEVEL.required()];
static CHANGE: [Field; 1] = [LEVEL.required()];

pub(crate) fn surface(surface: Surface) -> Surface {
    let all = &["/api/v1/projects/{id}/permissions"];
    let one = &["/api/v1/projects/{id}/permissions/{permission_id}"];
    surface
        .serve(
            &[Method::Get],
            all,
            list,
            &Operation::new("listProjectPermissions", TAG, "Lists who else may use a project")
                .params(&LIST)
                .answers::<wire::ProjectPermissions>(200),
        )
        .serve(
            &[Method::Post],
            all,
            create,
            &Operation::new("createProjectPermission", TAG, "Lets another user use a project")
                .described(WARNING)
                .takes(&CREATE)
                .answers::<wire::ProjectPermission>(201),
        )
        .serve(
            &UPDATE,
            one,
            update,
            &Operation::new("updateProjectPermission", TAG, "Lets a user do more or less")
                .takes(&CHANGE)
                .answers::<wire::ProjectPermission>(200),
        )
        .serve(
            &[Method::Delete],
            one,
            delete,
            &Operation::new(
                "deleteProjectPermission",
                TAG,
                "Lets a user use a project no longer; everybody may give up their own",
            ),
        )
}

async fn list(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Project>,
    OriginalUri(uri): OriginalUri,
) -> Result<Answer<wire::ProjectPermissions>, Problem> {
    let mut query = Query::new(&uri, &LIST);
    let page = query.count("page").unwrap_or(1);
    let limit = query.count("limit").unwrap_or(LIMIT);
    let sorts = [
        ("id", MemberSort::Id),
        ("user_id", MemberSort::User),
        ("permission_level", MemberSort::Level),
        ("created_at", MemberSort::CreatedAt),
        ("updated_at", MemberSort::UpdatedAt),
    ];
    let sort = query.word("sort_by", &sorts).unwrap_or(MemberSort::CreatedAt);
    let descending = query.descending();
    query.finish()?;
    let listed = front.control.members(&actor, id, Page { page, limit, sort, descending }).await?;
    let pagination = wire::Pagination::new(listed.total, page, limit);
    let permissions = wire::ProjectPermissions::new(&listed.items, pagination);
    Ok(Answer::ok("Project permissions retrieved successfully", permissions))
}

async fn create(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Project>,
    body: JsonObject,
) -> Result<Answer<wire::ProjectPermission>, Problem> {
    let mut fields = body.fields(&CREATE);
    let user = fields.id::<kind::User>("user_id").value();
    let level = fields.word("permission_level", Level::from_word).value();
    let (user, level) = fields.finish(user.zip(level))?;
    let member = front.control.add_member(&actor, id, user, level).await?;
    let permission = wire::ProjectPermission::new(&member);
    Ok(Answer::created("Project permission created successfully", permission))
}

async fn update(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Project>,
    segments: Segments,
    body: JsonObject,
) -> Result<Answer<wire::ProjectPermission>, Problem> {
    let permission = permission_id(&segments)?;
    let mut fields = body.fields(&CHANGE);
    let level = fields.word("permission_level", Level::from_word).value();
    let level = fields.finish(level)?;
    let member = front.control.change_member(&actor, id, permission, level).await?;
    let permission = wire::ProjectPermission::new(&member);
    Ok(Answer::ok("Project permission updated successfully", permission))
}

async fn delete(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Project>,
    segments: Segments,
) -> Result<Answer<()>, Problem> {
    let permission = permission_id(&segments)?;
    front.control.remove_member(&actor, id, permission).await?;
    Ok(Answer::ok("Project permission deleted successfully", ()))
}

fn permission_id(segments: &Segments) -> Result<MemberId, Problem> {
    let name = "permission_id";
    segments.get(name).parse().map_err(|error: gantry_model::InvalidId| {
        Problem::fields(Kind::InvalidId, &[FieldError::new(name, error.to_string())])
    })
}
