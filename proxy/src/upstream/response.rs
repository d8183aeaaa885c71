//! Where a container's answers over HTTP/1 begin and end.
//!
//! What two readers could read differently is refused here, so that no container can make an answer
//! of its own pass for two. Pure: octets in, head and body out, wherever the network cuts.

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use httparse::{ParserConfig, Status};

use crate::framing::{ChunkScan, Piece as Chunk, decimal};

/// The octets of a head, at most.
pub(crate) const HEAD_MAX: usize = 256 * 1024;
/// The fields of a head, at most.
const FIELDS_MAX: usize = 100;
/// The fields of trailers, at most.
const TRAILERS_MAX: usize = 64;
/// Fields that the edge adds to an answer; a map that has room for them need not grow.
const FIELDS_ADDED: usize = 4;

/// Why an answer is refused, or not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("it is no HTTP/1")]
    Malformed,
    #[error("its head is too long, or has too many fields")]
    TooLarge,
    #[error("its length is said twice, or is no number")]
    Length,
    #[error("its coding is not chunked alone")]
    Coding,
    #[error("its chunks are broken")]
    Chunks,
    #[error("it broke off")]
    Short,
}

/// The head of an answer.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body,
    /// Whether the connection can be used again, if nothing follows the answer.
    pub(crate) keeps: bool,
}

/// What is left of an answer's body.
#[derive(Debug)]
pub(crate) enum Body {
    /// Nothing.
    Ended,
    /// So many octets.
    Length(u64),
    Chunked(ChunkScan),
    /// What comes until the connection is closed.
    UntilClose,
}

/// A piece of a body.
#[derive(Debug, PartialEq)]
pub(crate) enum Piece {
    Data(Bytes),
    /// The last one, if there are any.
    Trailers(HeaderMap),
}

/// Parses the head that `octets` begin with; returns it with its length, or nothing when more octets are
/// needed. `to_head` says that the request was HEAD, whose answers have no body.
pub(crate) fn parse(octets: &Bytes, to_head: bool) -> Result<Option<(usize, Head)>, Fault> {
    // The parser would read over empty lines first, over and over as they come.
    if matches!(octets.first(), Some(b'\r' | b'\n')) {
        return Err(Fault::Malformed);
    }
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut parsed = httparse::Response::new(&mut []);
    let config = ParserConfig::default();
    let len = match config.parse_response_with_uninit_headers(&mut parsed, octets, &mut fields) {
        Ok(Status::Complete(len)) if len <= HEAD_MAX => len,
        Ok(Status::Partial) if octets.len() <= HEAD_MAX => return Ok(None),
        Ok(Status::Complete(_) | Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Err(Fault::TooLarge);
        }
        Err(_) => return Err(Fault::Malformed),
    };
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or(Fault::Malformed)?;
    let mut headers = HeaderMap::with_capacity(parsed.headers.len() + FIELDS_ADDED);
    let (mut length, mut coded, mut close, mut keep_alive) = (None, false, false, false);
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).or(Err(Fault::Malformed))?;
        match name {
            header::CONTENT_LENGTH if length.is_some() => return Err(Fault::Length),
            header::CONTENT_LENGTH => length = Some(decimal(field.value).ok_or(Fault::Length)?),
            header::TRANSFER_ENCODING => {
                if coded || !field.value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Fault::Coding);
                }
                coded = true;
            }
            header::CONNECTION => {
                for token in field.value.split(|&octet| octet == b',').map(<[u8]>::trim_ascii) {
                    close |= token.eq_ignore_ascii_case(b"close");
                    keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            _ => {}
        }
        let value = HeaderValue::from_maybe_shared(octets.slice_ref(field.value));
        headers.append(name, value.or(Err(Fault::Malformed))?);
    }
    let is_old = parsed.version == Some(0);
    if coded && is_old {
        return Err(Fault::Coding);
    }
    let bodiless = to_head
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let body = match (coded, length) {
        _ if bodiless => Body::Ended,
        (true, _) => Body::Chunked(ChunkScan::default()),
        (false, Some(0)) => Body::Ended,
        (false, Some(length)) => Body::Length(length),
        (false, None) => Body::UntilClose,
    };
    // Where a length stands beside the coding, the sender does not know what it does.
    let doubtful = coded && length.is_some();
    let keeps = !close && (keep_alive || !is_old) && !doubtful;
    let keeps = keeps && !matches!(body, Body::UntilClose);
    Ok(Some((len, Head { status, headers, body, keeps })))
}

