//! Containers: their specs, wishes and statuses, and the log of their phases.
//!
//! Every change raises the container's version by one and puts the container into the feed; a change
//! of its phase adds an entry to its status log, in the same transaction.

use gantry_model::{
    ContainerId, ContainerSpec, Generation, LogId, Phase, ProjectId, ServerId, Wish,
    container::RamdiskScope,
};

use crate::{
    Cause, Outage, Store, aliases,
    columns::{self, damaged, integer},
    document,
    error::{Error, Result, failed},
    listing::{self, Condition, List},
    members, projects,
    quotas::{self, Quotas},
    record::{
        Container, ContainerFilter, ContainerSort, ContainerStatus, EnvironmentSync, Listed,
        LogSort, Page, StatusLog, Version,
    },
    shares, snapshots,
    sqlite::Row,
    ssh_keys, told,
    writer::Tx,
};

/// What the first entry of a status log says about who caused it.
pub(crate) const TRIGGERED_BY_CREATE: &str = "create";

impl Store {
    /// Adds a container as given, together with its name, its SSH key, its realms and the first
    /// entry of its status log; a new one has [`Version::FIRST`]. Returns what was stored.
    ///
    /// [`Error::ProjectGone`], [`Error::QuotaReached`], [`Error::OverQuota`], [`Error::NameTaken`],
    /// [`Error::KeyTaken`];
    /// [`Error::NotFound`] if the owner or the server does not exist. Nothing of it is there then.
    pub async fn create_container(&self, container: &Container) -> Result<Container> {
        let (container, doc) = (container.clone(), document::write_container(&container.spec)?);
        let quotas = self.quotas;
        self.write(move |tx| Box::pin(async move { create(tx, quotas, container, &doc).await }))
            .await
    }

    /// The container of this id.
    pub async fn container(&self, id: ContainerId) -> Result<Option<Container>> {
        let row = sqlx::query("SELECT * FROM containers WHERE id = $1")
            .bind(id.as_bytes().as_slice())
            .fetch_optional(self.readers())
            .await
            .map_err(failed)?;
        row.as_ref().map(container).transpose()
    }

    /// Lists the containers that a filter lets through.
    pub async fn containers(
        &self,
        filter: ContainerFilter,
        page: Page<ContainerSort>,
    ) -> Result<Listed<Container>> {
        let ContainerFilter { seen_by, project, realm, server, include_deleting, include_prespawn } =
            filter;
        let deleting = Phase::Deleting.as_str();
        let conditions: Vec<Condition> = [
            Condition::seen_by("project", seen_by),
            Condition::is("project", project),
            Condition::is("server", server),
            realm.map(|realm| Condition::InRealm(&listing::CONTAINER_REALMS, realm)),
            (!include_deleting).then_some(Condition::IsNot("phase", deleting)),
            (!include_prespawn).then_some(Condition::Not("prespawn")),
        ]
        .into_iter()
        .flatten()
        .collect();
        let order = match page.sort {
            ContainerSort::Id => "id",
            ContainerSort::Name => "name",
            ContainerSort::Status => "phase",
            ContainerSort::CreatedAt => "created_at_ms",
            ContainerSort::UpdatedAt => "updated_at_ms",
        };
        List { table: "containers", conditions: &conditions, order, tie: "id" }
            .read(self.readers(), page, container)
            .await
    }

    /// Every container of a server, those being deleted included, by id.
    ///
    /// One damaged record fails the call: leaving it out would make its container look like one
    /// that nobody asked for.
    pub async fn containers_of_server(&self, server: ServerId) -> Result<Vec<Container>> {
        let rows = sqlx::query("SELECT * FROM containers WHERE server = $1 ORDER BY id")
            .bind(server.as_bytes().as_slice())
            .fetch_all(self.readers())
            .await
            .map_err(failed)?;
        rows.iter().map(container).collect()
    }

