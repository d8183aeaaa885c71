//! Sealing: what shall not be readable in the store, nor in a copy of it.
//!
//! AES-256-GCM with a random nonce, under a key that lies in a file beside the store. What a text is
//! sealed *for* (whose it is, what it is called) goes into the associated data, so that a row that is
//! moved elsewhere does not open there. A sealed text is one octet that says its form, eight that name the
//! key, the nonce, the ciphertext and its tag.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::error::{Error, Result};

/// The form of sealed texts that this version writes.
const FORM: u8 = 1;
const KEY_ID_LEN: usize = 8;

/// The keys of an installation. The last one seals; every one opens what it has sealed.
pub struct SealingKeys {
    newest: Key,
    older: Vec<Key>,
}

struct Key {
    id: [u8; KEY_ID_LEN],
    cipher: RandomizedNonceKey,
}

/// Why a sealed text cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unopened {
    /// It was sealed with a key that is not among those of the installation.
    #[error(
        "it was sealed with the key {key}, which is not in sealing.key any more; put the file back as \
         it was"
    )]
    UnknownKey {
        /// The id of the key.
        key: String,
    },
    /// It is not as it was sealed, or lies where something else was sealed.
    #[error("a sealed record is damaged or is not where it belongs")]
    Damaged,
}

impl SealingKeys {
    /// Takes keys, the oldest first: at least one, or nothing could be sealed.
    pub fn new(keys: &[[u8; 32]]) -> Result<Self> {
        let mut keys = keys.iter().map(Key::new).collect::<Result<Vec<_>>>()?;
        let newest = keys.pop().ok_or_else(|| Error::internal("there is no sealing key"))?;
        Ok(Self { newest, older: keys })
    }

    /// Seals a text for `context`.
    pub fn seal(&self, context: &[u8], text: &[u8]) -> Result<Vec<u8>> {
        let mut body = Vec::with_capacity(text.len() + AES_256_GCM.tag_len());
        body.extend_from_slice(text);
        let nonce = self
            .newest
            .cipher
            .seal_in_place_append_tag(Aad::from(context), &mut body)
            .map_err(|_why| Error::internal("a text cannot be sealed"))?;
        let mut sealed = Vec::with_capacity(1 + KEY_ID_LEN + NONCE_LEN + body.len());
        sealed.push(FORM);
        sealed.extend_from_slice(&self.newest.id);
        sealed.extend_from_slice(nonce.as_ref());
        sealed.append(&mut body);
        Ok(sealed)
    }

    /// Whether the newest key has sealed this.
    pub(crate) fn is_of_newest(&self, sealed: &[u8]) -> bool {
        sealed.get(1..=KEY_ID_LEN) == Some(self.newest.id.as_slice())
    }

    /// Opens what was sealed for `context`.
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Unopened> {
        let (form, rest) = sealed.split_first().ok_or(Unopened::Damaged)?;
        let (id, rest) = rest.split_first_chunk::<KEY_ID_LEN>().ok_or(Unopened::Damaged)?;
        let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>().ok_or(Unopened::Damaged)?;
        if *form != FORM {
            return Err(Unopened::Damaged);
        }
        let mut keys = std::iter::once(&self.newest).chain(&self.older);
        let key = keys.find(|key| key.id == *id);
        let key = key.ok_or_else(|| Unopened::UnknownKey { key: hex::encode(id) })?;
        let mut body = body.to_vec();
        let text = key
            .cipher
            .open_in_place(Nonce::from(nonce), Aad::from(context), &mut body)
            .map_err(|_why| Unopened::Damaged)?;
        let len = text.len();
        body.truncate(len);
        Ok(body)
    }
}

impl Key {
    fn new(octets: &[u8; 32]) -> Result<Self> {
        let cipher = RandomizedNonceKey::new(&AES_256_GCM, octets)
            .map_err(|_why| Error::internal("a sealing key is not usable"))?;
        // One way: the id stands in the store.
        let mut mac = Hmac::<Sha256>::new_from_slice(octets).map_err(Error::internal)?;
        mac.update(b"gantry sealing key id");
        let digest: [u8; 32] = mac.finalize().into_bytes().into();
        let mut id = [0; KEY_ID_LEN];
        id.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        Ok(Self { id, cipher })
    }
}

impl fmt::Debug for SealingKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealingKeys")
            .field("newest", &hex::encode(self.newest.id))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_for_its_own_context_only_and_as_it_was_only() {
        let keys = SealingKeys::new(&[[1; 32]]).unwrap();
        let sealed = keys.seal(b"mine", b"a secret").unwrap();
        assert!(!sealed.windows(8).any(|part| part == b"a secret"));
        assert_eq!(keys.open(b"mine", &sealed).unwrap(), b"a secret");
        assert_ne!(keys.seal(b"mine", b"a secret").unwrap(), sealed, "no two are alike");
        assert_eq!(keys.open(b"yours", &sealed), Err(Unopened::Damaged));
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(keys.open(b"mine", &changed).is_err(), "octet {at}");
            assert!(keys.open(b"mine", &sealed[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_new_key_seals_and_the_old_one_still_opens() {
        let old = SealingKeys::new(&[[1; 32]]).unwrap();
        let both = SealingKeys::new(&[[1; 32], [2; 32]]).unwrap();
        let new = SealingKeys::new(&[[2; 32]]).unwrap();
        let (early, late) = (old.seal(b"c", b"1").unwrap(), both.seal(b"c", b"2").unwrap());
        assert_eq!(both.open(b"c", &early).unwrap(), b"1");
        assert!(both.is_of_newest(&late) && !both.is_of_newest(&early) && !both.is_of_newest(b""));
        assert_eq!(new.open(b"c", &late).unwrap(), b"2");
        let why = new.open(b"c", &early).unwrap_err();
        let Unopened::UnknownKey { key } = &why else { panic!("{why:?}") };
        assert_eq!(key.len(), 16);
        assert!(why.to_string().contains("sealing.key"), "{why}");
        assert!(SealingKeys::new(&[]).is_err());
    }
}
