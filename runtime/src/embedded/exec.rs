//! Commands inside a container.

use std::{
    io,
    path::PathBuf,
    process::{ExitStatus as OsStatus, Stdio},
    time::Duration,
};

use bytes::Bytes;
use gantry_model::ContainerId;
use rustix::process::{Pid, Signal};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, ChildStdin, Command},
};
use tokio_util::task::TaskTracker;

use super::{
    bundle,
    disk::{Home, Run},
    process::{Handle, Init},
    runc::{Memory, Runc, read_pid, timed_out},
};
use crate::{Error, Exec, ExecOutput, ExitStatus, PtySize, Result};

const WHAT: &str = "running the command";

/// No command takes longer to begin.
pub(super) const BEGIN_TIMEOUT: Duration = Duration::from_secs(20);

/// How often it is looked whether a command has begun.
pub(super) const LOOK: Duration = Duration::from_millis(4);

/// Whose the streams of a command are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Streams {
    /// The caller's.
    Own,
    /// Those of a new terminal.
    Terminal(PtySize),
    /// Nobody's; nor does anybody wait for its end.
    None,
}

/// A command about to be run: what the OCI runtime is told, and where it tells back.
pub(super) struct Call {
    init: Init,
    id: ContainerId,
    /// Kept open, because the OCI runtime reads it by its path.
    _process: Memory,
    log: Memory,
    pid_file: PathBuf,
    command: Command,
}

/// A command that runs. Dropped before its end is known, it is killed with all that it started in
/// its session.
pub(super) struct Leash {
    /// `None` once the end is known, or left to someone else.
    held: Option<Held>,
    tasks: TaskTracker,
}

/// A command without streams that has begun. Dropped before it was let go, it is killed.
pub(super) struct Left {
    id: ContainerId,
    init: Init,
    /// Nothing when it has ended, or was let go.
    handle: Option<Handle>,
}

struct Held {
    call: Call,
    child: Child,
}

impl Call {
    /// Prepares a command for a running container; `token` makes its names unique.
    pub(super) fn new(
        runc: &Runc,
        target: (ContainerId, &Home, &Run),
        command: &Exec,
        streams: Streams,
        token: u64,
    ) -> Result<Self> {
        command.check()?;
        let (id, home, run) = target;
        let failed = |error: io::Error| Error::failed(WHAT, error);
        let terminal = match streams {
            Streams::Terminal(size) => Some(size),
            Streams::Own | Streams::None => None,
        };
        let process = bundle::process(command, &run.env, terminal)
            .map_err(|error| Error::failed(WHAT, error))?;
        let json = serde_json::to_vec(&process).map_err(|error| Error::failed(WHAT, error))?;
        let process = Memory::new(&json).map_err(failed)?;
        let log = Memory::new(b"").map_err(failed)?;
        let pid_file = home.pid_file(&format!("exec-{token:x}"));
        let mut command = runc.command(&log);
        command.arg("exec").arg("--process").arg(process.path());
        if matches!(streams, Streams::None) {
            command.arg("--detach");
        }
        command.arg("--pid-file").arg(&pid_file).arg(id.to_string());
        Ok(Self { init: run.init, id, _process: process, log, pid_file, command })
    }

    /// The command line, to be given its streams.
    pub(super) fn command(&mut self) -> &mut Command {
        &mut self.command
    }

    /// Runs it; `tasks` sees to its end if the caller does not.
    pub(super) fn spawn(mut self, tasks: &TaskTracker) -> Result<Leash> {
        let child = self.command.spawn().map_err(|error| Error::failed(WHAT, error))?;
        Ok(Leash { held: Some(Held { call: self, child }), tasks: tasks.clone() })
    }
}

impl Leash {
    /// The process that stands for the command outside of the container.
    pub(super) fn child(&mut self) -> Option<&mut Child> {
        self.held.as_mut().map(|held| &mut held.child)
    }

    /// Whether the command itself has begun (it may have ended since).
    pub(super) fn has_begun(&self) -> bool {
        self.held.as_ref().is_none_or(|held| held.call.pid_file.exists())
    }

