//! The data frames in what a `WebSocket` client sends (RFC 6455, section 5), only as far as it takes
//! to tell a person's messages from pings and from a clock's tick. Nothing is changed or refused:
//! octets that make no sense tell nothing.

use std::hash::{Hash, Hasher};

/// So much of a message tells it from others.
const TOLD_BY: usize = 64;

/// Reads the frames of one client, however they are cut into pieces.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    state: State,
}

#[derive(Debug)]
enum State {
    /// Within a frame's head: what is there of its at most 14 octets.
    Head { octets: [u8; 14], have: usize },
    /// Within a payload.
    Payload { left: u64, frame: Option<Frame> },
}

impl Default for State {
    fn default() -> Self {
        Self::Head { octets: [0; 14], have: 0 }
    }
}

/// A data frame that is being read.
#[derive(Debug)]
struct Frame {
    length: u64,
    mask: [u8; 4],
    begin: [u8; TOLD_BY],
    have: usize,
}

/// What tells a message from others: its length, and how it begins.
#[derive(Debug)]
pub(crate) struct Message<'f>(&'f Frame);

impl Hash for Message<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.length.hash(state);
        let begin = self.0.begin.get(..self.0.have).unwrap_or_default();
        for (octet, mask) in begin.iter().zip(self.0.mask.iter().cycle()) {
            state.write_u8(octet ^ mask);
        }
    }
}

/// What a head says.
struct Head {
    is_data: bool,
    length: u64,
    mask: [u8; 4],
}

impl Frames {
    /// Reads on, and shows each data frame once it is complete.
    pub(crate) fn read(&mut self, mut octets: &[u8], mut show: impl FnMut(Message<'_>)) {
        while let Some((&first, rest)) = octets.split_first() {
            match &mut self.state {
                State::Head { octets: head, have } => {
                    if let Some(place) = head.get_mut(*have) {
                        *place = first;
                    }
                    *have += 1;
                    octets = rest;
                    if let Some(Head { is_data, length, mask }) = parse(head, *have) {
                        let frame =
                            is_data.then_some(Frame { length, mask, begin: [0; TOLD_BY], have: 0 });
                        self.state = State::Payload { left: length, frame };
                        self.end(&mut show);
                    }
                }
                State::Payload { left, frame } => {
                    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(octets.len());
                    let (payload, rest) = octets.split_at(here);
                    if let Some(frame) = frame {
                        let room = frame.begin.get_mut(frame.have..).unwrap_or_default();
                        let taken = room.len().min(payload.len());
                        room.iter_mut().zip(payload).for_each(|(to, from)| *to = *from);
                        frame.have += taken;
                    }
                    *left -= u64::try_from(here).unwrap_or(*left);
                    octets = rest;
                    self.end(&mut show);
                }
            }
        }
    }

    /// Goes on to the next head if the payload is complete.
    fn end(&mut self, show: &mut impl FnMut(Message<'_>)) {
        if let State::Payload { left: 0, frame } = &self.state {
            if let Some(frame) = frame {
                show(Message(frame));
            }
            self.state = State::default();
        }
    }
}

/// Reads a head when it is complete.
fn parse(octets: &[u8; 14], have: usize) -> Option<Head> {
    let [first, second, rest @ ..] = octets;
    let (extra, masked) = match second & 0x7f {
        126 => (2, second & 0x80 != 0),
        127 => (8, second & 0x80 != 0),
        _ => (0, second & 0x80 != 0),
    };
    let whole = 2 + extra + if masked { 4 } else { 0 };
    if have < whole {
        return None;
    }
    let (long, after) = rest.split_at(extra);
    let length = match extra {
        0 => u64::from(second & 0x7f),
        _ => long.iter().fold(0_u64, |sum, octet| (sum << 8) | u64::from(*octet)),
    };
    let mask = match after {
        [a, b, c, d, ..] if masked => [*a, *b, *c, *d],
        _ => [0; 4],
    };
    // Continuations, text and binary; 8 and above are close, ping and pong.
    let is_data = first & 0x0f < 8;
    Some(Head { is_data, length, mask })
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

    use super::*;

    fn frame(opcode: u8, mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0x80 | opcode];
        match payload.len() {
            short @ 0..126 => frame.push(0x80 | u8::try_from(short).unwrap()),
            medium @ 126..65_536 => {
                frame.push(0xfe);
                frame.extend_from_slice(&u16::try_from(medium).unwrap().to_be_bytes());
            }
            long => {
                frame.push(0xff);
                frame.extend_from_slice(&u64::try_from(long).unwrap().to_be_bytes());
            }
        }
        frame.extend_from_slice(&mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(octet, mask)| octet ^ mask));
        frame
    }

    fn hashes(pieces: impl Iterator<Item = Vec<u8>>) -> Vec<u64> {
        let (mut frames, mut seen) = (Frames::default(), Vec::new());
        let state = BuildHasherDefault::<DefaultHasher>::default();
        for piece in pieces {
            frames.read(&piece, |message| seen.push(state.hash_one(message)));
        }
        seen
    }

    #[test]
    fn data_frames_are_seen_and_control_frames_are_not() {
        let long = vec![7; 70_000];
        let stream = [
            frame(1, [1, 2, 3, 4], b"ls"),
            frame(9, [5, 6, 7, 8], b"ping"),
            frame(10, [0; 4], b""),
            frame(2, [9, 9, 9, 9], &long),
            frame(2, [9, 9, 9, 9], &long[..300]),
            frame(1, [8, 7, 6, 5], b"ls"),
            frame(0, [8, 7, 6, 5], b""),
            frame(8, [8, 7, 6, 5], b"\x03\xe8"),
        ]
        .concat();
        let whole = hashes(std::iter::once(stream.clone()));
        assert_eq!(whole.len(), 5);
        assert_eq!(whole[0], whole[3], "the mask does not count");
        assert_ne!(whole[1], whole[2], "the length does");
        for size in [1, 2, 3, 7, 1000] {
            assert_eq!(hashes(stream.chunks(size).map(<[u8]>::to_vec)), whole, "pieces of {size}");
        }
    }

    #[test]
    fn nonsense_is_read_to_its_end() {
        let noise: Vec<u8> = (0..10_000_u32).map(|n| (n * 31 % 251).to_le_bytes()[0]).collect();
        hashes(noise.chunks(11).map(<[u8]>::to_vec));
    }
}
