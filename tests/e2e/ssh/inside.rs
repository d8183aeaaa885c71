//! What sessions do inside a real container, whose image has no SSH server, by OpenSSH's clients.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    thread,
};

use anyhow::{Context as _, Result, ensure};
use gantry_tests::{Gantry, Ssh, SshKey};

use super::{FOLLOWS, ended, session};

/// Listens at a TCP port or a path that it chooses, says so, and sends back what one connection has sent,
/// once that has ended.
const ECHO: &str = r#"
import socket, sys
if sys.argv[1:]:
    door = socket.socket(socket.AF_UNIX)
    door.bind(sys.argv[1])
else:
    door = socket.create_server(("127.0.0.1", 0))
door.listen()
print(door.getsockname()[1] if not sys.argv[1:] else sys.argv[1], flush=True)
guest = door.accept()[0]
data = b"".join(iter(lambda: guest.recv(1 << 16), b""))
guest.sendall(data)
guest.close()
"#;

/// Sends a pattern to a port and counts what comes back.
const SENDS: &str = r#"
import hashlib, socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as there:
    there.sendall(bytes(range(256)) * (1 << 14))
    there.shutdown(socket.SHUT_WR)
    data = b"".join(iter(lambda: there.recv(1 << 16), b""))
    print(len(data), data == bytes(range(256)) * (1 << 14))
"#;

/// Asks the agent at the other end of `SSH_AUTH_SOCK` how many keys it has.
const ASKS_AGENT: &str = r#"
import os, socket, struct
agent = socket.socket(socket.AF_UNIX)
agent.connect(os.environ["SSH_AUTH_SOCK"])
agent.sendall(b"\0\0\0\1\x0b")
head = agent.recv(9, socket.MSG_WAITALL)
print(head[4], struct.unpack(">I", head[5:])[0])
"#;

/// Says that it runs, and then that it was interrupted. What is typed does not hold these words.
const INTERRUPTED: &str = r#"$| = 1; $SIG{INT} = sub { print "stop", "ped\n"; exit };
print "rea", "dy\n"; sleep 600"#;

/// More than any window, so that both ends wait for each other on the way.
fn much() -> Vec<u8> {
    (0..=255).cycle().take(6 << 20).collect()
}

/// All of them, in a container that runs.
pub(super) fn features(gantry: &Gantry, ssh: &Ssh, key: &SshKey) -> Result<()> {
    files(ssh, key)?;
    terminals(ssh, key)?;
    local_forwards(ssh, key)?;
    remote_forwards(ssh, key)?;
    agents(ssh, key)?;
    told(gantry)?;
    by_its_own_configuration(gantry, ssh, key)
}

/// What the operator reads of it.
fn told(gantry: &Gantry) -> Result<()> {
    let log = gantry.log();
    let tells = |words: &[&str]| {
        log.lines().any(|line| ["audit"].iter().chain(words).all(|word| line.contains(word)))
    };
    ensure!(tells(&["ssh begun", "software=\"SSH-2.0-OpenSSH"]), "{log}");
    ensure!(tells(&["ssh forwards", "forward=\"in\"", "at=\"/run/echo.sock\""]), "{log}");
    ensure!(tells(&["ssh forwards", "forward=\"out\"", "at=\"127.0.0.1:4567\""]), "{log}");
    Ok(())
}

/// A program in the container that goes on, and the first line that it says.
fn program(ssh: &Ssh, key: &SshKey, code: &str, args: &str) -> Result<(Child, String)> {
    let mut client = ssh.client("ssh", key);
    client.arg(ssh.destination()).arg(format!("exec python3 -c '{code}' {args}"));
    let mut child = client.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let line = first_line(child.stdout.as_mut().context("piped")?)?;
    Ok((child, line))
}

