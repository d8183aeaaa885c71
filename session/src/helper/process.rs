//! Processes of sessions, from the edge's order to their end.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    process::{ExitStatus, Stdio},
    rc::Rc,
};

use gantry_session::protocol::{FromHelper, Id, Process, Run};
use rustix::{
    process::{Pid, Signal, kill_process, kill_process_group},
    termios::tcgetpgrp,
};
use tokio::process::{Child, Command};

use super::{
    environment::packed,
    errand::Guard,
    exit::exit,
    launch::Launch,
    listen,
    relay::{self, Pump, Stopped, Stream, Ways},
    serve::{Kind, Refusal, Shared},
    terminal::Pair,
};

/// The most that a terminal can hold when its process ends, in octets; what comes after that is from
/// processes that are left.
const LEFT_MAX: usize = 256 * 1024;

/// Starts a process and stays with it until its end, or until the edge ends it.
pub(super) async fn run(
    shared: &Rc<Shared>,
    id: Id,
    process: Process,
    fds: Vec<OwnedFd>,
) -> Result<(), Refusal> {
    let (agent, notice) = agent_for(shared, &process).await;
    let path = agent.as_ref().map(|(_, guard)| guard.path.clone());
    let started = if let Some(terminal) = &process.terminal {
        let ways = Ways::new(fds).ok_or_else(Refusal::descriptors)?;
        let ways = ways.map_err(|error| Refusal::io("a terminal's pipes", &error))?;
        let pair = Pair::open(terminal).map_err(|error| Refusal::io("a terminal", &error))?;
        tell_user(&pair.slave, notice.as_deref());
        Started::at_terminal(shared, process, path, pair, ways)?
    } else {
        if let Some(errors) = fds.get(2) {
            tell_user(errors, notice.as_deref());
        }
        Started::with(shared, process, path, fds)?
    };
    let Started { child, pid, terminal } = started;
    let master = terminal.as_ref().map(|(master, _)| Rc::clone(master));
    let Some(ended) = shared.becomes(id, Kind::Process { pid, master }) else {
        // It was ended before it had begun.
        hang_up(pid);
        return Ok(());
    };
    shared.tell(&FromHelper::Started { id }).await;
    let has_terminal = terminal.is_some();
    tokio::select! {
        () = ended.notified() => if !has_terminal { hang_up(pid) },
        () = stay(shared, id, child, terminal) => {}
        () = answer_for_agent(shared, id, agent.as_ref()) => {}
    }
    Ok(())
}

/// The socket of the client's agent, if it is wanted; or why there is none.
async fn agent_for(
    shared: &Shared,
    process: &Process,
) -> (Option<(Stream, Guard)>, Option<String>) {
    if !process.agent {
        return (None, None);
    }
    match listen::agent(shared, process.user.clone()).await {
        Ok(agent) => (Some(agent), None),
        // A full or read-only file system must not keep out who would mend it.
        Err(refusal) => (None, Some(format!("no agent is forwarded: {}\n", refusal.message))),
    }
}

/// Says something where a process that has not begun will write its errors, which has room for it.
fn tell_user(errors: &OwnedFd, notice: Option<&str>) {
    if let Some(notice) = notice
        && let Err(error) = rustix::io::write(errors, notice.as_bytes())
    {
        super::say(&format!("gantry-session: {} is not told: {error}", notice.trim_end()));
    }
}

/// Accepts what asks for the client's agent, for ever.
async fn answer_for_agent(shared: &Rc<Shared>, id: Id, agent: Option<&(Stream, Guard)>) {
    match agent {
        Some((socket, _)) => listen::accept_all(shared, id, std::slice::from_ref(socket)).await,
        None => std::future::pending().await,
    }
}

struct Started {
    child: Child,
    pid: Pid,
    /// The terminal, and the edge's ways to it.
    terminal: Option<(Stream, Ways)>,
}

impl Started {
    fn at_terminal(
        shared: &Shared,
        process: Process,
        agent: Option<Vec<u8>>,
        pair: Pair,
        ways: Ways,
    ) -> Result<Self, Refusal> {
        let refused = |error: io::Error| Refusal::io("a terminal", &error);
        let master = relay::stream(pair.master).map_err(refused)?;
        let two =
            [pair.slave.try_clone().map_err(refused)?, pair.slave.try_clone().map_err(refused)?];
        let [input, output] = two;
        let stdio = [input, output, pair.slave];
        let (child, pid) = spawn(shared, process, agent, Some(pair.name), stdio)?;
        Ok(Self { child, pid, terminal: Some((master, ways)) })
    }

    fn with(
        shared: &Shared,
        process: Process,
        agent: Option<Vec<u8>>,
        fds: Vec<OwnedFd>,
    ) -> Result<Self, Refusal> {
        let stdio = <[OwnedFd; 3]>::try_from(fds).map_err(|_fds| Refusal::descriptors())?;
        let (child, pid) = spawn(shared, process, agent, None, stdio)?;
        Ok(Self { child, pid, terminal: None })
    }
}

