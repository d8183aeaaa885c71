//! What changes of records tell.

use std::collections::BTreeSet;

use gantry_model::{ContainerSpec, Phase, firewall::Direction};
use serde_json::{Value, json};

use crate::{
    error::Result,
    events::{NewEvent, add},
    firewall::RuleChange,
    record::{Alias, Container, Project, Token},
    writer::Tx,
};

async fn container(
    tx: &mut Tx,
    container: &Container,
    kind: &str,
    more: impl IntoIterator<Item = (&'static str, Value)>,
    at_ms: i64,
) -> Result<()> {
    let mut payload = json!({
        "name": container.spec.name.as_str(),
        "project_id": container.project.to_string(),
        "status": container.status.phase.api_status(),
    });
    if let Some(fields) = payload.as_object_mut() {
        fields.extend(more.into_iter().map(|(name, value)| (name.to_owned(), value)));
    }
    let event = NewEvent {
        owner: container.owner,
        kind,
        resource_type: "container",
        resource_id: container.id.to_string(),
        project: Some(container.project),
        container: Some(container.id),
        payload,
        realms: &container.spec.realms,
        at_ms,
    };
    add(tx, event).await
}

/// A container has come to its phase.
pub(crate) async fn phase_told(
    tx: &mut Tx,
    changed: &Container,
    from: Option<Phase>,
    triggered_by: &str,
) -> Result<()> {
    let (before, now) = (from.map(Phase::api_status), changed.status.phase.api_status());
    if before == Some(now) {
        return Ok(());
    }
    let why = changed.status.why.as_ref().filter(|_| changed.status.phase == Phase::Failed);
    let more = [
        ("from_status", json!(before)),
        ("triggered_by", json!(triggered_by)),
        ("error", json!(why)),
    ];
    container(tx, changed, &format!("container.{now}"), more, changed.updated_at_ms).await
}

/// A container has another spec than this one.
pub(crate) async fn container_told(
    tx: &mut Tx,
    changed: &Container,
    old: &ContainerSpec,
) -> Result<()> {
    let new = &changed.spec;
    let mut told = Vec::new();
    if old.name != new.name {
        told.push(("container.renamed", Some(("old_name", json!(old.name.as_str())))));
    }
    if old.ssh_public_key != new.ssh_public_key {
        let added = new.ssh_public_key.is_some();
        told.push((
            if added { "container.ssh_key.added" } else { "container.ssh_key.removed" },
            None,
        ));
    }
    if old.autostart != new.autostart {
        let kind = if new.autostart {
            "container.autostart_enabled"
        } else {
            "container.autostart_disabled"
        };
        told.push((kind, None));
    }
    if old.environment != new.environment {
        // Names only, and of those that changed: values are often secrets.
        let (before, now) = (old.environment.vars(), new.environment.vars());
        let names: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
        let names: Vec<&String> =
            names.into_iter().filter(|name| before.get(*name) != now.get(*name)).collect();
        told.push(("container.env.updated", Some(("variables", json!(names)))));
    }
    if told.is_empty() {
        told.push(("container.updated", None));
    }
    for (kind, more) in told {
        container(tx, changed, kind, more, changed.updated_at_ms).await?;
    }
    Ok(())
}

/// A container is no more.
pub(crate) async fn container_removed(tx: &mut Tx, gone: &Container, at_ms: i64) -> Result<()> {
    container(tx, gone, "container.deleted", None, at_ms).await
}

/// Something happened to rules of a container's firewall. What they say is for those who may read them.
pub(crate) async fn rules_told(
    tx: &mut Tx,
    container: &Container,
    change: RuleChange,
    direction: Direction,
    count: usize,
    at_ms: i64,
) -> Result<()> {
    let event = NewEvent {
        owner: container.owner,
        kind: change.kind(),
        resource_type: "firewall",
        resource_id: container.id.to_string(),
        project: Some(container.project),
        container: Some(container.id),
        payload: json!({ "direction": direction.as_str(), "count": count }),
        realms: &container.spec.realms,
        at_ms,
    };
    add(tx, event).await
}

/// Something happened to a project.
pub(crate) async fn project_told(
    tx: &mut Tx,
    project: &Project,
    kind: &str,
    at_ms: i64,
) -> Result<()> {
    project_told_with(tx, project, kind, [], at_ms).await
}

/// Something happened to a project, with more about it.
pub(crate) async fn project_told_with<const N: usize>(
    tx: &mut Tx,
    project: &Project,
    kind: &str,
    more: [(&'static str, String); N],
    at_ms: i64,
) -> Result<()> {
    let mut payload = json!({ "alias": project.spec.alias.as_str() });
    if let Some(fields) = payload.as_object_mut() {
        fields.extend(more.map(|(name, value)| (name.to_owned(), value.into())));
    }
    let event = NewEvent {
        owner: project.owner,
        kind,
        resource_type: "project",
        resource_id: project.id.to_string(),
        project: Some(project.id),
        container: None,
        payload,
        realms: &project.spec.realms,
        at_ms,
    };
    add(tx, event).await
}

/// Something happened to a token.
pub(crate) async fn token_told(tx: &mut Tx, token: &Token, kind: &str, at_ms: i64) -> Result<()> {
    let event = NewEvent {
        owner: token.owner,
        kind,
        resource_type: "auth_token",
        resource_id: token.id.to_string(),
        project: None,
        container: None,
        payload: json!({ "alias": token.alias, "is_enabled": token.enabled }),
        realms: &token.realms,
        at_ms,
    };
    add(tx, event).await
}

/// Something happened to an alias, which is visible where its container is.
pub(crate) async fn alias_told(
    tx: &mut Tx,
    alias: &Alias,
    realms: &[gantry_model::RealmId],
    kind: &str,
    at_ms: i64,
) -> Result<()> {
    let event = NewEvent {
        owner: alias.owner,
        kind,
        resource_type: "proxy_alias",
        resource_id: alias.id.to_string(),
        project: Some(alias.project),
        container: Some(alias.container),
        payload: json!({ "alias": alias.label, "enabled": alias.enabled }),
        realms,
        at_ms,
    };
    add(tx, event).await
}
