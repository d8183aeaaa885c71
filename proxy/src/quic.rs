//! QUIC as the HTTP/3 engine reads and writes it: quinn's streams behind the traits of `h3`.
//!
//! `h3` collects a frame that is not DATA until it is complete, however long it says it will be. The
//! streams here therefore have an allowance of octets that are read ahead of what was delivered; what
//! a client sends beyond it ends the stream. A stream also tells what the traits have no word for: how much
//! the client has taken, that it has broken its request off, and that it wants no more of the answer.

use std::{
    cell::Cell,
    future::Future,
    net::UdpSocket,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use h3::{
    error::Code,
    quic::{
        self, ConnectionErrorIncoming as ConnectionError, StreamErrorIncoming as StreamError,
        StreamId, WriteBuf,
    },
};
use quinn::{
    EndpointConfig, TokioRuntime, TransportConfig, VarInt, crypto::rustls::QuicServerConfig,
};

use crate::{
    ahead::{LEAST_OF_HTTP3, STREAM_WINDOW, Uploading, Window},
    http3_frames::Frames,
    steer::Ids,
    turns::{Place, Turns},
    worker::Worker,
};

/// The octets read at once.
const CHUNK: usize = 8 * 1024;
/// The octets of frames between two pieces of data that are always allowed.
const BETWEEN: u64 = 32;
/// What a request adds to what the client may say on its control streams, such as its priority.
const CONTROL_PER_REQUEST: u64 = 512;

/// What may be unacknowledged on the whole connection.
const SEND_WINDOW: u64 = 1024 * 1024;
/// A client's streams of control; three are in use.
const CONTROL_STREAMS: u32 = 8;
/// A client that does not answer for so long is gone; while it has requests it is asked in between.
const PEER_GONE: Duration = Duration::from_secs(30);
const ASK_EVERY: Duration = Duration::from_secs(10);

/// Octets that may still be read.
#[derive(Clone, Debug)]
pub(crate) struct Allowance(Arc<AtomicU64>);

impl Allowance {
    fn new(octets: u64) -> Self {
        Self(Arc::new(AtomicU64::new(octets)))
    }

    /// So much of what was read is data, and delivered.
    pub(crate) fn delivered(&self, octets: usize) {
        self.add(u64::try_from(octets).unwrap_or(u64::MAX).saturating_add(BETWEEN));
    }

    fn add(&self, octets: u64) {
        let more = |left: u64| Some(left.saturating_add(octets));
        // It always succeeds.
        _ = self.0.fetch_update(Relaxed, Relaxed, more);
    }

    fn take(&self, octets: usize) {
        let octets = u64::try_from(octets).unwrap_or(u64::MAX);
        let less = |left: u64| Some(left.saturating_sub(octets));
        _ = self.0.fetch_update(Relaxed, Relaxed, less);
    }

    fn left(&self) -> usize {
        usize::try_from(self.0.load(Relaxed)).unwrap_or(usize::MAX)
    }
}

/// A worker's socket and its place in the group.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) socket: UdpSocket,
    pub(crate) slot: usize,
    pub(crate) slots: usize,
}

/// What speaks QUIC on a worker's socket.
pub(crate) fn endpoint(
    worker: &Worker,
    seat: Seat,
) -> Result<quinn::Endpoint, Box<dyn std::error::Error>> {
    let limits = worker.limits();
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(limits.streams_max.into())
        .max_concurrent_uni_streams(CONTROL_STREAMS.into())
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(LEAST_OF_HTTP3.into())
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(None)
        .keep_alive_interval(Some(ASK_EVERY))
        .max_idle_timeout(Some(PEER_GONE.try_into()?));
    let crypto = QuicServerConfig::try_from(Arc::clone(&worker.tls().quic))?;
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    server.transport_config(Arc::new(transport));
    let mut config = EndpointConfig::default();
    let Seat { socket, slot, slots } = seat;
    config.cid_generator(move || Box::new(Ids::new(slot, slots)));
    Ok(quinn::Endpoint::new(config, Some(server), socket, Arc::new(TokioRuntime))?)
}

type Later<T> = Pin<Box<dyn Future<Output = T>>>;

/// Ends when the client wants no more of a stream, and is true then, or has all of it.
pub(crate) type Stopped = Later<bool>;

