//! What must hold for every request, however it was made: a host that the edge takes a request to be for is
//! the one that every other reader would take it to be for. Those here are written from the octets alone.

use std::{fs, path::Path};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, Version, uri::Parts};
use proptest::prelude::*;

use super::{authority, hostname};
use crate::{
    framing::{HeadLimits, HeadScan},
    headers::Survey,
    http1,
};

const LIMITS: HeadLimits = HeadLimits { bytes_max: 4096, fields_max: 64 };

/// The host of a request, if the edge takes it to be for one.
fn judged(target: &Uri, headers: &HeaderMap, version: Version) -> Option<String> {
    let survey = Survey::of(headers, version);
    let authority = authority(target, version, &survey).ok()?;
    let name = hostname(&authority).ok()?.as_str().to_owned();
    // What the container is told.
    assert_eq!(plain(authority.to_str().unwrap()), name);
    Some(name)
}

/// A name as a simple reader takes it: without a port, in one case, without the root's dot.
fn plain(authority: &str) -> String {
    let name = match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|octet| octet.is_ascii_digit()) => name,
        Some(_) | None => authority,
    };
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// The authorities that readers may find in a target: as the standard says, behind a user's name, and as
/// browsers read it.
fn in_target(target: &str) -> Vec<String> {
    let Some((_, rest)) = target.split_once("://").filter(|(scheme, _)| !scheme.contains('/'))
    else {
        return Vec::new();
    };
    let until = |ends: &[char]| rest.split(ends).next().unwrap_or_default();
    let (standard, browser) = (until(&['/', '?', '#']), until(&['/', '?', '#', '\\']));
    let behind = |text: &str| text.rsplit('@').next().unwrap_or_default().to_owned();
    let before = |text: &str| text.split('@').next().unwrap_or_default().to_owned();
    vec![
        standard.to_owned(),
        browser.to_owned(),
        behind(standard),
        behind(browser),
        before(standard),
    ]
}

/// Whether a request of HTTP/1 is taken; if so, all readers agree on its host.
fn http1(octets: &[u8]) -> bool {
    let mut fields = Vec::new();
    let scanned = HeadScan::default().scan_fields(octets, LIMITS, &mut |field| fields.push(field));
    let Ok(Some((len, framing))) = scanned else { return false };
    let Ok(head) = http1::build(&Bytes::copy_from_slice(&octets[..len]), &fields, framing) else {
        return false;
    };
    let request = head.request;
    let Some(name) = judged(request.uri(), request.headers(), request.version()) else {
        return false;
    };
    let text: String = octets[..len].iter().map(|&octet| char::from(octet)).collect();
    let mut lines = text.trim_start_matches("\r\n").split("\r\n");
    let target = lines.next().unwrap().split(' ').nth(1).unwrap();
    assert!(target == "*" || target.starts_with('/') || target.contains("://"), "{target}");
    let host = |line: &str| {
        let (field, value) = line.split_once(':')?;
        field.eq_ignore_ascii_case("host").then(|| value.trim_matches([' ', '\t']).to_owned())
    };
    let hosts: Vec<String> = lines.filter_map(host).collect();
    assert_eq!(hosts.len(), 1, "{text:?}");
    for view in hosts.iter().chain(&in_target(target)) {
        assert_eq!(plain(view), name, "{text:?}");
    }
    true
}

/// The same for HTTP/2 and HTTP/3, whose pseudo-fields and fields stand on a line each.
fn http2(text: &str) -> bool {
    let (mut parts, mut headers) = (Parts::default(), HeaderMap::new());
    let mut views = Vec::new();
    parts.scheme = Some(http::uri::Scheme::HTTPS);
    for line in text.lines() {
        let Some((name, value)) = line.rsplit_once(": ") else { continue };
        match name {
            ":path" => parts.path_and_query = value.parse().ok(),
            ":authority" => {
                let Ok(authority) = value.parse() else { return false };
                parts.authority = Some(authority);
                views.push(value);
            }
            name => {
                let name = HeaderName::from_bytes(name.as_bytes());
                let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) else {
                    return false;
                };
                headers.append(name, value);
            }
        }
    }
    if parts.authority.is_none() {
        // As `h2` makes it.
        parts.scheme = None;
    }
    let Ok(target) = Uri::from_parts(parts) else { return false };
    let versions = [Version::HTTP_2, Version::HTTP_3];
    let [two, three] = versions.map(|version| judged(&target, &headers, version));
    assert_eq!(two, three);
    let Some(name) = two else { return false };
    let hosts: Vec<_> = headers.get_all("host").iter().collect();
    assert!(hosts.len() <= 1 && hosts.len() + views.len() > 0, "{text:?}");
    views.extend(hosts.into_iter().map(|host| host.to_str().unwrap()));
    for view in views {
        assert_eq!(plain(view), name, "{text:?}");
        assert_eq!(plain(view.rsplit('@').next().unwrap()), name, "{text:?}");
    }
    true
}

