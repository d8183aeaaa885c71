//! The second factor of logins: codes of an authenticator app (TOTP, RFC 6238), and backup codes in their place.
//!
//! A code is good in its half minute, the one before and the one after, and once. Five wrong ones lock the [`Door`] that
//! they came to for a quarter of an hour, and for twice as long each time until one is right; who knows neither the
//! password nor has a session gets no attempt, and what has not the form of a code is none. The secret lies sealed in
//! the store, backup codes as keyed hashes.

use std::{net::IpAddr, time::Duration};

use gantry_model::UserId;
use gantry_store::{Attempt, Door, SecondFactor, Shown, User};
use hmac::{Hmac, KeyInit as _, Mac as _};
use qrcode::{QrCode, render::svg};
use sha2::Sha256;
use totp_rs::{Secret, Totp};

use crate::{
    actor::{Actor, Via},
    controller::Controller,
    error::{During, Error, Forbidden, Result, Thing, TwoFactorError, Unauthenticated},
    random,
    session::{Session, Sort},
};

/// How many backup codes an account has at first.
const BACKUP_CODES: usize = 10;
/// How long one is.
const BACKUP_CODE_LEN: usize = 10;
/// What they are written with: nothing that looks like something else. A power of two, so that each is as likely.
const LETTERS: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz023456789";
/// How long a code of the app is.
const APP_CODE_LEN: usize = 6;
/// The longest code that comes with another request, in characters.
const OTP_CODE_MAX: usize = 12;
/// The octets of a secret, as RFC 4226 recommends.
const SECRET_LEN: usize = 20;

/// How a login ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoggedIn {
    /// With a session.
    Session(Box<Session>),
    /// The password is right, and a code is needed besides.
    NeedsCode {
        /// Whose password it is.
        half: HalfLogin,
        /// What stands for the password while the code is asked for.
        temp_token: String,
    },
}

/// A login whose password was right and whose code has not been shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HalfLogin(User);

impl HalfLogin {
    /// Whose it is.
    pub const fn user(&self) -> UserId {
        self.0.id
    }

    /// The account's name.
    pub fn username(&self) -> &str {
        &self.0.username
    }
}

/// What somebody shows for a code, by its form.
enum Code {
    App(String),
    Backup(String),
}

impl Code {
    /// Without the blanks and hyphens that people write into it. What can be no code is refused here: it is no guess,
    /// and a slip of the finger costs no attempt.
    fn parse(field: &str, text: &str) -> Result<Self> {
        let code: String = text.chars().filter(|letter| !matches!(letter, ' ' | '-')).collect();
        let code = code.to_ascii_lowercase();
        let is =
            |len, of: &[u8]| code.len() == len && code.bytes().all(|octet| of.contains(&octet));
        if is(APP_CODE_LEN, b"0123456789") {
            Ok(Self::App(code))
        } else if is(BACKUP_CODE_LEN, LETTERS) {
            Ok(Self::Backup(code))
        } else {
            let rule = format!(
                "must be the {APP_CODE_LEN} digits that the authenticator app shows, or a backup code, which has \
                 {BACKUP_CODE_LEN} letters and digits"
            );
            Err(Error::invalid(field, rule))
        }
    }
}

/// What an authenticator app is given, shown once.
#[derive(Clone, PartialEq, Eq)]
pub struct Enrollment {
    /// The secret in base32, for typing.
    pub secret: String,
    /// The secret and all else as a URL of the scheme `otpauth`.
    pub url: String,
    /// That as a picture: a QR code, in SVG.
    pub qr_svg: String,
    /// Codes for when the app is lost, each good once.
    pub backup_codes: Vec<String>,
}

impl std::fmt::Debug for Enrollment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without any of it: this text may reach a log.
        f.debug_struct("Enrollment").finish_non_exhaustive()
    }
}

/// What there is of a second factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TwoFactorStatus {
    /// Since when logins need it, in milliseconds since the epoch.
    pub enabled_at_ms: Option<i64>,
    /// How many backup codes are left.
    pub backup_codes: u64,
    /// Whether tokens are made and changed with a code only.
    pub gates_tokens: bool,
}

impl Controller {
    /// Whose login waits for a code: `temp_token` is what its first half answered.
    pub async fn half_login(&self, temp_token: &str) -> Result<HalfLogin> {
        let gone = Unauthenticated::TempToken;
        let proof = self.inner.sessions.verify(temp_token, Sort::Pending, self.now_ms());
        let user = self.user_of(proof.map_err(|_why| gone)?).await?.ok_or(gone)?;
        Ok(HalfLogin(user))
    }

