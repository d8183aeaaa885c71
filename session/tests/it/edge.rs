//! An edge for tests: one helper, and what it says.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::{AsFd as _, OwnedFd},
    os::unix::net::UnixStream,
    process::Stdio,
    time::Duration,
};

use gantry_session::{
    protocol::{Exit, FromHelper, Id, Process, Run, Size, Target, Terminal, ToHelper, VERSION},
    wire::{Wire, WireError},
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tokio::{
    process::{Child, Command},
    task::spawn_blocking,
    time::timeout,
};

/// How long anything may take here.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_gantry-session");

/// The user and group id of `ann`.
pub(crate) const ANN: u32 = 4242;

pub(crate) struct Edge {
    pub(crate) wire: Wire,
    pub(crate) helper: Child,
    next: Id,
}

impl Edge {
    /// A helper that has said that it is ready.
    pub(crate) async fn new() -> Self {
        Self::with(&[], |_command| {}).await
    }

    pub(crate) async fn with(arguments: &[&str], prepare: impl FnOnce(&mut Command)) -> Self {
        let (mine, its) = pair();
        let mut command = Command::new(PROGRAM);
        command.args(["serve", "-"]).args(arguments);
        Self::by(command, mine, its, prepare).await
    }

    /// A helper in a container, so to speak, that has the account `ann` with this home; `/etc` and `/run`
    /// may be written to.
    pub(crate) async fn with_ann(home: &std::path::Path) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (over, home) = (directory.path().display(), home.display());
        let script = format!(
            "set -e
            mount -t tmpfs none {over}; mkdir {over}/upper {over}/work
            mount -t overlay -o lowerdir=/etc,upperdir={over}/upper,workdir={over}/work none /etc
            mount -t tmpfs none /run
            printf 'root:x:0:0:root:/root:/bin/bash\nann:x:{ANN}:{ANN}::{home}:/bin/sh\n' > /etc/passwd
            printf 'root:x:0:\nann:x:{ANN}:\ntty:x:5:\nwheel:x:4243:bob,ann\n' > /etc/group"
        );
        Self::by_script(&script).await
    }

    /// A helper that has what the lines of a shell have left it; mounts are its own.
    pub(crate) async fn by_script(lines: &str) -> Self {
        Self::apart(&["--mount"], lines).await
    }

    /// The same in these namespaces.
    pub(crate) async fn apart(namespaces: &[&str], lines: &str) -> Self {
        let (mine, its) = pair();
        let mut command = Command::new("unshare");
        command.args(namespaces);
        command.args(["sh", "-c", &format!("{lines}\nexec {PROGRAM} serve -")]);
        Self::by(command, mine, its, |_command| {}).await
    }

    async fn by(
        mut command: Command,
        mine: OwnedFd,
        its: OwnedFd,
        prepare: impl FnOnce(&mut Command),
    ) -> Self {
        command.stdin(Stdio::from(its)).kill_on_drop(true);
        prepare(&mut command);
        let helper = command.spawn().unwrap();
        drop(command);
        let edge = Self { wire: Wire::new(mine).unwrap(), helper, next: 0 };
        assert_eq!(edge.hear().await, FromHelper::Ready { version: VERSION });
        edge
    }

    pub(crate) fn id(&mut self) -> Id {
        self.next += 2;
        self.next
    }

    /// The number that the next thing will have.
    pub(crate) fn next_id(&self) -> Id {
        self.next + 2
    }

    pub(crate) async fn say(&self, message: &ToHelper, fds: &[OwnedFd]) {
        let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
        self.wire.send(message, &fds).await.unwrap();
    }

    pub(crate) async fn hear(&self) -> FromHelper {
        let heard = timeout(PATIENCE, self.wire.receive::<FromHelper>()).await;
        let (message, fds) = heard.expect("the helper says something").unwrap();
        assert!(fds.is_empty());
        message
    }

    /// Waits for the end of the connection, and of the helper.
    pub(crate) async fn gone(mut self) -> std::process::ExitStatus {
        let heard = timeout(PATIENCE, self.wire.receive::<FromHelper>()).await.unwrap();
        assert!(matches!(heard, Err(WireError::Closed)), "{heard:?}");
        timeout(PATIENCE, self.helper.wait()).await.unwrap().unwrap()
    }

    /// Starts a process without a terminal, whose ends of pipes are returned.
    pub(crate) async fn start(&mut self, process: Process) -> (Id, Pipes) {
        let id = self.id();
        let (input, output, errors) = (pipe(), pipe(), pipe());
        self.say(&ToHelper::Start { id, process }, &[input.0, output.1, errors.1]).await;
        assert_eq!(self.hear().await, FromHelper::Started { id });
        (id, Pipes { input: input.1.into(), output: output.0.into(), errors: errors.0.into() })
    }

    /// Starts a process with a terminal.
    pub(crate) async fn start_at(&mut self, process: Process) -> (Id, UnixStream) {
        assert!(process.terminal.is_some());
        let id = self.id();
        let (mine, its) = UnixStream::pair().unwrap();
        // One socket in the place of two pipes.
        let both = [its.try_clone().unwrap().into(), its.into()];
        self.say(&ToHelper::Start { id, process }, &both).await;
        drop(both);
        assert_eq!(self.hear().await, FromHelper::Started { id });
        mine.set_read_timeout(Some(PATIENCE)).unwrap();
        (id, mine)
    }

    /// Runs a command line to its end: what it wrote, and how it ended.
    pub(crate) async fn run(&mut self, line: &str, input: &[u8]) -> (String, String, Exit) {
        let (id, pipes) = self.start(command(line)).await;
        let (output, errors) = pipes.talk(input).await;
        let exit = self.exited(id).await;
        let text = |octets| String::from_utf8(octets).unwrap();
        (text(output), text(errors), exit)
    }

    pub(crate) async fn exited(&self, id: Id) -> Exit {
        let heard = self.hear().await;
        let FromHelper::Exited { id: of, exit } = heard else { panic!("{heard:?}") };
        assert_eq!(of, id);
        exit
    }
}