fn law(octets: &[u8]) -> bool {
    match std::str::from_utf8(octets) {
        Ok(text) if text.starts_with(':') => http2(text),
        Ok(_) | Err(_) => http1(octets),
    }
}

#[test]
fn seeds_of_authorities_hold_their_laws_and_pass_or_not_as_they_are_named() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/authority");
    let mut count = 0;
    for entry in fs::read_dir(&corpus).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let passes = law(&fs::read(entry.path()).unwrap());
        let want = name.starts_with("passes-");
        assert!(want || name.starts_with("refuses-"), "{name} says nothing");
        assert_eq!(passes, want, "{name}");
        count += 1;
    }
    assert!(count >= 70, "{count} seeds");
}

/// A name, and what looks like one.
fn authority_like() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "a.example",
        "A.Example",
        "a.example.",
        "b.example",
        "1.2.3.4",
        "",
    ]);
    let around = || "[@:/?#%\\\\,. \t0-9a\\[\\]-]{0,3}";
    let port = prop::sample::select(vec!["", ":443", ":80", ":8443", ":", ":0"]);
    prop_oneof![
        4 => (name.clone(), port.clone()).prop_map(|(name, port)| format!("{name}{port}")),
        1 => (around(), name, port, around()).prop_map(|(a, name, port, b)| format!("{a}{name}{port}{b}")),
    ]
}

proptest! {
    /// `PROPTEST_CASES` says how many.
    #[test]
    fn every_reader_takes_a_request_to_be_for_the_same_host(
        method in prop::sample::select(vec!["GET", "OPTIONS", "CONNECT", "POST"]),
        before in prop::sample::select(vec!["/", "", "*", "http://", "https://", "HTTPS://", "ftp://", "//", "a:"]),
        target in authority_like(),
        path in prop::sample::select(vec!["", "/", "/x", "?x", "/@b.example", "/http://b.example/"]),
        version in prop::sample::select(vec!["1.1", "1.0"]),
        hosts in proptest::collection::vec(
            (prop::sample::select(vec!["Host", "host", "hOST", "Host ", "X-Host", "Forwarded"]), authority_like()),
            0..3,
        ),
    ) {
        let fields: Vec<_> = hosts.iter().map(|(name, host)| format!("{name}: {host}\r\n")).collect();
        let fields = fields.concat();
        law(format!("{method} {before}{target}{path} HTTP/{version}\r\n{fields}\r\n").as_bytes());
        let fields = fields.replace("Host", "host").replace('\r', "");
        law(format!(":path: /{path}\n:authority: {target}\n{fields}").as_bytes());
        law(format!(":path: /{path}\n{fields}").as_bytes());
    }

    #[test]
    fn heads_that_are_changed_at_one_place_hold_the_law(
        seed in prop::sample::select(vec![
            "GET https://a.example:443/x HTTP/1.1\r\nHost: a.example\r\nX: y\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nX: y\r\nHost:a.example:80\r\n\r\n",
            ":path: /\n:authority: a.example\nhost: a.example\n",
        ]),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), 0..3_u8, any::<u8>()), 1..4),
    ) {
        let mut octets = seed.as_bytes().to_vec();
        for (at, how, octet) in changes {
            let at = at.index(octets.len());
            match how {
                0 => octets[at] = octet,
                1 => octets.insert(at, octet),
                _ => _ = octets.remove(at),
            }
        }
        law(&octets);
    }
}
