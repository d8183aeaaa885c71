//! A machine of its own, with a real systemd.

use std::{
    fs,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::{binary, signal, wait_for};

/// How long it may take to boot.
const BOOT: Duration = Duration::from_mins(2);

/// Has a copy of this machine's files, of which nothing is written back, and a network without any cable.
/// Of what is installed here, no service, socket or timer is started there. One of them at a time in one process.
#[derive(Debug)]
pub struct Machine {
    name: String,
    child: Child,
    /// Its first process, as seen from here.
    init: String,
    /// Where its mounts are, which only it sees.
    _place: TempDir,
}

impl Machine {
    /// Starts one that sees the program of this test as `/usr/local/bin/gantry`.
    pub fn boot() -> Result<Self> {
        let name = format!("gantry-machine-{}", std::process::id());
        // The mounts go with it, however this test ends.
        let script = "set -e; cd /; own=$2; mount -t tmpfs none $own
            mkdir $own/upper $own/work $own/root
            mount -t overlay -o lowerdir=/,upperdir=$own/upper,workdir=$own/work none $own/root
            cd $own/root/etc
            rm -rf fstab systemd/system/gantry.* systemd/system/*.wants systemd/system/*.requires
            cd /
            exec systemd-nspawn --quiet --directory=$own/root --machine=$0 --private-network \
                --bind-ro=$1:/usr/local/bin/gantry --tmpfs=/var/lib/gantry \
                --register=no --keep-unit --console=pipe --link-journal=no --boot \
                systemd.unit=basic.target";
        // If this test is killed, it is told to halt.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig=TERM", "unshare", "--mount", "sh", "-c", script, &name]);
        let place = tempfile::tempdir()?;
        command.arg(binary()?).arg(place.path());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().context("setpriv")?;
        let mut machine = Self { name, child, init: String::new(), _place: place };
        let path = format!("/proc/{0}/task/{0}/children", machine.child.id());
        machine.init = wait_for("a machine boots", BOOT, || {
            let children = fs::read_to_string(&path).unwrap_or_default();
            let mut children = children.split_whitespace();
            children.find(|child| is_first(child) && is_up(child)).map(str::to_owned)
        })?;
        Ok(machine)
    }

    /// A command that runs there.
    pub fn command(&self, argv: &[&str]) -> Command {
        entering(&self.init, argv)
    }

    /// Runs a command there.
    pub fn output(&self, argv: &[&str]) -> Result<Output> {
        Ok(self.command(argv).output()?)
    }

    /// Runs a command there that does not fail, and returns what it says.
    pub fn run(&self, argv: &[&str]) -> Result<String> {
        let output = self.output(argv)?;
        let text = |octets: &[u8]| String::from_utf8_lossy(octets).trim().to_owned();
        ensure!(output.status.success(), "{}: {}", argv.join(" "), text(&output.stderr));
        Ok(text(&output.stdout))
    }

    /// Writes a file there.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        self.run(&["sh", "-c", "printf %s \"$1\" > \"$0\"", path, text]).map(drop)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // All that runs there ends with its first process, and so does what has started that.
        if !self.init.parse().is_ok_and(|init| signal("KILL", init).is_ok()) {
            drop(self.child.kill());
        }
        drop(self.child.wait());
        drop(fs::remove_dir(format!("/run/systemd/nspawn/propagate/{}", self.name)));
    }
}

/// Whether it is the first process of a machine: what makes that has the processes of this one around it, and a
/// command that enters it would reach this one's systemd.
fn is_first(process: &str) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let own = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    own.is_some_and(|numbers| numbers.split_whitespace().skip(1).last() == Some("1"))
}

fn is_up(init: &str) -> bool {
    let asked = entering(init, &["systemctl", "is-active", "basic.target"]).output();
    asked.is_ok_and(|output| output.status.success())
}

fn entering(init: &str, argv: &[&str]) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["--target", init, "--all"]).args(argv);
    command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command.env("HOME", "/root").stdin(Stdio::null());
    command
}
