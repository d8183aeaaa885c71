//! Connections, listeners and agents.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, Shutdown, TcpListener, TcpStream},
    os::{
        fd::OwnedFd,
        unix::{
            fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
};

use gantry_session::protocol::{Exit, FromHelper, Id, Process, Reason, Run, Target, ToHelper};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::edge::{ANN, Edge, PATIENCE, command, process, read_all, read_until, tcp, terminal};

fn unix(path: &Path) -> Target {
    Target::Unix(path.as_os_str().as_encoded_bytes().to_vec())
}

impl Edge {
    async fn connect(
        &mut self,
        target: Target,
        user: &str,
    ) -> Result<UnixStream, (Reason, String)> {
        let id = self.id();
        let (mine, its) = stream();
        self.say(&ToHelper::Connect { id, target, user: user.to_owned() }, &its).await;
        drop(its);
        let heard = self.hear().await;
        if heard == (FromHelper::Started { id }) {
            return Ok(mine);
        }
        assert_eq!(read_all(mine), b"", "its descriptor is closed");
        Err(refused(id, heard))
    }

    async fn listen(&mut self, at: Target, user: &str) -> Result<(Id, u16), (Reason, String)> {
        let id = self.id();
        self.say(&ToHelper::Listen { id, at, user: user.to_owned() }, &[]).await;
        let heard = self.hear().await;
        if let FromHelper::Listening { id: of, port } = heard {
            assert_eq!(of, id);
            return Ok((id, port));
        }
        Err(refused(id, heard))
    }

    /// Ends a listener, and waits until it has closed.
    async fn close(&self, id: Id) {
        self.say(&ToHelper::End { id }, &[]).await;
        assert_eq!(self.hear().await, FromHelper::Closed { id });
    }

    /// The next connection to a listener, taken.
    async fn taken(&self, of: Id) -> (UnixStream, Option<(String, u16)>) {
        let heard = self.hear().await;
        let FromHelper::Accepted { id, listener, peer } = heard else { panic!("{heard:?}") };
        assert_eq!((listener, id % 2), (of, 1));
        let (mine, its) = stream();
        self.say(&ToHelper::Take { id }, &its).await;
        drop(its);
        (mine, peer)
    }
}

fn refused(id: Id, heard: FromHelper) -> (Reason, String) {
    let FromHelper::Refused { id: of, reason, message } = heard else { panic!("{heard:?}") };
    assert_eq!(of, id);
    (reason, message)
}

/// One socket in the place of two pipes.
fn stream() -> (UnixStream, [OwnedFd; 2]) {
    let (mine, its) = UnixStream::pair().unwrap();
    mine.set_read_timeout(Some(PATIENCE)).unwrap();
    (mine, [its.try_clone().unwrap().into(), its.into()])
}

/// Says so much from each side to the other at once, ends both, and looks at what has come.
async fn both_ways(one: impl Both, other: impl Both, most: usize) {
    let there = one_way(one.copy(), other.copy(), 3, most);
    let back = one_way(other, one, 5, most);
    for task in there.into_iter().chain(back) {
        task.await.unwrap();
    }
}

fn one_way(mut to: impl Both, from: impl Both, seed: usize, most: usize) -> [JoinHandle<()>; 2] {
    let data: Vec<u8> = (0..most).map(|n| (n * seed).to_le_bytes()[n % 3]).collect();
    let expected = data.clone();
    let write = spawn_blocking(move || {
        to.write_all(&data).unwrap();
        to.end();
    });
    [write, spawn_blocking(move || assert!(read_all(from) == expected))]
}

trait Both: std::io::Read + std::io::Write + Send + Sized + 'static {
    fn copy(&self) -> Self;
    fn end(&self);
}

impl Both for UnixStream {
    fn copy(&self) -> Self {
        self.try_clone().unwrap()
    }
    fn end(&self) {
        self.shutdown(Shutdown::Write).unwrap();
    }
}

