//! Snapshots and what containers are filled from.

use gantry_model::{ContainerId, Phase, RealmId, SnapshotId, Wish};
use gantry_store::{
    Container, CopiedRules, Error, EventFilter, Fill, FillSource, Page, Snapshot, SnapshotFilter,
    SnapshotMax, SnapshotSort, SnapshotSummary,
};

use super::fixture::{NOW_MS, World, id, key};

const PAGE: Page<SnapshotSort> =
    Page { page: 1, limit: 100, sort: SnapshotSort::Name, descending: false };

fn snapshot(of: &Container, name: &str) -> Snapshot {
    Snapshot {
        id: id(),
        data: id(),
        container: of.id,
        project: of.project,
        owner: of.owner,
        server: of.server,
        spec: of.spec.clone(),
        name: name.to_owned(),
        alias: Some("Before".to_owned()),
        is_ready: false,
        bytes: 0,
        expires_at_ms: Some(NOW_MS + 1000),
        last_used_at_ms: None,
        created_at_ms: NOW_MS,
    }
}

/// A container and a snapshot of it that is ready.
async fn made(world: &World, name: &str) -> (Container, Snapshot) {
    let container = world.create(name).await;
    let snapshot = snapshot(&container, "one");
    world.store.create_snapshot(&snapshot, max(10)).await.unwrap();
    world.store.finish_snapshot(snapshot.id, 4096, NOW_MS).await.unwrap();
    let snapshot = world.store.snapshot(snapshot.id).await.unwrap().unwrap();
    (container, snapshot)
}

async fn names(world: &World, filter: SnapshotFilter) -> Vec<String> {
    let listed = world.store.snapshots(filter, PAGE).await.unwrap();
    assert_eq!(listed.total, listed.items.len() as u64);
    listed.items.into_iter().map(|snapshot| snapshot.name).collect()
}

pub(crate) async fn a_snapshot_is_stored_as_given_and_finished(world: &World) {
    let mut container = world.container("one");
    container.spec.ssh_public_key = Some(key([1; 32]));
    container.spec.realms = vec![RealmId::from_bytes([5; 12])];
    world.store.create_container(&container).await.unwrap();
    let given = snapshot(&container, "one");
    world.store.create_snapshot(&given, max(10)).await.unwrap();
    assert_eq!(world.store.snapshot(given.id).await.unwrap().unwrap(), given);
    assert_eq!(world.store.unfinished_snapshot(container.id).await.unwrap().unwrap(), given);
    assert_eq!(world.store.unfinished_snapshots(world.server.id).await.unwrap(), [container.id]);
    world.store.finish_snapshot(given.id, 4096, NOW_MS).await.unwrap();
    let want = Snapshot { is_ready: true, bytes: 4096, ..given };
    let read = world.store.snapshot_named(container.id, "one").await.unwrap().unwrap();
    assert_eq!(read, want);
    assert_eq!(world.store.unfinished_snapshot(container.id).await.unwrap(), None);
    let named = world.store.set_snapshot_alias(want.id, None, NOW_MS).await.unwrap();
    assert_eq!((named.alias, named.name.as_str()), (None, "one"));
    let realm = |byte| SnapshotFilter {
        realm: Some(RealmId::from_bytes([byte; 12])),
        ..SnapshotFilter::default()
    };
    assert_eq!(names(world, realm(5)).await, ["one"]);
    assert_eq!(names(world, realm(6)).await, [""; 0]);

    world.store.set_snapshot_alias(want.id, None, NOW_MS).await.unwrap();
    world.store.remove_snapshot(want.id, false, NOW_MS).await.unwrap();
    let failing = snapshot(&container, "two");
    world.store.create_snapshot(&failing, max(10)).await.unwrap();
    world.store.remove_snapshot(failing.id, true, NOW_MS).await.unwrap();
    let told = async |byte| {
        let realm = Some(RealmId::from_bytes([byte; 12]));
        let filter = EventFilter { realm, ..EventFilter::default() };
        let events = world.store.events_after(filter, 0, 100).await.unwrap();
        events.into_iter().map(|event| event.kind).collect::<Vec<String>>()
    };
    let happened = ["created", "renamed", "deleted", "failed"];
    let happened = happened.map(|what| format!("container.snapshot.{what}"));
    assert_eq!(told(5).await[1..], happened, "an alias that stays is nothing to tell");
    assert_eq!(told(6).await, [""; 0]);
}

