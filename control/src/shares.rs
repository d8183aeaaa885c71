//! Storage shares: directories of one container that others see.
//!
//! Both sides agree: who makes a share must be allowed to change its source and its target, and it works
//! only for as long as they are. Either side may end it alone: the source by switching it off or removing
//! it, the target by not wanting it. A write is recorded; the reconciler of each container that the share
//! reaches mounts it there.

mod reach;

use std::collections::{HashMap, hash_map::Entry};

use gantry_model::{
    ContainerId, FieldError, Phase, ProjectId, RealmId, ShareId,
    project::Level,
    share::{DESCRIPTION_MAX, ShareMode, ShareName, SharePath},
};
use gantry_store::{Container, Share, ShareFilter, ShareMax, ShareMount, ShareTarget, Version};

pub(crate) use self::reach::{Reached, reached};
use crate::{
    ExpiresAt, Patch,
    actor::Actor,
    controller::{CAS_ATTEMPTS, Controller},
    error::{During, Error, Result, Thing},
    permissions::Leaf,
    random,
};

/// The most shares that a list shows; only an administrator's can be longer.
const LISTED_MAX: u32 = 10_000;

/// How long before its end it is told that a share, or an alias, ends, in milliseconds.
pub(crate) const SOON_MS: i64 = 24 * 60 * 60 * 1000;

/// A share to be made.
#[derive(Clone, Debug, Default)]
pub struct NewShare {
    /// The directory; required.
    pub source_path: Option<String>,
    /// Who is to see it; either this or the next.
    pub target_container: Option<ContainerId>,
    /// Whose containers are to see it.
    pub target_project: Option<ProjectId>,
    /// What they may do with it; required.
    pub mode: Option<ShareMode>,
    /// What it is called on the other side.
    pub alias: Option<String>,
    /// What its owner sorts it by.
    pub label: Option<String>,
    /// What its owner says of it.
    pub description: Option<String>,
    /// Whether it is there at all; yes when absent.
    pub enabled: Option<bool>,
    /// When it ends; in the future, never when absent.
    pub expires_at: Option<ExpiresAt>,
}

/// A change of a share; what is left out stays. Its two sides and its directory never change.
#[derive(Clone, Debug, Default)]
pub struct ShareChange {
    /// As in [`NewShare`].
    pub mode: Option<ShareMode>,
    /// As in [`NewShare`].
    pub alias: Patch<String>,
    /// As in [`NewShare`].
    pub label: Patch<String>,
    /// As in [`NewShare`].
    pub description: Patch<String>,
    /// As in [`NewShare`].
    pub enabled: Option<bool>,
    /// As in [`NewShare`].
    pub expires_at: Patch<ExpiresAt>,
}

/// Which shares a list shows.
#[derive(Clone, Debug, Default)]
pub struct ShareQuery {
    /// Only those to a container, or to a project: the word of the kind.
    pub target_kind: Option<&'static str>,
    /// Only those with this label.
    pub label: Option<String>,
    /// Only those that are missing somewhere, or nowhere.
    pub has_failed: Option<bool>,
    /// Only those that are on, or off.
    pub enabled: Option<bool>,
    /// Those that have ended, too, as long as they are there.
    pub include_expired: bool,
    /// Only those in this realm; must be the host's realm if that has one.
    pub realm: Option<RealmId>,
}

/// A share and the realms that it is visible in: those of its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareView {
    /// The record.
    pub record: Share,
    /// The realms.
    pub realms: Vec<RealmId>,
}

/// A share as the side sees it that receives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncomingView {
    /// The record.
    pub record: Share,
    /// Where it is found in the container that was asked about, if it is to be there.
    pub mount_path: Option<String>,
    /// Whether that container wants it.
    pub is_wanted: Option<bool>,
}

impl Controller {
    /// Makes a share of a directory of a container.
    pub async fn create_share(
        &self,
        actor: &Actor,
        source: ContainerId,
        new: NewShare,
    ) -> Result<ShareView> {
        require(actor, Leaf::ContainersUpdate)?;
        let source = self.live_container(actor, source).await?;
        let now_ms = self.now_ms();
        let share = share(&source, actor, &new, now_ms)?;
        self.check_target(actor, &source, share.target).await?;
        let limits = self.limits();
        let max = ShareMax {
            container: limits.shares_per_container_max,
            owner: limits.shares_per_user_max,
            target: limits.shares_per_container_max,
        };
        let made = self.store().create_share(&share, max).await;
        made.map_err(|error| Error::of_write(error, Thing::ShareTarget, During::Create))?;
        Ok(ShareView { record: share, realms: source.spec.realms })
    }

