//! The images of a simplestreams server, the form in which distributions offer images of containers:
//! `streams/v1/index.json` names catalogues, these name products with aliases, versions and files.
//! Of each product the newest version counts, and of its files `root.tar.xz`, a file system as it is.
//!
//! The catalogue is read at most once an hour and kept on disk, so that what was known stays known
//! while the server cannot be reached. What it says of a file, length and SHA-256, is what the file must be.

use std::{
    collections::BTreeMap,
    env::consts,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use gantry_model::container::ImageName;
use reqwest::{Client, Response, Url};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};
use tokio::{io::AsyncWriteExt as _, sync::Mutex};

/// How long a catalogue counts as new, and how long a server that failed is left alone.
const FRESH: Duration = Duration::from_hours(1);
const RETRY_AFTER: Duration = Duration::from_mins(1);

/// How long the server may take to be reached, to go on with an answer, and to give its catalogues.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const READ_TIMEOUT: Duration = Duration::from_secs(30);
const CATALOGUE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a file may take in all.
const DOWNLOAD_TIMEOUT: Duration = Duration::from_mins(30);

/// The longest document, in bytes, and the most catalogues.
const DOCUMENT_BYTES_MAX: usize = 64 << 20;
const CATALOGUES_MAX: usize = 16;
/// The longest file, in bytes.
const FILE_BYTES_MAX: u64 = 16 << 30;

/// The kind of catalogue and the kind of file that are looked for.
const DATATYPE: &str = "image-downloads";
const FILE_TYPE: &str = "root.tar.xz";

/// A file system that the server offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Remote {
    /// Where it is.
    pub(super) url: String,
    /// SHA-256 of the file, 64 hexadecimal digits.
    pub(super) sha256: String,
    /// Its length in bytes.
    pub(super) size: u64,
    /// The distribution, in lower case, as `debian`.
    pub(super) os: String,
    /// The release as the distribution calls it, as `trixie`.
    pub(super) release: String,
}

/// What the server offers, by name.
type Catalogue = BTreeMap<String, Remote>;

