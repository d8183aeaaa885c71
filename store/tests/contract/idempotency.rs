//! Idempotency keys.

use gantry_store::{Error, Idempotency};

use super::fixture::{NOW_MS, World};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
const BODY: [u8; 32] = [1; 32];

pub(crate) async fn a_key_is_fresh_once_and_then_answers(world: &World) {
    let store = &world.store;
    let begin = |scope, body| async move {
        store.idempotency_begin(scope, "key", &body, NOW_MS + 1).await.unwrap()
    };
    assert_eq!(begin("u1 POST /x", BODY).await, Idempotency::Fresh);
    assert_eq!(begin("u1 POST /x", BODY).await, Idempotency::InProgress);
    assert_eq!(begin("u1 POST /x", [2; 32]).await, Idempotency::Mismatch);
    assert_eq!(begin("u2 POST /x", BODY).await, Idempotency::Fresh);

    store.idempotency_finish("u1 POST /x", "key", 201, b"{}", NOW_MS + 2).await.unwrap();
    let done = Idempotency::Done { status: 201, body: b"{}".to_vec() };
    assert_eq!(begin("u1 POST /x", BODY).await, done);
    assert_eq!(begin("u1 POST /x", [2; 32]).await, Idempotency::Mismatch);
    for (scope, why) in [("u1 POST /x", "is finished"), ("u3 POST /x", "was never taken")] {
        let refused = store.idempotency_finish(scope, "key", 500, b"", NOW_MS).await.unwrap_err();
        assert!(matches!(refused, Error::NotFound), "the key {why}: {refused:?}");
    }
}

pub(crate) async fn an_abandoned_key_is_fresh_again(world: &World) {
    let store = &world.store;
    for _ in 0..2 {
        let found = store.idempotency_begin("s", "key", &BODY, NOW_MS).await.unwrap();
        assert_eq!(found, Idempotency::Fresh);
        store.idempotency_abandon("s", "key").await.unwrap();
    }
    store.idempotency_begin("s", "key", &BODY, NOW_MS).await.unwrap();
    store.idempotency_finish("s", "key", 201, b"", NOW_MS).await.unwrap();
    store.idempotency_abandon("s", "key").await.unwrap();
    let found = store.idempotency_begin("s", "key", &BODY, NOW_MS).await.unwrap();
    assert_eq!(found, Idempotency::Done { status: 201, body: Vec::new() }, "an answer stays");
}

pub(crate) async fn a_key_is_forgotten_after_a_day(world: &World) {
    let store = &world.store;
    store.idempotency_begin("s", "key", &BODY, NOW_MS).await.unwrap();
    store.idempotency_finish("s", "key", 201, b"x", NOW_MS).await.unwrap();
    for (at_ms, want) in [
        (NOW_MS + DAY_MS - 1, Idempotency::Done { status: 201, body: b"x".to_vec() }),
        (NOW_MS + DAY_MS, Idempotency::Fresh),
        (NOW_MS + DAY_MS, Idempotency::InProgress),
    ] {
        let found = store.idempotency_begin("s", "key", &BODY, at_ms).await.unwrap();
        assert_eq!(found, want, "at {at_ms}");
    }
}

pub(crate) async fn a_sweep_takes_what_is_old(world: &World) {
    let store = &world.store;
    for (key, at_ms) in [("old", NOW_MS), ("new", NOW_MS + 10)] {
        store.idempotency_begin("s", key, &BODY, at_ms).await.unwrap();
    }
    assert_eq!(store.sweep_idempotency(NOW_MS + 10).await.unwrap(), 1);
    for (key, want) in [("old", Idempotency::Fresh), ("new", Idempotency::InProgress)] {
        let found = store.idempotency_begin("s", key, &BODY, NOW_MS + 10).await.unwrap();
        assert_eq!(found, want, "{key}");
    }
}
