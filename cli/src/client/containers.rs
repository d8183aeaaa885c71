//! `gantry containers …` and `gantry ps`.

use std::{pin::pin, time::Duration};

use gantry_model::{ContainerId, container::KeyFault};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep};

use super::{Client, progress::Progress, projects, view};
use crate::{
    args::{
        ContainerCreate, ContainerFields, ContainersCommand, ContainersList, EnvCommand,
        KitSwitches, Operation, ServerRef, Switch, Wait,
    },
    exit::{Class, Failure},
    output::{self, Format},
};

/// The longest wait that one request asks the API for; the rest is asked for again.
const WAIT_PER_REQUEST_S: u64 = 30;
/// How often the status is read where the API did not wait long enough.
pub(super) const POLL: Duration = Duration::from_millis(250);

impl Client {
    pub(super) async fn containers(&self, command: ContainersCommand) -> Result<(), Failure> {
        match command {
            ContainersCommand::Create(create) => self.create_container(create).await,
            ContainersCommand::List(list) => self.list_containers(list).await,
            ContainersCommand::Get { id, runtime } => {
                let query: Vec<_> = runtime.into_iter().map(|what| ("runtime", what)).collect();
                let container = self.api.get(&format!("containers/{id}"), &query).await?;
                self.show(&container)
            }
            ContainersCommand::Update(update) => {
                let mut body = Map::new();
                insert_fields(&mut body, update.fields)?;
                let path = format!("containers/{}", update.id);
                let changed = self.api.patch(&path, &Value::Object(body)).await?;
                self.show(&changed)
            }
            ContainersCommand::Delete { id, wait } => {
                self.confirm(&format!("container {id} with its files"))?;
                let progress = self.progress(wait, format!("Deleting container {id}"));
                self.api.delete(&format!("containers/{id}")).await?;
                if wait.wait {
                    self.wait_until_gone(id, wait, &progress).await?;
                    drop(progress);
                    output::note(&format!("Deleted container {id}."));
                } else {
                    output::note(&format!("Container {id} is being deleted."));
                }
                Ok(())
            }
            ContainersCommand::Manage { id, operation, wait } => {
                self.operate(id, operation, wait).await
            }
            ContainersCommand::Env(command) => self.env(command).await,
            ContainersCommand::Copy(copy) => self.copy_container(copy).await,
            ContainersCommand::Sync { id, wait } => self.sync_container(id, wait).await,
            ContainersCommand::Kvm { id, state } => {
                let body = json!({ "kvm": state == Switch::On });
                let changed = self.api.patch(&format!("containers/{id}/kvm"), &body).await?;
                self.show(&changed)
            }
            ContainersCommand::Authorize { id } => {
                let path = format!("containers/{id}/authorize");
                let claim = self.api.post(&path, &[], Some(&json!({}))).await?;
                match self.out {
                    Format::Json => output::json(&claim),
                    Format::Table => self.show(view::field(&claim, "container_claim")),
                }
            }
            ContainersCommand::Stats { id } => {
                let stats = self.api.get(&format!("containers/{id}/stats"), &[]).await?;
                self.show(&stats)
            }
            ContainersCommand::StatusLogs { id, page, limit } => {
                let query = [("page", page.to_string()), ("limit", limit.to_string())];
                let data = self.api.get(&format!("containers/{id}/status-logs"), &query).await?;
                self.list(&data, view::field(&data, "logs"), view::STATUS_LOG)
            }
        }
    }

    async fn env(&self, command: EnvCommand) -> Result<(), Failure> {
        let path = |id: ContainerId| format!("containers/{id}/env");
        let data = match command {
            EnvCommand::List { id } => self.api.get(&path(id), &[]).await?,
            EnvCommand::Set { id, vars } => {
                self.api.patch(&path(id), &variables("variable", vars)?).await?
            }
            EnvCommand::Delete { id, key } => {
                if let Some(fault) = KeyFault::of(&key) {
                    return Err(Failure::new(Class::Usage, fault.rule()));
                }
                self.api.delete(&format!("{}/{key}", path(id))).await?
            }
        };
        if data.get("synced") == Some(&Value::Bool(false)) {
            output::note("The container gets this when it has started.");
        }
        match self.out {
            Format::Json => output::json(&data),
            Format::Table => output::table(
                &["name", "value"],
                view::fields(view::field(&data, "environment_vars")),
            ),
        }
    }

