//! The few commands that fake containers know by themselves.

use std::time::Duration;

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    sync::oneshot,
};

use crate::{Error, Exec, ExecOutput, ExitStatus, Result};

/// Refuses what no container knows.
pub(super) fn check(command: &Exec) -> Result<()> {
    match command.argv.first() {
        Some(program) if program.contains("no-such-program") => {
            Err(Error::Command { message: format!("{program}: not found") })
        }
        Some(_) => Ok(()),
        None => Err(Error::Command { message: "no program is named".to_owned() }),
    }
}

/// Answers a command in a container of this name, which has `/dev/kvm` or not; `env` already holds its
/// variables.
pub(super) async fn run(command: Exec, hostname: String, kvm: bool) -> Result<ExecOutput> {
    check(&command)?;
    let words: Vec<&str> = command.argv.iter().map(String::as_str).collect();
    let mut code = 0;
    let stdout = match words.as_slice() {
        ["true"] => String::new(),
        ["false"] => {
            code = 1;
            String::new()
        }
        ["echo", rest @ ..] => format!("{}\n", rest.join(" ")),
        ["cat"] => return Ok(output(0, command.stdin)),
        ["uname", "-n"] => format!("{hostname}\n"),
        ["pwd"] => format!("{}\n", command.cwd),
        ["id", "-u"] => format!("{}\n", command.user.uid),
        ["printenv", key] => {
            let value = command.env.get(*key).map(|value| format!("{value}\n"));
            code = u8::from(value.is_none());
            value.unwrap_or_default()
        }
        ["sleep", seconds] => {
            let seconds = seconds.parse().unwrap_or(0);
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            String::new()
        }
        // As a program that opens the device and asks for its version would end.
        ["kvm-version"] => {
            code = if kvm { 12 } else { 254 };
            String::new()
        }
        [program, ..] => {
            return Err(Error::Command { message: format!("{program}: not found") });
        }
        [] => return Err(Error::Command { message: "no program is named".to_owned() }),
    };
    Ok(output(code, stdout.into()))
}

pub(super) fn output(code: u8, stdout: Bytes) -> ExecOutput {
    ExecOutput { status: ExitStatus::Code(code), stdout, stderr: Bytes::new(), truncated: false }
}

/// A terminal with `cat` on it: everything typed comes back until end of input (Ctrl-D) or hang-up.
pub(super) async fn terminal(mut side: DuplexStream, ended: oneshot::Sender<ExitStatus>) {
    let mut typed = [0; 4096];
    let mut status = ExitStatus::Signal(1);
    while let Ok(read) = side.read(&mut typed).await {
        let Some(bytes) = typed.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
        let end = bytes.iter().position(|byte| *byte == 4);
        let echo = bytes.get(..end.unwrap_or(read)).unwrap_or(bytes);
        if side.write_all(echo).await.is_err() {
            break;
        }
        if end.is_some() {
            status = ExitStatus::Code(0);
            break;
        }
    }
    drop(side);
    if ended.send(status).is_err() {
        tracing::trace!("nobody waited for the end of a terminal");
    }
}
