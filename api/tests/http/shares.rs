//! Storage shares from outside, mounted by a runtime in memory.

use gantry_control::{Limits, Signing};
use gantry_model::{ContainerId, share::ShareMode};
use serde_json::{Value, json};

use crate::lab::{Ask, Lab, PASSWORD, Reply};

const A: &str = "64a2c4e9f3d5e2b6a8c7d8e1";

fn path(rest: &str) -> String {
    format!("/api/v1/{rest}")
}

fn of(container: &str) -> String {
    path(&format!("containers/{container}/storage/shares"))
}

async fn data(lab: &Lab, ask: Ask) -> Value {
    let reply = lab.send(ask).await;
    assert!(reply.status.is_success(), "{}", reply.text);
    reply.json["data"].clone()
}

async fn share(lab: &Lab, by: &str, source: &str, body: &Value) -> Value {
    let reply = lab.send(Ask::new("POST", &of(source)).by(by).body(body)).await;
    assert_eq!(reply.status, 201, "{}", reply.text);
    reply.json["data"].clone()
}

fn id(value: &Value) -> String {
    value["id"].as_str().unwrap().to_owned()
}

/// What is mounted in a container, once that is `want`: names and whether they can be written.
async fn mounted(lab: &Lab, container: &str, want: &[(&str, ShareMode)]) {
    let id: ContainerId = container.parse().unwrap();
    until(&format!("{want:?}"), async || {
        let shares = lab.world.shares(id);
        let have: Vec<_> = shares.iter().map(|share| (share.name.as_str(), share.mode)).collect();
        have == want
    })
    .await;
}

async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(std::time::Duration::from_secs(20), wait).await;
    assert!(waited.is_ok(), "never: {what}");
}

