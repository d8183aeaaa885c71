//! Members of projects: who sees and changes what, and who says so.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use gantry_runtime::fake::Call;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::lab::{Ask, Lab, PASSWORD, Reply};

/// Alice's project with a container, and Bob, who is nobody there yet.
struct Shared {
    lab: Lab,
    alice: String,
    bob: String,
    bob_id: String,
    project: String,
    container: String,
}

impl Shared {
    async fn start() -> Self {
        let lab = Lab::start().await;
        let (alice, project) = lab.alice().await;
        let container = lab.container(&alice, &project, "shared-thing").await;
        let bob = lab.login("bob", PASSWORD).await;
        let me = lab.send(Ask::new("GET", "/api/v1/users/me").by(&bob)).await;
        let bob_id = me.json["data"]["id"].as_str().unwrap().to_owned();
        Self { lab, alice, bob, bob_id, project, container }
    }

    fn permissions(&self) -> String {
        format!("/api/v1/projects/{}/permissions", self.project)
    }

    async fn grant(&self, level: &str) -> String {
        let body = json!({ "user_id": self.bob_id, "permission_level": level });
        let ask = Ask::new("POST", &self.permissions()).by(&self.alice).body(&body);
        let reply = self.lab.send(ask).await;
        assert_eq!(reply.status, 201, "{}", reply.text);
        reply.json["data"]["id"].as_str().unwrap().to_owned()
    }

    async fn ask(&self, who: &str, method: &str, path: &str, body: &Value) -> Reply {
        let mut ask = Ask::new(method, path).by(who);
        if !body.is_null() {
            ask = ask.body(body);
        }
        self.lab.send(ask).await
    }
}

