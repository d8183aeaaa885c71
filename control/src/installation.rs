//! What this installation offers: its servers and images.

use gantry_model::{ImageId, ServerId, ServerName, container::ImageName};
use gantry_store::{ContainerFilter, ContainerSort, Page};
use sha2::{Digest as _, Sha256};

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

/// An image that containers may start from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its id, derived from its name: the same on every installation.
    pub id: ImageId,
    /// `<os>/<release>`.
    pub name: ImageName,
    /// Whether at least one form of it is ready for use without a build.
    pub cached: bool,
    /// What it takes on disk when it is there, in bytes; its largest form.
    pub disk_bytes: Option<u64>,
}

impl Image {
    /// The id of the image of this name, whether it is offered here or not.
    pub fn id_of(name: &ImageName) -> ImageId {
        let digest: [u8; 32] = Sha256::digest(name.as_str()).into();
        let mut id = [0; 12];
        id.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        ImageId::from_bytes(id)
    }
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

    /// One server.
    pub async fn server_view(&self, actor: &Actor, id: ServerId) -> Result<ServerView> {
        let servers = self.servers(actor).await?;
        servers.into_iter().find(|server| server.id == id).ok_or(Error::NotFound(Thing::Server))
    }

    /// Every image that the servers here offer, one entry for each name, sorted by name.
    pub async fn images(&self, _actor: &Actor) -> Result<Vec<Image>> {
        let mut images: Vec<Image> = Vec::new();
        let mut infos = Vec::new();
        for served in self.inner.servers.iter() {
            infos.extend(served.runtime.images().await.map_err(Error::Runtime)?);
        }
        for info in infos {
            if let Some(known) = images.iter_mut().find(|image| image.name == info.name) {
                known.cached |= info.cached;
                known.disk_bytes = known.disk_bytes.max(info.disk_bytes);
            } else {
                images.push(Image {
                    id: Image::id_of(&info.name),
                    name: info.name,
                    cached: info.cached,
                    disk_bytes: info.disk_bytes,
                });
            }
        }
        images.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(images)
    }
}
