//! Requests that meet, and a store without room.

use std::time::Duration;

use gantry_control::{Limits, Signing};
use serde_json::{Value, json};

use crate::{
    lab::{Ask, Lab, Reply},
    proxy::{Scene, at_once, code},
    small_disk::{SmallDisk, fill},
};

/// A key of its own for each number.
fn ssh_key(number: u8) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let mut blob = Vec::new();
    for part in [b"ssh-ed25519".as_slice(), &[number; 32]] {
        blob.extend(u32::try_from(part.len()).unwrap().to_be_bytes());
        blob.extend(part);
    }
    format!("ssh-ed25519 {}", STANDARD.encode(blob))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_creations_with_one_key_or_name_exactly_one_succeeds() {
    let scene = Scene::set().await;
    let path = format!("/api/v1/projects/{}/containers", scene.project);
    let create = async |what: Value| {
        let mut body = json!({ "server_id": scene.lab.server.to_string() });
        body.as_object_mut().unwrap().extend(what.as_object().unwrap().clone());
        scene.lab.send(Ask::new("POST", &path).by(&scene.token).body(&body)).await
    };
    let one = [201, 409, 409, 409, 409, 409, 409, 409];
    for round in 0..3 {
        let key = ssh_key(round);
        // The same key in as many spellings.
        let statuses =
            at_once(|number| create(json!({ "ssh_public_key": format!("{key} client-{number}") })));
        assert_eq!(statuses.await, one, "a key");
        let name = format!("name-{round}");
        assert_eq!(at_once(|_| create(json!({ "name": name }))).await, one, "a name");
    }
    let listed = scene.get("/api/v1/containers/").await;
    assert_eq!(listed["pagination"]["total"], 7, "{listed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_different_writes_on_one_version_exactly_one_succeeds() {
    let scene = Scene::set().await;
    let hook = json!({ "match": {}, "script": { "path": "/check" } });
    let writes = [
        ("PATCH", "{C}/permissions/default", json!({ "default": "deny" })),
        ("PATCH", "{C}/permissions/state", json!({ "enable_proxy": false })),
        ("PUT", "{C}/permissions/groups/lan/ip", json!({ "range": "10.0.0.0/8" })),
        ("POST", "{C}/hooks/http", hook),
        ("PUT", "{C}/settings", json!({ "default": "deny" })),
        ("DELETE", "{C}/permissions", Value::Null),
    ];
    for version in 0..4_u8 {
        let statuses = at_once(|number| {
            // Another one of them first in each round.
            let (method, path, body) = &writes[(number + usize::from(version)) % writes.len()];
            scene.write(method, path, version.into(), body)
        });
        let statuses = statuses.await;
        let done = statuses.iter().filter(|status| matches!(status, 200 | 201)).count();
        let stale = statuses.iter().filter(|status| **status == 412).count();
        assert_eq!((done, stale), (1, 7), "on version {version}: {statuses:?}");
        let now = scene.get("{C}/permissions").await;
        assert_eq!(now["file_version"], version + 1, "one of them counts");
    }
}

/// Refused for want of room, in the form that clients can act on.
fn assert_no_room(reply: &Reply, said: &str) {
    assert_eq!(code(reply), (503, "SERVICE_UNAVAILABLE"), "{said}: {}", reply.text);
    let message = reply.json["message"].as_str().unwrap();
    assert!(message.contains("no room") && message.contains("nothing was changed"), "{message}");
    let after: u64 = reply.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&after), "{said}: {after} s");
    for inner in ["sqlite", "SQLITE", "gantry.db", "code: 13"] {
        assert!(!reply.text.contains(inner), "{said}: {}", reply.text);
    }
}

/// Alice's project, on a store whose disk is full.
struct Full {
    lab: Lab,
    token: String,
    project: String,
    container: String,
}

impl Full {
    async fn send(&self, method: &str, path: &str, body: &Value) -> Reply {
        let path = path.replace("{c}", &self.container).replace("{p}", &self.project);
        let ask = Ask::new(method, &format!("/api/v1/{path}")).by(&self.token);
        let ask = ask.header("if-match", "file:v1");
        self.lab.send(if body.is_null() { ask } else { ask.body(body) }).await
    }

    async fn create(&self, number: usize) -> Reply {
        let path = format!("/api/v1/projects/{}/containers", self.project);
        let body = json!({ "server_id": self.lab.server.to_string(),
            "name": format!("number-{number}"), "comment": "x".repeat(400) });
        let ask = Ask::new("POST", &path).by(&self.token).body(&body);
        self.lab.send(ask.header("idempotency-key", &format!("create {number}"))).await
    }

