//! Images that containers start from, and what users make of them.

use std::cmp::Ordering;

use axum::{
    body::Body,
    extract::{OriginalUri, State},
    response::Response,
};
use gantry_control::{Error, Image, RATING_MAX, Thing};
use gantry_model::{FieldError, ImageId, id::kind};
use http::{HeaderValue, header};

use crate::{
    Front,
    answer::Answer,
    body::JsonObject,
    caller::{Caller, PathId},
    fields::{Field, Holds as Taken},
    problem::Problem,
    query::{self, Holds, Param, Query},
    surface::{Method, Operation, Surface},
    wire,
};

const TAG: &str = "Images";
/// How many images a page has unless asked otherwise.
const LIMIT: u32 = 20;

/// What is shown of an image without an icon: a grey square, 16 by 16.
const PLACEHOLDER: &[u8] = b"\
    \x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x10\0\0\0\x10\x01\x03\0\0\0%=m\"\0\0\0\x06PLTE\
    \xff\xff\xff\x9a\xa0\xa64\xf4Tl\0\0\0\x0eIDATx\xdac\xf8\xff\x9f\x81\x14\x04\0\xfdN\
    \x1f\xe1\xde\xc8u\x97\0\0\0\0IEND\xaeB`\x82";

static PUBLIC: [Param; 11] = [
    query::PAGE,
    query::LIMIT,
    Param::new(
        "sort_by",
        Holds::Sort(&["alias", "added_date", "price", "rating"]),
        "What the list is ordered by, and then by the alias",
    ),
    query::SORT_ORDER,
    Param::new("os", Holds::Text, "Only images of this operating system"),
    Param::new("architecture", Holds::Text, "Only images of this architecture"),
    Param::new("search", Holds::Text, "Only images whose alias contains this"),
    Param::new("min_price", Holds::Text, "Only images that cost so much at least; all are free"),
    Param::new("max_price", Holds::Text, "Only images that cost so much at most; all are free"),
    Param::new("min_rating", Holds::Text, "Only images rated so on average at least, 0 to 5"),
    Param::new("max_rating", Holds::Text, "Only images rated so on average at most, 0 to 5"),
];
static OWN: [Param; 4] = [
    query::PAGE,
    query::LIMIT,
    Param::new(
        "sort_by",
        Holds::Sort(&["created_at", "alias", "added_date", "price", "rating"]),
        "What the list is ordered by; created_at is when the image was taken into it",
    ),
    query::SORT_ORDER,
];
static NO_FIELDS: [Field; 0] = [];
static RATING: [Field; 1] =
    [Field::new("rating", Taken::Count, "0 to 5; it takes the place of the user's last one")
        .required()];

pub(crate) fn surface(surface: Surface) -> Surface {
    let (get, post) = (&[Method::Get], &[Method::Post]);
    surface
        .serve(
            get,
            &["/api/v1/images/public"],
            public,
            &Operation::new("listPublicImages", TAG, "Lists images that containers start from")
                .params(&PUBLIC)
                .answers::<wire::Images>(200),
        )
        .serve(
            get,
            &["/api/v1/images/public/{id}"],
            one,
            &Operation::new("getPublicImage", TAG, "Shows an image").answers::<wire::Image>(200),
        )
        .serve(
            get,
            &["/api/v1/images/user"],
            own,
            &Operation::new(
                "listUserImages",
                TAG,
                "Lists images that the user has taken and that are offered now",
            )
            .params(&OWN)
            .answers::<wire::UserImages>(200),
        )
        .serve(
            get,
            &["/api/v1/images/{id}/icon"],
            icon,
            &Operation::new(
                "getImageIcon",
                TAG,
                "Shows the icon of an image, or one that stands for all without",
            )
            .public()
            .answers_text("image/png"),
        )
        .serve(
            post,
            &["/api/v1/images/import/{id}"],
            import,
            &Operation::new(
                "importImage",
                TAG,
                "Takes an image into the user's list; all are free, and containers start from others, too",
            )
            .takes(&NO_FIELDS)
            .answers::<wire::Imported>(200),
        )
        .serve(
            post,
            &["/api/v1/images/rate/{id}"],
            rate,
            &Operation::new("rateImage", TAG, "Rates an image; each user has one rating of it")
                .takes(&RATING)
                .answers::<wire::Rated>(200),
        )
}

/// What lists are ordered by.
#[derive(Clone, Copy)]
enum Order {
    Taken,
    Alias,
    Added,
    Rating,
    /// All cost the same.
    Price,
}

const ORDERS: [(&str, Order); 5] = [
    ("created_at", Order::Taken),
    ("alias", Order::Alias),
    ("added_date", Order::Added),
    ("price", Order::Price),
    ("rating", Order::Rating),
];

/// The same without what is about one user.
const OF_PUBLIC: [(&str, Order); 4] = [ORDERS[1], ORDERS[2], ORDERS[3], ORDERS[4]];

impl Order {
    /// Of what is equal, the alias decides, which is the order that both come in.
    fn compare(self, one: &Image, other: &Image) -> Ordering {
        match self {
            Self::Taken | Self::Price => Ordering::Equal,
            Self::Alias => one.name.cmp(&other.name),
            Self::Added => one.added_at_ms.cmp(&other.added_at_ms),
            Self::Rating => wire::average(one.ratings).total_cmp(&wire::average(other.ratings)),
        }
    }
}

