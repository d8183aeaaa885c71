//! The commands for projects.

use clap::{Args, Subcommand};
use gantry_model::ProjectId;

use super::{MembersCommand, Paging};

#[derive(Debug, Subcommand)]
pub(crate) enum ProjectsCommand {
    /// Make a project.
    Create(ProjectFields),
    /// List projects.
    List(Paging),
    /// Show a project.
    Get {
        /// Its id.
        id: ProjectId,
    },
    /// Change a project.
    Update {
        /// Its id.
        id: ProjectId,
        #[command(flatten)]
        fields: ProjectFields,
    },
    /// Delete a project with all its containers.
    Delete {
        /// Its id.
        id: ProjectId,
    },
    /// What the containers of a project use.
    Stats {
        /// Its id.
        id: ProjectId,
    },
    /// Who else may do what with a project.
    #[command(subcommand)]
    Members(MembersCommand),
}

#[derive(Args, Debug)]
pub(crate) struct ProjectFields {
    /// Its name for people.
    #[arg(long)]
    pub(crate) alias: Option<String>,
    /// Its colour, such as `#e74c3c`.
    #[arg(long)]
    pub(crate) color: Option<String>,
    /// The most containers that it may hold; `null` lifts the limit.
    #[arg(long, value_name = "N|null")]
    pub(crate) max_containers: Option<String>,
    /// The realms that it is visible in.
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    pub(crate) realm_ids: Vec<gantry_model::RealmId>,
}
