//! Wrong requests: each is refused with an error that says what is wrong, and leaves nothing behind.

use gantry_runtime::fake::Call;
use serde_json::{Value, json};

use crate::lab::{Ask, Lab, Reply};

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGx0123456789012345678901234567890123456789A";

/// Alice, her project, and the body of a good creation to spoil.
struct Scene {
    lab: Lab,
    token: String,
    project: String,
}

impl Scene {
    async fn set() -> Self {
        let lab = Lab::start().await;
        let (token, project) = lab.alice().await;
        Self { lab, token, project }
    }

    async fn create(&self, change: Value) -> Reply {
        let mut body = json!({ "server_id": self.lab.server.to_string() });
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let path = format!("/api/v1/projects/{}/containers", self.project);
        self.lab.send(Ask::new("POST", &path).by(&self.token).body(&body)).await
    }

    async fn ask(&self, method: &str, path: &str, body: &Value) -> Reply {
        self.lab.send(Ask::new(method, path).by(&self.token).body(body)).await
    }

    async fn look(&self, path: &str) -> Reply {
        self.lab.send(Ask::new("GET", path).by(&self.token)).await
    }

    /// No container exists, not even for the runtime.
    async fn assert_nothing_was_made(&self) {
        let reply = self.look("/api/v1/containers/?include_deleting=true").await;
        assert_eq!(reply.json["data"]["pagination"]["total"], 0, "{}", reply.text);
        assert_eq!(self.lab.world.calls(Call::Create), 0);
    }
}

/// The fields that an answer complains about, in its order.
fn fields(reply: &Reply) -> Vec<&str> {
    let listed = reply.json["data"].as_array().unwrap_or_else(|| panic!("{}", reply.text));
    for error in listed {
        assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{}", reply.text);
    }
    listed.iter().map(|error| error["field"].as_str().unwrap()).collect()
}

/// Creates that differ in one wrong value each: the answer names the field and the rule, and nothing
/// is made.
async fn refused(rows: impl IntoIterator<Item = (Value, &str, &str)>) {
    let scene = Scene::set().await;
    for (change, field, rule) in rows {
        let reply = scene.create(change.clone()).await;
        let start: String = change.to_string().chars().take(80).collect();
        assert_eq!(reply.status, 400, "{start}: {}", reply.text);
        assert_eq!(fields(&reply), [field], "{start}: {}", reply.text);
        let message = reply.json["data"][0]["message"].as_str().unwrap();
        assert!(message.contains(rule), "{start}: {message}");
        assert!(reply.json["message"].as_str().unwrap().contains(field), "{start}");
        assert_eq!(reply.json["code"], "VALIDATION_ERROR", "{start}");
    }
    scene.assert_nothing_was_made().await;
}

#[tokio::test]
async fn a_name_is_three_to_a_hundred_letters_digits_hyphens_or_underscores() {
    let long = "n".repeat(101);
    refused([
        (json!({"name": "ab"}), "name", "3 to 100"),
        (json!({"name": long}), "name", "3 to 100"),
        (json!({"name": ""}), "name", "3 to 100"),
        (json!({"name": "no spaces"}), "name", "3 to 100"),
        (json!({"name": "ümlaut"}), "name", "3 to 100"),
        (json!({"name": 5}), "name", "must be a string"),
        (json!({"name": null}), "name", "must be a string"),
    ])
    .await;
}

#[tokio::test]
async fn a_colour_is_hexadecimal() {
    refused([
        (json!({"color": "#12345"}), "color", "hexadecimal colour"),
        (json!({"color": "red"}), "color", "hexadecimal colour"),
        (json!({"color": []}), "color", "must be a string"),
    ])
    .await;
}

