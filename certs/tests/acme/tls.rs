//! TLS as far as these tests look at it.

use std::sync::Arc;

use gantry_certs::{ACME_TLS_ALPN, Resolver};
use rustls::{ServerConfig, crypto::aws_lc_rs, sign::CertifiedKey};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// A server that shows what a resolver says.
pub(crate) fn server(resolver: &Arc<Resolver>) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(resolver) as _);
    config.alpn_protocols = vec![b"http/1.1".to_vec(), ACME_TLS_ALPN.to_vec()];
    Arc::new(config)
}

/// The serial number of a leaf.
pub(crate) fn serial(key: &CertifiedKey) -> String {
    let (_, leaf) = X509Certificate::from_der(key.cert.first().unwrap()).unwrap();
    leaf.raw_serial_as_string()
}
