//! Images that containers may start from, and what users make of them.

use std::collections::BTreeMap;

use gantry_model::{ImageId, container::ImageName};
use gantry_store::Ratings;
use sha2::{Digest as _, Sha256};

use crate::{
    actor::Actor,
    controller::Controller,
    error::{During, Error, Result, Thing},
    permissions::Leaf,
};

/// The best rating; the worst is 0.
pub const RATING_MAX: u8 = 5;

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
    /// Since when this installation has shown it, in milliseconds since the epoch; nothing where that
    /// could not be noted.
    pub added_at_ms: Option<i64>,
    /// How users rate it.
    pub ratings: Ratings,
}

/// An image that a user has taken into its list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserImage {
    /// The image.
    pub image: Image,
    /// When that was, in milliseconds since the epoch.
    pub imported_at_ms: i64,
    /// How the user rates it, 0 to [`RATING_MAX`].
    pub rating: Option<u64>,
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
    /// Every image that the servers here offer, one entry for each name, sorted by name.
    pub async fn images(&self, _actor: &Actor) -> Result<Vec<Image>> {
        let mut images: BTreeMap<ImageName, Image> = BTreeMap::new();
        let mut infos = Vec::new();
        for served in self.inner.servers.iter() {
            infos.extend(served.runtime.images().await.map_err(Error::Runtime)?);
        }
        for info in infos {
            let image = images.entry(info.name.clone()).or_insert_with(|| Image {
                id: Image::id_of(&info.name),
                name: info.name,
                cached: false,
                disk_bytes: None,
                added_at_ms: None,
                ratings: Ratings::default(),
            });
            image.cached |= info.cached;
            image.disk_bytes = image.disk_bytes.max(info.disk_bytes);
        }
        let mut images: Vec<Image> = images.into_values().collect();
        let mut facts = self.store().image_facts().await?;
        let new = images.iter().filter(|image| !facts.contains_key(&image.id));
        let new: Vec<_> = new.map(|image| (image.id, image.name.clone())).collect();
        if !new.is_empty() {
            match self.store().see_images(&new, self.now_ms()).await {
                Ok(()) => facts = self.store().image_facts().await?,
                // Looking must not fail for what could not be noted; the next look tries again.
                Err(error) => tracing::warn!(%error, "cannot note that images are new"),
            }
        }
        for image in &mut images {
            let known = facts.get(&image.id);
            image.added_at_ms = known.map(|facts| facts.first_seen_at_ms);
            image.ratings = known.map(|facts| facts.ratings).unwrap_or_default();
        }
        Ok(images)
    }

    /// The images that the actor has taken into its list, as far as they are offered now.
    pub async fn user_images(&self, actor: &Actor) -> Result<Vec<UserImage>> {
        actor.require(Leaf::ContainersRead)?;
        let taken = self.store().taken_images(actor.user).await?;
        let images = self.images(actor).await?.into_iter();
        let of_user = |image: Image| {
            let taken = taken.get(&image.id)?;
            Some(UserImage { image, imported_at_ms: taken.imported_at_ms, rating: taken.rating })
        };
        Ok(images.filter_map(of_user).collect())
    }

    /// Takes an image into the actor's list; one that is there stays.
    pub async fn import_image(&self, actor: &Actor, id: ImageId) -> Result<()> {
        actor.require(Leaf::ContainersCreate)?;
        self.offered(actor, id).await?;
        let taken = self.store().take_image(actor.user, id, self.now_ms()).await;
        taken.map_err(|error| Error::of_write(error, Thing::User, During::Update))
    }

    /// Notes how the actor rates an image, 0 to [`RATING_MAX`], in the place of what it said before;
    /// returns how all rate it then.
    pub async fn rate_image(&self, actor: &Actor, id: ImageId, rating: u8) -> Result<Ratings> {
        actor.require(Leaf::ContainersCreate)?;
        if rating > RATING_MAX {
            return Err(Error::invalid("rating", "must be a whole number from 0 to 5"));
        }
        self.offered(actor, id).await?;
        let rated = self.store().rate_image(actor.user, id, rating, self.now_ms()).await;
        rated.map_err(|error| Error::of_write(error, Thing::User, During::Update))
    }

    /// The operator's icon of an image that was shown before, a PNG, if there is one.
    pub async fn image_icon(&self, id: ImageId) -> Result<Option<Vec<u8>>> {
        let Some(name) = self.store().image_name(id).await? else { return Ok(None) };
        for served in self.inner.servers.iter() {
            if let Some(icon) = served.runtime.icon(&name).await.map_err(Error::Runtime)? {
                return Ok(Some(icon));
            }
        }
        Ok(None)
    }

    async fn offered(&self, actor: &Actor, id: ImageId) -> Result<()> {
        let images = self.images(actor).await?;
        let is_offered = images.iter().any(|image| image.id == id);
        if is_offered { Ok(()) } else { Err(Error::NotFound(Thing::Image)) }
    }
}
