//! What the edge counts. Each worker counts for itself, without sharing a cache line; a scrape adds
//! the workers up. Labels come from closed sets: never a hostname, never a container.

use std::{
    fmt::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::{
    answer::Code,
    downstream::Protocol,
    flood::Flood,
    limits::{CutBy, Refused},
};

/// What a request was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RouteKind {
    /// Nothing that exists.
    None,
    Api,
    Kit,
    Port,
}

const KINDS: [&str; 4] = ["none", "api", "kit", "port"];
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
const BOUNDS_US: [u64; 9] =
    [500, 1_000, 5_000, 25_000, 100_000, 500_000, 2_500_000, 10_000_000, 60_000_000];
const BOUNDS: [&str; 9] = ["0.0005", "0.001", "0.005", "0.025", "0.1", "0.5", "2.5", "10", "60"];

/// A number that one thread changes and others read.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds to the number; only the owning thread may.
    pub(crate) fn add(&self, amount: u64) {
        // One writer: no read-modify-write instruction is needed, and none is paid for.
        self.0.store(self.0.load(Relaxed).wrapping_add(amount), Relaxed);
    }

    /// Takes from a number that goes up and down.
    pub(crate) fn sub(&self, amount: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(amount), Relaxed);
    }

    /// Sets a number that is measured.
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The durations of one kind of request.
#[derive(Debug, Default)]
struct Histogram {
    buckets: [Counter; BOUNDS_US.len() + 1],
    sum_us: Counter,
}

/// One number for each code. Long arrays have no default of their own.
#[derive(Debug)]
struct ByCode([Counter; Code::ALL.len()]);

impl Default for ByCode {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

/// One worker's numbers.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    requests: [[Counter; CLASSES.len()]; 3],
    durations: [Histogram; KINDS.len()],
    errors: ByCode,
    refusals: [Counter; Refused::ALL.len()],
    floods: [Counter; Flood::ALL.len()],
    cuts: [Counter; CutBy::ALL.len()],
    pub(crate) connections_accepted: Counter,
    pub(crate) connections_open: Counter,
    pub(crate) accept_errors: Counter,
    pub(crate) requests_active: Counter,
    pub(crate) handshakes_active: Counter,
    pub(crate) tls_handshakes: Counter,
    pub(crate) tls_failures: Counter,
    pub(crate) upstream_connects: Counter,
    pub(crate) upstream_connect_failures: Counter,
    pub(crate) upstream_reuses: Counter,
    pub(crate) upstream_retries: Counter,
    pub(crate) pool_idle: Counter,
    pub(crate) tunnels_open: Counter,
    pub(crate) wakes: Counter,
    pub(crate) http3_sockets: Counter,
    pub(crate) octets_received: Counter,
    pub(crate) octets_sent: Counter,
    pub(crate) log_lines_dropped: Counter,
}

impl Metrics {
    /// Counts a request that has ended.
    pub(crate) fn request(&self, protocol: Protocol, kind: RouteKind, status: u16, took: Duration) {
        let protocol = match protocol {
            Protocol::Http1 => &self.requests[0],
            Protocol::Http2 => &self.requests[1],
            Protocol::Http3 => &self.requests[2],
        };
        let class = usize::from(status / 100).saturating_sub(1);
        if let Some(counter) = protocol.get(class) {
            counter.add(1);
        }
        let histogram = match kind {
            RouteKind::None => &self.durations[0],
            RouteKind::Api => &self.durations[1],
            RouteKind::Kit => &self.durations[2],
            RouteKind::Port => &self.durations[3],
        };
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let at = BOUNDS_US.iter().position(|bound| us <= *bound).unwrap_or(BOUNDS_US.len());
        if let Some(bucket) = histogram.buckets.get(at) {
            bucket.add(1);
        }
        histogram.sum_us.add(us);
    }

    /// Counts an error answer.
    pub(crate) fn error(&self, code: Code) {
        if let Some(counter) = self.errors.0.get(code.index()) {
            counter.add(1);
        }
    }

    /// Counts something that was refused by a limit.
    pub(crate) fn refused(&self, refused: Refused) {
        if let Some(counter) = self.refusals.get(refused.index()) {
            counter.add(1);
        }
    }

