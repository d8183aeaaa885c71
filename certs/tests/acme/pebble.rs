//! Pebble: an ACME server that checks what it is told, for one test.

use std::{
    fs::{self, File},
    hash::{BuildHasher as _, Hasher as _, RandomState},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::wait_until;

/// How long it may take to start.
const BOUND: Duration = Duration::from_secs(20);

/// How a server is to be.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// Who knows the names that it checks.
    pub(crate) dns: SocketAddr,
    /// Where it looks for the answers to HTTP-01 and TLS-ALPN-01.
    pub(crate) http: u16,
    pub(crate) tls: u16,
    /// An account elsewhere that it asks for: the key's name and the key in base64url.
    pub(crate) external: Option<(String, String)>,
    /// For how long its certificates are good.
    pub(crate) life: Duration,
}

impl Setup {
    pub(crate) fn new(dns: SocketAddr) -> Result<Self> {
        let days_90 = Duration::from_hours(90 * 24);
        let (http, tls) = (free_port()?, free_port()?);
        Ok(Self { dns, http, tls, external: None, life: days_90 })
    }
}

/// A running server, which ends with the test.
pub(crate) struct Pebble {
    child: Child,
    dns: SocketAddr,
    port: u16,
    management: u16,
    roots: PathBuf,
    dir: TempDir,
}

impl Pebble {
    /// Starts one. It refuses some of the nonces, as its default is.
    pub(crate) fn start(setup: &Setup) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let roots = certify(&dir)?;
        let (port, management) = (free_port()?, free_port()?);
        let path = |name: &str| dir.path().join(name);
        let mut config = json!({
            "listenAddress": format!("127.0.0.1:{port}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": path("server.pem"),
            "privateKey": path("server.key"),
            "httpPort": setup.http,
            "tlsPort": setup.tls,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": setup.external.is_some(),
            "retryAfter": {"authz": 1, "order": 1},
            "certificateValidityPeriod": setup.life.as_secs(),
        });
        if let Some((id, key)) = &setup.external {
            config["externalAccountMACKeys"] = json!({ id: key });
        }
        fs::write(path("config.json"), json!({ "pebble": config }).to_string())?;
        let child = run(&dir, setup.dns)?;
        let pebble = Self { child, dns: setup.dns, port, management, roots, dir };
        pebble.await_listening()?;
        Ok(pebble)
    }

    /// Starts it anew, where it was. It has nothing left of what it knew, nor of its keys.
    pub(crate) fn lose_everything(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        self.child = run(&self.dir, self.dns)?;
        self.await_listening()
    }

    fn await_listening(&self) -> Result<()> {
        let listens = || std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok();
        wait_until("pebble", BOUND, listens).with_context(|| self.log())
    }

    /// The address of its directory.
    pub(crate) fn directory(&self) -> String {
        format!("https://localhost:{}/dir", self.port)
    }

    /// What its HTTPS is trusted by, in PEM.
    pub(crate) fn roots(&self) -> Result<Vec<u8>> {
        Ok(fs::read(&self.roots)?)
    }

    /// The file of those.
    pub(crate) fn roots_path(&self) -> &Path {
        &self.roots
    }

    /// Its port, and the files of its certificate for HTTPS and of the key of that.
    pub(crate) fn https(&self) -> (u16, PathBuf, PathBuf) {
        let path = |name: &str| self.dir.path().join(name);
        (self.port, path("server.pem"), path("server.key"))
    }

    /// What its certificates are trusted by, in PEM, as curl has it from its other port.
    pub(crate) fn issued_by(&self) -> Result<Vec<u8>> {
        self.manage("roots/0")
    }

    /// What it knows of a certificate by its serial number in hexadecimal digits: `Status` is `Valid` or `Revoked`,
    /// with `Reason`.
    pub(crate) fn status(&self, serial: &str) -> Result<Value> {
        let serial = serial.trim_start_matches('0');
        Ok(serde_json::from_slice(&self.manage(&format!("cert-status-by-serial/{serial}"))?)?)
    }

    fn manage(&self, path: &str) -> Result<Vec<u8>> {
        let url = format!("https://localhost:{}/{path}", self.management);
        let output = Command::new("curl")
            // Its other port has a certificate that nobody vouches for.
            .args(["-sSf", "--noproxy", "*", "--insecure", &url])
            .output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(output.stdout)
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

fn run(dir: &TempDir, dns: SocketAddr) -> Result<Child> {
    let log = File::options().create(true).append(true).open(dir.path().join("log"))?;
    let mut command = Command::new("pebble");
    command.arg("-config").arg(dir.path().join("config.json"));
    command.args(["-dnsserver", &dns.to_string()]).env("PEBBLE_VA_NOSLEEP", "1");
    // By default it takes every second proof for good once more.
    command.env("PEBBLE_AUTHZREUSE", "0");
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.spawn().context("pebble is missing: install pebble")
}

/// A certificate for a server's own HTTPS, and the root of that, as files.
pub(crate) fn certify(dir: &TempDir) -> Result<PathBuf> {
    let mut root = CertificateParams::new(Vec::new())?;
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // By another name than the leaf has: OpenSSL would take that for its own issuer.
    root.distinguished_name.push(DnType::CommonName, "root of a test");
    let root_key = KeyPair::generate()?;
    let root_certificate = root.self_signed(&root_key)?;
    let leaf = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    let key = KeyPair::generate()?;
    let certificate = leaf.signed_by(&key, &Issuer::new(root, root_key))?;
    fs::write(dir.path().join("server.pem"), certificate.pem())?;
    fs::write(dir.path().join("server.key"), key.serialize_pem())?;
    let roots = dir.path().join("roots.pem");
    fs::write(&roots, root_certificate.pem())?;
    Ok(roots)
}

/// A port that nobody listens on now, and none of those that the kernel gives to whoever asks for any; another one
/// each time.
pub(crate) fn free_port() -> Result<u16> {
    static NEXT: LazyLock<AtomicU64> =
        LazyLock::new(|| AtomicU64::new(RandomState::new().build_hasher().finish() / 2));
    let found = (0..1000).find_map(|_| {
        let port = u16::try_from(10_000 + NEXT.fetch_add(1, Ordering::Relaxed) % 20_000).ok()?;
        TcpListener::bind(("127.0.0.1", port)).is_ok().then_some(port)
    });
    found.context("no port is free")
}
