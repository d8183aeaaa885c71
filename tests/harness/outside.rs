//! A place outside of this machine, as far as its network is concerned.

use std::{fs, net::Ipv4Addr, process::Command};

use anyhow::{Context, Result, ensure};

/// A network namespace with a cable to this machine. What comes and goes among the machine's interfaces
/// is not seen in it.
#[derive(Debug)]
pub struct Outside {
    name: String,
    cable: String,
    /// The machine's address at its end of the cable.
    pub here: Ipv4Addr,
    /// The only address at the other end, but for the loopback.
    pub there: Ipv4Addr,
}

impl Outside {
    /// Makes one, of a range for tests of networks (RFC 2544).
    pub fn new() -> Result<Self> {
        let own = std::process::id();
        // Either name may be taken, by whomever and from wherever.
        let mut failed = None;
        for number in (own..own + 64).map(|number| number % 0x4000) {
            let net = u32::from(Ipv4Addr::new(198, 19, 0, 0)) + number * 4;
            let (name, cable) = (format!("gantry-outside-{number}"), format!("gto{number}"));
            let ends = ["type", "veth", "peer", "name", "net", "netns", &name];
            if let Err(error) = run("ip", &["netns", "add", &name]) {
                failed = Some(error);
            } else if let Err(error) = run("ip", &[&["link", "add", &cable], &ends[..]].concat()) {
                run("ip", &["netns", "del", &name])?;
                failed = Some(error);
            } else {
                let (here, there) = (Ipv4Addr::from(net + 1), Ipv4Addr::from(net + 2));
                let outside = Self { name, cable, here, there };
                outside.connect()?;
                return Ok(outside);
            }
        }
        Err(failed.context("a range of 64")?)
    }

    fn connect(&self) -> Result<()> {
        let Self { cable, here, there, .. } = self;
        run("ip", &["addr", "add", &format!("{here}/30"), "dev", cable])?;
        // Without addresses of IPv6, which come by themselves, a while later.
        run("ip", &["link", "set", cable, "addrgenmode", "none"])?;
        run("ip", &["link", "set", cable, "up"])?;
        self.run(&["ip", "addr", "add", &format!("{there}/30"), "dev", "net"])?;
        self.run(&["ip", "link", "set", "net", "addrgenmode", "none"])?;
        self.run(&["ip", "link", "set", "net", "up"])?;
        self.run(&["ip", "link", "set", "lo", "up"])?;
        Ok(())
    }

    /// Has what is sent from there to [`Self::here`] arrive at another address of this machine, such as
    /// one of its loopback.
    pub fn lead_to(&self, address: Ipv4Addr) -> Result<()> {
        let Self { cable, here, .. } = self;
        fs::write(format!("/proc/sys/net/ipv4/conf/{cable}/route_localnet"), "1")?;
        let table = format!(
            "table ip {cable} {{ chain in {{ type nat hook prerouting priority dstnat; \
             iifname \"{cable}\" ip daddr {here} dnat to {address}; }}; }}"
        );
        run("nft", &[&table]).map(drop)
    }

    /// A command that runs there.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Runs a command there and returns what it says.
    pub fn run(&self, argv: &[&str]) -> Result<String> {
        run("ip", &[&["netns", "exec", &self.name], argv].concat())
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        // What is not there any more needs no removing. The cable goes at once, not with whatever may
        // still run at its other end.
        drop(run("nft", &["delete", "table", "ip", &self.cable]));
        drop(run("ip", &["link", "del", &self.cable]));
        drop(run("ip", &["netns", "del", &self.name]));
    }
}

fn run(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program).args(args).output().context(program.to_owned())?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {}: {said}", args.join(" "));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
