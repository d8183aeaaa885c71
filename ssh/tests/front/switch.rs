//! Containers whose owner wants no forwards.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use gantry_ssh::{Door, DoorState};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
};

use crate::{
    bed::{Bed, PATIENCE, door, output, text},
    forwards::{Agent, socks},
    master::{Master, ask, echo_tcp, free_port},
};

/// What was forwarded ends within this time.
const AT_ONCE: Duration = Duration::from_secs(1);

fn without_forwards() -> Door {
    Door { forwards: false, ..door(DoorState::Open) }
}

/// Nothing comes any more.
async fn is_over(mut stream: impl AsyncRead + Unpin, what: &str) {
    let mut came = Vec::new();
    let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut came)).await;
    // It may be reset as well.
    end.expect(what).unwrap_or_default();
    assert!(came.is_empty(), "{what}: {} octets", came.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn forwards_of_every_kind_are_refused_and_sessions_are_not() {
    let bed = Bed::new().await;
    bed.doors.set(bed.id, Some(without_forwards()));
    let target = echo_tcp("127.0.0.1:0").await;
    let to = format!("127.0.0.1:{}", target.port());

    let refused = output(bed.ssh(&["-W", &to])).await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("administratively prohibited"), "{said}");
    assert_eq!(refused.status.code(), Some(255));

    let jump = format!(
        "-oProxyCommand=ssh -F none -oBatchMode=yes -oIdentitiesOnly=yes -oUserKnownHostsFile={} -i {} -p {} -W %h:%p root@127.0.0.1",
        bed.path("known_hosts").display(),
        bed.path("id").display(),
        bed.address.port()
    );
    let jumped = output(bed.ssh(&[&jump, "-oHostKeyAlias=any"])).await;
    let said = String::from_utf8_lossy(&jumped.stderr).into_owned();
    assert!(said.contains("administratively prohibited"), "{said}");

    let (proxy, local) = (free_port().await, bed.path("local"));
    let forward = format!("{}:{to}", local.display());
    let options = ["-L", &forward, "-D", &format!("127.0.0.1:{proxy}")];
    let master = Master::new(&bed, &options).await;
    is_over(UnixStream::connect(&local).await.unwrap(), "-L").await;
    is_over(socks(proxy, "127.0.0.1", target.port()).await, "-D").await;
    let (socket, inside) = (bed.path("echo"), bed.path("inside"));
    crate::master::echo_unix(&socket);
    let unix = bed.path("unix");
    master.forward(&["-L", &format!("{}:{}", unix.display(), socket.display())]).await;
    is_over(UnixStream::connect(&unix).await.unwrap(), "-L to a socket").await;
    master.refuses(&["-R", &format!("0:{to}")]).await;
    master.refuses(&["-R", &format!("{}:{to}", inside.display())]).await;
    assert!(!inside.exists());
    assert_eq!(text(master.run("echo still")).await, "still\n");
    master.end().await;

    // The agent's own switch is the client's.
    let agent = Agent::new(&bed, "agent").await;
    agent.add(&[bed.path("id")]).await;
    let mut ssh = bed.ssh(&["-A"]);
    ssh.arg("ssh-add -L").env("SSH_AUTH_SOCK", &agent.socket);
    let key = std::fs::read_to_string(bed.path("id.pub")).unwrap();
    assert_eq!(text(ssh).await, key);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_forwarded_ends_when_that_is_switched_off_and_nothing_else_does() {
    let bed = Bed::new().await;
    let master = Master::new(&bed, &[]).await;
    let to = format!("127.0.0.1:{}", echo_tcp("127.0.0.1:0").await.port());
    let (local, inside) = (bed.path("local"), bed.path("inside"));
    master.forward(&["-L", &format!("{}:{to}", local.display())]).await;
    let port: u16 = master.forward(&["-R", &format!("0:{to}")]).await.parse().unwrap();
    master.forward(&["-R", &format!("{}:{to}", inside.display())]).await;
    let mut open: Vec<Box<dyn AsyncRead + Unpin>> = Vec::new();
    for path in [&local, &inside] {
        let mut stream = UnixStream::connect(path).await.unwrap();
        stream.write_all(b"under way").await.unwrap();
        open.push(Box::new(stream));
    }
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(b"under way").await.unwrap();
    open.push(Box::new(stream));
    // A client that takes nothing.
    let mut flood = bed.ssh(&["-W", &flood().await]);
    let mut stalled = flood.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 1];
    stalled.stdout.as_mut().unwrap().read_exact(&mut first).await.unwrap();

    let off = Instant::now();
    bed.doors.set(bed.id, Some(without_forwards()));
    for stream in open {
        is_over(stream, "what is under way").await;
    }
    while TcpStream::connect(("127.0.0.1", port)).await.is_ok() || inside.exists() {
        assert!(off.elapsed() < PATIENCE, "it listens on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(off.elapsed() < AT_ONCE, "{:?}", off.elapsed());
    let mut rest = Vec::new();
    let reading = stalled.stdout.as_mut().unwrap().read_to_end(&mut rest);
    tokio::time::timeout(PATIENCE, reading).await.expect("it ends").unwrap();
    assert_eq!(text(master.run("echo still")).await, "still\n");
    is_over(UnixStream::connect(&local).await.unwrap(), "a new one").await;

    // On again, the same connection may forward again, and listen at the same path.
    bed.doors.set(bed.id, Some(door(DoorState::Open)));
    ask(UnixStream::connect(&local).await.unwrap(), b"again").await;
    master.cancel(&["-R", &format!("{}:{to}", inside.display())]).await;
    master.forward(&["-R", &format!("{}:{to}", inside.display())]).await;
    ask(UnixStream::connect(&inside).await.unwrap(), b"again").await;
    master.end().await;
}

/// A server that never ends.
async fn flood() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move { while stream.write_all(&[7; 8192]).await.is_ok() {} });
        }
    });
    address
}
