//! Aliases: who has which label, and who had it last.

use gantry_model::{AliasId, ContainerId};

use crate::{
    Store,
    columns::{self, integer},
    containers, document,
    error::{Error, Result, failed},
    listing,
    record::{Alias, AliasFilter, AliasRules, Version},
    sqlite::{Db, Row},
    told,
    writer::Tx,
};

/// How long it is remembered that a label belonged to another container, in milliseconds: browsers
/// keep cookies for about as long.
const FREED_KEPT_MS: i64 = 400 * 24 * 60 * 60 * 1000;
/// How many labels are remembered for one owner; of more the oldest are forgotten once their quarantine
/// is over.
const FREED_PER_OWNER_MAX: i64 = 1000;

/// What has been told of an alias' end: that it comes soon, and that it has come.
const TOLD_SOON: i64 = 1;
const TOLD_ENDED: i64 = 2;

impl Store {
    /// Adds an alias as given, but for `clear_site_data`, which says whether another container had
    /// the label; returns what was stored.
    ///
    /// [`Error::LabelTaken`] if another alias has the label, or if within the quarantine somebody else
    /// had it, or the owner in another project, which a member of this one does not get;
    /// [`Error::AliasLimit`]; [`Error::NotFound`] if its container does not exist.
    pub async fn create_alias(&self, alias: &Alias, rules: AliasRules) -> Result<Alias> {
        let mut alias = alias.clone();
        self.write(move |tx| {
            Box::pin(async move {
                let count: i64 =
                    sqlx::query_scalar("SELECT count(*) FROM aliases WHERE owner = $1")
                        .bind(alias.owner.as_bytes().as_slice())
                        .fetch_one(&mut tx.connection)
                        .await
                        .map_err(failed)?;
                if count >= i64::from(rules.per_owner_max) {
                    return Err(Error::AliasLimit { max: rules.per_owner_max });
                }
                let now_ms = alias.created_at_ms;
                forget_notes(tx, &alias, rules, now_ms).await?;
                alias.clear_site_data = take_label(tx, &alias, rules, now_ms).await?;
                insert(tx, &alias).await?;
                tx.changed(alias.container, now_ms);
                tell(tx, &alias, "proxy.alias.created", now_ms).await?;
                Ok(alias)
            })
        })
        .await
    }

    /// The alias of this id.
    pub async fn alias(&self, id: AliasId) -> Result<Option<Alias>> {
        let row = sqlx::query("SELECT * FROM aliases WHERE id = $1")
            .bind(id.as_bytes().as_slice())
            .fetch_optional(self.readers())
            .await
            .map_err(failed)?;
        row.as_ref().map(alias).transpose()
    }

    /// The aliases that a filter lets through, oldest first, at most `limit`.
    pub async fn aliases(&self, filter: AliasFilter, limit: u32) -> Result<Vec<Alias>> {
        let AliasFilter { seen_by, project, container, realm, enabled, expired } = filter;
        let mut query = sqlx::QueryBuilder::<Db>::new("SELECT * FROM aliases WHERE 1 = 1");
        for (column, id) in [
            (" AND project = ", project.map(|id| *id.as_bytes())),
            (" AND container = ", container.map(|id| *id.as_bytes())),
        ] {
            if let Some(id) = id {
                query.push(column).push_bind(id.to_vec());
            }
        }
        if let Some(user) = seen_by {
            listing::push_seen_by(query.push(" AND "), "", "project", *user.as_bytes());
        }
        if let Some(realm) = realm {
            query.push(" AND container IN (SELECT container FROM container_realms WHERE realm = ");
            query.push_bind(realm.as_bytes().to_vec()).push(")");
        }
        if let Some(enabled) = enabled {
            query.push(" AND enabled = ").push_bind(enabled);
        }
        match expired {
            None => {}
            Some((true, now_ms)) => {
                query.push(" AND expires_at_ms <= ").push_bind(now_ms);
            }
            Some((false, now_ms)) => {
                query.push(" AND (expires_at_ms IS NULL OR expires_at_ms > ");
                query.push_bind(now_ms).push(")");
            }
        }
        query.push(" ORDER BY created_at_ms, id LIMIT ").push_bind(i64::from(limit));
        let rows: Vec<Row> = query.build().fetch_all(self.readers()).await.map_err(failed)?;
        rows.iter().map(alias).collect()
    }

