//! What one process leaves to the next that goes on with its containers while it still lives.

use std::os::fd::OwnedFd;

use crate::network::RelaySockets;

/// Descriptors that a runtime shares with the one that follows it in another process.
#[derive(Debug, Default)]
pub struct Bequest {
    /// Of the file whose lock keeps others out of the runtime's directory; the lock is the open file's.
    pub(crate) lock: Option<OwnedFd>,
    /// What the relay to proxies listens on.
    pub(crate) relay: Option<RelaySockets>,
}

impl Bequest {
    /// Takes it apart, to be sent: which parts there are, and the parts in their order.
    pub fn into_parts(self) -> ([bool; 2], Vec<OwnedFd>) {
        let present = [self.lock.is_some(), self.relay.is_some()];
        let relay = self.relay.map(|sockets| [sockets.tcp, sockets.udp]);
        (present, self.lock.into_iter().chain(relay.into_iter().flatten()).collect())
    }

    /// Puts it together from what [`Bequest::into_parts`] gave, taking the parts from the front of `parts`;
    /// nothing if they are not all there.
    pub fn from_parts(
        [has_lock, has_relay]: [bool; 2],
        parts: &mut impl Iterator<Item = OwnedFd>,
    ) -> Option<Self> {
        let mut bequest = Self::default();
        if has_lock {
            bequest.lock = Some(parts.next()?);
        }
        if has_relay {
            bequest.relay = Some(RelaySockets { tcp: parts.next()?, udp: parts.next()? });
        }
        Some(bequest)
    }
}
