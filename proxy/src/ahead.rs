//! How much clients of HTTP/2 and HTTP/3 may send ahead of what their containers take.
//!
//! All of it may have to be kept, because nobody takes it. A connection's window is as narrow as may be at
//! first; with each body that is under way it becomes as much wider as that body may be ahead, so that a
//! container that does not take what it is sent keeps no other request from its own, as long as the worker's
//! budget has room for that. A body is under way until it was read to its end, however long its answer takes.
//! What a connection was granted cannot be taken back, but serves its later bodies; it returns to the budget
//! when the connection ends. So that forms and calls of a few KiB cost the budget nothing, bodies are charged
//! only for what they may have ahead beyond [`FREE`] together; and so that one client leaves room for the
//! others, a connection is granted one body, and beyond that a part of what is left.

use std::{
    cell::Cell,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use crate::{config::Limits, limits::Refused, metrics::Metrics};

/// What a client may send ahead on one stream, in octets: once per round trip, so that this is the rate of
/// an upload, 5 MiB/s at 50 ms. The default budget of 256 MiB has room for 1,024 bodies at the same time, each
/// on a connection of its own.
pub(crate) const STREAM_WINDOW: u32 = 256 * 1024;
/// What a client may send ahead on a connection of HTTP/2 that was granted nothing, in octets. There is no
/// narrower window (RFC 9113, 6.9.2); heads do not count.
pub(crate) const LEAST_OF_HTTP2: u32 = 65_535;
/// The same for HTTP/3, where heads count, too (RFC 9000, 4.1): those of requests that come beside a body
/// need some room. quinn knows only one window for all streams, so that a body that was granted nothing and
/// that its container does not take can still use up all of this, and even requests without a body wait
/// until it is given up.
pub(crate) const LEAST_OF_HTTP3: u32 = 128 * 1024;
/// What the bodies that are under way on one connection may have ahead without being charged, in octets. It is
/// a part of the least window, the rest of which is left for heads and frames.
const FREE: u32 = 16 * 1024;
/// Beyond one body, a connection has no more than one such part of what is left.
const PART: u64 = 4;
/// No window may be larger (RFC 9113, 6.9.1).
const WINDOW_MAX: u32 = (1 << 31) - 1;

/// The budget of one worker.
#[derive(Debug)]
pub(crate) struct Budget {
    /// The octets that are not granted.
    left: Rc<Cell<u64>>,
    metrics: Arc<Metrics>,
}

impl Budget {
    pub(crate) fn new(limits: &Limits, metrics: Arc<Metrics>) -> Self {
        Self { left: Rc::new(Cell::new(limits.uploads_ahead_max)), metrics }
    }

    /// The window of a connection that begins, `least` octets wide.
    pub(crate) fn window(&self, least: u32) -> Rc<Window> {
        let (left, metrics) = (Rc::clone(&self.left), Arc::clone(&self.metrics));
        Rc::new(Window { least, ahead: Arc::default(), granted: Cell::new(0), left, metrics })
    }
}

/// The window of one connection. What it was granted is given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Window {
    /// Its width without a grant, in octets.
    least: u32,
    /// The octets that the bodies which are under way may have ahead.
    ahead: Arc<AtomicU32>,
    /// The octets beyond the least.
    granted: Cell<u32>,
    left: Rc<Cell<u64>>,
    metrics: Arc<Metrics>,
}

/// A body that is under way until this is dropped, by whatever thread has read it.
#[derive(Debug)]
pub(crate) struct Uploading {
    /// What it may have ahead, in octets.
    ahead: u32,
    /// The same of all bodies of its connection.
    of_all: Arc<AtomicU32>,
}

impl Window {
    /// A request with a body has come, of so many octets if its length is known. Says, too, how wide the
    /// window is to be from now on, in octets, if it is to become wider; what there was no room for is asked
    /// for again with the next body.
    pub(crate) fn begin(&self, length: Option<u64>) -> (Uploading, Option<u32>) {
        let length = length.and_then(|length| u32::try_from(length).ok());
        let ahead = length.map_or(STREAM_WINDOW, |length| length.min(STREAM_WINDOW));
        // There are at most 1,000 streams: their windows fit into 32 bits.
        self.ahead.fetch_add(ahead, Relaxed);
        let wider = self.widen();
        if self.granted.get() < self.wanted() {
            self.metrics.refused(Refused::WorkerUploadsAhead);
        }
        (Uploading { ahead, of_all: Arc::clone(&self.ahead) }, wider)
    }

    /// What the bodies that are under way may have ahead beyond what is free, in octets.
    fn wanted(&self) -> u32 {
        self.ahead.load(Relaxed).saturating_sub(FREE)
    }

