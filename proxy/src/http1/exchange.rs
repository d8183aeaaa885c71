//! One request and its answer, on one connection.

use std::{
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Body as _;

use crate::{
    body::{ClientBody, EdgeBody},
    framing::{Framing, Refusal},
    http1::{
        body::Incoming,
        head::{Head, Says},
        line::{Gone, Line},
        write::{Coding, Facts, Out},
    },
    interim::Interim,
    limits::CutBy,
    listen::Purpose,
    pipeline,
    tunnel::UpstreamEnd,
    watch::{NEVER, Patience, Tick, Wait},
};

/// The octets of an answer that may wait for the client; while there are more, its body is not asked.
const WAITING_MAX: usize = 64 * 1024;
/// The octets of a body that nobody wants which are read over, so that the connection can go on.
const SKIP_MAX: usize = 64 * 1024;
/// How often it is looked whether a client that sends nothing more has left altogether.
const LOOK: Duration = Duration::from_secs(1);
/// How long such a client is left alone before it is sent something, to which a machine whose program has
/// left reacts by a reset.
const SILENCE: Duration = Duration::from_secs(2);

/// What becomes of the connection.
#[derive(Debug)]
pub(crate) enum After {
    /// The next request may come.
    Next,
    /// It ends in order; it lingers if the client may still be sending.
    Close { lingers: bool },
    /// The client has left.
    Gone,
    /// The answer broke off, and must not look whole.
    Broken {
        /// Whether it would, because it has no framing.
        looks_whole: bool,
    },
    /// It leaves HTTP.
    Tunnel(Box<UpstreamEnd>),
}

/// An answer on its way to the client.
struct Sending {
    /// Its account ends with it: once nothing more comes of it, and before the client has all of the
    /// answer, so that a client which goes on at once finds the place of this request free.
    body: EdgeBody,
    coding: Coding,
    /// Nothing more is to be asked of the body.
    done: bool,
    /// It ended too soon.
    broke: bool,
}

struct Exchange<'l> {
    line: &'l mut Line,
    says: Says,
    incoming: Option<Incoming>,
    patience: Patience,
    out: Out,
    /// For the body that is waited for.
    read_deadline: Tick,
    /// How long the client may keep its answer waiting.
    takes: Patience,
    /// For what the client does not take.
    send_deadline: Tick,
    /// The octets that had gone out when that was set.
    sent: u64,
    /// When a client that sends nothing more is sent something to prove that it is there.
    probe: Option<Tick>,
    /// Ends with the container whose answer the client does not take: its body is not asked then, so
    /// that it cannot see it.
    cut: Option<Wait>,
}

/// Answers one request, or the refusal of one.
pub(crate) async fn exchange(
    line: &mut Line,
    purpose: Purpose,
    asked: Result<Box<Head>, Refusal>,
) -> After {
    line.downstream.start();
    let (head, refusal) = match asked {
        Ok(head) => (*head, None),
        Err(refusal) => (Head::refused(), Some(refusal)),
    };
    let Head { mut request, framing, says } = head;
    let mut incoming = None;
    if let Some((body, receiving)) = Incoming::new(framing) {
        incoming = Some(body);
        *request.body_mut() = Some(ClientBody::Http1(receiving));
    }
    line.interims.begin(says.expects);
    let limits = line.worker.limits();
    let mut patience = Patience::new(limits.body_idle, limits.body_rate_min);
    if incoming.is_some() {
        patience.earn(line.worker.watch(), u64::try_from(line.held.len()).unwrap_or(0));
    }
    let takes = Patience::new(limits.send_idle, limits.send_rate_min);
    let mut exchange = Exchange {
        line,
        says,
        incoming,
        patience,
        out: Out::default(),
        read_deadline: NEVER,
        takes,
        send_deadline: NEVER,
        sent: 0,
        probe: None,
        cut: None,
    };
    let answered = {
        let mut answer = pin!(answer(exchange.line, purpose, refusal, says, request));
        poll_fn(|cx| exchange.poll_answer(cx, answer.as_mut())).await
    };
    let Ok(response) = answered else { return After::Gone };
    let ends = refusal.is_some() || framing == Framing::Upgrade;
    exchange.respond(refusal.is_some(), ends, response).await
}

