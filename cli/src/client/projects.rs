//! `gantry projects …`.

use serde_json::{Map, Value, json};

use super::{Client, view};
use crate::{
    args::{MembersCommand, Paging, ProjectFields, ProjectsCommand, word},
    exit::{Class, Failure},
    output,
};

impl Client {
    pub(super) async fn projects(&self, command: ProjectsCommand) -> Result<(), Failure> {
        match command {
            ProjectsCommand::Create(fields) => {
                let made = self.api.post("projects", &[], Some(&body(fields)?)).await?;
                self.show(&made)
            }
            ProjectsCommand::List(paging) => {
                let data = self.api.get("projects", &query(&paging)).await?;
                self.list(&data, view::field(&data, "projects"), view::PROJECT)
            }
            ProjectsCommand::Get { id } => {
                let project = self.api.get(&format!("projects/{id}"), &[]).await?;
                self.show(&project)
            }
            ProjectsCommand::Update { id, fields } => {
                let body = body(fields)?;
                let changed = self.api.patch(&format!("projects/{id}"), &body).await?;
                self.show(&changed)
            }
            ProjectsCommand::Delete { id } => {
                self.confirm(&format!("project {id} with all its containers"))?;
                self.api.delete(&format!("projects/{id}")).await?;
                output::note(&format!("Deleted project {id}."));
                Ok(())
            }
            ProjectsCommand::Stats { id } => {
                let data = self.api.get(&format!("projects/{id}/stats"), &[]).await?;
                self.list(&data, view::field(&data, "stats"), view::USE)
            }
            ProjectsCommand::Members(command) => self.members(command).await,
        }
    }

    async fn members(&self, command: MembersCommand) -> Result<(), Failure> {
        let all = |project| format!("projects/{project}/permissions");
        match command {
            MembersCommand::List { project, paging } => {
                let data = self.api.get(&all(project), &query(&paging)).await?;
                self.list(&data, view::field(&data, "permissions"), view::MEMBER)
            }
            MembersCommand::Add { project, user, level } => {
                let body = json!({ "user_id": user.to_string(), "permission_level": word(&level) });
                self.show(&self.api.post(&all(project), &[], Some(&body)).await?)
            }
            MembersCommand::Set { project, id, level } => {
                let body = json!({ "permission_level": word(&level) });
                self.show(&self.api.patch(&format!("{}/{id}", all(project)), &body).await?)
            }
            MembersCommand::Remove { project, id } => {
                self.confirm(&format!("membership {id} of project {project}"))?;
                self.api.delete(&format!("{}/{id}", all(project))).await?;
                output::note(&format!("Removed membership {id}."));
                Ok(())
            }
        }
    }
}

/// The query of a page.
pub(super) fn query(paging: &Paging) -> Vec<(&'static str, String)> {
    vec![
        ("page", paging.page.to_string()),
        ("limit", paging.limit.to_string()),
        ("sort_by", paging.sort_by.clone()),
        ("sort_order", paging.sort_order.clone()),
    ]
}

fn body(fields: ProjectFields) -> Result<Value, Failure> {
    let mut body = Map::new();
    if let Some(alias) = fields.alias {
        body.insert("alias".to_owned(), alias.into());
    }
    if let Some(color) = fields.color {
        body.insert("color".to_owned(), color.into());
    }
    if let Some(text) = fields.max_containers {
        let value = match text.as_str() {
            "null" => Value::Null,
            number => number.parse::<u32>().map(Value::from).map_err(|error| {
                let rule = format!("--max-containers must be a number or null: {error}");
                Failure::new(Class::Usage, rule)
            })?,
        };
        body.insert("max_containers".to_owned(), value);
    }
    if !fields.realm_ids.is_empty() {
        let ids: Vec<_> = fields.realm_ids.iter().map(ToString::to_string).collect();
        body.insert("realm_ids".to_owned(), json!(ids));
    }
    Ok(Value::Object(body))
}
