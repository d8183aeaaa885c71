//! The entries of one container: the newest ones, in memory that is taken as it is needed and bounded
//! in every part.
//!
//! To add an entry copies its few octets behind those of the others and writes one small struct;
//! nothing is allocated once the ring has its size, and nothing of the request is held on to.

use std::{collections::VecDeque, sync::Arc};

use gantry_model::Generation;
use gantry_router::{Route, RouteState};

use super::{
    capture::Capture,
    entry::{Entry, Head, Text},
};

/// Entries that the first piece of memory has room for.
const ENTRIES_MIN: usize = 32;
/// Octets of text that the first piece of memory has room for.
const OCTETS_MIN: usize = 1024;

/// How large a ring may grow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    entries: usize,
    octets: usize,
    captured: usize,
}

impl Bounds {
    /// For so many entries and, all in all, so many octets of memory.
    pub(super) fn new(entries: usize, bytes: usize) -> Self {
        // A quarter each for the entries and their text, half for what is captured.
        let room = bytes / 4 / size_of::<Head>();
        Self { entries: entries.min(room).max(1), octets: bytes / 4, captured: bytes / 2 }
    }
}

/// What a container was doing when it was last looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Running(Generation),
    Starting,
    Paused,
    Stopped,
    Failed,
}

impl State {
    /// What it is doing by its route.
    pub(super) const fn of(route: &Route) -> Self {
        match route.state {
            RouteState::Running { .. } => Self::Running(route.generation),
            RouteState::Starting => Self::Starting,
            RouteState::Paused => Self::Paused,
            RouteState::Stopped => Self::Stopped,
            RouteState::Failed => Self::Failed,
        }
    }
}

/// The newest entries of one container.
#[derive(Debug)]
pub(super) struct Ring {
    entries: VecDeque<Head>,
    /// The text of the entries, one after the other.
    octets: VecDeque<u8>,
    captured: usize,
    /// The number that the first entry ever had.
    born: u64,
    /// The number of the first entry that is still here, or of the next.
    first: u64,
    pub(super) state: Option<State>,
    /// When it was last written to.
    pub(super) used_ms: i64,
    /// Nothing is added any more: nobody would count what it takes.
    closed: bool,
}

impl Ring {
    /// An empty one, whose first entry will have the number `born`.
    pub(super) fn new(born: u64, state: Option<State>, now_ms: i64) -> Self {
        Self {
            entries: VecDeque::new(),
            octets: VecDeque::new(),
            captured: 0,
            born,
            first: born,
            state,
            used_ms: now_ms,
            closed: false,
        }
    }

    /// The number of the first entry ever.
    pub(super) const fn born(&self) -> u64 {
        self.born
    }

    /// The number of the oldest entry that is here, or of the next.
    pub(super) const fn first(&self) -> u64 {
        self.first
    }

    /// The number of the next entry.
    pub(super) fn next(&self) -> u64 {
        self.first.saturating_add(u64::try_from(self.entries.len()).unwrap_or(u64::MAX))
    }

    /// The memory that it has taken, in octets.
    pub(super) fn held(&self) -> usize {
        self.entries.capacity() * size_of::<Head>() + self.octets.capacity() + self.captured
    }

    /// Adds an entry, unless the ring is closed; the oldest make room for it.
    pub(super) fn push(&mut self, bounds: &Bounds, head: Head, text: &Text<'_>) {
        if self.closed {
            return;
        }
        let len = text.len();
        while self.entries.len() >= bounds.entries || self.octets.len() + len > bounds.octets {
            if !self.forget_oldest() {
                break;
            }
        }
        if self.entries.len() == self.entries.capacity() {
            self.grow_entries(bounds);
        }
        if self.octets.len() + len > self.octets.capacity() {
            self.grow_octets(bounds, len);
        }
        self.used_ms = head.ts_ms;
        self.entries.push_back(head);
        self.octets.extend(text.method);
        self.octets.extend(text.host);
        self.octets.extend(text.target);
    }

