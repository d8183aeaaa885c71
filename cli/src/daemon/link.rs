//! The socket between a process and the one that follows it: messages with descriptors.
//!
//! Both ends may be of different versions, so that messages are JSON and what is not known is an error of
//! that one message. [`PROTOCOL`] rises when an older end would misunderstand a newer one.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::fs::PermissionsExt as _,
    },
    path::{Path, PathBuf},
};

use gantry_store::Holder;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind,
    connect, listen, recvmsg, sendmsg, socket_with,
};
use serde::{Deserialize, Serialize};
use tokio::io::{Interest, unix::AsyncFd};

/// The version of what is said.
pub(super) const PROTOCOL: u32 = 1;
/// The longest message, in octets.
const MESSAGE_MAX: usize = 64 * 1024;
const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);
/// Descriptors in one message; the kernel takes 253.
const DESCRIPTORS_MAX: usize = 200;

/// What one process says to the other.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(tag = "says", rename_all = "snake_case")]
pub(super) enum Message {
    /// The new one: its configuration can be used, and it would bring the store from one schema to another.
    Checked { protocol: u32, pid: u32, version: String, schema: (i64, i64) },
    /// The old one: what it has, the descriptors of which follow.
    Offer(Offer),
    /// The old one: more of the descriptors.
    More,
    /// The new one: it could not begin.
    Failed { why: String },
    /// The new one: it could begin at once.
    Ready,
    /// The old one: it changes nothing any more, so begin.
    Begin,
    /// The new one: it serves, so that the old one need not any more.
    Serving,
    /// The new one needs the sockets of HTTP/3 that the old one still has connections on.
    EndHttp3 { within_ms: u64 },
    /// The old one has none any more.
    Http3Ended,
    /// The old one: the link to a process before it, which speaks with the new one from now on. The oldest first.
    Earlier { pid: u32, process: Holder },
    /// The old one still sees traffic to these containers, which are not to be put to sleep.
    Active { containers: Vec<String> },
    /// The new one ends, and the old one shall, too.
    Stop { within_ms: u64 },
    /// Too many old ones still have something under way, and this is the oldest.
    MakeRoom { within_ms: u64 },
}

/// What a process passes on, in the order of the descriptors.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub(super) struct Offer {
    /// Which process this is, and its name in the store.
    pub(super) pid: u32,
    pub(super) process: Holder,
    /// How many descriptors there are in all. The first is that of the state directory's lock.
    pub(super) descriptors: usize,
    /// How many listeners of TCP come next.
    pub(super) listeners: usize,
    /// The groups of HTTP/3 behind them: which bank is in use, and how many sockets there are.
    pub(super) quic: Vec<(usize, usize)>,
    /// What each server's runtime shares: its name, and which parts there are.
    pub(super) runtimes: Vec<(String, [bool; 2])>,
}

/// One end.
#[derive(Debug)]
pub(super) struct Link(AsyncFd<OwnedFd>);

impl Link {
    /// One end, within tokio.
    pub(super) fn adopt(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self(register(socket)?))
    }

    /// The same end once more, for a last word from wherever it is needed.
    pub(super) fn share(&self) -> io::Result<OwnedFd> {
        self.0.get_ref().try_clone()
    }

    pub(super) async fn send(&self, message: &Message) -> io::Result<()> {
        self.send_with(message, &[]).await
    }

    /// Sends a message with the other link's end.
    pub(super) async fn send_link(&self, message: &Message, link: &Self) -> io::Result<()> {
        self.send_with(message, &[link.0.get_ref().as_fd()]).await
    }

    async fn send_with(&self, message: &Message, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let octets = serde_json::to_vec(message)?;
        self.0.async_io(Interest::WRITABLE, |socket| put(socket, &octets, fds)).await
    }

    /// Sends an offer with its descriptors.
    pub(super) async fn offer(&self, offer: Offer, fds: &[OwnedFd]) -> io::Result<()> {
        self.send(&Message::Offer(Offer { descriptors: fds.len(), ..offer })).await?;
        for some in fds.chunks(DESCRIPTORS_MAX) {
            let some: Vec<_> = some.iter().map(OwnedFd::as_fd).collect();
            self.send_with(&Message::More, &some).await?;
        }
        Ok(())
    }

    /// The next message; nothing when the other end is gone. Cancel-safe.
    pub(super) async fn receive(&self) -> io::Result<Option<Message>> {
        Ok(self.receive_with().await?.map(|(message, _)| message))
    }

    /// The same with the descriptors that have come with it.
    pub(super) async fn receive_with(&self) -> io::Result<Option<(Message, Vec<OwnedFd>)>> {
        let taken = self.0.async_io(Interest::READABLE, take).await;
        let (octets, fds) = match taken {
            // Its end was closed with something unread.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            taken => taken?,
        };
        if octets.is_empty() {
            return Ok(None);
        }
        Ok(Some((serde_json::from_slice(&octets)?, fds)))
    }

    /// Waits for the offer and all its descriptors.
    pub(super) async fn take_offer(&self) -> io::Result<(Offer, Vec<OwnedFd>)> {
        let gone = || io::Error::other("the running process has gone");
        let (message, mut fds) = self.receive_with().await?.ok_or_else(gone)?;
        let Message::Offer(offer) = message else {
            return Err(io::Error::other("the running process offers nothing"));
        };
        while fds.len() < offer.descriptors {
            let (message, more) = self.receive_with().await?.ok_or_else(gone)?;
            if message != Message::More || more.is_empty() {
                return Err(io::Error::other("the running process offers too little"));
            }
            fds.extend(more);
        }
        Ok((offer, fds))
    }
}

