//! Opens the configured runtime.

use std::sync::Arc;

use anyhow::Context as _;
use gantry_runtime::{
    Kvm, NetworkConfig, Runtime,
    embedded::{self, Embedded, Progress, image::ImagesConfig},
    fake::Fake,
    incus::{self, Incus},
};
use ipnet::{IpNet, Ipv4Net};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{files::Files, host, kit};
use crate::config::{Config, RuntimeKind};

/// Opens the runtime, says what of the configuration the host lacks, and reports how images grow to the log.
pub(super) async fn open(
    config: &Config,
    files: &Files,
    tasks: &mut JoinSet<&'static str>,
    shutdown: &CancellationToken,
) -> anyhow::Result<Arc<dyn Runtime>> {
    let runtime: Arc<dyn Runtime> = match config.runtime.kind {
        RuntimeKind::Fake => Arc::new(Fake::default()),
        RuntimeKind::Embedded => {
            host::raise_limits();
            let runtime = open_embedded(config, files).await?;
            follow(runtime.image_store().progress(), tasks, shutdown);
            Arc::new(runtime)
        }
        RuntimeKind::Incus => {
            let runtime = open_incus(config, files).await?;
            follow(runtime.image_store().progress(), tasks, shutdown);
            Arc::new(runtime)
        }
    };
    if runtime.kvm() == Kvm::Missing {
        tracing::warn!("runtime.kvm is on, but {}", Kvm::Missing);
    }
    Ok(runtime)
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

/// The networks that the edge may dial.
pub(super) fn networks(config: &Config) -> Vec<IpNet> {
    match config.runtime.kind {
        RuntimeKind::Embedded | RuntimeKind::Incus => vec![config.runtime.subnet.into()],
        // The fake's containers are loopback addresses.
        RuntimeKind::Fake => vec![Ipv4Net::new_assert([127, 0, 0, 0].into(), 8).into()],
    }
}

/// Opens the embedded runtime without anything beside it.
pub(super) async fn open_embedded(config: &Config, files: &Files) -> anyhow::Result<Embedded> {
    let chosen = &config.runtime;
    let images = images(config, files);
    let mut settings = embedded::Config::new(images.recipes);
    settings.dir = files.runtime_dir();
    settings.image_dir = images.dir;
    settings.tarballs = images.tarballs;
    settings.image_server = images.server;
    settings.cgroup.clone_from(&chosen.cgroup);
    settings.mapping = images.mapping;
    settings.kvm = chosen.kvm;
    settings.network = network(config)?;
    Embedded::open(settings).await.context("cannot open the container runtime")
}

/// Opens Incus without anything beside it.
pub(super) async fn open_incus(config: &Config, files: &Files) -> anyhow::Result<Incus> {
    let chosen = &config.runtime.incus;
    let mut settings = incus::Config::new(Vec::new());
    settings.socket.clone_from(&chosen.socket);
    settings.pool.clone_from(&chosen.pool);
    settings.project.clone_from(&chosen.project);
    settings.dir = files.runtime_dir();
    settings.images = images(config, files);
    settings.kvm = config.runtime.kvm;
    settings.network = network(config)?;
    Incus::open(settings).await.context("cannot open Incus, which runtime.kind chooses")
}

/// Where images come from, whatever runs them.
fn images(config: &Config, files: &Files) -> ImagesConfig {
    let chosen = &config.runtime;
    let mut images = ImagesConfig::new(kit::recipes());
    images.dir.clone_from(&chosen.images);
    images.tarballs = files.dir().join("images");
    images.server.clone_from(&chosen.image_server);
    images.mapping.base = chosen.id_base;
    images.mapping.size = chosen.id_count;
    images
}

fn network(config: &Config) -> anyhow::Result<NetworkConfig> {
    let edge = &config.edge;
    let roots = config.runtime.proxy_ca.as_ref().map(|path| {
        let roots: Result<Vec<_>, _> =
            CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
        roots.with_context(|| format!("cannot read runtime.proxy_ca, {}", path.display()))
    });
    Ok(NetworkConfig {
        relay_port: config.runtime.relay_port,
        proxy_networks: config.runtime.proxy_networks.clone(),
        proxy_roots: roots.transpose()?.unwrap_or_default(),
        bridge: config.runtime.bridge.clone(),
        subnet: config.runtime.subnet,
        host_ports: edge.https.iter().chain(&edge.http).map(std::net::SocketAddr::port).collect(),
        ..NetworkConfig::default()
    })
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