    /// Counts something under way that a limit ended.
    pub(crate) fn cut(&self, cut: CutBy) {
        if let Some(counter) = self.cuts.get(cut.index()) {
            counter.add(1);
        }
    }

    /// Counts a connection that ended because its client flooded it.
    pub(crate) fn flood(&self, flood: Flood) {
        if let Some(counter) = self.floods.get(flood.index()) {
            counter.add(1);
        }
    }
}

/// Writes the sums of all workers in the Prometheus text format.
pub(crate) fn render(workers: &[Arc<Metrics>], out: &mut String) {
    let sum = |read: &dyn Fn(&Metrics) -> &Counter| -> u64 {
        workers.iter().map(|metrics| read(metrics).read()).sum()
    };
    header(out, "gantry_proxy_requests_total", "counter", "Requests answered.");
    for (p, protocol) in ["http1", "http2", "http3"].iter().enumerate() {
        for (c, class) in CLASSES.iter().enumerate() {
            let value = sum(&|m| at2(&m.requests, p, c));
            line(
                out,
                format_args!(
                    "gantry_proxy_requests_total{{protocol=\"{protocol}\",class=\"{class}\"}}"
                ),
                value,
            );
        }
    }
    header(out, "gantry_proxy_errors_total", "counter", "Error answers of the edge by code.");
    for code in Code::ALL {
        let value = sum(&|m| m.errors.0.get(code.index()).unwrap_or(&m.accept_errors));
        let name = code.as_str();
        line(out, format_args!("gantry_proxy_errors_total{{code=\"{name}\"}}"), value);
    }
    header(out, "gantry_proxy_refused_total", "counter", "What limits refused, by limit.");
    for refused in Refused::ALL {
        let value = sum(&|m| m.refusals.get(refused.index()).unwrap_or(&m.accept_errors));
        let name = refused.as_str();
        line(out, format_args!("gantry_proxy_refused_total{{limit=\"{name}\"}}"), value);
    }
    header(out, "gantry_proxy_cut_total", "counter", "What limits ended under way, by limit.");
    for cut in CutBy::ALL {
        let value = sum(&|m| m.cuts.get(cut.index()).unwrap_or(&m.accept_errors));
        let name = cut.as_str();
        line(out, format_args!("gantry_proxy_cut_total{{limit=\"{name}\"}}"), value);
    }
    header(out, "gantry_proxy_floods_total", "counter", "Connections that were flooded, by frame.");
    for flood in Flood::ALL {
        let value = sum(&|m| m.floods.get(flood.index()).unwrap_or(&m.accept_errors));
        let name = flood.as_str();
        line(out, format_args!("gantry_proxy_floods_total{{kind=\"{name}\"}}"), value);
    }
    render_durations(workers, out);
    for (name, kind, help, read) in SINGLES {
        header(out, name, kind, help);
        line(out, format_args!("{name}"), sum(&|m| read(m)));
    }
}

fn at2<const N: usize, const M: usize>(all: &[[Counter; M]; N], p: usize, c: usize) -> &Counter {
    all.get(p).and_then(|row| row.get(c)).unwrap_or(&all[0][0])
}

fn render_durations(workers: &[Arc<Metrics>], out: &mut String) {
    const NAME: &str = "gantry_proxy_request_duration_seconds";
    header(out, NAME, "histogram", "From the first octet read to the last one answered.");
    for (k, kind) in KINDS.iter().enumerate() {
        let all = || workers.iter().filter_map(|metrics| metrics.durations.get(k));
        let mut total = 0;
        for (b, bound) in BOUNDS.iter().chain(["+Inf"].iter()).enumerate() {
            total += all().filter_map(|h| h.buckets.get(b)).map(Counter::read).sum::<u64>();
            line(out, format_args!("{NAME}_bucket{{route=\"{kind}\",le=\"{bound}\"}}"), total);
        }
        let sum_us: u64 = all().map(|histogram| histogram.sum_us.read()).sum();
        let seconds = Duration::from_micros(sum_us).as_secs_f64();
        // Writing to a string cannot fail.
        _ = writeln!(out, "{NAME}_sum{{route=\"{kind}\"}} {seconds}");
        line(out, format_args!("{NAME}_count{{route=\"{kind}\"}}"), total);
    }
}

