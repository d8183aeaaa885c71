//! `gantry exec` and `gantry ssh`: a process in a container, with this one's streams.
//!
//! The API speaks as Kubernetes does for commands in pods: over a `WebSocket`, each message of one channel.

use std::{
    convert::Infallible,
    io::{self, Read as _},
    process::ExitCode,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{
    SinkExt as _, StreamExt as _,
    stream::{SplitSink, SplitStream},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _},
    signal::unix::{SignalKind, signal},
    sync::{Mutex, mpsc},
    time::timeout,
};
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};

use super::{
    Client,
    terminal::{self, Raw},
    view::field,
};
use crate::{
    args::{ContainerRef, Exec, Ssh},
    exit::{Class, Failure},
};

const PROTOCOL: &str = "v5.channel.k8s.io";
const INPUT: u8 = 0;
const OUTPUT: u8 = 1;
const ERRORS: u8 = 2;
const OUTCOME: u8 = 3;
const SIZE: u8 = 4;
const CLOSE: u8 = 255;

/// The server asks every 20 seconds whether this is still here; one that is silent for so long has gone.
const SILENCE: Duration = Duration::from_secs(70);
/// How much is read from standard input at once, in octets, and how often before it is sent.
const PIECE: usize = 32 << 10;
const PIECES: usize = 2;
/// The signal of a pipe that nobody reads.
const SIGPIPE: i32 = 13;
/// The most containers of one page.
const PAGE: u32 = 100;

type Socket = WebSocketStream<reqwest::Upgraded>;
type Sink = Mutex<SplitSink<Socket, Message>>;

/// What is to be run.
#[derive(Debug, Default)]
struct Asked {
    command: Vec<String>,
    input: bool,
    tty: bool,
    user: Option<String>,
    cwd: Option<String>,
    env: Vec<String>,
    term: Option<String>,
}

/// How a session ends.
enum End {
    /// The command has, with this status.
    Status(u8),
    /// A signal ends this process.
    Signal(i32),
}

impl Client {
    pub(super) async fn exec(&self, exec: Exec) -> Result<ExitCode, Failure> {
        let Exec { container, interactive: input, tty, user, cwd, env, term, command } = exec;
        if let Some(wrong) = env.iter().find(|pair| pair.find('=').is_none_or(|at| at == 0)) {
            let message = format!("--env {wrong}: it looks like KEY=VALUE");
            return Err(Failure::new(Class::Usage, message));
        }
        self.session(&container, Asked { command, input, tty, user, cwd, env, term }).await
    }