fn max(container: u32) -> SnapshotMax {
    SnapshotMax { container, owner: 100 }
}

pub(crate) async fn an_account_has_so_many_snapshots(world: &World) {
    let (container, _) = made(world, "one").await;
    let other = world.create("two").await;
    let own = SnapshotMax { container: 10, owner: 1 };
    let refused = world.store.create_snapshot(&snapshot(&other, "one"), own).await;
    assert!(matches!(refused, Err(Error::SnapshotQuota { max: 1 })), "{refused:?}");
    let mut copy = world.container("copy");
    let source = FillSource::Container(container.id);
    copy.status.fill = Some(Fill { source, is_new: true });
    copy.status.phase = Phase::Copying;
    copy.source = Some(container.id);
    let refused = world.store.create_copy(&copy, None, 1, CopiedRules::default()).await;
    assert!(matches!(refused, Err(Error::SnapshotQuota { max: 1 })), "{refused:?}");
    assert_eq!(world.store.container(copy.id).await.unwrap(), None, "nothing is left of it");
    let copy = world.store.create_copy(&copy, None, 2, CopiedRules::default()).await.unwrap();
    let shared = world.store.snapshot_named(copy.id, "one").await.unwrap().unwrap();
    assert_eq!((shared.spec, shared.last_used_at_ms), (copy.spec, None));
}

pub(crate) async fn names_limits_and_operations_under_way_are_watched(world: &World) {
    let (container, _) = made(world, "one").await;
    let again = world.store.create_snapshot(&snapshot(&container, "one"), max(10)).await;
    assert!(matches!(again, Err(Error::NameTaken)), "{again:?}");
    let limit = world.store.create_snapshot(&snapshot(&container, "two"), max(1)).await;
    assert!(matches!(limit, Err(Error::SnapshotLimit { count: 1, max: 1 })), "{limit:?}");
    let other = world.create("two").await;
    world.store.create_snapshot(&snapshot(&other, "one"), max(10)).await.unwrap();
    let busy = world.store.create_snapshot(&snapshot(&other, "two"), max(10)).await;
    assert!(matches!(busy, Err(Error::SnapshotBusy)), "{busy:?}");
    let mut gone = container.clone();
    gone.id = id();
    let gone = world.store.create_snapshot(&snapshot(&gone, "one"), max(10)).await;
    assert!(matches!(gone, Err(Error::NotFound)), "{gone:?}");
}

pub(crate) async fn snapshots_outlive_their_container(world: &World) {
    let (container, snapshot) = made(world, "one").await;
    world.store.remove_container(container.id, NOW_MS).await.unwrap();
    let of = SnapshotFilter { container: Some(container.id), ..SnapshotFilter::default() };
    assert_eq!(names(world, of).await, ["one"]);
    assert_eq!(world.store.snapshot(snapshot.id).await.unwrap(), Some(snapshot));
}

pub(crate) async fn a_removed_snapshot_is_discarded_with_its_last_reference(world: &World) {
    let (container, snapshot) = made(world, "one").await;
    let store = &world.store;
    let mut copy = world.container("copy");
    let source = FillSource::Container(container.id);
    copy.status.fill = Some(Fill { source, is_new: true });
    copy.status.phase = Phase::Copying;
    copy.source = Some(container.id);
    let copy = store
        .create_copy(&copy, None, 10, CopiedRules { firewall: true, outbound: None })
        .await
        .unwrap();
    let shared = store.snapshot_named(copy.id, "one").await.unwrap().unwrap();
    assert_ne!(shared.id, snapshot.id);
    assert_eq!((shared.data, shared.container), (snapshot.data, copy.id));

    store.remove_snapshot(snapshot.id, false, NOW_MS).await.unwrap();
    assert_eq!(store.discarded_snapshots(world.server.id).await.unwrap(), []);
    let gone = store.remove_snapshot(snapshot.id, false, NOW_MS).await;
    assert!(matches!(gone, Err(Error::NotFound)), "{gone:?}");
    store.remove_snapshot(shared.id, false, NOW_MS).await.unwrap();
    assert_eq!(store.discarded_snapshots(world.server.id).await.unwrap(), [snapshot.data]);
    store.forget_discarded(snapshot.data).await.unwrap();
    assert_eq!(store.discarded_snapshots(world.server.id).await.unwrap(), []);
}

