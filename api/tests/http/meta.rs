//! What the API says about itself, and about logins and servers.

use gantry_control::{Limits, Signing};
use serde_json::{Value, json};

use crate::lab::{Ask, Lab, PASSWORD};

#[tokio::test]
async fn clients_read_what_is_configured_and_need_no_credential() {
    let limits =
        Limits { aliases_per_user_max: 7, alias_quarantine_ms: 90_000, ..Limits::default() };
    let lab = Lab::start_with(limits, Signing::Off).await;
    let get = async |path: &str| lab.send(Ask::new("GET", &format!("/api/v1/meta/{path}"))).await;
    let all = get("config").await;
    assert_eq!(all.status, 200, "{}", all.text);
    assert_eq!(all.headers["cache-control"], "no-store");
    let config = all.json["data"].as_object().unwrap();
    for (key, want) in [
        ("domain", json!("edge.test")),
        ("url_port", json!(18443)),
        ("api_url", json!("https://api.edge.test:18443")),
        ("aliases_per_user", json!(7)),
        ("alias_quarantine_s", json!(90)),
        ("claims_are_signed", json!(false)),
        ("answers_are_signed", json!(false)),
    ] {
        assert_eq!(config[key], want, "{key}");
    }
    for (key, value) in config {
        assert!(value.is_string() || value.is_number() || value.is_boolean(), "{key}: {value}");
        let one = get(&format!("config/{key}")).await;
        assert_eq!(one.json["data"], json!({ "key": key, "value": value }), "{}", one.text);
    }
    let long = "a".repeat(65);
    for (key, status, code) in [
        ("no_such", 404, "META_CONFIG_KEY_NOT_FOUND"),
        ("Domain", 422, "META_CONFIG_KEY_INVALID"),
        ("1a", 422, "META_CONFIG_KEY_INVALID"),
        ("a.b", 422, "META_CONFIG_KEY_INVALID"),
        (long.as_str(), 422, "META_CONFIG_KEY_INVALID"),
    ] {
        let reply = get(&format!("config/{key}")).await;
        assert_eq!(reply.status, status, "{key}: {}", reply.text);
        assert_eq!(reply.json["error"], code, "{key}");
        assert_eq!(reply.json["data"][0]["field"], "key", "{key}");
    }
}

#[tokio::test]
async fn a_login_says_where_the_account_was_opened_from_and_how_many_tokens_it_has() {
    let lab = Lab::start().await;
    let login = async |password: &str| {
        let body = json!({ "username": "alice", "password": password });
        lab.send(Ask::new("POST", "/api/v1/users/auth/login").body(&body)).await
    };
    let first = login(PASSWORD).await;
    assert_eq!(first.json["data"]["recent_login_ips"], json!([]), "{}", first.text);
    assert_eq!(first.json["data"]["auth_token_count"], 0);
    let session = first.json["data"]["token"].as_str().unwrap();
    let made = Ask::new("POST", "/api/v1/auth/tokens").by(session).body(&json!({}));
    assert_eq!(lab.send(made).await.status, 201);
    assert_eq!(login("Passw0rd!wrong").await.status, 401);
    let second = login(PASSWORD).await;
    let recent = second.json["data"]["recent_login_ips"].as_array().unwrap();
    assert_eq!(recent.len(), 1, "a token and a failure are no logins: {}", second.text);
    assert_eq!(recent[0]["ip"], "192.0.2.7");
    assert!(recent[0]["timestamp"].as_str().is_some_and(|at| at.ends_with('Z')), "{recent:?}");
    assert_eq!(second.json["data"]["auth_token_count"], 1);
    for _ in 0..5 {
        login(PASSWORD).await;
    }
    let last = login(PASSWORD).await;
    assert_eq!(last.json["data"]["recent_login_ips"].as_array().map(Vec::len), Some(5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_says_what_it_has_wherever_it_is_shown() {
    let lab = Lab::start().await;
    let (session, project) = lab.alice().await;
    let container = lab.container(&session, &project, "web").await;
    let get = async |path: &str| {
        let reply = lab.send(Ask::new("GET", &format!("/api/v1/{path}")).by(&session)).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        reply.json["data"].clone()
    };
    let want = json!({ "cpu_cores": 12, "ram_gb": 31, "disk_gb": null, "shared_compute": true });
    let of: [Value; 3] = [
        get("servers").await[0]["server"]["specs"].clone(),
        get("servers/available").await[0]["specs"].clone(),
        get(&format!("containers/{container}")).await["server"]["specs"].clone(),
    ];
    for specs in of {
        assert_eq!(specs, want);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_beside_each_other_are_told_apart() {
    let (dir, limits) = (tempfile::tempdir().unwrap(), Limits::default());
    let signing = Signing::Claims;
    let lab = Lab::start_beside(dir, limits, signing, &["node-two"], &["node-away"]).await;
    let (session, project) = lab.alice().await;
    let get = async |path: &str| {
        let reply = lab.send(Ask::new("GET", &format!("/api/v1/{path}")).by(&session)).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        reply.json["data"].clone()
    };
    let column = |list: &Value, key: &str| -> Vec<String> {
        let list = list.as_array().unwrap().iter();
        list.map(|item| item[key].as_str().unwrap().to_owned()).collect()
    };
    let servers = get("servers").await;
    assert_eq!(column(&servers, "name"), ["node-away", "node-test", "node-two"]);
    assert_eq!(column(&servers, "status"), ["maintenance", "active", "active"]);
    assert_eq!(get("rentals").await, servers);
    assert_eq!(column(&get("servers/available").await, "name"), ["node-test", "node-two"]);
    let ids = column(&servers, "server_id");
    let status = async |id: &str| get(&format!("servers/{id}")).await["status"].clone();
    assert_eq!(
        (status(&ids[0]).await, status(&ids[2]).await),
        (json!("maintenance"), json!("ready"))
    );
    let create = async |server: &str| {
        let path = format!("/api/v1/projects/{project}/containers");
        let body = json!({ "server_id": server, "hoody_kit": true });
        lab.send(Ask::new("POST", &path).by(&session).body(&body)).await
    };
    let made = create(&ids[2]).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let made = &made.json["data"];
    assert_eq!((&made["server_id"], &made["server_name"]), (&json!(ids[2]), &json!("node-two")));
    assert_eq!(made["server"]["name"], "node-two");
    let url = made["service_urls"]["terminal"].to_string();
    assert!(url.contains("-terminal-1.node-two.containers.edge.test"), "{made}");
    let refused = create(&ids[0]).await;
    assert_eq!(refused.status, 503, "{}", refused.text);
    assert_eq!(refused.json["code"], "SERVER_NOT_CONFIGURED");
    let told = refused.json["message"].as_str().unwrap();
    assert!(told.contains("server node-away is not configured any more"), "{told}");
}
