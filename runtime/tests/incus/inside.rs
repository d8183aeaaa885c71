//! What a container is and has, seen from inside.

use std::{path::Path, time::Duration};

use gantry_runtime::{Exec, ExecUser, Limits, Order, PtySize, State};
use tokio::time::timeout;

use crate::{
    busybox::INIT_PIDS,
    contract::{Host as _, order, until},
    machine::Machine,
};

pub(crate) async fn commands_and_init_share_an_unprivileged_user_namespace(machine: &mut Machine) {
    let (runtime, order) = (machine.runtime(), order(machine, 1));
    runtime.ensure_running(&order).await.unwrap();
    let kinds = "user pid net mnt uts ipc cgroup";
    let both =
        format!("for k in {kinds}; do for p in self 1; do readlink /proc/$p/ns/$k; done; done");
    let links = machine.shell(1, &both).await;
    let links: Vec<&str> = links.lines().collect();
    assert_eq!(links.len(), 14, "{links:?}");
    for pair in links.chunks(2) {
        assert_eq!(pair[0], pair[1], "a command joins each namespace of the init");
    }
    let ours = std::fs::read_link("/proc/self/ns/user").unwrap();
    assert_ne!(Path::new(links[0]), ours, "which is not the host's");
    for line in machine.shell(1, "cat /proc/self/uid_map /proc/self/gid_map").await.lines() {
        let numbers: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(numbers[0], "0");
        assert_ne!(numbers[1], "0", "root is nobody on the host");
    }
}

pub(crate) async fn a_container_knows_its_name_and_its_environment(machine: &mut Machine) {
    let (runtime, order) = (machine.runtime(), order(machine, 1));
    let address = runtime.ensure_running(&order).await.unwrap().address.to_string();
    for (script, want) in [
        ("hostname", "box-1"),
        ("cat /etc/hostname", "box-1"),
        ("grep -c box-1 /etc/hosts", "1"),
        ("grep nameserver /etc/resolv.conf", "nameserver 192.0.2.53"),
        ("grep GREETING /etc/environment", "GREETING=\"good day\""),
        ("stat -c %u:%g:%a /etc/hosts /etc/environment", "0:0:644\n0:0:644"),
    ] {
        assert_eq!(machine.shell(1, script).await, want, "{script}");
    }
    let seen = machine.shell(1, "ip -4 addr show eth0; ip route").await;
    assert!(seen.contains(&address) && seen.contains("default via "), "{seen}");
    machine.shell(1, "echo MINE=1 >> /etc/environment").await;
    runtime.ensure_stopped(order.id, Duration::ZERO).await.unwrap();
    let env = [("FAREWELL".to_owned(), "good night".to_owned())].into();
    let renamed = Order { env, hostname: "renamed".to_owned(), ..order };
    runtime.ensure_running(&renamed).await.unwrap();
    assert_eq!(machine.shell(1, "echo $FAREWELL$GREETING; hostname").await, "good night\nrenamed");
    let file = machine.shell(1, "cat /etc/environment").await;
    assert!(file.contains("MINE=1"), "the owner's lines stay: {file}");
    assert!(file.contains("FAREWELL=") && !file.contains("GREETING="), "{file}");
}

pub(crate) async fn a_ramdisk_survives_stops_and_not_deletion(machine: &mut Machine) {
    let order = Order { ramdisk: true, ..order(machine, 1) };
    let runtime = machine.runtime();
    runtime.ensure_running(&order).await.unwrap();
    let mounted = machine.shell(1, "grep ' /ramdisk ' /proc/mounts").await;
    assert!(mounted.contains("tmpfs") && mounted.contains("rw"), "{mounted}");
    machine.shell(1, "echo kept > /ramdisk/file").await;
    runtime.ensure_stopped(order.id, Duration::from_secs(5)).await.unwrap();
    drop(runtime);
    let runtime = machine.restart().await;
    runtime.ensure_running(&order).await.unwrap();
    assert_eq!(machine.shell(1, "cat /ramdisk/file; stat -c %u /ramdisk/file").await, "kept\n0");
    let user = ExecUser { uid: 1000, gid: 1000 };
    let touch = Exec { user, ..Exec::new(["touch", "/ramdisk/theirs"]) };
    assert!(runtime.exec(order.id, &touch).await.unwrap().status.success(), "for all users");
    runtime.ensure_deleted(order.id).await.unwrap();
    runtime.ensure_running(&order).await.unwrap();
    assert_eq!(machine.shell(1, "ls /ramdisk").await, "");
    runtime.ensure_stopped(order.id, Duration::ZERO).await.unwrap();
    runtime.ensure_running(&Order { ramdisk: false, ..order }).await.unwrap();
    assert_eq!(machine.shell(1, "grep -c ramdisk /proc/mounts").await, "0");
}

