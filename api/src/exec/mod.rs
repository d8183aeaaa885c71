//! Commands in containers: as a session over a `WebSocket` ([`socket`]), and as one question with one
//! answer ([`whole`]). Both start the same process, by what [`Commands`] knows.

mod process;
mod read;
mod socket;
mod visit;
mod wanted;
mod whole;

pub use process::{
    Command, Commands, Ended, Meter, NotStarted, Running, RunningProcess, TerminalSize,
};

use gantry_model::UserId;

use crate::{
    problem::{Kind, Problem},
    streams::{Full, Places},
    surface::{Method, Operation, Surface},
    wire,
};

/// The route, for whoever looks at requests by it.
pub(crate) const ROUTE: &str = "/api/v1/containers/{id}/exec";

/// Sessions at once, of all accounts and of one.
const SESSIONS: (u32, u32) = (2000, 100);
/// Questions at once, each of which keeps its answer in memory.
const QUESTIONS: (u32, u32) = (64, 8);

/// Places for commands, by who asks.
#[derive(Clone)]
pub(crate) struct Room {
    sessions: Places<UserId>,
    questions: Places<UserId>,
}

impl Default for Room {
    fn default() -> Self {
        let places = |(all, each)| Places::new(all, each);
        Self { sessions: places(SESSIONS), questions: places(QUESTIONS) }
    }
}

const SESSION: &str = "An upgrade to WebSocket (or an extended CONNECT of HTTP/2), as Kubernetes has it for \
                       commands in pods: the subprotocol is `v5.channel.k8s.io` or `v4.channel.k8s.io`, and the \
                       first octet of each message says what it is: 0 input, 1 output, 2 errors, 3 how it \
                       ended (a `Status` in JSON), 4 the terminal's size (`{\"Width\":80,\"Height\":24}`), and in \
                       the fifth version 255 and another octet, the end of that channel (of 0: of the input). \
                       After the message of channel 3 the connection ends. The session ends with a word when \
                       the container stops or who asked may not do this any more";

const QUESTION: &str = "The command has so long as `timeout_seconds` says, and is killed then. Of its output and \
                        of its errors the first MiB each is answered, octets that are no UTF-8 replaced, and \
                        less of what is longer than 2 MiB in JSON, as control characters are; the rest is read \
                        and left out. An `Idempotency-Key` keeps how it ended, without the output";

pub(crate) fn surface(surface: Surface) -> Surface {
    surface
        .serve(
            &[Method::Get],
            &[ROUTE],
            socket::open,
            &Operation::new(
                "execSession",
                "Containers",
                "Runs a command, or a login shell, in a container: a session over a WebSocket",
            )
            .described(SESSION)
            .params(&wanted::PARAMS)
            .answers_socket(),
        )
        .serve(
            &[Method::Post],
            &[ROUTE],
            whole::run,
            &Operation::new(
                "execCommand",
                "Containers",
                "Runs a command in a container and answers when it has ended",
            )
            .described(QUESTION)
            .takes(&wanted::FIELDS)
            .answers::<wire::Executed>(200),
        )
}

/// Why there is no place.
fn full(full: Full) -> Problem {
    let message = match full {
        Full::Own(own) => format!("The account has {own} commands under way, as many as it may"),
        Full::All => "There are as many commands under way as there may be".to_owned(),
    };
    Problem::new(Kind::TooManyAttempts, message).retry_after_s(5)
}

impl From<NotStarted> for Problem {
    fn from(why: NotStarted) -> Self {
        let kind = match why {
            NotStarted::NotRunning | NotStarted::Paused | NotStarted::NoPlace => {
                Kind::StateConflict
            }
            NotStarted::Full => Kind::TooManyAttempts,
            NotStarted::Refused(_) => Kind::Invalid,
            NotStarted::Failed => Kind::Unavailable,
        };
        let problem = Self::new(kind, why.to_string());
        match why {
            NotStarted::Full | NotStarted::Failed => problem.retry_after_s(5),
            NotStarted::Refused(_) => problem.about("command"),
            NotStarted::NotRunning | NotStarted::Paused | NotStarted::NoPlace => problem,
        }
    }
}
