//! Which window a channel of a client is given, and when.
//!
//! A receiver holds a sender back by not renewing its window. The library renews windows itself, when data
//! come and not when they have been used, by one rule for the whole connection: *if less than half of the
//! target is left to the channel whose data have come, it is given the target again*. All that can be chosen
//! is the target, and only at a renewal, for those that follow. If nothing were done about it, a channel whose
//! process does not read would fill the memory, or block all other channels.
//!
//! So the target is small while a channel is *full*, that is, while much that came on it has not been
//! used. Channels whose windows are used up then get [`PING`] octets at a time: few enough to be kept, enough to
//! hear of them again, since without data there is never another renewal. Such channels answer in the order
//! in which they were given those octets, because a connection keeps the order. Therefore it is known whose
//! data come next, and when these are of a channel that is not full, the target is large again for this one
//! renewal. A guess may fail, if that channel has nothing more to say: then a full one gets one window more,
//! and the other is not guessed at until it speaks.
//!
//! Where a full channel pings, reading of the connection pauses for a moment, so that pings of a client nearby
//! cost little.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// What a channel may send at once, in octets: twice what OpenSSH has. As windows are renewed when half of them is
/// used up, half is what is under way over a long distance.
pub(crate) const WINDOW: u32 = 4 << 20;
/// What one that is used up gets while a channel is full: the least that the rule renews.
const PING: u32 = 2;
/// From here on a channel is full, in octets that came and were not used,
const HIGH: usize = 1 << 20;
/// and until here it stays so.
const LOW: usize = 512 << 10;
/// With so many octets in one channel nothing is guessed any more.
const CAP: usize = 8 << 20;
/// A full channel that has sent nothing for so long is not expected to use the rest of its window.
const QUIET: Duration = Duration::from_millis(200);
/// The longest pause after a ping of a full channel.
const PAUSE_MAX: Duration = Duration::from_millis(20);

/// The octets of a channel that came and were not used yet.
pub(crate) type Held = Arc<AtomicUsize>;

/// A client that sends more than its window allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overrun;

/// The windows of a connection's channels, as the library has them.
#[derive(Debug)]
pub(crate) struct Flow {
    target: u32,
    channels: HashMap<u32, Channel>,
    /// The channels that have been given [`PING`], in the order in which that happened.
    pings: VecDeque<u32>,
}

#[derive(Debug)]
struct Channel {
    held: Held,
    window: u32,
    /// What the window was before the renewal that belongs to the data that are about to come.
    renewed: Option<u32>,
    full_since: Option<Instant>,
    heard: Instant,
    /// It was expected to answer, and another answered first.
    asleep: bool,
}

impl Channel {
    fn look(&mut self, now: Instant) -> bool {
        let held = self.held.load(Ordering::Relaxed);
        if held >= HIGH {
            self.full_since.get_or_insert(now);
        } else if held <= LOW {
            self.full_since = None;
        }
        self.full_since.is_some()
    }
}

impl Flow {
    /// No channels; the connection's target is [`WINDOW`].
    pub(crate) fn new() -> Self {
        Self { target: WINDOW, channels: HashMap::new(), pings: VecDeque::new() }
    }

    /// A channel begins with a window of its own.
    pub(crate) fn open(&mut self, channel: u32, held: Held, now: Instant) {
        let fresh = Channel {
            held,
            window: WINDOW,
            renewed: None,
            full_since: None,
            heard: now,
            asleep: false,
        };
        self.channels.insert(channel, fresh);
    }

    /// A channel sends no more.
    pub(crate) fn close(&mut self, channel: u32) {
        self.channels.remove(&channel);
        self.pings.retain(|other| *other != channel);
    }

    /// The library has renewed a channel's window to its target; returns the next target.
    pub(crate) fn renewed(&mut self, channel: u32, now: Instant) -> u32 {
        let target = self.target;
        let is_guess = target > PING;
        let front = self.pings.front().copied();
        self.pings.retain(|other| *other != channel);
        if let Some(of_it) = self.channels.get_mut(&channel) {
            of_it.renewed = Some(std::mem::replace(&mut of_it.window, target));
            if target <= PING {
                self.pings.push_back(channel);
            }
            if of_it.look(now) && is_guess && front.is_some_and(|front| front != channel) {
                // It was the turn of another one.
                if let Some(front) = front.and_then(|front| self.channels.get_mut(&front)) {
                    front.asleep = true;
                }
            }
        }
        self.target = self.next(now);
        self.target
    }

    /// Data have come on a channel. Says how long nothing more should be read from the connection.
    pub(crate) fn received(
        &mut self,
        channel: u32,
        len: usize,
        now: Instant,
    ) -> Result<Duration, Overrun> {
        let Some(of_it) = self.channels.get_mut(&channel) else { return Ok(Duration::ZERO) };
        let had = of_it.renewed.take();
        let len = u32::try_from(len).map_err(|_too_long| Overrun)?;
        if len > had.unwrap_or(of_it.window) {
            return Err(Overrun);
        }
        if had.is_none() {
            of_it.window -= len;
        }
        of_it.heard = now;
        of_it.asleep = false;
        let pause = match of_it.full_since {
            Some(since) if len <= PING => {
                (now.saturating_duration_since(since) / 16).min(PAUSE_MAX)
            }
            Some(_) | None => Duration::ZERO,
        };
        Ok(pause)
    }

