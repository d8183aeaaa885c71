//! Realms: which there are, and that they keep apart what they should.

use serde_json::{Value, json};

use crate::lab::{Ask, Lab};

pub(crate) const A: &str = "64a2c4e9f3d5e2b6a8c7d8e1";
pub(crate) const B: &str = "65b3d5f0a4e6f3c7b9d8e9f2";

/// Everything that a realm can hold, of one account.
pub(crate) struct Things {
    pub(crate) project: String,
    pub(crate) container: String,
    pub(crate) alias: String,
    pub(crate) token: String,
}

pub(crate) async fn id(lab: &Lab, ask: Ask) -> String {
    let reply = lab.send(ask).await;
    assert!(reply.status.is_success(), "{}", reply.text);
    reply.json["data"]["id"].as_str().unwrap().to_owned()
}

pub(crate) async fn things(lab: &Lab, session: &str, realm: &str, name: &str) -> Things {
    let post = |path: &str, body: Value| Ask::new("POST", path).by(session).body(&body);
    let project =
        id(lab, post("/api/v1/projects", json!({ "alias": name, "realm_ids": [realm] }))).await;
    let path = format!("/api/v1/projects/{project}/containers?wait=running&timeout=20");
    let body = json!({ "server_id": lab.server.to_string(), "name": name, "realm_ids": [realm] });
    let container = id(lab, post(&path, body)).await;
    let body = json!({ "container_id": container, "alias": name, "program": "terminal" });
    let alias = id(lab, post("/api/v1/proxy/aliases", body)).await;
    let body = json!({ "alias": name, "realm_ids": [realm] });
    let token = id(lab, post("/api/v1/auth/tokens", body)).await;
    Things { project, container, alias, token }
}

