//! What is signed, checked by OpenSSL with the key that the API shows.

use std::{io::Write as _, path::Path, process::Command};

use gantry_control::{Limits, Signing};
use serde_json::{Value, json};

use crate::lab::{Ask, Lab, PASSWORD, Reply};

/// What stands before the octets of an Ed25519 key in DER (RFC 8410).
const DER: &str = "302a300506032b6570032100";

fn octets(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2), "{hex}");
    let pairs = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

/// What a text in base64url holds.
fn decoded(text: &str) -> Vec<u8> {
    let value = |octet: u8| {
        let digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        u32::try_from(digits.bytes().position(|digit| digit == octet).unwrap()).unwrap()
    };
    let mut out = Vec::new();
    for part in text.as_bytes().chunks(4) {
        let bits = part.iter().fold(0, |bits, octet| bits << 6 | value(*octet));
        let bits = bits << (6 * (4 - part.len()));
        out.extend_from_slice(&bits.to_be_bytes()[1..part.len()]);
    }
    out
}

/// Whether OpenSSL finds that `signature` is one of `text` by the key; nothing where there is no OpenSSL.
fn verify(key_hex: &str, text: &[u8], signature_hex: &str) -> Option<bool> {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, octets: &[u8]| {
        let path = dir.path().join(name);
        std::fs::File::create(&path).unwrap().write_all(octets).unwrap();
        path
    };
    let key = write("key.der", &octets(&format!("{DER}{key_hex}")));
    let (text, signature) = (write("text", text), write("signature", &octets(signature_hex)));
    let with = |flag: &str, path: &Path| [flag.to_owned(), path.display().to_string()];
    let output = Command::new("openssl")
        .args(["pkeyutl", "-verify", "-rawin", "-pubin", "-keyform", "DER"])
        .args([with("-inkey", &key), with("-in", &text), with("-sigfile", &signature)].concat())
        .output();
    match output {
        Ok(output) => Some(output.status.success()),
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "openssl does not run: {error}");
            eprintln!("SKIPPED: openssl does not run: {error}");
            None
        }
    }
}

