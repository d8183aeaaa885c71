//! Opens the configured runtimes.

use std::{
    fs::DirBuilder,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use gantry_model::ServerName;
use gantry_runtime::{
    Bequest, Kvm, NetworkConfig, Runtime,
    embedded::{self, Embedded, Progress, image::ImagesConfig},
    fake::Fake,
    incus::{self, Incus},
};
use ipnet::{IpNet, Ipv4Net};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{files::Files, host, kit};
use crate::config::{Config, RuntimeConfig, RuntimeKind};

/// A server of the configuration, and what it takes to open its runtime.
#[derive(Debug)]
pub(super) struct Place<'c> {
    pub(super) name: &'c ServerName,
    pub(super) chosen: &'c RuntimeConfig,
    config: &'c Config,
    /// Where the runtime keeps its things.
    dir: PathBuf,
    /// Where it finds tarballs of images.
    tarballs: PathBuf,
}

/// Every server, the first one first.
pub(super) fn places<'c>(config: &'c Config, files: &Files) -> Vec<Place<'c>> {
    let place = |(at, (name, chosen)): (usize, (&'c ServerName, &'c RuntimeConfig))| Place {
        name,
        chosen,
        config,
        dir: if at == 0 { files.runtime_dir() } else { files.runtime_dir_of(name) },
        tarballs: files.dir().join("images"),
    };
    config.servers().enumerate().map(place).collect()
}

impl Place<'_> {
    /// Opens the runtime, says what of the configuration the host lacks, and reports how images grow to the
    /// log.
    pub(super) async fn open(
        &self,
        bequest: Option<Bequest>,
        tasks: &mut JoinSet<&'static str>,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<Arc<dyn Runtime>> {
        let runtime: Arc<dyn Runtime> = match self.chosen.kind {
            RuntimeKind::Fake => Arc::new(Fake::default()),
            RuntimeKind::Embedded => {
                host::raise_limits();
                let runtime = self.open_embedded(bequest).await?;
                follow(runtime.image_store().progress(), tasks, shutdown);
                Arc::new(runtime)
            }
            RuntimeKind::Incus => {
                let runtime = self.open_incus(bequest).await?;
                follow(runtime.image_store().progress(), tasks, shutdown);
                Arc::new(runtime)
            }
        };
        if runtime.kvm() == Kvm::Missing {
            tracing::warn!("server {}: runtime.kvm is on, but {}", self.name, Kvm::Missing);
        }
        Ok(runtime)
    }

    /// Reads the files that the configuration names.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        self.network().map(drop)
    }

    /// The networks that the edge may dial.
    fn network_to_dial(&self) -> IpNet {
        match self.chosen.kind {
            RuntimeKind::Embedded | RuntimeKind::Incus => self.chosen.subnet.into(),
            // The fake's containers are loopback addresses.
            RuntimeKind::Fake => Ipv4Net::new_assert([127, 0, 0, 0].into(), 8).into(),
        }
    }

    /// Where containers lie; where the runtime keeps them elsewhere, their disk is not known.
    pub(super) fn disk(&self) -> Option<&Path> {
        match self.chosen.kind {
            RuntimeKind::Embedded => Some(&self.dir),
            RuntimeKind::Incus | RuntimeKind::Fake => None,
        }
    }

    /// Takes all containers away, and what the runtime has made for them.
    pub(super) async fn uninstall(&self) -> anyhow::Result<()> {
        match self.chosen.kind {
            RuntimeKind::Embedded => Ok(self.open_embedded(None).await?.uninstall().await?),
            RuntimeKind::Incus => Ok(self.open_incus(None).await?.uninstall().await?),
            RuntimeKind::Fake => Ok(()),
        }
    }

    /// The bridge that containers stand on, if they do.
    pub(super) fn bridge(&self) -> Option<&str> {
        match self.chosen.kind {
            RuntimeKind::Embedded | RuntimeKind::Incus => Some(&self.chosen.bridge),
            RuntimeKind::Fake => None,
        }
    }

    /// Opens the embedded runtime without anything beside it.
    async fn open_embedded(&self, bequest: Option<Bequest>) -> anyhow::Result<Embedded> {
        self.make_dir()?;
        let images = self.images();
        let mut settings = embedded::Config::new(images.recipes);
        settings.dir.clone_from(&self.dir);
        settings.image_dir = images.dir;
        settings.tarballs = images.tarballs;
        settings.image_server = images.server;
        settings.cgroup.clone_from(&self.chosen.cgroup);
        settings.mapping = images.mapping;
        settings.project_ramdisk_bytes = self.chosen.project_ramdisk_bytes;
        settings.kvm = self.chosen.kvm;
        settings.network = self.network()?;
        let opened = match bequest {
            Some(bequest) => Embedded::succeed(settings, bequest).await,
            None => Embedded::open(settings).await,
        };
        opened.with_context(|| format!("cannot open the container runtime of server {}", self.name))
    }

    /// Opens Incus without anything beside it.
    async fn open_incus(&self, bequest: Option<Bequest>) -> anyhow::Result<Incus> {
        self.make_dir()?;
        let chosen = &self.chosen.incus;
        let mut settings = incus::Config::new(Vec::new());
        settings.socket.clone_from(&chosen.socket);
        settings.pool.clone_from(&chosen.pool);
        settings.project.clone_from(&chosen.project);
        settings.dir.clone_from(&self.dir);
        settings.images = self.images();
        settings.project_ramdisk_bytes = self.chosen.project_ramdisk_bytes;
        settings.kvm = self.chosen.kvm;
        settings.network = self.network()?;
        let opened = match bequest {
            Some(bequest) => Incus::succeed(settings, bequest).await,
            None => Incus::open(settings).await,
        };
        opened.with_context(|| {
            format!("cannot open Incus, which runtime.kind chooses for server {}", self.name)
        })
    }

    /// Makes the directory above that of the runtime, through which containers' mapped users must pass.
    fn make_dir(&self) -> anyhow::Result<()> {
        let Some(above) = self.dir.parent() else { return Ok(()) };
        let made = DirBuilder::new().recursive(true).mode(0o711).create(above);
        made.with_context(|| format!("cannot make {}", above.display()))
    }

    /// Where images come from, whatever runs them.
    fn images(&self) -> ImagesConfig {
        let mut images = ImagesConfig::new(kit::recipes());
        images.dir.clone_from(&self.chosen.images);
        images.tarballs.clone_from(&self.tarballs);
        images.server.clone_from(&self.chosen.image_server);
        images.mapping.base = self.chosen.id_base;
        images.mapping.size = self.chosen.id_count;
        images
    }

    fn network(&self) -> anyhow::Result<NetworkConfig> {
        let (edge, chosen) = (&self.config.edge, self.chosen);
        let roots = chosen.proxy_ca.as_ref().map(|path| {
            let roots: Result<Vec<_>, _> =
                CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
            roots.with_context(|| format!("cannot read runtime.proxy_ca, {}", path.display()))
        });
        let mut network = NetworkConfig {
            relay_port: chosen.relay_port,
            proxy_networks: chosen.proxy_networks.clone(),
            proxy_roots: roots.transpose()?.unwrap_or_default(),
            bridge: chosen.bridge.clone(),
            subnet: chosen.subnet,
            host_ports: edge
                .https
                .iter()
                .chain(&edge.http)
                .chain(&edge.ssh)
                .map(SocketAddr::port)
                .collect(),
            ..NetworkConfig::default()
        };
        // Tenants do not reach each other, on whichever server they are.
        let others = self.config.servers().filter(|(name, _)| *name != self.name);
        network.blocked.extend(others.map(|(_, other)| other.subnet));
        Ok(network)
    }
}

