//! Peers that keep no rules, and what is offered to them.

use std::{
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use gantry_ssh::{Bounds, DoorState, Limits};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process_group, setrlimit};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::Command,
};

use crate::{
    bed::{Bed, Here, PATIENCE, door, output, text},
    foreign::{Script, program},
    hangs::resident,
    master::Master,
};

pub(crate) async fn connect(bed: &Bed) -> TcpStream {
    TcpStream::connect(bed.address).await.unwrap()
}

/// The first message of the server, after the lines of both.
pub(crate) async fn greeting(stream: &mut TcpStream) -> Vec<u8> {
    stream.write_all(b"SSH-2.0-test\r\n").await.unwrap();
    let mut octet = [0];
    while octet != *b"\n" {
        stream.read_exact(&mut octet).await.unwrap();
    }
    let len = stream.read_u32().await.unwrap();
    let mut packet = vec![0; len as usize];
    stream.read_exact(&mut packet).await.unwrap();
    packet
}

#[tokio::test(flavor = "multi_thread")]
async fn only_strong_algorithms_are_offered() {
    let bed = Bed::new().await;
    let mut stream = connect(&bed).await;
    let packet = greeting(&mut stream).await;
    // Padding length, number of the message, cookie; then ten lists.
    let mut rest = &packet[1 + 1 + 16..];
    let mut lists = Vec::new();
    for _ in 0..10 {
        let (len, after) = rest.split_first_chunk::<4>().unwrap();
        let (list, after) = after.split_at(u32::from_be_bytes(*len) as usize);
        lists.push(String::from_utf8(list.to_vec()).unwrap());
        rest = after;
    }
    let [kex, key, ciphers, _, macs, _, compression, ..] = lists.as_slice() else { panic!() };
    assert!(kex.contains("mlkem768x25519-sha256"), "{kex}");
    assert!(kex.contains("kex-strict-s-v00@openssh.com"), "{kex}");
    assert!(!kex.contains("diffie-hellman"), "{kex}");
    assert_eq!(key, "ssh-ed25519");
    assert!(!ciphers.contains("cbc"), "{ciphers}");
    assert!(macs.split(',').all(|mac| mac.contains("-etm@")), "{macs}");
    assert_eq!(compression, "none");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_finds_nothing_to_mend() {
    let bed = Bed::new().await;
    let Some(audit) = audit(&bed, &["-jj", "--skip-rate-test"]) else { return };
    let ended = output(audit).await;
    let said: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
    let mut found = Vec::new();
    for kind in ["kex", "key", "enc", "mac"] {
        for one in said[kind].as_array().unwrap() {
            for level in ["fail", "warn"] {
                for note in one["notes"][level].as_array().into_iter().flatten() {
                    found.push(format!("{level} {} {}", one["algorithm"], note));
                }
            }
        }
    }
    // Clients older than the exchange that outlives quantum computers shall get in.
    found.retain(|finding| !finding.starts_with("warn \"curve25519-sha256"));
    assert!(found.is_empty(), "{found:#?}");
    assert_eq!(said["cves"].as_array().map_or(0, Vec::len), 0, "{said}");
}

/// `ssh-audit` with these options.
fn audit(bed: &Bed, options: &[&str]) -> Option<Command> {
    let mut audit = Command::new(program("ssh-audit")?);
    let port = bed.address.port().to_string();
    audit.args(options).args(["-p", &port, "127.0.0.1"]).stdin(Stdio::null()).kill_on_drop(true);
    Some(audit)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_is_kept() {
    let bed = Bed::new().await;
    let policy = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/foreign/policy.txt");
    let Some(audit) = audit(&bed, &["-P", policy]) else { return };
    let ended = output(audit).await;
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(ended.status.success() && said.contains("Passed"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_without_end_from_one_address_keep_no_other_address_out() {
    for attack in ["--dheat=4", "--conn-rate-test=16"] {
        let bed = Bed::new().await;
        assert_eq!(text(bed.run("echo ok")).await, "ok\n");
        let before = resident();
        let Some(mut audit) = audit(&bed, &[attack]) else { return };
        // It has processes of its own.
        let mut attacker = audit.stdout(Stdio::null()).process_group(0).spawn().unwrap();
        let is_refused = async {
            while metric(&bed, "gantry_ssh_refused_connections_total") < 20 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, is_refused).await.expect(attack);
        for _ in 0..3 {
            let mut other = bed.ssh(&["-oBindAddress=127.0.0.2"]);
            other.arg("echo ok");
            assert_eq!(text(other).await, "ok\n");
        }
        let grown = resident().saturating_sub(before);
        assert!(grown < 32 << 20, "{grown}");
        assert!(attacker.try_wait().unwrap().is_none(), "{attack} goes on");
        let group = i32::try_from(attacker.id().unwrap()).ok().and_then(Pid::from_raw).unwrap();
        kill_process_group(group, Signal::KILL).unwrap();
        attacker.wait().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_log_in_is_cut() {
    // Long enough for a client that logs in on a busy machine.
    let grace = Duration::from_secs(5);
    let bed = Bed::limited(Limits { grace, ..Limits::default() }).await;
    let began = Instant::now();
    let silent = connect(&bed).await;
    let mut half = connect(&bed).await;
    half.write_all(b"SSH-2.0-ha").await.unwrap();
    let mut exchange = connect(&bed).await;
    greeting(&mut exchange).await;
    exchange.write_all(&[0, 0, 1, 0, 4, 20, 1, 2, 3]).await.unwrap();
    for mut stream in [silent, half, exchange] {
        let mut rest = Vec::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        // It ends, or is reset.
        read.expect("it is cut").unwrap_or_default();
        assert!(began.elapsed() + Duration::from_millis(50) >= grace, "{:?}", began.elapsed());
    }
    // Who has logged in stays.
    assert_eq!(text(bed.run("sleep 6; echo ok")).await, "ok\n");
    ended_without_login(&bed, 3).await;
}

pub(crate) fn metric(bed: &Bed, name: &str) -> u64 {
    let mut out = String::new();
    bed.front.render_metrics(&mut out);
    let row = out.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    row.unwrap().parse().unwrap()
}

async fn ended_without_login(bed: &Bed, want: u64) {
    let counted = async {
        while metric(bed, "gantry_ssh_ended_without_login_total") < want {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, counted).await.expect("they are counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_few_and_make_room() {
    let bed = Bed::limited(Limits { strangers_of_one: 3, ..Limits::default() }).await;
    let mut inside = Vec::new();
    for _ in 0..3 {
        let mut stream = connect(&bed).await;
        greeting(&mut stream).await;
        inside.push(stream);
    }
    let mut fourth = connect(&bed).await;
    assert_eq!(fourth.read(&mut [0; 64]).await.unwrap_or_default(), 0);
    assert_eq!(metric(&bed, "gantry_ssh_refused_connections_total"), 1);
    inside.pop();
    ended_without_login(&bed, 1).await;
    // Those who have logged in count no more.
    let first = Master::new(&bed, &[]).await;
    assert_eq!(text(bed.run("echo ok")).await, "ok\n");
    first.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_ends_its_connection_alone() {
    let bed = Bed::new().await;
    let master = Master::new(&bed, &[]).await;
    let zeros = vec![0; 70_000];
    for garbage in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        &zeros,
        b"SSH-2.0-x\r\n\xff\xff\xff\xff\xff\xff\xff\xff",
        b"SSH-2.0-x\r\n\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        b"SSH-2.0-x\r\n\0\0\0\x0c\x0a\x15AAAAAAAAAA",
        b"SSH-1.5-x\r\n\0\0\0\0",
    ] {
        let mut stream = connect(&bed).await;
        // It may be gone before all was said.
        stream.write_all(garbage).await.unwrap_or_default();
        let mut rest = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest));
        read.await.unwrap_or_else(|_| panic!("{garbage:?}")).unwrap_or_default();
    }
    assert_eq!(text(master.run("echo ok")).await, "ok\n");
    master.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn channels_are_bounded_and_those_that_ended_do_not_count() {
    let bed = Bed::new().await;
    let Some(mut script) = Script::start(&bed, "channels.py", &["many"]) else { return };
    for want in ["session 4", "forward 4", "after ok"] {
        script.says(want).await;
    }
    script.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_has_so_many_channels_in_its_life() {
    let bounds = Bounds { closed_channels: 8, ..Bounds::default() };
    let bed = Bed::changed(Arc::new(Here), |front| front.bounded(bounds)).await;
    let Some(mut script) = Script::start(&bed, "channels.py", &["worn"]) else { return };
    for want in ["another 4", "shell still", "ended True"] {
        script.says(want).await;
    }
    script.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_only_listens_ends_when_it_may_have_no_more_channels() {
    let bounds = Bounds { closed_channels: 0, ..Bounds::default() };
    let bed = Bed::changed(Arc::new(Here), |front| front.bounded(bounds)).await;
    let Some(mut script) = Script::start(&bed, "channels.py", &["listens"]) else { return };
    script.says("ended True").await;
    script.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_have_a_measure() {
    let bed = Bed::new().await;
    let Some(mut script) = Script::start(&bed, "channels.py", &["long"]) else { return };
    for want in ["terminal 256", "no terminal 257", "socket 2", "host 2", "no listener"] {
        script.says(want).await;
    }
    script.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_the_window_ends_the_connection() {
    let bed = Bed::new().await;
    let master = Master::new(&bed, &[]).await;
    let Some(mut script) = Script::start(&bed, "channels.py", &["overrun"]) else { return };
    script.says("ended True True").await;
    script.end().await;
    assert_eq!(text(master.run("echo ok")).await, "ok\n");
    master.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn data_where_none_belong_are_left_out() {
    let bed = Bed::new().await;
    let Some(mut script) = Script::start(&bed, "channels.py", &["strange"]) else { return };
    for want in ["counted 5", "echo ok"] {
        script.says(want).await;
    }
    script.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_descriptors_are_a_delay() {
    let bed = Bed::new().await;
    let master = Master::new(&bed, &[]).await;
    let limit = getrlimit(Resource::Nofile);
    let open = std::fs::read_dir("/proc/self/fd").unwrap().count();
    // Its own end of the connection first, since the limit is this process'.
    let mut stream = connect(&bed).await;
    greeting(&mut stream).await;
    let waiting = bed.run("echo late").stdout(Stdio::piped()).spawn().unwrap();
    let few = Rlimit { current: Some(open as u64), ..limit };
    setrlimit(Resource::Nofile, few).unwrap();
    let failed = std::fs::File::open("/dev/null").is_err();
    tokio::time::sleep(Duration::from_millis(500)).await;
    setrlimit(Resource::Nofile, limit).unwrap();
    assert!(failed);
    let ended = tokio::time::timeout(PATIENCE, waiting.wait_with_output()).await.unwrap().unwrap();
    assert!(ended.status.success() || ended.status.code() == Some(254), "{}", ended.status);
    assert_eq!(text(bed.run("echo ok")).await, "ok\n");
    assert_eq!(text(master.run("echo ok")).await, "ok\n");
    master.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_defect_in_one_session_leaves_the_others_alone() {
    let bed = Bed::new().await;
    let master = Master::new(&bed, &[]).await;
    let cursed = bed.key("cursed", "ed25519");
    bed.doors.set(cursed, Some(door(DoorState::Open)));
    *bed.doors.cursed.lock().unwrap() = Some(cursed);
    let ssh = bed.client("ssh", "-p", &bed.path("cursed"), &["root@127.0.0.1", "true"]);
    assert_eq!(output(ssh).await.status.code(), Some(255));
    assert_eq!(text(master.run("echo ok")).await, "ok\n");
    assert_eq!(text(bed.run("echo ok")).await, "ok\n");
    master.end().await;
    let counted = async {
        while metric(&bed, "gantry_ssh_connections") > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, counted).await.expect("all have gone");
}