    /// Waits for the command's end, once. Cancel-safe.
    pub(super) async fn wait(&mut self) -> Result<ExitStatus> {
        let (call, status) = self.outer_end().await?;
        call.verdict(status)
    }

    /// Waits until a command without streams has begun, once; from then on it is on its own. Nothing if it has
    /// ended since. Cancel-safe.
    async fn begun(&mut self) -> Result<Option<Handle>> {
        let (call, status) = self.outer_end().await?;
        let ended = call.verdict(status)?;
        if !ended.success() {
            return Err(Error::failed(WHAT, format!("the OCI runtime ended: {ended:?}")));
        }
        let inner = read_pid(&call.pid_file).filter(|pid| call.init.contains(*pid));
        let handle = inner.and_then(Init::of).map(Init::open).transpose();
        handle.map(Option::flatten).map_err(|error| Error::failed(WHAT, error))
    }

    /// Waits for the end of the process outside.
    async fn outer_end(&mut self) -> Result<(Call, OsStatus)> {
        let gone = || Error::failed(WHAT, "its end was told already");
        let held = self.held.as_mut().ok_or_else(gone)?;
        let status = held.child.wait().await.map_err(|error| Error::failed(WHAT, error))?;
        let held = self.held.take().ok_or_else(gone)?;
        Ok((held.call, status))
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        let Some(held) = self.held.take() else { return };
        // Without tokio the program ends; its end kills the outer process at least.
        if let Ok(tokio) = tokio::runtime::Handle::try_current() {
            self.tasks.spawn_on(held.put_down(), &tokio);
        }
    }
}

impl Held {
    /// Kills the command, if need be after it has begun: killed while it joins the container, the
    /// outer process would leave an inner one behind that nobody can name.
    async fn put_down(mut self) {
        let begun = async {
            let mut look = tokio::time::interval(LOOK);
            while !self.call.pid_file.exists() {
                tokio::select! {
                    _ended = self.child.wait() => return,
                    _ = look.tick() => {}
                }
            }
        };
        if tokio::time::timeout(BEGIN_TIMEOUT, begun).await.is_err() {
            tracing::warn!(id = %self.call.id, "a command neither begins nor ends; killing it");
        }
        self.call.kill();
        if let Err(error) = self.child.kill().await {
            tracing::debug!(%error, "a command had ended");
        }
    }
}

impl Call {
    /// Kills the inner process and its group: it leads a session of its own, so its number names
    /// the group, too.
    fn kill(&self) {
        let inner = read_pid(&self.pid_file).filter(|pid| self.init.contains(*pid));
        let group = inner.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        if let Some(group) = group
            && let Err(error) = rustix::process::kill_process_group(group, Signal::KILL)
        {
            tracing::debug!(%error, "a command had ended");
        }
    }

    fn verdict(&self, status: OsStatus) -> Result<ExitStatus> {
        let refused = if status.success() { None } else { self.log.last_error() };
        match (refused, status.code().and_then(|code| u8::try_from(code).ok())) {
            (Some(_), _) if !self.init.is_alive() => Err(Error::NotRunning { id: self.id }),
            (Some(message), _) => Err(refusal(&message)),
            // The convention of shells, which the OCI runtime follows.
            (None, Some(code @ 129..=192)) => Ok(ExitStatus::Signal(code - 128)),
            (None, Some(code)) => Ok(ExitStatus::Code(code)),
            (None, None) => Err(Error::failed(WHAT, format!("the OCI runtime ended: {status}"))),
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        match std::fs::remove_file(&self.pid_file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, "a pid file stays");
            }
            Ok(()) | Err(_) => {}
        }
    }
}

