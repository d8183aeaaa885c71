//! A helper belongs to its container's root user: one that says whatever it likes harms nobody else.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use gantry_model::ContainerId;
use gantry_session::{
    protocol::{Exit, FromHelper, Id, MESSAGE_LEN_MAX, Reason, ToHelper, VERSION},
    wire::Wire,
};
use gantry_ssh::{Door, DoorState, Limits, NoWay, Ways};
use rustix::net::{SendFlags, send};

use crate::{
    bed::{Bed, Here, PATIENCE, door, pair, text},
    handshakes::{Dice, count_panics},
    hangs::resident,
    hardening::metric,
    master::Master,
};

const LIAR: &str = "0123456789abcdef01234568";

/// One honest helper, and others that lie in another way each time.
struct Liars {
    seed: AtomicU64,
    begun: Arc<AtomicUsize>,
}

#[async_trait]
impl Ways for Liars {
    async fn open(&self, container: ContainerId) -> Result<OwnedFd, NoWay> {
        if container.to_string() != LIAR {
            return Here.open(container).await;
        }
        let (ours, theirs) = pair();
        let seed = self.seed.fetch_add(1, Ordering::Relaxed);
        self.begun.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(lie(theirs, Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)));
        Ok(ours)
    }

    async fn wake(&self, _container: ContainerId) -> Result<(), NoWay> {
        Err(NoWay::NotRunning)
    }
}

/// Says some hundred things, and goes.
async fn lie(socket: OwnedFd, mut dice: Dice) {
    let raw = rustix::io::fcntl_dupfd_cloexec(&socket, 0).unwrap();
    let wire = Wire::new(socket).unwrap();
    if dice.roll(8) > 0 {
        let version = if dice.roll(8) > 0 { VERSION } else { 7 };
        // The edge may have given it up at any time.
        drop(wire.send(&FromHelper::Ready { version }, &[]).await);
    }
    let mut kept = Vec::new();
    for _ in 0..dice.roll(400) {
        let order = wire.receive::<ToHelper>();
        if let Ok(Ok((order, descriptors))) =
            tokio::time::timeout(Duration::from_millis(2), order).await
        {
            kept.push((order.id(), descriptors));
        }
        let id = match (dice.roll(4), kept.len()) {
            (0, _) | (_, 0) => Id::from(u32::try_from(dice.roll(20)).unwrap()),
            (_, len) => kept[dice.roll(len)].0,
        };
        let message = fancy(&mut dice, id);
        let sent = if dice.roll(12) == 0 {
            // Something else than a message, by a socket that does not wait.
            let octets: Vec<u8> = match dice.roll(4) {
                0 => vec![0xff; 1 + dice.roll(64)],
                1 => vec![0; MESSAGE_LEN_MAX + 1],
                2 => Vec::new(),
                _ => (0..dice.roll(64)).map(|_| u8::try_from(dice.roll(256)).unwrap()).collect(),
            };
            send(&raw, &octets, SendFlags::NOSIGNAL | SendFlags::DONTWAIT).is_ok()
        } else {
            let file = std::fs::File::open("/dev/zero").unwrap();
            let along = [file.as_fd(), file.as_fd(), file.as_fd(), file.as_fd()];
            wire.send(&message, &along[..dice.roll(4)]).await.is_ok()
        };
        if !sent {
            return;
        }
        match dice.roll(10) {
            0 => kept.clear(),
            1 => tokio::time::sleep(Duration::from_millis(1)).await,
            _ => {}
        }
    }
}

fn fancy(dice: &mut Dice, id: Id) -> FromHelper {
    let long = "x".repeat(dice.roll(3) * 40_000);
    match dice.roll(9) {
        0 => FromHelper::Ready { version: VERSION },
        1..4 => FromHelper::Started { id },
        4 => {
            FromHelper::Refused { id, reason: Reason::Failed, message: format!("\u{1b}[2J{long}") }
        }
        5 => FromHelper::Listening { id, port: u16::try_from(dice.roll(65_536)).unwrap() },
        6 => {
            let accepted = id.wrapping_add(Id::from(u32::try_from(dice.roll(3)).unwrap()));
            FromHelper::Accepted { id: accepted, listener: id, peer: Some((long, 7)) }
        }
        7 => FromHelper::Closed { id },
        _ => {
            let exit = match dice.roll(3) {
                0 => Exit::Status(7),
                1 => Exit::Signal("TERM".to_owned(), true),
                _ => Exit::Signal(format!("{long}\0\u{7f}"), false),
            };
            FromHelper::Exited { id, exit }
        }
    }
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn helpers_that_lie_harm_no_other_container() {
    let begun = Arc::<AtomicUsize>::default();
    let liars = Liars { seed: AtomicU64::new(1), begun: Arc::clone(&begun) };
    let bed = Bed::through(Limits::default(), Arc::new(liars)).await;
    let panics = count_panics();
    let key = bed.key("liar", "ed25519");
    let of_liar = Door { container: LIAR.parse().unwrap(), ..door(DoorState::Open) };
    bed.doors.set(key, Some(of_liar));
    let master = Master::new(&bed, &[]).await;
    let (before, open) = (resident(), descriptors());

    let mut rounds = 0;
    while begun.load(Ordering::Relaxed) < 20 && rounds < 100 {
        rounds += 1;
        let clients = ["-tt", "-T", "-s", "-N"].map(|kind| {
            let options = [
                kind,
                "-A",
                "-R",
                "0:127.0.0.1:9",
                "root@127.0.0.1",
                if kind == "-s" { "sftp" } else { "x" },
            ];
            let options = if kind == "-N" { &options[..5] } else { &options };
            let mut ssh = bed.client("ssh", "-p", &bed.path("liar"), options);
            ssh.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        });
        // What they are told does not matter, nor whether they are told anything: a while after one of them has
        // been let in, all leave.
        let so_far = begun.load(Ordering::Relaxed);
        let until = Instant::now() + PATIENCE;
        while begun.load(Ordering::Relaxed) == so_far && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for mut client in clients {
            if tokio::time::timeout(Duration::from_millis(60), client.wait()).await.is_err() {
                client.kill().await.unwrap();
            }
        }
    }
    assert!(begun.load(Ordering::Relaxed) >= 20, "{rounds} rounds");
    assert_eq!(text(master.run("echo ok")).await, "ok\n");
    assert_eq!(panics.load(Ordering::Relaxed), 0);
    let gone = async {
        while metric(&bed, "gantry_ssh_connections") > 1 || descriptors() > open + 8 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let gone = tokio::time::timeout(PATIENCE, gone).await;
    assert!(gone.is_ok(), "{} descriptors, and {open} before", descriptors());
    let grown = resident().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown}");
    master.end().await;
}
