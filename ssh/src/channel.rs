//! The octets of a channel, between the client and pipes to the helper.

use std::{io, os::fd::OwnedFd, sync::Arc, time::Duration};

use bytes::BytesMut;
use gantry_session::protocol::{Exit, Process, Reason, Size, ToHelper};
use russh::{
    ChannelOpenFailure, ChannelWriteHalf, Sig,
    server::{Handle, Msg},
};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::{
    io::AsyncWriteExt as _,
    net::unix::pipe,
    sync::{OwnedSemaphorePermit, mpsc},
};
use tokio_util::sync::CancellationToken;

use crate::{
    conn::{Conn, Lane},
    inlet::Inlet,
    link::{Link, Ticket, Told},
    stream::Weight,
};

/// The most octets in one packet to a client.
const PACKET: usize = 32 << 10;
/// The marker of error output, RFC 4254 §5.2.
const STDERR: u32 = 1;
/// How long a channel waits, when both sides have said all, for its client to close it first.
const COURTESY: Duration = Duration::from_secs(1);
/// The exit status of a session whose container could not be entered.
const SHUT: u32 = 254;

pub(crate) type Write = ChannelWriteHalf<Msg>;

/// What the client asks of a process that runs.
#[derive(Debug)]
pub(crate) enum Control {
    Resize(Size),
    Signal(String),
}

/// A way out of the container.
pub(crate) struct Source(pub(crate) pipe::Receiver);

/// A way into the container. Dropped, it is closed, and its other end hears of that.
pub(crate) struct Sink(pub(crate) pipe::Sender);

/// A way into the container and one out of it.
pub(crate) struct Ways {
    sink: Sink,
    source: Source,
}

impl Source {
    /// Reads what is there. No buffer is held while there is nothing.
    async fn read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        loop {
            self.0.readable().await?;
            buffer.reserve(PACKET);
            match self.0.try_read_buf(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    *buffer = BytesMut::new();
                }
                read => return read,
            }
        }
    }
}

impl Ways {
    /// Two pipes, and the ends that go to the helper: the one that it reads, and the one that it writes.
    pub(crate) fn new() -> io::Result<(Self, Vec<OwnedFd>)> {
        let (theirs_in, sink) = way_in()?;
        let (source, theirs_out) = way_out()?;
        Ok((Self { sink, source }, vec![theirs_in, theirs_out]))
    }
}

fn way_in() -> io::Result<(OwnedFd, Sink)> {
    let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC)?;
    Ok((theirs, Sink(pipe::Sender::from_owned_fd(ours)?)))
}

fn way_out() -> io::Result<(Source, OwnedFd)> {
    let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
    Ok((Source(pipe::Receiver::from_owned_fd(ours)?), theirs))
}

/// Carries what the client sends until its end; the way is closed then.
async fn carry_in(inlet: &Inlet, mut sink: Sink) {
    while let Some(piece) = inlet.next().await {
        let written = sink.0.write_all(&piece).await;
        inlet.used(piece.len());
        if written.is_err() {
            // Nobody inside reads it any more: as with a closed pipe, the rest is dropped.
            return inlet.close();
        }
    }
}

/// Carries what comes from inside until its end. Returns `false` if the client has gone.
async fn carry_out(conn: &Conn, write: &Write, mut source: Source, extended: Option<u32>) -> bool {
    let mut buffer = BytesMut::new();
    loop {
        match source.read(&mut buffer).await {
            // A broken connection inside ends like any other: the client learns of the end.
            Ok(0) | Err(_) => return true,
            Ok(len) => conn.said(len),
        }
        let octets = buffer.split().freeze();
        let sent = match extended {
            None => write.data_bytes(octets).await,
            Some(extended) => write.extended_data_bytes(extended, octets).await,
        };
        if sent.is_err() {
            return false;
        }
    }
}

