//! Long-lived API tokens: `hdy_` and 256 random bits, kept as a keyed hash only.

mod addresses;
mod derive;
mod profile;

use std::net::IpAddr;

use gantry_model::{FieldError, RealmId, TokenId, container::parse_realms};
use gantry_store::TokenProfile;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;

use self::addresses::{addresses_wider, allows_address, parse_addresses};
use crate::{
    Patch,
    actor::{Actor, Via},
    controller::Controller,
    error::{Error, Forbidden, Result, Subject, Thing, Unauthenticated},
    permissions::{Leaf, Permissions},
    random,
};

pub use self::profile::ProfileChange;

/// What tells a token from a session.
const PREFIX: &str = "hdy_";
/// How much of a token is kept to recognise it by, in octets.
const SHOWN_LEN: usize = PREFIX.len() + 8;
/// Uses within this time of the last recorded one, from the same address, are not recorded.
const TOUCH_MS: i64 = 60_000;

/// Whether a text claims to be a token.
pub(crate) fn looks_like(text: &str) -> bool {
    text.starts_with(PREFIX)
}

/// A token as its owner sees it; the secret is not in it.
#[expect(clippy::struct_excessive_bools, reason = "four independent switches of the API")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Its id.
    pub id: TokenId,
    /// Its name for people; not unique.
    pub alias: String,
    /// The first characters of the secret.
    pub prefix: String,
    /// The addresses that it may be used from, as addresses or networks; any when empty.
    pub ip_whitelist: Vec<String>,
    /// The realms that it is bound to; unbound when empty.
    pub realms: Vec<RealmId>,
    /// Whether it may be used without a realm; means something only while `realms` is empty.
    pub allow_no_realm: bool,
    /// What it may do.
    pub permissions: Permissions,
    /// When it ends, in milliseconds since the epoch; never when absent.
    pub expires_at_ms: Option<i64>,
    /// Whether it may be used at all.
    pub enabled: bool,
    /// Whether it may read the vault.
    pub vault_access: bool,
    /// Whether it may read events.
    pub event_access: bool,
    /// When it was last used, in milliseconds since the epoch, to about a minute.
    pub last_used_at_ms: Option<i64>,
    /// The address that it was last used from.
    pub last_used_ip: Option<String>,
    /// When it was made, in milliseconds since the epoch.
    pub created_at_ms: i64,
    /// When it was last changed, in milliseconds since the epoch.
    pub updated_at_ms: i64,
    /// The token that it was made with, if it was one; that may be gone.
    pub created_by: Option<TokenId>,
    /// How many tokens stand between it and a login.
    pub depth: u32,
    /// What it shows of itself.
    pub profile: TokenProfile,
}

impl Token {
    fn of(record: gantry_store::Token) -> Self {
        Self::with(record, TokenProfile::default())
    }

    /// Permissions that do not read any more permit nothing.
    fn with(record: gantry_store::Token, profile: TokenProfile) -> Self {
        let permissions = serde_json::from_str(&record.permissions)
            .ok()
            .and_then(|tree: Value| Permissions::parse("permissions", &tree).ok())
            .unwrap_or_default();
        Self {
            id: record.id,
            alias: record.alias,
            prefix: record.prefix,
            ip_whitelist: record.ip_whitelist,
            realms: record.realms,
            allow_no_realm: record.allow_no_realm,
            permissions,
            expires_at_ms: record.expires_at_ms,
            enabled: record.enabled,
            vault_access: record.vault_access,
            event_access: record.event_access,
            last_used_at_ms: record.last_used_at_ms,
            last_used_ip: record.last_used_ip,
            created_at_ms: record.created_at_ms,
            updated_at_ms: record.updated_at_ms,
            created_by: record.created_by,
            depth: record.depth,
            profile,
        }
    }
}

/// When a token shall end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpiresAt {
    /// At this time, in milliseconds since the epoch.
    AtMs(i64),
    /// At the end of this day, in UTC.
    Today,
    /// At the end of the next day, in UTC.
    Tomorrow,
}

impl ExpiresAt {
    /// Reads an ISO 8601 time, `today`, `tomorrow`, or a number in digits.
    pub fn parse(field: &str, text: &str) -> Result<Self, FieldError> {
        match text {
            "today" => return Ok(Self::Today),
            "tomorrow" => return Ok(Self::Tomorrow),
            _ => {}
        }
        if let Ok(number) = text.parse() {
            return Ok(Self::from_number(number));
        }
        let format = &time::format_description::well_known::Iso8601::PARSING;
        time::OffsetDateTime::parse(text, format)
            .ok()
            .and_then(|at| i64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok())
            .map(Self::AtMs)
            .ok_or_else(|| {
                FieldError::new(
                    field,
                    "must be an ISO 8601 time with zone, a Unix time, \"today\" or \"tomorrow\"",
                )
            })
    }

