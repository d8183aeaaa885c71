//! The commands for storage shares.

use clap::{Args, Subcommand};
use gantry_model::{ContainerId, ProjectId, ShareId};

#[derive(Debug, Subcommand)]
pub(crate) enum SharesCommand {
    /// Share a directory of a container: it appears below /hoody/shares in others, while both run.
    Create {
        /// The container that has the directory.
        #[arg(short, long, value_name = "ID")]
        container: ContainerId,
        /// The directory.
        #[arg(long, value_name = "PATH")]
        source_path: String,
        /// The container that is to see it.
        #[arg(long, value_name = "ID", required_unless_present = "target_project_id")]
        target_container_id: Option<ContainerId>,
        /// The project whose containers are all to see it.
        #[arg(long, value_name = "ID", conflicts_with = "target_container_id")]
        target_project_id: Option<ProjectId>,
        #[command(flatten)]
        fields: ShareFields,
    },
    /// List the shares from a container, or from all.
    List {
        /// The container.
        #[arg(short, long, value_name = "ID")]
        container: Option<ContainerId>,
        #[command(flatten)]
        filter: ShareFilter,
        /// Only those with this label.
        #[arg(long)]
        label: Option<String>,
        /// Those that have just ended, too.
        #[arg(long)]
        include_expired: bool,
    },
    /// List the shares to a container, or to all.
    Incoming {
        /// The container.
        #[arg(short, long, value_name = "ID")]
        container: Option<ContainerId>,
        #[command(flatten)]
        filter: ShareFilter,
    },
    /// Show a share.
    Get {
        /// Its id.
        id: ShareId,
        /// The container that it is from.
        #[arg(short, long, value_name = "ID")]
        container: ContainerId,
    },
    /// Change a share; what is left out stays.
    Update {
        /// Its id.
        id: ShareId,
        /// The container that it is from.
        #[arg(short, long, value_name = "ID")]
        container: ContainerId,
        #[command(flatten)]
        fields: ShareFields,
    },
    /// Have a share that reaches a container mounted there, as it is unless it was unmounted.
    Mount {
        /// Its id.
        id: ShareId,
        /// The container that it reaches.
        #[arg(short, long, value_name = "ID")]
        container: ContainerId,
    },
    /// Keep a share that reaches a container out of it.
    Unmount {
        /// Its id.
        id: ShareId,
        /// The container that it reaches.
        #[arg(short, long, value_name = "ID")]
        container: ContainerId,
    },
    /// End a share.
    Delete {
        /// Its id.
        id: ShareId,
    },
}

/// What a share is like. `null` clears what can be left out.
#[derive(Args, Debug)]
pub(crate) struct ShareFields {
    /// What may be done with it; needed for a new one.
    #[arg(long, value_parser = ["readonly", "readwrite"])]
    pub(crate) mode: Option<String>,
    /// What the directory is called below /hoody/shares; its id otherwise.
    #[arg(long)]
    pub(crate) alias: Option<String>,
    /// What to sort it by.
    #[arg(long)]
    pub(crate) label: Option<String>,
    /// What to say of it.
    #[arg(long)]
    pub(crate) description: Option<String>,
    /// Whether it is there.
    #[arg(long, value_name = "BOOL")]
    pub(crate) enabled: Option<bool>,
    /// When it ends: a Unix time or an ISO 8601 time.
    #[arg(long, value_name = "TIME")]
    pub(crate) expires_at: Option<String>,
}

/// Which shares are meant.
#[derive(Args, Debug)]
pub(crate) struct ShareFilter {
    /// Only those to a container, or to a project.
    #[arg(long, value_parser = ["container", "project"])]
    pub(crate) target_type: Option<String>,
    /// Only those that are missing in no container, or in one that should have them.
    #[arg(long, value_parser = ["active", "failed"])]
    pub(crate) status: Option<String>,
    /// Only those that are on, or off.
    #[arg(long, value_name = "BOOL")]
    pub(crate) enabled: Option<bool>,
}