    /// The shares from a container, or from all that the actor sees, oldest first.
    pub async fn shares(
        &self,
        actor: &Actor,
        source: Option<ContainerId>,
        query: ShareQuery,
    ) -> Result<Vec<ShareView>> {
        require(actor, Leaf::ContainersRead)?;
        if let Some(source) = source {
            self.container_for(actor, source, Level::Read).await?;
        }
        let filter = ShareFilter { seen_by: actor.seen_by(), source, ..self.filter(actor, query)? };
        let shares = self.store().shares(filter, LISTED_MAX).await?;
        let mut realms: HashMap<ContainerId, Vec<RealmId>> = HashMap::new();
        let mut views = Vec::with_capacity(shares.len());
        for record in shares {
            let realms = match realms.entry(record.source) {
                Entry::Occupied(known) => known.get().clone(),
                Entry::Vacant(new) => new.insert(self.realms_of(&record).await?).clone(),
            };
            views.push(ShareView { record, realms });
        }
        Ok(views)
    }

    /// The shares that reach a container, or whatever the actor sees, oldest first. Ended ones are left out.
    pub async fn incoming_shares(
        &self,
        actor: &Actor,
        target: Option<ContainerId>,
        query: ShareQuery,
    ) -> Result<Vec<IncomingView>> {
        require(actor, Leaf::ContainersRead)?;
        let query = ShareQuery { include_expired: false, ..query };
        let Some(target) = target else {
            let filter = ShareFilter { received_by: actor.seen_by(), ..self.filter(actor, query)? };
            let shares = self.store().shares(filter, LISTED_MAX).await?;
            let bare = |record| IncomingView { record, mount_path: None, is_wanted: None };
            return Ok(shares.into_iter().map(bare).collect());
        };
        let target = self.container_for(actor, target, Level::Read).await?;
        let received_in = Some((target.id, target.project));
        let filter = ShareFilter { received_in, ..self.filter(actor, query)? };
        let shares = self.store().shares(filter, LISTED_MAX).await?;
        let places = self.places(&target).await?;
        Ok(shares.into_iter().map(|record| placed(record, &places)).collect())
    }

    /// One share from a container.
    pub async fn share(
        &self,
        actor: &Actor,
        source: ContainerId,
        id: ShareId,
    ) -> Result<ShareView> {
        require(actor, Leaf::ContainersRead)?;
        let (record, source) = self.share_for(actor, Some(source), id, Level::Read).await?;
        Ok(ShareView { record, realms: source.spec.realms })
    }

    /// Changes a share from a container.
    pub async fn update_share(
        &self,
        actor: &Actor,
        source: ContainerId,
        id: ShareId,
        change: ShareChange,
    ) -> Result<ShareView> {
        require(actor, Leaf::ContainersUpdate)?;
        for _ in 0..CAS_ATTEMPTS {
            let (old, source) = self.share_for(actor, Some(source), id, Level::Edit).await?;
            let now_ms = self.now_ms();
            let new = changed(&old, &change, now_ms)?;
            let realms = source.spec.realms;
            if new == old {
                return Ok(ShareView { record: old, realms });
            }
            match self.store().update_share(&Share { updated_at_ms: now_ms, ..new }).await {
                Ok(record) => return Ok(ShareView { record, realms }),
                Err(gantry_store::Error::Stale) => {}
                Err(error) => return Err(Error::of_write(error, Thing::Share, During::Update)),
            }
        }
        Err(Error::Conflict)
    }

