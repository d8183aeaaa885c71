//! Snapshots: kept states of a container's files, which outlive it.

use std::time::Duration;

use gantry_model::{
    ContainerId, Phase, ProjectId, RealmId, Refused, SnapshotId, Wish, project::Level,
};
use gantry_store::{
    Container, FillSource, Listed, Page, Snapshot, SnapshotFilter, SnapshotMax, SnapshotSort,
    SnapshotSummary,
};
use time::{OffsetDateTime, macros::format_description};

use crate::{
    Patch,
    actor::Actor,
    containers::ContainerView,
    controller::{CAS_ATTEMPTS, Controller},
    error::{Error, Result, SnapshotError, Thing},
    operate::BY_CLIENT,
    permissions::Leaf,
    random,
    wait::Condition,
};

/// How long the making of a snapshot is waited for. Clients give up after 30 s.
const MAKING_TIMEOUT: Duration = Duration::from_secs(25);
/// The longest alias, in characters, and the longest name.
const ALIAS_CHARS_MAX: usize = 100;
/// The longest life that can be asked for.
const EXPIRY_DAYS_MAX: u32 = 3650;
/// No configuration allows more snapshots of one container.
const SNAPSHOTS_MAX: u32 = 1_000;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// How many names are tried for a snapshot without an alias.
const ATTEMPTS: u32 = 8;

/// A snapshot to be made, as a client words it.
#[derive(Clone, Debug, Default)]
pub struct NewSnapshot {
    /// What its owner calls it, at most 100 characters; its name comes from it.
    pub alias: Option<String>,
    /// After how many days it is removed, 1 to 3650; never when absent.
    pub expiry_days: Option<u32>,
}

/// Which snapshots a list shows.
#[derive(Clone, Copy, Debug)]
pub struct SnapshotQuery {
    /// Only those of this container, which may be gone.
    pub container: Option<ContainerId>,
    /// Only those of this project's containers.
    pub project: Option<ProjectId>,
    /// Only those in this realm; must be the host's realm if that has one.
    pub realm: Option<RealmId>,
    /// Which page.
    pub page: Page<SnapshotSort>,
}

/// The snapshots of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerSnapshots {
    /// The container; it may be gone.
    pub container: ContainerId,
    /// Its project.
    pub project: ProjectId,
    /// How many it may have.
    pub max: u32,
    /// Those that it has, newest first.
    pub snapshots: Vec<Snapshot>,
}

/// A restoration that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// The container after it.
    pub container: ContainerView,
    /// Whether it is done: true only when waited for and come true.
    pub done: bool,
}

impl Controller {
    /// One page of the snapshots that the actor sees, those of deleted containers included.
    pub async fn snapshots(&self, actor: &Actor, query: SnapshotQuery) -> Result<Listed<Snapshot>> {
        actor.require(Leaf::ContainersRead)?;
        let filter = SnapshotFilter {
            seen_by: actor.seen_by(),
            project: query.project,
            container: query.container,
            realm: actor.realm_filter(query.realm)?,
        };
        Ok(self.store().snapshots(filter, query.page).await?)
    }

    /// The snapshots of a container, which may be gone if it has some.
    pub async fn snapshots_of(
        &self,
        actor: &Actor,
        container: ContainerId,
    ) -> Result<ContainerSnapshots> {
        actor.require(Leaf::ContainersRead)?;
        let max = self.limits().snapshots_per_container_max;
        let filter = SnapshotFilter { container: Some(container), ..SnapshotFilter::default() };
        // More cannot be allowed; a copy brings no more than its source has.
        let limit = SNAPSHOTS_MAX;
        let page = Page { page: 1, limit, sort: SnapshotSort::CreatedAt, descending: true };
        let mut snapshots = self.store().snapshots(filter, page).await?.items;
        let project = if let Some(record) = self.store().container(container).await? {
            self.permit(actor, &record, Thing::Container, Level::Read).await?;
            record.project
        } else {
            snapshots.retain(|snapshot| actor.is_in(&snapshot.spec.realms));
            // All are of one project.
            let first = snapshots.first().ok_or(Error::NotFound(Thing::Container))?;
            self.permit(actor, first, Thing::Container, Level::Read).await?;
            first.project
        };
        Ok(ContainerSnapshots { container, project, max, snapshots })
    }

