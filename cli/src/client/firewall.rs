//! `gantry firewall …`.

use gantry_model::ContainerId;
use serde_json::{Map, Value, json};

use super::{Client, view};
use crate::{
    args::{Filter, FirewallCommand, Parts, Place, word},
    exit::Failure,
    output::{self, Format},
};

impl Client {
    pub(super) async fn firewall(&self, command: FirewallCommand) -> Result<(), Failure> {
        match command {
            FirewallCommand::List { container } => {
                let rules = self.api.get(&format!("{}/rules", base(container)), &[]).await?;
                self.show_rules(&rules)
            }
            FirewallCommand::Add { place, action, protocol, description, parts, disabled } => {
                let mut rule = fields(parts);
                rule.insert("action".to_owned(), word(&action).into());
                rule.insert("protocol".to_owned(), word(&protocol).into());
                rule.insert("description".to_owned(), description.into());
                if disabled {
                    rule.insert("state".to_owned(), "disabled".into());
                }
                let made = self.api.post(&path(&place), &[], Some(&Value::Object(rule))).await?;
                if view::field(&made, "duplicate") == &json!(true) {
                    output::note("The container has this rule already.");
                    return self.show(&made);
                }
                self.show_rules(&made)
            }
            FirewallCommand::Enable { place, filter } => self.switch(place, filter, true).await,
            FirewallCommand::Disable { place, filter } => self.switch(place, filter, false).await,
            FirewallCommand::Remove { place, filter, disabled, all } => {
                let mut body = wanted(filter);
                if disabled {
                    body.insert("state".to_owned(), "disabled".into());
                }
                if all {
                    body.insert("all".to_owned(), true.into());
                }
                let what =
                    format!("{} rules of container {}", word(&place.direction), place.container);
                self.confirm(&what)?;
                let body = Value::Object(body);
                let removed = self.api.delete_with(&path(&place), &body).await?;
                let shown = view::field(&removed, "removed");
                self.list(&removed, &with_direction(shown, &word(&place.direction)), view::RULE)
            }
            FirewallCommand::Reset { container } => {
                self.confirm(&format!("every firewall rule of container {container}"))?;
                self.api.post(&format!("{}/reset", base(container)), &[], Some(&json!({}))).await?;
                output::note(&format!("Container {container} has no firewall rules."));
                Ok(())
            }
        }
    }

    async fn switch(&self, place: Place, filter: Filter, on: bool) -> Result<(), Failure> {
        let mut body = wanted(filter);
        body.insert("state".to_owned(), if on { "enabled" } else { "disabled" }.into());
        let switched = self.api.patch(&path(&place), &Value::Object(body)).await?;
        self.show(&switched)
    }

    /// The rules of both directions as one table.
    fn show_rules(&self, rules: &Value) -> Result<(), Failure> {
        if matches!(self.out, Format::Json) {
            return output::json(rules);
        }
        let all = ["ingress", "egress"].into_iter().flat_map(|direction| {
            let list = with_direction(view::field(rules, direction), direction);
            list.as_array().cloned().unwrap_or_default()
        });
        self.list(rules, &Value::Array(all.collect()), view::RULE)
    }
}

fn base(container: ContainerId) -> String {
    format!("containers/{container}/firewall")
}

fn path(place: &Place) -> String {
    format!("{}/{}", base(place.container), word(&place.direction))
}

/// Rules that say which direction they are of, and name the other side in one field.
fn with_direction(rules: &Value, direction: &str) -> Value {
    let side = if direction == "ingress" { "source" } else { "destination" };
    let one = |rule: &Map<String, Value>| {
        let mut rule = rule.clone();
        let addresses = rule.get(side).cloned().unwrap_or_default();
        rule.insert("addresses".to_owned(), addresses);
        rule.insert("direction".to_owned(), direction.into());
        Value::Object(rule)
    };
    let rules = rules.as_array().into_iter().flatten().filter_map(Value::as_object);
    Value::Array(rules.map(one).collect())
}

fn fields(parts: Parts) -> Map<String, Value> {
    [
        ("destination_port", parts.destination_port),
        ("source_port", parts.source_port),
        ("source", parts.source),
        ("destination", parts.destination),
        ("icmp_type", parts.icmp_type.map(|number| number.to_string())),
        ("icmp_code", parts.icmp_code.map(|number| number.to_string())),
    ]
    .into_iter()
    .filter_map(|(name, text)| Some((name.to_owned(), text?.into())))
    .collect()
}

fn wanted(filter: Filter) -> Map<String, Value> {
    let mut body = fields(filter.parts);
    let named = [
        ("action", filter.action.as_ref().map(word)),
        ("protocol", filter.protocol.as_ref().map(word)),
        ("description", filter.description),
    ];
    let named = named.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text?.into())));
    body.extend(named);
    body
}
