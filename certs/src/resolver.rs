//! What TLS asks for a certificate.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

/// The protocol by which a CA asks within a handshake (RFC 8737).
pub const ACME_TLS_ALPN: &[u8] = b"acme-tls/1";

/// A certificate and the names that it is to be shown for.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// Lower-case hostnames; `*.` in front stands for exactly one label.
    pub names: Vec<String>,
    /// The chain and its key.
    pub key: Arc<CertifiedKey>,
}

/// Where certificates come from. Of two for one name that of the later source is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The development CA.
    Development,
    /// CAs that were asked by ACME.
    Ordered,
    /// Files of the operator's.
    Files,
}

/// Finds the certificate for a server name: by the exact name, then by the wildcard for its first
/// label.
///
/// A lookup loads one snapshot; it does not wait. Until the first [`Resolver::publish`] every
/// handshake is refused.
#[derive(Default)]
pub struct Resolver {
    snapshot: ArcSwap<Snapshot>,
    /// What the snapshot is made of; held while one is made.
    parts: Mutex<Parts>,
    missing: ArcSwapOption<Missing>,
}

/// Is told of names that a client asked for and that have no certificate. Called within handshakes.
type Missing = Box<dyn Fn(&str) + Send + Sync>;

#[derive(Default)]
struct Parts {
    sources: [Vec<Leaf>; 3],
    challenges: HashMap<String, Arc<CertifiedKey>>,
}

#[derive(Debug, Default)]
struct Snapshot {
    /// Certificates by name, `*.` included.
    by_name: HashMap<String, Arc<CertifiedKey>>,
    /// Shown to clients that name no server: health checks, and whoever dials an address.
    default: Option<Arc<CertifiedKey>>,
    /// Shown to a CA that asks for [`ACME_TLS_ALPN`] alone.
    challenges: HashMap<String, Arc<CertifiedKey>>,
}

impl Resolver {
    /// A resolver without certificates.
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces all certificates of a source at once. Of two for one name in it the later one counts. Clients
    /// that name no server are shown what is shown for the first name of the first source that has any.
    pub fn publish(&self, source: Source, leafs: Vec<Leaf>) {
        self.change(|parts| {
            let [development, ordered, files] = &mut parts.sources;
            *match source {
                Source::Development => development,
                Source::Ordered => ordered,
                Source::Files => files,
            } = leafs;
        });
    }

    /// Replaces the certificates that answer a CA's questions, by hostname.
    pub fn publish_challenges(&self, challenges: HashMap<String, Arc<CertifiedKey>>) {
        self.change(|parts| parts.challenges = challenges);
    }

    /// Whether a CA's question about this hostname is answered within handshakes now.
    pub(crate) fn has_challenge(&self, hostname: &str) -> bool {
        self.snapshot.load().challenges.contains_key(hostname)
    }

    /// Has `missing` told of every name that a client asks for in vain. It must neither wait nor take long.
    /// The last call counts.
    pub fn on_missing(&self, missing: impl Fn(&str) + Send + Sync + 'static) {
        self.missing.store(Some(Arc::new(Box::new(missing))));
    }

    /// The certificate for a lower-case hostname, if there is one.
    pub fn certificate(&self, hostname: &str) -> Option<Arc<CertifiedKey>> {
        self.snapshot.load().find(hostname).cloned()
    }

    /// All certificates, with where they come from. What is shown for a name is told by [`Self::certificate`].
    pub fn all(&self) -> Vec<(Source, Leaf)> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let sources = [Source::Development, Source::Ordered, Source::Files];
        let of_source = |(source, leafs): (Source, &Vec<Leaf>)| {
            leafs.iter().map(|leaf| (source, leaf.clone())).collect::<Vec<_>>()
        };
        sources.into_iter().zip(&parts.sources).flat_map(of_source).collect()
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

    fn change(&self, change: impl FnOnce(&mut Parts)) {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut parts);
        self.snapshot.store(Arc::new(Snapshot::of(&parts)));
    }

    /// Whether a lower-case hostname that ought to have a certificate is still without. Somebody is told of it;
    /// where nobody could do anything about it, it is not.
    pub fn lacks(&self, hostname: &str) -> bool {
        self.missing.load().is_some() && self.find_or_tell(hostname).is_none()
    }

    fn find_or_tell(&self, sni: &str) -> Option<Arc<CertifiedKey>> {
        let found = self.certificate(sni);
        if found.is_none()
            && let Some(missing) = &*self.missing.load()
        {
            missing(sni);
        }
        found
    }
}

impl Snapshot {
    fn of(parts: &Parts) -> Self {
        let leafs = || parts.sources.iter().flatten();
        let by_name: HashMap<_, _> = leafs()
            .flat_map(|leaf| leaf.names.iter().map(|name| (name.clone(), Arc::clone(&leaf.key))))
            .collect();
        let first = leafs().next().and_then(|leaf| leaf.names.first());
        let default = first.and_then(|name| by_name.get(name)).cloned();
        Self { by_name, default, challenges: parts.challenges.clone() }
    }

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
        let Some(sni) = hello.server_name() else { return self.snapshot.load().default.clone() };
        // rustls has lower-cased neither; a client may send any case.
        let lower;
        let sni = if sni.bytes().any(|octet| octet.is_ascii_uppercase()) {
            lower = sni.to_ascii_lowercase();
            &lower
        } else {
            sni
        };
        let asks_for_proof = |mut offered: Box<dyn Iterator<Item = &[u8]> + '_>| {
            offered.next() == Some(ACME_TLS_ALPN) && offered.next().is_none()
        };
        if hello.alpn().is_some_and(|offered| asks_for_proof(Box::new(offered))) {
            return self.snapshot.load().challenges.get(sni).cloned();
        }
        self.find_or_tell(sni)
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("snapshot", &self.snapshot).finish_non_exhaustive()
    }
}
