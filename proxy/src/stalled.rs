//! Streams of HTTP/2 and HTTP/3 whose client does not take what it asked for.
//!
//! While a client's window is closed, its stream keeps one piece and does not look at the body that it
//! came from, so that the body can see neither its deadline nor that its container was stopped. The
//! task of each stream is therefore watched from outside: it ends, and its stream is reset, when the
//! wait of its body is over or the client has taken nothing, or too little, for too long. What sends the
//! answer says which of the two it waits for, and how much was taken.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::Poll,
};

use crate::{
    limits::CutBy,
    watch::{Over, Patience, Wait},
    worker::Worker,
};

/// What is known of the stream whose task runs.
#[derive(Debug)]
pub(crate) struct Stream {
    /// The wait of the body that the stream sends, once there is one.
    wait: RefCell<Option<Rc<Wait>>>,
    /// Whether the stream waits for its client, and not for the answer or its body.
    stalled: Cell<bool>,
    /// The octets that the client took since the last look.
    taken: Cell<u64>,
}

impl Stream {
    /// The stream sends a body with this wait.
    pub(crate) fn sends(&self, wait: &Rc<Wait>) {
        *self.wait.borrow_mut() = Some(Rc::clone(wait));
    }

    /// The client took so many octets more.
    pub(crate) fn took(&self, octets: u64) {
        self.taken.set(self.taken.get().saturating_add(octets));
    }

    /// From now on the stream waits for its client; or does not.
    pub(crate) fn waits_for_client(&self, waits: bool) {
        self.stalled.set(waits);
    }
}

/// Runs the task of a stream to its end or to the end of its body's wait. If its client was given up,
/// because it took too little, that is told to `given_up`: a task around this one that heard it from
/// here would move all of the stream's once more.
pub(crate) async fn guarded(
    worker: Rc<Worker>,
    task: impl Future<Output = ()>,
    given_up: impl FnOnce(&Worker),
) {
    let mut task = pin!(task);
    let stream = Rc::new(Stream {
        wait: RefCell::default(),
        stalled: Cell::new(false),
        taken: Cell::new(0),
    });
    let limits = worker.limits();
    let mut patience = Patience::new(limits.send_idle, limits.send_rate_min);
    // For answers that have no wait of their own.
    let mut own = None;
    let mut was_stalled = false;
    let late = poll_fn(|cx| {
        let outer = worker.enter_stream(Some(Rc::clone(&stream)));
        let polled = task.as_mut().poll(cx);
        worker.enter_stream(outer);
        if polled.is_ready() {
            return Poll::Ready(false);
        }
        let stalled = stream.stalled.get();
        let ends = std::mem::replace(&mut was_stalled, stalled) && !stalled;
        let (taken, watch) = (stream.taken.take(), worker.watch());
        // What ends a wait without an octet is the end of what had to be sent.
        if taken > 0 || ends {
            patience.earn(watch, taken);
        }
        let wait = stream.wait.borrow();
        let wait = match &*wait {
            Some(wait) => wait,
            None if stalled => &*own.get_or_insert_with(|| Rc::new(watch.wait(None))),
            // The answer has deadlines of its own until its body is sent.
            None => return Poll::Pending,
        };
        if stalled {
            if let Some(deadline) = patience.wait(watch) {
                wait.until(deadline);
            }
        } else if ends {
            wait.within(limits.stream_idle);
        }
        match wait.poll_over(cx) {
            None => Poll::Pending,
            Some(over) => {
                let late = stalled && over == Over::Deadline;
                if late {
                    worker.metrics().cut(patience.bound(CutBy::SendPause, CutBy::SendRate));
                }
                Poll::Ready(late)
            }
        }
    })
    .await;
    if late {
        given_up(&worker);
    }
}
