//! Turns image names into root file systems.
//!
//! An image comes from one of three sources: a tarball that the operator laid into a directory
//! (`<os>/<release>.tar`, `.tar.gz`, `.tar.xz` or `.tar.zst`), `mmdebstrap` run against the Debian
//! archive that the host's own apt uses, or the simplestreams server that the operator named, in this
//! order. Whichever it is, it is unpacked once, with every owner shifted by the
//! mapping of the user namespace, into a cache that is keyed by what went into it. The result is
//! the read-only lower layer of any number of containers.
//!
//! Layout of the cache: `builds/<key>-<n>/` holds one finished build each, `current/<key>` names the
//! one that new containers start from, `work/` holds builds under way, `locks/` one lock per key,
//! `logs/` the output of the last build of each image. A build appears by one rename, so what is in
//! `builds/` is whole.
//!
//! Invariant: a build in `builds/` never changes. Building anew adds another and moves `current`;
//! [`Images::prune`] removes those that no container uses.

mod build;
mod cache;
mod debian;
mod flight;
mod icon;
mod log;
mod script;
mod source;
mod streams;
mod tarball;
mod unpack;

#[cfg(test)]
mod streams_tests;
#[cfg(test)]
mod tests;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use gantry_model::container::ImageName;
use reqwest::Url;
use tokio::sync::watch;

pub(crate) use self::unpack::namespaced;
use self::{
    build::Builder,
    cache::Cache,
    flight::Flights,
    source::{Plan, Sources},
};
use super::{Progress, Recipe};
use crate::{Error, ImageInfo, Kit, Result};

/// Where images are cached unless the configuration says otherwise.
pub const DIR_DEFAULT: &str = "/var/cache/gantry/images";

/// Where the operator's tarballs are looked for unless the configuration says otherwise.
pub const TARBALLS_DEFAULT: &str = "/var/lib/gantry/images";

/// How the ids of a container's user namespace map to the host's: `0..size` to `base..base + size`,
/// for users and groups alike. A base of 0 maps nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The host's id of the container's root.
    pub base: u32,
    /// How many ids the container has.
    pub size: u32,
}

impl Default for Mapping {
    fn default() -> Self {
        Self { base: 1_000_000, size: 65_536 }
    }
}

/// What images are made from, and where they are kept.
#[derive(Clone, Debug)]
pub struct ImagesConfig {
    /// The cache; made when missing. Must be on a disk that overlayfs can use as lower layer.
    pub dir: PathBuf,
    /// The operator's tarballs, `<os>/<release>.tar[.gz|.xz|.zst]`; need not exist.
    pub tarballs: PathBuf,
    /// The simplestreams server that has images of other names, if there is one.
    pub server: Option<Url>,
    /// What can be built, each (image, kit) at most once.
    pub recipes: Vec<Recipe>,
    /// The mapping that all containers share.
    pub mapping: Mapping,
}

impl ImagesConfig {
    /// The default places and mapping with these recipes.
    pub fn new(recipes: Vec<Recipe>) -> Self {
        Self {
            dir: DIR_DEFAULT.into(),
            tarballs: TARBALLS_DEFAULT.into(),
            server: None,
            recipes,
            mapping: Mapping::default(),
        }
    }
}

/// Whether an earlier build may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Builds only what is missing.
    Cached,
    /// Builds anew. Joins a build of the same image that is under way.
    Rebuilt,
}

/// An unpacked image. It stays as it is until [`Images::prune`] is told that nobody uses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rootfs {
    /// The directory to use as lower layer, its owners shifted by the mapping.
    pub path: PathBuf,
    /// What went into it: 64 hexadecimal digits.
    pub key: String,
    /// What it holds, by the stream that it was unpacked from: 64 hexadecimal digits.
    pub digest: String,
}

