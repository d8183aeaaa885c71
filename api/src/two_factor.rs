//! The second factor of logins.

use axum::{Extension, extract::State};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use gantry_model::id::kind;

use crate::{
    Front,
    answer::Answer,
    auth,
    body::JsonObject,
    caller::{Address, Caller, PathId, Realm, Signature, Told},
    fields::{Field, Given, Holds},
    problem::Problem,
    surface::{Method, Operation, Surface, UPDATE},
    wire,
};

const TAG: &str = "Authentication";

const PASSWORD: Field =
    Field::new("password", Holds::Text { min: 8, max: 128 }, "The account's password").required();
const CODE: Field = Field::new(
    "code",
    Holds::Text { min: 6, max: 64 },
    "The authenticator app's code of six digits, or a backup code",
)
.required();
const APP_CODE: Field = Field::new(
    "code",
    Holds::Text { min: 6, max: 64 },
    "The authenticator app's code of six digits",
)
.required();

static VERIFY: [Field; 4] = [
    Field::new("temp_token", Holds::Text { min: 1, max: 4096 }, "What the login answered")
        .required(),
    CODE,
    Field::new("client", Holds::Text { min: 0, max: 64 }, "What kind of client logs in"),
    Field::new("response_mode", Holds::Text { min: 0, max: 64 }, "Only `tokens`"),
];
static SETUP: [Field; 1] = [PASSWORD];
static ENABLE: [Field; 1] = [APP_CODE];
static BOTH: [Field; 2] = [PASSWORD, CODE];
static GATE: [Field; 3] = [
    Field::new("enabled", Holds::Flag, "Whether sessions make and change tokens with a code only")
        .required(),
    Field::new(
        "password",
        Holds::Text { min: 8, max: 128 },
        "The account's password; needed for false",
    ),
    Field::new(
        "otp_code",
        Holds::Text { min: 0, max: 12 },
        "A code or backup code; needed for false",
    ),
];

pub(crate) fn surface(surface: Surface) -> Surface {
    let post = &[Method::Post];
    ending(surface)
        .serve(
            post,
            &[auth::VERIFY_PATH],
            verify,
            &Operation::new("verifyTwoFactor", TAG, "Opens the session that a login needs a code for")
                .public()
                .takes(&VERIFY)
                .answers::<wire::Session>(200),
        )
        .serve(
            post,
            &["/api/v1/users/auth/2fa/setup"],
            setup,
            &Operation::new(
                "beginTwoFactor",
                TAG,
                "Makes a secret for an authenticator app and backup codes, shown this once; logins need \
                 them once a code was verified",
            )
            .takes(&SETUP)
            .answers::<wire::TwoFactorSetup>(200),
        )
        .serve(
            post,
            &["/api/v1/users/auth/2fa/verify-setup"],
            enable,
            &Operation::new(
                "enableTwoFactor",
                TAG,
                "Has logins need a code from now on; ends all sessions and opens a new one",
            )
            .takes(&ENABLE)
            .answers::<wire::TwoFactorEnabled>(200),
        )
}

/// What there is of a second factor, and its end.
fn ending(surface: Surface) -> Surface {
    surface
        .serve(
            &[Method::Get],
            &["/api/v1/users/auth/2fa/status"],
            status,
            &Operation::new("getTwoFactorStatus", TAG, "Says whether logins need a code")
                .answers::<wire::TwoFactorStatus>(200),
        )
        .serve(
            &[Method::Delete],
            &["/api/v1/users/auth/2fa"],
            disable,
            &Operation::new(
                "disableTwoFactor",
                TAG,
                "Has logins need no code; ends all sessions and opens a new one",
            )
            .takes(&BOTH)
            .answers::<wire::TwoFactorDisabled>(200),
        )
        .serve(
            &[Method::Post],
            &["/api/v1/users/auth/2fa/backup-codes/regenerate"],
            renew,
            &Operation::new(
                "renewBackupCodes",
                TAG,
                "Makes backup codes in the place of all others, shown this once",
            )
            .takes(&BOTH)
            .answers::<wire::BackupCodes>(200),
        )
        .serve(
            &UPDATE,
            &["/api/v1/users/auth/2fa/token-gate"],
            gate,
            &Operation::new(
                "setTokenGate",
                TAG,
                "Says whether sessions make and change tokens with a code only",
            )
            .takes(&GATE)
            .answers::<wire::TokenGate>(200),
        )
        .serve(
            &[Method::Delete],
            &["/api/v1/users/{id}/2fa"],
            remove,
            &Operation::new(
                "removeTwoFactor",
                TAG,
                "Takes the second factor of an account away, for whoever has lost it; only for \
                 administrators",
            ),
        )
}