    pub(super) async fn ssh(&self, ssh: Ssh) -> Result<ExitCode, Failure> {
        let Ssh { destination, tty, term, command } = ssh;
        let tty = tty || (command.is_empty() && terminal::is_typed());
        let command = if command.is_empty() {
            command
        } else {
            // As with `ssh`: one line, which the user's shell reads.
            let line = command.join(" ");
            ["sh", "-c", r#"exec "${SHELL:-/bin/sh}" -c "$1""#, "sh", &line]
                .map(str::to_owned)
                .into()
        };
        let asked =
            Asked { command, input: true, tty, user: destination.user, term, ..Asked::default() };
        self.session(&destination.container, asked).await
    }

    async fn session(&self, wanted: &ContainerRef, asked: Asked) -> Result<ExitCode, Failure> {
        let id = match wanted {
            ContainerRef::Id(id) => id.to_string(),
            ContainerRef::Name(name) => self.container_named(name).await?,
        };
        let query = asked.query();
        let socket = self.api.socket(&format!("containers/{id}/exec"), &query, PROTOCOL).await?;
        let raw = if asked.tty && asked.input {
            Raw::enter().map_err(|error| broken(&error))?
        } else {
            None
        };
        let end = run(socket, &asked, raw.as_ref()).await;
        // Before anything is said about it.
        drop(raw);
        let code = match end? {
            End::Status(status) => status,
            End::Signal(number) => u8::try_from(128 + number).unwrap_or(u8::MAX),
        };
        Ok(ExitCode::from(code))
    }

    /// The id of the only container of this name.
    async fn container_named(&self, name: &str) -> Result<String, Failure> {
        let mut found = Vec::new();
        for page in 1_u32.. {
            let query = [("page", page.to_string()), ("limit", PAGE.to_string())];
            let data = self.api.get("containers", &query).await?;
            let containers = field(&data, "containers").as_array().map_or(&[][..], Vec::as_slice);
            let named = containers.iter().filter(|one| field(one, "name") == name);
            found.extend(named.filter_map(|one| field(one, "id").as_str().map(str::to_owned)));
            if containers.len() < PAGE as usize {
                break;
            }
        }
        match found.as_slice() {
            [] => Err(Failure::new(Class::NotFound, format!("there is no container {name}"))
                .hint("`gantry ps` lists those that there are")),
            [id] => Ok(id.clone()),
            several => {
                let message = format!("{} containers are called {name}", several.len());
                let failure = Failure::new(Class::Usage, message);
                Err(failure.hint(format!("say which one: {}", several.join(", "))))
            }
        }
    }
}

impl Asked {
    fn query(&self) -> Vec<(&'static str, String)> {
        let mut query: Vec<_> = self.command.iter().map(|word| ("command", word.clone())).collect();
        query.push(("stdin", self.input.to_string()));
        query.push(("tty", self.tty.to_string()));
        query.extend(self.user.iter().map(|user| ("user", user.clone())));
        query.extend(self.cwd.iter().map(|cwd| ("cwd", cwd.clone())));
        if self.tty {
            let term = self.term.iter().filter(|term| !term.is_empty());
            query.extend(term.map(|term| ("env", format!("TERM={term}"))));
            if let Some((columns, rows)) = terminal::size() {
                query.extend([("columns", columns.to_string()), ("rows", rows.to_string())]);
            }
        }
        query.extend(self.env.iter().map(|pair| ("env", pair.clone())));
        query
    }
}

/// Carries octets until the end.
async fn run(socket: Socket, asked: &Asked, raw: Option<&Raw>) -> Result<End, Failure> {
    let (sink, stream) = socket.split();
    let sink = Mutex::new(sink);
    tokio::select! {
        biased;
        // First: a signal that comes with the first word of the command must find somebody.
        number = terminal::ended(raw) => number.map(End::Signal).map_err(|error| broken(&error)),
        end = hear(stream) => end,
        never = say(&sink, asked.input) => match never {},
        failed = follow_size(&sink, asked.tty) => Err(failed),
    }
}

fn broken(error: &io::Error) -> Failure {
    Failure::new(Class::General, format!("this terminal cannot be used: {error}"))
}

fn severed(why: impl std::fmt::Display) -> Failure {
    Failure::new(Class::Severed, format!("the session broke off: {why}"))
}

/// Writes what the command says, until it is told how it has ended.
async fn hear(mut stream: SplitStream<Socket>) -> Result<End, Failure> {
    let (mut output, mut errors) = (tokio::io::stdout(), tokio::io::stderr());
    loop {
        let message = match timeout(SILENCE, stream.next()).await {
            Ok(Some(Ok(message))) => message,
            Ok(Some(Err(error))) => return Err(severed(error)),
            Ok(None) => return Err(severed("the server has closed the connection")),
            Err(_elapsed) => return Err(severed("the server does not answer any more")),
        };
        if !matches!(message, Message::Binary(_) | Message::Text(_)) {
            continue;
        }
        let octets = message.into_data();
        let Some((channel, said)) = octets.split_first() else { continue };
        let is_read = match *channel {
            OUTPUT => write(&mut output, said).await?,
            ERRORS => write(&mut errors, said).await?,
            OUTCOME => return outcome(said),
            _ => true,
        };
        if !is_read {
            return Ok(End::Signal(SIGPIPE));
        }
    }
}

/// Writes octets; false when nobody reads them any more.
async fn write(to: &mut (impl AsyncWrite + Unpin), octets: &[u8]) -> Result<bool, Failure> {
    let written = async {
        to.write_all(octets).await?;
        to.flush().await
    };
    match written.await {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::new(Class::General, format!("cannot write: {error}"))),
    }
}

