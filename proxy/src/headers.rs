//! Header hygiene: what a client may not say to a container, what a container may not say to a
//! client, and what the edge says itself.
//!
//! A request's fields are looked over once ([`Survey`]); what the survey did not find costs nothing.

use http::{HeaderMap, HeaderName, HeaderValue, Version, header};
use memchr::memmem;

use crate::{
    answer::{Failure, X_REQUEST_ID},
    cookies,
    downstream::Downstream,
    framing::is_tunnel,
};

/// Fields that end at each hop (RFC 9110, 7.6.1), apart from those that `Connection` names.
/// `Trailer` is none of them: it announces what the body brings, which passes.
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Fields of framing, routing, credentials and content that have no place in trailers.
const NOT_IN_TRAILERS: [HeaderName; 14] = [
    header::AUTHORIZATION,
    header::CACHE_CONTROL,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::COOKIE,
    header::EXPECT,
    header::HOST,
    header::MAX_FORWARDS,
    header::RANGE,
    header::SET_COOKIE,
    header::TRAILER,
    header::WWW_AUTHENTICATE,
];

/// Fields that `Connection` may name, at most: each field of the request is compared with them.
const NOMINATED_MAX: usize = 32;

/// What one look over a request's fields finds.
#[expect(clippy::struct_excessive_bools, reason = "each is one thing that was seen or not")]
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// Fields, repeated ones counted each.
    pub(crate) count: usize,
    pub(crate) host: Option<HeaderValue>,
    pub(crate) host_twice: bool,
    pub(crate) accept: Option<HeaderValue>,
    pub(crate) mode: Option<HeaderValue>,
    /// The protocol that a tunnel is asked for.
    pub(crate) upgrade: Option<HeaderValue>,
    connection_upgrade: bool,
    hop_by_hop: bool,
    trailers: bool,
    /// Whether there is a length. HTTP/1 lets no second one pass, but HTTP/2 does.
    length: bool,
    expect: Option<HeaderValue>,
    cookies: usize,
    /// Whether the request is a call of gRPC.
    pub(crate) grpc: bool,
    /// Whether there may be cookies of the edge among them.
    edge_cookies: bool,
    trace: bool,
    /// Fields that only the edge may set, in whatever spelling.
    forged: Vec<HeaderName>,
    /// Fields that `Connection` names.
    nominated: Vec<HeaderName>,
    bad: Option<&'static str>,
}

impl Survey {
    /// Looks over `headers`.
    pub(crate) fn of(headers: &HeaderMap, version: Version) -> Self {
        let mut survey = Self::default();
        for (name, value) in headers {
            survey.count += 1;
            match *name {
                header::HOST => survey.host_twice |= survey.host.replace(value.clone()).is_some(),
                header::ACCEPT => survey.accept = Some(value.clone()),
                header::CONNECTION => survey.connection(value),
                header::UPGRADE if is_tunnel(value.as_bytes()) => {
                    (survey.hop_by_hop, survey.upgrade) = (true, Some(value.clone()));
                }
                header::PROXY_AUTHORIZATION | header::TRANSFER_ENCODING | header::UPGRADE => {
                    survey.hop_by_hop = true;
                }
                header::TE => {
                    survey.hop_by_hop = true;
                    survey.trailers |= lists(value, b"trailers");
                }
                header::CONTENT_LENGTH if survey.length => {
                    survey.bad = Some("the length is said twice");
                }
                header::CONTENT_LENGTH => survey.length = true,
                header::EXPECT => survey.expect = Some(value.clone()),
                header::COOKIE => {
                    survey.cookies += 1;
                    survey.edge_cookies |= memmem::find(value.as_bytes(), cookies::OURS).is_some();
                }
                header::CONTENT_TYPE => survey.grpc = is_grpc(value.as_bytes()),
                _ => survey.other(name, value),
            }
        }
        if survey.upgrade.is_some() {
            // The connection goes on as HTTP behind a body, whatever a container would make of it.
            let bodiless = !headers.contains_key(header::TRANSFER_ENCODING)
                && headers.get(header::CONTENT_LENGTH).is_none_or(|length| length == "0");
            if version != Version::HTTP_11 || !survey.connection_upgrade || !bodiless {
                survey.upgrade = None;
            }
        }
        survey
    }

