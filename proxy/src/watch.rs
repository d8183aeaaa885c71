//! Deadlines without timers, and the cut: one slot per thing that waits, looked at once a tick.
//!
//! A timer per request costs more than the rest of its bookkeeping. Here a wait is a number in a
//! slot; the worker's ticker compares all slots with the clock and wakes what is due. The same slots
//! remember to which start of which container a wait belongs, so that a stopped or deleted
//! container's streams end with the next look.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::{Context, Waker},
    time::Duration,
};

use gantry_model::{ContainerId, Generation, ProjectId};

use crate::{guard::Pass, limits::CutBy};

/// The resolution of all deadlines.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// A moment, counted in ticks since the worker began.
pub(crate) type Tick = u64;

/// No deadline.
pub(crate) const NEVER: Tick = Tick::MAX;

/// How long one body may make us wait: never longer than `idle` at a time, and in all no longer than
/// `idle` and what its octets earn at the least allowed rate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    idle: Duration,
    rate_min: u64,
    /// Ticks left.
    credit: u64,
    since: Option<Tick>,
    /// Whether the present wait ends because of the rate, before it is too long by itself.
    by_rate: bool,
}

impl Patience {
    pub(crate) fn new(idle: Duration, rate_min: u32) -> Self {
        let credit = u64::try_from(idle.as_millis() / TICK.as_millis()).unwrap_or(u64::MAX);
        Self { idle, rate_min: u64::from(rate_min.max(1)), credit, since: None, by_rate: false }
    }

    /// As [`Patience::new`], without a least rate: the two sides of a call may have nothing to say to
    /// one another for long.
    pub(crate) fn of_a_call(idle: Duration) -> Self {
        Self { idle, rate_min: 1, credit: u64::MAX, since: None, by_rate: false }
    }

    /// Nothing came: begins a wait, or goes on with it; returns its deadline if it is a new one.
    pub(crate) fn wait(&mut self, watch: &Watch) -> Option<Tick> {
        if self.since.is_some() {
            return None;
        }
        let now = watch.now();
        self.since = Some(now);
        let (too_long, too_slow) =
            (watch.after(self.idle), now.saturating_add(self.credit).saturating_add(1));
        self.by_rate = too_slow < too_long;
        Some(too_long.min(too_slow))
    }

    /// Which limit the present wait is bounded by: that of one pause, or that of the average.
    pub(crate) const fn bound(&self, pause: CutBy, rate: CutBy) -> CutBy {
        if self.by_rate { rate } else { pause }
    }

    /// So many octets came.
    pub(crate) fn earn(&mut self, watch: &Watch, octets: u64) {
        const TICKS_PER_SECOND: u64 = 10;
        if let Some(since) = self.since.take() {
            self.credit = self.credit.saturating_sub(watch.now().saturating_sub(since));
        }
        let earned = octets.saturating_mul(TICKS_PER_SECOND) / self.rate_min;
        self.credit = self.credit.saturating_add(earned);
    }
}

/// One start of one container, to which a stream belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Origin {
    pub(crate) project: ProjectId,
    pub(crate) container: ContainerId,
    pub(crate) generation: Generation,
}

impl Origin {
    /// No start of a container has this number.
    const EVERY: Generation = Generation(u64::MAX);

    /// A container as long as it exists, whether it runs or not.
    pub(crate) const fn always(project: ProjectId, container: ContainerId) -> Self {
        Self { project, container, generation: Self::EVERY }
    }

    /// Whether it is about the container's existence alone.
    pub(crate) fn is_always(&self) -> bool {
        self.generation == Self::EVERY
    }
}

/// All waits of one worker.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    now: Cell<Tick>,
    /// When the first pass is to be looked at again.
    next_look: Cell<Option<Tick>>,
    slots: RefCell<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    all: Vec<Slot>,
    free: Vec<usize>,
}