#[tokio::test]
async fn an_image_is_named_by_system_and_release() {
    refused([
        (json!({"container_image": "ubuntu:22.04"}), "container_image", "\"ubuntu/22.04\""),
        (json!({"container_image": "ubuntu-22.04"}), "container_image", "\"ubuntu/22.04\""),
        (json!({"container_image": "Debian/13"}), "container_image", "<os>/<release>"),
        (json!({"container_image": "../../etc"}), "container_image", "<os>/<release>"),
        (json!({"container_image": true}), "container_image", "must be a string, or null"),
    ])
    .await;
}

#[tokio::test]
async fn a_key_is_one_openssh_line_of_a_type_that_is_safe() {
    refused([
        (json!({"ssh_public_key": "ssh-dss AAAA"}), "ssh_public_key", "use ed25519"),
        (json!({"ssh_public_key": ""}), "ssh_public_key", "must not be empty"),
        (json!({"ssh_public_key": {"k": 1}}), "ssh_public_key", "must be a string, or null"),
    ])
    .await;
}

#[tokio::test]
async fn a_comment_is_bounded() {
    refused([(json!({"comment": "c".repeat(16_001)}), "comment", "16000")]).await;
}

#[tokio::test]
async fn a_switch_is_true_or_false() {
    refused([
        (json!({"ai": "true"}), "ai", "true or false"),
        (json!({"hoody_kit": 1}), "hoody_kit", "true or false"),
        (json!({"autostart": null}), "autostart", "true or false"),
        (json!({"hoody_kit": false, "dev_kit": true}), "dev_kit", "hoody_kit"),
    ])
    .await;
}

#[tokio::test]
async fn variables_of_the_environment_have_valid_names_and_values() {
    let many: serde_json::Map<String, Value> =
        (0..257).map(|n| (format!("V{n}"), json!("v"))).collect();
    refused([
        (json!({"environment_vars": []}), "environment_vars", "object"),
        (json!({"environment_vars": {"A": 1}}), "environment_vars.A", "must be a string"),
        (json!({"environment_vars": {"1A": "x"}}), "environment_vars.1A", "not start with a digit"),
        (json!({"environment_vars": {"HOODY_X": "x"}}), "environment_vars.HOODY_X", "reserved"),
        (json!({"environment_vars": {"A": ""}}), "environment_vars.A", "1 to 4096"),
        (json!({"environment_vars": {"A": "x".repeat(4097)}}), "environment_vars.A", "1 to 4096"),
        (json!({"environment_vars": many}), "environment_vars", "256"),
    ])
    .await;
}

#[tokio::test]
async fn ids_in_bodies_are_24_lower_case_hexadecimal_digits() {
    refused([
        (json!({"realm_ids": "64a2c4e9f3d5e2b6a8c7d8e1"}), "realm_ids", "array of ids"),
        (json!({"realm_ids": ["64A2C4E9F3D5E2B6A8C7D8E1"]}), "realm_ids[0]", "lower-case"),
        (json!({"realm_ids": [5]}), "realm_ids", "array of ids"),
        (json!({"server_id": "0707070707070707070707"}), "server_id", "24 lower-case"),
        (json!({"server_id": "ABCDEF0123456789ABCDEF01"}), "server_id", "24 lower-case"),
        (json!({"server_id": null}), "server_id", "24 lower-case"),
    ])
    .await;
}

#[tokio::test]
async fn an_unknown_field_or_choice_is_refused() {
    refused([
        (json!({"kvm": true, "dev_kvm": false}), "dev_kvm", "the same as kvm"),
        (json!({"ramdisk_scope": "project"}), "ramdisk_scope", "for a new container"),
        (json!({"ramdisk_scope": "host"}), "ramdisk_scope", "one of container, project"),
        (json!({"colour": "#fff"}), "colour", "not a known field"),
    ])
    .await;
}

