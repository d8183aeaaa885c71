//! Who asks, already authenticated, and what that lets them see and do.

use gantry_model::{RealmId, TokenId, UserId};

use crate::{
    error::Forbidden,
    permissions::{Leaf, Permissions},
};

/// An authenticated caller. Made by [`crate::Controller::authenticate`] only; fronts pass it on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// The account that acts.
    pub user: UserId,
    /// Its name.
    pub username: String,
    /// Whether the account is an administrator's. Tokens of administrators have no more rights
    /// than those of others; see [`Actor::sees_all`].
    pub is_admin: bool,
    /// How it proved who it is.
    pub via: Via,
    /// The realm of the host that it talks to.
    pub realm: Option<RealmId>,
}

/// How an actor proved who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Via {
    /// A login session's access token.
    Session {
        /// The generation of sessions that it belongs to; logout ends it.
        generation: u64,
        /// When it ends, in milliseconds since the epoch.
        expires_at_ms: i64,
    },
    /// User name and password with each request.
    Password,
    /// A long-lived token.
    Token {
        /// Which.
        id: TokenId,
        /// What it may do.
        permissions: Permissions,
        /// The realms that it is bound to; unbound when empty.
        realms: Vec<RealmId>,
        /// Whether it may be used without a realm; means something only while `realms` is empty.
        allow_no_realm: bool,
        /// Whether it may read events.
        event_access: bool,
        /// Whether it may read the vault.
        vault_access: bool,
        /// The addresses and networks that it may be used from; anywhere when empty.
        ip_whitelist: Vec<String>,
        /// When it ends, in milliseconds since the epoch.
        expires_at_ms: Option<i64>,
    },
}

impl Actor {
    /// Refuses a token that lacks `leaf`; sessions and passwords may do everything of their user.
    pub fn require(&self, leaf: Leaf) -> Result<(), Forbidden> {
        if self.allows(leaf) { Ok(()) } else { Err(Forbidden::Leaf(leaf)) }
    }

    /// Whether the credential carries this permission.
    pub fn allows(&self, leaf: Leaf) -> bool {
        match &self.via {
            Via::Session { .. } | Via::Password => true,
            Via::Token { permissions, .. } => permissions.allows(leaf),
        }
    }

    /// Refuses everything but a login session.
    pub fn require_session(&self) -> Result<(), Forbidden> {
        match self.via {
            Via::Session { .. } => Ok(()),
            Via::Password | Via::Token { .. } => Err(Forbidden::SessionOnly),
        }
    }

    /// Refuses everybody but an administrator who did not come with a token.
    pub fn require_admin(&self) -> Result<(), Forbidden> {
        if self.sees_all() { Ok(()) } else { Err(Forbidden::AdminOnly) }
    }

    /// Whether it sees the resources of every user: an administrator, but never by a token.
    pub fn sees_all(&self) -> bool {
        self.is_admin && !matches!(self.via, Via::Token { .. })
    }

    /// Whether it is a token that is bound to realms.
    pub fn is_realm_restricted(&self) -> bool {
        matches!(&self.via, Via::Token { realms, .. } if !realms.is_empty())
    }

    /// For whom a list is: one user, or an administrator who sees everything.
    pub(crate) fn seen_by(&self) -> Option<UserId> {
        if self.sees_all() { None } else { Some(self.user) }
    }

    /// Whether what is in these realms is in the one that it talks to.
    pub(crate) fn is_in(&self, realms: &[RealmId]) -> bool {
        self.realm.is_none_or(|realm| realms.contains(&realm))
    }

    /// The realm that a list is limited to: the host's, or the one asked for.
    pub(crate) fn realm_filter(
        &self,
        asked: Option<RealmId>,
    ) -> Result<Option<RealmId>, Forbidden> {
        match (self.realm, asked) {
            (Some(host), Some(asked)) if host != asked => Err(Forbidden::RealmConflict(asked)),
            (host, asked) => Ok(host.or(asked)),
        }
    }

    /// The realms of something new: those asked for and the host's; a restricted token puts
    /// everything into the realm that it is used in and nowhere else.
    pub(crate) fn realms_of_new(&self, asked: Vec<RealmId>) -> Vec<RealmId> {
        match self.realm {
            Some(host) if self.is_realm_restricted() => vec![host],
            Some(host) => {
                let mut realms = asked;
                realms.push(host);
                realms.sort_unstable();
                realms.dedup();
                realms
            }
            None => asked,
        }
    }

    /// Refuses a change of realms by a token that is bound to some.
    pub(crate) fn may_change_realms(
        &self,
        old: &[RealmId],
        new: &[RealmId],
    ) -> Result<(), Forbidden> {
        if old != new && self.is_realm_restricted() {
            return Err(Forbidden::RealmsFixed);
        }
        Ok(())
    }
}
