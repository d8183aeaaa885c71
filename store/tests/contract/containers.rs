//! Containers and their status logs.

use std::collections::BTreeMap;

use gantry_model::{
    Generation, Phase, RealmId, Wish,
    container::{Color, ContainerName, Environment},
};
use gantry_store::{
    ContainerFilter, ContainerSort, ContainerStatus, EnvironmentSync, Error, Fill, FillSource,
    LogSort, Page, Quotas, StatusLog, Version,
};

use super::fixture::{ALL, EVERY, NOW_MS, World, id, key, project, spec, user};

const LOGS: Page<LogSort> = Page { page: 1, limit: 100, sort: LogSort::At, descending: false };

async fn logs(world: &World, container: gantry_model::ContainerId) -> Vec<StatusLog> {
    world.store.status_logs(container, LOGS).await.unwrap().items
}

pub(crate) async fn a_container_is_stored_as_given_and_logged(world: &World) {
    let mut given = world.container("one");
    given.spec.ssh_public_key = Some(key([1; 32]));
    given.ssh_key_since_ms = Some(given.created_at_ms);
    given.spec.realms = vec![RealmId::from_bytes([5; 12])];
    given.status = ContainerStatus {
        phase: Phase::Running,
        address: Some("fd00::2".parse().unwrap()),
        generation: Generation(7),
        why: Some("because".to_owned()),
        done_seq: 3,
        started_at_ms: Some(NOW_MS - 1),
        boot_id: Some("boot".to_owned()),
        fill: Some(Fill { source: FillSource::Container(id()), is_new: true }),
    };
    given.wish_seq = 9;
    given.source = Some(id());
    assert_eq!(world.store.create_container(&given).await.unwrap(), given);
    assert_eq!(world.read(given.id).await, given);
    assert_eq!(world.store.container(id()).await.unwrap(), None);
    let logs = logs(world, given.id).await;
    let [first] = logs.as_slice() else { panic!("one entry, not {logs:?}") };
    assert_eq!((first.from, first.to, first.at_ms), (None, Phase::Running, NOW_MS));
    assert_eq!((first.container, first.duration_ms), (given.id, None));
}

pub(crate) async fn a_refused_creation_leaves_nothing(world: &World) {
    let store = &world.store;
    let mut taken = world.create("taken").await;
    taken.id = id();
    taken.spec.realms = vec![RealmId::from_bytes([5; 12])];
    taken.spec.ssh_public_key = Some(key([1; 32]));
    store.create_container(&taken).await.unwrap_err();
    assert_eq!(store.container(taken.id).await.unwrap(), None);
    let in_realm = ContainerFilter { realm: taken.spec.realms.first().copied(), ..EVERY };
    assert_eq!(store.containers(in_realm, ALL).await.unwrap().total, 0);
    assert_eq!(logs(world, taken.id).await, []);

    taken.spec.name = ContainerName::parse("name", "free").unwrap();
    store.create_container(&taken).await.unwrap();
    let refused = store.create_container(&taken).await.unwrap_err();
    assert!(!refused.is_retryable(), "{refused:?}");

    let mut lost = world.container("lost");
    lost.server = id();
    let refused = store.create_container(&lost).await.unwrap_err();
    assert!(matches!(refused, Error::NotFound), "{refused:?}");
    let mut orphan = world.container("orphan");
    orphan.project = id();
    let refused = store.create_container(&orphan).await.unwrap_err();
    assert!(matches!(refused, Error::ProjectGone), "{refused:?}");
}

pub(crate) async fn a_name_is_unique_in_its_project_only(world: &World) {
    let store = &world.store;
    let one = world.create("one").await;
    let refused = store.create_container(&world.container("one")).await.unwrap_err();
    assert!(matches!(refused, Error::NameTaken), "{refused:?}");
    world.create("ONE").await;
    let second = project(&world.owner, "second");
    store.create_project(&second).await.unwrap();
    store.create_container(&world.container_in(second.id, "one")).await.unwrap();

    let refused = store.update_spec(one.id, one.version, &spec("ONE"), NOW_MS).await.unwrap_err();
    assert!(matches!(refused, Error::NameTaken), "{refused:?}");
    assert_eq!(world.read(one.id).await, one);
}