    /// The snapshot of this name, if it exists for the actor, who may do what needs this level; also of a
    /// container that is gone.
    pub(crate) async fn snapshot_for(
        &self,
        actor: &Actor,
        container: ContainerId,
        name: &str,
        level: Level,
    ) -> Result<Snapshot> {
        let record = self.store().container(container).await?;
        if let Some(record) = &record {
            self.permit(actor, record, Thing::Container, level).await?;
        }
        let snapshot = self.store().snapshot_named(container, name).await?;
        let snapshot = snapshot.ok_or(Error::NotFound(Thing::Snapshot))?;
        // Of a container that exists, its own realms count; the snapshot's are those of its day.
        if record.is_none() {
            self.permit(actor, &snapshot, Thing::Snapshot, level).await?;
        }
        Ok(snapshot)
    }

    /// Records a snapshot that is to be made and waits up to 25 s until the runtime has made it; if
    /// that takes longer, it is made all the same, and the answer says that it is not ready.
    pub async fn create_snapshot(
        &self,
        actor: &Actor,
        id: ContainerId,
        new: NewSnapshot,
    ) -> Result<Snapshot> {
        actor.require(Leaf::FeatureSnapshots)?;
        let container = self.warm_or_not(actor, id, Level::Edit).await?;
        if container.prespawn {
            return Err(SnapshotError::Prespawned.into());
        }
        self.runtime_of(container.server).await?;
        match container.status.phase {
            Phase::Creating | Phase::Claiming | Phase::Deleting => {
                return Err(SnapshotError::Finalizing.into());
            }
            Phase::Copying => return Err(SnapshotError::Busy.into()),
            Phase::Failed if container.status.generation.0 == 0 => {
                return Err(SnapshotError::NothingThere.into());
            }
            Phase::Starting
            | Phase::Running
            | Phase::Paused
            | Phase::Stopping
            | Phase::Stopped
            | Phase::Failed => {}
        }
        let alias = new.alias.as_deref().map(check_alias).transpose()?;
        let days = new.expiry_days.map(check_expiry).transpose()?;
        let now_ms = self.now_ms();
        let named = alias.as_deref().and_then(name_of);
        let max = SnapshotMax {
            container: self.limits().snapshots_per_container_max,
            owner: self.limits().snapshots_per_user_max,
        };
        let mut attempt = 0;
        let snapshot = loop {
            let name = match &named {
                Some(name) => name.clone(),
                None => timed_name(now_ms, attempt)?,
            };
            let mut spec = container.spec.clone();
            spec.ssh_public_key = None;
            let snapshot = Snapshot {
                id: random::id()?,
                data: random::id()?,
                container: id,
                project: container.project,
                owner: container.owner,
                server: container.server,
                spec,
                name,
                alias: alias.clone(),
                is_ready: false,
                bytes: 0,
                expires_at_ms: days.map(|days| now_ms.saturating_add(days.saturating_mul(DAY_MS))),
                last_used_at_ms: None,
                created_at_ms: now_ms,
            };
            attempt += 1;
            match self.store().create_snapshot(&snapshot, max).await {
                Ok(()) => break snapshot,
                Err(gantry_store::Error::NameTaken) if named.is_none() && attempt < ATTEMPTS => {}
                Err(gantry_store::Error::NameTaken) => {
                    return Err(SnapshotError::NameTaken { name: snapshot.name }.into());
                }
                Err(error) => return Err(of_snapshot(error, Thing::Container)),
            }
        };
        let snapshot = self.wait_until_made(snapshot).await?;
        // Much may have changed while that took its time.
        self.permit(actor, &snapshot, Thing::Container, Level::Read).await?;
        Ok(snapshot)
    }

