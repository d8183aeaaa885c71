//! Commands inside a container: Incus runs them in all of its namespaces, and gives a stream of
//! messages for each of their own streams and one that controls them. When the controlling one
//! breaks, the command is killed.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use gantry_model::ContainerId;
use tokio_tungstenite::tungstenite::Message;

use super::{
    client::{Client, Fault, Socket},
    instance,
    lifecycle::path,
    wire::{Instance, Map, NewProcess, Operation},
};
use crate::{Error, Exec, ExecOutput, ExitStatus, PtySize, Result};

pub(super) const WHAT: &str = "running the command";

/// How long a command's end may be waited for at a time.
const WAIT: Duration = Duration::from_hours(1);

/// The largest message that is sent, in bytes.
pub(super) const PIECE_BYTES: usize = 32 << 10;

/// A command that was begun, and waits for its streams.
pub(super) struct Call {
    client: Client,
    id: ContainerId,
    operation: Operation,
}

impl Call {
    /// Begins a command; with a size, on a terminal.
    pub(super) async fn begin(
        client: &Client,
        instance: &Instance,
        command: &Exec,
        size: Option<PtySize>,
    ) -> Result<Self> {
        command.check()?;
        let missing = || Error::failed(WHAT, "this is no container of ours");
        let id = instance::id(&instance.name).ok_or_else(missing)?;
        let mut environment = environment(instance, command);
        if size.is_some() {
            environment.entry("TERM".to_owned()).or_insert_with(|| "xterm-256color".to_owned());
        }
        let size_or_none = size.unwrap_or(PtySize { columns: 0, rows: 0 });
        let body = NewProcess {
            command: &command.argv,
            environment,
            wait_for_websocket: true,
            interactive: size.is_some(),
            cwd: &command.cwd,
            user: command.user.uid,
            group: command.user.gid,
            width: size_or_none.columns,
            height: size_or_none.rows,
        };
        let begun = client.begin(&format!("{}/exec", path(id)), &body).await;
        let operation = begun.map_err(|fault| refusal(fault, id))?;
        Ok(Self { client: client.clone(), id, operation })
    }

    /// Begins a command without streams, which goes on when nobody waits for it.
    pub(super) async fn begin_alone(
        client: &Client,
        instance: &Instance,
        id: ContainerId,
        command: &Exec,
    ) -> Result<Self> {
        command.check()?;
        let body = NewProcess {
            command: &command.argv,
            environment: environment(instance, command),
            wait_for_websocket: false,
            interactive: false,
            cwd: &command.cwd,
            user: command.user.uid,
            group: command.user.gid,
            width: 0,
            height: 0,
        };
        let begun = client.begin(&format!("{}/exec", path(id)), &body).await;
        let operation = begun.map_err(|fault| refusal(fault, id))?;
        Ok(Self { client: client.clone(), id, operation })
    }

    /// Opens one of its streams: `0`, `1`, `2` or `control`.
    pub(super) async fn open(&self, stream: &str) -> Result<Socket> {
        let secret = self.operation.metadata.get("fds").and_then(|fds| fds.get(stream));
        let secret = secret.and_then(|secret| secret.as_str());
        let secret = secret.ok_or_else(|| Error::failed(WHAT, "Incus offers no such stream"))?;
        let path = format!("/1.0/operations/{}/websocket?secret={secret}", self.operation.id);
        self.client.open(&path).await.map_err(|fault| refusal(fault, self.id))
    }

    /// Waits for the command's end, however long it runs.
    pub(super) async fn wait(&self) -> Result<ExitStatus> {
        let path = format!("/1.0/operations/{}", self.operation.id);
        let ended = loop {
            match self.client.wait(&path, WAIT).await {
                Err(Fault::Late { .. }) => {}
                other => break other.map_err(|fault| refusal(fault, self.id))?,
            }
        };
        let code = ended.metadata.get("return").and_then(serde_json::Value::as_i64);
        match code.and_then(|code| u8::try_from(code).ok()) {
            // The convention of shells, which Incus follows.
            Some(code @ 129..=192) => Ok(ExitStatus::Signal(code - 128)),
            Some(code) => Ok(ExitStatus::Code(code)),
            None => Err(Error::failed(WHAT, format!("Incus tells no status: {code:?}"))),
        }
    }
}

