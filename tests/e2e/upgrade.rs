//! Gantry is replaced while it works: nothing fails, nothing is cut off, nothing is lost.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixDatagram,
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use gantry_tests::{
    Container, Foreign, Gantry, Options, Ssh, SshKey, repository, signal, wait_for, wait_until,
    walk_on,
};
use serde_json::Value;

use crate::{incus, streams};

/// How often it is replaced under load, unless this variable says otherwise.
const UPGRADES: u32 = 4;
const UPGRADES_VARIABLE: &str = "GANTRY_TEST_UPGRADES";
/// With this variable set its containers are of Incus.
const INCUS_VARIABLE: &str = "GANTRY_TEST_UPGRADES_INCUS";
/// What had been under way, and is told to end, ends within this time.
const SOON: Duration = Duration::from_secs(20);

/// Counts the lines of its input.
const COUNT: &str = "n=0; while read l; do n=$((n+1)); echo $n; done";

/// A session that counts the lines that it is sent.
pub(crate) struct Counter {
    client: Child,
    said: BufReader<std::process::ChildStdout>,
    count: u32,
}

impl Counter {
    pub(crate) fn over_ssh(ssh: &Ssh, key: &SshKey) -> Result<Self> {
        let mut client = Command::new("ssh");
        client.args(["-F", "none", "-i"]).arg(&key.file).env_remove("SSH_AUTH_SOCK");
        client.args(ssh.options().iter().map(|option| format!("-o{option}")));
        client.arg(ssh.destination()).arg(COUNT);
        Self::begin(client)
    }

    /// The same through the API.
    pub(crate) fn over_exec(gantry: &Gantry, container: &Container) -> Result<Self> {
        let args = ["exec", "-i", &container.id, "--", "sh", "-c", COUNT];
        Self::begin(gantry.cli_command(&args)?)
    }

    fn begin(mut client: Command) -> Result<Self> {
        let mut client = client.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let said = BufReader::new(client.stdout.take().context("piped")?);
        let mut counter = Self { client, said, count: 0 };
        counter.count()?;
        Ok(counter)
    }

    /// How the session has ended, which must be soon.
    fn ended(&mut self) -> Result<ExitStatus> {
        let ended = || self.client.try_wait().ok().flatten();
        wait_for("the session ends", Duration::from_secs(5), ended)
    }

    pub(crate) fn count(&mut self) -> Result<()> {
        self.client.stdin.as_mut().context("piped")?.write_all(b"another\n")?;
        self.count += 1;
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        ensure!(line.trim() == self.count.to_string(), "{line:?} instead of {}", self.count);
        Ok(())
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.client.kill());
        drop(self.client.wait());
    }
}

#[expect(clippy::disallowed_methods, reason = "a test is told nothing by cli::config")]
fn upgrades() -> u32 {
    let wanted = std::env::var(UPGRADES_VARIABLE).ok().and_then(|text| text.parse().ok());
    wanted.unwrap_or(UPGRADES)
}

fn options() -> Result<Options> {
    if std::env::var_os(INCUS_VARIABLE).is_none() {
        return Ok(Options::embedded().file(String::new()));
    }
    let socket = incus::socket().context("no Incus")?;
    Ok(Options::incus(&socket).set("runtime.incus_pool=gantry-btrfs").file(String::new()))
}

/// What there was to fail, for whoever has it replaced more often.
#[expect(clippy::print_stderr, reason = "a test says what it has measured")]
fn tell(outcome: &Value, took: Duration) {
    let seconds = took.as_secs_f32();
    eprintln!("{} upgrades in {seconds:.1} s: {}", upgrades(), outcome["counts"]);
}

/// When the container's init has started, in the machine's own time.
fn started(gantry: &Gantry, container: &Container) -> Result<String> {
    let output = gantry.cli(&["exec", &container.id, "--", "cat", "/proc/1/stat"])?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let fields = text.rsplit(')').next().unwrap_or_default();
    let field = fields.split_whitespace().nth(19).map(str::to_owned);
    field.with_context(|| format!("{text:?}: {}", String::from_utf8_lossy(&output.stderr)))
}

