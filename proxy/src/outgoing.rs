//! A client's request as a container gets it: made the edge's own, in the form that the connection wants.
//!
//! It is written from the client's fields each time it is sent. Nothing is kept for a second time, and
//! over HTTP/1 there is no second map of fields.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, header,
    request::Parts,
    uri::{PathAndQuery, Scheme},
};
use http_body::Body as _;

use crate::{
    body::{ClientBody, RequestBody},
    headers::Fields,
    hooks, multiplex,
    pipeline::Ask,
    upstream::{Framing, Message, write_field},
};

/// What a head is expected to have room for; most have.
const HEAD: usize = 1024;

/// A client's request, for a container.
#[derive(Debug)]
pub(crate) struct Outgoing<'a, 'w> {
    ask: &'a Ask<'w>,
    from: &'a Request<Option<ClientBody>>,
    /// The request's id, in hexadecimal digits.
    id: [u8; 32],
    span: [u8; 8],
}

impl<'a, 'w> Outgoing<'a, 'w> {
    pub(crate) fn new(ask: &'a Ask<'w>, from: &'a Request<Option<ClientBody>>) -> Self {
        let mut id = [0; 32];
        // The buffer has twice the id's length.
        _ = hex::encode_to_slice(ask.id.0, &mut id);
        Self { ask, from, id, span: ask.worker.next_span() }
    }

    /// The request's id as a field.
    pub(crate) fn id(&self) -> HeaderValue {
        HeaderValue::from_bytes(&self.id).unwrap_or_else(|_| HeaderValue::from_static(""))
    }

    /// Whether it does no harm if it happens twice.
    pub(crate) fn is_repeatable(&self, body: &RequestBody) -> bool {
        matches!(body, RequestBody::Empty)
            && matches!(
                *self.from.method(),
                Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE
            )
    }

    /// For HTTP/1.
    pub(crate) fn message(&self, body: RequestBody) -> Message {
        let framing = Framing::of(&body);
        let held = framing != Framing::Nothing && self.is_held_back();
        let mut lines = Head::new(self.from.method(), self.from.uri().path_and_query());
        if self.ask.handshake.is_none() && self.ask.edits.is_empty() {
            self.write(&mut lines);
        } else {
            lines.all(&self.headers());
        }
        if held {
            lines.own(&header::EXPECT, b"100-continue");
        }
        lines.message(framing, body, held)
    }

    /// Whether the client holds its body back until it is asked for.
    fn is_held_back(&self) -> bool {
        self.ask.interims.is_some_and(|interims| interims.expects())
    }

    /// For HTTP/2; says whether the body waits until the container asks for it.
    pub(crate) fn request(
        &self,
        body: RequestBody,
        scheme: Scheme,
    ) -> (Request<RequestBody>, bool) {
        let held = !body.is_end_stream() && self.is_held_back();
        let mut request = Request::new(body);
        request.method_mut().clone_from(self.from.method());
        let path = self.from.uri().path_and_query();
        *request.uri_mut() = multiplex::target(path, scheme, self.ask.authority);
        let mut headers = self.headers();
        // The target has the one, and nothing is said about the connection.
        headers.remove(header::HOST);
        headers.remove(header::CONNECTION);
        if held {
            headers.insert(header::EXPECT, HeaderValue::from_static("100-continue"));
        }
        *request.headers_mut() = headers;
        (request, held)
    }

    /// The client's fields that may pass, and the edge's own.
    pub(crate) fn fields(&self) -> HeaderMap {
        let mut fields = HeaderMap::with_capacity(self.from.headers().len() + 12);
        self.write(&mut fields);
        fields
    }

    /// All fields.
    fn headers(&self) -> HeaderMap {
        let mut headers = self.fields();
        if let Some(handshake) = self.ask.handshake {
            handshake.ask(&mut headers);
        }
        hooks::apply(&self.ask.edits, &mut headers);
        headers
    }

    fn write(&self, out: &mut impl Fields) {
        let Ask { survey, authority, downstream, .. } = *self.ask;
        survey.pass(self.from.headers(), out);
        survey.identify(out, authority, downstream, (&self.id, self.span));
    }
}

/// The request for HTTP/1 that `parts` are the head of.
pub(crate) fn message(parts: &Parts, body: RequestBody) -> Message {
    let mut head = Head::new(&parts.method, parts.uri.path_and_query());
    head.all(&parts.headers);
    let framing = Framing::of(&body);
    head.message(framing, body, false)
}

/// A head that is being written. How the body is framed is its own affair, whatever the fields say.
struct Head {
    lines: Vec<u8>,
    /// Whether the method is HEAD.
    bodiless: bool,
    has_length: bool,
}

impl Head {
    /// Containers get the origin form, however the client named its target.
    fn new(method: &Method, path: Option<&PathAndQuery>) -> Self {
        let path = path.map_or("/", PathAndQuery::as_str);
        let mut lines = Vec::with_capacity(HEAD + path.len());
        lines.extend_from_slice(method.as_str().as_bytes());
        lines.push(b' ');
        if !path.starts_with(['/', '*']) {
            lines.push(b'/');
        }
        lines.extend_from_slice(path.as_bytes());
        lines.extend_from_slice(b" HTTP/1.1\r\n");
        Self { lines, bodiless: *method == Method::HEAD, has_length: false }
    }

    fn all(&mut self, headers: &HeaderMap) {
        for (name, value) in headers {
            self.client(name, value);
        }
    }

    fn message(mut self, framing: Framing, body: RequestBody, held: bool) -> Message {
        match framing {
            Framing::Nothing if self.has_length => self.own(&header::CONTENT_LENGTH, b"0"),
            Framing::Nothing => {}
            Framing::Length(length) => {
                let mut number = itoa::Buffer::new();
                self.own(&header::CONTENT_LENGTH, number.format(length).as_bytes());
            }
            Framing::Chunked => self.own(&header::TRANSFER_ENCODING, b"chunked"),
        }
        self.lines.extend_from_slice(b"\r\n");
        Message { head: self.lines, body, framing, to_head: self.bodiless, held }
    }
}

impl Fields for Head {
    fn client(&mut self, name: &HeaderName, value: &HeaderValue) {
        match *name {
            header::CONTENT_LENGTH => self.has_length = true,
            header::TRANSFER_ENCODING => {}
            _ => write_field(&mut self.lines, name.as_str(), value.as_bytes()),
        }
    }

    fn own(&mut self, name: &HeaderName, value: &[u8]) {
        write_field(&mut self.lines, name.as_str(), value);
    }
}