    /// Removes a share.
    pub async fn delete_share(&self, actor: &Actor, id: ShareId) -> Result<()> {
        require(actor, Leaf::ContainersUpdate)?;
        self.share_for(actor, None, id, Level::Edit).await?;
        match self.store().remove_share(id, self.now_ms()).await {
            // Someone else removed it at the same time: what was asked is true.
            Ok(()) | Err(gantry_store::Error::NotFound) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Says for a container whether it wants a share that reaches it.
    pub async fn set_share_mount(
        &self,
        actor: &Actor,
        target: ContainerId,
        id: ShareId,
        is_wanted: bool,
    ) -> Result<(IncomingView, ShareMount)> {
        require(actor, Leaf::ContainersUpdate)?;
        let target = self.live_container(actor, target).await?;
        let missing = || Error::NotFound(Thing::Share);
        let filter = ShareFilter {
            received_in: Some((target.id, target.project)),
            ..self.filter(actor, ShareQuery::default())?
        };
        let reaching = self.store().shares(filter, LISTED_MAX).await?;
        let record = reaching.into_iter().find(|share| share.id == id).ok_or_else(missing)?;
        let (new, now_ms) = (random::id()?, self.now_ms());
        let written = self.store().set_share_mount(id, target.id, is_wanted, new, now_ms).await;
        let mount =
            written.map_err(|error| Error::of_write(error, Thing::Share, During::Update))?;
        let places = self.places(&target).await?;
        Ok((placed(record, &places), mount))
    }

    /// The share, if its source exists for the actor, who may do with that what needs this level.
    async fn share_for(
        &self,
        actor: &Actor,
        source: Option<ContainerId>,
        id: ShareId,
        level: Level,
    ) -> Result<(Share, Container)> {
        if let Some(source) = source {
            self.container_for(actor, source, Level::Read).await?;
        }
        let missing = || Error::NotFound(Thing::Share);
        let share = self.store().share(id).await?.ok_or_else(missing)?;
        if source.is_some_and(|source| source != share.source) {
            return Err(missing());
        }
        match self.container_for(actor, share.source, level).await {
            Ok(container) => Ok((share, container)),
            Err(Error::NotFound(_)) => Err(missing()),
            Err(error) => Err(error),
        }
    }

    /// Whether the actor may change what is to receive a share.
    async fn check_target(
        &self,
        actor: &Actor,
        source: &Container,
        target: ShareTarget,
    ) -> Result<()> {
        match target {
            ShareTarget::Container(id) => {
                let field = "target_container_id";
                if id == source.id {
                    return Err(Error::invalid(field, "must be another container"));
                }
                let target = target_of(self.live_container(actor, id).await)?;
                if target.server != source.server {
                    return Err(Error::invalid(field, "must be on the server of the source"));
                }
            }
            ShareTarget::Project(id) => {
                target_of(self.project_for(actor, id, Level::Edit).await)?;
            }
        }
        Ok(())
    }

    fn filter(&self, actor: &Actor, query: ShareQuery) -> Result<ShareFilter> {
        Ok(ShareFilter {
            realm: actor.realm_filter(query.realm)?,
            target_kind: query.target_kind,
            label: query.label,
            enabled: query.enabled,
            has_failed: query.has_failed,
            alive_at_ms: (!query.include_expired).then(|| self.now_ms()),
            ..ShareFilter::default()
        })
    }

    async fn realms_of(&self, share: &Share) -> Result<Vec<RealmId>> {
        let source = self.store().container(share.source).await?;
        Ok(source.map(|source| source.spec.realms).unwrap_or_default())
    }

    /// Where shares are in a container, and whether it wants them.
    async fn places(&self, target: &Container) -> Result<Vec<(ShareId, Option<String>, bool)>> {
        let incoming = self.store().incoming_shares(target.id, target.project).await?;
        let wanted: Vec<_> = incoming.iter().map(|i| (i.share.id, i.is_wanted)).collect();
        let Reached { mounts, .. } = reached(&incoming, target.server, self.now_ms());
        let path = |id| mounts.iter().find(|(found, _)| *found == id).map(|(_, path)| path.clone());
        Ok(wanted.into_iter().map(|(id, is_wanted)| (id, path(id), is_wanted)).collect())
    }
}

/// What is missing is what was to receive a share.
fn target_of<T>(found: Result<T>) -> Result<T> {
    match found {
        Err(Error::NotFound(_)) => Err(Error::NotFound(Thing::ShareTarget)),
        other => other,
    }
}

fn require(actor: &Actor, of_container: Leaf) -> Result<()> {
    actor.require(Leaf::ResourcesStorageShares)?;
    Ok(actor.require(of_container)?)
}

fn placed(record: Share, places: &[(ShareId, Option<String>, bool)]) -> IncomingView {
    let place = places.iter().find(|(id, _, _)| *id == record.id);
    IncomingView {
        mount_path: place.and_then(|(_, path, _)| path.clone()),
        is_wanted: place.map(|(_, _, is_wanted)| *is_wanted),
        record,
    }
}

/// The record of a share to be made, with all mistakes at once.
fn share(source: &Container, actor: &Actor, new: &NewShare, now_ms: i64) -> Result<Share> {
    let mut errors = Vec::new();
    let path = match &new.source_path {
        Some(text) => SharePath::parse("source_path", text),
        None => Err(FieldError::new("source_path", "is required")),
    };
    let path = path.map_err(|error| errors.push(error)).ok();
    let target = match (new.target_container, new.target_project) {
        (Some(id), None) => Some(ShareTarget::Container(id)),
        (None, Some(id)) => Some(ShareTarget::Project(id)),
        (Some(_), Some(_)) | (None, None) => None,
    };
    if target.is_none() {
        let rule = "give exactly one of target_container_id and target_project_id";
        errors.push(FieldError::new("target_container_id", rule));
    }
    if new.mode.is_none() {
        errors.push(FieldError::new("mode", "is required: readonly or readwrite"));
    }
    let mut name = |field: &str, text: &Option<String>| -> Option<ShareName> {
        let name = ShareName::parse(field, text.as_deref()?);
        name.map_err(|error| errors.push(error)).ok()
    };
    let (alias, label) = (name("alias", &new.alias), name("label", &new.label));
    let description = described(new.description.clone()).map_err(|error| errors.push(error)).ok();
    let ends = new.expires_at.map(|at| end(at, now_ms)).transpose();
    let ends = ends.map_err(|error| errors.push(error)).ok();
    let (Some(path), Some(target), Some(mode), Some(description), Some(expires_at_ms), true) =
        (path, target, new.mode, description, ends, errors.is_empty())
    else {
        return Err(Error::Invalid(errors));
    };
    Ok(Share {
        id: random::id()?,
        owner: source.owner,
        project: source.project,
        source: source.id,
        path,
        target,
        mode,
        alias,
        label,
        description,
        enabled: new.enabled.unwrap_or(true),
        expires_at_ms,
        expiry_notified: false,
        created_by: actor.user,
        failure: None,
        version: Version::FIRST,
        created_at_ms: now_ms,
        updated_at_ms: now_ms,
    })
}

fn changed(old: &Share, change: &ShareChange, now_ms: i64) -> Result<Share> {
    let mut new = old.clone();
    let mut errors = Vec::new();
    new.mode = change.mode.unwrap_or(old.mode);
    new.enabled = change.enabled.unwrap_or(old.enabled);
    for (field, given, place) in
        [("alias", &change.alias, &mut new.alias), ("label", &change.label, &mut new.label)]
    {
        match given {
            Patch::Keep => {}
            Patch::Clear => *place = None,
            Patch::Set(text) => match ShareName::parse(field, text) {
                Ok(name) => *place = Some(name),
                Err(error) => errors.push(error),
            },
        }
    }
    match change.description.clone() {
        Patch::Keep => {}
        Patch::Clear => new.description = None,
        Patch::Set(text) => match described(Some(text)) {
            Ok(description) => new.description = description,
            Err(error) => errors.push(error),
        },
    }
    match change.expires_at {
        Patch::Keep => {}
        Patch::Clear => new.expires_at_ms = None,
        Patch::Set(at) => match end(at, now_ms) {
            Ok(at_ms) => new.expires_at_ms = Some(at_ms),
            Err(error) => errors.push(error),
        },
    }
    // Another end is told of anew.
    new.expiry_notified &= new.expires_at_ms == old.expires_at_ms;
    if errors.is_empty() { Ok(new) } else { Err(Error::Invalid(errors)) }
}

fn described(text: Option<String>) -> Result<Option<String>, FieldError> {
    match text {
        Some(text) if text.chars().count() > DESCRIPTION_MAX => {
            Err(FieldError::new("description", "must be at most 1000 characters"))
        }
        text => Ok(text),
    }
}

fn end(at: ExpiresAt, now_ms: i64) -> Result<i64, FieldError> {
    // To the second, as it is shown.
    let at_ms = at.at_ms(now_ms).div_euclid(1000).saturating_mul(1000);
    if at_ms > now_ms {
        Ok(at_ms)
    } else {
        Err(FieldError::new("expires_at", "must be in the future"))
    }
}

/// Whether the files of a container in this phase can be seen by others.
pub(crate) fn is_there(phase: Phase) -> bool {
    matches!(phase, Phase::Running | Phase::Paused)
}
