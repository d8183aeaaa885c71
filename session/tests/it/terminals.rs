//! Processes at a terminal.

use std::{
    fs::Permissions,
    io::{Read as _, Write as _},
    net::Shutdown,
    os::unix::fs::PermissionsExt as _,
};

use gantry_session::protocol::{Exit, Process, Run, Size, ToHelper};
use tokio::task::spawn_blocking;

use crate::edge::{Edge, command, process, read_all, read_until, terminal};

fn at_terminal(line: &str, modes: Vec<(u8, u32)>) -> Process {
    Process { terminal: Some(terminal(modes)), ..command(line) }
}

#[tokio::test]
async fn a_terminal_has_its_size_modes_and_owner() {
    let home = tempfile::tempdir().unwrap();
    let mut edge = Edge::with_ann(home.path()).await;
    // Ctrl-X interrupts, no VEOL, no echo, no ONLCR, and speeds.
    let modes =
        vec![(1, 24), (6, 255), (53, 0), (72, 0), (42, 1), (128, 9600), (129, 9600), (200, 1)];
    let line = "stty -a; stty size; stat -c '%U:%G %a' $(tty); echo $TERM; ps -o tty=,tpgid= -p $$; echo $$";
    let mut process = at_terminal(line, modes);
    process.user = "ann".to_owned();
    let (id, stream) = edge.start_at(process).await;
    let text = String::from_utf8(spawn_blocking(|| read_all(stream)).await.unwrap()).unwrap();
    assert_eq!(edge.exited(id).await, Exit::Status(0));
    let flat = text.replace('\n', " ");
    for wanted in [
        "speed 9600 baud; rows 37; columns 101;",
        "intr = ^X;",
        "eol = <undef>;",
        " -echo ",
        " -onlcr ",
        " iutf8 ",
        " icanon ",
        " 37 101 ",
        " ann:tty 620 ",
        " vt220 ",
    ] {
        assert!(flat.contains(wanted), "{wanted:?} in {text}");
    }
    let last: Vec<&str> = text.lines().rev().take(2).collect();
    assert!(last[1].starts_with("pts/") && last[1].ends_with(last[0]), "{text}");
}

#[tokio::test]
async fn pixels_and_new_sizes_arrive() {
    let mut edge = Edge::new().await;
    let program = "import os,fcntl,termios,struct,signal,sys\n\
        def show(*_): os.write(1, str(struct.unpack('4H', fcntl.ioctl(0, termios.TIOCGWINSZ, b' '*8))).encode())\n\
        signal.signal(signal.SIGWINCH, show)\nshow()\nsys.stdin.readline()\n";
    let argv = ["python3", "-c", program].map(|word| word.as_bytes().to_vec()).to_vec();
    let run = Run::Program { argv, directory: None };
    let process = Process { terminal: Some(terminal(Vec::new())), ..process(run) };
    let (id, mut stream) = edge.start_at(process).await;
    read_until(&stream, "(37, 101, 808, 592)").await;
    let size = Size { columns: 7, rows: 5, width: 70, height: 50 };
    edge.say(&ToHelper::Resize { id, size }, &[]).await;
    read_until(&stream, "(5, 7, 70, 50)").await;
    stream.write_all(b"\n").unwrap();
    assert_eq!(edge.exited(id).await, Exit::Status(0));
}

#[tokio::test]
async fn a_shell_at_a_terminal_is_a_login_shell_with_jobs() {
    let mut edge = Edge::new().await;
    let connection = Some(["192.0.2.1", "4711", "198.51.100.2", "22"].map(str::to_owned));
    let process =
        Process { terminal: Some(terminal(Vec::new())), connection, ..process(Run::Shell) };
    let (id, mut stream) = edge.start_at(process).await;
    stream
        .write_all(b"PS1=; echo \"<$0>\"; test \"$SSH_TTY\" = $(tty) && echo \"<\"$SSH_TTY\n")
        .unwrap();
    let text = read_until(&stream, "\r\n</dev/pts/").await;
    assert!(text.contains("<-bash>") || text.contains("<-sh>"), "{text}");
    // Ctrl-C reaches what is in the foreground, not the shell; so does a signal of the client.
    for (keys, signal) in [(b"\x03".as_slice(), None), (b"", Some("INT"))] {
        stream.write_all(b"sleep 1001\n").unwrap();
        foreground(&mut edge, "sleep 1001").await;
        stream.write_all(keys).unwrap();
        if let Some(name) = signal {
            edge.say(&ToHelper::Signal { id, name: name.to_owned() }, &[]).await;
        }
        read_until(&stream, "\n").await;
        stream.write_all(b"echo code:$?\n").unwrap();
        read_until(&stream, "code:130\r\n").await;
    }
    stream.write_all(b"exit 9\n").unwrap();
    assert_eq!(edge.exited(id).await, Exit::Status(9));
    spawn_blocking(|| read_all(stream)).await.unwrap();
}