/// The edge's ends.
pub(crate) struct Pipes {
    pub(crate) input: File,
    pub(crate) output: File,
    pub(crate) errors: File,
}

impl Pipes {
    /// Writes all of the input and reads both outputs to their ends.
    pub(crate) async fn talk(self, input: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let Self { input: mut sink, output, errors } = self;
        let input = input.to_vec();
        let written = spawn_blocking(move || sink.write_all(&input));
        let output = spawn_blocking(|| read_all(output));
        let errors = spawn_blocking(|| read_all(errors));
        let both = async { (output.await.unwrap(), errors.await.unwrap()) };
        let both = timeout(PATIENCE, both).await.expect("both outputs end");
        // It need not read its input.
        drop(written.await.unwrap());
        both
    }
}

pub(crate) fn read_all(mut from: impl std::io::Read) -> Vec<u8> {
    let mut all = Vec::new();
    from.read_to_end(&mut all).unwrap();
    all
}

/// Reads until what was read contains this.
pub(crate) async fn read_until(stream: &UnixStream, end: &str) -> String {
    let (mut stream, end) = (stream.try_clone().unwrap(), end.to_owned());
    let read = move || {
        let mut all = Vec::new();
        let mut octets = [0; 4096];
        while !String::from_utf8_lossy(&all).contains(&end) {
            let read = stream.read(&mut octets).unwrap_or_else(|error| {
                panic!("{error} before {end:?} after {:?}", String::from_utf8_lossy(&all))
            });
            assert_ne!(read, 0, "an end before {end:?}: {:?}", String::from_utf8_lossy(&all));
            all.extend_from_slice(&octets[..read]);
        }
        String::from_utf8(all).unwrap()
    };
    spawn_blocking(read).await.unwrap()
}

pub(crate) fn pair() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
}

/// A pipe: where to read, where to write.
pub(crate) fn pipe() -> (OwnedFd, OwnedFd) {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap()
}

pub(crate) fn process(run: Run) -> Process {
    let (env, terminal) = (Vec::new(), None);
    let user = "root".to_owned();
    Process { user, is_strict: false, run, env, terminal, agent: false, connection: None }
}

pub(crate) fn command(line: &str) -> Process {
    process(Run::Command(line.as_bytes().to_vec()))
}

pub(crate) fn terminal(modes: Vec<(u8, u32)>) -> Terminal {
    let size = Size { columns: 101, rows: 37, width: 808, height: 592 };
    Terminal { term: "vt220".to_owned(), size, modes }
}

pub(crate) fn tcp(host: &str, port: u16) -> Target {
    Target::Tcp(host.to_owned(), port)
}