    pub(super) async fn list_containers(&self, list: ContainersList) -> Result<(), Failure> {
        let path = match list.project {
            Some(project) => format!("projects/{project}/containers"),
            None => "containers".to_owned(),
        };
        let mut query = projects::query(&list.paging);
        if let Some(include) = list.include_prespawn {
            query.push(("include_prespawn", include.to_string()));
        }
        let data = self.api.get(&path, &query).await?;
        self.list(&data, view::field(&data, "containers"), view::CONTAINER)
    }

    async fn create_container(&self, create: ContainerCreate) -> Result<(), Failure> {
        let mut body = Map::new();
        let server = match create.server_id {
            Some(server) => self.server_id(&server).await?,
            None => self.only_server().await?,
        };
        body.insert("server_id".to_owned(), server.into());
        if let Some(image) = create.container_image {
            body.insert("container_image".to_owned(), image.into());
        }
        insert_kit(&mut body, &create.kit);
        for (name, is_asked) in [
            ("prespawn", create.prespawn),
            ("bypass_prespawn", create.bypass_prespawn),
            ("kvm", create.kvm),
        ] {
            if is_asked {
                body.insert(name.to_owned(), true.into());
            }
        }
        insert_fields(&mut body, create.fields)?;
        let path = format!("projects/{}/containers", create.project);
        let deadline = deadline(create.wait);
        let progress = self.progress(create.wait, "Creating a container");
        // One answer at the end would show no phase to whoever watches.
        let longest = if progress.is_shown() { 0 } else { WAIT_PER_REQUEST_S };
        let query = wait_query("running", create.wait, longest);
        let mut made = self.api.post(&path, &query, Some(&Value::Object(body))).await?;
        if create.wait.wait {
            let id = parse_id(&made)?;
            progress.phase(&view::text(view::field(&made, "status")));
            made = self.wait_for(id, "running", deadline, &progress).await?;
        }
        drop(progress);
        self.show(&made)
    }

    async fn operate(
        &self,
        id: ContainerId,
        operation: Operation,
        wait: Wait,
    ) -> Result<(), Failure> {
        let deadline = deadline(wait);
        let path = format!("containers/{id}/{}", operation.as_str());
        let doing = format!("Waiting for container {id} to {}", operation.as_str());
        let progress = self.progress(wait, doing);
        let query = wait_query(operation.leads_to(), wait, WAIT_PER_REQUEST_S);
        let done = self.watched(id, &progress, self.api.post(&path, &query, None)).await?;
        if !wait.wait {
            return self.show(&done);
        }
        let container = self.wait_for(id, operation.leads_to(), deadline, &progress).await?;
        drop(progress);
        self.show(&container)
    }

    /// The id of a server.
    pub(super) async fn server_id(&self, server: &ServerRef) -> Result<String, Failure> {
        let name = match server {
            ServerRef::Id(id) => return Ok(id.to_string()),
            ServerRef::Name(name) => name.as_str(),
        };
        let servers = self.api.get("servers", &[]).await?;
        let text = |server: &Value, key: &str| server.get(key)?.as_str().map(str::to_owned);
        let mut servers = servers.as_array().into_iter().flatten();
        let found = servers.find(|server| text(server, "name").is_some_and(|it| it == name));
        found.and_then(|server| text(server, "server_id")).ok_or_else(|| {
            Failure::new(Class::Usage, format!("there is no server {name}"))
                .hint("`gantry servers list` shows them")
        })
    }

