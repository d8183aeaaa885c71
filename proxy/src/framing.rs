//! Where HTTP/1 messages begin and end, read more strictly than any parser behind us.
//!
//! Request smuggling lives on two readers that disagree about a message's length. This module
//! settles the length first: it finds the end of each head and body in a client's octets and refuses
//! every form that some parser somewhere reads differently (bare LF or CR, folded lines, space before
//! a colon, two lengths, a length beside `chunked`, any other coding). What passes means the same to
//! everyone. Pure: octets in, verdict out.

use memchr::{memchr, memchr2, memchr3};

/// Why a client's octets are refused; the connection closes after the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No unambiguous HTTP/1 message.
    Malformed,
    /// The head is longer than allowed.
    HeadTooLarge,
    /// The head has more fields than allowed.
    TooManyFields,
    /// The head was not complete in time.
    HeadTimeout,
}

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// No body.
    Nothing,
    /// So many octets of body.
    Length(u64),
    /// A body in chunks.
    Chunked,
    /// No body, and the client asks to leave HTTP: what follows belongs to nobody until an answer
    /// says so.
    Upgrade,
}

/// Where one field stands in its head: a name, and a value without the blanks around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FieldAt {
    /// Where the name begins, and the colon that ends it.
    pub(crate) name: (usize, usize),
    /// Where the value begins and ends.
    pub(crate) value: (usize, usize),
}

/// How large a head may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadLimits {
    pub(crate) bytes_max: usize,
    pub(crate) fields_max: usize,
}

/// Reads one head, possibly in pieces; octets before `at` are not read twice.
#[derive(Debug, Default)]
pub(crate) struct HeadScan {
    at: usize,
    line: usize,
    lines: usize,
    minor: u8,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
    started: bool,
}

impl HeadScan {
    /// Continues in `octets`, which start with the head and contain all that was given before.
    /// Returns the head's length and what follows it, or nothing when more octets are needed.
    pub(crate) fn scan(
        &mut self,
        octets: &[u8],
        limits: HeadLimits,
    ) -> Result<Option<(usize, Framing)>, Refusal> {
        self.scan_fields(octets, limits, &mut |_| {})
    }

    /// As [`HeadScan::scan`], and tells `note` of each field that has become complete with this call.
    pub(crate) fn scan_fields(
        &mut self,
        octets: &[u8],
        limits: HeadLimits,
        note: &mut impl FnMut(FieldAt),
    ) -> Result<Option<(usize, Framing)>, Refusal> {
        while let Some(rest) = octets.get(self.at..) {
            let Some(found) = memchr2(b'\r', b'\n', rest) else {
                self.at = octets.len();
                break;
            };
            let end = self.at + found;
            match (rest.get(found), rest.get(found + 1)) {
                (Some(b'\r'), Some(b'\n')) => {}
                (Some(b'\r'), None) => {
                    self.at = end;
                    break;
                }
                _ => return Err(Refusal::Malformed),
            }
            let start = self.line;
            let line = octets.get(start..end).unwrap_or_default();
            self.at = end + 2;
            self.line = self.at;
            if self.at > limits.bytes_max {
                return Err(Refusal::HeadTooLarge);
            }
            if self.take_line(start, line, limits, note)? {
                return Ok(Some((self.at, self.framing()?)));
            }
        }
        if octets.len() > limits.bytes_max { Err(Refusal::HeadTooLarge) } else { Ok(None) }
    }

    /// Takes one line, which begins at `start`, without its CRLF; says whether it ended the head.
    fn take_line(
        &mut self,
        start: usize,
        line: &[u8],
        limits: HeadLimits,
        note: &mut impl FnMut(FieldAt),
    ) -> Result<bool, Refusal> {
        self.lines += 1;
        if !self.started {
            // One empty line before a request is an old client's habit after a body.
            if line.is_empty() {
                return if self.lines == 1 { Ok(false) } else { Err(Refusal::Malformed) };
            }
            self.started = true;
            self.lines = 0;
            self.minor = request_line(line)?;
            return Ok(false);
        }
        if line.is_empty() {
            return Ok(true);
        }
        if self.lines > limits.fields_max {
            return Err(Refusal::TooManyFields);
        }
        note(self.take_field(start, line)?);
        Ok(false)
    }

