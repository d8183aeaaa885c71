//! What lies in the state directory.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use gantry_model::ServerName;
use serde::{Deserialize, Serialize};

/// The paths below one state directory.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    dir: PathBuf,
}

/// The most keys of the file that secrets are sealed with.
const SEALING_KEYS_MAX: usize = 16;

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
    pub(crate) ssh: Vec<String>,
    /// The host key of SSH, as in a file `known_hosts` after the name.
    pub(crate) ssh_host_key: String,
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

    /// The same of a server beside the first.
    pub(crate) fn runtime_dir_of(&self, server: &ServerName) -> PathBuf {
        self.dir.join("servers").join(server.as_str()).join("runtime")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("gantry.sock")
    }

    /// Where the next process comes to be given what this one has.
    pub(crate) fn door(&self) -> PathBuf {
        self.dir.join("next.sock")
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

    /// The key that seals the sessions of browsers; made when there is none.
    pub(crate) fn session_key(&self) -> io::Result<[u8; 32]> {
        let path = self.dir.join("session.key");
        match fs::read(&path) {
            Ok(octets) => <[u8; 32]>::try_from(octets).map_err(|octets| {
                let (path, length) = (path.display(), octets.len());
                let why = format!("{path} holds no key: it has {length} octets and not 32");
                io::Error::new(io::ErrorKind::InvalidData, why)
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut key = [0; 32];
                getrandom::fill(&mut key).map_err(io::Error::other)?;
                replace(&path, &key)?;
                Ok(key)
            }
            Err(error) => Err(error),
        }
    }

    /// The keys that secrets in the store are sealed with, the oldest first; one is made when there is no
    /// file. Whoever adds a key to the end of the file has it used from the next start on.
    pub(crate) fn sealing_keys(&self) -> io::Result<Vec<[u8; 32]>> {
        let path = self.dir.join("sealing.key");
        match fs::read(&path) {
            Ok(octets) => {
                let (keys, rest) = octets.as_chunks::<32>();
                if (1..=SEALING_KEYS_MAX).contains(&keys.len()) && rest.is_empty() {
                    return Ok(keys.to_vec());
                }
                let (path, length) = (path.display(), octets.len());
                let why = format!(
                    "{path} holds no keys: it has {length} octets and not 32 for each of 1 to \
                     {SEALING_KEYS_MAX} keys"
                );
                Err(io::Error::new(io::ErrorKind::InvalidData, why))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut key = [0; 32];
                getrandom::fill(&mut key).map_err(io::Error::other)?;
                replace(&path, &key)?;
                // What is sealed with it may be on the disk before the file's name otherwise is.
                File::open(&self.dir)?.sync_all()?;
                Ok(vec![key])
            }
            Err(error) => Err(error),
        }
    }

    pub(crate) fn write_run(&self, run: &RunFile) -> io::Result<()> {
        replace(&self.run(), &json(run)?)
    }

    /// Nobody listens any more. Best effort: a stale file names a process that is gone.
    pub(crate) fn remove_run(&self) {
        drop(fs::remove_file(self.run()));
        drop(fs::remove_file(self.socket()));
    }

    pub(crate) fn write_admin(&self, admin: &AdminFile) -> io::Result<()> {
        replace(&self.admin(), &json(admin)?)
    }

    /// The credential that was kept at the first start, if it was.
    pub(crate) fn read_admin(&self) -> Option<AdminFile> {
        serde_json::from_slice(&fs::read(self.admin()).ok()?).ok()
    }
}

fn json(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    Ok(text)
}

/// Writes a file whole or not at all, readable by its owner only.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("tmp");
    let mut file: File =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_key_of_sessions_is_made_once_and_is_nobody_elses() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::new(directory.path());
        let key = files.session_key().unwrap();
        assert_eq!(files.session_key().unwrap(), key);
        let path = directory.path().join("session.key");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, &key[1..]).unwrap();
        let error = files.session_key().unwrap_err().to_string();
        assert!(error.contains("session.key holds no key: it has 31 octets"), "{error}");
        fs::remove_file(&path).unwrap();
        assert_ne!(files.session_key().unwrap(), key);
    }

    #[test]
    fn keys_that_seal_are_made_once_and_can_be_added_to() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::new(directory.path());
        let first = files.sealing_keys().unwrap();
        assert_eq!((first.len(), files.sealing_keys().unwrap()), (1, first.clone()));
        let path = directory.path().join("sealing.key");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let both = [first[0], [7; 32]];
        fs::write(&path, both.concat()).unwrap();
        assert_eq!(files.sealing_keys().unwrap(), both);
        for length in [0, 31, 33, 32 * 17] {
            fs::write(&path, vec![1; length]).unwrap();
            let error = files.sealing_keys().unwrap_err().to_string();
            assert!(error.contains(&format!("it has {length} octets")), "{error}");
        }
    }
}