pub(crate) async fn limits_hold(machine: &mut Machine) {
    let limits = Limits { memory_bytes: 32 << 20, cpu_millis: 500, pids: 20 };
    let (runtime, order) = (machine.runtime(), Order { limits, ..order(machine, 1) });
    runtime.ensure_running(&order).await.unwrap();
    let hungry = Exec::new(["sh", "-c", "dd if=/dev/zero of=/dev/null bs=200M count=1"]);
    let fed = runtime.exec(order.id, &hungry).await.unwrap();
    assert!(!fed.status.success(), "200 MB do not fit into 32: {fed:?}");
    let forks = "for i in $(seq 60); do sleep 1000 & done >/dev/null 2>&1";
    let forked = runtime.exec(order.id, &Exec::new(["sh", "-c", forks])).await;
    assert!(runtime.stats(order.id).await.unwrap().pids <= 20, "{forked:?}");
}

pub(crate) async fn a_dropped_terminal_hangs_up(machine: &mut Machine) {
    let (runtime, order) = (machine.runtime(), order(machine, 1));
    runtime.ensure_running(&order).await.unwrap();
    machine.settle(order.id).await;
    let size = PtySize { columns: 100, rows: 30 };
    let missing = runtime.attach(order.id, &Exec::new(["no-such-program"]), size).await;
    assert!(matches!(missing, Err(gantry_runtime::Error::Command { .. })), "{missing:?}");
    let terminal = runtime.attach(order.id, &Exec::new(["sh"]), size).await.unwrap();
    until("it runs", async || runtime.stats(order.id).await.unwrap().pids > INIT_PIDS).await;
    drop(terminal);
    machine.settle(order.id).await;
}

pub(crate) async fn an_init_that_ends_alone_is_told_and_can_start_again(machine: &mut Machine) {
    let (runtime, order) = (machine.runtime(), order(machine, 1));
    let mut exits = runtime.exits();
    runtime.ensure_running(&order).await.unwrap();
    machine.settle(order.id).await;
    // It may be gone before the command's own end is told.
    drop(runtime.exec(order.id, &Exec::new(["sh", "-c", "kill -TERM 1"])).await);
    let told = timeout(Duration::from_secs(20), exits.recv()).await.expect("a hint").unwrap();
    assert_eq!(told, order.id);
    let observed = runtime.observe(order.id).await.unwrap().unwrap();
    assert_eq!(observed.state, State::Stopped);
    runtime.ensure_running(&order).await.unwrap();
    assert_eq!(machine.shell(1, "echo again").await, "again");
}

/// The number of the terminal that this process belongs to.
fn terminal() -> String {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    stat.rsplit(')').next().unwrap().split_whitespace().nth(4).unwrap().to_owned()
}

pub(crate) async fn what_a_container_mounts_over_its_files_is_left_alone(machine: &mut Machine) {
    let (runtime, order) = (machine.runtime(), order(machine, 1));
    runtime.ensure_running(&order).await.unwrap();
    let before = terminal();
    for (number, (cover, uncover)) in [
        ("mount -t tmpfs none /etc; echo theirs > /etc/environment", "umount /etc"),
        (
            "echo theirs > /tmp/file; mount -o bind /tmp/file /etc/environment",
            "umount /etc/environment",
        ),
        ("mount -o bind /dev/console /etc/environment", "umount /etc/environment"),
        ("mkdir /tmp/etc; mount -o bind /tmp/etc /etc", "umount /etc"),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(machine.shell(1, &format!("({cover}) 2>&1")).await, "", "{cover}");
        let env = [("SAID".to_owned(), number.to_string())].into();
        let written = timeout(Duration::from_secs(9), runtime.ensure_environment(order.id, &env));
        written.await.expect(cover).unwrap();
        let seen = "[ -f /etc/environment ] && cat /etc/environment; ls -A /tmp/etc 2>/dev/null";
        let seen = machine.shell(1, seen).await;
        assert!(["theirs", ""].contains(&seen.as_str()), "{cover}: {seen}");
        assert_eq!(machine.shell(1, &format!("({uncover}) 2>&1")).await, "", "{uncover}");
        let below = machine.shell(1, "grep -c SAID /etc/environment").await;
        assert_eq!(below, "0", "nor is what lies below: {cover}");
    }
    assert_eq!(terminal(), before, "no terminal of theirs is ours");
    // What never says anything is no file of theirs, and makes room for one.
    machine.shell(1, "rm /etc/environment; mknod /etc/environment p").await;
    let env = [("SAID".to_owned(), "last".to_owned())].into();
    let written = timeout(Duration::from_secs(9), runtime.ensure_environment(order.id, &env));
    written.await.expect("it does not wait for a writer").unwrap();
    assert_eq!(machine.shell(1, "grep SAID /etc/environment").await, "SAID=\"last\"");
    assert_eq!(machine.shell(1, "stat -c %u:%g:%a /etc/environment").await, "0:0:644");
}