/// The images of this server. A cheap handle; all clones share builds under way.
#[derive(Clone, Debug)]
pub struct Images {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    sources: Sources,
    cache: Cache,
    flights: Flights,
    builder: Builder,
    progress: watch::Sender<Option<Progress>>,
}

impl Images {
    /// Opens the cache and reads the host's apt configuration. A host without a Debian archive can
    /// still unpack tarballs and use what is cached: what is missing is told when it is needed.
    pub async fn open(config: ImagesConfig) -> Result<Self> {
        let cache = Cache::open(config.dir.clone()).await?;
        let (sources, options) = tokio::join!(Sources::open(&config), source::host_apt_options());
        let (progress, _) = watch::channel(None);
        let sources = sources?;
        let streams = sources.streams();
        let builder =
            Builder::new(cache.clone(), config.mapping, options, streams, progress.clone());
        let flights = Flights::default();
        Ok(Self { inner: Arc::new(Inner { sources, cache, flights, builder, progress }) })
    }

    /// The unpacked image, built now if need be: seconds for a tarball, a minute or more otherwise.
    ///
    /// However many ask at the same time, in this process and others, an image is built once. A
    /// build goes on when the one who asked for it has gone away.
    pub async fn ensure(
        &self,
        image: &ImageName,
        kit: Kit,
        freshness: Freshness,
    ) -> Result<Rootfs> {
        let plan = self.inner.sources.plan(image, kit).await?;
        let key = plan.key();
        if freshness == Freshness::Cached
            && let Some(rootfs) = self.inner.cache.current(&key).await?
        {
            return Ok(rootfs);
        }
        let builder = self.inner.builder.clone();
        self.inner
            .flights
            .join(&key, async move { builder.build(plan, freshness).await })
            .await
            .map_err(|failure| Error::ImageBuild {
                name: image.as_str().to_owned(),
                step: failure.step().to_owned(),
                source: Box::new(failure),
            })
    }

    /// Every image offered here: those with a recipe and those with a tarball, by name.
    pub async fn list(&self) -> Result<Vec<ImageInfo>> {
        let mut infos = Vec::new();
        for plan in self.plans().await? {
            let disk_bytes = self.inner.cache.disk_bytes(&plan.key()).await?;
            let (name, kit, cached) = (plan.image, plan.kit, disk_bytes.is_some());
            infos.push(ImageInfo { name, kit, cached, disk_bytes });
        }
        Ok(infos)
    }

    /// The operator's icon of an image, `<os>/<release>.png` beside its tarball, if there is one.
    pub async fn icon(&self, image: &ImageName) -> Result<Option<Vec<u8>>> {
        let path = self.inner.sources.tarballs().join(format!("{}.png", image.as_str()));
        super::lifecycle::blocking("reading an icon", move || icon::read(&path)).await
    }

    async fn plans(&self) -> Result<Vec<Plan>> {
        let mut plans = Vec::new();
        for (name, kit) in self.inner.sources.offered().await {
            match self.inner.sources.plan(&name, kit).await {
                Ok(plan) => plans.push(plan),
                // A tarball may vanish or not be made for the Kit; then it is not offered.
                Err(Error::UnknownImage { .. } | Error::ImageBuild { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(plans)
    }

    /// The latest progress of any build under way; `None` before the first and after the last.
    pub fn progress(&self) -> watch::Receiver<Option<Progress>> {
        self.inner.progress.subscribe()
    }

    /// Removes builds that no new container starts from (a newer one took their place, or nothing
    /// offered here leads to them any more) and that are not among `used`, the [`Rootfs::path`]s of
    /// existing containers. Returns how many were removed. No container may be created meanwhile, and
    /// whoever else uses the cache must offer the same images.
    pub async fn prune(&self, used: &[PathBuf]) -> Result<usize> {
        let offered = self.plans().await?.iter().map(Plan::key).collect();
        self.inner.cache.prune(offered, used).await
    }

    /// The cache's directory.
    pub fn dir(&self) -> &Path {
        self.inner.cache.dir()
    }
}
