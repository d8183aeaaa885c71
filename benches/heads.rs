//! From the octets of a request's head to a request, by the edge's own codec of HTTP/1.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gantry_benches::head;
use gantry_proxy::HeadReader;

/// As in the binary that is measured.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn heads(c: &mut Criterion) {
    let mut group = c.benchmark_group("head");
    let large = head(7, 100);
    for (name, text) in [
        ("1_field", head(7, 1)),
        ("8_fields", head(7, 8)),
        ("32_fields", head(7, 32)),
        ("100_fields", large.clone()),
        (
            "body",
            head(7, 8).replacen("GET ", "POST ", 1).replacen(
                "X-Own:",
                "Content-Length: 5\r\nX:",
                1,
            ),
        ),
        ("refused_at_its_end", large.replacen("\r\n\r\n", "\r\nTransfer-Encoding: x\r\n\r\n", 1)),
        ("not_whole", large.get(..large.len() - 2).unwrap_or_default().to_owned()),
    ] {
        let mut reader = HeadReader::default();
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter(|| reader.reads(black_box(text.as_bytes())));
        });
    }
    group.finish();
}

criterion_group!(benches, heads);
criterion_main!(benches);