fn first_line(stdout: &mut ChildStdout) -> Result<String> {
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

/// A tree goes in by `sftp` and comes out by `scp`.
fn files(ssh: &Ssh, key: &SshKey) -> Result<()> {
    let here = ssh.dir().join("tree");
    fs::create_dir_all(here.join("a folder/deep"))?;
    fs::write(here.join("a folder/deep/much"), much())?;
    fs::write(here.join("empty"), "")?;
    std::os::unix::fs::symlink("a folder/deep/much", here.join("link"))?;
    let batch = ssh.dir().join("batch");
    fs::write(
        &batch,
        format!(
            "mkdir /srv/tree\nput -rp {}/* /srv/tree\nsymlink renamed /srv/tree/ln\n\
             rename /srv/tree/empty /srv/tree/renamed\nchmod 600 /srv/tree/renamed\nls -l /srv/tree\n",
            here.display()
        ),
    )?;
    let done = ssh.client("sftp", key).arg("-b").arg(&batch).arg(ssh.destination()).output()?;
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    ensure!(done.status.success(), "{said}");
    let sum = ssh
        .text(key, "stat -c %a /srv/tree/renamed; readlink /srv/tree/ln; wc -c </srv/tree/link")?;
    ensure!(sum == format!("600\nrenamed\n{}\n", 6 << 20), "{sum}");
    let back = ssh.dir().join("back");
    let from = format!("{}:/srv/tree", ssh.destination());
    let copied = ssh.client("scp", key).arg("-rpq").arg(from).arg(&back).output()?;
    ensure!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    ensure!(fs::read(back.join("a folder/deep/much"))? == much(), "what comes back is what went");
    let to = format!("{}:/srv/again", ssh.destination());
    let copied = ssh.client("scp", key).arg("-q").arg(here.join("link")).arg(to).output()?;
    ensure!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    let same = ssh.run(key, "cmp /srv/again \"/srv/tree/a folder/deep/much\"")?;
    ensure!(same.status.success(), "{same:?}");
    Ok(())
}

/// A login shell at a terminal of the container's own, with its size, and an interrupt.
fn terminals(ssh: &Ssh, key: &SshKey) -> Result<()> {
    let mut client = ssh.client("ssh", key);
    client.arg("-tt").arg(ssh.destination()).env("TERM", "xterm-256color");
    let mut child = client.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().context("piped")?;
    stdin.write_all(b"tty; echo $TERM; echo at $((6*7))\n")?;
    let mut seen = String::new();
    let mut stdout = BufReader::new(child.stdout.take().context("piped")?);
    let mut until = |word: &str| -> Result<()> {
        let mut line = String::new();
        while !line.contains(word) {
            line.clear();
            ensure!(stdout.read_line(&mut line)? > 0, "{word} is not in {seen:?}");
            seen.push_str(&line);
        }
        Ok(())
    };
    until("at 42")?;
    stdin.write_all(format!("perl -e '{INTERRUPTED}'\n").as_bytes())?;
    until("ready")?;
    stdin.write_all(b"\x03")?;
    until("stopped")?;
    stdin.write_all(b"exit 7\n")?;
    drop(stdin);
    let status = child.wait()?;
    ensure!(status.code() == Some(7), "{status}: {seen:?}");
    ensure!(seen.contains("/dev/pts/") && seen.contains("xterm-256color\r\n"), "{seen:?}");
    Ok(())
}

/// Both ways through a port and a socket of the container.
fn local_forwards(ssh: &Ssh, key: &SshKey) -> Result<()> {
    let (mut echo, port) = program(ssh, key, ECHO, "")?;
    let mut client = ssh.client("ssh", key);
    client.args(["-W", &format!("127.0.0.1:{port}")]).arg(ssh.destination());
    let mut through = client.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut stdin = through.stdin.take().context("piped")?;
    let feeding = thread::spawn(move || stdin.write_all(&much()));
    let came = through.wait_with_output()?;
    ensure!(feeding.join().is_ok_and(|fed| fed.is_ok()), "all of it is taken");
    ensure!(came.status.success() && came.stdout == much(), "{} octets", came.stdout.len());
    ensure!(echo.wait()?.success(), "the program has ended");

    let (mut echo, path) = program(ssh, key, ECHO, "/run/echo.sock")?;
    let socket = ssh.dir().join("local.sock");
    let mut client = ssh.client("ssh", key);
    client.arg("-oExitOnForwardFailure=yes").arg("-L").arg(format!("{}:{path}", socket.display()));
    client.arg(ssh.destination()).arg("echo in; cat");
    let mut open = client.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    ensure!(first_line(open.stdout.as_mut().context("piped")?)? == "in", "the forward is there");
    let mut there = std::os::unix::net::UnixStream::connect(&socket)?;
    there.write_all(b"by a socket")?;
    there.shutdown(Shutdown::Write)?;
    let mut back = String::new();
    there.read_to_string(&mut back)?;
    ensure!(back == "by a socket", "{back:?}");
    ensure!(echo.wait()?.success(), "the program has ended");
    drop(open.stdin.take());
    ensure!(open.wait()?.success(), "the session ends");
    Ok(())
}

/// A program in the container reaches one beside the client.
fn remote_forwards(ssh: &Ssh, key: &SshKey) -> Result<()> {
    let server = TcpListener::bind("127.0.0.1:0")?;
    let to = server.local_addr()?.port();
    let echoing = thread::spawn(move || -> std::io::Result<()> {
        let (mut guest, _): (TcpStream, _) = server.accept()?;
        let mut data = Vec::new();
        guest.read_to_end(&mut data)?;
        guest.write_all(&data)
    });
    let mut client = ssh.client("ssh", key);
    client
        .arg("-oExitOnForwardFailure=yes")
        .arg("-R")
        .arg(format!("127.0.0.1:4567:127.0.0.1:{to}"));
    client.arg(ssh.destination()).arg(format!("exec python3 -c '{SENDS}' 4567"));
    let sent = client.stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&sent.stdout);
    ensure!(said == format!("{} True\n", 256 << 14), "{sent:?}");
    ensure!(echoing.join().is_ok_and(|echoed| echoed.is_ok()), "it was asked");
    Ok(())
}

