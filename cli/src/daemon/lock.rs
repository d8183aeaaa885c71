//! One Gantry per state directory: a locked file that also says who holds it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt, OpenOptionsExt},
    },
    path::Path,
};

use rustix::fs::{FlockOperation, flock};

/// The lock; given back by the kernel when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
}

/// Why the state directory cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    /// Somebody has it.
    #[error("another gantry (process {pid}) runs on the state directory {dir}")]
    Held { pid: String, dir: String },
    /// The directory or the file in it cannot be used.
    #[error("cannot use the state directory {dir}")]
    Io {
        dir: String,
        #[source]
        source: io::Error,
    },
}

impl Lock {
    /// Makes the directory where it is missing and takes the lock. The directory may be passed
    /// through by others, because containers' mapped users must reach their files; secrets in it
    /// are readable by their owner only.
    pub(crate) fn take(dir: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Io { dir: dir.display().to_string(), source };
        fs::DirBuilder::new().recursive(true).mode(0o711).create(dir).map_err(failed)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(dir.join("gantry.lock"))
            .map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut pid = String::new();
                file.read_to_string(&mut pid).map_err(failed)?;
                let pid = pid.trim().to_owned();
                return Err(LockError::Held { pid, dir: dir.display().to_string() });
            }
            Err(error) => return Err(failed(error.into())),
        }
        let mut lock = Self { file };
        lock.sign().map_err(failed)?;
        Ok(lock)
    }

    /// The lock that another process has, too: it is the open file's, and lasts until the last one closes it.
    pub(crate) fn shared(file: OwnedFd) -> Self {
        Self { file: file.into() }
    }

    /// The same, for a process that is to follow this one.
    pub(crate) fn share(&self) -> io::Result<OwnedFd> {
        self.file.try_clone().map(OwnedFd::from)
    }

    /// Writes into the file that this process has it.
    pub(crate) fn sign(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        writeln!(self.file, "{}", std::process::id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_told_who_the_first_is() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::take(dir.path()).unwrap();
        let Err(LockError::Held { pid, .. }) = Lock::take(dir.path()) else {
            panic!("the lock was given twice");
        };
        assert_eq!(pid, std::process::id().to_string());
        // One that another process shares is held until that one ends, too.
        let second = Lock::shared(first.share().unwrap());
        drop(first);
        assert!(Lock::take(dir.path()).is_err());
        drop(second);
        Lock::take(dir.path()).unwrap();
    }
}
