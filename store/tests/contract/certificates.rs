//! Certificates, and what was asked of their CAs.

use std::time::Duration;

use gantry_store::{Error, Issued, Lease, Use};

use super::fixture::{NOW_MS, World};

const NAME: &str = "shop.example.com";
const HOUR_MS: i64 = 3_600_000;

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn issued(serial: &str) -> Issued {
    Issued {
        chain: "a chain".to_owned(),
        key_sealed: vec![1],
        serial: serial.to_owned(),
        directory: "https://ca/".to_owned(),
        not_before_ms: NOW_MS,
        not_after_ms: NOW_MS + 100 * HOUR_MS,
    }
}

async fn lease(world: &World) -> Lease {
    let lease = world.store.take_lease("certificate", [1; 16], Duration::from_mins(1)).await;
    lease.unwrap().unwrap()
}

pub(crate) async fn a_plan_holds_only_for_the_record_that_it_was_made_for(world: &World) {
    let (store, lease) = (&world.store, lease(world).await);
    let wanted = names(&[NAME]);
    store.want_certificate(NAME, &wanted, NOW_MS).await.unwrap();
    let due = NOW_MS + 60 * HOUR_MS;
    store.put_certificate((NAME, &wanted), issued("01"), due, &lease, NOW_MS).await.unwrap();
    let read = store.certificate(NAME).await.unwrap().unwrap();
    // While the CA is asked when to renew, somebody wants it now.
    store.hasten_certificate(NAME, NOW_MS).await.unwrap();
    let plan = async |version| {
        store.plan_certificate((NAME, version), due, NOW_MS + HOUR_MS, &lease).await.unwrap()
    };
    assert!(!plan(read.version).await);
    let read = store.certificate(NAME).await.unwrap().unwrap();
    assert_eq!((read.due_at_ms, read.asked_at_ms), (NOW_MS, None));
    assert!(plan(read.version).await);
    let read = store.certificate(NAME).await.unwrap().unwrap();
    assert_eq!((read.due_at_ms, read.asked_at_ms), (due, Some(NOW_MS + HOUR_MS)));
    store.revoke_certificate(NAME, None, 0, NOW_MS).await.unwrap();
    assert!(!plan(read.version).await);
    assert_eq!(store.certificate(NAME).await.unwrap().unwrap().due_at_ms, NOW_MS);
}

pub(crate) async fn a_wish_during_an_attempt_outlives_its_failure(world: &World) {
    let (store, lease) = (&world.store, lease(world).await);
    let read = store.want_certificate(NAME, &names(&[NAME]), NOW_MS).await.unwrap();
    let fail = async |version| {
        let (later, of) = (NOW_MS + HOUR_MS, (NAME, version));
        store.note_failed_certificate(of, "no", later, &lease, NOW_MS + 2).await.unwrap();
        store.certificate(NAME).await.unwrap().unwrap()
    };
    let read = fail(read.version).await;
    assert_eq!((read.due_at_ms, read.attempts), (NOW_MS + HOUR_MS, 1));
    store.hasten_certificate(NAME, NOW_MS + 1).await.unwrap();
    let read = fail(read.version).await;
    assert_eq!((read.due_at_ms, read.attempts), (NOW_MS + 1, 2));
    assert_eq!(fail(read.version).await.due_at_ms, NOW_MS + HOUR_MS);
}

pub(crate) async fn what_comes_for_other_names_than_are_wanted_is_not_taken(world: &World) {
    let (store, lease) = (&world.store, lease(world).await);
    let (ordered, wanted) = (names(&[NAME]), names(&[NAME, "www.example.com"]));
    store.want_certificate(NAME, &ordered, NOW_MS).await.unwrap();
    store.want_certificate(NAME, &wanted, NOW_MS + 1).await.unwrap();
    let due = NOW_MS + 60 * HOUR_MS;
    let put = async |names: &[String]| {
        store.put_certificate((NAME, names), issued("01"), due, &lease, NOW_MS + 2).await
    };
    assert!(matches!(put(&ordered).await, Err(Error::Stale)));
    let read = store.certificate(NAME).await.unwrap().unwrap();
    assert_eq!((read.issued, read.due_at_ms), (None, NOW_MS + 1));
    put(&wanted).await.unwrap();
    assert_eq!(store.certificate(NAME).await.unwrap().unwrap().issued, Some(issued("01")));
}

pub(crate) async fn a_ca_is_left_alone_until_it_says_and_no_longer(world: &World) {
    let store = &world.store;
    let of = |subject: &str| Use {
        directory: "https://ca/".to_owned(),
        kind: "held",
        subject: subject.to_owned(),
    };
    let held = async |subject: &str, now| {
        store.acme_use_held(&of(subject), now, NOW_MS + 24 * HOUR_MS).await.unwrap()
    };
    assert_eq!(held("a", NOW_MS).await, None);
    store.hold_acme_uses(&[of("a"), of("b")], NOW_MS + 2 * HOUR_MS).await.unwrap();
    store.hold_acme_uses(&[of("b")], NOW_MS + HOUR_MS).await.unwrap();
    // Noted by a clock that was days ahead.
    store.hold_acme_uses(&[of("c")], NOW_MS + 99 * HOUR_MS).await.unwrap();
    // What is counted of uses is something else, and takes away nothing.
    store.note_acme_uses(&[of("d")], NOW_MS - HOUR_MS, NOW_MS).await.unwrap();
    assert_eq!(held("a", NOW_MS).await, Some(NOW_MS + 2 * HOUR_MS));
    assert_eq!(held("b", NOW_MS).await, Some(NOW_MS + HOUR_MS));
    assert_eq!(held("b", NOW_MS + HOUR_MS).await, None);
    assert_eq!((held("c", NOW_MS).await, held("d", NOW_MS).await), (None, None));
}
