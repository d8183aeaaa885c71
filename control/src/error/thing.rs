//! What is looked for.

use std::fmt;

/// What was looked for in vain. Things that the actor may not see count as missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Thing {
    /// A project.
    Project,
    /// A container.
    Container,
    /// A server of this installation.
    Server,
    /// An API token.
    Token,
    /// An image of the catalogue.
    Image,
    /// A user account.
    User,
    /// An alias.
    Alias,
    /// A group of a permission document.
    Group,
    /// What a group opens of one program.
    Cell,
    /// A hook.
    Hook,
    /// A custom hostname.
    Hostname,
    /// An event.
    Event,
    /// A snapshot.
    Snapshot,
    /// A rule of a firewall.
    Rule,
    /// The outbound network of a container.
    Outbound,
    /// A member of a project.
    Member,
    /// A key of a vault.
    VaultKey,
    /// What a token shows under a public key.
    PublicProfile,
    /// A storage share.
    Share,
    /// What is to receive a storage share.
    ShareTarget,
    /// The container that another is a copy of, or is to be.
    SourceContainer,
}

impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Project => "Project",
            Self::Container => "Container",
            Self::Server => "Server",
            Self::Token => "Token",
            Self::Image => "Image",
            Self::User => "User",
            Self::Alias => "Alias",
            Self::Group => "Group",
            Self::Cell => "Permission",
            Self::Hook => "Hook",
            Self::Hostname => "Hostname",
            Self::Event => "Event",
            Self::Snapshot => "Snapshot",
            Self::Rule => "Firewall rule",
            Self::Outbound => "Network configuration",
            Self::Member => "Project permission",
            Self::VaultKey => "Vault key",
            Self::PublicProfile => "Public profile",
            Self::Share => "Storage share",
            Self::ShareTarget => "Target container or project",
            Self::SourceContainer => "Source container",
        })
    }
}
