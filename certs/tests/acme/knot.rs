//! Knot DNS: an authoritative server on an address and a port of its own, for one test.

use std::{
    fmt::Write as _,
    fs::{self, File},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use tempfile::TempDir;

use crate::{pebble::free_port, wait_for, wait_until};

/// How long a server may take to do what it was asked for.
const BOUND: Duration = Duration::from_secs(20);

/// Which name a change may be made with, its algorithm and its secret.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) algorithm: String,
    pub(crate) secret: String,
}

impl Key {
    /// A key as `keymgr` makes it.
    pub(crate) fn new(name: &str, algorithm: &str) -> Result<Self> {
        let output = Command::new("keymgr").args(["-t", name, algorithm]).output()?;
        let text = String::from_utf8(output.stdout)?;
        let secret = text.lines().find_map(|line| line.trim().strip_prefix("secret: "));
        let secret = secret.with_context(|| format!("keymgr says no secret: {text}"))?.to_owned();
        Ok(Self { name: name.to_owned(), algorithm: algorithm.to_owned(), secret })
    }
}

/// A zone: its name and its records, as lines of a zone file whose origin it is.
pub(crate) type Zone<'z> = (&'z str, &'z str);

/// Addresses that no other test has, with one port on all of them, so that name servers can be told
/// apart by address, as in the world.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    net: [u8; 2],
    pub(crate) port: u16,
}

impl Place {
    pub(crate) fn new() -> Result<Self> {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let of_process = u8::try_from(std::process::id() % 200)? + 20;
        let net = [of_process, NEXT.fetch_add(1, Ordering::Relaxed)];
        let free = || {
            let port = free_port().ok()?;
            let at = |host| SocketAddr::new(Self { net, port }.host(host), port);
            let by_tcp = [1, 2, 3].map(|host| TcpListener::bind(at(host)));
            let by_udp = [1, 2, 3].map(|host| UdpSocket::bind(at(host)));
            let is_free = by_tcp.iter().all(Result::is_ok) && by_udp.iter().all(Result::is_ok);
            is_free.then_some(port)
        };
        let port = wait_for("a free port", BOUND, free)?;
        Ok(Self { net, port })
    }

    /// The address of the first, second or third server.
    pub(crate) fn host(self, number: u8) -> IpAddr {
        let [a, b] = self.net;
        Ipv4Addr::new(127, a, b, number).into()
    }

    pub(crate) fn at(self, number: u8) -> SocketAddr {
        SocketAddr::new(self.host(number), self.port)
    }
}

/// A running server, which ends with the test.
pub(crate) struct Knot {
    child: Option<Child>,
    dir: TempDir,
    address: SocketAddr,
}

