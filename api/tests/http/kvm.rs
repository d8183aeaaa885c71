//! Hardware virtualisation: who gets `/dev/kvm`, when, and that the container has it.

use gantry_model::ContainerId;
use gantry_runtime::Kvm;
use serde_json::{Value, json};

use crate::lab::{Ask, Lab, Reply};

async fn call(lab: &Lab, token: &str, method: &str, path: &str, body: &Value) -> Reply {
    let ask = Ask::new(method, path).by(token);
    lab.send(if body.is_null() { ask } else { ask.body(body) }).await
}

/// Whether the runtime was told to give it to this container.
fn has(lab: &Lab, id: &str) -> bool {
    let key: ContainerId = id.parse().unwrap();
    lab.world.order(key).unwrap().kvm
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kvm_is_given_at_creation_and_changed_while_the_container_is_stopped() {
    let lab = Lab::start().await;
    lab.world.set_kvm(Kvm::Offered);
    let (token, project) = lab.alice().await;
    let create = format!("/api/v1/projects/{project}/containers?wait=running&timeout=20");
    let body = json!({ "server_id": lab.server.to_string(), "dev_kvm": true, "kvm": true });
    let made = call(&lab, &token, "POST", &create, &body).await;
    assert_eq!((made.status.as_u16(), &made.json["data"]["kvm"]), (201, &json!(true)));
    let note = made.json["data"]["kvm_note"].as_str().unwrap();
    assert!(note.contains("/dev/kvm"), "{note}");
    let id = made.json["data"]["id"].as_str().unwrap().to_owned();
    assert!(has(&lab, &id));

    let path = format!("/api/v1/containers/{id}");
    let kvm = format!("{path}/kvm");
    let shown = call(&lab, &token, "GET", &path, &Value::Null).await;
    assert_eq!(shown.json["data"]["kvm"], true);
    assert_eq!(shown.json["data"].get("kvm_note"), None, "at creation only");
    let same = call(&lab, &token, "PUT", &kvm, &json!({ "kvm": true })).await;
    assert_eq!(same.status, 200, "no change: {}", same.text);
    let off = json!({ "dev_kvm": false });
    let running = call(&lab, &token, "PUT", &kvm, &off).await;
    assert_eq!(running.status, 409, "{}", running.text);
    assert_eq!(running.json["code"], "OPERATION_STATE_CONFLICT");
    assert!(running.text.contains("stop it first"), "{}", running.text);
    let elsewhere = call(&lab, &token, "PATCH", &path, &json!({ "kvm": false })).await;
    assert_eq!(elsewhere.status, 400, "{}", elsewhere.text);
    assert!(elsewhere.text.contains("/kvm"), "{}", elsewhere.text);

    let copy = json!({ "target_project_id": project, "name": "copy" });
    let copy = call(&lab, &token, "POST", &format!("{path}/copy?wait=running"), &copy).await;
    assert_eq!((copy.status.as_u16(), &copy.json["data"]["kvm"]), (201, &json!(false)));
    let copy = json!({ "target_project_id": project, "kvm": true });
    let copy = call(&lab, &token, "POST", &format!("{path}/copy?wait=running"), &copy).await;
    assert_eq!((copy.status.as_u16(), &copy.json["data"]["kvm"]), (201, &json!(true)));
    assert!(copy.json["data"]["kvm_note"].is_string(), "{}", copy.text);
    assert!(has(&lab, copy.json["data"]["id"].as_str().unwrap()));

    let stop = format!("{path}/stop?wait=stopped");
    assert_eq!(call(&lab, &token, "POST", &stop, &Value::Null).await.status, 200);
    let name = shown.json["data"]["name"].clone();
    for (method, body, want) in [("PUT", off, false), ("PATCH", json!({ "kvm": true }), true)] {
        let reply = call(&lab, &token, method, &kvm, &body).await;
        let data = json!({ "id": id, "name": name, "status": "stopped", "kvm": want });
        assert_eq!((reply.status.as_u16(), &reply.json["data"]), (200, &data), "{}", reply.text);
        let start = format!("{path}/restart?wait=running");
        assert_eq!(call(&lab, &token, "POST", &start, &Value::Null).await.status, 200);
        assert_eq!(has(&lab, &id), want);
        assert_eq!(call(&lab, &token, "POST", &stop, &Value::Null).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kvm_that_is_not_offered_or_not_permitted_is_refused_with_the_reason() {
    let lab = Lab::start().await;
    let (token, project) = lab.alice().await;
    let id = lab.container(&token, &project, "web").await;
    let create = format!("/api/v1/projects/{project}/containers");
    let new = json!({ "server_id": lab.server.to_string(), "kvm": true });
    let (kvm, on) = (format!("/api/v1/containers/{id}/kvm"), json!({ "kvm": true }));
    for (offered, why) in [(Kvm::Off, "runtime.kvm = true"), (Kvm::Missing, "no /dev/kvm")] {
        lab.world.set_kvm(offered);
        for (method, path, body) in [("POST", &create, &new), ("PUT", &kvm, &on)] {
            let reply = call(&lab, &token, method, path, body).await;
            assert_eq!(reply.status, 403, "{path}: {}", reply.text);
            assert!(reply.json["message"].as_str().unwrap().contains(why), "{}", reply.text);
            assert_eq!(reply.json["data"][0]["field"], "kvm", "{}", reply.text);
        }
    }
    lab.world.set_kvm(Kvm::Offered);
    let permissions = json!({ "containers": { "create": true, "read": true, "update": true } });
    let body = json!({ "alias": "narrow", "permissions": permissions });
    let made = call(&lab, &token, "POST", "/api/v1/auth/tokens", &body).await;
    let narrow = made.json["data"]["token"].as_str().unwrap();
    for (method, path, body) in [("POST", &create, &new), ("PUT", &kvm, &on)] {
        let reply = call(&lab, narrow, method, path, body).await;
        assert_eq!(reply.status, 403, "{}", reply.text);
        assert!(reply.text.contains("containers.features.kvm"), "{}", reply.text);
    }

    // It was offered once: a start then says why it cannot be, and the owner can go on without.
    let made = call(&lab, &token, "POST", &format!("{create}?wait=running"), &new).await;
    let id = made.json["data"]["id"].as_str().unwrap();
    let path = format!("/api/v1/containers/{id}");
    let stop = format!("{path}/stop?wait=stopped");
    assert_eq!(call(&lab, &token, "POST", &stop, &Value::Null).await.status, 200);
    lab.world.set_kvm(Kvm::Off);
    let start = format!("{path}/start?wait=running&timeout=20");
    let refused = call(&lab, &token, "POST", &start, &Value::Null).await;
    assert_eq!(refused.status, 500, "{}", refused.text);
    assert!(refused.text.contains("runtime.kvm = true"), "{}", refused.text);
    let off = call(&lab, &token, "PUT", &format!("{path}/kvm"), &json!({ "kvm": false })).await;
    assert_eq!(off.status, 200, "{}", off.text);
    assert_eq!(call(&lab, &token, "POST", &start, &Value::Null).await.status, 200);
}
