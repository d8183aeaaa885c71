//! How much clients of HTTP/2 and HTTP/3 may send ahead of what their containers take.
//!
//! All of it may have to be kept, because nobody takes it. A connection's window is narrow at first; with
//! its first request that has a body it becomes as wide as the windows of all its streams, so that a
//! container that does not take what it is sent keeps no other request from its own, as long as the worker's
//! budget has room for that. What a connection was granted is given back when it ends.

use std::{
    cell::{Cell, OnceCell},
    rc::Rc,
};

use crate::config::Limits;

/// What a client may send ahead on one stream, in octets: once per round trip, so that this is the rate of
/// an upload, 5 MiB/s at 50 ms. The default budget of 256 MiB has room for eight connections all of whose
/// 128 streams are full.
pub(crate) const STREAM_WINDOW: u32 = 256 * 1024;
/// What a client may send ahead on all streams of a connection that was granted nothing, in octets.
const NARROW: u32 = 1024 * 1024;

/// The budget of one worker.
#[derive(Debug)]
pub(crate) struct Budget {
    /// The window of a connection that holds those of all its streams.
    wide: u32,
    /// The octets that are not granted.
    left: Rc<Cell<u64>>,
}

/// The part of the budget that one connection has, given back when it is dropped.
#[derive(Debug)]
struct Grant {
    octets: u32,
    left: Rc<Cell<u64>>,
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.left.set(self.left.get().saturating_add(self.octets.into()));
    }
}

impl Budget {
    pub(crate) fn new(limits: &Limits) -> Self {
        // No window may be larger (RFC 9113, 6.9.1).
        const WINDOW_MAX: u32 = (1 << 31) - 1;
        let wide = STREAM_WINDOW.saturating_mul(limits.streams_max).min(WINDOW_MAX);
        Self { wide, left: Rc::new(Cell::new(limits.uploads_ahead_max)) }
    }

    /// The window of a connection that begins, in octets.
    pub(crate) const fn narrow(&self) -> u32 {
        if self.wide < NARROW { self.wide } else { NARROW }
    }

    /// The wide window, if it is one and there is room for it.
    fn grant(&self) -> Option<Grant> {
        if self.wide <= NARROW {
            return None;
        }
        let left = self.left.get().checked_sub(self.wide.into())?;
        self.left.set(left);
        Some(Grant { octets: self.wide, left: Rc::clone(&self.left) })
    }
}

/// The window of one connection; what it was granted is given back with it.
#[derive(Debug, Default)]
pub(crate) struct Window(OnceCell<Grant>);

impl Window {
    /// A request with a body has come. Returns how wide the window is to be from now on, in octets, if it is
    /// to become wider; one for which there was no room is asked about again with the next body.
    pub(crate) fn widen(&self, budget: &Budget) -> Option<u32> {
        if self.0.get().is_some() {
            return None;
        }
        let grant = budget.grant()?;
        Some(self.0.get_or_init(|| grant).octets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDE: u32 = 128 * STREAM_WINDOW;

    fn budget(streams_max: u32, octets: u64) -> Budget {
        Budget::new(&Limits { streams_max, uploads_ahead_max: octets, ..Limits::default() })
    }

    #[test]
    fn windows_are_wide_as_long_as_there_is_room_and_give_it_back() {
        let budget = budget(128, 2 * u64::from(WIDE) + 5);
        let [one, two, three] = [(); 3].map(|()| Window::default());
        assert_eq!(budget.narrow(), NARROW);
        assert_eq!((one.widen(&budget), two.widen(&budget)), (Some(WIDE), Some(WIDE)));
        assert_eq!(one.widen(&budget), None, "it is wide");
        assert_eq!((three.widen(&budget), budget.left.get()), (None, 5));
        drop(three);
        assert_eq!(budget.left.get(), 5, "who got nothing gives nothing back");
        drop(one);
        let four = Window::default();
        assert_eq!(four.widen(&budget), Some(WIDE), "there is room again");
        drop((two, four));
        assert_eq!(budget.left.get(), 2 * u64::from(WIDE) + 5);
    }

    #[test]
    fn few_streams_need_no_budget_and_no_budget_widens_nothing() {
        let (none, few) = (budget(128, 0), budget(2, u64::MAX));
        assert_eq!((none.narrow(), Window::default().widen(&none)), (NARROW, None));
        assert_eq!((few.narrow(), Window::default().widen(&few)), (2 * STREAM_WINDOW, None));
        assert_eq!(few.left.get(), u64::MAX);
    }
}
