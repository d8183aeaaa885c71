//! What users have put away under keys of theirs. The store holds sealed octets and knows no key that
//! opens them.

use std::fmt;

use gantry_model::{RealmId, UserId};

use crate::{
    Store,
    columns::{self, damaged, integer, natural},
    error::{Error, Result, failed},
    sqlite::Row,
    told,
    writer::Tx,
};

/// Where an entry lies: no two of one user have the same realm and key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaultPlace {
    /// Whose it is.
    pub owner: UserId,
    /// The realm that it belongs to, if any.
    pub realm: Option<RealmId>,
    /// What it is called.
    pub key: String,
}

/// Sealed octets.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed {
    /// What is stored.
    pub octets: Vec<u8>,
    /// How many octets there were before sealing; this is what limits count.
    pub plain_len: u64,
}

/// What becomes of the metadata of an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SealedChange {
    /// It stays.
    #[default]
    Keep,
    /// It goes.
    Clear,
    /// It is replaced.
    Set(Sealed),
}

/// An entry without its value.
#[derive(Clone, PartialEq, Eq)]
pub struct VaultEntry {
    /// Where it lies.
    pub place: VaultPlace,
    /// What its owner says of it, sealed.
    pub metadata: Option<Vec<u8>>,
    /// The octets of value and metadata before sealing.
    pub octets: u64,
    /// When it was made.
    pub created_at_ms: i64,
    /// When it was last written.
    pub updated_at_ms: i64,
}

/// How much a user may have in all of its realms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VaultMax {
    /// Entries.
    pub keys: u32,
    /// Octets of values and metadata, before sealing.
    pub octets: u64,
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VaultUse {
    /// Entries.
    pub keys: u64,
    /// Octets of values and metadata, before sealing.
    pub octets: u64,
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealed").field("plain_len", &self.plain_len).finish_non_exhaustive()
    }
}

impl fmt::Debug for VaultEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VaultEntry")
            .field("place", &self.place)
            .field("octets", &self.octets)
            .field("updated_at_ms", &self.updated_at_ms)
            .finish_non_exhaustive()
    }
}

/// What is known of an entry that is to be written again.
struct Known {
    value_octets: u64,
    metadata_octets: u64,
}

impl Store {
    /// Writes an entry, new or not, and returns it. Without a `value` that of before stays, and
    /// [`Error::NotFound`] says that there is none.
    ///
    /// [`Error::VaultKeyLimit`] and [`Error::VaultSizeLimit`] if the owner would have more than `max`
    /// and more than before.
    pub async fn put_vault_entry(
        &self,
        place: &VaultPlace,
        value: Option<Sealed>,
        metadata: SealedChange,
        max: VaultMax,
        now_ms: i64,
    ) -> Result<VaultEntry> {
        let place = place.clone();
        self.write(move |tx| {
            Box::pin(async move {
                let known = known(tx, &place).await?;
                if known.is_none() && value.is_none() {
                    return Err(Error::NotFound);
                }
                check_room(tx, &place, known.as_ref(), value.as_ref(), &metadata, max).await?;
                let is_new = known.is_none();
                match (is_new, value) {
                    (true, Some(value)) => insert(tx, &place, value, metadata, now_ms).await?,
                    (_, value) => update(tx, &place, value, metadata, now_ms).await?,
                }
                let kind = if is_new { "vault.created" } else { "vault.updated" };
                told::vault_told(tx, &place, kind, now_ms).await?;
                let row = sqlx::query(ENTRY)
                    .bind(place.owner.as_bytes().as_slice())
                    .bind(octets_of(place.realm))
                    .bind(&place.key)
                    .fetch_one(&mut tx.connection)
                    .await
                    .map_err(failed)?;
                entry(&row)
            })
        })
        .await
    }

    /// An entry with its sealed value.
    pub async fn vault_entry(&self, place: &VaultPlace) -> Result<Option<(VaultEntry, Vec<u8>)>> {
        let row: Option<Row> =
            sqlx::query("SELECT * FROM vault WHERE owner = $1 AND realm = $2 AND name = $3")
                .bind(place.owner.as_bytes().as_slice())
                .bind(octets_of(place.realm))
                .bind(&place.key)
                .fetch_optional(self.readers())
                .await
                .map_err(failed)?;
        row.map(|row| Ok((entry(&row)?, columns::get(&row, "value")?))).transpose()
    }

    /// The entries of a user without their values, by key and then by realm: of one realm, or all.
    pub async fn vault_entries(
        &self,
        owner: UserId,
        realm: Option<RealmId>,
    ) -> Result<Vec<VaultEntry>> {
        let rows = sqlx::query(
            "SELECT owner, realm, name, value_octets, metadata_octets, created_at_ms, updated_at_ms, \
             metadata FROM vault WHERE owner = $1 AND (realm = $2 OR $3) ORDER BY name, realm",
        )
        .bind(owner.as_bytes().as_slice())
        .bind(octets_of(realm))
        .bind(realm.is_none())
        .fetch_all(self.readers())
        .await
        .map_err(failed)?;
        rows.iter().map(entry).collect()
    }