pub(crate) async fn a_key_is_unique_everywhere(world: &World) {
    let store = &world.store;
    let second = project(&world.owner, "second");
    store.create_project(&second).await.unwrap();
    let mut one = world.container("one");
    one.spec.ssh_public_key = Some(key([1; 32]));
    let mut two = world.container_in(second.id, "two");
    two.spec.ssh_public_key = Some(key([1; 32]));
    store.create_container(&one).await.unwrap();
    let refused = store.create_container(&two).await.unwrap_err();
    assert!(matches!(refused, Error::KeyTaken), "{refused:?}");

    let wanted = two.spec.clone();
    two.spec.ssh_public_key = None;
    store.create_container(&two).await.unwrap();
    let refused = store.update_spec(two.id, two.version, &wanted, NOW_MS).await.unwrap_err();
    assert!(matches!(refused, Error::KeyTaken), "{refused:?}");
    // Those without a key do not collide.
    world.create("three").await;
}

pub(crate) async fn a_freed_key_waits_before_it_opens_a_strangers_container(world: &World) {
    let (store, minute) = (&world.store, 60_000);
    let stranger = user("stranger");
    store.create_user(&stranger).await.unwrap();
    let strange = project(&stranger, "strange");
    store.create_project(&strange).await.unwrap();
    let of_stranger = |name: &str, at_ms: i64| {
        let mut one = world.container_in(strange.id, name);
        (one.owner, one.created_at_ms) = (stranger.id, at_ms);
        one.spec.ssh_public_key = Some(key([1; 32]));
        one
    };
    let mut one = world.container("one");
    one.spec.ssh_public_key = Some(key([1; 32]));
    let one = store.create_container(&one).await.unwrap();
    let mut bare = one.spec.clone();
    bare.ssh_public_key = None;
    let one = store.update_spec(one.id, one.version, &bare, NOW_MS).await.unwrap();

    // Not by a new container, nor by one that is there.
    let refused = store.create_container(&of_stranger("early", NOW_MS + minute - 1)).await;
    assert!(matches!(refused, Err(Error::KeyTaken)), "{refused:?}");
    let wanted = of_stranger("two", NOW_MS);
    let mut two = wanted.clone();
    two.spec.ssh_public_key = None;
    let two = store.create_container(&two).await.unwrap();
    let soon = NOW_MS + minute - 1;
    let refused = store.update_spec(two.id, two.version, &wanted.spec, soon).await.unwrap_err();
    assert!(matches!(refused, Error::KeyTaken), "{refused:?}");
    // Its owner moves it at once, and when that container goes it waits anew.
    let mut three = world.container("three");
    three.spec.ssh_public_key = Some(key([1; 32]));
    store.create_container(&three).await.unwrap();
    store.remove_container(three.id, NOW_MS + minute).await.unwrap();
    let later = NOW_MS + minute + 1;
    let refused = store.update_spec(two.id, two.version, &wanted.spec, later).await.unwrap_err();
    assert!(matches!(refused, Error::KeyTaken), "{refused:?}");
    let then = NOW_MS + 2 * minute;
    store.update_spec(two.id, two.version, &wanted.spec, then).await.unwrap();
    assert_eq!(world.read(one.id).await.spec.ssh_public_key, None);
}

pub(crate) async fn a_quota_counts_what_is_being_deleted(world: &World) {
    let store = &world.store;
    let mut wanted = world.project.clone();
    wanted.spec.max_containers = Some(2);
    store.update_project(&wanted).await.unwrap();
    world.create("one").await;
    let two = world.create("two").await;
    let full = |refused: Error| matches!(refused, Error::QuotaReached { max: 2 });
    let three = world.container("three");
    assert!(full(store.create_container(&three).await.unwrap_err()));
    let (wish, phase) = (Wish::Deleted, Phase::Deleting);
    store.set_wish(two.id, two.version, wish, phase, "user", NOW_MS).await.unwrap();
    assert!(full(store.create_container(&three).await.unwrap_err()));
    store.remove_container(two.id, NOW_MS).await.unwrap();
    store.create_container(&three).await.unwrap();
}

