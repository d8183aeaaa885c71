//! Reading what a process says.

use std::{io, time::Duration};

use bytes::BytesMut;
use tokio::{net::unix::pipe, time::sleep};
use tokio_util::sync::CancellationToken;

/// How much is read at once, in octets.
const PIECE: usize = 32 << 10;
/// A process that has ended may have left its output to others, such as services that it has started. What
/// they say is waited for so long.
const QUIET: Duration = Duration::from_secs(1);

/// Reads what is there, behind `lead`. Gives 0 at the end, and when the process has ended and nothing more
/// is said. No buffer is held while there is nothing. Cancel-safe.
pub(super) async fn some(
    from: &pipe::Receiver,
    buffer: &mut BytesMut,
    lead: &[u8],
    exited: &CancellationToken,
) -> io::Result<usize> {
    loop {
        tokio::select! {
            biased;
            ready = from.readable() => ready?,
            () = quiet(exited) => return Ok(0),
        }
        buffer.clear();
        buffer.reserve(PIECE + lead.len());
        buffer.extend_from_slice(lead);
        match from.try_read_buf(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => *buffer = BytesMut::new(),
            read => return read,
        }
    }
}

async fn quiet(exited: &CancellationToken) {
    exited.cancelled().await;
    sleep(QUIET).await;
}
