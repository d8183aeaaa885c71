//! Servers that do what no good server does.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Result;

/// How often a thread looks whether its test is over.
const LOOK: Duration = Duration::from_millis(50);

/// The bits of a head: an answer, and one that was cut off.
const IS_ANSWER: u8 = 0x80;
const IS_CUT_OFF: u8 = 0x02;

/// The bit of a question that asks for recursion.
const WANTS_RECURSION: u8 = 0x01;

/// The head and the question of a message, as an answer to it with nothing else. It must not ask
/// for recursion: what others remember is of no use.
fn bare_answer(question: &[u8]) -> Vec<u8> {
    assert_eq!(question[2] & WANTS_RECURSION, 0, "a question with recursion");
    let mut end = 12;
    while question[end] != 0 {
        end += usize::from(question[end]) + 1;
    }
    let mut answer = question[..end + 5].to_vec();
    answer[2] |= IS_ANSWER;
    answer[3] = 0;
    answer[6..12].fill(0);
    answer
}

/// Answers datagrams until it is dropped.
struct Datagrams {
    is_over: Arc<AtomicBool>,
    answers: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Datagrams {
    fn start(address: SocketAddr, answer: fn(&[u8]) -> Vec<u8>) -> Result<Self> {
        let socket = UdpSocket::bind(address)?;
        socket.set_read_timeout(Some(LOOK))?;
        let (is_over, answers) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (over, count) = (Arc::clone(&is_over), Arc::clone(&answers));
        let thread = thread::spawn(move || {
            let mut message = [0; 4096];
            while !over.load(SeqCst) {
                let Ok((len, from)) = socket.recv_from(&mut message) else { continue };
                // First: whoever has the answer may look at once.
                count.fetch_add(1, SeqCst);
                socket.send_to(&answer(&message[..len]), from).unwrap();
            }
        });
        Ok(Self { is_over, answers, thread: Some(thread) })
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        self.is_over.store(true, SeqCst);
        end(self.thread.take());
    }
}

/// Waits for a thread. One that has panicked fails its test, unless that has failed already: to panic
/// twice would end the process and leave its servers running.
fn end(thread: Option<JoinHandle<()>>) {
    let ended = thread.map_or(Ok(()), JoinHandle::join);
    assert!(ended.is_ok() || thread::panicking());
}

/// Says of every message that all is well, without a signature.
pub(super) struct Forger(Datagrams);

impl Forger {
    pub(super) fn start(address: SocketAddr) -> Result<Self> {
        Ok(Self(Datagrams::start(address, bare_answer)?))
    }

    pub(super) fn answers(&self) -> usize {
        self.0.answers.load(SeqCst)
    }
}

/// Answers every datagram as cut off, and passes TCP on to a good server.
pub(super) struct Truncating {
    datagrams: Datagrams,
    connections: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Truncating {
    pub(super) fn start(address: SocketAddr, server: SocketAddr) -> Result<Self> {
        let datagrams = Datagrams::start(address, |question| {
            let mut answer = bare_answer(question);
            answer[2] |= IS_CUT_OFF;
            answer
        })?;
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let connections = Arc::<AtomicUsize>::default();
        let (over, count) = (Arc::clone(&datagrams.is_over), Arc::clone(&connections));
        let thread = thread::spawn(move || {
            while !over.load(SeqCst) {
                match listener.accept() {
                    Ok((client, _)) => {
                        count.fetch_add(1, SeqCst);
                        relay(client, server).unwrap();
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        thread::park_timeout(LOOK);
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        });
        Ok(Self { datagrams, connections, thread: Some(thread) })
    }

    pub(super) fn cut_off(&self) -> usize {
        self.datagrams.answers.load(SeqCst)
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }
}

impl Drop for Truncating {
    fn drop(&mut self) {
        self.datagrams.is_over.store(true, SeqCst);
        end(self.thread.take());
    }
}

/// One question and its answer, octet by octet.
fn relay(mut client: TcpStream, server: SocketAddr) -> io::Result<()> {
    client.set_nonblocking(false)?;
    let mut server = TcpStream::connect(server)?;
    one_message(&mut client, &mut server)?;
    one_message(&mut server, &mut client)?;
    client.shutdown(Shutdown::Both)
}

fn one_message(from: &mut TcpStream, to: &mut TcpStream) -> io::Result<()> {
    from.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut len = [0; 2];
    from.read_exact(&mut len)?;
    let mut message = vec![0; u16::from_be_bytes(len).into()];
    from.read_exact(&mut message)?;
    to.write_all(&[&len, &*message].concat())
}
