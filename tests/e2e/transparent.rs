//! Containers that see the addresses of their clients, with the routing that `scripts/transparent`
//! installs: a client in a network namespace, a real container behind its bridge.

use std::{process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use gantry_tests::{Gantry, Options, Outside, repository, wait_until, walk_on};

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

/// The machine's routing, which goes back to what it was.
struct Routed(String);

impl Routed {
    fn install(bridge: &str) -> Result<Self> {
        let routed = Self(bridge.to_owned());
        script(&["install", bridge])?;
        Ok(routed)
    }
}

impl Drop for Routed {
    fn drop(&mut self) {
        // What is not there any more needs no removing.
        drop(script(&["remove", &self.0]));
    }
}

fn script(args: &[&str]) -> Result<()> {
    let path = repository::root().join("scripts/transparent");
    let output = Command::new(path).args(args).output().context("scripts/transparent")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[test]
fn a_real_container_sees_the_address_of_its_client() -> Result<()> {
    let mut gantry = Gantry::prepare(Options::embedded().set("edge.client_address=transparent"))?;
    // A client outside of this machine, whose address the container is to see.
    let outside = Outside::new()?;
    let _routed = Routed::install(gantry.bridge())?;
    gantry.also_on(outside.here);
    walk_on(Ok(gantry), |gantry| {
        let project = gantry.create_project("transparent")?;
        let container = gantry.create_running(&project, &[])?;
        gantry.start_inside(&container, &["perl", "-e", SAYS_WHO])?;
        let url = gantry.url(&container, "http-3000", "/");
        // A client on this machine has no address that could be lent.
        let mut own = String::new();
        let mut said = String::new();
        wait_until("the program answers", Duration::from_secs(30), || {
            let answer = gantry.curl().fetch(&url);
            said = format!("{answer:?}");
            answer.is_ok_and(|answer| {
                own = answer.text();
                answer.status == 200
            })
        })
        .with_context(|| said.clone())?;
        let ca = gantry.ca_path().display().to_string();
        let connect = format!("::{}:8443", outside.here);
        let fetch = ["curl", "-sS", "--max-time", "20", "--cacert", &ca, "--connect-to", &connect];
        let seen = outside.run(&[&fetch[..], &[&url]].concat())?;
        ensure!(seen == outside.there.to_string(), "not {} but {seen} is seen", outside.there);
        ensure!(own.starts_with("10.77."), "{own}");
        Ok(())
    });
    Ok(())
}
