//! The real binary in a corner of the machine of its own: state directory, loopback address, bridge,
//! subnet, control group.

use std::{
    ffi::OsStr,
    fs::{self, OpenOptions, Permissions},
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

mod inside;
mod upgrades;

pub use self::upgrades::signal;
use self::upgrades::{Before, has_ended};
use crate::{Curl, free_subnet, wait_for, wait_until};

/// How long Gantry may take until it is ready. Generous: machines are shared.
const READY: Duration = Duration::from_mins(1);
/// How long a container may take until it runs, with its image cached. The first test on a fresh
/// machine builds the image, which the test runner's own limit bounds.
const RUNNING_S: u32 = 600;

/// How a test wants its Gantry.
#[derive(Clone, Debug)]
pub struct Options {
    /// `section.key=value` pairs.
    pub set: Vec<String>,
    /// The configuration file, for what pairs cannot say.
    pub file: Option<String>,
    /// The operator's domain.
    pub domain: String,
    /// A PEM file with what certificates are trusted by besides the development CA.
    pub ca: Option<PathBuf>,
}

impl Options {
    /// With real containers.
    pub fn embedded() -> Self {
        Self { set: Vec::new(), file: None, domain: "gantry.localhost".to_owned(), ca: None }
    }

    /// With containers of the Incus at this socket, in a project of the test's own.
    pub fn incus(socket: &str) -> Self {
        let pid = std::process::id();
        let set = [
            "runtime.kind=incus".to_owned(),
            format!("runtime.incus_socket={socket}"),
            format!("runtime.incus_project=gantrytest-{pid}"),
        ];
        Self { set: set.into(), ..Self::embedded() }
    }

    /// Without containers, for what does not need them.
    pub fn fake() -> Self {
        Self { set: vec!["runtime.kind=fake".to_owned()], ..Self::embedded() }
    }

    /// With a configuration file of this text.
    #[must_use]
    pub fn file(mut self, text: String) -> Self {
        self.file = Some(text);
        self
    }

    /// With another domain, and certificates that are trusted by this file, too.
    #[must_use]
    pub fn domain(mut self, domain: &str, ca: &Path) -> Self {
        self.set.push(format!("server.domain={domain}"));
        domain.clone_into(&mut self.domain);
        self.ca = Some(ca.to_owned());
        self
    }

    /// With one more key.
    #[must_use]
    pub fn set(mut self, pair: &str) -> Self {
        self.set.push(pair.to_owned());
        self
    }
}

/// A container and the project it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Container {
    /// The project's id.
    pub project: String,
    /// The container's id.
    pub id: String,
}

/// One Gantry.
#[derive(Debug)]
pub struct Gantry {
    dir: TempDir,
    options: Options,
    address: Ipv4Addr,
    bridge: String,
    subnet: String,
    child: Option<Child>,
    /// The process that runs after an upgrade, which is nobody's child here, and those before it.
    followed: Option<u32>,
    before: Before,
    /// The program, if it is a copy of this test's own.
    program: Option<PathBuf>,
    /// What starts it, if that is not this test itself; its own arguments come behind.
    under: Vec<String>,
    token: String,
}

/// Runs a test against a Gantry of its own. When it fails, the log is shown.
pub fn walk(options: Options, test: impl FnOnce(&mut Gantry) -> Result<()>) {
    walk_on(Gantry::prepare(options), test);
}

/// Runs a test against a Gantry whose corner of the machine is prepared.
#[expect(clippy::panic, reason = "this is how a test fails")]
pub fn walk_on(gantry: Result<Gantry>, test: impl FnOnce(&mut Gantry) -> Result<()>) {
    let result = gantry.and_then(Gantry::start).and_then(|mut gantry| {
        let result = test(&mut gantry);
        if result.is_err() {
            gantry.show_log();
        }
        gantry.end();
        result
    });
    if let Err(error) = result {
        panic!("{error:?}");
    }
}

impl Gantry {
    /// Starts it and logs in.
    fn start(mut self) -> Result<Self> {
        self.spawn()?;
        if let Err(error) = self.wait_ready().and_then(|()| self.log_in()) {
            self.show_log();
            self.end();
            return Err(error);
        }
        Ok(self)
    }

