//! What owners set about the requests to their containers: permission documents, hooks, settings,
//! aliases and custom hostnames.

mod access;
mod aliases;
mod edge;
mod hooks;
mod settings;

use axum::extract::{FromRequestParts, RawPathParams};
use gantry_control::{AccessView, EdgeError, Error, Version};
use gantry_model::FieldError;
use http::{header, request::Parts};

use crate::{
    Front,
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
                Err(Problem::new(Kind::PreconditionRequired, message))
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
    fn get(&self, name: &str) -> &str {
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

/// A document after a write, with how far the write has come.
async fn written(front: &Front, view: &AccessView, action: &'static str) -> wire::Propagation {
    let version = view.access.version;
    wire::Propagation::new(front.control.propagation().await, version, action)
}
