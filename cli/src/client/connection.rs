//! One connection to the API: where it is, who asks, how answers and refusals are read.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use reqwest::{
    Method, StatusCode, Url,
    header::{self, HeaderMap},
};
use serde_json::Value;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        handshake::{client::generate_key, derive_accept_key},
        protocol::Role,
    },
};

use super::credentials;
use crate::{
    args::Connection,
    exit::{Class, Failure},
};

/// The longest that one request may take; a create answers within 30 s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(65);

/// The longest that a stream lasts; then it is asked for again.
const STREAM_TIMEOUT: Duration = Duration::from_hours(24);

/// Speaks to the API.
pub(crate) struct Api {
    http: reqwest::Client,
    base: Url,
    token: Option<String>,
    /// The address to connect to.
    connect: Option<IpAddr>,
    /// What a login is remembered with.
    pub(super) url: String,
    pub(super) ca: Option<PathBuf>,
}

impl Api {
    /// Takes what the command line, the variables and the credentials file say, in this order.
    pub(crate) fn new(connection: Connection) -> Result<Self, Failure> {
        let saved = credentials::load()?;
        let saved = saved.filter(|saved| {
            // A saved session is for one API; never send it to another.
            connection.api_url.as_ref().is_none_or(|wanted| same_origin(wanted, &saved.api_url))
        });
        let (saved_url, saved_token, saved_ca) = match saved {
            Some(saved) => (Some(saved.api_url), Some(saved.token), saved.ca),
            None => (None, None, None),
        };
        let url = connection.api_url.or(saved_url).ok_or_else(|| {
            Failure::new(Class::Usage, "it is not known where the API answers")
                .hint("set GANTRY_API_URL, or give --api-url https://api.<domain>[:port]")
                .hint("`gantry dev` prints the line to set")
        })?;
        let mut base = parse_url(&url)?;
        if let Some(realm) = connection.realm {
            let host = format!("{realm}.{}", base.host_str().unwrap_or_default());
            base.set_host(Some(&host)).map_err(|error| {
                Failure::new(Class::Usage, format!("no realm host below {url}: {error}"))
            })?;
        }
        let ca = connection.ca.or(saved_ca);
        let connect = connection.connect;
        let http = finish(build_client(&base, ca.as_ref(), connect)?)?;
        Ok(Self { http, base, token: connection.token.or(saved_token), connect, url, ca })
    }

    /// The same connection for another caller.
    pub(super) fn has_credential(&self) -> bool {
        self.token.is_some()
    }

    pub(super) async fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Value, Failure> {
        self.call(Method::GET, path, query, None).await
    }

    pub(super) async fn post(
        &self,
        path: &str,
        query: &[(&str, String)],
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        self.call(Method::POST, path, query, body).await
    }

    pub(super) async fn patch(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.call(Method::PATCH, path, &[], Some(body)).await
    }

    pub(super) async fn delete(&self, path: &str) -> Result<Value, Failure> {
        self.call(Method::DELETE, path, &[], None).await
    }

    /// Removes what the body chooses.
    pub(super) async fn delete_with(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.call(Method::DELETE, path, &[], Some(body)).await
    }

    /// Writes to a document that still is of this version.
    pub(super) async fn write_at(
        &self,
        method: Method,
        path: &str,
        version: &str,
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        let url = self.url(path, &[]);
        let mut request = self.http.request(method.clone(), url.clone());
        request = request.header(header::IF_MATCH, version);
        if let Some(body) = body {
            request = request.json(body);
        }
        self.send(method, url, request).await
    }

