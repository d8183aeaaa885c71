//! What is known of one request when it ends: its access line and its numbers.

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use gantry_model::Target;
use gantry_router::Route;
use http::{HeaderMap, HeaderValue, Method, Request, uri::PathAndQuery};

use crate::{
    answer::Code,
    body::Progress,
    deps::RequestId,
    downstream::{Downstream, Protocol},
    guard::reads_param,
    limits::{Counted, InFlight, Refused},
    logs::{Asked, Capture, Capturing, Ended, Log, Served, Source, TARGET_MAX},
    metrics::{Metrics, RouteKind},
    traffic::Flow,
    worker::Worker,
};

/// The status of a request whose client left before there was an answer.
const CLIENT_GONE: u16 = 499;

/// One request's account, from its head to the last octet of its answer. Dropping it closes it: the
/// access line is written and the numbers are counted, however the request ended.
#[derive(Debug)]
pub(crate) struct Account {
    worker: Rc<Worker>,
    downstream: Rc<Downstream>,
    started: Instant,
    id: RequestId,
    method: Method,
    path: Option<PathAndQuery>,
    host: Option<HeaderValue>,
    kind: RouteKind,
    status: u16,
    error: Option<Code>,
    sent: u64,
    /// Octets of the client that have no [`Progress`]: those of a tunnel.
    received: u64,
    progress: Option<Rc<Progress>>,
    cut_short: bool,
    /// Of a container that may be put to sleep.
    flow: Option<Rc<Flow>>,
    counted: Option<Counted>,
    in_flight: Option<InFlight>,
    /// Of a container whose requests are logged.
    recording: Option<Recording>,
    /// Whether the request has been taken off its connection's count.
    finished: bool,
}

/// What it takes to log a request's end as its beginning was.
#[derive(Debug)]
struct Recording {
    log: Arc<Log>,
    served: Served,
    /// Whether the host as typed says more than the service.
    names_host: bool,
    /// Path and query, if they had credentials.
    target_shown: Option<Box<str>>,
    /// The entry of the beginning.
    seq: u64,
    capturing: Option<Capturing>,
}

impl Account {
    /// Opens the account of `request`.
    pub(crate) fn open<B>(
        worker: &Rc<Worker>,
        downstream: &Rc<Downstream>,
        request: &Request<B>,
    ) -> Self {
        Self {
            worker: Rc::clone(worker),
            downstream: Rc::clone(downstream),
            started: Instant::now(),
            id: worker.next_id(),
            method: request.method().clone(),
            path: request.uri().path_and_query().cloned(),
            host: None,
            kind: RouteKind::None,
            status: CLIENT_GONE,
            error: None,
            sent: 0,
            received: 0,
            progress: None,
            cut_short: false,
            flow: None,
            counted: None,
            in_flight: None,
            recording: None,
            finished: false,
        }
    }

    pub(crate) fn id(&self) -> RequestId {
        self.id
    }

    /// The request was refused before its method and path were known.
    pub(crate) fn was_not_parsed(&mut self) {
        self.path = None;
    }

    /// The host as typed. It must have been parsed: a hostname needs no escapes.
    pub(crate) fn host_is(&mut self, host: HeaderValue) {
        self.host = Some(host);
    }

    /// What the request moves is traffic of its container.
    pub(crate) fn counts_for(&mut self, flow: Flow) {
        self.flow = Some(Rc::new(flow));
    }

    /// The traffic that the request counts for, if its container may be put to sleep.
    pub(crate) fn flow(&self) -> Option<&Rc<Flow>> {
        self.flow.as_ref()
    }

    pub(crate) fn kind_is(&mut self, kind: RouteKind) {
        self.kind = kind;
    }

    pub(crate) fn body_is(&mut self, progress: Rc<Progress>) {
        if let Some(capture) = self.capture() {
            progress.is_captured(Arc::clone(capture));
        }
        self.progress = Some(progress);
    }

    /// The request is one of those that its worker has under way.
    pub(crate) fn counts_as(&mut self, counted: Counted) {
        self.counted = Some(counted);
    }

    /// The request is one of those that its container has under way.
    pub(crate) fn occupies(&mut self, in_flight: InFlight) {
        self.in_flight = Some(in_flight);
    }

    pub(crate) fn answered(&mut self, status: u16, headers: &HeaderMap) {
        self.status = status;
        if let Some(capture) = self.capture() {
            capture.answered(headers);
        }
    }

