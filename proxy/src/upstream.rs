//! Connections to containers: dialling, one exchange, the response body that brings a connection
//! back to its pool.
//!
//! A connection has no task of its own. The request that uses it drives it, and nobody drives it
//! while it is idle; that saves a task, its wake-ups and two queues per request.

use std::{
    future::{Future, poll_fn},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use gantry_model::Scheme;
use http::{Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use rustls::pki_types::ServerName;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpSocket, TcpStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    bell::Bell,
    body::{Progress, RequestBody},
    deps::BoxError,
    downstream::Downstream,
    headers::clean_trailers,
    multiplex::Lane,
    pool::PoolKey,
    proxy_protocol::{self, Ends},
    stalled::Stream,
    tls::Tls,
    watch::{Origin, Over, Wait},
    worker::Worker,
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

/// A connection to a container that speaks HTTP/1.1; one exchange at a time.
#[derive(Debug)]
pub(crate) struct Channel {
    sender: SendRequest<RequestBody>,
    /// Dropped when it has ended: a request that still waits in it comes back then. Boxed, because
    /// it is large and moves with each request.
    connection: Option<Box<Connection>>,
    bell: Bell,
}

type Connection = http1::Connection<TokioIo<UpstreamIo>, RequestBody>;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// The address is none that containers have.
    #[error("{0} is not an address of a container")]
    Forbidden(IpAddr),
    /// Nothing listens there.
    #[error("connection refused")]
    Refused,
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The network does not lead there.
    #[error("unreachable")]
    Unreachable(#[source] io::Error),
    /// What listens there does not speak TLS.
    #[error("no TLS handshake")]
    Tls(#[source] io::Error),
}

/// Why an exchange brought no response.
#[derive(Debug)]
pub(crate) enum ExchangeError {
    /// Nothing was sent; the request comes back.
    Unsent(Box<Request<RequestBody>>),
    /// The connection broke after something was sent, before a response came.
    Broken(hyper::Error),
    /// The client's body broke or was late.
    Body,
    /// No response in time.
    Timeout,
    /// The container was stopped, deleted or started anew.
    Cut,
}

/// Which addresses may be dialled.
#[derive(Clone, Debug)]
pub(crate) struct DialRules {
    networks: Vec<IpNet>,
}

impl DialRules {
    pub(crate) fn new(networks: Vec<IpNet>) -> Self {
        Self { networks }
    }

    fn allow(&self, address: IpAddr) -> bool {
        let link_local = match address {
            IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
            IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some(),
        };
        let loopback = |network: &IpNet| network.network().is_loopback();
        !link_local
            && !address.is_unspecified()
            && !address.is_multicast()
            && self.networks.iter().any(|network| {
                network.contains(&address) && (!address.is_loopback() || loopback(network))
            })
    }
}

/// Connects to `endpoint`, whose name for TLS is `host`. The caller bounds the time.
pub(crate) async fn dial(
    endpoint: Endpoint,
    host: Option<&str>,
    offer: Offer,
    introduction: Introduction,
    rules: &DialRules,
    tls: &Tls,
) -> Result<UpstreamIo, DialError> {
    if !rules.allow(endpoint.address) {
        return Err(DialError::Forbidden(endpoint.address));
    }
    let target = SocketAddr::new(endpoint.address, endpoint.port);
    let connected = match introduction.bind {
        None => TcpStream::connect(target).await,
        Some(source) => connect_from(source, target).await,
    };
    let mut stream = connected.map_err(|error| {
        use io::ErrorKind::{ConnectionRefused, ConnectionReset, TimedOut};
        let kind = error.kind();
        if matches!(kind, ConnectionRefused | ConnectionReset) {
            DialError::Refused
        } else if kind == TimedOut {
            DialError::Timeout
        } else {
            DialError::Unreachable(error)
        }
    })?;
    let ends = stream.peer_addr().and_then(|peer| Ok((peer, stream.local_addr()?)));
    let (peer, local) = ends.map_err(DialError::Unreachable)?;
    // One address at both ends is this machine's own: not a container, whatever the record says.
    if peer != target || local.ip() == peer.ip() {
        return Err(DialError::Forbidden(endpoint.address));
    }
    stream.set_nodelay(true).map_err(DialError::Unreachable)?;
    if let Some(ends) = introduction.header {
        let mut header = Vec::new();
        proxy_protocol::write(ends, &mut header);
        stream.write_all(&header).await.map_err(DialError::Unreachable)?;
    }
    match endpoint.scheme {
        Scheme::Http => Ok(UpstreamIo::Plain(stream)),
        Scheme::Https => {
            let name = host.and_then(|host| ServerName::try_from(host.to_owned()).ok());
            let name = name.unwrap_or_else(|| ServerName::IpAddress(endpoint.address.into()));
            let connector = TlsConnector::from(tls.client(offer, endpoint.verify));
            let stream = connector.connect(name, stream).await.map_err(DialError::Tls)?;
            Ok(UpstreamIo::Tls(Box::new(stream)))
        }
    }
}

/// A socket for connections that come from the address of somebody else.
pub(crate) fn transparent_socket() -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_ip_transparent_v4(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

async fn connect_from(source: Ipv4Addr, target: SocketAddr) -> io::Result<TcpStream> {
    let socket = transparent_socket()?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    TcpSocket::from_std_stream(socket.into()).connect(target).await
}

impl UpstreamIo {
    /// Whether the other side has chosen HTTP/2.
    pub(crate) fn is_http2(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(b"h2"),
        }
    }
}

/// Whether a response that has not come is late. While the request's body moves it is not.
pub(crate) fn poll_late(
    cx: &Context<'_>,
    wait: &Wait,
    progress: Option<&Progress>,
    timeout: Duration,
) -> Poll<ExchangeError> {
    match wait.poll_over(cx) {
        None => Poll::Pending,
        Some(Over::Cut) => Poll::Ready(ExchangeError::Cut),
        Some(Over::Deadline) => {
            let moved = progress.map_or(0, Progress::last);
            let watch = wait.watch();
            let extended = moved.saturating_add(watch.after(timeout) - watch.now());
            if extended <= watch.now() {
                return Poll::Ready(ExchangeError::Timeout);
            }
            wait.until(extended);
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    }
}

impl Channel {
    /// Speaks HTTP/1.1 over `io`.
    pub(crate) async fn open(io: UpstreamIo) -> Result<Self, hyper::Error> {
        let (sender, connection) =
            http1::Builder::new().max_buf_size(256 * 1024).handshake(TokioIo::new(io)).await?;
        Ok(Self { sender, connection: Some(Box::new(connection)), bell: Bell::new() })
    }

    /// Sends a request and waits for the head of its response. While the request's body moves
    /// (`progress`), the response is not late.
    pub(crate) async fn exchange(
        &mut self,
        request: Request<RequestBody>,
        wait: &Wait,
        progress: Option<&Progress>,
        timeout: Duration,
    ) -> Result<Response<Incoming>, ExchangeError> {
        wait.within(timeout);
        let (sender, bell) = (&mut self.sender, &self.bell);
        let mut response = pin!(bell.unheard(|| sender.try_send_request(request)));
        let connection = &mut self.connection;
        poll_fn(|cx| {
            let ended = poll_connection(connection, bell, cx).is_ready();
            // Only driving the connection brings a response, so that it need not wake anybody.
            let mut unheard = Context::from_waker(Waker::noop());
            let mut polled = response.as_mut().poll(&mut unheard);
            if ended && polled.is_pending() {
                *connection = None;
                polled = response.as_mut().poll(&mut unheard);
            }
            match polled {
                Poll::Ready(Ok(response)) => Poll::Ready(Ok(response)),
                Poll::Ready(Err(mut failed)) => Poll::Ready(Err(match failed.take_message() {
                    Some(request) => ExchangeError::Unsent(Box::new(request)),
                    None if failed.error().is_user() => ExchangeError::Body,
                    None => ExchangeError::Broken(failed.into_error()),
                })),
                Poll::Pending => poll_late(cx, wait, progress, timeout).map(Err),
            }
        })
        .await
    }

    /// Lets the connection come to rest after a response; says whether it can be used again. Reading
    /// the end of the response has brought it that far as a rule, and what else has come is looked at
    /// before the next request is sent.
    pub(crate) fn rest(&mut self) -> bool {
        self.bell.forget();
        (self.connection.is_some() && self.sender.is_ready()) || self.is_open()
    }

    /// Looks whether an idle connection is still open.
    pub(crate) fn is_open(&mut self) -> bool {
        let mut nobody = Context::from_waker(Waker::noop());
        let ended = poll_connection(&mut self.connection, &self.bell, &mut nobody).is_ready();
        self.bell.forget();
        !ended && self.sender.is_ready()
    }

    /// Polls the body of the present response, and drives the connection if that brings nothing.
    fn poll_body(&mut self, cx: &mut Context<'_>, incoming: &mut Incoming) -> Polled {
        let first = self.bell.unheard(|| Pin::new(&mut *incoming).poll_frame(cx));
        if first.is_ready() {
            return first;
        }
        // An error shows in the body.
        let _ended = poll_connection(&mut self.connection, &self.bell, cx);
        self.bell.unheard(|| Pin::new(incoming).poll_frame(cx))
    }

    /// Leaves HTTP after a 101: the stream, and what was read of it already.
    pub(crate) async fn into_stream(mut self) -> Result<(UpstreamIo, Bytes), Gone> {
        poll_fn(|cx| poll_connection(&mut self.connection, &self.bell, cx)).await;
        let parts = self.connection.ok_or(Gone)?.into_parts();
        Ok((parts.io.into_inner(), parts.read_buf))
    }
}

type Polled = Poll<Option<Result<Frame<Bytes>, hyper::Error>>>;

/// A connection that has ended already.
#[derive(Debug)]
pub(crate) struct Gone;

/// Drives a connection; ready when it has ended, by an error or not.
fn poll_connection(
    connection: &mut Option<Box<Connection>>,
    bell: &Bell,
    cx: &mut Context<'_>,
) -> Poll<()> {
    match connection {
        Some(connection) => {
            let mut cx = Context::from_waker(bell.ring_for(cx));
            connection.poll_without_shutdown(&mut cx).map(drop)
        }
        None => Poll::Ready(()),
    }
}

/// What one exchange has of the connection that it goes over.
#[derive(Debug)]
pub(crate) enum Lease {
    /// All of it.
    Http1(Channel),
    /// One stream.
    Http2(Lane),
}

impl Lease {
    /// Sends a request and waits for the head of its response. While the request's body moves
    /// (`progress`), the response is not late.
    pub(crate) async fn exchange(
        &mut self,
        request: Request<RequestBody>,
        wait: &Wait,
        progress: Option<&Progress>,
        timeout: Duration,
    ) -> Result<Response<Incoming>, ExchangeError> {
        match self {
            Self::Http1(channel) => channel.exchange(request, wait, progress, timeout).await,
            Self::Http2(lane) => lane.exchange(request, wait, progress, timeout).await,
        }
    }
}

/// The body of a container's response.
#[derive(Debug)]
pub(crate) struct UpstreamBody {
    incoming: Incoming,
    lease: Option<Lease>,
    key: PoolKey,
    /// The client for whom the connection was made, if it is for nobody else.
    home: Option<Rc<Downstream>>,
    wait: Rc<Wait>,
    stream: Option<Rc<Stream>>,
    worker: Rc<Worker>,
}

impl UpstreamBody {
    pub(crate) fn new(
        worker: Rc<Worker>,
        incoming: Incoming,
        lease: Lease,
        (key, home): (PoolKey, Option<Rc<Downstream>>),
        wait: Wait,
    ) -> Self {
        wait.within(worker.limits().stream_idle);
        let wait = Rc::new(wait);
        let stream = worker.stream();
        if let Some(stream) = &stream {
            stream.sends(&wait);
        }
        Self { incoming, lease: Some(lease), key, home, wait, stream, worker }
    }

    /// The body is complete: the connection goes back to the pool, if it can be used again.
    pub(crate) fn release(&mut self) {
        let Some(lease) = self.lease.take() else { return };
        let now = self.wait.watch().now();
        match lease {
            Lease::Http2(lane) => lane.rest(now),
            Lease::Http1(mut channel) => {
                if channel.rest() {
                    match &self.home {
                        None => self.worker.pool().put(self.key, channel, now),
                        Some(client) => client.keep_own(self.key, channel),
                    }
                }
            }
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = match &mut self.lease {
            Some(Lease::Http1(channel)) => channel.poll_body(cx, &mut self.incoming),
            Some(Lease::Http2(_)) | None => Pin::new(&mut self.incoming).poll_frame(cx),
        };
        if let Some(stream) = &self.stream {
            stream.asked(polled.is_ready());
        }
        if polled.is_pending() {
            return match self.wait.poll_over(cx) {
                None => Poll::Pending,
                Some(Over::Deadline) => {
                    Poll::Ready(Some(Err("the response was silent for too long".into())))
                }
                Some(Over::Cut) => Poll::Ready(Some(Err("the container does not run".into()))),
            };
        }
        let mut frame = ready!(polled);
        if let Some(Ok(frame)) = &mut frame
            && let Some(trailers) = frame.trailers_mut()
        {
            clean_trailers(trailers);
        }
        match &frame {
            // Nobody asks again after trailers.
            Some(Ok(frame)) if !frame.is_trailers() && !self.incoming.is_end_stream() => {
                self.wait.within(self.worker.limits().stream_idle);
            }
            Some(Ok(_)) | None => self.release(),
            Some(Err(_)) => self.lease = None,
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_containers_are_dialled() {
        let rules = |networks: &[&str]| {
            DialRules::new(networks.iter().map(|text| text.parse().unwrap()).collect())
        };
        let bridge = rules(&["10.88.0.0/16", "fd00::/64"]);
        for (address, allowed) in [
            ("10.88.0.7", true),
            ("fd00::7", true),
            ("10.89.0.7", false),
            ("127.0.0.1", false),
            ("169.254.169.254", false),
            ("::1", false),
            ("::ffff:10.88.0.7", false),
            ("0.0.0.0", false),
        ] {
            assert_eq!(bridge.allow(address.parse().unwrap()), allowed, "{address}");
        }
        let everything = rules(&["0.0.0.0/0", "::/0"]);
        for address in ["127.0.0.1", "169.254.169.254", "::1", "fe80::1", "224.0.0.1"] {
            assert!(!everything.allow(address.parse().unwrap()), "{address} in a wide network");
        }
        assert!(rules(&["127.77.0.0/16"]).allow("127.77.0.1".parse().unwrap()));
    }
}