/// What the traits do not tell of a stream that was accepted.
pub(crate) struct Accepted {
    pub(crate) allowance: Allowance,
    /// The octets of the answer that the client has taken and nobody has asked for yet.
    pub(crate) taken: Rc<Cell<u64>>,
    /// Whether the client was found to have broken its request off.
    pub(crate) reset: Arc<AtomicBool>,
    pub(crate) stopped: Stopped,
}

/// What a request may send ahead, together with the others of its connection.
pub(crate) struct Ahead {
    connection: quinn::Connection,
    window: Rc<Window>,
}

impl Ahead {
    /// `window` is that of the whole connection.
    pub(crate) fn new(connection: quinn::Connection, window: Rc<Window>) -> Self {
        Self { connection, window }
    }

    /// The request has a body, of so many octets if that is known, which is under way until what is returned
    /// is dropped.
    pub(crate) fn begin(&self, length: Option<u64>) -> Uploading {
        let (uploading, wider) = self.window.begin(length);
        if let Some(octets) = wider {
            self.connection.set_receive_window(octets.into());
        }
        uploading
    }
}

/// A connection as `h3` drives it.
pub(crate) struct Connection {
    opener: Opener,
    bidi: Option<Later<Result<(quinn::SendStream, quinn::RecvStream), quinn::ConnectionError>>>,
    uni: Option<Later<Result<quinn::RecvStream, quinn::ConnectionError>>>,
    allowance: u64,
    control: Allowance,
    turns: Rc<Turns<StreamId>>,
    accepted: Box<dyn FnMut(Accepted)>,
}

impl Connection {
    /// `allowance` octets of each stream may be read ahead; `accepted` is told of each request's
    /// stream before `h3` returns it.
    pub(crate) fn new(
        connection: quinn::Connection,
        allowance: u64,
        accepted: impl FnMut(Accepted) + 'static,
    ) -> Self {
        Self {
            opener: Opener { connection, opening: None },
            bidi: None,
            uni: None,
            allowance,
            control: Allowance::new(allowance),
            turns: Rc::default(),
            accepted: Box::new(accepted),
        }
    }
}

impl quic::Connection<Bytes> for Connection {
    type RecvStream = RecvStream;
    type OpenStreams = Opener;

