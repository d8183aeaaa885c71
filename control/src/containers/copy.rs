//! Copies of containers: made from another one or from a snapshot, and refreshed from their source.

use std::time::Duration;

use gantry_model::{
    ContainerId, ContainerSpec, FieldError, Generation, Phase, ProjectId, ServerId, Wish,
    container::{ContainerName, RamdiskScope},
    project::Level,
    ssh::SshPublicKey,
};
use gantry_store::{
    Container, ContainerStatus, CopiedRules, EnvironmentSync, Fill, FillSource, Snapshot, Version,
};

use super::{ContainerView, create::generate_name, kvm::check_kvm};
use crate::{
    actor::Actor,
    controller::Controller,
    error::{During, Error, Forbidden, Result, SnapshotError, Thing},
    permissions::Leaf,
    projects::ok,
    random,
    snapshots::of_snapshot,
};

/// How many names and ids are tried before the write gives up.
const ATTEMPTS: u32 = 8;

/// A copy to be made, as a client words it. What it does not name is as in the source; an SSH key,
/// `/dev/kvm` and a part in the project's ramdisk are never inherited.
#[derive(Clone, Debug, Default)]
pub struct NewCopy {
    /// The id of the project that it shall belong to; required.
    pub target_project_id: Option<String>,
    /// The id of the server that it shall run on; the source's when absent.
    pub target_server_id: Option<String>,
    /// Its name in the project; generated when absent or `rand`.
    pub name: Option<String>,
    /// An OpenSSH public key line, unique across all containers; none when absent.
    pub ssh_public_key: Option<String>,
    /// The name of a snapshot of the source; its present state when absent.
    pub source_snapshot: Option<String>,
    /// Whether it gets the host's `/dev/kvm`; never inherited.
    pub kvm: bool,
    /// Whether it gets the firewall rules that the source has now.
    pub copy_firewall_rules: bool,
    /// Whether it gets the outbound network that the source has now.
    pub copy_network_rules: bool,
}

/// What a copy is made from.
struct Origin {
    spec: ContainerSpec,
    server: ServerId,
    source: FillSource,
    snapshot: Option<Snapshot>,
    /// Whether the container itself still exists.
    is_there: bool,
}

impl Controller {
    /// Records a container with the files of another one or of a snapshot (whose container may be
    /// gone); the reconciler copies and starts it. When this returns an error, nothing is left behind.
    pub async fn copy_container(
        &self,
        actor: &Actor,
        id: ContainerId,
        new: NewCopy,
    ) -> Result<ContainerView> {
        actor.require(Leaf::ContainersCreate)?;
        actor.require(Leaf::ContainersRead)?;
        if new.copy_firewall_rules {
            actor.require(Leaf::ResourcesFirewalls)?;
        }
        if new.copy_network_rules {
            actor.require(Leaf::FeatureNetworking)?;
        }
        let origin = self.origin(actor, id, new.source_snapshot.as_deref()).await?;
        let copied = [
            ("copy_firewall_rules", new.copy_firewall_rules),
            ("copy_network_rules", new.copy_network_rules),
        ];
        if let Some((field, _)) = copied.iter().find(|(_, is_copied)| *is_copied)
            && !origin.is_there
        {
            // The copy would be open, which is not what was meant.
            let rule = "must be left out: the source was deleted, and its rules with it";
            return Err(Error::invalid(*field, rule));
        }
        let (project, mut spec, generated) = check(actor, &new, origin.spec)?;
        let project = self.project_for(actor, project, Level::Edit).await?;
        let server = self.target_server(new.target_server_id.as_deref(), origin.server).await?;
        self.runtime_of(origin.server).await?;
        check_kvm(actor, &**self.runtime_of(server).await?, spec.kvm)?;
        let mut attempt = 0;
        loop {
            let now_ms = self.now_ms();
            let container = Container {
                id: random::id()?,
                project: project.id,
                owner: project.owner,
                server,
                spec: spec.clone(),
                wish: Wish::Running,
                source: Some(id),
                prespawn: false,
                wish_seq: 1,
                status: ContainerStatus {
                    fill: Some(Fill { source: origin.source, is_new: true }),
                    ..ContainerStatus::first(Phase::Copying)
                },
                environment_sync: EnvironmentSync::default(),
                ssh_key_since_ms: None,
                version: Version::FIRST,
                created_at_ms: now_ms,
                updated_at_ms: now_ms,
            };
            attempt += 1;
            let used = origin.snapshot.as_ref().map(|snapshot| snapshot.id);
            let max = self.limits().snapshots_per_user_max;
            let rules = self.copied_rules(&new, id, container.id).await?;
            match self.store().create_copy(&container, used, max, rules).await {
                Ok(container) => return self.view(container).await,
                Err(gantry_store::Error::NameTaken) if generated && attempt < ATTEMPTS => {
                    spec.name = generate_name(attempt)?;
                }
                Err(gantry_store::Error::IdTaken | gantry_store::Error::Stale)
                    if attempt < ATTEMPTS => {}
                Err(error @ gantry_store::Error::SnapshotBusy) => {
                    return Err(of_snapshot(error, Thing::Snapshot));
                }
                Err(error) => return Err(Error::of_write(error, Thing::Snapshot, During::Create)),
            }
        }
    }

