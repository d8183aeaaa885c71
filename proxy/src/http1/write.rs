//! Answers as octets: heads, the framing of bodies, and what waits to be sent.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, response::Parts};
use tokio::io::AsyncWrite;

use crate::{
    headers::lists,
    http1::{head::Says, io::ClientIo},
    interim::Interim,
};

/// Frames up to this are copied behind what waits; larger ones wait as they are.
const COPY_MAX: usize = 2 * 1024;
/// How much a buffer for heads and small frames has from the start: most answers fit.
const SMALL: usize = 1024;
/// The slices of one write.
const SLICES: usize = 16;

/// What waits to be sent.
#[derive(Debug, Default)]
pub(crate) struct Out {
    /// Before `small`.
    large: VecDeque<Bytes>,
    small: Vec<u8>,
    /// What was sent of `small`.
    gone: usize,
    waiting: usize,
    /// Whether TLS may hold something back.
    unflushed: bool,
}

impl Out {
    /// The octets that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Whether nothing waits, here or in TLS.
    pub(crate) fn is_done(&self) -> bool {
        self.waiting == 0 && !self.unflushed
    }

    /// Adds octets that `write` writes.
    fn small<T>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        if self.small.capacity() == 0 {
            self.small.reserve(SMALL);
        }
        let before = self.small.len();
        let result = write(&mut self.small);
        self.waiting += self.small.len() - before;
        self.unflushed = true;
        result
    }

    fn data(&mut self, data: Bytes) {
        if data.len() <= COPY_MAX {
            return self.small(|small| small.extend_from_slice(&data));
        }
        if !self.small.is_empty() {
            let mut small = Bytes::from(std::mem::take(&mut self.small));
            small.advance(std::mem::take(&mut self.gone));
            self.large.push_back(small);
        }
        self.waiting += data.len();
        self.unflushed = true;
        self.large.push_back(data);
    }

    /// Sends until nothing waits.
    pub(crate) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut ClientIo,
    ) -> Poll<io::Result<()>> {
        while self.waiting > 0 {
            let sent = ready!(self.poll_write(cx, io))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent(sent);
        }
        if self.unflushed {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write(&self, cx: &mut Context<'_>, io: &mut ClientIo) -> Poll<io::Result<usize>> {
        let io = Pin::new(io);
        if self.large.is_empty() {
            return io.poll_write(cx, self.small.get(self.gone..).unwrap_or_default());
        }
        let mut slices = [IoSlice::new(&[]); SLICES];
        let parts = self.large.iter().map(|part| &part[..]).chain([&self.small[..]]);
        let mut count = 0;
        for (slice, part) in slices.iter_mut().zip(parts) {
            *slice = IoSlice::new(part);
            count += 1;
        }
        io.poll_write_vectored(cx, slices.get(..count).unwrap_or_default())
    }

    fn sent(&mut self, mut octets: usize) {
        self.waiting = self.waiting.saturating_sub(octets);
        while let Some(first) = self.large.front_mut() {
            if octets < first.len() {
                first.advance(octets);
                return;
            }
            octets -= first.len();
            self.large.pop_front();
        }
        self.gone += octets;
        if self.gone >= self.small.len() {
            self.small.clear();
            self.gone = 0;
        }
    }
}

/// How the body of an answer is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    /// No body.
    Nothing,
    /// So many octets are still to come.
    Length(u64),
    /// In chunks; with trailers, if the client takes them.
    Chunked { trailers: bool },
    /// Until the connection ends.
    UntilClose,
}

/// What an answer is written by, besides itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) says: Says,
    /// The length of the body, if it is known.
    pub(crate) length: Option<u64>,
    /// Whether the connection may go on as far as the edge is concerned.
    pub(crate) keeps: bool,
    pub(crate) date: &'a [u8],
}

/// A frame that is out of place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooShort;

