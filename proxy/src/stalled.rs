//! Streams of HTTP/2 and HTTP/3 whose client does not take what it asked for.
//!
//! While a client's window is closed, its stream keeps one piece and does not look at the body that it
//! came from, so that the body can see neither its deadline nor that its container was stopped. The
//! task of each stream is therefore watched from outside: it ends, and its stream is reset, when the
//! wait of its body is over or the client has taken nothing for too long.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::Poll,
};

use crate::{watch::Wait, worker::Worker};

/// What is known of the stream whose task runs.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    /// The wait of the body that the stream sends, once there is one.
    wait: RefCell<Option<Rc<Wait>>>,
    /// Whether the stream waits for the body, and not for its client.
    hungry: Cell<bool>,
    /// Whether the client took something, although the stream still waits for it.
    moved: Cell<bool>,
}

impl Stream {
    /// The stream sends a body with this wait.
    pub(crate) fn sends(&self, wait: &Rc<Wait>) {
        *self.wait.borrow_mut() = Some(Rc::clone(wait));
    }

    /// The client took something.
    pub(crate) fn moved(&self) {
        self.moved.set(true);
    }

    /// The body was asked for more, and had it or not.
    pub(crate) fn asked(&self, had_more: bool) {
        self.hungry.set(!had_more);
    }
}

/// Runs the task of a stream to its end or to the end of its body's wait.
pub(crate) async fn guarded(worker: Rc<Worker>, task: impl Future<Output = ()>) {
    let mut task = pin!(task);
    let stream = Rc::<Stream>::default();
    let mut stalled = false;
    poll_fn(|cx| {
        stream.hungry.set(false);
        let outer = worker.enter_stream(Some(Rc::clone(&stream)));
        let polled = task.as_mut().poll(cx);
        worker.enter_stream(outer);
        if polled.is_ready() {
            return Poll::Ready(());
        }
        let wait = stream.wait.borrow();
        let Some(wait) = wait.as_ref() else { return Poll::Pending };
        let moved = stream.moved.take();
        if moved || stalled == stream.hungry.get() {
            stalled = !stream.hungry.get();
            let limits = worker.limits();
            wait.within(if stalled { limits.send_idle } else { limits.stream_idle });
        }
        match wait.poll_over(cx) {
            None => Poll::Pending,
            Some(_) => Poll::Ready(()),
        }
    })
    .await;
}