    /// How much a user has in one realm, or in all.
    pub async fn vault_use(&self, owner: UserId, realm: Option<RealmId>) -> Result<VaultUse> {
        let row = sqlx::query(USE)
            .bind(owner.as_bytes().as_slice())
            .bind(octets_of(realm))
            .bind(realm.is_none())
            .fetch_one(self.readers())
            .await
            .map_err(failed)?;
        usage(&row)
    }

    /// Removes an entry.
    pub async fn delete_vault_entry(&self, place: &VaultPlace, now_ms: i64) -> Result<()> {
        let place = place.clone();
        self.write(move |tx| {
            Box::pin(async move {
                let done =
                    sqlx::query("DELETE FROM vault WHERE owner = $1 AND realm = $2 AND name = $3")
                        .bind(place.owner.as_bytes().as_slice())
                        .bind(octets_of(place.realm))
                        .bind(&place.key)
                        .execute(&mut tx.connection)
                        .await
                        .map_err(failed)?;
                if done.rows_affected() == 0 {
                    return Err(Error::NotFound);
                }
                told::vault_told(tx, &place, "vault.deleted", now_ms).await
            })
        })
        .await
    }

    /// Removes every entry of a user in one realm, or in all; says how many there were.
    pub async fn clear_vault(
        &self,
        owner: UserId,
        realm: Option<RealmId>,
        now_ms: i64,
    ) -> Result<u64> {
        self.write(move |tx| {
            Box::pin(async move {
                let rows: Vec<Row> = sqlx::query(
                    "SELECT realm, count(*) AS count FROM vault \
                     WHERE owner = $1 AND (realm = $2 OR $3) GROUP BY realm",
                )
                .bind(owner.as_bytes().as_slice())
                .bind(octets_of(realm))
                .bind(realm.is_none())
                .fetch_all(&mut tx.connection)
                .await
                .map_err(failed)?;
                sqlx::query("DELETE FROM vault WHERE owner = $1 AND (realm = $2 OR $3)")
                    .bind(owner.as_bytes().as_slice())
                    .bind(octets_of(realm))
                    .bind(realm.is_none())
                    .execute(&mut tx.connection)
                    .await
                    .map_err(failed)?;
                let mut gone = 0;
                for row in &rows {
                    let count = columns::count(row, "count")?;
                    told::vault_cleared(tx, owner, realm_of(row)?, count, now_ms).await?;
                    gone += count;
                }
                Ok(gone)
            })
        })
        .await
    }
}

const ENTRY: &str = "SELECT owner, realm, name, value_octets, metadata_octets, created_at_ms, \
                     updated_at_ms, metadata FROM vault \
                     WHERE owner = $1 AND realm = $2 AND name = $3";

const USE: &str = "SELECT count(*) AS count, \
                   CAST(coalesce(sum(value_octets + metadata_octets), 0) AS BIGINT) AS octets \
                   FROM vault WHERE owner = $1 AND (realm = $2 OR $3)";

async fn known(tx: &mut Tx, place: &VaultPlace) -> Result<Option<Known>> {
    let row: Option<Row> = sqlx::query(
        "SELECT value_octets, metadata_octets FROM vault \
         WHERE owner = $1 AND realm = $2 AND name = $3",
    )
    .bind(place.owner.as_bytes().as_slice())
    .bind(octets_of(place.realm))
    .bind(&place.key)
    .fetch_optional(&mut tx.connection)
    .await
    .map_err(failed)?;
    row.map(|row| {
        Ok(Known {
            value_octets: columns::count(&row, "value_octets")?,
            metadata_octets: columns::count(&row, "metadata_octets")?,
        })
    })
    .transpose()
}

/// Refuses a write after which the owner has more than it may and more than it had.
async fn check_room(
    tx: &mut Tx,
    place: &VaultPlace,
    known: Option<&Known>,
    value: Option<&Sealed>,
    metadata: &SealedChange,
    max: VaultMax,
) -> Result<()> {
    let row = sqlx::query(USE)
        .bind(place.owner.as_bytes().as_slice())
        .bind(octets_of(None))
        .bind(true)
        .fetch_one(&mut tx.connection)
        .await
        .map_err(failed)?;
    let had = usage(&row)?;
    if known.is_none() && had.keys >= u64::from(max.keys) {
        return Err(Error::VaultKeyLimit { max: max.keys });
    }
    let old_value = known.map_or(0, |known| known.value_octets);
    let old_metadata = known.map_or(0, |known| known.metadata_octets);
    let new_metadata = match metadata {
        SealedChange::Keep => old_metadata,
        SealedChange::Clear => 0,
        SealedChange::Set(sealed) => sealed.plain_len,
    };
    let new_value = value.map_or(old_value, |sealed| sealed.plain_len);
    let (old, new) = (old_value + old_metadata, new_value + new_metadata);
    let after = had.octets.saturating_sub(old).saturating_add(new);
    if after > max.octets && after > had.octets {
        return Err(Error::VaultSizeLimit { max: max.octets });
    }
    Ok(())
}

