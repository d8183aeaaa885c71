//! The firewall of a container: which connections may reach it, and which it may make.
//!
//! A container has two ordered lists of rules, `ingress` and `egress`. The first enabled rule that
//! fits a connection decides; a connection that no rule fits passes, so that a container without
//! rules is open. Rules are about whoever begins a connection: what goes back to him passes. They
//! hold for connections that exist as well. They are about IPv4, the only kind of address that
//! containers have.

mod parts;

use std::fmt;

use serde_json::{Map, Value, json};

pub use self::parts::{Addresses, Ports};
use crate::{
    FieldError,
    json::{Errors, join},
};

/// Which way a connection is made, as the container sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// To the container.
    Ingress,
    /// From the container.
    Egress,
}

/// What becomes of a connection that a rule fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// It passes.
    Allow,
    /// It is refused, and its sender is told.
    Reject,
    /// It is refused without a word.
    Drop,
}

/// What a rule is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP between these ports; any port where absent.
    Tcp(PortPair),
    /// UDP between these ports; any port where absent.
    Udp(PortPair),
    /// ICMP of this type and code; any where absent. A code needs a type.
    Icmp4 {
        /// The type.
        kind: Option<u8>,
        /// The code.
        code: Option<u8>,
    },
}

/// The ports of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PortPair {
    /// Where the connection comes from; any when absent.
    pub source: Option<Ports>,
    /// Where it goes.
    pub destination: Ports,
}

const ACTIONS: &str = "must be allow, reject or drop";
const PROTOCOLS: &str = "must be tcp, udp or icmp4";
const DESCRIPTIONS: &str = "must be a text of at most 255 characters";
const STATES: &str = "must be enabled or disabled";

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// What becomes of what fits.
    pub action: Action,
    /// What it is about.
    pub protocol: Protocol,
    /// The other side: the sources of an ingress rule, the destinations of an egress rule; any when
    /// absent.
    pub other_side: Option<Addresses>,
    /// What its owner says of it, at most 255 characters.
    pub description: String,
    /// Whether it is looked at.
    pub enabled: bool,
}

/// The rules of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rules {
    /// About connections to it, in the order in which they are tried.
    pub ingress: Vec<Rule>,
    /// About connections from it, in the order in which they are tried.
    pub egress: Vec<Rule>,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    /// The name that the API has for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }

    /// The field that names the other side of a connection.
    pub const fn other_side(self) -> &'static str {
        match self {
            Self::Ingress => "source",
            Self::Egress => "destination",
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Action {
    /// The name that the API has for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Reject => "reject",
            Self::Drop => "drop",
        }
    }
}

impl Protocol {
    /// The name that the API has for it.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Tcp(_) => "tcp",
            Self::Udp(_) => "udp",
            Self::Icmp4 { .. } => "icmp4",
        }
    }
}

impl Rule {
    /// The fields of a rule, in both directions.
    pub const FIELDS: [&str; 10] = [
        "action",
        "protocol",
        "description",
        "destination_port",
        "source_port",
        "source",
        "destination",
        "icmp_type",
        "icmp_code",
        "state",
    ];
    /// The longest description, in characters.
    pub const DESCRIPTION_MAX: usize = 255;

