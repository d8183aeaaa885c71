//! Streams of HTTP/2 and HTTP/3 whose client does not take what it asked for.
//!
//! While a client's window is closed, its stream keeps one piece and does not look at the body that it
//! came from, so that the body can see neither its deadline nor that its container was stopped. The
//! task of each stream is therefore watched from outside: it ends, and its stream is reset, when the
//! wait of its body is over or the client has taken nothing for too long. What sends the answer says
//! which of the two it waits for.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::Poll,
};

use crate::{watch::Wait, worker::Worker};

/// What is known of the stream whose task runs.
#[derive(Debug)]
pub(crate) struct Stream {
    /// The wait of the body that the stream sends, once there is one.
    wait: RefCell<Option<Rc<Wait>>>,
    /// Whether the stream waits for its client, and not for the answer or its body.
    stalled: Cell<bool>,
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

    /// From now on the stream waits for its client; or does not.
    pub(crate) fn waits_for_client(&self, waits: bool) {
        self.stalled.set(waits);
    }
}

/// Runs the task of a stream to its end or to the end of its body's wait.
pub(crate) async fn guarded(worker: Rc<Worker>, task: impl Future<Output = ()>) {
    let mut task = pin!(task);
    let stream = Rc::new(Stream {
        wait: RefCell::default(),
        stalled: Cell::new(false),
        moved: Cell::new(false),
    });
    // For answers that have no wait of their own.
    let mut patience = None;
    let mut was_stalled = false;
    poll_fn(|cx| {
        let outer = worker.enter_stream(Some(Rc::clone(&stream)));
        let polled = task.as_mut().poll(cx);
        worker.enter_stream(outer);
        if polled.is_ready() {
            return Poll::Ready(());
        }
        let stalled = stream.stalled.get();
        let begins = stalled && !was_stalled;
        let ends = was_stalled && !stalled;
        was_stalled = stalled;
        let moved = stream.moved.take();
        let (limits, wait) = (worker.limits(), stream.wait.borrow());
        let wait = match &*wait {
            Some(wait) => wait,
            None if stalled => &*patience.get_or_insert_with(|| Rc::new(worker.watch().wait(None))),
            // The answer has deadlines of its own until its body is sent.
            None => return Poll::Pending,
        };
        if begins || (stalled && moved) {
            wait.within(limits.send_idle);
        } else if ends {
            wait.within(limits.stream_idle);
        }
        match wait.poll_over(cx) {
            None => Poll::Pending,
            Some(_) => Poll::Ready(()),
        }
    })
    .await;
}
