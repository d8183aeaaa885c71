//! What the tests share: a CA in a directory of its own, and TLS without a network.

use std::{io, path::Path, sync::Arc};

use gantry_certs::{DevCa, Leaf, Resolver, Source, standard_names};
use gantry_model::Domain;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection,
    crypto::aws_lc_rs,
};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use time::OffsetDateTime;

pub(crate) fn domain() -> Domain {
    "gantry.localhost".parse().unwrap()
}

/// The present, because foreign clients look at their own clock.
pub(crate) fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

pub(crate) fn open(dir: &Path) -> DevCa {
    DevCa::open_or_create(dir, &domain(), now()).unwrap()
}

pub(crate) fn resolver(ca: &DevCa) -> Arc<Resolver> {
    let names = standard_names(&domain(), &["local".parse().unwrap()]);
    let key = Arc::new(ca.issue(&names, now()).unwrap());
    let resolver = Resolver::new();
    resolver.publish(Source::Development, vec![Leaf { names, key }]);
    Arc::new(resolver)
}

pub(crate) fn server_config(resolver: Arc<Resolver>) -> Arc<ServerConfig> {
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.with_no_client_auth().with_cert_resolver(resolver))
}

/// A handshake in memory: a rustls client that trusts only `ca_pem` opens `hostname`.
pub(crate) fn handshake(
    ca_pem: &str,
    resolver: Arc<Resolver>,
    hostname: &str,
) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let config = builder.with_root_certificates(roots).with_no_client_auth();
    let name = hostname.to_owned().try_into().unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut server = ServerConnection::new(server_config(resolver)).unwrap();
    // A full handshake takes three flights; more rounds than that mean a defect.
    for _ in 0..8 {
        transfer(&mut client, &mut server)?;
        transfer(&mut server, &mut client)?;
        if !client.is_handshaking() && !server.is_handshaking() {
            return Ok(());
        }
    }
    Err("the handshake does not end".to_owned())
}

fn transfer<A, B, S, T>(from: &mut A, to: &mut B) -> Result<(), String>
where
    A: std::ops::DerefMut<Target = rustls::ConnectionCommon<S>>,
    B: std::ops::DerefMut<Target = rustls::ConnectionCommon<T>>,
{
    let mut flight = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut flight).map_err(|error| error.to_string())?;
    }
    let mut flight = io::Cursor::new(flight);
    while to.read_tls(&mut flight).map_err(|error| error.to_string())? > 0 {
        to.process_new_packets().map_err(|error| format!("{error:?}"))?;
    }
    Ok(())
}
