//! Renewal, with a clock that the test turns.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use crate::support::{now, open};
use gantry_certs::{Renewer, Resolver};
use rustls::sign::CertifiedKey;
use tokio_util::sync::CancellationToken;

const DAY: i64 = 86_400;

/// The certificate after the renewer had time for a few rounds; the time is tokio's, not ours.
async fn after_some_rounds(resolver: &Resolver, hostname: &str) -> Arc<CertifiedKey> {
    tokio::time::sleep(Duration::from_hours(1)).await;
    resolver.certificate(hostname).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_replaced_at_two_thirds_of_its_life() {
    let dir = tempfile::tempdir().unwrap();
    let (start, elapsed) = (now(), Arc::new(AtomicI64::new(0)));
    let seconds = Arc::clone(&elapsed);
    let clock = Arc::new(move || start + time::Duration::seconds(seconds.load(Ordering::SeqCst)));
    let sets = [
        vec!["a.gantry.localhost".to_owned(), "*.a.gantry.localhost".to_owned()],
        vec!["b.gantry.localhost".to_owned()],
    ];
    let (resolver, renewer) = Renewer::start(open(dir.path()), &sets, clock).unwrap();
    let first = resolver.certificate("x.a.gantry.localhost").unwrap();
    let other = resolver.certificate("b.gantry.localhost").unwrap();
    assert!(!Arc::ptr_eq(&first, &other), "each set has its own");

    let shutdown = CancellationToken::new();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(renewer.run(shutdown.clone()));

    elapsed.store(19 * DAY, Ordering::SeqCst);
    let same = after_some_rounds(&resolver, "a.gantry.localhost").await;
    assert!(Arc::ptr_eq(&first, &same), "not due after 19 days");

    elapsed.store(20 * DAY, Ordering::SeqCst);
    let second = after_some_rounds(&resolver, "a.gantry.localhost").await;
    assert!(!Arc::ptr_eq(&first, &second), "due after 20 days");
    assert!(!Arc::ptr_eq(&other, &resolver.certificate("b.gantry.localhost").unwrap()));
    assert!(resolver.covers(Some("x.a.gantry.localhost"), "a.gantry.localhost"));

    elapsed.store(-DAY, Ordering::SeqCst);
    let third = after_some_rounds(&resolver, "a.gantry.localhost").await;
    assert!(!Arc::ptr_eq(&second, &third), "the clock was set back to before its validity");

    shutdown.cancel();
    tasks.join_next().await.unwrap().unwrap();
}

#[test]
fn a_name_that_cannot_be_had_fails_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let sets = [vec!["example.com".to_owned()]];
    let error = Renewer::start(open(dir.path()), &sets, Arc::new(now)).unwrap_err();
    assert!(error.to_string().contains("not under gantry.localhost"), "{error}");
}
