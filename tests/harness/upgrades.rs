//! Processes that follow one another.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Output},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{Gantry, binary};
use crate::{wait_for, wait_until};

/// Processes that another one has followed.
#[derive(Debug, Default)]
pub(super) struct Before {
    pub(super) child: Option<Child>,
    pub(super) others: Vec<u32>,
}

impl Gantry {
    /// The process id of the running Gantry.
    pub fn pid(&self) -> Result<u32> {
        if let Some(pid) = self.followed {
            return Ok(pid);
        }
        Ok(self.child.as_ref().context("Gantry does not run")?.id())
    }

    /// Has it started by another program, which becomes it.
    pub fn start_under(&mut self, program: Vec<String>) {
        self.under = program;
    }

    /// Has it run from a copy of the program, which the test may replace; returns where that is.
    pub fn copy_program(&mut self) -> Result<PathBuf> {
        let copy = self.dir.path().join("gantry");
        fs::copy(binary()?, &copy).context("a copy of the program")?;
        Ok(self.program.insert(copy).clone())
    }

    /// Has the program and the configuration that are there now replace the running Gantry, by `gantry
    /// upgrade`; returns what that says.
    pub fn upgrade(&mut self) -> Result<Output> {
        let before = self.pid()?;
        let mut command = Command::new(binary()?);
        self.environment(&mut command);
        command.args(["-o", "json", "upgrade", "--state"]).arg(self.state());
        let output = command.output().context("cannot run gantry upgrade")?;
        if output.status.success() {
            let upgraded: Value = serde_json::from_slice(&output.stdout)?;
            let pid = upgraded["pid"].as_u64().context("no process")?;
            ensure!(upgraded["before"] == before, "{upgraded}");
            self.follow(u32::try_from(pid)?);
        }
        Ok(output)
    }

    /// This process runs now, and the one before ends with what it has under way.
    pub fn follow(&mut self, pid: u32) {
        match (self.child.take(), self.followed.replace(pid)) {
            (Some(child), _) => self.before.child = Some(child),
            (None, Some(before)) => self.before.others.push(before),
            (None, None) => {}
        }
    }

    /// The process that `run.json` names.
    pub fn run_pid(&self) -> Result<u32> {
        let pid = self.run_file()?["pid"].as_u64().context("no process")?;
        Ok(u32::try_from(pid)?)
    }

    /// Waits until a process that was followed has ended.
    pub fn wait_ended(&mut self, pid: u32, bound: Duration) -> Result<()> {
        wait_until(&format!("process {pid} has ended"), bound, || {
            self.has_ended(pid).unwrap_or(false)
        })
    }

    /// Whether a process that was followed has ended.
    pub fn has_ended(&mut self, pid: u32) -> Result<bool> {
        match self.before.child.as_mut().filter(|child| child.id() == pid) {
            Some(child) => Ok(child.try_wait()?.is_some()),
            None => Ok(has_ended(pid)),
        }
    }

    /// Ends the process that has followed, and whatever is left of those before it. Best effort.
    pub(super) fn end_followed(&mut self) {
        if let Some(pid) = self.followed.take() {
            drop(signal("TERM", pid));
            let bound = Duration::from_secs(45);
            if wait_until("Gantry ends", bound, || has_ended(pid)).is_err() {
                drop(signal("KILL", pid));
            }
        }
        // Those before end with the last one; one that does not must not outlive the test.
        for pid in std::mem::take(&mut self.before.others) {
            let bound = Duration::from_secs(10);
            if wait_until("it ends", bound, || has_ended(pid)).is_err() {
                drop(signal("KILL", pid));
            }
        }
        if let Some(mut child) = self.before.child.take() {
            let ended =
                wait_for("it ends", Duration::from_secs(10), || child.try_wait().ok().flatten());
            if ended.is_err() {
                drop(child.kill());
                drop(child.wait());
            }
        }
    }
}

/// Whether a process that is nobody's child here is gone, or waits to be buried.
pub(super) fn has_ended(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
}

/// Sends a signal.
pub fn signal(name: &str, pid: u32) -> Result<()> {
    let status = Command::new("kill").args(["-s", name, &pid.to_string()]).status()?;
    ensure!(status.success(), "kill -s {name} {pid}: {status}");
    Ok(())
}
