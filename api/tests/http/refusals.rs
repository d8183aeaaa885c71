//! Refusals name what of the request they are about and the rule: on every route that writes, for limits and
//! for what another thing has already.

mod accounts;

use std::collections::BTreeSet;

use gantry_control::{Limits, Signing};
use serde_json::{Value, json};

use crate::lab::{Ask, Lab, Reply};

const NONE: &str = "abcdef0123456789abcdef01";

/// Alice with one thing of each sort.
struct Scene {
    lab: Lab,
    session: String,
    /// A token of hers that may show itself.
    secret: String,
    user: String,
    project: String,
    container: String,
    alias: String,
    token: String,
}

impl Scene {
    async fn set(limits: Limits) -> Self {
        let lab = Lab::start_with(limits, Signing::Claims).await;
        let (session, project) = lab.alice().await;
        let container = lab.container(&session, &project, "web").await;
        let mut scene = Self {
            lab,
            session,
            secret: String::new(),
            user: String::new(),
            project,
            container,
            alias: String::new(),
            token: String::new(),
        };
        scene.user = scene.made("GET", "users/me", &json!({})).await["id"].to_string();
        scene.user = scene.user.trim_matches('"').to_owned();
        let alias =
            json!({ "container_id": scene.container, "alias": "front", "program": "terminal" });
        scene.alias = text(&scene.made("POST", "proxy/aliases", &alias).await["id"]);
        let token = scene.made("POST", "auth/tokens", &json!({ "alias": "first" })).await;
        let snapshot = json!({ "alias": "none" });
        let of_container = format!("containers/{}/snapshots", scene.container);
        scene.made("POST", &of_container, &snapshot).await;
        (scene.token, scene.secret) = (text(&token["id"]), text(&token["token"]));
        scene
    }

    /// A path of the document with this scene's ids in it.
    fn fill(&self, path: &str) -> String {
        let id = match path.trim_start_matches("/api/v1/").split('/').take(2).collect::<Vec<_>>()[..]
        {
            ["projects", _] => &self.project,
            ["containers", _] => &self.container,
            ["proxy", _] => &self.alias,
            ["users", _] => &self.user,
            ["auth", _] => &self.token,
            _ => NONE,
        };
        [
            ("{id}", id),
            ("{group}", "staff"),
            ("{program}", "http"),
            ("{service}", "http"),
            ("{hook}", NONE),
            ("{permission_id}", NONE),
            ("{share_id}", NONE),
            ("{key}", "one"),
            ("{name}", "none"),
            ("{hostname}", "www.example.org"),
        ]
        .into_iter()
        .fold(path.to_owned(), |path, (name, value)| path.replace(name, value))
    }

    async fn ask(&self, method: &str, path: &str, body: &Value) -> Reply {
        let by = match path {
            // Only administrators make accounts, and only tokens have profiles of their own.
            "/api/v1/users" | "/api/v1/users/" => &self.lab.admin,
            "/api/v1/auth/tokens/me/public-profile" => &self.secret,
            _ => &self.session,
        };
        let ask = Ask::new(method, &self.fill(path)).by(by).header("if-match", "file:v0");
        self.lab.send(ask.text(&body.to_string().replace("{project}", &self.project))).await
    }

