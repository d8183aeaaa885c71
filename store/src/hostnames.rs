//! Custom hostnames: which alias they are bound to, and whether that is proven.

use gantry_model::ContainerId;

use crate::{
    Store, columns,
    columns::damaged,
    error::{Error, Result, failed},
    record::{CustomHostname, HostnameProof},
    sqlite::Row,
    writer::Tx,
};

impl Store {
    /// Binds a hostname as given, or notes the outcome of a new check of the binding.
    ///
    /// [`Error::HostnameTaken`] if it is bound to another alias, unless the binding is proven by name
    /// or the other one no longer is proven: whom the domain name system names, has it.
    /// [`Error::NotFound`] if the alias does not exist.
    pub async fn bind_hostname(&self, hostname: &CustomHostname, now_ms: i64) -> Result<()> {
        let new = hostname.clone();
        self.write(move |tx| {
            Box::pin(async move {
                if let Some(old) = load(tx, &new.name).await?
                    && old.alias != new.alias
                {
                    if new.proof != HostnameProof::Named && old.is_proven {
                        return Err(Error::HostnameTaken);
                    }
                    remove(tx, &new.name).await?;
                    tx.changed(old.container, now_ms);
                }
                sqlx::query(
                    "INSERT INTO hostnames (name, alias, container, proof, is_proven, \
                     checked_at_ms, created_at_ms) VALUES ($1, $2, $3, $4, $5, $6, $7) \
                     ON CONFLICT (name) DO UPDATE SET proof = excluded.proof, \
                     is_proven = excluded.is_proven, checked_at_ms = excluded.checked_at_ms",
                )
                .bind(&new.name)
                .bind(new.alias.as_bytes().as_slice())
                .bind(new.container.as_bytes().as_slice())
                .bind(word(new.proof))
                .bind(new.is_proven)
                .bind(new.checked_at_ms)
                .bind(new.created_at_ms)
                .execute(&mut tx.connection)
                .await
                .map_err(failed)?;
                tx.changed(new.container, now_ms);
                Ok(())
            })
        })
        .await
    }

    /// The hostnames that lead to a container, oldest first.
    pub async fn hostnames(&self, container: ContainerId) -> Result<Vec<CustomHostname>> {
        let rows = sqlx::query(
            "SELECT * FROM hostnames WHERE container = $1 ORDER BY created_at_ms, name",
        )
        .bind(container.as_bytes().as_slice())
        .fetch_all(self.readers())
        .await
        .map_err(failed)?;
        rows.iter().map(hostname).collect()
    }

    /// The hostnames that were last checked at `at_ms` or before, the longest ago first; at most `max`.
    pub async fn hostnames_checked_before(
        &self,
        at_ms: i64,
        max: u32,
    ) -> Result<Vec<CustomHostname>> {
        let rows = sqlx::query(
            "SELECT * FROM hostnames WHERE checked_at_ms <= $1 ORDER BY checked_at_ms, name LIMIT $2",
        )
        .bind(at_ms)
        .bind(max)
        .fetch_all(self.readers())
        .await
        .map_err(failed)?;
        rows.iter().map(hostname).collect()
    }

    /// Notes the outcome of a new check of a binding, if it still stands and nobody has checked it since
    /// `last_ms`; says whether that is so. Only an outcome that changes where the hostname leads is a change of
    /// its container.
    pub async fn note_hostname(
        &self,
        hostname: &CustomHostname,
        last_ms: i64,
        now_ms: i64,
    ) -> Result<bool> {
        let new = hostname.clone();
        self.write(move |tx| {
            Box::pin(async move {
                let stands =
                    |old: &CustomHostname| old.alias == new.alias && old.checked_at_ms == last_ms;
                let Some(old) = load(tx, &new.name).await?.filter(stands) else {
                    return Ok(false);
                };
                sqlx::query(
                    "UPDATE hostnames SET proof = $1, is_proven = $2, checked_at_ms = $3 \
                     WHERE name = $4",
                )
                .bind(word(new.proof))
                .bind(new.is_proven)
                .bind(new.checked_at_ms)
                .bind(&new.name)
                .execute(&mut tx.connection)
                .await
                .map_err(failed)?;
                if old.is_proven != new.is_proven {
                    tx.changed(new.container, now_ms);
                }
                Ok(true)
            })
        })
        .await
    }

    /// Removes a hostname that leads to this container.
    pub async fn unbind_hostname(
        &self,
        container: ContainerId,
        name: &str,
        now_ms: i64,
    ) -> Result<()> {
        let name = name.to_owned();
        self.write(move |tx| {
            Box::pin(async move {
                let old = load(tx, &name).await?;
                if old.is_none_or(|old| old.container != container) {
                    return Err(Error::NotFound);
                }
                remove(tx, &name).await?;
                tx.changed(container, now_ms);
                Ok(())
            })
        })
        .await
    }
}

async fn load(tx: &mut Tx, name: &str) -> Result<Option<CustomHostname>> {
    let row = sqlx::query("SELECT * FROM hostnames WHERE name = $1")
        .bind(name)
        .fetch_optional(&mut tx.connection)
        .await
        .map_err(failed)?;
    row.as_ref().map(hostname).transpose()
}

async fn remove(tx: &mut Tx, name: &str) -> Result<()> {
    sqlx::query("DELETE FROM hostnames WHERE name = $1")
        .bind(name)
        .execute(&mut tx.connection)
        .await
        .map(drop)
        .map_err(failed)
}

const fn word(proof: HostnameProof) -> &'static str {
    match proof {
        HostnameProof::Named => "named",
        HostnameProof::Addresses => "addresses",
    }
}

fn hostname(row: &Row) -> Result<CustomHostname> {
    let proof = match columns::get(row, "proof")? {
        "named" => HostnameProof::Named,
        "addresses" => HostnameProof::Addresses,
        _ => return Err(damaged("proof", "is no proof")),
    };
    Ok(CustomHostname {
        name: columns::get(row, "name")?,
        alias: columns::id(row, "alias")?,
        container: columns::id(row, "container")?,
        proof,
        is_proven: columns::get(row, "is_proven")?,
        checked_at_ms: columns::get(row, "checked_at_ms")?,
        created_at_ms: columns::get(row, "created_at_ms")?,
    })
}