    fn connection(&mut self, value: &HeaderValue) {
        self.hop_by_hop = true;
        for token in value.as_bytes().split(|&octet| octet == b',').map(<[u8]>::trim_ascii) {
            if token.is_empty()
                || token.eq_ignore_ascii_case(b"close")
                || token.eq_ignore_ascii_case(b"keep-alive")
            {
                continue;
            }
            if token.eq_ignore_ascii_case(b"upgrade") {
                self.connection_upgrade = true;
                continue;
            }
            match HeaderName::from_bytes(token) {
                // To have such a field removed is an attack on what comes behind.
                Ok(
                    header::HOST | header::CONTENT_LENGTH | header::COOKIE | header::AUTHORIZATION,
                )
                | Err(_) => self.bad = Some("Connection names a field that it may not name"),
                Ok(_) if self.nominated.len() >= NOMINATED_MAX => {
                    self.bad = Some("Connection names too many fields");
                }
                Ok(name) => self.nominated.push(name),
            }
        }
    }

    /// Fields without a number of their own in the `http` crate.
    fn other(&mut self, name: &HeaderName, value: &HeaderValue) {
        let text = name.as_str();
        match text.as_bytes() {
            b"sec-fetch-mode" => self.mode = Some(value.clone()),
            b"keep-alive" | b"proxy-connection" => self.hop_by_hop = true,
            b"traceparent" => {
                self.trace = is_trace_parent(value.as_bytes());
                if !self.trace {
                    self.forged.push(name.clone());
                }
            }
            [b'x' | b'f', ..] if is_ours(text) => self.forged.push(name.clone()),
            // CGI and its heirs turn names into variables: `_` and `.` become `-`, so that these
            // would speak of framing; and `Proxy` would set the proxy of the program's own requests.
            b"content_length" | b"content.length" | b"transfer_encoding" | b"transfer.encoding"
            | b"proxy" => self.forged.push(name.clone()),
            _ => {}
        }
    }

