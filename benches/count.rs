//! Does one piece of work a given number of times, for a program that counts its instructions:
//! `gantry-count <work> <containers> <times>`. See `check-instructions`.
//!
//! With the work `memory` it says what the table of that many containers costs instead, and how
//! much the lookups of all of them allocate.

use std::{
    env,
    hint::black_box,
    io::{self, Write as _},
    process::ExitCode,
};

use gantry_benches::{container_id, domain, hostname, project_id, table};
use gantry_model::{Hostname, RouteKey};

/// As in the binary that is measured.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How many different names and ids the work goes through.
const VARIETY: u64 = 1024;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [work, containers, times] = arguments.as_slice() else { return usage() };
    let (Ok(containers), Ok(times)) = (containers.parse(), times.parse()) else { return usage() };
    match work.as_str() {
        "parse" => parse(times),
        "lookup" => lookup(containers, times, 0),
        "miss" => lookup(containers, times, containers),
        "request" => request(containers, times),
        "memory" => return memory(containers).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS),
        _ => return usage(),
    }
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    let text = "usage: gantry-count parse|lookup|miss|request|memory <containers> <times>";
    drop(writeln!(io::stderr(), "{text}"));
    ExitCode::from(2)
}

/// From the octets of `Host` to what they name.
fn parse(times: u64) {
    let domain = domain();
    let hosts: Vec<String> =
        (0..VARIETY).map(|number| format!("{}:8443", hostname(number))).collect();
    for (_, host) in (0..times).zip(hosts.iter().cycle()) {
        if let Ok((host, _)) = Hostname::parse_authority(black_box(host)) {
            black_box(RouteKey::parse(&host, &domain).is_ok());
        }
    }
}

/// Numbers of containers, spread over a table of this many.
fn spread(containers: u64) -> impl Iterator<Item = u64> {
    let stride = (containers / VARIETY).max(1);
    (0..VARIETY).map(move |step| step * stride % containers.max(1))
}

/// From two ids to the route; `offset` is added to the number of each container asked for.
fn lookup(containers: u64, times: u64, offset: u64) {
    let table = table(containers);
    let keys: Vec<_> = spread(containers)
        .map(|number| number + offset)
        .map(|number| (project_id(number), container_id(number)))
        .collect();
    let mut found = 0_u64;
    for (_, (project, container)) in (0..times).zip(keys.iter().cycle()) {
        found +=
            u64::from(black_box(table.lookup(*black_box(project), *black_box(container))).is_ok());
    }
    black_box(found);
}

/// Both in a row, as a request does it.
fn request(containers: u64, times: u64) {
    let (domain, table, mut found) = (domain(), table(containers), 0_u64);
    let hosts: Vec<String> =
        spread(containers).map(|number| format!("{}:8443", hostname(number))).collect();
    for (_, host) in (0..times).zip(hosts.iter().cycle()) {
        if let Ok((host, _)) = Hostname::parse_authority(black_box(host))
            && let Ok(RouteKey::Container { project, container, .. }) =
                RouteKey::parse(&host, &domain)
        {
            found += u64::from(black_box(table.lookup(project, container)).is_ok());
        }
    }
    black_box(found);
}

/// Prints the octets that a table takes for each container, and those that lookups allocate.
fn memory(containers: u64) -> Option<()> {
    use tikv_jemalloc_ctl::{epoch, stats, thread};
    let allocated = || {
        epoch::advance().ok()?;
        stats::allocated::read().ok()
    };
    let hosts: Vec<String> = spread(containers).map(hostname).collect();
    let domain = domain();
    let before = allocated()?;
    let table = table(containers);
    let table_bytes = allocated()?.saturating_sub(before);
    // The first lookup of a thread registers it with the map.
    let first = table.lookup(project_id(0), container_id(0));
    let counter = thread::allocatedp::read().ok()?;
    let start = counter.get();
    let mut found = u64::from(first.is_ok());
    for (_, host) in (0..containers).zip(hosts.iter().cycle()) {
        if let Ok((host, _)) = Hostname::parse_authority(black_box(host))
            && let Ok(RouteKey::Container { project, container, .. }) =
                RouteKey::parse(&host, &domain)
        {
            found += u64::from(table.lookup(project, container).is_ok());
        }
    }
    let lookup_bytes = counter.get() - start;
    let each = table_bytes as u64 / containers.max(1);
    writeln!(
        io::stdout(),
        "containers {containers}\ntable_bytes {table_bytes}\nbytes_per_container {each}\n\
         found {found}\nlookup_bytes_allocated {lookup_bytes}"
    )
    .ok()
}