fn upgraded(gantry: &mut Gantry) -> Result<()> {
    let output = gantry.upgrade()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    ensure!(gantry.run_pid()? == gantry.pid()?, "run.json names the process that runs");
    Ok(())
}

/// What a refused upgrade says; the process that ran runs on.
fn refused(gantry: &mut Gantry) -> Result<String> {
    let pid = gantry.pid()?;
    let Output { status, stderr, .. } = gantry.upgrade()?;
    let said = String::from_utf8_lossy(&stderr).into_owned();
    ensure!(status.code() == Some(1), "{status}: {said}");
    ensure!(gantry.run_pid()? == pid && gantry.pid()? == pid, "it goes on: {said}");
    gantry.wait_200("https://api.gantry.localhost:8443/openapi.json", Duration::from_secs(5))?;
    Ok(said)
}

#[test]
fn nothing_fails_while_it_is_replaced() {
    walk_on(options().and_then(Gantry::prepare), |gantry| {
        let ssh = Ssh::new(gantry)?;
        let key = ssh.key("key", "ed25519")?;
        let project = gantry.create_project("upgrades")?;
        let more = ["--name", "served", "--ssh-public-key", &key.line];
        let container = gantry.create_running(&project, &more)?;
        streams::serve(gantry, &container)?;
        let init = started(gantry, &container)?;
        let stop = gantry.home().join("stop");
        let host = gantry.host(&container, "http-3000");
        let (token, file) = (gantry.token().to_owned(), stop.to_string_lossy().into_owned());
        let more = ["api.gantry.localhost", &token, &file];
        let mut load = Foreign::start(gantry, "upgraded.py", &host, &more)?;
        load.says("running")?;
        let mut session = Counter::over_ssh(&ssh, &key)?;
        let mut command = Counter::over_exec(gantry, &container)?;

        let (first, began) = (gantry.pid()?, Instant::now());
        for _ in 0..upgrades() {
            upgraded(gantry)?;
            session.count()?;
            command.count()?;
            // The new one has the container, and who comes gets in.
            ensure!(ssh.text(&key, "hostname")? == "served\n", "the new process takes sessions");
        }
        fs::write(&stop, "")?;
        let outcome: Value = serde_json::from_str(&load.line()?)?;
        tell(&outcome, began.elapsed());
        ensure!(outcome["failures"] == serde_json::json!([]), "{outcome}");
        for id in outcome["projects"].as_array().context("no list")? {
            let id = id.as_str().context("no id")?;
            gantry.json(&["projects", "get", id]).context("a project that was made")?;
        }
        ensure!(started(gantry, &container)? == init, "the container runs on");

        // The first process still has the sessions, and still knows whose key is whose.
        session.count()?;
        over(gantry, &container, &ssh, &key)?;
        gantry.json(&["containers", "update", &container.id, "--ssh-public-key", "null"])?;
        command.count()?;
        drop(command.client.stdin.take());
        ensure!(command.ended()?.success(), "the command ends well");
        let ended = session.ended()?;
        ensure!(ended.code() == Some(255), "{ended}");
        gantry.wait_ended(first, SOON)?;
        // What the last one does is done by nobody else: the container can be stopped and removed.
        gantry.json(&["containers", "manage", &container.id, "stop", "--wait"])?;
        gantry.json(&["-y", "containers", "delete", &container.id, "--wait"])?;
        Ok(())
    });
}

/// What a process that was replaced still has ends after `edge.drain_streams_s`, and the process with it.
fn over(gantry: &mut Gantry, container: &Container, ssh: &Ssh, key: &SshKey) -> Result<()> {
    fs::write(gantry.home().join("gantry.toml"), "[edge]\ndrain_streams_s = 1\n")?;
    upgraded(gantry)?;
    let brief = gantry.pid()?;
    let mut session = Counter::over_ssh(ssh, key)?;
    let mut command = Counter::over_exec(gantry, container)?;
    upgraded(gantry)?;
    gantry.wait_ended(brief, SOON)?;
    ensure!(session.ended()?.code() == Some(255), "the session is cut");
    ensure!(!command.ended()?.success(), "so is the command, over its WebSocket");
    Ok(())
}

