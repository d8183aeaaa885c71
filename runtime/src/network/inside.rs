//! The container's side of its link.

use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr},
    os::fd::AsFd as _,
};

use futures_util::TryStreamExt as _;
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder, new_connection};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::sync::oneshot;

use crate::BoxError;

/// Sets up loopback and `eth0` in the network namespace at `path`.
///
/// A thread belongs to one network namespace, and a netlink socket to the one that it was made in;
/// so this happens on a thread of its own that ends afterwards.
pub(super) async fn configure(
    path: String,
    address: Ipv4Addr,
    prefix: u8,
    gateway: Ipv4Addr,
) -> Result<(), BoxError> {
    let (done, result) = oneshot::channel();
    std::thread::Builder::new().name("gantry-netns".to_owned()).spawn(move || {
        // Nobody waits any more when the caller was dropped.
        if done.send(enter(&path, address, prefix, gateway)).is_err() {
            tracing::debug!(path, "configured a network that nobody waited for");
        }
    })?;
    result.await?
}

fn enter(path: &str, address: Ipv4Addr, prefix: u8, gateway: Ipv4Addr) -> Result<(), BoxError> {
    let namespace = File::open(path)?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let (connection, netlink, _) = new_connection()?;
        tokio::select! {
            () = connection => Err("the netlink connection ended".into()),
            result = set_up(&netlink, address, prefix, gateway) => result,
        }
    })
}

async fn set_up(
    netlink: &Handle,
    address: Ipv4Addr,
    prefix: u8,
    gateway: Ipv4Addr,
) -> Result<(), BoxError> {
    let up = LinkUnspec::new_with_name("lo").up().build();
    netlink.link().set(up).execute().await?;
    let link = netlink.link().get().match_name("eth0").execute().try_next().await?;
    let index = link.ok_or("eth0 is missing")?.header.index;
    netlink.address().add(index, IpAddr::V4(address), prefix).execute().await?;
    let up = LinkUnspec::new_with_index(index).up().build();
    netlink.link().set(up).execute().await?;
    let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).build();
    netlink.route().add(route).execute().await?;
    Ok(())
}