    /// The server that takes containers, where there is no choice.
    async fn only_server(&self) -> Result<String, Failure> {
        let servers = self.api.get("servers/available", &[]).await?;
        let ids: Vec<String> = servers
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|server| server.get("id").and_then(Value::as_str))
            .map(str::to_owned)
            .collect();
        match <[String; 1]>::try_from(ids) {
            Ok([only]) => Ok(only),
            Err(ids) => Err(Failure::new(
                Class::Usage,
                format!("--server-id is needed: there are {} servers", ids.len()),
            )
            .hint("`gantry servers list` shows them")),
        }
    }

    /// Reads the container until it has the status, has failed, or time is up.
    async fn wait_for(
        &self,
        id: ContainerId,
        wanted: &str,
        deadline: Instant,
        progress: &Progress,
    ) -> Result<Value, Failure> {
        loop {
            let container = self.api.get(&format!("containers/{id}"), &[]).await?;
            let status = view::text(view::field(&container, "status"));
            progress.phase(&status);
            if status == wanted {
                return Ok(container);
            }
            if status == "failed" {
                let why = ["error", "status_reason", "failure"]
                    .iter()
                    .find_map(|name| container.get(*name).and_then(Value::as_str))
                    .unwrap_or("the container says no reason");
                return Err(Failure::new(
                    Class::General,
                    format!("container {id} has failed: {why}"),
                ));
            }
            if Instant::now() >= deadline {
                let message = format!("container {id} is still {status}, not {wanted}");
                return Err(Failure::new(Class::TimedOut, message));
            }
            sleep(POLL).await;
        }
    }

    /// Does `work`, and says meanwhile where the container stands, if somebody sees it.
    async fn watched<T>(
        &self,
        id: ContainerId,
        progress: &Progress,
        work: impl Future<Output = T>,
    ) -> T {
        if !progress.is_shown() {
            return work.await;
        }
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = sleep(POLL) => {}
            }
            // What cannot be read now is read the next time; `work` says what went wrong.
            if let Ok(container) = self.api.get(&format!("containers/{id}"), &[]).await {
                progress.phase(&view::text(view::field(&container, "status")));
            }
        }
    }

    async fn wait_until_gone(
        &self,
        id: ContainerId,
        wait: Wait,
        progress: &Progress,
    ) -> Result<(), Failure> {
        let deadline = deadline(wait);
        loop {
            match self.api.get(&format!("containers/{id}"), &[]).await {
                Err(failure) if failure.is_not_found() => return Ok(()),
                Err(failure) => return Err(failure),
                Ok(_) if Instant::now() >= deadline => {
                    let message = format!("container {id} is still being deleted");
                    return Err(Failure::new(Class::TimedOut, message));
                }
                Ok(container) => {
                    progress.phase(&view::text(view::field(&container, "status")));
                    sleep(POLL).await;
                }
            }
        }
    }
}

pub(super) fn deadline(wait: Wait) -> Instant {
    Instant::now() + Duration::from_secs(wait.timeout.into())
}

fn wait_query(wanted: &str, wait: Wait, longest_s: u64) -> Vec<(&'static str, String)> {
    if !wait.wait {
        return Vec::new();
    }
    let timeout = u64::from(wait.timeout).max(1).min(longest_s);
    vec![("wait", wanted.to_owned()), ("timeout", timeout.to_string())]
}

pub(super) fn parse_id(container: &Value) -> Result<ContainerId, Failure> {
    view::text(view::field(container, "id")).parse().map_err(|error| {
        Failure::new(Class::General, format!("the answer carries no container id: {error}"))
    })
}

