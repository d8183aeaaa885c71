//! The servers that this process runs, each with its own runtime.

use std::{fmt, sync::Arc};

use gantry_model::ServerId;
use gantry_runtime::Runtime;
use gantry_store::Server;

use crate::{
    controller::Controller,
    error::{Error, Result},
};

/// A server that this process runs.
#[derive(Clone)]
pub struct Served {
    /// Its record, from `Store::ensure_server`.
    pub server: Server,
    /// What runs containers on it.
    pub runtime: Arc<dyn Runtime>,
}

/// All of them; a cheap handle.
///
/// The store may know more: servers that were configured once. Their containers keep their records, and
/// nothing can be done with them until the server is configured again.
#[derive(Clone)]
pub struct Servers(Arc<[Served]>);

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|served| &served.server.name)).finish()
    }
}

impl Servers {
    /// These, the first one first.
    pub fn new(servers: Vec<Served>) -> Self {
        Self(servers.into())
    }

    /// What runs containers on a server, if this process runs it.
    pub fn runtime(&self, server: ServerId) -> Option<&Arc<dyn Runtime>> {
        self.get(server).map(|served| &served.runtime)
    }

    /// All of them, the first one first.
    pub fn iter(&self) -> impl Iterator<Item = &Served> {
        self.0.iter()
    }

    pub(crate) fn get(&self, server: ServerId) -> Option<&Served> {
        self.iter().find(|served| served.server.id == server)
    }

    /// Whether it is the one that does what one alone has to.
    pub(crate) fn is_first(&self, server: ServerId) -> bool {
        self.0.first().is_some_and(|first| first.server.id == server)
    }
}

impl Controller {
    /// What runs containers on a server; refuses one that is not configured any more.
    pub(crate) async fn runtime_of(&self, server: ServerId) -> Result<&Arc<dyn Runtime>> {
        match self.inner.servers.runtime(server) {
            Some(runtime) => Ok(runtime),
            None => Err(Error::ServerAway { server: self.server_name(server).await? }),
        }
    }
}