/// Asks for a session of TLS, or for one that was; whether it was gone on with.
fn resumes(gantry: &Gantry, version: &str, how: &str) -> Result<bool> {
    let address = format!("{}:8443", gantry.address());
    let file = gantry.home().join(format!("session{version}"));
    let mut client = Command::new("openssl")
        .args(["s_client", "-ign_eof", version, how])
        .arg(&file)
        .args(["-connect", &address, "-servername", "api.gantry.localhost"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // Tickets of TLS 1.3 come after the handshake.
    let request =
        "GET /openapi.json HTTP/1.1\r\nHost: api.gantry.localhost\r\nConnection: close\r\n\r\n";
    client.stdin.as_mut().context("piped")?.write_all(request.as_bytes())?;
    let output = client.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(said.contains("HTTP/1.1 200"), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let (new, reused) = (said.contains("New, TLSv1."), said.contains("Reused, TLSv1."));
    ensure!(new || reused, "{said}");
    Ok(reused)
}

/// Sessions of TLS are gone on with by every process of the store.
fn go_on(gantry: &Gantry) -> Result<()> {
    for version in ["-tls1_3", "-tls1_2"] {
        ensure!(resumes(gantry, version, "-sess_in")?, "{version}: a new session");
    }
    Ok(())
}

#[test]
fn what_cannot_run_replaces_nothing() {
    let options = Options::fake().file("[edge]\nworkers = 2\n".to_owned());
    let prepared = Gantry::prepare(options).and_then(|mut gantry| {
        gantry.copy_program()?;
        Ok(gantry)
    });
    walk_on(prepared, |gantry| {
        let program = gantry.home().join("gantry");
        let config = gantry.home().join("gantry.toml");
        // A mistake in the configuration is told as `config check` tells it.
        fs::write(&config, "[edge]\nworkers = 0\n")?;
        let said = refused(gantry)?;
        ensure!(said.contains("edge.workers") && said.contains("nothing was replaced"), "{said}");
        fs::write(&config, "[edge]\nworkers = 1\n")?;

        // What shows late, when this one has let go of its containers: it takes them up again.
        let key = gantry.state().join("session.key");
        let octets = fs::read(&key)?;
        fs::write(&key, "too short")?;
        let said = refused(gantry)?;
        ensure!(said.contains("session.key holds no key"), "{said}");
        fs::write(&key, octets)?;
        let project = gantry.create_project("upgrades")?;
        gantry.create_running(&project, &[])?;

        // A program that ends, one that is none, and one that is gone.
        let whole = gantry.home().join("whole");
        fs::rename(&program, &whole)?;
        for (text, why) in [("#!/bin/sh\nexit 3\n", "exit status: 3"), ("nonsense", "cannot run")] {
            fs::write(&program, text)?;
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            fs::set_permissions(&program, mode)?;
            let said = refused(gantry)?;
            ensure!(said.contains(why), "{said}");
        }
        fs::remove_file(&program)?;
        ensure!(refused(gantry)?.contains("cannot run"), "there is no program");
        fs::rename(&whole, &program)?;

        // One that is killed while it starts.
        let (door, pid) = (gantry.state().join("next.sock"), gantry.pid()?);
        let killer = std::thread::spawn(move || kill_the_next(&door, pid));
        let said = refused(gantry)?;
        killer.join().map_err(|_panic| anyhow::anyhow!("the killer panicked"))??;
        ensure!(said.contains("has ended before"), "{said}");

        // And then one that can run, by a signal.
        let before = gantry.pid()?;
        signal("HUP", before)?;
        wait_until("another process runs", SOON, || {
            gantry.run_pid().is_ok_and(|pid| pid != before)
        })?;
        let pid = gantry.run_pid()?;
        gantry.follow(pid);
        gantry.wait_ended(before, SOON)?;
        gantry.wait_200("https://api.gantry.localhost:8443/openapi.json", SOON)
    });
}

/// Listens as a service manager does, and becomes the program that follows.
const MANAGER: &str = r"
import os, socket, sys
notify, address, *program = sys.argv[1:]
# All at once: one that is let go would close the number that it may have by itself.
listeners = [socket.create_server((address, port), reuse_port=False) for port in (8443, 2222)]
for number, listener in enumerate(listeners, 3):
    os.dup2(listener.fileno(), number)
    os.set_inheritable(number, True)
os.environ.update(LISTEN_FDS='2', LISTEN_PID=str(os.getpid()), NOTIFY_SOCKET=notify)
os.execv(program[0], program)
";

#[test]
fn a_service_manager_gives_the_ports_and_is_told() {
    let manager = tempfile::tempdir().map_err(anyhow::Error::from).and_then(|dir| {
        let socket = UnixDatagram::bind(dir.path().join("notify"))?;
        socket.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok((dir, socket))
    });
    let prepared = manager.and_then(|(dir, socket)| {
        let mut gantry = Gantry::prepare(Options::fake())?;
        let path = dir.path().join("notify").to_string_lossy().into_owned();
        let address = gantry.address().to_string();
        let program = ["python3", "-c", MANAGER].map(str::to_owned).into_iter();
        gantry.start_under(program.chain([path, address]).collect());
        Ok((gantry, (dir, socket)))
    });
    let (gantry, manager) = match prepared {
        Ok((gantry, manager)) => (Ok(gantry), Some(manager)),
        Err(error) => (Err(error), None),
    };
    walk_on(gantry, |gantry| {
        let (_dir, socket) = manager.context("no manager")?;
        let hear = || -> Result<String> {
            let mut said = [0; 4096];
            let count = socket.recv(&mut said)?;
            Ok(String::from_utf8_lossy(said.get(..count).unwrap_or_default()).into_owned())
        };
        let said = hear()?;
        ensure!(said.starts_with("READY=1\n"), "{said}");
        for _ in 0..2 {
            upgraded(gantry)?;
            let said = hear()?;
            ensure!(said.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{said}");
            let said = hear()?;
            ensure!(said.starts_with(&format!("MAINPID={}\nREADY=1\n", gantry.pid()?)), "{said}");
            // The first worker has the listener, and the others share it.
            let openapi = "https://api.gantry.localhost:8443/openapi.json";
            for _ in 0..5 {
                gantry.curl().fetch(openapi)?.expect(200)?;
            }
        }

        // What the manager runs for a reload ends when that has ended, and as well: by then it was told the rest.
        let before = gantry.pid()?;
        let Output { status, stderr, .. } = reload(gantry)?;
        ensure!(status.success(), "{}", String::from_utf8_lossy(&stderr));
        let pid = gantry.run_pid()?;
        ensure!(pid != before, "nothing was replaced");
        gantry.follow(pid);
        ensure!(hear()?.starts_with("RELOADING=1\n"), "it begins");
        let said = hear()?;
        ensure!(said.starts_with(&format!("MAINPID={pid}\nREADY=1\n")), "{said}");
        let key = gantry.state().join("session.key");
        let octets = fs::read(&key)?;
        fs::write(&key, "too short")?;
        let Output { status, stderr, .. } = reload(gantry)?;
        let why = String::from_utf8_lossy(&stderr).into_owned();
        ensure!(status.code() == Some(1) && why.contains("holds no key"), "{status}: {why}");
        ensure!(hear()?.starts_with("RELOADING=1\n"), "it begins");
        let said = hear()?;
        ensure!(said.starts_with("READY=1\nSTATUS=running; upgrade failed: "), "{said}");
        fs::write(&key, octets)?;
        ensure!(gantry.run_pid()? == pid, "the process goes on");
        Ok(())
    });
}

/// Runs what the unit for systemd says that a reload is, with this test's program and configuration.
fn reload(gantry: &Gantry) -> Result<Output> {
    let unit = fs::read_to_string(repository::root().join("scripts/systemd/gantry.service"))?;
    let value = |name: &str| unit.lines().find_map(|line| line.strip_prefix(name));
    // It tells of readiness, and only the command tells of failure.
    ensure!(value("Type=") == Some("notify"), "{unit}");
    let command = value("ExecReload=/usr/local/bin/gantry ").context("no ExecReload")?;
    let config = gantry.home().join("reload.toml");
    fs::write(&config, format!("[server]\nstate = \"{}\"\n", gantry.state().display()))?;
    let config = config.to_string_lossy();
    let words = command.split(' ').map(|word| word.replace("/etc/gantry.toml", &config));
    gantry.cli(&words.collect::<Vec<_>>())
}

#[test]
fn too_many_processes_before_make_room_and_none_is_forgotten() {
    let options = Options::fake().set("edge.drain_processes=1").set("edge.drain_timeout_s=1");
    walk_on(Gantry::prepare(options), |gantry| {
        let hold = |gantry: &Gantry| -> Result<Foreign> {
            let mut upload =
                Foreign::start(gantry, "uploads.py", "api.gantry.localhost", &["tcp"])?;
            upload.says("open")?;
            Ok(upload)
        };
        let mut pids = Vec::new();
        let mut next = |gantry: &mut Gantry| -> Result<()> {
            pids.push(gantry.pid()?);
            upgraded(gantry)
        };
        let mut first = hold(gantry)?;
        next(gantry)?;
        next(gantry)?;
        // The one between has nothing to do any more.
        let [oldest, between] = pids[..] else { bail!("{pids:?}") };
        gantry.wait_ended(between, SOON)?;
        let mut third = hold(gantry)?;
        let last = gantry.pid()?;
        upgraded(gantry)?;
        first.says("cut")?;
        gantry.wait_ended(oldest, SOON)?;
        ensure!(!gantry.has_ended(last)?, "one may go on");
        // And it ends with the one that runs.
        signal("TERM", gantry.pid()?)?;
        third.says("cut")?;
        gantry.wait_ended(last, SOON)?;
        gantry.wait_ended(gantry.pid()?, SOON)
    });
}

#[test]
fn a_crash_after_an_upgrade_leaves_http3_to_the_next_start() {
    let options = Options::fake().file("[edge]\nworkers = 2\n".to_owned());
    walk_on(Gantry::prepare(options), |gantry| {
        let upload = |gantry: &Gantry, mode: &str| -> Result<Foreign> {
            Foreign::start(gantry, "uploads.py", "api.gantry.localhost", &[mode])
        };
        let (mut streams, mut packets) = (upload(gantry, "tcp")?, upload(gantry, "http3")?);
        streams.says("open")?;
        packets.says("open")?;
        for version in ["-tls1_3", "-tls1_2"] {
            ensure!(!resumes(gantry, version, "-sess_out")?, "{version}: there was none");
        }
        let first = gantry.pid()?;
        upgraded(gantry)?;
        go_on(gantry)?;
        gantry.kill()?;
        gantry.start_again()?;
        go_on(gantry)?;
        // Its packets would have come to the first one otherwise, in part.
        upload(gantry, "many")?.says("done")?;
        packets.says("cut")?;
        // The rest of what the first one has goes on.
        ensure!(!gantry.has_ended(first)?, "it has an upload under way");
        drop(streams);
        gantry.wait_ended(first, SOON)
    });
}

/// Kills the process that comes to the door, as soon as it is there.
fn kill_the_next(door: &std::path::Path, running: u32) -> Result<()> {
    let mark = format!("GANTRY_HANDOVER_SOCKET={}", door.display());
    wait_until("the next process has started", Duration::from_secs(30), || {
        let Ok(entries) = fs::read_dir("/proc") else { return false };
        let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid: &u32| *pid != running).any(|pid| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let mut variables = environment.split(|octet| *octet == 0);
            let is_next = variables.clone().any(|variable| variable == mark.as_bytes());
            let passes_on = variables.any(|variable| variable.starts_with(b"GANTRY_HANDOVER_PASS"));
            is_next && !passes_on && signal("KILL", pid).is_ok()
        })
    })
}
