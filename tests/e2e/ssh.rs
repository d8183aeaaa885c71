//! SSH with OpenSSH's client: a key opens its container, and no other, as long as it is its key.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use gantry_tests::{Container, Gantry, Options, Ssh, SshKey, walk};

mod inside;

/// Sessions follow what happens to their container within this time.
const FOLLOWS: Duration = Duration::from_secs(5);

fn give(gantry: &Gantry, container: &Container, key: Option<&SshKey>) -> anyhow::Result<()> {
    let line = key.map_or("null", |key| key.line.as_str());
    gantry.json(&["containers", "update", &container.id, "--ssh-public-key", line])?;
    Ok(())
}

/// A session that has begun and would last.
fn session(ssh: &Ssh, key: &SshKey) -> anyhow::Result<Child> {
    let mut client = ssh.client("ssh", key);
    client.arg(ssh.destination()).arg("echo in; exec sleep 600");
    let mut child = client.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().context("piped")?).read_line(&mut line)?;
    ensure!(line == "in\n", "{line:?}");
    Ok(child)
}

/// Waits for the end of a session; returns how long that took and what it said.
fn ended(mut child: Child) -> anyhow::Result<(Duration, String)> {
    let began = Instant::now();
    let status = child.wait()?;
    let took = began.elapsed();
    let mut said = String::new();
    child.stderr.take().context("piped")?.read_to_string(&mut said)?;
    ensure!(status.code() == Some(255), "{status}: {said}");
    Ok((took, said))
}

/// Connections begin and listeners listen in the container: its loopback is not this machine's.
fn forwards(ssh: &Ssh, key: &SshKey) -> anyhow::Result<()> {
    let server = TcpListener::bind("127.0.0.1:0")?;
    let port = server.local_addr()?.port();
    thread::spawn(move || {
        while let Ok((mut stream, _)) = server.accept() {
            // Who connects may have gone again.
            drop(stream.write_all(b"the client's side"));
        }
    });
    let through = |to: String| {
        let mut client = ssh.client("ssh", key);
        client.args(["-oConnectTimeout=10", "-W", &to]).arg(ssh.destination());
        client.stdin(Stdio::null()).output()
    };
    let refused = through(format!("127.0.0.1:{port}"))?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(refused.stdout.is_empty() && said.contains("connect failed"), "{refused:?}");

    let mut client = ssh.client("ssh", key);
    client.args(["-R", &format!("127.0.0.1:0:127.0.0.1:{port}")]).arg(ssh.destination()).arg("cat");
    let mut listening = client.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(listening.stderr.take().context("piped")?).read_line(&mut line)?;
    let port: u16 = line
        .strip_prefix("Allocated port ")
        .and_then(|rest| rest.split(' ').next()?.parse().ok())
        .with_context(|| format!("the port: {line:?}"))?;
    for host in ["127.0.0.1", "localhost"] {
        let reached = through(format!("{host}:{port}"))?;
        ensure!(reached.stdout == b"the client's side", "{host}: {reached:?}");
    }
    ensure!(TcpStream::connect(("127.0.0.1", port)).is_err(), "it listens on this machine");
    drop(listening.stdin.take());
    ensure!(listening.wait()?.success(), "the listener's session ends");
    Ok(())
}

/// Its owner switches forwards off: those that are open end, and none begins until they are on again.
fn switched_off(
    gantry: &Gantry,
    ssh: &Ssh,
    (container, key): (&Container, &SshKey),
) -> anyhow::Result<()> {
    let switch = |state: &str| {
        gantry.json(&["containers", "update", &container.id, "--ssh-forwarding", state])
    };
    let mut client = ssh.client("ssh", key);
    client.args(["-oExitOnForwardFailure=yes", "-R", "/run/forwarded:127.0.0.1:9"]);
    client.arg(ssh.destination()).arg("echo in; cat");
    let mut shell = client.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(shell.stdout.as_mut().context("piped")?).read_line(&mut line)?;
    ensure!(ssh.text(key, "ls /run/forwarded")? == "/run/forwarded\n", "it listens inside");
    let shown = switch("off")?;
    ensure!(shown["ssh_forwarding"] == false, "{shown}");
    let began = Instant::now();
    while ssh.text(key, "ls /run/forwarded 2>&1; true")? == "/run/forwarded\n" {
        ensure!(began.elapsed() < FOLLOWS, "it listens on");
    }
    let mut client = ssh.client("ssh", key);
    client.args(["-W", "127.0.0.1:9"]).arg(ssh.destination());
    let refused = client.stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(said.contains("administratively prohibited"), "{said}");
    drop(shell.stdin.take());
    ensure!(shell.wait()?.success(), "the shell has stayed");
    switch("on")?;
    gantry_tests::wait_until("it forwards again", FOLLOWS, || {
        let mut client = ssh.client("ssh", key);
        client.args(["-W", "127.0.0.1:9"]).arg(ssh.destination());
        let refused = client.stdin(Stdio::null()).output();
        refused.is_ok_and(|it| String::from_utf8_lossy(&it.stderr).contains("connect failed"))
    })
}

