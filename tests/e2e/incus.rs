//! The same product with Incus as its runtime.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use gantry_tests::{Container, Gantry, Options, wait_until, walk};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::images::small_image;

/// Names the socket of the Incus that tests may use; `scripts/incus run` sets it.
const SOCKET: &str = "GANTRY_TEST_INCUS";

/// The first start hands the image over, which takes seconds.
const SOON: Duration = Duration::from_mins(2);

/// The socket; `None` where this cannot be tested, which is said.
#[expect(clippy::print_stderr, reason = "a test says what it cannot test")]
#[expect(clippy::disallowed_methods, reason = "the script that starts Incus says where it is")]
pub(crate) fn socket() -> Option<String> {
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

/// How many containers are asked for while Incus dies.
const CREATIONS: usize = 20;

#[test]
fn all_creations_come_to_their_end_although_incus_is_killed_in_the_middle() {
    let half = CREATIONS / 2;
    // Where the shared one cannot be had, this cannot either.
    if socket().is_none() {
        return;
    }
    let mut incus = Incus::start().expect("an Incus of its own");
    let options = Options::incus(&incus.socket()).set("runtime.incus_pool=plain");
    walk(options, |gantry| {
        small_image(&gantry.state().join("images/busybox"))?;
        let project = gantry.create_project("many")?;
        let mut made = create(gantry, &project, half)?;
        wait_until("some run", SOON, || running(gantry).is_ok_and(|ids| ids.len() >= 2))?;
        incus.kill()?;
        // The API takes wishes while there is no Incus.
        made.extend(create(gantry, &project, half)?);
        incus.run()?;
        let failed = || gantry.json(&["containers", "list", "--limit", "100"]);
        wait_until("all run", SOON, || running(gantry).is_ok_and(|ids| ids == made))
            .with_context(|| format!("{:?}", failed()))?;
        let addresses = incus.addresses()?;
        ensure!(addresses.len() == made.len(), "{addresses:?} instead of {made:?}");
        let unlike: BTreeSet<&String> = addresses.iter().collect();
        ensure!(unlike.len() == made.len(), "shared addresses: {addresses:?}");
        Ok(())
    });
}

/// Asks for containers from several clients at once; gives their ids.
fn create(gantry: &Gantry, project: &str, count: usize) -> Result<BTreeSet<String>> {
    let image = ["--container-image", "busybox/1", "--no-hoody-kit"];
    thread::scope(|scope| {
        let clients: Vec<_> =
            (0..count).map(|_| scope.spawn(|| gantry.create(project, &image))).collect();
        let made = clients.into_iter().map(|client| {
            let made = client.join();
            Ok(made.map_err(|panic| anyhow!("a client panicked: {panic:?}"))??.id)
        });
        made.collect()
    })
}

/// The ids of the containers that run.
fn running(gantry: &Gantry) -> Result<BTreeSet<String>> {
    let list = gantry.json(&["containers", "list", "--limit", "100"])?;
    let list = list["containers"].as_array().context("no list")?;
    let run = list.iter().filter(|one| one["status"] == "running");
    Ok(run.filter_map(|one| one["id"].as_str().map(str::to_owned)).collect())
}

/// An Incus that a test may kill: all others use the one of `scripts/incus`.
struct Incus {
    dir: TempDir,
    child: Option<Child>,
}

impl Incus {
    /// Starts it, with a pool of directories.
    fn start() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("gantry-incus-").tempdir_in("/var/lib")?;
        let mut incus = Self { dir, child: None };
        incus.run()?;
        incus.call("POST", "/1.0/storage-pools", &json!({ "name": "plain", "driver": "dir" }))?;
        Ok(incus)
    }

    fn socket(&self) -> String {
        self.dir.path().join("unix.socket").display().to_string()
    }

    /// Starts the daemon and waits until it answers.
    fn run(&mut self) -> Result<()> {
        let places = ["/usr/libexec/incus", "/usr/lib/incus", "/opt/incus/bin"];
        let program = places.iter().map(|place| Path::new(place).join("incusd"));
        let program = program.into_iter().find(|path| path.exists()).context("no incusd")?;
        let log = self.dir.path().join("incusd.log");
        let child = Command::new(&program)
            .args(["--group", "root", "--logfile"])
            .arg(log)
            .env("INCUS_DIR", self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        self.child = Some(child);
        let ready = Command::new(&program)
            .args(["waitready", "--timeout=60"])
            .env("INCUS_DIR", self.dir.path())
            .output()?;
        ensure!(ready.status.success(), "{}", String::from_utf8_lossy(&ready.stderr));
        Ok(())
    }

    fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("Incus does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--max-time", "30", "--request", method])
            .args(["--unix-socket", &self.socket(), "--data", &body.to_string()])
            .arg(format!("http://incus{path}"))
            .output()?;
        let answer: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        if answer["type"] == "error" {
            bail!("{method} {path}: {answer}");
        }
        Ok(answer["metadata"].clone())
    }

    /// The addresses of all of its instances.
    fn addresses(&self) -> Result<Vec<String>> {
        let path = "/1.0/instances?recursion=1&all-projects=true";
        let list = self.call("GET", path, &Value::Null)?;
        let list = list.as_array().context("no list")?.iter();
        let address =
            |one: &Value| one["devices"]["eth0"]["ipv4.address"].as_str().map(str::to_owned);
        list.map(|one| address(one).context("no address")).collect()
    }
}

impl Drop for Incus {
    /// Best effort: a test has its result by now.
    fn drop(&mut self) {
        if self.child.is_some() {
            drop(self.kill());
        }
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        let dir = self.dir.path().display().to_string();
        for line in mounts.lines().rev() {
            if let Some(point) = line.split(' ').nth(1).filter(|point| point.starts_with(&dir)) {
                drop(Command::new("umount").args(["--lazy", point]).status());
            }
        }
    }
}
