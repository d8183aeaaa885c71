//! Whether a subnet is free to be used on this host.

use std::net::Ipv4Addr;

use futures_util::TryStreamExt as _;
use ipnet::Ipv4Net;
use rtnetlink::{
    Error, Handle, RouteMessageBuilder,
    packet_route::{
        link::LinkAttribute,
        route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage},
    },
};

use crate::BoxError;

/// An error if this host reaches `subnet` or a part of it by another link than `bridge`: it would not
/// reach the containers there. A wider network around it, such as 10.0.0.0/8, does no harm, because the
/// narrower one counts.
pub(super) async fn check(
    netlink: &Handle,
    subnet: Ipv4Net,
    bridge: Option<u32>,
) -> Result<(), BoxError> {
    let all = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let mut routes = Box::pin(netlink.route().get(all).execute());
    while let Some(route) = routes.try_next().await? {
        let link = link(&route);
        if route.header.table != RouteHeader::RT_TABLE_MAIN || (link.is_some() && link == bridge) {
            continue;
        }
        let Some(taken) = destination(&route).filter(|taken| subnet.contains(taken)) else {
            continue;
        };
        let by = match link {
            Some(index) => name(netlink, index).await?,
            None => "a route of its own".to_owned(),
        };
        return Err(format!(
            "runtime.subnet {subnet} is in use on this host: {taken} belongs to {by}; choose a private \
             network that nothing else uses"
        )
        .into());
    }
    Ok(())
}

fn link(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|attribute| {
        if let RouteAttribute::Oif(index) = attribute { Some(*index) } else { None }
    })
}

/// Where it leads to; nothing for the default route.
fn destination(route: &RouteMessage) -> Option<Ipv4Net> {
    let address = route.attributes.iter().find_map(|attribute| {
        let RouteAttribute::Destination(RouteAddress::Inet(address)) = attribute else {
            return None;
        };
        Some(*address)
    })?;
    Ipv4Net::new(address, route.header.destination_prefix_length).ok()
}

async fn name(netlink: &Handle, index: u32) -> Result<String, Error> {
    let mut links = Box::pin(netlink.link().get().match_index(index).execute());
    let name = links.try_next().await?.and_then(|link| {
        link.attributes.into_iter().find_map(|attribute| {
            if let LinkAttribute::IfName(name) = attribute { Some(name) } else { None }
        })
    });
    Ok(name.unwrap_or_else(|| format!("the interface {index}")))
}