/// Carries octets both ways between a channel and a connection inside, half-closed ends included, until `end`
/// at the latest.
pub(crate) async fn relay(
    conn: Arc<Conn>,
    lane: Lane,
    write: Write,
    (ticket, ways): (Ticket, Ways),
    end: &CancellationToken,
) {
    let Ways { sink, source } = ways;
    // A client that closes the channel may have sent much just before: it arrives.
    let overdue = async {
        lane.closed.cancelled().await;
        tokio::time::sleep(conn.shared.bounds.arrival).await;
    };
    let inwards = async {
        tokio::select! {
            () = carry_in(&lane.inlet, sink) => {}
            () = overdue => {}
        }
    };
    let outwards = lane.closed.run_until_cancelled(async {
        carry_out(&conn, &write, source, None).await && write.eof().await.is_ok()
    });
    let carried = end.run_until_cancelled(async { tokio::join!(inwards, outwards).1 }).await;
    // The way inside ends, whether the client takes the news or not.
    drop(ticket);
    if carried == Some(Some(true)) && lane.inlet.has_ended() {
        // Most clients close it then, which leaves nothing of it in the library.
        let waited = tokio::time::timeout(COURTESY, lane.closed.cancelled()).await;
        tracing::trace!(is_closed = waited.is_ok(), "both sides have said all");
    }
    if !lane.closed.is_cancelled() {
        finish(&conn, &write).await;
    }
    lane.inlet.close();
}

/// Closes a channel. The library tells nothing of the client's own close that follows, and keeps something of it.
async fn finish(conn: &Conn, write: &Write) {
    // First, so that a client which hears of it and opens another finds it counted.
    conn.closes_here(write.id());
    if write.close().await.is_err() {
        tracing::trace!("the client has gone first");
    }
    conn.closed(write.id());
}

/// The streams of a process: ours, and those that go to the helper.
pub(crate) struct Streams {
    pub(crate) sink: Sink,
    pub(crate) out: Source,
    pub(crate) errors: Option<Source>,
    pub(crate) theirs: Vec<OwnedFd>,
}

impl Streams {
    pub(crate) fn new(has_terminal: bool) -> io::Result<Self> {
        if has_terminal {
            let (Ways { sink, source }, theirs) = Ways::new()?;
            return Ok(Self { sink, out: source, errors: None, theirs });
        }
        let ((stdin, sink), (out, stdout), (errors, stderr)) = (way_in()?, way_out()?, way_out()?);
        Ok(Self { sink, out, errors: Some(errors), theirs: vec![stdin, stdout, stderr] })
    }
}

/// A channel on which a process runs, until both its output and itself have ended.
pub(crate) struct Session {
    pub(crate) conn: Arc<Conn>,
    pub(crate) lane: Lane,
    pub(crate) write: Arc<Write>,
    pub(crate) handle: Handle,
    pub(crate) controls: mpsc::Receiver<Control>,
    /// Whether the client has offered its agent.
    pub(crate) has_agent: bool,
}

impl Session {
    /// Runs it. What is said of the process weighs until the helper has it.
    pub(crate) async fn run(self, process: Process, weight: Weight) {
        let (closed, bounds) = (self.lane.closed.clone(), self.conn.shared.bounds);
        let inlet = Arc::clone(&self.lane.inlet);
        // What a client has sent before it closes the channel arrives, as with sshd. Dropped, the ticket tells the
        // helper, which hangs the process up.
        let overdue = async {
            closed.cancelled().await;
            tokio::time::sleep(bounds.arrival).await;
        };
        tokio::select! {
            () = self.serve(process, weight) => {}
            () = overdue => {}
        }
        inlet.close();
    }

