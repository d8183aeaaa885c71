//! What an owner wants to see of requests besides: the fields of both heads, and the beginning of
//! both bodies.
//!
//! Octets are copied as they pass, which holds nothing up, and no more of each body than [`Kept`] says. Kinds of content that nobody reads as text are left out.

use std::sync::{
    Arc, Mutex, OnceLock, PoisonError,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue, header};
use serde_json::{Map, Value};

use super::{Log, redact::Redaction};

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    /// The octets of a body, at most.
    pub(super) body_max: usize,
    /// Requests of one container whose bodies are kept while they are under way, at most.
    pub(super) active_max: u32,
}

/// What the names of kinds begin with that are not kept.
const LEFT_OUT: [&str; 5] = ["image/", "video/", "audio/", "font/", "application/octet-stream"];

/// One request and its answer.
#[derive(Debug)]
pub(crate) struct Capture {
    redaction: Arc<Redaction>,
    request: Side,
    response: OnceLock<Side>,
    /// Whether too much is under way to keep bodies.
    crowded: bool,
    body_max: usize,
}

/// One direction.
#[derive(Debug)]
struct Side {
    fields: Vec<(Box<str>, Box<str>)>,
    kind: String,
    body: Mutex<Vec<u8>>,
    truncated: AtomicBool,
    body_max: usize,
}

impl Side {
    fn new(redaction: &Redaction, headers: &HeaderMap, crowded: bool, body_max: usize) -> Self {
        let kind = headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        let kind = String::from_utf8_lossy(kind).to_ascii_lowercase();
        // What is compressed nobody reads as text either, nor finds the credentials in it.
        let is_coded = headers
            .get(header::CONTENT_ENCODING)
            .is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"));
        let truncated = crowded || is_coded || LEFT_OUT.iter().any(|start| kind.starts_with(start));
        Self {
            fields: redaction.fields(headers),
            kind,
            body: Mutex::default(),
            truncated: AtomicBool::new(truncated),
            body_max,
        }
    }

    fn passes(&self, octets: &[u8]) {
        if octets.is_empty() || self.truncated.load(Relaxed) {
            return;
        }
        // Nothing here panics half-way.
        let mut body = self.body.lock().unwrap_or_else(PoisonError::into_inner);
        let room = self.body_max.saturating_sub(body.len());
        let kept = octets.get(..room).unwrap_or(octets);
        if kept.len() > body.capacity() - body.len() {
            // Doubles, but never beyond what is kept.
            let capacity = (body.capacity() * 2).max(body.len() + kept.len()).min(self.body_max);
            let more = capacity - body.len();
            body.reserve_exact(more);
        }
        body.extend_from_slice(kept);
        if octets.len() > room {
            self.truncated.store(true, Relaxed);
        }
    }

    fn weight(&self) -> usize {
        let fields: usize =
            self.fields.iter().map(|(name, value)| name.len() + value.len() + 32).sum();
        let body = self.body.lock().unwrap_or_else(PoisonError::into_inner);
        fields + self.kind.len() + body.capacity()
    }

    /// The body as JSON has it, if it can be shown, and whether it is in base64.
    fn body(&self, redaction: &Redaction) -> (Option<Value>, bool) {
        let body = self.body.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if body.is_empty() {
            return (Some(Value::Null), false);
        }
        // The end may lie within a character.
        let text = match String::from_utf8(body) {
            Ok(text) => text,
            Err(error) => {
                let whole = error.utf8_error().valid_up_to();
                let body = error.into_bytes();
                let cut_off = self.truncated.load(Relaxed) && body.len() - whole < 4;
                match body.get(..whole).map(|body| String::from_utf8(body.to_vec())) {
                    Some(Ok(text)) if cut_off => text,
                    Some(_) | None => return (Some(STANDARD.encode(body).into()), true),
                }
            }
        };
        (redaction.body(&self.kind, text).map(Value::from), false)
    }
}

impl Capture {
    pub(super) fn new(
        redaction: &Arc<Redaction>,
        headers: &HeaderMap,
        crowded: bool,
        body_max: usize,
    ) -> Self {
        let request = Side::new(redaction, headers, crowded, body_max);
        let (redaction, response) = (Arc::clone(redaction), OnceLock::new());
        Self { redaction, request, response, crowded, body_max }
    }

    /// Whether its bodies are not kept, because those of too many others are.
    pub(crate) const fn is_crowded(&self) -> bool {
        self.crowded
    }

    /// Octets of the request's body pass.
    pub(crate) fn request_passes(&self, octets: &[u8]) {
        self.request.passes(octets);
    }