/// Runs a command to its end.
pub(super) async fn exec(
    mut call: Call,
    command: &Exec,
    tasks: &TaskTracker,
) -> Result<ExecOutput> {
    let stdin = if command.stdin.is_empty() { Stdio::null() } else { Stdio::piped() };
    call.command().stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut leash = call.spawn(tasks)?;
    let (stdin, stdout, stderr) = match leash.child() {
        Some(child) => (child.stdin.take(), child.stdout.take(), child.stderr.take()),
        None => (None, None, None),
    };
    let run = async {
        let (_fed, stdout, stderr, status) = tokio::join!(
            feed(stdin, &command.stdin),
            keep(stdout, command.output_max),
            keep(stderr, command.output_max),
            leash.wait(),
        );
        let (stdout, stderr) = (stdout?, stderr?);
        Ok(ExecOutput {
            status: status?,
            truncated: stdout.1 || stderr.1,
            stdout: stdout.0,
            stderr: stderr.0,
        })
    };
    match tokio::time::timeout(command.timeout, run).await {
        Ok(result) => result,
        Err(_elapsed) => Err(timed_out("the command", command.timeout)),
    }
}

/// Starts a command without streams.
pub(super) async fn leave(mut call: Call, tasks: &TaskTracker) -> Result<Left> {
    let (id, init) = (call.id, call.init);
    call.command().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let handle = call.spawn(tasks)?.begun().await?;
    Ok(Left { id, init, handle })
}

impl Left {
    /// Waits for its end, which is an error.
    pub(super) async fn ended(&self) -> Error {
        if let Some(handle) = &self.handle
            && let Err(error) = handle.ended().await
        {
            return Error::failed(WHAT, error);
        }
        if self.init.is_alive() {
            Error::failed(WHAT, "it ended at once")
        } else {
            Error::NotRunning { id: self.id }
        }
    }

    /// Leaves it to itself.
    pub(super) fn let_go(mut self) {
        self.handle = None;
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        if let Some(handle) = &self.handle {
            handle.kill();
        }
    }
}

/// Writes the input and closes it. A command need not read it.
async fn feed(stdin: Option<ChildStdin>, input: &[u8]) {
    let Some(mut stdin) = stdin else { return };
    let fed = async {
        stdin.write_all(input).await?;
        stdin.shutdown().await
    };
    if let Err(error) = fed.await {
        tracing::trace!(%error, "a command did not read all of its input");
    }
}

/// Reads to the end, keeps the first `max` bytes, and says whether there were more.
async fn keep(stream: Option<impl AsyncRead + Unpin>, max: usize) -> Result<(Bytes, bool)> {
    let Some(mut stream) = stream else { return Ok((Bytes::new(), false)) };
    let mut kept = Vec::new();
    let mut more = false;
    let mut part = vec![0; 16 << 10];
    loop {
        let read = stream.read(&mut part).await.map_err(|error| Error::failed(WHAT, error))?;
        if read == 0 {
            return Ok((kept.into(), more));
        }
        let room = read.min(max.saturating_sub(kept.len()));
        kept.extend_from_slice(part.get(..room).unwrap_or_default());
        more |= room < read;
    }
}

/// What the OCI runtime says when it cannot run a command: the command's fault, or ours.
fn refusal(message: &str) -> Error {
    const FAULTS: [&str; 6] = [
        "executable file not found",
        "no such file or directory",
        "permission denied",
        "is a directory",
        "not a directory",
        "exec format error",
    ];
    let lower = message.to_lowercase();
    if !FAULTS.iter().any(|fault| lower.contains(fault)) {
        return Error::failed(WHAT, message);
    }
    // What stands before is about the OCI runtime's own doing.
    let tail = ["container process: ", "exec failed: "]
        .iter()
        .find_map(|mark| message.split_once(mark))
        .map_or(message, |(_, tail)| tail);
    Error::Command { message: tail.trim_start_matches("exec: ").to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_the_commands_fault_or_ours() {
        let said = "exec failed: unable to start container process: exec: \"nope\": executable \
                    file not found in $PATH";
        let error = refusal(said);
        assert_eq!(
            error.reason(),
            "the command cannot be run: \"nope\": executable file not found in $PATH"
        );
        assert!(matches!(refusal("cannot join cgroup: boom"), Error::Failed { .. }));
    }
}
