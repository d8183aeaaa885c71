//! Forwarded connections, either way.

use std::{
    os::fd::OwnedFd,
    process::Stdio,
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use gantry_model::{ContainerId, ssh::KeyFingerprint};
use gantry_ssh::{Bounds, DoorState, Limits, NoWay, Ways};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream, UnixStream},
    process::Command,
};

use crate::{
    bed::{Bed, Here, PATIENCE, Table, door, output, text},
    foreign::Script,
    hardening::metric,
    master::{Master, ask, echo_tcp, echo_unix, free_port},
};

#[tokio::test(flavor = "multi_thread")]
async fn local_forwards_reach_ports_of_both_families_and_sockets() {
    let bed = Bed::new().await;
    let master = Master::new(&bed, &[]).await;
    let (four, six) = (echo_tcp("127.0.0.1:0").await, echo_tcp("[::1]:0").await);
    let socket = bed.path("echo");
    echo_unix(&socket);
    let much = vec![7; 3_000_000];
    for (name, to) in [
        ("four", format!("127.0.0.1:{}", four.port())),
        ("six", format!("[::1]:{}", six.port())),
        ("name", format!("localhost:{}", four.port())),
        ("unix", socket.display().to_string()),
    ] {
        let local = bed.path(name);
        master.forward(&["-L", &format!("{}:{to}", local.display())]).await;
        ask(UnixStream::connect(&local).await.unwrap(), b"hello").await;
        ask(UnixStream::connect(&local).await.unwrap(), &much).await;
    }
    let port = free_port().await;
    let forward = format!("127.0.0.1:{port}:127.0.0.1:{}", four.port());
    master.forward(&["-L", &forward]).await;
    let many = (0..32_u8).map(|n| {
        tokio::spawn(async move {
            ask(TcpStream::connect(("127.0.0.1", port)).await.unwrap(), &vec![n; 100_000]).await;
        })
    });
    for one in many.collect::<Vec<_>>() {
        one.await.unwrap();
    }
    master.cancel(&["-L", &forward]).await;
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err());
    master.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn remote_forwards_listen_where_the_client_says_until_it_cancels_them() {
    let bed = Bed::new().await;
    let master = Master::new(&bed, &[]).await;
    let to = format!("127.0.0.1:{}", echo_tcp("127.0.0.1:0").await.port());

    // A port of the server's choice, on loopback alone as long as nothing else is said.
    let port: u16 = master.forward(&["-R", &format!("0:{to}")]).await.parse().unwrap();
    ask(TcpStream::connect(("127.0.0.1", port)).await.unwrap(), &vec![1; 3_000_000]).await;
    // Short ones, which end as soon as they have begun.
    for n in 0..50_u8 {
        ask(TcpStream::connect(("::1", port)).await.unwrap(), &[n]).await;
    }
    assert!(TcpStream::connect(("127.0.0.2", port)).await.is_err());
    let all: u16 = master.forward(&["-R", &format!("*:0:{to}")]).await.parse().unwrap();
    for address in ["127.0.0.1", "127.0.0.2", "::1"] {
        ask(TcpStream::connect((address, all)).await.unwrap(), b"any").await;
    }
    let one: u16 = master.forward(&["-R", &format!("127.0.0.2:0:{to}")]).await.parse().unwrap();
    ask(TcpStream::connect(("127.0.0.2", one)).await.unwrap(), b"one").await;
    assert!(TcpStream::connect(("127.0.0.1", one)).await.is_err());
    let six: u16 = master.forward(&["-R", &format!("[::1]:0:{to}")]).await.parse().unwrap();
    ask(TcpStream::connect(("::1", six)).await.unwrap(), b"six").await;
    // Which the server has not; one that is taken.
    master.refuses(&["-R", &format!("192.0.2.1:0:{to}")]).await;
    master.refuses(&["-R", &format!("127.0.0.1:{port}:{to}")]).await;

    let (inside, outside) = (bed.path("inside"), bed.path("outside"));
    echo_unix(&outside);
    let forward = format!("{}:{}", inside.display(), outside.display());
    master.forward(&["-R", &forward]).await;
    ask(UnixStream::connect(&inside).await.unwrap(), &vec![2; 3_000_000]).await;
    // The path is taken now; the client itself would not ask twice for the same.
    master.refuses(&["-R", &format!("{}:{to}", inside.display())]).await;
    ask(UnixStream::connect(&inside).await.unwrap(), b"still").await;
    // The client does not ask for an answer when it cancels; but what it asks next finds the path free.
    for _ in 0..10 {
        master.cancel(&["-R", &forward]).await;
        master.forward(&["-R", &forward]).await;
        ask(UnixStream::connect(&inside).await.unwrap(), b"anew").await;
    }
    master.cancel(&["-R", &forward]).await;
    gone(async || !inside.exists()).await;

    let fixed = free_port().await;
    let forward = format!("127.0.0.1:{fixed}:{to}");
    master.forward(&["-R", &forward]).await;
    ask(TcpStream::connect(("127.0.0.1", fixed)).await.unwrap(), b"fixed").await;
    let mut open = TcpStream::connect(("127.0.0.1", fixed)).await.unwrap();
    open.write_all(b"before ").await.unwrap();
    master.cancel(&["-R", &forward]).await;
    gone(async || TcpStream::connect(("127.0.0.1", fixed)).await.is_err()).await;
    // What had come stays, and the port can be had again.
    open.write_all(b"after").await.unwrap();
    open.shutdown().await.unwrap();
    let mut back = String::new();
    open.read_to_string(&mut back).await.unwrap();
    assert_eq!(back, "before after");
    master.forward(&["-R", &forward]).await;
    ask(TcpStream::connect(("127.0.0.1", fixed)).await.unwrap(), b"again").await;
    master.end().await;
}

