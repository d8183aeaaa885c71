//! Why an authenticated actor may not do something.

use gantry_model::{RealmId, project::Level};
use gantry_runtime::Kvm;

use super::Subject;
use crate::permissions::Leaf;

/// Why an authenticated actor may not do this.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    /// The token lacks a permission.
    #[error("Insufficient permissions: the token lacks {0}")]
    Leaf(Leaf),
    /// Only a login session may do this, no token and no Basic credential.
    #[error("auth tokens are not allowed here; log in instead")]
    SessionOnly,
    /// The account needs more than its password.
    #[error(
        "a password alone does not open this account, which has two-factor authentication: log in with \
         a code, or use an auth token"
    )]
    PasswordAlone,
    /// Only an administrator may do this.
    #[error("only an administrator may do this")]
    AdminOnly,
    /// The token works only on the hosts of its realms.
    #[error("this token requires a realm-scoped URL")]
    RealmRequired,
    /// The token does not work on this realm's host.
    #[error("this token is not valid for realm {0}")]
    WrongRealm(RealmId),
    /// A realm was asked for that contradicts the realm of the host.
    #[error("realm_id {0} contradicts the realm of the host")]
    RealmConflict(RealmId),
    /// The container is the actor's, but not in the realm of the host.
    #[error("the container is not in this realm")]
    OffRealm,
    /// A token that is bound to realms may not change the realms of anything.
    #[error("a realm-restricted token may not change realm_ids")]
    RealmsFixed,
    /// A token that is bound to realms may not reach into memory that containers of others share.
    #[error(
        "a realm-restricted token may not set ramdisk_scope to \"project\": containers of other realms may share it"
    )]
    MemoryOfRealms,
    /// Nobody's own second factor goes without a code.
    #[error("this is your own account: DELETE /api/v1/users/auth/2fa, with password and code")]
    OwnFactor,
    /// The client's address is not on the token's list.
    #[error("this token is not allowed from this address")]
    Address,
    /// A member of a project may not do this with it.
    #[error("your permission for this project does not go that far: {} is needed", .0.as_str())]
    Level(Level),
    /// Only the owner of a project may change this of it.
    #[error("only the owner of the project may change {0}")]
    OwnerOnly(&'static str),
    /// The token was made without access to the vault.
    #[error("the token has no vault_access")]
    VaultAccess,
    /// The server does not offer hardware virtualisation to containers.
    #[error("{0}")]
    Kvm(Kvm),
    /// A token may not make one that can do more than itself, nor let a user do that.
    #[error("a token cannot grant what it does not have: {}", .0.as_str())]
    Wider(Subject),
}
