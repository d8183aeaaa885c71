//! The body of a request: read by the connection, taken by whoever answers.
//!
//! The two meet in a [`Slot`], which holds one frame. The one who answers asks for a frame; only then
//! does the connection read. They may be in one task, in two, or in two threads (the API).

use std::{
    fmt, io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame, SizeHint};

use crate::{
    deps::BoxError,
    framing::{ChunkScan, Framing, Piece, Refusal, trim},
};

/// Fields of a trailer section, at most.
const TRAILER_FIELDS_MAX: usize = 100;

/// Where a frame passes from the connection to whoever answers.
#[derive(Default)]
pub(crate) struct Slot(Mutex<State>);

#[expect(clippy::struct_excessive_bools, reason = "each is said by one side and read by the other")]
#[derive(Default)]
struct State {
    frame: Option<Result<Frame<Bytes>, io::Error>>,
    /// The octets that were announced and not taken, unless the body comes in chunks.
    left: Option<u64>,
    /// Nothing comes after the frame.
    ended: bool,
    /// The connection has turned to something else.
    closed: bool,
    /// A frame is asked for.
    wanted: bool,
    /// The connection looks at `wanted` by itself in a moment.
    attended: bool,
    reader: Option<Waker>,
    connection: Option<Waker>,
}

impl Slot {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing between the locks can panic halfway.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection is about to poll whoever answers, and looks afterwards by [`Slot::leave`].
    pub(crate) fn enter(&self) {
        self.state().attended = true;
    }

    /// Whether a frame is wanted. If one is wanted later, the task of `cx` is woken.
    pub(crate) fn leave(&self, cx: &Context<'_>) -> bool {
        let mut state = self.state();
        state.attended = false;
        if !state.wanted {
            match &mut state.connection {
                Some(waker) => waker.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
        }
        state.wanted
    }

    /// Hands a frame over; `ended` if it is the last one, or there is none and the body has ended. The
    /// task of `cx` is not woken: it polls whoever answers next.
    fn put(&self, cx: &Context<'_>, frame: Option<Result<Frame<Bytes>, io::Error>>, ended: bool) {
        let mut state = self.state();
        (state.frame, state.ended, state.wanted) = (frame, ended, false);
        let reader = state.reader.take();
        drop(state);
        let other = reader.filter(|reader| !reader.will_wake(cx.waker()));
        other.into_iter().for_each(Waker::wake);
    }

    fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        let wakers = (state.reader.take(), state.connection.take());
        drop(state);
        wakers.0.into_iter().for_each(Waker::wake);
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").finish_non_exhaustive()
    }
}

/// A request's body as whoever answers has it.
#[derive(Debug)]
pub(crate) struct Receiving(Arc<Slot>);

impl Body for Receiving {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut state = self.0.state();
        if let Some(frame) = state.frame.take() {
            if let (Ok(frame), Some(left)) = (&frame, &mut state.left) {
                let octets = frame.data_ref().map_or(0, Bytes::len);
                *left = left.saturating_sub(u64::try_from(octets).unwrap_or(u64::MAX));
            }
            return Poll::Ready(Some(frame.map_err(Into::into)));
        }
        if state.ended {
            return Poll::Ready(None);
        }
        if state.closed {
            return Poll::Ready(Some(Err("the connection has ended".into())));
        }
        match &mut state.reader {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        state.wanted = true;
        let connection = if state.attended { None } else { state.connection.take() };
        drop(state);
        connection.into_iter().for_each(Waker::wake);
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        let state = self.0.state();
        state.ended && state.frame.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let state = self.0.state();
        match state.left {
            Some(left) => SizeHint::with_exact(left),
            None if state.ended && state.frame.is_none() => SizeHint::with_exact(0),
            None => SizeHint::default(),
        }
    }
}

/// How a body is framed, and how far it has been read.
#[derive(Debug)]
enum Decode {
    Length(u64),
    Chunked(ChunkScan),
    Ended,
    Broken,
}