pub(crate) async fn a_spec_changes_with_its_version_only(world: &World) {
    let store = &world.store;
    let one = world.create("one").await;
    let (red, blue) = (RealmId::from_bytes([1; 12]), RealmId::from_bytes([2; 12]));
    let mut wanted = spec("uno");
    wanted.color = Color::from_rgb([9, 9, 9]);
    wanted.realms = vec![red, blue];
    wanted.ssh_public_key = Some(key([1; 32]));
    let updated = store.update_spec(one.id, one.version, &wanted, NOW_MS + 4).await.unwrap();
    assert_eq!((updated.version, updated.updated_at_ms), (Version(2), NOW_MS + 4));
    assert_eq!((&updated.spec, &updated.status), (&wanted, &one.status));
    assert_eq!(world.read(one.id).await, updated);

    let refused = store.update_spec(one.id, one.version, &wanted, NOW_MS).await.unwrap_err();
    assert!(matches!(refused, Error::Stale), "{refused:?}");
    let refused = store.update_spec(id(), one.version, &wanted, NOW_MS).await.unwrap_err();
    assert!(matches!(refused, Error::NotFound), "{refused:?}");

    // The time of the key is that of the present one.
    assert_eq!((one.ssh_key_since_ms, updated.ssh_key_since_ms), (None, Some(NOW_MS + 4)));
    wanted.ssh_forwarding = false;
    let kept = store.update_spec(one.id, updated.version, &wanted, NOW_MS + 5).await.unwrap();
    assert_eq!(kept.ssh_key_since_ms, Some(NOW_MS + 4));
    wanted.ssh_public_key = Some(key([2; 32]));
    let rotated = store.update_spec(one.id, kept.version, &wanted, NOW_MS + 6).await.unwrap();
    assert_eq!(rotated.ssh_key_since_ms, Some(NOW_MS + 6));

    wanted.realms = vec![blue];
    wanted.ssh_public_key = None;
    let without = store.update_spec(one.id, rotated.version, &wanted, NOW_MS).await.unwrap();
    assert_eq!(without.ssh_key_since_ms, None);
    assert_eq!(world.read(one.id).await, without);
    for (realm, want) in [(red, 0), (blue, 1)] {
        let filter = ContainerFilter { realm: Some(realm), ..EVERY };
        assert_eq!(store.containers(filter, ALL).await.unwrap().total, want, "{realm:?}");
    }
    let mut two = world.container("two");
    two.spec.ssh_public_key = Some(key([1; 32]));
    store.create_container(&two).await.unwrap();
}

pub(crate) async fn a_wish_counts_up_and_logs_a_change_of_phase(world: &World) {
    let store = &world.store;
    let mut failed = world.container("one");
    failed.status.phase = Phase::Failed;
    failed.status.why = Some("no such image".to_owned());
    store.create_container(&failed).await.unwrap();

    let (wish, phase) = (Wish::Running, Phase::Starting);
    let now_ms = NOW_MS + 250;
    let set = store.set_wish(failed.id, failed.version, wish, phase, "user", now_ms).await;
    let set = set.unwrap();
    assert_eq!((set.wish, set.wish_seq, set.version), (wish, 2, Version(2)));
    assert_eq!((set.status.phase, set.status.why.as_deref()), (phase, None));
    assert_eq!(world.read(failed.id).await, set);

    // The same phase again is a new wish, but nothing for the log.
    let again = store.set_wish(set.id, set.version, wish, phase, "user", now_ms + 1).await.unwrap();
    assert_eq!((again.wish_seq, again.version), (3, Version(3)));
    let logs = logs(world, set.id).await;
    let [_, second] = logs.as_slice() else { panic!("two entries, not {logs:?}") };
    assert_eq!((second.from, second.to), (Some(Phase::Failed), phase));
    assert_eq!((second.at_ms, second.duration_ms), (now_ms, Some(250)));
    assert_eq!((second.triggered_by.as_str(), second.note.as_deref()), ("user", None));

    let stale = store.set_wish(set.id, set.version, wish, phase, "user", now_ms).await.unwrap_err();
    assert!(matches!(stale, Error::Stale), "{stale:?}");
    let gone = store.set_wish(id(), set.version, wish, phase, "user", now_ms).await.unwrap_err();
    assert!(matches!(gone, Error::NotFound), "{gone:?}");
}

