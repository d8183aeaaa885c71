//! A request on its way to a container over HTTP/1: the head as it was written, and the body framed
//! anew.
//!
//! At most one frame of the body is held at a time; the next one is asked for when the connection has
//! taken the last.

use std::{
    io::{self, IoSlice, Write as _},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body as _, Frame};
use tokio::io::AsyncWrite;

use crate::body::RequestBody;

/// A request to be sent.
#[derive(Debug)]
pub(crate) struct Message {
    /// The head, with the empty line.
    pub(crate) head: Vec<u8>,
    pub(crate) body: RequestBody,
    /// How the head says that the body ends.
    pub(crate) framing: Framing,
    /// Whether the method is HEAD, whose answers have no body.
    pub(crate) to_head: bool,
    /// Whether the head expects a 100, and the body waits for it.
    pub(crate) held: bool,
}

/// How a request says where its body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is none.
    Nothing,
    /// After so many octets.
    Length(u64),
    Chunked,
}

impl Framing {
    /// For this body.
    pub(crate) fn of(body: &RequestBody) -> Self {
        match (body, body.size_hint().exact()) {
            (RequestBody::Empty, _) => Self::Nothing,
            (RequestBody::Streaming(_), Some(length)) => Self::Length(length),
            (RequestBody::Streaming(_), None) => Self::Chunked,
        }
    }
}

/// Why a request cannot be sent to its end.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// The client's body broke, was late, or is not as long as it said.
    Body,
    /// The connection broke.
    Io(io::Error),
}

/// What is left to be sent of a request.
#[derive(Debug)]
pub(crate) struct Writer {
    /// The head, and the line before the present data.
    lines: Vec<u8>,
    written: usize,
    data: Bytes,
    /// What follows the data.
    tail: &'static [u8],
    body: RequestBody,
    framing: Framing,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The body waits until it is wanted.
    Held,
    /// The body is being sent.
    Body,
    /// All that is left is in the buffers.
    Last,
    /// Everything is sent.
    Done,
    /// The connection takes no more.
    Failed,
}

impl Writer {
    /// Nothing to send.
    pub(crate) const IDLE: Self = Self {
        lines: Vec::new(),
        written: 0,
        data: Bytes::new(),
        tail: b"",
        body: RequestBody::Empty,
        framing: Framing::Nothing,
        stage: Stage::Done,
    };

    pub(crate) fn new(message: Message) -> Self {
        let Message { head, body, framing, to_head: _, held } = message;
        let stage = match framing {
            Framing::Nothing => Stage::Last,
            Framing::Length(_) | Framing::Chunked if held => Stage::Held,
            Framing::Length(_) | Framing::Chunked => Stage::Body,
        };
        Self { lines: head, body, framing, stage, ..Self::IDLE }
    }

    /// Whether the whole request was sent.
    pub(crate) fn is_done(&self) -> bool {
        self.stage == Stage::Done
    }

