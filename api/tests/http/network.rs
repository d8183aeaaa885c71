//! The outbound network: its calls, and that the container has what was acknowledged.

use gantry_model::ContainerId;
use gantry_runtime::{Error, Outbound, Way, fake::Call};
use serde_json::{Value, json};

use crate::lab::{Ask, Lab, Reply};

async fn call(lab: &Lab, token: &str, method: &str, path: &str, body: &Value) -> Reply {
    let ask = Ask::new(method, path).by(token);
    lab.send(if body.is_null() { ask } else { ask.body(body) }).await
}

fn has(lab: &Lab, id: &str) -> Outbound {
    let key: ContainerId = id.parse().unwrap();
    lab.world.order(key).unwrap().outbound
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_is_shut_switched_and_cleared_and_the_container_has_it() {
    let lab = Lab::start().await;
    let (token, project) = lab.alice().await;
    let id = lab.container(&token, &project, "web").await;
    let path = format!("/api/v1/containers/{id}/network");
    let get = async || call(&lab, &token, "GET", &path, &Value::Null).await.json["data"].clone();
    let none = get().await;
    assert_eq!((&none["configured"], &none["status"]), (&json!(false), &Value::Null), "{none}");
    assert_eq!(none["container_id"], id);
    let missing = call(&lab, &token, "POST", &format!("{path}/start"), &Value::Null).await;
    assert_eq!(missing.status, 404, "{}", missing.text);

    let body = json!({ "type": "block", "comment": "quiet", "city": "Delft" });
    let set = call(&lab, &token, "PUT", &path, &body).await;
    assert_eq!(set.status, 200, "{}", set.text);
    let shown = &set.json["data"];
    for (field, want) in [
        ("configured", json!(true)),
        ("type", json!("block")),
        ("proxy", Value::Null),
        ("credentials_configured", json!(false)),
        ("city", json!("Delft")),
        ("country", Value::Null),
        ("dns_servers", json!(["1.1.1.1", "8.8.8.8"])),
        ("status", json!("running")),
    ] {
        assert_eq!(shown[field], want, "{field}: {shown}");
    }
    assert_eq!(shown["remote_status"]["is_running"], true);
    assert_eq!(has(&lab, &id), Outbound { version: 1, way: Way::Blocked });
    let body = json!({ "type": "block", "city": null });
    let set = call(&lab, &token, "PATCH", &path, &body).await;
    let shown = &set.json["data"];
    assert_eq!((&shown["city"], &shown["comment"]), (&Value::Null, &json!("quiet")), "{shown}");

    for (what, status, way) in [
        ("stop", "stopped", Way::Direct),
        ("stop", "stopped", Way::Direct),
        ("start", "running", Way::Blocked),
    ] {
        let reply = call(&lab, &token, "POST", &format!("{path}/{what}"), &json!({})).await;
        assert_eq!(reply.status, 200, "{what}: {}", reply.text);
        let data = &reply.json["data"];
        assert_eq!((&data["status"], &data["container_id"]), (&json!(status), &json!(id)));
        assert_eq!(data["is_running"], status == "running");
        assert_eq!((has(&lab, &id).way, get().await["status"].clone()), (way, json!(status)));
    }
    let stop = format!("/api/v1/containers/{id}/stop?wait=stopped");
    assert_eq!(call(&lab, &token, "POST", &stop, &Value::Null).await.status, 200);
    assert_eq!(get().await["status"], "configured", "it holds from the next start on");
    for _ in 0..2 {
        let gone = call(&lab, &token, "DELETE", &path, &Value::Null).await;
        assert_eq!(
            (gone.status.as_u16(), &gone.json["data"]),
            (200, &Value::Null),
            "{}",
            gone.text
        );
    }
    assert_eq!(get().await["configured"], false);
    assert_eq!(has(&lab, &id).way, Way::Direct);

    let events = format!("/api/v1/events?container_id={id}&sort_order=asc&limit=100");
    let events = call(&lab, &token, "GET", &events, &Value::Null).await;
    let told = events.json["data"]["events"].as_array().unwrap().iter();
    let kinds: Vec<_> = told
        .filter_map(|event| event["event_type"].as_str()?.strip_prefix("container.network."))
        .collect();
    assert_eq!(kinds, ["updated", "updated", "stopped", "started", "deleted"], "{}", events.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_network_is_said_by_field() {
    let lab = Lab::start().await;
    let (token, project) = lab.alice().await;
    let id = lab.container(&token, &project, "web").await;
    let path = format!("/api/v1/containers/{id}/network");
    for (body, fields) in [
        (json!({}), vec!["type"]),
        (json!({ "type": "direct", "city": 5 }), vec!["city", "type"]),
        (json!({ "type": "block", "proxy": "http://secret" }), vec!["proxy"]),
        (json!({ "type": "http", "proxy": "ftp://secret" }), vec!["proxy"]),
        (json!({ "type": "http", "proxy": "socks5://al:secret@proxy.example" }), vec!["proxy"]),
        (json!({ "type": "socks5" }), vec!["proxy"]),
        (json!({ "type": "socks5", "proxy": null }), vec!["proxy"]),
        (json!({ "type": "block", "country": "x".repeat(65), "way": 1 }), vec!["country", "way"]),
        (json!({ "type": "block", "comment": "\u{1b}" }), vec!["comment"]),
        (
            json!({ "type": "block", "dns_servers": ["1.1.1.1", "localhost"] }),
            vec!["dns_servers[1]"],
        ),
        (json!({ "type": "block", "dns_servers": "1.1.1.1" }), vec!["dns_servers"]),
    ] {
        let reply = call(&lab, &token, "PUT", &path, &body).await;
        assert_eq!(reply.status, 400, "{body}: {}", reply.text);
        let named = reply.json["data"].as_array().unwrap().iter();
        let mut named: Vec<_> = named.map(|it| it["field"].as_str().unwrap()).collect();
        named.sort_unstable();
        assert_eq!(named, fields, "{body}: {}", reply.text);
        assert!(!reply.text.contains("secret"), "{}", reply.text);
    }
    assert_eq!(has(&lab, &id), Outbound::default());
    let body = json!({ "permissions": { "containers": { "read": true, "update": true } } });
    let body = json!({ "alias": "narrow", "permissions": body["permissions"] });
    let made = call(&lab, &token, "POST", "/api/v1/auth/tokens", &body).await;
    let narrow = made.json["data"]["token"].as_str().unwrap();
    for (method, body) in [("GET", Value::Null), ("PUT", json!({ "type": "block" }))] {
        let reply = call(&lab, narrow, method, &path, &body).await;
        assert_eq!(reply.status, 403, "{method}: {}", reply.text);
        assert!(reply.text.contains("containers.features.networking"), "{}", reply.text);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_gets_its_credentials_and_nobody_else_does() {
    let lab = Lab::start().await;
    let (token, project) = lab.alice().await;
    let id = lab.container(&token, &project, "web").await;
    let path = format!("/api/v1/containers/{id}/network");
    let proxy = |id: &str| match has(&lab, id).way {
        Way::Through(proxy) => {
            (proxy.endpoint.to_string(), proxy.credentials.map(|it| it.to_text()))
        }
        other @ (Way::Direct | Way::Blocked) => panic!("{other:?}"),
    };
    let known = || Some("al:s3cret".to_owned());
    for (body, url, credentials) in [
        (
            json!({ "type": "http", "proxy": "http://al:s3cret@Proxy.Example:3128/" }),
            "http://proxy.example:3128",
            known(),
        ),
        (json!({ "type": "http", "city": "Delft" }), "http://proxy.example:3128", known()),
        (
            json!({ "type": "http", "proxy": "http://proxy.example:3128" }),
            "http://proxy.example:3128",
            known(),
        ),
        // Another port is another proxy, which shall not hear them.
        (
            json!({ "type": "http", "proxy": "http://proxy.example:3129" }),
            "http://proxy.example:3129",
            None,
        ),
        (
            json!({ "type": "socks5", "proxy": "socks5://al:s3cret@192.0.2.1" }),
            "socks5://192.0.2.1:1080",
            known(),
        ),
    ] {
        let set = call(&lab, &token, "PATCH", &path, &body).await;
        assert_eq!(set.status, 200, "{body}: {}", set.text);
        let data = &set.json["data"];
        assert_eq!((&data["proxy"], &data["type"]), (&json!(url), &body["type"]));
        assert_eq!(data["credentials_configured"], credentials.is_some(), "{body}");
        assert_eq!(proxy(&id), (url.to_owned(), credentials), "{body}");
        assert!(!set.text.contains("s3cret"), "{}", set.text);
    }
    let copy = format!("/api/v1/containers/{id}/copy?wait=running");
    let body = json!({ "target_project_id": project, "copy_network_rules": true });
    let copied = call(&lab, &token, "POST", &copy, &body).await;
    assert_eq!(copied.status, 201, "{}", copied.text);
    let copied = copied.json["data"]["id"].as_str().unwrap();
    assert_eq!(proxy(copied), ("socks5://192.0.2.1:1080".to_owned(), known()));

    for seen in [path.as_str(), "/api/v1/events?limit=100", "/api/v1/activity"] {
        let seen = call(&lab, &token, "GET", seen, &Value::Null).await;
        assert!(!seen.text.contains("s3cret"), "{}", seen.text);
    }
    let blocked = call(&lab, &token, "PUT", &path, &json!({ "type": "block" })).await;
    let data = &blocked.json["data"];
    assert_eq!((&data["credentials_configured"], &data["proxy"]), (&json!(false), &Value::Null));
    let gone = call(&lab, &token, "PUT", &path, &json!({ "type": "socks5" })).await;
    assert_eq!(gone.status, 400, "its proxy is forgotten: {}", gone.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_the_host_does_not_take_is_told_and_brought_later() {
    let lab = Lab::start().await;
    let (token, project) = lab.alice().await;
    let id = lab.container(&token, &project, "web").await;
    // More than passes for other reasons may meet with before this one.
    for _ in 0..8 {
        lab.world.fail_next(Call::Outbound, Error::failed("filter", "no answer"));
    }
    let path = format!("/api/v1/containers/{id}/network");
    let reply = call(&lab, &token, "PUT", &path, &json!({ "type": "block" })).await;
    assert_eq!(reply.status, 503, "{}", reply.text);
    assert_eq!(reply.json["code"], "FIREWALL_HOST_UNAVAILABLE");
    assert!(reply.headers.contains_key("retry-after") && !reply.text.contains("no answer"));
    let arrived = async {
        while has(&lab, &id).way != Way::Blocked {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), arrived).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_is_as_shut_as_its_source_or_is_not_made() {
    let lab = Lab::start().await;
    let (token, project) = lab.alice().await;
    let id = lab.container(&token, &project, "web").await;
    let path = format!("/api/v1/containers/{id}/network");
    call(&lab, &token, "PUT", &path, &json!({ "type": "block" })).await;
    let copy = format!("/api/v1/containers/{id}/copy?wait=running");
    for (copied, way) in [(true, Way::Blocked), (false, Way::Direct)] {
        let body = json!({ "target_project_id": project, "copy_network_rules": copied });
        let reply = call(&lab, &token, "POST", &copy, &body).await;
        assert_eq!(reply.status, 201, "{}", reply.text);
        assert_eq!(has(&lab, reply.json["data"]["id"].as_str().unwrap()).way, way);
    }
    let snapshot = format!("/api/v1/containers/{id}/snapshots");
    let reply = call(&lab, &token, "POST", &snapshot, &json!({ "alias": "kept" })).await;
    let name = reply.json["data"]["snapshot"]["name"].clone();
    let gone = format!("/api/v1/containers/{id}?wait=deleted");
    assert_eq!(call(&lab, &token, "DELETE", &gone, &Value::Null).await.status, 200);
    let body = json!({ "target_project_id": project, "source_snapshot": name,
        "copy_network_rules": true });
    let reply = call(&lab, &token, "POST", &copy, &body).await;
    assert_eq!(reply.status, 400, "{}", reply.text);
    assert_eq!(reply.json["data"][0]["field"], "copy_network_rules");
}
