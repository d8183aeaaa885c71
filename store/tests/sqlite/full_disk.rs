//! A full disk: writes are refused, reads go on, nothing acknowledged is lost, and writing goes on
//! once there is room. A failed write is worse: nothing is written any more until the store is opened
//! again.

use std::{path::Path, process::Command};

use crate::{
    contract::fixture::{ALL, EVERY, World},
    small_disk::{SmallDisk, fill},
};
use gantry_model::{ContainerId, container::Comment};
use gantry_store::{Error, Outage, Store};

#[tokio::test]
async fn a_full_disk_refuses_writes_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_disk) = SmallDisk::mount(dir.path()) else { return };
    let path = dir.path().join("gantry.db");
    let ballast = dir.path().join("ballast");
    std::fs::write(&ballast, vec![1; 1408 * 1024]).unwrap();
    let world = World::new(Store::open(&path).await.unwrap()).await;

    // Until it is full, and a few times more.
    let mut made = Vec::new();
    let mut refused = 0;
    for number in 0..20_000 {
        let mut container = world.container(&format!("number-{number}"));
        container.spec.comment = Some(comment());
        match world.store.create_container(&container).await {
            Ok(container) => made.push(container),
            Err(error) => {
                assert!(matches!(error, Error::Unavailable(Outage::Full(_))), "{error:?}");
                assert!(error.is_retryable());
                refused += 1;
            }
        }
        if refused == 5 {
            break;
        }
    }
    assert_eq!(refused, 5, "the disk is full");
    let rest = fill(dir.path());
    // What is allocated already may hold a few small ones.
    let mut small = 0;
    let error = loop {
        small += 1;
        assert!(small < 1000, "small ones are written to a full disk");
        let container = world.container(&format!("small-{small}"));
        match world.store.create_container(&container).await {
            Ok(container) => made.push(container),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Unavailable(Outage::Full(_))), "{error:?}");
    assert!(made.len() > 20, "{} were made before", made.len());
    for container in &made {
        assert_eq!(world.store.container(container.id).await.unwrap().as_ref(), Some(container));
    }
    assert_eq!(world.store.head().borrow().0, made.len() as u64);

    std::fs::remove_file(&ballast).unwrap();
    std::fs::remove_file(&rest).unwrap();
    made.push(world.create("with-room").await);
    world.store.close().await;
    let store = Store::open(&path).await.unwrap();
    made.push(store.create_container(&world.container("reopened")).await.unwrap());
    let listed = store.containers(EVERY, ALL).await.unwrap();
    let (found, want): (Vec<_>, Vec<_>) =
        (listed.items.iter().map(|it| it.id).collect(), made.iter().map(|it| it.id).collect());
    assert_eq!(found, want);
    assert_eq!(store.head().borrow().0, made.len() as u64);
    store.close().await;
    // Opening it once more, after an end in order, finds it whole.
    Store::open(&path).await.unwrap().close().await;
}

/// Set for the child of the next test: the file to write to.
const PATH: &str = "GANTRY_STORE_LIMIT_PATH";

/// Files of the child may not grow beyond a size, and it is not killed for trying: writes fail with
/// EFBIG, which to SQLite is a failed write and not a full disk.
#[test]
fn a_failed_write_stops_the_writer_until_the_store_is_opened_again() {
    if let Some(path) = std::env::var_os(PATH) {
        return write_until_stopped(Path::new(&path));
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gantry.db");
    let child = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 6000; exec \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "full_disk::a_failed_write_stops_the_writer_until_the_store_is_opened_again",
            "--nocapture",
        ])
        .env(PATH, &path)
        .output()
        .unwrap();
    let output = String::from_utf8(child.stdout).unwrap();
    let errors = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "the child says: {output} {errors}");
    let made: Vec<ContainerId> =
        output.lines().filter_map(|line| line.split("made ").nth(1)?.parse().ok()).collect();
    assert!(made.len() > 20, "{} were made", made.len());

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Store::open(&path).await.unwrap();
        for id in &made {
            assert!(store.container(*id).await.unwrap().is_some(), "{id} was acknowledged");
        }
        let total = store.containers(EVERY, ALL).await.unwrap().total;
        assert_eq!(store.head().borrow().0, total, "as many changes as containers");
        store.get_or_insert_secret("it", b"takes writes again").await.unwrap();
        store.close().await;
    });
}

fn write_until_stopped(path: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let world = World::new(Store::open(path).await.unwrap()).await;
        let failure = loop {
            let mut container =
                world.container(&format!("number-{}", world.store.head().borrow().0));
            container.spec.comment = Some(comment());
            match world.store.create_container(&container).await {
                Ok(made) => println!("made {}", made.id),
                Err(error) => break error,
            }
        };
        assert!(matches!(failure, Error::Unavailable(Outage::Io(_))), "{failure:?}");
        let container = world.container("after");
        for _ in 0..3 {
            let refused = world.store.create_container(&container).await.unwrap_err();
            assert!(matches!(refused, Error::Unavailable(Outage::Stopped)), "{refused:?}");
        }
        let listed = world.store.containers(EVERY, ALL).await.unwrap();
        assert_eq!(listed.total, world.store.head().borrow().0, "reads go on");
    });
}

fn comment() -> Comment {
    Comment::parse("comment", &"x".repeat(4000)).unwrap()
}
