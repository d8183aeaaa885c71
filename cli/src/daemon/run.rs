//! From a configuration to a running Gantry, and back.

use std::time::Duration;

use anyhow::Context as _;
use gantry_control::Credential;
use tokio::sync::mpsc;

use super::{
    before::{Before, Inheritance},
    files::{Files, RunFile},
    lock::Lock,
    logs, manager, next, ports, runtime,
    serve::Daemon,
    signals::{Signals, Wanted},
    transparent,
};
use crate::{
    args::Settings,
    config::{self, Config},
    exit::{Class, Failure},
    output,
};

/// `gantry serve`
pub(crate) fn serve(settings: &Settings, before: Option<Before>) -> Result<(), Failure> {
    Before::telling(before, |before| {
        let loaded =
            config::load(settings, Vec::new()).map_err(|problems| config::failure(&problems))?;
        run(&loaded.config, before, |started| {
            if let Some(Credential { username, password }) = started.admin {
                output::note("The first administrator, shown this once:");
                output::note(&format!("  username {username}\n  password {password}"));
            }
            Ok(())
        })
    })
}

/// What can be told once everything runs.
pub(super) struct Started<'s> {
    pub(super) run: &'s RunFile,
    /// Only when this start has made the first account.
    pub(super) admin: Option<&'s Credential>,
}

/// Runs until a signal asks for the end, or another process has followed and nothing is under way here any
/// more. `started` is called once the edge listens, unless this process itself follows another one.
pub(super) fn run(
    config: &Config,
    before: Option<Before>,
    started: impl FnOnce(Started<'_>) -> anyhow::Result<()>,
) -> Result<(), Failure> {
    next::remember().context("cannot find this program's own file")?;
    let control = tokio::runtime::Builder::new_multi_thread()
        .thread_name("control")
        .enable_all()
        .build()
        .context("cannot start the control runtime")?;
    let files = Files::new(&config.server.state);
    let result = control.block_on(Box::pin(live(config, &files, before, started)));
    control.shutdown_timeout(Duration::from_secs(5));
    result
}

/// Finds what this process could not begin with, while the one that runs still has everything as it was. Returns
/// the schema of the store, and the one to which this process will bring it.
async fn foresee(config: &Config, files: &Files) -> anyhow::Result<(i64, i64)> {
    files.session_key().context("cannot read or make the key of sessions")?;
    files.sealing_keys().context("cannot read or make the keys that seal secrets")?;
    for place in runtime::places(config, files) {
        place.check()?;
    }
    gantry_store::Store::look(&files.store()).await.context("cannot use the store")
}

/// What this process begins with: that of the one before, or what it can have of its own.
async fn inherit(
    config: &Config,
    files: &Files,
    before: Option<Before>,
) -> Result<Inheritance, Failure> {
    let mut inheritance = match before {
        Some(before) => before.take(foresee(config, files).await?).await?,
        None => Inheritance::none(Lock::take(files.dir()).map_err(|error| {
            Failure::new(Class::General, gantry_model::Chain(&error).to_string())
        })?),
    };
    logs::start(&config.log)?;
    if inheritance.giver.is_none() {
        inheritance.sockets.tcp = manager::listeners(&config.edge)?;
    }
    ports::check(&config.edge, |address| inheritance.has(address)).map_err(|taken| {
        Failure::new(Class::General, taken)
            .hint("stop what listens there, or choose another address in the configuration")
    })?;
    if inheritance.giver.is_none() {
        ports::wait_for_http3(&config.edge).await;
    }
    if config.edge.client_address == gantry_proxy::UpstreamSource::Client {
        for place in runtime::places(config, files) {
            if let Some(bridge) = place.bridge() {
                transparent::check(bridge)?;
            }
        }
    }
    Ok(inheritance)
}

async fn live(
    config: &Config,
    files: &Files,
    before: Option<Before>,
    started: impl FnOnce(Started<'_>) -> anyhow::Result<()>,
) -> Result<(), Failure> {
    let inheritance = inherit(config, files, before).await?;
    let mut signals = Signals::listen().context("cannot listen to signals")?;
    // A signal during the start ends it: dropping what was made is safe, as after a crash.
    let begun = tokio::select! {
        begun = Box::pin(Daemon::start(config, files, inheritance)) => begun,
        name = signals.end() => {
            tracing::info!("{name} during the start");
            return Ok(());
        }
    };
    let (mut daemon, admin) = begun?;
    daemon.earlier.begin().await?;
    daemon.serve()?;
    let (to_us, mut questions) = mpsc::channel(1);
    daemon.tell(config, files, &to_us)?;
    let follows = daemon.earlier.serving().await;
    // Last: until now the process before might have taken everything back.
    daemon.keep(config, files);
    if !follows {
        manager::ready();
        started(Started { run: &daemon.run_file, admin: admin.as_ref() })?;
    }
    let ended = loop {
        let asker = tokio::select! {
            wanted = signals.next() => match wanted {
                Wanted::Upgrade => None,
                Wanted::End(name) => {
                    tracing::info!(
                        "{name}: draining for at most {} s; containers keep running",
                        config.edge.drain.as_secs()
                    );
                    break Ok(());
                }
            },
            Some(asker) = questions.recv() => Some(asker),
            name = daemon.unexpected_end() => break Err(anyhow::anyhow!("the {name} has ended")),
        };
        let followed = tokio::select! {
            followed = Box::pin(daemon.follow(config, files, asker, &to_us)) => followed,
            name = signals.end() => {
                tracing::info!("{name} during an upgrade, which is given up");
                break Ok(());
            }
        };
        if let Some(next) = followed {
            // Whoever else has asked is told that it is too late here.
            drop(questions);
            Box::pin(daemon.retire(next, config, &mut signals)).await;
            return Ok(());
        }
    };
    manager::stopping();
    tokio::select! {
        () = daemon.stop(config.edge.drain) => {}
        name = signals.end() => tracing::warn!("{name} again: ending without draining"),
    }
    files.remove_run();
    Ok(ended?)
}
