//! What tokens show of themselves, who made them, and tokens that make no others.

use serde_json::{Value, json};

use crate::lab::{Ask, Lab, Reply};

const REALM: &str = "64a2c4e9f3d5e2b6a8c7d8e1";
const OTHER: &str = "65b3d5f0a4e6f3c7b9d8e9f2";

async fn make(lab: &Lab, by: &str, body: Value) -> Reply {
    lab.send(Ask::new("POST", "/api/v1/auth/tokens").by(by).body(&body)).await
}

fn secret(made: &Reply) -> String {
    assert_eq!(made.status, 201, "{}", made.text);
    made.json["data"]["token"].as_str().unwrap().to_owned()
}

fn look(key: &str) -> Ask {
    Ask::new("GET", &format!("/api/v1/auth/tokens/public-profiles/{key}"))
}

fn own(by: &str, body: &Value) -> Ask {
    Ask::new("PUT", "/api/v1/auth/tokens/me/public-profile").by(by).body(body)
}

#[tokio::test]
async fn a_token_shows_of_itself_what_its_user_wants_to_whoever_knows_its_key() {
    let lab = Lab::start().await;
    let (session, _) = lab.alice().await;
    let bob = lab.login("bob", crate::lab::PASSWORD).await;
    let (key, second) = ("0123456789abcdef".repeat(4), "f".repeat(64));
    let made = make(&lab, &session, json!({ "alias": "ci", "public_key": key })).await;
    assert_eq!(made.json["data"]["public_key"], key, "{}", made.text);
    let ci = secret(&made);
    let shown = lab.send(look(&key).by(&bob)).await;
    assert_eq!(shown.json["data"], json!({ "public_key": key, "public_storage": null }));

    let changed = lab.send(own(&ci, &json!({ "public_storage": "hello" }))).await;
    assert_eq!(changed.status, 200, "{}", changed.text);
    assert_eq!(changed.json["data"]["public_key"], key, "what is left out stays");
    let shown = lab.send(look(&key).by(&bob)).await;
    assert_eq!(shown.json["data"]["public_storage"], "hello");
    let me = lab.send(Ask::new("GET", "/api/v1/auth/tokens/me").by(&ci)).await;
    assert_eq!(me.json["data"]["token"]["public_storage"], "hello", "{}", me.text);
    let all = lab.send(Ask::new("GET", "/api/v1/auth/tokens").by(&session)).await;
    assert_eq!(all.json["data"][0]["public_storage"], "hello", "{}", all.text);

    // A key leads to one token, whoever has it; a copy has none.
    let taken = make(&lab, &bob, json!({ "public_key": key })).await;
    assert_eq!((taken.status.as_u16(), &taken.json["code"]), (409, &json!("PUBLIC_KEY_IN_USE")));
    assert_eq!(taken.json["data"][0]["field"], "public_key");
    let path = format!("/api/v1/auth/tokens/{}", made.json["data"]["id"].as_str().unwrap());
    let copied = lab.send(Ask::new("POST", &format!("{path}/copy")).by(&session)).await;
    assert_eq!(copied.json["data"]["public_key"], Value::Null, "{}", copied.text);

    let change = |body: Value| Ask::new("PATCH", &path).by(&session).body(&body);
    assert_eq!(lab.send(change(json!({ "public_key": second }))).await.status, 200);
    assert_eq!(lab.send(look(&key).by(&bob)).await.status, 404, "the old key leads nowhere");
    assert_eq!(lab.send(look(&second).by(&bob)).await.status, 200);
    assert_eq!(lab.send(change(json!({ "is_enabled": false }))).await.status, 200);
    assert_eq!(lab.send(look(&second).by(&bob)).await.status, 404, "nor does one of no use");
    assert_eq!(lab.send(change(json!({ "is_enabled": true }))).await.status, 200);
    assert_eq!(lab.send(Ask::new("DELETE", &path).by(&session)).await.status, 200);
    assert_eq!(lab.send(look(&second).by(&bob)).await.status, 404);
    assert_eq!(make(&lab, &bob, json!({ "public_key": second })).await.status, 201);
}

