//! Everything that a measurement needs, in one program, because linking one takes a minute: the
//! work on the route table that is counted, the container's program, the edge with 100,000 routes,
//! clients. The scripts beside it run it, each part in a process of its own.

mod clients;
mod count;
mod edge;
mod origin;

use std::{error::Error, io::Write, path::Path};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// As in the binary that is measured.
#[expect(
    unsafe_code,
    reason = "jemalloc finds its settings by this symbol, which is read and never written"
)]
#[unsafe(export_name = "_rjem_malloc_conf")]
static ALLOCATOR_SETTINGS: &[u8] = b"experimental_tcache_gc:false\0";

/// Why something did not work.
type Failed = Box<dyn Error + Send + Sync>;
type Outcome = Result<(), Failed>;

const USAGE: &str = "\
gantry-bench count WORK CONTAINERS TIMES         parse|lookup|miss|request|time|memory;
                                                 head, of so many fields; decide, for
                                                 so many groups
gantry-bench certificates DIRECTORY              write ca.pem, leaf.pem and leaf.key
gantry-bench hostnames                           print the hostnames of all routes
gantry-bench origin ADDRESS                      the container's program
gantry-bench edge ADDRESS CONTAINER DIRECTORY    one worker of the edge on ports 8080 and 8443
gantry-bench requests plain GATE ADDRESS COUNT   one connection, one request after the other
gantry-bench requests tls GATE ADDRESS COUNT CA  to the container that is `guarded` or `open`
gantry-bench handshakes ADDRESS COUNT CA         full handshakes over TLS 1.3 without a request
gantry-bench idle http ADDRESS COUNT CA          connections over TLS that wait after one request
gantry-bench idle websocket ADDRESS COUNT CA     WebSockets over TLS that wait
gantry-bench latency plain ADDRESS RATE SECONDS  requests at a fixed rate; prints percentiles
gantry-bench latency tls ADDRESS RATE SECONDS CA
";

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *arguments {
        ["count", work, containers, times] => count::run(work, containers.parse()?, times.parse()?),
        ["certificates", directory] => edge::certificates(Path::new(directory)),
        ["hostnames"] => edge::hostnames(),
        ["origin", address] => origin::run(address.parse()?),
        ["edge", address, container, directory] => {
            edge::run(address.parse()?, container.parse()?, Path::new(directory))
        }
        ["requests", "plain", gate, address, count] => {
            let stream = clients::plain(address.parse()?)?;
            clients::requests(stream, gate.parse()?, count.parse()?)
        }
        ["requests", "tls", gate, address, count, ca] => {
            let tls = clients::Tls::new(Path::new(ca))?;
            clients::requests(tls.connect(address.parse()?)?, gate.parse()?, count.parse()?)
        }
        ["handshakes", address, count, ca] => {
            clients::handshakes(address.parse()?, count.parse()?, Path::new(ca))
        }
        ["idle", kind @ ("http" | "websocket"), address, count, ca] => {
            clients::idle(kind, address.parse()?, count.parse()?, Path::new(ca))
        }
        ["latency", "plain", address, rate, seconds] => {
            clients::latency(address.parse()?, rate.parse()?, seconds.parse()?, None)
        }
        ["latency", "tls", address, rate, seconds, ca] => {
            clients::latency(address.parse()?, rate.parse()?, seconds.parse()?, Some(Path::new(ca)))
        }
        _ => Ok(write!(std::io::stderr(), "{USAGE}")?),
    }
}
