//! Bodies far larger than what the edge may keep of them, both ways and by every version of HTTP. The
//! side that takes them takes nothing at first: whoever buffers shows it then.
//!
//! Edge, container and test are one process, whose memory the kernel counts. `LARGE_MEGABYTES` makes
//! the bodies larger (2560 are 5 GiB in all by one version of HTTP).

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use gantry_model::Phase;

use crate::{
    bed::{Bed, CONTAINER, host},
    origin::send,
    python,
};

const MIB: u64 = 1 << 20;
/// How much the whole process may grow while a body passes.
const GROWN_MAX: u64 = 12 * MIB;
/// What may be under way while nobody takes it: the buffers of two connections in the kernel, in both
/// directions, and the edge's own.
const UNDER_WAY_MAX: u64 = 32 * MIB;
/// How often one side is looked at for whether it still moves.
const LOOK: Duration = Duration::from_millis(100);

/// The octets of a body that goes one way; the client of HTTP/3 is slow at everything.
fn size() -> u64 {
    sized(128)
}

fn size_of_http3() -> u64 {
    sized(20)
}

fn sized(usual: u64) -> u64 {
    let set = std::env::var_os("LARGE_MEGABYTES");
    set.map_or(usual, |set| set.to_str().unwrap().parse().unwrap()) * MIB
}

/// The memory of this process from now on.
struct Memory(u64);

impl Memory {
    fn now() -> Self {
        // Has the kernel forget the most that it was.
        fs::write("/proc/self/clear_refs", "5").unwrap();
        Self(Self::read("VmRSS:"))
    }

    fn read(name: &str) -> u64 {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
    }

    /// The process has never been much larger than at the beginning.
    fn was_constant(&self, what: &str) {
        let grown = Self::read("VmHWM:").saturating_sub(self.0);
        eprintln!("{what}: grown by {} KiB", grown / 1024);
        assert!(grown < GROWN_MAX, "{what}: grown by {grown}");
    }
}

/// How far a side has come.
type Moved = Arc<AtomicU64>;

/// Waits until something has moved and no more does; says how much.
fn stalled(moved: &Moved) -> u64 {
    let end = Instant::now() + Duration::from_secs(30);
    let (mut before, mut quiet) = (0, 0);
    while quiet < 3 {
        assert!(Instant::now() < end, "it never ends to move");
        std::thread::park_timeout(LOOK);
        let now = moved.load(Ordering::SeqCst);
        quiet = if now == before && now > 0 { quiet + 1 } else { 0 };
        before = now;
    }
    before
}

/// Sends so many octets, and counts them.
fn pour(to: &mut impl Write, size: u64, moved: &Moved) {
    let piece = vec![0; 64 * 1024];
    while moved.load(Ordering::SeqCst) < size {
        to.write_all(&piece).unwrap();
        moved.fetch_add(64 * 1024, Ordering::SeqCst);
    }
}

/// Takes octets until no more come or the last ones are `end`; says how many came.
fn drain(from: &mut impl Read, end: &[u8]) -> u64 {
    let mut piece = vec![0; 256 * 1024];
    let (mut count, mut tail) = (0, Vec::new());
    loop {
        let read = from.read(&mut piece).unwrap();
        count += u64::try_from(read).unwrap();
        tail.extend_from_slice(&piece[read.saturating_sub(end.len())..read]);
        tail.drain(..tail.len().saturating_sub(end.len()));
        if read == 0 || (!end.is_empty() && tail == end) {
            return count;
        }
    }
}

/// A listening container that the test itself speaks for.
fn container(bed: &Bed) -> TcpListener {
    bed.set(CONTAINER, Phase::Running, 1);
    TcpListener::bind(SocketAddr::new(bed.container_address(2), 3000)).unwrap()
}

/// The next connection to it, and the head of its first request.
fn accept(listener: &TcpListener) -> (TcpStream, String) {
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let (mut head, mut octet) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut octet).unwrap();
        head.extend(octet);
    }
    (stream, String::from_utf8(head).unwrap())
}