    /// The corner without anything running in it.
    pub fn prepare(options: Options) -> Result<Self> {
        // Test processes run beside each other, and a process id is theirs alone.
        let pid = std::process::id();
        let octet = |number: u32| u8::try_from(number % 250 + 1).unwrap_or(1);
        // Not below /tmp: containers' users must be able to pass through it.
        let dir = tempfile::Builder::new()
            .prefix("gantry-test-")
            .permissions(Permissions::from_mode(0o711))
            .tempdir_in("/var/tmp")
            .context("a state directory")?;
        Ok(Self {
            dir,
            options,
            address: Ipv4Addr::new(127, 77, octet(pid / 250), octet(pid)),
            bridge: format!("gt{pid}"),
            subnet: free_subnet(77)?,
            child: None,
            followed: None,
            before: Before::default(),
            program: None,
            under: Vec::new(),
            token: String::new(),
        })
    }

    /// The state directory.
    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// The address of this test's own.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Has it listen for HTTPS on one more address.
    pub fn also_on(&mut self, address: Ipv4Addr) {
        let own = self.address;
        let both = format!("edge.https=[\"{own}:8443\", \"{address}:8443\"]");
        self.options.set.push(both);
    }

    /// The bridge of its containers.
    pub fn bridge(&self) -> &str {
        &self.bridge
    }

    /// The command line that runs Gantry here.
    pub fn command(&self, mode: &[&str]) -> Result<Command> {
        let mut command = Command::new(binary()?);
        command.args(mode);
        let address = self.address;
        let sets = [
            format!("edge.https={address}:8443"),
            format!("edge.http={address}:8080"),
            format!("edge.ssh={address}:2222"),
            format!("edge.admin={address}:9090"),
            format!("runtime.bridge={}", self.bridge),
            format!("runtime.cgroup={}", self.bridge),
            format!("runtime.subnet={}", self.subnet),
        ];
        for pair in sets.iter().chain(&self.options.set) {
            command.args(["--set", pair]);
        }
        if let Some(text) = &self.options.file {
            let path = self.dir.path().join("gantry.toml");
            fs::write(&path, text).context("the configuration file")?;
            command.arg("--config").arg(path);
        }
        self.environment(&mut command);
        Ok(command)
    }

    fn dev(&self, more: &[&str]) -> Result<Command> {
        let mut command = self.command(&["dev", "--state"])?;
        // Flags may stand in any order, but the directory belongs behind its flag.
        let program =
            self.program.as_deref().map_or_else(|| command.get_program(), Path::as_os_str);
        let mut sorted = Command::new(program);
        sorted.args(["dev", "--state"]).arg(self.state()).args(more);
        sorted.args(command.get_args().skip(2));
        self.environment(&mut sorted);
        command = sorted;
        Ok(command)
    }

