//! The commands for permission documents, hooks and hostnames.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use gantry_model::{AliasId, ContainerId, HookId};

/// What has a permission document. Ids of containers and projects look alike.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Owner {
    /// The container's id.
    #[arg(value_name = "ID")]
    pub(crate) id: ContainerId,
    /// The id is a project's: what its document says holds for all its containers.
    #[arg(long)]
    pub(crate) project: bool,
}

/// Which version of the document a write is for.
#[derive(Args, Clone, Debug)]
pub(crate) struct At {
    /// Write only if the document still is of this version; otherwise the present one is read first.
    #[arg(long, value_name = "ETAG")]
    pub(crate) if_match: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PermissionsCommand {
    /// Print the permission document of a container or project as JSON, with its credentials.
    Show {
        #[command(flatten)]
        owner: Owner,
    },
    /// Replace it by a file, as `show` prints it; refused if it has changed since.
    Set {
        #[command(flatten)]
        owner: Owner,
        /// The document (JSON); `-` is the standard input.
        file: PathBuf,
        #[command(flatten)]
        at: At,
    },
    /// Remove it: everything passes that the project's document does not stop.
    Delete {
        #[command(flatten)]
        owner: Owner,
        #[command(flatten)]
        at: At,
    },
    /// Show its switches, or set those that are given.
    Settings {
        #[command(flatten)]
        owner: Owner,
        /// What happens when no group decides.
        #[arg(long, value_parser = ["allow", "deny"])]
        default: Option<String>,
        /// Whether requests pass at all.
        #[arg(long, value_name = "BOOL")]
        enable_proxy: Option<bool>,
        #[command(flatten)]
        at: At,
    },
    /// List its groups, without their credentials.
    Groups {
        #[command(flatten)]
        owner: Owner,
    },
    /// Make a group, or give it another way to belong to it.
    SetGroup {
        #[command(flatten)]
        owner: Owner,
        /// The group's name.
        group: String,
        /// The way as JSON, such as {"type": "ip", "range": "10.0.0.0/8"}; `-` is the standard input.
        file: PathBuf,
        #[command(flatten)]
        at: At,
    },
    /// Remove a group with what it opens.
    DeleteGroup {
        #[command(flatten)]
        owner: Owner,
        /// The group's name.
        group: String,
        #[command(flatten)]
        at: At,
    },
    /// Say what a group opens of one program.
    Allow {
        #[command(flatten)]
        owner: Owner,
        /// The group's name.
        group: String,
        /// http, https, ssh or a service of the Kit.
        program: String,
        /// `true`, `false`, `*`, a port or index, several as `[3000,8080]`, or a range as `3000-3999`.
        access: String,
        #[command(flatten)]
        at: At,
    },
    /// Forget what a group opens of one program, or of all.
    Forget {
        #[command(flatten)]
        owner: Owner,
        /// The group's name.
        group: String,
        /// The program; all when absent.
        program: Option<String>,
        #[command(flatten)]
        at: At,
    },
    /// List the services that a container's document or hooks name, or show what is said of one.
    Services {
        /// The container's id.
        container: ContainerId,
        /// The service.
        service: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum HooksCommand {
    /// List the hooks of a container.
    List {
        /// The container's id.
        container: ContainerId,
        /// Only those of this service.
        #[arg(long)]
        service: Option<String>,
    },
    /// Show a hook.
    Get {
        #[command(flatten)]
        hook: HookName,
    },
    /// Add a hook.
    Create {
        /// The container's id.
        container: ContainerId,
        /// The service whose requests it sees.
        service: String,
        /// The hook as JSON: match, script, timeout, `applies_to`; `-` is the standard input.
        file: PathBuf,
        /// Its place in the service's list, from 0; the last when absent.
        #[arg(long, value_name = "N")]
        position: Option<u32>,
        #[command(flatten)]
        at: At,
    },
    /// Say something else in a hook's place.
    Update {
        #[command(flatten)]
        hook: HookName,
        /// The hook as JSON; `-` is the standard input.
        file: PathBuf,
        #[command(flatten)]
        at: At,
    },
    /// Give a hook another place.
    Move {
        #[command(flatten)]
        hook: HookName,
        /// Its place in the service's list, from 0.
        position: u32,
        #[command(flatten)]
        at: At,
    },
    /// Remove a hook, or all of a service.
    Delete {
        /// The container's id.
        container: ContainerId,
        /// The service.
        service: String,
        /// The hook's id.
        #[arg(required_unless_present = "all")]
        hook: Option<HookId>,
        /// All of the service.
        #[arg(long, conflicts_with = "hook")]
        all: bool,
        #[command(flatten)]
        at: At,
    },
}

/// One hook.
#[derive(Args, Clone, Debug)]
pub(crate) struct HookName {
    /// The container's id.
    pub(crate) container: ContainerId,
    /// The service.
    pub(crate) service: String,
    /// The hook's id.
    pub(crate) hook: HookId,
}

#[derive(Debug, Subcommand)]
pub(crate) enum HostnamesCommand {
    /// List the hostnames of other domains that lead to a container.
    List {
        /// The container's id.
        container: ContainerId,
    },
    /// Bind a hostname to an alias once its DNS records lead there, or check it again.
    Bind {
        /// The container's id.
        container: ContainerId,
        /// The hostname, such as www.example.com.
        hostname: String,
        /// The alias of the container that it leads to.
        #[arg(long, value_name = "ID")]
        alias_id: AliasId,
    },
    /// Unbind a hostname.
    Delete {
        /// The container's id.
        container: ContainerId,
        /// The hostname.
        hostname: String,
    },
}