/// Starts curl; nothing if there is none here.
fn curl(bed: &Bed, arguments: &[&str]) -> Option<Child> {
    let (address, name) = (bed.https(), host(CONTAINER, "http-3000"));
    let child = Command::new("curl")
        .args(["--silent", "--show-error", "--no-buffer", "--connect-to", &format!("::{address}")])
        .arg("--cacert")
        .arg(&bed.ca_path)
        .args(arguments)
        .arg(format!("https://{name}:{}/", address.port()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    child.inspect_err(|error| eprintln!("not run, curl: {error}")).ok()
}

/// What a container does with an upload: nothing until nothing moves, then everything.
fn take(listener: &TcpListener, moved: &Moved) -> u64 {
    let (mut stream, head) = accept(listener);
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    let under_way = stalled(moved);
    assert!(under_way < UNDER_WAY_MAX, "{under_way} were taken for a container that takes nothing");
    let count = drain(&mut stream, b"\r\n0\r\n\r\n");
    send(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nall\n");
    count
}

fn uploads(number: u8, version: &'static str) {
    let bed = Bed::new(number);
    let listener = container(&bed);
    let memory = Memory::now();
    let Some(mut curl) = curl(&bed, &[version, "--upload-file", "-"]) else { return };
    let moved = Moved::default();
    let mut input = curl.stdin.take().unwrap();
    let counted = Arc::clone(&moved);
    let pouring = std::thread::spawn(move || pour(&mut input, size(), &counted));
    let came = take(&listener, &moved);
    // And how the pieces are told from one another.
    assert!((size()..size() + size() / 50).contains(&came), "{came}");
    pouring.join().unwrap();
    let output = curl.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(output.stdout, b"all\n");
    memory.was_constant(&format!("{} MiB up by {version}", size() / MIB));
}

/// Has a container pour a body into the next request's answer.
fn giving(listener: TcpListener, size: u64, moved: &Moved) -> std::thread::JoinHandle<()> {
    let moved = Arc::clone(moved);
    std::thread::spawn(move || {
        let (mut stream, _) = accept(&listener);
        send(&mut stream, format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n"));
        pour(&mut stream, size, &moved);
    })
}

fn downloads(number: u8, version: &'static str) {
    let bed = Bed::new(number);
    let moved = Moved::default();
    let memory = Memory::now();
    let pouring = giving(container(&bed), size(), &moved);
    let Some(mut curl) = curl(&bed, &[version]) else { return };
    let under_way = stalled(&moved);
    assert!(under_way < UNDER_WAY_MAX, "{under_way} were taken for a client that takes nothing");
    assert_eq!(drain(curl.stdout.as_mut().unwrap(), b""), size());
    assert!(curl.wait().unwrap().success());
    pouring.join().unwrap();
    memory.was_constant(&format!("{} MiB down by {version}", size() / MIB));
}

#[test]
fn a_large_upload_by_http1_is_never_in_memory() {
    uploads(1, "--http1.1");
}

#[test]
fn a_large_upload_by_http2_is_never_in_memory() {
    uploads(2, "--http2");
}

#[test]
fn a_large_download_by_http1_is_never_in_memory() {
    downloads(3, "--http1.1");
}

#[test]
fn a_large_download_by_http2_is_never_in_memory() {
    downloads(4, "--http2");
}

#[test]
fn a_large_upload_by_http3_is_never_in_memory() {
    let (bed, size) = (Bed::new(5), size_of_http3());
    let listener = container(&bed);
    let name = host(CONTAINER, "http-3000");
    let memory = Memory::now();
    let client = python::ask(&bed, "http3_client.py", &name, &["uploads", &size.to_string()]);
    let Some(mut client) = client else { return };
    let (mut stream, _) = accept(&listener);
    // It says so when the edge takes no more of it.
    let under_way: u64 = client.line().parse().unwrap();
    assert!(under_way < UNDER_WAY_MAX, "{under_way} were taken for a container that takes nothing");
    let came = drain(&mut stream, b"\r\n0\r\n\r\n");
    assert!((size..size + size / 10).contains(&came), "{came}");
    send(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nall\n");
    client.ends();
    memory.was_constant(&format!("{} MiB up by HTTP/3", size / MIB));
}

#[test]
fn a_large_download_by_http3_is_never_in_memory() {
    let (bed, size) = (Bed::new(6), size_of_http3());
    let moved = Moved::default();
    let memory = Memory::now();
    let pouring = giving(container(&bed), size, &moved);
    let name = host(CONTAINER, "http-3000");
    let client = python::ask(&bed, "http3_client.py", &name, &["downloads", &size.to_string()]);
    let Some(mut client) = client else { return };
    client.says("taking nothing");
    let under_way = stalled(&moved);
    assert!(under_way < UNDER_WAY_MAX, "{under_way} were taken for a client that takes nothing");
    client.go_on();
    client.ends();
    pouring.join().unwrap();
    memory.was_constant(&format!("{} MiB down by HTTP/3", size / MIB));
}
