//! The words of the port: orders in, observations out. Nothing here belongs to one backend.

use std::{
    collections::BTreeMap,
    fmt, io,
    net::IpAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use gantry_model::{
    ContainerId, ProjectId, ShareId, SnapshotId,
    container::ImageName,
    firewall::Rules,
    outbound::{Credentials, Endpoint},
    share::{ShareMode, SharePath},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::oneshot,
};

use crate::{Error, Result};

/// Which set of services an image carries beside the operating system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kit {
    /// The operating system alone.
    None,
    /// The Kit services.
    Base,
    /// The Kit services and the developer's ones.
    Dev,
}

/// What a container shall be, as far as a runtime cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Its id; the runtime's own names derive from it.
    pub id: ContainerId,
    /// The name that the container sees as its own: at most 63 of `a-z0-9-`.
    pub hostname: String,
    /// The image that its file system starts from; read at creation only.
    pub image: ImageName,
    /// The services in the image; read at creation only.
    pub kit: Kit,
    /// Whether an image built earlier may be used; `false` builds it anew.
    pub cache: bool,
    /// The environment of every process in it.
    pub env: BTreeMap<String, String>,
    /// Whether `/ramdisk` is mounted: memory that survives a stop, not a reboot of the host.
    pub ramdisk: bool,
    /// The project whose containers share `/ramdisk/project` with it, if it shares any; needs `ramdisk`.
    pub project_ramdisk: Option<ProjectId>,
    /// Whether it has the host's `/dev/kvm`; what does not offer it starts no such container.
    pub kvm: bool,
    /// What it may use at most.
    pub limits: Limits,
    /// Which connections it may have.
    pub firewall: Firewall,
    /// How what it begins leaves the host.
    pub outbound: Outbound,
}

/// The firewall rules of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Firewall {
    /// Which they are: it rises with each change, and a runtime that has had rules of a higher version
    /// ignores them. 0 for a container that never had any.
    pub version: u64,
    /// The rules.
    pub rules: Rules,
}

/// How what a container begins leaves the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outbound {
    /// Which it is: it rises with each change, and a runtime that has had a higher version ignores it.
    /// 0 for a container that never had one.
    pub version: u64,
    /// The way.
    pub way: Way,
}

/// A way out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// That of the host, as far as the firewall rules allow.
    #[default]
    Direct,
    /// None: only what answers a connection to the container leaves it.
    Blocked,
    /// TCP, and questions for names, through this proxy; nothing else leaves it.
    Through(Proxy),
}

/// A proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// Where it is.
    pub endpoint: Endpoint,
    /// What it wants to hear.
    pub credentials: Option<Credentials>,
    /// Who is asked for names, through it.
    pub dns_servers: Vec<IpAddr>,
}

/// What is in force of the outbound network of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enforced {
    /// Of which version it is.
    pub version: u64,
    /// Why its proxy could not be used the last time; nothing of it is secret.
    pub fault: Option<String>,
}

/// A directory of one container that another sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Its id.
    pub id: ShareId,
    /// What it is called below `/hoody/shares`: no other share of the same container has that name.
    pub name: String,
    /// The container whose directory it is.
    pub source: ContainerId,
    /// The directory.
    pub path: SharePath,
    /// What may be done with it.
    pub mode: ShareMode,
}

/// Why a share is not where it should be, as a sentence for its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShareFault {
    /// Its source does not run.
    #[error("the source container is not running")]
    SourceNotRunning,
    /// There is no such directory.
    #[error("there is no directory at source_path in the source container")]
    NoDirectory,
    /// Something is mounted there, or on the way.
    #[error(
        "source_path leads to what is mounted in the source container, such as /tmp or /ramdisk; only \
         its own files can be shared"
    )]
    OtherFileSystem,
    /// The container has no place for shares.
    #[error("the container has no place for shares at /hoody/shares; restart it")]
    NoPlace,
    /// Something else; the operator's log says what.
    #[error("the server could not mount it")]
    Failed,
}

/// What a container may use at most; 0 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Memory, ramdisk included, in bytes.
    pub memory_bytes: u64,
    /// Processor time, in thousandths of one processor.
    pub cpu_millis: u32,
    /// Processes and threads.
    pub pids: u32,
}

/// A container that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    /// Where its services answer. Kept from creation to deletion, then given to another container.
    pub address: IpAddr,
}

/// What a container does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Made; its init has not started since, or is about to.
    Created,
    /// Its init runs.
    Running,
    /// Its init and all others are frozen.
    Paused,
    /// Its init has ended.
    Stopped,
}

/// A container as the runtime sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Its id.
    pub id: ContainerId,
    /// What it does.
    pub state: State,
    /// Its address, once it has one.
    pub address: Option<IpAddr>,
}

/// Who runs a command, in the container's own numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExecUser {
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
}

/// A command to be run inside a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    /// The program, found by the container's `PATH`, and its arguments.
    pub argv: Vec<String>,
    /// Variables beside (and over) those of the container.
    pub env: BTreeMap<String, String>,
    /// The directory that it starts in.
    pub cwd: String,
    /// Who runs it.
    pub user: ExecUser,
    /// What it reads before the end of input.
    pub stdin: Bytes,
    /// How long it may run.
    pub timeout: Duration,
    /// How much of each output stream is kept, in bytes; the rest is read and dropped.
    pub output_max: usize,
}

