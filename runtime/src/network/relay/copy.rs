//! Octets in both directions, with bounds on silence.

use std::{
    io,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};

use super::dial::Stream;

const PIECE: usize = 16 << 10;
/// How long neither side may say anything.
const SILENCE_MAX: Duration = Duration::from_mins(30);
/// The same once one side has said that it will say nothing more.
const HALF_SILENCE_MAX: Duration = Duration::from_mins(2);

/// What is seen of both directions.
#[derive(Default)]
struct Seen {
    pieces: AtomicU64,
    is_half_closed: AtomicBool,
}

/// Copies until both sides have ended theirs, or are silent for too long. The end of one side is told
/// to the other, which may go on.
pub(super) async fn both_ways(client: &mut TcpStream, upstream: Stream) -> io::Result<()> {
    let seen = Seen::default();
    let (from_upstream, to_upstream) = tokio::io::split(upstream);
    let (from_client, to_client) = client.split();
    let there = one_way(from_client, to_upstream, &seen);
    let back = one_way(from_upstream, to_client, &seen);
    tokio::select! {
        both = async { tokio::try_join!(there, back) } => both.map(drop),
        () = silence(&seen) => Err(io::ErrorKind::TimedOut.into()),
    }
}

async fn one_way(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    seen: &Seen,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        let len = from.read(&mut piece).await?;
        if len == 0 {
            seen.is_half_closed.store(true, Ordering::Relaxed);
            return to.shutdown().await;
        }
        to.write_all(piece.get(..len).unwrap_or_default()).await?;
        // What is buffered inside of TLS would stay there.
        to.flush().await?;
        seen.pieces.fetch_add(1, Ordering::Relaxed);
    }
}

/// Ends when nothing was copied for as long as that may be.
async fn silence(seen: &Seen) {
    let mut last = u64::MAX;
    let mut since = tokio::time::Instant::now();
    let mut tick = tokio::time::interval(Duration::from_secs(10));
    loop {
        let now = tick.tick().await;
        let pieces = seen.pieces.load(Ordering::Relaxed);
        if pieces != last {
            (last, since) = (pieces, now);
        }
        let is_half_closed = seen.is_half_closed.load(Ordering::Relaxed);
        let max = if is_half_closed { HALF_SILENCE_MAX } else { SILENCE_MAX };
        if now.duration_since(since) >= max {
            return;
        }
    }
}
