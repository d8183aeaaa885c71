//! What a container is and has, seen from inside.

use std::{
    collections::BTreeMap,
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::Path,
    time::Duration,
};

use gantry_runtime::{Error, Exec, ExecUser, Limits, Order, PtySize, State};
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
    let map = machine.shell(1, "cat /proc/self/uid_map /proc/self/gid_map").await;
    for line in map.lines() {
        let numbers: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(numbers, ["0", "1000000", "65536"], "root is nobody on the host");
    }
}

pub(crate) async fn a_container_starts_in_time(machine: &mut Machine) {
    let (runtime, order) = (machine.runtime(), order(machine, 1));
    runtime.ensure_created(&order).await.unwrap();
    let begin = std::time::Instant::now();
    runtime.ensure_running(&order).await.unwrap();
    let took = begin.elapsed();
    eprintln!("create and start took {} ms", took.as_millis());
    assert!(took < Duration::from_secs(5), "{took:?}");
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
    let hosts = machine.shell(1, "cat /etc/hosts").await;
    assert!(hosts.contains(&format!("{address}\tbox-1")), "{hosts}");
    let environment = machine.shell(1, "cat /proc/1/environ").await;
    assert!(environment.contains("GREETING=good day\0"), "{environment:?}");
}

pub(crate) async fn a_new_environment_takes_effect_at_the_next_start(machine: &mut Machine) {
    let (runtime, first) = (machine.runtime(), order(machine, 1));
    runtime.ensure_running(&first).await.unwrap();
    machine.shell(1, "echo MINE=1 >> /etc/environment").await;
    runtime.ensure_stopped(first.id, Duration::ZERO).await.unwrap();
    let env = BTreeMap::from([("FAREWELL".to_owned(), "good night".to_owned())]);
    let second = Order { env, hostname: "renamed".to_owned(), ..first };
    runtime.ensure_running(&second).await.unwrap();
    assert_eq!(machine.shell(1, "echo $FAREWELL$GREETING; hostname").await, "good night\nrenamed");
    let file = machine.shell(1, "cat /etc/environment").await;
    assert!(file.contains("MINE=1"), "the owner's lines stay: {file}");
    assert!(file.contains("FAREWELL=") && !file.contains("GREETING="), "{file}");
}

pub(crate) async fn the_kernel_is_kept_out_of_reach(machine: &mut Machine) {
    let (runtime, order) = (machine.runtime(), order(machine, 1));
    runtime.ensure_running(&order).await.unwrap();
    assert_eq!(machine.shell(1, "grep Seccomp: /proc/1/status").await, "Seccomp:\t2");
    let devices = machine.shell(1, "ls /dev").await;
    for device in devices.lines() {
        let usual = [
            "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr",
            "stdin", "stdout", "tty", "urandom", "zero",
        ];
        assert!(usual.contains(&device), "{device}");
    }
    for (what, script) in [
        ("make a device", "mknod /tmp/vda b 254 0"),
        ("make a device that is allowed", "mknod /tmp/mem c 1 1"),
        ("use sysrq", "echo h > /proc/sysrq-trigger"),
        ("change the host's kernel", "echo 1 > /proc/sys/kernel/panic"),
        ("change the host's devices", "echo 1 > /sys/kernel/uevent_helper"),
        ("read the kernel's memory", "head -c 1 /proc/kcore | grep -q ."),
        (
            "leave its control group's limits",
            "echo 1 > /sys/fs/cgroup/memory/memory.limit_in_bytes",
        ),
        (
            "leave them in version 2",
            "cd /sys/fs/cgroup; test -e memory.max && echo max > memory.max",
        ),
        (
            "thaw itself in version 2",
            "cd /sys/fs/cgroup; test -e cgroup.kill && echo 0 > cgroup.freeze",
        ),
        (
            "allow itself more groups",
            "cd /sys/fs/cgroup; test -e cgroup.kill && echo 9 > cgroup.max.depth",
        ),
        ("mount the host's disk", "mount -t ext4 /dev/vda /tmp"),
    ] {
        let script = format!("({script}) 2>/dev/null && echo done || echo no");
        assert_eq!(machine.shell(1, &script).await, "no", "{what}");
    }
    assert_eq!(machine.shell(1, "mount -t tmpfs x /tmp && echo done").await, "done", "its own");
}

