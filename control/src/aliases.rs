//! Aliases: chosen names that lead to one service of one container.

use gantry_model::{
    AliasId, ContainerId, FieldError, Phase, ProjectId, RealmId, ServerName, UserId,
    alias::{AliasName, AliasTarget, Landing},
    project::Level,
};
use gantry_store::{Alias, AliasFilter, AliasRules, Container, Version};

use crate::{
    ExpiresAt, Patch,
    actor::Actor,
    controller::{CAS_ATTEMPTS, Controller},
    error::{During, EdgeError, Error, Result, Thing},
    permissions::Leaf,
    random,
};

/// The most aliases that a list shows; only an administrator's can be longer.
const LISTED_MAX: u32 = 10_000;

/// An alias to be made.
#[derive(Clone, Debug, Default)]
pub struct NewAlias {
    /// Its name; 48 random hexadecimal digits when absent.
    pub alias: Option<String>,
    /// The program that it leads to; required.
    pub program: Option<String>,
    /// The port, for `http` and `https`.
    pub port: Option<i64>,
    /// The instance of a Kit service, 1 when absent; for `http` and `https` the port, as once.
    pub index: Option<i64>,
    /// Where `/` leads.
    pub target_path: Option<String>,
    /// Whether other paths exist; yes when absent.
    pub allow_path_override: Option<bool>,
    /// When it ends; in the future, never when absent.
    pub expires_at: Option<ExpiresAt>,
    /// Whether it leads anywhere; yes when absent.
    pub enabled: Option<bool>,
}

/// A change of an alias; what is left out stays. Its container never changes.
#[derive(Clone, Debug, Default)]
pub struct AliasChange {
    /// As in [`NewAlias`].
    pub alias: Option<String>,
    /// As in [`NewAlias`].
    pub program: Option<String>,
    /// As in [`NewAlias`].
    pub port: Option<i64>,
    /// As in [`NewAlias`].
    pub index: Option<i64>,
    /// As in [`NewAlias`].
    pub target_path: Patch<String>,
    /// As in [`NewAlias`].
    pub allow_path_override: Option<bool>,
    /// As in [`NewAlias`].
    pub expires_at: Patch<ExpiresAt>,
    /// As in [`NewAlias`].
    pub enabled: Option<bool>,
}

/// Which aliases a list shows.
#[derive(Clone, Copy, Debug, Default)]
pub struct AliasQuery {
    /// Only those of this project; it must exist for the actor.
    pub project: Option<ProjectId>,
    /// Only those of this container; it must exist for the actor.
    pub container: Option<ContainerId>,
    /// Only those in this realm; must be the host's realm if that has one.
    pub realm: Option<RealmId>,
    /// Only those that are on, or off.
    pub enabled: Option<bool>,
    /// Only those that have expired, or have not.
    pub expired: Option<bool>,
}

/// An alias and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AliasView {
    /// The record.
    pub record: Alias,
    /// The label of its server in hostnames.
    pub server_name: ServerName,
}

/// The names of what an alias belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AliasOwners {
    /// The name of its container.
    pub container_name: String,
    /// The alias of its project.
    pub project_alias: String,
}

impl Controller {
    /// Makes an alias.
    pub async fn create_alias(
        &self,
        actor: &Actor,
        container: ContainerId,
        new: NewAlias,
    ) -> Result<AliasView> {
        actor.require(Leaf::ResourcesProxyAliases)?;
        let name = match &new.alias {
            Some(text) => AliasName::parse(text).map_err(|why| bad_name(text, why))?,
            None => AliasName::random(random::bytes()?),
        };
        let program = new.program.as_deref();
        let program = program.ok_or_else(|| Error::invalid("program", "is required"))?;
        let target = AliasTarget::parse(program, new.port, new.index).map_err(bad_target)?;
        let container = self.live_container(actor, container).await?;
        let now_ms = self.now_ms();
        let alias = Alias {
            id: random::id()?,
            owner: container.owner,
            project: container.project,
            container: container.id,
            server: container.server,
            label: name.as_str().to_owned(),
            target,
            target_path: path(new.target_path.as_deref())?,
            allow_path_override: new.allow_path_override.unwrap_or(true),
            enabled: new.enabled.unwrap_or(true),
            expires_at_ms: new.expires_at.map(|at| end(at, now_ms)).transpose()?,
            clear_site_data: false,
            version: Version::FIRST,
            created_at_ms: now_ms,
            updated_at_ms: now_ms,
        };
        let made = self.store().create_alias(&alias, self.alias_rules(actor, alias.owner)).await;
        let alias = made.map_err(|error| refused(error, name.as_str(), Thing::Container))?;
        self.alias_view(alias).await
    }

