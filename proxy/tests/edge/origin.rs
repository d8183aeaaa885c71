//! A container's program, as tests need one: it speaks HTTP/1.1 by hand, remembers every octet that
//! reached it, and answers as it is told.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

/// One request, as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// The head with its last empty line.
    pub(crate) head: String,
    /// The body without its framing, trailers at the end of a chunked one.
    pub(crate) body: Vec<u8>,
}

impl Seen {
    /// All values of a field.
    pub(crate) fn values(&self, name: &str) -> Vec<&str> {
        self.head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .filter(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
            .collect()
    }

    /// The method and the target.
    pub(crate) fn line(&self) -> &str {
        self.head.lines().next().unwrap()
    }
}

type Answer = dyn Fn(&Seen, &mut TcpStream) + Send + Sync;

struct Shared {
    seen: Mutex<Vec<Seen>>,
    changed: Condvar,
    connections: AtomicUsize,
    closed: AtomicUsize,
    stopped: AtomicBool,
    answer: Box<Answer>,
}

/// A listening program; it stops when dropped.
pub(crate) struct Origin {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// Accepts; gone when it is dropped.
    thread: Option<JoinHandle<()>>,
}

impl Origin {
    /// Listens, and answers each request by `answer`.
    pub(crate) fn start(
        address: SocketAddr,
        answer: impl Fn(&Seen, &mut TcpStream) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            seen: Mutex::default(),
            changed: Condvar::new(),
            connections: AtomicUsize::new(0),
            closed: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
            answer: Box::new(answer),
        });
        let accepting = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&accepting);
                shared.connections.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    serve(&shared, stream.unwrap());
                    shared.closed.fetch_add(1, Ordering::SeqCst);
                    shared.changed.notify_all();
                });
            }
        });
        Self { address, shared, thread: Some(thread) }
    }

    /// Answers 200 with a small text.
    pub(crate) fn simple(address: SocketAddr) -> Self {
        Self::start(address, |seen, stream| {
            if seen.line().starts_with("HEAD ") {
                send(stream, "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n");
            } else {
                reply(stream, "content-type: text/plain", "hello\n");
            }
        })
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// The last request; there must be one.
    pub(crate) fn last(&self) -> Seen {
        self.seen().last().cloned().expect("the container saw a request")
    }

    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Waits until so many connections have ended.
    pub(crate) fn wait_closed(&self, count: usize) {
        self.wait(|shared, _| shared.closed.load(Ordering::SeqCst) >= count);
    }

    /// Waits until so many requests came.
    pub(crate) fn wait_seen(&self, count: usize) {
        self.wait(|_, seen| seen.len() >= count);
    }

    fn wait(&self, done: impl Fn(&Shared, &[Seen]) -> bool) {
        let seen = self.shared.seen.lock().unwrap();
        let (seen, waited) = self
            .shared
            .changed
            .wait_timeout_while(seen, Duration::from_secs(10), |seen| !done(&self.shared, seen))
            .unwrap();
        drop(seen);
        assert!(!waited.timed_out(), "the container did not see what was expected");
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the accept loop, which then ends and frees the address: the next one may want it at once.
        if TcpStream::connect(self.address).is_ok()
            && let Some(thread) = self.thread.take()
        {
            drop(thread.join());
        }
    }
}

/// Writes a 200 with a length.
pub(crate) fn reply(stream: &mut TcpStream, fields: &str, body: &str) {
    let length = body.len();
    let fields = if fields.is_empty() { String::new() } else { format!("{fields}\r\n") };
    send(stream, format!("HTTP/1.1 200 OK\r\n{fields}content-length: {length}\r\n\r\n{body}"));
}

/// Writes octets; a client that has left is no error here.
pub(crate) fn send(stream: &mut TcpStream, octets: impl AsRef<[u8]>) {
    drop(stream.write_all(octets.as_ref()));
}

fn serve(shared: &Shared, mut stream: TcpStream) {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut buffer = Vec::new();
    while let Some(seen) = read_request(&mut stream, &mut buffer) {
        let mut all = shared.seen.lock().unwrap();
        all.push(seen.clone());
        drop(all);
        shared.changed.notify_all();
        (shared.answer)(&seen, &mut stream);
        if seen.values("connection").iter().any(|value| value.contains("close")) {
            return;
        }
    }
}

/// Reads one request as plainly as a program can; nothing when the connection ends.
fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Seen> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        fill(stream, buffer)?;
    };
    let head = String::from_utf8_lossy(&buffer.drain(..end).collect::<Vec<_>>()).into_owned();
    let mut seen = Seen { head, body: Vec::new() };
    let length = seen.values("content-length").first().map(|text| text.parse().unwrap());
    if let Some(length) = length {
        while buffer.len() < length {
            fill(stream, buffer)?;
        }
        seen.body = buffer.drain(..length).collect();
    } else if !seen.values("transfer-encoding").is_empty() {
        seen.body = read_chunks(stream, buffer)?;
    }
    Some(seen)
}

fn read_chunks(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let size = usize::from_str_radix(&read_line(stream, buffer)?, 16).unwrap();
        if size == 0 {
            loop {
                let trailer = read_line(stream, buffer)?;
                if trailer.is_empty() {
                    return Some(body);
                }
                body.extend_from_slice(trailer.as_bytes());
            }
        }
        while buffer.len() < size + 2 {
            fill(stream, buffer)?;
        }
        body.extend(buffer.drain(..size));
        buffer.drain(..2);
    }
}

fn read_line(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(at) = buffer.windows(2).position(|two| two == b"\r\n") {
            let line: Vec<u8> = buffer.drain(..at + 2).collect();
            return Some(String::from_utf8_lossy(&line[..at]).into_owned());
        }
        fill(stream, buffer)?;
    }
}

fn fill(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    let mut chunk = [0; 16 * 1024];
    match stream.read(&mut chunk) {
        Ok(0) | Err(_) => None,
        Ok(count) => {
            buffer.extend_from_slice(&chunk[..count]);
            Some(())
        }
    }
}
