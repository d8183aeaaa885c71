//! What a log may not show: credentials, wherever clients and containers put them.
//!
//! Names decide: of fields, of parameters in queries and forms, of members in JSON. A value whose name
//! speaks of a credential is replaced; so is what the container's own permission document reads.

use http::{HeaderMap, HeaderValue, header, uri::PathAndQuery};
use serde_json::Value;

use crate::guard::query;

/// What stands in the place of a credential.
pub(super) const REDACTED: &str = "REDACTED";

/// A name that has one of these in it is a credential's.
const PARTS: [&str; 19] = [
    "token",
    "secret",
    "passw",
    "passphrase",
    "credential",
    "apikey",
    "api-key",
    "api_key",
    "authoriz",
    "authentic",
    "oauth",
    "auth-",
    "auth_",
    "cookie",
    "signature",
    "session",
    "jwt",
    "assertion",
    "saml",
];
/// Fields that are credentials, too, or may hold them.
const FIELDS: [&str; 2] = ["x-auth", "sec-websocket-protocol"];
/// Parameters that are credentials, too; as fields these names are harmless.
const PARAMETERS: [&str; 9] =
    ["key", "code", "sig", "pwd", "pass", "sid", "otp", "auth", "private_key"];
/// Fields whose values are addresses, which may have parameters.
const ADDRESSES: [header::HeaderName; 4] =
    [header::REFERER, header::LOCATION, header::CONTENT_LOCATION, header::REFRESH];

/// What is replaced beside what is known to everybody.
#[derive(Clone, Debug, Default)]
pub(crate) struct Redaction {
    /// Names of fields, in lower case.
    fields: Vec<String>,
    /// Names of parameters and members, in lower case.
    parameters: Vec<String>,
}

impl Redaction {
    /// Knows these names besides.
    pub(super) fn new(fields: &[String], parameters: &[String]) -> Self {
        let lower = |names: &[String]| names.iter().map(|name| name.to_ascii_lowercase()).collect();
        Self { fields: lower(fields), parameters: lower(parameters) }
    }

    /// Path and query without credentials, cut off after about `max` octets; nothing if there is nothing
    /// to change. `is_ours` knows the parameters that the container's gate reads, by their decoded names.
    pub(crate) fn target(
        &self,
        target: &PathAndQuery,
        max: usize,
        is_ours: impl Fn(&[u8]) -> bool,
    ) -> Option<Box<str>> {
        let path = self.path(target.path());
        let all = target.query();
        // What is cut off needs no look, and a whole parameter is cut off or none of it.
        let kept = all.filter(|all| all.len() > max).map_or(all, |all| {
            // A character may lie across the cut.
            let start = (0..4).find_map(|less| all.get(..max.saturating_sub(less)));
            start.map(|start| start.rsplit_once('&').map_or("", |(whole, _)| whole))
        });
        let query = kept.and_then(|kept| self.query(kept, is_ours));
        if path.is_none() && query.is_none() && kept == all {
            return None;
        }
        let mut shown = path.unwrap_or_else(|| target.path().to_owned());
        if let Some(query) = query.as_deref().or(kept) {
            shown.push('?');
            shown.push_str(query);
            shown.push_str(if kept == all { "" } else { "…" });
        }
        Some(shown.into())
    }

    /// A path whose parts have no parameters (`;jsessionid=…`) that are credentials; nothing if there
    /// are none.
    fn path(&self, path: &str) -> Option<String> {
        memchr::memchr(b';', path.as_bytes())?;
        let mut any = false;
        let mut clean = |part: &str| match part.split_once('=') {
            Some((name, value)) if self.is_parameter(name.as_bytes()) => {
                any = true;
                let rest = value.find('/').and_then(|end| value.get(end..)).unwrap_or_default();
                format!("{name}={REDACTED}{rest}")
            }
            Some(_) | None => part.to_owned(),
        };
        let mut parts = path.split(';');
        let first = parts.next().unwrap_or_default().to_owned();
        let shown = parts.fold(first, |shown, part| shown + ";" + &clean(part));
        any.then_some(shown)
    }

