//! The side of the running process: it starts the one that is to follow it, and gives it what it has.

use std::{
    env,
    ffi::OsString,
    os::{fd::OwnedFd, unix::process::CommandExt as _},
    path::{Path, PathBuf},
    process::Stdio,
    sync::OnceLock,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use gantry_proxy::Sockets;
use gantry_runtime::Bequest;
use gantry_store::Holder;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{process::Command, time::timeout};

use super::{
    before::{DOOR, PASS_ON},
    link::{Door, Link, Message, Offer, PROTOCOL},
};

/// How long the new process may take until it has read its configuration.
const CHECK_TIMEOUT: Duration = Duration::from_mins(1);
/// How long it may take to begin.
const SERVING_TIMEOUT: Duration = Duration::from_secs(30);
/// How long it may take until it could begin: it may have to bring the store to a newer schema.
const READY_TIMEOUT: Duration = Duration::from_mins(10);

/// The program that follows, and how it is started.
#[derive(Debug)]
pub(super) struct Program {
    path: PathBuf,
    name: OsString,
    arguments: Vec<OsString>,
}

/// As this process was started; known from the beginning, since the file may be another one later.
static PROGRAM: OnceLock<Program> = OnceLock::new();

/// Notes how this process was started.
pub(super) fn remember() -> std::io::Result<()> {
    let mut arguments = env::args_os();
    let name = arguments.next().unwrap_or_default();
    // By the name that it was called by: behind a link there may be another file by then.
    let path = match Path::new(&name).components().count() {
        0 | 1 => env::current_exe()?,
        _ => std::path::absolute(&name)?,
    };
    PROGRAM.get_or_init(|| Program { path, name, arguments: arguments.collect() });
    Ok(())
}

/// A process that has started and knows its configuration.
#[derive(Debug)]
pub(super) struct Next {
    link: Link,
    pid: u32,
    version: String,
    /// The store's schema, and that to which it brings it.
    schema: (i64, i64),
    /// Whether it has been given everything.
    begun: bool,
}

impl Drop for Next {
    fn drop(&mut self) {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        if let (Some(pid), false) = (pid, self.begun)
            && let Err(error) = kill_process(pid, Signal::KILL)
        {
            tracing::debug!(%error, "the new process had ended");
        }
    }
}

/// What a process has to give.
#[derive(Debug)]
pub(super) struct Estate {
    /// This process's name in the store.
    pub(super) process: Holder,
    pub(super) lock: OwnedFd,
    pub(super) sockets: Sockets,
    pub(super) runtimes: Vec<(String, Bequest)>,
}

/// Starts the program that is now where this one was, and waits until it has read its configuration.
pub(super) async fn start(door: PathBuf) -> anyhow::Result<Next> {
    let program = PROGRAM.get().context("it is not known how this process was started")?;
    let what = program.path.display();
    let door_path = door.clone();
    let door = Door::open(door).context("cannot open a socket in the state directory")?;
    let mut command = std::process::Command::new(&program.path);
    command.arg0(&program.name).args(&program.arguments);
    command.env(DOOR, door_path).env(PASS_ON, "1").stdin(Stdio::null());
    let status = Command::from(command).kill_on_drop(true).status();
    let status = timeout(CHECK_TIMEOUT, status).await.with_context(|| format!("{what} hangs"))?;
    let status = status.with_context(|| format!("cannot run {what}"))?;
    ensure!(status.success(), "{what} ended: {status}");
    let checked = async {
        let link = door.let_in().await.context("nobody has come to the socket")?;
        let message = link.receive().await;
        anyhow::Ok((link, message))
    };
    let checked = timeout(CHECK_TIMEOUT, checked).await;
    let (link, message) = checked.with_context(|| format!("{what} says nothing"))??;
    match message.with_context(|| format!("{what} is not understood"))? {
        Some(Message::Checked { protocol, pid, version, schema }) => {
            let next = Next { link, pid, version, schema, begun: false };
            ensure!(
                protocol == PROTOCOL,
                "{what} (version {}) cannot take over from this version; restart Gantry",
                next.version
            );
            Ok(next)
        }
        Some(Message::Failed { why }) => bail!("{why}"),
        Some(other) => bail!("{what} says {other:?}"),
        None => bail!("{what} has ended before it had read its configuration; its log says why"),
    }
}

impl Next {
    pub(super) const fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// The store's schema as it found it, and that to which it brings it.
    pub(super) const fn schema(&self) -> (i64, i64) {
        self.schema
    }

    /// Gives it everything, and waits until it could begin.
    pub(super) async fn prepare(&self, estate: Estate) -> anyhow::Result<()> {
        let Estate { process, lock, sockets, runtimes } = estate;
        let (pid, listeners) = (std::process::id(), sockets.tcp.len());
        let mut offer = Offer { pid, process, listeners, ..Offer::default() };
        let mut fds = vec![lock];
        fds.extend(sockets.tcp.into_iter().map(OwnedFd::from));
        for group in sockets.quic {
            offer.quic.push((group.bank, group.sockets.len()));
            fds.extend(group.sockets.into_iter().map(OwnedFd::from));
        }
        for (name, bequest) in runtimes {
            let (parts, of_runtime) = bequest.into_parts();
            offer.runtimes.push((name, parts));
            fds.extend(of_runtime);
        }
        let gone = "the new process has ended before it was ready";
        self.link.offer(offer, &fds).await.context(gone)?;
        drop(fds);
        match timeout(READY_TIMEOUT, self.link.receive()).await {
            Ok(Ok(Some(Message::Ready))) => Ok(()),
            Ok(Ok(Some(Message::Failed { why }))) => bail!("{why}"),
            Ok(Ok(Some(other))) => bail!("the new process says {other:?}"),
            Ok(Ok(None)) => bail!("{gone}; its log says why"),
            Ok(Err(error)) => Err(error).context("the new process is not understood"),
            Err(_elapsed) => bail!("the new process is not ready in time"),
        }
    }

    /// Has it begin, and waits until it serves: from there on it is the one that runs.
    pub(super) async fn begin(mut self) -> anyhow::Result<Link> {
        let gone = "the new process has ended before it served";
        self.link.send(&Message::Begin).await.context(gone)?;
        match timeout(SERVING_TIMEOUT, self.link.receive()).await {
            Ok(Ok(Some(Message::Serving))) => self.begun = true,
            Ok(Ok(Some(Message::Failed { why }))) => bail!("{why}"),
            Ok(Ok(Some(other))) => bail!("the new process says {other:?}"),
            Ok(Ok(None)) => bail!("{gone}; its log says why"),
            Ok(Err(error)) => return Err(error).context("the new process is not understood"),
            Err(_elapsed) => bail!("the new process does not serve in time"),
        }
        let socket = self.link.share()?;
        Ok(Link::adopt(socket)?)
    }
}
