//! What a new process makes of what an old one left.

use std::time::Duration;

use gantry_control::{Condition, NewContainer, Operation};
use gantry_model::{ContainerId, Phase};
use gantry_runtime::{Kit, Limits, Order, State, fake::Call};
use gantry_store::EventFilter;
use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::bench::{Bench, PATIENCE, START_MS, quick, until};

#[tokio::test]
async fn running_containers_are_adopted_as_they_are() {
    let mut bench = Bench::running().await;
    let project = bench.project().await;
    let running = bench.running_container(&project).await.record;
    let paused = bench.running_container(&project).await.record.id;
    bench.operate(paused, Operation::Pause).await;
    bench.crash().await;
    let later = bench.create(&project, bench.plain()).await.record.id;
    bench.reconcile(quick());
    bench.reach(later, Condition::Running).await;
    let now = bench.reach(running.id, Condition::Running).await.record;
    assert_eq!(now.status, running.status, "not even its record is touched");
    assert_eq!(bench.world.starts(running.id), 1);
    bench.reach(paused, Condition::Paused).await;
}

#[tokio::test]
async fn after_a_reboot_those_with_autostart_run_again() {
    let mut bench = Bench::running().await;
    let project = bench.project().await;
    let with = |autostart| NewContainer { autostart: Some(autostart), ..bench.plain() };
    let auto = bench.create(&project, with(true)).await.record.id;
    let manual = bench.create(&project, with(false)).await.record.id;
    let stopped = bench.create(&project, with(true)).await.record.id;
    for id in [auto, manual, stopped] {
        bench.reach(id, Condition::Running).await;
    }
    bench.operate(stopped, Operation::Stop).await;
    bench.crash().await;
    bench.world.reboot();
    bench.reconcile(quick());
    bench.phase(manual, Phase::Stopped).await;
    until("it has started again", || bench.world.starts(auto) == 2).await;
    let status = bench.phase(auto, Phase::Running).await.record.status;
    assert_eq!(status.generation.0, 2);
    let status = bench.reach(stopped, Condition::Stopped).await.record.status;
    assert_eq!((status.generation.0, bench.world.starts(stopped)), (1, 1));
    bench.operate(manual, Operation::Start).await;
}

#[tokio::test]
async fn a_container_that_died_while_nobody_looked_is_failed() {
    let mut bench = Bench::running().await;
    let project = bench.project().await;
    let dead = bench.running_container(&project).await.record.id;
    let lost = bench.running_container(&project).await.record.id;
    bench.crash().await;
    bench.world.crash(dead);
    bench.world.lose(lost);
    bench.reconcile(quick());
    bench.phase(dead, Phase::Failed).await;
    let why = bench.phase(lost, Phase::Failed).await.record.status.why.unwrap();
    assert!(why.contains("does not have the container"), "{why}");
}

#[tokio::test]
async fn wishes_made_without_a_reconciler_are_met_by_the_next() {
    let mut bench = Bench::running().await;
    let project = bench.project().await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(bench.running_container(&project).await.record.id);
    }
    bench.shut_down().await;
    let ask = async |id, operation| {
        bench.control.operate(&bench.actor, id, operation, None).await.unwrap();
    };
    ask(ids[0], Operation::Stop).await;
    ask(ids[1], Operation::Restart).await;
    ask(ids[2], Operation::Pause).await;
    bench.control.delete_container(&bench.actor, ids[3]).await.unwrap();
    bench.reconcile(quick());
    bench.reach(ids[0], Condition::Stopped).await;
    bench.reach(ids[1], Condition::Running).await;
    assert_eq!(bench.world.starts(ids[1]), 2);
    bench.reach(ids[2], Condition::Paused).await;
    until("it is gone", || bench.world.order(ids[3]).is_none()).await;
}

#[tokio::test]
async fn shutting_down_leaves_containers_running() {
    let mut bench = Bench::running().await;
    let project = bench.project().await;
    let id = bench.running_container(&project).await.record.id;
    bench.world.delay(Call::Create, Duration::from_millis(20));
    bench.create(&project, bench.plain()).await;
    bench.shut_down().await;
    let observed = bench.runtime().observe(id).await.unwrap().unwrap();
    assert_eq!(observed.state, State::Running);
}

#[tokio::test]
async fn the_rest_of_an_overtaken_creation_is_removed_and_strangers_are_not() {
    let mut bench = Bench::running().await;
    let project = bench.project().await;
    let made = bench.running_container(&project).await.record.id;
    bench.control.delete_container(&bench.actor, made).await.unwrap();
    until("it is gone", || bench.world.order(made).is_none()).await;
    bench.crash().await;
    let stranger = ContainerId::from_bytes([0xab; 12]);
    for id in [made, stranger] {
        bench.runtime().ensure_running(&order(id)).await.unwrap();
    }
    let mut config = quick();
    config.resync = Duration::from_millis(2);
    bench.reconcile(config);
    until("the rest is removed", || bench.world.order(made).is_none()).await;
    let looks = bench.world.calls(Call::List);
    until("everything is compared again", || bench.world.calls(Call::List) > looks + 4).await;
    assert!(bench.world.order(stranger).is_some());
}

fn order(id: ContainerId) -> Order {
    Order {
        id,
        hostname: "rest".into(),
        image: gantry_model::container::ImageName::parse("image", "debian/13").unwrap(),
        kit: Kit::None,
        cache: true,
        env: std::collections::BTreeMap::new(),
        ramdisk: false,
        kvm: false,
        project_ramdisk: None,
        limits: Limits { memory_bytes: 1 << 30, cpu_millis: 1000, pids: 100 },
        firewall: gantry_runtime::Firewall::default(),
        outbound: gantry_runtime::Outbound::default(),
    }
}

/// What keeps the removal waiting is another program that writes into the store.
#[tokio::test]
async fn what_happens_is_followed_while_old_events_are_removed() {
    let mut bench = Bench::running().await;
    let project = bench.project().await;
    let id = bench.running_container(&project).await.record.id;
    bench.crash().await;
    bench.clock.advance(Duration::from_hours(31 * 24));
    let options = SqliteConnectOptions::new().filename(bench.store_path());
    let mut other = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let looks = bench.world.calls(Call::List);
    bench.reconcile(quick());
    // At all of them, and at this one.
    until("it is looked at", || bench.world.calls(Call::List) >= looks + 2).await;
    bench.world.crash(id);
    until("it is looked at again", || bench.world.calls(Call::List) >= looks + 3).await;
    // The removal is under way; had it failed, there would be none within the hour.
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    bench.phase(id, Phase::Failed).await;
    let old = EventFilter { to_ms: Some(START_MS + 86_400_000), ..EventFilter::default() };
    let removed = async {
        while bench.store.event_totals(old.clone()).await.unwrap().oldest_ms.is_some() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, removed).await.unwrap();
}