pub(crate) async fn a_status_replaces_the_last_and_logs_why(world: &World) {
    let store = &world.store;
    let one = world.create("one").await;
    let status = ContainerStatus {
        phase: Phase::Running,
        address: Some("10.88.0.7".parse().unwrap()),
        generation: Generation(1),
        why: None,
        done_seq: 1,
        started_at_ms: Some(NOW_MS + 900),
        boot_id: Some("b".to_owned()),
        fill: Some(Fill { source: FillSource::Snapshot(id()), is_new: false }),
    };
    let run =
        store.set_status(one.id, one.version, &status, "reconciler", NOW_MS + 900).await.unwrap();
    assert_eq!((&run.status, run.wish_seq, run.version), (&status, 1, Version(2)));
    assert_eq!(world.read(one.id).await, run);

    let failed = ContainerStatus {
        phase: Phase::Failed,
        address: None,
        why: Some("its init ended".to_owned()),
        ..status.clone()
    };
    // A clock that was set back makes no negative duration.
    let end = store.set_status(run.id, run.version, &failed, "reconciler", NOW_MS).await.unwrap();
    assert_eq!(end.status, failed);
    let stale = store.set_status(run.id, run.version, &status, "r", NOW_MS).await.unwrap_err();
    assert!(matches!(stale, Error::Stale), "{stale:?}");

    let by_phase = Page { sort: LogSort::To, ..LOGS };
    let logs = store.status_logs(one.id, by_phase).await.unwrap().items;
    let to: Vec<_> =
        logs.iter().map(|log| (log.to, log.duration_ms, log.note.as_deref())).collect();
    assert_eq!(
        to,
        [
            (Phase::Creating, None, None),
            (Phase::Failed, Some(0), Some("its init ended")),
            (Phase::Running, Some(900), None),
        ]
    );
}

pub(crate) async fn variables_count_their_changes_and_what_came_of_them_is_noted(world: &World) {
    let store = &world.store;
    let one = world.create("one").await;
    assert_eq!(one.environment_sync, EnvironmentSync::default());
    let mut spec = one.spec.clone();
    spec.color = Color::from_rgb([1; 3]);
    let one = store.update_spec(one.id, one.version, &spec, NOW_MS).await.unwrap();
    assert_eq!(one.environment_sync.revision, 0, "a colour is no variable");
    let vars = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
    spec.environment = Environment::parse("environment_vars", vars).unwrap();
    let old = store.update_spec(one.id, one.version, &spec, NOW_MS).await.unwrap();
    assert_eq!(old.environment_sync, EnvironmentSync { revision: 1, ..EnvironmentSync::default() });
    assert_eq!(world.read(one.id).await, old);

    let head = *store.head().borrow();
    let note = async |failure: Option<&str>, now_ms| {
        let before = world.read(one.id).await;
        store.note_environment(&before, failure, now_ms).await.unwrap();
        world.read(one.id).await.environment_sync
    };
    let failed = EnvironmentSync {
        attempted_at_ms: Some(NOW_MS),
        last_error: Some("it is full".to_owned()),
        ..old.environment_sync.clone()
    };
    assert_eq!(note(Some("it is full"), NOW_MS).await, failed);
    assert_eq!(note(Some("it is full"), NOW_MS + 59_999).await, failed, "no news for a minute");
    let again = EnvironmentSync { attempted_at_ms: Some(NOW_MS + 60_000), ..failed };
    assert_eq!(note(Some("it is full"), NOW_MS + 60_000).await, again);
    assert!(again.is_pending());
    let done = EnvironmentSync {
        revision: 1,
        applied: Some(1),
        verified_at_ms: Some(NOW_MS + 60_001),
        attempted_at_ms: Some(NOW_MS + 60_001),
        last_error: None,
    };
    assert_eq!(note(None, NOW_MS + 60_001).await, done);
    assert!(!done.is_pending());
    assert_eq!(note(None, NOW_MS + 90_000).await, done, "no news");
    let before = world.read(one.id).await;
    assert_eq!((before.version, *store.head().borrow()), (old.version, head), "no change of it");

    let mut status = before.status.clone();
    status.started_at_ms = Some(NOW_MS + 95_000);
    store.set_status(one.id, before.version, &status, "test", NOW_MS + 95_000).await.unwrap();
    // Whoever still works with an older version knows nothing of this one.
    store.note_environment(&before, Some("it is full"), NOW_MS + 96_000).await.unwrap();
    assert_eq!(world.read(one.id).await.environment_sync, done);
    let verified = note(None, NOW_MS + 97_000).await.verified_at_ms;
    assert_eq!(verified, Some(NOW_MS + 97_000), "each start is seen");
}

