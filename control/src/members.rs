//! Members of projects: what users may do with what is not theirs. All that is in a project belongs
//! to the project's owner; members reach it as far as their level goes.

use gantry_model::{FieldError, MemberId, ProjectId, RealmId, UserId, project::Level};
use gantry_store::{
    Container, Granter, Listed, Member, MemberMax, MemberSort, Page, Project, Snapshot,
};

use crate::{
    actor::{Actor, Via},
    controller::{CAS_ATTEMPTS, Controller},
    error::{During, Error, Forbidden, Result, Subject, Thing},
    permissions::Leaf,
    random,
};

/// The most members that a project can be allowed to have.
pub const MEMBERS_MAX: u32 = 1000;

/// Of how many projects one user can be a member.
const MEMBERSHIPS_MAX: u32 = 1000;

/// How far an actor reaches into a project.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reach {
    /// As a member.
    Member(Level),
    /// As its owner, or as an administrator.
    Owner,
}

/// Where a record belongs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'r> {
    owner: UserId,
    project: ProjectId,
    pub(crate) realms: &'r [RealmId],
}

impl<'r> From<&'r Project> for Place<'r> {
    fn from(project: &'r Project) -> Self {
        Self { owner: project.owner, project: project.id, realms: &project.spec.realms }
    }
}

impl<'r> From<&'r Container> for Place<'r> {
    fn from(container: &'r Container) -> Self {
        let Container { owner, project, spec, .. } = container;
        Self { owner: *owner, project: *project, realms: &spec.realms }
    }
}

impl<'r> From<&'r Snapshot> for Place<'r> {
    fn from(snapshot: &'r Snapshot) -> Self {
        let Snapshot { owner, project, spec, .. } = snapshot;
        Self { owner: *owner, project: *project, realms: &spec.realms }
    }
}

impl Controller {
    /// How far an actor reaches into where a record belongs, whatever its realms; nothing if the record
    /// does not exist for it.
    pub(crate) async fn reach(&self, actor: &Actor, place: Place<'_>) -> Result<Option<Reach>> {
        if actor.sees_all() || place.owner == actor.user {
            return Ok(Some(Reach::Owner));
        }
        let level = self.store().member_level(place.project, actor.user).await?;
        Ok(level.map(Reach::Member))
    }

    /// Refuses an actor who may not do what needs `level` with a record; for one who does not even see
    /// it, it does not exist.
    pub(crate) async fn permit(
        &self,
        actor: &Actor,
        record: impl Into<Place<'_>> + Send,
        thing: Thing,
        level: Level,
    ) -> Result<Reach> {
        let place = record.into();
        if !actor.is_in(place.realms) {
            return Err(Error::NotFound(thing));
        }
        let reach = self.reach(actor, place).await?.ok_or(Error::NotFound(thing))?;
        if reach < Reach::Member(level) {
            return Err(Forbidden::Level(level).into());
        }
        Ok(reach)
    }

    /// One page of the members of a project.
    pub async fn members(
        &self,
        actor: &Actor,
        project: ProjectId,
        page: Page<MemberSort>,
    ) -> Result<Listed<Member>> {
        actor.require(Leaf::ProjectsRead)?;
        self.project_for(actor, project, Level::Read).await?;
        Ok(self.store().members(project, page).await?)
    }

    /// The first members of a project that the actor was shown, at most `max`; [`MEMBERS_MAX`] are all.
    pub async fn members_of(&self, project: &Project, max: u32) -> Result<Vec<Member>> {
        Ok(self.store().first_members(project.id, max).await?)
    }

    /// Makes a user a member of a project. Nobody grants more than they may do themselves, by the
    /// credential that they came with.
    pub async fn add_member(
        &self,
        actor: &Actor,
        project: ProjectId,
        user: UserId,
        level: Level,
    ) -> Result<Member> {
        actor.require(Leaf::MembersInvite)?;
        let (project, reach) = self.project_reached(actor, project, Level::Edit).await?;
        within(reach, level)?;
        not_wider(actor, level)?;
        if user == project.owner {
            let rule = "is the owner of the project, who may do everything";
            return Err(Error::Invalid(vec![FieldError::new("user_id", rule)]));
        }
        let user = self.store().user(user).await?.ok_or(Error::NotFound(Thing::User))?;
        let now_ms = self.now_ms();
        let member = Member {
            id: random::id()?,
            project: project.id,
            user: user.id,
            username: user.username,
            level,
            created_at_ms: now_ms,
            updated_at_ms: now_ms,
        };
        let max =
            MemberMax { project: self.limits().members_per_project_max, user: MEMBERSHIPS_MAX };
        let added = self.store().add_member(&member, max, granter(actor, reach, level)).await;
        added.map_err(|error| Error::of_write(error, Thing::User, During::Create))?;
        Ok(member)
    }

