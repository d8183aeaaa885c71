//! Who may pass: credentials, decisions, what the container sees, and what browsers may do.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::{
    bed::{Bed, CONTAINER, host, now_ms},
    client::Reply,
};

const SECRET: &str = "an HMAC secret of the tests";

/// A document with one group that opens port 3000.
#[expect(clippy::needless_pass_by_value, reason = "so that calls can write what they mean")]
fn one(group: Value) -> Value {
    json!({"groups": {"g": group}, "permissions": {"g": {"http": 3000}}, "default": "deny"})
}

fn password(password: &str) -> Value {
    json!({"type": "password", "username": "ann", "password": password, "salt": "pepper"})
}

fn basic(name: &str, password: &str) -> String {
    format!("Authorization: Basic {}\r\n", STANDARD.encode(format!("{name}:{password}")))
}

fn jwt(algorithm: Algorithm, key: &EncodingKey, claims: &Value) -> String {
    encode(&Header::new(algorithm), claims, key).unwrap()
}

fn refused(reply: &Reply, status: u16, code: &str) {
    assert_eq!((reply.status, reply.code()), (status, Some(code)), "{reply:?}");
}

#[test]
fn each_credential_opens_what_its_group_opens_and_stays_at_the_edge() {
    let bed = Bed::new(180);
    let origin = bed.running();
    let name = host(CONTAINER, "http-3000");
    let now_s = now_ms() / 1000;
    let es256 = rcgen::KeyPair::generate().unwrap();
    let rs256 = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let claims = json!({"role": "admin", "exp": now_s + 60});
    let hs = jwt(Algorithm::HS256, &EncodingKey::from_secret(SECRET.as_bytes()), &claims);
    let es = jwt(Algorithm::ES256, &EncodingKey::from_ec_der(&es256.serialize_der()), &claims);
    // PKCS#8 has 26 octets before the PKCS#1 within.
    let rs =
        jwt(Algorithm::RS256, &EncodingKey::from_rsa_der(&rs256.serialize_der()[26..]), &claims);
    let signed = |algorithm: &str, key: &str, source: &str| {
        json!({"type": "jwt", "algorithm": algorithm, "secret": key, "sources": [source],
               "claims": {"role": "admin"}})
    };
    let token = |place: &str, name: &str| json!({"type": "token", place: name, "value": "s3cret"});
    for (group, path, fields, seen) in [
        (token("header", "X-Key"), "/", "X-Key: s3cret\r\n".to_owned(), "/"),
        (token("cookie", "key"), "/", "Cookie: a=1; key=s3cret; b=2\r\n".to_owned(), "/"),
        (token("param", "key"), "/p?a=%41&key=s3cret&b=2", String::new(), "/p?a=%41&b=2"),
        (token("param", "key"), "/p?key=s3cret", String::new(), "/p"),
        (signed("HS256", SECRET, "header:X-Jwt"), "/", format!("X-Jwt: {hs}\r\n"), "/"),
        (
            signed("HS256", SECRET, "header:Authorization"),
            "/",
            format!("Authorization: Bearer {hs}\r\n"),
            "/",
        ),
        (
            signed("ES256", &es256.public_key_pem(), "cookie:jwt"),
            "/",
            format!("Cookie: a=1; jwt={es}; b=2\r\n"),
            "/",
        ),
        (
            signed("RS256", &rs256.public_key_pem(), "header:authorization"),
            "/",
            format!("authorization: {rs}\r\n"),
            "/",
        ),
        (password("p:w"), "/", basic("ann", "p:w"), "/"),
        (json!({"type": "ip", "range": "127.0.0.0/8"}), "/", String::new(), "/"),
        (
            json!([token("header", "x"), token("header", "X-Key")]),
            "/",
            "X-Key: s3cret\r\n".into(),
            "/",
        ),
    ] {
        bed.gate(CONTAINER, &one(group.clone()));
        // Once looked up, once remembered.
        for _ in 0..2 {
            let reply = bed.client().get(&name, path, &fields);
            assert_eq!(reply.status, 200, "{group} {reply:?}");
            let got = origin.last();
            assert_eq!(got.line(), format!("GET {seen} HTTP/1.1"), "{group}");
            for secret in ["s3cret", &hs, &es, &rs, &STANDARD.encode("ann:p:w")] {
                assert!(!got.head.contains(secret), "{group}: {}", got.head);
            }
            if fields.starts_with("Cookie") {
                assert_eq!(got.values("cookie"), ["a=1; b=2"], "only the one cookie goes");
            }
        }
        // Another port is not opened by it.
        let reply = bed.client().get(&host(CONTAINER, "http-3001"), path, &fields);
        refused(&reply, 403, "ACCESS_DENIED");
    }
}

