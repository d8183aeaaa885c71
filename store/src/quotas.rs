//! How much an account, and a server, may have.
//!
//! What all accounts may have is a value of the store's handle, what a single one may have instead is a record. It
//! is counted in the transaction of the write that adds to it, so that writes at the same time cannot have
//! more together. What waits in the warm pool counts for no account before it is claimed.

use gantry_model::{Phase, ServerId, UserId, Wish};

use crate::{
    Store,
    columns::{self, natural},
    error::{Error, Result, failed},
    record::Container,
    sqlite::{Db, Row},
    told,
    writer::Tx,
};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Counted {
    /// The containers of an account, in whatever phase, those being deleted included.
    Containers,
    /// Those of them that run, are paused, or are to run: for these memory and processors are promised.
    RunningContainers,
    /// The projects of an account.
    Projects,
    /// The containers of all accounts on one server, those in the warm pool included.
    ServerContainers,
}

/// How much there may be, where nothing else is set for an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quotas {
    /// Containers of one account.
    pub containers_per_user: u32,
    /// Containers of one account that run or are paused.
    pub running_containers_per_user: u32,
    /// Projects of one account.
    pub projects_per_user: u32,
    /// Containers of all accounts on one server.
    pub containers_per_server: u32,
}

impl Default for Quotas {
    /// No limits.
    fn default() -> Self {
        Self {
            containers_per_user: u32::MAX,
            running_containers_per_user: u32::MAX,
            projects_per_user: u32::MAX,
            containers_per_server: u32::MAX,
        }
    }
}

/// What one account may have in place of [`Quotas`]; what is absent is as for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccountLimits {
    /// Containers.
    pub containers: Option<u32>,
    /// Containers that run or are paused.
    pub running_containers: Option<u32>,
    /// Projects.
    pub projects: Option<u32>,
}

/// How much an account has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccountUse {
    /// Containers.
    pub containers: u64,
    /// Containers that run or are paused.
    pub running_containers: u64,
    /// Projects.
    pub projects: u64,
}

impl Store {
    /// The same store, whose writes by this handle and its clones keep to these quotas.
    #[must_use]
    pub fn with_quotas(mut self, quotas: Quotas) -> Self {
        self.quotas = quotas;
        self
    }

    /// What an account may have in place of what all may have.
    pub async fn account_limits(&self, user: UserId) -> Result<AccountLimits> {
        let row = sqlx::query("SELECT * FROM account_limits WHERE owner = $1")
            .bind(user.as_bytes().as_slice())
            .fetch_optional(self.readers())
            .await
            .map_err(failed)?;
        row.as_ref().map_or_else(|| Ok(AccountLimits::default()), limits)
    }

    /// How much an account has.
    pub async fn account_use(&self, user: UserId) -> Result<AccountUse> {
        let mut query = sqlx::QueryBuilder::<Db>::new("SELECT ");
        for (at, (what, name)) in [
            (Counted::Containers, "containers"),
            (Counted::RunningContainers, "running_containers"),
            (Counted::Projects, "projects"),
        ]
        .into_iter()
        .enumerate()
        {
            query.push(if at == 0 { "(" } else { ", (" });
            push_count(&mut query, what, user.as_bytes());
            query.push(") AS ").push(name);
        }
        let row = query.build().fetch_one(self.readers()).await.map_err(failed)?;
        Ok(AccountUse {
            containers: columns::count(&row, "containers")?,
            running_containers: columns::count(&row, "running_containers")?,
            projects: columns::count(&row, "projects")?,
        })
    }

    /// Sets what an account may have in place of what all may have. [`Error::NotFound`] if there is no such account.
    ///
    /// Less than it has is taken: it refuses more, and takes nothing away.
    pub async fn set_account_limits(
        &self,
        user: UserId,
        limits: AccountLimits,
        now_ms: i64,
    ) -> Result<()> {
        self.write(move |tx| {
            Box::pin(async move {
                let done = sqlx::query("UPDATE users SET updated_at_ms = $2 WHERE id = $1")
                    .bind(user.as_bytes().as_slice())
                    .bind(now_ms)
                    .execute(&mut tx.connection)
                    .await
                    .map_err(failed)?;
                if done.rows_affected() == 0 {
                    return Err(Error::NotFound);
                }
                sqlx::query(
                    "INSERT INTO account_limits (owner, containers, running_containers, projects) \
                     VALUES ($1, $2, $3, $4) ON CONFLICT (owner) DO UPDATE \
                     SET containers = $2, running_containers = $3, projects = $4",
                )
                .bind(user.as_bytes().as_slice())
                .bind(limits.containers.map(i64::from))
                .bind(limits.running_containers.map(i64::from))
                .bind(limits.projects.map(i64::from))
                .execute(&mut tx.connection)
                .await
                .map_err(failed)?;
                told::account_told(tx, user, "limits", now_ms).await
            })
        })
        .await
    }
}