impl Both for TcpStream {
    fn copy(&self) -> Self {
        self.set_read_timeout(Some(PATIENCE)).unwrap();
        self.try_clone().unwrap()
    }
    fn end(&self) {
        self.shutdown(Shutdown::Write).unwrap();
    }
}

#[tokio::test]
async fn connections_carry_both_ways_and_each_way_ends_by_itself() {
    let mut edge = Edge::new().await;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    for host in ["127.0.0.1", "localhost", "LOCALHOST"] {
        let mine = edge.connect(tcp(host, port), "root").await.unwrap();
        let (other, _) = listener.accept().unwrap();
        both_ways(mine, other, 3_000_000).await;
    }
    let six = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
    let mine = edge.connect(tcp("::1", six.local_addr().unwrap().port()), "root").await.unwrap();
    both_ways(mine, six.accept().unwrap().0, 1000).await;

    // Ended by the client first, answered after that.
    let mut mine = edge.connect(tcp("localhost", port), "root").await.unwrap();
    let (mut other, _) = listener.accept().unwrap();
    mine.write_all(b"question").unwrap();
    mine.shutdown(Shutdown::Write).unwrap();
    let mut question = Vec::new();
    other.read_to_end(&mut question).unwrap();
    other.write_all(b"answer").unwrap();
    drop(other);
    assert_eq!(
        (question.as_slice(), read_all(mine).as_slice()),
        (b"question".as_slice(), b"answer".as_slice())
    );

    // Ended by the edge as a whole.
    let id = edge.next_id();
    let mut mine = edge.connect(tcp("localhost", port), "root").await.unwrap();
    let (other, _) = listener.accept().unwrap();
    mine.write_all(b"last").unwrap();
    edge.say(&ToHelper::End { id }, &[]).await;
    // What it has sent arrives, and then the end, with that of its pipe.
    drop(mine);
    other.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(read_all(other), b"last");
}

#[tokio::test]
async fn what_cannot_be_reached_is_refused() {
    let mut edge = Edge::by_script(
        "printf '192.0.2.7 nowhere\\n127.0.0.1 here\\n' > /tmp/gantry-hosts.$$; \
        mount --bind /tmp/gantry-hosts.$$ /etc/hosts; rm /tmp/gantry-hosts.$$; \
        mount --bind /dev/null /etc/resolv.conf",
    )
    .await;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    edge.connect(tcp("here", port), "root").await.unwrap();
    drop(listener);
    for (target, words) in [
        (tcp("127.0.0.1", port), "Connection refused"),
        (tcp("unknown.invalid", 1), "unknown host"),
        (tcp("", 1), "unknown host"),
        (unix(Path::new("/none")), "No such file"),
        (unix(Path::new("/etc/passwd")), "Connection refused"),
        (Target::Unix(vec![b'x'; 300]), "too long"),
        (Target::Unix(b"/a\0b".to_vec()), "Invalid argument"),
    ] {
        let (reason, message) = edge.connect(target, "root").await.unwrap_err();
        assert_eq!(reason, Reason::Failed, "{message}");
        assert!(message.contains(words), "{message}");
    }
    // Nobody answers there; the edge need not wait for that.
    let id = edge.id();
    let (mine, its) = stream();
    let target = tcp("nowhere", 9);
    edge.say(&ToHelper::Connect { id, target, user: "root".to_owned() }, &its).await;
    drop(its);
    edge.say(&ToHelper::End { id }, &[]).await;
    assert_eq!(read_all(mine), b"");
}

/// By the name servers and the domains that the container's own settings name.
#[tokio::test]
async fn names_are_looked_up_inside() {
    let directory = tempfile::tempdir().unwrap();
    let settings = directory.path().join("resolv.conf");
    fs::write(&settings, "nameserver 127.0.0.1\nsearch example.test\n").unwrap();
    let lines = format!("ip link set lo up; mount --bind {} /etc/resolv.conf", settings.display());
    let mut edge = Edge::apart(&["--mount", "--net"], &lines).await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign/names.py");
    let line = format!("exec python3 -B {} db.example.test 127.0.0.9 4000", script.display());
    let (_, mut pipes) = edge.start(command(&line)).await;
    let mut ready = [0; 6];
    pipes.output.read_exact(&mut ready).unwrap();
    for name in ["db.example.test", "db", "DB.example.test."] {
        let mine = edge.connect(tcp(name, 4000), "root").await.unwrap();
        assert_eq!(read_all(mine), b"found", "{name}");
    }
    let (reason, message) = edge.connect(tcp("other", 4000), "root").await.unwrap_err();
    assert_eq!(reason, Reason::Failed);
    assert!(message.starts_with("other: unknown host ("), "{message}");
}

