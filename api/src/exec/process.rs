//! What is asked of others: processes inside containers.

use std::{fmt::Debug, sync::Arc};

use futures_util::future::BoxFuture;
use gantry_model::ContainerId;
use tokio::net::unix::pipe;

/// A process to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// An account of the container, by its login name.
    pub user: String,
    /// The program and its arguments; the account's login shell without any.
    pub argv: Vec<String>,
    /// Where it begins; in the account's home unless said.
    pub directory: Option<String>,
    /// Variables, which go before those of the container.
    pub env: Vec<(String, String)>,
    /// The size of its terminal, if it has one.
    pub terminal: Option<TerminalSize>,
}

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// In a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

/// Starts processes inside containers.
pub trait Commands: Send + Sync {
    /// Starts a process in this start of a container, which is counted by `generation`. Who may do so is not
    /// looked at.
    fn start(
        &self,
        container: ContainerId,
        generation: u64,
        command: Command,
    ) -> BoxFuture<'_, Result<Running, NotStarted>>;
}

/// A process that runs. Dropped, it is hung up.
#[derive(Debug)]
pub struct Running {
    /// Its input. Dropped, that has ended.
    pub input: pipe::Sender,
    /// Its output; with a terminal, all that is seen on it.
    pub output: pipe::Receiver,
    /// Its errors, without a terminal.
    pub errors: Option<pipe::Receiver>,
    /// The process itself.
    pub process: Box<dyn RunningProcess>,
    /// To be told of its octets.
    pub meter: Arc<dyn Meter>,
}

/// Hears of the octets of a process, which tell that somebody uses its container.
pub trait Meter: Debug + Send + Sync {
    /// Some came from the client.
    fn typed(&self);

    /// So many were said by the process.
    fn said(&self, octets: usize);
}

/// A process that whoever has this has started.
pub trait RunningProcess: Debug + Send + Sync {
    /// Waits for its end; `None` if its container has ended. Cancel-safe, and not called again after the end.
    fn ended(&mut self) -> BoxFuture<'_, Option<Ended>>;

    /// Its terminal has another size.
    fn resize(&self, size: TerminalSize);

    /// Kills it, and whatever belongs to its group.
    fn kill(&self);
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with a status.
    Status(u8),
    /// By a signal: its name without `SIG`, or its number.
    Signal(String),
}

/// Why there is no process.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotStarted {
    /// The container does not run any more.
    #[error("the container does not run")]
    NotRunning,
    /// It is paused.
    #[error("the container is paused; resume it first")]
    Paused,
    /// It was started before there were commands.
    #[error("the container was started before there were commands here; stop and start it once")]
    NoPlace,
    /// As much is open in it as may be, or on its server.
    #[error("too much is open in this container, or on this server")]
    Full,
    /// What looks after processes there did not start it, for this reason.
    #[error("the command was not started: {0}")]
    Refused(String),
    /// Something else; it is in the log.
    #[error("the container cannot be entered at the moment")]
    Failed,
}

impl Ended {
    /// The status that a shell would give.
    pub(crate) fn code(&self) -> i32 {
        match self {
            Self::Status(status) => i32::from(*status),
            Self::Signal(name) => 128 + number(name),
        }
    }
}

/// The number of a signal of Linux.
fn number(name: &str) -> i32 {
    use rustix::process::Signal;
    const NAMES: [(&str, Signal); 26] = [
        ("ABRT", Signal::ABORT),
        ("ALRM", Signal::ALARM),
        ("BUS", Signal::BUS),
        ("CHLD", Signal::CHILD),
        ("CONT", Signal::CONT),
        ("FPE", Signal::FPE),
        ("HUP", Signal::HUP),
        ("ILL", Signal::ILL),
        ("INT", Signal::INT),
        ("IO", Signal::IO),
        ("KILL", Signal::KILL),
        ("PIPE", Signal::PIPE),
        ("PROF", Signal::PROF),
        ("QUIT", Signal::QUIT),
        ("SEGV", Signal::SEGV),
        ("STOP", Signal::STOP),
        ("SYS", Signal::SYS),
        ("TERM", Signal::TERM),
        ("TRAP", Signal::TRAP),
        ("TSTP", Signal::TSTP),
        ("USR1", Signal::USR1),
        ("USR2", Signal::USR2),
        ("VTALRM", Signal::VTALARM),
        ("WINCH", Signal::WINCH),
        ("XCPU", Signal::XCPU),
        ("XFSZ", Signal::XFSZ),
    ];
    let known = NAMES.iter().find(|(known, _)| *known == name).map(|(_, signal)| signal.as_raw());
    // Those without a name are told by their numbers.
    known.or_else(|| name.parse().ok().filter(|number| (1..=64).contains(number))).unwrap_or(0)
}