    /// Which rules of its source a copy gets.
    async fn copied_rules(
        &self,
        new: &NewCopy,
        source: ContainerId,
        copy: ContainerId,
    ) -> Result<CopiedRules> {
        let mut rules = CopiedRules { firewall: new.copy_firewall_rules, outbound: None };
        if new.copy_network_rules {
            rules.outbound = Some(self.outbound_for_copy(source, copy).await?);
        }
        Ok(rules)
    }

    /// Where the files and the settings of a copy come from.
    async fn origin(&self, actor: &Actor, id: ContainerId, name: Option<&str>) -> Result<Origin> {
        let record = self.store().container(id).await?;
        if let Some(record) = &record {
            self.permit_copy(actor, record, Thing::SourceContainer).await?;
        }
        if let Some(name) = name {
            let snapshot = match self.snapshot_for(actor, id, name, Level::Edit).await {
                // A container that is gone is no source without such a snapshot.
                Err(Error::NotFound(_)) if record.is_none() => {
                    return Err(Error::NotFound(Thing::SourceContainer));
                }
                found => found?,
            };
            let is_there = record.is_some();
            let spec = record.map_or_else(|| snapshot.spec.clone(), |record| record.spec);
            return Ok(Origin {
                spec,
                server: snapshot.server,
                source: FillSource::Snapshot(snapshot.data),
                snapshot: Some(snapshot),
                is_there,
            });
        }
        let record = record.ok_or(Error::NotFound(Thing::SourceContainer))?;
        if record.prespawn {
            return Err(Error::Prespawned);
        }
        match record.status.phase {
            Phase::Creating | Phase::Claiming | Phase::Deleting => {
                return Err(SnapshotError::Finalizing.into());
            }
            Phase::Copying => return Err(SnapshotError::Busy.into()),
            Phase::Failed if record.status.generation == Generation(0) => {
                return Err(SnapshotError::NothingThere.into());
            }
            Phase::Starting
            | Phase::Running
            | Phase::Paused
            | Phase::Stopping
            | Phase::Stopped
            | Phase::Failed => {}
        }
        let source = FillSource::Container(id);
        Ok(Origin {
            spec: record.spec,
            server: record.server,
            source,
            snapshot: None,
            is_there: true,
        })
    }

