//! The commands about SSH.

use std::path::PathBuf;

use gantry_model::ContainerId;

/// `gantry ssh-config`
#[derive(Debug, clap::Args)]
pub(crate) struct SshConfig {
    /// Only these containers; all that have a key where none is named.
    pub(crate) containers: Vec<ContainerId>,
    /// The file with the private key; found by itself if its public half is in ~/.ssh.
    #[arg(long, value_name = "FILE")]
    pub(crate) identity: Option<PathBuf>,
}
