//! Between tasks that wait and threads that block.

use std::{
    io::{self, Read, Write},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, ReadBuf},
    runtime::Handle,
    sync::mpsc::{self, error::SendTimeoutError},
    time::MissedTickBehavior,
};
use tokio_util::sync::CancellationToken;

use super::Archive;

/// How much is handed over at a time, in bytes.
const PIECE_BYTES: usize = 256 << 10;

/// How many pieces wait to be read.
const PIECES_MAX: usize = 4;

/// How often one who waits for octets looks whether they are still wanted.
const LOOK: Duration = Duration::from_millis(50);

/// How long an archive may stand still: nothing comes, or nobody takes what is there.
pub(super) const IDLE: Duration = Duration::from_mins(1);

fn stands_still(what: &str) -> io::Error {
    let text = format!("{what} for {} s, so that the archive was given up", IDLE.as_secs());
    io::Error::new(io::ErrorKind::TimedOut, text)
}

/// The writing side of an archive, for a thread that may block. What is dropped without [`Sink::end`]
/// is told to the reader as a failure.
pub(crate) struct Sink {
    pieces: mpsc::Sender<io::Result<Bytes>>,
    buffer: Vec<u8>,
    handle: Handle,
    shutdown: CancellationToken,
    /// Whether somebody has begun to read.
    is_read: Arc<AtomicBool>,
}

/// The two ends of an archive that is made here. Writing fails once nobody reads, or at `shutdown`; and when who has
/// begun to read takes nothing for [`IDLE`]. Before that he may wait for something else.
/// Only within tokio.
pub(crate) fn pipe(shutdown: CancellationToken) -> (Sink, Archive) {
    let (pieces, receiver) = mpsc::channel(PIECES_MAX);
    let buffer = Vec::with_capacity(PIECE_BYTES);
    let is_read = Arc::new(AtomicBool::new(false));
    let archive = Archive::new(Pieces {
        receiver,
        piece: Bytes::new(),
        is_whole: false,
        is_read: Arc::clone(&is_read),
    });
    (Sink { pieces, buffer, handle: Handle::current(), shutdown, is_read }, archive)
}

impl Sink {
    /// Tells the reader that this was all, or what went wrong.
    pub(crate) fn end(mut self, written: io::Result<()>) {
        let last = match written.and_then(|()| self.flush()) {
            Ok(()) => Ok(Bytes::new()),
            Err(error) => Err(error),
        };
        if let Err(error) = self.send(last) {
            tracing::debug!(%error, "an archive was given up");
        }
    }

    fn send(&self, mut piece: io::Result<Bytes>) -> io::Result<()> {
        let gone = || io::Error::new(io::ErrorKind::BrokenPipe, "nobody reads the archive");
        self.handle.block_on(async {
            loop {
                let was_read = self.is_read.load(Ordering::Relaxed);
                let sent = tokio::select! {
                    biased;
                    () = self.shutdown.cancelled() => return Err(gone()),
                    sent = self.pieces.send_timeout(piece, IDLE) => sent,
                };
                piece = match sent {
                    Ok(()) => return Ok(()),
                    Err(SendTimeoutError::Closed(_)) => return Err(gone()),
                    Err(SendTimeoutError::Timeout(_)) if was_read => {
                        return Err(stands_still("nobody has read it"));
                    }
                    Err(SendTimeoutError::Timeout(piece)) => piece,
                };
            }
        })
    }
}

impl Write for Sink {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(octets);
        if self.buffer.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.buffer, Vec::with_capacity(PIECE_BYTES));
        self.send(Ok(piece.into()))
    }
}

/// The reading side. An empty piece is the end; an end without it is none.
struct Pieces {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
    is_whole: bool,
    is_read: Arc<AtomicBool>,
}

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.is_read.store(true, Ordering::Relaxed);
        if self.piece.is_empty() && !self.is_whole {
            let Some(piece) = ready!(self.receiver.poll_recv(cx)) else {
                let text = "whoever made the archive has left";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, text)));
            };
            self.piece = piece?;
            self.is_whole = self.piece.is_empty();
        }
        let room = buf.remaining().min(self.piece.len());
        buf.put_slice(&self.piece.split_to(room));
        Poll::Ready(Ok(()))
    }
}

/// An archive, for a thread that may block.
pub(crate) struct Blocking<F> {
    archive: Archive,
    piece: bytes::BytesMut,
    handle: Handle,
    /// Whether it is not wanted any more.
    is_unwanted: F,
}

impl<F: Fn() -> bool> Blocking<F> {
    /// Reading fails once it `is_unwanted`, and when nothing has come for [`IDLE`]. Only within tokio.
    pub(crate) fn new(archive: Archive, is_unwanted: F) -> Self {
        let piece = bytes::BytesMut::with_capacity(PIECE_BYTES);
        Self { archive, piece, handle: Handle::current(), is_unwanted }
    }
}

impl<F: Fn() -> bool> Read for Blocking<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() && !buffer.is_empty() {
            self.piece.clear();
            self.piece.reserve(PIECE_BYTES);
            let Self { archive, piece, handle, is_unwanted } = self;
            handle.block_on(async {
                let mut look = tokio::time::interval(LOOK);
                look.set_missed_tick_behavior(MissedTickBehavior::Delay);
                let mut read = std::pin::pin!(archive.read_buf(piece));
                let mut idle = std::pin::pin!(tokio::time::sleep(IDLE));
                loop {
                    tokio::select! {
                        biased;
                        _ = look.tick() => if is_unwanted() {
                            return Err(io::Error::other("the archive is not wanted any more"));
                        },
                        read = &mut read => return read,
                        () = &mut idle => return Err(stands_still("nothing has come of it")),
                    }
                }
            })?;
        }
        let length = buffer.len().min(self.piece.len());
        if let Some(room) = buffer.get_mut(..length) {
            self.piece.copy_to_slice(room);
        }
        Ok(length)
    }
}
