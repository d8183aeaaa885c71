//! A domain name system that is slow or wrong: no order is placed twice, whoever waits hears why, and once it is well
//! again everything goes on.

use std::{
    collections::HashSet,
    io,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tokio::task::JoinSet;

use crate::bench::{Edge, Edges, NEW_ORDER, Names, World};

/// How long a record may take to be seen.
const BOUND: Duration = Duration::from_secs(3);
/// How late a late answer is.
const LATE: Duration = Duration::from_millis(200);
/// How often a thread looks whether its test is over, and how long it waits for an answer.
const LOOK: Duration = Duration::from_millis(50);
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Parts of a message: the code of an answer, and the kind of record that is asked for.
const CODE: usize = 3;
const SERVFAIL: u8 = 2;
const NXDOMAIN: u8 = 3;
const TXT: [u8; 2] = [0, 16];

/// What is wrong with the answers for a name, by its first label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Late,
    /// Another text than the one that was written.
    Wrong,
    /// What was written never comes.
    Never,
    Servfail,
    /// No answer.
    Silent,
}

const FAULTS: [(&str, Fault); 5] = [
    ("late", Fault::Late),
    ("wrong", Fault::Wrong),
    ("never", Fault::Never),
    ("servfail", Fault::Servfail),
    ("silent", Fault::Silent),
];

type Well = Arc<Mutex<HashSet<&'static str>>>;

/// A name server between the world and the one that knows.
struct Bad {
    is_over: Arc<AtomicBool>,
    /// The labels for which all is well by now.
    well: Well,
    thread: Option<JoinHandle<()>>,
}

impl Bad {
    fn start(address: SocketAddr, server: SocketAddr) -> Result<Self> {
        let socket = Arc::new(UdpSocket::bind(address)?);
        socket.set_read_timeout(Some(LOOK))?;
        let (is_over, well) = (Arc::<AtomicBool>::default(), Well::default());
        let (over, by_now) = (Arc::clone(&is_over), Arc::clone(&well));
        let thread = thread::spawn(move || {
            let mut message = [0; 4096];
            while !over.load(SeqCst) {
                let Ok((len, from)) = socket.recv_from(&mut message) else { continue };
                let (question, to) = (message[..len].to_vec(), Arc::clone(&socket));
                let fault = fault(&question, &by_now);
                // Each on its own, so that a late one holds no other up.
                thread::spawn(move || {
                    if let Some(answer) = answer(&question, fault, server).unwrap() {
                        to.send_to(&answer, from).unwrap();
                    }
                });
            }
        });
        Ok(Self { is_over, well, thread: Some(thread) })
    }
}

impl Drop for Bad {
    fn drop(&mut self) {
        self.is_over.store(true, SeqCst);
        let ended = self.thread.take().map_or(Ok(()), JoinHandle::join);
        assert!(ended.is_ok() || thread::panicking());
    }
}

/// Where the question ends and the kind begins.
fn kind_at(question: &[u8]) -> usize {
    let mut end = 12;
    while question[end] != 0 {
        end += usize::from(question[end]) + 1;
    }
    end + 1
}

fn fault(question: &[u8], well: &Well) -> Option<Fault> {
    let end = kind_at(question);
    let name = String::from_utf8_lossy(&question[12..end]).to_lowercase();
    let (label, fault) = FAULTS.into_iter().find(|(label, _)| name.contains(label))?;
    if well.lock().unwrap().contains(label) {
        return None;
    }
    let is_text = question[end..end + 2] == TXT;
    (is_text || matches!(fault, Fault::Late | Fault::Servfail)).then_some(fault)
}

fn answer(
    question: &[u8],
    fault: Option<Fault>,
    server: SocketAddr,
) -> io::Result<Option<Vec<u8>>> {
    let refused = |code: u8| {
        let mut answer = question[..kind_at(question) + 4].to_vec();
        answer[2] |= 0x80;
        answer[CODE] = code;
        answer[6..12].fill(0);
        Some(answer)
    };
    match fault {
        None => Ok(Some(ask(question, server)?)),
        Some(Fault::Late) => {
            let answer = ask(question, server)?;
            let end = Instant::now() + LATE;
            while let Some(left) = end.checked_duration_since(Instant::now()) {
                thread::park_timeout(left);
            }
            Ok(Some(answer))
        }
        Some(Fault::Wrong) => {
            let mut answer = ask(question, server)?;
            // The text of a record is the last thing in it that has this length.
            let text = answer.windows(2).rposition(|pair| pair[0] == 44 && pair[1] == 43);
            if let Some(first) = text.and_then(|at| answer.get_mut(at + 2)) {
                *first = if *first == b'A' { b'B' } else { b'A' };
            }
            Ok(Some(answer))
        }
        Some(Fault::Never) => Ok(refused(NXDOMAIN)),
        Some(Fault::Servfail) => Ok(refused(SERVFAIL)),
        Some(Fault::Silent) => Ok(None),
    }
}

fn ask(question: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::bind((server.ip(), 0))?;
    socket.set_read_timeout(Some(ANSWER_MAX))?;
    socket.connect(server)?;
    socket.send(question)?;
    let mut message = vec![0; 4096];
    let len = socket.recv(&mut message)?;
    message.truncate(len);
    Ok(message)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_or_wrong_domain_name_system_costs_time_and_no_second_order() -> Result<()> {
    let world = Arc::new(World::of(Names::behind(2)?, |_| ())?);
    let bad = Bad::start(world.names.server(2), world.names.server(1))?;
    let mut cases = JoinSet::new();
    for (label, want) in [
        ("late", None),
        ("wrong", Some("has 1 other TXT records there")),
        ("never", Some("has no such name")),
        ("servfail", Some("the resolver does not say")),
        ("silent", Some("cannot be reached")),
    ] {
        let (world, well) = (Arc::clone(&world), Arc::clone(&bad.well));
        cases.spawn(async move {
            case(&world, label, want, &well).await.with_context(|| label.to_owned())
        });
    }
    while let Some(case) = cases.join_next().await {
        case??;
    }
    Ok(())
}

/// Whether an order for a name comes to its end, if not at once then once all is well, and fails in these words
/// before that.
async fn case(world: &World, label: &'static str, want: Option<&str>, well: &Well) -> Result<()> {
    let name = format!("{label}.example.test");
    let wire = world.wire()?;
    // What comes right in the end has time for that on a busy machine.
    let bound = if want.is_some() { BOUND } else { 7 * BOUND };
    let dns = world.names.dns_by(2, bound)?;
    let edges = Edges::new(vec![world.authority(&wire)], Some(dns), &[&name]);
    let path = world.names.dir.path().join(format!("{label}.db"));
    let began = Instant::now();
    let edge = Edge::start(&path, edges).await?;
    if let Some(want) = want {
        let why = edge.await_failed(&name).await?;
        assert!(why.contains(want), "{why}");
        assert!(began.elapsed() < BOUND * 5, "{:?}", began.elapsed());
        assert_eq!(wire.count(NEW_ORDER), 1);
        well.lock().unwrap().insert(label);
        edge.store.hasten_certificate(&name, 0).await?;
    }
    edge.await_shown(&name, None).await?;
    assert_eq!(wire.count(NEW_ORDER), 1);
    edge.await_no_order().await?;
    assert!(world.names.proofs(&name)?.is_empty());
    edge.stop().await;
    Ok(())
}
