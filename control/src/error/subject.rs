//! Which part of a request a refusal is about.

use super::{EdgeError, Error, FirewallError, Forbidden, RamdiskError, SnapshotError, VaultError};

/// A field, a part of the path or a header that a refusal is about: what to change so that the same request is
/// taken. Values that break a rule of their own are named by [`gantry_model::FieldError`] instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The name of a container.
    Name,
    /// The public key for SSH.
    SshPublicKey,
    /// The name of an alias, a project or a snapshot.
    Alias,
    /// The port of an alias.
    Port,
    /// A custom hostname.
    Hostname,
    /// The hooks of a document.
    Hooks,
    /// The version of a document, which comes in a header.
    IfMatch,
    /// The snapshots of a container or an account.
    Snapshots,
    /// The storage shares of a container or an account.
    Shares,
    /// The firewall rules of a container.
    Rules,
    /// The key in a vault.
    Key,
    /// The value in a vault.
    Value,
    /// The tokens of an account.
    Tokens,
    /// What a token is found by.
    PublicKey,
    /// What a token shows.
    PublicStorage,
    /// The name of a user.
    Username,
    /// Another user.
    UserId,
    /// How many containers a project may have.
    MaxContainers,
    /// Whether a container waits in the warm pool.
    Prespawn,
    /// The image of a container.
    ContainerImage,
    /// Whether a container has the Kit.
    HoodyKit,
    /// Whether a container has the development Kit.
    DevKit,
    /// The server of a container.
    ServerId,
    /// The variables of a container.
    EnvironmentVars,
    /// Whether a container has a disk in memory.
    Ramdisk,
    /// Who shares what is in that disk.
    RamdiskScope,
    /// Whether a container has hardware virtualisation.
    Kvm,
    /// The realm that is asked for.
    RealmId,
    /// The realms of a thing.
    RealmIds,
    /// Whether a token is good where there is no realm.
    AllowNoRealm,
    /// What a token may do.
    Permissions,
    /// Whether a token may see events.
    EventAccess,
    /// Whether a token may use the vault.
    VaultAccess,
    /// From where a token may be used.
    IpWhitelist,
    /// When something ends.
    ExpiresAt,
}

impl Subject {
    /// The part's name, in the spelling of the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::SshPublicKey => "ssh_public_key",
            Self::Alias => "alias",
            Self::Port => "port",
            Self::Hostname => "hostname",
            Self::Hooks => "hooks",
            Self::IfMatch => "If-Match",
            Self::Snapshots => "snapshots",
            Self::Shares => "shares",
            Self::Rules => "rules",
            Self::Key => "key",
            Self::Value => "value",
            Self::Tokens => "tokens",
            Self::PublicKey => "public_key",
            Self::PublicStorage => "public_storage",
            Self::Username => "username",
            Self::UserId => "user_id",
            Self::MaxContainers => "max_containers",
            Self::Prespawn => "prespawn",
            Self::ContainerImage => "container_image",
            Self::HoodyKit => "hoody_kit",
            Self::DevKit => "dev_kit",
            Self::ServerId => "server_id",
            Self::EnvironmentVars => "environment_vars",
            Self::Ramdisk => "ramdisk",
            Self::RamdiskScope => "ramdisk_scope",
            Self::Kvm => "kvm",
            Self::RealmId => "realm_id",
            Self::RealmIds => "realm_ids",
            Self::AllowNoRealm => "allow_no_realm",
            Self::Permissions => "permissions",
            Self::EventAccess => "event_access",
            Self::VaultAccess => "vault_access",
            Self::IpWhitelist => "ip_whitelist",
            Self::ExpiresAt => "expires_at",
        }
    }
}