type Single = (&'static str, &'static str, &'static str, fn(&Metrics) -> &Counter);

const SINGLES: &[Single] = &[
    ("gantry_proxy_connections_accepted_total", "counter", "Connections accepted.", |m| {
        &m.connections_accepted
    }),
    ("gantry_proxy_connections_open", "gauge", "Connections open.", |m| &m.connections_open),
    ("gantry_proxy_accept_errors_total", "counter", "Failed accepts.", |m| &m.accept_errors),
    ("gantry_proxy_requests_active", "gauge", "Requests under way, tunnels included.", |m| {
        &m.requests_active
    }),
    ("gantry_proxy_tls_handshakes_active", "gauge", "TLS handshakes under way.", |m| {
        &m.handshakes_active
    }),
    ("gantry_proxy_tls_handshakes_total", "counter", "TLS handshakes completed.", |m| {
        &m.tls_handshakes
    }),
    ("gantry_proxy_tls_failures_total", "counter", "TLS handshakes failed or late.", |m| {
        &m.tls_failures
    }),
    ("gantry_proxy_upstream_connects_total", "counter", "Connections made to containers.", |m| {
        &m.upstream_connects
    }),
    (
        "gantry_proxy_upstream_connect_failures_total",
        "counter",
        "Connections to containers that failed.",
        |m| &m.upstream_connect_failures,
    ),
    ("gantry_proxy_upstream_reuses_total", "counter", "Requests on a kept connection.", |m| {
        &m.upstream_reuses
    }),
    ("gantry_proxy_upstream_retries_total", "counter", "Requests sent a second time.", |m| {
        &m.upstream_retries
    }),
    ("gantry_proxy_upstream_idle", "gauge", "Connections to containers that are kept.", |m| {
        &m.pool_idle
    }),
    ("gantry_proxy_tunnels_open", "gauge", "Upgraded connections open.", |m| &m.tunnels_open),
    ("gantry_proxy_wakes_total", "counter", "Containers that requests had woken.", |m| &m.wakes),
    ("gantry_proxy_http3_sockets", "gauge", "Workers that accept HTTP/3.", |m| &m.http3_sockets),
    ("gantry_proxy_received_bytes_total", "counter", "Octets of request bodies.", |m| {
        &m.octets_received
    }),
    ("gantry_proxy_sent_bytes_total", "counter", "Octets of response bodies.", |m| &m.octets_sent),
    ("gantry_proxy_access_lines_dropped_total", "counter", "Access lines lost.", |m| {
        &m.log_lines_dropped
    }),
];

fn header(out: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a string cannot fail.
    _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
}

fn line(out: &mut String, name: std::fmt::Arguments<'_>, value: u64) {
    _ = writeln!(out, "{name} {value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_adds_the_workers_up() {
        let workers = [Arc::new(Metrics::default()), Arc::new(Metrics::default())];
        for worker in &workers {
            worker.request(Protocol::Http1, RouteKind::Port, 200, Duration::from_micros(700));
            worker.error(Code::NotFound);
            worker.connections_open.add(3);
            worker.connections_open.sub(1);
        }
        let mut text = String::new();
        render(&workers, &mut text);
        for want in [
            "gantry_proxy_requests_total{protocol=\"http1\",class=\"2xx\"} 2\n",
            "gantry_proxy_errors_total{code=\"NOT_FOUND\"} 2\n",
            "gantry_proxy_request_duration_seconds_bucket{route=\"port\",le=\"0.0005\"} 0\n",
            "gantry_proxy_request_duration_seconds_bucket{route=\"port\",le=\"0.001\"} 2\n",
            "gantry_proxy_request_duration_seconds_bucket{route=\"port\",le=\"+Inf\"} 2\n",
            "gantry_proxy_request_duration_seconds_sum{route=\"port\"} 0.0014\n",
            "gantry_proxy_connections_open 4\n",
        ] {
            assert!(text.contains(want), "{want} in\n{text}");
        }
    }
}
