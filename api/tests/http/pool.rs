//! The warm pool, as clients see it.

use serde_json::{Value, json};

use crate::lab::{Ask, Lab, Reply};

async fn send(lab: &Lab, token: &str, method: &str, path: &str, body: Value) -> Reply {
    let path = format!("/api/v1/{path}");
    let ask = Ask::new(method, &path).by(token);
    lab.send(if body.is_null() { ask } else { ask.body(&body) }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_warm_container_is_hidden_refuses_and_is_claimed_by_a_creation_like_it() {
    let lab = Lab::start().await;
    let (token, project) = lab.alice().await;
    let server = lab.server.to_string();
    let containers = format!("projects/{project}/containers");
    let warm = json!({ "server_id": server, "prespawn": true });
    let path = format!("{containers}?wait=running&timeout=20");
    let made = send(&lab, &token, "POST", &path, warm.clone()).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let shown = &made.json["data"];
    assert_eq!((&shown["prespawn"], &shown["status"]), (&json!(true), &json!("running")));
    assert_eq!((&shown["ssh_hostname"], &shown["service_urls"]), (&Value::Null, &Value::Null));
    let id = shown["id"].as_str().unwrap().to_owned();

    let total = async |path: &str| {
        let listed = send(&lab, &token, "GET", path, Value::Null).await;
        listed.json["data"]["pagination"]["total"].as_u64().unwrap()
    };
    assert_eq!(total("containers").await, 0);
    assert_eq!(total("containers?include_prespawn=true").await, 1);
    assert_eq!(total(&format!("{containers}?include_prespawn=true")).await, 1);
    for (method, path, status, code) in [
        ("GET", "", 200, Value::Null),
        ("POST", "/snapshots", 400, json!("SNAPSHOT_PRESPAWN_FORBIDDEN")),
        ("POST", "/stop", 409, json!("CONTAINER_PRESPAWNED")),
        ("PATCH", "", 409, json!("CONTAINER_PRESPAWNED")),
        ("PATCH", "/env", 409, json!("CONTAINER_PRESPAWNED")),
        ("GET", "/firewall/rules", 409, json!("CONTAINER_PRESPAWNED")),
        ("GET", "/network", 409, json!("CONTAINER_PRESPAWNED")),
        ("GET", "/proxy/permissions", 409, json!("CONTAINER_PRESPAWNED")),
    ] {
        let body = if method == "GET" || path == "/stop" { Value::Null } else { json!({}) };
        let reply = send(&lab, &token, method, &format!("containers/{id}{path}"), body).await;
        let found = (reply.status.as_u16(), reply.json["code"].clone());
        assert_eq!(found, (status, code), "{method} {path}: {}", reply.text);
    }
    let events = send(&lab, &token, "GET", &format!("events?container_id={id}"), Value::Null).await;
    assert_eq!(events.json["data"]["events"], json!([]), "{}", events.text);

    let wanted = json!({ "server_id": server, "name": "web", "color": "#123456" });
    let claimed = send(&lab, &token, "POST", &containers, wanted).await;
    assert_eq!(claimed.status, 201, "{}", claimed.text);
    let shown = &claimed.json["data"];
    assert_eq!((&shown["id"], &shown["name"]), (&json!(id), &json!("web")));
    assert_eq!((&shown["status"], &shown["prespawn"]), (&json!("running"), &json!(false)));
    assert!(shown["service_urls"].is_object(), "{shown}");
    assert_eq!(total("containers").await, 1);
    assert_eq!(total("containers?include_prespawn=true").await, 2, "another one takes its place");
    let events = send(&lab, &token, "GET", &format!("events?container_id={id}"), Value::Null).await;
    let told = events.json["data"]["events"].as_array().unwrap();
    let mut kinds: Vec<_> =
        told.iter().map(|event| event["event_type"].as_str().unwrap()).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["container.creating", "container.running"], "{}", events.text);

    for _ in 0..9 {
        send(&lab, &token, "POST", &containers, warm.clone()).await;
    }
    let refused = send(&lab, &token, "POST", &containers, warm).await;
    assert_eq!(refused.status, 422, "{}", refused.text);
}
