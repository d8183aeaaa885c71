//! Users, sessions and API tokens.

use std::{collections::BTreeMap, net::IpAddr};

use gantry_control as control;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{Hex, Timestamp};

/// An account. Fields of abilities that this installation does not have are empty.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct User {
    id: Hex,
    username: String,
    alias: String,
    public_key: Option<String>,
    created_at: Timestamp,
    updated_at: Timestamp,
    // The rest is left out for tokens without `resources.read_account`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    email: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    metadata: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_admin: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_banned: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    email_verified: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    avatar_url: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    signup_method: Option<Value>,
    /// The milestones that its clients have noted, and when.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    onboarding: Option<BTreeMap<String, Timestamp>>,
    /// How much it may have and has.
    #[serde(skip_serializing_if = "Option::is_none")]
    quotas: Option<Quotas>,
}

/// What clients have shown to a user already.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Onboarding {
    /// Milestones, and when each was reached.
    #[schema(value_type = Object)]
    onboarding: BTreeMap<String, Timestamp>,
}

/// How much an account may have and has.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Quotas {
    /// Containers in its projects, whoever made them.
    containers: Quota,
    /// Those of them that run, are paused, or are to run.
    running_containers: Quota,
    projects: Quota,
}

/// How much there may be of something.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Quota {
    limit: u32,
    used: u64,
    /// Whether the limit is that of all accounts.
    is_default: bool,
}

/// The caller's account and, for a token, the token itself.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Me {
    #[serde(flatten)]
    user: User,
    /// The token that the request came with.
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_token: Option<TokenInUse>,
}

/// The tokens of a session and when they end.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Renewed {
    /// Opens the API: `Authorization: Bearer <token>`.
    token: String,
    /// Buys a new session.
    #[serde(rename = "refreshToken")]
    refresh_token: String,
    expires_at: Timestamp,
    /// Seconds.
    expires_in: i64,
    refresh_expires_at: Timestamp,
    /// Seconds.
    refresh_expires_in: i64,
}

/// A session that was just opened.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Session {
    #[serde(flatten)]
    tokens: Renewed,
    client_ip: Option<String>,
    /// The last logins before this one, newest first.
    recent_login_ips: Vec<Login>,
    /// How many long-lived tokens the account has.
    auth_token_count: usize,
    user: User,
    #[schema(value_type = Option<Value>)]
    server: Option<()>,
    #[schema(value_type = Option<Value>)]
    project: Option<()>,
    #[schema(value_type = Option<Value>)]
    container: Option<()>,
}

/// A login of before.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Login {
    ip: Option<String>,
    timestamp: Timestamp,
}

/// A long-lived token; its secret is shown once, when it is made.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Token {
    id: Hex,
    alias: String,
    /// The first characters of the secret.
    prefix: String,
    /// Under which others see what it shows; 64 hexadecimal digits.
    public_key: Option<String>,
    /// What it shows.
    public_storage: Option<String>,
    /// Addresses and networks that it may be used from; any when empty.
    ip_whitelist: Vec<String>,
    realm_ids: Vec<Hex>,
    /// Whether it may be used without a realm; means something only while `realm_ids` is empty.
    allow_no_realm: bool,
    /// The whole tree of permissions.
    #[schema(value_type = Object)]
    permissions: Value,
    expires_at: Option<Timestamp>,
    is_enabled: bool,
    vault_access: bool,
    event_access: bool,
    /// The token that it was made with, if it was one; that may be gone.
    created_by_token_id: Option<Hex>,
    /// How many tokens stand between it and a login.
    delegation_depth: u32,
    last_used_at: Option<Timestamp>,
    last_used_ip: Option<String>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

/// What a token shows of itself.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PublicProfile {
    public_key: Option<String>,
    public_storage: Option<String>,
}

/// A token that was just made.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CreatedToken {
    /// The secret, `hdy_…`: shown this once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<String>,
    #[serde(flatten)]
    pub(crate) created: Token,
}

/// A named set of permissions.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenTemplate {
    name: &'static str,
    /// The whole tree of permissions.
    #[schema(value_type = Object)]
    permissions: Value,
}

/// The token that a request came with.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenInUse {
    token: Token,
    restrictions: Restrictions,
}

/// Where a token may be used.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Restrictions {
    has_realm_restrictions: bool,
    /// Whether it works only on the hosts of its realms.
    requires_realm_scope: bool,
    allowed_realm_ids: Vec<Hex>,
    allow_no_realm: bool,
    /// The realm of the host that was asked.
    active_realm_id: Option<Hex>,
}

impl User {
    /// The whole account.
    pub(crate) fn new(account: &control::Account) -> Self {
        Self {
            email: Some(Value::Null),
            metadata: Some(account.profile.metadata.clone()),
            is_admin: Some(account.is_admin),
            is_banned: Some(false),
            email_verified: Some(false),
            avatar_url: Some(Value::Null),
            signup_method: Some(Value::Null),
            onboarding: Some(milestones(account)),
            quotas: Some(Quotas::new(&account.quotas)),
            ..Self::outline(account)
        }
    }