    /// A Unix time: numbers above 10^12 are milliseconds, others seconds.
    pub const fn from_number(number: i64) -> Self {
        Self::AtMs(if number > 1_000_000_000_000 { number } else { number.saturating_mul(1000) })
    }

    pub(crate) fn at_ms(self, now_ms: i64) -> i64 {
        const DAY_MS: i64 = 86_400_000;
        let day = now_ms.div_euclid(DAY_MS);
        match self {
            Self::AtMs(at_ms) => at_ms,
            Self::Today => (day + 1) * DAY_MS,
            Self::Tomorrow => (day + 2) * DAY_MS,
        }
    }
}

/// A token to be made. Fields left out have the defaults that they name.
#[derive(Clone, Debug, Default)]
pub struct NewToken {
    /// 1 to 254 letters, digits, spaces, `_` and `-`; generated when absent.
    pub alias: Option<String>,
    /// Addresses and networks that it may be used from; `*` or nothing means any.
    pub ip_whitelist: Vec<String>,
    /// A named set of permissions; wins over `permissions`.
    pub permission_template: Option<String>,
    /// The permission tree, as JSON. Without it and a template: everything that a template
    /// `full_access` allows (and that the actor has).
    pub permissions: Option<Value>,
    /// The realms that it is bound to.
    pub realm_ids: Vec<String>,
    /// Whether it may be used without a realm; true when absent.
    pub allow_no_realm: Option<bool>,
    /// Whether it may read events; true when absent.
    pub event_access: Option<bool>,
    /// Whether it may read the vault; false when absent.
    pub vault_access: Option<bool>,
    /// When it ends; never when absent.
    pub expires_at: Option<ExpiresAt>,
    /// Whether it may be used at all; true when absent.
    pub is_enabled: Option<bool>,
    /// What it shows of itself; nothing when left out.
    pub profile: ProfileChange,
    /// Whether it can neither make tokens nor read the vault, and must end; false when left out.
    pub deny_reauthorization: bool,
}

/// A change of a token; what is left out stays.
#[derive(Clone, Debug, Default)]
pub struct TokenChange {
    /// As in [`NewToken`].
    pub alias: Option<String>,
    /// As in [`NewToken`].
    pub ip_whitelist: Option<Vec<String>>,
    /// As in [`NewToken`].
    pub permission_template: Option<String>,
    /// As in [`NewToken`].
    pub permissions: Option<Value>,
    /// As in [`NewToken`].
    pub realm_ids: Option<Vec<String>>,
    /// As in [`NewToken`].
    pub allow_no_realm: Option<bool>,
    /// As in [`NewToken`].
    pub event_access: Option<bool>,
    /// As in [`NewToken`].
    pub vault_access: Option<bool>,
    /// When it ends; cleared means never.
    pub expires_at: Patch<ExpiresAt>,
    /// Whether it may be used at all.
    pub is_enabled: Option<bool>,
    /// What it shows of itself.
    pub profile: ProfileChange,
}

