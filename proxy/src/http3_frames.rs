//! The frames of a request's stream of HTTP/3 (RFC 9114, section 7.1), only as far as it takes to
//! leave out empty DATA frames. They are allowed anywhere in a body and say nothing, but `h3` takes one
//! for the end of the data, and what follows for an error.

/// Reads one stream, however it is cut into pieces.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    /// What is there of a frame's head: two integers of at most 8 octets each.
    head: [u8; 16],
    have: usize,
    /// What is still to come of a frame's payload.
    left: u64,
}

impl Frames {
    /// The octets that follow in the stream without empty DATA frames. A head that is not complete yet
    /// is kept until it is, or until [`Frames::rest`] is asked for.
    pub(crate) fn read(&mut self, mut octets: &[u8]) -> Vec<u8> {
        let mut passed = Vec::with_capacity(self.have + octets.len());
        loop {
            let here = usize::try_from(self.left).unwrap_or(usize::MAX).min(octets.len());
            let (payload, behind) = octets.split_at(here);
            passed.extend_from_slice(payload);
            self.left -= u64::try_from(here).unwrap_or(self.left);
            let Some((next, behind)) = behind.split_first() else { return passed };
            octets = behind;
            if let Some(place) = self.head.get_mut(self.have) {
                *place = *next;
                self.have += 1;
            }
            let Some((kind, length)) = parse(self.head.get(..self.have).unwrap_or_default()) else {
                continue;
            };
            let head = self.rest();
            if (kind, length) != (DATA, 0) {
                passed.extend(head);
            }
            self.left = length;
        }
    }

    /// What was kept: the beginning of a head. Behind the end of a stream it tells of a cut.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let head = self.head.get(..self.have).unwrap_or_default().to_vec();
        self.have = 0;
        head
    }
}

const DATA: u64 = 0;

/// A frame's type and the length of its payload, when its head is complete.
fn parse(head: &[u8]) -> Option<(u64, u64)> {
    let (kind, behind) = integer(head)?;
    let (length, _) = integer(behind)?;
    Some((kind, length))
}

/// An integer of variable length (RFC 9000, section 16), and what is behind it.
fn integer(octets: &[u8]) -> Option<(u64, &[u8])> {
    let first = *octets.first()?;
    let (integer, behind) = octets.split_at_checked(1 << (first >> 6))?;
    let value = integer.iter().fold(0, |value, octet| (value << 8) | u64::from(*octet));
    let bits = 8 * integer.len() - 2;
    Some((value & ((1 << bits) - 1), behind))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_pieces(stream: &[u8], size: usize) -> Vec<u8> {
        let mut frames = Frames::default();
        let mut passed: Vec<u8> = stream.chunks(size).flat_map(|it| frames.read(it)).collect();
        passed.extend(frames.rest());
        passed
    }

    #[test]
    fn empty_data_is_left_out_and_nothing_else_however_it_is_cut() {
        let long = [&[0, 0x40, 70][..], &[7; 70]].concat();
        for (stream, want) in [
            (&[][..], &[][..]),
            (&[0, 0], &[]),
            (&[1, 0, 0, 0], &[1, 0]),
            (&[1, 2, 0, 0, 0, 0, 0, 1, 9, 0, 0], &[1, 2, 0, 0, 0, 1, 9]),
            // However long the integers are written.
            (&[0x40, 0, 0x80, 0, 0, 0, 0, 1, 5], &[0, 1, 5]),
            (&[0xc0, 0, 0, 0, 0, 0, 0, 0, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 5], &[0, 1, 5]),
            (&[0x40, 0, 0x40, 2, 0, 0, 0, 0], &[0x40, 0, 0x40, 2, 0, 0]),
            // Other types may be empty.
            (&[0x21, 0, 0, 0, 0x40, 0x21, 0], &[0x21, 0, 0x40, 0x21, 0]),
            // What is cut stays cut.
            (&[0, 3, 1], &[0, 3, 1]),
            (&[0, 1, 5, 0], &[0, 1, 5, 0]),
            (&[0, 1, 5, 0x80, 0], &[0, 1, 5, 0x80, 0]),
            (&long, &long),
        ] {
            for size in 1..=stream.len().max(1) {
                assert_eq!(in_pieces(stream, size), want, "{stream:?} by {size}");
            }
        }
    }

    #[test]
    fn no_octets_panic() {
        let largest = [0xff; 64];
        for size in [1, 3, 64] {
            assert_eq!(in_pieces(&largest, size), largest);
        }
    }
}
