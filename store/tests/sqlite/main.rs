//! The contract on SQLite, and what only a store in a file can do.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test's helpers fail by panicking and talk to their parent by printing"
)]

#[macro_use]
#[path = "../contract/mod.rs"]
mod contract;
mod crash;
mod full_disk;
mod small_disk;

use std::os::unix::fs::PermissionsExt as _;

use contract::fixture::{ALL, EVERY, NOW_MS, World, token};
use gantry_store::{Changes, Error, Idempotency, OpenError, Outage, Revision, Store};

async fn open() -> (Store, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (Store::open(&dir.path().join("gantry.db")).await.unwrap(), dir)
}

contract!(crate::open);

#[tokio::test]
async fn reopening_keeps_everything() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gantry.db");
    let world = World::new(Store::open(&path).await.unwrap()).await;
    let epoch = world.store.epoch();
    let one = world.create("one").await;
    let two = world.create("two").await;
    world.store.remove_container(two.id, NOW_MS).await.unwrap();
    let token = token(&world.owner, "token");
    world.store.create_token(&token).await.unwrap();
    world.store.get_or_insert_secret("jwt", b"secret").await.unwrap();
    for (key, finished) in [("done", true), ("cut off", false)] {
        world.store.idempotency_begin("s", key, &[1; 32], NOW_MS).await.unwrap();
        if finished {
            world.store.idempotency_finish("s", key, 201, b"", NOW_MS).await.unwrap();
        }
    }
    world.store.close().await;
    assert!(!dir.path().join("gantry.db-wal").exists(), "an end in order leaves no log");

    let store = Store::open(&path).await.unwrap();
    assert_eq!(store.epoch(), epoch);
    assert_eq!(*store.head().borrow(), Revision(3));
    assert_eq!(store.container(one.id).await.unwrap(), Some(one));
    assert_eq!(store.container(two.id).await.unwrap(), None);
    assert_eq!(store.project(world.project.id).await.unwrap(), Some(world.project));
    assert_eq!(store.user(world.owner.id).await.unwrap(), Some(world.owner));
    assert_eq!(store.token_by_hash(&token.hash).await.unwrap(), Some(token));
    assert_eq!(store.servers().await.unwrap(), [world.server]);
    assert_eq!(store.get_or_insert_secret("jwt", b"other").await.unwrap(), b"secret");
    let found = store.changes(Revision(0), 10).await.unwrap();
    assert!(matches!(found, Changes::Since { ref changes, .. } if changes.len() == 3), "{found:?}");
    for (key, want) in [
        ("done", Idempotency::Done { status: 201, body: Vec::new() }),
        // Whoever worked on it is gone.
        ("cut off", Idempotency::Fresh),
    ] {
        assert_eq!(store.idempotency_begin("s", key, &[1; 32], NOW_MS).await.unwrap(), want);
    }
}

#[tokio::test]
async fn a_closed_store_refuses_and_two_stores_have_two_epochs() {
    let ((one, _one_dir), (two, _two_dir)) = (open().await, open().await);
    assert_ne!(one.epoch(), two.epoch());
    let world = World::new(one).await;
    let clone = world.store.clone();
    world.store.close().await;
    clone.close().await;
    let write = clone.create_container(&world.container("late")).await.unwrap_err();
    let read = clone.container(world.container("late").id).await.unwrap_err();
    for refused in [write, read] {
        assert!(matches!(refused, Error::Unavailable(Outage::Closed)), "{refused:?}");
    }
}

#[tokio::test]
async fn closing_writes_what_is_queued() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gantry.db");
    let world = World::new(Store::open(&path).await.unwrap()).await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..200 {
        let (store, container) = (world.store.clone(), world.container(&format!("n-{number}")));
        tasks.spawn(async move { store.create_container(&container).await });
    }
    // The current-thread runtime runs all of them up to the queue before this task goes on.
    tokio::task::yield_now().await;
    world.store.close().await;
    let made = tasks.join_all().await.into_iter().flatten().count();
    assert!(made > 0, "something was queued");
    let store = Store::open(&path).await.unwrap();
    assert_eq!(store.containers(EVERY, ALL).await.unwrap().total, made as u64);
}

#[tokio::test]
async fn a_backup_is_a_store_and_only_its_owner_may_read_it() {
    let (store, dir) = open().await;
    let world = World::new(store).await;
    let one = world.create("one").await;
    let copy = dir.path().join("copy.db");
    world.store.backup(&copy).await.unwrap();
    world.create("two").await;
    world.store.backup(&copy).await.unwrap_err();
    for file in [&copy, &dir.path().join("gantry.db")] {
        let mode = std::fs::metadata(file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", file.display());
    }
    let store = Store::open(&copy).await.unwrap();
    assert_eq!(store.containers(EVERY, ALL).await.unwrap().items, [one]);
}

#[tokio::test]
async fn what_is_no_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gantry.db");
    std::fs::write(&path, "not a database, but long enough to look like one ".repeat(100)).unwrap();
    let refused = Store::open(&path).await.unwrap_err();
    assert!(matches!(refused, OpenError::Open { .. }), "{refused:?}");
    let refused = Store::open(&dir.path().join("no/such/folder.db")).await.unwrap_err();
    assert!(matches!(refused, OpenError::Open { .. }), "{refused:?}");
    let refused = Store::open(dir.path()).await.unwrap_err();
    assert!(matches!(refused, OpenError::Open { .. }), "{refused:?}");
}
