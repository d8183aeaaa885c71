//! What tokens show of themselves to whoever knows their public key, who made them, and what they pass on.

use gantry_model::{FieldError, TokenId};
use gantry_store::{ProfileWrite, TokenProfile};

use super::{Token, check_unchanged, later, token_gone};
use crate::{
    Patch,
    actor::{Actor, Via},
    controller::Controller,
    error::{Error, Result, Thing, Unauthenticated},
    permissions::{Leaf, Permissions},
};

/// The longest `public_storage`, in octets.
const STORAGE_MAX: usize = 64 << 10;
/// How many octets of it all tokens of an account may have together: each list of tokens holds them.
const STORAGE_SUM_MAX: u64 = 1 << 20;

/// A change of what a token shows of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProfileChange {
    /// 64 lower-case hexadecimal digits that no other token has; what it is found by.
    pub public_key: Patch<String>,
    /// At most 65,536 octets, and 1 MiB for all tokens of the account.
    pub public_storage: Patch<String>,
}

impl ProfileChange {
    /// What a profile becomes by it; nothing if it stays as it is.
    pub(super) fn of(
        self,
        actor: &Actor,
        mut profile: TokenProfile,
    ) -> Result<Option<TokenProfile>> {
        if self == Self::default() {
            return Ok(None);
        }
        let before = profile.clone();
        let mut errors = Vec::new();
        if let Patch::Set(key) = &self.public_key {
            errors.extend(check_key("public_key", key).err());
        }
        if let Patch::Set(storage) = &self.public_storage
            && storage.len() > STORAGE_MAX
        {
            errors.push(FieldError::new("public_storage", "must be at most 65536 octets"));
        }
        if !errors.is_empty() {
            return Err(Error::Invalid(errors));
        }
        for (change, field) in [
            (self.public_key, &mut profile.public_key),
            (self.public_storage, &mut profile.public_storage),
        ] {
            match change {
                Patch::Keep => {}
                Patch::Clear => *field = None,
                Patch::Set(value) => *field = Some(value),
            }
        }
        if profile == before {
            return Ok(None);
        }
        actor.require(Leaf::ResourcesPublicProfile)?;
        Ok(Some(profile))
    }
}

impl Controller {
    /// Changes what the token that the actor came with shows of itself.
    pub async fn update_own_profile(&self, actor: &Actor, change: ProfileChange) -> Result<Token> {
        actor.require(Leaf::ResourcesPublicProfile)?;
        let Via::Token { id, .. } = actor.via else {
            return Err(Error::NotFound(Thing::Token));
        };
        let seen = self.token_record(actor, id).await?;
        check_unchanged(actor, &seen)?;
        let shown = self.store().token_profile(id).await?;
        let Some(profile) = change.of(actor, shown.clone())? else {
            return Ok(Token::with(seen, shown));
        };
        let mut token = seen.clone();
        token.updated_at_ms = later(self.now_ms(), &seen);
        let written = Some(write(profile.clone()));
        self.store().update_token_with(&seen, &token, written).await.map_err(token_gone)?;
        Ok(Token::with(token, profile))
    }

    /// What a token of any account shows under its public key, if it can be used at all and is of the
    /// realm that is asked.
    pub async fn public_profile(&self, actor: &Actor, key: &str) -> Result<TokenProfile> {
        actor.require(Leaf::ResourcesPublicProfile)?;
        check_key("key", key).map_err(|error| Error::Invalid(vec![error]))?;
        let now_ms = self.now_ms();
        let found = self.store().token_of_public_key(key).await?;
        found
            .filter(|(token, _)| {
                token.enabled
                    && token.expires_at_ms.is_none_or(|at_ms| at_ms > now_ms)
                    && actor.is_in(&token.realms)
            })
            .map(|(_, profile)| profile)
            .ok_or(Error::NotFound(Thing::PublicProfile))
    }

    /// The token that the actor makes others with, and how far those are from a login.
    pub(super) async fn maker(&self, actor: &Actor) -> Result<(Option<TokenId>, u32)> {
        let Via::Token { id, .. } = actor.via else { return Ok((None, 0)) };
        let own = self.store().token(actor.user, id).await?;
        let own = own.ok_or(Unauthenticated::Invalid)?;
        Ok((Some(id), own.depth.saturating_add(1)))
    }
}

/// A profile as the store writes it, with the bound that it keeps.
pub(super) fn write(profile: TokenProfile) -> ProfileWrite {
    ProfileWrite { profile, octets_max: STORAGE_SUM_MAX }
}

/// Takes from a token what would outlive it. What is asked for by name is refused, what comes with a template or
/// from its maker is left out.
pub(super) fn deny_reauthorization(token: &mut gantry_store::Token, by_name: bool) -> Result<()> {
    const RULE: &str = "cannot be granted together with deny_reauthorization";
    let permissions = Token::of(token.clone()).permissions;
    let denied = Permissions::of(&[Leaf::ResourcesCreateTokens, Leaf::ResourcesVault]);
    let mut errors = Vec::new();
    for leaf in [Leaf::ResourcesCreateTokens, Leaf::ResourcesVault] {
        if by_name && permissions.allows(leaf) {
            errors.push(FieldError::new(format!("permissions.{}", leaf.path()), RULE));
        }
    }
    if token.vault_access {
        errors.push(FieldError::new("vault_access", RULE));
    }
    if token.expires_at_ms.is_none() {
        errors.push(FieldError::new("expires_at", "is required with deny_reauthorization"));
    }
    if !errors.is_empty() {
        return Err(Error::Invalid(errors));
    }
    token.permissions = permissions.without(denied).to_tree().to_string();
    Ok(())
}

fn check_key(field: &str, key: &str) -> Result<(), FieldError> {
    let hex = |octet| matches!(octet, b'0'..=b'9' | b'a'..=b'f');
    if key.len() == 64 && key.bytes().all(hex) {
        return Ok(());
    }
    Err(FieldError::new(field, "must be 64 lower-case hexadecimal digits"))
}

#[cfg(test)]
mod tests {
    use gantry_model::UserId;

    use super::*;

    /// As a template that has everything, or a token that may pass everything on, would make one.
    fn wide() -> gantry_store::Token {
        gantry_store::Token {
            id: TokenId::from_bytes([1; 12]),
            owner: UserId::from_bytes([2; 12]),
            alias: "wide".to_owned(),
            prefix: "hdy_".to_owned(),
            hash: [0; 32],
            realms: Vec::new(),
            allow_no_realm: true,
            event_access: true,
            vault_access: false,
            ip_whitelist: Vec::new(),
            permissions: Permissions::all().to_tree().to_string(),
            expires_at_ms: Some(1),
            enabled: true,
            last_used_at_ms: None,
            last_used_ip: None,
            created_at_ms: 0,
            updated_at_ms: 0,
            created_by: None,
            depth: 0,
        }
    }

    #[test]
    fn what_would_outlive_a_token_is_left_out_unless_it_was_asked_for_by_name() {
        let denied = [Leaf::ResourcesCreateTokens, Leaf::ResourcesVault];
        let mut token = wide();
        deny_reauthorization(&mut token, false).unwrap();
        let want = Permissions::all().without(Permissions::of(&denied));
        assert_eq!(Token::of(token).permissions, want);

        let Err(Error::Invalid(errors)) = deny_reauthorization(&mut wide(), true) else {
            panic!("asked for by name")
        };
        let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(fields, denied.map(|leaf| format!("permissions.{}", leaf.path())));
    }
}
