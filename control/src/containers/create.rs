//! Making containers.

use std::collections::BTreeMap;

use gantry_model::{
    ContainerSpec, FieldError, Phase, ProjectId, ServerId, Wish,
    container::{
        Color, Comment, ContainerName, Environment, ImageName, RamdiskScope, parse_realms,
    },
    project::Level,
    ssh::SshPublicKey,
};
use gantry_store::{Container, ContainerStatus, EnvironmentSync, Version};

use super::{
    ContainerView,
    kvm::check_kvm,
    pool::{ClaimError, check_warm},
};
use crate::{
    actor::{Actor, Via},
    controller::Controller,
    error::{During, Error, Forbidden, Result, Thing},
    permissions::Leaf,
    projects::ok,
    random,
};

/// How many names and ids are tried before the write gives up.
const ATTEMPTS: u32 = 8;

/// A container to be made, as a client words it. What is left out has the default named here.
#[derive(Clone, Debug, Default)]
pub struct NewContainer {
    /// The id of the server that it shall run on; required.
    pub server_id: Option<String>,
    /// Its name in the project; generated when absent or `rand`.
    pub name: Option<String>,
    /// `#RGB` or `#RRGGBB`; random when absent.
    pub color: Option<String>,
    /// `<os>/<release>`; `debian/13` when absent.
    pub container_image: Option<String>,
    /// An OpenSSH public key line, unique across all containers; none when absent.
    pub ssh_public_key: Option<String>,
    /// Whether SSH may carry connections besides sessions; true when absent.
    pub ssh_forwarding: Option<bool>,
    /// A note of at most 16,000 characters.
    pub comment: Option<String>,
    /// Whether the Kit services are installed; true when absent (with a token: what the token may).
    pub hoody_kit: Option<bool>,
    /// Whether the developer services are installed; as `hoody_kit` when absent.
    pub dev_kit: Option<bool>,
    /// Whether AI features are on; true when absent (with a token: what the token may).
    pub ai: Option<bool>,
    /// Whether it starts after a reboot of the host; true when absent.
    pub autostart: Option<bool>,
    /// Whether `/ramdisk` is mounted; true when absent.
    pub ramdisk: Option<bool>,
    /// Whether an image built earlier may be used; true when absent.
    pub cache: Option<bool>,
    /// Whether it is one for later: it waits, hidden, until a creation like it claims it.
    pub prespawn: Option<bool>,
    /// Whether it is made even if one waits that is like it.
    pub bypass_prespawn: Option<bool>,
    /// Whether it gets the host's `/dev/kvm`; false when absent.
    pub kvm: Option<bool>,
    /// Its environment variables.
    pub environment_vars: BTreeMap<String, String>,
    /// The realms that it is visible in; the host's realm is added.
    pub realm_ids: Vec<String>,
}

/// What was checked of a [`NewContainer`].
struct Checked {
    spec: ContainerSpec,
    server: ServerId,
    /// Whether the name was generated and may be generated again.
    generated_name: bool,
    pool: Pool,
}

/// What a creation has to do with the warm pool.
#[derive(Clone, Copy)]
enum Pool {
    /// It makes one that waits.
    Fill,
    /// It takes one that waits, if there is one like it.
    Claim,
    /// Nothing.
    Bypass,
}

impl Controller {
    /// Records a container; the reconciler makes and starts it. If one waits in the warm pool that is
    /// like it (server, image, kit, ramdisk, kvm), that becomes the container instead, and runs when this
    /// returns. When this returns an error, nothing is left behind: neither name nor key nor quota is
    /// taken.
    pub async fn create_container(
        &self,
        actor: &Actor,
        project: ProjectId,
        new: NewContainer,
    ) -> Result<ContainerView> {
        actor.require(Leaf::ContainersCreate)?;
        // A warm container takes one of its owner's few places until somebody deletes it, so that who makes
        // one may delete it, too.
        let level = if new.prespawn == Some(true) { Level::Delete } else { Level::Edit };
        let project = self.project_for(actor, project, level).await?;
        let Checked { mut spec, server, generated_name, pool } = check(actor, new)?;
        if !self.store().servers().await?.iter().any(|known| known.id == server) {
            return Err(Error::NotFound(Thing::Server));
        }
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
                source: None,
                prespawn: false,
                wish_seq: 1,
                status: ContainerStatus::first(Phase::Creating),
                environment_sync: EnvironmentSync::default(),
                ssh_key_since_ms: None,
                version: Version::FIRST,
                created_at_ms: now_ms,
                updated_at_ms: now_ms,
            };
            attempt += 1;
            let made = match pool {
                Pool::Fill => return self.create_warm(container).await,
                Pool::Claim => match self.claim(actor, &container).await {
                    Ok(Some(view)) => return Ok(view),
                    Ok(None) => self.store().create_container(&container).await,
                    Err(ClaimError::Store(error)) => Err(error),
                    Err(ClaimError::Other(error)) => return Err(error),
                },
                Pool::Bypass => self.store().create_container(&container).await,
            };
            match made {
                Ok(container) => return self.view(container).await,
                Err(gantry_store::Error::NameTaken) if generated_name && attempt < ATTEMPTS => {
                    spec.name = generate_name(attempt)?;
                }
                Err(gantry_store::Error::IdTaken | gantry_store::Error::Stale)
                    if attempt < ATTEMPTS => {}
                Err(error) => {
                    return Err(Error::of_write(error, Thing::Project, During::Create));
                }
            }
        }
    }
}