#[tokio::test]
async fn all_wrong_values_are_named_at_once() {
    let scene = Scene::set().await;
    let path = format!("/api/v1/projects/{}/containers", scene.project);
    let body = json!({ "name": "x", "color": 7, "ai": "yes", "nonsense": 1,
                       "environment_vars": { "HOODY_A": "a", "B": 2 } });
    let reply = scene.ask("POST", &path, &body).await;
    assert_eq!(reply.status, 400, "{}", reply.text);
    let mut named = fields(&reply);
    named.sort_unstable();
    assert_eq!(named, ["ai", "color", "environment_vars.B", "name", "nonsense", "server_id"]);
    scene.assert_nothing_was_made().await;
}

#[tokio::test]
async fn ids_in_paths_are_24_lower_case_hexadecimal_digits() {
    let scene = Scene::set().await;
    for path in [
        "/api/v1/containers/ABCDEF0123456789ABCDEF01",
        "/api/v1/containers/abcdef0123456789abcdef0",
        "/api/v1/containers/abcdef0123456789abcdef012",
        "/api/v1/containers/abcdef0123456789abcdefgg",
        "/api/v1/containers/%2e%2e",
        "/api/v1/containers/ABCDEF0123456789ABCDEF01/stats",
        "/api/v1/containers/ABCDEF0123456789ABCDEF01/status-logs",
        "/api/v1/projects/ABCDEF0123456789ABCDEF01",
        "/api/v1/projects/ABCDEF0123456789ABCDEF01/containers",
        "/api/v1/servers/ABCDEF0123456789ABCDEF01",
        "/api/v1/auth/tokens/ABCDEF0123456789ABCDEF01",
        "/api/v1/images/public/ABCDEF0123456789ABCDEF01",
    ] {
        let reply = scene.look(path).await;
        assert_eq!(reply.status, 400, "{path}: {}", reply.text);
        assert_eq!(fields(&reply), ["id"], "{path}");
        assert_eq!(reply.json["code"], "INVALID_ID_FORMAT", "{path}");
    }
    let stop = "/api/v1/containers/ABCDEF0123456789ABCDEF01/stop";
    assert_eq!(scene.ask("POST", stop, &json!({})).await.status, 400);
}

#[tokio::test]
async fn well_formed_ids_of_nothing_are_not_found() {
    let scene = Scene::set().await;
    let none = "abcdef0123456789abcdef01";
    for (method, path, code) in [
        ("GET", format!("/api/v1/containers/{none}"), "CONTAINER_NOT_FOUND"),
        ("DELETE", format!("/api/v1/containers/{none}"), "CONTAINER_NOT_FOUND"),
        ("PATCH", format!("/api/v1/containers/{none}"), "CONTAINER_NOT_FOUND"),
        ("POST", format!("/api/v1/containers/{none}/start"), "CONTAINER_NOT_FOUND"),
        ("GET", format!("/api/v1/containers/{none}/stats"), "CONTAINER_NOT_FOUND"),
        ("GET", format!("/api/v1/containers/{none}/status-logs"), "CONTAINER_NOT_FOUND"),
        ("GET", format!("/api/v1/projects/{none}"), "PROJECT_NOT_FOUND"),
        ("GET", format!("/api/v1/projects/{none}/containers"), "PROJECT_NOT_FOUND"),
        ("DELETE", format!("/api/v1/projects/{none}"), "PROJECT_NOT_FOUND"),
        ("GET", format!("/api/v1/servers/{none}"), "RESOURCE_NOT_FOUND"),
        ("GET", format!("/api/v1/images/public/{none}"), "RESOURCE_NOT_FOUND"),
        ("DELETE", format!("/api/v1/auth/tokens/{none}"), "RESOURCE_NOT_FOUND"),
    ] {
        let reply = scene.lab.send(Ask::new(method, &path).by(&scene.token)).await;
        assert_eq!(reply.status, 404, "{method} {path}: {}", reply.text);
        assert_eq!(reply.json["code"], code, "{method} {path}");
    }
    let reply = scene.create(json!({ "server_id": none })).await;
    assert_eq!(reply.status, 404, "{}", reply.text);
    scene.assert_nothing_was_made().await;
}

