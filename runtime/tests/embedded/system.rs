//! A whole system: systemd as init. Its image takes too long to be built in a test, so it runs where
//! `GANTRY_TEST_SYSTEMD_TARBALL` names a tarball of a root file system with systemd in it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use gantry_model::container::ImageName;
use gantry_runtime::{Exec, ExitStatus, Limits, Order, State};

use crate::{
    contract::{Host as _, order, until},
    machine::Machine,
    sessions,
};

pub(crate) async fn systemd_boots_serves_and_powers_off(machine: &mut Machine) {
    let Some(tarball) = std::env::var_os("GANTRY_TEST_SYSTEMD_TARBALL") else {
        eprintln!("\n*** NOT TESTED: GANTRY_TEST_SYSTEMD_TARBALL is not set ***\n");
        return;
    };
    let place = machine.config.tarballs.join("system/1.tar");
    std::fs::create_dir_all(place.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(tarball, &place).unwrap();
    let env = BTreeMap::from([("ODD".to_owned(), "50% \"q\" \\ $HOME".to_owned())]);
    let order = Order {
        image: ImageName::parse("image", "system/1").unwrap(),
        env,
        limits: Limits { memory_bytes: 512 << 20, cpu_millis: 2000, pids: 500 },
        ramdisk: true,
        kvm: false,
        project_ramdisk: None,
        ..order(machine, 1)
    };
    let runtime = machine.runtime();
    runtime.ensure_created(&order).await.unwrap();
    let begin = Instant::now();
    runtime.ensure_running(&order).await.unwrap();
    let started = begin.elapsed();
    let mut state = String::new();
    until("systemd has booted", async || {
        let asked = runtime.exec(order.id, &Exec::new(["systemctl", "is-system-running"])).await;
        state = asked.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
        matches!(state.trim(), "running" | "degraded")
    })
    .await;
    eprintln!(
        "started in {} ms, booted in {} ms",
        started.as_millis(),
        begin.elapsed().as_millis()
    );
    let failed = machine.shell(1, "systemctl --failed --no-legend --plain").await;
    assert_eq!((state.trim(), failed.as_str()), ("running", ""));
    let unit = ["systemd-run", "--wait", "--pipe", "--quiet", "sh", "-c", "printf %s \"$ODD\""];
    let seen = runtime.exec(order.id, &Exec::new(unit)).await.unwrap();
    assert_eq!(seen.stdout, "50% \"q\" \\ $HOME", "services see the environment: {seen:?}");
    assert_eq!(seen.status, ExitStatus::Code(0));
    let used = runtime.stats(order.id).await.unwrap();
    eprintln!("{} KiB, {} processes", used.memory_bytes >> 10, used.pids);
    // A session does not keep it from powering off.
    let session = sessions::open(&runtime, 1).await;
    assert_eq!(sessions::printed(&session, 2, "cat /proc/1/comm").await, "systemd");
    let _output = sessions::start(&session, 4, "sleep 1000").await;
    let begin = Instant::now();
    runtime.ensure_stopped(order.id, Duration::from_secs(15)).await.unwrap();
    let took = begin.elapsed();
    eprintln!("stopped in {} ms", took.as_millis());
    assert!(took < Duration::from_secs(10), "it powered itself off: {took:?}");
    assert_eq!(runtime.observe(order.id).await.unwrap().unwrap().state, State::Stopped);
    runtime.ensure_running(&order).await.unwrap();
}