    /// The second half of a login.
    pub async fn complete_login(&self, HalfLogin(user): &HalfLogin, code: &str) -> Result<Session> {
        let code = Code::parse("code", code)?;
        self.check_code(user, Door::Password, &code).await?;
        self.open_session(user, user.session_generation).await
    }

    /// How a login with the right password goes on.
    pub(crate) async fn logged_in(&self, user: User) -> Result<LoggedIn> {
        if self.enabled_factor(user.id).await?.is_some() {
            let generation = user.session_generation;
            let temp_token = self.inner.sessions.pending(user.id, generation, self.now_ms())?;
            return Ok(LoggedIn::NeedsCode { half: HalfLogin(user), temp_token });
        }
        let session = self.open_session(&user, user.session_generation).await?;
        Ok(LoggedIn::Session(Box::new(session)))
    }

    /// Makes a secret and backup codes for the actor; logins need them once a code was shown to
    /// [`Controller::enable_two_factor`].
    pub async fn begin_two_factor(
        &self,
        actor: &Actor,
        password: &str,
        client: Option<IpAddr>,
    ) -> Result<Enrollment> {
        actor.require_session()?;
        let user = self.check_login(&actor.username, password, client).await?;
        let secret = random::bytes::<SECRET_LEN>()?;
        let sealed = self.inner.sealing.seal(&context(user.id), &secret)?;
        let (backup_codes, hashes) = self.new_backup_codes(user.id)?;
        let begun = self.store().begin_second_factor(user.id, &sealed, &hashes).await;
        begun.map_err(|error| {
            let is_enabled = matches!(error, gantry_store::Error::IdTaken);
            if is_enabled { TwoFactorError::Enabled.into() } else { of_factor(error) }
        })?;
        let issuer = format!("Gantry ({})", self.domain());
        let totp = totp_rs::Builder::new()
            .with_secret(Secret::from(secret))
            .with_issuer(Some(issuer))
            .with_account_name(user.username)
            .build()
            .map_err(|error| Error::internal(error.to_string()))?;
        let url = totp.to_url().map_err(|error| Error::internal(error.to_string()))?;
        let picture = QrCode::new(&url).map_err(|error| Error::internal(error.to_string()))?;
        Ok(Enrollment {
            secret: totp.secret().to_base32(),
            qr_svg: picture.render::<svg::Color<'_>>().min_dimensions(240, 240).build(),
            url,
            backup_codes,
        })
    }

    /// Has logins of the actor need a code from now on, if this is one. It ends all sessions; the answer is a new one,
    /// and when it was.
    pub async fn enable_two_factor(&self, actor: &Actor, code: &str) -> Result<(Session, i64)> {
        actor.require_session()?;
        let code = Code::parse("code", code)?;
        if let Code::Backup(_) = code {
            let rule =
                format!("must be the {APP_CODE_LEN} digits that the authenticator app shows");
            return Err(Error::invalid("code", rule));
        }
        let user = self.own_user(actor).await?;
        let Some(begun) = self.store().second_factor(user.id).await? else {
            return Err(TwoFactorError::NotBegun.into());
        };
        if begun.enabled_at_ms.is_some() {
            return Err(TwoFactorError::Enabled.into());
        }
        let (shown, wrong) = self.try_code(&user, Door::Session, &code).await?;
        let Shown::Step(step) = shown else { return Err(wrong) };
        let now_ms = self.now_ms();
        let generation = self.store().enable_second_factor(user.id, step, now_ms).await?;
        let generation = generation.ok_or(wrong)?;
        Ok((self.open_session(&user, generation).await?, now_ms))
    }

    /// What the actor has of a second factor.
    pub async fn two_factor_status(&self, actor: &Actor) -> Result<TwoFactorStatus> {
        actor.require_session()?;
        let factor = self.enabled_factor(actor.user).await?;
        Ok(TwoFactorStatus {
            enabled_at_ms: factor.as_ref().and_then(|factor| factor.enabled_at_ms),
            backup_codes: factor.as_ref().map_or(0, |factor| factor.backup_codes),
            gates_tokens: factor.is_some_and(|factor| factor.gates_tokens),
        })
    }