    /// Reads the form that clients know. Optional fields may be `null`; `state` is `enabled` when
    /// absent. Every broken rule of a field is named.
    pub fn read(direction: Direction, value: &Value) -> Result<Self, Vec<FieldError>> {
        let mut errors = Errors::default();
        let Some(map) = errors.object("", value, &Self::FIELDS) else {
            return errors.finish(None);
        };
        let action = match map.get("action").and_then(Value::as_str) {
            Some("allow") => Some(Action::Allow),
            Some("reject") => Some(Action::Reject),
            Some("drop") => Some(Action::Drop),
            Some(_) | None => errors.note("action", ACTIONS),
        };
        let description = match map.get("description").and_then(Value::as_str) {
            Some(text) if text.chars().count() <= Self::DESCRIPTION_MAX => {
                if text.chars().any(char::is_control) {
                    errors.note("description", "must not hold control characters")
                } else {
                    Some(text.to_owned())
                }
            }
            Some(_) | None => errors.note("description", DESCRIPTIONS),
        };
        let enabled = match map.get("state").and_then(Value::as_str) {
            None if map.get("state").is_none_or(Value::is_null) => Some(true),
            Some("enabled") => Some(true),
            Some("disabled") => Some(false),
            Some(_) | None => errors.note("state", STATES),
        };
        let wrong_side = match direction {
            Direction::Ingress => "destination",
            Direction::Egress => "source",
        };
        if set(map, wrong_side) {
            let rule = format!("does not belong to a rule of {direction}");
            errors.note::<()>(wrong_side, &rule);
        }
        let other_side = optional(map, direction.other_side(), &mut errors, Addresses::parse);
        let protocol = protocol(map, &mut errors);
        let all = (action, protocol, description, enabled);
        let (Some(action), Some(protocol), Some(description), Some(enabled)) = all else {
            return errors.finish(None);
        };
        errors.finish(Some(Self { action, protocol, other_side, description, enabled }))
    }

    /// The text that [`Rule::json`] has for what a client writes in this field, if a rule can have that.
    pub fn canonical(field: &str, text: &str) -> Result<String, &'static str> {
        let one_of = |known: &[&str], rule| {
            if known.contains(&text) { Ok(text.to_owned()) } else { Err(rule) }
        };
        match field {
            "action" => one_of(&["allow", "reject", "drop"], ACTIONS),
            "protocol" => one_of(&["tcp", "udp", "icmp4"], PROTOCOLS),
            "state" => one_of(&["enabled", "disabled"], STATES),
            "source" | "destination" => Addresses::parse(text).map(|found| found.to_string()),
            "source_port" | "destination_port" => Ports::parse(text).map(|found| found.to_string()),
            "icmp_type" | "icmp_code" => number(text).map(|found| found.to_string()),
            _ if text.chars().count() > Self::DESCRIPTION_MAX => Err(DESCRIPTIONS),
            _ => Ok(text.to_owned()),
        }
    }

    /// The form that clients know; what is not set is left out.
    pub fn json(&self, direction: Direction) -> Map<String, Value> {
        let mut map = Map::new();
        let mut put = |name: &str, value: String| drop(map.insert(name.to_owned(), json!(value)));
        put("action", self.action.as_str().to_owned());
        put("protocol", self.protocol.as_str().to_owned());
        put("description", self.description.clone());
        put("state", if self.enabled { "enabled" } else { "disabled" }.to_owned());
        if let Some(addresses) = &self.other_side {
            put(direction.other_side(), addresses.to_string());
        }
        match &self.protocol {
            Protocol::Tcp(ports) | Protocol::Udp(ports) => {
                if let Some(source) = &ports.source {
                    put("source_port", source.to_string());
                }
                put("destination_port", ports.destination.to_string());
            }
            Protocol::Icmp4 { kind, code } => {
                for (name, number) in [("icmp_type", kind), ("icmp_code", code)] {
                    if let Some(number) = number {
                        put(name, number.to_string());
                    }
                }
            }
        }
        map
    }
}

/// Whether a field is there and not `null`.
fn set(map: &Map<String, Value>, name: &str) -> bool {
    map.get(name).is_some_and(|value| !value.is_null())
}

fn optional<T>(
    map: &Map<String, Value>,
    name: &str,
    errors: &mut Errors,
    parse: impl FnOnce(&str) -> Result<T, &'static str>,
) -> Option<T> {
    if !set(map, name) {
        return None;
    }
    match map.get(name).and_then(Value::as_str).map(parse) {
        Some(Ok(value)) => Some(value),
        Some(Err(rule)) => errors.note(name, rule),
        None => errors.note(name, "must be a text"),
    }
}