/// The networks that the edge may dial.
pub(super) fn networks(places: &[Place<'_>]) -> Vec<IpNet> {
    let mut networks: Vec<IpNet> = places.iter().map(Place::network_to_dial).collect();
    networks.dedup();
    networks
}

/// Reports how images grow until shutdown.
fn follow(
    progress: watch::Receiver<Option<Progress>>,
    tasks: &mut JoinSet<&'static str>,
    shutdown: &CancellationToken,
) {
    let shutdown = shutdown.clone();
    tasks.spawn(async move {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = report(progress) => shutdown.cancelled().await,
        }
        "image progress"
    });
}

/// Says how far an image is: when a step begins, and within it every tenth.
async fn report(mut progress: watch::Receiver<Option<Progress>>) {
    let mut said = (String::new(), 0);
    while progress.changed().await.is_ok() {
        let Some(now) = progress.borrow_and_update().clone() else { continue };
        let percent = now.fraction.map(percent);
        let tenth = (format!("{} {}", now.image.as_str(), now.step), percent.unwrap_or(0) / 10);
        if tenth == said {
            continue;
        }
        let percent = percent.map(|percent| format!("{percent} % ")).unwrap_or_default();
        tracing::info!("image {}: {percent}{}", now.image.as_str(), now.step);
        said = tenth;
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to 0..=100 before"
)]
fn percent(fraction: f32) -> u8 {
    (fraction * 100.0).clamp(0.0, 100.0) as u8
}
