//! Ids: twelve random bytes, written as 24 lower-case hexadecimal digits.
//!
//! Ids of projects and containers are secret-grade: a URL that contains both is a credential unless
//! permissions say otherwise. They are therefore made from a cryptographic generator by the caller,
//! never counted up. Upper-case digits are refused: the text form is the contract with the clients,
//! and one id has one spelling. (Hostnames are lower-cased before they are parsed.)

use std::{fmt, marker::PhantomData, str::FromStr};

/// The length of an id's text form, in octets.
pub const TEXT_LEN: usize = 24;

/// Twelve bytes that name one thing of kind `K`; two kinds do not mix.
pub struct Id<K>([u8; 12], PhantomData<fn() -> K>);

/// Why a text is no id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an id is 24 lower-case hexadecimal digits")]
pub struct InvalidId;

/// The kinds of ids; they have no values.
pub mod kind {
    /// Names a container.
    #[derive(Debug)]
    pub enum Container {}
    /// Names a project.
    #[derive(Debug)]
    pub enum Project {}
    /// Names a server (one edge machine).
    #[derive(Debug)]
    pub enum Server {}
    /// Names a user account.
    #[derive(Debug)]
    pub enum User {}
    /// Names a realm, a label that segregates the API.
    #[derive(Debug)]
    pub enum Realm {}
    /// Names a long-lived API token (not its secret).
    #[derive(Debug)]
    pub enum Token {}
    /// Names an image of the catalogue.
    #[derive(Debug)]
    pub enum Image {}
    /// Names an entry of a container's status log.
    #[derive(Debug)]
    pub enum Log {}
    /// Names an alias (not its label).
    #[derive(Debug)]
    pub enum Alias {}
    /// Names an event.
    #[derive(Debug)]
    pub enum Event {}
    /// Names a hook.
    #[derive(Debug)]
    pub enum Hook {}
    /// Names a snapshot (not what its owner calls it).
    #[derive(Debug)]
    pub enum Snapshot {}
    /// Names what a user may do with a project of another one.
    #[derive(Debug)]
    pub enum Member {}
    /// Names a storage share.
    #[derive(Debug)]
    pub enum Share {}
    /// Names what the side that receives a share says of it.
    #[derive(Debug)]
    pub enum ShareMount {}
}

/// The id of a container.
pub type ContainerId = Id<kind::Container>;
/// The id of a project.
pub type ProjectId = Id<kind::Project>;
/// The id of a server.
pub type ServerId = Id<kind::Server>;
/// The id of a user.
pub type UserId = Id<kind::User>;
/// The id of a realm.
pub type RealmId = Id<kind::Realm>;
/// The id of an API token.
pub type TokenId = Id<kind::Token>;
/// The id of an image.
pub type ImageId = Id<kind::Image>;
/// The id of a status log entry.
pub type LogId = Id<kind::Log>;
/// The id of an alias.
pub type AliasId = Id<kind::Alias>;
/// The id of a storage share.
pub type ShareId = Id<kind::Share>;
/// The id of what the side that receives a share says of it.
pub type ShareMountId = Id<kind::ShareMount>;
/// The id of an event.
pub type EventId = Id<kind::Event>;
/// The id of a hook.
pub type HookId = Id<kind::Hook>;
/// The id of a snapshot.
pub type SnapshotId = Id<kind::Snapshot>;
/// Names what a user may do with a project of another one.
pub type MemberId = Id<kind::Member>;

impl<K> Id<K> {
    /// The id with these bytes.
    pub const fn from_bytes(bytes: [u8; 12]) -> Self {
        Self(bytes, PhantomData)
    }

    /// The bytes of the id.
    pub const fn as_bytes(&self) -> &[u8; 12] {
        &self.0
    }

    /// Parses the text form from the octets of a hostname; no allocation.
    pub fn parse_bytes(text: &[u8]) -> Result<Self, InvalidId> {
        let text: &[u8; TEXT_LEN] = text.try_into().map_err(|_wrong_length| InvalidId)?;
        // Every request reads two ids: loops without branches, of which the compiler makes vectors.
        let digits = text.map(digit);
        let bad = digits.iter().fold(0, |bad, digit| bad | digit);
        let mut bytes = [0; 12];
        for (byte, [high, low]) in bytes.iter_mut().zip(digits.as_chunks::<2>().0) {
            *byte = high << 4 | (low & 0x0f);
        }
        if bad < 0x10 { Ok(Self::from_bytes(bytes)) } else { Err(InvalidId) }
    }
}

/// The value of a lower-case hexadecimal digit; 0xff for every other octet.
const fn digit(octet: u8) -> u8 {
    let (number, letter) = (octet.wrapping_sub(b'0'), octet.wrapping_sub(b'a'));
    if number < 10 {
        number
    } else if letter < 6 {
        letter + 10
    } else {
        0xff
    }
}

impl<K> FromStr for Id<K> {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        Self::parse_bytes(text.as_bytes())
    }
}

impl<K> fmt::Display for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; TEXT_LEN];
        hex::encode_to_slice(self.0, &mut text).map_err(|_wrong_length| fmt::Error)?;
        f.write_str(std::str::from_utf8(&text).map_err(|_not_ascii| fmt::Error)?)
    }
}

// Written out, because derives would demand the same of `K`.
impl<K> Clone for Id<K> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<K> Copy for Id<K> {}
impl<K> PartialEq for Id<K> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl<K> Eq for Id<K> {}
impl<K> PartialOrd for Id<K> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<K> Ord for Id<K> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}
impl<K> std::hash::Hash for Id<K> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}
impl<K> fmt::Debug for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