fn code(reply: &Reply) -> (u16, &str) {
    (reply.status.as_u16(), reply.json["code"].as_str().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_comes_changes_and_goes() {
    let lab = Lab::start().await;
    let (alice, project) = lab.alice().await;
    let source = lab.container(&alice, &project, "source").await;
    let target = lab.container(&alice, &project, "target").await;
    let body = json!({ "source_path": "/srv//data/", "target_container_id": target,
        "mode": "readonly", "alias": "data", "label": "backups", "description": "What we sell" });
    let made = share(&lab, &alice, &source, &body).await;
    let number = id(&made);
    let want = json!({ "id": number, "source_container_id": source, "source_path": "/srv/data",
        "target_container_id": target, "target_project_id": null, "target_type": "container",
        "mode": "readonly", "alias": "data", "label": "backups", "description": "What we sell",
        "enabled": true, "status": "active", "status_message": null, "expires_at": null,
        "expiry_notified": false, "realm_ids": [], "created_by": made["created_by"],
        "created_at": made["created_at"], "updated_at": made["created_at"] });
    assert_eq!(made, want);
    mounted(&lab, &target, &[("data", ShareMode::ReadOnly)]).await;

    let one = format!("{}/{number}", of(&source));
    assert_eq!(data(&lab, Ask::new("GET", &one).by(&alice)).await, made);
    for list in [of(&source), path("storage/shares")] {
        assert_eq!(data(&lab, Ask::new("GET", &list).by(&alice)).await, json!([made]), "{list}");
    }
    let incoming = path(&format!("containers/{target}/storage/incoming"));
    let seen = data(&lab, Ask::new("GET", &incoming).by(&alice)).await;
    assert_eq!(seen[0]["mount_path"], "/hoody/shares/data", "{seen}");
    for hidden in ["alias", "label", "description", "expiry_notified", "realm_ids"] {
        assert!(seen[0].get(hidden).is_none(), "{hidden} in {seen}");
    }
    let all = data(&lab, Ask::new("GET", &path("storage/incoming")).by(&alice)).await;
    assert_eq!((&all[0]["id"], all.as_array().unwrap().len()), (&json!(number), 1));

    // Either verb changes what is given.
    let change = |method: &str, body: Value| Ask::new(method, &one).by(&alice).body(&body);
    let changed = data(&lab, change("PATCH", json!({ "mode": "readwrite", "alias": null }))).await;
    assert_eq!((&changed["alias"], &changed["label"]), (&Value::Null, &json!("backups")));
    mounted(&lab, &target, &[(number.as_str(), ShareMode::ReadWrite)]).await;
    data(&lab, change("PUT", json!({ "enabled": false, "description": null }))).await;
    mounted(&lab, &target, &[]).await;
    data(&lab, change("PATCH", json!({ "enabled": true }))).await;
    mounted(&lab, &target, &[(number.as_str(), ShareMode::ReadWrite)]).await;

    // The other side has a say of its own.
    let mount = format!("{incoming}/{number}/mount");
    let said = |method: &str, mount_it: bool| {
        Ask::new(method, &mount).by(&alice).body(&json!({ "mount": mount_it }))
    };
    let first = data(&lab, said("PATCH", false)).await;
    assert_eq!(first["share"]["mount_path"], Value::Null, "{first}");
    assert_eq!(first["override"]["container_id"], json!(target));
    mounted(&lab, &target, &[]).await;
    let second = data(&lab, said("PUT", true)).await;
    assert_eq!(first["override"]["id"], second["override"]["id"]);
    mounted(&lab, &target, &[(number.as_str(), ShareMode::ReadWrite)]).await;

    a_source_that_stops_shows_nothing(&lab, &alice, &source, &target, &number).await;
    let delete = path(&format!("storage/shares/{number}"));
    assert_eq!(data(&lab, Ask::new("DELETE", &delete).by(&alice)).await, Value::Null);
    mounted(&lab, &target, &[]).await;
    let gone = lab.send(Ask::new("GET", &one).by(&alice)).await;
    assert_eq!(
        (gone.status.as_u16(), &gone.json["message"]),
        (404, &json!("Storage share not found"))
    );
    let told = path("events?resource_type=storage_share&sort_order=asc");
    let told = data(&lab, Ask::new("GET", &told).by(&alice)).await;
    let events = told["events"].as_array().unwrap();
    let kinds: Vec<&str> = events
        .iter()
        .map(|event| event["event_type"].as_str().unwrap().strip_prefix("storage.share.").unwrap())
        .collect();
    let want =
        ["created", "updated", "disabled", "enabled", "mount_changed", "mount_changed", "deleted"];
    assert_eq!(kinds, want, "{told}");
}

/// The share says so, and comes back.
async fn a_source_that_stops_shows_nothing(
    lab: &Lab,
    alice: &str,
    source: &str,
    target: &str,
    number: &str,
) {
    let one = format!("{}/{number}", of(source));
    let stop = path(&format!("containers/{source}/stop"));
    data(lab, Ask::new("POST", &stop).by(alice)).await;
    mounted(lab, target, &[]).await;
    let failed = of(source) + "?status=failed";
    until("it has failed", async || {
        data(lab, Ask::new("GET", &failed).by(alice)).await[0]["status_message"]
            == "the source container is not running"
    })
    .await;
    data(lab, Ask::new("POST", &path(&format!("containers/{source}/start"))).by(alice)).await;
    mounted(lab, target, &[(number, ShareMode::ReadWrite)]).await;
    until("it is there", async || {
        data(lab, Ask::new("GET", &one).by(alice)).await["status"] == "active"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_project_shares_with_all_it_has_and_will_have() {
    let lab = Lab::start().await;
    let (alice, project) = lab.alice().await;
    let source = lab.container(&alice, &project, "source").await;
    let early = lab.container(&alice, &project, "early").await;
    let (read, write) = (ShareMode::ReadOnly, ShareMode::ReadWrite);
    let body = json!({ "source_path": "/data", "target_project_id": project, "mode": "readonly",
        "alias": "all" });
    let to_all = share(&lab, &alice, &source, &body).await;
    let late = lab.container(&alice, &project, "late").await;
    for container in [&early, &late] {
        mounted(&lab, container, &[("all", read)]).await;
    }
    assert!(lab.world.shares(source.parse().unwrap()).is_empty(), "nobody receives its own");
    let incoming = path(&format!("containers/{source}/storage/incoming"));
    assert_eq!(data(&lab, Ask::new("GET", &incoming).by(&alice)).await, json!([]));

    // What comes directly as well comes directly.
    let body = json!({ "source_path": "/data", "target_container_id": early, "mode": "readwrite",
        "alias": "all" });
    let direct = share(&lab, &alice, &source, &body).await;
    mounted(&lab, &early, &[("all", write)]).await;
    let list = |query: &str| Ask::new("GET", &(of(&source) + query)).by(&alice);
    for (query, want) in [
        ("?target_type=project", json!([to_all["id"]])),
        ("?target_type=container&enabled=true", json!([direct["id"]])),
        ("?label=none", json!([])),
        ("?enabled=false", json!([])),
    ] {
        let shares = data(&lab, list(query)).await;
        let ids: Vec<&Value> =
            shares.as_array().unwrap().iter().map(|share| &share["id"]).collect();
        assert_eq!(json!(ids), want, "{query}");
    }
    // One container alone may not want it, and the container of a share takes it along.
    let mount = format!("containers/{late}/storage/incoming/{}/mount", id(&to_all));
    data(&lab, Ask::new("PATCH", &path(&mount)).by(&alice).body(&json!({ "mount": false }))).await;
    mounted(&lab, &late, &[]).await;
    data(&lab, Ask::new("DELETE", &path(&format!("containers/{source}"))).by(&alice)).await;
    mounted(&lab, &early, &[]).await;
    until("its shares are gone", async || {
        data(&lab, Ask::new("GET", &path("storage/shares")).by(&alice)).await == json!([])
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_agree_for_as_long_as_it_lasts() {
    let lab = Lab::start().await;
    let (alice, home) = lab.alice().await;
    let source = lab.container(&alice, &home, "source").await;
    let bob = lab.login("bob", PASSWORD).await;
    let body = json!({ "alias": "away" });
    let away = id(&data(&lab, Ask::new("POST", &path("projects/")).by(&bob).body(&body)).await);
    let target = lab.container(&bob, &away, "target").await;
    let body = json!({ "source_path": "/data", "target_container_id": target, "mode": "readonly",
        "alias": "data" });
    let attempt = async || lab.send(Ask::new("POST", &of(&source)).by(&alice).body(&body)).await;
    assert_eq!(code(&attempt().await), (404, "RESOURCE_NOT_FOUND"), "she does not know it");
    let to_project =
        json!({ "source_path": "/data", "target_project_id": away, "mode": "readonly" });
    let reply = lab.send(Ask::new("POST", &of(&source)).by(&alice).body(&to_project)).await;
    assert_eq!(code(&reply), (404, "RESOURCE_NOT_FOUND"));

    let me = data(&lab, Ask::new("GET", &path("users/auth/me")).by(&alice)).await;
    let members = path(&format!("projects/{away}/permissions"));
    let grant = |level: &str| json!({ "user_id": me["id"], "permission_level": level });
    let member = data(&lab, Ask::new("POST", &members).by(&bob).body(&grant("read"))).await;
    assert_eq!(attempt().await.status, 403, "who may look may not put anything there");
    let member = format!("{members}/{}", id(&member));
    let level =
        |level: &str| Ask::new("PUT", &member).by(&bob).body(&json!({ "permission_level": level }));
    data(&lab, level("edit")).await;
    let made = attempt().await;
    assert_eq!(made.status, 201, "{}", made.text);
    let share = id(&made.json["data"]);
    mounted(&lab, &target, &[("data", ShareMode::ReadOnly)]).await;

    // Bob sees what reaches him and may refuse it, but it is not his.
    let incoming = path(&format!("containers/{target}/storage/incoming"));
    let seen = data(&lab, Ask::new("GET", &incoming).by(&bob)).await;
    assert_eq!(seen[0]["source_container_id"], json!(source), "{seen}");
    assert_eq!(data(&lab, Ask::new("GET", &path("storage/shares")).by(&bob)).await, json!([]));
    let delete = Ask::new("DELETE", &path(&format!("storage/shares/{share}")));
    assert_eq!(lab.send(delete.clone().by(&bob)).await.status, 404);
    let one = format!("{}/{share}", of(&source));
    let widen = Ask::new("PATCH", &one).by(&bob).body(&json!({ "mode": "readwrite" }));
    assert_eq!(lab.send(widen).await.status, 404);
    let refuse = Ask::new("PATCH", &format!("{incoming}/{share}/mount"));
    data(&lab, refuse.clone().by(&bob).body(&json!({ "mount": false }))).await;
    mounted(&lab, &target, &[]).await;
    data(&lab, refuse.by(&bob).body(&json!({ "mount": true }))).await;
    mounted(&lab, &target, &[("data", ShareMode::ReadOnly)]).await;
    let told = path("events?event_type=storage.share.mount_changed");
    let told = data(&lab, Ask::new("GET", &told).by(&bob)).await;
    assert_eq!(told["events"].as_array().unwrap().len(), 2, "{told}");

    // Who made it may not any more: it ends there and then.
    data(&lab, level("read")).await;
    mounted(&lab, &target, &[]).await;
    until("it says why", async || {
        let shown = data(&lab, Ask::new("GET", &one).by(&alice)).await;
        shown["status"] == "failed"
            && shown["status_message"].as_str().unwrap().contains("no longer")
    })
    .await;
    data(&lab, level("edit")).await;
    mounted(&lab, &target, &[("data", ShareMode::ReadOnly)]).await;
    data(&lab, Ask::new("DELETE", &member).by(&bob)).await;
    mounted(&lab, &target, &[]).await;
    data(&lab, delete.by(&alice)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_shares_are_refused_by_name_and_there_are_so_many() {
    let limits = Limits { shares_per_container_max: 2, ..Limits::default() };
    let lab = Lab::start_with(limits, Signing::Claims).await;
    let (alice, project) = lab.alice().await;
    let source = lab.container(&alice, &project, "source").await;
    let target = lab.container(&alice, &project, "target").await;
    let good = json!({ "source_path": "/data", "target_container_id": target, "mode": "readonly" });
    for (field, value) in [
        ("source_path", json!("data")),
        ("source_path", json!("/data/../etc")),
        ("source_path", json!("/proc/1/root")),
        ("source_path", json!("/var/run")),
        ("source_path", json!("/hoody/shares/other")),
        ("source_path", json!("/a b")),
        ("source_path", Value::Null),
        ("mode", json!("rw")),
        ("alias", json!("A")),
        ("label", json!("-ab")),
        ("description", json!("d".repeat(1001))),
        ("expires_at", json!(1_000_000_000)),
        ("expires_at", json!("soon")),
        ("enabled", json!("yes")),
        ("target_container_id", json!(source)),
        ("target_container_id", Value::Null),
        ("target_project_id", json!(7)),
        ("unknown", json!(1)),
    ] {
        let mut body = good.clone();
        body[field] = value.clone();
        let reply = lab.send(Ask::new("POST", &of(&source)).by(&alice).body(&body)).await;
        assert_eq!(reply.status, 400, "{field} {value}: {}", reply.text);
        assert_eq!(reply.json["data"][0]["field"], field, "{value}: {}", reply.text);
    }
    let both = json!({ "source_path": "/data", "target_container_id": target,
        "target_project_id": project, "mode": "readonly" });
    assert_eq!(lab.send(Ask::new("POST", &of(&source)).by(&alice).body(&both)).await.status, 400);
    for query in ["?target_type=all", "?status=new", "?enabled=2", "?realm_id=5"] {
        assert_eq!(lab.send(Ask::new("GET", &(of(&source) + query)).by(&alice)).await.status, 400);
    }
    let wrong = lab.send(Ask::new("GET", &format!("{}/5", of(&source))).by(&alice)).await;
    assert_eq!((wrong.status.as_u16(), &wrong.json["data"][0]["field"]), (400, &json!("share_id")));
    assert_eq!(lab.send(Ask::new("GET", &path("storage/shares"))).await.status, 401);

    let first = share(&lab, &alice, &source, &good).await;
    share(&lab, &alice, &source, &good).await;
    let third = lab.send(Ask::new("POST", &of(&source)).by(&alice).body(&good)).await;
    assert_eq!(code(&third), (422, "QUOTA_EXCEEDED"), "{}", third.text);
    assert!(third.text.contains("at most 2 storage shares"), "{}", third.text);

    // It ends by itself.
    let soon = gantry_control::Clock::system().now_ms() / 1000 + 1;
    let one = format!("{}/{}", of(&source), id(&first));
    let ends = Ask::new("PATCH", &one).by(&alice).body(&json!({ "expires_at": soon }));
    assert_eq!(data(&lab, ends).await["expires_at"], soon);
    until("its end has come", async || {
        lab.send(Ask::new("GET", &one).by(&alice)).await.status == 404
    })
    .await;
    let told =
        data(&lab, Ask::new("GET", &path("events?resource_type=storage_share")).by(&alice)).await;
    assert!(told.to_string().contains("storage.share.expired"), "{told}");
    share(&lab, &alice, &source, &good).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_and_realms_reach_as_far_as_they_may() {
    let lab = Lab::start().await;
    let (alice, project) = lab.alice().await;
    let source = lab.container(&alice, &project, "source").await;
    let target = lab.container(&alice, &project, "target").await;
    let body = json!({ "source_path": "/data", "target_container_id": target, "mode": "readonly" });
    let made = id(&share(&lab, &alice, &source, &body).await);
    // What is of no realm is in none; what joins one is seen there, with its shares.
    let list = Ask::new("GET", &path("storage/shares")).by(&alice);
    assert_eq!(data(&lab, list.clone().realm(A)).await, json!([]));
    assert_eq!(lab.send(Ask::new("GET", &of(&source)).by(&alice).realm(A)).await.status, 404);
    let join = Ask::new("PATCH", &path(&format!("containers/{source}")));
    data(&lab, join.by(&alice).body(&json!({ "realm_ids": [A] }))).await;
    let seen = data(&lab, list.realm(A)).await;
    assert_eq!((&seen[0]["id"], &seen[0]["realm_ids"]), (&json!(made), &json!([A])));
    let other = Ask::new("POST", &of(&source)).by(&alice).body(&body).realm(A);
    assert_eq!(lab.send(other).await.status, 404, "the target is not in the realm");

    let one = format!("{}/{made}", of(&source));
    for (permissions, lacks) in [
        (json!({ "containers": { "read": true, "update": true } }), "resources.storage_shares"),
        (json!({ "resources": { "storage_shares": true } }), "containers"),
    ] {
        let ask = Ask::new("POST", &path("auth/tokens")).by(&alice);
        let body = json!({ "permissions": permissions });
        let token = data(&lab, ask.body(&body)).await["token"].as_str().unwrap().to_owned();
        for (method, path) in [
            ("GET", of(&source)),
            ("GET", path("storage/incoming")),
            ("GET", one.clone()),
            ("PATCH", one.clone()),
            ("DELETE", path(&format!("storage/shares/{made}"))),
        ] {
            let mut ask = Ask::new(method, &path).by(&token);
            if method == "PATCH" {
                ask = ask.body(&json!({ "enabled": false }));
            }
            let reply = lab.send(ask).await;
            assert_eq!(reply.status, 403, "{method} {path}: {}", reply.text);
            assert!(reply.text.contains(lacks), "{method} {path}: {}", reply.text);
        }
    }
}
