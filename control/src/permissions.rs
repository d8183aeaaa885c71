//! What an API token may do: a tree of named leaves, each allowed or not.
//!
//! A leaf that a client leaves out is denied. Groups and leaves that nobody knows are refused, so
//! that a misspelt permission is an error and not a surprise; the group `admin`, which older
//! clients send, is accepted and means nothing.

use std::fmt;

use gantry_model::FieldError;
use serde_json::{Map, Value};

/// One permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the path of each variant says what it permits")]
#[repr(u8)]
pub enum Leaf {
    ContainersCreate,
    ContainersRead,
    ContainersUpdate,
    ContainersDelete,
    ContainersStart,
    ContainersStop,
    ContainersRestart,
    ContainersExec,
    ContainersLogs,
    FeatureAi,
    FeatureHoodyKit,
    FeatureSnapshots,
    FeatureNetworking,
    FeatureKvm,
    ProjectsCreate,
    ProjectsRead,
    ProjectsUpdate,
    ProjectsDelete,
    MembersInvite,
    MembersRemove,
    MembersChangeRoles,
    WalletRead,
    WalletTransfer,
    WalletWithdraw,
    BillingRead,
    BillingManagePaymentMethods,
    BillingDownloadInvoices,
    RentalViewMarketplace,
    RentalRentServers,
    RentalExtendRentals,
    RentalTerminateRentals,
    ResourcesVault,
    ResourcesEvents,
    ResourcesSshKeys,
    ResourcesStorageShares,
    ResourcesProxyAliases,
    ResourcesFirewalls,
    ResourcesRealms,
    ResourcesPublicProfile,
    ResourcesCreateTokens,
    ResourcesReadAccount,
}

/// Every leaf with its path in the tree, in the order of the variants.
const LEAVES: [(Leaf, &str); 41] = [
    (Leaf::ContainersCreate, "containers.create"),
    (Leaf::ContainersRead, "containers.read"),
    (Leaf::ContainersUpdate, "containers.update"),
    (Leaf::ContainersDelete, "containers.delete"),
    (Leaf::ContainersStart, "containers.actions.start"),
    (Leaf::ContainersStop, "containers.actions.stop"),
    (Leaf::ContainersRestart, "containers.actions.restart"),
    (Leaf::ContainersExec, "containers.actions.exec"),
    (Leaf::ContainersLogs, "containers.actions.logs"),
    (Leaf::FeatureAi, "containers.features.ai"),
    (Leaf::FeatureHoodyKit, "containers.features.hoody_kit"),
    (Leaf::FeatureSnapshots, "containers.features.snapshots"),
    (Leaf::FeatureNetworking, "containers.features.networking"),
    (Leaf::FeatureKvm, "containers.features.kvm"),
    (Leaf::ProjectsCreate, "projects.create"),
    (Leaf::ProjectsRead, "projects.read"),
    (Leaf::ProjectsUpdate, "projects.update"),
    (Leaf::ProjectsDelete, "projects.delete"),
    (Leaf::MembersInvite, "projects.members.invite"),
    (Leaf::MembersRemove, "projects.members.remove"),
    (Leaf::MembersChangeRoles, "projects.members.change_roles"),
    (Leaf::WalletRead, "financial.wallet.read"),
    (Leaf::WalletTransfer, "financial.wallet.transfer"),
    (Leaf::WalletWithdraw, "financial.wallet.withdraw"),
    (Leaf::BillingRead, "financial.billing.read"),
    (Leaf::BillingManagePaymentMethods, "financial.billing.manage_payment_methods"),
    (Leaf::BillingDownloadInvoices, "financial.billing.download_invoices"),
    (Leaf::RentalViewMarketplace, "financial.server_rental.view_marketplace"),
    (Leaf::RentalRentServers, "financial.server_rental.rent_servers"),
    (Leaf::RentalExtendRentals, "financial.server_rental.extend_rentals"),
    (Leaf::RentalTerminateRentals, "financial.server_rental.terminate_rentals"),
    (Leaf::ResourcesVault, "resources.vault"),
    (Leaf::ResourcesEvents, "resources.events"),
    (Leaf::ResourcesSshKeys, "resources.ssh_keys"),
    (Leaf::ResourcesStorageShares, "resources.storage_shares"),
    (Leaf::ResourcesProxyAliases, "resources.proxy_aliases"),
    (Leaf::ResourcesFirewalls, "resources.firewalls"),
    (Leaf::ResourcesRealms, "resources.realms"),
    (Leaf::ResourcesPublicProfile, "resources.auth_token_public_profile"),
    (Leaf::ResourcesCreateTokens, "resources.create_tokens"),
    (Leaf::ResourcesReadAccount, "resources.read_account"),
];

