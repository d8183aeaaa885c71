//! Who asks: accounts, logins and the credentials that come with each request.

use std::{collections::BTreeMap, net::IpAddr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use gantry_model::{RealmId, UserId};
use gantry_store::{AccountLimits, AccountUse, Profile, User};

use crate::{
    actor::{Actor, Via},
    controller::Controller,
    error::{During, Error, Forbidden, Result, Thing, Unauthenticated},
    random,
    session::{Proof, Session, Sort},
    throttle::Key,
    tokens,
    two_factor::LoggedIn,
};

/// What an account shows of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its id.
    pub id: UserId,
    /// Its name.
    pub username: String,
    /// What it says about itself.
    pub profile: Profile,
    /// Whether it administers the installation.
    pub is_admin: bool,
    /// What its clients have shown to it, and when, in milliseconds since the epoch.
    pub onboarding: BTreeMap<String, i64>,
    /// How much it may have.
    pub quotas: AccountQuotas,
    /// When it was made, in milliseconds since the epoch.
    pub created_at_ms: i64,
    /// When it was last changed, in milliseconds since the epoch.
    pub updated_at_ms: i64,
}

/// How much an account may have and has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountQuotas {
    /// What an administrator has set for it.
    pub own: AccountLimits,
    /// How many containers, by that or by what all accounts may have.
    pub containers_max: u32,
    /// How many containers that run or are paused.
    pub running_containers_max: u32,
    /// How many projects.
    pub projects_max: u32,
    /// How much it has.
    pub used: AccountUse,
}

/// A user name and a password, shown once.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// The account's name.
    pub username: String,
    /// Its password.
    pub password: String,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").field("username", &self.username).finish_non_exhaustive()
    }
}

/// The name of the account that a fresh installation starts with.
const ADMIN: &str = "admin";