#[tokio::test]
async fn a_body_that_is_no_json_object_is_refused() {
    let scene = Scene::set().await;
    let path = format!("/api/v1/projects/{}/containers", scene.project);
    let deep = "[".repeat(200_000);
    let deep_object = "{\"a\":".repeat(100_000);
    for body in
        ["{", "{\"name\":}", "nonsense", "[]", "\"text\"", "null", "17", &deep, &deep_object]
    {
        let reply = scene.lab.send(Ask::new("POST", &path).by(&scene.token).text(body)).await;
        let start: String = body.chars().take(20).collect();
        assert_eq!(reply.status, 400, "{start}: {}", reply.text);
        assert_eq!(reply.json["code"], "INVALID_JSON", "{start}");
    }
    scene.assert_nothing_was_made().await;
}

#[tokio::test]
async fn a_body_of_another_type_is_refused() {
    let scene = Scene::set().await;
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
        let ask = Ask::new("POST", "/api/v1/projects/").by(&scene.token).text("alias=x");
        let reply = scene.lab.send(ask.header("content-type", content_type)).await;
        assert_eq!(reply.status, 415, "{content_type}: {}", reply.text);
        assert_eq!(reply.json["code"], "UNSUPPORTED_MEDIA_TYPE");
    }
}

#[tokio::test]
async fn a_body_over_one_mebibyte_is_refused() {
    let scene = Scene::set().await;
    let body = json!({ "alias": "x".repeat(1024 * 1024) });
    let reply = scene.ask("POST", "/api/v1/projects/", &body).await;
    assert_eq!(reply.status, 413, "{}", reply.text);
    assert_eq!(reply.json["code"], "PAYLOAD_TOO_LARGE");
    let packed = Ask::new("POST", "/api/v1/projects/")
        .by(&scene.token)
        .body(&json!({ "alias": "x" }))
        .header("content-encoding", "gzip");
    assert_eq!(scene.lab.send(packed).await.status, 415, "a packed body has no bound");
    let announced = Ask::new("POST", "/api/v1/projects/")
        .by(&scene.token)
        .text("{}")
        .header("content-length", "1048577");
    assert_eq!(scene.lab.send(announced).await.status, 413);
}

#[tokio::test]
async fn an_empty_body_names_what_is_missing() {
    let scene = Scene::set().await;
    for (path, field) in [
        (format!("/api/v1/projects/{}/containers", scene.project), "server_id"),
        ("/api/v1/projects/".to_owned(), "alias"),
    ] {
        let reply = scene.lab.send(Ask::new("POST", &path).by(&scene.token)).await;
        assert_eq!(reply.status, 400, "{path}: {}", reply.text);
        assert_eq!(fields(&reply), [field], "{path}");
    }
    let reply = scene.lab.send(Ask::new("POST", "/api/v1/users/auth/login")).await;
    assert_eq!(reply.status, 400, "{}", reply.text);
    assert_eq!(fields(&reply), ["password", "username"]);
}

#[tokio::test]
async fn lists_refuse_pages_and_orders_that_they_do_not_have() {
    let scene = Scene::set().await;
    for (query, status, field) in [
        ("page=0", 400, "page"),
        ("page=x", 400, "page"),
        ("page=", 400, "page"),
        ("page=18446744073709551616", 400, "page"),
        ("limit=0", 400, "limit"),
        ("limit=101", 400, "limit"),
        ("limit=1.5", 400, "limit"),
        ("limit=1&limit=2", 400, "limit"),
        ("sort_by=size", 422, "sort_by"),
        ("sort_order=up", 422, "sort_order"),
        ("realm_id=XYZ", 400, "realm_id"),
    ] {
        for list in ["/api/v1/projects/", "/api/v1/containers/", "/api/v1/containers"] {
            let reply = scene.look(&format!("{list}?{query}")).await;
            assert_eq!(reply.status, status, "{list} {query}: {}", reply.text);
            assert_eq!(fields(&reply), [field], "{list} {query}");
        }
    }
    for query in ["runtime=yes", "runtime=%7B%22displays%22:1%7D", "include_deleting=1"] {
        let reply = scene.look(&format!("/api/v1/containers/?{query}")).await;
        assert_eq!(reply.status, 400, "{query}: {}", reply.text);
    }
    let far = scene.look("/api/v1/projects/?page=1000000&limit=100").await;
    assert_eq!((far.status.as_u16(), &far.json["data"]["projects"]), (200, &json!([])));
}