/// Why the server gave nothing that can be used; for the operator.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("the image server cannot be used")]
    Request(#[from] reqwest::Error),
    #[error("{what} of the image server is longer than {max} bytes")]
    TooLong { what: String, max: u64 },
    #[error("{what} of the image server is not what simplestreams says")]
    NotADocument {
        what: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("{0} does not lie on the image server")]
    Elsewhere(String),
    #[error("the image server gave {got} bytes with SHA-256 {digest}, its catalogue says {} and {}", wanted.size, wanted.sha256)]
    Differs { got: u64, digest: String, wanted: Box<Remote> },
    #[error("the image server took longer than {} s", .0.as_secs())]
    TooSlow(Duration),
    #[error("the disk does not take the file")]
    Disk(#[from] io::Error),
}

/// A simplestreams server.
#[derive(Debug)]
pub(super) struct Streams {
    base: Url,
    client: Client,
    /// Where the catalogue is kept.
    kept: PathBuf,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    catalogue: Option<Catalogue>,
    /// When the server is asked again, at the earliest.
    next: Option<Instant>,
}

impl Streams {
    /// The server at `base`; `dir` is where its catalogue is kept. Asks nothing yet.
    pub(super) fn open(base: &Url, dir: &Path) -> Result<Self, Fault> {
        let mut base = base.clone();
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let client = Client::builder()
            // Whoever is asked over TLS must not send us elsewhere without.
            .https_only(base.scheme() == "https")
            .user_agent(concat!("gantry/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .build()?;
        let digest = hex::encode(Sha256::digest(base.as_str()));
        let kept = dir.join(format!("catalogue-{}.json", digest.get(..16).unwrap_or(&digest)));
        // What cannot be read is asked for anew.
        let catalogue = fs::read(&kept).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let known = Mutex::new(Known { catalogue, next: None });
        Ok(Self { base, client, kept, known })
    }

    /// The file system of an image, if the server has it.
    pub(super) async fn find(&self, image: &ImageName) -> Result<Option<Remote>, Fault> {
        self.with_catalogue(|catalogue| catalogue.get(image.as_str()).cloned()).await
    }

    /// Every image of the server, with what it is.
    pub(super) async fn offered(&self) -> Result<Vec<(ImageName, Remote)>, Fault> {
        let named = |(name, remote): (&String, &Remote)| {
            Some((ImageName::parse("image", name).ok()?, remote.clone()))
        };
        self.with_catalogue(|catalogue| catalogue.iter().filter_map(named).collect()).await
    }

    /// Looks into the catalogue, after reading it anew if it is time for that.
    async fn with_catalogue<T>(&self, look: impl FnOnce(&Catalogue) -> T) -> Result<T, Fault> {
        let mut known = self.known.lock().await;
        let due = known.next.is_none_or(|next| next <= Instant::now());
        if due || known.catalogue.is_none() {
            match tokio::time::timeout(CATALOGUE_TIMEOUT, self.read()).await {
                Ok(Ok(catalogue)) => {
                    known.next = Instant::now().checked_add(FRESH);
                    if known.catalogue.as_ref() != Some(&catalogue) {
                        self.keep(&catalogue);
                    }
                    known.catalogue = Some(catalogue);
                }
                outcome => {
                    let fault = match outcome {
                        Ok(Err(fault)) => fault,
                        Ok(Ok(_)) | Err(_) => Fault::TooSlow(CATALOGUE_TIMEOUT),
                    };
                    if known.catalogue.is_none() {
                        return Err(fault);
                    }
                    known.next = Instant::now().checked_add(RETRY_AFTER);
                    tracing::warn!(
                        error = &fault as &dyn std::error::Error,
                        "the image server gives no catalogue: an earlier one is used"
                    );
                }
            }
        }
        Ok(look(known.catalogue.as_ref().unwrap_or(&Catalogue::new())))
    }

    /// Keeps the catalogue for a start at which the server cannot be reached.
    fn keep(&self, catalogue: &Catalogue) {
        let new = self.kept.with_extension(format!("{}.new", std::process::id()));
        let written = serde_json::to_vec(catalogue)
            .map_err(io::Error::from)
            .and_then(|text| fs::write(&new, text))
            .and_then(|()| fs::rename(&new, &self.kept));
        if let Err(error) = written {
            tracing::warn!(%error, "the image server's catalogue is not kept");
        }
    }

    async fn read(&self) -> Result<Catalogue, Fault> {
        let index: Index = self.document("streams/v1/index.json").await?;
        let wanted = index.index.into_values().filter(|stream| stream.datatype == DATATYPE);
        let mut catalogue = Catalogue::new();
        for stream in wanted.take(CATALOGUES_MAX) {
            let products: Products = self.document(&stream.path).await?;
            for product in products.products.into_values() {
                self.add(product, &mut catalogue);
            }
        }
        Ok(catalogue)
    }

    /// Adds the newest version of a product under all names that an image may have here, unless it
    /// cannot be used.
    fn add(&self, product: Product, catalogue: &mut Catalogue) {
        if Some(product.arch.as_str()) != architecture() {
            return;
        }
        let mut versions = product.versions.into_iter().rev();
        // The last one may be one for virtual machines only.
        let found = versions.find_map(|(_, version)| {
            version.items.into_values().find(|item| item.ftype == FILE_TYPE)
        });
        let Some(item) = found else { return };
        let is_digest = item.sha256.len() == 64
            && item.sha256.bytes().all(|octet| matches!(octet, b'0'..=b'9' | b'a'..=b'f'));
        let place = self.place(&item.path);
        let (Ok(url), true, 1..=FILE_BYTES_MAX) = (place, is_digest, item.size) else {
            tracing::warn!(
                image = product.aliases,
                file = item.path,
                "the image server offers a file that cannot be used"
            );
            return;
        };
        let remote = Remote {
            url: url.into(),
            sha256: item.sha256,
            size: item.size,
            os: product.os.to_lowercase(),
            release: product.release,
        };
        for alias in product.aliases.split(',').map(str::trim) {
            if ImageName::parse("image", alias).is_ok() {
                catalogue.entry(alias.to_owned()).or_insert_with(|| remote.clone());
            }
        }
    }

    /// Where a path of the server's leads; never to another one.
    fn place(&self, path: &str) -> Result<Url, Fault> {
        let url = self.base.join(path).ok().filter(|url| url.origin() == self.base.origin());
        url.ok_or_else(|| Fault::Elsewhere(path.to_owned()))
    }

    async fn get(&self, url: Url) -> Result<Response, Fault> {
        Ok(self.client.get(url).send().await?.error_for_status()?)
    }

    async fn document<T: DeserializeOwned>(&self, path: &str) -> Result<T, Fault> {
        let mut response = self.get(self.place(path)?).await?;
        let mut text = Vec::new();
        while let Some(piece) = response.chunk().await? {
            if text.len() + piece.len() > DOCUMENT_BYTES_MAX {
                let max = DOCUMENT_BYTES_MAX as u64;
                return Err(Fault::TooLong { what: path.to_owned(), max });
            }
            text.extend_from_slice(&piece);
        }
        serde_json::from_slice(&text)
            .map_err(|source| Fault::NotADocument { what: path.to_owned(), source })
    }

    /// Fetches a file to `path` and makes sure that it is the one; `show` is told how much of it is
    /// there, from 0 to 1.
    pub(super) async fn download(
        &self,
        remote: &Remote,
        path: &Path,
        show: impl FnMut(f32),
    ) -> Result<(), Fault> {
        let download = self.download_slowly(remote, path, show);
        tokio::time::timeout(DOWNLOAD_TIMEOUT, download)
            .await
            .unwrap_or(Err(Fault::TooSlow(DOWNLOAD_TIMEOUT)))
    }

    async fn download_slowly(
        &self,
        remote: &Remote,
        path: &Path,
        mut show: impl FnMut(f32),
    ) -> Result<(), Fault> {
        let mut response = self.get(self.place(&remote.url)?).await?;
        let mut file = tokio::fs::File::create_new(path).await?;
        let (mut hash, mut got) = (Sha256::new(), 0_u64);
        while let Some(piece) = response.chunk().await? {
            got = got.saturating_add(piece.len() as u64);
            if got > remote.size {
                break;
            }
            hash.update(&piece);
            file.write_all(&piece).await?;
            #[expect(clippy::cast_precision_loss, reason = "it is shown as a share")]
            show(got as f32 / remote.size as f32);
        }
        file.flush().await?;
        let digest = hex::encode(hash.finalize());
        if got == remote.size && digest == remote.sha256 {
            return Ok(());
        }
        Err(Fault::Differs { got, digest, wanted: Box::new(remote.clone()) })
    }
}

/// This machine's architecture as Debian calls it, which is what catalogues use.
fn architecture() -> Option<&'static str> {
    match consts::ARCH {
        "x86_64" => Some("amd64"),
        "aarch64" => Some("arm64"),
        "riscv64" => Some("riscv64"),
        _ => None,
    }
}

/// `streams/v1/index.json`.
#[derive(Debug, Deserialize)]
struct Index {
    index: BTreeMap<String, Stream>,
}

#[derive(Debug, Deserialize)]
struct Stream {
    #[serde(default)]
    datatype: String,
    path: String,
}

/// A catalogue, as `streams/v1/images.json`.
#[derive(Debug, Deserialize)]
struct Products {
    products: BTreeMap<String, Product>,
}

#[derive(Debug, Deserialize)]
struct Product {
    #[serde(default)]
    aliases: String,
    #[serde(default)]
    arch: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    release: String,
    /// By name, which begins with the date.
    #[serde(default)]
    versions: BTreeMap<String, Version>,
}

#[derive(Debug, Deserialize)]
struct Version {
    #[serde(default)]
    items: BTreeMap<String, Item>,
}

#[derive(Debug, Deserialize)]
struct Item {
    #[serde(default)]
    ftype: String,
    #[serde(default)]
    path: String,
    #[serde(default)]
    sha256: String,
    #[serde(default)]
    size: u64,
}
