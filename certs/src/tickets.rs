//! Tickets of TLS sessions (RFC 8446, section 4.6.1; RFC 5077), sealed with keys that all edges of a store
//! share: a client resumes its session with whichever edge it gets, and after a restart.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use gantry_model::Chain;
use gantry_store::{Store, TicketKey};
use rustls::server::ProducesTickets;

use crate::{Clock, Seal, acme::ms};

/// How long a key seals new tickets.
const ROTATION: Duration = Duration::from_hours(6);
/// How long a key opens tickets: its own time and two more.
const KEPT: Duration = Duration::from_hours(18);
/// How long a client may keep a ticket: none outlives the key that opens it.
const LIFETIME: Duration = Duration::from_hours(12);
/// How far the clocks of machines with one store may be apart: a key is taken from one that is ahead.
const APART: Duration = Duration::from_mins(1);
const ID_LEN: usize = 16;
const KEY_LEN: usize = 32;
const CONTEXT: &str = "key of session tickets";

/// Seals tickets with the newest key of the store and opens them with any.
pub struct Tickets {
    store: Store,
    seal: Arc<dyn Seal>,
    clock: Clock,
    keys: ArcSwap<Vec<Key>>,
    /// When it was looked whether the newest key is old enough, and when to look again.
    looked_ms: Mutex<(i64, i64)>,
}

struct Key {
    id: [u8; ID_LEN],
    created_at_ms: i64,
    cipher: RandomizedNonceKey,
}

impl Tickets {
    pub(crate) fn new(store: Store, seal: Arc<dyn Seal>, clock: Clock) -> Self {
        let keys = ArcSwap::default();
        Self { store, seal, clock, keys, looked_ms: Mutex::default() }
    }

    /// Puts a new key into the store if the newest is old; of several processes one does.
    pub(crate) async fn rotate(&self) {
        let now = ms((self.clock)());
        let (looked, next) = *self.looked_ms.lock().unwrap_or_else(PoisonError::into_inner);
        // By a clock that was set back, it was looked in the future.
        if (looked..next).contains(&now) {
            return;
        }
        let next = match self.add(now).await {
            // Soon again: another process may be the one that adds the next.
            Ok(()) => now + 60_000,
            Err(error) => {
                tracing::warn!(error, "session tickets keep their old key");
                now + 10_000
            }
        };
        *self.looked_ms.lock().unwrap_or_else(PoisonError::into_inner) = (now, next);
    }

    async fn add(&self, now: i64) -> Result<(), String> {
        let newest = self.keys.load().first().map(|key| key.created_at_ms);
        let latest = now + millis(APART);
        if newest.is_some_and(|newest| newest > now - millis(ROTATION) && newest <= latest) {
            return Ok(());
        }
        let (mut id, mut key) = ([0; ID_LEN], [0; KEY_LEN]);
        getrandom::fill(&mut id).map_err(|error| error.to_string())?;
        getrandom::fill(&mut key).map_err(|error| error.to_string())?;
        let key_sealed = self.seal.seal(CONTEXT, &key).map_err(|error| error.to_string())?;
        let new = TicketKey { id, key_sealed, created_at_ms: now };
        let (newer, older) = (now - millis(ROTATION), now - millis(KEPT + APART));
        let added = self.store.rotate_ticket_keys(&new, newer, older, latest).await;
        added.map_err(|error| Chain(&error).to_string())
    }

    /// Takes the keys of the store up, the newest first.
    pub(crate) fn take_up(&self, keys: &[TicketKey]) {
        let mut taken = Vec::with_capacity(keys.len());
        for key in keys {
            match self.open(key) {
                Ok(key) => taken.push(key),
                Err(error) => tracing::warn!(error, "a key of session tickets is left out"),
            }
        }
        self.keys.store(Arc::new(taken));
    }