/// Otherwise it could take the places of all that can be removed, and be refused again and again.
pub(crate) async fn what_is_fetched_has_not_ended(world: &World) {
    let store = &world.store;
    let (container, origin) = made(world, "one").await;
    let name = "second".parse().unwrap();
    let mut copy = world.container("copy");
    copy.server = store.ensure_server(id(), &name, NOW_MS).await.unwrap().id;
    let source = FillSource::Container(container.id);
    copy.status.fill = Some(Fill { source, is_new: true });
    copy.status.phase = Phase::Copying;
    copy.source = Some(container.id);
    let copy = store.create_copy(&copy, None, 10, CopiedRules::default()).await.unwrap();
    let fetched = store.snapshot_named(copy.id, "one").await.unwrap().unwrap();
    let from = store.origin_of_snapshot(fetched.id).await.unwrap().unwrap();
    assert_eq!((from.data, from.server), (origin.data, Some(container.server)));

    let later = NOW_MS + 1000;
    assert_eq!(origin.expires_at_ms, Some(later));
    assert_eq!(store.ended_snapshots(later).await.unwrap(), [], "one is fetched from the other");
    let busy = store.remove_snapshot(origin.id, false, later).await;
    assert!(matches!(busy, Err(Error::SnapshotBusy)), "{busy:?}");

    store.finish_snapshot(fetched.id, 4096, NOW_MS).await.unwrap();
    let mut ended = store.ended_snapshots(later).await.unwrap();
    let mut both = vec![origin.id, fetched.id];
    ended.sort_unstable();
    both.sort_unstable();
    assert_eq!(ended, both);
    store.remove_snapshot(origin.id, false, later).await.unwrap();
}

pub(crate) async fn what_is_being_used_is_not_removed(world: &World) {
    let (container, snapshot) = made(world, "one").await;
    let store = &world.store;
    let source = FillSource::Snapshot(snapshot.data);
    let next = (Wish::Running, Phase::Copying);
    let fill = async |container: &Container, used: SnapshotId| {
        let version = container.version;
        store.set_fill(container.id, version, next, source, Some(used), "user", NOW_MS + 5).await
    };
    let missing = fill(&container, id()).await;
    assert!(matches!(missing, Err(Error::NotFound)), "{missing:?}");
    let filled = fill(&container, snapshot.id).await.unwrap();
    assert_eq!(filled.status.fill, Some(Fill { source, is_new: false }));
    assert_eq!((filled.wish_seq, filled.status.phase), (2, Phase::Copying));
    assert_eq!(world.read(container.id).await, filled);
    for refused in [
        store.remove_snapshot(snapshot.id, false, NOW_MS).await,
        fill(&filled, snapshot.id).await.map(drop),
        store.create_snapshot(&self::snapshot(&container, "two"), max(10)).await,
    ] {
        assert!(matches!(refused, Err(Error::SnapshotBusy)), "{refused:?}");
    }
    let mut status = filled.status.clone();
    status.fill = None;
    store.set_status(filled.id, filled.version, &status, "r", NOW_MS).await.unwrap();
    let summaries = store.snapshot_summaries(&[container.id, id()]).await.unwrap();
    let want = SnapshotSummary { count: 1, last_used: Some("one".to_owned()) };
    assert_eq!(summaries.into_iter().collect::<Vec<(ContainerId, _)>>(), [(container.id, want)]);
    assert_eq!(store.ended_snapshots(NOW_MS + 999).await.unwrap(), []);
    assert_eq!(store.ended_snapshots(NOW_MS + 1000).await.unwrap(), [snapshot.id]);
    store.remove_snapshot(snapshot.id, false, NOW_MS).await.unwrap();
}
