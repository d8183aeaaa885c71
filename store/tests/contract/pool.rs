//! The warm pool.

use gantry_model::{Phase, RealmId, container::ContainerName};
use gantry_store::{Claim, Container, ContainerFilter, Error, LogSort, Page, PrespawnMax};

use super::fixture::{ALL, EVERY, NOW_MS, World, id, key, project};

const MAX: PrespawnMax = PrespawnMax { owner: 4, server: 100 };

/// A container that waits and runs.
pub(crate) async fn waiting(world: &World, change: impl FnOnce(&mut Container)) -> Container {
    let mut container = world.container("warm");
    container.prespawn = true;
    container.spec.name = ContainerName::of_prespawned(container.id);
    container.spec.ssh_public_key = None;
    container.spec.realms = Vec::new();
    change(&mut container);
    let made = world.store.create_prespawned(&container, MAX).await.unwrap();
    let mut status = made.status.clone();
    (status.phase, status.done_seq) = (Phase::Running, made.wish_seq);
    world.store.set_status(made.id, made.version, &status, "test", NOW_MS).await.unwrap()
}

pub(crate) fn claim(world: &World, name: &str) -> Claim {
    let mut wanted = world.container(name);
    wanted.spec.realms = vec![RealmId::from_bytes([5; 12])];
    wanted.created_at_ms = NOW_MS + 5;
    wanted.updated_at_ms = NOW_MS + 5;
    Claim { wanted, realm: None, refill: id() }
}

pub(crate) async fn a_claim_takes_the_oldest_that_is_alike_and_another_takes_its_place(
    world: &World,
) {
    waiting(world, |container| {
        container.spec.ramdisk = !container.spec.ramdisk;
        container.created_at_ms = NOW_MS - 9;
    })
    .await;
    waiting(world, |container| {
        container.spec.kvm = !container.spec.kvm;
        container.created_at_ms = NOW_MS - 8;
    })
    .await;
    waiting(world, |_| {}).await;
    let oldest = waiting(world, |container| container.created_at_ms = NOW_MS - 5).await;
    let other = project(&world.owner, "second");
    world.store.create_project(&other).await.unwrap();

    let mut claim = claim(world, "web");
    claim.wanted.project = other.id;
    claim.wanted.spec.ssh_public_key = Some(key([1; 32]));
    claim.wanted.spec.ssh_forwarding = false;
    let claimed = world.store.claim(&claim).await.unwrap().unwrap();
    let want = Container {
        id: oldest.id,
        wish_seq: oldest.wish_seq + 1,
        status: gantry_store::ContainerStatus {
            phase: Phase::Claiming,
            started_at_ms: Some(NOW_MS + 5),
            ..oldest.status.clone()
        },
        version: gantry_store::Version(oldest.version.0 + 1),
        ssh_key_since_ms: Some(NOW_MS + 5),
        ..claim.wanted.clone()
    };
    assert_eq!(claimed, want);
    assert_eq!(world.read(oldest.id).await, want);
    let routes = world.store.load_routes().await.unwrap().containers;
    let route = routes.into_iter().find(|route| route.container == oldest.id).unwrap();
    assert!(!route.ssh_forwarding && route.ssh_key.is_some(), "{route:?}");
    let page = Page { page: 1, limit: 9, sort: LogSort::At, descending: false };
    let logs = world.store.status_logs(oldest.id, page).await.unwrap().items;
    assert_eq!(logs.len(), 1, "it has no past: {logs:?}");
    assert_eq!((logs[0].from, logs[0].to, logs[0].at_ms), (None, Phase::Claiming, NOW_MS + 5));
    let next = world.read(claim.refill).await;
    assert!(next.prespawn && next.status.phase == Phase::Creating, "{next:?}");
    assert_eq!((next.project, next.spec.image), (world.project.id, oldest.spec.image));
    let shown = ContainerFilter { include_prespawn: false, ..EVERY };
    assert_eq!(world.store.containers(shown, ALL).await.unwrap().items, [claimed]);
    assert_eq!(world.store.containers(EVERY, ALL).await.unwrap().total, 5);
}

pub(crate) async fn what_waits_is_claimed_by_its_owner_in_its_realm_and_when_it_runs(
    world: &World,
) {
    let realm = RealmId::from_bytes([6; 12]);
    let waits = waiting(world, |container| container.spec.realms = vec![realm]).await;
    assert!(
        world.store.realms(None).await.unwrap().is_empty(),
        "a realm of which nothing is shown"
    );
    let stranger = super::fixture::user("stranger");
    world.store.create_user(&stranger).await.unwrap();
    let theirs = project(&stranger, "theirs");
    world.store.create_project(&theirs).await.unwrap();

    let mut others = claim(world, "web");
    (others.wanted.owner, others.wanted.project) = (stranger.id, theirs.id);
    assert_eq!(world.store.claim(&others).await.unwrap(), None);
    let elsewhere = Claim { realm: Some(RealmId::from_bytes([9; 12])), ..claim(world, "web") };
    assert_eq!(world.store.claim(&elsewhere).await.unwrap(), None);
    assert_eq!(world.store.containers(EVERY, ALL).await.unwrap().total, 1, "nothing happened");
    let here = Claim { realm: Some(realm), ..claim(world, "web") };
    assert_eq!(world.store.claim(&here).await.unwrap().unwrap().id, waits.id);
    let again = world.store.claim(&claim(world, "two")).await.unwrap();
    assert_eq!(again, None, "the one in its place does not run yet");
}

pub(crate) async fn the_pool_has_bounds_and_counts_for_no_quota(world: &World) {
    let mut quota = world.project.clone();
    quota.spec.max_containers = Some(1);
    world.store.update_project(&quota).await.unwrap();
    for _ in 0..MAX.owner {
        waiting(world, |_| {}).await;
    }
    for (max, bound) in [(MAX, 4), (PrespawnMax { owner: 9, server: 2 }, 2)] {
        let mut more = world.container("more");
        more.prespawn = true;
        let refused = world.store.create_prespawned(&more, max).await;
        assert!(matches!(refused, Err(Error::PoolFull { max }) if max == bound), "{refused:?}");
    }
    world.store.claim(&claim(world, "one")).await.unwrap().unwrap();
    let refused = world.store.claim(&claim(world, "two")).await;
    assert!(matches!(refused, Err(Error::QuotaReached { max: 1 })), "{refused:?}");
    let left = world.store.containers(EVERY, ALL).await.unwrap();
    assert_eq!(left.items.iter().filter(|container| container.prespawn).count(), 4);
    let refused = world.store.claim(&claim(world, "one")).await;
    assert!(matches!(refused, Err(Error::QuotaReached { .. })), "{refused:?}");
    for container in left.items.into_iter().filter(|container| !container.prespawn) {
        world.store.remove_container(container.id, NOW_MS).await.unwrap();
    }
    let refused = world.store.delete_project(world.project.id, NOW_MS).await;
    assert!(matches!(refused, Err(Error::NotEmpty)), "{refused:?}");
}
