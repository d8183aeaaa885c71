//! The vault: values that users put away under keys, sealed at rest.
//!
//! A key belongs to a user and to one realm, or to none. What is asked on a realm's host, or with a
//! realm, is about that realm alone. Without one, a key is one of no realm, and lists, sums and clearing
//! are about all that the user has.

use std::fmt;

use gantry_model::{FieldError, RealmId};
use gantry_store::{Sealed, SealedChange, VaultEntry, VaultMax, VaultPlace, VaultUse};
use serde_json::{Map, Value};

use crate::{
    Patch,
    actor::{Actor, Via},
    controller::Controller,
    error::{During, Error, Forbidden, Result, Thing},
    permissions::Leaf,
};

/// The most octets of one value.
pub const VALUE_MAX: usize = 512 * 1024;
/// The most octets of the metadata of one key, as JSON text.
pub const METADATA_MAX: usize = 256 * 1024;
/// The most octets of a key.
const KEY_MAX: usize = 255;

/// A key of a vault, without its value.
#[derive(Clone, PartialEq)]
pub struct VaultKey {
    /// Its name.
    pub key: String,
    /// The realm that it belongs to, if any.
    pub realm: Option<RealmId>,
    /// What its owner says of it, as JSON text: a list of many would be much larger if it was read. It is
    /// sealed at rest like the value. Nothing, too, where it cannot be opened.
    pub metadata: Option<String>,
    /// The octets of value and metadata.
    pub octets: u64,
    /// When it was made, in milliseconds since the epoch.
    pub created_at_ms: i64,
    /// When it was last written, in milliseconds since the epoch.
    pub updated_at_ms: i64,
}

/// A key of a vault with its value.
#[derive(Clone, PartialEq)]
pub struct VaultValue {
    /// The key.
    pub key: VaultKey,
    /// What lies under it.
    pub value: String,
}

/// How much a user has in its vault, and may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VaultStats {
    /// Keys that were counted.
    pub keys: u64,
    /// Their octets.
    pub octets: u64,
    /// The octets of all keys of the user, in whatever realm: these count against the limit.
    pub octets_of_all: u64,
    /// The most octets that the user may have.
    pub octets_max: u64,
}

/// A write to a key.
#[derive(Clone, Default)]
pub struct VaultWrite {
    /// What shall lie under it; that of before stays when absent.
    pub value: Option<String>,
    /// What its owner says of it.
    pub metadata: Patch<Map<String, Value>>,
}

impl fmt::Debug for VaultKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without what is sealed: this text may reach a log.
        f.debug_struct("VaultKey")
            .field("key", &self.key)
            .field("realm", &self.realm)
            .field("octets", &self.octets)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for VaultValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VaultValue").field("key", &self.key).finish_non_exhaustive()
    }
}

impl fmt::Debug for VaultWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VaultWrite").finish_non_exhaustive()
    }
}

/// Which part of an entry a text is: neither opens in the other's place.
#[derive(Clone, Copy)]
enum Part {
    Value,
    Metadata,
}

impl Controller {
    /// The keys of the actor, by name and then by realm, without their values.
    pub async fn vault_keys(&self, actor: &Actor, realm: Option<RealmId>) -> Result<Vec<VaultKey>> {
        let realm = may_use(actor, realm)?;
        let entries = self.store().vault_entries(actor.user, realm).await?;
        Ok(entries.into_iter().map(|entry| self.vault_key(entry)).collect())
    }

    /// A key of the actor with its value.
    pub async fn vault_value(
        &self,
        actor: &Actor,
        realm: Option<RealmId>,
        key: &str,
    ) -> Result<VaultValue> {
        let place = place(actor, realm, key)?;
        let found = self.store().vault_entry(&place).await?;
        let (entry, sealed) = found.ok_or(Error::NotFound(Thing::VaultKey))?;
        let octets = self.inner.sealing.open(&context(&place, Part::Value), &sealed)?;
        let value = String::from_utf8(octets)
            .map_err(|_why| Error::internal("a value of a vault is no text"))?;
        Ok(VaultValue { key: self.vault_key(entry), value })
    }

    /// Writes to a key of the actor, new or not.
    pub async fn write_vault(
        &self,
        actor: &Actor,
        realm: Option<RealmId>,
        key: &str,
        write: VaultWrite,
    ) -> Result<VaultKey> {
        let place = place(actor, realm, key)?;
        let VaultWrite { value, metadata } = write;
        let mut errors = Vec::new();
        if value.is_none() && metadata == Patch::Keep {
            errors.push(FieldError::new("value", "is required, or metadata"));
        }
        if value.as_ref().is_some_and(|value| value.len() > VALUE_MAX) {
            errors.push(FieldError::new("value", format!("must be at most {VALUE_MAX} octets")));
        }
        let metadata = match metadata {
            Patch::Keep => SealedChange::Keep,
            Patch::Clear => SealedChange::Clear,
            Patch::Set(metadata) => {
                let text = Value::Object(metadata).to_string();
                if text.len() > METADATA_MAX {
                    let rule = format!("must be at most {METADATA_MAX} octets of JSON");
                    errors.push(FieldError::new("metadata", rule));
                }
                SealedChange::Set(self.sealed(&place, Part::Metadata, &text)?)
            }
        };
        if !errors.is_empty() {
            return Err(Error::Invalid(errors));
        }
        let value = value.map(|value| self.sealed(&place, Part::Value, &value)).transpose()?;
        let limits = self.limits();
        let max = VaultMax {
            keys: limits.vault_keys_per_user_max,
            octets: limits.vault_octets_per_user_max,
        };
        let now_ms = self.now_ms();
        let written = self.store().put_vault_entry(&place, value, metadata, max, now_ms).await;
        let entry = match written {
            Err(gantry_store::Error::NotFound) => {
                return Err(Error::invalid("value", "is required for a new key"));
            }
            written => written.map_err(of_write)?,
        };
        Ok(self.vault_key(entry))
    }

