//! The table as a real store feeds it.

use std::{collections::BTreeMap, time::Duration};

use gantry_model::{ContainerId, Generation, Phase};
use gantry_router::{Feed, NoRoute, Route, RouteState, RouteTable, Routes};
use proptest::{prelude::*, sample::select};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::support::{World, container_id, eventually, project_id};

/// A feed that runs until this is dropped.
struct Running {
    routes: Routes,
    shutdown: CancellationToken,
    tasks: JoinSet<()>,
}

impl Running {
    async fn start(world: &World) -> Self {
        let (routes, feed) = Feed::start(world.store.clone()).await.unwrap();
        let (shutdown, mut tasks) = (CancellationToken::new(), JoinSet::new());
        tasks.spawn(feed.run(shutdown.clone()));
        Self { routes, shutdown, tasks }
    }

    fn lookup(&self, number: u8) -> Result<Route, NoRoute> {
        self.routes.current().lookup(project_id(1), container_id(number))
    }

    fn state(&self, number: u8) -> Option<RouteState> {
        self.lookup(number).ok().map(|route| route.state)
    }

    async fn stop(mut self) {
        self.shutdown.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(5), self.tasks.join_next()).await;
        ended.unwrap().unwrap().unwrap();
    }
}

fn sorted(table: &RouteTable) -> BTreeMap<ContainerId, Route> {
    table.routes().into_iter().map(|route| (route.container, route)).collect()
}

#[tokio::test]
async fn what_is_recorded_has_a_route_before_the_feed_runs() {
    let world = World::new().await;
    world.create(1, 1).await;
    world.move_to(1, Phase::Running).await;
    let (routes, _feed) = Feed::start(world.store.clone()).await.unwrap();
    let route = routes.current().lookup(project_id(1), container_id(1)).unwrap();
    assert!(matches!(route.state, RouteState::Running { .. }));
    assert_eq!(routes.current().revision(), *world.store.head().borrow());
}

#[tokio::test]
async fn a_container_is_followed_from_its_creation_to_its_end() {
    let world = World::new().await;
    let feed = Running::start(&world).await;
    assert_eq!(feed.lookup(1), Err(NoRoute::Unknown));
    world.create(1, 1).await;
    eventually("created", || feed.state(1) == Some(RouteState::Starting)).await;
    world.move_to(1, Phase::Running).await;
    let runs = |generation| {
        feed.lookup(1).is_ok_and(|route| {
            matches!(route.state, RouteState::Running { .. })
                && route.generation == Generation(generation)
        })
    };
    eventually("running", || runs(1)).await;
    world.move_to(1, Phase::Stopping).await;
    eventually("stopping", || feed.state(1) == Some(RouteState::Stopped)).await;
    world.move_to(1, Phase::Running).await;
    eventually("its second start has a generation of its own", || runs(2)).await;
    world.move_to(1, Phase::Deleting).await;
    eventually("its URLs are dead", || feed.lookup(1).is_err()).await;
    world.remove(1).await;
    let head = *world.store.head().borrow();
    eventually("gone", || feed.routes.current().revision() == head).await;
    assert!(feed.routes.current().is_empty());
    feed.stop().await;
}

#[tokio::test]
async fn a_burst_of_changes_costs_few_publications() {
    let world = World::new().await;
    let feed = Running::start(&world).await;
    let mut published = feed.routes.published();
    let watcher = async {
        let mut count = 0_u32;
        while published.borrow_and_update().0 < 200 {
            published.changed().await.unwrap();
            count += 1;
        }
        count
    };
    let writer = async {
        let writes = (1..=200).map(|number| world.create(number, 1));
        futures_util::future::join_all(writes).await;
    };
    let (count, ()) = tokio::join!(watcher, writer);
    assert!(count <= 100, "{count} publications for 200 changes");
    assert_eq!(feed.routes.current().len(), 200);
    feed.stop().await;
}

#[tokio::test]
async fn the_old_table_serves_while_the_store_is_away() {
    let world = World::new().await;
    world.create(1, 1).await;
    world.move_to(1, Phase::Running).await;
    let feed = Running::start(&world).await;
    assert!(feed.routes.last_error().is_none());
    world.store.close().await;
    eventually("the outage is noticed", || feed.routes.last_error().is_some()).await;
    let noticed = feed.routes.age();
    eventually("its age grows", || feed.routes.age() > noticed + Duration::from_millis(50)).await;
    assert!(feed.lookup(1).is_ok(), "the last good table serves");
    feed.stop().await;
}

