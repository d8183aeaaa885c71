//! A client that sends exactly the octets it is given.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

trait Stream: Read + Write + Send {
    /// Says that nothing more is sent.
    fn end(&mut self);
}

impl Stream for TcpStream {
    fn end(&mut self) {
        self.shutdown(Shutdown::Write).unwrap();
    }
}

impl Stream for StreamOwned<ClientConnection, TcpStream> {
    fn end(&mut self) {
        self.conn.send_close_notify();
        self.flush().unwrap();
        self.sock.end();
    }
}

/// A connection.
pub(crate) struct Client {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .find(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    }

    pub(crate) fn code(&self) -> Option<&str> {
        self.value("x-gantry-error")
    }
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::of(TcpStream::connect(address).unwrap())
    }

    /// The same over a connection that there is already.
    pub(crate) fn of(tcp: TcpStream) -> Self {
        Self { stream: Box::new(patient(tcp)), buffer: Vec::new() }
    }

    pub(crate) fn connect_tls(address: SocketAddr, sni: &str, ca: &Path, alpn: &[u8]) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn.to_vec()];
        let name = ServerName::try_from(sni.to_owned()).unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let tcp = tcp(address);
        let mut stream = StreamOwned::new(connection, tcp);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).unwrap();
        }
        Self { stream: Box::new(stream), buffer: Vec::new() }
    }

    pub(crate) fn send(&mut self, octets: impl AsRef<[u8]>) {
        self.stream.write_all(octets.as_ref()).unwrap();
        self.stream.flush().unwrap();
    }

    /// Sends these octets, and says that nothing more is sent.
    pub(crate) fn send_last(&mut self, octets: impl AsRef<[u8]>) {
        self.send(octets);
        self.stream.end();
    }

    /// Sends as far as the other side takes it; it may have closed already.
    pub(crate) fn try_send(&mut self, octets: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(octets.as_ref()).and_then(|()| self.stream.flush()).is_ok()
    }

    /// A GET and its answer.
    pub(crate) fn get(&mut self, host: &str, path: &str, fields: &str) -> Reply {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n"));
        self.reply()
    }

    /// The next answer, whole; one that only asks for the body is passed over.
    pub(crate) fn reply(&mut self) -> Reply {
        let mut head = self.head();
        while head.starts_with("HTTP/1.1 100 ") {
            head = self.head();
        }
        let mut reply = Reply {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head,
            body: Vec::new(),
        };
        if let Some(length) = reply.value("content-length") {
            reply.body = self.exactly(length.parse().unwrap());
        } else if reply.value("transfer-encoding").is_some() {
            while let Some(chunk) = self.chunk() {
                reply.body.extend(chunk);
            }
            reply.body.extend(self.trailers().into_bytes());
        } else if !matches!(reply.status, 101 | 204 | 304) {
            reply.body = self.rest();
        }
        reply
    }

    /// The next head, with its last empty line; the body stays unread.
    pub(crate) fn head(&mut self) -> String {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.fill(), "the connection ended before an answer: {:?}", self.left());
        };
        String::from_utf8(self.buffer.drain(..end).collect()).unwrap()
    }

    /// The data of the next chunk; nothing for the last one.
    pub(crate) fn chunk(&mut self) -> Option<Vec<u8>> {
        let size = usize::from_str_radix(&self.line(), 16).unwrap();
        if size == 0 {
            return None;
        }
        let data = self.exactly(size);
        assert_eq!(self.exactly(2), b"\r\n");
        Some(data)
    }

    /// The trailers after the last chunk, one a line.
    pub(crate) fn trailers(&mut self) -> String {
        let mut trailers = String::new();
        loop {
            let line = self.line();
            if line.is_empty() {
                return trailers;
            }
            trailers.push_str(&line);
            trailers.push('\n');
        }
    }

    pub(crate) fn line(&mut self) -> String {
        let end = loop {
            if let Some(at) = self.buffer.windows(2).position(|two| two == b"\r\n") {
                break at;
            }
            assert!(self.fill(), "the connection ended within a line: {:?}", self.left());
        };
        let line = self.buffer.drain(..end + 2).collect::<Vec<_>>();
        String::from_utf8(line[..end].to_vec()).unwrap()
    }

    pub(crate) fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            assert!(self.fill(), "the connection ended within a body: {:?}", self.left());
        }
        self.buffer.drain(..count).collect()
    }

    /// So many octets, or nothing if the other side closes before.
    pub(crate) fn exactly_or_end(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < count {
            if !self.fill() {
                return None;
            }
        }
        Some(self.buffer.drain(..count).collect())
    }

    /// Everything until the other side closes.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.buffer)
    }

    /// Whether the other side has closed, without another octet.
    pub(crate) fn is_closed(&mut self) -> bool {
        self.rest().is_empty()
    }

    fn left(&self) -> String {
        String::from_utf8_lossy(&self.buffer).into_owned()
    }

    /// Reads more; false when the other side has closed.
    fn fill(&mut self) -> bool {
        let mut chunk = [0; 16 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(0) => false,
            Ok(count) => {
                self.buffer.extend_from_slice(&chunk[..count]);
                true
            }
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                ) =>
            {
                panic!("nothing came for 10 s; so far {:?}", self.left())
            }
            // A reset or a TLS connection that was cut.
            Err(_) => false,
        }
    }
}

fn tcp(address: SocketAddr) -> TcpStream {
    patient(TcpStream::connect(address).unwrap())
}

fn patient(tcp: TcpStream) -> TcpStream {
    tcp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    tcp.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
    tcp.set_nodelay(true).unwrap();
    tcp
}