impl Controller {
    /// Makes a token and returns it with its secret, which is nowhere else. A token may make tokens
    /// if it has `resources.create_tokens`, but none that can do more than itself.
    pub async fn create_token(&self, actor: &Actor, new: NewToken) -> Result<(Token, String)> {
        actor.require(Leaf::ResourcesCreateTokens)?;
        let profile = new.profile.of(actor, TokenProfile::default())?;
        let (created_by, depth) = self.maker(actor).await?;
        let now_ms = self.now_ms();
        let secret = format!("{PREFIX}{}", hex::encode(random::bytes::<32>()?));
        let mut token = gantry_store::Token {
            id: random::id()?,
            owner: actor.user,
            alias: random::name(0)?,
            prefix: secret.get(..SHOWN_LEN).unwrap_or(PREFIX).to_owned(),
            hash: self.token_hash(&secret)?,
            realms: Vec::new(),
            allow_no_realm: true,
            event_access: true,
            vault_access: false,
            ip_whitelist: Vec::new(),
            permissions: String::new(),
            expires_at_ms: None,
            enabled: true,
            last_used_at_ms: None,
            last_used_ip: None,
            created_at_ms: now_ms,
            updated_at_ms: now_ms,
            created_by,
            depth,
        };
        inherit(actor, &mut token);
        let change = TokenChange {
            alias: new.alias,
            ip_whitelist: (!new.ip_whitelist.is_empty()).then_some(new.ip_whitelist),
            permission_template: new.permission_template,
            permissions: new.permissions,
            realm_ids: if new.realm_ids.is_empty() { None } else { Some(new.realm_ids) },
            allow_no_realm: new.allow_no_realm,
            event_access: new.event_access,
            vault_access: new.vault_access,
            expires_at: new.expires_at.map_or(Patch::Keep, Patch::Set),
            is_enabled: new.is_enabled,
            profile: ProfileChange::default(),
        };
        let by_name = change.permissions.is_some() && change.permission_template.is_none();
        apply(&mut token, change, now_ms)?;
        if new.deny_reauthorization {
            profile::deny_reauthorization(&mut token, by_name)?;
        }
        check_not_wider(actor, &Token::of(token.clone()))?;
        let shown = profile.clone().unwrap_or_default();
        let (profile, max) = (profile.map(profile::write), self.limits().tokens_per_user_max);
        let written = self.store().create_token_with(&token, profile, max).await;
        written.map_err(|error| Error::of_write(error, Thing::User, crate::During::Create))?;
        Ok((Token::with(token, shown), secret))
    }

    /// How many tokens a user has. For whoever has just proved to be that user.
    pub async fn count_tokens(&self, user: gantry_model::UserId) -> Result<usize> {
        Ok(self.store().tokens(user).await?.len())
    }

    /// The actor's tokens, newest first.
    pub async fn tokens(&self, actor: &Actor) -> Result<Vec<Token>> {
        actor.require(Leaf::ResourcesReadAccount)?;
        let tokens = self.store().tokens(actor.user).await?.into_iter();
        let mut profiles = self.store().token_profiles(actor.user).await?;
        let mut tokens: Vec<Token> = tokens
            .filter(|token| is_visible(actor, token))
            .map(|token| {
                let profile = profiles.remove(&token.id).unwrap_or_default();
                Token::with(token, profile)
            })
            .collect();
        tokens.sort_by_key(|token| std::cmp::Reverse((token.created_at_ms, token.id)));
        Ok(tokens)
    }

    /// One of the actor's tokens.
    pub async fn token(&self, actor: &Actor, id: TokenId) -> Result<Token> {
        actor.require(Leaf::ResourcesReadAccount)?;
        let token = self.token_record(actor, id).await?;
        self.shown(token).await
    }

    /// A token with its profile.
    async fn shown(&self, token: gantry_store::Token) -> Result<Token> {
        let profile = self.store().token_profile(token.id).await?;
        Ok(Token::with(token, profile))
    }

    /// The token that the actor came with; needs no permission and no realm.
    pub async fn own_token(&self, actor: &Actor) -> Result<Token> {
        match actor.via {
            Via::Token { id, .. } => {
                let token = self.token_record(actor, id).await?;
                self.shown(token).await
            }
            Via::Session { .. } | Via::Password => Err(Error::NotFound(Thing::Token)),
        }
    }

    /// Changes a token; the next request with it sees the change.
    pub async fn update_token(
        &self,
        actor: &Actor,
        id: TokenId,
        change: TokenChange,
    ) -> Result<Token> {
        actor.require(Leaf::ResourcesCreateTokens)?;
        let seen = self.token_record(actor, id).await?;
        // It may not change one that can do more than it, either.
        check_not_wider(actor, &Token::of(seen.clone()))?;
        check_unchanged(actor, &seen)?;
        let mut token = seen.clone();
        if let Some(realms) = &change.realm_ids {
            let realms = parse_realms("realm_ids", realms).map_err(one)?;
            actor.may_change_realms(&token.realms, &realms)?;
        }
        let shown = self.store().token_profile(id).await?;
        let profile = change.profile.clone().of(actor, shown.clone())?;
        let now_ms = self.now_ms();
        apply(&mut token, change, now_ms)?;
        token.updated_at_ms = later(now_ms, &seen);
        check_not_wider(actor, &Token::of(token.clone()))?;
        let shown = profile.clone().unwrap_or(shown);
        let profile = profile.map(profile::write);
        self.store().update_token_with(&seen, &token, profile).await.map_err(token_gone)?;
        Ok(Token::with(token, shown))
    }

