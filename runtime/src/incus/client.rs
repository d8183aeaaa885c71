//! Calls to Incus over its unix socket: one connection each, every wait bounded.
//!
//! A call that changes something is answered at once with an operation, whose end is waited for by
//! another call. An operation that failed comes as HTTP 200 with an error in the body.

use std::{
    io,
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Either, Full, Limited, StreamBody};
use hyper::{body::Frame, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::UnixStream,
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config, tungstenite::protocol::WebSocketConfig,
};
use tokio_util::io::ReaderStream;

use super::wire::{Envelope, Operation};
use crate::{Archive, BoxError, Error};

/// How long Incus may take to answer a call that waits for nothing.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// What an operation's end may take to reach us beyond the time that Incus waits for it.
const SLACK: Duration = Duration::from_secs(10);

/// The longest answer that is read, in bytes: some 20,000 containers in one list.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The longest message of a stream, in bytes. Incus sends them in pieces of 128 KiB.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// A stream of messages.
pub(super) type Socket = WebSocketStream<Hearing>;

/// A connection that is read to its end although its other side takes nothing more. A reader of messages
/// answers some of them, and Incus may have left right after what it had to say: that was lost with a
/// broken pipe.
#[derive(Debug)]
pub(super) struct Hearing(UnixStream);

/// Takes for sent what nobody takes any more.
fn unheard<T>(sent: Poll<io::Result<T>>, all: T) -> Poll<io::Result<T>> {
    match sent {
        Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            Poll::Ready(Ok(all))
        }
        Poll::Ready(_) | Poll::Pending => sent,
    }
}

impl AsyncRead for Hearing {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Hearing {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        unheard(Pin::new(&mut self.0).poll_write(context, octets), octets.len())
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        unheard(Pin::new(&mut self.0).poll_flush(context), ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        unheard(Pin::new(&mut self.0).poll_shutdown(context), ())
    }
}

/// Why a call did not do what it was made for.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// Nobody listens, or the connection broke.
    #[error("Incus cannot be reached at {}", socket.display())]
    Unreachable {
        /// Where it should listen.
        socket: PathBuf,
        /// What happened.
        #[source]
        source: BoxError,
    },
    /// Incus says no.
    #[error("Incus says: {message} ({status})")]
    Refused {
        /// The status of HTTP that it gives.
        status: u16,
        /// Its words.
        message: String,
    },
    /// It took longer than it may.
    #[error("Incus took longer than {} ms", after.as_millis())]
    Late {
        /// The time that it was given.
        after: Duration,
    },
    /// The answer is not one of Incus.
    #[error("Incus answered what is not understood")]
    Answer {
        /// What is wrong with it.
        #[source]
        source: BoxError,
    },
}

impl Fault {
    fn answer(source: impl Into<BoxError>) -> Self {
        Self::Answer { source: source.into() }
    }

    /// Whether what the call is about does not exist.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// Whether Incus said no: nothing goes on there.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }

    /// Whether Incus said this, among other words.
    pub(super) fn says(&self, words: &str) -> bool {
        matches!(self, Self::Refused { message, .. } if message.contains(words))
    }

    /// The error of the port: it happened while doing `what` (as "starting the container").
    pub(super) fn during(self, what: &'static str) -> Error {
        match self {
            Self::Late { after } => {
                let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
                Error::Timeout { what, after_ms }
            }
            Self::Unreachable { .. } | Self::Refused { .. } | Self::Answer { .. } => {
                Error::failed(what, self)
            }
        }
    }
}

/// One Incus, seen as one project of it.
#[derive(Clone, Debug)]
pub(super) struct Client {
    socket: PathBuf,
    project: String,
}

/// An answer as it came.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// A file in a container.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// A regular file's content.
    File(Bytes),
    /// Where a symbolic link leads.
    Link(String),
    /// Something else.
    Other,
}

/// What is written into a container, owned by its root.
#[derive(Clone, Copy)]
pub(super) enum Written<'a> {
    /// A regular file with mode 0644.
    File(&'a [u8]),
    /// A directory with mode 0755; fine if it is there.
    Directory,
}

impl Client {
    /// A client; nothing is called yet.
    pub(super) fn new(socket: &Path, project: &str) -> Self {
        Self { socket: socket.to_owned(), project: project.to_owned() }
    }

