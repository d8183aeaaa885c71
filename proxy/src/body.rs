//! The bodies that pass through: a client's on its way up, an answer's on its way down. Neither is
//! ever collected; each frame passes when it comes.

use std::{
    cell::{Cell, OnceCell},
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::{
    account::Account,
    deps::{Body, BoxError},
    headers::clean_trailers,
    http1, http2,
    http3_body::Receiving,
    interim::Interims,
    limits::CutBy,
    logs::{Capture, LogBody},
    traffic::Flow,
    tunnel::UpstreamEnd,
    upstream::UpstreamBody,
    watch::{Patience, Tick, Wait},
};

/// A client's body, as its version of HTTP brings it.
#[derive(Debug)]
pub(crate) enum ClientBody {
    Http1(http1::Receiving),
    Http2(http2::Receiving),
    Http3(Box<Receiving>),
}

impl HttpBody for ClientBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Http1(body) => Pin::new(body).poll_frame(cx),
            Self::Http2(body) => {
                Pin::new(body).poll_frame(cx).map(|frame| frame.map(|it| it.map_err(Into::into)))
            }
            Self::Http3(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
            Self::Http3(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
            Self::Http3(body) => body.size_hint(),
        }
    }
}

/// Leaves of an answer to HEAD what belongs to it. For HTTP/1 whoever writes the head does so.
pub(crate) fn keep_head_alone(response: &mut Response<EdgeBody>) {
    if response.body().is_end_stream() {
        return;
    }
    if let Some(length) = response.body().size_hint().exact() {
        let length = HeaderValue::from(length);
        response.headers_mut().entry(header::CONTENT_LENGTH).or_insert(length);
    }
    response.body_mut().kind = Kind::Empty;
}

/// How far a request's body has come.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    octets: Cell<u64>,
    last: Cell<Tick>,
    broken: Cell<bool>,
    /// The limit that the body was ended by, if it was late.
    late: Cell<Option<CutBy>>,
    /// The octets that may come.
    max: Option<u64>,
    /// Of a container that may be put to sleep.
    flow: Option<Rc<Flow>>,
    /// Of a container whose owner wants to see the body.
    capture: OnceCell<Arc<Capture>>,
}

impl Progress {
    /// Of a body of at most `max` octets that counts as `flow`.
    pub(crate) fn new(flow: Option<Rc<Flow>>, max: Option<u64>) -> Self {
        Self { max, flow, ..Self::default() }
    }

    /// Whether more octets came than may.
    pub(crate) fn is_too_large(&self) -> bool {
        self.max.is_some_and(|max| max < self.octets.get())
    }

    /// What passes is copied into this.
    pub(crate) fn is_captured(&self, capture: Arc<Capture>) {
        // A body has one.
        drop(self.capture.set(capture));
    }

    /// The octets that came.
    pub(crate) fn octets(&self) -> u64 {
        self.octets.get()
    }

    /// Whether the client broke the body off, or was late with it.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.get()
    }

    /// The limit that ended the body, if it came too slowly over HTTP/2 or 3.
    pub(crate) fn late(&self) -> Option<CutBy> {
        self.late.get()
    }

    /// When the last frame came.
    pub(crate) fn last(&self) -> Tick {
        self.last.get()
    }
}

/// A request's body on its way to a container.
#[derive(Debug)]
pub(crate) enum RequestBody {
    Empty,
    Streaming(Box<Streaming>),
}

/// A body that still comes.
#[derive(Debug)]
pub(crate) struct Streaming {
    incoming: ClientBody,
    progress: Rc<Progress>,
    wait: Wait,
    /// For HTTP/2 and 3, where no connection watches the body.
    patience: Option<Patience>,
    /// What asks the client for the body, if it may hold it back and was not asked yet.
    asks: Option<Rc<Interims>>,
}

