//! What runs inside containers, as the API shows it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::body::Bytes;
use gantry_runtime::{Error, ExecOutput, ExitStatus};
use serde_json::json;
use tokio::{sync::Semaphore, task::JoinSet};

use crate::lab::{Ask, Lab, PASSWORD};

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
    if started.elapsed() < Duration::from_secs(2) {
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

/// The containers print [`ANSWER`] when they are let; tells how often they were asked.
fn asked(lab: &Lab, let_go: &Arc<Semaphore>) -> Arc<AtomicU32> {
    let asked = Arc::new(AtomicU32::new(0));
    let (counts, let_go) = (Arc::clone(&asked), Arc::clone(let_go));
    lab.world.script(move |_id, _command| {
        counts.fetch_add(1, Ordering::Relaxed);
        let let_go = Arc::clone(&let_go);
        async move {
            drop(let_go.acquire().await);
            let stdout = Bytes::from_static(ANSWER.as_bytes());
            let (status, stderr) = (ExitStatus::Code(0), Bytes::new());
            Ok(ExecOutput { status, stdout, stderr, truncated: false })
        }
    });
    asked
}

/// This container prints [`ANSWER`], and no other says anything; tells how often the others were asked.
fn only_one_speaks(lab: &Lab, speaks: &str) -> Arc<AtomicU32> {
    let silent = Arc::new(AtomicU32::new(0));
    let (counts, speaks) = (Arc::clone(&silent), speaks.to_owned());
    lab.world.script(move |id, _command| {
        let is_silent = id.to_string() != speaks;
        counts.fetch_add(u32::from(is_silent), Ordering::Relaxed);
        async move {
            if is_silent {
                std::future::pending::<()>().await;
            }
            let stdout = Bytes::from_static(ANSWER.as_bytes());
            let (status, stderr) = (ExitStatus::Code(0), Bytes::new());
            Ok(ExecOutput { status, stdout, stderr, truncated: false })
        }
    });
    silent
}

/// Waits until so many have asked, and lets others do what they would do meanwhile.
async fn until_asked(asked: &AtomicU32, count: u32) {
    let waiting = async {
        while asked.load(Ordering::Relaxed) < count {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap();
    for _ in 0..2_000 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_many_ask_at_once_a_container_is_asked_once_and_to_the_end() {
    let lab = Arc::new(Lab::start().await);
    let let_go = Arc::new(Semaphore::new(0));
    let (token, project) = lab.alice().await;
    let id = lab.container(&token, &project, "web").await;
    let asked = asked(&lab, &let_go);
    let ask = Ask::new("GET", &format!("/api/v1/containers/{id}?runtime=true")).by(&token);
    let mut gone = JoinSet::new();
    let (of_gone, then) = (Arc::clone(&lab), ask.clone());
    gone.spawn(async move { of_gone.send(then).await });
    until_asked(&asked, 1).await;
    // This one leaves; what the container was asked goes on, for those who stay.
    gone.shutdown().await;
    let mut all = JoinSet::new();
    for _ in 0..8 {
        let (lab, ask) = (Arc::clone(&lab), ask.clone());
        all.spawn(async move { lab.send(ask).await });
    }
    until_asked(&asked, 1).await;
    let_go.add_permits(100);
    while let Some(reply) = all.join_next().await {
        let reply = reply.unwrap();
        let info = &reply.json["data"]["runtime_info"];
        assert_eq!(info["network_services"][0]["port"], 3000, "{}", reply.text);
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_does_not_say_what_runs_inside_is_left_alone_for_a_while() {
    let lab = Lab::start().await;
    let asked = Arc::new(AtomicU32::new(0));
    let counts = Arc::clone(&asked);
    lab.world.script(move |_id, _command| {
        counts.fetch_add(1, Ordering::Relaxed);
        async move { Err(Error::failed("running the command", "there is no shell")) }
    });
    let (token, project) = lab.alice().await;
    let id = lab.container(&token, &project, "web").await;
    for _ in 0..3 {
        let ask = Ask::new("GET", &format!("/api/v1/containers/{id}?runtime=true"));
        let reply = lab.send(ask.by(&token)).await;
        assert_eq!(reply.json["data"]["runtime_info"], json!(null), "{}", reply.text);
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

/// More silent ones than are asked at the same time do not add up, and hide nobody who speaks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_silent_containers_shows_what_is_known_of_the_others() {
    let lab = Lab::start().await;
    let (token, project) = lab.alice().await;
    let speaks = lab.container(&token, &project, "speaks").await;
    for at in 0..17 {
        lab.container(&token, &project, &format!("silent-{at}")).await;
    }
    let silent = only_one_speaks(&lab, &speaks);
    let one = Ask::new("GET", &format!("/api/v1/containers/{speaks}?runtime=true")).by(&token);
    lab.send(one).await;
    // The oldest first, so that it gets a turn even if what it has just said should count no more.
    let page = "/api/v1/containers/?runtime=true&limit=100&sort_by=created_at&sort_order=asc";
    let page = Ask::new("GET", page).by(&token);
    let first = lab.send(page.clone()).await;
    let listed = first.json["data"]["containers"].as_array().unwrap();
    assert_eq!(listed.len(), 18);
    for (at, container) in listed.iter().enumerate() {
        let info = &container["runtime_info"];
        if at == 0 {
            assert_eq!(container["id"], *speaks);
            assert_eq!(info["network_services"][0]["port"], 3000, "{container}");
        } else {
            assert_eq!(*info, json!(null), "{container}");
        }
    }
    // The second look costs no silent one a question before its time.
    let before = silent.load(Ordering::Relaxed);
    assert!(before <= 17, "each at most once: {before}");
    let again = lab.send(page).await;
    assert_eq!(again.status, 200);
    let all = silent.load(Ordering::Relaxed);
    assert!(all <= 17, "nobody is asked twice within the time that silence counts: {all}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_silent_containers_of_one_owner_hide_nobody_elses() {
    let lab = Arc::new(Lab::start().await);
    let (token, project) = lab.alice().await;
    for at in 0..17 {
        lab.container(&token, &project, &format!("silent-{at}")).await;
    }
    let bob = lab.login("bob", PASSWORD).await;
    let body = json!({ "alias": "home" });
    let made = lab.send(Ask::new("POST", "/api/v1/projects/").by(&bob).body(&body)).await;
    let project = made.json["data"]["id"].as_str().unwrap();
    let speaks = lab.container(&bob, project, "speaks").await;
    let silent = only_one_speaks(&lab, &speaks);
    let page = Ask::new("GET", "/api/v1/containers/?runtime=true&limit=100").by(&token);
    let (of_alice, mut tasks) = (Arc::clone(&lab), JoinSet::new());
    tasks.spawn(async move { of_alice.send(page).await });
    until_asked(&silent, 2).await;
    let one = Ask::new("GET", &format!("/api/v1/containers/{speaks}?runtime=true")).by(&bob);
    let shown = lab.send(one).await;
    let info = &shown.json["data"]["runtime_info"];
    assert_eq!(info["network_services"][0]["port"], 3000, "{}", shown.text);
}
