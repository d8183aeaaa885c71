//! One entry: how it is kept, and how it is shown.

use std::{fmt, net::IpAddr, sync::Arc};

use gantry_model::{Scheme, Service, Target};
use http::Method;
use serde_json::{Map, Value, json};

use super::{Log, Naming, capture::Capture};
use crate::{answer::Code, date::iso_ms, deps::RequestId, downstream::Protocol};

/// The longest target that is kept, in octets; a longer one is cut.
pub(crate) const TARGET_MAX: usize = 2048;
/// The longest method that is kept.
const METHOD_MAX: usize = 32;

/// What an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A request has begun.
    Request,
    /// A request has ended.
    Response,
    /// Something happened to the container.
    Event,
}

/// How much an entry matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

/// Whose doing an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The container's.
    Backend,
    /// The edge's own.
    Edge,
}

/// What happened to a container, as the edge sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Starting,
    Started,
    Paused,
    Resumed,
    Stopped,
    Failed,
    /// A request has asked it to wake.
    Waking,
}

/// The service that a request was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Served {
    Kit(Service, u16),
    Port(Scheme, u16),
    /// None: the entry is about the container.
    Container,
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::Request, Self::Response, Self::Event];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Response => "response",
            Self::Event => "event",
        }
    }
}

impl Level {
    pub(super) const ALL: [Self; 4] = [Self::Debug, Self::Info, Self::Warn, Self::Error];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }

    const fn of_status(status: u16) -> Self {
        match status {
            0..400 => Self::Info,
            400..500 => Self::Warn,
            500.. => Self::Error,
        }
    }
}

impl Source {
    pub(super) const ALL: [Self; 2] = [Self::Backend, Self::Edge];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Backend => "backend",
            Self::Edge => "edge",
        }
    }
}

impl Event {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Started => "started",
            Self::Paused => "paused",
            Self::Resumed => "resumed",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Waking => "waking",
        }
    }
}

impl From<&Target<'_>> for Served {
    fn from(target: &Target<'_>) -> Self {
        match *target {
            Target::Kit { service, index, .. } => Self::Kit(service, index),
            Target::Port { scheme, port } => Self::Port(scheme, port),
            Target::Ssh => Self::Container,
        }
    }
}

impl Served {
    /// Whether `name` means it: its label in hostnames, or that without the number.
    pub(super) fn is_named(self, name: &str) -> bool {
        let slug = match self {
            Self::Kit(service, _) => service.slug(),
            Self::Port(scheme, _) => scheme.as_str(),
            Self::Container => return false,
        };
        name == slug || self.to_string() == name
    }
}

impl fmt::Display for Served {
    /// The label that it has in hostnames.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kit(service, index) => write!(f, "{}-{index}", service.slug()),
            Self::Port(scheme, port) => write!(f, "{}-{port}", scheme.as_str()),
            Self::Container => Ok(()),
        }
    }
}

/// What is known of a request when it begins, and again when it ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) id: RequestId,
    pub(crate) served: Served,
    pub(crate) protocol: Protocol,
    pub(crate) client: IpAddr,
    pub(crate) method: &'a Method,
    /// The host as typed; empty if it is the service's own.
    pub(crate) host: &'a [u8],
    /// Path and query, without credentials.
    pub(crate) target: &'a [u8],
}

/// How a request ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    pub(crate) status: u16,
    pub(crate) source: Source,
    pub(crate) error: Option<Code>,
    pub(crate) cut_short: bool,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) took_us: u64,
}

/// The part of an entry that has always the same size. Its text lies in the ring's octets.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) ts_ms: i64,
    id: [u8; 16],
    client: Option<IpAddr>,
    pub(super) served: Served,
    protocol: Protocol,
    pub(super) kind: Kind,
    pub(super) level: Level,
    pub(super) source: Source,
    event: Option<Event>,
    /// Nothing for a method that is spelt out in the octets.
    method: Option<KnownMethod>,
    status: u16,
    error: Option<Code>,
    cut_short: bool,
    pub(super) target_cut: bool,
    method_len: u8,
    host_len: u16,
    target_len: u16,
    received: u64,
    sent: u64,
    took_us: u64,
    /// Fields and bodies, where the owner wants them kept.
    pub(super) capture: Option<Arc<Capture>>,
    /// What the entry counts for its captured octets.
    pub(super) captured: u32,
}

/// A method that needs no text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KnownMethod {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
}

impl KnownMethod {
    fn of(method: &Method) -> Option<Self> {
        Some(match *method {
            Method::GET => Self::Get,
            Method::HEAD => Self::Head,
            Method::POST => Self::Post,
            Method::PUT => Self::Put,
            Method::PATCH => Self::Patch,
            Method::DELETE => Self::Delete,
            Method::OPTIONS => Self::Options,
            _ => return None,
        })
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
        }
    }
}

/// What goes into the octets, in this order.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Text<'a> {
    pub(super) method: &'a [u8],
    pub(super) host: &'a [u8],
    pub(super) target: &'a [u8],
}

impl Text<'_> {
    pub(super) fn len(&self) -> usize {
        self.method.len() + self.host.len() + self.target.len()
    }
}

