//! Many callers at once: exactly as many succeed as may.

use std::{future::Future, time::Duration};

use gantry_store::{Access, AliasRules, Error, Idempotency, Scope, Store};
use tokio::{sync::Barrier, task::JoinSet, time::timeout};

use super::{
    edge::{alias, document},
    fixture::{ALL, EVERY, NOW_MS, World, key, spec},
    pool,
};

const TASKS: usize = 64;

/// Runs a call in 64 tasks at once.
async fn at_once<T, F>(store: &Store, call: impl Fn(Store, usize) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let start = std::sync::Arc::new(Barrier::new(TASKS));
    let mut tasks = JoinSet::new();
    for number in 0..TASKS {
        let (start, call) = (std::sync::Arc::clone(&start), call(store.clone(), number));
        tasks.spawn(async move {
            start.wait().await;
            call.await
        });
    }
    timeout(Duration::from_mins(1), tasks.join_all()).await.unwrap()
}

/// One result is good, all others are refused as `expected` says.
fn one_wins<T>(results: Vec<Result<T, Error>>, expected: fn(&Error) -> bool) {
    let (won, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    for refused in lost.into_iter().filter_map(Result::err) {
        assert!(expected(&refused), "{refused:?}");
    }
}

pub(crate) async fn of_64_creations_with_one_name_one_wins(world: &World) {
    let results = at_once(&world.store, |store, _| {
        let container = world.container("wanted");
        async move { store.create_container(&container).await }
    });
    one_wins(results.await, |refused| matches!(refused, Error::NameTaken));
    assert_eq!(world.store.containers(EVERY, ALL).await.unwrap().total, 1);
}

pub(crate) async fn of_64_claims_of_one_container_one_wins(world: &World) {
    let waits = pool::waiting(world, |_| {}).await;
    let results = at_once(&world.store, |store, number| {
        let claim = pool::claim(world, &format!("number-{number}"));
        async move { store.claim(&claim).await.unwrap() }
    });
    let claimed: Vec<_> = results.await.into_iter().flatten().collect();
    assert_eq!(claimed.len(), 1, "{claimed:?}");
    assert_eq!(claimed[0].id, waits.id);
}

pub(crate) async fn of_64_creations_with_one_key_one_wins(world: &World) {
    let results = at_once(&world.store, |store, number| {
        let mut container = world.container(&format!("number-{number}"));
        container.spec.ssh_public_key = Some(key([1; 32]));
        async move { store.create_container(&container).await }
    });
    one_wins(results.await, |refused| matches!(refused, Error::KeyTaken));
    assert_eq!(world.store.containers(EVERY, ALL).await.unwrap().total, 1);
}

pub(crate) async fn of_64_updates_of_one_version_one_wins(world: &World) {
    let one = world.create("one").await;
    let results = at_once(&world.store, |store, number| {
        let (id, version) = (one.id, one.version);
        async move { store.update_spec(id, version, &spec(&format!("number-{number}")), NOW_MS).await }
    });
    one_wins(results.await, |refused| matches!(refused, Error::Stale));
    assert_eq!(world.read(one.id).await.version.0, 2);
}

pub(crate) async fn of_64_documents_on_one_version_one_wins(world: &World) {
    let scope = Scope::Project(world.project.id);
    let results = at_once(&world.store, |store, _| {
        let access = Access { document: Some(document()), ..Access::default() };
        async move { store.set_access(scope, access, NOW_MS).await }
    });
    one_wins(results.await, |refused| matches!(refused, Error::Stale));
    assert_eq!(world.store.access(scope).await.unwrap().version.0, 1);
}

pub(crate) async fn of_64_aliases_with_one_label_one_wins(world: &World) {
    let one = world.create("one").await;
    let rules = AliasRules { per_owner_max: 1000, quarantine_ms: 0, by_owner: true };
    let results = at_once(&world.store, |store, _| {
        let alias = alias(&one, "wanted");
        async move { store.create_alias(&alias, rules).await }
    });
    one_wins(results.await, |refused| matches!(refused, Error::LabelTaken { own: true }));
}

pub(crate) async fn a_quota_holds_against_64_creations(world: &World) {
    let mut project = world.project.clone();
    project.spec.max_containers = Some(10);
    world.store.update_project(&project).await.unwrap();
    let results = at_once(&world.store, |store, number| {
        let container = world.container(&format!("number-{number}"));
        async move { store.create_container(&container).await }
    });
    let (made, refused): (Vec<_>, Vec<_>) = results.await.into_iter().partition(Result::is_ok);
    assert_eq!((made.len(), refused.len()), (10, 54));
    for refused in refused.into_iter().map(Result::unwrap_err) {
        assert!(matches!(refused, Error::QuotaReached { max: 10 }), "{refused:?}");
    }
    assert_eq!(world.store.containers(EVERY, ALL).await.unwrap().total, 10);
}

pub(crate) async fn of_64_requests_with_one_idempotency_key_one_is_fresh(world: &World) {
    let found = at_once(&world.store, |store, _| async move {
        store.idempotency_begin("s", "key", &[1; 32], NOW_MS).await.unwrap()
    });
    let found = found.await;
    assert_eq!(found.iter().filter(|it| **it == Idempotency::Fresh).count(), 1);
    assert_eq!(found.iter().filter(|it| **it == Idempotency::InProgress).count(), TASKS - 1);
}

pub(crate) async fn a_hundred_creations_at_once_succeed(world: &World) {
    let mut tasks = JoinSet::new();
    for number in 0..100 {
        let (store, container) = (world.store.clone(), world.container(&format!("n-{number}")));
        tasks.spawn(async move { store.create_container(&container).await.unwrap() });
    }
    timeout(Duration::from_mins(1), tasks.join_all()).await.unwrap();
    assert_eq!(world.store.containers(EVERY, ALL).await.unwrap().total, 100);
    assert_eq!(world.store.head().borrow().0, 100);
}