    /// The aliases that the actor sees, oldest first.
    pub async fn aliases(&self, actor: &Actor, query: AliasQuery) -> Result<Vec<AliasView>> {
        actor.require(Leaf::ResourcesProxyAliases)?;
        if let Some(project) = query.project {
            self.project_for(actor, project, Level::Read).await?;
        }
        if let Some(container) = query.container {
            self.container_for(actor, container, Level::Read).await?;
        }
        let now_ms = self.now_ms();
        let filter = AliasFilter {
            seen_by: actor.seen_by(),
            project: query.project,
            container: query.container,
            realm: actor.realm_filter(query.realm)?,
            enabled: query.enabled,
            expired: query.expired.map(|expired| (expired, now_ms)),
        };
        let mut views = Vec::new();
        for alias in self.store().aliases(filter, LISTED_MAX).await? {
            views.push(self.alias_view(alias).await?);
        }
        Ok(views)
    }

    /// One alias.
    pub async fn alias(&self, actor: &Actor, id: AliasId) -> Result<(AliasView, AliasOwners)> {
        actor.require(Leaf::ResourcesProxyAliases)?;
        let alias = self.alias_for(actor, id, Level::Read).await?;
        let container = self.container_for(actor, alias.container, Level::Read).await?;
        let owners = AliasOwners {
            container_name: container.spec.name.as_str().to_owned(),
            project_alias: self.project_alias(alias.project).await?,
        };
        Ok((self.alias_view(alias).await?, owners))
    }

    /// Changes an alias.
    pub async fn update_alias(
        &self,
        actor: &Actor,
        id: AliasId,
        change: AliasChange,
    ) -> Result<AliasView> {
        actor.require(Leaf::ResourcesProxyAliases)?;
        for _ in 0..CAS_ATTEMPTS {
            let old = self.alias_for(actor, id, Level::Edit).await?;
            self.live_container(actor, old.container).await?;
            let now_ms = self.now_ms();
            let new = changed(&old, &change, now_ms)?;
            if new == old {
                return self.alias_view(old).await;
            }
            let new = Alias { updated_at_ms: now_ms, ..new };
            match self.store().update_alias(&new, self.alias_rules(actor, new.owner)).await {
                Ok(alias) => return self.alias_view(alias).await,
                Err(gantry_store::Error::Stale) => {}
                Err(error) => return Err(refused(error, &new.label, Thing::Alias)),
            }
        }
        Err(Error::Conflict)
    }

