//! The firewall rules of a container.

use axum::{
    extract::State,
    response::{IntoResponse as _, Response},
};
use gantry_control::{AddedRule, RuleFilter};
use gantry_model::{
    FieldError,
    firewall::{Direction, Rule},
    id::kind,
};
use serde_json::{Map, Value, json};

use crate::{
    Front,
    answer::Answer,
    body::JsonObject,
    caller::{Caller, PathId},
    fields::{Field, Fields, Holds},
    problem::{Kind, Problem},
    surface::{Method, Operation, Surface, UPDATE},
    wire,
};

const TAG: &str = "Firewall";

const ACTION: Field = Field::new("action", Holds::Text { min: 4, max: 6 }, "allow, reject or drop");
const PROTOCOL: Field = Field::new("protocol", Holds::Text { min: 3, max: 5 }, "tcp, udp or icmp4");
const DESCRIPTION: Field = Field::new(
    "description",
    Holds::Text { min: 0, max: Rule::DESCRIPTION_MAX },
    "What its owner says of it",
);
const DESTINATION_PORT: Field = Field::new(
    "destination_port",
    Holds::Text { min: 1, max: 64 },
    "Ports as 80, 80-90 or 80,443; required for tcp and udp",
)
.nullable();
const SOURCE_PORT: Field = Field::new(
    "source_port",
    Holds::Text { min: 1, max: 64 },
    "Ports as 80, 80-90 or 80,443; any if absent",
)
.nullable();
const SOURCE: Field = Field::new(
    "source",
    Holds::Text { min: 1, max: 512 },
    "IPv4 addresses, networks and ranges, separated by commas; any if absent",
)
.nullable();
const DESTINATION: Field = Field { name: "destination", ..SOURCE };
const ICMP_TYPE: Field =
    Field::new("icmp_type", Holds::Text { min: 1, max: 8 }, "0 to 255; any if absent").nullable();
const ICMP_CODE: Field = Field { name: "icmp_code", ..ICMP_TYPE };
const STATE: Field =
    Field::new("state", Holds::Text { min: 7, max: 8 }, "enabled or disabled").nullable();
const ALL: Field = Field::new(
    "all",
    Holds::Flag,
    "Every rule that has the fields, not the first alone; alone, every rule of the direction",
);
const NEW_STATE: Field = Field::new(
    "state",
    Holds::Text { min: 7, max: 8 },
    "enabled or disabled: what every rule that has the other fields is to be",
)
.required();

const fn ingress(state: Field) -> [Field; 9] {
    [
        ACTION,
        PROTOCOL,
        DESCRIPTION,
        DESTINATION_PORT,
        SOURCE_PORT,
        SOURCE,
        ICMP_TYPE,
        ICMP_CODE,
        state,
    ]
}

const fn egress(state: Field) -> [Field; 9] {
    let [action, protocol, description, port, source_port, _, kind, code, state] = ingress(state);
    [action, protocol, description, port, source_port, DESTINATION, kind, code, state]
}

const fn new(
    [action, protocol, description, port, from, side, kind, code, state]: [Field; 9],
) -> [Field; 9] {
    let (action, protocol) = (action.required(), protocol.required());
    [action, protocol, description.required(), port, from, side, kind, code, state]
}

/// What rules are to have: nothing can be looked for by `null`.
const fn given(
    [action, protocol, description, port, from, side, kind, code, state]: [Field; 9],
) -> [Field; 9] {
    let [port, from, side, kind, code, state] = [
        Field { nullable: false, ..port },
        Field { nullable: false, ..from },
        Field { nullable: false, ..side },
        Field { nullable: false, ..kind },
        Field { nullable: false, ..code },
        Field { nullable: false, ..state },
    ];
    [action, protocol, description, port, from, side, kind, code, state]
}

const fn removed(
    [action, protocol, description, port, from, side, kind, code, state]: [Field; 9],
) -> [Field; 10] {
    [action, protocol, description, port, from, side, kind, code, state, ALL]
}

