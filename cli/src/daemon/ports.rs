//! Tells a taken port before anything is started.
//!
//! The edge listens with `SO_REUSEPORT`, one socket per core, so a second Gantry of the same user
//! would quietly share the port with the first. A socket without it cannot.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use crate::config::EdgeConfig;

/// How long the ports of HTTP/3 are waited for.
const HTTP3_WAIT: Duration = Duration::from_secs(10);
/// How often it is looked; the system tells nobody when a port becomes free.
const HTTP3_LOOK: Duration = Duration::from_millis(50);

/// Waits until nobody has the UDP ports of HTTP/3 any more: one whose successor has crashed gives them up, and
/// says so to nobody. Whoever has them for longer keeps them; the edge then serves without HTTP/3, and says so.
pub(super) async fn wait_for_http3(edge: &EdgeConfig) {
    if !edge.http3 {
        return;
    }
    let free = async {
        let mut look = tokio::time::interval(HTTP3_LOOK);
        for address in &edge.https {
            while gantry_proxy::http3_port_is_taken(*address) {
                look.tick().await;
            }
        }
    };
    // The edge tells of those that are taken still.
    drop(tokio::time::timeout(HTTP3_WAIT, free).await);
}

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