    /// As much of it as this actor may read.
    pub(crate) fn for_actor(account: &control::Account, actor: &control::Actor) -> Self {
        if actor.allows(control::Leaf::ResourcesReadAccount) {
            Self::new(account)
        } else {
            Self::outline(account)
        }
    }

    /// What everybody sees who acts for it.
    fn outline(account: &control::Account) -> Self {
        Self {
            id: account.id.into(),
            username: account.username.clone(),
            alias: account.profile.alias.as_ref().unwrap_or(&account.username).clone(),
            public_key: account.profile.public_key.clone(),
            created_at: Timestamp(account.created_at_ms),
            updated_at: Timestamp(account.updated_at_ms),
            email: None,
            metadata: None,
            is_admin: None,
            is_banned: None,
            email_verified: None,
            avatar_url: None,
            signup_method: None,
            onboarding: None,
            quotas: None,
        }
    }
}

/// The milestones of an account, and when each was reached.
fn milestones(account: &control::Account) -> BTreeMap<String, Timestamp> {
    account.onboarding.iter().map(|(name, at)| (name.clone(), Timestamp(*at))).collect()
}

impl Onboarding {
    pub(crate) fn new(account: &control::Account) -> Self {
        Self { onboarding: milestones(account) }
    }
}

impl Quotas {
    fn new(quotas: &control::AccountQuotas) -> Self {
        let (own, used) = (&quotas.own, &quotas.used);
        let quota =
            |limit, used, own: Option<u32>| Quota { limit, used, is_default: own.is_none() };
        Self {
            containers: quota(quotas.containers_max, used.containers, own.containers),
            running_containers: quota(
                quotas.running_containers_max,
                used.running_containers,
                own.running_containers,
            ),
            projects: quota(quotas.projects_max, used.projects, own.projects),
        }
    }
}

impl Me {
    pub(crate) fn new(
        account: &control::Account,
        actor: &control::Actor,
        auth_token: Option<TokenInUse>,
    ) -> Self {
        Self { user: User::for_actor(account, actor), auth_token }
    }
}

impl Renewed {
    pub(crate) fn new(session: &control::Session) -> Self {
        Self {
            token: session.access.clone(),
            refresh_token: session.refresh.clone(),
            expires_at: Timestamp(session.access_expires_at_ms),
            expires_in: session.access_expires_in_secs,
            refresh_expires_at: Timestamp(session.refresh_expires_at_ms),
            refresh_expires_in: session.refresh_expires_in_secs,
        }
    }
}

impl Session {
    pub(crate) fn new(
        session: &control::Session,
        client: Option<IpAddr>,
        logins: &[control::Activity],
        tokens: usize,
    ) -> Self {
        let login = |entry: &control::Activity| Login {
            ip: entry.ip.clone(),
            timestamp: Timestamp(entry.at_ms),
        };
        Self {
            tokens: Renewed::new(session),
            client_ip: client.map(|ip| ip.to_string()),
            recent_login_ips: logins.iter().map(login).collect(),
            auth_token_count: tokens,
            user: User::new(&session.account),
            server: None,
            project: None,
            container: None,
        }
    }
}

impl Token {
    pub(crate) fn new(token: &control::Token) -> Self {
        Self {
            id: token.id.into(),
            alias: token.alias.clone(),
            prefix: token.prefix.clone(),
            public_key: token.profile.public_key.clone(),
            public_storage: token.profile.public_storage.clone(),
            ip_whitelist: token.ip_whitelist.clone(),
            realm_ids: token.realms.iter().copied().map(Hex::from).collect(),
            allow_no_realm: token.allow_no_realm,
            permissions: token.permissions.to_tree(),
            expires_at: token.expires_at_ms.map(Timestamp),
            is_enabled: token.enabled,
            vault_access: token.vault_access,
            event_access: token.event_access,
            created_by_token_id: token.created_by.map(Hex::from),
            delegation_depth: token.depth,
            last_used_at: token.last_used_at_ms.map(Timestamp),
            last_used_ip: token.last_used_ip.clone(),
            created_at: Timestamp(token.created_at_ms),
            updated_at: Timestamp(token.updated_at_ms),
        }
    }
}

impl PublicProfile {
    pub(crate) fn new(profile: control::TokenProfile) -> Self {
        let control::TokenProfile { public_key, public_storage } = profile;
        Self { public_key, public_storage }
    }
}

impl TokenTemplate {
    pub(crate) fn new(name: &'static str, permissions: control::Permissions) -> Self {
        Self { name, permissions: permissions.to_tree() }
    }
}

impl TokenInUse {
    pub(crate) fn new(token: &control::Token, actor: &control::Actor) -> Self {
        let bound = !token.realms.is_empty();
        Self {
            token: Token::new(token),
            restrictions: Restrictions {
                has_realm_restrictions: bound,
                requires_realm_scope: bound || !token.allow_no_realm,
                allowed_realm_ids: token.realms.iter().copied().map(Hex::from).collect(),
                allow_no_realm: token.allow_no_realm,
                active_realm_id: actor.realm.map(Hex::from),
            },
        }
    }
}
