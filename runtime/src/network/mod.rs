//! The container network: a bridge, a pair of virtual links for each container, addresses, and what
//! may talk to what.
//!
//! Each port of the bridge is isolated (containers do not see each other) and locked to one hardware
//! address, which follows from the container's address; the host knows these pairs and asks nobody.
//! So no container can take over another one's traffic. Everything is set up through netlink, from
//! outside: no program is started and nothing inside the container has to run.

mod config;
mod firewall;
mod inside;
mod link;
mod outbound;
mod relay;
mod rules;
mod vacant;

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use gantry_model::{Chain, ContainerId};
use tokio_util::task::TaskTracker;

pub use self::config::NetworkConfig;
pub(crate) use self::{config::plain, relay::Sockets as RelaySockets};
use self::{firewall::Firewall, link::Links, relay::Relay};
use crate::{Enforced, Error, Firewall as Wanted, Order, Outbound, Result, pool::Pool};

/// The container network of this host.
#[derive(Debug)]
pub(crate) struct Network {
    config: NetworkConfig,
    gateway: Ipv4Addr,
    nameservers: Vec<IpAddr>,
    pool: Mutex<Pool>,
    links: Links,
    firewall: Firewall,
}

impl Network {
    /// Sets up what does not depend on containers: the bridge, forwarding. Idempotent. `sockets` are what
    /// the process before listens on, if this one follows it.
    pub(crate) async fn open(
        config: &NetworkConfig,
        nft: PathBuf,
        tasks: &TaskTracker,
        sockets: Option<RelaySockets>,
    ) -> Result<Self> {
        let failed = |source| Error::failed("setting up the container network", source);
        let pool = Pool::new(config.subnet);
        let gateway = pool.gateway();
        let links = Links::open(config, gateway, tasks).await.map_err(failed)?;
        let nameservers = nameservers(config);
        let relay = Relay::new(config, gateway, tasks);
        let listens = match sockets {
            Some(sockets) => relay.succeed(sockets),
            None => relay.listen().await,
        };
        if let Err(error) = listens {
            tracing::error!(error, "no container reaches a proxy: the relay does not listen");
        }
        Ok(Self {
            gateway,
            pool: Mutex::new(pool),
            links,
            firewall: Firewall::new(nft, config, &nameservers, relay),
            nameservers,
            config: config.clone(),
        })
    }

    /// What the relay listens on, for the next process.
    pub(crate) fn sockets(&self) -> std::io::Result<Option<RelaySockets>> {
        self.firewall.relay().sockets()
    }

    /// Leaves to the next process what comes from now on.
    pub(crate) fn retire(&self) {
        self.firewall.relay().retire();
    }

    /// Notes an address that a container has from an earlier run.
    pub(crate) fn adopt(&self, id: ContainerId, address: Ipv4Addr) {
        if !self.pool().adopt(id, address) {
            tracing::error!(%id, %address, "its address is taken or of another network");
        }
    }

    /// Goes on after this address.
    pub(crate) fn resume_after(&self, last: Ipv4Addr) {
        self.pool().resume_after(last);
    }

    /// Installs the rules for these containers, in place of any that are there.
    pub(crate) async fn guard(&self, addresses: &[Ipv4Addr]) -> Result<()> {
        let pairs: Vec<_> =
            addresses.iter().map(|address| (*address, hardware(*address))).collect();
        self.firewall.install(&pairs).await
    }

    /// Gives a container an address, and lets that through.
    pub(crate) async fn take(&self, id: ContainerId) -> Result<Ipv4Addr> {
        let address = self.pool().take(id).ok_or(Error::NoAddress)?;
        let admitted = self.firewall.admit(address, hardware(address)).await;
        if admitted.is_err() {
            self.pool().release(id);
        }
        admitted.map(|()| address)
    }

    /// Takes back the address that a container has, if it has one. Idempotent.
    pub(crate) async fn release(&self, id: ContainerId) -> Result<()> {
        let Some(address) = self.pool().of(id) else { return Ok(()) };
        self.unplug(id, address).await?;
        self.firewall.dismiss(address, hardware(address)).await?;
        self.pool().release(id);
        Ok(())
    }

    /// Gives a container the firewall rules that its owner wants, in place of older ones; says whether
    /// it has an address that they hold for. Idempotent; the container need not be locked.
    pub(crate) async fn rule(&self, id: ContainerId, wanted: &Wanted) -> Result<bool> {
        self.firewall.rule(|| self.address(id), wanted).await
    }

    /// Gives a container the way out that its owner wants; says whether it has an address that it holds
    /// for. Idempotent; the container need not be locked.
    pub(crate) async fn lead(&self, id: ContainerId, wanted: &Outbound) -> Result<bool> {
        self.firewall.lead(|| self.address(id), wanted).await
    }

    /// Which way out of a container is in force, as far as this process knows.
    pub(crate) fn led(&self, id: ContainerId) -> Option<Enforced> {
        self.firewall.led(self.address(id)?)
    }

