//! The outbound network of a container.

use axum::extract::State;
use gantry_control::{OutboundWrite, WayWrite};
use gantry_model::{
    FieldError,
    id::kind,
    outbound::{Endpoint, Outbound, Scheme},
};

use crate::{
    Front,
    answer::Answer,
    body::JsonObject,
    caller::{Caller, PathId},
    fields::{Field, Fields, Given, Holds},
    problem::Problem,
    surface::{Method, Operation, Surface, UPDATE},
    wire,
};

const TAG: &str = "Network";
const TYPES: &[&str] = &["block", "socks5", "http", "https"];

const fn label(name: &'static str, max: usize, about: &'static str) -> Field {
    Field::new(name, Holds::Text { min: 0, max }, about).nullable()
}

static WRITE: [Field; 7] = [
    Field::new(
        "type",
        Holds::Word(TYPES),
        "block lets nothing leave the container; otherwise what its proxy speaks",
    )
    .required(),
    Field::new(
        "proxy",
        Holds::Text { min: 1, max: Endpoint::URL_MAX },
        "The URL of the proxy, such as socks5://user:password@proxy.example:1080; required unless it is \
         known or the type is block. Its credentials are never shown; they stay if the rest of the URL \
         does and it has none",
    )
    .nullable(),
    label("country", Outbound::LABEL_MAX, "What its owner says of the proxy"),
    label("city", Outbound::LABEL_MAX, "What its owner says of the proxy"),
    label("region", Outbound::LABEL_MAX, "What its owner says of the proxy"),
    label("comment", Outbound::COMMENT_MAX, "What its owner says of it"),
    Field::new(
        "dns_servers",
        Holds::Texts,
        "The addresses of at most 4 servers that are asked for names; 1.1.1.1 and 8.8.8.8 if null",
    )
    .nullable(),
];
const _: () = assert!(Outbound::DNS_SERVERS_MAX == 4, "the description says so");

pub(crate) fn surface(surface: Surface) -> Surface {
    let path = &["/api/v1/containers/{id}/network"];
    surface
        .serve(
            &[Method::Get],
            path,
            show,
            &Operation::new("getNetwork", TAG, "Shows the outbound network of a container")
                .answers::<wire::OutboundNetwork>(200),
        )
        .serve(
            &UPDATE,
            path,
            write,
            &Operation::new(
                "setNetwork",
                TAG,
                "Configures the outbound network of a container and switches it on",
            )
            .takes(&WRITE)
            .answers::<wire::OutboundNetwork>(200),
        )
        .serve(
            &[Method::Delete],
            path,
            clear,
            &Operation::new(
                "clearNetwork",
                TAG,
                "Takes the outbound network of a container away: it goes the host's way",
            ),
        )
        .serve(
            &[Method::Post],
            &["/api/v1/containers/{id}/network/start"],
            start,
            &Operation::new("startNetwork", TAG, "Switches an outbound network on")
                .takes(&[])
                .answers::<wire::OutboundState>(200),
        )
        .serve(
            &[Method::Post],
            &["/api/v1/containers/{id}/network/stop"],
            stop,
            &Operation::new(
                "stopNetwork",
                TAG,
                "Switches an outbound network off: the container goes the host's way",
            )
            .takes(&[])
            .answers::<wire::OutboundState>(200),
        )
}

async fn show(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Container>,
) -> Result<Answer<wire::OutboundNetwork>, Problem> {
    let view = front.control.outbound(&actor, id).await?;
    Ok(Answer::ok(
        "Network configuration retrieved successfully",
        wire::OutboundNetwork::new(&view),
    ))
}

async fn write(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Container>,
    body: JsonObject,
) -> Result<Answer<wire::OutboundNetwork>, Problem> {
    let mut fields = body.fields(&WRITE);
    let way = way(&mut fields);
    let mut label = |name: &str, max| {
        let check = |name: &str, text: &str| Outbound::check_label(name, text, max);
        fields.checked(name, check).patch()
    };
    let country = label("country", Outbound::LABEL_MAX);
    let city = label("city", Outbound::LABEL_MAX);
    let region = label("region", Outbound::LABEL_MAX);
    let comment = label("comment", Outbound::COMMENT_MAX);
    let dns_servers = match fields.texts("dns_servers") {
        Given::Absent => Given::Absent,
        Given::Null => Given::Null,
        Given::Value(texts) => match Outbound::parse_dns_servers("dns_servers", &texts) {
            Ok(servers) => Given::Value(servers),
            Err(error) => fields.refuse(error),
        },
    };
    let dns_servers = dns_servers.patch();
    let write = way.map(|way| OutboundWrite { way, country, city, region, comment, dns_servers });
    let write = fields.finish(write)?;
    let view = front.control.set_outbound(&actor, id, &write).await?;
    Ok(Answer::ok("Network configuration updated successfully", wire::OutboundNetwork::new(&view)))
}

/// The way that is asked for; what is wrong with it is noted.
fn way(fields: &mut Fields) -> Option<WayWrite> {
    let kind = fields.word("type", |text| TYPES.iter().find(|word| **word == text)).value();
    let proxy = fields.text("proxy").value();
    let Some(scheme) =
        Scheme::ALL.into_iter().find(|it| kind.is_some_and(|kind| *kind == it.as_str()))
    else {
        if kind.is_some() && proxy.is_some() {
            let rule = "must be left out for type block, which lets nothing leave";
            return fields.refuse(FieldError::new("proxy", rule)).value();
        }
        return kind.map(|_| WayWrite::Block);
    };
    match proxy.map(|url| Endpoint::parse(scheme, &url)).transpose() {
        Ok(endpoint) => Some(WayWrite::Proxy(scheme, endpoint)),
        Err(rule) => fields.refuse(FieldError::new("proxy", rule)).value(),
    }
}

async fn clear(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Container>,
) -> Result<Answer<()>, Problem> {
    front.control.clear_outbound(&actor, id).await?;
    Ok(Answer::ok("Network configuration removed successfully", ()))
}

async fn start(
    front: State<Front>,
    caller: Caller,
    id: PathId<kind::Container>,
    body: JsonObject,
) -> Result<Answer<wire::OutboundState>, Problem> {
    switch(front, caller, id, body, true).await
}

async fn stop(
    front: State<Front>,
    caller: Caller,
    id: PathId<kind::Container>,
    body: JsonObject,
) -> Result<Answer<wire::OutboundState>, Problem> {
    switch(front, caller, id, body, false).await
}

async fn switch(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Container>,
    body: JsonObject,
    is_on: bool,
) -> Result<Answer<wire::OutboundState>, Problem> {
    body.expect_none()?;
    let view = front.control.switch_outbound(&actor, id, is_on).await?;
    let said = if is_on { "Network started successfully" } else { "Network stopped successfully" };
    Ok(Answer::ok(said, wire::OutboundState::new(&view)))
}