    async fn wait_until_made(&self, snapshot: Snapshot) -> Result<Snapshot> {
        let mut head = self.store().head();
        let deadline = tokio::time::Instant::now() + MAKING_TIMEOUT;
        loop {
            head.mark_unchanged();
            match self.store().snapshot(snapshot.id).await? {
                None => return Err(SnapshotError::NotMade.into()),
                Some(now) if now.is_ready => return Ok(now),
                Some(_) => {}
            }
            match tokio::time::timeout_at(deadline, head.changed()).await {
                Ok(changed) => changed.map_err(Error::store_closed)?,
                Err(_elapsed) => return Ok(snapshot),
            }
        }
    }

    /// Asks for a container's files to become those of a snapshot. It is stopped for that, and runs
    /// again afterwards unless it was stopped before. With `wait`, this returns when that is done or
    /// has failed, or when the time is over.
    pub async fn restore_snapshot(
        &self,
        actor: &Actor,
        id: ContainerId,
        name: &str,
        wait: Option<Duration>,
    ) -> Result<Restored> {
        actor.require(Leaf::FeatureSnapshots)?;
        actor.require(Leaf::ContainersUpdate)?;
        let snapshot = self.snapshot_for(actor, id, name, Level::Edit).await?;
        if self.store().container(id).await?.is_none() {
            return Err(SnapshotError::ContainerGone.into());
        }
        let (source, used) = (FillSource::Snapshot(snapshot.data), Some(snapshot.id));
        let record = self.refill(actor, id, used, |_| Ok(source)).await?;
        let (container, done) = self.wait_for_fill(actor, record, wait).await?;
        let snapshot = self.store().snapshot(snapshot.id).await?.unwrap_or(snapshot);
        Ok(Restored { snapshot, container, done })
    }

    /// Records the wish that the files of a container be replaced.
    pub(crate) async fn refill(
        &self,
        actor: &Actor,
        id: ContainerId,
        used: Option<SnapshotId>,
        source: impl Fn(&Container) -> Result<FillSource>,
    ) -> Result<Container> {
        for _ in 0..CAS_ATTEMPTS {
            let container = self.container_for(actor, id, Level::Edit).await?;
            self.runtime_of(container.server).await?;
            let source = source(&container)?;
            let before = container.status.phase;
            let phase = before.refill().map_err(of_refusal)?;
            let wish = if before == Phase::Stopped { Wish::Stopped } else { Wish::Running };
            let (version, now_ms) = (container.version, self.now_ms());
            let next = (wish, phase);
            match self.store().set_fill(id, version, next, source, used, BY_CLIENT, now_ms).await {
                Err(gantry_store::Error::Stale) => {}
                Err(error) => return Err(of_snapshot(error, Thing::Snapshot)),
                Ok(container) => return Ok(container),
            }
        }
        Err(Error::Conflict)
    }

    /// Waits until a container whose files are being replaced has settled; says whether that came true.
    pub(crate) async fn wait_for_fill(
        &self,
        actor: &Actor,
        record: Container,
        wait: Option<Duration>,
    ) -> Result<(ContainerView, bool)> {
        let condition =
            if record.wish == Wish::Stopped { Condition::Stopped } else { Condition::Running };
        let id = record.id;
        let view = self.view(record).await?;
        let Some(timeout) = wait else { return Ok((view, false)) };
        let waited = self.wait_until(Some(actor), id, condition, timeout).await?;
        Ok((waited.container.unwrap_or(view), waited.met))
    }

    /// Calls a snapshot something else, or nothing. Its name stays.
    pub async fn rename_snapshot(
        &self,
        actor: &Actor,
        id: ContainerId,
        name: &str,
        alias: Patch<String>,
    ) -> Result<Snapshot> {
        actor.require(Leaf::FeatureSnapshots)?;
        let snapshot = self.snapshot_for(actor, id, name, Level::Edit).await?;
        let alias = match alias {
            Patch::Keep => return Ok(snapshot),
            Patch::Clear => None,
            Patch::Set(alias) => Some(check_alias(&alias)?),
        };
        let renamed = self.store().set_snapshot_alias(snapshot.id, alias.as_deref(), self.now_ms());
        renamed.await.map_err(|error| of_snapshot(error, Thing::Snapshot))
    }

