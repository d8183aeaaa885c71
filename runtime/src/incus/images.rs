//! Images: built, or unpacked from a tarball, like those of the embedded runtime, in one cache with
//! it, then handed to Incus once for each content.

use std::time::Duration;

use tokio::sync::{Mutex, mpsc};
use tokio_util::task::TaskTracker;

use super::{
    client::{Client, Fault},
    pack::pack,
    wire::Image,
};
use crate::{
    Error, Order, Result,
    embedded::image::{Freshness, Images, ImagesConfig, Mapping, Rootfs},
};

/// How long Incus may take to store an image.
const IMPORT_TIMEOUT: Duration = Duration::from_mins(10);
/// How often an image is handed over that another installation has under way, and how long is waited
/// between.
const IMPORT_TRIES: u32 = 5;
const IMPORT_PAUSE: Duration = Duration::from_millis(500);

/// How many pieces of an image wait to be sent.
const PIECES_MAX: usize = 4;

/// Properties of our images: what is in it, and what it was asked for as.
const CONTENT: &str = "gantry.content";
const NAME: &str = "gantry.name";

/// The images of this server, and those of them that Incus has.
#[derive(Debug)]
pub(super) struct Store {
    built: Images,
    mapping: Mapping,
    /// Held while one is handed over, so that none is twice.
    importing: Mutex<()>,
}

impl Store {
    pub(super) async fn open(config: ImagesConfig) -> Result<Self> {
        let mapping = config.mapping;
        Ok(Self { built: Images::open(config).await?, mapping, importing: Mutex::new(()) })
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
        let (sender, pieces) = mpsc::channel(PIECES_MAX);
        let (path, mapping) = (rootfs.path.clone(), self.mapping);
        // Ends when the pieces are read to their end, or nobody reads them any more.
        tasks.spawn_blocking(move || pack(&path, mapping, &metadata, &sender));
        let properties = format!("{CONTENT}={}&{NAME}={name}", rootfs.digest);
        client.import(&properties, pieces, IMPORT_TIMEOUT).await
    }
}
