//! The certificates as clients see them: rustls with webpki, OpenSSL, curl and Chromium.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::{
    browser::Browser,
    support::{handshake, now, open, resolver, server_config},
};
use gantry_certs::{DevCa, Leaf, Resolver, Source};
use rcgen::{CertificateParams, Issuer, KeyPair, SanType};
use rustls::{ServerConfig, ServerConnection, Stream, crypto::aws_lc_rs, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject as _};

const P: &str = "5f2b8c6d9e3a4f1b7c8d9e0f";
const C: &str = "6a7b8c9d0e1f2a3b4c5d6e7f";

fn canonical(service: &str) -> String {
    format!("{P}-{C}-{service}.local.containers.gantry.localhost")
}

/// A certificate made with the CA's own key, past [`DevCa::issue`], as a thief of it would.
fn forge(dir: &Path, name: SanType) -> Arc<CertifiedKey> {
    let ca_key = KeyPair::from_pem(&fs::read_to_string(dir.join("ca.key")).unwrap()).unwrap();
    let pem = fs::read_to_string(dir.join("ca.pem")).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&pem, ca_key).unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![name];
    (params.not_before, params.not_after) =
        (now() - time::Duration::days(1), now() + time::Duration::days(9));
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let provider = aws_lc_rs::default_provider();
    Arc::new(CertifiedKey::from_der(vec![certificate.into()], key, &provider).unwrap())
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

fn showing(key: &Arc<CertifiedKey>, name: &str) -> Arc<Resolver> {
    let resolver = Resolver::new();
    resolver.publish(
        Source::Development,
        vec![Leaf { names: vec![name.to_owned()], key: Arc::clone(key) }],
    );
    Arc::new(resolver)
}

/// Whether a program is there; says on stderr when its test is not run.
fn installed(program: &str, ask: &str) -> bool {
    let found = Command::new(program).arg(ask).output().is_ok();
    if !found {
        eprintln!("{program} is not installed: this test did not run");
    }
    found
}

#[test]
fn every_hostname_of_the_installation_is_accepted_by_rustls() {
    let dir = tempfile::tempdir().unwrap();
    let ca = open(dir.path());
    let resolver = resolver(&ca);
    for hostname in [
        "gantry.localhost",
        "api.gantry.localhost",
        "5f2b8c6d9e3a4f1b7c8d9e0f.api.gantry.localhost",
        "local.containers.gantry.localhost",
        "ssh.local.containers.gantry.localhost",
        "my-alias.local.containers.gantry.localhost",
        &canonical("terminal-1"),
        &canonical("https-65535"),
        &canonical("TERMINAL-1").to_uppercase(),
    ] {
        assert_eq!(handshake(ca.ca_pem(), Arc::clone(&resolver), hostname), Ok(()), "{hostname}");
    }
    for hostname in [
        "localhost",
        "example.com",
        "a.b.api.gantry.localhost",
        "www.gantry.localhost",
        &format!("scripts.{}", canonical("exec-1")), // one label more than the wildcard has
    ] {
        let refused = handshake(ca.ca_pem(), Arc::clone(&resolver), hostname);
        assert!(refused.is_err(), "{hostname} has no certificate");
    }
}

#[test]
fn the_root_vouches_for_nothing_outside_its_domain() {
    let dir = tempfile::tempdir().unwrap();
    let ca = open(dir.path());
    for name in ["example.com", "*.example.com", "localhost", "evilgantry.localhost"] {
        let hostname = name.replace('*', "www");
        let resolver = showing(&forge(dir.path(), dns(name)), &hostname);
        let error = handshake(ca.ca_pem(), resolver, &hostname).expect_err(name);
        assert!(error.contains("NameConstraintViolation"), "{name}: {error}");
    }
    let resolver = showing(&forge(dir.path(), dns("x.gantry.localhost")), "x.gantry.localhost");
    assert_eq!(handshake(ca.ca_pem(), resolver, "x.gantry.localhost"), Ok(()), "the forging works");
}

#[test]
fn another_ca_of_the_same_domain_is_another_ca() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (one, two) = (open(one.path()), open(two.path()));
    let error = handshake(two.ca_pem(), resolver(&one), "gantry.localhost").unwrap_err();
    assert!(error.contains("UnknownIssuer"), "{error}");
}

