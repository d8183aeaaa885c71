//! Interim answers (RFC 9110, 15.2): what a container says before its answer, such as 103 Early Hints,
//! and the asking for a body that a client holds back (`Expect: 100-continue`).
//!
//! They travel beside the answer, from whoever speaks with the container to whoever speaks with the
//! client. The server of a request makes [`Interims`] (or uses the one of its connection again, by
//! [`Interims::begin`]) and hands it to [`pipeline::answer`](crate::pipeline::answer). While the
//! answer is awaited it sends what [`Interims::poll_next`] brings; when the answer is there, what
//! [`Interims::try_next`] still has comes before it, and nothing after it. Whoever reads the client's body
//! asks for it first ([`Interims::ask`]), so that the server need not watch for that.
//!
//! A client of HTTP/1.0 knows no interim answers: it gets none, and what it expects is not passed on
//! either.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    task::{Context, Poll, Waker},
};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

/// How many may wait for a client that takes none.
const WAITING_MAX: usize = 8;
/// The octets of names and values that may wait.
const OCTETS_MAX: usize = 32 * 1024;

/// One interim answer: a status from 100 to 199 without 101, and its fields, which a client may see.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Interim {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
}

impl Interim {
    /// The octets of its names and values.
    pub(crate) fn octets(&self) -> usize {
        let field = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len();
        self.headers.iter().map(field).sum()
    }
}

/// The interim answers of one request that its client has yet to get, and whether that client waits
/// for a 100 before it sends its body.
#[derive(Debug, Default)]
pub(crate) struct Interims {
    waiting: RefCell<VecDeque<Interim>>,
    octets: Cell<usize>,
    expects: Cell<bool>,
    server: RefCell<Option<Waker>>,
}

impl Interims {
    /// A new request begins, whose client expects a 100 or not. What is left of the last one goes.
    pub(crate) fn begin(&self, expects: bool) {
        self.expects.set(expects);
        if self.octets.replace(0) > 0 {
            self.waiting.borrow_mut().clear();
        }
    }

    /// Whether the client still waits for a 100.
    pub(crate) fn expects(&self) -> bool {
        self.expects.get()
    }

    /// Adds an interim answer. Beyond 8 of them, or 32 KiB, it is dropped: the answer does not depend
    /// on it. A 100 is dropped, too, if the client does not wait for it; one that it waits for never.
    pub(crate) fn push(&self, mut interim: Interim) {
        // There is no body that it could speak of (RFC 9110, 8.6).
        interim.headers.remove(header::CONTENT_LENGTH);
        let mut waiting = self.waiting.borrow_mut();
        let octets = self.octets.get().saturating_add(interim.octets()).saturating_add(1);
        if interim.status == StatusCode::CONTINUE {
            if !self.expects.replace(false) {
                return;
            }
        } else if waiting.len() >= WAITING_MAX || octets > OCTETS_MAX {
            return;
        }
        self.octets.set(octets);
        waiting.push_back(interim);
        if let Some(server) = self.server.borrow_mut().take() {
            server.wake();
        }
    }

    /// Asks the client for its body, if it waits for that.
    pub(crate) fn ask(&self) {
        self.push(Interim { status: StatusCode::CONTINUE, headers: HeaderMap::new() });
    }

    /// The next interim answer for the client, if there is one.
    pub(crate) fn try_next(&self) -> Option<Interim> {
        // A count of octets is cheaper to look at than the queue, and nearly always 0.
        if self.octets.get() == 0 {
            return None;
        }
        let mut waiting = self.waiting.borrow_mut();
        let next = waiting.pop_front();
        let taken = next.as_ref().map_or(0, |interim| interim.octets() + 1);
        self.octets.set(if waiting.is_empty() { 0 } else { self.octets.get() - taken });
        next
    }

    /// Waits for the next interim answer. It need not be asked for again after it was pending: the
    /// latest task that asked is woken once.
    pub(crate) fn poll_next(&self, cx: &Context<'_>) -> Poll<Interim> {
        if let Some(next) = self.try_next() {
            return Poll::Ready(next);
        }
        let mut server = self.server.borrow_mut();
        match &mut *server {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *server = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering::Relaxed},
        },
        task::Wake,
    };

    use super::*;

    fn hint(link: &str) -> Interim {
        let mut headers = HeaderMap::new();
        headers.insert(header::LINK, link.parse().unwrap());
        Interim { status: StatusCode::EARLY_HINTS, headers }
    }

    #[test]
    fn they_come_out_in_their_order_and_wake_whoever_waits() {
        #[derive(Default)]
        struct Count(AtomicUsize);
        impl Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Relaxed);
            }
        }
        let count = Arc::<Count>::default();
        let waker = Waker::from(Arc::clone(&count));
        let cx = Context::from_waker(&waker);
        let interims = Interims::default();
        assert!(interims.poll_next(&cx).is_pending());
        interims.push(hint("</a>"));
        interims.push(hint("</b>"));
        assert_eq!(count.0.load(Relaxed), 1);
        assert_eq!(interims.poll_next(&cx), Poll::Ready(hint("</a>")));
        assert_eq!(interims.try_next(), Some(hint("</b>")));
        assert!(interims.poll_next(&cx).is_pending());
    }

    #[test]
    fn they_are_bounded_in_number_and_in_octets() {
        let interims = Interims::default();
        for _ in 0..100 {
            interims.push(hint("</a>"));
        }
        assert_eq!(std::iter::from_fn(|| interims.try_next()).count(), WAITING_MAX);
        for _ in 0..4 {
            interims.push(hint(&"x".repeat(15_000)));
        }
        assert_eq!(std::iter::from_fn(|| interims.try_next()).count(), 2);
        interims.push(hint("</a>"));
        interims.begin(false);
        assert_eq!(interims.try_next(), None, "another request begins");
    }

    #[test]
    fn a_body_is_asked_for_once_and_only_if_it_is_held_back() {
        let interims = Interims::default();
        interims.ask();
        assert_eq!(interims.try_next(), None);
        interims.begin(true);
        for _ in 0..100 {
            interims.push(hint("</a>"));
        }
        interims.ask();
        interims.ask();
        assert!(!interims.expects());
        let all: Vec<_> = std::iter::from_fn(|| interims.try_next()).collect();
        assert_eq!(all.iter().filter(|it| it.status == StatusCode::CONTINUE).count(), 1);
        interims.begin(true);
        assert!(interims.expects(), "another request begins");
    }
}
