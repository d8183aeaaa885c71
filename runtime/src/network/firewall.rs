//! What containers may reach and who may reach them, as nftables rules in a table of our own.

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    process::Stdio,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use gantry_model::firewall::Rules;
use tokio::{io::AsyncWriteExt as _, process::Command};

use super::{NetworkConfig, rules};
use crate::{BoxError, Error, Result};

/// No change of rules takes longer.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The tables of one bridge: ours, and one with what the owners of containers want.
#[derive(Debug)]
pub(super) struct Firewall {
    nft: PathBuf,
    config: NetworkConfig,
    nameservers: BTreeSet<Ipv4Addr>,
    /// The owners' rules that are in force, as far as this process knows: it does not know what
    /// another one before it has left.
    in_force: Mutex<HashMap<Ipv4Addr, Rules>>,
}

impl Firewall {
    pub(super) fn new(nft: PathBuf, config: &NetworkConfig, nameservers: &[IpAddr]) -> Self {
        let nameservers = nameservers.iter().filter_map(|server| match server {
            IpAddr::V4(server) => Some(*server),
            IpAddr::V6(_) => None,
        });
        Self {
            nft,
            config: config.clone(),
            nameservers: nameservers.collect(),
            in_force: Mutex::default(),
        }
    }

    /// Installs our table in one step, in place of the one that is there. What owners want stays.
    pub(super) async fn install(&self, pairs: &[(Ipv4Addr, [u8; 6])]) -> Result<()> {
        let of_owners = rules::table(&self.name_of_owners(), &self.config.bridge);
        self.run(&(self.table(pairs) + &of_owners)).await
    }

    /// Lets an address send, if it comes from its own hardware address. Nothing is left of the rules
    /// of one that had the address before.
    pub(super) async fn admit(&self, address: Ipv4Addr, hardware: [u8; 6]) -> Result<()> {
        let (table, pair) = (self.name(), pair(address, hardware));
        let admission = format!("add element inet {table} senders {{ {pair} }}\n");
        self.replace(address, &Rules::default(), &admission).await
    }

    /// Lets it send no more. Idempotent.
    pub(super) async fn dismiss(&self, address: Ipv4Addr, hardware: [u8; 6]) -> Result<()> {
        let (table, pair) = (self.name(), pair(address, hardware));
        // Adding first makes the deletion of a missing one no error.
        let dismissal = format!(
            "add element inet {table} senders {{ {pair} }}\n\
             delete element inet {table} senders {{ {pair} }}\n"
        );
        self.replace(address, &Rules::default(), &dismissal).await
    }

    /// Gives an address the rules that its owner wants, in one step. Idempotent.
    pub(super) async fn rule(&self, address: Ipv4Addr, rules: &Rules) -> Result<()> {
        if self.in_force().get(&address) == Some(rules) {
            return Ok(());
        }
        self.replace(address, rules, "").await
    }

    /// Replaces the rules of an address together with something else. Calls for one address do not overlap.
    async fn replace(&self, address: Ipv4Addr, rules: &Rules, more: &str) -> Result<()> {
        // Should it fail, or be given up, nobody knows what is in force.
        self.in_force().remove(&address);
        let script = rules::replace(&self.name_of_owners(), address, rules);
        self.run(&(script + more)).await?;
        self.in_force().insert(address, rules.clone());
        Ok(())
    }

    /// Removes the tables. Idempotent.
    pub(super) async fn uninstall(&self) -> Result<()> {
        for table in [self.name(), self.name_of_owners()] {
            self.run(&format!("add table inet {table}\ndelete table inet {table}\n")).await?;
        }
        Ok(())
    }

    fn name(&self) -> String {
        format!("gantry_{}", self.config.bridge)
    }

    fn name_of_owners(&self) -> String {
        format!("gantry_{}_owners", self.config.bridge)
    }

    fn in_force(&self) -> MutexGuard<'_, HashMap<Ipv4Addr, Rules>> {
        self.in_force.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The whole table. Everything in it comes from checked types, nothing from free text.
    fn table(&self, pairs: &[(Ipv4Addr, [u8; 6])]) -> String {
        let NetworkConfig { bridge, subnet, host_ports, blocked, .. } = &self.config;
        let (table, senders) = (self.name(), elements(pairs.iter().map(|(a, h)| pair(*a, *h))));
        let ports = elements(host_ports);
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
        let failed = |error: BoxError| Error::failed("setting up the packet filter", error);
        match tokio::time::timeout(TIMEOUT, self.feed(script)).await {
            Ok(result) => result.map_err(failed),
            Err(_elapsed) => Err(failed("nft took too long".into())),
        }
    }

    async fn feed(&self, script: &str) -> Result<(), BoxError> {
        let mut child = Command::new(&self.nft)
            .args(["-f", "-"])
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(script.as_bytes()).await?;
        }
        let output = child.wait_with_output().await?;
        if output.status.success() {
            return Ok(());
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
    use super::*;

    #[test]
    fn name_servers_in_blocked_networks_are_asked_for_names_only() {
        let config = NetworkConfig::default();
        let server = Ipv4Addr::new(169, 254, 169, 253);
        let table = Firewall::new("nft".into(), &config, &[server.into()]).table(&[]);
        assert!(table.contains("elements = { 169.254.169.253 }"), "{table}");
        for net in ["100.64.0.0/10", "168.63.129.16/32", "169.254.0.0/16", "192.0.0.192/32"] {
            assert!(table.contains(net), "{net} in {table}");
        }
        let (asked, blocked) = (table.find("@nameservers"), table.find("@blocked"));
        assert!(asked.is_some() && asked < blocked, "the exception comes first: {table}");
        assert!(table.contains("@nameservers meta l4proto { tcp, udp } th dport 53 accept"));
    }
}
