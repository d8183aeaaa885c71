//! `gantry shares …`.

use gantry_model::{ContainerId, ShareId};
use serde_json::{Map, Value, json};

use super::{Client, view};
use crate::{
    args::{ShareFields, ShareFilter, SharesCommand},
    exit::Failure,
    output,
};

impl Client {
    pub(super) async fn shares(&self, command: SharesCommand) -> Result<(), Failure> {
        match command {
            SharesCommand::Create {
                container,
                source_path,
                target_container_id,
                target_project_id,
                fields,
            } => {
                let mut body = body(fields);
                body.insert("source_path".to_owned(), source_path.into());
                for (name, id) in [
                    ("target_container_id", target_container_id.map(|id| id.to_string())),
                    ("target_project_id", target_project_id.map(|id| id.to_string())),
                ] {
                    body.extend(id.map(|id| (name.to_owned(), id.into())));
                }
                let path = outgoing(Some(container));
                self.show(&self.api.post(&path, &[], Some(&Value::Object(body))).await?)
            }
            SharesCommand::List { container, filter, label, include_expired } => {
                let mut query = query(filter);
                query.extend(label.map(|label| ("label", label)));
                query.extend(include_expired.then(|| ("include_expired", "true".to_owned())));
                let shares = self.api.get(&outgoing(container), &query).await?;
                self.list(&shares, &shares, view::SHARE)
            }
            SharesCommand::Incoming { container, filter } => {
                let shares = self.api.get(&incoming(container), &query(filter)).await?;
                self.list(&shares, &shares, view::INCOMING_SHARE)
            }
            SharesCommand::Get { id, container } => {
                self.show(&self.api.get(&format!("{}/{id}", outgoing(Some(container))), &[]).await?)
            }
            SharesCommand::Update { id, container, fields } => {
                let path = format!("{}/{id}", outgoing(Some(container)));
                self.show(&self.api.patch(&path, &Value::Object(body(fields))).await?)
            }
            SharesCommand::Mount { id, container } => self.want(container, id, true).await,
            SharesCommand::Unmount { id, container } => self.want(container, id, false).await,
            SharesCommand::Delete { id } => {
                self.confirm(&format!("the share {id}"))?;
                self.api.delete(&format!("storage/shares/{id}")).await?;
                output::note(&format!("Deleted share {id}."));
                Ok(())
            }
        }
    }

    async fn want(&self, container: ContainerId, id: ShareId, mount: bool) -> Result<(), Failure> {
        let path = format!("{}/{id}/mount", incoming(Some(container)));
        let said = self.api.patch(&path, &json!({ "mount": mount })).await?;
        self.show(view::field(&said, "override"))
    }
}

fn outgoing(container: Option<ContainerId>) -> String {
    match container {
        Some(container) => format!("containers/{container}/storage/shares"),
        None => "storage/shares".to_owned(),
    }
}

fn incoming(container: Option<ContainerId>) -> String {
    match container {
        Some(container) => format!("containers/{container}/storage/incoming"),
        None => "storage/incoming".to_owned(),
    }
}

fn query(filter: ShareFilter) -> Vec<(&'static str, String)> {
    [
        ("target_type", filter.target_type),
        ("status", filter.status),
        ("enabled", filter.enabled.map(|enabled| enabled.to_string())),
    ]
    .into_iter()
    .filter_map(|(name, text)| Some((name, text?)))
    .collect()
}

fn body(fields: ShareFields) -> Map<String, Value> {
    let text = |text: Option<String>| {
        text.map(|text| if text == "null" { Value::Null } else { text.into() })
    };
    [
        ("mode", fields.mode.map(Value::from)),
        ("alias", text(fields.alias)),
        ("label", text(fields.label)),
        ("description", text(fields.description)),
        ("enabled", fields.enabled.map(Value::from)),
        ("expires_at", text(fields.expires_at)),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name.to_owned(), value?)))
    .collect()
}