/// `openssl verify` on a certificate: the verdict and all that it printed.
fn openssl_verify(ca: &DevCa, key: &CertifiedKey, more: &[&str]) -> (bool, String) {
    let dir = tempfile::tempdir().unwrap();
    let leaf = dir.path().join("leaf.der");
    fs::write(&leaf, key.cert[0].as_ref()).unwrap();
    let out = Command::new("openssl")
        .args(["verify", "-x509_strict", "-purpose", "sslserver", "-CAfile"])
        .arg(ca.ca_path())
        .args(more)
        .arg(&leaf)
        .output()
        .unwrap();
    let text = [out.stdout, out.stderr].concat();
    (out.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn openssl_accepts_the_leafs_and_enforces_the_constraint() {
    if !installed("openssl", "version") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let ca = open(dir.path());
    let resolver = resolver(&ca);
    for hostname in ["api.gantry.localhost", "x.api.gantry.localhost", &canonical("http-3000")] {
        let leaf = resolver.certificate(hostname).unwrap();
        let (good, text) = openssl_verify(&ca, &leaf, &["-verify_hostname", hostname]);
        assert!(good, "{hostname}: {text}");
    }
    let leaf = resolver.certificate("api.gantry.localhost").unwrap();
    let (good, text) = openssl_verify(&ca, &leaf, &["-verify_hostname", "example.com"]);
    assert!(!good && text.contains("hostname mismatch"), "{text}");

    for name in [
        dns("example.com"),
        dns("localhost"),
        SanType::IpAddress([127, 0, 0, 1].into()),
        SanType::IpAddress("::1".parse().unwrap()),
    ] {
        let text = format!("{name:?}");
        let (good, said) = openssl_verify(&ca, &forge(dir.path(), name), &[]);
        assert!(!good && said.contains("subtree violation"), "{text}: {said}");
    }
}

#[test]
fn a_leaf_is_a_p256_server_certificate_of_thirty_days_under_a_ten_year_root() {
    let dir = tempfile::tempdir().unwrap();
    let ca = open(dir.path());
    let leaf = ca.issue(&["gantry.localhost".to_owned()], now()).unwrap();
    let root = CertificateDer::from_pem_slice(ca.ca_pem().as_bytes()).unwrap();
    let parse = |der: &CertificateDer<'_>| {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).unwrap();
        let days = (certificate.validity().not_after.to_datetime() - now()).whole_days();
        let curve = certificate.public_key().algorithm.parameters.clone().unwrap();
        let usage = certificate.extended_key_usage().unwrap().unwrap().value.server_auth;
        (days, curve.as_oid().unwrap().to_id_string(), certificate.is_ca(), usage)
    };
    let p256 = "1.2.840.10045.3.1.7".to_owned();
    assert_eq!(parse(&leaf.cert[0]), (29, p256.clone(), false, true));
    assert_eq!(parse(&root), (3651, p256, true, true));
    assert_eq!(leaf.cert.len(), 1, "the root is not sent: clients have it");
}

/// Answers requests over TLS with `<p>ok</p>` until the value is dropped.
struct Server {
    port: u16,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    fn start(config: Arc<ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            for socket in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                // Each on its own: a browser opens connections that it never uses.
                let (socket, config) = (socket.unwrap(), Arc::clone(&config));
                std::thread::spawn(move || {
                    if let Err(error) = answer(socket, config) {
                        eprintln!("connection: {error}");
                    }
                });
            }
        });
        Self { port, stop, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        self.thread.take().unwrap().join().unwrap();
    }
}

fn answer(mut socket: TcpStream, config: Arc<ServerConfig>) -> io::Result<()> {
    socket.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut tls = ServerConnection::new(config).map_err(io::Error::other)?;
    let mut stream = Stream::new(&mut tls, &mut socket);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut octet = [0];
        stream.read_exact(&mut octet)?;
        head.extend(octet);
    }
    let answer = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 9\r\nConnection: close\r\n\r\n<p>ok</p>";
    stream.write_all(answer.as_bytes())?;
    tls.send_close_notify();
    tls.write_tls(&mut socket).map(drop)
}

#[test]
fn curl_opens_a_canonical_hostname() {
    if !installed("curl", "--version") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let ca = open(dir.path());
    let server = Server::start(server_config(resolver(&ca)));
    for hostname in [&canonical("terminal-1"), "api.gantry.localhost"] {
        let out = Command::new("curl")
            .args(["-sS", "--max-time", "10", "--noproxy", "*", "--cacert"])
            .arg(ca.ca_path())
            .args(["--resolve", &format!("{hostname}:{}:127.0.0.1", server.port)])
            .arg(format!("https://{hostname}:{}/", server.port))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{said}");
        assert_eq!(out.stdout, b"<p>ok</p>", "{said}");
    }
}

#[test]
fn chromium_opens_a_canonical_hostname() {
    let dir = tempfile::tempdir().unwrap();
    let ca = open(dir.path());
    let server = Server::start(server_config(resolver(&ca)));
    let browser = match Browser::start(ca.ca_path(), Ipv4Addr::LOCALHOST, None) {
        Ok(browser) => browser,
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "no browser: {error:?}");
            eprintln!("not run, no browser: {error:?}");
            return;
        }
    };
    browser.open(&format!("https://{}:{}/", canonical("terminal-1"), server.port)).unwrap();
    let page = browser.script("return document.body.innerHTML").unwrap();
    assert_eq!(page, "<p>ok</p>");
}
