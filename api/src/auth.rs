//! Login, refresh, logout and the caller's own account.

use std::net::IpAddr;

use axum::{Extension, extract::State};
use gantry_control::{Error, LoggedIn, Session, Unauthenticated, Via};
use gantry_model::{FieldError, UserId};
use http::{HeaderMap, header};

use crate::{
    Front,
    answer::Answer,
    body::JsonObject,
    caller::{Address, Caller, Realm, Signature, Signed, Told},
    fields::{Field, Given, Holds},
    problem::Problem,
    surface::{Method, Operation, Surface},
    wire,
};

const TAG: &str = "Authentication";

const LOGIN_PATH: &str = "/api/v1/users/auth/login";
/// The second half of a login.
pub(crate) const VERIFY_PATH: &str = "/api/v1/users/auth/2fa/verify";
/// How many logins of before an answer to one shows.
const RECENT_LOGINS: u32 = 5;

static LOGIN: [Field; 7] = [
    Field::new("username", Holds::Text { min: 3, max: 50 }, "The account's name"),
    Field::new("email", Holds::Text { min: 1, max: 255 }, "Accepted; accounts have no e-mail"),
    Field::new("password", Holds::Text { min: 8, max: 128 }, "The account's password").required(),
    Field::new("client", Holds::Text { min: 0, max: 64 }, "What kind of client logs in"),
    Field::new("response_mode", Holds::Text { min: 0, max: 64 }, "Only `tokens`"),
    Field::new("code_challenge", Holds::Text { min: 0, max: 255 }, "Accepted and not used"),
    Field::new("totp_code", Holds::Text { min: 0, max: 64 }, "Accepted and not used"),
];

static REFRESH: [Field; 1] = [Field::new(
    "refreshToken",
    Holds::Text { min: 1, max: 4096 },
    "The refresh token of the session; the Authorization header is looked at when it is missing",
)];

static LOGOUT: [Field; 0] = [];

pub(crate) fn surface(surface: Surface) -> Surface {
    let post = &[Method::Post];
    surface
        .serve(
            post,
            &[LOGIN_PATH],
            login,
            &Operation::new(
                "login",
                TAG,
                "Opens a session, or asks for a code of the second factor",
            )
            .public()
            .takes(&LOGIN)
            .answers::<wire::LoggedIn>(200),
        )
        .serve(
            post,
            &["/api/v1/users/auth/refresh"],
            refresh,
            &Operation::new("refreshSession", TAG, "Opens a new session for one that ends soon")
                .public()
                .takes(&REFRESH)
                .answers::<wire::Renewed>(200),
        )
        .serve(
            post,
            &["/api/v1/users/auth/logout"],
            logout,
            &Operation::new(
                "logout",
                TAG,
                "Ends every session of the account; tokens stay, and may not ask for it",
            )
            .takes(&LOGOUT),
        )
        .serve(
            &[Method::Get],
            &["/api/v1/users/auth/me", "/api/v1/users/me"],
            me,
            &Operation::new("getCurrentUser", TAG, "Shows the caller's account")
                .answers::<wire::Me>(200),
        )
}

async fn login(
    State(front): State<Front>,
    Address(address): Address,
    realm: Option<Extension<Realm>>,
    signature: Option<Extension<Signature>>,
    body: JsonObject,
) -> Result<Answer<wire::LoggedIn>, Problem> {
    let mut fields = body.fields(&LOGIN);
    let username = fields.text("username").value();
    let email = fields.text("email").value();
    let password = fields.text("password").value();
    for ignored in ["client", "code_challenge", "totp_code"] {
        fields.ignore_text(ignored);
    }
    if let Given::Value(mode) = fields.text("response_mode")
        && mode != "tokens"
    {
        fields.unsupported("response_mode", "only \"tokens\" is offered");
    }
    // The field is named in `data` where both are missing, so that a form can mark it.
    if username.is_none() && email.is_none() {
        fields.refuse_all([FieldError::new("username", "is required")]);
    }
    let password = fields.finish(password)?;
    // Accounts have no e-mail addresses, so one is tried as a name: right or wrong, the answer and
    // the time it takes do not tell whether an account exists.
    let name = username.or(email).unwrap_or_default();
    match front.control.login(&name, &password, address).await? {
        LoggedIn::Session(session) => {
            note(signature, realm, (session.account.id, &session.account.username), Told::User);
            let opened = opened(&front, &session, address).await?;
            Ok(Answer::ok("Login successful", wire::LoggedIn::Session(Box::new(opened))))
        }
        LoggedIn::NeedsCode { half, temp_token } => {
            // No login yet, and not to be taken for one in the security history.
            note(signature, realm, (half.user(), half.username()), Told::OperatorOnly);
            let asked = wire::NeedsCode { requires_2fa: true, temp_token, method: "totp" };
            Ok(Answer::ok("A code is needed besides", wire::LoggedIn::NeedsCode(asked)))
        }
    }
}

/// Says for the audit line whose request it is.
pub(crate) fn note(
    signature: Option<Extension<Signature>>,
    realm: Option<Extension<Realm>>,
    (user, username): (UserId, &str),
    told: Told,
) {
    if let Some(Extension(Signature(slot))) = signature {
        slot.get_or_init(|| Signed {
            username: username.to_owned(),
            user,
            token: None,
            realm: realm.and_then(|Extension(Realm(realm))| realm),
            told,
        });
    }
}

/// What a login answers.
pub(crate) async fn opened(
    front: &Front,
    session: &Session,
    address: Option<IpAddr>,
) -> Result<wire::Session, Problem> {
    let user = session.account.id;
    let logins = front.control.last_good(user, &[LOGIN_PATH, VERIFY_PATH], RECENT_LOGINS).await?;
    let tokens = front.control.count_tokens(user).await?;
    Ok(wire::Session::new(session, address, &logins, tokens))
}

async fn refresh(
    State(front): State<Front>,
    headers: HeaderMap,
    body: JsonObject,
) -> Result<Answer<wire::Renewed>, Problem> {
    let mut fields = body.fields(&REFRESH);
    let given = fields.text("refreshToken").value();
    let given = fields.finish(Some(given))?;
    // The clients send their stale access token as bearer beside the body; only where the body has
    // none is the header meant to be the refresh token.
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = given.as_deref().or(bearer).ok_or_else(|| Error::from(Unauthenticated::Refresh))?;
    let session = front.control.refresh(token).await?;
    Ok(Answer::ok("Token refreshed successfully", wire::Renewed::new(&session)))
}

async fn logout(
    State(front): State<Front>,
    Caller(actor): Caller,
    body: JsonObject,
) -> Result<Answer<()>, Problem> {
    body.expect_none()?;
    front.control.logout(&actor).await?;
    Ok(Answer::ok("Logout successful", ()))
}

async fn me(
    State(front): State<Front>,
    Caller(actor): Caller,
) -> Result<Answer<wire::Me>, Problem> {
    let account = front.control.me(&actor).await?;
    let token = match actor.via {
        Via::Token { .. } => Some(front.control.own_token(&actor).await?),
        Via::Session { .. } | Via::Password => None,
    };
    let in_use = token.map(|token| wire::TokenInUse::new(&token, &actor));
    Ok(Answer::ok("User retrieved successfully", wire::Me::new(&account, &actor, in_use)))
}