impl Out {
    /// Writes the head of an answer. Says how the body follows, and whether the connection goes on.
    pub(crate) fn head(&mut self, parts: &Parts, facts: Facts<'_>) -> (Coding, bool) {
        let Facts { says, length, keeps, date } = facts;
        let bodiless = parts.status.is_informational()
            || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let (mut announced, mut closes, mut dated) = (None, !keeps || !says.keeps, false);
        self.small(|out| {
            status_line(out, says.is_11, parts.status);
            for (name, value) in &parts.headers {
                match *name {
                    header::CONTENT_LENGTH => {
                        announced = announced.or(Some(value));
                        continue;
                    }
                    header::TRANSFER_ENCODING => continue,
                    header::TRAILER if bodiless || says.is_head || !says.is_11 => continue,
                    header::CONNECTION if lists(value, b"close") => {
                        closes = true;
                        continue;
                    }
                    header::DATE => dated = true,
                    _ => {}
                }
                field(out, name, value);
            }
            let coding = match (bodiless, length.or_else(|| announced.and_then(decimal))) {
                (true, _) => Coding::Nothing,
                (false, _) if says.is_head => {
                    // The length of what a GET would bring, if anybody knows it.
                    match (announced, length) {
                        (Some(value), _) => field(out, &header::CONTENT_LENGTH, value),
                        (None, Some(length @ 1..)) => content_length(out, length),
                        (None, Some(0) | None) => {}
                    }
                    Coding::Nothing
                }
                (false, Some(length)) => {
                    content_length(out, length);
                    if length == 0 { Coding::Nothing } else { Coding::Length(length) }
                }
                (false, None) if says.is_11 => {
                    out.extend_from_slice(b"transfer-encoding: chunked\r\n");
                    Coding::Chunked { trailers: says.trailers }
                }
                (false, None) => Coding::UntilClose,
            };
            closes |= coding == Coding::UntilClose;
            if !dated {
                out.extend_from_slice(b"date: ");
                out.extend_from_slice(date);
                out.extend_from_slice(b"\r\n");
            }
            out.extend_from_slice(match (closes, says.is_11) {
                // What follows a 101 is none of HTTP's business.
                (true, true) if parts.status != StatusCode::SWITCHING_PROTOCOLS => {
                    b"connection: close\r\n\r\n"
                }
                (false, false) => b"connection: keep-alive\r\n\r\n",
                _ => b"\r\n",
            });
            (coding, !closes)
        })
    }

    /// Writes an interim answer.
    pub(crate) fn interim(&mut self, interim: &Interim) {
        self.small(|out| {
            status_line(out, true, interim.status);
            for (name, value) in &interim.headers {
                field(out, name, value);
            }
            out.extend_from_slice(b"\r\n");
        });
    }

    /// Adds data of a body, as far as its framing has room for it.
    pub(crate) fn body(&mut self, coding: &mut Coding, mut data: Bytes) {
        match coding {
            Coding::Nothing => {}
            Coding::Length(left) => {
                data.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left = left.saturating_sub(u64::try_from(data.len()).unwrap_or(u64::MAX));
                self.data(data);
            }
            // An empty chunk would be the last one.
            Coding::Chunked { .. } if data.is_empty() => {}
            Coding::Chunked { .. } => {
                self.small(|out| chunk_size(out, data.len()));
                self.data(data);
                self.small(|out| out.extend_from_slice(b"\r\n"));
            }
            Coding::UntilClose => self.data(data),
        }
    }

    /// Sends something that means nothing, if the framing of a body has anything like that: the first
    /// digit of the next size, which may be a zero.
    pub(crate) fn prove(&mut self, coding: Coding) {
        if let Coding::Chunked { .. } = coding {
            self.small(|out| out.push(b'0'));
        }
    }

    /// Ends a body, with trailers if there are any and the client takes them.
    pub(crate) fn end(
        &mut self,
        coding: Coding,
        trailers: Option<&HeaderMap>,
    ) -> Result<(), TooShort> {
        match coding {
            Coding::Nothing | Coding::Length(0) | Coding::UntilClose => Ok(()),
            Coding::Length(_) => Err(TooShort),
            Coding::Chunked { trailers: wanted } => {
                self.small(|out| {
                    out.extend_from_slice(b"0\r\n");
                    for (name, value) in trailers.filter(|_| wanted).into_iter().flatten() {
                        field(out, name, value);
                    }
                    out.extend_from_slice(b"\r\n");
                });
                Ok(())
            }
        }
    }
}

