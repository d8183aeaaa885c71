//! Servers and images of this installation.

use axum::extract::{OriginalUri, State};
use gantry_control::{Error, Thing};
use gantry_model::{ImageId, ServerId, id::kind};

use crate::{
    Front,
    answer::Answer,
    caller::{Caller, PathId},
    problem::Problem,
    query::{self, Holds, Param, Query},
    surface::{Method, Operation, Surface},
    wire,
};

static IMAGES: [Param; 11] = [
    query::PAGE,
    query::LIMIT,
    Param::new(
        "sort_by",
        Holds::Sort(&["alias", "added_date", "price", "rating"]),
        "What the list is ordered by; all but the alias are equal for all images",
    ),
    query::SORT_ORDER,
    Param::new("os", Holds::Text, "Only images of this operating system"),
    Param::new("architecture", Holds::Text, "Only images of this architecture"),
    Param::new("search", Holds::Text, "Only images whose alias contains this"),
    Param::new("min_price", Holds::Text, "Accepted; all images are free"),
    Param::new("max_price", Holds::Text, "Accepted; all images are free"),
    Param::new("min_rating", Holds::Text, "Accepted; there are no ratings"),
    Param::new("max_rating", Holds::Text, "Accepted; there are no ratings"),
];

pub(crate) fn surface(surface: Surface) -> Surface {
    let get = &[Method::Get];
    surface
        .serve(
            get,
            &["/api/v1/servers", "/api/v1/rentals"],
            servers,
            &Operation::new("listServers", "Servers", "Lists the servers of this installation")
                .answers_list::<wire::Rental>(200),
        )
        .serve(
            get,
            &["/api/v1/servers/available"],
            available,
            &Operation::new(
                "listAvailableServers",
                "Servers",
                "Lists servers that take containers",
            )
            .answers_list::<wire::Available>(200),
        )
        .serve(
            get,
            &["/api/v1/servers/{id}", "/api/v1/rentals/{id}"],
            server,
            &Operation::new(
                "getServer",
                "Servers",
                "Shows a server; status is ready or maintenance",
            )
            .answers::<wire::Rental>(200),
        )
        .serve(
            get,
            &["/api/v1/images/public"],
            images,
            &Operation::new(
                "listPublicImages",
                "Images",
                "Lists images that containers start from",
            )
            .params(&IMAGES)
            .answers::<wire::Images>(200),
        )
        .serve(
            get,
            &["/api/v1/images/public/{id}"],
            image,
            &Operation::new("getPublicImage", "Images", "Shows an image")
                .answers::<wire::Image>(200),
        )
}

async fn servers(
    State(front): State<Front>,
    Caller(actor): Caller,
) -> Result<Answer<Vec<wire::Rental>>, Problem> {
    let servers = front.control.servers(&actor).await?;
    let rentals = servers
        .iter()
        .map(|server| {
            let status = if server.ready { "active" } else { "maintenance" };
            wire::Rental::new(server, status, front.config.machine)
        })
        .collect();
    Ok(Answer::ok("Servers retrieved successfully", rentals))
}

async fn available(
    State(front): State<Front>,
    Caller(actor): Caller,
) -> Result<Answer<Vec<wire::Available>>, Problem> {
    let servers = front.control.servers(&actor).await?;
    let ready = servers
        .iter()
        .filter(|server| server.ready)
        .map(|server| wire::Available::new(server, front.config.machine))
        .collect();
    Ok(Answer::ok("Available servers retrieved successfully", ready))
}

async fn server(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Server>,
) -> Result<Answer<wire::Rental>, Problem> {
    let id: ServerId = id;
    let server = front.control.server_view(&actor, id).await?;
    let status = if server.ready { "ready" } else { "maintenance" };
    Ok(Answer::ok(
        "Server retrieved successfully",
        wire::Rental::new(&server, status, front.config.machine),
    ))
}

async fn images(
    State(front): State<Front>,
    Caller(actor): Caller,
    OriginalUri(uri): OriginalUri,
) -> Result<Answer<wire::Images>, Problem> {
    let mut query = Query::new(&uri, &IMAGES);
    let page = query.count("page").unwrap_or(1);
    let limit = query.count("limit").unwrap_or(20);
    let by_alias = [("alias", true), ("added_date", false), ("price", false), ("rating", false)];
    let by_alias = query.word("sort_by", &by_alias).unwrap_or(true);
    let descending = query.word("sort_order", &[("asc", false), ("desc", true)]).unwrap_or(false);
    let os = query.text("os");
    let architecture = query.text("architecture");
    let search = query.text("search").map(|text| text.to_lowercase());
    query.finish()?;

    let mut images = front.control.images(&actor).await?;
    let here = std::env::consts::ARCH;
    images.retain(|image| {
        os.as_deref().is_none_or(|os| image.name.parts().0 == os)
            && architecture.as_deref().is_none_or(|asked| same_architecture(asked, here))
            && search.as_deref().is_none_or(|part| image.name.as_str().contains(part))
    });
    if by_alias && descending {
        images.reverse();
    }
    let total = images.len() as u64;
    let start = (page as usize - 1).saturating_mul(limit as usize);
    let shown = images.iter().skip(start).take(limit as usize).map(wire::Image::new).collect();
    let pagination = wire::Pagination::new(total, page, limit);
    Ok(Answer::ok("Images retrieved successfully", wire::Images::new(shown, pagination)))
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

async fn image(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Image>,
) -> Result<Answer<wire::Image>, Problem> {
    let id: ImageId = id;
    let images = front.control.images(&actor).await?;
    let image = images.iter().find(|image| image.id == id).ok_or(Error::NotFound(Thing::Image))?;
    Ok(Answer::ok("Image retrieved successfully", wire::Image::new(image)))
}
