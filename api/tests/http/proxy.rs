//! Permission documents, hooks and settings.

use std::future::Future;

use serde_json::{Value, json};

use crate::lab::{Ask, Lab, Reply};

/// Alice, her project, and a container of hers.
pub(crate) struct Scene {
    pub(crate) lab: Lab,
    pub(crate) token: String,
    pub(crate) project: String,
    pub(crate) container: String,
}

impl Scene {
    pub(crate) async fn set() -> Self {
        let lab = Lab::start().await;
        let (token, project) = lab.alice().await;
        let container = lab.container(&token, &project, "web").await;
        Self { lab, token, project, container }
    }

    pub(crate) async fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Reply {
        let mut ask = Ask::new(method, &self.path(path)).by(&self.token);
        if let Some(body) = body {
            ask = ask.body(body);
        }
        self.lab.send(ask).await
    }

    pub(crate) fn path(&self, path: &str) -> String {
        let path = path.replace("{C}", &format!("/api/v1/containers/{}/proxy", self.container));
        path.replace("{P}", &format!("/api/v1/projects/{}/proxy", self.project))
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let reply = self.send("GET", path, None).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text);
        reply.json["data"].clone()
    }

    /// A write on a version of a document.
    pub(crate) async fn write(
        &self,
        method: &str,
        path: &str,
        version: u64,
        body: &Value,
    ) -> Reply {
        let ask = Ask::new(method, &self.path(path)).by(&self.token);
        let ask = ask.header("if-match", &format!("file:v{version}"));
        self.lab.send(if body.is_null() { ask } else { ask.body(body) }).await
    }

    /// A write that must be made; returns what is answered.
    pub(crate) async fn done(&self, method: &str, path: &str, version: u64, body: &Value) -> Value {
        let reply = self.write(method, path, version, body).await;
        assert!(reply.status.is_success(), "{method} {path}: {}", reply.text);
        assert_eq!(reply.json["data"]["file_version"], version + 1, "{method} {path}");
        assert_eq!(reply.json["data"]["etag"], format!("file:v{}", version + 1));
        let propagation = &reply.json["data"]["propagation"];
        assert_eq!(
            (&propagation["committed"], &propagation["state"]),
            (&json!(true), &json!("applied")),
            "{method} {path}"
        );
        reply.json["data"].clone()
    }

    pub(crate) async fn alias(&self, change: Value) -> Reply {
        let mut body = json!({ "container_id": self.container, "program": "terminal" });
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        self.send("POST", "/api/v1/proxy/aliases", Some(&body)).await
    }

    pub(crate) async fn made_alias(&self, change: Value) -> Value {
        let reply = self.alias(change).await;
        assert_eq!(reply.status, 201, "{}", reply.text);
        reply.json["data"].clone()
    }
}

pub(crate) fn code(reply: &Reply) -> (u16, &str) {
    (reply.status.as_u16(), reply.json["code"].as_str().unwrap_or_default())
}

