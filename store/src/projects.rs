//! Projects.

use gantry_model::{ProjectId, RealmId, UserId};

use crate::{
    Store,
    columns::{self, integer},
    document,
    error::{Error, Result, failed},
    listing::{self, Condition, List},
    quotas,
    record::{Listed, Page, Project, ProjectSort, Version},
    shares,
    sqlite::{self, Row},
    told,
    writer::Tx,
};

impl Store {
    /// Adds a project as given; a new one has [`Version::FIRST`]. [`Error::AliasTaken`] if its
    /// owner has one of this alias, [`Error::OverQuota`] if it has as many as it may, [`Error::NotFound`] if
    /// there is no such owner.
    pub async fn create_project(&self, project: &Project) -> Result<()> {
        let (project, doc) = (project.clone(), document::write_project(&project.spec)?);
        let quotas = self.quotas;
        self.write(move |tx| {
            Box::pin(async move {
                quotas::check_project(tx, quotas, project.owner).await?;
                sqlx::query(
                    "INSERT INTO projects (id, owner, alias, max_containers, version, \
                     created_at_ms, updated_at_ms, doc) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
                )
                .bind(project.id.as_bytes().as_slice())
                .bind(project.owner.as_bytes().as_slice())
                .bind(project.spec.alias.as_str())
                .bind(project.spec.max_containers.map(i64::from))
                .bind(integer(project.version.0))
                .bind(project.created_at_ms)
                .bind(project.updated_at_ms)
                .bind(doc)
                .execute(&mut tx.connection)
                .await
                .map_err(failed)?;
                listing::set_project_realms(tx, project.id, &project.spec.realms).await?;
                let at_ms = project.created_at_ms;
                told::project_told(tx, &project, "project.created", at_ms).await
            })
        })
        .await
    }

    /// The project of this id.
    pub async fn project(&self, id: ProjectId) -> Result<Option<Project>> {
        let row = sqlx::query("SELECT * FROM projects WHERE id = $1")
            .bind(id.as_bytes().as_slice())
            .fetch_optional(self.readers())
            .await
            .map_err(failed)?;
        row.as_ref().map(project).transpose()
    }

    /// Lists projects: those that one user owns or is a member of, or all; visible in one realm or
    /// whatever their realms.
    pub async fn projects(
        &self,
        seen_by: Option<UserId>,
        realm: Option<RealmId>,
        page: Page<ProjectSort>,
    ) -> Result<Listed<Project>> {
        let conditions: Vec<Condition> = [
            Condition::seen_by("id", seen_by),
            realm.map(|realm| Condition::InRealm(&listing::PROJECT_REALMS, realm)),
        ]
        .into_iter()
        .flatten()
        .collect();
        let order = match page.sort {
            ProjectSort::Id => "id",
            ProjectSort::Alias => "alias",
            ProjectSort::CreatedAt => "created_at_ms",
            ProjectSort::UpdatedAt => "updated_at_ms",
        };
        List { table: "projects", conditions: &conditions, order, tie: "id" }
            .read(self.readers(), page, project)
            .await
    }

    /// Replaces the spec of the project if it still has the version given; returns it with the next
    /// version. `updated_at_ms` is taken over, owner and time of making stay as they are.
    ///
    /// A quota below the number of containers is taken: it refuses new ones, no more.
    pub async fn update_project(&self, project: &Project) -> Result<Project> {
        let (new, doc) = (project.clone(), document::write_project(&project.spec)?);
        self.write(move |tx| {
            Box::pin(async move {
                let done = sqlx::query(
                    "UPDATE projects SET alias = $3, max_containers = $4, updated_at_ms = $5, \
                     doc = $6, version = version + 1 WHERE id = $1 AND version = $2",
                )
                .bind(new.id.as_bytes().as_slice())
                .bind(integer(new.version.0))
                .bind(new.spec.alias.as_str())
                .bind(new.spec.max_containers.map(i64::from))
                .bind(new.updated_at_ms)
                .bind(doc)
                .execute(&mut tx.connection)
                .await
                .map_err(failed)?;
                let stored = load(tx, new.id).await?.ok_or(Error::NotFound)?;
                if done.rows_affected() == 0 {
                    return Err(Error::Stale);
                }
                listing::set_project_realms(tx, new.id, &new.spec.realms).await?;
                let at_ms = stored.updated_at_ms;
                told::project_told(tx, &stored, "project.updated", at_ms).await?;
                Ok(stored)
            })
        })
        .await
    }

    /// Removes a project. [`Error::NotEmpty`] while it holds containers, those being deleted and those
    /// that wait in a warm pool included.
    pub async fn delete_project(&self, id: ProjectId, now_ms: i64) -> Result<()> {
        self.write(move |tx| {
            Box::pin(async move {
                if quota(tx, id).await?.is_none() {
                    return Err(Error::NotFound);
                }
                let gone = load(tx, id).await?.ok_or(Error::NotFound)?;
                if holds_any(tx, id).await? {
                    return Err(Error::NotEmpty);
                }
                shares::removed_with_project(tx, id, now_ms).await?;
                sqlx::query("DELETE FROM projects WHERE id = $1")
                    .bind(id.as_bytes().as_slice())
                    .execute(&mut tx.connection)
                    .await
                    .map_err(failed)?;
                told::project_told(tx, &gone, "project.deleted", now_ms).await
            })
        })
        .await
    }
}

/// How many containers a project may hold; `None` if there is no such project.
pub(crate) async fn quota(tx: &mut Tx, id: ProjectId) -> Result<Option<Option<u32>>> {
    let max: Option<Option<i64>> = sqlx::query_scalar(sqlite::LOCK_PROJECT)
        .bind(id.as_bytes().as_slice())
        .fetch_optional(&mut tx.connection)
        .await
        .map_err(failed)?;
    // A number that no `u32` holds limits nothing.
    Ok(max.map(|max| max.and_then(|max| u32::try_from(max).ok())))
}

/// Whether a project holds any container at all.
async fn holds_any(tx: &mut Tx, id: ProjectId) -> Result<bool> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM containers WHERE project = $1)")
        .bind(id.as_bytes().as_slice())
        .fetch_one(&mut tx.connection)
        .await
        .map_err(failed)
}

/// How many containers a project holds, those that wait in a warm pool not counted.
pub(crate) async fn count_containers(tx: &mut Tx, id: ProjectId) -> Result<u64> {
    let count: i64 =
        sqlx::query_scalar("SELECT count(*) FROM containers WHERE project = $1 AND NOT prespawn")
            .bind(id.as_bytes().as_slice())
            .fetch_one(&mut tx.connection)
            .await
            .map_err(failed)?;
    columns::natural(count, "count")
}

pub(crate) async fn load(tx: &mut Tx, id: ProjectId) -> Result<Option<Project>> {
    let row = sqlx::query("SELECT * FROM projects WHERE id = $1")
        .bind(id.as_bytes().as_slice())
        .fetch_optional(&mut tx.connection)
        .await
        .map_err(failed)?;
    row.as_ref().map(project).transpose()
}

fn project(row: &Row) -> Result<Project> {
    let id = columns::id(row, "id")?;
    let read = || -> Result<Project> {
        Ok(Project {
            id,
            owner: columns::id(row, "owner")?,
            spec: document::read_project(columns::get(row, "doc")?)?,
            version: Version(columns::count(row, "version")?),
            created_at_ms: columns::get(row, "created_at_ms")?,
            updated_at_ms: columns::get(row, "updated_at_ms")?,
        })
    };
    read().map_err(columns::of("project", id))
}
