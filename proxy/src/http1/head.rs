//! A request, made of the octets of its head.
//!
//! [`crate::framing`] has judged the head before: its lines, its blanks and its length are
//! unambiguous. What is checked here is what each part may consist of. Values are not copied: they
//! share the head's octets.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header};
use memchr::memchr;

use crate::{
    body::ClientBody,
    framing::{FieldAt, Framing, HeadLimits, HeadScan, Refusal},
    headers::{expects_continue, lists},
};

/// The longest target that the `http` crate takes.
const TARGET_MAX: usize = (u16::MAX - 1) as usize;

/// A request without its body, and what its head says about the connection.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) request: Request<Option<ClientBody>>,
    pub(crate) framing: Framing,
    pub(crate) says: Says,
}

/// What a request's head says about how it is to be answered.
#[expect(clippy::struct_excessive_bools, reason = "each is one thing that was said or not")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Says {
    /// Whether it is of HTTP/1.1, and not of HTTP/1.0.
    pub(crate) is_11: bool,
    /// Whether it is a HEAD, whose answer has no body.
    pub(crate) is_head: bool,
    /// Whether the client wants the connection to go on.
    pub(crate) keeps: bool,
    /// Whether the client holds its body back until it is asked for it.
    pub(crate) expects: bool,
    /// Whether the client takes trailers.
    pub(crate) trailers: bool,
}

impl Head {
    /// What stands for a request whose head was refused.
    pub(crate) fn refused() -> Self {
        Self { request: Request::new(None), framing: Framing::Nothing, says: Says::NOTHING }
    }
}

impl Says {
    /// What is assumed of a client whose head was refused.
    pub(crate) const NOTHING: Self =
        Self { is_11: true, is_head: false, keeps: false, expects: false, trailers: false };
}

/// Makes a request of `octets`, a whole head whose fields stand at `fields`.
pub(crate) fn build(octets: &Bytes, fields: &[FieldAt], framing: Framing) -> Result<Head, Refusal> {
    let (method, target, version) = request_line(octets)?;
    let mut says = Says {
        is_11: version == Version::HTTP_11,
        is_head: method == Method::HEAD,
        keeps: version == Version::HTTP_11,
        expects: false,
        trailers: false,
    };
    let headers = headers(octets, fields, &mut says)?;
    if says.expects {
        let has_body = matches!(framing, Framing::Length(_) | Framing::Chunked);
        says.expects = says.is_11 && has_body && expects_continue(&headers);
    }
    let mut request = Request::new(None);
    *request.method_mut() = method;
    *request.uri_mut() = target;
    *request.version_mut() = version;
    *request.headers_mut() = headers;
    Ok(Head { request, framing, says })
}

/// Reads heads of requests by themselves, as a connection of HTTP/1 does; for measurements.
#[derive(Debug, Default)]
pub struct HeadReader(Vec<FieldAt>);

impl HeadReader {
    /// Makes a request of the head that `octets` begin with, of at most 64 KiB and 100 fields; says whether
    /// it is a whole one and not refused.
    pub fn reads(&mut self, octets: &[u8]) -> bool {
        const LIMITS: HeadLimits = HeadLimits { bytes_max: 64 * 1024, fields_max: 100 };
        let fields = &mut self.0;
        fields.clear();
        let scanned =
            HeadScan::default().scan_fields(octets, LIMITS, &mut |field| fields.push(field));
        let Ok(Some((len, framing))) = scanned else { return false };
        let head = Bytes::copy_from_slice(octets.get(..len).unwrap_or_default());
        std::hint::black_box(build(&head, fields, framing)).is_ok()
    }
}

