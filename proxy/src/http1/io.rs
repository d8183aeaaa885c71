//! A client's stream, with or without TLS.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

/// When a client that sends nothing more is asked for the first time whether it is still there, how
/// often after that, and how many answers may be missing.
const PROBE_IDLE: Duration = Duration::from_secs(15);
const PROBE_INTERVAL: Duration = Duration::from_secs(15);
const PROBES: u32 = 3;

/// A TCP stream that knows how much went out. Behind TLS it alone tells whether a client takes
/// anything: what TLS takes may stay in its own buffer.
#[derive(Debug)]
pub(crate) struct Socket {
    tcp: TcpStream,
    sent: u64,
}

impl Socket {
    pub(crate) fn new(tcp: TcpStream) -> Self {
        Self { tcp, sent: 0 }
    }

    fn count(&mut self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(octets)) = polled {
            self.sent = self.sent.wrapping_add(u64::try_from(octets).unwrap_or(0));
        }
        polled
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.tcp).poll_write(cx, octets);
        this.count(polled)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = match slices {
            // What TLS sends is one record as a rule, and the kernel has less to do for `send`.
            [one] => Pin::new(&mut this.tcp).poll_write(cx, one),
            _ => Pin::new(&mut this.tcp).poll_write_vectored(cx, slices),
        };
        this.count(polled)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(cx)
    }
}

/// A client's stream.
#[derive(Debug)]
pub(crate) enum ClientIo {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

impl ClientIo {
    fn socket(&self) -> &Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }

    /// Reads what there is, at most as much as `into` holds; 0 is the end. Unlike a read of the TLS stream, it does
    /// not look a second time: that is left to whoever waits.
    pub(crate) fn poll_some(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(socket) => {
                let mut buf = ReadBuf::new(into);
                ready!(Pin::new(socket).poll_read(cx, &mut buf))?;
                Poll::Ready(Ok(buf.filled().len()))
            }
            Self::Tls(stream) => {
                let octets = ready!(Pin::new(&mut **stream).poll_fill_buf(cx))?;
                let count = octets.len().min(into.len());
                if let (Some(into), Some(octets)) = (into.get_mut(..count), octets.get(..count)) {
                    into.copy_from_slice(octets);
                }
                Pin::new(stream).consume(count);
                Poll::Ready(Ok(count))
            }
        }
    }

    /// How many octets went out to the client's machine, of TLS where there is TLS.
    pub(crate) fn sent(&self) -> u64 {
        self.socket().sent
    }

    /// Has the kernel ask from time to time whether a client is still there that sends nothing more:
    /// from here one that has left looks like one that has only ended its side.
    pub(crate) fn probe(&self) {
        let keepalive = TcpKeepalive::new()
            .with_time(PROBE_IDLE)
            .with_interval(PROBE_INTERVAL)
            .with_retries(PROBES);
        // Without it the client is missed when the answer is written.
        drop(SockRef::from(&self.socket().tcp).set_tcp_keepalive(&keepalive));
    }

    /// Whether a client that sends nothing more has left altogether, as far as that is known.
    pub(crate) fn is_broken(&self) -> bool {
        !matches!(self.socket().tcp.take_error(), Ok(None))
    }

    /// Lets the stream end in a way that does not look like the end of an answer.
    pub(crate) fn reset(&self) {
        // If it fails, the connection is gone already.
        drop(SockRef::from(&self.socket().tcp).set_linger(Some(Duration::ZERO)));
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, octets),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, octets),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            // The kernel has it.
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
