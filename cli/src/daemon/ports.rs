//! Tells a taken port before anything is started.
//!
//! The edge listens with `SO_REUSEPORT`, one socket per core, so a second Gantry of the same user
//! would quietly share the port with the first. A socket without it cannot.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use crate::config::EdgeConfig;

/// Every address that cannot be listened on, as one message; those that `has` says we listen on are left out.
pub(super) fn check(edge: &EdgeConfig, has: impl Fn(SocketAddr) -> bool) -> Result<(), String> {
    let all =
        [("edge.https", edge.https.as_slice()), ("edge.http", &edge.http), ("edge.ssh", &edge.ssh)];
    let admin = [edge.admin];
    let all = all.into_iter().chain([("edge.admin", admin.as_slice())]);
    let taken: Vec<String> = all
        .flat_map(|(key, addresses)| addresses.iter().map(move |address| (key, address)))
        .filter(|(_, address)| !has(**address))
        .filter_map(|(key, address)| match TcpListener::bind(address) {
            Ok(_) => None,
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                Some(format!("{key}: port {} is taken on {}", address.port(), address.ip()))
            }
            Err(error) => Some(format!("{key}: cannot listen on {address}: {error}")),
        })
        .collect();
    if taken.is_empty() { Ok(()) } else { Err(taken.join("\n  ")) }
}
