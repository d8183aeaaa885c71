//! Connects the API to what runs inside containers: the links of the SSH front.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use gantry_api::{
    Command, Commands, Ended, Meter, NotStarted, Running, RunningProcess, TerminalSize,
};
use gantry_model::ContainerId;
use gantry_session::protocol::{Exit, Process, Run, Size, Terminal};
use gantry_ssh::{Front, Held, NoWay, Pulse};

/// The session helpers run the API's commands.
pub(super) struct Helpers(pub(super) Arc<Front>);

/// A process of a helper.
#[derive(Debug)]
struct OfHelper(Held);

impl Commands for Helpers {
    fn start(
        &self,
        container: ContainerId,
        generation: u64,
        command: Command,
    ) -> BoxFuture<'_, Result<Running, NotStarted>> {
        Box::pin(async move {
            let started = self.0.start(container, generation, process(command)).await;
            let gantry_ssh::Running { input, output, errors, process, pulse } =
                started.map_err(not_started)?;
            let (process, meter) = (Box::new(OfHelper(process)), Arc::new(Octets(pulse)));
            Ok(Running { input, output, errors, process, meter })
        })
    }
}

fn process(command: Command) -> Process {
    let octets = String::into_bytes;
    let run = match command.argv {
        argv if argv.is_empty() => Run::Shell,
        argv => Run::Program {
            argv: argv.into_iter().map(octets).collect(),
            directory: command.directory.map(octets),
        },
    };
    let terminal = command.terminal.map(|at| Terminal {
        // It is among the variables.
        term: String::new(),
        size: size(at),
        modes: Vec::new(),
    });
    Process {
        user: command.user,
        is_strict: true,
        run,
        env: command.env.into_iter().map(|(name, value)| (octets(name), octets(value))).collect(),
        terminal,
        agent: false,
        connection: None,
    }
}

fn size(at: TerminalSize) -> Size {
    Size { columns: at.columns, rows: at.rows, width: 0, height: 0 }
}

fn not_started(why: gantry_ssh::NotStarted) -> NotStarted {
    match why {
        gantry_ssh::NotStarted::NoWay(NoWay::NotRunning) => NotStarted::NotRunning,
        gantry_ssh::NotStarted::NoWay(NoWay::Paused) => NotStarted::Paused,
        gantry_ssh::NotStarted::NoWay(NoWay::NoPlace) => NotStarted::NoPlace,
        gantry_ssh::NotStarted::NoWay(NoWay::Failed) => NotStarted::Failed,
        gantry_ssh::NotStarted::Full => NotStarted::Full,
        gantry_ssh::NotStarted::Refused(why) => NotStarted::Refused(why),
    }
}

/// They keep a container awake.
#[derive(Debug)]
struct Octets(Pulse);

impl Meter for Octets {
    fn typed(&self) {
        self.0.typed();
    }

    fn said(&self, octets: usize) {
        self.0.said(octets);
    }
}

impl RunningProcess for OfHelper {
    fn ended(&mut self) -> BoxFuture<'_, Option<Ended>> {
        Box::pin(async {
            Some(match self.0.ended().await? {
                Exit::Status(status) => Ended::Status(status),
                Exit::Signal(name, _dumped) => Ended::Signal(name),
            })
        })
    }

    fn resize(&self, to: TerminalSize) {
        self.0.resize(size(to));
    }

    fn kill(&self) {
        self.0.signal("KILL");
    }
}
