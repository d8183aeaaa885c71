//! Reading what a process says.

use std::{io, time::Duration};

use bytes::BytesMut;
use tokio::{
    net::unix::pipe,
    task::yield_now,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::Meter;

/// How much is read at once, in octets.
const PIECE: usize = 32 << 10;
/// A process that has ended may have left its output to others, such as services that it has started. What
/// they say is waited for until they are silent for so long,
const QUIET: Duration = Duration::from_secs(1);
/// and so long in all.
const LINGER: Duration = Duration::from_secs(5);
/// What may be in a pipe, in octets: so much is read after the end even if its reader was held up for longer.
const PIPE_MAX: usize = 1 << 20;

/// Reads a stream of a process until its end, or until nothing more is waited for.
#[derive(Debug)]
pub(super) struct Reader<'e> {
    from: pipe::Receiver,
    /// Cancelled when the process has ended,
    exited: &'e CancellationToken,
    meter: &'e dyn Meter,
    /// how long what others say is waited for then,
    until: Option<Instant>,
    /// and how much of it may be what the process itself has said.
    left: usize,
}

impl<'e> Reader<'e> {
    pub(super) fn new(
        from: pipe::Receiver,
        exited: &'e CancellationToken,
        meter: &'e dyn Meter,
    ) -> Self {
        Self { from, exited, meter, until: None, left: PIPE_MAX }
    }

    /// Reads what is there, behind `lead`. Gives 0 at the end, and when the process has ended and nothing more
    /// is said, or too much. No buffer is held while there is nothing. Cancel-safe.
    pub(super) async fn some(&mut self, buffer: &mut BytesMut, lead: &[u8]) -> io::Result<usize> {
        loop {
            // A pipe may always have something. What else is done in this task has its turn, too; with a budget
            // that is used up here, its timers would never be over.
            yield_now().await;
            let is_over = self.is_over();
            if is_over && self.left == 0 {
                return Ok(0);
            }
            if !is_over {
                tokio::select! {
                    biased;
                    ready = self.from.readable() => ready?,
                    () = quiet(self.exited, &mut self.until) => return Ok(0),
                }
            }
            buffer.clear();
            buffer.reserve(PIECE + lead.len());
            buffer.extend_from_slice(lead);
            match self.from.try_read_buf(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    *buffer = BytesMut::new();
                    if is_over {
                        return Ok(0);
                    }
                }
                Ok(count) => {
                    self.meter.said(count);
                    if self.until.is_some() {
                        self.left = self.left.saturating_sub(count);
                    }
                    return Ok(count);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether nothing more is waited for.
    fn is_over(&mut self) -> bool {
        let now = Instant::now();
        self.exited.is_cancelled() && now >= *self.until.get_or_insert(now + LINGER)
    }
}

/// Waits until a process that has ended has left nobody who says anything for a while.
async fn quiet(exited: &CancellationToken, until: &mut Option<Instant>) {
    exited.cancelled().await;
    let now = Instant::now();
    let until = *until.get_or_insert(now + LINGER);
    sleep_until(until.min(now + QUIET)).await;
}
