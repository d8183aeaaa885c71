//! Where a name leads: the end of its CNAME delegation, the zone that has it, and that zone's servers.
//!
//! Resolvers are asked for this only, and never for the record itself: what they remember of it would
//! be older than the record.

use std::net::{IpAddr, SocketAddr};

use hickory_net::{DnsError as Negative, NetError, NoRecords, runtime::TokioRuntimeProvider};
use hickory_proto::rr::{Name, RData, RecordType};
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig},
};

use super::{DnsError, absolute, written};

/// The most CNAME records in a row; more is a mistake.
const CNAMES_MAX: usize = 8;

/// A name that nobody has, so that only a wildcard answers for it.
const NOBODY: &str = "_gantry-asks-for-a-wildcard";

/// A name server of a zone.
#[derive(Clone, Debug)]
pub(super) struct NameServer {
    pub(super) name: String,
    /// In words why there are none, if the resolver cannot say.
    pub(super) addresses: Result<Vec<IpAddr>, String>,
}

/// The resolver of a configuration: the addresses that are given, or the machine's own.
pub(super) fn resolver(addresses: &[SocketAddr]) -> Result<TokioResolver, NetError> {
    let mut builder = if addresses.is_empty() {
        TokioResolver::builder_tokio()?
    } else {
        let servers = addresses.iter().map(|address| {
            let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
            for connection in &mut connections {
                connection.port = address.port();
            }
            NameServerConfig::new(address.ip(), true, connections)
        });
        let config = ResolverConfig::from_name_servers(servers.collect());
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::new())
    };
    let options = builder.options_mut();
    // A record that was not there a second ago may be there now.
    options.cache_size = 0;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.use_hosts_file = ResolveHosts::Never;
    builder.build()
}

/// The end of the CNAME delegation that begins at a name: the name itself where there is none.
pub(super) async fn follow(resolver: &TokioResolver, name: &Name) -> Result<Name, DnsError> {
    let mut seen = vec![name.clone()];
    while let Some(next) = alias(resolver, seen.last().unwrap_or(name)).await? {
        // `* CNAME edge` answers for every name that is not there; with the record it is there.
        if seen.len() == 1 && is_wildcard(resolver, name, &next).await? {
            break;
        }
        let is_loop = seen.contains(&next);
        seen.push(next);
        if is_loop || seen.len() > CNAMES_MAX {
            let chain: Vec<_> = seen.iter().map(written).collect();
            let rule = if is_loop { "leads in a circle" } else { "is too long" };
            let chain = chain.join(" -> ");
            return Err(DnsError::new(format!("the CNAME delegation {rule}: {chain}")));
        }
    }
    Ok(seen.pop().unwrap_or_else(|| name.clone()))
}

async fn alias(resolver: &TokioResolver, name: &Name) -> Result<Option<Name>, DnsError> {
    match resolver.lookup(name.clone(), RecordType::CNAME).await {
        Ok(found) => Ok(found.answers().iter().find_map(|record| {
            let RData::CNAME(target) = &record.data else { return None };
            (record.name == *name).then(|| target.0.to_lowercase())
        })),
        Err(error) if error.is_no_records_found() => Ok(None),
        Err(error) => Err(unresolved("CNAME", name, &error)),
    }
}

async fn is_wildcard(
    resolver: &TokioResolver,
    name: &Name,
    target: &Name,
) -> Result<bool, DnsError> {
    let nobody = absolute(&format!("{NOBODY}.{}", written(&name.base_name())))?;
    Ok(alias(resolver, &nobody).await?.as_ref() == Some(target))
}

/// The zone that has a name.
pub(super) async fn zone(resolver: &TokioResolver, name: &Name) -> Result<Name, DnsError> {
    let mut at = name.clone();
    while !at.is_root() {
        let owner = match resolver.lookup(at.clone(), RecordType::SOA).await {
            Ok(found) => {
                let mut answers = found.answers().iter();
                let soa = answers.find(|record| record.record_type() == RecordType::SOA);
                soa.map(|record| record.name.to_lowercase())
            }
            Err(NetError::Dns(Negative::NoRecordsFound(NoRecords { soa, .. }))) => {
                soa.map(|record| record.name.to_lowercase())
            }
            Err(error) => return Err(unresolved("SOA", &at, &error)),
        };
        if let Some(owner) = owner.filter(|owner| !owner.is_root() && owner.zone_of(name)) {
            return Ok(owner);
        }
        at = at.base_name();
    }
    let name = written(name);
    Err(DnsError::new(format!("no zone was found for {name}: no name above it has an SOA record")))
}

/// The servers of a zone with all their addresses.
pub(super) async fn name_servers(
    resolver: &TokioResolver,
    zone: &Name,
) -> Result<Vec<NameServer>, DnsError> {
    let found = resolver
        .lookup(zone.clone(), RecordType::NS)
        .await
        .map_err(|error| unresolved("NS", zone, &error))?;
    let names = found.answers().iter().filter_map(|record| {
        let RData::NS(name) = &record.data else { return None };
        Some(name.0.to_lowercase())
    });
    let mut servers = Vec::new();
    for name in names {
        let addresses = match resolver.lookup_ip(name.clone()).await {
            Ok(found) => Ok(found.iter().collect()),
            Err(error) if error.is_no_records_found() => Ok(Vec::new()),
            Err(error) => Err(format!("its address cannot be found: {error}")),
        };
        servers.push(NameServer { name: written(&name), addresses });
    }
    if servers.is_empty() {
        let zone = written(zone);
        return Err(DnsError::new(format!("the zone {zone} has no NS records")));
    }
    Ok(servers)
}

pub(super) fn unresolved(kind: &str, name: &Name, error: &NetError) -> DnsError {
    let name = written(name);
    DnsError::new(format!("the resolver does not say {kind} of {name}: {error}"))
}
