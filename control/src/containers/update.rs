//! Changing containers.

use std::collections::BTreeMap;

use gantry_model::{
    ContainerId, ContainerSpec, FieldError, Phase,
    container::{Color, Comment, ContainerName, Environment, RamdiskScope, parse_realms},
    project::Level,
    ssh::SshPublicKey,
};
use gantry_store::Container;

use super::ContainerView;
use crate::{
    Patch,
    actor::Actor,
    controller::{CAS_ATTEMPTS, Controller},
    error::{During, Error, Forbidden, Result, Subject, Thing},
    permissions::Leaf,
    projects::ok,
};

/// A change of a container, as a client words it; what is left out stays.
#[derive(Clone, Debug, Default)]
pub struct ContainerChange {
    /// As at creation; only while the container is stopped.
    pub name: Option<String>,
    /// All of its environment variables, in place of the present ones; only while it is stopped.
    pub environment_vars: Option<BTreeMap<String, String>>,
    /// As at creation; only while the container is stopped.
    pub ramdisk: Option<bool>,
    /// Who shares what is in `/ramdisk/project`; only while the container is stopped, and only in a project
    /// without members.
    pub ramdisk_scope: Option<RamdiskScope>,
    /// As at creation.
    pub color: Option<String>,
    /// As at creation.
    pub comment: Patch<String>,
    /// As at creation.
    pub ssh_public_key: Patch<String>,
    /// As at creation; off, it ends what is forwarded at the moment.
    pub ssh_forwarding: Option<bool>,
    /// All of its realms, in place of the present ones.
    pub realm_ids: Option<Vec<String>>,
    /// As at creation.
    pub autostart: Option<bool>,
    /// As at creation.
    pub ai: Option<bool>,
    /// Never changes; its present value is accepted.
    pub container_image: Option<String>,
    /// Never changes; its present value is accepted.
    pub hoody_kit: Option<bool>,
    /// Never changes; its present value is accepted.
    pub dev_kit: Option<bool>,
    /// Changes by [`Controller::set_kvm`] only; its present value is accepted.
    pub kvm: Option<bool>,
    /// Never changes; its present value is accepted.
    pub server_id: Option<String>,
}

impl Controller {
    /// Changes a container. A value that a field has already is no change and always accepted.
    pub async fn update_container(
        &self,
        actor: &Actor,
        id: ContainerId,
        change: ContainerChange,
    ) -> Result<ContainerView> {
        actor.require(Leaf::ContainersUpdate)?;
        if change.ssh_public_key != Patch::Keep {
            actor.require(Leaf::ResourcesSshKeys)?;
        }
        for _ in 0..CAS_ATTEMPTS {
            let container = self.container_for(actor, id, Level::Edit).await?;
            let spec = changed(&container, &change)?;
            if spec == container.spec {
                return self.view(container).await;
            }
            check_change(actor, &container, &spec)?;
            let updated =
                self.store().update_spec(id, container.version, &spec, self.now_ms()).await;
            match updated {
                Ok(container) => return self.view(container).await,
                Err(gantry_store::Error::Stale) => {}
                Err(error) => {
                    return Err(Error::of_write(error, Thing::Container, During::Update));
                }
            }
        }
        Err(Error::Conflict)
    }
}

/// The spec with the change, or every broken rule of a field.
fn changed(container: &Container, change: &ContainerChange) -> Result<ContainerSpec> {
    check_immutable(container, change)?;
    let mut errors = Vec::new();
    let mut spec = container.spec.clone();
    if let Some(name) = &change.name {
        spec.name = ok(ContainerName::parse("name", name), &mut errors).unwrap_or(spec.name);
    }
    if let Some(vars) = &change.environment_vars {
        match Environment::parse("environment_vars", vars.clone()) {
            Ok(environment) => spec.environment = environment,
            Err(more) => errors.extend(more),
        }
    }
    if let Some(color) = &change.color {
        spec.color = ok(Color::parse("color", color), &mut errors).unwrap_or(spec.color);
    }
    match &change.comment {
        Patch::Keep => {}
        Patch::Clear => spec.comment = None,
        Patch::Set(text) => spec.comment = ok(Comment::parse("comment", text), &mut errors),
    }
    match &change.ssh_public_key {
        Patch::Keep => {}
        Patch::Clear => spec.ssh_public_key = None,
        Patch::Set(line) => {
            spec.ssh_public_key = ok(SshPublicKey::parse("ssh_public_key", line), &mut errors);
        }
    }
    if let Some(realms) = &change.realm_ids {
        spec.realms = ok(parse_realms("realm_ids", realms), &mut errors).unwrap_or_default();
    }
    spec.ramdisk = change.ramdisk.unwrap_or(spec.ramdisk);
    spec.ramdisk_scope = change.ramdisk_scope.unwrap_or(spec.ramdisk_scope);
    if spec.ramdisk_scope == RamdiskScope::Project && !spec.ramdisk {
        let rule = "can be \"project\" only where ramdisk is true";
        errors.push(FieldError::new("ramdisk_scope", rule));
    }
    spec.ssh_forwarding = change.ssh_forwarding.unwrap_or(spec.ssh_forwarding);
    spec.autostart = change.autostart.unwrap_or(spec.autostart);
    spec.ai = change.ai.unwrap_or(spec.ai);
    if errors.is_empty() { Ok(spec) } else { Err(Error::Invalid(errors)) }
}

fn check_immutable(container: &Container, change: &ContainerChange) -> Result<()> {
    let spec = &container.spec;
    let server = container.server.to_string();
    let differs = |new: Option<bool>, old: bool| new.is_some_and(|new| new != old);
    let image = &change.container_image;
    for (differs, field) in [
        (image.as_ref().is_some_and(|new| new != spec.image.as_str()), Subject::ContainerImage),
        (differs(change.hoody_kit, spec.hoody_kit), Subject::HoodyKit),
        (differs(change.dev_kit, spec.dev_kit), Subject::DevKit),
        (change.server_id.as_ref().is_some_and(|new| *new != server), Subject::ServerId),
    ] {
        if differs {
            return Err(Error::Immutable { field });
        }
    }
    if differs(change.kvm, spec.kvm) {
        return Err(Error::invalid("kvm", "changes only by PUT of /api/v1/containers/{id}/kvm"));
    }
    Ok(())
}

/// Whether this change may be made by this actor and in this phase.
fn check_change(actor: &Actor, container: &Container, new: &ContainerSpec) -> Result<()> {
    let old = &container.spec;
    actor.may_change_realms(&old.realms, &new.realms)?;
    let shares_more =
        new.ramdisk_scope == RamdiskScope::Project && old.ramdisk_scope != new.ramdisk_scope;
    if shares_more && actor.is_realm_restricted() {
        return Err(Forbidden::MemoryOfRealms.into());
    }
    if new.ai && !old.ai {
        actor.require(Leaf::FeatureAi)?;
    }
    match container.status.phase {
        Phase::Stopped | Phase::Failed => return Ok(()),
        Phase::Deleting => return Err(Error::Deleting),
        Phase::Creating
        | Phase::Copying
        | Phase::Claiming
        | Phase::Starting
        | Phase::Running
        | Phase::Paused
        | Phase::Stopping => {}
    }
    for (differs, field) in [
        (old.name != new.name, Subject::Name),
        (old.environment != new.environment, Subject::EnvironmentVars),
        (old.ramdisk != new.ramdisk, Subject::Ramdisk),
        (old.ramdisk_scope != new.ramdisk_scope, Subject::RamdiskScope),
    ] {
        if differs {
            return Err(Error::MustStop { field });
        }
    }
    Ok(())
}
