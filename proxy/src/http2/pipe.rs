//! A body on its way to the other side of a stream.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::Body;

use crate::deps::BoxError;

/// Sends a body on a stream whose head was sent. It holds one piece at a time: the body is asked for
/// more when the other side's windows have room for the last one.
#[derive(Debug)]
pub(crate) struct Pipe<B> {
    send: SendStream<Bytes>,
    body: B,
    /// What waits for room, and whether it is the last.
    piece: Option<(Bytes, bool)>,
    /// The octets that the other side has taken since this was asked last.
    taken: u64,
}

/// How the sending of a body ended.
#[derive(Debug)]
pub(crate) enum End {
    /// With its end, and that of the stream in this direction.
    Whole,
    /// The other side takes no more.
    Gone,
    /// The body broke; the stream has yet to be reset.
    Broken(BoxError),
}

impl<B: Body<Data = Bytes, Error = BoxError> + Unpin> Pipe<B> {
    /// Sends `body` by `send`.
    pub(crate) fn new(send: SendStream<Bytes>, body: B) -> Self {
        Self { send, body, piece: None, taken: 0 }
    }

    /// Sends on, as far as the body and the other side go. Not to be asked again after its end.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            while let Some((data, is_last)) = &mut self.piece {
                // No more than there is room for: `h2` would keep the rest where nobody sees it.
                let Ok(room) = ready!(poll_room(cx, &mut self.send, data.len())) else {
                    return Poll::Ready(End::Gone);
                };
                let part = data.split_to(room);
                let octets = u64::try_from(room).unwrap_or(u64::MAX);
                let (is_done, ends) = (data.is_empty(), data.is_empty() && *is_last);
                if self.send.send_data(part, ends).is_err() {
                    return Poll::Ready(End::Gone);
                }
                self.taken = self.taken.saturating_add(octets);
                if ends {
                    return Poll::Ready(End::Whole);
                }
                if is_done {
                    self.piece = None;
                }
            }
            let frame = match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => frame,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(End::Broken(error)),
                Poll::Ready(None) => {
                    return Poll::Ready(End::of(&self.send.send_data(Bytes::new(), true)));
                }
                Poll::Pending => return self.send.poll_reset(cx).map(|_| End::Gone),
            };
            match frame.into_data() {
                // Nothing needs no room, and would say nothing.
                Ok(data) if data.is_empty() => {}
                Ok(data) => self.piece = Some((data, self.body.is_end_stream())),
                Err(frame) => {
                    let Ok(trailers) = frame.into_trailers() else { continue };
                    return Poll::Ready(End::of(&self.send.send_trailers(trailers)));
                }
            }
        }
    }

    /// Whether it waits for the other side to take something, and not for the body.
    pub(crate) fn is_stuck(&self) -> bool {
        self.piece.is_some()
    }

    /// The octets that the other side has taken since the last time that this was asked.
    pub(crate) fn taken(&mut self) -> u64 {
        std::mem::take(&mut self.taken)
    }

    /// Breaks the stream off in both directions.
    pub(crate) fn reset(&mut self, reason: Reason) {
        self.send.send_reset(reason);
    }
}

impl End {
    fn of(sent: &Result<(), h2::Error>) -> Self {
        if sent.is_ok() { Self::Whole } else { Self::Gone }
    }
}

/// Waits until the other side's windows have room; returns for how much of the `wanted` octets.
pub(super) fn poll_room(
    cx: &mut Context<'_>,
    send: &mut SendStream<Bytes>,
    wanted: usize,
) -> Poll<io::Result<usize>> {
    send.reserve_capacity(wanted);
    while send.capacity() == 0 {
        match ready!(send.poll_capacity(cx)) {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
            None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }
    Poll::Ready(Ok(send.capacity().min(wanted)))
}
