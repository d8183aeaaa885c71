//! Long-lived API tokens.

use axum::{
    body::Bytes,
    extract::State,
    response::{IntoResponse as _, Response},
};
use gantry_control::{
    Actor, Error, ExpiresAt, NewToken, Permissions, ProfileChange, Token, TokenChange,
};
use gantry_model::{RealmId, id::kind};
use serde_json::Value;

use crate::{
    Front,
    answer::Answer,
    body::JsonObject,
    caller::{Caller, CallerAnywhere, PathId},
    fields::{Field, Fields, Given, Holds},
    idempotency::KeptInstead,
    problem::Problem,
    proxy::Segments,
    surface::{Method, Operation, Surface, UPDATE},
    wire,
};

const TAG: &str = "Auth tokens";

const ALIAS: Field = Field::new(
    "alias",
    Holds::Text { min: 1, max: 254 },
    "Letters, digits, spaces, `_` and `-`; generated when absent",
);
const ADDRESSES: Field = Field::new(
    "ip_whitelist",
    Holds::Mixed,
    "an array of addresses and networks, or a string of them with commas, or \"*\"",
);
const TEMPLATE: Field = Field::new(
    "permission_template",
    Holds::Text { min: 1, max: 64 },
    "full_access, external_customer, dev_team, finance_team or read_only; wins over permissions",
);
const PERMISSIONS: Field =
    Field::new("permissions", Holds::Object, "The tree of permissions; what is left out is denied");
const REALMS: Field = Field::new("realm_ids", Holds::Ids, "The realms that it is bound to");
const NO_REALM: Field =
    Field::new("allow_no_realm", Holds::Flag, "Whether it works on the plain host");
const VAULT: Field = Field::new("vault_access", Holds::Flag, "Whether it may read the vault");
const EVENTS: Field = Field::new("event_access", Holds::Flag, "Whether it may read events");
const EXPIRES: Field = Field::new(
    "expires_at",
    Holds::Mixed,
    "an ISO 8601 time, a Unix time, \"today\" or \"tomorrow\"",
)
.nullable();
const OTP: Field = Field::new(
    "otp_code",
    Holds::Text { min: 0, max: 12 },
    "A code of the second factor or a backup code; needed by a session whose account has one",
);
const KEY: Field =
    Field::new("public_key", Holds::Text { min: 64, max: 64 }, "64 lower-case hexadecimal digits under which others see what it shows; no other token has the same, and nobody checks who has the private key").nullable();
const STORAGE: Field = Field::new(
    "public_storage",
    Holds::Text { min: 0, max: 65_536 },
    "What it shows under its public key: at most 65536 octets, 1 MiB for all tokens of the account",
)
.nullable();

static CREATE: [Field; 13] = [
    ALIAS,
    ADDRESSES,
    TEMPLATE,
    PERMISSIONS,
    REALMS,
    NO_REALM,
    VAULT,
    EVENTS,
    EXPIRES,
    OTP,
    KEY,
    STORAGE,
    Field::new(
        "deny_reauthorization",
        Holds::Flag,
        "Whether it can neither make tokens nor read the vault; it needs expires_at then. Who may change it later may also give it these",
    ),
];

static CHANGE: [Field; 13] = [
    ALIAS,
    ADDRESSES,
    TEMPLATE,
    PERMISSIONS,
    REALMS,
    NO_REALM,
    VAULT,
    EVENTS,
    EXPIRES,
    OTP,
    KEY,
    STORAGE,
    Field::new("is_enabled", Holds::Flag, "Whether it may be used at all"),
];

static COPY: [Field; 3] = [
    Field::new(
        "alias",
        Holds::Text { min: 1, max: 254 },
        "As at creation; that of the token to be copied when absent",
    ),
    Field::new(
        "expires_at",
        Holds::Mixed,
        "an ISO 8601 time, a Unix time, \"today\" or \"tomorrow\"",
    ),
    OTP,
];

static PROFILE: [Field; 2] = [KEY, STORAGE];

static REALM: [Field; 2] = [Field::new("realm_id", Holds::Id, "The realm").required(), OTP];

