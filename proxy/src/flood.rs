//! Frames of HTTP/2 that cost the edge work and the client nothing, counted before they are parsed.
//!
//! The HTTP/2 library bounds what its own memory depends on: streams, resets before a request is taken up,
//! the size of a head and its pieces. It answers, applies or drops everything else as fast as it comes.
//! Here each frame that brings no request and no data is paid for: from what the client's requests
//! and data have earned, else from an allowance per [`PERIOD`]. A client that has used both up floods,
//! and its connection ends.
//!
//! Only the nine octets at the head of a frame are looked at.

use crate::{config::Limits, watch::Tick};

/// How long an allowance is for: 10 s.
pub(crate) const PERIOD: Tick = 100;

/// What a client sends first (RFC 9113, 3.4), in octets.
const PREFACE: u32 = 24;
/// Octets of data, in either direction, that explain one frame: a client that reads acknowledges with
/// two window updates and perhaps a ping.
const EARNING: u64 = 1024;
/// Frames that one head explains: a window update, a change of priority, both again.
const PER_HEAD: u64 = 4;

/// What a client floods with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flood {
    Ping,
    Settings,
    Window,
    Priority,
    /// Data frames without data.
    Empty,
    Reset,
    /// Frames of types that are ignored.
    Unknown,
    /// Noticed by the HTTP/2 library: resets, ours included, and heads in too many pieces.
    Library,
}

impl Flood {
    /// All of them, in their order.
    pub(crate) const ALL: [Self; 8] = [
        Self::Ping,
        Self::Settings,
        Self::Window,
        Self::Priority,
        Self::Empty,
        Self::Reset,
        Self::Unknown,
        Self::Library,
    ];

    /// Its place in [`Flood::ALL`].
    pub(crate) const fn index(self) -> usize {
        self as usize
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Settings => "settings",
            Self::Window => "window_update",
            Self::Priority => "priority",
            Self::Empty => "empty_data",
            Self::Reset => "reset",
            Self::Unknown => "unknown",
            Self::Library => "library",
        }
    }
}

/// Counts the frames of one client.
#[derive(Debug)]
pub(crate) struct FrameCount {
    /// Octets to pass over before the next head: the preface, then payloads.
    skip: u32,
    /// The head of a frame, as far as it has come; of one with padding, the padding's length, too.
    head: [u8; 10],
    have: usize,
    frames: Allowance,
    resets: Allowance,
    /// Octets of data that have not earned a frame yet.
    octets: u64,
}

/// How many frames may still come in the present period, apart from those that were earned.
#[derive(Debug)]
pub(crate) struct Allowance {
    full: u32,
    left: u32,
    earned: u64,
    until: Tick,
}

impl Allowance {
    /// Of `full` frames per period.
    pub(crate) const fn new(full: u32) -> Self {
        Self { full, left: full, earned: 0, until: 0 }
    }

    /// Pays for one frame; says whether it could be paid for.
    pub(crate) fn pay(&mut self, now: Tick) -> bool {
        if self.earned > 0 {
            self.earned -= 1;
            return true;
        }
        if now >= self.until {
            (self.left, self.until) = (self.full, now.saturating_add(PERIOD));
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }

    /// What is earned is not kept for long: no more than the allowance itself.
    fn earn(&mut self, frames: u64) {
        self.earned = self.earned.saturating_add(frames).min(u64::from(self.full));
    }
}

impl FrameCount {
    /// For a connection that begins.
    pub(crate) const fn new(limits: &Limits) -> Self {
        Self {
            skip: PREFACE,
            head: [0; 10],
            have: 0,
            frames: Allowance::new(limits.frames_max),
            resets: Allowance::new(limits.resets_max),
            octets: 0,
        }
    }

    /// So many octets were written to the client.
    pub(crate) fn wrote(&mut self, octets: usize) {
        self.moved(u64::try_from(octets).unwrap_or(u64::MAX));
    }

    fn moved(&mut self, octets: u64) {
        self.octets = self.octets.saturating_add(octets);
        if self.octets >= EARNING {
            self.frames.earn(self.octets / EARNING);
            self.octets %= EARNING;
        }
    }

    /// Reads on; fails at the first frame that is one too many.
    pub(crate) fn read(&mut self, mut octets: &[u8], now: Tick) -> Result<(), Flood> {
        while let Some(&octet) = octets.first() {
            if self.skip > 0 {
                let here = octets.len().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
                self.skip -= u32::try_from(here).unwrap_or(self.skip);
                octets = octets.get(here..).unwrap_or_default();
                continue;
            }
            octets = octets.get(1..).unwrap_or_default();
            if let Some(place) = self.head.get_mut(self.have) {
                *place = octet;
            }
            self.have += 1;
            let [a, b, c, kind, flags, .., padding] = self.head;
            let length = u32::from_be_bytes([0, a, b, c]);
            let is_padded = kind == DATA && flags & PADDED != 0 && length > 0;
            if self.have == if is_padded { 10 } else { 9 } {
                self.have = 0;
                self.skip = length - u32::from(is_padded);
                let data =
                    if is_padded { self.skip.saturating_sub(padding.into()) } else { length };
                self.count(kind, flags, data, now)?;
            }
        }
        Ok(())
    }