    fn environment(&self, command: &mut Command) {
        command
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.dir.path())
            .stdin(Stdio::null());
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("gantry.log")
    }

    /// What Gantry has said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn show_log(&self) {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(150)..).unwrap_or_default();
        // Standard error may be closed; then nobody reads it.
        drop(writeln!(io::stderr(), "--- Gantry's log ---\n{}\n---", tail.join("\n")));
    }

    /// Starts the process; does not wait.
    pub fn spawn(&mut self) -> Result<()> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())
            .context("the log file")?;
        let gantry = self.dev(&[])?;
        let mut above = Command::new(gantry.get_program());
        if let [program, args @ ..] = self.under.as_slice() {
            above = Command::new(program);
            above.args(args).arg(gantry.get_program());
        }
        self.environment(&mut above);
        let child = above
            .args(gantry.get_args())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start gantry")?;
        self.child = Some(child);
        Ok(())
    }

    /// Waits until `/readyz` says yes.
    pub fn wait_ready(&mut self) -> Result<()> {
        let pid = self.pid()?;
        let url = format!("http://{}:9090/readyz", self.address);
        let mut ended = None;
        wait_until("Gantry is ready", READY, || {
            ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            ended.is_some()
                // The administrator's credential is kept a moment after the requests are taken.
                || self.state().join("admin.json").exists()
                    && self.run_file().is_ok_and(|run| run["pid"] == pid)
                    && Command::new("curl")
                        .args(["-fsS", "-o", "/dev/null", "--noproxy", "*", &url])
                        .stderr(Stdio::null())
                        .status()
                        .is_ok_and(|status| status.success())
        })?;
        match ended {
            Some(status) => bail!("Gantry ended at its start: {status}"),
            None => Ok(()),
        }
    }

    fn run_file(&self) -> Result<Value> {
        Ok(serde_json::from_slice(&fs::read(self.state().join("run.json"))?)?)
    }

    /// The file of the CA.
    pub fn ca_path(&self) -> PathBuf {
        self.state().join("ca/ca.pem")
    }

    /// The first administrator's name, and the file of the password.
    pub fn administrator(&self) -> Result<(String, String)> {
        let admin: Value = serde_json::from_slice(
            &fs::read(self.state().join("admin.json")).context("admin.json")?,
        )?;
        let password = self.dir.path().join("password");
        fs::write(&password, text(&admin, "password")?)?;
        Ok((text(&admin, "username")?, password.to_string_lossy().into_owned()))
    }

    fn log_in(&mut self) -> Result<()> {
        let (username, password) = self.administrator()?;
        let login =
            ["login", "--username", &username, "--password-file", &password, "--print-token"];
        let output = self.cli(&login)?;
        ensure!(output.status.success(), "login: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().clone_into(&mut self.token);
        Ok(())
    }

    /// The home of the user that client commands run as.
    pub fn home(&self) -> &Path {
        self.dir.path()
    }

    /// The credential of the first administrator.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Runs a client command, as it is.
    pub fn cli<A: AsRef<OsStr>>(&self, args: &[A]) -> Result<Output> {
        self.cli_command(args)?.output().context("cannot run the client")
    }

    /// A client command that is still to be run.
    pub fn cli_command<A: AsRef<OsStr>>(&self, args: &[A]) -> Result<Command> {
        let mut command = self.client(args)?;
        if !self.token.is_empty() {
            command.env("GANTRY_TOKEN", &self.token);
        }
        Ok(command)
    }

    /// Runs a client command of somebody whose environment holds no credential.
    pub fn cli_anonymous<A: AsRef<OsStr>>(&self, args: &[A]) -> Result<Output> {
        self.client(args)?.output().context("cannot run the client")
    }

    /// Runs a client command under another program, which gets it behind `args` of its own.
    pub fn cli_under(
        &self,
        program: &str,
        args: &[&str],
        env: &[(&str, &str)],
        command: &[&str],
    ) -> Result<Output> {
        let client = self.client(command)?;
        let mut above = Command::new(program);
        self.environment(&mut above);
        for (name, value) in client.get_envs() {
            if let Some(value) = value {
                above.env(name, value);
            }
        }
        above.env("GANTRY_TOKEN", &self.token).envs(env.iter().copied());
        above.args(args).arg(client.get_program()).args(client.get_args());
        above.output().context("cannot run the program")
    }

    /// Starts a client command that goes on; what it prints is read from its pipe.
    pub fn cli_goes_on<A: AsRef<OsStr>>(&self, args: &[A]) -> Result<Child> {
        let mut command = self.client(args)?;
        command.env("GANTRY_TOKEN", &self.token).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().context("cannot run the client")
    }

    /// The file of everything that certificates are trusted by.
    pub fn trusted(&self) -> Result<PathBuf> {
        let Some(also) = &self.options.ca else { return Ok(self.ca_path()) };
        let both = [fs::read(self.ca_path())?, fs::read(also)?].concat();
        let path = self.dir.path().join("trusted.pem");
        fs::write(&path, both)?;
        Ok(path)
    }

    fn client<A: AsRef<OsStr>>(&self, args: &[A]) -> Result<Command> {
        let mut command = Command::new(binary()?);
        self.environment(&mut command);
        command
            .env("GANTRY_API_URL", format!("https://api.{}:8443", self.options.domain))
            .env("GANTRY_CONNECT", self.address.to_string())
            .env("GANTRY_CA", self.trusted()?)
            .args(args);
        Ok(command)
    }

    /// Runs a client command that must succeed, and reads the JSON that it prints.
    pub fn json(&self, args: &[&str]) -> Result<Value> {
        let output = self.cli(&[&["-o", "json"], args].concat())?;
        ensure!(
            output.status.success(),
            "gantry {}: {}\n{}",
            args.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        let text = String::from_utf8_lossy(&output.stdout);
        if text.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).with_context(|| format!("no JSON: {text}"))
    }

    /// Makes a project.
    pub fn create_project(&self, alias: &str) -> Result<String> {
        text(&self.json(&["projects", "create", "--alias", alias])?, "id")
    }

    /// Asks for a container and does not wait for it.
    pub fn create(&self, project: &str, more: &[&str]) -> Result<Container> {
        let args = [&["containers", "create", "--project", project], more].concat();
        let id = text(&self.json(&args)?, "id")?;
        Ok(Container { project: project.to_owned(), id })
    }

    /// Makes a container and waits until it runs.
    pub fn create_running(&self, project: &str, more: &[&str]) -> Result<Container> {
        let timeout = RUNNING_S.to_string();
        self.create(project, &[more, &["--wait", "--timeout", &timeout]].concat())
    }

    /// A field of a container.
    pub fn field(&self, container: &Container, name: &str) -> Result<String> {
        text(&self.json(&["containers", "get", &container.id])?, name)
    }

    /// Waits until a container has this status.
    pub fn wait_status(&self, container: &Container, status: &str, bound: Duration) -> Result<()> {
        wait_until(&format!("container {} is {status}", container.id), bound, || {
            self.field(container, "status").is_ok_and(|found| found == status)
        })
    }

    /// curl with this installation's CA, connecting here.
    pub fn curl(&self) -> Curl {
        Curl::new(&self.ca_path(), SocketAddr::new(self.address.into(), 8443))
    }

    /// curl to the port that redirects.
    pub fn curl_plain(&self) -> Curl {
        Curl::new(&self.ca_path(), SocketAddr::new(self.address.into(), 8080))
    }

    /// curl with the administrator's credential.
    pub fn curl_api(&self) -> Curl {
        self.curl().with(["-H".to_owned(), format!("Authorization: Bearer {}", self.token)])
    }

    /// A URL of the API.
    pub fn api_url(&self, path: &str) -> String {
        format!("https://api.{}:8443/api/v1/{path}", self.options.domain)
    }

    /// The authority of a service of a container.
    pub fn host(&self, container: &Container, label: &str) -> String {
        format!("{}-{}-{label}.local.containers.gantry.localhost", container.project, container.id)
    }

    /// A URL of a service of a container.
    pub fn url(&self, container: &Container, label: &str, path: &str) -> String {
        format!("https://{}:8443{path}", self.host(container, label))
    }

    /// Waits until a URL answers with 200.
    pub fn wait_200(&self, url: &str, bound: Duration) -> Result<()> {
        let curl = self.curl();
        let mut last = String::new();
        wait_until("a 200", bound, || {
            curl.fetch(url).is_ok_and(|answer| {
                last = format!("{} {} {}", answer.status, answer.complaint, answer.text());
                answer.status == 200
            })
        })
        .with_context(|| format!("{url} answered {last}"))
    }

    /// `kill -9`: no warning, no clean-up.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(pid) = self.followed.take() {
            signal("KILL", pid)?;
            return wait_until("Gantry ends", Duration::from_secs(45), || has_ended(pid));
        }
        let mut child = self.child.take().context("Gantry does not run")?;
        child.kill().context("cannot kill gantry")?;
        child.wait().context("gantry's end")?;
        Ok(())
    }

    /// Asks Gantry to end and waits until it has.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        let mut child = self.child.take().context("Gantry does not run")?;
        signal("TERM", child.id())?;
        let ended =
            wait_for("Gantry ends", Duration::from_secs(45), || child.try_wait().ok().flatten());
        if ended.is_err() {
            // Nothing may outlive the test.
            drop(child.kill());
            drop(child.wait());
        }
        ended
    }

    /// Starts it again on the same state and waits until it is ready.
    pub fn start_again(&mut self) -> Result<()> {
        self.spawn()?;
        self.wait_ready()
    }

    /// Ends everything and removes every trace. Best effort: a test has its result by now.
    fn end(&mut self) {
        self.end_followed();
        if self.child.is_some() {
            drop(self.stop());
        }
        if !self.options.set.iter().any(|pair| pair == "runtime.kind=fake") {
            match self.dev(&["--remove"]).and_then(|mut command| Ok(command.output()?)) {
                Ok(output) if output.status.success() => {}
                Ok(output) => {
                    let said = String::from_utf8_lossy(&output.stderr).into_owned();
                    drop(writeln!(io::stderr(), "dev --remove: {said}"));
                }
                Err(error) => drop(writeln!(io::stderr(), "dev --remove: {error}")),
            }
        }
    }
}

impl Drop for Gantry {
    fn drop(&mut self) {
        if self.child.is_some() || self.followed.is_some() {
            self.end();
        }
    }
}

/// The binary beside the test's own: `target/<profile>/gantry`.
pub fn binary() -> Result<PathBuf> {
    let test = std::env::current_exe().context("this test's own path")?;
    let profile = test.parent().and_then(Path::parent).context("an unusual target directory")?;
    let binary = profile.join("gantry");
    ensure!(binary.exists(), "{} is missing: cargo build -p gantry-cli makes it", binary.display());
    Ok(binary)
}

fn text(value: &Value, name: &str) -> Result<String> {
    value[name].as_str().map(str::to_owned).with_context(|| format!("no {name} in {value}"))
}
