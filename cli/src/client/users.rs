//! `gantry users …`, `gantry activity …`.

use serde_json::{Map, Value, json};

use super::{Client, accounts::password_in, view};
use crate::{
    args::{ActivityCommand, UserChange, UsersCommand, accounts::Limit},
    exit::Failure,
    output,
};

impl Client {
    pub(super) async fn users(&self, command: UsersCommand) -> Result<(), Failure> {
        match command {
            UsersCommand::Create { username, password_file } => {
                let password = password_in(&password_file)?;
                let body = json!({ "username": username, "password": password });
                self.show(&self.api.post("users", &[], Some(&body)).await?)
            }
            UsersCommand::Get { id } => {
                self.show(&self.api.get(&format!("users/{id}"), &[]).await?)
            }
            UsersCommand::RemoveTwoFactor { id } => {
                self.confirm(&format!("the second factor of {id}"))?;
                self.api.delete(&format!("users/{id}/2fa")).await?;
                output::note(&format!("Logins of {id} need no code any more."));
                Ok(())
            }
            UsersCommand::Update(change) => {
                let path = format!("users/{}", change.id);
                let ends_sessions = change.password_file.is_some();
                self.show(&self.api.patch(&path, &body(change)?).await?)?;
                if ends_sessions {
                    output::note("All sessions of the account have ended; log in again.");
                }
                Ok(())
            }
        }
    }

    pub(super) async fn activity(&self, command: ActivityCommand) -> Result<(), Failure> {
        let path = "users/auth/activity";
        match command {
            ActivityCommand::List { page, limit, errors_only } => {
                let query = [
                    ("page", page.to_string()),
                    ("limit", limit.to_string()),
                    ("errors_only", errors_only.to_string()),
                ];
                let data = self.api.get(path, &query).await?;
                self.list(&data, &data, view::ACTIVITY)
            }
            ActivityCommand::Stats => {
                self.show(&self.api.get(&format!("{path}/stats"), &[]).await?)
            }
            ActivityCommand::Security => {
                let data = self.api.get("users/me/security-history", &[]).await?;
                self.list(&data, &data, view::ACTIVITY)
            }
        }
    }
}

fn body(change: UserChange) -> Result<Value, Failure> {
    let mut body = Map::new();
    for (name, value) in [("alias", change.alias), ("public_key", change.public_key)] {
        if let Some(value) = value {
            let value = if value == "null" { Value::Null } else { value.into() };
            body.insert(name.to_owned(), value);
        }
    }
    let files =
        [("password", change.password_file), ("current_password", change.current_password_file)];
    for (name, file) in files {
        if let Some(file) = file {
            body.insert(name.to_owned(), password_in(&file)?.into());
        }
    }
    let limits = &change.limits;
    for (name, limit) in [
        ("max_containers", limits.containers),
        ("max_running_containers", limits.running_containers),
        ("max_projects", limits.projects),
    ] {
        let value = limit.map(|limit| match limit {
            Limit::Default => Value::Null,
            Limit::Own(max) => max.into(),
        });
        body.extend(value.map(|value| (name.to_owned(), value)));
    }
    Ok(Value::Object(body))
}
