//! `gantry doctor`: whether all is well, or why a hostname has no certificate.
//!
//! The running process looks itself, with its own configuration, resolver and way to CAs, and is asked by the
//! socket in the state directory. Where none runs the command looks at what there is: configuration and store.

mod installation;

use std::{
    io,
    net::{IpAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use gantry_certs::{
    Resolver, Seal, Shelf,
    diagnosis::{Finding, Grounds, Ports, Verdict},
};
use gantry_control::Servers;
use gantry_model::Hostname;
use gantry_router::Routes;
use gantry_store::Store;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};

use super::{certificates::Sealing, certs, explain, files::Files, glue, lock::Lock};
use crate::{
    args::Doctor,
    config::Config,
    exit::{Class, Failure},
    output::{self, Format},
};

/// How a question begins; no URL does. The rest of the line is a hostname, or nothing.
pub(super) const QUESTION: &str = "!doctor ";
/// How long anything that is asked may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long all together may take.
const ALL_MAX: Duration = Duration::from_mins(3);

/// What answers of the running process stand on.
#[derive(Clone)]
pub(super) struct Desk {
    pub(super) certs: certs::Desk,
    pub(super) routes: Routes,
    config: Arc<Config>,
    servers: Servers,
}

impl Desk {
    pub(super) fn new(
        certs: certs::Desk,
        config: &Config,
        routes: &Routes,
        servers: &Servers,
    ) -> Self {
        let (config, routes) = (Arc::new(config.clone()), routes.clone());
        Self { certs, routes, config, servers: servers.clone() }
    }
}

/// All that was found.
#[derive(Debug, Deserialize, Serialize)]
struct Report {
    /// The hostname, if one was asked about.
    name: Option<String>,
    findings: Vec<Finding>,
}

/// Answers a question. Whoever has asked may leave: what was begun is brought to its end, since a record that was
/// written for it is to be taken away again.
pub(super) async fn answer(
    name: &str,
    to: &mut (impl AsyncWrite + Unpin),
    desk: &Desk,
) -> io::Result<()> {
    let report = match desk.certs.places.try_acquire() {
        Ok(_place) => Box::pin(examine(name, &desk.config, Some(desk), None)).await,
        Err(_none) => {
            let found =
                format!("not looked: {} others wait for what comes of theirs", certs::WAITING_MAX);
            let busy = Finding::failure("time", found, "try again later");
            let name = Some(name.to_owned()).filter(|name| !name.is_empty());
            Report { name, findings: vec![busy] }
        }
    };
    to.write_all(&serde_json::to_vec(&report)?).await?;
    to.shutdown().await
}

/// What of the store can be looked at where no Gantry runs.
struct Kept {
    store: Store,
    seal: Sealing,
    table: gantry_router::RouteTable,
}

async fn examine(name: &str, config: &Config, desk: Option<&Desk>, kept: Option<&Kept>) -> Report {
    let running: Option<(&Resolver, &Shelf)> =
        desk.map(|desk| (&*desk.certs.shown.resolver, &*desk.certs.shown.shelf));
    let seal: Option<&dyn Seal> = match (desk, kept) {
        (Some(desk), _) => Some(&*desk.certs.shown.seal),
        (None, Some(kept)) => Some(&kept.seal),
        (None, None) => None,
    };
    let permits = |name: &str| match (desk, kept) {
        (Some(desk), _) => desk.routes.current().custom(name).is_some(),
        (None, Some(kept)) => kept.table.custom(name).is_some(),
        (None, None) => false,
    };
    let labels: Vec<_> = config.servers().map(|(name, _)| name.clone()).collect();
    let wanted = gantry_certs::standard_names(&config.server.domain, &labels);
    let grounds = Grounds {
        store: desk.map(|desk| &desk.certs.store).or_else(|| kept.map(|kept| &kept.store)),
        seal,
        resolver: running.map(|(resolver, _)| resolver),
        shelf: running.map(|(_, shelf)| shelf),
        domain: &config.server.domain,
        wanted: &wanted,
        authorities: config.certificates.issuing.authorities(),
        dns: config.certificates.issuing.dns(),
        names: &config.certificates.names,
        permits: &permits,
        is_here: &is_here,
        now: glue::now(),
        ports: Ports::default(),
        patience: PATIENCE,
    };
    let mut findings = vec![installation::process(desk.is_some(), config)];
    let look = async {
        if name.is_empty() {
            installation::look(&grounds, config, desk, &mut findings).await;
        } else {
            Box::pin(grounds.diagnose(name, &mut findings)).await;
        }
    };
    if timeout(ALL_MAX, look).await.is_err() {
        let found = format!("not everything was looked at within {} s", ALL_MAX.as_secs());
        findings.push(Finding::warning("time", found, "whatever is asked answers sooner"));
    }
    Report { name: Some(name.to_owned()).filter(|name| !name.is_empty()), findings }
}

/// Whether an address is this machine's: nobody can listen on another one.
fn is_here(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

/// `gantry doctor`
pub(crate) fn doctor(command: &Doctor, format: Format) -> Result<(), Failure> {
    let name = command.name.as_deref().map(hostname).transpose()?;
    let config = explain::config_of(command.meant.state.as_deref(), &command.meant.settings)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    let report = runtime.block_on(Box::pin(ask(name.as_deref().unwrap_or_default(), &config)))?;
    if command.json || format == Format::Json {
        output::json(&serde_json::to_value(&report).context("no JSON")?)?;
    } else {
        for finding in &report.findings {
            let Finding { check, verdict, found, right } = finding;
            output::line(&format!("{:<9}{check:<14}{found}", verdict.to_string()))?;
            if let Some(right) = right {
                output::line(&format!("{:<23}right: {right}", ""))?;
            }
        }
    }
    let of = |verdict| report.findings.iter().filter(|it| it.verdict == verdict).count();
    let (failures, all) = (of(Verdict::Failure), report.findings.len());
    if failures == 0 {
        return Ok(());
    }
    Err(Failure::new(Class::General, format!("{failures} of {all} findings must be mended")))
}

/// A lower-case hostname, maybe behind `*.`.
fn hostname(text: &str) -> Result<String, Failure> {
    let lower = text.trim_end_matches('.').to_ascii_lowercase();
    match Hostname::parse(lower.strip_prefix("*.").unwrap_or(&lower)) {
        Ok(_) => Ok(lower),
        Err(error) => Err(Failure::new(Class::Usage, format!("{text:?} is no hostname: {error}"))),
    }
}

async fn ask(name: &str, config: &Config) -> Result<Report, Failure> {
    let files = Files::new(&config.server.state);
    let (socket, question) = (files.socket(), format!("{QUESTION}{name}\n"));
    let asked = certs::ask(&socket, &question);
    match timeout(ALL_MAX + PATIENCE * 2, asked).await {
        Ok(Ok(report)) => return Ok(report),
        Ok(Err(error)) if certs::is_absent(&error) => {}
        Ok(Err(error)) => {
            let message = format!("cannot ask through {}: {error}", files.socket().display());
            return Err(Failure::new(Class::Unavailable, message)
                .hint("the socket is for the user that Gantry runs as, usually root"));
        }
        Err(_elapsed) => {
            return Err(Failure::new(Class::Unavailable, "the running Gantry does not answer"));
        }
    }
    if !files.store().exists() {
        return Ok(examine(name, config, None, None).await);
    }
    let (schema, newest) = Store::look(&files.store()).await.context("cannot read the store")?;
    if schema != newest {
        // Whoever only looks brings it to no other schema.
        let mut report = examine(name, config, None, None).await;
        let found =
            format!("of schema {schema}; this program has {newest}, and leaves it as it is");
        let right = "a start of Gantry, which brings it there";
        report.findings.push(Finding::warning("store", found, right));
        return Ok(report);
    }
    // Only until it is open: a Gantry may start while name servers are waited for.
    let lock = Lock::take(files.dir())
        .map_err(|error| Failure::new(Class::General, gantry_model::Chain(&error).to_string()))?;
    let store = Store::open_beside(&files.store()).await.context("cannot open the store")?;
    drop(lock);
    let looked = async {
        let table = explain::table(&store, config).await?;
        let kept = Kept { store: store.clone(), seal: Sealing::of(&files)?, table };
        anyhow::Ok(examine(name, config, None, Some(&kept)).await)
    };
    let report = looked.await;
    store.close().await;
    Ok(report?)
}