impl Leaf {
    /// The path in the tree, as `containers.actions.start`.
    pub fn path(self) -> &'static str {
        LEAVES.iter().find(|(leaf, _)| *leaf == self).map_or("", |(_, path)| path)
    }

    const fn bit(self) -> u64 {
        1 << self as u8
    }
}

impl fmt::Display for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.path())
    }
}

/// The set of leaves that a token is allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permissions(u64);

impl Permissions {
    /// The names of the templates.
    pub const TEMPLATES: [&'static str; 5] =
        ["full_access", "external_customer", "dev_team", "finance_team", "read_only"];

    /// Every leaf.
    pub fn all() -> Self {
        Self(LEAVES.iter().fold(0, |bits, (leaf, _)| bits | leaf.bit()))
    }

    /// These leaves.
    pub fn of(leaves: &[Leaf]) -> Self {
        Self(leaves.iter().fold(0, |bits, leaf| bits | leaf.bit()))
    }

    /// The set that a template stands for: `full_access`, `external_customer`, `dev_team`,
    /// `finance_team` or `read_only`.
    pub fn template(name: &str) -> Option<Self> {
        let starts = |prefixes: &[&str]| {
            Self(
                LEAVES
                    .iter()
                    .filter(|(_, path)| prefixes.iter().any(|prefix| path.starts_with(prefix)))
                    .fold(0, |bits, (leaf, _)| bits | leaf.bit()),
            )
        };
        let read = Self::of(&[
            Leaf::ContainersRead,
            Leaf::ContainersLogs,
            Leaf::ProjectsRead,
            Leaf::ResourcesReadAccount,
        ]);
        Some(match name {
            // A token that is to make tokens or open the vault says so leaf by leaf.
            "full_access" => Self(
                Self::all().0 & !Self::of(&[Leaf::ResourcesCreateTokens, Leaf::ResourcesVault]).0,
            ),
            "dev_team" => Self(
                starts(&["containers."]).0
                    | Self::of(&[
                        Leaf::ProjectsCreate,
                        Leaf::ProjectsRead,
                        Leaf::ProjectsUpdate,
                        Leaf::ResourcesEvents,
                        Leaf::ResourcesSshKeys,
                        Leaf::ResourcesStorageShares,
                        Leaf::ResourcesProxyAliases,
                        Leaf::ResourcesFirewalls,
                        Leaf::ResourcesRealms,
                        Leaf::ResourcesReadAccount,
                    ])
                    .0,
            ),
            "external_customer" => Self(
                read.0
                    | Self::of(&[
                        Leaf::ContainersStart,
                        Leaf::ContainersStop,
                        Leaf::ContainersRestart,
                    ])
                    .0,
            ),
            "finance_team" => {
                Self(starts(&["financial."]).0 | Self::of(&[Leaf::ResourcesReadAccount]).0)
            }
            "read_only" => Self(
                read.0
                    | Self::of(&[
                        Leaf::WalletRead,
                        Leaf::BillingRead,
                        Leaf::RentalViewMarketplace,
                        Leaf::ResourcesEvents,
                    ])
                    .0,
            ),
            _ => return None,
        })
    }

    /// Whether this leaf is allowed.
    pub const fn allows(self, leaf: Leaf) -> bool {
        self.0 & leaf.bit() != 0
    }

    /// Whether everything that `other` allows is allowed here, too.
    pub const fn covers(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    /// What both allow.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What it allows and `other` does not.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Reads the tree that a client sends; every mistake is reported with its path.
    pub fn parse(field: &str, tree: &Value) -> Result<Self, Vec<FieldError>> {
        let mut found = Self::default();
        let mut errors = Vec::new();
        match tree {
            Value::Object(groups) => found.read(field, "", groups, &mut errors),
            Value::Null => {}
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                errors.push(FieldError::new(field, "must be an object of permission groups"));
            }
        }
        if errors.is_empty() { Ok(found) } else { Err(errors) }
    }

    /// Depth is bounded by the known paths: an unknown group ends the descent.
    fn read(
        &mut self,
        field: &str,
        prefix: &str,
        tree: &Map<String, Value>,
        errors: &mut Vec<FieldError>,
    ) {
        for (key, value) in tree {
            let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            if path == "admin" {
                continue;
            }
            let leaf = LEAVES.iter().find(|(_, known)| *known == path).map(|(leaf, _)| *leaf);
            let group = format!("{path}.");
            match (leaf, value) {
                (Some(leaf), Value::Bool(true)) => self.0 |= leaf.bit(),
                (Some(_), Value::Bool(false) | Value::Null) => {}
                (None, Value::Object(inner))
                    if LEAVES.iter().any(|(_, known)| known.starts_with(&group)) =>
                {
                    self.read(field, &path, inner, errors);
                }
                (None, Value::Null) => {}
                (Some(_), _) => {
                    errors
                        .push(FieldError::new(format!("{field}.{path}"), "must be true or false"));
                }
                (None, _) => {
                    errors
                        .push(FieldError::new(format!("{field}.{path}"), "is no known permission"));
                }
            }
        }
    }

    /// The whole tree, every leaf written out.
    pub fn to_tree(self) -> Value {
        let mut root = Map::new();
        for (leaf, path) in LEAVES {
            insert(&mut root, path, self.allows(leaf));
        }
        Value::Object(root)
    }
}

fn insert(tree: &mut Map<String, Value>, path: &str, allowed: bool) {
    match path.split_once('.') {
        None => {
            tree.insert(path.to_owned(), Value::Bool(allowed));
        }
        Some((group, rest)) => {
            let inner = tree.entry(group.to_owned()).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(inner) = inner {
                insert(inner, rest, allowed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_table_lists_every_leaf_once_and_in_order() {
        for (at, (leaf, path)) in LEAVES.into_iter().enumerate() {
            assert_eq!(leaf as usize, at, "{path}");
            assert_eq!(leaf.path(), path);
        }
    }

    #[test]
    fn a_tree_survives_its_json_form() {
        for name in ["full_access", "external_customer", "dev_team", "finance_team", "read_only"] {
            let set = Permissions::template(name).unwrap();
            assert_eq!(Permissions::parse("permissions", &set.to_tree()), Ok(set), "{name}");
        }
        assert_eq!(Permissions::template("root"), None);
    }

    #[test]
    fn missing_leaves_are_denied_and_unknown_ones_refused() {
        let set = Permissions::parse(
            "permissions",
            &json!({"containers": {"read": true, "actions": {"start": true}}, "admin": {"users": true}}),
        )
        .unwrap();
        assert_eq!(set, Permissions::of(&[Leaf::ContainersRead, Leaf::ContainersStart]));
        for (tree, field) in [
            (json!({"containers": {"raed": true}}), "permissions.containers.raed"),
            (json!({"containers": {"read": "yes"}}), "permissions.containers.read"),
            (json!({"containers": true}), "permissions.containers"),
            (json!({"nonsense": {"read": true}}), "permissions.nonsense"),
            (json!(["containers"]), "permissions"),
        ] {
            let errors = Permissions::parse("permissions", &tree).unwrap_err();
            assert_eq!(errors[0].field, field, "{tree}");
        }
    }
}
