//! Accounts, their passwords, and what was done with them.

use std::{future::Future as _, pin::pin, task::Context, time::Duration};

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::lab::{Ask, Lab, PASSWORD};

async fn me(lab: &Lab, token: &str) -> String {
    let me = lab.send(Ask::new("GET", "/api/v1/users/me").by(token)).await;
    me.json["data"]["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_account_says_of_itself_what_its_user_wants() {
    let lab = Lab::start().await;
    let token = lab.login("alice", PASSWORD).await;
    let path = format!("/api/v1/users/{}", me(&lab, &token).await);
    let key = "0123456789abcdef".repeat(4);
    let put = |body: Value| Ask::new("PUT", &path).by(&token).body(&body);
    let first = lab.send(Ask::new("GET", &path).by(&token)).await;
    assert_eq!(first.json["data"]["alias"], "alice", "{}", first.text);
    let body = json!({ "alias": "Alice A.", "public_key": key, "metadata": { "theme": "dark" } });
    let changed = lab.send(put(body)).await;
    assert_eq!(changed.status, 200, "{}", changed.text);
    let cleared = lab.send(put(json!({ "alias": null }))).await;
    let data = &cleared.json["data"];
    assert_eq!((&data["alias"], &data["public_key"]), (&json!("alice"), &json!(key)));
    assert_eq!(data["metadata"], json!({ "theme": "dark" }));
    let me = lab.send(Ask::new("GET", "/api/v1/users/auth/me").by(&token)).await;
    assert_eq!(me.json["data"]["metadata"], json!({ "theme": "dark" }), "{}", me.text);
    for (body, field) in [
        (json!({ "alias": "" }), "alias"),
        (json!({ "alias": "a".repeat(101) }), "alias"),
        (json!({ "public_key": "AB" }), "public_key"),
        (json!({ "metadata": [] }), "metadata"),
        (json!({ "metadata": { "m": "x".repeat(17_000) } }), "metadata"),
        (json!({ "password": "Passw0rd!new" }), "current_password"),
        (json!({ "password": "short", "current_password": PASSWORD }), "password"),
        (json!({ "is_admin": true }), "is_admin"),
    ] {
        let reply = lab.send(put(body.clone())).await;
        assert_eq!(reply.status, 400, "{body}: {}", reply.text);
        assert_eq!(reply.json["data"][0]["field"], field, "{body}");
    }
    let bob = lab.login("bob", PASSWORD).await;
    for ask in [Ask::new("GET", &path), put(json!({ "alias": "mine" }))] {
        assert_eq!(lab.send(ask.by(&bob)).await.status, 404);
    }
    let made = Ask::new("POST", "/api/v1/auth/tokens").by(&token).body(&json!({ "alias": "t" }));
    let secret = lab.send(made).await.json["data"]["token"].as_str().unwrap().to_owned();
    let by_token = lab.send(put(json!({ "alias": "mine" })).by(&secret)).await;
    assert_eq!(by_token.status, 403, "{}", by_token.text);
}

#[tokio::test]
async fn a_new_password_ends_every_session_and_no_token() {
    let lab = Lab::start().await;
    let (first, second) = (lab.login("alice", PASSWORD).await, lab.login("alice", PASSWORD).await);
    let path = format!("/api/v1/users/{}", me(&lab, &first).await);
    let made = Ask::new("POST", "/api/v1/auth/tokens").by(&first).body(&json!({ "alias": "t" }));
    let token = lab.send(made).await.json["data"]["token"].as_str().unwrap().to_owned();
    let change = |current: &str| {
        let body = json!({ "password": "Passw0rd!new", "current_password": current });
        Ask::new("PATCH", &path).by(&first).body(&body)
    };
    let wrong = lab.send(change("Passw0rd!wrong")).await;
    assert_eq!((wrong.status.as_u16(), &wrong.json["code"]), (401, &json!("INVALID_CREDENTIALS")));
    let right = lab.send(change(PASSWORD)).await;
    assert_eq!(right.status, 200, "{}", right.text);
    for session in [&first, &second] {
        assert_eq!(lab.send(Ask::new("GET", "/api/v1/users/me").by(session)).await.status, 401);
    }
    assert_eq!(lab.send(Ask::new("GET", "/api/v1/users/me").by(&token)).await.status, 200);
    lab.login("alice", "Passw0rd!new").await;
}

#[tokio::test]
async fn administrators_make_accounts_and_nobody_else_does() {
    let lab = Lab::start().await;
    let body = json!({ "username": "carol", "password": "Passw0rd!carol" });
    let post = Ask::new("POST", "/api/v1/users").body(&body);
    let alice = lab.login("alice", PASSWORD).await;
    assert_eq!(lab.send(post.clone().by(&alice)).await.status, 403);
    let admin = lab.admin.clone();
    let made = lab.send(post.clone().by(&admin)).await;
    assert_eq!(made.status, 201, "{}", made.text);
    assert_eq!(made.json["data"]["is_admin"], false);
    let again = lab.send(post.by(&admin)).await;
    assert_eq!((again.status.as_u16(), &again.json["data"][0]["field"]), (409, &json!("username")));
    lab.login("carol", "Passw0rd!carol").await;
    let path = format!("/api/v1/users/{}", made.json["data"]["id"].as_str().unwrap());
    assert_eq!(lab.send(Ask::new("GET", &path).by(&admin)).await.status, 200);
    for body in [json!({ "username": "c" }), json!({ "username": "c d", "password": "Passw0rd!" })]
    {
        let ask = Ask::new("POST", "/api/v1/users").by(&admin).body(&body);
        assert_eq!(lab.send(ask).await.status, 400, "{body}");
    }
}

#[tokio::test]
async fn writes_are_kept_with_their_results_and_reads_are_not() {
    let lab = Lab::start().await;
    let (token, project) = lab.alice().await;
    let body = json!({ "alias": "home" });
    let twice = Ask::new("POST", "/api/v1/projects/").by(&token).body(&body);
    assert_eq!(lab.send(twice.header("user-agent", "tester/1")).await.status, 409);
    lab.send(Ask::new("DELETE", &format!("/api/v1/projects/{project}")).by(&token)).await;
    let get =
        |query: &str| Ask::new("GET", &format!("/api/v1/users/auth/activity{query}")).by(&token);
    let all = lab.send(get("?sort_order=asc")).await;
    let seen: Vec<_> = all.json["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (entry["method"].as_str().unwrap(), entry["status_code"].as_u64().unwrap()))
        .collect();
    assert_eq!(
        seen,
        [("POST", 200), ("POST", 201), ("POST", 409), ("DELETE", 200)],
        "{}",
        all.text
    );
    assert_eq!(all.json["metadata"], json!({ "total": 4, "page": 1, "limit": 50, "pages": 1 }));
    assert_eq!(all.json["data"][2]["user_agent"], "tester/1");
    assert_eq!(all.json["data"][2]["ip_address"], "192.0.2.7");
    assert_eq!(all.json["data"][0]["path"], "/api/v1/users/auth/login");
    for (query, count) in [
        ("?errors_only=true", 1),
        ("?method=DELETE", 1),
        ("?min_status=201&max_status=201", 1),
        ("?start_date=2000-01-01", 4),
        ("?end_date=2000-01-01T00:00:00Z", 0),
        ("?limit=3&page=2", 1),
        ("?realm_id=64a2c4e9f3d5e2b6a8c7d8e1", 0),
    ] {
        let reply = lab.send(get(query)).await;
        assert_eq!(reply.json["data"].as_array().unwrap().len(), count, "{query}: {}", reply.text);
    }
    for query in ["?start_date=soon", "?method=GET", "?min_status=99", "?errors_only=1"] {
        assert_eq!(lab.send(get(query)).await.status, 400, "{query}");
    }
    let totals = lab.send(get("/stats")).await;
    assert_eq!(totals.json["data"]["total_records"], 4, "{}", totals.text);
    assert_eq!(totals.json["data"]["retention_days"], 90);
    let history = Ask::new("GET", "/api/v1/users/me/security-history").by(&token);
    let history = lab.send(history).await;
    assert_eq!(history.json["metadata"]["total"], 1, "the login alone: {}", history.text);
    let bob = lab.login("bob", PASSWORD).await;
    let his = lab.send(get("").by(&bob)).await;
    assert_eq!(his.json["metadata"]["total"], 1, "{}", his.text);
}

#[tokio::test]
async fn a_token_without_the_permission_sees_little_of_its_account() {
    let lab = Lab::start().await;
    let session = lab.login("alice", PASSWORD).await;
    let id = me(&lab, &session).await;
    let one = format!("/api/v1/users/{id}");
    let body = json!({ "alias": "Alice", "metadata": { "phone": "0123" } });
    assert_eq!(lab.send(Ask::new("PATCH", &one).by(&session).body(&body)).await.status, 200);
    let paths = ["/api/v1/users/me", "/api/v1/users/auth/me", &one];
    for (allowed, keys) in [
        (true, vec!["email", "is_admin", "is_banned", "metadata"]),
        (false, vec!["alias", "created_at", "id", "public_key", "updated_at", "username"]),
    ] {
        let permissions = json!({ "resources": { "read_account": allowed } });
        let body = json!({ "permissions": permissions });
        let made = Ask::new("POST", "/api/v1/auth/tokens").by(&session).body(&body);
        let secret = lab.send(made).await.json["data"]["token"].as_str().unwrap().to_owned();
        for path in paths {
            let reply = lab.send(Ask::new("GET", path).by(&secret)).await;
            assert_eq!(reply.status, 200, "{path}: {}", reply.text);
            let mut data = reply.json["data"].as_object().unwrap().clone();
            assert_eq!(data.remove("auth_token").is_some(), path != one, "{path}");
            assert_eq!(data["alias"], "Alice");
            if allowed {
                assert!(keys.iter().all(|key| data.contains_key(*key)), "{path}: {}", reply.text);
            } else {
                let found: Vec<&str> = data.keys().map(String::as_str).collect();
                assert_eq!(found, keys, "{path}");
            }
        }
    }
}

/// The client may be gone before the answer is there; what it has begun is done and told of.
#[tokio::test]
async fn a_write_is_told_of_although_its_client_has_gone() {
    let lab = Lab::start().await;
    let token = lab.login("alice", PASSWORD).await;
    let request = Request::post("/api/v1/projects")
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json")
        .body(Body::from(json!({ "alias": "left" }).to_string()))
        .unwrap();
    {
        let mut answer = pin!(lab.router.clone().oneshot(request));
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(answer.as_mut().poll(&mut context).is_pending(), "it takes more than a moment");
    }
    let path = "/api/v1/users/auth/activity?method=POST&min_status=201";
    let told = async {
        loop {
            let activity = lab.send(Ask::new("GET", path).by(&token)).await;
            if activity.json["metadata"]["total"] == 1 {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), told).await.unwrap();
    let projects = lab.send(Ask::new("GET", "/api/v1/projects").by(&token)).await;
    assert_eq!(projects.json["data"]["projects"][0]["alias"], "left", "{}", projects.text);
}
