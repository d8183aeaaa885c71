//! What containers may reach and who may reach them, as nftables rules in a table of our own.

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    process::Stdio,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{io::AsyncWriteExt as _, process::Command, sync::Mutex as AsyncMutex};

use super::{NetworkConfig, outbound, relay::Relay, rules};
use crate::{BoxError, Enforced, Error, Firewall as Wanted, Outbound, Result, Way};

/// No change of rules takes longer.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The tables of one bridge: ours, and one with what the owners of containers want.
#[derive(Debug)]
pub(super) struct Firewall {
    nft: PathBuf,
    config: NetworkConfig,
    /// Where the edge's connections to containers come from.
    gateway: Ipv4Addr,
    nameservers: BTreeSet<Ipv4Addr>,
    /// Held by whoever changes or reads the tables: each `nft` reads all of them first, and starts
    /// again when they change meanwhile.
    turn: AsyncMutex<()>,
    /// The owners' rules that are in force, as far as this process knows: it does not know what
    /// another one before it has left.
    in_force: Mutex<HashMap<Ipv4Addr, Wanted>>,
    /// The ways out that are in force, as far as this process knows.
    ways: Mutex<HashMap<Ipv4Addr, Outbound>>,
    relay: Relay,
}

impl Firewall {
    pub(super) fn new(
        nft: PathBuf,
        config: &NetworkConfig,
        nameservers: &[IpAddr],
        relay: Relay,
    ) -> Self {
        let nameservers = nameservers.iter().filter_map(|server| match server {
            IpAddr::V4(server) => Some(*server),
            IpAddr::V6(_) => None,
        });
        Self {
            nft,
            config: config.clone(),
            gateway: *relay.place().ip(),
            relay,
            nameservers: nameservers.collect(),
            turn: AsyncMutex::default(),
            in_force: Mutex::default(),
            ways: Mutex::default(),
        }
    }

    /// Installs our table in one step, in place of the one that is there. What owners want stays.
    pub(super) async fn install(&self, pairs: &[(Ipv4Addr, [u8; 6])]) -> Result<()> {
        let _turn = self.turn.lock().await;
        let of_owners = self.name_of_owners();
        let script = self.table(pairs) + &self.table_of_owners();
        self.run(&script).await?;
        // Most containers have no rules, and need none taken from them.
        let listed = self.nft(&["list", "table", "inet", &of_owners], "").await?;
        let mut in_force = self.in_force();
        for (address, _) in pairs.iter().filter(|(address, _)| !rules::has(&listed, *address)) {
            in_force.insert(*address, Wanted::default());
        }
        let (mut ways, led) = (self.ways(), outbound::addresses(&listed));
        for (address, _) in pairs.iter().filter(|(address, _)| !led.contains(address)) {
            ways.insert(*address, Outbound::default());
        }
        Ok(())
    }

    /// Installs everything again if somebody has removed it, such as a restart of the host's own
    /// packet filter.
    pub(super) async fn restore(&self, pairs: &[(Ipv4Addr, [u8; 6])]) -> Result<()> {
        let _turn = self.turn.lock().await;
        let listed = self.nft(&["list", "tables", "inet"], "").await?;
        let (ours, of_owners) = (self.name(), self.name_of_owners());
        let is_there =
            |name: &String| listed.lines().any(|line| line == format!("table inet {name}"));
        if [&ours, &of_owners].into_iter().all(is_there) {
            return Ok(());
        }
        tracing::warn!("the packet filter was emptied by somebody else; it is installed again");
        let mut script = self.table(pairs) + &self.table_of_owners();
        for (address, wanted) in self.in_force().iter() {
            script += &rules::replace(&of_owners, self.gateway, *address, &wanted.rules);
        }
        for (address, wanted) in self.ways().iter() {
            script += &outbound::replace(&of_owners, *address, &wanted.way);
        }
        self.run(&script).await
    }

    /// Lets an address send, if it comes from its own hardware address. Nothing is left of the rules
    /// of one that had the address before.
    pub(super) async fn admit(&self, address: Ipv4Addr, hardware: [u8; 6]) -> Result<()> {
        let _turn = self.turn.lock().await;
        let (table, pair) = (self.name(), pair(address, hardware));
        let admission = format!("add element inet {table} senders {{ {pair} }}\n");
        self.clear(address, &admission).await
    }

