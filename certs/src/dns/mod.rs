//! DNS-01: TXT records at the zone's authority.
//!
//! A [`DnsProvider`] appends and removes single values and never replaces a record set: two orders
//! for one name, or a record that somebody else keeps there, must not destroy each other's.

use std::fmt;

/// A TXT record of one validation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Txt {
    /// The absolute name without a trailing dot, lower-case: `_acme-challenge.` and the domain.
    pub name: String,
    /// The text: 43 characters of base64url.
    pub value: String,
}

/// Puts TXT records where the world's resolvers will find them.
///
/// Both calls may be repeated: what is there already, or gone already, is success.
#[async_trait::async_trait]
pub trait DnsProvider: fmt::Debug + Send + Sync {
    /// Adds the value to the record set at its name; the values that are there stay.
    async fn append(&self, record: &Txt) -> Result<(), DnsError>;

    /// Takes this value out of the record set at its name, and no other.
    async fn remove(&self, record: &Txt) -> Result<(), DnsError>;
}

/// Why a record could not be changed or has not appeared. The text is for the operator: it names
/// the server, what was asked, and what would be right.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct DnsError {
    text: String,
}

impl DnsError {
    /// An error with a text for the operator.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into() }
    }
}
