//! Snapshots, copies and synchronisation: what their clients see, and what is refused.

use serde_json::{Value, json};

use crate::lab::{Ask, Lab, Reply};

struct Scene {
    lab: Lab,
    token: String,
    project: String,
    container: String,
}

impl Scene {
    async fn set() -> Self {
        let lab = Lab::start().await;
        let (token, project) = lab.alice().await;
        let container = lab.container(&token, &project, "web").await;
        Self { lab, token, project, container }
    }

    async fn send(&self, method: &str, path: &str, body: &Value) -> Reply {
        let path = format!("/api/v1/{}", path.replace("{c}", &self.container));
        let ask = Ask::new(method, &path).by(&self.token);
        self.lab.send(if body.is_null() { ask } else { ask.body(body) }).await
    }

    async fn ok(&self, method: &str, path: &str, body: Value) -> Value {
        let reply = self.send(method, path, &body).await;
        assert!(reply.status.is_success(), "{method} {path}: {}", reply.text);
        reply.json["data"].clone()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_of_a_deleted_container_is_found_and_restored_into_a_new_one() {
    let scene = Scene::set().await;
    let id = scene.container.parse().unwrap();
    scene.lab.world.write(id, "/root/note", "kept");
    let made = scene.ok("POST", "containers/{c}/snapshots", json!({})).await;
    let name = made["snapshot"]["name"].as_str().unwrap().to_owned();
    assert!(name.starts_with("snap-2"), "{name}");
    assert_eq!(made["snapshot"]["size"], 4);
    scene.ok("DELETE", "containers/{c}?wait=deleted", Value::Null).await;

    let listed = scene.ok("GET", "snapshots", Value::Null).await;
    assert_eq!(listed["snapshots"][0]["container_id"], scene.container.as_str());
    let listed = scene.ok("GET", "containers/{c}/snapshots", Value::Null).await;
    assert_eq!(
        (&listed["snapshot_count"], &listed["project_id"]),
        (&json!(1), &json!(scene.project))
    );
    let one = format!("containers/{{c}}/snapshots/{name}");
    let restore = scene.send("PATCH", &one, &Value::Null).await;
    assert_eq!(
        (restore.status.as_u16(), &restore.json["code"]),
        (404, &json!("CONTAINER_NOT_FOUND"))
    );
    assert!(restore.json["message"].as_str().unwrap().contains("copy it"), "{}", restore.text);

    let body =
        json!({ "target_project_id": scene.project, "name": "again", "source_snapshot": name });
    let copied = scene.ok("POST", "containers/{c}/copy?wait=running&timeout=20", body).await;
    assert_eq!((&copied["status"], &copied["name"]), (&json!("running"), &json!("again")));
    let new = copied["id"].as_str().unwrap().parse().unwrap();
    assert_eq!(scene.lab.world.file(new, "/root/note").unwrap(), "kept");

    let bob = scene.lab.login("bob", crate::lab::PASSWORD).await;
    for path in ["snapshots", "snapshots?container_id={c}"] {
        let path = format!("/api/v1/{}", path.replace("{c}", &scene.container));
        let others = scene.lab.send(Ask::new("GET", &path).by(&bob)).await;
        assert_eq!(others.json["data"]["pagination"]["total"], 0, "{}", others.text);
    }
    let path = format!("/api/v1/containers/{}/snapshots", scene.container);
    assert_eq!(scene.lab.send(Ask::new("GET", &path).by(&bob)).await.status, 404);
    scene.ok("DELETE", &one, Value::Null).await;
    assert_eq!(scene.send("GET", "containers/{c}/snapshots", &Value::Null).await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_says_what_would_be_right() {
    let scene = Scene::set().await;
    let project = scene.project.clone();
    let unknown = "0123456789abcdef01234567";
    let on = |extra: Value| {
        let mut body = json!({ "target_project_id": project });
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        body
    };
    let copy = "containers/{c}/copy";
    for (method, path, body, status, code) in [
        ("POST", "containers/{c}/snapshots", json!({ "expiry": 0 }), 400, "VALIDATION_ERROR"),
        ("POST", "containers/{c}/snapshots", json!({ "expiry": "7" }), 400, "VALIDATION_ERROR"),
        ("POST", "containers/{c}/snapshots", json!({ "alias": "" }), 400, "VALIDATION_ERROR"),
        ("POST", "containers/{c}/snapshots", json!({ "other": 1 }), 400, "VALIDATION_ERROR"),
        ("POST", copy, json!({}), 400, "VALIDATION_ERROR"),
        ("POST", copy, on(json!({ "name": "a" })), 400, "VALIDATION_ERROR"),
        ("POST", copy, on(json!({ "name": "web" })), 409, "CONTAINER_NAME_IN_USE"),
        ("POST", copy, on(json!({ "kvm": true })), 403, "INSUFFICIENT_PERMISSIONS"),
        ("POST", copy, on(json!({ "target_server_id": unknown })), 404, "RESOURCE_NOT_FOUND"),
        ("POST", copy, json!({ "target_project_id": unknown }), 404, "PROJECT_NOT_FOUND"),
        ("PUT", "containers/{c}/snapshots/none", Value::Null, 404, "RESOURCE_NOT_FOUND"),
        ("DELETE", "containers/{c}/snapshots/..%2fx", Value::Null, 404, "RESOURCE_NOT_FOUND"),
        ("PATCH", "containers/{c}/snapshots/none/alias", json!({}), 400, "VALIDATION_ERROR"),
        ("GET", "snapshots?limit=101", Value::Null, 400, "VALIDATION_ERROR"),
        ("GET", "snapshots?sort_by=alias", Value::Null, 422, "VALIDATION_ERROR"),
    ] {
        let reply = scene.send(method, path, &body).await;
        assert_eq!(reply.status, status, "{method} {path} {body}: {}", reply.text);
        assert_eq!(reply.json["code"], code, "{method} {path} {body}: {}", reply.text);
    }
    let gone = format!("containers/{unknown}/copy");
    let reply = scene.send("POST", &gone, &on(json!({}))).await;
    assert_eq!(
        (reply.status.as_u16(), &reply.json["code"]),
        (404, &json!("SOURCE_CONTAINER_NOT_FOUND"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_becomes_of_snapshots_copies_and_permissions_is_told() {
    let scene = Scene::set().await;
    let made = scene.ok("POST", "containers/{c}/snapshots", json!({ "alias": "before" })).await;
    let one = format!("containers/{{c}}/snapshots/{}", made["snapshot"]["name"].as_str().unwrap());
    let alias = format!("{one}/alias");
    scene.ok("PATCH", &alias, json!({ "alias": "after" })).await;
    scene.ok("PATCH", &format!("{one}?wait=running&timeout=20"), Value::Null).await;
    let copy = json!({ "target_project_id": scene.project, "name": "copy" });
    let copy = scene.ok("POST", "containers/{c}/copy?wait=running&timeout=20", copy).await;
    let sync = format!("containers/{}/sync?wait=running&timeout=20", copy["id"].as_str().unwrap());
    scene.ok("POST", &sync, json!({})).await;
    scene.ok("DELETE", &one, Value::Null).await;
    for (version, path, body) in [
        (
            0,
            "containers/{c}/proxy/permissions/groups/team/password",
            json!({ "username": "a", "password": "kept to themselves" }),
        ),
        (1, "containers/{c}/proxy/permissions/default", json!({ "default": "deny" })),
        (0, "projects/{p}/proxy/permissions/state", json!({ "enable_proxy": false })),
    ] {
        let path = path.replace("{c}", &scene.container).replace("{p}", &scene.project);
        let method = if path.ends_with("/password") { "PUT" } else { "PATCH" };
        let ask = Ask::new(method, &format!("/api/v1/{path}")).by(&scene.token).body(&body);
        let reply = scene.lab.send(ask.header("if-match", &format!("file:v{version}"))).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text);
    }

    let all = scene.send("GET", "events?sort_order=asc&limit=500", &Value::Null).await;
    assert!(!all.text.contains("kept to themselves"));
    let events = all.json["data"]["events"].as_array().unwrap();
    let told: Vec<String> = events
        .iter()
        .map(|event| {
            let [kind, payload] = [&event["event_type"], &event["payload"]];
            let more = ["operation", "alias", "group", "default", "scope"];
            let more = more.iter().filter_map(|name| payload[name].as_str());
            std::iter::once(kind.as_str().unwrap()).chain(more).collect::<Vec<_>>().join(" ")
        })
        .filter(|told| ["snapshot", "operation", "permissions"].iter().any(|w| told.contains(w)))
        .collect();
    let want = [
        "container.snapshot.created before",
        "container.snapshot.renamed after",
        "container.snapshot.restored",
        "container.operation.completed restore",
        "container.operation.completed copy",
        "container.operation.completed sync",
        "container.snapshot.deleted after",
        "proxy.permissions.group_added team container",
        "proxy.permissions.default_changed allow container",
        "proxy.permissions.updated container",
        "proxy.permissions.default_changed deny container",
        "proxy.permissions.default_changed allow project",
        "proxy.permissions.updated project",
    ];
    assert_eq!(told, want, "{}", all.text);
}
