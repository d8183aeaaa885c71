//! The table as a real store feeds it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use gantry_model::{ContainerId, Generation, Phase, edge::WakePolicy};
use gantry_router::{AliasRoute, Feed, Gate, NoRoute, Route, RouteState, RouteTable, Routes};
use gantry_store::Scope;
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
        let (routes, feed) = Feed::start(world.store.clone(), &world.servers()).await.unwrap();
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

/// Everything that a table answers about the containers and labels of these tests, but for the
/// serials of gates.
#[derive(Debug, PartialEq)]
struct Answers {
    routes: BTreeMap<ContainerId, Route>,
    gates: Vec<Option<Gate>>,
    names: Vec<Option<AliasRoute>>,
}

impl Answers {
    fn of(table: &RouteTable) -> Self {
        let gate = |number| table.gate(container_id(number));
        let gate = |number| gate(number).map(|gate| Gate { serial: 0, ..(*gate).clone() });
        let aliases = (0..LABELS).map(|number| table.alias("local", &label(number)));
        let hostnames = (0..LABELS).map(|number| table.custom(&hostname(number)));
        Self {
            routes: table.routes().into_iter().map(|route| (route.container, route)).collect(),
            gates: (0..8).map(gate).collect(),
            names: aliases.chain(hostnames).map(|to| to.map(Arc::unwrap_or_clone)).collect(),
        }
    }
}

