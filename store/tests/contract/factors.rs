//! Attempts with codes of a second factor.

use gantry_model::UserId;
use gantry_store::{ATTEMPTS_MAX, Attempt, Door, LOCKOUT_MAX_MS, LOCKOUT_MS, Shown, Store};

use super::fixture::{NOW_MS, World};

/// As many attempts as there are; how long the last one locks.
async fn lock(store: &Store, user: UserId, door: Door, now_ms: i64) -> i64 {
    for attempt in 1..ATTEMPTS_MAX {
        let counted = store.try_second_factor(user, door, now_ms).await.unwrap();
        assert!(
            matches!(counted, Attempt::Counted { locks_ms: None, .. }),
            "{attempt}: {counted:?}"
        );
    }
    match store.try_second_factor(user, door, now_ms).await.unwrap() {
        Attempt::Counted { locks_ms: Some(ms), .. } => ms,
        other @ (Attempt::Counted { .. } | Attempt::Locked { .. }) => panic!("{other:?}"),
    }
}

pub(crate) async fn each_door_has_attempts_of_its_own_and_locks_grow_up_to_a_day(world: &World) {
    let (store, user) = (&world.store, world.owner.id);
    store.begin_second_factor(user, b"secret", &[[1; 32], [2; 32]]).await.unwrap();
    let mut now_ms = NOW_MS;
    for (index, minutes) in [15, 30, 60, 120, 240, 480, 960, 1_440, 1_440].into_iter().enumerate() {
        let locks_ms = lock(store, user, Door::Password, now_ms).await;
        assert_eq!(locks_ms, minutes * 60_000, "lock {index}");
        let until_ms = now_ms + locks_ms;
        let locked = store.try_second_factor(user, Door::Password, until_ms - 1).await.unwrap();
        assert_eq!(locked, Attempt::Locked { until_ms });
        now_ms = until_ms;
    }
    assert_eq!(lock(store, user, Door::Session, now_ms).await, LOCKOUT_MS, "its own");
    assert_eq!(lock(store, user, Door::Password, now_ms).await, LOCKOUT_MAX_MS);
    // What is right at one door opens that one only, and the next lock is as short as the first.
    assert!(store.use_second_factor(user, Door::Session, Shown::Backup([1; 32])).await.unwrap());
    let still = store.try_second_factor(user, Door::Password, now_ms).await.unwrap();
    assert!(matches!(still, Attempt::Locked { .. }), "{still:?}");
    assert_eq!(lock(store, user, Door::Session, now_ms).await, LOCKOUT_MS);
    assert!(store.use_second_factor(user, Door::Password, Shown::Backup([2; 32])).await.unwrap());
    assert_eq!(lock(store, user, Door::Password, now_ms).await, LOCKOUT_MS);
    assert!(!store.use_second_factor(user, Door::Password, Shown::Backup([2; 32])).await.unwrap());
    let locked = store.try_second_factor(user, Door::Password, now_ms).await.unwrap();
    assert!(matches!(locked, Attempt::Locked { .. }), "a used one opens nothing: {locked:?}");
}

pub(crate) async fn a_new_secret_has_new_attempts(world: &World) {
    let (store, user) = (&world.store, world.owner.id);
    store.begin_second_factor(user, b"secret", &[]).await.unwrap();
    lock(store, user, Door::Session, NOW_MS).await;
    store.begin_second_factor(user, b"other", &[]).await.unwrap();
    assert_eq!(lock(store, user, Door::Session, NOW_MS).await, LOCKOUT_MS);
    let locked = store.enable_second_factor(user, 7, NOW_MS).await.unwrap();
    assert_eq!(locked, Some(2), "who comes with a code that is right was counted before");
    assert_eq!(lock(store, user, Door::Session, NOW_MS).await, LOCKOUT_MS);
    store.remove_second_factor(user, NOW_MS).await.unwrap();
    store.begin_second_factor(user, b"third", &[]).await.unwrap();
    assert_eq!(lock(store, user, Door::Session, NOW_MS).await, LOCKOUT_MS);
}
