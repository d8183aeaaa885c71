//! `kill -9` in mid-write, again and again: what was acknowledged is there.
//!
//! The test starts itself as a child that writes and prints each id once the store has acknowledged
//! it. The parent kills the child after a while, opens the store as the next start would, and
//! compares. (A killed process is no power cut; `synchronous=FULL` is asserted at each opening.)

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::contract::fixture::{ALL, EVERY, World};
use gantry_model::{ContainerId, Id};
use gantry_store::{Changes, Page, Revision, Store};

/// Set for the child: the file to write to.
const PATH: &str = "GANTRY_STORE_CRASH_PATH";
/// Set for the child: the round, so that its names and ids differ from those of other rounds.
const ROUND: &str = "GANTRY_STORE_CRASH_ROUND";

const ROUNDS: u32 = 12;
const WRITERS: u32 = 8;

fn setting(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.into_string().unwrap())
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    if let (Some(path), Some(round)) = (setting(PATH), setting(ROUND)) {
        return child(Path::new(&path), round.parse().unwrap());
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gantry.db");
    let mut acknowledged = BTreeSet::new();
    for round in 0..ROUNDS {
        // Different moments: in the middle of the first transactions as well as of later ones.
        let lines = 1 + 37 * round as usize;
        let before = acknowledged.len();
        acknowledged.extend(acknowledged_until_killed(&path, round, lines));
        assert!(acknowledged.len() >= before + lines, "round {round} wrote");
        check(&path, &acknowledged);
    }
}

/// Lets a child write until it has acknowledged this many, kills it, and returns all that it has
/// acknowledged up to its end.
fn acknowledged_until_killed(path: &Path, round: u32, lines: usize) -> Vec<ContainerId> {
    let mut child: Child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::what_was_acknowledged_survives_kill_9", "--nocapture"])
        .env(PATH, path)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut ids = Vec::new();
    let mut killed = false;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let Ok(line) = line else { break };
        // The harness prints, too, even on the same line; an id that was cut off is none.
        if let Some(id) = line.split("made ").nth(1).and_then(|text| text.parse().ok()) {
            ids.push(id);
        }
        if ids.len() >= lines && !killed {
            child.kill().unwrap();
            killed = true;
        }
    }
    child.wait().unwrap();
    assert!(killed, "the child ended by itself after {} of {lines}", ids.len());
    ids
}

/// Writes with several tasks until it is killed.
fn child(path: &Path, round: u32) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Store::open(path).await.unwrap();
        let project = store.projects(None, None, FIRST).await.unwrap().items.pop();
        let world = match project {
            Some(project) => World {
                owner: store.user(project.owner).await.unwrap().unwrap(),
                server: store.servers().await.unwrap().pop().unwrap(),
                project,
                store,
            },
            None => World::new(store).await,
        };
        let world = std::sync::Arc::new(world);
        let mut tasks = tokio::task::JoinSet::new();
        for writer in 0..WRITERS {
            let world = std::sync::Arc::clone(&world);
            tasks.spawn(async move {
                for number in 0..100_000_u32 {
                    let mut container = world.container(&format!("r{round}-w{writer}-{number}"));
                    let mut bytes = *b"rrrrwwwwnnnn";
                    bytes[..4].copy_from_slice(&round.to_be_bytes());
                    bytes[4..8].copy_from_slice(&writer.to_be_bytes());
                    bytes[8..].copy_from_slice(&number.to_be_bytes());
                    container.id = Id::from_bytes(bytes);
                    world.store.create_container(&container).await.unwrap();
                    println!("made {}", container.id);
                }
            });
        }
        tasks.join_all().await;
    });
}

const FIRST: Page<gantry_store::ProjectSort> =
    Page { page: 1, limit: 1, sort: gantry_store::ProjectSort::Id, descending: false };

/// Opens the store as the next start would. Opening runs the integrity check, because the last end
/// was not in order.
fn check(path: &Path, acknowledged: &BTreeSet<ContainerId>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        assert!(path.with_extension("db-wal").exists(), "the child was killed in mid-work");
        let store = Store::open(path).await.unwrap();
        let mut found = BTreeSet::new();
        for number in 1.. {
            let page = Page { page: number, ..ALL };
            let listed = store.containers(EVERY, page).await.unwrap();
            found.extend(listed.items.iter().map(|container| container.id));
            if listed.items.is_empty() {
                assert_eq!(listed.total, found.len() as u64);
                break;
            }
        }
        let lost: Vec<_> = acknowledged.difference(&found).collect();
        assert!(lost.is_empty(), "acknowledged, but lost: {lost:?}");
        let head = *store.head().borrow();
        assert_eq!(head, Revision(found.len() as u64), "as many changes as containers");
        let mut changed = BTreeSet::new();
        let mut after = Revision(0);
        while after < head {
            let Changes::Since { changes, .. } = store.changes(after, 1000).await.unwrap() else {
                panic!("no changes after {after:?}")
            };
            after = changes.last().unwrap().revision;
            changed.extend(changes.iter().map(|change| change.container));
        }
        assert_eq!(changed, found);
        store.close().await;
    });
}
