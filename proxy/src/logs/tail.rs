//! Following a log: server-sent events (HTML, 9.2).
//!
//! A follower has the number of the next entry that it wants, and nothing else: no queue is kept for
//! it. It looks at the ring ten times a second while its client takes what it gets. A client that is
//! slow finds that entries have gone meanwhile, and is told how many (`gap`).

use std::{
    fmt::Write,
    pin::Pin,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::Stream;
use http_body::Frame;
use serde_json::{Value, json};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::{
    Log, Logs,
    entry::Entry,
    query::{Follow, LIMIT_MAX},
};
use crate::{
    deps::BoxError,
    watch::{NEVER, TICK, Wait},
    worker::Worker,
};

/// Something is said at least this often.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Entries that one look takes, at most.
const BATCH: usize = 64;
/// A look ends when what it found is so large, in octets.
const ENOUGH: usize = 64 * 1024;

/// One follower of one log.
#[derive(Debug)]
struct Tail {
    logs: Logs,
    log: Arc<Log>,
    follow: Follow,
    /// The next entry; nothing before the first look.
    next: Option<u64>,
    said: Instant,
    ended: bool,
}

/// What a look has found.
enum Look {
    Text(Bytes),
    Nothing,
    End,
}

impl Tail {
    /// A follower, unless the log has as many as it may.
    fn new(logs: &Logs, log: &Arc<Log>, follow: Follow) -> Option<Self> {
        let (logs, log) = (logs.clone(), Arc::clone(log));
        let max = logs.0.streams_max;
        let more = |streams| (streams < max).then_some(streams + 1);
        if log.streams.fetch_update(Relaxed, Relaxed, more).is_err() {
            logs.0.streams_refused.fetch_add(1, Relaxed);
            return None;
        }
        Some(Self { logs, log, follow, next: None, said: Instant::now(), ended: false })
    }

    fn look(&mut self) -> Look {
        if self.ended || self.logs.is_closing() {
            return Look::End;
        }
        let mut text = String::new();
        match self.next {
            None => self.begin(&mut text),
            Some(next) => self.go_on(next, &mut text),
        }
        if text.is_empty() && self.log.is_over() {
            self.ended = true;
            event(&mut text, "scope-destroyed", &json!({"reason": "the container is gone"}));
        }
        if text.is_empty() && self.said.elapsed() >= HEARTBEAT {
            text.push_str(": heartbeat\n\n");
        }
        if text.is_empty() {
            return Look::Nothing;
        }
        self.said = Instant::now();
        Look::Text(text.into())
    }

    /// Where it begins: after the entry that its reader has, or with some of the past.
    fn begin(&mut self, text: &mut String) {
        let ring = self.log.ring();
        let (born, first, next) = (ring.born(), ring.first(), ring.next());
        drop(ring);
        match self.follow.after {
            Some(after) if after < born.saturating_sub(1) || after >= next => {
                event(text, "reset", &json!({"reason": "the log has begun anew"}));
                self.replay(text);
            }
            Some(after) if after + 1 < first => {
                gap(text, after, first);
                self.next = Some(first);
            }
            Some(after) => {
                self.next = Some(after + 1);
                // The client shall see that it is connected.
                text.push_str(": resumed\n\n");
            }
            None => self.replay(text),
        }
    }

    /// The past in one frame, oldest first; it has no number.
    fn replay(&mut self, text: &mut String) {
        let filter = &self.follow.filter;
        let last = usize::try_from(self.follow.last).unwrap_or(usize::MAX);
        let ring = self.log.ring();
        let wanted = ring.from(0).filter(|(_, head, octets)| filter.takes(head, octets));
        let wanted: Vec<_> = wanted.collect();
        let past = wanted.iter().skip(wanted.len().saturating_sub(last));
        let past: Vec<Entry> = past.map(|(seq, head, octets)| octets.entry(*seq, head)).collect();
        let next = ring.next();
        drop(ring);
        self.next = Some(next);
        let past: Vec<Value> = past.iter().map(|entry| self.show(entry)).collect();
        // Writing to a string cannot fail.
        _ = write!(text, "data: {}\n\n", Value::Array(past));
    }

    fn go_on(&mut self, next: u64, text: &mut String) {
        let filter = &self.follow.filter;
        let (mut at, mut found, mut size) = (next, Vec::new(), 0);
        let ring = self.log.ring();
        if next < ring.first() {
            gap(text, next - 1, ring.first());
            at = ring.first();
        }
        let looked = usize::try_from(LIMIT_MAX).unwrap_or(usize::MAX);
        for (seq, head, octets) in ring.from(at).take(looked) {
            at = seq + 1;
            if filter.takes(head, &octets) {
                found.push(octets.entry(seq, head));
                size += 512 + usize::try_from(head.captured).unwrap_or(0);
            }
            if found.len() >= BATCH || size >= ENOUGH {
                break;
            }
        }
        drop(ring);
        self.next = Some(at);
        for entry in &found {
            _ = write!(text, "id: {}\ndata: {}\n\n", entry.seq, self.show(entry));
        }
    }

    fn show(&self, entry: &Entry) -> Value {
        entry.to_json(&self.log, &self.logs.0.naming, self.follow.filter.bodies)
    }

    /// The reader may not read on: `is_gone` says whether because the container is gone.
    fn cut(&mut self, is_gone: bool) -> Look {
        if self.ended || !is_gone {
            return Look::End;
        }
        self.ended = true;
        let mut text = String::new();
        event(&mut text, "scope-destroyed", &json!({"reason": "the container is gone"}));
        Look::Text(text.into())
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.log.streams.fetch_sub(1, Relaxed);
    }
}

fn event(text: &mut String, name: &str, data: &Value) {
    // Writing to a string cannot fail.
    _ = write!(text, "event: {name}\ndata: {data}\n\n");
}

fn gap(text: &mut String, after: u64, resumed_from: u64) {
    event(text, "gap", &json!({"after": after, "resumedFrom": resumed_from}));
}

/// A log that is followed by whoever asks this edge for it from within the process: the text of
/// server-sent events. Needs a tokio runtime with time. It ends when the container is gone or the
/// edge stops.
#[derive(Debug)]
pub struct LogTail {
    tail: Tail,
    ticks: Option<Interval>,
}

impl LogTail {
    pub(super) fn new(logs: &Logs, log: &Arc<Log>, follow: Follow) -> Option<Self> {
        Some(Self { tail: Tail::new(logs, log, follow)?, ticks: None })
    }
}

impl Stream for LogTail {
    type Item = Bytes;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let this = self.get_mut();
        loop {
            match this.tail.look() {
                Look::Text(text) => return Poll::Ready(Some(text)),
                Look::End => return Poll::Ready(None),
                Look::Nothing => {}
            }
            let ticks = this.ticks.get_or_insert_with(|| {
                let mut ticks = interval(TICK);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                ticks
            });
            if ticks.poll_tick(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

/// A log that is followed by a client of the edge.
#[derive(Debug)]
pub(crate) struct LogBody {
    tail: Tail,
    worker: Rc<Worker>,
    /// Ends when the client may not read on, or does not take what it gets.
    guard: Rc<Wait>,
    /// Ends when it is time for the next look.
    pulse: Wait,
}

impl LogBody {
    /// A body that `guard` ends.
    pub(super) fn new(
        worker: &Rc<Worker>,
        log: &Arc<Log>,
        follow: Follow,
        guard: Rc<Wait>,
    ) -> Option<Self> {
        let tail = Tail::new(&worker.deps().logs, log, follow)?;
        if let Some(stream) = worker.stream() {
            stream.sends(&guard);
        }
        let pulse = worker.watch().wait(None);
        Some(Self { tail, worker: Rc::clone(worker), guard, pulse })
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.poll(cx).map(|text| text.map(|text| Ok(Frame::data(text))))
    }

    fn poll(&mut self, cx: &Context<'_>) -> Poll<Option<Bytes>> {
        let is_cut = self.guard.poll_over(cx).is_some();
        let look = if is_cut {
            let (project, container) = (self.tail.log.project, self.tail.log.container);
            let route = self.worker.deps().routes.current().lookup(project, container);
            self.tail.cut(route.is_err())
        } else {
            // The client takes what it gets: however late it was once, that is over.
            self.guard.until(NEVER);
            self.tail.look()
        };
        match look {
            Look::Text(text) => Poll::Ready(Some(text)),
            Look::End => Poll::Ready(None),
            Look::Nothing => {
                self.pulse.until(self.worker.watch().now() + 1);
                // It is ahead of the present tick, so that this only registers.
                _ = self.pulse.poll_over(cx);
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use gantry_model::{ContainerId, ProjectId};
    use gantry_router::Servers;
    use http::Method;

    use super::*;
    use crate::{
        AccessLog, Config, Limits, LogsConfig, UpstreamSource,
        deps::RequestId,
        downstream::Protocol,
        logs::entry::{Asked, Served},
    };

    fn logs(logs: LogsConfig) -> Logs {
        Logs::new(&Config {
            listen_https: Vec::new(),
            http3: false,
            listen_http: Vec::new(),
            listen_plain: Vec::new(),
            listen_admin: Vec::new(),
            workers: 1,
            domain: "gantry.localhost".parse().unwrap(),
            servers: Servers::default(),
            url_port: 443,
            proxy_protocol_from: Vec::new(),
            upstream_source: UpstreamSource::Edge,
            container_networks: Vec::new(),
            limits: Limits::default(),
            access_log: AccessLog::Off,
            logs,
        })
    }

    fn log(logs: &Logs, number: u8) -> Arc<Log> {
        let (project, container) =
            (ProjectId::from_bytes([1; 12]), ContainerId::from_bytes([number; 12]));
        logs.of(project, container, None, 1).unwrap()
    }

    fn note(logs: &Logs, log: &Log, ts_ms: i64, target: &str) -> u64 {
        let asked = Asked {
            id: RequestId([1; 16]),
            served: Served::Container,
            protocol: Protocol::Http1,
            client: [192, 0, 2, 1].into(),
            method: &Method::GET,
            host: b"",
            target: target.as_bytes(),
        };
        logs.note(log, ts_ms, &asked, None)
    }

    fn text(tail: &mut Tail) -> String {
        match tail.look() {
            Look::Text(text) => String::from_utf8(text.to_vec()).unwrap(),
            Look::Nothing => String::new(),
            Look::End => "end".to_owned(),
        }
    }

    #[test]
    fn a_slow_reader_is_told_what_it_has_missed_and_costs_nothing() {
        let logs = logs(LogsConfig { entries_per_container: 10, ..LogsConfig::default() });
        let log = log(&logs, 1);
        let follow = Follow::parse("last=0", None).unwrap();
        let mut tail = Tail::new(&logs, &log, follow).unwrap();
        assert_eq!(text(&mut tail), "data: []\n\n");
        let first = note(&logs, &log, 1, "/0");
        assert!(text(&mut tail).contains("/0"));
        for number in 1..=25 {
            note(&logs, &log, 1, &format!("/{number}"));
        }
        let missed = text(&mut tail);
        let want = format!("{{\"after\":{first},\"resumedFrom\":{}}}", first + 16);
        assert!(missed.starts_with(&format!("event: gap\ndata: {want}\n\n")), "{missed}");
        assert_eq!(missed.matches("\nid: ").count(), 10, "{missed}");
        assert_eq!(text(&mut tail), "");
        logs.close();
        assert_eq!(text(&mut tail), "end");
    }

    #[test]
    fn one_look_takes_a_bounded_part() {
        let logs = logs(LogsConfig::default());
        let log = log(&logs, 1);
        let follow = Follow::parse("last=0", None).unwrap();
        let mut tail = Tail::new(&logs, &log, follow).unwrap();
        text(&mut tail);
        for number in 0..200 {
            note(&logs, &log, 1, &format!("/{number}/{}", "x".repeat(2_000)));
        }
        let looks: Vec<_> =
            std::iter::from_fn(|| Some(text(&mut tail)).filter(|text| !text.is_empty())).collect();
        assert!(looks.iter().all(|look| look.len() < 256 * 1024));
        assert_eq!(looks.concat().matches("id: ").count(), 200, "and none is lost");
    }

    #[test]
    fn all_logs_together_have_a_bound_and_the_oldest_makes_room() {
        let (each, all) = (1 << 20, 4 << 20);
        let logs =
            logs(LogsConfig { bytes_per_container: each, bytes: all, ..LogsConfig::default() });
        let target = "/".repeat(2_000);
        for container in 0..40 {
            let log = log(&logs, container);
            for _ in 0..500 {
                note(&logs, &log, i64::from(container), &target);
            }
            let sum: usize = logs.0.logs.pin().iter().map(|(_, log)| log.ring().held()).sum();
            assert_eq!(logs.0.held.load(Relaxed), sum, "what is taken is known");
            assert!(sum <= all, "{sum}");
        }
        assert!(log(&logs, 0).ring().from(0).next().is_none(), "the oldest are empty");
        assert!(log(&logs, 39).ring().from(0).next().is_some());
        assert!(logs.0.evictions.load(Relaxed) > 0);
    }
}
