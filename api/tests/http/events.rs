//! What happened, as a list, by a cursor and as a stream.

use std::time::Duration;

use axum::body::Body;
use gantry_api::Realm;
use http::Request;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::lab::{Ask, Lab, PASSWORD};

const REALM: &str = "64a2c4e9f3d5e2b6a8c7d8e1";

fn kinds(reply: &Value) -> Vec<&str> {
    let events = reply["data"]["events"].as_array().unwrap();
    events.iter().map(|event| event["event_type"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happens_to_things_is_listed_with_filters() {
    let lab = Lab::start().await;
    let (token, project) = lab.alice().await;
    let id = lab.container(&token, &project, "web").await;
    let env = Ask::new("PATCH", &format!("/api/v1/containers/{id}/env")).by(&token);
    assert_eq!(lab.send(env.body(&json!({ "SECRET": "value" }))).await.status, 200);
    let delete = Ask::new("DELETE", &format!("/api/v1/containers/{id}")).by(&token);
    assert_eq!(lab.send(delete).await.status, 200);
    let get = |query: &str| Ask::new("GET", &format!("/api/v1/events{query}")).by(&token);
    let all = lab.send(get("?sort_order=asc")).await;
    let want = [
        "project.created",
        "container.creating",
        "container.running",
        "container.env.updated",
        "container.deleting",
        "container.deleted",
    ];
    assert_eq!(kinds(&all.json), want, "{}", all.text);
    assert!(!all.text.contains("value"), "values of variables are told to nobody");
    let part = json!({ "total": 6, "limit": 100, "offset": 0, "has_more": false });
    assert_eq!(all.json["data"]["pagination"], part);
    let running = &all.json["data"]["events"][2];
    assert_eq!(running["resource_id"], id.as_str());
    assert_eq!(running["payload"]["from_status"], "creating", "{running}");
    for (query, count) in [
        ("?event_type=container.running".to_owned(), 1),
        ("?resource_type=project".to_owned(), 1),
        (format!("?resource_id={id}"), 5),
        (format!("?container_id={id}"), 5),
        (format!("?project_id={project}"), 6),
        ("?start_date=2000-01-01".to_owned(), 6),
        ("?end_date=2000-01-01".to_owned(), 0),
        ("?limit=4&offset=4".to_owned(), 2),
        (format!("?realm_id={REALM}"), 0),
    ] {
        let reply = lab.send(get(&query)).await;
        assert_eq!(kinds(&reply.json).len(), count, "{query}: {}", reply.text);
    }
    for (query, status) in [
        ("?limit=501", 400),
        ("?sort_by=size", 422),
        ("?start_date=soon", 400),
        ("?after=1", 400),
        ("?bootstrap=true&offset=1", 400),
        ("?bootstrap=true&event_type=a", 400),
    ] {
        assert_eq!(lab.send(get(query)).await.status, status, "{query}");
    }
    let bob = lab.login("bob", PASSWORD).await;
    assert_eq!(kinds(&lab.send(get("").by(&bob)).await.json), [""; 0]);
    let one = format!("/api/v1/events/{}", running["id"].as_str().unwrap());
    assert_eq!(lab.send(Ask::new("GET", &one).by(&bob)).await.status, 404);
    assert_eq!(lab.send(Ask::new("DELETE", &one).by(&bob)).await.status, 404);
    assert_eq!(lab.send(Ask::new("GET", &one).by(&token)).await.json["data"], *running);
}

#[tokio::test]
async fn a_cursor_leads_through_all_events_and_outlives_what_it_points_at() {
    let lab = Lab::start().await;
    let token = lab.login("alice", PASSWORD).await;
    let get = |query: String| Ask::new("GET", &format!("/api/v1/events?{query}")).by(&token);
    let start = lab.send(get("bootstrap=true".to_owned())).await;
    assert_eq!(start.json["data"]["pagination"]["total"], -1, "{}", start.text);
    assert_eq!(start.json["data"].get("next_cursor"), None, "nothing has happened yet");
    for alias in ["one", "two", "three", "four"] {
        let body = json!({ "alias": alias });
        lab.send(Ask::new("POST", "/api/v1/projects").by(&token).body(&body)).await;
    }
    let mut cursor = "0".repeat(24);
    let mut seen = Vec::new();
    for more in [true, false] {
        let reply = lab.send(get(format!("after={cursor}&limit=2"))).await;
        let data = &reply.json["data"];
        let events = data["events"].as_array().unwrap();
        seen.extend(events.iter().map(|event| event["payload"]["alias"].clone()));
        assert_eq!(data["pagination"]["has_more"], more, "{}", reply.text);
        cursor = data["next_cursor"].as_str().unwrap().to_owned();
    }
    assert_eq!(seen, ["one", "two", "three", "four"]);
    let delete = Ask::new("DELETE", "/api/v1/events").by(&token);
    let deleted = lab.send(delete.body(&json!({ "event_type": "project.created" }))).await;
    assert_eq!(deleted.json["data"], json!({ "deleted_count": 4 }), "{}", deleted.text);
    let body = json!({ "alias": "five" });
    lab.send(Ask::new("POST", "/api/v1/projects").by(&token).body(&body)).await;
    let reply = lab.send(get(format!("after={cursor}"))).await;
    assert_eq!(reply.json["data"]["events"][0]["payload"]["alias"], "five", "{}", reply.text);
    let stats = lab.send(Ask::new("GET", "/api/v1/events/stats").by(&token)).await;
    assert_eq!(stats.json["data"]["by_type"], json!({ "project.created": 1 }), "{}", stats.text);
    let cleanup = |days: Value| {
        let body = json!({ "retention_days": days });
        Ask::new("POST", "/api/v1/events/cleanup").by(&token).body(&body)
    };
    let cleaned = lab.send(cleanup(json!(1))).await;
    assert_eq!(cleaned.json["data"]["deleted_count"], 0, "{}", cleaned.text);
    for days in [json!(0), json!(366), json!("1")] {
        assert_eq!(lab.send(cleanup(days)).await.status, 400);
    }
}

/// Reads a stream until it has said all of `texts`.
pub(crate) async fn read_until(body: &mut Body, texts: &[&str]) -> String {
    let mut said = String::new();
    let reading = async {
        while !texts.iter().all(|text| said.contains(text)) {
            let Some(frame) = body.frame().await else { break };
            if let Ok(data) = frame.unwrap().into_data() {
                said.push_str(std::str::from_utf8(&data).unwrap());
            }
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(20), reading).await.is_ok();
    assert!(in_time && texts.iter().all(|text| said.contains(text)), "{texts:?} in {said}");
    said
}

pub(crate) async fn stream(
    lab: &Lab,
    token: &str,
    last: Option<&str>,
    realm: Option<&str>,
) -> (u16, Body) {
    let mut request =
        Request::get("/api/v1/events/stream").header("authorization", format!("Bearer {token}"));
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    let mut request = request.body(Body::empty()).unwrap();
    request.extensions_mut().insert(Realm(realm.map(|realm| realm.parse().unwrap())));
    let response = lab.router.clone().oneshot(request).await.unwrap();
    (response.status().as_u16(), response.into_body())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_tells_what_happens_and_goes_on_where_it_was() {
    let lab = Lab::start().await;
    let (token, project) = lab.alice().await;
    let (status, mut body) = stream(&lab, &token, None, None).await;
    assert_eq!(status, 200);
    read_until(&mut body, &["retry:"]).await;
    lab.container(&token, &project, "web").await;
    let said = read_until(&mut body, &["event: container.running\n"]).await;
    assert!(!said.contains("project.created"), "what was before is not told: {said}");
    let first = said.lines().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
    drop(body);
    let (_, mut body) = stream(&lab, &token, Some(&first), None).await;
    let said = read_until(&mut body, &["event: container.running\n"]).await;
    assert!(!said.contains("container.creating"), "it goes on after that: {said}");

    let bob = lab.login("bob", PASSWORD).await;
    let (_, mut his) = stream(&lab, &bob, Some(&"0".repeat(24)), None).await;
    let post =
        |token: &str, body: Value| Ask::new("POST", "/api/v1/projects").by(token).body(&body);
    lab.send(post(&token, json!({ "alias": "hers" }))).await;
    lab.send(post(&bob, json!({ "alias": "his" }))).await;
    let said = read_until(&mut his, &["\"his\""]).await;
    assert!(!said.contains("hers") && !said.contains("container"), "{said}");

    let (_, mut in_realm) = stream(&lab, &token, None, Some(REALM)).await;
    read_until(&mut in_realm, &["retry:"]).await;
    lab.send(post(&token, json!({ "alias": "outside" }))).await;
    lab.send(post(&token, json!({ "alias": "inside", "realm_ids": [REALM] }))).await;
    let said = read_until(&mut in_realm, &["inside"]).await;
    assert!(!said.contains("outside"), "{said}");

    // Who may not read any more is told nothing any more.
    let logout = Ask::new("POST", "/api/v1/users/auth/logout").by(&token);
    assert_eq!(lab.send(logout).await.status, 200);
    let ended = async { while body.frame().await.is_some() {} };
    tokio::time::timeout(Duration::from_secs(20), ended).await.unwrap();
}

#[tokio::test]
async fn tokens_need_the_permission_and_the_switch_for_events() {
    let lab = Lab::start().await;
    let (session, _) = lab.alice().await;
    let permissions = |events: bool| json!({ "resources": { "events": events } });
    for (body, status) in [
        (json!({ "alias": "both", "permissions": permissions(true) }), 200),
        (json!({ "alias": "no leaf", "permissions": permissions(false) }), 403),
        (
            json!({ "alias": "no switch", "permissions": permissions(true), "event_access": false }),
            403,
        ),
    ] {
        let made = Ask::new("POST", "/api/v1/auth/tokens").by(&session).body(&body);
        let secret = lab.send(made).await.json["data"]["token"].as_str().unwrap().to_owned();
        let reply = lab.send(Ask::new("GET", "/api/v1/events").by(&secret)).await;
        assert_eq!(reply.status, status, "{body}: {}", reply.text);
        assert_eq!(stream(&lab, &secret, None, None).await.0, status, "{body}");
    }
    let (status, _) = stream(&lab, &session, Some("nonsense"), None).await;
    assert_eq!(status, 400);
}

/// A token with this body; its secret.
async fn token(lab: &Lab, session: &str, body: Value) -> String {
    let made = lab.send(Ask::new("POST", "/api/v1/auth/tokens").by(session).body(&body)).await;
    made.json["data"]["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_token_that_only_reads_removes_no_events() {
    let lab = Lab::start().await;
    let (session, _) = lab.alice().await;
    let reader = token(&lab, &session, json!({ "permission_template": "read_only" })).await;
    let writer = json!({ "resources": { "events": true }, "containers": { "delete": true } });
    let writer = token(&lab, &session, json!({ "permissions": writer })).await;
    let listed = lab.send(Ask::new("GET", "/api/v1/events").by(&reader)).await;
    let one = listed.json["data"]["events"][0]["id"].as_str().unwrap();
    let asks = [
        Ask::new("DELETE", &format!("/api/v1/events/{one}")),
        Ask::new("DELETE", "/api/v1/events"),
        Ask::new("POST", "/api/v1/events/cleanup").body(&json!({ "retention_days": 1 })),
    ];
    for ask in &asks {
        let reply = lab.send(ask.clone().by(&reader)).await;
        assert_eq!(reply.status, 403, "{}", reply.text);
        assert!(reply.text.contains("containers.delete"), "{}", reply.text);
    }
    for ask in asks {
        let reply = lab.send(ask.by(&writer)).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
    }
}

#[tokio::test]
async fn events_are_removed_by_filters_of_the_query_as_of_the_body() {
    let lab = Lab::start().await;
    let (session, project) = lab.alice().await;
    let aliases = json!({ "alias": "away" });
    let path = format!("/api/v1/projects/{project}");
    assert_eq!(lab.send(Ask::new("PATCH", &path).by(&session).body(&aliases)).await.status, 200);
    let delete = |query: &str| Ask::new("DELETE", &format!("/api/v1/events{query}")).by(&session);
    for (query, count) in [
        ("?event_type=project.nothing", 0),
        ("?before_date=2000-01-01", 0),
        ("?resource_type=container", 0),
        ("?resource_id=nobody", 0),
        ("?realm_id=64a2c4e9f3d5e2b6a8c7d8e1", 0),
        ("?event_type=project.updated&resource_type=project", 1),
    ] {
        let reply = lab.send(delete(query)).await;
        assert_eq!(reply.json["data"]["deleted_count"], count, "{query}: {}", reply.text);
    }
    // What is misspelt must not remove everything, and two filters must not mean one of them.
    let twice = delete("?event_type=a").body(&json!({ "event_type": "b" }));
    for (ask, field) in [
        (delete("?type=project.created"), "type"),
        (delete("?before_date=soon"), "before_date"),
        (twice, "event_type"),
    ] {
        let reply = lab.send(ask).await;
        assert_eq!(reply.status, 400, "{}", reply.text);
        assert_eq!(reply.json["data"][0]["field"], field, "{}", reply.text);
    }
    let left = lab.send(Ask::new("GET", "/api/v1/events").by(&session)).await;
    assert_eq!(kinds(&left.json), ["project.created"], "{}", left.text);
}

#[tokio::test]
async fn a_cursor_that_no_event_ever_had_is_refused() {
    let lab = Lab::start().await;
    let (session, _) = lab.alice().await;
    let beyond = "f".repeat(24);
    for path in
        [format!("/api/v1/events?after={beyond}"), format!("/api/v1/events/stream?after={beyond}")]
    {
        let reply = lab.send(Ask::new("GET", &path).by(&session)).await;
        assert_eq!(reply.status, 400, "{path}: {}", reply.text);
        assert_eq!(reply.json["data"][0]["field"], "after", "{}", reply.text);
    }
    assert_eq!(stream(&lab, &session, Some(&beyond), None).await.0, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_variables_those_that_changed_are_told() {
    let lab = Lab::start().await;
    let (token, project) = lab.alice().await;
    let id = lab.container(&token, &project, "web").await;
    let path = format!("/api/v1/containers/{id}/env");
    let set = |vars: Value| Ask::new("PATCH", &path).by(&token).body(&vars);
    assert_eq!(lab.send(set(json!({ "A": "1", "B": "1", "C": "1" }))).await.status, 200);
    assert_eq!(lab.send(set(json!({ "A": "1", "B": "2" }))).await.status, 200);
    let remove = Ask::new("DELETE", &format!("{path}/C")).by(&token);
    assert_eq!(lab.send(remove).await.status, 200);
    let told = Ask::new("GET", "/api/v1/events?event_type=container.env.updated&sort_order=asc");
    let told = lab.send(told.by(&token)).await;
    let events = told.json["data"]["events"].as_array().unwrap();
    let names: Vec<&Value> = events.iter().map(|event| &event["payload"]["variables"]).collect();
    assert_eq!(names, [&json!(["A", "B", "C"]), &json!(["B"]), &json!(["C"])], "{}", told.text);
}

#[tokio::test]
async fn one_account_has_so_many_streams_and_leaves_the_others_to_others() {
    let lab = Lab::start().await;
    let (alice, _) = lab.alice().await;
    let bob = lab.login("bob", PASSWORD).await;
    let mut open = Vec::new();
    for _ in 0..16 {
        let (status, body) = stream(&lab, &alice, None, None).await;
        assert_eq!(status, 200);
        open.push(body);
    }
    let refused = lab.send(Ask::new("GET", "/api/v1/events/stream").by(&alice)).await;
    assert_eq!(refused.status, 429, "{}", refused.text);
    assert!(refused.headers.contains_key("retry-after"));
    assert!(refused.text.contains("16"), "{}", refused.text);
    assert_eq!(stream(&lab, &bob, None, None).await.0, 200, "another account has its own");
    open.pop();
    assert_eq!(stream(&lab, &alice, None, None).await.0, 200, "one has ended");
}

#[tokio::test]
async fn accounts_tell_that_they_were_made_or_changed_and_not_to_what() {
    let lab = Lab::start().await;
    let made = lab.send(Ask::new("GET", "/api/v1/events?event_type=user.created").by(&lab.admin));
    let made = made.await;
    let events = made.json["data"]["events"].as_array().unwrap();
    let names: Vec<_> = events.iter().map(|event| &event["payload"]["username"]).collect();
    assert_eq!(names, [&json!("bob"), &json!("alice")], "{}", made.text);
    let alice = lab.login("alice", PASSWORD).await;
    let me = lab.send(Ask::new("GET", "/api/v1/users/auth/me").by(&alice)).await;
    let path = format!("/api/v1/users/{}", me.json["data"]["id"].as_str().unwrap());
    for body in [
        json!({ "alias": "Alice" }),
        json!({ "alias": "Alice" }),
        json!({ "password": "Passw0rd!another", "current_password": PASSWORD }),
    ] {
        let reply = lab.send(Ask::new("PATCH", &path).by(&alice).body(&body)).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
    }
    let alice = lab.login("alice", "Passw0rd!another").await;
    let told = lab.send(Ask::new("GET", "/api/v1/events?sort_order=asc").by(&alice)).await;
    assert_eq!(kinds(&told.json), ["account.updated"; 2], "{}", told.text);
    let events = told.json["data"]["events"].as_array().unwrap();
    let changed: Vec<_> = events.iter().map(|event| &event["payload"]).collect();
    assert_eq!(changed, [&json!({ "changed": ["profile"] }), &json!({ "changed": ["password"] })]);
    assert_eq!(events[0]["resource_type"], "user");
}