    async fn get(&self, path: &str) -> Value {
        let reply = self.send("GET", path, &Value::Null).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text);
        reply.json["data"].clone()
    }

    /// Waits until every container runs.
    async fn until_all_run(&self) {
        let run = async {
            loop {
                let listed = self.get("containers/?limit=100").await;
                let all = listed["containers"].as_array().unwrap();
                if all.iter().all(|one| one["status"] == "running") {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), run).await.expect("all run");
    }
}

/// The same with room, and where its store is; `None` where small disks cannot be had.
async fn on_small_disk() -> Option<(SmallDisk, Full)> {
    let dir = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(dir.path())?;
    let lab = Lab::start_in(dir, Limits::default(), Signing::Claims).await;
    let (token, project) = lab.alice().await;
    let container = lab.container(&token, &project, "before").await;
    Some((disk, Full { lab, token, project, container }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_costs_the_writes_that_are_told_so_and_nothing_else() {
    let Some((_disk, full)) = on_small_disk().await else { return };
    let deny = json!({ "default": "deny" });
    let path = format!("/api/v1/containers/{}/proxy/permissions/default", full.container);
    let ask = Ask::new("PATCH", &path).by(&full.token).header("if-match", "file:v0").body(&deny);
    assert_eq!(full.lab.send(ask).await.status, 200);

    let filled = fill(full.lab.dir());
    let (mut made, mut refused) = (Vec::new(), Vec::new());
    // What the file has already may be written again.
    for number in 0..200 {
        let reply = full.create(number).await;
        if reply.status == 201 {
            made.push(number);
            refused.clear();
        } else {
            assert_no_room(&reply, "a creation");
            refused.push(number);
        }
        if refused.len() == 10 {
            break;
        }
    }
    assert_eq!(refused.len(), 10, "the disk is full");
    every_kind_of_write_is_refused(&full).await;
    // Reads go on, and show what was promised before.
    let listed = full.get("containers/?limit=100").await;
    assert_eq!(listed["pagination"]["total"], made.len() + 1, "{listed}");
    assert_eq!(full.get("containers/{c}/proxy/permissions").await["file_version"], 1);

    std::fs::remove_file(filled).unwrap();
    // The same requests with the same keys are carried out now.
    for number in &refused {
        let reply = full.create(*number).await;
        assert_eq!(reply.status, 201, "once there is room: {}", reply.text);
    }
    let allow = json!({ "default": "allow" });
    let reply = full.send("PATCH", "containers/{c}/proxy/permissions/default", &allow).await;
    assert_eq!(reply.status, 200, "its version stands: {}", reply.text);
    full.until_all_run().await;
    let listed = full.get("containers/?limit=100").await;
    assert_eq!(listed["pagination"]["total"], made.len() + refused.len() + 1, "{listed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_finds_no_room_is_given_again_when_there_is() {
    let Some((_disk, full)) = on_small_disk().await else { return };
    // The disk is full while the request waits for what it has asked for.
    let path = full.lab.dir().to_owned();
    full.lab.world.on_start(move |_, _| drop(fill(&path)));
    let path = format!("/api/v1/projects/{}/containers?wait=running&timeout=1", full.project);
    let body = json!({ "server_id": full.lab.server.to_string() });
    let ask = Ask::new("POST", &path).by(&full.token).body(&body).header("idempotency-key", "one");
    let first = full.lab.send(ask.clone()).await;
    assert_eq!(first.status, 201, "{}", first.text);
    full.lab.world.on_start(|_, _| ());
    std::fs::remove_file(full.lab.dir().join("filled")).unwrap();
    let again = full.lab.send(ask).await;
    assert_eq!((again.status.as_u16(), &again.json), (201, &first.json), "{}", again.text);
    assert_eq!(again.headers["idempotency-replayed"], "true");
    full.until_all_run().await;
    assert_eq!(full.get("containers/").await["pagination"]["total"], 2, "once");
}

async fn every_kind_of_write_is_refused(full: &Full) {
    let none = Value::Null;
    let alias = json!({ "container_id": full.container, "program": "terminal", "alias": "shell" });
    for (method, path, body) in [
        ("POST", "projects", json!({ "alias": "another" })),
        ("PATCH", "projects/{p}", json!({ "alias": "renamed" })),
        ("PATCH", "containers/{c}", json!({ "comment": "other" })),
        ("DELETE", "containers/{c}", none.clone()),
        ("POST", "containers/{c}/stop", none.clone()),
        ("POST", "containers/{c}/snapshots", json!({})),
        ("POST", "containers/{c}/copy", json!({ "target_project_id": full.project })),
        ("PATCH", "containers/{c}/proxy/permissions/default", json!({ "default": "allow" })),
        ("POST", "proxy/aliases", alias),
        ("POST", "auth/tokens", json!({ "alias": "ci" })),
        ("PUT", "vault/keys/one", json!({ "value": "v" })),
    ] {
        let reply = full.send(method, path, &body).await;
        assert_no_room(&reply, &format!("{method} {path}"));
    }
}