pub(crate) fn surface(surface: Surface) -> Surface {
    let all = &["/api/v1/auth/tokens"];
    let one = &["/api/v1/auth/tokens/{id}"];
    surface
        .serve(
            &[Method::Get],
            all,
            list,
            &Operation::new("listTokens", TAG, "Lists the caller's tokens, newest first")
                .answers_list::<wire::Token>(200),
        )
        .serve(
            &[Method::Post],
            all,
            create,
            &Operation::new("createToken", TAG, "Makes a token; its secret is shown this once")
                .takes(&CREATE)
                .answers::<wire::CreatedToken>(201),
        )
        .serve(
            &[Method::Get],
            &["/api/v1/auth/tokens/me"],
            own,
            &Operation::new("getOwnToken", TAG, "Shows the token that the request came with")
                .answers::<wire::TokenInUse>(200),
        )
        .serve(
            &[Method::Get],
            one,
            show,
            &Operation::new("getToken", TAG, "Shows a token").answers::<wire::Token>(200),
        )
        .serve(
            &UPDATE,
            one,
            update,
            &Operation::new("updateToken", TAG, "Changes the given fields of a token")
                .takes(&CHANGE)
                .answers::<wire::Token>(200),
        )
        .serve(
            &[Method::Delete],
            one,
            delete,
            &Operation::new("deleteToken", TAG, "Deletes a token; it is void at once"),
        )
}

/// Tokens made from others, realms one by one, templates.
pub(crate) fn derived_surface(surface: Surface) -> Surface {
    surface
        .serve(
            &[Method::Post],
            &["/api/v1/auth/tokens/{id}/copy"],
            copy,
            &Operation::new(
                "copyToken",
                TAG,
                "Makes a token that may do the same; shows its secret",
            )
            .takes(&COPY)
            .answers::<wire::CreatedToken>(201),
        )
        .serve(
            &[Method::Post],
            &["/api/v1/auth/tokens/{id}/add-realm"],
            add_realm,
            &Operation::new("addTokenRealm", TAG, "Binds a token to one realm more")
                .takes(&REALM)
                .answers::<wire::Token>(200),
        )
        .serve(
            &[Method::Post],
            &["/api/v1/auth/tokens/{id}/remove-realm"],
            remove_realm,
            &Operation::new(
                "removeTokenRealm",
                TAG,
                "Frees a token from a realm, but not from its last one",
            )
            .takes(&REALM)
            .answers::<wire::Token>(200),
        )
        .serve(
            &[Method::Get],
            &["/api/v1/auth/tokens/templates"],
            templates,
            &Operation::new("listTokenTemplates", TAG, "Lists the named sets of permissions")
                .answers_list::<wire::TokenTemplate>(200),
        )
}

/// What tokens show of themselves.
pub(crate) fn profile_surface(surface: Surface) -> Surface {
    surface
        .serve(
            &UPDATE,
            &["/api/v1/auth/tokens/me/public-profile"],
            update_profile,
            &Operation::new(
                "updateOwnPublicProfile",
                TAG,
                "Changes what the token that the request came with shows of itself",
            )
            .takes(&PROFILE)
            .answers::<wire::Token>(200),
        )
        .serve(
            &[Method::Get],
            &["/api/v1/auth/tokens/public-profiles/{key}"],
            profile,
            &Operation::new(
                "getPublicProfile",
                TAG,
                "Shows what a token of any account shows under its public key",
            )
            .answers::<wire::PublicProfile>(200),
        )
}

/// The fields that creation and change have in common.
struct Common {
    alias: Option<String>,
    ip_whitelist: Option<Vec<String>>,
    permission_template: Option<String>,
    permissions: Option<Value>,
    realm_ids: Option<Vec<String>>,
    allow_no_realm: Option<bool>,
    vault_access: Option<bool>,
    event_access: Option<bool>,
    expires_at: Given<ExpiresAt>,
    profile: ProfileChange,
    otp_code: Option<String>,
}