impl Error {
    /// The part of the request that the refusal is about. Nothing where it is about who asks, about the state
    /// of things or about the server, and where each broken rule names its own field.
    pub fn subject(&self) -> Option<Subject> {
        match self {
            Self::NameTaken(_) => Some(Subject::Name),
            Self::KeyTaken(_) => Some(Subject::SshPublicKey),
            Self::AliasTaken(_) => Some(Subject::Alias),
            Self::Edge(error) => error.subject(),
            Self::Snapshot(error) => error.subject(),
            Self::Firewall(error) => error.subject(),
            Self::Ramdisk(RamdiskError::MembersPresent) => Some(Subject::RamdiskScope),
            Self::Ramdisk(RamdiskError::Shared) => Some(Subject::UserId),
            Self::Vault(error) => Some(error.subject()),
            Self::ShareLimit { .. } => Some(Subject::Shares),
            Self::TokenLimit { .. } => Some(Subject::Tokens),
            Self::PublicKeyTaken => Some(Subject::PublicKey),
            Self::PublicStorageLimit { .. } => Some(Subject::PublicStorage),
            Self::UsernameTaken => Some(Subject::Username),
            Self::Immutable { field } | Self::MustStop { field } | Self::NotStopped { field } => {
                Some(*field)
            }
            Self::PoolFull { .. } => Some(Subject::Prespawn),
            Self::Quota { .. } => Some(Subject::MaxContainers),
            Self::MemberExists | Self::MemberLimit { .. } | Self::MembershipLimit { .. } => {
                Some(Subject::UserId)
            }
            Self::Forbidden(why) => why.subject(),
            Self::NotFound(_)
            | Self::Invalid(_)
            | Self::Sealed(_)
            | Self::SigningNotConfigured
            | Self::AlreadyThere { .. }
            | Self::Refused { .. }
            | Self::Prespawned
            | Self::Deleting
            | Self::ServerAway { .. }
            // Its data says more.
            | Self::OverQuota { .. }
            | Self::ProjectNotEmpty { .. }
            | Self::Unauthenticated(_)
            | Self::TooManyAttempts { .. }
            | Self::TwoFactor(_)
            | Self::Busy
            | Self::NotRunning { .. }
            | Self::NotImplemented { .. }
            | Self::Conflict
            | Self::Unavailable(_)
            | Self::NoRoom(_)
            | Self::Runtime(_)
            | Self::Internal(_) => None,
        }
    }
}

impl EdgeError {
    fn subject(&self) -> Option<Subject> {
        match self {
            Self::AliasInUse { .. }
            | Self::InvalidAlias { .. }
            | Self::AliasReserved
            | Self::AliasLimit { .. } => Some(Subject::Alias),
            Self::PortRequired => Some(Subject::Port),
            Self::HostnameNotProven { .. } | Self::HostnameInUse => Some(Subject::Hostname),
            Self::Stale => Some(Subject::IfMatch),
            Self::HooksOfProject | Self::HookLimit => Some(Subject::Hooks),
            Self::Finalizing | Self::Names(_) => None,
        }
    }
}

impl SnapshotError {
    fn subject(&self) -> Option<Subject> {
        match self {
            Self::Limit { .. } | Self::Quota { .. } => Some(Subject::Snapshots),
            Self::NameTaken { .. } => Some(Subject::Alias),
            Self::Busy
            | Self::Finalizing
            | Self::Prespawned
            | Self::NothingThere
            | Self::ContainerGone
            | Self::Refused(_)
            | Self::NotACopy
            | Self::NotMade => None,
        }
    }
}

impl FirewallError {
    fn subject(self) -> Option<Subject> {
        match self {
            Self::TooMany | Self::TooLarge => Some(Subject::Rules),
            Self::HostUnavailable => None,
        }
    }
}

impl VaultError {
    fn subject(self) -> Subject {
        match self {
            Self::Keys { .. } => Subject::Key,
            Self::Octets { .. } => Subject::Value,
        }
    }
}

impl Forbidden {
    fn subject(&self) -> Option<Subject> {
        match self {
            Self::RealmConflict(_) => Some(Subject::RealmId),
            Self::RealmsFixed => Some(Subject::RealmIds),
            Self::MemoryOfRealms => Some(Subject::RamdiskScope),
            Self::Kvm(_) => Some(Subject::Kvm),
            Self::Wider(what) => Some(*what),
            Self::Leaf(_)
            | Self::SessionOnly
            | Self::AdminOnly
            | Self::PasswordAlone
            | Self::OwnFactor
            | Self::RealmRequired
            | Self::WrongRealm(_)
            | Self::OffRealm
            | Self::Address
            | Self::Level(_)
            | Self::OwnerOnly(_)
            | Self::VaultAccess => None,
        }
    }
}
