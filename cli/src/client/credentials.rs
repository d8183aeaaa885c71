//! The credentials file: what `gantry login` keeps, `0600`, in the user's configuration directory.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use crate::{
    config::user_config_dir,
    exit::{Class, Failure},
};

/// A session with one API.
#[derive(Deserialize, Serialize)]
pub(super) struct Saved {
    pub(super) api_url: String,
    pub(super) token: String,
    pub(super) ca: Option<PathBuf>,
}

fn path() -> PathBuf {
    user_config_dir().join("credentials.json")
}

/// The session that was kept, if one was.
pub(super) fn load() -> Result<Option<Saved>, Failure> {
    let path = path();
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failure(&error)),
    };
    match serde_json::from_str(&text) {
        Ok(saved) => Ok(Some(saved)),
        Err(error) => Err(Failure::new(
            Class::General,
            format!("the credentials file {} is damaged: {error}", path.display()),
        )
        .hint("remove it and log in again")),
    }
}

/// Keeps a session; readable by its owner only, and never half written.
pub(super) fn save(saved: &Saved) -> Result<PathBuf, Failure> {
    let path = path();
    let text = serde_json::to_string_pretty(saved)
        .map_err(|error| Failure::new(Class::General, error.to_string()))?;
    let write = || {
        let directory = path.parent().unwrap_or(&path);
        fs::create_dir_all(directory)?;
        let beside = path.with_extension(format!("{}.tmp", std::process::id()));
        let mut file: File =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, &path)
    };
    write().map_err(|error| failure(&error))?;
    Ok(path)
}

/// Forgets the session. Forgetting twice is fine.
pub(super) fn forget() -> Result<(), Failure> {
    match fs::remove_file(path()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failure(&error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn failure(error: &io::Error) -> Failure {
    Failure::new(Class::General, format!("the credentials file {}: {error}", path().display()))
}
