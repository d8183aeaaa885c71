//! Containers that sleep: who wakes them, who waits, and what keeps them awake.

use std::{net::SocketAddr, sync::Arc};

use gantry_model::{
    Generation, Phase, Service,
    edge::{EdgeSettings, WakePolicy},
};
use gantry_proxy::Limits;
use gantry_store::{EdgeRecord, RouteRecord};

use crate::{
    bed::{Bed, CONTAINER, OWN_PORT, PROJECT, Setup, host, now_ms},
    origin::{self, Origin},
};

const NAVIGATE: &str = "Accept: text/html\r\nSec-Fetch-Mode: navigate\r\n";

/// The container of the test, with settings of its owner's.
fn put(bed: &Bed, phase: Phase, settings: EdgeSettings) {
    let edge = EdgeRecord {
        project: None,
        container: None,
        hooks: Vec::new(),
        settings,
        aliases: Vec::new(),
    };
    bed.set_record(RouteRecord {
        container: CONTAINER.parse().unwrap(),
        project: PROJECT.parse().unwrap(),
        server: crate::bed::SERVER,
        hoody_kit: true,
        ssh_key: None,
        ssh_forwarding: true,
        phase,
        address: Some(bed.container_address(2)),
        generation: Generation(1),
        started_at_ms: Some(0),
        why_failed: false,
        edge: Some(Arc::new(edge)),
    });
}

fn asleep(bed: &Bed, wake: WakePolicy) -> Origin {
    put(bed, Phase::Paused, EdgeSettings { wake, ..EdgeSettings::default() });
    Origin::simple(SocketAddr::new(bed.container_address(2), 3000))
}

fn woken(bed: &Bed) -> usize {
    bed.waker.woken.lock().unwrap().len()
}

#[test]
fn a_request_wakes_a_container_and_is_answered_by_it() {
    for phase in [Phase::Paused, Phase::Stopped] {
        let bed = Bed::new(230);
        let _origin = asleep(&bed, WakePolicy::Any);
        put(&bed, phase, EdgeSettings { wake: WakePolicy::Any, ..EdgeSettings::default() });
        let name = host(CONTAINER, "http-3000");
        let mut clients: Vec<_> = (0..8).map(|_| bed.client()).collect();
        for client in &mut clients {
            client.send(format!("POST /x HTTP/1.1\r\nHost: {name}\r\nContent-Length: 2\r\n\r\nhi"));
        }
        for client in &mut clients {
            assert_eq!(client.reply().status, 200);
        }
        assert_eq!(woken(&bed), 1, "woken once for all of them");
        assert_eq!(bed.client().get(&name, "/", NAVIGATE).status, 200);
        assert_eq!(woken(&bed), 1);
        bed.wait_metric("gantry_proxy_wakes_total", 1.0);
    }
}

#[test]
fn who_may_wake_a_container_is_its_owners_choice() {
    let name = host(CONTAINER, "http-3000");
    for (policy, fields, wakes) in [
        (WakePolicy::Never, "", false),
        (WakePolicy::Never, NAVIGATE, false),
        (WakePolicy::Navigate, "", false),
        (WakePolicy::Navigate, "Sec-Fetch-Mode: cors\r\n", false),
        (WakePolicy::Navigate, NAVIGATE, true),
        (WakePolicy::Any, "", true),
        (WakePolicy::Authed, "", false),
        (WakePolicy::Authed, NAVIGATE, false),
    ] {
        let bed = Bed::new(231);
        let _origin = asleep(&bed, policy);
        let reply = bed.client().get(&name, "/", fields);
        assert_eq!(woken(&bed), usize::from(wakes), "{policy:?} {fields}");
        if wakes {
            assert_eq!(reply.status, 200, "{policy:?} {fields}");
        } else {
            assert_eq!((reply.status, reply.code()), (503, Some("CONTAINER_PAUSED")));
            assert_eq!(reply.value("retry-after"), Some("30"));
        }
    }
}

#[test]
fn a_failed_container_is_not_woken() {
    let bed = Bed::new(232);
    put(&bed, Phase::Failed, EdgeSettings { wake: WakePolicy::Any, ..EdgeSettings::default() });
    let reply = bed.client().get(&host(CONTAINER, "http-3000"), "/", "");
    assert_eq!((reply.status, reply.code()), (503, Some("CONTAINER_FAILED")));
    assert_eq!(woken(&bed), 0);
}

#[test]
fn one_that_does_not_wake_is_said_to_without_the_reason() {
    let bed = Bed::with(233, Setup { wakes: false, ..Setup::default() });
    let _origin = asleep(&bed, WakePolicy::Any);
    let reply = bed.client().get(&host(CONTAINER, "http-3000"), "/", "");
    assert_eq!((reply.status, reply.code()), (503, Some("CONTAINER_NOT_WOKEN")));
    assert!(!reply.text().contains("secret"), "{}", reply.text());
}

