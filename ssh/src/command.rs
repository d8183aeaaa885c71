//! Processes inside containers for others than clients of SSH.
//!
//! They go through the same links to the same helpers as channels do, and take the same places.

use gantry_model::ContainerId;
use gantry_session::protocol::{Exit, Process, Size, ToHelper};
use tokio::net::unix::pipe;

use crate::{
    Front,
    channel::{Sink, Source, Streams},
    doors::NoWay,
    link::{Ticket, Told},
    pulse::Pulse,
};

/// A process that runs. Dropped, it is hung up.
#[derive(Debug)]
pub struct Running {
    /// Its input. Dropped, that has ended.
    pub input: pipe::Sender,
    /// Its output, and with a terminal its errors, too.
    pub output: pipe::Receiver,
    /// Its errors, without a terminal.
    pub errors: Option<pipe::Receiver>,
    /// The process itself.
    pub process: Held,
    /// To be told of its octets.
    pub pulse: Pulse,
}

/// A process that is held by whoever started it.
#[derive(Debug)]
pub struct Held(Ticket);

/// Why there is no process.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotStarted {
    /// There is no way into the container.
    #[error("the container {0}")]
    NoWay(#[from] NoWay),
    /// As much is open in it as may be, or on this server.
    #[error("too much is open in this container, or on this server")]
    Full,
    /// The helper did not start it, for this reason.
    #[error("{0}")]
    Refused(String),
}

impl Held {
    /// Waits for its end; `None` if its container has ended, or what looks after it there. Cancel-safe.
    pub async fn ended(&mut self) -> Option<Exit> {
        loop {
            match self.0.told().await? {
                Told::Exited(exit) => return Some(exit),
                Told::Accepted { id, .. } => self.0.link().leave(id),
                Told::Started | Told::Refused(..) | Told::Listening(_) | Told::Closed => {}
            }
        }
    }

    /// Its terminal has another size.
    pub fn resize(&self, size: Size) {
        self.0.tell(|id| ToHelper::Resize { id, size });
    }

    /// Sends it a signal, by its name without `SIG`.
    pub fn signal(&self, name: &str) {
        self.0.tell(|id| ToHelper::Signal { id, name: name.to_owned() });
    }
}

impl Front {
    /// Starts a process in this start of a running container. Whoever asks has made sure that it may be.
    pub async fn start(
        &self,
        container: ContainerId,
        generation: u64,
        process: Process,
    ) -> Result<Running, NotStarted> {
        let shared = self.shared();
        let link = shared.links.get(container, generation, &*shared.ways, &shared.means).await?;
        let streams = Streams::new(process.terminal.is_some()).map_err(|error| {
            tracing::error!(%error, "no streams for a command");
            NotStarted::Full
        })?;
        let begun = link.begin(|id| ToHelper::Start { id, process }, streams.theirs, None);
        let mut ticket = begun.ok_or(NotStarted::Full)?;
        match ticket.told().await {
            Some(Told::Started) => {}
            Some(Told::Refused(_, message)) => return Err(NotStarted::Refused(message)),
            Some(Told::Exited(_) | Told::Listening(_) | Told::Accepted { .. } | Told::Closed)
            | None => {
                return Err(NoWay::NotRunning.into());
            }
        }
        let (Sink(input), Source(output)) = (streams.sink, streams.out);
        let errors = streams.errors.map(|Source(errors)| errors);
        let pulse = shared.pulse(container);
        Ok(Running { input, output, errors, process: Held(ticket), pulse })
    }
}