    /// Takes the actor's second factor away, by password and code. It ends all sessions; the answer is a new one.
    pub async fn disable_two_factor(
        &self,
        actor: &Actor,
        password: &str,
        code: &str,
        client: Option<IpAddr>,
    ) -> Result<Session> {
        let code = Code::parse("code", code)?;
        let user = self.check_both(actor, password, &code, client).await?;
        let generation = self.remove_factor(user.id).await?;
        self.open_session(&user, generation).await
    }

    /// Takes the second factor of another's account away, who has lost it. Only for administrators.
    pub async fn remove_two_factor(&self, actor: &Actor, id: UserId) -> Result<()> {
        actor.require_admin()?;
        if id == actor.user {
            return Err(Forbidden::OwnFactor.into());
        }
        self.account(actor, id).await?;
        self.remove_factor(id).await.map(drop)
    }

    /// New backup codes in the place of all others, by password and code.
    pub async fn renew_backup_codes(
        &self,
        actor: &Actor,
        password: &str,
        code: &str,
        client: Option<IpAddr>,
    ) -> Result<Vec<String>> {
        let code = Code::parse("code", code)?;
        let user = self.check_both(actor, password, &code, client).await?;
        let (codes, hashes) = self.new_backup_codes(user.id)?;
        let set = self.store().set_backup_codes(user.id, &hashes, self.now_ms()).await;
        set.map_err(of_factor)?;
        Ok(codes)
    }

    /// Has the actor's tokens be made and changed with a code only, or, by password and code, without.
    pub async fn set_token_gate(
        &self,
        actor: &Actor,
        on: bool,
        (password, code): (Option<&str>, Option<&str>),
        client: Option<IpAddr>,
    ) -> Result<()> {
        actor.require_session()?;
        check_len(code)?;
        if self.enabled_factor(actor.user).await?.is_none() {
            return Err(TwoFactorError::NotEnabled.into());
        }
        if !on {
            let need = |field: &str, given: Option<&str>| {
                let rule = "is required to have tokens made without a code";
                given.map(str::to_owned).ok_or_else(|| Error::invalid(field, rule))
            };
            let (password, code) = (need("password", password)?, need("otp_code", code)?);
            let code = Code::parse("otp_code", &code)?;
            self.check_both(actor, &password, &code, client).await?;
        }
        let set = self.store().set_token_gate(actor.user, on, self.now_ms()).await;
        set.map_err(of_factor)
    }

    /// What making and changing tokens needs besides where the actor's account says so: a code. A token that makes
    /// tokens has none to show.
    pub async fn check_token_gate(&self, actor: &Actor, code: Option<&str>) -> Result<()> {
        check_len(code)?;
        match actor.via {
            Via::Session { .. } | Via::Password => {}
            Via::Token { .. } => return Ok(()),
        }
        let gated =
            self.enabled_factor(actor.user).await?.is_some_and(|factor| factor.gates_tokens);
        if !gated {
            return Ok(());
        }
        let rule = "is required: the account has two-factor authentication for its tokens";
        let code = code.ok_or_else(|| Error::invalid("otp_code", rule))?;
        let code = Code::parse("otp_code", code)?;
        let user = self.own_user(actor).await?;
        self.check_code(&user, Door::Session, &code).await
    }

    /// Refuses a password that comes alone for an account that needs more.
    pub(crate) async fn refuse_password_alone(&self, user: UserId) -> Result<()> {
        match self.enabled_factor(user).await? {
            Some(_) => Err(Forbidden::PasswordAlone.into()),
            None => Ok(()),
        }
    }

    async fn check_both(
        &self,
        actor: &Actor,
        password: &str,
        code: &Code,
        client: Option<IpAddr>,
    ) -> Result<User> {
        actor.require_session()?;
        if self.enabled_factor(actor.user).await?.is_none() {
            return Err(TwoFactorError::NotEnabled.into());
        }
        let user = self.check_login(&actor.username, password, client).await?;
        self.check_code(&user, Door::Password, code).await?;
        Ok(user)
    }

    /// Whether this is a code of the account, which is used up then.
    async fn check_code(&self, user: &User, door: Door, code: &Code) -> Result<()> {
        let (shown, wrong) = self.try_code(user, door, code).await?;
        let is_new = self.store().use_second_factor(user.id, door, shown).await?;
        if is_new { Ok(()) } else { Err(wrong) }
    }

