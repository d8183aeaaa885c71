//! Services are started once, however many ask.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use gantry_control::{Served, Servers, StartError, Starter, StarterConfig};
use gantry_model::{ContainerId, Service};
use gantry_runtime::{Error, ExecOutput, ExitStatus, fake::Fake};
use tokio::sync::Semaphore;

use crate::bench::Bench;

fn command(service: Service, index: u16) -> Option<Vec<String>> {
    (service == Service::Terminal)
        .then(|| vec!["start".to_owned(), format!("{}-{index}", service.slug())])
}

fn output(code: u8, stderr: &str) -> ExecOutput {
    ExecOutput {
        status: ExitStatus::Code(code),
        stdout: Bytes::new(),
        stderr: Bytes::copy_from_slice(stderr.as_bytes()),
        truncated: false,
    }
}

/// A starter that gives outcomes to later callers for so long, and a running container.
async fn starter(rest: Duration) -> (Bench, Starter, ContainerId) {
    let bench = Bench::running().await;
    let id = bench.running_container(&bench.project().await).await.record.id;
    let config =
        StarterConfig { rest, timeout: Duration::from_secs(20), ..StarterConfig::default() };
    let starter = Starter::new(bench.store.clone(), bench.servers(), command, config);
    (bench, starter, id)
}

#[tokio::test]
async fn many_requests_start_a_service_once() {
    let (bench, starter, id) = starter(Duration::ZERO).await;
    let runs = Arc::new(AtomicU32::new(0));
    let gate = Arc::new(Semaphore::new(0));
    let (counted, opened) = (Arc::clone(&runs), Arc::clone(&gate));
    bench.world.script(move |_, _| {
        counted.fetch_add(1, Ordering::SeqCst);
        let opened = Arc::clone(&opened);
        async move {
            opened.acquire().await.unwrap().forget();
            Ok(output(0, ""))
        }
    });
    let first = starter.start_service(id, Service::Terminal, 1);
    let all = futures_util::future::join_all(
        (0..50).map(|_| starter.start_service(id, Service::Terminal, 1)),
    );
    let other = starter.start_service(id, Service::Terminal, 2);
    let doorman = async {
        while runs.load(Ordering::SeqCst) < 2 {
            tokio::task::yield_now().await;
        }
        gate.add_permits(2);
    };
    let (first, all, other, ()) = tokio::join!(first, all, other, doorman);
    assert_eq!((first, other), (Ok(()), Ok(())));
    assert!(all.into_iter().all(|outcome| outcome.is_ok()));
    assert_eq!(runs.load(Ordering::SeqCst), 2);
    gate.add_permits(1);
    starter.start_service(id, Service::Terminal, 1).await.unwrap();
    assert_eq!(runs.load(Ordering::SeqCst), 3, "nothing is at rest");
}

#[tokio::test]
async fn a_start_goes_on_when_its_caller_leaves() {
    let (bench, starter, id) = starter(Duration::from_hours(1)).await;
    let gate = Arc::new(Semaphore::new(0));
    let opened = Arc::clone(&gate);
    bench.world.script(move |_, _| {
        let opened = Arc::clone(&opened);
        async move {
            opened.acquire().await.unwrap().forget();
            Ok(output(0, ""))
        }
    });
    let calls = bench.world.calls(gantry_runtime::fake::Call::Exec);
    {
        let leaving = starter.start_service(id, Service::Terminal, 1);
        tokio::pin!(leaving);
        assert!(futures_util::poll!(leaving.as_mut()).is_pending());
    }
    gate.add_permits(1);
    starter.start_service(id, Service::Terminal, 1).await.unwrap();
    assert_eq!(bench.world.calls(gantry_runtime::fake::Call::Exec), calls + 1);
    tokio::time::timeout(crate::bench::PATIENCE, starter.close()).await.unwrap();
}

#[tokio::test]
async fn a_failure_rests_before_the_command_runs_again() {
    let (bench, starter, id) = starter(Duration::from_hours(1)).await;
    bench.world.script(|_, _| async { Ok(output(1, "first\n\x1b[31munit not found\n")) });
    let failed = StartError::Failed { reason: "first; [31munit not found".into() };
    let calls = bench.world.calls(gantry_runtime::fake::Call::Exec);
    for _ in 0..3 {
        let outcome = starter.start_service(id, Service::Terminal, 1).await;
        assert_eq!(outcome, Err(failed.clone()));
    }
    assert_eq!(bench.world.calls(gantry_runtime::fake::Call::Exec), calls + 1);
}

#[tokio::test]
async fn each_way_to_fail_has_its_name() {
    let (bench, _, id) = starter(Duration::ZERO).await;
    let config =
        StarterConfig { rest: Duration::ZERO, timeout: Duration::from_millis(5), flights_max: 4 };
    let starter = Starter::new(bench.store.clone(), bench.servers(), command, config);
    let start = |id, service| starter.start_service(id, service, 1);
    assert_eq!(start(id, Service::Files).await, Err(StartError::NotProvided));
    let missing = ContainerId::from_bytes([1; 12]);
    assert_eq!(start(missing, Service::Terminal).await, Err(StartError::NotRunning));
    bench.world.script(|_, _| std::future::pending());
    assert_eq!(start(id, Service::Terminal).await, Err(StartError::TimedOut));
    bench.world.script(|_, _| async { Err(Error::failed("running a command", "host path")) });
    let reason = "running a command failed".to_owned();
    assert_eq!(start(id, Service::Terminal).await, Err(StartError::Failed { reason }));
    let missing: Vec<_> = (2..10).map(|n| ContainerId::from_bytes([n; 12])).collect();
    let outcomes = futures_util::future::join_all(
        missing.into_iter().map(|id| starter.start_service(id, Service::Terminal, 1)),
    )
    .await;
    assert!(outcomes.contains(&Err(StartError::Busy)), "what is remembered is bounded");
    // What its server has lost, and what is on a server that nobody runs.
    let idle = Served { server: bench.server.clone(), runtime: Arc::new(Fake::default()) };
    for servers in [vec![idle], Vec::new()] {
        let servers = Servers::new(servers);
        let starter = Starter::new(bench.store.clone(), servers, command, config);
        let outcome = starter.start_service(id, Service::Terminal, 1).await;
        assert_eq!(outcome, Err(StartError::NotRunning));
    }
}