pub(crate) async fn an_init_divides_its_own_group_and_is_still_reached(machine: &mut Machine) {
    let (runtime, order) = (machine.runtime(), order(machine, 1));
    runtime.ensure_running(&order).await.unwrap();
    machine.settle(order.id).await;
    // What systemd does: every process moves down; version 2 then lets the group have controllers
    // for those below it, and takes no process itself any more.
    let divide = "cd /sys/fs/cgroup; test -d systemd && cd systemd; mkdir -p all/deep && \
                  for p in $(cat cgroup.procs); do echo $p > all/deep/cgroup.procs; done 2>/dev/null; \
                  test -e cgroup.controllers && echo +pids > cgroup.subtree_control; \
                  grep -c . all/deep/cgroup.procs";
    let moved: u64 = machine.shell(1, divide).await.parse().unwrap();
    assert!(moved >= INIT_PIDS, "{moved}");
    let own = machine.shell(1, "grep -E '^(0::|.*name=systemd:)' /proc/1/cgroup").await;
    assert!(own.lines().any(|line| line.ends_with(":/all/deep")), "{own}");
    machine.settle(order.id).await;
    let size = PtySize { columns: 80, rows: 24 };
    drop(runtime.attach(order.id, &Exec::new(["sh"]), size).await.unwrap());
    runtime.ensure_paused(order.id).await.unwrap();
    assert_eq!(runtime.observe(order.id).await.unwrap().unwrap().state, State::Paused);
    runtime.ensure_running(&order).await.unwrap();
    assert_eq!(machine.shell(1, "echo reached").await, "reached");
    runtime.ensure_stopped(order.id, Duration::from_secs(5)).await.unwrap();
    runtime.ensure_running(&order).await.unwrap();
    assert_eq!(machine.shell(1, "find /sys/fs/cgroup -name deep").await, "", "the groups went");
}

pub(crate) async fn limits_hold(machine: &mut Machine) {
    let limits = Limits { memory_bytes: 32 << 20, cpu_millis: 500, pids: 20 };
    let (runtime, order) = (machine.runtime(), Order { limits, ..order(machine, 1) });
    runtime.ensure_running(&order).await.unwrap();
    let forks = "for i in $(seq 60); do sleep 1000 & done >/dev/null 2>&1";
    let forked = runtime.exec(order.id, &Exec::new(["sh", "-c", forks])).await;
    assert!(runtime.stats(order.id).await.unwrap().pids <= 20, "{forked:?}");
    runtime.ensure_stopped(order.id, Duration::ZERO).await.unwrap();
    runtime.ensure_running(&order).await.unwrap();
    let hungry = Exec::new(["sh", "-c", "dd if=/dev/zero of=/dev/null bs=200M count=1"]);
    let fed = runtime.exec(order.id, &hungry).await.unwrap();
    assert!(!fed.status.success(), "200 MB do not fit into 32: {fed:?}");
    assert!(runtime.stats(order.id).await.unwrap().memory_peak_bytes <= 32 << 20);
}

pub(crate) async fn an_init_that_will_not_end_is_killed(machine: &mut Machine) {
    let env = BTreeMap::from([("STUBBORN".to_owned(), "1".to_owned())]);
    let (runtime, order) = (machine.runtime(), Order { env, ..order(machine, 1) });
    let stopped = async |grace| {
        runtime.ensure_running(&order).await.unwrap();
        machine.settle(order.id).await;
        runtime.ensure_stopped(order.id, grace).await.unwrap();
        let observed = runtime.observe(order.id).await.unwrap().unwrap();
        assert_eq!(observed.state, State::Stopped);
    };
    stopped(Duration::from_millis(200)).await;
    // One who has no patience need not wait for one who has.
    runtime.ensure_running(&order).await.unwrap();
    machine.settle(order.id).await;
    let hurry = async {
        let patient = async { runtime.ensure_stopped(order.id, Duration::from_hours(1)).await };
        let mut waiting = std::pin::pin!(patient);
        let early = timeout(Duration::from_secs(1), &mut waiting).await;
        assert!(early.is_err(), "it does not end by itself");
        let at_once = runtime.ensure_stopped(order.id, Duration::ZERO);
        let (killed, stopped) = tokio::join!(at_once, waiting);
        killed.unwrap();
        stopped.unwrap();
    };
    timeout(Duration::from_secs(20), hurry).await.expect("both end");
    let observed = runtime.observe(order.id).await.unwrap().unwrap();
    assert_eq!(observed.state, State::Stopped);
}