    /// Whether the connection has failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.stage == Stage::Failed
    }

    /// Whether the body waits until it is wanted.
    pub(crate) fn is_held(&self) -> bool {
        self.stage == Stage::Held
    }

    /// The body is wanted.
    pub(crate) fn release(&mut self) {
        if self.is_held() {
            self.stage = Stage::Body;
        }
    }

    /// Sends on, as far as the body and the connection go; ready when everything is sent or an error
    /// ended it, once.
    pub(crate) fn poll<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut W,
    ) -> Poll<Result<(), WriteError>> {
        loop {
            if self.stage == Stage::Body
                && self.data.is_empty()
                && self.tail.is_empty()
                && let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx)
            {
                let taken = frame.transpose().or(Err(WriteError::Body));
                if let Err(error) = taken.and_then(|frame| self.take(frame)) {
                    // What was sent must never look whole.
                    self.stage = Stage::Failed;
                    return Poll::Ready(Err(error));
                }
                // A frame without octets leaves nothing to do but to ask for the next.
                continue;
            }
            if self.has_octets() {
                let sent = ready!(self.poll_write(cx, to));
                if let Err(error) = sent {
                    self.stage = Stage::Failed;
                    return Poll::Ready(Err(WriteError::Io(error)));
                }
                continue;
            }
            match self.stage {
                Stage::Done | Stage::Failed => return Poll::Ready(Ok(())),
                Stage::Held | Stage::Body | Stage::Last => {}
            }
            // TLS keeps what it could not write.
            if let Err(error) = ready!(Pin::new(&mut *to).poll_flush(cx)) {
                self.stage = Stage::Failed;
                return Poll::Ready(Err(WriteError::Io(error)));
            }
            if self.stage != Stage::Last {
                return Poll::Pending;
            }
            // The lines are as large as a head.
            self.lines = Vec::new();
            self.written = 0;
            self.stage = Stage::Done;
        }
    }

    fn has_octets(&self) -> bool {
        self.written < self.lines.len() || !self.data.is_empty() || !self.tail.is_empty()
    }

    /// Takes a frame of the body, or its end.
    fn take(&mut self, frame: Option<Frame<Bytes>>) -> Result<(), WriteError> {
        if self.written == self.lines.len() {
            self.lines.clear();
            self.written = 0;
        }
        let Some(frame) = frame else { return self.end(None) };
        match frame.into_data() {
            Ok(data) if data.is_empty() => Ok(()),
            Ok(data) => {
                match &mut self.framing {
                    Framing::Nothing => return Err(WriteError::Body),
                    Framing::Length(left) => {
                        let octets = u64::try_from(data.len()).unwrap_or(u64::MAX);
                        *left = left.checked_sub(octets).ok_or(WriteError::Body)?;
                        if *left == 0 {
                            self.stage = Stage::Last;
                        }
                    }
                    Framing::Chunked => {
                        write!(self.lines, "{:x}\r\n", data.len()).or(Err(WriteError::Body))?;
                        self.tail = b"\r\n";
                    }
                }
                self.data = data;
                Ok(())
            }
            // Whatever else there may be one day.
            Err(frame) => self.end(frame.into_trailers().ok().as_ref()),
        }
    }

    fn end(&mut self, trailers: Option<&HeaderMap>) -> Result<(), WriteError> {
        match self.framing {
            Framing::Nothing | Framing::Length(0) => {}
            Framing::Length(_) => return Err(WriteError::Body),
            Framing::Chunked => {
                self.lines.extend_from_slice(b"0\r\n");
                for (name, value) in trailers.into_iter().flatten() {
                    write_field(&mut self.lines, name.as_str(), value.as_bytes());
                }
                self.lines.extend_from_slice(b"\r\n");
            }
        }
        self.stage = Stage::Last;
        Ok(())
    }

    fn poll_write<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut W,
    ) -> Poll<io::Result<()>> {
        let lines = self.lines.get(self.written..).unwrap_or_default();
        let mut count = if self.data.is_empty() && self.tail.is_empty() {
            ready!(Pin::new(to).poll_write(cx, lines))?
        } else {
            let slices = [lines, &self.data, self.tail].map(IoSlice::new);
            ready!(Pin::new(to).poll_write_vectored(cx, &slices))?
        };
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        let of_lines = count.min(lines.len());
        self.written += of_lines;
        count -= of_lines;
        let of_data = count.min(self.data.len());
        self.data.advance(of_data);
        self.tail = self.tail.get(count - of_data..).unwrap_or_default();
        Poll::Ready(Ok(()))
    }
}

/// Writes one field; neither part can contain what ends it.
pub(crate) fn write_field(lines: &mut Vec<u8>, name: &str, value: &[u8]) {
    lines.reserve(name.len() + value.len() + 4);
    lines.extend_from_slice(name.as_bytes());
    lines.extend_from_slice(b": ");
    lines.extend_from_slice(value);
    lines.extend_from_slice(b"\r\n");
}
