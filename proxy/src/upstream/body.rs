//! The body of a container's response, which brings its connection back to the pool.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

use super::{Broken, Incoming, Lease};
use crate::{
    deps::BoxError,
    downstream::Downstream,
    headers::clean_trailers,
    pool::PoolKey,
    watch::{Over, Wait},
    worker::Worker,
};

/// Gives a connection back whose exchange is complete, if it can be used again: to the pool, or to the
/// client for whom it was made.
pub(crate) fn give_back(
    worker: &Worker,
    lease: Lease,
    (key, home): (PoolKey, Option<Rc<Downstream>>),
) {
    let now = worker.watch().now();
    match lease {
        Lease::Http2(lane) => lane.rest(now),
        Lease::Http1(mut channel) => {
            if channel.rest() {
                match home {
                    None => worker.pool().put(key, channel, now),
                    Some(client) => client.keep_own(key, channel),
                }
            }
        }
    }
}

/// The body of a container's response.
#[derive(Debug)]
pub(crate) struct UpstreamBody {
    incoming: Incoming,
    lease: Option<Lease>,
    key: PoolKey,
    /// The client for whom the connection was made, if it is for nobody else.
    home: Option<Rc<Downstream>>,
    wait: Rc<Wait>,
    worker: Rc<Worker>,
}

impl UpstreamBody {
    pub(crate) fn new(
        worker: Rc<Worker>,
        incoming: Incoming,
        lease: Lease,
        (key, home): (PoolKey, Option<Rc<Downstream>>),
        wait: Wait,
    ) -> Self {
        wait.within(worker.limits().stream_idle);
        let wait = Rc::new(wait);
        if let Some(stream) = worker.stream() {
            stream.sends(&wait);
        }
        Self { incoming, lease: Some(lease), key, home, wait, worker }
    }

    /// The body is complete: the connection goes back to the pool, if it can be used again.
    pub(crate) fn release(&mut self) {
        let Some(lease) = self.lease.take() else { return };
        give_back(&self.worker, lease, (self.key, self.home.take()));
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        match (&self.lease, &self.incoming) {
            (_, Incoming::Http2(incoming)) => incoming.is_end_stream(),
            (Some(Lease::Http1(channel)), Incoming::Http1) => channel.is_ended(),
            (Some(Lease::Http2(_)) | None, Incoming::Http1) => true,
        }
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match (&self.lease, &self.incoming) {
            (_, Incoming::Http2(incoming)) => incoming.size_hint(),
            (Some(Lease::Http1(channel)), Incoming::Http1) => channel.size_hint(),
            (Some(Lease::Http2(_)) | None, Incoming::Http1) => SizeHint::with_exact(0),
        }
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = match (&mut self.lease, &mut self.incoming) {
            (_, Incoming::Http2(incoming)) => Pin::new(incoming)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(Broken::Http2))),
            (Some(Lease::Http1(channel)), Incoming::Http1) => channel.poll_frame(cx),
            (Some(Lease::Http2(_)) | None, Incoming::Http1) => Poll::Ready(None),
        };
        if polled.is_pending() {
            return match self.wait.poll_over(cx) {
                None => Poll::Pending,
                Some(Over::Deadline) => {
                    Poll::Ready(Some(Err("the response was silent for too long".into())))
                }
                Some(Over::Cut) => Poll::Ready(Some(Err("the container does not run".into()))),
            };
        }
        let mut frame = ready!(polled);
        if let Some(Ok(frame)) = &mut frame
            && let Some(trailers) = frame.trailers_mut()
        {
            clean_trailers(trailers);
        }
        match &frame {
            // Nobody asks again after trailers.
            Some(Ok(frame)) if !frame.is_trailers() && !self.is_end_stream() => {
                self.wait.within(self.worker.limits().stream_idle);
            }
            Some(Ok(_)) | None => self.release(),
            Some(Err(_)) => self.lease = None,
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }
}