    /// Counts one frame, of `length` octets apart from padding.
    fn count(&mut self, kind: u8, flags: u8, length: u32, now: Tick) -> Result<(), Flood> {
        let flood = match kind {
            DATA if length > 0 || flags & END_STREAM != 0 => {
                self.moved(length.into());
                return Ok(());
            }
            HEADERS => {
                self.frames.earn(PER_HEAD);
                return Ok(());
            }
            // The library bounds the pieces of a head, and ends the connection upon the others.
            PUSH_PROMISE | GOAWAY | CONTINUATION => return Ok(()),
            RST_STREAM => {
                return if self.resets.pay(now) { Ok(()) } else { Err(Flood::Reset) };
            }
            DATA => Flood::Empty,
            PRIORITY => Flood::Priority,
            SETTINGS => Flood::Settings,
            PING => Flood::Ping,
            WINDOW_UPDATE => Flood::Window,
            _ => Flood::Unknown,
        };
        if self.frames.pay(now) { Ok(()) } else { Err(flood) }
    }
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const PADDED: u8 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: fn() -> Limits = || Limits { frames_max: 3, resets_max: 2, ..Limits::default() };

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// A count that has passed the preface.
    fn begun() -> FrameCount {
        let mut count = FrameCount::new(&LIMITS());
        count.read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0).unwrap();
        count
    }

    /// How many of a frame pass before one is too many, and what it is called then.
    fn pass(mut count: FrameCount, one: &[u8], now: Tick) -> (usize, Flood) {
        for number in 0..100 {
            if let Err(flood) = count.read(one, now) {
                return (number, flood);
            }
        }
        panic!("no end");
    }

    #[test]
    fn what_costs_the_client_nothing_has_an_end() {
        for (one, flood) in [
            (frame(PING, 0, &[0; 8]), Flood::Ping),
            (frame(SETTINGS, 0, &[]), Flood::Settings),
            (frame(WINDOW_UPDATE, 0, &[0, 0, 0, 1]), Flood::Window),
            (frame(PRIORITY, 0, &[0; 5]), Flood::Priority),
            (frame(DATA, 0, &[]), Flood::Empty),
            (frame(DATA, PADDED, &[3, 0, 0, 0]), Flood::Empty),
            (frame(DATA, PADDED, &[0]), Flood::Empty),
            (frame(0x77, 0, &[1, 2]), Flood::Unknown),
        ] {
            assert_eq!(pass(begun(), &one, 0), (3, flood));
            let mut count = begun();
            assert_eq!(count.read(&one.repeat(3), 0), Ok(()), "{flood:?}");
            assert_eq!(pass(count, &one, PERIOD), (3, flood), "in another period");
        }
        let reset = frame(RST_STREAM, 0, &[0, 0, 0, 8]);
        let request = [frame(HEADERS, 4, b"x"), reset].concat();
        assert_eq!(pass(begun(), &request, 0), (2, Flood::Reset));
    }

    #[test]
    fn data_and_heads_explain_other_frames() {
        let ping = frame(PING, 0, &[0; 8]);
        // One for each KiB, up or down, apart from the three of the period.
        let mut count = begun();
        assert_eq!(count.read(&frame(DATA, 0, &[0; 1024]), 0), Ok(()));
        count.wrote(1023);
        count.wrote(1);
        assert_eq!(pass(count, &ping, 0), (5, Flood::Ping));
        // No more is kept than a period has.
        let mut count = begun();
        count.wrote(1 << 20);
        assert_eq!(pass(count, &ping, 0), (6, Flood::Ping));
        let mut count = begun();
        assert_eq!(count.read(&ping.repeat(3), 0), Ok(()));
        assert_eq!(count.read(&frame(HEADERS, 4, b"x"), 0), Ok(()));
        assert_eq!(pass(count, &ping, 0), (3, Flood::Ping));
    }

    #[test]
    fn cuts_change_nothing() {
        let all = [
            &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
            &frame(DATA, PADDED, &[2, 7, 0, 0]),
            &frame(PING, 0, &[0; 8]).repeat(3),
            &frame(SETTINGS, 0, &[0; 6]),
        ]
        .concat();
        let mut count = FrameCount::new(&LIMITS());
        let mut results = all.iter().map(|octet| count.read(&[*octet], 0));
        let end = results.position(|result| result == Err(Flood::Settings));
        assert_eq!(end, Some(all.len() - 7), "with the last octet of the head");
    }
}