    /// Removes a key of the actor.
    pub async fn delete_vault_key(
        &self,
        actor: &Actor,
        realm: Option<RealmId>,
        key: &str,
    ) -> Result<()> {
        let place = place(actor, realm, key)?;
        let deleted = self.store().delete_vault_entry(&place, self.now_ms()).await;
        deleted.map_err(of_write)
    }

    /// Removes every key of the actor; says how many there were.
    pub async fn clear_vault(&self, actor: &Actor, realm: Option<RealmId>) -> Result<u64> {
        let realm = may_use(actor, realm)?;
        Ok(self.store().clear_vault(actor.user, realm, self.now_ms()).await?)
    }

    /// How much the actor has.
    pub async fn vault_stats(&self, actor: &Actor, realm: Option<RealmId>) -> Result<VaultStats> {
        let realm = may_use(actor, realm)?;
        let VaultUse { keys, octets } = self.store().vault_use(actor.user, realm).await?;
        let octets_of_all = self.store().vault_use(actor.user, None).await?.octets;
        let octets_max = self.limits().vault_octets_per_user_max;
        Ok(VaultStats { keys, octets, octets_of_all, octets_max })
    }

    fn sealed(&self, place: &VaultPlace, part: Part, text: &str) -> Result<Sealed> {
        let octets = self.inner.sealing.seal(&context(place, part), text.as_bytes())?;
        Ok(Sealed { octets, plain_len: u64::try_from(text.len()).unwrap_or(u64::MAX) })
    }

    /// What is shown of an entry. Metadata that does not open hides neither its value nor other keys.
    fn vault_key(&self, entry: VaultEntry) -> VaultKey {
        let open = |sealed: Vec<u8>| {
            let context = context(&entry.place, Part::Metadata);
            let opened = self.inner.sealing.open(&context, &sealed);
            let text = opened.map(String::from_utf8);
            if !matches!(text, Ok(Ok(_))) {
                let why = text.err().map(|why| why.to_string());
                tracing::error!(owner = %entry.place.owner, why, "metadata of a vault does not open");
                return None;
            }
            text.ok()?.ok()
        };
        let metadata = entry.metadata.and_then(open);
        VaultKey {
            metadata,
            key: entry.place.key,
            realm: entry.place.realm,
            octets: entry.octets,
            created_at_ms: entry.created_at_ms,
            updated_at_ms: entry.updated_at_ms,
        }
    }
}

fn of_write(error: gantry_store::Error) -> Error {
    Error::of_write(error, Thing::VaultKey, During::Update)
}

/// Refuses tokens that may not use the vault; says which realm is meant, if any.
fn may_use(actor: &Actor, realm: Option<RealmId>) -> Result<Option<RealmId>> {
    actor.require(Leaf::ResourcesVault)?;
    if let Via::Token { vault_access: false, .. } = actor.via {
        return Err(Forbidden::VaultAccess.into());
    }
    Ok(actor.realm_filter(realm)?)
}

fn place(actor: &Actor, realm: Option<RealmId>, key: &str) -> Result<VaultPlace> {
    let realm = may_use(actor, realm)?;
    let fits = (1..=KEY_MAX).contains(&key.len())
        && key.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"._-".contains(&octet))
        // Clients take these two out of a path.
        && !matches!(key, "." | "..");
    if !fits {
        let rule = "must be 1 to 255 letters, digits, dots, underscores or hyphens, not one or two dots alone";
        return Err(Error::invalid("key", rule));
    }
    Ok(VaultPlace { owner: actor.user, realm, key: key.to_owned() })
}

/// What a text is sealed for. Every part but the last has a fixed length, so that no two places read
/// alike.
fn context(place: &VaultPlace, part: Part) -> Vec<u8> {
    let part = match part {
        Part::Value => b'v',
        Part::Metadata => b'm',
    };
    let mut context = b"gantry vault 1".to_vec();
    context.push(part);
    context.extend_from_slice(place.owner.as_bytes());
    context.push(u8::from(place.realm.is_some()));
    context.extend_from_slice(place.realm.unwrap_or(RealmId::from_bytes([0; 12])).as_bytes());
    context.extend_from_slice(place.key.as_bytes());
    context
}