/// Checks every field and reports every broken rule.
fn check(actor: &Actor, new: NewContainer) -> Result<Checked> {
    let pool = match (new.prespawn, new.bypass_prespawn, new.cache) {
        (Some(true), _, _) => {
            check_warm(&new)?;
            Pool::Fill
        }
        // What waits was made of an image that was built earlier.
        (_, Some(true), _) | (_, _, Some(false)) => Pool::Bypass,
        _ => Pool::Claim,
    };
    let mut errors = Vec::new();
    let server = parse_server(new.server_id.as_deref(), &mut errors);
    let chosen = new.name.as_deref().filter(|name| *name != "rand");
    let name = match chosen {
        Some(name) => ok(ContainerName::parse("name", name), &mut errors),
        None => Some(generate_name(0)?),
    };
    let color = match &new.color {
        Some(color) => ok(Color::parse("color", color), &mut errors),
        None => Some(random::color()?),
    };
    let image = new.container_image.as_deref().unwrap_or(ImageName::DEFAULT);
    let image = ok(ImageName::parse("container_image", image), &mut errors);
    let environment = Environment::parse("environment_vars", new.environment_vars)
        .map_err(|more| errors.extend(more))
        .ok();
    let key = new.ssh_public_key.as_deref();
    let ssh_public_key =
        key.and_then(|line| ok(SshPublicKey::parse("ssh_public_key", line), &mut errors));
    let comment = new.comment.as_deref();
    let comment = comment.and_then(|text| ok(Comment::parse("comment", text), &mut errors));
    let realms = ok(parse_realms("realm_ids", &new.realm_ids), &mut errors);
    let hoody_kit = new.hoody_kit.unwrap_or_else(|| actor.allows(Leaf::FeatureHoodyKit));
    let dev_kit = new.dev_kit.unwrap_or(hoody_kit);
    if dev_kit && !hoody_kit {
        errors.push(FieldError::new("dev_kit", "needs hoody_kit to be true"));
    }
    let ai = new.ai.unwrap_or_else(|| actor.allows(Leaf::FeatureAi));
    let (Some(server), Some(name), Some(color), Some(image), Some(environment), Some(realms), true) =
        (server, name, color, image, environment, realms, errors.is_empty())
    else {
        return Err(Error::Invalid(errors));
    };
    check_features(actor, hoody_kit, ai)?;
    let spec = ContainerSpec {
        name,
        color,
        image,
        hoody_kit,
        dev_kit,
        ai,
        autostart: new.autostart.unwrap_or(true),
        ramdisk: new.ramdisk.unwrap_or(true),
        kvm: new.kvm.unwrap_or(false),
        ramdisk_scope: RamdiskScope::Container,
        cache: new.cache.unwrap_or(true),
        environment,
        ssh_public_key,
        ssh_forwarding: new.ssh_forwarding.unwrap_or(true),
        comment,
        realms: actor.realms_of_new(realms),
    };
    Ok(Checked { spec, server, generated_name: chosen.is_none(), pool })
}

fn parse_server(id: Option<&str>, errors: &mut Vec<FieldError>) -> Option<ServerId> {
    let id = match id {
        Some(id) => id.parse().map_err(|error: gantry_model::InvalidId| error.to_string()),
        None => Err("is required; see the list of servers".to_owned()),
    };
    id.map_err(|rule| errors.push(FieldError::new("server_id", rule))).ok()
}

/// A token turns on only what it has.
fn check_features(actor: &Actor, hoody_kit: bool, ai: bool) -> Result<(), Forbidden> {
    if !matches!(actor.via, Via::Token { .. }) {
        return Ok(());
    }
    for (wanted, leaf) in [(hoody_kit, Leaf::FeatureHoodyKit), (ai, Leaf::FeatureAi)] {
        if wanted {
            actor.require(leaf)?;
        }
    }
    Ok(())
}

pub(super) fn generate_name(attempt: u32) -> Result<ContainerName> {
    ContainerName::parse("name", &random::name(attempt)?)
        .map_err(|error| Error::internal(error.to_string()))
}
