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