impl<'a> Asked<'a> {
    /// The entry of a request that begins, or of one that ended.
    pub(super) fn entry(&self, ts_ms: i64, ended: Option<&Ended>) -> (Head, Text<'a>) {
        let method = KnownMethod::of(self.method);
        let spelt = if method.is_some() { &[][..] } else { self.method.as_str().as_bytes() };
        let cut = self.target.len() > TARGET_MAX;
        let text = Text {
            method: spelt.get(..METHOD_MAX).unwrap_or(spelt),
            host: if self.host.len() > 255 { &[] } else { self.host },
            target: self.target.get(..TARGET_MAX).unwrap_or(self.target),
        };
        let (kind, level, source) = match ended {
            None => (Kind::Request, Level::Info, Source::Edge),
            Some(ended) => (Kind::Response, Level::of_status(ended.status), ended.source),
        };
        let head = Head {
            ts_ms,
            id: self.id.0,
            client: Some(self.client),
            served: self.served,
            protocol: self.protocol,
            kind,
            level,
            source,
            event: None,
            method,
            status: ended.map_or(0, |ended| ended.status),
            error: ended.and_then(|ended| ended.error),
            cut_short: ended.is_some_and(|ended| ended.cut_short),
            target_cut: cut,
            method_len: u8::try_from(text.method.len()).unwrap_or(0),
            host_len: u16::try_from(text.host.len()).unwrap_or(0),
            target_len: u16::try_from(text.target.len()).unwrap_or(0),
            received: ended.map_or(0, |ended| ended.received),
            sent: ended.map_or(0, |ended| ended.sent),
            took_us: ended.map_or(0, |ended| ended.took_us),
            capture: None,
            captured: 0,
        };
        (head, text)
    }
}

impl Head {
    /// The entry of something that happened to a container.
    pub(super) fn event(ts_ms: i64, event: Event) -> Self {
        let level = match event {
            Event::Failed => Level::Error,
            Event::Starting
            | Event::Started
            | Event::Paused
            | Event::Resumed
            | Event::Stopped
            | Event::Waking => Level::Info,
        };
        Self {
            ts_ms,
            id: [0; 16],
            client: None,
            served: Served::Container,
            protocol: Protocol::Http1,
            kind: Kind::Event,
            level,
            source: Source::Edge,
            event: Some(event),
            method: None,
            status: 0,
            error: None,
            cut_short: false,
            target_cut: false,
            method_len: 0,
            host_len: 0,
            target_len: 0,
            received: 0,
            sent: 0,
            took_us: 0,
            capture: None,
            captured: 0,
        }
    }

    /// The octets that its text takes.
    pub(super) fn text_len(&self) -> usize {
        usize::from(self.method_len) + usize::from(self.host_len) + usize::from(self.target_len)
    }

    /// Whether its method is this one. `spelt` are the octets of its text.
    pub(super) fn has_method(&self, method: &str, spelt: impl Iterator<Item = u8>) -> bool {
        match self.method {
            Some(known) => known.as_str() == method,
            None => spelt.take(self.method_len.into()).eq(method.bytes()) && self.method_len > 0,
        }
    }
}

/// Which of the captured bodies are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bodies {
    pub(crate) request: bool,
    pub(crate) response: bool,
    /// Nothing that was captured is shown, no fields either.
    pub(crate) hidden: bool,
}

impl Bodies {
    pub(super) const fn any(self) -> bool {
        self.request || self.response
    }
}

/// An entry that was copied out of its ring.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) seq: u64,
    pub(super) head: Head,
    pub(super) text: Vec<u8>,
}

impl Entry {
    /// Its JSON form.
    pub(super) fn to_json(&self, log: &Log, naming: &Naming, bodies: Bodies) -> Value {
        let head = &self.head;
        let is_request = head.kind != Kind::Event;
        let (method, rest) = self.text.split_at_checked(head.method_len.into()).unwrap_or_default();
        let (host, target) = rest.split_at_checked(head.host_len.into()).unwrap_or_default();
        let method = match head.method {
            Some(known) => known.as_str().into(),
            None => String::from_utf8_lossy(method),
        };
        let url = || {
            let own = || naming.authority(log, head.served);
            let host = String::from_utf8_lossy(host);
            let host = if host.is_empty() { own() } else { host.into_owned() };
            format!("https://{host}{}", String::from_utf8_lossy(target))
        };
        let id = hex::encode(head.id);
        let mut entry = json!({
            "id": self.seq,
            "traceId": is_request.then_some(id),
            "tsMs": head.ts_ms,
            "tsIso": iso_ms(head.ts_ms),
            "kind": head.kind.as_str(),
            "level": head.level.as_str(),
            "projectId": log.project.to_string(),
            "containerId": log.container.to_string(),
            "serviceName": is_request.then(|| head.served.to_string()),
            "method": is_request.then_some(method),
            "url": is_request.then(url),
            "clientIp": head.client.map(|client| client.to_string()),
            "status": (head.kind == Kind::Response).then_some(head.status),
            "source": head.source.as_str(),
            "data": self.data(),
        });
        let capture = head.capture.as_ref().filter(|_| !bodies.hidden);
        if let (Some(capture), Some(fields)) = (capture, entry.as_object_mut()) {
            let response = head.kind == Kind::Response;
            capture.show(response, if response { bodies.response } else { bodies.request }, fields);
        }
        entry
    }

    /// What the common fields have no place for.
    fn data(&self) -> Value {
        let head = &self.head;
        let mut data = Map::new();
        if let Some(event) = head.event {
            data.insert("event".to_owned(), event.as_str().into());
            return data.into();
        }
        let protocol = match head.protocol {
            Protocol::Http1 => "http1",
            Protocol::Http2 => "http2",
            Protocol::Http3 => "http3",
        };
        data.insert("protocol".to_owned(), protocol.into());
        if head.target_cut {
            data.insert("urlTruncated".to_owned(), true.into());
        }
        if head.kind == Kind::Response {
            data.insert("durationUs".to_owned(), head.took_us.into());
            data.insert("received".to_owned(), head.received.into());
            data.insert("sent".to_owned(), head.sent.into());
            if let Some(error) = head.error {
                data.insert("error".to_owned(), error.as_str().into());
            }
            if head.cut_short {
                data.insert("cutShort".to_owned(), true.into());
            }
        }
        data.into()
    }
}
