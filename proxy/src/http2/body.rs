//! What the other side of a stream sends behind its head.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http::{HeaderMap, header};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::oneshot;

use crate::ahead::Uploading;

/// A body, as it comes. The window that it takes is given back with each piece that is passed on.
#[derive(Debug)]
pub(crate) struct Receiving {
    stream: RecvStream,
    /// What `Content-Length` says is still to come; `h2` sees to it that no more and no less comes.
    left: Option<u64>,
    data_ended: bool,
    /// Of an answer: hears when nobody takes any more of it.
    taken: Option<Taken>,
    /// Of a request: kept until there is nothing more to come.
    uploading: Option<Uploading>,
}

/// What `Content-Length` says, if it says anything.
pub(super) fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Told when an answer was taken to its end; dropped untold when it was not.
type Taken = oneshot::Sender<()>;

impl Receiving {
    /// The body of a request whose head has `headers`, under way as `uploading` if there is any.
    pub(crate) fn request(
        stream: RecvStream,
        headers: &HeaderMap,
        uploading: Option<Uploading>,
    ) -> Self {
        Self::new(stream, headers, None, uploading)
    }

    /// The body of an answer whose head has `headers`.
    pub(crate) fn answer(stream: RecvStream, headers: &HeaderMap, taken: Taken) -> Self {
        Self::new(stream, headers, Some(taken), None)
    }

    fn new(
        stream: RecvStream,
        headers: &HeaderMap,
        taken: Option<Taken>,
        uploading: Option<Uploading>,
    ) -> Self {
        let left = match length(headers) {
            None if stream.is_end_stream() => Some(0),
            left => left,
        };
        Self { stream, left, data_ended: false, taken, uploading }
    }

    /// Whether all data was read.
    fn has_all(&self) -> bool {
        self.left.map_or_else(|| self.stream.is_end_stream(), |left| left == 0)
    }

    /// Whether what has come was all, although the stream was reset. Who has answered before it has
    /// read the request may do that without an error (RFC 9113, 8.1); of an answer without a length only
    /// its end tells that it is whole, and that is no error here.
    fn is_whole(&self, error: &h2::Error) -> bool {
        let is_answer = self.taken.is_some();
        is_answer && self.left == Some(0) && error.reason() == Some(Reason::NO_ERROR)
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        if let Some(taken) = self.taken.take()
            && self.stream.is_end_stream()
        {
            // Nobody may be listening.
            _ = taken.send(());
        }
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
            match ready!(this.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // It fails where nobody waits for a window any more.
                    drop(this.stream.flow_control().release_capacity(data.len()));
                    let octets = u64::try_from(data.len()).unwrap_or(u64::MAX);
                    this.left = this.left.map(|left| left.saturating_sub(octets));
                    if this.uploading.is_some() && this.has_all() {
                        this.uploading = None;
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) if this.is_whole(&error) => return Poll::Ready(None),
                Some(Err(error)) => {
                    this.uploading = None;
                    return Poll::Ready(Some(Err(error)));
                }
                None => (this.data_ended, this.uploading) = (true, None),
            }
        }
        match ready!(this.stream.poll_trailers(cx)) {
            Ok(trailers) => Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers)))),
            Err(error) if this.is_whole(&error) => Poll::Ready(None),
            Err(error) => Poll::Ready(Some(Err(error))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
