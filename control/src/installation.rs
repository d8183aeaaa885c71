//! What this installation offers: its servers.

use gantry_model::{ServerId, ServerName};
use gantry_store::{ContainerFilter, ContainerSort, Page};

use crate::{
    actor::Actor,
    controller::Controller,
    error::{Error, Result, Thing},
};

/// A server as its users see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerView {
    /// Its id; what a new container names.
    pub id: ServerId,
    /// Its label in hostnames.
    pub name: ServerName,
    /// How many containers of all users it holds.
    pub containers: u64,
    /// Whether it takes containers: whether this process runs it.
    pub ready: bool,
    /// When it first started, in milliseconds since the epoch.
    pub created_at_ms: i64,
}

impl Controller {
    /// Every server of the installation.
    pub async fn servers(&self, _actor: &Actor) -> Result<Vec<ServerView>> {
        let mut views = Vec::new();
        for server in self.store().servers().await? {
            let filter = ContainerFilter {
                server: Some(server.id),
                include_deleting: true,
                ..ContainerFilter::default()
            };
            let page = Page { page: 1, limit: 1, sort: ContainerSort::Id, descending: false };
            let containers = self.store().containers(filter, page).await?.total;
            views.push(ServerView {
                id: server.id,
                name: server.name,
                containers,
                ready: self.inner.servers.runtime(server.id).is_some(),
                created_at_ms: server.created_at_ms,
            });
        }
        Ok(views)
    }

    /// Whether this process runs it, on this machine.
    pub fn is_own_server(&self, id: ServerId) -> bool {
        self.inner.servers.get(id).is_some()
    }

    /// One server.
    pub async fn server_view(&self, actor: &Actor, id: ServerId) -> Result<ServerView> {
        let servers = self.servers(actor).await?;
        servers.into_iter().find(|server| server.id == id).ok_or(Error::NotFound(Thing::Server))
    }
}