#[test]
fn what_proves_nothing_does_not_pass() {
    let bed = Bed::new(181);
    let origin = bed.running();
    let name = host(CONTAINER, "http-3000");
    let now_s = now_ms() / 1000;
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let signed = |claims: &Value| jwt(Algorithm::HS256, &key, claims);
    let group = json!([
        {"type": "jwt", "algorithm": "HS256", "secret": SECRET, "sources": ["header:X-Jwt"],
         "claims": {"level": 3}},
        {"type": "token", "header": "X-Key", "value": "s3cret"},
        {"type": "token", "cookie": "key", "value": "s3cret"},
        {"type": "token", "param": "key", "value": "s3cret"},
        {"type": "ip", "range": "10.0.0.0/8"},
        {"type": "ip", "range": "2001:db8::/32"},
    ]);
    bed.gate(CONTAINER, &one(group));
    let good = signed(&json!({"level": 3}));
    assert_eq!(bed.client().get(&name, "/", &format!("X-Jwt: {good}\r\n")).status, 200);
    let before = origin.seen().len();
    for (path, fields) in [
        ("/", String::new()),
        ("/", "X-Key: s3cre\r\n".to_owned()),
        ("/", "X-Key: S3CRET\r\n".to_owned()),
        ("/", "X-Key: s3cret\r\nX-Key: s3cret\r\n".to_owned()),
        ("/", "Cookie: key=s3cret; key=s3cret\r\n".to_owned()),
        ("/", "Cookie: Key=s3cret\r\n".to_owned()),
        ("/?key=s3cret&key=s3cret", String::new()),
        ("/?KEY=s3cret", String::new()),
        ("/", "key: s3cret\r\n".to_owned()),
        ("/", format!("X-Jwt: {}\r\n", signed(&json!({"level": 4})))),
        ("/", format!("X-Jwt: {}\r\n", signed(&json!({"level": 3, "exp": now_s - 61})))),
        ("/", format!("X-Jwt: {}\r\n", signed(&json!({"level": 3, "nbf": now_s + 120})))),
        ("/", format!("X-Jwt: {good}x\r\n")),
        ("/", format!("X-Jwt: {good}\r\nX-Jwt: {good}\r\n")),
        ("/", format!("Authorization: Bearer {good}\r\n")),
        ("/", "X-Forwarded-For: 10.0.0.1\r\n".to_owned()),
    ] {
        let reply = bed.client().get(&name, path, &fields);
        refused(&reply, 403, "ACCESS_DENIED");
        assert_eq!(reply.value("www-authenticate"), None, "nobody can log in here");
    }
    assert_eq!(origin.seen().len(), before, "nothing reached the container");
}

#[test]
fn decisions_are_answered_in_the_form_that_the_client_reads() {
    let bed = Bed::new(182);
    let _origin = bed.running();
    let name = host(CONTAINER, "http-3000");
    bed.gate(CONTAINER, &one(password("right")));
    let reply = bed.client().get(&name, "/", "Accept: application/json\r\n");
    refused(&reply, 401, "AUTHENTICATION_REQUIRED");
    let challenge = "Basic realm=\"Gantry\", charset=\"UTF-8\"";
    assert_eq!(reply.value("www-authenticate"), Some(challenge));
    assert_eq!(reply.value("cache-control"), Some("no-store"));
    let told: BTreeMap<String, Value> = serde_json::from_str(&reply.text()).unwrap();
    assert_eq!(told["code"], "AUTHENTICATION_REQUIRED");
    let wrong = bed.client().get(&name, "/", &basic("ann", "wrong"));
    refused(&wrong, 401, "AUTHENTICATION_REQUIRED");
    // A script of a page: no dialogue of its browser.
    let script = bed.client().get(&name, "/", "Sec-Fetch-Mode: cors\r\n");
    refused(&script, 401, "AUTHENTICATION_REQUIRED");
    assert!(script.value("www-authenticate").unwrap().starts_with("Cookie "));
    assert_eq!(bed.client().get(&name, "/", &basic("ann", "right")).status, 200);
    // Logged in, but not for this.
    let other = bed.client().get(&host(CONTAINER, "http-3001"), "/", &basic("ann", "right"));
    refused(&other, 403, "ACCESS_DENIED");
    // The kill switch comes before everything.
    let mut closed = one(password("right"));
    closed["enable_proxy"] = false.into();
    bed.gate(CONTAINER, &closed);
    let reply = bed.client().get(&name, "/", &basic("ann", "right"));
    refused(&reply, 403, "PROXY_DISABLED");
    // A container whose owner has said nothing is open, and so is one that said it and took it back.
    bed.ungate(CONTAINER);
    assert_eq!(bed.client().get(&name, "/", &basic("ann", "right")).status, 200);
}