#[tokio::test]
async fn a_name_or_key_that_is_taken_is_a_conflict_and_frees_nothing() {
    let scene = Scene::set().await;
    let first = scene.create(json!({ "name": "web", "ssh_public_key": KEY })).await;
    assert_eq!(first.status, 201, "{}", first.text);
    for (change, field, code) in [
        (json!({ "name": "web" }), "name", "CONTAINER_NAME_IN_USE"),
        (json!({ "name": "other", "ssh_public_key": KEY }), "ssh_public_key", "SSH_KEY_IN_USE"),
        // The same key in another spelling.
        (
            json!({ "name": "other", "ssh_public_key": format!("  {KEY} me@home ") }),
            "ssh_public_key",
            "SSH_KEY_IN_USE",
        ),
    ] {
        let reply = scene.create(change.clone()).await;
        assert_eq!(reply.status, 409, "{change}: {}", reply.text);
        assert_eq!(reply.json["code"], code, "{change}");
        assert_eq!(fields(&reply), [field], "{change}");
    }
    let second = scene.create(json!({ "name": "other" })).await;
    assert_eq!(second.status, 201, "the refused creation kept the name: {}", second.text);
    let reply = scene.ask("POST", "/api/v1/projects/", &json!({ "alias": "home" })).await;
    assert_eq!((reply.status.as_u16(), &reply.json["code"]), (409, &json!("DUPLICATE_ALIAS")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_update_a_taken_name_is_a_bad_request() {
    let scene = Scene::set().await;
    scene.lab.container(&scene.token, &scene.project, "web").await;
    let other = scene.lab.container(&scene.token, &scene.project, "other").await;
    let one = format!("/api/v1/containers/{other}");
    let stop = scene.ask("POST", &format!("{one}/stop"), &json!({})).await;
    assert_eq!(stop.status, 200, "{}", stop.text);
    let reply = scene.ask("PATCH", &one, &json!({ "name": "web" })).await;
    assert_eq!((reply.status.as_u16(), fields(&reply)), (400, vec!["name"]), "{}", reply.text);
}

#[tokio::test]
async fn a_full_project_takes_no_more_containers() {
    let scene = Scene::set().await;
    let path = format!("/api/v1/projects/{}", scene.project);
    let limited = scene.ask("PATCH", &path, &json!({ "max_containers": 1 })).await;
    assert_eq!(limited.json["data"]["max_containers"], 1, "{}", limited.text);
    assert_eq!(scene.create(json!({ "name": "one" })).await.status, 201);
    let reply = scene.create(json!({ "name": "two" })).await;
    assert_eq!(reply.status, 422, "{}", reply.text);
    assert_eq!(reply.json["code"], "QUOTA_EXCEEDED");
    let cleared = scene.ask("PUT", &path, &json!({ "max_containers": null })).await;
    assert_eq!(cleared.json["data"]["max_containers"], Value::Null, "{}", cleared.text);
    assert_eq!(scene.create(json!({ "name": "two" })).await.status, 201);
}

#[tokio::test]
async fn projects_refuse_wrong_values() {
    let scene = Scene::set().await;
    for (body, field) in [
        (json!({ "alias": "" }), "alias"),
        (json!({ "alias": "a".repeat(101) }), "alias"),
        (json!({ "alias": 7 }), "alias"),
        (json!({ "alias": "x", "color": "blue" }), "color"),
        (json!({ "alias": "x", "max_containers": -1 }), "max_containers"),
        (json!({ "alias": "x", "max_containers": 1.5 }), "max_containers"),
        (json!({ "alias": "x", "max_containers": "5" }), "max_containers"),
        (json!({ "alias": "x", "realm_ids": ["no"] }), "realm_ids[0]"),
        (json!({ "alias": "x", "owner": "me" }), "owner"),
    ] {
        let reply = scene.ask("POST", "/api/v1/projects", &body).await;
        assert_eq!(reply.status, 400, "{body}: {}", reply.text);
        assert_eq!(fields(&reply), [field], "{body}");
    }
    let listed = scene.look("/api/v1/projects").await;
    assert_eq!(listed.json["data"]["pagination"]["total"], 1, "{}", listed.text);
}

#[tokio::test]
async fn tokens_refuse_wrong_values() {
    let scene = Scene::set().await;
    for (body, field) in [
        (json!({ "alias": "a/b" }), "alias"),
        (json!({ "alias": "a".repeat(255) }), "alias"),
        (json!({ "ip_whitelist": ["not an address"] }), "ip_whitelist[0]"),
        (json!({ "ip_whitelist": 5 }), "ip_whitelist"),
        (json!({ "permissions": { "containers": { "fly": true } } }), "permissions.containers.fly"),
        (json!({ "permissions": [] }), "permissions"),
        (json!({ "permission_template": "root" }), "permission_template"),
        (json!({ "expires_at": "soon" }), "expires_at"),
        (json!({ "expires_at": true }), "expires_at"),
        (json!({ "expires_at": "2001-01-01T00:00:00Z" }), "expires_at"),
        (json!({ "realm_ids": ["X"] }), "realm_ids[0]"),
        (json!({ "event_access": "yes" }), "event_access"),
        (json!({ "secret": "mine" }), "secret"),
    ] {
        let reply = scene.ask("POST", "/api/v1/auth/tokens", &body).await;
        assert_eq!(reply.status, 400, "{body}: {}", reply.text);
        assert!(fields(&reply)[0].starts_with(field.split('[').next().unwrap()), "{}", reply.text);
    }
    let listed = scene.look("/api/v1/auth/tokens").await;
    assert_eq!(listed.json["data"], json!([]), "{}", listed.text);
}

#[tokio::test]
async fn what_is_understood_but_not_offered_is_501_and_makes_nothing() {
    let scene = Scene::set().await;
    for (change, field) in [(json!({ "cache_image": true }), "cache_image")] {
        let reply = scene.create(change.clone()).await;
        assert_eq!(reply.status, 501, "{change}: {}", reply.text);
        assert_eq!(fields(&reply), [field], "{change}");
    }
    scene.assert_nothing_was_made().await;
    let neutral = json!({ "prespawn": false, "cache_image": false, "kvm": false, "dev_kvm": false,
        "ramdisk_scope": "container", "bypass_prespawn": true });
    assert_eq!(scene.create(neutral).await.status, 201);
}

#[tokio::test]
async fn other_methods_are_405_and_say_which_are_possible() {
    let scene = Scene::set().await;
    for (method, path, allowed) in [
        ("DELETE", "/api/v1/projects/", vec!["GET", "HEAD", "POST"]),
        ("POST", "/api/v1/users/auth/me", vec!["GET", "HEAD"]),
        ("GET", "/api/v1/users/auth/login", vec!["POST"]),
        (
            "POST",
            "/api/v1/containers/abcdef0123456789abcdef01",
            vec!["DELETE", "GET", "HEAD", "PATCH", "PUT"],
        ),
        ("GET", "/api/v1/containers/abcdef0123456789abcdef01/stop", vec!["POST"]),
    ] {
        let reply = scene.lab.send(Ask::new(method, path).by(&scene.token)).await;
        assert_eq!(reply.status, 405, "{method} {path}: {}", reply.text);
        let mut allow: Vec<_> =
            reply.headers["allow"].to_str().unwrap().split(',').map(str::trim).collect();
        allow.sort_unstable();
        assert_eq!(allow, allowed, "{method} {path}");
        assert_eq!(reply.json["code"], "METHOD_NOT_ALLOWED");
    }
}

#[tokio::test]
async fn wrong_credentials_are_refused_alike() {
    let scene = Scene::set().await;
    let login = async |username: &str, password: &str| {
        let body = json!({ "username": username, "password": password });
        scene.lab.send(Ask::new("POST", "/api/v1/users/auth/login").body(&body)).await
    };
    let unknown = login("nobody", "Passw0rd!alice").await;
    let wrong = login("alice", "Passw0rd!wrong").await;
    assert_eq!((unknown.status.as_u16(), wrong.status.as_u16()), (401, 401));
    assert_eq!(unknown.text, wrong.text, "the answer tells whether an account exists");
    for credential in ["Bearer", "Bearer ", "bearer x", "Basic !!!", "Token abc", "hdy_nonsense"] {
        let ask = Ask::new("GET", "/api/v1/users/auth/me").header("authorization", credential);
        let reply = scene.lab.send(ask).await;
        assert_eq!(reply.status, 401, "{credential}: {}", reply.text);
        assert!(reply.headers.contains_key("www-authenticate"), "{credential}");
    }
    let body = json!({ "refreshToken": "nonsense" });
    let ask = Ask::new("POST", "/api/v1/users/auth/refresh").body(&body);
    let reply = scene.lab.send(ask).await;
    assert_eq!(
        (reply.status.as_u16(), &reply.json["message"]),
        (401, &json!("Invalid refresh token"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_field_of_the_document_is_read_and_no_other() {
    let scene = Scene::set().await;
    let container = scene.lab.container(&scene.token, &scene.project, "web").await;
    let made = scene.ask("POST", "/api/v1/auth/tokens", &json!({})).await;
    let token = made.json["data"]["id"].as_str().unwrap().to_owned();
    for (method, path, documented) in scene.lab.document.bodies() {
        let id = match path.split('/').nth(3) {
            Some("projects") => &scene.project,
            Some("containers") => &container,
            _ => &token,
        };
        let path = [("{id}", id.as_str()), ("{group}", "staff"), ("{service}", "http")]
            .into_iter()
            .chain([("{hook}", "abcdef0123456789abcdef01")])
            .chain([("{permission_id}", "abcdef0123456789abcdef01")])
            .fold(path, |path, (name, value)| path.replace(name, value));
        // No field is a list of lists or a list of true; the latter is wrong for lists of ids, too.
        let wrong = |schema: &Value| match schema["type"].as_str() {
            Some("array") => json!([true]),
            _ => json!([[1]]),
        };
        let body: Value = documented
            .iter()
            .map(|(name, schema)| (name.clone(), wrong(schema)))
            .chain([("not_in_the_document".to_owned(), json!(1))])
            .collect::<serde_json::Map<_, _>>()
            .into();
        let ask = Ask::new(&method, &path).by(&scene.token).body(&body);
        let reply = scene.lab.send(ask.header("if-match", "file:v0")).await;
        assert_eq!(reply.status, 400, "{method} {path}: {}", reply.text);
        let mut named = fields(&reply);
        named.sort_unstable();
        let mut want: Vec<&str> = documented.iter().map(|(name, _)| name.as_str()).collect();
        want.push("not_in_the_document");
        if path.ends_with("/login") {
            want.push("username"); // wrong, and missing besides
        }
        want.sort_unstable();
        assert_eq!(named, want, "{method} {path}");
    }
}