impl RequestBody {
    /// The body that `incoming` brings; `patience` if nothing else watches it.
    pub(crate) fn streaming(
        incoming: ClientBody,
        progress: Rc<Progress>,
        wait: Wait,
        patience: Option<Patience>,
    ) -> Self {
        progress.last.set(wait.watch().now());
        Self::Streaming(Box::new(Streaming { incoming, progress, wait, patience, asks: None }))
    }

    /// The same body, for which the client is asked by `interims` when it is first read.
    pub(crate) fn asked_by(mut self, interims: Option<&Rc<Interims>>) -> Self {
        if let Self::Streaming(body) = &mut self {
            body.asks = interims.filter(|interims| interims.expects()).cloned();
        }
        self
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Self::Streaming(body) = self.get_mut() else { return Poll::Ready(None) };
        let Streaming { incoming, progress, wait, patience, asks } = &mut **body;
        if let Some(interims) = asks.take() {
            interims.ask();
        }
        match Pin::new(incoming).poll_frame(cx) {
            Poll::Ready(mut frame) => {
                if let Some(Ok(frame)) = &mut frame
                    && let Some(trailers) = frame.trailers_mut()
                {
                    clean_trailers(trailers);
                }
                if let (Some(capture), Some(Ok(frame))) = (progress.capture.get(), &frame)
                    && let Some(octets) = frame.data_ref()
                {
                    capture.request_passes(octets);
                }
                let octets = match &frame {
                    Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len),
                    Some(Err(_)) => {
                        progress.broken.set(true);
                        0
                    }
                    None => 0,
                };
                let octets = u64::try_from(octets).unwrap_or(u64::MAX);
                progress.octets.set(progress.octets.get().saturating_add(octets));
                progress.last.set(wait.watch().now());
                if progress.is_too_large() {
                    progress.broken.set(true);
                    return Poll::Ready(Some(Err("the request body is too large".into())));
                }
                if let Some(flow) = &progress.flow {
                    flow.moved(usize::try_from(octets).unwrap_or(usize::MAX));
                }
                if let Some(patience) = patience {
                    patience.earn(wait.watch(), octets);
                }
                Poll::Ready(frame)
            }
            Poll::Pending => {
                if let Some(patience) = patience {
                    if let Some(deadline) = patience.wait(wait.watch()) {
                        wait.until(deadline);
                    }
                    if wait.poll_over(cx).is_some() {
                        progress.broken.set(true);
                        progress.late.set(Some(patience.bound(CutBy::BodyPause, CutBy::BodyRate)));
                        return Poll::Ready(Some(Err("the request body is late".into())));
                    }
                }
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streaming(body) => body.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Streaming(body) => body.incoming.size_hint(),
        }
    }
}

/// A request's body on its way to the API, which runs on another runtime: it brings its own timer.
#[derive(Debug)]
pub(crate) struct TimedBody {
    incoming: ClientBody,
    idle: Duration,
    sleep: Pin<Box<Sleep>>,
    /// Whether it was late.
    late: Arc<AtomicBool>,
}

impl TimedBody {
    /// `incoming`, failing when it pauses longer than `idle`, which `late` then says. Needs a runtime
    /// with time.
    pub(crate) fn new(incoming: ClientBody, idle: Duration, late: &Arc<AtomicBool>) -> Self {
        let sleep = Box::pin(tokio::time::sleep(idle));
        Self { incoming, idle, sleep, late: Arc::clone(late) }
    }
}