#[test]
fn an_applications_own_credentials_pass_where_no_group_reads_them() {
    let bed = Bed::new(183);
    let origin = bed.running();
    let document = json!({
        "groups": {"people": password("right"),
                   "ci": {"type": "token", "header": "X-Key", "value": "s3cret"}},
        "permissions": {"people": {"terminal": true}, "ci": {"http": 3000}},
        "default": "allow",
    });
    bed.gate(CONTAINER, &document);
    let own = basic("ann", "right");
    let fields = format!("{own}X-Key: other\r\nCookie: session=1\r\n");
    let reply = bed.client().get(&host(CONTAINER, "http-3000"), "/", &fields);
    assert_eq!(reply.status, 200);
    let seen = origin.last();
    assert_eq!(seen.values("authorization").len(), 1, "no password opens this port");
    assert_eq!(seen.values("x-key"), [""; 0], "a place of the edge is emptied, right or wrong");
    assert_eq!(seen.values("cookie"), ["session=1"]);
    // A page that was opened with a credential in its address.
    let document = one(json!({"type": "token", "param": "key", "value": "s3cret"}));
    bed.gate(CONTAINER, &document);
    let name = host(CONTAINER, "http-3000");
    let fields = format!(
        "Referer: https://{name}/a?key=s3cret&b=1\r\nCookie: __Host-gantry-session=x; c=1\r\n"
    );
    assert_eq!(bed.client().get(&name, "/?key=s3cret", &fields).status, 200);
    let seen = origin.last();
    assert_eq!(seen.values("referer"), [format!("https://{name}/a?b=1")]);
    assert_eq!(seen.values("cookie"), ["c=1"], "the edge's own cookies go, too");
    let lines = bed.finish();
    assert!(!serde_json::to_string(&lines).unwrap().contains("s3cret"));
}

#[test]
fn whoever_guesses_a_password_is_slowed_down() {
    let bed = Bed::new(184);
    let _origin = bed.running();
    let name = host(CONTAINER, "http-3000");
    bed.gate(CONTAINER, &one(password("right")));
    assert_eq!(bed.client().get(&name, "/", &basic("ann", "right")).status, 200);
    for number in 0..10 {
        let reply = bed.client().get(&name, "/", &basic("ann", &format!("guess {number}")));
        refused(&reply, 401, "AUTHENTICATION_REQUIRED");
    }
    let reply = bed.client().get(&name, "/", &basic("ann", "guess"));
    refused(&reply, 429, "TOO_MANY_ATTEMPTS");
    let wait: u32 = reply.value("retry-after").unwrap().parse().unwrap();
    assert!((1..=61).contains(&wait), "{wait}");
    // Whose password is known already, and who brings none, is not concerned.
    assert_eq!(bed.client().get(&name, "/", &basic("ann", "right")).status, 200);
    refused(&bed.client().get(&name, "/", ""), 401, "AUTHENTICATION_REQUIRED");
    // Nor is another container.
    let other = "cccccccccccccccccccccccc";
    bed.set(other, gantry_model::Phase::Running, 1);
    bed.gate(other, &one(password("right")));
    let reply = bed.client().get(&host(other, "http-3000"), "/", &basic("ann", "right"));
    assert_eq!(reply.status, 200);
}