fn protocol(map: &Map<String, Value>, errors: &mut Errors) -> Option<Protocol> {
    let name = map.get("protocol").and_then(Value::as_str);
    let strangers: &[&str] = match name {
        Some("tcp" | "udp") => &["icmp_type", "icmp_code"],
        Some("icmp4") => &["source_port", "destination_port"],
        Some(_) | None => return errors.note("protocol", PROTOCOLS),
    };
    for stranger in strangers.iter().filter(|stranger| set(map, stranger)) {
        let rule = format!("does not belong to a rule of {}", name.unwrap_or_default());
        errors.note::<()>(stranger, &rule);
    }
    if name == Some("icmp4") {
        let kind = optional(map, "icmp_type", errors, number);
        let code = optional(map, "icmp_code", errors, number);
        if code.is_some() && !set(map, "icmp_type") {
            return errors.note("icmp_code", "needs an icmp_type");
        }
        return Some(Protocol::Icmp4 { kind, code });
    }
    let source = optional(map, "source_port", errors, Ports::parse);
    if !set(map, "destination_port") {
        return errors.note("destination_port", "is required for tcp and udp");
    }
    let destination = optional(map, "destination_port", errors, Ports::parse)?;
    let pair = PortPair { source, destination };
    Some(if name == Some("tcp") { Protocol::Tcp(pair) } else { Protocol::Udp(pair) })
}

fn number(text: &str) -> Result<u8, &'static str> {
    parts::decimal(text)
        .and_then(|number| u8::try_from(number).ok())
        .ok_or("must be a number from 0 to 255")
}

