//! Sessions in containers, on either runtime: the program is there, answers, and ends when it should.

use std::{
    fs,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::PermissionsExt as _,
    },
    sync::Arc,
    time::{Duration, Instant},
};

use gantry_runtime::{Error, Exec, ExecUser, Runtime, Source};
use gantry_session::{
    protocol::{Exit, FromHelper, Process, Run, ToHelper, VERSION},
    wire::{Wire, WireError},
};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::{io::AsyncReadExt as _, net::unix::pipe::Receiver, task::JoinSet, time::timeout};

use crate::{
    contract::{Host as _, id, order, until},
    machine::Machine,
};

/// Longer than anything here may take.
const BOUND: Duration = Duration::from_secs(20);

/// Opens a session, and hears that the program is there.
pub(crate) async fn open(runtime: &Arc<dyn Runtime>, n: u8) -> Wire {
    let begin = Instant::now();
    let wire = Wire::new(runtime.session(id(n)).await.unwrap()).unwrap();
    assert_eq!(heard(&wire).await, FromHelper::Ready { version: VERSION });
    eprintln!("a session took {} ms", begin.elapsed().as_millis());
    wire
}

async fn heard(wire: &Wire) -> FromHelper {
    timeout(BOUND, wire.receive::<FromHelper>()).await.expect("it answers").unwrap().0
}

/// Starts a command line; returns the other end of its output.
pub(crate) async fn start(wire: &Wire, id: u64, line: &str) -> OwnedFd {
    let pipe = || pipe_with(PipeFlags::CLOEXEC).unwrap();
    let ((input, _), (read, output), (_, errors)) = (pipe(), pipe(), pipe());
    let process = Process {
        user: "root".to_owned(),
        is_strict: false,
        run: Run::Command(line.as_bytes().to_vec()),
        env: Vec::new(),
        terminal: None,
        agent: false,
        connection: None,
    };
    let streams = [input.as_fd(), output.as_fd(), errors.as_fd()];
    wire.send(&ToHelper::Start { id, process }, &streams).await.unwrap();
    assert_eq!(heard(wire).await, FromHelper::Started { id });
    read
}

/// What a command line prints.
pub(crate) async fn printed(wire: &Wire, id: u64, line: &str) -> String {
    let output = start(wire, id, line).await;
    assert_eq!(heard(wire).await, FromHelper::Exited { id, exit: Exit::Status(0) });
    let mut printed = String::new();
    let mut output = Receiver::from_owned_fd(output).unwrap();
    timeout(BOUND, output.read_to_string(&mut printed)).await.unwrap().unwrap();
    printed.trim().to_owned()
}

async fn assert_ended(wire: &Wire) {
    loop {
        match timeout(BOUND, wire.receive::<FromHelper>()).await.expect("it ends") {
            Ok(_) => {}
            Err(WireError::Closed) => return,
            Err(error) => panic!("{error}"),
        }
    }
}

pub(crate) async fn a_session_is_a_process_of_its_container(machine: &mut Machine) {
    let runtime = machine.runtime();
    let (one, two) = (order(machine, 1), order(machine, 2));
    let missing = runtime.session(one.id).await;
    assert!(matches!(missing, Err(Error::NotFound { .. })), "{missing:?}");
    runtime.ensure_created(&one).await.unwrap();
    let idle = runtime.session(one.id).await;
    assert!(matches!(idle, Err(Error::NotRunning { .. })), "{idle:?}");
    for order in [&one, &two] {
        runtime.ensure_running(order).await.unwrap();
        machine.settle(order.id).await;
    }

    // It is where every command is, and has what every command has.
    let about = "id -u; hostname; cat /proc/self/cgroup; readlink /proc/self/ns/user; \
                 readlink /proc/self/ns/pid; readlink /proc/self/ns/net; echo $GREETING; \
                 grep -E '^(Cap|Seccomp|NoNewPrivs)' /proc/self/status";
    let wire = open(&runtime, 1).await;
    assert_eq!(printed(&wire, 2, about).await, machine.shell(1, about).await);
    let other = open(&runtime, 2).await;
    assert_eq!(printed(&other, 2, "hostname").await, "box-2");

    // Two at once are two; each goes with its connection, and with it all that is left of it.
    let second = open(&runtime, 1).await;
    assert_eq!(printed(&second, 2, "hostname").await, "box-1");
    drop((wire, second, other));
    machine.settle(one.id).await;
    machine.settle(two.id).await;

    // Asked for and not waited for, it leaves nothing.
    for patience in [0, 1, 5, 20, 60] {
        drop(timeout(Duration::from_millis(patience), runtime.session(one.id)).await);
    }
    let programs = || fs::read_dir(machine.place(1)).unwrap().count();
    until("only the program is there", async || programs() == 1).await;
    machine.settle(one.id).await;

    // Neither the files nor what is made of them know of it.
    let mut files = Vec::new();
    let mut archive = runtime.export(Source::Container(one.id)).await.unwrap();
    archive.read_to_end(&mut files).await.unwrap();
    let mark = b".gantry/";
    assert!(files.len() > 1000 && !files.windows(mark.len()).any(|part| part == mark));
}