async fn public(
    State(front): State<Front>,
    Caller(actor): Caller,
    OriginalUri(uri): OriginalUri,
) -> Result<Answer<wire::Images>, Problem> {
    let mut query = Query::new(&uri, &PUBLIC);
    let (page, limit) = (query.count("page").unwrap_or(1), query.count("limit").unwrap_or(LIMIT));
    let order = query.word("sort_by", &OF_PUBLIC).unwrap_or(Order::Alias);
    let descending = query.word("sort_order", &[("asc", false), ("desc", true)]).unwrap_or(false);
    let os = query.text("os");
    let architecture = query.text("architecture");
    let search = query.text("search").map(|text| text.to_lowercase());
    let prices = range(&mut query, "min_price", "max_price", f64::INFINITY);
    let ratings = range(&mut query, "min_rating", "max_rating", f64::from(RATING_MAX));
    query.finish()?;

    let mut images = front.control.images(&actor).await?;
    let here = std::env::consts::ARCH;
    images.retain(|image| {
        os.as_deref().is_none_or(|os| image.name.parts().0 == os)
            && architecture.as_deref().is_none_or(|asked| same_architecture(asked, here))
            && search.as_deref().is_none_or(|part| image.name.as_str().contains(part))
            && prices.contains(&0.0)
            && ratings.contains(&wire::average(image.ratings))
    });
    images.sort_by(|one, other| order.compare(one, other));
    if descending {
        images.reverse();
    }
    let (total, shown) = page_of(images, page, limit);
    let shown = shown.iter().map(wire::Image::new).collect();
    let pagination = wire::Pagination::new(total, page, limit);
    Ok(Answer::ok("Images retrieved successfully", wire::Images::new(shown, pagination)))
}

async fn own(
    State(front): State<Front>,
    Caller(actor): Caller,
    OriginalUri(uri): OriginalUri,
) -> Result<Answer<wire::UserImages>, Problem> {
    let mut query = Query::new(&uri, &OWN);
    let (page, limit) = (query.count("page").unwrap_or(1), query.count("limit").unwrap_or(LIMIT));
    let order = query.word("sort_by", &ORDERS).unwrap_or(Order::Taken);
    let descending = query.descending();
    query.finish()?;
    let mut images = front.control.user_images(&actor).await?;
    images.sort_by(|one, other| match order {
        Order::Taken => one.imported_at_ms.cmp(&other.imported_at_ms),
        Order::Alias | Order::Added | Order::Rating | Order::Price => {
            order.compare(&one.image, &other.image)
        }
    });
    if descending {
        images.reverse();
    }
    let (total, shown) = page_of(images, page, limit);
    let shown = shown.iter().map(wire::UserImage::new).collect();
    let pagination = wire::Pagination::new(total, page, limit);
    let images = wire::UserImages::new(shown, pagination);
    Ok(Answer::ok("User images retrieved successfully", images))
}

/// The whole number of things, and those on one page.
fn page_of<T>(mut all: Vec<T>, page: u32, limit: u32) -> (u64, Vec<T>) {
    let total = all.len();
    let start = (page as usize - 1).saturating_mul(limit as usize).min(total);
    let end = start.saturating_add(limit as usize).min(total);
    (total as u64, all.drain(start..end).collect())
}

/// Two bounds, from 0 to `most`.
fn range(
    query: &mut Query,
    least: &'static str,
    greatest: &'static str,
    most: f64,
) -> std::ops::RangeInclusive<f64> {
    let mut bound = |name: &'static str| {
        let text = query.text(name)?;
        let number = text.parse::<f64>().ok().filter(|number| (0.0..=most).contains(number));
        if number.is_none() {
            let rule = if most.is_finite() {
                format!("must be a number from 0 to {most}")
            } else {
                "must be a number, 0 or more".to_owned()
            };
            query.refuse(FieldError::new(name, rule));
        }
        number
    };
    bound(least).unwrap_or(0.0)..=bound(greatest).unwrap_or(most)
}

/// The two names of each architecture mean the same.
fn same_architecture(asked: &str, here: &str) -> bool {
    let canonical = |name: &str| match name {
        "amd64" | "x86_64" => "x86_64".to_owned(),
        "arm64" | "aarch64" => "aarch64".to_owned(),
        other => other.to_owned(),
    };
    canonical(asked) == canonical(here)
}

async fn one(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Image>,
) -> Result<Answer<wire::Image>, Problem> {
    let id: ImageId = id;
    let images = front.control.images(&actor).await?;
    let image = images.iter().find(|image| image.id == id).ok_or(Error::NotFound(Thing::Image))?;
    Ok(Answer::ok("Image retrieved successfully", wire::Image::new(image)))
}

async fn import(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Image>,
    body: JsonObject,
) -> Result<Answer<wire::Imported>, Problem> {
    body.expect_none()?;
    front.control.import_image(&actor, id).await?;
    Ok(Answer::ok("Image imported successfully", wire::Imported {}))
}

async fn rate(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Image>,
    body: JsonObject,
) -> Result<Answer<wire::Rated>, Problem> {
    let mut fields = body.fields(&RATING);
    let rating = fields.count("rating").value();
    let rating = fields.finish(rating)?;
    // What no octet holds is refused like everything else beyond the best.
    let rating = u8::try_from(rating).unwrap_or(u8::MAX);
    let ratings = front.control.rate_image(&actor, id, rating).await?;
    Ok(Answer::ok("Image rated successfully", wire::Rated::new(rating, ratings)))
}

/// Never a 404, so that a page has a picture for whatever it lists. Needs no credential, because pages
/// load pictures without any.
async fn icon(
    State(front): State<Front>,
    PathId(id): PathId<kind::Image>,
) -> Result<Response, Problem> {
    let icon = front.control.image_icon(id).await?;
    let body = icon.map_or_else(|| Body::from(PLACEHOLDER), Body::from);
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("image/png"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}