    fn take_field(&mut self, start: usize, line: &[u8]) -> Result<FieldAt, Refusal> {
        let colon = memchr(b':', line).ok_or(Refusal::Malformed)?;
        let (name, value) = line.split_at_checked(colon).ok_or(Refusal::Malformed)?;
        match (name.first(), name.last()) {
            (Some(b' ' | b'\t') | None, _) | (_, Some(b' ' | b'\t')) => {
                return Err(Refusal::Malformed);
            }
            _ => {}
        }
        let (begin, end) = trim(value);
        let value = value.get(begin..end).unwrap_or_default();
        let behind = start + colon;
        let at = FieldAt { name: (start, behind), value: (behind + begin, behind + end) };
        match name.len() {
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                if self.length.is_some() {
                    return Err(Refusal::Malformed);
                }
                self.length = Some(decimal(value).ok_or(Refusal::Malformed)?);
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Refusal::Malformed);
                }
                self.chunked = true;
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.upgrade |= is_tunnel(value),
            _ => {}
        }
        Ok(at)
    }

    fn framing(&self) -> Result<Framing, Refusal> {
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(Refusal::Malformed),
            (true, None) if self.minor == 0 => Err(Refusal::Malformed),
            (true, None) => Ok(Framing::Chunked),
            (false, Some(length)) if length > 0 => Ok(Framing::Length(length)),
            (false, _) if self.upgrade && self.minor == 1 => Ok(Framing::Upgrade),
            (false, _) => Ok(Framing::Nothing),
        }
    }
}

/// Whether an `Upgrade` value asks for a tunnel. HTTP/2 and TLS in the clear are not offered, nor one of
/// several: such a request is answered as if it had not asked.
pub(crate) fn is_tunnel(value: &[u8]) -> bool {
    const REFUSED: [&[u8]; 4] = [b"h2c", b"h2", b"http", b"tls"];
    let mut any = false;
    for token in value.split(|&octet| octet == b',').map(<[u8]>::trim_ascii) {
        let name = token.split(|&octet| matches!(octet, b'/' | b' ' | b'\t')).next();
        let name = name.unwrap_or_default();
        if REFUSED.iter().any(|refused| name.eq_ignore_ascii_case(refused)) {
            return false;
        }
        any |= !name.is_empty();
    }
    any
}

/// Checks `method SP target SP HTTP/1.x` and returns x.
fn request_line(line: &[u8]) -> Result<u8, Refusal> {
    let minor = match line {
        [.., b' ', b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor @ b'0'..=b'1'] => minor - b'0',
        _ => return Err(Refusal::Malformed),
    };
    let rest = line.get(..line.len() - " HTTP/1.x".len()).unwrap_or_default();
    let space = memchr(b' ', rest).ok_or(Refusal::Malformed)?;
    let (method, target) = rest.split_at_checked(space).ok_or(Refusal::Malformed)?;
    let target = target.get(1..).unwrap_or_default();
    if method.is_empty() || target.is_empty() || memchr3(b' ', b'\t', b'#', target).is_some() {
        return Err(Refusal::Malformed);
    }
    Ok(minor)
}

/// Where a value behind its colon begins and ends without the blanks around it. Others take more octets
/// for blanks, and so disagree.
pub(crate) fn trim(value: &[u8]) -> (usize, usize) {
    let is_blank = |octet: &u8| matches!(octet, b' ' | b'\t');
    let begin = value.iter().skip(1).take_while(|octet| is_blank(octet)).count() + 1;
    let end = value.iter().rposition(|octet| !is_blank(octet)).map_or(begin, |last| last + 1);
    (begin, end.max(begin))
}

/// A number of decimal digits alone: no sign, no list, no more than 18 digits.
pub(crate) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 18 {
        return None;
    }
    text.iter().try_fold(0_u64, |number, digit| match digit {
        b'0'..=b'9' => Some(number * 10 + u64::from(digit - b'0')),
        _ => None,
    })
}