    /// Whether the request may go on as far as its fields are concerned.
    pub(crate) fn check(&self, fields_max: usize) -> Result<(), Failure> {
        if let Some(what) = self.bad {
            return Err(Failure::BadRequest(what));
        }
        if self.count > fields_max {
            return Err(Failure::HeadTooLarge);
        }
        match &self.expect {
            Some(value) if !value.as_bytes().eq_ignore_ascii_case(b"100-continue") => {
                Err(Failure::ExpectationFailed)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Gives `out` the fields that may pass. `Expect` ends here: whether a container is to hear of it
    /// depends on the connection.
    pub(crate) fn pass(&self, headers: &HeaderMap, out: &mut impl Fields) {
        let cookies_change = self.edge_cookies || self.cookies > 1;
        let some_end = self.hop_by_hop || !self.nominated.is_empty() || !self.forged.is_empty();
        for (name, value) in headers {
            match *name {
                header::EXPECT => {}
                header::COOKIE if cookies_change => {}
                _ if some_end && self.ends_here(name) => {}
                _ => out.client(name, value),
            }
        }
        if cookies_change && !self.ends_here(&header::COOKIE) {
            let mut own = HeaderMap::new();
            for value in headers.get_all(header::COOKIE) {
                own.append(header::COOKIE, value.clone());
            }
            if self.edge_cookies {
                cookies::remove(&mut own, |name| name.starts_with(cookies::OURS));
            }
            cookies::join(&mut own);
            for (name, value) in &own {
                out.client(name, value);
            }
        }
    }

    /// The fields that may pass, as a map.
    pub(crate) fn passing(&self, headers: &HeaderMap) -> HeaderMap {
        let mut passing = HeaderMap::with_capacity(headers.len());
        self.pass(headers, &mut passing);
        passing
    }

    fn ends_here(&self, name: &HeaderName) -> bool {
        (self.hop_by_hop && HOP_BY_HOP.contains(name))
            || self.nominated.contains(name)
            || self.forged.contains(name)
    }

    /// Gives `out` what the edge says to a container. `host` is what the client typed, `id` the
    /// request's id in hexadecimal digits.
    pub(crate) fn identify(
        &self,
        out: &mut impl Fields,
        host: &HeaderValue,
        downstream: &Downstream,
        (id, span): (&[u8; 32], [u8; 8]),
    ) {
        if self.host.is_none() {
            out.own(&header::HOST, host.as_bytes());
        }
        out.own(&X_FORWARDED_FOR, downstream.address.as_bytes());
        out.own(&X_REAL_IP, downstream.address.as_bytes());
        out.own(&X_FORWARDED_HOST, host.as_bytes());
        out.own(&X_FORWARDED_PROTO, downstream.scheme().as_bytes());
        downstream.forwarded(host, |value| out.own(&header::FORWARDED, value));
        if !self.trace {
            out.own(&TRACEPARENT, &trace_parent(id, span));
        }
        out.own(&X_REQUEST_ID, id);
        if self.trailers {
            out.own(&header::TE, b"trailers");
        }
        if let Some(upgrade) = &self.upgrade {
            out.own(&header::UPGRADE, upgrade.as_bytes());
        }
        match (self.trailers, self.upgrade.is_some()) {
            (false, false) => {}
            (true, false) => out.own(&header::CONNECTION, b"te"),
            (false, true) => out.own(&header::CONNECTION, b"upgrade"),
            (true, true) => out.own(&header::CONNECTION, b"upgrade, te"),
        }
    }
}

/// Where the fields of a request go, one after another.
pub(crate) trait Fields {
    /// One that the client said.
    fn client(&mut self, name: &HeaderName, value: &HeaderValue);

    /// One that the edge says.
    fn own(&mut self, name: &HeaderName, value: &[u8]);
}

impl Fields for HeaderMap {
    fn client(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.append(name, value.clone());
    }

    fn own(&mut self, name: &HeaderName, value: &[u8]) {
        // What the edge says is made of what fields may have.
        if let Ok(value) = HeaderValue::from_bytes(value) {
            self.append(name, value);
        }
    }
}

/// Removes from a container's answer what may not reach a client. `upgrade` keeps the fields of an
/// accepted upgrade.
pub(crate) fn clean_response(headers: &mut HeaderMap, hostname: &str) {
    let (mut hop_by_hop, mut coded, mut cookies, mut clears) = (false, false, false, false);
    let mut nominated = Vec::new();
    for (name, value) in &*headers {
        match *name {
            header::CONNECTION => {
                hop_by_hop = true;
                let tokens = value.as_bytes().split(|&octet| octet == b',');
                nominated.extend(
                    tokens
                        .filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok())
                        .filter(|name| *name != header::CONTENT_LENGTH),
                );
            }
            header::TRANSFER_ENCODING => (hop_by_hop, coded) = (true, true),
            header::UPGRADE | header::TE => hop_by_hop = true,
            header::SET_COOKIE => cookies = true,
            _ => {
                hop_by_hop |= matches!(name.as_str(), "keep-alive" | "proxy-connection");
                clears |= *name == cookies::CLEAR_SITE_DATA;
                if is_edge_only(name.as_str()) {
                    nominated.push(name.clone());
                }
            }
        }
    }
    if hop_by_hop {
        for name in &HOP_BY_HOP {
            headers.remove(name);
        }
    }
    if clears {
        cookies::spare(headers);
    }
    if coded {
        // The coding counts and the length is a lie, if there is one (RFC 9112, 6.3).
        headers.remove(header::CONTENT_LENGTH);
    }
    for name in nominated {
        headers.remove(name);
    }
    if cookies {
        cookies::drop_wide(headers, hostname);
    }
}

/// Removes from trailers, in either direction, what may not come after the body it speaks of (RFC 9110,
/// 6.5.1), and what only the edge may say: a program that merges trailers into the head's fields
/// would believe it.
pub(crate) fn clean_trailers(trailers: &mut HeaderMap) {
    let may_pass = |name: &HeaderName| {
        !HOP_BY_HOP.contains(name)
            && !NOT_IN_TRAILERS.contains(name)
            && !is_ours(name.as_str())
            && !name.as_str().starts_with("proxy")
    };
    let gone: Vec<_> = trailers.keys().filter(|name| !may_pass(name)).cloned().collect();
    for name in gone {
        trailers.remove(name);
    }
}

/// Whether a hook's script may change a field of a request: none of framing and hops, and none that
/// only the edge may set.
pub(crate) fn may_be_set(name: &HeaderName) -> bool {
    let framing = [header::CONTENT_LENGTH, header::EXPECT, header::HOST, header::TRAILER];
    !HOP_BY_HOP.contains(name) && !framing.contains(name) && !is_ours(name.as_str())
}

/// Whether a field of an answer is the edge's own word: a container shall not imitate its errors.
fn is_edge_only(name: &str) -> bool {
    matches!(name, "x-gantry-error" | "x-request-id")
}

/// Whether a field of a request is one that only the edge may set, in any spelling: some servers
/// read `X_Forwarded_For` and `X.Forwarded.For` as `X-Forwarded-For`.
fn is_ours(name: &str) -> bool {
    let canonical = |octet: u8| if matches!(octet, b'_' | b'.') { b'-' } else { octet };
    let starts = |prefix: &str| {
        name.len() >= prefix.len()
            && name.bytes().zip(prefix.bytes()).all(|(octet, want)| canonical(octet) == want)
    };
    let is = |whole: &str| name.len() == whole.len() && starts(whole);
    starts("x-forwarded")
        || is("forwarded")
        || is("x-real-ip")
        || is("x-request-id")
        || starts("x-gantry-")
}

/// Whether a client holds its body back until it is asked for it (RFC 9110, 10.1.1).
pub(crate) fn expects_continue(headers: &HeaderMap) -> bool {
    headers
        .get(header::EXPECT)
        .is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Whether a media type is one of gRPC itself; gRPC-Web is ordinary HTTP.
fn is_grpc(media_type: &[u8]) -> bool {
    const NAME: &[u8] = b"application/grpc";
    let (name, rest) = media_type.split_at(NAME.len().min(media_type.len()));
    name.eq_ignore_ascii_case(NAME) && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
}

/// Whether a comma-separated value contains `token`.
pub(crate) fn lists(value: &HeaderValue, token: &[u8]) -> bool {
    value
        .as_bytes()
        .split(|&octet| matches!(octet, b',' | b';'))
        .any(|part| part.trim_ascii().eq_ignore_ascii_case(token))
}

/// Whether a value is a W3C trace context of version 00 (or later, of the same form).
fn is_trace_parent(value: &[u8]) -> bool {
    let hex = |part: &[u8]| part.iter().all(|o| matches!(o, b'0'..=b'9' | b'a'..=b'f'));
    let zero = |part: &[u8]| part.iter().all(|&octet| octet == b'0');
    let mut parts = value.split(|&octet| octet == b'-');
    match (parts.next(), parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(version), Some(trace), Some(span), Some(flags), None) => {
            (version.len(), trace.len(), span.len(), flags.len()) == (2, 32, 16, 2)
                && [version, trace, span, flags].into_iter().all(hex)
                && version != b"ff"
                && !zero(trace)
                && !zero(span)
        }
        _ => false,
    }
}

/// A trace context for a request that came without one. Its trace is the request's id.
fn trace_parent(id: &[u8; 32], span: [u8; 8]) -> [u8; 55] {
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-01";
    if let Some(trace) = text.get_mut(3..35) {
        trace.copy_from_slice(id);
    }
    if let Some(parent) = text.get_mut(36..52) {
        // The slice has the length that the encoder wants.
        _ = hex::encode_to_slice(span, parent);
    }
    text
}

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn what_ends_at_this_hop_and_what_is_ours_does_not_pass() {
        let headers = map(&[
            ("host", "a"),
            ("connection", "close, X-Private"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-authorization", "Basic eDp5"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("transfer-encoding", "chunked"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x_forwarded_for", "1.1.1.1"),
            ("x.forwarded-host", "evil"),
            ("x-forwarded", "for=1.1.1.1"),
            ("forwarded", "for=1.1.1.1"),
            ("x_real_ip", "1.1.1.1"),
            ("x-request-id", "chosen"),
            ("x-gantry-identity", "root"),
            ("content_length", "40"),
            ("transfer_encoding", "chunked"),
            ("proxy", "http://evil"),
            ("x-real-ipx", "kept"),
            ("authorization", "Bearer kept"),
            ("trailer", "x-sum"),
        ]);
        let survey = Survey::of(&headers, Version::HTTP_11);
        survey.check(128).unwrap();
        assert_eq!(
            names(&survey.passing(&headers)),
            ["authorization", "host", "trailer", "x-real-ipx"]
        );
    }

    #[test]
    fn trailers_say_nothing_that_belongs_before_the_body() {
        let mut trailers = map(&[
            ("content-length", "5"),
            ("transfer-encoding", "chunked"),
            ("host", "evil"),
            ("cookie", "a=b"),
            ("set-cookie", "a=b"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x_real_ip", "1.1.1.1"),
            ("x-gantry-error", "NOT_FOUND"),
            ("connection", "close"),
            ("grpc-status", "0"),
            ("x-sum", "kept"),
        ]);
        clean_trailers(&mut trailers);
        assert_eq!(names(&trailers), ["grpc-status", "x-sum"]);
    }

    #[test]
    fn connection_cannot_remove_what_others_rely_on() {
        for value in ["host", "Content-Length", "close, authorization", "cookie", "a b"] {
            let headers = map(&[("connection", value)]);
            let survey = Survey::of(&headers, Version::HTTP_11);
            assert!(survey.check(128).is_err(), "{value}");
        }
    }

    #[test]
    fn connection_names_no_more_than_somebody_reads() {
        for (count, is_right) in [(NOMINATED_MAX, true), (NOMINATED_MAX + 1, false)] {
            let names: Vec<_> = (0..count).map(|at| format!("x-{at}")).collect();
            // In one field or in several.
            for lines in [vec![names.join(", ")], names.clone()] {
                let mut headers = HeaderMap::new();
                for line in lines {
                    headers.append(header::CONNECTION, HeaderValue::try_from(line).unwrap());
                }
                let survey = Survey::of(&headers, Version::HTTP_11);
                assert_eq!(survey.check(128).is_ok(), is_right, "{headers:?}");
            }
        }
    }

    #[test]
    fn a_tunnel_is_asked_for_by_two_fields_over_http_1_1() {
        for (connection, upgrade, version, want) in [
            ("Upgrade", "websocket", Version::HTTP_11, true),
            ("keep-alive, upgrade", "WebSocket", Version::HTTP_11, true),
            ("keep-alive", "websocket", Version::HTTP_11, false),
            ("upgrade", "h2c", Version::HTTP_11, false),
            ("upgrade", "websocket", Version::HTTP_10, false),
        ] {
            let headers = map(&[("connection", connection), ("upgrade", upgrade)]);
            let survey = Survey::of(&headers, version);
            assert_eq!(survey.upgrade.is_some(), want, "{connection} {upgrade} {version:?}");
        }
    }

    #[test]
    fn a_request_with_a_body_gets_no_tunnel() {
        for (name, value, want) in [
            ("content-length", "0", true),
            ("content-length", "3", false),
            ("transfer-encoding", "chunked", false),
        ] {
            let fields = [("connection", "upgrade"), ("upgrade", "websocket"), (name, value)];
            let survey = Survey::of(&map(&fields), Version::HTTP_11);
            assert_eq!(survey.upgrade.is_some(), want, "{name}: {value}");
        }
    }

    #[test]
    fn a_trace_is_kept_if_it_is_one() {
        for (value, want) in [
            ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", true),
            ("00-00000000000000000000000000000000-b7ad6b7169203331-01", false),
            ("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false),
            ("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", false),
            ("nonsense", false),
        ] {
            assert_eq!(is_trace_parent(value.as_bytes()), want, "{value}");
        }
        let parent = trace_parent(b"abababababababababababababababab", [0xcd; 8]);
        assert!(is_trace_parent(&parent), "{parent:?}");
    }
}
