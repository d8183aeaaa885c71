//! TLS on both sides.

use std::sync::Arc;

use gantry_certs::ACME_TLS_ALPN;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
    SupportedCipherSuite, SupportedProtocolVersion,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{
        CryptoProvider,
        aws_lc_rs::{self, cipher_suite as suites},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{ProducesTickets, ResolvesServerCert},
};
use tokio_rustls::TlsAcceptor;

use crate::upstream::Offer;

/// What is agreed to, the first one first. All of them are good, and clients that can choose take this order, too.
const CIPHER_SUITES: [SupportedCipherSuite; 9] = [
    suites::TLS13_AES_128_GCM_SHA256,
    suites::TLS13_AES_256_GCM_SHA384,
    suites::TLS13_CHACHA20_POLY1305_SHA256,
    suites::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    suites::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    suites::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    suites::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    suites::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    suites::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
];

/// How TLS is spoken, to clients and to containers.
#[derive(Clone)]
pub(crate) struct Tls {
    pub(crate) acceptor: TlsAcceptor,
    /// For HTTP/3.
    pub(crate) quic: Arc<ServerConfig>,
    /// By what is offered and whether the certificate must be vouched for.
    clients: [[Arc<ClientConfig>; 2]; 2],
}

impl Tls {
    /// TLS 1.2 and 1.3 with `certificates`; HTTP/2 is offered before HTTP/1.1. QUIC has TLS 1.3 alone.
    /// Without `tickets` sessions are resumed in this process alone.
    pub(crate) fn new(
        certificates: &Arc<dyn ResolvesServerCert>,
        tickets: Option<Arc<dyn ProducesTickets>>,
    ) -> Result<Self, rustls::Error> {
        let provider = Arc::new(CryptoProvider {
            cipher_suites: CIPHER_SUITES.to_vec(),
            // A hybrid first: a recording of today shall stay closed to the machines of tomorrow.
            kx_groups: vec![
                aws_lc_rs::kx_group::X25519MLKEM768,
                aws_lc_rs::kx_group::X25519,
                aws_lc_rs::kx_group::SECP256R1,
                aws_lc_rs::kx_group::SECP384R1,
            ],
            ..aws_lc_rs::default_provider()
        });
        let tickets = match tickets {
            Some(tickets) => tickets,
            None => aws_lc_rs::Ticketer::new()?,
        };
        let server = |versions: &[&'static SupportedProtocolVersion], protocols: &[&[u8]]| {
            let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(versions)?
                .with_no_client_auth()
                .with_cert_resolver(Arc::clone(certificates));
            server.alpn_protocols = protocols.iter().map(|it| it.to_vec()).collect();
            server.ticketer = Arc::clone(&tickets);
            // Whatever a client prefers: nothing that it says shall make a connection worse than it need be.
            server.ignore_client_order = true;
            server.send_tls13_tickets = 1;
            // A client that offers early data is told to wait: what it holds could be replayed.
            server.max_early_data_size = 0;
            Ok::<_, rustls::Error>(Arc::new(server))
        };
        let tcp = server(
            &[&rustls::version::TLS13, &rustls::version::TLS12],
            &[b"h2", b"http/1.1", ACME_TLS_ALPN],
        )?;
        let quic = server(&[&rustls::version::TLS13], &[b"h3"])?;

        let own: Arc<dyn ServerCertVerifier> = Arc::new(ContainersOwn(Arc::clone(&provider)));
        let roots = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect::<RootCertStore>();
        let vouched: Arc<dyn ServerCertVerifier> =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .map_err(|error| rustls::Error::General(error.to_string()))?;
        let clients = [own, vouched].map(|verifier| {
            let client = |offer| client(&provider, Arc::clone(&verifier), offer);
            Ok::<_, rustls::Error>([client(Offer::Http1)?, client(Offer::Http2)?])
        });
        let [own, vouched] = clients;
        Ok(Self { acceptor: TlsAcceptor::from(tcp), quic, clients: [own?, vouched?] })
    }

    /// How TLS is spoken to a container; `verify` if its certificate must be vouched for.
    pub(crate) fn client(&self, offer: Offer, verify: bool) -> Arc<ClientConfig> {
        let [own, vouched] = &self.clients;
        let [http1, http2] = if verify { vouched } else { own };
        Arc::clone(match offer {
            Offer::Http1 => http1,
            Offer::Http2 => http2,
        })
    }
}

fn client(
    provider: &Arc<CryptoProvider>,
    verifier: Arc<dyn ServerCertVerifier>,
    offer: Offer,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let mut client = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    client.alpn_protocols = match offer {
        Offer::Http1 => vec![b"http/1.1".to_vec()],
        Offer::Http2 => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
    };
    // No resumption: the cache is keyed by name, and names change their tenants.
    client.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(client))
}

/// Accepts whatever certificate a container shows. It is the container's own, made by its owner, and
/// the way to it does not leave this machine; the signature is still checked, so that the
/// connection is with whoever showed the certificate.
#[derive(Debug)]
struct ContainersOwn(Arc<CryptoProvider>);

impl ServerCertVerifier for ContainersOwn {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use rustls::{ClientConnection, pki_types::PrivateKeyDer};

    use super::*;

    /// Shows a client the certificate that a container's owner made.
    fn shake(config: Arc<ClientConfig>) -> Result<(), rustls::Error> {
        let name = "service.example".to_owned();
        let made = rcgen::generate_simple_self_signed([name.clone()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let server = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let mut server = rustls::ServerConnection::new(Arc::new(server)).unwrap();
        let name = ServerName::try_from(name).unwrap();
        let mut client = ClientConnection::new(config, name).unwrap();
        while client.is_handshaking() {
            let mut octets = Vec::new();
            client.write_tls(&mut octets).unwrap();
            server.read_tls(&mut Cursor::new(octets)).unwrap();
            server.process_new_packets()?;
            let mut octets = Vec::new();
            server.write_tls(&mut octets).unwrap();
            client.read_tls(&mut Cursor::new(octets)).unwrap();
            client.process_new_packets()?;
        }
        Ok(())
    }

    #[test]
    fn a_containers_own_certificate_is_enough_unless_it_must_be_vouched_for() {
        let certificates: Arc<dyn ResolvesServerCert> = Arc::new(gantry_certs::Resolver::new());
        let tls = Tls::new(&certificates, None).unwrap();
        for offer in [Offer::Http1, Offer::Http2] {
            assert_eq!(shake(tls.client(offer, false)), Ok(()));
            let refused = shake(tls.client(offer, true));
            assert!(matches!(refused, Err(rustls::Error::InvalidCertificate(_))), "{refused:?}");
        }
    }
}