/// Runs the same request in several tasks at once; their statuses, sorted.
pub(crate) async fn at_once<F: Future<Output = Reply>>(ask: impl Fn(usize) -> F) -> Vec<u16> {
    let replies = futures_util::future::join_all((0..8).map(ask)).await;
    let mut statuses: Vec<u16> = replies.iter().map(|reply| reply.status.as_u16()).collect();
    statuses.sort_unstable();
    statuses
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_needs_its_version() {
    let scene = Scene::set().await;
    let body = json!({ "default": "deny" });
    for place in ["{C}", "{P}"] {
        let path = format!("{place}/permissions/default");
        let missing = scene.send("PATCH", &path, Some(&body)).await;
        assert_eq!(code(&missing), (428, "PRECONDITION_REQUIRED"));
        assert_eq!(missing.json["error"], "Precondition Required");
        assert!(missing.json["message"].as_str().unwrap().contains("If-Match"));
        for etag in ["file:v9", "v0", "file:v", "file:v-1", "file:v+0", "*", "\"v0\""] {
            let ask = Ask::new("PATCH", &scene.path(&path)).by(&scene.token).body(&body);
            let stale = scene.lab.send(ask.header("if-match", etag)).await;
            assert_eq!(code(&stale), (412, "ETAG_MISMATCH"), "{etag}");
            assert_eq!(stale.json["message"], "etag_mismatch", "{etag}");
        }
        let statuses = at_once(|_| scene.write("PATCH", &path, 0, &body)).await;
        assert_eq!(statuses, [200, 412, 412, 412, 412, 412, 412, 412], "{place}");
        let quoted = Ask::new("PATCH", &scene.path(&path)).by(&scene.token).body(&body);
        assert_eq!(scene.lab.send(quoted.header("if-match", "\"file:v1\"")).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_grows_by_small_writes_and_shrinks_again() {
    let scene = Scene::set().await;
    let at = |path: &str| format!("{{C}}/permissions{path}");
    let empty = scene.get(&at("")).await;
    assert_eq!(
        empty,
        json!({ "project": scene.project, "container": scene.container, "groups": {},
            "permissions": {}, "default": "allow", "enable_proxy": true, "hooks": {},
            "schema_version": 1, "file_version": 0, "etag": "file:v0" })
    );
    let password = json!({ "username": "admin", "password": "s3cret", "salt": "abc" });
    let first = scene.done("PATCH", &at("/groups/web/password"), 0, &password).await;
    assert_eq!(first["default"], "allow", "a small write keeps an open container open");
    let stored = &first["groups"]["web"]["password"];
    assert_eq!(stored.as_str().unwrap().len(), 64, "hashed: {stored}");
    let token = json!({ "header": "X-T", "value": "v" });
    scene.done("PUT", &at("/groups/tk/token"), 1, &token).await;
    let jwt = json!({ "secret": "s", "algorithm": "HS256", "sources": ["header:Authorization"],
        "claims": { "role": "admin" } });
    scene.done("PATCH", &at("/groups/jw/jwt"), 2, &jwt).await;
    scene.done("PATCH", &at("/groups/lan/ip"), 3, &json!({ "range": "10.0.0.0/8" })).await;
    let cell = json!({ "program": "terminal", "access": true });
    scene.done("PATCH", &at("/permissions/web"), 4, &cell).await;
    let ports = json!({ "program": "http", "access": [3000, 3001] });
    let full = scene.done("PUT", &at("/permissions/web"), 5, &ports).await;
    assert_eq!(full["permissions"], json!({ "web": { "http": [3000, 3001], "terminal": true } }));
    let unknown = scene.write("PATCH", &at("/permissions/nobody"), 6, &cell).await;
    assert_eq!(code(&unknown), (404, "RESOURCE_NOT_FOUND"));

    let deny = json!({ "default": "deny" });
    assert_eq!(scene.done("PATCH", &at("/default"), 6, &deny).await["default"], "deny");
    let off = json!({ "enable_proxy": false });
    assert_eq!(scene.done("PATCH", &at("/state"), 7, &off).await["enable_proxy"], false);
    let none = Value::Null;
    let less = scene.done("DELETE", &at("/permissions/web/terminal"), 8, &none).await;
    assert_eq!(less["permissions"], json!({ "web": { "http": [3000, 3001] } }));
    for path in ["/permissions/web/files", "/permissions/tk", "/groups/nobody"] {
        assert_eq!(scene.write("DELETE", &at(path), 9, &none).await.status, 404, "{path}");
    }
    scene.done("DELETE", &at("/permissions/web"), 9, &none).await;
    let less = scene.done("DELETE", &at("/groups/web"), 10, &none).await;
    assert_eq!(less["groups"].as_object().unwrap().len(), 3);
    let gone = scene.done("DELETE", &at(""), 11, &none).await;
    assert_eq!((&gone["groups"], &gone["default"]), (&json!({}), &json!("allow")));
    assert_eq!(gone["propagation"]["action"], "delete");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_document_is_replaced_and_says_what_it_belongs_to() {
    let scene = Scene::set().await;
    let document = |change: Value| {
        let mut document = json!({ "project": scene.project,
            "groups": { "web": [{ "type": "ip", "range": "127.0.0.0/8" },
                                { "type": "token", "cookie": "t", "value": "v" }] },
            "permissions": { "web": { "terminal": true } } });
        document.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        document
    };
    let full = scene.done("PUT", "{C}/permissions", 0, &document(json!({}))).await;
    assert_eq!((&full["default"], &full["enable_proxy"]), (&json!("deny"), &json!(true)));
    // What was read may be sent back, and the command line's texts are read.
    let read = scene.get("{C}/permissions").await;
    let same = scene.done("PUT", "{C}/permissions", 1, &read).await;
    assert_eq!(same["groups"], full["groups"]);
    let texts = json!({ "project": scene.project, "default": "deny",
        "groups": { "web": "{\"type\":\"ip\",\"range\":\"127.0.0.0/8\"}" },
        "permissions": { "web": "{\"terminal\":true}" } });
    let read = scene.done("PATCH", "{C}/permissions", 2, &texts).await;
    assert_eq!(read["groups"]["web"]["range"], "127.0.0.0/8");

    for (path, change, field) in [
        ("{C}/permissions", json!({ "project": "abcdef0123456789abcdef01" }), "project"),
        ("{C}/permissions", json!({ "container": "abcdef0123456789abcdef01" }), "container"),
        ("{C}/permissions", json!({ "default": "maybe" }), "default"),
        ("{C}/permissions", json!({ "permissions": { "stranger": {} } }), "permissions.stranger"),
        ("{C}/permissions", json!({ "groups": { "a b": {} } }), "groups.a b"),
        ("{P}/permissions", json!({ "container": scene.container }), "container"),
    ] {
        let version = if path.starts_with("{C}") { 3 } else { 0 };
        let reply = scene.write("PUT", path, version, &document(change.clone())).await;
        assert_eq!(code(&reply), (400, "VALIDATION_ERROR"), "{change}: {}", reply.text);
        let named = reply.json["data"].as_array().unwrap();
        assert!(named.iter().any(|error| error["field"] == field), "{change}: {}", reply.text);
    }
    let hooks = document(json!({ "hooks": {} }));
    let refused = scene.write("PUT", "{P}/permissions", 0, &hooks).await;
    assert_eq!(
        (refused.status.as_u16(), &refused.json["error"]),
        (422, &json!("Validation Error"))
    );
    let of_project = scene.done("PUT", "{P}/permissions", 0, &document(json!({}))).await;
    assert_eq!((of_project.get("container"), of_project.get("hooks")), (None, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_groups_are_refused_with_their_codes() {
    let scene = Scene::set().await;
    for (way, body, want) in [
        ("ip", json!({ "range": "10.0.0.0" }), "INVALID_IP_RANGE"),
        ("ip", json!({ "range": 5 }), "INVALID_IP_RANGE"),
        (
            "jwt",
            json!({ "secret": "s", "algorithm": "none", "sources": ["cookie:c"] }),
            "INVALID_JWT_CONFIG",
        ),
        (
            "jwt",
            json!({ "secret": "s", "algorithm": "HS256", "sources": [] }),
            "INVALID_JWT_CONFIG",
        ),
        ("token", json!({ "value": "v" }), "VALIDATION_ERROR"),
        ("token", json!({ "value": "v", "header": "A", "cookie": "b" }), "VALIDATION_ERROR"),
        ("password", json!({ "username": "" , "password": "p" }), "VALIDATION_ERROR"),
    ] {
        let path = format!("{{C}}/permissions/groups/g/{way}");
        let reply = scene.write("PUT", &path, 0, &body).await;
        assert_eq!(code(&reply), (400, want), "{way} {body}: {}", reply.text);
    }
    let path = format!("{{C}}/permissions/groups/{}/ip", "g".repeat(65));
    let reply = scene.write("PUT", &path, 0, &json!({ "range": "10.0.0.0/8" })).await;
    assert_eq!(code(&reply), (400, "VALIDATION_ERROR"), "{}", reply.text);
    assert_eq!(scene.get("{C}/permissions").await["file_version"], 0, "nothing was written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_write_opens_nothing_that_the_project_closed() {
    let scene = Scene::set().await;
    let off = json!({ "enable_proxy": false });
    scene.done("PATCH", "{P}/permissions/state", 0, &off).await;
    let deny = json!({ "default": "deny" });
    scene.done("PATCH", "{P}/permissions/default", 1, &deny).await;
    let lan = json!({ "range": "10.0.0.0/8" });
    let own = scene.done("PATCH", "{C}/permissions/groups/lan/ip", 0, &lan).await;
    assert_eq!((&own["default"], &own["enable_proxy"]), (&json!("deny"), &json!(false)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_tells_which_documents_it_has() {
    let scene = Scene::set().await;
    let one = format!("/api/v1/containers/{}", scene.container);
    let scope = async || {
        let shown = scene.get(&one).await;
        let listed = scene.get("/api/v1/containers/").await["containers"][0].clone();
        for field in ["has_proxy_permissions", "proxy_permissions_scope"] {
            assert_eq!(shown[field], listed[field]);
        }
        assert_eq!(shown["has_proxy_permissions"], shown["proxy_permissions_scope"] != "none");
        shown["proxy_permissions_scope"].as_str().unwrap().to_owned()
    };
    assert_eq!(scope().await, "none");
    let deny = json!({ "default": "deny" });
    scene.done("PATCH", "{P}/permissions/default", 0, &deny).await;
    assert_eq!(scope().await, "project");
    scene.done("PATCH", "{C}/permissions/default", 0, &deny).await;
    assert_eq!(scope().await, "both");
    scene.done("DELETE", "{P}/permissions", 1, &Value::Null).await;
    assert_eq!(scope().await, "container");
    let shown = scene.get(&format!("{one}?include_proxy_permissions=true")).await;
    assert_eq!(shown["proxy_permissions"]["default"], "deny");
    assert_eq!(shown["project_proxy_permissions"]["file_version"], 2);
    // A token needs the right to see them.
    let body = json!({ "permissions": { "containers": { "read": true } }, "allow_no_realm": true });
    let made = scene.send("POST", "/api/v1/auth/tokens", Some(&body)).await;
    let token = made.json["data"]["token"].as_str().unwrap().to_owned();
    for (path, want) in [
        (one.clone(), 200),
        (format!("{one}?include_proxy_permissions=true"), 403),
        (scene.path("{C}/permissions"), 403),
        ("/api/v1/proxy/aliases".to_owned(), 403),
    ] {
        let reply = scene.lab.send(Ask::new("GET", &path).by(&token)).await;
        assert_eq!(reply.status, want, "{path}: {}", reply.text);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_and_discovery_show_no_credentials() {
    let scene = Scene::set().await;
    let settings = scene.get("{C}/settings").await;
    let want =
        json!({ "enable_proxy": true, "default": "allow", "file_version": 0, "etag": "file:v0" });
    assert_eq!(settings, want);
    let set = scene.done("PUT", "{C}/settings", 0, &json!({ "default": "deny" })).await;
    assert_eq!((&set["default"], &set["enable_proxy"]), (&json!("deny"), &json!(true)));
    let nothing = scene.write("PATCH", "{C}/settings", 1, &json!({})).await;
    assert_eq!(code(&nothing), (400, "VALIDATION_ERROR"));
    let token = json!({ "header": "X-T", "value": "very-secret" });
    scene.done("PUT", "{C}/permissions/groups/tk/token", 1, &token).await;
    let cell = json!({ "program": "terminal", "access": "1-3" });
    scene.done("PUT", "{C}/permissions/permissions/tk", 2, &cell).await;
    let groups = scene.get("{C}/groups").await;
    assert_eq!(groups["groups"], json!([{ "name": "tk", "auth_rule_count": 1 }]));
    let services = scene.get("{C}/services").await;
    assert_eq!(
        (&services["services"], &services["etag"]),
        (&json!(["terminal"]), &json!("file:v3"))
    );
    let service = scene.get("{C}/services/terminal").await;
    assert_eq!(
        service,
        json!({ "service": "terminal", "is_reject_listed": false, "hooks": [],
            "permissions_raw": { "tk": "1-3" }, "effective_default": "deny",
            "file_version": 3, "etag": "file:v3" })
    );
    assert_eq!(scene.get("{C}/services/logs").await["is_reject_listed"], true);
    assert_eq!(scene.send("GET", "{C}/services/nonsense", None).await.status, 400);
    for data in [&groups, &services, &service] {
        assert!(!data.to_string().contains("very-secret"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hooks_have_an_order_and_share_the_version() {
    let scene = Scene::set().await;
    let hook = |path: &str| json!({ "match": { "path": path }, "script": { "path": "/check" } });
    let all = "{C}/hooks/http";
    let first = scene.done("POST", all, 0, &hook("/a")).await;
    assert_eq!((&first["hook"]["position"], &first["hook"]["timeout"]), (&json!(0), &json!(500)));
    scene.done("POST", all, 1, &hook("/b")).await;
    let mut front = hook("/c");
    front["position"] = json!(0);
    let third = scene.done("POST", all, 2, &front).await;
    scene.done("POST", "{C}/hooks/terminal", 3, &hook("*")).await;
    let order = async || {
        let listed = scene.get(all).await;
        let hooks = listed["hooks"].as_array().unwrap();
        for (position, hook) in hooks.iter().enumerate() {
            assert_eq!(hook["position"], position);
        }
        hooks.iter().map(|hook| hook["match"]["path"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(order().await, ["/c", "/a", "/b"]);
    let one = format!("{all}/{}", third["hook"]["id"].as_str().unwrap());
    assert_eq!(scene.get(&one).await["hook"], third["hook"]);
    scene.done("PATCH", &format!("{one}/position"), 4, &json!({ "position": 9 })).await;
    assert_eq!(order().await, ["/a", "/b", "/c"]);
    let changed = scene.done("PUT", &one, 5, &hook("/d")).await;
    assert_eq!(
        (&changed["hook"]["id"], &changed["hook"]["position"]),
        (&third["hook"]["id"], &json!(2))
    );
    assert_eq!(scene.get("{C}/hooks").await["hooks"].as_object().unwrap().len(), 2);
    assert_eq!(scene.get("{C}/permissions").await["hooks"]["terminal"][0]["match"]["path"], "*");
    assert_eq!(scene.get("{C}/services").await["services"], json!(["http", "terminal"]));

    scene.done("DELETE", &one, 6, &Value::Null).await;
    assert_eq!(scene.send("GET", &one, None).await.status, 404);
    let removed = scene.done("DELETE", all, 7, &Value::Null).await;
    assert_eq!(removed["removed"], 2);
    for (path, want) in [
        ("{C}/hooks/logs", 404),
        ("{C}/hooks/egress", 404),
        ("{C}/hooks/nonsense", 400),
        ("{C}/hooks/http/abcdef0123456789abcdef01", 404),
        ("{C}/hooks/http/NONSENSE", 400),
    ] {
        assert_eq!(scene.send("GET", path, None).await.status, want, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hooks_are_bounded_and_name_groups_that_exist() {
    let scene = Scene::set().await;
    let hook = json!({ "match": {}, "script": { "path": "/check" } });
    let mut version = 0;
    for service in ["http", "https", "terminal", "files"] {
        for _ in 0..8 {
            scene.done("POST", &format!("{{C}}/hooks/{service}"), version, &hook).await;
            version += 1;
        }
    }
    for service in ["http", "display"] {
        let full = scene.write("POST", &format!("{{C}}/hooks/{service}"), version, &hook).await;
        assert_eq!(code(&full), (422, "HOOK_LIMIT_REACHED"), "{service}");
    }
    scene.done("DELETE", "{C}/hooks/http", version, &Value::Null).await;
    let mut of_staff = hook.clone();
    of_staff["applies_to"] = json!({ "groups": ["staff"] });
    let stranger = scene.write("POST", "{C}/hooks/http", version + 1, &of_staff).await;
    assert_eq!(code(&stranger), (400, "VALIDATION_ERROR"), "{}", stranger.text);
    // A group of the project is one, too.
    let lan = json!({ "range": "10.0.0.0/8" });
    scene.done("PUT", "{P}/permissions/groups/staff/ip", 0, &lan).await;
    scene.done("POST", "{C}/hooks/http", version + 1, &of_staff).await;
    for (wrong, field) in [
        (json!({ "match": { "path": "no-slash" }, "script": { "path": "/x" } }), "match.path"),
        (json!({ "match": {}, "script": { "path": "../x" } }), "script.path"),
        (json!({ "match": {}, "script": { "path": "/x" }, "timeout": 0 }), "timeout"),
        (json!({ "match": {} }), "script"),
    ] {
        let reply = scene.write("POST", "{C}/hooks/http", version + 2, &wrong).await;
        assert_eq!(code(&reply), (400, "VALIDATION_ERROR"), "{wrong}: {}", reply.text);
        assert_eq!(reply.json["data"][0]["field"], field, "{wrong}");
    }
}