impl Knot {
    /// A primary of these zones, which takes changes of TXT records with the key.
    pub(crate) fn primary(address: SocketAddr, key: &Key, zones: &[Zone<'_>]) -> Result<Self> {
        Self::restricted(address, key, zones, "")
    }

    /// As [`Self::primary`], with further lines for the rule that lets the key change something.
    pub(crate) fn restricted(
        address: SocketAddr,
        key: &Key,
        zones: &[Zone<'_>],
        rule: &str,
    ) -> Result<Self> {
        let mut text = format!(
            "key:\n  - id: {}\n    algorithm: {}\n    secret: {}\n\
             acl:\n  - id: change\n    key: {}\n    action: update\n    update-type: [TXT]\n{rule}  \
               - id: copy\n    address: 127.0.0.0/8\n    action: transfer\nzone:\n",
            key.name, key.algorithm, key.secret, key.name
        );
        for (zone, _) in zones {
            write!(text, "  - domain: {zone}\n    file: {zone}.zone\n    acl: [change, copy]\n")?;
            text.push_str("    zonefile-sync: -1\n    journal-content: changes\n");
        }
        Self::start(address, &text, zones)
    }

    /// A secondary, which hears of no change and asks the primary when it is told to, by
    /// [`Self::refresh`].
    pub(crate) fn secondary(
        address: SocketAddr,
        primary: SocketAddr,
        zones: &[&str],
    ) -> Result<Self> {
        let mut text =
            format!("remote:\n  - id: primary\n    address: {}\nzone:\n", at_sign(primary));
        for zone in zones {
            write!(text, "  - domain: {zone}\n    master: primary\n    zonefile-sync: -1\n")?;
        }
        let mut knot = Self::start(address, &text, &[])?;
        for zone in zones {
            knot.await_zone(zone)?;
        }
        Ok(knot)
    }

    fn start(address: SocketAddr, config: &str, zones: &[Zone<'_>]) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().display();
        let text = format!(
            "server:\n    rundir: {path}\n    listen: {}\n    udp-workers: 1\n    tcp-workers: 1\n    \
               background-workers: 1\nlog:\n  - target: stderr\n    any: info\n\
             database:\n    storage: {path}/db\n\
             template:\n  - id: default\n    storage: {path}\n{config}",
            at_sign(address)
        );
        fs::write(dir.path().join("knot.conf"), text)?;
        fs::create_dir(dir.path().join("db"))?;
        for (zone, records) in zones {
            let text = format!(
                "$ORIGIN {zone}.\n$TTL 60\n@ SOA ns1 hostmaster 1 3600 600 86400 60\n{records}\n"
            );
            fs::write(dir.path().join(format!("{zone}.zone")), text)?;
        }
        let mut knot = Self { child: None, dir, address };
        knot.run()?;
        for (zone, _) in zones {
            knot.await_zone(zone)?;
        }
        Ok(knot)
    }

    /// Starts the server, the first time or again.
    pub(crate) fn run(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.dir.path().join("log"))?;
        let mut command = Command::new("knotd");
        command.arg("-c").arg(self.dir.path().join("knot.conf"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().context("knotd is missing: install knot")?);
        Ok(())
    }

    /// Ends the server; [`Self::run`] starts it again.
    pub(crate) fn stop(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Has a secondary ask its primary for what is new, and waits until it is here.
    pub(crate) fn refresh(&self, zone: &str, primary: &Self) -> Result<()> {
        self.control(&["zone-refresh", zone])?;
        let serial = primary.dig(zone, "SOA")?;
        wait_until("the transfer", BOUND, || self.dig(zone, "SOA").is_ok_and(|at| at == serial))
    }

    /// Says something to the server by its control socket.
    pub(crate) fn control(&self, words: &[&str]) -> Result<()> {
        let socket = self.dir.path().join("knot.sock");
        let output = Command::new("knotc").arg("-s").arg(socket).args(words).output()?;
        ensure!(output.status.success(), "knotc {words:?}: {output:?}");
        Ok(())
    }

    /// What the server says of a name, by `dig +short`.
    pub(crate) fn dig(&self, name: &str, kind: &str) -> Result<Vec<String>> {
        dig(self.address, name, kind)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    fn await_zone(&mut self, zone: &str) -> Result<()> {
        let address = self.address;
        let child = self.child.as_mut().context("it does not run")?;
        wait_for(zone, BOUND, || match child.try_wait() {
            Ok(None) => {
                let is_there = dig(address, zone, "SOA").is_ok_and(|lines| !lines.is_empty());
                is_there.then_some(Ok(()))
            }
            ended => Some(Err(anyhow!("knotd has ended: {ended:?}"))),
        })?
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Knot {
    fn drop(&mut self) {
        // Shown where the test has failed.
        eprintln!("{}", self.log());
        if let Err(error) = self.stop() {
            eprintln!("a server of a test stays behind: {error}");
        }
    }
}

/// An address as Knot's configuration has it.
fn at_sign(address: SocketAddr) -> String {
    format!("{}@{}", address.ip(), address.port())
}

/// The answer to a question, one line for each record, in order.
pub(crate) fn dig(server: SocketAddr, name: &str, kind: &str) -> Result<Vec<String>> {
    let (host, port) = (format!("@{}", server.ip()), server.port().to_string());
    let mut command = Command::new("dig");
    command.args([&host, "-p", &port, "+short", "+tries=3", "+time=5", "+norecurse"]);
    let output = command.args([name, kind]).output().context("dig is missing")?;
    ensure!(output.status.success(), "dig: {output:?}");
    let text = String::from_utf8(output.stdout)?;
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines.sort();
    Ok(lines)
}

/// Changes records with `nsupdate`, a foreign client: lines such as `update add NAME TTL TXT "x"`.
pub(crate) fn nsupdate(server: SocketAddr, key: &Key, dir: &Path, lines: &str) -> Result<()> {
    let script = dir.join("nsupdate");
    let (host, port) = (server.ip(), server.port());
    fs::write(&script, format!("server {host} {port}\n{lines}\nsend\n"))?;
    let key = format!("{}:{}:{}", key.algorithm, key.name, key.secret);
    let output = Command::new("nsupdate").args(["-y", &key]).arg(&script).output()?;
    ensure!(output.status.success(), "nsupdate: {output:?}");
    Ok(())
}
