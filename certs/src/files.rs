//! Files that are either there as a whole or not at all.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

/// Writes `contents` to `path` so that a crash leaves the old file or the new one, never a part.
/// The file has exactly the permissions `mode`, from the first octet on.
pub(crate) fn write(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let parent = path.parent().unwrap_or_else(|| Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = parent.join(format!(".{name}.{}", std::process::id()));
    // A leftover of a process that crashed and had this id; it might have other permissions.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let written = write_new(&temporary, contents, mode).and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = written {
        if let Err(left) = fs::remove_file(&temporary) {
            tracing::debug!(path = %temporary.display(), %left, "a temporary file stays behind");
        }
        return Err(error);
    }
    File::open(parent)?.sync_all()
}

fn write_new(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    // The process's umask may have taken bits away.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(contents)?;
    file.sync_all()
}

/// Reads a file of at most 64 KiB; nothing if there is none.
pub(crate) fn read(path: &Path) -> io::Result<Option<String>> {
    const LEN_MAX: u64 = 64 * 1024;
    match fs::metadata(path) {
        Ok(metadata) if metadata.len() > LEN_MAX => {
            Err(io::Error::new(io::ErrorKind::FileTooLarge, "longer than 64 KiB"))
        }
        Ok(_) => fs::read_to_string(path).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The permission bits that others than the owner have on a file.
pub(crate) fn bits_of_others(path: &Path) -> io::Result<u32> {
    Ok(fs::metadata(path)?.mode() & 0o077)
}

/// Whether a file with a secret is nobody else's to read; otherwise what to do.
pub fn owner_only(path: &Path) -> Result<(), String> {
    match bits_of_others(path) {
        Ok(0) => Ok(()),
        Ok(_) => Err("must be readable by its owner only: chmod 600".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Makes the directory, unless it is there, and holds it for this process until the lock is
/// dropped; waits for another process that holds it.
pub(crate) fn lock(dir: &Path) -> io::Result<File> {
    fs::create_dir_all(dir)?;
    let file = File::create(dir.join(".lock"))?;
    file.lock()?;
    Ok(file)
}
