//! The body of a request that comes by HTTP/3.

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h3::server::RequestStream;
use http::{HeaderMap, header};
use http_body::{Body, Frame, SizeHint};

use crate::{
    ahead::Uploading,
    config::Limits,
    deps::BoxError,
    quic::{Ahead, Allowance, RecvStream},
    watch::Wait,
};

/// A body, as it comes.
pub(crate) struct Receiving {
    stream: RequestStream<RecvStream, Bytes>,
    allowance: Allowance,
    /// What `Content-Length` says is still to come.
    left: Option<u64>,
    /// Looked at, but not passed on yet.
    held: Option<Result<Frame<Bytes>, BoxError>>,
    /// Kept until there is nothing more to come.
    uploading: Option<Uploading>,
    data_ended: bool,
    ended: bool,
}

impl Receiving {
    /// The body behind a head with `headers`; nothing if they contradict HTTP/3 or one another.
    pub(crate) fn new(
        stream: RequestStream<RecvStream, Bytes>,
        allowance: Allowance,
        headers: &HeaderMap,
    ) -> Option<Self> {
        // Fields of another version's connection make a request malformed (RFC 9114, 4.2).
        let foreign = [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE];
        if foreign.iter().any(|name| headers.contains_key(name)) {
            return None;
        }
        let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
        let left = match (lengths.next(), lengths.next()) {
            (None, _) => None,
            (Some(length), None) => {
                let digits = length.to_str().ok()?;
                let decimal = !digits.is_empty() && digits.bytes().all(|o| o.is_ascii_digit());
                Some(digits.parse().ok().filter(|_| decimal)?)
            }
            (Some(_), Some(_)) => return None,
        };
        let (held, uploading, data_ended, ended) = (None, None, false, false);
        Some(Self { stream, allowance, left, held, uploading, data_ended, ended })
    }

    /// Looks whether there is a body at all. One that `Content-Length` announces is taken for granted;
    /// otherwise the first octets or the end are waited for, but only if they must be on their way
    /// (`quick`). Says whether they came in time.
    pub(crate) async fn look(&mut self, quick: bool, wait: &Wait, limits: &Limits) -> bool {
        if self.left.is_some_and(|left| left > 0) {
            return true;
        }
        wait.within(limits.head_timeout);
        poll_fn(|cx| match self.poll_next(cx) {
            Poll::Ready(frame) => {
                self.held = frame;
                Poll::Ready(true)
            }
            Poll::Pending if !quick => Poll::Ready(true),
            Poll::Pending => wait.poll_over(cx).map_or(Poll::Pending, |_| Poll::Ready(false)),
        })
        .await
    }

    /// Has room for what is still to come, if anything is.
    pub(crate) fn begins(&mut self, ahead: &Ahead) {
        if !self.data_ended && self.left != Some(0) {
            self.uploading = Some(ahead.begin(self.left));
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        while !self.data_ended {
            match ready!(self.stream.poll_recv_data(cx)) {
                Ok(Some(mut data)) => {
                    let data = data.copy_to_bytes(data.remaining());
                    self.allowance.delivered(data.len());
                    let Some(left) = &mut self.left else {
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    };
                    let octets = u64::try_from(data.len()).unwrap_or(u64::MAX);
                    let Some(less) = left.checked_sub(octets) else {
                        return self.fail("the request body is longer than announced");
                    };
                    *left = less;
                    if less == 0 {
                        self.uploading = None;
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Ok(None) => (self.data_ended, self.uploading) = (true, None),
                Err(error) => return self.fail(error),
            }
        }
        if self.ended {
            return Poll::Ready(None);
        }
        if self.left.is_some_and(|left| left > 0) {
            return self.fail("the request body is shorter than announced");
        }
        match ready!(self.stream.poll_recv_trailers(cx)) {
            Ok(trailers) => {
                self.ended = true;
                Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
            }
            Err(error) => self.fail(error),
        }
    }

    fn fail(&mut self, error: impl Into<BoxError>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        (self.data_ended, self.ended, self.uploading) = (true, true, None);
        Poll::Ready(Some(Err(error.into())))
    }
}

impl Body for Receiving {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        match this.held.take() {
            Some(held) => Poll::Ready(Some(held)),
            None => this.poll_next(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended && self.held.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match self.left {
            Some(left) => SizeHint::with_exact(left),
            None if self.is_end_stream() => SizeHint::with_exact(0),
            None => SizeHint::default(),
        }
    }
}

impl fmt::Debug for Receiving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiving").field("left", &self.left).finish_non_exhaustive()
    }
}
