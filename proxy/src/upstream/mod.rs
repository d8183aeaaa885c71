//! Connections to containers: dialling, one exchange, the response body that brings a connection
//! back to its pool.
//!
//! HTTP/1.1 is spoken by a client of our own ([`channel`]), HTTP/2 by [`crate::multiplex`].

mod body;
mod channel;
mod dial;
mod response;
mod writer;

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use gantry_model::Scheme;
use http::Response;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use crate::{
    body::{Progress, RequestBody},
    http2::Receiving,
    multiplex::Lane,
    proxy_protocol::Ends,
    watch::{Origin, Over},
};

pub(crate) use self::{
    body::{UpstreamBody, give_back},
    channel::{Broken, Channel, INTERIMS_MAX, Terms},
    dial::{DialError, DialRules, dial, transparent_socket},
    writer::{Framing, Message, write_field},
};

/// Where one service of one container answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Endpoint {
    pub(crate) origin: Origin,
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    pub(crate) scheme: Scheme,
    /// Whether the certificate of an HTTPS port must be one that the public authorities vouch for.
    pub(crate) verify: bool,
}

/// What a TLS port is offered to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    /// HTTP/1.1, which upgrades need.
    Http1,
    /// HTTP/2, or else HTTP/1.1.
    Http2,
}

/// How a container learns who the client is, beside fields.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Introduction {
    /// What a header of the PROXY protocol says before everything else.
    pub(crate) header: Option<Ends>,
    /// The client's address, from which the connection comes.
    pub(crate) bind: Option<Ipv4Addr>,
}

/// A stream to a container.
#[derive(Debug)]
pub(crate) enum UpstreamIo {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Why an exchange brought no response.
#[derive(Debug)]
pub(crate) enum ExchangeError {
    /// Nothing was sent; the request's body comes back.
    Unsent(RequestBody),
    /// The connection broke after something was sent, before a response came.
    Broken(Broken),
    /// The client's body broke or was late.
    Body,
    /// No response in time.
    Timeout,
    /// The container was stopped, deleted or started anew.
    Cut,
}

impl UpstreamIo {
    /// Whether the other side has chosen HTTP/2.
    pub(crate) fn is_http2(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(b"h2"),
        }
    }

    /// Has the kernel end the connection when the other side has taken nothing for so long of what is
    /// being sent. A connection that streams share cannot be looked after by one of them.
    pub(crate) fn give_up_after(&self, time: Duration) {
        let tcp = match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(stream) => stream.get_ref().0,
        };
        // Where the kernel does not know it, the answers' deadlines are left.
        drop(SockRef::from(tcp).set_tcp_user_timeout(Some(time)));
    }
}

/// Whether a response that has not come is late. While the request's body moves it is not.
pub(crate) fn poll_late(cx: &Context<'_>, terms: &Terms<'_>) -> Poll<ExchangeError> {
    let wait = terms.wait;
    match wait.poll_over(cx) {
        None => Poll::Pending,
        Some(Over::Cut) => Poll::Ready(ExchangeError::Cut),
        Some(Over::Deadline) => {
            let moved = terms.progress.map_or(0, Progress::last);
            let watch = wait.watch();
            let extended = moved.saturating_add(watch.after(terms.timeout) - watch.now());
            if extended <= watch.now() {
                return Poll::Ready(ExchangeError::Timeout);
            }
            wait.until(extended);
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    }
}

/// What one exchange has of the connection that it goes over.
#[derive(Debug)]
pub(crate) enum Lease {
    /// All of it. Boxed, because it is large and moves with each request.
    Http1(Box<Channel>),
    /// One stream.
    Http2(Lane),
}

/// Where the body of a response comes from.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// The channel of the lease.
    Http1,
    Http2(Receiving),
}

/// A response without its body, which the lease brings.
pub(crate) fn by_channel(response: Response<()>) -> Response<Incoming> {
    response.map(|()| Incoming::Http1)
}

impl AsyncRead for UpstreamIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for UpstreamIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, octets),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, octets),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