    /// A query or form without credentials; nothing if there are none.
    fn query(&self, text: &str, is_ours: impl Fn(&[u8]) -> bool) -> Option<String> {
        let secret = |part: &str| {
            let name = query::decode(part.split_once('=').unwrap_or((part, "")).0);
            self.is_parameter(&name) || is_ours(&name)
        };
        if !text.split('&').any(secret) {
            return None;
        }
        let mut shown = String::with_capacity(text.len());
        for (at, part) in text.split('&').enumerate() {
            if at > 0 {
                shown.push('&');
            }
            match part.split_once('=') {
                Some((name, _)) if secret(part) => {
                    shown.push_str(name);
                    shown.push('=');
                    shown.push_str(REDACTED);
                }
                Some(_) | None => shown.push_str(part),
            }
        }
        Some(shown)
    }

    /// The fields of a head, as they may be shown: in their order, names in lower case.
    pub(super) fn fields(&self, headers: &HeaderMap) -> Vec<(Box<str>, Box<str>)> {
        let shown = |(name, value): (&header::HeaderName, &HeaderValue)| {
            let text = if self.is_field(name.as_str()) || value.is_sensitive() {
                REDACTED.into()
            } else {
                let text = String::from_utf8_lossy(value.as_bytes());
                let is_address = ADDRESSES.contains(name);
                let clean = is_address.then(|| self.address(&text)).flatten();
                clean.unwrap_or_else(|| text.into_owned())
            };
            (name.as_str().into(), text.into())
        };
        headers.iter().map(shown).collect()
    }

    fn address(&self, text: &str) -> Option<String> {
        // A fragment is where some put tokens.
        let (address, fragment) = text.split_once('#').unwrap_or((text, ""));
        let shown = address.split_once('?').and_then(|(page, query)| {
            let query = self.query(query, |_| false)?;
            Some(format!("{page}?{query}"))
        });
        if shown.is_none() && fragment.is_empty() {
            return None;
        }
        Some(shown.unwrap_or_else(|| address.to_owned()))
    }

    /// A body as it may be shown: forms and JSON without credentials. Nothing of JSON that cannot be read,
    /// because it was cut off or has not come to its end yet: what is a credential in it is not known.
    pub(super) fn body(&self, kind: &str, text: String) -> Option<String> {
        if kind.starts_with("application/x-www-form-urlencoded") {
            let clean = self.query(&text, |_| false);
            return Some(clean.unwrap_or(text));
        }
        if !kind.starts_with("application/json") && !kind.contains("+json") {
            return Some(text);
        }
        let mut value: Value = serde_json::from_str(&text).ok()?;
        Some(if self.members(&mut value) { value.to_string() } else { text })
    }

