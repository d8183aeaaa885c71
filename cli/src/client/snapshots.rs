//! `gantry snapshots …`, `gantry containers copy` and `gantry containers sync`.

use gantry_model::ContainerId;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep};

use super::{
    Client,
    containers::{POLL, deadline, parse_id},
    progress::Progress,
    projects, view,
};
use crate::{
    args::{ContainerCopy, SnapshotsCommand, Wait},
    exit::{Class, Failure},
    output,
};

impl Client {
    pub(super) async fn snapshots(&self, command: SnapshotsCommand) -> Result<(), Failure> {
        match command {
            SnapshotsCommand::Create { container, alias, expiry } => {
                let mut body = Map::new();
                body.extend(alias.map(|alias| ("alias".to_owned(), alias.into())));
                body.extend(expiry.map(|days| ("expiry".to_owned(), days.into())));
                let path = format!("containers/{container}/snapshots");
                let doing = format!("Making a snapshot of container {container}");
                let progress = Progress::start(self.out, doing);
                let made = self.api.post(&path, &[], Some(&Value::Object(body))).await?;
                drop(progress);
                self.show(view::field(&made, "snapshot"))
            }
            SnapshotsCommand::List { container, project, paging } => {
                let mut query = projects::query(&paging);
                query.extend(container.map(|id| ("container_id", id.to_string())));
                query.extend(project.map(|id| ("project_id", id.to_string())));
                let data = self.api.get("snapshots", &query).await?;
                self.list(&data, view::field(&data, "snapshots"), view::SNAPSHOT)
            }
            SnapshotsCommand::Restore { container, name, wait } => {
                self.confirm(&format!("the present files of container {container}"))?;
                let path = one(container, &name)?;
                let end = deadline(wait);
                let doing = format!("Restoring container {container}");
                let progress = self.progress(wait, doing);
                let restored = self.api.patch(&path, &json!({})).await?;
                if wait.wait {
                    let container = self.wait_while_copying(container, end, progress).await?;
                    return self.show(&container);
                }
                self.show(&restored)
            }
            SnapshotsCommand::UpdateAlias { container, name, alias } => {
                let alias = Some(alias).filter(|alias| alias != "null");
                let path = format!("{}/alias", one(container, &name)?);
                let renamed = self.api.patch(&path, &json!({ "alias": alias })).await?;
                self.show(view::field(&renamed, "snapshot"))
            }
            SnapshotsCommand::Delete { container, name } => {
                self.confirm(&format!("snapshot {name} of container {container}"))?;
                self.api.delete(&one(container, &name)?).await?;
                output::note(&format!("Deleted snapshot {name}."));
                Ok(())
            }
        }
    }

    pub(super) async fn copy_container(&self, copy: ContainerCopy) -> Result<(), Failure> {
        let server = match &copy.target_server_id {
            Some(server) => Some(self.server_id(server).await?.into()),
            None => None,
        };
        let mut body = Map::new();
        let mut set = |name: &str, value: Option<Value>| {
            body.extend(value.map(|value| (name.to_owned(), value)));
        };
        set("target_project_id", Some(copy.target_project_id.to_string().into()));
        set("target_server_id", server);
        set("name", copy.name.map(Into::into));
        set("ssh_public_key", copy.ssh_public_key.map(Into::into));
        set("source_snapshot", copy.source_snapshot.map(Into::into));
        set("copy_firewall_rules", Some(copy.copy_firewall_rules.into()));
        set("copy_network_rules", Some(copy.copy_network_rules.into()));
        set("kvm", copy.kvm.then_some(true.into()));
        let end = deadline(copy.wait);
        let path = format!("containers/{}/copy", copy.id);
        let progress = self.progress(copy.wait, format!("Copying container {}", copy.id));
        let made = self.api.post(&path, &[], Some(&Value::Object(body))).await?;
        if copy.wait.wait {
            let id = parse_id(&made)?;
            return self.show(&self.wait_while_copying(id, end, progress).await?);
        }
        self.show(&made)
    }

    pub(super) async fn sync_container(&self, id: ContainerId, wait: Wait) -> Result<(), Failure> {
        let end = deadline(wait);
        let progress = self.progress(wait, format!("Synchronising container {id}"));
        let accepted = self.api.post(&format!("containers/{id}/sync"), &[], None).await?;
        if wait.wait {
            return self.show(&self.wait_while_copying(id, end, progress).await?);
        }
        self.show(&accepted)
    }

    /// Reads the container until its files are no longer being copied, or time is up.
    async fn wait_while_copying(
        &self,
        id: ContainerId,
        end: Instant,
        progress: Progress,
    ) -> Result<Value, Failure> {
        loop {
            let container = self.api.get(&format!("containers/{id}"), &[]).await?;
            let status = view::text(view::field(&container, "status"));
            progress.phase(&status);
            match status.as_str() {
                "copying" if Instant::now() < end => sleep(POLL).await,
                "copying" => {
                    let message = format!("the files of container {id} are still being copied");
                    return Err(Failure::new(Class::TimedOut, message));
                }
                "failed" => {
                    let why = view::text(view::field(&container, "error"));
                    let message = format!("container {id} has failed: {why}");
                    return Err(Failure::new(Class::General, message));
                }
                _ => return Ok(container),
            }
        }
    }
}

/// The path of a snapshot. Names are made of what needs no escaping.
fn one(container: ContainerId, name: &str) -> Result<String, Failure> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if name.is_empty() || !name.chars().all(plain) {
        let message = format!("{name:?} is no name of a snapshot");
        return Err(Failure::new(Class::Usage, message).hint("`gantry snapshots list` shows them"));
    }
    Ok(format!("containers/{container}/snapshots/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_lead_to_another_path() {
        let id = ContainerId::from_bytes([1; 12]);
        assert!(one(id, "snap-20260101-000000").is_ok());
        for name in ["", "..", "a/b", "a?b", "a b"] {
            assert_eq!(one(id, name).unwrap_err().class(), Class::Usage, "{name}");
        }
    }
}
