//! What people make of images: since when they are known here, who has taken which, how they are rated.

use std::collections::BTreeMap;

use gantry_model::{ImageId, UserId, container::ImageName};

use crate::{
    Store, columns,
    error::{Error, Result, failed},
    sqlite::Row,
    writer::Tx,
};

/// The ratings of an image, of one user each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ratings {
    /// All of them together.
    pub sum: u64,
    /// How many there are.
    pub count: u64,
}

/// What is known of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageFacts {
    /// When it was first seen here, in milliseconds since the epoch.
    pub first_seen_at_ms: i64,
    /// How it is rated.
    pub ratings: Ratings,
}

/// An image that a user has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TakenImage {
    /// When that was, in milliseconds since the epoch.
    pub imported_at_ms: i64,
    /// How the user rates it, 0 to 5.
    pub rating: Option<u64>,
}

impl Store {
    /// What is known of every image that was ever seen here.
    pub async fn image_facts(&self) -> Result<BTreeMap<ImageId, ImageFacts>> {
        let seen: Vec<Row> = sqlx::query("SELECT image, first_seen_at_ms FROM images_seen")
            .fetch_all(self.readers())
            .await
            .map_err(failed)?;
        let rated: Vec<Row> = sqlx::query(
            "SELECT image, CAST(sum(rating) AS BIGINT) AS sum, count(*) AS count FROM image_ratings \
             GROUP BY image",
        )
        .fetch_all(self.readers())
        .await
        .map_err(failed)?;
        let rated: BTreeMap<ImageId, Ratings> = rated
            .iter()
            .map(|row| Ok((columns::id(row, "image")?, ratings(row)?)))
            .collect::<Result<_>>()?;
        seen.iter()
            .map(|row| {
                let id = columns::id(row, "image")?;
                let ratings = rated.get(&id).copied().unwrap_or_default();
                let first_seen_at_ms = columns::get(row, "first_seen_at_ms")?;
                Ok((id, ImageFacts { first_seen_at_ms, ratings }))
            })
            .collect()
    }

    /// The name of an image that was seen here.
    pub async fn image_name(&self, image: ImageId) -> Result<Option<ImageName>> {
        let name: Option<String> =
            sqlx::query_scalar("SELECT name FROM images_seen WHERE image = $1")
                .bind(image.as_bytes().as_slice())
                .fetch_optional(self.readers())
                .await
                .map_err(failed)?;
        let read = |name: String| {
            ImageName::parse("name", &name)
                .map_err(|error| Error::Corrupt { what: format!("images_seen: {error}") })
        };
        name.map(read).transpose()
    }

    /// Notes that these images are here; those that were seen before stay as they are.
    pub async fn see_images(&self, images: &[(ImageId, ImageName)], now_ms: i64) -> Result<()> {
        let images = images.to_vec();
        self.write(move |tx| {
            Box::pin(async move {
                for (id, name) in &images {
                    sqlx::query(
                        "INSERT INTO images_seen (image, name, first_seen_at_ms) \
                         VALUES ($1, $2, $3) ON CONFLICT (image) DO NOTHING",
                    )
                    .bind(id.as_bytes().as_slice())
                    .bind(name.as_str())
                    .bind(now_ms)
                    .execute(&mut tx.connection)
                    .await
                    .map_err(failed)?;
                }
                Ok(())
            })
        })
        .await
    }

    /// The images that a user has taken.
    pub async fn taken_images(&self, owner: UserId) -> Result<BTreeMap<ImageId, TakenImage>> {
        let rows: Vec<Row> = sqlx::query(
            "SELECT i.image AS image, i.imported_at_ms AS imported_at_ms, r.rating AS rating \
             FROM image_imports i \
             LEFT JOIN image_ratings r ON r.image = i.image AND r.owner = i.owner \
             WHERE i.owner = $1",
        )
        .bind(owner.as_bytes().as_slice())
        .fetch_all(self.readers())
        .await
        .map_err(failed)?;
        rows.iter()
            .map(|row| {
                let rating: Option<i64> = columns::get(row, "rating")?;
                let taken = TakenImage {
                    imported_at_ms: columns::get(row, "imported_at_ms")?,
                    rating: rating.map(|rating| columns::natural(rating, "rating")).transpose()?,
                };
                Ok((columns::id(row, "image")?, taken))
            })
            .collect()
    }

    /// Lets a user take an image; nothing changes if it has it. [`Error::NotFound`] if there is no such
    /// user.
    pub async fn take_image(&self, owner: UserId, image: ImageId, now_ms: i64) -> Result<()> {
        self.write(move |tx| {
            Box::pin(async move {
                sqlx::query(
                    "INSERT INTO image_imports (owner, image, imported_at_ms) VALUES ($1, $2, $3) \
                     ON CONFLICT (owner, image) DO NOTHING",
                )
                .bind(owner.as_bytes().as_slice())
                .bind(image.as_bytes().as_slice())
                .bind(now_ms)
                .execute(&mut tx.connection)
                .await
                .map(drop)
                .map_err(failed)
            })
        })
        .await
    }

    /// Notes how a user rates an image, in the place of what it said before, and tells how it is rated
    /// by all then. [`Error::NotFound`] if there is no such user.
    pub async fn rate_image(
        &self,
        owner: UserId,
        image: ImageId,
        rating: u8,
        now_ms: i64,
    ) -> Result<Ratings> {
        self.write(move |tx| Box::pin(rate(tx, owner, image, rating, now_ms))).await
    }
}

async fn rate(
    tx: &mut Tx,
    owner: UserId,
    image: ImageId,
    rating: u8,
    now_ms: i64,
) -> Result<Ratings> {
    sqlx::query(
        "INSERT INTO image_ratings (image, owner, rating, rated_at_ms) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (image, owner) DO UPDATE SET rating = $3, rated_at_ms = $4",
    )
    .bind(image.as_bytes().as_slice())
    .bind(owner.as_bytes().as_slice())
    .bind(i64::from(rating))
    .bind(now_ms)
    .execute(&mut tx.connection)
    .await
    .map_err(failed)?;
    let row = sqlx::query(
        "SELECT CAST(sum(rating) AS BIGINT) AS sum, count(*) AS count FROM image_ratings \
         WHERE image = $1",
    )
    .bind(image.as_bytes().as_slice())
    .fetch_one(&mut tx.connection)
    .await
    .map_err(failed)?;
    ratings(&row)
}

fn ratings(row: &Row) -> Result<Ratings> {
    Ok(Ratings { sum: columns::count(row, "sum")?, count: columns::count(row, "count")? })
}
