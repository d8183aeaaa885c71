//! Memory that containers of a project share: when, where, and that nobody else reads it.

use gantry_model::{ContainerId, ProjectId};
use serde_json::{Value, json};

use crate::{
    lab::{Ask, Lab, PASSWORD, Reply},
    realms::bound,
};

const REALM: &str = "64a2c4e9f3d5e2b6a8c7d8e1";

async fn call(lab: &Lab, token: &str, method: &str, path: &str, body: &Value) -> Reply {
    let ask = Ask::new(method, path).by(token);
    lab.send(if body.is_null() { ask } else { ask.body(body) }).await
}

/// The project that the runtime was told to have the container share with.
fn shares_with(lab: &Lab, id: &str) -> Option<ProjectId> {
    let key: ContainerId = id.parse().unwrap();
    lab.world.order(key).unwrap().project_ramdisk
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_shared_by_stopped_containers_of_projects_without_members() {
    let lab = Lab::start().await;
    let (token, project) = lab.alice().await;
    let id = lab.container(&token, &project, "web").await;
    let path = format!("/api/v1/containers/{id}");
    let (on, off) =
        (json!({ "ramdisk_scope": "project" }), json!({ "ramdisk_scope": "container" }));
    let running = call(&lab, &token, "PATCH", &path, &on).await;
    assert_eq!(running.status, 400, "{}", running.text);
    assert_eq!(running.json["code"], "CONTAINER_MUST_BE_STOPPED");
    assert_eq!(running.json["data"][0]["field"], "ramdisk_scope");
    let (stop, start) = (format!("{path}/stop?wait=stopped"), format!("{path}/start?wait=running"));
    assert_eq!(call(&lab, &token, "POST", &stop, &Value::Null).await.status, 200);

    let bob = lab.login("bob", PASSWORD).await;
    let bob = call(&lab, &bob, "GET", "/api/v1/users/auth/me", &Value::Null).await;
    let member = json!({ "user_id": bob.json["data"]["id"], "permission_level": "read" });
    let members = format!("/api/v1/projects/{project}/permissions");
    let added = call(&lab, &token, "POST", &members, &member).await;
    assert!(added.status.is_success(), "{}", added.text);
    let refused = call(&lab, &token, "PATCH", &path, &on).await;
    assert_eq!(refused.status, 409, "{}", refused.text);
    assert!(refused.text.contains("members besides its owner"), "{}", refused.text);
    assert_eq!(refused.json["data"][0]["field"], "ramdisk_scope", "{}", refused.text);
    let gone = format!("{members}/{}", added.json["data"]["id"].as_str().unwrap());
    assert!(call(&lab, &token, "DELETE", &gone, &Value::Null).await.status.is_success());

    let set = call(&lab, &token, "PATCH", &path, &on).await;
    assert_eq!((set.status.as_u16(), &set.json["data"]["ramdisk_scope"]), (200, &json!("project")));
    let refused = call(&lab, &token, "POST", &members, &member).await;
    assert_eq!(refused.status, 409, "{}", refused.text);
    assert!(refused.text.contains("ramdisk_scope"), "{}", refused.text);
    let without = call(&lab, &token, "PATCH", &path, &json!({ "ramdisk": false })).await;
    assert_eq!(without.status, 400, "{}", without.text);
    assert_eq!(without.json["data"][0]["field"], "ramdisk_scope", "{}", without.text);

    assert_eq!(call(&lab, &token, "POST", &start, &Value::Null).await.status, 200);
    assert_eq!(shares_with(&lab, &id), Some(project.parse().unwrap()));
    let stats = call(&lab, &token, "GET", &format!("{path}/stats"), &Value::Null).await;
    let want = json!({ "scope": "project", "shared_pool_maximum": 536_870_912,
        "capacity_reserved": false, "usage": { "private": 0, "secrets": null, "project": 0 } });
    assert_eq!(stats.json["data"]["ramdisk"], want, "{}", stats.text);
    let copy = json!({ "target_project_id": project });
    let copy = call(&lab, &token, "POST", &format!("{path}/copy?wait=running"), &copy).await;
    assert_eq!(copy.json["data"]["ramdisk_scope"], "container", "{}", copy.text);

    assert_eq!(call(&lab, &token, "POST", &stop, &Value::Null).await.status, 200);
    assert_eq!(call(&lab, &token, "PATCH", &path, &off).await.status, 200);
    assert!(call(&lab, &token, "POST", &members, &member).await.status.is_success());
    assert_eq!(call(&lab, &token, "POST", &start, &Value::Null).await.status, 200);
    assert_eq!(shares_with(&lab, &id), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_a_realm_gets_at_no_memory_of_others() {
    let lab = Lab::start().await;
    let (session, project) = lab.alice().await;
    let id = lab.container(&session, &project, "web").await;
    let path = format!("/api/v1/containers/{id}");
    let stop = format!("{path}/stop?wait=stopped");
    assert_eq!(call(&lab, &session, "POST", &stop, &Value::Null).await.status, 200);
    let in_realm = json!({ "realm_ids": [REALM] });
    for path in [&path, &format!("/api/v1/projects/{project}")] {
        let put = call(&lab, &session, "PATCH", path, &in_realm).await;
        assert_eq!(put.status, 200, "{}", put.text);
    }
    let token = bound(&lab, &session, REALM).await;
    let by_token = async |body: Value| {
        lab.send(Ask::new("PATCH", &path).by(&token).realm(REALM).body(&body)).await
    };
    // It may change what is in its realm, but not that.
    assert_eq!(by_token(json!({ "color": "#112233" })).await.status, 200);
    let on = json!({ "ramdisk_scope": "project" });
    let refused = by_token(on.clone()).await;
    assert_eq!(refused.status, 403, "{}", refused.text);
    assert_eq!(refused.json["code"], "INSUFFICIENT_PERMISSIONS");
    assert_eq!(
        refused.json["message"],
        "a realm-restricted token may not set ramdisk_scope to \"project\": containers of other realms \
         may share it"
    );
    assert_eq!(refused.json["data"][0]["field"], "ramdisk_scope", "{}", refused.text);
    let seen = call(&lab, &session, "GET", &path, &Value::Null).await;
    assert_eq!(seen.json["data"]["ramdisk_scope"], "container", "{}", seen.text);
    // Its owner may; the token may leave it so, and end it.
    assert_eq!(call(&lab, &session, "PATCH", &path, &on).await.status, 200);
    assert_eq!(by_token(on).await.status, 200);
    assert_eq!(by_token(json!({ "ramdisk_scope": "container" })).await.status, 200);
}