#[tokio::test]
async fn what_tokens_show_has_rules_and_bounds() {
    let lab = Lab::start().await;
    let (session, _) = lab.alice().await;
    let ci = secret(&make(&lab, &session, json!({ "alias": "ci" })).await);
    for (body, field) in [
        (json!({ "public_key": "AB" }), "public_key"),
        (json!({ "public_key": "F".repeat(64) }), "public_key"),
        (json!({ "public_key": 1 }), "public_key"),
        (json!({ "public_storage": "x".repeat(65_537) }), "public_storage"),
        (json!({ "alias": "x" }), "alias"),
    ] {
        let reply = lab.send(own(&ci, &body)).await;
        assert_eq!(reply.status, 400, "{}", reply.text);
        assert_eq!(reply.json["data"][0]["field"], field, "{}", reply.text);
    }
    assert_eq!(lab.send(look("AB").by(&session)).await.status, 400);
    assert_eq!(lab.send(look(&"a".repeat(64)).by(&session)).await.status, 404);
    assert_eq!(lab.send(look(&"a".repeat(64))).await.status, 401);
    assert_eq!(lab.send(own(&session, &json!({}))).await.status, 404, "a login is no token");
    // 16 tokens of 64 KiB are what an account may have.
    let whole = json!({ "public_storage": "x".repeat(65_536) });
    for _ in 0..16 {
        assert_eq!(make(&lab, &session, whole.clone()).await.status, 201);
    }
    let more = lab.send(own(&ci, &json!({ "public_storage": "x" }))).await;
    assert_eq!((more.status.as_u16(), &more.json["code"]), (422, &json!("QUOTA_EXCEEDED")));
    assert_eq!(more.json["data"][0]["field"], "public_storage");

    let silent = json!({ "permissions": { "resources": { "create_tokens": true } } });
    let silent = secret(&make(&lab, &session, silent).await);
    let key = json!({ "public_key": "a".repeat(64) });
    for refused in [
        lab.send(own(&silent, &key)).await,
        make(&lab, &silent, key).await,
        lab.send(look(&"a".repeat(64)).by(&silent)).await,
    ] {
        assert_eq!(refused.status, 403, "{}", refused.text);
    }
}

#[tokio::test]
async fn what_a_token_shows_stays_in_its_realms() {
    let lab = Lab::start().await;
    let (session, _) = lab.alice().await;
    let key = "b".repeat(64);
    let bound = make(&lab, &session, json!({ "public_key": key, "realm_ids": [OTHER] })).await;
    let bound = secret(&bound);
    let here = secret(&make(&lab, &session, json!({ "realm_ids": [REALM] })).await);
    assert_eq!(lab.send(look(&key).by(&here).realm(REALM)).await.status, 404);
    assert_eq!(lab.send(look(&key).by(&bound).realm(OTHER)).await.status, 200);
    assert_eq!(lab.send(look(&key).by(&session).realm(REALM)).await.status, 404);
    assert_eq!(lab.send(look(&key).by(&session)).await.status, 200);
}

#[tokio::test]
async fn tokens_say_which_token_made_them() {
    let lab = Lab::start().await;
    let (session, _) = lab.alice().await;
    let may = json!({ "permissions": { "resources": { "create_tokens": true } } });
    let first = make(&lab, &session, may.clone()).await;
    assert_eq!(first.json["data"]["created_by_token_id"], Value::Null);
    assert_eq!(first.json["data"]["delegation_depth"], 0);
    let second = make(&lab, &secret(&first), may).await;
    let third = make(&lab, &secret(&second), json!({})).await;
    for (made, by, depth) in [(&second, &first, 1), (&third, &second, 2)] {
        assert_eq!(made.json["data"]["created_by_token_id"], by.json["data"]["id"]);
        assert_eq!(made.json["data"]["delegation_depth"], depth, "{}", made.text);
    }
}

#[tokio::test]
async fn a_token_that_must_not_be_passed_on_makes_no_others_and_ends() {
    let lab = Lab::start().await;
    let (session, _) = lab.alice().await;
    let deny = |more: Value| {
        let mut body = json!({ "deny_reauthorization": true, "expires_at": "tomorrow" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    for (body, field) in [
        (json!({ "deny_reauthorization": true }), "expires_at"),
        (deny(json!({ "vault_access": true })), "vault_access"),
        (
            deny(json!({ "permissions": { "resources": { "create_tokens": true } } })),
            "permissions.resources.create_tokens",
        ),
        (
            deny(json!({ "permissions": { "resources": { "vault": true } } })),
            "permissions.resources.vault",
        ),
    ] {
        let reply = make(&lab, &session, body).await;
        assert_eq!(reply.status, 400, "{}", reply.text);
        assert_eq!(reply.json["data"][0]["field"], field, "{}", reply.text);
    }
    for body in [json!({}), json!({ "permission_template": "full_access" })] {
        // No template of today has the two, so that it makes the same token with and without.
        let plain = make(&lab, &session, body.clone()).await;
        let made = make(&lab, &session, deny(body)).await;
        let permissions = &made.json["data"]["permissions"];
        assert_eq!(permissions, &plain.json["data"]["permissions"], "{}", made.text);
        assert_eq!(permissions["resources"]["events"], true, "{}", made.text);
        assert_eq!(make(&lab, &secret(&made), json!({})).await.status, 403);
    }
}