    /// Makes room for what is under way, as far as the budget has it.
    fn widen(&self) -> Option<u32> {
        let (granted, left) = (self.granted.get(), self.left.get());
        let part = u32::try_from(left / PART).unwrap_or(u32::MAX).max(STREAM_WINDOW);
        let wanted = self.wanted().min(part).min(WINDOW_MAX - self.least);
        let more = wanted.saturating_sub(granted).min(u32::try_from(left).unwrap_or(u32::MAX));
        if more == 0 {
            return None;
        }
        self.left.set(left.saturating_sub(more.into()));
        self.granted.set(granted.saturating_add(more));
        Some(self.least.saturating_add(self.granted.get()))
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.left.set(self.left.get().saturating_add(self.granted.get().into()));
    }
}

impl Drop for Uploading {
    fn drop(&mut self) {
        self.of_all.fetch_sub(self.ahead, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: u32 = LEAST_OF_HTTP2;

    /// The window that has room for so many bodies.
    const fn of(bodies: u32) -> u32 {
        LEAST + bodies * STREAM_WINDOW - FREE
    }

    fn budget(octets: u32) -> Budget {
        let limits = Limits { uploads_ahead_max: octets.into(), ..Limits::default() };
        Budget::new(&limits, Arc::default())
    }

    #[test]
    fn a_window_grows_with_the_bodies_that_are_under_way_at_the_same_time() {
        let budget = budget(10 * STREAM_WINDOW);
        let window = budget.window(LEAST);
        for _ in 0..3 {
            let (first, wider) = window.begin(None);
            let (second, more) = window.begin(Some(u64::MAX));
            assert!(wider.is_none_or(|wider| wider == of(1)), "{wider:?}");
            assert!(more.is_none_or(|more| more == of(2)), "{more:?}");
            drop((first, second));
        }
        assert_eq!(window.granted.get(), of(2) - LEAST, "later ones need no more");
        drop(window);
        assert_eq!(budget.left.get(), u64::from(10 * STREAM_WINDOW));
    }

    #[test]
    fn a_body_is_charged_for_no_more_than_it_has() {
        let budget = budget(10 * STREAM_WINDOW);
        let window = budget.window(LEAST);
        let forms = [20, 0, u64::from(FREE) - 20].map(|length| window.begin(Some(length)));
        assert!(forms.iter().all(|(_, wider)| wider.is_none()), "{forms:?}");
        let (_more, wider) = window.begin(Some(1000));
        assert_eq!(wider, Some(LEAST + 1000), "all of them together");
        drop(forms);
        let (_later, wider) = window.begin(Some(u64::from(FREE) + 1));
        assert_eq!(wider, Some(LEAST + 1001));
        assert_eq!(budget.left.get(), u64::from(10 * STREAM_WINDOW) - 1001);
    }

    #[test]
    fn windows_grow_as_long_as_there_is_room_and_give_it_back() {
        let each = of(1) - LEAST;
        let budget = budget(2 * each + 5);
        let (one, two) = (budget.window(LEAST), budget.window(LEAST));
        let (_first, wider) = one.begin(None);
        assert_eq!(wider, Some(of(1)));
        let (second, wider) = two.begin(None);
        assert_eq!((wider, budget.left.get()), (Some(of(1)), 5));
        let third = budget.window(LEAST);
        let (_third, wider) = third.begin(None);
        assert_eq!(wider, Some(LEAST + 5), "as far as there is room");
        let (_fourth, wider) = third.begin(None);
        assert_eq!(wider, None, "nothing is left");
        drop((second, two));
        let (_fifth, wider) = third.begin(None);
        assert_eq!((wider, budget.left.get()), (Some(of(1) + 5), 0));
    }

    #[test]
    fn one_client_leaves_room_for_the_others() {
        let budget = budget(256 << 20);
        let greedy: Vec<_> = (0..8).map(|_| budget.window(LEAST)).collect();
        let _bodies: Vec<_> =
            greedy.iter().flat_map(|window| (0..128).map(|_| window.begin(None))).collect();
        let left = budget.left.get();
        assert!(left > 50 << 20, "{left}");
        for window in &greedy {
            let granted = u64::from(window.granted.get());
            assert!(granted > 10 << 20, "each has many: {granted}");
        }
        let other = budget.window(LEAST);
        assert_eq!(other.begin(None).1, Some(of(1)));
    }

    #[test]
    fn a_connection_has_its_first_body_while_there_is_any_room() {
        let budget = budget(STREAM_WINDOW);
        let window = budget.window(LEAST_OF_HTTP3);
        let (_first, wider) = window.begin(None);
        assert_eq!(wider, Some(LEAST_OF_HTTP3 + STREAM_WINDOW - FREE));
        let (_second, wider) = window.begin(None);
        assert_eq!(wider, Some(LEAST_OF_HTTP3 + STREAM_WINDOW), "and no more than one");
        assert_eq!(window.begin(None).1, None);
    }

    #[test]
    fn no_window_is_wider_than_there_can_be() {
        let limits = Limits { uploads_ahead_max: u64::MAX, ..Limits::default() };
        let budget = Budget::new(&limits, Arc::default());
        let window = budget.window(LEAST);
        window.ahead.store(u32::MAX, Relaxed);
        assert_eq!(window.widen(), Some(WINDOW_MAX));
        assert_eq!(window.widen(), None);
    }
}
