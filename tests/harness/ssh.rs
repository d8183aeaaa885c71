//! OpenSSH's client, and keys for it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::Gantry;

/// A home of keys that knows the host key of one Gantry.
#[derive(Debug)]
pub struct Ssh {
    dir: TempDir,
    address: String,
    port: u16,
}

/// A key in a file.
#[derive(Debug)]
pub struct SshKey {
    /// The file with the private key.
    pub file: PathBuf,
    /// The line of the public key.
    pub line: String,
}

impl Ssh {
    /// Takes the host key from what the API tells.
    pub fn new(gantry: &Gantry) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let config = gantry.json(&["meta"])?;
        let port = config["ssh_port"].as_u64().context("the API tells the port")?;
        let port = u16::try_from(port)?;
        let key = config["ssh_host_key"].as_str().context("the API tells the host key")?;
        fs::write(dir.path().join("known_hosts"), format!("gantry-under-test {key}\n"))?;
        Ok(Self { dir, address: gantry.address().to_string(), port })
    }

    /// A new key of this type.
    pub fn key(&self, name: &str, kind: &str) -> Result<SshKey> {
        let file = self.dir.path().join(name);
        let mut make = Command::new("ssh-keygen");
        make.args(["-q", "-N", "", "-t", kind, "-C", name, "-f"]).arg(&file);
        ensure!(make.status()?.success(), "ssh-keygen makes a key");
        let line = fs::read_to_string(file.with_extension("pub"))?;
        Ok(SshKey { file, line: line.trim().to_owned() })
    }

    /// A client (`ssh`, `sftp` or `scp`) that uses this key alone; `destination` and what follows are the
    /// caller's.
    pub fn client(&self, program: &str, key: &SshKey) -> Command {
        let mut client = Command::new("timeout");
        client.args(["60", program, "-F", "none"]);
        for option in self.options() {
            client.arg("-o").arg(option);
        }
        client.arg("-i").arg(&key.file).env_remove("SSH_AUTH_SOCK").env("LC_ALL", "C");
        client
    }

    /// What makes a client trust this Gantry and nobody else, and offer the key that it is told.
    pub fn options(&self) -> Vec<String> {
        vec![
            "BatchMode=yes".to_owned(),
            "IdentitiesOnly=yes".to_owned(),
            "StrictHostKeyChecking=yes".to_owned(),
            "HostKeyAlias=gantry-under-test".to_owned(),
            format!("Port={}", self.port),
            format!("UserKnownHostsFile={}", self.dir.path().join("known_hosts").display()),
        ]
    }

    /// `root@address`.
    pub fn destination(&self) -> String {
        format!("root@{}", self.address)
    }

    /// The port that Gantry takes connections on.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Where keys and whatever else of the test lie.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Runs a command line in the container of a key.
    pub fn run(&self, key: &SshKey, command: &str) -> Result<Output> {
        let mut client = self.client("ssh", key);
        Ok(client.arg(self.destination()).arg(command).output()?)
    }

    /// What a command line there prints, if it ends well.
    pub fn text(&self, key: &SshKey, command: &str) -> Result<String> {
        let output = self.run(key, command)?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{command}: {}: {errors}", output.status);
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
