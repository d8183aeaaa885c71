//! What the operating system asks for.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The end, by this signal.
    End(&'static str),
    /// A new process with the program and the configuration that are there now.
    Upgrade,
}

/// The signals that Gantry listens to.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    pub(super) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits until somebody wants something.
    pub(super) async fn next(&mut self) -> Wanted {
        tokio::select! {
            _ = self.terminate.recv() => Wanted::End("SIGTERM"),
            _ = self.interrupt.recv() => Wanted::End("SIGINT"),
            _ = self.hangup.recv() => Wanted::Upgrade,
        }
    }

    /// Waits until somebody wants Gantry to end; nothing else is wanted of it at that time.
    pub(super) async fn end(&mut self) -> &'static str {
        loop {
            match self.next().await {
                Wanted::End(name) => return name,
                Wanted::Upgrade => tracing::info!("SIGHUP: not now"),
            }
        }
    }
}
