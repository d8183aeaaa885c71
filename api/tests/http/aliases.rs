//! Aliases, custom hostnames and settings of the edge.

use serde_json::{Value, json};

use crate::{
    lab::{Ask, Reply},
    proxy::{Scene, at_once, code},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alias_lives_from_its_creation_to_its_end() {
    let scene = Scene::set().await;
    let made = scene
        .made_alias(json!({ "alias": "shop", "program": "http-3000", "target_path": "app?a=1" }))
        .await;
    let id = made["id"].as_str().unwrap().to_owned();
    for (field, want) in [
        ("alias", json!("shop")),
        ("program", json!("http")),
        ("index", json!(3000)),
        ("target_path", json!("/app?a=1")),
        ("allow_path_override", json!(true)),
        ("enabled", json!(true)),
        ("expires_at", Value::Null),
        ("container_id", json!(scene.container)),
        ("project_id", json!(scene.project)),
        ("server_name", json!("node-test")),
        ("url", json!("https://shop.node-test.containers.edge.test:18443")),
    ] {
        assert_eq!(made[field], want, "{field}");
    }
    let one = format!("/api/v1/proxy/aliases/{id}");
    let shown = scene.get(&one).await;
    assert_eq!(shown["project"], json!({ "id": scene.project, "alias": "home" }));
    assert_eq!(shown["container"], json!({ "id": scene.container, "name": "web" }));
    let change = json!({ "alias": "store", "program": "tty", "target_path": null,
        "allow_path_override": false, "expires_at": 4_000_000_000_u64, "enabled": false });
    let changed = scene.send("PATCH", &one, Some(&change)).await;
    assert_eq!(changed.status, 200, "{}", changed.text);
    let changed = &changed.json["data"];
    assert_eq!((&changed["program"], &changed["index"]), (&json!("terminal"), &json!(1)));
    assert_eq!((&changed["alias"], &changed["target_path"]), (&json!("store"), &Value::Null));
    assert_eq!(changed["expires_at"], "2096-10-02T07:06:40.000Z");
    let on = scene.send("PATCH", &format!("{one}/state"), Some(&json!({ "enabled": true }))).await;
    assert_eq!(on.json["data"]["enabled"], true, "{}", on.text);

    let container = format!("/api/v1/containers/{}", scene.container);
    let shown = scene.get(&format!("{container}?include_proxy_domains=true")).await;
    assert_eq!(
        (&shown["has_proxy_domains"], &shown["proxy_domains_count"]),
        (&json!(true), &json!(1))
    );
    assert_eq!(shown["proxy_domains"][0]["alias"], "store");
    assert_eq!(scene.send("DELETE", &one, None).await.json["data"], Value::Null);
    assert_eq!(code(&scene.send("GET", &one, None).await), (404, "RESOURCE_NOT_FOUND"));
    assert_eq!(scene.get("/api/v1/proxy/aliases").await, json!({ "aliases": [], "count": 0 }));
    let shown = scene.get(&container).await;
    assert_eq!(shown["has_proxy_domains"], false);
    assert_eq!(shown.get("proxy_domains"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alias_without_a_name_gets_a_random_one() {
    let scene = Scene::set().await;
    for none in [json!({}), json!({ "alias": null }), json!({ "alias": false })] {
        let made = scene.made_alias(none).await;
        let name = made["alias"].as_str().unwrap();
        assert!(name.len() == 48 && name.bytes().all(|o| o.is_ascii_hexdigit()), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_aliases_are_refused_with_their_codes() {
    let scene = Scene::set().await;
    for (change, want) in [
        (json!({ "alias": "Shop" }), (400, "INVALID_ALIAS_FORMAT")),
        (json!({ "alias": "ab" }), (400, "INVALID_ALIAS_FORMAT")),
        (json!({ "alias": "containers" }), (400, "INVALID_ALIAS_FORMAT")),
        (json!({ "alias": "terminal-x" }), (400, "INVALID_ALIAS_FORMAT")),
        (json!({ "alias": true }), (400, "VALIDATION_ERROR")),
        (json!({ "alias": "good", "program": "web" }), (400, "VALIDATION_ERROR")),
        (json!({ "alias": "good", "program": "http" }), (400, "PORT_REQUIRED")),
        (json!({ "alias": "good", "program": "http", "port": 70_000 }), (400, "VALIDATION_ERROR")),
        (json!({ "alias": "good", "target_path": "a b" }), (400, "VALIDATION_ERROR")),
        (
            json!({ "alias": "good", "expires_at": "2001-01-01T00:00:00Z" }),
            (400, "VALIDATION_ERROR"),
        ),
        (json!({ "container_id": "abcdef0123456789abcdef01" }), (404, "CONTAINER_NOT_FOUND")),
    ] {
        let reply = scene.alias(change.clone()).await;
        assert_eq!(code(&reply), want, "{change}: {}", reply.text);
    }
    let reserved = scene.alias(json!({ "alias": "containers" })).await;
    assert_eq!(reserved.json["data"]["reserved_alias"], "containers");
    let prefix = scene.alias(json!({ "alias": "terminal-x" })).await;
    assert_eq!(prefix.json["data"]["reserved_prefix"], "terminal-");
    assert_eq!(scene.get("/api/v1/proxy/aliases").await["count"], 0, "nothing was made");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_is_one_alias_s_in_the_whole_installation() {
    let scene = Scene::set().await;
    let made = scene.made_alias(json!({ "alias": "shop" })).await;
    let again = scene.alias(json!({ "alias": "shop" })).await;
    assert_eq!(code(&again), (409, "ALIAS_IN_USE"));
    assert_eq!(again.json["error"], "ALIAS_IN_USE");
    let want = json!({ "field": "alias", "value": "shop", "scope": "account" });
    assert_eq!(again.json["data"], want);

    let bob = scene.lab.login("bob", crate::lab::PASSWORD).await;
    let body = json!({ "alias": "his" });
    let project = scene.lab.send(Ask::new("POST", "/api/v1/projects/").by(&bob).body(&body)).await;
    let project = project.json["data"]["id"].as_str().unwrap();
    let container = scene.lab.container(&bob, project, "his").await;
    let body = json!({ "container_id": container, "alias": "shop", "program": "files" });
    let ask = Ask::new("POST", "/api/v1/proxy/aliases").by(&bob).body(&body);
    let theirs = scene.lab.send(ask.clone()).await;
    assert_eq!(
        (code(&theirs), &theirs.json["data"]["scope"]),
        ((409, "ALIAS_IN_USE"), &json!("server"))
    );
    // Freed names wait for their owner, and what is another's does not exist.
    let one = format!("/api/v1/proxy/aliases/{}", made["id"].as_str().unwrap());
    for method in ["GET", "DELETE"] {
        assert_eq!(scene.lab.send(Ask::new(method, &one).by(&bob)).await.status, 404);
    }
    assert_eq!(scene.send("DELETE", &one, None).await.status, 200);
    assert_eq!(code(&scene.lab.send(ask).await), (409, "ALIAS_IN_USE"));
    scene.made_alias(json!({ "alias": "shop" })).await;
    let unknown = scene.lab.send(
        Ask::new("GET", &format!("/api/v1/proxy/aliases?container_id={}", scene.container))
            .by(&bob),
    );
    assert_eq!(code(&unknown.await), (404, "CONTAINER_NOT_FOUND"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_aliases_with_one_name_exactly_one_is_made() {
    let scene = Scene::set().await;
    let statuses = at_once(|_| scene.alias(json!({ "alias": "wanted" }))).await;
    assert_eq!(statuses, [201, 409, 409, 409, 409, 409, 409, 409]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aliases_are_filtered() {
    let scene = Scene::set().await;
    let other = scene.lab.container(&scene.token, &scene.project, "other").await;
    scene.made_alias(json!({ "alias": "one" , "expires_at": 4_000_000_000_u64 })).await;
    scene.made_alias(json!({ "alias": "two", "container_id": other, "enabled": false })).await;
    for (query, want) in [
        (String::new(), vec!["one", "two"]),
        (format!("?container_id={other}"), vec!["two"]),
        (format!("?project_id={}", scene.project), vec!["one", "two"]),
        ("?enabled=true".to_owned(), vec!["one"]),
        ("?expired=true".to_owned(), vec![]),
        ("?expired=false".to_owned(), vec!["one", "two"]),
        ("?realm_id=abcdef0123456789abcdef01".to_owned(), vec![]),
    ] {
        let listed = scene.get(&format!("/api/v1/proxy/aliases{query}")).await;
        let names: Vec<_> =
            listed["aliases"].as_array().unwrap().iter().map(|alias| &alias["alias"]).collect();
        assert_eq!(names, want, "{query}");
        assert_eq!(listed["count"], want.len(), "{query}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_settings_change_one_by_one() {
    let scene = Scene::set().await;
    let plain = json!({ "wake": "never", "idle_pause_after": null, "verify_upstream": false,
        "proxy_protocol_ports": [], "concurrency_max": null, "log_bodies": false });
    assert_eq!(scene.get("{C}/edge").await, plain);
    let change =
        json!({ "wake": "any", "idle_pause_after": 600, "proxy_protocol_ports": [80, 25] });
    let changed = scene.send("PATCH", "{C}/edge", Some(&change)).await;
    assert_eq!(changed.status, 200, "{}", changed.text);
    let cleared = json!({ "idle_pause_after": null, "concurrency_max": 5, "log_bodies": true });
    scene.send("PATCH", "{C}/edge", Some(&cleared)).await;
    let want = json!({ "wake": "any", "idle_pause_after": null, "verify_upstream": false,
        "proxy_protocol_ports": [25, 80], "concurrency_max": 5, "log_bodies": true });
    assert_eq!(scene.get("{C}/edge").await, want);
    for (wrong, field) in [
        (json!({ "wake": "sometimes" }), "wake"),
        (json!({ "idle_pause_after": 5 }), "idle_pause_after"),
        (json!({ "proxy_protocol_ports": [0] }), "proxy_protocol_ports"),
        (json!({ "sleep": true }), "sleep"),
    ] {
        let reply = scene.send("PATCH", "{C}/edge", Some(&wrong)).await;
        assert_eq!(code(&reply), (400, "VALIDATION_ERROR"), "{wrong}: {}", reply.text);
        assert_eq!(reply.json["data"][0]["field"], field, "{wrong}");
    }
    assert_eq!(scene.get("{C}/edge").await, want);
}

const HOST: &str = "shop.node-test.containers.edge.test";

async fn bind(scene: &Scene, name: &str, alias: &Value) -> Reply {
    let body = json!({ "hostname": name, "alias_id": alias["id"] });
    scene.send("POST", "{C}/hostnames", Some(&body)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostname_is_bound_once_the_names_prove_it() {
    let scene = Scene::set().await;
    let alias = scene.made_alias(json!({ "alias": "shop" })).await;
    let names = &scene.lab.names;
    names.addresses(HOST, &["192.0.2.1", "2001:db8::1"]);
    let unproven = bind(&scene, "www.example.com", &alias).await;
    assert_eq!(code(&unproven), (400, "HOSTNAME_NOT_PROVEN"));
    assert!(unproven.json["message"].as_str().unwrap().contains(HOST), "{}", unproven.text);
    assert_eq!(scene.get("{C}/hostnames").await["count"], 0);

    names.cname("www.example.com", "hop.example.com");
    names.cname("hop.example.com", HOST);
    names.txt("_gantry.txt.example.com", HOST);
    names.addresses("example.com", &["192.0.2.1"]);
    names.addresses("elsewhere.example.com", &["192.0.2.1", "192.0.2.9"]);
    for (name, want) in [
        ("WWW.example.com.", Some("named")),
        ("txt.example.com", Some("named")),
        ("example.com", Some("addresses")),
        ("elsewhere.example.com", None),
    ] {
        let reply = bind(&scene, name, &alias).await;
        match want {
            Some(proof) => {
                assert_eq!(reply.status, 201, "{name}: {}", reply.text);
                let data = &reply.json["data"];
                assert_eq!((&data["proof"], &data["verified"]), (&json!(proof), &json!(true)));
                assert_eq!(data["alias_host"], HOST);
            }
            None => assert_eq!(code(&reply), (400, "HOSTNAME_NOT_PROVEN"), "{name}"),
        }
    }
    // Checked again: an outage changes nothing, a record that is gone does.
    let verified = async || scene.get("{C}/hostnames").await["hostnames"][0]["verified"].clone();
    names.set_away(true);
    assert_eq!(bind(&scene, "www.example.com", &alias).await.status, 503);
    names.set_away(false);
    assert_eq!(verified().await, true);
    names.forget("hop.example.com");
    assert_eq!(bind(&scene, "www.example.com", &alias).await.status, 400);
    assert_eq!(verified().await, false);
    names.cname("hop.example.com", HOST);
    assert_eq!(bind(&scene, "www.example.com", &alias).await.status, 201);
    assert_eq!(verified().await, true);

    let one = "{C}/hostnames/www.example.com";
    assert_eq!(scene.send("DELETE", one, None).await.status, 200);
    assert_eq!(scene.send("DELETE", one, None).await.status, 404);
    let path = format!("/api/v1/proxy/aliases/{}", alias["id"].as_str().unwrap());
    assert_eq!(scene.send("DELETE", &path, None).await.status, 200);
    assert_eq!(scene.get("{C}/hostnames").await["count"], 0, "they go with their alias");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostname_belongs_to_one_alias() {
    let scene = Scene::set().await;
    let (one, two) = (
        scene.made_alias(json!({ "alias": "shop" })).await,
        scene.made_alias(json!({ "alias": "other" })).await,
    );
    let names = &scene.lab.names;
    for host in [HOST, "other.node-test.containers.edge.test", "example.com"] {
        names.addresses(host, &["192.0.2.1"]);
    }
    assert_eq!(bind(&scene, "example.com", &one).await.status, 201);
    assert_eq!(code(&bind(&scene, "example.com", &two).await), (409, "HOSTNAME_IN_USE"));
    names.txt("_gantry.example.com", "other.node-test.containers.edge.test");
    assert_eq!(bind(&scene, "example.com", &two).await.status, 201, "a record that names it");
    let bound = scene.get("{C}/hostnames").await;
    assert_eq!((&bound["count"], &bound["hostnames"][0]["alias_id"]), (&json!(1), &two["id"]));
    for (name, want) in [
        ("shop.edge.test", 400),
        (HOST, 400),
        ("localhost", 400),
        ("192.0.2.1", 400),
        ("no spaces.example", 400),
    ] {
        let reply = bind(&scene, name, &one).await;
        assert_eq!(reply.status, want, "{name}: {}", reply.text);
    }
    let foreign = json!({ "id": "abcdef0123456789abcdef01" });
    assert_eq!(code(&bind(&scene, "example.com", &foreign).await), (404, "RESOURCE_NOT_FOUND"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_set_ends_with_its_container() {
    let scene = Scene::set().await;
    scene.made_alias(json!({ "alias": "shop" })).await;
    scene.done("PATCH", "{C}/permissions/default", 0, &json!({ "default": "deny" })).await;
    let path = format!("/api/v1/containers/{}?wait=deleted&timeout=20", scene.container);
    assert_eq!(scene.send("DELETE", &path, None).await.status, 200);
    assert_eq!(scene.get("/api/v1/proxy/aliases").await["count"], 0);
    let reply = scene.send("GET", "{C}/permissions", None).await;
    assert_eq!(code(&reply), (404, "CONTAINER_NOT_FOUND"));
}
