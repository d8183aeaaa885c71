//! Firewall rules: their calls, and that the container has what was acknowledged.

use gantry_model::{ContainerId, firewall::Rules};
use gantry_runtime::{Error, fake::Call};
use serde_json::{Value, json};

use crate::lab::{Ask, Lab, Reply};

async fn call(lab: &Lab, token: &str, method: &str, path: &str, body: &Value) -> Reply {
    let ask = Ask::new(method, path).by(token);
    lab.send(if body.is_null() { ask } else { ask.body(body) }).await
}

fn tcp(action: &str, port: &str) -> Value {
    json!({ "action": action, "protocol": "tcp", "description": "d", "destination_port": port })
}

fn with(mut rule: Value, more: &[(&str, &str)]) -> Value {
    for (name, value) in more {
        rule[name] = json!(value);
    }
    rule
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_are_added_switched_and_removed_and_the_container_has_them() {
    let lab = Lab::start().await;
    let (token, project) = lab.alice().await;
    let id = lab.container(&token, &project, "web").await;
    let key: ContainerId = id.parse().unwrap();
    let base = format!("/api/v1/containers/{id}/firewall");
    let (ingress, egress) = (format!("{base}/ingress"), format!("{base}/egress"));
    let has = || lab.world.order(key).unwrap().firewall.rules;
    let list = async || {
        let reply = call(&lab, &token, "GET", &format!("{base}/rules"), &Value::Null).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let read = json!({ "ingress": reply.json["data"]["ingress"], "egress": reply.json["data"]["egress"] });
        assert_eq!(Rules::read(&read).unwrap(), has(), "what is shown is in force");
        reply.json["data"].clone()
    };
    let none = list().await;
    assert_eq!((&none["rule_count"], &none["byte_count"]), (&json!(0), &json!(0)));
    assert_eq!(none["max_rules"], Rules::MAX);

    let web = with(tcp("allow", "80,443"), &[("source", "192.0.2.0/24")]);
    let reply = call(&lab, &token, "POST", &ingress, &web).await;
    assert_eq!(reply.status, 201, "{}", reply.text);
    let shown = with(web.clone(), &[("state", "enabled")]);
    assert_eq!(reply.json["data"], json!({ "ingress": [shown], "egress": [] }));
    let rest = tcp("drop", "1-65535");
    assert_eq!(call(&lab, &token, "POST", &ingress, &rest).await.status, 201);
    let again = call(&lab, &token, "POST", &ingress, &rest).await;
    assert_eq!(again.status, 200, "{}", again.text);
    assert_eq!(again.json["data"]["duplicate"], true);
    assert_eq!(again.json["data"]["duplicate_of"], json!({ "direction": "ingress", "index": 1 }));
    let mail = with(tcp("reject", "25"), &[("destination", "10.0.0.1-10.0.0.9")]);
    assert_eq!(call(&lab, &token, "POST", &egress, &mail).await.status, 201);
    assert_eq!(list().await["rule_count"], 3);

    let off = json!({ "state": "disabled", "action": "drop" });
    let reply = call(&lab, &token, "PATCH", &ingress, &off).await;
    let want = json!({ "direction": "ingress", "new_state": "disabled", "updated": 1 });
    assert_eq!((reply.status.as_u16(), &reply.json["data"]), (200, &want), "{}", reply.text);
    assert!(!has().ingress[1].enabled && has().ingress[0].enabled);
    let reply = call(&lab, &token, "PATCH", &ingress, &off).await;
    assert_eq!(reply.json["data"]["updated"], 0, "nothing is left to switch");

    let missing = call(&lab, &token, "DELETE", &ingress, &json!({ "action": "drop" })).await;
    assert_eq!(missing.status, 404, "one that is off is not meant: {}", missing.text);
    let body = json!({ "action": "drop", "state": "disabled" });
    let reply = call(&lab, &token, "DELETE", &ingress, &body).await;
    assert_eq!((reply.status.as_u16(), &reply.json["data"]["removed_count"]), (200, &json!(1)));
    assert_eq!(reply.json["data"]["removed"][0]["destination_port"], "1-65535");
    call(&lab, &token, "POST", &ingress, &rest).await;
    let reply = call(&lab, &token, "DELETE", &ingress, &json!({ "all": true })).await;
    assert_eq!(reply.json["data"]["removed_count"], 2, "{}", reply.text);
    assert_eq!(list().await["rule_count"], 1);
    let reply = call(&lab, &token, "POST", &format!("{base}/reset"), &json!({})).await;
    assert_eq!(reply.json["data"], json!({ "rules": { "ingress": [], "egress": [] } }));
    assert_eq!(list().await["rule_count"], 0);
    assert_eq!(lab.world.starts(key), 1, "nothing was restarted");
    let told = lab.send(Ask::new("GET", "/api/v1/events?resource_type=firewall").by(&token)).await;
    assert_eq!(told.json["data"]["pagination"]["total"], 8, "{}", told.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_rules_are_named_field_by_field_and_change_nothing() {
    let lab = Lab::start().await;
    let (token, project) = lab.alice().await;
    let id = lab.container(&token, &project, "web").await;
    let ingress = format!("/api/v1/containers/{id}/firewall/ingress");
    for (method, body, fields) in [
        ("POST", json!({}), vec!["action", "protocol", "description"]),
        ("POST", tcp("deny", "80"), vec!["action"]),
        ("POST", tcp("allow", "0"), vec!["destination_port"]),
        ("POST", with(tcp("allow", "80"), &[("source", "10.0.0.1/8")]), vec!["source"]),
        ("POST", with(tcp("allow", "80"), &[("destination", "10.0.0.1")]), vec!["destination"]),
        ("POST", with(tcp("allow", "80"), &[("state", "on")]), vec!["state"]),
        ("POST", with(tcp("allow", "80"), &[("description", "a\u{1b}[2J")]), vec!["description"]),
        (
            "POST",
            json!({ "action": "allow", "protocol": "tcp", "description": 5 }),
            vec!["description", "destination_port"],
        ),
        ("PATCH", json!({ "action": "drop" }), vec!["state"]),
        ("PATCH", json!({ "state": "enabled" }), vec!["body"]),
        ("PATCH", json!({ "state": "off", "action": "drop" }), vec!["state"]),
        ("DELETE", json!({}), vec!["body"]),
        ("DELETE", json!({ "all": "yes" }), vec!["all"]),
        ("DELETE", json!({ "all": true, "source": null }), vec!["source"]),
        ("PUT", json!({ "state": "enabled", "source": null }), vec!["source"]),
        ("DELETE", json!({ "everything": true }), vec!["everything"]),
    ] {
        let reply = call(&lab, &token, method, &ingress, &body).await;
        assert_eq!(reply.status, 400, "{method} {body}: {}", reply.text);
        let named: Vec<_> = reply.json["data"].as_array().unwrap().iter().collect();
        let named: Vec<_> = named.iter().map(|it| it["field"].as_str().unwrap()).collect();
        assert_eq!(named, fields, "{method} {body}: {}", reply.text);
    }
    let bob = lab.login("bob", crate::lab::PASSWORD).await;
    for (method, path, body) in [
        ("GET", "rules", Value::Null),
        ("POST", "reset", json!({})),
        ("POST", "egress", tcp("drop", "1")),
        ("PATCH", "egress", json!({ "state": "enabled", "action": "drop" })),
        ("DELETE", "egress", json!({ "all": true })),
    ] {
        let path = format!("/api/v1/containers/{id}/firewall/{path}");
        assert_eq!(call(&lab, &bob, method, &path, &body).await.status, 404, "{method} {path}");
    }
    let key: ContainerId = id.parse().unwrap();
    assert_eq!(lab.world.order(key).unwrap().firewall.rules, Rules::default());
    for port in 1..=Rules::MAX {
        let reply = call(&lab, &token, "POST", &ingress, &tcp("drop", &port.to_string())).await;
        assert_eq!(reply.status, 201, "{port}: {}", reply.text);
    }
    let reply = call(&lab, &token, "POST", &ingress, &tcp("drop", "9999")).await;
    assert_eq!(reply.status, 422, "{}", reply.text);
    assert_eq!(reply.json["code"], "FIREWALL_LIMIT_REACHED");
    assert_eq!(reply.json["data"][0]["field"], "rules", "{}", reply.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_that_the_host_does_not_take_are_told_and_brought_later() {
    let lab = Lab::start().await;
    let (token, project) = lab.alice().await;
    let id = lab.container(&token, &project, "web").await;
    let key: ContainerId = id.parse().unwrap();
    // More than passes for other reasons may meet with before this one.
    for _ in 0..8 {
        lab.world.fail_next(Call::Firewall, Error::failed("filter", "no answer"));
    }
    let ingress = format!("/api/v1/containers/{id}/firewall/ingress");
    let reply = call(&lab, &token, "POST", &ingress, &tcp("drop", "80")).await;
    assert_eq!(reply.status, 503, "{}", reply.text);
    assert_eq!(reply.json["code"], "FIREWALL_HOST_UNAVAILABLE");
    assert!(reply.headers.contains_key("retry-after") && !reply.text.contains("no answer"));
    let arrived = async {
        while lab.world.order(key).unwrap().firewall.rules.count() != 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), arrived).await.unwrap();
    let again = call(&lab, &token, "POST", &ingress, &tcp("drop", "80")).await;
    assert_eq!((again.status.as_u16(), &again.json["data"]["duplicate"]), (200, &json!(true)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_is_as_closed_as_its_source_or_is_not_made() {
    let lab = Lab::start().await;
    let (token, project) = lab.alice().await;
    let id = lab.container(&token, &project, "web").await;
    let ingress = format!("/api/v1/containers/{id}/firewall/ingress");
    call(&lab, &token, "POST", &ingress, &tcp("drop", "80")).await;
    let copy = format!("/api/v1/containers/{id}/copy?wait=running");
    let body = json!({ "target_project_id": project, "copy_firewall_rules": true });
    let reply = call(&lab, &token, "POST", &copy, &body).await;
    assert_eq!(reply.status, 201, "{}", reply.text);
    let made: ContainerId = reply.json["data"]["id"].as_str().unwrap().parse().unwrap();
    assert_eq!(lab.world.order(made).unwrap().firewall.rules.count(), 1);

    let snapshot = format!("/api/v1/containers/{id}/snapshots");
    let reply = call(&lab, &token, "POST", &snapshot, &json!({ "alias": "kept" })).await;
    let name = reply.json["data"]["snapshot"]["name"].clone();
    let gone = format!("/api/v1/containers/{id}?wait=deleted");
    let reply = call(&lab, &token, "DELETE", &gone, &Value::Null).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let mut body = json!({ "target_project_id": project, "source_snapshot": name,
        "copy_firewall_rules": true });
    let reply = call(&lab, &token, "POST", &copy, &body).await;
    assert_eq!(reply.status, 400, "{}", reply.text);
    assert_eq!(reply.json["data"][0]["field"], "copy_firewall_rules");
    body["copy_firewall_rules"] = json!(false);
    assert_eq!(call(&lab, &token, "POST", &copy, &body).await.status, 201);
}