    /// The request is logged for the owner of `route`'s container; `is_chosen` says whether it came by
    /// a name other than the service's own.
    pub(crate) fn is_logged(&mut self, route: &Route, target: &Target<'_>, is_chosen: bool) {
        let logs = &self.worker.deps().logs;
        let started_ms = self.worker.at_ms(self.started);
        let (project, container) = (route.project, route.container);
        let find = || logs.of(project, container, Some(route), started_ms);
        let Some(log) = self.downstream.log(container, find) else { return };
        let gate = || self.worker.deps().routes.current().gate(container).filter(|_| route.gated);
        let target_shown = match &self.path {
            Some(path) if path.query().is_some() || path.path().contains(';') => {
                let gate = gate();
                let is_ours = |name: &[u8]| gate.as_ref().is_some_and(|it| reads_param(it, name));
                logs.redaction().target(path, TARGET_MAX, is_ours)
            }
            Some(_) | None => None,
        };
        let sub = matches!(target, Target::Kit { sub: Some(_), .. });
        let names_host = is_chosen || sub;
        let served = Served::from(target);
        let mut recording =
            Recording { log, served, names_host, target_shown, seq: 0, capturing: None };
        recording.seq = logs.note(&recording.log, started_ms, &self.asked(&recording), None);
        self.recording = Some(recording);
    }

    /// The owner of the container wants to see fields and bodies of this request, if it is logged.
    pub(crate) fn is_captured(&mut self, headers: &HeaderMap) {
        if let Some(recording) = &mut self.recording {
            let logs = &self.worker.deps().logs;
            let capturing = logs.capture(&recording.log, recording.seq, headers);
            if capturing.capture.is_crowded() {
                self.worker.metrics().refused(Refused::LogBodies);
            }
            recording.capturing = Some(capturing);
        }
    }

    fn capture(&self) -> Option<&Arc<Capture>> {
        Some(&self.recording.as_ref()?.capturing.as_ref()?.capture)
    }

    fn asked<'s>(&'s self, recording: &'s Recording) -> Asked<'s> {
        let host = self.host.as_ref().filter(|_| recording.names_host);
        let path = || self.path.as_ref().map_or("/", PathAndQuery::as_str);
        Asked {
            id: self.id,
            served: recording.served,
            protocol: self.downstream.protocol,
            client: self.downstream.peer.ip().to_canonical(),
            method: &self.method,
            host: host.map_or(&[], HeaderValue::as_bytes),
            target: recording.target_shown.as_deref().unwrap_or_else(path).as_bytes(),
        }
    }

    /// Logs the end of the request.
    fn record(&self, recording: &Recording, took: Duration, took_us: u64) {
        let reached = matches!(self.kind, RouteKind::Kit | RouteKind::Port);
        let source = if reached && self.error.is_none() { Source::Backend } else { Source::Edge };
        let ended = Ended {
            status: self.status,
            source,
            error: self.error,
            cut_short: self.cut_short,
            received: self.octets_received(),
            sent: self.sent,
            took_us,
        };
        let logs = &self.worker.deps().logs;
        let ended_ms = self.worker.at_ms(self.started + took);
        let seq = logs.note(&recording.log, ended_ms, &self.asked(recording), Some(&ended));
        if let Some(capturing) = &recording.capturing {
            logs.captured(capturing, seq);
        }
    }

    pub(crate) fn failed(&mut self, code: Code, status: u16) {
        self.error = Some(code);
        self.status = status;
        self.worker.metrics().error(code);
    }

    pub(crate) fn sent(&mut self, octets: &[u8]) {
        if let Some(flow) = &self.flow {
            flow.moved(octets.len());
        }
        if let Some(capture) = self.capture() {
            capture.response_passes(octets);
        }
        self.sent = self.sent.saturating_add(u64::try_from(octets.len()).unwrap_or(u64::MAX));
    }

    /// The answer broke off.
    pub(crate) fn broke(&mut self) {
        self.cut_short = true;
    }

    /// Octets went through a tunnel.
    pub(crate) fn tunnelled(&mut self, received: u64, sent: u64) {
        self.received = self.received.saturating_add(received);
        self.sent = self.sent.saturating_add(sent);
    }

    /// The request is answered as far as its connection is concerned.
    pub(crate) fn finish(&mut self) {
        if !std::mem::replace(&mut self.finished, true) {
            self.downstream.finish();
        }
    }