/// Waits until that is so; the helper learns of an end after the client has its answer.
async fn gone(is_gone: impl AsyncFn() -> bool) {
    let waiting = async {
        while !is_gone().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("it goes");
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_listeners_and_no_more() {
    let bed = Bed::new().await;
    let master = Master::new(&bed, &[]).await;
    let to = format!("127.0.0.1:{}", echo_tcp("127.0.0.1:0").await.port());
    let mut ports = Vec::new();
    for _ in 0..20 {
        let port = free_port().await;
        master.forward(&["-R", &format!("{port}:{to}")]).await;
        ports.push(port);
    }
    master.refuses(&["-R", &format!("{}:{to}", free_port().await)]).await;
    for port in &ports {
        ask(TcpStream::connect(("127.0.0.1", *port)).await.unwrap(), b"hello").await;
    }
    // Those of another connection to the same container are its own.
    let mut other = bed.ssh(&["-oExitOnForwardFailure=yes", "-R", &format!("0:{to}")]);
    other.arg("echo in");
    assert_eq!(text(other).await, "in\n");
    master.end().await;
    for port in ports {
        gone(async || TcpStream::connect(("127.0.0.1", port)).await.is_err()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_direction_ends_by_itself() {
    let bed = Bed::new().await;
    let master = Master::new(&bed, &[]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let local = bed.path("local");
    let to = format!("{}:127.0.0.1:{}", local.display(), listener.local_addr().unwrap().port());
    master.forward(&["-L", &to]).await;

    // The server ends first, and hears the client to its end.
    let client = tokio::spawn({
        let local = local.clone();
        async move {
            let mut client = UnixStream::connect(local).await.unwrap();
            let mut said = String::new();
            client.read_to_string(&mut said).await.unwrap();
            assert_eq!(said, "bye");
            client.write_all(&vec![3; 2_000_000]).await.unwrap();
            client.shutdown().await.unwrap();
        }
    });
    let (mut server, _) = listener.accept().await.unwrap();
    server.write_all(b"bye").await.unwrap();
    server.shutdown().await.unwrap();
    let mut heard = Vec::new();
    server.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard.len(), 2_000_000);
    client.await.unwrap();

    // A client that closes at once is heard to its end, too.
    let mut client = UnixStream::connect(&local).await.unwrap();
    client.write_all(&vec![4; 2_000_000]).await.unwrap();
    drop(client);
    let (mut server, _) = listener.accept().await.unwrap();
    let mut heard = Vec::new();
    server.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard.len(), 2_000_000);
    drop(server);

    // The same through a listener of the server's side.
    let port: u16 = {
        let to = format!("0:127.0.0.1:{}", listener.local_addr().unwrap().port());
        master.forward(&["-R", &to]).await.parse().unwrap()
    };
    let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    server.write_all(b"bye").await.unwrap();
    server.shutdown().await.unwrap();
    let mut said = String::new();
    client.read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "bye");
    client.write_all(&vec![5; 2_000_000]).await.unwrap();
    client.shutdown().await.unwrap();
    heard.clear();
    server.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard.len(), 2_000_000);
    master.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_reached_is_told_apart_from_what_does_not_answer() {
    let bed = Bed::new().await;
    let closed = free_port().await;
    for to in [
        format!("127.0.0.1:{closed}"),
        format!("[::1]:{closed}"),
        format!("no-such-host.invalid:{closed}"),
        bed.path("none").display().to_string(),
    ] {
        let local = bed.path("local").display().to_string();
        let master = Master::new(&bed, &["-L", &format!("{local}:{to}")]).await;
        let mut client = UnixStream::connect(&local).await.unwrap();
        let mut said = Vec::new();
        let read = tokio::time::timeout(PATIENCE, client.read_to_end(&mut said)).await;
        read.expect("it is refused").unwrap_or_default();
        assert!(said.is_empty());
        master.end().await;
        std::fs::remove_file(local).unwrap_or_default();
    }
    let ended = output(bed.ssh(&["-W", &format!("127.0.0.1:{closed}")])).await;
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(said.contains("open failed: connect failed"), "{said}");
    assert_eq!(ended.status.code(), Some(255));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_codes_of_failures_are_those_of_the_protocol() {
    let bed = Bed::new().await;
    let hole = BlackHole::new().await;
    let (hole, closed) = (hole.port().to_string(), free_port().await.to_string());
    let none = bed.path("none").display().to_string();
    let Some(mut script) = Script::start(&bed, "channels.py", &["codes", &closed, &hole, &none])
    else {
        return;
    };
    for want in
        ["refused 2", "unresolvable 2", "socket 2", "type refused", "hole pending", "echo ok"]
    {
        script.says(want).await;
    }
    script.end().await;
}

/// A container that takes longer to wake than a listener may take.
struct Sleeper {
    doors: OnceLock<(Arc<Table>, KeyFingerprint)>,
    takes: Duration,
}

#[async_trait]
impl Ways for Sleeper {
    async fn open(&self, container: ContainerId) -> Result<OwnedFd, NoWay> {
        Here.open(container).await
    }

    async fn wake(&self, _container: ContainerId) -> Result<(), NoWay> {
        tokio::time::sleep(self.takes).await;
        let (doors, key) = self.doors.get().unwrap();
        doors.set(*key, Some(door(DoorState::Open)));
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_forward_waits_for_a_container_that_has_to_wake() {
    let takes = Duration::from_millis(1500);
    let sleeper = Arc::new(Sleeper { doors: OnceLock::new(), takes });
    let bounds = Bounds { listen: Duration::from_secs(1), ..Bounds::default() };
    let bed = Bed::changed(Arc::clone(&sleeper) as _, |front| front.bounded(bounds)).await;
    assert!(sleeper.doors.set((Arc::clone(&bed.doors), bed.id)).is_ok());
    bed.doors.set(bed.id, Some(door(DoorState::Asleep)));
    let to = format!("127.0.0.1:{}", echo_tcp("127.0.0.1:0").await.port());
    let mut ssh = bed.ssh(&["-oExitOnForwardFailure=yes", "-R", &format!("0:{to}")]);
    ssh.arg("echo in");
    assert_eq!(text(ssh).await, "in\n");
}

/// A container that is paused, or whose root user has stopped it: its listeners cannot close.
#[tokio::test(flavor = "multi_thread")]
async fn a_helper_that_does_not_answer_holds_a_connection_up_once() {
    let bounds = Bounds { listen: Duration::from_secs(4), ..Bounds::default() };
    let bed = Bed::changed(Arc::new(Here), |front| front.bounded(bounds)).await;
    let master = Master::new(&bed, &[]).await;
    let mut ports = Vec::new();
    for _ in 0..20 {
        let port = free_port().await;
        master.forward(&["-R", &format!("{port}:127.0.0.1:9")]).await;
        ports.push(port);
    }
    let helper = text(master.run("echo $PPID")).await.trim().parse().unwrap();
    let helper = Pid::from_raw(helper).unwrap();
    kill_process(helper, Signal::STOP).unwrap();
    let canceled = async {
        for port in &ports {
            master.cancel(&["-R", &format!("{port}:127.0.0.1:9")]).await;
        }
        master.refuses(&["-R", "0:127.0.0.1:9"]).await;
    };
    // Otherwise four seconds for each.
    let once = tokio::time::timeout(Duration::from_secs(50), canceled).await;
    kill_process(helper, Signal::CONT).unwrap();
    once.expect("it stands still once");
    for port in ports {
        gone(async || TcpStream::connect(("127.0.0.1", port)).await.is_err()).await;
    }
    master.end().await;
}

/// What waits for a container to wake is held, and counts for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_waits_for_a_container_weighs() {
    let takes = Duration::from_mins(10);
    let sleeper = Arc::new(Sleeper { doors: OnceLock::new(), takes });
    let bed = Bed::through(Limits::default(), sleeper).await;
    bed.doors.set(bed.id, Some(door(DoorState::Asleep)));
    let mut client = bed.run(&format!("echo {}", "x".repeat(100_000))).spawn().unwrap();
    let weighs = async |is_right: fn(u64) -> bool| {
        gone(async || is_right(metric(&bed, "gantry_ssh_held_bytes"))).await;
    };
    weighs(|held| held >= 100_000).await;
    client.kill().await.unwrap();
    weighs(|held| held == 0).await;
}

/// A program that is slow to answer, or a target that drops what comes to it.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_answers_too_late_loses_that_connection_and_no_other() {
    let bounds = Bounds { answer: Duration::from_millis(300), ..Bounds::default() };
    let bed = Bed::changed(Arc::new(Here), |front| front.bounded(bounds)).await;
    let Some(mut script) = Script::start(&bed, "channels.py", &["late"]) else { return };
    let port = script.line().await;
    let port: u16 = port.strip_prefix("port ").unwrap().parse().unwrap();
    for word in ["refuse", "confirm"] {
        let mut inside = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        script.says("asked").await;
        let given_up = tokio::time::timeout(PATIENCE, inside.read(&mut [0])).await;
        assert_eq!(given_up.expect("it is given up").unwrap_or_default(), 0);
        script.tell(word).await;
        script.says(&format!("shell {word}")).await;
    }
    script.says("closed True").await;
    script.says("asked").await;
    script.tell("refuse").await;
    script.says("shell refuse").await;
    script.says("echo ok").await;
    script.end().await;
}

/// An address that answers nothing: its queue is full.
pub(crate) struct BlackHole {
    listener: TcpListener,
    _full: Vec<TcpStream>,
}

impl BlackHole {
    pub(crate) async fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut full = Vec::new();
        while let Ok(stream) =
            tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await
        {
            full.push(stream.unwrap());
        }
        Self { listener, _full: full }
    }

    pub(crate) fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_of_the_client_reaches_names_and_addresses() {
    let bed = Bed::new().await;
    let proxy = free_port().await;
    let master = Master::new(&bed, &["-D", &format!("127.0.0.1:{proxy}")]).await;
    let (four, six) = (echo_tcp("127.0.0.1:0").await, echo_tcp("[::1]:0").await);
    for (host, port) in
        [("localhost", four.port()), ("127.0.0.1", four.port()), ("::1", six.port())]
    {
        let mut stream = socks(proxy, host, port).await;
        let mut reply = [0; 10];
        stream.read_exact(&mut reply).await.unwrap();
        assert_eq!(reply[..2], [5, 0]);
        ask(stream, b"through").await;
    }
    master.end().await;
}

/// A request to a SOCKS5 proxy.
pub(crate) async fn socks(proxy: u16, host: &str, port: u16) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", proxy)).await.unwrap();
    stream.write_all(&[5, 1, 0]).await.unwrap();
    let mut method = [0; 2];
    stream.read_exact(&mut method).await.unwrap();
    let mut request = vec![5, 1, 0, 3, u8::try_from(host.len()).unwrap()];
    request.extend_from_slice(host.as_bytes());
    request.extend_from_slice(&port.to_be_bytes());
    stream.write_all(&request).await.unwrap();
    stream
}

/// An agent with some keys.
pub(crate) struct Agent {
    pub(crate) socket: std::path::PathBuf,
    _child: tokio::process::Child,
}

impl Agent {
    pub(crate) async fn new(bed: &Bed, name: &str) -> Self {
        let socket = bed.path(name);
        let mut child = Command::new("ssh-agent")
            .args(["-D", "-a"])
            .arg(&socket)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        // Its first words come when it listens.
        let mut octet = [0];
        child.stdout.as_mut().unwrap().read_exact(&mut octet).await.unwrap();
        Self { socket, _child: child }
    }

    pub(crate) async fn add(&self, keys: &[std::path::PathBuf]) {
        let mut add = Command::new("ssh-add");
        add.arg("-q").args(keys).env("SSH_AUTH_SOCK", &self.socket);
        assert!(output(add).await.status.success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_at_once_ask_the_clients_agent() {
    let bed = Bed::new().await;
    let agent = Agent::new(&bed, "agent").await;
    agent.add(&[bed.path("id")]).await;
    let mut ssh = bed.ssh(&["-A"]);
    ssh.arg("for n in 1 2 3; do seq 8 | xargs -P8 -I{} ssh-add -L; done; echo $SSH_AUTH_SOCK")
        .env("SSH_AUTH_SOCK", &agent.socket);
    let said = text(ssh).await;
    let key = std::fs::read_to_string(bed.path("id.pub")).unwrap();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 25, "{said}");
    assert!(lines[..24].iter().all(|line| *line == key.trim_end()), "{said}");
    gone(async || !std::path::Path::new(lines[24]).exists()).await;

    // Who does not ask for it has none.
    let mut ssh = bed.ssh(&["-a"]);
    ssh.arg("echo -$SSH_AUTH_SOCK-").env("SSH_AUTH_SOCK", &agent.socket);
    assert_eq!(text(ssh).await, "--\n");
}
