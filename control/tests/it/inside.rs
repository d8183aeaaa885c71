//! Looks into containers.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use gantry_control::Controller;
use gantry_runtime::{ExecOutput, ExitStatus, fake::Call};
use tokio::{sync::Semaphore, task::JoinSet};

use crate::bench::{Bench, PATIENCE, until};

#[tokio::test]
async fn the_end_waits_for_a_look_under_way_and_for_no_further_one() {
    let bench = Bench::running().await;
    let project = bench.project().await;
    let mut views = Vec::new();
    for _ in 0..3 {
        views.push(bench.running_container(&project).await);
    }
    let let_go = Arc::new(Semaphore::new(0));
    let waits = Arc::clone(&let_go);
    bench.world.script(move |_id, _command| {
        let let_go = Arc::clone(&waits);
        async move {
            drop(let_go.acquire().await);
            let (stdout, stderr) = (Bytes::new(), Bytes::new());
            Ok(ExecOutput { status: ExitStatus::Code(0), stdout, stderr, truncated: false })
        }
    });
    let mut looks = JoinSet::new();
    for view in views {
        let control = bench.control.clone();
        looks.spawn(async move { control.inside(&view, Controller::inside_deadline()).await });
    }
    // One owner's third container waits for a turn.
    until("two are asked", || bench.world.calls(Call::Exec) == 2).await;
    let mut close = std::pin::pin!(bench.control.close_looks());
    let early = tokio::time::timeout(Duration::from_millis(1), &mut close).await;
    assert!(early.is_err(), "a command is under way");
    let_go.add_permits(1);
    tokio::time::timeout(PATIENCE, close).await.unwrap();
    let mut answers = 0;
    while let Some(seen) = looks.join_next().await {
        answers += usize::from(seen.unwrap().is_some());
    }
    assert_eq!((answers, bench.world.calls(Call::Exec)), (2, 2));
}
