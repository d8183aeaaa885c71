//! The container's program: a small answer to everything, `/octets/<n>` with so many octets, and
//! sockets that leave HTTP and say nothing.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
};

use crate::Outcome;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\
                        content-length: 14\r\n\r\nHello, world!\n";

/// The answer to the key of RFC 6455's example, the only one that the clients use.
const SWITCH: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                        Connection: Upgrade\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// The most octets of an answer.
const OCTETS_MAX: usize = 16 * 1024 * 1024;
/// Thousands of idle sockets have a thread each.
const STACK: usize = 128 * 1024;

/// Answers on `address` until it is killed.
pub(crate) fn run(address: SocketAddr) -> Outcome {
    let listener = TcpListener::bind(address)?;
    writeln!(std::io::stdout(), "ready")?;
    for stream in listener.incoming() {
        let stream = stream?;
        std::thread::Builder::new().stack_size(STACK).spawn(move || serve(stream))?;
    }
    Ok(())
}

fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 16 * 1024];
    let (mut large, mut size) = (Vec::new(), usize::MAX);
    let mut filled = 0;
    while let count @ 1.. = stream.read(buffer.get_mut(filled..).unwrap_or_default())? {
        filled += count;
        let head = buffer.get(..filled).unwrap_or_default();
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        if let Some(octets) = octets(head) {
            // A proxy uses one connection for all sizes.
            if size != octets {
                (large, size) = (Vec::new(), octets);
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {octets}\r\n\r\n");
                large.extend_from_slice(head.as_bytes());
                large.resize(head.len() + octets, b'x');
            }
            stream.write_all(&large)?;
        } else if head.starts_with(b"GET /socket ") {
            stream.write_all(SWITCH)?;
        } else {
            stream.write_all(ANSWER)?;
        }
        filled = 0;
    }
    Ok(())
}

/// How many octets are asked for.
fn octets(head: &[u8]) -> Option<usize> {
    let digits = head.strip_prefix(b"GET /octets/")?.split(|octet| *octet == b' ').next()?;
    std::str::from_utf8(digits).ok()?.parse().ok().map(|octets: usize| octets.min(OCTETS_MAX))
}