#[tokio::test]
async fn who_logs_in_at_a_terminal_is_greeted() {
    let home = tempfile::tempdir().unwrap();
    let mut edge = Edge::with_ann(home.path()).await;
    edge.run("echo of the day > /etc/motd; echo of the hour > /run/motd.dynamic", b"").await;
    let silent = home.path().join(".hushlogin");
    for (at_terminal, hushed, greeted) in
        [(true, false, true), (true, true, false), (false, false, false)]
    {
        if hushed {
            std::fs::write(&silent, "").unwrap();
        } else {
            std::fs::remove_file(&silent).unwrap_or_default();
        }
        std::fs::set_permissions(home.path(), Permissions::from_mode(0o755)).unwrap();
        let user = "ann".to_owned();
        let process = Process { user, ..process(Run::Shell) };
        let text = if at_terminal {
            let terminal = Some(terminal(Vec::new()));
            let (id, mut stream) = edge.start_at(Process { terminal, ..process }).await;
            stream.write_all(b"exit\n").unwrap();
            let text = spawn_blocking(|| read_all(stream)).await.unwrap();
            edge.exited(id).await;
            text
        } else {
            let (id, pipes) = edge.start(process).await;
            let text = pipes.talk(b"exit\n").await.0;
            edge.exited(id).await;
            text
        };
        let text = String::from_utf8(text).unwrap();
        assert_eq!(text.contains("of the hour\r\nof the day\r\n"), greeted, "{text}");
        assert_eq!(text.contains("of the"), greeted, "{text}");
    }
}

/// Waits until a program runs in the foreground of some terminal.
async fn foreground(edge: &mut Edge, line: &str) {
    let wait = format!("until ps -eo stat=,args= | grep -q '^[^ ]*+ *{line}'; do :; done");
    assert_eq!(edge.run(&wait, b"").await.2, Exit::Status(0));
}

/// All that was written before the end arrives, whoever still has the terminal, and who has is not waited for.
#[tokio::test]
async fn what_a_terminal_holds_at_the_end_is_carried() {
    let mut edge = Edge::new().await;
    for before in ["", "(trap '' HUP; exec sleep 1000) & echo $!; "] {
        let line = format!("{before}seq 20000");
        let (id, stream) = edge.start_at(at_terminal(&line, Vec::new())).await;
        let read = spawn_blocking(|| read_all(stream));
        let text = String::from_utf8(read.await.unwrap()).unwrap();
        assert_eq!(edge.exited(id).await, Exit::Status(0));
        assert!(text.ends_with("\r\n20000\r\n"), "{line}");
        let job = text.lines().next().filter(|_| !before.is_empty());
        assert_eq!(text.lines().skip(usize::from(job.is_some())).count(), 20_000);
        if let Some(job) = job {
            assert_eq!(edge.run(&format!("kill {job}"), b"").await.2, Exit::Status(0));
        }
    }
}

#[tokio::test]
async fn a_client_that_says_no_more_still_hears() {
    let mut edge = Edge::new().await;
    let (id, mut stream) =
        edge.start_at(at_terminal("stty -echo; read x; sleep 0.2; echo got $x", Vec::new())).await;
    stream.write_all(b"this\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    read_until(&stream, "got this").await;
    assert_eq!(edge.exited(id).await, Exit::Status(0));
}

#[tokio::test]
async fn a_terminal_whose_client_goes_hangs_up() {
    let mut edge = Edge::new().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("hup");
    for end in [true, false] {
        let line = format!(
            "trap 'echo hup > {}; exit' HUP; echo ready; while :; do sleep 0.05; done",
            file.display()
        );
        let (id, stream) = edge.start_at(at_terminal(&line, Vec::new())).await;
        read_until(&stream, "ready").await;
        if end {
            edge.say(&ToHelper::End { id }, &[]).await;
            let wait = format!("until test -s {}; do sleep 0.02; done; rm {0}", file.display());
            edge.run(&wait, b"").await;
            continue;
        }
        drop(edge);
        spawn_blocking(move || {
            while !file.exists() {
                std::thread::yield_now();
            }
        })
        .await
        .unwrap();
        break;
    }
}

/// A reader that reads nothing stops its own process, and nobody else.
#[tokio::test]
async fn a_slow_reader_holds_up_nobody_else() {
    let mut edge = Edge::new().await;
    let (slow, mut stream) = edge.start_at(at_terminal("yes; true", Vec::new())).await;
    let before = memory(&edge);
    edge.run("seq 5 | while read x; do echo $x; done", b"").await;
    let (output, ..) = edge.run("wc -c", &vec![0; 8_000_000]).await;
    assert_eq!(output.trim(), "8000000");
    assert!(memory(&edge) < before + 1024, "the helper keeps nothing of it");
    // What interrupts it is heard all the same.
    stream.write_all(b"\x03").unwrap();
    let mut octets = vec![0; 65536];
    while stream.read(&mut octets).unwrap() > 0 {}
    assert_eq!(edge.exited(slow).await, Exit::Signal("INT".to_owned(), false));
}

/// Resident memory in KiB.
fn memory(edge: &Edge) -> u64 {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", edge.helper.id().unwrap())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
