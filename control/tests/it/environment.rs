//! Variables of containers, and what is recorded of their way into them.

use std::{collections::BTreeMap, time::Duration};

use gantry_control::{Condition, EnvironmentSync, Operation};
use gantry_model::ContainerId;
use gantry_runtime::{Error as RuntimeError, fake::Call};

use crate::bench::{Bench, PATIENCE, START_MS, quick, until};

async fn sync(bench: &Bench, id: ContainerId) -> EnvironmentSync {
    bench.store.container(id).await.unwrap().unwrap().environment_sync
}

/// Waits until the variables of this revision are in the container.
async fn applied(bench: &Bench, id: ContainerId, revision: u64) -> EnvironmentSync {
    let looking = async {
        loop {
            let sync = sync(bench, id).await;
            if sync.applied == Some(revision) && !sync.is_pending() {
                return sync;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.unwrap()
}

fn vars(value: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("A".to_owned(), value.to_owned())])
}

#[tokio::test]
async fn what_came_of_variables_is_recorded_and_nothing_where_there_is_no_news() {
    let mut bench = Bench::running().await;
    let project = bench.project().await;
    let id = bench.running_container(&project).await.record.id;
    let first = applied(&bench, id, 0).await;
    let at = Some(START_MS);
    let want = EnvironmentSync {
        revision: 0,
        applied: Some(0),
        verified_at_ms: at,
        attempted_at_ms: at,
        last_error: None,
    };
    assert_eq!(first, want);

    let written = bench.control.set_variables(&bench.actor, id, vars("1")).await.unwrap();
    assert!(written.synced);
    let after = EnvironmentSync { revision: 1, applied: Some(1), ..want };
    assert_eq!(written.container.environment_sync, after);
    assert_eq!(bench.world.order(id).unwrap().env, vars("1"));

    // A new process looks at all variables once, and again and again at what it is woken for.
    bench.shut_down().await;
    bench.clock.advance(Duration::from_hours(1));
    let head = *bench.store.head().borrow();
    let seen = bench.world.calls(Call::Environment);
    bench.reconcile(quick());
    until("it looked", || bench.world.calls(Call::Environment) > seen).await;
    bench.shut_down().await;
    assert_eq!(sync(&bench, id).await, after, "no news");
    assert_eq!(*bench.store.head().borrow(), head);

    // While nothing runs in it, they wait for its next start.
    bench.reconcile(quick());
    bench.operate(id, Operation::Stop).await;
    let written = bench.control.set_variables(&bench.actor, id, vars("2")).await.unwrap();
    assert!(written.synced);
    let waits = written.container.environment_sync;
    assert_eq!((waits.revision, waits.applied), (2, Some(1)));
    bench.operate(id, Operation::Start).await;
    let again = applied(&bench, id, 2).await;
    assert_eq!(again.verified_at_ms, Some(bench.clock.now_ms()));
}

#[tokio::test]
async fn variables_that_do_not_arrive_say_why_until_they_do() {
    let bench = Bench::running().await;
    let project = bench.project().await;
    let id = bench.running_container(&project).await.record.id;
    applied(&bench, id, 0).await;
    // The write's own attempt and those of the passes after it.
    for _ in 0..30 {
        let error = RuntimeError::failed("changing variables", "/srv/secret/path is full");
        bench.world.fail_next(Call::Environment, error);
    }
    let seen = bench.world.calls(Call::Environment);
    let written = bench.control.set_variables(&bench.actor, id, vars("1")).await.unwrap();
    assert!(!written.synced);
    let pending = written.container.environment_sync;
    assert!(pending.is_pending());
    assert_eq!((pending.revision, pending.applied), (1, Some(0)));
    assert_eq!(pending.attempted_at_ms, Some(START_MS));
    assert_eq!(pending.last_error.as_deref(), Some("changing variables failed"));
    let done = applied(&bench, id, 1).await;
    assert_eq!((done.last_error, done.verified_at_ms), (None, Some(START_MS)));
    assert_eq!(bench.world.order(id).unwrap().env, vars("1"));
    assert!(bench.world.calls(Call::Environment) > seen + 30);
    bench.reach(id, Condition::Running).await;
    assert_eq!(bench.world.starts(id), 1, "nothing was restarted");
}
