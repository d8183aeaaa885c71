//! Containers: making, looking, changing, removing.

use std::time::{Duration, Instant};

use axum::extract::{OriginalUri, State};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use gantry_control::{
    Actor, Condition, ContainerQuery, ContainerSort, ContainerView, Controller, Error, Extra, Leaf,
    LogSort, Page,
};
use gantry_model::{ContainerId, FieldError, ProjectId, id::kind};
use http::Uri;
use serde_json::Value;

use crate::{
    Front,
    answer::Answer,
    body::JsonObject,
    caller::{Caller, PathId},
    operations::WAIT_DEFAULT,
    problem::Problem,
    query::{self, Holds, Param, Query},
    surface::{Method, Operation, Surface, UPDATE},
    wire,
};

mod body;

const TAG: &str = "Containers";
/// How many containers a page has unless asked otherwise.
const LIMIT: u32 = 50;
/// How many containers of a page are looked into at the same time.
const AT_ONCE: usize = 8;
/// How many status log entries a page has unless asked otherwise.
const LOG_LIMIT: u32 = 10;

const RUNTIME: Param = Param::new(
    "runtime",
    Holds::Text,
    "true, false, or a JSON object of displays, services, network_services and terminals; adds \
     runtime_info, at most 2 s old",
);
const DOMAINS: Param =
    Param::new("include_proxy_domains", Holds::Flag, "Adds the aliases that lead to it");
const PERMISSIONS: Param = Param::new(
    "include_proxy_permissions",
    Holds::Flag,
    "Adds its permissions document; that takes the level edit, and in a list it is left out where the \
     caller only reads",
);
const SORTS: [&str; 5] = ["id", "name", "status", "created_at", "updated_at"];

static LIST: [Param; 11] = [
    query::PAGE,
    query::LIMIT,
    Param::new("sort_by", Holds::Sort(&SORTS), "What the list is ordered by"),
    query::SORT_ORDER,
    query::REALM,
    RUNTIME,
    DOMAINS,
    PERMISSIONS,
    Param::new("include_deleting", Holds::Flag, "Also those that are being deleted"),
    Param::new("include_expired", Holds::Flag, "Accepted; servers do not expire"),
    Param::new("include_prespawn", Holds::Flag, "Also those that wait in the warm pool"),
];
static SHOW: [Param; 3] = [RUNTIME, DOMAINS, PERMISSIONS];
pub(crate) static WAITS: [Param; 2] = [query::WAIT, query::TIMEOUT];
static LOGS: [Param; 4] = [
    query::PAGE,
    query::LIMIT,
    Param::new(
        "sort_by",
        Holds::Sort(&["transition_time", "created_at", "to_status", "from_status"]),
        "What the list is ordered by",
    ),
    query::SORT_ORDER,
];

pub(crate) fn surface(surface: Surface) -> Surface {
    let one = &["/api/v1/containers/{id}"];
    let of_project = &["/api/v1/projects/{id}/containers"];
    let get = &[Method::Get];
    let listing = |id, summary| {
        Operation::new(id, TAG, summary).params(&LIST).answers::<wire::Containers>(200)
    };
    surface
        .serve(
            get,
            &["/api/v1/containers/", "/api/v1/containers"],
            list,
            &listing("listContainers", "Lists the caller's containers"),
        )
        .serve(
            get,
            of_project,
            list_of_project,
            &listing("listProjectContainers", "Lists the containers of a project"),
        )
        .serve(
            &[Method::Post],
            of_project,
            create,
            &Operation::new("createContainer", TAG, "Makes and starts a container")
                .params(&WAITS)
                .takes(&body::CREATE)
                .answers::<wire::Container>(201),
        )
        .serve(
            get,
            one,
            show,
            &Operation::new("getContainer", TAG, "Shows a container")
                .params(&SHOW)
                .answers::<wire::Container>(200),
        )
        .serve(
            &UPDATE,
            one,
            update,
            &Operation::new("updateContainer", TAG, "Changes the given fields of a container")
                .takes(&body::CHANGE)
                .answers::<wire::Container>(200),
        )
        .serve(
            &[Method::Delete],
            one,
            delete,
            &Operation::new("deleteContainer", TAG, "Stops and removes a container").params(&WAITS),
        )
        .serve(
            get,
            &["/api/v1/containers/{id}/status-logs"],
            status_logs,
            &Operation::new(
                "listStatusLogs",
                TAG,
                "Lists the states that a container went through",
            )
            .params(&LOGS)
            .answers::<wire::StatusLogs>(200),
        )
        .serve(
            get,
            &["/api/v1/containers/{id}/stats"],
            stats,
            &Operation::new("getContainerStats", TAG, "Shows what a container uses")
                .answers::<wire::Stats>(200),
        )
}