/// Where the next process comes to; its name in the file system goes when this is dropped.
#[derive(Debug)]
pub(super) struct Door {
    path: PathBuf,
    listener: AsyncFd<OwnedFd>,
}

impl Door {
    /// Opens it at `path`, for nobody but the owner.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, FLAGS, None)?;
        bind(&socket, &SocketAddrUnix::new(&path)?)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        // Nobody could connect before.
        listen(&socket, 1)?;
        Ok(Self { path, listener: register(socket)? })
    }

    pub(super) async fn let_in(&self) -> io::Result<Link> {
        let accept = |socket: &OwnedFd| Ok(accept_with(socket, FLAGS)?);
        Link::adopt(self.listener.async_io(Interest::READABLE, accept).await?)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // One that is left is removed by the next.
        drop(std::fs::remove_file(&self.path));
    }
}

/// Comes to a door.
pub(super) fn knock(path: &Path) -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, FLAGS, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// Says a last word without waiting; for an end that has no tokio any more.
pub(super) fn say(socket: &OwnedFd, message: &Message) -> io::Result<()> {
    put(socket, &serde_json::to_vec(message)?, &[])
}

#[expect(
    deprecated,
    reason = "the replacement is unsafe, for types whose descriptor may change; this one's cannot"
)]
fn register(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(socket)
}

fn put(socket: &OwnedFd, octets: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::other("too many descriptors for one message"));
    }
    sendmsg(socket, &[IoSlice::new(octets)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn take(socket: &OwnedFd) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut octets = vec![0; MESSAGE_MAX];
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let iov = &mut [IoSliceMut::new(&mut octets)];
    let got = recvmsg(socket, iov, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    octets.truncate(got.bytes);
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(sent) = message {
            fds.extend(sent);
        }
    }
    Ok((octets, fds))
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Read as _};

    use super::*;

    #[tokio::test]
    async fn an_offer_arrives_with_all_its_descriptors_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let door = Door::open(dir.path().join("door")).unwrap();
        let theirs = Link::adopt(knock(&dir.path().join("door")).unwrap()).unwrap();
        let ours = door.let_in().await.unwrap();
        let files: Vec<OwnedFd> = (0..450)
            .map(|number| {
                let path = dir.path().join(number.to_string());
                std::fs::write(&path, number.to_string()).unwrap();
                File::open(path).unwrap().into()
            })
            .collect();
        let offer = Offer { listeners: 3, quic: vec![(1, 4)], ..Offer::default() };
        let (sent, got) = tokio::join!(ours.offer(offer, &files), theirs.take_offer());
        sent.unwrap();
        let (offer, got) = got.unwrap();
        assert_eq!((offer.descriptors, offer.listeners, offer.quic), (450, 3, vec![(1, 4)]));
        for (number, fd) in got.into_iter().enumerate() {
            let mut text = String::new();
            File::from(fd).read_to_string(&mut text).unwrap();
            assert_eq!(text, number.to_string());
        }
        drop(theirs);
        assert_eq!(ours.receive().await.unwrap(), None);
    }
}
