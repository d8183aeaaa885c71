//! What runs inside containers, as the API shows it.

use axum::body::Bytes;
use gantry_runtime::{ExecOutput, ExitStatus};
use serde_json::json;
use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use crate::lab::{Ask, Lab};

/// What a container with a web server prints.
const ANSWER: &str = "@@tcp
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 501 1
@@stat
77 (python3) S 1 77 77 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 5000 1 2
@@fd
/proc/77/fd:
lrwx------ 1 app app 64 Nov 26 18:15 3 -> socket:[501]
@@units
Id=cron.service
LoadState=loaded
ActiveState=active
SubState=running
@@cmd
/proc/77/cmdline:python3\0/proc/77/cmdline:-m\0";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_shows_what_runs_inside_it_and_is_asked_once_in_a_while() {
    let lab = Lab::start().await;
    let asked = Arc::new(AtomicU32::new(0));
    let counts = Arc::clone(&asked);
    lab.world.script(move |_id, _command| {
        counts.fetch_add(1, Ordering::Relaxed);
        let stdout = Bytes::from_static(ANSWER.as_bytes());
        let (status, stderr) = (ExitStatus::Code(0), Bytes::new());
        async move { Ok(ExecOutput { status, stdout, stderr, truncated: false }) }
    });
    let (token, project) = lab.alice().await;
    let id = lab.container(&token, &project, "web").await;
    let get = |query: &str| {
        Ask::new("GET", &format!("/api/v1/containers/{id}?runtime={query}")).by(&token)
    };
    let started = std::time::Instant::now();
    let all = lab.send(get("true")).await;
    let info = &all.json["data"]["runtime_info"];
    let port = &info["network_services"][0];
    assert_eq!(port["port"], 3000, "{}", all.text);
    assert_eq!(port["pid"], 77);
    assert_eq!(port["program"], "python3");
    assert_eq!(port["args"], "python3 -m");
    assert_eq!(info["services"][0]["unit"], "cron.service");
    assert_eq!((&info["terminals"], &info["displays"]), (&json!([]), &json!([])));
    for (query, names) in [
        ("%7B%7D", vec!["displays", "network_services", "services", "terminals"]),
        ("%7B%22services%22:true%7D", vec!["services"]),
        ("%7B%22services%22:true,%22displays%22:false%7D", vec!["services"]),
    ] {
        let reply = lab.send(get(query)).await;
        let info = reply.json["data"]["runtime_info"].as_object().unwrap();
        let mut found: Vec<&str> = info.keys().map(String::as_str).collect();
        found.sort_unstable();
        assert_eq!(found, names, "{query}");
    }
    let list = Ask::new("GET", "/api/v1/containers/?runtime=true").by(&token);
    let listed = lab.send(list).await;
    assert_eq!(listed.json["data"]["containers"][0]["runtime_info"], *info);
    if started.elapsed() < std::time::Duration::from_secs(2) {
        assert_eq!(asked.load(Ordering::Relaxed), 1, "an answer counts for two seconds");
    }
    let without = lab.send(get("false")).await;
    assert_eq!(without.json["data"].get("runtime_info"), None);
    for query in ["%7B%22ports%22:true%7D", "%7B%22services%22:1%7D", "%5B%5D", "maybe"] {
        let reply = lab.send(get(query)).await;
        assert_eq!(reply.status, 400, "{query}: {}", reply.text);
        assert_eq!(reply.json["data"][0]["field"], "runtime", "{query}");
    }
    let pause = Ask::new("POST", &format!("/api/v1/containers/{id}/pause")).by(&token);
    assert_eq!(lab.send(pause).await.status, 200);
    let paused = lab.send(get("true")).await;
    assert_eq!(paused.json["data"]["runtime_info"], json!(null), "{}", paused.text);
}