    /// Replaces what members hold whose names speak of credentials; says whether there were any. The
    /// reader of JSON bounds how deep it goes.
    fn members(&self, value: &mut Value) -> bool {
        match value {
            Value::Object(members) => {
                let mut any = false;
                for (name, value) in members {
                    let is_text = value.is_string() || value.is_number();
                    if is_text && self.is_parameter(name.as_bytes()) {
                        *value = REDACTED.into();
                        any = true;
                    } else {
                        any |= self.members(value);
                    }
                }
                any
            }
            Value::Array(values) => {
                let mut any = false;
                for value in values {
                    any |= self.members(value);
                }
                any
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
        }
    }

    fn is_parameter(&self, name: &[u8]) -> bool {
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        PARTS.iter().any(|part| name.contains(part))
            || PARAMETERS.contains(&name.as_str())
            || self.parameters.contains(&name)
    }

    fn is_field(&self, name: &str) -> bool {
        PARTS.iter().any(|part| name.contains(part))
            || FIELDS.contains(&name)
            || self.fields.iter().any(|own| own == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redaction() -> Redaction {
        Redaction::new(&["X-Pin".to_owned()], &["Pin".to_owned()])
    }

    #[test]
    fn parameters_that_speak_of_credentials_are_replaced() {
        for (target, want) in [
            ("/a?b=c", None),
            ("/a", None),
            ("/a?", None),
            ("/token=x/secret", None),
            ("/a?access_token=x&b=c", Some("/a?access_token=REDACTED&b=c")),
            ("/a?b=%41&API%5fKEY=x=y&", Some("/a?b=%41&API%5fKEY=REDACTED&")),
            ("/a?key=x&keys=y&author=z", Some("/a?key=REDACTED&keys=y&author=z")),
            ("/a?X-Amz-Signature=x", Some("/a?X-Amz-Signature=REDACTED")),
            ("/a?pin=1&PIN=2", Some("/a?pin=REDACTED&PIN=REDACTED")),
            ("/a?own=1", Some("/a?own=REDACTED")),
            ("/a?code", Some("/a?code")),
            ("/a?password=", Some("/a?password=REDACTED")),
            ("/a;jsessionid=x/b;v=1;c?d=e", Some("/a;jsessionid=REDACTED/b;v=1;c?d=e")),
            ("/a;v=1/b", None),
            // A query is cut off between two parameters, before anything in it is looked at.
            ("/a?bb=01234567890123456&cc=01234567890123456&dd=0", Some("/a?bb=01234567890123456…")),
            ("/a?bb=0123456789012345678901234567890123456789", Some("/a?…")),
        ] {
            let shown = redaction().target(&target.parse().unwrap(), 40, |name| name == b"own");
            assert_eq!(shown.as_deref(), want, "{target}");
        }
    }

    #[test]
    fn fields_that_speak_of_credentials_are_replaced() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Basic x"),
            ("cookie", "a=x"),
            ("set-cookie", "a=x"),
            ("proxy-authorization", "x"),
            ("x-api-key", "x"),
            ("x-csrf-token", "x"),
            ("x-pin", "x"),
            ("referer", "https://a/?token=x&b=c"),
            ("location", "/b?c#access_token=x"),
            ("content-location", "https://a/b#access_token=x?c"),
            ("cf-access-jwt-assertion", "x"),
            ("sec-websocket-protocol", "bearer, x"),
            ("accept", "text/html"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let shown = redaction().fields(&headers);
        let of = |name: &str| {
            let (_, value) = shown.iter().find(|(known, _)| &**known == name).unwrap();
            value.to_string()
        };
        assert_eq!(of("content-location"), "https://a/b");
        for name in [
            "authorization",
            "cookie",
            "set-cookie",
            "x-api-key",
            "x-pin",
            "cf-access-jwt-assertion",
            "sec-websocket-protocol",
        ] {
            assert_eq!(of(name), REDACTED, "{name}");
        }
        assert_eq!(of("referer"), "https://a/?token=REDACTED&b=c");
        assert_eq!(of("location"), "/b?c");
        assert_eq!(of("accept"), "text/html");
        assert_eq!(of("x-csrf-token"), REDACTED);
    }

    #[test]
    fn bodies_are_shown_without_credentials() {
        for (kind, text, want) in [
            ("application/x-www-form-urlencoded", "a=b&password=x", Some("a=b&password=REDACTED")),
            ("application/json", r#"{"a": 1}"#, Some(r#"{"a": 1}"#)),
            (
                "application/json; charset=utf-8",
                r#"[{"a":{"pin":1,"accessToken":"x"},"tokens":["x"]}]"#,
                Some(r#"[{"a":{"accessToken":"REDACTED","pin":"REDACTED"},"tokens":["x"]}]"#),
            ),
            ("application/json", r#"{"password":"x"#, None),
            ("text/plain", "password=x", Some("password=x")),
        ] {
            let shown = redaction().body(kind, text.to_owned());
            assert_eq!(shown.as_deref(), want, "{text}");
        }
    }
}
