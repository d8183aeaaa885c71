//! Cookies (RFC 6265). Of a request's one is found by its exact name, some are taken out, the others
//! pass octet by octet as they came; of an answer's those that would reach other hosts are dropped.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};

/// What the names of the edge's own cookies begin with. No container sees or sets them.
pub(crate) const OURS: &[u8] = b"__Host-gantry-";

/// Makes a browser forget what it keeps of a host.
pub(crate) static CLEAR_SITE_DATA: HeaderName = HeaderName::from_static("clear-site-data");

/// What a request has in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found<T> {
    Absent,
    One(T),
    /// More than one: which of them counts depends on who reads, so that none does.
    Several,
}

impl<T> Found<T> {
    /// Collects what an iterator brings.
    pub(crate) fn of(mut all: impl Iterator<Item = T>) -> Self {
        match (all.next(), all.next()) {
            (None, _) => Self::Absent,
            (Some(one), None) => Self::One(one),
            (Some(_), Some(_)) => Self::Several,
        }
    }

    /// The one, if there is exactly one.
    pub(crate) fn one(self) -> Option<T> {
        match self {
            Self::One(one) => Some(one),
            Self::Absent | Self::Several => None,
        }
    }
}

/// The value of the cookie with this exact name.
pub(crate) fn find<'h>(headers: &'h HeaderMap, name: &str) -> Found<&'h [u8]> {
    let fields = headers.get_all(header::COOKIE).iter();
    let pairs = fields.flat_map(|field| pairs(field.as_bytes()));
    Found::of(pairs.filter(|pair| pair.name == name.as_bytes()).map(|pair| pair.value))
}

/// The names of all cookies, but of those without one.
pub(crate) fn names(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let fields = headers.get_all(header::COOKIE).iter();
    fields
        .flat_map(|field| pairs(field.as_bytes()))
        .map(|pair| pair.name)
        .filter(|it| !it.is_empty())
}

/// Takes out the cookies whose names `is_ours` knows; a field that is empty then goes, too.
pub(crate) fn remove(headers: &mut HeaderMap, is_ours: impl Fn(&[u8]) -> bool) {
    let any = headers.get_all(header::COOKIE).iter();
    if !any.flat_map(|field| pairs(field.as_bytes())).any(|pair| is_ours(pair.name)) {
        return;
    }
    let mut kept = Vec::new();
    for field in headers.get_all(header::COOKIE) {
        for pair in pairs(field.as_bytes()).filter(|pair| !is_ours(pair.name)) {
            if !kept.is_empty() {
                kept.extend_from_slice(b"; ");
            }
            kept.extend_from_slice(pair.whole);
        }
    }
    headers.remove(header::COOKIE);
    if !kept.is_empty()
        && let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(kept))
    {
        headers.insert(header::COOKIE, value);
    }
}

/// HTTP/2 clients may send a cookie in pieces; HTTP/1.1 knows one field (RFC 9113, 8.2.3).
pub(crate) fn join(headers: &mut HeaderMap) {
    if !headers.contains_key(header::COOKIE) {
        return;
    }
    let mut joined = Vec::new();
    for cookie in headers.get_all(header::COOKIE) {
        if !joined.is_empty() {
            joined.extend_from_slice(b"; ");
        }
        joined.extend_from_slice(cookie.as_bytes());
    }
    if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(joined)) {
        headers.insert(header::COOKIE, value);
    }
}

/// Drops cookies for a domain that is wider than the host itself: they would reach other tenants. Those
/// with names of the edge's own go, too.
pub(crate) fn drop_wide(headers: &mut HeaderMap, hostname: &str) {
    let narrow = |value: &HeaderValue| {
        let ours = value.as_bytes().trim_ascii_start().get(..OURS.len());
        if ours.is_some_and(|name| name.eq_ignore_ascii_case(OURS)) {
            return false;
        }
        let attributes = value.as_bytes().split(|&octet| octet == b';').skip(1);
        attributes.map(<[u8]>::trim_ascii).all(|attribute| {
            let mut parts = attribute.splitn(2, |&octet| octet == b'=');
            let name = parts.next().unwrap_or_default().trim_ascii();
            if !name.eq_ignore_ascii_case(b"domain") {
                return true;
            }
            let domain = parts.next().unwrap_or_default().trim_ascii();
            let domain = domain.strip_prefix(b".").unwrap_or(domain);
            domain.is_empty() || domain.eq_ignore_ascii_case(hostname.as_bytes())
        })
    };
    let all = || headers.get_all(header::SET_COOKIE).iter();
    if all().all(narrow) {
        return;
    }
    let kept: Vec<HeaderValue> = all().filter(|value| narrow(value)).cloned().collect();
    headers.remove(header::SET_COOKIE);
    for value in kept {
        headers.append(header::SET_COOKIE, value);
    }
}

