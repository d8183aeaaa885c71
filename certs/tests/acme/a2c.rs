//! acme2certifier: an ACME server that suggests when to renew (ARI) and has profiles, for one test.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use crate::{bench::Names, pebble::certify};

/// A running server, which ends with the test.
pub(crate) struct A2c {
    child: Child,
    port: u16,
    mind: Mind,
    dir: TempDir,
}

/// What the CA thinks about renewals; it can be changed at any time.
#[derive(Clone, Debug)]
pub(crate) struct Mind {
    path: PathBuf,
    text: String,
}

impl Mind {
    /// Suggests to renew after this part of the life, in percent, within so many seconds.
    pub(crate) fn suggest(&self, percent: u32, window_s: u32) -> Result<()> {
        self.write(&format!(
            "renewalinfo_disable: False\nrenewalthreshold_pctg: {percent}\n\
             renewal_window_duration: {window_s}\nretry_after_timeout: {RETRY_AFTER_S}\n"
        ))
    }

    /// Suggests nothing, and does not offer to.
    pub(crate) fn say_nothing(&self) -> Result<()> {
        self.write("renewalinfo_disable: True\n")
    }

    fn write(&self, renewals: &str) -> Result<()> {
        // At once as a whole: it is read with each request.
        let new = self.path.with_extension("new");
        fs::write(&new, format!("{}[Renewalinfo]\n{renewals}", self.text))?;
        Ok(fs::rename(new, &self.path)?)
    }
}

/// After how many seconds it wants to be asked again when to renew.
pub(crate) const RETRY_AFTER_S: i64 = 21_600;

impl A2c {
    /// Starts one for some names; nothing (only at the desk) if Python lacks the libraries.
    pub(crate) fn start(names: &Names) -> Result<Option<Self>> {
        let python = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("python/bin/python3");
        if !python.exists() {
            assert!(std::env::var_os("CI").is_none(), "no {}", python.display());
            eprintln!("not run: no {}", python.display());
            return Ok(None);
        }
        let dir = tempfile::tempdir()?;
        certify(&dir)?;
        issuing_ca(dir.path())?;
        let (home, server) = (dir.path().display(), names.server(1));
        let text = format!(
            "[DEFAULT]\ndebug: False\ndns_server_list: [\"{}\"]\n[CAhandler]\n\
             handler_module: acme2certifier.cahandlers.openssl_ca_handler\n\
             issuing_ca_key: {home}/ca.key\nissuing_ca_cert: {home}/ca.pem\n\
             issuing_ca_crl: {home}/ca.crl\ncert_save_path: {home}/certs\n[DBhandler]\n\
             handler_module: acme2certifier.dbhandlers.wsgi_handler\ndbfile: {home}/acme_srv.db\n\
             [Order]\nprofiles: {{\"classic\": \"http://ca.test/90\", \"shortlived\": \"http://ca.test/6\"}}\n",
            server.ip()
        );
        let mind = Mind { path: dir.path().join("acme_srv.cfg"), text };
        mind.say_nothing()?;
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/acme/a2c.py");
        let mut child = Command::new(python)
            .arg("-B")
            .args([script, &home.to_string(), &server.port().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(dir.path().join("log"))?)
            .spawn()?;
        let mut line = String::new();
        let output = child.stdout.take().context("no output")?;
        let mut server = Self { child, port: 0, mind, dir };
        BufReader::new(output).read_line(&mut line)?;
        server.port = line.trim().parse().with_context(|| server.log())?;
        Ok(Some(server))
    }

    pub(crate) fn mind(&self) -> Mind {
        self.mind.clone()
    }

    /// The address of its directory.
    pub(crate) fn directory(&self) -> String {
        format!("https://localhost:{}/directory", self.port)
    }

    /// What its HTTPS is trusted by, in PEM.
    pub(crate) fn roots(&self) -> Result<Vec<u8>> {
        Ok(fs::read(self.dir.path().join("roots.pem"))?)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for A2c {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

/// What it signs certificates by.
fn issuing_ca(dir: &Path) -> Result<()> {
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "the CA of a test");
    let key = KeyPair::generate()?;
    fs::write(dir.join("ca.pem"), ca.self_signed(&key)?.pem())?;
    fs::write(dir.join("ca.key"), key.serialize_pem())?;
    Ok(fs::create_dir(dir.join("certs"))?)
}
