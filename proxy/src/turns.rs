//! Whose turn it is among the streams of an HTTP/3 connection that have something to send.
//!
//! When a connection has room again, quinn wakes those that wait in the reverse of the order in which they
//! began, and whoever is polled first takes all of it. Of three answers without end over a slow line the
//! middle one would get nothing, and then be given up for a client that takes nothing. So who finds others
//! waiting lets the one go first that has waited for longest, and only then looks for room.

use std::{cell::RefCell, collections::VecDeque, task::Waker};

/// The streams of one connection that found no room, in the order in which they began to wait. `I` names a
/// stream.
#[derive(Debug)]
pub(crate) struct Turns<I>(RefCell<VecDeque<Turn<I>>>);

#[derive(Debug)]
struct Turn<I> {
    id: I,
    waker: Waker,
    /// Whether it has looked since it was let go first, and found no room.
    in_vain: bool,
}

impl<I> Default for Turns<I> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<I: Copy + PartialEq> Turns<I> {
    /// Lets the stream go first that has waited for longest, unless it is this one; says which it is. This
    /// one looks for room after that one was polled.
    pub(crate) fn let_first_go(&self, id: I) -> Option<I> {
        let mut waiting = self.0.borrow_mut();
        let first = waiting.front_mut().filter(|first| first.id != id)?;
        first.in_vain = false;
        let (first, waker) = (first.id, first.waker.clone());
        drop(waiting);
        waker.wake();
        Some(first)
    }

    /// A stream has found no room. Who waits already keeps its place.
    pub(crate) fn wait(&self, id: I, waker: &Waker) {
        let mut waiting = self.0.borrow_mut();
        if let Some(turn) = waiting.iter_mut().find(|turn| turn.id == id) {
            turn.waker.clone_from(waker);
            turn.in_vain = true;
        } else {
            waiting.push_back(Turn { id, waker: waker.clone(), in_vain: true });
        }
    }

    /// A stream has found room, after it had let another one go first, if it did. Where that one had found
    /// none before, it lacks room of its own: it is not waited for any more.
    pub(crate) fn served(&self, id: I, had_gone: Option<I>) {
        self.0.borrow_mut().retain(|turn| {
            let lacks = turn.in_vain && had_gone == Some(turn.id);
            turn.id != id && !lacks
        });
    }

    /// A stream sends nothing more.
    pub(crate) fn leave(&self, id: I) {
        self.served(id, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One round: the streams in the order in which they are woken, and those that have room of their own.
    /// Says who gets what room there is.
    fn round(turns: &Turns<u8>, woken: &[u8], open: &[u8]) -> Option<u8> {
        let mut queue: VecDeque<(u8, Option<u8>)> = woken.iter().map(|id| (*id, None)).collect();
        let (mut room, mut got) = (true, None);
        while let Some((id, had_gone)) = queue.pop_front() {
            if had_gone.is_none()
                && let Some(first) = turns.let_first_go(id)
            {
                queue.push_back((first, Some(first)));
                queue.push_back((id, Some(first)));
            } else if room && open.contains(&id) {
                turns.served(id, had_gone);
                (room, got) = (false, Some(id));
                turns.wait(id, Waker::noop());
            } else {
                turns.wait(id, Waker::noop());
            }
        }
        got
    }

    #[test]
    fn whoever_is_woken_first_all_get_their_turn() {
        let turns = Turns::default();
        for id in [1, 2, 3] {
            turns.wait(id, Waker::noop());
        }
        let orders = [[3, 2, 1], [1, 2, 3]];
        let got: Vec<_> =
            (0..9).map(|at| round(&turns, &orders[at % 2], &[1, 2, 3]).unwrap()).collect();
        assert_eq!(got, [1, 2, 3, 1, 2, 3, 1, 2, 3]);
    }

    #[test]
    fn nobody_waits_for_a_stream_whose_own_window_is_closed() {
        let turns = Turns::default();
        for id in [1, 2, 3] {
            turns.wait(id, Waker::noop());
        }
        let got: Vec<_> = (0..6).map(|_| round(&turns, &[3, 2], &[2, 3]).unwrap()).collect();
        assert!(got.windows(3).all(|three| three.contains(&2) && three.contains(&3)), "{got:?}");
        turns.leave(2);
        turns.leave(3);
        assert!(turns.let_first_go(9).is_none_or(|first| first == 1));
        turns.leave(1);
        assert_eq!(turns.let_first_go(9), None);
    }
}
