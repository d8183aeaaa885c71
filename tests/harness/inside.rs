//! What happens in containers, by the OCI runtime itself.

use std::{
    process::{Command, Output, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{Container, Gantry};
use crate::wait_until;

impl Gantry {
    /// Runs a command inside a container by the OCI runtime itself, behind Gantry's back.
    pub fn inside(&self, container: &Container, argv: &[&str]) -> Result<Output> {
        self.runc(&[&["exec", &container.id], argv].concat())
    }

    /// Starts a program inside a container that goes on by itself. A container that has just been
    /// started may need a moment until its init takes orders.
    pub fn start_inside(&self, container: &Container, argv: &[&str]) -> Result<()> {
        let run = [&["systemd-run", "--quiet", "--collect"], argv].concat();
        let mut said = String::new();
        wait_until("the container takes orders", Duration::from_secs(30), || {
            self.inside(container, &run).is_ok_and(|output| {
                said = String::from_utf8_lossy(&output.stderr).into_owned();
                output.status.success()
            })
        })
        .with_context(|| said.clone())
    }

    /// The process id of a container's init on the host.
    pub fn init_pid(&self, container: &Container) -> Result<u64> {
        let output = self.runc(&["state", &container.id])?;
        let state: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        state["pid"].as_u64().filter(|pid| *pid != 0).context("the container has no init")
    }

    /// The ids of the containers that the OCI runtime knows.
    pub fn runc_list(&self) -> Result<Vec<String>> {
        let output = self.runc(&["list", "-q"])?;
        Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
    }

    fn runc(&self, args: &[&str]) -> Result<Output> {
        Command::new("runc")
            .arg("--root")
            .arg(self.state().join("runtime/runc"))
            .args(args)
            .stdin(Stdio::null())
            .output()
            .context("cannot run runc")
    }
}