/// The answer, as the pipeline makes it. It does not borrow the line.
fn answer(
    line: &Line,
    purpose: Purpose,
    refusal: Option<Refusal>,
    says: Says,
    request: Request<Option<ClientBody>>,
) -> impl Future<Output = Response<EdgeBody>> + use<> {
    let (worker, downstream) = (Rc::clone(&line.worker), Rc::clone(&line.downstream));
    let interims = says.is_11.then(|| Rc::clone(&line.interims));
    async move {
        match purpose {
            Purpose::Https | Purpose::Plain => {
                pipeline::answer(worker, downstream, refusal, request, interims).await
            }
            Purpose::Redirect => pipeline::redirect(&worker, &downstream, refusal, &request),
        }
    }
}

impl Exchange<'_> {
    /// Waits for the answer, and looks after the client meanwhile.
    fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        mut answer: Pin<&mut impl Future<Output = Response<EdgeBody>>>,
    ) -> Poll<Result<Response<EdgeBody>, Gone>> {
        loop {
            self.enter();
            let polled = answer.as_mut().poll(cx);
            let wanted = self.leave(cx);
            self.interims(cx);
            if let Poll::Ready(response) = polled {
                return Poll::Ready(Ok(response));
            }
            if !self.attend(cx, wanted)? {
                break;
            }
        }
        if self.is_to_prove() && self.says.is_11 {
            // Every client skips it, wanted or not (RFC 9110, 15.2).
            self.out.interim(&Interim { status: StatusCode::CONTINUE, headers: HeaderMap::new() });
        }
        if !self.out.is_done() {
            match self.out.poll_send(cx, &mut self.line.io) {
                Poll::Ready(Ok(())) => self.send_deadline = NEVER,
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Gone)),
                Poll::Pending => self.stalled(cx)?,
            }
        }
        self.late(cx)?;
        Poll::Pending
    }

    fn enter(&self) {
        if let Some(incoming) = &self.incoming {
            incoming.slot().enter();
        }
    }

    /// Whether the request's body is wanted.
    fn leave(&self, cx: &Context<'_>) -> bool {
        self.incoming.as_ref().is_some_and(|incoming| incoming.slot().leave(cx))
    }

    /// Has interim answers sent.
    fn interims(&mut self, cx: &Context<'_>) {
        loop {
            let next = if self.line.listens {
                self.line.interims.try_next()
            } else {
                match self.line.interims.poll_next(cx) {
                    Poll::Ready(interim) => Some(interim),
                    Poll::Pending => {
                        self.line.listens = true;
                        None
                    }
                }
            };
            let Some(interim) = next else { return };
            self.line.listens = false;
            self.out.interim(&interim);
        }
    }

    /// Looks after what comes from the client. Says whether its body has come a step further, so that
    /// whoever answers should look at it.
    fn attend(&mut self, cx: &mut Context<'_>, wanted: bool) -> Result<bool, Gone> {
        if self.incoming.as_ref().is_some_and(|incoming| !incoming.is_over()) {
            return if wanted { self.feed(cx) } else { Ok(false) };
        }
        self.line.watch_client(cx)?;
        Ok(false)
    }

    /// Reads on in a body that is wanted.
    fn feed(&mut self, cx: &mut Context<'_>) -> Result<bool, Gone> {
        if self.line.held.is_empty() && self.line.interims.expects() {
            self.line.interims.ask();
            self.interims(cx);
        }
        let Some(incoming) = &mut self.incoming else { return Ok(false) };
        loop {
            if incoming.pass(cx, &mut self.line.held) {
                self.read_deadline = NEVER;
                return Ok(true);
            }
            if self.line.ended {
                self.read_deadline = NEVER;
                incoming.fail(cx, io::ErrorKind::UnexpectedEof);
                return Ok(true);
            }
            let read = self.line.poll_body(cx, incoming.left());
            let watch = self.line.worker.watch();
            match read {
                Poll::Ready(Ok(0)) => self.line.ends(),
                Poll::Ready(Ok(count)) => {
                    self.patience.earn(watch, u64::try_from(count).unwrap_or(u64::MAX));
                }
                Poll::Ready(Err(_)) => return Err(Gone),
                Poll::Pending => {
                    if let Some(deadline) = self.patience.wait(watch) {
                        self.read_deadline = deadline;
                    }
                    if self.read_deadline > watch.now() {
                        return Ok(false);
                    }
                    self.read_deadline = NEVER;
                    let cut = self.patience.bound(CutBy::BodyPause, CutBy::BodyRate);
                    self.line.worker.metrics().cut(cut);
                    incoming.fail(cx, io::ErrorKind::TimedOut);
                    return Ok(true);
                }
            }
        }
    }

    /// The client did not take everything.
    fn stalled(&mut self, cx: &Context<'_>) -> Result<(), Gone> {
        let (worker, sent) = (&self.line.worker, self.line.io.sent());
        if self.send_deadline == NEVER || sent != self.sent {
            self.takes.earn(worker.watch(), sent.wrapping_sub(self.sent));
            self.sent = sent;
        }
        if let Some(deadline) = self.takes.wait(worker.watch()) {
            self.send_deadline = deadline;
        }
        if self.cut.is_none()
            && let Some((origin, pass)) = self.line.downstream.sending()
        {
            let cut = worker.watch().wait(Some(origin));
            if let Some(pass) = pass {
                worker.rests(&cut, pass);
            }
            self.cut = Some(cut);
        }
        match &self.cut {
            Some(cut) if cut.poll_over(cx).is_some() => Err(Gone),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether it is time to send something to a client that sends nothing more: it may have ended its
    /// side only, and then wants its answer; or it has left, and then its request ends.
    fn is_to_prove(&mut self) -> bool {
        if !self.line.ended {
            return false;
        }
        let watch = self.line.worker.watch();
        match &mut self.probe {
            None => {
                self.probe = Some(watch.after(SILENCE));
                false
            }
            Some(at) if *at <= watch.now() => {
                // Once is enough until something else was sent.
                *at = NEVER;
                true
            }
            Some(_) => false,
        }
    }

    /// Nothing can be done at the moment: has the task woken at the nearest deadline.
    fn late(&mut self, cx: &Context<'_>) -> Result<(), Gone> {
        let mut deadline = self.read_deadline.min(self.send_deadline);
        let watch = self.line.worker.watch();
        if self.line.ended {
            deadline = deadline.min(watch.after(LOOK));
        }
        if deadline == NEVER {
            return Ok(());
        }
        self.line.wait.until(deadline);
        if self.line.wait.poll_over(cx).is_none() {
            return Ok(());
        }
        if self.send_deadline <= watch.now() {
            let cut = self.takes.bound(CutBy::SendPause, CutBy::SendRate);
            self.line.worker.metrics().cut(cut);
            return Err(Gone);
        }
        // It was another deadline, whose time has come: the task is not woken by it any more.
        self.line.wait.until(watch.after(LOOK));
        _ = self.line.wait.poll_over(cx);
        Ok(())
    }
}

impl Exchange<'_> {
    /// Sends the answer. `ends` if the client's octets behind the request are not requests of their
    /// own for sure.
    async fn respond(
        &mut self,
        refused: bool,
        ends: bool,
        mut response: Response<EdgeBody>,
    ) -> After {
        let tunnel = response.body_mut().take_tunnel();
        let (parts, body) = response.into_parts();
        let worker = &self.line.worker;
        let broken = self.incoming.as_ref().is_some_and(|it| it.is_over() && !it.has_ended());
        let keeps = !refused
            && !broken
            // The body may come or not: what follows cannot be told from it.
            && !self.line.interims.expects()
            && !worker.is_draining()
            && self.line.downstream.started() < worker.limits().requests_max;
        // Nothing comes between the head and the body.
        self.line.interims.begin(false);
        self.probe = None;
        let date = worker.http_date();
        let (says, length) = (self.says, body.size_hint().exact());
        let (coding, keeps) = self.out.head(&parts, Facts { says, length, keeps, date: &date });
        drop(parts);
        let mut sending = Sending { body, coding, done: coding == Coding::Nothing, broke: false };
        let sent = poll_fn(|cx| self.poll_send(cx, &mut sending)).await;
        let Sending { coding, broke, .. } = sending;
        let looks_whole = coding == Coding::UntilClose;
        match sent {
            Err(Gone) if !looks_whole => return After::Gone,
            Ok(()) if !broke => {}
            Err(Gone) | Ok(()) => return After::Broken { looks_whole },
        }
        if let Some(upstream) = tunnel {
            return After::Tunnel(Box::new(upstream));
        }
        let settled = poll_fn(|cx| Poll::Ready(self.settle(cx))).await;
        if keeps && settled {
            return After::Next;
        }
        After::Close { lingers: ends || !settled || !self.line.held.is_empty() }
    }

    /// Sends the head and the body behind it.
    fn poll_send(&mut self, cx: &mut Context<'_>, sending: &mut Sending) -> Poll<Result<(), Gone>> {
        loop {
            let hungry = self.fill(cx, sending)?;
            if hungry && self.is_to_prove() {
                self.out.prove(sending.coding);
            }
            match self.out.poll_send(cx, &mut self.line.io) {
                Poll::Ready(Ok(())) => {
                    self.send_deadline = NEVER;
                    if sending.done {
                        return Poll::Ready(Ok(()));
                    }
                    if !hungry {
                        continue;
                    }
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Gone)),
                Poll::Pending => {
                    self.stalled(cx)?;
                    // Somebody else's task may read the request's body meanwhile.
                    if !hungry && self.incoming.is_some() {
                        let wanted = self.leave(cx);
                        self.attend(cx, wanted)?;
                    }
                }
            }
            self.late(cx)?;
            return Poll::Pending;
        }
    }

    /// Takes of the body what there is, as long as not too much waits. Says whether the body is waited for.
    fn fill(&mut self, cx: &mut Context<'_>, sending: &mut Sending) -> Result<bool, Gone> {
        while !sending.done && self.out.waiting() < WAITING_MAX {
            self.enter();
            let polled = Pin::new(&mut sending.body).poll_frame(cx);
            let wanted = self.leave(cx);
            match polled {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        self.probe = None;
                        self.out.body(&mut sending.coding, data);
                        sending.done = sending.coding == Coding::Length(0);
                    }
                    Err(frame) => self.end(sending, frame.into_trailers().ok().as_ref()),
                },
                Poll::Ready(None) => self.end(sending, None),
                Poll::Ready(Some(Err(_))) => (sending.done, sending.broke) = (true, true),
                Poll::Pending => {
                    if !self.attend(cx, wanted)? {
                        return Ok(true);
                    }
                }
            }
        }
        if sending.done {
            sending.body = EdgeBody::EMPTY;
        }
        Ok(false)
    }

    fn end(&mut self, sending: &mut Sending, trailers: Option<&HeaderMap>) {
        sending.done = true;
        sending.broke = self.out.end(sending.coding, trailers).is_err();
    }

    /// Reads over the rest of the request's body, as far as it is there and not much. Says whether that was
    /// all.
    fn settle(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(incoming) = &mut self.incoming else { return true };
        let mut most = SKIP_MAX;
        loop {
            incoming.skip(&mut self.line.held);
            if incoming.is_over() {
                return incoming.has_ended();
            }
            if most == 0 {
                return false;
            }
            match self.line.poll_body(cx, incoming.left()) {
                Poll::Ready(Ok(count @ 1..)) => most = most.saturating_sub(count),
                Poll::Ready(Ok(0) | Err(_)) | Poll::Pending => return false,
            }
        }
    }
}
