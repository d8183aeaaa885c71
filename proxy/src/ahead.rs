//! How much clients of HTTP/2 and HTTP/3 may send ahead of what their containers take.
//!
//! All of it may have to be kept, because nobody takes it. A connection's window is as narrow as may be at
//! first; with each body that is under way it becomes one stream's window wider, so that a container that
//! does not take what it is sent keeps no other request from its own, as long as the worker's budget has
//! room for that. What a connection was granted cannot be taken back, but serves its later bodies; it
//! returns to the budget when the connection ends.

use std::{cell::Cell, rc::Rc};

use crate::config::Limits;

/// What a client may send ahead on one stream, in octets: once per round trip, so that this is the rate of
/// an upload, 5 MiB/s at 50 ms. The default budget of 256 MiB has room for 1,024 bodies at the same time.
pub(crate) const STREAM_WINDOW: u32 = 256 * 1024;
/// What a client may send ahead on a connection that was granted nothing, in octets. HTTP/2 has no narrower
/// window (RFC 9113, 6.9.2).
pub(crate) const LEAST: u32 = 65_535;
/// No window may be larger (RFC 9113, 6.9.1).
const WINDOW_MAX: u32 = (1 << 31) - 1;

/// The budget of one worker.
#[derive(Debug)]
pub(crate) struct Budget {
    /// The octets that are not granted.
    left: Rc<Cell<u64>>,
}

impl Budget {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { left: Rc::new(Cell::new(limits.uploads_ahead_max)) }
    }

    /// The window of a connection that begins, [`LEAST`] wide.
    pub(crate) fn window(&self) -> Rc<Window> {
        let left = Rc::clone(&self.left);
        Rc::new(Window { bodies: Cell::new(0), granted: Cell::new(0), left })
    }
}

/// The window of one connection. What it was granted is given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Window {
    /// Bodies that are under way.
    bodies: Cell<u32>,
    /// The octets beyond [`LEAST`].
    granted: Cell<u32>,
    left: Rc<Cell<u64>>,
}

/// A body that is under way until this is dropped.
#[derive(Debug)]
pub(crate) struct Uploading(Rc<Window>);

impl Window {
    /// A request with a body has come. Says, too, how wide the window is to be from now on, in octets, if it
    /// is to become wider; what there was no room for is asked for again with the next body.
    pub(crate) fn begin(self: &Rc<Self>) -> (Uploading, Option<u32>) {
        let bodies = self.bodies.get().saturating_add(1);
        self.bodies.set(bodies);
        (Uploading(Rc::clone(self)), self.widen(bodies))
    }

    /// Makes room for so many bodies, as far as the budget has it.
    fn widen(&self, bodies: u32) -> Option<u32> {
        let (granted, left) = (self.granted.get(), self.left.get());
        let wanted = bodies.saturating_mul(STREAM_WINDOW).min(WINDOW_MAX - LEAST);
        let room = u32::try_from(left / u64::from(STREAM_WINDOW)).unwrap_or(u32::MAX);
        let more = wanted.saturating_sub(granted).min(room.saturating_mul(STREAM_WINDOW));
        if more == 0 {
            return None;
        }
        self.left.set(left.saturating_sub(more.into()));
        self.granted.set(granted.saturating_add(more));
        Some(LEAST.saturating_add(self.granted.get()))
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.left.set(self.left.get().saturating_add(self.granted.get().into()));
    }
}

impl Drop for Uploading {
    fn drop(&mut self) {
        self.0.bodies.set(self.0.bodies.get().saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The window that has room for so many bodies.
    const fn of(bodies: u32) -> u32 {
        LEAST + bodies * STREAM_WINDOW
    }

    fn budget(bodies: u32) -> Budget {
        let octets = u64::from(bodies * STREAM_WINDOW) + 5;
        Budget::new(&Limits { uploads_ahead_max: octets, ..Limits::default() })
    }

    #[test]
    fn a_window_grows_with_the_bodies_that_are_under_way_at_the_same_time() {
        let budget = budget(10);
        let window = budget.window();
        for _ in 0..3 {
            let (first, wider) = window.begin();
            let (second, more) = window.begin();
            assert!(wider.is_none_or(|wider| wider == of(1)), "{wider:?}");
            assert!(more.is_none_or(|more| more == of(2)), "{more:?}");
            drop((first, second));
        }
        assert_eq!(window.granted.get(), 2 * STREAM_WINDOW, "later ones need no more");
        drop(window);
        assert_eq!(budget.left.get(), u64::from(10 * STREAM_WINDOW) + 5);
    }

    #[test]
    fn windows_grow_as_long_as_there_is_room_and_give_it_back() {
        let budget = budget(2);
        let (one, two) = (budget.window(), budget.window());
        let (_first, wider) = one.begin();
        assert_eq!(wider, Some(of(1)));
        let (second, wider) = two.begin();
        assert_eq!((wider, budget.left.get()), (Some(of(1)), 5));
        let (_third, wider) = one.begin();
        assert_eq!(wider, None, "nothing is left");
        drop((two, second));
        let (_fourth, wider) = one.begin();
        assert_eq!(wider, Some(of(2)), "as far as there is room");
        assert_eq!(budget.left.get(), 5);
    }

    #[test]
    fn no_window_is_wider_than_there_can_be() {
        let budget = Budget::new(&Limits { uploads_ahead_max: u64::MAX, ..Limits::default() });
        let window = budget.window();
        assert_eq!(window.widen(u32::MAX), Some(WINDOW_MAX));
        assert_eq!(window.widen(u32::MAX), None);
    }
}