    async fn made(&self, method: &str, path: &str, body: &Value) -> Value {
        let ask = Ask::new(method, &format!("/api/v1/{path}")).by(&self.session);
        let ask = if method == "GET" { ask } else { ask.body(body) };
        let reply = self.lab.send(ask).await;
        assert!(reply.status.is_success(), "{method} {path}: {}", reply.text);
        reply.json["data"].clone()
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// The parts of the request that a refusal names, with the rule of each: a list, or one object where clients of
/// the reference expect that.
fn named(reply: &Reply) -> Vec<(&str, &str)> {
    let data = &reply.json["data"];
    let whole = reply.json["message"].as_str();
    let of = |one: &'_ Value| one["field"].as_str().map(str::len);
    assert!(data.is_array() || of(data).is_some(), "no field: {}", reply.text);
    data.as_array()
        .map_or_else(|| vec![data], |list| list.iter().collect())
        .into_iter()
        .map(|one| (one["field"].as_str().unwrap(), one["message"].as_str().or(whole).unwrap()))
        .collect()
}

/// Method, path, a body with one wrong value, the field that it is in, what is said of its rule.
type Row = (&'static str, &'static str, Value, &'static str, &'static str);

fn of_projects() -> Vec<Row> {
    vec![
        ("POST", "projects", json!({ "alias": "" }), "alias", "1 to 100"),
        ("PUT PATCH", "projects/{id}", json!({ "color": "blue" }), "color", "hexadecimal"),
        (
            "POST",
            "projects/{id}/permissions",
            json!({ "user_id": NONE, "permission_level": "own" }),
            "permission_level",
            "read, edit, delete",
        ),
        (
            "PUT PATCH",
            "projects/{id}/permissions/{permission_id}",
            json!({ "permission_level": "own" }),
            "permission_level",
            "read, edit, delete",
        ),
        (
            "POST",
            "projects/{id}/containers",
            json!({ "server_id": NONE, "name": "x" }),
            "name",
            "3 to 100",
        ),
    ]
}

fn of_containers() -> Vec<Row> {
    let rule = |port: &str| json!({ "action": "allow", "protocol": "tcp", "description": "d", "destination_port": port });
    vec![
        ("PUT PATCH", "containers/{id}", json!({ "color": "red" }), "color", "hexadecimal"),
        (
            "POST",
            "containers/{id}/copy",
            json!({ "target_project_id": NONE, "name": "x" }),
            "name",
            "3 to 100",
        ),
        ("PUT PATCH", "containers/{id}/kvm", json!({}), "kvm", "required"),
        ("POST", "containers/{id}/exec", json!({ "command": [] }), "command", "at least one word"),
        ("PUT PATCH", "containers/{id}/env", json!({ "1A": "x" }), "1A", "digit"),
        (
            "PUT PATCH",
            "containers/{id}/env/{key}",
            json!({ "value": "" }),
            "one", // The variable has its name from the path.
            "1 to 4096",
        ),
        ("POST", "containers/{id}/firewall/ingress", rule("0"), "destination_port", "1 to 65535"),
        ("POST", "containers/{id}/firewall/egress", rule("90-80"), "destination_port", "port"),
        (
            "PUT PATCH",
            "containers/{id}/firewall/ingress",
            json!({ "state": "enabled", "source": "::1" }),
            "source",
            "IPv4",
        ),
        (
            "PUT PATCH",
            "containers/{id}/firewall/egress",
            json!({ "state": "half" }),
            "state",
            "enabled or disabled",
        ),
        (
            "DELETE",
            "containers/{id}/firewall/ingress",
            json!({ "protocol": "sctp" }),
            "protocol",
            "tcp",
        ),
        (
            "DELETE",
            "containers/{id}/firewall/egress",
            json!({ "destination": "x" }),
            "destination",
            "IPv4",
        ),
        ("PUT PATCH", "containers/{id}/network", json!({ "type": "tunnel" }), "type", "block"),
        ("POST", "containers/{id}/snapshots", json!({ "expiry": 0 }), "expiry", "1 to 3650"),
        (
            "PUT PATCH",
            "containers/{id}/snapshots/{name}/alias",
            json!({ "alias": "" }),
            "alias",
            "1 to 100",
        ),
    ]
}

fn of_shares() -> Vec<Row> {
    vec![
        (
            "POST",
            "containers/{id}/storage/shares",
            json!({ "source_path": "/data", "target_project_id": NONE, "mode": "rw" }),
            "mode",
            "readonly",
        ),
        (
            "PUT PATCH",
            "containers/{id}/storage/shares/{share_id}",
            json!({ "alias": "-a-" }),
            "alias",
            "inner hyphens",
        ),
        (
            "PUT PATCH",
            "containers/{id}/storage/incoming/{share_id}/mount",
            json!({ "mount": "yes" }),
            "mount",
            "true or false",
        ),
    ]
}

fn of_edges() -> Vec<Row> {
    vec![
        (
            "POST",
            "proxy/aliases",
            json!({ "container_id": NONE, "alias": "-a-", "program": "terminal" }),
            "alias",
            "inner hyphens",
        ),
        ("PATCH", "proxy/aliases/{id}", json!({ "program": "nothing" }), "program", "http"),
        (
            "PATCH",
            "proxy/aliases/{id}/state",
            json!({ "enabled": "yes" }),
            "enabled",
            "true or false",
        ),
        (
            "PATCH",
            "containers/{id}/proxy/edge",
            json!({ "concurrency_max": 0 }),
            "concurrency_max",
            "at least 1",
        ),
        (
            "POST",
            "containers/{id}/proxy/hostnames",
            json!({ "hostname": "x", "alias_id": NONE }),
            "hostname",
            "two labels",
        ),
        (
            "PUT PATCH",
            "containers/{id}/proxy/settings",
            json!({ "default": "maybe" }),
            "default",
            "allow",
        ),
        (
            "POST",
            "containers/{id}/proxy/hooks/{service}",
            json!({ "match": { "path": "/" }, "script": { "path": "/x" }, "timeout": 0 }),
            "timeout",
            "1 to 30000",
        ),
        (
            "PUT PATCH",
            "containers/{id}/proxy/hooks/{service}/{hook}",
            json!({ "match": { "path": "/" }, "script": { "path": 7 } }),
            "script.path",
            "must be a path",
        ),
        (
            "PATCH",
            "containers/{id}/proxy/hooks/{service}/{hook}/position",
            json!({ "position": -1 }),
            "position",
            "0 to",
        ),
    ]
}

/// A permission document is written alike for projects and for containers.
fn of_documents() -> Vec<Row> {
    let jwt = json!({ "secret": "s", "algorithm": "none", "sources": ["header:A"] });
    let password = json!({ "username": "u", "password": "p", "algorithm": "md5" });
    vec![
        (
            "PUT PATCH",
            "",
            json!({ "project": "{project}", "groups": {}, "permissions": {}, "default": "maybe" }),
            "default",
            "allow",
        ),
        ("PATCH", "/default", json!({ "default": "maybe" }), "default", "allow"),
        ("PATCH", "/state", json!({ "enable_proxy": 1 }), "enable_proxy", "true or false"),
        ("PUT PATCH", "/groups/{group}/jwt", jwt, "algorithm", "HS256"),
        ("PUT PATCH", "/groups/{group}/password", password, "algorithm", "sha256"),
        ("PUT PATCH", "/groups/{group}/ip", json!({ "range": "x" }), "range", "address range"),
        (
            "PUT PATCH",
            "/groups/{group}/token",
            json!({ "header": "X", "value": "" }),
            "value",
            "1 to",
        ),
        (
            "PUT PATCH",
            "/permissions/{group}",
            json!({ "program": "http", "access": "x" }),
            "access",
            "range",
        ),
    ]
}

/// Every row once for each of its methods, with its whole path.
fn rows() -> Vec<(&'static str, String, Value, &'static str, &'static str)> {
    let plain =
        [accounts::of_accounts(), of_projects(), of_containers(), of_shares(), of_edges()].concat();
    let plain = plain.into_iter().map(|(methods, path, body, field, rule)| {
        (methods, format!("/api/v1/{path}"), body, field, rule)
    });
    let documents = ["projects", "containers"].into_iter().flat_map(|of| {
        of_documents().into_iter().map(move |(methods, path, body, field, rule)| {
            (methods, format!("/api/v1/{of}/{{id}}/proxy/permissions{path}"), body, field, rule)
        })
    });
    plain
        .chain(documents)
        .flat_map(|(methods, path, body, field, rule)| {
            let each = methods.split(' ');
            each.map(move |method| (method, path.clone(), body.clone(), field, rule))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_that_takes_a_body_names_a_wrong_value_and_its_rule() {
    let scene = Scene::set(Limits::default()).await;
    let mut left: BTreeSet<(String, String)> =
        scene.lab.document.bodies().into_iter().map(|(method, path, _)| (method, path)).collect();
    assert!(left.len() > 70, "{left:?}");
    let mut wrong = Vec::new();
    for (method, path, body, field, rule) in rows() {
        // Some have two spellings.
        for path in [format!("{path}/"), path] {
            let listed = left.remove(&(method.to_owned(), path.clone()));
            if path.ends_with('/') && !listed {
                continue;
            }
            let reply = scene.ask(method, &path, &body).await;
            let told = reply.status == 400 && {
                let said = named(&reply);
                said.len() == 1 && said[0].0 == field && said[0].1.contains(rule)
            };
            if !told || !reply.json["message"].as_str().unwrap().contains(rule) {
                wrong.push(format!("{method} {path} {body}: {field} {rule:?}: {}", reply.text));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(left.is_empty(), "there is no row for {left:#?}");
}

/// The smaller brother of the table above: nobody has to think of a value.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_required_field_of_the_wrong_type_is_named() {
    let scene = Scene::set(Limits::default()).await;
    let samples = scene.lab.document.operations();
    let mut tried = 0;
    for (method, path, documented) in scene.lab.document.bodies() {
        let (_, _, sample) =
            samples.iter().find(|(m, p, _)| (m, p) == (&method, &path)).expect("an operation");
        for name in sample.as_object().unwrap().keys() {
            let (_, schema) = documented.iter().find(|(known, _)| known == name).unwrap();
            let mut body = sample.clone();
            // No field is a list of lists or a list of true; the latter is wrong for lists of ids, too.
            let is_list = schema["type"] == "array";
            body[name] = if is_list { json!([true]) } else { json!([[1]]) };
            let reply = scene.ask(&method, &path, &body).await;
            assert_eq!(reply.status, 400, "{method} {path} {name}: {}", reply.text);
            let names = named(&reply).into_iter().any(|(field, _)| field == name);
            assert!(names, "{method} {path} {name}: {}", reply.text);
            tried += 1;
        }
    }
    assert!(tried > 50, "{tried}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_that_take_no_fields_name_one_that_comes_all_the_same() {
    let scene = Scene::set(Limits::default()).await;
    let bare = scene.lab.document.without_fields();
    assert!(bare.len() > 8, "{bare:?}");
    for (method, path) in bare {
        let reply = scene.ask(&method, &path, &json!({ "nonsense": 1 })).await;
        assert_eq!(reply.status, 400, "{method} {path}: {}", reply.text);
        assert_eq!(named(&reply), [("nonsense", "is not a known field")], "{method} {path}");
    }
}

/// As many of everything as there already is, or one.
fn frugal() -> Limits {
    Limits {
        tokens_per_user_max: 1,
        aliases_per_user_max: 1,
        snapshots_per_user_max: 1,
        snapshots_per_container_max: 2,
        members_per_project_max: 0,
        vault_keys_per_user_max: 1,
        vault_octets_per_user_max: 8,
        prespawned_per_user_max: 0,
        ..Limits::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_and_what_is_taken_name_what_to_change() {
    let scene = Scene::set(frugal()).await;
    let Scene { container, project, lab, .. } = &scene;
    let bob = lab.login("bob", crate::lab::PASSWORD).await;
    let bob = lab.send(Ask::new("GET", "/api/v1/users/me").by(&bob)).await;
    let bob = text(&bob.json["data"]["id"]);
    scene.made("PUT", "vault/keys/first", &json!({ "value": "1234" })).await;
    let one = format!("containers/{container}");
    let limited = format!("projects/{project}");
    scene.made("PATCH", &limited, &json!({ "max_containers": 1 })).await;
    let server = lab.server.to_string();
    let alias =
        |name: &str| json!({ "container_id": container, "alias": name, "program": "terminal" });
    let waiting = json!({ "server_id": server, "prespawn": true });
    let hook = json!({ "match": { "path": "/" }, "script": { "path": "/x" } });
    let members = json!({ "user_id": bob, "permission_level": "read" });
    for (method, path, body, status, field, rule) in [
        ("PUT", "vault/keys/second", json!({ "value": "v" }), 422, "key", "at most 1 keys"),
        (
            "PUT",
            "vault/keys/first",
            json!({ "value": "123456789" }),
            422,
            "value",
            "at most 8 octets",
        ),
        ("POST", "auth/tokens", json!({}), 422, "tokens", "at most 1"),
        ("POST", "proxy/aliases", alias("second"), 422, "alias", "limit"),
        ("POST", "projects", json!({ "alias": "home" }), 409, "alias", "already exists"),
        ("POST", &format!("{limited}/permissions"), members, 422, "user_id", "at most 0"),
        ("POST", &format!("{limited}/containers"), waiting, 422, "prespawn", "at most 0"),
        (
            "POST",
            &format!("{limited}/containers"),
            json!({ "server_id": server, "name": "two" }),
            422,
            "max_containers",
            "limit (1)",
        ),
        (
            "POST",
            &format!("{one}/snapshots"),
            json!({ "alias": "two" }),
            422,
            "snapshots",
            "may have 1",
        ),
        ("PATCH", &one, json!({ "hoody_kit": false }), 400, "hoody_kit", "after creation"),
        ("PATCH", &one, json!({ "name": "other" }), 400, "name", "stopped"),
        ("POST", &format!("{one}/proxy/hooks/http"), hook, 428, "If-Match", "etag"),
        (
            "PATCH",
            &format!("{one}/proxy/permissions/default"),
            json!({ "default": "deny" }),
            428,
            "If-Match",
            "etag",
        ),
    ] {
        let ask = Ask::new(method, &format!("/api/v1/{path}")).by(&scene.session).body(&body);
        let reply = lab.send(ask).await;
        assert_eq!(reply.status, status, "{method} {path} {body}: {}", reply.text);
        let said = named(&reply);
        assert_eq!(said.len(), 1, "{method} {path}: {}", reply.text);
        assert_eq!(said[0].0, field, "{method} {path}: {}", reply.text);
        assert!(said[0].1.contains(rule), "{method} {path}: {}", reply.text);
    }
    headers_are_named(&scene, &one).await;
}

async fn headers_are_named(Scene { lab, session, .. }: &Scene, one: &str) {
    let path = format!("/api/v1/{one}/proxy/permissions/default");
    let stale = Ask::new("PATCH", &path).by(session).header("if-match", "file:v7");
    let reply = lab.send(stale.body(&json!({ "default": "deny" }))).await;
    assert_eq!((reply.status.as_u16(), named(&reply)[0].0), (412, "If-Match"), "{}", reply.text);
    let path = format!("/api/v1/{one}/stop");
    let keyed =
        |body: &str| Ask::new("POST", &path).by(session).header("idempotency-key", "k").text(body);
    assert_eq!(lab.send(keyed("")).await.status, 200);
    let reply = lab.send(keyed("{}")).await;
    let said = (reply.status.as_u16(), named(&reply)[0].0);
    assert_eq!(said, (422, "Idempotency-Key"), "{}", reply.text);
}