/// Executes this program again, to become the process. That is short: the kernel does not copy memory for it.
fn spawn(
    shared: &Shared,
    mut process: Process,
    agent: Option<Vec<u8>>,
    tty: Option<String>,
    [input, output, errors]: [OwnedFd; 3],
) -> Result<(Child, Pid), Refusal> {
    check(&process)?;
    let variables = std::mem::take(&mut process.env);
    let (mut launch, argv) = Launch::new(process);
    launch.tty = tty;
    launch.agent = agent;
    launch.files = shared.files();
    let packed_launch = launch.pack().map_err(|error| Refusal::failed(error.to_string()))?;
    let mut command = Command::new(shared.program());
    command.arg0("gantry-session").arg("run").arg(packed_launch).args(argv).env_clear();
    for (name, value) in variables {
        command.env(packed(&name), os(value));
    }
    for fd in [&input, &output, &errors] {
        // Programs do not expect it, and nobody else has these open files.
        rustix::io::ioctl_fionbio(fd, false)
            .map_err(|error| Refusal::io("a descriptor", &error.into()))?;
    }
    command.stdin(Stdio::from(input)).stdout(Stdio::from(output)).stderr(Stdio::from(errors));
    let child = command.spawn().map_err(|error| Refusal::io("a process", &error))?;
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| Refusal::failed("a process without a number".to_owned()))?;
    Ok((child, pid))
}

fn os(octets: Vec<u8>) -> std::ffi::OsString {
    std::os::unix::ffi::OsStringExt::from_vec(octets)
}

/// What no process can have.
fn check(process: &Process) -> Result<(), Refusal> {
    let words: &[Vec<u8>] = match &process.run {
        Run::Command(line) => std::slice::from_ref(line),
        Run::Program { argv, .. } if argv.first().is_none_or(Vec::is_empty) => {
            return Err(Refusal::failed("no program is named".to_owned()));
        }
        Run::Program { argv, .. } => argv,
        Run::Shell | Run::Sftp => &[],
    };
    if words.iter().any(|word| word.contains(&0)) {
        return Err(Refusal::failed("a NUL in the command; it cannot be passed on".to_owned()));
    }
    let wrong = |(name, value): &(Vec<u8>, Vec<u8>)| {
        name.is_empty() || name.contains(&b'=') || name.contains(&0) || value.contains(&0)
    };
    if process.env.iter().any(wrong) {
        return Err(Refusal::failed(
            "a variable with no name, `=` in its name, or a NUL; it cannot be passed on".to_owned(),
        ));
    }
    Ok(())
}

/// Carries what there is to carry, says how the process ended, and carries what its terminal still holds.
async fn stay(shared: &Shared, id: Id, mut child: Child, terminal: Option<(Stream, Ways)>) {
    let Some((master, Ways { input, output })) = terminal else {
        let status = child.wait().await;
        return tell_exit(shared, id, status).await;
    };
    let mut typing = Pump::new(&input, &master, shared.scratch());
    let mut showing = Some(Pump::new(&master, &output, shared.scratch()));
    // Closed as soon as the last pump has done with them.
    drop((master, input, output));
    let status = {
        let carried = async {
            if let Some(pump) = &mut showing
                && pump.run().await == Stopped::Source
            {
                // No process has the terminal open.
                showing = None;
            }
            std::future::pending::<()>().await;
        };
        let typed = async {
            // As with sshd, that the client has no more to say is nothing to the terminal.
            typing.run().await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            status = child.wait() => status,
            () = carried => return,
            () = typed => return,
        }
    };
    tell_exit(shared, id, status).await;
    if let Some(mut pump) = showing {
        pump.drain(LEFT_MAX).await;
    }
}

async fn tell_exit(shared: &Shared, id: Id, status: io::Result<ExitStatus>) {
    // From here on its number may be another process's.
    shared.becomes(id, Kind::Other);
    match status {
        Ok(status) => shared.tell(&FromHelper::Exited { id, exit: exit(status) }).await,
        Err(error) => super::say(&format!("gantry-session: waiting for a process: {error}")),
    }
}

/// Sends a signal to the foreground of a process's terminal, or to its own group.
pub(super) fn signal(pid: Pid, master: Option<&Stream>, signal: Signal) {
    let foreground = master.and_then(|master| tcgetpgrp(master.get_ref().as_fd()).ok());
    signal_group(foreground.unwrap_or(pid), signal);
}

/// What a process without a terminal hears when its channel has gone.
pub(super) fn hang_up(pid: Pid) {
    signal_group(pid, Signal::HUP);
}

fn signal_group(group: Pid, signal: Signal) {
    // It has no group of its own before it has made its session; and it may just have ended.
    if kill_process_group(group, signal).is_err() {
        kill_process(group, signal).unwrap_or_default();
    }
}