/// A token that may do everything, in one realm.
pub(crate) async fn bound(lab: &Lab, session: &str, realm: &str) -> String {
    let templates = lab.send(Ask::new("GET", "/api/v1/auth/tokens/templates").by(session)).await;
    assert_eq!(templates.status, 200, "{}", templates.text);
    let mut permissions = templates.json["data"][0]["permissions"].clone();
    for leaf in ["create_tokens", "vault"] {
        permissions["resources"][leaf] = json!(true);
    }
    let body = json!({ "alias": "everything", "realm_ids": [realm], "permissions": permissions,
        "vault_access": true });
    let reply = lab.send(Ask::new("POST", "/api/v1/auth/tokens").by(session).body(&body)).await;
    assert_eq!(reply.status, 201, "{}", reply.text);
    reply.json["data"]["token"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn realms_are_listed_with_what_carries_them() {
    let lab = Lab::start().await;
    let session = lab.login("alice", crate::lab::PASSWORD).await;
    things(&lab, &session, A, "one").await;
    things(&lab, &session, B, "two").await;
    let token = bound(&lab, &session, A).await;
    let ask = |query: &str| Ask::new("GET", &format!("/api/v1/realms/{query}"));
    let all = lab.send(ask("?include_usage=true").by(&session)).await;
    let want = json!({ "realm_ids": [A, B], "total": 2, "usage": {
        A: { "projects": 1, "containers": 1, "servers": 0, "auth_tokens": 2 },
        B: { "projects": 1, "containers": 1, "servers": 0, "auth_tokens": 1 },
    } });
    assert_eq!(all.json["data"], want, "{}", all.text);
    let plain = lab.send(ask("").by(&session)).await;
    assert_eq!(plain.json["data"], json!({ "realm_ids": [A, B], "total": 2 }));
    let bound = lab.send(ask("").by(&token).realm(A)).await;
    assert_eq!(bound.json["data"], json!({ "realm_ids": [A], "total": 1 }), "{}", bound.text);
    let bob = lab.login("bob", crate::lab::PASSWORD).await;
    let none = lab.send(ask("?include_usage=true").by(&bob)).await;
    assert_eq!(none.json["data"], json!({ "realm_ids": [], "total": 0, "usage": {} }));
    assert_eq!(lab.send(ask("?include_usage=2").by(&bob)).await.status, 400);
}

#[tokio::test]
async fn a_token_is_copied_and_bound_to_realms_one_by_one() {
    let lab = Lab::start().await;
    let (session, _) = lab.alice().await;
    let body = json!({ "alias": "ci", "ip_whitelist": ["192.0.2.0/24"], "expires_at": "tomorrow",
        "permission_template": "read_only" });
    let made = lab.send(Ask::new("POST", "/api/v1/auth/tokens").by(&session).body(&body)).await;
    let first = made.json["data"].clone();
    let path = format!("/api/v1/auth/tokens/{}", first["id"].as_str().unwrap());
    let post = |tail: &str, body: Value| {
        Ask::new("POST", &format!("{path}/{tail}")).by(&session).body(&body)
    };

    let copied = lab.send(post("copy", json!({ "alias": "ci two" }))).await;
    assert_eq!(copied.status, 201, "{}", copied.text);
    let second = &copied.json["data"];
    for same in ["ip_whitelist", "expires_at", "permissions", "realm_ids", "event_access"] {
        assert_eq!(second[same], first[same], "{same}");
    }
    assert_eq!(second["alias"], "ci two");
    assert_ne!(second["token"], first["token"]);
    let me = Ask::new("GET", "/api/v1/auth/tokens/me").by(second["token"].as_str().unwrap());
    assert_eq!(lab.send(me).await.json["data"]["token"]["id"], second["id"]);

    for (tail, realm, want) in [
        ("add-realm", A, json!([A])),
        ("add-realm", A, json!([A])),
        ("add-realm", B, json!([A, B])),
        ("remove-realm", A, json!([B])),
        ("remove-realm", A, json!([B])),
    ] {
        let reply = lab.send(post(tail, json!({ "realm_id": realm }))).await;
        assert_eq!(reply.status, 200, "{tail} {realm}: {}", reply.text);
        assert_eq!(reply.json["data"]["realm_ids"], want, "{tail} {realm}");
    }
    for (tail, body, field) in [
        ("add-realm", json!({}), "realm_id"),
        ("remove-realm", json!({ "realm_id": "X" }), "realm_id"),
        // Without it the token would be good everywhere.
        ("remove-realm", json!({ "realm_id": B }), "realm_id"),
        ("copy", json!({ "alias": "a/b" }), "alias"),
        ("copy", json!({ "permissions": {} }), "permissions"),
    ] {
        let reply = lab.send(post(tail, body)).await;
        assert_eq!(reply.status, 400, "{tail}: {}", reply.text);
        assert_eq!(reply.json["data"][0]["field"], field, "{tail}");
    }
    let bob = lab.login("bob", crate::lab::PASSWORD).await;
    for (tail, body) in [("copy", json!({})), ("add-realm", json!({ "realm_id": A }))] {
        assert_eq!(lab.send(post(tail, body).by(&bob)).await.status, 404, "{tail}");
    }
    let templates = Ask::new("GET", "/api/v1/auth/tokens/templates");
    let by_token = templates.by(second["token"].as_str().unwrap());
    let refused = lab.send(by_token).await;
    assert_eq!(refused.status, 403, "templates are for sessions");
    assert!(refused.text.contains("auth tokens are not allowed here"), "{}", refused.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_project_tells_what_its_containers_use() {
    let lab = Lab::start().await;
    let (session, project) = lab.alice().await;
    for name in ["one", "two", "three"] {
        lab.container(&session, &project, name).await;
    }
    let path = format!("/api/v1/projects/{project}/stats");
    let reply = lab.send(Ask::new("GET", &path).by(&session)).await;
    let data = &reply.json["data"];
    assert_eq!(data["stats"].as_array().unwrap().len(), 3, "{}", reply.text);
    assert_eq!(data["stats"][0]["status"], "Running");
    assert_eq!(data["summary"]["container_count"], 3);
    assert_eq!(data["summary"]["project_name"], "home");
    let page = lab.send(Ask::new("GET", &format!("{path}?limit=2&page=2")).by(&session)).await;
    assert_eq!(page.json["data"]["stats"].as_array().unwrap().len(), 1, "{}", page.text);
    let bob = lab.login("bob", crate::lab::PASSWORD).await;
    assert_eq!(lab.send(Ask::new("GET", &path).by(&bob)).await.status, 404);
}

#[tokio::test]
async fn a_copy_of_a_token_is_switched_off_as_it_is() {
    let lab = Lab::start().await;
    let (session, _) = lab.alice().await;
    let body = json!({ "alias": "ci" });
    let made = lab.send(Ask::new("POST", "/api/v1/auth/tokens").by(&session).body(&body)).await;
    let path = format!("/api/v1/auth/tokens/{}", made.json["data"]["id"].as_str().unwrap());
    let off = Ask::new("PATCH", &path).by(&session).body(&json!({ "is_enabled": false }));
    assert_eq!(lab.send(off).await.status, 200);
    let copied = lab.send(Ask::new("POST", &format!("{path}/copy")).by(&session)).await;
    assert_eq!(copied.json["data"]["is_enabled"], false, "{}", copied.text);
    let secret = copied.json["data"]["token"].as_str().unwrap();
    assert_eq!(lab.send(Ask::new("GET", "/api/v1/users/me").by(secret)).await.status, 401);
}
