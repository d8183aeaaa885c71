//! Whether a name could be proved: by a record that is written and taken away, and by questions of our own that
//! are asked as a CA asks its.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use gantry_store::{Challenge, ChallengeKind};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::aws_lc_rs,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest as _, Sha256};
use tokio::{task::spawn_blocking, time::timeout};

use super::{Finding, Grounds};
use crate::{
    ACME_TLS_ALPN,
    acme::{Dns, is_of, ms},
    dns::Txt,
};

/// How long a question of our own is answered at most.
const PROBE_LIFE: Duration = Duration::from_mins(1);
/// How many addresses of a name are asked.
const ADDRESSES_MAX: usize = 8;
/// The longest answer that is read, in octets.
const ANSWER_MAX: usize = 1024;

impl Grounds<'_> {
    /// Writes a record where a proof of this name of the installation would be, waits until it can be seen, and
    /// takes it away.
    pub(super) async fn rehearse(&self, name: &str, findings: &mut Vec<Finding>) {
        const CHECK: &str = "dns-01";
        let Some(dns) = self.dns else {
            let right = "the table [certificates.dns]: names of the installation are proved by records alone";
            findings.push(Finding::failure(CHECK, "no way to write records is configured", right));
            return;
        };
        let bare = name.strip_prefix("*.").unwrap_or(name);
        let at = format!("_acme-challenge.{bare}");
        let right =
            "a CNAME there, or none, so that it leads into a zone whose name servers are known";
        match self.names.leads(&at).await {
            Ok(found) => findings.push(Finding::ok("delegation", found)),
            Err(error) => {
                findings.push(Finding::failure("delegation", error.to_string(), right));
            }
        }
        match self.in_the_way(dns).await {
            Ok(None) => {}
            Ok(Some(order)) => {
                let found = format!(
                    "not tried: an order for {order} is under way, and the server keeps too few values for one more"
                );
                return findings.push(Finding::ok(CHECK, found));
            }
            Err(error) => {
                let why = gantry_model::Chain(&error).to_string();
                return findings.push(Finding::failure(CHECK, why, "the store can be read"));
            }
        }
        // Why not is told above.
        let Ok(target) = self.names.resolve_target(&at).await else { return };
        let Some(value) = token() else { return };
        let text = Txt { name: target, value };
        let tried = async {
            dns.provider.append(&text).await?;
            dns.propagation.wait(&text).await
        };
        let tried = timeout(self.patience * 3, tried).await;
        let removed = dns.provider.remove(&text).await;
        let right = "what [certificates.dns] describes may write there, and every name server of the zone shows it";
        findings.push(match tried {
            Ok(Ok(())) => {
                let found =
                    format!("a record at {} was written and seen at every name server", text.name);
                Finding::ok(CHECK, found)
            }
            Ok(Err(error)) => Finding::failure(CHECK, error.to_string(), right),
            Err(_elapsed) => {
                let (name, seconds) = (&text.name, (self.patience * 3).as_secs());
                let found = format!("a record at {name} was not to be seen within {seconds} s");
                Finding::warning(CHECK, found, right)
            }
        });
        if let Err(error) = removed {
            let right = "it is taken away by hand";
            findings.push(Finding::warning(
                CHECK,
                format!("the record of this test stays: {error}"),
                right,
            ));
        }
    }

    /// The order that a record of a test would take the place of one from, if there is one.
    async fn in_the_way(&self, dns: &Dns) -> gantry_store::Result<Option<String>> {
        let Some(store) = self.store.filter(|_| dns.provider.keeps_few()) else { return Ok(None) };
        let mut orders = store.acme_orders().await?.into_iter();
        Ok(orders.find(|name| is_of(self.domain, name)))
    }

    /// Asks our own edge what a CA would ask it, by the addresses that the name has.
    pub(super) async fn knock(
        &self,
        name: &str,
        addresses: &BTreeSet<IpAddr>,
        findings: &mut Vec<Finding>,
    ) {
        let Some(edge) = self.shelf else {
            let right = "Gantry runs";
            findings.push(Finding::warning("ports", "not asked, because no Gantry runs", right));
            return;
        };
        let (Some(token), Some(key)) = (token(), token()) else { return };
        let challenge = |kind| Challenge {
            hostname: name.to_owned(),
            kind,
            token: token.clone(),
            key_authorization: key.clone(),
            expires_at_ms: ms(self.now + PROBE_LIFE),
        };
        let probe = [challenge(ChallengeKind::Http), challenge(ChallengeKind::TlsAlpn)];
        let Some(begun) = edge.begin_probe(&probe).await else {
            let found = "not asked: an order is under way, and a CA asks just now";
            return findings.push(Finding::ok("ports", found));
        };
        let mut of_http = Vec::new();
        let mut of_tls = Vec::new();
        for address in addresses.iter().take(ADDRESSES_MAX) {
            let at = SocketAddr::new(*address, self.ports.http);
            let answer = ask_http(at, name, &token, &key, self.patience).await;
            of_http.push((at, answer));
            let at = SocketAddr::new(*address, self.ports.tls);
            let digest = Sha256::digest(&key).to_vec();
            let (name, patience) = (name.to_owned(), self.patience);
            let answer = spawn_blocking(move || ask_tls(at, name, &digest, patience)).await;
            of_tls.push((at, answer.unwrap_or_else(|error| Err(error.to_string()))));
        }
        drop(begun);
        edge.refresh().await;
        if addresses.len() > ADDRESSES_MAX {
            let found =
                format!("{name} has {} addresses; {ADDRESSES_MAX} were asked", addresses.len());
            findings.push(Finding::warning("ports", found, "each leads to this Gantry"));
        }
        let works = |answers: &[(SocketAddr, Result<(), String>)]| {
            !answers.is_empty() && answers.iter().all(|(_, answer)| answer.is_ok())
        };
        // One way is enough: after a failure the other one is tried.
        let one_works = works(&of_http) || works(&of_tls);
        for (check, answers) in [("http-01", of_http), ("tls-alpn-01", of_tls)] {
            findings
                .extend(answers.into_iter().map(|(at, answer)| told(check, at, answer, one_works)));
        }
    }
}

