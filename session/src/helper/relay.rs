//! Carries octets between descriptors.
//!
//! What is read is written at once; only what the other side does not take is kept, at most one piece, and
//! nothing more is read until it has gone. So an idle stream costs no memory, and one whose reader is slow
//! at most a piece.

use std::{cell::RefCell, io, os::fd::OwnedFd, rc::Rc, time::Duration};

use rustix::{
    io::Errno,
    net::{Shutdown, shutdown},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::Notify,
    time::sleep,
};

/// How much is read at once, in octets.
const PIECE: usize = 64 * 1024;

/// A descriptor of the runtime's, which does not block.
pub(super) type Stream = Rc<AsyncFd<OwnedFd>>;

/// Where pieces are read to; one for all streams, because nothing waits between reading and writing.
pub(super) type Scratch = Rc<RefCell<Vec<u8>>>;

/// Room for one piece.
pub(super) fn scratch() -> Scratch {
    Rc::new(RefCell::new(vec![0; PIECE]))
}

/// Takes a descriptor into the runtime. Its flags become the helper's: nobody else has this open file.
#[expect(
    deprecated,
    reason = "the replacement is unsafe, for types whose descriptor may change; this one's cannot"
)]
pub(super) fn stream(fd: OwnedFd) -> io::Result<Stream> {
    rustix::io::ioctl_fionbio(&fd, true)?;
    Ok(Rc::new(AsyncFd::with_interest(fd, Interest::READABLE | Interest::WRITABLE)?))
}

/// Why a pump has stopped.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stopped {
    /// The source has ended.
    Source,
    /// The sink takes no more.
    Sink,
}

/// One direction.
#[derive(Debug)]
pub(super) struct Pump {
    from: Stream,
    to: Stream,
    scratch: Scratch,
    left: Vec<u8>,
}

impl Pump {
    pub(super) fn new(from: &Stream, to: &Stream, scratch: &Scratch) -> Self {
        let (from, to, scratch) = (Rc::clone(from), Rc::clone(to), Rc::clone(scratch));
        Self { from, to, scratch, left: Vec::new() }
    }

    /// Carries until one side has ended. Cancel-safe: nothing that was read is lost.
    pub(super) async fn run(&mut self) -> Stopped {
        loop {
            if self.flush().await.is_err() {
                return Stopped::Sink;
            }
            let Ok(mut ready) = self.from.readable().await else { return Stopped::Source };
            match carry(&self.from, &self.to, &self.scratch, &mut self.left) {
                Carried::Some(_) => {}
                Carried::Nothing => ready.clear_ready(),
                Carried::End => return Stopped::Source,
                Carried::Refused => return Stopped::Sink,
            }
        }
    }

    /// Carries what is there to be read, at most so much; waits for the sink, but not for the source.
    pub(super) async fn drain(&mut self, most: usize) {
        let mut carried = 0;
        while self.flush().await.is_ok() && carried < most {
            match carry(&self.from, &self.to, &self.scratch, &mut self.left) {
                Carried::Some(octets) => carried += octets,
                Carried::Nothing | Carried::End | Carried::Refused => return,
            }
        }
    }

    /// Writes what is left. Cancel-safe.
    async fn flush(&mut self) -> io::Result<()> {
        while !self.left.is_empty() {
            let mut ready = self.to.writable().await?;
            match rustix::io::write(self.to.get_ref(), &self.left) {
                Ok(octets) => drop(self.left.drain(..octets)),
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // The next piece may never come.
        self.left = Vec::new();
        Ok(())
    }
}

enum Carried {
    Some(usize),
    Nothing,
    End,
    Refused,
}

/// Reads a piece and writes what the sink takes of it; the rest is left.
fn carry(from: &Stream, to: &Stream, scratch: &Scratch, left: &mut Vec<u8>) -> Carried {
    let mut scratch = scratch.borrow_mut();
    let read = match rustix::io::read(from.get_ref(), scratch.as_mut_slice()) {
        Ok(0) => return Carried::End,
        Ok(read) => read,
        Err(Errno::AGAIN) => return Carried::Nothing,
        Err(Errno::INTR) => return Carried::Some(0),
        // Of a terminal without processes, or a connection that was reset.
        Err(_) => return Carried::End,
    };
    let piece = scratch.get(..read).unwrap_or_default();
    let written = match rustix::io::write(to.get_ref(), piece) {
        Ok(written) => written,
        Err(Errno::AGAIN | Errno::INTR) => 0,
        Err(_) => return Carried::Refused,
    };
    left.extend_from_slice(piece.get(written..).unwrap_or_default());
    Carried::Some(read)
}

/// How long what the edge has sent may take to arrive after the edge has ended a connection.
const ARRIVAL: Duration = Duration::from_secs(30);

/// The edge's ways in and out of a channel: two pipes.
#[derive(Debug)]
pub(super) struct Ways {
    /// From the edge.
    pub(super) input: Stream,
    /// To the edge.
    pub(super) output: Stream,
}

impl Ways {
    /// Takes the descriptors that came with an order; `None` if they are not two.
    pub(super) fn new(fds: Vec<OwnedFd>) -> Option<io::Result<Self>> {
        let [input, output] = <[OwnedFd; 2]>::try_from(fds).ok()?;
        Some(stream(input).and_then(|input| Ok(Self { input, output: stream(output)? })))
    }
}

/// Carries both ways between a connection and the edge until both have ended; the end of one
/// direction is passed on and leaves the other as it is. Once the edge has `ended` it, what lies in its
/// pipe still goes on, and nothing comes back.
pub(super) async fn both(
    connection: Stream,
    ways: Ways,
    scratch: &Scratch,
    ended: impl Future<Output = ()>,
) {
    let stop = Notify::new();
    let Ways { input, output } = ways;
    let inwards = half(input, Rc::clone(&connection), scratch);
    let carrying = async {
        let outwards = async {
            tokio::select! {
                () = half(connection, output, scratch) => {}
                () = stop.notified() => {}
            }
        };
        tokio::join!(inwards, outwards);
    };
    let overdue = async {
        ended.await;
        stop.notify_one();
        sleep(ARRIVAL).await;
    };
    tokio::select! {
        () = carrying => {}
        () = overdue => {}
    }
}

/// One direction, whose descriptors are closed at its end.
async fn half(from: Stream, to: Stream, scratch: &Scratch) {
    Pump::new(&from, &to, scratch).run().await;
    // A connection goes on in the other direction, unless it has gone altogether; a pipe is no socket.
    shutdown(to.get_ref(), Shutdown::Write).unwrap_or_default();
    shutdown(from.get_ref(), Shutdown::Read).unwrap_or_default();
}
