//! Containers that sleep and wake by their traffic.

use std::{sync::Arc, time::Duration};

use gantry_control::{Condition, Idler, LogSort, NotWoken, Operation, Page, Traffic};
use gantry_model::{ContainerId, Generation, Phase};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::bench::{Bench, PATIENCE};

#[tokio::test]
async fn a_sleeping_container_wakes_and_a_stopped_one_starts() {
    let bench = Bench::running().await;
    let id = bench.running_container(&bench.project().await).await.record.id;
    bench.control.wake(id, PATIENCE).await.unwrap();
    assert!(bench.control.put_to_sleep(id).await.unwrap());
    let asleep = bench.reach(id, Condition::Paused).await.record.status;
    assert_eq!(asleep.phase, Phase::Paused);
    bench.control.wake(id, PATIENCE).await.unwrap();
    let awake = bench.reach(id, Condition::Running).await.record.status;
    assert_eq!(awake.generation, Generation(1), "it was thawed, not started again");

    bench.operate(id, Operation::Stop).await;
    bench.control.wake(id, PATIENCE).await.unwrap();
    let awake = bench.reach(id, Condition::Running).await.record.status;
    assert_eq!((awake.phase, awake.generation), (Phase::Running, Generation(2)));
}

#[tokio::test]
async fn many_requests_wake_a_container_once() {
    let bench = Bench::running().await;
    let id = bench.running_container(&bench.project().await).await.record.id;
    bench.operate(id, Operation::Stop).await;
    let wakers = (0..50).map(|_| bench.control.wake(id, PATIENCE));
    for woken in futures_util::future::join_all(wakers).await {
        woken.unwrap();
    }
    assert_eq!(bench.world.starts(id), 2);
}

#[tokio::test]
async fn what_does_not_sleep_is_not_woken_and_what_does_not_run_is_not_put_to_sleep() {
    let bench = Bench::running().await;
    let id = bench.running_container(&bench.project().await).await.record.id;
    bench.world.crash(id);
    bench.phase(id, Phase::Failed).await;
    assert!(matches!(bench.control.wake(id, PATIENCE).await, Err(NotWoken::Unfit)));
    assert!(!bench.control.put_to_sleep(id).await.unwrap());

    let nobody = ContainerId::from_bytes([9; 12]);
    assert!(matches!(bench.control.wake(nobody, PATIENCE).await, Err(NotWoken::Unfit)));
    assert!(!bench.control.put_to_sleep(nobody).await.unwrap());
}

/// Finds these idle.
struct Quiet(Vec<ContainerId>);

impl Traffic for Quiet {
    fn idle(&self) -> Vec<ContainerId> {
        self.0.clone()
    }
}

#[tokio::test]
async fn the_idler_pauses_what_is_idle_and_nothing_else() {
    let bench = Bench::running().await;
    let project = bench.project().await;
    let quiet = bench.running_container(&project).await.record.id;
    let busy = bench.running_container(&project).await.record.id;
    let shutdown = CancellationToken::new();
    let idler = Idler::new(bench.control.clone(), Arc::new(Quiet(vec![quiet])));
    let mut tasks = JoinSet::new();
    tasks.spawn(idler.every(Duration::from_millis(1)).run(shutdown.clone()));
    bench.phase(quiet, Phase::Paused).await;
    let page = Page { page: 1, limit: 100, sort: LogSort::At, descending: true };
    let logs = bench.control.status_logs(&bench.actor, quiet, page).await.unwrap().items;
    assert_eq!((logs[0].to, logs[0].triggered_by.as_str()), (Phase::Paused, "idle"));
    shutdown.cancel();
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    assert_eq!(bench.phase(busy, Phase::Running).await.record.status.generation, Generation(1));
}
