//! Certificates from CAs that speak ACME (RFC 8555).
//!
//! An [`Issuer`] looks after all of an installation: it orders what is wanted, renews it when its CA suggests
//! (RFC 9773) or at two thirds of its life, and tries again after failures, ever more slowly. Of several
//! processes with one store one at a time works at a certificate: it holds a lease, and each of its writes
//! names the lease's fence.
//!
//! Invariants: an order and its key are in the store before the CA hears of them, so that whatever is cut
//! off is resumed; what was published is in the store before it is published, so that it is removed again; a
//! CA that says when it wants to be asked again is not asked before; a key is used for one certificate.

mod account;
mod attempt;
mod budget;
mod by_key;
mod client;
mod demand;
mod failure;
mod figures;
mod issuer;
mod plan;
mod prove;
mod revoke;
mod shared;
mod suggestion;

use std::{fmt, sync::Arc};

pub(crate) use self::{
    account::uri,
    attempt::{key_context, ms},
    budget::{Cost, Reached, renews},
    shared::is_of,
};
pub use self::{
    budget::Limits,
    client::{Https, Transport, TransportError},
    figures::Figures,
    issuer::{Issuer, IssuerDeps, Wanted},
    revoke::{Reason, RevokeError, UnknownReason, await_revoked, revoke},
};
use crate::dns::{DnsProvider, Propagation};

/// A CA and how it is spoken to.
#[derive(Clone, Debug)]
pub struct Authority {
    /// The address of its directory.
    pub directory: String,
    /// Where it may write to, such as `mailto:admin@example.com`.
    pub contact: Vec<String>,
    /// The account that it knows us by elsewhere, if it asks for one (RFC 8555, section 7.3.4).
    pub external_account: Option<ExternalAccount>,
    /// Which of its profiles certificates are wanted by.
    pub profile: Option<String>,
    /// How much may be asked of it.
    pub limits: Limits,
    /// The way to it.
    pub transport: Arc<dyn Transport>,
}

/// An account elsewhere that vouches for ours.
#[derive(Clone)]
pub struct ExternalAccount {
    /// The name of its key.
    pub key_id: String,
    /// Its key for HMAC-SHA256.
    pub key: Vec<u8>,
}

impl fmt::Debug for ExternalAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExternalAccount").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// How names of ours are proved at the domain name system.
#[derive(Clone, Debug)]
pub struct Dns {
    /// Writes records.
    pub provider: Arc<dyn DnsProvider>,
    /// Looks where they belong and whether they are there.
    pub propagation: Propagation,
}
