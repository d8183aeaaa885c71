//! A connection from its first request to its end.

use std::{
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::BytesMut;
use tokio::io::AsyncWrite;

use crate::{
    downstream::Downstream,
    http1::{
        exchange::{After, exchange},
        io::ClientIo,
        line::{Line, Next},
    },
    listen::Purpose,
    tunnel,
    worker::Worker,
};

/// How long a connection that ends may take for that.
const LAST_TIME: Duration = Duration::from_secs(1);
/// The octets that are still read of a client which is still sending.
const LAST_OCTETS: usize = 256 * 1024;

/// Serves a client that speaks HTTP/1.
pub(crate) async fn serve(
    worker: &Rc<Worker>,
    io: ClientIo,
    downstream: &Rc<Downstream>,
    purpose: Purpose,
) {
    let mut line = Line::new(worker, downstream, io);
    let after = loop {
        let asked = match poll_fn(|cx| line.poll_next(cx)).await {
            Next::Request(head) => Ok(head),
            Next::Refused(refusal) => Err(refusal),
            Next::End => break After::Close { lingers: false },
        };
        // Boxed, so that a connection which waits does not hold the room for it.
        let after = Box::pin(exchange(&mut line, purpose, asked)).await;
        if !matches!(after, After::Next) {
            break after;
        }
        line.rest();
    };
    match after {
        After::Next | After::Close { lingers: false } => close(&mut line, false).await,
        After::Close { lingers: true } => close(&mut line, true).await,
        After::Gone => tracing::debug!(peer = %downstream.peer, "a client left early"),
        After::Broken { looks_whole } => {
            if looks_whole {
                line.io.reset();
            }
        }
        After::Tunnel(upstream) => {
            let (io, held): (ClientIo, BytesMut) = line.into_parts();
            Box::pin(tunnel::run(worker, io, held, *upstream)).await;
        }
    }
}

/// Ends a connection in order. A socket that is closed with octets unread resets the connection, and a
/// client that is still sending would lose the answer: such a one is read on for a moment.
async fn close(line: &mut Line, lingers: bool) {
    line.wait.within(LAST_TIME);
    let mut shut = false;
    let mut left = LAST_OCTETS;
    poll_fn(|cx| {
        // An error means that there is nobody any more.
        shut = shut || Pin::new(&mut line.io).poll_shutdown(cx).is_ready();
        let done = if lingers { poll_linger(line, cx, &mut left).is_ready() } else { shut };
        if done || line.wait.poll_over(cx).is_some() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

fn poll_linger(line: &mut Line, cx: &mut Context<'_>, left: &mut usize) -> Poll<()> {
    let worker = Rc::clone(&line.worker);
    let mut scratch = worker.scratch();
    while *left > 0 {
        match line.io.poll_some(cx, &mut scratch) {
            Poll::Ready(Ok(count @ 1..)) => *left = left.saturating_sub(count),
            Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
            Poll::Pending => return Poll::Pending,
        }
    }
    Poll::Ready(())
}
