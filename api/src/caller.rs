//! Who asks and from where, as handlers take it from a request.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock},
};

use axum::extract::{FromRequestParts, RawPathParams};
use gantry_control::{Actor, Via};
use gantry_model::{FieldError, Id, RealmId, TokenId, UserId};
use http::{header, request::Parts};

use crate::{
    Front,
    problem::{Kind, Problem},
};

/// The client's address, as the edge determined it. The edge inserts it into the extensions of
/// every request; without it the address counts as unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddress(pub SocketAddr);

/// The realm of the host that the client asked, `<realm>.api.<domain>`. The edge inserts it into the
/// extensions of every request; without it the request is unscoped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Realm(pub Option<RealmId>);

/// The id of the request in logs. The edge inserts it into the extensions of every request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(pub Arc<str>);

/// The authenticated caller.
#[derive(Clone, Debug)]
pub(crate) struct Caller(pub(crate) Actor);

/// The authenticated caller, on whatever host: a token that is bound to realms may ask on the plain
/// host what they are, and nothing else.
#[derive(Clone, Debug)]
pub(crate) struct CallerAnywhere(pub(crate) Actor);

/// Where an authenticated caller leaves its name for the audit of a write.
#[derive(Clone, Debug, Default)]
pub(crate) struct Signature(pub(crate) Arc<OnceLock<Signed>>);

/// Who has asked.
#[derive(Clone, Debug)]
pub(crate) struct Signed {
    pub(crate) username: String,
    pub(crate) user: UserId,
    pub(crate) token: Option<TokenId>,
    pub(crate) realm: Option<RealmId>,
    pub(crate) told: Told,
}

/// Who hears of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// The user, in the activity, and the operator, in the audit line.
    User,
    /// The operator alone.
    OperatorOnly,
}

impl Signed {
    fn new(actor: &Actor) -> Self {
        let token = match &actor.via {
            Via::Token { id, .. } => Some(*id),
            Via::Session { .. } | Via::Password => None,
        };
        let (username, user) = (actor.username.clone(), actor.user);
        Self { username, user, token, realm: actor.realm, told: Told::User }
    }
}

/// The client's address, if the edge told it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Address(pub(crate) Option<IpAddr>);

/// The `{id}` of the path. Other digits than lower-case hexadecimal ones are a mistake of the
/// client, not something that was not found.
#[derive(Debug)]
pub(crate) struct PathId<K>(pub(crate) Id<K>);

/// What a request proves its caller by, to be looked at again while its answer goes on.
#[derive(Clone)]
pub(crate) struct Credential {
    text: Option<String>,
    realm: Option<RealmId>,
    ip: Option<IpAddr>,
}

impl Credential {
    pub(crate) fn of(parts: &Parts) -> Result<Self, Problem> {
        let text = authorization(parts)?.map(str::to_owned);
        let realm = parts.extensions.get::<Realm>().copied().unwrap_or_default().0;
        let Address(ip) = address(parts);
        Ok(Self { text, realm, ip })
    }

    /// A token that came by another way than the request's head.
    pub(crate) fn token(token: Option<&str>, realm: Option<RealmId>, ip: Option<IpAddr>) -> Self {
        Self { text: token.map(|token| format!("Bearer {token}")), realm, ip }
    }

    /// Whose it is now.
    pub(crate) async fn check(&self, front: &Front) -> Result<Actor, Problem> {
        Ok(self.actor(front).await?)
    }

    /// Whose it is now; why not, in the words of the control plane.
    pub(crate) async fn actor(&self, front: &Front) -> Result<Actor, gantry_control::Error> {
        let Self { text, realm, ip } = self;
        front.control.authenticate(text.as_deref(), *realm, *ip).await
    }
}

/// What the caller of a request was let in by, for when the rest of the request has arrived.
#[derive(Clone)]
struct Admission {
    front: Front,
    credential: Credential,
}

impl Caller {
    /// Refuses a request whose caller has lost, while the body arrived, what it was let in by, or may do
    /// other things by now: who holds a body back does not keep rights.
    pub(crate) async fn check_still(parts: &Parts) -> Result<(), Problem> {
        let known = (parts.extensions.get::<Self>(), parts.extensions.get::<Admission>());
        let (Some(Self(actor)), Some(Admission { front, credential })) = known else {
            return Ok(());
        };
        let now = credential.check(front).await?;
        if now == *actor { Ok(()) } else { Err(gantry_control::Error::Conflict.into()) }
    }

    /// Authenticates once for each request, however often it is asked.
    pub(crate) async fn authenticate(parts: &mut Parts, front: &Front) -> Result<Self, Problem> {
        if let Some(caller) = parts.extensions.get::<Self>() {
            return Ok(caller.clone());
        }
        let credential = Credential::of(parts)?;
        let actor = credential.check(front).await?;
        if let Some(Signature(slot)) = parts.extensions.get() {
            slot.get_or_init(|| Signed::new(&actor));
        }
        let caller = Self(actor);
        parts.extensions.insert(caller.clone());
        parts.extensions.insert(Admission { front: front.clone(), credential });
        Ok(caller)
    }
}

/// The value of `Authorization`, if there is one.
fn authorization(parts: &Parts) -> Result<Option<&str>, Problem> {
    let mut values = parts.headers.get_all(header::AUTHORIZATION).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(Problem::new(Kind::InvalidToken, "More than one Authorization header"));
    }
    let Some(value) = first else { return Ok(None) };
    match value.to_str() {
        Ok(text) => Ok(Some(text)),
        Err(error) => {
            Err(Problem::new(Kind::InvalidToken, "Invalid authentication token").caused_by(error))
        }
    }
}

pub(crate) fn address(parts: &Parts) -> Address {
    Address(parts.extensions.get::<ClientAddress>().map(|client| client.0.ip().to_canonical()))
}

impl FromRequestParts<Front> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, front: &Front) -> Result<Self, Problem> {
        Self::authenticate(parts, front).await
    }
}

impl FromRequestParts<Front> for CallerAnywhere {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, front: &Front) -> Result<Self, Problem> {
        let credential = authorization(parts)?.map(str::to_owned);
        let realm = parts.extensions.get::<Realm>().copied().unwrap_or_default().0;
        let Address(ip) = address(parts);
        let control = &front.control;
        Ok(Self(control.authenticate_anywhere(credential.as_deref(), realm, ip).await?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Address {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(address(parts))
    }
}

impl<K, S: Send + Sync> FromRequestParts<S> for PathId<K> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let params = RawPathParams::from_request_parts(parts, state).await;
        let text = params
            .as_ref()
            .ok()
            .and_then(|params| params.iter().find(|(name, _)| *name == "id").map(|(_, text)| text));
        match text.unwrap_or("").parse() {
            Ok(id) => Ok(Self(id)),
            Err(error) => {
                Err(Problem::fields(Kind::InvalidId, &[FieldError::new("id", error.to_string())]))
            }
        }
    }
}
