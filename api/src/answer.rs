//! The envelope of every successful answer: `{statusCode, message, data}`, all three present.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::wire::Metadata;

/// A success: its status, a sentence for people and what was asked for.
#[derive(Debug)]
pub(crate) struct Answer<T> {
    status: StatusCode,
    message: &'static str,
    data: T,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<T> {
    status_code: u16,
    message: &'static str,
    data: T,
}

impl<T> Answer<T> {
    /// 200 with a payload; `()` is `null`.
    pub(crate) fn ok(message: &'static str, data: T) -> Self {
        Self { status: StatusCode::OK, message, data }
    }

    /// 201: something new exists.
    pub(crate) fn created(message: &'static str, data: T) -> Self {
        Self { status: StatusCode::CREATED, message, data }
    }
}

impl<T: Serialize> Answer<T> {
    /// The body alone; empty if it has no JSON form, which no wire type is.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(&self.envelope()).unwrap_or_default()
    }

    fn envelope(&self) -> Envelope<&T> {
        let Self { status, message, data } = self;
        Envelope { status_code: status.as_u16(), message, data }
    }
}

#[derive(Serialize)]
struct Paged<'m, T> {
    #[serde(flatten)]
    envelope: Envelope<T>,
    metadata: &'m Metadata,
}

impl<T: Serialize> Answer<T> {
    /// The response, with where its page stands beside `data`.
    pub(crate) fn with_metadata(&self, metadata: &Metadata) -> Response {
        json(self.status, &Paged { envelope: self.envelope(), metadata })
    }
}

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        json(self.status, &self.envelope())
    }
}

/// A JSON response that no cache may keep: nearly every answer is about one caller.
pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let (status, bytes) = match serde_json::to_vec(body) {
        Ok(bytes) => (status, bytes),
        Err(error) => {
            // Wire types have string keys and finite numbers, so this does not happen; an answer
            // without a body would be worse than one that says so.
            tracing::error!(target: "api", %error, "an answer could not be written as JSON");
            let body = br#"{"statusCode":500,"error":"Internal Server Error","message":"The answer could not be written","code":"INTERNAL_SERVER_ERROR"}"#;
            (StatusCode::INTERNAL_SERVER_ERROR, body.to_vec())
        }
    };
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