async fn verify(
    State(front): State<Front>,
    Address(address): Address,
    realm: Option<Extension<Realm>>,
    signature: Option<Extension<Signature>>,
    body: JsonObject,
) -> Result<Answer<wire::Session>, Problem> {
    let mut fields = body.fields(&VERIFY);
    let token = fields.text("temp_token").value();
    let code = fields.text("code").value();
    fields.ignore_text("client");
    if let Given::Value(mode) = fields.text("response_mode")
        && mode != "tokens"
    {
        fields.unsupported("response_mode", "only \"tokens\" is offered");
    }
    let (token, code) = fields.finish(token.zip(code))?;
    let half = front.control.half_login(&token).await?;
    // Before the code is looked at: whose password it is sees in the security history that somebody tries codes.
    auth::note(signature, realm, (half.user(), half.username()), Told::User);
    let session = front.control.complete_login(&half, &code).await?;
    let opened = auth::opened(&front, &session, address).await?;
    Ok(Answer::ok("Login successful", opened))
}

async fn setup(
    State(front): State<Front>,
    Caller(actor): Caller,
    Address(address): Address,
    body: JsonObject,
) -> Result<Answer<wire::TwoFactorSetup>, Problem> {
    let mut fields = body.fields(&SETUP);
    let password = fields.text("password").value();
    let password = fields.finish(password)?;
    let begun = front.control.begin_two_factor(&actor, &password, address).await?;
    let picture = format!("data:image/svg+xml;base64,{}", STANDARD.encode(&begun.qr_svg));
    let shown = wire::TwoFactorSetup {
        qr_code: picture,
        manual_entry_key: begun.secret,
        otpauth_url: begun.url,
        backup_codes: begun.backup_codes,
    };
    Ok(Answer::ok("Show a code of the app to /users/auth/2fa/verify-setup to complete it", shown))
}

async fn enable(
    State(front): State<Front>,
    Caller(actor): Caller,
    body: JsonObject,
) -> Result<Answer<wire::TwoFactorEnabled>, Problem> {
    let mut fields = body.fields(&ENABLE);
    let code = fields.text("code").value();
    let code = fields.finish(code)?;
    let (session, at_ms) = front.control.enable_two_factor(&actor, &code).await?;
    let enabled = wire::TwoFactorEnabled::new(&session, at_ms);
    Ok(Answer::ok("Two-factor authentication enabled successfully", enabled))
}

async fn status(
    State(front): State<Front>,
    Caller(actor): Caller,
) -> Result<Answer<wire::TwoFactorStatus>, Problem> {
    let status = front.control.two_factor_status(&actor).await?;
    let status = wire::TwoFactorStatus::new(&status);
    Ok(Answer::ok("Two-factor authentication status retrieved successfully", status))
}

fn both(body: JsonObject) -> Result<(String, String), Problem> {
    let mut fields = body.fields(&BOTH);
    let password = fields.text("password").value();
    let code = fields.text("code").value();
    fields.finish(password.zip(code))
}

async fn disable(
    State(front): State<Front>,
    Caller(actor): Caller,
    Address(address): Address,
    body: JsonObject,
) -> Result<Answer<wire::TwoFactorDisabled>, Problem> {
    let (password, code) = both(body)?;
    let session = front.control.disable_two_factor(&actor, &password, &code, address).await?;
    let disabled = wire::TwoFactorDisabled::new(&session);
    Ok(Answer::ok("Two-factor authentication disabled successfully", disabled))
}

async fn renew(
    State(front): State<Front>,
    Caller(actor): Caller,
    Address(address): Address,
    body: JsonObject,
) -> Result<Answer<wire::BackupCodes>, Problem> {
    let (password, code) = both(body)?;
    let backup_codes = front.control.renew_backup_codes(&actor, &password, &code, address).await?;
    let codes = wire::BackupCodes { backup_codes };
    Ok(Answer::ok("Backup codes regenerated successfully", codes))
}

async fn gate(
    State(front): State<Front>,
    Caller(actor): Caller,
    Address(address): Address,
    body: JsonObject,
) -> Result<Answer<wire::TokenGate>, Problem> {
    let mut fields = body.fields(&GATE);
    let on = fields.flag("enabled").value();
    let password = fields.text("password").value();
    let code = fields.text("otp_code").value();
    let on = fields.finish(on)?;
    let proof = (password.as_deref(), code.as_deref());
    front.control.set_token_gate(&actor, on, proof, address).await?;
    let gate = wire::TokenGate { require_for_tokens: on };
    Ok(Answer::ok("Token gate updated successfully", gate))
}

async fn remove(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::User>,
    body: JsonObject,
) -> Result<Answer<()>, Problem> {
    body.expect_none()?;
    front.control.remove_two_factor(&actor, id).await?;
    Ok(Answer::ok("Two-factor authentication removed successfully", ()))
}
