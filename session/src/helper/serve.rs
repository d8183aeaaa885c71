//! The helper: takes orders from the edge and has them carried out, each by a task of its own.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    ffi::OsString,
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    process::ExitCode,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use gantry_session::{
    protocol::{FromHelper, Id, Reason, Size, ToHelper, VERSION},
    wire::{Wire, WireError},
};
use rustix::{
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with},
    process::{Pid, Resource, Rlimit, WaitOptions, getrlimit, setrlimit, waitpid},
};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    task::{JoinSet, LocalSet},
    time::Instant,
};

use super::{
    connect, exit,
    listen::{self, Arrival},
    plain, process,
    relay::{self, Scratch, Stream},
    say, signals, terminal,
};

/// The most that is open at once: processes, connections and listeners.
const OPEN_MAX: usize = 4096;

/// The most listeners at once, of all connections to the edge and agents not counted: the edge grants each
/// connection a few.
const LISTENERS_MAX: usize = 500;

/// Connections on their way from listeners.
const ARRIVALS_MAX: usize = 16;

/// How many files the helper may have open, if its container lets it.
const FILES_MAX: u64 = 65_536;

/// How long it stays without anything open, if the command line does not say.
const IDLE: Duration = Duration::from_mins(1);

/// How long it waits at its own end for that of its processes.
const FAREWELL: Duration = Duration::from_secs(1);

/// Serves one edge to its end.
pub(super) fn main(arguments: Vec<OsString>) -> io::Result<ExitCode> {
    let mut arguments = arguments.into_iter();
    let socket = arguments.next().ok_or_else(|| usage("the socket is missing"))?;
    let idle = match arguments.next() {
        None => IDLE,
        Some(seconds) => seconds
            .to_str()
            .and_then(|seconds| seconds.parse().ok())
            .map(Duration::from_secs)
            .ok_or_else(|| usage("the time without anything open is no number of seconds"))?,
    };
    close_inherited()?;
    let socket = if socket == "-" {
        io::stdin().as_fd().try_clone_to_owned()?
    } else {
        call(Path::new(&socket))?
    };
    let files = raise_files()?;
    std::env::set_current_dir("/")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        signals::catch_ignored()?;
        let wire = Wire::new(socket)?;
        let (arrivals, arrived) = mpsc::channel(ARRIVALS_MAX);
        serve(&Rc::new(Shared::new(wire, files, arrivals)), arrived, idle).await;
        Ok(ExitCode::SUCCESS)
    })
}

fn usage(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{what}: serve SOCKET [SECONDS]"))
}

fn call(path: &Path) -> io::Result<OwnedFd> {
    let socket =
        socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// Closes what whoever started the helper left open beyond the three standard descriptors, so that no
/// session has it. Nothing else is open yet.
fn close_inherited() -> io::Result<()> {
    // Without /proc nobody says what is open; the runtime leaves nothing.
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return Ok(()) };
    let mut open = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        open.extend(name.to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    for fd in open.into_iter().filter(|fd| *fd > 2) {
        match nix::unistd::close(fd) {
            // The one by which the list was read is closed already.
            Ok(()) | Err(nix::Error::EBADF) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Raises the limit of open files, and returns what it was.
fn raise_files() -> io::Result<(Option<u64>, Option<u64>)> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.unwrap_or(FILES_MAX).min(FILES_MAX);
    if current.is_some_and(|current| current < wanted) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum })?;
    }
    Ok((current, maximum))
}

/// Why something could not begin.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) reason: Reason,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn failed(message: String) -> Self {
        Self { reason: Reason::Failed, message }
    }

    pub(super) fn shortage(message: &str) -> Self {
        Self { reason: Reason::Shortage, message: message.to_owned() }
    }

    pub(super) fn descriptors() -> Self {
        Self::failed("another number of descriptors came with it than it needs".to_owned())
    }

    /// What kind of failure an error of the system is.
    pub(super) fn reason(error: Errno) -> Reason {
        match error {
            Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::NOSPC => {
                Reason::Shortage
            }
            Errno::ACCESS | Errno::PERM => Reason::Prohibited,
            _ => Reason::Failed,
        }
    }

    pub(super) fn io(what: &str, error: &io::Error) -> Self {
        let reason = Errno::from_io_error(error).map_or(Reason::Failed, Self::reason);
        Self { reason, message: format!("{what}: {}", plain(error)) }
    }
}