    /// Reads something.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Fault> {
        let answer = self.call(Method::GET, path, None::<&()>, CALL_TIMEOUT).await?;
        serde_json::from_value(answer.metadata).map_err(Fault::answer)
    }

    /// The same; `None` when there is no such thing.
    pub(super) async fn find<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, Fault> {
        match self.get(path).await {
            Ok(found) => Ok(Some(found)),
            Err(fault) if fault.is_missing() => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// Changes something, and waits up to `within` for the end of the operation, if it is one.
    pub(super) async fn change(
        &self,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + Sync)>,
        within: Duration,
    ) -> Result<(), Fault> {
        match self.start(method, path, body).await? {
            Some(operation) => self.wait(&operation, within).await.map(drop),
            None => Ok(()),
        }
    }

    /// Begins to change something; the path of the operation, if it is one.
    pub(super) async fn start(
        &self,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + Sync)>,
    ) -> Result<Option<String>, Fault> {
        let answer = self.call(method, path, body, CALL_TIMEOUT).await?;
        Ok(Some(answer.operation).filter(|operation| !operation.is_empty()))
    }

    /// Ends an operation before its time, which few kinds can be.
    pub(super) async fn cancel(&self, operation: &str) -> Result<(), Fault> {
        self.call(Method::DELETE, operation, None::<&()>, CALL_TIMEOUT).await.map(drop)
    }

    /// Begins an operation.
    pub(super) async fn begin(
        &self,
        path: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<Operation, Fault> {
        let answer = self.call(Method::POST, path, Some(body), CALL_TIMEOUT).await?;
        serde_json::from_value(answer.metadata).map_err(Fault::answer)
    }

    /// Waits up to `within` for an operation's end; `operation` is its path.
    pub(super) async fn wait(&self, operation: &str, within: Duration) -> Result<Operation, Fault> {
        let seconds = within.as_millis().div_ceil(1000).max(1);
        let path = format!("{operation}/wait?timeout={seconds}");
        let answer = match self.call(Method::GET, &path, None::<&()>, within + SLACK).await {
            Err(fault) if fault.is_missing() => {
                // Not the container: Incus was started anew, or forgot how it ended.
                return Err(Fault::answer("Incus does not know how the operation ended"));
            }
            answer => answer?,
        };
        let ended: Operation = serde_json::from_value(answer.metadata).map_err(Fault::answer)?;
        match ended.status_code {
            200 => Ok(ended),
            100..200 => Err(Fault::Late { after: within }),
            status => Err(Fault::Refused { status, message: ended.err }),
        }
    }

    /// Sends an image, and waits for Incus to have stored it; returns its fingerprint.
    pub(super) async fn import(
        &self,
        properties: &str,
        image: Archive,
        within: Duration,
    ) -> Result<String, Fault> {
        let body: Stream = Box::pin(ReaderStream::new(image).map_ok(Frame::data));
        let request = Request::post(self.uri("/1.0/images"))
            .header(header::HOST, "incus")
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .header("X-Incus-properties", properties)
            .body(Either::Right(StreamBody::new(body)))
            .map_err(Fault::answer)?;
        let answer = bounded(within, self.send(request)).await?;
        let answer = envelope(&answer)?;
        let ended = self.wait(&answer.operation, within).await?;
        let fingerprint = ended.metadata.get("fingerprint").and_then(|value| value.as_str());
        fingerprint.map(str::to_owned).ok_or_else(|| Fault::answer("an image without fingerprint"))
    }

    /// A file of a container; `None` when there is nothing at its path.
    pub(super) async fn read_file(
        &self,
        instance: &str,
        path: &str,
    ) -> Result<Option<Entry>, Fault> {
        let request = self.request(Method::GET, &files(instance, path), &HeaderMap::new(), b"")?;
        let answer = bounded(CALL_TIMEOUT, self.send(request)).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        if !answer.status.is_success() {
            return envelope(&answer).map(|_| None);
        }
        let kind = answer.headers.get("X-Incus-type").map(http::HeaderValue::as_bytes);
        Ok(Some(match kind {
            Some(b"file") => Entry::File(answer.body),
            Some(b"symlink") => Entry::Link(String::from_utf8_lossy(&answer.body).into_owned()),
            Some(_) | None => Entry::Other,
        }))
    }

    /// Writes into a container, over what is there.
    pub(super) async fn write_file(
        &self,
        instance: &str,
        path: &str,
        written: Written<'_>,
    ) -> Result<(), Fault> {
        let (kind, mode, content) = match written {
            Written::File(content) => ("file", "0644", content),
            Written::Directory => ("directory", "0755", &b""[..]),
        };
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("X-Incus-type", kind),
            ("X-Incus-mode", mode),
            ("X-Incus-uid", "0"),
            ("X-Incus-gid", "0"),
        ] {
            let name = http::HeaderName::from_bytes(name.as_bytes()).map_err(Fault::answer)?;
            headers.insert(name, http::HeaderValue::from_str(value).map_err(Fault::answer)?);
        }
        let request = self.request(Method::POST, &files(instance, path), &headers, content)?;
        envelope(&bounded(CALL_TIMEOUT, self.send(request)).await?).map(drop)
    }

    /// Removes a file, or a link, from a container.
    pub(super) async fn remove_file(&self, instance: &str, path: &str) -> Result<(), Fault> {
        self.change(Method::DELETE, &files(instance, path), None::<&()>, CALL_TIMEOUT).await
    }

    /// Opens a stream of messages.
    pub(super) async fn open(&self, path: &str) -> Result<Socket, Fault> {
        bounded(CALL_TIMEOUT, async {
            let stream = Hearing(self.connect().await?);
            let config = WebSocketConfig::default()
                .max_message_size(Some(MESSAGE_BYTES_MAX))
                .max_frame_size(Some(MESSAGE_BYTES_MAX));
            let address = format!("ws://incus{}", self.uri(path));
            let opened = client_async_with_config(address, stream, Some(config)).await;
            opened.map(|(socket, _)| socket).map_err(|error| self.unreachable(error))
        })
        .await
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + Sync)>,
        within: Duration,
    ) -> Result<Envelope, Fault> {
        let body = body.map(serde_json::to_string).transpose().map_err(Fault::answer)?;
        let request =
            self.request(method, path, &HeaderMap::new(), body.unwrap_or_default().as_bytes())?;
        envelope(&bounded(within, self.send(request)).await?)
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Request<Body>, Fault> {
        let mut request = Request::builder().method(method).uri(self.uri(path));
        if let Some(all) = request.headers_mut() {
            all.clone_from(headers);
        }
        request
            .header(header::HOST, "incus")
            .body(Either::Left(Full::new(Bytes::copy_from_slice(body))))
            .map_err(Fault::answer)
    }

    /// The path within our project; operations know theirs.
    fn uri(&self, path: &str) -> String {
        let mark = if path.contains('?') { '&' } else { '?' };
        format!("{path}{mark}project={}", self.project)
    }

    async fn connect(&self) -> Result<UnixStream, Fault> {
        UnixStream::connect(&self.socket).await.map_err(|error| self.unreachable(error))
    }

    fn unreachable(&self, source: impl Into<BoxError>) -> Fault {
        Fault::Unreachable { socket: self.socket.clone(), source: source.into() }
    }

    async fn send(&self, request: Request<Body>) -> Result<Answer, Fault> {
        let stream = TokioIo::new(self.connect().await?);
        let (mut sender, connection) =
            http1::handshake(stream).await.map_err(|error| self.unreachable(error))?;
        let exchange = async {
            let answer = sender.send_request(request).await;
            let answer = answer.map_err(|error| self.unreachable(error))?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(Fault::answer)?.to_bytes();
            Ok(Answer { status: head.status, headers: head.headers, body })
        };
        let mut exchange = std::pin::pin!(exchange);
        tokio::select! {
            biased;
            answer = &mut exchange => answer,
            ended = connection => {
                ended.map_err(|error| self.unreachable(error))?;
                exchange.await
            }
        }
    }
}