#[test]
fn whoever_waits_too_long_is_told_when_to_come_back() {
    let limits =
        Limits { wake_timeout: std::time::Duration::from_millis(300), ..Limits::default() };
    let bed = Bed::with(234, Setup { limits, ..Setup::default() });
    put(&bed, Phase::Starting, EdgeSettings { wake: WakePolicy::Any, ..EdgeSettings::default() });
    bed.waker.never();
    let name = host(CONTAINER, "http-3000");
    let reply = bed.client().get(&name, "/", "Accept: application/json\r\n");
    assert_eq!((reply.status, reply.code()), (503, Some("CONTAINER_WAKING")));
    assert_eq!(reply.value("retry-after"), Some("1"));
    let page = bed.client().get(&name, "/", NAVIGATE);
    assert_eq!(page.code(), Some("CONTAINER_WAKING"));
    // So many seconds of those that it has.
    assert!(page.text().contains("max=1 value=0></progress>"), "{}", page.text());
    assert!(page.text().contains("is starting: 0 s so far, 1 s at most"), "{}", page.text());
    assert!(page.text().contains("http-equiv=refresh"), "{}", page.text());
}

#[test]
fn a_port_that_opens_late_after_the_wake_is_waited_for() {
    let own = OWN_PORT + Service::Code as u16;
    for (number, service, port) in [(235, "http-3000", 3000), (91, "code-1", own)] {
        let bed = Bed::new(number);
        put(
            &bed,
            Phase::Stopped,
            EdgeSettings { wake: WakePolicy::Any, ..EdgeSettings::default() },
        );
        let mut client = bed.client();
        let name = host(CONTAINER, service);
        client.send(format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n"));
        bed.wait_metric("gantry_proxy_wakes_total", 1.0);
        let failures = "gantry_proxy_upstream_connect_failures_total";
        bed.wait_metric_at_least(failures, 1.0);
        let _late = Origin::simple(SocketAddr::new(bed.container_address(2), port));
        assert_eq!(client.reply().status, 200, "{service}");
    }
}

/// Whether the container of the test is found idle `minutes` from now.
fn is_idle_in(bed: &Bed, minutes: i64) -> bool {
    let idle = bed.activity.idle(&bed.routes, 0, now_ms() + minutes * 60_000);
    idle == [CONTAINER.parse().unwrap()]
}

fn sleeper(bed: &Bed) {
    put(
        bed,
        Phase::Running,
        EdgeSettings { idle_pause_after: Some(600), ..EdgeSettings::default() },
    );
}

#[test]
fn a_quiet_container_is_idle_and_a_busy_one_is_not() {
    let bed = Bed::new(236);
    sleeper(&bed);
    let _origin = Origin::simple(SocketAddr::new(bed.container_address(2), 3000));
    assert!(is_idle_in(&bed, 0), "since the beginning of time");
    assert_eq!(bed.client().get(&host(CONTAINER, "http-3000"), "/", "").status, 200);
    assert!(!is_idle_in(&bed, 9));
    assert!(is_idle_in(&bed, 11));
    put(
        &bed,
        Phase::Paused,
        EdgeSettings { idle_pause_after: Some(600), ..EdgeSettings::default() },
    );
    assert!(!is_idle_in(&bed, 11), "it sleeps already");
    put(&bed, Phase::Running, EdgeSettings::default());
    assert!(!is_idle_in(&bed, 11), "its owner wants it to run");
}

#[test]
fn pollers_do_not_keep_a_container_awake_and_whoever_changes_something_does() {
    let bed = Bed::new(119);
    sleeper(&bed);
    let _origin = Origin::start(SocketAddr::new(bed.container_address(2), 3000), |_, stream| {
        origin::reply(stream, "", &"x".repeat(700));
    });
    let name = host(CONTAINER, "http-3000");
    let is_idle_after = |ms: i64| {
        let idle = bed.activity.idle(&bed.routes, 0, ms + 600_000);
        idle == [CONTAINER.parse().unwrap()]
    };
    let mut client = bed.client();
    let mut poll = || assert_eq!(client.get(&name, "/status", "").status, 200);
    (0..5).for_each(|_| poll());
    let since = now_ms() + 1;
    // Far more than a trickle, if it were added up.
    (0..50).for_each(|_| poll());
    while now_ms() < since + 10 {
        poll();
    }
    assert!(is_idle_after(since), "polls count");
    // The same thing over and over, but by who writes.
    let mut client = bed.client();
    for _ in 0..10 {
        client.send(format!("POST /save HTTP/1.1\r\nHost: {name}\r\nContent-Length: 1\r\n\r\nx"));
        assert_eq!(client.reply().status, 200);
    }
    let before_the_last = now_ms() - 5;
    client.send(format!("POST /save HTTP/1.1\r\nHost: {name}\r\nContent-Length: 1\r\n\r\nx"));
    assert_eq!(client.reply().status, 200);
    assert!(!is_idle_after(before_the_last), "a change does not count");
}

#[test]
fn a_request_that_is_being_answered_keeps_its_container_busy() {
    let bed = Bed::new(127);
    sleeper(&bed);
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let origin =
        Origin::start(SocketAddr::new(bed.container_address(2), 3000), move |_, stream| {
            wait.lock().unwrap().recv().unwrap();
            origin::reply(stream, "", "done");
        });
    let mut client = bed.client();
    let name = host(CONTAINER, "http-3000");
    client.send(format!("GET /compute HTTP/1.1\r\nHost: {name}\r\n\r\n"));
    origin.wait_seen(1);
    assert!(!is_idle_in(&bed, 1_000_000), "it computes");
    go.send(()).unwrap();
    assert_eq!(client.reply().status, 200);
    assert!(!is_idle_in(&bed, 9));
    assert!(is_idle_in(&bed, 11));
}
