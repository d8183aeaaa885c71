//! Runs the OCI runtime.
//!
//! Its log goes to memory that it opens through `/proc`, so that neither a file is left behind nor
//! the init inherits a pipe to us.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::{fd::AsRawFd as _, unix::fs::FileExt as _},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use gantry_model::ContainerId;
use rustix::fs::{MemfdFlags, memfd_create};
use serde::Deserialize;
use tokio::process::Command;

use crate::{Error, Result};

/// No call takes longer on a host that works.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Where the OCI runtime finds programs of its own.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The OCI runtime and where it keeps its state.
#[derive(Debug)]
pub(super) struct Runc {
    program: PathBuf,
    root: PathBuf,
}

/// Memory that another process can open as a file for as long as this value lives.
#[derive(Debug)]
pub(super) struct Memory(File);

impl Memory {
    /// Memory with this content.
    pub(super) fn new(content: &[u8]) -> io::Result<Self> {
        let file = File::from(memfd_create("gantry", MemfdFlags::CLOEXEC)?);
        file.write_all_at(content, 0)?;
        Ok(Self(file))
    }

    /// Where a process of the same pid namespace finds it.
    pub(super) fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()).into()
    }

    /// What is in it, at most 64 KiB.
    fn content(&self) -> String {
        let mut bytes = vec![0; 64 << 10];
        let read = self.0.read_at(&mut bytes, 0).unwrap_or(0);
        bytes.truncate(read);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The last error that was logged in it.
    pub(super) fn last_error(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Line {
            level: String,
            msg: String,
        }
        let content = self.content();
        let mut lines = content.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
        lines.rfind(|line| line.level == "error").map(|line| line.msg)
    }
}

impl Runc {
    pub(super) fn new(program: PathBuf, root: PathBuf) -> Self {
        Self { program, root }
    }

    /// A command to be completed and run by the caller; it writes its errors to `log`.
    pub(super) fn command(&self, log: &Memory) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("--root")
            .arg(&self.root)
            .arg("--log")
            .arg(log.path())
            .args(["--log-format", "json"])
            // Our environment may hold secrets.
            .env_clear()
            .env("PATH", PATH)
            .kill_on_drop(true);
        command
    }

    /// Makes the container's processes-to-be: namespaces, control groups, mounts; returns the number
    /// of the init, which waits.
    pub(super) async fn create(
        &self,
        id: ContainerId,
        bundle: &Path,
        pid_file: &Path,
    ) -> Result<u32> {
        let what = "creating the container's processes";
        let args = [
            OsStr::new("create"),
            OsStr::new("--bundle"),
            bundle.as_os_str(),
            OsStr::new("--pid-file"),
            pid_file.as_os_str(),
        ];
        self.run(what, &args, id, &[]).await?;
        read_pid(pid_file).ok_or_else(|| Error::failed(what, "it left no process number"))
    }

    /// Lets the init go.
    pub(super) async fn start(&self, id: ContainerId) -> Result<()> {
        self.run("starting the container", &[OsStr::new("start")], id, &[]).await
    }

    /// Sends a signal to the init.
    pub(super) async fn signal(&self, id: ContainerId, signal: &str) -> Result<()> {
        self.run("signalling the container", &[OsStr::new("kill")], id, &[signal]).await
    }

    /// Freezes all processes.
    pub(super) async fn pause(&self, id: ContainerId) -> Result<()> {
        self.run("pausing the container", &[OsStr::new("pause")], id, &[]).await
    }

    /// Thaws all processes.
    pub(super) async fn resume(&self, id: ContainerId) -> Result<()> {
        self.run("resuming the container", &[OsStr::new("resume")], id, &[]).await
    }

    /// Whether it knows the container, in whatever state.
    pub(super) fn knows(&self, id: ContainerId) -> bool {
        self.root.join(id.to_string()).exists()
    }

    /// Whether the init of a container that was created still waits to be let go.
    pub(super) fn waits(&self, id: ContainerId) -> bool {
        // The pipe that it waits at; whoever lets it go removes this.
        self.root.join(id.to_string()).join("exec.fifo").exists()
    }

    /// Kills what is left of the container and forgets it.
    pub(super) async fn delete(&self, id: ContainerId) -> Result<()> {
        if !self.knows(id) {
            return Ok(());
        }
        let args = [OsStr::new("delete"), OsStr::new("--force")];
        let result = self.run("removing the container's processes", &args, id, &[]).await;
        if result.is_err() && self.knows(id) {
            // A crash between making the directory and the state in it leaves one that it can
            // neither load nor delete; there are no processes then.
            let dir = self.root.join(id.to_string());
            if !dir.join("state.json").exists() && !dir.join("status").exists() {
                return std::fs::remove_dir_all(dir)
                    .map_err(|error| Error::failed("removing the container's processes", error));
            }
        }
        result
    }

    async fn run(
        &self,
        what: &'static str,
        args: &[&OsStr],
        id: ContainerId,
        more: &[&str],
    ) -> Result<()> {
        let log = Memory::new(b"").map_err(|error| Error::failed(what, error))?;
        let mut command = self.command(&log);
        command.args(args).arg(id.to_string()).args(more);
        // Never a pipe: the init inherits these.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(|error| Error::failed(what, error))?;
        let status = tokio::time::timeout(CALL_TIMEOUT, child.wait())
            .await
            .map_err(|_elapsed| timed_out(what, CALL_TIMEOUT))?
            .map_err(|error| Error::failed(what, error))?;
        if status.success() {
            return Ok(());
        }
        let why = log.last_error().unwrap_or_else(|| format!("runc ended with {status}"));
        Err(Error::failed(what, why))
    }
}

/// The error for what took longer than it may.
pub(super) fn timed_out(what: &'static str, after: Duration) -> Error {
    Error::Timeout { what, after_ms: u64::try_from(after.as_millis()).unwrap_or(u64::MAX) }
}

/// The number in a pid file; the file is there whole or not at all.
pub(super) fn read_pid(path: &Path) -> Option<u32> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}
