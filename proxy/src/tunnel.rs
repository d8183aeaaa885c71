//! Connections that have left HTTP, such as `WebSocket`s: octets both ways until one side ends, both
//! are silent for too long, or the container stops. The other side may be the API instead.
//!
//! A silent tunnel holds no buffers. All tunnels of a worker read into one, and only what the other
//! side does not take at once is kept.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use crate::{
    account::Account,
    frames::Frames,
    guard::Pass,
    traffic::Flow,
    upstream::UpstreamIo,
    watch::{Origin, Wait},
    worker::Worker,
};

/// How long a tunnel to the API may be silent: what the API tells by it asks its clients more often than
/// that whether they are there.
const API_IDLE: Duration = Duration::from_mins(1);

/// The container's end of a tunnel, or the API's. It travels with the answer that opens the tunnel, to
/// whoever has the client's end.
#[derive(Debug)]
pub(crate) struct UpstreamEnd {
    io: Io,
    read: Bytes,
    origin: Option<Origin>,
    pass: Option<Rc<Pass>>,
    account: Option<Box<Account>>,
}

#[derive(Debug)]
enum Io {
    Container(UpstreamIo),
    Api(DuplexStream),
}

impl UpstreamEnd {
    /// An end from which `read` was read already, for a request that `pass` let in.
    pub(crate) fn new(io: UpstreamIo, read: Bytes, origin: Origin, pass: Option<Rc<Pass>>) -> Self {
        Self { io: Io::Container(io), read, origin: Some(origin), pass, account: None }
    }

    /// An end whose other side the API has.
    pub(crate) fn api(io: DuplexStream) -> Self {
        Self { io: Io::Api(io), read: Bytes::new(), origin: None, pass: None, account: None }
    }

    /// Has the request's account end with the tunnel.
    pub(crate) fn on_account(&mut self, account: Box<Account>) {
        self.account = Some(account);
    }
}

/// One direction.
#[derive(Debug)]
struct Direction {
    pending: BytesMut,
    moved: u64,
    ended: bool,
    closed: bool,
    tap: Option<Tap>,
}

/// Counts what passes as traffic of a container that may be put to sleep.
#[derive(Debug)]
struct Tap {
    flow: Rc<Flow>,
    /// For what a client sends.
    frames: Option<Frames>,
}

impl Tap {
    fn passed(&mut self, octets: &[u8]) {
        self.flow.sent_by_client(self.frames.as_mut(), octets);
    }
}

impl Direction {
    fn new(pending: BytesMut, mut tap: Option<Tap>) -> Self {
        if let Some(tap) = &mut tap {
            tap.passed(&pending);
        }
        Self { pending, moved: 0, ended: false, closed: false, tap }
    }

    /// Moves octets until something has to be waited for; says whether any moved.
    fn poll_move<F, T>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut F,
        to: &mut T,
        scratch: &mut [u8],
    ) -> io::Result<bool>
    where
        F: AsyncRead + Unpin,
        T: AsyncWrite + Unpin,
    {
        let mut moved = false;
        loop {
            if !self.pending.is_empty() {
                match Pin::new(&mut *to).poll_write(cx, &self.pending) {
                    Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                    Poll::Ready(Ok(count)) => {
                        self.pending.advance(count);
                        moved = self.count(count);
                    }
                    Poll::Ready(Err(error)) => return Err(error),
                    Poll::Pending => return Ok(moved),
                }
                continue;
            }
            if self.ended {
                if !self.closed && Pin::new(&mut *to).poll_shutdown(cx)?.is_ready() {
                    (self.closed, moved) = (true, true);
                }
                return Ok(moved);
            }
            let mut buf = ReadBuf::new(scratch);
            match Pin::new(&mut *from).poll_read(cx, &mut buf)? {
                Poll::Pending => {
                    // TLS keeps what it could not write; an error shows with the next write.
                    let _flushed = Pin::new(&mut *to).poll_flush(cx)?;
                    return Ok(moved);
                }
                Poll::Ready(()) if buf.filled().is_empty() => self.ended = true,
                Poll::Ready(()) => {
                    if let Some(tap) = &mut self.tap {
                        tap.passed(buf.filled());
                    }
                    let written = match Pin::new(&mut *to).poll_write(cx, buf.filled())? {
                        Poll::Ready(count) => count,
                        Poll::Pending => 0,
                    };
                    moved |= self.count(written);
                    let rest = buf.filled().get(written..).unwrap_or_default();
                    self.pending.extend_from_slice(rest);
                }
            }
        }
    }

    fn count(&mut self, octets: usize) -> bool {
        self.moved = self.moved.saturating_add(u64::try_from(octets).unwrap_or(u64::MAX));
        octets > 0
    }
}

/// Moves octets between `downstream`, from which `read` was read already, and `upstream`.
pub(crate) async fn run<S>(
    worker: &Rc<Worker>,
    downstream: S,
    read: BytesMut,
    upstream: UpstreamEnd,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let UpstreamEnd { io, read: came, origin, pass, mut account } = upstream;
    let wait = worker.watch().wait(origin);
    if let Some(pass) = pass {
        worker.rests(&wait, pass);
    }
    let flow = account.as_ref().and_then(|account| account.flow().cloned());
    let tap = |frames| flow.clone().map(|flow| Tap { flow, frames });
    let mut up = Direction::new(read, tap(Some(Frames::default())));
    let mut down = Direction::new(BytesMut::from(came.as_ref()), tap(None));
    let idle = worker.limits().stream_idle;
    match io {
        Io::Container(io) => {
            relay(worker, downstream, io, (&mut up, &mut down), (&wait, idle)).await;
        }
        Io::Api(io) => {
            let idle = idle.min(API_IDLE);
            relay(worker, downstream, io, (&mut up, &mut down), (&wait, idle)).await;
        }
    }
    if let Some(account) = &mut account {
        account.tunnelled(up.moved, down.moved);
    }
}

/// Moves octets both ways until the end.
async fn relay<S, U>(
    worker: &Rc<Worker>,
    mut downstream: S,
    mut upstream: U,
    (up, down): (&mut Direction, &mut Direction),
    (wait, idle): (&Wait, Duration),
) where
    S: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    wait.within(idle);
    worker.metrics().tunnels_open.add(1);
    let _open = Open(worker);
    poll_fn(|cx| {
        let mut scratch = worker.scratch();
        let moved_up = up.poll_move(cx, &mut downstream, &mut upstream, &mut scratch);
        let moved_down = down.poll_move(cx, &mut upstream, &mut downstream, &mut scratch);
        let (Ok(moved_up), Ok(moved_down)) = (moved_up, moved_down) else {
            return Poll::Ready(());
        };
        if up.closed && down.closed {
            return Poll::Ready(());
        }
        if moved_up || moved_down {
            wait.within(idle);
        }
        if wait.poll_over(cx).is_some() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Counts an open tunnel, also when its task is dropped.
struct Open<'w>(&'w Worker);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.metrics().tunnels_open.sub(1);
    }
}