type Stream = Pin<Box<dyn futures_util::Stream<Item = io::Result<Frame<Bytes>>> + Send>>;
type Body = Either<Full<Bytes>, StreamBody<Stream>>;

fn files(instance: &str, path: &str) -> String {
    format!("/1.0/instances/{instance}/files?path={path}")
}

async fn bounded<T>(
    within: Duration,
    call: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    match tokio::time::timeout(within, call).await {
        Ok(result) => result,
        Err(_elapsed) => Err(Fault::Late { after: within }),
    }
}

/// What an answer says, whatever its status of HTTP.
fn envelope(answer: &Answer) -> Result<Envelope, Fault> {
    let said: Envelope = serde_json::from_slice(&answer.body).map_err(Fault::answer)?;
    if said.kind != "error" {
        return Ok(said);
    }
    let status = if said.error_code == 0 { answer.status.as_u16() } else { said.error_code };
    Err(Fault::Refused { status, message: said.error })
}

#[cfg(test)]
mod tests {
    use futures_util::{SinkExt as _, StreamExt as _};
    use tokio_tungstenite::tungstenite::{Message, protocol::Role};

    use super::*;

    fn answer(status: u16, body: &'static str) -> Answer {
        let (status, headers) = (StatusCode::from_u16(status).unwrap(), HeaderMap::new());
        Answer { status, headers, body: Bytes::from_static(body.as_bytes()) }
    }

    #[test]
    fn a_failure_is_one_even_with_status_200() {
        let body =
            r#"{"type":"error","error_code":400,"error":"Command not found","metadata":null}"#;
        let fault = envelope(&answer(200, body)).unwrap_err();
        assert!(fault.says("Command not found") && !fault.is_missing(), "{fault}");
        let body = r#"{"type":"error","error":"Instance not found","metadata":null}"#;
        assert!(envelope(&answer(404, body)).unwrap_err().is_missing());
        assert!(matches!(envelope(&answer(200, "<html>")), Err(Fault::Answer { .. })));
    }

    #[tokio::test]
    async fn nobody_at_the_socket_is_told_with_its_path() {
        let client = Client::new(Path::new("/nowhere/incus.socket"), "p");
        let error = client.get::<serde_json::Value>("/1.0").await.unwrap_err();
        assert_eq!(error.to_string(), "Incus cannot be reached at /nowhere/incus.socket");
    }

    #[tokio::test]
    async fn what_was_said_before_the_other_side_left_is_heard() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut theirs = WebSocketStream::from_raw_socket(theirs, Role::Server, None).await;
        // It asks for an answer, and does not stay for it.
        theirs.send(Message::Ping("there?".into())).await.unwrap();
        theirs.send(Message::binary("said")).await.unwrap();
        drop(theirs);
        let mut ours = WebSocketStream::from_raw_socket(Hearing(ours), Role::Client, None).await;
        let mut heard = Vec::new();
        while let Some(Ok(message)) = ours.next().await {
            heard.push(message);
        }
        assert!(heard.contains(&Message::binary("said")), "{heard:?}");
    }
}