/// Between its two halves nobody else gets what a container that restarts has been promised.
pub(crate) async fn a_restart_keeps_its_promise_all_the_way(world: &World) {
    let quotas = Quotas { running_containers_per_user: 1, ..Quotas::default() };
    let store = world.store.clone().with_quotas(quotas);
    let one = store.create_container(&world.container("one")).await.unwrap();
    let mut status = one.status.clone();
    (status.phase, status.done_seq) = (Phase::Running, one.wish_seq);
    let one = store.set_status(one.id, one.version, &status, "test", NOW_MS).await.unwrap();
    let (wish, phase) = (Wish::Running, Phase::Stopping);
    let one = store.set_wish(one.id, one.version, wish, phase, "test", NOW_MS).await.unwrap();
    // Down, and to be started again.
    status.phase = Phase::Stopped;
    let one = store.set_status(one.id, one.version, &status, "test", NOW_MS).await.unwrap();
    assert_eq!(store.account_use(one.owner).await.unwrap().running_containers, 1);
    let refused = store.create_container(&world.container("two")).await.map(drop);
    assert!(matches!(refused, Err(Error::OverQuota { max: 1, used: 1, .. })), "{refused:?}");
    // Nor does it need a second promise to be asked once more.
    let phase = Phase::Starting;
    store.set_wish(one.id, one.version, wish, phase, "test", NOW_MS).await.unwrap();
}

pub(crate) async fn a_removed_container_frees_its_name_and_key(world: &World) {
    let store = &world.store;
    let mut one = world.container("one");
    one.spec.ssh_public_key = Some(key([1; 32]));
    one.spec.realms = vec![RealmId::from_bytes([1; 12])];
    store.create_container(&one).await.unwrap();
    store.remove_container(one.id, NOW_MS).await.unwrap();
    assert_eq!(store.container(one.id).await.unwrap(), None);
    assert_eq!(logs(world, one.id).await, []);
    let refused = store.remove_container(one.id, NOW_MS).await.unwrap_err();
    assert!(matches!(refused, Error::NotFound), "{refused:?}");
    one.id = id();
    store.create_container(&one).await.unwrap();
}

pub(crate) async fn containers_are_filtered(world: &World) {
    let store = &world.store;
    let other = user("other");
    store.create_user(&other).await.unwrap();
    let second = project(&other, "second");
    store.create_project(&second).await.unwrap();
    let edge = store.ensure_server(id(), &"edge-2".parse().unwrap(), NOW_MS).await.unwrap();
    let red = RealmId::from_bytes([1; 12]);

    world.create("plain").await;
    let mut red_one = world.container("red");
    red_one.spec.realms = vec![red];
    let mut gone = world.container("gone");
    gone.status.phase = Phase::Deleting;
    let mut theirs = world.container_in(second.id, "theirs");
    theirs.owner = other.id;
    theirs.server = edge.id;
    theirs.spec.realms = vec![red];
    for (after_ms, mut container) in (1..).zip([red_one, gone, theirs]) {
        container.created_at_ms += after_ms;
        store.create_container(&container).await.unwrap();
    }

    let none = ContainerFilter::default();
    let mine = Some(world.owner.id);
    for (filter, want) in [
        (none, vec!["plain", "red", "theirs"]),
        (EVERY, vec!["plain", "red", "gone", "theirs"]),
        (ContainerFilter { seen_by: mine, ..none }, vec!["plain", "red"]),
        (ContainerFilter { realm: Some(red), ..none }, vec!["red", "theirs"]),
        (ContainerFilter { seen_by: mine, realm: Some(red), ..none }, vec!["red"]),
        (ContainerFilter { project: Some(second.id), ..none }, vec!["theirs"]),
        (ContainerFilter { server: Some(world.server.id), ..EVERY }, vec!["plain", "red", "gone"]),
        (ContainerFilter { server: Some(id()), ..EVERY }, vec![]),
    ] {
        let listed = store.containers(filter, ALL).await.unwrap();
        let names: Vec<_> = listed.items.iter().map(|it| it.spec.name.as_str()).collect();
        assert_eq!(names, want, "{filter:?}");
        assert_eq!(listed.total, u64::try_from(want.len()).unwrap(), "{filter:?}");
    }
    let of_server = store.containers_of_server(world.server.id).await.unwrap();
    assert_eq!(of_server.len(), 3);
    assert_eq!(store.containers_of_server(edge.id).await.unwrap().len(), 1);
}