static NEW_INGRESS: [Field; 9] = new(ingress(STATE));
static NEW_EGRESS: [Field; 9] = new(egress(STATE));
static SWITCHED_INGRESS: [Field; 9] = given(ingress(NEW_STATE));
static SWITCHED_EGRESS: [Field; 9] = given(egress(NEW_STATE));
static REMOVED_INGRESS: [Field; 10] = removed(given(ingress(STATE)));
static REMOVED_EGRESS: [Field; 10] = removed(given(egress(STATE)));

pub(crate) fn surface(surface: Surface) -> Surface {
    let surface = surface
        .serve(
            &[Method::Get],
            &["/api/v1/containers/{id}/firewall/rules"],
            list,
            &Operation::new("listFirewallRules", TAG, "Lists the firewall rules of a container")
                .answers::<wire::Firewall>(200),
        )
        .serve(
            &[Method::Post],
            &["/api/v1/containers/{id}/firewall/reset"],
            reset,
            &Operation::new("resetFirewall", TAG, "Removes every rule: the container is open")
                .takes(&[])
                .answers::<wire::ResetFirewall>(200),
        );
    let surface = one_way::<In>(surface);
    one_way::<Out>(surface)
}

/// The calls of one direction.
fn one_way<D: Way>(surface: Surface) -> Surface {
    let path = &[D::PATH];
    let (direction, name) = (D::DIRECTION, D::NAME);
    surface
        .serve(
            &[Method::Post],
            path,
            add::<D>,
            &Operation::new(
                format!("add{name}Rule"),
                TAG,
                "Adds a rule after those of its direction; the first that fits a connection decides",
            )
            .takes(table(direction, &NEW_INGRESS, &NEW_EGRESS))
            .answers::<wire::FirewallRules>(201)
            .or_answers::<wire::DuplicateRule>(200),
        )
        .serve(
            &UPDATE,
            path,
            switch::<D>,
            &Operation::new(
                format!("switch{name}Rules"),
                TAG,
                "Switches the rules that have the given fields on or off",
            )
            .takes(table(direction, &SWITCHED_INGRESS, &SWITCHED_EGRESS))
            .answers::<wire::SwitchedRules>(200),
        )
        .serve(
            &[Method::Delete],
            path,
            remove::<D>,
            &Operation::new(
                format!("remove{name}Rules"),
                TAG,
                "Removes the first rule (an enabled one unless state says otherwise) that has the given fields, \
                 or with all every one",
            )
            .takes(table(direction, &REMOVED_INGRESS, &REMOVED_EGRESS))
            .answers::<wire::RemovedRules>(200),
        )
}

/// A direction as part of a path.
trait Way: Send + 'static {
    const DIRECTION: Direction;
    const PATH: &'static str;
    const NAME: &'static str;
}

struct In;
struct Out;

impl Way for In {
    const DIRECTION: Direction = Direction::Ingress;
    const PATH: &'static str = "/api/v1/containers/{id}/firewall/ingress";
    const NAME: &'static str = "Ingress";
}

impl Way for Out {
    const DIRECTION: Direction = Direction::Egress;
    const PATH: &'static str = "/api/v1/containers/{id}/firewall/egress";
    const NAME: &'static str = "Egress";
}

fn table(
    direction: Direction,
    ingress: &'static [Field],
    egress: &'static [Field],
) -> &'static [Field] {
    match direction {
        Direction::Ingress => ingress,
        Direction::Egress => egress,
    }
}

async fn list(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Container>,
) -> Result<Answer<wire::Firewall>, Problem> {
    let rules = front.control.firewall(&actor, id).await?;
    Ok(Answer::ok("Firewall rules retrieved successfully", wire::Firewall::new(&rules)))
}

async fn reset(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Container>,
    body: JsonObject,
) -> Result<Answer<wire::ResetFirewall>, Problem> {
    body.expect_none()?;
    front.control.reset_firewall(&actor, id).await?;
    Ok(Answer::ok("Firewall rules reset successfully", wire::ResetFirewall::new()))
}

