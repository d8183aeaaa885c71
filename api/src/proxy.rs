//! What owners set about the requests to their containers: permission documents, hooks, settings,
//! aliases and custom hostnames.

mod access;
mod aliases;
mod edge;
mod hooks;
mod settings;

use axum::extract::{FromRequestParts, RawPathParams};
use gantry_control::{AccessChange, AccessView, Actor, EdgeError, Error, Scope, Version};
use gantry_model::{FieldError, HookId, Id};
use http::{header, request::Parts};

use crate::{
    Front,
    caller::{Caller, PathId},
    problem::{Kind, Problem},
    surface::Surface,
    wire,
};

pub(crate) fn surface(surface: Surface) -> Surface {
    [access::surface, settings::surface, hooks::surface, aliases::surface, edge::surface]
        .into_iter()
        .fold(surface, |surface, add| add(surface))
}

/// The version that a write names: `If-Match: file:v<N>`, with or without quotation marks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum IfMatch {
    Absent,
    Malformed,
    Version(Version),
}

impl IfMatch {
    /// The version; 428 when there is none, 412 when it is no version.
    fn version(self) -> Result<Version, Problem> {
        match self {
            Self::Version(version) => Ok(version),
            Self::Malformed => Err(Error::from(EdgeError::Stale).into()),
            Self::Absent => {
                let message = "The header If-Match is required: send the etag of the document as \
                               you read it, as file:v0";
                Err(Problem::new(Kind::PreconditionRequired, message).about("If-Match"))
            }
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let mut values = parts.headers.get_all(header::IF_MATCH).iter();
        let Some(first) = values.next() else { return Ok(Self::Absent) };
        let only = values.next().is_none();
        let version = first.to_str().ok().filter(|_| only).and_then(|text| {
            let text = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text);
            let digits = text.strip_prefix("file:v")?;
            let canonical = digits.bytes().all(|octet| octet.is_ascii_digit());
            digits.parse().ok().filter(|_| canonical).map(Version)
        });
        Ok(version.map_or(Self::Malformed, Self::Version))
    }
}

/// The parts of the path that are not its id.
#[derive(Debug)]
pub(crate) struct Segments(Vec<(String, String)>);

impl Segments {
    /// One part, by its name in the route.
    pub(crate) fn get(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, text)| text.as_str())
    }

    /// One part as a value.
    fn read<T>(
        &self,
        name: &str,
        parse: impl FnOnce(&str, &str) -> Result<T, FieldError>,
    ) -> Result<T, Problem> {
        parse(name, self.get(name)).map_err(|error| Problem::fields(Kind::Invalid, &[error]))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Segments {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let params = RawPathParams::from_request_parts(parts, state).await;
        let params = params.map_err(|error| Problem::new(Kind::Invalid, error.to_string()))?;
        Ok(Self(params.iter().map(|(name, text)| (name.to_owned(), text.to_owned())).collect()))
    }
}

/// A request to change a document: who asks, for what, and which version the write names.
pub(crate) struct Write<K> {
    front: Front,
    actor: Actor,
    id: Id<K>,
    segments: Segments,
    version: IfMatch,
}

/// A document after a write, the hook that the write was about, and how far the write has come.
struct Written {
    view: AccessView,
    hook: Option<HookId>,
    propagation: wire::Propagation,
}

impl<K> Write<K> {
    /// Changes the document of `scope`.
    async fn change(&self, scope: Scope, change: AccessChange) -> Result<Written, Problem> {
        let action = if matches!(change, AccessChange::Remove) { "delete" } else { "upsert" };
        let control = &self.front.control;
        let version = self.version.version()?;
        let (view, hook) = control.change_access(&self.actor, scope, version, change).await?;
        let version = view.access.version;
        let propagation = wire::Propagation::new(control.propagation().await, version, action);
        Ok(Written { view, hook, propagation })
    }
}

impl<K: 'static> FromRequestParts<Front> for Write<K> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, front: &Front) -> Result<Self, Problem> {
        let Caller(actor) = Caller::from_request_parts(parts, front).await?;
        let PathId(id) = PathId::from_request_parts(parts, front).await?;
        let segments = Segments::from_request_parts(parts, front).await?;
        let version = match IfMatch::from_request_parts(parts, front).await {
            Ok(version) => version,
            Err(never) => match never {},
        };
        Ok(Self { front: front.clone(), actor, id, segments, version })
    }
}
