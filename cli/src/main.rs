//! The `gantry` binary: configuration, the wiring of all parts, and the client commands.

mod args;
mod client;
mod config;
mod daemon;
mod exit;
mod output;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::{
    args::{Cli, Command, ConfigCommand},
    exit::{Class, Failure},
    output::Format,
};

// Many small allocations of like sizes in many threads: jemalloc keeps them apart and gives memory
// back, which the system's allocator does not do well.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// jemalloc's newer way of collecting thread caches costs four instructions in a hundred of a request's.
#[expect(
    unsafe_code,
    reason = "jemalloc finds its settings by this symbol, which is read and never written"
)]
#[unsafe(export_name = "_rjem_malloc_conf")]
static ALLOCATOR_SETTINGS: &[u8] = b"experimental_tcache_gc:false\0";

fn main() -> ExitCode {
    // First of all: every TLS configuration of the process takes this provider. It fails only if
    // there is one already, and nothing has run yet.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    if let Some(code) = daemon::pass_on() {
        return code;
    }
    let before = daemon::Before::find();
    let cli = Cli::parse();
    let out = cli.output;
    match before.map_err(Failure::from).and_then(|before| run(cli, out, before)) {
        Ok(code) => code,
        Err(failure) => {
            output::note(&failure.to_string());
            failure.exit_code()
        }
    }
}

fn run(cli: Cli, out: Format, before: Option<daemon::Before>) -> Result<ExitCode, Failure> {
    let done = match cli.command {
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "gantry", &mut script);
            output::raw(&script)
        }
        Command::Config(ConfigCommand::Check(settings)) => check(&settings, out),
        Command::Serve(settings) => daemon::serve(&settings, before),
        Command::Dev(dev) => daemon::dev(&dev, before),
        Command::Upgrade(upgrade) => daemon::upgrade(&upgrade, out),
        Command::Explain(explain) => daemon::explain(&explain, out),
        Command::Certs(certs) => daemon::certs(certs, out),
        Command::Doctor(doctor) => daemon::doctor(&doctor, out),
        command @ (Command::Auth(_)
        | Command::Login(_)
        | Command::Logout
        | Command::Projects(_)
        | Command::Containers(_)
        | Command::Ps(_)
        | Command::Servers(_)
        | Command::Images(_)
        | Command::TwoFactor(_)
        | Command::Users(_)
        | Command::Activity(_)
        | Command::Events(_)
        | Command::Realms(_)
        | Command::Tokens(_)
        | Command::Proxy(_)
        | Command::Hostnames(_)
        | Command::Hooks(_)
        | Command::Permissions(_)
        | Command::Edge(_)
        | Command::Snapshots(_)
        | Command::Firewall(_)
        | Command::Network(_)
        | Command::Shares(_)
        | Command::Vault(_)
        | Command::PublicKey
        | Command::Meta { .. }
        | Command::Exec(_)
        | Command::Ssh(_)
        | Command::SshConfig(_)
        | Command::Tap(_)) => {
            let runtime = runtime()?;
            let code = runtime.block_on(client::run(cli.connection, out, command));
            // What is still being written to where nobody reads is not waited for.
            runtime.shutdown_background();
            return code;
        }
    };
    done.map(|()| ExitCode::SUCCESS)
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        Failure::new(Class::General, format!("cannot start the runtime of the client: {error}"))
    })
}

/// `gantry config check`
fn check(settings: &args::Settings, out: Format) -> Result<(), Failure> {
    match config::load(settings, Vec::new()) {
        Ok(loaded) => config::print(&loaded.effective, out),
        Err(problems) => Err(config::failure(&problems)),
    }
}