    async fn serve(mut self, process: Process, weight: Weight) {
        let has_terminal = process.terminal.is_some();
        let link = match self.conn.enter().await {
            Ok(link) => link,
            Err(message) => return self.refuse(&message, has_terminal).await,
        };
        let streams = match Streams::new(has_terminal) {
            Ok(streams) => streams,
            Err(error) => {
                tracing::error!(%error, "no streams for a session");
                return self.refuse("there are no more streams on this server", has_terminal).await;
            }
        };
        let start = |id| ToHelper::Start { id, process };
        let begun = link.begin(start, streams.theirs, Some(weight));
        let Some(mut ticket) = begun else {
            return self
                .refuse("too much is open in this container, or on this server", has_terminal)
                .await;
        };
        match ticket.told().await {
            Some(Told::Started) => {}
            Some(Told::Refused(_, message)) => return self.refuse(&message, has_terminal).await,
            Some(Told::Exited(_) | Told::Listening(_) | Told::Accepted { .. } | Told::Closed)
            | None => {
                return self.refuse("the container has stopped", has_terminal).await;
            }
        }
        let inlet = Arc::clone(&self.lane.inlet);
        let (feeding, arrived) = (CancellationToken::new(), CancellationToken::new());
        let (_stop, last) = (feeding.clone().drop_guard(), arrived.clone().drop_guard());
        let sink = streams.sink;
        let feed = async move {
            carry_in(&inlet, sink).await;
            drop(last);
        };
        self.conn.spawn(feeding.run_until_cancelled_owned(feed));
        let (conn, write) = (Arc::clone(&self.conn), Arc::clone(&self.write));
        let closed = self.lane.closed.clone();
        // Nobody reads it any more once the client has closed the channel.
        let output = closed.run_until_cancelled(async move {
            let out = carry_out(&conn, &write, streams.out, None);
            let errors = async {
                match streams.errors {
                    Some(errors) => carry_out(&conn, &write, errors, Some(STDERR)).await,
                    None => true,
                }
            };
            let (out, errors) = tokio::join!(out, errors);
            out && errors
        });
        let hung_up = async {
            closed.cancelled().await;
            arrived.cancelled().await;
            if !has_terminal {
                // It hears the end of its input, and may come to its own.
                std::future::pending::<()>().await;
            }
        };
        let ended = async {
            tokio::select! {
                exit = self.watch(&mut ticket) => exit,
                () = hung_up => None,
            }
        };
        let (is_there, exit) = tokio::join!(output, ended);
        if is_there == Some(true) {
            self.tell(exit).await;
        }
    }

    /// Waits for the end of the process, and does what is asked of it until then.
    async fn watch(&mut self, ticket: &mut Ticket) -> Option<Exit> {
        let mut is_controlled = true;
        loop {
            tokio::select! {
                told = ticket.told() => match told {
                    Some(Told::Exited(exit)) => return Some(exit),
                    Some(Told::Accepted { id, peer: _ }) => self.forward_agent(ticket, id),
                    Some(Told::Started | Told::Refused(..) | Told::Listening(_) | Told::Closed) => {}
                    None => return None,
                },
                control = self.controls.recv(), if is_controlled => match control {
                    Some(Control::Resize(size)) => ticket.tell(|id| ToHelper::Resize { id, size }),
                    Some(Control::Signal(name)) => ticket.tell(|id| ToHelper::Signal { id, name }),
                    None => is_controlled = false,
                },
            }
        }
    }

    /// Somebody inside asks the client's agent.
    fn forward_agent(&self, ticket: &Ticket, accepted: u64) {
        let (conn, handle) = (Arc::clone(&self.conn), self.handle.clone());
        let link = Arc::clone(ticket.link());
        let place = self.has_agent.then(|| conn.place()).flatten().filter(|_| conn.has_room());
        let Some(place) = place else { return link.leave(accepted) };
        // The client's own keys are no way to or from the container: forwards that are switched off do not end it.
        let end = self.lane.closed.clone();
        self.conn.spawn(async move {
            let opening = async { handle.channel_open_agent().await.ok() };
            open_for(conn, &link, accepted, place, opening, &end).await;
        });
    }

    async fn tell(&self, exit: Option<Exit>) {
        let told = match exit {
            Some(Exit::Status(status)) => self.write.exit_status(status.into()).await.is_ok(),
            Some(Exit::Signal(name, dumped)) => {
                let (id, signal) = (self.write.id(), signal(name));
                let told = self.handle.exit_signal_request(
                    id,
                    signal,
                    dumped,
                    String::new(),
                    String::new(),
                );
                told.await.is_ok()
            }
            None => self.write.exit_status(255).await.is_ok(),
        };
        if told && self.write.eof().await.is_ok() {
            finish(&self.conn, &self.write).await;
        }
    }