    /// Lets a member do more or less; neither it nor the grant may be beyond the actor's own level, nor
    /// beyond what a token can do itself.
    pub async fn change_member(
        &self,
        actor: &Actor,
        project: ProjectId,
        id: MemberId,
        level: Level,
    ) -> Result<Member> {
        actor.require(Leaf::MembersChangeRoles)?;
        for _ in 0..CAS_ATTEMPTS {
            let (project, reach) = self.project_reached(actor, project, Level::Edit).await?;
            let mut member = self.member_of(project.id, id).await?;
            let old = member.level;
            within(reach, old.max(level))?;
            if old == level {
                return Ok(member);
            }
            if level > old {
                not_wider(actor, level)?;
            }
            member.level = level;
            member.updated_at_ms = self.now_ms();
            let by = granter(actor, reach, old.max(level));
            match self.store().set_member(&member, old, by).await {
                Ok(()) => return Ok(member),
                Err(gantry_store::Error::Stale) => {}
                Err(error) => return Err(Error::of_write(error, Thing::Member, During::Update)),
            }
        }
        Err(Error::Conflict)
    }

    /// Ends a membership: one's own, or that of somebody who may not do more than the actor.
    pub async fn remove_member(
        &self,
        actor: &Actor,
        project: ProjectId,
        id: MemberId,
    ) -> Result<()> {
        actor.require(Leaf::MembersRemove)?;
        for _ in 0..CAS_ATTEMPTS {
            let (project, reach) = self.project_reached(actor, project, Level::Read).await?;
            let member = self.member_of(project.id, id).await?;
            let mut by = Granter { user: actor.user, needs: None };
            if member.user != actor.user {
                within(reach, member.level.max(Level::Edit))?;
                by = granter(actor, reach, member.level);
            }
            match self.store().remove_member(&member, by, self.now_ms()).await {
                // Someone else removed it at the same time: what was asked is true.
                Ok(()) | Err(gantry_store::Error::NotFound) => return Ok(()),
                Err(gantry_store::Error::Stale) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Conflict)
    }

    async fn member_of(&self, project: ProjectId, id: MemberId) -> Result<Member> {
        self.store().member(project, id).await?.ok_or(Error::NotFound(Thing::Member))
    }
}

fn within(reach: Reach, level: Level) -> Result<()> {
    if reach < Reach::Member(level) { Err(Forbidden::Level(level).into()) } else { Ok(()) }
}

/// Who grants or takes a level, and what that takes at the moment of the write.
fn granter(actor: &Actor, reach: Reach, level: Level) -> Granter {
    let needs = match reach {
        Reach::Owner => None,
        Reach::Member(_) => Some(level.max(Level::Edit)),
    };
    Granter { user: actor.user, needs }
}

/// Refuses a token that would grant what it cannot do itself: who is a member may do it in every realm,
/// from everywhere, and for good.
fn not_wider(actor: &Actor, level: Level) -> Result<(), Forbidden> {
    let Via::Token { permissions, realms, allow_no_realm, ip_whitelist, expires_at_ms, .. } =
        &actor.via
    else {
        return Ok(());
    };
    let leaves: &[Leaf] = match level {
        Level::Read => &[Leaf::ProjectsRead, Leaf::ContainersRead],
        Level::Edit => &[
            Leaf::ProjectsRead,
            Leaf::ContainersRead,
            Leaf::ProjectsUpdate,
            Leaf::ContainersCreate,
            Leaf::ContainersUpdate,
        ],
        Level::Delete => &[
            Leaf::ProjectsRead,
            Leaf::ContainersRead,
            Leaf::ProjectsUpdate,
            Leaf::ContainersCreate,
            Leaf::ContainersUpdate,
            Leaf::ProjectsDelete,
            Leaf::ContainersDelete,
        ],
    };
    for (wider, what) in [
        (!leaves.iter().all(|leaf| permissions.allows(*leaf)), Subject::Permissions),
        (!realms.is_empty(), Subject::RealmIds),
        (realms.is_empty() && !allow_no_realm, Subject::AllowNoRealm),
        (!ip_whitelist.is_empty(), Subject::IpWhitelist),
        (expires_at_ms.is_some(), Subject::ExpiresAt),
    ] {
        if wider {
            return Err(Forbidden::Wider(what));
        }
    }
    Ok(())
}
