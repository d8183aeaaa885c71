//! What came from a client on a channel and was not used yet.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use crate::{flow::Held, stream::Pause};

/// Pieces are joined up to this length, so that many small ones take no more room than one.
const PIECE: usize = 32 << 10;

/// A queue of octets with one reader. What it holds is bounded by the channel's window, and counts for the
/// connection.
#[derive(Debug)]
pub(crate) struct Inlet {
    held: Held,
    inner: Mutex<Inner>,
    more: Notify,
    pause: Pause,
}

#[derive(Debug, Default)]
struct Inner {
    pieces: VecDeque<BytesMut>,
    is_ended: bool,
    /// Nobody reads any more: what comes is dropped.
    is_closed: bool,
}

impl Inlet {
    /// An empty one of a connection.
    pub(crate) fn new(pause: Pause) -> Arc<Self> {
        Arc::new(Self {
            held: Held::default(),
            inner: Mutex::default(),
            more: Notify::new(),
            pause,
        })
    }

    /// How much it holds.
    pub(crate) fn held(&self) -> Held {
        Arc::clone(&self.held)
    }

    pub(crate) fn push(&self, data: &[u8]) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.is_closed || inner.is_ended {
            return;
        }
        match inner.pieces.back_mut() {
            Some(last) if last.len() + data.len() <= PIECE => last.extend_from_slice(data),
            Some(_) | None => inner.pieces.push_back(BytesMut::from(data)),
        }
        self.held.fetch_add(data.len(), Ordering::Relaxed);
        self.pause.hold(data.len());
        drop(inner);
        self.more.notify_one();
    }

    /// Nothing more comes.
    pub(crate) fn end(&self) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).is_ended = true;
        self.more.notify_one();
    }

    /// Whether its end has come, and has been read as far as anybody reads.
    pub(crate) fn has_ended(&self) -> bool {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.is_ended && !inner.is_closed
    }

    /// Nobody reads any more; what is there is dropped.
    pub(crate) fn close(&self) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.is_closed = true;
        inner.pieces.clear();
        self.pause.release(self.held.swap(0, Ordering::Relaxed));
        drop(inner);
        self.more.notify_one();
    }

    /// The next piece, `None` at the end. It counts as held until [`Self::used`].
    pub(crate) async fn next(&self) -> Option<Bytes> {
        loop {
            {
                let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(piece) = inner.pieces.pop_front() {
                    return Some(piece.freeze());
                }
                if inner.is_ended || inner.is_closed {
                    return None;
                }
            }
            self.more.notified().await;
        }
    }

    /// So much of what [`Self::next`] gave has gone on.
    pub(crate) fn used(&self, len: usize) {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if !inner.is_closed {
            self.held.fetch_sub(len, Ordering::Relaxed);
            self.pause.release(len);
        }
        drop(inner);
    }
}

impl Drop for Inlet {
    fn drop(&mut self) {
        self.pause.release(self.held.load(Ordering::Relaxed));
    }
}
