//! What lies in the state directory.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// The paths below one state directory.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    dir: PathBuf,
}

/// Where a running Gantry is found; `run.json`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct RunFile {
    pub(crate) pid: u32,
    pub(crate) domain: String,
    pub(crate) server: String,
    pub(crate) api_url: String,
    pub(crate) url_port: u16,
    pub(crate) https: Vec<String>,
    pub(crate) http: Vec<String>,
    pub(crate) admin: String,
    pub(crate) ca: PathBuf,
}

/// The first administrator of a development installation; `admin.json`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct AdminFile {
    pub(crate) username: String,
    pub(crate) password: String,
}

impl Files {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.dir.join("store.db")
    }

    pub(crate) fn ca_dir(&self) -> PathBuf {
        self.dir.join("ca")
    }

    pub(crate) fn runtime_dir(&self) -> PathBuf {
        self.dir.join("runtime")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("gantry.sock")
    }

    pub(crate) fn access_log(&self) -> PathBuf {
        self.dir.join("access.log")
    }

    fn run(&self) -> PathBuf {
        self.dir.join("run.json")
    }

    fn admin(&self) -> PathBuf {
        self.dir.join("admin.json")
    }

    pub(crate) fn write_run(&self, run: &RunFile) -> io::Result<()> {
        replace(&self.run(), &serde_json::to_vec_pretty(run)?)
    }

    /// Nobody listens any more. Best effort: a stale file names a process that is gone.
    pub(crate) fn remove_run(&self) {
        drop(fs::remove_file(self.run()));
        drop(fs::remove_file(self.socket()));
    }

    pub(crate) fn write_admin(&self, admin: &AdminFile) -> io::Result<()> {
        replace(&self.admin(), &serde_json::to_vec_pretty(admin)?)
    }

    /// The credential that was kept at the first start, if it was.
    pub(crate) fn read_admin(&self) -> Option<AdminFile> {
        serde_json::from_slice(&fs::read(self.admin()).ok()?).ok()
    }
}

/// Writes a file whole or not at all, readable by its owner only.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("tmp");
    let mut file: File =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    fs::rename(&beside, path)
}