async fn insert(
    tx: &mut Tx,
    place: &VaultPlace,
    value: Sealed,
    metadata: SealedChange,
    now_ms: i64,
) -> Result<()> {
    let metadata = match metadata {
        SealedChange::Keep | SealedChange::Clear => None,
        SealedChange::Set(sealed) => Some(sealed),
    };
    sqlx::query(
        "INSERT INTO vault (owner, realm, name, value_octets, metadata_octets, created_at_ms, \
         updated_at_ms, metadata, value) VALUES ($1, $2, $3, $4, $5, $6, $6, $7, $8)",
    )
    .bind(place.owner.as_bytes().as_slice())
    .bind(octets_of(place.realm))
    .bind(&place.key)
    .bind(integer(value.plain_len))
    .bind(integer(metadata.as_ref().map_or(0, |sealed| sealed.plain_len)))
    .bind(now_ms)
    .bind(metadata.map(|sealed| sealed.octets))
    .bind(value.octets)
    .execute(&mut tx.connection)
    .await
    .map(drop)
    .map_err(failed)
}

async fn update(
    tx: &mut Tx,
    place: &VaultPlace,
    value: Option<Sealed>,
    metadata: SealedChange,
    now_ms: i64,
) -> Result<()> {
    if let Some(value) = value {
        sqlx::query(
            "UPDATE vault SET value = $4, value_octets = $5 \
             WHERE owner = $1 AND realm = $2 AND name = $3",
        )
        .bind(place.owner.as_bytes().as_slice())
        .bind(octets_of(place.realm))
        .bind(&place.key)
        .bind(value.octets)
        .bind(integer(value.plain_len))
        .execute(&mut tx.connection)
        .await
        .map_err(failed)?;
    }
    let change = match metadata {
        SealedChange::Keep => None,
        SealedChange::Clear => Some((None, 0)),
        SealedChange::Set(sealed) => Some((Some(sealed.octets), sealed.plain_len)),
    };
    if let Some((octets, plain_len)) = change {
        sqlx::query(
            "UPDATE vault SET metadata = $4, metadata_octets = $5 \
             WHERE owner = $1 AND realm = $2 AND name = $3",
        )
        .bind(place.owner.as_bytes().as_slice())
        .bind(octets_of(place.realm))
        .bind(&place.key)
        .bind(octets)
        .bind(integer(plain_len))
        .execute(&mut tx.connection)
        .await
        .map_err(failed)?;
    }
    sqlx::query("UPDATE vault SET updated_at_ms = $4 WHERE owner = $1 AND realm = $2 AND name = $3")
        .bind(place.owner.as_bytes().as_slice())
        .bind(octets_of(place.realm))
        .bind(&place.key)
        .bind(now_ms)
        .execute(&mut tx.connection)
        .await
        .map(drop)
        .map_err(failed)
}

/// The column form of a realm; empty for none, because a key of a table holds no nulls.
fn octets_of(realm: Option<RealmId>) -> Vec<u8> {
    realm.map_or_else(Vec::new, |realm| realm.as_bytes().to_vec())
}

fn realm_of(row: &Row) -> Result<Option<RealmId>> {
    let octets: &[u8] = columns::get(row, "realm")?;
    if octets.is_empty() {
        return Ok(None);
    }
    let octets = octets.try_into().map_err(|_error| damaged("realm", "has a wrong length"))?;
    Ok(Some(RealmId::from_bytes(octets)))
}

fn usage(row: &Row) -> Result<VaultUse> {
    Ok(VaultUse {
        keys: columns::count(row, "count")?,
        octets: natural(columns::get(row, "octets")?, "octets")?,
    })
}

fn entry(row: &Row) -> Result<VaultEntry> {
    let owner = columns::id(row, "owner")?;
    let read = || -> Result<VaultEntry> {
        let (value, metadata) =
            (columns::count(row, "value_octets")?, columns::count(row, "metadata_octets")?);
        let place = VaultPlace { owner, realm: realm_of(row)?, key: columns::get(row, "name")? };
        Ok(VaultEntry {
            place,
            metadata: columns::get(row, "metadata")?,
            octets: value.saturating_add(metadata),
            created_at_ms: columns::get(row, "created_at_ms")?,
            updated_at_ms: columns::get(row, "updated_at_ms")?,
        })
    };
    read().map_err(columns::of("an entry in the vault of", owner))
}
