//! Certificates: the development CA and the resolver that TLS asks.
//!
//! [`Resolver`] answers a TLS handshake from one snapshot, without I/O; [`Renewer`] is the only one
//! that publishes snapshots to it. In development the certificates come from [`DevCa`], a CA of
//! this installation's own that can vouch for names under one domain and for nothing else.
//!
//! Invariant: within a handshake nothing is ordered, read from disk or waited for.

mod about;
pub mod acme;
mod ca;
mod chain;
pub mod diagnosis;
pub mod dns;
mod files;
mod metrics;
mod operator;
mod renewer;
mod resolver;
mod seal;
mod shelf;
mod tickets;

pub use about::{About, common_name};
pub use ca::{CaError, DevCa, IssueError, LEAF_LIFETIME};
pub use files::owner_only;
pub use metrics::Metrics;
pub use operator::{CertificateFiles, Files, FilesError};
pub use renewer::{Clock, Renewer};
pub use resolver::{ACME_TLS_ALPN, Leaf, Resolver, Source};
pub use seal::{Seal, SealError};
pub use shelf::Shelf;
pub use tickets::Tickets;

use gantry_model::{Domain, ServerName};

/// The names that one certificate of an installation carries: the domain, the API with its realms,
/// the zone, and the zone of each server.
///
/// A wildcard stands for one label, so every canonical hostname and every alias is covered, but not
/// the extra label in front of an `exec` hostname.
pub fn standard_names(domain: &Domain, servers: &[ServerName]) -> Vec<String> {
    let zone = domain.zone();
    let mut names = vec![
        domain.as_str().to_owned(),
        domain.api().to_owned(),
        format!("*.{}", domain.api()),
        format!("*.{zone}"),
    ];
    names.extend(servers.iter().map(|server| format!("*.{server}.{zone}")));
    names
}