async fn add<D: Way>(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Container>,
    body: JsonObject,
) -> Result<Response, Problem> {
    let mut fields = body.fields(table(D::DIRECTION, &NEW_INGRESS, &NEW_EGRESS));
    let known = fields.known();
    let rule = read(D::DIRECTION, known, &mut fields);
    let rule = fields.finish(rule)?;
    Ok(match front.control.add_rule(&actor, id, D::DIRECTION, &rule).await? {
        AddedRule::New(rules) => {
            let rules = wire::FirewallRules::new(&rules);
            Answer::created("Firewall rule added successfully", rules).into_response()
        }
        AddedRule::Duplicate(at) => {
            let duplicate = wire::DuplicateRule::new(D::DIRECTION, &rule, at);
            Answer::ok("The container has this firewall rule already", duplicate).into_response()
        }
    })
}

/// The rule that is meant; what is missing of the required fields was told before.
fn read(direction: Direction, known: Map<String, Value>, fields: &mut Fields) -> Option<Rule> {
    let known = Value::Object(known);
    let is_told = |error: &FieldError| {
        let required = [ACTION, PROTOCOL, DESCRIPTION].map(|field| field.name);
        required.contains(&error.field.as_str()) && known.get(&error.field).is_none()
    };
    match Rule::read(direction, &known) {
        Ok(rule) => Some(rule),
        Err(errors) => {
            fields.refuse_all(errors.into_iter().filter(|error| !is_told(error)));
            None
        }
    }
}

async fn switch<D: Way>(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Container>,
    body: JsonObject,
) -> Result<Answer<wire::SwitchedRules>, Problem> {
    let mut fields = body.fields(table(D::DIRECTION, &SWITCHED_INGRESS, &SWITCHED_EGRESS));
    let enabled = state(&mut fields);
    let filter = filter(&mut fields, true);
    let enabled = fields.finish(enabled)?;
    if filter.fields.is_empty() {
        return Err(nothing_named("at least one field of the rules is required"));
    }
    let updated = front.control.switch_rules(&actor, id, D::DIRECTION, &filter, enabled).await?;
    let switched = wire::SwitchedRules::new(D::DIRECTION, enabled, updated);
    Ok(Answer::ok("Firewall rules updated successfully", switched))
}

async fn remove<D: Way>(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Container>,
    body: JsonObject,
) -> Result<Answer<wire::RemovedRules>, Problem> {
    let mut fields = body.fields(table(D::DIRECTION, &REMOVED_INGRESS, &REMOVED_EGRESS));
    let all = fields.flag("all").value().unwrap_or(false);
    let state = state(&mut fields);
    let mut filter = filter(&mut fields, all);
    fields.finish(Some(()))?;
    if filter.fields.is_empty() && state.is_none() && !all {
        return Err(nothing_named("at least one field of the rule, or all: true, is required"));
    }
    // All of them means also those that are switched off.
    if !filter.fields.is_empty() || state.is_some() {
        let state = if state.unwrap_or(true) { "enabled" } else { "disabled" };
        filter.fields.insert("state".to_owned(), json!(state));
    }
    let removed = front.control.remove_rules(&actor, id, D::DIRECTION, &filter).await?;
    let removed = wire::RemovedRules::new(D::DIRECTION, &removed);
    Ok(Answer::ok("Firewall rules removed successfully", removed))
}

fn state(fields: &mut Fields) -> Option<bool> {
    match fields.text("state").value().as_deref() {
        Some("enabled") => Some(true),
        Some("disabled") => Some(false),
        Some(_) => {
            let error = FieldError::new("state", "must be enabled or disabled");
            fields.refuse::<bool>(error).value()
        }
        None => None,
    }
}

/// The fields that rules must have. What no rule can have is a mistake; another spelling of what one can
/// have is not.
fn filter(fields: &mut Fields, all: bool) -> RuleFilter {
    let mut wanted = fields.known();
    for (name, value) in &mut wanted {
        let Value::String(text) = value else { continue };
        match Rule::canonical(name, text) {
            Ok(spelt) => *text = spelt,
            Err(rule) => fields.refuse_all([FieldError::new(name, rule)]),
        }
    }
    RuleFilter { fields: wanted, all }
}

fn nothing_named(rule: &str) -> Problem {
    Problem::fields(Kind::Invalid, &[FieldError::new("body", rule)])
}
