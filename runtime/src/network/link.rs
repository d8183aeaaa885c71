//! Links on the host's side: the bridge and one port of it for each container.

use std::net::{IpAddr, Ipv4Addr};

use futures_util::TryStreamExt as _;
use rtnetlink::{
    Handle, LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, new_connection,
    packet_core::ErrorMessage,
    packet_route::{
        link::{InfoData, InfoKind, InfoVeth, LinkAttribute},
        neighbour::{NeighbourFlags, NeighbourMessage, NeighbourState},
    },
};
use rustix::io::Errno;
use tokio_util::task::TaskTracker;

use super::{NetworkConfig, vacant};
use crate::BoxError;

/// A netlink connection and the bridge.
#[derive(Debug)]
pub(super) struct Links {
    netlink: Handle,
    bridge: u32,
}

impl Links {
    /// Makes the bridge if it is missing, gives it its address, and lets the host forward. Nothing is
    /// changed where something else has the network.
    pub(super) async fn open(
        config: &NetworkConfig,
        gateway: Ipv4Addr,
        tasks: &TaskTracker,
    ) -> Result<Self, BoxError> {
        let (connection, netlink, _) = new_connection()?;
        // Ends when the last handle is gone.
        tasks.spawn(connection);
        let name = config.bridge.as_str();
        let bridge = index(&netlink, name).await?;
        vacant::check(&netlink, config.subnet, bridge).await?;
        let bridge = match bridge {
            Some(bridge) => bridge,
            None => make_bridge(&netlink, name, gateway).await?,
        };
        let prefix = config.subnet.prefix_len();
        netlink.address().add(bridge, IpAddr::V4(gateway), prefix).replace().execute().await?;
        let up = LinkUnspec::new_with_index(bridge).up().build();
        netlink.link().set(up).execute().await?;
        sysctl("net/ipv4/ip_forward", "1")?;
        // The containers speak IPv4 only; a host without IPv6 has no such switch.
        if let Err(error) = sysctl(&format!("net/ipv6/conf/{name}/disable_ipv6"), "1") {
            tracing::debug!(%error, "IPv6 stays as it is on the bridge");
        }
        Ok(Self { netlink, bridge })
    }

    /// Makes a link between the bridge and the network namespace of `pid`, where it is `eth0`.
    pub(super) async fn plug(
        &self,
        name: &str,
        hardware: [u8; 6],
        pid: u32,
    ) -> Result<(), BoxError> {
        // One of an earlier start may still be going away with its namespace.
        self.remove(name).await?;
        let mut inner = LinkUnspec::new_with_name("eth0").address(hardware.to_vec()).build();
        inner.attributes.push(LinkAttribute::NetNsPid(pid));
        let outer = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::Veth)
            .name(name)
            .controller(self.bridge)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(inner)))
            .up()
            .build();
        self.netlink.link().add(outer).execute().await?;
        Ok(())
    }

    /// Closes the port `name` of the bridge for all but one hardware address, and lets the host know
    /// who has `address`. Idempotent.
    pub(super) async fn seal(
        &self,
        name: &str,
        address: Ipv4Addr,
        hardware: [u8; 6],
    ) -> Result<(), BoxError> {
        let port = index(&self.netlink, name).await?.ok_or("the new link has gone")?;
        // Before the other end is up, so no frame passes an open port. Nothing is flooded to it: the
        // host knows every container's hardware address and asks nobody, and what is sent to one
        // that is gone must not be seen by the others.
        let closed = LinkBridgePort::new(port)
            .isolated(true)
            .locked(true)
            .learning(false)
            .flood(false)
            .bcast_flood(false)
            .mcast_flood(false)
            .build();
        self.netlink.link().set_port(closed).execute().await?;
        self.netlink
            .neighbours()
            .add_bridge(port, &hardware)
            .state(NeighbourState::Noarp)
            .flags(NeighbourFlags::Controller)
            .replace()
            .execute()
            .await?;
        self.netlink
            .neighbours()
            .add(self.bridge, IpAddr::V4(address))
            .link_layer_address(&hardware)
            .state(NeighbourState::Permanent)
            .replace()
            .execute()
            .await?;
        Ok(())
    }

    /// Removes a container's link and what the host knows of its address, as far as they exist.
    pub(super) async fn unplug(&self, name: &str, address: Ipv4Addr) -> Result<(), BoxError> {
        let mut known = self.netlink.neighbours().add(self.bridge, IpAddr::V4(address));
        let known: NeighbourMessage = std::mem::take(known.message_mut());
        match self.netlink.neighbours().del(known).execute().await {
            Err(rtnetlink::Error::NetlinkError(error)) if is(&error, Errno::NOENT) => {}
            other => other?,
        }
        self.remove(name).await
    }

    /// Removes a link, if it exists.
    pub(super) async fn remove(&self, name: &str) -> Result<(), BoxError> {
        let Some(index) = index(&self.netlink, name).await? else { return Ok(()) };
        match self.netlink.link().del(index).execute().await {
            Err(rtnetlink::Error::NetlinkError(error)) if is(&error, Errno::NODEV) => Ok(()),
            other => Ok(other?),
        }
    }
}

async fn make_bridge(netlink: &Handle, name: &str, gateway: Ipv4Addr) -> Result<u32, BoxError> {
    // With an address of its own: by default it takes its ports', and changes with them.
    let hardware = super::hardware(gateway);
    let bridge = LinkBridge::new(name)
        .address(hardware.to_vec())
        .forward_delay(0)
        .mcast_snooping(false)
        .build();
    netlink.link().add(bridge).execute().await?;
    Ok(index(netlink, name).await?.ok_or("the new bridge has gone")?)
}

/// The number of the link with this name.
async fn index(netlink: &Handle, name: &str) -> Result<Option<u32>, rtnetlink::Error> {
    match netlink.link().get().match_name(name).execute().try_next().await {
        Ok(link) => Ok(link.map(|link| link.header.index)),
        Err(rtnetlink::Error::NetlinkError(error)) if is(&error, Errno::NODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is(error: &ErrorMessage, errno: Errno) -> bool {
    error.raw_code() == -errno.raw_os_error()
}

fn sysctl(name: &str, value: &str) -> std::io::Result<()> {
    let path = format!("/proc/sys/{name}");
    // Writing what is there already may be refused where reading is not.
    if std::fs::read_to_string(&path)?.trim() == value {
        return Ok(());
    }
    std::fs::write(path, value)
}