impl Controller {
    /// Makes the first account, an administrator with a random password, if there is no account at
    /// all. The password is nowhere else: whoever calls this shows it.
    pub async fn bootstrap_admin(&self) -> Result<Option<Credential>> {
        if self.store().count_users().await? > 0 {
            return Ok(None);
        }
        let password = hex::encode(random::bytes::<16>()?);
        match self.add_user(None, ADMIN, password.clone()).await {
            Ok(account) => Ok(Some(Credential { username: account.username, password })),
            // Another process on the same store was faster.
            Err(Error::UsernameTaken) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Adds an account. Only for administrators.
    pub async fn create_user(
        &self,
        actor: &Actor,
        username: &str,
        password: &str,
    ) -> Result<Account> {
        actor.require_admin()?;
        check_username(username)?;
        check_password("password", password)?;
        self.add_user(Some(actor), username, password.to_owned()).await
    }

    /// The first account, which nobody makes, is the administrator's.
    async fn add_user(
        &self,
        by: Option<&Actor>,
        username: &str,
        password: String,
    ) -> Result<Account> {
        let now_ms = self.now_ms();
        let user = User {
            id: random::id()?,
            username: username.to_owned(),
            password_hash: self.inner.passwords.hash(password).await?,
            is_admin: by.is_none(),
            session_generation: 0,
            created_at_ms: now_ms,
            updated_at_ms: now_ms,
        };
        let made = match by {
            Some(by) => self.store().create_user_by(by.user, &user).await,
            None => self.store().create_user(&user).await,
        };
        made.map_err(|error| Error::of_write(error, Thing::User, During::Create))?;
        self.account_of(&user).await
    }

    /// Changes the actor's own password, which ends all of its sessions.
    pub async fn change_password(
        &self,
        actor: &Actor,
        current: &str,
        new: &str,
        client: Option<IpAddr>,
    ) -> Result<()> {
        actor.require_session()?;
        check_password("password", new)?;
        let user = self.check_login(&actor.username, current, client).await?;
        let hash = self.inner.passwords.hash(new.to_owned()).await?;
        self.store().update_password(user.id, &hash, self.now_ms()).await?;
        Ok(())
    }

    /// Opens a session, or asks for a code if the account has a second factor. Unknown user and wrong password are one answer, and take one time; too many
    /// failures from one address are refused before the password is looked at.
    pub async fn login(
        &self,
        username: &str,
        password: &str,
        client: Option<IpAddr>,
    ) -> Result<LoggedIn> {
        let user = self.check_login(username, password, client).await?;
        self.logged_in(user).await
    }

    pub(crate) async fn open_session(&self, user: &User, generation: u64) -> Result<Session> {
        let account = self.account_of(user).await?;
        self.inner.sessions.open(account, generation, self.now_ms())
    }

    pub(crate) async fn check_login(
        &self,
        username: &str,
        password: &str,
        client: Option<IpAddr>,
    ) -> Result<User> {
        let keys = [Key::address(client), Key::account(client, username)];
        self.check_throttle(&keys)?;
        let user = match self.store().user_by_name(username).await? {
            // Longer than any password: not worth a computation for unknown and known alike.
            _ if password.len() > PASSWORD_LEN_MAX => None,
            user => {
                let hash = user.as_ref().map(|user| user.password_hash.clone());
                let good = self.inner.passwords.verify(password.to_owned(), hash).await?;
                user.filter(|_| good)
            }
        };
        user.ok_or_else(|| {
            let now_ms = self.now_ms();
            let mut throttle = lock(&self.inner.throttle);
            for key in keys {
                throttle.failed(key, now_ms);
            }
            Error::from(Unauthenticated::Credentials)
        })
    }

    fn check_throttle(&self, keys: &[Key; 2]) -> Result<()> {
        let limits = &self.inner.limits;
        let now_ms = self.now_ms();
        let mut throttle = lock(&self.inner.throttle);
        let maxima = [limits.login_failures_per_address_max, limits.login_failures_per_account_max];
        for (key, max) in keys.iter().zip(maxima) {
            if let Some(retry_after) = throttle.wait(key, max, now_ms) {
                return Err(Error::TooManyAttempts { retry_after });
            }
        }
        Ok(())
    }

    /// Opens a new session for one that is about to end. The old one stays good until its end or
    /// until logout.
    pub async fn refresh(&self, refresh: &str) -> Result<Session> {
        let bare = refresh.strip_prefix("Bearer ").unwrap_or(refresh);
        let proof = self
            .inner
            .sessions
            .verify(bare, Sort::Refresh, self.now_ms())
            .map_err(|_why| Unauthenticated::Refresh)?;
        let user = self.user_of(proof).await?.ok_or(Unauthenticated::Refresh)?;
        self.open_session(&user, user.session_generation).await
    }

    /// Ends every session of the actor's account; its tokens stay good. A token, which may be made for one realm
    /// or to read only, ends no sessions.
    pub async fn logout(&self, actor: &Actor) -> Result<()> {
        match actor.via {
            Via::Session { .. } | Via::Password => {}
            Via::Token { .. } => return Err(Forbidden::SessionOnly.into()),
        }
        self.store().bump_session_generation(actor.user, self.now_ms()).await?;
        Ok(())
    }

    /// The actor's account.
    pub async fn me(&self, actor: &Actor) -> Result<Account> {
        self.account(actor, actor.user).await
    }

    /// The user of a session, if that has not been ended.
    pub(crate) async fn user_of(&self, proof: Proof) -> Result<Option<User>> {
        let user = self.store().user(proof.user).await?;
        Ok(user.filter(|user| user.session_generation == proof.generation))
    }

    /// Finds out who asks from the value of `Authorization`, and whether that credential may be
    /// used on this host and from this address.
    ///
    /// Known forms: `Bearer <session>`, `Bearer hdy_…`, `hdy_…`, and `Basic` of `user:password`,
    /// `user:token` or `token:anything`.
    pub async fn authenticate(
        &self,
        credential: Option<&str>,
        realm: Option<RealmId>,
        client: Option<IpAddr>,
    ) -> Result<Actor> {
        let actor = self.authenticate_anywhere(credential, realm, client).await?;
        if let Via::Token { realms, allow_no_realm, .. } = &actor.via {
            match realm {
                Some(realm) if !realms.is_empty() && !realms.contains(&realm) => {
                    return Err(Forbidden::WrongRealm(realm).into());
                }
                None if !realms.is_empty() || !allow_no_realm => {
                    return Err(Forbidden::RealmRequired.into());
                }
                Some(_) | None => {}
            }
        }
        Ok(actor)
    }

    /// As [`Controller::authenticate`], on any host: a token that is bound to realms may ask on the
    /// plain host which they are. For that question only.
    pub async fn authenticate_anywhere(
        &self,
        credential: Option<&str>,
        realm: Option<RealmId>,
        client: Option<IpAddr>,
    ) -> Result<Actor> {
        let credential = credential.ok_or(Unauthenticated::Missing)?;
        if let Some(bearer) = credential.strip_prefix("Bearer ") {
            return if tokens::looks_like(bearer) {
                self.actor_of_token(bearer, realm, client).await
            } else {
                self.actor_of_session(bearer, realm).await
            };
        }
        if tokens::looks_like(credential) {
            return self.actor_of_token(credential, realm, client).await;
        }
        let basic = credential.strip_prefix("Basic ").ok_or(Unauthenticated::Invalid)?;
        self.actor_of_basic(basic, realm, client).await
    }

    async fn actor_of_session(&self, jwt: &str, realm: Option<RealmId>) -> Result<Actor> {
        let proof = self.inner.sessions.verify(jwt, Sort::Access, self.now_ms())?;
        let user = self.user_of(proof).await?.ok_or(Unauthenticated::Invalid)?;
        Ok(actor(
            user,
            Via::Session { generation: proof.generation, expires_at_ms: proof.expires_at_ms },
            realm,
        ))
    }

    async fn actor_of_basic(
        &self,
        basic: &str,
        realm: Option<RealmId>,
        client: Option<IpAddr>,
    ) -> Result<Actor> {
        let invalid = Unauthenticated::Invalid;
        let pair = STANDARD.decode(basic).map_err(|_why| invalid)?;
        let pair = String::from_utf8(pair).map_err(|_why| invalid)?;
        let (left, right) = pair.split_once(':').ok_or(invalid)?;
        match (tokens::looks_like(left), tokens::looks_like(right)) {
            (true, true) => match self.actor_of_token(left, realm, client).await {
                Err(Error::Unauthenticated(_)) => self.actor_of_token(right, realm, client).await,
                answer => answer,
            },
            (true, false) => self.actor_of_token(left, realm, client).await,
            (false, true) => self.actor_of_token(right, realm, client).await,
            (false, false) => {
                let user = self.check_login(left, right, client).await?;
                self.refuse_password_alone(user.id).await?;
                Ok(actor(user, Via::Password, realm))
            }
        }
    }

    async fn actor_of_token(
        &self,
        secret: &str,
        realm: Option<RealmId>,
        client: Option<IpAddr>,
    ) -> Result<Actor> {
        let token = self.check_token(secret, client).await?;
        let user = self.store().user(token.owner).await?.ok_or(Unauthenticated::Invalid)?;
        Ok(actor(user, token.via(), realm))
    }
}

fn actor(user: User, via: Via, realm: Option<RealmId>) -> Actor {
    Actor { user: user.id, username: user.username, is_admin: user.is_admin, via, realm }
}

/// A poisoned lock guards plain counters: they are as good as before the panic.
fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The longest password, in octets.
const PASSWORD_LEN_MAX: usize = 512;

fn check_username(text: &str) -> Result<()> {
    let valid = (3..=50).contains(&text.len())
        && text.bytes().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_'));
    if valid {
        Ok(())
    } else {
        Err(Error::invalid("username", "must be 3 to 50 letters, digits, hyphens or underscores"))
    }
}

fn check_password(field: &str, text: &str) -> Result<()> {
    if (8..=128).contains(&text.chars().count()) && text.len() <= PASSWORD_LEN_MAX {
        Ok(())
    } else {
        Err(Error::invalid(field, "must be 8 to 128 characters"))
    }
}
