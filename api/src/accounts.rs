//! Accounts and what was done with them.

use axum::{
    extract::{OriginalUri, State},
    response::Response,
};
use gantry_control::{AccountChange, ActivityQuery, LimitsChange};
use gantry_model::{FieldError, id::kind};
use http::Uri;
use time::{Date, OffsetDateTime, format_description::well_known::Iso8601};

use crate::{
    Front,
    answer::Answer,
    body::JsonObject,
    caller::{Address, Caller, PathId},
    fields::{Field, Holds},
    problem::Problem,
    query::{self, Holds as Asks, Param, Query},
    surface::{Method, Operation, Surface, UPDATE},
    wire,
};

const TAG: &str = "Users";
/// How many entries a page of the activity log has unless asked otherwise.
const LIMIT: u32 = 50;

static CREATE: [Field; 2] = [
    Field::new(
        "username",
        Holds::Text { min: 3, max: 50 },
        "Letters, digits, hyphens and underscores; unique",
    )
    .required(),
    Field::new("password", Holds::Text { min: 8, max: 128 }, "Its first password").required(),
];

static CHANGE: [Field; 8] = [
    Field::new("alias", Holds::Text { min: 1, max: 100 }, "Its name for people").nullable(),
    Field::new("public_key", Holds::Text { min: 64, max: 64 }, "64 hexadecimal digits").nullable(),
    Field::new("metadata", Holds::Object, "What clients keep, at most 16 KiB"),
    Field::new(
        "password",
        Holds::Text { min: 8, max: 128 },
        "The new password; it ends every session of the account",
    ),
    Field::new(
        "current_password",
        Holds::Text { min: 8, max: 128 },
        "The present password; needed to change it",
    ),
    Field::new(
        "max_containers",
        Holds::Count,
        "How many containers its projects may have; null for what all accounts may have; only for \
         administrators, of any account",
    )
    .nullable(),
    Field::new(
        "max_running_containers",
        Holds::Count,
        "How many of them may run or be paused; only for administrators",
    )
    .nullable(),
    Field::new("max_projects", Holds::Count, "How many projects; only for administrators")
        .nullable(),
];

const METHODS: [&str; 4] = ["POST", "PUT", "PATCH", "DELETE"];

static ACTIVITY: [Param; 10] = [
    query::PAGE,
    query::LIMIT,
    query::SORT_ORDER,
    query::REALM,
    Param::new("start_date", Asks::Text, "Only of this time or later, ISO 8601"),
    Param::new("end_date", Asks::Text, "Only of this time or earlier, ISO 8601"),
    Param::new("errors_only", Asks::Flag, "Only answers of 400 and above"),
    Param::new("min_status", STATUS, "Only answers with this status or above"),
    Param::new("max_status", STATUS, "Only answers with this status or below"),
    Param::new("method", Asks::Word(&METHODS), "Only requests with this method"),
];
const STATUS: Asks = Asks::Count { min: 100, max: 599 };

static MILESTONE: [Field; 1] = [Field::new(
    "milestone",
    Holds::Text { min: 1, max: 41 },
    "What was shown, such as hub_tour_v1",
)
.required()];

static HISTORY: [Param; 3] = [query::PAGE, query::LIMIT, query::SORT_ORDER];

pub(crate) fn surface(surface: Surface) -> Surface {
    let get = &[Method::Get];
    let one = &["/api/v1/users/{id}"];
    onboarding(surface)
        .serve(
            &[Method::Post],
            &["/api/v1/users", "/api/v1/users/"],
            create,
            &Operation::new("createUser", TAG, "Makes an account; only for administrators")
                .takes(&CREATE)
                .answers::<wire::User>(201),
        )
        .serve(
            get,
            one,
            show,
            &Operation::new("getUser", TAG, "Shows the own account; to administrators any")
                .answers::<wire::User>(200),
        )
        .serve(
            &UPDATE,
            one,
            update,
            &Operation::new("updateUser", TAG, "Changes the given fields of the own account; administrators may set the limits of any")
                .takes(&CHANGE)
                .answers::<wire::User>(200),
        )
        .serve(
            get,
            &["/api/v1/users/me/security-history"],
            history,
            &Operation::new(
                "getSecurityHistory",
                TAG,
                "Lists logins, logouts and changes of passwords and tokens",
            )
            .params(&HISTORY)
            .answers_list::<wire::Activity>(200)
            .with_metadata(),
        )
        .serve(
            get,
            &["/api/v1/users/auth/activity"],
            activity,
            &Operation::new(
                "listActivity",
                TAG,
                "Lists the caller's requests that were no reads, with their answers' statuses",
            )
            .params(&ACTIVITY)
            .answers_list::<wire::Activity>(200)
            .with_metadata(),
        )
        .serve(
            get,
            &["/api/v1/users/auth/activity/stats"],
            totals,
            &Operation::new("getActivityStats", TAG, "Says how much activity is kept")
                .answers::<wire::ActivityTotals>(200),
        )
}

fn onboarding(surface: Surface) -> Surface {
    surface.serve(
        &[Method::Post],
        &["/api/v1/users/me/onboarding"],
        onboard,
        &Operation::new(
            "noteMilestone",
            TAG,
            "Notes that a client has shown something to the user; only for sessions",
        )
        .takes(&MILESTONE)
        .answers::<wire::Onboarding>(200),
    )
}