    /// Replaces the spec of a container that still has this version.
    ///
    /// [`Error::NameTaken`] or [`Error::KeyTaken`] if another container has them. Which fields may
    /// change is not decided here.
    pub async fn update_spec(
        &self,
        id: ContainerId,
        version: Version,
        spec: &ContainerSpec,
        now_ms: i64,
    ) -> Result<Container> {
        let (spec, doc) = (spec.clone(), document::write_container(spec)?);
        self.write(move |tx| {
            Box::pin(async move {
                let mut container = load_at(tx, id, version).await?;
                let (old, new) = (container.spec.ramdisk_scope, spec.ramdisk_scope);
                if new == RamdiskScope::Project
                    && old != new
                    && members::has_any(tx, container.project).await?
                {
                    return Err(Error::MembersPresent);
                }
                let realms_differ = container.spec.realms != spec.realms;
                let old = std::mem::replace(&mut container.spec, spec);
                if old.environment != container.spec.environment {
                    container.environment_sync.revision += 1;
                }
                if old.ssh_public_key != container.spec.ssh_public_key {
                    if let Some(key) = &old.ssh_public_key {
                        ssh_keys::give_back(tx, key, container.owner, now_ms).await?;
                    }
                    let key = container.spec.ssh_public_key.as_ref();
                    if let Some(key) = key {
                        ssh_keys::take(tx, key, container.owner, now_ms).await?;
                    }
                    container.ssh_key_since_ms = key.map(|_key| now_ms);
                }
                container.updated_at_ms = now_ms;
                save_spec(tx, &mut container, &doc).await?;
                if realms_differ {
                    listing::set_container_realms(tx, id, &container.spec.realms).await?;
                }
                tx.changed(id, now_ms);
                told::container_told(tx, &container, &old).await?;
                Ok(container)
            })
        })
        .await
    }

    /// Records a wish and the phase that it leads to, for a container that still has this version;
    /// `wish_seq` rises by one. Outside of phase `failed` no reason of a failure is kept.
    /// [`Error::OverQuota`] if its owner would have one more running than may be.
    #[expect(clippy::too_many_arguments, reason = "each is one fact of the transition")]
    pub async fn set_wish(
        &self,
        id: ContainerId,
        version: Version,
        wish: Wish,
        phase: Phase,
        triggered_by: &str,
        now_ms: i64,
    ) -> Result<Container> {
        let (triggered_by, quotas) = (triggered_by.to_owned(), self.quotas);
        self.write(move |tx| {
            Box::pin(async move {
                let mut container = load_at(tx, id, version).await?;
                let from = container.status.phase;
                let was_promised = quotas::is_promised(&container);
                container.wish = wish;
                container.wish_seq += 1;
                container.status.phase = phase;
                if phase != Phase::Failed {
                    container.status.why = None;
                }
                container.updated_at_ms = now_ms;
                quotas::check_promise(tx, quotas, was_promised, &container).await?;
                save_state(tx, &mut container).await?;
                if from != phase {
                    shares::source_changed(tx, id, now_ms).await?;
                    log(tx, &container, Some(from), &triggered_by).await?;
                }
                Ok(container)
            })
        })
        .await
    }

    /// Replaces the status of a container that still has this version.
    pub async fn set_status(
        &self,
        id: ContainerId,
        version: Version,
        status: &ContainerStatus,
        triggered_by: &str,
        now_ms: i64,
    ) -> Result<Container> {
        let (status, triggered_by) = (status.clone(), triggered_by.to_owned());
        self.write(move |tx| {
            Box::pin(async move {
                let mut container = load_at(tx, id, version).await?;
                let old = std::mem::replace(&mut container.status, status);
                container.updated_at_ms = now_ms;
                save_state(tx, &mut container).await?;
                if old.phase != container.status.phase {
                    shares::source_changed(tx, id, now_ms).await?;
                    log(tx, &container, Some(old.phase), &triggered_by).await?;
                }
                if let (Some(fill), None) = (old.fill, container.status.fill) {
                    snapshots::tell_filled(tx, &container, fill).await?;
                }
                Ok(container)
            })
        })
        .await
    }