#[test]
fn a_key_opens_its_container_while_it_is_its_key() {
    walk(Options::embedded(), the_walk);
}

#[test]
fn it_does_so_with_incus() {
    let Some(socket) = crate::incus::socket() else { return };
    walk(Options::incus(&socket).set("runtime.incus_pool=gantry-btrfs"), the_walk);
}

fn the_walk(gantry: &mut Gantry) -> anyhow::Result<()> {
    let ssh = Ssh::new(gantry)?;
    let (first, second) = (ssh.key("first", "ed25519")?, ssh.key("second", "ecdsa")?);
    let project = gantry.create_project("ssh")?;
    let one =
        gantry.create_running(&project, &["--name", "one", "--ssh-public-key", &first.line])?;
    let two = gantry.create_running(&project, &["--name", "two"])?;
    let name = |key: &SshKey| ssh.text(key, "id -un; hostname");
    ensure!(name(&first)? == "root\none\n", "{:?}", name(&first));
    let refused = ssh.run(&second, "true")?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(
        refused.status.code() == Some(255) && said.contains("Permission denied (publickey)"),
        "{said}"
    );
    give(gantry, &two, Some(&second))?;
    ensure!(name(&second)? == "root\ntwo\n", "{:?}", name(&second));
    // It runs in the container's control group and sees its processes only.
    let inside = ssh.text(&first, "cat /proc/self/cgroup; ps -e | wc -l")?;
    ensure!(!inside.contains("user.slice"), "{inside}");
    let narrowed = |container: &Container| {
        let destination = format!("root+{}@{}", container.id, gantry.address());
        ssh.client("ssh", &first).arg(destination).arg("true").status()
    };
    ensure!(narrowed(&one)?.success() && !narrowed(&two)?.success(), "the name narrows");
    inside::features(gantry, &ssh, &first)?;
    forwards(&ssh, &first)?;
    switched_off(gantry, &ssh, (&one, &first))?;
    // Variables of the container.
    let set = gantry.cli(&["containers", "env", "set", &one.id, "GREETING=hello there"])?;
    ensure!(set.status.success(), "{set:?}");
    gantry_tests::wait_until("new sessions have the variable", FOLLOWS, || {
        ssh.text(&first, "echo $GREETING").is_ok_and(|said| said == "hello there\n")
    })?;

    // The key moves away and another one comes.
    let open = session(&ssh, &first)?;
    give(gantry, &one, None)?;
    let (took, said) = ended(open)?;
    ensure!(took < FOLLOWS && said.contains("has changed"), "{took:?} {said}");
    ensure!(ssh.run(&first, "true")?.status.code() == Some(255), "the key opens nothing");
    give(gantry, &two, Some(&first))?;
    ensure!(name(&first)? == "root\ntwo\n", "{:?}", name(&first));

    // The container stops, and starts again.
    inside::ends_with(gantry, &ssh, &first, &["manage", &two.id, "stop", "--wait"])?;
    let shut = ssh.run(&first, "true")?;
    let said = String::from_utf8_lossy(&shut.stderr).into_owned();
    ensure!(shut.status.code() == Some(254) && said.contains("is stopped"), "{said}");
    let started = gantry.cli(&["containers", "manage", &two.id, "start", "--wait"])?;
    ensure!(started.status.success(), "{started:?}");
    ensure!(name(&first)? == "root\ntwo\n", "{:?}", name(&first));

    // The same host key after a restart, which ends sessions.
    let open = session(&ssh, &first)?;
    gantry.kill()?;
    ended(open)?;
    gantry.start_again()?;
    ensure!(name(&first)? == "root\ntwo\n", "{:?}", name(&first));

    // It sleeps, and its key wakes it, but only if its owner wants that.
    inside::ends_with(gantry, &ssh, &first, &["manage", &two.id, "pause", "--wait"])?;
    ensure!(ssh.run(&first, "true")?.status.code() == Some(254), "it sleeps on");
    let woken = gantry.cli(&["edge", &two.id, "--wake", "authed"])?;
    ensure!(woken.status.success(), "{woken:?}");
    let wakes = || name(&first).is_ok_and(|said| said == "root\ntwo\n");
    gantry_tests::wait_until("its key wakes it", FOLLOWS, wakes)?;

    inside::ends_with(gantry, &ssh, &first, &["delete", &two.id, "--yes", "--wait"])?;
    ensure!(ssh.run(&first, "true")?.status.code() == Some(255), "its container is gone");
    Ok(())
}