impl HttpBody for TimedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        match Pin::new(&mut this.incoming).poll_frame(cx) {
            Poll::Ready(frame) => {
                this.sleep.as_mut().reset(Instant::now() + this.idle);
                Poll::Ready(frame)
            }
            Poll::Pending => match this.sleep.as_mut().poll(cx) {
                Poll::Ready(()) => {
                    this.late.store(true, Relaxed);
                    Poll::Ready(Some(Err("the request body is late".into())))
                }
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// The body of an answer. Dropping it ends the request's account: its access line is written.
#[derive(Debug)]
pub(crate) struct EdgeBody {
    kind: Kind,
    account: Option<Box<Account>>,
}

#[derive(Debug)]
enum Kind {
    Empty,
    Full(Bytes),
    /// Boxed, because it is large, and an answer moves with every phase.
    Upstream(Box<UpstreamBody>),
    Api(Body),
    /// What was logged of a container's requests.
    Log(Box<LogBody>),
    /// No octets: the connection or stream leaves HTTP.
    Tunnel(Box<UpstreamEnd>),
    /// Broken; said with the next poll, so that what came before is sent first.
    Broken(Option<BoxError>),
}

impl EdgeBody {
    /// No octets.
    pub(crate) const EMPTY: Self = Self { kind: Kind::Empty, account: None };

    /// These octets.
    pub(crate) fn full(octets: Bytes) -> Self {
        Self { kind: Kind::Full(octets), account: None }
    }

    /// What a container answers.
    pub(crate) fn upstream(body: UpstreamBody) -> Self {
        Self { kind: Kind::Upstream(Box::new(body)), account: None }
    }

    /// What the API answers.
    pub(crate) fn api(body: Body) -> Self {
        Self { kind: Kind::Api(body), account: None }
    }

    /// What is logged of a container's requests.
    pub(crate) fn log(body: LogBody) -> Self {
        Self { kind: Kind::Log(Box::new(body)), account: None }
    }

    /// Nothing: what follows is moved to and from `upstream`.
    pub(crate) fn tunnel(upstream: UpstreamEnd) -> Self {
        Self { kind: Kind::Tunnel(Box::new(upstream)), account: None }
    }

    /// Takes the container's end of a tunnel, if the answer opens one; the account ends with it.
    pub(crate) fn take_tunnel(&mut self) -> Option<UpstreamEnd> {
        let Kind::Tunnel(_) = self.kind else { return None };
        let Kind::Tunnel(mut upstream) = std::mem::replace(&mut self.kind, Kind::Empty) else {
            return None;
        };
        if let Some(account) = self.account.take() {
            upstream.on_account(account);
        }
        Some(*upstream)
    }

    /// Has the account end with the body.
    pub(crate) fn on_account(&mut self, account: Box<Account>) {
        self.account = Some(account);
    }
}

impl HttpBody for EdgeBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let polled = match &mut this.kind {
            Kind::Empty | Kind::Tunnel(_) => Poll::Ready(None),
            Kind::Full(octets) => {
                let octets = std::mem::take(octets);
                this.kind = Kind::Empty;
                Poll::Ready(Some(Ok(Frame::data(octets))))
            }
            Kind::Upstream(body) => body.poll_frame(cx),
            Kind::Api(body) => Pin::new(body).poll_frame(cx),
            Kind::Log(body) => body.poll_frame(cx),
            Kind::Broken(error) => return Poll::Ready(error.take().map(Err)),
        };
        match polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(account) = &mut this.account {
                    account.sent(frame.data_ref().map_or(&[], |octets| octets));
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                if let Some(account) = &mut this.account {
                    account.broke();
                }
                this.kind = Kind::Broken(Some(error));
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty | Kind::Tunnel(_) => true,
            Kind::Full(octets) => octets.is_empty(),
            Kind::Upstream(body) => body.is_end_stream(),
            Kind::Api(body) => body.is_end_stream(),
            Kind::Log(_) | Kind::Broken(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty | Kind::Tunnel(_) => SizeHint::with_exact(0),
            Kind::Full(octets) => {
                SizeHint::with_exact(u64::try_from(octets.len()).unwrap_or(u64::MAX))
            }
            Kind::Upstream(body) => body.size_hint(),
            Kind::Api(body) => body.size_hint(),
            Kind::Log(_) | Kind::Broken(_) => SizeHint::default(),
        }
    }
}