    /// Removes a container with its realms, its status log and all that is set about its requests;
    /// its name is free again, its key and the labels of its aliases wait for its owner.
    pub async fn remove_container(&self, id: ContainerId, now_ms: i64) -> Result<()> {
        self.write(move |tx| {
            Box::pin(async move {
                let gone = load(tx, id).await?;
                aliases::free_labels_of(tx, id, now_ms).await?;
                if let Some(key) = &gone.spec.ssh_public_key {
                    ssh_keys::give_back(tx, key, gone.owner, now_ms).await?;
                }
                shares::removed_with_container(tx, id, now_ms).await?;
                sqlx::query("DELETE FROM containers WHERE id = $1")
                    .bind(id.as_bytes().as_slice())
                    .execute(&mut tx.connection)
                    .await
                    .map_err(failed)?;
                tx.changed(id, now_ms);
                told::container_removed(tx, &gone, now_ms).await
            })
        })
        .await
    }

    /// Lists the status log of a container; empty if there is no such container.
    pub async fn status_logs(
        &self,
        container: ContainerId,
        page: Page<LogSort>,
    ) -> Result<Listed<StatusLog>> {
        let order = match page.sort {
            LogSort::At => "at_ms",
            LogSort::From => "from_phase",
            LogSort::To => "to_phase",
        };
        let conditions = [Condition::Is("container", *container.as_bytes())];
        List { table: "status_logs", conditions: &conditions, order, tie: "version" }
            .read(self.readers(), page, status_log)
            .await
    }
}

pub(crate) async fn create(
    tx: &mut Tx,
    quotas: Quotas,
    container: Container,
    doc: &str,
) -> Result<Container> {
    check_quota(tx, container.project).await?;
    quotas::check_new(tx, quotas, &container).await?;
    insert(tx, container, doc, TRIGGERED_BY_CREATE).await
}

/// Whether the project exists and may hold one more.
pub(crate) async fn check_quota(tx: &mut Tx, project: ProjectId) -> Result<()> {
    match projects::quota(tx, project).await? {
        None => Err(Error::ProjectGone),
        Some(None) => Ok(()),
        Some(Some(max)) => {
            let count = projects::count_containers(tx, project).await?;
            if count >= u64::from(max) { Err(Error::QuotaReached { max }) } else { Ok(()) }
        }
    }
}

/// Adds a container with its realms and the first entry of its status log.
pub(crate) async fn insert(
    tx: &mut Tx,
    mut container: Container,
    doc: &str,
    triggered_by: &str,
) -> Result<Container> {
    container.ssh_key_since_ms =
        container.spec.ssh_public_key.as_ref().map(|_key| container.created_at_ms);
    if let Some(key) = &container.spec.ssh_public_key {
        ssh_keys::take(tx, key, container.owner, container.created_at_ms).await?;
    }
    let status = &container.status;
    let key = container.spec.ssh_public_key.as_ref().map(|key| key.fingerprint().0.to_vec());
    sqlx::query(
        "INSERT INTO containers (id, project, owner, server, name, key_fingerprint, hoody_kit, \
         wish, wish_seq, phase, address, generation, why, done_seq, started_at_ms, boot_id, \
         version, created_at_ms, updated_at_ms, doc, source, fill, prespawn, ssh_forwarding, \
         ssh_key_since_ms) VALUES ($1, $2, $3, \
         $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, \
         $23, $24, $25)",
    )
    .bind(container.id.as_bytes().as_slice())
    .bind(container.project.as_bytes().as_slice())
    .bind(container.owner.as_bytes().as_slice())
    .bind(container.server.as_bytes().as_slice())
    .bind(container.spec.name.as_str())
    .bind(key)
    .bind(container.spec.hoody_kit)
    .bind(container.wish.as_str())
    .bind(integer(container.wish_seq))
    .bind(status.phase.as_str())
    .bind(status.address.map(|address| address.to_string()))
    .bind(integer(status.generation.0))
    .bind(&status.why)
    .bind(integer(status.done_seq))
    .bind(status.started_at_ms)
    .bind(&status.boot_id)
    .bind(integer(container.version.0))
    .bind(container.created_at_ms)
    .bind(container.updated_at_ms)
    .bind(doc)
    .bind(container.source.map(|source| source.as_bytes().to_vec()))
    .bind(status.fill.map(snapshots::fill_text))
    .bind(container.prespawn)
    .bind(container.spec.ssh_forwarding)
    .bind(container.ssh_key_since_ms)
    .execute(&mut tx.connection)
    .await
    .map_err(failed)?;
    if !container.spec.realms.is_empty() {
        listing::set_container_realms(tx, container.id, &container.spec.realms).await?;
    }
    log(tx, &container, None, triggered_by).await?;
    tx.changed(container.id, container.updated_at_ms);
    Ok(container)
}

