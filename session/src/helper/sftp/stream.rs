//! Standard input and output as one stream, which waits where it is read and written.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, BufWriter, Write as _},
    os::fd::AsFd as _,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How much is read and written at once, in octets.
const PIECE: usize = 128 * 1024;

/// Blocks; for a process with nothing else to do.
pub(super) struct Standard {
    input: BufReader<File>,
    output: BufWriter<File>,
}

impl Standard {
    pub(super) fn new() -> io::Result<Self> {
        let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        Ok(Self {
            input: BufReader::with_capacity(PIECE, input),
            output: BufWriter::with_capacity(PIECE, output),
        })
    }

    fn read(&mut self, room: usize) -> io::Result<&[u8]> {
        if self.input.buffer().is_empty() {
            // Nothing more is known to come: what has been answered goes out.
            self.output.flush()?;
        }
        let octets = self.input.fill_buf()?;
        Ok(octets.get(..room).unwrap_or(octets))
    }
}

impl AsyncRead for Standard {
    fn poll_read(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // What cannot be read or answered any more is the end; the library would try for ever.
        let octets = this.read(into.remaining()).unwrap_or_default();
        into.put_slice(octets);
        let read = octets.len();
        this.input.consume(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Standard {
    fn poll_write(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(self.get_mut().output.write(octets))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Before it waits for more, see above.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.get_mut().output.flush())
    }
}