fn told(check: &str, at: SocketAddr, answer: Result<(), String>, one_works: bool) -> Finding {
    const FROM: &str = "asked from this machine, which shows nothing of a firewall before it";
    let Err(why) = answer else {
        return Finding::ok(check, format!("{at} answers as a CA wants it ({FROM})"));
    };
    let (found, port) = (format!("{at} {why} ({FROM})"), at.port());
    let right = format!("port {port} leads to this Gantry at every address that the name has");
    if one_works {
        Finding::warning(check, found, format!("{right}; the other way is enough"))
    } else {
        Finding::failure(check, found, right)
    }
}

/// 43 characters of base64url; nothing where the system gives no random numbers.
fn token() -> Option<String> {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let mut octets = [0; 32];
    getrandom::fill(&mut octets).ok()?;
    Some(URL_SAFE_NO_PAD.encode(octets))
}

/// Asks as in RFC 8555, section 8.3, but follows nothing.
async fn ask_http(
    at: SocketAddr,
    name: &str,
    token: &str,
    want: &str,
    patience: Duration,
) -> Result<(), String> {
    let unusable = |error: reqwest::Error| gantry_model::Chain(&error.without_url()).to_string();
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(patience)
        .resolve(name, at)
        .build()
        .map_err(unusable)?;
    let url = format!("http://{name}:{}/.well-known/acme-challenge/{token}", at.port());
    let mut answer = client.get(url).send().await.map_err(|error| {
        if error.is_timeout() {
            format!("does not answer within {} s", patience.as_secs_f32())
        } else if error.is_connect() {
            format!("takes no connections: {}", root(&error))
        } else {
            format!("speaks no HTTP ({}): something else listens there", root(&error))
        }
    })?;
    let status = answer.status();
    if !status.is_success() {
        return Err(format!("answers {status}: something else listens there"));
    }
    let mut body = Vec::new();
    while let Some(part) = answer.chunk().await.map_err(unusable)? {
        body.extend_from_slice(&part);
        if body.len() > ANSWER_MAX {
            break;
        }
    }
    if body == want.as_bytes() {
        Ok(())
    } else {
        Err("answers with another text: something else listens there".to_owned())
    }
}

/// What an error comes from in the end.
fn root(error: &(dyn std::error::Error + 'static)) -> String {
    let mut at = error;
    while let Some(cause) = at.source() {
        at = cause;
    }
    at.to_string()
}

/// Asks as in RFC 8737, section 3. Blocks.
fn ask_tls(at: SocketAddr, name: String, digest: &[u8], patience: Duration) -> Result<(), String> {
    let wrong = |error: rustls::Error| error.to_string();
    let mut config = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .map_err(wrong)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate))
        .with_no_client_auth();
    config.alpn_protocols = vec![ACME_TLS_ALPN.to_vec()];
    let server = ServerName::try_from(name).map_err(|error| error.to_string())?;
    let mut connection = ClientConnection::new(Arc::new(config), server).map_err(wrong)?;
    let is_over = |error: &io::Error| {
        matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
    };
    let silent = |error: io::Error| {
        if is_over(&error) {
            format!("does not answer within {} s", patience.as_secs_f32())
        } else {
            format!("takes no connections: {error}")
        }
    };
    let end = Instant::now() + patience;
    let mut stream = TcpStream::connect_timeout(&at, patience).map_err(silent)?;
    while connection.is_handshaking() {
        // For all together: whoever is there may say an octet at a time.
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(silent(io::ErrorKind::TimedOut.into()));
        }
        stream.set_read_timeout(Some(left)).map_err(silent)?;
        stream.set_write_timeout(Some(left)).map_err(silent)?;
        connection.complete_io(&mut stream).map_err(|error| {
            if is_over(&error) {
                silent(error)
            } else {
                format!("refuses the handshake ({error}): something else listens there")
            }
        })?;
    }
    let leaf = connection.peer_certificates().and_then(|chain| chain.first());
    if leaf.is_some_and(|leaf| leaf.windows(digest.len()).any(|part| part == digest)) {
        Ok(())
    } else {
        Err("shows another certificate: something else listens there".to_owned())
    }
}

/// Takes every certificate: it is looked at afterwards, and nothing is said on the connection.
#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    /// Not verified: the library reads no certificate with a proof in it.
    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
