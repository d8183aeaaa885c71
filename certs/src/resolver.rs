//! What TLS asks for a certificate.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

/// A certificate and the names that it is to be shown for.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// Lower-case hostnames; `*.` in front stands for exactly one label.
    pub names: Vec<String>,
    /// The chain and its key.
    pub key: Arc<CertifiedKey>,
}

/// Finds the certificate for a server name: by the exact name, then by the wildcard for its first
/// label.
///
/// A lookup loads one snapshot; it does not wait. Until the first [`Resolver::publish`] every
/// handshake is refused.
#[derive(Debug, Default)]
pub struct Resolver {
    snapshot: ArcSwap<Snapshot>,
}

#[derive(Debug, Default)]
struct Snapshot {
    /// Certificates by name, `*.` included.
    by_name: HashMap<String, Arc<CertifiedKey>>,
    /// Shown to clients that name no server: health checks, and whoever dials an address.
    default: Option<Arc<CertifiedKey>>,
}

impl Resolver {
    /// A resolver without certificates.
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces all certificates at once. Of two for one name the later one counts; the first leaf
    /// is also shown to clients that name no server.
    pub fn publish(&self, leafs: &[Leaf]) {
        let by_name = leafs
            .iter()
            .flat_map(|leaf| leaf.names.iter().map(|name| (name.clone(), Arc::clone(&leaf.key))))
            .collect();
        let default = leafs.first().map(|leaf| Arc::clone(&leaf.key));
        self.snapshot.store(Arc::new(Snapshot { by_name, default }));
    }

    /// The certificate for a lower-case hostname, if there is one.
    pub fn certificate(&self, hostname: &str) -> Option<Arc<CertifiedKey>> {
        self.snapshot.load().find(hostname).cloned()
    }

    /// Whether a connection that was opened for `sni` may carry requests for `hostname`: the same
    /// certificate is shown for both. Both are lower-case. Where it is false, 421 is the answer.
    pub fn covers(&self, sni: Option<&str>, hostname: &str) -> bool {
        let snapshot = self.snapshot.load();
        let shown = match sni {
            Some(sni) => snapshot.find(sni),
            None => snapshot.default.as_ref(),
        };
        match (shown, snapshot.find(hostname)) {
            (Some(shown), Some(right)) => Arc::ptr_eq(shown, right),
            (Some(_) | None, None) | (None, Some(_)) => false,
        }
    }
}

impl Snapshot {
    fn find(&self, hostname: &str) -> Option<&Arc<CertifiedKey>> {
        if let Some(exact) = self.by_name.get(hostname) {
            return Some(exact);
        }
        let parent = hostname.split_once('.')?.1;
        // A name is at most 253 octets, so that the wildcard's name fits on the stack.
        let mut buffer = [0; 256];
        let wildcard = buffer.get_mut(..parent.len() + 2)?;
        let (star, rest) = wildcard.split_at_mut(2);
        star.copy_from_slice(b"*.");
        rest.copy_from_slice(parent.as_bytes());
        self.by_name.get(std::str::from_utf8(wildcard).ok()?)
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        match hello.server_name() {
            // rustls has lower-cased neither; a client may send any case.
            Some(sni) if sni.bytes().any(|octet| octet.is_ascii_uppercase()) => {
                self.certificate(&sni.to_ascii_lowercase())
            }
            Some(sni) => self.certificate(sni),
            None => self.snapshot.load().default.clone(),
        }
    }
}
