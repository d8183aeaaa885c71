//! What the machine of a server does, and what can be run there.

use std::collections::BTreeMap;

use gantry_control::{Limits, Signing};
use serde_json::{Value, json};

use crate::lab::{Ask, Lab};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_logged_in_sees_what_the_machine_does() {
    let lab = Lab::start().await;
    let (session, _) = lab.alice().await;
    let body = json!({ "alias": "all", "permission_template": "full_access" });
    let made = lab.send(Ask::new("POST", "/api/v1/auth/tokens").by(&session).body(&body)).await;
    let token = made.json["data"]["token"].as_str().unwrap().to_owned();
    let mut seen = Vec::new();
    for place in ["servers", "rentals"] {
        let path = format!("/api/v1/{place}/{}/runtime", lab.server);
        let reply = lab.send(Ask::new("GET", &path).by(&session)).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let data = &reply.json["data"];
        assert_eq!((&data["scope"], &data["stale"]), (&json!("server"), &json!(false)));
        assert!(data["cores"].as_u64() > Some(0) && data["uptime_s"].as_u64() > Some(0), "{data}");
        for number in [&data["load"]["1"], &data["load"]["15"], &data["cpu"]["busy_pct"]] {
            assert!(number.as_f64().is_some_and(|number| number >= 0.0), "{data}");
        }
        let of = |name: &str| data["mem"][name].as_u64().unwrap();
        assert!(of("used_bytes") > 0 && of("used_bytes") <= of("total_bytes"), "{data}");
        let percent = data["mem"]["pct"].as_f64().unwrap();
        assert!((0.0..=100.0).contains(&percent), "{data}");
        assert_eq!(data["storage"], Value::Null, "these containers lie nowhere");
        seen.push((data["ts"].clone(), data["cache_age_ms"].as_u64().unwrap()));
        assert_eq!(lab.send(Ask::new("GET", &path).by(&token)).await.status, 403, "no token");
        assert_eq!(lab.send(Ask::new("GET", &path)).await.status, 401);
    }
    assert!(seen[0].0 == seen[1].0 || seen[1].1 < 2000, "one look serves both: {seen:?}");
    let unknown = Ask::new("GET", "/api/v1/servers/abcdef0123456789abcdef01/runtime").by(&session);
    assert_eq!(lab.send(unknown).await.status, 404);
}

/// What is said of a disk is about that of the server that is asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_server_has_its_own_storage() {
    let dir = tempfile::tempdir().unwrap();
    let (limits, signing) = (Limits::default(), Signing::Claims);
    let lab = Lab::start_beside(dir, limits, signing, &["node-two"], &["node-gone"]).await;
    let (session, project) = lab.alice().await;
    let get = async |path: &str| {
        let reply = lab.send(Ask::new("GET", &format!("/api/v1/{path}")).by(&session)).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text);
        reply.json["data"].clone()
    };
    let listed = get("servers").await;
    let seen = listed.as_array().unwrap().iter().map(|server| {
        let specs = &server["server"]["specs"];
        (server["name"].as_str().unwrap(), (specs["cpu_cores"].clone(), specs["disk_gb"].clone()))
    });
    let want = [
        ("node-test", (json!(12), Value::Null)),
        ("node-two", (json!(12), json!(5))),
        ("node-gone", (Value::Null, Value::Null)),
    ];
    assert_eq!(seen.collect::<BTreeMap<_, _>>(), BTreeMap::from(want));
    let two = listed.as_array().unwrap().iter().find(|server| server["name"] == "node-two");
    let two = two.unwrap()["id"].as_str().unwrap();
    let first = get(&format!("servers/{}/runtime", lab.server)).await;
    let second = get(&format!("servers/{two}/runtime")).await;
    assert_eq!(first["storage"], Value::Null);
    assert!(second["storage"]["total_bytes"].as_u64() > Some(0), "{second}");
    assert_eq!(first["cores"], second["cores"], "it is one machine");
    let body = json!({ "server_id": two, "name": "there" });
    let path = format!("/api/v1/projects/{project}/containers");
    let made = lab.send(Ask::new("POST", &path).by(&session).body(&body)).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let id = made.json["data"]["id"].as_str().unwrap();
    assert_eq!(get(&format!("containers/{id}")).await["server"]["specs"]["disk_gb"], 5);
}

#[tokio::test]
async fn no_command_can_be_run_and_that_is_said() {
    let lab = Lab::start().await;
    let (session, _) = lab.alice().await;
    let path = format!("/api/v1/servers/{}", lab.server);
    let list = Ask::new("GET", &format!("{path}/available-commands")).by(&session);
    let listed = lab.send(list).await;
    assert_eq!(listed.json["data"]["commands"], json!([]), "{}", listed.text);
    assert_eq!(listed.json["data"]["server_info"]["id"], lab.server.to_string());
    let run = Ask::new("POST", &format!("{path}/execute-command")).by(&session);
    for (body, status, why) in [
        (json!({ "command_slug": "reboot", "wait": true, "timeout": 60 }), 404, "no such command"),
        (json!({ "command_slug": 5 }), 400, "command_slug"),
        (json!({ "argv": ["reboot"] }), 400, "argv"),
    ] {
        let reply = lab.send(run.clone().body(&body)).await;
        assert_eq!(reply.status, status, "{body}: {}", reply.text);
        assert!(reply.text.contains(why), "{body}: {}", reply.text);
    }
}
