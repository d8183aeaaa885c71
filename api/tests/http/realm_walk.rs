//! A token of one realm on every operation: what is in another realm it neither sees nor changes.
//!
//! A refusal counts only if the request was good: each is sent by the token of the other realm, and when all of
//! them have been refused and nothing has changed, the same one is sent by the token of the right realm, which
//! it is done for.

use axum::body::Body;
use serde_json::{Value, json};

use crate::{
    events::{read_until, stream},
    lab::{Ask, Lab, PASSWORD, Reply},
    realms::{A, B, Things, bound, id, things},
};

const KEY: &str = "abababababababababababababababababababababababababababababababab";
const HOSTNAME: &str = "www.example.org";

/// Everything of one account in the realm that is not the token's.
struct Other {
    things: Things,
    copy: String,
    hook: String,
    snapshot: String,
    member: String,
    event: String,
    /// A share from the container, and one to it.
    shares: [String; 2],
    /// A user who is no member.
    stranger: String,
    session: String,
}

async fn user(lab: &Lab, username: &str) -> String {
    let session = lab.login(username, PASSWORD).await;
    let me = lab.send(Ask::new("GET", "/api/v1/users/me").by(&session)).await;
    me.json["data"]["id"].as_str().unwrap().to_owned()
}

async fn done(lab: &Lab, ask: Ask) -> Value {
    let reply = lab.send(ask).await;
    assert!(reply.status.is_success(), "{}", reply.text);
    reply.json["data"].clone()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

/// Makes a permission document with a group and a cell.
async fn open_to_staff(lab: &Lab, session: &str, of: &str) {
    for (version, path, body) in [
        ("file:v0", "groups/staff/ip", json!({ "range": "192.0.2.0/24" })),
        ("file:v1", "permissions/staff", json!({ "program": "http", "access": true })),
    ] {
        let path = format!("/api/v1/{of}/proxy/permissions/{path}");
        let ask = Ask::new("PUT", &path).by(session).body(&body).header("if-match", version);
        done(lab, ask).await;
    }
}

impl Other {
    async fn make(lab: &Lab, session: &str) -> Self {
        let things = things(lab, session, B, "other-thing").await;
        let ask = |method: &str, path: &str, body: Value| {
            Ask::new(method, &format!("/api/v1/{path}")).by(session).body(&body)
        };
        let (bob, carol) =
            (user(lab, "bob").await, json!({ "username": "carol", "password": PASSWORD }));
        let stranger = id(lab, Ask::new("POST", "/api/v1/users").by(&lab.admin).body(&carol)).await;
        let Things { project, container, alias, token } = &things;
        let of = format!("containers/{container}");
        let profile = json!({ "public_key": KEY, "public_storage": "other-thing" });
        let key = format!("vault/keys/other-thing?realm_id={B}");
        for (method, path, body) in [
            ("POST", format!("{of}/firewall/ingress"), rule()),
            ("POST", format!("{of}/firewall/egress"), rule()),
            ("PATCH", format!("{of}/env"), json!({ "A": "other-thing" })),
            ("PUT", format!("{of}/network"), shut()),
            ("PATCH", format!("auth/tokens/{token}"), profile),
            ("PUT", key, json!({ "value": "other-thing" })),
        ] {
            done(lab, ask(method, &path, body)).await;
        }
        for of in [&of, &format!("projects/{project}")] {
            open_to_staff(lab, session, of).await;
        }
        let hook =
            ask("POST", &format!("{of}/proxy/hooks/http"), hook()).header("if-match", "file:v2");
        let hook = text(&done(lab, hook).await["hook"]["id"]);
        let snapshot =
            done(lab, ask("POST", &format!("{of}/snapshots"), json!({ "alias": "other-thing" })))
                .await;
        let shown =
            done(lab, Ask::new("GET", &format!("/api/v1/proxy/aliases/{alias}")).by(session)).await;
        let url = text(&shown["url"]);
        let host = url.trim_start_matches("https://").split([':', '/']).next().unwrap().to_owned();
        for name in [HOSTNAME, "second.example.org"] {
            lab.names.cname(name, &host);
        }
        let bind = json!({ "hostname": HOSTNAME, "alias_id": alias });
        done(lab, ask("POST", &format!("{of}/proxy/hostnames"), bind)).await;
        let member = json!({ "user_id": bob, "permission_level": "read" });
        let member = id(lab, ask("POST", &format!("projects/{project}/permissions"), member)).await;
        let body = json!({ "target_project_id": project, "name": "other-thing-copy" });
        let copy = ask("POST", &format!("{of}/copy?wait=running&timeout=20"), body).realm(B);
        let copy = id(lab, copy).await;
        let share = |target: Value| {
            let mut body =
                json!({ "source_path": "/data", "mode": "readonly", "label": "other-thing" });
            body.as_object_mut().unwrap().extend(target.as_object().unwrap().clone());
            body
        };
        let (from, to) =
            (format!("{of}/storage/shares"), format!("containers/{copy}/storage/shares"));
        let from = ask("POST", &from, share(json!({ "target_project_id": project })));
        let to = ask("POST", &to, share(json!({ "target_container_id": container })));
        let shares = [id(lab, from).await, id(lab, to).await];
        let events = Ask::new("GET", &format!("/api/v1/events?resource_id={container}"));
        let event = text(&done(lab, events.by(session)).await["events"][0]["id"]);
        let snapshot = text(&snapshot["snapshot"]["name"]);
        let session = session.to_owned();
        Self { things, copy, hook, snapshot, member, event, shares, stranger, session }
    }

    /// A path of the document with these things in it.
    fn fill(&self, path: &str) -> String {
        let Things { project, container, alias, token } = &self.things;
        let one = match path.trim_start_matches("/api/v1/") {
            "containers/{id}/sync" => &self.copy,
            rest if rest.starts_with("projects/") => project,
            rest if rest.starts_with("containers/") => container,
            rest if rest.starts_with("proxy/aliases/") => alias,
            rest if rest.starts_with("auth/tokens/") => token,
            rest if rest.starts_with("storage/shares/") => &self.shares[0],
            rest if rest.starts_with("events/") => &self.event,
            _ => "",
        };
        let key = match path {
            path if path.contains("/env/") => "A",
            path if path.contains("/vault/") => "other-thing",
            _ => KEY,
        };
        let share = &self.shares[usize::from(path.contains("/storage/incoming/"))];
        let mut filled = [
            ("{id}", one),
            ("{group}", "staff"),
            ("{program}", "http"),
            ("{service}", "http"),
            ("{hook}", &self.hook),
            ("{permission_id}", &self.member),
            ("{key}", key),
            ("{share_id}", share),
            ("{name}", &self.snapshot),
            ("{hostname}", HOSTNAME),
        ]
        .into_iter()
        .fold(path.to_owned(), |path, (name, value)| path.replace(name, value));
        if path.contains("/vault/keys/") {
            // A key of this name in the token's own realm is another one.
            filled = format!("{filled}?realm_id={B}");
        }
        if let Some((_, operation)) = path.rsplit_once('/') {
            let leads_to = match operation {
                "start" | "restart" | "resume" | "copy" | "sync" => "running",
                "stop" | "force-stop" => "stopped",
                "pause" => "paused",
                _ => return filled,
            };
            filled = format!("{filled}?wait={leads_to}&timeout=20");
        }
        filled
    }

    /// The request as whoever may send it would send it, credentials left out.
    async fn ask(&self, lab: &Lab, method: &str, path: &str, body: &Value) -> Ask {
        let mut ask = Ask::new(method, &self.fill(path));
        if path.contains("/proxy/") && method != "GET" {
            ask = ask.header("if-match", &self.version(lab, path).await);
        }
        if !body.is_null() {
            ask = ask.body(body);
        }
        ask
    }

    /// The version of the document that a path is about.
    async fn version(&self, lab: &Lab, path: &str) -> String {
        let of = if path.contains("/projects/") { "projects" } else { "containers" };
        let path = self.fill(&format!("/api/v1/{of}/{{id}}/proxy/permissions"));
        let document = done(lab, Ask::new("GET", &path).by(&self.session)).await;
        format!("file:v{}", document["file_version"])
    }

    /// What the owner sees of all of it; the time of the last use of tokens left out.
    async fn all(&self, lab: &Lab) -> Vec<Value> {
        let mut seen = Vec::new();
        for path in [
            "projects/{id}",
            "projects/{id}/permissions",
            "projects/{id}/proxy/permissions",
            "containers/{id}",
            "containers/{id}/proxy/permissions",
            "containers/{id}/proxy/hooks",
            "containers/{id}/proxy/hostnames",
            "containers/{id}/proxy/edge",
            "containers/{id}/env",
            "containers/{id}/firewall/rules",
            "containers/{id}/network",
            "containers/{id}/storage/shares",
            "containers/{id}/snapshots",
            "containers/{id}/status-logs",
            "proxy/aliases/{id}",
            "auth/tokens/{id}",
            "auth/tokens/public-profiles/{key}",
            "vault/keys/{key}",
            "events/{id}",
        ] {
            let path = self.fill(&format!("/api/v1/{path}"));
            let mut shown = done(lab, Ask::new("GET", &path).by(&self.session)).await;
            if path.ends_with("/network") {
                // When it was looked at.
                shown["last_status_check"] = Value::Null;
                shown["remote_status"] = Value::Null;
            }
            seen.push(shown);
        }
        let listed = done(
            lab,
            Ask::new("GET", &format!("/api/v1/containers?realm_id={B}")).by(&self.session),
        )
        .await;
        seen.push(listed["pagination"]["total"].clone());
        seen
    }
}

fn shut() -> Value {
    json!({ "type": "block", "comment": "other-thing" })
}

fn rule() -> Value {
    json!({ "action": "drop", "protocol": "tcp", "description": "other-thing", "destination_port": "25" })
}

fn hook() -> Value {
    json!({ "match": { "path": "/" }, "script": { "path": "/check" } })
}

/// Methods, path and a good body of every operation about one thing of a realm, in an order in which all of
/// them can be done one after the other.
fn changes(other: &Other) -> Vec<(&'static str, &'static str, Value)> {
    let Things { project, alias, .. } = &other.things;
    let color = || json!({ "color": "#123456" });
    vec![
        ("PUT PATCH", "projects/{id}", color()),
        ("PUT PATCH", "containers/{id}", color()),
        (
            "POST",
            "projects/{id}/permissions",
            json!({ "user_id": other.stranger, "permission_level": "read" }),
        ),
        (
            "PUT PATCH",
            "projects/{id}/permissions/{permission_id}",
            json!({ "permission_level": "edit" }),
        ),
        ("PUT PATCH", "containers/{id}/kvm", json!({ "kvm": false })),
        ("PUT PATCH", "containers/{id}/env", json!({ "B": "b" })),
        ("PUT PATCH", "containers/{id}/env/{key}", json!({ "value": "a" })),
        ("DELETE", "containers/{id}/env/{key}", Value::Null),
        ("POST", "containers/{id}/firewall/ingress", rule()),
        ("POST", "containers/{id}/firewall/egress", rule()),
        (
            "PUT PATCH",
            "containers/{id}/firewall/ingress",
            json!({ "action": "drop", "state": "enabled" }),
        ),
        (
            "PUT PATCH",
            "containers/{id}/firewall/egress",
            json!({ "action": "drop", "state": "enabled" }),
        ),
        ("DELETE", "containers/{id}/firewall/ingress", json!({ "all": true })),
        ("DELETE", "containers/{id}/firewall/egress", json!({ "all": true })),
        ("POST", "containers/{id}/firewall/reset", json!({})),
        ("PATCH", "containers/{id}/proxy/edge", json!({ "wake": "any" })),
        (
            "POST",
            "containers/{id}/proxy/hostnames",
            json!({ "hostname": "second.example.org", "alias_id": alias }),
        ),
        ("DELETE", "containers/{id}/proxy/hostnames/{hostname}", Value::Null),
        ("PUT PATCH", "containers/{id}/proxy/settings", json!({ "default": "allow" })),
        ("POST", "containers/{id}/proxy/hooks/{service}", hook()),
        ("PUT PATCH", "containers/{id}/proxy/hooks/{service}/{hook}", hook()),
        (
            "PATCH",
            "containers/{id}/proxy/hooks/{service}/{hook}/position",
            json!({ "position": 0 }),
        ),
        ("DELETE", "containers/{id}/proxy/hooks/{service}/{hook}", Value::Null),
        ("DELETE", "containers/{id}/proxy/hooks/{service}", Value::Null),
        ("POST", "containers/{id}/snapshots", json!({})),
        ("PUT PATCH", "containers/{id}/snapshots/{name}/alias", json!({ "alias": "again" })),
        ("POST", "containers/{id}/authorize", json!({})),
        ("POST", "containers/{id}/pause", json!({})),
        ("POST", "containers/{id}/resume", json!({})),
        ("POST", "containers/{id}/restart", json!({})),
        ("POST", "containers/{id}/stop", json!({})),
        ("POST", "containers/{id}/start", json!({})),
        ("POST", "containers/{id}/copy", json!({ "target_project_id": project })),
        ("POST", "containers/{id}/sync", json!({})),
        ("PUT PATCH", "containers/{id}/snapshots/{name}", json!({})),
        ("POST", "containers/{id}/force-stop", json!({})),
        ("POST", "projects/{id}/containers", json!({ "server_id": "", "name": "another" })),
        ("PATCH", "proxy/aliases/{id}", json!({ "target_path": "/x" })),
        ("PATCH", "proxy/aliases/{id}/state", json!({ "enabled": false })),
        ("PUT PATCH", "auth/tokens/{id}", json!({ "alias": "again" })),
        ("POST", "auth/tokens/{id}/copy", json!({})),
        ("PUT PATCH", "vault/keys/{key}", json!({ "value": "v" })),
    ]
}

/// The same about commands, outbound networks and shares.
fn networks_and_shares(other: &Other) -> Vec<(&'static str, &'static str, Value)> {
    let project = &other.things.project;
    vec![
        ("POST", "containers/{id}/exec", json!({ "command": ["true"] })),
        ("PUT PATCH", "containers/{id}/network", shut()),
        ("POST", "containers/{id}/network/stop", json!({})),
        ("POST", "containers/{id}/network/start", json!({})),
        ("DELETE", "containers/{id}/network", Value::Null),
        (
            "POST",
            "containers/{id}/storage/shares",
            json!({ "source_path": "/more", "target_project_id": project, "mode": "readwrite" }),
        ),
        ("PUT PATCH", "containers/{id}/storage/shares/{share_id}", json!({ "mode": "readwrite" })),
        (
            "PUT PATCH",
            "containers/{id}/storage/incoming/{share_id}/mount",
            json!({ "mount": false }),
        ),
    ]
}

/// What both kinds of permission documents have, before the last of their changes takes them away.
fn documents(other: &Other, of: &'static str) -> Vec<(&'static str, &'static str, Value)> {
    let cell = || json!({ "program": "http", "access": true });
    let mut document = json!({ "project": other.things.project, "permissions": {},
        "groups": { "staff": { "type": "ip", "range": "192.0.2.0/24" } } });
    if of == "containers" {
        document["container"] = json!(other.things.container);
    }
    vec![
        ("PUT PATCH", "", document),
        ("PATCH", "/default", json!({ "default": "allow" })),
        ("PATCH", "/state", json!({ "enable_proxy": true })),
        (
            "PUT PATCH",
            "/groups/{group}/jwt",
            json!({ "secret": "s".repeat(32), "algorithm": "HS256", "sources": ["header:X-Token"] }),
        ),
        ("PUT PATCH", "/groups/{group}/password", json!({ "username": "u", "password": "p" })),
        ("PUT PATCH", "/groups/{group}/ip", json!({ "range": "192.0.2.0/24" })),
        ("PUT PATCH", "/groups/{group}/token", json!({ "header": "X-Token", "value": "v" })),
        ("PUT", "/permissions/{group}", cell()),
        ("DELETE", "/permissions/{group}/{program}", Value::Null),
        ("PATCH", "/permissions/{group}", cell()),
        ("DELETE", "/permissions/{group}", Value::Null),
        ("DELETE", "/groups/{group}", Value::Null),
        ("DELETE", "", Value::Null),
    ]
}

/// What ends things, each after what hangs on it.
const ENDS: [&str; 9] = [
    "storage/shares/{id}",
    "containers/{id}/snapshots/{name}",
    "projects/{id}/permissions/{permission_id}",
    "proxy/aliases/{id}",
    "auth/tokens/{id}",
    "vault/keys/{key}",
    "events/{id}",
    "containers/{id}",
    "projects/{id}",
];

/// What is about no thing of a realm, although its path names one.
const OF_NO_REALM: [(&str, &str); 7] = [
    ("users/", "an account is in all realms or none"),
    ("servers/", "servers are everybody's"),
    ("rentals/", "the same as servers"),
    ("images/", "images are everybody's"),
    ("meta/", "the installation is everybody's"),
    // Whoever is bound to realms changes those of nothing, not even in its own.
    ("auth/tokens/{id}/add-realm", "no token of a realm may"),
    ("auth/tokens/{id}/remove-realm", "no token of a realm may"),
];

/// One request with all that is needed to send it again.
struct Request {
    method: String,
    path: String,
    body: Value,
}

/// Every request to be, looks first; and the operations of the document that none of them is of.
fn requests(lab: &Lab, other: &Other) -> (Vec<Request>, Vec<(String, String)>) {
    let mut left: Vec<(String, String)> =
        lab.document.operations().into_iter().map(|(method, path, _)| (method, path)).collect();
    let mut all = Vec::new();
    let mut add = |method: &str, path: String, body: Value| {
        let before = left.len();
        left.retain(|known| *known != (method.to_owned(), path.clone()));
        assert_eq!(left.len(), before - 1, "{method} {path} is not in the document, or twice here");
        all.push(Request { method: method.to_owned(), path, body });
    };
    let of_none = |path: &str| {
        let rest = path.trim_start_matches("/api/v1/");
        OF_NO_REALM.iter().any(|(start, _)| rest.starts_with(start))
    };
    let operations = lab.document.operations().into_iter();
    let gets = operations
        .filter(|(method, path, _)| method == "GET" && path.contains('{') && !of_none(path));
    for (_, path, _) in gets {
        add("GET", path, Value::Null);
    }
    for (methods, path, mut body) in networks_and_shares(other).into_iter().chain(changes(other)) {
        if body.get("server_id").is_some() {
            body["server_id"] = json!(lab.server.to_string());
        }
        for method in methods.split(' ') {
            add(method, format!("/api/v1/{path}"), body.clone());
        }
    }
    for of in ["projects", "containers"] {
        for (methods, path, body) in documents(other, of) {
            for method in methods.split(' ') {
                add(method, format!("/api/v1/{of}/{{id}}/proxy/permissions{path}"), body.clone());
            }
        }
    }
    for path in ENDS {
        add("DELETE", format!("/api/v1/{path}"), Value::Null);
    }
    (all, left)
}

fn assert_refused(reply: &Reply, said: &str) {
    assert!(matches!(reply.status.as_u16(), 403 | 404), "{said}");
    assert!(!reply.text.contains("other-thing"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_one_realm_sees_and_changes_nothing_of_another_on_any_endpoint() {
    let lab = Lab::start().await;
    let session = lab.login("alice", PASSWORD).await;
    let own = things(&lab, &session, A, "own-thing").await;
    let other = Other::make(&lab, &session).await;
    let (wrong, right) = (bound(&lab, &session, A).await, bound(&lab, &session, B).await);
    let (requests, left) = requests(&lab, &other);
    assert!(requests.len() > 110, "{}", requests.len());
    let before = other.all(&lab).await;
    the_stream_hides(&lab, &wrong).await;
    for Request { method, path, body } in &requests {
        let ask = other.ask(&lab, method, path, body).await;
        let reply = lab.send(ask.clone().by(&wrong).realm(A)).await;
        assert_refused(&reply, &format!("{method} {path}: {} {}", reply.status, reply.text));
        // The same on the host of the other realm, and without one.
        for ask in [ask.clone().by(&wrong).realm(B), ask.by(&wrong)] {
            let reply = lab.send(ask).await;
            let said = format!("{method} {path}: {} {}", reply.status, reply.text);
            assert_refused(&reply, &said);
            assert_eq!(reply.json["code"], "REALM_SCOPE_ERROR", "{said}");
        }
    }
    the_rest_hides(&lab, &other, &wrong, left).await;
    names_in_bodies_are_refused(&lab, &other, &own, &wrong).await;
    assert_eq!(other.all(&lab).await, before, "something of the other realm has changed");
    let mut undone = Vec::new();
    for Request { method, path, body } in &requests {
        // Whoever is bound to realms lets nobody in, not even in its own.
        let lets_in = path.contains("{id}/permissions") && !body.is_null();
        let by = if lets_in { &session } else { &right };
        let reply = lab.send(other.ask(&lab, method, path, body).await.by(by).realm(B)).await;
        // A session wants to leave HTTP, which this client does not.
        let is_session = method == "GET" && path.ends_with("/exec");
        let is_asked = is_session && reply.text.contains("Sec-WebSocket-Protocol");
        if !reply.status.is_success() && !is_asked {
            undone.push(format!("{method} {path}: {} {}", reply.status, reply.text));
        }
    }
    assert!(undone.is_empty(), "{undone:#?}");
    let own = Ask::new("GET", &format!("/api/v1/containers/{}", own.container));
    assert_eq!(lab.send(own.by(&wrong).realm(A)).await.status, 200, "its own is there");
}

/// What is about no thing of the other realm does not tell of one, and does nothing to one.
async fn the_rest_hides(lab: &Lab, other: &Other, wrong: &str, left: Vec<(String, String)>) {
    let mut tried = 0;
    let operations = lab.document.operations();
    for (method, path) in left {
        let rest = path.trim_start_matches("/api/v1/");
        let excused = OF_NO_REALM.iter().any(|(start, _)| rest.starts_with(start));
        assert!(excused || !path.contains('{'), "there is no request for {method} {path}");
        // It has no end: looked at for itself.
        if rest == "events/stream" {
            continue;
        }
        let sample = operations.iter().find(|(m, p, _)| (m, p) == (&method, &path));
        let ask =
            Ask::new(&method, &path.replace("{id}", &other.things.token).replace(['{', '}'], ""));
        let ask = ask.by(wrong).realm(A);
        let ask = if method == "GET" { ask } else { ask.body(&sample.unwrap().2) };
        let reply = lab.send(ask).await;
        let said = format!("{method} {path}: {} {}", reply.status, reply.text);
        // A client may read again what it has asked for itself.
        let asked = rest.contains("activity") || rest.contains("security-history");
        let Things { project, container, alias, token } = &other.things;
        for hidden in ["other-thing", B, project, container, alias, token, KEY] {
            assert!(asked || !reply.text.contains(hidden), "{hidden} in {said}");
        }
        if path.contains("{id}") && path.contains("/tokens/") {
            assert_refused(&reply, &said);
        }
        tried += 1;
    }
    assert!(tried > 40, "{tried}");
    let narrowed = Ask::new("GET", &format!("/api/v1/containers/?realm_id={B}"));
    assert_eq!(lab.send(narrowed.by(wrong).realm(A)).await.status, 403);
}

/// What a body names is as hidden as what a path names; with its own things in its place, each is done.
async fn names_in_bodies_are_refused(lab: &Lab, other: &Other, own: &Things, wrong: &str) {
    let theirs = &other.things;
    let copies = format!("containers/{}/copy", own.container);
    let hostnames = format!("containers/{}/proxy/hostnames", own.container);
    let alias = |container: &str| json!({ "container_id": container, "alias": "named", "program": "terminal" });
    let copy = |project: &str| json!({ "target_project_id": project, "name": "named" });
    let share = |project: &str| json!({ "source_path": "/data", "target_project_id": project, "mode": "readonly" });
    let shares = format!("containers/{}/storage/shares", own.container);
    let bind = |alias: &str| json!({ "hostname": "third.example.org", "alias_id": alias });
    lab.names.cname("third.example.org", "own-thing.node-test.containers.edge.test");
    for (path, named, good) in [
        ("proxy/aliases", alias(&theirs.container), alias(&own.container)),
        (shares.as_str(), share(&theirs.project), share(&own.project)),
        (copies.as_str(), copy(&theirs.project), copy(&own.project)),
        (hostnames.as_str(), bind(&theirs.alias), bind(&own.alias)),
    ] {
        let ask = Ask::new("POST", &format!("/api/v1/{path}")).by(wrong).realm(A);
        let reply = lab.send(ask.clone().body(&named)).await;
        assert_refused(&reply, &format!("POST {path}: {} {}", reply.status, reply.text));
        let reply = lab.send(ask.body(&good)).await;
        assert_eq!(reply.status, 201, "POST {path}: {}", reply.text);
    }
}

/// All that has happened so far comes out of the stream at once: nothing of it is the other realm's.
async fn the_stream_hides(lab: &Lab, wrong: &str) {
    let start = "0".repeat(24);
    let (status, _) = stream(lab, wrong, Some(&start), Some(B)).await;
    assert_eq!(status, 403);
    let (status, mut body): (u16, Body) = stream(lab, wrong, Some(&start), Some(A)).await;
    assert_eq!(status, 200);
    let last = Ask::new("POST", "/api/v1/projects").by(wrong).realm(A);
    done(lab, last.body(&json!({ "alias": "last-thing" }))).await;
    let said = read_until(&mut body, &["own-thing", "last-thing"]).await;
    assert!(!said.contains("other-thing") && !said.contains(B), "{said}");
}
