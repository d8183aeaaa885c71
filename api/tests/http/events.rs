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
async fn read_until(body: &mut Body, texts: &[&str]) -> String {
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

async fn stream(lab: &Lab, token: &str, last: Option<&str>, realm: Option<&str>) -> (u16, Body) {
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
