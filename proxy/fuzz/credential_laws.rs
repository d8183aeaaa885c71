// What must hold for every credential, however it was made. Included by the fuzz targets and by the
// test that replays their seeds, both of which have the edge's modules at `crate`.

use std::collections::BTreeMap;

use gantry_model::access::JwtAlgorithm;
use http::{HeaderMap, HeaderValue, header};

use super::{basic, jwt, query};
use crate::cookies::{self, Found};

/// The secret of the tokens among the seeds.
const SECRET: &str = "the secret of the seeds";

/// A cookie that was taken out is gone, and the others are as they were, one field a line.
pub(crate) fn cookies(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|&octet| octet == b'\n').take(8) {
        let Ok(value) = HeaderValue::from_bytes(line) else { return };
        headers.append(header::COOKIE, value);
    }
    let names =
        |headers: &HeaderMap| cookies::names(headers).map(<[u8]>::to_vec).collect::<Vec<_>>();
    let before = names(&headers);
    let count = before.iter().filter(|name| *name == b"k").count();
    match cookies::find(&headers, "k") {
        Found::Absent => assert_eq!(count, 0),
        Found::One(_) => assert_eq!(count, 1),
        Found::Several => assert!(count > 1),
    }
    cookies::remove(&mut headers, |name| name == b"k");
    assert_eq!(cookies::find(&headers, "k"), Found::Absent);
    let left: Vec<Vec<u8>> = before.into_iter().filter(|name| name != b"k").collect();
    assert_eq!(names(&headers), left);
    cookies::join(&mut headers);
    assert_eq!(names(&headers), left);
    assert!(headers.get_all(header::COOKIE).iter().count() <= 1);
}

/// A parameter that was taken out is gone, and the others are as they were.
pub(crate) fn query(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let is_ours = |name: &[u8]| name == b"k";
    match query::kept(text, is_ours) {
        None => assert_eq!(query::find(text, "k"), Found::Absent),
        Some(kept) => {
            assert_ne!(query::find(text, "k"), Found::Absent);
            assert_eq!(query::find(&kept, "k"), Found::Absent);
            assert_eq!(query::kept(&kept, is_ours), None);
            let mut parts = text.split('&');
            assert!(kept.is_empty() || kept.split('&').all(|part| parts.any(|it| it == part)));
        }
    }
    assert_eq!(&*query::decode(&query::encode(text)), data);
}

/// What is read as a name and a password is of the Basic scheme, and is bounded.
pub(crate) fn basic(data: &[u8]) {
    let Some(given) = basic::Credentials::parse(data) else { return };
    assert!(basic::is_basic(data));
    let octets = given.as_bytes();
    assert!(octets.len() <= 1024 && octets.contains(&b':'));
    assert!(!given.are("nobody", "salt", &[0; 32]));
}

/// The public keys of the tokens among the seeds.
const RS256: &str = include_str!("keys/rs256.pem");
const ES256: &str = include_str!("keys/es256.pem");

/// A token that holds is one of three parts, says the algorithm of its group, and holds with no other key
/// and no other algorithm.
pub(crate) fn jwt(data: &[u8]) {
    holds(data);
}

/// Whether a token holds with any of the keys, each with its own algorithm.
pub(crate) fn holds(data: &[u8]) -> bool {
    let check = |algorithm, key| jwt::verify(data, algorithm, key, &BTreeMap::new(), 0).is_some();
    let own = [
        (JwtAlgorithm::Hs256, SECRET, "HS256"),
        (JwtAlgorithm::Rs256, RS256, "RS256"),
        (JwtAlgorithm::Es256, ES256, "ES256"),
    ];
    for (algorithm, _, _) in own {
        for (of, key, _) in own {
            // A secret may be any text, so that for HMAC a public key is one like others.
            let is_own = of == algorithm || algorithm == JwtAlgorithm::Hs256;
            assert!(is_own || !check(algorithm, key));
        }
        assert!(!check(algorithm, "another secret"));
    }
    let by: Vec<&str> = own
        .into_iter()
        .filter(|(algorithm, key, _)| check(*algorithm, key))
        .map(|(_, _, name)| name)
        .collect();
    let [name] = by[..] else {
        assert!(by.is_empty());
        return false;
    };
    let parts: Vec<&[u8]> = data.split(|&octet| octet == b'.').collect();
    assert_eq!(parts.len(), 3);
    let head = base64::Engine::decode(
        &base64::engine::general_purpose::URL_SAFE_NO_PAD,
        parts.first().expect("there are three"),
    );
    let head: serde_json::Value =
        serde_json::from_slice(&head.expect("it was read")).expect("it was read");
    assert_eq!(head.get("alg").and_then(serde_json::Value::as_str), Some(name));
    true
}
