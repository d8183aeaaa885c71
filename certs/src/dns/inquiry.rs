//! What the domain name system says of a hostname, for whoever wants to know why it has no certificate.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use hickory_net::NetError;
use hickory_proto::rr::{RData, RecordType};
use tokio::time::timeout;

use super::{Caa, DnsError, Propagation, absolute, delegation, seconds, written};

/// How long one question may take, all attempts together.
const BOUND: Duration = Duration::from_secs(8);

impl Propagation {
    /// The addresses that a name leads to in the end; none where there is no such name.
    pub(crate) async fn addresses(&self, name: &str) -> Result<BTreeSet<IpAddr>, DnsError> {
        let mut addresses = BTreeSet::new();
        for kind in [RecordType::A, RecordType::AAAA] {
            let found = self.data(name, kind).await?;
            for data in found {
                if let RData::A(address) = data {
                    addresses.insert(IpAddr::from(address.0));
                } else if let RData::AAAA(address) = data {
                    addresses.insert(IpAddr::from(address.0));
                }
            }
        }
        Ok(addresses)
    }

    /// The CAA records that count for a name (RFC 8659, section 3): its own, or else those of the closest name
    /// above it that has any.
    pub(crate) async fn caa(&self, name: &str) -> Result<Option<Caa>, DnsError> {
        let mut at = absolute(name)?;
        while !at.is_root() {
            let found = self.data(&written(&at), RecordType::CAA).await?;
            let found: Vec<_> = found
                .into_iter()
                .filter_map(|data| if let RData::CAA(caa) = data { Some(caa) } else { None })
                .collect();
            if !found.is_empty() {
                return Ok(Some(Caa::new(written(&at), &found)));
            }
            at = at.base_name();
        }
        Ok(None)
    }

    /// Where the proof of a name is written, and the zone and the name servers that have it.
    pub(crate) async fn leads(&self, name: &str) -> Result<String, DnsError> {
        let resolver = self.resolver();
        let target = delegation::follow(resolver, &absolute(name)?).await?;
        let zone = delegation::zone(resolver, &target).await?;
        let servers = delegation::name_servers(resolver, &zone).await?;
        let servers: Vec<_> = servers.into_iter().map(|server| server.name).collect();
        let (target, zone, servers) = (written(&target), written(&zone), servers.join(", "));
        Ok(if target == name {
            format!("{name} is in the zone {zone} ({servers})")
        } else {
            format!("{name} leads to {target} in the zone {zone} ({servers})")
        })
    }

    async fn data(&self, name: &str, kind: RecordType) -> Result<Vec<RData>, DnsError> {
        let name = absolute(name)?;
        match timeout(BOUND, self.resolver().lookup(name.clone(), kind)).await {
            Ok(Ok(found)) => Ok(found.answers().iter().map(|record| record.data.clone()).collect()),
            Ok(Err(error)) if is_absence(&error) => Ok(Vec::new()),
            Ok(Err(error)) => Err(delegation::unresolved(&kind.to_string(), &name, &error)),
            Err(_elapsed) => {
                let (name, bound) = (written(&name), seconds(BOUND));
                Err(DnsError::new(format!("the resolver says no {kind} of {name} within {bound}")))
            }
        }
    }
}

fn is_absence(error: &NetError) -> bool {
    error.is_no_records_found() || error.is_nx_domain()
}
