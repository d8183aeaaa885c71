//! The same product with Incus as its runtime.

use std::time::Duration;

use anyhow::{Result, ensure};
use gantry_tests::{Container, Gantry, Options, walk};

/// Names the socket of the Incus that tests may use; `scripts/incus run` sets it.
const SOCKET: &str = "GANTRY_TEST_INCUS";

/// The first start hands the image over, which takes seconds.
const SOON: Duration = Duration::from_mins(2);

/// The socket; `None` where this cannot be tested, which is said.
#[expect(clippy::print_stderr, reason = "a test says what it cannot test")]
#[expect(clippy::disallowed_methods, reason = "the script that starts Incus says where it is")]
fn socket() -> Option<String> {
    let socket = std::env::var(SOCKET).ok();
    if socket.is_none() {
        let why = format!("{SOCKET} names no Incus; run this by scripts/incus run");
        assert!(std::env::var_os("CI").is_none(), "{why}");
        eprintln!("\n*** NOT TESTED: {why} ***\n");
    }
    socket
}

#[test]
fn a_container_of_incus_answers_at_its_url_sleeps_and_outlives_gantry() {
    let Some(socket) = socket() else { return };
    walk(Options::incus(&socket).set("runtime.incus_pool=gantry-btrfs"), |gantry| {
        let project = gantry.create_project("incus")?;
        let more = ["--name", "one", "--environment-vars", "GREETING=hello"];
        let container = gantry.create_running(&project, &more)?;
        let url = gantry.url(&container, "http-19800", "/");
        gantry.wait_200(&url, SOON)?;
        // What systemd starts has the owner's environment, and the Kit's services are there.
        gantry.wait_200(&gantry.url(&container, "terminal-1", "/"), SOON)?;
        manage(gantry, &container, "pause", "paused")?;
        gantry.curl().with(["-H", "Accept: application/json"]).fetch(&url)?.expect(503)?;
        manage(gantry, &container, "resume", "running")?;
        gantry.wait_200(&url, SOON)?;
        gantry.kill()?;
        gantry.start_again()?;
        let seen = gantry.json(&["containers", "get", &container.id])?;
        ensure!(seen["status"] == "running", "{seen}");
        gantry.wait_200(&url, SOON)?;
        manage(gantry, &container, "stop", "stopped")?;
        manage(gantry, &container, "start", "running")?;
        gantry.wait_200(&url, SOON)?;
        let output = gantry.cli(&["containers", "delete", &container.id, "--wait"])?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        gantry.curl().fetch(&url)?.expect(404)?;
        Ok(())
    });
}

fn manage(gantry: &Gantry, container: &Container, operation: &str, status: &str) -> Result<()> {
    let args = ["containers", "manage", &container.id, operation, "--wait"];
    let after = gantry.json(&args)?;
    ensure!(after["status"] == status, "{operation}: {after}");
    Ok(())
}

#[test]
fn gantry_says_what_it_lacks_where_no_incus_listens() -> Result<()> {
    let gantry = Gantry::prepare(Options::incus("/nowhere/incus.socket"))?;
    let mut command = gantry.command(&["dev"])?;
    let output = command.arg("--state").arg(gantry.state()).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1), "{output:?}");
    for want in ["/nowhere/incus.socket", "runtime.kind", "does it run?"] {
        ensure!(said.contains(want), "{want} in {said}");
    }
    Ok(())
}
