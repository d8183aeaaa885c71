//! Tokens made from others, and realms one by one.

use gantry_model::{RealmId, TokenId};

use super::{ExpiresAt, NewToken, ProfileChange, Token, TokenChange};
use crate::{
    actor::Actor,
    controller::Controller,
    error::{Error, Result},
    permissions::Leaf,
};

impl Controller {
    /// Makes a token that may do what this one may, with a secret of its own; one that is switched off
    /// has such a copy. Its alias is that of the
    /// first and its end, too, unless they are given; who it was used by last is not copied.
    pub async fn copy_token(
        &self,
        actor: &Actor,
        id: TokenId,
        alias: Option<String>,
        expires_at: Option<ExpiresAt>,
    ) -> Result<(Token, String)> {
        actor.require(Leaf::ResourcesCreateTokens)?;
        let source = Token::of(self.token_record(actor, id).await?);
        let now_ms = self.now_ms();
        let ends = match (expires_at, source.expires_at_ms) {
            (None, Some(at_ms)) if at_ms <= now_ms => {
                let rule = "is needed: the token to be copied has expired";
                return Err(Error::invalid("expires_at", rule));
            }
            (given, of_source) => given.or_else(|| of_source.map(ExpiresAt::AtMs)),
        };
        let new = NewToken {
            alias: Some(alias.unwrap_or(source.alias)),
            ip_whitelist: any_if_empty(source.ip_whitelist),
            permission_template: None,
            permissions: Some(source.permissions.to_tree()),
            realm_ids: source.realms.iter().map(ToString::to_string).collect(),
            allow_no_realm: Some(source.allow_no_realm),
            event_access: Some(source.event_access),
            vault_access: Some(source.vault_access),
            expires_at: ends,
            is_enabled: Some(source.enabled),
            // A public key leads to one token only.
            profile: ProfileChange::default(),
            deny_reauthorization: false,
        };
        self.create_token(actor, new).await
    }

    /// Binds a token to one realm more; nothing changes if it is bound to it.
    pub async fn add_token_realm(
        &self,
        actor: &Actor,
        id: TokenId,
        realm: RealmId,
    ) -> Result<Token> {
        let add = |realms: &mut Vec<RealmId>| {
            realms.push(realm);
            Ok(())
        };
        self.change_token_realms(actor, id, add).await
    }

    /// Frees a token from a realm; nothing changes if it is not bound to it. Its last realm stays: a
    /// token without any is good in all, which must be asked for by name.
    pub async fn remove_token_realm(
        &self,
        actor: &Actor,
        id: TokenId,
        realm: RealmId,
    ) -> Result<Token> {
        let remove = |realms: &mut Vec<RealmId>| {
            if *realms == [realm] {
                let rule = "is the last realm of the token, and without one it would be good in all: \
                            delete the token, or set its realm_ids";
                return Err(Error::invalid("realm_id", rule));
            }
            realms.retain(|known| *known != realm);
            Ok(())
        };
        self.change_token_realms(actor, id, remove).await
    }

    async fn change_token_realms(
        &self,
        actor: &Actor,
        id: TokenId,
        change: impl FnOnce(&mut Vec<RealmId>) -> Result<()> + Send,
    ) -> Result<Token> {
        actor.require(Leaf::ResourcesCreateTokens)?;
        let mut realms = self.token_record(actor, id).await?.realms;
        change(&mut realms)?;
        let realm_ids = Some(realms.iter().map(ToString::to_string).collect());
        self.update_token(actor, id, TokenChange { realm_ids, ..TokenChange::default() }).await
    }
}

/// A list of addresses for a new token, which would have its maker's if this were empty.
fn any_if_empty(list: Vec<String>) -> Vec<String> {
    if list.is_empty() { vec!["*".to_owned()] } else { list }
}