async fn public_key(lab: &Lab) -> Value {
    let reply = lab.send(Ask::new("GET", "/api/v1/meta/public-key")).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply.json["data"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_about_a_container_is_checked_without_asking() {
    let lab = Lab::start().await;
    let (session, project) = lab.alice().await;
    let container = lab.container(&session, &project, "claimed").await;
    let path = format!("/api/v1/containers/{container}/authorize");
    let ask = Ask::new("POST", &path).header("idempotency-key", "once");
    let reply = lab.send(ask.by(&session).body(&json!({}))).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let data = &reply.json["data"];
    assert_eq!(data["expires_in"], 21_600);
    assert_eq!((&data["container_id"], &data["project_id"]), (&json!(container), &json!(project)));
    let claim = &data["container_claim"];
    let payload_b64 = claim["payload_b64"].as_str().unwrap();
    let payload: Value = serde_json::from_slice(&decoded(payload_b64)).unwrap();
    let iat = payload["iat"].as_i64().unwrap();
    let me = lab.send(Ask::new("GET", "/api/v1/users/auth/me").by(&session)).await;
    let sub = &me.json["data"]["id"];
    let want = json!({ "sub": sub, "type": "container", "containerId": container,
        "projectId": project, "iat": iat, "exp": iat + 21_600 });
    assert_eq!(payload, want);

    let keys = public_key(&lab).await;
    assert_eq!((&keys["active_kid"], &keys["keys"][0]["kid"]), (&claim["kid"], &claim["kid"]));
    assert_eq!(keys["usage"], json!(["container_claim"]));
    let key = keys["keys"][0]["public_key_hex"].as_str().unwrap();
    assert_eq!(decoded(keys["keys"][0]["public_key_b64url"].as_str().unwrap()), octets(key));
    let signature = claim["signature_hex"].as_str().unwrap();
    for (text, want) in [(payload_b64.to_owned(), true), (format!("{payload_b64}A"), false)] {
        let found = verify(key, text.as_bytes(), signature);
        assert!(found.is_none_or(|found| found == want), "{text}");
    }
    // Whoever repeats the request has a claim of its own: none lies in the store.
    let ask = Ask::new("POST", &path).header("idempotency-key", "once");
    let again = lab.send(ask.by(&session).body(&json!({}))).await;
    assert!(!again.headers.contains_key("idempotency-replayed"), "{:?}", again.headers);
    assert!(!reply.headers.contains_key("x-hoody-signature"), "not unless it is configured");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_is_made_for_who_may_use_the_container_only() {
    let lab = Lab::start().await;
    let (session, project) = lab.alice().await;
    let container = lab.container(&session, &project, "mine").await;
    let path = format!("/api/v1/containers/{container}/authorize");
    let post = |token: &str| Ask::new("POST", &path).by(token);
    let bob = lab.login("bob", PASSWORD).await;
    assert_eq!(lab.send(post(&bob)).await.status, 404);
    assert_eq!(lab.send(post(&session).realm("64a2c4e9f3d5e2b6a8c7d8e1")).await.status, 404);
    assert_eq!(lab.send(post(&session).body(&json!({ "ttl": 1 }))).await.status, 400);
    for (template, want) in [("read_only", 403), ("dev_team", 200)] {
        let body = json!({ "permission_template": template });
        let made = Ask::new("POST", "/api/v1/auth/tokens").by(&session).body(&body);
        let made = lab.send(made).await;
        let token = made.json["data"]["token"].as_str().unwrap();
        assert_eq!(lab.send(post(token)).await.status, want, "{template}");
    }
    // A claim does no more than the token that it is made with.
    let in_an_hour = gantry_control::Clock::system().now_ms() / 1000 + 3600;
    for (field, value, want) in
        [("expires_at", json!(in_an_hour), 200), ("ip_whitelist", json!(["192.0.2.0/24"]), 403)]
    {
        let body = json!({ "permission_template": "dev_team", (field): value });
        let made = Ask::new("POST", "/api/v1/auth/tokens").by(&session).body(&body);
        let made = lab.send(made).await;
        let token = made.json["data"]["token"].as_str().unwrap();
        let reply = lab.send(post(token)).await;
        assert_eq!(reply.status, want, "{field}: {}", reply.text);
        if want == 200 {
            let left = reply.json["data"]["expires_in"].as_i64().unwrap();
            assert!((1..=3600).contains(&left), "{left}");
        } else {
            assert!(reply.text.contains(field), "{}", reply.text);
        }
    }
}

#[tokio::test]
async fn nothing_is_signed_where_the_operator_does_not_want_it() {
    let lab = Lab::start_with(Limits::default(), Signing::Off).await;
    let reply = lab.send(Ask::new("GET", "/api/v1/meta/public-key")).await;
    assert_eq!(reply.status, 503, "{}", reply.text);
    assert_eq!(reply.json["error"], "SIGNING_NOT_CONFIGURED");
}

/// Checks an answer's signature as the reference describes it.
fn check(reply: &Reply, key: &str, want: &str) {
    let header = reply.headers["x-hoody-signature"].to_str().unwrap();
    // The last part has a fixed length, whatever a path holds.
    let (start, signature) = header.rsplit_once(",sig=").unwrap();
    let (at, start) = start.split_once(",kid=").unwrap();
    let (_, request) = start.split_once(",m=").unwrap();
    assert_eq!(request, want);
    let at = at.strip_prefix("t=").unwrap();
    let (method, rest) = request.split_once(",s=").unwrap();
    let (status, path) = rest.split_once(",path=").unwrap();
    assert_eq!(signature.len(), 128, "{header}");
    let text = format!("{at}\n{method}\n{status}\n{path}\n{}", reply.text);
    assert!(verify(key, text.as_bytes(), signature).is_none_or(|good| good), "{header}");
    let other = format!("{text} ");
    assert!(verify(key, other.as_bytes(), signature).is_none_or(|good| !good), "{header}");
}

#[tokio::test]
async fn every_answer_with_a_body_is_signed_if_that_is_configured() {
    let lab = Lab::start_with(Limits::default(), Signing::Answers).await;
    let keys = public_key(&lab).await;
    assert_eq!(keys["usage"], json!(["container_claim", "response"]));
    assert_eq!(keys["signing_format"]["replay_tolerance_seconds"], 300);
    let key = keys["keys"][0]["public_key_hex"].as_str().unwrap().to_owned();
    let session = lab.login("alice", PASSWORD).await;
    let list = lab.send(Ask::new("GET", "/api/v1/projects/?page=1").by(&session)).await;
    check(&list, &key, "GET,s=200,path=/api/v1/projects/");
    // Refusals as well, on paths of any spelling; and what is repeated from the store.
    let unknown = lab.send(Ask::new("GET", "/api/v1/%C3%A9,sig=00").by(&session)).await;
    check(&unknown, &key, "GET,s=404,path=/api/v1/%C3%A9,sig=00");
    let post = || {
        let ask = Ask::new("POST", "/api/v1/projects").by(&session);
        ask.header("idempotency-key", "k").body(&json!({ "alias": "signed" }))
    };
    for _ in 0..2 {
        check(&lab.send(post()).await, &key, "POST,s=201,path=/api/v1/projects");
    }
    let long = format!("/api/v1/{}", "x".repeat(3000));
    for unsigned in [Ask::new("HEAD", "/api/v1/health"), Ask::new("GET", &long)] {
        let reply = lab.send(unsigned).await;
        assert!(!reply.headers.contains_key("x-hoody-signature"), "{:?}", reply.headers);
    }
    let exposed = list.headers["access-control-expose-headers"].to_str().unwrap();
    assert!(exposed.contains("X-Hoody-Signature"), "{exposed}");
}
