//! What routing must know of containers beside their own records.

use std::{collections::HashMap, sync::Arc};

use gantry_model::{Chain, ContainerId, ProjectId, access::Document};
use sqlx::QueryBuilder;

use crate::{
    aliases, columns, document,
    error::{Error, Result, failed},
    record::{Alias, AliasRecord, EdgeRecord},
    sqlite::{Connection, Db, Row},
};

/// What is set for some containers, or all, read in one transaction. `None` stands for what is
/// damaged: a container must not be open because the document that closes it cannot be read.
#[derive(Default)]
pub(crate) struct Edges {
    projects: HashMap<ProjectId, Option<Arc<Document>>>,
    containers: HashMap<ContainerId, Option<EdgeRecord>>,
}

impl Edges {
    /// What is set for these containers of these projects; for all when they are absent.
    pub(crate) async fn load(
        tx: &mut Connection,
        containers: Option<&[ContainerId]>,
        projects: Option<&[ProjectId]>,
    ) -> Result<Self> {
        let mut edges = Self::default();
        let containers: Option<Vec<[u8; 12]>> =
            containers.map(|ids| ids.iter().map(|id| *id.as_bytes()).collect());
        let containers = containers.as_deref();
        let projects: Option<Vec<[u8; 12]>> =
            projects.map(|ids| ids.iter().map(|id| *id.as_bytes()).collect());

        let query = "SELECT project, doc FROM project_access";
        for row in select(tx, query, "project", projects.as_deref()).await? {
            let id: ProjectId = columns::id(&row, "project")?;
            let read = columns::get(&row, "doc").and_then(document::read_access);
            match read.map_err(columns::of("project", id)) {
                Ok((None, _)) => {}
                Ok((Some(document), _)) => {
                    edges.projects.insert(id, Some(Arc::new(document)));
                }
                Err(error) => {
                    report(&error);
                    edges.projects.insert(id, None);
                }
            }
        }
        let query = "SELECT container, doc FROM container_access";
        for row in select(tx, query, "container", containers).await? {
            edges.put(&row, |edge| {
                let (document, hooks) = document::read_access(columns::get(&row, "doc")?)?;
                edge.container = document.map(Arc::new);
                edge.hooks = hooks.into_iter().map(|record| record.hook).collect();
                Ok(())
            })?;
        }
        let query = "SELECT container, doc FROM edge_settings";
        for row in select(tx, query, "container", containers).await? {
            edges.put(&row, |edge| {
                edge.settings = document::read_settings(columns::get(&row, "doc")?)?;
                Ok(())
            })?;
        }
        let mut hostnames = hostnames(tx, containers).await?;
        for row in select(tx, "SELECT * FROM aliases", "container", containers).await? {
            edges.put(&row, |edge| {
                let alias = aliases::alias(&row)?;
                let hostnames = hostnames.remove(alias.id.as_bytes()).unwrap_or_default();
                edge.aliases.push(record(alias, hostnames)?);
                Ok(())
            })?;
        }
        for edge in edges.containers.values_mut().flatten() {
            edge.aliases.sort_unstable_by(|one, other| one.label.cmp(&other.label));
        }
        Ok(edges)
    }

    /// Adds what a row says to the record of its container, which is damaged if the row is.
    fn put(&mut self, row: &Row, add: impl FnOnce(&mut EdgeRecord) -> Result<()>) -> Result<()> {
        let id: ContainerId = columns::id(row, "container")?;
        let slot = self.containers.entry(id).or_insert_with(|| Some(EdgeRecord::default()));
        if let Some(edge) = slot
            && let Err(error) = add(edge).map_err(columns::of("container", id))
        {
            report(&error);
            *slot = None;
        }
        Ok(())
    }

    /// Takes what is set for a container; nothing if nothing is. An error if it is damaged.
    pub(crate) fn take(
        &mut self,
        container: ContainerId,
        project: ProjectId,
    ) -> Result<Option<Arc<EdgeRecord>>> {
        let damaged = || Error::Corrupt { what: format!("what is set for container {container}") };
        let project = match self.projects.get(&project) {
            None => None,
            Some(document) => Some(document.as_ref().map(Arc::clone).ok_or_else(damaged)?),
        };
        let own = match self.containers.remove(&container) {
            None => EdgeRecord::default(),
            Some(edge) => edge.ok_or_else(damaged)?,
        };
        let edge = EdgeRecord { project, ..own };
        Ok((!edge.is_empty()).then(|| Arc::new(edge)))
    }
}

fn record(alias: Alias, hostnames: Vec<String>) -> Result<AliasRecord> {
    let landing = alias.landing().map_err(|error| Error::Corrupt { what: error.to_string() })?;
    Ok(AliasRecord {
        label: alias.label,
        hostnames,
        target: alias.target,
        landing,
        enabled: alias.enabled,
        expires_at_ms: alias.expires_at_ms,
        clear_site_data: alias.clear_site_data,
    })
}

/// The proven custom hostnames by the ids of their aliases.
async fn hostnames(
    tx: &mut Connection,
    containers: Option<&[[u8; 12]]>,
) -> Result<HashMap<[u8; 12], Vec<String>>> {
    let mut by_alias: HashMap<[u8; 12], Vec<String>> = HashMap::new();
    let query = "SELECT * FROM hostnames";
    for row in select(tx, query, "container", containers).await? {
        if columns::get(&row, "is_proven")? {
            let alias = columns::octets(&row, "alias")?;
            by_alias.entry(alias).or_default().push(columns::get(&row, "name")?);
        }
    }
    for names in by_alias.values_mut() {
        names.sort_unstable();
    }
    Ok(by_alias)
}

/// The rows of a query whose column holds one of some ids; all when they are absent.
async fn select(
    tx: &mut Connection,
    query: &'static str,
    column: &'static str,
    ids: Option<&[[u8; 12]]>,
) -> Result<Vec<Row>> {
    let mut query = QueryBuilder::<Db>::new(query);
    if let Some(ids) = ids {
        query.push(" WHERE ").push(column).push(" IN (");
        let mut list = query.separated(", ");
        for id in ids {
            list.push_bind(id.to_vec());
        }
        query.push(")");
    }
    query.build().persistent(false).fetch_all(tx).await.map_err(failed)
}

fn report(error: &Error) {
    tracing::error!(error = %Chain(error), "what is set for a container is damaged; its route stays as it was");
}