#[derive(Debug)]
struct Slot {
    taken: bool,
    deadline: Tick,
    origin: Option<Origin>,
    /// By what the request that waits was let in, if its container has a gate.
    pass: Option<Rc<Pass>>,
    /// When the pass is to be looked at again.
    rests_until: Tick,
    cut: bool,
    waker: Option<Waker>,
}

/// A slot of the watch, freed when dropped.
#[derive(Debug)]
pub(crate) struct Wait {
    watch: Rc<Watch>,
    index: usize,
}

/// Why a wait is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// Its deadline has passed.
    Deadline,
    /// Its container does not run any more as it did, or may not be used any more by whoever asked.
    Cut,
}

impl Watch {
    /// The present tick.
    pub(crate) fn now(&self) -> Tick {
        self.now.get()
    }

    /// The tick that lies `duration` ahead; at least one full tick.
    pub(crate) fn after(&self, duration: Duration) -> Tick {
        let ticks = duration.as_millis().div_ceil(TICK.as_millis());
        self.now.get().saturating_add(Tick::try_from(ticks).unwrap_or(NEVER)).saturating_add(1)
    }

    /// Takes a slot without a deadline.
    pub(crate) fn wait(self: &Rc<Self>, origin: Option<Origin>) -> Wait {
        let slot = Slot {
            taken: true,
            deadline: NEVER,
            origin,
            pass: None,
            rests_until: NEVER,
            cut: false,
            waker: None,
        };
        let mut slots = self.slots.borrow_mut();
        let index = slots.free.pop().unwrap_or(slots.all.len());
        match slots.all.get_mut(index) {
            Some(free) => *free = slot,
            None => slots.all.push(slot),
        }
        Wait { watch: Rc::clone(self), index }
    }

    /// Moves the clock and wakes what is due.
    pub(crate) fn tick(&self, now: Tick) {
        self.now.set(now);
        self.wake(|slot| slot.deadline <= now);
    }

    /// Ends the waits that `is_over` names.
    pub(crate) fn cut(&self, is_over: impl Fn(&Origin, Option<&Pass>) -> bool) {
        self.wake(|slot| {
            let pass = slot.pass.as_deref();
            slot.cut |= slot.origin.as_ref().is_some_and(|origin| is_over(origin, pass));
            slot.cut
        });
    }

    /// Looks at the passes whose time has come. `judge` says until when one holds; where it holds no
    /// more, the wait ends.
    pub(crate) fn expire(&self, judge: impl Fn(&Origin, &Pass) -> Option<Tick>) {
        let now = self.now.get();
        if self.next_look.get().is_none_or(|at| now < at) {
            return;
        }
        let mut next = None;
        self.wake(|slot| {
            if slot.rests_until <= now {
                let judged = slot.origin.as_ref().zip(slot.pass.as_deref());
                let until = judged.and_then(|(origin, pass)| judge(origin, pass));
                slot.cut |= until.is_none();
                slot.rests_until = until.unwrap_or(NEVER);
            }
            if slot.rests_until != NEVER {
                next = Some(next.map_or(slot.rests_until, |at: Tick| at.min(slot.rests_until)));
            }
            slot.cut
        });
        self.next_look.set(next);
    }

    /// Wakes everything, for a change that all must look at.
    pub(crate) fn wake_all(&self) {
        self.wake(|_| true);
    }