/// Refuses one more container for its owner or on its server.
pub(crate) async fn check_new(tx: &mut Tx, quotas: Quotas, container: &Container) -> Result<()> {
    check_server(tx, quotas, container.server).await?;
    check(tx, quotas, Counted::Containers, container.owner).await?;
    if is_promised(container) {
        check(tx, quotas, Counted::RunningContainers, container.owner).await?;
    }
    Ok(())
}

/// Refuses one more container on a server.
pub(crate) async fn check_server(tx: &mut Tx, quotas: Quotas, server: ServerId) -> Result<()> {
    let what = Counted::ServerContainers;
    refuse_over(tx, what, server.as_bytes(), quotas.containers_per_server).await
}

/// Refuses one more project of a user.
pub(crate) async fn check_project(tx: &mut Tx, quotas: Quotas, owner: UserId) -> Result<()> {
    check(tx, quotas, Counted::Projects, owner).await
}

/// Refuses what would have one more container run for its owner than before.
pub(crate) async fn check_promise(
    tx: &mut Tx,
    quotas: Quotas,
    was_promised: bool,
    container: &Container,
) -> Result<()> {
    let is_more = !was_promised && is_promised(container);
    if is_more && !container.prespawn {
        check(tx, quotas, Counted::RunningContainers, container.owner).await?;
    }
    Ok(())
}

/// Whether memory and processors are kept for a container that stands so; the same as [`push_count`] asks for.
pub(crate) fn is_promised(container: &Container) -> bool {
    let wanted = match container.wish {
        Wish::Running | Wish::Paused => true,
        Wish::Stopped | Wish::ForceStopped | Wish::Deleted => false,
    };
    let alive = match container.status.phase {
        Phase::Creating
        | Phase::Copying
        | Phase::Claiming
        | Phase::Starting
        | Phase::Running
        | Phase::Paused
        | Phase::Stopping => true,
        // Between the two halves of a restart.
        Phase::Stopped => container.status.done_seq < container.wish_seq,
        Phase::Failed | Phase::Deleting => false,
    };
    wanted && alive
}

async fn check(tx: &mut Tx, quotas: Quotas, what: Counted, owner: UserId) -> Result<()> {
    let row: Option<Row> = sqlx::query("SELECT * FROM account_limits WHERE owner = $1")
        .bind(owner.as_bytes().as_slice())
        .fetch_optional(&mut tx.connection)
        .await
        .map_err(failed)?;
    let own = row.as_ref().map_or_else(|| Ok(AccountLimits::default()), limits)?;
    let max = match what {
        Counted::Containers => own.containers.unwrap_or(quotas.containers_per_user),
        Counted::RunningContainers => {
            own.running_containers.unwrap_or(quotas.running_containers_per_user)
        }
        Counted::Projects => own.projects.unwrap_or(quotas.projects_per_user),
        Counted::ServerContainers => quotas.containers_per_server,
    };
    refuse_over(tx, what, owner.as_bytes(), max).await
}

async fn refuse_over(tx: &mut Tx, what: Counted, of: &[u8; 12], max: u32) -> Result<()> {
    if max == u32::MAX {
        return Ok(());
    }
    let mut query = sqlx::QueryBuilder::<Db>::new("");
    push_count(&mut query, what, of);
    let used: i64 =
        query.build_query_scalar().fetch_one(&mut tx.connection).await.map_err(failed)?;
    let used = natural(used, "count")?;
    if used >= u64::from(max) { Err(Error::OverQuota { what, max, used }) } else { Ok(()) }
}

fn push_count(query: &mut sqlx::QueryBuilder<Db>, what: Counted, of: &[u8; 12]) {
    let (table, column) = match what {
        Counted::Containers | Counted::RunningContainers => ("containers", "owner"),
        Counted::Projects => ("projects", "owner"),
        Counted::ServerContainers => ("containers", "server"),
    };
    query.push("SELECT count(*) FROM ").push(table);
    query.push(" WHERE ").push(column).push(" = ").push_bind(of.to_vec());
    if matches!(what, Counted::Containers | Counted::RunningContainers) {
        query.push(" AND NOT prespawn");
    }
    if what == Counted::RunningContainers {
        let words = |query: &mut sqlx::QueryBuilder<Db>, words: &[&'static str]| {
            let mut list = query.separated(", ");
            for word in words {
                list.push_bind(*word);
            }
            query.push(")");
        };
        query.push(" AND wish IN (");
        words(query, &[Wish::Running.as_str(), Wish::Paused.as_str()]);
        query.push(" AND phase NOT IN (");
        words(query, &[Phase::Failed, Phase::Deleting].map(Phase::as_str));
        query.push(" AND (done_seq < wish_seq OR phase <> ").push_bind(Phase::Stopped.as_str());
        query.push(")");
    }
}

fn limits(row: &Row) -> Result<AccountLimits> {
    // A number that no `u32` holds limits nothing.
    let read = |column| -> Result<Option<u32>> {
        let max: Option<i64> = columns::get(row, column)?;
        Ok(max.map(|max| u32::try_from(max).unwrap_or(u32::MAX)))
    };
    Ok(AccountLimits {
        containers: read("containers")?,
        running_containers: read("running_containers")?,
        projects: read("projects")?,
    })
}
