//! Sessions that must end: their key has gone, or the server ends.

use std::{process::Stdio, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
    process::{Child, Command},
};

use crate::{
    bed::{Bed, PATIENCE},
    master::{ask, echo_tcp},
};

const WHY: &str = "the container or its key has changed";

fn start(mut client: Command) -> Child {
    client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

async fn read(child: &mut Child, want: &str) {
    let mut said = Vec::new();
    while !String::from_utf8_lossy(&said).contains(want) {
        let read = child.stdout.as_mut().unwrap().read_u8();
        said.push(tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap());
    }
}

/// What a client said that was cut.
async fn ended(child: Child) -> String {
    let ended = tokio::time::timeout(Duration::from_secs(5), child.wait_with_output()).await;
    let ended = ended.expect("it is cut").unwrap();
    // `sftp` does not tell.
    assert!(matches!(ended.status.code(), Some(0 | 1 | 255)), "{}", ended.status);
    String::from_utf8_lossy(&ended.stderr).into_owned()
}

/// A forward alone, a shell with a terminal, a command that is flooded, one that floods, and files.
async fn all(bed: &Bed) -> (Vec<Child>, UnixStream, u16) {
    let local = bed.path("local");
    let to = echo_tcp("127.0.0.1:0").await.port();
    let forward = format!("{}:127.0.0.1:{to}", local.display());
    let back = format!("0:127.0.0.1:{to}");
    let mut forwards = start(bed.ssh(&["-N", "-L", &forward, "-R", &back]));
    // The client tells which port it got.
    let mut said = Vec::new();
    while !said.ends_with(b"\n") {
        said.push(forwards.stderr.as_mut().unwrap().read_u8().await.unwrap());
    }
    let said = String::from_utf8(said).unwrap();
    let port = said.split_whitespace().find_map(|word| word.parse().ok()).expect("a port");
    ask(UnixStream::connect(&local).await.unwrap(), b"hello").await;
    ask(TcpStream::connect(("127.0.0.1", port)).await.unwrap(), b"hello").await;
    let open = UnixStream::connect(&local).await.unwrap();

    let mut terminal = bed.ssh(&["-tt"]);
    terminal.arg("echo in; exec sleep 600");
    let mut terminal = start(terminal);
    read(&mut terminal, "in").await;
    let mut stalled = start(bed.run("echo in; exec sleep 600"));
    read(&mut stalled, "in").await;
    let mut stdin = stalled.stdin.take().unwrap();
    let zeros = vec![0; 1 << 16];
    tokio::spawn(async move { while stdin.write_all(&zeros).await.is_ok() {} });
    let flood = start(bed.run("exec cat /dev/zero"));
    let mut files = start(bed.client("sftp", "-P", &bed.path("id"), &["root@127.0.0.1"]));
    files.stdin.as_mut().unwrap().write_all(b"pwd\n").await.unwrap();
    read(&mut files, "Remote working directory").await;
    (vec![forwards, terminal, stalled, flood, files], open, port)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_goes_ends_shells_files_and_forwards_with_a_word() {
    let bed = Bed::new().await;
    let (children, mut open, port) = all(&bed).await;
    bed.doors.set(bed.id, None);
    for (n, child) in children.into_iter().enumerate() {
        // Whoever is full of data may not hear it.
        let said = ended(child).await;
        assert!(said.contains(WHY) || n == 2 || n == 3, "{n}: {said}");
    }
    assert_eq!(open.read(&mut [0; 8]).await.unwrap_or_default(), 0);
    let closed = async {
        while TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, closed).await.expect("the listener goes");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_front_ends_all_sessions() {
    let bed = Bed::new().await;
    let (children, mut open, _) = all(&bed).await;
    bed.shutdown.cancel();
    for child in children {
        ended(child).await;
    }
    assert_eq!(open.read(&mut [0; 8]).await.unwrap_or_default(), 0);
    assert!(TcpStream::connect(bed.address).await.is_err());
}
