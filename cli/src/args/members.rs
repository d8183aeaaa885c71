//! The commands for members of projects.

use clap::{Subcommand, ValueEnum};
use gantry_model::{MemberId, ProjectId, UserId};

use super::Paging;

#[derive(Debug, Subcommand)]
pub(crate) enum MembersCommand {
    /// List the members of a project.
    List {
        /// The project.
        project: ProjectId,
        #[command(flatten)]
        paging: Paging,
    },
    /// Let a user do something with a project and all that is in it.
    ///
    /// Who may see a container knows its address, now and after leaving. Without a permission document
    /// it opens to whoever knows the address, terminal and files included: set a document before you
    /// invite (`gantry permissions`). Environment variables are shown at `read` already.
    Add {
        /// The project.
        project: ProjectId,
        /// The id of the user, who finds it with `gantry auth whoami`.
        user: UserId,
        /// What the user may do.
        #[arg(long, value_enum)]
        level: Level,
    },
    /// Let a member do more or less.
    Set {
        /// The project.
        project: ProjectId,
        /// The id of the membership.
        id: MemberId,
        /// What the user may do.
        #[arg(long, value_enum)]
        level: Level,
    },
    /// Let a member do nothing any more; everybody may remove themselves.
    Remove {
        /// The project.
        project: ProjectId,
        /// The id of the membership.
        id: MemberId,
    },
}

/// What a member may do; each level includes those before.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Level {
    /// See the project and all in it, environment variables included.
    Read,
    /// Change it, too, and say who else is a member.
    Edit,
    /// Delete it, too.
    Delete,
}