#[test]
fn a_preflight_is_answered_by_policy() {
    let bed = Bed::new(185);
    let origin = bed.running();
    let name = host(CONTAINER, "http-3000");
    let ask = |from: &str| {
        let mut client = bed.client();
        client.send(format!(
            "OPTIONS /api HTTP/1.1\r\nHost: {name}\r\nOrigin: {from}\r\n\
             Access-Control-Request-Method: PUT\r\nAccess-Control-Request-Headers: x-key\r\n\r\n"
        ));
        client.reply()
    };
    let elsewhere = "https://app.example.com";
    let sibling = format!("https://{}:8443", host(CONTAINER, "http-8080"));
    // Open: the container's own business.
    assert_eq!(ask(elsewhere).status, 200);
    let mut seen = origin.seen().len();
    assert_eq!(origin.last().line(), "OPTIONS /api HTTP/1.1");
    // A token that a script can add: it may try.
    bed.gate(CONTAINER, &one(json!({"type": "token", "header": "X-Key", "value": "s3cret"})));
    let reply = ask(elsewhere);
    assert_eq!(reply.status, 204, "{reply:?}");
    assert_eq!(reply.value("access-control-allow-origin"), Some(elsewhere));
    assert_eq!(reply.value("access-control-allow-methods"), Some("PUT"));
    assert_eq!(reply.value("access-control-allow-headers"), Some("x-key"));
    assert_eq!(reply.value("access-control-allow-credentials"), None);
    assert!(reply.value("vary").unwrap().contains("origin"));
    // A cookie or a password: only pages of the same container.
    for group in [json!({"type": "token", "cookie": "key", "value": "s3cret"}), password("right")] {
        bed.gate(CONTAINER, &one(group));
        refused(&ask(elsewhere), 403, "ACCESS_DENIED");
        let foreign = format!("https://{}", host("cccccccccccccccccccccccc", "http-3000"));
        refused(&ask(&foreign), 403, "ACCESS_DENIED");
        let reply = ask(&sibling);
        assert_eq!(reply.status, 204);
        assert_eq!(reply.value("access-control-allow-credentials"), Some("true"));
    }
    assert_eq!(origin.seen().len(), seen, "none of these reached the container");
    // Whoever is let in by address is let in with a preflight, too.
    bed.gate(CONTAINER, &one(json!({"type": "ip", "range": "127.0.0.0/8"})));
    assert_eq!(ask(elsewhere).status, 200);
    seen += 1;
    assert_eq!(origin.seen().len(), seen);
}

#[test]
fn a_page_of_somebody_else_cannot_use_a_browsers_cookies() {
    let bed = Bed::new(186);
    let origin = bed.running();
    let name = host(CONTAINER, "http-3000");
    bed.gate(
        CONTAINER,
        &one(json!([
            {"type": "token", "cookie": "key", "value": "s3cret"},
            {"type": "token", "header": "X-Key", "value": "s3cret"},
        ])),
    );
    let ask = |method: &str, fields: &str| {
        let mut client = bed.client();
        client.send(format!(
            "{method} / HTTP/1.1\r\nHost: {name}\r\nCookie: key=s3cret\r\n{fields}\r\n"
        ));
        client.reply()
    };
    let foreign = format!("Origin: https://{}\r\n", host("cccccccccccccccccccccccc", "http-1"));
    let upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\n";
    let post = "Content-Length: 0\r\n";
    for (method, fields) in [
        ("POST", format!("{foreign}{post}")),
        ("POST", format!("Origin: null\r\n{post}")),
        ("POST", format!("Origin: https://app.example.com\r\n{post}")),
        ("DELETE", foreign.clone()),
        ("GET", format!("{foreign}{upgrade}")),
    ] {
        refused(&ask(method, &fields), 403, "ORIGIN_REFUSED");
    }
    assert_eq!(origin.seen().len(), 0);
    let own = format!("Origin: http://{name}\r\n");
    let sibling = format!("Origin: http://{}\r\n", host(CONTAINER, "terminal-1"));
    for (method, fields) in [
        ("POST", post.to_owned()),
        ("POST", format!("{own}{post}")),
        ("POST", format!("{sibling}{post}")),
        ("GET", foreign.clone()),
        ("GET", format!("{own}{upgrade}")),
        // What only a script of a page that knows it can add is no habit of a browser's.
        ("POST", format!("{foreign}{post}X-Key: s3cret\r\n")),
    ] {
        assert_eq!(ask(method, &fields).status, 200, "{method} {fields}");
    }
}
