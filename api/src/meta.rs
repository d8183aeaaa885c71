//! What the API says about itself and the caller's connection; needs no credential.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use gantry_model::FieldError;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};

use crate::{
    Document, Front,
    answer::Answer,
    caller::Address,
    problem::{Kind, Problem},
    proxy::Segments,
    surface::{Method, Operation, Surface},
    wire,
};

const TAG: &str = "Meta";

pub(crate) fn surface(surface: Surface) -> Surface {
    let tag = TAG;
    config_surface(surface)
        .serve(
            &[Method::Get],
            &["/api/v1/ip"],
            ip,
            &Operation::new("getIp", tag, "Tells how the request looked from here")
                .public()
                .answers::<wire::Ip>(200),
        )
        .serve(
            &[Method::Get],
            &["/api/v1/meta/public-key"],
            public_key,
            &Operation::new(
                "getPublicKey",
                tag,
                "Shows the keys that claims and signed answers can be checked with",
            )
            .public()
            .answers::<wire::PublicKeys>(200),
        )
        .serve(
            &[Method::Get],
            &["/api/v1/health"],
            health,
            &Operation::new("getHealth", tag, "Tells that the API answers")
                .public()
                .answers::<wire::Health>(200),
        )
        .serve(
            &[Method::Get],
            &["/openapi.json"],
            openapi,
            &Operation::new("getOpenApi", tag, "This document").public().answers_bare(),
        )
        .serve(
            &[Method::Get],
            &["/openapi.yaml"],
            openapi_yaml,
            &Operation::new("getOpenApiYaml", tag, "This document; JSON is YAML, too")
                .public()
                .answers_bare_as("application/yaml"),
        )
        .serve(
            &[Method::Get],
            &["/docs"],
            docs,
            &Operation::new("getDocs", tag, "This document as a page for people")
                .public()
                .answers_text("text/html"),
        )
}

fn config_surface(surface: Surface) -> Surface {
    surface
        .serve(
            &[Method::Get],
            &["/api/v1/meta/config"],
            config,
            &Operation::new(
                "getMetaConfig",
                TAG,
                "Shows what clients may know of the configuration",
            )
            .public()
            .answers::<wire::MetaConfig>(200),
        )
        .serve(
            &[Method::Get],
            &["/api/v1/meta/config/{key}"],
            config_value,
            &Operation::new("getMetaConfigValue", TAG, "Shows one value of the configuration")
                .public()
                .answers::<wire::MetaConfigValue>(200),
        )
}

/// The longest key of the configuration.
const CONFIG_KEY_MAX: usize = 64;

/// Headers that hold credentials are not repeated: the answer ends in terminals and logs.
const SECRET: [HeaderName; 3] =
    [header::AUTHORIZATION, header::COOKIE, header::PROXY_AUTHORIZATION];

async fn ip(
    State(front): State<Front>,
    Address(ip): Address,
    version: Version,
    headers: HeaderMap,
) -> Answer<wire::Ip> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let shown = headers
        .iter()
        .filter(|(name, _)| !SECRET.contains(name))
        .map(|(name, value)| (name.to_string(), text(value)))
        .collect();
    let connection = wire::Ip {
        ip: ip.map_or_else(String::new, |ip| ip.to_string()),
        user_agent: headers.get(header::USER_AGENT).map(text),
        headers: shown,
        referer: headers.get(header::REFERER).map(text),
        timestamp: wire::Timestamp(front.control.clock().now_ms()),
        is_logged: false,
        protocol: format!("{version:?}"),
        ip_info: None,
    };
    Answer::ok("IP information retrieved successfully", connection)
}

async fn public_key(State(front): State<Front>) -> Result<Answer<wire::PublicKeys>, Problem> {
    let key = front.control.public_key()?;
    let keys = wire::PublicKeys::new(&key, front.control.signs_answers());
    Ok(Answer::ok("Public keys retrieved successfully", keys))
}

async fn config(State(front): State<Front>) -> Answer<wire::MetaConfig> {
    let config = wire::MetaConfig::new(&front.control, &front.config);
    Answer::ok("Configuration retrieved successfully", config)
}

async fn config_value(
    State(front): State<Front>,
    segments: Segments,
) -> Result<Answer<wire::MetaConfigValue>, Problem> {
    let key = segments.get("key");
    let follows = |octet: u8| matches!(octet, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
    let is_key = key.len() <= CONFIG_KEY_MAX
        && key.starts_with(|first: char| first.is_ascii_lowercase())
        && key.bytes().all(follows);
    if !is_key {
        let rule =
            "must be a lower-case letter and at most 63 more, digits, underscores or hyphens";
        return Err(Problem::fields(Kind::InvalidConfigKey, &[FieldError::new("key", rule)]));
    }
    let value = wire::MetaConfig::new(&front.control, &front.config).value(key);
    let value = value.ok_or_else(|| {
        let message = format!("The configuration has no {key}; GET /api/v1/meta/config has all");
        Problem::new(Kind::ConfigKeyNotFound, message).about("key")
    })?;
    Ok(Answer::ok("Configuration value retrieved successfully", value))
}

async fn health() -> Answer<wire::Health> {
    let version = env!("CARGO_PKG_VERSION");
    Answer::ok("The API answers", wire::Health { status: "ok", version })
}

async fn openapi(State(front): State<Front>, headers: HeaderMap) -> Response {
    document(&front.document, &headers, "application/json")
}

async fn openapi_yaml(State(front): State<Front>, headers: HeaderMap) -> Response {
    document(&front.document, &headers, "application/yaml")
}

fn document(document: &Document, headers: &HeaderMap, media: &'static str) -> Response {
    let text = || {
        let media = [
            (header::CONTENT_TYPE, HeaderValue::from_static(media)),
            (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        ];
        (media, document.text.clone()).into_response()
    };
    revalidated(&document.tag, headers, text)
}

async fn docs(State(front): State<Front>, headers: HeaderMap) -> Response {
    let Document { page, page_policy, .. } = &*front.document;
    let text = || {
        let about = [
            (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
            (header::CONTENT_SECURITY_POLICY, page_policy.clone()),
            (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        ];
        (about, page.clone()).into_response()
    };
    revalidated(&front.document.tag, &headers, text)
}

/// The answer, or 304 for who has what carries this tag.
fn revalidated(
    tag: &HeaderValue,
    headers: &HeaderMap,
    answer: impl FnOnce() -> Response,
) -> Response {
    let mut response = if headers.get(header::IF_NONE_MATCH) == Some(tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        answer()
    };
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response.headers_mut().insert(header::ETAG, tag.clone());
    response
}
