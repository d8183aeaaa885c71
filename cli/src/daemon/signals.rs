//! What the operating system asks for.

use tokio::signal::unix::{Signal, SignalKind, signal};

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

    /// Waits until somebody wants Gantry to end. `SIGHUP` does not: configuration is read once, at
    /// the start, so it only says that a restart is needed.
    pub(super) async fn end(&mut self) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hangup.recv() => tracing::info!(
                    "SIGHUP: the configuration is read at the start only; \
                     `gantry config check` checks it, a restart takes it over"
                ),
            }
        }
    }
}
