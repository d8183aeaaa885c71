//! Benchmarks: the fixtures they share.
//!
//! Everything is derived from a number, so that two runs measure the same work.

use std::net::{IpAddr, Ipv4Addr};

use gantry_model::{
    ContainerId, Domain, Generation, Phase, ProjectId, RouteKey, ServerId, Service, Target,
    access::{Document, Policy},
};
use gantry_router::{RouteTable, Servers};
use gantry_store::{Epoch, Revision, RouteRecord, RouteSnapshot};
use serde_json::{Map, Value, json};

/// How many containers one step of [`grown_table`] adds; keeps the fixture itself small.
const STEP: u64 = 10_000;

/// The domain of all fixtures.
pub fn domain() -> Domain {
    match "gantry.localhost".parse() {
        Ok(domain) => domain,
        Err(error) => unreachable_fixture(&error),
    }
}

/// The id of the container with this number; ids look random, as real ones do.
pub fn container_id(number: u64) -> ContainerId {
    ContainerId::from_bytes(scatter(number))
}

/// The id of the project of the container with this number; each has one of its own.
pub fn project_id(number: u64) -> ProjectId {
    ProjectId::from_bytes(scatter(!number))
}

/// The server of all containers.
pub const SERVER: ServerId = ServerId::from_bytes([1; 12]);

/// That one alone, under the name that hostnames here carry.
pub fn servers() -> Servers {
    match "local".parse() {
        Ok(name) => Servers::new([(SERVER, name)]),
        Err(error) => unreachable_fixture(&error),
    }
}

/// The canonical hostname of the first terminal of a container.
pub fn hostname(number: u64) -> String {
    let key = RouteKey::Container {
        server: "local",
        project: project_id(number),
        container: container_id(number),
        target: Target::Kit { service: Service::Terminal, index: 1, sub: None },
    };
    key.to_hostname(&domain())
}

/// A table with the running containers 0 to `count`, as a start of the edge builds it.
pub fn table(count: u64) -> RouteTable {
    RouteTable::build(&snapshot(count), &servers())
}

/// The same table, grown change by change from an empty one.
pub fn grown_table(count: u64) -> RouteTable {
    let snapshot =
        RouteSnapshot { epoch: Epoch([0; 16]), revision: Revision(0), containers: Vec::new() };
    let table = RouteTable::build(&snapshot, &servers());
    let mut start = 0;
    while start < count {
        let end = count.min(start + STEP);
        let records: Vec<_> =
            (start..end).map(|number| (container_id(number), Some(record(number)))).collect();
        table.apply(&records, Revision(end));
        start = end;
    }
    table
}

/// A snapshot with the running containers 0 to `count`, as a start of the edge loads it.
pub fn snapshot(count: u64) -> RouteSnapshot {
    let containers = (0..count).map(record).collect();
    RouteSnapshot { epoch: Epoch([0; 16]), revision: Revision(count), containers }
}

/// A policy with this many groups, each of which opens port 3000 to whoever has its token; without one
/// a request passes by the default.
pub fn policy(groups: usize) -> Option<Policy> {
    let names: Vec<String> = (0..groups).map(|number| format!("group-{number}")).collect();
    let each = |value: &dyn Fn(&String) -> Value| {
        names.iter().map(|name| (name.clone(), value(name))).collect::<Map<_, _>>()
    };
    let document = json!({
        "groups": each(&|name| json!({"type": "token", "header": "X-Key", "value": name})),
        "permissions": each(&|_| json!({"http": 3000})),
        "default": "allow",
    });
    let document = Document::parse(&document, None, &mut String::new).ok()?;
    Policy::merge(None, Some(&document))
}

/// The head of a request for a container, with so many fields, of lengths as those of browsers.
pub fn head(number: u64, fields: u64) -> String {
    let mut head =
        format!("GET /some/path?a=1&b=2 HTTP/1.1\r\nHost: {}:8443\r\n", hostname(number));
    let usual = [
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        "Accept-Language: en-US,en;q=0.5",
        "Accept-Encoding: gzip, deflate, br, zstd",
        "Cookie: theme=dark; visits=17",
        "Sec-Fetch-Dest: document",
        "X-Own: of an application",
    ];
    for (field, copy) in usual.iter().cycle().zip(1..fields) {
        // None stands twice.
        let (name, value) = field.split_once(':').unwrap_or((field, ""));
        let again = if copy > 7 { format!("-{copy}") } else { String::new() };
        head.extend([name, &again, ":", value, "\r\n"]);
    }
    head.push_str("\r\n");
    head
}

fn record(number: u64) -> RouteRecord {
    // The lower 16 bits of the number, in 10.88.0.0/16.
    let [.., high, low] = number.to_be_bytes();
    RouteRecord {
        container: container_id(number),
        project: project_id(number),
        server: SERVER,
        hoody_kit: true,
        ssh_key: None,
        ssh_forwarding: true,
        phase: Phase::Running,
        address: Some(IpAddr::V4(Ipv4Addr::new(10, 88, high, low))),
        generation: Generation(1),
        started_at_ms: Some(1_790_000_000_000),
        why_failed: false,
        edge: None,
    }
}

/// Twelve octets that look random and differ for each number (splitmix64, twice).
fn scatter(number: u64) -> [u8; 12] {
    let mix = |mut value: u64| {
        value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    };
    let (first, second) = (mix(number), mix(mix(number)));
    let mut bytes = [0; 12];
    let (head, tail) = bytes.split_at_mut(8);
    head.copy_from_slice(&first.to_be_bytes());
    for (octet, from) in tail.iter_mut().zip(second.to_be_bytes()) {
        *octet = from;
    }
    bytes
}

#[expect(clippy::panic, reason = "a fixture that is wrong has nothing to measure")]
fn unreachable_fixture(error: &dyn std::error::Error) -> ! {
    panic!("fixture: {error}")
}