#[tokio::test]
async fn a_quiet_table_stays_young() {
    let world = World::new().await;
    let feed = Running::start(&world).await;
    let start = std::time::Instant::now();
    let half = Duration::from_millis(500);
    eventually("two polls", || start.elapsed() > Duration::from_millis(2_200)).await;
    eventually("a fresh confirmation", || feed.routes.age() < half).await;
    feed.stop().await;
}

#[tokio::test]
async fn lost_history_makes_the_feed_load_everything_again() {
    let world = World::new().await;
    for number in 1..=5 {
        world.create(number, 1).await;
    }
    for (why, statement) in [
        ("compacted", "DELETE FROM changes"),
        ("a gap", "DELETE FROM changes WHERE rev = (SELECT max(rev) - 1 FROM changes)"),
        ("set back, as by a backup", "UPDATE feed SET rev = 2"),
    ] {
        let (routes, feed) = Feed::start(world.store.clone()).await.unwrap();
        for number in 1..=5 {
            world.move_to(number, Phase::Running).await;
        }
        world.tamper(statement).await;
        let (shutdown, mut tasks) = (CancellationToken::new(), JoinSet::new());
        tasks.spawn(feed.run(shutdown.clone()));
        let generation =
            world.store.container(container_id(1)).await.unwrap().unwrap().status.generation;
        eventually(why, || {
            routes.current().routes().iter().all(|route| route.generation == generation)
        })
        .await;
        assert_eq!(routes.current().len(), 5, "{why}");
        eventually("no error is left", || routes.last_error().is_none()).await;
        shutdown.cancel();
        tasks.join_next().await.unwrap().unwrap();
        world.tamper("DELETE FROM changes").await; // the next round starts with a clean history
    }
}

#[tokio::test]
async fn a_damaged_record_keeps_its_last_good_route() {
    let world = World::new().await;
    for number in [1, 2] {
        world.create(number, 1).await;
        world.move_to(number, Phase::Running).await;
    }
    let feed = Running::start(&world).await;
    let good = feed.lookup(1).unwrap();
    world
        .tamper("UPDATE containers SET generation = -1 WHERE id = x'010101010101010101010101'")
        .await;
    // Both ways of reading it: by a change, and by a full load.
    for statement in [
        "BEGIN IMMEDIATE; UPDATE feed SET rev = rev + 1; \
         INSERT INTO changes (rev, container, at_ms) \
         SELECT rev, x'010101010101010101010101', 0 FROM feed; COMMIT",
        "UPDATE feed SET rev = rev + 10",
    ] {
        world.tamper(statement).await;
        world.move_to(2, Phase::Stopped).await;
        eventually("others are followed", || feed.state(2) == Some(RouteState::Stopped)).await;
        assert_eq!(feed.lookup(1), Ok(good), "{statement}");
        world.move_to(2, Phase::Running).await;
        eventually("others are followed", || feed.state(2) != Some(RouteState::Stopped)).await;
        assert_eq!(feed.lookup(1), Ok(good), "{statement}");
    }
    feed.stop().await;
}

/// One thing done to a container.
#[derive(Clone, Copy, Debug)]
enum Act {
    Create { project: u8 },
    Move(Phase),
    Remove,
}

fn any_act() -> impl Strategy<Value = (u8, Act)> {
    let act = prop_oneof![
        (1_u8..4).prop_map(|project| Act::Create { project }),
        select(&Phase::ALL[..]).prop_map(Act::Move),
        Just(Act::Remove),
    ];
    (1_u8..8, act)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// The whole way: whatever is written while the feed runs, the table ends as a fresh start's.
    #[test]
    fn a_fed_table_equals_a_fresh_one(acts in proptest::collection::vec(any_act(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let (fed, fresh) = runtime.block_on(async {
            let world = World::new().await;
            let feed = Running::start(&world).await;
            let mut there = std::collections::BTreeSet::new();
            for (number, act) in acts {
                match act {
                    Act::Create { project } => {
                        if there.insert(number) {
                            world.create(number, project).await;
                        }
                    }
                    Act::Move(phase) => {
                        if there.contains(&number) {
                            world.move_to(number, phase).await;
                        }
                    }
                    Act::Remove => {
                        if there.remove(&number) {
                            world.remove(number).await;
                        }
                    }
                }
            }
            let fresh = world.store.load_routes().await.unwrap();
            eventually("caught up", || feed.routes.current().revision() == fresh.revision).await;
            let fed = sorted(&feed.routes.current());
            feed.stop().await;
            (fed, sorted(&RouteTable::build(&fresh)))
        });
        prop_assert_eq!(fed, fresh);
    }
}
