//! What owners and the operator hear of SSH, and whose address it is that counts. The containers are made up:
//! whoever gets to one is told that it cannot be entered.

use std::{
    fmt::Write as _,
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use gantry_tests::{Container, Gantry, Options, Ssh, SshKey, wait_for, wait_until, walk};
use serde_json::Value;

const HAPROXY: &str = "/usr/sbin/haproxy";
/// From where the balancer comes, and from where clients do.
const BALANCER: &str = "127.77.181.4";
const OFFICE: &str = "127.77.181.9";
const ELSEWHERE: &str = "127.77.181.10";
/// Events are written a little later.
const FOLLOWS: Duration = Duration::from_secs(5);

/// Ends with the test.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        // It may have ended.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// What a login comes to: its status, and what it says.
fn login(ssh: &Ssh, key: &SshKey, from: &str, port: Option<u16>) -> Result<(Option<i32>, String)> {
    let mut client = Command::new("timeout");
    client.args(["60", "ssh", "-F", "none"]);
    // The first word about the port is the one that counts.
    if let Some(port) = port {
        client.args(["-p", &port.to_string()]);
    }
    for option in ssh.options() {
        client.args(["-o", &option]);
    }
    client.arg("-i").arg(&key.file).env_remove("SSH_AUTH_SOCK").env("LC_ALL", "C");
    client.args(["-b", from]).arg(ssh.destination()).arg("true");
    let output = client.stdin(Stdio::null()).output()?;
    Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
}

/// Waits until there are so many events of visits of a container; the oldest first.
fn visits(gantry: &Gantry, container: &Container, count: usize) -> Result<Vec<Value>> {
    wait_for("owners hear of visits", FOLLOWS, || {
        let all = gantry.json(&["events", "list", "--container-id", &container.id]).ok()?;
        let mut all: Vec<Value> = all["events"].as_array()?.clone();
        all.retain(|event| {
            event["event_type"].as_str().unwrap_or("").starts_with("container.ssh.")
        });
        all.reverse();
        (all.len() >= count).then_some(all)
    })
}

#[test]
fn an_owner_hears_who_has_come_by_ssh_from_where_and_who_was_not_let_in() {
    walk(Options::fake(), |gantry| {
        let ssh = Ssh::new(gantry)?;
        let (key, stranger) = (ssh.key("own", "ed25519")?, ssh.key("strange", "ed25519")?);
        let project = gantry.create_project("visits")?;
        let one =
            gantry.create_running(&project, &["--name", "one", "--ssh-public-key", &key.line])?;
        let shut = |(status, said): (Option<i32>, String)| {
            ensure!(status == Some(254) && said.contains("was started before"), "{said}");
            Ok(())
        };
        shut(login(&ssh, &key, OFFICE, None)?)?;
        let denied = |(status, said): (Option<i32>, String)| {
            ensure!(
                status == Some(255) && said.contains("Permission denied (publickey)"),
                "{said}"
            );
            Ok(())
        };
        denied(login(&ssh, &stranger, OFFICE, None)?)?;
        let office = gantry.state().join("office.json");
        fs::write(&office, format!(r#"{{"type": "ip", "range": "{OFFICE}/32"}}"#))?;
        let office = office.display().to_string();
        for args in [
            &["permissions", "set-group", &one.id, "office", &office][..],
            &["permissions", "allow", &one.id, "office", "ssh", "true"],
        ] {
            let done = gantry.cli(args)?;
            ensure!(done.status.success(), "{done:?}");
        }
        wait_until("addresses count", FOLLOWS, || {
            login(&ssh, &key, ELSEWHERE, None).is_ok_and(|(status, _)| status == Some(255))
        })?;
        denied(login(&ssh, &key, ELSEWHERE, None)?)?;
        // Who has not the key is nobody's business.
        denied(login(&ssh, &stranger, ELSEWHERE, None)?)?;
        shut(login(&ssh, &key, OFFICE, None)?)?;
        told(gantry, &one)?;

        // One that has failed says so to its key.
        let other = ssh.key("other", "ed25519")?;
        let image = ["--container-image", "nosuch/1", "--ssh-public-key", &other.line];
        let failed = gantry.create(&project, &image)?;
        gantry.wait_status(&failed, "failed", FOLLOWS)?;
        let (status, said) = login(&ssh, &other, OFFICE, None)?;
        ensure!(status == Some(254) && said.contains("has failed"), "{status:?} {said}");
        let narrowed = format!("root+{}@{}", one.id, gantry.address());
        let elsewhere = ssh.client("ssh", &other).arg(narrowed).arg("true").output()?;
        ensure!(elsewhere.status.code() == Some(255), "{elsewhere:?}");
        Ok(())
    });
}

fn told(gantry: &Gantry, one: &Container) -> Result<()> {
    let fingerprint = gantry.field(one, "ssh_key_fingerprint")?;
    let visits = visits(gantry, one, 6)?;
    let refused = visits.iter().filter(|event| event["event_type"] == "container.ssh.refused");
    for event in refused {
        ensure!(event["payload"]["ip_address"] == ELSEWHERE, "{event}");
        ensure!(
            event["payload"]["reason"].as_str().is_some_and(|it| it.contains("address")),
            "{event}"
        );
    }
    let kinds: Vec<&str> = visits.iter().filter_map(|event| event["event_type"].as_str()).collect();
    let last = kinds.len() - 2;
    ensure!(kinds[..2] == ["container.ssh.begun", "container.ssh.ended"], "{kinds:?}");
    ensure!(kinds[last..] == ["container.ssh.begun", "container.ssh.ended"], "{kinds:?}");
    ensure!(kinds[2..last].iter().all(|kind| *kind == "container.ssh.refused"), "{kinds:?}");
    let (begun, ended) = (&visits[0], &visits[1]);
    for name in ["connection_id", "ip_address", "user", "key_fingerprint"] {
        ensure!(begun["payload"][name] == ended["payload"][name], "{name}: {begun} {ended}");
    }
    let payload = &ended["payload"];
    ensure!(payload["ip_address"] == OFFICE && payload["user"] == "root", "{payload}");
    ensure!(payload["key_fingerprint"] == fingerprint.as_str(), "{payload}");
    ensure!(payload["sent_bytes"].is_u64() && payload["received_bytes"] == 0, "{payload}");
    ensure!(payload["duration_ms"].is_u64() && payload["reason"].is_null(), "{payload}");
    // The operator reads of all of them, strangers included.
    let log = gantry.log();
    let lines = |what: &str| {
        log.lines().filter(|line| line.contains("audit") && line.contains(what)).count()
    };
    ensure!(lines("ssh begun") == 2 && lines("ssh ended") == 2, "{log}");
    ensure!(lines("ssh refused") == kinds.len() - 4, "{log}");
    ensure!(lines("ssh without login") >= 3, "{log}");
    Ok(())
}

#[test]
fn clients_behind_haproxy_count_by_their_own_addresses() {
    let listed = format!("edge.proxy_protocol_from=[\"{BALANCER}\"]");
    walk(Options::fake().set(&listed), |gantry| {
        if !Path::new(HAPROXY).exists() {
            ensure!(std::env::var_os("CI").is_none(), "{HAPROXY} is missing");
            eprintln!("not run: no {HAPROXY}");
            return Ok(());
        }
        let ssh = Ssh::new(gantry)?;
        let key = ssh.key("own", "ed25519")?;
        let project = gantry.create_project("carried")?;
        let one = gantry.create_running(&project, &["--ssh-public-key", &key.line])?;
        let edge = SocketAddr::new(gantry.address().into(), ssh.port());
        let free = || TcpListener::bind((gantry.address(), 0));
        // All at once, so that they differ.
        let [first, second, silent] = [free()?, free()?, free()?].map(|it| it.local_addr());
        let [first, second, silent] = [first?.port(), second?.port(), silent?.port()];
        let mut text = "defaults\n mode tcp\n timeout connect 5s\n timeout client 20s\n \
                        timeout server 20s\n"
            .to_owned();
        for (port, option) in [(first, "send-proxy"), (second, "send-proxy-v2"), (silent, "")] {
            let bind = SocketAddr::new(gantry.address().into(), port);
            write!(
                text,
                "listen l{port}\n bind {bind}\n source {BALANCER}\n server edge {edge} {option}\n"
            )?;
        }
        let file = ssh.dir().join("haproxy.cfg");
        fs::write(&file, text)?;
        let mut command = Command::new(HAPROXY);
        let mut haproxy = Ending(command.arg("-db").arg("-f").arg(&file).spawn()?);
        wait_until("HAProxy listens", Duration::from_secs(20), || {
            TcpStream::connect((gantry.address(), silent)).is_ok()
        })?;
        ensure!(haproxy.0.try_wait()?.is_none(), "HAProxy runs");

        let (status, said) = login(&ssh, &key, OFFICE, Some(first))?;
        ensure!(status == Some(254), "{said}");
        let (status, said) = login(&ssh, &key, ELSEWHERE, Some(second))?;
        ensure!(status == Some(254), "{said}");
        // A balancer must say for whom it comes, and nobody else can.
        let (status, said) = login(&ssh, &key, OFFICE, Some(silent))?;
        ensure!(status == Some(255) && !said.contains("publickey"), "{said}");
        let (status, said) = login(&ssh, &key, OFFICE, None)?;
        ensure!(status == Some(254), "{said}");
        let visits = visits(gantry, &one, 6)?;
        let begun = visits.iter().filter(|event| event["event_type"] == "container.ssh.begun");
        let from: Vec<_> =
            begun.filter_map(|event| event["payload"]["ip_address"].as_str()).collect();
        ensure!(from == [OFFICE, ELSEWHERE, OFFICE], "{from:?}");
        let log = gantry.log();
        let line = log.lines().find(|line| line.contains("a balancer must say"));
        ensure!(line.context("it is in the log")?.contains(BALANCER), "{line:?}");
        Ok(())
    });
}
