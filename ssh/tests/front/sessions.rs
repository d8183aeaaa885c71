//! Commands, exit statuses, streams, terminals, and who is let in.

use std::{process::Stdio, sync::Arc, time::Duration};

use gantry_ssh::{Bounds, Door, DoorState};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    bed::{Bed, Here, PATIENCE, door, output, text},
    foreign::Script,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_command_has_its_output_and_its_status() {
    let bed = Bed::new().await;
    assert_eq!(text(bed.run("echo hello; echo $HOME")).await, "hello\n/root\n");
    for code in [0, 7, 255] {
        let ended = output(bed.run(&format!("echo out; echo err >&2; exit {code}"))).await;
        assert_eq!(ended.status.code(), Some(code));
        assert_eq!(ended.stdout, b"out\n");
        assert_eq!(ended.stderr, b"err\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn input_ends_before_output_does() {
    let bed = Bed::new().await;
    let mut child = bed
        .run("read x; cat | wc -c; echo \"$x\"; cat /dev/stdin | wc -c")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let all: Vec<u8> = (0..=u8::MAX).cycle().take(3_000_000).filter(|b| *b != b'\n').collect();
    stdin.write_all(b"first\n").await.unwrap();
    stdin.write_all(&all).await.unwrap();
    drop(stdin);
    let ended = child.wait_with_output().await.unwrap();
    let want = format!("{}\nfirst\n0\n", all.len());
    assert_eq!(String::from_utf8_lossy(&ended.stdout), want);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_whose_channel_is_closed_is_hung_up_in_the_end() {
    let bounds = Bounds { arrival: Duration::from_millis(200), ..Bounds::default() };
    let bed = Bed::changed(Arc::new(Here), |front| front.bounded(bounds)).await;
    let file = bed.path("hup").display().to_string();
    let Some(mut script) = Script::start(&bed, "channels.py", &["closed", &file]) else { return };
    script.says("hung up True").await;
    script.says("hung up True").await;
    script.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_has_the_clients_size_and_modes() {
    let bed = Bed::new().await;
    let mut ssh = bed.ssh(&["-tt"]);
    ssh.arg("stty size; tty >/dev/null && echo tty; echo $TERM").env("TERM", "xterm-kitty");
    let said = text(ssh).await;
    assert!(said.contains("tty\r\nxterm-kitty\r\n"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_keys_are_refused_and_a_container_that_is_stopped_says_so() {
    let bed = Bed::new().await;
    let other = bed.key("other", "ed25519");
    let strange = bed.client("ssh", "-p", &bed.path("other"), &["root@127.0.0.1", "true"]);
    let refused = output(strange).await;
    assert_eq!(refused.status.code(), Some(255));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("Permission denied (publickey)"), "{said}");

    bed.doors.set(other, Some(door(DoorState::Shut("is stopped"))));
    let shut =
        output(bed.client("ssh", "-p", &bed.path("other"), &["root@127.0.0.1", "true"])).await;
    assert_eq!(shut.status.code(), Some(254));
    let said = String::from_utf8_lossy(&shut.stderr).into_owned();
    assert!(said.contains("is stopped"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_or_a_container_that_changes_ends_its_sessions() {
    let bed = Bed::new().await;
    let before = door(DoorState::Open);
    let other = Door { container: "0123456789abcdef01234568".parse().unwrap(), ..before.clone() };
    for (what, now) in [
        ("the key is taken away", None),
        ("it is another container's", Some(other)),
        ("the container stops", Some(door(DoorState::Shut("is stopped")))),
        ("it sleeps", Some(door(DoorState::Asleep))),
        ("it has started anew", Some(Door { generation: 2, ..before.clone() })),
    ] {
        bed.doors.set(bed.id, Some(before.clone()));
        let mut ssh = bed.run("echo in; sleep 600");
        let mut child = ssh.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = [0; 3];
        child.stdout.as_mut().unwrap().read_exact(&mut line).await.unwrap();
        bed.doors.set(bed.id, now);
        let ended = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
        let ended = ended.unwrap_or_else(|_| panic!("{what}: it goes on")).unwrap();
        assert_eq!(ended.status.code(), Some(255), "{what}");
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(said.contains("the container or its key has changed"), "{what}: {said}");
    }
}