fn print(front: &Front, view: &ContainerView, include: wire::Include) -> wire::Container {
    wire::Container::new(view, front.urls(), include)
}

/// As [`print()`], with everything that is asked for and, of what runs inside, with what is known then.
async fn print_all(
    front: &Front,
    actor: &Actor,
    view: &ContainerView,
    include: wire::Include,
    until: Instant,
) -> Result<wire::Container, Problem> {
    let extras = front.control.extras(actor, view, include.extras).await?;
    let container = print(front, view, include).with_extras(view, front.urls(), &extras);
    let Some(parts) = include.runtime else { return Ok(container) };
    Ok(match front.control.inside(view, until).await {
        Some(inside) => container.with_inside(view, &inside, parts),
        None => container,
    })
}

async fn list(
    State(front): State<Front>,
    Caller(actor): Caller,
    OriginalUri(uri): OriginalUri,
) -> Result<Answer<wire::Containers>, Problem> {
    list_where(&front, &actor, &uri, None).await
}

async fn list_of_project(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Project>,
    OriginalUri(uri): OriginalUri,
) -> Result<Answer<wire::Containers>, Problem> {
    list_where(&front, &actor, &uri, Some(id)).await
}

async fn list_where(
    front: &Front,
    actor: &Actor,
    uri: &Uri,
    project: Option<ProjectId>,
) -> Result<Answer<wire::Containers>, Problem> {
    let mut query = Query::new(uri, &LIST);
    let page = query.count("page").unwrap_or(1);
    let limit = query.count("limit").unwrap_or(LIMIT);
    let sorts = [
        ("id", ContainerSort::Id),
        ("name", ContainerSort::Name),
        ("status", ContainerSort::Status),
        ("created_at", ContainerSort::CreatedAt),
        ("updated_at", ContainerSort::UpdatedAt),
    ];
    let sort = query.word("sort_by", &sorts).unwrap_or(ContainerSort::CreatedAt);
    let descending = query.descending();
    let realm = query.id("realm_id");
    let mut include = include(&mut query);
    include.extras.is_listed = true;
    let include_deleting = query.flag("include_deleting").unwrap_or(false);
    query.flag("include_expired");
    let include_prespawn = query.flag("include_prespawn").unwrap_or(false);
    query.finish()?;
    let page_of = Page { page, limit, sort, descending };
    let asked =
        ContainerQuery { project, realm, include_deleting, include_prespawn, page: page_of };
    let listed = front.control.containers(actor, asked).await?;
    let until = Controller::inside_deadline();
    let prints = listed
        .items
        .into_iter()
        .map(|view| async move { print_all(front, actor, &view, include, until).await });
    // What runs inside is asked of all at once, so that the silent ones hide nobody.
    let at_once = if include.runtime.is_some() { query::LIMIT_MAX as usize } else { AT_ONCE };
    let containers = stream::iter(prints).buffered(at_once).try_collect().await?;
    let pagination = wire::Pagination::new(listed.total, page, limit);
    Ok(Answer::ok(
        "Containers retrieved successfully",
        wire::Containers::new(containers, pagination),
    ))
}

/// Which parts of what runs inside are asked for; an empty object asks for all.
fn parts(text: &str) -> Result<Option<wire::Parts>, &'static str> {
    const RULE: &str = "must be true, false, or a JSON object whose fields are displays, services, \
                        network_services or terminals and whose values are true or false";
    let object = match serde_json::from_str(text).map_err(|_why| RULE)? {
        Value::Bool(wanted) => return Ok(wanted.then_some(wire::Parts::ALL)),
        Value::Object(object) if object.is_empty() => return Ok(Some(wire::Parts::ALL)),
        Value::Object(object) => object,
        Value::Null | Value::Number(_) | Value::String(_) | Value::Array(_) => return Err(RULE),
    };
    let mut parts = wire::Parts::default();
    for (name, wanted) in object {
        let part = match name.as_str() {
            "displays" => &mut parts.displays,
            "services" => &mut parts.services,
            "network_services" => &mut parts.network_services,
            "terminals" => &mut parts.terminals,
            _ => return Err(RULE),
        };
        *part = wanted.as_bool().ok_or(RULE)?;
    }
    Ok(Some(parts))
}

/// Which optional parts are asked for.
fn include(query: &mut Query) -> wire::Include {
    let runtime = match query.text("runtime").as_deref().map(parts) {
        None => None,
        Some(Ok(parts)) => parts,
        Some(Err(rule)) => {
            query.refuse(FieldError::new("runtime", rule));
            None
        }
    };
    wire::Include {
        warnings: false,
        runtime,
        extras: Extra {
            aliases: query.flag("include_proxy_domains").unwrap_or(false),
            access: query.flag("include_proxy_permissions").unwrap_or(false),
            is_listed: false,
        },
    }
}

