//! The waker that a connection to a container is driven with.
//!
//! A request drives its connection itself, so that the two ends of hyper's channels between them are
//! in one task. Each message through such a channel wakes that task, which is running already: it
//! would be polled once more for nothing. The bell can be muted while such a message is sent by
//! somebody who drives the connection right afterwards. Sockets ring only while the task rests, so
//! that nothing else is ever muted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Wake, Waker},
};

use futures_util::task::AtomicWaker;

/// One connection's bell.
#[derive(Debug)]
pub(crate) struct Bell {
    inner: Arc<Inner>,
    waker: Waker,
}

#[derive(Debug, Default)]
struct Inner {
    muted: AtomicBool,
    task: AtomicWaker,
}

impl Bell {
    pub(crate) fn new() -> Self {
        let inner = Arc::<Inner>::default();
        Self { waker: Waker::from(Arc::clone(&inner)), inner }
    }

    /// The waker to drive the connection with; it rings for the task of `cx`.
    pub(crate) fn ring_for(&self, cx: &Context<'_>) -> &Waker {
        self.inner.task.register(cx.waker());
        &self.waker
    }

    /// Does something that may ring, unheard. The connection must be driven afterwards.
    pub(crate) fn unheard<T>(&self, act: impl FnOnce() -> T) -> T {
        self.inner.muted.store(true, Relaxed);
        let done = act();
        self.inner.muted.store(false, Relaxed);
        done
    }

    /// Rings for nobody any more.
    pub(crate) fn forget(&self) {
        drop(self.inner.task.take());
    }
}

impl Wake for Inner {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.muted.load(Relaxed) {
            self.task.wake();
        }
    }
}