/// The variables of a command.
fn environment(instance: &Instance, command: &Exec) -> Map {
    // Incus gives a command what the init was started with; all that can be done is to empty it.
    let emptied = instance::unset(&instance.config).map(|key| (key.to_owned(), String::new()));
    let mut environment: Map = emptied.collect();
    let of_lines = instance::of_lines(&instance.config);
    environment.extend(of_lines.map(|(key, value)| (key.to_owned(), value.to_owned())));
    environment.extend(command.env.clone());
    environment
}

/// Runs a command to its end.
pub(super) async fn exec(
    client: &Client,
    instance: &Instance,
    command: &Exec,
) -> Result<ExecOutput> {
    let run = async {
        let call = Call::begin(client, instance, command, None).await?;
        // Held to the end: without it the command is killed.
        let _control = call.open("control").await?;
        let (stdin, stdout, stderr) =
            tokio::try_join!(call.open("0"), call.open("1"), call.open("2"))?;
        let ((), stdout, stderr, status) = tokio::join!(
            feed(stdin, &command.stdin),
            keep(stdout, command.output_max),
            keep(stderr, command.output_max),
            call.wait(),
        );
        let (status, stdout, stderr) = (status?, stdout?, stderr?);
        Ok(ExecOutput {
            status,
            truncated: stdout.1 || stderr.1,
            stdout: stdout.0,
            stderr: stderr.0,
        })
    };
    match tokio::time::timeout(command.timeout, run).await {
        Ok(result) => result,
        Err(_elapsed) => {
            let after_ms = u64::try_from(command.timeout.as_millis()).unwrap_or(u64::MAX);
            Err(Error::Timeout { what: "the command", after_ms })
        }
    }
}

/// Sends the input and its end. A command need not read it.
async fn feed(mut stdin: Socket, input: &Bytes) {
    let fed = async {
        for start in (0..input.len()).step_by(PIECE_BYTES) {
            let piece = input.slice(start..input.len().min(start + PIECE_BYTES));
            stdin.send(Message::Binary(piece)).await?;
        }
        // What is no data is the end of it.
        stdin.send(Message::text("")).await
    };
    if let Err(error) = fed.await {
        tracing::trace!(%error, "a command did not read all of its input");
        return;
    }
    // Kept open until Incus has taken everything.
    while let Some(Ok(_)) = stdin.next().await {}
}

/// Reads to the end, keeps the first `max` bytes, and says whether there were more.
async fn keep(mut stream: Socket, max: usize) -> Result<(Bytes, bool)> {
    let mut kept = Vec::new();
    let mut more = false;
    loop {
        match stream.next().await {
            Some(Ok(Message::Binary(part))) => {
                let room = part.len().min(max.saturating_sub(kept.len()));
                kept.extend_from_slice(part.get(..room).unwrap_or_default());
                more |= room < part.len();
            }
            Some(Ok(Message::Text(_) | Message::Close(_))) | None => break,
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                // What came may not be all: an output that looks whole must be.
                return Err(Error::failed(WHAT, error));
            }
        }
    }
    Ok((kept.into(), more))
}

/// What Incus says when it cannot run a command: the command's fault, or ours.
pub(super) fn refusal(fault: Fault, id: ContainerId) -> Error {
    let fault_of_command = ["Command not found", "Command not executable"];
    if let Some(message) = fault_of_command.iter().find(|message| fault.says(message)) {
        return Error::Command { message: message.to_lowercase() };
    }
    if fault.says("is not running") || fault.says("is frozen") {
        return Error::NotRunning { id };
    }
    if fault.is_missing() { Error::NotFound { id } } else { fault.during(WHAT) }
}
