//! What must never hang: consumers that do not read, beside others that do, with bounded memory.

use std::{
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use gantry_ssh::Bounds;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::Command,
};

use crate::bed::{Bed, Here, PATIENCE, text};

/// How much memory this process holds, in octets: the front runs in it.
pub(crate) fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

/// A shell line with `$SSH` in it, which is the client.
pub(crate) fn shell(bed: &Bed, line: &str) -> Command {
    let ssh = bed.ssh(&[]);
    let words: Vec<String> = std::iter::once(ssh.as_std().get_program())
        .chain(ssh.as_std().get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let mut shell = Command::new("bash");
    shell.args(["-c", line]).env("SSH", words.join(" ")).kill_on_drop(true).stdin(Stdio::null());
    shell
}

#[tokio::test(flavor = "multi_thread")]
async fn an_echo_whose_reader_is_late_comes_whole() {
    let bed = Bed::new().await;
    let before = resident();
    let line = "head -c 100M /dev/zero | $SSH cat | (sleep 3; wc -c)";
    assert_eq!(text(shell(&bed, line)).await.trim(), "104857600");
    let grown = resident().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown}");
}

/// A client that takes nothing, as one that is suspended, is as good as one that is silent.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_stopped_for_long_goes_on_afterwards() {
    let bounds = Bounds { silence: Duration::from_millis(20), ..Bounds::default() };
    let bed = Bed::changed(Arc::new(Here), |front| front.bounded(bounds)).await;
    let mut client = bed.run("echo in; cat");
    let mut client = client.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stdin, mut stdout) = (client.stdin.take().unwrap(), client.stdout.take().unwrap());
    stdout.read_exact(&mut [0; 3]).await.unwrap();
    let pid = Pid::from_raw(client.id().unwrap().try_into().unwrap()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    // It is asked some dozen times meanwhile.
    tokio::time::sleep(Duration::from_millis(500)).await;
    kill_process(pid, Signal::CONT).unwrap();
    stdin.write_all(b"still here").await.unwrap();
    drop(stdin);
    let mut said = String::new();
    let read = tokio::time::timeout(PATIENCE, stdout.read_to_string(&mut said)).await;
    read.expect("it answers").unwrap();
    assert_eq!(said, "still here");
    assert!(client.wait().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn much_that_nobody_reads_takes_little_memory_and_blocks_no_other_channel() {
    let bed = Bed::new().await;
    let control = bed.path("control");
    let master = format!("-oControlPath={}", control.display());
    // Whatever is pushed at it, this process reads nothing.
    let mut stalled = bed
        .ssh(&["-oControlMaster=yes", &master])
        .arg("echo in; sleep 600")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = [0; 3];
    stalled.stdout.as_mut().unwrap().read_exact(&mut line).await.unwrap();
    let before = resident();
    let mut stdin = stalled.stdin.take().unwrap();
    let pushed = tokio::spawn(async move {
        let mut pushed = 0_usize;
        let chunk = vec![0; 1 << 16];
        while tokio::time::timeout(Duration::from_secs(2), stdin.write_all(&chunk)).await.is_ok() {
            pushed += chunk.len();
        }
        (pushed, stdin)
    });
    let (pushed, stdin) = tokio::time::timeout(PATIENCE, pushed).await.unwrap().unwrap();
    let grown = resident().saturating_sub(before);
    assert!(pushed > 1 << 20 && pushed < 64 << 20, "{pushed}");
    assert!(grown < 64 << 20, "{grown}");

    // A second channel of the same connection.
    let second = |command: &str| {
        let mut ssh = bed.ssh(&[&master]);
        ssh.arg(command);
        ssh
    };
    let began = Instant::now();
    assert_eq!(text(second("echo ok")).await, "ok\n");
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    // And one that moves much, both ways.
    let mut busy = second("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut to = busy.stdin.take().unwrap();
    let sending = tokio::spawn(async move {
        to.write_all(&vec![1; 64 << 20]).await.unwrap();
    });
    let mut got = 0;
    let mut from = busy.stdout.take().unwrap();
    let mut buffer = vec![0; 1 << 16];
    while got < 64 << 20 {
        let read = tokio::time::timeout(PATIENCE, from.read(&mut buffer)).await.unwrap().unwrap();
        assert!(read > 0);
        got += read;
    }
    sending.await.unwrap();
    drop(stdin);
    let began = began.elapsed();
    assert!(began < PATIENCE, "{began:?}");
    stalled.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_megabytes_go_through_and_come_back() {
    let bed = Bed::new().await;
    let line = "head -c 200M /dev/zero | $SSH cat | wc -c";
    assert_eq!(text(shell(&bed, line)).await.trim(), "209715200");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_ends_much_output_at_once() {
    let bed = Bed::new().await;
    let mut ssh = bed.ssh(&["-tt"]);
    ssh.arg("exec bash --norc --noprofile").env("TERM", "dumb");
    let mut client = ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stdin, mut stdout) = (client.stdin.take().unwrap(), client.stdout.take().unwrap());
    // What it says, until this is at the end of it; what went before is forgotten.
    let mut until = async |want: &str| {
        let (mut said, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
        while !String::from_utf8_lossy(&said).contains(want) {
            let read = tokio::time::timeout(PATIENCE, stdout.read(&mut buffer)).await;
            let read = read.expect(want).unwrap();
            assert!(read > 0, "{want}: {}", String::from_utf8_lossy(&said));
            let kept = said.len().saturating_sub(want.len());
            said.drain(..kept);
            said.extend_from_slice(&buffer[..read]);
        }
    };
    // The shell joins it, so that no echo looks like it.
    stdin.write_all(b"echo re\"\"ady; base64 /dev/zero\n").await.unwrap();
    until("ready").await;
    until("AAAAAAAAAAAAAAAA").await;
    stdin.write_all(b"\x03").await.unwrap();
    until("^C").await;
    stdin.write_all(b"echo do\"\"ne; exit\n").await.unwrap();
    until("done").await;
    assert!(tokio::time::timeout(PATIENCE, client.wait()).await.unwrap().unwrap().success());
}