    /// Deletes a token; the next request with it is refused.
    pub async fn delete_token(&self, actor: &Actor, id: TokenId) -> Result<()> {
        actor.require(Leaf::ResourcesCreateTokens)?;
        // A restricted token may not end one that can do more than it.
        check_not_wider(actor, &Token::of(self.token_record(actor, id).await?))?;
        self.store().delete_token(actor.user, id, self.now_ms()).await.map_err(token_gone)
    }

    async fn token_record(&self, actor: &Actor, id: TokenId) -> Result<gantry_store::Token> {
        let token = self.store().token(actor.user, id).await?;
        token.filter(|token| is_visible(actor, token)).ok_or(Error::NotFound(Thing::Token))
    }

    /// The token of this secret, if it may be used now and from here. Found by its keyed hash, so
    /// that no comparison takes longer the more of a guess is right.
    pub(crate) async fn check_token(
        &self,
        secret: &str,
        client: Option<IpAddr>,
    ) -> Result<TokenProof> {
        let hash = self.token_hash(secret)?;
        let token = self.store().token_by_hash(&hash).await?.ok_or(Unauthenticated::Invalid)?;
        let now_ms = self.now_ms();
        if !token.enabled {
            return Err(Unauthenticated::Invalid.into());
        }
        if token.expires_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            return Err(Unauthenticated::Expired.into());
        }
        if !allows_address(&token.ip_whitelist, client) {
            return Err(Forbidden::Address.into());
        }
        self.touch(&token, client, now_ms).await;
        Ok(TokenProof { owner: token.owner, token: Token::of(token) })
    }

    /// Records the use. A failure costs the record of it and nothing else.
    async fn touch(&self, token: &gantry_store::Token, client: Option<IpAddr>, now_ms: i64) {
        let address = client.map(|address| address.to_canonical().to_string()).unwrap_or_default();
        let recent =
            token.last_used_at_ms.is_some_and(|at_ms| now_ms.saturating_sub(at_ms) < TOUCH_MS);
        if recent && token.last_used_ip.as_ref() == Some(&address) {
            return;
        }
        if let Err(error) = self.store().touch_token(token.id, &address, now_ms).await {
            tracing::warn!(token = %token.id, %error, "the use of a token was not recorded");
        }
    }

    fn token_hash(&self, secret: &str) -> Result<[u8; 32]> {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.inner.pepper).map_err(Error::internal)?;
        mac.update(secret.as_bytes());
        Ok(mac.finalize().into_bytes().into())
    }
}

/// One that is bound to realms sees those tokens only that are good in the realm it is used in.
fn is_visible(actor: &Actor, token: &gantry_store::Token) -> bool {
    let own = matches!(actor.via, Via::Token { id, .. } if id == token.id);
    own || !actor.is_realm_restricted()
        || actor.realm.is_none_or(|realm| token.realms.contains(&realm))
}

/// A token that was presented and is good.
pub(crate) struct TokenProof {
    pub(crate) owner: gantry_model::UserId,
    token: Token,
}

impl TokenProof {
    pub(crate) fn via(self) -> Via {
        let token = self.token;
        Via::Token {
            id: token.id,
            permissions: token.permissions,
            realms: token.realms,
            allow_no_realm: token.allow_no_realm,
            event_access: token.event_access,
            vault_access: token.vault_access,
            ip_whitelist: token.ip_whitelist,
            expires_at_ms: token.expires_at_ms,
        }
    }
}

/// What a new token has unless its maker says otherwise: no more than the maker.
fn inherit(actor: &Actor, token: &mut gantry_store::Token) {
    let full = Permissions::template("full_access").unwrap_or_default();
    let mut default = full;
    if let Via::Token {
        permissions,
        realms,
        allow_no_realm,
        event_access,
        ip_whitelist,
        expires_at_ms,
        ..
    } = &actor.via
    {
        token.ip_whitelist.clone_from(ip_whitelist);
        default = full.and(*permissions);
        token.realms.clone_from(realms);
        token.allow_no_realm = *allow_no_realm;
        token.event_access = *event_access;
        token.expires_at_ms = *expires_at_ms;
    }
    token.permissions = default.to_tree().to_string();
}

/// Refuses a token that changes itself when it was switched off, or can do other things, since it was
/// let in: its change would be made from rights that it no longer has.
fn check_unchanged(actor: &Actor, now: &gantry_store::Token) -> Result<()> {
    let Via::Token { id, permissions, realms, ip_whitelist, expires_at_ms, .. } = &actor.via else {
        return Ok(());
    };
    let token = Token::of(now.clone());
    let same = now.enabled
        && token.permissions == *permissions
        && token.realms == *realms
        && token.ip_whitelist == *ip_whitelist
        && token.expires_at_ms == *expires_at_ms;
    if *id != now.id || same { Ok(()) } else { Err(Error::Conflict) }
}

