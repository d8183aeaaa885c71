//! What TLS shows, and the tasks that see to it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use gantry_certs::{
    DevCa, Files as CertificateFiles, Metrics, Renewer, Resolver, Seal, SealError, Shelf,
    acme::{Figures, Issuer, IssuerDeps, Wanted},
};
use gantry_control::SealingKeys;
use gantry_router::Routes;
use gantry_store::Store;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{files::Files, glue, serve::named};
use crate::config::{Config, Issuing};

/// How long a process that orders certificates may be silent until another takes over.
const LEASE: Duration = Duration::from_secs(30);

/// What shows certificates.
#[derive(Clone)]
pub(super) struct Certificates {
    pub(super) resolver: Arc<Resolver>,
    pub(super) shelf: Arc<Shelf>,
    /// The root of the development CA.
    pub(super) ca: PathBuf,
    pub(super) seal: Arc<dyn Seal>,
    names: Vec<String>,
    figures: Arc<Figures>,
}

/// Starts everything that certificates are shown by. When it returns, every name of the installation has one.
pub(super) async fn start(
    config: &Config,
    files: &Files,
    store: &Store,
    tasks: &mut JoinSet<&'static str>,
    shutdown: &CancellationToken,
) -> anyhow::Result<Certificates> {
    let ca = DevCa::open_or_create(&files.ca_dir(), &config.server.domain, glue::now())
        .context("cannot open the development CA")?;
    let ca_path = ca.ca_path().to_owned();
    let labels: Vec<_> = config.servers().map(|(name, _)| name.clone()).collect();
    let names = gantry_certs::standard_names(&config.server.domain, &labels);
    let (resolver, renewer) = Renewer::start(ca, std::slice::from_ref(&names), Arc::new(glue::now))
        .context("cannot issue the certificates")?;
    tasks.spawn(named("certificate renewer", renewer.run(shutdown.clone())));

    let seal: Arc<dyn Seal> = Arc::new(Sealing::of(files)?);
    let shelf =
        Shelf::new(store.clone(), Arc::clone(&seal), Arc::new(glue::now), Arc::clone(&resolver));
    let shelf = Arc::new(match config.certificates.issuing {
        Issuing::Development => shelf.without_ordered(),
        Issuing::Acme { .. } => shelf,
    });
    shelf.refresh().await;
    tasks.spawn(named("certificates of the store", Arc::clone(&shelf).run(shutdown.clone())));
    if !config.certificates.files.is_empty() {
        let own = CertificateFiles::start(config.certificates.files.clone(), Arc::clone(&resolver))
            .context("cannot read certificates.files")?;
        tasks.spawn(named("certificates in files", own.run(shutdown.clone())));
    }
    let figures = Arc::new(match &config.certificates.issuing {
        Issuing::Development => Figures::default(),
        Issuing::Acme { authorities, .. } => Figures::new(authorities),
    });
    Ok(Certificates { resolver, shelf, ca: ca_path, seal, names, figures })
}

impl Certificates {
    /// What Prometheus is told.
    pub(super) fn metrics(&self) -> gantry_proxy::MetricsSource {
        let metrics = Metrics {
            names: self.names.clone(),
            resolver: Arc::clone(&self.resolver),
            shelf: Arc::clone(&self.shelf),
            figures: Arc::clone(&self.figures),
            clock: Arc::new(glue::now),
        };
        Arc::new(move |text: &mut String| metrics.render(text))
    }

    /// Starts what orders certificates, if the configuration wants any, for the first time or again.
    pub(super) fn order(
        &self,
        config: &Config,
        store: &Store,
        routes: &Routes,
        tasks: &mut JoinSet<&'static str>,
        shutdown: &CancellationToken,
    ) {
        let Issuing::Acme { authorities, dns } = &config.certificates.issuing else { return };
        let known = routes.clone();
        let deps = IssuerDeps {
            store: store.clone(),
            seal: Arc::clone(&self.seal),
            clock: Arc::new(glue::now),
            shelf: Arc::clone(&self.shelf),
            figures: Arc::clone(&self.figures),
            authorities: authorities.clone(),
            dns: dns.clone(),
            domain: config.server.domain.clone(),
            permits: Arc::new(move |name: &str| known.current().custom(name).is_some()),
            lease: LEASE,
        };
        match Issuer::new(deps, Wanted::of(&self.names)) {
            Ok(issuer) => {
                self.resolver.on_missing(issuer.demand());
                tasks.spawn(named("issuer of certificates", issuer.run(shutdown.clone())));
            }
            Err(error) => tracing::error!(%error, "no certificates are ordered"),
        }
    }
}

/// The installation's keys, as certificates ask for them.
#[derive(Debug)]
pub(super) struct Sealing(SealingKeys);

impl Sealing {
    /// Those of a state directory.
    pub(super) fn of(files: &Files) -> anyhow::Result<Self> {
        let keys = files.sealing_keys();
        let keys = keys.context("cannot read or make the keys that seal secrets")?;
        Ok(Self(SealingKeys::new(&keys)?))
    }
}

impl Seal for Sealing {
    fn seal(&self, context: &str, text: &[u8]) -> Result<Vec<u8>, SealError> {
        let sealed = self.0.seal(context.as_bytes(), text);
        sealed.map_err(|error| SealError(gantry_model::Chain(&error).to_string()))
    }

    fn open(&self, context: &str, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let opened = self.0.open(context.as_bytes(), sealed);
        opened.map_err(|error| SealError(error.to_string()))
    }
}