/// The client's own agent answers in the container, if it is forwarded.
fn agents(ssh: &Ssh, key: &SshKey) -> Result<()> {
    let socket = ssh.dir().join("agent.sock");
    let mut agent =
        Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).spawn()?;
    let result = asks_the_agent(ssh, key, &socket);
    agent.kill()?;
    agent.wait()?;
    result
}

fn asks_the_agent(ssh: &Ssh, key: &SshKey, socket: &Path) -> Result<()> {
    gantry_tests::wait_until("the agent listens", FOLLOWS, || socket.exists())?;
    let mut add = Command::new("ssh-add");
    add.arg("-q").arg(&key.file).env("SSH_AUTH_SOCK", socket);
    ensure!(add.status()?.success(), "the agent has the key");
    let ask = |flag: &str| {
        let mut client = ssh.client("ssh", key);
        client.arg(flag).env("SSH_AUTH_SOCK", socket).arg(ssh.destination());
        client.arg(format!("exec python3 -c '{ASKS_AGENT}'")).output()
    };
    let asked = ask("-A")?;
    ensure!(asked.stdout == b"12 1\n", "{asked:?}");
    ensure!(!ask("-a")?.status.success(), "it is not there for who did not ask");
    Ok(())
}

/// What `gantry ssh-config` prints is all that `ssh` needs.
fn by_its_own_configuration(gantry: &Gantry, ssh: &Ssh, key: &SshKey) -> Result<()> {
    let home = ssh.dir().join("home");
    fs::create_dir_all(home.join(".ssh"))?;
    fs::copy(&key.file, home.join(".ssh/mine"))?;
    fs::write(home.join(".ssh/mine.pub"), &key.line)?;
    let printed = gantry.cli_command(&["ssh-config"])?.env("HOME", &home).output()?;
    let text = String::from_utf8(printed.stdout)?;
    ensure!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let known = text.lines().find_map(|line| line.strip_prefix("# For ~/.ssh/known_hosts: "));
    let hosts = home.join("known_hosts");
    fs::write(&hosts, format!("{}\n", known.context("the line for known_hosts")?))?;
    let config = home.join("config");
    fs::write(&config, &text)?;
    let mut client = Command::new("timeout");
    client.args(["60", "ssh", "-F"]).arg(&config);
    // The name means nothing to this machine's resolver; its address is the only thing that is added.
    client.arg(format!("-oHostName={}", gantry.address()));
    client.arg(format!("-oUserKnownHostsFile={}", hosts.display()));
    client.args(["-oStrictHostKeyChecking=yes", "-oBatchMode=yes", "one", "hostname"]);
    let said = client.env_remove("SSH_AUTH_SOCK").output()?;
    ensure!(said.stdout == b"one\n", "{said:?}\n{text}");
    Ok(())
}

/// Sessions of all kinds end when their container does not run any more.
pub(super) fn ends_with(gantry: &Gantry, ssh: &Ssh, key: &SshKey, how: &[&str]) -> Result<()> {
    let open = session(ssh, key)?;
    let mut client = ssh.client("sftp", key);
    let mut files =
        client.arg(ssh.destination()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut typed = files.stdin.take().context("piped")?;
    typed.write_all(b"pwd\n")?;
    let mut line = String::new();
    let mut shown = BufReader::new(files.stdout.take().context("piped")?);
    while !line.contains("working directory") {
        line.clear();
        ensure!(shown.read_line(&mut line)? > 0, "sftp begins");
    }
    let mut client = ssh.client("ssh", key);
    client
        .args(["-oExitOnForwardFailure=yes", "-NR", "/run/ends:127.0.0.1:9"])
        .arg(ssh.destination());
    let forward = client.stderr(Stdio::piped()).spawn()?;
    gantry_tests::wait_until("it listens", FOLLOWS, || {
        ssh.run(key, "test -S /run/ends").is_ok_and(|it| it.status.success())
    })?;
    let done = gantry.cli(&[&["containers"], how].concat())?;
    ensure!(done.status.success(), "{done:?}");
    for open in [open, forward] {
        let (took, said) = ended(open)?;
        ensure!(took < FOLLOWS, "{how:?}: {took:?} {said}");
    }
    // It hears that only when it asks for something, and may have gone before.
    drop(typed.write_all(b"ls\n"));
    drop(typed);
    ensure!(!files.wait()?.success(), "sftp has ended");
    Ok(())
}