    fn open(&self, key: &TicketKey) -> Result<Key, String> {
        let octets = self.seal.open(CONTEXT, &key.key_sealed).map_err(|error| error.to_string())?;
        let cipher = RandomizedNonceKey::new(&AES_256_GCM, &octets)
            .map_err(|_why| "it has a wrong length".to_owned())?;
        Ok(Key { id: key.id, created_at_ms: key.created_at_ms, cipher })
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(LIFETIME.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let keys = self.keys.load();
        let key = keys.first()?;
        let mut body = plain.to_vec();
        let nonce = key.cipher.seal_in_place_append_tag(Aad::from(&key.id), &mut body).ok()?;
        let mut ticket = Vec::with_capacity(ID_LEN + NONCE_LEN + body.len());
        ticket.extend_from_slice(&key.id);
        ticket.extend_from_slice(nonce.as_ref());
        ticket.append(&mut body);
        Some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (id, rest) = ticket.split_first_chunk::<ID_LEN>()?;
        let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>()?;
        let keys = self.keys.load();
        let key = keys.iter().find(|key| key.id == *id)?;
        let mut body = body.to_vec();
        let plain = key.cipher.open_in_place(Nonce::from(nonce), Aad::from(id), &mut body).ok()?;
        let len = plain.len();
        body.truncate(len);
        Some(body)
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").field("keys", &self.keys.load().len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use time::OffsetDateTime;

    use super::*;
    use crate::seal::Open;

    const HOUR: i64 = 3600;

    struct Edge {
        tickets: Tickets,
        clock: Arc<AtomicI64>,
    }

    impl Edge {
        fn new(store: &Store) -> Self {
            let clock = Arc::new(AtomicI64::new(0));
            let seconds = Arc::clone(&clock);
            let start = OffsetDateTime::now_utc();
            let now = move || start + time::Duration::seconds(seconds.load(Ordering::Relaxed));
            Self { tickets: Tickets::new(store.clone(), Arc::new(Open), Arc::new(now)), clock }
        }

        /// A round at this time; gives a ticket, and how many keys there are.
        async fn at(&self, seconds: i64) -> (Vec<u8>, usize) {
            self.clock.store(seconds, Ordering::Relaxed);
            self.tickets.rotate().await;
            let keys = self.tickets.store.ticket_keys().await.unwrap();
            self.tickets.take_up(&keys);
            (self.tickets.encrypt(b"a session").unwrap(), keys.len())
        }

        fn opens(&self, ticket: &[u8]) -> bool {
            self.tickets.decrypt(ticket).as_deref() == Some(b"a session")
        }
    }

    fn key(ticket: &[u8]) -> Option<&[u8]> {
        ticket.get(..ID_LEN)
    }

    #[tokio::test]
    async fn keys_take_turns_and_open_for_as_long_as_tickets_live() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store.db")).await.unwrap();
        let edge = Edge::new(&store);
        let (first, _) = edge.at(0).await;
        let (still, count) = edge.at(6 * HOUR - 1).await;
        assert_eq!((key(&still), count), (key(&first), 1), "until its time is over");
        let (second, count) = edge.at(6 * HOUR + 60).await;
        assert!(key(&second) != key(&first) && count == 2);
        // The last ticket of the first key may be kept for 12 hours.
        let (_, count) = edge.at(18 * HOUR - 1).await;
        assert!(edge.opens(&first) && edge.opens(&still) && edge.opens(&second) && count == 3);
        let (_, count) = edge.at(24 * HOUR + 30).await;
        assert!(!edge.opens(&first) && edge.opens(&second), "{count} keys");
        // Not one octet may be another.
        for at in 0..second.len() {
            let mut changed = second.clone();
            *changed.get_mut(at).unwrap() ^= 1;
            assert!(!edge.opens(&changed), "octet {at}");
        }
        store.close().await;
    }

    #[tokio::test]
    async fn edges_whose_clocks_differ_a_little_share_their_keys() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store.db")).await.unwrap();
        let (ahead, behind) = (Edge::new(&store), Edge::new(&store));
        let (first, _) = behind.at(0).await;
        let (second, _) = ahead.at(6 * HOUR + 60).await;
        assert!(key(&second) != key(&first));
        let (same, count) = behind.at(6 * HOUR + 5).await;
        assert_eq!((key(&same), count), (key(&second), 2), "55 s behind");
        assert!(behind.opens(&second) && ahead.opens(&same));
        // The last ticket of the first key lives on by the clock that is behind.
        let (_, _) = ahead.at(18 * HOUR + 55).await;
        behind.at(18 * HOUR).await;
        assert!(behind.opens(&first));
        // More than a minute is a clock that was set back.
        let (other, _) = behind.at(-61).await;
        assert!(key(&other) != key(&second) && key(&other) != key(&first));
        store.close().await;
    }

    /// Keys of a time that is yet to come would seal everything until then.
    #[tokio::test]
    async fn a_clock_that_is_set_back_makes_another_key() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store.db")).await.unwrap();
        let (edge, other) = (Edge::new(&store), Edge::new(&store));
        let (ahead, _) = edge.at(48 * HOUR).await;
        let (present, count) = edge.at(0).await;
        assert!(key(&present) != key(&ahead) && count == 1);
        assert!(edge.opens(&present) && !edge.opens(&ahead));
        // Of two with one store the other one takes what there is.
        let (same, count) = other.at(1).await;
        assert_eq!((key(&same), count), (key(&present), 1));
        assert!(other.opens(&present));
        store.close().await;
    }
}
