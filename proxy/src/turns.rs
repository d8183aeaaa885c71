//! Whose turn it is among the streams of an HTTP/3 connection that have something to send.
//!
//! When a connection has room again, quinn wakes those that wait in the reverse of the order in which they
//! began, and whoever is polled first takes all of it. Of three answers without end over a slow line the
//! middle one would get nothing, and then be given up for a client that takes nothing. So who finds others
//! waiting lets the one go first that has waited for longest, and only then looks for room.

use std::{cell::RefCell, collections::VecDeque, mem, rc::Rc, task::Waker};

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
    /// Lets the stream go first that has waited for longest, unless it is this one; says which it is.
    fn let_first_go(&self, id: I) -> Option<I> {
        let mut waiting = self.0.borrow_mut();
        let first = waiting.front_mut().filter(|first| first.id != id)?;
        first.in_vain = false;
        let (first, waker) = (first.id, first.waker.clone());
        drop(waiting);
        waker.wake();
        Some(first)
    }
}

/// A stream among those of its connection. It leaves them when it is dropped.
#[derive(Debug)]
pub(crate) struct Place<I: Copy + PartialEq> {
    turns: Rc<Turns<I>>,
    id: I,
    /// Whether it may be among those that wait. Only who is looks through them.
    is_waiting: bool,
    /// The stream that was let go first, since this one looked for room last.
    had_gone: Option<I>,
}

impl<I: Copy + PartialEq> Place<I> {
    pub(crate) fn new(turns: Rc<Turns<I>>, id: I) -> Self {
        Self { turns, id, is_waiting: false, had_gone: None }
    }

    /// Whether another stream was let go first just now, so that this one is to look for room only after
    /// that one was polled.
    pub(crate) fn lets_another_go(&mut self) -> bool {
        if self.had_gone.is_some() {
            return false;
        }
        self.had_gone = self.turns.let_first_go(self.id);
        self.had_gone.is_some()
    }

    /// The stream has found no room. Who waits already keeps its place.
    pub(crate) fn wait(&mut self, waker: &Waker) {
        self.had_gone = None;
        let was_waiting = mem::replace(&mut self.is_waiting, true);
        let mut waiting = self.turns.0.borrow_mut();
        // Those that found room meanwhile may not wait for it any more, see below.
        let turn = was_waiting.then(|| waiting.iter_mut().find(|turn| turn.id == self.id));
        if let Some(turn) = turn.flatten() {
            turn.waker.clone_from(waker);
            turn.in_vain = true;
        } else {
            waiting.push_back(Turn { id: self.id, waker: waker.clone(), in_vain: true });
        }
    }

    /// The stream has found room, after it had let another one go first, if it did. Where that one had found
    /// none before, it lacks room of its own: it is not waited for any more.
    pub(crate) fn served(&mut self) {
        let had_gone = self.had_gone.take();
        if !mem::take(&mut self.is_waiting) && had_gone.is_none() {
            return;
        }
        self.turns.0.borrow_mut().retain(|turn| {
            let lacks = turn.in_vain && had_gone == Some(turn.id);
            turn.id != self.id && !lacks
        });
    }
}

impl<I: Copy + PartialEq> Drop for Place<I> {
    fn drop(&mut self) {
        self.had_gone = None;
        self.served();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(turns: &Rc<Turns<usize>>) -> [Place<usize>; 3] {
        [0, 1, 2].map(|id| {
            let mut place = Place::new(Rc::clone(turns), id);
            place.wait(Waker::noop());
            place
        })
    }

    /// One round: the streams in the order in which they are woken, and those that have room of their own.
    /// Says who gets what room there is.
    fn round(places: &mut [Place<usize>], woken: &[usize], open: &[usize]) -> Option<usize> {
        let mut queue = VecDeque::from(woken.to_vec());
        let (mut room, mut got) = (true, None);
        while let Some(id) = queue.pop_front() {
            if places[id].lets_another_go() {
                queue.extend([places[id].had_gone.unwrap(), id]);
                continue;
            }
            if room && open.contains(&id) {
                places[id].served();
                (room, got) = (false, Some(id));
            }
            places[id].wait(Waker::noop());
        }
        got
    }

    #[test]
    fn whoever_is_woken_first_all_get_their_turn() {
        let mut places = places(&Rc::default());
        let orders = [[2, 1, 0], [0, 1, 2]];
        let got: Vec<_> =
            (0..9).map(|at| round(&mut places, &orders[at % 2], &[0, 1, 2]).unwrap()).collect();
        assert_eq!(got, [0, 1, 2, 0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn nobody_waits_for_a_stream_whose_own_window_is_closed() {
        let turns = Rc::default();
        let mut places = places(&turns);
        let got: Vec<_> = (0..6).map(|_| round(&mut places, &[2, 1], &[1, 2]).unwrap()).collect();
        assert!(got.windows(3).all(|three| three.contains(&1) && three.contains(&2)), "{got:?}");
        let [closed, second, third] = places;
        drop((second, third));
        assert!(turns.let_first_go(9).is_none_or(|first| first == 0));
        drop(closed);
        assert_eq!(turns.let_first_go(9), None);
    }

    #[test]
    fn who_does_not_wait_does_not_look_through_those_who_do() {
        let turns = Rc::default();
        let mut others = places(&turns);
        let mut place = Place::new(Rc::clone(&turns), 3);
        let looked = turns.0.borrow_mut();
        place.served();
        drop(place);
        drop(looked);
        others[0].served();
        let looked = turns.0.borrow_mut();
        others[0].served();
        assert_eq!(looked.iter().map(|turn| turn.id).collect::<Vec<_>>(), [1, 2]);
    }
}
