//! What interruptions leave, and that it is put right.

use std::time::Duration;

use gantry_model::Chain;
use gantry_runtime::{Error, Exec, Runtime as _, State, embedded::Embedded};
use tokio::time::timeout;

use crate::{
    contract::{Host as _, id, order, until},
    machine::Machine,
};

const BOUND: Duration = Duration::from_secs(20);

/// Cut off after ever longer times, so that each step is hit; the runtime is replaced as after a
/// crash, and the next one must come to the same end.
pub(crate) async fn an_interrupted_start_is_completed_by_the_next(machine: &mut Machine) {
    let order = order(machine, 1);
    let mut cut = 0;
    for round in 0_u32..14 {
        let runtime = machine.runtime();
        let limit = Duration::from_millis(u64::from(round * 8));
        cut += u32::from(timeout(limit, runtime.ensure_running(&order)).await.is_err());
        drop(runtime);
        let runtime = machine.restart().await;
        let running = runtime.ensure_running(&order).await;
        let running = running.unwrap_or_else(|error| panic!("{limit:?}: {}", Chain(&error)));
        let output = runtime.exec(order.id, &Exec::new(["echo", "alive"])).await.unwrap();
        assert_eq!(output.stdout, "alive\n");
        assert_eq!(runtime.list().await.unwrap()[0].address, Some(running.address));
        if round % 2 == 0 {
            let gone = timeout(limit, runtime.ensure_deleted(order.id)).await;
            drop(runtime);
            let runtime = machine.restart().await;
            runtime.ensure_deleted(order.id).await.unwrap();
            assert_eq!(runtime.list().await.unwrap(), [], "{gone:?}");
        } else {
            runtime.ensure_stopped(order.id, Duration::ZERO).await.unwrap();
        }
    }
    assert!(cut > 0, "at least one was cut off");
}

pub(crate) async fn what_an_interrupted_creation_left_is_removed(machine: &mut Machine) {
    let (half, order) = (machine.home(9), order(machine, 1));
    machine.runtime().ensure_created(&order).await.unwrap();
    std::fs::create_dir_all(half.join("upper/etc")).unwrap();
    let listed = machine.runtime().list().await.unwrap();
    assert_eq!(listed.len(), 1, "half a container is none: {listed:?}");
    machine.restart().await;
    assert!(!half.exists());
    assert!(machine.home(1).exists());
}

/// What `kill -9` of the runtime leaves of a command: the relay and the command itself.
pub(crate) async fn calls_of_a_killed_runtime_are_ended(machine: &mut Machine) {
    let order = order(machine, 1);
    machine.runtime().ensure_running(&order).await.unwrap();
    machine.settle(order.id).await;
    let mut relay = tokio::process::Command::new(&machine.config.runc)
        .arg("--root")
        .arg(machine.config.dir.join("runc"))
        .args(["exec", &order.id.to_string(), "sh", "-c", "touch /run/begun; sleep 3000; true"])
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    until("the command runs", async || !machine.shell(1, "ls /run/begun").await.is_empty()).await;
    machine.restart().await;
    let ended = timeout(BOUND, relay.wait()).await.expect("the relay is ended").unwrap();
    assert!(!ended.success());
    machine.settle(order.id).await;
}

pub(crate) async fn an_init_that_ends_alone_is_told_and_can_start_again(machine: &mut Machine) {
    let order = order(machine, 1);
    machine.runtime().ensure_running(&order).await.unwrap();
    // It hears signals from then on.
    machine.settle(order.id).await;
    let runtime = machine.restart().await;
    let mut exits = runtime.exits();
    machine.shell(1, "kill -TERM 1").await;
    let told = timeout(BOUND, exits.recv()).await.expect("an adopted one is watched, too");
    assert_eq!(told.unwrap(), order.id);
    assert_eq!(runtime.observe(order.id).await.unwrap().unwrap().state, State::Stopped);
    let refused = runtime.ensure_paused(order.id).await;
    assert!(matches!(refused, Err(Error::NotRunning { .. })), "{refused:?}");
    runtime.ensure_running(&order).await.unwrap();
    assert_eq!(runtime.observe(order.id).await.unwrap().unwrap().state, State::Running);
}

pub(crate) async fn a_directory_has_one_runtime_at_a_time(machine: &mut Machine) {
    let second = Embedded::open(machine.config.clone()).await;
    assert!(matches!(second, Err(Error::Failed { .. })), "{second:?}");
}

/// A boot is noticed by its id; here the record is made to be of another one.
pub(crate) async fn a_reboot_is_noticed(machine: &mut Machine) {
    let (runtime, order) = (machine.runtime(), order(machine, 1));
    runtime.ensure_running(&order).await.unwrap();
    runtime.ensure_stopped(order.id, Duration::ZERO).await.unwrap();
    runtime.ensure_running(&order).await.unwrap();
    let path = machine.home(1).join("run.json");
    let run = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, run.replace(runtime.boot_id(), "another-boot")).unwrap();
    let observed = runtime.observe(order.id).await.unwrap().unwrap();
    assert_eq!(observed.state, State::Stopped);
    runtime.ensure_running(&order).await.unwrap();
    assert_eq!(machine.shell(1, "echo up").await, "up");
}

pub(crate) async fn images_in_use_are_not_removed(machine: &mut Machine) {
    let order = gantry_runtime::Order { cache: false, ..order(machine, 1) };
    let runtime = machine.embedded();
    runtime.ensure_running(&order).await.unwrap();
    runtime.ensure_created(&gantry_runtime::Order { id: id(2), ..order }).await.unwrap();
    assert_eq!(runtime.prune_images().await.unwrap(), 0, "each has its own build");
    assert_eq!(machine.shell(1, "echo up").await, "up");
    runtime.ensure_deleted(order.id).await.unwrap();
    assert_eq!(runtime.prune_images().await.unwrap(), 1, "the older build is free now");
}
