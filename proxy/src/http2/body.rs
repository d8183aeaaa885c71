//! What the other side of a stream sends behind its head.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, header};
use http_body::{Body, Frame, SizeHint};

/// A body, as it comes. The window that it takes is given back with each piece that is passed on.
#[derive(Debug)]
pub(crate) struct Receiving {
    stream: RecvStream,
    /// What `Content-Length` says is still to come; `h2` sees to it that no more and no less comes.
    left: Option<u64>,
    data_ended: bool,
}

impl Receiving {
    /// The body behind a head with `headers`.
    pub(crate) fn new(stream: RecvStream, headers: &HeaderMap) -> Self {
        let length = headers.get(header::CONTENT_LENGTH);
        let left = match length.and_then(|length| length.to_str().ok()?.parse().ok()) {
            None if stream.is_end_stream() => Some(0),
            left => left,
        };
        Self { stream, left, data_ended: false }
    }
}

impl Body for Receiving {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let this = self.get_mut();
        if !this.data_ended {
            if let Some(data) = ready!(this.stream.poll_data(cx)) {
                let data = data?;
                // It fails where nobody waits for a window any more.
                drop(this.stream.flow_control().release_capacity(data.len()));
                let octets = u64::try_from(data.len()).unwrap_or(u64::MAX);
                this.left = this.left.map(|left| left.saturating_sub(octets));
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            this.data_ended = true;
        }
        let trailers = ready!(this.stream.poll_trailers(cx));
        Poll::Ready(trailers.map(|trailers| trailers.map(Frame::trailers)).transpose())
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