    /// Says why there is no process, as its errors, and ends the channel.
    async fn refuse(&self, message: &str, has_terminal: bool) {
        let line = if has_terminal { format!("{message}\r\n") } else { format!("{message}\n") };
        let said = self.write.extended_data_bytes(STDERR, line).await;
        if said.is_ok()
            && self.write.exit_status(SHUT).await.is_ok()
            && self.write.eof().await.is_ok()
        {
            finish(&self.conn, &self.write).await;
        }
    }
}

/// Opens a channel to the client for a connection that was accepted inside, and carries its octets. A
/// client that does not answer in time loses it, but is listened to: the library ends the connection when nobody
/// hears its refusal, and a channel that it confirms has to be closed. Until then the place is taken.
pub(crate) async fn open_for(
    conn: Arc<Conn>,
    link: &Arc<Link>,
    accepted: u64,
    _place: OwnedSemaphorePermit,
    opening: impl Future<Output = Option<russh::Channel<Msg>>>,
    end: &CancellationToken,
) {
    let mut opening = std::pin::pin!(opening);
    let answer = conn.shared.bounds.answer;
    let in_time = end.run_until_cancelled(tokio::time::timeout(answer, &mut opening)).await;
    match in_time {
        Some(Ok(Some(channel))) => carry_accepted(conn, link, accepted, channel, end).await,
        Some(Ok(None)) => link.leave(accepted),
        Some(Err(_)) | None => {
            link.leave(accepted);
            if let Some(channel) = opening.await {
                let lane = conn.confirmed(channel.id()).await;
                let (_, write) = channel.split();
                if !lane.closed.is_cancelled() {
                    finish(&conn, &write).await;
                }
                lane.inlet.close();
            }
        }
    }
}

/// Carries octets between a connection that was accepted inside and the channel opened for it.
async fn carry_accepted(
    conn: Arc<Conn>,
    link: &Arc<Link>,
    accepted: u64,
    channel: russh::Channel<Msg>,
    end: &CancellationToken,
) {
    let lane = conn.confirmed(channel.id()).await;
    let (_, write) = channel.split();
    let taken = Ways::new()
        .ok()
        .and_then(|(ours, theirs)| link.take(accepted, theirs).map(|ticket| (ticket, ours)));
    let Some(inside) = taken else {
        link.leave(accepted);
        if !lane.closed.is_cancelled() {
            finish(&conn, &write).await;
        }
        return lane.inlet.close();
    };
    relay(conn, lane, write, inside, end).await;
}

/// A signal by its name. Those that RFC 4254 does not name are told as sshd does.
fn signal(name: String) -> Sig {
    match name.as_str() {
        "ABRT" => Sig::ABRT,
        "ALRM" => Sig::ALRM,
        "FPE" => Sig::FPE,
        "HUP" => Sig::HUP,
        "ILL" => Sig::ILL,
        "INT" => Sig::INT,
        "KILL" => Sig::KILL,
        "PIPE" => Sig::PIPE,
        "QUIT" => Sig::QUIT,
        "SEGV" => Sig::SEGV,
        "TERM" => Sig::TERM,
        "USR1" => Sig::USR1,
        "USR2" => Sig::Custom(name),
        _ => Sig::Custom("SIG@openssh.com".to_owned()),
    }
}

/// The name of a signal, as in RFC 4254 §6.10.
pub(crate) fn signal_name(signal: &Sig) -> String {
    match signal {
        Sig::Custom(name) => name.clone(),
        Sig::ABRT
        | Sig::ALRM
        | Sig::FPE
        | Sig::HUP
        | Sig::ILL
        | Sig::INT
        | Sig::KILL
        | Sig::PIPE
        | Sig::QUIT
        | Sig::SEGV
        | Sig::TERM
        | Sig::USR1 => format!("{signal:?}"),
    }
}

/// Why a connection inside failed, as the protocol tells it.
pub(crate) fn open_failure(reason: Reason) -> ChannelOpenFailure {
    match reason {
        Reason::Prohibited => ChannelOpenFailure::AdministrativelyProhibited,
        Reason::Failed => ChannelOpenFailure::ConnectFailed,
        Reason::Shortage => ChannelOpenFailure::ResourceShortage,
    }
}
