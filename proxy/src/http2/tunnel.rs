//! A stream that has left HTTP (RFC 8441): octets both ways in its frames of data.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::pipe::poll_room;

/// The client's end of a tunnel. Dropped before it was shut down, it resets the stream.
pub(super) struct Tunnel {
    send: SendStream<Bytes>,
    recv: RecvStream,
    /// What came and was not read yet.
    held: Bytes,
    shut: bool,
}

impl Tunnel {
    pub(super) fn new(send: SendStream<Bytes>, recv: RecvStream) -> Self {
        Self { send, recv, held: Bytes::new(), shut: false }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        if !self.shut {
            self.send.send_reset(Reason::CANCEL);
        }
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.held.is_empty() {
            match ready!(this.recv.poll_data(cx)) {
                Some(data) => this.held = data.map_err(io::Error::other)?,
                None => return Poll::Ready(Ok(())),
            }
        }
        let count = this.held.len().min(buf.remaining());
        buf.put_slice(&this.held.split_to(count));
        // It fails where nobody waits for a window any more.
        drop(this.recv.flow_control().release_capacity(count));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if octets.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let room = ready!(poll_room(cx, &mut this.send, octets.len()))?;
        let octets = octets.get(..room).unwrap_or(octets);
        let data = Bytes::copy_from_slice(octets);
        this.send.send_data(data, false).map_err(io::Error::other)?;
        Poll::Ready(Ok(octets.len()))
    }

    /// There is nothing to flush; but this is asked when the container has nothing to say, and a client
    /// that has reset its stream shows here.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.send.poll_reset(cx) {
            Poll::Ready(_) if !this.shut => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Poll::Ready(_) | Poll::Pending => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.shut {
            this.send.send_data(Bytes::new(), true).map_err(io::Error::other)?;
            this.shut = true;
        }
        Poll::Ready(Ok(()))
    }
}
