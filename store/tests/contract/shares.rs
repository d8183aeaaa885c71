//! Storage shares.

use gantry_model::{
    ContainerId, Phase,
    project::Level,
    share::{ShareMode, ShareName, SharePath},
};
use gantry_store::{
    Changes, Container, Error, Granter, Member, MemberMax, Share, ShareFilter, ShareMax,
    ShareTarget, User, Version,
};

use super::fixture::{NOW_MS, World, id, project, user};

const MAX: ShareMax = ShareMax { container: 10, owner: 10, target: 10 };

async fn container(world: &World, name: &str) -> Container {
    world.store.create_container(&world.container(name)).await.unwrap()
}

fn share(source: &Container, target: ShareTarget) -> Share {
    Share {
        id: id(),
        owner: source.owner,
        project: source.project,
        source: source.id,
        path: SharePath::parse("path", "/data").unwrap(),
        target,
        mode: ShareMode::ReadOnly,
        alias: ShareName::parse("alias", "data").ok(),
        label: None,
        description: Some("all of it".to_owned()),
        enabled: true,
        expires_at_ms: None,
        expiry_notified: false,
        created_by: source.owner,
        failure: None,
        version: Version::FIRST,
        created_at_ms: NOW_MS,
        updated_at_ms: NOW_MS,
    }
}

/// Which containers were put into the feed by what happens meanwhile.
async fn fed(world: &World, meanwhile: impl Future<Output = ()>) -> Vec<ContainerId> {
    let before = *world.store.head().borrow();
    meanwhile.await;
    match world.store.changes(before, 100).await.unwrap() {
        Changes::Since { changes, .. } => changes.iter().map(|change| change.container).collect(),
        other @ (Changes::Compacted | Changes::NewEpoch) => panic!("{other:?}"),
    }
}

pub(crate) async fn a_share_is_read_as_it_was_written_and_feeds_whom_it_reaches(world: &World) {
    let store = &world.store;
    let (source, one) = (container(world, "source").await, container(world, "one").await);
    let (direct, all) = (ShareTarget::Container(one.id), ShareTarget::Project(one.project));
    let made = share(&source, direct);
    let reached = fed(world, async { store.create_share(&made, MAX).await.unwrap() }).await;
    assert_eq!(reached, [one.id]);
    assert_eq!(store.share(made.id).await.unwrap(), Some(made.clone()));
    let wide = share(&source, all);
    let mut reached = fed(world, async { store.create_share(&wide, MAX).await.unwrap() }).await;
    reached.sort_unstable();
    let mut both = [source.id, one.id];
    both.sort_unstable();
    assert_eq!(reached, both, "its own container has to look as well");

    let incoming = store.incoming_shares(one.id, one.project).await.unwrap();
    let mut ids: Vec<_> = incoming.iter().map(|incoming| incoming.share.id).collect();
    ids.sort_unstable();
    let mut want = [made.id, wide.id];
    want.sort_unstable();
    assert_eq!(ids, want);
    assert!(incoming.iter().all(|incoming| incoming.is_rightful && incoming.is_wanted));
    assert_eq!(store.incoming_shares(source.id, source.project).await.unwrap(), []);

    let stale = Share { mode: ShareMode::ReadWrite, ..made.clone() };
    let new = store.update_share(&stale).await.unwrap();
    assert_eq!(new.version, Version(2));
    assert!(matches!(store.update_share(&stale).await, Err(Error::Stale)));

    // Its source stops: whom it reaches is looked at.
    let reached = fed(world, async {
        let mut status = source.status.clone();
        status.phase = Phase::Failed;
        store.set_status(source.id, source.version, &status, "test", NOW_MS).await.unwrap();
    })
    .await;
    assert!(reached.contains(&one.id), "{reached:?}");

    // With its source it goes.
    store.remove_container(source.id, NOW_MS).await.unwrap();
    assert_eq!(store.shares(ShareFilter::default(), 10).await.unwrap(), []);
    assert_eq!(store.incoming_shares(one.id, one.project).await.unwrap(), []);
}

