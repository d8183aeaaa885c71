//! Images, and what users make of them.

use gantry_control as control;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Hex, Pagination, Timestamp};

/// An image that containers can start from.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Image {
    id: Hex,
    /// What `container_image` takes.
    alias: String,
    description: String,
    image_name: String,
    architecture: &'static str,
    os: String,
    release: String,
    variant: Option<String>,
    /// Bytes on disk; `null` before it was first built.
    size: Option<u64>,
    price: u32,
    /// Since when this installation has shown it.
    added_date: Option<Timestamp>,
    /// 0 to 5, to hundredths; 0 where nobody has rated it.
    average_rating: f64,
    rating_count: u64,
    /// The path of its icon, a PNG, which needs no credential.
    icon_url: Option<String>,
    prespawn: bool,
    /// Whether a container can start from it without a build.
    cached: bool,
    serial: Option<String>,
}

/// An image that the user has taken.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UserImage {
    #[serde(flatten)]
    image: Image,
    /// When the user took it.
    created_at: Timestamp,
    /// How the user rates it, 0 to 5.
    user_rating: Option<u64>,
    has_rated: bool,
}

/// A page of images.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Images {
    images: Vec<Image>,
    pagination: Pagination,
}

/// A page of the images that the user has taken.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UserImages {
    images: Vec<UserImage>,
    pagination: Pagination,
}

/// That an image was taken.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Imported {}

/// How an image is rated after a rating.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Rated {
    new_rating: u8,
    average_rating: f64,
    rating_count: u64,
}

/// The mean of ratings, to hundredths; 0 where there are none.
pub(crate) fn average(ratings: control::Ratings) -> f64 {
    if ratings.count == 0 {
        return 0.0;
    }
    #[expect(clippy::cast_precision_loss, reason = "a mean of small numbers needs no 53 bits")]
    let mean = ratings.sum as f64 / ratings.count as f64;
    (mean * 100.0).round() / 100.0
}

impl Image {
    pub(crate) fn new(image: &control::Image) -> Self {
        let (os, release) = image.name.parts();
        Self {
            id: image.id.into(),
            alias: image.name.as_str().to_owned(),
            description: format!("{os} {release}"),
            image_name: image.name.as_str().to_owned(),
            architecture: std::env::consts::ARCH,
            os: os.to_owned(),
            release: release.to_owned(),
            variant: None,
            size: image.disk_bytes,
            price: 0,
            added_date: image.added_at_ms.map(Timestamp),
            average_rating: average(image.ratings),
            rating_count: image.ratings.count,
            icon_url: Some(format!("/api/v1/images/{}/icon", image.id)),
            prespawn: false,
            cached: image.cached,
            serial: None,
        }
    }
}

impl UserImage {
    pub(crate) fn new(image: &control::UserImage) -> Self {
        Self {
            image: Image::new(&image.image),
            created_at: Timestamp(image.imported_at_ms),
            user_rating: image.rating,
            has_rated: image.rating.is_some(),
        }
    }
}

impl Images {
    pub(crate) fn new(images: Vec<Image>, pagination: Pagination) -> Self {
        Self { images, pagination }
    }
}

impl UserImages {
    pub(crate) fn new(images: Vec<UserImage>, pagination: Pagination) -> Self {
        Self { images, pagination }
    }
}

impl Rated {
    pub(crate) fn new(rating: u8, ratings: control::Ratings) -> Self {
        Self { new_rating: rating, average_rating: average(ratings), rating_count: ratings.count }
    }
}
