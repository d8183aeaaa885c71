//! HTTP/2: the `h2` crate reads and writes the frames, what they mean is decided here.
//!
//! `serve` takes the requests of one client's connection and ends it; `exchange` is one request with
//! its answer, in a task of its own; `body` brings what the other side sends on a stream; `tunnel` is a
//! stream that has left HTTP.

mod body;
mod exchange;
mod serve;
mod tunnel;

use std::{
    io,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::SendStream;

pub(crate) use self::{body::Receiving, serve::serve};

/// Waits until the other side's windows have room; returns for how much of the `wanted` octets.
fn poll_room(
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