    fn url(&self, path: &str, query: &[(&str, String)]) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("/api/v1/{path}"));
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    /// Sends one request and returns `data` of the answer.
    async fn call(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        let url = self.url(path, query);
        let mut request = self.http.request(method.clone(), url.clone());
        if let Some(body) = body {
            request = request.json(body);
        }
        self.send(method, url, request).await
    }

    /// Asks for server-sent events, those after one; they come without end.
    pub(super) async fn events(
        &self,
        path: &str,
        query: &[(&str, String)],
        after: Option<u64>,
    ) -> Result<reqwest::Response, Failure> {
        let url = self.url(path, query);
        let mut request = self.http.get(url.clone()).timeout(STREAM_TIMEOUT);
        if let Some(after) = after {
            request = request.header("last-event-id", after);
        }
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        if status.is_success() {
            return Ok(response);
        }
        let bytes = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        let answer: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Err(refusal(&Method::GET, &url, status, &headers, &answer))
    }

    /// Asks for a connection that leaves HTTP for a `WebSocket` with this subprotocol.
    pub(super) async fn socket(
        &self,
        path: &str,
        query: &[(&str, String)],
        protocol: &str,
    ) -> Result<WebSocketStream<reqwest::Upgraded>, Failure> {
        // HTTP/2 has no upgrades.
        let builder = build_client(&self.base, self.ca.as_ref(), self.connect)?;
        let http = finish(builder.http1_only().timeout(STREAM_TIMEOUT))?;
        let (url, key) = (self.url(path, query), generate_key());
        let mut request = http
            .get(url.clone())
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_KEY, &key)
            .header(header::SEC_WEBSOCKET_PROTOCOL, protocol);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        if status != StatusCode::SWITCHING_PROTOCOLS {
            let bytes = response.bytes().await.map_err(|error| self.unreachable(&error))?;
            let answer: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
            return Err(refusal(&Method::GET, &url, status, &headers, &answer));
        }
        let is = |name, want: &str| headers.get(name).is_some_and(|value| value == want);
        if !is(header::SEC_WEBSOCKET_ACCEPT, &derive_accept_key(key.as_bytes()))
            || !is(header::SEC_WEBSOCKET_PROTOCOL, protocol)
        {
            let message = "what answers there speaks another protocol than this one";
            return Err(Failure::new(Class::General, message));
        }
        let io = response.upgrade().await.map_err(|error| self.unreachable(&error))?;
        Ok(WebSocketStream::from_raw_socket(io, Role::Client, None).await)
    }

    async fn send(
        &self,
        method: Method,
        url: Url,
        mut request: reqwest::RequestBuilder,
    ) -> Result<Value, Failure> {
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let headers = response.headers().clone();
        let bytes = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        let answer: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        if status.is_success() {
            return Ok(take_data(answer));
        }
        Err(refusal(&method, &url, status, &headers, &answer))
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let mut cause = std::error::Error::source(error);
        let mut words = error.without_url_text();
        while let Some(error) = cause {
            words = format!("{words}: {error}");
            cause = error.source();
        }
        let failure =
            Failure::new(Class::Unavailable, format!("no answer from {}: {words}", self.url));
        if words.contains("certificate") || words.contains("UnknownIssuer") {
            return failure.hint("give the CA with --ca FILE or GANTRY_CA");
        }
        if words.contains("refused") {
            return failure.hint("is Gantry running? `gantry dev` starts it on this machine");
        }
        failure
    }
}

trait WithoutUrl {
    /// The first words of the error; the URL is said by the caller.
    fn without_url_text(&self) -> String;
}

impl WithoutUrl for reqwest::Error {
    fn without_url_text(&self) -> String {
        let kind = match () {
            () if self.is_timeout() => "timed out",
            () if self.is_connect() => "cannot connect",
            () if self.is_body() || self.is_decode() => "the answer broke off",
            () => "the request failed",
        };
        kind.to_owned()
    }
}

fn parse_url(text: &str) -> Result<Url, Failure> {
    let wrong = |why: &str| {
        Failure::new(Class::Usage, format!("{text:?} is no URL of an API: {why}"))
            .hint("it looks like https://api.<domain>[:port]")
    };
    let url = Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
    if !matches!(url.scheme(), "https" | "http") {
        return Err(wrong("it does not begin with https://"));
    }
    if url.scheme() == "http" && !is_local(&url) {
        return Err(wrong("a credential is only sent over https"));
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() {
        return Err(wrong("leave the path out"));
    }
    Ok(url)
}

fn same_origin(left: &str, right: &str) -> bool {
    match (Url::parse(left), Url::parse(right)) {
        (Ok(left), Ok(right)) => left.origin() == right.origin(),
        (Ok(_) | Err(_), _) => false,
    }
}

fn is_local(url: &Url) -> bool {
    url.host_str().is_some_and(|host| {
        host == "localhost"
            || host.ends_with(".localhost")
            || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    })
}

fn build_client(
    base: &Url,
    ca: Option<&PathBuf>,
    connect: Option<IpAddr>,
) -> Result<reqwest::ClientBuilder, Failure> {
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("gantry/", env!("CARGO_PKG_VERSION")))
        .timeout(REQUEST_TIMEOUT)
        .connect_timeout(Duration::from_secs(10))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy();
    // Names under `localhost` are this machine (RFC 6761); many resolvers do not know that.
    let local = || is_local(base).then_some(Ipv4Addr::LOCALHOST.into());
    if let (Some(address), Some(host)) = (connect.or_else(local), base.host_str()) {
        builder = builder.resolve(host, SocketAddr::new(address, 0));
    }
    if let Some(file) = ca {
        let unreadable =
            |why: String| Failure::new(Class::Usage, format!("the CA {}: {why}", file.display()));
        let pem = std::fs::read(file).map_err(|error| unreadable(error.to_string()))?;
        let certificates = reqwest::Certificate::from_pem_bundle(&pem)
            .map_err(|error| unreadable(error.to_string()))?;
        if certificates.is_empty() {
            return Err(unreadable("holds no certificate".to_owned()));
        }
        builder = builder.tls_certs_only(certificates);
    }
    Ok(builder)
}

