//! From columns to values and back.
//!
//! A column that does not hold what it must is [`Error::Corrupt`]; the text says which.

use std::net::IpAddr;

use gantry_model::{Id, Phase};
use sqlx::{Decode, Row as _, Type};

use crate::{
    error::{Error, Result},
    sqlite::{Db, Row},
};

/// The value of a column that the driver knows how to read.
pub(crate) fn get<'r, T: Decode<'r, Db> + Type<Db>>(row: &'r Row, column: &str) -> Result<T> {
    row.try_get(column).map_err(|error| Error::Corrupt { what: error.to_string() })
}

/// Twelve octets.
pub(crate) fn id<K>(row: &Row, column: &str) -> Result<Id<K>> {
    octets(row, column).map(Id::from_bytes)
}

/// Twelve octets, or none.
pub(crate) fn optional_id<K>(row: &Row, column: &str) -> Result<Option<Id<K>>> {
    let bytes: Option<&[u8]> = get(row, column)?;
    let id = bytes.map(|bytes| bytes.try_into().map(Id::from_bytes));
    id.transpose().map_err(|_error| damaged(column, "has a wrong length"))
}

/// Exactly `N` octets.
pub(crate) fn octets<const N: usize>(row: &Row, column: &str) -> Result<[u8; N]> {
    let bytes: &[u8] = get(row, column)?;
    bytes.try_into().map_err(|_error| damaged(column, "has a wrong length"))
}

/// A count.
pub(crate) fn count(row: &Row, column: &str) -> Result<u64> {
    natural(get(row, column)?, column)
}

/// A count that was read already.
pub(crate) fn natural(value: i64, column: &str) -> Result<u64> {
    u64::try_from(value).map_err(|_error| damaged(column, "is negative"))
}

/// The column form of a count. What is too great for a column is greater than everything in it.
pub(crate) fn integer(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The word of a phase.
pub(crate) fn phase(row: &Row, column: &str) -> Result<Phase> {
    let word: &str = get(row, column)?;
    Phase::from_word(word).ok_or_else(|| damaged(column, "is no phase"))
}

/// An address, or none.
pub(crate) fn address(row: &Row, column: &str) -> Result<Option<IpAddr>> {
    let text: Option<&str> = get(row, column)?;
    text.map(str::parse).transpose().map_err(|_error| damaged(column, "is no address"))
}

/// Says which column is wrong.
pub(crate) fn damaged(column: &str, what: &str) -> Error {
    Error::Corrupt { what: format!("{column} {what}") }
}

/// Adds to an error of decoding whose record it was.
pub(crate) fn of<K>(kind: &'static str, id: Id<K>) -> impl FnOnce(Error) -> Error {
    move |error| match error {
        Error::Corrupt { what } => Error::Corrupt { what: format!("{kind} {id}: {what}") },
        other @ (Error::NotFound
        | Error::Stale
        | Error::NameTaken
        | Error::KeyTaken
        | Error::AliasTaken
        | Error::LabelTaken { .. }
        | Error::AliasLimit { .. }
        | Error::SnapshotLimit { .. }
        | Error::SnapshotQuota { .. }
        | Error::PoolFull { .. }
        | Error::SnapshotBusy
        | Error::ShareLimit { .. }
        | Error::VaultKeyLimit { .. }
        | Error::VaultSizeLimit { .. }
        | Error::TokenLimit { .. }
        | Error::PublicKeyTaken
        | Error::PublicStorageLimit { .. }
        | Error::HostnameTaken
        | Error::UsernameTaken
        | Error::IdTaken
        | Error::QuotaReached { .. }
        | Error::OverQuota { .. }
        | Error::ProjectGone
        | Error::MemberExists
        | Error::MembersPresent
        | Error::RamdiskShared
        | Error::MemberLimit { .. }
        | Error::MembershipLimit { .. }
        | Error::NotEmpty
        | Error::Unavailable(_)) => other,
    }
}
