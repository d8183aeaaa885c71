//! What is asked of the Gantry that runs on this machine.

use std::path::PathBuf;

use clap::Args;

use super::Settings;

#[derive(Args, Debug)]
pub(crate) struct Explain {
    /// A URL, an authority or a hostname.
    pub(crate) url: String,
    /// The state directory to look in; by default the one of the configuration.
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) settings: Settings,
}

#[derive(Args, Debug)]
pub(crate) struct Upgrade {
    /// The state directory of the Gantry that is meant; by default the one of the configuration.
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) settings: Settings,
}
