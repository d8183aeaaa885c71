//! From the name in a request to its route, and whether the request may pass.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gantry_benches::{
    container_id, domain, hostname, policy, project_id, servers, snapshot, table,
};
use gantry_model::{
    Hostname, RouteKey,
    access::{Caller, GroupSet, Program},
};
use gantry_router::RouteTable;

/// As in the binary that is measured.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn parse(c: &mut Criterion) {
    let domain = domain();
    let canonical = hostname(7);
    let port = canonical.replace("terminal-1", "https-65535");
    let mut group = c.benchmark_group("parse");
    for (name, host) in [
        ("canonical", format!("{canonical}:8443")),
        ("port", format!("{port}:8443")),
        ("exec_sub", format!("scripts.{}", canonical.replace("terminal-1", "exec-1"))),
        ("alias", "my-app.local.containers.gantry.localhost".to_owned()),
        ("api", "api.gantry.localhost:8443".to_owned()),
        ("custom", "www.example.com".to_owned()),
        ("upper_case", canonical.to_uppercase()),
        ("refused", canonical.replace("terminal-1", "terminal-x")),
    ] {
        group.bench_function(name, |b| {
            b.iter(|| {
                let (host, port) = Hostname::parse_authority(black_box(&host)).ok()?;
                black_box(RouteKey::parse(&host, &domain).is_ok().then_some(port))
            });
        });
    }
    group.finish();
}

/// Container numbers in an order that the cache cannot follow.
fn shuffled(count: u64) -> Vec<u64> {
    (0..100_000).map(|step: u64| step.wrapping_mul(0x9e37_79b9_7f4a_7c15) % count).collect()
}

fn lookup(c: &mut Criterion) {
    let mut group = c.benchmark_group("route_table/lookup");
    group.throughput(Throughput::Elements(1));
    for count in [100, 10_000, 1_000_000] {
        let table = table(count);
        let keys: Vec<_> = shuffled(count)
            .into_iter()
            .map(|number| (project_id(number), container_id(number)))
            .collect();
        let mut next = keys.iter().cycle();
        group.bench_function(BenchmarkId::new("hit", count), |b| {
            b.iter(|| next.next().map(|(project, container)| table.lookup(*project, *container)));
        });
        let mut number = count;
        group.bench_function(BenchmarkId::new("miss", count), |b| {
            b.iter(|| {
                number += 1;
                table.lookup(project_id(number), container_id(number))
            });
        });
    }
    group.finish();
}

fn build(c: &mut Criterion) {
    let mut group = c.benchmark_group("route_table/build");
    group.sample_size(10);
    for count in [10_000, 1_000_000] {
        let (snapshot, servers) = (snapshot(count), servers());
        group.throughput(Throughput::Elements(count));
        group.bench_function(BenchmarkId::from_parameter(count), |b| {
            b.iter(|| RouteTable::build(&snapshot, &servers));
        });
    }
    group.finish();
}

/// Which groups are worth checking, and what becomes of a request by a sender of this many of them.
fn decide(c: &mut Criterion) {
    let mut group = c.benchmark_group("decide");
    for groups in [1, 8, 64] {
        let Some(policy) = policy(groups) else { continue };
        let all = GroupSet::first(groups);
        for (who, matched, caller) in
            [("nobody", GroupSet::EMPTY, Caller::Unknown), ("member", all, Caller::Known)]
        {
            group.bench_function(BenchmarkId::new(who, groups), |b| {
                b.iter(|| {
                    let (program, number) = black_box((Program::HTTP, Some(3000)));
                    black_box(policy.wants(program, number));
                    policy.decide(program, number, black_box(matched), caller)
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, parse, lookup, build, decide);
criterion_main!(benches);
