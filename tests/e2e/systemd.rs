//! The units for systemd, under a real one.

use std::{
    fs,
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Result, anyhow, ensure};
use gantry_tests::{Machine, repository, wait_for};

const BOUND: Duration = Duration::from_mins(1);
const URL: &str = "https://api.gantry.localhost/api/v1/health";
const CURL: &str = "curl --silent --show-error --fail --max-time 20 --output /dev/null \
    --cacert /var/lib/gantry/ca/ca.pem --resolve api.gantry.localhost:443:127.0.0.1";

/// Asks again and again, each time by a connection of its own, until it is told that it is enough.
struct Load<'a> {
    machine: &'a Machine,
    child: Child,
}

impl<'a> Load<'a> {
    fn begin(machine: &'a Machine) -> Result<Self> {
        machine.run(&["rm", "-f", "/run/enough", "/run/first"])?;
        let script = format!(
            "asked=0; failed=0; refused=0
            until test -e /run/enough; do
                asked=$((asked + 1))
                {CURL} {URL} || case $? in
                7) refused=$((refused + 1)) ;;
                *) failed=$((failed + 1)) ;;
                esac
                touch /run/first
            done
            echo $asked $failed $refused"
        );
        let mut command = machine.command(&["sh", "-c", &script]);
        let child = command.stdout(Stdio::piped()).spawn()?;
        wait_for("a first answer", BOUND, || machine.run(&["test", "-e", "/run/first"]).ok())?;
        Ok(Self { machine, child })
    }

    /// None of its requests has failed.
    fn end(self) -> Result<()> {
        let [asked, failed, refused] = self.counted()?;
        ensure!(failed + refused == 0, "{failed} of {asked} have failed, {refused} were refused");
        Ok(())
    }

    /// How many there were, and how many of them failed and were not even connected.
    fn counted(self) -> Result<[u32; 3]> {
        self.machine.run(&["touch", "/run/enough"])?;
        let output = self.child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        let numbers = said.split_whitespace().map(str::parse).collect::<Result<Vec<_>, _>>()?;
        numbers.try_into().map_err(|numbers| anyhow!("three numbers: {numbers:?}"))
    }
}

fn installed() -> Result<Machine> {
    let machine = Machine::boot()?;
    for unit in ["gantry.service", "gantry.socket"] {
        let text = fs::read_to_string(repository::root().join("scripts/systemd").join(unit))?;
        machine.write(&format!("/etc/systemd/system/{unit}"), &text)?;
    }
    machine.write("/etc/gantry.toml", "[runtime]\nkind = \"fake\"\n")?;
    machine.run(&["ip", "link", "set", "lo", "up"])?;
    machine.run(&["systemctl", "daemon-reload"])?;
    Ok(machine)
}

fn pid(machine: &Machine) -> Result<String> {
    machine.run(&["systemctl", "show", "--property=MainPID", "--value", "gantry"])
}

fn reload(machine: &Machine) -> Result<()> {
    let before = pid(machine)?;
    machine.run(&["systemctl", "reload", "gantry"])?;
    let after = pid(machine)?;
    ensure!(before != after && after != "0", "process {before} and then {after}");
    machine.run(&["systemctl", "is-active", "gantry"]).map(drop)
}

/// Kills it and waits until another one is there in its place.
fn kill(machine: &Machine) -> Result<()> {
    let before = pid(machine)?;
    machine.run(&["kill", "-9", &before])?;
    wait_for("it is started again", BOUND, || {
        machine.run(&["systemctl", "is-active", "gantry"]).ok()?;
        pid(machine).ok().filter(|pid| *pid != before && pid != "0")
    })?;
    Ok(())
}

#[test]
fn systemd_starts_it_and_replaces_it_without_a_failed_request() -> Result<()> {
    let machine = installed()?;
    let verified =
        machine.output(&["systemd-analyze", "verify", "/etc/systemd/system/gantry.service"])?;
    // What it says of other units is theirs.
    let said = String::from_utf8_lossy(&verified.stderr);
    ensure!(!said.contains("gantry"), "{said}");
    machine.run(&["systemctl", "start", "gantry"])?;
    // Started means that it serves.
    machine.run(&["sh", "-c", &format!("{CURL} {URL}")])?;

    let load = Load::begin(&machine)?;
    for _ in 0..3 {
        reload(&machine)?;
    }
    let before = pid(&machine)?;
    machine.write("/etc/gantry.toml", "[runtime]\nkind = \"fake\"\n[log]\ncolour = \"red\"\n")?;
    let refused = machine.output(&["systemctl", "reload", "gantry"])?;
    ensure!(!refused.status.success(), "{refused:?}");
    // The reason is told where people look, and nothing has changed.
    machine.run(&["journalctl", "--sync"])?;
    let journal = machine.run(&["journalctl", "--unit=gantry", "--output=cat"])?;
    ensure!(journal.contains("log.colour: there is no such key"), "{journal}");
    ensure!(pid(&machine)? == before);
    machine.write("/etc/gantry.toml", "[runtime]\nkind = \"fake\"\n")?;
    reload(&machine)?;
    load.end()?;

    kill(&machine)?;
    machine.run(&["systemctl", "stop", "gantry"])?;
    let result = machine.run(&["systemctl", "show", "--property=Result", "--value", "gantry"])?;
    ensure!(result == "success", "{result}");
    let left = machine.output(&["pgrep", "-x", "gantry"])?;
    ensure!(!left.status.success(), "{left:?}");
    Ok(())
}

/// Nobody is refused, not even while there is no process.
#[test]
fn systemd_keeps_the_ports_open_over_a_restart_and_a_crash() -> Result<()> {
    let machine = installed()?;
    machine.run(&["systemctl", "start", "gantry.socket"])?;
    let state = machine.output(&["systemctl", "is-active", "gantry.service"])?;
    ensure!(state.stdout.trim_ascii() == b"inactive", "{state:?}");
    // Its certificate authority is there only after the first start.
    machine.run(&["sh", "-c", "curl --silent --max-time 20 --insecure https://127.0.0.1 || :"])?;
    let load = Load::begin(&machine)?;
    machine.run(&["systemctl", "restart", "gantry"])?;
    reload(&machine)?;
    load.end()?;
    // Whoever it was talking to when it was killed has lost that, and nobody else.
    let load = Load::begin(&machine)?;
    kill(&machine)?;
    let [_, failed, refused] = load.counted()?;
    ensure!(failed <= 1 && refused == 0, "{failed} have failed, {refused} were refused");
    // SSH comes by systemd's socket, too.
    let greeting = "exec 3<>/dev/tcp/127.0.0.1/2222; head -c 8 <&3";
    let greeting = machine.run(&["bash", "-c", greeting])?;
    ensure!(greeting.starts_with("SSH-2.0-"), "{greeting}");
    Ok(())
}
