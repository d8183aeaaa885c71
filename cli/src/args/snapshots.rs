//! The commands for snapshots and copies.

use clap::{Args, Subcommand};
use gantry_model::{ContainerId, ProjectId};

use super::{Paging, ServerRef, Wait};

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotsCommand {
    /// Keep the files of a container as they are now.
    Create {
        /// The container.
        #[arg(short, long, value_name = "ID")]
        container: ContainerId,
        /// What it is called; its name is made from that, or from the time.
        #[arg(long)]
        alias: Option<String>,
        /// After how many days it is removed; never if left out.
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3650))]
        expiry: Option<u32>,
    },
    /// List snapshots, those of deleted containers included.
    List {
        /// Only those of this container, which may be gone.
        #[arg(short, long, value_name = "ID")]
        container: Option<ContainerId>,
        /// Only those of this project's containers.
        #[arg(long, value_name = "ID")]
        project: Option<ProjectId>,
        #[command(flatten)]
        paging: Paging,
    },
    /// Give a container the files of a snapshot; what it has now is lost.
    Restore {
        /// The container.
        #[arg(short, long, value_name = "ID")]
        container: ContainerId,
        /// The snapshot's name.
        #[arg(long)]
        name: String,
        #[command(flatten)]
        wait: Wait,
    },
    /// Call a snapshot something else; its name stays.
    UpdateAlias {
        /// The container.
        #[arg(short, long, value_name = "ID")]
        container: ContainerId,
        /// The snapshot's name.
        #[arg(long)]
        name: String,
        /// What it is called from now on; `null` for nothing.
        #[arg(long, value_name = "ALIAS|null")]
        alias: String,
    },
    /// Delete a snapshot.
    Delete {
        /// The container.
        #[arg(short, long, value_name = "ID")]
        container: ContainerId,
        /// The snapshot's name.
        #[arg(long)]
        name: String,
    },
}

#[derive(Args, Debug)]
pub(crate) struct ContainerCopy {
    /// The container to be copied; it may be gone if a snapshot is named.
    pub(crate) id: ContainerId,
    /// The project that the copy belongs to.
    #[arg(long, value_name = "ID")]
    pub(crate) target_project_id: ProjectId,
    /// The server that it runs on, by its id or its name; that of the source where this is left out.
    #[arg(long, value_name = "SERVER", alias = "target-server")]
    pub(crate) target_server_id: Option<ServerRef>,
    /// Its name in the project.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// The SSH key that opens it; none is inherited.
    #[arg(long, value_name = "KEY")]
    pub(crate) ssh_public_key: Option<String>,
    /// The name of a snapshot of the container, to be copied instead of its present files.
    #[arg(long, value_name = "NAME")]
    pub(crate) source_snapshot: Option<String>,
    /// Copy its firewall rules, too.
    #[arg(long)]
    pub(crate) copy_firewall_rules: bool,
    /// Copy its outbound network, too.
    #[arg(long)]
    pub(crate) copy_network_rules: bool,
    /// Give it the host's `/dev/kvm`; none is inherited.
    #[arg(long)]
    pub(crate) kvm: bool,
    #[command(flatten)]
    pub(crate) wait: Wait,
}
