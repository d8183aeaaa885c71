//! The second factor of logins.

use gantry_control as control;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Session, Timestamp};

/// How a login ended.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum LoggedIn {
    Session(Box<Session>),
    NeedsCode(NeedsCode),
}

/// The password is right; the session is opened by a code and this token.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NeedsCode {
    /// Always true.
    pub(crate) requires_2fa: bool,
    /// Stands for the password for five minutes.
    pub(crate) temp_token: String,
    /// Always `totp`.
    pub(crate) method: &'static str,
}

/// What an authenticator app is given, and codes for when it is lost.
#[derive(Serialize, ToSchema)]
pub(crate) struct TwoFactorSetup {
    /// `otpauth_url` as a picture: a data URL of an SVG.
    pub(crate) qr_code: String,
    /// The secret in base32.
    pub(crate) manual_entry_key: String,
    pub(crate) otpauth_url: String,
    /// Each is good once.
    pub(crate) backup_codes: Vec<String>,
}

/// A second factor that logins need from now on.
#[derive(Serialize, ToSchema)]
pub(crate) struct TwoFactorEnabled {
    /// Always true.
    enabled: bool,
    enabled_at: Timestamp,
    #[serde(flatten)]
    session: InPlace,
}

/// A second factor is gone.
#[derive(Serialize, ToSchema)]
pub(crate) struct TwoFactorDisabled {
    #[serde(flatten)]
    session: InPlace,
}

/// The session in the place of all that have ended.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct InPlace {
    token: String,
    refresh_token: String,
    /// Always true.
    #[serde(rename = "sessions_revoked")]
    sessions_revoked: bool,
}

/// What there is of a second factor.
#[derive(Serialize, ToSchema)]
pub(crate) struct TwoFactorStatus {
    enabled: bool,
    /// The same.
    verified: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    enabled_at: Option<Timestamp>,
    backup_codes_remaining: u64,
    require_for_tokens: bool,
}

/// Codes in the place of the app's, each good once.
#[derive(Serialize, ToSchema)]
pub(crate) struct BackupCodes {
    pub(crate) backup_codes: Vec<String>,
}

/// Whether sessions make and change tokens with a code only.
#[derive(Serialize, ToSchema)]
pub(crate) struct TokenGate {
    pub(crate) require_for_tokens: bool,
}

impl TwoFactorEnabled {
    pub(crate) fn new(session: &control::Session, at_ms: i64) -> Self {
        Self { enabled: true, enabled_at: Timestamp(at_ms), session: InPlace::new(session) }
    }
}

impl TwoFactorDisabled {
    pub(crate) fn new(session: &control::Session) -> Self {
        Self { session: InPlace::new(session) }
    }
}

impl InPlace {
    fn new(session: &control::Session) -> Self {
        Self {
            token: session.access.clone(),
            refresh_token: session.refresh.clone(),
            sessions_revoked: true,
        }
    }
}

impl TwoFactorStatus {
    pub(crate) fn new(status: &control::TwoFactorStatus) -> Self {
        let enabled = status.enabled_at_ms.is_some();
        Self {
            enabled,
            verified: enabled,
            enabled_at: status.enabled_at_ms.map(Timestamp),
            backup_codes_remaining: status.backup_codes,
            require_for_tokens: status.gates_tokens,
        }
    }
}