/// The fields that can be set at any time.
fn insert_fields(body: &mut Map<String, Value>, fields: ContainerFields) -> Result<(), Failure> {
    for (name, value) in [("name", fields.name), ("color", fields.color)] {
        if let Some(value) = value {
            body.insert(name.to_owned(), value.into());
        }
    }
    for (name, value) in [("comment", fields.comment), ("ssh_public_key", fields.ssh_public_key)] {
        match value.as_deref() {
            Some("null") => body.insert(name.to_owned(), Value::Null),
            Some(value) => body.insert(name.to_owned(), value.into()),
            None => None,
        };
    }
    if let Some(forwarding) = fields.ssh_forwarding {
        body.insert("ssh_forwarding".to_owned(), (forwarding == Switch::On).into());
    }
    if !fields.environment_vars.is_empty() {
        let vars = variables("--environment-vars", fields.environment_vars)?;
        body.insert("environment_vars".to_owned(), vars);
    }
    if !fields.realm_ids.is_empty() {
        let ids: Vec<_> = fields.realm_ids.iter().map(ToString::to_string).collect();
        body.insert("realm_ids".to_owned(), json!(ids));
    }
    let switches = fields.switches;
    insert_switch(body, "autostart", switches.autostart, switches.no_autostart);
    insert_switch(body, "ramdisk", switches.ramdisk, switches.no_ramdisk);
    insert_switch(body, "ai", switches.ai, switches.no_ai);
    if let Some(scope) = switches.ramdisk_scope {
        body.insert("ramdisk_scope".to_owned(), scope.into());
    }
    Ok(())
}

/// `KEY=VALUE` as fields of an object.
fn variables(what: &str, pairs: Vec<String>) -> Result<Value, Failure> {
    let mut vars = Map::new();
    for pair in pairs {
        let Some((key, value)) = pair.split_once('=') else {
            return Err(Failure::new(Class::Usage, format!("{what} {pair:?} must be KEY=VALUE")));
        };
        vars.insert(key.to_owned(), value.into());
    }
    Ok(Value::Object(vars))
}

fn insert_kit(body: &mut Map<String, Value>, kit: &KitSwitches) {
    insert_switch(body, "hoody_kit", kit.hoody_kit, kit.no_hoody_kit);
    insert_switch(body, "dev_kit", kit.dev_kit, kit.no_dev_kit);
    insert_switch(body, "cache", kit.cache, kit.no_cache);
}

fn insert_switch(body: &mut Map<String, Value>, name: &str, yes: bool, no: bool) {
    if yes || no {
        body.insert(name.to_owned(), Value::Bool(yes && !no));
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn update(flags: &str) -> Result<Value, Failure> {
        let line = format!("gantry containers update 890abcdef12345678901cdef {flags}");
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
        let Command::Containers(ContainersCommand::Update(update)) = cli.command else {
            panic!("not an update");
        };
        let mut body = Map::new();
        insert_fields(&mut body, update.fields)?;
        Ok(Value::Object(body))
    }

    #[test]
    fn an_update_sends_what_was_said_and_nothing_else() {
        for (flags, want) in [
            ("", json!({})),
            ("--name box-1", json!({"name": "box-1"})),
            (
                "--comment null --ssh-public-key null",
                json!({"comment": null, "ssh_public_key": null}),
            ),
            (
                "--environment-vars A=1 --environment-vars B=x=y",
                json!({"environment_vars": {"A": "1", "B": "x=y"}}),
            ),
            ("--ssh-forwarding off", json!({"ssh_forwarding": false})),
            ("--ssh-forwarding on", json!({"ssh_forwarding": true})),
            ("--no-autostart --ramdisk", json!({"autostart": false, "ramdisk": true})),
            ("--ramdisk-scope project", json!({"ramdisk_scope": "project"})),
            ("--no-ai --ai", json!({"ai": true})), // the last one wins
            (
                "--realm-ids 64a2c4e9f3d5e2b6a8c7d8e1,65b3d5f0a4e6f3c7b9d8e9f2",
                json!({"realm_ids": ["64a2c4e9f3d5e2b6a8c7d8e1", "65b3d5f0a4e6f3c7b9d8e9f2"]}),
            ),
        ] {
            assert_eq!(update(flags).unwrap(), want, "{flags}");
        }
    }

    #[test]
    fn a_variable_without_a_value_is_a_usage_error() {
        assert_eq!(update("--environment-vars A").unwrap_err().class(), Class::Usage);
    }
}