async fn create(
    State(front): State<Front>,
    Caller(actor): Caller,
    body: JsonObject,
) -> Result<Answer<wire::User>, Problem> {
    let mut fields = body.fields(&CREATE);
    let username = fields.text("username").value();
    let password = fields.text("password").value();
    let (username, password) = fields.finish(username.zip(password))?;
    let account = front.control.create_user(&actor, &username, &password).await?;
    Ok(Answer::created("User created successfully", wire::User::new(&account)))
}

async fn show(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::User>,
) -> Result<Answer<wire::User>, Problem> {
    let account = front.control.account(&actor, id).await?;
    let user = wire::User::for_actor(&account, &actor);
    Ok(Answer::ok("User retrieved successfully", user))
}

async fn update(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::User>,
    Address(address): Address,
    body: JsonObject,
) -> Result<Answer<wire::User>, Problem> {
    let mut fields = body.fields(&CHANGE);
    let change = AccountChange {
        alias: fields.text("alias").patch(),
        public_key: fields.text("public_key").patch(),
        metadata: fields.object("metadata").value(),
        password: fields.text("password").value(),
        current_password: fields.text("current_password").value(),
        limits: LimitsChange {
            containers: fields.count("max_containers").patch(),
            running_containers: fields.count("max_running_containers").patch(),
            projects: fields.count("max_projects").patch(),
        },
    };
    let change = fields.finish(Some(change))?;
    let account = front.control.update_account(&actor, id, change, address).await?;
    Ok(Answer::ok("User updated successfully", wire::User::new(&account)))
}

async fn onboard(
    State(front): State<Front>,
    Caller(actor): Caller,
    body: JsonObject,
) -> Result<Answer<wire::Onboarding>, Problem> {
    let mut fields = body.fields(&MILESTONE);
    let milestone = fields.text("milestone").value();
    let milestone = fields.finish(milestone)?;
    let account = front.control.reach_milestone(&actor, &milestone).await?;
    Ok(Answer::ok("Onboarding updated successfully", wire::Onboarding::new(&account)))
}

async fn activity(
    State(front): State<Front>,
    Caller(actor): Caller,
    OriginalUri(uri): OriginalUri,
) -> Result<Response, Problem> {
    let mut query = Query::new(&uri, &ACTIVITY);
    let status = |count: Option<u32>| count.and_then(|count| u16::try_from(count).ok());
    let errors_only = query.flag("errors_only").unwrap_or(false);
    let status_min = status(query.count("min_status"));
    let asked = ActivityQuery {
        realm: query.id("realm_id"),
        method: query.word("method", &METHODS.map(|word| (word, word))).map(str::to_owned),
        status_min: if errors_only { Some(status_min.unwrap_or(0).max(400)) } else { status_min },
        status_max: status(query.count("max_status")),
        from_ms: time_of(&mut query, "start_date"),
        to_ms: time_of(&mut query, "end_date"),
        security: false,
        page: query.count("page").unwrap_or(1),
        limit: query.count("limit").unwrap_or(LIMIT),
        descending: query.descending(),
    };
    query.finish()?;
    let (page, limit) = (asked.page, asked.limit);
    let listed = front.control.activity(&actor, asked).await?;
    let entries: Vec<_> = listed.items.iter().map(wire::Activity::new).collect();
    let metadata = wire::Metadata::new(listed.total, page, limit);
    Ok(Answer::ok("Activity retrieved successfully", entries).with_metadata(&metadata))
}

/// A point in time, or the beginning of a day in UTC, in milliseconds since the epoch.
pub(crate) fn day_or_time(text: &str) -> Option<i64> {
    let time = OffsetDateTime::parse(text, &Iso8601::PARSING).ok();
    let day = || Date::parse(text, &Iso8601::PARSING).ok().map(|day| day.midnight().assume_utc());
    let read = time.or_else(day).map(|time| time.unix_timestamp_nanos() / 1_000_000);
    read.and_then(|at_ms| i64::try_from(at_ms).ok())
}

/// The same as a parameter.
pub(crate) fn time_of(query: &mut Query, name: &str) -> Option<i64> {
    let at_ms = day_or_time(&query.text(name)?);
    if at_ms.is_none() {
        query.refuse(FieldError::new(name, "must be a day or a time with zone in ISO 8601"));
    }
    at_ms
}

async fn history(
    State(front): State<Front>,
    Caller(actor): Caller,
    OriginalUri(uri): OriginalUri,
) -> Result<Response, Problem> {
    let asked = ActivityQuery { security: true, ..paging(&uri)? };
    let (page, limit) = (asked.page, asked.limit);
    let listed = front.control.activity(&actor, asked).await?;
    let entries: Vec<_> = listed.items.iter().map(wire::Activity::new).collect();
    let metadata = wire::Metadata::new(listed.total, page, limit);
    Ok(Answer::ok("Security history retrieved successfully", entries).with_metadata(&metadata))
}

fn paging(uri: &Uri) -> Result<ActivityQuery, Problem> {
    let mut query = Query::new(uri, &HISTORY);
    let asked = ActivityQuery {
        page: query.count("page").unwrap_or(1),
        limit: query.count("limit").unwrap_or(LIMIT),
        descending: query.descending(),
        ..ActivityQuery::default()
    };
    query.finish()?;
    Ok(asked)
}

async fn totals(
    State(front): State<Front>,
    Caller(actor): Caller,
) -> Result<Answer<wire::ActivityTotals>, Problem> {
    let totals = front.control.activity_totals(&actor).await?;
    Ok(Answer::ok("Activity stats retrieved successfully", wire::ActivityTotals::new(&totals)))
}
