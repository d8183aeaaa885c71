//! Parameters of a query, as forms write them (`application/x-www-form-urlencoded`): one is found by
//! its exact name, some are taken out, the others pass as they came.

use std::{borrow::Cow, fmt::Write};

use http::uri::PathAndQuery;

use crate::cookies::Found;

/// The value of the parameter with this exact name.
pub(crate) fn find<'q>(query: &'q str, name: &str) -> Found<Cow<'q, [u8]>> {
    let named = query.split('&').map(split).filter(|(key, _)| is(key, name));
    Found::of(named.map(|(_, value)| decode(value)))
}

/// The same path and query without the parameters that `is_ours` knows by their decoded names;
/// nothing if there are none.
pub(crate) fn remove(path: &PathAndQuery, is_ours: impl Fn(&[u8]) -> bool) -> Option<PathAndQuery> {
    let kept = kept(path.query()?, is_ours)?;
    let text = match kept.as_str() {
        "" => path.path().to_owned(),
        kept => format!("{}?{kept}", path.path()),
    };
    // Parts of a valid one are valid.
    PathAndQuery::try_from(text).ok()
}

/// The query without the parameters that `is_ours` knows; nothing if there are none.
pub(crate) fn kept(query: &str, is_ours: impl Fn(&[u8]) -> bool) -> Option<String> {
    let ours = |part: &&str| is_ours(&decode(split(part).0));
    if !query.split('&').any(|part| ours(&part)) {
        return None;
    }
    let kept: Vec<&str> = query.split('&').filter(|part| !ours(part)).collect();
    Some(kept.join("&"))
}

fn split(part: &str) -> (&str, &str) {
    part.split_once('=').unwrap_or((part, ""))
}

fn is(key: &str, name: &str) -> bool {
    key == name || *decode(key) == *name.as_bytes()
}

/// Decodes `+` and `%xx`; what is no escape stands for itself.
pub(crate) fn decode(text: &str) -> Cow<'_, [u8]> {
    if !text.bytes().any(|octet| matches!(octet, b'%' | b'+')) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after) {
            (b'+', _) => decoded.push(b' '),
            (b'%', [high, low, beyond @ ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => {
                    decoded.push(high << 4 | low);
                    rest = beyond;
                }
                _ => decoded.push(b'%'),
            },
            (other, _) => decoded.push(*other),
        }
    }
    Cow::Owned(decoded)
}

/// Encodes a value for a query.
pub(crate) fn encode(value: &str) -> String {
    let mut encoded = String::with_capacity(value.len());
    for octet in value.bytes() {
        if octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(octet));
        } else {
            // Writing to a string cannot fail.
            _ = write!(encoded, "%{octet:02X}");
        }
    }
    encoded
}

const fn digit(octet: u8) -> Option<u8> {
    match octet {
        b'0'..=b'9' => Some(octet - b'0'),
        b'a'..=b'f' => Some(octet - b'a' + 10),
        b'A'..=b'F' => Some(octet - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_found_by_its_exact_name_and_only_once() {
        for (query, want) in [
            ("k=v", Found::One("v")),
            ("a=1&k=v%20w+x&b=2", Found::One("v w x")),
            ("%6B=v", Found::One("v")),
            ("k", Found::One("")),
            ("k=a=b", Found::One("a=b")),
            ("k=%zz%4", Found::One("%zz%4")),
            ("K=v&kk=v", Found::Absent),
            ("", Found::Absent),
            ("k=v&k=v", Found::Several),
            ("k=v&%6b=v", Found::Several),
        ] {
            let got = find(query, "k");
            let got = match &got {
                Found::One(value) => Found::One(std::str::from_utf8(value).unwrap()),
                Found::Absent => Found::Absent,
                Found::Several => Found::Several,
            };
            assert_eq!(got, want, "{query}");
        }
    }

    #[test]
    fn what_is_encoded_is_read_back() {
        for value in ["", "/a?b=c&d=%41+#é", "~._-"] {
            let encoded = encode(value);
            assert!(encoded.is_ascii() && !encoded.contains(['&', '=', '+', '#', '?', '/']));
            assert_eq!(&*decode(&encoded), value.as_bytes());
        }
    }

    #[test]
    fn only_the_named_parameters_are_taken_out() {
        for (path, want) in [
            ("/a?k=v", Some("/a")),
            ("/a?x=%41&k=v&y=+", Some("/a?x=%41&y=+")),
            ("/a?%6b=v&k=w&z", Some("/a?z")),
            ("/a?&k=v&", Some("/a?&")),
            ("/a?x=1", None),
            ("/a?", None),
            ("/a", None),
            ("/k=v", None),
        ] {
            let without = remove(&path.parse().unwrap(), |name| name == b"k");
            assert_eq!(without.as_ref().map(PathAndQuery::as_str), want, "{path}");
        }
    }
}