    /// The answer has begun.
    pub(crate) fn answered(&self, headers: &HeaderMap) {
        // There is one answer.
        let side = Side::new(&self.redaction, headers, self.crowded, self.body_max);
        drop(self.response.set(side));
    }

    /// Octets of the answer's body pass.
    pub(crate) fn response_passes(&self, octets: &[u8]) {
        if let Some(response) = self.response.get() {
            response.passes(octets);
        }
    }

    /// The memory that it takes, about.
    pub(super) fn weight(&self) -> usize {
        size_of::<Self>() + self.request.weight() + self.response.get().map_or(0, Side::weight)
    }

    /// Adds what it has of the request or the response to an entry; the body only if it is asked for.
    pub(super) fn show(&self, response: bool, with_body: bool, entry: &mut Map<String, Value>) {
        let side = if response { self.response.get() } else { Some(&self.request) };
        let Some(side) = side else { return };
        let mut fields = Map::new();
        for (name, value) in &side.fields {
            let value = Value::from(&**value);
            match fields.get_mut(&**name) {
                None => drop(fields.insert(name.to_string(), value)),
                Some(Value::Array(values)) => values.push(value),
                Some(first) => *first = Value::Array(vec![first.take(), value]),
            }
        }
        if let Some(data) = entry.get_mut("data").and_then(Value::as_object_mut) {
            data.insert("headers".to_owned(), fields.into());
        }
        if !with_body {
            return;
        }
        let (body, encoded) = side.body(&self.redaction);
        let name = if response { "responseBody" } else { "requestBody" };
        let is_cut = body.is_none() || side.truncated.load(Relaxed);
        entry.insert(name.to_owned(), body.unwrap_or_default());
        entry.insert("bodyTruncated".to_owned(), is_cut.into());
        if encoded {
            entry.insert("bodyEncoding".to_owned(), "base64".into());
        }
    }
}

/// A capture under way, counted until it is dropped.
#[derive(Debug)]
pub(crate) struct Capturing {
    pub(super) log: Arc<Log>,
    pub(crate) capture: Arc<Capture>,
}

impl Capturing {
    pub(super) fn begin(
        log: &Arc<Log>,
        redaction: &Arc<Redaction>,
        kept: Kept,
        headers: &HeaderMap,
    ) -> Self {
        let crowded = log.capturing.fetch_add(1, Relaxed) >= kept.active_max;
        let capture = Arc::new(Capture::new(redaction, headers, crowded, kept.body_max));
        Self { log: Arc::clone(log), capture }
    }
}

impl Drop for Capturing {
    fn drop(&mut self) {
        self.log.capturing.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const BODY_MAX: usize = 10_000;

    fn capture(kind: &'static str, body: &[u8]) -> Value {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        let capture = Capture::new(&Arc::default(), &headers, false, BODY_MAX);
        body.chunks(1000).for_each(|chunk| capture.request_passes(chunk));
        assert!(capture.weight() < BODY_MAX + 1_000, "no more is taken than is kept");
        let mut entry = json!({"data": {}});
        capture.show(false, true, entry.as_object_mut().unwrap());
        entry
    }

    #[test]
    fn bodies_are_kept_as_far_as_they_are_text_and_short() {
        assert_eq!(capture("text/plain", b"hello")["requestBody"], "hello");
        assert_eq!(capture("text/plain", b"hello")["bodyTruncated"], false);
        assert_eq!(capture("text/plain", b"")["requestBody"], Value::Null);
        for kind in ["image/png", "application/octet-stream", "VIDEO/mp4"] {
            let entry = capture(kind, b"hello");
            assert_eq!(
                (&entry["requestBody"], &entry["bodyTruncated"]),
                (&Value::Null, &json!(true))
            );
        }
        for octets in [&br#"{"password":"x"#[..], b"{"] {
            let entry = capture("application/json", octets);
            assert_eq!(entry["requestBody"], Value::Null, "who knows what is in it");
            assert_eq!(entry["bodyTruncated"], true);
        }
        let odd = capture("text/plain", b"a\xff");
        assert_eq!((&odd["requestBody"], &odd["bodyEncoding"]), (&json!("Yf8="), &json!("base64")));
        let long = "ä".repeat(BODY_MAX);
        let entry = capture("text/plain", &long.as_bytes()[1..]);
        assert_eq!(entry["bodyTruncated"], true);
        let entry = capture("text/plain", long.as_bytes());
        assert_eq!(entry["requestBody"].as_str().unwrap().len(), BODY_MAX);
        assert_eq!(entry["data"]["headers"], json!({"content-type": "text/plain"}));
    }
}
