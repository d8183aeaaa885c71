//! The change feed and the route records.

use std::{collections::BTreeMap, time::Duration};

use gantry_model::{ContainerId, Generation, Phase, Wish, ssh::SshPublicKey};
use gantry_store::{Changes, Revision, RouteRecord, Store};
use tokio::{task::JoinSet, time::timeout};

use super::fixture::{NOW_MS, World, id, key, spec};

/// Reads on from a revision; the changes must follow each other.
async fn since(store: &Store, after: Revision) -> (Vec<ContainerId>, Revision) {
    let found = store.changes(after, 1000).await.unwrap();
    let Changes::Since { changes, head } = found else { panic!("after {after:?}: {found:?}") };
    for (want, change) in (after.0 + 1..).zip(&changes) {
        assert_eq!(change.revision.0, want);
    }
    (changes.iter().map(|change| change.container).collect(), head)
}

pub(crate) async fn every_change_of_a_container_is_in_the_feed(world: &World) {
    let store = &world.store;
    assert_eq!(since(store, Revision(0)).await, (vec![], Revision(0)));
    let one = world.create("one").await;
    let two = world.create("two").await;
    let one = store.update_spec(one.id, one.version, &spec("uno"), NOW_MS).await.unwrap();
    let (wish, phase) = (Wish::Stopped, Phase::Stopping);
    let two = store.set_wish(two.id, two.version, wish, phase, "user", NOW_MS).await.unwrap();
    store.set_status(one.id, one.version, &one.status, "reconciler", NOW_MS).await.unwrap();
    store.remove_container(two.id, NOW_MS).await.unwrap();
    let want = vec![one.id, two.id, one.id, two.id, one.id, two.id];
    assert_eq!(since(store, Revision(0)).await, (want.clone(), Revision(6)));
    assert_eq!(since(store, Revision(4)).await, (want[4..].to_vec(), Revision(6)));
    assert_eq!(since(store, Revision(6)).await, (vec![], Revision(6)));
}

pub(crate) async fn a_refusal_is_not_in_the_feed(world: &World) {
    let store = &world.store;
    let mut one = world.container("one");
    one.spec.ssh_public_key = Some(key([1; 32]));
    store.create_container(&one).await.unwrap();
    // Among others in one transaction, too: what is refused must take its change with it.
    let mut tasks = JoinSet::new();
    for number in 0..20 {
        let store = store.clone();
        let mut container = world.container(&format!("number-{number}"));
        if number % 2 == 0 {
            container.spec.ssh_public_key = Some(key([1; 32]));
        }
        tasks.spawn(async move { store.create_container(&container).await });
    }
    let made = tasks.join_all().await.iter().filter(|result| result.is_ok()).count();
    assert_eq!(made, 10);
    let (changes, head) = since(store, Revision(0)).await;
    assert_eq!((changes.len(), head), (11, Revision(11)));
    for id in changes {
        assert!(store.container(id).await.unwrap().is_some());
    }
}

pub(crate) async fn changes_come_in_pages(world: &World) {
    for number in 0..5 {
        world.create(&format!("number-{number}")).await;
    }
    for (after, limit, want) in [(0, 2, 1..=2), (2, 2, 3..=4), (4, 2, 5..=5), (3, 0, 4..=4)] {
        let found = world.store.changes(Revision(after), limit).await.unwrap();
        let Changes::Since { changes, head } = found else { panic!("{found:?}") };
        let revisions: Vec<u64> = changes.iter().map(|change| change.revision.0).collect();
        assert_eq!(revisions, want.collect::<Vec<_>>(), "{limit} after {after}");
        assert_eq!(head, Revision(5));
    }
}

pub(crate) async fn a_revision_of_the_future_is_of_another_epoch(world: &World) {
    world.create("one").await;
    for after in [2, u64::MAX] {
        let found = world.store.changes(Revision(after), 10).await.unwrap();
        assert_eq!(found, Changes::NewEpoch, "after {after}");
    }
}

pub(crate) async fn the_head_follows_the_commits(world: &World) {
    let mut head = world.store.head();
    assert_eq!(*head.borrow_and_update(), Revision(0));
    world.create("one").await;
    assert!(head.has_changed().unwrap());
    assert_eq!(*head.borrow_and_update(), Revision(1));
    world.store.get_or_insert_secret("a", b"b").await.unwrap();
    assert!(!head.has_changed().unwrap(), "nothing that is in the feed");
    world.store.close().await;
    assert!(head.has_changed().is_err(), "a closed store ends the wait");
}

