//! What the API promises beyond single requests.

use std::time::Duration;

use gantry_runtime::{Error, fake::Call};
use serde_json::{Value, json};

use crate::lab::{Ask, Lab, PASSWORD};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_creation_can_wait_until_the_container_runs() {
    let lab = Lab::start().await;
    let (token, project) = lab.alice().await;
    let id = lab.container(&token, &project, "web").await;
    let reply = lab.send(Ask::new("GET", &format!("/api/v1/containers/{id}")).by(&token)).await;
    let container = &reply.json["data"];
    assert_eq!(container["status"], "running");
    let terminal =
        format!("https://{project}-{id}-terminal-1.node-test.containers.edge.test:18443");
    assert_eq!(container["service_urls"]["terminal"], terminal.as_str());
    let http = format!("https://{project}-{id}-http-{{port}}.node-test.containers.edge.test:18443");
    assert_eq!(container["service_urls"]["http"], http.as_str());
    let ssh = format!("{project}-{id}-ssh.node-test.containers.edge.test");
    assert_eq!(container["ssh_hostname"], ssh.as_str());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_image_fails_with_its_reason_on_the_container() {
    let lab = Lab::start().await;
    let (token, project) = lab.alice().await;
    let path = format!("/api/v1/projects/{project}/containers?wait=running&timeout=20");
    let body = json!({ "server_id": lab.server.to_string(), "container_image": "plan9/4" });
    let reply = lab.send(Ask::new("POST", &path).by(&token).body(&body)).await;
    assert_eq!(reply.status, 201, "{}", reply.text);
    assert_eq!(reply.json["data"]["status"], "failed", "{}", reply.text);
    let why = reply.json["data"]["error"].as_str().unwrap();
    assert!(why.contains("plan9/4"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_start_says_why() {
    let lab = Lab::start().await;
    let (token, project) = lab.alice().await;
    let id = lab.container(&token, &project, "web").await;
    let stop = format!("/api/v1/containers/{id}/stop");
    assert_eq!(lab.send(Ask::new("POST", &stop).by(&token)).await.status, 200);
    for _ in 0..8 {
        lab.world.fail_next(Call::Run, Error::failed("start it", "the disk is full"));
    }
    let start = format!("/api/v1/containers/{id}/start?wait=running&timeout=20");
    let reply = lab.send(Ask::new("POST", &start).by(&token)).await;
    assert_eq!(reply.status, 500, "{}", reply.text);
    assert_eq!(reply.json["code"], "CONTAINER_OPERATION_FAILED");
    assert_eq!(reply.json["data"]["error"], true);
    assert_eq!(reply.json["data"]["status"], "failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_post_with_one_idempotency_key_is_carried_out_once() {
    let lab = Lab::start().await;
    let (token, project) = lab.alice().await;
    let path = format!("/api/v1/projects/{project}/containers");
    let body = json!({ "server_id": lab.server.to_string() });
    let ask = Ask::new("POST", &path).by(&token).body(&body).header("idempotency-key", "k-1");
    let first = lab.send(ask.clone()).await;
    assert_eq!(first.status, 201, "{}", first.text);
    let again = lab.send(ask.clone()).await;
    assert_eq!((again.status, &again.text), (first.status, &first.text));
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert!(!first.headers.contains_key("idempotency-replayed"));

    let other = lab.send(ask.clone().body(&json!({ "name": "other" }))).await;
    assert_eq!(other.status, 422, "{}", other.text);
    assert_eq!(other.json["code"], "IDEMPOTENCY_KEY_REUSED");

    let listed = lab.send(Ask::new("GET", "/api/v1/containers/").by(&token)).await;
    assert_eq!(listed.json["data"]["pagination"]["total"], 1, "{}", listed.text);
    for key in ["", &"k".repeat(256)] {
        let reply = lab.send(ask.clone().header("idempotency-key", key)).await;
        assert_eq!(reply.status, 400, "{}", reply.text);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_lost_its_connection_finds_its_answer_when_it_comes_back() {
    let lab = Lab::start().await;
    let (token, project) = lab.alice().await;
    lab.world.delay(Call::Create, Duration::from_secs(2));
    let path = format!("/api/v1/projects/{project}/containers?wait=running&timeout=20");
    let body = json!({ "server_id": lab.server.to_string() });
    let ask = Ask::new("POST", &path).by(&token).body(&body).header("idempotency-key", "lost");
    let list = Ask::new("GET", "/api/v1/containers/").by(&token);
    let come_back = async {
        {
            let mut first = std::pin::pin!(lab.send(ask.clone()));
            loop {
                tokio::select! {
                    reply = &mut first => panic!("the container was not made slowly: {reply:?}"),
                    listed = lab.send(list.clone()) => {
                        if listed.json["data"]["pagination"]["total"] == 1 {
                            break;
                        }
                    }
                }
            }
        } // The connection is gone, and the request with it.
        loop {
            let reply = lab.send(ask.clone()).await;
            if reply.status != 409 {
                return reply;
            }
            assert_eq!(reply.json["code"], "REQUEST_IN_PROGRESS", "{}", reply.text);
            tokio::task::yield_now().await;
        }
    };
    let reply = tokio::time::timeout(Duration::from_secs(20), come_back).await.unwrap();
    assert_eq!(reply.status, 201, "{}", reply.text);
    assert_eq!(reply.headers["idempotency-replayed"], "true");
    assert_eq!(reply.json["data"]["status"], "running");
    assert_eq!(lab.send(list).await.json["data"]["pagination"]["total"], 1);
}

#[tokio::test]
async fn a_refused_post_gives_its_idempotency_key_back() {
    let lab = Lab::start().await;
    let (token, _) = lab.alice().await;
    let ask = |alias: &str| {
        let body = json!({ "alias": alias });
        Ask::new("POST", "/api/v1/projects").by(&token).body(&body).header("idempotency-key", "k")
    };
    assert_eq!(lab.send(ask("")).await.status, 400);
    assert_eq!(lab.send(ask("better")).await.status, 201);
}

#[tokio::test]
async fn the_secret_of_a_token_is_shown_once_even_to_a_repeated_request() {
    let lab = Lab::start().await;
    let (token, _) = lab.alice().await;
    let ask = Ask::new("POST", "/api/v1/auth/tokens")
        .by(&token)
        .body(&json!({ "alias": "ci" }))
        .header("idempotency-key", "t");
    let first = lab.send(ask.clone()).await;
    assert!(first.json["data"]["token"].as_str().unwrap().starts_with("hdy_"), "{}", first.text);
    let again = lab.send(ask).await;
    assert_eq!(again.status, 201);
    assert_eq!(again.json["data"]["id"], first.json["data"]["id"]);
    assert_eq!(again.json["data"].get("token"), None, "{}", again.text);
    let listed = lab.send(Ask::new("GET", "/api/v1/auth/tokens").by(&token)).await;
    let secret = first.json["data"]["token"].as_str().unwrap();
    assert!(!listed.text.contains(secret), "a list shows a secret");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_that_do_not_fit_the_phase_are_refused_with_the_whole_story() {
    let lab = Lab::start().await;
    let (token, project) = lab.alice().await;
    let id = lab.container(&token, &project, "web").await;
    let operate = async |operation: &str| {
        let path = format!("/api/v1/containers/{id}/{operation}");
        lab.send(Ask::new("POST", &path).by(&token)).await
    };
    for (operation, status, then) in [
        ("start", 400, "running"), // it runs already
        ("resume", 400, "running"),
        ("pause", 200, "paused"),
        ("pause", 400, "paused"),
        ("start", 400, "paused"), // resume it first
        ("restart", 400, "paused"),
        ("resume", 200, "running"),
        ("stop", 200, "stopped"),
        ("pause", 400, "stopped"),
        ("resume", 400, "stopped"),
        ("force-stop", 400, "stopped"),
        ("restart", 200, "running"),
        ("force-stop", 200, "stopped"),
        ("start", 200, "running"),
    ] {
        let reply = operate(operation).await;
        assert_eq!(reply.status, status, "{operation}: {}", reply.text);
        let data = &reply.json["data"];
        assert_eq!(data["error"], status != 200, "{operation}: {}", reply.text);
        assert_eq!(data["operation"], operation);
        assert_eq!(data["status"], then, "{operation}");
        assert_eq!(data["container_id"], id.as_str());
        assert_eq!(data["project_id"], project.as_str());
    }
    let path = format!("/api/v1/containers/{id}/explode");
    assert_eq!(lab.send(Ask::new("POST", &path).by(&token)).await.status, 404);
    let wrong_wait = operate("stop?wait=running").await;
    assert_eq!(wrong_wait.status, 400, "{}", wrong_wait.text);
    let unknown = Ask::new("POST", &format!("/api/v1/containers/{id}/stop"))
        .by(&token)
        .body(&json!({ "force": true }));
    assert_eq!(lab.send(unknown).await.status, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_container_changes_only_what_the_control_plane_holds() {
    let lab = Lab::start().await;
    let (token, project) = lab.alice().await;
    let id = lab.container(&token, &project, "web").await;
    let path = format!("/api/v1/containers/{id}");
    for (change, status, code) in [
        (json!({ "color": "#abc", "comment": "c", "autostart": false, "ai": false }), 200, None),
        (json!({}), 200, None),
        (json!({ "name": "web" }), 200, None), // no change
        (json!({ "name": "other" }), 400, Some("CONTAINER_MUST_BE_STOPPED")),
        (json!({ "environment_vars": { "A": "b" } }), 400, Some("CONTAINER_MUST_BE_STOPPED")),
        (json!({ "ramdisk": false }), 400, Some("CONTAINER_MUST_BE_STOPPED")),
        (json!({ "container_image": "debian/12" }), 400, Some("IMMUTABLE_FIELD")),
        (json!({ "hoody_kit": false }), 400, Some("IMMUTABLE_FIELD")),
        (json!({ "dev_kit": false }), 400, Some("IMMUTABLE_FIELD")),
        (json!({ "server_id": "abcdef0123456789abcdef01" }), 400, Some("IMMUTABLE_FIELD")),
        (json!({ "container_image": "debian/13", "hoody_kit": true }), 200, None),
    ] {
        let reply = lab.send(Ask::new("PATCH", &path).by(&token).body(&change)).await;
        assert_eq!(reply.status, status, "{change}: {}", reply.text);
        if let Some(code) = code {
            assert_eq!(reply.json["code"], code, "{change}");
            let field = change.as_object().unwrap().keys().next().unwrap();
            assert_eq!(reply.json["data"][0]["field"], field.as_str(), "{change}");
        }
    }
    let reply = lab.send(Ask::new("GET", &path).by(&token)).await;
    assert_eq!(reply.json["data"]["color"], "#AABBCC");
    assert_eq!(reply.json["data"]["name"], "web");
    assert_eq!(reply.json["data"]["comment"], "c");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_says_since_when_it_has_its_key_and_whether_ssh_may_forward() {
    const FIRST: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB";
    const SECOND: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIC";
    let lab = Lab::start().await;
    let (token, project) = lab.alice().await;
    let id = lab.container(&token, &project, "web").await;
    let path = format!("/api/v1/containers/{id}");
    let change = async |body: Value| {
        let reply = lab.send(Ask::new("PATCH", &path).by(&token).body(&body)).await;
        assert_eq!(reply.status, 200, "{body}: {}", reply.text);
        reply.json["data"].clone()
    };
    let shown = lab.send(Ask::new("GET", &path).by(&token)).await;
    let data = &shown.json["data"];
    assert_eq!(
        (&data["ssh_key_installed_at"], &data["ssh_forwarding"]),
        (&Value::Null, &json!(true))
    );
    let set = change(json!({ "ssh_public_key": FIRST })).await;
    let since = set["ssh_key_installed_at"].as_str().expect("a time").to_owned();
    assert_eq!((since.len(), &set["updated_at"]), (24, &json!(since)), "{since}");
    // The same one with another comment, and other fields.
    for body in [
        json!({ "ssh_public_key": format!("{FIRST} me@home") }),
        json!({ "ssh_forwarding": false }),
        json!({ "comment": "later" }),
    ] {
        let kept = change(body).await;
        assert_eq!(kept["ssh_key_installed_at"], json!(since));
    }
    let rotated = change(json!({ "ssh_public_key": SECOND })).await;
    assert!(rotated["ssh_key_installed_at"].as_str() > Some(&since), "{rotated}");
    assert_eq!(rotated["ssh_forwarding"], false);
    // A copy has its own key or none, and the source's switch.
    let copy = json!({ "target_project_id": project });
    let copied = lab.send(Ask::new("POST", &format!("{path}/copy")).by(&token).body(&copy)).await;
    assert_eq!(copied.status, 201, "{}", copied.text);
    let data = &copied.json["data"];
    assert_eq!(
        (&data["ssh_key_installed_at"], &data["ssh_forwarding"]),
        (&Value::Null, &json!(false))
    );
    let gone = change(json!({ "ssh_public_key": null })).await;
    assert_eq!(gone["ssh_key_installed_at"], Value::Null);
    let reply = lab
        .send(Ask::new("PATCH", &path).by(&token).body(&json!({ "ssh_forwarding": "off" })))
        .await;
    assert_eq!(
        (reply.status.as_u16(), &reply.json["data"][0]["field"]),
        (400, &json!("ssh_forwarding"))
    );
}

#[tokio::test]
async fn a_realm_host_shows_its_realm_only() {
    const REALM: &str = "64a2c4e9f3d5e2b6a8c7d8e1";
    let lab = Lab::start().await;
    let (token, project) = lab.alice().await;
    let made = Ask::new("POST", "/api/v1/projects")
        .by(&token)
        .body(&json!({ "alias": "scoped" }))
        .realm(REALM);
    let made = lab.send(made).await;
    assert_eq!(made.json["data"]["realm_ids"], json!([REALM]), "{}", made.text);
    let list = Ask::new("GET", "/api/v1/projects/").by(&token);
    let scoped = lab.send(list.clone().realm(REALM)).await;
    assert_eq!(scoped.json["data"]["pagination"]["total"], 1, "{}", scoped.text);
    assert_eq!(lab.send(list).await.json["data"]["pagination"]["total"], 2);
    let hidden = Ask::new("GET", &format!("/api/v1/projects/{project}")).by(&token).realm(REALM);
    assert_eq!(lab.send(hidden).await.status, 404);
    let narrowed = Ask::new("GET", &format!("/api/v1/projects/?realm_id={REALM}")).by(&token);
    assert_eq!(lab.send(narrowed).await.json["data"]["pagination"]["total"], 1);
}

#[tokio::test]
async fn strangers_see_nothing_of_each_other() {
    let lab = Lab::start().await;
    let (alice, project) = lab.alice().await;
    let path = format!("/api/v1/projects/{project}/containers");
    let body = json!({ "server_id": lab.server.to_string() });
    let made = lab.send(Ask::new("POST", &path).by(&alice).body(&body)).await;
    let id = made.json["data"]["id"].as_str().unwrap().to_owned();
    let bob = lab.login("bob", PASSWORD).await;
    for list in ["/api/v1/projects/", "/api/v1/containers/"] {
        let listed = lab.send(Ask::new("GET", list).by(&bob)).await;
        assert_eq!(listed.json["data"]["pagination"]["total"], 0, "{}", listed.text);
    }
    let none = "abcdef0123456789abcdef01";
    for (method, path) in [
        ("GET", "/api/v1/projects/{project}"),
        ("PATCH", "/api/v1/projects/{project}"),
        ("DELETE", "/api/v1/projects/{project}"),
        ("GET", "/api/v1/projects/{project}/containers"),
        ("GET", "/api/v1/containers/{id}"),
        ("PATCH", "/api/v1/containers/{id}"),
        ("DELETE", "/api/v1/containers/{id}"),
        ("POST", "/api/v1/containers/{id}/stop"),
        ("GET", "/api/v1/containers/{id}/stats"),
        ("GET", "/api/v1/containers/{id}/status-logs"),
    ] {
        let ask = |project: &str, id: &str| {
            let path = path.replace("{project}", project).replace("{id}", id);
            Ask::new(method, &path).by(&bob)
        };
        let hidden = lab.send(ask(&project, &id)).await;
        let missing = lab.send(ask(none, none)).await;
        assert_eq!(hidden.status, 404, "{method} {path}: {}", hidden.text);
        assert_eq!(hidden.text, missing.text, "{method} {path} tells what exists");
    }
    let path = format!("/api/v1/projects/{project}/containers");
    assert_eq!(lab.send(Ask::new("POST", &path).by(&bob).body(&body)).await.status, 404);
}

#[tokio::test]
async fn a_token_does_only_what_it_may() {
    let lab = Lab::start().await;
    let (token, project) = lab.alice().await;
    let body = json!({ "permission_template": "read_only" });
    let made = lab.send(Ask::new("POST", "/api/v1/auth/tokens").by(&token).body(&body)).await;
    let reader = made.json["data"]["token"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/projects/{project}");
    assert_eq!(lab.send(Ask::new("GET", &path).by(&reader)).await.status, 200);
    let refused = lab.send(Ask::new("DELETE", &path).by(&reader)).await;
    assert_eq!(refused.status, 403, "{}", refused.text);
    assert_eq!(refused.json["code"], "INSUFFICIENT_PERMISSIONS");
}

#[tokio::test]
async fn any_page_may_call_but_no_cookie_counts() {
    let lab = Lab::start().await;
    let preflight = Ask::new("OPTIONS", "/api/v1/projects/")
        .header("origin", "https://app.example")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,content-type");
    let reply = lab.send(preflight).await;
    assert_eq!(reply.status, 204);
    assert_eq!(reply.headers["access-control-allow-origin"], "*");
    let allowed = reply.headers["access-control-allow-headers"].to_str().unwrap().to_lowercase();
    for header in ["authorization", "content-type", "if-match", "idempotency-key"] {
        assert!(allowed.contains(header), "{header}");
    }
    assert!(!reply.headers.contains_key("access-control-allow-credentials"));
    assert!(!reply.headers.contains_key("set-cookie"));
    let cookie = Ask::new("GET", "/api/v1/users/me").header("cookie", "token=abc");
    assert_eq!(lab.send(cookie).await.status, 401);
}

#[tokio::test]
async fn the_document_is_served_and_revalidated() {
    let lab = Lab::start().await;
    let reply = lab.send(Ask::new("GET", "/openapi.json")).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.json["openapi"], "3.1.0");
    let tag = reply.headers["etag"].to_str().unwrap().to_owned();
    let again = lab.send(Ask::new("GET", "/openapi.json").header("if-none-match", &tag)).await;
    assert_eq!((again.status.as_u16(), again.text.as_str()), (304, ""));
}

#[tokio::test]
async fn the_page_of_the_document_lists_every_operation_and_loads_nothing() {
    let lab = Lab::start().await;
    let page = lab.send(Ask::new("GET", "/docs")).await;
    assert_eq!(page.status, 200);
    assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
    for outside in
        ["<script", "<link", "<img", "src=", "url(", "@import", "style=", "\"http", " on"]
    {
        let tags = page.text.split('<').filter_map(|part| part.split('>').next());
        let found = tags.map(|tag| format!("<{tag}>")).find(|tag| tag.contains(outside));
        assert_eq!(found, None, "{outside}");
    }
    let operations = lab.document.operations();
    for (method, path, _) in &operations {
        let entry = format!("<b>{method}</b> <code>{path}</code>");
        assert!(page.text.contains(&entry), "{entry}");
    }
    let entries = page.text.matches("<summary><b>").count();
    assert_eq!(entries, operations.len(), "each once");
    let tag = page.headers["etag"].to_str().unwrap();
    let again = lab.send(Ask::new("GET", "/docs").header("if-none-match", tag)).await;
    assert_eq!((again.status.as_u16(), again.text.as_str()), (304, ""));
    let yaml = lab.send(Ask::new("GET", "/openapi.yaml")).await;
    assert_eq!(yaml.headers["content-type"], "application/yaml");
    let json = lab.send(Ask::new("GET", "/openapi.json")).await;
    assert_eq!(yaml.text, json.text, "what is JSON is YAML");
}

#[tokio::test]
async fn answers_about_a_caller_are_never_stored_by_caches() {
    let lab = Lab::start().await;
    let (token, _) = lab.alice().await;
    for path in ["/api/v1/users/me", "/api/v1/projects/", "/api/v1/none", "/api/v1/ip"] {
        let reply = lab.send(Ask::new("GET", path).by(&token)).await;
        assert_eq!(reply.headers["cache-control"], "no-store", "{path}");
        assert_eq!(reply.headers["x-content-type-options"], "nosniff", "{path}");
        assert!(!reply.text.contains(&token), "{path} repeats the credential");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_creations_at_once_succeed() {
    let lab = Lab::start().await;
    let (token, project) = lab.alice().await;
    let path = format!("/api/v1/projects/{project}/containers?wait=running&timeout=60");
    let body = json!({ "server_id": lab.server.to_string() });
    let asks = (0..100).map(|_| lab.send(Ask::new("POST", &path).by(&token).body(&body)));
    for reply in futures_util::future::join_all(asks).await {
        assert_eq!(reply.status, 201, "{}", reply.text);
        assert_eq!(reply.json["data"]["status"], "running", "{}", reply.text);
    }
    let listed = lab.send(Ask::new("GET", "/api/v1/containers/?limit=100").by(&token)).await;
    let names: std::collections::BTreeSet<&str> = listed.json["data"]["containers"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|container| container["name"].as_str())
        .collect();
    assert_eq!(names.len(), 100, "generated names are unique");
    assert_ne!(listed.json["data"]["pagination"]["total"], Value::from(0));
}
