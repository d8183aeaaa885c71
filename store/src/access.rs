//! Permission documents with their hooks, and the settings of the edge.

use gantry_model::{ContainerId, edge::EdgeSettings};
use sqlx::AssertSqlSafe;

use crate::{
    Store, columns,
    columns::integer,
    containers, document,
    error::{Error, Result, failed},
    projects,
    record::{Access, Container, Project, Scope, Version},
    sqlite::Row,
    told::{self, Permitted},
    writer::Tx,
};

/// Table and column of a kind of scope, and the id.
const fn place(scope: &Scope) -> (&'static str, &'static str, &[u8; 12]) {
    match scope {
        Scope::Project(id) => ("project_access", "project", id.as_bytes()),
        Scope::Container(id) => ("container_access", "container", id.as_bytes()),
    }
}

impl Store {
    /// The permission document of a project or container; version 0 if there never was one.
    pub async fn access(&self, scope: Scope) -> Result<Access> {
        let (table, column, id) = place(&scope);
        // Safe: table and column are our own words.
        let text = AssertSqlSafe(format!("SELECT * FROM {table} WHERE {column} = $1"));
        let row = sqlx::query(text)
            .bind(id.as_slice())
            .fetch_optional(self.readers())
            .await
            .map_err(failed)?;
        row.as_ref().map_or_else(|| Ok(Access::default()), access)
    }

    /// Replaces the document and the hooks of a project or container that are still of this
    /// version; returns them with the next one. The change is in the feed for each container that
    /// it is about.
    pub async fn set_access(&self, scope: Scope, access: Access, now_ms: i64) -> Result<Access> {
        let doc = document::write_access(&access)?;
        self.write(move |tx| {
            Box::pin(async move {
                let (table, column, id) = place(&scope);
                let old = access_now(tx, &scope).await?;
                swap(tx, (table, column), id, access.version, &doc, now_ms).await?;
                let access = Access { version: Version(access.version.0 + 1), ..access };
                match scope {
                    Scope::Container(id) => {
                        tx.changed(id, now_ms);
                        let Container { owner, project, spec, .. } =
                            containers::load(tx, id).await?;
                        let whose = Permitted { scope, owner, project, realms: &spec.realms };
                        told::access_told(tx, &whose, (&old, &access), now_ms).await?;
                    }
                    Scope::Project(id) => {
                        let rows: Vec<Row> =
                            sqlx::query("SELECT id FROM containers WHERE project = $1")
                                .bind(id.as_bytes().as_slice())
                                .fetch_all(&mut tx.connection)
                                .await
                                .map_err(failed)?;
                        for row in &rows {
                            tx.changed(columns::id(row, "id")?, now_ms);
                        }
                        let project = projects::load(tx, id).await?.ok_or(Error::NotFound)?;
                        let Project { owner, spec, .. } = project;
                        let whose = Permitted { scope, owner, project: id, realms: &spec.realms };
                        told::access_told(tx, &whose, (&old, &access), now_ms).await?;
                    }
                }
                Ok(access)
            })
        })
        .await
    }

    /// What the owner of a container has set for its requests; version 0 and the defaults if
    /// nothing.
    pub async fn edge_settings(&self, container: ContainerId) -> Result<(Version, EdgeSettings)> {
        let row = sqlx::query("SELECT * FROM edge_settings WHERE container = $1")
            .bind(container.as_bytes().as_slice())
            .fetch_optional(self.readers())
            .await
            .map_err(failed)?;
        let Some(row) = row else { return Ok((Version::default(), EdgeSettings::default())) };
        let settings = document::read_settings(columns::get(&row, "doc")?)?;
        Ok((Version(columns::count(&row, "version")?), settings))
    }

    /// Replaces the settings of a container that are still of this version.
    pub async fn set_edge_settings(
        &self,
        container: ContainerId,
        version: Version,
        settings: &EdgeSettings,
        now_ms: i64,
    ) -> Result<()> {
        let doc = document::write_settings(settings)?;
        self.write(move |tx| {
            Box::pin(async move {
                let place = ("edge_settings", "container");
                swap(tx, place, container.as_bytes(), version, &doc, now_ms).await?;
                tx.changed(container, now_ms);
                let container = containers::load(tx, container).await?;
                told::settings_told(tx, &container, now_ms).await
            })
        })
        .await
    }
}

/// The document as it is for this transaction.
async fn access_now(tx: &mut Tx, scope: &Scope) -> Result<Access> {
    let (table, column, id) = place(scope);
    // Safe: table and column are our own words.
    let text = AssertSqlSafe(format!("SELECT * FROM {table} WHERE {column} = $1"));
    let row = sqlx::query(text)
        .bind(id.as_slice())
        .fetch_optional(&mut tx.connection)
        .await
        .map_err(failed)?;
    row.as_ref().map_or_else(|| Ok(Access::default()), access)
}

/// Writes the next version of a document, if it still is of this one.
pub(crate) async fn swap(
    tx: &mut Tx,
    (table, column): (&'static str, &'static str),
    id: &[u8; 12],
    version: Version,
    doc: &str,
    now_ms: i64,
) -> Result<()> {
    let statement = if version.0 == 0 {
        // The first version: there must be none.
        format!(
            "INSERT INTO {table} ({column}, version, updated_at_ms, doc) \
             VALUES ($1, $2 + 1, $3, $4) ON CONFLICT ({column}) DO NOTHING"
        )
    } else {
        format!(
            "UPDATE {table} SET version = version + 1, updated_at_ms = $3, doc = $4 \
             WHERE {column} = $1 AND version = $2"
        )
    };
    // Safe: table and column are our own words.
    let done = sqlx::query(AssertSqlSafe(statement))
        .bind(id.as_slice())
        .bind(integer(version.0))
        .bind(now_ms)
        .bind(doc)
        .execute(&mut tx.connection)
        .await
        .map_err(failed)?;
    if done.rows_affected() == 0 { Err(Error::Stale) } else { Ok(()) }
}

fn access(row: &Row) -> Result<Access> {
    let version = Version(columns::count(row, "version")?);
    let (document, hooks) = document::read_access(columns::get(row, "doc")?)?;
    Ok(Access { version, document, hooks })
}