impl Rules {
    /// The most rules of a container, both directions together.
    pub const MAX: usize = 128;
    /// The most octets that all of them take in the form that clients know.
    pub const OCTETS_MAX: usize = 64 * 1024;

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ingress.is_empty() && self.egress.is_empty()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.ingress.len() + self.egress.len()
    }

    /// Those of a direction.
    pub fn of(&self, direction: Direction) -> &[Rule] {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }

    /// Those of a direction, to be changed.
    pub const fn of_mut(&mut self, direction: Direction) -> &mut Vec<Rule> {
        match direction {
            Direction::Ingress => &mut self.ingress,
            Direction::Egress => &mut self.egress,
        }
    }

    /// The form that clients know: `{"ingress": […], "egress": […]}`.
    pub fn json(&self) -> Value {
        let list = |direction| {
            let rules = self.of(direction).iter().map(|rule| Value::Object(rule.json(direction)));
            Value::Array(rules.collect())
        };
        json!({ "ingress": list(Direction::Ingress), "egress": list(Direction::Egress) })
    }

    /// How many octets they take in that form.
    pub fn octets(&self) -> usize {
        if self.is_empty() { 0 } else { self.json().to_string().len() }
    }

    /// Reads that form. The bounds of number and size are not checked.
    pub fn read(value: &Value) -> Result<Self, Vec<FieldError>> {
        let mut errors = Errors::default();
        let known = Direction::ALL.map(Direction::as_str);
        let mut rules = Self::default();
        let Some(map) = errors.object("", value, &known) else { return errors.finish(None) };
        for direction in Direction::ALL {
            let name = direction.as_str();
            let Some(list) = map.get(name).and_then(Value::as_array) else {
                errors.note::<()>(name, "must be an array");
                continue;
            };
            for (at, value) in list.iter().enumerate() {
                match Rule::read(direction, value) {
                    Ok(rule) => rules.of_mut(direction).push(rule),
                    Err(wrong) => {
                        for error in wrong {
                            let field = join(&format!("{name}.{at}"), &error.field);
                            errors.note::<()>(&field, &error.rule);
                        }
                    }
                }
            }
        }
        errors.finish(Some(rules))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(direction: Direction, value: &Value) -> Vec<(String, String)> {
        let errors = Rule::read(direction, value).unwrap_err();
        errors.into_iter().map(|error| (error.field, error.rule)).collect()
    }

    #[test]
    fn what_a_rule_can_have_is_looked_for_in_any_spelling() {
        for (field, text, want) in [
            ("destination_port", "80-80,443", Ok("80,443")),
            ("source_port", "0", Err("ports from 1 to 65535")),
            ("source", "192.0.2.0/24", Ok("192.0.2.0/24")),
            ("destination", "::1", Err("IPv4")),
            ("protocol", "sctp", Err("tcp, udp or icmp4")),
            ("action", "Allow", Err("allow, reject or drop")),
            ("icmp_type", "256", Err("0 to 255")),
            ("state", "half", Err("enabled or disabled")),
            ("description", "Web", Ok("Web")),
        ] {
            match (Rule::canonical(field, text), want) {
                (Ok(got), Ok(want)) => assert_eq!(got, want, "{field} {text}"),
                (Err(rule), Err(want)) => assert!(rule.contains(want), "{field} {text}: {rule}"),
                (got, want) => panic!("{field} {text}: {got:?} instead of {want:?}"),
            }
        }
        assert!(Rule::canonical("description", &"d".repeat(256)).is_err());
    }

    #[test]
    fn rules_come_back_as_they_were_said() {
        let ingress = [
            json!({"action": "allow", "protocol": "tcp", "description": "web", "state": "enabled",
                "destination_port": "80,443", "source": "192.0.2.0/24"}),
            json!({"action": "drop", "protocol": "udp", "description": "", "state": "disabled",
                "source_port": "53", "destination_port": "1024-65535"}),
            json!({"action": "reject", "protocol": "icmp4", "description": "ping", "state": "enabled",
                "icmp_type": "8", "icmp_code": "0"}),
        ];
        let egress = [json!({"action": "drop", "protocol": "tcp", "description": "no mail",
            "state": "enabled", "destination_port": "25", "destination": "10.0.0.1,10.0.0.9-10.0.1.3"})];
        let all = json!({"ingress": ingress, "egress": egress});
        let rules = Rules::read(&all).unwrap();
        assert_eq!((rules.json(), rules.count()), (all, 4));
        assert_eq!(rules.octets(), rules.json().to_string().len());
    }

    #[test]
    fn what_is_absent_or_null_is_not_set() {
        let value = json!({"action": "allow", "protocol": "icmp4", "description": "d",
            "icmp_type": null, "source": null, "state": null, "destination_port": null});
        let rule = Rule::read(Direction::Ingress, &value).unwrap();
        assert_eq!(rule.protocol, Protocol::Icmp4 { kind: None, code: None });
        assert!(rule.enabled && rule.other_side.is_none());
    }

    #[test]
    fn every_broken_rule_is_named() {
        let value = json!({"action": "deny", "protocol": "tcp", "state": 1, "icmp_type": "8",
            "destination": "10.0.0.0/8", "source": "10.0.0.1/8", "source_port": "0", "port": 1});
        let fields: Vec<_> =
            wrong(Direction::Ingress, &value).into_iter().map(|(field, _)| field).collect();
        let want = [
            "port",
            "action",
            "description",
            "state",
            "destination",
            "source",
            "icmp_type",
            "source_port",
            "destination_port",
        ];
        assert_eq!(fields, want);
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let base = |more: &[(&str, &str)]| {
            let mut value = json!({"action": "allow", "protocol": "icmp4", "description": "d"});
            for (name, text) in more {
                value[name] = json!(text);
            }
            wrong(Direction::Egress, &value)
        };
        let pair = |field: &str, rule: &str| vec![(field.to_owned(), rule.to_owned())];
        assert_eq!(base(&[("icmp_code", "0")]), pair("icmp_code", "needs an icmp_type"));
        assert_eq!(
            base(&[("destination_port", "1")]),
            pair("destination_port", "does not belong to a rule of icmp4")
        );
        assert_eq!(
            base(&[("source", "10.0.0.1")]),
            pair("source", "does not belong to a rule of egress")
        );
        assert_eq!(
            base(&[("icmp_type", "256")]),
            pair("icmp_type", "must be a number from 0 to 255")
        );
        assert_eq!(
            base(&[("description", "a\nb")]),
            pair("description", "must not hold control characters")
        );
        assert_eq!(base(&[("protocol", "tcp6")]), pair("protocol", "must be tcp, udp or icmp4"));
    }

    #[test]
    fn mistakes_of_a_stored_list_say_where() {
        let all = json!({"ingress": [{"action": "allow", "protocol": "icmp4", "description": "d"},
            {"action": "allow", "protocol": "udp", "description": "d"}], "egress": 1});
        let errors = Rules::read(&all).unwrap_err();
        let fields: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(fields, ["ingress.1.destination_port", "egress"]);
    }
}