pub(crate) async fn other_users_of_the_host_do_not_reach_its_files(machine: &mut Machine) {
    let order = order(machine, 1);
    machine.runtime().ensure_running(&order).await.unwrap();
    machine.shell(1, "echo secret >/root/file; chmod 644 /root/file").await;
    for dir in ["upper", "rootfs"] {
        let file = machine.home(1).join(dir).join("root/file");
        assert_eq!(std::fs::read(&file).unwrap(), b"secret\n", "{dir}");
        let read = std::process::Command::new("cat")
            .arg(&file)
            .env("LC_ALL", "C")
            .uid(65_534)
            .gid(65_534)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&read.stderr);
        assert!(said.contains("Permission denied"), "{dir}: {said}");
    }
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
    assert_eq!(machine.shell(1, "cat /ramdisk/file").await, "kept");
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

pub(crate) async fn changes_survive_stops_and_do_not_reach_the_image(machine: &mut Machine) {
    let (runtime, one, two) = (machine.runtime(), order(machine, 1), order(machine, 2));
    runtime.ensure_running(&one).await.unwrap();
    machine.shell(1, "echo mine > /etc/note; dd if=/dev/zero of=/big bs=1M count=3; sync").await;
    let disk = runtime.stats(one.id).await.unwrap().disk_bytes;
    assert!((3 << 20..32 << 20).contains(&disk), "{disk}");
    runtime.ensure_stopped(one.id, Duration::from_secs(5)).await.unwrap();
    runtime.ensure_running(&one).await.unwrap();
    assert_eq!(machine.shell(1, "cat /etc/note").await, "mine");
    runtime.ensure_running(&two).await.unwrap();
    assert_eq!(machine.shell(2, "ls /etc/note 2>/dev/null").await, "");
    let note = machine.home(1).join("upper/etc/note").metadata().unwrap();
    assert_eq!((note.uid(), note.gid()), (1_000_000, 1_000_000), "root is nobody on the host");
}

pub(crate) async fn a_dropped_command_is_killed_with_its_children(machine: &mut Machine) {
    let (runtime, order) = (machine.runtime(), order(machine, 1));
    runtime.ensure_running(&order).await.unwrap();
    machine.settle(order.id).await;
    let command = Exec::new(["sh", "-c", "sleep 2000 & sleep 2001; true"]);
    let running = async {
        until("both run", async || runtime.stats(order.id).await.unwrap().pids >= INIT_PIDS + 3)
            .await;
    };
    tokio::select! {
        ended = runtime.exec(order.id, &command) => panic!("{ended:?}"),
        () = running => {}
    }
    machine.settle(order.id).await;
}

pub(crate) async fn a_dropped_terminal_hangs_up(machine: &mut Machine) {
    let (runtime, order) = (machine.runtime(), order(machine, 1));
    runtime.ensure_running(&order).await.unwrap();
    machine.settle(order.id).await;
    let size = PtySize { columns: 100, rows: 30 };
    let missing = runtime.attach(order.id, &Exec::new(["no-such-program"]), size).await;
    assert!(matches!(missing, Err(Error::Command { .. })), "{missing:?}");
    let terminal = runtime.attach(order.id, &Exec::new(["sh"]), size).await.unwrap();
    assert!(runtime.stats(order.id).await.unwrap().pids > INIT_PIDS);
    drop(terminal);
    machine.settle(order.id).await;
    let observed = runtime.observe(order.id).await.unwrap().unwrap();
    assert_eq!(observed.state, State::Running);
}