impl Exec {
    /// The command as root in `/`, without input, with 30 s and 1 MiB of each stream.
    pub fn new<I: IntoIterator<Item: Into<String>>>(argv: I) -> Self {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            env: BTreeMap::new(),
            cwd: "/".to_owned(),
            user: ExecUser::default(),
            stdin: Bytes::new(),
            timeout: Duration::from_secs(30),
            output_max: 1 << 20,
        }
    }

    /// Refuses what cannot be a command, whatever the container holds.
    pub(crate) fn check(&self) -> Result<()> {
        let fault = |message: &str| Err(Error::Command { message: message.to_owned() });
        let texts = self.argv.iter().chain(self.env.keys()).chain(self.env.values());
        if self.argv.first().is_none_or(String::is_empty) {
            fault("no program is named")
        } else if !self.cwd.starts_with('/') {
            fault("the directory must be absolute")
        } else if texts.chain([&self.cwd]).any(|text| text.contains('\0')) {
            fault("it contains NUL")
        } else {
            Ok(())
        }
    }
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// It returned this number.
    Code(u8),
    /// This signal killed it.
    Signal(u8),
}

impl ExitStatus {
    /// Whether it returned 0.
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }
}

/// What a command left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecOutput {
    /// How it ended.
    pub status: ExitStatus,
    /// The first `output_max` bytes of its standard output.
    pub stdout: Bytes,
    /// The first `output_max` bytes of its standard error.
    pub stderr: Bytes,
    /// Whether more was written than was kept.
    pub truncated: bool,
}

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PtySize {
    /// Characters in a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

/// The byte stream of a terminal.
pub trait PtyIo: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> PtyIo for T {}

/// What can be done to a terminal beside reading and writing.
pub trait PtyControl: Send + Sync {
    /// Tells the programs on it that it has a new size.
    fn resize(&self, size: PtySize) -> io::Result<()>;
}

/// A command that runs on a pseudo-terminal. Reads and writes are the terminal's; the end of
/// reading means that no process has it open any more. Dropping it hangs up.
pub struct Attached {
    io: Box<dyn PtyIo>,
    control: Box<dyn PtyControl>,
    exit: oneshot::Receiver<ExitStatus>,
}

impl Attached {
    /// Puts one together; `exit` tells how the command ended.
    pub fn new(
        io: impl PtyIo + 'static,
        control: impl PtyControl + 'static,
        exit: oneshot::Receiver<ExitStatus>,
    ) -> Self {
        Self { io: Box::new(io), control: Box::new(control), exit }
    }

    /// Tells the programs on the terminal that it has a new size.
    pub fn resize(&self, size: PtySize) -> io::Result<()> {
        self.control.resize(size)
    }

    /// Waits for the command's end. Read to the end first, or at the same time: a command that
    /// writes more than the terminal holds does not end. `None` when the runtime lost sight of it.
    /// Cancel-safe; after it has returned once, it returns `None`.
    pub async fn wait(&mut self) -> Option<ExitStatus> {
        (&mut self.exit).await.ok()
    }
}

impl fmt::Debug for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attached").finish_non_exhaustive()
    }
}

impl AsyncRead for Attached {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Attached {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// What a container has used since its init started. Zero where the host does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Processor time, in nanoseconds.
    pub cpu_ns: u64,
    /// Memory in use now, without page cache that can be dropped, in bytes.
    pub memory_bytes: u64,
    /// The most memory that was in use, page cache included, in bytes.
    pub memory_peak_bytes: u64,
    /// The most memory that it may use, in bytes.
    pub memory_limit_bytes: u64,
    /// Processes and threads now.
    pub pids: u64,
    /// The traffic of its network interface.
    pub network: Network,
    /// What it has written to its file system beside the image, in bytes on disk.
    pub disk_bytes: u64,
    /// What is in `/ramdisk`; absent where there is none.
    pub ramdisk: Option<RamdiskUse>,
}

/// What is in the ramdisk of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RamdiskUse {
    /// Bytes of its own.
    pub private_bytes: u64,
    /// What is in `/ramdisk/project`, if it shares one.
    pub project: Option<SharedUse>,
}

/// What is in a ramdisk that several containers share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SharedUse {
    /// Bytes of all of them.
    pub used_bytes: u64,
    /// The most that there may be.
    pub max_bytes: u64,
}

/// The counters of a network interface, in the container's sense of direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// Bytes received.
    pub received_bytes: u64,
    /// Packets received.
    pub received_packets: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Packets sent.
    pub sent_packets: u64,
}

/// An image that is offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageInfo {
    /// Its name.
    pub name: ImageName,
    /// The services in it.
    pub kit: Kit,
    /// Whether it is there for use without a build.
    pub cached: bool,
    /// What it takes on disk when it is there, in bytes.
    pub disk_bytes: Option<u64>,
}

/// What a file system is copied from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// A container, in whatever state.
    Container(ContainerId),
    /// A snapshot.
    Snapshot(SnapshotId),
}

/// A snapshot that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// Its id.
    pub id: SnapshotId,
    /// What its files take on disk beside the image, in bytes; as far as the file system shares
    /// blocks between files, less is really in use.
    pub bytes: u64,
}