    /// The server of a copy: the one that is asked for, or that of its source.
    async fn target_server(&self, asked: Option<&str>, own: ServerId) -> Result<ServerId> {
        let Some(asked) = asked else { return Ok(own) };
        let asked: ServerId = asked.parse().map_err(|error: gantry_model::InvalidId| {
            Error::invalid("target_server_id", error.to_string())
        })?;
        if asked != own && !self.store().servers().await?.iter().any(|known| known.id == asked) {
            return Err(Error::NotFound(Thing::Server));
        }
        Ok(asked)
    }

    /// Asks for a copy to get the files that its source has now. It is stopped for that, and runs
    /// again afterwards unless it was stopped before. With `wait`, this returns when that is done or
    /// has failed, or when the time is over; the answer says whether it is done.
    pub async fn sync_container(
        &self,
        actor: &Actor,
        id: ContainerId,
        wait: Option<Duration>,
    ) -> Result<(ContainerView, bool)> {
        actor.require(Leaf::ContainersUpdate)?;
        let record = self.store().container(id).await?.ok_or(Error::NotFound(Thing::Container))?;
        self.permit_copy(actor, &record, Thing::Container).await?;
        let source = record.source.ok_or(SnapshotError::NotACopy)?;
        let missing = Error::NotFound(Thing::SourceContainer);
        let origin = self.store().container(source).await?.ok_or(missing)?;
        self.permit(actor, &origin, Thing::SourceContainer, Level::Edit).await?;
        self.runtime_of(origin.server).await?;
        match origin.status.phase {
            Phase::Deleting => return Err(Error::NotFound(Thing::SourceContainer)),
            Phase::Copying => return Err(SnapshotError::Busy.into()),
            Phase::Creating | Phase::Claiming => return Err(SnapshotError::Finalizing.into()),
            Phase::Starting
            | Phase::Running
            | Phase::Paused
            | Phase::Stopping
            | Phase::Stopped
            | Phase::Failed => {}
        }
        let from = FillSource::Container(source);
        let record = self.refill(actor, id, None, |_| Ok(from)).await?;
        self.wait_for_fill(actor, record, wait).await
    }

    /// Refuses an actor who may not have all files of a container. Whoever sees it is told that it is
    /// the realm, as the reference does; a token that is bound to realms learns nothing of what is
    /// outside.
    async fn permit_copy(&self, actor: &Actor, record: &Container, thing: Thing) -> Result<()> {
        let off_realm = !actor.is_in(&record.spec.realms) && !actor.is_realm_restricted();
        if off_realm && self.reach(actor, record.into()).await?.is_some() {
            return Err(Forbidden::OffRealm.into());
        }
        self.permit(actor, record, thing, Level::Edit).await.map(drop)
    }
}

/// Checks every field and reports every broken rule: the project, what is set of the copy, and whether
/// its name was generated.
fn check(
    actor: &Actor,
    new: &NewCopy,
    source: ContainerSpec,
) -> Result<(ProjectId, ContainerSpec, bool)> {
    let mut errors = Vec::new();
    let project = match new.target_project_id.as_deref() {
        Some(id) => id.parse().map_err(|error: gantry_model::InvalidId| error.to_string()),
        None => Err("is required".to_owned()),
    };
    let project =
        project.map_err(|rule| errors.push(FieldError::new("target_project_id", rule))).ok();
    let chosen = new.name.as_deref().filter(|name| *name != "rand");
    let name = match chosen {
        Some(name) => ok(ContainerName::parse("name", name), &mut errors),
        None => Some(generate_name(0)?),
    };
    let key = new.ssh_public_key.as_deref();
    let ssh_public_key =
        key.and_then(|line| ok(SshPublicKey::parse("ssh_public_key", line), &mut errors));
    let (Some(project), Some(name), true) = (project, name, errors.is_empty()) else {
        return Err(Error::Invalid(errors));
    };
    let realms = actor.realms_of_new(source.realms.clone());
    let spec = ContainerSpec {
        name,
        ssh_public_key,
        realms,
        kvm: new.kvm,
        ramdisk_scope: RamdiskScope::Container,
        ..source
    };
    Ok((project, spec, chosen.is_none()))
}
