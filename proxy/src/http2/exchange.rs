//! One request, and the way of its answer to the client.

use std::{
    error::Error,
    future::{Future, poll_fn},
    rc::Rc,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::{HeaderValue, Method, Request, Response, header, response::Parts};
use http_body::Body as _;

use super::{End, Pipe, Receiving, tunnel::Tunnel};
use crate::{
    ahead::Uploading,
    body::{ClientBody, EdgeBody, keep_head_alone},
    deps::BoxError,
    downstream::Downstream,
    headers::expects_continue,
    interim::{Interim, Interims},
    pipeline, tunnel,
    worker::Worker,
};

/// The octets of interim answers that are sent on one stream: `h2` takes them whether the client reads
/// or not.
const INTERIM_OCTETS: usize = 32 * 1024;

/// Answers one request, whose body is under way as `uploading`, if it has any. The client's reset ends
/// everything that is done for it.
pub(super) async fn exchange(
    worker: Rc<Worker>,
    downstream: Rc<Downstream>,
    request: Request<RecvStream>,
    reply: SendResponse<Bytes>,
    uploading: Option<Uploading>,
) {
    let mut sending = Sending::new(reply);
    let is_head = *request.method() == Method::HEAD;
    let interims = Rc::<Interims>::default();
    interims.begin(expects_continue(request.headers()));
    let (head, stream) = request.into_parts();
    // What follows the head of a CONNECT is no body (RFC 9113, 8.5).
    let (body, leaving) = if head.method == Method::CONNECT {
        (None, Some((stream, uploading)))
    } else {
        let body = Receiving::request(stream, &head.headers, uploading);
        (Some(ClientBody::Http2(body)), None)
    };
    let request = Request::from_parts(head, body);
    let answered = {
        let for_client = Some(Rc::clone(&interims));
        let worker = Rc::clone(&worker);
        // Boxed: a task moves when it begins and when it ends, and an answer may be long on its way.
        let mut answer = Box::pin(pipeline::answer(worker, downstream, None, request, for_client));
        poll_fn(|cx| match answer.as_mut().poll(cx) {
            Poll::Ready(response) => Poll::Ready(sending.pass(cx, &interims).map(|()| response)),
            Poll::Pending => sending.poll_pass(cx, &interims).map(Err),
        })
        .await
    };
    let Ok(mut response) = answered else { return };
    if is_head {
        keep_head_alone(&mut response);
    }
    let tunnel = response.body_mut().take_tunnel().zip(leaving);
    let (mut head, body) = response.into_parts();
    if let header::Entry::Vacant(date) = head.headers.entry(header::DATE)
        && let Ok(now) = HeaderValue::from_bytes(&worker.http_date())
    {
        date.insert(now);
    }
    if let Some((upstream, (stream, _uploading))) = tunnel {
        drop(body);
        if let Ok(send) = sending.head(head, false) {
            sending.ended = true;
            let client = Tunnel::new(send, stream);
            Box::pin(tunnel::run(&worker, client, BytesMut::new(), upstream)).await;
        }
    } else {
        // If it fails, the stream is reset.
        _ = sending.response(&worker, head, body).await;
    }
}

/// The client has left.
#[derive(Debug)]
struct Gone;

/// The way of an answer to the client. Dropped before its end, it resets the stream: what was sent so
/// far must not look complete.
struct Sending {
    reply: SendResponse<Bytes>,
    /// The octets of interim answers that may still be sent.
    interim_octets: usize,
    reason: Reason,
    ended: bool,
}

impl Drop for Sending {
    fn drop(&mut self) {
        if !self.ended {
            // Nothing is sent on a stream that the client has reset.
            self.reply.send_reset(self.reason);
        }
    }
}

impl Sending {
    fn new(reply: SendResponse<Bytes>) -> Self {
        let reason = Reason::INTERNAL_ERROR;
        Self { reply, interim_octets: INTERIM_OCTETS, reason, ended: false }
    }

    /// Sends interim answers as they come, until the client leaves.
    fn poll_pass(&mut self, cx: &mut Context<'_>, interims: &Interims) -> Poll<Gone> {
        if self.reply.poll_reset(cx).is_ready() {
            return Poll::Ready(Gone);
        }
        while let Poll::Ready(interim) = interims.poll_next(cx) {
            if self.interim(interim).is_err() {
                return Poll::Ready(Gone);
            }
        }
        Poll::Pending
    }

    /// Sends the interim answers that are there.
    fn pass(&mut self, cx: &mut Context<'_>, interims: &Interims) -> Result<(), Gone> {
        while let Some(interim) = interims.try_next() {
            // `h2` would send it on a stream that the client has reset.
            if self.reply.poll_reset(cx).is_ready() {
                return Err(Gone);
            }
            self.interim(interim)?;
        }
        Ok(())
    }

    fn interim(&mut self, interim: Interim) -> Result<(), Gone> {
        let Some(left) = self.interim_octets.checked_sub(interim.octets()) else { return Ok(()) };
        self.interim_octets = left;
        let mut head = Response::new(());
        *head.status_mut() = interim.status;
        *head.headers_mut() = interim.headers;
        self.reply.send_informational(head).or(Err(Gone))
    }

    /// Sends the head of an answer; ends the stream with it, if nothing follows.
    fn head(&mut self, head: Parts, ends: bool) -> Result<SendStream<Bytes>, Gone> {
        let send = self.reply.send_response(Response::from_parts(head, ()), ends).or(Err(Gone))?;
        self.ended = ends;
        Ok(send)
    }

    /// Sends an answer to its end.
    async fn response(
        &mut self,
        worker: &Worker,
        mut head: Parts,
        body: EdgeBody,
    ) -> Result<(), Gone> {
        if body.is_end_stream() {
            return self.head(head, true).map(drop);
        }
        if let Some(length) = body.size_hint().exact() {
            let length = HeaderValue::from(length);
            head.headers.entry(header::CONTENT_LENGTH).or_insert(length);
        }
        let mut pipe = Pipe::new(self.head(head, false)?, body);
        let stream = worker.stream();
        let sent = poll_fn(|cx| {
            let polled = pipe.poll(cx);
            if let Some(stream) = &stream {
                stream.waits_for_client(pipe.is_stuck());
                stream.took(pipe.taken());
            }
            polled
        });
        match sent.await {
            End::Whole => self.ended = true,
            End::Gone => return Err(Gone),
            End::Broken(error) => self.reason = reason(&error),
        }
        Ok(())
    }
}

/// How a stream whose answer broke is reset: as the container has reset its own, if it has.
fn reason(error: &BoxError) -> Reason {
    let mut cause: Option<&(dyn Error + 'static)> = Some(&**error);
    while let Some(error) = cause {
        match error.downcast_ref::<h2::Error>().and_then(h2::Error::reason) {
            None => cause = error.source(),
            // What is not whole must not end without an error.
            Some(Reason::NO_ERROR) => break,
            Some(reason) => return reason,
        }
    }
    Reason::INTERNAL_ERROR
}