    /// Replaces what may change of an alias that still has the version given: label, target, path,
    /// switches and end. Returns it with the next version. Errors as for [`Store::create_alias`],
    /// and [`Error::Stale`].
    pub async fn update_alias(&self, alias: &Alias, rules: AliasRules) -> Result<Alias> {
        let mut new = alias.clone();
        self.write(move |tx| {
            Box::pin(async move {
                let old = load(tx, new.id).await?;
                if old.version != new.version {
                    return Err(Error::Stale);
                }
                let now_ms = new.updated_at_ms;
                new.clear_site_data = old.clear_site_data;
                if old.label != new.label {
                    forget_notes(tx, &new, rules, now_ms).await?;
                    new.clear_site_data = take_label(tx, &new, rules, now_ms).await?;
                    free_labels(tx, "id", new.id.as_bytes(), now_ms).await?;
                }
                let doc = document::write_alias(&new)?;
                sqlx::query(
                    "UPDATE aliases SET label = $2, enabled = $3, \
                     end_told = CASE WHEN expires_at_ms = $4 THEN end_told ELSE 0 END, \
                     expires_at_ms = $4, clear_site_data = $5, updated_at_ms = $6, doc = $7, \
                     version = version + 1 WHERE id = $1",
                )
                .bind(new.id.as_bytes().as_slice())
                .bind(&new.label)
                .bind(new.enabled)
                .bind(new.expires_at_ms)
                .bind(new.clear_site_data)
                .bind(now_ms)
                .bind(doc)
                .execute(&mut tx.connection)
                .await
                .map_err(failed)?;
                new.version.0 += 1;
                tx.changed(new.container, now_ms);
                let kind = match (old.enabled, new.enabled) {
                    (false, true) => "proxy.alias.enabled",
                    (true, false) => "proxy.alias.disabled",
                    (true, true) | (false, false) => "proxy.alias.updated",
                };
                tell(tx, &new, kind, now_ms).await?;
                Ok(new)
            })
        })
        .await
    }

    /// Tells once of each alias that ends before `soon_ms`, and once of each that has ended. An alias that
    /// has ended stays, so that its owner may give it another end; its label leads nowhere meanwhile.
    ///
    /// Of what had ended before the first look with this schema nothing is told.
    pub async fn tell_alias_ends(&self, now_ms: i64, soon_ms: i64) -> Result<()> {
        let due: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM aliases WHERE end_told < 2 AND expires_at_ms <= $2 \
             AND (expires_at_ms <= $1 OR end_told < 1)) \
             OR EXISTS (SELECT 1 FROM aliases WHERE end_told < 0)",
        )
        .bind(now_ms)
        .bind(soon_ms)
        .fetch_one(self.readers())
        .await
        .map_err(failed)?;
        if !due {
            return Ok(());
        }
        self.write(move |tx| {
            Box::pin(async move {
                sqlx::query(
                    "UPDATE aliases SET end_told = CASE WHEN expires_at_ms <= $1 THEN $2 ELSE 0 END \
                     WHERE end_told < 0",
                )
                .bind(now_ms)
                .bind(TOLD_ENDED)
                .execute(&mut tx.connection)
                .await
                .map_err(failed)?;
                // The ended ones first: of those it is not told any more that they will.
                for (before_ms, told, kind) in [
                    (now_ms, TOLD_ENDED, "proxy.alias.expired"),
                    (soon_ms, TOLD_SOON, "proxy.alias.expiring_soon"),
                ] {
                    let rows: Vec<Row> = sqlx::query(
                        "UPDATE aliases SET end_told = $2 WHERE expires_at_ms <= $1 \
                         AND end_told < $2 RETURNING *",
                    )
                    .bind(before_ms)
                    .bind(told)
                    .fetch_all(&mut tx.connection)
                    .await
                    .map_err(failed)?;
                    for row in &rows {
                        tell(tx, &alias(row)?, kind, now_ms).await?;
                    }
                }
                Ok(())
            })
        })
        .await
    }

    /// Removes an alias with its custom hostnames; its label waits for its owner.
    pub async fn remove_alias(&self, id: AliasId, now_ms: i64) -> Result<()> {
        self.write(move |tx| {
            Box::pin(async move {
                let alias = load(tx, id).await?;
                free_labels(tx, "id", id.as_bytes(), now_ms).await?;
                sqlx::query("DELETE FROM aliases WHERE id = $1")
                    .bind(id.as_bytes().as_slice())
                    .execute(&mut tx.connection)
                    .await
                    .map_err(failed)?;
                tx.changed(alias.container, now_ms);
                tell(tx, &alias, "proxy.alias.deleted", now_ms).await
            })
        })
        .await
    }
}