    fn next(&mut self, now: Instant) -> u32 {
        let mut some_are_full = false;
        for channel in self.channels.values_mut() {
            if !channel.look(now) {
                continue;
            }
            some_are_full = true;
            let is_live =
                channel.window > PING && now.saturating_duration_since(channel.heard) < QUIET;
            if is_live || channel.held.load(Ordering::Relaxed) > CAP {
                return PING;
            }
        }
        let waits_for_none_full = || {
            let front = self.pings.front().and_then(|front| self.channels.get(front));
            front.is_none_or(|front| front.full_since.is_none() && !front.asleep)
        };
        if !some_are_full || waits_for_none_full() { WINDOW } else { PING }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the library and a client do: the client always has something to send on these channels.
    struct Peer {
        flow: Flow,
        target: u32,
        windows: Vec<(u32, u32)>,
        held: Vec<Held>,
        now: Instant,
    }

    impl Peer {
        fn new(channels: u32) -> Self {
            let mut flow = Flow::new();
            let now = Instant::now();
            let held: Vec<Held> = (0..channels).map(|_| Held::default()).collect();
            for (channel, held) in (0..).zip(&held) {
                flow.open(channel, Arc::clone(held), now);
            }
            let windows = (0..channels).map(|channel| (channel, WINDOW)).collect();
            Self { flow, target: WINDOW, windows, held, now }
        }

        /// One packet of each channel that has a window; returns what each sent.
        fn round(&mut self, sends: impl Fn(u32) -> bool, uses: impl Fn(u32) -> bool) -> Vec<u32> {
            let sent: Vec<(u32, u32)> = self
                .windows
                .iter()
                .map(|(channel, window)| (*channel, (*window).min(32 << 10)))
                .filter(|(channel, len)| *len > 0 && sends(*channel))
                .collect();
            let mut sums = vec![0; self.windows.len()];
            for (channel, len) in sent {
                let at = channel as usize;
                self.now += Duration::from_micros(50);
                self.windows[at].1 -= len;
                if self.windows[at].1 < self.target / 2 {
                    self.windows[at].1 = self.target;
                    self.target = self.flow.renewed(channel, self.now);
                }
                self.flow.received(channel, len as usize, self.now).unwrap();
                if !uses(channel) {
                    self.held[at].fetch_add(len as usize, Ordering::Relaxed);
                }
                sums[at] += len;
            }
            sums
        }
    }

    #[test]
    fn channels_that_are_used_are_never_held_back() {
        let mut peer = Peer::new(3);
        for _ in 0..10_000 {
            assert_eq!(peer.round(|_| true, |_| true), [32 << 10; 3]);
        }
    }

    #[test]
    fn a_channel_that_nobody_uses_is_held_back_and_the_others_are_not() {
        let mut peer = Peer::new(3);
        let mut sums = [0_u64; 3];
        for _ in 0..100_000 {
            for (sum, sent) in sums.iter_mut().zip(peer.round(|_| true, |channel| channel != 1)) {
                *sum += u64::from(sent);
            }
        }
        assert!(sums[1] < 12 << 20, "{sums:?}");
        // Of 100,000 packets of 32 KiB at most.
        assert!(sums[0] > 2_500_000_000 && sums[2] > 2_500_000_000, "{sums:?}");
    }

    #[test]
    fn it_goes_on_when_it_is_used_again() {
        let mut peer = Peer::new(2);
        for _ in 0..10_000 {
            peer.round(|_| true, |channel| channel == 0);
        }
        peer.held[1].store(0, Ordering::Relaxed);
        let mut sum = 0;
        for _ in 0..1_000 {
            sum += peer.round(|_| true, |_| true)[1];
        }
        assert!(sum > 900 * (32 << 10), "{sum}");
    }

    #[test]
    fn whoever_falls_asleep_costs_one_window_and_no_more() {
        let mut peer = Peer::new(3);
        for _ in 0..10_000 {
            peer.round(|_| true, |channel| channel != 1);
        }
        let before = peer.held[1].load(Ordering::Relaxed);
        // Channel 0 has nothing more to send, and 2 goes on.
        let mut sum = 0_u64;
        for _ in 0..50_000 {
            sum += u64::from(peer.round(|channel| channel != 0, |channel| channel != 1)[2]);
        }
        let after = peer.held[1].load(Ordering::Relaxed);
        assert!(after - before <= 2 * WINDOW as usize + 200_000, "{before} {after}");
        assert!(sum > 1_000_000_000, "{sum}");
        assert!(after <= CAP + WINDOW as usize + 400_000);
    }

    #[test]
    fn more_than_the_window_is_refused() {
        let mut flow = Flow::new();
        let now = Instant::now();
        flow.open(7, Held::default(), now);
        assert!(flow.received(7, WINDOW as usize, now).is_ok());
        assert_eq!(flow.received(7, 1, now), Err(Overrun));
        // Of channels that are not ours nothing is known.
        assert!(flow.received(8, 1, now).is_ok());
    }
}