/// A token made or changed by a token can do no more than that.
fn check_not_wider(actor: &Actor, new: &Token) -> Result<(), Forbidden> {
    let Via::Token {
        permissions,
        realms,
        allow_no_realm,
        event_access,
        vault_access,
        ip_whitelist,
        expires_at_ms,
        ..
    } = &actor.via
    else {
        return Ok(());
    };
    let realms_wider = !realms.is_empty()
        && (new.realms.is_empty() || new.realms.iter().any(|realm| !realms.contains(realm)));
    let ends_later = expires_at_ms.is_some_and(|own| new.expires_at_ms.is_none_or(|at| at > own));
    let unscoped = realms.is_empty() && !allow_no_realm && new.realms.is_empty();
    for (wider, what) in [
        (!permissions.covers(new.permissions), Subject::Permissions),
        (realms_wider, Subject::RealmIds),
        (unscoped && new.allow_no_realm, Subject::AllowNoRealm),
        (new.event_access && !event_access, Subject::EventAccess),
        (new.vault_access && !vault_access, Subject::VaultAccess),
        (addresses_wider(ip_whitelist, &new.ip_whitelist), Subject::IpWhitelist),
        (ends_later, Subject::ExpiresAt),
    ] {
        if wider {
            return Err(Forbidden::Wider(what));
        }
    }
    Ok(())
}

/// Checks and applies a change; every broken rule is reported, and then nothing is changed for good
/// because the caller does not store it.
fn apply(token: &mut gantry_store::Token, change: TokenChange, now_ms: i64) -> Result<()> {
    let mut errors = Vec::new();
    if let Some(alias) = change.alias {
        errors.extend(check_alias(&alias));
        token.alias = alias;
    }
    if let Some(list) = change.ip_whitelist {
        match parse_addresses(&list) {
            Ok(list) => token.ip_whitelist = list,
            Err(error) => errors.push(error),
        }
    }
    if let Some(realms) = change.realm_ids {
        match parse_realms("realm_ids", &realms) {
            Ok(realms) => token.realms = realms,
            Err(error) => errors.push(error),
        }
    }
    let permissions = match (change.permission_template, change.permissions) {
        (Some(name), _) => Some(Permissions::template(&name).ok_or_else(|| {
            vec![FieldError::new(
                "permission_template",
                "must be full_access, external_customer, dev_team, finance_team or read_only",
            )]
        })),
        (None, Some(tree)) => Some(Permissions::parse("permissions", &tree)),
        (None, None) => None,
    };
    match permissions {
        Some(Ok(permissions)) => token.permissions = permissions.to_tree().to_string(),
        Some(Err(more)) => errors.extend(more),
        None => {}
    }
    match change.expires_at {
        Patch::Keep => {}
        Patch::Clear => token.expires_at_ms = None,
        Patch::Set(at) => {
            let at_ms = at.at_ms(now_ms);
            if at_ms <= now_ms {
                errors.push(FieldError::new("expires_at", "must lie in the future"));
            }
            token.expires_at_ms = Some(at_ms);
        }
    }
    token.allow_no_realm = change.allow_no_realm.unwrap_or(token.allow_no_realm);
    token.event_access = change.event_access.unwrap_or(token.event_access);
    token.vault_access = change.vault_access.unwrap_or(token.vault_access);
    token.enabled = change.is_enabled.unwrap_or(token.enabled);
    if errors.is_empty() { Ok(()) } else { Err(Error::Invalid(errors)) }
}

fn check_alias(alias: &str) -> Option<FieldError> {
    let valid = (1..=254).contains(&alias.len())
        && alias.bytes().all(|octet| octet.is_ascii_alphanumeric() || b" _-".contains(&octet));
    let rule = "must be 1 to 254 letters, digits, spaces, underscores or hyphens";
    (!valid).then(|| FieldError::new("alias", rule))
}

fn one(error: FieldError) -> Error {
    Error::Invalid(vec![error])
}

/// When a change of a token that was seen so is made: never when it was changed last, since that tells a write that
/// was made from what no longer holds, a profile's, too.
fn later(now_ms: i64, seen: &gantry_store::Token) -> i64 {
    now_ms.max(seen.updated_at_ms.saturating_add(1))
}

fn token_gone(error: gantry_store::Error) -> Error {
    Error::of_write(error, Thing::Token, crate::During::Update)
}