/// A home of `ann`, below a directory that she may enter.
fn home() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let home = directory.path().join("ann");
    fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(ANN), Some(ANN)).unwrap();
    (directory, home)
}

#[tokio::test]
async fn sockets_are_opened_by_the_rights_of_the_user() {
    let (directory, home) = home();
    let mut edge = Edge::with_ann(&home).await;
    let path = home.join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let (reason, message) = edge.connect(unix(&path), "ann").await.unwrap_err();
    assert_eq!(reason, Reason::Prohibited, "{message}");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let mine = edge.connect(unix(&path), "ann").await.unwrap();
    let (other, _) = listener.accept().unwrap();
    let who = rustix::net::sockopt::socket_peercred(&other).unwrap();
    assert_eq!((who.uid.as_raw(), who.gid.as_raw()), (ANN, ANN));
    both_ways(mine, other, 2_000_000).await;

    // To listen where she may not, or where something is.
    let foreign = directory.path().join("foreign");
    for (path, reason) in [(&foreign, Reason::Prohibited), (&path, Reason::Failed)] {
        assert_eq!(edge.listen(unix(path), "ann").await.unwrap_err().0, reason);
    }
    let (reason, message) = edge.listen(tcp("localhost", 80), "ann").await.unwrap_err();
    assert_eq!(reason, Reason::Prohibited, "{message}");
}

#[tokio::test]
async fn a_socket_that_listens_is_the_users_and_goes_at_the_end() {
    let (_directory, home) = home();
    let path = home.join("forward");
    let mut edge = Edge::with_ann(&home).await;
    let (id, port) = edge.listen(unix(&path), "ann").await.unwrap();
    assert_eq!(port, 0);
    let of = fs::symlink_metadata(&path).unwrap();
    assert!(of.file_type().is_socket());
    assert_eq!((of.uid(), of.gid(), of.mode() & 0o777), (ANN, ANN, 0o600));
    let other = UnixStream::connect(&path).unwrap();
    other.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mine, peer) = edge.taken(id).await;
    assert_eq!(peer, None);
    // What was taken outlives its listener.
    edge.close(id).await;
    assert!(!path.exists());
    both_ways(mine, other, 100_000).await;

    // Something else that has taken its place stays.
    let (id, _) = edge.listen(unix(&path), "ann").await.unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, "mine").unwrap();
    edge.close(id).await;
    // And so it is when the connection ends, or the helper is killed.
    let second = home.join("second");
    edge.listen(unix(&second), "ann").await.unwrap();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(edge.helper.id().unwrap().cast_signed()).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    edge.helper.wait().await.unwrap();
    spawn_blocking(move || {
        while second.exists() {
            std::thread::yield_now();
        }
    })
    .await
    .unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
}

#[tokio::test]
async fn ports_are_bound_where_the_request_means() {
    let mut edge = Edge::new().await;
    let reach = |host: &str, port| TcpStream::connect((host, port)).is_ok();
    for (host, four, six) in [
        ("localhost", true, true),
        ("", true, true),
        ("127.0.0.1", true, false),
        ("0.0.0.0", true, false),
        ("::", false, true),
        ("::1", false, true),
    ] {
        let (id, port) = edge.listen(tcp(host, 0), "root").await.unwrap();
        assert_ne!(port, 0);
        let reached = (reach("127.0.0.1", port), reach("::1", port));
        assert_eq!(reached, (four, six), "{host:?}");
        for _ in 0..usize::from(four) + usize::from(six) {
            let (_mine, peer) = edge.taken(id).await;
            assert!(peer.is_some_and(|(host, port)| {
                host.parse::<std::net::IpAddr>().unwrap().is_loopback() && port > 0
            }));
        }
        // Closed at the end, and to be had again at once.
        edge.close(id).await;
        assert!(!reach("127.0.0.1", port) && !reach("::1", port));
        let (again, same) = edge.listen(tcp(host, port), "root").await.unwrap();
        assert_eq!(same, port);
        let (_, message) = edge.listen(tcp(host, port), "root").await.unwrap_err();
        assert!(message.contains("in use"), "{message}");
        edge.close(again).await;
    }
}

