//! Commands on a terminal inside a container.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{SinkExt as _, Stream, StreamExt as _};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf},
    sync::{oneshot, watch},
};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use super::{
    client::Socket,
    exec::{Call, PIECE_BYTES},
    wire::Control,
};
use crate::{Attached, ExitStatus, PtyControl, PtySize, Result};

/// How long a command that writes nothing may take to show that it cannot be run: Incus does not
/// tell when one has begun.
const BEGIN: Duration = Duration::from_secs(1);

/// How long the end of a command whose terminal is closed may take to be told.
const END: Duration = Duration::from_secs(10);

/// How much waits to be read, and to be sent, in bytes.
const PIPE_BYTES: usize = 64 << 10;

/// The caller's end of a terminal. Dropped, the terminal hangs up.
struct Terminal {
    pipe: DuplexStream,
    _hang_up: DropGuard,
}

/// The terminal's size, told to the task that has its controlling stream.
struct Size(watch::Sender<PtySize>);

impl PtyControl for Size {
    fn resize(&self, size: PtySize) -> io::Result<()> {
        self.0.send(size).map_err(|_gone| io::ErrorKind::BrokenPipe.into())
    }
}

/// What the terminal shows next; `None` at its end.
type Next = Option<Bytes>;

/// Reads what the terminal shows. Cancel-safe.
async fn output(data: &mut (impl Stream<Item = tungstenite::Result<Message>> + Unpin)) -> Next {
    loop {
        match data.next().await {
            Some(Ok(Message::Binary(part))) => return Some(part),
            Some(Ok(Message::Text(_) | Message::Close(_)) | Err(_)) | None => return None,
            Some(Ok(_)) => {}
        }
    }
}

/// Begins a command on a terminal.
pub(super) async fn attach(call: Call, size: PtySize, tasks: &TaskTracker) -> Result<Attached> {
    let control = call.open("control").await?;
    let mut data = call.open("0").await?;
    let (told, exit) = oneshot::channel();
    let mut waiting = Box::pin(async move { call.wait().await });
    let mut first = None;
    let mut ended = None;
    tokio::select! {
        result = &mut waiting => ended = Some(result?),
        message = output(&mut data) => first = Some(message),
        () = tokio::time::sleep(BEGIN) => {}
    }
    // One that never began has a terminal that closes without a word, and ends when we close it, too.
    if matches!(first, Some(None)) {
        if let Err(error) = data.close(None).await {
            tracing::trace!(%error, "a terminal was closed already");
        }
        if let Ok(result) = tokio::time::timeout(END, &mut waiting).await {
            ended = Some(result?);
        }
    }
    let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
    let (resizes, sizes) = watch::channel(size);
    let hang_up = CancellationToken::new();
    let terminal = Terminal { pipe: ours, _hang_up: hang_up.clone().drop_guard() };
    tasks.spawn(async move {
        let end = async {
            let status = match ended {
                Some(status) => Ok(status),
                None => waiting.await,
            };
            tell(told, status);
        };
        let relay = async { tokio::join!(relay(data, first, theirs), end) };
        tokio::select! {
            // Both sockets go away with it, and so does the command.
            () = hang_up.cancelled() => {}
            _ = relay => {}
            () = resize(control, sizes) => {}
        }
    });
    Ok(Attached::new(terminal, Size(resizes), exit))
}

fn tell(told: oneshot::Sender<ExitStatus>, status: Result<ExitStatus>) {
    match status {
        Ok(status) => {
            if told.send(status).is_err() {
                tracing::trace!("nobody waits for a terminal's end");
            }
        }
        Err(error) => tracing::debug!(%error, "the end of a command on a terminal is not known"),
    }
}

/// Moves bytes both ways until the terminal is closed.
async fn relay(data: Socket, first: Option<Next>, pipe: DuplexStream) {
    let (mut sink, mut messages) = data.split();
    let (mut input, mut shown) = tokio::io::split(pipe);
    let show = async {
        let mut next = match first {
            Some(first) => first,
            None => output(&mut messages).await,
        };
        while let Some(part) = next {
            if shown.write_all(&part).await.is_err() {
                return;
            }
            next = output(&mut messages).await;
        }
        if let Err(error) = shown.shutdown().await {
            tracing::trace!(%error, "a terminal's reader has gone");
        }
    };
    let type_in = async {
        let mut part = vec![0; PIECE_BYTES];
        loop {
            match input.read(&mut part).await {
                Ok(0) | Err(_) => std::future::pending::<()>().await,
                Ok(read) => {
                    let piece = Bytes::copy_from_slice(part.get(..read).unwrap_or_default());
                    if sink.send(Message::Binary(piece)).await.is_err() {
                        std::future::pending::<()>().await;
                    }
                }
            }
        }
    };
    tokio::select! {
        () = show => {}
        () = type_in => {}
    }
}

/// Tells of new sizes; ends only when it never can again.
async fn resize(mut control: Socket, mut sizes: watch::Receiver<PtySize>) {
    while sizes.changed().await.is_ok() {
        let size = *sizes.borrow_and_update();
        let args = [("width", size.columns), ("height", size.rows)]
            .map(|(key, value)| (key.to_owned(), value.to_string()))
            .into();
        let message = serde_json::to_string(&Control { command: "window-resize", args });
        let sent = match message {
            Ok(message) => control.send(Message::text(message)).await,
            Err(error) => {
                tracing::warn!(%error, "a size cannot be written");
                continue;
            }
        };
        if let Err(error) = sent {
            tracing::debug!(%error, "a terminal cannot be resized any more");
            break;
        }
    }
    // The rest goes on until it ends by itself, or the terminal hangs up.
    std::future::pending::<()>().await;
}

impl AsyncRead for Terminal {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_read(cx, buf)
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}