fn finish(builder: reqwest::ClientBuilder) -> Result<reqwest::Client, Failure> {
    builder.build().map_err(|error| {
        Failure::new(Class::General, format!("cannot set up the HTTPS client: {error}"))
    })
}

/// `data` of an envelope; an answer without one is taken whole.
fn take_data(answer: Value) -> Value {
    match answer {
        Value::Object(mut fields) if fields.contains_key("statusCode") => {
            fields.remove("data").unwrap_or_default()
        }
        other @ (Value::Object(_)
        | Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)) => other,
    }
}

/// What a refusal says, with every field that was wrong.
fn refusal(
    method: &Method,
    url: &Url,
    status: StatusCode,
    headers: &HeaderMap,
    answer: &Value,
) -> Failure {
    let text = |name: &str| answer.get(name).and_then(Value::as_str);
    let message = text("message").or_else(|| text("error")).map_or_else(
        || format!("{method} {} was answered with {status}", url.path()),
        str::to_owned,
    );
    let code = text("code").map(|code| format!(", {code}")).unwrap_or_default();
    let mut failure = Failure::new(
        Class::of_status(status.as_u16()),
        format!("{message} ({}{code})", status.as_u16()),
    );
    for wrong in answer.get("data").and_then(Value::as_array).into_iter().flatten() {
        let part = |name: &str| wrong.get(name).and_then(Value::as_str);
        if let (Some(field), Some(message)) = (part("field"), part("message")) {
            failure = failure.hint(format!("{field}: {message}"));
        }
    }
    if status == StatusCode::UNAUTHORIZED {
        failure = failure.hint("log in with `gantry login`, or set GANTRY_TOKEN");
    }
    if let Some(id) = headers.get("x-request-id").and_then(|id| id.to_str().ok())
        && status.is_server_error()
    {
        failure = failure.hint(format!("request id {id}"));
    }
    failure
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_api_url_is_https_and_has_no_path() {
        for (text, fine) in [
            ("https://api.example.com", true),
            ("https://api.gantry.localhost:8443/", true),
            ("http://api.gantry.localhost:8080", true), // stays on this machine
            ("http://api.example.com", false),          // the credential would be readable
            ("ftp://api.example.com", false),
            ("https://api.example.com/api/v1", false),
            ("api.example.com", false),
        ] {
            assert_eq!(parse_url(text).is_ok(), fine, "{text}");
        }
    }

    #[test]
    fn a_refusal_lists_every_field() {
        let answer = json!({
            "statusCode": 400, "error": "Bad Request", "code": "VALIDATION_ERROR",
            "message": "Validation failed",
            "data": [{"field": "name", "message": "too short"}, {"field": "color", "message": "no"}]
        });
        let url = Url::parse("https://api.example.com/api/v1/projects").unwrap();
        let failure =
            refusal(&Method::POST, &url, StatusCode::BAD_REQUEST, &HeaderMap::new(), &answer);
        assert_eq!(failure.class(), Class::Invalid);
        let text = failure.to_string();
        for part in ["Validation failed", "400", "VALIDATION_ERROR", "name: too short", "color: no"]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn a_saved_session_is_for_one_origin_only() {
        for (left, right, same) in [
            ("https://api.a.test", "https://api.a.test/", true),
            ("https://api.a.test", "https://api.a.test:443", true),
            ("https://api.a.test", "https://api.a.test:8443", false),
            ("https://api.a.test", "http://api.a.test", false),
            ("https://api.a.test", "https://api.b.test", false),
        ] {
            assert_eq!(same_origin(left, right), same, "{left} {right}");
        }
    }

    #[test]
    fn data_is_taken_out_of_its_envelope() {
        let envelope = json!({"statusCode": 200, "message": "ok", "data": [1]});
        assert_eq!(take_data(envelope), json!([1]));
        assert_eq!(take_data(json!({"statusCode": 200, "message": "ok"})), Value::Null);
        assert_eq!(take_data(json!([1, 2])), json!([1, 2]));
    }
}
