//! Debian's sshd beside the front, for the same user and key.

use std::{
    fmt::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use tokio::{io::AsyncWriteExt as _, net::TcpListener, process::Command};

use crate::bed::{Bed, PATIENCE};

/// Variables are those that the front lets in, and what PAM would say is not asked for.
const CONFIGURATION: &str = "\
    UsePAM no\n\
    StrictModes no\n\
    PermitRootLogin prohibit-password\n\
    AcceptEnv LANG LC_* COLORTERM TERM_PROGRAM*\n\
    Subsystem sftp internal-sftp\n\
    PrintLastLog no\n\
    MaxSessions 100\n";

/// The front and an sshd.
pub(crate) struct Beside {
    pub(crate) bed: Bed,
    /// Below root's home.
    pub(crate) home: tempfile::TempDir,
    pub(crate) sshd: SocketAddr,
    accepting: tokio::task::JoinHandle<()>,
}

/// What a client shall do at both: its options, its variables, its input and the command.
#[derive(Default)]
pub(crate) struct Case<'a> {
    pub(crate) options: &'a [&'a str],
    pub(crate) env: &'a [(&'a str, &'a [u8])],
    pub(crate) input: &'a [u8],
    pub(crate) command: &'a [u8],
}

impl Beside {
    pub(crate) async fn new() -> Self {
        let bed = Bed::new().await;
        // Where the package has not been started, this is missing.
        std::fs::create_dir_all("/run/sshd").unwrap();
        bed.key("host", "ed25519");
        let mut lines = CONFIGURATION.to_owned();
        for (name, path) in [("HostKey", "host"), ("AuthorizedKeysFile", "id.pub")] {
            writeln!(lines, "{name} {}", bed.path(path).display()).unwrap();
        }
        std::fs::write(bed.path("sshd_config"), lines).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sshd = listener.local_addr().unwrap();
        let accepting = tokio::spawn(accept(listener, bed.path("")));

        let host = std::fs::read_to_string(bed.path("host.pub")).unwrap();
        let mut known = std::fs::read_to_string(bed.path("known_hosts")).unwrap();
        write!(known, "[127.0.0.1]:{} {host}", sshd.port()).unwrap();
        std::fs::write(bed.path("known_hosts"), known).unwrap();
        let home = tempfile::Builder::new().prefix("gantry-peers").tempdir_in("/root").unwrap();
        let beside = Self { bed, home, sshd, accepting };
        std::fs::write(beside.bed.path("config"), beside.configuration()).unwrap();
        beside
    }

    /// For OpenSSH's programs: the hosts `gantry` and `sshd`.
    fn configuration(&self) -> String {
        let of = |name: &str, address: SocketAddr| {
            format!(
                "Host {name}\n  HostName 127.0.0.1\n  Port {}\n  User root\n  BatchMode yes\n  \
                 IdentitiesOnly yes\n  IdentityFile {}\n  UserKnownHostsFile {}\n",
                address.port(),
                self.bed.path("id").display(),
                self.bed.path("known_hosts").display(),
            )
        };
        // As sessions are short, the cheapest key exchange.
        let all = "Host *\n  KexAlgorithms curve25519-sha256\n  LogLevel ERROR\n";
        [of("gantry", self.bed.address), of("sshd", self.sshd), all.to_owned()].concat()
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.bed.path("config")
    }

    /// OpenSSH's client for `gantry` or `sshd`.
    pub(crate) fn ssh(&self, host: &str, options: &[&str]) -> Command {
        let mut ssh = Command::new("ssh");
        ssh.arg("-F").arg(self.config()).args(options).arg(host);
        ssh.env_remove("SSH_AUTH_SOCK").stdin(Stdio::null()).kill_on_drop(true);
        ssh
    }

    /// A case at one of them.
    pub(crate) async fn at(&self, host: &str, case: &Case<'_>) -> Output {
        let mut ssh = self.ssh(host, case.options);
        ssh.env_remove("LANG").envs(case.env.iter().map(|(name, value)| (*name, os(value))));
        if !case.command.is_empty() {
            ssh.arg(os(case.command));
        }
        feed(ssh, case.input).await
    }

    /// A case at both: what the front did, and what sshd did.
    pub(crate) async fn both(&self, case: &Case<'_>) -> [Output; 2] {
        let (ours, theirs) = tokio::join!(self.at("gantry", case), self.at("sshd", case));
        [ours, theirs]
    }

    /// What `/usr/bin/python3` or the one with libraries says, running a script of ours for a host.
    pub(crate) async fn script(&self, python: &Path, name: &str, host: &str) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign").join(name);
        let address = if host == "sshd" { self.sshd } else { self.bed.address };
        let mut python = Command::new(python);
        python.arg("-B").arg(script).arg(host).arg(address.port().to_string());
        python.arg(self.bed.path("")).env_remove("SSH_AUTH_SOCK").kill_on_drop(true);
        let ended = feed(python, b"").await;
        let errors = String::from_utf8_lossy(&ended.stderr);
        let said = String::from_utf8_lossy(&ended.stdout).into_owned();
        assert!(ended.status.success(), "{name} {host}: {said}{errors}");
        said
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// One sshd for each connection, as from inetd: so there is no port to be guessed.
async fn accept(listener: TcpListener, dir: PathBuf) {
    let mut running = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let stream = stream.into_std().unwrap();
        stream.set_nonblocking(false).unwrap();
        let socket = std::os::fd::OwnedFd::from(stream);
        let mut sshd = crate::bed::quietly(Path::new("/usr/sbin/sshd"));
        sshd.arg("-i").arg("-f").arg(dir.join("sshd_config")).arg("-E").arg(dir.join("sshd.log"));
        sshd.stdin(Stdio::from(socket.try_clone().unwrap())).stdout(Stdio::from(socket));
        let mut child = sshd.kill_on_drop(true).spawn().expect("package openssh-server");
        running.spawn(async move { child.wait().await });
    }
}

/// Runs a program with this input to its end, bounded. It need not read all of it.
pub(crate) async fn feed(mut program: Command, input: &[u8]) -> Output {
    let mut child = program
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // What does not read all of it closes the pipe.
    let feeding = tokio::spawn(async move { drop(stdin.write_all(&input).await) });
    let ended = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    feeding.abort();
    ended.expect("it ends").unwrap()
}

pub(crate) fn os(octets: &[u8]) -> &std::ffi::OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(octets)
}
