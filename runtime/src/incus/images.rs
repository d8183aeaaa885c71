//! Images: built, or unpacked from a tarball, like those of the embedded runtime, in one cache with
//! it, then handed to Incus once for each content.

use std::{path::PathBuf, time::Duration};

use tokio::sync::Mutex;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    client::{Client, Fault},
    wire::Image,
};
use crate::{
    Error, Order, Result,
    archive::{Notes, Tree, Writer, pack, pipe},
    embedded::image::{Freshness, Images, ImagesConfig, Mapping, Rootfs},
    tree::open_dir,
};

/// How long Incus may take to store an image.
const IMPORT_TIMEOUT: Duration = Duration::from_mins(10);
/// How often an image is handed over that another installation has under way, and how long is waited
/// between.
const IMPORT_TRIES: u32 = 5;
const IMPORT_PAUSE: Duration = Duration::from_millis(500);

/// What Incus expects in an image: the file that says what it is, and the directory of its files.
pub(super) const METADATA: &str = "metadata.yaml";
pub(super) const FILES: &str = "rootfs";

/// Properties of our images: what is in it, and what it was asked for as.
const CONTENT: &str = "gantry.content";
const NAME: &str = "gantry.name";

/// The images of this server, and those of them that Incus has.
#[derive(Debug)]
pub(super) struct Store {
    built: Images,
    mapping: Mapping,
    /// Where notes are made while one is packed.
    scratch: PathBuf,
    /// Held while one is handed over, so that none is twice.
    importing: Mutex<()>,
}

impl Store {
    pub(super) async fn open(config: ImagesConfig, scratch: PathBuf) -> Result<Self> {
        let mapping = config.mapping;
        Ok(Self { built: Images::open(config).await?, mapping, scratch, importing: Mutex::new(()) })
    }

    /// The images as they are built.
    pub(super) fn built(&self) -> &Images {
        &self.built
    }

    /// The fingerprint of the image that an order asks for; builds and hands over what is missing.
    pub(super) async fn fingerprint(
        &self,
        client: &Client,
        order: &Order,
        tasks: &TaskTracker,
    ) -> Result<String> {
        let freshness = if order.cache { Freshness::Cached } else { Freshness::Rebuilt };
        let rootfs = self.built.ensure(&order.image, order.kit, freshness).await?;
        let _alone = self.importing.lock().await;
        let failed = |fault: Fault| Error::ImageBuild {
            name: order.image.as_str().to_owned(),
            step: "handing it over to the storage".to_owned(),
            source: Box::new(fault),
        };
        let name = format!("{}:{:?}", order.image.as_str(), order.kit).to_lowercase();
        let mut tries = IMPORT_TRIES;
        let (known, fingerprint) = loop {
            let known: Vec<Image> = client.get("/1.0/images?recursion=1").await.map_err(failed)?;
            let is_it = |image: &&Image| image.properties.get(CONTENT) == Some(&rootfs.digest);
            if let Some(image) = known.iter().find(is_it) {
                return Ok(image.fingerprint.clone());
            }
            tries -= 1;
            match self.import(client, &rootfs, &name, tasks).await {
                Ok(fingerprint) => break (known, fingerprint),
                // Another installation hands the same one over, or removes it, right now.
                Err(fault) if tries > 0 && fault.says("already exists") => {
                    tokio::time::sleep(IMPORT_PAUSE).await;
                }
                Err(fault) => return Err(failed(fault)),
            }
        };
        // Containers do not need the image that they were made from.
        for old in known.iter().filter(|image| image.properties.get(NAME) == Some(&name)) {
            let path = format!("/1.0/images/{}", old.fingerprint);
            let removed = client.change(http::Method::DELETE, &path, None::<&()>, IMPORT_TIMEOUT);
            if let Err(error) = removed.await {
                tracing::warn!(%error, image = name, "an image that nothing starts from stays");
            }
        }
        Ok(fingerprint)
    }

    async fn import(
        &self,
        client: &Client,
        rootfs: &Rootfs,
        name: &str,
        tasks: &TaskTracker,
    ) -> Result<String, Fault> {
        tracing::info!(image = name, "handing an image over to Incus");
        // With the digest, so that two contents have two fingerprints even if what they unpack to is the
        // same to the second.
        let metadata = format!(
            "architecture: {}\ncreation_date: 1\nproperties:\n  description: {name:?}\n  {CONTENT}: {:?}\n",
            std::env::consts::ARCH,
            rootfs.digest,
        );
        let (mut sink, image) = pipe(CancellationToken::new());
        let (path, mapping) = (rootfs.path.clone(), self.mapping);
        let notes = self.scratch.clone();
        // Ends when the image is read to its end, or nobody reads it any more.
        tasks.spawn_blocking(move || {
            let mut write = || {
                let notes = Notes::begin(&notes)?;
                let mut writer = Writer::new(&mut sink, FILES);
                writer.add_beside(METADATA, metadata.as_bytes())?;
                let root = open_dir(rustix::fs::CWD, &path)?;
                pack(Tree { root, mapping, without: &[], notes: &notes }, &mut writer)?;
                writer.finish().map(drop)
            };
            let written = write();
            sink.end(written);
        });
        let properties = format!("{CONTENT}={}&{NAME}={name}", rootfs.digest);
        client.import(&properties, image, IMPORT_TIMEOUT).await
    }
}