/// The longest line in a chunked body outside the data: a size with its extensions, or a trailer.
const CHUNK_LINE_MAX: usize = 4096;
/// The longest trailer section.
const TRAILERS_MAX: usize = 16 * 1024;

/// Follows a chunked body to its end.
#[derive(Debug, Default)]
pub(crate) struct ChunkScan {
    state: ChunkState,
    /// Octets of the present line, or of all trailers.
    counted: usize,
    size: u64,
    digits: u8,
    /// The lines of the trailer section so far, each ended by one LF.
    trailers: Vec<u8>,
}

/// What comes next of a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// So many octets of framing, and then so many of data.
    Data(usize, usize),
    /// Framing alone, as far as there are octets.
    Nothing,
    /// So many octets of framing, the last ones of the body.
    End(usize),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ChunkState {
    #[default]
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
    End,
}

impl ChunkScan {
    /// Reads on; returns how many of `octets` belong to the body, and whether it ended there.
    pub(crate) fn scan(&mut self, octets: &[u8]) -> Result<(usize, bool), Refusal> {
        let mut at = 0;
        loop {
            match self.piece(octets.get(at..).unwrap_or_default())? {
                Piece::Data(framing, data) => at += framing + data,
                Piece::Nothing => return Ok((octets.len(), false)),
                Piece::End(framing) => return Ok((at + framing, true)),
            }
        }
    }

    /// Reads on to the next data in `octets`, or to their end or the body's.
    pub(crate) fn piece(&mut self, octets: &[u8]) -> Result<Piece, Refusal> {
        let mut at = 0;
        while let Some(&octet) = octets.get(at) {
            if self.state == ChunkState::Data {
                let here = u64::try_from(octets.len() - at).unwrap_or(u64::MAX).min(self.size);
                self.size -= here;
                if self.size == 0 {
                    self.state = ChunkState::DataCr;
                }
                return Ok(Piece::Data(at, usize::try_from(here).unwrap_or(usize::MAX)));
            }
            at += 1;
            self.step(octet)?;
            if self.state == ChunkState::End {
                return Ok(Piece::End(at));
            }
        }
        Ok(Piece::Nothing)
    }

    /// The lines of the trailer section, each ended by one LF, when the body has ended.
    pub(crate) fn trailers(&self) -> &[u8] {
        &self.trailers
    }

    fn step(&mut self, octet: u8) -> Result<(), Refusal> {
        use ChunkState::{
            Data, DataCr, DataLf, End, EndLf, Extension, Size, SizeLf, Trailer, TrailerLf,
            TrailerStart,
        };
        self.state = match (self.state, octet) {
            (Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if self.digits < 15 => {
                let digit = char::from(octet).to_digit(16).ok_or(Refusal::Malformed)?;
                self.size = self.size << 4 | u64::from(digit);
                self.digits += 1;
                Size
            }
            (Size, b';') if self.digits > 0 => Extension,
            (Size | Extension, b'\r') if self.digits > 0 => SizeLf,
            (Extension, b'\t' | b' '..=b'~' | 0x80..) if self.counted < CHUNK_LINE_MAX => {
                self.counted += 1;
                Extension
            }
            (SizeLf, b'\n') => {
                (self.digits, self.counted) = (0, 0);
                if self.size == 0 { TrailerStart } else { Data }
            }
            (DataCr, b'\r') => DataLf,
            (DataLf, b'\n') => Size,
            (TrailerStart, b'\r') => EndLf,
            (TrailerStart, b' ' | b'\t' | b':' | b'\n' | 0) => return Err(Refusal::Malformed),
            (Trailer, b'\r') => TrailerLf,
            (Trailer, b'\n' | 0) => return Err(Refusal::Malformed),
            (TrailerStart | Trailer, _) if self.counted < TRAILERS_MAX => {
                self.counted += 1;
                self.trailers.push(octet);
                Trailer
            }
            (TrailerLf, b'\n') => {
                self.trailers.push(octet);
                TrailerStart
            }
            (EndLf, b'\n') => End,
            (
                Size | Extension | SizeLf | Data | DataCr | DataLf | TrailerStart | Trailer
                | TrailerLf | EndLf | End,
                _,
            ) => return Err(Refusal::Malformed),
        };
        Ok(())
    }
}

#[cfg(test)]
#[path = "../fuzz/framing_laws.rs"]
mod laws;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: HeadLimits = HeadLimits { bytes_max: 400, fields_max: 4 };