/// What comes next of a body.
enum Step {
    /// Nothing yet.
    More,
    Frame(Frame<Bytes>),
    End,
}

/// A request's body as the connection has it.
#[derive(Debug)]
pub(crate) struct Incoming {
    slot: Arc<Slot>,
    decode: Decode,
}

impl Incoming {
    /// The body that `framing` announces, if it announces one: the connection's end and the other.
    pub(crate) fn new(framing: Framing) -> Option<(Self, Receiving)> {
        let (decode, left) = match framing {
            Framing::Nothing | Framing::Upgrade => return None,
            Framing::Length(left) => (Decode::Length(left), Some(left)),
            Framing::Chunked => (Decode::Chunked(ChunkScan::default()), None),
        };
        let slot = Arc::new(Slot(Mutex::new(State { left, ..State::default() })));
        Some((Self { slot: Arc::clone(&slot), decode }, Receiving(slot)))
    }

    pub(crate) fn slot(&self) -> &Slot {
        &self.slot
    }

    /// Whether the body was read to its end.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.decode, Decode::Ended)
    }

    /// Whether nothing more can be read of it: it has ended or broken.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.decode, Decode::Ended | Decode::Broken)
    }

    /// The octets that are still to come, as far as that is known.
    pub(crate) fn left(&self) -> Option<u64> {
        match self.decode {
            Decode::Length(left) => Some(left),
            Decode::Chunked(_) => None,
            Decode::Ended | Decode::Broken => Some(0),
        }
    }

    /// Hands over the next frame in `held`, or the end; says whether there was one.
    pub(crate) fn pass(&mut self, cx: &Context<'_>, held: &mut BytesMut) -> bool {
        if held.is_empty() {
            return false;
        }
        match self.next(held) {
            Ok(Step::More) => return false,
            Ok(Step::Frame(frame)) => self.slot.put(cx, Some(Ok(frame)), self.has_ended()),
            Ok(Step::End) => self.slot.put(cx, None, true),
            Err(_) => self.fail(cx, io::ErrorKind::InvalidData),
        }
        true
    }

    /// Hands over that the body is broken.
    pub(crate) fn fail(&mut self, cx: &Context<'_>, kind: io::ErrorKind) {
        self.decode = Decode::Broken;
        self.slot.put(cx, Some(Err(kind.into())), true);
    }

    /// What is next in `held`.
    fn next(&mut self, held: &mut BytesMut) -> Result<Step, Refusal> {
        match &mut self.decode {
            Decode::Length(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(held.len());
                *left -= u64::try_from(here).unwrap_or(*left);
                if *left == 0 {
                    self.decode = Decode::Ended;
                }
                Ok(Step::Frame(Frame::data(held.split_to(here).freeze())))
            }
            Decode::Chunked(scan) => match scan.piece(held)? {
                Piece::Data(framing, data) => {
                    held.advance(framing);
                    Ok(Step::Frame(Frame::data(held.split_to(data).freeze())))
                }
                Piece::Nothing => {
                    held.clear();
                    Ok(Step::More)
                }
                Piece::End(framing) => {
                    held.advance(framing);
                    let trailers = trailers(scan.trailers())?;
                    self.decode = Decode::Ended;
                    if trailers.is_empty() {
                        return Ok(Step::End);
                    }
                    Ok(Step::Frame(Frame::trailers(trailers)))
                }
            },
            Decode::Ended | Decode::Broken => Ok(Step::More),
        }
    }

    /// Reads over what is in `held` of the body, which nobody wants any more.
    pub(crate) fn skip(&mut self, held: &mut BytesMut) {
        match &mut self.decode {
            Decode::Length(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(held.len());
                held.advance(here);
                *left -= u64::try_from(here).unwrap_or(*left);
                if *left == 0 {
                    self.decode = Decode::Ended;
                }
            }
            Decode::Chunked(scan) => match scan.scan(held) {
                Ok((octets, ended)) => {
                    held.advance(octets);
                    if ended {
                        self.decode = Decode::Ended;
                    }
                }
                Err(_) => self.decode = Decode::Broken,
            },
            Decode::Ended | Decode::Broken => {}
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.slot.close();
    }
}