/// Reads a container that must have this version.
pub(crate) async fn load_at(tx: &mut Tx, id: ContainerId, version: Version) -> Result<Container> {
    let container = load(tx, id).await?;
    if container.version == version { Ok(container) } else { Err(Error::Stale) }
}

/// Reads a container.
pub(crate) async fn load(tx: &mut Tx, id: ContainerId) -> Result<Container> {
    let row = sqlx::query("SELECT * FROM containers WHERE id = $1")
        .bind(id.as_bytes().as_slice())
        .fetch_optional(&mut tx.connection)
        .await
        .map_err(failed)?
        .ok_or(Error::NotFound)?;
    container(&row)
}

/// Whether a container of the project shares memory with others of it.
pub(crate) async fn any_shares_ramdisk(tx: &mut Tx, project: ProjectId) -> Result<bool> {
    // As `document` writes it. No text of an owner's looks like that: quotes in texts are escaped.
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM containers WHERE project = $1 \
         AND doc LIKE '%\"ramdisk_of_project\":true%')",
    )
    .bind(project.as_bytes().as_slice())
    .fetch_one(&mut tx.connection)
    .await
    .map_err(failed)
}

/// Writes the spec; the version rises in the database and in `container`.
async fn save_spec(tx: &mut Tx, container: &mut Container, doc: &str) -> Result<()> {
    let key = container.spec.ssh_public_key.as_ref().map(|key| key.fingerprint().0.to_vec());
    let done = sqlx::query(
        "UPDATE containers SET name = $3, key_fingerprint = $4, hoody_kit = $5, \
         updated_at_ms = $6, doc = $7, env_revision = $8, ssh_forwarding = $9, \
         ssh_key_since_ms = $10, version = version + 1 \
         WHERE id = $1 AND version = $2",
    )
    .bind(container.id.as_bytes().as_slice())
    .bind(integer(container.version.0))
    .bind(container.spec.name.as_str())
    .bind(key)
    .bind(container.spec.hoody_kit)
    .bind(container.updated_at_ms)
    .bind(doc)
    .bind(integer(container.environment_sync.revision))
    .bind(container.spec.ssh_forwarding)
    .bind(container.ssh_key_since_ms)
    .execute(&mut tx.connection)
    .await
    .map_err(failed)?;
    saved(container, done.rows_affected())
}

/// Writes wish and status and notes the change; the version rises in the database and in
/// `container`.
pub(crate) async fn save_state(tx: &mut Tx, container: &mut Container) -> Result<()> {
    let status = &container.status;
    let done = sqlx::query(
        "UPDATE containers SET wish = $3, wish_seq = $4, phase = $5, address = $6, \
         generation = $7, why = $8, done_seq = $9, started_at_ms = $10, boot_id = $11, \
         updated_at_ms = $12, fill = $13, version = version + 1 WHERE id = $1 AND version = $2",
    )
    .bind(container.id.as_bytes().as_slice())
    .bind(integer(container.version.0))
    .bind(container.wish.as_str())
    .bind(integer(container.wish_seq))
    .bind(status.phase.as_str())
    .bind(status.address.map(|address| address.to_string()))
    .bind(integer(status.generation.0))
    .bind(&status.why)
    .bind(integer(status.done_seq))
    .bind(status.started_at_ms)
    .bind(&status.boot_id)
    .bind(container.updated_at_ms)
    .bind(status.fill.map(snapshots::fill_text))
    .execute(&mut tx.connection)
    .await
    .map_err(failed)?;
    saved(container, done.rows_affected())?;
    tx.changed(container.id, container.updated_at_ms);
    Ok(())
}