impl Body {
    /// Whether the body is complete.
    pub(crate) fn is_ended(&self) -> bool {
        matches!(self, Self::Ended)
    }

    /// The octets that are left, if that is known.
    pub(crate) fn left(&self) -> Option<u64> {
        match self {
            Self::Ended => Some(0),
            Self::Length(left) => Some(*left),
            Self::Chunked(_) | Self::UntilClose => None,
        }
    }

    /// Takes the next piece from what was read; nothing if there is none yet, or the body has ended.
    pub(crate) fn next(&mut self, read: &mut Bytes) -> Result<Option<Piece>, Fault> {
        if read.is_empty() {
            return Ok(None);
        }
        match self {
            Self::Ended => Ok(None),
            Self::UntilClose => Ok(Some(Piece::Data(std::mem::take(read)))),
            Self::Length(left) => {
                let here = usize::try_from(*left).map_or(read.len(), |left| left.min(read.len()));
                *left = left.saturating_sub(u64::try_from(here).unwrap_or(u64::MAX));
                if *left == 0 {
                    *self = Self::Ended;
                }
                Ok(Some(Piece::Data(read.split_to(here))))
            }
            Self::Chunked(scan) => match scan.piece(read).or(Err(Fault::Chunks))? {
                Chunk::Data(framing, data) => {
                    read.advance(framing);
                    Ok(Some(Piece::Data(read.split_to(data))))
                }
                Chunk::Nothing => {
                    read.clear();
                    Ok(None)
                }
                Chunk::End(framing) => {
                    read.advance(framing);
                    let trailers = trailers(scan.trailers())?;
                    *self = Self::Ended;
                    Ok(trailers.map(Piece::Trailers))
                }
            },
        }
    }

    /// The connection was closed. An error if the body is not whole.
    pub(crate) fn close(&mut self) -> Result<(), Fault> {
        match self {
            Self::Ended | Self::UntilClose => {
                *self = Self::Ended;
                Ok(())
            }
            Self::Length(_) | Self::Chunked(_) => Err(Fault::Short),
        }
    }
}

/// Parses lines of trailers, each ended by one LF.
fn trailers(lines: &[u8]) -> Result<Option<HeaderMap>, Fault> {
    if lines.is_empty() {
        return Ok(None);
    }
    let lines = [lines, b"\n"].concat();
    let mut fields = [httparse::EMPTY_HEADER; TRAILERS_MAX];
    let Ok(Status::Complete((_, fields))) = httparse::parse_headers(&lines, &mut fields) else {
        return Err(Fault::Chunks);
    };
    let mut trailers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).or(Err(Fault::Chunks))?;
        let value = HeaderValue::from_bytes(field.value).or(Err(Fault::Chunks))?;
        trailers.append(name, value);
    }
    Ok(Some(trailers))
}