pub(crate) async fn routes_are_loaded_with_their_revision(world: &World) {
    let store = &world.store;
    let one = world.create("one").await;
    let mut bare = world.container("bare");
    bare.spec.hoody_kit = false;
    bare.spec.ssh_public_key = Some(key([5; 32]));
    bare.spec.ssh_forwarding = false;
    bare.status.phase = Phase::Failed;
    bare.status.why = Some("it failed".to_owned());
    store.create_container(&bare).await.unwrap();
    let mut status = one.status.clone();
    status.phase = Phase::Running;
    status.address = Some("10.88.0.9".parse().unwrap());
    status.generation = Generation(4);
    status.started_at_ms = Some(NOW_MS + 3);
    store.set_status(one.id, one.version, &status, "reconciler", NOW_MS).await.unwrap();

    let loaded = store.load_routes().await.unwrap();
    assert_eq!((loaded.epoch, loaded.revision), (store.epoch(), Revision(3)));
    let found: BTreeMap<ContainerId, RouteRecord> =
        loaded.containers.into_iter().map(|record| (record.container, record)).collect();
    let route = RouteRecord {
        container: one.id,
        project: world.project.id,
        server: one.server,
        hoody_kit: true,
        ssh_key: None,
        ssh_forwarding: true,
        phase: Phase::Running,
        address: status.address,
        generation: Generation(4),
        started_at_ms: Some(NOW_MS + 3),
        why_failed: false,
        edge: None,
    };
    let bare_route = RouteRecord {
        container: bare.id,
        hoody_kit: false,
        ssh_key: bare.spec.ssh_public_key.as_ref().map(SshPublicKey::fingerprint),
        ssh_forwarding: false,
        phase: Phase::Failed,
        address: None,
        generation: Generation(0),
        started_at_ms: None,
        why_failed: true,
        ..route.clone()
    };
    assert_eq!(found, BTreeMap::from([(one.id, route.clone()), (bare.id, bare_route.clone())]));
    let again = store.route_records(&[bare.id, one.id, bare.id]).await.unwrap();
    let bare_route = (bare.id, Some(bare_route));
    assert_eq!(again, [bare_route.clone(), (one.id, Some(route)), bare_route]);
}

pub(crate) async fn route_records_say_what_is_gone(world: &World) {
    let store = &world.store;
    let one = world.create("one").await;
    let two = world.create("two").await;
    store.remove_container(one.id, NOW_MS).await.unwrap();
    // More than one statement names.
    let mut ids: Vec<ContainerId> = (0..1200).map(|_| id()).collect();
    ids.extend([one.id, two.id]);
    let found = store.route_records(&ids).await.unwrap();
    assert_eq!(found.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ids);
    for (id, record) in found {
        assert_eq!(record.is_some(), id == two.id, "{id}");
    }
    assert_eq!(store.route_records(&[]).await.unwrap(), []);
}

/// What a watcher does: from a snapshot on, change by change, always reading the present record.
async fn watch(store: Store, until: Revision) -> BTreeMap<ContainerId, Generation> {
    let mut head = store.head();
    let loaded = store.load_routes().await.unwrap();
    let mut at = loaded.revision;
    let mut seen: BTreeMap<_, _> =
        loaded.containers.iter().map(|it| (it.container, it.generation)).collect();
    while at < until {
        let found = store.changes(at, 7).await.unwrap();
        let Changes::Since { changes, head: newest } = found else { panic!("{found:?}") };
        assert!(newest >= at);
        for change in &changes {
            assert_eq!(change.revision.0, at.0 + 1, "no gap");
            at = change.revision;
        }
        let ids: Vec<_> = changes.iter().map(|change| change.container).collect();
        for (id, record) in store.route_records(&ids).await.unwrap() {
            match record {
                Some(record) => seen.insert(id, record.generation),
                None => seen.remove(&id),
            };
        }
        if changes.is_empty() {
            head.changed().await.unwrap();
        }
    }
    seen
}

pub(crate) async fn two_watchers_see_every_change_of_sixteen_writers(world: &World) {
    const WRITERS: u64 = 16;
    const CONTAINERS: u64 = 6;
    const CHANGES: u64 = 5;
    // Each container is made and changed; every second one is removed as the last change.
    let until = Revision(WRITERS * CONTAINERS * CHANGES);
    let mut watchers = JoinSet::new();
    for _ in 0..2 {
        watchers.spawn(watch(world.store.clone(), until));
    }
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = world.store.clone();
        let containers: Vec<_> =
            (0..CONTAINERS).map(|number| world.container(&format!("w{writer}-{number}"))).collect();
        writers.spawn(async move {
            for (number, container) in containers.iter().enumerate() {
                let mut now = store.create_container(container).await.unwrap();
                for generation in 1..CHANGES - 1 {
                    let mut status = now.status.clone();
                    status.generation = Generation(generation);
                    now = store
                        .set_status(now.id, now.version, &status, "writer", NOW_MS)
                        .await
                        .unwrap();
                }
                if number % 2 == 0 {
                    store.remove_container(now.id, NOW_MS).await.unwrap();
                } else {
                    let spec = now.spec.clone();
                    store.update_spec(now.id, now.version, &spec, NOW_MS).await.unwrap();
                }
            }
        });
    }
    timeout(Duration::from_mins(1), writers.join_all()).await.unwrap();
    let seen = timeout(Duration::from_mins(1), watchers.join_all()).await.unwrap();
    assert_eq!(*world.store.head().borrow(), until);
    let truth: BTreeMap<_, _> = world
        .store
        .load_routes()
        .await
        .unwrap()
        .containers
        .iter()
        .map(|it| (it.container, it.generation))
        .collect();
    assert_eq!(truth.len() as u64, WRITERS * CONTAINERS / 2);
    for watcher in seen {
        assert_eq!(watcher, truth);
    }
}
