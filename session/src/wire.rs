//! Messages with descriptors over a `SOCK_SEQPACKET` socket.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, Shutdown, recvmsg, sendmsg, shutdown,
    },
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{Interest, unix::AsyncFd};

use crate::protocol::{DESCRIPTORS_MAX, MESSAGE_LEN_MAX};

/// Why a message could not be carried. All of it ends the connection.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The other side has gone.
    #[error("the other side has gone")]
    Closed,
    /// It is no message of this protocol.
    #[error("a message that is none of this protocol: {0}")]
    Malformed(&'static str),
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The receiving half of a connection on a thread of its own, where it may block: whoever sends on the other
/// side may send descriptors along, and to close those can take as long as their maker wants.
#[derive(Debug)]
pub struct Receiver {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl Receiver {
    /// Takes a connected `SOCK_SEQPACKET` socket, or a duplicate of one.
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket, buffer: vec![0; MESSAGE_LEN_MAX + 1] }
    }

    /// Waits for the next message; descriptors that come with it are closed.
    pub fn receive<T: DeserializeOwned>(&mut self) -> Result<T, WireError> {
        loop {
            let mut ready = [PollFd::new(&self.socket, PollFlags::IN)];
            match poll(&mut ready, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(WireError::Io(error.into())),
            }
            match receive_into(self.socket.as_fd(), &mut self.buffer) {
                // Another thread has made it non-blocking.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failure(error)),
                Ok((len, _descriptors)) => {
                    return decode(self.buffer.get(..len).unwrap_or_default());
                }
            }
        }
    }
}

/// One end of a connection. Both methods are cancel-safe, and may be called at the same time.
#[derive(Debug)]
pub struct Wire(AsyncFd<OwnedFd>);

impl Wire {
    /// Takes a connected `SOCK_SEQPACKET` socket; it is made non-blocking. Needs a tokio runtime.
    #[expect(
        deprecated,
        reason = "the replacement is unsafe, for types whose descriptor may change; this one's cannot"
    )]
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        AsyncFd::with_interest(socket, Interest::READABLE | Interest::WRITABLE).map(Self)
    }

    /// Sends a message and copies of descriptors along with it.
    pub async fn send(
        &self,
        message: &impl Serialize,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), WireError> {
        use io::ErrorKind::{BrokenPipe, ConnectionReset};
        let octets = postcard::to_stdvec(message)
            .map_err(|_error| WireError::Malformed("it cannot be written"))?;
        if octets.len() > MESSAGE_LEN_MAX || descriptors.len() > DESCRIPTORS_MAX {
            return Err(WireError::Malformed("it is too long"));
        }
        let send = |socket: &OwnedFd| send_one(socket.as_fd(), &octets, descriptors);
        self.0.async_io(Interest::WRITABLE, send).await.map_err(|error| {
            let gone = matches!(error.kind(), BrokenPipe | ConnectionReset);
            if gone { WireError::Closed } else { error.into() }
        })
    }

    /// Receives the next message with its descriptors, which are not inherited by processes started here.
    pub async fn receive<T: DeserializeOwned>(&self) -> Result<(T, Vec<OwnedFd>), WireError> {
        let received = self.0.async_io(Interest::READABLE, |socket| receive_one(socket.as_fd()));
        let (octets, descriptors) = received.await.map_err(failure)?;
        Ok((decode(&octets)?, descriptors))
    }

    /// Ends it for both sides and all duplicates.
    pub fn shut_down(&self) {
        // The other side may have gone first.
        shutdown(self.0.get_ref(), Shutdown::Both).unwrap_or_default();
    }
}

fn failure(error: io::Error) -> WireError {
    let gone = [io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset];
    if gone.contains(&error.kind()) { WireError::Closed } else { error.into() }
}

fn send_one(socket: BorrowedFd<'_>, octets: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut along = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !along.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // A packet is sent whole or not at all.
    sendmsg(socket, &[IoSlice::new(octets)], &mut along, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn decode<T: DeserializeOwned>(octets: &[u8]) -> Result<T, WireError> {
    if octets.is_empty() {
        return Err(WireError::Closed);
    }
    match postcard::take_from_bytes(octets) {
        Ok((message, [])) => Ok(message),
        Ok(_) => Err(WireError::Malformed("something follows it")),
        Err(_) => Err(WireError::Malformed("it cannot be read")),
    }
}

fn receive_one(socket: BorrowedFd<'_>) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut octets = vec![0; MESSAGE_LEN_MAX + 1];
    let (len, descriptors) = receive_into(socket, &mut octets)?;
    octets.truncate(len);
    octets.shrink_to_fit();
    Ok((octets, descriptors))
}

/// Receives one message; how long it is, and what came with it.
fn receive_into(socket: BorrowedFd<'_>, octets: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut along = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let got = recvmsg(socket, &mut [IoSliceMut::new(octets)], &mut along, flags)?;
    let mut descriptors = Vec::new();
    for message in along.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            descriptors.extend(fds);
        }
    }
    if got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) || got.bytes > MESSAGE_LEN_MAX
    {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message is too long"));
    }
    Ok((got.bytes, descriptors))
}
