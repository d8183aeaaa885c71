//! A front on loopback, keys, and clients.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use gantry_model::{
    ContainerId,
    ssh::{KeyFingerprint, SshPublicKey},
};
use gantry_ssh::{Door, DoorState, Doors, Front, Limits, NoWay, Ways};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tokio::{net::TcpListener, process::Command, sync::watch};
use tokio_util::sync::{CancellationToken, DropGuard};

/// No client takes longer.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) struct Bed {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) address: SocketAddr,
    pub(crate) doors: Arc<Table>,
    pub(crate) front: Arc<Front>,
    pub(crate) id: KeyFingerprint,
    pub(crate) shutdown: CancellationToken,
    _shutdown: DropGuard,
}

pub(crate) struct Table {
    doors: Mutex<HashMap<KeyFingerprint, Door>>,
    /// A look for this one is a defect.
    pub(crate) cursed: Mutex<Option<KeyFingerprint>>,
    /// How often somebody has looked for a key.
    pub(crate) looks: AtomicUsize,
    /// Whether the owner lets no address in.
    pub(crate) shuts_out: AtomicBool,
    changes: watch::Sender<u64>,
}

impl Table {
    pub(crate) fn set(&self, key: KeyFingerprint, door: Option<Door>) {
        let mut doors = self.doors.lock().unwrap();
        match door {
            Some(door) => doors.insert(key, door),
            None => doors.remove(&key),
        };
        drop(doors);
        self.changes.send_modify(|count| *count += 1);
    }
}

impl Doors for Table {
    fn find(&self, key: &KeyFingerprint) -> Option<Door> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        let is_cursed = self.cursed.lock().unwrap().as_ref() == Some(key);
        assert!(!is_cursed, "this test's own panic");
        self.doors.lock().unwrap().get(key).cloned()
    }

    fn admits(&self, _key: &KeyFingerprint, _address: IpAddr) -> bool {
        !self.shuts_out.load(Ordering::Relaxed)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

/// Helpers as plain processes of this machine.
pub(crate) struct Here;

#[async_trait]
impl Ways for Here {
    async fn open(&self, _container: ContainerId) -> Result<OwnedFd, NoWay> {
        let (ours, theirs) = pair();
        let mut child = quietly(&program())
            .args(["serve", "-"])
            .stdin(Stdio::from(theirs))
            .spawn()
            .expect("gantry-session is built: cargo build --workspace --bins");
        // It ends when its connection does.
        tokio::spawn(async move { child.wait().await });
        Ok(ours)
    }

    async fn wake(&self, _container: ContainerId) -> Result<(), NoWay> {
        Err(NoWay::NotRunning)
    }
}

/// The connection of an edge and a helper.
pub(crate) fn pair() -> (OwnedFd, OwnedFd) {
    let flags = SocketFlags::CLOEXEC;
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
}

/// A program whose shells read no `.bashrc` of this machine's root: what is in there may write, and disturb
/// itself where many begin at once.
pub(crate) fn quietly(program: &Path) -> Command {
    let mut command = Command::new("unshare");
    let quiet = "mount --bind /dev/null ~/.bashrc 2>/dev/null; exec \"$@\"";
    command.args(["--mount", "sh", "-c", quiet, "sh"]).arg(program);
    command
}

/// The helper, as the build made it beside this test.
fn program() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.ancestors().nth(2).unwrap().join("gantry-session")
}

pub(crate) fn door(state: DoorState) -> Door {
    Door {
        container: "0123456789abcdef01234567".parse().unwrap(),
        generation: 1,
        state,
        forwards: true,
    }
}

/// A new key, by these arguments for `ssh-keygen`.
pub(crate) fn key(dir: &Path, name: &str, args: &[&str]) -> KeyFingerprint {
    let mut make = std::process::Command::new("ssh-keygen");
    make.args(["-q", "-N", ""]).args(args).arg("-f").arg(dir.join(name));
    assert!(make.status().unwrap().success());
    fingerprint(&std::fs::read_to_string(dir.join(format!("{name}.pub"))).unwrap())
}

pub(crate) fn fingerprint(line: &str) -> KeyFingerprint {
    SshPublicKey::parse("key", line).unwrap().fingerprint()
}

impl Bed {
    /// A front, and a key `id` that opens a container.
    pub(crate) async fn new() -> Self {
        Self::limited(Limits::default()).await
    }

    pub(crate) async fn limited(limits: Limits) -> Self {
        Self::through(limits, Arc::new(Here)).await
    }

    /// With these ways into containers.
    pub(crate) async fn through(limits: Limits, ways: Arc<dyn Ways>) -> Self {
        Self::changed(ways, |front| front.limited(limits)).await
    }

    /// With another front.
    pub(crate) async fn changed(ways: Arc<dyn Ways>, change: impl FnOnce(Front) -> Front) -> Self {
        let (changes, _) = watch::channel(0);
        let doors = Arc::new(Table {
            doors: Mutex::default(),
            cursed: Mutex::default(),
            looks: AtomicUsize::new(0),
            shuts_out: AtomicBool::new(false),
            changes,
        });
        let shutdown = CancellationToken::new();
        let front = Front::new(&[7; 32], Arc::clone(&doors) as _, ways, None, &shutdown);
        let front = Arc::new(change(front));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let running = Arc::clone(&front);
        tokio::spawn(async move { running.run(listener).await });
        let dir = tempfile::tempdir().unwrap();
        let known = format!("[127.0.0.1]:{} {}\n", address.port(), front.host_key());
        std::fs::write(dir.path().join("known_hosts"), known).unwrap();
        let id = key(dir.path(), "id", &["-t", "ed25519"]);
        doors.set(id, Some(door(DoorState::Open)));
        Self { dir, address, doors, front, id, _shutdown: shutdown.clone().drop_guard(), shutdown }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A new key in a file of this name.
    pub(crate) fn key(&self, name: &str, kind: &str) -> KeyFingerprint {
        key(self.dir.path(), name, &["-t", kind])
    }

    /// `ssh` with these options and arguments, by the key `id`.
    pub(crate) fn ssh(&self, args: &[&str]) -> Command {
        self.client("ssh", "-p", &self.path("id"), &[args, &["root@127.0.0.1"]].concat())
    }

    /// `ssh … root@host command`.
    pub(crate) fn run(&self, command: &str) -> Command {
        let mut ssh = self.ssh(&[]);
        ssh.arg(command);
        ssh
    }

    pub(crate) fn client(&self, program: &str, port: &str, key: &Path, args: &[&str]) -> Command {
        let mut client = Command::new(program);
        client
            .args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"])
            .arg("-o")
            .arg(format!("UserKnownHostsFile={}", self.path("known_hosts").display()))
            .arg("-i")
            .arg(key)
            .args([port, &self.address.port().to_string()])
            .args(args)
            .env_remove("SSH_AUTH_SOCK")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        client
    }
}

/// Runs a client to its end, bounded.
pub(crate) async fn output(mut client: Command) -> Output {
    tokio::time::timeout(PATIENCE, client.output()).await.expect("it ends").unwrap()
}

/// What it wrote, if it ended well.
pub(crate) async fn text(client: Command) -> String {
    let output = output(client).await;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}
