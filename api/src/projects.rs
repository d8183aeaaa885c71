//! Projects.

use std::time::Instant;

use axum::extract::{OriginalUri, State};
use gantry_control::{
    ContainerQuery, ContainerSort, MEMBERS_MAX, NewProject, Page, Project, ProjectChange,
    ProjectSort,
};
use gantry_model::{container::Color, id::kind, project::ProjectAlias};

use crate::{
    Front,
    answer::Answer,
    body::JsonObject,
    caller::{Caller, PathId},
    fields::{Field, Given, Holds},
    problem::Problem,
    query::{self, Holds as Asks, Param, Query},
    surface::{Method, Operation, Surface, UPDATE},
    wire,
};

const TAG: &str = "Projects";
/// How many projects a page has unless asked otherwise.
const LIMIT: u32 = 20;
/// How many members are shown of each project in a list; they stand in the descriptions, too.
const LISTED_MEMBERS: u32 = 20;

const ALIAS: Field =
    Field::new("alias", Holds::Text { min: 1, max: 100 }, "Its name for people, unique per owner");

static CREATE: [Field; 4] = [
    ALIAS.required(),
    Field::new("color", Holds::Text { min: 3, max: 7 }, "#RGB or #RRGGBB; random when absent"),
    Field::new("max_containers", Holds::Count, "The most containers; null is unlimited").nullable(),
    Field::new("realm_ids", Holds::Ids, "The realms that it is visible in, at most 64"),
];

static CHANGE: [Field; 4] = [
    ALIAS,
    Field::new("color", Holds::Text { min: 3, max: 7 }, "#RGB or #RRGGBB"),
    Field::new("max_containers", Holds::Count, "The most containers; null is unlimited").nullable(),
    Field::new("realm_ids", Holds::Ids, "The realms that it is visible in, at most 64"),
];

static LIST: [Param; 6] = [
    query::PAGE,
    query::LIMIT,
    Param::new("sort_by", Asks::Sort(&["id", "alias", "created_at", "updated_at"]), "The order"),
    query::SORT_ORDER,
    query::REALM,
    Param::new(
        "include_permissions",
        Asks::Flag,
        "Adds the grants to other users, of each project the first 20; a project by itself shows all",
    ),
];

static SHOW: [Param; 1] =
    [Param::new("include_permissions", Asks::Flag, "Adds the grants to other users")];

static STATS: [Param; 2] = [query::PAGE, query::LIMIT];

static DELETE: [Param; 1] =
    [Param::new("include_deleted_items", Asks::Flag, "Adds what was deleted with it")];

pub(crate) fn surface(surface: Surface) -> Surface {
    let all = &["/api/v1/projects/", "/api/v1/projects"];
    let one = &["/api/v1/projects/{id}"];
    surface
        .serve(
            &[Method::Get],
            all,
            list,
            &Operation::new("listProjects", TAG, "Lists the caller's projects")
                .params(&LIST)
                .answers::<wire::Projects>(200),
        )
        .serve(
            &[Method::Post],
            all,
            create,
            &Operation::new("createProject", TAG, "Makes a project")
                .takes(&CREATE)
                .answers::<wire::Project>(201),
        )
        .serve(
            &[Method::Get],
            one,
            show,
            &Operation::new("getProject", TAG, "Shows a project")
                .params(&SHOW)
                .answers::<wire::Project>(200),
        )
        .serve(
            &UPDATE,
            one,
            update,
            &Operation::new("updateProject", TAG, "Changes the given fields of a project")
                .takes(&CHANGE)
                .answers::<wire::Project>(200),
        )
        .serve(
            &[Method::Delete],
            one,
            delete,
            &Operation::new("deleteProject", TAG, "Deletes a project with all its containers")
                .params(&DELETE)
                .answers::<wire::DeletedProject>(200),
        )
        .serve(
            &[Method::Get],
            &["/api/v1/projects/{id}/stats"],
            stats,
            &Operation::new(
                "getProjectStats",
                TAG,
                "Shows what the containers of a project use, newest first, 100 a page",
            )
            .params(&STATS)
            .answers::<wire::ProjectStats>(200),
        )
}

async fn list(
    State(front): State<Front>,
    Caller(actor): Caller,
    OriginalUri(uri): OriginalUri,
) -> Result<Answer<wire::Projects>, Problem> {
    let mut query = Query::new(&uri, &LIST);
    let page = query.count("page").unwrap_or(1);
    let limit = query.count("limit").unwrap_or(LIMIT);
    let sorts = [
        ("id", ProjectSort::Id),
        ("alias", ProjectSort::Alias),
        ("created_at", ProjectSort::CreatedAt),
        ("updated_at", ProjectSort::UpdatedAt),
    ];
    let sort = query.word("sort_by", &sorts).unwrap_or(ProjectSort::CreatedAt);
    let descending = query.descending();
    let realm = query.id("realm_id");
    let with_permissions = query.flag("include_permissions").unwrap_or(false);
    query.finish()?;
    let listed =
        front.control.projects(&actor, realm, Page { page, limit, sort, descending }).await?;
    let mut projects = Vec::with_capacity(listed.items.len());
    for project in &listed.items {
        projects.push(print(&front, project, with_permissions.then_some(LISTED_MEMBERS)).await?);
    }
    let pagination = wire::Pagination::new(listed.total, page, limit);
    Ok(Answer::ok("Projects retrieved successfully", wire::Projects::new(projects, pagination)))
}

