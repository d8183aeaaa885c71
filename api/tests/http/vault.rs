//! The vault from outside.

use gantry_control::{Limits, Signing};
use serde_json::{Value, json};

use crate::lab::{Ask, Lab, PASSWORD};

const A: &str = "64a2c4e9f3d5e2b6a8c7d8e1";
const B: &str = "65b3d5f0a4e6f3c7b9d8e9f2";
const SECRET: &str = "correct-horse-battery-staple";

fn path(rest: &str) -> String {
    format!("/api/v1/vault{rest}")
}

async fn data(lab: &Lab, ask: Ask) -> Value {
    let reply = lab.send(ask).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply.json["data"].clone()
}

/// A token with these permissions of resources.
async fn token(lab: &Lab, session: &str, mut body: Value, leaves: &Value) -> String {
    body["permissions"] = json!({ "resources": leaves });
    let ask = Ask::new("POST", "/api/v1/auth/tokens").by(session).body(&body);
    let reply = lab.send(ask).await;
    assert_eq!(reply.status, 201, "{}", reply.text);
    reply.json["data"]["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_value_is_put_away_read_changed_and_removed() {
    let lab = Lab::start().await;
    let session = lab.login("alice", PASSWORD).await;
    let ask = |method: &str, rest: &str| Ask::new(method, &path(rest)).by(&session);
    let written = ask("PUT", "/keys/db.password").body(&json!({ "value": SECRET }));
    let made = data(&lab, written).await;
    assert_eq!((&made["key"], &made["metadata"]), (&json!("db.password"), &Value::Null));
    assert_eq!((&made["realm_id"], &made["size_bytes"]), (&Value::Null, &json!(SECRET.len())));
    assert!(made.get("value").is_none(), "a write does not show what was written: {made}");

    // The other verb changes a part alone, and an empty value is one.
    let about = json!({ "metadata": { "for": "the database" } });
    data(&lab, ask("PATCH", "/keys/db.password").body(&about)).await;
    let shown = data(&lab, ask("GET", "/keys/db.password")).await;
    assert_eq!((&shown["value"], &shown["metadata"]), (&json!(SECRET), &about["metadata"]));
    let mut listed = shown.clone();
    listed.as_object_mut().unwrap().remove("value");
    assert_eq!(data(&lab, ask("GET", "/keys")).await, json!([listed]));
    let empty = json!({ "value": "", "metadata": null });
    data(&lab, ask("PUT", "/keys/db.password").body(&empty)).await;
    let shown = data(&lab, ask("GET", "/keys/db.password")).await;
    assert_eq!((&shown["value"], &shown["metadata"]), (&json!(""), &Value::Null));

    data(&lab, ask("PUT", "/keys/second").body(&json!({ "value": "é" }))).await;
    let stats = data(&lab, ask("GET", "/stats")).await;
    let want = json!({ "total_keys": 2, "total_size_bytes": 2, "total_size_mb": 0.0,
        "limit_mb": 10.0, "used_percentage": 0.0, "remaining_mb": 9.99 });
    assert_eq!(stats, want);
    assert_eq!(data(&lab, ask("DELETE", "/keys/second")).await, Value::Null);
    for method in ["GET", "DELETE"] {
        let gone = lab.send(ask(method, "/keys/second")).await;
        assert_eq!(
            (gone.status.as_u16(), &gone.json["message"]),
            (404, &json!("Vault key not found"))
        );
    }
    assert_eq!(data(&lab, ask("DELETE", "")).await, json!({ "deleted_count": 1 }));
    assert_eq!(data(&lab, ask("GET", "/keys")).await, json!([]));

    // What was written stands in no event and in no entry of the activity log.
    for list in ["/api/v1/events", "/api/v1/users/auth/activity"] {
        let told = lab.send(Ask::new("GET", list).by(&session)).await;
        assert!(told.text.contains("vault"), "{list}: {}", told.text);
        assert!(!told.text.contains(SECRET) && !told.text.contains("the database"), "{list}");
    }
}

#[tokio::test]
async fn nothing_of_a_vault_is_readable_in_the_file_of_the_store() {
    let lab = Lab::start().await;
    let session = lab.login("alice", PASSWORD).await;
    let body = json!({ "value": SECRET, "metadata": { "about": "metadata-is-sealed-too" } });
    data(&lab, Ask::new("PUT", &path("/keys/a-name")).by(&session).body(&body)).await;
    let mut found = false;
    for file in std::fs::read_dir(lab.dir()).unwrap() {
        let octets = std::fs::read(file.unwrap().path()).unwrap();
        let holds = |text: &str| octets.windows(text.len()).any(|part| part == text.as_bytes());
        found |= holds("a-name");
        assert!(!holds(SECRET) && !holds("metadata-is-sealed-too"));
    }
    assert!(found, "the name is there, so that the place is right");
}

#[tokio::test]
async fn wrong_keys_values_and_parameters_are_refused_by_name() {
    let lab = Lab::start().await;
    let session = lab.login("alice", PASSWORD).await;
    let (long, value) = ("k".repeat(256), json!({ "value": "v" }));
    let too_large = "v".repeat(gantry_control::VALUE_MAX + 1);
    let too_much = "m".repeat(gantry_control::METADATA_MAX);
    for (rest, body, field) in [
        (format!("/keys/{long}"), value.clone(), "key"),
        ("/keys/a%2Fb".to_owned(), value.clone(), "key"),
        ("/keys/%2E%2E".to_owned(), value.clone(), "key"),
        ("/keys/new".to_owned(), json!({ "metadata": {} }), "value"),
        ("/keys/new".to_owned(), json!({}), "value"),
        ("/keys/new".to_owned(), json!({ "value": null }), "value"),
        ("/keys/new".to_owned(), json!({ "value": 5 }), "value"),
        ("/keys/new".to_owned(), json!({ "value": too_large }), "value"),
        ("/keys/new".to_owned(), json!({ "value": "v", "metadata": "text" }), "metadata"),
        (
            "/keys/new".to_owned(),
            json!({ "value": "v", "metadata": { "m": too_much } }),
            "metadata",
        ),
        ("/keys/new".to_owned(), json!({ "value": "v", "realm_id": A }), "realm_id"),
        ("/keys/new?realm_id=5".to_owned(), value.clone(), "realm_id"),
        // One that is overlooked would mean another key.
        ("/keys/new?realm=5".to_owned(), value.clone(), "realm"),
    ] {
        let reply = lab.send(Ask::new("PUT", &path(&rest)).by(&session).body(&body)).await;
        let said: String = reply.text.chars().take(300).collect();
        assert_eq!(reply.status, 400, "{rest}: {said}");
        assert_eq!(reply.json["data"][0]["field"], field, "{rest}: {said}");
    }
    let largest = json!({ "value": "v".repeat(gantry_control::VALUE_MAX) });
    data(&lab, Ask::new("PUT", &path("/keys/new")).by(&session).body(&largest)).await;
    assert_eq!(lab.send(Ask::new("GET", &path("/keys"))).await.status, 401);
}

#[tokio::test]
async fn an_account_has_as_much_as_the_operator_lets_it() {
    let limits =
        Limits { vault_keys_per_user_max: 2, vault_octets_per_user_max: 10, ..Limits::default() };
    let lab = Lab::start_with(limits, Signing::Claims).await;
    let session = lab.login("alice", PASSWORD).await;
    let put = async |rest: &str, value: &str| {
        let body = json!({ "value": value });
        lab.send(Ask::new("PUT", &path(&format!("/keys/{rest}"))).by(&session).body(&body)).await
    };
    assert_eq!(put("one", "12345").await.status, 200);
    let large = put(&format!("two?realm_id={A}"), "123456").await;
    assert_eq!((large.status.as_u16(), &large.json["code"]), (422, &json!("QUOTA_EXCEEDED")));
    assert!(large.text.contains("at most 10 octets"), "{}", large.text);
    assert_eq!(put(&format!("two?realm_id={A}"), "12345").await.status, 200);
    let third = put("three", "").await;
    assert_eq!((third.status.as_u16(), &third.json["code"]), (422, &json!("QUOTA_EXCEEDED")));
    assert!(third.text.contains("at most 2 keys"), "{}", third.text);
    let stats = data(&lab, Ask::new("GET", &path("/stats")).by(&session)).await;
    assert_eq!(stats["used_percentage"], 100.0);
    // Others have room of their own.
    let bob = lab.login("bob", PASSWORD).await;
    let body = json!({ "value": "12345" });
    data(&lab, Ask::new("PUT", &path("/keys/one")).by(&bob).body(&body)).await;
}

#[tokio::test]
async fn realms_and_accounts_do_not_see_each_others_keys() {
    let lab = Lab::start().await;
    let session = lab.login("alice", PASSWORD).await;
    let put = async |rest: &str, realm: Option<&str>, value: &str| {
        let ask = Ask::new("PUT", &path(rest)).by(&session).body(&json!({ "value": value }));
        data(&lab, realm.into_iter().fold(ask, Ask::realm)).await
    };
    put("/keys/same", None, "none").await;
    put("/keys/same", Some(A), "of a").await;
    // Here alone the digits of a realm may be of either case.
    put(&format!("/keys/same?realm_id={}", B.to_uppercase()), None, "of b").await;
    let get = async |rest: &str, realm: Option<&str>| {
        let ask = Ask::new("GET", &path(rest)).by(&session);
        lab.send(realm.into_iter().fold(ask, Ask::realm)).await
    };
    for (rest, realm, want) in [
        ("/keys/same".to_owned(), None, "none"),
        ("/keys/same".to_owned(), Some(A), "of a"),
        (format!("/keys/same?realm_id={A}"), None, "of a"),
        (format!("/keys/same?realm_id={B}"), Some(B), "of b"),
    ] {
        let reply = get(&rest, realm).await;
        assert_eq!(reply.json["data"]["value"], want, "{rest} at {realm:?}: {}", reply.text);
    }
    let conflict = get(&format!("/keys/same?realm_id={B}"), Some(A)).await;
    assert_eq!(
        (conflict.status.as_u16(), &conflict.json["code"]),
        (403, &json!("REALM_SCOPE_ERROR"))
    );
    for (rest, realm, want) in [
        ("/keys", None, json!([null, A, B])),
        ("/keys", Some(A), json!([A])),
        ("/keys?realm_id=64a2c4e9f3d5e2b6a8c7d8e2", None, json!([])),
    ] {
        let reply = get(rest, realm).await;
        let realms = reply.json["data"].as_array().unwrap().iter().map(|key| &key["realm_id"]);
        assert_eq!(json!(realms.collect::<Vec<_>>()), want, "{rest} at {realm:?}");
    }
    assert_eq!(get("/stats", Some(B)).await.json["data"]["total_keys"], 1);

    // A token of realm A has what is in A, and clears nothing else.
    let body = json!({ "realm_ids": [A], "vault_access": true });
    let bound = token(&lab, &session, body, &json!({ "vault": true })).await;
    let as_bound = |method: &str, rest: &str| Ask::new(method, &path(rest)).by(&bound);
    assert_eq!(lab.send(as_bound("GET", "/keys")).await.status, 403);
    let shown = data(&lab, as_bound("GET", "/keys/same").realm(A)).await;
    assert_eq!(shown["value"], "of a");
    let other = lab.send(as_bound("GET", &format!("/keys/same?realm_id={B}")).realm(A)).await;
    assert_eq!(other.status, 403, "{}", other.text);
    assert_eq!(lab.send(as_bound("GET", "/keys/same").realm(B)).await.status, 403);
    let cleared = data(&lab, as_bound("DELETE", "").realm(A)).await;
    assert_eq!(cleared, json!({ "deleted_count": 1 }));
    assert_eq!(get("/stats", None).await.json["data"]["total_keys"], 2);

    // Nobody else sees anything, administrators included.
    let bob = lab.login("bob", PASSWORD).await;
    for stranger in [&bob, &lab.admin] {
        let ask = |method: &str, rest: &str| Ask::new(method, &path(rest)).by(stranger);
        assert_eq!(data(&lab, ask("GET", "/keys")).await, json!([]));
        for method in ["GET", "DELETE"] {
            assert_eq!(lab.send(ask(method, "/keys/same")).await.status, 404);
        }
        assert_eq!(data(&lab, ask("DELETE", "")).await["deleted_count"], 0);
    }
    assert_eq!(get("/stats", None).await.json["data"]["total_keys"], 2);
}

#[tokio::test]
async fn a_token_needs_the_switch_and_the_permission() {
    let lab = Lab::start().await;
    let session = lab.login("alice", PASSWORD).await;
    let put = Ask::new("PUT", &path("/keys/one")).by(&session).body(&json!({ "value": "v" }));
    data(&lab, put).await;
    let leaf = json!({ "vault": true });
    for (body, leaves, why) in [
        (json!({}), leaf.clone(), "vault_access"),
        (json!({ "vault_access": true }), json!({}), "resources.vault"),
        (
            json!({ "vault_access": true, "permission_template": "read_only" }),
            leaf.clone(),
            "resources.vault",
        ),
        (
            json!({ "vault_access": true, "permission_template": "full_access" }),
            leaf.clone(),
            "resources.vault",
        ),
        (json!({ "vault_access": true }), leaf.clone(), ""),
    ] {
        let token = token(&lab, &session, body, &leaves).await;
        for (method, rest) in [
            ("GET", "/keys"),
            ("GET", "/stats"),
            ("GET", "/keys/one"),
            ("PUT", "/keys/one"),
            ("DELETE", "/keys/none"),
        ] {
            let mut ask = Ask::new(method, &path(rest)).by(&token);
            if method == "PUT" {
                ask = ask.body(&json!({ "value": "v" }));
            }
            let reply = lab.send(ask).await;
            if why.is_empty() {
                assert_ne!(reply.status, 403, "{method} {rest}: {}", reply.text);
            } else {
                assert_eq!(reply.status, 403, "{why}: {method} {rest}");
                assert!(reply.text.contains(why), "{method} {rest}: {}", reply.text);
            }
        }
    }
    assert_eq!(data(&lab, Ask::new("GET", &path("/stats")).by(&session)).await["total_keys"], 1);
}