#[tokio::test]
async fn what_is_recorded_has_a_route_before_the_feed_runs() {
    let world = World::new().await;
    world.create(1, 1).await;
    world.move_to(1, Phase::Running).await;
    let (routes, _feed) = Feed::start(world.store.clone(), &world.servers()).await.unwrap();
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
        let (routes, feed) = Feed::start(world.store.clone(), &world.servers()).await.unwrap();
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

#[tokio::test]
async fn what_owners_set_is_followed() {
    let world = World::new().await;
    let feed = Running::start(&world).await;
    for number in [1, 2] {
        world.create(number, 1).await;
        world.move_to(number, Phase::Running).await;
    }
    let gated = |number| feed.lookup(number).is_ok_and(|route| route.gated);
    eventually("both are open", || feed.routes.current().len() == 2 && !gated(1)).await;
    world.set_access(Scope::Project(project_id(1)), true).await;
    eventually("a document of the project gates both", || gated(1) && gated(2)).await;
    let serial = |number| feed.routes.current().gate(container_id(number)).map(|gate| gate.serial);
    let (one, two) = (serial(1), serial(2));
    world.set_access(Scope::Container(container_id(1)), true).await;
    world.set_wake(1, WakePolicy::Any).await;
    world.move_to(2, Phase::Stopped).await;
    eventually("another gate", || serial(1) != one).await;
    eventually("stopped", || feed.state(2) == Some(RouteState::Stopped)).await;
    assert_eq!(serial(2), two, "what does not change its gate leaves its serial");
    world.set_access(Scope::Project(project_id(1)), false).await;
    eventually("the project's is gone", || gated(1) && !gated(2)).await;

    world.create_alias(1, &label(1), Some(&hostname(1))).await;
    let leads = |name: Option<Arc<AliasRoute>>| name.map(|to| to.container);
    let alias = |number| leads(feed.routes.current().alias("local", &label(number)));
    let custom = |number| leads(feed.routes.current().custom(&hostname(number)));
    eventually("an alias", || alias(1) == Some(container_id(1))).await;
    eventually("a hostname", || custom(1) == Some(container_id(1))).await;
    world.remove_alias(&label(1)).await;
    world.create_alias(2, &label(1), None).await;
    eventually("it moved", || alias(1) == Some(container_id(2))).await;
    eventually("its hostname went with it", || custom(1).is_none()).await;
    world.remove(2).await;
    eventually("it died with its container", || alias(1).is_none()).await;
    feed.stop().await;
}

#[tokio::test]
async fn a_damaged_document_opens_nothing() {
    let world = World::new().await;
    world.create(1, 1).await;
    world.move_to(1, Phase::Running).await;
    world.set_access(Scope::Container(container_id(1)), true).await;
    world.create_alias(1, &label(1), None).await;
    let feed = Running::start(&world).await;
    let table = || Answers::of(&feed.routes.current());
    let good = table();
    world.tamper("UPDATE container_access SET doc = '{}'").await;
    world.create(2, 1).await;
    for statement in [
        "BEGIN IMMEDIATE; UPDATE feed SET rev = rev + 1; \
         INSERT INTO changes (rev, container, at_ms) \
         SELECT rev, x'010101010101010101010101', 0 FROM feed; COMMIT",
        "UPDATE feed SET rev = rev + 10",
    ] {
        world.tamper(statement).await;
        world.move_to(2, Phase::Stopped).await;
        eventually("others are followed", || feed.state(2) == Some(RouteState::Stopped)).await;
        let now = table();
        let route = |answers: &Answers| answers.routes.get(&container_id(1)).copied();
        assert_eq!(route(&now), route(&good), "{statement}");
        assert_eq!((&now.gates, &now.names), (&good.gates, &good.names), "{statement}");
        world.move_to(2, Phase::Running).await;
        eventually("others are followed", || feed.state(2) != Some(RouteState::Stopped)).await;
    }
    feed.stop().await;
    // A process that never saw the good one knows no route at all.
    let fresh = RouteTable::build(&world.store.load_routes().await.unwrap(), &world.servers());
    assert_eq!(fresh.lookup(project_id(1), container_id(1)), Err(NoRoute::Unknown));
    assert_eq!(fresh.alias("local", &label(1)), None);
}

/// How many labels, and as many hostnames, the tests use.
const LABELS: u8 = 4;

fn label(number: u8) -> String {
    format!("label-{number}")
}

fn hostname(number: u8) -> String {
    format!("h{number}.example")
}

/// One thing done to a container.
#[derive(Clone, Copy, Debug)]
enum Act {
    Create { project: u8 },
    Move(Phase),
    Remove,
    Close(bool),
    CloseProject { project: u8, closed: bool },
    Wake(WakePolicy),
    Name { number: u8, bind: bool },
    Unname { number: u8 },
}

impl World {
    /// Does it, if it is possible now; `there` are the containers that exist.
    async fn act(&self, there: &mut BTreeSet<u8>, number: u8, act: Act) {
        match act {
            Act::Create { project } => {
                if there.insert(number) {
                    self.create(number, project).await;
                }
            }
            Act::CloseProject { project, closed } => {
                self.set_access(Scope::Project(project_id(project)), closed).await;
            }
            Act::Unname { number } => self.remove_alias(&label(number)).await,
            _ if !there.contains(&number) => {}
            Act::Move(phase) => drop(self.move_to(number, phase).await),
            Act::Remove => {
                there.remove(&number);
                self.remove(number).await;
            }
            Act::Close(closed) => {
                self.set_access(Scope::Container(container_id(number)), closed).await;
            }
            Act::Wake(wake) => self.set_wake(number, wake).await,
            Act::Name { number: name, bind } => {
                self.remove_alias(&label(name)).await;
                let hostname = bind.then(|| hostname(name));
                self.create_alias(number, &label(name), hostname.as_deref()).await;
            }
        }
    }
}

fn any_act() -> impl Strategy<Value = (u8, Act)> {
    let act = prop_oneof![
        (1_u8..4).prop_map(|project| Act::Create { project }),
        select(&Phase::ALL[..]).prop_map(Act::Move),
        Just(Act::Remove),
        any::<bool>().prop_map(Act::Close),
        (1_u8..4, any::<bool>())
            .prop_map(|(project, closed)| Act::CloseProject { project, closed }),
        select(vec![WakePolicy::Never, WakePolicy::Any]).prop_map(Act::Wake),
        (0..LABELS, any::<bool>()).prop_map(|(number, bind)| Act::Name { number, bind }),
        (0..LABELS).prop_map(|number| Act::Unname { number }),
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
            let mut there = BTreeSet::new();
            for (number, act) in acts {
                world.act(&mut there, number, act).await;
            }
            let fresh = world.store.load_routes().await.unwrap();
            eventually("caught up", || feed.routes.current().revision() == fresh.revision).await;
            let fed = Answers::of(&feed.routes.current());
            feed.stop().await;
            (fed, Answers::of(&RouteTable::build(&fresh, &world.servers())))
        });
        prop_assert_eq!(fed, fresh);
    }
}
