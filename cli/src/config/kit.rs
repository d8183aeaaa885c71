//! Where Kit services listen in containers: the section `kit`.

use figment::value::Value;
use gantry_kit::{Entry, PortRule};
use gantry_model::{Scheme, Service};
use gantry_proxy::{KitPort, KitPorts};

use super::reader::{Reader, integer};

const RULE: &str = "must be a port from 1 to 65535, or \"<port>+n\" for a port of each index";

/// Reads the section.
pub(super) fn read(reader: &mut Reader<'_>) -> Option<KitPorts> {
    let mut taken: Vec<(Service, KitPort)> = Vec::new();
    // Where every container has something else, or where `http` and `https` lead.
    let others =
        [(22, "SSH"), (80, "http"), (443, "https"), (gantry_kit::WELCOME_PORT, "the welcome page")];
    let mut is_whole = true;
    for entry in gantry_kit::catalogue().iter().filter(|entry| is_configured(entry.service)) {
        let service = entry.service;
        let key = format!("kit.{}", service.name());
        let Some(port) = reader.key(&key, |value| port(entry, value)) else {
            is_whole = false;
            continue;
        };
        let meets =
            taken.iter().find(|(other, at)| overlap(range(*other, *at), range(service, port)));
        if let Some((other, _)) = meets {
            let rule = format!("is a port that kit.{} has, too", other.name());
            let origin = reader.origin_of(&key);
            reader.problem(&origin, &key, rule);
        }
        let has = |(other, _): &&(u16, &str)| overlap((*other, *other), range(service, port));
        if let Some((other, what)) = others.iter().find(has) {
            let origin = reader.origin_of(&key);
            reader.problem(&origin, &key, format!("holds port {other}, which is that of {what}"));
        }
        taken.push((service, port));
    }
    let of = |service| taken.iter().find(|(other, _)| *other == service).map(|(_, port)| *port);
    is_whole.then(|| KitPorts::new(|service| of(service).unwrap_or_else(|| usual(service))))
}

/// How a service is reached where nobody says otherwise.
pub(super) fn usual(service: Service) -> KitPort {
    let entry = gantry_kit::entry(service);
    let (port, per_index) = match entry.port {
        PortRule::Shared(port) => (port, false),
        PortRule::Each { first, .. } => (first, true),
    };
    let scheme = match entry.scheme {
        gantry_kit::Scheme::Http => Scheme::Http,
    };
    KitPort { provided: entry.provided, scheme, port, per_index }
}

/// Whether a service has a port of its own. A desktop is asked of the terminal, and logs of the edge.
fn is_configured(service: Service) -> bool {
    !matches!(service, Service::Desktop | Service::Logs)
}

/// What of the Kit is told to listen elsewhere is no program of ours: nothing starts it.
fn port(entry: &Entry, value: &Value) -> Result<KitPort, String> {
    let usual = usual(entry.service);
    let (port, per_index) = match value.as_str() {
        Some(text) => (text.strip_suffix("+n").and_then(|port| port.parse().ok()), true),
        None => (integer(value).and_then(|port| u16::try_from(port).ok()), false),
    };
    let port = port.filter(|port| *port > 0).ok_or(RULE)?;
    let is_usual = (port, per_index) == (usual.port, usual.per_index);
    Ok(KitPort { provided: usual.provided && is_usual, port, per_index, ..usual })
}

/// The first and the last port.
fn range(service: Service, kit: KitPort) -> (u16, u16) {
    let last = kit.of(service.index_max()).unwrap_or(u16::MAX);
    (kit.of(service.index_min()).unwrap_or(u16::MAX), last)
}

const fn overlap(one: (u16, u16), other: (u16, u16)) -> bool {
    one.0 <= other.1 && other.0 <= one.1
}
