//! `gantry dev`: everything on this machine, with defaults that suit a developer.

use anyhow::Context as _;

use super::{
    before::Before,
    files::{AdminFile, Files},
    lock::Lock,
    run::{Started, run},
    runtime,
};
use crate::{
    args::{Dev, Settings},
    config::{self, Config, Preset},
    exit::{Class, Failure},
    output,
};

/// `gantry dev`
pub(crate) fn dev(dev: &Dev, before: Option<Before>) -> Result<(), Failure> {
    Before::telling(before, |before| {
        let config = load(dev)?;
        if dev.remove { remove(&config) } else { go(&config, before) }
    })
}

fn go(config: &Config, before: Option<Before>) -> Result<(), Failure> {
    let files = Files::new(&config.server.state);
    run(config, before, |started| {
        if let Some(made) = started.admin {
            // Kept, because a development installation is started again and again.
            let admin =
                AdminFile { username: made.username.clone(), password: made.password.clone() };
            files.write_admin(&admin).context("cannot keep the administrator's credential")?;
        }
        banner(&started, files.read_admin().as_ref());
        Ok(())
    })
}

fn load(dev: &Dev) -> Result<Config, Failure> {
    let state = match &dev.state {
        Some(state) => std::path::absolute(state).map_err(|error| {
            Failure::new(Class::Usage, format!("--state {}: {error}", state.display()))
        })?,
        None => config::default_state_dir(),
    };
    let preset: Preset = vec![
        ("server.state", state.display().to_string().into()),
        ("edge.https", "127.0.0.1:8443".into()),
        ("edge.http", "127.0.0.1:8080".into()),
        ("edge.ssh", "127.0.0.1:2222".into()),
        ("edge.drain_timeout_s", 5_u32.into()),
        ("log.access", "state".into()),
    ];
    let settings: &Settings = &dev.settings;
    let loaded = config::load(settings, preset).map_err(|problems| config::failure(&problems))?;
    Ok(loaded.config)
}

/// What a developer needs to know, on standard output.
fn banner(started: &Started<'_>, admin: Option<&AdminFile>) {
    let run = started.run;
    let mut lines = vec![
        "Gantry runs.".to_owned(),
        format!("  API         {}/api/v1 (OpenAPI: /openapi.json)", run.api_url),
        format!(
            "  Containers  https://<project>-<container>-terminal-1.{}.containers.{}:{}/",
            run.server, run.domain, run.url_port
        ),
        format!("  Metrics     http://{}/metrics", run.admin),
        format!("  CA          {}", run.ca.display()),
    ];
    match admin {
        Some(AdminFile { username, password }) => {
            lines.push(format!("  Admin       {username} / {password}"));
        }
        None => lines.push("  Admin       as made at the first start".to_owned()),
    }
    lines.push(String::new());
    lines.push("In another shell:".to_owned());
    lines.push(format!("  export GANTRY_API_URL={} GANTRY_CA={}", run.api_url, run.ca.display()));
    lines.push(format!(
        "  gantry login --username {}",
        admin.map_or("<name>", |admin| admin.username.as_str())
    ));
    // The CA lies in `ca/` of the state directory.
    if let Some(state) = run.ca.ancestors().nth(2) {
        lines.push(format!("  gantry explain --state {} <url>", state.display()));
    }
    lines.push("Ctrl-C stops Gantry; containers keep running.".to_owned());
    for line in lines {
        // A closed standard output is no reason to end.
        drop(output::line(&line));
    }
}

/// `gantry dev --remove`: deletes every container, the network and the state directory.
fn remove(config: &Config) -> Result<(), Failure> {
    let files = Files::new(&config.server.state);
    if !files.dir().exists() {
        return Ok(());
    }
    let lock = Lock::take(files.dir())
        .map_err(|error| Failure::new(Class::General, gantry_model::Chain(&error).to_string()))?;
    let control = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    for place in runtime::places(config, &files) {
        control.block_on(place.uninstall()).context("cannot remove the containers")?;
    }
    std::fs::remove_dir_all(files.dir())
        .with_context(|| format!("cannot remove {}", files.dir().display()))?;
    drop(lock);
    output::note(&format!("Removed {}.", files.dir().display()));
    Ok(())
}