    fn head(text: &str) -> Result<Option<(usize, Framing)>, Refusal> {
        HeadScan::default().scan(text.as_bytes(), LIMITS)
    }

    #[test]
    fn a_head_says_what_follows_it() {
        for (fields, want) in [
            ("", Framing::Nothing),
            ("Content-Length: 0\r\n", Framing::Nothing),
            ("content-LENGTH:  17 \r\n", Framing::Length(17)),
            ("Transfer-Encoding: Chunked\r\n", Framing::Chunked),
            ("Upgrade: websocket\r\n", Framing::Upgrade),
            ("Upgrade: h2c\r\n", Framing::Nothing),
            ("Upgrade: TLS/1.0\r\n", Framing::Nothing),
            ("Upgrade: websocket, H2C\r\n", Framing::Nothing),
            ("Upgrade: , websocket,h2\r\n", Framing::Nothing),
            ("Upgrade: a/1, websocket\r\n", Framing::Upgrade),
            ("Upgrade: ,\r\n", Framing::Nothing),
            // A body and an upgrade at once: the body is framed, the tunnel is not offered.
            ("Upgrade: websocket\r\nContent-Length: 2\r\n", Framing::Length(2)),
        ] {
            let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
            assert_eq!(head(&text), Ok(Some((text.len(), want))), "{fields:?}");
        }
    }

    #[test]
    fn an_ambiguous_head_is_refused() {
        for (text, why) in [
            ("GET / HTTP/1.1\nHost: a\n\n", "bare LF"),
            ("GET / HTTP/1.1\r\nHost: a\n\r\n", "bare LF in a field"),
            ("GET / HTTP/1.1\r\nX: a\rb\r\n\r\n", "bare CR"),
            ("GET / HTTP/1.1\r\nX: a\r\n b\r\n\r\n", "obs-fold"),
            ("GET / HTTP/1.1\r\nX : a\r\n\r\n", "space before the colon"),
            ("GET / HTTP/1.1\r\n X: a\r\n\r\n", "space before the first field"),
            ("GET / HTTP/1.1\r\n: a\r\n\r\n", "no name"),
            ("GET / HTTP/1.1\r\nnonsense\r\n\r\n", "no colon"),
            ("GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", "two lengths"),
            ("GET / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n", "a list"),
            ("GET / HTTP/1.1\r\nContent-Length: +1\r\n\r\n", "a sign"),
            ("GET / HTTP/1.1\r\nContent-Length: \r\n\r\n", "no digits"),
            ("GET / HTTP/1.1\r\nContent-Length: 1\u{c}\r\n\r\n", "a form feed"),
            ("GET / HTTP/1.1\r\nContent-Length: 0x1\r\n\r\n", "hexadecimal"),
            ("GET / HTTP/1.1\r\nContent-Length: 9999999999999999999\r\n\r\n", "overflow"),
            ("GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "both"),
            ("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n", "both"),
            ("GET / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "a coding before"),
            ("GET / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n", "another coding"),
            ("GET / HTTP/1.1\r\nTransfer-Encoding: \u{b}chunked\r\n\r\n", "a control character"),
            (
                "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
                "twice",
            ),
            ("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", "1.0 has no chunks"),
            ("GET / HTTP/1.2\r\n\r\n", "another version"),
            ("GET / HTTP/2.0\r\n\r\n", "another major version"),
            ("GET /\r\n\r\n", "0.9"),
            ("GET /a b HTTP/1.1\r\n\r\n", "space in the target"),
            ("GET  / HTTP/1.1\r\n\r\n", "two spaces"),
            ("GET /a#b HTTP/1.1\r\n\r\n", "a fragment"),
            ("\r\n\r\nGET / HTTP/1.1\r\n\r\n", "two empty lines first"),
        ] {
            assert_eq!(head(text), Err(Refusal::Malformed), "{why}: {text:?}");
        }
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(5));
        assert_eq!(head(&many), Err(Refusal::TooManyFields));
        let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(400));
        assert_eq!(head(&long), Err(Refusal::HeadTooLarge));
        assert_eq!(head("GET / HTTP/1.1\r\nHost: a\r\n\r"), Ok(None));
    }

