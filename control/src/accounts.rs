//! Accounts as people see them: what a user says about itself, and what an administrator does.

use std::net::IpAddr;

use gantry_model::{FieldError, UserId};
use gantry_store::AccountLimits;
use serde_json::{Map, Value};

use crate::{
    Patch,
    actor::Actor,
    auth::{Account, AccountQuotas},
    controller::Controller,
    error::{During, Error, Result, Thing},
};

/// The most milestones of one account.
const MILESTONES_MAX: u32 = 100;
/// The longest metadata, in octets of its JSON.
const METADATA_MAX: usize = 16 << 10;

/// A change of the own account; what is left out stays.
#[derive(Clone, Debug, Default)]
pub struct AccountChange {
    /// Its name for people, 1 to 100 characters; cleared means the account's name.
    pub alias: Patch<String>,
    /// 64 lower-case hexadecimal digits.
    pub public_key: Patch<String>,
    /// In place of all that was kept, at most 16 KiB of JSON.
    pub metadata: Option<Map<String, Value>>,
    /// The new password; it ends all sessions. Needs `current_password`.
    pub password: Option<String>,
    /// The present password.
    pub current_password: Option<String>,
    /// How much the account may have. Only for administrators, who may set it for any account.
    pub limits: LimitsChange,
}

/// A change of what one account may have; cleared means what all may have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitsChange {
    /// Containers.
    pub containers: Patch<u32>,
    /// Containers that run or are paused.
    pub running_containers: Patch<u32>,
    /// Projects.
    pub projects: Patch<u32>,
}

impl LimitsChange {
    fn of(self, now: AccountLimits) -> AccountLimits {
        let one = |patch: Patch<u32>, now| match patch {
            Patch::Keep => now,
            Patch::Clear => None,
            Patch::Set(max) => Some(max),
        };
        AccountLimits {
            containers: one(self.containers, now.containers),
            running_containers: one(self.running_containers, now.running_containers),
            projects: one(self.projects, now.projects),
        }
    }
}

impl AccountChange {
    /// Whether it changes something that an account says about itself.
    fn is_personal(&self) -> bool {
        self.alias != Patch::Keep
            || self.public_key != Patch::Keep
            || self.metadata.is_some()
            || self.password.is_some()
            || self.current_password.is_some()
    }
}

impl Controller {
    /// An account: the actor's own, or any for an administrator.
    pub async fn account(&self, actor: &Actor, id: UserId) -> Result<Account> {
        if actor.user != id && !actor.sees_all() {
            return Err(Error::NotFound(Thing::User));
        }
        let user = self.store().user(id).await?.ok_or(Error::NotFound(Thing::User))?;
        self.account_of(&user).await
    }

    pub(crate) async fn account_of(&self, user: &gantry_store::User) -> Result<Account> {
        let profile = self.store().profile(user.id).await?;
        let (own, limits) = (self.store().account_limits(user.id).await?, self.limits());
        let quotas = AccountQuotas {
            own,
            containers_max: own.containers.unwrap_or(limits.containers_per_user_max),
            running_containers_max: own
                .running_containers
                .unwrap_or(limits.running_containers_per_user_max),
            projects_max: own.projects.unwrap_or(limits.projects_per_user_max),
            used: self.store().account_use(user.id).await?,
        };
        Ok(Account {
            id: user.id,
            username: user.username.clone(),
            profile,
            is_admin: user.is_admin,
            onboarding: self.store().onboarding(user.id).await?,
            quotas,
            created_at_ms: user.created_at_ms,
            updated_at_ms: user.updated_at_ms,
        })
    }

    /// Notes that a client has shown something to the actor, which the account says from then on.
    pub async fn reach_milestone(&self, actor: &Actor, milestone: &str) -> Result<Account> {
        actor.require_session()?;
        if !is_milestone(milestone) {
            let rule = "must be hub_tour_v and 1 to 3 digits, or dashboard_ or onboarding_ and 1 to 30 \
                        lower-case letters, digits and underscores";
            return Err(Error::invalid("milestone", rule));
        }
        let now_ms = self.now_ms();
        if !self.store().reach_milestone(actor.user, milestone, MILESTONES_MAX, now_ms).await? {
            let rule = format!("would be more than the {MILESTONES_MAX} that an account may have");
            return Err(Error::invalid("milestone", rule));
        }
        self.account(actor, actor.user).await
    }

