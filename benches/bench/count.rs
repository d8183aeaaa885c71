//! Does one piece of work on hostnames, the route table and permissions a given number of times, for a program
//! that counts its instructions. See `check-instructions`.
//!
//! With the work `time` it measures the lookups of that many runs of 64 by the clock. With
//! `memory` it says what the table of that many containers costs instead, and how
//! much the lookups of all of them allocate.

use std::{
    hint::black_box,
    io::{self, Write as _},
    time::Instant,
};

use gantry_benches::{
    container_id, domain, grown_table, head, hostname, policy, project_id, table,
};
use gantry_model::{
    Hostname, RouteKey,
    access::{Caller, Decision, GroupSet, Program},
};
use gantry_proxy::HeadReader;

use crate::Outcome;

/// How many different names and ids the work goes through.
const VARIETY: u64 = 1024;

/// Does `work` on a table of `containers`, `times` times.
pub(crate) fn run(work: &str, containers: u64, times: u64) -> Outcome {
    match work {
        "parse" => parse(times),
        "lookup" => lookup(containers, times, 0),
        "miss" => lookup(containers, times, containers),
        "request" => request(containers, times),
        "head" => heads(containers, times),
        "decide" => decide(times, usize::try_from(containers)?)?,
        "time" => time(containers, times).ok_or("nothing was measured")?,
        "memory" => memory(containers).ok_or("jemalloc does not say what it allocated")?,
        _ => return Err(format!("there is no work called {work}").into()),
    }
    Ok(())
}

/// The work whose instructions count. Not inlined: `check-instructions` knows it by its name.
#[inline(never)]
fn measured<K>(times: u64, keys: &[K], mut step: impl FnMut(&K) -> bool) {
    let mut found = 0_u64;
    for (_, key) in (0..times).zip(keys.iter().cycle()) {
        found += u64::from(step(black_box(key)));
    }
    black_box(found);
}

/// Numbers of containers, spread over a table of this many.
fn spread(containers: u64) -> impl Iterator<Item = u64> {
    let stride = (containers / VARIETY).max(1);
    (0..VARIETY).map(move |step| step * stride % containers.max(1))
}

/// What `Host` says for each of these containers.
fn authorities(containers: u64) -> Vec<String> {
    spread(containers).map(|number| format!("{}:8443", hostname(number))).collect()
}

/// From the octets of `Host` to what they name.
fn parse(times: u64) {
    let domain = domain();
    measured(times, &authorities(VARIETY), |host| {
        let Ok((host, _)) = Hostname::parse_authority(host) else { return false };
        black_box(RouteKey::parse(&host, &domain)).is_ok()
    });
}

/// From two ids to the route; `offset` is added to the number of each container asked for.
fn lookup(containers: u64, times: u64, offset: u64) {
    let table = table(containers);
    let numbers = spread(containers).map(|number| number + offset);
    let keys: Vec<_> = numbers.map(|number| (project_id(number), container_id(number))).collect();
    measured(times, &keys, |(project, container)| {
        black_box(table.lookup(*project, *container)).is_ok()
    });
}

/// Both in a row, as a request does it.
fn request(containers: u64, times: u64) {
    let (domain, table) = (domain(), table(containers));
    measured(times, &authorities(containers), |host| {
        let Ok((host, _)) = Hostname::parse_authority(host) else { return false };
        let Ok(RouteKey::Container { project, container, .. }) = RouteKey::parse(&host, &domain)
        else {
            return false;
        };
        black_box(table.lookup(project, container)).is_ok()
    });
}

/// From the octets of a head with so many fields to a request.
fn heads(fields: u64, times: u64) {
    let heads: Vec<String> = (0..VARIETY).map(|number| head(number, fields)).collect();
    let mut reader = HeadReader::default();
    measured(times, &heads, |head| reader.reads(head.as_bytes()));
}

/// Whether a request that proves nothing may pass by a policy of this many groups.
fn decide(times: u64, groups: usize) -> Outcome {
    let policy = policy(groups).ok_or("no policy")?;
    measured(times, &[(Program::HTTP, Some(3000))], |(program, number)| {
        black_box(policy.wants(*program, *number));
        policy.decide(*program, *number, GroupSet::EMPTY, Caller::Unknown) == Decision::Allow
    });
    Ok(())
}

/// Prints how long a lookup takes: of containers that no lookup before touched, and of a few that
/// many ask for. Beside it, what one access to as much memory costs here, since nothing that finds
/// one of that many containers can be faster than that.
fn time(containers: u64, runs: u64) -> Option<()> {
    const HOT: u64 = 4096;
    let table = table(containers);
    let time = |number: &dyn Fn(u64) -> u64| {
        median(runs, |run| {
            let keys: Vec<_> = (run * RUN..(run + 1) * RUN)
                .map(|step| number(step.wrapping_mul(0x9e37_79b9_7f4a_7c15)) % containers)
                .map(|number| (project_id(number), container_id(number)))
                .collect();
            let start = Instant::now();
            for (project, container) in &keys {
                black_box(&table.lookup(*project, *container));
            }
            start.elapsed().as_nanos()
        })
    };
    let cold = time(&|random| random)?;
    let hot = time(&|random| random % HOT)?;
    drop(table);
    let access = access(containers, runs)?;
    writeln!(io::stdout(), "cold_ns {cold}\nhot_ns {hot}\none_access_ns {access}").ok()
}

/// How many lookups one run of [`time()`] has.
const RUN: u64 = 64;

/// The median time of one step, in nanoseconds, over runs of [`RUN`] steps.
fn median(runs: u64, mut run: impl FnMut(u64) -> u128) -> Option<u128> {
    let mut times: Vec<u128> = (0..runs).map(&mut run).collect();
    times.sort_unstable();
    times.get(times.len() / 2).map(|time| time / u128::from(RUN))
}

/// The median time of reading one of `lines` cache lines when the one before says which.
fn access(lines: u64, runs: u64) -> Option<u128> {
    let lines = usize::try_from(lines).ok()?;
    // An odd stride visits every line of a power of two, in no order that the processor guesses.
    let mask = lines.next_power_of_two() - 1;
    let memory: Vec<[usize; 8]> = (0..=mask)
        .map(|at| [at.wrapping_mul(0x2545_f491_4f6c_dd1d).wrapping_add(97) & mask; 8])
        .collect();
    let mut at = 0;
    median(runs, |_| {
        let start = Instant::now();
        for _ in 0..RUN {
            at = memory.get(black_box(at)).map_or(0, |line| line[0]);
        }
        start.elapsed().as_nanos()
    })
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
    let table = grown_table(containers);
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