    fn write(&self, line: &mut Vec<u8>, took_us: u64) {
        let mut number = itoa::Buffer::new();
        line.extend_from_slice(b"{\"time\":\"");
        self.worker.write_time(line);
        line.extend_from_slice(b"\",\"id\":\"");
        let mut id = [0; 32];
        // The buffer has twice the id's length.
        _ = hex::encode_to_slice(self.id.0, &mut id);
        line.extend_from_slice(&id);
        line.extend_from_slice(b"\",\"client\":\"");
        line.extend_from_slice(self.downstream.address.as_bytes());
        line.extend_from_slice(b"\",\"method\":\"");
        escape(line, self.method.as_str().as_bytes());
        line.extend_from_slice(b"\",\"host\":\"");
        line.extend_from_slice(self.host.as_ref().map_or(b"", HeaderValue::as_bytes));
        line.extend_from_slice(b"\",\"path\":\"");
        escape(line, self.path.as_ref().map_or("", PathAndQuery::path).as_bytes());
        line.extend_from_slice(match self.downstream.protocol {
            Protocol::Http1 => b"\",\"protocol\":\"http1\",\"route\":\"",
            Protocol::Http2 => b"\",\"protocol\":\"http2\",\"route\":\"",
            Protocol::Http3 => b"\",\"protocol\":\"http3\",\"route\":\"",
        });
        line.extend_from_slice(match self.kind {
            RouteKind::None => b"none\",\"status\":",
            RouteKind::Api => b"api\",\"status\":",
            RouteKind::Kit => b"kit\",\"status\":",
            RouteKind::Port => b"port\",\"status\":",
        });
        line.extend_from_slice(number.format(self.status).as_bytes());
        if let Some(error) = self.error {
            line.extend_from_slice(b",\"error\":\"");
            line.extend_from_slice(error.as_str().as_bytes());
            line.push(b'"');
        }
        if self.cut_short {
            line.extend_from_slice(b",\"cutShort\":true");
        }
        line.extend_from_slice(b",\"received\":");
        line.extend_from_slice(number.format(self.octets_received()).as_bytes());
        line.extend_from_slice(b",\"sent\":");
        line.extend_from_slice(number.format(self.sent).as_bytes());
        line.extend_from_slice(b",\"durationUs\":");
        line.extend_from_slice(number.format(took_us).as_bytes());
        line.extend_from_slice(b"}\n");
    }

    /// Counts what a limit on sizes or on slowness did to the request.
    #[cold]
    fn count_limits(&self, metrics: &Metrics) {
        let progress = self.progress.as_ref();
        if self.error == Some(Code::HeadTooLarge) {
            metrics.refused(Refused::HeadSize);
        }
        if self.error == Some(Code::BodyTooLarge) || progress.is_some_and(|it| it.is_too_large()) {
            metrics.refused(Refused::BodyBytes);
        }
        if let Some(cut) = progress.and_then(|progress| progress.late()) {
            metrics.cut(cut);
        }
    }

    fn octets_received(&self) -> u64 {
        self.received + self.progress.as_ref().map_or(0, |progress| progress.octets())
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.finish();
        let took = self.started.elapsed();
        let metrics = self.worker.metrics();
        metrics.request(self.downstream.protocol, self.kind, self.status, took);
        metrics.octets_received.add(self.octets_received());
        metrics.octets_sent.add(self.sent);
        if self.error.is_some() || self.progress.is_some() {
            self.count_limits(metrics);
        }
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.worker.log(|line| self.write(line, took_us));
        if let Some(recording) = self.recording.take() {
            self.record(&recording, took, took_us);
        }
    }
}

/// The octets that need no escape: one look per octet, since all of them are looked at.
#[expect(clippy::indexing_slicing, reason = "evaluated at compile time, for octets only")]
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut octet = b' ';
    while octet <= b'~' {
        plain[octet as usize] = !matches!(octet, b'"' | b'\\');
        octet += 1;
    }
    plain
};

const DIGITS: [u8; 16] = *b"0123456789abcdef";

/// Writes octets of a client as the inside of a JSON string.
fn escape(line: &mut Vec<u8>, octets: &[u8]) {
    let plain = |octet: &u8| PLAIN.get(usize::from(*octet)).copied().unwrap_or(false);
    if octets.iter().all(plain) {
        line.extend_from_slice(octets);
        return;
    }
    for octet in octets {
        if plain(octet) {
            line.push(*octet);
        } else {
            line.extend_from_slice(b"\\u00");
            let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'0');
            line.extend_from_slice(&[digit(octet >> 4), digit(octet & 15)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_cannot_break_out_of_its_line() {
        let mut line = Vec::new();
        escape(&mut line, b"/a\"b\\c\n\xff");
        assert_eq!(line, br"/a\u0022b\u005cc\u000a\u00ff");
        let parsed: String =
            serde_json::from_str(&format!("\"{}\"", String::from_utf8(line).unwrap())).unwrap();
        assert_eq!(parsed, "/a\"b\\c\n\u{ff}");
    }
}