pub(crate) async fn failures_are_those_of_the_last_look_and_overrides_stay(world: &World) {
    let store = &world.store;
    let (source, one) = (container(world, "source").await, container(world, "one").await);
    let made = share(&source, ShareTarget::Container(one.id));
    store.create_share(&made, MAX).await.unwrap();
    let fed_by_note = fed(world, async {
        let failures = vec![(made.id, "no such directory".to_owned()), (id(), "gone".to_owned())];
        store.note_share_failures(one.id, failures, NOW_MS).await.unwrap();
    })
    .await;
    assert_eq!(fed_by_note, [], "or each look would cause the next");
    let read = store.share(made.id).await.unwrap().unwrap();
    assert_eq!(read.failure, Some((one.id, "no such directory".to_owned())));
    assert_eq!(store.containers_lacking_shares(world.server.id).await.unwrap(), [one.id]);
    let filter = ShareFilter { has_failed: Some(true), ..ShareFilter::default() };
    assert_eq!(store.shares(filter, 10).await.unwrap().len(), 1);

    let said = store.set_share_mount(made.id, one.id, false, id(), NOW_MS + 1).await.unwrap();
    assert_eq!((said.is_wanted, said.created_at_ms), (false, NOW_MS + 1));
    let again = store.set_share_mount(made.id, one.id, true, id(), NOW_MS + 2).await.unwrap();
    assert_eq!(
        (again.id, again.created_at_ms, again.updated_at_ms),
        (said.id, NOW_MS + 1, NOW_MS + 2)
    );
    assert_eq!(store.share(made.id).await.unwrap().unwrap().failure, None);
    store.note_share_failures(one.id, Vec::new(), NOW_MS).await.unwrap();
    assert_eq!(store.containers_lacking_shares(world.server.id).await.unwrap(), []);
}

pub(crate) async fn rights_bounds_and_ends_hold(world: &World) {
    let store = &world.store;
    let other = user("other");
    store.create_user(&other).await.unwrap();
    let theirs = project(&other, "theirs");
    store.create_project(&theirs).await.unwrap();
    // Not an administrator, who may always.
    let maker = User { is_admin: false, ..user("maker") };
    store.create_user(&maker).await.unwrap();
    let home = project(&maker, "home");
    store.create_project(&home).await.unwrap();
    let source = Container { owner: maker.id, ..world.container_in(home.id, "source") };
    let source = store.create_container(&source).await.unwrap();
    let target = Container { owner: other.id, ..world.container_in(theirs.id, "target") };
    let target = store.create_container(&target).await.unwrap();
    let mut made = share(&source, ShareTarget::Container(target.id));
    made.expires_at_ms = Some(NOW_MS + 1000);
    store.create_share(&made, MAX).await.unwrap();
    let rightful =
        async || store.incoming_shares(target.id, target.project).await.unwrap()[0].is_rightful;
    assert!(!rightful().await);
    let member = Member {
        id: id(),
        project: theirs.id,
        user: maker.id,
        username: maker.username.clone(),
        level: Level::Edit,
        created_at_ms: NOW_MS,
        updated_at_ms: NOW_MS,
    };
    let by = Granter { user: other.id, needs: None };
    let added = fed(world, async {
        store.add_member(&member, MemberMax { project: 9, user: 9 }, by).await.unwrap();
    })
    .await;
    assert!(added.contains(&target.id) && rightful().await);
    let less = Member { level: Level::Read, ..member };
    let changed =
        fed(world, async { store.set_member(&less, Level::Edit, by).await.unwrap() }).await;
    assert!(changed.contains(&target.id) && !rightful().await);

    for (max, what) in [
        (ShareMax { container: 1, ..MAX }, "a container"),
        (ShareMax { owner: 1, ..MAX }, "an account"),
        (ShareMax { target: 1, ..MAX }, "what receives shares"),
    ] {
        let more = share(&source, ShareTarget::Container(target.id));
        match store.create_share(&more, max).await {
            Err(Error::ShareLimit { what: found, max: 1 }) => assert_eq!(found, what),
            other => panic!("{what}: {other:?}"),
        }
    }

    // It is told once that it ends, and then it ends.
    assert_eq!(store.next_share_end(NOW_MS).await.unwrap(), Some(NOW_MS + 1000));
    for _ in 0..2 {
        store.expire_shares(NOW_MS, NOW_MS + 5000).await.unwrap();
    }
    assert!(store.share(made.id).await.unwrap().unwrap().expiry_notified);
    let ended = fed(world, async {
        store.expire_shares(NOW_MS + 1000, NOW_MS + 5000).await.unwrap();
    })
    .await;
    assert_eq!((ended, store.share(made.id).await.unwrap()), (vec![target.id], None));
    let told = store.events_after(gantry_store::EventFilter::default(), 0, 100).await.unwrap();
    let kinds: Vec<&str> =
        told.iter().filter_map(|event| event.kind.strip_prefix("storage.share.")).collect();
    assert_eq!(kinds, ["created", "expiring_soon", "expired"]);
}