pub(crate) async fn containers_are_sorted_and_paged(world: &World) {
    for (name, phase, created, updated) in
        [("bbb", Phase::Stopped, 2, 1), ("aaa", Phase::Running, 2, 3), ("ccc", Phase::Failed, 1, 2)]
    {
        let mut container = world.container(name);
        container.status.phase = phase;
        container.created_at_ms += created;
        container.updated_at_ms += updated;
        world.store.create_container(&container).await.unwrap();
    }
    let up = Page { page: 1, limit: 10, sort: ContainerSort::Id, descending: false };
    let by = |sort| Page { sort, ..up };
    for (page, want) in [
        (up, vec!["bbb", "aaa", "ccc"]),
        (by(ContainerSort::Name), vec!["aaa", "bbb", "ccc"]),
        (by(ContainerSort::Status), vec!["ccc", "aaa", "bbb"]),
        (by(ContainerSort::CreatedAt), vec!["ccc", "bbb", "aaa"]),
        (by(ContainerSort::UpdatedAt), vec!["bbb", "ccc", "aaa"]),
        // Descending turns the tie-break round, too.
        (Page { descending: true, ..by(ContainerSort::CreatedAt) }, vec!["aaa", "bbb", "ccc"]),
        (Page { limit: 2, ..by(ContainerSort::Name) }, vec!["aaa", "bbb"]),
        (Page { limit: 2, page: 2, ..by(ContainerSort::Name) }, vec!["ccc"]),
        (Page { limit: 2, page: 0, ..by(ContainerSort::Name) }, vec!["aaa", "bbb"]),
        (Page { limit: 0, ..up }, vec![]),
    ] {
        let listed = world.store.containers(EVERY, page).await.unwrap();
        let names: Vec<_> = listed.items.iter().map(|it| it.spec.name.as_str()).collect();
        assert_eq!(names, want, "{page:?}");
        assert_eq!(listed.total, 3, "{page:?}");
    }
}

pub(crate) async fn status_logs_are_sorted_and_paged(world: &World) {
    let mut one = world.create("one").await;
    // All in one millisecond: the order of the changes decides.
    for phase in [Phase::Running, Phase::Stopping, Phase::Stopped] {
        one.status.phase = phase;
        one = world
            .store
            .set_status(one.id, one.version, &one.status, "reconciler", NOW_MS)
            .await
            .unwrap();
    }
    let down = Page { descending: true, ..LOGS };
    for (page, want) in [
        (LOGS, vec![Phase::Creating, Phase::Running, Phase::Stopping, Phase::Stopped]),
        (Page { limit: 2, ..down }, vec![Phase::Stopped, Phase::Stopping]),
        (Page { limit: 2, page: 2, ..down }, vec![Phase::Running, Phase::Creating]),
    ] {
        let listed = world.store.status_logs(one.id, page).await.unwrap();
        assert_eq!(listed.items.iter().map(|log| log.to).collect::<Vec<_>>(), want, "{page:?}");
        assert_eq!(listed.total, 4);
    }
    assert_eq!(world.store.status_logs(id(), LOGS).await.unwrap().total, 0);
}