    #[test]
    fn a_chunked_body_ends_where_its_last_chunk_says() {
        for (body, want) in [
            ("0\r\n\r\n", Ok((5, true))),
            ("3\r\nabc\r\n0\r\n\r\nGET", Ok((13, true))),
            ("3;x=y\r\nabc\r\n0\r\nt: v\r\n\r\n", Ok((23, true))),
            ("A\r\n0123456789\r\n", Ok((15, false))),
            ("3\nabc\r\n0\r\n\r\n", Err(Refusal::Malformed)),
            ("3 \r\nabc\r\n0\r\n\r\n", Err(Refusal::Malformed)),
            ("3;a\nb\r\nabc\r\n0\r\n\r\n", Err(Refusal::Malformed)),
            ("0x3\r\nabc\r\n0\r\n\r\n", Err(Refusal::Malformed)),
            ("-1\r\n", Err(Refusal::Malformed)),
            ("\r\n", Err(Refusal::Malformed)),
            ("3\r\nabcd\r\n", Err(Refusal::Malformed)),
            ("3\r\nabc\n0\r\n\r\n", Err(Refusal::Malformed)),
            ("0\r\nt: v\n\r\n", Err(Refusal::Malformed)),
            ("0\r\n folded\r\n\r\n", Err(Refusal::Malformed)),
            ("0\r\n\n", Err(Refusal::Malformed)),
            ("1000000000000000\r\n", Err(Refusal::Malformed)),
        ] {
            assert_eq!(ChunkScan::default().scan(body.as_bytes()), want, "{body:?}");
        }
    }

    #[test]
    fn seeds_of_framing_hold_their_law() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/framing");
        let mut count = 0;
        for entry in std::fs::read_dir(corpus).unwrap() {
            laws::framing(&std::fs::read(entry.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count >= 10, "{count} seeds in {corpus}");
    }

    proptest! {
        #[test]
        fn any_octets_hold_the_law(octets in any::<Vec<u8>>(), start in 0_usize..3) {
            let starts = [&b""[..], b"GET / HTTP/1.1\r\n", b"P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"];
            laws::framing(&[starts[start], &octets].concat());
        }

        /// The network may cut anywhere; the verdict must not depend on it.
        #[test]
        fn cuts_change_nothing(
            octets in proptest::collection::vec(
                prop_oneof![Just(b'\r'), Just(b'\n'), Just(b' '), Just(b':'), Just(b'0'), any::<u8>()],
                0..60),
            cut in 0_usize..60,
        ) {
            let text = [&b"GET / HTTP/1.1\r\nContent-Length: "[..], &octets, b"\r\n\r\n"].concat();
            let whole = HeadScan::default().scan(&text, LIMITS);
            let mut scan = HeadScan::default();
            let first = scan.scan(&text[..cut.min(text.len())], LIMITS);
            let second = match first {
                Ok(None) => scan.scan(&text, LIMITS),
                Ok(Some(_)) | Err(_) => first,
            };
            prop_assert_eq!(whole, second);

            let body = [&octets[..], b"0\r\n\r\n"].concat();
            let whole = ChunkScan::default().scan(&body);
            let mut scan = ChunkScan::default();
            let cut = cut.min(body.len());
            let halves = scan.scan(&body[..cut]).and_then(|(taken, ended)| {
                if ended { return Ok((taken, true)); }
                scan.scan(&body[cut..]).map(|(more, ended)| (taken + more, ended))
            });
            prop_assert_eq!(whole, halves);
        }
    }
}
