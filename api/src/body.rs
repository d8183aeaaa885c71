//! Request bodies: how large, how slow, of what type, and how they become fields.

use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, Request},
};
use futures_util::TryStreamExt as _;
use http::{HeaderMap, header};
use serde_json::{Map, Value};

use crate::{
    caller::Caller,
    fields::{Field, Fields},
    problem::{Kind, Problem},
};

/// The largest body, in octets.
pub(crate) const BODY_BYTES_MAX: usize = 1024 * 1024;
/// How long a client may take to send a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// A body that was read and is a JSON object, or is empty. Whoever sent it still is who it was when its first
/// octet was waited for, and may do the same.
///
/// The clients send `Content-Type: application/json` with nothing behind it on every call, so an
/// empty body is never a syntax error; a call that needs fields names the missing ones instead.
#[derive(Debug)]
pub(crate) struct JsonObject(Map<String, Value>);

impl JsonObject {
    /// Starts taking fields.
    pub(crate) fn fields(self, table: &'static [Field]) -> Fields {
        Fields::new(table, self.0)
    }

    /// The object as it came, for a reader that knows its fields.
    pub(crate) fn whole(self) -> Value {
        Value::Object(self.0)
    }

    /// The object as it came, whose fields are of the client's choice.
    pub(crate) fn into_map(self) -> Map<String, Value> {
        self.0
    }

    /// Refuses every field: the call takes none.
    pub(crate) fn expect_none(self) -> Result<(), Problem> {
        Fields::new(&[], self.0).finish(Some(()))
    }
}

#[cfg(test)]
impl From<Map<String, Value>> for JsonObject {
    fn from(object: Map<String, Value>) -> Self {
        Self(object)
    }
}

impl<S: Send + Sync> FromRequest<S> for JsonObject {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let bytes = read(&parts.headers, body).await?;
        if bytes.is_empty() {
            return Ok(Self(Map::new()));
        }
        Caller::check_still(&parts).await?;
        check_type(&parts.headers)?;
        parse(&bytes).map(Self)
    }
}

/// Reads a whole body within its bounds of size and time.
pub(crate) async fn read(headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    let too_large = || {
        Problem::new(Kind::BodyTooLarge, format!("The body is larger than {BODY_BYTES_MAX} octets"))
    };
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse::<u64>().ok());
    if announced.is_some_and(|length| length > BODY_BYTES_MAX as u64) {
        return Err(too_large());
    }
    let collect = async {
        let mut stream = body.into_data_stream();
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.try_next().await.map_err(|error| {
            Problem::new(Kind::InvalidJson, "The body ended too early").caused_by(error)
        })? {
            if bytes.len() + chunk.len() > BODY_BYTES_MAX {
                return Err(too_large());
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(Bytes::from(bytes))
    };
    tokio::time::timeout(BODY_TIMEOUT, collect).await.unwrap_or_else(|_| {
        let limit_s = BODY_TIMEOUT.as_secs();
        Err(Problem::new(Kind::BodyTimeout, format!("The body did not arrive within {limit_s} s")))
    })
}

/// Not packed, and `application/json` or a type that ends in `+json`, with any parameters.
fn check_type(headers: &HeaderMap) -> Result<(), Problem> {
    let packed = headers
        .get(header::CONTENT_ENCODING)
        .is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"));
    if packed {
        return Err(Problem::new(
            Kind::UnsupportedMediaType,
            "A body must not be packed: leave Content-Encoding out",
        ));
    }
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = given.unwrap_or("").split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    let is_json = essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"));
    if is_json {
        Ok(())
    } else {
        Err(Problem::new(
            Kind::UnsupportedMediaType,
            "A body must be JSON: send Content-Type: application/json",
        ))
    }
}

/// Reads the text. serde's limit of 128 levels stands against depth bombs.
fn parse(bytes: &[u8]) -> Result<Map<String, Value>, Problem> {
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_),
        ) => Err(Problem::new(Kind::InvalidJson, "The body must be a JSON object")),
        Err(error) => {
            Err(Problem::new(Kind::InvalidJson, format!("The body is not valid JSON: {error}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, StatusCode};

    use super::*;
    use axum::response::IntoResponse as _;

    async fn extract(content_type: Option<&'static str>, body: Body) -> Result<(), StatusCode> {
        let mut request = Request::new(body);
        if let Some(content_type) = content_type {
            request
                .headers_mut()
                .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        match JsonObject::from_request(request, &()).await {
            Ok(_) => Ok(()),
            Err(problem) => Err(problem.into_response().status()),
        }
    }

    #[tokio::test]
    async fn an_empty_body_is_fine_whatever_its_type_says() {
        for content_type in [None, Some("application/json"), Some("text/plain")] {
            assert_eq!(extract(content_type, Body::empty()).await, Ok(()), "{content_type:?}");
        }
    }

    #[tokio::test]
    async fn only_json_is_read() {
        for (content_type, want) in [
            (Some("application/json"), Ok(())),
            (Some("application/json; charset=utf-8"), Ok(())),
            (Some("APPLICATION/JSON"), Ok(())),
            (Some("application/merge-patch+json"), Ok(())),
            (Some("application/x-www-form-urlencoded"), Err(StatusCode::UNSUPPORTED_MEDIA_TYPE)),
            (Some("text/json"), Err(StatusCode::UNSUPPORTED_MEDIA_TYPE)),
            (None, Err(StatusCode::UNSUPPORTED_MEDIA_TYPE)),
        ] {
            assert_eq!(extract(content_type, Body::from("{}")).await, want, "{content_type:?}");
        }
    }

    #[tokio::test]
    async fn what_is_no_json_object_is_refused() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        for body in ["{", "{]", "[]", "null", "1", "\"a\"", "{\"a\":1e999}", "{}{}", &deep] {
            let got = extract(Some("application/json"), Body::from(body.to_owned())).await;
            let start: String = body.chars().take(20).collect();
            assert_eq!(got, Err(StatusCode::BAD_REQUEST), "body {start:?}");
        }
        let invalid_utf8 = Body::from(&b"{\"a\":\"\xff\"}"[..]);
        let got = extract(Some("application/json"), invalid_utf8).await;
        assert_eq!(got, Err(StatusCode::BAD_REQUEST));
    }

    #[tokio::test]
    async fn a_body_over_one_mebibyte_is_refused_with_and_without_a_length() {
        let large = format!("{{\"a\":\"{}\"}}", "x".repeat(BODY_BYTES_MAX));
        let got = extract(Some("application/json"), Body::from(large.clone())).await;
        assert_eq!(got, Err(StatusCode::PAYLOAD_TOO_LARGE));
        let chunks = large.into_bytes().chunks(60_000).map(<[u8]>::to_vec).collect::<Vec<_>>();
        let stream =
            futures_util::stream::iter(chunks.into_iter().map(Ok::<_, std::convert::Infallible>));
        let got = extract(Some("application/json"), Body::from_stream(stream)).await;
        assert_eq!(got, Err(StatusCode::PAYLOAD_TOO_LARGE));
    }
}