/// The fields of a trailer section, whose lines end in one LF each.
fn trailers(lines: &[u8]) -> Result<HeaderMap, Refusal> {
    let mut fields = HeaderMap::new();
    for line in lines.split(|&octet| octet == b'\n').filter(|line| !line.is_empty()) {
        let colon = memchr::memchr(b':', line).ok_or(Refusal::Malformed)?;
        let (name, value) = line.split_at_checked(colon).ok_or(Refusal::Malformed)?;
        let (begin, end) = trim(value);
        let value = value.get(begin..end).unwrap_or_default();
        let name = HeaderName::from_bytes(name).or(Err(Refusal::Malformed))?;
        let value = HeaderValue::from_bytes(value).or(Err(Refusal::Malformed))?;
        if fields.len() == TRAILER_FIELDS_MAX {
            return Err(Refusal::TooManyFields);
        }
        fields.try_append(name, value).or(Err(Refusal::TooManyFields))?;
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering::Relaxed},
        task::Wake,
    };

    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    fn poll(body: &mut Receiving) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop()))
    }

    /// What whoever reads a body gets of these pieces: data, trailers, and how it ended, or that it is
    /// not complete; and what is left of the last piece.
    fn read(framing: Framing, pieces: &[&[u8]]) -> (Vec<u8>, HeaderMap, &'static str, Vec<u8>) {
        let (mut incoming, mut body) = Incoming::new(framing).unwrap();
        let cx = Context::from_waker(Waker::noop());
        let (mut data, mut trailers, mut held) = (Vec::new(), HeaderMap::new(), BytesMut::new());
        let mut end = "incomplete";
        for piece in pieces {
            held.extend_from_slice(piece);
            while end == "incomplete" && incoming.pass(&cx, &mut held) {
                while let Poll::Ready(next) = poll(&mut body) {
                    match next {
                        Some(Ok(frame)) if frame.is_data() => {
                            data.extend_from_slice(&frame.into_data().unwrap());
                        }
                        Some(Ok(frame)) => trailers = frame.into_trailers().unwrap(),
                        Some(Err(_)) => end = "broken",
                        None if end == "incomplete" => end = "whole",
                        None => {}
                    }
                    if end != "incomplete" || body.is_end_stream() {
                        end = if end == "broken" { end } else { "whole" };
                        break;
                    }
                }
            }
        }
        (data, trailers, end, held.to_vec())
    }

    #[test]
    fn a_body_is_read_as_it_is_framed() {
        let chunked = b"3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nx-sum:\t7 \r\n\r\nGET";
        let (data, trailers, end, rest) = read(Framing::Chunked, &[chunked]);
        assert_eq!((&data[..], end, &rest[..]), (&b"abcde"[..], "whole", &b"GET"[..]));
        assert_eq!(trailers["x-sum"], "7");
        let (data, _, end, rest) = read(Framing::Length(3), &[b"ab", b"cGET"]);
        assert_eq!((&data[..], end, &rest[..]), (&b"abc"[..], "whole", &b"GET"[..]));
        assert_eq!(read(Framing::Length(3), &[b"ab"]).2, "incomplete");
        let many = format!("0\r\n{}\r\n", "x: y\r\n".repeat(TRAILER_FIELDS_MAX + 1));
        for broken in ["3\r\nabcd\r\n", "0\r\nx\r\n\r\n", "0\r\nx(: y\r\n\r\n", &many] {
            assert_eq!(read(Framing::Chunked, &[broken.as_bytes()]).2, "broken", "{broken:?}");
        }
    }

    #[test]
    fn a_frame_is_read_only_when_it_is_wanted_and_whoever_wants_it_is_woken() {
        let (mut incoming, mut body) = Incoming::new(Framing::Length(4)).unwrap();
        let [reader, connection] = [Arc::<Count>::default(), Arc::<Count>::default()];
        let wakers = [Waker::from(Arc::clone(&reader)), Waker::from(Arc::clone(&connection))];
        let [for_reader, for_connection] = wakers.each_ref().map(Context::from_waker);
        let mut for_reader = for_reader;
        let counts = || (reader.0.load(Relaxed), connection.0.load(Relaxed));
        assert_eq!(body.size_hint().exact(), Some(4));
        incoming.slot().enter();
        assert!(!incoming.slot().leave(&for_connection), "nobody has asked");
        assert!(Pin::new(&mut body).poll_frame(&mut for_reader).is_pending());
        assert_eq!(counts(), (0, 1), "the connection is to read");
        // In one task nobody need be woken.
        incoming.slot().enter();
        assert!(Pin::new(&mut body).poll_frame(&mut for_reader).is_pending());
        assert!(incoming.slot().leave(&for_connection));
        assert_eq!(counts(), (0, 1));
        let mut held = BytesMut::from(&b"ab"[..]);
        assert!(incoming.pass(&for_connection, &mut held));
        assert_eq!(counts(), (1, 1), "there is something to take");
        assert_eq!(body.size_hint().exact(), Some(4), "it was not taken yet");
        assert!(poll(&mut body).is_ready());
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(2), false));
        assert!(Pin::new(&mut body).poll_frame(&mut for_reader).is_pending());
        drop(incoming);
        assert_eq!(counts(), (2, 1));
        assert!(matches!(poll(&mut body), Poll::Ready(Some(Err(_)))), "nothing more comes");
    }

    #[test]
    fn what_nobody_wants_is_read_over() {
        for (framing, octets) in
            [(Framing::Length(5), "abcdeGET"), (Framing::Chunked, "5\r\nabcde\r\n0\r\n\r\nGET")]
        {
            for cut in 0..octets.len() - 3 {
                let (mut incoming, _body) = Incoming::new(framing).unwrap();
                let (first, second) = octets.as_bytes().split_at(cut);
                let mut held = BytesMut::from(first);
                incoming.skip(&mut held);
                assert!(held.is_empty() && !incoming.is_over(), "{octets:?} at {cut}");
                held.extend_from_slice(second);
                incoming.skip(&mut held);
                assert!(incoming.has_ended() && held == "GET", "{octets:?} at {cut}");
            }
        }
    }

    proptest! {
        /// The network may cut a body anywhere; what whoever reads it gets must not depend on it.
        #[test]
        fn cuts_change_nothing(
            data in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..5),
            broken in proptest::option::of((0_usize..60, any::<u8>())),
            cuts in proptest::collection::vec(0_usize..200, 0..6),
        ) {
            let mut octets = Vec::new();
            for chunk in &data {
                octets.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                octets.extend_from_slice(chunk);
                octets.extend_from_slice(b"\r\n");
            }
            octets.extend_from_slice(b"0\r\nx-a: b\r\n\r\nGET / HTTP/1.1\r\n");
            if let Some((at, octet)) = broken
                && let Some(place) = octets.get_mut(at)
            {
                *place = octet;
            }
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(octets.len())).collect();
            cuts.extend([0, octets.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|two| &octets[two[0]..two[1]]).collect();
            let (whole, cut) = (read(Framing::Chunked, &[&octets]), read(Framing::Chunked, &pieces));
            prop_assert_eq!((&whole.1, whole.2), (&cut.1, cut.2));
            prop_assert_eq!(&whole.0, &cut.0);
            if whole.2 == "whole" {
                prop_assert_eq!(whole.3, cut.3);
            }
            if broken.is_none() {
                prop_assert_eq!(whole.0, data.concat());
            }
        }
    }
}