    /// Ties what is captured to an entry, if that is still here; the oldest make room for it.
    /// `weight` is what it takes, in octets. What has become too large is kept by no entry any more.
    pub(super) fn attach(
        &mut self,
        bounds: &Bounds,
        seq: u64,
        capture: &Arc<Capture>,
        weight: usize,
    ) {
        if weight > bounds.captured {
            self.detach(capture);
            return;
        }
        while self.captured + weight > bounds.captured && self.first <= seq {
            if !self.forget_oldest() {
                break;
            }
        }
        let Some(at) = self.place(seq) else { return };
        if let Some(head) = self.entries.get_mut(at) {
            head.capture = Some(Arc::clone(capture));
            head.captured = u32::try_from(weight).unwrap_or(u32::MAX);
            self.captured += weight;
        }
    }

    /// Lets go of what is captured.
    #[cold]
    fn detach(&mut self, capture: &Arc<Capture>) {
        for head in &mut self.entries {
            if head.capture.as_ref().is_some_and(|of| Arc::ptr_eq(of, capture)) {
                head.capture = None;
                let weight = usize::try_from(std::mem::take(&mut head.captured)).unwrap_or(0);
                self.captured = self.captured.saturating_sub(weight);
            }
        }
    }

    /// Forgets everything, and gives its memory back.
    pub(super) fn clear(&mut self) {
        self.first = self.next();
        self.entries = VecDeque::new();
        self.octets = VecDeque::new();
        self.captured = 0;
    }

    /// Forgets everything for good.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.clear();
    }

    /// The entries from number `from` on, each with an iterator over its text.
    pub(super) fn from(&self, from: u64) -> impl Iterator<Item = (u64, &Head, Octets<'_>)> {
        let skipped = self.place(from.max(self.first)).unwrap_or(self.entries.len());
        // From the end, which is where those who follow look.
        let shown: usize = self.entries.iter().skip(skipped).map(Head::text_len).sum();
        let mut at = self.octets.len().saturating_sub(shown);
        let numbers = self.first.saturating_add(u64::try_from(skipped).unwrap_or(u64::MAX))..;
        numbers.zip(self.entries.iter().skip(skipped)).map(move |(seq, head)| {
            let text = Octets { all: &self.octets, at, len: head.text_len() };
            at += head.text_len();
            (seq, head, text)
        })
    }

    fn place(&self, seq: u64) -> Option<usize> {
        let at = usize::try_from(seq.checked_sub(self.first)?).ok()?;
        (at < self.entries.len()).then_some(at)
    }

    fn forget_oldest(&mut self) -> bool {
        let Some(head) = self.entries.pop_front() else { return false };
        self.first += 1;
        drop(self.octets.drain(..head.text_len().min(self.octets.len())));
        self.captured = self.captured.saturating_sub(usize::try_from(head.captured).unwrap_or(0));
        true
    }

    #[cold]
    fn grow_entries(&mut self, bounds: &Bounds) {
        let capacity = self.entries.capacity();
        let wanted = (capacity * 2).max(ENTRIES_MIN).min(bounds.entries);
        self.entries.reserve_exact(wanted.saturating_sub(self.entries.len()));
    }

    #[cold]
    fn grow_octets(&mut self, bounds: &Bounds, need: usize) {
        let wanted = (self.octets.capacity() * 2).max(OCTETS_MIN).min(bounds.octets);
        let more = wanted.saturating_sub(self.octets.len()).max(need);
        self.octets.reserve_exact(more);
    }
}

/// The text of one entry, where it lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Octets<'r> {
    all: &'r VecDeque<u8>,
    at: usize,
    len: usize,
}