async fn tell(tx: &mut Tx, alias: &Alias, kind: &str, at_ms: i64) -> Result<()> {
    let container = containers::load(tx, alias.container).await?;
    told::alias_told(tx, alias, &container.spec.realms, kind, at_ms).await
}

/// Notes the labels of a container that is about to be removed.
pub(crate) async fn free_labels_of(tx: &mut Tx, container: ContainerId, now_ms: i64) -> Result<()> {
    free_labels(tx, "container", container.as_bytes(), now_ms).await
}

/// Notes that the aliases with this value in this column give their labels back.
async fn free_labels(tx: &mut Tx, column: &'static str, id: &[u8; 12], now_ms: i64) -> Result<()> {
    let mut insert = sqlx::QueryBuilder::<Db>::new(
        "INSERT INTO freed_aliases (label, owner, project, container, freed_at_ms) \
         SELECT label, owner, project, container, ",
    );
    insert.push_bind(now_ms).push(" FROM aliases WHERE ").push(column).push(" = ");
    insert.push_bind(id.to_vec()).push(
        " ON CONFLICT (label) DO UPDATE SET owner = excluded.owner, \
         project = excluded.project, container = excluded.container, freed_at_ms = excluded.freed_at_ms",
    );
    insert.build().execute(&mut tx.connection).await.map(drop).map_err(failed)
}

/// Forgets old notes, and of an owner who has too many the oldest ones – none that still waits. Whoever
/// frees a label has taken one before, so that this keeps up.
async fn forget_notes(tx: &mut Tx, alias: &Alias, rules: AliasRules, now_ms: i64) -> Result<()> {
    sqlx::query("DELETE FROM freed_aliases WHERE freed_at_ms < $1")
        .bind(now_ms.saturating_sub(FREED_KEPT_MS))
        .execute(&mut tx.connection)
        .await
        .map_err(failed)?;
    sqlx::query(
        "DELETE FROM freed_aliases WHERE owner = $1 AND freed_at_ms <= $2 AND label NOT IN \
         (SELECT label FROM freed_aliases WHERE owner = $1 ORDER BY freed_at_ms DESC, label LIMIT $3)",
    )
    .bind(alias.owner.as_bytes().as_slice())
    .bind(now_ms.saturating_sub(rules.quarantine_ms))
    .bind(FREED_PER_OWNER_MAX)
    .execute(&mut tx.connection)
    .await
    .map(drop)
    .map_err(failed)
}

