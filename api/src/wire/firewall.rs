//! Firewall rules and what is done with them.

use gantry_model::firewall::{self, Direction};
use serde::Serialize;
use utoipa::ToSchema;

/// A rule. What it does not name, it is not about.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FirewallRule {
    /// `allow`, `reject` or `drop`.
    action: String,
    /// `tcp`, `udp` or `icmp4`.
    protocol: String,
    description: String,
    /// `enabled` or `disabled`.
    state: String,
    /// Ports as `80`, `80-90` or `80,443`.
    #[serde(skip_serializing_if = "Option::is_none")]
    destination_port: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_port: Option<String>,
    /// Of an ingress rule: addresses, networks and ranges, separated by commas.
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    /// Of an egress rule: addresses, networks and ranges, separated by commas.
    #[serde(skip_serializing_if = "Option::is_none")]
    destination: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    icmp_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    icmp_code: Option<String>,
}

/// The rules of a container, in the order in which they are tried.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FirewallRules {
    ingress: Vec<FirewallRule>,
    egress: Vec<FirewallRule>,
}

/// The rules of a container and how many there may be.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Firewall {
    #[serde(flatten)]
    rules: FirewallRules,
    /// Both directions together.
    rule_count: usize,
    /// What they take as JSON, in octets.
    byte_count: usize,
    max_rules: usize,
    max_bytes: usize,
}

/// A rule that was there already, so that none was added.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DuplicateRule {
    #[serde(flatten)]
    rule: FirewallRule,
    /// Always true.
    duplicate: bool,
    duplicate_of: RulePlace,
}

/// Where a rule stands.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RulePlace {
    /// `ingress` or `egress`.
    direction: &'static str,
    /// Its place among those of its direction, from 0.
    index: usize,
}

/// Rules that were switched on or off.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SwitchedRules {
    /// `ingress` or `egress`.
    direction: &'static str,
    /// `enabled` or `disabled`.
    new_state: &'static str,
    /// How many were not in that state before.
    updated: usize,
}

/// Rules that were removed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RemovedRules {
    /// `ingress` or `egress`.
    direction: &'static str,
    removed_count: usize,
    removed: Vec<FirewallRule>,
}

/// A container without rules.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ResetFirewall {
    rules: FirewallRules,
}

impl FirewallRule {
    pub(crate) fn new(direction: Direction, rule: &firewall::Rule) -> Self {
        let mut json = rule.json(direction);
        let mut take = |name: &str| match json.remove(name) {
            Some(serde_json::Value::String(text)) => Some(text),
            Some(_) | None => None,
        };
        Self {
            action: take("action").unwrap_or_default(),
            protocol: take("protocol").unwrap_or_default(),
            description: take("description").unwrap_or_default(),
            state: take("state").unwrap_or_default(),
            destination_port: take("destination_port"),
            source_port: take("source_port"),
            source: take("source"),
            destination: take("destination"),
            icmp_type: take("icmp_type"),
            icmp_code: take("icmp_code"),
        }
    }
}

impl FirewallRules {
    pub(crate) fn new(rules: &firewall::Rules) -> Self {
        let list = |direction| list(direction, rules.of(direction));
        Self { ingress: list(Direction::Ingress), egress: list(Direction::Egress) }
    }
}

impl Firewall {
    pub(crate) fn new(rules: &firewall::Rules) -> Self {
        Self {
            rules: FirewallRules::new(rules),
            rule_count: rules.count(),
            byte_count: rules.octets(),
            max_rules: firewall::Rules::MAX,
            max_bytes: firewall::Rules::OCTETS_MAX,
        }
    }
}

impl DuplicateRule {
    pub(crate) fn new(direction: Direction, rule: &firewall::Rule, index: usize) -> Self {
        Self {
            rule: FirewallRule::new(direction, rule),
            duplicate: true,
            duplicate_of: RulePlace { direction: direction.as_str(), index },
        }
    }
}

impl SwitchedRules {
    pub(crate) fn new(direction: Direction, enabled: bool, updated: usize) -> Self {
        let new_state = if enabled { "enabled" } else { "disabled" };
        Self { direction: direction.as_str(), new_state, updated }
    }
}

impl RemovedRules {
    pub(crate) fn new(direction: Direction, removed: &[firewall::Rule]) -> Self {
        let removed = list(direction, removed);
        Self { direction: direction.as_str(), removed_count: removed.len(), removed }
    }
}

impl ResetFirewall {
    pub(crate) fn new() -> Self {
        Self { rules: FirewallRules { ingress: Vec::new(), egress: Vec::new() } }
    }
}

fn list(direction: Direction, rules: &[firewall::Rule]) -> Vec<FirewallRule> {
    rules.iter().map(|rule| FirewallRule::new(direction, rule)).collect()
}