/// What is done with a project and what is in it, by the level that it needs. Nothing of it has an
/// effect that another one would notice.
fn deeds(shared: &Shared) -> Vec<(&'static str, &'static str, String, Value)> {
    let project = format!("/api/v1/projects/{}", shared.project);
    let container = format!("/api/v1/containers/{}", shared.container);
    let get = |path: String| ("read", "GET", path, Value::Null);
    let mut deeds = vec![
        get(project.clone()),
        get(format!("{project}?include_permissions=true")),
        get(format!("{project}/permissions")),
        get(format!("{project}/containers")),
        get(format!("{project}/stats")),
        get(container.clone()),
        get(format!("{container}/env")),
        get(format!("{container}/stats")),
        get(format!("{container}/status-logs")),
        get(format!("{container}/snapshots")),
        get(format!("{container}/firewall/rules")),
        get(format!("{container}/network")),
        get(format!("{container}/proxy/edge")),
        get(format!("/api/v1/proxy/aliases?container_id={}", shared.container)),
        ("edit", "PATCH", project.clone(), json!({ "color": "#112233" })),
        ("edit", "PATCH", container.clone(), json!({ "comment": "seen" })),
        ("edit", "PATCH", format!("{container}/env"), json!({ "A": "1" })),
        ("edit", "POST", format!("{container}/restart"), Value::Null),
        ("edit", "POST", format!("{container}/snapshots"), json!({ "alias": "kept" })),
        ("edit", "POST", format!("{container}/firewall/reset"), Value::Null),
        ("edit", "PUT", format!("{container}/network"), json!({ "type": "block" })),
        ("edit", "POST", format!("{container}/network/stop"), Value::Null),
        ("edit", "DELETE", format!("{container}/network"), Value::Null),
        ("edit", "PATCH", format!("{container}/proxy/edge"), json!({})),
        // They hold credentials.
        ("edit", "GET", format!("{container}/proxy/permissions"), Value::Null),
        ("edit", "GET", format!("{project}/proxy/permissions"), Value::Null),
        ("edit", "GET", format!("{container}?include_proxy_permissions=true"), Value::Null),
        (
            "edit",
            "POST",
            format!("{container}/copy"),
            json!({ "target_project_id": shared.project, "name": "copied-thing" }),
        ),
        ("delete", "DELETE", format!("{container}/snapshots/kept"), Value::Null),
    ];
    deeds.extend([
        ("delete", "DELETE", container, Value::Null),
        ("delete", "DELETE", project, Value::Null),
    ]);
    deeds
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_does_what_its_level_allows_and_for_a_stranger_nothing_exists() {
    const LEVELS: [&str; 3] = ["read", "edit", "delete"];
    let shared = Shared::start().await;
    let deeds = deeds(&shared);
    let hidden = |text: &str| !text.contains("shared-thing") && !text.contains("home");
    for (_, method, path, body) in &deeds {
        let reply = shared.ask(&shared.bob, method, path, body).await;
        assert_eq!(reply.status, 404, "{method} {path}: {}", reply.text);
        assert!(hidden(&reply.text), "{method} {path}: {}", reply.text);
    }
    let permission = shared.grant("read").await;
    let one = format!("{}/{permission}", shared.permissions());
    for (at, level) in LEVELS.into_iter().enumerate() {
        let set = json!({ "permission_level": level });
        let reply = shared.ask(&shared.alice, "PUT", &one, &set).await;
        assert_eq!(reply.json["data"]["permission_level"], level, "{}", reply.text);
        for (needs, method, path, body) in &deeds {
            let needed = LEVELS.iter().position(|level| level == needs).unwrap();
            let reply = shared.ask(&shared.bob, method, path, body).await;
            let said = format!("{method} {path} as {level}: {} {}", reply.status, reply.text);
            if needed <= at {
                assert!(reply.status.is_success(), "{said}");
            } else {
                assert_eq!(reply.status, 403, "{said}");
                assert_eq!(reply.json["code"], "INSUFFICIENT_PERMISSIONS", "{said}");
                assert!(reply.json["message"].as_str().unwrap().contains(needs), "{said}");
            }
            if level == "edit" && *method == "POST" && path.ends_with("/snapshots") {
                // Nor is there room for another of this name.
                let kept = format!("{path}/kept");
                let gone = shared.ask(&shared.alice, "DELETE", &kept, &Value::Null).await;
                assert_eq!(gone.status, 200, "{}", gone.text);
            }
            if level == "edit" && path.ends_with("/copy") {
                // Twice would be a conflict of names.
                let copy = reply.json["data"]["id"].as_str().unwrap();
                let path = format!("/api/v1/containers/{copy}?wait=deleted&timeout=20");
                let gone = shared.ask(&shared.alice, "DELETE", &path, &Value::Null).await;
                assert_eq!(gone.status, 200, "{}", gone.text);
            }
        }
    }
    let gone = shared.ask(&shared.alice, "GET", &shared.permissions(), &Value::Null).await;
    assert_eq!(gone.status, 404, "the member has deleted the project: {}", gone.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_member_makes_belongs_to_the_owner_and_lists_show_it_until_the_grant_ends() {
    let shared = Shared::start().await;
    let lists = ["projects", "containers", "snapshots", "proxy/aliases", "realms/"];
    let path = format!("/api/v1/containers/{}", shared.container);
    let body = json!({ "realm_ids": ["64a2c4e9f3d5e2b6a8c7d8e1"] });
    assert_eq!(shared.ask(&shared.alice, "PATCH", &path, &body).await.status, 200);
    let body = json!({ "container_id": shared.container, "program": "terminal" });
    let alias = shared.ask(&shared.alice, "POST", "/api/v1/proxy/aliases", &body).await;
    assert_eq!(alias.status, 201, "{}", alias.text);
    let body = json!({ "alias": "kept" });
    let made = shared.ask(&shared.alice, "POST", &format!("{path}/snapshots"), &body).await;
    assert_eq!(made.status, 200, "{}", made.text);

    let listed = async |seen: bool| {
        for list in lists {
            let path = format!("/api/v1/{list}");
            let reply = shared.ask(&shared.bob, "GET", &path, &Value::Null).await;
            assert_eq!(reply.status, 200, "{list}: {}", reply.text);
            let data = &reply.json["data"];
            let items = ["projects", "containers", "snapshots", "aliases", "realm_ids"];
            let found = items.iter().find_map(|name| data[name].as_array()).unwrap();
            assert_eq!(found.len(), usize::from(seen), "{list}: {}", reply.text);
        }
    };
    listed(false).await;
    let permission = shared.grant("edit").await;
    listed(true).await;
    let server = shared.lab.server.to_string();
    let body = json!({ "server_id": server, "name": "by-bob" });
    let all = format!("/api/v1/projects/{}/containers", shared.project);
    let made = shared.ask(&shared.bob, "POST", &all, &body).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let made = format!("/api/v1/containers/{}", made.json["data"]["id"].as_str().unwrap());
    assert_eq!(shared.ask(&shared.alice, "GET", &made, &Value::Null).await.status, 200);
    assert_eq!(shared.ask(&shared.bob, "GET", &made, &Value::Null).await.status, 200);
    // A copy into a project of one's own takes the files, and the copier has them.
    let own = shared.ask(&shared.bob, "POST", "/api/v1/projects", &json!({ "alias": "own" })).await;
    let body = json!({ "target_project_id": own.json["data"]["id"] });
    let copied = shared.ask(&shared.bob, "POST", &format!("{path}/copy"), &body).await;
    assert_eq!(copied.status, 201, "{}", copied.text);
    let copy = format!("/api/v1/containers/{}", copied.json["data"]["id"].as_str().unwrap());
    assert_eq!(shared.ask(&shared.alice, "GET", &copy, &Value::Null).await.status, 404);
    let gone = shared.ask(&shared.bob, "DELETE", &copy, &Value::Null).await;
    assert_eq!(gone.status, 200, "{}", gone.text);
    // Its snapshots outlive it, and are Bob's.
    let kept = format!("{copy}/snapshots/kept");
    assert_eq!(shared.ask(&shared.bob, "DELETE", &kept, &Value::Null).await.status, 200);
    let own = format!("/api/v1/projects/{}", own.json["data"]["id"].as_str().unwrap());
    assert_eq!(shared.ask(&shared.bob, "DELETE", &own, &Value::Null).await.status, 200);

    let one = format!("{}/{permission}", shared.permissions());
    let gone = shared.ask(&shared.alice, "DELETE", &one, &Value::Null).await;
    assert_eq!((gone.status.as_u16(), &gone.json["data"]), (200, &Value::Null), "{}", gone.text);
    listed(false).await;
    assert_eq!(shared.ask(&shared.bob, "GET", &made, &Value::Null).await.status, 404);
    let told =
        shared.ask(&shared.alice, "GET", "/api/v1/events?resource_type=project", &Value::Null);
    let told = told.await.text;
    for kind in ["project.permission.created", "project.permission.deleted"] {
        assert!(told.contains(kind), "{kind}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_delete_takes_none_of_the_owners_places_for_warm_containers() {
    let shared = Shared::start().await;
    shared.grant("edit").await;
    let path = format!("/api/v1/projects/{}/containers", shared.project);
    let warm = json!({ "server_id": shared.lab.server.to_string(), "prespawn": true });
    let refused = shared.ask(&shared.bob, "POST", &path, &warm).await;
    assert_eq!(refused.status, 403, "{}", refused.text);
    let listed = format!("{path}?include_prespawn=true");
    let left = shared.ask(&shared.alice, "GET", &listed, &Value::Null).await;
    assert_eq!(left.json["data"]["pagination"]["total"], json!(1), "{}", left.text);
    let by_owner = shared.ask(&shared.alice, "POST", &path, &warm).await;
    assert_eq!(by_owner.status, 201, "{}", by_owner.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_grants_or_takes_more_than_they_have_themselves() {
    let shared = Shared::start().await;
    let all = shared.permissions();
    let carol = json!({ "username": "carol", "password": PASSWORD });
    let carol = shared.ask(&shared.lab.admin, "POST", "/api/v1/users", &carol).await;
    let carol_id = carol.json["data"]["id"].as_str().unwrap().to_owned();
    let carol = shared.lab.login("carol", PASSWORD).await;
    let user = |id: &str, level: &str| json!({ "user_id": id, "permission_level": level });
    let level = |level: &str| json!({ "permission_level": level });

    let edit = shared.grant("edit").await;
    let strong = shared.ask(&shared.alice, "POST", &all, &user(&carol_id, "delete")).await;
    let strong = format!("{all}/{}", strong.json["data"]["id"].as_str().unwrap());
    let own = format!("{all}/{edit}");
    let me = shared.ask(&shared.alice, "GET", "/api/v1/users/me", &Value::Null).await;
    let alice_id = me.json["data"]["id"].as_str().unwrap();
    for (who, method, path, body, status, code) in [
        (&shared.bob, "PATCH", &own, level("delete"), 403, "INSUFFICIENT_PERMISSIONS"),
        (&shared.bob, "PATCH", &strong, level("read"), 403, "INSUFFICIENT_PERMISSIONS"),
        (&shared.bob, "DELETE", &strong, Value::Null, 403, "INSUFFICIENT_PERMISSIONS"),
        (&shared.bob, "POST", &all, user(alice_id, "read"), 400, "VALIDATION_ERROR"),
        (&shared.alice, "POST", &all, user(&shared.bob_id, "read"), 409, "PERMISSION_EXISTS"),
        (&shared.alice, "POST", &all, user(&"0".repeat(24), "read"), 404, "RESOURCE_NOT_FOUND"),
        (&shared.alice, "POST", &all, user(&carol_id, "admin"), 400, "VALIDATION_ERROR"),
        (&shared.alice, "POST", &all, json!({}), 400, "VALIDATION_ERROR"),
        (&shared.alice, "PATCH", &format!("{all}/x"), level("read"), 400, "INVALID_ID_FORMAT"),
        (
            &shared.alice,
            "DELETE",
            &format!("{all}/{}", "0".repeat(24)),
            Value::Null,
            404,
            "RESOURCE_NOT_FOUND",
        ),
    ] {
        let reply = shared.ask(who, method, path, &body).await;
        let said = format!("{method} {path} {body}: {}", reply.text);
        assert_eq!(reply.status, status, "{said}");
        assert_eq!(reply.json["code"], code, "{said}");
    }
    let path = format!("/api/v1/projects/{}", shared.project);
    let limited = shared.ask(&shared.bob, "PATCH", &path, &json!({ "max_containers": 1 })).await;
    assert_eq!(limited.status, 403, "only the owner: {}", limited.text);

    // As far as one's own level, and in order.
    assert_eq!(shared.ask(&carol, "PATCH", &own, &level("delete")).await.status, 200);
    assert_eq!(shared.ask(&shared.bob, "PATCH", &strong, &level("read")).await.status, 200);
    let query = format!("{all}?sort_by=permission_level&sort_order=asc&limit=1&page=2");
    let page = shared.ask(&carol, "GET", &query, &Value::Null).await;
    assert_eq!(page.json["data"]["permissions"][0]["user"]["username"], "carol", "{}", page.text);
    assert_eq!(page.json["data"]["pagination"]["total"], 2, "{}", page.text);
    let with = format!("{path}?include_permissions=true");
    let shown = shared.ask(&carol, "GET", &with, &Value::Null).await;
    assert_eq!(shown.json["data"]["permissions"].as_array().unwrap().len(), 2);
    // Who only reads removes nobody but themselves.
    assert_eq!(shared.ask(&carol, "DELETE", &own, &Value::Null).await.status, 403);
    assert_eq!(shared.ask(&carol, "DELETE", &strong, &Value::Null).await.status, 200);
    assert_eq!(shared.ask(&carol, "GET", &path, &Value::Null).await.status, 404);
    let gone = shared.ask(&shared.alice, "DELETE", &path, &Value::Null).await;
    assert_eq!(gone.json["data"]["deleted"]["permissions"], 1, "{}", gone.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_needs_the_leaf_for_members_whatever_its_owner_may() {
    let shared = Shared::start().await;
    let all = shared.permissions();
    let permission = shared.grant("read").await;
    let one = format!("{all}/{permission}");
    let leaves = json!({ "projects": { "read": true, "members": { "change_roles": true } } });
    let body = json!({ "alias": "roles", "permissions": leaves });
    let token = shared.ask(&shared.alice, "POST", "/api/v1/auth/tokens", &body).await;
    let token = token.json["data"]["token"].as_str().unwrap();
    let grant = json!({ "user_id": shared.bob_id, "permission_level": "read" });
    assert_eq!(shared.ask(token, "GET", &all, &Value::Null).await.status, 200);
    assert_eq!(shared.ask(token, "POST", &all, &grant).await.status, 403);
    assert_eq!(shared.ask(token, "DELETE", &one, &Value::Null).await.status, 403);
    let set = json!({ "permission_level": "edit" });
    let refused = shared.ask(token, "PATCH", &one, &set).await;
    assert_eq!(refused.status, 403, "it cannot change anything itself: {}", refused.text);
    let strong = json!({ "permission_level": "delete" });
    assert_eq!(shared.ask(&shared.alice, "PATCH", &one, &strong).await.status, 200);
    assert_eq!(shared.ask(token, "PATCH", &one, &set).await.status, 200, "less than before");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_lets_others_do_no_more_than_it_can_itself() {
    const REALM: &str = "64a2c4e9f3d5e2b6a8c7d8e1";
    let shared = Shared::start().await;
    let all = shared.permissions();
    let project = format!("/api/v1/projects/{}", shared.project);
    let realm = json!({ "realm_ids": [REALM] });
    assert_eq!(shared.ask(&shared.alice, "PATCH", &project, &realm).await.status, 200);
    let members = json!({ "invite": true, "change_roles": true, "remove": true });
    let change = json!({ "read": true, "create": true, "update": true });
    let leaves = |projects: &Value, containers: &Value| {
        let mut projects = projects.clone();
        projects["members"] = members.clone();
        json!({ "projects": projects, "containers": containers })
    };
    let whole = json!({ "read": true, "create": true, "update": true, "delete": true });
    let read = json!({ "read": true });
    for (level, more, granted) in [
        ("read", json!({ "permissions": leaves(&read, &read) }), true),
        ("read", json!({ "permissions": leaves(&read, &json!({})) }), false),
        ("edit", json!({ "permissions": leaves(&change, &change) }), true),
        ("edit", json!({ "permissions": leaves(&read, &change) }), false),
        ("edit", json!({ "permissions": leaves(&change, &read) }), false),
        ("delete", json!({ "permissions": leaves(&whole, &whole) }), true),
        ("delete", json!({ "permissions": leaves(&whole, &change) }), false),
        ("delete", json!({}), true),
        ("read", json!({ "realm_ids": [REALM] }), false),
        ("read", json!({ "allow_no_realm": false }), false),
        ("read", json!({ "ip_whitelist": ["192.0.2.0/24"] }), false),
        ("read", json!({ "expires_at": "tomorrow" }), false),
    ] {
        let made = shared.ask(&shared.alice, "POST", "/api/v1/auth/tokens", &more).await;
        let token = made.json["data"]["token"].as_str().unwrap().to_owned();
        let grant = json!({ "user_id": shared.bob_id, "permission_level": level });
        let asked = |method: &str, path: &str, body: &Value| {
            Ask::new(method, path).by(&token).body(body).realm(REALM)
        };
        let reply = shared.lab.send(asked("POST", &all, &grant)).await;
        let said = format!("{level} {more}: {}", reply.text);
        assert_eq!(reply.status, if granted { 201 } else { 403 }, "{said}");
        if !granted {
            assert_eq!(reply.json["code"], "INSUFFICIENT_PERMISSIONS", "{said}");
        }
        let one = match reply.json["data"]["id"].as_str() {
            Some(id) => format!("{all}/{id}"),
            None => format!("{all}/{}", shared.grant("read").await),
        };
        // Nor by way of a member that there is.
        if !granted && level != "read" {
            let set = json!({ "permission_level": level });
            let reply = shared.lab.send(asked("PATCH", &one, &set)).await;
            assert_eq!(reply.status, 403, "{said} {}", reply.text);
        }
        let gone = shared.ask(&shared.alice, "DELETE", &one, &Value::Null).await;
        assert_eq!(gone.status, 200, "{}", gone.text);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_leaves_out_the_documents_of_what_is_only_read() {
    let shared = Shared::start().await;
    shared.grant("read").await;
    let body = json!({ "alias": "own" });
    let own = shared.ask(&shared.bob, "POST", "/api/v1/projects", &body).await;
    let own = own.json["data"]["id"].as_str().unwrap();
    shared.lab.container(&shared.bob, own, "own-thing").await;
    let with = "include_proxy_permissions=true&include_proxy_domains=true";
    let of_project = format!("/api/v1/projects/{}/containers?{with}", shared.project);
    for (path, count) in [(format!("/api/v1/containers?{with}"), 2), (of_project, 1)] {
        let reply = shared.ask(&shared.bob, "GET", &path, &Value::Null).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text);
        let containers = reply.json["data"]["containers"].as_array().unwrap();
        assert_eq!(containers.len(), count, "{}", reply.text);
        for container in containers {
            let seen = container.get("proxy_permissions").is_some();
            assert_eq!(seen, container["name"] == "own-thing", "{}", reply.text);
            assert!(container.get("proxy_domains").is_some(), "{}", reply.text);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_or_follows_sees_nothing_more_when_the_grant_ends() {
    let shared = Shared::start().await;
    let permission = shared.grant("edit").await;
    let container = format!("/api/v1/containers/{}", shared.container);
    // Checked by a password, which is looked at again once a minute.
    let basic = BASE64_STANDARD.encode(format!("bob:{PASSWORD}"));
    let logs = Ask::new("GET", &format!("{container}/logs/stream?endless"))
        .header("authorization", &format!("Basic {basic}"));
    shared.lab.world.delay(Call::Stop, Duration::from_mins(5));
    let stop = format!("{container}/stop?wait=stopped&timeout=60");
    let take = async {
        let all = timeout(Duration::from_secs(20), async {
            while shared.lab.world.calls(Call::Stop) == 0 || shared.lab.logs.readers() == 0 {
                tokio::task::yield_now().await;
            }
        });
        all.await.unwrap();
        let one = format!("{}/{permission}", shared.permissions());
        let gone = shared.ask(&shared.alice, "DELETE", &one, &Value::Null).await;
        assert_eq!(gone.status, 200, "{}", gone.text);
        // What ends the wait, although the container is there for long.
        shared.ask(&shared.alice, "DELETE", &container, &Value::Null).await;
    };
    let stopped = shared.ask(&shared.bob, "POST", &stop, &Value::Null);
    let ends = timeout(Duration::from_secs(20), shared.lab.send(logs));
    let (stopped, logged, ()) = tokio::join!(stopped, ends, take);
    assert_eq!(stopped.status, 404, "{}", stopped.text);
    assert_eq!(logged.expect("it ends").text, "data: []\n\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_projects_shows_so_many_members_of_each_and_a_project_all() {
    let shared = Shared::start().await;
    shared.grant("read").await;
    let all = shared.permissions();
    for number in 1..21 {
        let user = json!({ "username": format!("user-{number}"), "password": PASSWORD });
        let user = shared.ask(&shared.lab.admin, "POST", "/api/v1/users", &user).await;
        let grant = json!({ "user_id": user.json["data"]["id"], "permission_level": "read" });
        let reply = shared.ask(&shared.alice, "POST", &all, &grant).await;
        assert_eq!(reply.status, 201, "{}", reply.text);
    }
    let count = |permissions: &Value| permissions.as_array().unwrap().len();
    let list = "/api/v1/projects?include_permissions=true";
    let listed = shared.ask(&shared.alice, "GET", list, &Value::Null).await;
    let first = &listed.json["data"]["projects"][0]["permissions"];
    assert_eq!((count(first), &first[0]["user"]["username"]), (20, &json!("bob")));
    let one = format!("/api/v1/projects/{}?include_permissions=true", shared.project);
    let shown = shared.ask(&shared.alice, "GET", &one, &Value::Null).await;
    assert_eq!(count(&shown.json["data"]["permissions"]), 21);
}
