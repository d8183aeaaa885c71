//! The octets of one client's connection, which others can end, and which ends by itself when its client
//! takes nothing.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    sync::Notify,
    time::{Sleep, sleep},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// What others know of a connection, and end it by.
#[derive(Debug, Default)]
pub(super) struct Ends {
    /// Told when all was sent that there was.
    pub(super) flushed: Notify,
    /// Ends the connection.
    pub(super) cut: CancellationToken,
    /// It has ended.
    pub(super) gone: CancellationToken,
}

type Cut = Pin<Box<WaitForCancellationFutureOwned>>;

/// A connection.
pub(super) struct Line {
    io: DuplexStream,
    ends: Arc<Ends>,
    /// Wake whoever reads and whoever writes when it is cut.
    reads: Cut,
    writes: Cut,
    /// How long the client may take nothing while there is something for it.
    stalled_max: Duration,
    /// Until when it must take something.
    patience: Option<Pin<Box<Sleep>>>,
}

impl Line {
    pub(super) fn new(io: DuplexStream, ends: Arc<Ends>, stalled_max: Duration) -> Self {
        let cut = || Box::pin(ends.cut.clone().cancelled_owned());
        let (reads, writes) = (cut(), cut());
        Self { io, ends, reads, writes, stalled_max, patience: None }
    }
}

/// Whether the connection was cut; the task is woken when it is.
fn look(cut: &mut Cut, cx: &mut Context<'_>) -> io::Result<()> {
    match cut.as_mut().poll(cx) {
        Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
        Poll::Pending => Ok(()),
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.ends.gone.cancel();
    }
}

impl AsyncRead for Line {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        look(&mut this.reads, cx)?;
        Pin::new(&mut this.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        look(&mut this.writes, cx)?;
        let polled = Pin::new(&mut this.io).poll_write(cx, octets);
        if polled.is_ready() {
            this.patience = None;
            return polled;
        }
        let stalled_max = this.stalled_max;
        let patience = this.patience.get_or_insert_with(|| Box::pin(sleep(stalled_max)));
        if patience.as_mut().poll(cx).is_ready() {
            tracing::debug!("a client of the live feed takes nothing and is cut");
            // Whoever reads is to hear of it, too.
            this.ends.cut.cancel();
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_flush(cx);
        if polled.is_ready() {
            this.ends.flushed.notify_one();
        }
        polled
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, duplex, split},
        time::timeout,
    };

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_cut_on_both_ways() {
        let (mut client, io) = duplex(64);
        let ends = Arc::<Ends>::default();
        let line = Line::new(io, Arc::clone(&ends), Duration::from_millis(50));
        let (mut reads, mut writes) = split(line);
        writes.write_all(&[0; 64]).await.unwrap();
        let (read, written) = timeout(LONG, async {
            let mut octet = [0];
            tokio::join!(reads.read(&mut octet), writes.write_all(&[0; 64]))
        })
        .await
        .unwrap();
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        assert!(!ends.gone.is_cancelled());
        drop((reads, writes));
        assert!(ends.gone.is_cancelled());
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest.len(), 64, "what was sent before is not lost");
    }

    #[tokio::test]
    async fn a_cut_ends_who_waits() {
        let (_client, io) = duplex(64);
        let ends = Arc::<Ends>::default();
        let (mut reads, mut writes) = split(Line::new(io, Arc::clone(&ends), LONG));
        let (read, written, ()) = timeout(LONG, async {
            let mut octet = [0];
            let cut = async { ends.cut.cancel() };
            tokio::join!(reads.read(&mut octet), writes.write_all(&[0; 65]), cut)
        })
        .await
        .unwrap();
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }
}