/// What an open thing is, as far as the edge's orders concern it.
#[derive(Debug)]
pub(super) enum Kind {
    /// A process that runs.
    Process { pid: Pid, master: Option<Stream> },
    /// An accepted connection that waits to be taken.
    Offered(oneshot::Sender<Vec<OwnedFd>>),
    /// Something that can only be ended.
    Other,
}

#[derive(Debug)]
struct Open {
    kind: Kind,
    ended: Rc<Notify>,
}

/// What all tasks have.
#[derive(Debug)]
pub(super) struct Shared {
    wire: Wire,
    open: RefCell<HashMap<Id, Open>>,
    scratch: Scratch,
    program: PathBuf,
    files: (Option<u64>, Option<u64>),
    /// Connections on their way to whoever takes orders.
    arrivals: mpsc::Sender<Arrival>,
    listeners: Arc<Semaphore>,
    next: Cell<Id>,
}

impl Shared {
    fn new(wire: Wire, files: (Option<u64>, Option<u64>), arrivals: mpsc::Sender<Arrival>) -> Self {
        let itself = Path::new("/proc/self/exe");
        // Without /proc, by the name that it was called by.
        let program = if itself.exists() {
            itself.to_owned()
        } else {
            std::env::args_os().next().unwrap_or_default().into()
        };
        let (open, scratch) = (RefCell::default(), relay::scratch());
        let (listeners, next) = (Arc::new(Semaphore::new(LISTENERS_MAX)), Cell::new(1));
        Self { wire, open, scratch, program, files, arrivals, listeners, next }
    }

    /// A place among the listeners.
    pub(super) fn listener(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        Arc::clone(&self.listeners)
            .try_acquire_owned()
            .map_err(|_error| Refusal::shortage("too many listeners in this container"))
    }

    /// Hands a connection on that has come.
    pub(super) async fn arrived(&self, arrival: Arrival) {
        // It is lost only with the helper.
        drop(self.arrivals.send(arrival).await);
    }

    /// What is executed for a process.
    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    /// The limits of open files that it was started with.
    pub(super) fn files(&self) -> (Option<u64>, Option<u64>) {
        self.files
    }

    pub(super) fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// Says something to the edge. If that has gone, whoever waits for its orders hears so.
    pub(super) async fn tell(&self, message: &FromHelper) {
        if let Err(error) = self.wire.send(message, &[]).await {
            say(&format!("gantry-session: an answer is lost: {error}"));
        }
    }

    /// Notes something that begins, under a number that is free.
    fn begin(&self, id: Id) -> Result<(), Refusal> {
        let mut open = self.open.borrow_mut();
        if open.contains_key(&id) {
            return Err(Refusal::failed("its number is in use".to_owned()));
        }
        if open.len() >= OPEN_MAX {
            return Err(Refusal::shortage("too much is open in this container"));
        }
        open.insert(id, Open { kind: Kind::Other, ended: Rc::default() });
        Ok(())
    }

    /// Notes what it is now; returns what tells that it is to end, or nothing if that has happened.
    pub(super) fn becomes(&self, id: Id, kind: Kind) -> Option<Rc<Notify>> {
        let mut open = self.open.borrow_mut();
        let found = open.get_mut(&id)?;
        found.kind = kind;
        Some(Rc::clone(&found.ended))
    }

    fn end(&self, id: Id) {
        let found = self.open.borrow_mut().remove(&id);
        if let Some(open) = found {
            open.ended.notify_one();
        }
    }

    /// What happens to processes without a terminal when the edge has gone; those with one are hung up by
    /// the kernel, when the helper's end of it is closed.
    fn hang_up_all(&self) {
        for open in self.open.take().into_values() {
            if let Kind::Process { pid, master: None } = open.kind {
                process::hang_up(pid);
            }
        }
    }

    fn resize(&self, id: Id, size: Size) {
        if let Some(Kind::Process { master: Some(master), .. }) =
            self.open.borrow().get(&id).map(|open| &open.kind)
            && let Err(error) = terminal::resize(master.get_ref(), size)
        {
            say(&format!("gantry-session: a terminal's size: {error}"));
        }
    }