/// The version was compared when the record was read; where several writers share a database, another
/// may have come in between.
fn saved(container: &mut Container, rows: u64) -> Result<()> {
    if rows == 0 {
        return Err(Error::Stale);
    }
    container.version.0 += 1;
    Ok(())
}

/// Adds the entry that says that `container` has come to its phase.
pub(crate) async fn log(
    tx: &mut Tx,
    container: &Container,
    from: Option<Phase>,
    triggered_by: &str,
) -> Result<()> {
    let mut id = [0; 12];
    getrandom::fill(&mut id)
        .map_err(|error| Error::Unavailable(Outage::Refused(Cause::new(error))))?;
    let to = container.status.phase;
    let note = container.status.why.as_deref().filter(|_| to == Phase::Failed);
    let at_ms = container.updated_at_ms;
    let since_ms: Option<i64> = match from {
        None => None,
        Some(_) => sqlx::query_scalar(
            "SELECT at_ms FROM status_logs WHERE container = $1 ORDER BY version DESC LIMIT 1",
        )
        .bind(container.id.as_bytes().as_slice())
        .fetch_optional(&mut tx.connection)
        .await
        .map_err(failed)?,
    };
    sqlx::query(
        "INSERT INTO status_logs (container, version, id, from_phase, to_phase, at_ms, \
         duration_ms, triggered_by, note) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(container.id.as_bytes().as_slice())
    .bind(integer(container.version.0))
    .bind(id.as_slice())
    .bind(from.map(Phase::as_str))
    .bind(to.as_str())
    .bind(at_ms)
    // The clock may have been set back meanwhile.
    .bind(since_ms.map(|since_ms| at_ms.saturating_sub(since_ms).max(0)))
    .bind(triggered_by)
    .bind(note)
    .execute(&mut tx.connection)
    .await
    .map_err(failed)?;
    told::phase_told(tx, container, from, triggered_by).await
}

pub(crate) fn container(row: &Row) -> Result<Container> {
    let id = columns::id(row, "id")?;
    let read = || -> Result<Container> {
        let wish: &str = columns::get(row, "wish")?;
        Ok(Container {
            id,
            project: columns::id(row, "project")?,
            owner: columns::id(row, "owner")?,
            server: columns::id(row, "server")?,
            spec: document::read_container(columns::get(row, "doc")?)?,
            wish: Wish::from_word(wish).ok_or_else(|| damaged("wish", "is no wish"))?,
            wish_seq: columns::count(row, "wish_seq")?,
            source: columns::optional_id(row, "source")?,
            prespawn: columns::get(row, "prespawn")?,
            status: ContainerStatus {
                phase: columns::phase(row, "phase")?,
                address: columns::address(row, "address")?,
                generation: Generation(columns::count(row, "generation")?),
                why: columns::get(row, "why")?,
                done_seq: columns::count(row, "done_seq")?,
                started_at_ms: columns::get(row, "started_at_ms")?,
                boot_id: columns::get(row, "boot_id")?,
                fill: snapshots::fill(row)?,
            },
            environment_sync: EnvironmentSync::of(row)?,
            ssh_key_since_ms: columns::get(row, "ssh_key_since_ms")?,
            version: Version(columns::count(row, "version")?),
            created_at_ms: columns::get(row, "created_at_ms")?,
            updated_at_ms: columns::get(row, "updated_at_ms")?,
        })
    };
    read().map_err(columns::of("container", id))
}

fn status_log(row: &Row) -> Result<StatusLog> {
    let id: LogId = columns::id(row, "id")?;
    let read = || -> Result<StatusLog> {
        let from: Option<&str> = columns::get(row, "from_phase")?;
        let from = from
            .map(|word| Phase::from_word(word).ok_or_else(|| damaged("from_phase", "is no phase")))
            .transpose()?;
        Ok(StatusLog {
            id,
            container: columns::id(row, "container")?,
            from,
            to: columns::phase(row, "to_phase")?,
            at_ms: columns::get(row, "at_ms")?,
            duration_ms: columns::get(row, "duration_ms")?,
            triggered_by: columns::get(row, "triggered_by")?,
            note: columns::get(row, "note")?,
        })
    };
    read().map_err(columns::of("status log", id))
}
