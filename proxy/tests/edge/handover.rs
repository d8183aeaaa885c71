//! Another edge takes over the sockets of one that has clients.

use std::{
    sync::{Mutex, mpsc},
    time::{Duration, Instant},
};

use gantry_proxy::Edge;

use crate::{
    bed::{Bed, CONTAINER, Setup, host},
    origin::{Origin, reply},
    python,
};

/// A container that answers `/slow` when it is told to.
fn slow(bed: &Bed) -> (Origin, mpsc::Sender<()>) {
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let origin = bed.running_with(move |seen, stream| {
        if seen.line().contains("/slow") {
            wait.lock().unwrap().recv_timeout(Duration::from_mins(1)).unwrap();
        }
        reply(stream, "", "at last");
    });
    (origin, go)
}

/// Has a second edge take over; returns the first one, which was not told to go yet.
fn follow(bed: &mut Bed, workers: usize) -> Edge {
    let first = bed.edge.take().unwrap();
    let (mut config, deps) = bed.made.lock().unwrap().clone();
    let addresses = first.addresses().clone();
    config.workers = workers;
    config.listen_https = addresses.https;
    config.listen_http = addresses.http;
    config.listen_plain = addresses.plain;
    config.listen_admin = addresses.admin;
    let second = Edge::prepare(config, deps, first.sockets().unwrap()).unwrap();
    assert_eq!(second.addresses(), first.addresses());
    second.begin().unwrap();
    bed.edge = Some(second);
    first
}

#[test]
fn what_was_begun_ends_at_the_first_and_what_begins_comes_to_the_second() {
    // With fewer workers and with more than there are sockets.
    for (before, after) in [(3, 2), (1, 3)] {
        let mut bed = Bed::with(91, Setup { workers: before, ..Setup::default() });
        let (origin, go) = slow(&bed);
        let name = host(CONTAINER, "http-3000");
        let (mut idle, mut fresh, mut busy) = (bed.client(), bed.client(), bed.client());
        assert_eq!(idle.get(&name, "/", "").status, 200);
        busy.send(format!("GET /slow HTTP/1.1\r\nHost: {name}\r\n\r\n"));
        origin.wait_seen(2);
        let first = follow(&mut bed, after);
        let runtime = bed.runtime.take().unwrap();
        let left = runtime.spawn(first.hand_over(Duration::from_mins(1)));
        for _ in 0..20 {
            assert_eq!(bed.client().get(&name, "/", "").status, 200);
        }
        // Those that wait for a request get it answered, the first one and any other, and then end.
        for waiting in [&mut idle, &mut fresh] {
            let end = Instant::now() + Duration::from_secs(10);
            loop {
                let reply = waiting.get(&name, "/", "");
                assert_eq!(reply.status, 200);
                if reply.value("connection") == Some("close") {
                    break;
                }
                assert!(Instant::now() < end, "it is never told to go");
                std::thread::park_timeout(Duration::from_millis(20));
            }
            assert!(waiting.is_closed());
        }
        assert!(!left.is_finished(), "a request is still under way");
        go.send(()).unwrap();
        assert_eq!(busy.reply().text(), "at last");
        runtime.block_on(left).unwrap();
        assert_eq!(bed.client().get(&name, "/", "").status, 200);
        runtime.block_on(bed.edge.take().unwrap().drain(Duration::from_secs(5)));
        runtime.shutdown_background();
    }
}

#[test]
fn connections_of_http3_stay_where_they_are() {
    let mut bed = Bed::with(92, Setup { workers: 2, ..Setup::default() });
    let (origin, go) = slow(&bed);
    let ask = |bed: &Bed, mode| {
        python::ask(bed, "http3_client.py", &host(CONTAINER, "http-3000"), &[mode])
    };
    let mut seen = 0;
    // From one bank of sockets to the other, and back again.
    for _ in 0..2 {
        let Some(mut waiting) = ask(&bed, "drained") else { return };
        waiting.says("open");
        seen += 2;
        origin.wait_seen(seen);
        let first = follow(&mut bed, 2);
        let stopper = first.stopper();
        let runtime = bed.runtime.take().unwrap();
        let left = runtime.spawn(first.hand_over(Duration::from_mins(1)));
        for _ in 0..3 {
            ask(&bed, "moves").unwrap().ends();
            seen += 8;
        }
        assert!(!left.is_finished(), "a request is still under way");
        go.send(()).unwrap();
        waiting.ends();
        runtime.block_on(stopper.end_http3(Duration::from_secs(20)));
        runtime.block_on(left).unwrap();
        bed.runtime = Some(runtime);
    }
    // One that does not end in time is cut, because the next needs its sockets.
    let Some(mut waiting) = ask(&bed, "drained") else { return };
    waiting.says("open");
    origin.wait_seen(seen + 2);
    let first = follow(&mut bed, 2);
    let (stopper, runtime) = (first.stopper(), bed.runtime.take().unwrap());
    let left = runtime.spawn(first.hand_over(Duration::from_mins(1)));
    runtime.block_on(stopper.end_http3(Duration::from_millis(200)));
    runtime.block_on(left).unwrap();
    go.send(()).unwrap();
    bed.runtime = Some(runtime);
}