    /// Gives a container that is about to start its way out and its rules: without them it must not.
    pub(crate) async fn close(&self, order: &Order) -> Result<()> {
        let is_led = self.lead(order.id, &order.outbound).await?;
        if is_led && self.rule(order.id, &order.firewall).await? {
            return Ok(());
        }
        Err(Error::failed("setting up the packet filter", "the container has no address here"))
    }

    /// Installs the rules of all containers again if somebody has removed them. That this fails is
    /// for the log: the next look tries again.
    pub(crate) async fn restore(&self) {
        let pairs: Vec<_> =
            self.pool().taken().map(|address| (address, hardware(address))).collect();
        if let Err(error) = self.firewall.restore(&pairs).await {
            let error = Chain(&error).to_string();
            tracing::error!(error, "whether the packet filter is in force is not known");
        }
    }

    /// Connects the network namespace of a process, which has nothing but an idle loopback yet.
    pub(crate) async fn plug(
        &self,
        id: ContainerId,
        address: Ipv4Addr,
        pid: u32,
        namespace: String,
    ) -> Result<()> {
        let failed = |source| Error::failed("connecting the container", source);
        if self.is_of_another(id, address) {
            return Err(failed("its address is another container's".into()));
        }
        self.links.plug(&link_name(address), hardware(address), pid).await.map_err(failed)?;
        self.seal(address).await?;
        let prefix = self.config.subnet.prefix_len();
        inside::configure(namespace, address, prefix, self.gateway).await.map_err(failed)
    }

    /// Closes the port of a container's link, which someone else may have made, for all but its own
    /// hardware address. Idempotent.
    pub(crate) async fn seal(&self, address: Ipv4Addr) -> Result<()> {
        let sealed = self.links.seal(&link_name(address), address, hardware(address)).await;
        sealed.map_err(|source| Error::failed("connecting the container", source))
    }

    /// The address that a container has.
    pub(crate) fn address(&self, id: ContainerId) -> Option<Ipv4Addr> {
        self.pool().of(id)
    }

    /// The host's own address in the network.
    pub(crate) fn gateway(&self) -> Ipv4Addr {
        self.gateway
    }

    /// How many bits of an address name the network.
    pub(crate) fn prefix(&self) -> u8 {
        self.config.subnet.prefix_len()
    }

    /// Removes a container's link, if there is one. That of an address which another container has
    /// stays, whatever a record says.
    pub(crate) async fn unplug(&self, id: ContainerId, address: Ipv4Addr) -> Result<()> {
        if self.is_of_another(id, address) {
            return Ok(());
        }
        let removed = self.links.unplug(&link_name(address), address).await;
        removed.map_err(|source| Error::failed("disconnecting the container", source))
    }

    fn is_of_another(&self, id: ContainerId, address: Ipv4Addr) -> bool {
        self.pool().owner(address).is_some_and(|owner| owner != id)
    }

    /// The name servers for containers.
    pub(crate) fn nameservers(&self) -> &[IpAddr] {
        &self.nameservers
    }

    /// Removes the rules and the bridge.
    pub(crate) async fn uninstall(&self) -> Result<()> {
        self.firewall.uninstall().await?;
        let removed = self.links.remove(&self.config.bridge).await;
        removed.map_err(|source| Error::failed("removing the container network", source))
    }

    fn pool(&self) -> std::sync::MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The hardware address of the interface that has this address: neighbours may remember it safely,
/// because it never changes hands alone.
pub(crate) fn hardware(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x67, a, b, c, d]
}

/// The host's end of a container's link; short enough for the kernel and unique on the host.
pub(crate) fn link_name(address: Ipv4Addr) -> String {
    format!("gv{:08x}", address.to_bits())
}

/// The configured name servers, or the host's that answer from outside of it.
fn nameservers(config: &NetworkConfig) -> Vec<IpAddr> {
    if !config.nameservers.is_empty() {
        return config.nameservers.clone();
    }
    // The second is what a local resolver itself asks.
    for path in ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"] {
        let servers = parse_resolver(&std::fs::read_to_string(path).unwrap_or_default());
        if !servers.is_empty() {
            return servers;
        }
    }
    tracing::warn!("the host names no resolver that containers can reach; set one");
    Vec::new()
}

fn parse_resolver(text: &str) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter_map(|rest| rest.trim().parse::<IpAddr>().ok())
        .filter(|server| server.is_ipv4() && !server.is_loopback() && !server.is_unspecified())
        .take(3)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_fixes_its_hardware_address_and_its_link() {
        let address = Ipv4Addr::new(10, 88, 1, 255);
        assert_eq!(hardware(address), [0x02, 0x67, 10, 88, 1, 255]);
        assert_eq!(link_name(address), "gv0a5801ff");
        assert!(link_name(address).len() <= 15);
    }

    #[test]
    fn resolvers_that_containers_cannot_reach_are_left_out() {
        let text =
            "# c\nnameserver 127.0.0.53\nnameserver 192.0.2.7 \nnameserver fe80::1\nsearch x\n";
        assert_eq!(parse_resolver(text), ["192.0.2.7".parse::<IpAddr>().unwrap()]);
    }
}