impl Common {
    fn take(fields: &mut Fields) -> Self {
        Self {
            alias: fields.text("alias").value(),
            ip_whitelist: fields.mixed("ip_whitelist", addresses).value(),
            permission_template: fields.text("permission_template").value(),
            permissions: fields.object("permissions").value().map(Value::Object),
            realm_ids: fields.realms("realm_ids").value(),
            allow_no_realm: fields.flag("allow_no_realm").value(),
            vault_access: fields.flag("vault_access").value(),
            event_access: fields.flag("event_access").value(),
            expires_at: fields.expires_at("expires_at"),
            profile: profile_change(fields),
            otp_code: fields.text("otp_code").value(),
        }
    }
}

fn profile_change(fields: &mut Fields) -> ProfileChange {
    ProfileChange {
        public_key: fields.text("public_key").patch(),
        public_storage: fields.text("public_storage").patch(),
    }
}

/// An array, a string with commas, or `*`.
fn addresses(value: Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) if text.is_empty() => Some(Vec::new()),
        // Empty parts are kept, so that "," is refused and does not lift the restriction.
        Value::String(text) => Some(text.split(',').map(str::trim).map(str::to_owned).collect()),
        Value::Array(items) => {
            items.into_iter().map(|item| item.as_str().map(str::to_owned)).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}

async fn list(
    State(front): State<Front>,
    Caller(actor): Caller,
) -> Result<Answer<Vec<wire::Token>>, Problem> {
    let tokens = front.control.tokens(&actor).await?;
    let tokens = tokens.iter().map(wire::Token::new).collect();
    Ok(Answer::ok("Auth tokens retrieved successfully", tokens))
}

async fn create(
    State(front): State<Front>,
    Caller(actor): Caller,
    body: JsonObject,
) -> Result<Response, Problem> {
    let (new, code) = new_token(body)?;
    front.control.check_token_gate(&actor, code.as_deref()).await?;
    let (token, secret) = front.control.create_token(&actor, new).await?;
    Ok(shown_once(&token, secret))
}

/// The answer with the secret.
fn shown_once(token: &Token, secret: String) -> Response {
    let answer = |token: Option<String>, created| {
        Answer::created("Auth token created successfully", wire::CreatedToken { token, created })
    };
    let mut response = answer(Some(secret), wire::Token::new(token)).into_response();
    // The secret lies nowhere, so a repetition of this request shows the token without it.
    let kept = answer(None, wire::Token::new(token)).to_bytes();
    response.extensions_mut().insert(KeptInstead(Bytes::from(kept)));
    response
}

fn new_token(body: JsonObject) -> Result<(NewToken, Option<String>), Problem> {
    let mut fields = body.fields(&CREATE);
    let deny_reauthorization = fields.flag("deny_reauthorization").value().unwrap_or(false);
    let common = Common::take(&mut fields);
    let code = common.otp_code;
    let new = fields.finish(Some(NewToken {
        alias: common.alias,
        ip_whitelist: common.ip_whitelist.unwrap_or_default(),
        permission_template: common.permission_template,
        permissions: common.permissions,
        realm_ids: common.realm_ids.unwrap_or_default(),
        allow_no_realm: common.allow_no_realm,
        event_access: common.event_access,
        vault_access: common.vault_access,
        expires_at: common.expires_at.value(),
        is_enabled: None,
        profile: common.profile,
        deny_reauthorization,
    }))?;
    Ok((new, code))
}

async fn own(
    State(front): State<Front>,
    CallerAnywhere(actor): CallerAnywhere,
) -> Result<Answer<wire::TokenInUse>, Problem> {
    let token = front.control.own_token(&actor).await?;
    Ok(Answer::ok("Auth token retrieved successfully", wire::TokenInUse::new(&token, &actor)))
}

async fn show(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Token>,
) -> Result<Answer<wire::Token>, Problem> {
    let token = front.control.token(&actor, id).await?;
    Ok(Answer::ok("Auth token retrieved successfully", wire::Token::new(&token)))
}

