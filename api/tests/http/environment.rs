//! Environment variables, one by one and while the container runs.

use gantry_model::ContainerId;
use gantry_runtime::{Error, fake::Call};
use serde_json::{Value, json};

use crate::lab::{Ask, Lab};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn variables_of_a_running_container_change_without_a_restart() {
    let lab = Lab::start().await;
    let (token, project) = lab.alice().await;
    let id = lab.container(&token, &project, "web").await;
    let key: ContainerId = id.parse().unwrap();
    let env = format!("/api/v1/containers/{id}/env");
    for (method, path, body, want) in [
        (
            "PATCH",
            env.clone(),
            json!({ "A": "1", "B": "two words" }),
            json!({ "A": "1", "B": "two words" }),
        ),
        ("PUT", env.clone(), json!({ "A": "2" }), json!({ "A": "2", "B": "two words" })),
        (
            "PUT",
            format!("{env}/C"),
            json!({ "value": "3" }),
            json!({ "A": "2", "B": "two words", "C": "3" }),
        ),
        ("DELETE", format!("{env}/B"), Value::Null, json!({ "A": "2", "C": "3" })),
        ("DELETE", format!("{env}/B"), Value::Null, json!({ "A": "2", "C": "3" })),
        ("PATCH", env.clone(), json!({}), json!({ "A": "2", "C": "3" })),
    ] {
        let mut ask = Ask::new(method, &path).by(&token);
        if !body.is_null() {
            ask = ask.body(&body);
        }
        let reply = lab.send(ask).await;
        assert_eq!(reply.status, 200, "{method} {path}: {}", reply.text);
        assert_eq!(reply.json["data"]["environment_vars"], want, "{method} {path}");
        assert_eq!(reply.json["data"]["synced"], true, "{method} {path}");
        assert_eq!(json!(lab.world.order(key).unwrap().env), want, "what the container has");
    }
    let reply = lab.send(Ask::new("GET", &env).by(&token)).await;
    assert_eq!(reply.json["data"]["environment_vars"], json!({ "A": "2", "C": "3" }));
    assert_eq!(lab.world.starts(key), 1, "nothing was restarted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_variable_that_does_not_arrive_is_said_to_be_pending_and_brought_later() {
    let lab = Lab::start().await;
    let (token, project) = lab.alice().await;
    let id = lab.container(&token, &project, "web").await;
    let key: ContainerId = id.parse().unwrap();
    let sync = async || {
        let path = format!("/api/v1/containers/{id}");
        let reply = lab.send(Ask::new("GET", &path).by(&token)).await;
        reply.json["data"]["env_sync"].clone()
    };
    let settled = async |revision: u64| {
        let looking = async {
            loop {
                let seen = sync().await;
                if seen["pending"] == false && seen["applied_revision"] == revision {
                    return seen;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), looking).await.unwrap()
    };
    let first = settled(0).await;
    assert_eq!(first["revision"], 0);
    assert!(first["verified_at"].is_string() && first["attempted_at"].is_string(), "{first}");
    for _ in 0..8 {
        lab.world.fail_next(Call::Environment, Error::failed("write it", "the disk is full"));
    }
    let env = format!("/api/v1/containers/{id}/env");
    let body = json!({ "A": "1" });
    let reply = lab.send(Ask::new("PATCH", &env).by(&token).body(&body)).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(reply.json["data"]["environment_vars"], body);
    assert_eq!(reply.json["data"]["synced"], false, "{}", reply.text);
    let listed = lab.send(Ask::new("GET", &env).by(&token)).await.json["data"]["env_sync"].take();
    for pending in [&reply.json["data"]["env_sync"], &listed] {
        let told = (&pending["pending"], &pending["revision"], &pending["applied_revision"]);
        assert_eq!(told, (&json!(true), &json!(1), &json!(0)), "{pending}");
        let why = (&pending["last_error"], &pending["last_error_message"]);
        assert_eq!(why, (&json!("ENV_APPLY_FAILED"), &json!("write it failed")), "{pending}");
    }
    let done = settled(1).await;
    assert_eq!((&done["last_error"], &done["last_error_message"]), (&Value::Null, &Value::Null));
    assert_eq!(json!(lab.world.order(key).unwrap().env), body);
    // A stopped one waits for nothing: its next start has all of them.
    let stop = format!("/api/v1/containers/{id}/stop?wait=stopped");
    assert_eq!(lab.send(Ask::new("POST", &stop).by(&token)).await.status, 200);
    let reply = lab.send(Ask::new("PATCH", &env).by(&token).body(&json!({ "A": "2" }))).await;
    let waits = &reply.json["data"]["env_sync"];
    let told = (&waits["pending"], &waits["revision"], &waits["applied_revision"]);
    assert_eq!(told, (&json!(false), &json!(2), &json!(1)), "{}", reply.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_and_values_of_variables_have_rules() {
    let lab = Lab::start().await;
    let (token, project) = lab.alice().await;
    let id = lab.container(&token, &project, "web").await;
    let env = format!("/api/v1/containers/{id}/env");
    let long = "v".repeat(4097);
    let many: serde_json::Map<String, Value> =
        (0..257).map(|n| (format!("K{n}"), json!("v"))).collect();
    for (method, path, body, code, field) in [
        ("PUT", format!("{env}/1A"), json!({ "value": "x" }), "INVALID_ENV_KEY", "1A"),
        (
            "PUT",
            format!("{env}/HOODY_X"),
            json!({ "value": "x" }),
            "RESERVED_ENV_PREFIX",
            "HOODY_X",
        ),
        ("PUT", format!("{env}/A"), json!({ "value": "" }), "VALIDATION_ERROR", "A"),
        ("PUT", format!("{env}/A"), json!({ "value": long }), "VALIDATION_ERROR", "A"),
        ("PUT", format!("{env}/A"), json!({ "value": 5 }), "VALIDATION_ERROR", "value"),
        ("PUT", format!("{env}/A"), json!({}), "VALIDATION_ERROR", "value"),
        ("PATCH", env.clone(), json!({ "A-B": "x" }), "INVALID_ENV_KEY", "A-B"),
        ("PATCH", env.clone(), json!({ "HOODY_X": "x" }), "RESERVED_ENV_PREFIX", "HOODY_X"),
        ("PATCH", env.clone(), json!({ "A": null }), "VALIDATION_ERROR", "A"),
        ("PATCH", env.clone(), Value::Object(many), "VALIDATION_ERROR", "environment_vars"),
        ("DELETE", format!("{env}/A.B"), Value::Null, "INVALID_ENV_KEY", "A.B"),
        ("DELETE", format!("{env}/HOODY_X"), Value::Null, "RESERVED_ENV_PREFIX", "HOODY_X"),
    ] {
        let mut ask = Ask::new(method, &path).by(&token);
        if !body.is_null() {
            ask = ask.body(&body);
        }
        let reply = lab.send(ask).await;
        assert_eq!(reply.status, 400, "{method} {path}: {}", reply.text);
        assert_eq!(reply.json["code"], code, "{method} {path}");
        assert_eq!(reply.json["data"][0]["field"], field, "{method} {path}: {}", reply.text);
    }
    let bob = lab.login("bob", crate::lab::PASSWORD).await;
    for ask in [
        Ask::new("GET", &env),
        Ask::new("PATCH", &env).body(&json!({ "A": "x" })),
        Ask::new("PUT", &format!("{env}/A")).body(&json!({ "value": "x" })),
        Ask::new("DELETE", &format!("{env}/A")),
    ] {
        assert_eq!(lab.send(ask.by(&bob)).await.status, 404);
    }
    let reply = lab.send(Ask::new("GET", &env).by(&token)).await;
    assert_eq!(reply.json["data"]["environment_vars"], json!({}), "{}", reply.text);
}