    /// Counts an attempt and says what a code is, without using it up, and what to answer if it cannot be used. Of a
    /// backup code it shows only then whether there is one.
    async fn try_code(&self, user: &User, door: Door, code: &Code) -> Result<(Shown, Error)> {
        let now_ms = self.now_ms();
        let attempt = self.store().try_second_factor(user.id, door, now_ms).await;
        let attempt = attempt.map_err(of_factor)?;
        let (factor, locks_ms) = match attempt {
            Attempt::Counted { factor, locks_ms } => (factor, locks_ms),
            Attempt::Locked { until_ms } => return Err(locked(until_ms.saturating_sub(now_ms))),
        };
        let wrong = locks_ms.map_or_else(|| Unauthenticated::Code.into(), locked);
        let code = match code {
            Code::App(code) => code,
            Code::Backup(code) => {
                return Ok((Shown::Backup(self.backup_hash(user.id, code)?), wrong));
            }
        };
        let totp = self.totp(user.id, &factor)?;
        let seconds = u64::try_from(now_ms.div_euclid(1000)).map_err(Error::internal)?;
        match totp.check(code, seconds).filter(|step| *step > factor.last_step) {
            Some(step) => Ok((Shown::Step(step), wrong)),
            None => Err(wrong),
        }
    }

    fn totp(&self, user: UserId, factor: &SecondFactor) -> Result<Totp> {
        let secret = self.inner.sealing.open(&context(user), &factor.secret)?;
        totp_rs::Builder::new()
            .with_secret(Secret::from(secret))
            .build()
            .map_err(|error| Error::internal(error.to_string()))
    }

    async fn enabled_factor(&self, user: UserId) -> Result<Option<SecondFactor>> {
        let factor = self.store().second_factor(user).await?;
        Ok(factor.filter(|factor| factor.enabled_at_ms.is_some()))
    }

    async fn remove_factor(&self, user: UserId) -> Result<u64> {
        let removed = self.store().remove_second_factor(user, self.now_ms()).await;
        removed.map_err(of_factor)
    }

    async fn own_user(&self, actor: &Actor) -> Result<User> {
        let user = self.store().user(actor.user).await?;
        user.ok_or_else(|| Unauthenticated::Invalid.into())
    }

    fn new_backup_codes(&self, user: UserId) -> Result<(Vec<String>, Vec<[u8; 32]>)> {
        let mut codes = Vec::with_capacity(BACKUP_CODES);
        let mut hashes = Vec::with_capacity(BACKUP_CODES);
        for _ in 0..BACKUP_CODES {
            let octets = random::bytes::<BACKUP_CODE_LEN>()?;
            let letter = |octet: u8| LETTERS.get(usize::from(octet & 31)).copied().map(char::from);
            let code: String = octets.into_iter().filter_map(letter).collect();
            hashes.push(self.backup_hash(user, &code)?);
            codes.push(code);
        }
        Ok((codes, hashes))
    }

    /// Looked up by it, so that no comparison takes longer the more of a guess is right.
    fn backup_hash(&self, user: UserId, code: &str) -> Result<[u8; 32]> {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.inner.pepper).map_err(Error::internal)?;
        mac.update(b"gantry backup code 1 ");
        mac.update(user.as_bytes());
        mac.update(code.as_bytes());
        Ok(mac.finalize().into_bytes().into())
    }
}

fn check_len(code: Option<&str>) -> Result<()> {
    match code {
        Some(code) if code.chars().count() > OTP_CODE_MAX => {
            Err(Error::invalid("otp_code", format!("must be at most {OTP_CODE_MAX} characters")))
        }
        Some(_) | None => Ok(()),
    }
}

/// What a store's refusal means for a second factor.
fn of_factor(error: gantry_store::Error) -> Error {
    if matches!(error, gantry_store::Error::NotFound) {
        TwoFactorError::NotEnabled.into()
    } else {
        Error::of_write(error, Thing::User, During::Update)
    }
}

fn locked(left_ms: i64) -> Error {
    let seconds = u64::try_from(left_ms).unwrap_or(0).div_ceil(1000).max(1);
    TwoFactorError::Locked { retry_after: Duration::from_secs(seconds) }.into()
}

/// What a secret is sealed for.
fn context(user: UserId) -> Vec<u8> {
    [b"gantry second factor 1 ".as_slice(), user.as_bytes()].concat()
}