/// Takes `method SP target SP HTTP/1.x CRLF` to pieces, perhaps behind an empty line.
fn request_line(octets: &Bytes) -> Result<(Method, Uri, Version), Refusal> {
    let start = if octets.starts_with(b"\r\n") { 2 } else { 0 };
    let line = octets.get(start..).unwrap_or_default();
    let space = memchr(b' ', line).ok_or(Refusal::Malformed)?;
    let (method, rest) = line.split_at_checked(space).ok_or(Refusal::Malformed)?;
    let rest = rest.get(1..).unwrap_or_default();
    let length = memchr(b' ', rest).ok_or(Refusal::Malformed)?;
    let (target, version) = rest.split_at_checked(length).ok_or(Refusal::Malformed)?;
    let version = match version {
        [b' ', b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1', ..] => Version::HTTP_11,
        [b' ', b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0', ..] => Version::HTTP_10,
        _ => return Err(Refusal::Malformed),
    };
    if target.len() > TARGET_MAX {
        return Err(Refusal::HeadTooLarge);
    }
    // The `http` crate lets some of these pass in some places.
    if target.iter().any(|&octet| octet <= b' ' || octet == 0x7f) {
        return Err(Refusal::Malformed);
    }
    let method = Method::from_bytes(method).or(Err(Refusal::Malformed))?;
    let target = octets.slice_ref(target);
    let target = Uri::from_maybe_shared(target).or(Err(Refusal::Malformed))?;
    Ok((method, target, version))
}

fn headers(octets: &Bytes, fields: &[FieldAt], says: &mut Says) -> Result<HeaderMap, Refusal> {
    let map = HeaderMap::try_with_capacity(fields.len());
    let mut map = map.or(Err(Refusal::TooManyFields))?;
    let mut closes = false;
    for at in fields {
        let name = octets.get(at.name.0..at.name.1).unwrap_or_default();
        let name = HeaderName::from_bytes(name).or(Err(Refusal::Malformed))?;
        let value = octets.get(at.value.0..at.value.1).unwrap_or_default();
        let value = HeaderValue::from_maybe_shared(octets.slice_ref(value));
        let value = value.or(Err(Refusal::Malformed))?;
        match name {
            header::CONNECTION => {
                // Once it is to be closed, nothing undoes that.
                closes |= lists(&value, b"close");
                says.keeps = !closes && (says.keeps || lists(&value, b"keep-alive"));
            }
            header::EXPECT => says.expects = true,
            header::TE => says.trailers |= lists(&value, b"trailers"),
            _ => {}
        }
        map.try_append(name, value).or(Err(Refusal::TooManyFields))?;
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: HeadLimits = HeadLimits { bytes_max: 4096, fields_max: 64 };

    /// Judges and builds a head, as a connection does.
    fn read(octets: &[u8]) -> Result<Option<Head>, Refusal> {
        let mut fields = Vec::new();
        let scanned =
            HeadScan::default().scan_fields(octets, LIMITS, &mut |field| fields.push(field))?;
        let Some((len, framing)) = scanned else { return Ok(None) };
        build(&Bytes::copy_from_slice(&octets[..len]), &fields, framing).map(Some)
    }

    fn whole(text: &str) -> Head {
        read(text.as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn a_head_becomes_a_request() {
        let head = whole(
            "\r\nPUT /a%20b?c=d HTTP/1.1\r\nHost: a.example:8443\r\nX-Odd:\t \u{e9}:x \t\r\n\
             x-empty:\r\nX-Twice: 1\r\nx-twice: 2\r\nContent-Length: 3\r\n\r\nabc",
        );
        let request = &head.request;
        assert_eq!((request.method(), request.version()), (&Method::PUT, Version::HTTP_11));
        assert_eq!(request.uri(), "/a%20b?c=d");
        let value = |name: &str| request.headers()[name].as_bytes().to_vec();
        assert_eq!(value("host"), b"a.example:8443");
        assert_eq!(value("x-odd"), "\u{e9}:x".as_bytes());
        assert_eq!(value("x-empty"), b"");
        assert_eq!(request.headers().get_all("x-twice").iter().count(), 2);
        assert_eq!(head.framing, Framing::Length(3));
    }

    #[test]
    fn a_head_says_how_it_is_to_be_answered() {
        let base = Says { keeps: true, ..Says::NOTHING };
        for (version, fields, want) in [
            ("1.1", "", base),
            ("1.1", "Connection: Close\r\n", Says { keeps: false, ..base }),
            ("1.1", "Connection: close\r\nConnection: keep-alive\r\n", Says::NOTHING),
            ("1.1", "Connection: x, close\r\n", Says::NOTHING),
            ("1.1", "Connection: closed\r\n", base),
            ("1.1", "TE: gzip, trailers\r\n", Says { trailers: true, ..base }),
            ("1.1", "Expect: 100-continue\r\n", base),
            (
                "1.1",
                "Expect: 100-Continue\r\nContent-Length: 1\r\n",
                Says { expects: true, ..base },
            ),
            ("1.0", "", Says { is_11: false, ..Says::NOTHING }),
            ("1.0", "Connection: Keep-Alive\r\n", Says { is_11: false, ..base }),
            ("1.0", "Connection: keep-alive, close\r\n", Says { is_11: false, ..Says::NOTHING }),
            (
                "1.0",
                "Expect: 100-continue\r\nContent-Length: 1\r\n",
                Says { is_11: false, ..Says::NOTHING },
            ),
        ] {
            let head = whole(&format!("GET / HTTP/{version}\r\n{fields}\r\n"));
            assert_eq!(head.says, want, "{version} {fields:?}");
        }
        assert!(whole("HEAD / HTTP/1.1\r\n\r\n").says.is_head);
    }

    #[test]
    fn parts_consist_of_what_they_may_consist_of() {
        for text in [
            "G\u{7f}T / HTTP/1.1\r\n\r\n",
            "G(T / HTTP/1.1\r\n\r\n",
            "GET /\u{7f} HTTP/1.1\r\n\r\n",
            "GET /\u{1} HTTP/1.1\r\n\r\n",
            "GET //a:b:c:/ HTTP/1.1\r\nA(: b\r\n\r\n",
            "GET / HTTP/1.1\r\na b: c\r\n\r\n",
            "GET / HTTP/1.1\r\n\u{e9}: c\r\n\r\n",
            "GET / HTTP/1.1\r\na: b\u{0}c\r\n\r\n",
            "GET / HTTP/1.1\r\na: b\u{7f}c\r\n\r\n",
            "GET / HTTP/1.1\r\na: \u{b}c\r\n\r\n",
        ] {
            assert_eq!(read(text.as_bytes()).err(), Some(Refusal::Malformed), "{text:?}");
        }
    }

    /// What hyper makes of a head: this parser and the types of the `http` crate.
    fn reference(octets: &[u8]) -> Option<Request<()>> {
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut parsed = httparse::Request::new(&mut fields);
        let status = parsed.parse(octets).ok()?;
        status.is_complete().then_some(())?;
        let mut request = Request::new(());
        *request.method_mut() = Method::from_bytes(parsed.method?.as_bytes()).ok()?;
        *request.uri_mut() = Uri::try_from(parsed.path?).ok()?;
        *request.version_mut() =
            if parsed.version? == 1 { Version::HTTP_11 } else { Version::HTTP_10 };
        for field in parsed.headers {
            let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
            request.headers_mut().append(name, HeaderValue::from_bytes(field.value).ok()?);
        }
        Some(request)
    }

    /// Octets that look like the parts of a head.
    fn part() -> impl Strategy<Value = Vec<u8>> {
        let octet = prop_oneof![
            8 => prop::sample::select(b"aZ09/:?=%&.-_*@[]".to_vec()),
            2 => prop::sample::select(b" \t\r\n,;\"#{}|<>\\^`(\x00\x0b\x7f\x80\xc3\xa9\xff".to_vec()),
        ];
        proptest::collection::vec(octet, 0..12)
    }

    proptest! {
        /// Nothing passes that the parser does not take which stood here before, or takes otherwise;
        /// and what passes the judge and that parser passes here.
        #[test]
        fn an_independent_parser_reads_the_same(
            method in prop_oneof![Just(b"GET".to_vec()), part()],
            target in part(),
            absolute in prop::sample::select(vec!["/", "", "http://a.b", "*"]),
            fields in proptest::collection::vec((part(), part()), 0..4),
        ) {
            let mut text = method;
            text.push(b' ');
            text.extend_from_slice(absolute.as_bytes());
            text.extend_from_slice(&target);
            text.extend_from_slice(b" HTTP/1.1\r\n");
            for (name, value) in fields {
                text.extend_from_slice(&name);
                text.push(b':');
                text.extend_from_slice(&value);
                text.extend_from_slice(b"\r\n");
            }
            text.extend_from_slice(b"\r\n");
            let judged = matches!(HeadScan::default().scan(&text, LIMITS), Ok(Some(_)));
            let reference = reference(&text);
            match read(&text) {
                Ok(Some(head)) => {
                    let reference = reference.expect("the other one takes it, too");
                    prop_assert_eq!(head.request.method(), reference.method());
                    prop_assert_eq!(head.request.uri(), reference.uri());
                    prop_assert_eq!(head.request.headers(), reference.headers());
                }
                Ok(None) => prop_assert!(!judged),
                Err(_) => prop_assert!(!judged || reference.is_none(), "{:?}", text),
            }
        }
    }
}
