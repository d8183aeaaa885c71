//! What the edge gives a browser and wants back unchanged: sessions, and the state and the one-time
//! code of a sign-in. None of it has to be kept: it is sealed, and bound to one host and one container.
//! Sessions are sealed with a key that outlives the process. The others, which count once, are sealed
//! with a key of the process that remembers which of them it has seen.

use std::{
    collections::{HashSet, VecDeque},
    fmt,
};

use aws_lc_rs::hmac::{self, HMAC_SHA256};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use gantry_model::ContainerId;

use crate::deps::SessionKey;

/// How long a session lasts.
pub(crate) const SESSION_S: i64 = 12 * 3600;
/// How long a sign-in page can be sent in.
const STATE_S: i64 = 600;
/// How long a one-time code can be exchanged.
const CODE_S: i64 = 60;

/// What a seal is for; one never passes as another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Use {
    Session = 1,
    State = 2,
    Code = 3,
}

impl Use {
    const fn seconds(self) -> i64 {
        match self {
            Self::Session => SESSION_S,
            Self::State => STATE_S,
            Self::Code => CODE_S,
        }
    }
}

/// What a seal is bound to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound<'b> {
    pub(crate) hostname: &'b str,
    pub(crate) container: ContainerId,
    /// More of it, such as a password's hash: whoever changes it breaks the seal.
    pub(crate) rest: &'b [&'b [u8]],
}

/// A random number that makes each seal another one.
pub(crate) type Nonce = [u8; 16];

/// What a sealed text says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub(crate) nonce: Nonce,
    /// When it is over, in milliseconds since the epoch.
    pub(crate) until_ms: i64,
}

/// The keys of both kinds.
pub(crate) struct Seal {
    sessions: hmac::Key,
    once: hmac::Key,
}

impl Seal {
    /// Seals sessions with this key, and the rest with a new one.
    pub(crate) fn new(sessions: &SessionKey) -> Result<Self, getrandom::Error> {
        let mut once = [0; 32];
        getrandom::fill(&mut once)?;
        let key = |octets| hmac::Key::new(HMAC_SHA256, octets);
        Ok(Self { sessions: key(sessions.octets()), once: key(&once) })
    }

    const fn key(&self, of: Use) -> &hmac::Key {
        match of {
            Use::Session => &self.sessions,
            Use::State | Use::Code => &self.once,
        }
    }

    /// A sealed text: the moment of its end, a nonce and the seal, in letters that a cookie, a form and
    /// a query take as they are.
    pub(crate) fn issue(&self, of: Use, bound: &Bound<'_>, nonce: Nonce, now_ms: i64) -> String {
        let ends_s = now_ms.div_euclid(1000).saturating_add(of.seconds());
        let mut octets = Vec::with_capacity(56);
        octets.extend_from_slice(&ends_s.to_be_bytes());
        octets.extend_from_slice(&nonce);
        let seal = hmac::sign(self.key(of), &message(of, bound, &octets));
        octets.extend_from_slice(seal.as_ref());
        URL_SAFE_NO_PAD.encode(octets)
    }

    /// What a sealed text says that is whole, ours, bound to this, and not over.
    pub(crate) fn check(
        &self,
        of: Use,
        bound: &Bound<'_>,
        text: &[u8],
        now_ms: i64,
    ) -> Option<Sealed> {
        const LENGTH: usize = 56;
        let mut octets = [0; LENGTH];
        if URL_SAFE_NO_PAD.decode_slice(text, &mut octets).ok()? != LENGTH {
            return None;
        }
        let (head, seal) = octets.split_at(24);
        hmac::verify(self.key(of), &message(of, bound, head), seal).ok()?;
        let (ends_s, nonce) = head.split_at(8);
        let ends_s = i64::from_be_bytes(ends_s.try_into().ok()?);
        let sealed =
            Sealed { nonce: nonce.try_into().ok()?, until_ms: ends_s.saturating_mul(1000) };
        (now_ms.div_euclid(1000) < ends_s).then_some(sealed)
    }
}