#[cfg(test)]
#[path = "../../fuzz/response_laws.rs"]
mod laws;

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;

    use super::*;

    fn head(text: &str, to_head: bool) -> Result<Option<(usize, Head)>, Fault> {
        parse(&Bytes::copy_from_slice(text.as_bytes()), to_head)
    }

    /// How an answer with these fields ends: so many octets, in chunks (`c`), or with the connection
    /// (`x`); and whether the connection is kept.
    fn framing(start: &str, fields: &str, to_head: bool) -> Result<(String, bool), Fault> {
        let text = format!("{start}\r\n{fields}\r\n");
        let (len, head) = head(&text, to_head)?.unwrap();
        assert_eq!(len, text.len());
        let body = match head.body {
            Body::Ended => "0".to_owned(),
            Body::Length(length) => length.to_string(),
            Body::Chunked(_) => "c".to_owned(),
            Body::UntilClose => "x".to_owned(),
        };
        Ok((body, head.keeps))
    }

    #[test]
    fn a_head_says_how_its_body_ends() {
        const OK: &str = "HTTP/1.1 200 OK";
        const OLD: &str = "HTTP/1.0 200 OK";
        for (start, fields, want) in [
            (OK, "", ("x", false)),
            (OK, "Content-Length: 0\r\n", ("0", true)),
            (OK, "content-LENGTH:  17 \r\n", ("17", true)),
            (OK, "Content-Length: 5\r\nConnection: x, Close\r\n", ("5", false)),
            (OK, "Transfer-Encoding: Chunked\r\n", ("c", true)),
            // The coding counts; whoever says both is not asked again.
            (OK, "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", ("c", false)),
            (OLD, "Content-Length: 5\r\n", ("5", false)),
            (OLD, "Content-Length: 5\r\nConnection: Keep-Alive\r\n", ("5", true)),
            (OLD, "", ("x", false)),
            ("HTTP/1.1 204 No Content", "", ("0", true)),
            ("HTTP/1.1 304 Not Modified", "Content-Length: 5\r\n", ("0", true)),
            ("HTTP/1.1 304 Not Modified", "Transfer-Encoding: chunked\r\n", ("0", true)),
            ("HTTP/1.1 103 Early Hints", "Link: </a>\r\n", ("0", true)),
            ("HTTP/1.1 200", "Content-Length: 5\r\n", ("5", true)),
        ] {
            let want = Ok((want.0.to_owned(), want.1));
            assert_eq!(framing(start, fields, false), want, "{start} {fields:?}");
        }
        let to_head = framing(OK, "Content-Length: 5\r\n", true);
        assert_eq!(to_head, Ok(("0".to_owned(), true)), "HEAD");
    }

    #[test]
    fn what_others_could_read_differently_is_refused() {
        for (fields, want) in [
            ("Content-Length: 5\r\nContent-Length: 5\r\n", Fault::Length),
            ("Content-Length: 5, 5\r\n", Fault::Length),
            ("Content-Length: +5\r\n", Fault::Length),
            ("Content-Length: \r\n", Fault::Length),
            ("Content-Length: 10000000000000000000\r\n", Fault::Length),
            ("Transfer-Encoding: gzip, chunked\r\n", Fault::Coding),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Fault::Coding),
            ("Transfer-Encoding: identity\r\n", Fault::Coding),
            ("Transfer-Encoding: \x0bchunked\r\n", Fault::Malformed),
            ("X: a\r\n b\r\n", Fault::Malformed),
            ("X : a\r\n", Fault::Malformed),
            ("X: a\rb\r\n", Fault::Malformed),
            ("X: a\0b\r\n", Fault::Malformed),
            ("X\r\n", Fault::Malformed),
            (": a\r\n", Fault::Malformed),
        ] {
            assert_eq!(framing("HTTP/1.1 200 OK", fields, false), Err(want), "{fields:?}");
        }
        let old = framing("HTTP/1.0 200 OK", "Transfer-Encoding: chunked\r\n", false);
        assert_eq!(old, Err(Fault::Coding), "HTTP/1.0 has no codings");
        for start in ["HTTP/2.0 200 OK", "HTTP/1.2 200 OK", "HTTP/1.1 2000 OK", "HTTP/1.1 20 OK"] {
            assert_eq!(framing(start, "", false), Err(Fault::Malformed), "{start}");
        }
        assert!(matches!(head("\r\nHTTP/1.1 200 OK\r\n\r\n", false), Err(Fault::Malformed)));
        // What a server of HTTP/2 says first.
        assert!(matches!(head("\0\0\x12\x04\0\0\0\0\0", false), Err(Fault::Malformed)));
    }

    #[test]
    fn a_head_is_bounded() {
        let fields = "x: y\r\n".repeat(FIELDS_MAX);
        assert!(head(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n"), false).unwrap().is_some());
        let more = head(&format!("HTTP/1.1 200 OK\r\n{fields}x: y\r\n"), false);
        assert!(matches!(more, Err(Fault::TooLarge)), "{more:?}");
        let long = head(&format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(HEAD_MAX)), false);
        assert!(matches!(long, Err(Fault::TooLarge)), "{long:?}");
    }

    /// Reads a body from pieces of `size` octets: its data, its trailers, and what is left behind it.
    fn read(body: &mut Body, octets: &[u8], size: usize) -> Result<(Vec<u8>, bool, usize), Fault> {
        let (mut data, mut trailers, mut left) = (Vec::new(), false, octets.len());
        for part in octets.chunks(size) {
            let mut part = Bytes::copy_from_slice(part);
            while !body.is_ended() && !part.is_empty() {
                let before = part.len();
                match body.next(&mut part)? {
                    Some(Piece::Data(piece)) => data.extend_from_slice(&piece),
                    Some(Piece::Trailers(_)) => trailers = true,
                    None => {}
                }
                left -= before - part.len();
            }
        }
        Ok((data, trailers, left))
    }

    #[test]
    fn bodies_end_where_they_end_however_they_are_cut() {
        for (make, octets, want) in [
            (
                (|| Body::Length(5)) as fn() -> Body,
                &b"hello, you"[..],
                Ok((b"hello".to_vec(), false, 5)),
            ),
            (|| Body::UntilClose, b"hello", Ok((b"hello".to_vec(), false, 0))),
            (
                || Body::Chunked(ChunkScan::default()),
                b"2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\nyou",
                Ok((b"hello".to_vec(), false, 3)),
            ),
            (
                || Body::Chunked(ChunkScan::default()),
                b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
                Ok((b"hello".to_vec(), true, 0)),
            ),
            (|| Body::Chunked(ChunkScan::default()), b"5\r\nhelloX\r\n", Err(Fault::Chunks)),
            (|| Body::Chunked(ChunkScan::default()), b"5\nhello\r\n", Err(Fault::Chunks)),
            (
                || Body::Chunked(ChunkScan::default()),
                b"0\r\nno trailer\r\n\r\n",
                Err(Fault::Chunks),
            ),
        ] {
            for size in 1..=octets.len() {
                assert_eq!(read(&mut make(), octets, size), want, "{octets:?} by {size}");
            }
        }
    }

    #[test]
    fn a_body_that_breaks_off_is_not_whole() {
        assert_eq!(Body::Length(1).close(), Err(Fault::Short));
        assert_eq!(Body::Chunked(ChunkScan::default()).close(), Err(Fault::Short));
        assert_eq!(Body::UntilClose.close(), Ok(()));
    }

    #[test]
    fn seeds_of_answers_hold_their_laws() {
        let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/response");
        let mut count = 0;
        for entry in std::fs::read_dir(seeds).unwrap() {
            laws::response(&std::fs::read(entry.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count >= 8, "{count} seeds");
    }

    proptest! {
        #[test]
        fn no_octets_panic_and_cuts_change_nothing(octets in ".{0,80}", start: bool) {
            let start = if start { "HTTP/1.1 200 OK\r\n" } else { "" };
            laws::response(format!("{start}{octets}").as_bytes());
        }

        #[test]
        fn chunks_bring_what_was_put_into_them(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
            size in 1_usize..50,
        ) {
            let mut octets = BytesMut::new();
            for part in &parts {
                octets.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
                octets.extend_from_slice(part);
                octets.extend_from_slice(b"\r\n");
            }
            octets.extend_from_slice(b"0\r\n\r\n");
            let got = read(&mut Body::Chunked(ChunkScan::default()), &octets, size);
            prop_assert_eq!(got, Ok((parts.concat(), false, 0)));
        }
    }
}