fn status_line(out: &mut Vec<u8>, is_11: bool, status: StatusCode) {
    if is_11 && status == StatusCode::OK {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        return;
    }
    out.extend_from_slice(if is_11 { b"HTTP/1.1 " } else { b"HTTP/1.0 " });
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    // What has no name needs none (RFC 9112, 4).
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn field(out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn content_length(out: &mut Vec<u8>, length: u64) {
    out.extend_from_slice(b"content-length: ");
    out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn decimal(value: &HeaderValue) -> Option<u64> {
    let digits = value.to_str().ok()?;
    digits.bytes().all(|octet| octet.is_ascii_digit()).then(|| digits.parse().ok())?
}

fn chunk_size(out: &mut Vec<u8>, size: usize) {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    let nibbles = (usize::BITS - size.leading_zeros()).div_ceil(4).max(1);
    for nibble in (0..nibbles).rev() {
        out.push(DIGITS.get(size >> (nibble * 4) & 15).copied().unwrap_or(b'0'));
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use http::Response;

    use super::*;

    const DATE: &[u8] = b"Thu, 26 Nov 2026 07:30:00 GMT";
    const KEEPS: Says = Says { keeps: true, ..Says::NOTHING };

    /// The head of an answer with `fields`, without its date.
    fn head(
        status: u16,
        fields: &[(&'static str, &'static str)],
        says: Says,
        length: Option<u64>,
    ) -> (String, Coding, bool) {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        for (name, value) in fields {
            response.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        let mut out = Out::default();
        let facts = Facts { says, length, keeps: true, date: DATE };
        let (coding, keeps) = out.head(&response.into_parts().0, facts);
        let text = String::from_utf8(out.small).unwrap();
        assert_eq!(text.len(), out.waiting);
        let date = format!("date: {}\r\n", std::str::from_utf8(DATE).unwrap());
        (text.replacen(&date, "", 1), coding, keeps)
    }

    const LENGTH_7: &[(&str, &str)] = &[("content-length", "7")];
    const CHUNKS: &str = "transfer-encoding: chunked\r\n";

    #[test]
    fn a_body_is_framed_by_what_is_known_of_it() {
        let chunked = Coding::Chunked { trailers: false };
        let old = Says { is_11: false, ..KEEPS };
        let (three, seven) = ("content-length: 3\r\n", "content-length: 7\r\n");
        let kept = "content-length: 3\r\nconnection: keep-alive\r\n";
        let announced = format!("trailer: x\r\n{CHUNKS}");
        for (fields, says, length, want, coding) in [
            (&[][..], KEEPS, Some(3), three, Coding::Length(3)),
            (&[], KEEPS, Some(0), "content-length: 0\r\n", Coding::Nothing),
            (&[], KEEPS, None, CHUNKS, chunked),
            (LENGTH_7, KEEPS, None, seven, Coding::Length(7)),
            (LENGTH_7, KEEPS, Some(3), three, Coding::Length(3)),
            (&[("content-length", "x")], KEEPS, None, CHUNKS, chunked),
            (&[("transfer-encoding", "gzip")], KEEPS, Some(3), three, Coding::Length(3)),
            (&[], old, Some(3), kept, Coding::Length(3)),
            (&[("trailer", "x")], old, None, "", Coding::UntilClose),
            (&[("trailer", "x")], KEEPS, None, &announced, chunked),
        ] {
            let (text, got, keeps) = head(200, fields, says, length);
            let (line, rest) = text.split_once("\r\n").unwrap();
            assert!(line.starts_with(if says.is_11 { "HTTP/1.1 " } else { "HTTP/1.0 " }), "{line}");
            assert_eq!((rest, got), (format!("{want}\r\n").as_str(), coding), "{fields:?}");
            assert_eq!(keeps, coding != Coding::UntilClose);
        }
    }

    #[test]
    fn an_answer_without_a_body_says_nothing_of_one_that_it_does_not_have() {
        let is_head = Says { is_head: true, ..KEEPS };
        for (status, fields, says, length, want) in [
            (204, LENGTH_7, KEEPS, Some(0), ""),
            (304, LENGTH_7, KEEPS, Some(0), ""),
            (200, LENGTH_7, is_head, Some(0), "content-length: 7\r\n"),
            (200, &[], is_head, Some(7), "content-length: 7\r\n"),
            (200, &[], is_head, Some(0), ""),
            (200, &[], is_head, None, ""),
        ] {
            let (text, coding, keeps) = head(status, fields, says, length);
            let (_, rest) = text.split_once("\r\n").unwrap();
            assert_eq!((rest, keeps), (format!("{want}\r\n").as_str(), true), "{status}");
            assert_eq!(coding, Coding::Nothing);
        }
    }

    #[test]
    fn a_connection_that_ends_says_so() {
        let last = Says { keeps: false, ..KEEPS };
        for (fields, says, want, keeps) in [
            (&[][..], KEEPS, "", true),
            (&[], last, "connection: close\r\n", false),
            (&[("connection", "close")], KEEPS, "connection: close\r\n", false),
            (&[("connection", "Close")], Says { is_11: false, ..KEEPS }, "", false),
            (&[], Says { is_11: false, ..last }, "", false),
        ] {
            let (text, _, got) = head(200, fields, says, Some(0));
            let rest = text.split_once("content-length: 0\r\n").unwrap().1;
            assert_eq!((rest, got), (format!("{want}\r\n").as_str(), keeps), "{fields:?}");
        }
        let fields = [("connection", "upgrade"), ("upgrade", "websocket")];
        let (text, coding, _) = head(101, &fields, KEEPS, Some(0));
        let want = "HTTP/1.1 101 Switching Protocols\r\n\
                    connection: upgrade\r\nupgrade: websocket\r\n\r\n";
        assert_eq!((text.as_str(), coding), (want, Coding::Nothing));
        let (text, _, _) = head(299, &[("date", "then")], KEEPS, Some(0));
        assert_eq!(text, "HTTP/1.1 299 \r\ndate: then\r\ncontent-length: 0\r\n\r\n");
    }

    #[test]
    fn data_keeps_to_its_framing() {
        let text = |out: &Out| {
            let parts = out.large.iter().map(|part| &part[..]).chain([&out.small[..]]);
            String::from_utf8(parts.collect::<Vec<_>>().concat()).unwrap()
        };
        let mut out = Out::default();
        let mut coding = Coding::Length(5);
        out.body(&mut coding, Bytes::from_static(b"abc"));
        assert_eq!(out.end(coding, None), Err(TooShort));
        out.body(&mut coding, Bytes::from_static(b"defghi"));
        assert_eq!((out.end(coding, None), text(&out)), (Ok(()), "abcde".to_owned()));

        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("7"));
        let large = "x".repeat(COPY_MAX + 1);
        for (wanted, end) in [(false, "0\r\n\r\n"), (true, "0\r\nx-sum: 7\r\n\r\n")] {
            let mut out = Out::default();
            let mut coding = Coding::Chunked { trailers: wanted };
            for data in ["abc", "", &large, "0123456789abcdef"] {
                out.body(&mut coding, Bytes::copy_from_slice(data.as_bytes()));
            }
            assert_eq!(out.end(coding, Some(&trailers)), Ok(()));
            let chunks = format!("3\r\nabc\r\n801\r\n{large}\r\n10\r\n0123456789abcdef\r\n");
            assert_eq!(text(&out), chunks + end);
            assert_eq!(out.waiting(), text(&out).len());
        }
    }

    #[test]
    fn what_was_sent_does_not_wait_any_more_wherever_it_was_cut() {
        let parts = ["head", &"a".repeat(COPY_MAX + 1), &"b".repeat(COPY_MAX + 1), "tail"];
        let whole = parts.concat();
        for step in [1, 3, 4, 5, COPY_MAX, COPY_MAX + 5, 3 * COPY_MAX] {
            let mut out = Out::default();
            for part in parts {
                out.data(Bytes::copy_from_slice(part.as_bytes()));
            }
            let mut sent = String::new();
            while out.waiting() > 0 {
                let small = String::from_utf8(out.small[out.gone..].to_vec()).unwrap();
                let large = out.large.iter().map(|part| String::from_utf8(part.to_vec()).unwrap());
                let waiting = large.collect::<String>() + &small;
                assert_eq!(waiting.len(), out.waiting());
                let count = step.min(waiting.len());
                sent.push_str(waiting.get(..count).unwrap());
                out.sent(count);
            }
            assert_eq!(sent, whole);
        }
    }
}