impl Octets<'_> {
    pub(super) fn iter(&self) -> impl Iterator<Item = u8> {
        self.all.iter().skip(self.at).take(self.len).copied()
    }

    /// The entry on its own.
    pub(super) fn entry(&self, seq: u64, head: &Head) -> Entry {
        Entry { seq, head: head.clone(), text: self.iter().collect() }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};
    use proptest::prelude::*;

    use super::*;
    use crate::{
        deps::RequestId,
        downstream::Protocol,
        logs::entry::{Asked, Served},
    };

    #[test]
    fn a_closed_ring_takes_nothing_more() {
        let (mut ring, bounds) = (Ring::new(7, None, 0), Bounds::new(100, 1 << 20));
        push(&mut ring, &bounds, &Method::GET, b"/a");
        assert!(ring.held() > 0);
        ring.close();
        push(&mut ring, &bounds, &Method::GET, b"/b");
        assert_eq!((ring.held(), ring.first(), ring.next()), (0, 8, 8));
    }

    fn push(ring: &mut Ring, bounds: &Bounds, method: &Method, target: &[u8]) {
        let asked = Asked {
            id: RequestId([1; 16]),
            served: Served::Container,
            protocol: Protocol::Http1,
            client: [127, 0, 0, 1].into(),
            method,
            host: b"",
            target,
        };
        let (head, text) = asked.entry(1, None);
        ring.push(bounds, head, &text);
    }

    fn texts(ring: &Ring, from: u64) -> Vec<(u64, Vec<u8>)> {
        ring.from(from).map(|(seq, _, text)| (seq, text.iter().collect())).collect()
    }

    #[test]
    fn the_oldest_make_room() {
        let bounds = Bounds { entries: 3, octets: 100, captured: 100 };
        let mut ring = Ring::new(10, None, 0);
        for target in ["/a", "/b", "/c", "/d"] {
            push(&mut ring, &bounds, &Method::GET, target.as_bytes());
        }
        let want = [(11, b"/b".to_vec()), (12, b"/c".to_vec()), (13, b"/d".to_vec())];
        assert_eq!(texts(&ring, 0), want);
        assert_eq!(texts(&ring, 13), [(13, b"/d".to_vec())]);
        assert_eq!(texts(&ring, 14), []);
        push(&mut ring, &bounds, &Method::GET, &[b'/'; 99]);
        assert_eq!(texts(&ring, 0).len(), 1, "and so does their text");
        ring.clear();
        assert_eq!((ring.first(), ring.next(), ring.held()), (15, 15, 0));
    }

    #[test]
    fn what_becomes_too_large_to_be_kept_is_kept_by_no_entry() {
        let bounds = Bounds { entries: 9, octets: 1_000, captured: 4_000 };
        let mut ring = Ring::new(0, None, 0);
        let capture = || Arc::new(Capture::new(&Arc::default(), &HeaderMap::new(), false, 8_000));
        let (large, small) = (capture(), capture());
        for (seq, capture) in [(0, &small), (1, &large)] {
            push(&mut ring, &bounds, &Method::POST, b"/");
            ring.attach(&bounds, seq, capture, capture.weight());
        }
        let held = ring.held() - large.weight();
        large.request_passes(&[b'x'; 5_000]);
        push(&mut ring, &bounds, &Method::POST, b"/");
        ring.attach(&bounds, 2, &large, large.weight());
        assert_eq!((Arc::strong_count(&large), Arc::strong_count(&small)), (1, 2));
        assert_eq!(ring.held(), held, "nor counted");
        assert_eq!(ring.from(0).count(), 3, "the entries stay");
    }

    proptest! {
        #[test]
        fn a_ring_stays_within_its_bounds_and_keeps_the_newest(
            entries in 1_usize..50,
            lengths in proptest::collection::vec(0_usize..300, 1..200),
        ) {
            let bytes = 4 * 4096;
            let bounds = Bounds::new(entries, bytes);
            let mut ring = Ring::new(5, None, 0);
            for (at, length) in lengths.iter().enumerate() {
                let octet = u8::try_from(at % 256).unwrap();
                push(&mut ring, &bounds, &Method::TRACE, &vec![octet; *length]);
                prop_assert!(ring.held() <= bytes, "{}", ring.held());
                let kept = texts(&ring, 0);
                let (seq, text) = kept.last().unwrap();
                prop_assert_eq!(*seq, 5 + at as u64);
                prop_assert_eq!(text, &[b"TRACE".to_vec(), vec![octet; *length]].concat());
            }
        }
    }
}