pub(crate) async fn a_session_ends_with_its_container(machine: &mut Machine) {
    let (runtime, order) = (machine.runtime(), order(machine, 1));
    runtime.ensure_running(&order).await.unwrap();
    machine.settle(order.id).await;
    let wire = open(&runtime, 1).await;
    let _output = start(&wire, 2, "sleep 1000").await;
    runtime.ensure_paused(order.id).await.unwrap();
    let paused = runtime.session(order.id).await;
    assert!(matches!(paused, Err(Error::Paused { .. })), "{paused:?}");
    runtime.ensure_resumed(order.id).await.unwrap();

    // It does not keep the container from ending.
    let grace = Duration::from_secs(30);
    let begin = Instant::now();
    runtime.ensure_stopped(order.id, grace).await.unwrap();
    assert!(begin.elapsed() < grace / 2, "{:?}", begin.elapsed());
    assert_ended(&wire).await;
    let stopped = runtime.session(order.id).await;
    assert!(matches!(stopped, Err(Error::NotRunning { .. })), "{stopped:?}");

    runtime.ensure_running(&order).await.unwrap();
    let wire = open(&runtime, 1).await;
    assert_eq!(printed(&wire, 2, "echo again").await, "again");
    // The next Gantry has nothing to do with it, and opens its own.
    drop((wire, runtime));
    let runtime = machine.restart().await;
    let wire = open(&runtime, 1).await;
    runtime.ensure_stopped(order.id, Duration::ZERO).await.unwrap();
    assert_ended(&wire).await;
}

/// Root inside may do what it likes to its own sessions, and to nobody else's.
pub(crate) async fn the_place_of_sessions_is_out_of_reach(machine: &mut Machine) {
    let runtime = machine.runtime();
    for n in [1, 2] {
        runtime.ensure_running(&order(machine, n)).await.unwrap();
        machine.settle(id(n)).await;
    }
    let mounted = machine.shell(1, "grep ' /dev/.gantry ' /proc/mounts").await;
    assert!(mounted.contains(" ro,"), "{mounted}");
    for attempt in [
        "touch /dev/.gantry/new",
        "mount -o remount,bind,rw /dev/.gantry 2>/dev/null; touch /dev/.gantry/new",
        "rm /dev/.gantry/*",
        "echo x >>$(echo /dev/.gantry/*)",
        "chmod 4777 /dev/.gantry/*",
        "mkdir /b && mount --bind /dev/.gantry /b && mount -o remount,bind,rw /b; touch /b/new",
    ] {
        let script = format!("({attempt}) 2>/dev/null && echo done || echo no");
        assert_eq!(machine.shell(1, &script).await, "no", "{attempt}");
    }

    // A program that never comes, so that its door stays open.
    let place = machine.place(1);
    let program = machine.program(1);
    let name = program.file_name().unwrap().to_str().unwrap().to_owned();
    fs::remove_file(&program).unwrap();
    fs::write(&program, "#!/bin/sh\nexec sleep 1000\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o555)).unwrap();
    fs::copy(machine.program(2), place.join("copy")).unwrap();
    // Where the door of the one is, the other has none.
    let bound = "mkdir -p /x && mount --bind /dev/.gantry /x && echo ok";
    for n in [1, 2] {
        assert_eq!(machine.shell(n, bound).await, "ok");
    }
    let mut opening = JoinSet::new();
    opening.spawn({
        let runtime = Arc::clone(&runtime);
        async move { runtime.session(id(1)).await }
    });
    let names = || {
        let entries = fs::read_dir(&place).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect::<Vec<_>>()
    };
    until("the door is there", async || names().len() == 3).await;
    let door = names().into_iter().find(|entry| *entry != name && entry != "copy").unwrap();
    let come = |program: &str, user| Exec {
        user: ExecUser { uid: user, gid: user },
        timeout: Duration::from_secs(5),
        ..Exec::new([format!("/dev/.gantry/{program}"), "serve".to_owned(), format!("/x/{door}")])
    };
    let elsewhere = runtime.exec(id(2), &come(&name, 0)).await.unwrap();
    assert!(!elsewhere.status.success(), "{elsewhere:?}");
    let unprivileged = runtime.exec(id(1), &come("copy", 1000)).await.unwrap();
    let said = String::from_utf8_lossy(&unprivileged.stderr);
    assert!(said.contains("Permission denied"), "{unprivileged:?}");
    assert!(opening.try_join_next().is_none(), "nobody was let in");
    // The root user could have started anything under the program's name.
    let root = come("copy", 0);
    let (ended, ()) = tokio::join!(runtime.exec(id(1), &root), async {
        let opened = timeout(BOUND, opening.join_next()).await.unwrap().unwrap().unwrap();
        let wire = Wire::new(opened.unwrap()).unwrap();
        assert_eq!(heard(&wire).await, FromHelper::Ready { version: VERSION });
    });
    ended.unwrap();
    assert!(!names().contains(&door), "the door is gone");

    // One that takes it away has none until its next start, which brings the program back.
    fs::remove_file(&program).unwrap();
    machine.shell(1, "umount /x; umount /dev/.gantry").await;
    let none = runtime.session(id(1)).await;
    assert!(matches!(none, Err(Error::NoPlace { .. })), "{none:?}");
    runtime.ensure_stopped(id(1), Duration::ZERO).await.unwrap();
    runtime.ensure_running(&order(machine, 1)).await.unwrap();
    let wire = open(&runtime, 1).await;
    assert_eq!(printed(&wire, 2, "hostname").await, "box-1");
    assert_eq!(names(), [name], "nothing else");
}