    /// Lets it send no more. Idempotent.
    pub(super) async fn dismiss(&self, address: Ipv4Addr, hardware: [u8; 6]) -> Result<()> {
        let _turn = self.turn.lock().await;
        let (table, pair) = (self.name(), pair(address, hardware));
        // Adding first makes the deletion of a missing one no error.
        let dismissal = format!(
            "add element inet {table} senders {{ {pair} }}\n\
             delete element inet {table} senders {{ {pair} }}\n"
        );
        self.clear(address, &dismissal).await
    }

    /// Leaves an address neither rules nor a way of its own, together with something else.
    async fn clear(&self, address: Ipv4Addr, more: &str) -> Result<()> {
        let direct = Outbound::default();
        self.ways().remove(&address);
        self.relay.set(address, None);
        let more = outbound::replace(&self.name_of_owners(), address, &direct.way) + more;
        self.replace(address, &Wanted::default(), &more).await?;
        self.ways().insert(address, direct);
        Ok(())
    }

    /// Gives the address that `address` tells, once it is our turn, the way out that its owner wants,
    /// unless it has a newer one; says whether there is an address.
    pub(super) async fn lead(
        &self,
        address: impl FnOnce() -> Option<Ipv4Addr> + Send,
        wanted: &Outbound,
    ) -> Result<bool> {
        let _turn = self.turn.lock().await;
        let Some(address) = address() else { return Ok(false) };
        if let Some(known) = self.ways().get_mut(&address)
            && (known.way == wanted.way || known.version >= wanted.version)
        {
            known.version = known.version.max(wanted.version);
            return Ok(true);
        }
        // Should it fail, or be given up, nobody knows what is in force.
        self.ways().remove(&address);
        let proxy = match &wanted.way {
            Way::Direct | Way::Blocked => None,
            Way::Through(proxy) => Some(proxy),
        };
        self.relay.set(address, proxy);
        self.run(&outbound::replace(&self.name_of_owners(), address, &wanted.way)).await?;
        self.ways().insert(address, wanted.clone());
        Ok(true)
    }

    /// Which way out of an address is in force, as far as this process knows.
    pub(super) fn led(&self, address: Ipv4Addr) -> Option<Enforced> {
        let version = self.ways().get(&address)?.version;
        Some(Enforced { version, fault: self.relay.fault(address) })
    }

    /// Gives the address that `address` tells, once it is our turn, the rules that its owner wants,
    /// unless it has newer ones; says whether there is an address.
    pub(super) async fn rule(
        &self,
        address: impl FnOnce() -> Option<Ipv4Addr> + Send,
        wanted: &Wanted,
    ) -> Result<bool> {
        let _turn = self.turn.lock().await;
        let Some(address) = address() else { return Ok(false) };
        if let Some(known) = self.in_force().get_mut(&address)
            && (known.rules == wanted.rules || known.version >= wanted.version)
        {
            known.version = known.version.max(wanted.version);
            return Ok(true);
        }
        self.replace(address, wanted, "").await.map(|()| true)
    }

    /// Replaces the rules of an address together with something else.
    async fn replace(&self, address: Ipv4Addr, wanted: &Wanted, more: &str) -> Result<()> {
        // Should it fail, or be given up, nobody knows what is in force.
        self.in_force().remove(&address);
        let script = rules::replace(&self.name_of_owners(), self.gateway, address, &wanted.rules);
        self.run(&(script + more)).await?;
        self.in_force().insert(address, wanted.clone());
        Ok(())
    }

    /// Removes the tables. Idempotent.
    pub(super) async fn uninstall(&self) -> Result<()> {
        let _turn = self.turn.lock().await;
        for table in [self.name(), self.name_of_owners()] {
            self.run(&format!("add table inet {table}\ndelete table inet {table}\n")).await?;
        }
        Ok(())
    }

    /// What carries connections to proxies.
    pub(super) fn relay(&self) -> &Relay {
        &self.relay
    }

    fn name(&self) -> String {
        format!("gantry_{}", self.config.bridge)
    }

    /// No bridge has a name that makes this one of our own tables.
    fn name_of_owners(&self) -> String {
        format!("gantryowners_{}", self.config.bridge)
    }

    /// The owners' table with nothing of theirs.
    fn table_of_owners(&self) -> String {
        rules::table(&self.name_of_owners(), &self.config.bridge, self.relay.place())
    }