/// Lets an answer clear what is its host's own, and no cookies: a browser would clear those of all
/// hosts of the domain, which are other tenants' (Clear Site Data, W3C, 3.1).
pub(crate) fn spare(headers: &mut HeaderMap) {
    let mut kept: Vec<&[u8]> = Vec::new();
    for value in headers.get_all(&CLEAR_SITE_DATA) {
        for kind in value.as_bytes().split(|&octet| octet == b',').map(<[u8]>::trim_ascii) {
            match kind {
                b"\"cookies\"" => {}
                b"\"*\"" => kept.extend([&b"\"cache\""[..], b"\"storage\""]),
                other => kept.push(other),
            }
        }
    }
    let kept = Bytes::from(kept.join(&b", "[..]));
    match HeaderValue::from_maybe_shared(kept) {
        Ok(value) if !value.is_empty() => drop(headers.insert(&CLEAR_SITE_DATA, value)),
        Ok(_) | Err(_) => drop(headers.remove(&CLEAR_SITE_DATA)),
    }
}

#[derive(Clone, Copy, Debug)]
struct Pair<'h> {
    whole: &'h [u8],
    name: &'h [u8],
    value: &'h [u8],
}

/// The pairs of one field. What has no `=` is a cookie without a name, as browsers have it.
fn pairs(field: &[u8]) -> impl Iterator<Item = Pair<'_>> {
    let parts = field.split(|&octet| octet == b';').map(<[u8]>::trim_ascii);
    parts.filter(|part| !part.is_empty()).map(|whole| {
        let mut sides = whole.splitn(2, |&octet| octet == b'=');
        match (sides.next(), sides.next()) {
            (Some(name), Some(value)) => {
                Pair { whole, name: name.trim_ascii_end(), value: value.trim_ascii_start() }
            }
            (Some(_) | None, _) => Pair { whole, name: b"", value: whole },
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(header::COOKIE, HeaderValue::from_str(field).unwrap());
        }
        headers
    }

    #[test]
    fn a_cookie_is_found_by_its_exact_name_and_only_once() {
        for (fields, want) in [
            (&["a=1; k=v"][..], Found::One(&b"v"[..])),
            (&["k=v=w"], Found::One(b"v=w")),
            (&["k="], Found::One(b"")),
            (&["a=1;k=v;b=2"], Found::One(b"v")),
            (&["a=1", "k=v"], Found::One(b"v")),
            (&["K=v", "kk=v", "xk=v", "a=k=v"], Found::Absent),
            (&["k"], Found::Absent),
            (&[""], Found::Absent),
            (&[";;=;"], Found::Absent),
            (&["k=v; k=v"], Found::Several),
            (&["k=v", "a=b; k=w"], Found::Several),
            // Spaces do not make another name of it.
            (&["k =v; k=w"], Found::Several),
        ] {
            assert_eq!(find(&headers(fields), "k"), want, "{fields:?}");
        }
    }

    #[test]
    fn only_the_named_cookies_are_taken_out() {
        for (fields, want) in [
            (&["a=1; k=v; b=\"2 3\""][..], Some("a=1; b=\"2 3\"")),
            (&["k=v"], None),
            (&["k=v; k=w", "k=x"], None),
            (&["a=1", "k=v", "b=2"], Some("a=1; b=2")),
            (&["k =v; a"], Some("a")),
            (&["a=1;b=2"], Some("a=1;b=2")),
        ] {
            let mut headers = headers(fields);
            remove(&mut headers, |name| name == b"k");
            let left = headers.get(header::COOKIE).map(|value| value.to_str().unwrap());
            assert_eq!(left, want, "{fields:?}");
        }
    }

    #[test]
    fn a_cookie_for_more_than_its_host_is_dropped() {
        let host = "a-b-http-80.local.containers.example.com";
        for (cookie, kept) in [
            ("a=1", true),
            ("a=1; Path=/; Secure", true),
            ("a=1; Domain=a-b-http-80.local.containers.example.com", true),
            ("a=1; domain=.A-B-http-80.local.containers.example.com", true),
            ("a=1; Domain=", true),
            ("a=1; Domain=local.containers.example.com", false),
            ("a=1; DOMAIN = example.com ; Secure", false),
            ("a=1; Domain=example.com; Domain=a-b-http-80.local.containers.example.com", false),
            ("a=1; Domain=other.example", false),
            ("__Host-gantry-session=x; Path=/; Secure", false),
            (" __host-Gantry-=x", false),
            ("__Host-other=x; Path=/; Secure", true),
        ] {
            let mut headers = HeaderMap::new();
            for cookie in [cookie, "z=1"] {
                headers.append(header::SET_COOKIE, HeaderValue::from_static(cookie));
            }
            drop_wide(&mut headers, host);
            let left = headers.get_all(header::SET_COOKIE).iter().count();
            assert_eq!(left, if kept { 2 } else { 1 }, "{cookie}");
        }
    }

    #[test]
    fn pieces_of_a_cookie_become_one() {
        let mut headers = headers(&["a=1", "b=2"]);
        join(&mut headers);
        assert_eq!(headers.get_all(header::COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2"]);
    }

    #[test]
    fn an_answer_does_not_clear_the_cookies_of_others() {
        for (value, want) in [
            ("\"cache\", \"storage\"", Some("\"cache\", \"storage\"")),
            ("\"cache\",\"cookies\" , \"storage\"", Some("\"cache\", \"storage\"")),
            ("\"*\"", Some("\"cache\", \"storage\"")),
            ("\"cookies\"", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(&CLEAR_SITE_DATA, HeaderValue::from_static(value));
            spare(&mut headers);
            let left = headers.get(&CLEAR_SITE_DATA).map(|value| value.to_str().unwrap());
            assert_eq!(left, want, "{value}");
        }
    }
}
