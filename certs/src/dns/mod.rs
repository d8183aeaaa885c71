//! DNS-01: TXT records at the zone's authority.
//!
//! A [`DnsProvider`] appends and removes single values and never replaces a record set: two orders
//! for one name, or a record that somebody else keeps there, must not destroy each other's.

//!
//! Three providers are here: [`Rfc2136`] for servers of the operator's own, [`AcmeDns`], and [`Hook`],
//! a program that does what none of these can. Where a value must be written and when the world sees
//! it is [`Propagation`]'s to say, whoever wrote it.

mod acme_dns;
mod caa;
mod config;
mod delegation;
mod hook;
mod inquiry;
mod propagation;
mod rfc2136;
mod wire;

use std::{fmt, time::Duration};

pub use acme_dns::AcmeDns;
pub(crate) use caa::{Caa, Wish};
pub use config::{
    AcmeDnsConfig, DnsConfig, ExecConfig, Fault, KeyAlgorithm, KeySecret, PropagationConfig,
    Rfc2136Config,
};
pub use hook::Hook;
pub use propagation::Propagation;
pub use rfc2136::Rfc2136;

use hickory_proto::rr::Name;

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

    /// Whether one value more than those of an order may take the place of one of them.
    fn keeps_few(&self) -> bool {
        false
    }
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

/// An absolute name from its text; an error says which text it was.
fn absolute(text: &str) -> Result<Name, DnsError> {
    let mut name = Name::from_ascii(text)
        .map_err(|error| DnsError::new(format!("{text:?} is no name of the DNS: {error}")))?;
    name.set_fqdn(true);
    Ok(name.to_lowercase())
}

/// A name as people write it: lower-case, without the dot at the end.
fn written(name: &Name) -> String {
    let text = name.to_lowercase().to_ascii();
    text.strip_suffix('.').map_or_else(|| text.clone(), str::to_owned)
}

/// A time as people write it.
fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs_f32())
}