    fn wake(&self, mut due: impl FnMut(&mut Slot) -> bool) {
        // Wakers may run arbitrary code, so that none is called while the slots are borrowed.
        let mut wakers = Vec::new();
        for slot in &mut self.slots.borrow_mut().all {
            if slot.taken && due(slot) {
                wakers.extend(slot.waker.take());
            }
        }
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Wait {
    /// The watch that it belongs to.
    pub(crate) fn watch(&self) -> &Rc<Watch> {
        &self.watch
    }

    /// The request that waits was let in by this, which is to be looked at again then.
    pub(crate) fn holds(&self, pass: Rc<Pass>, until: Tick) {
        self.with(|slot| (slot.pass, slot.rests_until) = (Some(pass), until));
        if until != NEVER {
            let next = self.watch.next_look.get().map_or(until, |at| at.min(until));
            self.watch.next_look.set(Some(next));
        }
    }

    /// Sets the deadline to `duration` from now.
    pub(crate) fn within(&self, duration: Duration) {
        self.until(self.watch.after(duration));
    }

    /// Sets the deadline; [`NEVER`] removes it.
    pub(crate) fn until(&self, deadline: Tick) {
        self.with(|slot| slot.deadline = deadline);
    }

    /// Whether the wait is over at this moment.
    pub(crate) fn is_over(&self) -> bool {
        let now = self.watch.now.get();
        self.with(|slot| slot.cut || slot.deadline <= now).unwrap_or(true)
    }

    /// Whether the wait is over; the task is woken when it will be.
    pub(crate) fn poll_over(&self, cx: &Context<'_>) -> Option<Over> {
        let now = self.watch.now.get();
        self.with(|slot| {
            if slot.cut {
                return Some(Over::Cut);
            }
            if slot.deadline <= now {
                return Some(Over::Deadline);
            }
            match &slot.waker {
                Some(waker) if waker.will_wake(cx.waker()) => {}
                _ => slot.waker = Some(cx.waker().clone()),
            }
            None
        })
        .flatten()
    }

    fn with<T>(&self, change: impl FnOnce(&mut Slot) -> T) -> Option<T> {
        self.watch.slots.borrow_mut().all.get_mut(self.index).map(change)
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let mut slots = self.watch.slots.borrow_mut();
        let waker = slots.all.get_mut(self.index).map(|slot| {
            slot.taken = false;
            (slot.waker.take(), slot.pass.take())
        });
        slots.free.push(self.index);
        drop(slots);
        drop(waker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(wait: &Wait) -> Option<Over> {
        wait.poll_over(&Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_deadline_passes_with_the_ticks() {
        let watch = Rc::new(Watch::default());
        let wait = watch.wait(None);
        wait.within(Duration::from_millis(150));
        watch.tick(2);
        assert_eq!(poll(&wait), None, "150 ms are two ticks begun and one to be sure");
        watch.tick(3);
        assert_eq!(poll(&wait), Some(Over::Deadline));
        wait.until(NEVER);
        assert_eq!(poll(&wait), None);
    }

    #[test]
    fn patience_ends_by_one_long_pause_or_by_many_short_ones() {
        let bound = |patience: &Patience| patience.bound(CutBy::SendPause, CutBy::SendRate);
        let watch = Watch::default();
        let mut patience = Patience::new(Duration::from_secs(1), 100);
        assert_eq!((patience.wait(&watch), bound(&patience)), (Some(11), CutBy::SendPause));
        watch.tick(4);
        patience.earn(&watch, 9);
        assert_eq!((patience.wait(&watch), bound(&patience)), (Some(11), CutBy::SendRate));
        watch.tick(6);
        patience.earn(&watch, 40);
        assert_eq!((patience.wait(&watch), bound(&patience)), (Some(15), CutBy::SendRate));
        patience.earn(&watch, 1000);
        assert_eq!((patience.wait(&watch), bound(&patience)), (Some(17), CutBy::SendPause));
    }

    #[test]
    fn only_the_waits_of_a_gone_container_are_cut() {
        let watch = Rc::new(Watch::default());
        let origin = |id| Origin {
            project: ProjectId::from_bytes([1; 12]),
            container: ContainerId::from_bytes([id; 12]),
            generation: Generation(1),
        };
        let (gone, stays, other) =
            (watch.wait(Some(origin(1))), watch.wait(Some(origin(2))), watch.wait(None));
        watch.cut(|it, _| *it == origin(1));
        assert_eq!((poll(&gone), poll(&stays), poll(&other)), (Some(Over::Cut), None, None));
        // A freed slot is used again, and starts afresh.
        drop(gone);
        assert_eq!(poll(&watch.wait(None)), None);
    }
}