    /// Removes a snapshot. Containers that were made from it stay.
    pub async fn delete_snapshot(
        &self,
        actor: &Actor,
        id: ContainerId,
        name: &str,
    ) -> Result<Snapshot> {
        actor.require(Leaf::FeatureSnapshots)?;
        let snapshot = self.snapshot_for(actor, id, name, Level::Delete).await?;
        let removed = self.store().remove_snapshot(snapshot.id, false, self.now_ms()).await;
        removed.map_err(|error| of_snapshot(error, Thing::Snapshot))?;
        Ok(snapshot)
    }

    /// What there is of snapshots of one container.
    pub(crate) async fn snapshot_summary(&self, id: ContainerId) -> Result<SnapshotSummary> {
        Ok(self.store().snapshot_summaries(&[id]).await?.remove(&id).unwrap_or_default())
    }
}

/// What a store's refusal means for a write about a snapshot.
pub(crate) fn of_snapshot(error: gantry_store::Error, missing: Thing) -> Error {
    use gantry_store::Error as Store;
    #[expect(clippy::wildcard_enum_match_arm, reason = "the others mean what they always mean")]
    match error {
        Store::NotFound => Error::NotFound(missing),
        Store::SnapshotBusy => SnapshotError::Busy.into(),
        Store::SnapshotLimit { count, max } => SnapshotError::Limit { count, max }.into(),
        Store::SnapshotQuota { max } => SnapshotError::Quota { max }.into(),
        other => other.into(),
    }
}

/// Why a container's files cannot be replaced now.
fn of_refusal(refused: Refused) -> Error {
    match refused {
        Refused::CopyInProgress => SnapshotError::Busy.into(),
        Refused::Unfinished | Refused::Deleting => SnapshotError::Finalizing.into(),
        Refused::Exists
        | Refused::StartInProgress
        | Refused::StopInProgress
        | Refused::Paused
        | Refused::NotRunning
        | Refused::Failed => SnapshotError::Refused(refused).into(),
    }
}

fn check_alias(alias: &str) -> Result<String> {
    let count = alias.chars().count();
    if alias.trim().is_empty() || count > ALIAS_CHARS_MAX || alias.chars().any(char::is_control) {
        let rule = "must have 1 to 100 characters, not only spaces and no control characters";
        return Err(Error::invalid("alias", rule));
    }
    Ok(alias.to_owned())
}

fn check_expiry(days: u32) -> Result<i64> {
    if (1..=EXPIRY_DAYS_MAX).contains(&days) {
        Ok(days.into())
    } else {
        Err(Error::invalid("expiry", "must be a number of days from 1 to 3650"))
    }
}

/// The alias reduced to letters, digits, underscores and hyphens; `None` if nothing is left.
fn name_of(alias: &str) -> Option<String> {
    let reduced: String =
        alias.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')).collect();
    let name = reduced.trim_start_matches('-');
    (!name.is_empty()).then(|| name.to_owned())
}

/// `snap-YYYYMMDD-HHMMSS`, and a number when there is one of that second.
fn timed_name(now_ms: i64, attempt: u32) -> Result<String> {
    let format = format_description!("snap-[year][month][day]-[hour][minute][second]");
    let at =
        OffsetDateTime::from_unix_timestamp(now_ms.div_euclid(1000)).map_err(Error::internal)?;
    let name = at.format(&format).map_err(Error::internal)?;
    Ok(if attempt == 0 { name } else { format!("{name}-{}", attempt + 1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_a_path_can_hold_of_an_alias() {
        for (alias, name) in [
            ("before-deletion-2025-11-09", Some("before-deletion-2025-11-09")),
            ("--Vor dem Löschen!_1", Some("VordemLschen_1")),
            ("../../etc", Some("etc")),
            ("-- ?", None),
        ] {
            assert_eq!(name_of(alias).as_deref(), name, "{alias}");
        }
        assert_eq!(timed_name(1_767_225_600_000, 0).unwrap(), "snap-20260101-000000");
        assert_eq!(timed_name(1_767_225_600_000, 1).unwrap(), "snap-20260101-000000-2");
    }
}