/// How a command has ended.
fn outcome(said: &[u8]) -> Result<End, Failure> {
    let status: Value = serde_json::from_slice(said).map_err(severed)?;
    if field(&status, "status") == "Success" {
        return Ok(End::Status(0));
    }
    let causes = field(field(&status, "details"), "causes").as_array();
    let code = causes.into_iter().flatten().find(|cause| field(cause, "reason") == "ExitCode");
    let code = code.and_then(|cause| field(cause, "message").as_str()?.parse().ok());
    code.map(End::Status).ok_or_else(|| {
        severed(field(&status, "message").as_str().unwrap_or("the server does not say why"))
    })
}

/// Sends what comes from standard input, and its end.
async fn say(sink: &Sink, has_input: bool) -> Infallible {
    let mut input = has_input.then(read_input);
    let Some(pieces) = &mut input else { return std::future::pending().await };
    while let Some(piece) = pieces.recv().await {
        send(sink, piece).await;
    }
    send(sink, Bytes::from_static(&[CLOSE, INPUT])).await;
    std::future::pending().await
}

/// Reads standard input on a thread of its own, since such a read cannot be given up.
fn read_input() -> mpsc::Receiver<Bytes> {
    let (says, pieces) = mpsc::channel(PIECES);
    std::thread::spawn(move || {
        let mut buffer = vec![INPUT; PIECE];
        // What cannot be read has ended.
        while let Some(Ok(count @ 1..)) = buffer.get_mut(1..).map(|room| io::stdin().read(room)) {
            let piece = Bytes::copy_from_slice(buffer.get(..=count).unwrap_or_default());
            if says.blocking_send(piece).is_err() {
                return;
            }
        }
    });
    pieces
}

/// Tells the sizes that this terminal takes. Returns only if that fails.
async fn follow_size(sink: &Sink, has_terminal: bool) -> Failure {
    if !has_terminal {
        return std::future::pending().await;
    }
    let mut changes = match signal(SignalKind::window_change()) {
        Ok(changes) => changes,
        Err(error) => return broken(&error),
    };
    // It may have changed since it was asked for.
    loop {
        if let Some((columns, rows)) = terminal::size() {
            let mut octets = vec![SIZE];
            octets.extend(json!({ "Width": columns, "Height": rows }).to_string().into_bytes());
            send(sink, octets.into()).await;
        }
        if changes.recv().await.is_none() {
            return std::future::pending().await;
        }
    }
}

/// Sends a message. That a server takes none is not the end: what it has said before tells why.
async fn send(sink: &Sink, octets: Bytes) {
    if sink.lock().await.send(Message::Binary(octets)).await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(said: &Value) -> Option<u8> {
        match outcome(said.to_string().as_bytes()) {
            Ok(End::Status(status)) => Some(status),
            Ok(End::Signal(_)) | Err(_) => None,
        }
    }

    #[test]
    fn the_status_of_a_command_is_read_from_what_kubernetes_tells() {
        assert_eq!(code(&json!({ "metadata": {}, "status": "Success" })), Some(0));
        let killed = json!({ "status": "Failure", "reason": "NonZeroExitCode", "details": { "causes": [
            { "reason": "ExitCode", "message": "137" }, { "reason": "Signal", "message": "KILL" },
        ] } });
        assert_eq!(code(&killed), Some(137));
        let ended = json!({ "status": "Failure", "message": "the container is stopped",
            "details": { "causes": [{ "message": "the container is stopped" }] } });
        let failure = outcome(ended.to_string().as_bytes()).map(drop).unwrap_err();
        assert!(failure.to_string().contains("the container is stopped"), "{failure}");
        assert_eq!(failure.class(), Class::Severed);
    }
}