/// What the client waits for, if it says so, and for how long.
pub(crate) fn wait(uri: &Uri) -> Result<Option<(Condition, Duration)>, Problem> {
    let mut query = Query::new(uri, &WAITS);
    let words = [
        ("running", Condition::Running),
        ("stopped", Condition::Stopped),
        ("paused", Condition::Paused),
        ("deleted", Condition::Deleted),
    ];
    let condition = query.word("wait", &words);
    let seconds = query.count("timeout");
    query.finish()?;
    let timeout = seconds.map_or(WAIT_DEFAULT, |seconds| Duration::from_secs(seconds.into()));
    Ok(condition.map(|condition| (condition, timeout)))
}

async fn create(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(project): PathId<kind::Project>,
    OriginalUri(uri): OriginalUri,
    body: JsonObject,
) -> Result<Answer<wire::Container>, Problem> {
    let wait = wait(&uri)?;
    let new = body::create(body)?;
    if wait.is_some() {
        // Looked at before anything is made: waiting shows the container.
        actor.require(Leaf::ContainersRead).map_err(Error::from)?;
    }
    let mut view = front.control.create_container(&actor, project, new).await?;
    if let Some((condition, timeout)) = wait {
        let id = view.record.id;
        let waited = front.control.wait_for(&actor, id, condition, timeout).await?;
        view = waited.container.unwrap_or(view);
    }
    let container = print(&front, &view, wire::Include::default()).into_new();
    Ok(Answer::created("Container created successfully", container))
}

async fn show(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Container>,
    OriginalUri(uri): OriginalUri,
) -> Result<Answer<wire::Container>, Problem> {
    let mut query = Query::new(&uri, &SHOW);
    let include = wire::Include { warnings: true, ..include(&mut query) };
    query.finish()?;
    let view = front.control.container(&actor, id).await?;
    let until = Controller::inside_deadline();
    let container = print_all(&front, &actor, &view, include, until).await?;
    Ok(Answer::ok("Container retrieved successfully", container))
}

async fn update(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Container>,
    body: JsonObject,
) -> Result<Answer<wire::Container>, Problem> {
    let change = body::change(body)?;
    let view = front.control.update_container(&actor, id, change).await?;
    let container = print(&front, &view, wire::Include::default());
    Ok(Answer::ok("Container updated successfully", container))
}

async fn delete(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Container>,
    OriginalUri(uri): OriginalUri,
) -> Result<Answer<()>, Problem> {
    let wait = wait(&uri)?;
    let id: ContainerId = id;
    front.control.delete_container(&actor, id).await?;
    let timeout = wait.map_or(front.config.settle_timeout, |(_, timeout)| timeout);
    // Most deletions are done in this time, and then the next GET is a 404; if not, or if the
    // caller may not look, the deletion goes on by itself.
    let gone = front.control.wait_for(&actor, id, Condition::Deleted, timeout).await;
    let done = match gone {
        Ok(waited) => waited.met,
        Err(Error::NotFound(_)) => true,
        Err(error) => {
            tracing::debug!(target: "api", %error, "a deletion was not waited for");
            false
        }
    };
    let message =
        if done { "Container deleted successfully" } else { "The container is being deleted" };
    Ok(Answer::ok(message, ()))
}

async fn status_logs(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Container>,
    OriginalUri(uri): OriginalUri,
) -> Result<Answer<wire::StatusLogs>, Problem> {
    let mut query = Query::new(&uri, &LOGS);
    let page = query.count("page").unwrap_or(1);
    let limit = query.count("limit").unwrap_or(LOG_LIMIT);
    let sorts = [
        ("transition_time", LogSort::At),
        ("created_at", LogSort::At),
        ("to_status", LogSort::To),
        ("from_status", LogSort::From),
    ];
    let sort = query.word("sort_by", &sorts).unwrap_or(LogSort::At);
    let descending = query.descending();
    query.finish()?;
    let page_of = Page { page, limit, sort, descending };
    let listed = front.control.status_logs(&actor, id, page_of).await?;
    let pagination = wire::Pagination::new(listed.total, page, limit);
    let logs = wire::StatusLogs::new(&listed.items, pagination);
    Ok(Answer::ok("Container status logs retrieved successfully", logs))
}

async fn stats(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Container>,
) -> Result<Answer<wire::Stats>, Problem> {
    let asked = Instant::now();
    let stats = front.control.container_stats(&actor, id).await?;
    let took_ms = asked.elapsed().as_millis();
    Ok(Answer::ok("Container stats retrieved successfully", wire::Stats::new(&stats, took_ms)))
}
