//! Containers that see the addresses of their clients, with the routing that `scripts/transparent`
//! installs: a client in a network namespace, a real container behind its bridge.

use std::{net::Ipv4Addr, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use gantry_tests::{Gantry, Options, repository, wait_until, walk_on};

/// Answers each connection with the address that it comes from.
const SAYS_WHO: &str = r#"
use IO::Socket::INET;
my $door = IO::Socket::INET->new(LocalPort => 3000, Listen => 9, ReuseAddr => 1) or die;
while (my $guest = $door->accept) {
    while (my $line = <$guest>) { last if $line =~ /^\r?$/ }
    my $who = $guest->peerhost;
    print $guest "HTTP/1.1 200 OK\r\nContent-Length: ", length $who, "\r\nConnection: close\r\n\r\n$who";
    close $guest;
}"#;

/// The client's corner of the network: a namespace with a cable to this machine.
struct Outside {
    name: String,
    cable: String,
    bridge: String,
    here: Ipv4Addr,
    there: Ipv4Addr,
}

impl Outside {
    fn new(gantry: &Gantry) -> Self {
        let pid = std::process::id();
        // A range for tests of networks (RFC 2544); each process has four addresses of its own.
        let net = u32::from(Ipv4Addr::new(198, 18, 0, 0)) + pid % 0x8000 * 4;
        Self {
            name: format!("gantry-outside-{pid}"),
            cable: format!("gto{pid}"),
            bridge: gantry.bridge().to_owned(),
            here: Ipv4Addr::from(net + 1),
            there: Ipv4Addr::from(net + 2),
        }
    }

    fn install(&self) -> Result<()> {
        let Self { name, cable, here, there, .. } = self;
        run("ip", &["netns", "add", name])?;
        run("ip", &["link", "add", cable, "type", "veth", "peer", "name", "net", "netns", name])?;
        run("ip", &["addr", "add", &format!("{here}/30"), "dev", cable])?;
        run("ip", &["link", "set", cable, "up"])?;
        self.inside(&["ip", "addr", "add", &format!("{there}/30"), "dev", "net"])?;
        self.inside(&["ip", "link", "set", "net", "up"])?;
        self.inside(&["ip", "link", "set", "lo", "up"])?;
        script(&["install", &self.bridge])
    }

    fn inside(&self, argv: &[&str]) -> Result<String> {
        run("ip", &[&["netns", "exec", &self.name], argv].concat())
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        // What is not there any more needs no removing.
        drop(script(&["remove", &self.bridge]));
        drop(run("ip", &["netns", "del", &self.name]));
    }
}

fn run(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program).args(args).output().context(program.to_owned())?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {}: {said}", args.join(" "));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn script(args: &[&str]) -> Result<()> {
    let path = repository::root().join("scripts/transparent");
    run(&path.to_string_lossy(), args).map(drop)
}

#[test]
fn a_real_container_sees_the_address_of_its_client() -> Result<()> {
    let mut gantry = Gantry::prepare(Options::embedded().set("edge.client_address=transparent"))?;
    let outside = Outside::new(&gantry);
    outside.install()?;
    gantry.also_on(outside.here);
    walk_on(Ok(gantry), |gantry| {
        let project = gantry.create_project("transparent")?;
        let container = gantry.create_running(&project, &[])?;
        gantry.start_inside(&container, &["perl", "-e", SAYS_WHO])?;
        let url = gantry.url(&container, "http-3000", "/");
        // A client on this machine has no address that could be lent.
        let mut own = String::new();
        wait_until("the program answers", Duration::from_secs(30), || {
            let answer = gantry.curl().fetch(&url);
            answer.is_ok_and(|answer| {
                own = answer.text();
                answer.status == 200
            })
        })?;
        let ca = gantry.ca_path().display().to_string();
        let connect = format!("::{}:8443", outside.here);
        let fetch = ["curl", "-sS", "--max-time", "20", "--cacert", &ca, "--connect-to", &connect];
        let seen = outside.inside(&[&fetch[..], &[&url]].concat())?;
        ensure!(seen == outside.there.to_string(), "not {} but {seen} is seen", outside.there);
        ensure!(own.starts_with("10.77."), "{own}");
        Ok(())
    });
    Ok(())
}