    fn poll_accept_recv(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<RecvStream, ConnectionError>> {
        let accepting = self.uni.get_or_insert_with(|| {
            let connection = self.opener.connection.clone();
            Box::pin(async move { connection.accept_uni().await })
        });
        let stream = ready!(accepting.as_mut().poll(cx));
        self.uni = None;
        let stream = stream.map_err(of_connection)?;
        Poll::Ready(RecvStream::new(stream, self.control.clone(), Arc::default()))
    }

    fn poll_accept_bidi(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<BidiStream, ConnectionError>> {
        let accepting = self.bidi.get_or_insert_with(|| {
            let connection = self.opener.connection.clone();
            Box::pin(async move { connection.accept_bi().await })
        });
        let streams = ready!(accepting.as_mut().poll(cx));
        self.bidi = None;
        let (send, recv) = streams.map_err(of_connection)?;
        let allowance = Allowance::new(self.allowance);
        self.control.add(CONTROL_PER_REQUEST);
        let (taken, reset) = (Rc::<Cell<u64>>::default(), Arc::<AtomicBool>::default());
        let stopped = send.stopped();
        (self.accepted)(Accepted {
            allowance: allowance.clone(),
            taken: Rc::clone(&taken),
            reset: Arc::clone(&reset),
            stopped: Box::pin(async move { matches!(stopped.await, Ok(Some(_))) }),
        });
        let send = SendStream::new(send, taken, Rc::clone(&self.turns))?;
        let recv = RecvStream::new(recv, allowance, reset)?;
        Poll::Ready(Ok(BidiStream { send, recv }))
    }

    fn opener(&self) -> Opener {
        Opener { connection: self.opener.connection.clone(), opening: None }
    }
}

impl quic::OpenStreams<Bytes> for Connection {
    type BidiStream = BidiStream;
    type SendStream = SendStream;

    fn poll_open_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<BidiStream, StreamError>> {
        self.opener.poll_open_bidi(cx)
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<SendStream, StreamError>> {
        self.opener.poll_open_send(cx)
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.opener.close(code, reason);
    }
}

/// Opens streams of the edge's own: those of control.
pub(crate) struct Opener {
    connection: quinn::Connection,
    opening: Option<Later<Result<quinn::SendStream, quinn::ConnectionError>>>,
}

impl quic::OpenStreams<Bytes> for Opener {
    type BidiStream = BidiStream;
    type SendStream = SendStream;

    fn poll_open_bidi(&mut self, _cx: &mut Context<'_>) -> Poll<Result<BidiStream, StreamError>> {
        Poll::Ready(Err(StreamError::Unknown("a server opens no requests".into())))
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<SendStream, StreamError>> {
        let opening = self.opening.get_or_insert_with(|| {
            let connection = self.connection.clone();
            Box::pin(async move { connection.open_uni().await })
        });
        let stream = ready!(opening.as_mut().poll(cx));
        self.opening = None;
        let stream = stream.map_err(of_connection);
        let new = |stream| SendStream::new(stream, Rc::default(), Rc::default());
        let stream = stream.and_then(new);
        let failed = |connection_error| StreamError::ConnectionErrorIncoming { connection_error };
        Poll::Ready(stream.map_err(failed))
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.connection.close(varint(code.value()), reason);
    }
}

/// A request's stream.
pub(crate) struct BidiStream {
    send: SendStream,
    recv: RecvStream,
}

impl quic::BidiStream<Bytes> for BidiStream {
    type SendStream = SendStream;
    type RecvStream = RecvStream;

    fn split(self) -> (SendStream, RecvStream) {
        (self.send, self.recv)
    }
}

impl quic::SendStream<Bytes> for BidiStream {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.send.poll_ready(cx)
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamError> {
        self.send.send_data(data)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.send.poll_finish(cx)
    }

    fn reset(&mut self, reset_code: u64) {
        self.send.reset(reset_code);
    }

    fn send_id(&self) -> StreamId {
        self.send.id
    }
}

impl quic::RecvStream for BidiStream {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamError>> {
        self.recv.poll_data(cx)
    }

    fn stop_sending(&mut self, error_code: u64) {
        self.recv.stop_sending(error_code);
    }

    fn recv_id(&self) -> StreamId {
        self.recv.id
    }
}

/// The edge's side of a stream. quinn ends a stream that is dropped; one that nothing was said on is
/// reset here, because an empty answer is none.
pub(crate) struct SendStream {
    stream: quinn::SendStream,
    id: StreamId,
    writing: Option<WriteBuf<Bytes>>,
    taken: Rc<Cell<u64>>,
    /// Among those of all requests of the connection.
    place: Place<StreamId>,
    silent: bool,
}

impl Drop for SendStream {
    fn drop(&mut self) {
        if self.silent {
            quic::SendStream::reset(self, Code::H3_REQUEST_INCOMPLETE.value());
        }
    }
}

impl SendStream {
    fn new(
        stream: quinn::SendStream,
        taken: Rc<Cell<u64>>,
        turns: Rc<Turns<StreamId>>,
    ) -> Result<Self, ConnectionError> {
        let id = stream_id(stream.id())?;
        Ok(Self { stream, id, writing: None, taken, place: Place::new(turns, id), silent: true })
    }
}

impl quic::SendStream<Bytes> for SendStream {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        while let Some(data) = self.writing.as_mut().filter(|data| Buf::has_remaining(*data)) {
            if self.place.lets_another_go() {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let Poll::Ready(written) = Pin::new(&mut self.stream).poll_write(cx, data.chunk())
            else {
                self.place.wait(cx.waker());
                return Poll::Pending;
            };
            self.place.served();
            let written = written.map_err(|error| match error {
                quinn::WriteError::Stopped(code) => {
                    StreamError::StreamTerminated { error_code: code.into_inner() }
                }
                quinn::WriteError::ConnectionLost(error) => of_stream(error),
                quinn::WriteError::ClosedStream | quinn::WriteError::ZeroRttRejected => {
                    StreamError::Unknown(error.into())
                }
            })?;
            data.advance(written);
            let octets = u64::try_from(written).unwrap_or(u64::MAX);
            self.taken.set(self.taken.get().saturating_add(octets));
        }
        self.writing = None;
        Poll::Ready(Ok(()))
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamError> {
        if self.writing.is_some() {
            return Err(StreamError::Unknown("written to while not ready".into()));
        }
        self.writing = Some(data.into());
        self.silent = false;
        Ok(())
    }

    fn poll_finish(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        Poll::Ready(self.stream.finish().map_err(|error| StreamError::Unknown(error.into())))
    }

    fn reset(&mut self, reset_code: u64) {
        // A stream that has ended cannot be reset any more.
        _ = self.stream.reset(varint(reset_code));
    }

    fn send_id(&self) -> StreamId {
        self.id
    }
}

/// The client's side of a stream.
pub(crate) struct RecvStream {
    stream: quinn::RecvStream,
    id: StreamId,
    allowance: Allowance,
    reset: Arc<AtomicBool>,
    /// Those of a request; the other streams have another form.
    frames: Option<Frames>,
}

impl RecvStream {
    fn new(
        stream: quinn::RecvStream,
        allowance: Allowance,
        reset: Arc<AtomicBool>,
    ) -> Result<Self, ConnectionError> {
        let id = stream_id(stream.id())?;
        let frames = id.is_request().then(Frames::default);
        Ok(Self { stream, id, allowance, reset, frames })
    }

    /// The next octets; none at the end of the stream.
    fn poll_octets(
        &mut self,
        cx: &mut Context<'_>,
        room: &mut [u8],
    ) -> Poll<Result<usize, StreamError>> {
        self.stream.poll_read(cx, room).map_err(|error| match error {
            quinn::ReadError::Reset(code) => {
                self.reset.store(true, Relaxed);
                StreamError::StreamTerminated { error_code: code.into_inner() }
            }
            quinn::ReadError::ConnectionLost(error) => of_stream(error),
            quinn::ReadError::ClosedStream
            | quinn::ReadError::IllegalOrderedRead
            | quinn::ReadError::ZeroRttRejected => StreamError::Unknown(error.into()),
        })
    }
}

impl quic::RecvStream for RecvStream {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamError>> {
        let mut octets = [0; CHUNK];
        loop {
            let room = octets.get_mut(..self.allowance.left().min(CHUNK)).unwrap_or_default();
            if room.is_empty() {
                let error_code = Code::H3_EXCESSIVE_LOAD.value();
                self.stop_sending(error_code);
                return Poll::Ready(Err(StreamError::StreamTerminated { error_code }));
            }
            let count = ready!(self.poll_octets(cx, room))?;
            // What is left out is never delivered, so that nobody can send it for ever.
            self.allowance.take(count);
            let read = octets.get(..count).unwrap_or_default();
            let passed = match &mut self.frames {
                Some(frames) if count == 0 => frames.rest(),
                Some(frames) => frames.read(read),
                None => read.to_vec(),
            };
            if count == 0 || !passed.is_empty() {
                return Poll::Ready(Ok((!passed.is_empty()).then(|| Bytes::from(passed))));
            }
        }
    }

    fn stop_sending(&mut self, error_code: u64) {
        // A stream that has ended cannot be stopped any more.
        _ = self.stream.stop(varint(error_code));
    }

    fn recv_id(&self) -> StreamId {
        self.id
    }
}

fn stream_id(id: quinn::StreamId) -> Result<StreamId, ConnectionError> {
    StreamId::try_from(u64::from(VarInt::from(id)))
        .map_err(|error| ConnectionError::InternalError(error.to_string()))
}

fn varint(code: u64) -> VarInt {
    VarInt::from_u64(code).unwrap_or(VarInt::MAX)
}

fn of_connection(error: quinn::ConnectionError) -> ConnectionError {
    match error {
        quinn::ConnectionError::ApplicationClosed(close) => {
            ConnectionError::ApplicationClose { error_code: close.error_code.into_inner() }
        }
        quinn::ConnectionError::TimedOut => ConnectionError::Timeout,
        other @ (quinn::ConnectionError::VersionMismatch
        | quinn::ConnectionError::TransportError(_)
        | quinn::ConnectionError::ConnectionClosed(_)
        | quinn::ConnectionError::Reset
        | quinn::ConnectionError::LocallyClosed
        | quinn::ConnectionError::CidsExhausted) => ConnectionError::Undefined(Arc::new(other)),
    }
}

fn of_stream(error: quinn::ConnectionError) -> StreamError {
    StreamError::ConnectionErrorIncoming { connection_error: of_connection(error) }
}
