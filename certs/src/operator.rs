//! Certificates that the operator has put into files, and puts there anew.

use std::{fs, io, path::PathBuf, sync::Arc, time::Duration};

use rustls_pki_types::{PrivateKeyDer, pem::PemObject as _};
use tokio_util::sync::CancellationToken;

use crate::{
    Leaf, Resolver, Source,
    chain::{ChainError, Parsed},
    files::owner_only,
};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// The longest file that is read, in octets.
const LEN_MAX: u64 = 64 * 1024;

/// A certificate and its key, each in a file (PEM).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, the leaf first.
    pub certificate: PathBuf,
    /// The leaf's private key.
    pub key: PathBuf,
}

/// Why files cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The files hold something else, or do not belong together.
    #[error("{}: {what}", path.display())]
    Contents {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

/// Shows the files of the operator's.
#[derive(Debug)]
pub struct Files {
    resolver: Arc<Resolver>,
    held: Vec<Held>,
}

#[derive(Debug)]
struct Held {
    files: CertificateFiles,
    /// What was read last, and what was made of it.
    contents: (Vec<u8>, Vec<u8>),
    leaf: Leaf,
    /// What was wrong when they were looked at last, so that it is said once.
    complaint: Option<String>,
}

impl CertificateFiles {
    /// Whether they can be shown.
    pub fn check(&self) -> Result<(), FilesError> {
        let (chain, key) = self.read()?;
        self.parse(&chain, &key).map(drop)
    }

    fn read(&self) -> Result<(Vec<u8>, Vec<u8>), FilesError> {
        let read = |path: &PathBuf| {
            let contents = match fs::metadata(path) {
                Ok(about) if about.len() > LEN_MAX => {
                    Err(io::Error::new(io::ErrorKind::FileTooLarge, "longer than 64 KiB"))
                }
                Ok(_) => fs::read(path),
                Err(error) => Err(error),
            };
            contents.map_err(|source| FilesError::Read { path: path.clone(), source })
        };
        let contents = (read(&self.certificate)?, read(&self.key)?);
        owner_only(&self.key)
            .map_err(|what| FilesError::Contents { path: self.key.clone(), what })?;
        Ok(contents)
    }

    fn parse(&self, chain: &[u8], key: &[u8]) -> Result<Leaf, FilesError> {
        let bad = |path: &PathBuf, what: String| FilesError::Contents { path: path.clone(), what };
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|_why| bad(&self.key, "holds no private key in PEM".to_owned()))?;
        match Parsed::with_key(chain, key) {
            Ok(parsed) => Ok(Leaf { names: parsed.names, key: parsed.key }),
            Err(error @ ChainError::Key(_)) => Err(bad(&self.key, error.to_string())),
            Err(error) => Err(bad(&self.certificate, error.to_string())),
        }
    }
}

impl Files {
    /// Reads all files and shows them.
    pub fn start(
        files: Vec<CertificateFiles>,
        resolver: Arc<Resolver>,
    ) -> Result<Self, FilesError> {
        let mut held = Vec::with_capacity(files.len());
        for files in files {
            let (chain, key) = files.read()?;
            let leaf = files.parse(&chain, &key)?;
            held.push(Held { files, contents: (chain, key), leaf, complaint: None });
        }
        let shown = Self { resolver, held };
        shown.publish();
        Ok(shown)
    }

    /// Looks at the files from time to time until `shutdown`. What cannot be read or does not belong together,
    /// as between the writes of two files, changes nothing.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            let looked = tokio::task::spawn_blocking(move || {
                self.look();
                self
            });
            match looked.await {
                Ok(files) => self = files,
                Err(error) => {
                    tracing::error!(%error, "certificates in files are not looked at any more");
                    return;
                }
            }
        }
    }

    fn look(&mut self) {
        let mut changed = false;
        for held in &mut self.held {
            match held.look() {
                Ok(has_changed) => {
                    changed |= has_changed;
                    held.complaint = None;
                }
                Err(error) => {
                    let complaint = Some(error.to_string());
                    if held.complaint != complaint {
                        tracing::warn!(%error, "the certificate of before stays");
                    }
                    held.complaint = complaint;
                }
            }
        }
        if changed {
            self.publish();
        }
    }

    fn publish(&self) {
        let leafs = self.held.iter().map(|held| held.leaf.clone()).collect();
        self.resolver.publish(Source::Files, leafs);
    }
}

impl Held {
    /// Takes up what is new; whether there was something.
    fn look(&mut self) -> Result<bool, FilesError> {
        let contents = self.files.read()?;
        if self.contents == contents {
            return Ok(false);
        }
        self.leaf = self.files.parse(&contents.0, &contents.1)?;
        self.contents = contents;
        tracing::info!(names = ?self.leaf.names, "a certificate in a file is new");
        Ok(true)
    }
}
