//! What the edge and the helper inside a container say to each other.
//!
//! One `SOCK_SEQPACKET` connection carries messages, each in one packet with the descriptors that belong
//! to it; it ends when either side goes. The octets of channels never travel on it: each stream of a
//! channel is a pipe **that the edge made**, whose other end is sent along. So the kernel
//! does the flow control of each stream by itself, and the container holds no descriptor that is shared
//! with the edge's own (flags of an open file, such as `O_NONBLOCK`, are shared with whoever has it). Pipes
//! and no sockets, because a socket could bring the edge descriptors, and to close what a stranger
//! has made can take for ever.
//!
//! The helper belongs to the container's root user and all that it says may be a lie: the edge believes
//! nothing but what concerns this container's own sessions.

use serde::{Deserialize, Serialize};

/// The longest message, in octets; the kernel takes packets of at least 200 KiB.
pub const MESSAGE_LEN_MAX: usize = 160 * 1024;

/// The most descriptors in one message.
pub const DESCRIPTORS_MAX: usize = 3;

/// A channel, a listener or an accepted connection: numbers that the edge and the helper choose for what
/// they begin, the edge even ones and the helper odd ones. No number is used twice on one connection.
pub type Id = u64;

/// What the edge tells the helper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToHelper {
    /// Start a process. Answer: `Started` or `Refused`; when it has ended, `Exited`.
    ///
    /// Descriptors without a terminal: its input, output and errors, which the process gets as they are;
    /// with one: two pipes, from the edge and to it, between which and the terminal the helper carries octets.
    Start {
        /// The channel.
        id: Id,
        /// What to run, as whom.
        process: Process,
    },
    /// Connect to an address, as seen from inside, names resolved there. Descriptors: two pipes, from the
    /// edge and to it, between which and the connection the helper carries octets, half-closed ends included.
    /// Answer: `Started` or `Refused`.
    Connect {
        /// The channel.
        id: Id,
        /// Where to.
        target: Target,
        /// As whom a socket of the file system is opened: a login name.
        user: String,
    },
    /// Listen. Answer: `Listening` or `Refused`; then `Accepted` for each connection.
    Listen {
        /// The listener.
        id: Id,
        /// Where.
        at: Target,
        /// Whose a socket of the file system is: a login name.
        user: String,
    },
    /// Give an accepted connection its two pipes, sent along, as with `Connect`.
    Take {
        /// What `Accepted` named.
        id: Id,
    },
    /// The terminal of a process has another size.
    Resize {
        /// The channel.
        id: Id,
        /// The new one.
        size: Size,
    },
    /// Send a signal to the foreground of a process: the group of its terminal, or its own.
    Signal {
        /// The channel.
        id: Id,
        /// By its name without `SIG`, as in RFC 4254 §6.10; others are left out without an answer.
        name: String,
    },
    /// The channel has gone: a process gets SIGHUP as from a terminal that hangs up, a listener closes and
    /// removes its socket, an accepted connection that nobody took is closed. Nothing more is said of it, but
    /// that a listener is `Closed`.
    End {
        /// What has gone.
        id: Id,
    },
}

impl ToHelper {
    /// What it is about.
    pub fn id(&self) -> Id {
        match self {
            Self::Start { id, .. }
            | Self::Connect { id, .. }
            | Self::Listen { id, .. }
            | Self::Take { id }
            | Self::Resize { id, .. }
            | Self::Signal { id, .. }
            | Self::End { id } => *id,
        }
    }
}

/// What the helper tells the edge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromHelper {
    /// The first message: it takes orders now.
    Ready {
        /// Of the protocol; both come from one build, so another one is an impostor.
        version: u32,
    },
    /// What was asked for has begun.
    Started {
        /// The channel.
        id: Id,
    },
    /// What was asked for could not begin; its descriptors are closed.
    Refused {
        /// The channel or listener.
        id: Id,
        /// What kind of failure.
        reason: Reason,
        /// In words, for the user.
        message: String,
    },
    /// A process has ended. With a terminal, what that still held comes after this, and then the end of the
    /// stream; without one, the outputs end when the last process that has them does.
    Exited {
        /// The channel.
        id: Id,
        /// How.
        exit: Exit,
    },
    /// The listener listens.
    Listening {
        /// It.
        id: Id,
        /// The port that it got, of TCP; 0 for a socket of the file system.
        port: u16,
    },
    /// Somebody connected to a listener. Answer: `Take` or `End`.
    Accepted {
        /// The connection.
        id: Id,
        /// The listener; or the channel of the process whose agent was asked.
        listener: Id,
        /// Address and port of who connected, of TCP.
        peer: Option<(String, u16)>,
    },
    /// A listener that was ended has closed and removed its socket: its place can be had again.
    Closed {
        /// It.
        id: Id,
    },
}

/// The version of this protocol.
pub const VERSION: u32 = 3;

/// A process to be started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// A login name.
    pub user: String,
    /// Whether a name that is no account of the container is refused; it means root otherwise.
    pub is_strict: bool,
    /// What to run.
    pub run: Run,
    /// Variables that the client asked for, already chosen by the edge.
    pub env: Vec<(Vec<u8>, Vec<u8>)>,
    /// The terminal, if it has one.
    pub terminal: Option<Terminal>,
    /// Whether to make a socket for the client's agent and name it in `SSH_AUTH_SOCK`; its connections
    /// are `Accepted` with the channel as listener.
    pub agent: bool,
    /// `client-ip client-port server-ip server-port` for `SSH_CONNECTION` and `SSH_CLIENT`; without it,
    /// none of the variables of SSH is set.
    pub connection: Option<[String; 4]>,
}

/// What a process runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Run {
    /// The user's login shell, as a login shell.
    Shell,
    /// A command line by the user's shell with `-c`.
    Command(Vec<u8>),
    /// A program and its arguments, found by `PATH`, without a shell, in this directory.
    Program {
        /// Program and arguments, at least one.
        argv: Vec<Vec<u8>>,
        /// An absolute path; the user's home without it.
        directory: Option<Vec<u8>>,
    },
    /// The helper's own SFTP server as the user, on input and output.
    Sftp,
}

/// A terminal to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terminal {
    /// `TERM`; not set when empty.
    pub term: String,
    /// How large.
    pub size: Size,
    /// Modes by their opcodes, RFC 4254 §8; unknown ones are left out.
    pub modes: Vec<(u8, u32)>,
}

/// The size of a terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Characters in a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
    /// Width in pixels, or 0.
    pub width: u16,
    /// Height in pixels, or 0.
    pub height: u16,
}

/// An address inside the container.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Target {
    /// Host (name or address; for a listener as in RFC 4254 §7.1: empty for all, `localhost` for loopback)
    /// and port (0 for a listener: any).
    Tcp(String, u16),
    /// A path.
    Unix(Vec<u8>),
}

/// Why something could not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// It is not allowed.
    Prohibited,
    /// Nobody answers there, the name is unknown, or the program could not be started.
    Failed,
    /// The container has none left of what it takes.
    Shortage,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// By itself, with a status.
    Status(u8),
    /// By a signal: its name without `SIG`, and whether there is a core.
    Signal(String, bool),
}