/// What is sealed.
fn message(of: Use, bound: &Bound<'_>, head: &[u8]) -> Vec<u8> {
    let mut message = vec![of as u8];
    message.extend_from_slice(head);
    message.extend_from_slice(bound.container.as_bytes());
    // With their lengths, so that no two lists of parts look alike.
    for part in [bound.hostname.as_bytes()].iter().chain(bound.rest) {
        message.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        message.extend_from_slice(part);
    }
    message
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal")
    }
}

/// The nonces that have been used, as far as they are not over: the most recent ones.
#[derive(Debug, Default)]
pub(crate) struct Used {
    nonces: HashSet<Nonce>,
    order: VecDeque<Nonce>,
}

impl Used {
    /// The most that are remembered. Each took a sign-in or a try at one.
    const MAX: usize = 16 * 1024;

    /// Uses a nonce; false if it was used before.
    pub(crate) fn once(&mut self, nonce: Nonce) -> bool {
        if !self.nonces.insert(nonce) {
            return false;
        }
        self.order.push_back(nonce);
        if self.order.len() > Self::MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.nonces.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_800_000_000_000;

    #[test]
    fn a_seal_holds_for_its_use_its_place_and_its_time() {
        let seal = Seal::new(&SessionKey::new([3; 32])).unwrap();
        let container = ContainerId::from_bytes([1; 12]);
        let other = ContainerId::from_bytes([2; 12]);
        let bound = |hostname, container, rest| Bound { hostname, container, rest };
        let good = bound("a.example", container, &[b"ab", b"c"]);
        let text = seal.issue(Use::Code, &good, [7; 16], NOW_MS);
        let check = |of, bound: &Bound<'_>, text: &str, now_ms| {
            seal.check(of, bound, text.as_bytes(), now_ms).map(|sealed| sealed.nonce)
        };
        assert_eq!(check(Use::Code, &good, &text, NOW_MS + 59_000), Some([7; 16]));
        assert_eq!(check(Use::Code, &good, &text, NOW_MS + 60_000), None);
        let sealed = seal.check(Use::Code, &good, text.as_bytes(), NOW_MS).unwrap();
        assert_eq!(sealed.until_ms, NOW_MS + 60_000);
        assert_eq!(check(Use::Session, &good, &text, NOW_MS), None);
        for elsewhere in [
            bound("b.example", container, &[b"ab", b"c"]),
            bound("a.example", other, &[b"ab", b"c"]),
            bound("a.example", container, &[b"a", b"bc"]),
            bound("a.example", container, &[b"ab"]),
            bound("a.example", container, &[b"ab", b"c", b""]),
        ] {
            assert_eq!(check(Use::Code, &elsewhere, &text, NOW_MS), None);
        }
        for broken in ["", "AAAA", text.get(1..).unwrap(), &format!("{text}A"), &format!("A{text}")]
        {
            assert_eq!(check(Use::Code, &good, broken, NOW_MS), None, "{broken}");
        }
        for at in 0..text.len() {
            let mut octets = text.clone().into_bytes();
            octets[at] = if octets[at] == b'A' { b'B' } else { b'A' };
            let broken = String::from_utf8(octets).unwrap();
            assert_eq!(check(Use::Code, &good, &broken, NOW_MS), None, "{broken}");
        }
        for (key, of, want) in [
            ([3; 32], Use::Code, None),
            ([3; 32], Use::Session, Some([7; 16])),
            ([4; 32], Use::Session, None),
        ] {
            let other = Seal::new(&SessionKey::new(key)).unwrap();
            let text = other.issue(of, &good, [7; 16], NOW_MS);
            assert_eq!(check(of, &good, &text, NOW_MS), want, "{key:?} {of:?}");
        }
    }

    #[test]
    fn a_nonce_is_used_once_and_the_memory_of_it_is_bounded() {
        let mut used = Used::default();
        assert!(used.once([1; 16]));
        assert!(!used.once([1; 16]));
        for number in 0..u32::try_from(Used::MAX).unwrap() {
            let mut nonce = [0; 16];
            nonce[..4].copy_from_slice(&number.to_be_bytes());
            assert!(used.once(nonce));
        }
        assert_eq!((used.nonces.len(), used.order.len()), (Used::MAX, Used::MAX));
    }
}