#[tokio::test]
async fn connections_that_nobody_takes_are_few_and_end() {
    let mut edge = Edge::new().await;
    let (id, port) = edge.listen(tcp("127.0.0.1", 0), "root").await.unwrap();
    let mut others: Vec<TcpStream> =
        (0..40).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    let mut offered = Vec::new();
    for _ in 0..16 {
        let FromHelper::Accepted { id, .. } = edge.hear().await else { panic!() };
        offered.push(id);
    }
    // Nothing more comes until one is taken or given up.
    edge.run("true", b"").await;
    edge.say(&ToHelper::End { id: offered[0] }, &[]).await;
    let FromHelper::Accepted { id: next, listener, .. } = edge.hear().await else { panic!() };
    assert_eq!(listener, id);
    others[0].set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(others[0].read(&mut [0]).unwrap(), 0, "it is closed");
    // Taken without a stream is given up, too.
    edge.say(&ToHelper::Take { id: next }, &[]).await;
    assert!(matches!(edge.hear().await, FromHelper::Accepted { .. }));

    let mut listeners = 1;
    let (reason, message) = loop {
        match edge.listen(tcp("127.0.0.1", 0), "root").await {
            Ok(_) => listeners += 1,
            Err(refused) => break refused,
        }
    };
    assert_eq!((listeners, reason), (500, Reason::Shortage), "{message}");
}

#[tokio::test]
async fn an_agent_has_a_socket_as_long_as_its_session() {
    let (_directory, home) = home();
    let mut edge = Edge::with_ann(&home).await;
    let line =
        "stat -c '%a %u' $SSH_AUTH_SOCK $(dirname $SSH_AUTH_SOCK); echo $SSH_AUTH_SOCK; read x";
    for at_terminal in [false, true] {
        let user = "ann".to_owned();
        let process = Process { user, agent: true, ..command(line) };
        let (id, mut output, input): (_, Box<dyn std::io::Read + Send>, Box<dyn std::io::Write>);
        if at_terminal {
            let terminal = Some(terminal(vec![(53, 0), (72, 0)]));
            let (of, stream) = edge.start_at(Process { terminal, ..process }).await;
            (id, output, input) = (of, Box::new(stream.try_clone().unwrap()), Box::new(stream));
        } else {
            let (of, pipes) = edge.start(process).await;
            (id, output, input) = (of, Box::new(pipes.output), Box::new(pipes.input));
        }
        let mut input = input;
        let mut text = String::new();
        while text.matches('\n').count() < 3 {
            let mut octet = [0];
            output.read_exact(&mut octet).unwrap();
            text.push(char::from(octet[0]));
        }
        let (modes, socket) = text.trim().rsplit_once('\n').unwrap();
        assert_eq!(modes, format!("600 {ANN}\n700 {ANN}"));
        assert!(socket.starts_with("/tmp/ssh-") && socket.contains("/agent."), "{socket}");
        let directory = Path::new(socket).parent().unwrap().to_owned();

        let other = UnixStream::connect(socket).unwrap();
        other.set_read_timeout(Some(PATIENCE)).unwrap();
        let (mine, _) = edge.taken(id).await;
        both_ways(mine, other, 1000).await;
        input.write_all(b"\n").unwrap();
        assert_eq!(edge.exited(id).await, Exit::Status(0));
        edge.run(&format!("while test -e {}; do sleep 0.02; done", directory.display()), b"").await;
    }
    // Nor is anything left of the processes that held them.
    let wait = "while ps --ppid $PPID -o stat=,args= | grep -E '^Z|[e]rrand'; do sleep 0.02; done";
    assert_eq!(edge.run(wait, b"").await.2, Exit::Status(0));
    let (output, ..) = edge.run("echo $SSH_AUTH_SOCK", b"").await;
    assert_eq!(output, "\n");
}