async fn update(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Token>,
    body: JsonObject,
) -> Result<Answer<wire::Token>, Problem> {
    let (change, code) = token_change(body)?;
    front.control.check_token_gate(&actor, code.as_deref()).await?;
    let token = front.control.update_token(&actor, id, change).await?;
    Ok(Answer::ok("Auth token updated successfully", wire::Token::new(&token)))
}

fn token_change(body: JsonObject) -> Result<(TokenChange, Option<String>), Problem> {
    let mut fields = body.fields(&CHANGE);
    let is_enabled = fields.flag("is_enabled").value();
    let common = Common::take(&mut fields);
    let code = common.otp_code;
    let change = fields.finish(Some(TokenChange {
        alias: common.alias,
        ip_whitelist: common.ip_whitelist,
        permission_template: common.permission_template,
        permissions: common.permissions,
        realm_ids: common.realm_ids,
        allow_no_realm: common.allow_no_realm,
        event_access: common.event_access,
        vault_access: common.vault_access,
        expires_at: common.expires_at.patch(),
        is_enabled,
        profile: common.profile,
    }))?;
    Ok((change, code))
}

async fn delete(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Token>,
) -> Result<Answer<()>, Problem> {
    front.control.delete_token(&actor, id).await?;
    Ok(Answer::ok("Auth token deleted successfully", ()))
}

async fn copy(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Token>,
    body: JsonObject,
) -> Result<Response, Problem> {
    let mut fields = body.fields(&COPY);
    let code = fields.text("otp_code").value();
    let alias = fields.text("alias").value();
    let expires_at = fields.expires_at("expires_at").value();
    fields.finish(Some(()))?;
    front.control.check_token_gate(&actor, code.as_deref()).await?;
    let (token, secret) = front.control.copy_token(&actor, id, alias, expires_at).await?;
    Ok(shown_once(&token, secret))
}

/// The realm in a body, if its caller may change tokens.
async fn realm(front: &Front, actor: &Actor, body: JsonObject) -> Result<RealmId, Problem> {
    let mut fields = body.fields(&REALM);
    let code = fields.text("otp_code").value();
    let realm = fields.id("realm_id").value();
    let realm = fields.finish(realm)?;
    front.control.check_token_gate(actor, code.as_deref()).await?;
    Ok(realm)
}

async fn add_realm(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Token>,
    body: JsonObject,
) -> Result<Answer<wire::Token>, Problem> {
    let realm = realm(&front, &actor, body).await?;
    let token = front.control.add_token_realm(&actor, id, realm).await?;
    Ok(Answer::ok("Realm added successfully", wire::Token::new(&token)))
}

async fn remove_realm(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Token>,
    body: JsonObject,
) -> Result<Answer<wire::Token>, Problem> {
    let realm = realm(&front, &actor, body).await?;
    let token = front.control.remove_token_realm(&actor, id, realm).await?;
    Ok(Answer::ok("Realm removed successfully", wire::Token::new(&token)))
}

async fn update_profile(
    State(front): State<Front>,
    Caller(actor): Caller,
    body: JsonObject,
) -> Result<Answer<wire::Token>, Problem> {
    let mut fields = body.fields(&PROFILE);
    let change = profile_change(&mut fields);
    let change = fields.finish(Some(change))?;
    let token = front.control.update_own_profile(&actor, change).await?;
    Ok(Answer::ok("Public profile updated successfully", wire::Token::new(&token)))
}

async fn profile(
    State(front): State<Front>,
    Caller(actor): Caller,
    segments: Segments,
) -> Result<Answer<wire::PublicProfile>, Problem> {
    let profile = front.control.public_profile(&actor, segments.get("key")).await?;
    let profile = wire::PublicProfile::new(profile);
    Ok(Answer::ok("Public profile retrieved successfully", profile))
}

async fn templates(Caller(actor): Caller) -> Result<Answer<Vec<wire::TokenTemplate>>, Problem> {
    actor.require_session().map_err(Error::from)?;
    let templates = Permissions::TEMPLATES
        .iter()
        .filter_map(|name| Some(wire::TokenTemplate::new(name, Permissions::template(name)?)));
    Ok(Answer::ok("Templates retrieved successfully", templates.collect()))
}
