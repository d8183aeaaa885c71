//! What changes of records tell.

use std::collections::BTreeSet;

use gantry_model::{
    ContainerSpec, Phase, ProjectId, RealmId, UserId, access::Fallback, firewall::Direction,
    outbound::Outbound,
};
use serde_json::{Value, json};

use crate::{
    error::Result,
    events::{NewEvent, add},
    firewall::RuleChange,
    outbound::OutboundChange,
    record::{Access, Alias, Container, Fill, FillSource, Project, Scope, Snapshot, Token, User},
    shares::{Share, ShareTarget},
    vault::VaultPlace,
    visits::VisitTold,
    writer::Tx,
};

async fn container(
    tx: &mut Tx,
    container: &Container,
    kind: &str,
    more: impl IntoIterator<Item = (&'static str, Value)>,
    at_ms: i64,
) -> Result<()> {
    // What waits in a pool is nobody's container yet.
    if container.prespawn {
        return Ok(());
    }
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

/// Somebody came by SSH, or has left.
pub(crate) async fn visit_told(tx: &mut Tx, visited: &Container, visit: VisitTold) -> Result<()> {
    container(tx, visited, visit.kind, visit.payload, visit.at_ms).await
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
    // For those who listen, a claim is a creation that is quick.
    let kind = if changed.status.phase == Phase::Claiming {
        "container.creating".to_owned()
    } else {
        format!("container.{now}")
    };
    container(tx, changed, &kind, more, changed.updated_at_ms).await
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

/// A container's settings of the edge are others.
pub(crate) async fn settings_told(tx: &mut Tx, changed: &Container, at_ms: i64) -> Result<()> {
    container(tx, changed, "container.updated", [("changed", json!("proxy_settings"))], at_ms).await
}

/// What was to fill a container with files has come to its end; `snapshot` is the name of the one they
/// come from.
pub(crate) async fn fill_told(
    tx: &mut Tx,
    filled: &Container,
    fill: Fill,
    snapshot: Option<String>,
) -> Result<()> {
    let at_ms = filled.updated_at_ms;
    let (operation, source) = match (fill.is_new, fill.source) {
        (true, FillSource::Container(id)) => ("copy", Some(id)),
        (true, FillSource::Snapshot(_)) => ("copy", None),
        (false, FillSource::Container(id)) => ("sync", Some(id)),
        (false, FillSource::Snapshot(_)) => ("restore", None),
    };
    let has_failed = filled.status.phase == Phase::Failed;
    let more = [
        ("operation", json!(operation)),
        ("source_container_id", json!(source.map(|id| id.to_string()))),
        ("snapshot_name", json!(snapshot)),
        ("error", json!(filled.status.why.as_ref().filter(|_| has_failed))),
    ];
    if operation == "restore" && !has_failed {
        let [_, _, name, _] = more.clone();
        container(tx, filled, "container.snapshot.restored", [name], at_ms).await?;
    }
    let kind =
        if has_failed { "container.operation.failed" } else { "container.operation.completed" };
    container(tx, filled, kind, more, at_ms).await
}

/// Something happened to a snapshot; its container may be gone.
pub(crate) async fn snapshot_told(
    tx: &mut Tx,
    snapshot: &Snapshot,
    kind: &str,
    more: Option<(&'static str, Value)>,
    at_ms: i64,
) -> Result<()> {
    let mut payload = json!({
        "name": snapshot.spec.name.as_str(),
        "project_id": snapshot.project.to_string(),
        "snapshot_id": snapshot.id.to_string(),
        "snapshot_name": snapshot.name,
        "alias": snapshot.alias,
    });
    if let (Some(fields), Some((name, value))) = (payload.as_object_mut(), more) {
        fields.insert(name.to_owned(), value);
    }
    let event = NewEvent {
        owner: snapshot.owner,
        kind,
        resource_type: "container",
        resource_id: snapshot.container.to_string(),
        project: Some(snapshot.project),
        container: Some(snapshot.container),
        payload,
        realms: &snapshot.spec.realms,
        at_ms,
    };
    add(tx, event).await
}

/// Whose document of permissions changes, and who sees it.
pub(crate) struct Permitted<'p> {
    pub(crate) scope: Scope,
    pub(crate) owner: UserId,
    pub(crate) project: ProjectId,
    pub(crate) realms: &'p [RealmId],
}

/// A document of permissions has become this one. What it holds is for those who may read it: only the
/// names of groups are told.
pub(crate) async fn access_told(
    tx: &mut Tx,
    whose: &Permitted<'_>,
    (old, new): (&Access, &Access),
    at_ms: i64,
) -> Result<()> {
    let (before, now) = (old.document.as_ref(), new.document.as_ref());
    let [old_groups, new_groups] = [before, now].map(|document| document.map(|doc| &doc.groups));
    let mut told: Vec<(&str, Option<(&str, Value)>)> = Vec::new();
    let names: BTreeSet<_> =
        old_groups.into_iter().chain(new_groups).flat_map(|groups| groups.keys()).collect();
    for name in names {
        let [was, is] = [old_groups, new_groups].map(|groups| groups.and_then(|all| all.get(name)));
        let kind = match (was, is) {
            (None, _) => "proxy.permissions.group_added",
            (_, None) => "proxy.permissions.group_removed",
            (Some(was), Some(is)) if was != is => "proxy.permissions.group_updated",
            (Some(_), Some(_)) => continue,
        };
        told.push((kind, Some(("group", json!(name.as_str())))));
    }
    let default = now.map(|document| document.default);
    if before.map(|document| document.default) != default {
        let default = default.map(Fallback::as_str);
        told.push(("proxy.permissions.default_changed", Some(("default", json!(default)))));
    }
    let rest = |access: &Access| {
        access.document.as_ref().map(|doc| (doc.permissions.clone(), doc.enable_proxy))
    };
    if told.is_empty() || rest(old) != rest(new) || old.hooks != new.hooks {
        told.push(("proxy.permissions.updated", None));
    }
    let (scope, id, container) = match whose.scope {
        Scope::Project(id) => ("project", id.to_string(), None),
        Scope::Container(id) => ("container", id.to_string(), Some(id)),
    };
    for (kind, more) in told {
        let mut payload = json!({ "scope": scope, "file_version": new.version.0 });
        if let (Some(fields), Some((name, value))) = (payload.as_object_mut(), more) {
            fields.insert(name.to_owned(), value);
        }
        let event = NewEvent {
            owner: whose.owner,
            kind,
            resource_type: "proxy_permissions",
            resource_id: id.clone(),
            project: Some(whose.project),
            container,
            payload,
            realms: whose.realms,
            at_ms,
        };
        add(tx, event).await?;
    }
    Ok(())
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

/// Something happened to the outbound network of a container. Where its proxy is, is for those who may
/// read it.
pub(crate) async fn network_told(
    tx: &mut Tx,
    container: &Container,
    change: OutboundChange,
    outbound: Option<&Outbound>,
    at_ms: i64,
) -> Result<()> {
    let event = NewEvent {
        owner: container.owner,
        kind: change.kind(),
        resource_type: "container",
        resource_id: container.id.to_string(),
        project: Some(container.project),
        container: Some(container.id),
        payload: json!({ "type": outbound.map(Outbound::kind) }),
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

/// An account was made, which is told to whoever made it.
pub(crate) async fn user_created(tx: &mut Tx, by: UserId, user: &User) -> Result<()> {
    let payload = json!({ "username": user.username, "is_admin": user.is_admin });
    account(tx, by, (user.id, "user.created"), payload, user.created_at_ms).await
}

/// Something of an account was changed; what it holds now is told to nobody.
pub(crate) async fn account_told(
    tx: &mut Tx,
    user: UserId,
    changed: &str,
    at_ms: i64,
) -> Result<()> {
    let payload = json!({ "changed": [changed] });
    account(tx, user, (user, "account.updated"), payload, at_ms).await
}

async fn account(
    tx: &mut Tx,
    owner: UserId,
    (user, kind): (UserId, &str),
    payload: Value,
    at_ms: i64,
) -> Result<()> {
    let event = NewEvent {
        owner,
        kind,
        resource_type: "user",
        resource_id: user.to_string(),
        project: None,
        container: None,
        payload,
        realms: &[],
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
    realms: &[RealmId],
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

/// Something happened to a share, which is visible where its source is.
pub(crate) async fn share_told(
    tx: &mut Tx,
    share: &Share,
    realms: &[RealmId],
    kind: &str,
    at_ms: i64,
) -> Result<()> {
    let event = NewEvent {
        owner: share.owner,
        kind,
        resource_type: "storage_share",
        resource_id: share.id.to_string(),
        project: Some(share.project),
        container: Some(share.source),
        payload: share_payload(share),
        realms,
        at_ms,
    };
    add(tx, event).await
}

/// A container wants a share, or does not: that is told where the source is, and where the container is
/// if that is somebody else's.
pub(crate) async fn share_mount_told(
    tx: &mut Tx,
    share: &Share,
    (source, target): (&Container, &Container),
    is_wanted: bool,
    at_ms: i64,
) -> Result<()> {
    let mut payload = share_payload(share);
    if let Some(fields) = payload.as_object_mut() {
        fields.insert("container_id".to_owned(), target.id.to_string().into());
        fields.insert("mount".to_owned(), is_wanted.into());
    }
    let other = (target.owner != source.owner).then_some(target);
    for place in [Some(source), other].into_iter().flatten() {
        let event = NewEvent {
            owner: place.owner,
            kind: "storage.share.mount_changed",
            resource_type: "storage_share",
            resource_id: share.id.to_string(),
            project: Some(place.project),
            container: Some(place.id),
            payload: payload.clone(),
            realms: &place.spec.realms,
            at_ms,
        };
        add(tx, event).await?;
    }
    Ok(())
}

fn share_payload(share: &Share) -> Value {
    let (container, project) = match share.target {
        ShareTarget::Container(id) => (Some(id.to_string()), None),
        ShareTarget::Project(id) => (None, Some(id.to_string())),
    };
    json!({
        "source_container_id": share.source.to_string(),
        "source_path": share.path.as_str(),
        "target_type": share.target.kind(),
        "target_container_id": container,
        "target_project_id": project,
        "mode": share.mode.as_str(),
        "enabled": share.enabled,
    })
}

/// Something happened to an entry of a vault; of what it holds nothing is told.
pub(crate) async fn vault_told(
    tx: &mut Tx,
    place: &VaultPlace,
    kind: &str,
    at_ms: i64,
) -> Result<()> {
    let payload = json!({ "key": place.key });
    vault(tx, place.owner, place.realm, (kind, &place.key), payload, at_ms).await
}

/// Every entry of a vault in a realm, or of no realm, was removed.
pub(crate) async fn vault_cleared(
    tx: &mut Tx,
    owner: UserId,
    realm: Option<RealmId>,
    count: u64,
    at_ms: i64,
) -> Result<()> {
    let payload = json!({ "deleted_count": count });
    let whose = owner.to_string();
    vault(tx, owner, realm, ("vault.cleared", &whose), payload, at_ms).await
}

async fn vault(
    tx: &mut Tx,
    owner: UserId,
    realm: Option<RealmId>,
    (kind, id): (&str, &str),
    payload: Value,
    at_ms: i64,
) -> Result<()> {
    let event = NewEvent {
        owner,
        kind,
        resource_type: "vault",
        resource_id: id.to_owned(),
        project: None,
        container: None,
        payload,
        realms: realm.as_slice(),
        at_ms,
    };
    add(tx, event).await
}
