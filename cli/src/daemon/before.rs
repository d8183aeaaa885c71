//! The side of the new process: it is started by a running one, which it follows.

use std::{
    env,
    fs::File,
    io,
    net::SocketAddr,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::Path,
    process::{Child, Command, ExitCode},
    time::Duration,
};

use anyhow::Context as _;
use gantry_proxy::{QuicSockets, Sockets};
use gantry_runtime::Bequest;
use gantry_store::Holder;
use rustix::stdio::dup2_stdin;

use super::{
    link::{self, Link, Message, Offer, PROTOCOL},
    lock::Lock,
};
use crate::{exit::Failure, output};

/// Where a new process finds the running one; set by that one alone.
pub(super) const DOOR: &str = "GANTRY_HANDOVER_SOCKET";
/// Set for a process that has to start another one like itself and to end: that one is then nobody's child
/// but init's, as a service manager wants its main process to be.
pub(super) const PASS_ON: &str = "GANTRY_HANDOVER_PASS_ON";

/// How long the running process may take to offer what it has: it ends what it has under way first.
const OFFER_TIMEOUT: Duration = Duration::from_mins(2);

/// The process that runs, whose place this one is to take.
#[derive(Debug)]
pub(crate) struct Before(OwnedFd);

/// What it gave.
pub(super) struct Inheritance {
    /// The process that gave it.
    pub(super) giver: Option<Giver>,
    pub(super) lock: Lock,
    /// What it listens on.
    pub(super) sockets: Sockets,
    /// What its servers' runtimes share, by the servers' names.
    pub(super) runtimes: Vec<(String, Bequest)>,
}

/// The process that runs.
pub(super) struct Giver {
    /// The link to it, for as long as it lives.
    pub(super) link: Link,
    pub(super) pid: u32,
    /// Its name in the store.
    pub(super) process: Holder,
}

/// The first thing of a process: one that only passes on does so; its exit code is returned.
pub(crate) fn pass_on() -> Option<ExitCode> {
    env::var_os(PASS_ON)?;
    match start_another() {
        Ok(_child) => Some(ExitCode::SUCCESS),
        Err(error) => {
            output::note(&format!("error: cannot start the new process: {error}"));
            Some(ExitCode::FAILURE)
        }
    }
}

/// Starts this program once more, with the link to the running process as its standard input: whenever the
/// new process ends, even before its first step, the link ends with it.
fn start_another() -> io::Result<Child> {
    let door = env::var_os(DOOR).ok_or_else(|| io::Error::other(format!("{DOOR} is not set")))?;
    let socket = link::knock(Path::new(&door))?;
    let mut arguments = env::args_os();
    let name = arguments.next().unwrap_or_default();
    let mut command = Command::new(env::current_exe()?);
    command.arg0(name).args(arguments).env_remove(PASS_ON).stdin(socket).spawn()
}

impl Before {
    /// The running process, if it has started this one.
    pub(crate) fn find() -> anyhow::Result<Option<Self>> {
        if env::var_os(DOOR).is_none() {
            return Ok(None);
        }
        let take = || -> io::Result<OwnedFd> {
            let socket = io::stdin().as_fd().try_clone_to_owned()?;
            dup2_stdin(File::open("/dev/null")?)?;
            Ok(socket)
        };
        Ok(Some(Self(take().context("cannot reach the process that has started this one")?)))
    }

    /// Runs what may fail, and tells the running process if it does.
    pub(super) fn telling(
        before: Option<Self>,
        run: impl FnOnce(Option<Self>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let told = before.as_ref().map(|before| before.0.try_clone());
        let told = told.transpose().context("cannot go on with a descriptor")?;
        let result = run(before);
        if let (Err(failure), Some(told)) = (&result, told) {
            let why = failure.to_string();
            let why = why.strip_prefix("error: ").unwrap_or(&why).to_owned();
            // One that has gone needs no word, and one that has been followed pays no attention.
            drop(link::say(&told, &Message::Failed { why }));
        }
        result
    }

    /// Says that the configuration is good and to which schema the store would be brought, and takes what the
    /// running process has.
    pub(super) async fn take(self, schema: (i64, i64)) -> anyhow::Result<Inheritance> {
        let link = Link::adopt(self.0)?;
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let pid = std::process::id();
        link.send(&Message::Checked { protocol: PROTOCOL, pid, version, schema }).await?;
        let offered = tokio::time::timeout(OFFER_TIMEOUT, link.take_offer()).await;
        let (offer, fds) = offered.context("the running process offers nothing")??;
        sort(link, offer, fds).context("the running process offers too little")
    }
}

/// Puts together what came as a row of descriptors.
fn sort(link: Link, offer: Offer, fds: Vec<OwnedFd>) -> Option<Inheritance> {
    let mut fds = fds.into_iter();
    let lock = Lock::shared(fds.next()?);
    let mut sockets = Sockets::default();
    for _ in 0..offer.listeners {
        sockets.tcp.push(fds.next()?.into());
    }
    for (bank, count) in offer.quic {
        let of_address: Vec<_> = fds.by_ref().take(count).map(Into::into).collect();
        sockets.quic.push(QuicSockets { bank, sockets: of_address });
    }
    let mut runtimes = Vec::new();
    for (name, parts) in offer.runtimes {
        runtimes.push((name, Bequest::from_parts(parts, &mut fds)?));
    }
    let giver = Some(Giver { link, pid: offer.pid, process: offer.process });
    Some(Inheritance { giver, lock, sockets, runtimes })
}

impl Inheritance {
    /// That of a process that follows none.
    pub(super) fn none(lock: Lock) -> Self {
        Self { giver: None, lock, sockets: Sockets::default(), runtimes: Vec::new() }
    }

    /// Whether somebody listens on this address who gave it to us.
    pub(super) fn has(&self, address: SocketAddr) -> bool {
        let at = |socket: &std::net::TcpListener| socket.local_addr().is_ok_and(|at| at == address);
        self.sockets.tcp.iter().any(at)
    }

    /// What the runtime of a server shares.
    pub(super) fn runtime(&mut self, server: &str) -> Option<Bequest> {
        let at = self.runtimes.iter().position(|(name, _)| name == server)?;
        Some(self.runtimes.swap_remove(at).1)
    }
}