    /// Changes the actor's own account; only by a session. Nothing changes when anything of it is
    /// refused. How much an account may have is changed by administrators, of any account.
    pub async fn update_account(
        &self,
        actor: &Actor,
        id: UserId,
        change: AccountChange,
        client: Option<IpAddr>,
    ) -> Result<Account> {
        let limits = change.limits.clone();
        let sets_limits = limits != LimitsChange::default();
        if sets_limits {
            actor.require_admin()?;
            self.account(actor, id).await?;
        }
        if !sets_limits || change.is_personal() {
            self.update_own(actor, id, change, client).await?;
        }
        if sets_limits {
            let limits = limits.of(self.store().account_limits(id).await?);
            let set = self.store().set_account_limits(id, limits, self.now_ms()).await;
            set.map_err(|error| Error::of_write(error, Thing::User, During::Update))?;
        }
        self.account(actor, id).await
    }

    /// Changes what an account says about itself.
    async fn update_own(
        &self,
        actor: &Actor,
        id: UserId,
        change: AccountChange,
        client: Option<IpAddr>,
    ) -> Result<()> {
        if actor.user != id {
            return Err(Error::NotFound(Thing::User));
        }
        actor.require_session()?;
        let mut profile = self.store().profile(id).await?;
        let before = profile.clone();
        let mut errors = Vec::new();
        match change.alias {
            Patch::Keep => {}
            Patch::Clear => profile.alias = None,
            Patch::Set(alias) => {
                if !(1..=100).contains(&alias.chars().count())
                    || alias.chars().any(char::is_control)
                {
                    let rule = "must be 1 to 100 characters, none of them for control";
                    errors.push(FieldError::new("alias", rule));
                }
                profile.alias = Some(alias);
            }
        }
        match change.public_key {
            Patch::Keep => {}
            Patch::Clear => profile.public_key = None,
            Patch::Set(key) => {
                let hex = |octet| matches!(octet, b'0'..=b'9' | b'a'..=b'f');
                if key.len() != 64 || !key.bytes().all(hex) {
                    let rule = "must be 64 lower-case hexadecimal digits";
                    errors.push(FieldError::new("public_key", rule));
                }
                profile.public_key = Some(key);
            }
        }
        if let Some(metadata) = change.metadata {
            if serde_json::to_vec(&metadata).map_err(Error::internal)?.len() > METADATA_MAX {
                errors.push(FieldError::new("metadata", "must be at most 16384 octets of JSON"));
            }
            profile.metadata = metadata;
        }
        if change.password.is_some() && change.current_password.is_none() {
            let rule = "is required to change the password";
            errors.push(FieldError::new("current_password", rule));
        }
        if !errors.is_empty() {
            return Err(Error::Invalid(errors));
        }
        if let (Some(new), Some(current)) = (&change.password, &change.current_password) {
            self.change_password(actor, current, new, client).await?;
        }
        if profile != before {
            let set = self.store().set_profile(id, &profile, self.now_ms()).await;
            set.map_err(|error| Error::of_write(error, Thing::User, During::Update))?;
        }
        Ok(())
    }
}

fn is_milestone(text: &str) -> bool {
    let word = |octet: u8| matches!(octet, b'a'..=b'z' | b'0'..=b'9' | b'_');
    if let Some(version) = text.strip_prefix("hub_tour_v") {
        return (1..=3).contains(&version.len()) && version.bytes().all(|o| o.is_ascii_digit());
    }
    let rest = text.strip_prefix("dashboard_").or_else(|| text.strip_prefix("onboarding_"));
    rest.is_some_and(|rest| (1..=30).contains(&rest.len()) && rest.bytes().all(word))
}