    fn ways(&self) -> MutexGuard<'_, HashMap<Ipv4Addr, Outbound>> {
        self.ways.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn in_force(&self) -> MutexGuard<'_, HashMap<Ipv4Addr, Wanted>> {
        self.in_force.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The whole table. Everything in it comes from checked types, nothing from free text.
    fn table(&self, pairs: &[(Ipv4Addr, [u8; 6])]) -> String {
        let NetworkConfig { bridge, subnet, host_ports, blocked, .. } = &self.config;
        let (table, senders) = (self.name(), elements(pairs.iter().map(|(a, h)| pair(*a, *h))));
        let (ports, relay) = (elements(host_ports), outbound::accept(self.relay.place()));
        let (blocked, nameservers) = (elements(blocked), elements(&self.nameservers));
        format!(
            r#"add table inet {table}
delete table inet {table}
table inet {table} {{
    set senders {{
        type ipv4_addr . ether_addr
        {senders}
    }}
    set host_ports {{
        type inet_service
        {ports}
    }}
    set blocked {{
        type ipv4_addr
        flags interval
        auto-merge
        {blocked}
    }}
    set nameservers {{
        type ipv4_addr
        {nameservers}
    }}
    chain spoofed {{
        type filter hook prerouting priority raw; policy accept;
        iifname "{bridge}" meta nfproto ipv6 drop
        iifname "{bridge}" ip saddr . ether saddr != @senders drop
    }}
    chain to_host {{
        type filter hook input priority filter; policy accept;
        iifname != "{bridge}" accept
        ct state established,related accept
        icmp type echo-request limit rate 50/second accept
        tcp dport @host_ports accept
        {relay}
        reject with icmpx admin-prohibited
    }}
    chain through_host {{
        type filter hook forward priority filter; policy accept;
        iifname "{bridge}" oifname "{bridge}" drop
        iifname "{bridge}" ip daddr @nameservers meta l4proto {{ tcp, udp }} th dport 53 accept
        iifname "{bridge}" ip daddr @blocked reject with icmpx admin-prohibited
        oifname "{bridge}" ct state established,related accept
        oifname "{bridge}" drop
    }}
    chain from_subnet {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr {subnet} oifname != "{bridge}" masquerade
    }}
}}
"#
        )
    }

    async fn run(&self, script: &str) -> Result<()> {
        self.nft(&["-f", "-"], script).await.map(drop)
    }

    /// What `nft` prints, given this input.
    async fn nft(&self, args: &[&str], input: &str) -> Result<String> {
        let failed = |error: BoxError| Error::failed("setting up the packet filter", error);
        match tokio::time::timeout(TIMEOUT, self.feed(args, input)).await {
            Ok(result) => result.map_err(failed),
            Err(_elapsed) => Err(failed("nft took too long".into())),
        }
    }

    async fn feed(&self, args: &[&str], input: &str) -> Result<String, BoxError> {
        let mut child = Command::new(&self.nft)
            .args(args)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).await?;
        }
        let output = child.wait_with_output().await?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = said.lines().take(3).collect();
        Err(format!("nft ended with {}: {}", output.status, lines.join("; ")).into())
    }
}

fn pair(address: Ipv4Addr, hardware: [u8; 6]) -> String {
    format!("{address} . {}", hardware.map(|octet| format!("{octet:02x}")).join(":"))
}

/// The `elements` line of a set; nothing for an empty one, which the syntax does not know.
fn elements<T: ToString>(elements: impl IntoIterator<Item = T>) -> String {
    let list: Vec<String> = elements.into_iter().map(|element| element.to_string()).collect();
    if list.is_empty() { String::new() } else { format!("elements = {{ {} }}", list.join(", ")) }
}

#[cfg(test)]
mod tests {
    use tokio_util::task::TaskTracker;

    use super::*;

    #[test]
    fn name_servers_in_blocked_networks_are_asked_for_names_only() {
        let config = NetworkConfig::default();
        let server = Ipv4Addr::new(169, 254, 169, 253);
        let relay = Relay::new(&config, server, &TaskTracker::new());
        let table = Firewall::new("nft".into(), &config, &[server.into()], relay).table(&[]);
        assert!(table.contains("elements = { 169.254.169.253 }"), "{table}");
        for net in ["100.64.0.0/10", "168.63.129.16/32", "169.254.0.0/16", "192.0.0.192/32"] {
            assert!(table.contains(net), "{net} in {table}");
        }
        let (asked, blocked) = (table.find("@nameservers"), table.find("@blocked"));
        assert!(asked.is_some() && asked < blocked, "the exception comes first: {table}");
        assert!(table.contains("@nameservers meta l4proto { tcp, udp } th dport 53 accept"));
    }
}