    /// Removes an alias; its name waits for its owner for a while.
    pub async fn delete_alias(&self, actor: &Actor, id: AliasId) -> Result<()> {
        actor.require(Leaf::ResourcesProxyAliases)?;
        self.alias_for(actor, id, Level::Edit).await?;
        match self.store().remove_alias(id, self.now_ms()).await {
            // Someone else deleted it at the same time: what was asked is true.
            Ok(()) | Err(gantry_store::Error::NotFound) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The alias, if it exists for the actor, as its container does, who may do what needs this level.
    async fn alias_for(&self, actor: &Actor, id: AliasId, level: Level) -> Result<Alias> {
        let missing = || Error::NotFound(Thing::Alias);
        let alias = self.store().alias(id).await?.ok_or_else(missing)?;
        match self.container_for(actor, alias.container, level).await {
            Ok(_) => Ok(alias),
            Err(Error::NotFound(_)) => Err(missing()),
            Err(error) => Err(error),
        }
    }

    /// The container, to be changed, if it exists for the actor and goes on existing.
    pub(crate) async fn live_container(&self, actor: &Actor, id: ContainerId) -> Result<Container> {
        let container = self.container_for(actor, id, Level::Edit).await?;
        if container.status.phase == Phase::Deleting {
            return Err(EdgeError::Finalizing.into());
        }
        Ok(container)
    }

    async fn alias_view(&self, record: Alias) -> Result<AliasView> {
        let server_name = self.server_name(record.server).await?;
        Ok(AliasView { record, server_name })
    }

    /// What holds for an alias of this owner that the actor makes or changes.
    fn alias_rules(&self, actor: &Actor, owner: UserId) -> AliasRules {
        let limits = &self.inner.limits;
        AliasRules {
            per_owner_max: limits.aliases_per_user_max,
            quarantine_ms: limits.alias_quarantine_ms,
            by_owner: actor.sees_all() || actor.user == owner,
        }
    }
}

fn changed(old: &Alias, change: &AliasChange, now_ms: i64) -> Result<Alias> {
    let mut new = old.clone();
    if let Some(text) = &change.alias {
        let name = AliasName::parse(text).map_err(|why| bad_name(text, why))?;
        name.as_str().clone_into(&mut new.label);
    }
    if change.program.is_some() || change.port.is_some() || change.index.is_some() {
        // The number stays when only the program changes, as long as it means the same.
        let own = old.target.program().as_str();
        let program = change.program.as_deref().unwrap_or(own);
        let same = change.port.is_none()
            && change.index.is_none()
            && AliasTarget::parse(program, None, Some(1))
                .is_ok_and(|target| target.program() == old.target.program());
        let (port, index) = if same && !program.contains('-') {
            (None, old.target.number().map(i64::from))
        } else {
            (change.port, change.index)
        };
        new.target = AliasTarget::parse(program, port, index).map_err(bad_target)?;
    }
    match &change.target_path {
        Patch::Keep => {}
        Patch::Clear => new.target_path = None,
        Patch::Set(text) => new.target_path = path(Some(text))?,
    }
    new.allow_path_override = change.allow_path_override.unwrap_or(old.allow_path_override);
    match change.expires_at {
        Patch::Keep => {}
        Patch::Clear => new.expires_at_ms = None,
        Patch::Set(at) => new.expires_at_ms = Some(end(at, now_ms)?),
    }
    new.enabled = change.enabled.unwrap_or(old.enabled);
    if new.enabled && !old.enabled && AliasName::parse(&new.label).is_err() {
        return Err(EdgeError::AliasReserved.into());
    }
    Ok(new)
}

/// The path in its one spelling; whether the alias is pinned to it makes no difference to that.
fn path(text: Option<&str>) -> Result<Option<String>> {
    let Some(text) = text else { return Ok(None) };
    let landing = Landing::parse("target_path", text, false);
    let landing = landing.map_err(|error| Error::Invalid(vec![error]))?;
    Ok(Some(landing.as_str().to_owned()))
}

fn end(at: ExpiresAt, now_ms: i64) -> Result<i64> {
    let at_ms = at.at_ms(now_ms);
    if at_ms > now_ms {
        Ok(at_ms)
    } else {
        Err(Error::invalid("expires_at", "must be in the future"))
    }
}

fn bad_name(text: &str, why: gantry_model::alias::InvalidAlias) -> Error {
    EdgeError::InvalidAlias { alias: text.chars().take(64).collect(), why }.into()
}

fn bad_target(why: gantry_model::alias::InvalidTarget) -> Error {
    use gantry_model::alias::InvalidTarget;
    match why {
        InvalidTarget::PortRequired => EdgeError::PortRequired.into(),
        InvalidTarget::Field(FieldError { field, rule }) => Error::invalid(field, rule),
    }
}

fn refused(error: gantry_store::Error, label: &str, thing: Thing) -> Error {
    if let gantry_store::Error::LabelTaken { own } = error {
        return EdgeError::AliasInUse { alias: label.to_owned(), own }.into();
    }
    Error::of_write(error, thing, During::Update)
}
