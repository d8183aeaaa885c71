//! `gantry proxy …` and `gantry edge …`.

use serde_json::{Map, Value, json};

use super::{Client, view};
use crate::{
    args::{AliasFields, EdgeSettings, ProxyCommand},
    exit::{Class, Failure},
    output,
};

impl Client {
    pub(super) async fn proxy(&self, command: ProxyCommand) -> Result<(), Failure> {
        let one = |id: gantry_model::AliasId| format!("proxy/aliases/{id}");
        match command {
            ProxyCommand::Create(new) => {
                let mut body = fields(new.fields);
                body.insert("container_id".to_owned(), json!(new.container_id.to_string()));
                let body = Value::Object(body);
                self.show(&self.api.post("proxy/aliases", &[], Some(&body)).await?)
            }
            ProxyCommand::List { container_id, project_id, enabled, expired } => {
                let container = container_id.map(|id| ("container_id", id.to_string()));
                let project = project_id.map(|id| ("project_id", id.to_string()));
                let enabled = enabled.map(|flag| ("enabled", flag.to_string()));
                let expired = expired.map(|flag| ("expired", flag.to_string()));
                let given = [container, project, enabled, expired];
                let query: Vec<_> = given.into_iter().flatten().collect();
                let data = self.api.get("proxy/aliases", &query).await?;
                self.list(&data, view::field(&data, "aliases"), view::ALIAS)
            }
            ProxyCommand::Get { id } => self.show(&self.api.get(&one(id), &[]).await?),
            ProxyCommand::Update { id, fields: changes } => {
                let body = Value::Object(fields(changes));
                self.show(&self.api.patch(&one(id), &body).await?)
            }
            ProxyCommand::SetState { id, enabled, no_enabled: _ } => {
                let body = json!({ "enabled": enabled });
                self.show(&self.api.patch(&format!("{}/state", one(id)), &body).await?)
            }
            ProxyCommand::Delete { id } => {
                self.confirm(&format!("alias {id}"))?;
                self.api.delete(&one(id)).await?;
                output::note(&format!("Deleted alias {id}."));
                Ok(())
            }
        }
    }

    pub(super) async fn edge(&self, command: EdgeSettings) -> Result<(), Failure> {
        let path = format!("containers/{}/proxy/edge", command.container);
        let mut body = Map::new();
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                body.insert(name.to_owned(), value);
            }
        };
        put("wake", command.wake.map(Value::String));
        put("idle_pause_after", count("--idle-pause-after", command.idle_pause_after.as_deref())?);
        put("verify_upstream", command.verify_upstream.map(Value::Bool));
        put("proxy_protocol_ports", command.proxy_protocol_ports.map(|ports| json!(ports)));
        put("concurrency_max", count("--concurrency-max", command.concurrency_max.as_deref())?);
        put("log_bodies", command.log_bodies.map(Value::Bool));
        let settings = if body.is_empty() {
            self.api.get(&path, &[]).await?
        } else {
            self.api.patch(&path, &Value::Object(body)).await?
        };
        self.show(&settings)
    }
}

fn fields(fields: AliasFields) -> Map<String, Value> {
    let AliasFields { alias, program, port, index, target_path, expires_at, .. } = fields;
    [
        ("alias", alias.map(Value::String)),
        ("program", program.map(Value::String)),
        ("port", port.map(Value::from)),
        ("index", index.map(Value::from)),
        ("target_path", target_path.map(text_or_null)),
        ("expires_at", expires_at.map(text_or_null)),
        ("allow_path_override", fields.allow_path_override.then_some(Value::Bool(true))),
        ("allow_path_override", fields.no_allow_path_override.then_some(Value::Bool(false))),
        ("enabled", fields.no_enabled.then_some(Value::Bool(false))),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name.to_owned(), value?)))
    .collect()
}

/// Text, or null.
fn text_or_null(text: String) -> Value {
    if text == "null" { Value::Null } else { Value::String(text) }
}

/// A number, or null.
fn count(flag: &str, text: Option<&str>) -> Result<Option<Value>, Failure> {
    match text {
        None => Ok(None),
        Some("null") => Ok(Some(Value::Null)),
        Some(number) => number.parse::<u32>().map(|number| Some(number.into())).map_err(|error| {
            Failure::new(Class::Usage, format!("{flag} must be a number or null: {error}"))
        }),
    }
}