#[tokio::test]
async fn a_session_that_can_have_no_agent_says_so_and_goes_on() {
    let read_only = "mount --rbind /tmp /tmp && mount -o remount,bind,ro /tmp";
    let mut edge = Edge::by_script(read_only).await;
    let process = Process { agent: true, ..command("echo \"<${SSH_AUTH_SOCK-none}>\"; exit 3") };
    let (id, pipes) = edge.start(process.clone()).await;
    let (output, errors) = pipes.talk(b"").await;
    assert_eq!(output, b"<none>\n");
    let errors = String::from_utf8(errors).unwrap();
    assert!(errors.starts_with("no agent is forwarded: ") && errors.ends_with('\n'), "{errors}");
    assert!(errors.contains("Read-only file system"), "{errors}");
    assert_eq!(edge.exited(id).await, Exit::Status(3));

    let (id, stream) =
        edge.start_at(Process { terminal: Some(terminal(Vec::new())), ..process }).await;
    let said = read_until(&stream, "<none>").await;
    assert!(said.starts_with("no agent is forwarded: "), "{said}");
    assert_eq!(edge.exited(id).await, Exit::Status(3));
}

/// OpenSSH's own client of agents, with keys that the edge's side makes up: none.
#[tokio::test]
async fn ssh_add_asks_through_it() {
    let mut edge = Edge::new().await;
    let argv = vec![b"ssh-add".to_vec(), b"-l".to_vec()];
    let run = Run::Program { argv, directory: None };
    let (id, pipes) = edge.start(Process { agent: true, ..process(run) }).await;
    let (mut mine, _) = edge.taken(id).await;
    let answering = spawn_blocking(move || {
        let mut answered = Vec::new();
        let mut length = [0; 4];
        while mine.read_exact(&mut length).is_ok() {
            let mut request = vec![0; u32::from_be_bytes(length) as usize];
            mine.read_exact(&mut request).unwrap();
            // SSH_AGENT_IDENTITIES_ANSWER without any; a failure to all else.
            let answer: &[u8] =
                if request == [11] { &[0, 0, 0, 5, 12, 0, 0, 0, 0] } else { &[0, 0, 0, 1, 5] };
            mine.write_all(answer).unwrap();
            answered.push(request[0]);
        }
        answered
    });
    let (output, _) = pipes.talk(b"").await;
    assert_eq!(String::from_utf8(output).unwrap(), "The agent has no identities.\n");
    assert_eq!(edge.exited(id).await, Exit::Status(1));
    assert!(answering.await.unwrap().contains(&11));
}

/// One that reads nothing holds up nobody else, and what is kept for it is bounded.
#[tokio::test]
async fn a_reader_that_reads_nothing_is_waited_for_alone() {
    let mut edge = Edge::new().await;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut mine = edge.connect(tcp("localhost", port), "root").await.unwrap();
    let (other, _) = listener.accept().unwrap();
    mine.set_nonblocking(true).unwrap();
    // Until no buffer on the way takes anything more for a while.
    let mut sent = 0;
    let piece = vec![1; 65536];
    while writable(&mine) {
        sent += mine.write(&piece).unwrap();
    }
    let second = edge.connect(tcp("localhost", port), "root").await.unwrap();
    both_ways(second, listener.accept().unwrap().0, 1_000_000).await;
    mine.shutdown(Shutdown::Write).unwrap();
    let read = spawn_blocking(|| read_all(other)).await.unwrap();
    assert_eq!(read.len(), sent);
}

fn writable(stream: &UnixStream) -> bool {
    let mut fds = [PollFd::new(stream, PollFlags::OUT)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 300_000_000 })).unwrap() > 0
}