/// Whether the label is free for this alias; it is then no longer waiting for anybody. Says whether
/// another container had it before.
async fn take_label(tx: &mut Tx, alias: &Alias, rules: AliasRules, now_ms: i64) -> Result<bool> {
    let holder: Option<Row> = sqlx::query("SELECT owner FROM aliases WHERE label = $1")
        .bind(&alias.label)
        .fetch_optional(&mut tx.connection)
        .await
        .map_err(failed)?;
    if let Some(row) = holder {
        return Err(Error::LabelTaken { own: columns::id(&row, "owner")? == alias.owner });
    }
    let freed: Option<Row> = sqlx::query("SELECT * FROM freed_aliases WHERE label = $1")
        .bind(&alias.label)
        .fetch_optional(&mut tx.connection)
        .await
        .map_err(failed)?;
    let Some(freed) = freed else { return Ok(false) };
    let at_ms: i64 = columns::get(&freed, "freed_at_ms")?;
    let project: Option<Vec<u8>> = columns::get(&freed, "project")?;
    let is_there = project.is_none_or(|project| project == alias.project.as_bytes());
    let is_own = columns::id(&freed, "owner")? == alias.owner && (rules.by_owner || is_there);
    if !is_own && now_ms < at_ms.saturating_add(rules.quarantine_ms) {
        return Err(Error::LabelTaken { own: false });
    }
    sqlx::query("DELETE FROM freed_aliases WHERE label = $1")
        .bind(&alias.label)
        .execute(&mut tx.connection)
        .await
        .map_err(failed)?;
    Ok(columns::id(&freed, "container")? != alias.container)
}

async fn insert(tx: &mut Tx, alias: &Alias) -> Result<()> {
    let doc = document::write_alias(alias)?;
    sqlx::query(
        "INSERT INTO aliases (id, owner, project, container, server, label, enabled, \
         expires_at_ms, clear_site_data, version, created_at_ms, updated_at_ms, doc) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
    )
    .bind(alias.id.as_bytes().as_slice())
    .bind(alias.owner.as_bytes().as_slice())
    .bind(alias.project.as_bytes().as_slice())
    .bind(alias.container.as_bytes().as_slice())
    .bind(alias.server.as_bytes().as_slice())
    .bind(&alias.label)
    .bind(alias.enabled)
    .bind(alias.expires_at_ms)
    .bind(alias.clear_site_data)
    .bind(integer(alias.version.0))
    .bind(alias.created_at_ms)
    .bind(alias.updated_at_ms)
    .bind(doc)
    .execute(&mut tx.connection)
    .await
    .map(drop)
    .map_err(failed)
}

async fn load(tx: &mut Tx, id: AliasId) -> Result<Alias> {
    let row = sqlx::query("SELECT * FROM aliases WHERE id = $1")
        .bind(id.as_bytes().as_slice())
        .fetch_optional(&mut tx.connection)
        .await
        .map_err(failed)?
        .ok_or(Error::NotFound)?;
    alias(&row)
}

/// Reads a row of `aliases`.
pub(crate) fn alias(row: &Row) -> Result<Alias> {
    let id = columns::id(row, "id")?;
    let read = || -> Result<Alias> {
        let doc = document::read_alias(columns::get(row, "doc")?)?;
        Ok(Alias {
            id,
            owner: columns::id(row, "owner")?,
            project: columns::id(row, "project")?,
            container: columns::id(row, "container")?,
            server: columns::id(row, "server")?,
            label: columns::get(row, "label")?,
            target: doc.target()?,
            target_path: doc.target_path,
            allow_path_override: doc.allow_path_override,
            enabled: columns::get(row, "enabled")?,
            expires_at_ms: columns::get(row, "expires_at_ms")?,
            clear_site_data: columns::get(row, "clear_site_data")?,
            version: Version(columns::count(row, "version")?),
            created_at_ms: columns::get(row, "created_at_ms")?,
            updated_at_ms: columns::get(row, "updated_at_ms")?,
        })
    };
    read().map_err(columns::of("alias", id))
}