    /// Gives an accepted connection its stream; what nobody waits for is closed.
    fn take(&self, id: Id, fds: Vec<OwnedFd>) {
        let mut open = self.open.borrow_mut();
        let Some(found) = open.get_mut(&id) else { return };
        if let Kind::Offered(take) = std::mem::replace(&mut found.kind, Kind::Other) {
            // Nobody waits if its time is over.
            drop(take.send(fds));
        }
    }

    fn signal(&self, id: Id, name: &str) {
        if let Some(Kind::Process { pid, master }) =
            self.open.borrow().get(&id).map(|open| &open.kind)
            && let Some(signal) = exit::signal(name)
        {
            process::signal(*pid, master.as_ref(), signal);
        }
    }
}

/// Takes orders until the edge goes, or nothing has been open for so long.
async fn serve(shared: &Rc<Shared>, mut arrived: mpsc::Receiver<Arrival>, idle: Duration) {
    shared.tell(&FromHelper::Ready { version: VERSION }).await;
    let mut tasks = JoinSet::new();
    let mut quiet_since = Some(Instant::now());
    loop {
        let leave_at = quiet_since.map(|since| since + idle);
        tokio::select! {
            received = shared.wire.receive::<ToHelper>() => match received {
                Ok((message, fds)) => take(shared, &mut tasks, message, fds),
                Err(WireError::Closed) => break,
                Err(error) => {
                    say(&format!("gantry-session: {error}"));
                    break;
                }
            },
            // Where there is no room, it is closed.
            Some(arrival) = arrived.recv() => if shared.open.borrow().len() < OPEN_MAX {
                let id = shared.next.replace(shared.next.get() + 2);
                begin(shared, &mut tasks, id, async move |shared: &Rc<Shared>| {
                    listen::offer(shared, id, arrival).await
                });
            },
            Some(ended) = tasks.join_next() => if let Err(error) = ended {
                say(&format!("gantry-session: a session's task: {error}"));
            },
            () = tokio::time::sleep_until(leave_at.unwrap_or_else(Instant::now)), if leave_at.is_some() => break,
        }
        quiet_since = tasks.is_empty().then(|| quiet_since.unwrap_or_else(Instant::now));
    }
    shared.hang_up_all();
    // With the tasks go their ends of terminals and sockets.
    tasks.shutdown().await;
    reap().await;
}

/// Waits for what ends now, for a while: what is left becomes a child of the container's first process, and
/// that may be one that looks after no children.
async fn reap() {
    let until = Instant::now() + FAREWELL;
    while Instant::now() < until {
        match waitpid(None, WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) => tokio::time::sleep(FAREWELL / 100).await,
            // There are none left.
            Err(_) => return,
        }
    }
}

/// Carries out an order, or has it carried out.
fn take(shared: &Rc<Shared>, tasks: &mut JoinSet<()>, message: ToHelper, fds: Vec<OwnedFd>) {
    match message {
        ToHelper::Resize { id, size } => shared.resize(id, size),
        ToHelper::Signal { id, name } => shared.signal(id, &name),
        ToHelper::End { id } => shared.end(id),
        ToHelper::Take { id } => shared.take(id, fds),
        ToHelper::Start { id, process } => {
            begin(shared, tasks, id, async move |shared: &Rc<Shared>| {
                process::run(shared, id, process, fds).await
            });
        }
        ToHelper::Connect { id, target, user } => {
            begin(shared, tasks, id, async move |shared: &Rc<Shared>| {
                connect::run(shared, id, target, user, fds).await
            });
        }
        ToHelper::Listen { id, at, user } => {
            begin(shared, tasks, id, async move |shared: &Rc<Shared>| {
                listen::run(shared, id, at, user).await
            });
        }
    }
}

/// Begins a task for something that is open until the task ends.
fn begin<F>(shared: &Rc<Shared>, tasks: &mut JoinSet<()>, id: Id, work: F)
where
    F: AsyncFnOnce(&Rc<Shared>) -> Result<(), Refusal> + 'static,
{
    let shared = Rc::clone(shared);
    let noted = shared.begin(id);
    tasks.spawn_local(async move {
        let noted_here = noted.is_ok();
        let done = match noted {
            Ok(()) => work(&shared).await,
            Err(refusal) => Err(refusal),
        };
        if let Err(Refusal { reason, message }) = done {
            shared.tell(&FromHelper::Refused { id, reason, message }).await;
        }
        if noted_here {
            shared.end(id);
        }
    });
}