async fn create(
    State(front): State<Front>,
    Caller(actor): Caller,
    body: JsonObject,
) -> Result<Answer<wire::Project>, Problem> {
    let new = new_project(body)?;
    let project = front.control.create_project(&actor, new).await?;
    Ok(Answer::created("Project created successfully", wire::Project::new(&project, None)))
}

/// A project, with so many of its members if those are wanted.
async fn print(
    front: &Front,
    project: &Project,
    members: Option<u32>,
) -> Result<wire::Project, Problem> {
    let Some(max) = members else { return Ok(wire::Project::new(project, None)) };
    let members = front.control.members_of(project, max).await?;
    Ok(wire::Project::new(project, Some(&members)))
}

fn new_project(body: JsonObject) -> Result<NewProject, Problem> {
    let mut fields = body.fields(&CREATE);
    let alias = fields.checked("alias", alias).value();
    let color = fields.checked("color", color).value();
    let max_containers = fields.count("max_containers").value().map(i64::from);
    let realm_ids = fields.realms("realm_ids").value().unwrap_or_default();
    fields.finish(Some(NewProject { alias, color, max_containers, realm_ids }))
}

async fn show(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Project>,
    OriginalUri(uri): OriginalUri,
) -> Result<Answer<wire::Project>, Problem> {
    let mut query = Query::new(&uri, &SHOW);
    let with_permissions = query.flag("include_permissions").unwrap_or(false);
    query.finish()?;
    let project = front.control.project(&actor, id).await?;
    let project = print(&front, &project, with_permissions.then_some(MEMBERS_MAX)).await?;
    Ok(Answer::ok("Project retrieved successfully", project))
}

async fn update(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Project>,
    body: JsonObject,
) -> Result<Answer<wire::Project>, Problem> {
    let change = project_change(body)?;
    let project = front.control.update_project(&actor, id, change).await?;
    Ok(Answer::ok("Project updated successfully", wire::Project::new(&project, None)))
}

fn project_change(body: JsonObject) -> Result<ProjectChange, Problem> {
    let mut fields = body.fields(&CHANGE);
    let alias = fields.checked("alias", alias).value();
    let color = fields.checked("color", color).value();
    let max_containers = match fields.count("max_containers") {
        Given::Absent => Given::Absent,
        Given::Null => Given::Null,
        Given::Value(max) => Given::Value(i64::from(max)),
    };
    let max_containers = max_containers.patch();
    let realm_ids = fields.realms("realm_ids").value();
    fields.finish(Some(ProjectChange { alias, color, max_containers, realm_ids }))
}

async fn delete(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Project>,
    OriginalUri(uri): OriginalUri,
) -> Result<Answer<wire::DeletedProject>, Problem> {
    let mut query = Query::new(&uri, &DELETE);
    let with_items = query.flag("include_deleted_items").unwrap_or(false);
    query.finish()?;
    let deleted = front.control.delete_project(&actor, id).await?;
    let deleted = wire::DeletedProject::new(&deleted, with_items);
    Ok(Answer::ok("Project deleted successfully", deleted))
}

fn alias(field: &str, text: &str) -> Result<(), gantry_model::FieldError> {
    ProjectAlias::parse(field, text).map(drop)
}

fn color(field: &str, text: &str) -> Result<(), gantry_model::FieldError> {
    Color::parse(field, text).map(drop)
}

async fn stats(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Project>,
    OriginalUri(uri): OriginalUri,
) -> Result<Answer<wire::ProjectStats>, Problem> {
    let mut query = Query::new(&uri, &STATS);
    let page = query.count("page").unwrap_or(1);
    let limit = query.count("limit").unwrap_or(query::LIMIT_MAX);
    query.finish()?;
    let asked = Instant::now();
    let project = front.control.project(&actor, id).await?;
    let page = Page { page, limit, sort: ContainerSort::CreatedAt, descending: true };
    let query = ContainerQuery {
        project: Some(id),
        realm: None,
        include_deleting: false,
        include_prespawn: false,
        page,
    };
    let stats = front.control.project_stats(&actor, query).await?;
    let took_ms = asked.elapsed().as_millis();
    let stats = wire::ProjectStats::new(&project, &stats, took_ms);
    Ok(Answer::ok("Project stats retrieved successfully", stats))
}
