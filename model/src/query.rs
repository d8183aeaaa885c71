//! The query of a URL, pair by pair.

use std::borrow::Cow;

/// A path, and the query behind it, which may be empty.
pub(crate) fn split(path_and_query: &str) -> (&str, &str) {
    path_and_query.split_once('?').unwrap_or((path_and_query, ""))
}

/// The pairs of a query, as they are written; empty ones are left out.
pub(crate) fn pairs(query: &str) -> impl Iterator<Item = &str> {
    query.split('&').filter(|pair| !pair.is_empty())
}

/// Whether a pair sets one of the parameters that `is_own` knows by their decoded names, in whatever
/// spelling. Some servers still take a semicolon for an ampersand.
pub(crate) fn sets(pair: &str, is_own: impl Fn(&[u8]) -> bool) -> bool {
    pair.split(';').any(|pair| is_own(&key(pair)))
}

/// The name of a parameter, decoded.
pub(crate) fn key(pair: &str) -> Cow<'_, [u8]> {
    let key = pair.split_once('=').map_or(pair, |(key, _)| key).as_bytes();
    if !key.iter().any(|octet| matches!(octet, b'%' | b'+')) {
        return Cow::Borrowed(key);
    }
    let mut decoded = Vec::with_capacity(key.len());
    let mut rest = key;
    while let [first, tail @ ..] = rest {
        let escaped = tail.first_chunk().filter(|_| *first == b'%');
        let escaped = escaped.and_then(|digits| escape(*digits));
        decoded.push(escaped.unwrap_or(if *first == b'+' { b' ' } else { *first }));
        rest = if escaped.is_some() { tail.get(2..).unwrap_or_default() } else { tail };
    }
    Cow::Owned(decoded)
}

/// The octet that two hexadecimal digits stand for.
pub(crate) fn escape(digits: [u8; 2]) -> Option<u8> {
    let mut octet = [0];
    hex::decode_to_slice(digits, &mut octet).ok()?;
    Some(octet[0])
}

/// Adds a pair to a path and query.
pub(crate) fn push(path_and_query: &mut String, pair: &str) {
    path_and_query.push(if path_and_query.contains('?') { '&' } else { '?' });
    path_and_query.push_str(pair);
}
