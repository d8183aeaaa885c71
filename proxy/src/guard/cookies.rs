//! Cookies of a request (RFC 6265, 4.2.1): one is found by its exact name, some are taken out, the
//! others pass octet by octet as they came.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};

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
}
